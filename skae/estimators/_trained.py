"""How autoencoders are trained: solvers, when to stop, and what is recorded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from functools import partial
from typing import Any, ClassVar

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skae.component import resolve
from skae.corruptions import Corruption, NoCorruption
from skae.crew import Crew, crew
from skae.estimators._fitted import FittedAutoencoder
from skae.estimators._watch import FitWatch, StageWatch, SupportsCallbacks
from skae.layout import Array
from skae.optimizers import OPTIMIZERS, SCHEDULES, Moments, Optimizer
from skae.rows import Rows
from skae.training import (
    Course,
    DivergenceError,
    Monitor,
    Stopping,
    Trainer,
    descend,
    lbfgs,
)

__all__ = ["LOST", "TrainedAutoencoder", "random_objective"]

#: A fit has diverged if it costs so many nats per column, and twice what it costs to
#: predict the columns' means.
LOST = 2.0

#: What is worth a thread of its own in a step of training: rows of a batch, and their
#: number times that of the parameters. Below, threads that wait for each other cost
#: more than they bring, a hundred times more on a busy machine.
FEWEST_SHARED, LEAST_WORK = 16, 2**24

#: Fixed draws of a random code with which held-out rows are judged.
DRAWS = 4

#: The "adaptive" schedule divides the learning rate at most this often.
MOST_DROPS = 5

#: What is called before each epoch; see `descend`.
Change = Callable[[int], Any]
Renew = Callable[[int, int, Moments], bool]


def random_objective(name: str = "corruption_level") -> ValueError:
    """Return the error of L-BFGS; the parameter `name` makes the objective random."""
    return ValueError(
        f"solver='lbfgs' needs an objective without randomness: set {name}=0, or "
        f"choose another solver."
    )


class TrainedAutoencoder(SupportsCallbacks, FittedAutoencoder):
    """The training of a model; `fit` says of what, and on which rows.

    It also gives `_bottleneck`, how the encoder's output becomes a code.
    """

    #: The name of the last stage of a fit, if there are several.
    _stage: ClassVar[str] = ""

    #: The attribute for the curve of what codes cost, if they can cost anything.
    _cost_curve: ClassVar[str | None] = None

    # What a fit leaves behind; typed here, set in `fit` and `partial_fit` alone.
    _memory: dict[str, Any] | None
    loss_curve_: Any  # a list or, of stacks, a dict of lists
    validation_scores_: list[float] | None

    # --- the holes that a subclass fills -------------------------------------------

    def _corruption(self) -> tuple[Corruption, float]:
        """Return the damage done to the input in training, and its level."""
        return NoCorruption(), 0.0

    def _beta(self, epoch: float) -> float:
        """Return the weight of what the code costs, in an epoch counted from one.

        Infinity stands for the weight in the end, which is that of 'lbfgs' throughout.
        """
        return 1.0

    def _change(self, trainer: Trainer, epoch: int) -> None:
        """Change what changes in the objective from epoch to epoch."""
        trainer.change(beta=self._beta(epoch))

    def _renew(
        self, trainer: Trainer, epoch: int, drops: int, moments: Moments
    ) -> bool:
        """Change parameters before an epoch; tell whether any were."""
        return False

    def _finish(self, rows: Rows) -> None:
        """Look at the fitted model, given all rows; for what a subclass reports."""

    # --- what goes on around it -----------------------------------------------------

    def _n_tasks(self) -> int:
        """Return the largest number of parts that a fit has for callbacks."""
        return int(self.max_iter)

    def _fitted(
        self, n_rows: int, monitor: Monitor, every_row: Rows | None
    ) -> Callable[[], dict[str, Any]]:
        """Return what tells which attributes a fit would leave behind by now."""

        def attributes() -> dict[str, Any]:
            twin = copy(self)
            twin._theta = monitor.best_theta.copy()
            twin._record(monitor, n_rows)
            if every_row is not None:
                twin._estimate(every_row)
                twin._finish(every_row)
            known = vars(self)
            new = (k for k, v in vars(twin).items() if v is not known.get(k, self))
            return {k: vars(twin)[k] for k in new}

        return attributes

    # --- solvers ----------------------------------------------------------------------

    def _optimizer(self) -> Optimizer:
        optimizer: Optimizer = resolve(
            self.solver, OPTIMIZERS, **self.get_params(deep=False)
        )
        return optimizer

    # --- training -----------------------------------------------------------------

    def _monitor(self, held_out: Rows | None) -> Monitor:
        validate = None
        if held_out is not None:
            validate = partial(self._validate, held_out)
        return Monitor(
            self._theta,
            self._stopping(held_out is not None),
            validate=validate,
            report=print if self.verbose else None,
        )

    def _validate(self, rows: Rows) -> tuple[float, float]:
        """Return the loss of held-out rows, and what decides between equal ones."""
        model = self._model(is_exact=False)
        return model.mean_loss(rows, self._beta(np.inf), DRAWS), 0.0

    def _stopping(self, validates: bool = False) -> Stopping:
        """Return what says when training has come to its end."""
        patience = self.n_iter_no_change
        if self.learning_rate == "cosine" and self.solver != "lbfgs" and not validates:
            patience = np.inf  # its last epochs, the slow ones, are the point of it
        return Stopping(self.tol, patience)

    def _crew(self, trainer: Trainer) -> AbstractContextManager[Crew]:
        """Hire who shares the work, or nobody if there is little to do."""
        n_rows = trainer.batch_size
        work = n_rows * len(trainer.theta) // LEAST_WORK
        return crew(max(1, min(n_rows // FEWEST_SHARED, work)))

    def _train(
        self, trainer: Trainer, held_out: Rows | None, watch: FitWatch
    ) -> Monitor:
        """Run the solver."""
        monitor = self._monitor(held_out)
        run = self._run_lbfgs if self.solver == "lbfgs" else self._run_epochs
        fitted = self._fitted(len(trainer.rows), monitor, watch.every_row)
        stage = watch.stage(self._stage, self.max_iter, trainer, monitor, fitted)
        with self._explained(monitor.losses):
            monitor.trouble = run(trainer, monitor, stage)
        monitor.finish()
        return monitor

    def _warn(self, monitor: Monitor, watch: FitWatch, stacklevel: int = 4) -> None:
        """Warn if training did not come to an end by itself."""
        trouble = monitor.trouble
        if watch.is_interrupted:
            which = "that scored best" if monitor.validate else "of that moment"
            trouble = (
                f"Control-C has ended training in {watch.place}. The model has the "
                f"weights {which}. {self._how_to_go_on(monitor)}"
            )
        if trouble:
            warnings.warn(trouble, ConvergenceWarning, stacklevel=stacklevel)

    def _how_to_go_on(self, monitor: Monitor) -> str:
        """Say how to go on with a fit that was interrupted."""
        if self.checkpoint is not None and not self.warm_start:
            return "To go on from there, call fit once more."
        if not monitor.losses:
            return "Stages that follow are left out; a checkpoint would keep them."
        other = "" if self.checkpoint is None else " and another checkpoint"
        return f"To go on from there, call fit with warm_start=True{other}."

    def _settle(
        self,
        trainer: Trainer,
        rows: Rows,
        scales: Array | None = None,
        share: float = 1.0,
    ) -> None:
        """Refuse parameters that are worse than none; estimate scales from residuals.

        Earlier squared scales move towards the new ones by `share`.
        """
        self._check_sanity(trainer, rows)
        self._estimate(rows, scales, share)

    def _estimate(
        self, rows: Rows, scales: Array | None = None, share: float = 1.0
    ) -> None:
        """Estimate scales from residuals, and what units keep of all rows."""
        model = self._model(is_exact=False)
        model.own[...] += share * (model.settled_own(rows) - model.own)
        estimate = model.estimated_shared(rows)
        with self._explained(self._losses()):
            if not np.isfinite(estimate).all():
                raise DivergenceError("a residual cannot be squared", finished=True)
        model.shared[...] = estimate
        if scales is not None:
            model.blend_scales(scales, 1.0 - share)

    def _check_sanity(self, trainer: Trainer, rows: Rows) -> None:
        """Refuse parameters that are worse than none."""
        model, beta = self._model(is_exact=False), trainer.objective.beta
        loss = model.mean_loss(rows, beta)
        with np.errstate(all="ignore"):
            loss += trainer.decay()
        poor = LOST * rows.X.shape[1]
        with self._explained(self._losses()):
            if not np.isfinite(loss):
                raise DivergenceError(f"the loss is {loss}", finished=True)
            first = trainer.first_loss  # None if only parts have been trained
            if first is not None and loss > max(poor, 2 * first):
                of_means = model.loss_of_means(rows, beta)
                if loss > of_means + abs(of_means) + poor:
                    raise DivergenceError(
                        f"the loss is {loss:g} nats per row, where the mean of the "
                        f"data costs {of_means:g}",
                        finished=True,
                    )

    def _run_lbfgs(
        self, trainer: Trainer, monitor: Monitor, stage: StageWatch
    ) -> str | None:
        """Return why L-BFGS stopped short of a minimum, if it did."""
        reason = self._lbfgs(trainer, monitor, self.max_iter, stage)
        if reason is None:
            return None
        return (
            f"L-BFGS stopped with the message {reason!r} after {len(monitor.losses)} "
            f"iterations, before it reached a minimum (max_iter={self.max_iter}, "
            f"max_fun={self.max_fun}). Increase these, or scale the data."
        )

    def _lbfgs(
        self, trainer: Trainer, monitor: Monitor, max_iter: int, stage: StageWatch
    ) -> str | None:
        """Return SciPy's message if L-BFGS stopped short of a minimum."""
        if trainer.objective.is_random:
            raise random_objective()
        return lbfgs(
            trainer,
            max_iter=max_iter,
            max_fun=self.max_fun,
            tol=self.tol,
            monitor=monitor,
            watch=stage,
        )

    def _run_epochs(
        self, trainer: Trainer, monitor: Monitor, stage: StageWatch
    ) -> str | None:
        """Return why training stopped before the loss had settled, if it did."""
        before = partial(self._change, trainer), partial(self._renew, trainer)
        rate = self.learning_rate_init
        settled = self._descend(trainer, monitor, rate, self.max_iter, before, stage)
        if settled or monitor.stopping.patience == np.inf:
            return None
        return (
            f"Training stopped at max_iter={self.max_iter} epochs, before the loss had "
            f"settled (tol={self.tol}, n_iter_no_change={self.n_iter_no_change}). "
            f"Increase max_iter or learning_rate_init={self.learning_rate_init}."
        )

    def _descend(
        self,
        trainer: Trainer,
        monitor: Monitor,
        rate: float,
        max_iter: int,
        before: tuple[Change, Renew],
        stage: StageWatch,
    ) -> bool:
        """Train from an initial learning rate; return whether the loss has settled."""
        optimizer = self._optimizer()
        return descend(
            trainer,
            optimizer,
            Course(optimizer.init(trainer.theta)),
            rate=partial(self._rate, rate, max_iter),
            change=before[0],
            renew=before[1],
            max_iter=max_iter,
            n_drops=MOST_DROPS if self.learning_rate == "adaptive" else 0,
            monitor=monitor,
            watch=stage,
        )

    def _rate(self, rate: float, max_iter: int, epoch: int, drops: int) -> float:
        """Return the learning rate of an epoch, given the initial one."""
        schedule = SCHEDULES[self.learning_rate]
        return float(rate * schedule(epoch, max_iter, self.power_t, drops))

    @contextmanager
    def _explained(
        self, losses: Sequence[Any], stage: str = "", name: str = "learning_rate_init"
    ) -> Iterator[None]:
        """Say in which epoch training diverged, and what to change.

        `name` is the parameter for the learning rate of this stage.
        """
        try:
            yield
        except DivergenceError as error:
            epoch = len(losses) + (not error.finished)
            advice = [] if self.standardize else ["set standardize=True"]
            if self.solver != "lbfgs":
                advice.insert(0, f"reduce {name}={getattr(self, name)}")
            advice.append("look for extreme values in X")
            raise ValueError(
                f"Training diverged in epoch {epoch}{stage}: {error}. To mend this, "
                f"{' or '.join(advice)}."
            ) from None

    def _record(self, monitor: Monitor, n_rows: int) -> None:
        """Turn what the monitor saw into fitted attributes."""
        losses = [loss.total for loss in monitor.losses]
        before = self._losses()
        best = getattr(self, "best_loss_", None) if before else None
        self._keep_losses(before + losses)
        self.loss_ = losses[-1]
        self.n_iter_ = len(monitor.losses)
        self.t_ += n_rows * self.n_iter_
        self.best_loss_ = self.best_validation_score_ = None
        if monitor.validate:
            scores = [-loss for loss in monitor.validation_losses]
            self.validation_scores_ = (self.validation_scores_ or []) + scores
            self.best_validation_score_ = max(scores)
        else:
            self.validation_scores_ = None
            judged = losses[monitor.patience_from :] or losses[-1:]
            self.best_loss_ = min(judged if best is None else [best, *judged])

        if self._cost_curve:
            self._extend(
                "reconstruction_curve_", len(before), monitor, "reconstruction"
            )
            self._extend(self._cost_curve, len(before), monitor, "cost")

    def _losses(self) -> list[float]:
        """Return the losses of all epochs so far."""
        return list(self.loss_curve_)

    def _keep_losses(self, losses: list[float]) -> None:
        """Set the losses of all epochs so far."""
        self.loss_curve_ = losses

    def _extend(self, name: str, before: int, monitor: Monitor, part: str) -> None:
        """Add the new epochs of one part of the loss to its curve."""
        curve = list(getattr(self, name, []))[:before]
        setattr(self, name, curve + [getattr(loss, part) for loss in monitor.losses])

    def _continue(self, trainer: Trainer, memory: dict[str, Any]) -> Moments:
        """Take one pass with the optimiser's memory of the passes before."""
        optimizer = self._optimizer()
        moments = optimizer.init(self._theta)
        if memory and memory["moments"]["arrays"].shape == moments.arrays.shape:
            moments = Moments(**memory["moments"])
            moments.arrays = moments.arrays.copy()
        monitor, n_iter = self._monitor(None), self.n_iter_
        with self._explained(self._losses()):
            rate = float(self.learning_rate_init)
            self._change(trainer, n_iter + 1)
            self._renew(trainer, n_iter + 1, 0, moments)
            monitor(trainer.epoch(optimizer, Course(moments), rate))
        optimizer.rest(moments)
        self._record(monitor, len(trainer.rows))
        self.n_iter_ += n_iter
        return moments
