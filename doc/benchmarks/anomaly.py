"""Outliers in 21 public tables and in MNIST: the default detector beside other methods.

The tables are those of ADBench, in the two settings of Livernoche et al. (2024), "On
Diffusion Modeling for Anomaly Detection", whose means over these tables are quoted.

* Tables of less than 1000 rows are resampled to 1000, with replacement; of tables of
  more than 50000, as many are drawn, without.
* "normal": the training rows are the first half of the normal rows, in the order of the
  file; the test rows are the other half and all anomalies. Columns are scaled to mean
  zero and variance one in the training rows.
* "contaminated": the training rows are a bootstrap of all rows, which are the test
  rows, too. Columns are scaled in all rows, before.

All methods see the same rows. Each has one setting for all tables:

* "detector": `AutoencoderOutlierDetector()`;
* "variational": the same around a variational autoencoder with 8 components and a
  hidden layer of 64 units, 50 epochs, 16 draws for a score; not run unless
  ``--methods`` asks for it;
* "kNN-5", "kNN-32": minus the distance to the fifth or the 32nd neighbour among the
  training rows. The published figures for normal rows come out with five. Those for
  contaminated rows do not, but do, to a few tenths in most tables, with 32: they
  stand beside these;
* "IForest", "LOF", "OCSVM": `IsolationForest`, `LocalOutlierFactor` with 20 neighbours
  and `OneClassSVM` with gamma = 1/d, the latter fitted to at most 10000 random rows;
* "PCA": minus the sum over all components of the distance between the scaled row and
  the component, a unit vector, by the component's share of the variance, as in
  PyOD, with which the published figures were made;
* "GMM-24", "GMM-12": `GaussianMixture` of 48 diagonal Gaussians, at most one for two
  rows, to whose variances d/24 or d/12 are added, d the number of columns.

In MNIST, as in Ruff et al. (2018), "Deep One-Class Classification", training rows are
all training digits of one class, and test rows all 10000 test digits. Pixels are
divided by 255 and nothing else; the published figures are for rows whose contrast was
normalised. Beside the default, "images" is a detector that suits them: the squared
error of pixels, not divided by their standard deviations, after a code of 32 units and
hidden layers of 128, trained for 50 epochs on pixels with noise. It was chosen among
two dozen by 1500 training digits, to tell classes 2 and 8 from the others, and not by
test digits.

Usage::

    python doc/benchmarks/anomaly.py --quick                        # bundled tables
    python doc/benchmarks/anomaly.py --data PATH --mnist --cache FILE --jobs 2

PATH is a folder with tables in ``adbench/*.npz``, each with `X` and `y`, 1 for an
anomaly, and with the digits in ``mnist/mnist.npz``. Each fit runs in one thread; with
``--jobs 2`` two run at a time. What is found is appended to FILE, and what is there is
not computed again: a run that was cut off goes on. Delete FILE when the library has
changed. The result is printed; that of a complete run, with ``--mnist`` and without
``--methods``, ``--sets``, ``--digits`` and ``--rows``, is also written to anomaly.md
beside this script. ``--sets`` without a name leaves the tables out. Without data only
``--quick`` is possible, which has the same rules and takes seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from statistics import fmean, median, stdev
from typing import NamedTuple

import joblib
import numpy as np
from k_sparse import FILE as MNIST
from k_sparse import load as load_mnist
from scipy.spatial.distance import cdist
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from threadpoolctl import threadpool_limits

from skae import (
    AutoencoderOutlierDetector,
    DenoisingAutoencoder,
    VariationalAutoencoder,
)

NAMES = (
    *("1_ALOI", "2_annthyroid", "5_campaign", "6_cardio", "7_Cardiotocography"),
    *("10_cover", "12_fault", "15_Hepatitis", "16_http", "17_InternetAds"),
    *("19_landsat", "23_mammography", "25_musk", "28_pendigits", "29_Pima"),
    *("32_shuttle", "33_skin", "40_vowels", "41_Waveform", "46_WPBC", "47_yeast"),
)
#: Names of tables, and of their files.
SETS = {name.split("_")[1]: f"{name}.npz" for name in NAMES}
QUICK_SETS = "digits", "breast_cancer"
FEWEST, MOST, MOST_FOR_SVM = 1000, 50_000, 10_000

#: Means over the 21 tables, in the order of `SETTINGS`.
PUBLISHED = {
    "DTE-NP": (81.78, 67.42),
    "kNN-5": (80.72, None),
    "kNN-32": (None, 68.64),
    "OCSVM": (78.08, 72.09),
    "LOF": (77.30, 58.26),
    "IForest": (75.45, 73.57),
    "VAE": (75.37, 71.99),
    "PCA": (74.47, 70.67),
}
#: Deep SVDD, by digit.
PUBLISHED_DIGITS = (98.0, 99.7, 91.7, 91.9, 94.9, 88.5, 98.3, 94.6, 93.9, 96.5)

TABLES = """\
Made by

