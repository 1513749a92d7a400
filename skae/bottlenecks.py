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

__all__ = [
    "Bottleneck",
    "Deterministic",
    "GaussianPosterior",
    "ImportanceWeighted",
    "divergence",
    "posterior",
]


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
        self, h: Array, noise: Array, z: Array, d_z: Array, weight: Array, d_h: Array
    ) -> None:
        """Write ``dL/dh`` to `d_h`, the cost's own part (times `weight`) included.

        It may overwrite `d_z`.
        """

    def combine(self, total: Array, loss: Array, share: Array) -> None:
        """Write the loss of each row, and each draw's share in it.

        `total` is what the draws cost, `share` the derivative of `loss` with respect
        to it; both have shape (n_rows, n_samples). Here the loss is the mean.
        """
        np.mean(total, axis=1, out=loss)
        share.fill(1.0 / total.shape[1])


def standard_normals(
    shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator
) -> Array:
    """Return standard normals; they are drawn in single precision."""
    return rng.standard_normal(shape, dtype=np.float32).astype(dtype, copy=False)


#: Between these the encoder's second output is the log-variance itself. Beyond, it
#: changes with the logarithm of the output only: a row far from all others would
#: otherwise have a code of enormous or vanishing variance.
LOWEST, HIGHEST = -20.0, 2.0


def posterior(h: Array) -> tuple[Array, Array]:
    """Return the mean and the log-variance of each component of the code."""
    mu, raw = np.hsplit(h, 2)
    inside = np.clip(raw, LOWEST, HIGHEST)
    outside = raw - inside
    return mu, inside + np.sign(outside) * np.log1p(np.abs(outside))


def chain_log_variance(h: Array, d: Array) -> None:
    """Turn the derivative with respect to the log-variance into one for the output."""
    raw = np.hsplit(h, 2)[1]
    d /= 1.0 + np.abs(raw - np.clip(raw, LOWEST, HIGHEST))


def reparametrize(h: Array, noise: Array, z: Array) -> None:
    """Write ``z = mu + sigma e``."""
    mu, log_variance = posterior(h)
    np.multiply(np.exp(0.5 * log_variance)[:, None], noise, out=z)
    z += mu[:, None]


def divergence(h: Array) -> Array:
    """Return ``KL(N(mu, sigma^2) || N(0, 1))`` of every component of every row."""
    mu, log_variance = posterior(h)
    return np.asarray(0.5 * (np.square(mu) + np.exp(log_variance) - log_variance - 1.0))


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
        self, h: Array, noise: Array, z: Array, d_z: Array, weight: Array, d_h: Array
    ) -> None:
        """Write ``dL/dh = dL/dz``."""
        np.sum(d_z, axis=1, out=d_h)


class NormalPosterior(Bottleneck):
    """A code that is normal given the row, with independent components."""

    outputs_per_unit = 2
    is_random = True

    def draw(
        self,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        rng: np.random.Generator,
    ) -> Array:
        """Return standard normals."""
        return standard_normals(shape, dtype, rng)

    def code(self, h: Array) -> Array:
        """Return the posterior mean."""
        return h[:, : h.shape[1] // 2]


@dataclass(frozen=True)
class GaussianPosterior(NormalPosterior):
    r"""The code is normal given the row; it costs its divergence from N(0, 1).

    .. math:: h = (\mu, \log \sigma^2), \quad z = \mu + \sigma \varepsilon, \quad
              \mathrm{KL}_j = \tfrac{1}{2} (\mu_j^2 + \sigma_j^2
              - \log \sigma_j^2 - 1), \quad
              \mathrm{cost} = \sum_j \max(\lambda, \mathrm{KL}_j)

    The `free_bits` :math:`\lambda` are what a component may say for free: below, its
    divergence has no gradient.

    Kingma & Welling (2014), "Auto-encoding variational Bayes", ICLR. Kingma et al.
    (2016), "Improving variational inference with inverse autoregressive flow", NIPS.
    """

    n_samples: int = 1
    free_bits: float = 0.0

    def forward(self, h: Array, noise: Array, z: Array, cost: Array) -> None:
        """Write ``z = mu + sigma e`` and the sum of the divergences."""
        reparametrize(h, noise, z)
        kl = np.maximum(divergence(h), self.free_bits)
        cost[...] = kl.sum(axis=1, keepdims=True)

    def backward(
        self, h: Array, noise: Array, z: Array, d_z: Array, weight: Array, d_h: Array
    ) -> None:
        """Write ``d_mu = d_z + w mu`` and the same through ``log sigma^2``."""
        mu, log_variance = posterior(h)
        d_mu, d_log_variance = np.hsplit(d_h, 2)
        variance = np.exp(log_variance)
        w = np.repeat(weight.sum(axis=1, keepdims=True), mu.shape[1], axis=1)
        if self.free_bits > 0:
            w *= divergence(h) > self.free_bits
        np.sum(d_z, axis=1, out=d_mu)
        d_mu += w * mu
        d_z *= noise
        np.sum(d_z, axis=1, out=d_log_variance)
        d_log_variance *= 0.5 * np.sqrt(variance)
        d_log_variance += 0.5 * w * (variance - 1.0)
        chain_log_variance(h, d_log_variance)


@dataclass(frozen=True)
class ImportanceWeighted(NormalPosterior):
    r"""The code is normal given the row; its draws bound log p(x) together.

    .. math:: \mathrm{cost}_s = \log q(z_s | x) - \log p(z_s)
              = \tfrac{1}{2} \sum_j (z_{sj}^2 - \varepsilon_{sj}^2
              - \log \sigma_j^2), \quad
              \mathrm{loss} = -\log \frac{1}{S} \sum_s e^{-\mathrm{total}_s}

    With one draw this is the evidence lower bound, its divergence sampled.

    Burda, Grosse & Salakhutdinov (2016), "Importance weighted autoencoders", ICLR.
    """

    n_samples: int = 1

    def forward(self, h: Array, noise: Array, z: Array, cost: Array) -> None:
        """Write ``z = mu + sigma e`` and ``log q(z | x) - log p(z)``."""
        reparametrize(h, noise, z)
        log_variance = posterior(h)[1]
        np.sum(np.square(z) - np.square(noise), axis=2, out=cost)
        cost -= log_variance.sum(axis=1, keepdims=True)
        cost *= 0.5

    def backward(
        self, h: Array, noise: Array, z: Array, d_z: Array, weight: Array, d_h: Array
    ) -> None:
        """Write ``d_mu = d_z + w z``, summed over draws, and through the variance."""
        log_variance = posterior(h)[1]
        d_mu, d_log_variance = np.hsplit(d_h, 2)
        d_z += weight[:, :, None] * z
        np.sum(d_z, axis=1, out=d_mu)
        d_z *= noise
        np.sum(d_z, axis=1, out=d_log_variance)
        d_log_variance *= 0.5 * np.exp(0.5 * log_variance)
        d_log_variance -= 0.5 * weight.sum(axis=1, keepdims=True)
        chain_log_variance(h, d_log_variance)

    def combine(self, total: Array, loss: Array, share: Array) -> None:
        """Write ``-log mean exp(-total)`` and the normalised importance weights."""
        least = total.min(axis=1)
        np.exp(least[:, None] - total, out=share)
        mass = share.sum(axis=1)
        np.subtract(least, np.log(mass / total.shape[1]), out=loss)
        share /= mass[:, None]
