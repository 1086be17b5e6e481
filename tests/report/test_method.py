from __future__ import annotations

import msgspec

from softmax_bench.records.frames import frames
from softmax_bench.report.show.method import method
from softmax_bench.report.tables.caveats import warnings
from tests.records import fidelity_record, speed_record, train_record


def test_only_what_was_done_is_told() -> None:
    timing = " ".join(method(frames([speed_record("full", 10, 1.0)])))
    assert "median of 7 repetitions" in timing
    assert "10 GFLOP/s" in timing
    assert "erplexity" not in timing
    assert "encoder" not in timing
    after = speed_record("full", 10, 1.0, clip_norm=5.0, encoder="lstm", bptt=10)
    assert "follows one of an encoder (lstm)" in " ".join(method(frames([after])))
    both = " ".join(method(frames([after, train_record("full", 10, 9.0)])))
    assert "Training time is the number of tokens times the time per token of a step" in both
    training = " ".join(method(frames([train_record("full", 10, 9.0)])))
    assert "on the same 1,000 tokens" in training
    assert "1 seed." in training
    assert "learning rate" not in training
    assert "repetition" not in training
    assert "Training time" not in training
    (fidelity,) = method(frames([fidelity_record("full", 10, 0.1)]))
    assert "16 draws of a layer's gradient at 20 of its hidden states" in fidelity


def test_rates_and_seeds_are_told() -> None:
    records = [
        train_record("full", 10, 9.0 + rate + seed / 9, rate=rate, seed=seed, max_tokens=tokens)
        for tokens, rates, seeds in ((100, (0.1, 0.2, 0.4), (0,)), (1000, (0.1,), (0, 1)))
        for rate in rates
        for seed in seeds
    ]
    told = " ".join(method(frames(records)))
    assert "the best of 3 trials by validation perplexity after 100 tokens each" in told
    assert "Lower and higher rates did worse for 0 of 1." in told, "the least of them did best"
    assert "2 seeds" in told
    assert "two seeds" in " ".join(warnings(frames(records)))


def test_which_figures_are_of_a_part_of_a_text() -> None:
    record = train_record("full", 10, 9.0)
    result = msgspec.structs.replace(record.result, curve_tokens=1234)
    told = " ".join(method(frames([msgspec.structs.replace(record, result=result)])))
    assert "on 1,234 tokens spread over the validation text" in told
    assert "on all 500 tokens of the test text" in told


def test_gaps_are_told() -> None:
    records = [
        speed_record("full", 10, 1.0), speed_record("full", 100, 1.0),
        speed_record("nce", 100, 1.0),
    ]  # fmt: skip
    assert "nce was not timed at V = 10, where others were" in warnings(frames(records))


def test_rates_that_were_searched_are_counted_layer_by_layer() -> None:
    searched = {"full": (0.1, 0.13, 0.27), "nce": (0.1, 0.16, 0.04)}
    records = [
        train_record(layer, 10, 9.0 + rate, rate=rate)
        for layer, rates in searched.items()
        for rate in rates
    ]
    assert "the best of 3 trials by validation perplexity" in " ".join(method(frames(records)))
