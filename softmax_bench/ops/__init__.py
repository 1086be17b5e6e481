"""The numeric primitives that every output layer is made of.

A softmax approximation is a choice of which (hidden state, class row) pairs are scored:

* all of them: :func:`linear_cross_entropy`, and :func:`linear_nll` or :func:`token_sums` for any
  other loss;
* a subset of rows shared by all tokens: :func:`subset_cross_entropy`, :func:`subset_logistic`,
  :func:`subset_blackout`, and :func:`subset_scores` for any other loss on such scores;
* a sparse set of pairs: :func:`pair_logistic` and :func:`pair_scores`, or, if the rows of a token
  are contiguous, :func:`block_scores`;
* all classes of a token's group, in a few dimensions: :func:`group_nll`.

:mod:`softmax_bench.ops.reference` has the plain formula of each.
"""

from softmax_bench.ops.all_classes import linear_cross_entropy, linear_nll, token_sums
from softmax_bench.ops.blocks import block_cross_entropy, block_scores
from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.cpu.exponentials import accumulator
from softmax_bench.ops.cpu.softmax_loss import log_sum_exp
from softmax_bench.ops.cpu.workspace import release_workspace
from softmax_bench.ops.draws import fill_up, tally
from softmax_bench.ops.embedding import embed_rows
from softmax_bench.ops.groups import Groups, group_cross_entropy, group_nll, group_tokens
from softmax_bench.ops.objective import Terms, TokenSums
from softmax_bench.ops.pair_logistic import pair_logistic
from softmax_bench.ops.pairs import pair_scores
from softmax_bench.ops.paths import PathTable, path_losses
from softmax_bench.ops.rows import dense_gradient, distinct, keep_coalesced, row_sparse
from softmax_bench.ops.shared_sample import (
    subset_blackout,
    subset_cross_entropy,
    subset_logistic,
)
from softmax_bench.ops.subset_scores import subset_scores

__all__ = [
    "Groups",
    "PathTable",
    "Terms",
    "TokenSums",
    "accumulator",
    "block_cross_entropy",
    "block_scores",
    "dense_gradient",
    "distinct",
    "embed_rows",
    "fill_up",
    "group_cross_entropy",
    "group_nll",
    "group_tokens",
    "keep_coalesced",
    "linear_cross_entropy",
    "linear_nll",
    "log_sum_exp",
    "pair_logistic",
    "pair_scores",
    "path_losses",
    "release_workspace",
    "row_sparse",
    "subset_blackout",
    "subset_cross_entropy",
    "subset_logistic",
    "subset_scores",
    "tally",
    "token_sums",
    "untraced",
]
