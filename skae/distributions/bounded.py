"""Distributions of values between zero and one, and of classes."""

from __future__ import annotations

import numpy as np
from scipy import special

from skae.activations import logistic, softplus, zero_row
from skae.component import Range
from skae.distributions._distribution import Distribution
from skae.distributions._numbers import (
    LOG_TWO,
    TINY,
    extremes,
    log_ratio,
    rounded,
    row_sums,
    tail,
    within,
)
from skae.layout import Array

__all__ = [
    "Bernoulli",
    "Beta",
    "Categorical",
]


class Bernoulli(Distribution):
    r"""Values in [0, 1] from logits: binary data, or grey levels.

    .. math:: -\log p(x | \eta) = \log(1 + e^\eta) - x \eta, \qquad
              \mathrm{E}[x] = \frac{1}{1 + e^{-\eta}}

    The support is [0, 1]. For 0/1 data this is a log-probability; for values in
    between it is the cross-entropy, which has the same minimiser but is not
    normalised over x.
    """

    support = Range(0.0, 1.0)

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write ``log(1 + exp(eta)) - x eta``."""
        out[...] = eta
        scratch = np.empty_like(out)
        softplus(out, scratch)
        np.multiply(x, eta, out=scratch)
        out -= scratch

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write ``logistic(eta) - x``."""
        d_eta[...] = eta
        logistic(d_eta)
        d_eta -= x

    def misfit(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        out: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write both from ``t = tanh(eta / 2)``.

        It gives ``logistic(eta) = (1 + t) / 2`` and, because ``exp(-|eta|)`` is
        ``(1 - |t|) / (1 + |t|)``, also ``log(1 + exp(-|eta|)) = log 2 - log(1 + |t|)``.
        """
        entries = np.maximum(eta, zero_row(eta))
        np.multiply(x, eta, out=d_eta)
        entries -= d_eta
        out[...] = row_sums(entries)
        np.multiply(eta, 0.5, out=d_eta)
        np.tanh(d_eta, out=d_eta)
        np.abs(d_eta, out=entries)
        entries += 1.0
        np.log(entries, out=entries)
        entries -= LOG_TWO
        out -= row_sums(entries)
        d_eta *= 0.5
        d_eta += 0.5
        d_eta -= x

    def mean(self, eta: Array, shared: Array) -> Array:
        """Return ``logistic(eta)``."""
        mean = np.array(eta)
        logistic(mean)
        return mean

    def information(self, eta: Array, shared: Array) -> Array:
        """Return ``p (1 - p)``."""
        p = self.mean(eta, shared)
        return np.asarray(p * (1 - p))

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Return zeros and ones."""
        return np.asarray(rng.random(eta.shape) < special.expit(eta), eta.dtype)

    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return the logit; half a row of each kind is added, so that it is finite."""
        return special.logit(within(mean, n_rows)), np.empty(0)


class Beta(Distribution):
    r"""Proportions from the logit of their mean, with one precision per column.

    .. math:: -\log p(x | \eta) = \log \mathrm{B}(m \phi, (1 - m) \phi)
              - (m \phi - 1) \log x - ((1 - m) \phi - 1) \log(1 - x), \qquad
              \mathrm{E}[x] = m = \frac{1}{1 + e^{-\eta}}

    The support is (0, 1). The variance is :math:`m (1 - m) / (1 + \phi)`.

    Ferrari & Cribari-Neto (2004), "Beta regression for modelling rates and
    proportions", Journal of Applied Statistics 31.
    """

    support = Range(0.0, 1.0, open=True)
    shared_per_feature = 1

    def counts(self, eta: Array, shared: Array) -> tuple[Array, Array, Array]:
        """Return ``m phi``, ``(1 - m) phi`` and phi in double precision."""
        logit, phi = np.asarray(eta, np.float64), np.exp(shared, dtype=np.float64)
        return phi * special.expit(logit), phi * special.expit(-logit), phi

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write the formula, with ``B(a, b) = B(a + 1, b + 1) phi (phi + 1) / (a b)``.

        An underflow of `a` or `b` does no harm then: their logs come from `eta`.
        """
        a, b, phi = self.counts(eta, shared)
        log_beta = special.betaln(a + 1, b + 1) + np.log1p(phi) - shared
        log_beta += np.abs(eta) + 2 * tail(eta)
        log_beta = log_beta - (a - 1) * np.log(x)
        out[...] = log_beta - (b - 1) * np.log1p(-x)

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write ``m (1 - m) phi (digamma(a) - log x - digamma(b) + log(1 - x))``.

        Here ``digamma(a) = digamma(a + 1) - 1 / a`` keeps an underflow of `a` harmless.
        """
        a, b, phi = self.counts(eta, shared)
        near_zero = special.digamma(a + 1) - np.log(x)
        near_one = special.digamma(b + 1) - np.log1p(-x)
        d_eta[...] = a * b / phi * (near_zero - near_one) + (a - b) / phi
        if d_shared is not None:
            both = special.digamma(phi + 1)
            d_shared[...] = a * (near_zero - both) + b * (near_one - both) - 1

    def mean(self, eta: Array, shared: Array) -> Array:
        """Return ``logistic(eta)``."""
        mean = np.array(eta)
        logistic(mean)
        return mean

    def information(self, eta: Array, shared: Array) -> Array:
        """Return ``(m (1 - m) phi)^2 (trigamma(a) + trigamma(b))``."""
        a, b, phi = self.counts(eta, shared)
        spread = special.polygamma(1, a) + special.polygamma(1, b)
        return np.asarray(np.square(a * b / phi) * spread)

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Return proportions."""
        a, b, _ = self.counts(eta, shared)
        x = rng.beta(np.maximum(a, TINY), np.maximum(b, TINY))
        return rounded(x, self.support, eta.dtype)

    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return the logit of the mean, and the precision from the variance."""
        m = within(mean, n_rows)
        return special.logit(m), log_ratio(m * (1.0 - m) - variance, variance)

    def limits(self, variance: Array) -> tuple[Array, Array]:
        """Return the logs of the lowest and highest precision."""
        return extremes(variance)


class Categorical(Distribution):
    r"""A group of columns of which one is one and the others are zero, from logits.

    .. math:: -\log p(x_k | \eta) = x_k \Big(\log \sum_j e^{\eta_j} - \eta_k\Big),
              \qquad \mathrm{E}[x_k] = e^{\eta_k} \Big/ \sum_j e^{\eta_j}

    The support is zero and one. The columns are one variable: only the sum of the
    entries is a log-probability.
    """

    support = Range(0.0, 1.0, whole=True)
    sums_to_one = True

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write ``x (logsumexp(eta) - eta)``."""
        np.subtract(eta, eta.max(axis=-1, keepdims=True), out=out)
        np.subtract(np.log(np.exp(out).sum(axis=-1, keepdims=True)), out, out=out)
        out *= x

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write the derivative of the group's sum: ``softmax(eta) sum(x) - x``."""
        d_eta[...] = self.mean(eta, shared)
        d_eta *= x.sum(axis=-1, keepdims=True)
        d_eta -= x

    def mean(self, eta: Array, shared: Array) -> Array:
        """Return ``softmax(eta)``."""
        mean = np.exp(eta - eta.max(axis=-1, keepdims=True))
        return np.asarray(mean / mean.sum(axis=-1, keepdims=True))

    def information(self, eta: Array, shared: Array) -> Array:
        """Return the probabilities; `whiten` knows how entries depend."""
        return self.mean(eta, shared)

    def whiten(self, eta: Array, shared: Array, tangents: Array) -> None:
        """Subtract the mean derivative, and multiply by the roots of probabilities."""
        p = self.mean(eta, shared)[..., None, :]
        tangents -= (p * tangents).sum(axis=-1, keepdims=True)
        tangents *= np.sqrt(p)

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Return ones where `eta` plus Gumbel noise is largest."""
        x = np.zeros_like(eta)
        chosen = np.argmax(eta + rng.gumbel(size=eta.shape), axis=-1)
        np.put_along_axis(x, chosen[..., None], 1.0, axis=-1)
        return x

    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return logs of the means; half a row of each kind makes them finite."""
        return np.log(mean + 0.5 / n_rows), np.empty(0)


MEMBERS: dict[str, type[Distribution]] = {
    "bernoulli": Bernoulli,
    "beta": Beta,
    "categorical": Categorical,
}
