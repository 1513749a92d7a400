"""Measure which default parameters suit `DenoisingAutoencoder`, on real data.

Each configuration is fitted to 70 % of the rows of each data set and judged by the
other rows:

* ``gain``: by how much the mean held-out log-likelihood of a row, ``score(X_test)``,
  exceeds that of the base configuration, divided by the number of columns:
  the median over data sets, the mean of the gains cut to [-1, 1], and the worst.
* ``accuracy``: of standardization and logistic regression on the codes, in per cent,
  averaged over data sets with labels.
* ``epochs`` (median), ``seconds`` of all fits together, and ``warned``, the share of
  fits that end with a `ConvergenceWarning`, in per cent.

The first table compares `OLD` and `NEW` on each data set, beside linear models with as
many components. "PCA" reconstructs each row and estimates the noise of each column
from the training residuals, as the autoencoder does; "PPCA" and "FA" are the scores of
scikit-learn's `PCA` and `FactorAnalysis`. Those are marginal likelihoods, which pay for
the code. The second table varies one factor at a time around the base, `NEW`, with 8
components.

Run it with one BLAS thread (``OPENBLAS_NUM_THREADS=1``)::

    python doc/benchmarks/defaults.py --quick          # half a minute, bundled data
    python doc/benchmarks/defaults.py                  # bundled data
    python doc/benchmarks/defaults.py --data PATH      # 8 minutes: and archives in PATH

The base of comparison is written out below: it does not follow the library's defaults.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
from sklearn import datasets
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import DenoisingAutoencoder

Params = dict[str, Any]

#: Rules for the batch size: functions of the number of training rows.
RULES = {
    "min(200, n)": lambda n: min(200, n),
    "32": lambda n: 32,
    "clip(n/16, 32, 256)": lambda n: min(256, max(32, n // 16)),
    "clip(n/32, 32, 256)": lambda n: min(256, max(32, n // 32)),
    "clip(2 sqrt n, 32, 256)": lambda n: min(256, max(32, int(2 * math.sqrt(n)))),
}

OLD: Params = {
    "activation": "tanh",
    "code_activation": "auto",
    "corruption": "masking",
    "corruption_level": 0.1,
    "tied_weights": False,
    "alpha": 1e-4,
    "batch_size": "min(200, n)",
    "learning_rate": "constant",
    "learning_rate_init": 1e-3,
    "max_iter": 200,
    "tol": 1e-4,
    "n_iter_no_change": 10,
    "early_stopping": False,
}
NEW: Params = OLD | {
    "activation": None,
    "corruption_level": 0.05,
    "batch_size": "clip(n/32, 32, 256)",
    "learning_rate": "adaptive",
    "learning_rate_init": 5e-3,
    "max_iter": 300,
}


class Data(NamedTuple):
    """A table, its labels (or None) and the distribution of its columns."""

    name: str
    X: np.ndarray
    y: np.ndarray | None
    distribution: str = "gaussian"


class Result(NamedTuple):
    """What one fit gave; the accuracy is NaN without labels."""

    score: float
    accuracy: float
    epochs: int
    seconds: float
    warned: bool


# --- data -----------------------------------------------------------------------------


def bundled() -> Iterator[Data]:
    """Yield the data sets that come with scikit-learn."""
    for name in ("iris", "wine", "breast_cancer", "diabetes", "digits"):
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        yield Data(name, X, None if name == "diabetes" else y)
    yield Data("digits / 16", X / 16.0, y, "bernoulli")


def some(n_rows: int, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `n_rows` rows, the same ones in each run."""
    rows = np.random.default_rng(0).permutation(len(X))[:n_rows]
    return np.asarray(X, dtype=float)[rows], np.asarray(y)[rows]


def external(folder: Path) -> Iterator[Data]:
    """Yield the data sets in `folder`; tell which are absent."""
    for read in (adbench, uci, mnist, salinas):
        try:
            yield from read(folder)
        except FileNotFoundError as error:
            print(f"Skipped {read.__name__}: there is no {error.filename}.")


