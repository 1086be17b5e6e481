"""``python -m softmax_bench.cli``."""

from softmax_bench.cli import main

main()
