"""An optimiser turns a gradient into a step; a schedule says how long a step is.

An optimiser sees one vector, whatever the network. Its formulas act on each entry by
itself, so that any slice of the vector can be stepped alone. The gradient is consumed:
its memory serves as scratch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from skae._validation import FRACTION, NON_NEGATIVE, POSITIVE
from skae.blas import add_scaled
from skae.component import Component
from skae.layout import Array

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Moments",
    "Optimizer",
    "RMSprop",
]


#: A sum's unit grows no further than this, and for no more steps.
LARGEST_UNIT, MOST_STEPS = 1e4, 64


@dataclass
class Moments:
    """What an optimiser remembers between steps.

    Attributes
    ----------
    arrays : ndarray of shape (n_moments, n_parameters)
        Running averages, one row for each.
    n_steps : int
        Steps taken so far.
    age : int
        Steps since the units of the averages were one; see `add_fading`.
    """

    arrays: Array
    n_steps: int
    age: int = 0

    def at(self, place: slice) -> Moments:
        """Return a view of what concerns some of the parameters."""
        return Moments(self.arrays[:, place], self.n_steps, self.age)

    def count(self) -> None:
        """Count a step."""
        self.n_steps += 1
        self.age += 1


def add_fading(total: Array, value: Array, keep: float, age: int) -> float:
    """Count what a sum holds `keep` times, and add a value; return the sum's unit.

    Instead of the sum, its unit changes from step to step: that saves a pass over
    memory. Every so many steps the unit is made one again. `age` are the steps since
    it was one at first, this one included.
    """
    n_steps = longest(keep)
    if age % n_steps == 0:
        total *= keep**n_steps
    unit = float(keep ** -(age % n_steps))
    add_scaled(total, unit, value)
    return unit


@cache
def longest(keep: float) -> int:
    """Return for how many steps a sum's unit may change."""
    if keep == 0:
        return 1
    return max(1, min(MOST_STEPS, int(-math.log(LARGEST_UNIT) / math.log(keep))))


class Optimizer(Component, ABC):
    """A rule that moves `theta` against a gradient."""

    #: Running averages kept per parameter.
    n_moments: ClassVar[int]

    #: True if the rule decays weights by itself, outside the objective.
    decoupled: ClassVar[bool] = False

    def init(self, theta: Array) -> Moments:
        """Return the memory before the first step."""
        shape = (self.n_moments, theta.size)
        return Moments(np.zeros(shape, dtype=theta.dtype), 0)

    def step(
        self,
        theta: Array,
        grad: Array,
        moments: Moments,
        rate: float,
        places: Sequence[slice] = (slice(None),),
    ) -> None:
        """Move `theta` in place by one step of length `rate`; `grad` is consumed.

        Only the parameters in `places` move.
        """
        moments.count()
        self.move(theta, grad, moments, rate, places)

    def move(
        self,
        theta: Array,
        grad: Array,
        moments: Moments,
        rate: float,
        places: Sequence[slice],
    ) -> None:
        """Do the share of a step, already counted, that concerns some places."""
        for place in places:
            self._move(theta[place], grad[place], moments.at(place), rate)

    def decay(self, weights: Sequence[Array], rate: float) -> None:
        """Shrink weights before a step, if the rule is `decoupled`."""
        return

    def rest(self, moments: Moments) -> None:
        """Make the averages' units one, so that another rule can go on with them."""
        return

    @abstractmethod
    def _move(self, theta: Array, grad: Array, moments: Moments, rate: float) -> None:
        """Apply the rule's formula; ``moments.n_steps`` counts from one."""


