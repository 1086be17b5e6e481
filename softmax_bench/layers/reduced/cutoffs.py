"""Where adaptive softmax should cut the classes, to minimise the modelled time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MAX_TAILS = 4
HEAD_SHARE = 0.85
"""Least share of all tokens whose class is in the head. Minimising time alone would make the head
much smaller, at a price in likelihood that the model does not see, because only the head has full
width. Published cut-offs give 0.8 to 0.9 to the head: 2000 classes on Penn Treebank.
"""
LEAST_WIDTH = 12
"""Least width of every tail but the first; narrower ones save no more time and learn little."""
_TOKENS = 1024
"""Tokens per step that the model assumes, among which fixed costs are divided."""
_FLOP_PER_SCORE = 250.0
"""Cost of a score's exponential, sums and traffic, in operations of a product."""
_FLOP_PER_PARAMETER = 30.0
"""Cost per parameter: a weight is read and its gradient written once per step, for any number of
tokens.
"""
_FLOP_PER_TAIL = 3e7
"""Cost of one more tail: starting its operations takes some hundred microseconds."""


def choose_cutoffs(
    shares: npt.NDArray[np.float64], in_features: int, div_value: float
) -> list[int]:
    """Cut-offs that minimise the modelled cost of a training step, for tails that can learn.

    For each part, the model counts products and scores of the tokens that reach it, the traffic of
    its weights, and a constant. The head covers at least :data:`HEAD_SHARE` of the tokens. Dynamic
    programming finds the exact optimum on a logarithmic grid of cut-offs. If there is no cut-off,
    one full softmax is cheapest.

    Args:
        shares: (V,) relative frequencies, in descending order.
        in_features: Width H of the hidden state.
        div_value: Factor between the widths of one tail and the next.
    """
    num_classes = shares.shape[0]
    grid = np.unique(np.geomspace(1, num_classes, 160).round().astype(int))
    mass = np.concatenate([[0.0], np.cumsum(shares)])[grid]

    def part(size: npt.ArrayLike, width: int, share: npt.ArrayLike) -> npt.NDArray[np.float64]:
        size, share = np.asarray(size, dtype=float), np.asarray(share)
        per_token = share * size * (6.0 * width + _FLOP_PER_SCORE)
        return per_token * _TOKENS + size * width * _FLOP_PER_PARAMETER

    # best[j]: least cost of everything up to class grid[j], with one more tail in each round.
    best = np.where(mass >= min(HEAD_SHARE, mass[-1]), part(grid, in_features, 1.0), np.inf)
    least, answer = best[-1], []
    cuts: list[list[int]] = [[] for _ in grid]
    for tail in range(MAX_TAILS):
        width = max(1, int(in_features // div_value ** (tail + 1)))
        if tail and width < LEAST_WIDTH:
            break
        size, share = grid[None, :] - grid[:, None], mass[None, :] - mass[:, None]
        added = part(size, width, share) + _FLOP_PER_TAIL
        added += 6.0 * _TOKENS * width * in_features * share
        total = np.where(size > 0, best[:, None] + added, np.inf)
        before = total.argmin(0)
        best = total.min(0)
        cuts = [[*cuts[i], int(grid[i])] for i in before]
        if best[-1] < least:
            least, answer = best[-1], cuts[-1]
    return answer
