from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import create_layer, layer_names
from softmax_bench.lm import (
    IGNORED,
    DivergedError,
    LanguageModel,
    clip_grad_norm,
    evaluate,
    make_optimizer,
    make_streams,
    start_uniformly,
    train,
)


def small_model(spec: str, size: int = 30, **options: Any) -> LanguageModel:
    options.setdefault("encoder", "gru")
    return LanguageModel(create_layer(spec, 8, size, sparse=True), embedding_size=8, **options)


@given(st.integers(1, 50), st.integers(1, 12), st.integers(1, 9), st.integers(1, 60))
def test_every_token_that_is_read_is_predicted_once_from_its_predecessor(
    tokens: int, batch: int, window: int, part: int
) -> None:
    text = np.arange(100, 100 + tokens)
    streams = make_streams(text, batch, first_input=7).part(part)
    seen = []
    for inputs, targets in streams.windows(window):
        assert inputs.shape == targets.shape
        assert len(inputs) <= window
        for before, token in zip(
            inputs.flatten().tolist(), targets.flatten().tolist(), strict=True
        ):
            if token != IGNORED:
                assert before == (7 if token == 100 else token - 1)
                seen.append(token)
    assert sorted(seen) == np.concatenate(streams.read()).tolist()
    assert part < tokens or len(seen) == tokens


@given(st.integers(1, 50), st.integers(1, 12), st.integers(1, 9), st.integers(0, 60))
def test_windows_are_those_of_streams_that_lie_side_by_side(
    tokens: int, batch: int, window: int, first: int
) -> None:
    streams = make_streams(np.arange(100, 100 + tokens), batch, first_input=7)
    whole = torch.full((streams.batch_size, streams.length), IGNORED)
    whole.view(-1)[:tokens] = torch.arange(100, 100 + tokens)
    found = list(streams.windows(window, first))
    wanted = whole.t().split(window)[first:]
    assert len(found) == len(wanted)
    assert all(torch.equal(a, b) for (_, a), b in zip(found, wanted, strict=True))
    counted = [streams.num_targets(first + i, window) for i in range(len(found))]
    assert counted == [int((a != IGNORED).sum()) for _, a in found]


@pytest.mark.parametrize("spec", layer_names())
def test_evaluation_is_the_plain_sum_over_all_tokens(spec: str) -> None:
    model = small_model(spec, num_layers=2, dropout=0.5)
    text = np.random.default_rng(0).integers(30, size=101)
    quality = evaluate(model, make_streams(text, 1, 3), window=7)
    model.eval()
    inputs = torch.from_numpy(np.concatenate([[3], text[:-1]])).unsqueeze(1)
    hidden, _ = model.hidden(inputs)
    log_prob = model.layer.log_prob(hidden).squeeze(1)
    plain = -log_prob.gather(1, torch.from_numpy(text).unsqueeze(1)).mean()
    assert quality.tokens == 101
    assert quality.nats == pytest.approx(float(plain.detach()), rel=1e-5)
    assert quality.perplexity == pytest.approx(math.exp(quality.nats))


def test_self_normalisation_of_nce() -> None:
    model = small_model("nce(log_z=1.5)")
    assert evaluate(small_model("full"), make_streams(np.arange(9), 1, 0), 4).log_z_mean is None
    quality = evaluate(model, make_streams(np.arange(9), 1, 0), 4)
    hidden, _ = model.hidden(torch.tensor([[0], *([i] for i in range(8))]))
    log_z = model.layer.log_normalizer(hidden) - 1.5  # type: ignore[operator]
    assert quality.log_z_mean == pytest.approx(float(log_z.mean()), abs=1e-5)
    assert quality.log_z_sd == pytest.approx(float(log_z.std(correction=0)), abs=1e-5)
    assert quality.unnormalized_nats == pytest.approx(quality.nats - float(log_z.mean()), abs=1e-5)


@pytest.mark.parametrize("spec", layer_names())
def test_training_learns_a_pattern(spec: str) -> None:
    """A text that counts round and round: perplexity falls from 30 to nearly 1."""
    text = np.arange(3000) % 30
    model = small_model(spec)
    optimizer = make_optimizer("adagrad", model.parameters(), 0.3)
    valid = make_streams(text[:200], 2, 29)
    history = train(
        model, optimizer, make_streams(text, 10, 29), valid,
        window=10, valid_window=10, max_tokens=12_000, clip_norm=5.0, evaluations=3,
    )  # fmt: skip
    assert [point.tokens for point in history] == [4000, 8000, 12_000]
    # Classes that are as frequent as all others, but read a quarter of the dimensions, pay.
    reached = 6 if spec == "differentiated" else 2
    assert history[-1].valid.perplexity < reached < history[0].valid.perplexity * 1.5
    assert 0 < history[0].seconds < history[1].seconds


