r"""The marginal likelihood log p(x) of a row, by importance sampling.

.. math:: \log p(x) \approx \log \frac{1}{S} \sum_s
          \frac{p(x | z_s) \, p(z_s)}{r(z_s | x)}, \qquad z_s \sim r(z | x)

The proposal r is a mixture, from whose parts fixed shares of the draws come; weights
are those of the mixture, whatever part a draw is from (the balance heuristic of Veach
& Guibas, 1995).

* Three quarters of the draws come from a normal with the encoder's mean and the
  covariance that the decoder's slope there implies: its inverse is
  :math:`I + J^T F J`, with the Jacobian J of the decoder and the Fisher information F
  of its outputs. Unlike the encoder's own variances it knows how components depend on
  each other given the row; where the decoder is linear and the columns are Gaussian it
  is exact. A mean that is far from where the posterior can be, as for a row unlike any
  of the training data, is moved first.
* An eighth comes from the same normal made wider, and an eighth from the prior, unless
  there are fewer than 64 draws. They see to it that no region of codes that matters is
  left out unnoticed: no weight can be more than about eight times what it would be
  under the prior alone.

What the parts' own densities add to the error is removed by regression, since their
integrals are known to be one (Owen & Zhou, 2000, "Safe and effective importance
sampling"): so the estimate is exact again where the first part is.

All rows share one fixed table of standard normal draws, so that the estimate for a row
is the same in every call and does not depend on the rows beside it. Products are held
to one thread: some BLAS libraries do not return the same bits for the same row where
several threads share such a product.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from skae._validation import one_blas_thread
from skae.bottlenecks import divergence, posterior
from skae.draws import normal_draws
from skae.layout import Array
from skae.model import Model, places_of

__all__ = ["Marginal"]

#: Decoder outputs that are computed at once, and the most draws and rows among them.
MOST_OUTPUTS, MOST_DRAWS, MOST_ROWS = 2**20, 128, 64

#: A mean is moved while a step promises more than this many nats per component.
FAR = 0.01

#: The wide normal's variances are larger by this, divided by the root of the number of
#: components: then it costs the same share of draws for any number of components.
WIDER = 0.8

#: With fewer draws there would be too few for each part of the mixture.
LEAST_MIXED = 64

#: Codes drawn from the prior among which a better mean is looked for.
N_STARTS = 64

#: How often a mean may be moved, and the fractions of a step that are tried.
N_MOVES, FRACTIONS = 8, (1.0, 0.5, 0.25, 0.125, 0.03125)


class Normal(NamedTuple):
    """A normal distribution of each row's code.

    Attributes
    ----------
    mean : ndarray of shape (n_rows, n_components)
    root : ndarray of shape (n_rows, n_components, n_components)
        Draws are ``mean + root @ e``, with e standard normal.
    inverse : ndarray of shape (n_rows, n_components, n_components)
        Inverse of `root`.
    """

    mean: Array
    root: Array
    inverse: Array

    def codes(self, e: Array) -> Array:
        """Return the codes of standard normal draws, shape (n_rows, n_draws, k)."""
        codes = np.matmul(e, self.root.transpose(0, 2, 1))
        codes += self.mean[:, None]
        return np.asarray(codes)

    def log_density(self, z: Array) -> Array:
        """Return the log-density of codes, but for a constant."""
        e = np.matmul(z - self.mean[:, None], self.inverse.transpose(0, 2, 1))
        diagonal = np.diagonal(self.inverse, axis1=1, axis2=2)
        log_volume = np.log(np.abs(diagonal)).sum(axis=1)
        return np.asarray(log_volume[:, None] - 0.5 * np.square(e).sum(axis=2))

    def scaled(self, factor: float) -> Normal:
        """Return the same normal with standard deviations multiplied."""
        return Normal(self.mean, self.root * factor, self.inverse / factor)


class Estimate(NamedTuple):
    """What is known of log p(x) of some rows.

    Attributes
    ----------
    place : slice
        Which rows.
    log_likelihood, error : ndarray of shape (n_rows,)
        The estimate and its standard error, in nats.
    shares : ndarray of shape (n_rows, n_features) or None
        What each column contributes.
    """

    place: slice
    log_likelihood: Array
    error: Array
    shares: Array | None


class Marginal:
    """Estimates likelihoods of rows under a model with a normal code.

    Parameters
    ----------
    model : Model
        The fitted model.
    n_samples : int
        Draws of the code for each row.
    dtype : dtype
        The floating-point type to decode in; sums are formed in double precision.
    """

    def __init__(self, model: Model, n_samples: int, dtype: np.dtype[Any]) -> None:
        self.model, self.family, self.dtype = model, model.family, dtype
        self.shared = model.shared.astype(dtype)
        self.log_unit = model.log_unit(np.dtype(np.float64))
        k = model.plan.n_components
        last = model.objective.decoder.layers[-1].widths[1]
        n_wide = n_samples // 8 if n_samples >= LEAST_MIXED else 0
        # All outputs for the draws from the prior are kept, for all rows.
        n_prior = min(n_wide, 4 * MOST_OUTPUTS // last)
        self.sizes = n_samples - n_wide - n_prior, n_wide, n_prior
        self.n_draws = min(n_samples, MOST_DRAWS)
        most = MOST_OUTPUTS // (max(self.n_draws, k) * last)
        self.n_rows = min(max(most, 1), MOST_ROWS)
        self.decode_draws = model.decoder(dtype, self.n_rows * self.n_draws)
        self.decode = model.decoder(dtype, self.n_rows)
        draws = normal_draws(n_samples + N_STARTS, k)
        self.starts = draws[n_samples:]
        with one_blas_thread(), np.errstate(all="ignore"):
            self.eta_of_starts = self.outputs(self.starts)
        self.use(draws[:n_samples])

    def use(self, draws: Array) -> None:
        """Set the table of standard normal draws."""
        self.draws, n_prior = draws, self.sizes[2]
        with one_blas_thread(), np.errstate(all="ignore"):
            self.eta_of_prior = self.outputs(draws[len(draws) - n_prior :])

    def outputs(self, z: Array) -> Array:
        """Return the decoder's outputs for any number of codes."""
        parts = [self.decode(z[part]).copy() for part in places_of(len(z), self.n_rows)]
        return np.concatenate(parts) if parts else np.empty((0, self.decode.n_outputs))

    # --- what is asked for --------------------------------------------------------

    def estimates(self, X: Any, by_feature: bool = False) -> Iterator[Estimate]:
        """Yield the estimate of log p(x), in the units of X, block by block."""
        with one_blas_thread(), np.errstate(all="ignore"):
            for place, x, h in self.encoded(X):
                proposal = self.proposal(x, h)
                yield self.estimate(place, x, proposal, by_feature)

    def reconstructions(self, X: Any) -> Iterator[tuple[slice, Array]]:
        """Yield log p(x|z) of codes from the encoder's posterior, one for each draw."""
        with one_blas_thread(), np.errstate(all="ignore"):
            for place, x, h in self.encoded(X):
                drawn = self.decoded(x, self.posterior(h), self.draws)
                parts = [self.log_prob(nll) for _, nll in drawn]
                yield place, np.concatenate(parts, axis=1)

    def reconstructed(self, X: Any) -> Iterator[tuple[slice, Array]]:
        """Yield the mean of each column's log p(x_j|z) over such codes."""
        with one_blas_thread(), np.errstate(all="ignore"):
            for place, x, h in self.encoded(X):
                total = np.zeros(x.shape)
                for _, nll in self.decoded(x, self.posterior(h), self.draws):
                    total -= nll.sum(axis=1, dtype=np.float64)
                yield place, finite(total / len(self.draws) - self.log_unit)

    def bounds(self, X: Any) -> Iterator[tuple[slice, Array]]:
        """Yield the evidence lower bound.

        A quadratic approximation of log p(x|z), whose mean is known, serves as control
        variate: all rows share their draws, so that errors would not average out.
        """
        with one_blas_thread(), np.errstate(all="ignore"):
            for place, x, h in self.encoded(X):
                posterior = self.posterior(h)
                slope, curvature = self.expansion(x, posterior.mean)
                total = np.zeros(len(x))
                for z, nll in self.decoded(x, posterior, self.draws):
                    step = z - posterior.mean[:, None]
                    approximation = slope[:, None] + 0.5 * np.matmul(step, curvature)
                    control = (step * approximation).sum(axis=2)
                    total += (self.log_prob(nll) + control).sum(axis=1)
                scale = np.diagonal(posterior.root, axis1=1, axis2=2)
                diagonal = np.diagonal(curvature, axis1=1, axis2=2)
                known = 0.5 * (np.square(scale) * diagonal).sum(axis=1)
                mean = total / len(self.draws) - known
                yield place, mean - divergence(h).sum(axis=1)

    def log_prob(self, nll: Array) -> Array:
        """Return log p(x|z) of rows in the units of X, given minus that of entries."""
        return finite(-nll.sum(axis=2, dtype=np.float64) - self.log_unit.sum())

    def encoded(self, X: Any) -> Iterator[tuple[slice, Array, Array]]:
        """Yield blocks of rows beside the encoder's outputs."""
        for place, x, _, h in self.model.encoded(self.model.rows(X)):
            for part in places_of(len(x), self.n_rows):
                start = place.start + part.start
                here = slice(start, start + len(x[part]))
                yield here, x[part], h[part]

    def estimate(
        self, place: slice, x: Array, proposal: Normal, by_feature: bool
    ) -> Estimate:
        """Average the draws' importance weights, and each column's log p(x_j|z)."""
        wide = proposal.scaled(np.sqrt(1 + WIDER / np.sqrt(proposal.mean.shape[1])))
        sums = WeightedSums(len(x), x.shape[1] if by_feature else 0)
        for z, nll in self.mixture(x, proposal, wide):
            log_prior = -0.5 * np.square(z).sum(axis=2)
            parts = proposal.log_density(z), wide.log_density(z), log_prior
            log_mixture, controls = mixed(parts, self.sizes)
            log_weight = log_prior - nll.sum(axis=2, dtype=np.float64) - log_mixture
            values = -nll if by_feature else nll[:, :, :0]
            sums.add(finite(log_weight), controls, values)
        log_likelihood, error, means = sums.result()
        log_likelihood -= self.log_unit.sum()
        if not by_feature:
            return Estimate(place, log_likelihood, error, None)
        shares = means - self.log_unit
        rest = log_likelihood - shares.sum(axis=1)
        shares += (rest / x.shape[1])[:, None]
        return Estimate(place, log_likelihood, error, finite(shares))

    def mixture(
        self, x: Array, proposal: Normal, wide: Normal
    ) -> Iterator[tuple[Array, Array]]:
        """Yield codes of each part of the mixture, and ``-log p(x | z)``."""
        ends = np.cumsum([0, *self.sizes])
        yield from self.decoded(x, proposal, self.draws[: ends[1]])
        yield from self.decoded(x, wide, self.draws[ends[1] : ends[2]])
        for part in places_of(self.sizes[2], self.n_draws):
            z = self.draws[ends[2] :][part]
            nll = np.empty((len(x), len(z), x.shape[1]), self.dtype)
            self.family.nll(x[:, None], self.eta_of_prior[part], self.shared, nll)
            yield z[None], nll

    def decoded(
        self, x: Array, normal: Normal, draws: Array
    ) -> Iterator[tuple[Array, Array]]:
        """Yield the codes that some of the draws make, and ``-log p(x | z)``."""
        n, k = normal.mean.shape
        for part in places_of(len(draws), self.n_draws):
            z = normal.codes(draws[part])
            eta = self.decode_draws(z.reshape(-1, k).astype(self.dtype))
            nll = np.empty((*z.shape[:2], x.shape[1]), self.dtype)
            eta = eta.reshape(n, len(draws[part]), -1)
            self.family.nll(x[:, None], eta, self.shared, nll)
            yield z, nll

    # --- proposals ------------------------------------------------------------------

    def posterior(self, h: Array) -> Normal:
        """Return the encoder's posterior."""
        mu, log_variance = posterior(h.astype(np.float64))
        eye, scale = np.eye(mu.shape[1]), np.exp(0.5 * log_variance)[:, :, None]
        return Normal(mu, scale * eye, eye / scale)

    def proposal(self, x: Array, h: Array) -> Normal:
        """Return the normal distribution from which most of the codes are drawn."""
        z = self.settled(x, np.hsplit(h.astype(np.float64), 2)[0])
        other, gain = self.best_start(x, z)
        better = gain > FAR * z.shape[1]
        if better.any():
            z = np.where(better[:, None], self.settled(x, other), z)
        precision = np.linalg.cholesky(self.curvature(x, z)[0]).transpose(0, 2, 1)
        return Normal(z, np.linalg.inv(precision), precision)

    def settled(self, x: Array, z: Array) -> Array:
        """Return the codes, moved uphill as long as that gains much."""
        for _ in range(N_MOVES):
            precision, slope = self.curvature(x, z)
            step = np.linalg.solve(precision, slope[:, :, None])[:, :, 0]
            far = 0.5 * (slope * step).sum(axis=1) > FAR * z.shape[1]
            if not far.any():
                break
            z = np.where(far[:, None], self.moved(x, z, step), z)
        return z

    def best_start(self, x: Array, z: Array) -> tuple[Array, Array]:
        """Return the most likely of some codes from the prior, and what it gains."""
        nll = np.empty((len(x), len(self.starts), x.shape[1]), self.dtype)
        self.family.nll(x[:, None], self.eta_of_starts, self.shared, nll)
        cost = nll.sum(axis=2, dtype=np.float64)
        cost += 0.5 * np.square(self.starts).sum(axis=1)
        cost[np.isnan(cost)] = np.inf
        best = cost.argmin(axis=1)
        return self.starts[best], self.cost(x, z) - cost.min(axis=1)

    def moved(self, x: Array, z: Array, step: Array) -> Array:
        """Return the most likely of the codes on the way ``z - step``."""
        tried = np.stack([z, *(z - fraction * step for fraction in FRACTIONS)])
        costs = np.array([self.cost(x, codes) for codes in tried])
        costs[np.isnan(costs)] = np.inf
        return np.asarray(tried[costs.argmin(axis=0), np.arange(len(z))])

    def cost(self, x: Array, z: Array) -> Array:
        """Return ``-log p(x, z)`` of each row with its code, but for a constant."""
        out = np.empty_like(x)
        self.family.nll(x, self.decode(z.astype(self.dtype)), self.shared, out)
        prior = 0.5 * np.square(z).sum(axis=1)
        return np.asarray(out.sum(axis=1, dtype=np.float64) + prior)

    def curvature(self, x: Array, z: Array) -> tuple[Array, Array]:
        """Return ``I + J^T F J`` and the derivative of ``-log p(x, z)`` at `z`."""
        slope, precision = self.expansion(x, z)
        # The identity would be lost in rounding beside a very large matrix.
        trace = np.trace(precision, axis1=1, axis2=2)
        ridge = np.maximum(1.0, 8 * np.finfo(self.dtype).eps * trace)
        return precision + ridge[:, None, None] * np.eye(z.shape[1]), z + slope

    def expansion(self, x: Array, z: Array) -> tuple[Array, Array]:
        """Return the derivative of ``-log p(x | z)`` at `z`, and ``J^T F J``.

        Both are zero where they cannot be computed.
        """
        eta, tangents = self.slopes(z.astype(self.dtype))
        d_eta = np.empty_like(eta)
        self.family.gradient(x, eta, self.shared, d_eta)
        slope = np.matmul(tangents, d_eta[:, :, None])[:, :, 0].astype(np.float64)
        self.family.whiten(eta, self.shared, tangents)
        precision = np.matmul(tangents, tangents.transpose(0, 2, 1)).astype(np.float64)
        useless = ~np.isfinite(precision.sum(axis=(1, 2)) + slope.sum(axis=1))
        precision[useless], slope[useless] = 0.0, 0.0
        return slope, precision

    def slopes(self, z: Array) -> tuple[Array, Array]:
        """Return the decoder's outputs, and their derivative along each component.

        The derivative has shape (n_rows, n_components, n_outputs).
        """
        eta, (n, k) = self.decode(z), z.shape
        chain, tape = self.decode.chain, self.decode.tape
        n_rows, width = self.decode.shape
        tangents = np.zeros((n_rows, k, width), z.dtype)
        tangents[:] = np.eye(k, tangents.shape[2])
        every = zip(chain.layers, self.decode.views, tape.outputs, strict=True)
        for layer, (weight, _), a in every:
            tangents = np.matmul(tangents, weight)
            a = np.broadcast_to(a[:, None], tangents.shape)
            layer.function.chain(a, tangents, np.empty_like(tangents))
        return eta, tangents[:n, :, : eta.shape[1]]


