"""A penalty makes a code sparse: it says which units fire, and what that costs.

It works on the encoder's output `h`, one row of it for each row of X, and writes the
code `a`. Some penalties keep numbers of their own for each unit, `own`, that are
learnt by their gradient, or follow from the rows: thresholds and mean activations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from skae._validation import NON_NEGATIVE, OPEN_FRACTION, POSITIVE, POSITIVE_INT
from skae.activations import ACTIVATIONS
from skae.component import Component
from skae.layout import Array

__all__ = [
    "L1",
    "PENALTIES",
    "BatchTopK",
    "Gated",
    "Hoyer",
    "JumpReLU",
    "KLDivergence",
    "Penalty",
    "TopK",
]

#: Blocks of encoder outputs and of the weights of their rows, as often as asked for.
Blocks = Callable[[], Iterator[tuple[Array, Array]]]

#: In rows at least so wide, every so many entries are looked at before all are.
WIDE, STRIDE = 512, 8

#: Half of a single-precision number has so many values.
WORDS = 2**16

#: What stands for a mean of no rows.
NONE_YET = -1.0

#: Sums of weights that differ by less than this part are equal.
ROUNDING = 1e-9


class Penalty(Component, ABC):
    """A way to make codes sparse."""

    #: The encoder's activation if the user names none, and those that fit at all.
    code_activation: ClassVar[str] = "relu"
    activations: ClassVar[frozenset[str]] = frozenset(ACTIVATIONS)

    #: How many of the numbers, the first ones, have a gradient.
    n_learned: ClassVar[int] = 0

    #: Whether what becomes of a row in training depends on its batch.
    rows_meet: ClassVar[bool] = False

    #: Whether `backward` is the derivative of what `forward` writes.
    is_differentiable: ClassVar[bool] = True

    #: Whether the penalty looks at how large outputs are, so that the decoder's
    #: directions for the units should have the same length.
    compares_sizes: ClassVar[bool] = False

    #: Whether a second code, decoded with frozen weights, teaches which units fire.
    has_gate: ClassVar[bool] = False

    @property
    def start(self) -> tuple[float, ...]:
        """Where the numbers of a unit start; it has as many."""
        return ()

    @property
    def fewest_rows(self) -> float:
        """The smallest batch in which what rows meet in is accurate."""
        return 0.0

    def meet(self, h: Array, weight: Array, own: Array) -> Array:
        """Return the units' numbers as the rows of one batch in training see them."""
        return own

    def remember(self, own: Array, met: Array) -> Array:
        """Return the units' numbers after a batch whose rows have met in `met`."""
        return own

    def settle(self, blocks: Blocks, own: Array) -> Array:
        """Return the units' numbers as rows in several blocks see them together."""
        return own

    @abstractmethod
    def forward(self, h: Array, own: Array, a: Array, cost: Array) -> None:
        """Write the code to `a` and what it costs each row to `cost`."""

    @abstractmethod
    def backward(
        self,
        h: Array,
        own: Array,
        a: Array,
        d_a: Array,
        weight: Array,
        d_h: Array,
        d_own: Array,
    ) -> None:
        """Write ``dL/dh`` and each row's part of ``dL/d own``, the cost included.

        `weight` is what the cost of each row counts; `d_own` has shape (n_rows,
        n_learned, n_components).
        """

    def thresholds(self, own: Array) -> Array | None:
        """Return the encoder outputs above which units fire, if there are any."""
        return None

    def firing(self, a: Array) -> Array:
        """Return how much each unit fires in each row, between zero and one."""
        return np.asarray(a != 0)


