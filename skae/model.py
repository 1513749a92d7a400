"""A network with its numbers: encodes, decodes and scores rows.

Rows are visited in blocks of one and the same size, the last one filled up with zeros.
A product of matrices of one shape treats each of its rows alike, so that a row's
result does not depend, to the last bit, on the rows that come with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from skae.bottlenecks import Bottleneck
from skae.component import resolve
from skae.corruptions import Corruption, NoCorruption
from skae.distributions import DISTRIBUTIONS, Distribution
from skae.layout import Array, Layout, Slot
from skae.network import encoder_decoder, initialize
from skae.objective import Batch, Objective, Parameters
from skae.rows import Columns, Rows

__all__ = ["Model", "Plan"]

#: Rows in a block: enough for an efficient product, few enough for the cache.
BLOCK = 128


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
        return self.objective.distribution.start(mean[0], self.columns.size)

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
        """Return structure, parameters and memory to compute in `dtype`."""
        objective = self.objective
        params = objective.of(self.theta.astype(dtype, copy=False))
        return objective, params, objective.batch(BLOCK, dtype)

    def rows(
        self, X: Any, index: Array | None = None, weight: Array | None = None
    ) -> Rows:
        """Return rows of X as this network wants to see them."""
        if not self.plan.standardize:
            return Rows(X, index, weight)
        return Rows(X, index, weight, self.columns.mean, self.columns.unit)

    # --- codes and reconstructions --------------------------------------------

    def encode(self, X: Any) -> Array:
        """Return the code of each row."""
        rows, (objective, params, batch) = self.rows(X), self.open(X.dtype)
        out = np.empty((len(rows), objective.n_components), X.dtype)
        for place in blocks(len(rows)):
            n = load_block(rows, place, batch.x, batch.weight)
            out[place] = objective.encode(params, batch)[:n]
        return out

    def decode(self, z: Array) -> Array:
        """Return the mean of p(x | code) for each code, in the units of X."""
        objective, params, batch = self.open(z.dtype)
        padded = np.zeros((BLOCK, objective.n_components), z.dtype)
        out = np.empty((len(z), objective.n_features), z.dtype)
        for place in blocks(len(z)):
            n = place.stop - place.start
            padded[:n], padded[n:] = z[place], 0.0
            eta = objective.decode(params, padded, batch)[:n]
            out[place] = objective.distribution.mean(eta)
        self.rows(out).restore(out)
        return out

    # --- likelihoods ----------------------------------------------------------

    def log_likelihood(self, X: Any) -> Iterator[tuple[slice, Array]]:
        """Yield ``log p(x | own code)`` of every entry, in nats and the units of X."""
        distribution, unit = self.objective.distribution, self.unit
        scale = np.ones_like(unit)
        if self.noise_variance is not None:
            scale = np.sqrt(self.noise_variance) / unit
        scale, log_unit = scale.astype(X.dtype), np.log(unit).astype(X.dtype)
        for block in self.scored(self.rows(X)):
            with np.errstate(over="ignore"):
                distribution.nll(block.x, block.eta, scale, block.out)
            np.negative(block.out, out=block.out)
            np.subtract(block.out, log_unit, out=block.out)
            yield block.place, block.out

    def mean_loss(self, rows: Rows, of_means: bool = False) -> float:
        """Return the training loss of clean rows, in nats per row, penalty aside.

        With ``of_means=True``, that of reconstructing every row as the columns' means.
        """
        loss, distribution = 0.0, self.objective.distribution
        constant = self.eta_of_means()
        with np.errstate(all="ignore"):
            for block in self.scored(rows):
                eta = constant if of_means else block.eta
                distribution.nll(block.x, eta, 1.0, block.out)
                loss += float(block.weight @ block.out.sum(axis=1))
        return loss / rows.total(rows.index)

    def estimate_noise(self, rows: Rows) -> Array | None:
        """Return squared noise scales from residuals, in squared units of X.

        One row more is imagined whose every residual is a unit of its column, so that
        no column is trusted further than the number of rows can support. The noise of
        a constant column is its unit: it can neither divide by zero nor dominate.
        """
        distribution, spread = self.objective.distribution, self.columns.unit
        if not distribution.has_scale:
            return None
        deviation = np.zeros_like(spread)
        for block in self.scored(rows):
            distribution.deviation(block.x, block.eta, block.out)
            deviation += block.weight @ block.out
        deviation /= rows.total(rows.index)
        imagined, size = np.empty_like(spread), self.columns.size
        distribution.deviation(spread / self.unit, np.zeros_like(spread), imagined)
        deviation += (imagined - deviation) / (size + 1.0)
        scale = distribution.scale(deviation) * self.unit
        return np.square(np.where(self.columns.constant, spread, scale))

    def scored(self, rows: Rows) -> Iterator[Scored]:
        """Yield blocks of rows beside the decoder's outputs for their codes."""
        objective, params, batch = self.open(rows.X.dtype)
        out = np.empty_like(batch.x)
        for place in blocks(len(rows)):
            n = load_block(rows, place, batch.x, batch.weight)
            eta = objective.decode(params, objective.encode(params, batch), batch)
            yield Scored(place, batch.x[:n], eta[:n], batch.weight[:n], out[:n])


def blocks(n_rows: int) -> Iterator[slice]:
    """Yield consecutive places of at most `BLOCK` rows."""
    for start in range(0, n_rows, BLOCK):
        yield slice(start, min(start + BLOCK, n_rows))


def load_block(rows: Rows, place: slice, x: Array, weight: Array) -> int:
    """Fill `x` with rows and then zeros; return the number of rows."""
    n = place.stop - place.start
    rows.load(rows.index[place], x[:n], weight[:n], 1.0)
    x[n:] = 0.0
    return int(n)
