r"""How likely a row is beside some training rows, the exemplars.

A deterministic autoencoder says how well it reproduces a row, and nothing of how likely
such a row is: it may reproduce outliers perfectly. Here the exemplars make a density of
rows, and another one of reconstructions :math:`\hat x`,

.. math:: \log p(x) + \log \hat p(\hat x), \qquad
          p(v) = \sum_m w_m \prod_j \frac{1}{2 b_j} e^{-|v_j - v_{mj}| / b_j},
          \qquad b_j = \frac{d}{T} s_j

with the standard deviations :math:`s_j` of the exemplars' values. Training rows take
the place of a prior, as in Tomczak & Welling (2018), "VAE with a VampPrior", and
Norouzi, Fleet & Norouzi (2020), "Exemplar VAE".

* The d columns count as T independent ones: noise grows with the number of columns, as
  they depend on each other. A likelihood raised to a power is robust where the model is
  not exactly true (Miller & Dunson, 2019, "Robust Bayesian inference via coarsening").
* The network was trained to keep what survives its noise, that is what columns have in
  common. There a row is seen coarsely: a small group of outliers among the training
  rows, which the first density takes for normal, is still far from all others.

The first density is in the units of X, so that multiplying a column by c shifts the sum
by -log c; the second is relative to that of the exemplars' own deviations.

No row testifies for itself: where a row is an exemplar, but for rounding, this one
counts for one row less than it stands for. Training rows then have scores like those of
new ones.

Every number of a row comes from sums along its own entries, so that it does not depend
on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import rel_entr

from skae.layout import Array
from skae.model import Model, places_of

__all__ = ["LEAST_SPREAD", "Exemplars", "dense"]

#: Pairs of rows and exemplars, and entries of exemplars, that are looked at together.
MOST_PAIRS, MOST_ENTRIES = 2**18, 2**16

#: A row so near to an exemplar, in nats, is the same row, but for rounding.
SAME = 1e-4

#: Neither view of a column is trusted to vary by less than this fraction of its unit.
LEAST_SPREAD = 0.05


class Exemplars:
    """The density of rows beside the exemplars.

    Parameters
    ----------
    model : Model
        A fitted model with a deterministic code.
    rows : ndarray or CSR matrix of shape (n_exemplars, n_features)
        The exemplars, in the units of X; no two of them are equal.
    weight : ndarray of shape (n_exemplars,)
        What each of them weighs.
    n_effective : float
        How many independent columns all columns count as.
    others : ndarray of shape (n_exemplars,) or None
        What each of them weighs for itself, that is its equals; None for what is left
        of its weight without one row.
    """

    def __init__(
        self,
        model: Model,
        rows: Any,
        weight: Array,
        n_effective: float,
        others: Array | None = None,
    ) -> None:
        self.model, self.rows, self.weight = model, dense(rows), weight
        self.others = np.maximum(weight - 1.0, 0.0) if others is None else others
        d, views = model.plan.n_features, self.views(rows)
        least = LEAST_SPREAD * model.columns.unit / model.unit
        spreads = [np.maximum(deviation(v, weight), least) for v in views]
        self.scales = [spread * (d / n_effective) for spread in spreads]
        self.values = [v / b for v, b in zip(views, self.scales, strict=True)]
        # Rows count in the units of X, reconstructions in those of their deviations.
        self.constant = np.log(2 * self.scales[0] * model.unit)
        self.constant += np.log(2 * d / n_effective)

    def views(self, X: Any) -> list[Array]:
        """Return rows and their reconstructions, in the units of the network."""
        seen = dense(X), dense(self.model.decode(self.model.encode(X)))
        with np.errstate(all="ignore"):
            return [(v - self.model.center) / self.model.unit for v in seen]

    def log_density(self, X: Any) -> Array:
        """Return the sum of both log-densities of each row."""
        out = np.full(X.shape[0], -self.constant.sum())
        with np.errstate(all="ignore"):
            for place, _, joint, _ in self.beside(X):
                out[place] += sum(log_sum(each)[0] for each in joint)
        return finite(out)

    def shares(self, X: Any) -> Array:
        """Return what each column contributes to that sum.

        A column's share of a density is minus its mean distance from the exemplars, as
        the row weighs them, and an equal share of what their weights cost.
        """
        out = np.tile(-self.constant, (X.shape[0], 1))
        with np.errstate(all="ignore"):
            for place, views, joint, weight in self.beside(X):
                for v, values, log_joint in zip(views, self.values, joint, strict=True):
                    r = log_sum(log_joint)[1]
                    out[place] -= mean_distances(v, values, r)
                    cost = rel_entr(r, weight).sum(axis=1)
                    out[place] -= (cost / X.shape[1])[:, None]
        return finite(out)

    def expected(self, X: Any) -> Array:
        """Return the mean of the exemplars, as the row's reconstruction weighs them."""
        out = np.empty(X.shape)
        with np.errstate(all="ignore"):
            for place, _, joint, _ in self.beside(X):
                r = log_sum(joint[1])[1]
                out[place] = np.matmul(r[:, None], self.rows)[:, 0]
        return out

    def beside(self, X: Any) -> Iterator[tuple[slice, list[Array], list[Array], Array]]:
        """Yield a few rows at a time, beside the exemplars.

        These are their place, their views in units of the kernels, log w - distance for
        either view, and the weights w, which sum to one.
        """
        views = self.views(X)
        for place in places_of(X.shape[0], max(1, MOST_PAIRS // len(self.rows))):
            both = zip(views, self.scales, strict=True)
            here = [v[place] / scale for v, scale in both]
            pairs = zip(here, self.values, strict=True)
            distances = [cdist(v, u, "cityblock") for v, u in pairs]
            weight = self.weights(distances[0])
            joint = [np.log(weight) - distance for distance in distances]
            yield place, here, joint, weight

    def weights(self, distance: Array) -> Array:
        """Return what the exemplars weigh for each row, which is none of them itself.

        Where nothing would be left, the row itself has to do.
        """
        every = np.arange(len(distance))
        nearest = distance.argmin(axis=1)
        own = distance[every, nearest] <= SAME
        weight = np.tile(self.weight, (len(distance), 1))
        alone = self.weight.sum() <= self.weight[nearest]
        left = np.where(alone, self.weight[nearest], self.others[nearest])
        weight[every[own], nearest[own]] = left[own]
        return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def deviation(values: Array, weight: Array) -> Array:
    """Return the standard deviation of each column."""
    p = weight / weight.sum()
    return np.asarray(np.sqrt(p @ np.square(values - p @ values)))


def mean_distances(v: Array, values: Array, r: Array) -> Array:
    """Return the distance of each entry from the exemplars', averaged by `r`."""
    out, size = np.zeros_like(v), max(1, MOST_ENTRIES // v.shape[1])
    for place in places_of(len(values), size):
        some = values[place]
        each = np.empty_like(some)
        for i, row in enumerate(v):
            np.subtract(some, row, out=each)
            np.abs(each, out=each)
            out[i] += r[i, place] @ each
    return out


def log_sum(log_joint: Array) -> tuple[Array, Array]:
    """Return the logarithm of the sum over exemplars, and how much is due to each."""
    most = log_joint.max(axis=1, keepdims=True)
    # A row beyond the largest number is infinitely far from all exemplars.
    most = np.maximum(np.nan_to_num(most, nan=-np.inf), np.finfo(np.float64).min)
    r = np.nan_to_num(np.exp(log_joint - most))
    total = np.maximum(r.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return (most + np.log(total))[:, 0], r / total


def dense(X: Any) -> Array:
    """Return rows as a dense array in double precision."""
    X = X if isinstance(X, np.ndarray) else X.toarray()
    return np.asarray(X, dtype=np.float64)


def finite(a: Array) -> Array:
    """Return `a` with the lowest number for what cannot be represented."""
    lowest = np.finfo(np.float64).min
    return np.nan_to_num(a, nan=lowest, neginf=lowest)
