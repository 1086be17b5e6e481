"""The command line as people use it, at the smallest size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from softmax_bench import load_results
from softmax_bench.cli import main
from softmax_bench.layers import split_specs
from softmax_bench.measure import catalogue, describe_environment
from softmax_bench.records.store import write_record
from softmax_bench.study.plan.grid import speed_trials, usable_threads
from softmax_bench.study.study_file import load_study
from tests.records import disturbed, speed_record

STUDY = """\
layers = ["full", "nce"]
vocab_sizes = "all"
max_tokens = 400
learning_rates = 0.1
hidden_size = 4
batch_size = 4
bptt = 5
threads = 1
workers = 2
time_budget = 0.1
"""


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["softmax-bench", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def text_folder(path: Path) -> Path:
    path.mkdir()
    lines = "".join(f"w{i % 7} w{i % 5} x\n" for i in range(60))
    for split in ("train", "valid", "test"):
        (path / f"{split}.txt").write_text(lines)
    return path


def test_the_main_job_and_resuming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    corpus, out, study = text_folder(tmp_path / "corpus"), tmp_path / "out", tmp_path / "my.toml"
    study.write_text(STUDY)
    arguments = ["run", str(study), "--corpus", str(corpus), "--out", str(out)]
    assert call(monkeypatch, *arguments) == 0
    printed = capsys.readouterr().out
    assert "predicted tokens: train 240, valid 240, test 240" in printed
    assert str(out / "report" / "index.html") in printed.replace("\n", "")
    results = load_results(out)
    assert set(results.train["layer"]) == {"full", "nce"}
    assert (results.train["test_tokens"] == 240).all()
    assert len(results.speed) == 2 * 9  # layers; phases and the encoder
    assert len(results.ngrams) == 1
    assert "nce V=" in printed
    stored = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}

    assert call(monkeypatch, *arguments) == 0
    assert "5 trials, 5 done before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.json")} == stored

    assert call(monkeypatch, "compare", str(out), str(out)) == 0
    assert "no difference found" in capsys.readouterr().out
    assert call(monkeypatch, "compare", str(out), "--layers", "full,nce", "--markdown") == 0
    assert "| `full / nce` |" in capsys.readouterr().out
    gate = ["--fail-if", "memory > 0.5", "--fail-if", "time > 100"]
    assert call(monkeypatch, "compare", str(out), str(out), *gate) == 1
    assert "memory > 0.5: met in 2 of 2 cells" in capsys.readouterr().out
    assert call(monkeypatch, "compare", str(out), str(out), "--fail-if", "perplexity > 1.1") == 0


def test_a_job_does_not_fail_for_a_disturbed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    slow = speed_record("full", 1000, 5.0)
    for name, record in {
        "before": speed_record("full", 1000, 1.0), "after": slow, "busy": disturbed(slow)
    }.items():  # fmt: skip
        write_record(tmp_path / name, record)

    def status(a: str, *arguments: str) -> int:
        against = [str(tmp_path / a), str(tmp_path / "before")]
        return call(monkeypatch, "compare", *against, "--fail-if", "time > 2", *arguments)

    assert status("after") == 1
    assert status("busy", "--fail-if", "memory > 2") == 1
    capsys.readouterr()
    for form in ([], ["--markdown"]):
        assert status("busy", *form) == 0
        printed = capsys.readouterr().out
        assert "slower (disturbed)" in printed
        assert "time > 2: met in 0 of 1 cells, 1 not judged" in printed
        assert "disturbed (A: other processes took 42% of the processor)" in printed


def test_a_plan_says_what_is_done_and_a_failure_ends_with_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    corpus, out, study = text_folder(tmp_path / "corpus"), tmp_path / "out", tmp_path / "my.toml"
    study.write_text(STUDY)
    what = [str(study), "--corpus", str(corpus), "--out", str(out)]
    what += ["--layers", "full", "--set", "time_budget=0", "--set", "optimizer=sgd"]
    what += ["--learning-rates", "1e38"]
    assert call(monkeypatch, "plan", *what) == 0
    assert "2 trials: 2 due" in capsys.readouterr().out
    assert call(monkeypatch, "run", *what) == 1
    printed = capsys.readouterr().out
    assert "1 of the trials failed:\n  full V=9 lr=1e+38" in printed
    assert "training diverged after" in printed
    assert call(monkeypatch, "plan", *what) == 0
    assert "2 trials: 1 done, 1 failed" in capsys.readouterr().out


def test_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--num-tokens", "10", "--hidden-size", "4", "--time-budget", "0.1"]
    sizes = ["--vocab-sizes", "10", "--layers", "sampled(num_samples=3, power=1),full"]
    assert call(monkeypatch, "time", *sizes, *arguments, "--out", str(tmp_path)) == 0
    assert set(load_results(tmp_path).speed["layer"]) == {"full", "sampled(num_samples=3, power=1)"}


def test_hidden_states_of_somebodys_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    np.save("states.npy", np.random.default_rng(0).standard_normal((200, 3)))
    np.save("classes.npy", np.arange(200) % 9)
    arguments = ["run", "--hidden", "states.npy", "--targets", "classes.npy", "--layers", "full"]
    arguments += ["--max-tokens", "400", "--set", "time_budget=0", "--set", "threads=1"]
    assert call(monkeypatch, *arguments) == 0
    printed = capsys.readouterr().out
    assert "V=9, H=3; examples: train 160, valid 20, test 20" in printed
    assert "top 1" in printed
    results = load_results("runs/given")
    assert results.train[["encoder", "hidden_size"]].to_numpy().tolist() == [["given", 3]]


def test_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOFTMAX_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(
        "softmax_bench.advise.calibration.SIZES", [(50 * n, 4, 9 - n) for n in (1, 2, 3, 4)]
    )
    monkeypatch.setattr("softmax_bench.advise.calibration.SECONDS_A_CELL", 0.001)
    counts = tmp_path / "counts.txt"
    counts.write_text(" ".join(map(str, range(40))))
    small = ["--hidden", "4", "--tokens", "5", "--layers", "full,sampled", "--threads", "1"]
    assert call(monkeypatch, "advise", "--counts", str(counts), *small) == 0
    printed = capsys.readouterr().out
    assert "V = 40 classes by your counts" in printed
    assert "the median error at held" in printed.replace("\n", " ")
    assert "create_layer('" in printed
    assert len(list((tmp_path / "calibration").iterdir())) == 1
    assert call(monkeypatch, "advise", "--vocab", "30", *small, "--measure") == 0
    assert "Measured just now." in capsys.readouterr().out
    assert call(monkeypatch, "advise", "--vocab", "30", *small, "--max-memory", "1kB") == 2
    assert "every layer is ruled out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--layers", "ful"], "--layers: unknown layer 'ful': did you mean 'full'"),
        (["run", "--set", "hidden_size=0"], "hidden_size must be a whole number of at least 1"),
        (["run", "--hidden", "h.npy"], "--hidden and --targets go together"),
        (["run", "--hidden", "h.npy", "--targets", "t.npy", "--corpus", "x"], "take the place"),
        (["run", "--hidden", "h.npy", "--targets", "t.npy"], "cannot read"),
        (["advise"], "give the number of classes"),
        (["advise", "--vocab", "9", "--need", "speed"], "unknown need 'speed'; there are"),
        (["advise", "--vocab", "9", "--max-memory", "4"], "write it like 4GB"),
        (["advise", "--vocab", "9", "--max-penalty", "-1"], "--max-penalty"),
        (["advise", "--vocab", "9", "--layers", "ful"], "did you mean 'full'"),
        (["run", "--vocab-sizes", "1"], "from 2 to 10,000,000"),
        (["run", "--corpus", "no/such/text"], "no text at no/such/text"),
        (["run", "--corpus", "no/such/text", "--address", "auto"], "is for --executor ray or"),
        (["plan", "--data-dir", "no/such/folder"], "--data-dir: there is no folder"),
        (["run", "no/such/text"], "to study a text write '--corpus TEXT'"),
        (["time", "--layers", "full(nothing=1)"], "no option 'nothing'"),
        (["time", "--optimizer", "sdg"], "unknown optimizer 'sdg'"),
        (["time", "--hidden-size", "0"], "--hidden-size: hidden_size must be a whole number"),
        (["time", "--vocab-sizes", "1e3.5"], "--vocab-sizes: vocab_sizes must be a whole number"),
        (["time", "--vocab-sizes", "all"], "'all' is for a corpus"),
        (["time", "--num-tokens", "0"], "greater than or equal to 1"),
        (["time", "--clip-norm", "inf"], "--clip-norm: clip_norm must be a number above 0"),
        (["time", "--seed", "12345678901234567890"], "--seed: seeds must be a whole number"),
        (["time", "--vocab-sizes", "20000000000"], "--vocab-sizes: 20,000,000,000 classes take"),
        (["run", "--vocab-sizes", "20000000000"], "vocab_sizes: 20,000,000,000 classes take"),
        (["plan", "--vocab-sizes", "20000000000"], "vocab_sizes: 20,000,000,000 classes take"),
        (["advise", "--vocab", "20000000000"], "that many classes alone take 480 GB"),
        (["fidelity", "--layers", "ful"], "softmax-bench: --layers: unknown layer"),
        (["fidelity", "--learning-rate", "0"], "softmax-bench: --learning-rate: "),
        (["fidelity", "--encoder", "foo"], "softmax-bench: --encoder: "),
        (["fidelity", "--samples", "4,inf"], "--samples must be numbers separated by commas"),
        (["report", "no/such/results"], "no results at"),
        (["compare", "no/such/results"], "no results at no/such/results"),
        (["compare", "."], "give two folders"),
        (["compare", "a", "b", "--fail-if", "speed > 1"], "unknown metric 'speed'"),
    ],
)
def test_mistakes_end_with_a_message_and_touch_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_layers_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "layers") == 0
    printed = capsys.readouterr().out
    assert "hierarchical" in printed
    assert "num_samples" in printed
    assert call(monkeypatch, "layers", "nce") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("nce(num_samples: int = 1024, noise: str = 'unigram'")
    assert "learned" in printed  # what an option of its own means
    assert "class_counts" in printed  # and one of all
    assert call(monkeypatch, "layers", "differentiated") == 0
    assert "class_counts" in capsys.readouterr().out
    monkeypatch.setattr(catalogue, "VOCAB_SIZE", 100)
    assert call(monkeypatch, "layers", "--markdown") == 0
    assert capsys.readouterr().out.startswith("# The output layers")


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from softmax_bench.cli import main; sys.argv = ['softmax-bench', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    assert b"Usage" in subprocess.run([sys.executable, "-c", code], capture_output=True).stdout
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_lists_of_layers() -> None:
    assert split_specs("full, nce(a=1, b='x,y') ,sampled") == [
        "full",
        "nce(a=1, b='x,y')",
        "sampled",
    ]
    assert split_specs("my_layers.tree:Mine(a=[1,2], b=')'),full") == [
        "my_layers.tree:Mine(a=[1,2], b=')')",
        "full",
    ]


@pytest.mark.parametrize("command", ["run", "time", "tune", "fidelity"])
def test_results_that_cannot_be_written_are_refused_before_anything_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    (tmp_path / "file").write_text("kept")
    assert call(monkeypatch, command, "--out", str(tmp_path / "file")) == 2
    shown = capsys.readouterr()
    assert "there is a file of that name" in shown.err
    assert "predicted tokens" not in shown.out  # no corpus was read
    assert (tmp_path / "file").read_text() == "kept"


def test_omp_num_threads_is_what_trials_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert usable_threads() == 3
    quick, ptb = (speed_trials(load_study(name), 1000, "lstm") for name in ("quick", "ptb"))
    assert {trial.threads for trial in quick} == {3}
    assert {trial.threads for trial in ptb} == {1}  # it says so
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")  # of nested regions
    assert usable_threads() == 2
    for nothing in ("", "many", "0"):
        monkeypatch.setenv("OMP_NUM_THREADS", nothing)
        assert usable_threads() == describe_environment()["cores"]
