"""A bottleneck says how the encoder's output becomes a code, and what a code costs.

With a cost of zero it makes the plain and the denoising autoencoder; a normal
posterior with its Kullback-Leibler divergence makes the variational one. The code has
a Monte-Carlo axis from the start: shape (n_rows, n_samples, n_components).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from skae.layout import Array

__all__ = ["Bottleneck", "Deterministic", "GaussianPosterior"]


class Bottleneck(ABC):
    """The step from the encoder's output `h` to the code `z`."""

    #: Encoder outputs for each unit of the code.
    outputs_per_unit: ClassVar[int] = 1

    #: Draws of the code for each row.
    n_samples: int = 1

    #: Whether the code depends on draws at all.
    is_random: ClassVar[bool] = False

    def draw(
        self,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        rng: np.random.Generator,
    ) -> Array:
        """Return the randomness of one batch of codes of this shape; here, none."""
        return np.empty((shape[0], 0), dtype)

    @abstractmethod
    def code(self, h: Array) -> Array:
        """Return the code that represents a row, of shape (n_rows, n_components)."""

    @abstractmethod
    def forward(self, h: Array, noise: Array, z: Array, cost: Array) -> None:
        """Write the codes to `z` and what each of them costs, in nats, to `cost`.

        `cost` and the `weight` of `backward` have shape (n_rows, n_samples).
        """

    @abstractmethod
    def backward(
        self, h: Array, noise: Array, d_z: Array, weight: Array, d_h: Array
    ) -> None:
        """Write ``dL/dh`` to `d_h`, the cost's own part (times `weight`) included."""


@dataclass(frozen=True)
class Deterministic(Bottleneck):
    """The code is the encoder's output and costs nothing."""

    def code(self, h: Array) -> Array:
        """Return `h`."""
        return h

    def forward(self, h: Array, noise: Array, z: Array, cost: Array) -> None:
        """Write ``z = h`` and no cost."""
        z[...] = h[:, None]
        cost.fill(0.0)

    def backward(
        self, h: Array, noise: Array, d_z: Array, weight: Array, d_h: Array
    ) -> None:
        """Write ``dL/dh = dL/dz``."""
        np.sum(d_z, axis=1, out=d_h)


@dataclass(frozen=True)
class GaussianPosterior(Bottleneck):
    r"""The code is normal given the row; it costs its divergence from N(0, 1).

    .. math:: h = (\mu, \log \sigma^2), \quad z = \mu + \sigma \varepsilon, \quad
              \mathrm{KL} = \tfrac{1}{2} \sum_j (\mu_j^2 + \sigma_j^2
              - \log \sigma_j^2 - 1)

    Kingma & Welling (2014), "Auto-encoding variational Bayes", ICLR.
    """

    outputs_per_unit = 2
    is_random = True
    beta: float = 1.0
    n_samples: int = 1

    def draw(
        self,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        rng: np.random.Generator,
    ) -> Array:
        """Return standard normals."""
        return rng.standard_normal(shape, dtype=np.float32).astype(dtype, copy=False)

    def code(self, h: Array) -> Array:
        """Return the posterior mean."""
        return h[:, : h.shape[1] // 2]

    def forward(self, h: Array, noise: Array, z: Array, cost: Array) -> None:
        """Write ``z = mu + sigma e`` and ``beta KL``."""
        mu, log_variance = np.hsplit(h, 2)
        sigma = np.exp(0.5 * log_variance)
        np.multiply(sigma[:, None], noise, out=z)
        z += mu[:, None]
        kl = mu * mu + sigma * sigma - log_variance - 1.0
        cost[...] = 0.5 * self.beta * kl.sum(axis=1, keepdims=True)

    def backward(
        self, h: Array, noise: Array, d_z: Array, weight: Array, d_h: Array
    ) -> None:
        """Write ``d_mu = d_z + w beta mu`` and the same through ``log sigma^2``."""
        mu, log_variance = np.hsplit(h, 2)
        d_mu, d_log_variance = np.hsplit(d_h, 2)
        sigma = np.exp(0.5 * log_variance)
        w = self.beta * weight.sum(axis=1, keepdims=True)
        d_mu[...] = d_z.sum(axis=1) + w * mu
        d_log_variance[...] = 0.5 * sigma * (d_z * noise).sum(axis=1)
        d_log_variance += 0.5 * w * (sigma * sigma - 1.0)
