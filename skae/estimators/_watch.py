"""What goes on around a fit: progress, requests to stop, and checkpoints.

A fit is one task for scikit-learn's callbacks. Its parts are epochs or, of a stack,
stages that consist of epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any, Self

from numpy.random import Generator
from sklearn.base import BaseEstimator

from skae._validation import callback_support, has_callbacks, validate_parameters
from skae._version import __version__
from skae.checkpoints import Checkpoint, Keeper, described, digest
from skae.estimators._fitted import new_generator
from skae.interrupts import Request, deferred_interrupts
from skae.rows import Rows
from skae.training import Course, Monitor, Trainer, Watch

__all__ = ["FitWatch", "StageWatch", "SupportsCallbacks"]

#: Returns the attributes that make a copy of the estimator a fitted one.
Fitted = Callable[[], dict[str, Any]]


class SupportsCallbacks:
    """Supports scikit-learn's callbacks, which are imported when they are needed."""

    def set_callbacks(self, *callbacks: Any) -> Self:
        """Set the callbacks that see how fits go.

        Parameters
        ----------
        *callbacks : object
            Callbacks, such as :class:`sklearn.callback.ProgressBar`; none to remove
            those of before.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ImportError
            If scikit-learn is older than 1.9, which has none.
        TypeError
            If something is not a callback.
        """
        callback_support().set_callbacks(self, *callbacks)
        return self

    def _init_callback_context(self, **task: Any) -> Any:
        """Return what calls the callbacks; scikit-learn's searches ask for it, too."""
        return callback_support()._init_callback_context(self, **task)


class Task:
    """A part of a fit as callbacks see it; without callbacks, nothing.

    Parameters
    ----------
    context : sklearn.callback.CallbackContext or None
        What calls them.
    given : dict
        What they are shown: the estimator and its data.
    """

    def __init__(self, context: Any, given: dict[str, Any]) -> None:
        self.context, self.given = context, given
        if context is not None:
            context.call_on_fit_task_begin(**given)

    @classmethod
    def of(
        cls,
        estimator: BaseEstimator,
        n_parts: int,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
    ) -> Task:
        """Begin the task of a whole fit.

        Without targets, callbacks are given X for y: those that score a model want to
        see something there.
        """
        if not has_callbacks(estimator):
            return cls(None, {})
        given = {"estimator": estimator, "X": X, "y": X if y is None else y}
        if sample_weight is not None:
            given["metadata"] = {"sample_weight": sample_weight}
        return cls(estimator._init_callback_context(max_subtasks=n_parts), given)

    def part(self, name: str, n_parts: int = 0) -> Task:
        """Begin a part of the task."""
        if self.context is None:
            return self
        context = self.context.subcontext(task_name=name, max_subtasks=n_parts)
        return Task(context, self.given)

    def end(self, fitted: Fitted | dict[str, Any] | None = None) -> bool:
        """End the task; tell whether a callback asks to stop what it is part of."""
        if self.context is None:
            return False
        return bool(
            self.context.call_on_fit_task_end(
                **self.given, reconstruction_attributes=fitted
            )
        )


#: Parameters that a fit does not depend on, or that are looked at by themselves.
NOT_IN_CALL = {"checkpoint", "distribution", "random_state", "verbose", "warm_start"}


def call_of(estimator: Any, family: Any, data: dict[str, Any]) -> dict[str, str]:
    """Return what a fit depends on, each thing as a text that tells it apart.

    Parameters
    ----------
    estimator : BaseAutoencoder
        The estimator before the fit.
    family : object
        The distribution of each column.
    data : dict of {str: ndarray, CSR matrix or None}
        Rows, weights and targets.
    """
    params = estimator.get_params(deep=False)
    things = {name: v for name, v in params.items() if name not in NOT_IN_CALL}
    if isinstance(estimator.random_state, Integral):
        things["random_state"] = estimator.random_state
    things |= {"the class": type(estimator).__name__, "distribution": family}
    things |= {"the version of skae": __version__}
    call = {name: described(value) for name, value in things.items()}
    start = getattr(estimator, "_theta", None) if estimator.warm_start else None
    arrays = {"the fitted model of warm_start": start, **data}
    return call | {name: digest(array) for name, array in arrays.items()}


def checked_checkpoint(estimator: Any) -> Checkpoint:
    """Return an estimator's valid `checkpoint`."""
    given = estimator.checkpoint
    if estimator.solver == "lbfgs":
        raise ValueError(
            f"checkpoint={given!r} is not available with solver='lbfgs', whose memory "
            f"is SciPy's own: choose another solver, or checkpoint=None."
        )
    settings = given if isinstance(given, Checkpoint) else Checkpoint(given)
    validate_parameters(settings)
    return settings