class KLDivergence(Penalty):
    r"""The mean activation of each unit is drawn to a target.

    .. math:: \mathrm{cost} = \sum_j \rho \log \frac{\rho}{\hat\rho_j}
              + (1 - \rho) \log \frac{1 - \rho}{1 - \hat\rho_j}, \qquad
              \hat\rho_j = \frac{\sum_i w_i h_{ij}}{\sum_i w_i}

    The mean :math:`\hat\rho_j` is taken over the rows of the batch, weighted by
    `sample_weight`. Its sampling error adds to the cost, by
    :math:`\mathrm{var}(h_j) / (2 B \rho (1 - \rho))` for a batch of B rows: the fewer
    rows, the more even the activations have to be. With a `memory`, the mean is a
    running one over about as many rows, the cost's derivative is taken there, and the
    size of the batch does not matter.

    Codes lie in (0, 1), as probabilities to fire. Means outside the floating-point
    numbers between zero and one count as the nearest of these.

    Ng, A. (2011), "Sparse autoencoder", CS294A lecture notes. Lee, Ekanadham & Ng
    (2008), "Sparse deep belief net model for visual area V2", NIPS.

    Parameters
    ----------
    sparsity_target : float, default=0.1
        The mean activation wanted, in (0, 1).
    memory : float, default=0
        Rows that the running mean remembers: a row counts a fraction 1/e of the newest
        after as many rows. With zero, each batch stands for itself.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "sparsity_target": [OPEN_FRACTION],
        "memory": [NON_NEGATIVE],
    }

    code_activation = "logistic"
    activations = frozenset({"logistic"})
    rows_meet = True

    def __init__(self, sparsity_target: float = 0.1, memory: float = 0.0) -> None:
        self.sparsity_target = sparsity_target
        self.memory = memory

    @property
    def start(self) -> tuple[float, ...]:
        """There is no running mean before the first batch."""
        return (NONE_YET,)

    @property
    def fewest_rows(self) -> float:
        """The batch in which a mean's sampling error is half of the target.

        The activations are taken for zeros and ones, the worst case.
        """
        if self.memory > 0:
            return 0.0
        return 4.0 * (1.0 - self.sparsity_target) / self.sparsity_target

    def meet(self, h: Array, weight: Array, own: Array) -> Array:
        """Return the mean activations, earlier batches' included."""
        mean: Array = ((weight @ h) / weight.sum())[None]
        if self.memory > 0:
            kept = np.exp(-len(h) / self.memory).astype(h.dtype)
            mean += np.where(own == NONE_YET, 0.0, kept) * (own - mean)
        return mean

    def remember(self, own: Array, met: Array) -> Array:
        """Return the running mean."""
        return met

    def settle(self, blocks: Blocks, own: Array) -> Array:
        """Return the mean activations of all rows."""
        sums, total = np.zeros(own.shape[1]), 0.0
        for h, weight in blocks():
            sums += weight @ h
            total += float(weight.sum(dtype=float))
        return sums[None] / total

    def mean_activation(self, own: Array) -> Array:
        """Return the means, none of them zero or one."""
        limits = np.finfo(own.dtype)
        return np.asarray(np.clip(own[0], limits.tiny, 1.0 - limits.epsneg))

    def forward(self, h: Array, own: Array, a: Array, cost: Array) -> None:
        """Write ``a = h`` and the divergences of the means, the same for each row."""
        a[...] = h
        rho, mean = self.sparsity_target, self.mean_activation(own)
        kl = rho * np.log(rho / mean) + (1 - rho) * np.log((1 - rho) / (1 - mean))
        cost.fill(kl.sum())

    def backward(
        self,
        h: Array,
        own: Array,
        a: Array,
        d_a: Array,
        weight: Array,
        d_h: Array,
        d_own: Array,
    ) -> None:
        """Write ``d_a + w ((1 - rho) / (1 - mean) - rho / mean)``."""
        rho, mean = self.sparsity_target, self.mean_activation(own)
        slope = (1 - rho) / (1 - mean) - rho / mean
        np.multiply(weight[:, None], slope, out=d_h)
        d_h += d_a

    def firing(self, a: Array) -> Array:
        """Return the activations, which are probabilities."""
        return a


