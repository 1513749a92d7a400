"""The loss of a fit, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from skae.displays._common import (
    count_in_whole_numbers,
    require_matplotlib,
    with_defaults,
)
from skae.layout import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D

__all__ = ["LossCurveDisplay"]


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
        Minus the loss of the held-out rows after each epoch, in nats per row; of a
        classifier or a regressor, minus its `validation_loss_curve_`. A
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
        scores = getattr(estimator, "validation_scores_", None)
        # Where scores are no losses, the held-out rows' losses stand beside them.
        losses = getattr(estimator, "validation_loss_curve_", None)
        display = cls(
            estimator.loss_curve_,
            validation_scores=scores if losses is None else np.negative(losses),
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
