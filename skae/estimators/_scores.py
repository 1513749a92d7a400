"""What a fitted autoencoder says of rows, and of their columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

from skae._validation import NON_NEGATIVE
from skae.estimators._base import BaseAutoencoder
from skae.estimators._fitted import has_likelihood
from skae.exemplars import Exemplars, dense
from skae.layout import Array
from skae.thresholds import quantile

__all__ = [
    "SCORES",
    "Scorer",
    "check_code",
    "check_score",
    "few",
    "medians",
    "new_scorer",
    "sample",
]

#: A row counts in full down to so many nats below what is typical; beyond, only with
#: the logarithm. A value that no training row has come near to, as in a column that was
#: constant, would else give scores that nobody can read or draw.
MOST_EVIDENCE = 100.0

#: Exemplars by which it is told what is typical, and the entries that they may have.
TYPICAL, MOST_ENTRIES = 256, 2**18

#: Numbers beyond this are not told apart.
LIMIT = 1e300


def calm(deficit: Array) -> Array:
    """Return deficits in the same order, of which none is very large.

    A deficit of D nats beyond `MOST_EVIDENCE` becomes ``M (1 + log(D / M))``.
    """
    excess = np.maximum(deficit / MOST_EVIDENCE, 1.0)
    return np.where(excess > 1.0, MOST_EVIDENCE * (1.0 + np.log(excess)), deficit)


def medians(shares: Array, weight: Array) -> Array:
    """Return the median of each column."""
    return np.array([quantile(column, weight, 0.5) for column in shares.T])


@dataclass(frozen=True)
class Scorer:
    """A weighted sum of scores of a fitted autoencoder; higher is more normal.

    Attributes
    ----------
    estimator : BaseAutoencoder
        The fitted autoencoder.
    weights : dict of {str: float}
        The scores' weights; names are those in `SCORES`.
    rows : ndarray or CSR matrix of shape (n_exemplars, n_features)
        The exemplars, some of the rows that were fitted to.
    mass, others : ndarray of shape (n_exemplars,)
        What each exemplar weighs, and what it weighs for itself.
    n_effective : float
        How many independent columns all columns count as.
    typical : ndarray of shape (n_features,)
        Median of each column's contribution among the exemplars.
    """

    estimator: BaseAutoencoder
    weights: Mapping[str, float]
    rows: Any
    mass: Array
    others: Array
    n_effective: float
    typical: Array

    def scores(self, X: Any) -> Array:
        """Return the score of each row."""
        parts = (f * SCORES[name].total(self, X) for name, f in self.weights.items())
        typical = self.typical.sum()
        deficit = np.minimum(typical - total_of(parts), LIMIT)
        return np.asarray(typical - calm(deficit))

    def shares(self, X: Any) -> Array:
        """Return what each column contributes to the score of each row."""
        shares = self.plain_shares(X)
        deficit = np.minimum(self.typical.sum() - shares.sum(axis=1), LIMIT)
        far = deficit > MOST_EVIDENCE
        factor = np.where(far, calm(deficit) / np.where(far, deficit, 1.0), 1.0)
        return np.asarray(self.typical + factor[:, None] * (shares - self.typical))

    def plain_shares(self, X: Any) -> Array:
        """Return contributions, however large."""
        parts = (f * SCORES[name].shares(self, X) for name, f in self.weights.items())
        return total_of(parts)

    def expected(self, X: Any) -> Array:
        """Return what each column is expected to be."""
        if self.estimator._has_random_code:
            model = self.estimator._model()
            return dense(model.decode(model.encode(X)))
        return self.exemplars.expected(X)

    @cached_property
    def exemplars(self) -> Exemplars:
        """The density that the exemplars make."""
        model = self.estimator._model()
        return Exemplars(model, self.rows, self.mass, self.n_effective, self.others)

    def settings(self) -> dict[str, Any]:
        """Return all but the estimator: what it takes to make the scorer again."""
        names = (field.name for field in fields(self))
        return {name: getattr(self, name) for name in names if name != "estimator"}


def total_of(parts: Any) -> Array:
    """Return the sum of arrays, within what can be subtracted."""
    total = sum(part.astype(np.float64) for part in parts)
    return np.asarray(np.clip(total, -LIMIT, LIMIT))


# --- the scores -----------------------------------------------------------------------


class Score(NamedTuple):
    """A score of rows, and how it is divided among columns."""

    total: Callable[[Scorer, Any], Array]
    shares: Callable[[Scorer, Any], Array]


def log_likelihood(scorer: Scorer, X: Any) -> Array:
    """Return log p(x), whatever the code."""
    if scorer.estimator._has_random_code:
        return scorer.estimator._log_likelihood(X)
    return scorer.exemplars.log_density(X)


def log_likelihood_shares(scorer: Scorer, X: Any) -> Array:
    """Return each column's share of log p(x)."""
    if scorer.estimator._has_random_code:
        return scorer.estimator._shares(X)
    return scorer.exemplars.shares(X)


def reconstruction_log_prob(scorer: Scorer, X: Any) -> Array:
    """Return the mean of log p(x|z) over the row's own code, or its own codes."""
    shares = reconstruction_log_prob_shares(scorer, X)
    return np.asarray(shares.sum(axis=1, dtype=np.float64))


def reconstruction_log_prob_shares(scorer: Scorer, X: Any) -> Array:
    """Return the same for each column."""
    return scorer.estimator._reconstruction_shares(X)


