"""One training step of an output layer alone, as timed by benchmarks and the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from softmax_bench.classes.draws import watching_draws
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import OutputLayer
from softmax_bench.lm import clip_grad_norm, make_optimizer
from softmax_bench.measure.encoder_step import EncoderStep
from softmax_bench.measure.memory import peak_bytes, stored_bytes
from softmax_bench.measure.timing import Moment, Phases, elapsed, moment
from softmax_bench.ops import release_workspace
from softmax_bench.records.result import Memory
from softmax_bench.records.trial import BPTT, CLIP_NORM

PHASES = ("draw", "forward", "backward", "clip", "optimizer", "step")
"""Phases of a training step; ``"forward"`` excludes drawing, ``"step"`` includes everything."""
DECODED = 20
"""Hidden states decoded at once, as in a step of a small batch of texts."""


def zipf_counts(vocab_size: int) -> npt.NDArray[np.int64]:
    """Class counts that follow Zipf's law: class i occurs in proportion to 1 / (i + 1).

    Raises:
        SoftmaxBenchError: There are no classes.
    """
    if vocab_size < 1:
        raise SoftmaxBenchError(f"expected at least one class, not {vocab_size}")
    return (100.0 * vocab_size / np.arange(1, vocab_size + 1)).astype(np.int64)


def zipf_targets(num_tokens: int, vocab_size: int, seed: int) -> Tensor:
    """Targets drawn from Zipf's law.

    Raises:
        SoftmaxBenchError: There are no targets or no classes.
    """
    if num_tokens < 1 or vocab_size < 1:
        raise SoftmaxBenchError(
            f"expected at least one target and one class, not {num_tokens} and {vocab_size}"
        )
    return draw_targets(num_tokens, 1.0 / np.arange(1, vocab_size + 1), seed)


def draw_targets(num_tokens: int, counts: npt.ArrayLike, seed: int) -> Tensor:
    """Targets in proportion to ``counts``, by inverting the distribution function in float64."""
    running = np.cumsum(np.asarray(counts, dtype=np.float64))
    uniform = np.random.default_rng(seed).random(num_tokens) * running[-1]
    return torch.from_numpy(
        np.searchsorted(running, uniform, side="right").clip(max=len(running) - 1)
    )


class LayerStep:
    """A layer with hidden states, targets and an optimiser, ready to take steps.

    Hidden states are random and require a gradient, as an encoder's would; targets follow Zipf's
    law unless they are given. Each call is one step on the same targets. First, untimed, an encoder
    takes a step, which leaves the machine as training does, and gradients are dropped. Then
    sampling, forward, backward, clipping and the optimiser step on the touched rows are timed. Work
    that a layer does only in some steps, such as a snapshot of its rows, is timed once, and each
    step's share of it is added to the time of drawing.

    Args:
        layer: The output layer.
        num_tokens: Number of targets in a step.
        optimizer: Name of the optimiser.
        learning_rate: Its learning rate.
        clip_norm: Maximum norm of all gradients together.
        seed: Seed of the hidden states and targets.
        target: Target classes, of shape (N,).
        encoder: Name of the encoder; None if hidden states are given.
        embedding_size: Size of the encoder's word vectors.
        num_layers: Number of layers of the encoder.
        bptt: Time steps of the streams that the encoder reads.
    """

    def __init__(
        self,
        layer: OutputLayer,
        num_tokens: int,
        *,
        optimizer: str = "adagrad",
        learning_rate: float = 1e-3,
        clip_norm: float = CLIP_NORM,
        seed: int = 0,
        target: Tensor | None = None,
        encoder: str | None = "lstm",
        embedding_size: int | None = None,
        num_layers: int = 1,
        bptt: int = BPTT,
    ) -> None:
        parameter = next(layer.parameters())
        self.device = parameter.device
        self.layer = layer.train()
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn(num_tokens, layer.in_features, generator=generator).tanh_()
        self.hidden = hidden.to(parameter).requires_grad_()
        if target is None:
            target = zipf_targets(num_tokens, layer.num_classes, seed)
        self.target = target.to(self.device)
        self._encoder = None
        if encoder is not None:
            self._encoder = EncoderStep(
                target,
                layer.in_features,
                name=encoder,
                embedding_size=embedding_size,
                num_layers=num_layers,
                bptt=bptt,
                optimizer=optimizer,
                clip_norm=clip_norm,
                like=self.hidden,
            )
        self.optimizer = make_optimizer(optimizer, layer.parameters(), learning_rate)
        self.clip_norm = clip_norm
        self._drawing = _Stopwatch(self.device)
        self.upkeep = self._seconds_of_upkeep()
        """Seconds of a step's share of occasional work of the layer, part of drawing."""

    def _seconds_of_upkeep(self) -> float:
        steps = self.layer.settle()
        if not steps:
            return 0.0
        begin = moment(self.device)  # time the second run, because the first uses fresh memory
        self.layer.settle()
        return elapsed(begin, moment(self.device)) / steps

    def prepare(self) -> None:
        """Leave the machine as a training step finds it."""
        self._before = {} if self._encoder is None else {"encoder": self._encoder()}
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        self.optimizer.zero_grad()
        self.hidden.grad = None

    def forward(self) -> Tensor:
        """The loss."""
        with watching_draws(self._drawing.running):
            loss: Tensor = self.layer(self.hidden, self.target)
        return loss

    def clip(self) -> None:
        """Scale the layer's gradients to ``clip_norm``."""
        clip_grad_norm(self.layer.parameters(), self.clip_norm)

    def __call__(self) -> Phases:
        """Prepare and take one step; return seconds of its phases and of the encoder, if any."""
        self.prepare()
        return {**self._before, **self.take()}

    def take(self) -> Phases:
        """Take one step of the layer alone, prepared or not; return seconds of its phases."""
        self._drawing.restart()
        begin = moment(self.device)
        loss = self.forward()
        after_forward = moment(self.device)
        loss.backward()
        after_backward = moment(self.device)
        self.clip()
        after_clip = moment(self.device)
        self.optimizer.step()
        end = moment(self.device)
        whole, drawing = elapsed(begin, end), self._drawing.seconds()
        return {
            "draw": drawing + self.upkeep,
            "forward": elapsed(begin, after_forward) - drawing,
            "backward": elapsed(after_forward, after_backward),
            "clip": elapsed(after_backward, after_clip),
            "optimizer": elapsed(after_clip, end),
            "step": whole + self.upkeep,
        }

    def untimed(self) -> None:
        """One step of the layer alone, without a look at the clock: what a CUDA graph can hold."""
        self.zero_grad()
        self.layer(self.hidden, self.target).backward()
        self.clip()
        self.optimizer.step()

    def memory(self) -> Memory:
        """Bytes of a step, by use."""

        def forward_and_backward() -> None:
            self.layer.settle()
            self.forward().backward()

        self.take()  # creates the optimiser's state
        self.zero_grad()
        release_workspace()  # scratch left by earlier steps counts too
        peak = peak_bytes(forward_and_backward, self.device)
        layer = list(self.layer.parameters())
        gradients = sum(stored_bytes(p.grad) for p in layer if p.grad is not None)
        memory = Memory(
            parameters=sum(map(stored_bytes, layer)),
            gradients=gradients,
            activations=peak - gradients,
            optimizer=sum(map(stored_bytes, self.optimizer.state_tensors())),
        )
        self.zero_grad()
        return memory


