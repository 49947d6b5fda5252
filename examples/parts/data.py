"""Real data from scikit-learn's own files, and mini-batches of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from parts.methods import Array


class Split(NamedTuple):
    """Examples, to train on and to test: rows of x, with their labels or targets in y."""

    x: Array
    y: Any
    test_x: Array
    test_y: Any


def read(name: str, train: int, seed: int) -> Split:
    """Shuffle a data set of `sklearn.datasets`: the first `train` to train on, others to test."""
    from sklearn import datasets

    raw = {"scaled": False} if name == "diabetes" else {}
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True, **raw)
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order], y[order]
    return Split(x[:train], y[:train], x[train:], y[train:])


def standardised(split: Split) -> Split:
    """Subtract from each input its mean, and divide by its deviation, of training examples."""
    mean, deviation = split.x.mean(axis=0), split.x.std(axis=0)
    return split._replace(x=(split.x - mean) / deviation, test_x=(split.test_x - mean) / deviation)


def with_one(x: Array) -> Array:
    """Append a column of ones, whose weight is the bias."""
    return np.column_stack([x, np.ones(len(x))])


def batches(n: int, size: int, rng: np.random.Generator) -> Iterator[Any]:
    """One epoch: n indices in a random order, `size` at a time; the last batch may be smaller."""
    order = rng.permutation(n)
    for start in range(0, n, size):
        yield order[start : start + size]
