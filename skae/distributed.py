"""One model, fitted to more rows than any one machine holds.

The rows stay with the workers of a Dask cluster. A step sends them one vector, the
parameters, and one vector comes back, the gradient of a batch: each worker finds the
part of its own rows, and Dask adds the parts. All else, the optimiser and its memory,
the order of the rows, the schedule, early stopping, is here, and is that of `fit`.

What a worker does follows from what it is given: parameters, rows and a seed. Whatever
is lost with a worker, Dask computes again elsewhere, and nothing changes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from copy import copy
from functools import cached_property, partial
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.random import SFC64, Generator
from scipy import sparse

from skae._validation import (
    _fit_context,
    check_support,
    check_weight,
    column_name,
)
from skae.checkpoints import digest
from skae.composite import as_distribution
from skae.corruptions import Bounds
from skae.crew import Phase, alone, crew, hired
from skae.estimators._base import BaseAutoencoder
from skae.estimators._fitted import all_or_nothing
from skae.estimators._trained import FEWEST_SHARED, LEAST_WORK
from skae.estimators._watch import FitWatch
from skae.estimators.denoising import DenoisingAutoencoder
from skae.estimators.sparse import SparseAutoencoder
from skae.estimators.variational import VariationalAutoencoder
from skae.layout import Array
from skae.objective import Batch, Loss, Objective
from skae.optimizers import Moments, Optimizer
from skae.rows import Columns, Rows, blocks, row_keys
from skae.shares import NO_LOSS, Share
from skae.training import Trainer

__all__ = ["fit_distributed"]

#: Estimators that train one network, all of it in each step.
TRAINED = DenoisingAutoencoder, SparseAutoencoder, VariationalAutoencoder

Estimator = TypeVar("Estimator", bound=BaseAutoencoder)

#: Rows that a worker looks at together: enough for an efficient product.
ROWS = 1024

#: Results that one task adds up: fewer would take more levels, each with the latency
#: of a task, and more would wait for one worker's network.
FAN_IN = 4

#: Dask warns of large tasks. The parameters may be large; there is one such task.
LARGE = {"distributed.admin.large-graph-warning-threshold": "1 PB"}


def fit_distributed(
    estimator: Estimator, X: Any, *, sample_weight: Any = None, client: Any = None
) -> Estimator:
    """Fit an autoencoder to the rows of a Dask array, where they are.

    The steps are those of ``estimator.fit(X)``: the same batches in the same order, of
    which each worker takes the rows that it holds. Without corruption, and with a code
    that is not random, the model is the same up to rounding. Random draws differ from
    those of `fit`, and depend on the chunks of X; which worker holds a chunk, or is
    lost, changes nothing where workers have equally many threads.

    Parameters
    ----------
    estimator : DenoisingAutoencoder, SparseAutoencoder or VariationalAutoencoder
        What to fit, in place. With ``warm_start=True`` its training continues.
    X : dask array of shape (n_samples, n_features)
        Training data in chunks of rows, whose lengths are known; a chunk may also be a
        CSR matrix. Chunks are computed once and kept by the workers until the end. A
        step has one task for each chunk: one or two chunks for each thread of the
        cluster are best.
    sample_weight : array-like or dask array of shape (n_samples,), default=None
        Non-negative weights of the rows, as in `fit`.
    client : distributed.Client, default=None
        The cluster; None stands for the client that was created last.

    Returns
    -------
    estimator : object
        The same estimator, fitted: it no longer needs a cluster.

    Raises
    ------
    ImportError
        If Dask is not installed.
    TypeError
        If X is no dask array, or if the estimator is of another kind.
    ValueError
        As in `fit`; also if rows meet in training, as in ``penalty='batchtopk'``, if
        ``distribution='auto'`` would have to look at all rows, or if there is no
        client. The estimator is then as it was before the call.

    Notes
    -----
    The caller's memory holds a batch of rows, and up to some 75 bytes for each row of
    X: their order, and how they are divided. Two more vectors than in `fit` have the
    size of the parameters.

    Callbacks and `checkpoint` are those of `fit`. Control-C ends the call at once, as
    workers of the same terminal end with it; the estimator is then as it was before,
    and only a checkpoint keeps what was learnt.

    A step takes some hundredths of a second even if it has nothing to compute, so that
    it pays with large models and large batches only: give a `batch_size` of thousands
    of rows. A client with ``direct_to_workers=True`` fetches the gradients without the
    scheduler. With ``shuffle=False`` the rows of a batch lie in one chunk or two, and
    few workers have something to do.

    Equal rows are never merged, as they are by `fit` in some small problems.

    Examples
    --------
    >>> import dask.array as da
    >>> from distributed import Client
    >>> from sklearn.datasets import load_digits
    >>> from skae import DenoisingAutoencoder
    >>> from skae.distributed import fit_distributed
    >>> X = da.from_array(load_digits().data, chunks=(600, 64))
    >>> model = DenoisingAutoencoder(8, batch_size=600, tol=5, random_state=0)
    >>> with Client(processes=False, dashboard_address=":0"):
    ...     model = fit_distributed(model, X)
    >>> model.transform(load_digits().data).shape
    (1797, 8)
    """
    check_kind(estimator)
    check_array(X)
    with needed("dask").config.set(LARGE):
        fitted: Estimator = fit(estimator, X, sample_weight, find_client(client))
    return fitted


@_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
def fit(estimator: Estimator, X: Any, sample_weight: Any, client: Any) -> Estimator:
    """Do what `BaseAutoencoder.fit` does, with rows that are elsewhere."""
    check_apart(estimator)
    watch = FitWatch(estimator, estimator._n_tasks(), X, None, sample_weight)
    watch.defers = False  # a step may wait for workers that Control-C has ended
    with all_or_nothing(estimator):
        data, weight = spread(X, sample_weight, client)
        seen = data.columns()
        family = checked_family(estimator, data)
        rng = watch.begin(family, X=data, sample_weight=weight)
        index = arranged(data, weight, seen, keep_order=not estimator.shuffle)
        rows = data.as_rows(index, weight)
        monitor, n_rows = estimator._fit_rows(rows, family, rng, watch)
        estimator._warn(monitor, watch, stacklevel=5)
        estimator._advise(n_rows)
        watch.end()
    watch.request.pass_on()
    return estimator


# --- checking what is given -----------------------------------------------------------


def needed(name: str) -> Any:
    """Import a module of Dask, or say how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            "fit_distributed needs Dask: python -m pip install 'skae[dask]'."
        ) from error


