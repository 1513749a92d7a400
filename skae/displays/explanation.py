"""Why a row is an outlier, column by column."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

from skae._validation import rows_of_container
from skae.displays._common import (
    check_names,
    dense,
    names_of_columns,
    names_of_components,
    require_matplotlib,
    with_defaults,
)
from skae.layout import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure, SubFigure

__all__ = ["ExplanationDisplay"]

#: What makes a row more unusual, what makes it less so, and what is not shown.
HARMFUL, HELPFUL, OTHER = "C3", "C0", "0.7"

#: What a detector says of each column.
PARTS = ("contributions", "expected_values", "standard_scores")

#: Longer names lose their middles.
MOST_LETTERS = 60

#: How far the two lines of a label are from the middle of the bar, in bars.
ABOVE, BELOW = 0.17, 0.22


# --- checks ---------------------------------------------------------------------------


def check_vector(values: Any, name: str, n_features: int | None = None) -> Array:
    """Return one number for each column, as many as there are contributions."""
    array = np.asarray(values, dtype=np.float64)
    if n_features is None and (array.ndim != 1 or not array.size):
        raise ValueError(
            f"{name} has shape {array.shape}, but must be those of one row, of shape "
            f"(n_features,)."
        )
    if n_features is not None and array.shape != (n_features,):
        raise ValueError(
            f"{name} has shape {array.shape}, but contributions has "
            f"n_features={n_features} columns."
        )
    return array


def check_finite(array: Array, name: str) -> None:
    """Refuse numbers that no bar can show."""
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ValueError(
            f"{name} must be finite, but holds {array[bad[0]]} at {bad[0]}."
        )


def check_row(row: Any, X: Any) -> int:
    """Return the place of a row of X."""
    n_samples = X.shape[0] if hasattr(X, "shape") else len(X)
    if (
        isinstance(row, bool)
        or not isinstance(row, Integral)
        or not 0 <= int(row) < n_samples
    ):
        raise ValueError(
            f"row={row!r} must be a whole number from 0 to {n_samples - 1}: X has "
            f"n_samples={n_samples} rows."
        )
    return int(row)


# --- what to ask ----------------------------------------------------------------------


def detector_of(estimator: Any, X: Any) -> tuple[Any, Any, Any]:
    """Return a pipeline's detector, and what it gets as X, with names."""
    # Not above: it imports packages that are optional.
    from sklearn.pipeline import Pipeline

    names = None
    while isinstance(estimator, Pipeline):
        if len(estimator) > 1:
            X = estimator[:-1].transform(X)
            names = names_of_components(estimator[:-1])
        estimator = estimator[-1]
    if not hasattr(estimator, "explain"):
        raise TypeError(
            f"estimator is a {type(estimator).__name__}, which does not explain its "
            f"scores; give an AutoencoderOutlierDetector, or a pipeline that ends in "
            f"one."
        )
    known = names_of_columns(X, estimator)
    return estimator, X, names if known is None else known


def name_of_row(X: Any, row: int) -> str:
    """Return what to call a row: by its label in a data frame that has labels."""
    return f"row {X.index[row] if hasattr(X, 'iloc') else row}"


# --- numbers and names as text --------------------------------------------------------


def decimals_for(value: float, n_digits: int) -> int:
    """Return how many decimals show so many significant digits of a number."""
    if not value or not np.isfinite(value):
        return 0
    return max(0, n_digits - 1 - int(np.floor(np.log10(abs(value)))))


def as_text(value: float, decimals: int, sign: str = "") -> str:
    """Write a number, without the sign of a zero; very long ones with an exponent."""
    from matplotlib.ticker import Formatter

    rounded = round(float(value), decimals) + 0.0
    form = f".{decimals}f" if abs(rounded) < 1e7 and decimals < 8 else ".4g"
    return Formatter.fix_minus(f"{rounded:{sign if rounded else ''}{form}}")


