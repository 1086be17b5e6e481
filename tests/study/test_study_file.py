"""Studies from presets, files and the command line; mistakes are told with their place."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import layer_names
from softmax_bench.study.check import class_limit_mistake, sample_notes
from softmax_bench.study.key_types import expected
from softmax_bench.study.study import Study
from softmax_bench.study.study_file import Change, load_study, parse_change, preset_names


def test_the_quick_study_is_what_a_study_is_by_default() -> None:
    assert load_study("quick") == Study()


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_studies(name: str) -> None:
    assert isinstance(load_study(name), Study)


def test_the_presets() -> None:
    assert preset_names() == ["peers", "ptb", "quick", "vocabulary-sweep", "zaremba"]


def file_with(folder: Path, text: str) -> str:
    path = folder / "my.toml"
    path.write_text(text)
    return str(path)


def test_one_of_several_needs_no_brackets(tmp_path: Path) -> None:
    study = load_study(file_with(tmp_path, 'layers = "full"\nvocab_sizes = "all"\nseeds = 3'))
    assert (study.layers, study.vocab_sizes, study.seeds) == (("full",), ("all",), (3,))


def test_changes() -> None:
    study = load_study(
        "quick",
        [
            Change("--layers", "layers", "full, sampled(num_samples=3, power=1)"),
            Change("--vocab-sizes", "vocab_sizes", "100,all"),
            *map(parse_change, ["tied=true", "learning-rates = 0.1,0.2", "corpora=a b/c,d"]),
            parse_change("seeds=[1, 2]"),
        ],
    )
    assert study.layers == ("full", "sampled(num_samples=3, power=1)")
    assert study.vocab_sizes == (100, "all")
    assert study.tied
    assert study.learning_rates == (0.1, 0.2)
    assert study.corpora == ("a b/c", "d")
    assert study.seeds == (1, 2)
    assert load_study("quick", [Change("", "layers", "all")]).layers == tuple(layer_names())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nhiden_size = 3", "line 2: unknown study key 'hiden_size': did you mean"),
        ("[limits]\ntime_limit = 3", "my.toml, line 1: unknown study key 'limits'"),
        ("seeds = [0]\n\nhidden_size = 0", "my.toml, line 3: hidden_size must be a whole number"),
        ('hidden_size = "big"', "line 1: hidden_size must be a whole number of at least 1"),
        ("dropout = 1", "line 1: dropout must be a number of at least 0 and below 1, not 1"),
        ("vocab_sizes = [\n 10,\n 0,\n]", "line 3: vocab_sizes must be a whole number of at least"),
        ('layers = [\n  "full",\n  "samplde",\n]', "line 3: unknown layer 'samplde': did you mean"),
        ("layers = ['nce(sampels=3)']", "line 1: layer 'nce' has no option 'sampels'"),
        ('layers = ["full",\n"nce(num_samples=0)"]', "line 2: nce(num_samples=0): num_samples"),
        ('layers = [\n"full",\n"full"]', "'full': listed twice"),
        ("tied = \"yes\"", "line 1: tied must be true or false, not \"yes\""),
        ("learning_rates = [\n0.1,\ninf]", "learning_rates must be a number above 0, not Infinity"),
        ("clip_norm = nan", "line 1: clip_norm must be a number above 0, not NaN"),
        ("seeds = [12345678901234567890]", "seeds must be a whole number of at least 0, not 123"),
        ('layers = ["nce", "nce()"]', "'nce()', which is 'nce' in another spelling: listed twice"),
        ('layers = ["nce( num_samples=3 )",\n"nce(num_samples=3)"]', "in another spelling"),
        ('layers = ["sampled", "sampled(num_samples=1024)"]', "is 'sampled' in another spelling"),
        ("", "my.toml is empty: give at least one key"),
        ("# nothing yet\n", "my.toml is empty: give at least one key"),
        ("layers = []", "line 1: layers must not be empty"),
        ('encoders = ["lsmt"]', "line 1: unknown encoder 'lsmt': did you mean 'lstm'"),
        ('optimizer = "adagard"', "line 1: unknown optimizer 'adagard'"),
        ('device = "tpu"', "line 1: unknown device 'tpu'"),
        ('schedule = "liner"', "line 1: unknown schedule 'liner': did you mean 'linear'"),
        ("tied = true\nembedding_size = 3", "line 2: a tied embedding needs the hidden size"),
        ("seeds = [0", "my.toml is not valid TOML: "),
        ("seeds = 1\nseeds = 2", "my.toml is not valid TOML: "),
    ],
)  # fmt: skip
def test_mistakes_in_a_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SoftmaxBenchError) as caught:
        load_study(file_with(tmp_path, text))
    assert message in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SoftmaxBenchError) as caught:
        load_study(
            file_with(tmp_path, 'encoders = "x"\nlayers = "y"\noptimizer = "z"\ndropout = 2\nx = 1')
        )
    assert str(caught.value).startswith("5 mistakes in the study:\n  ")
    assert {f"line {n}" in str(caught.value) for n in (1, 2, 3, 4, 5)} == {True}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("quik", [], "there is no study 'quik': did you mean 'quick'?"),
        ("no/such.toml", [], "cannot read the study no/such.toml: "),
        (
            ".",
            [],
            ". is not a study: a study is a file that ends in .toml; to study this text write",
        ),
        (
            "quick",
            ["hiden_size=3"],
            "--set hiden_size: unknown study key 'hiden_size': did you mean",
        ),
        ("quick", ["hidden_size"], "--set takes KEY=VALUE"),
        ("quick", ["=5"], "--set takes KEY=VALUE"),
        (
            "quick",
            ["seeds=1", "seeds=2"],
            "seeds is given twice, by --set seeds and by --set seeds",
        ),
        ("quick", ["layers=ful"], "--set layers: unknown layer 'ful'"),
        ("quick", ["learning_rates=fast"], 'learning_rates must be a number above 0, not "fast"'),
        ("quick", ["seeds=-1"], "--set seeds: seeds must be a whole number of at least 0, not -1"),
    ],
)
def test_mistakes_on_the_command_line(name: str, changes: list[str], message: str) -> None:
    with pytest.raises(SoftmaxBenchError) as caught:
        load_study(name, list(map(parse_change, changes)))
    assert message in str(caught.value)


def test_mistakes_of_a_file_and_of_the_command_line_are_told_together(tmp_path: Path) -> None:
    study = file_with(tmp_path, 'optimizer = "adagard"\ndropout = 0.1')
    with pytest.raises(SoftmaxBenchError) as caught:
        load_study(study, list(map(parse_change, ["hiden_size=3", "dropout=2"])))
    head, *told = str(caught.value).splitlines()
    assert head == "3 mistakes in the study:"
    starts = (
        f"{study}, line 1: unknown",
        "--set dropout: dropout must be",
        "--set hiden_size: unknown",
    )
    assert {any(line.strip().startswith(start) for line in told) for start in starts} == {True}


def test_an_option_and_set_do_not_overrule_each_other() -> None:
    with pytest.raises(SoftmaxBenchError, match=r"by --layers and by --set layers: give it once"):
        load_study("quick", [Change("--layers", "layers", "full"), parse_change("layers=nce")])


def test_a_byte_order_mark_is_no_part_of_a_study(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(b"\xef\xbb\xbfhidden_size = 3\n")
    assert load_study(str(path)).hidden_size == 3
    path.write_text("hidden_size = 3\n", encoding="utf-16")
    with pytest.raises(SoftmaxBenchError, match=r"my\.toml: it is not in UTF-8; save it as UTF-8"):
        load_study(str(path))


def test_what_no_machine_holds_is_refused_before_anything_is_made() -> None:
    vast = load_study("quick", [Change("--vocab-sizes", "vocab_sizes", "1000,20000000000")])
    assert "20,000,000,000 classes take 40,960 GB" in class_limit_mistake(vast)
    assert "classes take 20,480 GB" in class_limit_mistake(vast, word_vectors=False)
    assert class_limit_mistake(load_study("quick")) == ""
    large = load_study(
        "quick", [parse_change("vocab_sizes=3000"), parse_change("memory_limit=0.001")]
    )
    assert "3,000 classes" in class_limit_mistake(large)
    assert "memory_limit is" in class_limit_mistake(large)


def test_every_key_says_what_it_takes() -> None:
    said = {field.name: expected(field.type) for field in msgspec.structs.fields(Study)}
    assert said["tied"] == "true or false"
    assert said["dropout"] == "a number of at least 0 and below 1"
    assert said["vocab_sizes"] == 'a list, each a whole number of at least 1 or "all"'
    assert said["time_limit"] == "a number above 0"
    assert said["device"] == "text"


def test_more_samples_than_classes_are_noted() -> None:
    specs = ["full", "sampled", "sampled(num_samples=1000)", "nce(num_samples=2000)"]
    assert [note.split()[0] for note in sample_notes(specs, 1000)] == [
        "sampled", "nce(num_samples=2000)"
    ]  # fmt: skip
