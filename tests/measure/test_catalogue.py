from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from softmax_bench.layers import FullSoftmax, HierarchicalSoftmax, layer_names, parse_spec
from softmax_bench.layers.registry import layer_package
from softmax_bench.measure import catalogue
from softmax_bench.testing import check_output_layer

PAGE = Path(__file__).parents[2] / "docs" / "layers.md"
OWN = [name for name in layer_names() if not layer_package(name)]


def test_the_page_is_what_the_code_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the last column, which is measured."""
    unmeasured = Mock(**{"return_value.memory.return_value.activations": 0.0})
    monkeypatch.setattr(catalogue, "LayerStep", unmeasured)
    said, written = (
        [line.rsplit("|", 2)[0] for line in text.splitlines()]
        for text in (catalogue.markdown(OWN), PAGE.read_text(encoding="utf-8"))
    )
    assert said == written, (
        "the layers have changed: softmax-bench layers --markdown > docs/layers.md"
    )


@pytest.mark.parametrize("attribute", ["scores", "source", "good_for", "step_flops"])
def test_our_own_layers_describe_themselves(attribute: str) -> None:
    unsaid = [name for name in OWN if getattr(parse_spec(name)[0], attribute) == "-"]
    assert unsaid == (["full"] if attribute == "source" else [])


def test_the_contract_wants_draws_to_be_marked() -> None:
    class Unmarked(FullSoftmax):
        def _weighted_loss(self, hidden: Tensor, *rest: Tensor) -> Tensor:
            return super()._weighted_loss(hidden, *rest) * (1 + 0 * torch.rand(()))

    with pytest.raises(AssertionError, match="mark the method that draws classes"):
        check_output_layer(Unmarked, sizes=(3,))


def test_the_contract_wants_claims_of_those_normalised_by_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(HierarchicalSoftmax, "normalised", "by training")
    with pytest.raises(AssertionError, match="unnormalized_target_log_prob"):
        check_output_layer(HierarchicalSoftmax, sizes=(3,))


def test_the_contract_sees_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    right = FullSoftmax._weighted_loss

    def without_half_of_it(self: FullSoftmax, hidden: Tensor, *rest: Tensor) -> Tensor:
        return right(self, (hidden + hidden.detach()) / 2, *rest)

    monkeypatch.setattr(FullSoftmax, "_weighted_loss", without_half_of_it)
    with pytest.raises(AssertionError, match=r"gradients of an exact layer must be those of -log_"):
        check_output_layer(FullSoftmax, sizes=(3,))