class LayerInference:
    """Inference with a trained layer: log-probabilities of given classes, and the best classes.

    Each call begins with an untimed step of the encoder, as training steps do.
    """

    def __init__(self, step: LayerStep) -> None:
        self._step = step

    def __call__(self) -> Phases:
        """Evaluate all targets, and find the best 10 classes for :data:`DECODED` states."""
        step = self._step
        step.prepare()
        hidden = step.hidden.detach()
        some, best = hidden[:DECODED], min(10, step.layer.num_classes)
        with torch.no_grad():
            begin = moment(step.device)
            step.layer.target_log_prob(hidden, step.target)
            after_evaluation = moment(step.device)
            step.layer.topk(some, best)
            end = moment(step.device)
        return {
            "step": elapsed(begin, end),
            "evaluation": elapsed(begin, after_evaluation),
            "decoding": elapsed(after_evaluation, end),
        }


class _Stopwatch:
    """Sums the seconds while it is running."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: list[tuple[Moment, Moment]] = []

    def restart(self) -> None:
        """Restart at 0."""
        self._spans.clear()

    def seconds(self) -> float:
        """The sum since the last restart."""
        return sum((elapsed(begin, end) for begin, end in self._spans), 0.0)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run for the duration of the context."""
        begin = moment(self._device)
        try:
            yield
        finally:
            self._spans.append((begin, moment(self._device)))
