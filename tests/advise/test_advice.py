"""Rankings, their reasons, and what is read from people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from rich.console import Console

import softmax_bench
from benchmarks.penalties import ROOT, TABLE, collect
from softmax_bench.advise.advice import Advice, Limits, advise, code, reasons, recommended
from softmax_bench.advise.model import Prediction
from softmax_bench.advise.penalties import Penalty, expected_penalty, penalties_of
from softmax_bench.advise.question import Question, ask, read_bytes
from softmax_bench.advise.show import print_advice
from softmax_bench.advise.steps import Steps
from softmax_bench.layers import layer_names
from softmax_bench.records.frames import frames
from tests.records import train_record

QUESTION = Question(1000, 8, 20)
SECONDS = {"full": 1.0, "hierarchical": 0.01, "nce": 0.02, "sampled": 0.03, "partial_fc": 0.015}


@pytest.fixture(autouse=True)
def _studies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies with known outcomes."""
    known = [
        Penalty(
            layer=layer, vocab_size=size, ratio=ratio, seeds=1, corpus="ptb", encoder="lstm",
            hidden_size=200, train_tokens=10**6, origin="results/books",
        )
        for layer, size, ratio in (
            ("full", 1000, 1.0), ("hierarchical", 1000, 1.24), ("nce", 1000, 1.01),
            ("nce", 10**6, 1.09), ("sampled", 1000, 0.98),
        )
    ]  # fmt: skip
    monkeypatch.setattr("softmax_bench.advise.penalties.stored_penalties", lambda: known)


def steps(*, measured: bool = False, disturbed: str = "") -> Steps:
    return Steps(by_layer={}, trust="Predicted.", disturbed=disturbed, measured=measured)


def ranked(limits: Limits | None = None, question: Question = QUESTION) -> list[Advice]:
    loads = question.workloads(list(SECONDS))
    predictions = {
        layer: Prediction(
            seconds=s, low=s / 2, high=2 * s, peak_bytes=10**6, outside="far" if s == 1 else ""
        )
        for layer, s in SECONDS.items()
    }
    return advise(loads, predictions, limits or Limits(), "adagrad")


def test_the_fastest_whose_perplexity_is_known_is_recommended() -> None:
    advice = ranked()
    assert [one.layer for one in advice] == [
        "partial_fc", "nce", "sampled", "full", "hierarchical",
    ]  # fmt: skip
    assert advice[-1].objection == "raised perplexity by more than 5% on ptb"
    choice = recommended(advice)
    assert choice is not None
    assert choice.layer == "nce"
    said = " ".join(reasons(choice, advice))
    assert "2.0% of full softmax's time" in said
    assert "did not differ significantly (+1.0%) from full softmax's in ptb" in said
    assert "row-sparse" in said
    assert "without a known perplexity: partial_fc" in said


def test_a_study_of_another_size_or_within_chance_rules_nothing_out() -> None:
    far = ranked(question=Question(5000, 8, 20))
    assert [one.layer for one in far if one.objection] == []
    doubted = far[-1]
    assert (doubted.layer, doubted.doubt) == (
        "hierarchical", "raised perplexity by 24% at V = 1,000"
    )  # fmt: skip
    choice = recommended(far)
    assert choice is not None
    assert choice.layer == "nce"
    strict = ranked(Limits(penalty=0.0))  # +1 % is no finding
    assert [one.layer for one in strict if one.objection] == ["hierarchical"]


def test_a_prediction_that_says_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    wide = [
        replace(one, step=replace(one.step, low=one.step.low / 50)) for one in ranked()
    ]  # fmt: skip
    print_advice(QUESTION, wide, steps(), Console(width=100))
    assert "too uncertain: use --measure" in capsys.readouterr().out
    disturbed = steps(disturbed="others took 42% of it")
    print_advice(QUESTION, ranked(), disturbed, Console(width=200))
    assert "memory (unreliable: layers were timed while others took 42% of it)." in (
        capsys.readouterr().out
    )


def test_a_measurement_does_not_recommend_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    now = [
        replace(one, step=replace(one.step, low=one.step.low / 50, outside="")) for one in ranked()
    ]
    print_advice(QUESTION, now, steps(measured=True), Console(width=200))
    printed = capsys.readouterr().out
    assert "--measure" not in printed
    assert "Within the intervals, sampled or full may be as fast." in printed
    assert "too uncertain: repeat the command on a quiet machine." in printed


def test_limits() -> None:
    generous = recommended(ranked(Limits(penalty=0.5)))
    assert generous is not None
    assert generous.layer == "hierarchical"
    exact = ranked(Limits(needs=["exact"]))
    assert [one.layer for one in exact if not one.objection] == ["full"]
    assert {one.objection for one in exact if one.layer in ("nce", "sampled", "partial_fc")} == {
        "lacks the exact likelihood of the model as its training objective"
    }
    normalised = ranked(Limits(needs=["normalised"], penalty=0.5))
    assert [one.layer for one in normalised if not one.objection] == ["hierarchical"]
    nothing = ranked(Limits(memory_bytes=10_000))
    assert recommended(nothing) is None
    assert all("of memory" in one.objection for one in nothing)


def test_memory_is_everything_that_is_held() -> None:
    full = next(one for one in ranked() if one.layer == "full")
    assert full.memory_bytes == 10**6 + 2 * 4 * (1000 * 8 + 1000)


def test_the_penalty_is_that_of_the_nearest_vocabulary() -> None:
    nearest = [expected_penalty("nce", size) for size in (5, 20_000, 40_000, 10**7)]
    assert [p and p.ratio for p in nearest] == [1.01, 1.01, 1.09, 1.09]
    assert expected_penalty("nce(num_samples=2)", 1000) is None


