"""The choice of a distribution for each column, by its values.

``distribution="auto"`` asks for it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, sparse

from skae.distributions import DISTRIBUTIONS, Distribution
from skae.layout import Array
from skae.rows import blocks

__all__ = ["choose"]

#: Candidates from the simplest on: for whole numbers, and for all others.
WHOLE = (
    "poisson",
    "gaussian",
    "negative_binomial",
    "zero_inflated_negative_binomial",
    "student_t",
)
REAL = ("gaussian", "exponential", "gamma", "log_normal", "beta", "student_t")

#: The simplest candidate is taken that is as good as the best one up to so many nats:
#: odds of twenty to one.
MARGIN = 3.0

#: Candidates are compared on so many evenly spaced rows: on as many as have this number
#: of entries, within these limits.
ENTRIES, FEWEST, MOST = 2**18, 128, 4096

#: No density explains a value that so large a share of the rows has: a peak with tails
#: at any value, and an exponential at zero, would be taken for it.
MOST_EQUAL, MOST_ZEROS = 0.5, 0.1

#: Where a column's spread is a smaller part of its mean, families of positive values
#: differ little from the normal one. They are not centred, and learn such a column
#: slowly.
NARROW = 0.1

#: Columns that are fitted together, the steps that a fit may take, and the gain in nats
#: of all rows below which it stops.
TOGETHER, STEPS, LEAST_GAIN = 128, 40, 0.01


def choose(data: Any, weight: Any, names: Any) -> list[tuple[str, list[int]]]:
    """Choose a family for each column by its values.

    Zeros and ones are Bernoulli, adjacent ones that always sum to one categorical.
    Any other column gets the family that makes it most likely if no code is known, by
    the criterion of Schwarz (1978): half the logarithm of the number of rows is the
    price of a parameter. Gamma and log-normal are no candidates where the spread is
    less than a tenth of the mean.

    Parameters
    ----------
    data : ndarray or CSR matrix of shape (n_samples, n_features)
        The data. Values decide, so that a column of booleans is one of zeros and ones.
    weight : ndarray of shape (n_samples,) or None
        Weights of the rows; rows of weight zero count as absent.
    names : ndarray of str or None
        The columns' names.
    """
    rows = np.arange(data.shape[0]) if weight is None else np.flatnonzero(weight)
    facts = Facts.of(data, rows)
    binary = facts.whole & (facts.low >= 0) & (facts.high <= 1)
    constant = facts.low == facts.high
    candidates = possible_groups(facts, binary, names)
    groups, few = look_again(data, rows, facts, np.flatnonzero(binary), candidates)
    # A column of zeros alone may hold anything in other rows.
    family = np.where(binary & ~constant, "bernoulli", "gaussian").astype(object)
    open_ = np.flatnonzero(~binary & ~few)
    family[open_] = most_likely(data, rows, weight, open_, facts)
    kinds: list[Any] = family.tolist()
    for i, group in enumerate(groups):
        for j in group:
            kinds[j] = "categorical", i
    found: dict[Any, list[int]] = {}
    for j, kind in enumerate(kinds):
        found.setdefault(kind, []).append(j)
    return [
        (kind if isinstance(kind, str) else kind[0], columns)
        for kind, columns in found.items()
    ]


class Facts(NamedTuple):
    """What all rows say about the columns.

    Attributes
    ----------
    n_rows : int
        Number of rows.
    low, high : ndarray of shape (n_features,)
        The smallest and the largest value.
    whole : ndarray of shape (n_features,), bool
        Whether all values are whole numbers.
    total : ndarray of shape (n_features,)
        The sum; of zeros and ones the number of ones.
    """

    n_rows: int
    low: Array
    high: Array
    whole: Array
    total: Array

    @classmethod
    def of(cls, data: Any, rows: Array) -> Facts:
        """Look at the rows block by block."""
        d = data.shape[1]
        low, high = np.full(d, np.inf), np.full(d, -np.inf)
        whole, total = np.ones(d, dtype=bool), np.zeros(d)
        for _, block in blocks(data, rows):
            low = np.minimum(low, block.min(axis=0))
            high = np.maximum(high, block.max(axis=0))
            whole &= (np.floor(block) == block).all(axis=0)
            with np.errstate(over="ignore", invalid="ignore"):
                total += block.sum(axis=0, dtype=np.float64)
        return cls(len(rows), low, high, whole, total)


def possible_groups(facts: Facts, binary: Array, names: Any) -> list[tuple[int, int]]:
    """Return beginnings and ends of adjacent columns that may be one category each.

    They hold as many ones as there are rows. If columns have names, these begin alike
    up to a "_", as OneHotEncoder and get_dummies make them; columns of zeros then
    belong to the group as well, for a category that never occurs.
    """
    found, last = [], ends_of_runs(binary, names)
    ones = np.append(0.0, np.cumsum(np.where(binary, facts.total, 0.0)))
    stops = np.searchsorted(ones, ones[:-1] + facts.n_rows)
    possible = binary & (stops <= last)
    if names is None:
        possible &= facts.total > 0
    for start in np.flatnonzero(possible).tolist():
        stop = int(stops[start])
        exact = ones[stop] == ones[start] + facts.n_rows
        if exact and np.count_nonzero(facts.total[start:stop]) > 1:
            found.append((start, with_zeros(facts, names, stop, last[start])))
    return found


def ends_of_runs(binary: Array, names: Any) -> Array:
    """Return, for each column, where the run of columns ends that are of its kind.

    These are binary, and their names, if there are any, have one and the same
    beginning, which ends in "_".
    """
    d, last = len(binary), np.arange(len(binary))
    kind = [start_of_name("_" if names is None else str(names[j])) for j in range(d)]
    end = 0
    for j in reversed(range(d)):
        follows = j + 1 < d and kind[j] == kind[j + 1] and binary[j + 1]
        end = end if follows else j + 1
        last[j] = end if binary[j] and kind[j] else j
    return last


def start_of_name(name: str) -> str:
    """Return a name up to its first "_"; nothing if there is none."""
    return name[: name.find("_") + 1]


def with_zeros(facts: Facts, names: Any, stop: int, last: int) -> int:
    """Return the end of a group: columns of zeros follow it if their names fit."""
    if names is None:
        return stop
    stems = [str(name).rpartition("_")[0] for name in names[stop - 1 : last]]
    end = stop
    while end < last and facts.total[end] == 0 and stems[end - stop + 1] == stems[0]:
        end += 1
    return end


def look_again(
    data: Any,
    rows: Array,
    facts: Facts,
    binary: Array,
    candidates: list[tuple[int, int]],
) -> tuple[list[range], Array]:
    """Return the groups that sum to one in every row, and which columns are two-valued.

    Of overlapping groups the first one counts. Columns of two values, or of one, are
    known by them: no density has a say.
    """
    ends = np.array(candidates, dtype=np.intp).reshape(-1, 2)
    # Sums from the left; the groups lie within `binary` without a gap.
    start, stop = (
        np.searchsorted(binary, ends[:, 0]),
        np.searchsorted(binary, ends[:, 1]),
    )
    exact, few = np.ones(len(ends), dtype=bool), np.ones(data.shape[1], dtype=bool)
    for _, block in blocks(data, rows):
        few &= ((block == facts.low) | (block == facts.high)).all(axis=0)
        if exact.any():
            sums = np.zeros((len(block), len(binary) + 1))
            np.cumsum(block[:, binary], axis=1, out=sums[:, 1:])
            exact[exact] = (sums[:, stop[exact]] - sums[:, start[exact]] == 1).all(
                axis=0
            )
    groups: list[range] = []
    for first, last in ends[exact].tolist():
        if not groups or first >= groups[-1].stop:
            groups.append(range(first, last))
    return groups, few


def most_likely(
    data: Any, rows: Array, weight: Any, columns: Array, facts: Facts
) -> Array:
    """Return the best family of each of some columns."""
    n = int(np.clip(ENTRIES // max(len(columns), 1), FEWEST, MOST))
    chosen = rows[np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(np.intp)]
    share = np.ones(len(chosen)) if weight is None else weight[chosen]
    share = share / share.sum(dtype=np.float64)
    family = np.full(data.shape[1], "gaussian", dtype=object)
    whole = facts.whole[columns]
    for those, candidates in ((columns[whole], WHOLE), (columns[~whole], REAL)):
        for start in range(0, len(those), TOGETHER):
            place = those[start : start + TOGETHER]
            ends = np.array([facts.low[place], facts.high[place]])
            family[place] = best(picked(data, chosen, place), share, ends, candidates)
    return family[columns]


def picked(data: Any, rows: Array, columns: Array) -> Array:
    """Return some entries in double precision."""
    if sparse.issparse(data):
        return np.asarray(data[rows][:, columns].toarray(), np.float64)
    return np.asarray(data[np.ix_(rows, columns)], np.float64)


def best(x: Array, share: Array, ends: Array, candidates: tuple[str, ...]) -> list[str]:
    """Return the simplest candidate for each column that is as good as any.

    A density has infinitely more to say than a probability: whole numbers are spread
    over an interval of length one before densities see them.
    """
    price, smooth = np.full((len(candidates), x.shape[1]), np.inf), x
    if candidates is WHOLE:
        smooth = x + np.random.default_rng(0).uniform(-0.5, 0.5, x.shape)
    for i, name in enumerate(candidates):
        family = DISTRIBUTIONS[name]()
        fits = ~family.support.outside(ends).any(axis=0)
        values = x if family.support.whole else smooth
        if name == "zero_inflated_negative_binomial":
            fits &= ends[0] == 0
        if name == "student_t":
            fits &= share @ (x == np.median(x, axis=0)) <= MOST_EQUAL
        if name in ("gamma", "log_normal"):
            fits &= ~is_narrow(x, share)
        if name == "exponential":
            fits &= share @ (x == 0) <= MOST_ZEROS
        if fits.any():
            price[i, fits] = cost(family, values[:, fits], share)
    price[np.isnan(price)] = np.inf
    lowest = price.min(axis=0)
    first = np.argmax(price <= lowest + MARGIN, axis=0)
    first[~np.isfinite(lowest)] = candidates.index("gaussian")
    return [candidates[i] for i in first]


def is_narrow(x: Array, share: Array) -> Array:
    """Return whether each column's spread is a small part of its mean."""
    with np.errstate(all="ignore"):
        mean = share @ x
        return np.asarray(share @ np.square(x / mean - 1) < NARROW**2)


