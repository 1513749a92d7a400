"""Distributions of real values."""

from __future__ import annotations

import math
from numbers import Real
from typing import ClassVar

import numpy as np
from scipy import special

from skae._validation import POSITIVE, Interval
from skae.activations import logistic, softplus
from skae.distributions._distribution import SMALLEST_SCALE, Distribution
from skae.distributions._numbers import HALF_LOG_TWO_PI, LOG_TWO, halves, spread
from skae.layout import Array

__all__ = [
    "Gaussian",
    "HeteroscedasticGaussian",
    "Laplace",
    "StudentT",
]


class Gaussian(Distribution):
    r"""Real values around the output, with one standard deviation per column.

    .. math:: -\log p(x | \eta) = \frac{(x - \eta)^2}{2 \sigma^2} + \log \sigma
              + \tfrac{1}{2} \log 2 \pi, \qquad \mathrm{E}[x] = \eta

    The support is the real line. With a standard deviation of one (in units of the
    standardized column) the loss is half the squared error.
    """

    shared_per_feature = 1
    has_location = has_unit = has_scale = True

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write ``r^2 / 2 + log(sd) + log(2 pi) / 2``, ``r = (x - eta) / sd``."""
        np.subtract(x, eta, out=out)
        out *= np.exp(-shared)
        np.square(out, out=out)
        out *= 0.5
        out += shared + HALF_LOG_TWO_PI

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write ``-r / sd`` and ``1 - r^2``."""
        np.subtract(eta, x, out=d_eta)
        d_eta *= np.exp(-shared)
        if d_shared is not None:
            np.square(d_eta, out=d_shared)
            np.subtract(1, d_shared, out=d_shared)
        d_eta *= np.exp(-shared)

    def misfit(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        out: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write both from the same residuals; scales are often one in training."""
        if d_shared is not None or shared.any():
            super().misfit(x, eta, shared, out, d_eta, d_shared)
            return
        np.subtract(eta, x, out=d_eta)
        np.einsum("...j,...j->...", d_eta, d_eta, out=out)
        out *= 0.5
        out += HALF_LOG_TWO_PI * x.shape[-1]

    def mean(self, eta: Array, shared: Array) -> Array:
        """Return `eta`."""
        return np.array(eta)

    def information(self, eta: Array, shared: Array) -> Array:
        """Return ``1 / sd^2``."""
        return np.broadcast_to(np.exp(-2 * shared), eta.shape)

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Return `eta` plus normal noise."""
        noise = rng.standard_normal(eta.shape).astype(eta.dtype)
        noise *= np.exp(shared)
        noise += eta
        return noise

    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return the mean itself, and the log of the standard deviation."""
        return np.array(mean), np.log(spread(variance))

    def deviation(self, x: Array, eta: Array, out: Array) -> None:
        """Write the squared residual."""
        np.subtract(x, eta, out=out)
        np.square(out, out=out)

    def scale(self, deviation: Array) -> Array:
        """Return the root of the mean squared residual."""
        return np.asarray(np.sqrt(deviation))


class HeteroscedasticGaussian(Distribution):
    r"""Real values around one output, with a variance that another output gives.

    .. math:: -\log p(x | \mu, v) = \frac{(x - \mu)^2}{2 \sigma^2} + \log \sigma
              + \tfrac{1}{2} \log 2 \pi, \qquad \sigma^2 = \sigma_{\min}^2 + e^v, \qquad
              \mathrm{E}[x] = \mu

    The support is the real line. `min_scale` is in units of the standardized column:
    without it the likelihood would be unbounded where the network meets a row exactly.

    Nix & Weigend (1994), "Estimating the mean and variance of the target probability
    distribution", ICNN.
    """

    outputs_per_feature = 2
    has_location = has_unit = True
    _parameter_constraints: ClassVar = {"min_scale": [POSITIVE]}

    def __init__(self, min_scale: float = 0.03) -> None:
        self.min_scale = min_scale

    def log_scale(self, v: Array) -> Array:
        """Return ``log(min_scale^2 + exp(v)) / 2`` without forming the exponential."""
        floor = 2.0 * math.log(self.min_scale)
        h = v - floor
        softplus(h, np.empty_like(h))
        h += floor
        h *= 0.5
        return h

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write ``r^2 / 2 + log(sd) + log(2 pi) / 2``, ``r = (x - mu) / sd``."""
        mu, v = halves(eta)
        h = self.log_scale(v)
        np.subtract(x, mu, out=out)
        out *= np.exp(-h)
        np.square(out, out=out)
        out *= 0.5
        h += HALF_LOG_TWO_PI
        out += h

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write ``-r / sd`` and ``p (1 - r^2) / 2``, ``p = exp(v) / sd^2``."""
        mu, v = halves(eta)
        d_mu, d_v = halves(d_eta)
        precision = np.exp(-self.log_scale(v))
        np.subtract(mu, x, out=d_mu)
        d_mu *= precision
        np.subtract(v, 2.0 * math.log(self.min_scale), out=d_v)
        logistic(d_v)
        # A huge residual times a vanishing part, and only then times itself.
        d_v -= d_v * d_mu * d_mu
        d_v *= 0.5
        d_mu *= precision

    def mean(self, eta: Array, shared: Array) -> Array:
        """Return the first output."""
        return np.array(halves(eta)[0])

    def information(self, eta: Array, shared: Array) -> Array:
        """Return ``1 / sd^2`` and ``(exp(v) / sd^2)^2 / 2``."""
        v = halves(eta)[1]
        scale = self.log_scale(v)
        of_scale = 0.5 * np.exp(2 * (v - 2 * scale))
        return np.concatenate([np.exp(-2 * scale), of_scale], axis=-1)

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Return the first output plus normal noise."""
        mu, v = halves(eta)
        noise = rng.standard_normal(mu.shape).astype(eta.dtype)
        noise *= np.exp(self.log_scale(v))
        noise += mu
        return noise

    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return the mean, and the log of the variance above its minimum."""
        least = self.min_scale**2
        excess = np.maximum(np.square(spread(variance)) - least, least)
        return np.concatenate([mean, np.log(excess)]), np.empty(0)


class Laplace(Distribution):
    r"""Real values around the output; large errors cost less than under a Gaussian.

    .. math:: -\log p(x | \eta) = \frac{|x - \eta|}{b} + \log 2 b, \qquad
              \mathrm{E}[x] = \eta

    The support is the real line. With a scale of one the loss is the absolute error.
    """

    shared_per_feature = 1
    has_location = has_unit = has_scale = True

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write ``|x - eta| / b + log(2 b)``."""
        np.subtract(x, eta, out=out)
        np.abs(out, out=out)
        out *= np.exp(-shared)
        out += shared + LOG_TWO

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write ``sign(eta - x) / b`` and ``1 - |x - eta| / b``."""
        np.subtract(eta, x, out=d_eta)
        if d_shared is not None:
            np.abs(d_eta, out=d_shared)
            d_shared *= -np.exp(-shared)
            d_shared += 1
        np.sign(d_eta, out=d_eta)
        d_eta *= np.exp(-shared)

    def mean(self, eta: Array, shared: Array) -> Array:
        """Return `eta`."""
        return np.array(eta)

    def information(self, eta: Array, shared: Array) -> Array:
        """Return ``1 / b^2``."""
        return np.broadcast_to(np.exp(-2 * shared), eta.shape)

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Return `eta` plus noise."""
        noise = rng.laplace(size=eta.shape).astype(eta.dtype)
        noise *= np.exp(shared)
        noise += eta
        return noise

    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return the mean, and the scale from the variance ``2 b^2``."""
        return np.array(mean), np.log(spread(variance)) - 0.5 * LOG_TWO

    def deviation(self, x: Array, eta: Array, out: Array) -> None:
        """Write the absolute residual."""
        np.subtract(x, eta, out=out)
        np.abs(out, out=out)

    def scale(self, deviation: Array) -> Array:
        """Return the mean absolute residual."""
        return np.array(deviation)


class StudentT(Distribution):
    r"""Real values around the output, with the heavy tails of `df` degrees of freedom.

    .. math:: -\log p(x | \eta) = \frac{\nu + 1}{2} \log\left(1 + \frac{(x - \eta)^2}
              {\nu s^2}\right) + \log s + \log \frac{\sqrt{\nu \pi}\, \Gamma(\nu / 2)}
              {\Gamma((\nu + 1) / 2)}, \qquad \mathrm{E}[x] = \eta

    The support is the real line. A far outlier pulls less than a near one.

    Lange, Little & Taylor (1989), "Robust statistical modeling using the t
    distribution", Journal of the American Statistical Association 84.
    """

    shared_per_feature = 1
    has_location = has_unit = has_scale = True
    _parameter_constraints: ClassVar = {
        "df": [Interval(Real, 1, None, closed="neither")]
    }

    def __init__(self, df: float = 4.0) -> None:
        self.df = df

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write the formula; beta functions give the ratio of gamma functions."""
        np.subtract(x, eta, out=out)
        out *= np.exp(-shared)
        np.square(out, out=out)
        out /= self.df
        np.log1p(out, out=out)
        out *= 0.5 * (self.df + 1.0)
        out += shared + float(
            special.betaln(0.5 * self.df, 0.5) + 0.5 * math.log(self.df)
        )

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write ``-w r / s`` and ``(1 - r^2) / (1 + r^2 / df)``.

        Here ``r = (x - eta) / s`` and ``w = (1 + 1 / df) / (1 + r^2 / df)``.
        """
        np.subtract(eta, x, out=d_eta)
        d_eta *= np.exp(-shared)
        square = np.square(d_eta)
        excess = 1 + square / self.df
        if d_shared is not None:
            np.subtract(1, square, out=d_shared)
            d_shared /= excess
        d_eta /= excess
        d_eta *= (1.0 + 1.0 / self.df) * np.exp(-shared)

    def mean(self, eta: Array, shared: Array) -> Array:
        """Return `eta`."""
        return np.array(eta)

    def information(self, eta: Array, shared: Array) -> Array:
        """Return ``(df + 1) / ((df + 3) sd^2)``."""
        factor = (self.df + 1) / (self.df + 3)
        return np.broadcast_to(factor * np.exp(-2 * shared), eta.shape)

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Return `eta` plus noise."""
        noise = rng.standard_t(self.df, eta.shape).astype(eta.dtype)
        noise *= np.exp(shared)
        noise += eta
        return noise

    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return the mean, and the scale from the variance if the family has one."""
        part = (self.df - 2.0) / self.df if self.df > 2 else 1.0
        fraction = max(math.sqrt(part), SMALLEST_SCALE)
        return np.array(mean), np.log(fraction * spread(variance))

    def deviation(self, x: Array, eta: Array, out: Array) -> None:
        """Write the root of the absolute residual: outliers hardly touch its mean."""
        np.subtract(x, eta, out=out)
        np.abs(out, out=out)
        np.sqrt(out, out=out)

    def scale(self, deviation: Array) -> Array:
        """Return the scale that gives ``E|x - eta|^(1/2)``."""
        half = 0.5 * self.df
        of_unit_scale = math.exp(
            0.25 * math.log(self.df)
            + math.lgamma(0.75)
            + math.lgamma(half - 0.25)
            - math.lgamma(half)
            - 0.5 * math.log(math.pi)
        )
        return np.asarray(np.square(deviation / of_unit_scale))


MEMBERS: dict[str, type[Distribution]] = {
    "gaussian": Gaussian,
    "heteroscedastic_gaussian": HeteroscedasticGaussian,
    "laplace": Laplace,
    "student_t": StudentT,
}
