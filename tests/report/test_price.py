from __future__ import annotations

import math

import msgspec
import pytest

from softmax_bench.records.frames import frames
from softmax_bench.records.record import Record
from softmax_bench.report.tables.price import price_table
from softmax_bench.report.tables.scaling import crossing_sentences, scaling_table
from tests.records import disturbed, speed_record, train_record


def test_seconds_to_the_target_and_perplexity_at_equal_seconds() -> None:
    """Curves of two points: at tokens / 99 seconds, twice the last perplexity, then the last."""
    table = price_table(frames([train_record("full", 10, 100.0), train_record("nce", 10, 80.0)]))
    table = table.set_index("layer")
    assert table["target"].tolist() == [100.0, 100.0]  # what the worse one reaches
    assert table.loc["full", "seconds_to_target"] == pytest.approx(1000 / 99)
    share = math.log(160 / 100) / math.log(2)  # of the way from 160 to 80, in logarithms
    seconds = math.exp(math.log(500 / 99) + share * math.log(2))
    assert table.loc["nce", "seconds_to_target"] == pytest.approx(seconds)
    assert table["perplexity_at_equal_seconds"].to_dict() == pytest.approx(
        {"full": 100.0, "nce": 80.0}
    )


def test_slopes_and_crossings_of_power_laws() -> None:
    """Full softmax V / 10^4 seconds, the others V^0.5 / 50 and 10 seconds at any V."""
    sizes = (100, 1000, 10_000)
    records: list[Record] = []
    for size in sizes:
        records += [
            speed_record("full", size, size / 1e4),
            speed_record("root", size, size**0.5 / 50),
            speed_record("level", size, 10.0),
        ]
    table = scaling_table(frames(records)).set_index("layer")
    assert table["slope"].to_dict() == pytest.approx({"full": 1, "level": 0, "root": 0.5})
    assert table.loc["root", "slope_low"] == pytest.approx(0.5)
    assert table.loc[["root", "level"], "faster_from"].isna().all()
    records += [speed_record("early", 1000, 0.05), speed_record("early", 10_000, 0.2)]
    early = scaling_table(frames(records))
    assert early.set_index("layer").loc["early", "faster_from"] == 0
    sentences = " ".join(crossing_sentences(early))
    assert "early is faster than full softmax from V = 1,000 on" in sentences
    assert "level is not faster than full softmax" in sentences


def test_the_crossing_is_between_two_sizes() -> None:
    records = [
        speed_record("full", 100, 1.0),
        speed_record("full", 10_000, 100.0),
        speed_record("flat", 100, 10.0),
        speed_record("flat", 10_000, 10.0),
    ]
    table = scaling_table(frames(records)).set_index("layer")
    assert table.loc["flat", "faster_from"] == pytest.approx(1000)
    assert "from about V = 1,000 on" in crossing_sentences(table.reset_index())[0]


def test_a_line_that_bends_has_two_slopes() -> None:
    records: list[Record] = []
    for size in (1000, 4000, 16_000, 64_000, 256_000):
        records.append(speed_record("flat then linear", size, max(1.0, size / 16_000)))
        records.append(speed_record("straight", size, size**0.7))
    table = scaling_table(frames(records)).set_index("layer")
    bent = table.loc["flat then linear"]
    assert bent["bend"] == 16_000
    assert bent["slope_before_low"] < 0 < bent["slope_before_high"]
    assert bent["slope_after"] == pytest.approx(1.0)
    assert bent["slope_after_low"] < 1 < bent["slope_after_high"]
    assert 0.03 < bent["slope_after_high"] - bent["slope_after_low"] < 0.1
    assert math.isnan(table.loc["straight", "bend"])


def test_convergence_is_what_twice_the_tokens_would_gain() -> None:
    """The curves of :func:`train_record` halve from half of the tokens to all of them."""
    record = train_record("full", 10, 100.0)
    curve = [msgspec.structs.replace(record.result.curve[0], valid_perplexity=100.5),
             record.result.curve[1]]  # fmt: skip
    done = msgspec.structs.replace(
        record, id="done", trial=msgspec.structs.replace(record.trial, layer="done"),
        result=msgspec.structs.replace(record.result, curve=curve),
    )  # fmt: skip
    table = price_table(frames([record, done])).set_index("layer")
    assert table["last_gain"].to_dict() == pytest.approx({"full": 0.5, "done": 1 - 100 / 100.5})
    assert math.isnan(table.loc["full", "perplexity_at_convergence"])
    assert table.loc["done", "perplexity_at_convergence"] == 100
    assert table["perplexity_at_equal_tokens"].tolist() == pytest.approx([100, 100])


def test_at_a_rate_that_falls_to_zero_trainings_are_compared_by_their_ends() -> None:
    """Not by what they had reached half-way, when the rate was still high."""
    records = [
        train_record(layer, 10, perplexity, max_tokens=tokens, schedule="linear")
        for layer, tokens, perplexity in (
            ("full", 1000, 100.0), ("nce", 1000, 120.0), ("nce", 4000, 90.0)
        )
    ]  # fmt: skip
    curves = frames(records).curves
    assert curves["valid_perplexity"].max() == 240, "half-way"
    table = price_table(frames(records)).set_index("layer")
    assert table["equal_tokens"].tolist() == [1000, 1000]
    assert table["perplexity_at_equal_tokens"].to_dict() == pytest.approx(
        {"full": 100.0, "nce": 120.0}
    )
    assert table.loc["nce", "last_gain"] == pytest.approx(1 - math.sqrt(90 / 120))
    assert math.isnan(table.loc["full", "last_gain"])


@pytest.mark.parametrize(("trained", "reached"), [(1000, math.nan), (500, 100.0)])
def test_at_a_falling_rate_only_training_that_ended_early_has_converged(
    trained: int, reached: float
) -> None:
    record = train_record("full", 10, 100.0, schedule="linear")
    point = msgspec.structs.replace(record.result.curve[0], valid_perplexity=100.1)
    result = msgspec.structs.replace(
        record.result, curve=[point, record.result.curve[1]], train_tokens=trained
    )
    table = price_table(frames([msgspec.structs.replace(record, result=result)]))
    assert table["perplexity_at_convergence"].tolist() == pytest.approx([reached], nan_ok=True)


def test_disturbed_times_make_no_slope_where_calm_ones_do() -> None:
    calm = [speed_record("full", size, size / 100) for size in (100, 1000, 10_000)]
    calm += [speed_record("nce", size, 2.0) for size in (100, 1000, 10_000)]
    busy = [disturbed(speed_record(layer, 10, 90.0)) for layer in ("full", "nce")]
    table = scaling_table(frames([*calm, *busy])).set_index("layer")
    assert table.loc["full", "slope"] == pytest.approx(1.0)
    assert table.loc["nce", "faster_from"] == pytest.approx(200)
    assert table["smallest"].tolist() == [100, 100]
    assert table["doubt"].tolist() == ["", ""]
    (sentence,) = crossing_sentences(table.reset_index())
    assert sentence == "nce is faster than full softmax from about V = 200 on"
    short = scaling_table(frames([*calm[:1], *calm[3:4], *busy]))
    assert short["doubt"].str.contains("other processes").all()
    assert "(doubtful, as the timing was disturbed)" in crossing_sentences(short)[0]
