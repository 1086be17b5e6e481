"""The parts of a race: inputs, competitors and their registry."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, isqrt

import torch
from torch import Tensor

from softmax_bench.measure import zipf_counts, zipf_targets

Step = Callable[[], float | None]
"""Runs forward and backward once; returns the loss if it should agree with others, else None."""


@dataclass(frozen=True)
class Inputs:
    """The inputs that all competitors of a race receive."""

    num_tokens: int
    hidden_size: int
    vocab_size: int
    num_samples: int | None
    hidden: Tensor
    weight: Tensor
    bias: Tensor
    target: Tensor


def make_inputs(
    num_tokens: int, hidden_size: int, vocab_size: int, num_samples: int | None
) -> Inputs:
    """Hidden states like an LSTM's, small weights, and targets that follow Zipf's law."""
    generator = torch.Generator().manual_seed(0)
    return Inputs(
        num_tokens,
        hidden_size,
        vocab_size,
        num_samples,
        hidden=torch.randn(num_tokens, hidden_size, generator=generator).tanh_(),
        weight=torch.randn(vocab_size, hidden_size, generator=generator).mul_(0.05),
        bias=torch.from_numpy(zipf_counts(vocab_size)).double().log_().float(),
        target=zipf_targets(num_tokens, vocab_size, seed=0),
    )


@dataclass(frozen=True)
class Competitor:
    """One implementation that takes part in a race."""

    name: str
    build: Callable[[Inputs], Step]
    needs: str | None
    """Name of a module that must be installed."""
    max_flops: float
    """Skip races in which full softmax would need more operations, as they would take minutes."""

    def missing(self) -> bool:
        """Whether the required module is missing."""
        return self.needs is not None and importlib.util.find_spec(self.needs) is None


@dataclass
class Race:
    """Competitors for the same work, ours first, and the sizes at which they are compared."""

    name: str
    sizes: Sequence[tuple[int, int, int | None]]
    """(tokens, vocabulary, samples)."""
    competitors: list[Competitor] = field(default_factory=list)


def scores_of_two_levels(vocab_size: int) -> int:
    """Scores per token in two-level softmax: all 4 sqrt(V) clusters, and the classes of one."""
    clusters = 4 * isqrt(vocab_size)
    return clusters + ceil(vocab_size / clusters)


TOKENS = (700, 4096)
RACES = {
    race.name: race
    for race in (
        Race("full softmax", [(700, v, None) for v in (100, 1000, 10_000, 100_000)]
             + [(4096, v, None) for v in (1000, 10_000, 100_000)]),
        Race("hierarchical softmax", [(n, v, None) for n in TOKENS for v in (10**4, 10**5, 10**6)]),
        Race("sampled softmax",
             [(700, v, s) for s in (1024, 8192) for v in (10**4, 10**5, 10**6)]
             + [(4096, v, s) for s in (1024, 8192) for v in (10**5,)]),
        Race("NCE, shared noise",
             [(700, v, s) for s in (1024, 8192) for v in (10**4, 10**5, 10**6)]
             + [(4096, v, s) for s in (1024, 8192) for v in (10**5,)]),
        Race("NCE, noise per token", [(700, v, 25) for v in (10**4, 10**5, 10**6)]),
        Race("adaptive softmax", [(n, v, None) for n in TOKENS for v in (10**5, 10**6)]),
        Race("two-level softmax",
             [(700, v, scores_of_two_levels(v)) for v in (10**3, 10**4, 10**5)]
             + [(4096, 10**5, scores_of_two_levels(10**5))]),
    )
}  # fmt: skip


def competes(
    race: str, name: str, *, needs: str | None = None, max_flops: float = math.inf
) -> Callable[[Callable[[Inputs], Step]], Callable[[Inputs], Step]]:
    """Enter a competitor into a race."""

    def enter(build: Callable[[Inputs], Step]) -> Callable[[Inputs], Step]:
        RACES[race].competitors.append(Competitor(name, build, needs, max_flops))
        return build

    return enter


def cutoffs(inputs: Inputs) -> list[int]:
    """Common cut-offs of adaptive softmax, each part with ten times as many classes as the last."""
    return [cut for cut in (2000, 20_000, 200_000) if cut < inputs.vocab_size]


def leaves(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, weight and bias that require gradients."""
    hidden = inputs.hidden.clone().requires_grad_()
    weight = torch.nn.Parameter(inputs.weight.clone())
    bias = torch.nn.Parameter(inputs.bias.clone())
    return hidden, weight, bias


def backward(loss: Tensor, *operands: Tensor) -> float:
    """Drop the old gradients, compute new ones, and return the loss."""
    for operand in operands:
        operand.grad = None
    loss.backward()
    return float(loss.detach())
