"""Properties that a user may require of a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import OutputLayer, parse_spec
from softmax_bench.layers.linear import LinearOutputLayer


@dataclass(frozen=True)
class Need:
    """A requirement, and how a layer's own description answers it."""

    what: str
    """Completes the sentence "it lacks ..."."""
    is_met: Callable[[type[OutputLayer]], bool]


NEEDS = {
    "normalised": Need(
        "probabilities of given classes without a sum over all of them",
        lambda layer: layer.normalised == "by construction",
    ),
    "self-normalised": Need(
        "scores that approximate log-probabilities without normalisation",
        lambda layer: layer.normalised != "no",
    ),
    "exact": Need(
        "the exact likelihood of the model as its training objective",
        lambda layer: layer.exact,
    ),
    "linear": Need(
        "one row per class, for loading into nn.Linear, weight tying and index search",
        lambda layer: issubclass(layer, LinearOutputLayer),
    ),
    "any-order": Need("class ids in any order", lambda layer: not layer.needs_sorted_ids),
    "traced": Need("no graph break under torch.compile", lambda layer: layer.traceable),
}


def check_needs(names: Sequence[str]) -> None:
    """Raise a SoftmaxBenchError if one is not among :data:`NEEDS`."""
    for name in names:
        if name not in NEEDS:
            listed = "; ".join(f"{need!r}: {known_need.what}" for need, known_need in NEEDS.items())
            raise SoftmaxBenchError(f"unknown need {name!r}; there are {listed}")


def unmet_need(spec: str, names: Sequence[str]) -> str | None:
    """The first need that a layer does not meet, if any."""
    layer, _ = parse_spec(spec)
    return next((name for name in names if not NEEDS[name].is_met(layer)), None)
