"""The denoising autoencoder: damage the input, learn to repair it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from numpy.random import RandomState
from numpy.typing import ArrayLike

from skae._validation import StrOptions
from skae.bottlenecks import Deterministic
from skae.component import resolve
from skae.corruptions import CORRUPTIONS, Corruption
from skae.distributions import Distribution
from skae.estimators._base import NON_NEGATIVE, BaseAutoencoder
from skae.optimizers import Optimizer

__all__ = ["DenoisingAutoencoder"]


class DenoisingAutoencoder(BaseAutoencoder):
    """DOC"""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseAutoencoder._parameter_constraints,
        "corruption": [StrOptions(set(CORRUPTIONS)), Corruption],
        "corruption_level": [NON_NEGATIVE],
    }

    def __init__(
        self,
        n_components: int = 2,
        *,
        hidden_layer_sizes: ArrayLike = (),
        activation: str = "tanh",
        code_activation: str = "auto",
        corruption: str | Corruption = "masking",
        corruption_level: float = 0.05,
        distribution: str | Distribution = "gaussian",
        tied_weights: bool = False,
        alpha: float = 1e-4,
        standardize: bool = True,
        solver: str | Optimizer = "adam",
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: str = "adaptive",
        learning_rate_init: float = 0.005,
        power_t: float = 0.5,
        max_iter: int = 300,
        shuffle: bool = True,
        random_state: int | RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.code_activation = code_activation
        self.corruption = corruption
        self.corruption_level = corruption_level
        self.distribution = distribution
        self.tied_weights = tied_weights
        self.alpha = alpha
        self.standardize = standardize
        self.solver = solver
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun

    def _parts(self) -> dict[str, Any]:
        corruption = resolve(self.corruption, CORRUPTIONS)
        level = float(self.corruption_level)
        if level not in corruption.levels:
            raise ValueError(
                f"corruption_level={self.corruption_level} is outside "
                f"{corruption.levels}, the levels of corruption={self.corruption!r}."
            )
        if self.corruption == "none":
            level = 0.0
        return {
            "bottleneck": Deterministic(),
            "corruption": corruption,
            "corruption_level": level,
        }
