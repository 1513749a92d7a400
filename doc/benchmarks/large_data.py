"""Fits on a memory map of ten gigabytes, in a few hundred megabytes of memory.

The data are sums of 16 directions, with noise, in single precision. They are written
to a temporary file chunk by chunk, and deleted in the end. Each task runs in a process
of its own, whose private memory has a hard limit: ``RLIMIT_DATA``, which counts what
is allocated, and no files that are mapped. Where a task begins "cold", the system has
been asked to drop the file from its cache.

Private memory is the largest ``RssAnon`` of the process, looked at every ten
milliseconds, less what it is before the task, when all modules are loaded.

Run it on Linux, with one BLAS thread and room for the file::

    OPENBLAS_NUM_THREADS=1 python doc/benchmarks/large_data.py

The table is printed, and written to large_data.md beside this script. With
``--quick``, which takes seconds, the file is small and the table is only printed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from skae import DenoisingAutoencoder

REPORT = """\
Made by `python doc/benchmarks/large_data.py` (NumPy {numpy}, one thread):
{gigabytes:.3g} GB in a memory map of {n_rows} rows and 256 columns, single precision.
The network has the widths 256-64-16-64-256; an epoch has batches of 256 rows. The
limit of what a process allocates, modules and all, is {limit} MB. The machine has
{memory:.0f} GB, so that the file fits into its cache. The score is that of the first
{chunk} rows.

{table}

To be read from a file that is not in the cache, rows in order took {in_order:.1f}
microseconds each, and rows here and there {at_random:.0f}: for each of these the system
read {amount:.0f} kB, where a row has one. Its readahead decides how much.
"""

WIDTH, CHUNK = 256, 2**15

#: Rows of ten gigabytes, and what a process may allocate for its data, in bytes.
N_ROWS, LIMIT = 9_765_625, 768 * 2**20

SETTINGS: dict[str, Any] = {
    "hidden_layer_sizes": (64,),
    "distribution": "gaussian",
    "batch_size": 256,
    "max_iter": 1,
    "random_state": 0,
}


def model(**settings: Any) -> DenoisingAutoencoder:
    """Return what is fitted."""
    return DenoisingAutoencoder(16, **SETTINGS | settings)


def write(path: Path, n_rows: int) -> None:
    """Write the data, chunk by chunk."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(16, WIDTH)).astype(np.float32)
    with path.open("wb") as file:
        for start in range(0, n_rows, CHUNK):
            n = min(CHUNK, n_rows - start)
            z = rng.standard_normal((n, 16), dtype=np.float32)
            noise = rng.standard_normal((n, WIDTH), dtype=np.float32)
            (z @ directions + 0.5 * noise).tofile(file)
        file.flush()
        os.fsync(file.fileno())


def drop_from_cache(path: Path) -> None:
    """Ask the system to forget what it has read of a file."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def private_memory() -> int:
    """Return the memory of this process that belongs to no file, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


class Peak:
    """Watches private memory while a block runs."""

    def __enter__(self) -> Peak:
        self.before = self.largest = private_memory()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.done.set()
        self.thread.join()

    def watch(self) -> None:
        """Look at the memory until the block ends."""
        while not self.done.wait(0.01):
            self.largest = max(self.largest, private_memory())


def system_reads() -> int:
    """Return how many bytes this process has made the system read."""
    text = Path("/proc/self/io").read_text(encoding="ascii")
    line = next(line for line in text.splitlines() if line.startswith("read_bytes"))
    return int(line.split()[1])