def test_of_studies_at_one_vocabulary_the_longest_then_that_with_most_seeds_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = expected_penalty("nce", 1000)
    assert one is not None
    known = [one, msgspec.structs.replace(one, ratio=1.02, seeds=3)]
    monkeypatch.setattr("softmax_bench.advise.penalties.stored_penalties", lambda: known)
    assert expected_penalty("nce", 1000) is known[1]
    known.append(msgspec.structs.replace(one, ratio=1.03, train_tokens=10**7))
    assert expected_penalty("nce", 1000) is known[2]


def test_of_studies_near_in_vocabulary_the_longest_counts_then_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = expected_penalty("nce", 1000)
    assert one is not None
    known = [
        msgspec.structs.replace(one, vocab_size=size, train_tokens=tokens)
        for size, tokens in ((1000, 1_000_000), (2000, 1_100_000), (2500, 10**7), (9000, 10**8))
    ]
    monkeypatch.setattr("softmax_bench.advise.penalties.stored_penalties", lambda: known)
    assert expected_penalty("nce", 1000) is known[2]
    assert expected_penalty("nce", 700) is known[0]
    assert expected_penalty("nce", 100) is known[0]


@pytest.mark.parametrize(("size", "is_far"), [(3000, False), (3100, True)])
def test_a_penalty_from_another_size_is_called_an_extrapolation(size: int, is_far: bool) -> None:
    advice = ranked(question=Question(size, 8, 20))
    choice = recommended(advice)
    assert choice is not None
    said = " ".join(reasons(choice, advice))
    assert (
        "an extrapolation: no stored study of it has a vocabulary within a factor of 3" in said
    ) == is_far


def test_penalties_come_from_the_best_rate_of_each_layer() -> None:
    results = frames(
        [
            train_record("full", 10, 99.0, rate=0.1),
            train_record("full", 10, 199.0, rate=0.2),
            train_record("nce", 10, 109.0, rate=0.2),
            train_record("nce", 20, 109.0),  # without full softmax there is nothing to compare
        ]
    )
    found = {p.layer: p for p in penalties_of(results, "results/x")}
    assert found["nce"].ratio == 1.1
    assert found["full"].ratio == 1.0
    assert found["nce"].vocab_size == 10
    assert found["nce"].origin == "results/x"


def test_the_table_that_is_shipped_is_that_of_the_results() -> None:
    """After new results: ``python -m benchmarks.penalties``."""
    assert msgspec.json.decode(TABLE.read_bytes(), type=list[Penalty]) == collect(ROOT)


def test_the_code_runs() -> None:
    choice = next(one for one in ranked() if one.layer == "sampled")
    lines = code(choice)
    assert lines.count("\n") == 2
    space = {
        "counts": np.ones(1000), "hidden": torch.randn(3, 8), "target": torch.tensor([1, 2, 3]),
    }  # fmt: skip
    exec(lines, space)  # noqa: S102
    assert isinstance(space["layer"], softmax_bench.OutputLayer)


def test_printed(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=100)
    print_advice(QUESTION, ranked(Limits(needs=["any-order"])), steps(), console)
    printed = capsys.readouterr().out
    told = " ".join(printed.split())
    assert (
        "Use nce: 20 ms (10 ms to 40 ms) per step, 1.1 MB of memory. Within the intervals, " in told
    )
    assert "Within the intervals, sampled may be as fast; --measure decides." in told
    assert "too uncertain" not in told
    assert "+1.0%, chance" in told
    assert (
        "Ruled out because it raised perplexity by more than 5% on ptb: hierarchical (10 ms)."
        in printed
    )
    assert "not known" in printed
    assert "Extrapolated far beyond the timed sizes (hence the wide intervals): full." in printed


def test_every_layer_has_a_workload() -> None:
    assert len(QUESTION.workloads(layer_names())) == len(layer_names())


@pytest.mark.parametrize(
    ("text", "amount"),
    [("4GB", 4e9), ("512 MiB", 512 * 2**20), ("1.5g", 1.5e9), ("7kB", 7000)],
)
def test_amounts_of_memory(text: str, amount: float) -> None:
    assert read_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "4XB", "GB", "-4GB", "0GB", "4iB", "1000"])
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 4GB"):
        read_bytes(text)


def test_counts_from_files(tmp_path: Path) -> None:
    np.save(tmp_path / "counts.npy", np.array([3, 1, 0]))
    (tmp_path / "counts.txt").write_text("3\n1\n0\n")
    for name in ("counts.npy", "counts.txt"):
        question = ask(None, 4, 5, tmp_path / name)
        assert question.vocab_size == 3
        assert question.counts is not None
        assert question.counts.tolist() == [3, 1, 0]


def test_questions_that_make_no_sense(tmp_path: Path) -> None:
    text, table = tmp_path / "counts.txt", tmp_path / "table.npy"
    text.write_text("three\n")
    np.save(table, np.ones((2, 2)))
    for arguments, message in (
        ((None, 4, 5, None), "give the number of classes"),
        ((10, 0, 5, None), "--hidden must be at least 1, not 0"),
        ((10, 4, 5, tmp_path / "none.txt"), r"cannot read .*none\.txt"),
        ((10, 4, 5, text), "does not contain counts"),
        ((10, 4, 5, table), r"one number per class, not float64 of shape \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            ask(*arguments)
    np.save(table, np.ones(4))
    with pytest.raises(ValueError, match="4"):
        ask(10, 4, 5, table)