class L1(Penalty):
    r"""The absolute values of the code are added up.

    .. math:: \mathrm{cost} = \sum_j |a_j|, \qquad a = h

    Because a larger decoder would make up for smaller codes, the decoder's directions
    are kept at length one.

    Olshausen & Field (1996), "Emergence of simple-cell receptive field properties by
    learning a sparse code for natural images", Nature 381. Bricken et al. (2023),
    "Towards monosemanticity: decomposing language models with dictionary learning".
    """

    compares_sizes = True

    def forward(self, h: Array, own: Array, a: Array, cost: Array) -> None:
        """Write ``a = h`` and the sum of absolute values."""
        a[...] = h
        np.sum(np.abs(h), axis=1, out=cost)

    def backward(
        self,
        h: Array,
        own: Array,
        a: Array,
        d_a: Array,
        weight: Array,
        d_h: Array,
        d_own: Array,
    ) -> None:
        """Write ``d_a + w sign(a)``."""
        np.multiply(weight[:, None], np.sign(h), out=d_h)
        d_h += d_a


class Hoyer(Penalty):
    r"""The squared ratio of the code's L1 and L2 norms, the same at every scale.

    .. math:: \mathrm{cost} = \frac{(\sum_j |a_j|)^2}{\sum_j a_j^2}, \qquad a = h

    It counts units that fire equally, and less where some fire more than others:
    between one and the number of units that fire, and zero where none does. A single
    unit could make itself large beside the others, so that the decoder's directions
    are kept at length one.

    Hoyer (2004), "Non-negative matrix factorization with sparseness constraints",
    JMLR 5. Yang, Wen & Li (2020), "DeepHoyer", ICLR.
    """

    compares_sizes = True

    def forward(self, h: Array, own: Array, a: Array, cost: Array) -> None:
        """Write ``a = h`` and the squared ratio of norms."""
        a[...] = h
        size, square = norms(h)
        np.divide(np.square(size), square, out=cost)

    def backward(
        self,
        h: Array,
        own: Array,
        a: Array,
        d_a: Array,
        weight: Array,
        d_h: Array,
        d_own: Array,
    ) -> None:
        """Write ``d_a + 2 w r (sign(a) - r a)``, r the L1 norm over the squared L2."""
        size, square = norms(h)
        ratio = (size / square)[:, None]
        np.multiply(h, -ratio, out=d_h)
        d_h += np.sign(h)
        d_h *= 2.0 * weight[:, None] * ratio
        d_h += d_a


def norms(h: Array) -> tuple[Array, Array]:
    """Return the L1 norm and the squared L2 norm of each row, the latter positive."""
    square = np.square(h).sum(axis=1)
    return np.abs(h).sum(axis=1), np.maximum(square, np.finfo(h.dtype).tiny)


class Selection(Penalty):
    """A penalty that lets some units fire as they are, for nothing."""

    compares_sizes = True

    def backward(
        self,
        h: Array,
        own: Array,
        a: Array,
        d_a: Array,
        weight: Array,
        d_h: Array,
        d_own: Array,
    ) -> None:
        """Write `d_a` where a unit fires."""
        np.multiply(d_a, a != 0, out=d_h)


