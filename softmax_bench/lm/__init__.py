"""The shared language model, its training and its exact evaluation."""

from softmax_bench.lm.checkpoint import Checkpoint
from softmax_bench.lm.code_version import code_version
from softmax_bench.lm.encoders import ENCODERS, make_encoder
from softmax_bench.lm.evaluate import Quality, evaluate
from softmax_bench.lm.model import LanguageModel, RowSparseEmbedding, start_uniformly
from softmax_bench.lm.optimizers import (
    Optimizer,
    check_optimizer,
    clip_grad_norm,
    make_optimizer,
)
from softmax_bench.lm.schedule import SCHEDULES, Schedule
from softmax_bench.lm.streams import IGNORED, Streams, make_streams
from softmax_bench.lm.train import DivergedError, run_steps, train
from softmax_bench.lm.training_state import Progress, TrainingState

__all__ = [
    "ENCODERS",
    "IGNORED",
    "SCHEDULES",
    "Checkpoint",
    "DivergedError",
    "LanguageModel",
    "Optimizer",
    "Progress",
    "Quality",
    "RowSparseEmbedding",
    "Schedule",
    "Streams",
    "TrainingState",
    "check_optimizer",
    "clip_grad_norm",
    "code_version",
    "evaluate",
    "make_encoder",
    "make_optimizer",
    "make_streams",
    "run_steps",
    "start_uniformly",
    "train",
]
