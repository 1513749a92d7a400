"""Rows of X as the network sees them, and what is known of the columns of X.

Dense arrays, memory maps and CSR matrices all go through the same two functions: a
batch of rows is gathered, made dense and standardized in one buffer. Nothing of the
size of X is ever allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse

from skae.layout import Array

__all__ = ["Columns", "Rows", "arrange", "geometric_median", "rows_in_block"]

#: Rows that are looked at together, and the entries that they may have.
MOST_ROWS, MOST_ENTRIES = 1024, 2**21

#: Entries that are looked at together when X is read, in double precision.
MOST_READ = 2**17


def gather(X: Any, index: Any, out: Array) -> None:
    """Write the rows `index`, an array or a range, of a dense or CSR matrix."""
    consecutive = isinstance(index, range)
    place = slice(index.start, index.stop, index.step) if consecutive else index
    if sparse.issparse(X):
        X[place].toarray(out=out)
    elif consecutive:
        out[...] = X[place]
    else:
        np.take(X, index, axis=0, out=out, mode="clip")


def rows_in_block(n_columns: int, most: int = MOST_ROWS) -> int:
    """Return how many rows to make dense at once, so that wide ones stay affordable."""
    return max(1, min(most, MOST_ROWS, MOST_ENTRIES // n_columns))


def blocks(X: Any, index: Any) -> Iterator[tuple[Any, Array]]:
    """Yield consecutive parts of `index` and the rows of X there, in one buffer."""
    size = min(rows_in_block(X.shape[1], most=MOST_READ // X.shape[1]), len(index))
    buffer = np.empty((size, X.shape[1]), X.dtype)
    for start in range(0, len(index), size or 1):
        part = index[start : start + size]
        gather(X, part, buffer[: len(part)])
        yield part, buffer[: len(part)]


def arrange(
    X: Any,
    weight: Array | None = None,
    merge: bool = False,
    keep_order: bool = False,
    labels: Array | None = None,
) -> tuple[Array, Array | None]:
    """Put the rows of positive weight into an order that only their content decides.

    Parameters
    ----------
    X : ndarray or CSR matrix of shape (n_samples, n_features)
        The data.
    weight : ndarray of shape (n_samples,) or None
        Weights of the rows; None if all are one.
    merge : bool
        Whether one row stands for all rows that equal it, with their weights added. A
        row of weight two and a row given twice are then the same.
    keep_order : bool
        Whether the rows stay in the order of X.
    labels : ndarray of shape (n_samples, n_labels) or None
        Further content of the rows. It decides the order of equal rows only.

    Returns
    -------
    index : ndarray of shape (n_rows,)
        Places of the rows in X. It changes neither if X is shuffled nor if a column is
        shifted or multiplied by a positive number.
    weight : ndarray of shape (n_samples,) or None
        Weights, at the places in `index`.
    """
    rows = np.arange(X.shape[0]) if weight is None else np.flatnonzero(weight)
    if keep_order and not merge:
        return rows, weight
    parts = [X] if labels is None else [labels, X]
    keys = [row_keys(part, rows) for part in parts]
    order = np.lexsort(keys if weight is None else (weight[rows], *keys))
    rows = order if weight is None else rows[order]
    if merge:
        first = distinct(parts, [key[order] for key in keys], rows)
        rows, weight = rows[first], merged(weight, rows, first, X.shape[0])
    return (np.sort(rows) if keep_order else rows), weight


def distinct(parts: list[Any], keys: list[Array], rows: Array) -> Array:
    """Return which rows are not equal to the ones before them; rows in key order."""
    first = np.ones(len(rows), dtype=bool)
    first[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    # Rows that are not equal hardly ever share a key; if they do, they stay apart.
    same = np.flatnonzero(~first)
    pairs = rows[same - 1], rows[same]
    first[same] = ~np.all([equal_rows(part, *pairs) for part in parts], axis=0)
    return first


def merged(
    weight: Array | None, rows: Array, first: Array, n_rows: int
) -> Array | None:
    """Return the weights of the first of equal rows, which take those of the others."""
    if weight is None and first.all():
        return None
    given = np.ones(len(rows)) if weight is None else weight[rows]
    added = np.zeros(n_rows, given.dtype)
    added[rows[first]] = np.add.reduceat(given, np.flatnonzero(first))
    return added


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
        keys, start = np.empty(len(index)), 0
        for part, block in blocks(X, index):
            scaled = (block - low).astype(np.float64) * direction
            scaled.sum(axis=1, out=keys[start : start + len(part)])
            start += len(part)
    return keys


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
        Number of rows.
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
        with np.errstate(over="ignore", invalid="ignore"):
            for index, block in blocks(rows.X, rows.index):
                given = rows.weight
                weight = np.ones(len(index)) if given is None else given[index]
                columns.update(block.astype(np.float64), weight)
        return columns

    def update(self, x: Array, weight: Array) -> None:
        """Add rows, by the pairwise formula of Chan, Golub & LeVeque (1983)."""
        mean = np.average(x, axis=0, weights=weight)
        variance = np.average(np.square(x - mean), axis=0, weights=weight)
        low, high = x.min(axis=0), x.max(axis=0)
        total = float(weight.sum())
        self.merge(Columns(len(x), total, mean, variance, low, high, self.eps))

    def merge(self, other: Columns) -> None:
        """Add the rows that `other` summarises."""
        total = self.weight + other.weight
        new = other.weight / total
        with np.errstate(over="ignore", invalid="ignore"):
            step = other.mean - self.mean
            self.mean = self.mean + new * step
            within = (1 - new) * self.variance + new * other.variance
            self.variance = within + new * (1 - new) * np.square(step)
        self.low = np.minimum(self.low, other.low)
        self.high = np.maximum(self.high, other.high)
        self.n_rows += other.n_rows
        self.weight = total

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
        Which rows of X, in which order; None for all, which take no memory.
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
        self.index: Any = range(X.shape[0]) if index is None else index
        #: The weight of a row, on average.
        self.mean_weight = 1.0
        if weight is not None:
            self.mean_weight = float(weight[self.index].mean())
        self.center = None if center is None else center.astype(X.dtype)
        self.unit = None if unit is None else unit.astype(X.dtype)

    def __len__(self) -> int:
        return len(self.index)

    def cut(self, place: slice) -> Rows:
        """Return some of the rows; their weights are measured as before."""
        some = copy(self)
        some.index = self.index[place]
        return some

    def share(self, place: slice) -> Rows:
        """Return what loads this place in a batch, whatever others do meanwhile."""
        return self

    def summed(self, work: Callable[[Rows], Any]) -> Any:
        """Return what `work` finds for these rows.

        Where rows are kept in several places, it is done in each of them, and what it
        finds is added up: it has to be a sum over rows, and to survive pickling.
        """
        return work(self)

    def columns(self) -> Columns:
        """Summarise the rows, in the units of X."""
        return Columns.of(self)

    def load(self, index: Array, x: Array, weight: Array, total: float) -> None:
        """Write the rows to `x`, and their weights divided by `total` to `weight`."""
        gather(self.X, index, x)
        self.standardize(x)
        if self.weight is None:
            weight.fill(1.0 / total)
        else:
            np.divide(self.weight[index], total, out=weight, casting="same_kind")

    def load_target(self, index: Array, target: Array) -> None:
        """Write what is to be explained; here the rows, which `load` has written."""
        return

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


def rows_of(X: Any, *args: Any) -> Rows:
    """Return rows of X; one that is no matrix says itself what its rows are."""
    rows: Rows = getattr(X, "as_rows", partial(Rows, X))(*args)
    return rows


#: Rows from which a geometric median is found, and the steps towards it.
MEDIAN_ROWS, MEDIAN_STEPS = 4096, 100


def geometric_median(rows: Rows) -> Array:
    """Return the point with the smallest mean distance from the rows, by Weiszfeld.

    Of very many rows, evenly spaced ones are looked at.
    """
    step = -(-len(rows) // MEDIAN_ROWS)
    index = rows.index[::step]
    x = np.empty((len(index), rows.X.shape[1]), rows.X.dtype)
    weight = np.empty(len(index))
    rows.load(index, x, weight, rows.mean_weight)
    x = x.astype(np.float64)
    point = np.average(x, axis=0, weights=weight)
    for _ in range(MEDIAN_STEPS):
        distance = np.linalg.norm(x - point, axis=1)
        if not distance.any():
            break
        near, before = 1e-9 * distance.max(), point
        point = np.average(x, axis=0, weights=weight / np.maximum(distance, near))
        if np.linalg.norm(point - before) <= 1e-9 * distance.max():
            break
    return point
