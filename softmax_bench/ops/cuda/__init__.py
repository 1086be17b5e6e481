"""How CUDA computes the primitives: Triton kernels, imported only when tensors are there."""