def adbench(folder: Path) -> Iterator[Data]:
    """Yield tables for anomaly detection."""
    names = ("6_cardio", "28_pendigits", "19_landsat", "32_shuttle", "12_fault")
    for name in names:
        with np.load(folder / "adbench" / f"{name}.npz") as z:
            yield Data(name.split("_")[1], *some(5000, z["X"], z["y"]))


def uci(folder: Path) -> Iterator[Data]:
    """Yield complete tables without labels."""
    with np.load(folder / "imputation_uci" / "imputation_uci.npz") as z:
        for name in ("white_wine", "concrete"):
            yield Data(name, z[name].astype(float), None)


def mnist(folder: Path) -> Iterator[Data]:
    """Yield grey levels of handwritten digits."""
    with np.load(folder / "mnist" / "mnist.npz") as z:
        X, y = some(3000, z["X_train"], z["y_train"])
    yield Data("MNIST", X / 255.0, y, "bernoulli")


def salinas(folder: Path) -> Iterator[Data]:
    """Yield the spectra of pixels."""
    with np.load(folder / "hsi" / "salinasA.npz") as z:
        yield Data("salinasA", *some(3000, z["X"].reshape(-1, 204), z["gt"].ravel()))


def split(data: Data, seed: int) -> tuple[Any, Any, Any, Any]:
    """Return training and test rows, training and test labels."""
    y = np.zeros(len(data.X)) if data.y is None else data.y
    parts = train_test_split(data.X, y, test_size=0.3, random_state=seed)
    return tuple(parts)


# --- one fit --------------------------------------------------------------------------


def build(params: Params, data: Data, n_components: int, seed: int, n: int) -> Any:
    """Return the estimator that `params` ask for, to be fitted to n rows."""
    params = params | {"batch_size": RULES[params["batch_size"]](n)}
    return DenoisingAutoencoder(
        min(n_components, data.X.shape[1] - 1),
        distribution=data.distribution,
        random_state=seed,
        **params,
    )


def accuracy(codes: Any, codes_test: Any, y: Any, y_test: Any) -> float:
    """Return how well a linear classifier tells the labels from the codes."""
    if len(np.unique(y)) == 1:
        return math.nan
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(classifier.fit(codes, y).score(codes_test, y_test))


def measure(params: Params, data: Data, n_components: int, seed: int) -> Result:
    """Fit one configuration to one data set."""
    X, X_test, y, y_test = split(data, seed)
    model = build(params, data, n_components, seed, len(X))
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(X)
    seconds = time.perf_counter() - start
    codes, codes_test = model.transform(X), model.transform(X_test)
    return Result(
        model.score(X_test),
        accuracy(codes, codes_test, y, y_test),
        model.n_iter_,
        seconds,
        any(issubclass(w.category, ConvergenceWarning) for w in caught),
    )


def linear(data: Data, n_components: int, seed: int) -> list[float]:
    """Return the scores of PCA (see the module), PPCA and FA, and PCA's accuracy."""
    X, X_test, y, y_test = split(data, seed)
    scaler = StandardScaler().fit(X)
    X, X_test, lost = *map(scaler.transform, (X, X_test)), np.log(scaler.scale_).sum()
    n_components = min(n_components, X.shape[1] - 1)
    pca = PCA(n_components).fit(X)
    fa = FactorAnalysis(n_components).fit(X)
    codes, codes_test = pca.transform(X), pca.transform(X_test)
    variance = np.square(X - pca.inverse_transform(codes)).mean(axis=0)
    variance = np.where(X.std(axis=0) > 0, np.maximum(variance, 1e-6), 1.0)
    error = np.square(X_test - pca.inverse_transform(codes_test)) / variance
    own = -0.5 * (error + np.log(2 * math.pi * variance)).sum(axis=1).mean()
    scores = [float(s - lost) for s in (own, pca.score(X_test), fa.score(X_test))]
    return [*scores, accuracy(codes, codes_test, y, y_test)]


# --- tables ---------------------------------------------------------------------------


#: Data sets of more entries than this are fitted with one seed only.
LARGE = 1_000_000

