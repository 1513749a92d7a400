"""A distribution p(x | eta) measures how well the decoder's output explains a row.

Its negative log-density is the loss. `eta` is the decoder's unconstrained output:
no probability is ever formed and clipped. `shared` are numbers that describe a column
whatever the code, such as a log-scale; they are unconstrained too.

Nothing here silences NumPy: an output of 1000 may overflow, and whoever calls decides
what to say about it. The result is infinite then, never NaN.
"""

from __future__ import annotations

from skae.distributions._distribution import Distribution
from skae.distributions.bounded import Bernoulli, Beta, Categorical
from skae.distributions.counts import (
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from skae.distributions.losses import AbsoluteError, Huber, LogCosh, SquaredError
from skae.distributions.positive import Exponential, Gamma, LogNormal
from skae.distributions.real import Gaussian, HeteroscedasticGaussian, Laplace, StudentT

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
