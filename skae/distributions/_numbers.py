"""What the formulas of several distributions need."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from skae.activations import log1p
from skae.component import Range
from skae.layout import Array

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
LOG_TWO = math.log(2.0)
TINY = float(np.finfo(np.float64).tiny)

#: Logs of the lowest and highest shape, size or precision that are ever learned.
EXTREMES = (math.log(1e-3), math.log(1e6))


def halves(a: Array) -> tuple[Array, Array]:
    """Return views of the two blocks of a family with two outputs."""
    n_features = a.shape[-1] // 2
    return a[..., :n_features], a[..., n_features:]


def spread(variance: Array) -> Array:
    """Return the standard deviation, or one for a constant column."""
    return np.asarray(np.sqrt(np.where(variance > 0, variance, 1.0)))


def above_zero(mean: Array, n_rows: float) -> Array:
    """Return the mean; where it is zero, that of half an event in all rows."""
    return np.where(mean > 0, mean, 0.5 / n_rows)


def within(mean: Array, n_rows: float) -> Array:
    """Return the mean after half a row of zeros and half a row of ones."""
    return np.asarray((n_rows * mean + 0.5) / (n_rows + 1.0))


def log_ratio(a: Array, b: Array) -> Array:
    """Return ``log(a / b)`` within the limits; the highest if `b` is not positive."""
    ratio = np.log(np.maximum(a, TINY)) - np.log(np.maximum(b, TINY))
    return np.asarray(np.clip(ratio, *EXTREMES))


def extremes(variance: Array) -> tuple[Array, Array]:
    """Return the limits of a log-shape for every column."""
    low, high = EXTREMES
    return np.full_like(variance, low), np.full_like(variance, high)


def row_sums(a: Array) -> Array:
    """Return the sums over columns, as a product, which is faster."""
    flat = a.reshape(-1, a.shape[-1])
    return np.asarray(flat @ np.ones(a.shape[-1], a.dtype)).reshape(a.shape[:-1])


def tail(a: Array) -> Array:
    """Return ``log(1 + exp(-|a|))``, which softplus adds to ``max(a, 0)``."""
    e = np.exp(-np.abs(a))
    log1p(e)
    return np.asarray(e)


def of_counts(function: Callable[..., Array], x: Array, *shared: Array) -> Array:
    """Return a function of counts and their columns' numbers; it is zero for zero.

    Most counts are zero, and such functions cost more than everything else.
    """
    places = np.flatnonzero(x != 0)
    columns = places % x.shape[-1]
    values = function(x.ravel()[places], *(each[columns] for each in shared))
    found = np.zeros(x.size, x.dtype)
    found[places] = values
    return found.reshape(x.shape)


def log_factorial(x: Array) -> Array:
    """Return ``log x!``."""
    return np.asarray(special.gammaln(x + 1))


def log_choices(x: Array, size: Array) -> Array:
    """Return ``-log(Gamma(x + r) / (Gamma(r) x!))``, exact for a large size r too."""
    return np.asarray(special.betaln(size, x + 1) + np.log(x + size))


def digamma_step(x: Array, size: Array) -> Array:
    """Return ``r (digamma(r) - digamma(x + r))`` for a size r in double precision."""
    return np.asarray(size * (special.digamma(size) - special.digamma(x + size)))


def exact_logistic(u: Array) -> Array:
    """Return ``1 / (1 + exp(-u))``, of which small values keep their digits."""
    e = np.exp(-np.abs(u))
    e += 1
    return np.asarray(np.exp(np.minimum(u, 0)) / e)


def rounded(x: Array, support: Range, dtype: np.dtype[Any]) -> Array:
    """Return draws in `dtype`; rounding must not reach an end of an open support."""
    ends = np.array([support.low, support.high], dtype)
    low, high = np.nextafter(ends, ends[::-1])
    return np.asarray(np.clip(x.astype(dtype), low, high))