class FitWatch:
    """Watches over a fit, from its beginning to its end.

    Parameters
    ----------
    estimator : BaseAutoencoder
        What is fitted.
    n_parts : int
        The largest number of parts that callbacks see: epochs, or stages.
    X, y, sample_weight : object
        What the user has given.

    Attributes
    ----------
    task : Task
        The fit for callbacks.
    keeper : Keeper or None
        Who writes checkpoints.
    request : Request
        Control-C.
    records : dict
        The states of stages that have ended, or from which the fit goes on.
    is_stopped : bool
        Whether no further stage shall begin.
    place : str
        Where the newest stage has ended.
    defers : bool
        Whether Control-C waits for the end of a step.
    every_row : Rows or None
        The rows, held-out ones as well, by which a fitted model is completed.
    """

    keeper: Keeper | None = None
    every_row: Rows | None = None
    defers = True
    is_stopped = False
    place = ""

    def __init__(
        self,
        estimator: Any,
        n_parts: int,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
    ) -> None:
        self.estimator, self.request = estimator, Request()
        self.task = Task.of(estimator, n_parts, X, y, sample_weight)
        self.records: dict[str, Any] = {}

    @property
    def is_interrupted(self) -> bool:
        """Whether training has ended because of Control-C."""
        return self.request.is_heeded

    def begin(self, family: Any, **data: Any) -> Generator:
        """Return the generator of the fit; find the checkpoint to go on from.

        `family` and `data` are those of `call_of`.
        """
        rng = new_generator(self.estimator.random_state)
        if self.estimator.checkpoint is not None:
            settings = checked_checkpoint(self.estimator)
            self.keeper = Keeper(settings, call_of(self.estimator, family, data))
            self.keeper.begin(rng)
            if self.keeper.found:
                self.records = self.keeper.found["stages"]
        return rng

    @contextmanager
    def training(self, trainer: Trainer) -> Iterator[None]:
        """Watch over what follows from data and a start."""
        if self.keeper:
            self.restore(trainer)
        if not self.defers:
            yield
            return
        with deferred_interrupts() as self.request:
            yield

    def restore(self, trainer: Trainer) -> None:
        """Bring back the parameters and the generator, if a checkpoint was found."""
        if self.keeper and self.keeper.found:
            trainer.theta[...] = self.keeper.found["theta"]
            trainer.rng.bit_generator.state = self.keeper.found["generator"]

    def forget(self, stage: str) -> None:
        """Let go of what was found, which the newest stage has gone on from."""
        del self.records[stage]
        if self.keeper:
            self.keeper.found = None

    def stage(
        self,
        name: str,
        n_epochs: int,
        trainer: Trainer,
        monitor: Monitor,
        fitted: Fitted | None = None,
    ) -> StageWatch:
        """Return who watches over a stage; `name` is empty where there is only one."""
        task = self.task.part(name, n_epochs) if name else self.task
        return StageWatch(self, name, task, trainer, monitor, fitted)

    def end(self) -> None:
        """See the fit end."""
        self.task.end({})


class StageWatch(Watch):
    """Watches over one stage of a fit.

    Parameters
    ----------
    fit : FitWatch
        Who watches over the whole.
    name : str
        The stage.
    task : Task
        The stage for callbacks.
    trainer : Trainer
        Who takes the steps.
    monitor : Monitor
        Who judges the epochs.
    fitted : callable or None
        Returns what makes a copy of the estimator a fitted one, after an epoch.
    """

    course: Course | None = None  # of L-BFGS there is none
    has_moved = is_stopped = False

    def __init__(
        self,
        fit: FitWatch,
        name: str,
        task: Task,
        trainer: Trainer,
        monitor: Monitor,
        fitted: Fitted | None,
    ) -> None:
        self.fit, self.name, self.task = fit, name, task
        self.trainer, self.monitor, self.fitted = trainer, monitor, fitted

    def enter(self, course: Course) -> None:
        """Begin, or go on from a checkpoint."""
        self.course, record = course, self.fit.records.get(self.name)
        if record:
            course.restore(record["course"])
            self.monitor.restore(record["monitor"])
            self.trainer.first_loss = record["first_loss"]
            if record["is_newest"]:
                self.fit.restore(self.trainer)
                self.fit.forget(self.name)
            for _ in range(course.epoch):
                self.task.part("epoch").end()

    def begin_epoch(self) -> None:
        """See an epoch begin."""
        self.epoch = self.task.part("epoch")

    def pause(self) -> bool:
        """Write a checkpoint if it is time; tell whether to stop at once."""
        ends, self.has_moved = self.fit.request.heed(), True
        if self.fit.keeper and (ends or self.fit.keeper.is_due()):
            self.save()
        return ends

    def end_epoch(self) -> bool:
        """Write a checkpoint if it is time; tell whether to stop."""
        asked = self.epoch.end(self.fitted)
        if self.course is None:  # the steps of L-BFGS are epochs
            return asked or self.fit.request.heed()
        if self.fit.is_interrupted:
            return True
        keeper, self.is_stopped = self.fit.keeper, asked
        if keeper and (asked or keeper.is_due(self.course.epoch)):
            self.save()
        return asked

    def leave(self) -> None:
        """Write that the stage has ended, unless somebody has stopped it.

        If another follows, no more is written of it than that it is over.
        """
        of_stage = f" of {self.name}" if self.name else ""
        self.fit.place = f"epoch {len(self.monitor.losses)}{of_stage}"
        if self.fit.is_interrupted:
            self.fit.is_stopped = True
        elif self.fit.keeper and self.course:
            if self.has_moved and not self.is_stopped:
                self.save()
            bare = self.course.state() | {"moments": {"arrays": None, "n_steps": 0}}
            bare["is_over"] = True
            self.fit.records[self.name] = self.record(bare, is_newest=False)
        if self.name:
            self.fit.is_stopped |= self.task.end()

    def save(self) -> None:
        """Write the state of the fit."""
        if self.fit.keeper and self.course:
            record = self.record(self.course.state(), is_newest=True)
            state = {
                "stages": self.fit.records | {self.name: record},
                "theta": self.trainer.theta,
                "generator": self.trainer.rng.bit_generator.state,
            }
            self.fit.keeper.write(state)

    def record(self, course: dict[str, Any], is_newest: bool) -> dict[str, Any]:
        """Return what the stage goes on from."""
        return {
            "course": course,
            "monitor": self.monitor.state(),
            "first_loss": self.trainer.first_loss,
            "is_newest": is_newest,
        }
