from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from softmax_bench.records.frames import frames, load_results
from softmax_bench.records.record import FailureRecord, Record
from softmax_bench.records.store import write_record
from softmax_bench.records.trial import trial_id
from softmax_bench.report.plots import charts, layers_of
from softmax_bench.report.show.page import _subtitle
from softmax_bench.report.show.page_sections import configurations
from softmax_bench.report.tables.caveats import warnings
from softmax_bench.report.tables.disturbed import cell_doubt, mark_notes
from softmax_bench.report.tables.shown import format_table, markdown_table
from softmax_bench.report.tables.summary import references, summary_table
from tests.records import disturbed, ngram_record, speed_record, train_record


def test_summary(store: Path) -> None:
    table = summary_table(load_results(store))
    assert len(table) == 12
    row = table[(table.layer == "nce(num_samples=25)") & (table.vocab_size == 10_000)].iloc[0]
    assert row.test_perplexity == 113.0
    assert row.excess == pytest.approx(113 / 50)
    assert row.step_ms == pytest.approx(10.4)
    assert row.forward_ms == pytest.approx(4.16)
    assert row.decoding_ms == pytest.approx(31.2)
    # 2e9 x 0.0104 operations at 1e10 a second, in 0.75 of 10.4 ms.
    assert row.of_possible == pytest.approx(0.2 / 0.75)
    assert row.bound == "compute"
    assert row.speedup == pytest.approx(100 / 10.4)
    assert row.gflops == pytest.approx(2.0)
    assert row.memory_mb == pytest.approx(0.0104)


def test_the_ratio_to_full_softmax_is_of_equal_seeds_and_budgets() -> None:
    seeds = [
        record
        for seed, full in enumerate((99.0, 109.0, 119.0))
        for record in (
            train_record("full", 10, full, seed=seed),
            train_record("nce", 10, 1.1 * (full + 1) - 1, seed=seed),
        )
    ]
    longer = train_record("sampled", 10, 50.0, max_tokens=2000)
    table = summary_table(frames([*seeds, longer])).set_index("layer")
    ratio = table.loc["nce", ["over_full_low", "over_full", "over_full_high"]]
    assert ratio.tolist() == pytest.approx([1.1, 1.1, 1.1])  # the seeds agree
    assert table.loc["full", "over_full"] == 1
    assert pd.isna(table.loc["sampled", "over_full"])
    seeds[1] = train_record("nce", 10, 99.0, seed=0)
    table = summary_table(frames(seeds)).set_index("layer")
    logs = np.log([1.0, 1.1, 1.1])
    half = 4.303 * logs.std(ddof=1) / 3**0.5  # Student's, two degrees of freedom
    low, high = np.exp([logs.mean() - half, logs.mean() + half])
    assert table.loc["nce", "over_full_low"] == pytest.approx(low, rel=1e-3)
    assert table.loc["nce", "over_full_high"] == pytest.approx(high, rel=1e-3)
    assert "over_full" not in summary_table(frames(seeds[1::2]))


def test_memory_of_older_records_is_read(tmp_path: Path) -> None:
    new, before = speed_record("full", 10, 0.1), speed_record("nce", 10, 0.1)
    assert before.result.memory is not None
    stored = msgspec.to_builtins(before)
    stored["result"]["memory"] |= {"expected_activations": 1100, "expected_gradients": 360}
    write_record(tmp_path, new)
    write_record(tmp_path, msgspec.convert(stored, type(before)))
    table = summary_table(load_results(tmp_path)).set_index("layer")
    assert table["activations_mb"].tolist() == [0.001, 0.001]


def test_references_are_of_the_same_texts(store: Path) -> None:
    table = references(load_results(store)).set_index(["reference", "vocab_size"])
    assert set(table.index.get_level_values(0)) == {"5-gram model, whole text", "the source itself"}
    assert table.loc[("5-gram model, whole text", 10_000), "test_perplexity"] == 131
    assert table.loc[("5-gram model, whole text", 10_000), "excess"] == pytest.approx(131 / 50)
    assert table.loc[("the source itself", 10_000), "valid_perplexity"] == 50
    other = ngram_record(10_000, 7.0, corpus_sha256="another text")
    assert references(frames([train_record("full", 10_000, 9.0), other])).reference.tolist() == [
        "the source itself"
    ]
    assert references(frames([speed_record("full", 10, 1.0)])).empty


def test_the_best_learning_rate_at_the_full_budget_is_shown() -> None:
    results = frames(
        [
            train_record("full", 10, 90.0, rate=0.1),
            train_record("full", 10, 80.0, rate=0.2),
            train_record("full", 10, 70.0, rate=0.4, max_tokens=10),  # was for tuning
        ]
    )
    table = summary_table(results)
    assert table["learning_rate"].tolist() == [0.2]
    told = " ".join(warnings(results))
    assert "one seed was run, so differences of a few per cent" in told


