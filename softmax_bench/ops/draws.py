"""Lists of classes that a batch shares: counting them, and filling them up."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from softmax_bench.ops.compiling import untraced
from softmax_bench.ops.cpu import draws


@untraced
def tally(classes: Int[Tensor, "n"]) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"]]:
    """Sorted classes, and how often each occurs in the list.

    On a GPU, where finding the number of distinct classes would mean waiting for the device, a
    class's repeats follow it and count 0 times.
    """
    return draws.tally(classes)


@untraced
def fill_up(
    classes: Int[Tensor, "n"], num_samples: int, num_classes: int
) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"]]:
    """The distinct ``classes`` and others drawn uniformly, ``num_samples`` in all.

    There are more if more are distinct, and all classes if there are no more than that.

    Returns:
        Classes, and 1 for each that is in the sample; on a GPU also some that are not, with 0.
    """
    return draws.fill_up(classes, num_samples, num_classes)
