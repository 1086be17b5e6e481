from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from softmax_bench.layers import layer_names
from softmax_bench.records.frames import Results, frames, load_results
from softmax_bench.report.show.terminal import print_report
from tests.records import speed_record, train_record


def printed(results: Results, *, colours: bool = False, width: int = 100) -> str:
    file = io.StringIO()
    print_report(
        results,
        Console(
            file=file,
            width=width,
            color_system="truecolor" if colours else None,
            force_terminal=colours,
        ),
    )
    return file.getvalue()


def test_the_answer_the_table_and_plots(store: Path) -> None:
    text = printed(load_results(store))
    assert "hierarchical is fastest (10.2 ms per training step" in text
    assert "Warning: one seed" in text
    assert "100,000  sampled(num_samples=64)" in text
    for axes in ("training step of the layer [ms]", "validation perplexity", "memory"):
        assert axes in text
    assert "aa full  ~V^1.00   bb hierarchical" in text
    assert "\x1b" not in text
    assert "\x1b" in printed(load_results(store), colours=True)


def test_dots_of_one_size() -> None:
    text = printed(frames([speed_record("full", 10, 0.1), speed_record("nce", 10, 0.05)]))
    lengths = {line.split()[0]: line.count("█") for line in text.splitlines() if "█" in line}
    assert lengths["full"] == 2 * lengths["nce"]


@pytest.mark.parametrize("width", [20, 80, 200])
def test_all_layers(width: int) -> None:
    records = [
        speed_record(layer, size, size * (1 + n))
        for n, layer in enumerate(layer_names())
        for size in (10, 100)
    ]
    text = printed(frames(records), width=width)
    assert "more lines on the page" in " ".join(text.split())
    assert " full" in text


def test_names_command_nothing() -> None:
    name = "\x1b[2J[red]x"
    records = [make(name, size, 1.0) for size in (10, 100) for make in (speed_record, train_record)]
    assert "\x1b" not in printed(frames(records))
    assert "\x1b[2J" not in printed(frames(records), colours=True)
