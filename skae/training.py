"""The training loop: epochs over minibatches, or L-BFGS over everything at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import optimize

from skae.layout import Array
from skae.objective import Batch, Loss, Objective
from skae.optimizers import Moments, Optimizer
from skae.rows import Rows

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
        self.places = objective.places
        self.params, self.grads = objective.of(theta), objective.of(self.grad)
        self.product = objective.product(theta.dtype)
        self.batch = objective.batch(self.batch_size, theta.dtype)
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

    def encode(self, index: Array, total: float) -> Batch:
        """Fetch rows, draw what belongs to them, and find their encoder outputs."""
        batch = self.batch
        if len(index) < len(batch.x):
            batch = batch.rows(0, len(index))
        self.rows.load(index, batch.x, batch.weight, total)
        self.rows.load_target(index, batch.target)
        self.objective.draw(batch, self.bounds, self.rng)
        self.objective.encode_phase(self.params, batch)
        return batch

    def evaluate(self, batch: Batch, own: Array) -> Loss:
        """Add the gradient of an encoded batch's loss to ``grad``; return the loss."""
        loss = self.objective.loss_and_gradient(
            self.params, own, batch, self.grads, self.product
        )
        if not math.isfinite(loss.total):
            raise DivergenceError(f"the loss is {loss.total}")
        return loss

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
        for place in self.places:
            self.grad[place] = 0.0
        objective, batch = self.objective, self.encode(index, total)
        own = objective.meet(self.params, batch)
        loss = self.begin(self.penalized(self.evaluate(batch, own)))
        objective.constrain(self.params, self.grads)
        optimizer.decay(self.params.weights, rate)
        optimizer.step(self.theta, self.grad, moments, rate, self.places)
        objective.restore(self.params)
        memory = objective.bottleneck.remember(self.params.own, own, batch.code)
        self.params.own[...] = memory
        if objective.learns_shared:
            np.clip(self.params.shared, *self.limits, out=self.params.shared)
        return loss

    def penalized(self, loss: Loss) -> Loss:
        """Add the penalty on weights, and what limits do to the gradient."""
        low, high = self.limits
        self.grads.shared[low == high] = 0.0
        return loss._replace(total=loss.total + self.decay())

    def decay(self) -> float:
        """Add the gradient of the penalty on weights; return its value."""
        return self.objective.decay(self.params, self.grads, self.product)

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
                sums += self.evaluate(self.encode(index, total), own)
        return self.begin(self.penalized(Loss(*sums.tolist())))

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

    def begin(self, loss: Loss) -> Loss:
        """Remember the loss of the very first step; return the loss as it is."""
        if self.first_loss is None:
            self.first_loss = loss.total
        return loss


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
