"""Deep networks learn level by level, and then for a purpose.

A level is one layer of the encoder with the layer of the decoder that mirrors it: an
autoencoder of the clean code below. A task puts a layer for labels in the decoder's
place. Both are objectives like any other, on the one vector of parameters: nothing is
copied, and parameters that an objective does not name stay as they are, to the last
bit.

Bengio, Lamblin, Popovici & Larochelle (2007), "Greedy layer-wise training of deep
networks", NIPS. Vincent, Larochelle, Lajoie, Bengio & Manzagol (2010), "Stacked
denoising autoencoders", JMLR 11.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from skae.corruptions import Corruption
from skae.distributions import Bernoulli, Distribution, SquaredError
from skae.layout import Array, Slot
from skae.model import Model
from skae.network import Chain, Dense, Tape
from skae.objective import Objective
from skae.rows import Rows
from skae.training import Trainer

__all__ = [
    "Codes",
    "LabelledRows",
    "head_outputs",
    "level_trainer",
    "levels",
    "task",
    "task_trainer",
]

#: Codes of the layers below are kept while a level trains if they take no more bytes.
MOST_KEPT = 2**28

#: The place and the limits of shared parameters where there are none.
NOTHING = Slot(0, (0,))
NO_LIMITS = np.empty(0), np.empty(0)


def levels(objective: Objective) -> list[Objective]:
    """Return an autoencoder of one layer for each layer of the encoder.

    The first describes the data. The others describe the code below: logistic units by
    their cross-entropy, all others by the squared error of the decoder's activation.
    """
    layers = objective.encoder.layers, reversed(objective.decoder.layers)
    each = []
    for k, (into, back) in enumerate(zip(*layers, strict=True)):
        parts: dict[str, Any] = {"own": Slot(0, (0, into.widths[1]))}
        if k > 0:
            parts |= {"shared": NOTHING, "distribution": SquaredError()}
            if back.activation == "logistic":
                parts["distribution"] = Bernoulli()
                back = replace(back, activation="identity")
        chains = Chain((into,)), Chain((back,))
        each.append(replace(objective, encoder=chains[0], decoder=chains[1], **parts))
    return each


class Codes(Rows):
    """Clean codes of rows, found batch by batch by the first layers of an encoder.

    Parameters
    ----------
    rows : Rows
        The rows, in the network's units.
    family : Distribution
        What the rows come from; it knows what the encoder sees of them.
    below : Chain
        The layers.
    theta : ndarray
        The vector that holds their parameters.
    n_rows : int
        The most rows that are asked for at once.
    """

    def __init__(
        self, rows: Rows, family: Distribution, below: Chain, theta: Array, n_rows: int
    ) -> None:
        super().__init__(rows.X, rows.index, rows.weight, rows.center, rows.unit)
        self.family, self.below, self.views = family, below, below.of(theta)
        self.buffer = np.empty((n_rows, rows.X.shape[1]), theta.dtype)
        self.tape = Tape.empty(below, n_rows, theta.dtype, forward_only=True)

    def share(self, place: slice) -> Rows:
        """Return the same with a part of the memory."""
        mine = copy(self)
        mine.buffer = self.buffer[place]
        mine.tape = self.tape.rows(place.start, place.stop)
        return mine

    def load(self, index: Array, x: Array, weight: Array, total: float) -> None:
        """Write the codes to `x`, and weights divided by `total` to `weight`."""
        inputs = self.buffer[: len(index)]
        super().load(index, inputs, weight, total)
        self.family.inputs(inputs, inputs)
        x[...] = self.below.forward(self.views, inputs, self.tape.rows(0, len(index)))

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Yield all codes, in one buffer, and their places among the rows."""
        n_rows, width = len(self.buffer), self.below.layers[-1].widths[1]
        out, weight = np.empty((n_rows, width), self.buffer.dtype), np.empty(n_rows)
        for start in range(0, len(self), n_rows):
            index = self.index[start : start + n_rows]
            self.load(index, out[: len(index)], weight[: len(index)], 1.0)
            yield slice(start, start + len(index)), out[: len(index)]

    def bounds(self) -> tuple[Array, Array]:
        """Return the smallest and the largest output of each unit."""
        low = np.full(self.below.layers[-1].widths[1], np.inf, self.buffer.dtype)
        high = -low
        for _, code in self.blocks():
            np.minimum(low, code.min(axis=0), out=low)
            np.maximum(high, code.max(axis=0), out=high)
        return low, high

    def kept(self) -> Rows:
        """Return the same codes, found once and for all."""
        width = self.below.layers[-1].widths[1]
        codes = np.empty((len(self), width), self.buffer.dtype)
        for place, code in self.blocks():
            codes[place] = code
        weight = None if self.weight is None else self.weight[self.index]
        return Rows(codes, np.arange(len(codes)), weight)


