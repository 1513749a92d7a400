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

__all__ = ["Columns", "Rows", "dense_blocks"]

#: Rows that are looked at together when X is read from one end to the other.
BLOCK = 1024


def gather(X: Any, index: Array, out: Array) -> None:
    """Write the rows `index` of a dense or CSR matrix to `out`."""
    if sparse.issparse(X):
        X[index].toarray(out=out)
    else:
        np.take(X, index, axis=0, out=out, mode="clip")


def dense_blocks(X: Any) -> Iterator[Array]:
    """Yield consecutive blocks of rows of X as dense arrays."""
    for start in range(0, X.shape[0], BLOCK):
        block = X[start : start + BLOCK]
        yield block.toarray() if sparse.issparse(block) else block


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
    def of(cls, X: Any, sample_weight: Array | None = None) -> Columns:
        """Summarise X block by block; rows of weight zero do not count."""
        d = X.shape[1]
        low, high = np.full(d, np.inf), np.full(d, -np.inf)
        eps = float(np.finfo(X.dtype).eps)
        columns = cls(0, 0.0, np.zeros(d), np.zeros(d), low, high, eps)
        start = 0
        for block in dense_blocks(X):
            weight = np.ones(len(block))
            if sample_weight is not None:
                weight = sample_weight[start : start + len(block)].astype(np.float64)
            start += len(block)
            columns.update(block[weight > 0].astype(np.float64), weight[weight > 0])
        return columns

    def update(self, x: Array, weight: Array) -> None:
        """Add rows, by the pairwise formula of Chan, Golub & LeVeque (1983)."""
        if len(x) == 0:
            return
        mean = np.average(x, axis=0, weights=weight)
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
    """A matrix and its row weights, handed out in standardized batches.

    Parameters
    ----------
    X : ndarray or CSR matrix of shape (n_rows, n_features)
        The data; never modified, never copied.
    weight : ndarray of shape (n_rows,) or None
        Non-negative; rows of weight zero are never handed out.
    center, unit : ndarray of shape (n_features,) or None
        Batches hold ``(X - center) / unit``; None leaves X as it is.
    """

    def __init__(
        self,
        X: Any,
        weight: Array | None = None,
        center: Array | None = None,
        unit: Array | None = None,
    ) -> None:
        self.X, self.weight = X, weight
        self.center = None if center is None else center.astype(X.dtype)
        self.unit = None if unit is None else unit.astype(X.dtype)
        self.index = np.arange(X.shape[0])
        if weight is not None:
            self.index = np.flatnonzero(weight)

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
