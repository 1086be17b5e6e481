"""How a CPU computes the primitives: blocks that fit its caches, and buffers that are kept."""
