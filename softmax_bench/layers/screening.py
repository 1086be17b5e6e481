"""Top-k without scoring all classes: an index over the rows proposes candidates."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.linear import LinearOutputLayer


class Screen:
    """Approximate top-k for a layer with one row per class, by faiss's inverted file.

    Rows, with their offsets as one more dimension, are clustered once. A hidden state is compared
    with the clusters, and then only with the rows of the ``probes`` nearest ones. Scores of the
    classes found are exact, but some of the best classes may be missed; :meth:`recall` measures how
    many. For ``hierarchical`` and ``adaptive``, ``topk`` is already exact without all V scores.

    Source: the inverted file of Sivic & Zisserman 2003, for maximum inner products; used to screen
    a softmax by Shim et al. 2017 and Chen et al. 2019.

    Args:
        layer: ``full``, ``sampled``, ``nce`` or another with ``weight`` and ``bias``. Its rows
            are copied, so create a new screen after further training.
        clusters: About ``4 sqrt(V)`` if None.
        probes: Clusters searched per hidden state; more improve recall and take longer.

    Raises:
        SoftmaxBenchError: faiss is not installed, or the layer has no such rows.
    """

    def __init__(
        self, layer: LinearOutputLayer, *, clusters: int | None = None, probes: int = 16
    ) -> None:
        try:
            import faiss
        except ImportError:
            raise SoftmaxBenchError(
                "screening needs faiss: pip install 'softmax-bench[search]'"
            ) from None
        if not isinstance(layer, LinearOutputLayer):
            raise SoftmaxBenchError(
                f"screening needs a layer with one row per class, not {type(layer).__name__}"
            )
        if clusters is None:
            clusters = min(layer.num_classes, 4 * math.isqrt(layer.num_classes))
        if not 1 <= probes <= clusters <= layer.num_classes:
            raise SoftmaxBenchError(
                f"probes must be from 1 to clusters, and clusters up to {layer.num_classes} "
                f"classes, not {probes} and {clusters}"
            )
        self.layer = layer
        rows = layer.weight.detach().float().cpu()
        offsets = layer.offsets()
        if offsets is not None:
            rows = torch.cat([rows, offsets.detach().float().cpu().unsqueeze(1)], 1)
        quantizer = faiss.IndexFlatIP(rows.shape[1])
        self._index = faiss.IndexIVFFlat(
            quantizer, rows.shape[1], clusters, faiss.METRIC_INNER_PRODUCT
        )
        # faiss warns on the terminal if there are fewer than 39 rows per cluster.
        self._index.cp.min_points_per_centroid = 1
        self._index.train(rows.numpy())
        self._index.add(rows.numpy())
        self._index.nprobe = probes

    @torch.no_grad()
    def topk(
        self, hidden: Float[Tensor, "*batch H"], k: int
    ) -> tuple[Float[Tensor, "*batch k"], Int[Tensor, "*batch k"]]:
        """Scores, in descending order, and ids of ``k`` classes.

        The scores are not normalised, which would take all V. If the searched clusters hold fewer
        than ``k`` classes, the last ids are -1 and their scores ``-inf``.

        Raises:
            SoftmaxBenchError: Shapes do not match, or ``k`` is not in [1, V].
        """
        width, classes = self.layer.in_features, self.layer.num_classes
        if hidden.dim() == 0 or hidden.shape[-1] != width:
            raise SoftmaxBenchError(
                f"hidden must have shape (..., {width}), not {tuple(hidden.shape)}"
            )
        if not 1 <= k <= classes:
            raise SoftmaxBenchError(f"k must be from 1 to {classes} classes, not {k}")
        queries = hidden.detach().reshape(-1, width).float().cpu()
        if self._index.d > width:
            queries = F.pad(queries, (0, 1), value=1.0)
        scores, ids = self._index.search(queries.numpy(), k)
        shape = (*hidden.shape[:-1], k)
        found = torch.from_numpy(ids).view(shape).to(hidden.device)
        values = torch.from_numpy(scores).view(shape).to(hidden)
        return values.masked_fill(found < 0, -math.inf), found

    def recall(self, hidden: Float[Tensor, "*batch H"], k: int) -> float:
        """Share of the exact ``k`` best classes that are found, over all hidden states."""
        _, found = self.topk(hidden, k)
        _, exact = self.layer.topk(hidden, k)
        return float((exact.unsqueeze(-1) == found.unsqueeze(-2)).any(-1).float().mean())