def test_rows_of_one_seed_among_others_are_counted() -> None:
    records: list[Record] = [train_record("full", 10, 90.0 + seed, seed=seed) for seed in range(3)]
    records.append(train_record("full", 20, 90.0))
    assert "one seed was run for 1 of 2 rows" in " ".join(warnings(frames(records)))


def test_one_learning_rate_for_all_is_told() -> None:
    records: list[Record] = [
        train_record(layer, 10, 90.0 + seed, seed=seed)
        for layer in ("full", "nce")
        for seed in range(3)
    ]
    assert "one learning rate" in " ".join(warnings(frames(records)))
    assert "seed" not in " ".join(warnings(frames(records)))
    assert "one seed" in " ".join(warnings(frames(records[:-2])))


def test_unlike_configurations_are_not_mixed() -> None:
    late = speed_record("full", 10, 1.0, hidden_size=99)
    results = frames([speed_record("full", 10, 2.0), speed_record("full", 100, 2.0), late])
    assert len(summary_table(results)) in (1, 2)
    assert any("hidden_size" in text for text in warnings(results))


@pytest.mark.parametrize("kind", ["train", "speed"])
def test_one_kind_alone(kind: str) -> None:
    record = train_record("full", 10, 2.0) if kind == "train" else speed_record("full", 10, 2.0)
    table = summary_table(frames([record]))
    assert len(table) == 1
    assert "V" in markdown_table(table)


def test_what_failed_is_a_warning(store: Path) -> None:
    trial = train_record("nce", 1000, 1.0).trial
    failure = FailureRecord(
        id=trial_id(trial), started="2026-01-01", of="train", cause="memory", seconds=1.0, log="",
        configuration=msgspec.to_builtins(trial), reason="used 3 GB, its limit is 2 GB",
    )  # fmt: skip
    write_record(store, failure)
    assert (
        "nce V=1,000 lr=0.1 seed=0 1,000 tokens of ptb failed: used 3 GB, its limit is 2 GB"
    ) in warnings(load_results(store))


def test_times_known_only_roughly_are_told() -> None:
    record = speed_record("full", 1000, 1.0)
    step = msgspec.structs.replace(record.result.phases["step"], low=0.9, high=1.1, repetitions=5)
    rough = msgspec.structs.replace(
        record, result=msgspec.structs.replace(record.result, phases={"step": step})
    )
    assert any(
        "V = 1,000 are imprecise, full to 10% (5 repetitions)" in text
        for text in warnings(frames([rough]))
    )
    assert not any("imprecise" in text for text in warnings(frames([record])))
    many = [speed_record(f"nce(num_samples={n})", 1000, 1.0) for n in range(1, 9)]
    many = [
        msgspec.structs.replace(
            one, result=msgspec.structs.replace(one.result, phases=rough.result.phases)
        )
        for one in many
    ]
    assert any(
        "imprecise, those of 8 layers to 10% or better" in text for text in warnings(frames(many))
    )
    assert summary_table(frames([record]))["stopped"].tolist() == ["precise"]


def test_what_was_disturbed_is_told() -> None:
    """Of the models that are shown, and of nothing where a record does not know it."""
    full, nce, sampled = (train_record(name, 10_000, 9.0) for name in ("full", "nce", "sampled"))
    worse = disturbed(train_record("full", 10_000, 99.0, rate=9.0), 0.9)
    told = " ".join(warnings(frames([worse, disturbed(full), nce, disturbed(sampled, 0.2)])))
    assert (
        "the seconds of training of full, sampled at V = 10,000 cannot be relied on: other "
        "processes took 42% of the processor"
    ) in told
    assert "timing" not in told
    assert "training at V = 10,000 cannot" in " ".join(warnings(frames([disturbed(full)])))
    timed = [speed_record("full", 10, 1.0), *(disturbed(speed_record("x", v, 1)) for v in (10, 20))]
    assert (
        "timing of x at V = 10, 20 cannot be relied on: other processes took 42% of the processor"
    ) in warnings(frames(timed))
    for quiet in (full, disturbed(full, 0.04)):
        assert "relied on" not in " ".join(warnings(frames([quiet, nce])))


def test_training_and_timing_of_unlike_studies_do_not_share_a_row() -> None:
    """Whichever was made last is shown; of the other kind what is like it."""

    def day(record: Record, number: int) -> Record:
        started = f"2026-01-{number:02}T00:00:00+00:00"
        return msgspec.structs.replace(record, started=started)

    first = [
        day(train_record("full", 4000, 90.0, hidden_size=64, embedding_size=64), 1),
        day(speed_record("full", 4000, 1.0, hidden_size=64), 1),
    ]
    second = day(train_record("full", 500, 30.0, hidden_size=32, embedding_size=32), 2)
    results = frames([*first, second])
    table = summary_table(results)
    assert table["vocab_size"].tolist() == [500]
    assert "step_ms" not in table
    told = " ".join(warnings(results))
    assert "train records left out: 1; their embedding_size, hidden_size differ from" in told
    assert "speed records left out: 1; their hidden_size differ from those of the" in told
    timed_last = frames([second, *first[:1], day(first[1], 3)])
    assert summary_table(timed_last)["vocab_size"].tolist() == [4000]
    assert summary_table(timed_last)["test_perplexity"].tolist() == [91.0]


