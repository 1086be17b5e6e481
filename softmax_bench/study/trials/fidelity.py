"""Comparison of layers with full softmax on the hidden states of a trained model.

One model is trained with full softmax. Gradients are compared on a batch of its training text, with
the model's own rows in every layer that has such rows. Then each layer is trained from scratch,
alone, on the model's hidden states for its training text, with as many tokens as the model had, and
its result is compared with the model on the test text. Full softmax itself, trained in this way,
shows how much of a divergence is due to starting anew. Since the hidden states were made for its
rows, layers of other shapes have a disadvantage that they would not have if the whole model were
trained with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor

from softmax_bench.corpora import Corpus
from softmax_bench.corpora.tokens import Ids
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import FullSoftmax, OutputLayer, create_layer, parse_spec
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.layers.options import layer_options
from softmax_bench.lm import (
    IGNORED,
    DivergedError,
    LanguageModel,
    clip_grad_norm,
    make_streams,
)
from softmax_bench.measure.fidelity import (
    divergence,
    exact_gradients,
    load_rows,
    measure_gradients,
    measure_samples,
)
from softmax_bench.measure.moments import GROUPS, block_mean
from softmax_bench.records.record import FidelityRecord
from softmax_bench.records.result import FidelityResult, SamplePoint
from softmax_bench.records.trial import FidelityTrial, TrainTrial, trial_id
from softmax_bench.study.trials.setting import describe_machine, now
from softmax_bench.study.trials.train import train_model, trial_optimizer

HELD_OUT = 5000
"""Most tokens of the validation and the test text that layers are evaluated on."""
LEAST_DRAWS = 2 * GROUPS

OnProgress = Callable[[str, float], None]
"""Called with a description of the current work, and the share that is done."""


def check_fidelity(trials: Sequence[FidelityTrial]) -> None:
    """Check the settings before anything runs.

    Raises:
        SoftmaxBenchError: A setting is invalid.
    """
    for trial in trials:
        parse_spec(trial.layer)
        if trial.num_states < 1:
            raise SoftmaxBenchError(f"num_states must be at least 1, not {trial.num_states}")
        if trial.num_draws < LEAST_DRAWS:
            raise SoftmaxBenchError(
                f"the number of draws must be at least {LEAST_DRAWS} for an interval, not "
                f"{trial.num_draws}"
            )
        if not trial.sample_counts or min(trial.sample_counts) < 1:
            raise SoftmaxBenchError(
                f"numbers of samples must be positive, not {list(trial.sample_counts)}"
            )
        if not trial.learning_rates or min(trial.learning_rates) <= 0:
            raise SoftmaxBenchError(
                f"learning rates must be positive, not {list(trial.learning_rates)}"
            )


def measure_fidelity(
    trials: Sequence[FidelityTrial],
    corpus: Corpus,
    *,
    on_progress: OnProgress = lambda what, share: None,
    on_turn: Callable[[FidelityTrial], None] = lambda trial: None,
) -> Iterator[FidelityRecord]:
    """Train the model once, compare each layer with it, and yield one record per layer.

    Args:
        trials: Trials with one model in common.
        corpus: The text that the model is trained on.
        on_progress: See :data:`OnProgress`.
        on_turn: Called with the trial that starts.

    Raises:
        SoftmaxBenchError: A setting is invalid.
        DivergedError: The model diverged, or a layer did at every learning rate.
    """
    check_fidelity(trials)
    parts = len(trials) + 1
    reference = _Reference(
        trials[0].model, corpus, lambda share: on_progress("the full model", share / parts)
    )
    for number, trial in enumerate(trials):

        def show(share: float, done: int = number, layer: str = trial.layer) -> None:
            on_progress(layer, (done + 1 + share) / parts)

        on_turn(trial)
        started = now()
        points = list(_points(trial, reference, corpus, lambda share: show(share / 2)))
        result = _learned(trial, reference, corpus, points, lambda share: show(0.5 + share / 2))
        yield FidelityRecord(
            id=trial_id(trial),
            started=started,
            trial=trial,
            environment=describe_machine(),
            result=result,
        )


@dataclass(frozen=True)
class _States:
    """Hidden states of a text, in order, and the words to predict from them."""

    hidden: Tensor
    target: Tensor


class _Reference:
    """The trained model with full softmax, and its hidden states."""

    def __init__(self, trial: TrainTrial, corpus: Corpus, on_share: Callable[[float], None]):
        tokens = 0

        def step(predicted: int) -> None:
            nonlocal tokens
            tokens += predicted
            on_share(min(1.0, tokens / trial.max_tokens))

        model, _ = train_model(trial, corpus, on_step=step)
        assert isinstance(model.layer, FullSoftmax)
        self.full = model.layer
        self.train = _states(model, corpus.train[: trial.max_tokens], trial.batch_size, corpus)
        self.valid = _states(model, corpus.valid[:HELD_OUT], trial.batch_size, corpus)
        self.test = _states(model, corpus.test[:HELD_OUT], trial.batch_size, corpus)


@torch.no_grad()
def _states(model: LanguageModel, words: Ids, batch_size: int, corpus: Corpus) -> _States:
    model.eval()
    device = next(model.parameters()).device
    text = make_streams(words, batch_size, corpus.eos_id).to(device)
    state, hidden, target = None, [], []
    for inputs, targets in text.windows(50):
        states, state = model.hidden(inputs, state)
        predicted = targets != IGNORED
        hidden.append(states[predicted])
        target.append(targets[predicted])
    return _States(torch.cat(hidden), torch.cat(target))


def _points(
    trial: FidelityTrial,
    reference: _Reference,
    corpus: Corpus,
    on_share: Callable[[float], None],
) -> Iterator[SamplePoint]:
    """The layer's gradient at each number of samples; none for exact or other objectives."""
    kind, options_of_spec = parse_spec(trial.layer)
    if kind.exact:
        return
    varied = "num_samples" in layer_options(kind) and "num_samples" not in options_of_spec
    hidden = reference.train.hidden[-trial.num_states :]
    target = reference.train.target[-trial.num_states :]
    counts = [k for k in trial.sample_counts if k <= corpus.vocab_size]
    settings = [{"num_samples": k} for k in counts] if varied else [{}]
    exact = exact_gradients(reference.full, hidden, target)
    for number, options in enumerate(settings):
        torch.manual_seed(trial.model.seed)
        layer = _make(trial, corpus, **options)
        if not load_rows(layer, reference.full, hidden):
            return
        assert isinstance(layer, LinearOutputLayer)
        drawn = 0

        def step(done: int = number) -> None:
            nonlocal drawn
            drawn += 1
            on_share((done + drawn / trial.num_draws) / len(settings))

        moments = measure_gradients(
            layer, exact, hidden, target, draws=trial.num_draws, on_draw=step
        )
        samples = measure_samples(layer, hidden, target, draws=trial.num_draws)
        yield SamplePoint(
            num_samples=options.get("num_samples", options_of_spec.get("num_samples")),
            samples=samples,
            **moments,
        )


