"""Distributions of counts."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from skae.activations import logistic, softplus
from skae.component import Range
from skae.distributions._distribution import Distribution
from skae.distributions._numbers import (
    above_zero,
    digamma_step,
    exact_logistic,
    extremes,
    halves,
    log_choices,
    log_factorial,
    log_ratio,
    of_counts,
    tail,
)
from skae.layout import Array

__all__ = [
    "NegativeBinomial",
    "Poisson",
    "ZeroInflatedNegativeBinomial",
]

#: Rates are cut here when counts are drawn: NumPy counts up to 2^63.
LARGEST_RATE = 1e18

#: Share of extra zeros that a zero-inflated model begins with.
EXTRA_ZEROS = 0.1


class Poisson(Distribution):
    r"""Counts from a log-mean, which is their variance too.

    .. math:: -\log p(x | \eta) = e^\eta - x \eta + \log x!, \qquad
              \mathrm{E}[x] = e^\eta

    The support is the whole numbers from zero on.
    """

    support = Range(0.0, whole=True)
    changes_inputs = True

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write ``exp(eta) - x eta + log(x!)``."""
        np.exp(eta, out=out)
        out -= x * eta
        out += of_counts(log_factorial, x)

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write ``exp(eta) - x``."""
        np.exp(eta, out=d_eta)
        d_eta -= x

    def mean(self, eta: Array, shared: Array) -> Array:
        """Return ``exp(eta)``."""
        return np.asarray(np.exp(eta))

    def information(self, eta: Array, shared: Array) -> Array:
        """Return the rate."""
        return self.mean(eta, shared)

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Return counts."""
        rate = np.minimum(np.exp(eta), LARGEST_RATE)
        return np.asarray(rng.poisson(rate), eta.dtype)

    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return the log of the mean."""
        return np.log(above_zero(mean, n_rows)), np.empty(0)


class NegativeBinomial(Distribution):
    r"""Counts from a log-mean, more dispersed than Poisson's.

    .. math:: -\log p(x | \eta) = -\log \frac{\Gamma(x + r)}{\Gamma(r)\, x!}
              + (x + r) \log(1 + e^u) - x u, \quad u = \eta - \log r, \quad
              \mathrm{E}[x] = \mu = e^\eta

    The support is the whole numbers from zero on. The variance is
    :math:`\mu + \mu^2 / r`; the size r, one per column, is infinite for Poisson.

    Eraslan, Simon, Mircea, Mueller & Theis (2019), "Single-cell RNA-seq denoising using
    a deep count autoencoder", Nature Communications 10.
    """

    support = Range(0.0, whole=True)
    shared_per_feature = 1
    changes_inputs = True

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write the formula; what is left of it for a count of zero is the softplus."""
        r = np.exp(shared)
        np.subtract(eta, shared, out=out)
        x_u = x * out
        softplus(out, np.empty_like(out))
        out *= x + r
        out -= x_u
        out += of_counts(log_choices, x, r)

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write ``g = (x + r) logistic(u) - x``, and for the logarithm of the size r.

        That is ``r (softplus(u) + digamma(r) - digamma(x + r)) - g``. For a large size
        its terms cancel, so that digamma is computed in double precision.
        """
        u = eta - shared
        # Here a tiny logistic(u) must be exact: it is multiplied by a large size.
        d_eta[...] = exact_logistic(u)
        d_eta *= x + np.exp(shared)
        d_eta -= x
        if d_shared is not None:
            softplus(u, np.empty_like(u))
            u *= np.exp(shared)
            np.subtract(u, d_eta, out=d_shared)
            r = np.exp(shared, dtype=np.float64)
            d_shared += of_counts(digamma_step, x, r)

    def mean(self, eta: Array, shared: Array) -> Array:
        """Return ``exp(eta)``."""
        return np.asarray(np.exp(eta))

    def information(self, eta: Array, shared: Array) -> Array:
        """Return ``r logistic(u)``, that is ``mu r / (mu + r)``."""
        return np.asarray(np.exp(shared) * special.expit(eta - shared))

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Return Poisson counts of gamma rates."""
        rate = np.minimum(np.exp(eta - shared), LARGEST_RATE)
        rate = rng.standard_gamma(np.exp(shared), eta.shape) * rate
        return np.asarray(rng.poisson(np.minimum(rate, LARGEST_RATE)), eta.dtype)

    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return the log of the mean, and the size from the variance above it."""
        mean = above_zero(mean, n_rows)
        return np.log(mean), log_ratio(np.square(mean), variance - mean)

    def limits(self, variance: Array) -> tuple[Array, Array]:
        """Return the logs of the lowest and highest size."""
        return extremes(variance)


class ZeroInflatedNegativeBinomial(Distribution):
    r"""Counts of a negative binomial, of which some were lost and read zero.

    .. math:: p(x | \eta, a) = \pi [x = 0] + (1 - \pi) \mathrm{NB}(x | \eta), \qquad
              \pi = \frac{1}{1 + e^{-a}}, \qquad \mathrm{E}[x] = (1 - \pi) e^\eta

    The support is the whole numbers from zero on. The outputs are the log-mean of the
    negative binomial and the logit of the extra zeros; the size is one per column.

    Eraslan, Simon, Mircea, Mueller & Theis (2019), "Single-cell RNA-seq denoising using
    a deep count autoencoder", Nature Communications 10.
    """

    support = Range(0.0, whole=True)
    outputs_per_feature = 2
    shared_per_feature = 1
    changes_inputs = True

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write ``N + softplus(a)``, less ``softplus(a + N)`` where x is zero.

        N is the loss without extra zeros. The terms are arranged so that large ones
        never cancel.
        """
        log_mean, a = halves(eta)
        NegativeBinomial().nll(x, log_mean, shared, out)
        both = tail(a + out)
        out += np.maximum(a, 0)
        np.subtract(np.minimum(np.maximum(-a, 0), out), both, out=both)
        np.copyto(out, both, where=x == 0)
        out += tail(a)

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write the negative binomial's times ``1 - q``, and ``logistic(a) - q``.

        Here q is the probability that a zero is an extra one, ``logistic(a + N)``.
        """
        log_mean, a = halves(eta)
        d_log_mean, d_a = halves(d_eta)
        NegativeBinomial().gradient(x, log_mean, shared, d_log_mean, d_shared)
        q = log_mean - shared
        softplus(q, np.empty_like(q))
        q *= np.exp(shared)
        q += a
        logistic(q)
        np.copyto(q, 0, where=x > 0)
        d_a[...] = a
        logistic(d_a)
        d_a -= q
        np.subtract(1, q, out=q)
        d_log_mean *= q
        if d_shared is not None:
            d_shared *= q

    def mean(self, eta: Array, shared: Array) -> Array:
        """Return ``(1 - pi) exp(eta)`` as one exponential."""
        log_mean, a = halves(eta)
        return np.asarray(np.exp(log_mean + special.log_expit(-a)))

    def information(self, eta: Array, shared: Array) -> Array:
        """Return that of the log-mean and that of the logit, each by itself."""
        log_mean, logit = halves(eta)
        u, r, extra = log_mean - shared, np.exp(shared), special.expit(logit)
        zero = np.exp(-r * (np.maximum(u, 0) + tail(u)))  # of the negative binomial
        any_zero = extra + (1 - extra) * zero
        slope = r * special.expit(u)
        of_mean = (1 - extra) * (slope - np.square(slope) * zero * extra / any_zero)
        of_logit = np.square(extra) * (1 - extra) * (1 - zero) / any_zero
        return np.concatenate([of_mean, of_logit], axis=-1)

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Return the counts of a negative binomial, some of them lost."""
        log_mean, a = halves(eta)
        x = NegativeBinomial().sample(log_mean, shared, rng)
        x[rng.random(a.shape) < special.expit(a)] = 0.0
        return x

    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return a tenth of extra zeros, and the rest by the moments."""
        mean, kept = above_zero(mean, n_rows), 1.0 - EXTRA_ZEROS
        square = np.square(mean)
        size = log_ratio(square, kept * (variance + square - mean) - square)
        logit = np.full_like(mean, math.log(EXTRA_ZEROS / kept))
        return np.concatenate([np.log(mean / kept), logit]), size

    def limits(self, variance: Array) -> tuple[Array, Array]:
        """Return the logs of the lowest and highest size."""
        return extremes(variance)


MEMBERS: dict[str, type[Distribution]] = {
    "negative_binomial": NegativeBinomial,
    "poisson": Poisson,
    "zero_inflated_negative_binomial": ZeroInflatedNegativeBinomial,
}