class SGD(Optimizer):
    r"""Stochastic gradient descent with classical or Nesterov momentum.

    .. math:: v \leftarrow \mu v - \epsilon g, \qquad
              \theta \leftarrow \theta + v \quad\text{or}\quad
              \theta \leftarrow \theta + \mu v - \epsilon g

    Sutskever, Martens, Dahl & Hinton (2013), "On the importance of initialization and
    momentum in deep learning", ICML.
    """

    n_moments = 1
    _parameter_constraints: ClassVar = {
        "momentum": [FRACTION],
        "nesterovs_momentum": ["boolean"],
    }

    def __init__(self, momentum: float = 0.9, nesterovs_momentum: bool = True) -> None:
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum

    def _move(self, theta: Array, grad: Array, moments: Moments, rate: float) -> None:
        velocity = moments.arrays[0]
        if self.momentum == 0:
            add_scaled(theta, -rate, grad)
            return
        velocity *= self.momentum
        add_scaled(velocity, -rate, grad)
        if self.nesterovs_momentum:
            add_scaled(theta, -rate, grad)
            add_scaled(theta, self.momentum, velocity)
        else:
            theta += velocity


class RMSprop(Optimizer):
    r"""Steps divided by a running root mean square of the gradient.

    .. math:: s \leftarrow \rho s + (1 - \rho) g^2, \qquad
              \theta \leftarrow \theta - \epsilon g / (\sqrt{s} + \varepsilon)

    Tieleman & Hinton (2012), Lecture 6.5, Coursera.
    """

    n_moments = 1
    _parameter_constraints: ClassVar = {"rho": [FRACTION], "epsilon": [POSITIVE]}

    def __init__(self, rho: float = 0.9, epsilon: float = 1e-8) -> None:
        self.rho = rho
        self.epsilon = epsilon

    def _move(self, theta: Array, grad: Array, moments: Moments, rate: float) -> None:
        square = moments.arrays[0]
        square *= self.rho
        square += (1 - self.rho) * grad * grad
        grad /= np.sqrt(square) + self.epsilon
        add_scaled(theta, -rate, grad)


class Adagrad(Optimizer):
    r"""Steps divided by the root of all squared gradients so far.

    .. math:: s \leftarrow s + g^2, \qquad
              \theta \leftarrow \theta - \epsilon g / (\sqrt{s} + \varepsilon)

    Duchi, Hazan & Singer (2011), "Adaptive subgradient methods", JMLR 12.
    """

    n_moments = 1
    _parameter_constraints: ClassVar = {"epsilon": [POSITIVE]}

    def __init__(self, epsilon: float = 1e-8) -> None:
        self.epsilon = epsilon

    def _move(self, theta: Array, grad: Array, moments: Moments, rate: float) -> None:
        square = moments.arrays[0]
        square += grad * grad
        grad /= np.sqrt(square) + self.epsilon
        add_scaled(theta, -rate, grad)


class Adadelta(Optimizer):
    r"""Steps in the units of the parameters; a learning rate of 1 is the paper's.

    .. math:: s \leftarrow \rho s + (1 - \rho) g^2, \quad
              \Delta = g \sqrt{u + \varepsilon} / \sqrt{s + \varepsilon}, \quad
              u \leftarrow \rho u + (1 - \rho) \Delta^2, \quad
              \theta \leftarrow \theta - \epsilon \Delta

    Zeiler (2012), "ADADELTA: an adaptive learning rate method", arXiv:1212.5701.
    """

    n_moments = 2
    _parameter_constraints: ClassVar = {"rho": [FRACTION], "epsilon": [POSITIVE]}

    def __init__(self, rho: float = 0.9, epsilon: float = 1e-6) -> None:
        self.rho = rho
        self.epsilon = epsilon

    def _move(self, theta: Array, grad: Array, moments: Moments, rate: float) -> None:
        square, moved = moments.arrays
        square *= self.rho
        square += (1 - self.rho) * grad * grad
        grad *= np.sqrt((moved + self.epsilon) / (square + self.epsilon))
        moved *= self.rho
        moved += (1 - self.rho) * grad * grad
        add_scaled(theta, -rate, grad)