def find_client(client: Any) -> Any:
    """Return the client to use."""
    kind = needed("distributed").Client
    if client is not None and not isinstance(client, kind):
        raise TypeError(
            f"client must be a distributed.Client, got {type(client).__name__}."
        )
    if client is not None:
        return client
    try:
        return needed("distributed").get_client()
    except ValueError:
        raise ValueError(
            "fit_distributed needs a cluster: create a distributed.Client first, or "
            "give one as client."
        ) from None


def check_kind(estimator: Any) -> None:
    """Refuse estimators that train more than one network, or labels."""
    if not isinstance(estimator, TRAINED):
        kinds = ", ".join(kind.__name__ for kind in TRAINED)
        raise TypeError(
            f"fit_distributed trains {kinds}, got {type(estimator).__name__}. Fit a "
            f"stack to some of the rows, or its levels one after the other, each to "
            f"X.map_blocks(level.transform) of the one before."
        )


def check_apart(estimator: BaseAutoencoder) -> None:
    """Refuse what the rows of a batch have to meet in."""
    corruption, level = estimator._corruption()
    if level > 0 and corruption.rows_meet:
        refuse_meeting(f"corruption={estimator.corruption!r}", "another corruption")
    if isinstance(estimator, SparseAutoencoder) and estimator._kind.rows_meet:
        refuse_meeting(f"penalty={estimator.penalty!r}", "penalty='topk'")


def refuse_meeting(given: str, instead: str) -> None:
    """Say why rows have to be apart."""
    raise ValueError(
        f"{given} needs all rows of a batch in one place, where fit_distributed has "
        f"them apart: choose {instead}, or use fit."
    )


