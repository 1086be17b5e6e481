"""Classes in order of frequency, for layers whose shape depends on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from softmax_bench.classes.counts import positive_counts
from softmax_bench.classes.kept_buffers import KeptBuffers


class FrequencyOrder(KeptBuffers):
    """Converts class ids to frequency ranks and back, so that ids may have any order.

    Without counts, ids are ranks. The state dict includes the order, without which the parameters
    are meaningless. An ``order`` (V,) of class ids by another rule may be given instead.
    """

    class_of_rank: Tensor
    rank_of_class: Tensor

    def __init__(
        self,
        counts: npt.NDArray[np.float64] | None,
        num_classes: int,
        order: npt.NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__()
        if order is None:
            order = np.argsort(-positive_counts(counts, num_classes), kind="stable")
        self.register_buffer("class_of_rank", torch.from_numpy(order))
        self.register_buffer("rank_of_class", torch.from_numpy(np.argsort(order)))

    def ranks(self, classes: Tensor) -> Tensor:
        """Rank of each class: 0 is the most frequent."""
        return self.rank_of_class[classes]

    def classes(self, ranks: Tensor) -> Tensor:
        """Class of each rank."""
        return self.class_of_rank[ranks]

    def by_class(self, by_rank: Tensor) -> Tensor:
        """Reorder columns from rank to class id."""
        return by_rank.index_select(1, self.rank_of_class)


def band_of(ranks: Tensor, bounds: Sequence[int]) -> Tensor:
    """The band of each rank, where bands after the first begin at ascending ``bounds``.

    This compares, because passing the bounds as a tensor would mean waiting for a GPU.
    """
    band = torch.zeros_like(ranks)
    for bound in bounds:
        band += ranks >= bound
    return band


def probabilities_by_rank(
    counts: npt.NDArray[np.float64] | None, num_classes: int
) -> npt.NDArray[np.float64]:
    """Relative frequencies in descending order; a class never seen counts as seen once."""
    positive = np.sort(positive_counts(counts, num_classes))[::-1]
    return positive / positive.sum()