#: The data sets of the second table: small, and without columns whose residuals are so
#: small that single rows decide the score.
MODEST = (
    *("iris", "wine", "breast_cancer", "diabetes", "digits", "digits / 16"),
    *("cardio", "white_wine", "concrete"),
)


class Plan(NamedTuple):
    """What to fit each configuration to: data sets, numbers of components, seeds."""

    sets: list[Data]
    components: tuple[int, ...]
    seeds: tuple[int, ...]


def results(params: Params, plan: Plan) -> dict[str, list[Result]]:
    """Fit one configuration to everything; the results of each data set."""
    return {
        data.name: [
            measure(params, data, n_components, seed)
            for n_components in plan.components
            for seed in plan.seeds
        ]
        for data in plan.sets
    }


def gains(
    new: dict[str, list[Result]], base: dict[str, list[Result]], sets: list[Data]
) -> dict[str, float]:
    """Return the gain in score of each data set, in nats per column."""
    return {
        data.name: fmean(
            (a.score - b.score) / data.X.shape[1]
            for a, b in zip(new[data.name], base[data.name], strict=True)
        )
        for data in sets
    }


def mean_accuracy(found: list[Result]) -> str:
    """Return the mean accuracy in per cent of the results that have one."""
    known = [result.accuracy for result in found if not math.isnan(result.accuracy)]
    return f"{100 * fmean(known):.1f}" if known else ""


def summary(found: list[Result]) -> list[str]:
    """Return accuracy, epochs, seconds and warnings, in words."""
    return [
        mean_accuracy(found),
        f"{median(result.epochs for result in found):.0f}",
        f"{sum(result.seconds for result in found):.1f}",
        f"{100 * fmean(result.warned for result in found):.0f}",
    ]


#: Everything that `say` has printed.
SAID: list[str] = []


def say(line: str = "") -> None:
    """Print a line and remember it for the report."""
    print(line, flush=True)
    SAID.append(line)


def row(*cells: str) -> None:
    """Print one line of a markdown table."""
    say(f"| {' | '.join(cells)} |")


def heading(*cells: str) -> None:
    """Print the head of a markdown table; all columns but the first hold numbers."""
    say()
    row(*cells)
    row("---", *["---:"] * (len(cells) - 1))


def describe(changes: Params) -> str:
    """Return a short name of some parameters and their values."""
    return ", ".join(f"{name}={value}" for name, value in changes.items())


def compare_factors(plan: Plan, factors: list[tuple[Params, list[Params]]]) -> None:
    """Print how each change of a base configuration fares against that base."""
    costs = ("accuracy", "epochs", "seconds", "warned")
    heading("change", "median gain", "mean gain", "worst", *costs)
    for common, changes in factors:
        base = results(NEW | common, plan)
        for change in [{}, *changes]:
            found = results(NEW | common | change, plan) if change else base
            gain = gains(found, base, plan.sets)
            worst = min(gain, key=lambda name: gain[name])
            row(
                describe(common | change) or "the base",
                f"{median(gain.values()):+.3f}",
                f"{fmean(np.clip(list(gain.values()), -1, 1)):+.3f}",
                f"{gain[worst]:+.2f} {worst}",
                *summary([result for of in found.values() for result in of]),
            )


def compare_with_linear(plan: Plan) -> None:
    """Print the scores of old and new defaults and of linear models."""
    both = ("old", "new")
    costs = [f"{cost} {of}" for cost in ("epochs", "seconds", "warned") for of in both]
    heading(
        "data",
        "components",
        *[f"score {name}" for name in (*both, "PCA", "PPCA", "FA")],
        *[f"accuracy {name}" for name in (*both, "PCA")],
        *costs,
    )
    for data in plan.sets:
        seeds = plan.seeds if data.X.size < LARGE else plan.seeds[:1]
        for n_components in plan.components:
            cells = versus(data, n_components, seeds)
            row(data.name, str(n_components), *cells)


