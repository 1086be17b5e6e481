from __future__ import annotations

from pathlib import Path

import pytest
import torch

from softmax_bench.layers import FullSoftmax, HierarchicalSoftmax, create_layer, layer_names
from softmax_bench.layers.registry import layer_package
from softmax_bench.measure import catalogue
from softmax_bench.testing import check_output_layer

PAGE = Path(__file__).parents[2] / "docs" / "layers.md"
OWN = [name for name in layer_names() if not layer_package(name)]


def test_the_page_is_what_the_code_says() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert catalogue.markdown(OWN) == written, (
        "the layers have changed: softmax-bench layers --markdown > docs/layers.md"
    )


@pytest.mark.parametrize("name", OWN)
def test_a_layer_that_claims_to_be_exact_trains_by_its_likelihood(name: str) -> None:
    layer = create_layer(name, 6, 50, torch.randint(0, 9, (50,)), dtype=torch.float64)
    if layer.exact:
        hidden, target = torch.randn(8, 6, dtype=torch.float64), torch.randint(50, (8,))
        likelihood = -layer.target_log_prob(hidden, target).mean()
        torch.testing.assert_close(layer(hidden, target), likelihood)


@pytest.mark.parametrize("attribute", ["good_for", "exact"])
def test_the_contract_wants_a_description(attribute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(FullSoftmax, attribute)
    with pytest.raises(AssertionError, match=f"class attribute {attribute} must be set"):
        check_output_layer(FullSoftmax, sizes=(3,))


def test_the_contract_wants_claims_of_those_normalised_by_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(HierarchicalSoftmax, "normalised", "by training")
    with pytest.raises(AssertionError, match="unnormalized_target_log_prob"):
        check_output_layer(HierarchicalSoftmax, sizes=(3,))
