"""Recover a planted dictionary: `SparseAutoencoder` and dictionary learning, in time.

Rows are sums of few out of K directions ("atoms") of length one, drawn at random, with
non-negative coefficients between 0.5 and 1.5, and some noise. Each method learns K
directions, in the processor time of one thread that a row of the table names. They are
judged by the atoms: for each, the largest absolute cosine with a direction learnt.
"cosine" is its mean over atoms, and "found" the share of atoms, in per cent, for which
it exceeds 0.9. Both are medians over seeds, which draw data and method alike.

Directions are compared in the units of X: those of `SparseAutoencoder` are its
`components_`, also where columns are divided by their standard deviation inside.

`DictionaryLearning` and `MiniBatchDictionaryLearning` are stopped when the time is up,
after an iteration or a batch. An autoencoder is given the number of epochs that it can
do, by the time that a few take; it may stop before by its own rule. It works in single
precision, dictionary learning in double precision, where it is faster. What each method
runs with is written out below. The penalties and numbers of rows for dictionary
learning are those, out of the ones that `--tune` goes through, that find the planted
atoms best.

Run it with one BLAS thread (``OPENBLAS_NUM_THREADS=1``)::

    python doc/benchmarks/sparse_dictionary.py --quick     # half a minute
    python doc/benchmarks/sparse_dictionary.py             # six minutes
    python doc/benchmarks/sparse_dictionary.py --vary      # settings of the autoencoder
    python doc/benchmarks/sparse_dictionary.py --tune      # and of dictionary learning
"""

from __future__ import annotations

import argparse
import contextlib
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import MiniBatchDictionaryLearning, dict_learning

from skae import SparseAutoencoder

Array = np.ndarray
Params = dict[str, Any]


class Planted(NamedTuple):
    """Sizes of a planted dictionary, and seconds in which to find it."""

    n_features: int
    n_atoms: int
    n_active: int
    times: tuple[float, ...] = (0.5, 1.0, 4.0)
    noise: float = 0.03
    n_rows: int = 20_000

    def draw(self, seed: int) -> tuple[Array, Array]:
        """Return atoms and rows."""
        rng = np.random.default_rng(seed)
        atoms = rng.standard_normal((self.n_atoms, self.n_features))
        atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
        chosen = rng.random((self.n_rows, self.n_atoms)).argsort(axis=1)
        codes = np.zeros((self.n_rows, self.n_atoms))
        values = rng.uniform(0.5, 1.5, (self.n_rows, self.n_active))
        np.put_along_axis(codes, chosen[:, : self.n_active], values, axis=1)
        noise = rng.standard_normal((self.n_rows, self.n_features))
        return atoms, codes @ atoms + self.noise * noise


SETS = {
    "twice overcomplete": Planted(64, 128, 5),
    "complete": Planted(64, 64, 5),
}
LARGE = {"large": Planted(128, 512, 8, (5.0, 20.0))}


def compare(atoms: Array, directions: Array) -> tuple[float, float]:
    """Return the mean of the atoms' best cosines, and the share above 0.9."""
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    best = np.abs(atoms @ (directions / np.where(lengths > 0, lengths, 1.0)).T).max(1)
    return float(best.mean()), 100.0 * float(np.mean(best > 0.9))


# --- methods: each returns the directions learnt by the times given ------------------


def by_autoencoder(X: Array, sizes: Planted, seed: int, params: Params) -> list[Array]:
    """Fit a model for each time, with as many epochs as it can do."""
    params = {"k": sizes.n_active, "random_state": seed} | params
    X = X.astype(np.float32)

    def fit(epochs: int) -> tuple[SparseAutoencoder, float]:
        start = time.process_time()
        model = SparseAutoencoder(sizes.n_atoms, max_iter=epochs, **params).fit(X)
        return model, time.process_time() - start

    (_, two), (_, six) = fit(2), fit(6)
    each = (six - two) / 4.0
    return [fit(max(1, int(2 + (t - two) / each)))[0].components_ for t in sizes.times]


def by_dictionary(X: Array, sizes: Planted, seed: int, params: Params) -> list[Array]:
    """Do what `DictionaryLearning` does, one iteration after the other."""
    params, found = dict(params), []
    rng, X = (
        np.random.RandomState(seed),
        X[: params.pop("rows_per_atom") * sizes.n_atoms],
    )
    start, last = time.process_time(), {}
    for t in sizes.times:
        while not last or time.process_time() - start < t:
            code, directions, _ = dict_learning(
                X, sizes.n_atoms, max_iter=1, random_state=rng, **last, **params
            )
            last = {"code_init": code, "dict_init": directions}
        found.append(last["dict_init"].copy())
    return found


def by_minibatches(X: Array, sizes: Planted, seed: int, params: Params) -> list[Array]:
    """Interrupt `MiniBatchDictionaryLearning`."""
    found: list[Array] = []
    times = sizes.times
    start = time.process_time()

    def look(scope: Params) -> None:
        passed = time.process_time() - start
        while len(found) < len(times) and passed >= times[len(found)]:
            found.append(scope["dictionary"].copy())
        if len(found) == len(times):
            raise TimeIsUp

    model = MiniBatchDictionaryLearning(
        sizes.n_atoms,
        max_iter=10**6,
        tol=0.0,
        max_no_improvement=None,
        callback=look,
        random_state=seed,
        **params,
    )
    with contextlib.suppress(TimeIsUp):
        model.fit(X)
    return found


class TimeIsUp(Exception):
    """The time for learning is over."""


Method = Callable[[Array, Planted, int, Params], list[Array]]