class Adam(Optimizer):
    r"""Momentum divided by a running root mean square, both free of their start's bias.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad
              v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
              \theta \leftarrow \theta - \epsilon \frac{m / (1 - \beta_1^t)}
              {\sqrt{v / (1 - \beta_2^t)} + \varepsilon}

    Kingma & Ba (2015), "Adam: a method for stochastic optimization", ICLR.
    """

    n_moments = 2
    _parameter_constraints: ClassVar = {
        "beta_1": [FRACTION],
        "beta_2": [FRACTION],
        "epsilon": [POSITIVE],
    }

    def __init__(
        self, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def _move(self, theta: Array, grad: Array, moments: Moments, rate: float) -> None:
        # With m = (1 - beta_1) M / u and v = (1 - beta_2) V / w, where `u` and `w` are
        # the units of the sums M and V, all scalars fold into two:
        #     theta -= rate' M / (sqrt(V) + epsilon'),   root = sqrt(V / v-hat)
        (mean, square), t = moments.arrays, moments.n_steps
        u = add_fading(mean, grad, self.beta_1, moments.age)
        np.square(grad, out=grad)
        w = add_fading(square, grad, self.beta_2, moments.age)
        root = math.sqrt(w * (1 - self.beta_2**t) / (1 - self.beta_2))
        np.sqrt(square, out=grad)
        grad += self.epsilon * root
        np.divide(mean, grad, out=grad)
        rate *= root * (1 - self.beta_1) / (1 - self.beta_1**t) / u
        add_scaled(theta, -rate, grad)

    def rest(self, moments: Moments) -> None:
        """Make the averages' units one, so that other rates of decay can go on."""
        keeps = self.beta_1, self.beta_2
        for total, keep in zip(moments.arrays, keeps, strict=True):
            total *= keep ** (moments.age % longest(keep))
        moments.age = 0


class AdamW(Optimizer):
    r"""Adam with weight decay outside the gradient.

    .. math:: w \leftarrow (1 - \epsilon \alpha) w \quad\text{then Adam's step}

    Weights decay, biases do not. Loshchilov & Hutter (2019), "Decoupled weight decay
    regularization", ICLR.
    """

    n_moments = 2
    decoupled = True
    _parameter_constraints: ClassVar = {
        **Adam._parameter_constraints,
        "alpha": [NON_NEGATIVE],
    }

    def __init__(
        self,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        alpha: float = 0.01,
    ) -> None:
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.alpha = alpha

    def decay(self, weights: Sequence[Array], rate: float) -> None:
        """Multiply weights by ``1 - rate * alpha``."""
        for weight in weights:
            weight *= 1 - rate * self.alpha

    def _move(self, theta: Array, grad: Array, moments: Moments, rate: float) -> None:
        self._adam._move(theta, grad, moments, rate)

    def rest(self, moments: Moments) -> None:
        """Make the averages' units one, so that other rates of decay can go on."""
        self._adam.rest(moments)

    @property
    def _adam(self) -> Adam:
        """The rule without its decay of weights."""
        return Adam(self.beta_1, self.beta_2, self.epsilon)


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adadelta": Adadelta,
    "adagrad": Adagrad,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "sgd": SGD,
}


# --- schedules: the factor on the learning rate -----------------------------------


def constant(epoch: int, max_iter: int, power_t: float, n_drops: int) -> float:
    """Stay at 1."""
    return 1.0


def invscaling(epoch: int, max_iter: int, power_t: float, n_drops: int) -> float:
    """Fall as ``epoch ** -power_t``."""
    return float(epoch**-power_t)


def adaptive(epoch: int, max_iter: int, power_t: float, n_drops: int) -> float:
    """Fall to a fifth each time that progress has stopped."""
    return float(5.0**-n_drops)


def cosine(epoch: int, max_iter: int, power_t: float, n_drops: int) -> float:
    """Fall from 1 at the first epoch towards 0 after the last, along half a cosine."""
    return 0.5 * (1.0 + math.cos(math.pi * (epoch - 1) / max_iter))


#: ``schedule(epoch, max_iter, power_t, n_drops)``, the epoch counted from one.
SCHEDULES: dict[str, Callable[[int, int, float, int], float]] = {
    "adaptive": adaptive,
    "constant": constant,
    "cosine": cosine,
    "invscaling": invscaling,
}
