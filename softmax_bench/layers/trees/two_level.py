"""Class-factored softmax: first the cluster, then the class within its cluster."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softmax_bench.classes.counts import unigram
from softmax_bench.classes.frequency_order import FrequencyOrder
from softmax_bench.classes.noise import expected_distinct
from softmax_bench.classes.tree import Tree
from softmax_bench.errors import SoftmaxBenchError, check_positive
from softmax_bench.layers.base import OutputLayer
from softmax_bench.layers.gumbel import draw
from softmax_bench.layers.options import CommonOptions
from softmax_bench.ops import (
    block_cross_entropy,
    block_scores,
    keep_coalesced,
    linear_cross_entropy,
    linear_nll,
)


class TwoLevelSoftmax(OutputLayer):
    """``p(w|h) = p(c(w)|h) p(w|c(w), h)``: C clusters of about V/C classes.

    A token scores all C clusters and the classes of one of them: about ``4 sqrt(V)`` scores
    instead of V. Clusters are runs of ``ceil(V/C)`` consecutive frequency ranks (the last may be
    shorter), so that the tokens of a step need few of them; or runs of the leaves of a tree that
    places similar classes next to each other, which predicts better.

    Args:
        num_clusters: C; about ``4 sqrt(V)`` if None. ``sqrt(V)`` would minimise the number of
            scores, but tokens of rare classes share no clusters: the fewer classes a cluster has,
            the fewer rows are read, get gradients and are updated, and these dominate a step.
        tree: A tree from :func:`~softmax_bench.classes.tree_shapes.clustered_tree`, or the file
            it was saved to; clusters by frequency if None.
        **common: As for every output layer.
    """

    name = "two_level"
    scores = "all clusters, and the classes of each target's cluster"
    source = "Goodman 2001; Mikolov et al. 2011"
    good_for = "moderate V; exact probabilities of given classes at about 4 sqrt(V) scores"
    step_flops = "6 N H (C + V / C)"
    exact = True
    normalised = "by construction"

    member_bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_clusters: int | None = None,
        tree: Tree | str | None = None,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(in_features, num_classes, **common)
        if num_clusters is None:
            num_clusters = min(4 * math.isqrt(num_classes), num_classes)
        check_positive("num_clusters", num_clusters)
        if num_clusters > num_classes:
            raise SoftmaxBenchError(
                f"num_clusters must be from 1 to {num_classes}, not {num_clusters}"
            )
        self.block = math.ceil(num_classes / num_clusters)
        clusters = math.ceil(num_classes / self.block)
        device, dtype = common.get("device"), common.get("dtype")
        bias = common.get("bias", True)
        self.cluster = nn.Linear(in_features, clusters, bias=bias, device=device, dtype=dtype)
        # The last cluster is padded with rows that belong to no class and that no score uses.
        shape = (clusters, self.block)
        self.member = nn.Parameter(torch.empty(*shape, in_features, device=device, dtype=dtype))
        if bias:
            self.member_bias = nn.Parameter(torch.zeros(shape, device=device, dtype=dtype))
        else:
            self.register_parameter("member_bias", None)
        leaves = None if tree is None else Tree.given(tree, num_classes).leaves()
        order = FrequencyOrder(self._counts, num_classes, leaves)
        self._shares = unigram(self._counts, num_classes)[order.class_of_rank.numpy()]
        self.order = order.to(self.member.device)
        bound = 1 / math.sqrt(in_features)
        nn.init.uniform_(self.member, -bound, bound)
        self._start_at_unigram()
        for parameter in self.row_sparse_parameters():
            keep_coalesced(parameter)

    @torch.no_grad()
    def _start_at_unigram(self) -> None:
        if self.member_bias is None:
            return
        shares = torch.from_numpy(self._shares)
        log_share = F.pad(shares, (0, self._padding)).log().view(self.member.shape[:2])
        self.cluster.bias.copy_(log_share.logsumexp(1))
        self.member_bias.copy_(log_share.clamp(min=log_share[log_share.isfinite()].min()))

    @property
    def _padding(self) -> int:
        return self.member.shape[0] * self.block - self.num_classes

    def row_sparse_parameters(self) -> Iterator[nn.Parameter]:
        """The rows of the classes: a step touches the clusters of its targets."""
        if self.sparse:
            yield from (p for p in (self.member, self.member_bias) if p is not None)

    def _member_scores(self, hidden: Tensor, cluster: Tensor) -> Tensor:
        scores = block_scores(hidden, *self._trained(self.member, self.member_bias), cluster)
        return self._without_padding(scores, cluster)

    def _without_padding(self, scores: Tensor, cluster: Tensor) -> Tensor:
        if not self._padding:
            return scores
        used = torch.where(
            cluster == self.member.shape[0] - 1, self.block - self._padding, self.block
        )
        column = torch.arange(self.block, device=scores.device)
        return scores.masked_fill(column >= used.unsqueeze(-1), -math.inf)

    def _place(self, target: Tensor) -> tuple[Tensor, Tensor]:
        rank = self.order.ranks(target)
        cluster = rank.div(self.block, rounding_mode="floor")
        return cluster, rank - cluster * self.block

    def _member_losses(self, hidden: Tensor, cluster: Tensor, member: Tensor) -> Tensor:
        return F.cross_entropy(self._member_scores(hidden, cluster), member, reduction="none")

    def _weighted_loss(self, hidden: Tensor, target: Tensor, coefficient: Tensor) -> Tensor:
        rank = self.order.ranks(target)
        cluster = rank.div(self.block, rounding_mode="floor")
        weight, bias = self.cluster.weight, self.cluster.bias
        first = linear_cross_entropy(hidden, weight, bias, cluster, coefficient)
        return first + block_cross_entropy(
            hidden,
            *self._trained(self.member, self.member_bias),
            rank,
            coefficient,
            self.num_classes,
        )

    def _token_losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        cluster, member = self._place(target)
        first, _ = linear_nll(hidden, self.cluster.weight, self.cluster.bias, cluster)
        return first + self._member_losses(hidden, cluster, member)

    def _target_log_prob(self, hidden: Tensor, target: Tensor) -> Tensor:
        return -self._token_losses(hidden, target)

    def _log_prob(self, hidden: Tensor) -> Tensor:
        bias = None if self.member_bias is None else self.member_bias.view(-1)
        scores = F.linear(hidden, self.member.view(-1, self.in_features), bias)
        scores = scores.view(-1, *self.member.shape[:2])
        clusters = torch.arange(scores.shape[1], device=scores.device)
        inside = self._without_padding(scores, clusters).log_softmax(2)
        by_rank = self.cluster(hidden).log_softmax(1).unsqueeze(2) + inside
        return self.order.by_class(by_rank.flatten(1)[:, : self.num_classes])

    def _topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Open clusters in descending order of probability while one can hold a better class."""
        reached, clusters = self.cluster(hidden).log_softmax(1).sort(1, descending=True)
        best = hidden.new_full((hidden.shape[0], k), -math.inf)
        rank = torch.zeros_like(best, dtype=torch.int64)
        for position in range(clusters.shape[1]):
            token = (reached[:, position] > best[:, -1]).nonzero().squeeze(1)
            if not token.numel():
                break
            cluster = clusters[token, position]
            inside = self._member_scores(hidden[token], cluster).log_softmax(1)
            inside = (inside + reached[token, position, None]).to(best.dtype)
            ranks = cluster.unsqueeze(1) * self.block + torch.arange(self.block, device=rank.device)
            merged, place = torch.cat([best[token], inside], 1).topk(k)
            best[token] = merged
            rank[token] = torch.cat([rank[token], ranks], 1).gather(1, place)
        return best, self.order.classes(rank)

    def _sample(self, hidden: Tensor) -> Tensor:
        cluster = draw(self.cluster(hidden))
        member = draw(self._member_scores(hidden, cluster))
        return self.order.classes(cluster * self.block + member)

    def flops(self, num_tokens: int) -> float:
        """Three products over the clusters, and over one cluster per token."""
        return 6.0 * num_tokens * (self.member.shape[0] + self.block) * self.in_features

    def rows_touched(self, num_tokens: int) -> float:
        """The rows of the distinct clusters among those of the targets."""
        of_cluster = np.pad(self._shares, (0, self._padding)).reshape(-1, self.block).sum(1)
        return expected_distinct((of_cluster, num_tokens)) * self.block