POSITIVE: Params = {"positive_code": True}
METHODS: dict[str, tuple[Method, Params]] = {
    "topk": (by_autoencoder, {"penalty": "topk"}),
    "batchtopk": (by_autoencoder, {"penalty": "batchtopk"}),
    "l1": (by_autoencoder, {"penalty": "l1"}),
    "jumprelu": (by_autoencoder, {"penalty": "jumprelu"}),
    "gated": (by_autoencoder, {"penalty": "gated"}),
}
#: Dictionary learning: rows for each atom, or in a batch.
for n_rows in (8, 16):
    METHODS[f"DictionaryLearning, {n_rows} K rows"] = (
        by_dictionary,
        POSITIVE | {"rows_per_atom": n_rows, "alpha": 0.2, "method": "cd"},
    )
for n_rows in (16, 64):
    METHODS[f"MiniBatchDictionaryLearning, batches of {n_rows}"] = (
        by_minibatches,
        POSITIVE | {"batch_size": n_rows, "alpha": 0.2, "fit_algorithm": "cd"},
    )

#: What is changed for `--vary`, beside the penalty.
SETTINGS: list[Params] = [
    {},
    {"penalty": "topk", "k": 3},
    {"penalty": "topk", "k": 10},
    {"standardize": False},
    {"unit_norm": False},
    {"alpha": 0.0},
    {"revival": None},
    {"revival": "auxiliary"},
    {"dead_after": 0.5},
    {"dead_after": 1.0},
    {"dead_after": 5.0},
    {"sparsity_warm_up": 5},
    {"learning_rate_init": 0.001},
    {"learning_rate_init": 0.002},
    {"learning_rate_init": 0.01},
    {"learning_rate_init": 0.02},
    {"learning_rate": "cosine"},
    {"learning_rate": "cosine", "learning_rate_init": 0.02},
    {"batch_size": 64},
    {"batch_size": 1024},
    {"decoder_bias_init": "geometric_median"},
]


def measure(sizes: Planted, method: Method, params: Params, seeds: int) -> list[str]:
    """Return the cells of one row: cosine and found for each time."""
    results: list[list[tuple[float, float]]] = []
    for seed in range(seeds):
        atoms, X = sizes.draw(seed)
        found = method(X, sizes, seed, params)
        results.append([compare(atoms, directions) for directions in found])
    cells = []
    for of_time in zip(*results, strict=True):
        cosine, share = (median(values) for values in zip(*of_time, strict=True))
        cells += [f"{cosine:.3f}", f"{share:.0f}"]
    return cells


def table(
    title: str,
    sizes: Planted,
    rows: dict[str, tuple[Method, Params]],
    seeds: int,
) -> None:
    """Print what each method finds."""
    print(f"\n{title}: {sizes.n_atoms} atoms in {sizes.n_features} dimensions,")
    print(f"{sizes.n_active} in a row, {sizes.n_rows} rows:\n")
    heads = [f"{what} {t:g} s" for t in sizes.times for what in ("cosine", "found")]
    print(f"| method | {' | '.join(heads)} |")
    print("|---|" + "---:|" * len(heads), flush=True)
    for name, (method, params) in rows.items():
        cells = measure(sizes, method, params, seeds)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def shown(params: Params) -> str:
    """Return parameters as they would be written in a call."""
    return ", ".join(f"{name}={value!r}" for name, value in params.items())


def to_vary() -> dict[str, tuple[Method, Params]]:
    """Return what `--vary` compares."""
    rows = {}
    for penalty in ("topk", "jumprelu"):
        for setting in SETTINGS:
            if setting.get("penalty", penalty) == penalty:
                params = {"penalty": penalty} | setting
                rows[shown(params)] = (by_autoencoder, params)
    weights = {"l1": (0.3, 1.0, 3.0), "jumprelu": (0.3, 3.0), "gated": (0.3, 1.0, 3.0)}
    weights |= {"hoyer": (0.3, 1.0, 3.0), "kl": (1.0, 10.0)}
    for penalty, some in weights.items():
        for weight in some:
            params = {"penalty": penalty, "sparsity_weight": weight}
            rows[shown(params)] = (by_autoencoder, params)
    return rows


def to_tune() -> dict[str, tuple[Method, Params]]:
    """Return what `--tune` compares."""
    rows: dict[str, tuple[Method, Params]] = {}
    for weight in (0.1, 0.2, 0.3):
        for n_rows in (4, 8, 16, 32):
            params = {
                "rows_per_atom": n_rows,
                "alpha": weight,
                "method": "cd",
            } | POSITIVE
            rows[f"DictionaryLearning, {shown(params)}"] = (by_dictionary, params)
        for n_batch in (16, 64):
            params = {"batch_size": n_batch, "alpha": weight} | POSITIVE
            params |= {"fit_algorithm": "cd"}
            name = f"MiniBatchDictionaryLearning, {shown(params)}"
            rows[name] = (by_minibatches, params)
    for weight in (1.0,):
        params = {"alpha": weight, "fit_algorithm": "lars"}
        name = f"MiniBatchDictionaryLearning, {shown(params)}"
        rows[name] = (by_minibatches, params)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one set, seed and time")
    parser.add_argument("--large", action="store_true", help="more atoms")
    parser.add_argument("--vary", action="store_true", help="vary the autoencoder")
    parser.add_argument("--tune", action="store_true", help="vary dictionary learning")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    title, sizes = next(iter(SETS.items()))
    if options.quick:
        table(title, sizes._replace(times=(1.0,)), METHODS, 1)
    elif options.vary:
        table(title, sizes._replace(times=(1.0, 4.0)), to_vary(), options.seeds)
    elif options.tune:
        table(title, sizes, to_tune(), options.seeds)
    else:
        for title, sizes in (LARGE if options.large else SETS).items():
            table(title, sizes, METHODS, options.seeds)


if __name__ == "__main__":
    main()
