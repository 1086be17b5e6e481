"""Comparisons, their conditions, and what they can be read from."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from softmax_bench.records.frames import Results, frames, load_results
from softmax_bench.records.pytest_benchmark import read_pytest_benchmark
from softmax_bench.records.record import SpeedRecord
from softmax_bench.report.comparison.compare import compare_layers, compare_results
from softmax_bench.report.comparison.conditions import read_conditions
from softmax_bench.report.comparison.show import markdown, print_comparison
from tests.records import ENVIRONMENT, disturbed, speed_record, train_record


def test_compare_result_sets() -> None:
    a = frames([speed_record("full", 10, 1.0), speed_record("nce", 10, 1.0)])
    b = frames([speed_record("full", 10, 2.0), speed_record("nce", 10, 1.01)])
    table = compare_results(a, b).table.set_index("layer")
    assert table.loc["full", "time_ratio"] == 0.5
    assert 0.48 < table.loc["full", "time_low"] < 0.5 < table.loc["full", "time_high"] < 0.52
    assert table["time_verdict"].to_dict() == {
        "full": "A is faster",
        "nce": "no difference found",
    }


def test_times_of_older_records_are_compared_by_their_medians() -> None:
    def without_samples(layer: str, seconds: float) -> SpeedRecord:
        record = speed_record(layer, 10, seconds)
        phases = {
            name: msgspec.structs.replace(phase, samples=None)
            for name, phase in record.result.phases.items()
        }
        return msgspec.structs.replace(
            record, result=msgspec.structs.replace(record.result, phases=phases)
        )

    results = frames([without_samples("full", 1.0), without_samples("nce", 0.5)])
    comparison = compare_layers(results, "full", "nce")
    assert comparison.table["time_ratio"].tolist() == [2.0]
    assert comparison.table["time_verdict"].tolist() == [""]
    assert any("of time have no interval" in warning for warning in comparison.warnings)


def test_compare_warns_of_unlike_things() -> None:
    a = frames([speed_record("full", 10, 1.0)])
    b = frames([speed_record("full", 10, 1.0, threads=1)])
    assert any("threads (2 against 1)" in text for text in compare_results(a, b).warnings)
    assert compare_results(a, a).warnings == []


def test_compare_layers(store: Path) -> None:
    results = load_results(store)
    table = compare_layers(results, "hierarchical", "full").table
    assert table["perplexity_ratio"].iloc[0] == pytest.approx(103 / 102)
    assert table["time_ratio"].iloc[-1] == pytest.approx(0.0102)
    with pytest.raises(ValueError, match="no results for layer 'fulll'; there are: full"):
        compare_layers(results, "fulll", "full")


def cells(ratio: float, low: float = np.nan, high: float = np.nan) -> pd.DataFrame:
    """A comparison's table with one cell, whose time is known."""
    return pd.DataFrame(
        {
            "vocab_size": [1000], "layer": ["full"], "time_ratio": [ratio], "time_low": [low],
            "time_high": [high], "memory_ratio": [ratio], "perplexity_ratio": [np.nan],
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "table", "met", "unsure"),
    [
        ("time > 1.1", cells(1.3, 1.2, 1.4), 1, 0),
        ("time>1.1", cells(1.3, 1.05, 1.4), 0, 1),  # beyond it, but not for sure
        ("time > 1.1", cells(1.0, 0.9, 1.05), 0, 0),
        ("time > 1.1", cells(1.3), 1, 0),  # no interval: the ratio decides
        ("time < 1.1", cells(1.0, 0.9, 1.05), 1, 0),
        ("time < 1.1", cells(1.0, 0.9, 1.15), 0, 1),
        (" memory > 1.05 ", cells(1.06, 0.9, 1.15), 1, 0),  # time's interval is not memory's
        ("memory > 1.05", cells(1.05), 0, 0),
    ],
)
def test_a_condition_is_met_for_sure_or_not(
    text: str, table: pd.DataFrame, met: int, unsure: int
) -> None:
    (condition,) = read_conditions([text])
    outcome = condition.check(table)
    assert (len(outcome.met), len(outcome.unsure)) == (met, unsure)
    assert str(outcome).count("full at V = 1,000") == met + unsure


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time", "cannot read condition 'time': write METRIC > NUMBER"),
        ("time >= 1.1", "write METRIC > NUMBER or METRIC < NUMBER"),
        ("time > 1.1 or memory > 2", "write METRIC > NUMBER"),
        ("tme > 1.1", "unknown metric 'tme'.*choose time, memory, perplexity"),
        ("time > 10%", "1.1 for ten per cent more, not '10%'"),
        ("time > nan", "must be a positive number"),
        ("time > -1", "must be a positive number"),
        ("time > __import__('os')", "must be a positive number"),
    ],
)
def test_conditions_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_conditions(["time > 1", text])


