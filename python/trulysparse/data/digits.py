# SPDX-License-Identifier: BSD-3-Clause
"""The data set that needs no files and no network."""

from __future__ import annotations

import numpy as np

from trulysparse import _kernels
from trulysparse.data.dataset import Dataset
from trulysparse.data.split import check_fraction


def load_digits(*, test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """Return scikit-learn's embedded handwritten digits: 1797 images of 8 x 8 pixels, 10 classes.

    Parameters
    ----------
    test_fraction : float
        Share of each class that goes into the test part, in (0, 1).
    seed : int
        Chooses which samples; the default split is the one that documentation and tests quote.

    Returns
    -------
    Dataset
        uint8 features (pixel sums 0 to 16), int64 labels; both parts keep the original order.
    """
    from sklearn import datasets

    check_fraction(test_fraction, "test_fraction")
    source = datasets.load_digits()
    X, y = source.data.astype(np.uint8), source.target.astype(np.int64)
    order = _kernels.shuffle(y.size, seed=seed, purpose="split", layer=1)
    test = np.zeros(y.size, dtype=bool)
    for label in np.unique(y):
        members = order[y[order] == label]
        test[members[: round(test_fraction * members.size)]] = True
    return Dataset("digits", X[~test], y[~test], X[test], y[test])
