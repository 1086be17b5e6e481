"""An encoder's part of a training step: what runs between two steps of an output layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from softmax_bench.lm import clip_grad_norm, make_encoder, make_optimizer
from softmax_bench.lm.model import RowSparseEmbedding
from softmax_bench.measure.timing import elapsed, moment
from softmax_bench.records.trial import BPTT


class EncoderStep:
    """Word vectors and an encoder; a call takes them through one training step.

    It runs untimed before each timed step of a layer, which therefore finds the caches, the
    allocator and the threads as training leaves them, whichever layers are timed beside it. The
    time of the encoder itself is what a layer's time is added to for that of a whole training
    step.

    Args:
        words: (N,) ids of the words that are read; only the vectors of those that occur are made.
        hidden_size: Of the encoder.
        name: Of the encoder.
        embedding_size: Of the word vectors; ``hidden_size`` by default.
        num_layers: Of the encoder.
        bptt: Time steps of each stream; there are as many streams as N allows.
        optimizer: Name of the rule.
        clip_norm: Greatest norm of all gradients.
        like: A tensor whose type and device are taken.

    Raises:
        SoftmaxBenchError: There is no such encoder or optimiser, or the sizes do not fit.
    """

    def __init__(
        self,
        words: Tensor,
        hidden_size: int,
        *,
        name: str = "lstm",
        embedding_size: int | None = None,
        num_layers: int = 1,
        bptt: int = BPTT,
        optimizer: str = "adagrad",
        clip_norm: float = 5.0,
        like: Tensor,
    ) -> None:
        size = embedding_size or hidden_size
        streams = max(1, len(words) // bptt)
        _, ids = words.unique(return_inverse=True)
        self._ids = ids[: len(ids) // streams * streams].view(-1, streams).to(like.device)
        with torch.random.fork_rng(devices=[]):  # what the layer draws does not depend on this
            self._vectors = RowSparseEmbedding(int(ids.max()) + 1, size)
            self._encoder = make_encoder(name, size, hidden_size, num_layers, dropout=0.0)
            gradient = torch.randn(*self._ids.shape, hidden_size) / len(words)
        self._model = nn.ModuleList([self._vectors, self._encoder]).to(like)
        self._gradient = gradient.to(like)
        self._clip_norm = clip_norm
        self._optimizer = make_optimizer(optimizer, self._model.parameters(), lr=1e-4)

    def __call__(self) -> float:
        """Take a step; its seconds."""
        begin = moment(self._gradient.device)
        self._optimizer.zero_grad()
        hidden, _ = self._encoder(self._vectors(self._ids), None)
        # Not ``hidden.backward(gradient)``: given a gradient, torch imports SymPy, for a second.
        torch.dot(hidden.flatten(), self._gradient.flatten()).backward()
        clip_grad_norm(self._model.parameters(), self._clip_norm)
        self._optimizer.step()
        return elapsed(begin, moment(self._gradient.device))