class TopK(Selection):
    r"""In each row the k largest units fire, the others are zero.

    .. math:: a_j = h_j \ \text{if} \ h_j \ \text{is among the} \ k \
              \text{largest of} \ h, \ \text{else} \ 0; \qquad \mathrm{cost} = 0

    Of units that are equal, the first ones count as larger.

    Makhzani & Frey (2014), "k-sparse autoencoders", ICLR. Gao et al. (2025), "Scaling
    and evaluating sparse autoencoders", ICLR.

    Parameters
    ----------
    k : int, default=32
        Units that fire in each row, at most `n_components`.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"k": [POSITIVE_INT]}

    def __init__(self, k: int = 32) -> None:
        self.k = k

    def forward(self, h: Array, own: Array, a: Array, cost: Array) -> None:
        """Write the largest units, and no cost."""
        keep(h, largest(h, self.k), a)
        cost.fill(0.0)


def keep(h: Array, fires: Array, a: Array) -> None:
    """Write `h` where a unit fires, and zero elsewhere, never a negative one."""
    np.multiply(h, fires, out=a)
    a += 0.0


def largest(h: Array, k: int) -> Array:
    """Return where the k largest entries of each row are; of equal ones, the first.

    Entries that equal zero may all be said to be, as they fire in no case.
    """
    if k >= h.shape[1]:
        return np.ones(h.shape, dtype=bool)
    smallest = kth_largest(h, k)[:, None]
    chosen = np.asarray(h >= smallest)
    excess = np.count_nonzero(chosen, axis=1) - k
    rows = np.flatnonzero((excess > 0) & (smallest[:, 0] != 0))
    if len(rows):
        tied = h[rows] == smallest[rows]
        last = tied.sum(axis=1) - excess[rows]
        chosen[rows] &= ~tied | (np.cumsum(tied, axis=1) <= last[:, None])
    return chosen


def kth_largest(h: Array, k: int) -> Array:
    """Return the k-th largest entry of each row.

    Some entries of a row tell where it will lie, at least; only larger entries are
    then looked at, if these are enough. It saves most of the time for wide rows, and
    keeps away from the many zeros of rectified outputs, where partitions can be very
    slow: of such rows, positive entries are enough.
    """
    n = h.shape[1]
    probe = h[:, ::STRIDE]
    place = probe.shape[1] - 2 * k // STRIDE - STRIDE
    if n >= WIDE and place >= 0:
        least, rest = -np.inf, -np.inf
        if h.min() >= 0:
            least, rest = np.finfo(h.dtype).smallest_subnormal, 0.0
        floor = np.partition(probe, place, axis=1)[:, place, None]
        above = h >= np.maximum(floor, least)
        counts = np.count_nonzero(above, axis=1)[:, None]
        if ((counts >= k) | (floor < least)).all() and 2 * counts.max() <= n:
            n = max(k, counts.max())
            kept = np.full((len(h), n), rest, h.dtype)
            kept[np.arange(n) < counts] = h[above]
            h = kept
    return np.asarray(np.partition(h, n - k, axis=1)[:, n - k])


class BatchTopK(Selection):
    r"""In a batch of B rows the B k largest entries fire, the others are zero.

    .. math:: a_j = h_j \ \text{if} \ h_j \ge \theta, \ \text{else} \ 0; \qquad
              \mathrm{cost} = 0

    A row may use more units than another. Rows of unequal weight count by their
    weight. After training, :math:`\theta` is the threshold above which k units fire in
    a row of the training data, on average, to single precision; it makes the code of a
    row its own affair.

    Bussmann, Leask & Nanda (2024), "BatchTopK sparse autoencoders", arXiv:2412.06410.

    Parameters
    ----------
    k : int, default=32
        Units that fire in a row, on average; at most `n_components`.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"k": [POSITIVE_INT]}

    activations = frozenset({"logistic", "relu", "softplus"})
    rows_meet = True

    def __init__(self, k: int = 32) -> None:
        self.k = k

    @property
    def start(self) -> tuple[float, ...]:
        """The threshold starts at zero."""
        return (0.0,)

    def meet(self, h: Array, weight: Array, own: Array) -> Array:
        """Return the smallest entry that fires in this batch, for each unit."""
        return np.full_like(own, threshold(h, weight, self.k))

    def settle(self, blocks: Blocks, own: Array) -> Array:
        """Return the threshold for all rows, half-way between two values."""
        return np.full(own.shape, threshold_of_all(blocks, self.k))

    def thresholds(self, own: Array) -> Array | None:
        """Return the one threshold, for each unit."""
        return np.array(own[0])

    def forward(self, h: Array, own: Array, a: Array, cost: Array) -> None:
        """Write the units above the threshold, and no cost."""
        keep(h, h >= own[0], a)
        cost.fill(0.0)


