"""Shared by layers that score all classes: options of their loss, and statistics of each token.

The options follow torch's ``cross_entropy`` and published models. Each is differentiated in the
same pass as the loss, and none needs memory for N x V numbers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.base import OutputLayer
from softmax_bench.layers.options import CommonOptions
from softmax_bench.layers.precision import lowered
from softmax_bench.ops import Terms, TokenSums, accumulator
from softmax_bench.ops.objective import Objective


class AllClassesOptions(CommonOptions, total=False):
    """Further constructor arguments of layers that score all classes.

    These change the distribution that the layer defines, in training and evaluation:

    * ``temperature``: divisor of the scores (default 1).
    * ``soft_cap``: scores become ``soft_cap tanh(score / soft_cap)``, before the temperature
      (Gemma 2; default 0: none).

    These change the training objective only:

    * ``label_smoothing``: share of the target's probability that is spread evenly over all classes
      (Szegedy et al. 2016).
    * ``class_weight``: (V,) weight of each class, as in torch's ``cross_entropy``: a mean is
      divided by the sum of the targets' weights.
    * ``log_z_penalty``: weight of ``(log Z)^2`` (z-loss).
    """

    temperature: float
    soft_cap: float
    label_smoothing: float
    class_weight: Sequence[float] | Tensor | None
    log_z_penalty: float


class TokenStatistics(NamedTuple):
    """Statistics of the distribution at each token; all but ``correct`` are differentiable."""

    log_prob: Float[Tensor, "*batch"]
    """Log-probability of the target; 0 if it is ignored."""
    log_z: Float[Tensor, "*batch"]
    entropy: Float[Tensor, "*batch"]
    """Entropy in nats."""
    correct: Bool[Tensor, "*batch"]
    """Whether the target is the most probable class; false if it is ignored."""


class AllClassesLayer(OutputLayer):
    """An output layer whose training step scores every class."""

    options_type: ClassVar[type[CommonOptions]] = AllClassesOptions

    class_weight: Tensor | None

    def __init__(
        self, in_features: int, num_classes: int, **options: Unpack[AllClassesOptions]
    ) -> None:
        super().__init__(in_features, num_classes, **options)  # type: ignore[misc]
        self.temperature = options.get("temperature", 1.0)
        self.soft_cap = options.get("soft_cap", 0.0)
        self.label_smoothing = options.get("label_smoothing", 0.0)
        self.log_z_penalty = options.get("log_z_penalty", 0.0)
        if not self.temperature > 0:
            raise SoftmaxBenchError(f"temperature must be positive, not {self.temperature}")
        if not self.soft_cap >= 0:
            raise SoftmaxBenchError(f"soft_cap must be at least 0, not {self.soft_cap}")
        if not 0 <= self.label_smoothing < 1:
            raise SoftmaxBenchError(
                f"label_smoothing must be in [0, 1), not {self.label_smoothing}"
            )
        if not self.log_z_penalty >= 0:
            raise SoftmaxBenchError(f"log_z_penalty must be at least 0, not {self.log_z_penalty}")
        class_weight = options.get("class_weight")
        if class_weight is not None:
            class_weight = torch.as_tensor(class_weight).to(options.get("device")).float()
            fits = class_weight.shape == (num_classes,)
            if not fits or not bool((class_weight >= 0).all() & class_weight.isfinite().all()):
                raise SoftmaxBenchError(
                    f"class_weight must be {num_classes} finite numbers that are not negative, "
                    f"one per class, not {tuple(class_weight.shape)} numbers such as "
                    f"{class_weight.flatten()[:3].tolist()}"
                )
        self.register_buffer("class_weight", class_weight, persistent=False)

    @property
    def plain(self) -> bool:
        """Whether the training objective is just the likelihood."""
        return not self.label_smoothing and not self.log_z_penalty and self.class_weight is None

    @abstractmethod
    def _token_sums(self, hidden: Tensor, target: Tensor, terms: Terms) -> TokenSums:
        """Statistics of each token's scores, after temperature and cap, for ``hidden`` (N, H)."""

    def token_statistics(
        self, hidden: Float[Tensor, "*batch H"], target: Int[Tensor, "*batch"]
    ) -> TokenStatistics:
        """Log-probability, log-normaliser, entropy and accuracy of each token, in one pass.

        Memory is bounded for any N x V, even under differentiation. In training mode, products use
        mixed precision, as the loss does.
        """
        flat = self._flatten(hidden)
        if self.training:
            flat = lowered(flat)
        ids, kept = self._check_target(hidden, target)
        with torch.autocast(flat.device.type, enabled=False):
            sums = self._token_sums(flat, ids, Terms(expected=True, best=True))
        assert sums.expected_score is not None
        assert sums.best is not None
        log_prob = (sums.target_score - sums.log_z) * kept
        statistics = (
            log_prob,
            sums.log_z,
            sums.log_z - sums.expected_score,
            (sums.best == ids) & kept,
        )
        return TokenStatistics(*(of.view(target.shape) for of in statistics))

    def _token_losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        objective = self._objective(hidden)
        terms = Terms(class_weight=objective.class_weight, mean=bool(objective.label_smoothing))
        return objective.losses(self._token_sums(hidden, target, terms), target)

    def _objective(self, hidden: Tensor) -> Objective:
        """The training objective, for scores of these hidden states."""
        weight = self.class_weight
        if weight is not None:
            weight = weight.to(accumulator(hidden.dtype))
        return Objective(self.log_z_penalty, self.label_smoothing, self._cap, weight)

    def _target_log_prob(self, hidden: Tensor, target: Tensor) -> Tensor:
        sums = self._token_sums(hidden, target, Terms())
        return sums.target_score - sums.log_z

    def _counted(self, kept: Tensor, target: Tensor) -> Tensor:
        return kept if self.class_weight is None else kept * self.class_weight[target]

    def _flatten(self, hidden: Tensor) -> Tensor:
        flat = super()._flatten(hidden)
        return flat if self.temperature == 1 else flat / self.temperature

    def _capped(self, scores: Tensor) -> Tensor:
        cap = self._cap
        return cap * (scores / cap).tanh() if cap else scores

    @property
    def _cap(self) -> float:
        return self.soft_cap / self.temperature
