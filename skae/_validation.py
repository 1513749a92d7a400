"""Checks of what users give, each with an error that says what would be right.

This is the only module that touches scikit-learn's private helpers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, update_wrapper
from numbers import Integral, Real
from types import MethodType
from typing import Any

import numpy as np
import sklearn
from joblib import cpu_count
from joblib.parallel import get_active_backend
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import _fit_context, clone
from sklearn.utils import _safe_indexing
from sklearn.utils._indexing import _determine_key_type, _get_column_indices
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils._set_output import _get_adapter_from_container
from sklearn.utils.parallel import _get_threadpool_controller
from sklearn.utils.validation import _check_sample_weight

__all__ = [
    "FRACTION",
    "NON_NEGATIVE",
    "OPEN_FRACTION",
    "POSITIVE",
    "POSITIVE_INT",
    "Interval",
    "Options",
    "StrOptions",
    "_check_sample_weight",
    "_fit_context",
    "callback_support",
    "check_count",
    "check_sizes",
    "check_support",
    "check_units",
    "check_weight",
    "clone",
    "column_indices",
    "has_callbacks",
    "like_container",
    "one_blas_thread",
    "only_if",
    "rows_of_container",
    "validate_parameters",
]


POSITIVE_INT = Interval(Integral, 1, None, closed="left")
NON_NEGATIVE = Interval(Real, 0, None, closed="left")
POSITIVE = Interval(Real, 0, None, closed="neither")
FRACTION = Interval(Real, 0, 1, closed="left")
OPEN_FRACTION = Interval(Real, 0, 1, closed="neither")

#: Sample weights beyond this, or below its inverse, would be lost in rounding.
LARGEST_WEIGHT = 1e100

#: Errors name at most so many columns.
LISTED = 10

#: Entries of X that a check makes a copy of at once.
ENTRIES = 2**20


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
    """Refuse values that the distribution of their column cannot take.

    Parameters
    ----------
    X : ndarray or CSR matrix of shape (n_samples, n_features)
        Validated data.
    distribution : Distribution
        Its `parts` know the support of each column.
    name : str, Distribution or list
        How the distribution was described: what errors call it.
    names : ndarray of str or None
        The columns' names.
    """
    n_features = X.shape[1]
    parts = [
        (member, np.arange(n_features)[columns])
        for member, columns in distribution.parts(n_features)
    ]
    called = [name] * len(parts)
    if isinstance(name, list):
        called = [member for member, _ in name]
    values = values_outside(X, [(member.support, place) for member, place in parts])
    bad = np.flatnonzero(~np.isnan(values))
    if len(bad):
        i = next(i for i, (_, place) in enumerate(parts) if bad[0] in place)
        needs = str(parts[i][0].support)
        refuse_value(bad, values, f"distribution={called[i]!r}", needs, names)
    groups = [
        (place, member)
        for (part, place), member in zip(parts, called, strict=True)
        if part.sums_to_one
    ]
    check_groups(X, groups, names)


def refuse_value(bad: Any, values: Any, given: str, needs: str, names: Any) -> None:
    """Say what is wrong with the first bad column."""
    value = values[bad[0]]
    short = f"{value:g}"
    text = short if type(value)(short) == value else str(value)
    needs = needs if needs.startswith("whole") else f"values in {needs}"
    raise ValueError(
        f"{'Negative values in data: c' if value < 0 else 'C'}olumn "
        f"{column_name(bad[0], names)} holds {text}, but {given} needs {needs}; "
        f"{len(bad)} of {len(values)} columns are outside."
    )


def values_outside(X: Any, supports: list[tuple[Any, NDArray[Any]]]) -> NDArray[Any]:
    """Return a value of each column that its support excludes, or NaN."""
    found = np.full(X.shape[1], np.nan, X.dtype)
    if all((s.low, s.high, s.whole) == (-np.inf, np.inf, False) for s, _ in supports):
        return found
    low, high = extremes(X)
    whole = np.zeros(X.shape[1], dtype=bool)
    for support, place in supports:
        for end in (high, low):
            outside = place[support.outside(end[place])]
            found[outside] = end[outside]
        whole[place] = support.whole
    for column, value in fractions(X, whole & np.isnan(found)):
        found[column] = value
    return found


def row_blocks(X: Any) -> Iterator[tuple[int, Any]]:
    """Yield where some consecutive rows of a dense or CSR matrix begin, and them."""
    entries = X.nnz if sparse.issparse(X) else X.size
    size = max(1, ENTRIES * X.shape[0] // max(entries, 1))
    for start in range(0, X.shape[0], size):
        yield start, X[start : start + size]


def extremes(X: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the smallest and the largest value of each column."""
    low = np.full(X.shape[1], np.inf, X.dtype)
    high = -low
    for _, block in row_blocks(X):
        ends = block.min(axis=0), block.max(axis=0)
        if sparse.issparse(X):  # SciPy copies what it finds the extremes of
            ends = ends[0].toarray().ravel(), ends[1].toarray().ravel()
        np.minimum(low, ends[0], out=low)
        np.maximum(high, ends[1], out=high)
    return low, high


