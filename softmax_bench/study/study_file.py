"""Reading a study from a preset or a TOML file, with changes from the command line.

Every error is reported with its place: a line of the file, or an option.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from softmax_bench.errors import SoftmaxBenchError, nearest
from softmax_bench.layers import split_specs
from softmax_bench.study.check import Mistake, mistakes
from softmax_bench.study.key_types import expected, fits
from softmax_bench.study.study import Study

_FIELDS = {entry.name: entry.type for entry in msgspec.structs.fields(Study)}
_LISTS = {name for name, kind in _FIELDS.items() if get_origin(kind) is tuple}


@dataclass(frozen=True)
class Change:
    """A value given on the command line."""

    option: str
    """The option as it was typed: ``--layers`` or ``--set hidden_size``."""
    key: str
    text: str


@dataclass
class _Source:
    """The origin of a study's values."""

    title: str
    text: str
    options: dict[str, str] = field(default_factory=dict)
    """The option that set each key, if any."""

    def place(self, key: str, value: Any = None) -> str:
        """Where ``key`` is set, and the line of ``value`` if it is one of a list, in words."""
        if key in self.options:
            return self.options[key]
        lines = self.text.splitlines()
        first = next((n for n, line in enumerate(lines) if _assigns(line, key)), None)
        if first is None:
            return self.title
        if value is not None:
            encoded = json.dumps(value, ensure_ascii=False)
            pattern = re.compile(
                rf"""(?<![\w.])(?:{re.escape(encoded)}|'{re.escape(str(value))}')(?!\w)"""
            )
            for number in range(first, len(lines)):
                if number > first and _assigns(lines[number]):
                    break
                if pattern.search(lines[number]):
                    return f"{self.title}, line {number + 1}"
        return f"{self.title}, line {first + 1}"


def preset_names() -> list[str]:
    """Names of the included studies."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in _presets() if entry.name.endswith(".toml")
    )


def load_study(name: str, changes: Sequence[Change] = ()) -> Study:
    """Load the study of a preset's name or a file, and apply changes.

    Raises:
        SoftmaxBenchError: There is no such study, or it is invalid.
    """
    source, values = _read(name)
    values = {key: listed(key, value) for key, value in values.items()}
    for change in changes:
        if change.key in source.options:
            raise SoftmaxBenchError(
                f"{change.key} is given twice, by {source.options[change.key]} and by "
                f"{change.option}: give it once, several values separated by commas"
            )
        values[change.key] = listed(change.key, _value(change.text))
        source.options[change.key] = change.option
    return make_study(values, source.place)


def make_study(values: Mapping[str, Any], place: Callable[[str, Any], str]) -> Study:
    """Create a study from these values.

    Args:
        values: Values by key; lists where several are possible.
        place: Describes where a key, and a value in its list, was set.

    Raises:
        SoftmaxBenchError: Something is wrong; the message lists every mistake.
    """
    errors = list(_type_mistakes(values))
    # Check the rest as well, so that all mistakes are reported at once.
    valid = {key: values[key] for key in values.keys() - {mistake.key for mistake in errors}}
    study = msgspec.convert(valid, Study)
    errors += [mistake for mistake in mistakes(study) if mistake.key in valid or not errors]
    if not errors:
        return study
    lines = [f"{place(mistake.key, mistake.value)}: {mistake.message}" for mistake in errors]
    if len(lines) > 1:
        lines.insert(0, f"{len(lines)} mistakes in the study:")
    raise SoftmaxBenchError("\n  ".join(lines))


def parse_change(text: str) -> Change:
    """Parse the ``KEY=VALUE`` of ``--set``.

    Raises:
        SoftmaxBenchError: The text does not have this form.
    """
    key, equals, value = text.partition("=")
    key = key.strip().replace("-", "_")
    if not equals or not key:
        raise SoftmaxBenchError(f"--set takes KEY=VALUE, for example hidden_size=256, not {text!r}")
    return Change(f"--set {key}", key, value.strip())


def _presets() -> Iterable[Any]:
    return files("softmax_bench.study").joinpath("presets").iterdir()


def _read(name: str) -> tuple[_Source, dict[str, Any]]:
    path = Path(name)
    if name in preset_names():
        preset = files("softmax_bench.study").joinpath("presets", f"{name}.toml")
        source = _Source(f"preset {name}", preset.read_text(encoding="utf-8"))
    elif path.suffix == ".toml":
        try:
            source = _Source(name, path.read_text(encoding="utf-8-sig"))  # as some editors save it
        except OSError as error:
            raise SoftmaxBenchError(f"cannot read the study {name}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SoftmaxBenchError(
                f"cannot read the study {name}: it is not in UTF-8; save it as UTF-8"
            ) from error
    elif path.exists():
        raise SoftmaxBenchError(
            f"{name} is not a study: a study is a file that ends in .toml; to study this text "
            f"write '--corpus {name}'"
        )
    else:
        raise SoftmaxBenchError(
            f"there is no study {name!r}{nearest(name, preset_names())}, or the path of a file "
            "that ends in .toml; to study a text write '--corpus TEXT'"
        )
    try:
        values = tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        raise SoftmaxBenchError(f"{source.title} is not valid TOML: {error}") from None
    if not values:
        raise SoftmaxBenchError(
            f"the study {name} is empty: give at least one key, such as vocab_sizes = [1000]; the "
            "study of all defaults is called 'quick'"
        )
    return source, values


def _assigns(line: str, key: str = r"[\w-]+") -> bool:
    """Whether a line of TOML sets ``key``."""
    return re.match(rf"""\s*(["']?)(?:{key})\1\s*=""", line) is not None or (
        re.match(rf"""\s*\[+\s*(?:{key})\s*\]""", line) is not None
    )


def _value(text: str) -> Any:
    """The TOML value, or the text itself if it is not TOML."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def listed(key: str, value: Any) -> Any:
    """The value of a key, as a list where several are possible; text is split at commas."""
    if key not in _LISTS or isinstance(value, list):
        return value
    if not isinstance(value, str):
        return [value]
    if key == "layers":
        return split_specs(value)
    parts = [part.strip() for part in value.split(",")]
    return parts if key in ("corpora", "encoders") else [_value(part) for part in parts]


def _type_mistakes(values: Mapping[str, Any]) -> Iterable[Mistake]:
    for key, value in values.items():
        if key not in _FIELDS:
            yield Mistake(key, f"unknown study key {key!r}{nearest(key, _FIELDS)}")
            continue
        in_list = isinstance(value, list) and key in _LISTS
        kind = get_args(_FIELDS[key])[0] if in_list else _FIELDS[key]
        for part in value if in_list else [value]:
            if not fits(part, kind):
                encoded = json.dumps(part, ensure_ascii=False, default=str)
                message = f"{key} must be {expected(kind)}, not {encoded}"
                yield Mistake(key, message, part if in_list else None)
