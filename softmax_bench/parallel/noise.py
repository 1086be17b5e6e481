"""Samples that all processes share, each taking from them the classes that it has."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from softmax_bench.classes.noise import Noise
from softmax_bench.layers.sampled.drawing import Sample, SharedSampler
from softmax_bench.parallel.exchange import first_ones
from softmax_bench.parallel.vocabulary import DividedVocabulary


class SameDraws(Noise):
    """A noise whose draws on all processes are those of the first one.

    So the sample is distributed as that of one process, and is the same sample where the first
    process's generator is in the same state, whatever the states of the others: an estimator that
    is unbiased in one process stays so. It costs the broadcast of the drawn ids; the noise's own
    tables, where it has any, are not divided.
    """

    def __init__(self, noise: Noise, mesh: DeviceMesh) -> None:
        super().__init__(noise.num_classes)
        self.noise = noise
        self._mesh = mesh

    def __deepcopy__(self, memo: dict[int, object]) -> SameDraws:
        return SameDraws(self.noise, self._mesh)  # tables never change, processes cannot be copied

    def sample(self, num_samples: int, device: torch.device) -> Tensor:  # noqa: D102
        return first_ones(self.noise.sample(num_samples, device), self._mesh)

    def log_prob(self, classes: Tensor) -> Tensor:  # noqa: D102
        return self.noise.log_prob(classes)

    def probabilities(self) -> npt.NDArray[np.float64]:  # noqa: D102
        return self.noise.probabilities()


def draw_here(
    sampler: SharedSampler, vocabulary: DividedVocabulary, device: torch.device
) -> tuple[Sample, Tensor]:
    """What this process has of a sample that all draw, with class ids; and its rows here."""
    sample = sampler.draw(device)
    positions, rows = vocabulary.owned(sample.rows)
    here = Sample(sample.rows[positions], sample.count[positions], sample.log_expected[positions])
    return here, rows
