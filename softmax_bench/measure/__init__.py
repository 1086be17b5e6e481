"""Time, memory, the machine they were measured on, and what layers say of their own cost."""

from softmax_bench.measure.environment import describe_environment
from softmax_bench.measure.memory import peak_bytes
from softmax_bench.measure.step import PHASES, LayerStep, zipf_counts, zipf_targets
from softmax_bench.measure.timing import Interval, clock, interleave, summarise

__all__ = [
    "PHASES",
    "Interval",
    "LayerStep",
    "clock",
    "describe_environment",
    "interleave",
    "peak_bytes",
    "summarise",
    "zipf_counts",
    "zipf_targets",
]
