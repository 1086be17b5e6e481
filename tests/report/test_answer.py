from __future__ import annotations

import msgspec

from softmax_bench.records.frames import frames
from softmax_bench.records.record import SpeedRecord, TrainRecord
from softmax_bench.report.show.answer import Answer, answer, winners
from tests.records import disturbed, speed_record, train_record


def test_winners_and_ties() -> None:
    results = frames(
        [
            speed_record("full", 10, 1.0),
            speed_record("nce", 10, 0.1),
            speed_record("sampled", 10, 0.1005),
            train_record("full", 10, 100.0),
            train_record("nce", 10, 120.0),
        ]
    )
    won = {criterion.name: criterion.winners[10] for criterion in winners(results)}
    fastest = won["fastest training step"]
    assert fastest.layers == ["nce", "sampled"]  # within the interval
    assert fastest.value == "100 ms"
    assert fastest.note == "10 times less than full"
    assert won["lowest test perplexity"].layers == ["full"]
    said = answer(results)
    assert said.finding == (
        "At V = 10, nce is fastest (100 ms per training step, 10 times full softmax's speed), "
        "level with sampled, and full has the lowest test perplexity (101); the fastest layer's is "
        "19.8% higher."
    )
    assert said.reserve == (
        "Perplexities are those of one seed. Training has not converged after 1,000 tokens: twice "
        "the tokens would lower perplexity by up to 50%, and the order may change."
    )
    assert won["lowest test perplexity"].note == "not converged"


def test_a_winner_is_level_with_full_softmax_or_below_it() -> None:
    layers = ("nce", "sampled", "blackout", "full")
    trained = [train_record(layer, 10, 100.0 + 0.1 * i) for i, layer in enumerate(layers)]
    (lowest,) = winners(frames(trained))[:1]
    assert lowest.winners[10].note == "not converged"
    assert lowest.winners[10].level == "full, sampled and blackout"


def converged(record: TrainRecord) -> TrainRecord:
    """The same, trained until validation no longer improved."""
    trial = msgspec.structs.replace(record.trial, patience=3, max_tokens=9999)
    return msgspec.structs.replace(record, trial=trial)


def test_what_more_training_cannot_take_back_is_said_without_reserve() -> None:
    trained = [train_record("full", 10, 100.0), train_record("nce", 10, 120.0)]
    both = frames([converged(record) for record in trained])
    one_seed = "Perplexities are those of one seed."
    assert answer(both) == Answer("At V = 10, full has the lowest test perplexity (101).", one_seed)
    linear = [train_record(layer, 10, 100.0, schedule="linear") for layer in ("full", "nce")]
    assert answer(frames(linear)).reserve == (
        f"{one_seed} Training has not converged after 1,000 tokens, and the order may change."
    )


def test_one_layer_wins_nothing() -> None:
    results = frames([speed_record("full", 10, 1.0)])
    assert winners(results) == []
    assert answer(results) == Answer("There is only one layer, so there is nothing to compare.")


def test_timings_alone() -> None:
    results = frames([speed_record("full", 10, 1.0), speed_record("nce", 10, 2.0)])
    assert answer(results) == Answer("At V = 10, full is fastest (1,000 ms per training step).")


def test_the_fastest_may_be_no_worse() -> None:
    results = frames(
        [
            train_record("full", 10, 100.0),
            train_record("nce", 10, 100.5),
            speed_record("full", 10, 1.0),
            speed_record("nce", 10, 0.1),
        ]
    )
    assert answer(results).finding.endswith(
        "and no worse than full, whose test perplexity of 101 is lowest."
    )


def test_winners_by_seconds_are_marked_where_any_layer_was_disturbed() -> None:
    """Not only where the winner was: another may have lost by it."""

    def notes(*records: SpeedRecord | TrainRecord) -> dict[str, bool]:
        return {
            criterion.name: "disturbed" in criterion.winners[10].note
            for criterion in winners(frames(records))
        }

    timed = [speed_record("full", 10, 1.0), speed_record("nce", 10, 0.1)]
    trained = [train_record("full", 10, 100.0), train_record("nce", 10, 120.0)]
    by_seconds = {"first to reach the target perplexity", "best perplexity in equal time"}
    quiet = notes(*timed, *trained)
    assert not any(quiet.values())
    busy_training = notes(*timed, trained[0], disturbed(trained[1]))
    assert {name for name, marked in busy_training.items() if marked} == by_seconds
    busy_timing = notes(disturbed(timed[0]), timed[1], *trained)
    assert [name for name, marked in busy_timing.items() if marked] == ["fastest training step"]


def test_the_answer_carries_its_own_doubt() -> None:
    timed = [speed_record("full", 10, 1.0), speed_record("nce", 10, 0.1)]
    trained = [train_record("full", 10, 100.0), train_record("nce", 10, 120.0)]
    assert "unreliable" not in answer(frames([*timed, *trained])).reserve
    doubtful = answer(frames([disturbed(timed[0]), timed[1], *trained]))
    assert "nce is fastest (100 ms per training step, 10 times full softmax's" in doubtful.finding
    assert "full has the lowest test perplexity (101)" in doubtful.finding
    assert doubtful.reserve.startswith("The machine was disturbed, so the times are unreliable. ")
    seeds = [train_record("full", 10, 100.0 + seed, seed=seed) for seed in range(3)]
    more = [train_record("nce", 10, 120.0 + seed, seed=seed) for seed in range(3)]
    three = answer(frames([*timed, *seeds, *more]))
    assert "full has the lowest test perplexity (102);" in three.finding
    assert "seed" not in three.reserve
    some = answer(frames([*timed, *seeds, more[0]])).reserve
    assert some.startswith("Some perplexities are those of one seed. ")
