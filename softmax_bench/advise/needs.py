"""What a layer must be able to do besides being fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import OutputLayer, parse_spec
from softmax_bench.layers.linear import LinearOutputLayer


@dataclass(frozen=True)
class Need:
    """A demand, and how a layer's own description answers it."""

    what: str
    """In words that complete "it must have ..."."""
    is_met: Callable[[type[OutputLayer]], bool]


NEEDS = {
    "normalised": Need(
        "probabilities of given classes without a sum over all of them",
        lambda layer: layer.normalised == "by construction",
    ),
    "self-normalised": Need(
        "scores that can be taken for log-probabilities as they are",
        lambda layer: layer.normalised != "no",
    ),
    "exact": Need(
        "the model's own likelihood as its training objective, not an estimate",
        lambda layer: layer.exact,
    ),
    "linear": Need(
        "one row a class: to load into nn.Linear, to tie, to search by an index",
        lambda layer: issubclass(layer, LinearOutputLayer),
    ),
    "any-order": Need("class ids in any order", lambda layer: not layer.needs_sorted_ids),
    "traced": Need("no graph break under torch.compile", lambda layer: layer.traceable),
}


def check_needs(names: Sequence[str]) -> None:
    """Raise a SoftmaxBenchError if one is not among :data:`NEEDS`."""
    for name in names:
        if name not in NEEDS:
            known = "; ".join(f"{need!r}: {told.what}" for need, told in NEEDS.items())
            raise SoftmaxBenchError(f"unknown need {name!r}; there are {known}")


def unmet_need(spec: str, names: Sequence[str]) -> str | None:
    """The first need that a layer does not meet, if any."""
    layer, _ = parse_spec(spec)
    return next((name for name in names if not NEEDS[name].is_met(layer)), None)
