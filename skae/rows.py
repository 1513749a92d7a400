"""Rows of X as the network sees them, and what is known of the columns of X.

Dense arrays, memory maps and CSR matrices all go through the same two functions: a
batch of rows is gathered, made dense and standardized in one buffer. Nothing of the
size of X is ever allocated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from skae.layout import Array

__all__ = ["Columns", "Rows", "distinct"]

#: Rows that are looked at together when X is read from one end to the other.
BLOCK = 1024


def gather(X: Any, index: Array, out: Array) -> None:
    """Write the rows `index` of a dense or CSR matrix to `out`."""
    if sparse.issparse(X):
        X[index].toarray(out=out)
    else:
        np.take(X, index, axis=0, out=out, mode="clip")


def blocks(X: Any, index: Array) -> Iterator[tuple[Array, Array]]:
    """Yield consecutive parts of `index` and the rows of X there, in one buffer."""
    buffer = np.empty((min(BLOCK, len(index)), X.shape[1]), X.dtype)
    for start in range(0, len(index), BLOCK):
        part = index[start : start + BLOCK]
        gather(X, part, buffer[: len(part)])
        yield part, buffer[: len(part)]


def distinct(
    X: Any, weight: Array | None = None, keep_order: bool = False
) -> tuple[Array, Array | None]:
    """Merge equal rows, so that a weight of two and a row given twice are the same.

    Returns
    -------
    index : ndarray of shape (n_distinct,)
        One row of each kind. Their order depends on what the rows hold, not on where
        they stand or in which units they are; with ``keep_order=True`` it is that of X.
    weight : ndarray of shape (n_rows,) or None
        Each kind's total weight stands at its row in `index`; None if all are one.
        Kinds of weight zero are left out.
    """
    rows = np.arange(X.shape[0]) if weight is None else np.flatnonzero(weight)
    keys = row_keys(X, rows)
    order = np.argsort(keys, kind="stable")
    rows, keys = rows[order], keys[order]
    first = np.append(True, keys[1:] != keys[:-1])
    # Rows that are not equal hardly ever share a key; if they do, they stay apart.
    same = np.flatnonzero(~first)
    first[same] = ~equal_rows(X, rows[same - 1], rows[same])
    index = rows[first]
    if weight is not None or len(index) < len(rows):
        given = np.ones(X.shape[0]) if weight is None else weight
        weight = np.zeros_like(given)
        weight[index] = np.add.reduceat(given[rows], np.flatnonzero(first))
    return (np.sort(index) if keep_order else index), weight


def row_keys(X: Any, index: Array) -> Array:
    """Project rows, each column scaled to [0, 1], on a fixed random direction.

    Equal rows have equal keys to the last bit; multiplying or shifting a column
    changes keys by rounding only, and so does not change their order.
    """
    low, high = np.inf, -np.inf
    for _, block in blocks(X, index):
        low = np.minimum(low, block.min(axis=0))
        high = np.maximum(high, block.max(axis=0))
    direction = np.random.default_rng(0).normal(size=X.shape[1])
    with np.errstate(all="ignore"):
        span = np.subtract(high, low, dtype=np.float64)
        direction /= np.where(span > 0, span, 1.0)
        keys = [
            ((block - low).astype(np.float64) * direction).sum(axis=1)
            for _, block in blocks(X, index)
        ]
    return np.concatenate(keys)


def equal_rows(X: Any, left: Array, right: Array) -> Array:
    """Return whether the rows at `left` equal those at `right`, pair by pair."""
    pairs = zip(blocks(X, left), blocks(X, right), strict=True)
    equal = [(a == b).all(axis=1) for (_, a), (_, b) in pairs]
    return np.concatenate([np.empty(0, dtype=bool), *equal])


@dataclass
class Columns:
    """Weighted mean, variance and range of each column, of all rows seen so far.

    Attributes
    ----------
    n_rows : int
        Rows of positive weight.
    weight : float
        Sum of their weights.
    mean, variance, low, high : ndarray of shape (n_features,), float64
        In the units of X.
    eps : float
        Relative rounding error of the data.
    """

    n_rows: int
    weight: float
    mean: Array
    variance: Array
    low: Array
    high: Array
    eps: float

    @classmethod
    def of(cls, rows: Rows) -> Columns:
        """Summarise rows block by block, in the units of X."""
        d, eps = rows.X.shape[1], float(np.finfo(rows.X.dtype).eps)
        low, high = np.full(d, np.inf), np.full(d, -np.inf)
        columns = cls(0, 0.0, np.zeros(d), np.zeros(d), low, high, eps)
        for index, block in blocks(rows.X, rows.index):
            weight = np.ones(len(index)) if rows.weight is None else rows.weight[index]
            columns.update(block.astype(np.float64), weight.astype(np.float64))
        return columns

    def update(self, x: Array, weight: Array) -> None:
        """Add rows, by the pairwise formula of Chan, Golub & LeVeque (1983)."""
        mean = np.average(x, axis=0, weights=weight)
        with np.errstate(over="ignore"):
            variance = np.average(np.square(x - mean), axis=0, weights=weight)
        low, high = x.min(axis=0), x.max(axis=0)
        total = float(weight.sum())
        self.merge(Columns(len(x), total, mean, variance, low, high, self.eps))

    def merge(self, other: Columns) -> None:
        """Add the rows that `other` summarises."""
        total = self.weight + other.weight
        new = other.weight / total
        step = other.mean - self.mean
        self.mean = self.mean + new * step
        within = (1 - new) * self.variance + new * other.variance
        self.variance = within + new * (1 - new) * np.square(step)
        self.low = np.minimum(self.low, other.low)
        self.high = np.maximum(self.high, other.high)
        self.n_rows += other.n_rows
        self.weight = total

    @property
    def size(self) -> float:
        """Number of rows for the purpose of judging precision.

        Weights count as repetitions, but weights that sum to one do not make many rows
        count as one.
        """
        return max(self.weight, float(self.n_rows))

    @property
    def constant(self) -> Array:
        """Which columns vary by no more than rounding."""
        return np.asarray(self.high - self.low <= 4 * self.eps * np.abs(self.mean))

    @property
    def unit(self) -> Array:
        """The natural unit of each column, positive.

        The standard deviation; of a constant column its absolute value, or 1 for zeros.
        Multiplying a column multiplies its unit.
        """
        size = np.where(self.mean == 0, 1.0, np.abs(self.mean))
        return np.where(self.constant, size, np.sqrt(self.variance))


class Rows:
    """Some rows of a matrix and their weights, handed out in standardized batches.

    Parameters
    ----------
    X : ndarray or CSR matrix of shape (n_samples, n_features)
        The data; never modified, never copied.
    index : ndarray of shape (n_rows,) or None
        Which rows of X, in which order; None for all.
    weight : ndarray of shape (n_samples,) or None
        Positive at the rows of `index`; None for equal weights of one.
    center, unit : ndarray of shape (n_features,) or None
        Batches hold ``(X - center) / unit``; None leaves X as it is.
    """

    def __init__(
        self,
        X: Any,
        index: Array | None = None,
        weight: Array | None = None,
        center: Array | None = None,
        unit: Array | None = None,
    ) -> None:
        self.X, self.weight = X, weight
        self.index = np.arange(X.shape[0]) if index is None else index
        self.center = None if center is None else center.astype(X.dtype)
        self.unit = None if unit is None else unit.astype(X.dtype)

    def __len__(self) -> int:
        return len(self.index)

    def total(self, index: Array) -> float:
        """Return the weight of these rows."""
        return float(len(index) if self.weight is None else self.weight[index].sum())

    def load(self, index: Array, x: Array, weight: Array, total: float) -> None:
        """Write the rows to `x`, and their weights divided by `total` to `weight`."""
        gather(self.X, index, x)
        self.standardize(x)
        if self.weight is None:
            weight.fill(1.0 / total)
        else:
            np.divide(self.weight[index], total, out=weight, casting="same_kind")

    def standardize(self, x: Array) -> None:
        """Bring rows in the units of X into those of the network, in place."""
        if self.center is not None and self.unit is not None:
            x -= self.center
            x /= self.unit

    def restore(self, x: Array) -> None:
        """Undo `standardize`, in place."""
        if self.center is not None and self.unit is not None:
            x *= self.unit
            x += self.center
