from __future__ import annotations

import pytest

from softmax_bench import NCE, SoftmaxBenchError, create_layer, layer_names
from softmax_bench.layers.registry import parse_spec


def test_names() -> None:
    assert {"full", "hierarchical", "nce", "sampled"} <= set(layer_names())


def test_options_of_a_specification_win() -> None:
    layer = create_layer("nce(num_samples=25, shared=False)", 4, 10, num_samples=3, bias=False)
    assert isinstance(layer, NCE)
    assert layer.sampler.num_samples == 25
    assert not layer.shared
    assert layer.bias is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fulll", r"unknown layer 'fulll': did you mean 'full'\?"),
        ("nce(num_sample=3)", r"no option 'num_sample': did you mean 'num_samples'\?"),
        ("nce(3)", "cannot read layer"),
        ("nce(num_samples=", "cannot read layer"),
        ("nce(num_samples=__import__('os'))", "cannot read layer"),
        ("", "cannot read layer"),
        ("nce(power='x')", "layer 'nce', option 'power': Expected `float`, got `str`"),
        ("nce(num_samples=True)", "option 'num_samples': Expected `int`, got `bool`"),
        ("adaptive(cutoffs=100)", r"option 'cutoffs': Expected `tuple \| None`, got `int`"),
        ("full(bias=None)", "option 'bias': Expected `bool`, got `None`"),
    ],
)
def test_wrong_specifications(spec: str, message: str) -> None:
    with pytest.raises(SoftmaxBenchError, match=message):
        parse_spec(spec)


@pytest.mark.parametrize(
    ("spec", "sizes", "message"),
    [
        ("full", (0, 5), "in_features must be a positive"),
        ("full", (5, 0), "num_classes must be a positive"),
        ("sampled(num_samples=0)", (5, 5), "num_samples must be a positive"),
        ("nce(log_z='fixed')", (5, 5), "log_z must be a number, 'learned' or 'estimated'"),
        ("nce(log_z='estimated', shared=False)", (5, 5), "needs shared=True"),
        ("sampled(noise='zipf')", (5, 5), "unknown noise"),
    ],
)
def test_wrong_values(spec: str, sizes: tuple[int, int], message: str) -> None:
    with pytest.raises(SoftmaxBenchError, match=message):
        create_layer(spec, *sizes)


def test_counts_must_fit() -> None:
    with pytest.raises(SoftmaxBenchError, match=r"shape \(5,\)"):
        create_layer("full", 3, 5, [1, 2, 3])
    with pytest.raises(SoftmaxBenchError, match="class 1 has -4"):
        create_layer("full", 3, 2, [1, -4])
