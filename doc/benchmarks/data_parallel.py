"""What a step of `skae.distributed.fit_distributed` takes, beside one of `fit`.

One autoencoder, 784-500-784 in single precision, is trained on rows that one or two
worker processes hold, each with one thread, and by `fit` in one thread. Then what a
step costs that has nothing to compute: the way of one vector from here to the workers
and back. From both follows a model of the time of a step with more workers than there
are here; its numbers are computed, not measured.

Run it on a machine with three cores or more, so that the workers do not wait for the
process that leads them, or say so::

    OPENBLAS_NUM_THREADS=1 python doc/benchmarks/data_parallel.py

It needs Dask. The tables are printed, and written to data_parallel.md beside this
script. With ``--quick``, which takes a minute, they are only printed.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster
from threadpoolctl import threadpool_limits

from skae import DenoisingAutoencoder
from skae.distributed import FAN_IN, LARGE, Chunks, add, fit_distributed, give, spread

REPORT = """\
Made by `python doc/benchmarks/data_parallel.py` on {cores} CPU cores (NumPy {numpy},
Dask {dask}): an autoencoder of 784-500-784, {size} parameters, squared error, Adam,
single precision, {rows} rows. Times are medians, in milliseconds, with the least and
the largest of {rounds} rounds. The workers are processes of one thread; the process
that leads them, the scheduler within it, shares the cores with them.

A step, and how far the loss of the last epoch is from that of `fit`:

| rows a step | `fit` | 1 worker | 2 workers | `fit` / 2 workers | loss, 2 workers |
|---:|---:|---:|---:|---:|---:|
{steps}

A step that has nothing to compute, for 2 workers, by the numbers that go both ways:

| | milliseconds |
|---|---:|
{fixed}

The model: with W workers, one chunk each, a step of B rows takes

    T(W) = c B / W + l (2 + s) + (b / v) (3 + r + {others} s) + a N

* c = {cost:.1f} microseconds a row: what `fit` takes with the largest batch.
* l: the latency of a task. One task has the parameters, one finds the gradient of
  its rows, and s = ceil(log{fan} W) levels of tasks add {fan} gradients each.
* b / v: the time of one vector of b = {megabytes:.1f} MB through a network of the
  rate v. The parameters go by the scheduler to a worker, and the sum comes back: 3
  times. Each level of sums receives {others} vectors.
* r: what brings the parameters from the first worker to the others. At worst it serves
  them one by one, r = W - 1. At best those that have them pass them on, as a tree,
  r = ceil(log2 W). Dask, which decides it, lies between: a worker serves a few at a
  time, and those that have to wait ask others later.
* a = {per_task:.2f} milliseconds: what Dask needs for each of the N tasks of a step, W
  and their sums, beyond their latency; measured here with {many} tasks that have
  nothing to do.

The optimiser's step, {optimizer:.1f} ms here, is left out.

T(W) in milliseconds for B = {batch} with l = 1 ms, and in brackets the efficiency
c B / (W T(W)); r as a tree, and one by one:

| Gbit/s | r | {heads} |
|---:|---|{line}
{model}

The rows a step with which the efficiency is one half, again as a tree and one by one;
l = {measured:.0f} ms is the latency measured here, for tasks in sequence:

