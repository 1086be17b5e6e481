"""One training step of an output layer alone: what the benchmarks and the command line time."""

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
from softmax_bench.records.trial import BPTT

PHASES = ("draw", "forward", "backward", "clip", "optimizer", "step")
"""Of a training step; ``"forward"`` is without the drawing, ``"step"`` is all together."""
DECODED = 20
"""Hidden states at once in decoding: a step of a small batch of texts."""


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
    """Targets in proportion to ``counts``, by inversion of the distribution function in float64."""
    running = np.cumsum(np.asarray(counts, dtype=np.float64))
    uniform = np.random.default_rng(seed).random(num_tokens) * running[-1]
    return torch.from_numpy(
        np.searchsorted(running, uniform, side="right").clip(max=len(running) - 1)
    )


class LayerStep:
    """A layer with hidden states, targets and an optimiser, ready to take steps.

    Hidden states are random and want a gradient, as an encoder's would; targets follow Zipf's
    law unless they are given. Each call is one step on the same targets: untimed, the step of an
    encoder, which leaves the machine as training does, and the gradients are dropped; timed, the
    noise is drawn, and the layer goes forward, backward, clips its gradients and takes the
    optimiser's step on what it really touches. What a layer does in few steps only, like a
    snapshot of its rows, is timed once, and its share added to the drawing of every step.

    Args:
        layer: The output layer.
        num_tokens: Targets in a step.
        optimizer: Name of the rule.
        learning_rate: Its rate.
        clip_norm: Greatest norm of all gradients.
        seed: Of the hidden states and targets.
        target: (N,) classes.
        encoder: Name of the encoder; None where there is none, because hidden states are given.
        embedding_size: Of the encoder's word vectors.
        num_layers: Of the encoder.
        bptt: Time steps of a stream that the encoder reads.
    """

    def __init__(
        self,
        layer: OutputLayer,
        num_tokens: int,
        *,
        optimizer: str = "adagrad",
        learning_rate: float = 1e-3,
        clip_norm: float = 5.0,
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
        """Seconds: a step's share in what the layer does only now and then, part of drawing."""

    def _seconds_of_upkeep(self) -> float:
        steps = self.layer.settle()
        if not steps:
            return 0.0
        begin = moment(self.device)  # of the second time: the first fills fresh memory
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
        """Prepare and take one step; seconds of its phases and of the encoder, if there is one."""
        self.prepare()
        return {**self._before, **self.take()}

    def take(self) -> Phases:
        """One step of the layer alone, prepared or not; seconds of its phases."""
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

    def memory(self) -> Memory:
        """Bytes of a step, by what they are for."""

        def forward_and_backward() -> None:
            self.layer.settle()
            self.forward().backward()

        self()  # makes the optimiser's state
        self.zero_grad()
        release_workspace()  # scratch that earlier steps left behind counts too
        peak = peak_bytes(forward_and_backward, self.device)
        layer = list(self.layer.parameters())
        gradients = sum(stored_bytes(p.grad) for p in layer if p.grad is not None)
        held = Memory(
            parameters=sum(map(stored_bytes, layer)),
            gradients=gradients,
            activations=peak - gradients,
            optimizer=sum(map(stored_bytes, self.optimizer.state_tensors())),
        )
        self.zero_grad()
        return held


class LayerInference:
    """What a trained layer is asked for: log-probabilities of given classes, and the best ones.

    Each call begins, untimed, with the step of the encoder, as training steps do.
    """

    def __init__(self, step: LayerStep) -> None:
        self._step = step

    def __call__(self) -> Phases:
        """Evaluation of all targets, and the best 10 classes after :data:`DECODED` states."""
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
    """Sums the seconds of what runs while it is running."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: list[tuple[Moment, Moment]] = []

    def restart(self) -> None:
        """Begin at 0."""
        self._spans.clear()

    def seconds(self) -> float:
        """The sum since."""
        return sum((elapsed(begin, end) for begin, end in self._spans), 0.0)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run for as long as the context lasts."""
        begin = moment(self._device)
        try:
            yield
        finally:
            self._spans.append((begin, moment(self._device)))