def reconstruction_error(scorer: Scorer, X: Any) -> Array:
    """Return minus the loss or squared error of the reconstruction."""
    return -scorer.estimator._model().reconstruction_error(X)


def reconstruction_error_shares(scorer: Scorer, X: Any) -> Array:
    """Return the same for each column."""
    return -scorer.estimator._model().reconstruction_error(X, by_feature=True)


def kl(scorer: Scorer, X: Any) -> Array:
    """Return minus the divergence of the code's posterior from its prior."""
    mean, std = (a.astype(np.float64) for a in scorer.estimator._model().posterior(X))
    divergence = np.square(mean) + np.square(std) - 2.0 * np.log(std) - 1.0
    return np.asarray(-0.5 * divergence.sum(axis=1))


def kl_shares(scorer: Scorer, X: Any) -> Array:
    """Return the same, divided evenly, as it belongs to no column."""
    d = X.shape[1]
    return np.repeat(kl(scorer, X)[:, None] / d, d, axis=1)


#: Names are what users give as `anomaly_score`.
SCORES = {
    "kl": Score(kl, kl_shares),
    "log_likelihood": Score(log_likelihood, log_likelihood_shares),
    "reconstruction_error": Score(reconstruction_error, reconstruction_error_shares),
    "reconstruction_log_prob": Score(
        reconstruction_log_prob, reconstruction_log_prob_shares
    ),
}


# --- making a scorer ------------------------------------------------------------------


def check_score(score: Any) -> dict[str, float]:
    """Return the weights that the parameter `anomaly_score` asks for."""
    weights = {score: 1.0} if isinstance(score, str) else dict(score)
    names = ", ".join(map(repr, SCORES))
    unknown = [name for name in weights if name not in SCORES]
    if unknown:
        raise ValueError(
            f"anomaly_score={score!r} names {unknown[0]!r}; scores are {names}."
        )
    factors = weights.values()
    good = all(NON_NEGATIVE.is_satisfied_by(f) and np.isfinite(f) for f in factors)
    if not good or not any(factors):
        raise ValueError(
            f"anomaly_score={score!r} must give one or more of {names}, with weights "
            f"that are not negative, and not all zero."
        )
    return {str(name): float(f) for name, f in weights.items() if f > 0}


def check_code(estimator: BaseAutoencoder, weights: Mapping[str, float]) -> None:
    """Refuse scores that a kind of autoencoder does not have."""
    if "kl" in weights and not estimator._has_random_code:
        raise ValueError(
            f"anomaly_score='kl' needs a code that is random: that of a "
            f"VariationalAutoencoder, not of a {type(estimator).__name__}."
        )


def check_available(estimator: BaseAutoencoder, weights: Mapping[str, float]) -> None:
    """Refuse scores that a fitted autoencoder does not have."""
    is_random = estimator._has_random_code
    need = {"reconstruction_log_prob"} | ({"log_likelihood"} if is_random else set())
    for name in sorted(need & weights.keys()):
        try:
            has_likelihood(estimator, f"anomaly_score={name!r}")
        except AttributeError as error:
            raise ValueError(f"{error}") from None


class Sample(NamedTuple):
    """Rows that stand for all rows.

    Attributes
    ----------
    place : ndarray of shape (n_sample,)
        Which rows.
    mass : ndarray of shape (n_sample,)
        What they weigh; the sum is that of all rows.
    others : ndarray of shape (n_sample,)
        What they weigh for a row that is one of them: the share of the other rows that
        equal it.
    """

    place: Array
    mass: Array
    others: Array


def sample(weight: Array, most: int, rng: Generator) -> Sample:
    """Choose at most so many rows that stand for all, given their weights.

    Heavy rows stand for themselves. The others are drawn by their weights, and share
    what these weigh together.
    """
    heavy, n_drawn = np.ones(len(weight), dtype=bool), 0
    if len(weight) > most:
        heavy[:], n_drawn = False, most
        while n_drawn > 1:
            more = ~heavy & (weight * n_drawn >= weight[~heavy].sum())
            if not more.any():
                break
            heavy |= more
            n_drawn = most - int(np.count_nonzero(heavy))
    mass, light = np.where(heavy, weight, 0.0), np.flatnonzero(~heavy)
    if n_drawn > 0 and len(light):
        total = weight[light].sum()
        drawn = rng.choice(light, n_drawn, replace=False, p=weight[light] / total)
        mass[drawn] = total / n_drawn
    place = np.flatnonzero(mass)
    share = np.maximum(1.0 - 1.0 / np.maximum(weight[place], 1e-300), 0.0)
    return Sample(place, mass[place], mass[place] * share)


def new_scorer(
    estimator: BaseAutoencoder,
    weights: Mapping[str, float],
    n_effective: float,
    rows: Any,
    mass: Array,
    others: Array,
) -> Scorer:
    """Return a scorer with these exemplars."""
    check_available(estimator, weights)
    nothing = np.zeros(rows.shape[1])
    scorer = Scorer(estimator, weights, rows, mass, others, n_effective, nothing)
    some = np.arange(0, len(mass), -(-len(mass) // few(TYPICAL, rows.shape[1])))
    shares = scorer.plain_shares(rows[some])
    return replace(scorer, typical=medians(shares, mass[some]))


def few(most: int, n_columns: int) -> int:
    """Return how many rows to look at closely; fewer, if they are wide."""
    return max(1, min(most, MOST_ENTRIES // n_columns))
