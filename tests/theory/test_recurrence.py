"""What docs/theory.md says of recurrent encoders, executed.

The language repeats a symbol after a distance: ``A x x x x ? A``, with words x at random between.
The answer after ``?`` is one bit that only a memory of the symbol can tell.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from softmax_bench.layers import create_layer
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.lm import LanguageModel, clip_grad_norm, make_optimizer
from softmax_bench.lm.ngram import KneserNey

A, B, ASK, FIRST_FILLER, V = 0, 1, 2, 3, 7


def questions(distance: int, number: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """A text of symbols, ``distance`` fillers, the question, and the symbol again."""
    rng = np.random.default_rng(seed)
    symbol = rng.integers(2, size=(number, 1))
    fillers = rng.integers(FIRST_FILLER, V, size=(number, distance))
    asked = np.full((number, 1), ASK)
    return np.concatenate([symbol, fillers, asked, symbol], 1).ravel()


def bits_of_answers(log_prob: npt.NDArray[np.float64], distance: int) -> float:
    """Mean bits of the answers in a text, by the log-probabilities of all of its words."""
    return float(-log_prob[distance + 2 :: distance + 3].mean() / math.log(2))


@torch.no_grad()
def bits_of_model(model: LanguageModel, distance: int) -> float:
    text = torch.from_numpy(questions(distance, 200, seed=1))
    hidden, _ = model.hidden(text[:-1].unsqueeze(1))
    log_prob = model.layer.target_log_prob(hidden.squeeze(1), text[1:])
    return bits_of_answers(np.concatenate([[0.0], log_prob.numpy()]), distance)


@pytest.mark.parametrize("distance", [6, 100])
def test_a_recurrent_network_expresses_what_no_ngram_can(distance: int) -> None:
    """Two units suffice at any distance: one holds the symbol, one knows that it is asked for."""
    layer = create_layer("full", 2, V)
    assert isinstance(layer, LinearOutputLayer)
    model = LanguageModel(layer, encoder="rnn", embedding_size=V)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embedding.weight.copy_(torch.eye(V))
        from_word = model.encoder.get_parameter("weight_ih_l0")
        from_state = model.encoder.get_parameter("weight_hh_l0")
        from_word[0, [A, B]] = torch.tensor([30.0, -30.0])  # overrules the 10 that hold the symbol
        from_state[0, 0] = 10
        from_word[1, ASK] = 30
        layer.weight[A] = torch.tensor([30.0, 30.0])
        layer.weight[B] = torch.tensor([-30.0, 30.0])
    assert bits_of_model(model, distance) < 1e-6
    ngram = KneserNey(questions(distance, 2000), vocab_size=V, eos_id=A, order=5)
    test = questions(distance, 200, seed=1)
    assert bits_of_answers(ngram.log_prob(test), distance) > 0.99


def test_gradients_vanish_or_explode_with_the_scale_of_the_recurrent_weights() -> None:
    """Of an Elman network near zero, whose recurrent matrix is orthogonal times a scale."""
    for scale in (0.5, 1.0, 1.5):
        rnn = nn.RNN(8, 8, bias=False, dtype=torch.float64)
        with torch.no_grad():
            nn.init.orthogonal_(rnn.get_parameter("weight_hh_l0")).mul_(scale)
        for distance in (1, 10, 50):
            start = torch.zeros(1, 1, 8, dtype=torch.float64, requires_grad=True)
            hidden, _ = rnn(torch.zeros(distance, 1, 8, dtype=torch.float64), start)
            (gradient,) = torch.autograd.grad(hidden[-1].sum(), start)
            assert float(gradient.norm() / 8**0.5) == pytest.approx(scale**distance)


@pytest.mark.parametrize(("forget", "least", "most"), [(0.0, 1e-15, 1e-8), (3.0, 0.1, 1.0)])
def test_an_lstm_remembers_as_its_forget_gates_bias_lets_it(
    forget: float, least: float, most: float
) -> None:
    """The gradient over 50 words, beside that of the word itself."""
    lstm = nn.LSTM(32, 32)
    with torch.no_grad():
        lstm.get_parameter("bias_ih_l0")[32:64] = forget
        lstm.get_parameter("bias_hh_l0")[32:64] = 0
    inputs = torch.randn(51, 1, 32, requires_grad=True)
    hidden, _ = lstm(inputs)
    (gradient,) = torch.autograd.grad(hidden[50].sum(), inputs)
    assert least < float(gradient[0].norm() / gradient[50].norm()) < most


def learn(
    encoder: str, distance: int, bptt: int, steps: int, size: int, rate: float, scale: float = 0.0
) -> float:
    """Train with truncated back-propagation, the state carried on; bits of answers afterwards."""
    model = LanguageModel(create_layer("full", size, V), encoder=encoder, embedding_size=size)
    if scale:
        with torch.no_grad():
            nn.init.orthogonal_(model.encoder.get_parameter("weight_hh_l0")).mul_(scale)
    optimizer = make_optimizer("adam", model.parameters(), rate)
    period, length = distance + 3, steps * bptt + 1
    texts = [questions(distance, length // period + 2, seed)[seed % period :] for seed in range(20)]
    streams = torch.from_numpy(np.stack([text[:length] for text in texts], 1))
    state: Tensor | tuple[Tensor, ...] | None = None
    for start in range(0, steps * bptt, bptt):
        optimizer.zero_grad()
        words, target = streams[start : start + bptt], streams[start + 1 : start + bptt + 1]
        loss, state = model(words, target, state)
        loss.backward()
        clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
    return bits_of_model(model, distance)


def test_what_is_farther_than_gradients_flow_is_not_learned() -> None:
    """An LSTM on questions over three words, back through 3 and through 8 time steps."""
    assert learn("lstm", 3, bptt=3, steps=400, size=16, rate=0.02) > 0.9
    assert learn("lstm", 3, bptt=8, steps=400, size=16, rate=0.02) < 0.2


def test_a_start_from_which_gradients_vanish_learns_nothing_far() -> None:
    """An Elman network on questions over ten words, gradients back through all of them."""
    assert learn("rnn", 10, bptt=26, steps=300, size=32, rate=0.005, scale=0.25) > 0.9
    assert learn("rnn", 10, bptt=26, steps=300, size=32, rate=0.005, scale=1.0) < 0.6
