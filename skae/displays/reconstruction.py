"""Rows beside what an autoencoder makes of them."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

from skae.displays._common import (
    FEW_COLUMNS,
    MOST_NAMES,
    check_image_shape,
    check_names,
    count_in_whole_numbers,
    dense,
    every_so_many,
    names_of_columns,
    panels,
    require_matplotlib,
    with_defaults,
)
from skae.layout import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["ReconstructionDisplay"]

KINDS = ("auto", "image", "line", "bar")

#: The original lies broad and pale under what is compared with it.
LOOKS: dict[str, dict[str, dict[str, Any]]] = {
    "line": {
        "original": {"color": "0.75", "linewidth": 4},
        "corrupted": {"color": "C1", "linewidth": 1, "linestyle": "--"},
        "reconstruction": {"color": "C0", "linewidth": 1.5},
    },
    "bar": {
        "original": {"color": "0.75"},
        "corrupted": {"color": "C1"},
        "reconstruction": {"color": "C0"},
    },
}


def first_rows(X: Any, n_rows: int) -> Any:
    """Return the first rows of an array, a sparse matrix or a data frame, as it is."""
    if sparse.issparse(X):
        return X.tocsr()[:n_rows]
    return X.head(n_rows) if hasattr(X, "head") else X[:n_rows]


class ReconstructionDisplay:
    """Rows and their reconstructions.

    With an `image_shape`, each row of X becomes a column of images: the original on
    top, the reconstruction at the bottom, all on one grey scale. Otherwise each row
    gets a panel in which original and reconstruction lie on top of each other, as
    lines or, of a few columns, as bars.

    It is recommended to use `from_estimator` to create a `ReconstructionDisplay`. All
    parameters are stored as attributes.

    Parameters
    ----------
    X : array-like of shape (n_rows, n_features)
        Original rows.
    reconstructions : array-like of shape (n_rows, n_features)
        Their reconstructions.
    X_corrupted : array-like of shape (n_rows, n_features), default=None
        What the reconstructions were made from, if not X itself.
    image_shape : tuple of (int, int), default=None
        Height and width of the images that the rows are. None if they are none.
    feature_names : array-like of shape (n_features,), default=None
        Names of the columns, for lines and bars.
    name : str, default=None
        What to call the reconstructions; "reconstruction" if None.

    Attributes
    ----------
    ax_ : matplotlib Axes or None
        Axes inside which the panels lie; None if the panels were given.
    axes_ : ndarray of matplotlib Axes
        The panels: of shape (2, n_rows) with images, or (3, n_rows) if there are
        corrupted rows; of shape (n_rows, 1) with lines and bars.
    figure_ : matplotlib Figure
        Figure that holds the panels.
    artists_ : dict of {str: list}
        The images, lines or bar containers of all rows, under the keys "original",
        "corrupted" if there are corrupted rows, and "reconstruction".

    See Also
    --------
    LatentSpaceDisplay : The codes of rows.
    LatentManifoldDisplay : What the codes of a plane are decoded to.
    LossCurveDisplay : Loss against epochs.

    Notes
    -----
    The panels of a figure share their axes. Where columns have very different units,
    scale them first, or only the largest will be seen.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import DenoisingAutoencoder
    >>> from skae.displays import ReconstructionDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = DenoisingAutoencoder(16, max_iter=500, tol=0.5, random_state=0).fit(X)
    >>> display = ReconstructionDisplay.from_estimator(model, X, image_shape=(8, 8))
    >>> display.reconstructions.shape
    (6, 64)
    >>> display.axes_.shape
    (2, 6)
    """

    ax_: Axes | None
    axes_: NDArray[Any]
    figure_: Figure | SubFigure
    artists_: dict[str, list[Any]]

    def __init__(
        self,
        X: ArrayLike,
        reconstructions: ArrayLike,
        *,
        X_corrupted: ArrayLike | None = None,
        image_shape: tuple[int, int] | None = None,
        feature_names: ArrayLike | None = None,
        name: str | None = None,
    ) -> None:
        self.X = dense(X, "X")
        self.X_corrupted = None
        if X_corrupted is not None:
            self.X_corrupted = self._like_X(X_corrupted, "X_corrupted")
        self.reconstructions = self._like_X(reconstructions, "reconstructions")
        self.image_shape = check_image_shape(image_shape, self.X.shape[1])
        self.feature_names = check_names(
            feature_names, "feature_names", self.X.shape[1], "X has n_features"
        )
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: ArrayLike,
        *,
        X_corrupted: ArrayLike | None = None,
        image_shape: tuple[int, int] | None = None,
        n_rows: int = 6,
        feature_names: ArrayLike | None = None,
        kind: Literal["auto", "image", "line", "bar"] = "auto",
        name: str | None = None,
        ax: Axes | ArrayLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Encode and decode the first rows of X, and draw the result.

        Parameters
        ----------
        estimator : estimator instance
            Fitted autoencoder, or whatever else has `transform` and
            `inverse_transform`, such as a pipeline or PCA.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Original rows.
        X_corrupted : {array-like, sparse matrix} of shape (n_samples, n_features), \
                default=None
            Damaged versions of the same rows. If given, these are what is
            reconstructed.
        image_shape : tuple of (int, int), default=None
            Height and width of the images that the rows are. None if they are none.
        n_rows : int, default=6
            How many rows to show, from the first one on.
        feature_names : array-like of shape (n_features,), default=None
            Names of the columns, for lines and bars. If None, the estimator's
            `feature_names_in_` or the columns of the data frame X, if there are any.
        kind : {"auto", "image", "line", "bar"}, default="auto"
            What to draw; see `plot`.
        name : str, default=None
            What to call the reconstructions; "reconstruction" if None.
        ax : matplotlib Axes or array-like of Axes, default=None
            Where to draw; see `plot`.
        **kwargs : dict
            Keywords for matplotlib's `imshow`, `plot` or `bar`.

        Returns
        -------
        display : ReconstructionDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        n_rows = check_scalar(n_rows, "n_rows", Integral, min_val=1)
        if feature_names is None:
            feature_names = names_of_columns(X, estimator)
        X = first_rows(X, n_rows)
        source = X
        if X_corrupted is not None:
            source = X_corrupted = first_rows(X_corrupted, n_rows)
        display = cls(
            X,
            estimator.inverse_transform(estimator.transform(source)),
            X_corrupted=X_corrupted,
            image_shape=image_shape,
            feature_names=feature_names,
            name=name,
        )
        return display.plot(ax, kind=kind, **kwargs)

    def plot(
        self,
        ax: Axes | ArrayLike | None = None,
        *,
        kind: Literal["auto", "image", "line", "bar"] = "auto",
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw rows and reconstructions.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, default=None
            A single one is the place inside which panels are made; an array of them
            are the panels, in the order of `axes_`. If None, a new figure is made.
        kind : {"auto", "image", "line", "bar"}, default="auto"
            What to draw. "auto" draws images if there is an `image_shape`, bars if
            there are at most 12 columns, and lines otherwise.
        name : str, default=None
            What to call the reconstructions. If None, the display's own name.
        **kwargs : dict
            Keywords for matplotlib's `imshow`, `plot` or `bar`, for all that is drawn.

        Returns
        -------
        display : ReconstructionDisplay
            The display itself.
        """
        plt = require_matplotlib(f"{type(self).__name__}.plot")
        what = self._check_kind(kind)
        images = what == "image"
        shape = (len(self._series()), len(self.X)) if images else (len(self.X), 1)
        if ax is None:
            figure = plt.figure(figsize=self._size(images), layout="constrained")
            ax = figure.add_subplot()
        self._place(ax, shape, share=not images)
        name = name or self.name or "reconstruction"
        if images:
            self._draw_images(self.image_shape, name, kwargs)
        else:
            self._draw_panels(what, name, kwargs)
        return self

    # --- checks -----------------------------------------------------------------------

    def _like_X(self, rows: Any, name: str) -> Array:
        x = dense(rows, name)
        if x.shape != self.X.shape:
            raise ValueError(
                f"{name} has shape {x.shape}, but X has shape {self.X.shape}."
            )
        return x

    def _check_kind(self, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r} must be one of {KINDS}.")
        if kind == "image" and self.image_shape is None:
            raise ValueError("kind='image' needs an image_shape, got None.")
        if kind != "auto":
            return kind
        if self.image_shape is not None:
            return "image"
        return "bar" if self.X.shape[1] <= FEW_COLUMNS else "line"

    # --- drawing ----------------------------------------------------------------------

    def _series(self) -> dict[str, Array]:
        """Return what is shown of each row, from top to bottom."""
        series = {"original": self.X, "reconstruction": self.reconstructions}
        if self.X_corrupted is not None:
            return {"original": self.X, "corrupted": self.X_corrupted} | series
        return series

    def _size(self, images: bool) -> tuple[float, float]:
        """Return the width and height of a new figure, in inches."""
        n_rows = len(self.X)
        if not images or self.image_shape is None:
            names = 0.0 if self.feature_names is None else 1.0
            return 7.0, min(1.0 + names + 1.1 * n_rows, 20.0)
        height, width = self.image_shape
        cell = min(1.0, 15.0 / n_rows)
        cell_height = cell * min(max(height / width, 0.25), 4.0)
        return 1.2 + cell * n_rows, 0.1 + (0.05 + cell_height) * len(self._series())

    def _place(self, ax: Any, shape: tuple[int, int], share: bool) -> None:
        """Set the panels: those given, or new ones inside the one given."""
        n_panels = shape[0] * shape[1]
        self.ax_, axes = panels(ax, shape, n_panels, sharex=share, sharey=share)
        self.axes_ = axes.reshape(shape)
        self.figure_ = self.axes_[0, 0].figure

    def _draw_images(self, shape: Any, name: str, kwargs: dict[str, Any]) -> None:
        from matplotlib.image import AxesImage

        series = self._series()
        style = with_defaults(kwargs, AxesImage, cmap="gray")
        if "norm" not in style:
            values = np.stack(list(series.values()))
            style.setdefault("vmin", np.nanmin(values))
            style.setdefault("vmax", np.nanmax(values))
        self.artists_ = {}
        for axes, (key, rows) in zip(self.axes_, series.items(), strict=True):
            images = rows.reshape(-1, *shape)
            pairs = zip(axes, images, strict=True)
            self.artists_[key] = [ax.imshow(image, **style) for ax, image in pairs]
            for ax in axes:
                ax.set(xticks=[], yticks=[])
            label = name if key == "reconstruction" else key
            axes[0].set_ylabel(label, rotation=0, ha="right", va="center")

    def _draw_panels(self, kind: str, name: str, kwargs: dict[str, Any]) -> None:
        column = self.axes_[:, 0]
        draw = self._draw_lines if kind == "line" else self._draw_bars
        self.artists_ = {key: [] for key in self._series()}
        for i, ax in enumerate(column):
            draw(ax, i, name, kwargs)
            ax.set_ylabel(f"row {i}")
            self._name_columns(ax)
        if self.feature_names is None:
            column[-1].set_xlabel("column")
        keys = [drawn[0] for drawn in self.artists_.values()]
        above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
        column[0].legend(handles=keys, ncols=len(keys), frameon=False, **above)

    def _draw_lines(self, ax: Axes, i: int, name: str, kwargs: dict[str, Any]) -> None:
        from matplotlib.lines import Line2D

        for key, rows in self._series().items():
            label = name if key == "reconstruction" else key
            style = with_defaults(kwargs, Line2D, label=label, **LOOKS["line"][key])
            self.artists_[key] += ax.plot(rows[i], **style)

    def _draw_bars(self, ax: Axes, i: int, name: str, kwargs: dict[str, Any]) -> None:
        from matplotlib.patches import Rectangle

        series = self._series()
        width = 0.8 / len(series)
        places = np.arange(self.X.shape[1]) - width * (len(series) - 1) / 2
        for k, (key, rows) in enumerate(series.items()):
            label = name if key == "reconstruction" else key
            style = with_defaults(
                kwargs, Rectangle, label=label, width=width, **LOOKS["bar"][key]
            )
            bars = ax.bar(places + k * width, rows[i], **style)
            self.artists_[key].append(bars)
        ax.axhline(0.0, color="0.3", linewidth=0.8)

    def _name_columns(self, ax: Axes) -> None:
        """Label every column if there are few, and every so many otherwise."""
        if self.feature_names is None:
            count_in_whole_numbers(ax)
            return
        n_features = self.X.shape[1]
        places = every_so_many(n_features, MOST_NAMES)
        ax.set_xticks(places, self.feature_names[places].tolist(), rotation=90)