def test_a_condition_on_what_was_not_measured_is_no_pass() -> None:
    (condition,) = read_conditions(["perplexity > 1.02"])
    with pytest.raises(ValueError, match="perplexity is not known on both sides of any cell"):
        condition.check(cells(1.0))


def test_markdown_escapes_and_counts() -> None:
    a = frames([speed_record("nce(noise='a|b')", 10, 1.0), train_record("full", 10, 90.0)])
    b = frames([speed_record("nce(noise='a|b')", 10, 2.0), train_record("full", 10, 60.0)])
    text = markdown(compare_results(a, b, names=("new", "old")))
    assert "A: `new`, B: `old`." in text
    assert "| 10 | `nce(noise='a\\|b')` | 0.5 (0.4" in text
    assert "* Time: A is faster in 1 of 1." in text
    assert "* Perplexity: A is worse in 1 of 1." in text
    assert "> Warning: A: one seed" in text


def test_no_word_is_broken_at_80_columns() -> None:
    layers = ["full", "hierarchical", "sampled(num_samples=64)"]
    records = [
        make(layer, 100_000, 1.5) for layer in layers for make in (speed_record, train_record)
    ]
    busy = frames([disturbed(r) if isinstance(r, SpeedRecord) else r for r in records])
    file = io.StringIO()
    print_comparison(compare_results(busy, frames(records)), Console(file=file, width=80))
    lines = file.getvalue().splitlines()
    for name in ("full", "hierarchical", "sampled", "(num_samples=64)"):
        assert sum(name in line for line in lines) >= 2
    assert sum("no difference*" in line for line in lines) == 3
    assert any(line.startswith("* timing was disturbed: A: other") for line in lines)
    assert sum("no difference" in line and "%" in line for line in lines) == 3


BUSY = "other processes took 42% of the processor"


@pytest.mark.parametrize(
    ("busy_a", "busy_b", "why"),
    [
        (True, False, f"A: {BUSY}"),
        (False, True, f"B: {BUSY}"),
        (True, True, f"A: {BUSY}; B: {BUSY}"),
    ],
)
def test_a_disturbed_time_is_marked_and_not_judged(busy_a: bool, busy_b: bool, why: str) -> None:
    """However far it is beyond the bound; memory, which nothing disturbs, is judged all the same.

    The other layer was timed in peace: a record's mark is its own.
    """

    def side(seconds: float, busy: bool) -> Results:
        record = speed_record("full", 10, seconds)
        return frames([disturbed(record) if busy else record, speed_record("nce", 10, seconds)])

    comparison = compare_results(side(5.0, busy_a), side(1.0, busy_b))
    table = comparison.table.set_index("layer")
    assert table["time_ratio"].tolist() == pytest.approx([5.0, 5.0])
    assert table["time_disturbed"].to_dict() == {"full": why, "nce": ""}
    assert table["time_verdict"].to_dict() == {
        "full": "A is slower (disturbed)",
        "nce": "A is slower",
    }
    time, memory, unmet = (
        condition.check(comparison.table)
        for condition in read_conditions(["time > 2", "memory > 2", "time < 0.5"])
    )
    assert [len(outcome.met) for outcome in (time, memory, unmet)] == [1, 2, 0]
    assert time.met[0].startswith("nce")
    assert str(unmet).splitlines()[0] == "time < 0.5: met in 0 of 2 cells, 1 not judged"
    assert f"not judged: disturbed ({why})\n  Repeat the disturbed timings" in str(time)
    assert "disturbed" not in str(memory)
    assert "A is slower (disturbed) in 1" in markdown(comparison)