```
python doc/benchmarks/anomaly.py {options}
```

(NumPy {numpy}, scikit-learn {sklearn}, one thread for a fit). All figures are areas
under the ROC curve in per cent, of {n_sets} tables and {n_seeds}; see the script for
settings and methods.{note}

Means over the tables, and in parentheses the standard deviation of that mean over
seeds. Seconds are those of one processor for fits and scores of all tables, the median
over seeds.{published}
| method | normal | published | contaminated | published | s, normal | s, contaminated |
|---|---:|---:|---:|---:|---:|---:|
"""
CAPPED = """ This was a quick look: only {rows} random rows of those for
training, and of those for testing, were taken."""
PUBLISHED_NOTE = """ Published means are those of
the authors' own runs; lines without other figures are methods that were not run here.
"""
BY_SET = """
Means over seeds, table by table. Rows, columns and anomalies are those of the file.

| table | rows | columns | anomalies |{heads}
|---|---:|---:|---:|{rule}
"""
DIGITS = """
MNIST: trained on one digit, tested on all, one seed{capped}. Seconds are
those of one processor for a fit and scores.

| digit |{heads} Deep SVDD, published |
|---|{rule}---:|
"""


class Cell(NamedTuple):
    """One fit: the name of the data, the setting, the seed and the method."""

    data: str
    setting: str
    seed: int
    method: str


class Found(NamedTuple):
    """What came of a fit: the area under the curve in per cent, and seconds."""

    auroc: float
    seconds: float


def note(text):
    """Report progress."""
    print(text, file=sys.stderr, flush=True)


# --- the methods ----------------------------------------------------------------------


class Neighbours(NearestNeighbors):
    """Scores rows by their distance to the last one of some neighbours."""

    def score_samples(self, X):
        """Return minus the distance."""
        return -self.kneighbors(X)[0][:, -1]


class Components(PCA):
    """Scores rows by their distances to the components, as the published figures do."""

    def score_samples(self, X):
        """Return minus the sum of the distances, each by a share of the variance."""
        share = self.explained_variance_ratio_
        seen = share > 0
        return -(cdist(X, self.components_[seen]) / share[seen]).sum(axis=1)


class SupportVectors(OneClassSVM):
    """A one-class SVM that takes only some of many rows."""

    def fit(self, X, y=None):
        """Fit to at most `MOST_FOR_SVM` rows."""
        rows = np.random.default_rng(0).permutation(len(X))[:MOST_FOR_SVM]
        return super().fit(X[rows])


def mixture(X, seed, part):
    """Return a mixture with noise whose variance is a part of the number of columns."""
    return GaussianMixture(
        min(48, len(X) // 2),
        covariance_type="diag",
        reg_covar=X.shape[1] / part,
        random_state=seed,
    )


def variational(X, seed):
    """Return a detector around a variational autoencoder."""
    model = VariationalAutoencoder(
        8, hidden_layer_sizes=64, max_iter=50, n_importance_samples=16
    )
    return AutoencoderOutlierDetector(model, random_state=seed)


def images(X, seed):
    """Return a detector that suits images."""
    model = DenoisingAutoencoder(
        32,
        hidden_layer_sizes=128,
        activation="relu",
        corruption="gaussian",
        corruption_level=0.3,
        distribution="squared_error",
        standardize=False,
        max_iter=50,
    )
    return AutoencoderOutlierDetector(
        model,
        anomaly_score="reconstruction_error",
        calibration="train",
        random_state=seed,
    )


#: Functions of training rows and of a seed.
METHODS = {
    "detector": lambda X, seed: AutoencoderOutlierDetector(random_state=seed),
    "variational": variational,
    "images": images,
    "kNN-5": lambda X, seed: Neighbours(n_neighbors=5),
    "kNN-32": lambda X, seed: Neighbours(n_neighbors=32),
    "LOF": lambda X, seed: LocalOutlierFactor(n_neighbors=20, novelty=True),
    "IForest": lambda X, seed: IsolationForest(random_state=seed),
    "OCSVM": lambda X, seed: SupportVectors(gamma="auto"),
    "PCA": lambda X, seed: Components(svd_solver="full"),
    "GMM-24": lambda X, seed: mixture(X, seed, 24),
    "GMM-12": lambda X, seed: mixture(X, seed, 12),
}
OPTIONAL = ("variational",)
FOR_DIGITS = ("detector", "images", "IForest")
FOR_TABLES = tuple(name for name in METHODS if name not in ("images", *OPTIONAL))
#: Methods that the long table shows.
SHOWN = "detector", "kNN-5", "IForest", "GMM-24"


# --- the rows -------------------------------------------------------------------------


def file_of(name):
    """Return the file of a table, in the folder of data."""
    return Path("adbench", SETS[name])


def table(name, folder):
    """Return rows, and for each whether it is an anomaly."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        normal, others = np.flatnonzero(y == 8), np.flatnonzero(y != 8)[:20]
        rows = np.sort(np.r_[normal, others])
        return X[rows], y[rows] != 8
    if name == "breast_cancer":
        X, y = load_breast_cancer(return_X_y=True)
        return X, y == 0
    with np.load(folder / file_of(name)) as file:
        return np.ascontiguousarray(file["X"], dtype=float), file["y"] == 1


