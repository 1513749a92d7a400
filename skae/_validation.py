"""Checks of what users give, each with an error that says what would be right.

This is the only module that touches scikit-learn's private helpers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.parallel import _get_threadpool_controller
from sklearn.utils.validation import _check_sample_weight

__all__ = [
    "Interval",
    "Options",
    "StrOptions",
    "_check_sample_weight",
    "_fit_context",
    "check_sizes",
    "check_support",
    "check_units",
    "check_weight",
    "one_blas_thread",
    "validate_parameters",
]


#: Sample weights beyond this, or below its inverse, would be lost in rounding.
LARGEST_WEIGHT = 1e100


def check_weight(X: Any, sample_weight: Any) -> NDArray[Any]:
    """Return valid weights of the rows of X; None stands for ones."""
    weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
    if not weight.any():
        raise ValueError("All sample weights are zero; at least one must not be.")
    extremes = weight[weight > 0].min(), weight.max()
    if extremes[0] < 1 / LARGEST_WEIGHT or extremes[1] > LARGEST_WEIGHT:
        raise ValueError(
            f"Sample weights range from {extremes[0]:g} to {extremes[1]:g}; divide "
            f"them by their mean."
        )
    return np.asarray(weight)


def check_support(X: Any, distribution: Any, name: Any, names: Any) -> None:
    """Refuse values that a distribution of this name cannot take."""
    allowed = distribution.support
    if (allowed.low, allowed.high) == (-np.inf, np.inf):
        return
    low, high = X.min(axis=0), X.max(axis=0)
    if sparse.issparse(X):
        low, high = low.toarray().ravel(), high.toarray().ravel()
    outside = np.flatnonzero((low < allowed.low) | (high > allowed.high))
    if len(outside):
        j = outside[0]
        value = low[j] if low[j] < allowed.low else high[j]
        raise ValueError(
            f"{'Negative values in data: c' if value < 0 else 'C'}olumn "
            f"{column_name(j, names)} holds {value:g}, but distribution={name!r} "
            f"needs values in {allowed}; {len(outside)} of {X.shape[1]} columns are "
            f"outside."
        )


def check_units(columns: Any, dtype: np.dtype[Any], names: Any) -> None:
    """Refuse columns so large or so small that their spread cannot be formed."""
    limits, double = np.finfo(dtype), np.finfo(np.float64)
    with np.errstate(over="ignore"):
        size = np.maximum(columns.high, 0) - np.minimum(columns.low, 0)
    square = np.where(columns.constant, 1.0, columns.variance)
    bad = ~((columns.unit > limits.tiny) & (size < limits.max / 2))
    bad |= ~((square > double.tiny) & (square < double.max))
    if bad.any():
        j = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"Column {column_name(j, names)} ranges from {columns.low[j]:g} to "
            f"{columns.high[j]:g}; its standard deviation cannot be represented in "
            f"{dtype}. Rescale the column."
        )


def column_name(j: int, names: Any) -> str:
    """Return how to call a column: its place and, if it has one, its name."""
    return str(j) if names is None else f"{j} ({names[j]!r})"


def check_sizes(hidden_layer_sizes: Any) -> list[int]:
    """Return the widths of the hidden layers."""
    sizes = np.atleast_1d(np.asarray(hidden_layer_sizes, dtype=object))
    whole = [isinstance(n, Integral) and not isinstance(n, bool) for n in sizes]
    if sizes.ndim > 1 or not all(whole) or min(sizes, default=1) < 1:
        raise ValueError(
            f"hidden_layer_sizes={hidden_layer_sizes!r} must hold positive integers, "
            f"one for each encoder layer between input and code."
        )
    return [int(size) for size in sizes]


_limiting = threading.Lock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold matrix products to one thread.

    The limit belongs to the whole process. Where calls of several threads overlap, the
    first one sets and restores it, and the others leave it alone.
    """
    if not _limiting.acquire(blocking=False):
        yield
        return
    try:
        with _get_threadpool_controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        _limiting.release()


def validate_parameters(component: Any) -> None:
    """Check a settings object against its ``_parameter_constraints``."""
    component._validate_params()
