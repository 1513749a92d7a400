"""The training loop: epochs over minibatches, or L-BFGS over everything at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import optimize

from skae.crew import Phase, alone, hired
from skae.layout import Array
from skae.objective import Batch, Loss, Objective
from skae.optimizers import Moments, Optimizer
from skae.rows import Rows
from skae.shares import Share, each

__all__ = [
    "Course",
    "DivergenceError",
    "Monitor",
    "Stopping",
    "Trainer",
    "Watch",
    "descend",
    "lbfgs",
]


#: SciPy's status after a callback has asked to stop.
STOPPED = 99


class DivergenceError(ValueError):
    """The loss, or a parameter, has left the range of sensible numbers.

    Parameters
    ----------
    reason : str
        What is wrong.
    finished : bool
        Whether it was noticed between epochs, and not within one.
    """

    def __init__(self, reason: str, finished: bool = False) -> None:
        super().__init__(reason)
        self.finished = finished


@dataclass
class Course:
    """How far a descent has come, between any two steps.

    Attributes
    ----------
    moments : Moments
        What the optimiser remembers.
    epoch : int
        Epochs that have ended.
    drops : int
        How often the learning rate has been dropped.
    is_over : bool
        Whether the descent has come to its end.
    n_seen : int
        Rows visited in the epoch under way.
    sums : ndarray of shape (3,)
        Sums over these rows of the parts of the loss.
    generator : dict or None
        The generator's state before it drew the order of this epoch.
    own : ndarray or None
        The units' own numbers at the beginning of this epoch.
    """

    moments: Moments
    epoch: int = 0
    drops: int = 0
    is_over: bool = False
    n_seen: int = 0
    sums: Array = field(default_factory=lambda: np.zeros(len(Loss._fields)))
    generator: dict[str, Any] | None = None
    own: Array | None = None

    def count(self, n_rows: int, loss: Loss) -> None:
        """Count the rows of a step."""
        self.n_seen += n_rows
        self.sums = self.sums + np.multiply(n_rows, loss)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs to go on from here."""
        return vars(self) | {"moments": vars(self.moments)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` has returned."""
        vars(self).update(state | {"moments": Moments(**state["moments"])})

    def end_epoch(self) -> Loss:
        """Return the mean loss of the rows visited; begin with the next epoch."""
        loss = Loss(*(self.sums / self.n_seen).tolist())
        self.epoch, self.n_seen = self.epoch + 1, 0
        self.sums = np.zeros_like(self.sums)
        return loss


class Watch:
    """Is told how a descent goes, and may end it; this one lets everything be."""

    def enter(self, course: Course) -> None:
        """See a descent begin; one that was interrupted may go on."""

    def begin_epoch(self) -> None:
        """See an epoch begin."""

    def pause(self) -> bool:
        """See a step end; tell whether to stop at once."""
        return False

    def end_epoch(self) -> bool:
        """See an epoch end, after the monitor; tell whether to stop."""
        return False

    def leave(self) -> None:
        """See the descent end."""


#: Whoever watches where nobody does.
NOBODY = Watch()


class Trainer:
    """Everything that one fit needs to take steps: objective, rows and memory.

    The crew that is there, if there is one, shares the work (see `crew`).

    Parameters
    ----------
    objective : Objective
        What is minimised.
    theta : ndarray of shape (n_parameters,)
        Changed in place by every step.
    rows : Rows
        The training rows.
    bounds : tuple of ndarray
        Smallest and largest input of each column, as corruptions want them.
    limits : tuple of ndarray
        Lowest and highest value of each shared parameter; where they are equal, the
        parameter is fixed.
    batch_size : int
        Rows per step; the short last batch is kept.
    shuffle : bool
        Whether each epoch visits the rows in an order of its own.
    rng : numpy.random.Generator
        Source of the orders and of the objective's draws.
    """

    def __init__(
        self,
        objective: Objective,
        theta: Array,
        rows: Rows,
        bounds: tuple[Array, Array],
        limits: tuple[Array, Array],
        *,
        batch_size: int,
        shuffle: bool,
        rng: np.random.Generator,
    ) -> None:
        self.objective, self.theta, self.rows = objective, theta, rows
        self.bounds, self.limits = bounds, limits
        self.shuffle, self.rng = shuffle, rng
        self.batch_size = min(batch_size, len(rows))
        # Memory that is never touched, of parameters that stay, costs nothing.
        self.grad = np.zeros(theta.shape, theta.dtype)
        self.places = objective.places()
        self.params, self.grads = objective.of(theta), objective.of(self.grad)
        self.batch = objective.batch(self.batch_size, theta.dtype)
        self.teams: dict[tuple[int, int], list[Share]] = {}
        self.fixed, self.own = np.equal(*limits), self.params.own
        self.mean_weight, self.n_rows = rows.mean_weight, len(rows)
        self.first_loss: float | None = None

    def turned_to(self, objective: Objective, rows: Rows, **parts: Any) -> Trainer:
        """Return a trainer of the same parameters, by the same generator.

        `parts` replace further arguments of this class.
        """
        same: dict[str, Any] = {
            "bounds": self.bounds,
            "limits": self.limits,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "rng": self.rng,
        }
        return Trainer(objective, self.theta, rows, **(same | parts))

    def change(self, **parts: Any) -> None:
        """Replace parts of the objective, which keeps its parameters."""
        codes = self.objective.bottleneck.n_samples
        self.objective = replace(self.objective, **parts)
        if self.objective.bottleneck.n_samples != codes:
            self.batch = self.objective.batch(self.batch_size, self.theta.dtype)
            self.teams.clear()
        for team in self.teams.values():
            for share in team:
                share.objective = self.objective

    def team(self, n_rows: int) -> list[Share]:
        """Return the shares of the crew's members in batches of so many rows."""
        key = n_rows, hired().size
        if key not in self.teams:
            memory = self.theta, self.grad, self.rows, self.batch.rows(0, n_rows)
            self.teams[key] = [
                Share(self.objective, *memory, (i, key[1])) for i in range(key[1])
            ]
        return self.teams[key]

    # --- phases of a crew -----------------------------------------------------------

    def encoding(self, team: list[Share], index: Array, total: float) -> list[Phase]:
        """Draw what belongs to some rows; return what leads to encoder outputs."""
        objective, whole, bounds = self.objective, team[0].whole, self.bounds
        objective.draw(whole, self.rng)
        for share in team:
            share.take(whole.damage, whole.noise)
        load = each(team, lambda share: share.load(index, total))
        encode = each(team, Share.encode)
        if objective.rows_meet:
            return [[load], [alone(lambda: objective.see(whole, bounds))], [encode]]
        return [[load, each(team, lambda share: share.see(bounds)), encode]]

    def deltas(self, team: list[Share], index: Array, total: float) -> list[Phase]:
        """Return what leads from rows to all deltas; rows may meet in between."""
        phases, whole = self.encoding(team, index, total), team[0].whole
        decode = each(team, lambda share: share.decode(self.own))
        self.own = self.params.own
        if self.objective.rows_meet:
            return [*phases, [alone(lambda: self.meet(whole))], [decode]]
        phases[-1].append(decode)
        return phases

    def moving(
        self, team: list[Share], optimizer: Optimizer, moments: Moments, rate: float
    ) -> list[Phase]:
        """Return what leads from all deltas to new parameters."""
        weigh = each(team, lambda share: share.weigh(fresh=True))
        penalize = each(team, lambda share: share.penalize(self.fixed))
        move = each(team, lambda share: share.move(optimizer, moments, rate))
        if not self.objective.unit_norm:
            return [[weigh, penalize, move]]
        around = each(team, Share.constrain), each(team, Share.restore)
        return [[weigh, penalize], [around[0]], [move], [around[1]]]

    def meet(self, whole: Batch) -> None:
        """Let the rows of a batch meet."""
        self.own = self.objective.meet(self.params, whole)

    # --- evaluations and steps --------------------------------------------------------

    def encode(self, index: Array, total: float) -> Batch:
        """Fetch rows, draw what belongs to them, and find their encoder outputs."""
        team = self.team(len(index))
        hired().run(*self.encoding(team, index, total))
        return team[0].whole

    def explain(self, index: Array, total: float) -> Batch:
        """Fetch rows, and find their losses and deltas."""
        team = self.team(len(index))
        hired().run(*self.deltas(team, index, total))
        return team[0].whole

    def epoch(
        self,
        optimizer: Optimizer,
        course: Course,
        rate: float,
        watch: Watch = NOBODY,
    ) -> Loss:
        """Take one step for each batch; return the mean loss in nats per row.

        A batch's weights are divided by what a batch of its size weighs on average, and
        not by what it happens to weigh: so its gradient is right in expectation. The
        epoch ends early if `watch` says so after a step.
        """
        order = self.order(course)
        with np.errstate(all="ignore"):
            while course.n_seen < len(order):
                index = order[course.n_seen : course.n_seen + self.batch_size]
                total = self.mean_weight * len(index)
                loss = self.step(index, total, optimizer, course.moments, rate)
                course.count(len(index), loss)
                if watch.pause():
                    break
        if not all(np.isfinite(self.theta[place]).all() for place in self.places):
            raise DivergenceError("a weight is no longer finite")
        return course.end_epoch()

    def order(self, course: Course) -> Array:
        """Return the rows in the order of an epoch; the same if it is under way."""
        index: Array = self.rows.index
        generator = self.rng.bit_generator
        if not (self.shuffle and self.batch_size < len(index)):
            return index
        now = dict(generator.state)
        if not course.n_seen:
            course.generator = now
            return self.rng.permutation(index)
        generator.state = course.generator or now
        order = self.rng.permutation(index)
        generator.state = now
        return order

    def enter_epoch(
        self,
        course: Course,
        change: Callable[[int], Any],
        renew: Callable[[int, int, Moments], bool],
    ) -> bool:
        """Change what changes from epoch to epoch; tell whether parameters did.

        An epoch that is under way changes as it did when it began.
        """
        own, epoch = self.params.own, course.epoch + 1
        if course.n_seen:
            now = own.copy()
            own[...] = course.own
            change(epoch)
            own[...] = now
            return False
        course.own = own.copy()
        change(epoch)
        return renew(epoch, course.drops, course.moments)

    def step(
        self,
        index: Array,
        total: float,
        optimizer: Optimizer,
        moments: Moments,
        rate: float,
    ) -> Loss:
        """Move the parameters once, by the gradient of these rows; return the loss."""
        team, objective = self.team(len(index)), self.objective
        moments.count()
        phases = self.deltas(team, index, total)
        hired().run(*phases, *self.moving(team, optimizer, moments, rate))
        loss = self.checked(total_loss(team), sum(share.penalty for share in team))
        if objective.bottleneck.n_own:
            before = self.params.own
            codes = team[0].whole.code
            before[...] = objective.bottleneck.remember(before, self.own, codes)
        if objective.n_slopes:
            np.clip(self.params.shared, *self.limits, out=self.params.shared)
        return loss

    def checked(self, loss: Loss, penalty: float) -> Loss:
        """Refuse a loss that is not finite; add the penalty, remember the first."""
        if not math.isfinite(loss.total):
            raise DivergenceError(f"the loss is {loss.total}")
        if penalty:
            loss = loss._replace(total=loss.total + penalty)
        if self.first_loss is None:
            self.first_loss = loss.total
        return loss

    def decay(self) -> float:
        """Add the gradient of the penalty on weights; return its value."""
        team = self.team(self.batch_size)
        hired().run([each(team, lambda share: share.penalize(self.fixed))])
        return sum(share.penalty for share in team)

    def full(self) -> Loss:
        """Set ``grad`` to the gradient over all rows; return the loss.

        Batches are visited one by one and their gradients added, so that memory does
        not grow with the number of rows.
        """
        total = self.mean_weight * len(self.rows)
        self.grad.fill(0.0)
        sums = np.zeros(len(Loss._fields))
        with np.errstate(all="ignore"):
            own = self.objective.bottleneck.settle(self.outputs, self.params.own)
            own = own.astype(self.theta.dtype, copy=False)
            for index in self.parts():
                sums += self.add(index, total, own)
            return self.checked(Loss(*sums.tolist()), self.decay())

    def add(self, index: Array, total: float, own: Array) -> Loss:
        """Add the gradient of some rows; return their loss.

        `own` are the units' numbers as all rows see them.
        """
        team = self.team(len(index))
        decode = each(team, lambda share: share.decode(own))
        weigh = each(team, lambda share: share.weigh(fresh=False))
        hired().run(*self.encoding(team, index, total), [decode], [weigh])
        return total_loss(team)

    def parts(self) -> Iterator[Array]:
        """Yield the rows of one batch after the other, in their order."""
        for start in range(0, len(self.rows), self.batch_size):
            yield self.rows.index[start : start + self.batch_size]

    def outputs(self) -> Iterator[tuple[Array, Array]]:
        """Yield the encoder's outputs of one batch after the other, and weights."""
        total = self.mean_weight * len(self.rows)
        for index in self.parts():
            batch = self.encode(index, total)
            yield batch.encoder.outputs[-1], batch.weight

    def box(self) -> optimize.Bounds:
        """Return the limits of all parameters, infinite for all but the shared."""
        low = np.full(len(self.theta), -np.inf)
        high = -low
        for end, limit in zip((low, high), self.limits, strict=True):
            self.objective.shared.of(end)[...] = limit
        return optimize.Bounds(low, high)


def total_loss(team: list[Share]) -> Loss:
    """Return the loss of a batch, given those of the members' rows."""
    if len(team) == 1:
        return team[0].loss
    return Loss(*map(sum, zip(*(share.loss for share in team), strict=True)))


@dataclass
class Stopping:
    """Says when the loss has not fallen by `tol` for `patience` epochs in a row.

    Attributes
    ----------
    tol : float
        In nats per row.
    patience : float
        In epochs; infinite to go on until the last.
    best, tie : float
        The smallest loss so far, and what decided between it and equal ones.
    n_stalled : int
        Epochs since the loss last fell by more than `tol`.
    """

    tol: float
    patience: float
    best: float = math.inf
    tie: float = math.inf
    n_stalled: int = 0

    def stalls(self, loss: float, tie: float = 0.0) -> bool:
        """Record a loss; return whether patience has run out, and start anew if so.

        Of equal losses, one with a smaller `tie` counts as progress.
        """
        breaks_tie = loss <= self.best and tie < self.tie - self.tol
        progress = loss < self.best - self.tol or breaks_tie
        self.n_stalled = 0 if progress else self.n_stalled + 1
        self.best, self.tie = min((self.best, self.tie), (loss, tie))
        if self.n_stalled < self.patience:
            return False
        self.n_stalled = 0
        return True

    def excuse(self) -> None:
        """Begin anew: what comes is not to be compared with what was."""
        self.best, self.tie, self.n_stalled = math.inf, math.inf, 0


class Monitor:
    """Follows a fit: records losses, keeps the best parameters, says when to stop.

    Parameters
    ----------
    theta : ndarray
        The parameters that training changes in place.
    stopping : Stopping
        When to stop.
    validate : callable or None
        Returns the loss on held-out rows, or minus a score, and a number that decides
        between equal ones. It then decides when to stop, and the parameters with the
        smallest are kept.
    report : callable or None
        Called with a line of text after each epoch.
    patience_from : int
        Epochs that are not judged, because the objective still changes in them.

    Attributes
    ----------
    losses : list of Loss
        Of each epoch.
    validation_losses, ties : list of float
        What `validate` has returned.
    trouble : str or None
        Why training stopped before it had settled, if it did.
    """

    def __init__(
        self,
        theta: Array,
        stopping: Stopping,
        validate: Callable[[], tuple[float, float]] | None = None,
        report: Callable[[str], None] | None = None,
        patience_from: int = 0,
    ) -> None:
        self.theta, self.stopping = theta, stopping
        self.patience_from = patience_from
        self.validate, self.report = validate, report
        self.best_theta = theta.copy() if validate else theta
        self.least = math.inf, math.inf
        self.losses: list[Loss] = []
        self.validation_losses: list[float] = []
        self.ties: list[float] = []
        self.trouble: str | None = None

    def __call__(self, losses: Loss) -> bool:
        """Record the loss of an epoch; return whether progress has stalled."""
        self.losses.append(losses)
        loss, tie, judged = losses.total, 0.0, len(self.losses) > self.patience_from
        line = f"Epoch {len(self.losses)}, loss = {loss:.6g} nats per row"
        if self.validate:
            loss, tie = self.validate()
            if not math.isfinite(loss):
                raise DivergenceError(f"the validation loss is {loss}", finished=True)
            if (loss, tie) < self.least:
                self.best_theta[...] = self.theta
                self.least = (loss, tie) if judged else (math.inf, math.inf)
            self.validation_losses.append(loss)
            self.ties.append(tie)
            line += f", validation score = {-loss:.6g}"
        if self.report:
            self.report(line)
        return judged and self.stopping.stalls(loss, tie)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs to go on from here."""
        names = "validation_losses", "ties", "least"
        state: dict[str, Any] = {name: getattr(self, name) for name in names}
        state["losses"] = np.array(self.losses)
        state["stopping"] = vars(self.stopping)
        return state | ({"best_theta": self.best_theta} if self.validate else {})

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` has returned."""
        self.losses[:] = [Loss(*each) for each in state["losses"].tolist()]
        self.validation_losses = state["validation_losses"]
        self.ties, self.least = state["ties"], tuple(state["least"])
        vars(self.stopping).update(state["stopping"])
        if "best_theta" in state:
            self.best_theta[...] = state["best_theta"]

    def finish(self) -> None:
        """Bring back the best parameters."""
        self.theta[...] = self.best_theta


def descend(
    trainer: Trainer,
    optimizer: Optimizer,
    course: Course,
    *,
    rate: Callable[[int, int], float],
    change: Callable[[int], Any],
    renew: Callable[[int, int, Moments], bool],
    max_iter: int,
    n_drops: int,
    monitor: Monitor,
    watch: Watch = NOBODY,
) -> bool:
    """Train for up to `max_iter` epochs; return whether it stopped by itself.

    ``rate(epoch, drops)`` is the learning rate. Before each epoch, ``change(epoch)``
    changes the objective, and ``renew(epoch, drops, moments)`` may change parameters;
    it returns whether it has, which excuses a lack of progress. When progress stalls,
    up to `n_drops` times the next drop is tried; then training ends. It also ends when
    `watch` says so.
    """
    watch.enter(course)
    while course.epoch < max_iter and not course.is_over:
        watch.begin_epoch()
        if trainer.enter_epoch(course, change, renew):
            monitor.stopping.excuse()
        now = rate(course.epoch + 1, course.drops)
        if monitor(trainer.epoch(optimizer, course, now, watch)):
            course.is_over = course.drops == n_drops
            course.drops += not course.is_over
        course.is_over |= watch.end_epoch()
    watch.leave()
    return course.is_over


def lbfgs(
    trainer: Trainer,
    *,
    max_iter: int,
    max_fun: int,
    tol: float,
    monitor: Monitor,
    watch: Watch = NOBODY,
) -> str | None:
    """Minimise over all rows by SciPy's L-BFGS-B; say why it stopped short, if so."""
    loss = Loss(math.inf, math.inf, math.inf)

    def value_and_gradient(theta: Array) -> tuple[float, Array]:
        nonlocal loss
        trainer.theta[...] = theta
        loss = trainer.full()
        return loss.total, trainer.grad.astype(np.float64)

    def callback(theta: Array) -> None:
        # The accepted point is the last that the line search has tried.
        watch.begin_epoch()
        stalls = monitor(loss)
        if watch.end_epoch() or stalls:
            raise StopIteration

    # The loss decides by `tol` through the monitor; SciPy watches the gradient only.
    options: dict[str, Any] = {"maxiter": max_iter, "maxfun": max_fun}
    options |= {"gtol": tol, "ftol": 64 * np.finfo(np.float64).eps}
    result = optimize.minimize(
        value_and_gradient,
        trainer.theta.astype(np.float64),
        jac=True,
        method="L-BFGS-B",
        bounds=trainer.box(),
        callback=callback,
        options=options,
    )
    watch.leave()
    trainer.theta[...] = result.x
    if not monitor.losses:
        monitor(loss)
    return what_is_short(result, loss, trainer.theta.dtype)


def what_is_short(
    result: optimize.OptimizeResult, loss: Loss, dtype: np.dtype[Any]
) -> str | None:
    """Return SciPy's message if L-BFGS has stopped before a minimum."""
    if result.success or result.status == STOPPED:
        return None
    # A line search also fails where rounding allows no progress any more.
    size = max(1.0, float(np.abs(result.x).max()))
    steepest = float(np.abs(result.jac).max()) * size
    rounding = math.sqrt(np.finfo(dtype).eps) * abs(loss.total)
    return str(result.message) if steepest > rounding else None
