"""The codes of rows, coloured by what is known of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from skae.displays._common import (
    MOST_NAMES,
    check_components,
    check_names,
    dense,
    every_so_many,
    names_of_components,
    require_matplotlib,
    with_defaults,
)
from skae.layout import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.legend import Legend

__all__ = ["LatentSpaceDisplay"]

#: Up to so many classes have a colour of their own and an entry in the legend.
MOST_CLASSES = 20

#: A legend with more entries has two columns.
LONG_LEGEND = 12

#: Colour maps with fewer colours than this are lists of colours to tell apart.
CONTINUOUS = 256

#: The colour of rows of which nothing is known, and the name of their class.
PALE, MISSING = "0.8", "missing"

#: From so many rows on, a vector graphic holds the points as one image.
MANY_POINTS = 10_000

#: Half the width of a strip of points; strips are one apart.
HALF_STRIP = 0.4


# --- what colours mean ----------------------------------------------------------------


def is_missing(value: Any) -> bool:
    """Tell whether a Python object stands for a value that is not known."""
    nan = isinstance(value, float | np.floating) and np.isnan(value)
    return bool(nan) or value is None or type(value).__name__ in ("NAType", "NaTType")


def known_and_missing(y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the known entries, in a type of their own, and where there are none."""
    if y.dtype.kind != "O":
        return y, np.zeros(len(y), dtype=bool)
    missing = np.array([is_missing(value) for value in y], dtype=bool)
    known = np.array(y[~missing].tolist())
    return known.astype(str) if known.dtype.kind == "O" else known, missing


def numbers_or_classes(y: Any) -> tuple[Array, NDArray[Any] | None]:
    """Return numbers and None, or each row's class and the names of the classes."""
    category = getattr(y, "cat", y)
    if hasattr(category, "codes") and hasattr(category, "categories"):
        given = np.asarray(category.codes)
        missing, known = given < 0, given[given >= 0]
        present, inverse = np.unique(known, return_inverse=True)
        values: Any = [category.categories[k] for k in present]
    else:
        # As an array, a series of integers with missing ones would be one of floats.
        series = hasattr(y, "to_numpy") and len(y.shape) == 1
        array = np.fromiter(y, object) if series else np.asarray(y).ravel()
        known, missing = known_and_missing(array)
        values, inverse = np.unique(known, return_inverse=True)
        kind, many = known.dtype.kind, len(values) > MOST_CLASSES
        if kind == "f" or (kind in "iu" and many):
            numbers = np.full(len(missing), np.nan)
            numbers[~missing] = known
            return numbers, None
    index = np.full(len(missing), float(len(values)))
    index[~missing] = inverse
    names = [str(value) for value in values]
    return index, np.array(names + [MISSING] * bool(missing.any()))


def n_known(classes: NDArray[Any]) -> int:
    """Return the number of classes, that of the missing ones aside."""
    return len(classes) - int(classes[-1] == MISSING)


def colours_of(classes: NDArray[Any], cmap: Any) -> Colormap:
    """Return one colour for each class, from a list of colours or a colour map."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    n = n_known(classes)
    if cmap is None:
        cmap = "tab10" if n <= 10 else "tab20" if n <= MOST_CLASSES else "viridis"
    chosen = colormaps[cmap] if isinstance(cmap, str) else cmap
    listed = n <= chosen.N < CONTINUOUS
    colours = chosen(np.arange(n) if listed else np.linspace(0, 1, n))
    return ListedColormap([*colours, *[PALE] * (len(classes) - n)])


# --- how points lie -------------------------------------------------------------------


def name_of(y: Any) -> str | None:
    """Return the name of a series, if it has one."""
    name = getattr(y, "name", None)
    return None if name is None else str(name)


def look_of_points(n_rows: int) -> dict[str, Any]:
    """Return a size and an opacity at which so many points can be told apart."""
    return {
        "s": float(np.clip(500 / np.sqrt(n_rows), 1.0, 36.0)),
        "alpha": float(np.clip(0.8 * (1000 / n_rows) ** 0.15, 0.3, 0.8)),
        "linewidth": 0.0,
        "rasterized": n_rows > MANY_POINTS,
    }


def spread(values: Array, rng: np.random.Generator) -> Array:
    """Return offsets across a strip that is as wide as the values are dense."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return np.zeros(len(values))
    n_bins = int(np.clip(np.sqrt(len(finite)), 2, 50))
    counts, edges = np.histogram(finite, n_bins)
    middles = (edges[1:] + edges[:-1]) / 2
    width = np.interp(values, middles, counts / counts.max())
    offsets: Array = HALF_STRIP * width * rng.uniform(-1.0, 1.0, len(values))
    return offsets


