"""The contract of an output layer: its methods and conventions.

The conventions are torch's own (``nn.Linear``, ``nn.AdaptiveLogSoftmaxWithLoss``), so that a layer
can be moved into any model. A layer is one file with one class, which defines which (hidden state,
row) pairs are scored, how the scores become a loss, and how they define a normalised distribution.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import ClassVar, Unpack, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from softmax_bench.errors import SoftmaxBenchError, check_positive, nearest
from softmax_bench.layers.cost import Cost, step_cost
from softmax_bench.layers.inputs import CheckedInputs
from softmax_bench.layers.options import (
    CommonOptions,
    Knob,
    Normalised,
    Reduction,
    as_counts,
    layer_options,
)
from softmax_bench.layers.precision import exactly, lowered
from softmax_bench.layers.tracing import traced_if_traceable
from softmax_bench.ops import accumulator, dense_gradient, untraced

_OF_ALL_SCORES = (
    "label_smoothing", "class_weight", "log_z_penalty", "soft_cap", "temperature"
)  # fmt: skip
"""Options of :class:`~softmax_bench.layers.all_classes.AllClassesLayer` that no other layer has."""


class OutputLayer(CheckedInputs, ABC):
    """A distribution over classes given a hidden state.

    Hidden states are converted to the parameters' dtype. Under ``torch.autocast``, the training
    step multiplies in the lower precision and sums in float32; exact evaluation stays in the
    parameters' dtype. Everything that a layer remembers between steps is a parameter or a buffer
    (``persistent=False`` keeps it out of the state dict), and it draws from torch's generators, so
    an interrupted training resumes exactly. Casting the module casts its parameters; buffers keep
    their precision (:class:`~softmax_bench.classes.kept_buffers.KeptBuffers`).

    Args:
        in_features: Size H of a hidden state.
        num_classes: Number V of classes.
        **common: See :class:`CommonOptions`.

    Raises:
        TypeError: The layer has no option of that name.
        SoftmaxBenchError: A size is not positive, or the counts are invalid.
    """

    name: ClassVar[str]
    """The layer's name in ``create_layer`` and the command line; the only required attribute."""
    scores: ClassVar[str] = "-"
    """The pairs that a training step scores, in a few words for the tables."""
    source: ClassVar[str] = "-"
    """The paper that describes the method."""
    good_for: ClassVar[str] = "-"
    """When to choose the layer, in a few words for the tables."""
    step_flops: ClassVar[str] = "-"
    """Floating-point operations of a training step as a formula in N, V, H and its options."""
    exact: ClassVar[bool] = False
    """Whether the training objective is the exact likelihood of the model, not an estimate."""
    normalised: ClassVar[Normalised] = "no"
    """How the probability of a class is known without a sum over all classes, if it is."""
    knobs: ClassVar[Mapping[str, Knob]] = MappingProxyType({})
    """Options of the layer that ``softmax-bench tune`` searches, besides the learning rate."""
    options_type: ClassVar[type[CommonOptions]] = CommonOptions
    """The keyword arguments of the constructor besides those in its signature."""
    needs_sorted_ids: ClassVar[bool] = False
    """Whether class ids must be frequency ranks; most layers rank classes by ``class_counts``."""
    sees_other_tokens: bool = False
    """Whether a token's loss depends on the other tokens of its batch, so that ignored ones must be
    removed.
    """
    traceable: ClassVar[bool] = False
    """Whether ``torch.compile`` may trace the layer, because it consists of torch's dense
    operations, with shapes that do not depend on data and without random draws. Otherwise, a
    compiled model runs it eagerly after a graph break.
    """
    capturable: ClassVar[bool] = True
    """Whether a CUDA graph can hold a training step, because the host neither waits for the device
    nor decides by anything that changes from step to step.
    """

    def __init__(self, in_features: int, num_classes: int, **common: Unpack[CommonOptions]) -> None:
        for what, size in (("in_features", in_features), ("num_classes", num_classes)):
            check_positive(what, size)
        for option in common.keys() - self.options_type.__annotations__.keys():
            known = layer_options(type(self))
            if option in _OF_ALL_SCORES and not getattr(self, "touches_all_rows", False):
                raise TypeError(
                    f"{type(self).__name__} has no option {option!r}: it needs the scores of all "
                    "classes, which a training step of this layer does not compute; full, "
                    "self_normalized and differentiated have it"
                )
            raise TypeError(
                f"{type(self).__name__} has no option {option!r}{nearest(option, known)}"
            )
        super().__init__()
        self.in_features = int(in_features)
        self.num_classes = int(num_classes)
        self.ignore_index = common.get("ignore_index", -100)
        self.reduction: Reduction = common.get("reduction", "mean")
        if self.reduction not in get_args(Reduction):
            raise SoftmaxBenchError(
                f"reduction must be 'mean', 'sum' or 'none', not {self.reduction!r}"
            )
        self.sparse = common.get("sparse", False)
        counts = common.get("class_counts")
        self._counts = None if counts is None else as_counts(counts, num_classes)

    @traced_if_traceable
    def forward(
        self,
        hidden: Float[Tensor, "*batch H"],
        target: Int[Tensor, "*batch"] | Int[Tensor, "*batch K"],
        weight: Float[Tensor, "*batch"] | None = None,
    ) -> Float[Tensor, ""] | Float[Tensor, "*batch"]:
        """The loss in nats: the mean, the sum, or one per token, according to ``reduction``.

        In training mode, this is the training objective. After ``eval()`` it is the exact negative
        log-likelihood, whatever the layer is trained with: ``exp`` of its mean is the perplexity.

        A token may have several positives. Its loss is then the mean of their losses, which is
        the cross-entropy with the distribution that gives each the same share (TensorFlow's
        ``num_true``; the normalised "pick all labels" loss of Menon et al. 2019). Each positive
        costs as much as a token.

        Args:
            hidden: Hidden states.
            target: Class of each token, or up to K classes, padded with ``ignore_index``. A class
                that is given twice has two shares.
            weight: Weight of each token's loss, of any sign (default 1). A mean is divided by the
                number of tokens that are not ignored, not by the sum of weights.

        Raises:
            SoftmaxBenchError: Shapes or targets are invalid, or hidden states are not finite. On a
                GPU, checking the last two would stall the queue, so a target outside the classes
                makes the loss NaN and the gradients zero; ``torch.autograd.detect_anomaly`` enables
                both checks everywhere.
        """
        self._check_tensor("hidden", hidden)
        self._check_tensor("target", target)
        if weight is not None and weight.shape != hidden.shape[:-1]:
            raise self._refusal(
                f"weight must have the shape {tuple(hidden.shape[:-1])} of the hidden states, one "
                f"per token, not {tuple(weight.shape)}"
            )
        several = target.dim() == hidden.dim() > 0
        if several:
            self._check_positives(hidden, target)
            hidden = hidden.unsqueeze(-2).expand(*target.shape, hidden.shape[-1])
            weight = None if weight is None else weight.unsqueeze(-1).expand(target.shape)
        flat = self._flatten(hidden)
        ids, kept = self._check_target(hidden, target)
        share = self._positive_shares(target) if several else kept
        weight = None if weight is None else weight.reshape(-1)
        counts = kept
        if self._leaves_out(kept):
            places = kept.nonzero().squeeze(1)
            flat, ids = flat.index_select(0, places), ids.index_select(0, places)
            share = share.index_select(0, places)
            weight = None if weight is None else weight.index_select(0, places)
            counts = torch.ones_like(ids, dtype=torch.bool)
        counted = coefficient = share.to(accumulator(flat.dtype))
        if self.training:
            flat, counted = lowered(flat), self._counted(coefficient, ids)
        if weight is not None:
            coefficient = coefficient * weight
        if self.reduction == "mean":
            total = self._num_targets(counted)
            coefficient = coefficient / torch.where(total > 0, total, 1)
        if self.training and self.reduction != "none":
            loss = self._weighted_loss(flat, ids, coefficient)
            self._check_loss(loss, flat, hidden.dtype)
            return self._marked(loss, target)
        losses = self._token_losses(flat, ids) if self.training else self._nll(flat, ids)
        losses = torch.where(counts, losses, 0.0) * coefficient
        self._check_loss(losses.detach().sum(), flat, hidden.dtype)
        if self.reduction != "none":
            return self._marked(self._sum(losses), target)
        if counts is not kept:
            losses = losses.new_zeros(kept.shape).masked_scatter(kept, losses)
        losses = self._marked(losses.view(target.shape), target)
        return losses.sum(-1) if several else losses

    def _leaves_out(self, kept: Tensor) -> bool:
        """Whether to drop ignored tokens before the loss, rather than weight their loss by 0.

        This is faster on a CPU. An accelerator would have to report how many they are, which it
        does only if ``_token_losses`` must not see them; ``_weighted_loss`` recognises them by
        their weight.
        """
        looks = kept.device.type == "cpu" or (self.sees_other_tokens and self.reduction == "none")
        return looks and not torch.compiler.is_compiling() and not bool(kept.all())

    @exactly
    def _nll(self, hidden: Tensor, target: Tensor) -> Tensor:
        return -self._target_log_prob(hidden, target)

    def _counted(self, kept: Tensor, target: Tensor) -> Tensor:
        """Each target's share in the divisor of the objective's mean."""
        return kept

    def _sum(self, losses: Tensor) -> Tensor:
        """The sum of the losses of all tokens."""
        return losses.sum()

    def _num_targets(self, kept: Tensor) -> Tensor:
        """The divisor of a mean, where ``kept`` (N,) is 1 for each target that is not ignored."""
        return kept.sum()

    @abstractmethod
    def _token_losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        """The differentiable loss of each token, for hidden (N, H) and target (N,)."""

    def _weighted_loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        """``sum_n coefficient_n loss_n`` for hidden (N, H), target (N,) and coefficient (N,).

        A layer that can compute its gradient in the same pass, given the coefficients, overrides
        this.
        """
        losses = self._token_losses(hidden, target)
        return torch.dot(losses, coefficient.to(losses.dtype))

    @abstractmethod
    def flops(self, num_tokens: int) -> float:
        """Floating-point operations of a step's matrix products, forward and backward."""

    def rows_touched(self, num_tokens: int) -> float:
        """Mean number of rows of each row-sparse parameter that get a gradient in a step.

        All of them, unless a layer with row-sparse gradients overrides this.
        """
        return self.num_classes

    def cost(self, num_tokens: int) -> Cost:
        """Cost of one training step on ``num_tokens`` targets."""
        return step_cost(
            self.parameters(),
            self.row_sparse_parameters(),
            flops=self.flops(num_tokens),
            rows_touched=self.rows_touched(num_tokens),
            hidden_numbers=num_tokens * self.in_features,
        )

    def settle(self) -> int:
        """Do the occasional work of training steps, which is rare late in training.

        A timing starts with it, so that its steps are like most steps of a long training.

        Returns:
            Number of steps between two such occasions late in training; 0 if there are none.
        """
        return 0

    @traced_if_traceable
    @exactly
    def log_prob(self, hidden: Float[Tensor, "*batch H"]) -> Float[Tensor, "*batch V"]:
        """Normalised log-probabilities of all classes, exact for the layer's distribution."""
        return self._log_prob(self._flatten(hidden)).view(*hidden.shape[:-1], self.num_classes)

    @traced_if_traceable
    @exactly
    def target_log_prob(
        self, hidden: Float[Tensor, "*batch H"], target: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        """Normalised log-probability of each target, 0 where it is ``ignore_index``.

        This never holds N x V numbers.
        """
        flat = self._flatten(hidden)
        ids, kept = self._check_target(hidden, target)
        log_prob = (self._target_log_prob(flat, ids) * kept).view(target.shape)
        return self._marked(log_prob, target)

    def unnormalized_target_log_prob(
        self, hidden: Float[Tensor, "*batch H"], target: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"] | None:
        """Log-probability without normalisation, for layers that learn normalised scores."""
        return None

    @untraced
    @torch.no_grad()
    @exactly
    def topk(
        self, hidden: Float[Tensor, "*batch H"], k: int
    ) -> tuple[Float[Tensor, "*batch k"], Int[Tensor, "*batch k"]]:
        """Log-probabilities, in descending order, and ids of the ``k`` most probable classes.

        Raises:
            SoftmaxBenchError: ``k`` is not in [1, V].
        """
        if not 1 <= k <= self.num_classes:
            raise self._refusal(f"k must be from 1 to {self.num_classes} classes, not {k}")
        values, classes = self._topk(self._flatten(hidden), k)
        shape = (*hidden.shape[:-1], k)
        return values.view(shape), classes.view(shape)

    @untraced
    @torch.no_grad()
    @exactly
    def sample(self, hidden: Float[Tensor, "*batch H"]) -> Int[Tensor, "*batch"]:
        """Draw one class from the distribution at each hidden state."""
        return self._sample(self._flatten(hidden)).view(hidden.shape[:-1])

    @abstractmethod
    def _log_prob(self, hidden: Tensor) -> Tensor: ...

    @abstractmethod
    def _target_log_prob(self, hidden: Tensor, target: Tensor) -> Tensor: ...

    @abstractmethod
    def _topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _sample(self, hidden: Tensor) -> Tensor: ...

    def row_sparse_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters with row-sparse gradients, which their optimiser must support."""
        return iter(())

    def _trained(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Parameters as read by a step that touches few rows; ``sparse`` decides their gradient."""
        if self.sparse:
            return weight, bias
        return dense_gradient(weight), None if bias is None else dense_gradient(bias)

    def _saving(self) -> list[str]:
        """Options that can reduce the memory of a step."""
        dense = self.sparse or type(self).row_sparse_parameters is OutputLayer.row_sparse_parameters
        unused = {"sparse"} if dense or getattr(self, "touches_all_rows", False) else set()
        return [option for option in layer_options(type(self)) if option not in unused]

    def extra_repr(self) -> str:
        """Shown by ``print(layer)``."""
        return f"in_features={self.in_features}, num_classes={self.num_classes}"