def fractions(X: Any, asked: NDArray[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield columns of those asked for, with values there that are not whole."""
    if not asked.any():
        return
    if sparse.issparse(X):
        for start in range(0, X.nnz, ENTRIES):
            data = X.data[start : start + ENTRIES]
            broken = np.flatnonzero(np.floor(data) != data)
            column = X.indices[start : start + ENTRIES][broken]
            mine = asked[column]
            yield column[mine], data[broken][mine]
        return
    columns = np.flatnonzero(asked)
    size = max(1, ENTRIES // len(columns))
    for start in range(0, X.shape[0], size):
        block = X[start : start + size, columns]
        row, place = np.nonzero(np.floor(block) != block)
        yield columns[place], block[row, place]


def check_groups(X: Any, groups: list[tuple[NDArray[Any], Any]], names: Any) -> None:
    """Refuse rows in which the columns of a group are not one 1 and zeros besides.

    That all values are zeros and ones is known already.
    """
    if not groups:
        return
    for start, block in row_blocks(X):
        for (place, name), sums in zip(groups, group_sums(block, groups), strict=True):
            bad = np.flatnonzero(sums != 1)
            if len(bad):
                raise ValueError(
                    f"Row {start + bad[0]} of the columns {listed(place, names)} sums "
                    f"to {sums[bad[0]]:g}, but distribution={name!r} needs one 1 and "
                    f"zeros besides in each row."
                )


def group_sums(block: Any, groups: list[tuple[NDArray[Any], Any]]) -> Iterator[Any]:
    """Yield the sums of each row over each group's columns."""
    if sparse.issparse(block):
        block = block.tocsc()
    for place, _ in groups:
        yield np.asarray(block[:, place].sum(axis=1)).ravel()


def check_units(
    columns: Any, dtype: np.dtype[Any], names: Any, what: str = "Column"
) -> None:
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
            f"{what} {column_name(j, names)} ranges from {columns.low[j]:g} to "
            f"{columns.high[j]:g}; its standard deviation cannot be represented in "
            f"{dtype}. Rescale the {what.lower()}."
        )


def column_name(j: int, names: Any) -> str:
    """Return how to call a column: its place and, if it has one, its name."""
    return str(j) if names is None else f"{j} ({str(names[j])!r})"


def listed(columns: Any, names: Any) -> str:
    """Return how to call some columns; of very many, the first ones."""
    called = ", ".join(column_name(j, names) for j in columns[:LISTED])
    rest = len(columns) - LISTED
    return f"{called}, ... and {rest} more" if rest > 0 else called


def column_indices(X: Any, data: Any, key: Any, names: Any) -> list[int]:
    """Return the columns that a user means, as scikit-learn's ColumnTransformer does.

    Parameters
    ----------
    X : object
        The data as the user gave them: what a function of X is shown.
    data : ndarray or sparse matrix of shape (n_samples, n_features)
        The same after validation.
    key : object
        Names, positions, slices of these (the last name is included), a mask, or a
        function of X that returns one of these.
    names : ndarray of str or None
        The columns' names.
    """
    if callable(key):
        key = key(X if hasattr(X, "shape") else data)
    problem = f"the columns {key!r} are not to be found"
    whole = isinstance(key, slice) and key == slice(None, None, key.step)
    if key is None or isinstance(key, (bool, np.bool_)):
        raise ValueError(f"{problem}; give names, positions, a slice or a mask.")
    try:
        if not whole and _determine_key_type(key) == "str":
            return indices_of_names(key, names)
        kept = list(range(data.shape[1]))[key] if whole else key
        return [int(j) for j in _get_column_indices(data, kept)]
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{problem}: {error}") from None


def indices_of_names(key: Any, names: Any) -> list[int]:
    """Return the places of one name, of several, or of a slice of names."""
    if names is None:
        raise ValueError(
            "X has no column names. Give positions, or a DataFrame whose column names "
            "are strings."
        )
    known = [str(name) for name in names]
    if isinstance(key, slice):
        if key.step not in (None, 1):
            raise ValueError("a slice of names cannot have a step.")
        start = 0 if key.start is None else index_of_name(key.start, known)
        last = len(known) if key.stop is None else index_of_name(key.stop, known) + 1
        return list(range(start, last))
    each = [key] if isinstance(key, str) else list(key)
    return [index_of_name(name, known) for name in each]


def index_of_name(name: Any, known: list[str]) -> int:
    """Return the place of a name, which there must be once."""
    if known.count(name) != 1:
        often = known.count(name)
        every = ", ".join(map(repr, known[:LISTED])) + ", ..." * (len(known) > LISTED)
        raise ValueError(f"{name!r} is the name of {often} columns. Names are {every}.")
    return known.index(name)


def rows_of_container(X: Any, index: NDArray[Any]) -> Any:
    """Return some rows of an array, a sparse matrix or a data frame, as such."""
    return _safe_indexing(X, index, axis=0)


def like_container(array: NDArray[Any], X: Any) -> Any:
    """Return an array of the shape of X as a data frame, if X is one."""
    if not hasattr(X, "columns"):
        return array
    adapter = _get_adapter_from_container(X)
    return adapter.create_container(array, X_original=X, columns=X.columns)


def check_count(value: Any, name: str) -> None:
    """Refuse what is no positive integer."""
    whole = isinstance(value, Integral) and not isinstance(value, (bool, np.bool_))
    if not whole or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer.")


def check_sizes(
    sizes: Any, name: str, what: str = "one for each layer between the ends"
) -> list[int]:
    """Return the positive integers that the parameter of this name lists."""
    each = np.atleast_1d(np.asarray(sizes, dtype=object))
    whole = [isinstance(n, Integral) and not isinstance(n, bool) for n in each]
    if each.ndim > 1 or not all(whole) or min(each, default=1) < 1:
        raise ValueError(f"{name}={sizes!r} must hold positive integers, {what}.")
    return [int(size) for size in each]


class OnlyIf:
    """A method that exists on an object only if a check of the object passes.

    Unlike scikit-learn's ``available_if`` it lets the check's own AttributeError
    through, which says why the method is absent.
    """

    def __init__(
        self, check: Callable[[Any, str], None], method: Callable[..., Any]
    ) -> None:
        self.check, self.method = check, method
        update_wrapper(self, method)  # type: ignore[arg-type]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self.method
        self.check(instance, self.method.__name__)
        return MethodType(self.method, instance)


def only_if(check: Callable[[Any, str], None]) -> Any:
    """Decorate a method that exists where ``check(object, name)`` does not raise."""
    return partial(OnlyIf, check)


_limiting = threading.Lock()
_limits: list[tuple[int, Any]] = []
_n_limiting = 0


@contextmanager
def one_blas_thread() -> Iterator[tuple[int, int]]:
    """Hold matrix products to one thread; yield how many were allowed, and are free.

    The limit belongs to the whole process. Where calls of several threads overlap, the
    first one sets it and the last one restores it; no thread is free for the others.
    What is allowed does not depend on who else is there. While another thread of the
    user's holds a limit, only that thread can change it: products then keep the user's
    number of threads, and may be rounded otherwise.
    """
    global _n_limiting
    controller = _get_threadpool_controller()
    with _limiting:
        n_free = 1 if _n_limiting else free_threads()
        if not _n_limiting:
            limit = allowed_threads(), controller.limit(limits=1, user_api="blas")
            _limits.append(limit)
        n_allowed = _limits[0][0]
        _n_limiting += 1
    try:
        yield n_allowed, n_free
    finally:
        with _limiting:
            _n_limiting -= 1
            if not _n_limiting:
                _limits.pop()[1].restore_original_limits()
            # Only the thread that sets a limit may change it, until it leaves a block.
            with controller.limit(limits=None):
                pass


def allowed_threads() -> int:
    """Return how many threads products may use: the user's limit, and joblib's."""
    libraries = _get_threadpool_controller().info()
    limits = [lib["num_threads"] for lib in libraries if lib["user_api"] == "blas"]
    return int(min(*limits, cpu_count())) if limits else 1


def free_threads() -> int:
    """Return how many of the allowed threads may be used here.

    In a thread of joblib's "threading" backend, which limits nothing, it is one.
    """
    in_thread = threading.current_thread() is not threading.main_thread()
    if in_thread and get_active_backend()[0].nesting_level:
        return 1
    return allowed_threads()


def callback_support() -> Any:
    """Return scikit-learn's support of callbacks; it imports what draws the bars."""
    try:
        from sklearn.callback import CallbackSupportMixin
    except ImportError as error:
        raise ImportError(
            f"Callbacks need scikit-learn 1.9 or newer, and this is "
            f"{sklearn.__version__}. Without them, verbose=True prints the loss of "
            f"each epoch."
        ) from error
    return CallbackSupportMixin


def has_callbacks(estimator: Any) -> bool:
    """Tell whether callbacks see a fit: the user's, or those of a search around it."""
    own = getattr(estimator, "_skl_callbacks", None)
    return bool(own) or hasattr(estimator, "_parent_callback_ctx")


def validate_parameters(component: Any) -> None:
    """Check a settings object against its ``_parameter_constraints``."""
    component._validate_params()
