"""What else the machine did while a model was trained is in its record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from softmax_bench.corpora import load_corpus
from softmax_bench.corpora.states import load_states
from softmax_bench.measure import disturbance as watching
from softmax_bench.records.frames import frames
from softmax_bench.records.record import TrainRecord
from softmax_bench.records.trial import TrainTrial
from softmax_bench.study.trials.hidden_states import train_on_states
from softmax_bench.study.trials.train import train_trial
from tests.records import train_record

Train = Callable[..., TrainRecord]


def a_trial(size: int, encoder: str) -> TrainTrial:
    return train_record(
        "full", size, 100.0, encoder=encoder, hidden_size=4, embedding_size=4, clip_norm=1.0,
        batch_size=5, bptt=4, max_tokens=40, threads=1,
    ).trial  # fmt: skip


def on_a_text(folder: Path) -> Train:
    text = load_corpus("synthetic", vocab_size=50, seed=0)
    trial = a_trial(text.vocab_size, "rnn")
    return lambda **calls: train_trial(trial, text, **calls)


def on_given_states(folder: Path) -> Train:
    rng = np.random.default_rng(0)
    np.save(folder / "h.npy", rng.normal(size=(300, 4)))
    np.save(folder / "t.npy", np.arange(300) % 6)
    states = load_states(folder / "h.npy", folder / "t.npy")
    trial = a_trial(6, "given")
    return lambda **calls: train_on_states(trial, states, **calls)


@pytest.mark.parametrize("prepare", [on_a_text, on_given_states])
def test_the_machine_is_watched_from_the_first_step_to_the_last_evaluation(
    prepare: Callable[[Path], Train], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = prepare(tmp_path)
    happened: list[str] = []

    class Reading:
        """Counters of two cores: 10 s later others have worked for 4 s and the trial for 11 s."""

        def __init__(self) -> None:
            later = len(happened) > 0
            happened.append("reading")
            self.wall, self.cores = 10.0 * later, 2
            self.busy, self.own = 15.0 * later, 11.0 * later
            self.stolen, self.switches, self.frequency = 0.0, 0, 3000.0

    monkeypatch.setattr(watching, "_Reading", Reading)
    record = train(
        on_step=lambda tokens: happened.append("step"),
        on_evaluation=lambda progress: happened.append("evaluation"),
    )
    assert happened[:2] == ["reading", "step"]
    assert happened[-2:] == ["evaluation", "reading"]
    assert happened.count("reading") == 2
    assert record.result.disturbance is not None
    assert record.result.disturbance.reasons == ["other processes took 20% of the processor"]
    assert frames([record]).train["disturbance_foreign"].tolist() == pytest.approx([0.2])
