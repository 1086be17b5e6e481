"""CUDA implementations of the primitives: Triton kernels, imported only for CUDA tensors."""
