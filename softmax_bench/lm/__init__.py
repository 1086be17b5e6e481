"""The shared RNN language model: the model, its training, its exact evaluation."""

from softmax_bench.lm.evaluate import Quality, evaluate
from softmax_bench.lm.model import ENCODERS, RNNLanguageModel, RowSparseEmbedding
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
    "PairedOptimizer",
    "Progress",
    "Quality",
    "RNNLanguageModel",
    "RowSparseEmbedding",
    "Streams",
    "check_optimizer",
    "clip_grad_norm",
    "evaluate",
    "make_optimizer",
    "make_streams",
    "train",
]
