"""One training step of an output layer alone: what the benchmarks and the command line time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import OutputLayer
from softmax_bench.lm import make_optimizer
from softmax_bench.measure.memory import peak_bytes
from softmax_bench.measure.timing import Phases, clock
from softmax_bench.ops import release_workspace

PHASES = ("forward", "backward", "optimizer", "step")


def zipf_counts(vocab_size: int) -> npt.NDArray[np.int64]:
    """Class counts that follow Zipf's law: class i occurs in proportion to 1 / (i + 1).

    Raises:
        SoftmaxBenchError: There are no classes.
    """
    if vocab_size < 1:
        raise SoftmaxBenchError(f"expected at least one class, not {vocab_size}")
    return (100.0 * vocab_size / np.arange(1, vocab_size + 1)).astype(np.int64)


def zipf_targets(num_tokens: int, vocab_size: int, seed: int) -> Tensor:
    """Targets drawn from Zipf's law, by inversion of its distribution function in float64.

    Raises:
        SoftmaxBenchError: There are no targets or no classes.
    """
    if num_tokens < 1 or vocab_size < 1:
        raise SoftmaxBenchError(
            f"expected at least one target and one class, not {num_tokens} and {vocab_size}"
        )
    running = np.cumsum(1.0 / np.arange(1, vocab_size + 1))
    uniform = np.random.default_rng(seed).random(num_tokens) * running[-1]
    return torch.from_numpy(
        np.searchsorted(running, uniform, side="right").clip(max=vocab_size - 1)
    )


class LayerStep:
    """A layer with hidden states, targets and an optimiser, ready to take steps.

    Hidden states are random and want a gradient, as an encoder's would; targets follow Zipf's
    law. Each call is one step on the same targets: drop the gradients, forward, backward, and
    the optimiser on what it really touches.
    """

    def __init__(
        self,
        layer: OutputLayer,
        num_tokens: int,
        *,
        optimizer: str = "adagrad",
        learning_rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        parameter = next(layer.parameters())
        self.device = parameter.device
        self.layer = layer.train()
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn(num_tokens, layer.in_features, generator=generator).tanh_()
        self.hidden = hidden.to(parameter).requires_grad_()
        self.target = zipf_targets(num_tokens, layer.num_classes, seed).to(self.device)
        self.optimizer = make_optimizer(
            optimizer, layer.parameters(), layer.row_sparse_parameters(), learning_rate
        )

    def zero_grad(self) -> None:
        """Drop the gradients."""
        self.optimizer.zero_grad()
        self.hidden.grad = None

    def forward(self) -> Tensor:
        """The loss."""
        loss: Tensor = self.layer(self.hidden, self.target)
        return loss

    def __call__(self) -> Phases:
        """One step; seconds of its phases."""
        self.zero_grad()
        begin = clock(self.device)
        loss = self.forward()
        after_forward = clock(self.device)
        loss.backward()
        after_backward = clock(self.device)
        self.optimizer.step()
        end = clock(self.device)
        return {
            "forward": after_forward - begin,
            "backward": after_backward - after_forward,
            "optimizer": end - after_backward,
            "step": end - begin,
        }

    def peak_bytes(self) -> int:
        """Most bytes held at once in forward and backward, gradients included, parameters not."""

        def forward_and_backward() -> None:
            self.forward().backward()

        self.zero_grad()
        release_workspace()  # scratch that earlier steps left behind counts too
        peak = peak_bytes(forward_and_backward, self.device)
        self.zero_grad()
        return peak
