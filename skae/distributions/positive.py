"""Distributions of positive values."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from scipy import special

from skae._validation import POSITIVE
from skae.activations import softplus
from skae.component import Range
from skae.distributions._distribution import SMALLEST_SCALE, Distribution
from skae.distributions._numbers import (
    HALF_LOG_TWO_PI,
    above_zero,
    extremes,
    log_ratio,
    rounded,
    spread,
)
from skae.layout import Array

__all__ = [
    "Exponential",
    "Gamma",
    "LogNormal",
]


class Exponential(Distribution):
    r"""Waiting times and other values from zero on, from a log-rate.

    .. math:: -\log p(x | \gamma) = \frac{x}{m} + \log m, \qquad
              \mathrm{E}[x] = m = m_{\min} + e^{-\gamma}

    The support is [0, inf). `min_mean` is in units of the column's standard deviation:
    without it the likelihood of a zero would be unbounded. Up to that, :math:`\gamma`
    is the logarithm of the rate.
    """

    support = Range(0.0)
    has_unit = changes_inputs = True
    _parameter_constraints: ClassVar = {"min_mean": [POSITIVE]}

    def __init__(self, min_mean: float = 1e-3) -> None:
        self.min_mean = min_mean

    def log_mean(self, eta: Array) -> Array:
        """Return ``log(min_mean + exp(-eta))`` without forming the exponential."""
        floor = math.log(self.min_mean)
        log_mean = -floor - eta
        softplus(log_mean, np.empty_like(log_mean))
        log_mean += floor
        return log_mean

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write ``x / m + log(m)``."""
        log_mean = self.log_mean(eta)
        np.multiply(x, np.exp(-log_mean), out=out)
        out += log_mean

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write ``(x / m - 1) exp(-eta) / m``."""
        log_mean = self.log_mean(eta)
        np.multiply(x, np.exp(-log_mean), out=d_eta)
        d_eta -= 1
        d_eta *= np.exp(-eta - log_mean)

    def mean(self, eta: Array, shared: Array) -> Array:
        """Return ``min_mean + exp(-eta)``."""
        return np.asarray(np.exp(self.log_mean(eta)))

    def information(self, eta: Array, shared: Array) -> Array:
        """Return ``(exp(-eta) / m)^2``."""
        return np.asarray(np.exp(-2 * (eta + self.log_mean(eta))))

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Return standard draws, times the mean."""
        log_x = np.log(rng.standard_exponential(eta.shape)) + self.log_mean(eta)
        return rounded(np.exp(log_x), self.support, eta.dtype)

    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return the `eta` of the mean, or of one a little above the smallest."""
        above = np.maximum(mean - self.min_mean, 0.1 * self.min_mean)
        return -np.log(above), np.empty(0)


class Gamma(Distribution):
    r"""Positive values from a log-mean, with one shape per column.

    .. math:: -\log p(x | \eta) = \log \Gamma(k) - k \log k + k \eta
              - (k - 1) \log x + k x e^{-\eta}, \qquad \mathrm{E}[x] = e^\eta

    The support is (0, inf). The standard deviation is the mean divided by the root of
    the shape k: errors count in per cent.
    """

    support = Range(0.0, open=True)
    shared_per_feature = 1
    has_unit = changes_inputs = True

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write ``k (exp(t) - 1 - t) + log(x)`` and so on, ``t = log(x) - eta``.

        What is left, ``log(Gamma(k)) - k log(k) + k``, is small for a large shape, and
        is computed in double precision.
        """
        log_x, log_k = np.log(x), np.asarray(shared, np.float64)
        np.subtract(log_x, eta, out=out)
        excess = np.expm1(out)
        excess -= out
        np.multiply(excess, np.exp(shared), out=out)
        k = np.exp(log_k)
        out += log_x
        out += special.gammaln(k) - k * log_k + k

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write ``-k e`` and ``k (e - t + digamma(k) - log k)``, ``e = exp(t) - 1``."""
        t, log_k = np.log(x) - eta, np.asarray(shared, np.float64)
        np.expm1(t, out=d_eta)
        if d_shared is not None:
            np.subtract(d_eta, t, out=d_shared)
            d_shared += special.digamma(np.exp(log_k)) - log_k
            d_shared *= np.exp(shared)
        d_eta *= -np.exp(shared)

    def mean(self, eta: Array, shared: Array) -> Array:
        """Return ``exp(eta)``."""
        return np.asarray(np.exp(eta))

    def information(self, eta: Array, shared: Array) -> Array:
        """Return the shape."""
        return np.broadcast_to(np.exp(shared), eta.shape)

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Return standard draws of the shape, times the mean."""
        draws = rng.standard_gamma(np.exp(shared), eta.shape)
        with np.errstate(divide="ignore"):
            log_x = np.log(draws) + eta - shared
        return rounded(np.exp(log_x), self.support, eta.dtype)

    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return the log of the mean, and that of its square over the variance."""
        mean = above_zero(mean, n_rows)
        return np.log(mean), log_ratio(np.square(mean), variance)

    def limits(self, variance: Array) -> tuple[Array, Array]:
        """Return the logs of the lowest and highest shape."""
        return extremes(variance)


class LogNormal(Distribution):
    r"""Positive values whose logarithm is normal around the output.

    .. math:: -\log p(x | \eta) = \frac{(\log x - \eta)^2}{2 \sigma^2} + \log \sigma
              + \log x + \tfrac{1}{2} \log 2 \pi, \qquad
              \mathrm{E}[x] = e^{\eta + \sigma^2 / 2}

    The support is (0, inf). The standard deviation, one per column, is that of the
    logarithm: it has no unit.
    """

    support = Range(0.0, open=True)
    shared_per_feature = 1
    has_unit = has_scale = changes_inputs = True

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write the Gaussian of the logarithm, plus ``log(x)``."""
        log_x = np.log(x)
        np.subtract(log_x, eta, out=out)
        out *= np.exp(-shared)
        np.square(out, out=out)
        out *= 0.5
        out += shared + HALF_LOG_TWO_PI
        out += log_x

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write ``-r / sd`` and ``1 - r^2``, ``r = (log(x) - eta) / sd``."""
        np.subtract(eta, np.log(x), out=d_eta)
        d_eta *= np.exp(-shared)
        if d_shared is not None:
            np.square(d_eta, out=d_shared)
            np.subtract(1, d_shared, out=d_shared)
        d_eta *= np.exp(-shared)

    def mean(self, eta: Array, shared: Array) -> Array:
        """Return ``exp(eta + sd^2 / 2)``."""
        return np.asarray(np.exp(eta + 0.5 * np.exp(2.0 * shared)))

    def information(self, eta: Array, shared: Array) -> Array:
        """Return ``1 / sd^2``."""
        return np.broadcast_to(np.exp(-2 * shared), eta.shape)

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Return the exponential of `eta` plus normal noise."""
        log_x = rng.standard_normal(eta.shape) * np.exp(shared) + eta
        return rounded(np.exp(log_x), self.support, eta.dtype)

    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return both from ``E[x^2] / E[x]^2 = exp(sd^2)``."""
        log_mean = np.log(above_zero(mean, n_rows))
        log_square = np.logaddexp(0.0, 2.0 * (np.log(spread(variance)) - log_mean))
        sd = np.maximum(np.sqrt(log_square), SMALLEST_SCALE)
        return log_mean - 0.5 * np.square(sd), np.log(sd)

    def limits(self, variance: Array) -> tuple[Array, Array]:
        """Return the logs of a thousandth and of infinity, whatever the unit of x."""
        low = np.full_like(variance, math.log(SMALLEST_SCALE))
        return low, np.full_like(low, np.inf)

    def deviation(self, x: Array, eta: Array, out: Array) -> None:
        """Write the squared residual of the logarithm."""
        np.subtract(np.log(x), eta, out=out)
        np.square(out, out=out)

    def scale(self, deviation: Array) -> Array:
        """Return the root of the mean squared residual."""
        return np.asarray(np.sqrt(deviation))


MEMBERS: dict[str, type[Distribution]] = {
    "exponential": Exponential,
    "gamma": Gamma,
    "log_normal": LogNormal,
}
