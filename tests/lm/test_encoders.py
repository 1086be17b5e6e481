from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import create_layer
from softmax_bench.lm import ENCODERS, LanguageModel, make_encoder, make_optimizer
from softmax_bench.lm.encoders import CONTEXT, SPAN, TransformerEncoder, detach

E, H = 6, 8
SEES = {"nplm": CONTEXT, "lbl": CONTEXT, "transformer": SPAN}
"""Encoders that see only so many words, itself included."""

encoders = pytest.mark.parametrize("name", ENCODERS)


def encode(name: str, vectors: Tensor, *cuts: int) -> Tensor:
    """Hidden states of a text that is given in stretches."""
    torch.manual_seed(0)
    encoder = make_encoder(name, E, H, 1, dropout=0.5).double().eval()
    parts, state = [], None
    for stretch in vectors.tensor_split(cuts):
        if len(stretch):
            hidden, state = encoder(stretch, state)
            parts.append(hidden)
    return torch.cat(parts)


@encoders
@given(cuts=st.lists(st.integers(0, 80), max_size=6).map(sorted))
def test_hidden_states_do_not_depend_on_where_the_text_is_cut(name: str, cuts: list[int]) -> None:
    vectors = torch.randn(80, 2, E, dtype=torch.float64)
    torch.testing.assert_close(encode(name, vectors, *cuts), encode(name, vectors))


@encoders
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_position_sees_the_past_alone_and_as_far_as_told(name: str, num_layers: int) -> None:
    if name == "lbl" and num_layers > 1:
        pytest.skip("has one layer")
    encoder = make_encoder(name, E, H, num_layers, dropout=0.0).double()
    vectors = torch.randn(100, 2, E, dtype=torch.float64, requires_grad=True)
    hidden, _ = encoder(vectors, None)
    (gradient,) = torch.autograd.grad((hidden[90, 0] ** 2).sum(), vectors)
    seen = gradient.abs().sum(-1) > 0
    far = SEES.get(name, 91)
    if name == "transformer":
        far = num_layers * (SPAN - 1) + 1
    assert not seen[91:].any()
    assert not seen[:, 1].any()  # the other stream
    assert not seen[: 91 - far].any()
    if name in SEES:
        assert seen[91 - far : 91, 0].all()
    else:  # the gradient of a recurrent network fades
        assert seen[80:91, 0].all()


def test_the_transformer_is_attention_by_the_book() -> None:
    """One head, one layer, against sums over positions written out."""
    encoder = make_encoder("transformer", H, H, 1, dropout=0.0).double()
    assert isinstance(encoder, TransformerEncoder)
    block: Any = encoder.blocks[0]
    text = torch.randn(40, 1, H, dtype=torch.float64)
    hidden, _ = encoder(text, None)
    x = text[:, 0]
    normed = block.before_attention(x)
    query = block.query(normed)
    key, value = block.key_value(normed).chunk(2, -1)

    def turned(vector: Tensor, position: int) -> Tensor:
        number = torch.complex(vector[: H // 2], vector[H // 2 :])
        angle = position * 10_000.0 ** (-torch.arange(H // 2).double() / (H // 2))
        return torch.view_as_real(number * torch.polar(torch.ones_like(angle), angle)).flatten()

    attended = torch.zeros_like(x)
    for i in range(40):
        places = range(max(0, i - SPAN + 1), i + 1)
        scores = torch.stack([turned(query[i], i) @ turned(key[j], j) for j in places]) / H**0.5
        attended[i] = scores.softmax(0) @ value[list(places)]
    x = x + block.attended(attended)
    x = x + block.feed(block.before_feed(x))
    # the angles are computed in single precision
    torch.testing.assert_close(hidden[:, 0], encoder.norm(x), rtol=1e-5, atol=1e-6)


@encoders
def test_states_are_cut_off_from_their_history(name: str) -> None:
    encoder = make_encoder(name, E, H, 1, dropout=0.0)
    vectors = torch.randn(4, 2, E, requires_grad=True)
    _, state = encoder(vectors, None)
    for part in detach(state) if isinstance(state, tuple) else (detach(state),):
        assert not part.requires_grad


@encoders
def test_a_language_model_learns_with_it(name: str) -> None:
    """A text in which each word is told by the one before."""
    torch.manual_seed(0)
    model = LanguageModel(create_layer("full", H, 12), encoder=name, embedding_size=E)
    optimizer = make_optimizer("adam", model.parameters(), 0.02)
    tokens = (torch.arange(20).unsqueeze(1) * 5 + torch.arange(8)) % 12
    state = None
    for _ in range(150):
        optimizer.zero_grad()
        loss, state = model(tokens, (tokens + 5) % 12, state)
        loss.backward()
        optimizer.step()
    assert loss < 0.1  # of log 12 = 2.5


def test_what_cannot_be() -> None:
    with pytest.raises(SoftmaxBenchError, match="did you mean 'lstm'"):
        make_encoder("lsmt", E, H, 1, 0.0)
    with pytest.raises(SoftmaxBenchError, match="one layer, not 2"):
        make_encoder("lbl", E, H, 2, 0.0)
    with pytest.raises(SoftmaxBenchError, match="must be even, not 7"):
        make_encoder("transformer", E, 7, 1, 0.0)
