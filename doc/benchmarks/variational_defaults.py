"""Measure which default parameters let `VariationalAutoencoder` converge, on real data.

Each configuration is fitted to 70 % of the rows of each data set, with a linear model
and with one hidden layer of 32 units, and judged by the other rows: ``score(X_test)``,
the mean log p(x) of a row in nats, columns divided by their standard deviation. "FA" is
scikit-learn's `FactorAnalysis`, the maximum of the linear model on the training rows.
Epochs and seconds are those of one fit.

Run it with one BLAS thread (``OPENBLAS_NUM_THREADS=1``)::

    python doc/benchmarks/variational_defaults.py --quick      # half a minute
    python doc/benchmarks/variational_defaults.py              # half an hour

The configurations are written out below: they do not follow the library's defaults.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from statistics import fmean

import numpy as np
from sklearn import datasets
from sklearn.decomposition import FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from skae import VariationalAutoencoder

#: Learning rate, epochs without progress, most epochs, and other parameters.
CONFIGURATIONS = {
    "0.005, 10, 300": (0.005, 10, 300, {}),
    "0.01, 10, 300": (0.01, 10, 300, {}),
    "0.01, 20, 500": (0.01, 20, 500, {}),
    "0.02, 20, 500": (0.02, 20, 500, {}),
    "0.01, 50, 1000": (0.01, 50, 1000, {}),
    "0.02, 30, 1000": (0.02, 30, 1000, {}),
    "0.02 cosine, 600": (0.02, np.inf, 600, {"learning_rate": "cosine"}),
    "0.01, 20, 500, batch 16": (0.01, 20, 500, {"batch_size": 16}),
    "0.01, 20, 500, 2 draws": (0.01, 20, 500, {"n_samples": 2}),
}
LAYERS = ((), (32,))


def tables() -> Iterator[tuple[str, np.ndarray, int]]:
    """Yield names, rows and numbers of components."""
    yield "iris", datasets.load_iris().data, 2
    yield "wine", datasets.load_wine().data, 3
    yield "diabetes", datasets.load_diabetes().data, 3
    cancer = np.log(datasets.load_breast_cancer().data + 0.01)
    yield "breast cancer, logarithms", cancer, 5
    yield "breast cancer, logarithms", cancer, 10
    digits = datasets.load_digits().data
    yield "digits, 52 columns", digits[:, digits.std(axis=0) > 0.5], 8


def measure(name: str, X: tuple[np.ndarray, ...], k: int, seeds: int) -> list[str]:
    """Return the cells of one configuration: scores, epochs and seconds by layers."""
    rate, patience, epochs, others = CONFIGURATIONS[name]
    cells = []
    for layers in LAYERS:
        scores, n_iter, start = [], [], time.process_time()
        for seed in range(seeds):
            model = VariationalAutoencoder(
                k,
                hidden_layer_sizes=layers,
                learning_rate_init=rate,
                n_iter_no_change=patience,
                max_iter=epochs,
                random_state=seed,
                **others,
            ).fit(X[0])
            scores.append(model.score(X[1]))
            n_iter.append(model.n_iter_)
        seconds = (time.process_time() - start) / seeds
        cells += [f"{fmean(scores):.2f}", f"{fmean(n_iter):.0f}", f"{seconds:.1f}"]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one table, one seed")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    seeds = 1 if options.quick else options.seeds
    print("Made by `python doc/benchmarks/variational_defaults.py`; see there what is")
    print("measured. Mean of", seeds, "seeds. A configuration is a learning rate, the")
    print("epochs without progress after which it falls, and the most epochs.")
    for name, X, k in list(tables())[: 1 if options.quick else None]:
        train, test = train_test_split(X, train_size=0.7, random_state=0)
        unit = train.std(axis=0)
        train, test = train / unit, test / unit
        exact = FactorAnalysis(k, tol=1e-6, max_iter=3000).fit(train).score(test)
        print(f"\n{name}, {k} components, FA {exact:.2f}:\n")
        print("| configuration | linear | epochs | s | 32 hidden | epochs | s |")
        print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
        for configuration in CONFIGURATIONS:
            cells = measure(configuration, (train, test), k, seeds)
            print(f"| {configuration} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
