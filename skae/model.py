"""A network with its numbers: encodes, decodes and scores rows.

Rows are visited in blocks of one and the same size, so that the result for a row does
not depend, to the last bit, on the rows that come with it (see `network.Padded`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from skae.bottlenecks import Bottleneck, divergence, posterior
from skae.composite import as_distribution
from skae.corruptions import Corruption, NoCorruption
from skae.crew import Crew, crew, hired
from skae.distributions import Distribution
from skae.draws import normal_draws
from skae.layout import Array, Layout, Part, share
from skae.network import WIDTH, Chain, Padded, encoder_decoder, initialize
from skae.objective import Objective
from skae.rows import Columns, Rows, rows_in_block, rows_of

__all__ = ["Model", "Plan"]

#: Networks no wider than this are not shared by a crew, which would cost more than it
#: brings: their products are the same in any number of threads.
SMALL = 256

#: Products of two numbers that are worth a thread of their own.
FEWEST_PRODUCTS = 2**27

#: Rows in a block: enough for an efficient product, few enough for the cache. While a
#: model is fitted, less memory is free.
BLOCK, SMALL_BLOCK = 128, 64


@dataclass(frozen=True)
class Plan:
    """What network to build, in plain words.

    Attributes
    ----------
    down : list of int
        Widths of the encoder, from the input to the code.
    up : list of int
        Widths of the decoder, from the code to the columns.
    activations : list of two lists of str
        One for each layer of the encoder, and of the decoder.
    tied : bool
        Whether the decoder uses the encoder's weights, transposed.
    distribution : str, Distribution or list
        p(x | eta), as `composite.as_distribution` understands it.
    standardize : bool
        Whether columns are centred and divided by their unit, where their family
        allows it.
    """

    down: list[int]
    up: list[int]
    activations: list[list[str]]
    tied: bool
    distribution: str | Distribution | list[tuple[str | Distribution, list[int]]]
    standardize: bool

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return self.down[0]

    @property
    def n_components(self) -> int:
        """Number of units of the code."""
        return self.down[-1]

    def objective(
        self,
        bottleneck: Bottleneck,
        corruption: Corruption | None = None,
        corruption_level: float = 0.0,
        **options: Any,
    ) -> tuple[Objective, int]:
        """Build the structure; return it and the number of its parameters."""
        layout, family = Layout(), as_distribution(self.distribution)
        encoder, decoder = encoder_decoder(
            layout,
            [*self.down[:-1], self.down[-1] * bottleneck.outputs_per_unit],
            [*self.up[:-1], family.n_outputs(self.n_features)],
            (self.activations[0], self.activations[1]),
            self.tied,
        )
        objective = Objective(
            encoder=encoder,
            bottleneck=bottleneck,
            decoder=decoder,
            distribution=family,
            corruption=corruption or NoCorruption(),
            corruption_level=corruption_level,
            shared=layout.slot(family.n_shared(self.n_features)),
            own=layout.slot(bottleneck.n_own, self.n_components),
            **options,
        )
        return objective, layout.size


class Block(NamedTuple):
    """Some rows, their codes and what these cost, and the decoder's outputs."""

    place: slice
    x: Array
    weight: Array
    eta: Array
    cost: Array


