"""Time, memory, the machine they were measured on, and the table of layers."""

from softmax_bench.measure.disturbance import watch_machine
from softmax_bench.measure.environment import describe_environment, usable_cores
from softmax_bench.measure.memory import peak_bytes
from softmax_bench.measure.roofline import Machine, measure_machine
from softmax_bench.measure.step import (
    PHASES,
    LayerInference,
    LayerStep,
    draw_targets,
    zipf_counts,
    zipf_targets,
)
from softmax_bench.measure.timing import Phases, elapsed, interleave, moment, summarise

__all__ = [
    "PHASES",
    "LayerInference",
    "LayerStep",
    "Machine",
    "Phases",
    "describe_environment",
    "draw_targets",
    "elapsed",
    "interleave",
    "measure_machine",
    "moment",
    "peak_bytes",
    "summarise",
    "usable_cores",
    "watch_machine",
    "zipf_counts",
    "zipf_targets",
]
