"""What displays share: how they check what they show, and where they draw it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import check_array

from skae.layout import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "FEW_COLUMNS",
    "MOST_NAMES",
    "check_components",
    "check_image_shape",
    "check_names",
    "count_in_whole_numbers",
    "dense",
    "every_so_many",
    "names_of_columns",
    "names_of_components",
    "panels",
    "require_matplotlib",
    "with_defaults",
]

#: Up to this many columns are drawn one by one.
FEW_COLUMNS = 12

#: At most so many columns are named on the axis.
MOST_NAMES = 24

# --- checks ---------------------------------------------------------------------------


def dense(X: Any, name: str) -> Array:
    """Return rows as a dense floating-point array."""
    X = check_array(
        X,
        accept_sparse="csr",
        dtype=[np.float64, np.float32],
        ensure_all_finite=False,
        input_name=name,
    )
    return np.asarray(X.toarray() if sparse.issparse(X) else X)


def check_image_shape(shape: Any, n_features: int) -> tuple[int, int] | None:
    """Return the height and the width of images with so many pixels, if any."""
    if shape is None:
        return None
    sizes = np.asarray(shape)
    whole = sizes.shape == (2,) and sizes.dtype.kind in "iu" and sizes.min() > 0
    if not whole or sizes.prod() != n_features:
        raise ValueError(
            f"image_shape={shape!r} must be a height and a width whose product is "
            f"n_features={n_features}."
        )
    return int(sizes[0]), int(sizes[1])


def check_names(names: Any, parameter: str, n: int, of: str) -> NDArray[Any] | None:
    """Return names, one for each of the n columns counted `of` something, if any."""
    if names is None:
        return None
    array = np.asarray(names, dtype=object)
    if array.shape != (n,):
        raise ValueError(f"{parameter} has shape {array.shape}, but {of}={n} columns.")
    return array.astype(str)


def check_components(components: Any, n_components: int) -> tuple[int, ...]:
    """Return the places of one or two components; the first two may be only one."""
    places = np.atleast_1d(np.asarray(components))
    if n_components == 1 and places.tolist() == [0, 1]:
        return (0,)
    whole = places.shape in [(1,), (2,)] and places.dtype.kind in "iu"
    inside = whole and places.min() >= 0 and places.max() < n_components
    if not inside or len(set(places.tolist())) < len(places):
        raise ValueError(
            f"components={components!r} must be one number, or two different ones, "
            f"from 0 to {n_components - 1}: the codes have "
            f"n_components={n_components} columns."
        )
    return tuple(int(place) for place in places)


# --- names ----------------------------------------------------------------------------


def names_of_columns(X: Any, estimator: Any) -> Any:
    """Return the estimator's names, or else the data frame's, or None."""
    names = getattr(estimator, "feature_names_in_", None)
    return getattr(X, "columns", None) if names is None else names


def names_of_components(estimator: Any) -> Any:
    """Return what the estimator calls the columns of its codes, or None."""
    try:
        return estimator.get_feature_names_out()
    except (AttributeError, ValueError):
        return None


def every_so_many(n: int, most: int) -> NDArray[np.intp]:
    """Return evenly spaced numbers below n, at most so many."""
    return np.arange(0, n, max(1, -(-n // most)))


# --- drawing --------------------------------------------------------------------------


def require_matplotlib(caller: str) -> Any:
    """Return pyplot, or say how to get it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{caller} requires matplotlib: pip install 'skae[plot]'"
        ) from error
    return plt


def with_defaults(kwargs: dict[str, Any], artist: Any, **defaults: Any) -> Any:
    """Add defaults to the caller's keywords, which may be aliases such as `lw`."""
    from matplotlib.cbook import normalize_kwargs

    return defaults | normalize_kwargs(kwargs, artist)


def count_in_whole_numbers(ax: Axes) -> None:
    """Keep fractions off the horizontal axis, unless its ticks are someone's choice."""
    from matplotlib.ticker import MaxNLocator

    locator = ax.xaxis.get_major_locator()
    if isinstance(locator, MaxNLocator):
        locator.set_params(integer=True)


def outer_frame(ax: Axes) -> Any:
    """Make room for panels where `ax` stands; return it as a grid of one cell."""
    if not ax.axison:
        raise ValueError(
            "ax is in use by another display; pass that display's axes_ to draw on "
            "the same panels, or another ax."
        )
    ax.set_axis_off()
    spec = ax.get_subplotspec()
    if spec is None:
        box = ax.get_position()
        left, bottom, right, top = box.x0, box.y0, box.x1, box.y1
        grid = ax.figure.add_gridspec(left=left, bottom=bottom, right=right, top=top)
        spec = grid[0, 0]
    return spec


def panels(
    ax: Any, shape: tuple[int, int], n_panels: int, *, sharex: bool, sharey: bool
) -> tuple[Axes | None, NDArray[Any]]:
    """Return a frame and its new panels, or no frame and the panels given.

    New panels stand in a grid of this shape, in which the last ones may be left out;
    given ones must be as many as are needed.
    """
    axes = np.asarray(ax, dtype=object)
    if axes.ndim == 0:
        grid = outer_frame(ax).subgridspec(*shape)
        axes = grid.subplots(squeeze=False, sharex=sharex, sharey=sharey).ravel()
        for unused in axes[n_panels:]:
            unused.remove()
        return ax, axes[:n_panels]
    if axes.size != n_panels:
        product = f"{shape[0]} x {shape[1]} = "
        raise ValueError(
            f"ax holds {axes.size} axes, but "
            f"{product if shape[0] * shape[1] == n_panels else ''}{n_panels} are "
            f"needed, or a single one to divide."
        )
    return None, axes.ravel()