def level_trainer(trainer: Trainer, level: Objective, k: int) -> Trainer:
    """Return what trains level `k`, counted from zero, of what `trainer` trains."""
    if k == 0:
        return trainer.turned_to(level, trainer.rows)
    whole = trainer.objective
    below = Chain(whole.encoder.layers[:k])
    codes = Codes(
        trainer.rows, whole.distribution, below, trainer.theta, trainer.batch_size
    )
    rows: Rows = codes
    if len(codes) * level.n_features * trainer.theta.itemsize <= MOST_KEPT:
        rows = codes.kept()
        bounds = rows.X.min(axis=0), rows.X.max(axis=0)
    else:
        bounds = codes.bounds()
    return trainer.turned_to(level, rows, bounds=bounds, limits=NO_LIMITS)


class LabelledRows(Rows):
    """Rows as an encoder sees them, with what is to be predicted for each.

    Parameters
    ----------
    rows : Rows
        The rows, in the network's units.
    family : Distribution
        What the rows come from; it knows what the encoder sees of them.
    table : ndarray of shape (n_distinct, n_targets)
        Targets.
    place : ndarray of shape (n_samples,)
        Where in the table the target of each row of X is.
    """

    def __init__(
        self, rows: Rows, family: Distribution, table: Array, place: Array
    ) -> None:
        super().__init__(rows.X, rows.index, rows.weight, rows.center, rows.unit)
        self.family, self.table, self.place = family, table, place

    def load(self, index: Array, x: Array, weight: Array, total: float) -> None:
        """Write the rows to `x`, and their weights divided by `total` to `weight`."""
        super().load(index, x, weight, total)
        self.family.inputs(x, x)

    def load_target(self, index: Array, target: Array) -> None:
        """Write the targets."""
        np.take(self.table, self.place[index], axis=0, out=target, mode="clip")


def task(
    objective: Objective,
    head: Dense,
    family: Distribution,
    corruption: tuple[Corruption, float],
    is_frozen: bool = False,
) -> Objective:
    """Return the objective of predicting targets by one layer on top of the code.

    Rows are damaged by `corruption`, at its level. The decoder has no part in it.
    """
    return replace(
        objective,
        decoder=Chain((head,)),
        distribution=family,
        corruption=corruption[0],
        corruption_level=corruption[1],
        shared=NOTHING,
        n_targets=head.widths[1],
        is_frozen=is_frozen,
    )


def task_trainer(
    trainer: Trainer, objective: Objective, rows: LabelledRows, batch_size: int
) -> Trainer:
    """Return what trains a task, of what `trainer` trains."""
    return trainer.turned_to(objective, rows, limits=NO_LIMITS, batch_size=batch_size)


def head_outputs(
    model: Model, head: Dense, rows: Rows
) -> Iterator[tuple[slice, Array, Array]]:
    """Yield blocks of rows: their place, weights, and the outputs of a layer on top."""
    layer = model.ready(Chain((head,)), rows.X.dtype, model.n_rows_at_once())
    for place, weight, code in model.codes(rows):
        yield place, weight, layer(code)
