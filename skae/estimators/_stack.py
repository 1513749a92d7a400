"""What all stacks share: pretraining, level by level."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.random import Generator

from skae._validation import (
    NON_NEGATIVE,
    OPEN_FRACTION,
    POSITIVE,
    Interval,
    StrOptions,
    check_sizes,
    validate_parameters,
)
from skae.activations import ACTIVATIONS
from skae.bottlenecks import Bottleneck, Deterministic, SparseCode
from skae.component import resolve
from skae.corruptions import CORRUPTIONS, Corruption
from skae.estimators._base import (
    BaseAutoencoder,
    check_differentiable,
    checked_corruption,
)
from skae.estimators._trained import LOST, random_objective
from skae.estimators._watch import FitWatch
from skae.layout import Layout, Slot
from skae.model import Model, Plan
from skae.network import Chain, Dense
from skae.objective import Objective
from skae.optimizers import Moments
from skae.penalties import PENALTIES, Penalty
from skae.rows import Columns, Rows
from skae.stacking import level_trainer, levels
from skae.training import DivergenceError, Monitor, Trainer

__all__ = ["FINE_TUNING", "BaseStack"]

#: The stage of a fit that follows the levels.
FINE_TUNING = "fine-tuning"

EPOCHS = Interval(Integral, 0, None, closed="left")


def unchanged(*_: Any) -> bool:
    """Leave everything as it is before an epoch."""
    return False


class BaseStack(BaseAutoencoder):
    """Common ground of the stacks.

    Their vector of parameters is longer than that of other autoencoders: at its end are
    the weights of a layer on top, if there is one, and the numbers that a penalty keeps
    for the units of the first level.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseAutoencoder._parameter_constraints,
        "code_activation": [StrOptions({"auto", *ACTIVATIONS})],
        "tied_weights": ["boolean"],
        "corruption": [StrOptions(set(CORRUPTIONS)), Corruption],
        "corruption_level": [NON_NEGATIVE, "array-like"],
        "penalty": [StrOptions(set(PENALTIES)), Penalty, None],
        "sparsity_target": [OPEN_FRACTION],
        "sparsity_weight": [NON_NEGATIVE],
        "pretraining_max_iter": [EPOCHS, "array-like"],
        "pretraining_learning_rate_init": [POSITIVE, "array-like"],
    }

    _stage = FINE_TUNING
    loss_curve_: dict[str, list[float]]

    def _bottleneck(self) -> Bottleneck:
        return Deterministic()

    @abstractmethod
    def _head(self, model: Model) -> Dense | None:
        """Return the layer on top of the code, if there is one."""

    # --- one value for each level -----------------------------------------------------

    def _each(self, name: str, kind: Interval) -> list[Any]:
        """Return a parameter's value for each level."""
        value = getattr(self, name)
        n_levels = len(check_sizes(self.hidden_layer_sizes, "hidden_layer_sizes")) + 1
        listed = np.iterable(value) and not isinstance(value, (dict, set))
        each = list(value) if listed else [value] * n_levels
        if len(each) != n_levels:
            raise ValueError(
                f"{name}={value!r} has {len(each)} values, but there are {n_levels} "
                f"levels: one for each of hidden_layer_sizes="
                f"{self.hidden_layer_sizes!r}, and the code's."
            )
        for one in each:
            if isinstance(one, bool) or not kind.is_satisfied_by(one):
                raise ValueError(f"{name}={value!r} must hold {kind}, got {one!r}.")
        return each

    def _epochs(self) -> list[int]:
        """Return the largest number of epochs for each level."""
        return self._each("pretraining_max_iter", EPOCHS)

    def _corruptions(self) -> list[tuple[Corruption, float]]:
        """Return the damage done to the input of each level."""
        each = self._each("corruption_level", NON_NEGATIVE)
        return [checked_corruption(self.corruption, level) for level in each]

    def _corruption(self) -> tuple[Corruption, float]:
        return self._corruptions()[0]

    def _is_certain(self) -> bool:
        return all(level == 0 for _, level in self._corruptions())

    # --- from parameters to structure -------------------------------------------------

    def _new_plan(self, n_features: int, family: Any) -> Plan:
        plan, epochs = super()._new_plan(n_features, family), self._epochs()
        self._each("pretraining_learning_rate_init", POSITIVE)
        if self.penalty is not None:
            self._check_penalty(plan.down[1], plan.activations[0][0])
        if self.solver == "lbfgs":
            pairs = zip(epochs, self._corruptions(), strict=True)
            if any(n > 0 and level > 0 for n, (_, level) in pairs):
                raise random_objective()
        return plan

    def _check_penalty(self, width: int, activation: str) -> None:
        """Refuse a penalty that the first level cannot have."""
        penalty = self._penalty(width)
        self._sparse_activation(activation)
        if getattr(penalty, "k", 0) > width:
            raise ValueError(
                f"penalty={self.penalty!r} lets more units fire than the first level "
                f"has: k must be at most {width}."
            )
        if self.solver == "lbfgs":
            check_differentiable(penalty, self.penalty)

    def _penalty(self, width: int) -> Penalty:
        """Return what makes the first level's code sparse."""
        settings = {
            "sparsity_target": self.sparsity_target,
            "k": max(1, round(self.sparsity_target * width)),
        }
        penalty: Penalty = resolve(self.penalty, PENALTIES, **settings)
        validate_parameters(penalty)
        return penalty

    def _sparse_activation(self, activation: str) -> str:
        """Return the first level's activation while it learns under the penalty.

        Gates and thresholds stand for the rectifier of the network.
        """
        kind = self._penalty(1)
        if activation in kind.activations:
            return activation
        if kind.code_activation == "identity" and activation == "relu":
            return "identity"
        fit = {"relu"} if kind.code_activation == "identity" else kind.activations
        names = " or ".join(map(repr, sorted(fit)))
        raise ValueError(
            f"penalty={self.penalty!r} needs {names} as the first layer's activation, "
            f"got {activation!r}."
        )

    def _sparse(self, level: Objective, own: Slot) -> Objective:
        """Return the first level with its penalty."""
        (layer,) = level.encoder.layers
        layer = replace(layer, activation=self._sparse_activation(layer.activation))
        return replace(
            level,
            encoder=Chain((layer,)),
            bottleneck=SparseCode(self._penalty(layer.widths[1])),
            own=own,
            beta=float(self.sparsity_weight),
        )

    def _own(self, model: Model) -> Slot:
        """Return where the numbers of the first level's units are."""
        head, width = self._head(model), model.plan.down[1]
        layout = Layout(head.bias.stop if head else model.size)
        n_own = SparseCode(self._penalty(width)).n_own if self.penalty else 0
        return layout.slot(n_own, width)

    def _prepare(
        self, rows: Rows, family: Any, columns: Columns, rng: Generator, keep: bool
    ) -> Any:
        """Make room for what the stack needs beside the autoencoder."""
        X = super()._prepare(rows, family, columns, rng, keep)
        own, known = self._own(self._model()), self._theta
        self._theta = np.zeros(own.stop, known.dtype)
        self._theta[: min(known.size, own.start)] = known[: own.start]
        if own.size:
            width = own.shape[1]
            own.of(self._theta)[...] = SparseCode(self._penalty(width)).start(width)
        return X

    def _levels(self, objective: Objective) -> list[Objective]:
        """Return what each level minimises."""
        each = levels(objective)
        if self.penalty is not None:
            each[0] = self._sparse(each[0], self._own(self._model()))
        return [
            replace(level, corruption=corruption, corruption_level=amount)
            for level, (corruption, amount) in zip(
                each, self._corruptions(), strict=True
            )
        ]

    # --- pretraining ------------------------------------------------------------------

    def _losses(self) -> list[float]:
        """Return the losses of fine-tuning so far."""
        return self.loss_curve_.get(FINE_TUNING, [])

    def _keep_losses(self, losses: list[float]) -> None:
        """Set the losses of fine-tuning; none at all begin a new fit."""
        self.loss_curve_ = {**self.loss_curve_, FINE_TUNING: losses} if losses else {}

    def _record(self, monitor: Monitor, n_rows: int) -> None:
        """Turn what the monitor of fine-tuning saw into fitted attributes."""
        if monitor.losses:
            super()._record(monitor, n_rows)
            return
        self.validation_scores_ = self.best_validation_score_ = self.best_loss_ = None

    def _continue(self, trainer: Trainer, memory: dict[str, Any]) -> Moments:
        if not self._losses():  # epochs of the levels do not count
            self.n_iter_ = 0
        return super()._continue(trainer, memory)

    def _n_tasks(self) -> int:
        return sum(n > 0 for n in self._epochs()) + 1

    def _pretrain(self, trainer: Trainer, watch: FitWatch) -> None:
        """Train one level after the other, each on the clean code of the one below."""
        each = self._levels(trainer.objective)
        self.loss_curve_ = {}
        self.n_iter_ = 0
        for k, (level, n_epochs) in enumerate(zip(each, self._epochs(), strict=True)):
            if n_epochs and not watch.is_stopped:
                losses = self._train_level(trainer, level, k, n_epochs, watch)
                self.loss_curve_[f"level {k + 1}"] = losses
                self.loss_ = losses[-1]
                self.n_iter_ += len(losses)
                self.t_ += len(trainer.rows) * len(losses)

    def _train_level(
        self, whole: Trainer, level: Objective, k: int, max_iter: int, watch: FitWatch
    ) -> list[float]:
        """Train a level; return its losses."""
        trainer = level_trainer(whole, level, k)
        place = f"level {k + 1} of {len(whole.objective.encoder.layers)}"
        name = "pretraining_learning_rate_init"
        monitor = Monitor(trainer.theta, self._stopping(), report=self._report(place))
        stage = watch.stage(f"level {k + 1}", max_iter, trainer, monitor)
        # A level that stops short of its optimum is not worth a warning: what follows
        # trains its parameters again.
        with self._explained(monitor.losses, f" of {place}", name):
            if self.solver == "lbfgs":
                self._lbfgs(trainer, monitor, max_iter, stage)
            else:
                rate = self._each(name, POSITIVE)[k]
                before = unchanged, unchanged
                self._descend(trainer, monitor, rate, max_iter, before, stage)
            losses = [loss.total for loss in monitor.losses]
            first = trainer.first_loss or 0.0
            if losses[-1] > first + abs(first) + LOST * level.n_features:
                raise DivergenceError(
                    f"the loss is {losses[-1]:g} nats per row, but was {first:g} at "
                    f"first",
                    finished=True,
                )
        return losses

    def _monitor(self, held_out: Rows | None) -> Monitor:
        monitor = super()._monitor(held_out)
        monitor.report = self._report(FINE_TUNING)
        return monitor

    def _report(self, place: str) -> Callable[[str], None] | None:
        """Return what prints the progress of a stage, if it shall be printed."""
        return partial(print, f"{place.capitalize()}:") if self.verbose else None
