# SPDX-License-Identifier: BSD-3-Clause
"""Artificial data."""

from __future__ import annotations

import numpy as np

from trulysparse import _kernels
from trulysparse.data.dataset import Dataset
from trulysparse.data.split import check_fraction
from trulysparse.errors import ConfigError


def make_classification(
    *,
    n_samples: int = 2600,
    n_features: int = 500,
    n_informative: int = 5,
    n_redundant: int = 15,
    n_classes: int = 2,
    n_clusters_per_class: int = 16,
    class_sep: float = 1.0,
    flip_y: float = 0.01,
    test_fraction: float = 600 / 2600,
    seed: int = 0,
) -> Dataset:
    """Draw a classification problem in the manner of Madelon: few useful features among many noisy ones.

    Clusters sit on the corners of a hypercube in the informative features and are given to classes at random;
    redundant features are random combinations of informative ones, all others are noise, and the columns are
    shuffled. The defaults have Madelon's shape (2000 training and 600 test samples, 5 + 15 useful features of
    500, 16 clusters a class). Guyon 2003, "Design of experiments for the NIPS 2003 variable selection
    benchmark"; drawn by :func:`sklearn.datasets.make_classification`.

    Parameters
    ----------
    n_samples, n_features : int
        Samples of both parts together; features.
    n_informative, n_redundant : int
        Features that span the hypercube, and combinations of them.
    n_classes, n_clusters_per_class : int
        Their product is at most 2 ** n_informative.
    class_sep : float
        Half the side of the hypercube: larger is easier.
    flip_y : float
        Share of samples with a random label.
    test_fraction : float
        Share of the test part, in (0, 1).
    seed : int
        Seed of everything. Numbers are scikit-learn's, so that another version of it may draw others.

    Returns
    -------
    Dataset
        float32 features, int64 labels.

    Raises
    ------
    ConfigError
        If the numbers do not fit together.
    """
    from sklearn import datasets

    check_fraction(test_fraction, "test_fraction")
    n_test = round(test_fraction * n_samples)
    if not 0 < n_test < n_samples:
        raise ConfigError(
            f"make_classification: test_fraction={test_fraction!r} of n_samples={n_samples!r} leaves one "
            "part without samples"
        )
    try:
        X, y = datasets.make_classification(
            n_samples=n_samples,
            n_features=n_features,
            n_informative=n_informative,
            n_redundant=n_redundant,
            n_classes=n_classes,
            n_clusters_per_class=n_clusters_per_class,
            class_sep=class_sep,
            flip_y=flip_y,
            random_state=int(_kernels.philox(seed, "data", 0, 0, 0)[0]),
        )
    except ValueError as error:
        raise ConfigError(f"make_classification: {error}") from error
    X, y = X.astype(np.float32), y.astype(np.int64)
    n_train = n_samples - n_test
    return Dataset("make_classification", X[:n_train], y[:n_train], X[n_train:], y[n_train:], "classification")
