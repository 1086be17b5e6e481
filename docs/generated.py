"""What pages show of the program itself: the keys of a study file, and the commands."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import typer
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

from softmax_bench.cli import app as program
from softmax_bench.layers import layer_names, parse_spec
from softmax_bench.study.key_types import expected
from softmax_bench.study.study import Study


class StudyKeys(SphinxDirective):
    """``{study-keys}``, made of the fields of ``Study`` and their docstrings."""

    def run(self) -> list[nodes.Node]:
        """A table of key, meaning and default."""
        meanings = ModuleAnalyzer.for_module(Study.__module__).find_attr_docs()
        rows = []
        for field in msgspec.structs.fields(Study):
            meaning = " ".join(meanings.get(("Study", field.name), [])).replace("``", "`")
            kind = expected(field.type).removesuffix(", each text").removesuffix("text")
            takes = f"*{kind.capitalize()}.*" if kind else ""
            rows.append((f"`{field.name}`", f"{meaning} {takes}", _default(field.default)))
        return _parsed(self, _table(("key", "meaning", "default"), rows))


class Layers(SphinxDirective):
    """``{layers}``: the class of each layer that comes with the package."""

    def run(self) -> list[nodes.Node]:
        """What the classes say of themselves."""
        lines = []
        for name in layer_names():
            layer, _ = parse_spec(name)
            lines += ["```{eval-rst}", f".. autoclass:: {layer.__module__}.{layer.__name__}", "```"]
        return _parsed(self, lines)


class Command(SphinxDirective):
    """``{command} NAME``: what the command does, its arguments and its options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The command's help, as text and a table that fit any screen."""
        group: Any = typer.main.get_command(program)
        command = group.commands[self.arguments[0]]
        rows = [
            (" ".join(f"`{name}`" for name in _names(one)), one.help or "", _shown(one))
            for one in command.params
            if one.name != "help"
        ]
        said = inspect.cleandoc(command.help or "").splitlines()
        table = _table(("option", "meaning", "default"), rows) if rows else []
        return _parsed(self, [*said, "", *table])


def _names(parameter: Any) -> list[str]:
    if parameter.param_type_name == "argument":
        return [parameter.metavar or parameter.name.upper()]
    return list(parameter.opts)


def _shown(parameter: Any) -> str:
    value = parameter.default
    if value is None or value is False or value is ... or callable(value):
        return "required" if parameter.required else ""
    return f"`{getattr(value, 'value', value)}`"


def _default(value: Any) -> str:
    """As it would stand in the file."""
    if value is None:
        return ""
    parts = value if isinstance(value, tuple) else [value]
    text = ", ".join(json.dumps(part) for part in parts)
    return f"`[{text}]`" if len(parts) > 1 else f"`{text}`"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    return [f"| {' | '.join(line)} |" for line in cells]


def _parsed(directive: SphinxDirective, lines: list[str]) -> list[nodes.Node]:
    holder: Any = nodes.Element()
    directive.state.nested_parse(StringList(lines, "generated"), 0, holder)
    return list(holder.children)


def setup(sphinx: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    sphinx.add_directive("study-keys", StudyKeys)
    sphinx.add_directive("command", Command)
    sphinx.add_directive("layers", Layers)
    return {"parallel_read_safe": True}
