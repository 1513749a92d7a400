"""What all fitted autoencoders can do: encode, decode, score, and be saved."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.random import SFC64, Generator
from numpy.typing import ArrayLike
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import Tags, check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from skae._validation import check_support, check_weight, only_if
from skae._version import STATE_FORMAT, __version__
from skae.bottlenecks import Bottleneck
from skae.composite import as_distribution, culprits, named
from skae.distributions import DISTRIBUTIONS, Distribution
from skae.layout import Array
from skae.model import Model, Plan
from skae.rows import Columns

__all__ = [
    "FittedAutoencoder",
    "Versioned",
    "all_or_nothing",
    "check_codes",
    "has_likelihood",
    "new_generator",
]


def can_decode(estimator: FittedAutoencoder, name: str) -> None:
    """Refuse to decode where the decoder does not belong to the encoder."""
    reason = estimator._cannot_decode()
    if reason:
        raise AttributeError(f"{name} is not available: {reason}.")


def has_likelihood(estimator: FittedAutoencoder, name: str) -> None:
    """Refuse likelihoods where a distribution is none."""
    can_decode(estimator, name)
    plan = getattr(estimator, "_plan", {"distribution": estimator.distribution})
    culprit = culprits(plan["distribution"], estimator._column_names)
    if culprit:
        raise AttributeError(
            f"{name} needs a likelihood, but {culprit} has no probabilistic reading: "
            f"use reconstruction_error."
        )


def new_generator(random_state: Any) -> Generator:
    """Make the generator of one call; NumPy's global state is never touched."""
    if random_state is None:
        return Generator(SFC64())
    return Generator(SFC64(check_random_state(random_state).randint(2**31 - 1)))


