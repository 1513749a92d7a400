"""The whole story of an autoencoder: read this module first.

    x -> corrupt -> encode -> bottleneck -> decode -> -log p(x | eta)

What is to be explained is the row itself or, for a classifier or a regressor on top of
an encoder, its label. The levels of a stack are such stories as well, each of one layer
and its mirror image; see `stacking`.

A step has three phases. `encode_phase` and `decode_phase` split by rows of the batch,
`weight_phase` by rows of the weights; rows meet between the first two only, in `meet`,
or before them, if a corruption wants it.

Five conventions hold everywhere.

1. Everything is nats per row: sums over features, weighted means over rows. Weights
   are divided by what as many rows weigh on average; there is no other normalisation.
2. The decoder's output `eta` is unconstrained; the distribution gives it its meaning,
   with `shared`, its parameters that are the same for all rows: log-scales, say.
3. Gradients add, or start afresh; deltas are overwritten.
4. Randomness comes first: once a batch is drawn, the objective is a deterministic
   function of the parameters, and every gradient can be checked.
5. The units of a code may keep numbers of their `own`: thresholds, say, or the rows
   since a unit has fired. Some have a gradient, the others follow from the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from skae.blas import add_scaled
from skae.bottlenecks import Bottleneck
from skae.corruptions import Bounds, Corruption
from skae.distributions import Distribution
from skae.layout import Array, Part, Slot, pieces, runs, share
from skae.network import Chain, Dense, Tape, Views

__all__ = ["Batch", "Loss", "Objective", "Parameters"]


class Parameters(NamedTuple):
    """The views of one flat vector: parameters, or their gradient.

    Attributes
    ----------
    weights : list of ndarray
        The weights that are trained, or a share of them, as the runs of the vector that
        hold them; they are also those of `encoder` and `decoder`. No biases.
    encoder, decoder : list of tuple of ndarray
        Weights and bias of each layer.
    shared : ndarray of shape (n_shared,)
        The distribution's parameters that no code changes.
    own : ndarray of shape (n_own, n_components)
        The numbers that the units of the code keep; those with a gradient come first.
    """

    weights: list[Array]
    encoder: Views
    decoder: Views
    shared: Array
    own: Array


class Loss(NamedTuple):
    """Means over rows, in nats: what is minimised, and the parts that it comes from.

    Attributes
    ----------
    total : float
        The objective; the penalty on weights is not included.
    reconstruction : float
        The mean of ``-log p(x | z)`` over draws, auxiliary ones aside.
    cost : float
        What the code costs, before it is multiplied by ``beta``.
    """

    total: float
    reconstruction: float
    cost: float


@dataclass
class Batch:
    """The memory for one batch: rows, draws, activations, deltas and losses.

    Where the code is the encoder's output itself, `code`, `d_code`, `total`, `loss` and
    `share` are memory of the encoder, of `misfit` and of `weight`; `cost` stays zero.

    Attributes
    ----------
    x : ndarray of shape (n_rows, n_features)
        Clean rows.
    x_in : ndarray of shape (n_rows, n_features)
        What the encoder sees: corrupted or otherwise changed rows, or `x` itself.
    target : ndarray of shape (n_rows, n_targets)
        What the decoder's output has to explain: `x` itself, unless rows are labelled.
    weight : ndarray of shape (n_rows,)
        Row weights; over a batch they sum to one, on average.
    damage, noise : ndarray of shape (n_rows, ...)
        The corruption's and the bottleneck's draws. A corruption in which rows meet
        may have any.
    code, d_code : ndarray of shape (n_rows, n_samples, n_components)
        Codes, and the loss's derivative with respect to them.
    encoder, decoder : Tape
        Activations and deltas; the decoder's have ``n_rows * n_samples`` rows.
    d_shared : ndarray of shape (n_rows, n_samples, n_shared)
        Its derivative with respect to the shared parameters, where they are learned.
    d_own : ndarray of shape (n_rows, n_learned, n_components)
        The loss's derivative with respect to what the code's units learn of their own.
    misfit, cost : ndarray of shape (n_rows, n_samples)
        ``-log p(target | z)``, summed over columns, and what the code costs.
    total : ndarray of shape (n_rows, n_samples)
        ``misfit + beta * cost``.
    share : ndarray of shape (n_rows, n_samples)
        Weight of each draw: the row's weight, divided among its draws.
    loss : ndarray of shape (n_rows,)
        Loss per row, in nats.
    """

    x: Array
    x_in: Array
    target: Array
    weight: Array
    damage: Any
    noise: Array
    code: Array
    d_code: Array
    encoder: Tape
    decoder: Tape
    d_shared: Array
    d_own: Array
    misfit: Array
    cost: Array
    total: Array
    share: Array
    loss: Array

    def rows(self, start: int, stop: int) -> Batch:
        """Return rows `start` to `stop` of the same memory.

        A short last batch is the first rows of a batch; a thread's share is any rows.
        """
        n_samples = self.code.shape[1]
        cut: dict[str, Any] = {
            name: value[start:stop]
            for name, value in vars(self).items()
            if isinstance(value, np.ndarray)
        }
        cut["encoder"] = self.encoder.rows(start, stop)
        cut["decoder"] = self.decoder.rows(start * n_samples, stop * n_samples)
        return Batch(**(vars(self) | cut))


@dataclass(frozen=True)
class Objective:
    """What is minimised: ``mean(nll + beta * cost) + alpha / 2 * sum(weights ** 2)``.

    Attributes
    ----------
    encoder, bottleneck, decoder, distribution, corruption : object
        The five parts.
    corruption_level : float
        How much the input is damaged.
    shared, own : Slot
        The distribution's parameters that no code changes, and the numbers that the
        bottleneck keeps for each unit of the code.
    alpha, beta : float
        Weights of the L2 penalty and of what the code costs.
    learns_shared : bool
        Whether the shared parameters have a gradient.
    unit_norm : bool
        Whether the decoder's direction for each unit of the code has length one.
    n_targets : int or None
        Columns of what is to be explained, if that is not the row itself.
    is_frozen : bool
        Whether the encoder stays as it is.
    """

    encoder: Chain
    bottleneck: Bottleneck
    decoder: Chain
    distribution: Distribution
    corruption: Corruption
    corruption_level: float
    shared: Slot
    own: Slot
    alpha: float = 0.0
    beta: float = 1.0
    learns_shared: bool = False
    unit_norm: bool = False
    n_targets: int | None = None
    is_frozen: bool = False

    @property
    def n_components(self) -> int:
        """Number of units of the code."""
        return self.decoder.layers[0].widths[0]

    @property
    def n_features(self) -> int:
        """Number of columns of the data."""
        return self.encoder.layers[0].widths[0]

    @property
    def is_random(self) -> bool:
        """Whether two evaluations at the same parameters may differ."""
        return self.corruption_level > 0 or self.bottleneck.is_random

    @property
    def changes_inputs(self) -> bool:
        """Whether the encoder sees anything else than the clean row."""
        return self.corruption_level > 0 or self.distribution.changes_inputs

    @property
    def trained(self) -> tuple[Dense, ...]:
        """The layers that are trained."""
        encoder = () if self.is_frozen else self.encoder.layers
        return (*encoder, *self.decoder.layers)

    @property
    def rows_meet(self) -> bool:
        """Whether what becomes of a row depends on its batch."""
        damaged = self.corruption_level > 0
        return self.bottleneck.rows_meet or (damaged and self.corruption.rows_meet)

    @property
    def n_slopes(self) -> int:
        """Number of shared parameters that have a gradient."""
        return self.shared.size if self.learns_shared else 0

    @property
    def slots(self) -> list[Slot]:
        """Everything that has a gradient."""
        slots = [slot for layer in self.trained for slot in (layer.weight, layer.bias)]
        if self.n_slopes:
            slots.append(self.shared)
        learned = self.bottleneck.n_learned * self.n_components
        return [*slots, Slot(self.own.start, (learned,))]

    def rows(self, part: Part = (0, 1)) -> dict[int, slice]:
        """Return the rows of everything that has a gradient, or a share of them.

        Keys are the places where slots start.
        """
        return pieces(self.slots, part)

    def weights(self, part: Part = (0, 1)) -> list[slice]:
        """Return where the weights are that are trained, or a share of them."""
        rows, weights = self.rows(part), [layer.weight for layer in self.trained]
        return runs(slot.rows(rows[slot.start]) for slot in weights)

    def places(self, part: Part = (0, 1)) -> list[slice]:
        """Return where everything is that has a gradient, or a share of it."""
        rows, slots = self.rows(part), [slot for slot in self.slots if slot.size]
        return runs(slot.rows(rows[slot.start]) for slot in slots)

    def of(self, flat: Array, part: Part = (0, 1)) -> Parameters:
        """Return `flat` seen as parameters; of the list of weights, maybe a share."""
        return Parameters(
            [flat[place] for place in self.weights(part)],
            self.encoder.of(flat),
            self.decoder.of(flat),
            self.shared.of(flat),
            self.own.of(flat),
        )

    def batch(self, n_rows: int, dtype: np.dtype[Any]) -> Batch:
        """Allocate the memory for batches of up to `n_rows` rows."""
        n_samples, k = self.bottleneck.n_samples, self.n_components
        x = np.empty((n_rows, self.n_features), dtype)
        target = (
            x if self.n_targets is None else np.empty((n_rows, self.n_targets), dtype)
        )
        encoder = Tape.empty(self.encoder, n_rows, dtype)
        weight = np.empty(n_rows, dtype)
        misfit, cost = np.zeros((2, n_rows, n_samples), dtype)
        if self.bottleneck.is_plain:
            code, d_code = encoder.outputs[-1][:, None], encoder.deltas[-1][:, None]
            total, loss, of_draw = misfit, misfit[:, 0], weight[:, None]
        else:
            code, d_code = np.empty((2, n_rows, n_samples, k), dtype)
            total, of_draw = np.empty((2, n_rows, n_samples), dtype)
            loss = np.empty(n_rows, dtype)
        return Batch(
            x=x,
            x_in=np.empty_like(x) if self.changes_inputs else x,
            target=target,
            weight=weight,
            damage=np.empty((n_rows, 0), dtype),
            noise=np.empty((n_rows, 0), dtype),
            code=code,
            d_code=d_code,
            encoder=encoder,
            decoder=Tape.empty(self.decoder, n_rows * n_samples, dtype),
            d_shared=np.empty((n_rows, n_samples, self.n_slopes), dtype),
            d_own=np.empty((n_rows, self.bottleneck.n_learned, k), dtype),
            misfit=misfit,
            cost=cost,
            total=total,
            share=of_draw,
            loss=loss,
        )

    def draw(self, batch: Batch, rng: np.random.Generator) -> None:
        """Draw all the randomness of one evaluation."""
        if self.corruption_level > 0:
            shape, level = batch.x.shape, self.corruption_level
            batch.damage = self.corruption.draw(shape, level, rng)
        if self.bottleneck.is_random:
            dtype = batch.code.dtype
            batch.noise = self.bottleneck.draw(batch.code.shape, dtype, rng)

    def see(self, batch: Batch, bounds: Bounds) -> None:
        """Write what the encoder sees of the rows in ``batch.x``.

        `bounds` are the smallest and largest inputs that the encoder may see.
        """
        if self.changes_inputs:
            self.distribution.inputs(batch.x, batch.x_in)
        if self.corruption_level > 0:
            level = self.corruption_level
            self.corruption.corrupt(batch.x_in, batch.damage, level, bounds)

    def encode_phase(self, params: Parameters, batch: Batch) -> None:
        """Find the encoder's outputs; any rows will do."""
        self.encoder.forward(params.encoder, batch.x_in, batch.encoder)

    def meet(self, params: Parameters, batch: Batch) -> Array:
        """Return the units' own numbers for this batch: the only place rows meet."""
        h = batch.encoder.outputs[-1]
        return self.bottleneck.meet(h, batch.weight, params.own)

    def decode_phase(self, params: Parameters, own: Array, batch: Batch) -> None:
        """Find every loss and every delta; rows do not meet, so any rows will do."""
        eta = self.decode(params, own, batch)
        d_eta = batch.decoder.deltas[-1].reshape(eta.shape)
        d_shared = batch.d_shared if self.n_slopes else None
        target = batch.target[:, None]
        self.distribution.misfit(
            target, eta, params.shared, batch.misfit, d_eta, d_shared
        )
        if not self.bottleneck.is_plain:
            np.multiply(batch.cost, self.beta, out=batch.total)
            batch.total += batch.misfit
            self.bottleneck.combine(batch.total, batch.loss, batch.share)
            batch.share *= batch.weight[:, None]
        d_eta *= batch.share[:, :, None]
        self.backward(params, own, batch)

    def backward(self, params: Parameters, own: Array, batch: Batch) -> None:
        """Find all deltas, given those of the decoder's output."""
        if self.is_frozen:
            self.decoder.backward(params.decoder, batch.decoder)
            return
        d_z = batch.d_code.reshape(-1, self.n_components)
        self.decoder.backward(params.decoder, batch.decoder, d_z)
        if not self.bottleneck.is_plain:
            self.bend(own, batch)
        self.encoder.backward(params.encoder, batch.encoder)

    def bend(self, own: Array, batch: Batch) -> None:
        """Find the delta of the encoder's output, given that of the code."""
        self.bottleneck.backward(
            batch.encoder.outputs[-1],
            batch.noise,
            own,
            batch.code,
            batch.d_code,
            self.beta * batch.share,
            batch.encoder.deltas[-1],
            batch.d_own,
        )
        shape = *batch.share.shape, -1
        deltas = [delta.reshape(shape) for delta in batch.decoder.deltas]
        self.bottleneck.withhold(batch.code, [*deltas, batch.share])

    def decode(self, params: Parameters, own: Array, batch: Batch) -> Array:
        """Return `eta`, of shape (n_rows, n_samples, n_outputs)."""
        if not self.bottleneck.is_plain:
            h = batch.encoder.outputs[-1]
            self.bottleneck.forward(h, batch.noise, own, batch.code, batch.cost)
        n_rows, n_samples, n_components = batch.code.shape
        z = batch.code.reshape(n_rows * n_samples, n_components)
        eta = self.decoder.forward(params.decoder, z, batch.decoder)
        return eta.reshape(n_rows, n_samples, -1)

    def weight_phase(
        self,
        batch: Batch,
        grads: Parameters,
        rows: dict[int, slice] | None = None,
        fresh: bool = False,
    ) -> None:
        """Add the gradient, given all deltas; shares of it are independent.

        `rows` are what `rows` returns for a share. If `fresh`, what was there before
        does not count; a decoder with tied weights needs the encoder's gradient then.
        """
        rows = self.rows() if rows is None else rows
        z, x = batch.code.reshape(-1, self.n_components), batch.x_in
        how = rows, fresh
        if not self.is_frozen:
            self.encoder.gradients(grads.encoder, x, batch.encoder, *how)
        self.decoder.gradients(grads.decoder, z, batch.decoder, *how)
        if self.n_slopes:
            place = rows[self.shared.start]
            d_shared = batch.d_shared.reshape(batch.share.size, -1)[:, place]
            slope = batch.share.ravel() @ d_shared
            grads.shared[place] = slope if fresh else grads.shared[place] + slope
        if self.bottleneck.n_learned:
            place = rows[self.own.start]
            slope = batch.d_own.reshape(len(batch.x), -1)[:, place].sum(axis=0)
            learned = grads.own.reshape(-1)[place]
            learned[...] = slope if fresh else learned + slope

    def decay(self, params: Parameters, grads: Parameters) -> float:
        """Add the gradient of the penalty on weights; return its value."""
        if self.alpha == 0:
            return 0.0
        square = 0.0
        for weights, slope in zip(params.weights, grads.weights, strict=True):
            add_scaled(slope, self.alpha, weights)
            square += float(weights @ weights)
        return 0.5 * self.alpha * square

    def constrain(
        self, params: Parameters, grads: Parameters, part: Part = (0, 1)
    ) -> None:
        """Take out of the gradient what would change the length of directions."""
        if self.unit_norm:
            some = share(self.n_components, part)
            directions, slope = params.decoder[0][0][some], grads.decoder[0][0][some]
            slope -= np.einsum("ij,ij->i", directions, slope)[:, None] * directions

    def restore(self, params: Parameters, part: Part = (0, 1)) -> None:
        """Give the directions of the decoder length one again; zero ones stay."""
        if self.unit_norm:
            directions = params.decoder[0][0][share(self.n_components, part)]
            length = np.sqrt(np.einsum("ij,ij->i", directions, directions))
            directions /= np.where(length > 0, length, 1.0)[:, None]

    def loss_and_gradient(
        self,
        params: Parameters,
        own: Array,
        batch: Batch,
        grads: Parameters,
    ) -> Loss:
        """Return the loss of an encoded batch, penalty on weights aside.

        Its gradient is added. `own` is what the rows have met in.
        """
        self.decode_phase(params, own, batch)
        self.weight_phase(batch, grads)
        return self.loss(batch)

    def loss(self, batch: Batch) -> Loss:
        """Return the means over the rows of a batch that has been evaluated."""
        if self.bottleneck.is_plain:
            loss = float(batch.weight @ batch.loss)
            return Loss(loss, loss, 0.0)
        n = batch.misfit.shape[1] - self.bottleneck.n_auxiliary
        misfit, cost = (batch.weight @ a for a in (batch.misfit, batch.cost))
        total, mean = batch.weight @ batch.loss, 1.0 / n
        return Loss(float(total), *(float(a[:n].sum() * mean) for a in (misfit, cost)))
