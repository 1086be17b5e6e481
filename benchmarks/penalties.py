"""Costs in perplexity for ``softmax-bench advise``: ``python -m benchmarks.penalties``.

Reads the studies under ``results/`` and writes the table that ships with the package.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

import softmax_bench.advise.penalties
from softmax_bench.advise.penalties import Penalty, penalties_of
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.records.frames import load_results

ROOT = Path(__file__).parents[1]
OTHER_TRAINING = {"results/optimizer", "results/zaremba"}
"""Studies of what else decides perplexity: their layers are not tuned as a user would."""
TABLE = Path(softmax_bench.advise.penalties.__file__).with_name("penalties.json")


def collect(root: Path) -> list[Penalty]:
    """The penalties from every store below ``root / "results"``."""
    penalties = []
    for folder in sorted(path for path in (root / "results").rglob("*") if path.is_dir()):
        try:
            results = load_results(folder)
        except SoftmaxBenchError:
            continue  # results that are not records
        origin = folder.relative_to(root).as_posix()
        if origin not in OTHER_TRAINING:
            penalties += [p for p in penalties_of(results, origin) if ":" not in p.layer]
    return sorted(penalties, key=lambda p: (p.layer, p.vocab_size, p.origin))


def main() -> None:
    """Write the table."""
    penalties = collect(ROOT)
    TABLE.write_bytes(msgspec.json.format(msgspec.json.encode(penalties), indent=1) + b"\n")
    print(f"{len(penalties)} figures in {TABLE}")


if __name__ == "__main__":
    main()
