"""Vectors of words from their neighbours in a text, for trees that group similar words."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from softmax_bench.errors import SoftmaxBenchError


def neighbour_vectors(
    words: npt.NDArray[np.integer], num_classes: int, *, dimensions: int = 100
) -> npt.NDArray[np.float32]:
    """Directions (V, D) that are close for words with similar left and right neighbours.

    These are the largest singular vectors of the positive pointwise mutual information between each
    word and the words before and after it (Levy & Goldberg 2014). This takes seconds for a million
    tokens.

    Args:
        words: The training text as class ids.
        num_classes: V.
        dimensions: D.

    Raises:
        SoftmaxBenchError: scikit-learn is not installed.
    """
    try:
        from scipy.sparse import coo_matrix, hstack
        from sklearn.decomposition import TruncatedSVD
    except ImportError:
        raise SoftmaxBenchError(
            "neighbour_vectors needs scikit-learn: pip install 'softmax-bench[trees]'"
        ) from None
    pairs = coo_matrix(
        (np.ones(len(words) - 1), (words[:-1], words[1:])), shape=(num_classes, num_classes)
    ).tocsr()
    before, after = np.asarray(pairs.sum(1)).ravel(), np.asarray(pairs.sum(0)).ravel()
    pairs = pairs.tocoo()
    information = np.log(pairs.data * pairs.data.sum() / (before[pairs.row] * after[pairs.col]))
    right = coo_matrix((information.clip(min=0), (pairs.row, pairs.col)), shape=pairs.shape)
    both = hstack([right, right.T]).tocsr()
    vectors = TruncatedSVD(min(dimensions, num_classes - 1), random_state=0).fit_transform(both)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-9), dtype=np.float32)