def check_array(X: Any) -> None:
    """Refuse what is no matrix of numbers in chunks of known lengths."""
    if not isinstance(X, needed("dask.array").Array):
        hint = "call its to_dask_array(lengths=True)"
        raise TypeError(
            f"X must be a dask array, got {type(X).__name__}: "
            f"{hint if hasattr(X, 'to_dask_array') else 'use fit for data in memory'}."
        )
    if X.ndim != 2:
        raise ValueError(f"Expected a 2D array, got X of shape {X.shape} instead.")
    if np.isnan(X.shape).any():
        raise ValueError(
            "The chunks of X have unknown lengths: call X.compute_chunk_sizes() first."
        )
    if not all(X.shape):
        raise ValueError(f"X of shape {X.shape} has no entries.")
    if X.dtype.kind not in "biufO":
        raise ValueError(f"X must hold real numbers, but its dtype is {X.dtype}.")


def checked_weight(sample_weight: Any, n_rows: int) -> Array | None:
    """Return valid weights, here; None where all are one."""
    if sample_weight is None:
        return None
    if hasattr(sample_weight, "compute"):
        sample_weight = sample_weight.compute()
    return check_weight(np.broadcast_to(0.0, (n_rows, 1)), sample_weight)


def checked_family(estimator: BaseAutoencoder, data: Chunks) -> Any:
    """Return the distributions, once no row has a value that they exclude.

    The first row stands for X where its columns and their names are looked at.
    """
    continues = estimator.warm_start and hasattr(estimator, "_plan")
    if estimator.distribution == "auto" and not continues:
        raise ValueError(
            "distribution='auto' looks at all rows at once: fit the estimator to some "
            "of the rows, and give fit_distributed its distribution_ as distribution."
        )
    first = np.empty((1, data.shape[1]), data.dtype)
    data.take(np.zeros(1, np.intp), 0, first, "clip")
    _, _, family = estimator._check_training_data(first, None, True)
    data.combined(partial(check_chunk, family), data.whole(), last)
    return family


def arranged(
    data: Chunks, weight: Array | None, seen: Columns, keep_order: bool
) -> Array:
    """Return the rows of positive weight in the order of `arrange`."""
    rows = np.arange(data.shape[0]) if weight is None else np.flatnonzero(weight)
    if keep_order:
        return rows
    ends = np.array([seen.low, seen.high], data.dtype)
    keys = np.concatenate(data.each(partial(keys_of, ends), data.whole()))
    order = np.lexsort((keys,) if weight is None else (weight[rows], keys))
    return order if weight is None else np.asarray(rows[order])


# --- what workers do ------------------------------------------------------------------


class Chunk(NamedTuple):
    """Some consecutive rows of X.

    Attributes
    ----------
    x : ndarray or CSR matrix of shape (n_rows, n_features)
        The rows.
    weight : ndarray of shape (n_rows,) or None
        Their weights.
    start : int
        Place of the first one in X.
    """

    x: Any
    weight: Array | None
    start: int

    def rows(self) -> Rows:
        """Return the rows of positive weight."""
        if self.weight is None:
            return Rows(self.x)
        index = np.flatnonzero(self.weight)
        return Rows(self.x, index, self.weight if len(index) else None)


def keep(place: slice, weight: Array | None, dtype: np.dtype[Any], x: Any) -> Chunk:
    """Make a chunk of rows in a floating-point type."""
    if sparse.issparse(x):
        x = x.tocsr().astype(dtype, copy=False)
    else:
        x = np.asarray(x, dtype, order="C")
    if x.shape[0] != place.stop - place.start:
        raise ValueError(
            f"A chunk of X has {x.shape[0]} rows, but its place is that of rows "
            f"{place.start} to {place.stop - 1}: call X.compute_chunk_sizes() first."
        )
    return Chunk(x, weight, place.start)


def give(value: Any) -> Any:
    """Return what is given: a task of its own, for what other tasks share."""
    return value


def call(saved: Array, *args: Any) -> Any:
    """Call a function that was pickled.

    Arrays that Dask moves by itself may come at any address, and a product of matrices
    may be another one in the last bit for that. Those that are unpickled do not.
    """
    return pickle.loads(saved.data)(*args)


def add(*parts: Any) -> Any:
    """Add what workers have found."""
    return sum(parts[1:], start=parts[0])


def last(*parts: Any) -> Any:
    """Wait for all."""
    return parts[-1]


