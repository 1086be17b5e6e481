"""CPU implementations of the primitives: blocks that fit the caches, and reused buffers."""