@dataclass
class Model:
    """A planned network, its parameters and the columns that it was trained on.

    Attributes
    ----------
    plan : Plan
        The structure.
    bottleneck : Bottleneck
        How the encoder's output becomes a code.
    theta : ndarray of shape (n_parameters,)
        Every weight and bias, and the distribution's shared parameters.
    columns : Columns
        Statistics of the training data.
    is_exact : bool
        Whether a row's results are the same, to the last bit, whatever rows come with
        it. For that, weights may have to be copied.
    """

    plan: Plan
    bottleneck: Bottleneck
    theta: Array
    columns: Columns
    is_exact: bool = True

    def __post_init__(self) -> None:
        self.objective, self.size = self.plan.objective(self.bottleneck)
        self.family = self.objective.distribution
        moved = np.zeros((2, self.plan.n_features), dtype=bool)
        if self.plan.standardize:
            moved[0] = self.family.centred(self.plan.n_features)
            moved[1] = self.family.scaled(self.plan.n_features)
        self.center = np.where(moved[0], self.columns.mean, 0.0)
        self.unit = np.where(moved[1], self.columns.unit, 1.0)
        self.moves_columns = bool(moved.any())

    @classmethod
    def start(
        cls,
        plan: Plan,
        bottleneck: Bottleneck,
        columns: Columns,
        dtype: np.dtype[Any],
        rng: np.random.Generator,
    ) -> Model:
        """Draw weights; let the output begin at the mean of the data."""
        model = cls(plan, bottleneck, np.empty(0, dtype), columns)
        model.theta = model.theta_of_means(dtype)
        initialize(model.objective.encoder, model.theta, rng)
        initialize(model.objective.decoder, model.theta, rng)
        model.still_spreads()
        return model

    def still_spreads(self) -> None:
        """Let all outputs that say how much something spreads begin as constants.

        A row far outside would otherwise have a code or a column of enormous variance.
        These are all blocks of outputs but the first, which are means.
        """
        weight = self.objective.encoder.layers[-1].weight.of(self.theta)
        weight[:, self.plan.n_components :] = 0.0
        weight = self.objective.decoder.layers[-1].weight.of(self.theta)
        others = np.ones(weight.shape[1], dtype=bool)
        others[self.mean_outputs()] = False
        weight[:, others] = 0.0

    def theta_of_means(self, dtype: np.dtype[Any]) -> Array:
        """Return the parameters that describe every row by the columns' statistics."""
        theta = np.zeros(self.size, dtype)
        mean = (self.columns.mean - self.center) / self.unit
        bias, shared = self.family.start(mean, self.variance, self.columns.n_rows)
        self.objective.decoder.layers[-1].bias.of(theta)[...] = bias
        self.objective.shared.of(theta)[...] = np.clip(shared, *self.limits())
        own = self.bottleneck.start(self.plan.n_components)
        self.objective.own.of(theta)[...] = own
        return theta

    @property
    def variance(self) -> Array:
        """Variance of each column in the network's units; zero if it is constant."""
        variance = self.columns.variance / np.square(self.unit)
        return np.where(self.columns.constant, 0.0, variance)

    def rows(
        self, X: Any, index: Array | None = None, weight: Array | None = None
    ) -> Rows:
        """Return rows of X as this network wants to see them."""
        moved = (self.center, self.unit) if self.moves_columns else (None, None)
        return rows_of(X, index, weight, *moved)

    # --- the distribution's shared parameters ---------------------------------

    @property
    def shared(self) -> Array:
        """The distribution's parameters that no code changes."""
        return self.objective.shared.of(self.theta)

    @property
    def scale_places(self) -> Array:
        """Where in `shared` each column's log-scale is; -1 where there is none."""
        d = self.plan.n_features
        places, start = np.full(d, -1), 0
        for member, columns in self.family.parts(d):
            n = len(places[columns])
            if member.has_scale:
                places[columns] = start + np.arange(n)
            start += member.n_shared(n)
        return places

    def limits(self) -> tuple[Array, Array]:
        """Return the lowest and highest values of shared parameters in training.

        A random code lets scales be learnt. A deterministic one might reproduce some
        columns exactly, and their scales would collapse: they are one while training,
        and estimated afterwards.
        """
        low, high = self.widest_limits()
        if not self.bottleneck.is_random:
            places = self.scale_places
            for limit in (low, high):
                limit[places[places >= 0]] = 0.0
        return low, high

    def widest_limits(self) -> tuple[Array, Array]:
        """Return the lowest and highest values that shared parameters may take.

        The scale of a constant column is its unit.
        """
        low, high = map(np.array, self.family.limits(self.variance))
        places = self.scale_places
        fixed = self.columns.constant & (places >= 0)
        size = np.log(self.columns.unit / self.unit)
        low[places[fixed]] = high[places[fixed]] = size[fixed]
        return low, high

    @property
    def squared_scales(self) -> Array:
        """Squared scales, of real-valued columns in squared units of X; else NaN."""
        places, d = self.scale_places, self.plan.n_features
        unit = np.where(self.family.centred(d), self.unit, 1.0)
        scale = np.full(d, np.nan)
        found = places >= 0
        scale[found] = np.exp(self.shared[places[found]].astype(np.float64))
        return np.asarray(np.square(scale * unit))

    @property
    def noise_variance(self) -> Array | None:
        """Squared scales of the real-valued columns; NaN for all others."""
        real = (self.scale_places >= 0) & self.family.centred(self.plan.n_features)
        return np.where(real, self.squared_scales, np.nan) if real.any() else None

    def blend_scales(self, squared: Array, keep: float) -> None:
        """Move estimated scales back towards earlier squared ones, by a share."""
        if self.bottleneck.is_random:
            return
        ratio = squared / self.squared_scales
        found = np.isfinite(ratio)
        shift = 0.5 * np.log1p(keep * (ratio[found] - 1.0))
        self.shared[self.scale_places[found]] += shift

    # --- sharing the work ---------------------------------------------------------

    def crew(self, n_rows: int) -> AbstractContextManager[Crew]:
        """Hire who computes rows.

        Products are held to one thread whoever comes, unless they are so small that
        they are the same in any number of threads: a last bit could decide whether a
        unit fires.
        """
        if max(*self.plan.down, *self.plan.up) <= SMALL:
            return nullcontext(hired())
        return crew(max(1, n_rows * self.size // FEWEST_PRODUCTS))

    def together(self, n_rows: int, work: Callable[[slice], Any]) -> list[Any]:
        """Do some work for all rows, in whole blocks; return what the shares return."""
        size, results = self.n_rows_at_once(), {}

        def do(part: Part) -> None:
            blocks = share(-(-n_rows // size), part)
            here = slice(blocks.start * size, min(blocks.stop * size, n_rows))
            results[part[0]] = work(here)

        with np.errstate(all="ignore"), self.crew(n_rows) as members:
            members.run([do])
        return [results[i] for i in range(len(results))]

    # --- codes and reconstructions -----------------------------------------------

    def n_rows_at_once(self) -> int:
        """Return the rows in a block, few enough for the widest layer."""
        last = self.objective.decoder.layers[-1].widths[1]
        most = BLOCK if self.is_exact else SMALL_BLOCK
        return rows_in_block(max(*self.plan.down, *self.plan.up, last), most)

    def encoder(self, dtype: np.dtype[Any]) -> Padded:
        """Return the encoder, ready to compute in `dtype`."""
        return self.ready(self.objective.encoder, dtype, self.n_rows_at_once())

    def decoder(self, dtype: np.dtype[Any], n_rows: int | None = None) -> Padded:
        """Return the decoder, ready to compute in `dtype`."""
        n_rows = n_rows or self.n_rows_at_once()
        return self.ready(self.objective.decoder, dtype, n_rows)

    def ready(self, chain: Chain, dtype: np.dtype[Any], n_rows: int) -> Padded:
        """Return layers, ready to compute so many rows at once."""
        multiple = WIDTH if self.is_exact else 1
        return Padded(chain, self.theta, n_rows, dtype, multiple)

    def encoded(self, rows: Rows) -> Iterator[tuple[slice, Array, Array, Array]]:
        """Yield blocks of rows: their place, themselves, weights, encoder outputs.

        Weights are divided by the mean weight.
        """
        encode, size = self.encoder(rows.X.dtype), self.n_rows_at_once()
        # Two allocations: NumPy 1 takes touching arrays for overlapping, and rounds
        # logarithms of the one into the other differently.
        clean = seen = np.empty((size, self.plan.n_features), rows.X.dtype)
        if self.family.changes_inputs:
            seen = np.empty_like(clean)
        weights, average = np.empty(size, rows.X.dtype), rows.mean_weight
        for place in places_of(len(rows), size):
            n = place.stop - place.start
            x, inputs, weight = clean[:n], seen[:n], weights[:n]
            rows.load(rows.index[place], x, weight, average)
            if self.family.changes_inputs:
                self.family.inputs(x, inputs)
            yield place, x, weight, encode(inputs)

    def codes(self, rows: Rows) -> Iterator[tuple[slice, Array, Array]]:
        """Yield blocks of rows: their place, weights and codes."""
        own = self.own.astype(rows.X.dtype)
        for place, _, weight, h in self.encoded(rows):
            yield place, weight, self.bottleneck.code(h, own)

    def encode(self, X: Any, n_components: int | None = None) -> Array:
        """Return the code of each row, or its first units."""
        rows, n = self.rows(X), n_components or self.plan.n_components
        out = np.empty((len(rows), n), X.dtype)

        def encode(here: slice) -> None:
            for place, _, code in self.codes(rows.cut(here)):
                out[here][place] = code[:, :n]

        self.together(len(rows), encode)
        return out

    def encode_sparse(self, X: Any, n_components: int) -> sparse.csr_matrix:
        """Return the first units of each row's code; zeros take no memory."""
        data, columns = [np.empty(0, X.dtype)], [np.empty(0, np.int32)]
        counts = np.zeros(X.shape[0] + 1, np.intp)
        with np.errstate(all="ignore"), self.crew(X.shape[0]):
            for place, _, code in self.codes(self.rows(X)):
                kept = np.ascontiguousarray(code[:, :n_components])
                fires = kept != 0
                entries = np.flatnonzero(fires)
                data.append(kept.ravel()[entries])
                columns.append((entries % n_components).astype(np.int32))
                counts[place.start + 1 : place.stop + 1] = fires.sum(axis=1)
        arrays = np.concatenate(data), np.concatenate(columns), np.cumsum(counts)
        return sparse.csr_matrix(arrays, shape=(X.shape[0], n_components))

    # --- the numbers that the units of the code keep --------------------------

    @property
    def own(self) -> Array:
        """The bottleneck's numbers, of shape (n_own, n_components)."""
        return self.objective.own.of(self.theta)

    def outputs(self, rows: Rows) -> Iterator[tuple[Array, Array]]:
        """Yield blocks of encoder outputs, and of the weights of their rows."""
        for _, _, weight, h in self.encoded(rows):
            yield h, weight

    def settled_own(self, rows: Rows) -> Array:
        """Return the units' numbers as these rows see them together."""
        with np.errstate(all="ignore"), self.crew(len(rows)):
            return self.bottleneck.settle(partial(self.outputs, rows), self.own)

    def firing(self, rows: Rows) -> tuple[Array, Array]:
        """Return how often each unit fires, by weight, and in how many rows."""
        often, count = rows.summed(self.sums_of_firing)
        return often / len(rows), count

    def sums_of_firing(self, rows: Rows) -> Array:
        """Return the weights and the numbers of rows in which each unit fires."""
        sums = np.zeros((2, self.plan.n_components))
        with np.errstate(all="ignore"), self.crew(len(rows)):
            for _, weight, code in self.codes(rows):
                fires = self.bottleneck.firing(code)
                sums += weight @ fires, np.count_nonzero(fires, axis=0)
        return sums

    def directions(self) -> Array:
        """Return what each unit adds to the decoder's output, in the units of X.

        Of several outputs for a column the first counts, which is its mean. It takes a
        decoder of one layer.
        """
        weight = self.objective.decoder.layers[0].weight.of(self.theta)
        unit = self.unit.astype(weight.dtype)
        return np.asarray(weight[:, self.mean_outputs()] * unit)

    def mean_outputs(self) -> Array:
        """Return the decoder's output for the mean of each column."""
        places, start = np.empty(self.plan.n_features, int), 0
        for member, columns in self.family.parts(self.plan.n_features):
            n = len(places[columns])
            places[columns] = start + np.arange(n)
            start += member.n_outputs(n)
        return places

    def posterior(self, X: Any) -> tuple[Array, Array]:
        """Return the mean and the standard deviation of each row's code."""
        rows = self.rows(X)
        out = np.empty((2, len(rows), self.plan.n_components), X.dtype)

        def find(here: slice) -> None:
            for place, _, _, h in self.encoded(rows.cut(here)):
                mu, log_variance = posterior(h)
                out[:, here][:, place] = mu, np.exp(0.5 * log_variance)

        self.together(len(rows), find)
        return out[0], out[1]

    def activity(self, rows: Rows) -> tuple[Array, Array]:
        """Return each component's mean divergence, and the variance of its mean."""
        kl, mean, square = rows.summed(self.sums_of_activity) / len(rows)
        return kl, square - np.square(mean)

    def sums_of_activity(self, rows: Rows) -> Array:
        """Return sums of each component's divergence, its mean and its square."""
        sums = np.zeros((3, self.plan.n_components))
        with np.errstate(all="ignore"):
            for _, _, weight, h in self.encoded(rows):
                mu = np.hsplit(h, 2)[0].astype(np.float64)
                sums += [weight @ f for f in (divergence(h), mu, np.square(mu))]
        return sums

    def decoded(self, z: Any) -> Iterator[tuple[slice, Array]]:
        """Yield the decoder's outputs for blocks of codes."""
        decode = self.decoder(z.dtype)
        for place in places_of(z.shape[0], self.n_rows_at_once()):
            block = z[place]
            yield place, decode(block.toarray() if sparse.issparse(z) else block)

    def decode(self, z: Any) -> Array:
        """Return the mean of p(x | code) for each code, in the units of X."""
        shared = self.shared.astype(z.dtype)
        out = np.empty((z.shape[0], self.plan.n_features), z.dtype)

        def decode(here: slice) -> None:
            for place, eta in self.decoded(z[here]):
                out[here][place] = self.family.mean(eta, shared)
            self.rows(out).restore(out[here])

        self.together(z.shape[0], decode)
        return out

    def sample(self, z: Array, rng: np.random.Generator) -> Array:
        """Draw a row from p(x | code) for each code, in the units of X."""
        shared = self.shared.astype(z.dtype)
        out = np.empty((len(z), self.plan.n_features), z.dtype)
        with np.errstate(all="ignore"):
            for place, eta in self.decoded(z):
                out[place] = self.family.sample(eta, shared, rng)
            self.rows(out).restore(out)
        return out

    # --- likelihoods and losses ----------------------------------------------

    def log_unit(self, dtype: np.dtype[Any]) -> Array:
        """Return what a log-density loses in each column by the change of units."""
        return np.log(self.unit).astype(dtype)

    def log_prob_given_code(self, X: Any, by_feature: bool = False) -> Array:
        """Return ``log p(x | own code)`` of rows, or entries, in the units of X.

        It is minus infinity where a residual is too large to be squared.
        """
        rows, shared = self.rows(X), self.shared.astype(X.dtype)
        log_unit, draws = self.log_unit(X.dtype), self.code_alone()
        found = np.empty(X.shape if by_feature else X.shape[:1], X.dtype)

        def score(here: slice) -> None:
            for block in self.scored(rows.cut(here), draws):
                cost = np.empty_like(block.x)
                self.family.nll(block.x, block.eta[:, 0], shared, cost)
                cost += log_unit
                if not by_feature:
                    cost = cost.sum(axis=1, dtype=np.float64)
                found[here][block.place] = -cost

        self.together(len(rows), score)
        found[np.isnan(found)] = -np.inf
        return found

    def reconstruction_error(self, X: Any, by_feature: bool = False) -> Array:
        """Return the loss of rows, or entries.

        In columns with a likelihood it is the squared error.
        """
        rows, shared, d = self.rows(X), self.shared.astype(X.dtype), X.shape[1]
        found = np.empty(X.shape if by_feature else X.shape[:1], X.dtype)
        draws, losses = self.code_alone(), np.zeros(d, dtype=bool)
        for member, columns in self.family.parts(d):
            losses[columns] = not member.is_likelihood

        def measure(here: slice) -> None:
            for block in self.scored(rows.cut(here), draws):
                out, eta = np.empty_like(block.x), block.eta[:, 0]
                self.family.nll(block.x, eta, shared, out)
                residual = block.x - self.family.mean(eta, shared)
                np.square(residual, out=out, where=~losses)
                if not by_feature:
                    out = out.sum(axis=1, dtype=np.float64)
                found[here][block.place] = out

        self.together(len(rows), measure)
        return found

    def code_alone(self) -> Array:
        """Return the draw that makes a code the one that represents its row."""
        return np.zeros((1, self.plan.n_components))

    def mean_loss(self, rows: Rows, beta: float, n_samples: int = 0) -> float:
        """Return the training loss of clean rows, in nats per row, penalty aside.

        A random code is averaged over so many fixed draws; zero stands for the code
        that represents the row.
        """
        draws = self.code_alone()
        if self.bottleneck.is_random and n_samples > 0:
            draws = normal_draws(n_samples, self.plan.n_components)
        own = self.settled_own(rows)
        work = partial(self.sum_of_losses, beta=beta, draws=draws, own=own)
        return float(rows.summed(work)) / len(rows)

    def sum_of_losses(self, rows: Rows, beta: float, draws: Array, own: Array) -> float:
        """Return the sum of the rows' losses, times their weights.

        The blocks' sums are added in one order, however many threads found them.
        """

        def measure(here: slice) -> list[float]:
            sums = []
            for block in self.scored(rows.cut(here), draws, own):
                out = np.empty((*block.cost.shape, block.x.shape[1]), block.x.dtype)
                self.family.nll(block.x[:, None], block.eta, self.shared, out)
                total = out.sum(axis=2) + beta * block.cost
                each = np.empty(len(total), total.dtype)
                self.bottleneck.combine(total, each, np.empty_like(total))
                sums.append(float((block.weight * each).sum(dtype=np.float64)))
            return sums

        return float(np.sum([*chain(*self.together(len(rows), measure))]))

    def loss_of_means(self, rows: Rows, beta: float) -> float:
        """Return the loss of describing every row by the columns' statistics."""
        theta = self.theta_of_means(self.theta.dtype)
        return replace(self, theta=theta).mean_loss(rows, beta)

    def estimated_shared(self, rows: Rows) -> Array:
        """Return the shared parameters, scales estimated from residuals.

        Scales that training has learnt stay as they are. No column is trusted beyond
        a small fraction of its spread.
        """
        shared, places = self.shared.astype(np.float64), self.scale_places
        found = places >= 0
        if self.bottleneck.is_random or not found.any():
            return shared
        deviation = rows.summed(self.sum_of_deviations)
        with np.errstate(all="ignore"):
            scale = self.family.scale(deviation / len(rows))
            shared[places[found]] = np.log(scale[found])
        return np.clip(shared, *self.widest_limits())

    def sum_of_deviations(self, rows: Rows) -> Array:
        """Return the sums of what scales are estimated from, one for each column."""
        draws = self.code_alone()

        def measure(here: slice) -> Array:
            deviation = np.zeros(self.plan.n_features)
            for block in self.scored(rows.cut(here), draws):
                out = np.empty_like(block.x)
                self.family.deviation(block.x, block.eta[:, 0], out)
                deviation += block.weight @ out
            return deviation

        return np.asarray(sum(self.together(len(rows), measure)))

    def scored(
        self, rows: Rows, draws: Array, own: Array | None = None
    ) -> Iterator[Block]:
        """Yield blocks of rows beside the decoder's outputs for their codes.

        `draws`, of shape (n_samples, n_components), are shared by all rows; `own`, if
        given, stands for the units' numbers.
        """
        own = (self.own if own is None else own).astype(rows.X.dtype)
        n_samples, dtype = len(draws), rows.X.dtype
        k = self.plan.n_components
        size = max(1, self.n_rows_at_once() // n_samples)
        decode = self.decoder(dtype, size * n_samples)
        noise = np.broadcast_to(draws.astype(dtype), (size, n_samples, k))
        codes, costs = np.empty(noise.shape, dtype), np.empty((size, n_samples), dtype)
        for place, x, weight, h in self.encoded(rows):
            for part in places_of(len(x), size):
                n, start = part.stop - part.start, place.start + part.start
                z, cost = codes[:n], costs[:n]
                self.bottleneck.forward(h[part], noise[:n], own, z, cost)
                eta = decode(z.reshape(n * n_samples, k)).reshape(n, n_samples, -1)
                yield Block(slice(start, start + n), x[part], weight[part], eta, cost)


def places_of(n_rows: int, size: int) -> Iterator[slice]:
    """Yield consecutive places of at most `size` rows."""
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))