def versus(data: Data, n_components: int, seeds: tuple[int, ...]) -> list[str]:
    """Return the cells of one data set and number of components."""
    plan = Plan([data], (n_components,), seeds)
    found = [results(params, plan)[data.name] for params in (OLD, NEW)]
    scores = [f"{fmean(r.score for r in of):.2f}" for of in found]
    costs = [summary(of) for of in found]
    others = [linear(data, n_components, seed) for seed in seeds]
    *reference, right = np.mean(others, axis=0)
    if data.distribution == "gaussian":
        scores += [f"{score:.2f}" for score in reference]
    else:
        scores += [""] * 3
    right = "" if math.isnan(right) else f"{100 * right:.1f}"
    by_cost = [cost for pair in zip(*costs, strict=True) for cost in pair]
    return [*scores, *by_cost[:2], right, *by_cost[2:]]


INTRODUCTION = """\
Made by `python doc/benchmarks/defaults.py --data PATH`, one thread. Scores are mean
held-out log-likelihoods in nats per row. "old" are the defaults of scikit-learn's
multi-layer perceptron with tanh codes and masking at 0.1, "new" those of skae. "PCA"
scores a row given its code, as the autoencoder does; "PPCA" and "FA" are marginal
likelihoods, which pay for the code. Without hidden layers and with real values, PCA is
the best that a linear decoder can do in squared error. Accuracies are those of logistic
regression on the codes, in per cent."""

BETWEEN = """\
One change at a time, 8 components, one seed: the gain in held-out log-likelihood
against the base, in nats per row and column, over the smaller data sets; the base is
"new". Differences below 0.01 are noise."""

# --- the command line -----------------------------------------------------------------

ACTIVATIONS = ("tanh", "relu", "elu", "leaky_relu", "softplus", "logistic", "selu")
HIDDEN: Params = {"hidden_layer_sizes": (64,)}
NOISE = (
    ("none", 0.0),
    ("masking", 0.1),
    ("masking", 0.2),
    ("masking", 0.3),
    ("gaussian", 0.1),
    ("gaussian", 0.3),
    ("gaussian", 0.5),
    ("swap", 0.1),
)

#: Parameters that all fits of a table share, and the changes tried on top of them.
FACTORS: list[tuple[Params, list[Params]]] = [
    (
        {},
        [
            *({"batch_size": rule} for rule in RULES if rule != NEW["batch_size"]),
            *({"learning_rate_init": rate} for rate in (1e-3, 2e-3, 3e-3, 1e-2)),
            *({"max_iter": epochs} for epochs in (200, 500)),
            *({"learning_rate": name} for name in ("constant", "cosine")),
            *({"activation": name} for name in ACTIVATIONS),
            *({"corruption": n, "corruption_level": level} for n, level in NOISE),
            {"tied_weights": True},
            *({"alpha": alpha} for alpha in (0.0, 1e-5, 1e-3)),
            {"early_stopping": True},
        ],
    ),
    (
        HIDDEN,
        [
            *({"learning_rate_init": rate} for rate in (1e-3, 1e-2)),
            *({"activation": name} for name in ACTIVATIONS),
            {"code_activation": "tanh"},
            {"corruption": "none", "corruption_level": 0.0},
            {"corruption_level": 0.1},
        ],
    ),
]


def main() -> None:
    """Print both tables; with all the data, write them beside this script too."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of further data sets")
    parser.add_argument("--quick", action="store_true", help="one table, one seed")
    options = parser.parse_args()
    sets = list(bundled())
    if options.data is None:
        print("Skipped the data sets that are not bundled: no --data PATH given.")
    elif not options.quick:
        sets += external(options.data)
    seeds = (0,) if options.quick else (0, 1)
    names = MODEST[:1] if options.quick else MODEST
    modest = [data for data in sets if data.name in names]
    say(INTRODUCTION)
    compare_with_linear(Plan(modest if options.quick else sets, (2, 8), seeds))
    say(f"\n{BETWEEN}")
    compare_factors(Plan(modest, (8,), (0,)), FACTORS)
    if options.data and not options.quick:
        report = Path(__file__).with_suffix(".md")
        report.write_text("\n".join(SAID) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
