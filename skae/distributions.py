"""A distribution p(x | eta) measures how well the decoder's output explains a row.

Its negative log-density is the loss. `eta` is the decoder's unconstrained output:
no probability is ever formed and clipped. `shared` are numbers that describe a column
whatever the code, such as a log-scale; they are unconstrained too.

Nothing here silences NumPy: an output of 1000 may overflow, and whoever calls decides
what to say about it. The result is infinite then, never NaN.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from scipy import special

from skae._validation import POSITIVE, Interval
from skae.activations import log1p, logistic, softplus, zero_row
from skae.component import Component, Range
from skae.layout import Array

__all__ = [
    "DISTRIBUTIONS",
    "AbsoluteError",
    "Bernoulli",
    "Beta",
    "Categorical",
    "Distribution",
    "Exponential",
    "Gamma",
    "Gaussian",
    "HeteroscedasticGaussian",
    "Huber",
    "Laplace",
    "LogCosh",
    "LogNormal",
    "NegativeBinomial",
    "Poisson",
    "SquaredError",
    "StudentT",
    "ZeroInflatedNegativeBinomial",
]

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
LOG_TWO = math.log(2.0)
TINY = float(np.finfo(np.float64).tiny)

#: No column is trusted to be known better than this fraction of its own spread.
SMALLEST_SCALE = 1e-3

#: Logs of the lowest and highest shape, size or precision that are ever learned.
EXTREMES = (math.log(1e-3), math.log(1e6))

#: Rates are cut here when counts are drawn: NumPy counts up to 2^63.
LARGEST_RATE = 1e18

#: Share of extra zeros that a zero-inflated model begins with.
EXTRA_ZEROS = 0.1


class Distribution(Component, ABC):
    """The density of one entry given the decoder's output; entries are independent.

    A subclass gives `nll`, `gradient`, `mean`, `start` and, unless it is a loss,
    `sample`. A family with shared parameters other than log-scales gives `limits`, and
    one that sets `has_scale` gives `deviation` and `scale`. All arrays broadcast: `x`
    and `eta` may carry a Monte-Carlo axis in the middle.
    """

    #: Values that the data may take; anything else is refused, naming the column.
    support: ClassVar[Range] = Range()

    #: Decoder outputs that describe one column; `eta` holds them in blocks.
    outputs_per_feature: ClassVar[int] = 1

    #: Numbers that describe one column whatever the code; `shared` has them in blocks.
    shared_per_feature: ClassVar[int] = 0

    #: True where shifting x shifts the family. Such columns are centred inside.
    has_location: ClassVar[bool] = False

    #: True where multiplying x stays in the family. Such columns are divided by their
    #: standard deviation inside.
    has_unit: ClassVar[bool] = False

    #: True where `shared` begins with the log of a scale that can be estimated from
    #: residuals. A deterministic model does so, and trains with a scale of one.
    has_scale: ClassVar[bool] = False

    #: False for losses without a probabilistic reading.
    is_likelihood: ClassVar[bool] = True

    #: True where the encoder sees something else than x.
    changes_inputs: ClassVar[bool] = False

    #: True where the columns are one variable: every row sums to one.
    sums_to_one: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let `misfit` be found anew where a subclass changes what it comes from."""
        super().__init_subclass__(**kwargs)
        changed = {"nll", "gradient"} & set(vars(cls))
        if changed and "misfit" not in vars(cls):
            cls.misfit = Distribution.misfit  # type: ignore[method-assign]

    @abstractmethod
    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write ``-log p(x | eta)`` of every entry to `out`, in nats."""

    @abstractmethod
    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write the derivatives of every entry's `nll`.

        `d_eta` has the shape of `eta`. If `d_shared` is given, its last axis is that of
        `shared`, the others are those of `eta`: nothing is summed.
        """

    def misfit(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        out: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write the sum of each row's `nll` to `out`, and what `gradient` writes.

        This is what training calls. A family may give its own, if `nll` and `gradient`
        share much of their work.
        """
        entries = d_eta[..., : x.shape[-1]]
        self.nll(x, eta, shared, entries)
        np.sum(entries, axis=-1, out=out)
        self.gradient(x, eta, shared, d_eta, d_shared)

    @abstractmethod
    def mean(self, eta: Array, shared: Array) -> Array:
        """Return the reconstruction: E[x | eta], or else the location."""

    @abstractmethod
    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return the `eta` and `shared` that give the moments of `n_rows` rows.

        Both are finite, even for a constant column or one at an end of the support.
        """

    def sample(self, eta: Array, shared: Array, rng: np.random.Generator) -> Array:
        """Draw x in the precision of `eta`; a loss is deterministic: return `mean`."""
        return self.mean(eta, shared)

    def limits(self, variance: Array) -> tuple[Array, Array]:
        """Return the lowest and the highest `shared` that may be learned.

        This default suits log-scales in units of x.
        """
        least = np.log(SMALLEST_SCALE * spread(variance))
        low = np.tile(least, self.shared_per_feature)
        return low, np.full_like(low, np.inf)

    def deviation(self, x: Array, eta: Array, out: Array) -> None:
        """Write the statistic whose average over rows determines the scale."""
        raise NotImplementedError

    def scale(self, deviation: Array) -> Array:
        """Return the scale, given the average deviation."""
        raise NotImplementedError

    def information(self, eta: Array, shared: Array) -> Array:
        """Return the Fisher information of each output, the mean of its squared slope.

        It broadcasts to the shape of `eta`. Losses have none.
        """
        raise NotImplementedError

    def whiten(self, eta: Array, shared: Array, tangents: Array) -> None:
        """Multiply derivatives of `eta` by a root of its Fisher information, in place.

        `tangents` has one axis more than `eta`, before the last.
        """
        tangents *= np.sqrt(self.information(eta, shared))[..., None, :]

    def inputs(self, x: Array, out: Array) -> None:
        """Write what the encoder sees: x, or ``log(1 + x)`` if it `changes_inputs`.

        `out` may be `x` itself.
        """
        if self.changes_inputs:
            np.log1p(x, out=out)
        else:
            np.copyto(out, x)

    # --- which columns are what ---------------------------------------------------

    def parts(self, n_features: int) -> list[tuple[Distribution, Any]]:
        """Return the simple distributions, and the columns that each describes."""
        return [(self, slice(None))]

    def n_outputs(self, n_features: int) -> int:
        """Return the length of `eta`."""
        return self.outputs_per_feature * n_features

    def n_shared(self, n_features: int) -> int:
        """Return the length of `shared`."""
        return self.shared_per_feature * n_features

    def centred(self, n_features: int) -> Array:
        """Return which columns are centred inside."""
        return np.full(n_features, self.has_location)

    def scaled(self, n_features: int) -> Array:
        """Return which columns are divided by their unit inside."""
        return np.full(n_features, self.has_unit)


# --- what several families need ---------------------------------------------------


def halves(a: Array) -> tuple[Array, Array]:
    """Return views of the two blocks of a family with two outputs."""
    n_features = a.shape[-1] // 2
    return a[..., :n_features], a[..., n_features:]


def spread(variance: Array) -> Array:
    """Return the standard deviation, or one for a constant column."""
    return np.asarray(np.sqrt(np.where(variance > 0, variance, 1.0)))


def above_zero(mean: Array, n_rows: float) -> Array:
    """Return the mean; where it is zero, that of half an event in all rows."""
    return np.where(mean > 0, mean, 0.5 / n_rows)


def within(mean: Array, n_rows: float) -> Array:
    """Return the mean after half a row of zeros and half a row of ones."""
    return np.asarray((n_rows * mean + 0.5) / (n_rows + 1.0))


def log_ratio(a: Array, b: Array) -> Array:
    """Return ``log(a / b)`` within the limits; the highest if `b` is not positive."""
    ratio = np.log(np.maximum(a, TINY)) - np.log(np.maximum(b, TINY))
    return np.asarray(np.clip(ratio, *EXTREMES))


def extremes(variance: Array) -> tuple[Array, Array]:
    """Return the limits of a log-shape for every column."""
    low, high = EXTREMES
    return np.full_like(variance, low), np.full_like(variance, high)


def row_sums(a: Array) -> Array:
    """Return the sums over columns, as a product, which is faster."""
    flat = a.reshape(-1, a.shape[-1])
    return np.asarray(flat @ np.ones(a.shape[-1], a.dtype)).reshape(a.shape[:-1])


def tail(a: Array) -> Array:
    """Return ``log(1 + exp(-|a|))``, which softplus adds to ``max(a, 0)``."""
    e = np.exp(-np.abs(a))
    log1p(e)
    return np.asarray(e)


def of_counts(function: Callable[..., Array], x: Array, *shared: Array) -> Array:
    """Return a function of counts and their columns' numbers; it is zero for zero.

    Most counts are zero, and such functions cost more than everything else.
    """
    places = np.flatnonzero(x != 0)
    columns = places % x.shape[-1]
    values = function(x.ravel()[places], *(each[columns] for each in shared))
    found = np.zeros(x.size, x.dtype)
    found[places] = values
    return found.reshape(x.shape)


def log_factorial(x: Array) -> Array:
    """Return ``log x!``."""
    return np.asarray(special.gammaln(x + 1))


def log_choices(x: Array, size: Array) -> Array:
    """Return ``-log(Gamma(x + r) / (Gamma(r) x!))``, exact for a large size r too."""
    return np.asarray(special.betaln(size, x + 1) + np.log(x + size))


def digamma_step(x: Array, size: Array) -> Array:
    """Return ``r (digamma(r) - digamma(x + r))`` for a size r in double precision."""
    return np.asarray(size * (special.digamma(size) - special.digamma(x + size)))


def exact_logistic(u: Array) -> Array:
    """Return ``1 / (1 + exp(-u))``, of which small values keep their digits."""
    e = np.exp(-np.abs(u))
    e += 1
    return np.asarray(np.exp(np.minimum(u, 0)) / e)


def rounded(x: Array, support: Range, dtype: np.dtype[Any]) -> Array:
    """Return draws in `dtype`; rounding must not reach an end of an open support."""
    ends = np.array([support.low, support.high], dtype)
    low, high = np.nextafter(ends, ends[::-1])
    return np.asarray(np.clip(x.astype(dtype), low, high))


# --- the real line ----------------------------------------------------------------


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


# --- positive values --------------------------------------------------------------


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


# --- counts -----------------------------------------------------------------------


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


# --- between zero and one ---------------------------------------------------------


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


# --- losses without a probabilistic reading -----------------------------------------


class Loss(Distribution):
    """A function of the residual that is no log-density."""

    has_location = has_unit = True
    is_likelihood = False

    def mean(self, eta: Array, shared: Array) -> Array:
        """Return `eta`."""
        return np.array(eta)

    def start(self, mean: Array, variance: Array, n_rows: float) -> tuple[Array, Array]:
        """Return the mean itself."""
        return np.array(mean), np.empty(0)


class SquaredError(Loss):
    r"""The squared error.

    .. math:: \ell(x, \eta) = (x - \eta)^2

    The support is the real line. It is a loss, not a likelihood.
    """

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write ``(x - eta)^2``."""
        np.subtract(x, eta, out=out)
        np.square(out, out=out)

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write ``2 (eta - x)``."""
        np.subtract(eta, x, out=d_eta)
        d_eta *= 2

    def misfit(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        out: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write both from the same residuals."""
        np.subtract(eta, x, out=d_eta)
        np.einsum("...j,...j->...", d_eta, d_eta, out=out)
        d_eta *= 2


class AbsoluteError(Loss):
    r"""The absolute error.

    .. math:: \ell(x, \eta) = |x - \eta|

    The support is the real line. It is a loss, not a likelihood.
    """

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write ``|x - eta|``."""
        np.subtract(x, eta, out=out)
        np.abs(out, out=out)

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write ``sign(eta - x)``."""
        np.subtract(eta, x, out=d_eta)
        np.sign(d_eta, out=d_eta)


class Huber(Loss):
    r"""Half the squared error; beyond `delta` the absolute error, shifted to fit.

    .. math:: \ell(x, \eta) = c \left(|r| - \tfrac{1}{2} c\right), \qquad
              r = x - \eta, \qquad c = \min(|r|, \delta)

    The support is the real line. It is a loss, not a likelihood. `delta` is in units of
    the standardized column.

    Huber (1964), "Robust estimation of a location parameter", Annals of Mathematical
    Statistics 35.
    """

    _parameter_constraints: ClassVar = {"delta": [POSITIVE]}

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = delta

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write ``c (|r| - c / 2)``."""
        np.subtract(x, eta, out=out)
        np.abs(out, out=out)
        c = np.minimum(out, self.delta)
        out *= c
        np.square(c, out=c)
        c *= 0.5
        out -= c

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write ``eta - x``, at most `delta` either way."""
        np.subtract(eta, x, out=d_eta)
        np.clip(d_eta, -self.delta, self.delta, out=d_eta)


class LogCosh(Loss):
    r"""Half the squared error for small residuals, the absolute error for large ones.

    .. math:: \ell(x, \eta) = \log \cosh(x - \eta)

    The support is the real line. It is a loss, not a likelihood.
    """

    def nll(self, x: Array, eta: Array, shared: Array, out: Array) -> None:
        """Write ``|r| + log((1 + exp(-2 |r|)) / 2)``, which cannot overflow."""
        np.subtract(x, eta, out=out)
        np.abs(out, out=out)
        scratch = -2 * out
        np.expm1(scratch, out=scratch)
        scratch *= 0.5
        np.log1p(scratch, out=scratch)
        out += scratch

    def gradient(
        self,
        x: Array,
        eta: Array,
        shared: Array,
        d_eta: Array,
        d_shared: Array | None = None,
    ) -> None:
        """Write ``tanh(eta - x)``."""
        np.subtract(eta, x, out=d_eta)
        np.tanh(d_eta, out=d_eta)


DISTRIBUTIONS: dict[str, type[Distribution]] = {
    "absolute_error": AbsoluteError,
    "bernoulli": Bernoulli,
    "beta": Beta,
    "categorical": Categorical,
    "exponential": Exponential,
    "gamma": Gamma,
    "gaussian": Gaussian,
    "heteroscedastic_gaussian": HeteroscedasticGaussian,
    "huber": Huber,
    "laplace": Laplace,
    "log_cosh": LogCosh,
    "log_normal": LogNormal,
    "negative_binomial": NegativeBinomial,
    "poisson": Poisson,
    "squared_error": SquaredError,
    "student_t": StudentT,
    "zero_inflated_negative_binomial": ZeroInflatedNegativeBinomial,
}