def cost(family: Distribution, x: Array, share: Array) -> Array:
    """Return what columns cost under a family: nats of all rows and of parameters.

    `share` are the weights of the rows, which sum to one.
    """
    n, d = x.shape
    with np.errstate(all="ignore"):
        mean = share @ x
        spread = np.sqrt(share @ np.square(x - mean))
        center = np.where(family.centred(d), mean, 0.0)
        unit = np.where(family.scaled(d) & (spread > 0), spread, 1.0)
        x, variance = (x - center) / unit, np.square(spread / unit)
        eta, shared = family.start((mean - center) / unit, variance, n)
        found = share @ fitted(family, x, share, eta, shared, variance)
        price = 0.5 * np.log(n) * (len(eta) + len(shared)) / d
        return np.asarray(n * (found + np.log(unit)) + price)


def fitted(
    family: Distribution,
    x: Array,
    share: Array,
    eta: Array,
    shared: Array,
    variance: Array,
) -> Array:
    """Return the entries' losses where eta and shared, the same for all rows, are best.

    Columns do not meet: all are fitted at once, beginning with the moments.
    """
    cut, outs = len(eta), np.empty((2, *x.shape))
    start = np.concatenate([eta, np.clip(shared, *family.limits(variance))])
    limits = np.full((2, len(start)), [[-np.inf], [np.inf]])
    limits[:, cut:] = family.limits(variance)
    d_theta = np.empty((len(x), len(start)))

    def nll(theta: Array, out: Array) -> Array:
        family.nll(x, np.broadcast_to(theta[:cut], (len(x), cut)), theta[cut:], out)
        return out

    def loss(theta: Array) -> tuple[float, Array]:
        everywhere = np.broadcast_to(theta[:cut], (len(x), cut))
        d_eta, d_shared = d_theta[:, :cut], d_theta[:, cut:]
        family.gradient(x, everywhere, theta[cut:], d_eta, d_shared)
        return float(share @ nll(theta, outs[1]).sum(axis=1)), share @ d_theta

    end = optimize.minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=limits.T,
        options={"maxiter": STEPS, "ftol": LEAST_GAIN / len(x)},
    )
    first, last = nll(start, outs[0]), nll(end.x, outs[1])
    better = share @ last < share @ first
    return np.where(better, last, first)