def threshold(h: Array, weight: Array, k: int) -> float:
    """Return the smallest of the entries that fire if k do in a row, on average."""
    if k >= h.shape[1]:
        return 0.0
    if (weight == weight[0]).all():
        return float(kth_largest(h.reshape(1, -1), k * len(h))[0])
    wanted = k * weight.sum(dtype=float) * (1 - ROUNDING)
    flat, each = h.ravel(), np.repeat(weight.astype(np.float64), h.shape[1])
    # Twice as many entries weigh enough, unless weights are very unequal.
    floor = kth_largest(flat[None], min(2 * k * len(h), h.size))[0]
    kept = np.flatnonzero(flat >= floor)
    if each[kept].sum() < wanted:
        kept = np.arange(h.size)
    order = kept[np.argsort(flat[kept])[::-1]]
    return float(flat[order[np.searchsorted(np.cumsum(each[order]), wanted)]])


def threshold_of_all(blocks: Blocks, k: int) -> float:
    """Return the threshold for rows that need not fit into memory.

    Positive single-precision numbers are ordered as their bits are: the rows are
    counted by their upper and, in a second pass, by their lower 16 bits.
    """
    upper, rows = np.zeros(WORDS), 0.0
    for bits, weight, n_rows in positive_bits(blocks):
        upper += np.bincount(bits >> 16, weight, WORDS)
        rows += n_rows
    above = np.cumsum(upper[::-1])[::-1]
    wanted = k * rows * (1 - ROUNDING)
    if above[0] < wanted:
        return 0.0
    word = int(np.flatnonzero(above >= wanted)[-1])
    lower, below = np.zeros(WORDS), 0
    for bits, weight, _ in positive_bits(blocks):
        inside = bits >> 16 == word
        lower += np.bincount(bits[inside] & (WORDS - 1), weight[inside], WORDS)
        below = max(below, int(bits[bits >> 16 < word].max(initial=0)))
    above = np.cumsum(lower[::-1])[::-1] + above[word] - upper[word]
    last = int(np.flatnonzero(above >= wanted)[-1])
    less = np.flatnonzero(lower[:last])
    if len(less):
        below = word * WORDS + int(less[-1])
    ends = np.array([below, word * WORDS + last], np.uint32).view(np.float32)
    middle = np.float32(ends.astype(np.float64).mean())
    return float(middle if middle > ends[0] else ends[1])


def positive_bits(blocks: Blocks) -> Iterator[tuple[Array, Array, float]]:
    """Yield the bits of a block's positive entries, their weights, and all rows'."""
    for h, weight in blocks():
        row, column = np.nonzero(h > 0)
        bits = h[row, column].astype(np.float32).view(np.uint32)
        yield bits, weight[row], float(weight.sum(dtype=float))