def merge(*parts: Columns) -> Columns:
    """Bring statistics of columns together."""
    parts = tuple(part for part in parts if part.n_rows) or parts
    columns = copy(parts[0])
    for part in parts[1:]:
        columns.merge(part)
    return columns


def checked_columns(chunk: Chunk) -> Columns:
    """Return what a chunk knows of the columns; refuse what is not finite."""
    for index, block in blocks(chunk.x, np.arange(chunk.x.shape[0])):
        bad = np.argwhere(~np.isfinite(block))
        if len(bad):
            i, j = bad[0]
            raise ValueError(
                f"Column {column_name(j, None)} of X holds {block[i, j]} in row "
                f"{chunk.start + index[i]}; all entries must be finite."
            )
    return Columns.of(chunk.rows())


def digest_of(chunk: Chunk) -> str:
    """Return what tells the content of a chunk apart."""
    return digest(chunk.x)


def check_chunk(family: Any, chunk: Chunk) -> None:
    """Refuse values that the distribution of their column cannot take."""
    try:
        check_support(chunk.x, as_distribution(family), family, None)
    except ValueError as error:
        end = chunk.start + chunk.x.shape[0] - 1
        raise ValueError(
            f"{error} This is about rows {chunk.start} to {end} of X."
        ) from None


def keys_of(ends: Array, chunk: Chunk) -> Array:
    """Return the keys of rows, scaled as all rows are: by the smallest and the largest.

    Where these are among the rows, a row's key is the same to the last bit.
    """
    keys = [np.empty(0)]
    for _, block in blocks(chunk.x, chunk.rows().index):
        framed = np.concatenate([ends, block])
        keys.append(row_keys(framed, np.arange(len(framed)))[2:])
    return np.concatenate(keys)


def taken(chunk: Chunk, places: Array) -> Any:
    """Return some rows."""
    return chunk.x[places].toarray() if sparse.issparse(chunk.x) else chunk.x[places]


def converted(dtype: np.dtype[Any], chunk: Chunk) -> Chunk:
    """Return a chunk in another floating-point type."""
    return chunk._replace(x=chunk.x.astype(dtype, copy=False))


def done(
    work: Callable[[Rows], Any],
    mean_weight: float,
    moved: tuple[Array | None, Array | None],
    chunk: Chunk,
    places: Array,
) -> Any:
    """Do some work for some rows of a chunk, weighed as all rows are."""
    rows = Rows(chunk.x, places, chunk.weight, *moved)
    rows.mean_weight = mean_weight
    return work(rows)


class Step(NamedTuple):
    """All that a worker needs to know of a step, its rows aside.

    Attributes
    ----------
    objective : Objective
        What is minimised.
    theta : ndarray of shape (n_parameters,)
        The parameters.
    bounds, limits : tuple of ndarray
        As in `Trainer`.
    moved : tuple of ndarray or None
        What `Rows` standardizes by.
    total : float
        What the weights of rows are divided by.
    """

    objective: Objective
    theta: Array
    bounds: Bounds
    limits: tuple[Array, Array]
    moved: tuple[Array | None, Array | None]
    total: float

    @property
    def n_fired(self) -> int:
        """Units of which it counts whether they fire."""
        return self.objective.n_components if self.objective.bottleneck.n_own else 0


