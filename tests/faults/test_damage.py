"""Records that were damaged are set aside and their trials run again; all others stay."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from softmax_bench.records.store import read_store
from softmax_bench.records.trial import trial_id
from tests.faults.counting_worker import RAN
from tests.faults.many_trials import TRIALS, all_trials, run_many

pytestmark = pytest.mark.slow


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Cut short, overwritten or changed."""
    place = draw.randrange(len(content))
    return draw.choice(
        [
            b"",
            content[:place],
            bytes(len(content)),
            content[:place] + draw.randbytes(16) + content[place + 16 :],
            content + content,
            content[:place]
            + bytes([content[place] ^ 1 << draw.randrange(8)])
            + content[place + 1 :],
            b"[" * 100_000,
        ]
    )


def test_damaged_records_are_run_again_and_counted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(0)
    assert run_many(tmp_path, 0).done == TRIALS
    seen = again = 0
    for _ in range(6):
        paths = sorted(tmp_path.glob("*.json"))
        for path in draw.sample(paths, 5):
            path.write_bytes(damaged(path.read_bytes(), draw))
        copied = draw.choice(paths)  # two stores are merged by hand: a copy counts once
        (tmp_path / f"copy of {copied.name}").write_bytes(copied.read_bytes())
        contents = read_store(tmp_path)
        found = contents.damaged
        lost = {trial_id(trial) for trial in all_trials()} - contents.records.keys()
        expected = Counter((tmp_path / RAN).read_text().split()) + Counter(lost)
        seen, again = seen + len(found), again + len(lost)

        outcome = run_many(tmp_path, 0)
        assert outcome.complete
        assert outcome.done == TRIALS
        contents = read_store(tmp_path)
        assert contents.damaged == {}
        assert len(contents.records) == TRIALS
        assert Counter((tmp_path / RAN).read_text().split()) == expected
        for path in found:
            assert path.with_name(f"{path.name}.damaged").exists()
    with capsys.disabled():
        print(f"\n{seen} damaged files noticed and set aside, {again} trials run again")
    assert seen > 20
