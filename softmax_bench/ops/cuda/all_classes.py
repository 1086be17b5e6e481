"""Softmax over all classes on CUDA, by chunks of tokens for any loss."""

from softmax_bench.ops.token_chunks import cross_entropy, token_sum_gradients, token_sums

__all__ = ["cross_entropy", "token_sum_gradients", "token_sums"]
