"""A distribution p(x | eta) measures how well the decoder's output explains a row.

Its negative log-density is the loss. `eta` is the decoder's unconstrained output:
no probability is ever formed and clipped.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from skae.activations import logistic, softplus
from skae.component import Component, Range
from skae.layout import Array

__all__ = ["DISTRIBUTIONS", "Bernoulli", "Distribution", "Gaussian"]

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class Distribution(Component, ABC):
    """The density of one entry given the decoder's output; entries are independent.

    A subclass gives `nll`, `gradient`, `mean` and `start`; a family with a scale
    parameter also sets `has_scale` and gives `deviation` and `scale`. All arrays
    broadcast: `x` and `eta` may carry a Monte-Carlo axis in the middle.
    """

    #: Values that the data may take; anything else is refused, naming the column.
    support: ClassVar[Range] = Range()

    #: Decoder outputs that describe one column; `eta` holds them in blocks.
    outputs_per_feature: ClassVar[int] = 1

    #: True where shifting and scaling x shifts and scales the family. Such columns
    #: are standardized inside and have a scale parameter estimated from residuals.
    has_scale: ClassVar[bool] = False

    @abstractmethod
    def nll(self, x: Array, eta: Array, scale: Array | float, out: Array) -> None:
        """Write ``-log p(x | eta)`` of every entry to `out`, in nats."""

    @abstractmethod
    def gradient(self, x: Array, eta: Array, scale: Array | float, out: Array) -> None:
        """Write the derivative of `nll` with respect to `eta` to `out`."""

    @abstractmethod
    def mean(self, eta: Array) -> Array:
        """Return the reconstruction: E[x | eta], or else the location."""

    @abstractmethod
    def start(self, mean: Array, n_rows: float) -> Array:
        """Return the `eta` that gives the mean of the data, seen in `n_rows` rows."""

    def deviation(self, x: Array, eta: Array, out: Array) -> None:
        """Write the statistic whose average over rows determines the scale."""
        raise NotImplementedError

    def scale(self, deviation: Array) -> Array:
        """Return the scale, given the average deviation."""
        raise NotImplementedError


class Bernoulli(Distribution):
    r"""Values in [0, 1] from logits: binary data, or grey levels.

    .. math:: -\log p(x | \eta) = \log(1 + e^\eta) - x \eta, \qquad
              \mathrm{E}[x] = \frac{1}{1 + e^{-\eta}}

    The support is [0, 1]. For 0/1 data this is a log-probability; for values in
    between it is the cross-entropy, which has the same minimiser but is not
    normalised over x.
    """

    support = Range(0.0, 1.0)

    def nll(self, x: Array, eta: Array, scale: Array | float, out: Array) -> None:
        """Write ``log(1 + exp(eta)) - x eta``."""
        out[...] = eta
        scratch = np.empty_like(out)
        softplus(out, scratch)
        np.multiply(x, eta, out=scratch)
        out -= scratch

    def gradient(self, x: Array, eta: Array, scale: Array | float, out: Array) -> None:
        """Write ``logistic(eta) - x``."""
        out[...] = eta
        logistic(out)
        out -= x

    def mean(self, eta: Array) -> Array:
        """Return ``logistic(eta)``."""
        mean = np.array(eta)
        logistic(mean)
        return mean

    def start(self, mean: Array, n_rows: float) -> Array:
        """Return the logit; half a row of each kind is added, so that it is finite."""
        p = (n_rows * mean + 0.5) / (n_rows + 1.0)
        return np.asarray(np.log(p) - np.log1p(-p))


class Gaussian(Distribution):
    r"""Real values around the output, with one standard deviation per column.

    .. math:: -\log p(x | \eta) = \frac{(x - \eta)^2}{2 \sigma^2} + \log \sigma
              + \tfrac{1}{2} \log 2 \pi, \qquad \mathrm{E}[x] = \eta

    The support is the real line. While the network is trained the standard deviation
    is one (in units of the standardized column), so that the loss is half the squared
    error; afterwards it is estimated from the residuals.
    """

    has_scale = True

    def nll(self, x: Array, eta: Array, scale: Array | float, out: Array) -> None:
        """Write ``r^2 / 2 + log(scale) + log(2 pi) / 2``, ``r = (x - eta) / scale``."""
        np.subtract(x, eta, out=out)
        out /= scale
        np.square(out, out=out)
        out *= 0.5
        out += np.log(scale) + HALF_LOG_TWO_PI

    def gradient(self, x: Array, eta: Array, scale: Array | float, out: Array) -> None:
        """Write ``(eta - x) / scale^2``."""
        np.subtract(eta, x, out=out)
        out /= np.square(scale)

    def mean(self, eta: Array) -> Array:
        """Return `eta`."""
        return np.array(eta)

    def start(self, mean: Array, n_rows: float) -> Array:
        """Return the mean itself."""
        return mean

    def deviation(self, x: Array, eta: Array, out: Array) -> None:
        """Write the squared residual."""
        np.subtract(x, eta, out=out)
        np.square(out, out=out)

    def scale(self, deviation: Array) -> Array:
        """Return the root of the mean squared residual."""
        return np.asarray(np.sqrt(deviation))


DISTRIBUTIONS: dict[str, type[Distribution]] = {
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
}