def resized(X, y, rng):
    """Return not too few and not too many rows."""
    if FEWEST <= len(X) <= MOST:
        return X, y
    few = len(X) < FEWEST
    rows = rng.choice(len(X), FEWEST if few else MOST, replace=few)
    return X[rows], y[rows]


def normal_rows(X, y, rng):
    """Return half of the normal rows for training, and the others for testing."""
    normal = np.flatnonzero(~y)
    half = round(len(normal) / 2)
    test = np.concatenate([normal[half:], np.flatnonzero(y)])
    scaler = StandardScaler().fit(X[normal[:half]])
    return scaler.transform(X[normal[:half]]), scaler.transform(X[test]), y[test]


def contaminated_rows(X, y, rng):
    """Return a bootstrap of all rows for training, and all rows for testing."""
    X = StandardScaler().fit_transform(X)
    return X[rng.choice(len(X), len(X))], X, y


SETTINGS = {"normal": normal_rows, "contaminated": contaminated_rows}


def one_digit(digit, folder):
    """Return the training rows of one digit, and all rows for testing."""
    X, y, X_test, y_test = load_mnist(folder)
    return X[y == digit], X_test, y_test != digit


def capped(X, X_test, y_test, rows, seed):
    """Return at most so many rows for training and for testing."""
    X = np.random.default_rng(seed).permutation(X)[:rows]
    if rows is not None and len(X_test) > rows:
        X_test, _, y_test, _ = train_test_split(
            X_test, y_test, train_size=rows, stratify=y_test, random_state=seed
        )
    return X, X_test, y_test


def rows_of(cell, folder):
    """Return rows for training, rows for testing, and which of these are anomalies."""
    if cell.setting == "digit":
        return one_digit(int(cell.data), folder)
    rng = np.random.RandomState(cell.seed)
    return SETTINGS[cell.setting](*resized(*table(cell.data, folder), rng), rng)


# --- the fits -------------------------------------------------------------------------


def measure(cell, folder, rows):
    """Fit a method and let it score rows; return the cell and what came of it."""
    X, X_test, y_test = rows_of(cell, folder)
    if rows is not None:
        X, X_test, y_test = capped(X, X_test, y_test, rows, cell.seed)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        began = time.process_time()
        model = METHODS[cell.method](X, cell.seed).fit(X)
        scores = model.score_samples(X_test)
        seconds = time.process_time() - began
    return cell, Found(100 * roc_auc_score(~y_test, scores), seconds)


