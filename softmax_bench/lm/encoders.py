"""Encoders turn the word vectors of a text into hidden states that predict the next word.

All have the interface ``(vectors (time, batch, E), state) -> (hidden (time, batch, H), state)``,
where ``state`` is None at the start of a text and otherwise what the call for the preceding stretch
returned. In evaluation, hidden states do not depend on how a text is cut into stretches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from softmax_bench.errors import SoftmaxBenchError, nearest

State = Any
"""What an encoder carries from one stretch of text to the next; None at the start."""

CONTEXT = 5
"""Words that encoders with a fixed context see: the n - 1 of an n-gram."""
SPAN = 32
"""Words, including itself, that a position sees in each layer of the Transformer."""


class _WindowEncoder(nn.Module):
    """A function of the last :data:`CONTEXT` vectors, which are zero before the text."""

    def forward(
        self, vectors: Float[Tensor, "time batch E"], state: Float[Tensor, "before batch E"] | None
    ) -> tuple[Float[Tensor, "time batch H"], Float[Tensor, "before batch E"]]:
        time, batch, size = vectors.shape
        before = vectors.new_zeros(CONTEXT - 1, batch, size) if state is None else state
        with_context = torch.cat([before, vectors])
        context = torch.cat([with_context[place : place + time] for place in range(CONTEXT)], -1)
        return self.combine(context), with_context[time:]

    combine: Callable[[Tensor], Tensor]


class NeuralProbabilisticEncoder(_WindowEncoder):
    """``tanh(d + W x)`` of the concatenated context vectors, with further layers on top.

    Source: Bengio et al. 2003, equation 1, without the direct connections from x to the output,
    which would belong to an output layer.
    """

    def __init__(
        self, embedding_size: int, hidden_size: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Linear(CONTEXT * embedding_size, hidden_size), nn.Tanh()]
        for _ in range(num_layers - 1):
            parts += [nn.Dropout(dropout), nn.Linear(hidden_size, hidden_size), nn.Tanh()]
        self.combine = nn.Sequential(*parts)


class LogBilinearEncoder(_WindowEncoder):
    """The sum of the context vectors, each multiplied by a matrix for its position; it is linear.

    Source: Mnih & Hinton 2007, section 3; with an output layer on top,
    ``score(w) = (sum_i C_i r_i) . q_w + b_w``.
    """

    def __init__(
        self, embedding_size: int, hidden_size: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__()
        if num_layers != 1:
            raise SoftmaxBenchError(
                f"the log-bilinear encoder has one layer, not {num_layers}: a sum of sums is a sum"
            )
        self.combine = nn.Linear(CONTEXT * embedding_size, hidden_size, bias=False)


class _Block(nn.Module):
    """Attention over the last :data:`SPAN` positions, and a feed-forward layer."""

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.heads = size // 64 if size % 64 == 0 else 1
        self.before_attention, self.before_feed = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query, self.key_value = nn.Linear(size, size), nn.Linear(size, 2 * size)
        self.attended = nn.Linear(size, size)
        self.feed = nn.Sequential(
            nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size), nn.Dropout(dropout)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, hidden: Float[Tensor, "time batch H"], before: Float[Tensor, "before batch H"]
    ) -> Float[Tensor, "time batch H"]:
        inputs = self.before_attention(torch.cat([before, hidden]))
        query = self._by_head(self.query(inputs[len(before) :]))
        key, value = (self._by_head(part) for part in self.key_value(inputs).chunk(2, -1))
        attended = F.scaled_dot_product_attention(
            _rotate(query, len(before)),
            _rotate(key, 0),
            value,
            attn_mask=_band(len(hidden), len(before), hidden.device),
        )
        merged = attended.permute(2, 0, 1, 3).flatten(2)
        hidden = hidden + self.dropout(self.attended(merged))
        return hidden + self.feed(self.before_feed(hidden))

    def _by_head(
        self, vectors: Float[Tensor, "time batch H"]
    ) -> Float[Tensor, "batch heads time size"]:
        return vectors.unflatten(-1, (self.heads, -1)).permute(1, 2, 0, 3)


def _band(time: int, before: int, device: torch.device) -> Bool[Tensor, "time known"]:
    distance = torch.arange(before, before + time, device=device).unsqueeze(1) - torch.arange(
        before + time, device=device
    )
    return (distance >= 0) & (distance < SPAN)


def _rotate(
    vectors: Float[Tensor, "batch heads time size"], first: int
) -> Float[Tensor, "batch heads time size"]:
    """Rotate pairs of dimensions by angles that grow with position: products see distances."""
    half = vectors.shape[-1] // 2
    device = vectors.device
    rate = 10_000 ** (-torch.arange(half, device=device).float() / half)
    place = torch.arange(first, first + vectors.shape[2], device=device)
    angle = place.unsqueeze(1) * rate
    sin, cos = angle.sin().to(vectors.dtype), angle.cos().to(vectors.dtype)
    left, right = vectors.split(half, -1)
    return torch.cat([left * cos - right * sin, left * sin + right * cos], -1)


class TransformerEncoder(nn.Module):
    """A causal Transformer whose positions see the last :data:`SPAN` ones in each layer.

    Each part is preceded by normalisation, positions are rotations (Su et al. 2021), and each layer
    remembers its inputs from the preceding stretch without gradients (Dai et al. 2019), so that it
    sees as far at the start of a stretch as in its middle. Source: Vaswani et al. 2017.
    """

    def __init__(
        self, embedding_size: int, hidden_size: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__()
        if hidden_size % 2:
            raise SoftmaxBenchError(
                f"the transformer rotates pairs of dimensions: its hidden size must be even, not "
                f"{hidden_size}"
            )
        same = embedding_size == hidden_size
        self.widen = nn.Identity() if same else nn.Linear(embedding_size, hidden_size)
        self.blocks = nn.ModuleList(_Block(hidden_size, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_size)

    def forward(
        self, vectors: Float[Tensor, "time batch E"], state: tuple[Tensor, ...] | None
    ) -> tuple[Float[Tensor, "time batch H"], tuple[Tensor, ...]]:
        """Hidden states, and for each layer its last inputs."""
        hidden = self.widen(vectors)
        memories = (hidden[:0],) * len(self.blocks) if state is None else state
        last_inputs = []
        for block, memory in zip(self.blocks, memories, strict=True):
            last_inputs.append(torch.cat([memory, hidden])[-(SPAN - 1) :])
            hidden = block(hidden, memory)
        return self.norm(hidden), tuple(last_inputs)


def _recurrent(kind: Callable[..., nn.Module]) -> Callable[[int, int, int, float], nn.Module]:
    def build(embedding_size: int, hidden_size: int, num_layers: int, dropout: float) -> nn.Module:
        between = dropout if num_layers > 1 else 0.0  # torch warns if there is no layer in between
        return kind(embedding_size, hidden_size, num_layers, dropout=between)

    return build


ENCODERS: dict[str, Callable[[int, int, int, float], nn.Module]] = {
    "rnn": _recurrent(nn.RNN),
    "gru": _recurrent(nn.GRU),
    "lstm": _recurrent(nn.LSTM),
    "nplm": NeuralProbabilisticEncoder,
    "lbl": LogBilinearEncoder,
    "transformer": TransformerEncoder,
}
"""Encoders by name; each takes embedding size, hidden size, number of layers and dropout."""


def make_encoder(
    name: str, embedding_size: int, hidden_size: int, num_layers: int, dropout: float
) -> nn.Module:
    """Create one of :data:`ENCODERS`.

    Raises:
        SoftmaxBenchError: There is no such encoder, or it cannot have these sizes.
    """
    if name not in ENCODERS:
        raise SoftmaxBenchError(f"unknown encoder {name!r}{nearest(name, ENCODERS)}")
    return ENCODERS[name](embedding_size, hidden_size, num_layers, dropout)


def detach(state: State) -> State:
    """The state without its gradient history."""
    return tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
