"""Losses on a subset of classes that all tokens share: one gather, then dense products.

``S`` distinct rows are gathered once and scored against all ``N`` tokens, 3 x 2NSH flop forward and
backward, for any number of classes; each token's own class adds a row-wise product. The gradient of
``weight`` and ``bias`` is coalesced and contains only the rows of the sample and of the targets.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from softmax_bench.ops.autograd import Gradients, Wanted, fused_loss, weighted_loss
from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.cpu import shared_sample


@untraced
def subset_cross_entropy(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    target: Int[Tensor, "N"],
    coefficient: Float[Tensor, "N"],
    rows: Int[Tensor, "S"],
    row_offset: Float[Tensor, "S"],
    target_offset: Float[Tensor, "N"],
    *,
    keep_hits: bool = False,
    penalty: float = 0.0,
) -> Float[Tensor, ""]:
    """Cross-entropy of each target against a shared sample of other classes.

    ``sum_n c_n (log z_n - t_n + penalty (log z_n)^2)`` with ``t_n = s_n,target(n) +
    target_offset_n`` and ``z_n = exp(t_n) + sum_{j: rows_j != target_n} exp(s_nj + row_offset_j)``.
    A sampled class that is the token's own target is left out for that token, since the target is
    already there.

    Args:
        hidden: Hidden states.
        weight: One row per class; its gradient is row-sparse.
        bias: One offset per class; its gradient is row-sparse.
        target: Class of each token.
        coefficient: Weight of each token in the sum.
        rows: Sampled classes, distinct and sorted.
        row_offset: Added to the scores of each sampled class: minus the log of its expected count.
        target_offset: Added to the score of each token's target.
        keep_hits: Whether a token's own target also counts as part of the sample.
        penalty: Weight of the squared ``log z``.
    """

    def loss(shares: Tensor) -> Tensor:
        def run(wanted: Wanted, h: Tensor, w: Tensor, b: Tensor | None) -> tuple[Tensor, Gradients]:
            return shared_sample.subset_cross_entropy(
                h, w, b, target, shares, rows, row_offset, target_offset,
                keep_hits=keep_hits, penalty=penalty,
            )  # fmt: skip

        return fused_loss(run, hidden, weight, bias)

    return weighted_loss(loss, coefficient, hidden.dtype)


@untraced
def subset_blackout(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    target: Int[Tensor, "N"],
    coefficient: Float[Tensor, "N"],
    rows: Int[Tensor, "S"],
    row_offset: Float[Tensor, "S"],
    row_count: Float[Tensor, "S"],
    target_offset: Float[Tensor, "N"],
) -> Float[Tensor, ""]:
    """BlackOut's loss of each target against a shared sample of other classes.

    ``sum_n c_n (log z_n - t_n - sum_j row_count_j log(1 - p_nj))`` with
    ``p_nj = exp(s_nj + row_offset_j) / z_n``, at most ``1 - 1e-6`` to bound the loss,
    ``t_n = s_n,target(n) + target_offset_n`` and ``z_n = exp(t_n) + sum_j row_count_j z_n p_nj``.
    A sampled class that is the token's own target is left out for that token.

    Args:
        hidden: Hidden states.
        weight: One row per class; its gradient is row-sparse.
        bias: One offset per class; its gradient is row-sparse.
        target: Class of each token.
        coefficient: Weight of each token in the sum.
        rows: Sampled classes, distinct and sorted.
        row_offset: Added to the scores of each sampled class: minus the log of its probability.
        row_count: How often each class was drawn.
        target_offset: Added to the score of each token's target.
    """

    def loss(shares: Tensor) -> Tensor:
        def run(wanted: Wanted, h: Tensor, w: Tensor, b: Tensor | None) -> tuple[Tensor, Gradients]:
            operands = h, w, b, target, shares, rows, row_offset, row_count, target_offset
            return shared_sample.subset_blackout(*operands)

        return fused_loss(run, hidden, weight, bias)

    return weighted_loss(loss, coefficient, hidden.dtype)


@untraced
def subset_logistic(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"] | None,
    log_z: Float[Tensor, ""],
    target: Int[Tensor, "N"],
    coefficient: Float[Tensor, "N"],
    rows: Int[Tensor, "S"],
    row_offset: Float[Tensor, "S"],
    row_count: Float[Tensor, "S"],
    target_offset: Float[Tensor, "N"],
) -> Float[Tensor, ""]:
    """Logistic loss that distinguishes each target from a shared sample of noise classes.

    ``sum_n c_n (softplus(-t_n) + sum_j row_count_j softplus(x_nj))`` with
    ``x_nj = s_nj - log_z + row_offset_j`` and ``t_n = s_n,target(n) - log_z + target_offset_n``.

    Args:
        hidden: Hidden states.
        weight: One row per class; its gradient is row-sparse.
        bias: One offset per class; its gradient is row-sparse.
        log_z: Subtracted from every score; it may be a parameter.
        target: Class of each token.
        coefficient: Weight of each token in the sum.
        rows: Sampled classes, distinct and sorted.
        row_offset: Added to the scores of each sampled class: minus log(k q).
        row_count: How often each class was drawn.
        target_offset: Added to the score of each token's target: minus log(k q) of that class.
    """

    def loss(shares: Tensor) -> Tensor:
        def run(
            wanted: Wanted, h: Tensor, w: Tensor, b: Tensor | None, z: Tensor
        ) -> tuple[Tensor, Gradients]:
            operands = h, w, b, z, target, shares, rows, row_offset, row_count, target_offset
            return shared_sample.subset_logistic(*operands)

        return fused_loss(run, hidden, weight, bias, log_z)

    return weighted_loss(loss, coefficient, hidden.dtype)