class JumpReLU(Penalty):
    r"""A unit fires above a threshold that it learns; each that fires costs a nat.

    .. math:: a_j = h_j \, \mathrm{H}(h_j - \theta_j), \qquad
              \mathrm{cost} = \sum_j \mathrm{H}(h_j - \theta_j)

    H is the step function. It has no slope, so that :math:`\theta` is learnt by an
    estimate of the slope of the mean over rows: a row counts if the unit's output is
    within half a `bandwidth` :math:`b` of the threshold, with weight 1 / b,

    .. math:: \frac{\partial a_j}{\partial \theta_j} \approx -\frac{\theta_j}{b}
              \mathbb{1}\bigl[|h_j - \theta_j| < \tfrac{b}{2}\bigr], \qquad
              \frac{\partial\, \mathrm{cost}}{\partial \theta_j} \approx -\frac{1}{b}
              \mathbb{1}\bigl[|h_j - \theta_j| < \tfrac{b}{2}\bigr] .

    What is learnt is :math:`\log \theta`.

    Rajamanoharan et al. (2024), "Jumping ahead: improving reconstruction fidelity with
    JumpReLU sparse autoencoders", arXiv:2407.14435.

    Parameters
    ----------
    initial_threshold : float, default=0.1
        Where the thresholds start, positive; in units of the encoder's output.
    bandwidth : float, default=0.5
        Width of the window around a threshold, in the same units.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "initial_threshold": [POSITIVE],
        "bandwidth": [POSITIVE],
    }

    code_activation = "identity"
    activations = frozenset({"identity"})
    n_learned = 1
    is_differentiable = False
    compares_sizes = True

    def __init__(self, initial_threshold: float = 0.1, bandwidth: float = 0.5) -> None:
        self.initial_threshold = initial_threshold
        self.bandwidth = bandwidth

    @property
    def start(self) -> tuple[float, ...]:
        """The logarithm of the threshold."""
        return (float(np.log(self.initial_threshold)),)

    def thresholds(self, own: Array) -> Array | None:
        """Return the thresholds themselves."""
        return np.asarray(np.exp(own[0]))

    def forward(self, h: Array, own: Array, a: Array, cost: Array) -> None:
        """Write the units above their thresholds, and how many there are."""
        fires = h > np.exp(own[0])
        keep(h, fires, a)
        cost[...] = np.count_nonzero(fires, axis=1)

    def backward(
        self,
        h: Array,
        own: Array,
        a: Array,
        d_a: Array,
        weight: Array,
        d_h: Array,
        d_own: Array,
    ) -> None:
        """Write `d_a` where a unit fires, and the slope's estimate at thresholds."""
        theta = np.exp(own[0])
        np.multiply(d_a, a != 0, out=d_h)
        near = np.abs(h - theta) < 0.5 * self.bandwidth
        d_theta = near * (theta * d_a + weight[:, None])
        np.multiply(d_theta, -theta / self.bandwidth, out=d_own[:, 0])


class Gated(Penalty):
    r"""The encoder's output decides which units fire, and a scaled copy how much.

    .. math:: a_j = \mathrm{H}(h_j) \, \max(0, e^{r_j} h_j + b_j), \qquad
              \mathrm{cost} = \sum_j \max(0, h_j)

    H is the step function. The cost shrinks the gates, :math:`\max(0, h)`, but not the
    code, because :math:`r` and :math:`b` are learnt for each unit. Which units fire is
    learnt from the gates' own reconstruction: the loss of decoding them as if they were
    the code, with frozen decoder weights, is added.

    Rajamanoharan et al. (2024), "Improving dictionary learning with gated sparse
    autoencoders", arXiv:2404.16014.
    """

    code_activation = "identity"
    activations = frozenset({"identity"})
    n_learned = 2
    is_differentiable = False
    compares_sizes = has_gate = True

    @property
    def start(self) -> tuple[float, ...]:
        """The logarithm of the scale, and the shift."""
        return (0.0, 0.0)

    def thresholds(self, own: Array) -> Array | None:
        """Return where both the gate and the magnitude are positive."""
        return np.asarray(np.maximum(0.0, -own[1] * np.exp(-own[0])))

    def forward(self, h: Array, own: Array, a: Array, cost: Array) -> None:
        """Write the magnitudes of open gates, and the sum of the gates."""
        np.multiply(h, np.exp(own[0]), out=a)
        a += own[1]
        np.maximum(a, 0.0, out=a)
        a *= h > 0
        np.sum(np.maximum(h, 0.0), axis=1, out=cost)

    def backward(
        self,
        h: Array,
        own: Array,
        a: Array,
        d_a: Array,
        weight: Array,
        d_h: Array,
        d_own: Array,
    ) -> None:
        """Write ``d_a exp(r) + w`` where gates are open, and ``d_r, d_b``."""
        scale = np.exp(own[0])
        np.multiply(d_a, a != 0, out=d_own[:, 1])
        np.multiply(d_own[:, 1], scale, out=d_h)
        np.multiply(d_h, h, out=d_own[:, 0])
        d_h += weight[:, None] * (h > 0)


PENALTIES: dict[str, type[Penalty]] = {
    "batchtopk": BatchTopK,
    "gated": Gated,
    "hoyer": Hoyer,
    "jumprelu": JumpReLU,
    "kl": KLDivergence,
    "l1": L1,
    "topk": TopK,
}
