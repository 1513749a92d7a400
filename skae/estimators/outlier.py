"""Any autoencoder as an outlier detector: where the line is, and why a row is out."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import Bunch, Tags, get_tags
from sklearn.utils.validation import check_is_fitted, validate_data

from skae._validation import (
    OPEN_FRACTION,
    POSITIVE,
    POSITIVE_INT,
    Interval,
    StrOptions,
    _fit_context,
    check_weight,
    clone,
    like_container,
)
from skae.estimators._base import BaseAutoencoder
from skae.estimators._fitted import Versioned, all_or_nothing, new_generator
from skae.estimators._held_out import Held, Table, in_parts
from skae.estimators._scores import Scorer, check_code, check_score, medians
from skae.estimators._supervised import BaseSupervisedStack
from skae.estimators.denoising import DenoisingAutoencoder
from skae.exemplars import LEAST_SPREAD, dense
from skae.layout import Array
from skae.rows import arrange
from skae.thresholds import ROUNDING, fence, p_values, threshold

__all__ = ["AutoencoderOutlierDetector"]

#: The autoencoder of a detector that is given none.
DEFAULT = DenoisingAutoencoder(
    64,
    corruption="gaussian",
    corruption_level=2.0,
    learning_rate="cosine",
    max_iter=50,
)

#: From so many distinct rows on, "auto" holds some out once; below, each in turn.
MANY_ROWS = 10_000


class AutoencoderOutlierDetector(Versioned, OutlierMixin, BaseEstimator):
    r"""Any autoencoder as an outlier detector, with a line that held-out rows draw.

    A row is an outlier if its score, by default an estimate of :math:`\log p(x)` in
    nats, is below `offset_`. The line is drawn by rows that the model was not fitted
    to: scores of training rows are too good, and would let too many new rows fail.

    The score of a variational autoencoder is its log p(x); far out it counts for less,
    see Notes. Other autoencoders say how well they reproduce a row, and nothing of how
    likely such a row is. Here the row and its reconstruction :math:`\hat x` are
    compared with M training rows, the exemplars, and their reconstructions [1]_ [2]_:

    .. math:: \log p(x) + \log \hat p(\hat x), \qquad
              p(v) = \sum_{m=1}^{M} w_m
              \prod_{j=1}^{d} \frac{1}{2 b_j} e^{-|v_j - v_{mj}| / b_j},
              \qquad b_j = \frac{d}{T} s_j

    with the standard deviations :math:`s_j` of the exemplars' values. The noise
    :math:`b_j` grows with the number d of columns, which count as T independent ones
    (`effective_features`), since they depend on each other. The second density sees
    what the network keeps, and so only what columns have in common. A training row is
    not compared with itself.

    Read more in the :ref:`User Guide <outliers>`.

    Parameters
    ----------
    estimator : autoencoder instance, default=None
        Any unsupervised autoencoder of skae; it is cloned. None stands for
        ``DenoisingAutoencoder(64, corruption='gaussian', corruption_level=2.0,
        learning_rate='cosine', max_iter=50)``, which suits 'log_likelihood': with noise
        of two standard deviations it keeps what many columns have in common.

    contamination : 'auto', float or None, default='auto'
        Where the line is.

        - A float in (0, 0.5] is the share of outliers among the training rows: so many
          of the held-out scores are below the line.
        - 'auto' calls outliers what stands out: held-out scores that are less than
          their lower quartile by more than 1.5 interquartile ranges are below.
        - None says that all training rows are normal: the line is below all of the n
          held-out scores, and a new normal row is below it with a probability of at
          most 1 / (n + 1).

        `set_threshold` moves the line without a refit.

    anomaly_score : str or dict of {str: float}, default='log_likelihood'
        What the score is, higher being more normal; a dict gives a weighted sum.

        - 'log_likelihood' is log p(x), in nats: how rare a row is. The choice where
          nothing is known of the outliers.
        - 'reconstruction_log_prob' is the mean of log p(x|z) over the row's own code or
          codes, in nats: whether a row obeys the relations between the columns, however
          rare its code is. For training rows without outliers of their kind.
        - 'reconstruction_error' is minus the squared error (in standard deviations) or
          the loss: the same where there is no likelihood, or scales are not to be
          trusted.
        - 'kl' is minus the divergence of the code from its prior, in nats, of
          variational autoencoders: whether the code alone is unusual.

    calibration : {'auto', 'cross', 'split', 'train'}, default='auto'
        Which rows draw the line. Equal rows are held out together.

        - 'cross' holds out each of `n_folds` folds in turn and then fits to all rows:
          best for few rows, at the price of as many more fits.
        - 'split' holds out `validation_fraction` of the rows for good. If rows all
          differ and weigh one, the p-values are then exactly valid.
        - 'auto' is 'cross' for fewer than 10,000 different rows, and else 'split'.
        - 'train' uses the training rows themselves, as other detectors do: of them
          exactly the share `contamination` is called outliers, of new rows often more.

    n_folds : int, default=5
        Folds of 'cross', and of `trimming`.

    validation_fraction : float, default=0.2
        Share of the different rows that 'split' holds out.

    trimming : float, default=0.0
        Share of the rows, in [0, 0.5], to leave out of the final fit because their
        held-out scores are the lowest: for training rows among which there are
        outliers. They still take part in drawing the line. It costs `n_folds` more
        fits.

    effective_features : float, default=8.0
        As how many independent columns all columns count. More see finer details;
        fewer forgive outliers among the training rows. Only for 'log_likelihood' of
        autoencoders that are not variational.

    n_exemplars : int, default=1000
        Largest number of exemplars, drawn from the rows that are fitted to; they are
        kept in the fitted detector.

    random_state : int, RandomState instance or None, default=None
        Seed of the folds, of the exemplars and, if it has none of its own, of the
        estimator. Pass an int for reproducible results.

    n_jobs : int, default=None
        Jobs that fit folds in parallel. None is 1 unless in a
        :func:`joblib.parallel_config` context; -1 takes all processors.

    Attributes
    ----------
    estimator_ : autoencoder instance
        The fitted autoencoder.

    offset_ : float
        The line: ``decision_function = score_samples - offset_``.

    calibration_scores_ : ndarray of shape (n_calibration,)
        Scores of the rows that draw the line, in ascending order.

    calibration_weight_ : ndarray of shape (n_calibration,)
        Their weights; of equal rows in `fit` the sum.

    typical_contributions_ : ndarray of shape (n_features,)
        Median of what each column contributes to the score of a held-out row.

    n_trimmed_ : int
        Different rows that were left out of the final fit.

    n_features_in_ : int
        Number of columns seen in fit.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns. Defined only when X has column names that are all strings.

    See Also
    --------
    VariationalAutoencoder : A generative model, whose score is log p(x).
    sklearn.ensemble.IsolationForest : Outliers are what random trees isolate early.
    sklearn.neighbors.LocalOutlierFactor : Outliers are in thinner air than neighbours.

    Notes
    -----
    Results for a row do not depend on the rows beside it, and rows in another order
    give the same detector. The line is half-way between two scores, so that rounding
    cannot move a row across it.

    A row counts in full down to 100 nats below what is typical of the exemplars; a
    deficit of D nats beyond counts as 100 (1 + log(D / 100)). A column that was
    constant in training counts in units of its value, or of 1 if that was zero.

    The sum of both log-densities is an estimate of log p(x) but for a constant: use it
    to compare rows, not models. A row that is an exemplar but for rounding is judged by
    the other exemplars; a row that is merely near to one is judged by all.

    References
    ----------
    .. [1] Tomczak, J. M. & Welling, M. (2018). VAE with a VampPrior. AISTATS.
    .. [2] Norouzi, S., Fleet, D. J. & Norouzi, M. (2020). Exemplar VAE: linking
       generative models, nearest neighbor retrieval, and data augmentation. NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoencoderOutlierDetector
    >>> X, y = load_digits(return_X_y=True)
    >>> detector = AutoencoderOutlierDetector(random_state=0).fit(X[y == 0])
    >>> bool(np.mean(detector.predict(X[y != 0]) == -1) > 0.9)
    True
    >>> reasons = detector.explain(X[y != 0])
    >>> scores = detector.score_samples(X[y != 0])
    >>> np.allclose(reasons.contributions.sum(axis=1), scores)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [BaseAutoencoder, None],
        "contamination": [
            StrOptions({"auto"}),
            Interval(Real, 0, 0.5, closed="right"),
            None,
        ],
        "anomaly_score": [str, Mapping],
        "calibration": [StrOptions({"auto", "cross", "split", "train"})],
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "validation_fraction": [OPEN_FRACTION],
        "trimming": [Interval(Real, 0, 0.5, closed="both")],
        "effective_features": [POSITIVE],
        "n_exemplars": [POSITIVE_INT],
        "random_state": ["random_state"],
        "n_jobs": [None, Integral],
    }

    def __init__(
        self,
        estimator: BaseAutoencoder | None = None,
        *,
        contamination: float | Literal["auto"] | None = "auto",
        anomaly_score: str | Mapping[str, float] = "log_likelihood",
        calibration: Literal["auto", "cross", "split", "train"] = "auto",
        n_folds: int = 5,
        validation_fraction: float = 0.2,
        trimming: float = 0.0,
        effective_features: float = 8.0,
        n_exemplars: int = 1000,
        random_state: int | RandomState | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.contamination = contamination
        self.anomaly_score = anomaly_score
        self.calibration = calibration
        self.n_folds = n_folds
        self.validation_fraction = validation_fraction
        self.trimming = trimming
        self.effective_features = effective_features
        self.n_exemplars = n_exemplars
        self.random_state = random_state
        self.n_jobs = n_jobs

    # --- fitting ------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(
        self, X: ArrayLike, y: None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Fit the autoencoder, and draw the line between inliers and outliers.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the rows, which count like numbers of rows; None
            gives each row weight one. A row of weight zero counts as absent.

        Returns
        -------
        self : object
            The fitted detector.

        Raises
        ------
        ValueError
            If a parameter does not suit the estimator or the data, or if the estimator
            refuses the data. The detector is then as it was before the call.
        """
        with all_or_nothing(self):
            data = self._check_rows(X, reset=True)
            weight = None
            if sample_weight is not None:
                weight = check_weight(data, sample_weight).astype(np.float64)
            table, order = self._table(X, data, weight)
            fold, held_out = self._folds(order), self._held_out(order)
            kept = self._kept(table, fold, ~held_out)
            scorer, held = self._calibrated(table, fold, kept, held_out)
            self._keep(scorer, held)
            self.n_trimmed_ = int(np.count_nonzero(~held_out & ~kept))
        return self

    def _table(self, X: Any, data: Any, weight: Array | None) -> tuple[Table, Array]:
        """Bring together what fits need; return it and a random order of its rows."""
        rng = new_generator(self.random_state)
        index, merged = arrange(data, weight, merge=True)
        estimator = clone(DEFAULT if self.estimator is None else self.estimator)
        if isinstance(estimator, BaseSupervisedStack):
            raise ValueError(
                f"estimator={estimator!r} must be an autoencoder that needs no "
                f"targets, not a {type(estimator).__name__}."
            )
        weights = check_score(self.anomaly_score)
        check_code(estimator, weights)
        if estimator.get_params(deep=False)["random_state"] is None:
            estimator.set_params(random_state=int(rng.integers(2**31)))
        table = Table(
            X=X if hasattr(self, "feature_names_in_") else data,
            data=data,
            index=index,
            weight=np.ones(len(index)) if merged is None else merged[index],
            estimator=estimator,
            weights=weights,
            n_effective=float(self.effective_features),
            n_exemplars=int(self.n_exemplars),
            seed=int(rng.integers(2**31)),
        )
        return table, rng.permutation(len(index))

    def _folds(self, order: Array) -> Array:
        """Return the fold of each distinct row."""
        fold = np.empty(len(order), dtype=int)
        fold[order] = np.arange(len(order)) % self.n_folds
        return fold

    def _held_out(self, order: Array) -> Array:
        """Return which of the distinct rows are held out for good."""
        n, how = len(order), self.calibration
        if how != "train":
            check_splits(n, "calibration", how)
        held_out = np.zeros(n, dtype=bool)
        if how == "split" or (how == "auto" and n >= MANY_ROWS):
            n_held = min(max(1, round(self.validation_fraction * n)), n - 1)
            held_out[order[:n_held]] = True
        return held_out

    def _kept(self, table: Table, fold: Array, ours: Array) -> Array:
        """Return which of the rows that may be trained on are left after trimming."""
        kept = ours.copy()
        if self.trimming > 0:
            check_splits(int(np.count_nonzero(ours)), "trimming", self.trimming)
            check_left(ours, fold, ours, self.trimming)
            scores = table.cross(ours, ours, fold, self.n_jobs).scores
            weight = table.weight[ours]
            line = threshold(scores, weight, float(self.trimming) * weight.sum())
            kept[ours] = scores >= line
        return kept

    def _calibrated(
        self, table: Table, fold: Array, kept: Array, held_out: Array
    ) -> tuple[Scorer, Held]:
        """Fit to the rows that are kept, and show rows that were not fitted to."""
        every = np.arange(len(fold))
        if self.calibration != "train" and not held_out.any():
            ours = np.ones(len(fold), dtype=bool)
            check_left(ours, fold, kept, self.trimming)
            held = table.cross(ours, kept, fold, self.n_jobs)
            return table.fit(every[kept]), held
        scorer = table.fit(every[kept])
        return scorer, table.hold(scorer, every[held_out] if held_out.any() else every)

    def _keep(self, scorer: Scorer, held: Held) -> None:
        """Keep what scores need, and what is known of held-out rows."""
        self.estimator_ = scorer.estimator
        self._scoring = scorer.settings()
        self.typical_contributions_ = medians(held.shares, held.described)
        least = LEAST_SPREAD * self.estimator_._model().columns.unit
        self._spread = np.maximum(held.spread, least)
        self._calibrate(held.scores, held.weight)
        self.offset_ = self._new_offset()

    def _calibrate(self, scores: Array, weight: Array) -> None:
        """Keep scores of rows that were not trained on, in their order."""
        order = np.argsort(scores, kind="stable")
        self.calibration_scores_ = scores[order]
        self.calibration_weight_ = weight[order]

    def _new_offset(self) -> float:
        """Draw the line where `contamination` says."""
        known = self.calibration_scores_, self.calibration_weight_
        if self.contamination is None:
            below = 0.0
        elif self.contamination == "auto":
            below = fence(*known)
        else:
            below = float(self.contamination) * float(known[1].sum())
        return threshold(*known, below)

    # --- checking the input ---------------------------------------------------------

    def _check_rows(self, X: Any, reset: bool = False) -> Any:
        """Validate rows: their type, number of columns and names."""
        dtype = [np.float64, np.float32]
        return validate_data(self, X, accept_sparse="csr", dtype=dtype, reset=reset)

    def _check_fitted_rows(self, X: Any) -> Any:
        """Validate rows for a fitted detector: also their range."""
        check_is_fitted(self)
        data = self._check_rows(X)
        self.estimator_._check_support(data)
        return data

    def _scorer(self) -> Scorer:
        """Return the fitted numbers as something to work with."""
        return Scorer(self.estimator_, **self._scoring)

    # --- scores -----------------------------------------------------------------------

    def score_samples(self, X: ArrayLike) -> Array:
        """Return the score of each row; higher is more normal.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            By default the logarithm of p(x), in nats and in the units of X.
        """
        data = self._check_fitted_rows(X)
        return in_parts(self._scorer().scores, data)

    def score(
        self, X: ArrayLike, y: None = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the mean score of the rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the rows.

        Returns
        -------
        score : float
            The (weighted) mean of `score_samples`; higher is better.
        """
        scores = self.score_samples(X)
        weight = check_weight(scores[:, None], sample_weight)
        return float(np.average(scores, weights=weight))

    def decision_function(self, X: ArrayLike) -> Array:
        """Return how far each row is on the side of the inliers.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to judge.

        Returns
        -------
        decision : ndarray of shape (n_samples,), float64
            ``score_samples(X) - offset_``: negative for outliers.
        """
        return np.asarray(self.score_samples(X) - self.offset_)

    def predict(self, X: ArrayLike) -> Array:
        """Tell inliers from outliers.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to judge.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int
            1 for inliers and -1 for outliers.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: ArrayLike) -> Array:
        r"""Return how rare a score as low as that of each row is among normal rows.

        .. math:: p = \frac{1 + \sum_i w_i \, [s_i \le s]}{1 + \sum_i w_i}

        with the scores :math:`s_i` and the weights :math:`w_i` of the held-out rows.
        If these and a new row are exchangeable and of weight one, and the model has not
        seen them (``calibration='split'``, or rows given to `set_threshold`), then
        :math:`P(p \le \alpha) \le \alpha` for any :math:`\alpha`, any number of rows
        and any model [1]_.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to judge.

        Returns
        -------
        p : ndarray of shape (n_samples,), float64
            Conformal p-values, in (0, 1].

        References
        ----------
        .. [1] Vovk, V., Gammerman, A. & Shafer, G. (2005). Algorithmic learning in a
           random world. Springer.
        """
        scores = self.score_samples(X)
        return p_values(scores, self.calibration_scores_, self.calibration_weight_)

    def set_threshold(
        self,
        X: ArrayLike | None = None,
        *,
        fpr: float,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Move the line so that few normal rows are taken for outliers.

        The model stays as it is.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features), default=None
            Normal rows that the model was not fitted to; from now on they are the
            calibration rows. None for those that `fit` held out.
        fpr : float
            False-positive rate, in (0, 1): the share of normal rows that may be called
            outliers, in expectation, over all calibration rows that might have been
            given.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the rows, which count like numbers of rows.

        Returns
        -------
        self : object
            The detector, with another `offset_`.

        Raises
        ------
        ValueError
            If there are too few calibration rows for so small a rate: 1 / fpr - 1 are
            needed. The detector is then as it was before the call.
        """
        check_is_fitted(self)
        if not OPEN_FRACTION.is_satisfied_by(fpr):
            raise ValueError(f"fpr={fpr!r} must be a rate between 0 and 1.")
        with all_or_nothing(self):
            if X is not None:
                scores = self.score_samples(X)
                weight = check_weight(scores[:, None], sample_weight)
                self._calibrate(scores, weight.astype(np.float64))
            elif sample_weight is not None:
                raise ValueError("sample_weight is of rows X, which were not given.")
            total = float(self.calibration_weight_.sum())
            below = fpr * (total + 1.0) * (1.0 + ROUNDING) - 1.0
            if below < 0:
                raise ValueError(
                    f"fpr={fpr} needs at least {ceil((1 - ROUNDING) / fpr) - 1} "
                    f"calibration rows, but there are {total:g}: give more rows, or a "
                    f"larger fpr."
                )
            known = self.calibration_scores_, self.calibration_weight_
            self.offset_ = threshold(*known, below)
        return self

    # --- reasons ----------------------------------------------------------------------

    def explain(self, X: ArrayLike) -> Bunch:
        """Return what each column contributes to the score of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to explain.

        Returns
        -------
        explanation : :class:`~sklearn.utils.Bunch`
            Its parts have the shape of X and are data frames if X is one.

            contributions : {ndarray, dataframe} of shape (n_samples, n_features)
                In nats, for scores that are; each row sums to its entry in
                `score_samples`. Compare them with `typical_contributions_`.
            expected_values : {ndarray, dataframe} of shape (n_samples, n_features)
                What the model expects each column to be, in the units of X.
            standard_scores : {ndarray, dataframe} of shape (n_samples, n_features)
                Value less expected value, in units of the root mean square of that
                difference among the held-out rows.
        """
        data = self._check_fitted_rows(X)
        scorer = self._scorer()
        expected = in_parts(scorer.expected, data)
        parts = {
            "contributions": in_parts(scorer.shares, data),
            "expected_values": expected,
            "standard_scores": self._standard_scores(dense(data) - expected),
        }
        return Bunch(**{name: like_container(a, X) for name, a in parts.items()})

    def _standard_scores(self, residual: Array) -> Array:
        """Return residuals in units of those of the held-out rows."""
        with np.errstate(over="ignore"):
            return np.nan_to_num(residual / self._spread)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        is_known = isinstance(self.estimator, BaseAutoencoder)
        own = get_tags(self.estimator if is_known else DEFAULT).input_tags
        tags.input_tags.sparse = own.sparse
        tags.input_tags.positive_only = own.positive_only
        return tags


def check_left(shown: Array, fold: Array, kept: Array, trimming: float) -> None:
    """Refuse folds without which no row is left to train on."""
    for k in np.unique(fold[shown]):
        if not (kept & (fold != k)).any():
            raise ValueError(
                f"trimming={trimming} leaves no row to train on beside a fold: "
                f"{np.count_nonzero(shown)} rows differ. Trim less, or give more rows."
            )


def check_splits(n: int, name: str, value: Any) -> None:
    """Refuse to hold out rows where they do not differ."""
    if n < 2:
        raise ValueError(
            f"{name}={value!r} holds out rows, which takes at least 2 that differ, but "
            f"there is only 1 sample, or only 1 that differs. With calibration='train' "
            f"and trimming=0, all rows are trained on."
        )
