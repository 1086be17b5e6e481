"""Differentiated softmax: rare classes use fewer dimensions of the hidden state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softmax_bench.classes.frequency_order import FrequencyOrder, band_of, probabilities_by_rank
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.all_classes import AllClassesLayer, AllClassesOptions
from softmax_bench.layers.gumbel import draw
from softmax_bench.ops import Terms, TokenSums, token_sums


class DifferentiatedSoftmax(AllClassesLayer):
    """One softmax over all classes, whose rows are narrower for rarer classes.

    Classes are cut into bands by frequency rank; band i scores with ``widths[i]`` dimensions of the
    hidden state. By default, each band reads its own part (Chen et al. 2016); with ``nested``, all
    bands read the first dimensions (their D-softmax*), so frequent classes see everything. The
    softmax is still over all classes: cost falls with the mean width, not with the number of
    classes scored.

    Args:
        cutoffs: Ranks at which bands after the first begin; a tenth and a half of V if None.
        widths: Dimensions of each band. They must add up to H, or, if nested, be at most H. If
            None, each band has half the width of the one before.
        nested: Whether bands share the first dimensions.
        **options: As for every output layer, and
            :class:`~softmax_bench.layers.all_classes.AllClassesOptions`.
    """

    name = "differentiated"
    scores = "all N x V, rare classes in fewer dimensions"
    source = "Chen et al. 2016"
    good_for = "fewer parameters and products with exact likelihood; rare classes suffer"
    step_flops = "8 N sum_i V_i H_i over the bands i"
    exact = True
    normalised = "no"
    traceable = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        cutoffs: Sequence[int] | None = None,
        widths: Sequence[int] | None = None,
        nested: bool = False,
        **options: Unpack[AllClassesOptions],
    ) -> None:
        super().__init__(in_features, num_classes, **options)
        if cutoffs is None:
            cutoffs = sorted({c for c in (num_classes // 10, num_classes // 2) if c > 0})
            cutoffs = cutoffs[: max(0, in_features - 1)]
        self.bounds = [0, *cutoffs, num_classes]
        if any(low >= high for low, high in zip(self.bounds, self.bounds[1:], strict=False)):
            raise SoftmaxBenchError(
                f"cutoffs must rise from 1 to {num_classes - 1}, not {list(cutoffs)!r}"
            )
        bands = len(self.bounds) - 1
        if widths is None:
            widths = _halving(in_features, bands, nested=nested)
        fits = max(widths) <= in_features if nested else sum(widths) == in_features
        if len(widths) != bands or min(widths) < 1 or not fits:
            wanted = f"each at most {in_features}" if nested else f"adding up to {in_features}"
            raise SoftmaxBenchError(
                f"widths must be {bands} positive numbers, one per band, {wanted}, "
                f"not {list(widths)!r}"
            )
        starts = [0] * bands if nested else np.cumsum([0, *widths[:-1]]).tolist()
        self.columns = [slice(a, a + w) for a, w in zip(starts, widths, strict=True)]
        self.bands = nn.ModuleList(
            nn.Linear(
                width,
                high - low,
                bias=options.get("bias", True),
                device=options.get("device"),
                dtype=options.get("dtype"),
            )
            for width, low, high in zip(widths, self.bounds, self.bounds[1:], strict=False)
        )
        self.order = FrequencyOrder(self._counts, num_classes)
        self.order.to(next(self.bands.parameters()).device)
        self._start_at_unigram()

    def _linears(self) -> list[nn.Linear]:
        return [band for band in self.bands if isinstance(band, nn.Linear)]

    @torch.no_grad()
    def _start_at_unigram(self) -> None:
        log_share = torch.from_numpy(np.log(probabilities_by_rank(self._counts, self.num_classes)))
        for low, band in zip(self.bounds, self._linears(), strict=False):
            if band.bias is not None:
                band.bias.copy_(log_share[low : low + band.out_features])

    def _token_sums(self, hidden: Tensor, target: Tensor, terms: Terms) -> TokenSums:
        rank = self.order.ranks(target)
        by_rank = None
        if terms.class_weight is not None:
            ranks = torch.arange(self.num_classes, device=rank.device)
            by_rank = terms.class_weight[self.order.classes(ranks)]
        bands = []
        for band, columns, low in zip(self._linears(), self.columns, self.bounds, strict=False):
            high = low + band.out_features
            of_band = terms._replace(
                soft_cap=self._cap, class_weight=None if by_rank is None else by_rank[low:high]
            )
            place = (rank - low).clamp(0, band.out_features - 1)
            offsets = self._offsets(band)
            bands.append(token_sums(hidden[:, columns], band.weight, offsets, place, of_band))
        return self._joined(hidden, rank, bands)

    def _joined(self, hidden: Tensor, rank: Tensor, bands: Sequence[TokenSums]) -> TokenSums:
        """Sums over all classes, combined from those over each band."""
        own = band_of(rank, self.bounds[1:-1]).unsqueeze(1)
        log_z = torch.stack([band.log_z for band in bands], 1)
        of_all = log_z.logsumexp(1)
        target_score = torch.stack([band.target_score for band in bands], 1).gather(1, own)
        mean = expected = best = None
        if means := [band.mean_score for band in bands if band.mean_score is not None]:
            sizes = [band.out_features / self.num_classes for band in self._linears()]
            mean = torch.stack(means, 1) @ of_all.new_tensor(sizes)
        if scores := [band.expected_score for band in bands if band.expected_score is not None]:
            expected = ((log_z - of_all.unsqueeze(1)).exp() * torch.stack(scores, 1)).sum(1)
        if places := [band.best for band in bands if band.best is not None]:
            best = self._best(hidden, torch.stack(places, 1))
        return TokenSums(target_score.squeeze(1), of_all, mean, expected, best)

    @torch.no_grad()
    def _best(self, hidden: Tensor, of_bands: Tensor) -> Tensor:
        """The best class overall, given the position of the best one in each band."""
        scores = []
        for index, (band, columns) in enumerate(zip(self._linears(), self.columns, strict=True)):
            place = of_bands[:, index]
            rows = band.weight.index_select(0, place).to(hidden.dtype)
            score = torch.linalg.vecdot(hidden[:, columns], rows)
            offsets = self._offsets(band)
            scores.append(score if offsets is None else score + offsets[place])
        chosen = torch.stack(scores, 1).argmax(1, keepdim=True)
        first = of_bands.new_tensor(self.bounds[:-1])
        return self.order.classes(of_bands.gather(1, chosen).squeeze(1) + first[chosen.squeeze(1)])

    def _offsets(self, band: nn.Linear) -> Tensor | None:
        bias: Tensor | None = band.bias
        return bias if bias is None or self.temperature == 1 else bias / self.temperature

    def _scores(self, hidden: Tensor) -> Tensor:
        """Scores by rank."""
        scores = [
            F.linear(hidden[:, columns], band.weight, self._offsets(band))
            for band, columns in zip(self._linears(), self.columns, strict=True)
        ]
        return self._capped(torch.cat(scores, 1))

    def _log_prob(self, hidden: Tensor) -> Tensor:
        return self.order.by_class(self._scores(hidden).log_softmax(1))

    def _topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        values, ranks = self._scores(hidden).log_softmax(1).topk(k)
        return values, self.order.classes(ranks)

    def _sample(self, hidden: Tensor) -> Tensor:
        return self.order.classes(draw(self._scores(hidden)))

    def flops(self, num_tokens: int) -> float:
        """Four products over each band, because the backward recomputes the scores."""
        return 8.0 * num_tokens * sum(band.weight.numel() for band in self._linears())


def _halving(in_features: int, bands: int, *, nested: bool) -> list[int]:
    if nested:
        return [max(1, in_features >> band) for band in range(bands)]
    widths = [max(1, in_features >> (band + 1)) for band in range(1, bands)]
    return [in_features - sum(widths), *widths]
