"""What each member of a crew does in a step of training, with its share of the memory.

A member has some rows of the batch, from data to deltas, and then some rows of the
weights, from gradient to step. Within a phase nothing is written by two members.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skae.corruptions import Bounds
from skae.crew import Work
from skae.layout import Array, Part, share
from skae.objective import Batch, Loss, Objective
from skae.optimizers import Moments, Optimizer
from skae.rows import Rows

__all__ = ["Share", "each"]

#: The loss of no rows.
NO_LOSS = Loss(0.0, 0.0, 0.0)


class Share:
    """One member's share of the steps with batches of one size.

    All views are made here, once and for all.

    Parameters
    ----------
    objective : Objective
        What is minimised.
    theta, grad : ndarray of shape (n_parameters,)
        Parameters and their gradient.
    rows : Rows
        The training rows.
    whole : Batch
        The memory of the batch.
    part : tuple of int
        Which share it is, and of how many.

    Attributes
    ----------
    batch : Batch
        The member's rows of the batch.
    loss : Loss
        What the member's rows add to the batch's loss.
    penalty : float
        The penalty on the member's weights.
    """

    def __init__(
        self,
        objective: Objective,
        theta: Array,
        grad: Array,
        rows: Rows,
        whole: Batch,
        part: Part,
    ) -> None:
        self.objective, self.theta, self.grad = objective, theta, grad
        self.part, self.place = part, share(len(whole.x), part)
        self.rows, self.whole = rows.share(self.place), whole
        self.batch = whole.rows(self.place.start, self.place.stop)
        self.params, self.grads = objective.of(theta, part), objective.of(grad, part)
        self.places, self.mine = objective.places(part), objective.rows(part)
        self.loss, self.penalty = NO_LOSS, 0.0

    # --- rows of the batch ----------------------------------------------------------

    def take(self, damage: Any, noise: Array) -> None:
        """Take the share in the draws of a batch."""
        meet = self.objective.corruption.rows_meet
        self.batch.damage = damage if meet else damage[self.place]
        self.batch.noise = noise[self.place]

    def load(self, index: Array, total: float) -> None:
        """Fetch rows, what is to be explained of them, and their weights."""
        mine, batch = index[self.place], self.batch
        self.rows.load(mine, batch.x, batch.weight, total)
        self.rows.load_target(mine, batch.target)

    def see(self, bounds: Bounds) -> None:
        """Find what the encoder sees."""
        self.objective.see(self.batch, bounds)

    def encode(self) -> None:
        """Find the encoder's outputs."""
        self.objective.encode_phase(self.params, self.batch)

    def decode(self, own: Array) -> None:
        """Find losses and deltas."""
        if len(self.batch.x):
            self.objective.decode_phase(self.params, own, self.batch)
            self.loss = self.objective.loss(self.batch)

    # --- rows of the weights --------------------------------------------------------

    def weigh(self, fresh: bool) -> None:
        """Form the gradient, or add to it."""
        self.objective.weight_phase(self.whole, self.grads, self.mine, fresh)

    def penalize(self, fixed: Array) -> None:
        """Add the penalty on weights; fixed shared parameters have no slope."""
        self.penalty = self.objective.decay(self.params, self.grads)
        if self.objective.n_slopes:
            mine = self.mine[self.objective.shared.start]
            self.grads.shared[mine][fixed[mine]] = 0.0

    def constrain(self) -> None:
        """Take out of the gradient what would change the length of directions."""
        self.objective.constrain(self.params, self.grads, self.part)

    def move(self, optimizer: Optimizer, moments: Moments, rate: float) -> None:
        """Take the step."""
        optimizer.decay(self.params.weights, rate)
        optimizer.move(self.theta, self.grad, moments, rate, self.places)

    def restore(self) -> None:
        """Give directions their length back."""
        self.objective.restore(self.params, self.part)


def each(team: list[Share], work: Callable[[Share], None]) -> Work:
    """Return what lets each member do the same with its share."""
    return lambda part: work(team[part[0]])