def found(step: Step, chunk: Chunk, places: Array, seed: int) -> Array:
    """Return one vector: the loss of some rows, how often units fire, the gradient."""
    rows = Rows(chunk.x, places, chunk.weight, *step.moved)
    trainer = Trainer(
        step.objective,
        step.theta,
        rows,
        step.bounds,
        step.limits,
        batch_size=ROWS,
        shuffle=False,
        rng=Generator(SFC64(seed)),
    )
    n_rows = trainer.batch_size
    work = min(n_rows // FEWEST_SHARED, n_rows * len(step.theta) // LEAST_WORK)
    loss, fired = np.zeros(len(Loss._fields)), np.zeros(step.n_fired)
    with np.errstate(all="ignore"), crew(max(1, work)):
        for index in trainer.parts():
            loss += trainer.add(index, step.total, trainer.params.own)
            if step.n_fired:
                code = trainer.team(len(index))[0].whole.code
                fired += np.count_nonzero(code[:, 0], axis=0)
    return np.concatenate([loss, fired, trainer.grad], dtype=step.theta.dtype)


# --- rows that are elsewhere ----------------------------------------------------------


def spread(X: Any, sample_weight: Any, client: Any) -> tuple[Chunks, Array | None]:
    """Let the workers hold X; return it as they do, and the weights."""
    weight = checked_weight(sample_weight, X.shape[0])
    dtype = X.dtype if X.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    X = X.rechunk({1: -1})
    parts, ends = X.to_delayed().ravel(), np.cumsum([0, *X.chunks[0]])
    delayed, chunks = needed("dask").delayed, []
    for i in np.flatnonzero(np.diff(ends)):
        place = slice(int(ends[i]), int(ends[i + 1]))
        mine = None if weight is None else weight[place]
        told = partial(keep, place, mine, dtype)
        chunks.append(delayed(told, pure=False)(parts[i]))
    futures, ends = client.compute(chunks), np.unique(ends)
    return Chunks(client, futures, ends, (X.shape[0], X.shape[1]), dtype), weight


#: A chunk, as Dask knows it, and what a task is told beside it.
Part = tuple[Any, ...]


class Chunks:
    """A matrix whose rows the workers hold, with the manners that `Rows` ask for.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    futures : list of distributed.Future
        Its chunks.
    ends : ndarray of shape (n_chunks + 1,)
        Where chunks begin and end; none is empty.
    shape : tuple of int
        Number of rows and of columns.
    dtype : dtype
        Floating-point type of the entries.
    """

    def __init__(
        self,
        client: Any,
        futures: list[Any],
        ends: Array,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
    ) -> None:
        self.client, self.futures, self.ends = client, futures, ends
        self.shape, self.dtype = shape, dtype
        self.delayed = partial(needed("dask").delayed, pure=False)

    def astype(self, dtype: np.dtype[Any], copy: bool = True) -> Chunks:
        """Return the matrix in another floating-point type."""
        if dtype == self.dtype:
            return self
        tasks = self.tasks(partial(converted, dtype), self.whole())
        futures = self.client.compute(tasks, optimize_graph=False)
        return Chunks(self.client, futures, self.ends, self.shape, dtype)

    def as_rows(
        self,
        index: Array | None = None,
        weight: Array | None = None,
        center: Array | None = None,
        unit: Array | None = None,
    ) -> ChunkedRows:
        """Return rows of the matrix, as a network wants to see them."""
        return ChunkedRows(self, index, weight, center, unit)

    @property
    def trainer(self) -> type[Trainer]:
        """Who takes steps with these rows."""
        return RemoteTrainer

    def digest(self) -> str:
        """Return what tells their content, and how it is divided, apart."""
        return " ".join(self.each(digest_of, self.whole()))

    def take(self, index: Array, axis: int, out: Array, mode: str) -> Array:
        """Fetch rows, as `numpy.take` does."""
        members, parts = self.parts(index)
        for mine, x in zip(members, self.each(taken, parts), strict=True):
            out[mine] = x
        return out

    def columns(self) -> Columns:
        """Summarise all rows of positive weight, once all entries are finite."""
        columns: Columns = self.combined(checked_columns, self.whole(), merge)
        return columns

    # --- tasks --------------------------------------------------------------------

    def whole(self) -> list[Part]:
        """Return all chunks."""
        return [(future,) for future in self.futures]

    def parts(self, index: Array) -> tuple[list[Array], list[Part]]:
        """Return which entries of `index` lie in each chunk, and their places there.

        Chunks that have none are left out.
        """
        which = np.searchsorted(self.ends, index, side="right") - 1
        order = np.argsort(which, kind="stable")
        cuts = np.searchsorted(which[order], np.arange(len(self.futures) + 1))
        members, parts = [], []
        for i in np.flatnonzero(np.diff(cuts)):
            mine = order[cuts[i] : cuts[i + 1]]
            members.append(mine)
            parts.append((self.futures[i], index[mine] - self.ends[i]))
        return members, parts

    def tasks(self, function: Callable[..., Any], parts: Sequence[Part]) -> list[Any]:
        """Return tasks that do the same for several parts.

        What they share is the result of a task as well: Dask moves it between the
        workers, and finds it again should one be lost. It copies arrays less often than
        strings of bytes.
        """
        saved = np.frombuffer(needed("cloudpickle").dumps(function), np.uint8)
        shared = self.delayed(partial(give, saved))()
        return [self.delayed(call)(shared, *part) for part in parts]

    def each(self, function: Callable[..., Any], parts: Sequence[Part]) -> list[Any]:
        """Do something for several parts; return all results, in their order."""
        tasks = self.tasks(function, parts)
        futures = self.client.compute(tasks, optimize_graph=False)
        return list(self.client.gather(futures))

    def combined(
        self,
        function: Callable[..., Any],
        parts: Sequence[Part],
        combine: Callable[..., Any],
    ) -> Any:
        """Do something for several parts; return the results, combined as a tree."""
        tasks = self.tasks(function, parts)
        while len(tasks) > 1:
            groups = [tasks[i : i + FAN_IN] for i in range(0, len(tasks), FAN_IN)]
            tasks = [self.delayed(combine)(*group) for group in groups]
        return self.client.compute(tasks[0], optimize_graph=False).result()


class ChunkedRows(Rows):
    """Rows that the workers hold; few of them may be fetched, all are asked there."""

    X: Chunks

    @cached_property
    def parts(self) -> list[Part]:
        """The chunks, and the places of the rows there, which the workers hold too."""
        _, parts = self.X.parts(self.index)
        tasks = [self.X.delayed(partial(give, places))() for _, places in parts]
        futures = self.X.client.compute(tasks, optimize_graph=False)
        return [
            (chunk, known) for (chunk, _), known in zip(parts, futures, strict=True)
        ]

    @property
    def moved(self) -> tuple[Array | None, Array | None]:
        """What the rows are standardized by."""
        return self.center, self.unit

    def summed(self, work: Callable[[Rows], Any]) -> Any:
        """Let each worker do it for its rows; return the sum."""
        function = partial(done, work, self.mean_weight, self.moved)
        return self.X.combined(function, self.parts, add)

    def columns(self) -> Columns:
        """Summarise the rows, in the units of X."""
        function = partial(done, Columns.of, self.mean_weight, (None, None))
        columns: Columns = self.X.combined(function, self.parts, merge)
        return columns


class RemoteTrainer(Trainer):
    """Takes steps whose gradients are found where the rows are."""

    rows: ChunkedRows

    def deltas(self, team: list[Share], index: Array, total: float) -> list[Phase]:
        """Return what asks for the gradient; there are no deltas here."""
        _, parts = self.rows.X.parts(index)
        return [[alone(lambda: self.ask(team, parts, total))]]

    def moving(
        self, team: list[Share], optimizer: Optimizer, moments: Moments, rate: float
    ) -> list[Phase]:
        """Return what leads from the gradient, which is there, to new parameters."""
        (_, *first), *others = super().moving(team, optimizer, moments, rate)
        return [first, *others]

    def ask(self, team: list[Share], parts: list[Part], total: float) -> None:
        """Set ``grad`` to the gradient of some rows, and the team's loss to theirs."""
        objective, rows = self.objective, self.rows
        step = Step(objective, self.theta, self.bounds, self.limits, rows.moved, total)
        seeds = [0] * len(parts)
        if objective.is_random:
            seeds = self.rng.integers(2**63, size=len(parts)).tolist()
        told = [(*part, seed) for part, seed in zip(parts, seeds, strict=True)]
        vector = rows.X.combined(partial(found, step), told, add)
        n = len(Loss._fields)
        for share in team:
            share.loss = NO_LOSS
        team[0].loss = Loss(*vector[:n].tolist())
        if step.n_fired:  # what a bottleneck may remember of the batch's codes
            team[0].whole.code[:, 0] = vector[n : n + step.n_fired]
        self.grad[...] = vector[n + step.n_fired :]
        self.own = self.params.own

    def explain(self, index: Array, total: float) -> Batch:
        """Fetch rows, and find their losses and deltas here."""
        team = self.team(len(index))
        hired().run(*super().deltas(team, index, total))
        return team[0].whole

    def full(self) -> Loss:
        """Set ``grad`` to the gradient over all rows; return the loss."""
        team = self.team(self.batch_size)
        with np.errstate(all="ignore"):
            self.ask(team, self.rows.parts, self.mean_weight * len(self.rows))
            return self.checked(team[0].loss, self.decay())
