"""A job's events, read from its file while it is being written."""

from __future__ import annotations

from pathlib import Path

import msgspec

from softmax_bench.study.jobs.job import Event


class EventLog:
    """Reads the events of a job as they arrive.

    Args:
        path: File of JSON lines. It is opened here, independently of its writer, because sharing
            an open file would mean sharing its position.

    Raises:
        OSError: There is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._unread = b""

    def read(self) -> list[Event]:
        """Events since the last call, from complete lines: the last may still be being written."""
        *lines, self._unread = (self._unread + self._file.read()).split(b"\n")
        events = []
        for line in lines:
            try:
                events.append(msgspec.json.decode(line, type=Event))
            except msgspec.DecodeError:  # nothing that a job writes may stop the study
                continue
        return events

    def close(self) -> None:
        """Close the file."""
        self._file.close()