def remembered(path, rows):
    """Return what a file holds, of runs with as many rows."""
    if path is None or not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return {
        Cell(*record["cell"]): Found(*record["found"])
        for record in records
        if record["rows"] == rows
    }


def remember(path, rows, cell, found):
    """Append what was found to a file."""
    if path is not None:
        line = json.dumps({"rows": rows, "cell": cell, "found": found})
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def results(cells, options):
    """Return what came of each cell; cells that the file holds are not run again."""
    known = remembered(options.cache, options.rows)
    tasks = [
        joblib.delayed(measure)(cell, options.data, options.rows)
        for cell in cells
        if cell not in known
    ]
    run = joblib.Parallel(n_jobs=options.jobs, return_as="generator_unordered")
    for i, (cell, found) in enumerate(run(tasks), start=1):
        known[cell] = found
        remember(options.cache, options.rows, cell, found)
        did = " ".join(map(str, cell))
        note(f"{i}/{len(tasks)} {did}: {found.auroc:.2f}, {found.seconds:.1f} s")
    return {cell: known[cell] for cell in cells}


# --- the report -----------------------------------------------------------------------


def seeds_in_words(n):
    """Return the number of seeds."""
    return "one seed" if n == 1 else f"{n} seeds"


def of(found, *, field="auroc", **wanted):
    """Return a field of all results whose cells are as wanted."""
    return [
        getattr(result, field)
        for cell, result in found.items()
        if all(getattr(cell, name) == value for name, value in wanted.items())
    ]


def mean_cell(found, method, setting, seeds):
    """Return the mean over tables, with its deviation over seeds."""
    each = [
        fmean(of(found, method=method, setting=setting, seed=seed))
        for seed in range(seeds)
    ]
    return f"{fmean(each):.2f}" + (f" ({stdev(each):.2f})" if seeds > 1 else "")


def seconds_cell(found, method, setting, seeds):
    """Return the seconds for all tables."""
    each = [
        sum(of(found, field="seconds", method=method, setting=setting, seed=seed))
        for seed in range(seeds)
    ]
    return f"{median(each):.1f}"


def mean_lines(found, options, quoted):
    """Return the lines of the table of means; `quoted` are published figures."""
    text = ""
    for method in options.methods:
        cells = [method]
        for setting, mean in zip(SETTINGS, published(method, quoted), strict=True):
            cells += [mean_cell(found, method, setting, options.seeds), mean]
        cells += [seconds_cell(found, method, s, options.seeds) for s in SETTINGS]
        text += f"| {' | '.join(cells)} |\n"
    for method in quoted:
        if method not in options.methods:
            text += f"| {method} | | {' | | '.join(published(method, quoted))} | | |\n"
    return text


def published(method, quoted):
    """Return the published means of a method, or nothing for each that is not known."""
    means = quoted.get(method, (None, None))
    return ["" if mean is None else f"{mean:.2f}" for mean in means]


def set_lines(found, options):
    """Return the long table: a line for each table, and one for the means."""
    methods = [name for name in SHOWN if name in options.methods]
    heads = [f" {name}, {setting} |" for setting in SETTINGS for name in methods]
    text = BY_SET.format(heads="".join(heads), rule="---:|" * len(heads))
    for name in options.sets:
        X, y = table(name, options.data)
        text += f"| {name} | {len(X)} | {X.shape[1]} | {100 * y.mean():.2f} % |"
        for setting in SETTINGS:
            for method in methods:
                each = of(found, data=name, setting=setting, method=method)
                text += f" {fmean(each):.2f} |"
        text += "\n"
    return text + mean_of_sets(found, methods)


def mean_of_sets(found, methods):
    """Return the last line of the long table."""
    text = "| **mean** | | | |"
    for setting in SETTINGS:
        for method in methods:
            text += f" **{fmean(of(found, setting=setting, method=method)):.2f}** |"
    return text + "\n"


def about_tables(found, options):
    """Return the part of the report on tables."""
    all_rows = options.rows is None
    quoted = PUBLISHED if all_rows and options.sets == [*SETS] else {}
    text = TABLES.format(
        options=command(options),
        numpy=np.__version__,
        sklearn=sys.modules["sklearn"].__version__,
        n_sets=len(options.sets),
        n_seeds=seeds_in_words(options.seeds),
        note="" if all_rows else CAPPED.format(rows=options.rows),
        published=PUBLISHED_NOTE if quoted else "\n",
    )
    return text + mean_lines(found, options, quoted) + set_lines(found, options)