class WeightedSums:
    """Sums of exp(log-weights) that neither overflow nor vanish.

    Parameters
    ----------
    n_rows, n_values : int
        Rows, and values of each row to average by the weights.
    """

    def __init__(self, n_rows: int, n_values: int) -> None:
        self.n = 0
        self.largest = np.full(n_rows, -np.inf)
        self.weight, self.square = np.zeros((2, n_rows))
        self.values = np.zeros((n_rows, n_values))
        self.control: Any = 0.0
        self.product: Any = 0.0
        self.squares: Any = 0.0

    def add(self, log_weight: Array, controls: Array, values: Array) -> None:
        """Add draws.

        Their log-weights have shape (n_rows, n_draws); controls, whose mean is known
        to be zero, and values have one axis more.
        """
        largest = np.maximum(self.largest, log_weight.max(axis=1))
        shift = np.where(largest == -np.inf, 0.0, largest)
        old = np.exp(self.largest - shift)
        weight = np.exp(log_weight - shift[:, None])
        self.n += log_weight.shape[1]
        self.weight = old * self.weight + weight.sum(axis=1)
        self.square = old * old * self.square + np.square(weight).sum(axis=1)
        seen = np.where(weight[:, :, None] > 0, values, 0.0)
        self.values = old[:, None] * self.values + weighted(weight, seen)
        self.product = old[:, None] * self.product + weighted(weight, controls)
        self.control = self.control + controls.sum(axis=1)
        self.squares = self.squares + np.matmul(controls.transpose(0, 2, 1), controls)
        self.largest = largest

    def result(self) -> tuple[Array, Array, Array]:
        """Return the log of the mean weight, its standard error, and mean values.

        The mean is that of what linear regression on the controls leaves; the error is
        that of independent draws, NaN for a single one.
        """
        n, control = self.n, self.control
        joint = self.product - self.weight[:, None] * control / n
        spread = self.squares - control[:, :, None] * control[:, None] / n
        slope = np.matmul(joint[:, None], np.linalg.pinv(spread, 1e-10, True))[:, 0]
        total = self.weight - (slope * control).sum(axis=1)
        explained = (slope * joint).sum(axis=1)
        unusable = ~(total > 0)
        total[unusable], explained[unusable] = self.weight[unusable], 0.0
        left = self.square - np.square(self.weight) / n - explained
        freedom = max(n - 1 - control.shape[1], 0)
        error = np.sqrt(np.maximum(left, 0.0) * n / freedom) / total
        means = self.values / self.weight[:, None]
        return self.largest + np.log(total / n), error, means


def weighted(weight: Array, values: Array) -> Array:
    """Return each row's weighted sums of values."""
    return np.asarray(np.matmul(weight[:, None], values)[:, 0])


def mixed(parts: tuple[Array, ...], sizes: tuple[int, ...]) -> tuple[Array, Array]:
    """Return the log-density of a mixture, and controls that average to zero under it.

    These are the densities of all its parts but the first, divided by its own, less
    one. Parts of which there are no draws do not count.
    """
    share = np.array(sizes) / sum(sizes)
    used = [i for i, n in enumerate(sizes) if n > 0]
    log_mixture = reduce(np.logaddexp, [parts[i] + np.log(share[i]) for i in used])
    ratios = [np.expm1(parts[i] - log_mixture) for i in used[1:]]
    empty = np.empty((*log_mixture.shape, 0))
    return log_mixture, np.stack(ratios, axis=-1) if ratios else empty


def finite(a: Array) -> Array:
    """Return `a` with minus infinity for what could not be computed."""
    return np.where(np.isnan(a), -np.inf, a)
