"""An activation bends the output of a layer.

Every activation works in place, and its derivative is computed from its *output*:
nothing but the output has to be kept for the way back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from skae.layout import Array

__all__ = ["ACTIVATIONS", "Activation", "logistic", "softplus", "zero_row"]

LEAK = 0.01
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


class Activation(NamedTuple):
    """An elementwise function, its derivative and the weights it starts from.

    Attributes
    ----------
    apply : callable
        ``apply(a, scratch)`` replaces the pre-activation in `a` by ``f(a)``.
    chain : callable
        ``chain(a, d, scratch)`` turns ``dL/da`` in `d` into ``dL/dz`` in place,
        given the output `a`, which it leaves alone.
    bound : callable
        ``bound(fan_in, fan_out)``: weights start uniform on plus or minus this.
    """

    apply: Callable[[Array, Array], None]
    chain: Callable[[Array, Array, Array], None]
    bound: Callable[[int, int], float]


# --- where weights start ----------------------------------------------------------


def glorot(fan_in: int, fan_out: int) -> float:
    """Uniform bound that keeps variances in both directions (Glorot & Bengio 2010)."""
    return math.sqrt(6.0 / (fan_in + fan_out))


def glorot_logistic(fan_in: int, fan_out: int) -> float:
    """Four times Glorot's bound: a logistic unit's slope at zero is a quarter."""
    return 4.0 * glorot(fan_in, fan_out)


def he(fan_in: int, fan_out: int) -> float:
    """Uniform bound for units that silence half of their input (He et al. 2015)."""
    return math.sqrt(6.0 / fan_in)


def lecun(fan_in: int, fan_out: int) -> float:
    """Uniform bound of unit variance, as self-normalising units need it."""
    return math.sqrt(3.0 / fan_in)


def zero_row(a: Array) -> Array:
    """Return a row of zeros: NumPy is faster with two arrays than with a number."""
    return np.zeros(a.shape[-1:], a.dtype)


# --- functions that other modules share -------------------------------------------


def logistic(a: Array) -> None:
    """Replace `a` by ``1 / (1 + exp(-a))``, written so that nothing can overflow."""
    a *= 0.5
    np.tanh(a, out=a)
    a *= 0.5
    a += 0.5


def log1p(a: Array) -> None:
    """Replace finite ``a >= 0`` by ``log(1 + a)``, to the last digits also where small.

    The logarithm is that of the rounded sum u; what rounding has lost is added again:
    ``log(u) + (a - (u - 1)) / u``. In single precision NumPy's logarithm is several
    times as fast as its `log1p`.
    """
    if a.dtype != np.float32:
        np.log1p(a, out=a)
        return
    u = a + 1
    u -= 1
    a -= u
    u += 1
    a /= u
    np.log(u, out=u)
    a += u


def expm1(a: Array) -> None:
    """Replace ``a <= 0`` by ``exp(a) - 1``, to the last digits also where small.

    That is ``2 t / (1 - t)`` with ``t = tanh(a / 2)``, which in single precision is
    several times as fast as NumPy's `expm1`.
    """
    if a.dtype != np.float32:
        np.expm1(a, out=a)
        return
    a *= 0.5
    np.tanh(a, out=a)
    rest = 1 - a
    a += a
    a /= rest


def softplus(a: Array, scratch: Array) -> None:
    """Replace `a` by ``log(1 + exp(a)) = max(a, 0) + log(1 + exp(-|a|))``."""
    np.abs(a, out=scratch)
    np.negative(scratch, out=scratch)
    np.exp(scratch, out=scratch)
    log1p(scratch)
    np.maximum(a, zero_row(a), out=a)
    a += scratch


# --- the members: each derivative stands below its function -----------------------


def identity_apply(a: Array, scratch: Array) -> None:
    """Leave `a` as it is: ``f(z) = z``."""


def identity_chain(a: Array, d: Array, scratch: Array) -> None:
    """Leave `d` as it is: ``f' = 1``."""


def logistic_apply(a: Array, scratch: Array) -> None:
    """Apply ``f(z) = 1 / (1 + exp(-z))``."""
    logistic(a)


def logistic_chain(a: Array, d: Array, scratch: Array) -> None:
    """Multiply by ``f' = a (1 - a)``."""
    np.subtract(1, a, out=scratch)
    scratch *= a
    d *= scratch


