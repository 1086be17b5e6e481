"""Everything that only a GPU can tell, in eight minutes: ``python -m benchmarks.gpu``."""
