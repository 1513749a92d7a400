"""A bottleneck says how the encoder's output becomes a code, and what a code costs.

With a cost of zero it makes the plain and the denoising autoencoder; a normal
posterior with its Kullback-Leibler divergence makes the variational one, a penalty the
sparse one. The code has a Monte-Carlo axis from the start: shape (n_rows, n_samples,
n_components). A sparse code uses it for its leading parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from skae.layout import Array
from skae.penalties import Blocks, Penalty, largest

__all__ = [
    "Bottleneck",
    "Deterministic",
    "GaussianPosterior",
    "ImportanceWeighted",
    "SparseCode",
    "divergence",
    "posterior",
]


class Bottleneck(ABC):
    """The step from the encoder's output `h` to the code `z`."""

    #: Encoder outputs for each unit of the code.
    outputs_per_unit: ClassVar[int] = 1

    #: Codes for each row, the last ones of them auxiliary: what they are decoded to is
    #: added to the loss, and is no reconstruction.
    n_samples: int = 1
    n_auxiliary: int = 0

    #: Numbers for each unit that the bottleneck keeps, and how many have a gradient.
    n_own: int = 0
    n_learned: int = 0

    #: Whether the code is the encoder's output itself, and costs nothing: in training
    #: both are the same memory then, and so are the row's loss and its misfit.
    is_plain: ClassVar[bool] = False

    #: Whether the code depends on draws at all.
    is_random: ClassVar[bool] = False

    #: Whether what becomes of a row in training depends on its batch.
    rows_meet: bool = False

    def start(self, n_components: int) -> Array:
        """Return the units' own numbers at first, of shape (n_own, n_components)."""
        return np.zeros((self.n_own, n_components))

    def meet(self, h: Array, weight: Array, own: Array) -> Array:
        """Return the units' numbers as the rows of one batch in training see them."""
        return own

    def remember(self, own: Array, met: Array, z: Array) -> Array:
        """Return the units' numbers after a step that gave the codes `z`."""
        return own

    def settle(self, blocks: Blocks, own: Array) -> Array:
        """Return the units' numbers as rows in several blocks see them together."""
        return own

    def thresholds(self, own: Array) -> Array | None:
        """Return the encoder outputs above which units fire, if there are any."""
        return None

    def firing(self, code: Array) -> Array:
        """Return how much each unit fires in each row, between zero and one."""
        return np.asarray(code != 0)

    def draw(
        self,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        rng: np.random.Generator,
    ) -> Array:
        """Return the randomness of one batch of codes of this shape; here, none."""
        return np.empty((shape[0], 0), dtype)

    @abstractmethod
    def code(self, h: Array, own: Array) -> Array:
        """Return the code that represents a row, of shape (n_rows, n_components)."""

    @abstractmethod
    def forward(
        self, h: Array, noise: Array, own: Array, z: Array, cost: Array
    ) -> None:
        """Write the codes to `z` and what each of them costs, in nats, to `cost`.

        `cost` and the `weight` of `backward` have shape (n_rows, n_samples).
        """

    @abstractmethod
    def backward(
        self,
        h: Array,
        noise: Array,
        own: Array,
        z: Array,
        d_z: Array,
        weight: Array,
        d_h: Array,
        d_own: Array,
    ) -> None:
        """Write ``dL/dh`` to `d_h`, the cost's own part (times `weight`) included.

        Each row's part of the derivative with respect to the units' learnt numbers goes
        to `d_own`, of shape (n_rows, n_learned, n_components). It may overwrite `d_z`.
        """

    def withhold(self, z: Array, learnt: list[Array]) -> None:
        """Take out what the decoder shall not learn, once all deltas are found.

        Its weights learn from the codes `z` and from `learnt`, its layers' deltas and
        the draws' shares in the loss; all have the axes (n_rows, n_samples) first.
        """
        return

    def combine(self, total: Array, loss: Array, share: Array) -> None:
        """Write the loss of each row, and each draw's share in it.

        `total` is what the draws cost, `share` the derivative of `loss` with respect
        to it; both have shape (n_rows, n_samples). Here the loss is the mean.
        """
        np.add.reduce(total, axis=1, out=loss)
        loss /= total.shape[1]
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
    """Return the mean and the log-variance of each component of the code.

    These may be views of `h`.
    """
    k = h.shape[1] // 2
    mu, raw = h[:, :k], h[:, k:]
    if is_inside(raw):
        return mu, raw
    inside = np.clip(raw, LOWEST, HIGHEST)
    outside = raw - inside
    return mu, inside + np.sign(outside) * np.log1p(np.abs(outside))