def test_layers_of_a_disturbed_run_and_ratios_without_interval_are_marked_too() -> None:
    records = [disturbed(speed_record(layer, 10, 1.0)) for layer in ("full", "nce")]
    table = compare_layers(frames(records), "full", "nce").table
    assert table["time_verdict"].tolist() == ["no difference found (disturbed)"]
    results = frames(records)
    results.speed["samples"] = [[1.0]] * len(results.speed)
    assert compare_layers(results, "full", "nce").table["time_verdict"].tolist() == ["disturbed"]


def test_what_little_else_a_machine_does_is_no_disturbance() -> None:
    results = frames([disturbed(speed_record("full", 10, 1.0), 0.04)])
    assert compare_results(results, results).table["time_disturbed"].tolist() == [""]


def benchmark_file(path: Path, **changes: Any) -> Path:
    """What pytest-benchmark writes, as far as it is read."""
    info = {
        "layer": "full", "phase": "step", "V": 10, "H": 8, "N": 20, "optimizer": "sgd",
        "clip_norm": None, "seed": 0, "threads": 2, "device": "cpu", "dtype": "float32",
        "parameters": 90, "rows_touched": 10, "flops": 1.0, "bytes": 1.0,
    }  # fmt: skip
    benchmark = {
        "fullname": "test[full]", "extra_info": info | {"clip_norm": 5.0},
        "stats": {"median": 2.0, "data": [1.9, 2.0, 2.1], "rounds": 3},
    }  # fmt: skip
    content = {
        "machine_info": {"node": "x", "softmax_bench": msgspec.to_builtins(ENVIRONMENT)},
        "benchmarks": [benchmark | changes],
        "datetime": "2026-01-01T00:00:00+00:00",
    }
    path.write_text(json.dumps(content))
    return path


def test_a_file_of_pytest_benchmark_is_compared_with_a_store(tmp_path: Path) -> None:
    read = read_pytest_benchmark(benchmark_file(tmp_path / "a.json"))
    same = frames([speed_record("full", 10, 1.0, clip_norm=5.0)])
    comparison = compare_results(read, same)
    row = comparison.table.iloc[0]
    assert row.time_ratio == 2.0
    assert row.time_verdict == "A is slower"
    assert np.isnan(row.memory_ratio)
    assert comparison.warnings == []
    unlike = frames([speed_record("full", 10, 1.0, num_tokens=7)])
    assert "num_tokens (20 against 7)" in compare_results(read, unlike).warnings[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra_info": {"layer": "full"}}, "missing required field `phase`"),
        ({"stats": {"median": 1.0}}, "no single times.*--benchmark-json"),
    ],
)
def test_other_files_of_pytest_benchmark_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_pytest_benchmark(benchmark_file(tmp_path / "a.json", **changes))


@pytest.mark.slow
def test_the_benchmarks_write_what_is_read(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    file = tmp_path / "a.json"
    command = [sys.executable, "-m", "pytest", "--benchmark-only", f"--benchmark-json={file}"]
    command += ["--layers", "full", "--vocab-sizes", "10"]
    alone = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    subprocess.run(command, cwd=root, check=True, capture_output=True, env=alone)
    read = read_pytest_benchmark(file)
    assert set(read.speed["phase"]) == {"forward", "backward", "optimizer", "step"}
    assert read.speed[["layer", "vocab_size"]].drop_duplicates().to_numpy().tolist() == [
        ["full", 10]
    ]
    assert compare_results(read, read).table["time_ratio"].tolist() == [1.0]
