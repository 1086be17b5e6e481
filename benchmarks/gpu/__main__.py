"""Everything that only a GPU can show, in eight minutes: ``python -m benchmarks.gpu``.

There are four parts: ``checks`` (primitives and layers against float64), ``dense`` (exact softmax
against other installed implementations), ``layers`` (training steps up to 10^7 classes) and
``training`` (perplexity as the vocabulary grows). Each case is written to its own file as soon as
it is done, and an interrupted command resumes where it stopped. ``--device cpu --small`` is a
rehearsal.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import checks, dense, layers, training
from benchmarks.gpu.case import Case, Figures
from benchmarks.gpu.show import write_pages
from softmax_bench.files import write_file
from softmax_bench.lm import code_version
from softmax_bench.measure import describe_environment

Cases = Callable[..., Iterator[Case]]
PARTS: dict[str, tuple[Cases, float]] = {
    "checks": (checks.cases, 0.15),
    "layers": (layers.cases, 0.35),
    "dense": (dense.cases, 0.25),
    "training": (training.cases, 0.25),
}
"""For each part, the function that yields its cases, and its share of the time."""
_TRIES = 5
_BROKEN = 3
ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run the missing cases while there is time, and write the pages."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    parser.add_argument("--parts", default=",".join(PARTS), help="separated by commas")
    parser.add_argument("--seconds", type=float, default=450.0, help="for all parts together")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes: a rehearsal")
    args = parser.parse_args()
    device, parts = torch.device(args.device), args.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}: choose {', '.join(PARTS)}")
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device found; use '--device cpu --small --out DIR' for a rehearsal")
    if device.type != "cuda" and args.out.resolve() == ROOT / "results" / "gpu":
        parser.error("results/gpu is for GPU results only; choose another --out")
    args.out.mkdir(parents=True, exist_ok=True)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    machine = _machine(card)
    if (path := args.out / "machine.json").exists():
        before = json.loads(path.read_text())
        for what in ("card", "code"):
            if before.get(what) != machine[what]:
                parser.error(
                    f"{args.out} holds results of {what} {before.get(what)}, this is "
                    f"{machine[what]}: choose another --out or remove it"
                )
    _write(path, machine)
    if len(parts) == 1:
        make, _ = PARTS[parts[0]]
        _run_part(parts[0], make(device, small=args.small), args.out, args.seconds)
    else:
        end = time.perf_counter() + args.seconds
        for place, part in enumerate(parts):  # what one leaves of its time is for those after it
            share = PARTS[part][1] / sum(PARTS[other][1] for other in parts[place:])
            _run_apart(part, args, share * (end - time.perf_counter()))
    write_pages(args.out, card)
    print(f"written: {args.out / 'README.md'}")
    return 0 if _all_right(args.out) else 1


def _machine(card: str) -> dict[str, Any]:
    """What the results were made on and with."""
    machine = {"card": card, "code": code_version(), **describe_environment()}
    for name in ("triton", "liger-kernel", "cut-cross-entropy", "quack-kernels"):
        with suppress(PackageNotFoundError):
            machine["versions"][name] = version(name)
    return machine


def _run_apart(part: str, args: argparse.Namespace, seconds: float) -> None:
    """Run a part in a process of its own, and in a new one whenever a kernel breaks it."""
    options = [f"--out={args.out}", f"--parts={part}", f"--device={args.device}"]
    options += ["--small"] * args.small
    end = time.perf_counter() + seconds
    for _ in range(_TRIES):
        left = max(0.0, end - time.perf_counter())
        command = [sys.executable, "-m", "benchmarks.gpu", *options, f"--seconds={left}"]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode != _BROKEN:
            return


def _run_part(part: str, cases: Iterator[Case], out: Path, seconds: float) -> None:
    begun, left_out = time.perf_counter(), 0
    for case in cases:
        path = out / "records" / part / f"{_file_name(case.name)}.json"
        spent = time.perf_counter() - begun
        if path.exists():
            continue
        if spent > seconds:
            left_out += 1
            continue
        print(f"[{part} {spent:5.1f} of {seconds:.0f} s] {case.name}", file=sys.stderr, flush=True)
        figures = _figures(case)
        _write(path, {"case": case.name, **figures})
        if "CUDA error" in str(figures.get("error")):
            sys.exit(_BROKEN)  # nothing works in this process any more
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if left_out:
        print(f"[{part}] no time for {left_out} cases: run the command again", file=sys.stderr)


def _figures(case: Case) -> Figures:
    """Figures of a case; a failure is recorded and stops nothing else."""
    try:
        return case.run()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


def _write(path: Path, content: object) -> None:
    """Write a file atomically."""
    write_file(path, f"{json.dumps(content, indent=1)}\n".encode())


def _all_right(out: Path) -> bool:
    checked = [json.loads(path.read_text()) for path in (out / "records").glob("checks/*.json")]
    return all(record.get("right", False) for record in checked)


if __name__ == "__main__":
    sys.exit(main())
