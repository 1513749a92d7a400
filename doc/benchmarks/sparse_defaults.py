"""Measure which default parameters suit `SparseAutoencoder`, mostly on real data.

Each configuration is fitted to 70 % of the rows of each data set, with a code of twice
as many units as columns, and judged by the other rows:

* ``explained``: the share of their variance, in per cent, that their reconstructions
  explain, columns divided by their deviation in the training rows;
* ``fires``: units that are not zero in a row, in per cent of all (for 'kl', the mean
  activation);
* ``dead``: units that fire for no training row, in per cent of all;
* ``accuracy``: of standardization and logistic regression on the codes, in per cent,
  where there are labels;
* ``found``: for planted rows (see sparse_dictionary.py) the share of atoms, in per
  cent, with an absolute cosine of more than 0.9 with one of the `components_`;
* ``epochs`` and ``seconds`` of a fit.

The first table has a row for each penalty and data set, the second one for each change
to the base configuration, with means over the data sets.

Run it with one BLAS thread (``OPENBLAS_NUM_THREADS=1``)::

    python doc/benchmarks/sparse_defaults.py --quick          # ten seconds
    python doc/benchmarks/sparse_defaults.py                  # six minutes
    python doc/benchmarks/sparse_defaults.py --data PATH      # and images in PATH

The base is written out below: it does not follow the library's defaults.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sparse_dictionary import Planted, compare

from skae import SparseAutoencoder
from skae.penalties import PENALTIES, JumpReLU, KLDivergence

Array = np.ndarray
Params = dict[str, Any]

BASE: Params = {
    "sparsity_target": 0.1,
    "sparsity_weight": 1.0,
    "sparsity_warm_up": 0,
    "revival": "resampling",
    "dead_after": 2.0,
    "unit_norm": "auto",
    "alpha": 1e-4,
    "batch_size": "auto",
    "learning_rate": "adaptive",
    "learning_rate_init": 0.005,
    "n_iter_no_change": 10,
    "max_iter": 300,
}

#: Changes for every penalty.
CHANGES: list[Params] = [
    {},
    {"learning_rate_init": 0.001},
    {"learning_rate_init": 0.01},
    {"n_iter_no_change": 20},
    {"revival": None},
    {"revival": "auxiliary"},
]
#: Weights for those penalties that cost something.
WEIGHTS = (0.1, 0.3, 3.0)
#: Other changes for one penalty.
OTHERS: dict[str, list[Params]] = {
    "topk": [
        {"dead_after": 1.0},
        {"dead_after": 5.0},
        {"sparsity_warm_up": 20},
        {"sparsity_target": 0.05},
        {"alpha": 0.0},
        {"unit_norm": False},
        {"learning_rate": "cosine"},
        {"batch_size": 256},
    ],
    "kl": [
        {"batch_size": 256},
        {"penalty": KLDivergence(memory=1000)},
        {"sparsity_target": 0.05},
    ],
    "batchtopk": [{"dead_after": 1.0}, {"dead_after": 5.0}],
    "hoyer": [{"unit_norm": False}],
    "jumprelu": [
        {"penalty": JumpReLU(threshold, bandwidth)}
        for threshold in (0.03, 0.1, 0.5)
        for bandwidth in (0.1, 0.5, 2.0)
        if (threshold, bandwidth) != (0.1, 0.5)
    ],
}


class Table(NamedTuple):
    """Rows for training and testing, labels and planted atoms."""

    name: str
    train: Array
    test: Array
    labels: tuple[Array, Array] | None = None
    atoms: Array | None = None


def bundled() -> Iterator[Table]:
    """Yield the data sets of scikit-learn."""
    for name in ("wine", "breast_cancer", "digits"):
        loaded = getattr(datasets, f"load_{name}")()
        X = loaded.data
        # Divided by their deviation, pixels that are nearly always blank would prevail.
        kept = X.std(axis=0) > (0.5 if name == "digits" else 0.0)
        yield split(name, X[:, kept], loaded.target)
    yield split("diabetes", datasets.load_diabetes().data)


def planted(n_rows: int) -> Table:
    """Return rows with planted atoms, in the units in which these have length one."""
    atoms, X = Planted(32, 64, 3, n_rows=n_rows).draw(0)
    table = split("planted", X, unit=False)
    return table._replace(atoms=atoms)


def images(path: Path) -> Iterator[Table]:
    """Yield the images that there are."""
    for name in ("mnist", "fashion_mnist"):
        file = path / name / f"{name}.npz"
        if not file.exists():
            print(f"(no {name}/{name}.npz)")
            continue
        with np.load(file) as stored:
            X, y = stored["X_train"][:6000] / 255.0, stored["y_train"][:6000]
        yield split(name, X[:, X.std(axis=0) > 0.05], y)


def split(name: str, X: Array, y: Array | None = None, unit: bool = True) -> Table:
    """Split rows; divide columns by their standard deviation."""
    index = np.arange(len(X))
    train, test = train_test_split(index, train_size=0.7, random_state=0)
    deviation = X[train].std(axis=0)
    X = X[:, deviation > 0] / (deviation[deviation > 0] if unit else 1.0)
    X = X.astype(np.float32)
    labels = None if y is None else (y[train], y[test])
    return Table(name, X[train], X[test], labels)


def measure(table: Table, params: Params, most: int) -> dict[str, float]:
    """Fit and judge one configuration."""
    n = min(most, 2 * table.train.shape[1])
    start = time.process_time()
    model = SparseAutoencoder(n, random_state=0, **(BASE | params)).fit(table.train)
    seconds = time.process_time() - start
    codes = model.transform(table.test)
    error = np.square(table.test - model.inverse_transform(codes)).sum()
    share = 1.0 - error / np.square(table.test - table.train.mean(axis=0)).sum()
    kl = "KL" in repr(params["penalty"]).upper()
    result = {
        "explained": 100.0 * float(share),
        "fires": 100.0 * float(codes.mean() if kl else (codes != 0).mean()),
        "dead": 100.0 * model.n_dead_ / n,
        "epochs": float(model.n_iter_),
        "seconds": seconds,
    }
    if table.labels is not None:
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        probe.fit(model.transform(table.train), table.labels[0])
        result["accuracy"] = 100.0 * probe.score(codes, table.labels[1])
    if table.atoms is not None:
        result["found"] = compare(table.atoms, model.components_)[1]
    return result


COLUMNS = ("explained", "fires", "dead", "accuracy", "found", "epochs", "seconds")


def line(title: str, results: list[dict[str, float]]) -> str:
    """Return one row of a table: means over results that have a column."""
    cells = []
    for column in COLUMNS:
        values = [result[column] for result in results if column in result]
        digits = 0 if column in ("found", "epochs") else 2 if column == "seconds" else 1
        cells.append(f"{fmean(values):.{digits}f}" if values else "")
    return f"| {title} | {' | '.join(cells)} |"


def head(title: str) -> None:
    """Print the head of a table."""
    print(f"\n| {title} | {' | '.join(COLUMNS)} |")
    print("|---|" + "---:|" * len(COLUMNS), flush=True)


def shown(params: Params) -> str:
    """Return parameters as they would be written in a call."""
    return ", ".join(f"{name}={value!r}" for name, value in params.items())


def changes(penalty: str) -> list[Params]:
    """Return what to change for a penalty."""
    weights = () if penalty in ("topk", "batchtopk") else WEIGHTS
    by_weight = [{"sparsity_weight": weight} for weight in weights]
    return CHANGES + by_weight + OTHERS.get(penalty, [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little data, 30 epochs")
    parser.add_argument("--data", type=Path, help="folder with images")
    parser.add_argument("--most", type=int, default=512, help="largest code")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    small = [table for table in bundled() if not options.quick or table.name == "wine"]
    if options.quick:
        BASE["max_iter"] = 30
    small.append(planted(1000 if options.quick else 2000))
    large = [] if options.data is None else list(images(options.data))
    penalties = sorted(PENALTIES)
    head("penalty, data")
    results: dict[str, list[dict[str, float]]] = {}
    for penalty in penalties:
        for table in small + large:
            result = measure(table, {"penalty": penalty}, options.most)
            print(line(f"{penalty}, {table.name}", [result]), flush=True)
            if table.name in {table.name for table in small}:
                results.setdefault(penalty, []).append(result)
    head("penalty, change")
    for penalty in penalties:
        for change in changes(penalty)[: 2 if options.quick else None]:
            found = results[penalty]
            if change:
                params = {"penalty": penalty} | change
                found = [measure(table, params, options.most) for table in small]
            title = f"{penalty}: {shown(change)}" if change else f"**{penalty}**"
            print(line(title, found), flush=True)


if __name__ == "__main__":
    main()
