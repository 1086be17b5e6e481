"""The encoder's part of a training step, which runs between two steps of an output layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from softmax_bench.lm import clip_grad_norm, make_encoder, make_optimizer
from softmax_bench.lm.model import RowSparseEmbedding
from softmax_bench.measure.timing import elapsed, moment
from softmax_bench.records.trial import BPTT, CLIP_NORM


class EncoderStep:
    """Word vectors and an encoder; each call is one training step of both.

    It runs untimed before each timed step of a layer, which therefore finds the caches, the
    allocator and the threads as training leaves them, whichever layers are timed with it. The time
    of a whole training step is that of the encoder plus that of the layer.

    Args:
        words: (N,) ids of the input words; only the vectors of those that occur are created.
        hidden_size: Size of the encoder's hidden states.
        name: Name of the encoder.
        embedding_size: Size of the word vectors; ``hidden_size`` by default.
        num_layers: Number of layers of the encoder.
        bptt: Time steps of each stream; there are as many streams as N allows.
        optimizer: Name of the optimiser.
        clip_norm: Maximum norm of all gradients together.
        like: A tensor whose dtype and device are used.

    Raises:
        SoftmaxBenchError: There is no such encoder or optimiser, or a size is invalid.
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
        clip_norm: float = CLIP_NORM,
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
        """Take a step, and return its seconds."""
        begin = moment(self._gradient.device)
        self._optimizer.zero_grad()
        hidden, _ = self._encoder(self._vectors(self._ids), None)
        # Not ``hidden.backward(gradient)``: given a gradient, torch imports SymPy, which takes a
        # second.
        torch.dot(hidden.flatten(), self._gradient.flatten()).backward()
        clip_grad_norm(self._model.parameters(), self._clip_norm)
        self._optimizer.step()
        return elapsed(begin, moment(self._gradient.device))
