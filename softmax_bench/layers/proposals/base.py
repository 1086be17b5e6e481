"""Sampled softmax whose proposal follows the model: what such layers share.

A proposal that knows the hidden state draws for each token the classes that matter there, so few
samples do what a fixed distribution needs many for (Bengio & Senecal 2008; Blanc & Rendle 2018).
It draws from a *snapshot* of the rows, renewed from time to time: the correction uses the
probabilities of the draw itself, so a snapshot that is out of date costs variance, not bias.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self, Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from softmax_bench.classes.noise import expected_distinct
from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers.base import CommonOptions, Cost, unigram
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.ops import (
    Footprint,
    block_scores,
    block_scores_bytes,
    pair_footprint,
    pair_scores,
)

_MASSES_AT_ONCE = 2**23


class ProposalSoftmax(LinearOutputLayer):
    """``log(exp(s_t) + sum over draws j != t of exp(s_j) / (m q(j|h))) - s_t``, m draws a token.

    The sum estimates what the other classes contribute to Z without bias, whatever q.

    Args:
        num_samples: Draws m a token.
        refresh: Training steps between snapshots of the rows.
    """

    touches_all_rows = False
    exact = False
    normalised = "no"

    _steps: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int,
        refresh: int,
        **common: Unpack[CommonOptions],
    ) -> None:
        for what, value in (("num_samples", num_samples), ("refresh", refresh)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SoftmaxBenchError(f"{what} must be a positive whole number, not {value!r}")
        super().__init__(in_features, num_classes, **common)
        self.num_samples = num_samples
        self.refresh = refresh
        self._remember("_steps")
        self._restart()

    def _remember(self, *names: str) -> None:
        """Name the tensors that last from step to step; see :class:`OutputLayer`."""
        for name in names:
            self.register_buffer(name, None, persistent=False)

    def _restart(self) -> None:
        self._steps = torch.zeros((), dtype=torch.int64, device="cpu")  # read at every step

    @abstractmethod
    def _snapshot(self) -> None:
        """Take what the proposal needs from the rows as they are, into buffers."""

    @abstractmethod
    def _propose(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Classes (N, m) drawn with replacement, and the log-probability of each draw (N, m)."""

    @torch.no_grad()
    def propose(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Draws and their log-probabilities, from a snapshot not older than ``refresh`` steps."""
        # Probabilities in the parameters' type also under autocast: they correct the loss.
        with torch.autocast(hidden.device.type, enabled=False):
            if int(self._steps) % self.refresh == 0:
                self._snapshot()
            self._steps += self.training
            return self._propose(hidden.detach().to(self.weight.dtype))

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        super()._apply(*args, **kwargs)
        self._restart()  # probabilities that were moved to another type are not exact
        return self

    def _losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        drawn, log_q = self.propose(hidden)
        rows = torch.cat([target.unsqueeze(1), drawn], 1)
        tokens, width = rows.shape
        starts = torch.arange(tokens + 1, device=hidden.device) * width
        scores = pair_scores(hidden, self.weight, self.bias, starts, rows.view(-1))
        scores = scores.view(tokens, width)
        noise = scores[:, 1:] - (log_q + math.log(self.num_samples)).to(scores.dtype)
        noise = noise.masked_fill(drawn == target.unsqueeze(1), -math.inf)
        log_z = torch.logaddexp(scores[:, 0], noise.logsumexp(1))
        return log_z - scores[:, 0]

    def _proposal_flops(self, num_tokens: int) -> float:
        """Of drawing, the snapshot's share of a step included."""
        raise NotImplementedError

    def cost(self, num_tokens: int) -> Cost:
        """The proposal, and three products over the draws."""
        width, size = self.in_features, self.weight.element_size()
        pairs = num_tokens * (self.num_samples + 1)
        rows = min(self.num_classes, pairs)
        held = self._footprint(num_tokens)
        return Cost(
            flops=6.0 * pairs * width + self._proposal_flops(num_tokens),
            bytes=size * (3.0 * rows * width + 2.0 * num_tokens * width),
            parameters=sum(p.numel() for p in self.parameters()),
            rows_touched=rows,
            gradients=held.gradients,
            activations=held.activations,
        )

    def _drawing_bytes(self, num_tokens: int) -> int:
        """Most held while drawing; a snapshot, which few steps take, is not counted."""
        raise NotImplementedError

    def _drawn_shares(self) -> npt.NDArray[np.float64]:
        """How often each class is drawn, nearly, by a model that has not learned much."""
        return unigram(None, self.num_classes)

    def _footprint(self, num_tokens: int) -> Footprint:
        pairs = num_tokens * (self.num_samples + 1)
        shares = unigram(self._counts, self.num_classes)
        drawn = self._drawn_shares(), pairs - num_tokens
        rows = expected_distinct(drawn, (shares, num_tokens))
        width, size, bias = self.in_features, self.weight.element_size(), self.bias is not None
        held = pair_footprint(num_tokens, pairs, rows, width, size, bias=bias)
        return replace(held, forward=max(held.forward, self._drawing_bytes(num_tokens)))


class BlockSums(nn.Module):
    """Draws classes in two steps: a block of about sqrt(V) classes, then a class of the block.

    Exact for every proposal whose mass over a block costs no more than that of a class.
    """

    vectors: Tensor
    """(C, B, D), filled up with zeros."""
    used: Tensor
    """(C,) how many of a block's classes there are."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.block = math.isqrt(num_classes - 1) + 1
        blocks = math.ceil(num_classes / self.block)
        used = torch.full((blocks,), self.block)
        used[-1] = num_classes - (blocks - 1) * self.block
        self.register_buffer("used", used, persistent=False)
        self.register_buffer("vectors", None, persistent=False)

    def fill(self, vectors: Tensor) -> None:
        """Take the vectors (V, D) of all classes."""
        width = vectors.shape[1]
        padded = vectors.new_zeros(self.used.shape[0] * self.block, width)
        padded[: self.num_classes] = vectors
        self.vectors = padded.view(-1, self.block, width)

    def draw(
        self,
        masses_of_blocks: Tensor,
        vectors: Tensor,
        num_samples: int,
        masses_of_members: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Draw for each token.

        Args:
            masses_of_blocks: (N, C), positive.
            vectors: (N, D) what the blocks' vectors are multiplied with.
            num_samples: m draws a token.
            masses_of_members: From products (M, B) of a token with a block's vectors to masses.

        Returns:
            Classes and log-probabilities, (N, m).
        """
        tokens = masses_of_blocks.shape[0]
        block, log_block = draw_columns(masses_of_blocks, num_samples)
        column = torch.arange(self.block, device=block.device)
        classes, log_member = [], []
        for start in range(0, tokens, max(1, _MASSES_AT_ONCE // (self.block * num_samples))):
            stop = start + max(1, _MASSES_AT_ONCE // (self.block * num_samples))
            blocks = block[start:stop].reshape(-1)
            some = vectors[start:stop].repeat_interleave(num_samples, 0)
            masses = masses_of_members(block_scores(some, self.vectors, None, blocks))
            masses = masses.masked_fill(column >= self.used[blocks].unsqueeze(1), 0.0)
            member, log_p = draw_columns(masses, 1)
            classes.append((blocks * self.block + member[:, 0]).clamp_(max=self.num_classes - 1))
            log_member.append(log_p[:, 0])
        if not classes:
            return block, log_block
        return torch.cat(classes).view_as(block), log_block + torch.cat(log_member).view_as(block)

    def drawing_bytes(
        self, num_tokens: int, num_samples: int, width: int, size: int, *, products: int
    ) -> int:
        """Most that :meth:`draw` holds at once with vectors of so many numbers of so many bytes.

        Args:
            num_tokens: N.
            num_samples: m.
            width: D.
            size: Bytes of a number.
            products: Tensors of the products' size on the way from them to masses.
        """
        tokens = min(num_tokens, max(1, _MASSES_AT_ONCE // (self.block * num_samples)))
        rows = tokens * num_samples
        scoring = block_scores_bytes(rows, self.block, width, size)
        drawing = draw_columns_bytes(rows, self.block, 1, size)
        of_blocks = num_tokens * num_samples * (8 + size)
        weighing = products * rows * self.block * size
        return of_blocks + rows * width * size + max(scoring, weighing, drawing)


def draw_columns(masses: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
    """``num_samples`` columns a row in proportion to masses (R, C), and their log-probabilities."""
    running = masses.double().cumsum(1)
    total = running[:, -1:].contiguous()
    u = torch.rand(masses.shape[0], num_samples, dtype=torch.float64, device=masses.device)
    column = torch.searchsorted(running, u * total, right=True)
    # Rounding may pass the last column that has mass: the first that holds the whole sum. And
    # masses that are not a number must not lead outside: the loss will tell of them.
    last = torch.searchsorted(running, total)
    column = torch.minimum(column, last).clamp_(max=masses.shape[1] - 1)
    return column, torch.log(masses.double().gather(1, column) / total).to(masses.dtype)


def draw_columns_bytes(rows: int, columns: int, num_samples: int, size: int) -> int:
    """Most that :func:`draw_columns` holds, with the masses of so many bytes a number.

    Running sums, masses in float64 where they are not; and four numbers a draw.
    """
    return rows * columns * (size + 8 + 8 * (size < 8)) + rows * num_samples * 4 * 8
