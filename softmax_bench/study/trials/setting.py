"""When, and on what machine, a trial runs."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from softmax_bench.measure import describe_environment
from softmax_bench.records.record import Environment


def describe_machine() -> Environment:
    """The machine and the versions, as records keep them."""
    return msgspec.convert(describe_environment(), Environment)


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
