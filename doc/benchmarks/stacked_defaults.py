"""Measure which default parameters suit the stacks, on real data.

Each configuration is fitted to half of the rows of each data set and judged by the
other half, over some splits:

* classifiers by ``error``: rows in the wrong class, in per cent;
* regressors by ``1 - R2``, in per cent: mean squared errors in units of the variance;
* `StackedAutoencoder`, with codes of a quarter as many units as columns, by ``nats``:
  minus the score of a row, less that of the base;
* all by ``seconds`` of a fit.

With ``few`` labels, one in ten of the training rows has one, and the others serve
pretraining only. The first table has a row for each change to the base of a supervised
stack, with means over data sets. The second one does so for `StackedAutoencoder`.

Run it with one BLAS thread (``OPENBLAS_NUM_THREADS=1``)::

    python doc/benchmarks/stacked_defaults.py --quick          # half a minute
    python doc/benchmarks/stacked_defaults.py                  # half an hour

The bases are written out below: they do not follow the library's defaults.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split

from skae import (
    StackedAutoencoder,
    StackedAutoencoderClassifier,
    StackedAutoencoderRegressor,
)

Array = np.ndarray
Params = dict[str, Any]

COMMON: Params = {
    "hidden_layer_sizes": (100,),
    "activation": "tanh",
    "corruption_level": 0.05,
    "pretraining_max_iter": 50,
    "pretraining_learning_rate_init": 0.005,
    "alpha": 1e-4,
    "learning_rate": "adaptive",
    "n_iter_no_change": 10,
    "max_iter": 300,
}
SUPERVISED: Params = COMMON | {"n_components": 100, "learning_rate_init": 0.001}
UNSUPERVISED: Params = COMMON | {"learning_rate_init": 0.005}

#: Changes for both kinds.
CHANGES: list[Params] = [
    {},
    {"pretraining_max_iter": 0},
    {"pretraining_max_iter": 10},
    {"pretraining_max_iter": 200},
    {"pretraining_learning_rate_init": 0.001},
    {"pretraining_learning_rate_init": 0.01},
    {"corruption_level": 0.0},
    {"corruption_level": 0.2},
    {"corruption_level": 0.5},
    {"corruption": "gaussian", "corruption_level": 0.3},
    {"activation": "relu"},
    {"activation": "logistic"},
    {"tied_weights": True},
    {"hidden_layer_sizes": (100, 100)},
    {"alpha": 1e-2},
]
#: Changes for supervised stacks only.
FOR_TASKS: list[Params] = [
    {"activation": "relu", "pretraining_max_iter": 0},
    {"activation": "logistic", "pretraining_max_iter": 0},
    {"learning_rate_init": 0.0003},
    {"learning_rate_init": 0.003},
    {"learning_rate_init": 0.01},
    {"alpha": 1e-3},
    {"alpha": 1e-1},
    {"early_stopping": True},
    {"fine_tuning_corruption_level": 0.2},
    {"freeze_encoder": True},
    {"learning_rate": "constant"},
    {"max_iter": 200},
]


#: Changes for the stack itself only.
FOR_STACKS: list[Params] = [
    {"learning_rate_init": 0.0005},
    {"learning_rate_init": 0.001},
    {"learning_rate_init": 0.002},
    {"learning_rate_init": 0.01},
    {"fine_tune": False},
]


class Table(NamedTuple):
    """Rows and targets, and whether these are classes."""

    name: str
    X: Array
    y: Array
    is_classes: bool
    n_labels: float


def tables(quick: bool) -> Iterator[Table]:
    """Yield the data sets of scikit-learn, some with few labels."""
    for name in ("wine",) if quick else ("wine", "breast_cancer", "digits"):
        loaded = getattr(datasets, f"load_{name}")()
        yield Table(name, loaded.data, loaded.target, True, 1.0)
        if not quick:
            yield Table(f"{name}, few", loaded.data, loaded.target, True, 0.1)
    loaded = datasets.load_diabetes()
    yield Table("diabetes", loaded.data, loaded.target, False, 1.0)
    if not quick:
        digits = datasets.load_digits().data
        yield Table("lower halves", digits[:, :32], digits[:, 32:], False, 1.0)


def halves(table: Table, seed: int) -> tuple[Array, ...]:
    """Split rows, and leave few labels if that is wanted."""
    stratify = table.y if table.is_classes else None
    X, X_test, y, y_test = train_test_split(
        table.X, table.y, test_size=0.5, stratify=stratify, random_state=seed
    )
    if table.n_labels < 1:
        index = np.arange(len(y))
        _, hidden = train_test_split(
            index, train_size=table.n_labels, stratify=y, random_state=seed
        )
        y = y.copy()
        y[hidden] = -1
    return X, X_test, y, y_test


def of_task(table: Table, params: Params, n_seeds: int) -> dict[str, float]:
    """Fit and judge one configuration of a supervised stack."""
    losses, seconds = [], []
    for seed in range(n_seeds):
        X, X_test, y, y_test = halves(table, seed)
        settings = SUPERVISED | params | {"random_state": seed}
        model: Any
        if table.is_classes:
            model = StackedAutoencoderClassifier(unlabeled=-1, **settings)
        else:
            model = StackedAutoencoderRegressor(**settings)
        start = time.process_time()
        model.fit(X, y)
        seconds.append(time.process_time() - start)
        losses.append(100.0 * (1.0 - model.score(X_test, y_test)))
    return {"loss": fmean(losses), "seconds": fmean(seconds)}


def of_stack(table: Table, params: Params, n_seeds: int) -> dict[str, float]:
    """Fit and judge one configuration of the stack itself."""
    losses, seconds = [], []
    for seed in range(n_seeds):
        X, X_test, *_ = halves(table, seed)
        kept = X.std(axis=0) > 0.1 * X.std()
        X, X_test = X[:, kept], X_test[:, kept]
        n = max(2, X.shape[1] // 4)
        model = StackedAutoencoder(n, **UNSUPERVISED | params, random_state=seed)
        start = time.process_time()
        model.fit(X)
        seconds.append(time.process_time() - start)
        losses.append(-model.score(X_test))
    return {"loss": fmean(losses), "seconds": fmean(seconds)}


def shown(params: Params) -> str:
    """Return parameters as they would be written in a call."""
    return ", ".join(f"{name}={value!r}" for name, value in params.items())


def report(
    measure: Any, data: list[Table], changes: list[Params], n_seeds: int, relative: bool
) -> None:
    """Print a table with a row for each change."""
    names = [table.name for table in data]
    print(f"\n| change | {' | '.join(names)} | mean | seconds |")
    print("|---|" + "---:|" * (len(names) + 2), flush=True)
    base: list[float] = []
    for change in changes:
        found = [measure(table, change, n_seeds) for table in data]
        losses = [result["loss"] for result in found]
        base = base or (losses if relative else [0.0] * len(losses))
        shifted = [loss - start for loss, start in zip(losses, base, strict=True)]
        cells = [f"{value:.2f}" for value in (*shifted, fmean(shifted))]
        seconds = fmean(result["seconds"] for result in found)
        title = shown(change) or "**base**"
        print(f"| {title} | {' | '.join(cells)} | {seconds:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two tables, few changes")
    parser.add_argument("--seeds", type=int, default=5, help="splits of each table")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    data = list(tables(options.quick))
    n_seeds = 1 if options.quick else options.seeds
    most = 2 if options.quick else None
    report(of_task, data, (CHANGES + FOR_TASKS)[:most], n_seeds, relative=False)
    rows = [t for t in data if t.n_labels == 1 and t.name != "lower halves"]
    report(of_stack, rows, (CHANGES + FOR_STACKS)[:most], n_seeds, relative=True)


if __name__ == "__main__":
    main()
