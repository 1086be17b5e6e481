"""The command line: one thin command per file.

Heavy imports happen inside the commands, so that ``--help`` is instant.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from softmax_bench import __version__
from softmax_bench.cli.advise import advise
from softmax_bench.cli.compare import compare
from softmax_bench.cli.env import env
from softmax_bench.cli.fidelity import fidelity
from softmax_bench.cli.layers import list_layers
from softmax_bench.cli.plan import plan
from softmax_bench.cli.report import report
from softmax_bench.cli.run import run
from softmax_bench.cli.time_layers import time_layers
from softmax_bench.cli.tune import tune
from softmax_bench.errors import SoftmaxBenchError, brief_errors
from softmax_bench.records.store import disk_full

app = typer.Typer(
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compare softmax approximations: speed, memory and perplexity as the vocabulary grows.",
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


app.command()(run)
app.command()(plan)
app.command()(tune)
app.command("time")(time_layers)
app.command()(fidelity)
app.command()(report)
app.command()(compare)
app.command()(advise)
app.command("layers")(list_layers)
app.command()(env)


def main() -> None:
    """Entry point: bad input ends with a message and status 2 instead of a traceback."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    sys.path.append(
        str(Path.cwd())
    )  # finds layers given as module:Class in this folder; last, so that it shadows no package
    with brief_errors("softmax-bench"):
        try:
            app()
        except OSError as error:
            if not disk_full(error):
                raise
            message = f"no disk space left ({error}); results are kept"
            raise SoftmaxBenchError(message) from error
        except KeyboardInterrupt:
            print("\nsoftmax-bench: interrupted; finished trials are kept", file=sys.stderr)
            sys.exit(130)
