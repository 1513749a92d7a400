"""What the codes of a plane, or of a line, are decoded to."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from sklearn.base import BaseEstimator
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

from skae.displays._common import (
    FEW_COLUMNS,
    check_components,
    check_image_shape,
    check_names,
    dense,
    every_so_many,
    names_of_columns,
    names_of_components,
    panels,
    require_matplotlib,
    with_defaults,
)
from skae.layout import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure, SubFigure

__all__ = ["LatentManifoldDisplay"]

#: At most so many panels stand side by side.
MOST_ACROSS = 4

#: At most so many of a mosaic's codes are written on either axis.
MOST_TICKS = 8


# --- a grid of codes ------------------------------------------------------------------


def decoded_grid(estimator: Any, base: Any, shown: Any, places: Any) -> Array:
    """Decode a grid of codes; all but the shown components are those of `base`."""
    grid = np.meshgrid(*places)
    z = np.tile(base, (grid[0].size, 1))
    z[:, shown] = np.column_stack([part.ravel() for part in grid])
    rows = dense(estimator.inverse_transform(z), "decoded")
    return rows.reshape(*grid[0].shape, -1)


def names_of_shown(estimator: Any, base: Any, shown: Any) -> list[str]:
    """Return what to call the components that are shown."""
    names = names_of_components(estimator)
    if names is None:
        names = [f"component {k}" for k in range(len(base))]
    return [str(names[k]) for k in shown]


def base_code(estimator: Any, codes: Array | None, base: Any) -> Array:
    """Return the code that the grid departs from; its length is that of all codes."""
    if base is not None:
        array = np.asarray(base, dtype=float)
        n_components = array.size if codes is None else codes.shape[1]
        if array.shape != (n_components,):
            raise ValueError(
                f"base has shape {array.shape}, but must be one code, of shape "
                f"({n_components},)."
            )
        return array
    if codes is not None:
        return np.asarray(np.median(codes, axis=0), dtype=float)
    names = names_of_components(estimator)
    if names is None:
        raise ValueError(
            f"{type(estimator).__name__} does not tell the number of its components; "
            f"give X, or the code to depart from as base."
        )
    return np.zeros(len(names))


def between(limits: Any, n_components: int, n_steps: int) -> list[Array]:
    """Return evenly spaced places for each component."""
    bounds = np.asarray(limits, dtype=float)
    pairs = bounds.shape in [(2,), (n_components, 2)] and np.isfinite(bounds).all()
    if not pairs or not (bounds[..., 0] < bounds[..., 1]).all():
        raise ValueError(
            f"limits={limits!r} must be a lower and a higher number, or such a pair "
            f"for each of the {n_components} components shown."
        )
    pairs = np.broadcast_to(bounds, (n_components, 2))
    return [np.linspace(low, high, n_steps) for low, high in pairs]


def between_quantiles(
    codes: Array | None, components: tuple[int, ...], quantiles: Any, n_steps: int
) -> list[Array]:
    """Return places between quantiles of the codes, or of the standard normal."""
    bounds = np.asarray(quantiles, dtype=float)
    closed = codes is not None
    inside = bounds.shape == (2,) and 0 <= bounds[0] < bounds[1] <= 1
    if not inside or not (closed or 0 < bounds.min() < bounds.max() < 1):
        raise ValueError(
            f"quantiles={quantiles!r} must be a lower and a higher number "
            f"{'from 0 to 1' if closed else 'between 0 and 1'}."
        )
    if codes is None:
        return [
            norm.ppf(np.linspace(bounds[0], bounds[1], n_steps)) for _ in components
        ]
    limits = np.quantile(codes[:, components], bounds, axis=0).T
    for component, (low, high) in zip(components, limits, strict=True):
        if not low < high:
            raise ValueError(
                f"Component {component} of the codes of X is {low:g} at both "
                f"quantiles={quantiles!r}; choose other components, or give limits."
            )
    return between(limits, len(components), n_steps)


def check_places(places: Any) -> list[Array]:
    """Return the places along one or two components."""
    arrays = [np.asarray(place, dtype=float) for place in places]
    rising = [x.ndim == 1 and len(x) > 1 and (np.diff(x) > 0).all() for x in arrays]
    if len(arrays) not in (1, 2) or not all(rising):
        raise ValueError(
            f"places must hold one or two arrays of increasing numbers, got {places!r}."
        )
    return arrays


def as_text(values: Array) -> list[str]:
    """Write numbers with as many decimals as their range asks for."""
    from matplotlib.ticker import Formatter

    decimals = max(0, 2 - int(np.floor(np.log10(np.ptp(values)))))
    texts = [f"{value:.{decimals}f}" for value in np.round(values, decimals) + 0.0]
    return [Formatter.fix_minus(text) for text in texts]


def grid_of(n_panels: int) -> tuple[int, int]:
    """Return how many rows and columns of panels there are: about as many."""
    n_across = min(int(np.ceil(np.sqrt(n_panels))), MOST_ACROSS)
    n_across = n_panels if n_panels == 3 else n_across
    return -(-n_panels // n_across), n_across


class LatentManifoldDisplay:
    """Decoded codes of a plane through the latent space.

    With an `image_shape`, the decoded rows are one mosaic of images: from left to right
    the first component grows, from bottom to top the second one. Otherwise each column
    of the data gets a heat map of its value over the plane. If there is one component
    only, the mosaic is a single row, and the heat maps are lines.

    It is recommended to use `from_estimator` to create a `LatentManifoldDisplay`. All
    parameters are stored as attributes.

    Parameters
    ----------
    decoded : array-like of shape (n_second, n_first, n_features) or \
            (n_first, n_features)
        Decoded rows, in the order in which both components grow.
    places : sequence of one or two array-likes
        Where along the first and, if there is one, the second component the rows
        belong: increasing numbers of shape (n_first,) and (n_second,).
    image_shape : tuple of (int, int), default=None
        Height and width of the images that the rows are. None if they are none.
    feature_names : array-like of shape (n_features,), default=None
        Names of the columns of the data. If None, they are numbered.
    component_names : array-like of one or two str, default=None
        Names of the components shown. If None, they are numbered.

    Attributes
    ----------
    ax_ : matplotlib Axes or None
        Axes with the mosaic, or inside which the panels lie; None if the panels were
        given.
    axes_ : ndarray of matplotlib Axes
        The panels, of shape (n_panels,): a single one with images, otherwise one for
        each column drawn.
    figure_ : matplotlib Figure
        Figure that holds the panels.
    artists_ : list
        The image, or the mesh or line of each panel.
    colorbars_ : list of matplotlib Colorbar
        Colour bar of each heat map; empty if there are none.

    See Also
    --------
    LatentSpaceDisplay : The codes of rows.
    ReconstructionDisplay : Rows and their reconstructions.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import DenoisingAutoencoder
    >>> from skae.displays import LatentManifoldDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = DenoisingAutoencoder(2, max_iter=500, tol=0.5, random_state=0).fit(X)
    >>> display = LatentManifoldDisplay.from_estimator(
    ...     model, X, n_steps=10, image_shape=(8, 8)
    ... )
    >>> display.decoded.shape
    (10, 10, 64)
    """

    ax_: Axes | None
    axes_: NDArray[Any]
    figure_: Figure | SubFigure
    artists_: list[Any]
    colorbars_: list[Colorbar]

    def __init__(
        self,
        decoded: ArrayLike,
        places: Sequence[ArrayLike],
        *,
        image_shape: tuple[int, int] | None = None,
        feature_names: ArrayLike | None = None,
        component_names: ArrayLike | None = None,
    ) -> None:
        self.places = check_places(places)
        self.decoded = np.asarray(decoded)
        if self.decoded.dtype.kind != "f":
            self.decoded = self.decoded.astype(float)
        grid = tuple(len(place) for place in reversed(self.places))
        if self.decoded.shape[:-1] != grid:
            raise ValueError(
                f"decoded has shape {self.decoded.shape}, but places asks for "
                f"({', '.join(map(str, grid))}, n_features)."
            )
        n_features = self.decoded.shape[-1]
        self.image_shape = check_image_shape(image_shape, n_features)
        self.feature_names = check_names(
            feature_names, "feature_names", n_features, "decoded has n_features"
        )
        self.component_names = check_names(
            component_names, "component_names", len(grid), "places has n_components"
        )

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: ArrayLike | None = None,
        *,
        components: int | tuple[int, int] = (0, 1),
        n_steps: int = 15,
        quantiles: tuple[float, float] = (0.05, 0.95),
        limits: ArrayLike | None = None,
        base: ArrayLike | None = None,
        image_shape: tuple[int, int] | None = None,
        feature_names: ArrayLike | None = None,
        component_names: ArrayLike | None = None,
        columns: Sequence[int | str] | None = None,
        ax: Axes | ArrayLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Decode a grid of codes and draw the result.

        The grid's places are quantiles of the standard normal distribution, which is
        what the codes of a variational autoencoder follow. For codes that follow
        another, give rows X: the places are then evenly spaced over the range of
        their codes.

        Parameters
        ----------
        estimator : estimator instance
            Fitted autoencoder, or whatever else has `inverse_transform` and, if X is
            given, `transform`, such as a pipeline or PCA.
        X : {array-like, sparse matrix} of shape (n_samples, n_features), default=None
            Rows whose codes tell the range of the grid and the base code. None if the
            codes are standard normal.
        components : int or tuple of (int, int), default=(0, 1)
            The components that grow from left to right and from bottom to top. Of
            codes with a single component, the default shows that one.
        n_steps : int, default=15
            Number of places along each component.
        quantiles : tuple of (float, float), default=(0.05, 0.95)
            The grid's range: from one quantile of the standard normal, or of the codes
            of X, to another.
        limits : tuple of (float, float) or array-like of shape (2, 2), default=None
            The grid's range in the codes' own numbers: a lower and a higher limit, or
            such a pair for each of the two components. The places are then evenly
            spaced. If None, the `quantiles` count.
        base : array-like of shape (n_components,), default=None
            The code whose other components are held fixed. If None, the medians of the
            codes of X, or zeros without X.
        image_shape : tuple of (int, int), default=None
            Height and width of the images that the rows are. None if they are none.
        feature_names : array-like of shape (n_features,), default=None
            Names of the columns of the data. If None, the estimator's
            `feature_names_in_` or the columns of the data frame X, if there are any.
        component_names : array-like of str, default=None
            Names of the components that are shown. If None, those of the estimator's
            `get_feature_names_out`, if there are any.
        columns : sequence of int or str, default=None
            The columns to draw; see `plot`.
        ax : matplotlib Axes or array-like of Axes, default=None
            Where to draw; see `plot`.
        **kwargs : dict
            Keywords for matplotlib's `imshow`, `pcolormesh` or `plot`.

        Returns
        -------
        display : LatentManifoldDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        n_steps = check_scalar(n_steps, "n_steps", Integral, min_val=2)
        codes = None if X is None else dense(estimator.transform(X), "codes")
        base = base_code(estimator, codes, base)
        shown = check_components(components, len(base))
        if limits is None:
            places = between_quantiles(codes, shown, quantiles, n_steps)
        else:
            places = between(limits, len(shown), n_steps)
        if component_names is None:
            component_names = names_of_shown(estimator, base, shown)
        if feature_names is None:
            feature_names = names_of_columns(X, estimator)
        display = cls(
            decoded_grid(estimator, base, shown, places),
            places,
            image_shape=image_shape,
            feature_names=feature_names,
            component_names=component_names,
        )
        return display.plot(ax, columns=columns, **kwargs)

    def plot(
        self,
        ax: Axes | ArrayLike | None = None,
        *,
        columns: Sequence[int | str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the decoded rows.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, default=None
            A single one is where the mosaic is drawn or, without images, the place
            inside which panels are made; an array of them are the panels, in the order
            of `axes_`. If None, a new figure is made.
        columns : sequence of int or str, default=None
            The columns to draw, by place or by name; there are none to choose with
            images. If None, all columns, or the first 12 of more.
        **kwargs : dict
            Keywords for matplotlib's `imshow`, `pcolormesh` or `plot`, for all that is
            drawn.

        Returns
        -------
        display : LatentManifoldDisplay
            The display itself.
        """
        plt = require_matplotlib(f"{type(self).__name__}.plot")
        chosen = self._check_columns(columns)
        n_panels = len(chosen) if self.image_shape is None else 1
        shape = grid_of(n_panels)
        if ax is None:
            figure = plt.figure(figsize=self._size(shape), layout="constrained")
            ax = figure.add_subplot()
        self.colorbars_ = []
        self._place(ax, shape, n_panels)
        if self.image_shape is None:
            self._draw_panels(chosen, kwargs)
        else:
            self._draw_mosaic(self.image_shape, kwargs)
        return self

    # --- checks -----------------------------------------------------------------------

    def _check_columns(self, columns: Any) -> list[int]:
        """Return the places of the columns to draw."""
        n_features = self.decoded.shape[-1]
        if columns is None:
            return list(range(min(n_features, FEW_COLUMNS)))
        names = {} if self.feature_names is None else self.feature_names.tolist()
        places = {name: place for place, name in enumerate(names)}
        chosen = [places.get(column, column) for column in columns]
        for column in chosen:
            whole = isinstance(column, int | np.integer)
            if not whole or not 0 <= column < n_features:
                raise ValueError(
                    f"columns={columns!r} holds {column!r}, which is neither a name of "
                    f"a column nor a number from 0 to {n_features - 1}."
                )
        if not chosen:
            raise ValueError("columns must name at least one column, got none.")
        return [int(column) for column in chosen]

    # --- drawing ----------------------------------------------------------------------

    def _name(self, axis: int) -> str:
        if self.component_names is None:
            return f"component {axis}"
        return str(self.component_names[axis])

    def _size(self, shape: tuple[int, int]) -> tuple[float, float]:
        """Return the width and height of a new figure, in inches."""
        if self.image_shape is None:
            return 0.6 + 2.7 * shape[1], 0.5 + 2.2 * shape[0]
        height, width = self.image_shape
        n_first, n_second = len(self.places[0]), self._rows().shape[0]
        ratio = (n_second * height) / (n_first * width)
        scale = 6.0 / max(ratio, 1.0) if n_second > 1 else 9.0
        return 0.8 + scale, 0.6 + max(scale * ratio, 0.4)

    def _rows(self) -> Array:
        """Return the decoded rows as a grid, even if it is a single row."""
        return self.decoded.reshape(-1, *self.decoded.shape[-2:])

    def _place(self, ax: Any, shape: tuple[int, int], n_panels: int) -> None:
        """Set the panels: those given, or new ones inside the one given."""
        if self.image_shape is not None and np.ndim(ax) == 0:
            self.ax_, self.axes_ = ax, np.array([ax], dtype=object)
        else:
            plane = len(self.places) == 2
            self.ax_, self.axes_ = panels(
                ax, shape, n_panels, sharex=True, sharey=plane
            )
        self.figure_ = self.axes_[0].figure

    def _draw_mosaic(self, shape: tuple[int, int], kwargs: dict[str, Any]) -> None:
        from matplotlib.image import AxesImage

        grid, (height, width) = self._rows(), shape
        n_second, n_first = grid.shape[:2]
        tiles = grid[::-1].reshape(n_second, n_first, height, width)
        mosaic = tiles.swapaxes(1, 2).reshape(n_second * height, n_first * width)
        style = with_defaults(
            kwargs,
            AxesImage,
            cmap="gray",
            origin="upper",
            aspect=height / width,
            extent=(-0.5, n_first - 0.5, -0.5, n_second - 0.5),
        )
        ax = self.axes_[0]
        self.artists_ = [ax.imshow(mosaic, **style)]
        self._name_axes(ax)
        ax.set_yticks([])
        for axis, places in zip([ax.xaxis, ax.yaxis], self.places, strict=False):
            ticks = every_so_many(len(places), MOST_TICKS)
            axis.set_ticks(ticks, labels=as_text(places[ticks]))
        self._part_images(ax, n_first, n_second)

    def _part_images(self, ax: Axes, n_first: int, n_second: int) -> None:
        """Draw thin lines between the images of a mosaic."""
        ax.set_xticks(np.arange(0.5, n_first - 1), minor=True)
        ax.set_yticks(np.arange(0.5, n_second - 1), minor=True)
        ax.grid(which="minor", color="white", linewidth=0.8)
        ax.tick_params(which="minor", length=0)

    def _name_axes(self, ax: Axes) -> None:
        """Say which component stands on which axis; a line's height is no component."""
        ax.set_xlabel(self._name(0))
        if len(self.places) == 2:
            ax.set_ylabel(self._name(1))

    def _draw_panels(self, columns: list[int], kwargs: dict[str, Any]) -> None:
        names, self.artists_ = self.feature_names, []
        draw = self._draw_plane if len(self.places) == 2 else self._draw_line
        for ax, j in zip(self.axes_, columns, strict=True):
            self.artists_.append(draw(ax, self.decoded[..., j], kwargs))
            ax.set_title(
                f"column {j}" if names is None else names[j], fontsize="medium"
            )
            self._name_axes(ax)
        if self.ax_ is not None:
            self._leave_outer_labels()

    def _leave_outer_labels(self) -> None:
        """Keep what stands beside or below other panels from being said twice."""
        n_across = self.axes_[0].get_subplotspec().get_gridspec().ncols
        for i, ax in enumerate(self.axes_):
            lowest = i + n_across >= len(self.axes_)
            ax.tick_params(labelbottom=lowest)
            if not lowest:
                ax.set_xlabel("")
            if i % n_across:
                ax.set_ylabel("")

    def _draw_plane(self, ax: Axes, values: Array, kwargs: dict[str, Any]) -> Any:
        from matplotlib.collections import QuadMesh

        style = with_defaults(kwargs, QuadMesh, cmap="viridis", shading="nearest")
        mesh = ax.pcolormesh(*self.places, values, **style)
        self.colorbars_.append(self.figure_.colorbar(mesh, ax=ax))
        return mesh

    def _draw_line(self, ax: Axes, values: Array, kwargs: dict[str, Any]) -> Any:
        from matplotlib.lines import Line2D

        style = with_defaults(kwargs, Line2D, color="C0")
        return ax.plot(self.places[0], values, **style)[0]
