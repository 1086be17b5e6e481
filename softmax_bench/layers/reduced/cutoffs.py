"""Where adaptive softmax should cut the classes: the least modelled time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MAX_TAILS = 4
HEAD_SHARE = 0.85
"""Of all tokens, at least so many have their class in the head. Time alone would make it much
smaller, at a price in likelihood that the model does not see: only the head has full width.
Published cut-offs leave 0.8 to 0.9 to the head: 2000 classes on Penn Treebank."""
LEAST_WIDTH = 12
"""Of every tail but the first: narrower ones save no more time and learn little."""
_TOKENS = 1024
"""Tokens a step that the model assumes: fixed costs are divided among them."""
_FLOP_PER_SCORE = 250.0
"""What an exponential, its sums and its traffic cost beside the products, in flop of a product."""
_FLOP_PER_PARAMETER = 30.0
"""A weight is read and its gradient written once a step, whatever the number of tokens."""
_FLOP_PER_TAIL = 3e7
"""Starting the operations of one more tail takes some hundred microseconds."""


def choose_cutoffs(
    shares: npt.NDArray[np.float64], in_features: int, div_value: float
) -> list[int]:
    """Cut-offs of least modelled cost of a training step, for tails that can learn.

    The model counts, for each part, products and scores of the tokens that reach it, the traffic
    of its weights, and a constant. The head covers at least :data:`HEAD_SHARE` of the tokens.
    Cut-offs are searched on a logarithmic grid by dynamic programming, exactly on the grid. No
    cut-off means that one full softmax is cheapest.

    Args:
        shares: (V,) relative frequencies, falling.
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

    # best[j]: least cost of everything up to the class grid[j], with one more tail each round.
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
