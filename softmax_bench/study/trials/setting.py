"""When and on which machine a trial runs."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from softmax_bench.measure import describe_environment
from softmax_bench.records.record import Environment


def describe_machine() -> Environment:
    """The machine and the versions, as stored in records."""
    return msgspec.convert(describe_environment(), Environment)


def now() -> str:
    """Current UTC time in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
