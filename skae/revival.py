"""Dead units begin anew where the reconstruction is worst.

Bricken et al. (2023), "Towards monosemanticity: decomposing language models with
dictionary learning", Transformer Circuits Thread; here for networks of any depth and
any loss.
"""

from __future__ import annotations

import numpy as np

from skae.layout import Array
from skae.objective import Batch, Objective
from skae.optimizers import Moments
from skae.training import Trainer

__all__ = ["resample"]

#: One unit begins anew for so many rows looked at, so that their rows differ.
ROWS_PER_UNIT = 4

#: Length of a new unit's weights in the encoder, beside that of living units: where
#: units compete for firing they start as equals, otherwise quietly.
EQUAL, QUIET = 1.0, 0.2


def resample(trainer: Trainer, moments: Moments, dead: Array) -> None:
    """Give the units where `dead` is true new weights, and forget their past.

    For each unit a row is drawn, in proportion to its weight and the square of its
    loss, counted from the least. The unit's encoder weights point from the mean row
    to it, its decoder weights to what lessens the row's loss most.
    """
    units = np.flatnonzero(dead)
    n_at_once = max(1, trainer.batch_size // ROWS_PER_UNIT)
    with np.errstate(all="ignore"):
        for start in range(0, len(units), n_at_once):
            some = units[start : start + n_at_once]
            batch = looked_at(trainer)
            rows = worst_rows(batch, len(some), trainer.rng)
            plant(trainer, batch, rows, some, living=~dead)
            forget(trainer.objective, moments, some)


def looked_at(trainer: Trainer) -> Batch:
    """Return a random batch with its losses and deltas."""
    index = trainer.rng.permutation(trainer.rows.index)[: trainer.batch_size]
    batch = trainer.encode(index, trainer.mean_weight * len(index))
    own = trainer.objective.meet(trainer.params, batch)
    trainer.objective.decode_phase(trainer.params, own, batch)
    return batch


def worst_rows(batch: Batch, n: int, rng: np.random.Generator) -> Array:
    """Draw rows, those with a large loss more often; no row twice if it can be."""
    loss = batch.misfit[:, 0].astype(np.float64)
    chance = batch.weight * np.square(loss - loss.min())
    if not (np.isfinite(chance.sum()) and chance.sum() > 0):
        chance = np.ones(len(loss))
    again = bool(np.count_nonzero(chance) < n)
    return np.asarray(rng.choice(len(loss), n, replace=again, p=chance / chance.sum()))


def plant(
    trainer: Trainer, batch: Batch, rows: Array, units: Array, living: Array
) -> None:
    """Let units fire at these rows, and lessen their loss."""
    objective, params = trainer.objective, trainer.params
    (weight, bias), directions = params.encoder[-1], params.decoder[0][0]
    n_samples = batch.code.shape[1]
    lessen = -batch.decoder.deltas[0][rows * n_samples]
    like = 1.0 if objective.unit_norm else directions[living]
    directions[units] = scaled(lessen, like)
    outputs = batch.encoder.outputs
    inputs = outputs[-2] if len(outputs) > 1 else batch.x_in
    mean = inputs.mean(axis=0)
    if not objective.decoder.layers[0].weight.transposed:
        share = EQUAL if objective.bottleneck.selects else QUIET
        towards = scaled(inputs[rows] - mean, weight.T[living])
        weight[:, units] = share * towards.T
    bias[units] = -mean @ weight[:, units]
    start = objective.bottleneck.start(objective.n_components)
    params.own[:, units] = start[:, units]


def scaled(vectors: Array, like: Array | float) -> Array:
    """Return vectors of a given length, or of the mean length of others."""
    if not isinstance(like, float):
        lengths = np.linalg.norm(like, axis=1)
        like = float(lengths.mean()) if len(lengths) else 1.0
    lengths = np.linalg.norm(vectors, axis=1)[:, None]
    return np.asarray(vectors * (like / np.where(lengths > 0, lengths, 1.0)))


def forget(objective: Objective, moments: Moments, units: Array) -> None:
    """Set the optimiser's memory of units to zero."""
    for moment in moments.arrays:
        past = objective.of(moment)
        weight, bias = past.encoder[-1]
        weight[:, units] = bias[units] = 0.0
        past.decoder[0][0][units] = 0.0
        past.own[:, units] = 0.0
