from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from softmax_bench.corpora import load_corpus
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.records.frames import load_results
from softmax_bench.records.store import write_record
from softmax_bench.records.trial import FidelityTrial, TrainTrial
from softmax_bench.report.tables.fidelity import fidelity_table
from softmax_bench.study.trials.fidelity import measure_fidelity

CORPUS = load_corpus("synthetic", vocab_size=60, tokens=1000)
MODEL = TrainTrial(
    corpus=CORPUS.name, corpus_sha256=CORPUS.sha256, vocab_size=60, layer="full", encoder="rnn",
    embedding_size=6, hidden_size=6, num_layers=1, dropout=0.0, tied=False, optimizer="adagrad",
    learning_rate=0.1, clip_norm=5.0, batch_size=4, bptt=10, max_tokens=1000, seed=0, threads=1,
    device="cpu", dtype="float32",
)  # fmt: skip


def trial(layer: str = "full", **changes: object) -> FidelityTrial:
    made = FidelityTrial(
        layer=layer, model=MODEL, sample_counts=(4, 16, 999), num_states=40, num_draws=16,
        learning_rates=(0.1, 0.3),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def test_layers_against_one_model(tmp_path: Path) -> None:
    layers = ["full", "sampled", "nce(num_samples=8)", "in_batch", "hierarchical"]
    shares: list[float] = []
    for record in measure_fidelity(
        [trial(layer) for layer in layers],
        CORPUS,
        on_progress=lambda what, share: shares.append(share),
    ):
        write_record(tmp_path, record)
    assert shares == sorted(shares)
    results = load_results(tmp_path)
    points = results.gradients.groupby("layer")["num_samples"].unique()
    assert set(points.index) == {"sampled", "nce(num_samples=8)", "in_batch"}
    assert points["sampled"].tolist() == [4, 16]  # not more than there are classes
    assert points["nce(num_samples=8)"].tolist() == [8]
    assert set(results.gradients["of"]) == {"hidden", "weight"}
    table = fidelity_table(results).set_index("layer")
    assert set(table.index) == set(layers)
    assert (table["divergence_low"] > -0.05).all()
    assert table["learned_log_z_sd"].isna().sum() == 1  # a tree has no log Z
    assert table.loc["sampled", "num_samples"] == 16
    assert table.loc["sampled", "effective_samples"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": "nonsense"}, "unknown layer"),
        ({"num_draws": 15}, "the number of draws must be at least 16 for an interval, not 15"),
        ({"num_states": 0}, "num_states must be at least 1"),
        ({"sample_counts": (0,)}, "numbers of samples must be positive"),
        ({"learning_rates": ()}, "learning rates must be positive"),
    ],
)
def test_bad_choices_train_nothing(
    changes: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softmax_bench.study.trials.fidelity.train_model", None)
    with pytest.raises(SoftmaxBenchError, match=message):
        next(measure_fidelity([trial(**changes)], CORPUS))  # type: ignore[arg-type]