@pytest.mark.parametrize("spec", layer_names())
def test_training_repeats_bit_for_bit(spec: str) -> None:
    outcomes = []
    for _ in range(2):
        torch.manual_seed(3)
        model = small_model(spec, dropout=0.2)
        optimizer = make_optimizer("adam", model.parameters(), 0.01)
        text = make_streams(np.arange(500) % 30, 5, 0)
        history = train(
            model, optimizer, text, text, window=5, valid_window=5, max_tokens=500, clip_norm=1.0
        )
        outcomes.append([point.valid.nats for point in history])
    assert outcomes[0] == outcomes[1]


class _LargeResults(TorchDispatchMode):
    """Notes every operation that makes, or passes over, a dense tensor of at least ``size``."""

    ROWS_ONLY = ("index_select", "index_add_", "index_copy_", "detach", "aten.t.", "view")

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func)
        adds_rows = "add_" in name and any(isinstance(a, Tensor) and a.is_sparse for a in args)
        if not adds_rows and not any(allowed in name for allowed in self.ROWS_ONLY):
            for value in result if isinstance(result, tuple | list) else (result,):
                large = isinstance(value, Tensor) and value.layout == torch.strided
                if large and value.numel() >= self.size:
                    self.found.append(name)
        return result


@pytest.mark.parametrize("optimizer_name", ["sgd", "adagrad", "adam", "adamw"])
@pytest.mark.parametrize(
    "spec", ["hierarchical", "nce", "nce(shared=False, num_samples=5)", "sampled"]
)
def test_a_step_does_no_work_in_the_vocabulary(spec: str, optimizer_name: str) -> None:
    """Nothing of V numbers is made in a whole training step: embedding, layer, clip, optimiser."""
    size = 50_000
    model = small_model(spec, size)
    optimizer = make_optimizer(optimizer_name, model.parameters(), 0.1)
    tokens = torch.randint(size, (5, 4))

    def step() -> None:
        optimizer.zero_grad()
        loss, _ = model(tokens, tokens, None)
        loss.backward()
        clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()

    step()  # the optimiser's state is made once
    with _LargeResults(size) as watch:
        step()
    assert watch.found == []


def test_the_watch_sees_work_in_the_vocabulary() -> None:
    model = small_model("full", 50_000)
    tokens = torch.randint(50_000, (5, 4))
    with _LargeResults(50_000) as watch:
        model(tokens, tokens, None)[0].backward()
    assert watch.found


@pytest.mark.parametrize("spec", ["full", "nce", "sampled"])
def test_tied_embeddings_learn_from_both_sides(spec: str) -> None:
    model = small_model(spec, tied=True)
    assert model.embedding.weight is model.layer.weight
    assert sum(p.numel() for p in model.parameters()) < sum(
        p.numel() for p in small_model(spec).parameters()
    )
    optimizer = make_optimizer("adagrad", model.parameters(), 0.2)
    text = make_streams(np.arange(600) % 30, 6, 29)
    history = train(
        model, optimizer, text, text, window=10, valid_window=10, max_tokens=6000, clip_norm=5.0
    )
    assert history[-1].valid.perplexity < 1.5  # of 30


def test_what_cannot_be() -> None:
    with pytest.raises(SoftmaxBenchError, match="tied embeddings need"):
        small_model("hierarchical", tied=True)


def test_divergence_is_told() -> None:
    model = small_model("full")
    optimizer = make_optimizer("sgd", model.parameters(), 1.0)
    with torch.no_grad():
        next(iter(model.encoder.parameters())).fill_(torch.nan)
    text = make_streams(np.arange(60) % 30, 2, 0)
    with pytest.raises(DivergedError, match="diverged after 0 tokens"):
        train(model, optimizer, text, text, window=5, valid_window=5, max_tokens=60, clip_norm=1.0)


def test_a_model_far_worse_than_guessing_has_diverged() -> None:
    model = small_model("full")
    optimizer = make_optimizer("sgd", model.parameters(), 1e-6)
    with torch.no_grad():
        model.layer.get_parameter("bias")[29] = 1000.0  # of a class that is not in the text
    text = make_streams(np.arange(60) % 29, 2, 0)
    with pytest.raises(DivergedError, match="the validation perplexity is"):
        train(model, optimizer, text, text, window=5, valid_window=5, max_tokens=60, clip_norm=1.0)


def test_all_matrices_can_start_uniformly() -> None:
    layer = create_layer("nce", 8, 30, torch.arange(1, 31))
    model = LanguageModel(layer, embedding_size=8, num_layers=2)
    before = {name: value.clone() for name, value in model.named_parameters()}
    start_uniformly(model, 0.01)
    for name, value in model.named_parameters():
        if value.dim() > 1:
            assert 0.005 < float(value.detach().abs().max()) <= 0.01
        else:
            torch.testing.assert_close(value, before[name])