class LatentSpaceDisplay:
    """Codes of rows, coloured by a class or a number.

    Two components of the codes are drawn against each other. A single one is drawn
    along the horizontal axis: against the numbers in `y`, or with a strip of points
    for each class, wide where there are many of them.

    It is recommended to use `from_estimator` to create a `LatentSpaceDisplay`. All
    parameters are stored as attributes.

    Parameters
    ----------
    codes : array-like of shape (n_samples, n_components)
        Codes of the rows.
    y : array-like of shape (n_samples,), default=None
        What is known of the rows: their class, or a number such as a score. Strings,
        booleans, categories and integers with at most 20 different values are
        classes; other numbers are numbers. Convert `y` to strings or to floats to
        choose. Rows whose entry is missing are grey.
    y_name : str, default=None
        What `y` is called in the legend or beside the colour bar.
    components : int or tuple of (int, int), default=(0, 1)
        Which components to show. Of codes with a single component, the default shows
        that one.
    component_names : array-like of shape (n_components,), default=None
        Names of the components, for the axes. If None, they are numbered.

    Attributes
    ----------
    classes : ndarray of str or None
        Names of the classes in their order, "missing" last; None if there are none.
    ax_ : matplotlib Axes
        Axes with the points.
    figure_ : matplotlib Figure
        Figure that holds the axes.
    scatter_ : matplotlib PathCollection
        The points, in an order drawn by lot, so that no class hides the others.
    legend_ : matplotlib Legend or None
        The colours of at most 20 classes; None if there is no need for it.
    colorbar_ : matplotlib Colorbar or None
        The colours of numbers or of more classes; None if there is no need for it.

    See Also
    --------
    LatentManifoldDisplay : What the codes of a plane are decoded to.
    ReconstructionDisplay : Rows and their reconstructions.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import DenoisingAutoencoder
    >>> from skae.displays import LatentSpaceDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> model = DenoisingAutoencoder(2, max_iter=500, tol=0.5, random_state=0).fit(X)
    >>> display = LatentSpaceDisplay.from_estimator(model, X, y)
    >>> display.codes.shape
    (1797, 2)
    >>> display.ax_.get_xlabel()
    'denoisingautoencoder0'
    """

    classes: NDArray[Any] | None
    _values: Array | None
    ax_: Axes
    figure_: Figure | SubFigure
    scatter_: PathCollection
    legend_: Legend | None
    colorbar_: Colorbar | None

    def __init__(
        self,
        codes: ArrayLike,
        *,
        y: ArrayLike | None = None,
        y_name: str | None = None,
        components: int | tuple[int, int] = (0, 1),
        component_names: ArrayLike | None = None,
    ) -> None:
        self.codes = dense(codes, "codes")
        n_components = self.codes.shape[1]
        self.y = self._read_y(y)
        self.y_name = y_name
        self.components = check_components(components, n_components)
        self.component_names = check_names(
            component_names, "component_names", n_components, "codes has n_components"
        )

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        y_name: str | None = None,
        components: int | tuple[int, int] = (0, 1),
        component_names: ArrayLike | None = None,
        ax: Axes | None = None,
        cmap: str | Colormap | None = None,
        legend: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Encode X and draw the codes.

        Parameters
        ----------
        estimator : estimator instance
            Fitted autoencoder, or whatever else has `transform`, such as a pipeline or
            PCA.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to encode.
        y : array-like of shape (n_samples,), default=None
            What is known of the rows, for their colours: classes, or numbers such as
            what `score_samples` returns. Strings, booleans, categories and integers
            with at most 20 different values are classes; other numbers are numbers.
        y_name : str, default=None
            What `y` is called. If None, the name of the series `y`, if it has one.
        components : int or tuple of (int, int), default=(0, 1)
            Which components to show.
        component_names : array-like of shape (n_components,), default=None
            Names of the components. If None, what `get_feature_names_out` of the
            estimator returns, if it has that.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.
        cmap : str or matplotlib Colormap, default=None
            Colours; see `plot`.
        legend : bool, default=True
            Whether to explain the colours; see `plot`.
        **kwargs : dict
            Keywords for matplotlib's `scatter`.

        Returns
        -------
        display : LatentSpaceDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        codes = estimator.transform(X)
        if component_names is None:
            component_names = names_of_components(estimator)
        if component_names is None:
            component_names = getattr(codes, "columns", None)
        display = cls(
            codes,
            y=y,
            y_name=name_of(y) if y_name is None else y_name,
            components=components,
            component_names=component_names,
        )
        return display.plot(ax, cmap=cmap, legend=legend, **kwargs)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        cmap: str | Colormap | None = None,
        legend: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Draw the codes.

        Size and opacity of the points depend on their number, so that many rows can
        still be told apart.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.
        cmap : str or matplotlib Colormap, default=None
            Colours. If None, "tab10" for up to 10 classes, "tab20" for up to 20, and
            "viridis" for numbers and for more classes.
        legend : bool, default=True
            Whether to explain the colours, by a legend of at most 20 classes or by a
            colour bar.
        **kwargs : dict
            Keywords for matplotlib's `scatter`.

        Returns
        -------
        display : LatentSpaceDisplay
            The display itself.
        """
        plt = require_matplotlib(f"{type(self).__name__}.plot")
        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        self.legend_ = self.colorbar_ = None
        x, *others = self.codes[:, self.components].T
        coloured = self._values is not None and bool(others or self.classes is not None)
        colours = self._colours(cmap, kwargs) if coloured else {}
        self._draw(x, others[0] if others else self._heights(x), kwargs, colours)
        ax.set_xlabel(self._name(0))
        if not others:
            self._name_strips()
            return self
        ax.set_ylabel(self._name(1))
        if legend and coloured:
            self._explain()
        return self

    def _read_y(self, y: Any) -> NDArray[Any] | None:
        """Return `y` as it is; keep its numbers, or its classes and their names."""
        self._values, self.classes = None, None
        if y is None:
            return None
        array, n_samples = np.asarray(y), len(self.codes)
        if array.shape not in [(n_samples,), (n_samples, 1)]:
            raise ValueError(
                f"y has shape {array.shape}, but codes has n_samples={n_samples} rows."
            )
        self._values, self.classes = numbers_or_classes(y)
        return array.ravel()

    # --- drawing ----------------------------------------------------------------------

    def _name(self, axis: int) -> str:
        component = self.components[axis]
        if self.component_names is None:
            return f"component {component}"
        return str(self.component_names[component])

    def _heights(self, x: Array) -> Array:
        """Return where the points of a single component lie on the vertical axis."""
        rng = np.random.default_rng(0)
        if self._values is None:
            return spread(x, rng)
        height = self._values.copy()
        for k in range(0 if self.classes is None else len(self.classes)):
            strip = self._values == k
            height[strip] += spread(x[strip], rng)
        return height

    def _colours(self, cmap: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the keywords that colour the points by `y`."""
        from matplotlib import colormaps

        own = sorted({"c", "color"} & kwargs.keys())
        if own:
            raise ValueError(f"{own[0]} and y both colour the points; leave one out.")
        values = np.asarray(self._values)
        colours = {"c": values, "plotnonfinite": True}
        if self.classes is not None:
            limits = {"vmin": -0.5, "vmax": len(self.classes) - 0.5}
            return colours | limits | {"cmap": colours_of(self.classes, cmap)}
        chosen = colormaps[cmap or "viridis"] if not callable(cmap) else cmap
        colours["cmap"] = chosen.with_extremes(bad=PALE)
        finite = values[np.isfinite(values)]
        if "norm" in kwargs or not len(finite):
            return colours
        return colours | {"vmin": finite.min(), "vmax": finite.max()}

    def _draw(
        self, x: Array, y: Array, kwargs: dict[str, Any], colours: dict[str, Any]
    ) -> None:
        """Draw the points in an order that is the same each time."""
        from matplotlib.collections import PathCollection

        n = len(x)
        look = look_of_points(n) | colours
        if "marker" in kwargs:
            del look["linewidth"]
        style = with_defaults(kwargs, PathCollection, **look)
        order = np.random.default_rng(0).permutation(n)
        for key, value in style.items():
            if np.ndim(value) and len(value) == n:
                style[key] = np.asarray(value)[order]
        self.scatter_ = self.ax_.scatter(x[order], y[order], **style)

    def _explain(self) -> None:
        """Say what the colours mean."""
        if self.classes is not None and n_known(self.classes) <= MOST_CLASSES:
            self._add_legend(self.classes)
            return
        bar = self.figure_.colorbar(self.scatter_, ax=self.ax_, label=self.y_name or "")
        if bar.solids is not None:
            bar.solids.set_alpha(1.0)
        if self.classes is not None:
            places = every_so_many(len(self.classes), MOST_CLASSES)
            bar.set_ticks(places.tolist(), labels=self.classes[places].tolist())
            bar.ax.invert_yaxis()
        self.colorbar_ = bar

    def _add_legend(self, classes: NDArray[Any]) -> None:
        n = len(classes)
        handles, _ = self.scatter_.legend_elements(num=list(range(n)), alpha=1.0)
        self.legend_ = self.ax_.legend(
            handles,
            classes.tolist(),
            title=self.y_name,
            ncols=2 if n > LONG_LEGEND else 1,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            frameon=False,
        )

    def _name_strips(self) -> None:
        """Say what stands on the vertical axis beside a single component."""
        if self._values is None:
            self.ax_.set(yticks=[], ylim=(-1.0, 1.0))
            return
        self.ax_.set_ylabel(self.y_name or "")
        if self.classes is not None:
            n = len(self.classes)
            places = every_so_many(n, MOST_NAMES)
            self.ax_.set_yticks(places, self.classes[places].tolist())
            self.ax_.set_ylim(n - 0.5, -0.5)
