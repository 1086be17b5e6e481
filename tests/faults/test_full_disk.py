"""A full disk stops a study with a message, keeps what was written, and can be made room on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from softmax_bench.records.store import read_store
from tests.faults.harness import StudyProcess, audit_of, run_to_the_end, timeless

pytestmark = pytest.mark.slow

SIZE = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def leave_room(disk: Path, room: int) -> None:
    """Fill the disk up to ``room`` bytes."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    filler.write_bytes(bytes(max(0, free - room)))


def test_a_full_disk_stops_the_study_and_loses_nothing(
    study: Path, uninterrupted: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = small_disk / "store"
    log = small_disk / "store.log"
    for name in (log.name, audit_of(store).name):  # what is printed and noted goes elsewhere
        (small_disk / name).symlink_to(small_disk.parent / name)
    kept: dict[str, bytes] = {}
    stops = 0
    # From no room at all to enough for all records, but not for the report.
    for room in (0, 20_000, 70_000, 160_000):
        leave_room(small_disk, room)
        status = StudyProcess(study, store).wait()
        said = log.read_text()
        log.resolve().unlink()
        assert status == 2, said
        assert "no disk space left" in said
        assert "Traceback" not in said
        stops += 1
        assert read_store(store).damaged == {}
        assert all((store / name).read_bytes() == content for name, content in kept.items())
        kept = {path.name: path.read_bytes() for path in store.glob("*.json")}
    (small_disk / "filler").unlink()
    assert kept.keys() == {path.name for path in uninterrupted.glob("*.json")}
    run_to_the_end(study, store)
    assert timeless(store) == timeless(uninterrupted)
    with capsys.disabled():
        print(f"\ndisk full {stops} times, of {len(kept)} records none was lost")