| l | Gbit/s | r | {heads} |
|---:|---:|---|{line}
{needed}
"""

WORKERS = (1, 2, 10, 100, 1000)
RATES = (1, 10, 100)
BATCH = 65536

#: Chunks of which Dask's time for a task is measured.
MANY = 200


class Timed(DenoisingAutoencoder):
    """Knows when its epochs began."""

    def _change(self, *args: Any) -> None:
        self.times_ = [*getattr(self, "times_", []), time.perf_counter()]
        super()._change(*args)


def note(text: str) -> None:
    """Report progress."""
    print(text, file=sys.stderr, flush=True)


def autoencoder(batch_size: int, n_epochs: int) -> Timed:
    """Return what is trained."""
    return Timed(
        500,
        batch_size=batch_size,
        max_iter=n_epochs,
        distribution="squared_error",
        corruption_level=0.0,
        alpha=0.0,
        standardize=False,
        learning_rate="constant",
        learning_rate_init=1e-3,
        n_iter_no_change=np.inf,
        random_state=0,
    )


def per_step(model: Timed, n_rows: int) -> float:
    """Return the seconds of a step, without the first epoch."""
    n_steps = -(-n_rows // model.batch_size)
    return float(np.median(np.diff(model.times_[1:]))) / n_steps


def measure(X: Any, clients: dict[int, Client], sizes: Any, n_rounds: int) -> Any:
    """Return seconds by batch size and contender, and the losses."""
    seconds: dict[Any, list[float]] = {}
    losses: dict[Any, float] = {}
    for _ in range(n_rounds):
        for size in sizes:
            n_epochs = max(3, 16 * size // len(X))
            for workers in (0, *clients):
                model = autoencoder(size, n_epochs)
                if workers:
                    chunks = da.from_array(X, chunks=(len(X) // workers, -1))
                    fit_distributed(model, chunks, client=clients[workers])
                else:
                    model.fit(X)
                seconds.setdefault((size, workers), []).append(per_step(model, len(X)))
                losses[size, workers] = model.loss_
                times = seconds[size, workers]
                note(f"{size} rows, {workers} workers: {1e3 * times[-1]:.1f} ms")
    return seconds, losses


def there_and_back(vector: Any, future: Any) -> Any:
    """Return a vector of the same length."""
    return vector


def repeated(function: Any, n: int) -> float:
    """Return the median seconds of a call."""
    times = []
    for _ in range(n):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def n_tasks(workers: int) -> int:
    """Return the tasks of a step: for the parameters, the gradients and their sums."""
    n, left = 1 + workers, workers
    while left > 1:
        left = -(-left // FAN_IN)
        n += left
    return n


def per_task(client: Client, n: int) -> float:
    """Return the seconds that Dask needs for one of many tasks."""
    few, many = (chunks_of(client, n_chunks) for n_chunks in (2, MANY))
    times = [repeated(partial(trip, chunks, 1), n) for chunks in (few, many)]
    return (times[1] - times[0]) / (n_tasks(MANY) - n_tasks(2))


def chunks_of(client: Client, n_chunks: int) -> Chunks:
    """Return rows that take no time, in so many chunks."""
    return spread(da.ones((n_chunks, 1), chunks=(1, 1)), None, client)[0]


def trip(data: Chunks, length: int) -> Any:
    """Send a vector to all chunks, and add up what comes back."""
    vector = np.zeros(length, np.float32)
    return data.combined(partial(there_and_back, vector), data.whole(), add)


def fixed_costs(client: Client, size: int, n: int) -> tuple[Any, float]:
    """Return rows of a table, and the latency of a task."""
    data = chunks_of(client, 2)

    empty = repeated(lambda: client.submit(give, 0, pure=False).result(), n)
    costs = [("one empty task, there and back", empty)]
    for length in (1, size, 4 * size):
        cost = repeated(partial(trip, data, length), n)
        costs.append((f"a step's tasks with {length:,} numbers", cost))
    return [f"| {name} | {1e3 * cost:.1f} |" for name, cost in costs], costs[1][1] / 3


def in_words(times: list[float]) -> str:
    """Return the median, and the range."""
    low, middle, high = (1e3 * f(times) for f in (min, np.median, max))
    return f"{middle:.1f} ({low:.1f}-{high:.1f})"


def table_of_steps(seconds: Any, losses: Any, sizes: Any) -> str:
    """Return the rows of the first table."""
    lines = []
    for size in sizes:
        cells = [in_words(seconds[size, workers]) for workers in (0, 1, 2)]
        rounds = zip(seconds[size, 0], seconds[size, 2], strict=True)
        ratio = np.median([a / b for a, b in rounds])
        off = abs(losses[size, 2] / losses[size, 0] - 1)
        lines.append(f"| {size} | {' | '.join(cells)} | {ratio:.2f} | {off:.0e} |")
    return "\n".join(lines)


def overhead(
    workers: int, latency: float, vector: float, task: float, one_by_one: bool
) -> float:
    """Return the seconds of a step that are no computation."""
    levels = math.ceil(math.log(workers, FAN_IN) - 1e-9)
    moves = workers - 1 if one_by_one else math.ceil(math.log2(workers))
    moved = vector * (3 + moves + (FAN_IN - 1) * levels)
    return latency * (2 + levels) + moved + task * n_tasks(workers)


def ways() -> Any:
    """Yield rates of the network and ways of the parameters."""
    for rate in RATES:
        for one_by_one in (False, True):
            yield rate, one_by_one, "one by one" if one_by_one else "tree"


def table_of_model(cost: float, n_bytes: int, task: float) -> str:
    """Return the rows of the table of modelled times."""
    lines = []
    for rate, one_by_one, name in ways():
        cells = []
        for workers in WORKERS:
            compute = cost * BATCH / workers
            vector = n_bytes * 8e-9 / rate
            total = compute + overhead(workers, 1e-3, vector, task, one_by_one)
            cells.append(f"{1e3 * total:.0f} ({compute / total:.2f})")
        lines.append(f"| {rate} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def table_of_needed(cost: float, n_bytes: int, measured: float, task: float) -> str:
    """Return the rows of the table of batches."""
    lines = []
    for latency in (1e-3, measured):
        for rate, one_by_one, name in ways():
            vector = n_bytes * 8e-9 / rate
            batches = [
                w * overhead(w, latency, vector, task, one_by_one) / cost
                for w in WORKERS
            ]
            cells = " | ".join(f"{float(f'{batch:.2g}'):,.0f}" for batch in batches)
            lines.append(f"| {1e3 * latency:.0f} ms | {rate} | {name} | {cells} |")
    return "\n".join(lines)


def local(workers: int) -> Any:
    """Return a cluster of processes with one thread each."""
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=":0",
    )


def report(quick: bool) -> str:
    """Measure, and return the report."""
    n_rows, sizes, n_rounds = (
        (1024, (512,), 1) if quick else (16384, (256, 2048, 8192), 3)
    )
    X = np.random.default_rng(0).random((n_rows, 784), dtype=np.float32)
    with local(1) as one, local(2) as two, Client(one) as c1, Client(two) as c2:
        seconds, losses = measure(X, {1: c1, 2: c2}, sizes, n_rounds)
        model = autoencoder(256, 1).fit(X[:256])
        size = len(model._theta)
        with dask.config.set(LARGE):
            fixed, latency = fixed_costs(c2, size, 5 if quick else 50)
            task = per_task(c2, 5 if quick else 20)
    optimizer = model._optimizer()
    moments, grad = optimizer.init(model._theta), np.ones_like(model._theta)
    move = partial(optimizer.step, model._theta, grad, moments, 0.0)
    cost = float(np.median(seconds[sizes[-1], 0])) / sizes[-1]
    return REPORT.format(
        cores=os.cpu_count(),
        numpy=np.__version__,
        dask=dask.__version__,
        size=f"{size:,}",
        rows=n_rows,
        rounds=n_rounds,
        steps=table_of_steps(seconds, losses, sizes),
        fixed="\n".join(fixed),
        others=FAN_IN - 1,
        fan=FAN_IN,
        cost=1e6 * cost,
        megabytes=4e-6 * size,
        optimizer=1e3 * repeated(move, 20),
        batch=BATCH,
        heads=" | ".join(f"W = {workers}" for workers in WORKERS),
        line="---:|" * len(WORKERS),
        model=table_of_model(cost, 4 * size, task),
        per_task=1e3 * task,
        many=n_tasks(MANY),
        measured=1e3 * latency,
        needed=table_of_needed(cost, 4 * size, latency, task),
    )


def main() -> None:
    """Print the report; write it unless in a hurry."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a minute, to try it")
    quick = parser.parse_args().quick
    with threadpool_limits(1):
        text = report(quick)
    print(text)
    if not quick:
        Path(__file__).with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