@contextmanager
def all_or_nothing(estimator: BaseEstimator) -> Iterator[None]:
    """Give the estimator back its former attributes if the block fails."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def check_codes(codes: Any, name: str, accept_sparse: str | bool) -> Any:
    """Validate the type of codes."""
    return check_array(
        codes,
        accept_sparse=accept_sparse,
        dtype=[np.float64, np.float32],
        input_name=name,
    )


class Versioned(BaseEstimator):
    """Saved estimators know which version has saved them; others refuse them."""

    def __getstate__(self) -> dict[str, Any]:
        saved = {"_skae_version": __version__, "_skae_format": STATE_FORMAT}
        return {**super().__getstate__(), **saved}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        version = state.pop("_skae_version", "before 0.1.0")
        if state.pop("_skae_format", 0) != STATE_FORMAT:
            raise ValueError(
                f"This {type(self).__name__} was saved by skae {version}, and skae "
                f"{__version__} keeps models in another form. Load it with the version "
                f"that saved it, or fit it again."
            )
        super().__setstate__(state)


class FittedAutoencoder(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    Versioned,
    metaclass=ABCMeta,
):
    """The use of a model, whatever way it was fitted.

    Fitted models hold arrays, numbers, strings and containers of them. All parameters
    stand in one vector, `_theta`, so that tied weights stay tied when pickled.
    """

    # The parameter that a fitted model needs, and what a fit leaves behind.
    distribution: str | Distribution | list[Any]
    _plan: dict[str, Any]
    _theta: Array
    _columns: dict[str, Any]

    @abstractmethod
    def _bottleneck(self) -> Bottleneck:
        """Return how the encoder's output becomes a code; asked for in every call."""

    def _cannot_decode(self) -> str | None:
        """Return why codes cannot be decoded, if that is so."""
        return None

    def _model(self, is_exact: bool = True) -> Model:
        """Return the fitted numbers as something to work with."""
        return Model(
            plan=Plan(**self._plan),
            bottleneck=self._bottleneck(),
            theta=self._theta,
            columns=Columns(**self._columns),
            is_exact=is_exact,
        )

    def _check_rows(self, X: Any, reset: bool = False) -> Any:
        """Validate rows: their type, number of columns and names."""
        dtype = [np.float64, np.float32]
        return validate_data(self, X, accept_sparse="csr", dtype=dtype, reset=reset)

    def _check_fitted_rows(self, X: Any) -> Any:
        """Validate rows for a fitted model: also their range."""
        check_is_fitted(self)
        data = self._check_rows(X)
        self._check_support(data)
        return data

    def _check_support(self, data: Any) -> None:
        """Refuse values that the distribution of their column cannot take."""
        family = self._plan["distribution"]
        check_support(data, as_distribution(family), family, self._column_names)

    @property
    def _column_names(self) -> Any:
        return getattr(self, "feature_names_in_", None)

    # --- codes, reconstructions, scores --------------------------------------------

    def transform(self, X: ArrayLike) -> Array:
        """Return the code of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to encode; they are not corrupted.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_components)
            The codes, in the floating-point type of X.
        """
        data = self._check_fitted_rows(X)
        return self._model().encode(data)

    @only_if(can_decode)  # type: ignore[untyped-decorator]
    def inverse_transform(self, X: ArrayLike) -> Array:
        """Return the reconstruction for each code, in the units of the data.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_components)
            Codes, as `transform` returns them. Sparse matrices are made dense one
            block at a time.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features)
            The mean of p(x | code).
        """
        check_is_fitted(self)
        return self._model().decode(self._check_codes(X, "X", accept_sparse="csr"))

    def _check_codes(
        self, codes: Any, name: str, accept_sparse: str | bool = False
    ) -> Any:
        """Validate codes: their type and number of columns."""
        z = check_codes(codes, name, accept_sparse)
        if z.shape[1] != self._n_features_out:
            raise ValueError(
                f"{name} has {z.shape[1]} columns, but codes have "
                f"n_components={self._n_features_out} columns."
            )
        return z

    @only_if(can_decode)  # type: ignore[untyped-decorator]
    def reconstruction_error(self, X: ArrayLike) -> Array:
        """Return how far each row is from its reconstruction.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to reconstruct, each from its own code.

        Returns
        -------
        error : ndarray of shape (n_samples,)
            The sum over columns of the loss that was trained, for distributions such
            as 'huber' that are losses, and of the squared difference for all others.
            Standardized columns count in standard deviations. Lower is better.
        """
        data = self._check_fitted_rows(X)
        return self._model().reconstruction_error(data)

    @only_if(has_likelihood)  # type: ignore[untyped-decorator]
    def score_features(self, X: ArrayLike) -> Array:
        """Return each entry's share of the log-likelihood of its row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples, n_features)
            In nats; each row sums to its entry in `score_samples`.
        """
        return self._shares(self._check_fitted_rows(X))

    def _shares(self, data: Any) -> Array:
        """Return what `score_features` does, of validated rows."""
        return self._model().log_prob_given_code(data, by_feature=True)

    def _log_likelihood(self, data: Any) -> Array:
        """Return what `score_samples` does, of validated rows."""
        return self._model().log_prob_given_code(data)

    def _reconstruction_shares(self, data: Any) -> Array:
        """Return what each entry says of its row's reconstruction, in nats."""
        return self._model().log_prob_given_code(data, by_feature=True)

    @only_if(has_likelihood)  # type: ignore[untyped-decorator]
    def score_samples(self, X: ArrayLike) -> Array:
        """Return the log-likelihood of each row given its own code.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,)
            The logarithm of p(x | code of x), in nats and in the units of X; higher is
            better.
        """
        return self._log_likelihood(self._check_fitted_rows(X))

    @only_if(has_likelihood)  # type: ignore[untyped-decorator]
    def score(
        self, X: ArrayLike, y: None = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the mean log-likelihood of the rows.

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
        log_likelihood : float
            The (weighted) mean of `score_samples`, in nats per row; higher is better.
        """
        log_likelihood = self.score_samples(X)
        weight = check_weight(log_likelihood[:, None], sample_weight)
        seen = weight > 0
        return float(np.average(log_likelihood[seen], weights=weight[seen]))

    # --- what scikit-learn and the curious ask for --------------------------------

    @property
    def _n_features_out(self) -> int:
        return int(self._plan["down"][-1])

    @property
    def noise_variance_(self) -> Array | None:
        """Squared scale of each column, in squared units of X."""
        self._check_has_numbers()
        can_decode(self, "noise_variance_")
        return self._model().noise_variance

    @property
    def distribution_(self) -> Any:
        """The distribution of each column; it can be given as `distribution`."""
        self._check_has_numbers()
        return named(self._plan["distribution"], self._column_names)

    @property
    def coefs_(self) -> list[Array]:
        """Weights of each layer, encoder first; tied ones are transposed views."""
        return [weight for weight, _ in self._views()]

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer, encoder first."""
        return [bias for _, bias in self._views()]

    def _check_has_numbers(self) -> None:
        if not hasattr(self, "_theta"):
            raise AttributeError(f"This {type(self).__name__} is not fitted yet.")

    def _views(self) -> list[tuple[Array, Array]]:
        self._check_has_numbers()
        objective = self._model().objective
        return objective.encoder.of(self._theta) + objective.decoder.of(self._theta)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = self._needs_positive()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _needs_positive(self) -> bool:
        """Tell whether negative values are refused in every column."""
        given = self.distribution
        specs = [part[0] for part in given] if isinstance(given, list) else [given]
        members = [DISTRIBUTIONS.get(s, s) if isinstance(s, str) else s for s in specs]
        supports = [getattr(member, "support", None) for member in members]
        return all(support is not None and support.low >= 0 for support in supports)
