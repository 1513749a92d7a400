"""Displays show how training went and what a fitted autoencoder makes of its rows.

They follow scikit-learn's manner: the constructor keeps computed data, `from_estimator`
computes and draws, `plot` draws, as often as one likes. matplotlib is an optional
dependency and is imported when something is drawn, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_scalar
from sklearn.utils.validation import check_is_fitted

from skae.layout import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D

__all__ = ["LossCurveDisplay", "ReconstructionDisplay"]

#: Up to this many columns are drawn as bars.
FEW_COLUMNS = 12

#: At most so many columns are named on the axis.
MOST_NAMES = 24

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


# --- loss curves ----------------------------------------------------------------------


def by_stage(values: Any, only_stage: str) -> dict[str, Array]:
    """Return one array for each stage that has any values."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        values = {only_stage: values}
    arrays = {str(key): np.asarray(value, float) for key, value in values.items()}
    for key, value in arrays.items():
        if value.ndim != 1:
            raise ValueError(
                f"{key!r} must hold one number for each epoch, got an array of shape "
                f"{value.shape}."
            )
    return {key: value for key, value in arrays.items() if len(value)}


class LossCurveDisplay:
    """Loss against epochs.

    Drawn are the training loss of every stage of training and, where rows were held
    out, their loss as dashed lines of the same colour. The two need not meet: the
    training loss is measured during the epoch, on corrupted rows and with penalties,
    the validation loss after it, on clean rows and without.

    It is recommended to use `from_estimator` to create a `LossCurveDisplay`. All
    parameters are stored as attributes.

    Parameters
    ----------
    loss_curve : array-like of shape (n_epochs,) or dict of {str: array-like}
        Loss of each epoch, in nats per row. A dict holds one such sequence for each
        stage of training, in their order. Stored as a dict of arrays; the name of an
        only stage is then "training".
    validation_scores : array-like or dict of {str: array-like}, default=None
        Minus the loss of the held-out rows after each epoch, in nats per row. A
        dict holds one sequence for each stage; a single sequence belongs to the last
        stage. A sequence shorter than its stage belongs to its last epochs. Stored as
        a dict of arrays.
    name : str, default=None
        Name of the estimator in the legend. No name is shown if None.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the curves.
    figure_ : matplotlib Figure
        Figure that holds the axes.
    lines_ : dict of {str: matplotlib Line2D}
        Training loss of each stage.
    validation_lines_ : dict of {str: matplotlib Line2D}
        Validation loss of each stage that has one.

    See Also
    --------
    ReconstructionDisplay : Rows and their reconstructions.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import DenoisingAutoencoder
    >>> from skae.displays import LossCurveDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = DenoisingAutoencoder(16, early_stopping=True, tol=0.5, random_state=0)
    >>> display = LossCurveDisplay.from_estimator(model.fit(X))
    >>> len(display.loss_curve["training"]) == model.n_iter_
    True
    >>> display.ax_.get_ylabel()
    'Loss (nats per row)'
    """

    ax_: Axes
    figure_: Figure | SubFigure
    lines_: dict[str, Line2D]
    validation_lines_: dict[str, Line2D]

    def __init__(
        self,
        loss_curve: ArrayLike | Mapping[str, ArrayLike],
        *,
        validation_scores: ArrayLike | Mapping[str, ArrayLike] | None = None,
        name: str | None = None,
    ) -> None:
        self.loss_curve = by_stage(loss_curve, "training")
        if not self.loss_curve:
            raise ValueError("loss_curve must hold at least one epoch, got none.")
        last_stage = list(self.loss_curve)[-1]
        self.validation_scores = by_stage(validation_scores, last_stage)
        self.name = name
        for stage, scores in self.validation_scores.items():
            n_epochs = len(self.loss_curve.get(stage, ()))
            if len(scores) > n_epochs:
                raise ValueError(
                    f"validation_scores holds {len(scores)} epochs of {stage!r}, but "
                    f"loss_curve holds {n_epochs}."
                )

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        *,
        name: str | None = None,
        ax: Axes | None = None,
        validation_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the loss curve of a fitted autoencoder.

        Parameters
        ----------
        estimator : estimator instance
            Fitted autoencoder; of a pipeline, its last step.
        name : str, default=None
            Name of the estimator in the legend. If None, its class's name.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.
        validation_kwargs : dict, default=None
            Keywords for matplotlib's `plot`, for the validation loss only.
        **kwargs : dict
            Keywords for matplotlib's `plot`.

        Returns
        -------
        display : LossCurveDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        display = cls(
            estimator.loss_curve_,
            validation_scores=getattr(estimator, "validation_scores_", None),
            name=type(estimator).__name__ if name is None else name,
        )
        return display.plot(ax, validation_kwargs=validation_kwargs, **kwargs)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        name: str | None = None,
        validation_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the stages one after another along one axis of epochs.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.
        name : str, default=None
            Name of the estimator in the legend. If None, the display's own.
        validation_kwargs : dict, default=None
            Keywords for matplotlib's `plot`, for the validation loss only.
        **kwargs : dict
            Keywords for matplotlib's `plot`.

        Returns
        -------
        display : LossCurveDisplay
            The display itself.
        """
        plt = require_matplotlib(f"{type(self).__name__}.plot")
        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        name = self.name if name is None else name
        prefix = "" if name is None else f"{name}: "
        self.ax_, self.figure_ = ax, ax.figure
        self.lines_, self.validation_lines_ = {}, {}
        end = 0
        for stage, loss in self.loss_curve.items():
            end += len(loss)
            self._draw(stage, end, prefix, kwargs, validation_kwargs or {})
        count_in_whole_numbers(ax)
        ax.set(xlabel="Epoch", ylabel="Loss (nats per row)")
        ax.legend()
        return self

    def _draw(
        self,
        stage: str,
        end: int,
        prefix: str,
        kwargs: dict[str, Any],
        validation_kwargs: dict[str, Any],
    ) -> None:
        """Draw the losses of a stage whose last epoch is number `end`."""
        from matplotlib.lines import Line2D

        def line(loss: Array, kwargs: dict[str, Any], **defaults: Any) -> Line2D:
            # A line through a single epoch has no length: only a marker shows it.
            marker = "o" if len(loss) == 1 else None
            style = with_defaults(kwargs, Line2D, marker=marker, **defaults)
            epochs = np.arange(end - len(loss), end) + 1
            return self.ax_.plot(epochs, loss, **style)[0]

        trained = line(self.loss_curve[stage], kwargs, label=prefix + stage)
        self.lines_[stage] = trained
        if stage in self.validation_scores:
            only = len(self.loss_curve) == 1
            style = with_defaults(kwargs, Line2D) | {
                "color": trained.get_color(),
                "linestyle": "--",
                "label": prefix + ("validation" if only else f"{stage}, validation"),
            }
            validation_kwargs = with_defaults(validation_kwargs, Line2D, **style)
            loss = -self.validation_scores[stage]
            self.validation_lines_[stage] = line(loss, validation_kwargs)


# --- reconstructions ------------------------------------------------------------------


def first_rows(X: Any, n_rows: int) -> Any:
    """Return the first rows of an array, a sparse matrix or a data frame, as it is."""
    if sparse.issparse(X):
        return X.tocsr()[:n_rows]
    return X.head(n_rows) if hasattr(X, "head") else X[:n_rows]


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


def names_of_columns(X: Any, estimator: Any) -> Any:
    """Return the estimator's names, or else the data frame's, or None."""
    names = getattr(estimator, "feature_names_in_", None)
    return getattr(X, "columns", None) if names is None else names


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
        self.image_shape = self._check_image_shape(image_shape)
        self.feature_names = self._check_feature_names(feature_names)
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

    def _check_image_shape(self, shape: Any) -> tuple[int, int] | None:
        if shape is None:
            return None
        n_features = self.X.shape[1]
        sizes = np.asarray(shape)
        whole = sizes.shape == (2,) and sizes.dtype.kind in "iu" and sizes.min() > 0
        if not whole or sizes.prod() != n_features:
            raise ValueError(
                f"image_shape={shape!r} must be a height and a width whose product is "
                f"n_features={n_features}."
            )
        return int(sizes[0]), int(sizes[1])

    def _check_feature_names(self, names: Any) -> NDArray[Any] | None:
        if names is None:
            return None
        array, n_features = np.asarray(names, dtype=object), self.X.shape[1]
        if array.shape != (n_features,):
            raise ValueError(
                f"feature_names has shape {array.shape}, but X has "
                f"n_features={n_features} columns."
            )
        return array.astype(str)

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
        axes = np.asarray(ax, dtype=object)
        if axes.ndim == 0:
            grid = outer_frame(ax).subgridspec(*shape)
            axes = grid.subplots(squeeze=False, sharex=share, sharey=share)
            self.ax_ = ax
        elif axes.size == np.prod(shape):
            self.ax_ = None
        else:
            raise ValueError(
                f"ax holds {axes.size} axes, but {shape[0]} x {shape[1]} = "
                f"{np.prod(shape)} are needed, or a single one to divide."
            )
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
        panels = self.axes_[:, 0]
        draw = self._draw_lines if kind == "line" else self._draw_bars
        self.artists_ = {key: [] for key in self._series()}
        for i, ax in enumerate(panels):
            draw(ax, i, name, kwargs)
            ax.set_ylabel(f"row {i}")
            self._name_columns(ax)
        if self.feature_names is None:
            panels[-1].set_xlabel("column")
        keys = [drawn[0] for drawn in self.artists_.values()]
        above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
        panels[0].legend(handles=keys, ncols=len(keys), frameon=False, **above)

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
        places = np.arange(0, n_features, -(-n_features // MOST_NAMES))
        ax.set_xticks(places, self.feature_names[places].tolist(), rotation=90)