def trimmed(text: str) -> str:
    """Return a number without the last zeros of its decimals."""
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def beside(value: float, other: float) -> tuple[str, str]:
    """Write a number and another one, with decimals enough to tell them apart.

    The first gets at least four digits, to be found again in the data.
    """
    apart = decimals_for(value - other, 2)
    decimals = max(decimals_for(value, 4), apart)
    fewer = decimals if value == other else apart
    return trimmed(as_text(value, decimals)), trimmed(as_text(other, fewer))


def shortened(name: str) -> str:
    """Return a name, without its middle if it is long."""
    if len(name) <= MOST_LETTERS:
        return name
    half = MOST_LETTERS // 2
    # Half of a formula is none.
    first, last = (
        part.replace("$", r"\$") for part in (name[: half - 1], name[-half:])
    )
    return f"{first}\N{HORIZONTAL ELLIPSIS}{last}"


def limits(lengths: Array, n_letters: int) -> tuple[float, float]:
    """Return the ends of an axis that has room for numbers at the ends of the bars."""
    low, high = min(0.0, lengths.min()), max(0.0, lengths.max())
    room = (0.03 + 0.02 * n_letters) * (high - low or 1.0)
    sides = (lengths < 0).any(), (lengths >= 0).any()
    left, right = (room if side else 0.1 * room for side in sides)
    return low - left, high + right


