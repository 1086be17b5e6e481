"""Layers of other packages, good and bad, from modules and distributions made on the spot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from softmax_bench import FullSoftmax, SoftmaxBenchError, create_layer, layer_names
from softmax_bench.layers import registry

GOOD = """
from softmax_bench import FullSoftmax, OutputLayer

class Mine(FullSoftmax):
    name = "mine"

    def __init__(self, in_features, num_classes, *, rank=2, **common):
        super().__init__(in_features, num_classes, **common)
        self.rank = rank

class Bare(FullSoftmax):
    name = "bare"

class Nameless(OutputLayer):
    exact, normalised = "yes", "maybe"
    _token_losses = _log_prob = _target_log_prob = _topk = _sample = flops = None

class Half(OutputLayer):
    name = "half"

def function(): ...
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Makes a distribution with one module and its entry points findable."""

    def _install(module: str, text: str, **entry_points: str) -> None:
        (tmp_path / f"{module}.py").write_text(text)
        info = tmp_path / f"{module}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.5\n")
        lines = [f"{name} = {place}" for name, place in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[softmax_bench.layers]", *lines]))
        registry._origins.cache_clear()

    monkeypatch.syspath_prepend(tmp_path)
    yield _install
    registry._origins.cache_clear()


def test_an_entry_point_is_a_name_like_any_other(install: Install) -> None:
    install("good_layers", GOOD, mine="good_layers:Mine")
    assert set(layer_names()) >= {"full", "mine"}
    assert create_layer("mine(rank=3)", 4, 9).rank == 3
    assert registry.layer_package("mine") == "good_layers 1.5"
    assert registry.layer_package("full") == ""


def test_a_class_by_its_place(install: Install) -> None:
    install("placed_layers", GOOD)
    layer = create_layer(" placed_layers:Mine (rank=3, bias=False) ", 4, 9)
    assert type(layer).__name__ == "Mine"
    assert layer.rank == 3
    assert set(layer.state_dict()) == {"weight"}
    assert type(create_layer("softmax_bench.layers.exact.full:FullSoftmax", 4, 9)) is FullSoftmax


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_module:Mine", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("bad_layers:Min", "the module has no class 'Min': did you mean 'Mine'"),
        ("bad_layers:function", "is not a layer: a layer is a subclass of OutputLayer"),
        (
            "bad_layers:Nameless",
            "name must be a str, not 'missing'; exact must be a bool, not 'yes'; normalised ",
        ),
        ("bad_layers:Half", "does not define _log_prob, _sample, _target_log_prob, _token_losses"),
        ("bad_layers:Mine(rnak=3)", "has no option 'rnak': did you mean 'rank'"),
        ("bad_layers:", "cannot read layer 'bad_layers:'"),
        ("bad_layers:Mine.__init__", "cannot read layer"),
        ("bad_layers:Mine()(rank=1)", "cannot read layer"),
    ],
)
def test_what_is_no_layer(install: Install, spec: str, message: str) -> None:
    install("bad_layers", GOOD)
    with pytest.raises(SoftmaxBenchError) as raised:
        registry.parse_spec(spec)
    assert message in str(raised.value)


def test_a_broken_package_spoils_nothing_else(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("broken_layers", "1 / 0", broken="broken_layers:Broken")
    create_layer("full", 4, 9)
    assert "broken_layers" not in caplog.text
    with caplog.at_level(logging.WARNING):
        names = layer_names()
    assert "full" in names
    assert "broken" not in names
    message = "broken_layers:Broken (broken_layers 1.5): ZeroDivisionError: division by zero"
    assert message in caplog.text
    with pytest.raises(SoftmaxBenchError, match=r"\(broken_layers 1\.5\): ZeroDivisionError"):
        create_layer("broken", 4, 9)


def test_two_layers_of_one_name_are_told_apart(install: Install) -> None:
    install("rival_layers", GOOD.replace('"mine"', '"full"'), full="rival_layers:Mine")
    with pytest.raises(SoftmaxBenchError) as raised:
        create_layer("full", 4, 9)
    assert "softmax_bench.layers.exact.full:FullSoftmax" in str(raised.value)
    assert "rival_layers:Mine (rival_layers 1.5)" in str(raised.value)
    assert create_layer("rival_layers:Mine", 4, 9).rank == 2
    create_layer("nce", 4, 9)


def test_a_layer_is_called_as_it_is_offered(install: Install) -> None:
    install("renamed_layers", GOOD, other="renamed_layers:Mine")
    with pytest.raises(SoftmaxBenchError, match="offered as 'other', but its class is called 'mi"):
        create_layer("other", 4, 9)
