"""The shared language model: the model, its training, its exact evaluation."""

from softmax_bench.lm.encoders import ENCODERS, make_encoder
from softmax_bench.lm.evaluate import Quality, evaluate
from softmax_bench.lm.model import LanguageModel, RowSparseEmbedding
from softmax_bench.lm.optimizers import (
    PairedOptimizer,
    check_optimizer,
    clip_grad_norm,
    make_optimizer,
)
from softmax_bench.lm.streams import IGNORED, Streams, make_streams
from softmax_bench.lm.train import DivergedError, Progress, train

__all__ = [
    "ENCODERS",
    "IGNORED",
    "DivergedError",
    "LanguageModel",
    "PairedOptimizer",
    "Progress",
    "Quality",
    "RowSparseEmbedding",
    "Streams",
    "check_optimizer",
    "clip_grad_norm",
    "evaluate",
    "make_encoder",
    "make_optimizer",
    "make_streams",
    "train",
]