def test_unlike_budgets_are_shown_and_told() -> None:
    short = train_record("nce", 10, 9.0)
    long = msgspec.structs.replace(
        (full := train_record("full", 10, 8.0, max_tokens=9000)),
        result=msgspec.structs.replace(full.result, train_tokens=9000),
    )
    assert "training tokens" in format_table(summary_table(frames([short, long])))
    assert any("1,000 to 9,000 tokens" in text for text in warnings(frames([short, long])))
    assert "training tokens" not in format_table(summary_table(frames([short])))


def test_every_number_that_is_doubtful_has_a_mark() -> None:
    full, nce = disturbed(speed_record("full", 10, 1.0)), speed_record("nce", 10, 0.1)
    table = summary_table(frames([full, nce, disturbed(train_record("full", 10, 9.0))]))
    cells = format_table(table).set_index("layer")
    assert cells.loc["full", ["step ms", "forward ms", "x full", "training s"]].tolist() == [
        "1,000*", "400*", "1*", "9*",
    ]  # fmt: skip
    assert cells.loc["full", ["test ppl", "memory MB"]].tolist() == ["10", "1"]
    assert cells.loc["nce", ["step ms", "x full"]].tolist() == ["100", "10*"]  # full's is doubtful
    note = markdown_table(table).splitlines()[-1]
    assert note == (
        "* unreliable: timed while other processes took 42% of the processor; trained while "
        "other processes took 42% of the processor"
    )
    assert "unreliable" not in markdown_table(summary_table(frames([nce])))


def test_a_note_names_each_kind_of_doubt_once() -> None:
    table = pd.DataFrame(
        {
            "train_seconds": [1.0, 2.0, 3.0],
            "train_doubt": ["others took 1,051 steps", "others took 8.5 steps", ""],
        }
    )
    assert mark_notes(table) == ["* unreliable: trained while others took 8.5 to 1,051 steps"]


def test_a_machine_is_one_however_many_threads_a_trial_used() -> None:
    two, one = speed_record("full", 10, 1.0), speed_record("full", 20, 1.0, threads=1)
    found = frames([two, one])
    assert "different machines" not in " ".join(warnings(found))
    assert "Test processor, 2 cores" in _subtitle(found)
    assert [shown["title"] for shown in configurations(found)][-1] == "Machine"
    other = msgspec.structs.replace(one.environment, cores=64)
    found = frames([two, msgspec.structs.replace(one, environment=other)])
    assert "the records come from 2 different machines" in warnings(found)
    assert "2 machines" in _subtitle(found)
    assert [shown["title"] for shown in configurations(found)][-1] == "Machine 2 of 2"


def test_what_is_faster_than_possible_is_doubtful() -> None:
    """The rates of the machine were taken while it was busier than when the layer was timed."""
    possible, faster = speed_record("full", 10, 1.0), speed_record("nce", 10, 1.0)
    result = msgspec.structs.replace(faster.result, flops=1e15)
    found = frames([possible, msgspec.structs.replace(faster, result=result)])
    table = summary_table(found)
    row = table.set_index("layer").loc["nce"]
    assert row["of_possible"] > 1
    assert "more than possible" in cell_doubt("of_possible", row)
    assert "more than possible" in markdown_table(table)
    chart = next(chart for chart in charts(found) if chart.name == "roofline")
    assert "1 of 2 steps are left out: they were faster than the roof" in chart.caption
    assert layers_of(chart) == ["full"]


def test_studies_that_can_say_nothing_say_so() -> None:
    def told(tokens: int, unknown: int, size: int, perplexity: float) -> str:
        record = train_record("full", size, perplexity)
        split = msgspec.structs.replace(record.result.valid, tokens=tokens, unknown_tokens=unknown)
        result = msgspec.structs.replace(record.result, valid=split, test=split)
        return " ".join(warnings(frames([msgspec.structs.replace(record, result=result)])))

    quiet = told(5000, 5, 900, 100.0)
    for doubt in ("mostly chance", "<unk>", "guessing", "fewer training tokens", "only"):
        assert doubt not in quiet
    assert "at V = 900 the test text has only 12 tokens" in told(12, 0, 900, 100.0)
    assert "at V = 900 80% of the validation text is <unk>" in told(5000, 4000, 900, 100.0)
    assert "at V = 9 predictions of full are worse than guessing" in told(5000, 0, 9, 601.0)
    assert "there were fewer training tokens (1,000) than classes" in told(5000, 0, 5000, 100.0)
