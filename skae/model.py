"""A network with its numbers: encodes, decodes and scores rows.

Rows are visited in blocks of one and the same size, the last one filled up with zeros,
and every layer's width is rounded up likewise. Products of matrices of such shapes have
no ragged edges, at which a kernel would compute in another order: a row's result does
not depend, to the last bit, on the rows that come with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from skae.bottlenecks import Bottleneck
from skae.component import resolve
from skae.corruptions import Corruption, NoCorruption
from skae.distributions import DISTRIBUTIONS, Distribution
from skae.layout import Array, Layout, Slot
from skae.network import embed, encoder_decoder, initialize
from skae.objective import Batch, Objective, Parameters
from skae.rows import Columns, Rows, rows_in_block

__all__ = ["Model", "Plan"]

#: Rows in a block: enough for an efficient product, few enough for the cache.
BLOCK = 128

#: Layers are made a multiple of this wide: the width of the widest vector registers.
WIDTH = 8

#: No column is trusted to be known better than this fraction of its own spread.
SMALLEST_NOISE = 1e-3


@dataclass(frozen=True)
class Plan:
    """What network to build, in plain words.

    Attributes
    ----------
    widths : list of int
        From the input to the code.
    activations : list of str
        One for each encoder layer.
    tied : bool
        Whether the decoder uses the encoder's weights, transposed.
    distribution : str or Distribution
        p(x | eta).
    standardize : bool
        Whether columns are centred and divided by their unit.
    """

    widths: list[int]
    activations: list[str]
    tied: bool
    distribution: str | Distribution
    standardize: bool

    def objective(
        self,
        bottleneck: Bottleneck,
        corruption: Corruption | None = None,
        corruption_level: float = 0.0,
        alpha: float = 0.0,
    ) -> tuple[Objective, int]:
        """Build the structure; return it and the number of its parameters."""
        layout = Layout()
        distribution = resolve(self.distribution, DISTRIBUTIONS)
        encoder, decoder = encoder_decoder(
            layout,
            self.widths,
            self.activations,
            tied=self.tied,
            code_outputs=bottleneck.outputs_per_unit,
            data_outputs=distribution.outputs_per_feature,
        )
        objective = Objective(
            encoder=encoder,
            bottleneck=bottleneck,
            decoder=decoder,
            distribution=distribution,
            corruption=corruption or NoCorruption(),
            corruption_level=corruption_level,
            weights=Slot(0, (encoder.layers[0].bias.start,)),
            alpha=alpha,
        )
        return objective, layout.size


class Scored(NamedTuple):
    """A block of rows, the outputs for their own codes, and free space."""

    place: slice
    x: Array
    eta: Array
    weight: Array
    out: Array


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
        Every weight and bias.
    columns : Columns
        Statistics of the training data.
    noise_variance : ndarray of shape (n_features,) or None
        Squared noise scales in squared units of X.
    """

    plan: Plan
    bottleneck: Bottleneck
    theta: Array
    columns: Columns
    noise_variance: Array | None = None

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
        objective, size = plan.objective(bottleneck)
        model = cls(plan, bottleneck, np.zeros(size, dtype), columns)
        initialize(objective.encoder, model.theta, rng)
        initialize(objective.decoder, model.theta, rng)
        objective.decoder.layers[-1].bias.of(model.theta)[...] = model.eta_of_means()
        return model

    def eta_of_means(self) -> Array:
        """Return the output that reconstructs every row as the columns' means."""
        mean = self.columns.mean[None].copy()
        self.rows(mean).standardize(mean)
        return self.objective.distribution.start(mean[0], self.columns.n_rows)

    @property
    def objective(self) -> Objective:
        """The structure, without corruption or penalty."""
        return self.plan.objective(self.bottleneck)[0]

    @property
    def unit(self) -> Array:
        """What the network's columns are measured in, in units of X."""
        unit = self.columns.unit
        return unit if self.plan.standardize else np.ones_like(unit)

    def open(self, dtype: np.dtype[Any]) -> tuple[Objective, Parameters, Batch]:
        """Return structure, parameters and memory to compute in `dtype`.

        The network is made wider by units that nothing reaches and nothing listens to.
        """
        widths = [-(-width // WIDTH) * WIDTH for width in self.plan.widths]
        wide, size = replace(self.plan, widths=widths).objective(self.bottleneck)
        theta, narrow = np.zeros(size, dtype), self.objective
        embed(narrow.encoder, self.theta, wide.encoder, theta)
        embed(narrow.decoder, self.theta, wide.decoder, theta)
        batch = wide.batch(rows_in_block(max(widths), BLOCK), dtype)
        batch.x.fill(0.0)
        return wide, wide.of(theta), batch

    def rows(
        self, X: Any, index: Array | None = None, weight: Array | None = None
    ) -> Rows:
        """Return rows of X as this network wants to see them."""
        if not self.plan.standardize:
            return Rows(X, index, weight)
        return Rows(X, index, weight, self.columns.mean, self.columns.unit)

    # --- codes and reconstructions -----------------------------------------------

    def encode(self, X: Any) -> Array:
        """Return the code of each row."""
        rows, (objective, params, batch) = self.rows(X), self.open(X.dtype)
        n_components = self.plan.widths[-1]
        out = np.empty((len(rows), n_components), X.dtype)
        with np.errstate(all="ignore"):
            for place, x, _ in self.loaded(rows, batch):
                out[place] = objective.encode(params, batch)[: len(x), :n_components]
        return out

    def decode(self, z: Array) -> Array:
        """Return the mean of p(x | code) for each code, in the units of X."""
        objective, params, batch = self.open(z.dtype)
        n_features, n_components = self.plan.widths[0], self.plan.widths[-1]
        padded = np.zeros((len(batch.x), objective.n_components), z.dtype)
        out = np.empty((len(z), n_features), z.dtype)
        with np.errstate(all="ignore"):
            for place in blocks(len(z), len(padded)):
                n = place.stop - place.start
                padded[:n, :n_components], padded[n:] = z[place], 0.0
                eta = self.narrow(objective.decode(params, padded, batch)[:n])
                out[place] = objective.distribution.mean(eta)
            self.rows(out).restore(out)
        return out

    def loaded(self, rows: Rows, batch: Batch) -> Iterator[tuple[slice, Array, Array]]:
        """Fill the batch with rows, block by block; yield the rows and their weights.

        Weights are divided by the mean weight.
        """
        x = np.empty((len(batch.x), self.plan.widths[0]), batch.x.dtype)
        average = rows.mean_weight
        for place in blocks(len(rows), len(x)):
            n = place.stop - place.start
            rows.load(rows.index[place], x[:n], batch.weight[:n], average)
            x[n:] = 0.0
            batch.x[:, : x.shape[1]] = x
            yield place, x[:n], batch.weight[:n]

    def narrow(self, eta: Array) -> Array:
        """Return the outputs without those of the units that only fill up."""
        n_blocks = self.objective.decoder.layers[-1].n_blocks
        blocks = eta.reshape(len(eta), n_blocks, -1)[:, :, : self.plan.widths[0]]
        return blocks.reshape(len(eta), -1)

    # --- likelihoods ----------------------------------------------------------

    def log_likelihood(self, X: Any) -> Iterator[tuple[slice, Array]]:
        """Yield ``log p(x | own code)`` of every entry, in nats and the units of X.

        It is minus infinity where a residual is too large to be squared.
        """
        distribution, unit = self.objective.distribution, self.unit
        scale = np.ones_like(unit)
        if self.noise_variance is not None:
            scale = np.sqrt(self.noise_variance) / unit
        scale, log_unit = scale.astype(X.dtype), np.log(unit).astype(X.dtype)
        with np.errstate(all="ignore"):
            for block in self.scored(self.rows(X)):
                distribution.nll(block.x, block.eta, scale, block.out)
                log_likelihood = -block.out - log_unit
                log_likelihood[np.isnan(log_likelihood)] = -np.inf
                yield block.place, log_likelihood

    def mean_loss(self, rows: Rows) -> float:
        """Return the training loss of clean rows, in nats per row, penalty aside."""
        return self.assess(rows)[0]

    def loss_of_means(self, rows: Rows) -> float:
        """Return the loss of reconstructing every row as the columns' means."""
        means = replace(self, theta=np.zeros_like(self.theta))
        bias = means.objective.decoder.layers[-1].bias.of(means.theta)
        bias[...] = self.eta_of_means()
        return means.mean_loss(rows)

    def assess(self, rows: Rows) -> tuple[float, Array | None]:
        """Return the mean loss of clean rows, and squared noise scales from residuals.

        The latter are in squared units of X. A column is never trusted beyond a small
        fraction of its spread, and the noise of a constant column is as large as its
        unit: neither can dominate.
        """
        distribution, spread = self.objective.distribution, self.columns.unit
        loss, deviation = 0.0, np.zeros_like(spread)
        with np.errstate(all="ignore"):
            for block in self.scored(rows):
                distribution.nll(block.x, block.eta, 1.0, block.out)
                loss += float(block.weight @ block.out.sum(axis=1))
                if distribution.has_scale:
                    distribution.deviation(block.x, block.eta, block.out)
                    deviation += block.weight @ block.out
            if not distribution.has_scale:
                return loss / len(rows), None
            scale = distribution.scale(deviation / len(rows)) * self.unit
            scale = np.maximum(scale, SMALLEST_NOISE * spread)
            noise = np.square(np.where(self.columns.constant, spread, scale))
        return loss / len(rows), noise

    def scored(self, rows: Rows) -> Iterator[Scored]:
        """Yield blocks of rows beside the decoder's outputs for their codes."""
        objective, params, batch = self.open(rows.X.dtype)
        out = np.empty((len(batch.x), self.plan.widths[0]), batch.x.dtype)
        for place, x, weight in self.loaded(rows, batch):
            eta = objective.decode(params, objective.encode(params, batch), batch)
            eta = self.narrow(eta[: len(x)])
            yield Scored(place, x, eta, weight, out[: len(x)])


def blocks(n_rows: int, size: int) -> Iterator[slice]:
    """Yield consecutive places of at most `size` rows."""
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))