def tanh_apply(a: Array, scratch: Array) -> None:
    """Apply ``f(z) = tanh(z)``."""
    np.tanh(a, out=a)


def tanh_chain(a: Array, d: Array, scratch: Array) -> None:
    """Multiply by ``f' = 1 - a^2``."""
    np.multiply(a, a, out=scratch)
    np.subtract(1, scratch, out=scratch)
    d *= scratch


def relu_apply(a: Array, scratch: Array) -> None:
    """Apply ``f(z) = max(z, 0)``."""
    np.maximum(a, zero_row(a), out=a)


def relu_chain(a: Array, d: Array, scratch: Array) -> None:
    """Multiply by ``f' = [a > 0]``."""
    d *= a > 0


def leaky_relu_apply(a: Array, scratch: Array) -> None:
    """Apply ``f(z) = max(z, 0.01 z)``."""
    np.multiply(a, LEAK, out=scratch)
    np.maximum(a, scratch, out=a)


def leaky_relu_chain(a: Array, d: Array, scratch: Array) -> None:
    """Multiply by ``f' = 1`` where ``a > 0``, 0.01 where ``a < 0``."""
    np.sign(a, out=scratch)
    scratch *= 0.5 * (1 - LEAK)
    scratch += 0.5 * (1 + LEAK)
    d *= scratch


def elu_apply(a: Array, scratch: Array) -> None:
    """Apply ``f(z) = z`` where ``z > 0``, else ``exp(z) - 1``."""
    np.minimum(a, 0, out=scratch)
    expm1(scratch)
    np.maximum(a, zero_row(a), out=a)
    a += scratch


def elu_chain(a: Array, d: Array, scratch: Array) -> None:
    """Multiply by ``f' = 1 + min(a, 0)``."""
    np.minimum(a, 0, out=scratch)
    scratch += 1
    d *= scratch


def selu_apply(a: Array, scratch: Array) -> None:
    """Apply ``f(z) = s z`` where ``z > 0``, else ``s alpha (exp(z) - 1)``."""
    np.minimum(a, 0, out=scratch)
    expm1(scratch)
    scratch *= SELU_SCALE * SELU_ALPHA
    # The largest numbers are cut, since s = 1.05 would make them infinite.
    np.clip(a, 0, np.finfo(a.dtype).max / 1.1, out=a)
    a *= SELU_SCALE
    a += scratch


def selu_chain(a: Array, d: Array, scratch: Array) -> None:
    """Multiply by ``f' = s`` where ``a > 0``, else ``a + s alpha``."""
    np.minimum(a, 0, out=scratch)
    scratch += SELU_SCALE * SELU_ALPHA
    scratch += (SELU_SCALE - SELU_SCALE * SELU_ALPHA) * (a > 0).astype(a.dtype)
    d *= scratch


def softplus_chain(a: Array, d: Array, scratch: Array) -> None:
    """Multiply by ``f' = 1 - exp(-a)``."""
    np.negative(a, out=scratch)
    expm1(scratch)
    np.negative(scratch, out=scratch)
    d *= scratch


def softsign_apply(a: Array, scratch: Array) -> None:
    """Apply ``f(z) = z / (1 + |z|)``."""
    np.abs(a, out=scratch)
    scratch += 1
    a /= scratch


def softsign_chain(a: Array, d: Array, scratch: Array) -> None:
    """Multiply by ``f' = (1 - |a|)^2``."""
    np.abs(a, out=scratch)
    np.subtract(1, scratch, out=scratch)
    scratch *= scratch
    d *= scratch


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(identity_apply, identity_chain, glorot),
    "logistic": Activation(logistic_apply, logistic_chain, glorot_logistic),
    "tanh": Activation(tanh_apply, tanh_chain, glorot),
    "relu": Activation(relu_apply, relu_chain, he),
    "leaky_relu": Activation(leaky_relu_apply, leaky_relu_chain, he),
    "elu": Activation(elu_apply, elu_chain, he),
    "selu": Activation(selu_apply, selu_chain, lecun),
    "softplus": Activation(softplus, softplus_chain, he),
    "softsign": Activation(softsign_apply, softsign_chain, glorot),
}