def cost_of_rows(path: Path, n_rows: int, at_random: bool) -> tuple[float, float]:
    """Return microseconds, and kB that the system reads, for each of some rows."""
    drop_from_cache(path)
    X = np.asarray(np.memmap(path, np.float32, mode="r", shape=(n_rows, WIDTH)))
    rng, out = np.random.default_rng(0), np.empty((256, WIDTH), np.float32)
    n_batches = min(20 if at_random else 2000, n_rows // 256)
    began, before = time.perf_counter(), system_reads()
    for i in range(n_batches):
        index = np.arange(256 * i, 256 * (i + 1))
        index = rng.integers(0, n_rows, 256) if at_random else index
        np.take(X, index, axis=0, out=out, mode="clip")
    seconds, read = time.perf_counter() - began, system_reads() - before
    return 1e6 * seconds / (256 * n_batches), 1e-3 * read / (256 * n_batches)


# --- what is measured -----------------------------------------------------------------


def fit(X: Any) -> Any:
    """Fit for one epoch."""
    return model().fit(X)


def fit_in_order(X: Any) -> Any:
    """Fit for one epoch, with rows in the order of the file."""
    return model(shuffle=False).fit(X)


def fit_in_chunks(X: Any) -> Any:
    """Go through chunks of rows once."""
    whole = model()
    for start in range(0, len(X), CHUNK):
        whole.partial_fit(X[start : start + CHUNK])
    return whole


def encode(X: Any) -> Any:
    """Encode all rows by a model of few, chunk by chunk, as the codes are large."""
    fitted = model().fit(X[:CHUNK])
    for start in range(0, len(X), CHUNK):
        fitted.transform(X[start : start + CHUNK])
    return fitted


def score(X: Any) -> Any:
    """Score all rows by a model of few."""
    fitted = model().fit(X[:CHUNK])
    fitted.score_samples(X)
    return fitted


def load(X: Any) -> None:
    """Load all rows, as a control."""
    np.array(X)


TASKS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "`fit`, cold": (fit, True),
    "`fit`": (fit, False),
    "`fit`, `shuffle=False`, cold": (fit_in_order, True),
    "`fit`, `shuffle=False`": (fit_in_order, False),
    "`partial_fit`, chunks, cold": (fit_in_chunks, True),
    "`transform`, chunks": (encode, False),
    "`score_samples`": (score, False),
    "`numpy.array(X)`": (load, False),
}


def perform(name: str, path: Path, n_rows: int) -> dict[str, Any]:
    """Do a task under the limit; return what it took."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    X = np.memmap(path, np.float32, mode="r", shape=(n_rows, WIDTH))
    model().fit(X[:1000])
    began = time.perf_counter()
    with Peak() as peak:
        try:
            fitted = TASKS[name][0](X)
        except MemoryError:
            return {"refused": True}
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "score": fitted.score(X[:CHUNK]) if fitted else float("nan"),
        "bytes": peak.largest - peak.before,
        "refused": False,
    }


def ask(name: str, path: Path, n_rows: int) -> dict[str, Any]:
    """Let a process do a task."""
    if TASKS[name][1]:
        drop_from_cache(path)
    command = [sys.executable, __file__, "--task", name, str(path), str(n_rows)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(answer.stdout)
    print(name, found, file=sys.stderr, flush=True)
    return found


def table(found: dict[str, dict[str, Any]], n_rows: int) -> str:
    """Return what the tasks took as a table."""
    text = "| task | seconds | private memory, MB | bytes per row | nats per row |\n"
    text += "|---|---:|---:|---:|---:|\n"
    for name, took in found.items():
        if took["refused"]:
            text += f"| {name} | does not fit | | | |\n"
            continue
        text += (
            f"| {name} | {took['seconds']:.0f} | {took['bytes'] / 1e6:.0f} | "
            f"{took['bytes'] / n_rows:.1f} | {took['score']:.1f} |\n"
        )
    return text


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only a small file")
    parser.add_argument("--task", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        name, path, n_rows = given.task
        print(json.dumps(perform(name, Path(path), int(n_rows))))
        return
    n_rows = 5_000 if given.quick else N_ROWS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.dat"
        write(path, n_rows)
        found = {name: ask(name, path, n_rows) for name in TASKS}
        in_order, _ = cost_of_rows(path, n_rows, at_random=False)
        at_random, amount = cost_of_rows(path, n_rows, at_random=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    text = REPORT.format(
        numpy=np.__version__,
        gigabytes=4e-9 * n_rows * WIDTH,
        n_rows=n_rows,
        limit=LIMIT // 2**20,
        memory=memory,
        chunk=CHUNK,
        in_order=in_order,
        at_random=at_random,
        amount=amount,
        table=table(found, n_rows),
    )
    print(text)
    if not given.quick:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
