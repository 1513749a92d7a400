"""A stack with a layer for labels on top: pretrained on all rows, taught by some."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from skae._validation import NON_NEGATIVE, _fit_context, check_weight
from skae.corruptions import Corruption
from skae.distributions import Distribution
from skae.estimators._base import checked_corruption
from skae.estimators._fitted import all_or_nothing
from skae.estimators._stack import BaseStack
from skae.estimators._trained import LOST, random_objective
from skae.estimators._watch import FitWatch
from skae.layout import Array, Layout
from skae.model import Model, Plan
from skae.network import Dense
from skae.rows import Columns, Rows
from skae.stacking import LabelledRows, head_outputs, task, task_trainer
from skae.training import DivergenceError, Monitor, Trainer

__all__ = ["BaseSupervisedStack", "Labels"]


@dataclass
class Labels:
    """What is to be predicted for each row.

    Attributes
    ----------
    table : ndarray of shape (n_distinct, n_targets)
        Targets.
    place : ndarray of shape (n_samples,)
        Where in the table each row's target is; -1 for rows without one.
    content : ndarray of shape (n_samples, n_columns)
        What tells targets apart; equal for rows with the same target.
    strata : ndarray of shape (n_samples,)
        Groups of rows that are represented among the held-out ones.
    factor : ndarray of shape (n_distinct,) or None
        What a target's rows weigh, beside their own weights; None for one.
    """

    table: Array
    place: Array
    content: Array
    strata: Array
    factor: Array | None = None

    def weight(self, given: Array | None) -> Array | None:
        """Return the weights of rows, zero where there is no target."""
        if self.factor is None:
            return given
        own = np.where(self.place < 0, 0.0, self.factor[self.place])
        return own if given is None else own * given

    def known(self, index: Array) -> Array:
        """Return those of the rows whose target counts."""
        known = self.place[index] >= 0
        if self.factor is not None:
            known &= self.factor[self.place[index]] > 0
        return index[known]


class BaseSupervisedStack(BaseStack):
    """Common ground of the classifier and the regressor."""

    _takes_chunks = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseStack._parameter_constraints,
        "freeze_encoder": ["boolean"],
        "fine_tuning_corruption_level": [NON_NEGATIVE],
    }

    n_targets_: int
    _can_decode: bool
    validation_loss_curve_: list[float] | None

    # --- what a kind of target decides ------------------------------------------------

    @abstractmethod
    def _check_target(self, y: Any, seen: Array) -> Labels:
        """Validate the targets; set what is known of them, where `seen` is true."""

    def _factor(
        self, labels: Labels, index: Array, weight: Array | None
    ) -> Array | None:
        """Return what the rows of each distinct target weigh, given labelled rows."""
        return None

    def _standardized(
        self, labels: Labels, index: Array, weight: Array | None, dtype: np.dtype[Any]
    ) -> Array:
        """Return the table in the units of the layer on top, given labelled rows."""
        return labels.table

    @property
    @abstractmethod
    def _target(self) -> Distribution:
        """The distribution of the targets given the outputs of the layer on top."""

    @abstractmethod
    def _rate_outputs(self, eta: Array, target: Array) -> Array:
        """Return how good the outputs are for each row, at most one."""

    # --- structure --------------------------------------------------------------------

    def _code_activation(self, hidden: list[int]) -> str:
        if self.code_activation != "auto":
            return str(self.code_activation)
        return self.activation or "tanh"

    def _fine_tuning_corruption(self) -> tuple[Corruption, float]:
        """Return the damage done to labelled rows."""
        name = "fine_tuning_corruption_level"
        return checked_corruption(self.corruption, getattr(self, name), name)

    def _is_certain(self) -> bool:
        return super()._is_certain() and self._fine_tuning_corruption()[1] == 0

    def _new_plan(self, n_features: int, family: Any) -> Plan:
        if self._fine_tuning_corruption()[1] > 0 and self.solver == "lbfgs":
            raise random_objective("fine_tuning_corruption_level")
        return super()._new_plan(n_features, family)

    def _head(self, model: Model) -> Dense:
        layout, n = Layout(model.size), self.n_targets_
        weight, bias = layout.slot(model.plan.n_components, n), layout.slot(n)
        return Dense(weight, bias, "identity")

    def _cannot_decode(self) -> str | None:
        if getattr(self, "_can_decode", self.freeze_encoder):
            return None
        return (
            "fine-tuning changes the encoder and leaves the decoder as it is: use "
            "StackedAutoencoder, or freeze_encoder=True"
        )

    # --- fitting ----------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Pretrain on all rows, then learn to predict the targets.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data. Sparse matrices are made dense one batch at a time.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets. Rows without one serve pretraining only.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights of the rows; None gives each row weight one. A row of
            weight zero counts as absent.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If a value lies outside the distribution's support, if no row has a target,
            if training diverges, or if there is a checkpoint of another fit. The
            estimator is then as it was before the call.
        """
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                f"None."
            )
        watch = FitWatch(self, self._n_tasks(), X, y, sample_weight)
        with all_or_nothing(self):
            data, weight, family = self._check_training_data(X, sample_weight, True)
            seen = np.ones(data.shape[0]) if weight is None else weight
            labels = self._check_target(y, seen > 0)
            things = {"X": data, "y": labels.content, "sample_weight": weight}
            rng = watch.begin(family, **things)
            index, weight = self._arrange(data, weight, labels.content)
            labels.factor = self._factor(labels, labels.known(index), weight)
            if labels.factor is not None:
                check_weight(data, labels.weight(weight))
            train, valid = self._hold_out(index, labels, rng)
            known = labels.known(train)
            labels.table = self._standardized(labels, known, weight, data.dtype)
            rows = Rows(data, train, weight)
            data = self._prepare(rows, family, Columns.of(rows), rng, self.warm_start)
            trainer = self._trainer(data, train, weight, rng)
            with self._crew(trainer), watch.training(trainer):
                monitor = self._teach(trainer, valid, labels, weight, watch)
            self._warn(monitor, watch)
            watch.end()
        watch.request.pass_on()
        return self

    def _hold_out(
        self, index: Array, labels: Labels, rng: Generator
    ) -> tuple[Array, Array | None]:
        """Return the rows for training and, with early stopping, for validation.

        Every stratum is represented in proportion, and keeps a row to train on.
        """
        known = labels.known(index)
        if not len(known):
            raise ValueError("No row with a positive weight has a target in y.")
        if not self.early_stopping:
            return index, None
        known = rng.permutation(known)
        _, first = np.unique(labels.strata[known], return_index=True)
        n_valid = max(1, round(self.validation_fraction * len(known)))
        free = np.delete(known, first)
        if n_valid > len(free):
            raise ValueError(
                f"early_stopping=True with validation_fraction="
                f"{self.validation_fraction} leaves too few rows to train on: "
                f"n_samples={len(known)} have a target."
            )
        free = free[np.argsort(labels.strata[free], kind="stable")]
        chosen = (np.arange(n_valid) + 0.5) * len(free) / n_valid
        valid = np.sort(free[chosen.astype(int)])
        return index[~np.isin(index, valid)], index[np.isin(index, valid)]

    def _teach(
        self,
        trainer: Trainer,
        valid: Array | None,
        labels: Labels,
        weight: Array | None,
        watch: FitWatch,
    ) -> Monitor:
        """Pretrain the levels; then train the layer on top, and those below with it."""
        is_new = not self.loss_curve_
        # Fine-tuning parts encoder and decoder for good, whatever a warm start does.
        may_decode = is_new or self._can_decode
        self._can_decode = bool(self.freeze_encoder and may_decode)
        if is_new:
            self._pretrain(trainer, watch)
        if is_new or valid is None:
            self.validation_loss_curve_ = None
        if self._can_decode:
            self._settle(trainer, trainer.rows)
        known = labels.known(trainer.rows.index)
        rows = self._labelled(trainer, known, labels, weight)
        learner = self._learner(trainer, rows)
        if is_new:
            self._start_head(learner, rows)
        held_out = None
        if valid is not None:
            held_out = self._labelled(trainer, valid, labels, weight)
        if watch.is_stopped:
            monitor = self._monitor(None)
        else:
            monitor = self._train(learner, held_out, watch)
            self._check_task(learner, rows)
        self._record(monitor, len(learner.rows))
        return monitor

    def _record(self, monitor: Monitor, n_rows: int) -> None:
        super()._record(monitor, n_rows)
        if monitor.validate:
            before = self.validation_loss_curve_ or []
            self.validation_loss_curve_ = before + monitor.ties

    def _labelled(
        self, trainer: Trainer, index: Array, labels: Labels, weight: Array | None
    ) -> LabelledRows:
        """Return rows that have a target."""
        rows = self._model().rows(trainer.rows.X, index, labels.weight(weight))
        table = labels.table.astype(rows.X.dtype)
        family = trainer.objective.distribution
        return LabelledRows(rows, family, table, labels.place)

    def _learner(self, trainer: Trainer, rows: LabelledRows) -> Trainer:
        """Return what trains the layer on top, on the rows that have a target."""
        objective = task(
            trainer.objective,
            self._head(self._model()),
            self._target,
            self._fine_tuning_corruption(),
            is_frozen=bool(self.freeze_encoder),
        )
        return task_trainer(trainer, objective, rows, self._rows_per_step(len(rows)))

    def _start_head(self, learner: Trainer, rows: LabelledRows) -> None:
        """Let the outputs begin at the targets' means."""
        target = np.empty((len(learner.batch.x), self.n_targets_), rows.X.dtype)
        mean = np.zeros(self.n_targets_)
        for index in learner.parts():
            rows.load_target(index, target[: len(index)])
            weight = np.ones(len(index)) if rows.weight is None else rows.weight[index]
            mean += weight @ target[: len(index)] / (rows.mean_weight * len(rows))
        bias, _ = self._target.start(mean, np.zeros_like(mean), len(rows))
        learner.params.decoder[0][1][...] = bias

    def _validate(self, rows: Rows) -> tuple[float, float]:
        """Return minus how well held-out rows are predicted, and their loss."""
        loss, rating = self._judge(rows)
        return -rating, loss

    def _judge(self, rows: Rows) -> tuple[float, float]:
        """Return the mean loss of rows, in nats, and how well they are predicted."""
        model, family = self._model(is_exact=False), self._target
        plain = model.rows(rows.X, rows.index, rows.weight)
        sums, nothing = np.zeros(2), np.empty(0, rows.X.dtype)
        with np.errstate(all="ignore"):
            for place, weight, eta in head_outputs(model, self._head(model), plain):
                target, loss = np.empty_like(eta), np.empty_like(eta)
                rows.load_target(rows.index[place], target)
                family.nll(target, eta, nothing, loss)
                each = loss.sum(axis=1), self._rate_outputs(eta, target)
                sums += [weight @ value for value in each]
        loss, rating = sums / len(rows)
        return float(loss), float(rating)

    def _check_task(self, learner: Trainer, rows: LabelledRows) -> None:
        """Refuse parameters that are worse than none."""
        loss, _ = self._judge(rows)
        first = learner.first_loss or 0.0
        with self._explained(self._losses()):
            if not np.isfinite(loss):
                raise DivergenceError(f"the loss is {loss}", finished=True)
            if loss > 2 * first + LOST * self.n_targets_:
                raise DivergenceError(
                    f"the loss is {loss:g} nats per row, but was {first:g} at first",
                    finished=True,
                )

    # --- use --------------------------------------------------------------------------

    @property
    def head_coef_(self) -> Array:
        """Weights of the layer on top."""
        self._check_has_numbers()
        return self._head(self._model()).weight.of(self._theta)

    @property
    def head_intercept_(self) -> Array:
        """Biases of the layer on top."""
        self._check_has_numbers()
        return self._head(self._model()).bias.of(self._theta)

    def _outputs(self, X: Any) -> Array:
        """Return the outputs of the layer on top."""
        data, model = self._check_fitted_rows(X), self._model()
        out = np.empty((data.shape[0], self.n_targets_), data.dtype)
        rows, head = model.rows(data), self._head(model)

        def predict(here: slice) -> None:
            for place, _, eta in head_outputs(model, head, rows.cut(here)):
                out[here][place] = eta

        model.together(len(rows), predict)
        return out
