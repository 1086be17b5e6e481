"""What a layer knows of its classes survives casts, the meta device and averaging of models."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from softmax_bench.layers import NCE, OutputLayer, create_layer, layer_names

V, H = 200, 16
COUNTS = torch.randint(0, 40, (V,), generator=torch.Generator().manual_seed(0)).double()
ALL = layer_names()


def layer(name: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> OutputLayer:
    torch.manual_seed(1)
    return create_layer(name, H, V, COUNTS, device=device, dtype=dtype)


def loss(of: OutputLayer) -> Tensor:
    torch.manual_seed(2)
    hidden, target = torch.randn(12, H), torch.randint(V, (12,))
    return of(hidden.to(next(of.parameters()).dtype), target)


@pytest.mark.parametrize("how", ["argument", "context"])
@pytest.mark.parametrize("name", ALL)
def test_a_layer_built_on_meta_is_whole_once_its_state_is_loaded(name: str, how: str) -> None:
    whole = layer(name)
    if how == "argument":
        late = create_layer(name, H, V, COUNTS, device="meta")
    else:
        with torch.device("meta"):
            late = create_layer(name, H, V, COUNTS)
    assert all(parameter.device.type == "meta" for parameter in late.parameters())
    late.to_empty(device="cpu")
    late.load_state_dict(whole.state_dict())
    assert torch.equal(loss(whole), loss(late))


@pytest.mark.parametrize("name", ALL)
def test_casts_round_parameters_but_no_buffer(name: str) -> None:
    one = layer(name)
    before = {key: value.clone() for key, value in one.named_buffers()}
    one.to(torch.bfloat16)
    assert next(one.parameters()).dtype == torch.bfloat16
    for key, value in one.half().float().named_buffers():
        assert value.dtype == before[key].dtype, key
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", ALL)
def test_buffers_keep_names_and_shapes_through_training(name: str) -> None:
    one = layer(name)
    averaged = AveragedModel(copy.deepcopy(one), use_buffers=True)
    before = {key: value.shape for key, value in one.named_buffers()}
    for _ in range(3):
        loss(one).backward()
        averaged.update_parameters(one)
    assert {key: value.shape for key, value in one.named_buffers()} == before


def test_a_running_average_moves_by_small_steps_in_bfloat16() -> None:
    torch.manual_seed(0)
    one = NCE(4, V, num_samples=V, noise="uniform", log_z="estimated", dtype=torch.bfloat16)
    with torch.no_grad():
        one.weight.zero_()
        assert one.bias is not None
        one.bias.zero_()
    hidden, target = torch.zeros(8, 4, dtype=torch.bfloat16), torch.randint(V, (8,))
    for _ in range(1000):
        one(hidden, target)
    # Every score is 0, so Z = V.
    torch.testing.assert_close(
        float(one.log_z), torch.tensor(float(V)).log().item(), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("name", ALL)
def test_a_misspelt_option_is_refused_with_the_right_name(name: str) -> None:
    with pytest.raises(TypeError, match="no option 'class_count': did you mean 'class_counts'"):
        type(layer(name))(H, V, class_count=COUNTS)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("sampled", "num_sample", "num_samples"),
        ("hierarchical", "tre", "tree"),
        ("full", "biass", "bias"),
    ],
)
def test_a_misspelt_option_of_a_layer_s_own_too(name: str, wrong: str, right: str) -> None:
    with pytest.raises(TypeError, match=f"did you mean '{right}'"):
        type(layer(name))(H, V, **{wrong: 3})  # type: ignore[arg-type]


def test_an_option_of_another_layer_is_refused() -> None:
    with pytest.raises(TypeError, match="FullSoftmax has no option 'num_samples'"):
        create_layer("full", H, V, num_samples=3)
