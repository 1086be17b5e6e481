"""Proposals by a kernel, drawn through a tree over the classes."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Unpack

import torch
from torch import Tensor

from softmax_bench.layers.options import CommonOptions
from softmax_bench.layers.proposals.base import ProposalSoftmax, draw_columns, log_share
from softmax_bench.ops import tally
from softmax_bench.ops.cpu.blocks import block_scores

_TOP = 1024
"""Nodes of the first level, which one dense product scores for all tokens."""
_LEAST_BRANCH, _MOST_BRANCH = 32, 128
"""Children per node below: with few, there is a product for each of many nodes; with many, all are
visited.
"""


class TreeProposal(ProposalSoftmax):
    """``q(j|h)`` in proportion to ``prior_j k(h, w_j)`` for a kernel ``k(h, w) = f(h) . f(w)``.

    The kernels use rows minus their mean under the prior: subtracting the same vector from all rows
    does not change a softmax, but it does change a kernel. If the model is confident, most scores
    are far below 0, and a square would draw those classes as often as the few far above.

    The mass of all classes below a node is then one product, of ``f(h)`` with the sum of their
    features. So a draw descends from the top of the tree to a leaf and visits the children of one
    node per level (Blanc & Rendle 2018, section 3; Rawat et al. 2019, section 3.2). A binary tree
    would take log2 V small steps. Here one product scores about a thousand nodes at the top for all
    tokens; one level below it suffices for 10^5 classes, two for 10^7. The prior is the model's
    bias, which both papers lack: see :meth:`ProposalSoftmax._log_prior`.

    Args:
        leaf_width: D, how many numbers the snapshot holds per class.
        node_width: D', how many numbers it holds per node.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        leaf_width: int,
        node_width: int,
        num_samples: int,
        refresh: int,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(
            in_features, num_classes, num_samples=num_samples, refresh=refresh, **common
        )
        self.leaf_width, self.node_width = leaf_width, node_width
        below = max(1.0, num_classes / _TOP)
        depth = max(1, math.ceil(math.log(below, _MOST_BRANCH)))
        self.branch = max(_LEAST_BRANCH, math.ceil(below ** (1 / depth)))
        parents = math.ceil(num_classes / self.branch**depth)
        self._keep("_node_0", (parents, node_width))
        self._keep("_prior_0", (parents,))
        for level in range(1, depth + 1):
            width = leaf_width if level == depth else node_width
            self._keep(f"_node_{level}", (parents, self.branch, width))
            self._keep(f"_prior_{level}", (parents, self.branch))
            parents *= self.branch
        self.depth = depth

    @abstractmethod
    def _leaves(self, rows: Tensor, prior: Tensor) -> Tensor:
        """Leaves (V, D) of centred rows (V, H) and their prior (V, 1)."""

    @abstractmethod
    def _queries(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The factors that multiply nodes (N, D') and leaves (N, D)."""

    @abstractmethod
    def _sums(self, leaves: Tensor) -> Tensor:
        """Summed features (P, D') of leaves (P, B, D)."""

    @abstractmethod
    def _masses(self, products: Tensor, prior: Tensor, *, leaf: bool) -> Tensor:
        """Masses of nodes or leaves from their products, which may be overwritten, and priors."""

    def _level(self, level: int) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"_node_{level}"), self.get_buffer(f"_prior_{level}")

    def _snapshot(self, rows: Tensor) -> None:
        nodes, priors = self._level(self.depth)
        prior = self._log_prior().exp().to(rows.dtype)
        # Leaves beyond the last class have no prior, and hence no mass.
        centred = rows - prior @ rows
        nodes.view(-1, self.leaf_width)[: self.num_classes] = self._leaves(centred, prior[:, None])
        priors.view(-1)[: self.num_classes] = prior
        sums = self._sums(nodes)
        for level in range(self.depth - 1, -1, -1):
            above, prior_above = self._level(level)
            above.copy_(sums.view_as(above))
            prior_above.copy_(priors.sum(1).view_as(prior_above))
            sums, priors = above.sum(-2), prior_above

    def _propose(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        to_nodes, to_leaves = self._queries(hidden)
        nodes, prior = self._level(0)
        masses = self._masses(to_nodes @ nodes.t(), prior, leaf=False)
        # A path is followed for each draw, and for the target as if it had been drawn.
        below = self.branch**self.depth
        columns, total = draw_columns(masses, self.num_samples)
        path = torch.cat([(target // below)[:, None], columns], 1)
        log_q = log_share(masses, total, path).to(masses.dtype)
        tokens = hidden.shape[0]
        token = torch.arange(tokens, device=hidden.device)[:, None]
        for level in range(1, self.depth + 1):
            # Many draws of a token meet at a node, whose children are looked at once for them all.
            visits = path * tokens + token
            pair, _ = tally(visits.flatten())
            which = torch.searchsorted(pair, visits)
            node, of_token = pair // tokens, pair % tokens
            leaf = level == self.depth
            query = (to_leaves if leaf else to_nodes).index_select(0, of_token)
            nodes, prior = self._level(level)
            products = block_scores(query, nodes, node)
            masses = self._masses(products, prior.index_select(0, node), leaf=leaf)
            # With at most 128 children, float32 is as good for their sums as for their masses.
            running = masses.cumsum(1)
            total = running[:, -1].index_select(0, which.flatten()).view_as(which)
            # Rounding must not reach beyond the last child with mass.
            point = torch.minimum(
                torch.rand_like(total) * total, total.nextafter(total.new_zeros(()))
            )
            column = first_beyond(running, which, point)
            below //= self.branch
            column[:, 0] = target // below % self.branch
            drawn = masses.flatten()[which * self.branch + column]
            log_q = log_q + torch.log(drawn / total)
            path = path * self.branch + column
        return path[:, 1:].clamp(max=self.num_classes - 1), log_q[:, 1:], log_q[:, 0]

    def _proposal_flops(self, num_tokens: int) -> float:
        draws = num_tokens * (self.num_samples + 1) * self.branch
        inner = len(self.get_buffer("_node_0")) * num_tokens + draws * (self.depth - 1)
        snapshot = self.num_classes * (self.in_features + self.node_width) * self.leaf_width
        return 2.0 * (inner * self.node_width + draws * self.leaf_width + snapshot / self.refresh)


def first_beyond(running: Tensor, row: Tensor, point: Tensor) -> Tensor:
    """First column above ``point`` in the given rows of ``running`` (R, B), which are ascending.

    It is the last column if there is none. This bisects the rows, because torch's search needs a
    copy of the row for each point, or one long list of all.
    """
    flat, left = running.flatten(), running.shape[1]
    first = row * left
    at = first
    while left > 1:
        half = left // 2
        at = at + half * (flat[at + (half - 1)] <= point)
        left -= half
    return at - first
