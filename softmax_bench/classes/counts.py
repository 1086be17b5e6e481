"""How often each class occurs in the training data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from softmax_bench.errors import SoftmaxBenchError


def check_counts(counts: npt.ArrayLike, num_classes: int | None = None) -> npt.NDArray[np.float64]:
    """Check class counts, and return them as float64.

    Raises:
        SoftmaxBenchError: They are not one finite, non-negative number per class.
    """
    try:
        array = np.asarray(counts, dtype=np.float64)
    except (TypeError, ValueError):
        raise SoftmaxBenchError(
            f"class_counts must be an array of one count per class, not {type(counts).__name__}"
        ) from None
    if array.ndim != 1 or (num_classes is not None and array.shape[0] != num_classes):
        expected = "V" if num_classes is None else num_classes
        raise SoftmaxBenchError(
            f"class_counts must have shape ({expected},), one count per class, not {array.shape}"
        )
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if bad.size:
        raise SoftmaxBenchError(
            f"class_counts must be finite and not negative: class {bad[0]} has {array[bad[0]]}"
            + (f", and {bad.size - 1} more are wrong" if bad.size > 1 else "")
        )
    return array


def positive_counts(counts: npt.ArrayLike | None, num_classes: int) -> npt.NDArray[np.float64]:
    """Counts in which a class that never occurs counts as occurring once, so none is impossible.

    If counts are below 1, as relative frequencies are, it counts as much as the rarest class.
    Without counts, all classes are equally frequent.
    """
    if counts is None:
        return np.ones(num_classes)
    checked = check_counts(counts, num_classes)
    return np.where(checked > 0, checked, checked.min(initial=1.0, where=checked > 0))


def unigram(counts: npt.NDArray[np.float64] | None, num_classes: int) -> npt.NDArray[np.float64]:
    """Relative frequency of each class (V,); a class that never occurs counts as occurring once."""
    positive = positive_counts(counts, num_classes)
    return positive / positive.sum()
