"""The numeric primitives that every output layer is made of.

A softmax approximation is a choice of which (hidden state, class row) pairs are scored:

* all of them: :func:`linear_cross_entropy`, :func:`linear_nll`;
* a subset of rows shared by all tokens: :func:`subset_cross_entropy`, :func:`subset_logistic`,
  and :func:`subset_scores` for any other loss on such scores;
* a sparse set of pairs: :func:`pair_scores`, or, where the rows of a token lie together,
  :func:`block_scores`.

:mod:`softmax_bench.ops.reference` has the plain formula of each.
"""

from softmax_bench.ops.blocks import block_cross_entropy, block_scores
from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.exponentials import accumulator
from softmax_bench.ops.linear import linear_cross_entropy, linear_nll
from softmax_bench.ops.pairs import pair_scores
from softmax_bench.ops.rows import distinct, embed_rows, keep_coalesced, row_sparse
from softmax_bench.ops.softmax_loss import log_sum_exp
from softmax_bench.ops.subset import subset_cross_entropy, subset_logistic
from softmax_bench.ops.subset_scores import subset_scores
from softmax_bench.ops.workspace import release_workspace

__all__ = [
    "accumulator",
    "block_cross_entropy",
    "block_scores",
    "distinct",
    "embed_rows",
    "keep_coalesced",
    "linear_cross_entropy",
    "linear_nll",
    "log_sum_exp",
    "pair_scores",
    "release_workspace",
    "row_sparse",
    "subset_cross_entropy",
    "subset_logistic",
    "subset_scores",
    "untraced",
]
