"""Losses without a probabilistic reading."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from skae._validation import POSITIVE
from skae.distributions._distribution import Distribution
from skae.layout import Array

__all__ = [
    "AbsoluteError",
    "Huber",
    "LogCosh",
    "SquaredError",
]


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


MEMBERS: dict[str, type[Distribution]] = {
    "absolute_error": AbsoluteError,
    "huber": Huber,
    "log_cosh": LogCosh,
    "squared_error": SquaredError,
}
