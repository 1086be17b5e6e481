"""``softmax-bench env``."""

from __future__ import annotations


def env() -> None:
    """Print the machine and library versions that are stored with results made here."""
    from softmax_bench.measure import describe_environment

    for name, value in describe_environment().items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {one}" for key, one in value.items()) or "none"
        print(f"{name + ':':<14} {value}")
