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

#: One unit begins anew for so many rows, at most, so that their rows differ.
ROWS_PER_UNIT = 4


def resample(trainer: Trainer, moments: Moments, dead: Array) -> None:
    """Give the units where `dead` is true new weights, and forget their past.

    For each unit a row is drawn, in proportion to its weight and the square of its
    loss, counted from the least. The unit's encoder weights point from the mean row
    to it, its decoder weights to what lessens the row's loss most. It fires in as many
    rows as other units do, on average, and takes back its row's error, unless that
    would need larger weights than others have. Of very many dead units some have to
    wait for the next time.
    """
    units = trainer.rng.permutation(np.flatnonzero(dead))
    units = units[: max(1, len(trainer.rows) // ROWS_PER_UNIT)]
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
    return trainer.explain(index, trainer.mean_weight * len(index))


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
    deltas = batch.decoder.deltas[0][:: batch.code.shape[1]]
    error = -deltas[rows] / batch.share[rows, :1]
    size = np.linalg.norm(error, axis=1)
    length = 1.0 if objective.unit_norm else mean_length(directions[living])
    lessens = length * unit_vectors(error)
    # Where there is no error, the unit keeps its direction.
    directions[units] = np.where(size[:, None] > 0, lessens, directions[units])
    tied = objective.decoder.layers[0].weight.transposed
    outputs = batch.encoder.outputs
    inputs = outputs[-2] if len(outputs) > 1 else batch.x_in
    towards = directions[units] if tied else unit_vectors(inputs[rows] - inputs.mean(0))
    reach = inputs @ towards.T
    at_rows = reach[rows, np.arange(len(units))]
    floor = firing_floor(reach, at_rows, np.mean(batch.code[:, 0] != 0))
    if not tied:
        gap = length * (at_rows - floor)
        gain = np.divide(size, gap, out=np.zeros_like(size), where=gap > 0)
        gain = np.minimum(gain, mean_length(weight.T[living]))
        weight[:, units] = towards.T * gain
        floor = floor * gain
    bias[units] = -floor
    start = objective.bottleneck.start(objective.n_components)
    params.own[:, units] = start[:, units]


def firing_floor(reach: Array, at_rows: Array, density: float) -> Array:
    """Return above what each unit shall fire: where few rows reach, but its own does.

    `reach` has shape (n_rows, n_units); a fraction `density` of the rows shall fire.
    """
    middle = reach.mean(axis=0)
    few = np.quantile(reach, 1.0 - density, axis=0)
    return np.asarray(np.minimum(few, 0.5 * (middle + at_rows)), reach.dtype)


def mean_length(vectors: Array) -> float:
    """Return the mean length of vectors, or one if there are none."""
    return float(np.linalg.norm(vectors, axis=1).mean()) if len(vectors) else 1.0


def unit_vectors(vectors: Array) -> Array:
    """Divide vectors by their lengths; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0))


def forget(objective: Objective, moments: Moments, units: Array) -> None:
    """Set the optimiser's memory of units to zero."""
    for moment in moments.arrays:
        past = objective.of(moment)
        weight, bias = past.encoder[-1]
        weight[:, units] = bias[units] = 0.0
        past.decoder[0][0][units] = 0.0
        past.own[:, units] = 0.0