def _learned(
    trial: FidelityTrial,
    reference: _Reference,
    corpus: Corpus,
    points: list[SamplePoint],
    on_share: Callable[[float], None],
) -> FidelityResult:
    """Train the layer with each learning rate, and compare the best result with the model."""
    tried: dict[float, OutputLayer] = {}
    losses: dict[float, float] = {}
    for number, rate in enumerate(trial.learning_rates):
        tried[rate] = _train_layer(trial, reference, corpus, rate)
        loss = _nats(tried[rate], reference.valid)
        losses[rate] = loss if math.isfinite(loss) else math.inf
        on_share((number + 1) / (len(trial.learning_rates) + 1))
    best = min(losses, key=lambda rate: losses[rate])
    if losses[best] == math.inf:
        raise DivergedError(
            f"{trial.layer} diverged at every learning rate of {list(trial.learning_rates)}: try "
            "lower ones"
        )
    layer, test = tried[best].eval(), reference.test
    log_z = _log_z(layer, test)
    return FidelityResult(
        points=points,
        learning_rate=best,
        divergence=block_mean(divergence(reference.full, layer, test.hidden)),
        tokens=len(test.target),
        nats=_nats(layer, test),
        full_nats=_nats(reference.full, test),
        log_z_mean=None if log_z is None else float(log_z.mean()),
        log_z_sd=None if log_z is None else float(log_z.std()),
    )


def _train_layer(
    trial: FidelityTrial, reference: _Reference, corpus: Corpus, rate: float
) -> OutputLayer:
    torch.manual_seed(trial.model.seed)
    layer = _make(trial, corpus).train()
    optimizer = trial_optimizer(
        msgspec.structs.replace(trial.model, learning_rate=rate), layer, layer
    )
    step = trial.model.batch_size * trial.model.bptt
    batches = list(
        zip(reference.train.hidden.split(step), reference.train.target.split(step), strict=True)
    )
    for number in range(math.ceil(trial.model.max_tokens / step)):
        hidden, target = batches[number % len(batches)]
        optimizer.zero_grad()
        layer(hidden, target).backward()
        clip_grad_norm(layer.parameters(), trial.model.clip_norm)
        optimizer.step()
    return layer


def _make(trial: FidelityTrial, corpus: Corpus, **options: int) -> OutputLayer:
    return create_layer(
        trial.layer,
        trial.model.hidden_size,
        corpus.vocab_size,
        corpus.class_counts,
        device=trial.model.device,
        dtype=getattr(torch, trial.model.dtype),
        sparse=True,
        **options,
    )


@torch.no_grad()
def _nats(layer: OutputLayer, text: _States) -> float:
    return -float(layer.target_log_prob(text.hidden, text.target).double().mean())


@torch.no_grad()
def _log_z(layer: OutputLayer, text: _States) -> Tensor | None:
    """The log-normaliser of the scores, or the one implied by scores claimed to be normalised."""
    claim = layer.unnormalized_target_log_prob(text.hidden, text.target)
    if claim is not None:
        return (claim - layer.target_log_prob(text.hidden, text.target)).double()
    if isinstance(layer, LinearOutputLayer):
        return layer.log_normalizer(text.hidden).double()
    return None
