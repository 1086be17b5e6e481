"""Samples that all processes share, of which each takes its own classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from softmax_bench.classes.noise import Noise
from softmax_bench.layers.sampled.drawing import Sample, SharedSampler
from softmax_bench.parallel.exchange import broadcast_from_first
from softmax_bench.parallel.vocabulary import ShardedClasses


class BroadcastNoise(Noise):
    """A noise distribution whose draws on all processes are those of the first process.

    So the sample is distributed as that of a single process, and is the same sample if the first
    process's generator has the same state, whatever the states of the others; an estimator that is
    unbiased in one process stays so. It costs a broadcast of the drawn ids. The tables of the
    noise, if any, are not sharded.
    """

    def __init__(self, noise: Noise, mesh: DeviceMesh) -> None:
        super().__init__(noise.num_classes)
        self.noise = noise
        self._mesh = mesh

    def __deepcopy__(self, memo: dict[int, object]) -> BroadcastNoise:
        return BroadcastNoise(self.noise, self._mesh)  # processes cannot be copied

    def sample(self, num_samples: int, device: torch.device) -> Tensor:  # noqa: D102
        return broadcast_from_first(self.noise.sample(num_samples, device), self._mesh)

    def log_prob(self, classes: Tensor) -> Tensor:  # noqa: D102
        return self.noise.log_prob(classes)

    def probabilities(self) -> npt.NDArray[np.float64]:  # noqa: D102
        return self.noise.probabilities()


def draw_here(
    sampler: SharedSampler, vocabulary: ShardedClasses, device: torch.device
) -> tuple[Sample, Tensor]:
    """This process's part of a sample that all draw, as distinct class ids and local rows."""
    sample = sampler.draw(device)
    counted = sample.count.nonzero().squeeze(1)  # on a GPU, repeats of a class count 0
    positions, rows = vocabulary.owned(sample.rows[counted])
    positions = counted[positions]
    here = Sample(sample.rows[positions], sample.count[positions], sample.log_expected[positions])
    return here, rows
