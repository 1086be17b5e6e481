"""The shared language model: embedding, encoder, and the output layer under test."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import OutputLayer
from softmax_bench.lm.encoders import State, detach, make_encoder
from softmax_bench.ops import embed_rows, keep_coalesced


class RowSparseEmbedding(nn.Module):
    """An embedding table whose gradient contains only the rows of the step's words."""

    def __init__(self, num_classes: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, size).uniform_(-0.1, 0.1))
        keep_coalesced(self.weight)

    def forward(self, tokens: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch E"]:
        """Rows of the words."""
        return embed_rows(self.weight, tokens)


class LanguageModel(nn.Module):
    """Predicts each token of a text from the preceding ones.

    Args:
        layer: The output layer, which determines the vocabulary and the hidden size.
        encoder: ``"rnn"`` (Elman), ``"gru"``, ``"lstm"``, ``"nplm"`` (Bengio et al. 2003),
            ``"lbl"`` (log-bilinear) or ``"transformer"``.
        embedding_size: Size of the word vectors.
        num_layers: Number of layers of the encoder.
        dropout: Dropout probability on word vectors, between layers and on hidden states.
        tied: Whether the embedding is also the output layer's ``weight``.

    Raises:
        SoftmaxBenchError: There is no such encoder, it cannot have these sizes, or the layer cannot
            be tied.
    """

    def __init__(
        self,
        layer: OutputLayer,
        *,
        encoder: str = "lstm",
        embedding_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        tied: bool = False,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.embedding = RowSparseEmbedding(layer.num_classes, embedding_size)
        if tied:
            self.embedding.weight = _tie(layer, embedding_size)
        self.encoder = make_encoder(encoder, embedding_size, layer.in_features, num_layers, dropout)
        self.dropout = dropout

    def hidden(
        self, tokens: Int[Tensor, "time batch"], state: State = None
    ) -> tuple[Float[Tensor, "time batch H"], State]:
        """Hidden states that predict the next token, and the state to continue with."""
        vectors = F.dropout(self.embedding(tokens), self.dropout, self.training)
        hidden, state = self.encoder(vectors, state)
        return F.dropout(hidden, self.dropout, self.training), state

    def forward(
        self, tokens: Int[Tensor, "time batch"], target: Int[Tensor, "time batch"], state: State
    ) -> tuple[Float[Tensor, ""], State]:
        """Training loss of a stretch of text, and the state after it, detached from its history."""
        hidden, state = self.hidden(tokens, state)
        return self.layer(hidden, target), detach(state)

    def row_sparse_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters with row-sparse gradients; a tied weight only if both of its uses do."""
        of_layer = list(self.layer.row_sparse_parameters())
        yield from of_layer
        layer_parameters = {id(p) for p in self.layer.parameters()}
        if id(self.embedding.weight) not in layer_parameters:
            yield self.embedding.weight


@torch.no_grad()
def start_uniformly(model: nn.Module, init_range: float) -> None:
    """Initialise all matrices uniformly from ``-init_range`` to ``init_range``, but not biases."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.uniform_(-init_range, init_range)


def _tie(layer: OutputLayer, embedding_size: int) -> nn.Parameter:
    weight = getattr(layer, "weight", None)
    shape = (layer.num_classes, embedding_size)
    if not isinstance(weight, nn.Parameter) or tuple(weight.shape) != shape:
        raise SoftmaxBenchError(
            f"tied embeddings need an output layer with a weight of shape {shape}: "
            f"{layer.name!r} with hidden size {layer.in_features} has none; set the embedding "
            "size to the hidden size, or choose a layer with one row per class"
        )
    return weight