def is_inside(raw: Array) -> bool:
    """Return whether the encoder's second outputs are log-variances themselves."""
    return bool(raw.size and raw.min() >= LOWEST and raw.max() <= HIGHEST)


def chain_log_variance(h: Array, d: Array) -> None:
    """Turn the derivative with respect to the log-variance into one for the output."""
    raw = h[:, h.shape[1] // 2 :]
    if not is_inside(raw):
        d /= 1.0 + np.abs(raw - np.clip(raw, LOWEST, HIGHEST))


def deviation(log_variance: Array) -> Array:
    """Return the standard deviation."""
    sigma = np.multiply(log_variance, 0.5)
    return np.exp(sigma, out=sigma)


def reparametrize(mu: Array, sigma: Array, noise: Array, z: Array) -> None:
    """Write ``z = mu + sigma e``."""
    np.multiply(sigma[:, None], noise, out=z)
    z += mu[:, None]


def divergence(h: Array) -> Array:
    """Return ``KL(N(mu, sigma^2) || N(0, 1))`` of every component of every row."""
    mu, log_variance = posterior(h)
    return divergences(mu, log_variance, deviation(log_variance))


def divergences(mu: Array, log_variance: Array, sigma: Array) -> Array:
    """Return ``(mu^2 + sigma^2 - log sigma^2 - 1) / 2``."""
    kl = np.square(mu)
    kl += np.square(sigma)
    kl -= log_variance
    kl -= 1.0
    kl *= 0.5
    return kl


@dataclass(frozen=True)
class Deterministic(Bottleneck):
    """The code is the encoder's output and costs nothing."""

    is_plain = True

    def code(self, h: Array, own: Array) -> Array:
        """Return `h`."""
        return h

    def forward(
        self, h: Array, noise: Array, own: Array, z: Array, cost: Array
    ) -> None:
        """Write ``z = h`` and no cost."""
        z[...] = h[:, None]
        cost.fill(0.0)

    def backward(
        self,
        h: Array,
        noise: Array,
        own: Array,
        z: Array,
        d_z: Array,
        weight: Array,
        d_h: Array,
        d_own: Array,
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

    def code(self, h: Array, own: Array) -> Array:
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

    def forward(
        self, h: Array, noise: Array, own: Array, z: Array, cost: Array
    ) -> None:
        """Write ``z = mu + sigma e`` and the sum of the divergences."""
        mu, log_variance = posterior(h)
        sigma = deviation(log_variance)
        reparametrize(mu, sigma, noise, z)
        kl = divergences(mu, log_variance, sigma)
        if self.free_bits > 0:
            np.maximum(kl, self.free_bits, out=kl)
        cost[...] = np.add.reduce(kl, axis=1)[:, None]

    def backward(
        self,
        h: Array,
        noise: Array,
        own: Array,
        z: Array,
        d_z: Array,
        weight: Array,
        d_h: Array,
        d_own: Array,
    ) -> None:
        """Write ``d_mu = d_z + w mu`` and the same through ``log sigma^2``."""
        mu, log_variance = posterior(h)
        k, sigma = mu.shape[1], deviation(log_variance)
        d_mu, d_log_variance = d_h[:, :k], d_h[:, k:]
        w = np.add.reduce(weight, axis=1)[:, None]
        if self.free_bits > 0:
            w = w * (divergences(mu, log_variance, sigma) > self.free_bits)
        np.add.reduce(d_z, axis=1, out=d_mu)
        d_mu += w * mu
        d_z *= noise
        np.add.reduce(d_z, axis=1, out=d_log_variance)
        d_log_variance *= sigma
        np.square(sigma, out=sigma)
        sigma -= 1.0
        sigma *= w
        d_log_variance += sigma
        d_log_variance *= 0.5
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

    def forward(
        self, h: Array, noise: Array, own: Array, z: Array, cost: Array
    ) -> None:
        """Write ``z = mu + sigma e`` and ``log q(z | x) - log p(z)``."""
        mu, log_variance = posterior(h)
        reparametrize(mu, deviation(log_variance), noise, z)
        np.sum(np.square(z) - np.square(noise), axis=2, out=cost)
        cost -= log_variance.sum(axis=1, keepdims=True)
        cost *= 0.5

    def backward(
        self,
        h: Array,
        noise: Array,
        own: Array,
        z: Array,
        d_z: Array,
        weight: Array,
        d_h: Array,
        d_own: Array,
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


#: What the reconstruction by dead units counts in the loss.
AUXILIARY = 1 / 32


@dataclass(frozen=True)
class SparseCode(Bottleneck):
    r"""A penalty says which units fire, and what that costs.

    With `sizes` the code is nested: beside the whole, its first m units alone have to
    decode to the row, for each of these m, and the loss is the mean of the losses.

    With `n_revived`, units that have not fired for `dead_after` rows learn to: the code
    and, added to it, the largest outputs of so many dead units have to decode to the
    row, where only dead units learn,

    .. math:: \mathrm{loss} = \ell(x, a) + \tfrac{1}{32}
              [\ell(x, a + a_\mathrm{dead}) - \ell(x, a)]

    with the loss :math:`\ell` of a code. All but :math:`a_\mathrm{dead}`, the
    decoder's weights for it and its first layer's biases are held fixed in the bracket.

    Bussmann et al. (2025), "Learning multi-level features with Matryoshka sparse
    autoencoders", ICML. Gao et al. (2025), "Scaling and evaluating sparse
    autoencoders", ICLR.

    Attributes
    ----------
    penalty : Penalty
        What makes the code sparse.
    sizes : tuple of int
        Sizes of the code's leading parts, less than the whole.
    n_revived : int
        Dead units of a row that may learn; zero for none.
    dead_after : float
        Rows in which a dead unit has not fired.
    """

    penalty: Penalty
    sizes: tuple[int, ...] = ()
    n_revived: int = 0
    dead_after: float = np.inf

    @property
    def n_parts(self) -> int:
        """Codes that reconstruct: the whole and its leading parts."""
        return 1 + len(self.sizes)

    @property
    def n_auxiliary(self) -> int:  # type: ignore[override]
        """Codes that teach: the gates', and those with dead units."""
        return int(self.penalty.has_gate) + (self.n_revived > 0)

    @property
    def n_samples(self) -> int:  # type: ignore[override]
        """All codes of a row."""
        return self.n_parts + self.n_auxiliary

    @property
    def n_own(self) -> int:  # type: ignore[override]
        """The penalty's numbers, and the rows since the unit has fired."""
        return len(self.penalty.start) + 1

    @property
    def n_learned(self) -> int:  # type: ignore[override]
        """Numbers of the penalty that have a gradient."""
        return self.penalty.n_learned

    @property
    def rows_meet(self) -> bool:  # type: ignore[override]
        """Whether they meet in the penalty."""
        return self.penalty.rows_meet

    # --- the units' own numbers ---------------------------------------------------

    def start(self, n_components: int) -> Array:
        """Return the penalty's numbers, and no rows since the unit has fired."""
        start = np.array([*self.penalty.start, 0.0])
        return np.repeat(start[:, None], n_components, axis=1)

    def meet(self, h: Array, weight: Array, own: Array) -> Array:
        """Let the rows of a batch meet in the penalty."""
        met = self.penalty.meet(h, weight, own[:-1])
        return np.concatenate([met, own[-1:]])

    def remember(self, own: Array, met: Array, z: Array) -> Array:
        """Let the penalty remember; count the rows since a unit has fired."""
        silent = np.where(z[:, 0].any(axis=0), 0.0, own[-1] + len(z))
        kept = self.penalty.remember(own[:-1], met[:-1])
        return np.concatenate([kept, silent[None]])

    def settle(self, blocks: Blocks, own: Array) -> Array:
        """Let the rows settle with the penalty."""
        return np.concatenate([self.penalty.settle(blocks, own[:-1]), own[-1:]])

    def thresholds(self, own: Array) -> Array | None:
        """Return those of the penalty."""
        return self.penalty.thresholds(own[:-1])

    def firing(self, code: Array) -> Array:
        """Return what the penalty says."""
        return self.penalty.firing(code)

    # --- codes --------------------------------------------------------------------

    def code(self, h: Array, own: Array) -> Array:
        """Return the whole code."""
        a = np.empty_like(h)
        self.penalty.forward(h, own[:-1], a, np.empty(len(h), h.dtype))
        return a

    def forward(
        self, h: Array, noise: Array, own: Array, z: Array, cost: Array
    ) -> None:
        """Write the whole code, its leading parts, and the auxiliary codes."""
        self.penalty.forward(h, own[:-1], z[:, 0], cost[:, 0])
        for part, size in enumerate(self.sizes[: z.shape[1] - 1], start=1):
            z[:, part, :size] = z[:, 0, :size]
            z[:, part, size:] = 0.0
        cost[:, 1:] = cost[:, :1]
        if self.penalty.has_gate:
            cost[:, self.n_parts : self.n_parts + 1] = 0.0
        if z.shape[1] > self.n_parts:
            self.write_auxiliary(h, own, z)

    def write_auxiliary(self, h: Array, own: Array, z: Array) -> None:
        """Write the gates, and the code with dead units added to it."""
        if self.penalty.has_gate:
            np.maximum(h, 0.0, out=z[:, self.n_parts])
        if self.n_revived:
            dead = own[-1] >= self.dead_after
            outputs = np.where(dead & (z[:, 0] == 0), np.maximum(h, 0.0), 0.0)
            outputs *= largest(outputs, self.n_revived)
            np.add(z[:, 0], outputs, out=z[:, -1])

    def backward(
        self,
        h: Array,
        noise: Array,
        own: Array,
        z: Array,
        d_z: Array,
        weight: Array,
        d_h: Array,
        d_own: Array,
    ) -> None:
        """Add up what the parts say of each unit, and what the auxiliary codes say."""
        d_a = d_z[:, 0]
        for part, size in enumerate(self.sizes, start=1):
            d_a[:, :size] += d_z[:, part, :size]
        of_row = weight[:, : self.n_parts].sum(axis=1)
        args = h, own[:-1], z[:, 0], d_a, of_row, d_h, d_own
        self.penalty.backward(*args)
        if self.penalty.has_gate:
            d_h += d_z[:, self.n_parts] * (h > 0)
        if self.n_revived:
            d_h += d_z[:, -1] * (z[:, -1] != z[:, 0])

    def withhold(self, z: Array, learnt: list[Array]) -> None:
        """Freeze the decoder for the gates; let dead units learn their weights alone.

        These are in the decoder's first layer, whose deltas come first.
        """
        if self.penalty.has_gate:
            for array in learnt:
                array[:, self.n_parts] = 0.0
        if self.n_revived:
            z[:, -1] -= z[:, 0]
            for array in learnt[1:]:
                array[:, -1] = 0.0

    def combine(self, total: Array, loss: Array, share: Array) -> None:
        """Write the mean over parts, and add the losses of the auxiliary codes."""
        n, last = self.n_parts, total.shape[1]
        np.mean(total[:, :n], axis=1, out=loss)
        share[:, :n] = 1.0 / min(n, last)
        if n < last and self.penalty.has_gate:
            loss += total[:, n]
            share[:, n] = 1.0
        if n < last and self.n_revived:
            loss += AUXILIARY * (total[:, -1] - total[:, 0])
            share[:, -1] = AUXILIARY
