"""The training loop: epochs over minibatches, or L-BFGS over everything at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import optimize

from skae.crew import Phase, alone, hired
from skae.layout import Array
from skae.objective import Batch, Loss, Objective
from skae.optimizers import Moments, Optimizer
from skae.rows import Rows
from skae.shares import Share, each

__all__ = ["DivergenceError", "Monitor", "Stopping", "Trainer", "descend", "lbfgs"]


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

    def epoch(self, optimizer: Optimizer, moments: Moments, rate: float) -> Loss:
        """Take one step for each batch; return the mean loss in nats per row.

        A batch's weights are divided by what a batch of its size weighs on average, and
        not by what it happens to weigh: so its gradient is right in expectation.
        """
        order = self.rows.index
        if self.shuffle and self.batch_size < len(order):
            order = self.rng.permutation(order)
        sums = np.zeros(len(Loss._fields))
        with np.errstate(all="ignore"):
            for start in range(0, len(order), self.batch_size):
                index = order[start : start + self.batch_size]
                total = self.mean_weight * len(index)
                loss = self.step(index, total, optimizer, moments, rate)
                sums += np.multiply(len(index), loss)
        if not all(np.isfinite(self.theta[place]).all() for place in self.places):
            raise DivergenceError("a weight is no longer finite")
        return Loss(*(sums / len(order)).tolist())

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
            line += f", validation score = {-loss:.6g}"
        if self.report:
            self.report(line)
        return judged and self.stopping.stalls(loss, tie)

    def finish(self) -> None:
        """Bring back the best parameters."""
        self.theta[...] = self.best_theta


def descend(
    trainer: Trainer,
    optimizer: Optimizer,
    moments: Moments,
    *,
    rate: Callable[[int, int], float],
    before: Callable[[int, int, Moments], bool],
    max_iter: int,
    n_drops: int,
    monitor: Monitor,
) -> bool:
    """Train for up to `max_iter` epochs; return whether it stopped by itself.

    ``rate(epoch, drops)`` is the learning rate. ``before(epoch, drops, moments)`` is
    called before each epoch; it returns whether it has changed parameters, which
    excuses a lack of progress. When progress stalls, up to `n_drops` times the next
    drop is tried; then training ends.
    """
    drops = 0
    for epoch in range(1, max_iter + 1):
        if before(epoch, drops, moments):
            monitor.stopping.excuse()
        loss = trainer.epoch(optimizer, moments, rate(epoch, drops))
        if monitor(loss):
            if drops == n_drops:
                return True
            drops += 1
    return False


def lbfgs(
    trainer: Trainer, *, max_iter: int, max_fun: int, tol: float, monitor: Monitor
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
        if monitor(loss):
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
    trainer.theta[...] = result.x
    if not monitor.losses:
        monitor(loss)
    if result.success or result.status == STOPPED:
        return None
    # A line search also fails where rounding allows no progress any more.
    size = max(1.0, float(np.abs(result.x).max()))
    steepest = float(np.abs(result.jac).max()) * size
    rounding = math.sqrt(np.finfo(trainer.theta.dtype).eps) * abs(loss.total)
    return str(result.message) if steepest > rounding else None