class ExplanationDisplay:
    """What each column adds to the score of a row, or takes from it.

    A bar is what a column contributes to the score of one row, less what is typical of
    the column. Bars to the left, in red, make the row more unusual, those to the right,
    in blue, less so; the most harmful one is on top. Of many columns, those with the
    longest bars are shown, and a grey bar is the sum of all others, so that the bars
    together are the score less the typical score.

    It is recommended to use `from_estimator` to create an `ExplanationDisplay`. All
    parameters are stored as attributes.

    Parameters
    ----------
    contributions : array-like of shape (n_features,)
        What each column contributes to the score of the row.
    typical_contributions : array-like of shape (n_features,)
        What the columns contribute to the scores of normal rows.
    values : array-like of shape (n_features,), default=None
        The row itself, for the labels; in its own units, as `expected_values` are.
    expected_values : array-like of shape (n_features,), default=None
        What the columns were expected to be, for the labels.
    standard_scores : array-like of shape (n_features,), default=None
        How far they are from that, in standard deviations, for the labels.
    feature_names : array-like of shape (n_features,), default=None
        Names of the columns. If None, they are numbered.
    offset : float, default=None
        The line, for the title: the row is an outlier if its score is lower.
    unit : str or None, default="nats"
        Unit of the contributions; None if they have none.
    name : str, default=None
        What to call the row in the title. No name is shown if None.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the bars.
    figure_ : matplotlib Figure
        Figure that holds the axes.
    bars_ : matplotlib BarContainer
        The bars from top to bottom, that of the other columns last.
    columns_ : ndarray of int
        Places of the columns whose bars are shown, from top to bottom.

    See Also
    --------
    AutoencoderOutlierDetector : The detector that explains its scores.
    ReconstructionDisplay : Rows and their reconstructions.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skae import AutoencoderOutlierDetector, DenoisingAutoencoder
    >>> from skae.displays import ExplanationDisplay
    >>> wine = load_wine()
    >>> normal, odd = wine.data[wine.target == 0], wine.data[wine.target == 1]
    >>> model = DenoisingAutoencoder(4, max_iter=50, learning_rate="cosine")
    >>> detector = AutoencoderOutlierDetector(model, random_state=0).fit(normal)
    >>> display = ExplanationDisplay.from_estimator(
    ...     detector, odd, row=0, feature_names=wine.feature_names
    ... )
    >>> print(display.feature_names[display.columns_[0]])
    flavanoids
    """

    ax_: Axes
    figure_: Figure | SubFigure
    bars_: BarContainer
    columns_: NDArray[np.intp]

    def __init__(
        self,
        contributions: ArrayLike,
        typical_contributions: ArrayLike,
        *,
        values: ArrayLike | None = None,
        expected_values: ArrayLike | None = None,
        standard_scores: ArrayLike | None = None,
        feature_names: ArrayLike | None = None,
        offset: float | None = None,
        unit: str | None = "nats",
        name: str | None = None,
    ) -> None:
        self.contributions = check_vector(contributions, "contributions")
        n_features = len(self.contributions)
        self.typical_contributions = check_vector(
            typical_contributions, "typical_contributions", n_features
        )
        check_finite(self.contributions, "contributions")
        check_finite(self.typical_contributions, "typical_contributions")
        self.values = self._check(values, "values")
        self.expected_values = self._check(expected_values, "expected_values")
        self.standard_scores = self._check(standard_scores, "standard_scores")
        self.feature_names = check_names(
            feature_names, "feature_names", n_features, "contributions has n_features"
        )
        self.offset = offset
        self.unit = unit
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: ArrayLike,
        *,
        row: int = 0,
        n_columns: int = 10,
        feature_names: ArrayLike | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Explain the score of one row, and draw the result.

        Parameters
        ----------
        estimator : estimator instance
            Fitted :class:`~skae.AutoencoderOutlierDetector`, or a pipeline that ends in
            one. Columns and values are then those that the pipeline hands to it.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows of which one is explained.
        row : int, default=0
            Place of that row in X, from 0 on.
        n_columns : int, default=10
            How many columns to show at most; see `plot`.
        feature_names : array-like of shape (n_features,), default=None
            Names of the columns. If None, the estimator's `feature_names_in_`, the
            columns of the data frame X or what the pipeline calls them, if there are
            any.
        name : str, default=None
            What to call the row in the title. If None, "row" and its label in the index
            of the data frame X, if it has one, or else its place.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.
        **kwargs : dict
            Keywords for matplotlib's `barh`.

        Returns
        -------
        display : ExplanationDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        row = check_row(row, X)
        name = name_of_row(X, row) if name is None else name
        detector, X, names = detector_of(
            estimator, rows_of_container(X, np.array([row]))
        )
        explanation = detector.explain(X)
        parts = {key: dense(explanation[key], key)[0] for key in PARTS}
        display = cls(
            **parts,
            typical_contributions=detector.typical_contributions_,
            values=dense(X, "X")[0],
            feature_names=names if feature_names is None else feature_names,
            offset=detector.offset_,
            # What is in squared standard deviations is not in nats.
            unit=None
            if "reconstruction_error" in detector._scoring["weights"]
            else "nats",
            name=name,
        )
        return display.plot(ax, n_columns=n_columns, **kwargs)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        n_columns: int = 10,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw a bar for each column that matters, and one for all others.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made. A figure of your own needs a
            layout, such as "constrained", that makes room for the names.
        n_columns : int, default=10
            How many columns to show at most: those with the longest bars to either
            side. The others share one bar.
        name : str, default=None
            What to call the row in the title. If None, the display's own name.
        **kwargs : dict
            Keywords for matplotlib's `barh`.

        Returns
        -------
        display : ExplanationDisplay
            The display itself.
        """
        plt = require_matplotlib(f"{type(self).__name__}.plot")
        check_scalar(n_columns, "n_columns", Integral, min_val=1)
        self.columns_, lengths = self._lengths(int(n_columns))
        names = self._names(len(lengths))
        if ax is None:
            width = max(7.0, 4.6 + 0.072 * max(map(len, names)))
            size = width, 1.2 + 0.4 * len(names)
            _, ax = plt.subplots(figsize=size, layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        decimals = max(1, decimals_for(np.abs(lengths).max(), 3))
        self._draw(lengths, decimals, kwargs)
        self._label(names)
        self._entitle(self.name if name is None else name, decimals)
        return self

    def _check(self, values: Any, name: str) -> Array | None:
        if values is None:
            return None
        return check_vector(values, name, len(self.contributions))

    # --- what is shown ----------------------------------------------------------------

    def _lengths(self, n_columns: int) -> tuple[NDArray[np.intp], Array]:
        """Return the columns to show, and the lengths of all bars."""
        less = self.contributions - self.typical_contributions
        longest = np.argsort(-np.abs(less), kind="stable")
        shown, others = np.sort(longest[:n_columns]), longest[n_columns:]
        shown = shown[np.argsort(less[shown], kind="stable")]
        rest = [less[others].sum()] if len(others) else []
        return shown, np.array([*less[shown], *rest])

    def _names(self, n_bars: int) -> list[str]:
        """Return what to call the bars."""
        names = [shortened(self._name(column)) for column in self.columns_]
        n_others = len(self.contributions) - len(names)
        others = f"{n_others} other column{'s' if n_others > 1 else ''}"
        return names + [others] * (n_bars - len(names))

    def _name(self, column: int) -> str:
        if self.feature_names is None:
            return f"column {column}"
        return str(self.feature_names[column])

    def _details(self, column: int) -> str:
        """Return what is known of a column of the row: its value and the like."""
        value, expected = (
            None if part is None else float(part[column])
            for part in (self.values, self.expected_values)
        )
        known = [x for x in (value, expected) if x is not None]
        numbers = beside(known[0], known[-1]) if known else ("", "")
        texts = [] if value is None else [f"= {numbers[0]}"]
        texts += [] if expected is None else [f"expected {numbers[1]}"]
        if self.standard_scores is not None:
            texts.append(f"{as_text(self.standard_scores[column], 1, sign='+')} sd")
        return ", ".join(texts)

    # --- drawing ----------------------------------------------------------------------

    def _draw(self, lengths: Array, decimals: int, kwargs: dict[str, Any]) -> None:
        """Draw the bars, with their lengths at their ends."""
        from matplotlib.patches import Rectangle

        colors = [HARMFUL if length < 0 else HELPFUL for length in lengths]
        colors[len(self.columns_) :] = [OTHER] * (len(lengths) - len(self.columns_))
        style = with_defaults(kwargs, Rectangle, color=colors, height=0.6)
        self.bars_ = self.ax_.barh(np.arange(len(lengths)), lengths, **style)
        texts = [as_text(length, decimals, sign="+") for length in lengths]
        self.ax_.bar_label(self.bars_, texts, padding=3, fontsize="small")
        self.ax_.axvline(0.0, color="0.3", linewidth=0.8)
        room = max(map(len, texts))
        self.ax_.set(xlim=limits(lengths, room), ylim=(len(texts) - 0.4, -0.6))
        self.ax_.spines[["left", "top", "right"]].set_visible(False)

    def _label(self, names: list[str]) -> None:
        """Name the bars, and say in small type what was expected instead."""
        ax, heights = self.ax_, np.arange(float(len(names)))
        details = [self._details(column) for column in self.columns_]
        lower = heights[: len(details)] + BELOW
        if details[0]:
            heights[: len(details)] -= ABOVE
        ax.set_yticks(heights, names)
        ax.set_yticks(lower, details, minor=True, alpha=0.7)
        ax.tick_params(axis="y", which="both", length=0, pad=4)
        ax.tick_params(axis="y", which="minor", labelsize="small")

    def _entitle(self, name: str | None, decimals: int) -> None:
        """Say what the score is, and what the lengths of the bars are."""
        score = self.contributions.sum()
        if self.offset is not None:
            # Which of the two is lower must be seen, however close they are.
            decimals = max(decimals, min(decimals_for(score - self.offset, 1), 6))
        known = {
            "score": score,
            "typical": self.typical_contributions.sum(),
            "line": self.offset,
        }
        texts = [
            f"{k} {as_text(x, decimals)}" for k, x in known.items() if x is not None
        ]
        title = ", ".join(texts)
        title = title.capitalize() if name is None else f"{name}: {title}"
        self.ax_.set_title(title, fontsize="medium")
        unit = "" if self.unit is None else f" ({self.unit})"
        self.ax_.set_xlabel(f"Contribution to the score, less what is typical{unit}")
