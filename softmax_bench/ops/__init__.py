"""The numeric primitives that every output layer is made of.

A softmax approximation is a choice of which (hidden state, class row) pairs are scored:

* all of them: :func:`linear_cross_entropy`, and :func:`linear_nll` or :func:`token_sums` for any
  other loss;
* a subset of rows shared by all tokens: :func:`subset_cross_entropy`, :func:`subset_logistic`,
  and :func:`subset_scores` for any other loss on such scores;
* a sparse set of pairs: :func:`pair_scores`, or, where the rows of a token lie together,
  :func:`block_scores`.

:mod:`softmax_bench.ops.reference` has the plain formula of each. Beside each is its ``footprint``:
how many bytes it holds at once, by its own account.
"""

from softmax_bench.ops.all_classes import (
    cross_entropy_footprint,
    linear_cross_entropy,
    linear_nll,
    nll_footprint,
    plain_footprint,
    token_sums,
)
from softmax_bench.ops.blocks import (
    block_cross_entropy,
    block_footprint,
    block_scores,
    block_scores_bytes,
)
from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.cpu.exponentials import accumulator
from softmax_bench.ops.cpu.softmax_loss import log_sum_exp
from softmax_bench.ops.cpu.workspace import release_workspace
from softmax_bench.ops.draws import fill_up, tally
from softmax_bench.ops.embedding import embed_rows
from softmax_bench.ops.footprint import Amount, Footprint, in_turn
from softmax_bench.ops.objective import Terms, TokenSums
from softmax_bench.ops.pairs import pair_footprint, pair_scores
from softmax_bench.ops.paths import PathTable, path_losses
from softmax_bench.ops.rows import distinct, keep_coalesced, row_sparse
from softmax_bench.ops.shared_sample import subset_cross_entropy, subset_logistic
from softmax_bench.ops.subset_footprint import (
    logistic_footprint,
    scores_footprint,
    subset_footprint,
)
from softmax_bench.ops.subset_scores import subset_scores

__all__ = [
    "Amount",
    "Footprint",
    "PathTable",
    "Terms",
    "TokenSums",
    "accumulator",
    "block_cross_entropy",
    "block_footprint",
    "block_scores",
    "block_scores_bytes",
    "cross_entropy_footprint",
    "distinct",
    "embed_rows",
    "fill_up",
    "in_turn",
    "keep_coalesced",
    "linear_cross_entropy",
    "linear_nll",
    "log_sum_exp",
    "logistic_footprint",
    "nll_footprint",
    "pair_footprint",
    "pair_scores",
    "path_losses",
    "plain_footprint",
    "release_workspace",
    "row_sparse",
    "scores_footprint",
    "subset_cross_entropy",
    "subset_footprint",
    "subset_logistic",
    "subset_scores",
    "tally",
    "token_sums",
    "untraced",
]