def about_digits(found, options):
    """Return the part of the report on MNIST."""
    methods = FOR_DIGITS
    rows = options.rows
    text = DIGITS.format(
        capped="" if rows is None else f", at most {rows} rows",
        heads="".join(
            f" {name} |" for name in (*methods, *(f"s, {m}" for m in methods))
        ),
        rule="---:|" * 2 * len(methods),
    )
    for digit in options.digits:
        which = {"setting": "digit", "data": str(digit)}
        each = [fmean(of(found, **which, method=name)) for name in methods]
        text += f"| {digit} |" + "".join(f" {value:.2f} |" for value in each)
        for name in methods:
            text += f" {sum(of(found, field='seconds', **which, method=name)):.1f} |"
        text += f" {PUBLISHED_DIGITS[digit]:.1f} |\n"
    return text + mean_of_digits(found, options)


def mean_of_digits(found, options):
    """Return the last line of the table of digits."""
    text = "| **mean** |"
    for name in FOR_DIGITS:
        text += f" **{fmean(of(found, setting='digit', method=name)):.2f}** |"
    published = fmean(PUBLISHED_DIGITS[digit] for digit in options.digits)
    return text + " |" * len(FOR_DIGITS) + f" **{published:.1f}** |\n"


# --- the command line -----------------------------------------------------------------


def parsed():
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, help="folder with adbench/*.npz and mnist/mnist.npz")
    add("--mnist", action="store_true", help="the digits, too")
    add("--seeds", type=int, default=5, help="seeds for tables")
    add("--sets", nargs="*", choices=SETS, default=[*SETS], metavar="TABLE")
    add("--digits", nargs="*", type=int, choices=range(10), default=[*range(10)])
    add("--methods", nargs="+", choices=METHODS, default=[*FOR_TABLES])
    add("--rows", type=int, help="most rows for training and for testing")
    add("--cache", type=Path, help="file to append to, and to take up again")
    add("--jobs", type=int, default=1, help="fits at a time")
    add("--quick", action="store_true", help="seconds, with scikit-learn's tables")
    return parser.parse_args()


def command(options):
    """Return the options that print the same again."""
    if options.quick:
        return "--quick"
    chosen = f"--data PATH --seeds {options.seeds}" + " --mnist" * options.mnist
    for name, default in (("sets", [*SETS]), ("methods", [*FOR_TABLES])):
        given = getattr(options, name)
        if given != default:
            chosen += " ".join([f" --{name}", *given])
    return chosen + (f" --rows {options.rows}" if options.rows else "")


def absent(options):
    """Return the names of files that are needed and are not there."""
    if options.quick:
        return []
    needed = [file_of(name) for name in options.sets] + [MNIST] * options.mnist
    folder = options.data
    return [
        file.as_posix()
        for file in needed
        if folder is None or not (folder / file).is_file()
    ]


def planned(options):
    """Return the cells to run: seed by seed, the tables before the digits."""
    cells = [
        Cell(data, setting, seed, method)
        for seed in range(options.seeds)
        for data in options.sets
        for setting in SETTINGS
        for method in options.methods
    ]
    if options.mnist:
        cells += [
            Cell(str(digit), "digit", 0, method)
            for digit in options.digits
            for method in FOR_DIGITS
        ]
    return cells


def main():
    """Run the benchmark from the command line."""
    options = parsed()
    missing = absent(options)
    if missing:
        few = ", ".join(missing[:3]) + ", ..." * (len(missing) > 3)
        print(f"Nothing to do: --data names no folder with {few}. Try --quick.")
        return
    if options.quick:
        options.sets, options.seeds, options.mnist = [*QUICK_SETS], 1, False
    found = results(planned(options), options)
    text = about_tables(found, options) if options.sets else ""
    text += about_digits(found, options) if options.mnist else ""
    print(text, end="")
    complete = command(options) == "--data PATH --seeds 5 --mnist"
    if complete and options.digits == [*range(10)]:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
