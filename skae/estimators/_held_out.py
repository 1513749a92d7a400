"""Rows that a model was not fitted to, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from skae._validation import clone, rows_of_container
from skae.estimators._base import BaseAutoencoder
from skae.estimators._fitted import new_generator
from skae.estimators._scores import Scorer, few, new_scorer, sample
from skae.exemplars import dense
from skae.layout import Array

__all__ = ["Held", "Table", "in_parts"]

#: Held-out rows of which more than the score is kept in mind, in each fit.
DESCRIBED = 1000

#: Rows that are scored at once, and the entries that they may have.
ROWS_AT_ONCE, ENTRIES_AT_ONCE = 8192, 2**20


@dataclass
class Held:
    """What rows are like that a model has been shown for the first time.

    Attributes
    ----------
    scores, weight : ndarray of shape (n_rows,)
        Scores and weights of the rows.
    shares : ndarray of shape (n_described, n_features)
        What each column contributes to the scores of some of them.
    residual : ndarray of shape (n_described, n_features)
        Their values less the expected ones.
    described : ndarray of shape (n_described,)
        Weights of these rows.
    """

    scores: Array
    weight: Array
    shares: Array
    residual: Array
    described: Array

    @property
    def spread(self) -> Array:
        """The root of each column's mean squared residual."""
        largest = np.abs(self.residual).max(axis=0)
        ratio = self.residual / np.where(largest > 0, largest, 1.0)
        square = np.average(np.square(ratio), axis=0, weights=self.described)
        return np.asarray(largest * np.sqrt(square))


@dataclass
class Table:
    """The distinct rows of the training data, and how to fit a scorer to some of them.

    Attributes
    ----------
    X : object
        The rows as the user gave them, if their columns have names; else as `data`.
    data : ndarray or CSR matrix of shape (n_samples, n_features)
        The same after validation.
    index : ndarray of shape (n_distinct,)
        Where each distinct row is.
    weight : ndarray of shape (n_distinct,)
        Their weights.
    estimator : BaseAutoencoder
        What to fit.
    weights : dict of {str: float}
        What to score by.
    n_effective : float
    n_exemplars : int
    seed : int
        Decides which rows stand for all.
    """

    X: Any
    data: Any
    index: Array
    weight: Array
    estimator: BaseAutoencoder
    weights: dict[str, float]
    n_effective: float
    n_exemplars: int
    seed: int

    def fit(self, rows: Array) -> Scorer:
        """Fit to some of the distinct rows."""
        place, weight = self.index[rows], self.weight[rows]
        given = None if (weight == 1).all() else weight
        estimator = clone(self.estimator)
        estimator.fit(rows_of_container(self.X, place), sample_weight=given)
        some, *masses = sample(weight, self.n_exemplars, new_generator(self.seed))
        exemplars = self.data[place[some]]
        return new_scorer(estimator, self.weights, self.n_effective, exemplars, *masses)

    def hold(self, scorer: Scorer, rows: Array) -> Held:
        """Show a scorer some of the distinct rows."""
        data, weight = self.data[self.index[rows]], self.weight[rows]
        described = few(DESCRIBED, data.shape[1])
        some = np.arange(0, len(rows), -(-len(rows) // described))
        return Held(
            in_parts(scorer.scores, data),
            weight,
            in_parts(scorer.shares, data[some]),
            dense(data[some]) - in_parts(scorer.expected, data[some]),
            weight[some],
        )

    def fit_and_hold(self, rows: Array, others: Array) -> Held:
        """Fit to some rows and show others."""
        return self.hold(self.fit(rows), others)

    def cross(self, shown: Array, kept: Array, fold: Array, n_jobs: int | None) -> Held:
        """Show rows to scorers that were fitted to those kept of other folds."""
        every = np.arange(len(fold))
        parts = [every[shown & (fold == k)] for k in range(fold.max() + 1)]
        parts = [part for part in parts if len(part)]
        helds = Parallel(n_jobs=n_jobs)(
            delayed(self.fit_and_hold)(every[kept & (fold != fold[part[0]])], part)
            for part in parts
        )
        arrays = zip(*(vars(held).values() for held in helds), strict=True)
        held = Held(*(np.concatenate(each) for each in arrays))
        order = np.argsort(np.concatenate(parts))
        held.scores, held.weight = held.scores[order], held.weight[order]
        return held


def in_parts(work: Callable[[Any], Array], data: Any) -> Array:
    """Return what is found for rows, for a few at a time."""
    size = max(1, min(ROWS_AT_ONCE, ENTRIES_AT_ONCE // data.shape[1]))
    starts = range(0, data.shape[0], size)
    return np.concatenate([work(data[i : i + size]) for i in starts])
