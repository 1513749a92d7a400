"""The data and the models of recipes.py: what each part trains, and how it is judged.

The functions ``train_...`` take a `Run` of reproduce.py and the data, and return what
was measured and the number of epochs, as text.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import k_sparse
import likelihood
import numpy as np
import pandas as pd
import stacked_mnist
from choices import squared_error
from scipy import sparse
from scipy.special import log_ndtr, logsumexp
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold, train_test_split

from skae import (
    DenoisingAutoencoder,
    StackedAutoencoderClassifier,
    VariationalAutoencoder,
)

#: Draws of the code for each held-out row: in skae's estimate of log p(x), and in that
#: of the literature, which draws from the encoder's posterior; there, few rows can have
#: as many as in the publication.
DRAWS, PLAIN_DRAWS, MANY_PLAIN_DRAWS = 256, 512, 5000
MNIST = Path("mnist", "mnist.npz")
BINARIZED = Path("binarized_mnist", "binarized_mnist_packbits.npz")
OMNIGLOT = Path("omniglot", "omniglot28.npz")
SILHOUETTES = Path("caltech_silhouettes", "caltech101_silhouettes_28_split1.npz")
FREY = Path("frey", "frey.npz")
TABLES = {
    name: Path("hivae_mixed", f"{file}.npz")
    for name, file in [
        ("Adult", "Adult"),
        ("Credit", "defaultCredit"),
        ("Wine", "Wine"),
    ]
}
CELLS = Path("pbmc68k_reduced", "pbmc68k_reduced_counts.npz")
NEWS = Path("news20_w1000", "news20_w1000.npz")


def arrays(file, *names):
    """Return arrays of a file."""
    with np.load(file) as content:
        return [content[name] for name in names]


def grey(images):
    """Return bytes as numbers from zero to one."""
    return (images / 255.0).astype(np.float32)


def bits(packed):
    """Return rows of 784 zeros and ones."""
    unpacked = np.unpackbits(packed, axis=1)[:, :784]
    return np.ascontiguousarray(unpacked, dtype=np.float32)


def binarized(images, rng):
    """Return zeros and ones, drawn with the grey levels as probabilities."""
    return (rng.random(images.shape, dtype=np.float32) < images).astype(np.float32)


def log_likelihood(run, model, X):
    """Return the estimate of log p(x) of each row."""
    draws = 64 if run.quick else DRAWS
    return model.log_likelihood(X[:100] if run.quick else X, draws)


def mean_and_error(scores):
    """Return the mean over rows and its standard error."""
    return scores.mean(dtype=float), scores.std(dtype=float) / np.sqrt(len(scores))


def plain_log_likelihood(run, model, X, n_draws=PLAIN_DRAWS):
    """Return the literature's estimate of log p(x) of each row."""
    rows, n = (X[:100], 64) if run.quick else (X, n_draws)
    return likelihood.estimate(model, rows, "posterior", "pseudo-random", n, 0)[0]


def both_estimates(run, model, X):
    """Return -log p(x) by skae's estimate, with its error, and by the literature's."""
    scores = log_likelihood(run, model, X)
    run.keep_scores(scores)
    mean, error = mean_and_error(scores)
    plain = plain_log_likelihood(run, model, X).mean()
    return f"{-mean:.2f} ({error:.2f}), plain {-plain:.2f}"


def fewer(run, n_epochs):
    """Return the number of epochs, or two in a hurry."""
    return min(n_epochs, 2) if run.quick else n_epochs


# --- digits, their classes and their reconstructions --------------------------------


def load_mnist(folder):
    """Return the digits and their classes, for training and for testing."""
    return k_sparse.load(folder)


def hurried(run, data):
    """Return the data, or the first rows of each array in a hurry."""
    return [a[:2000] for a in data] if run.quick else data


def train_sda(level, run, data):
    """Train the stack; `level` is masked in fine-tuning."""
    X, y, X_test, y_test = hurried(run, data)
    kind = "masked" if level else "clean"
    n = fewer(run, stacked_mnist.FINE_TUNING[kind][1])
    begun = StackedAutoencoderClassifier(
        1000,
        **stacked_mnist.SETTINGS,
        pretraining_max_iter=fewer(run, stacked_mnist.PRETRAINING),
        freeze_encoder=True,
        learning_rate_init=0.02,
        max_iter=1,
        random_state=run.seed,
    )
    run.fit(begun, X, y, "pretraining")
    model = deepcopy(begun).set_params(
        freeze_encoder=False,
        warm_start=True,
        fine_tuning_corruption_level=level,
        learning_rate_init=stacked_mnist.RATE,
        max_iter=n,
    )
    run.fit(model, X, y, "fine-tuning")
    wrong, held_out = 1 - model.score(X_test, y_test), 1 - model.best_validation_score_
    text = f"{wrong:.2%} wrong ({held_out:.2%} in validation)".replace("%", " %")
    return text, f"3 x {begun.pretraining_max_iter} + 1 + {n}"


def train_deep(run, data):
    """Train the deep autoencoder of 30 numbers."""
    X, _, X_test, _ = hurried(run, data)
    model = DenoisingAutoencoder(
        30,
        hidden_layer_sizes=(1000, 500, 250),
        activation="elu",
        distribution="bernoulli",
        corruption_level=0.0,
        alpha=1e-2,
        batch_size=128,
        learning_rate="cosine",
        learning_rate_init=1e-3,
        max_iter=fewer(run, 200),
        random_state=run.seed,
    )
    run.fit(model, X)
    errors = squared_error(model, X_test), squared_error(model, X)
    return "{:.2f} an image ({:.2f} in training)".format(*errors), f"{model.n_iter_}"


def train_pca(run, data):
    """Project to as many numbers."""
    X, _, X_test, _ = hurried(run, data)
    return f"{squared_error(PCA(30, random_state=run.seed).fit(X), X_test):.2f}", ""


def train_k_sparse(n_epochs, rate, run, data):
    """Tell the digits apart by codes of which few are not zero."""
    X, y, X_test, y_test = hurried(run, data)
    n = fewer(run, n_epochs)
    model = k_sparse.autoencoder(25, n, run.seed).set_params(learning_rate_init=rate)
    run.fit(model, X)
    model.set_params(k=k_sparse.MORE * 25)
    codes, codes_test = model.transform(X), model.transform(X_test)
    return f"{k_sparse.error(codes, y, codes_test, y_test):.2f} % wrong", f"{n}"


# --- likelihoods of binary images ---------------------------------------------------


def load_binarized(folder):
    """Return the digits as they were binarised once and for all.

    The validation digits are added to those for training.
    """
    names = "packed_train", "packed_valid", "packed_test"
    X, X_valid, X_test = (bits(a) for a in arrays(folder / BINARIZED, *names))
    return [np.concatenate([X, X_valid]), X_test]


def train_fixed(run, data):
    """Train the variational autoencoder of 784, 400 and 40 units."""
    X, X_test = hurried(run, data)
    model = VariationalAutoencoder(
        40,
        hidden_layer_sizes=(400,),
        activation="relu",
        distribution="bernoulli",
        alpha=1e-3,
        batch_size=100,
        learning_rate="cosine",
        learning_rate_init=1e-3,
        max_iter=fewer(run, 500),
        random_state=run.seed,
    )
    run.fit(model, X)
    bound = -model.elbo(X_test, 16).mean()
    return (
        f"{both_estimates(run, model, X_test)}, bound {bound:.2f}",
        f"{model.n_iter_}",
    )


def one_layer(objective, n_samples, seed):
    """Return the network of Burda et al. with one layer of random codes."""
    return VariationalAutoencoder(
        50,
        hidden_layer_sizes=(200, 200),
        activation="tanh",
        distribution="bernoulli",
        objective=objective,
        n_samples=n_samples,
        alpha=0.0,
        batch_size=20,
        epsilon=1e-4,
        learning_rate="constant",
        random_state=seed,
    )


def half_cosine(n_epochs, first=1e-3):
    """Return a learning rate for each epoch."""
    return first * 0.5 * (1 + np.cos(np.pi * np.arange(n_epochs) / n_epochs))


def train_stochastic(objective, n_samples, n_epochs, run, data):
    """Train on digits that are binarised anew in each epoch."""
    X, X_test = hurried(run, data)
    n, test = fewer(run, n_epochs), binarized(X_test, np.random.default_rng(0))

    def rows(epoch):
        return binarized(X, np.random.default_rng([run.seed, epoch]))

    model = one_layer(objective, n_samples, run.seed)
    model = run.train(model, rows, half_cosine(n))
    text = both_estimates(run, model, test)
    text += f", {model.n_active_components_} active, {losses_on_the_way(model)}"
    return text, f"{len(model.loss_curve_)}"


def losses_on_the_way(model):
    """Return the training loss, of rows that are new each time, in some epochs."""
    curve = model.loss_curve_
    shown = sorted({n for n in (1, 3, 10, 30, 100) if n < len(curve)} | {len(curve)})
    losses = ", ".join(f"{curve[n - 1]:.1f}" for n in shown)
    return f"training loss {losses} in epochs {', '.join(map(str, shown))}"


def load_grey_mnist(folder):
    """Return the digits without their classes."""
    X, _, X_test, _ = k_sparse.load(folder)
    return [X, X_test]


def load_omniglot(folder):
    """Return the letters."""
    return [grey(a) for a in arrays(folder / OMNIGLOT, "X_train", "X_test")]


def load_silhouettes(folder):
    """Return the silhouettes, for training and for testing."""
    packed = arrays(folder / SILHOUETTES, "packed_train", "packed_test")
    return [bits(a) for a in packed]


def train_silhouettes(objective, n_samples, run, data):
    """Train on silhouettes."""
    X, X_test = hurried(run, data)
    model = VariationalAutoencoder(
        200,
        hidden_layer_sizes=(500,),
        activation="tanh",
        distribution="bernoulli",
        objective=objective,
        n_samples=n_samples,
        alpha=0.0,
        batch_size=20,
        epsilon=1e-4,
        learning_rate="cosine",
        learning_rate_init=1e-3,
        max_iter=fewer(run, 100),
        random_state=run.seed,
    )
    run.fit(model, X)
    text = both_estimates(run, model, X_test)
    return f"{text}, {model.n_active_components_} active", f"{model.n_iter_}"


# --- faces --------------------------------------------------------------------------


def load_frey(folder):
    """Return the faces."""
    return grey(*arrays(folder / FREY, "X"))


def frey_folds(run, X):
    """Return rows for training and for testing, ten times."""
    folds = KFold(10, shuffle=True, random_state=run.seed).split(X)
    return [(X[train], X[test]) for train, test in folds]


def frey_model(objective, run):
    """Return the model of faces."""
    return VariationalAutoencoder(
        20,
        hidden_layer_sizes=(200, 200),
        activation="softplus",
        distribution="heteroscedastic_gaussian",
        objective=objective,
        n_samples=5,
        alpha=0.0,
        batch_size=100,
        learning_rate="cosine",
        learning_rate_init=2e-3,
        max_iter=fewer(run, 100),
        random_state=run.seed,
    )


def train_frey(objective, run, X):
    """Train in ten folds."""
    scores, plain = [], []
    for i, (X_train, X_test) in enumerate(frey_folds(run, X)):
        model = frey_model(objective, run)
        run.fit(model, X_train, name=f"fold-{i}")
        scores.append(log_likelihood(run, model, X_test))
        plain.append(plain_log_likelihood(run, model, X_test, MANY_PLAIN_DRAWS))
        run.note(f"fold {i}: {scores[-1].mean():.1f}, plain {plain[-1].mean():.1f}")
    run.keep_scores(np.concatenate(scores))
    return f"{over_folds(scores)}, plain {over_folds(plain)}", f"{model.n_iter_}"


def judge_frey(run, X):
    """Compare the estimates of log p(x) for a few rows of the first fold."""
    X_train, X_test = frey_folds(run, X)[0]
    model, rows = frey_model("elbo", run), X_test[: 2 if run.quick else 24]
    run.fit(model, X_train)
    temperatures, chains = 30 if run.quick else 1000, 16
    truth, error, _ = likelihood.referee(
        model, rows.astype(float), temperatures, chains
    )
    error = np.sqrt(np.square(error).sum()) / len(rows)
    text = f"{log_likelihood(run, model, rows).mean():.1f}"
    for n in (MANY_PLAIN_DRAWS, 10 * MANY_PLAIN_DRAWS):
        plain = plain_log_likelihood(run, model, rows, n).mean()
        text += f", plain with {n} draws {plain:.1f}"
    return f"{text}, annealed {truth.mean():.1f} ({error:.1f})", f"{model.n_iter_}"


def over_folds(scores):
    """Return the mean of the folds' means, and its standard error."""
    means = [each.mean(dtype=float) for each in scores]
    error = np.std(means, ddof=1) / np.sqrt(len(means))
    return f"{np.mean(means):.1f} ({error:.1f})"


# --- tables of mixed columns --------------------------------------------------------


def load_tables(folder):
    """Return each table, and which of its columns are discrete."""
    return {name: load_table(folder / file) for name, file in TABLES.items()}


def load_table(file):
    """Return complete rows, each class as a column of its own, and discrete columns."""
    X, types = arrays(file, "X", "types")
    X = X[~np.isnan(X).any(axis=1)]
    kinds = [line.split(",")[0] for line in str(types).split()][1:]
    columns = {}
    for j, kind in enumerate(kinds):
        if kind in ("cat", "ordinal"):
            for value in np.unique(X[:, j]):
                columns[f"x{j}_{value:g}"] = (X[:, j] == value).astype(float)
        else:
            columns[f"x{j}"] = X[:, j]
    frame = pd.DataFrame(columns)
    return frame, (frame % 1 == 0).all().to_numpy()


def cell_likelihood(model, X, is_discrete, n_draws=256, seed=0):
    """Return the log-probability of each row under a model with normal columns.

    A discrete value has the probability of the cell of width one around it. Codes are
    drawn from the encoder's posterior, made a little wider.
    """
    rng, out = np.random.default_rng(seed), np.empty(len(X))
    scale = np.sqrt(model.noise_variance_)
    for start in range(0, len(X), 200):
        x = X[start : start + 200]
        mean, std = model.posterior(x)
        std = 1.1 * std[:, None]
        e = rng.standard_normal((len(x), n_draws, mean.shape[1]))
        z = mean[:, None] + std * e
        fitted = model.inverse_transform(z.reshape(-1, z.shape[2]))
        distance = (x[:, None] - fitted.reshape(*z.shape[:2], -1)) / scale
        log_weight = log_cells(distance, 0.5 / scale, is_discrete).sum(axis=2)
        log_weight -= np.log(scale[~is_discrete]).sum()
        log_weight += (0.5 * (e**2 - z**2) + np.log(std)).sum(axis=2)
        out[start : start + 200] = logsumexp(log_weight, axis=1) - np.log(n_draws)
    return out


def log_cells(distance, half, is_discrete):
    """Return log-densities at standardized distances, or log-probabilities of cells."""
    log_density = -0.5 * (distance**2 + np.log(2 * np.pi))
    # Both ends are mirrored to the left, where the logarithm of the area is exact.
    far, near = -np.abs(distance) - half, -np.abs(distance) + half
    upper, lower = log_ndtr(near), log_ndtr(far)
    log_area = upper + np.log(-np.expm1(np.minimum(lower - upper, -1e-300)))
    return np.where(is_discrete, log_area, log_density)


def train_table(name, distribution, run, data):
    """Train on two thirds of the rows."""
    X, is_discrete = data[name]
    X, X_test = train_test_split(
        X[:2000] if run.quick else X, test_size=1 / 3, random_state=run.seed
    )
    model = VariationalAutoencoder(
        10,
        hidden_layer_sizes=(100,),
        distribution=distribution,
        learning_rate="cosine",
        learning_rate_init=0.005,
        batch_size=100,
        max_iter=fewer(run, 100),
        random_state=run.seed,
    )
    if distribution == "auto":
        run.fit(model, X)
        scores = log_likelihood(run, model, X_test)
    else:
        run.fit(model, spread_out(X.to_numpy(), is_discrete, run.seed))
        rows = X_test[:100] if run.quick else X_test
        scores = cell_likelihood(model, rows.to_numpy(), is_discrete)
    run.keep_scores(scores)
    text = "{:.2f} ({:.2f})".format(*mean_and_error(scores))
    return f"{text}, median {np.median(scores):.2f}", f"{model.n_iter_}"


def spread_out(X, is_discrete, seed):
    """Return rows whose whole numbers are somewhere in the cells around them.

    A density of whole numbers themselves has no bound: its noise shrinks to nothing.
    """
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, X.shape)
    return X + np.where(is_discrete, noise, 0.0)


# --- counts -------------------------------------------------------------------------


def load_counts(folder):
    """Return counts of molecules in cells and of words in documents, two parts each."""

    def documents(which):
        keys = [f"{which}_{key}" for key in ("data", "indices", "indptr", "shape")]
        *parts, shape = arrays(folder / NEWS, *keys)
        return sparse.csr_matrix(tuple(parts), shape=tuple(shape)).astype(np.float32)

    cells = arrays(folder / CELLS, "counts")[0].astype(np.float32)
    return {
        "cells": train_test_split(cells, test_size=0.2, random_state=0),
        "documents": [documents("train"), documents("test")],
    }


def train_counts(name, distribution, run, data):
    """Train on counts."""
    X, X_test = (a[:500] for a in data[name]) if run.quick else data[name]
    model = VariationalAutoencoder(
        10,
        hidden_layer_sizes=(128,),
        distribution=distribution,
        learning_rate_init=0.002,
        early_stopping=True,
        max_iter=fewer(run, 300),
        random_state=run.seed,
    )
    run.fit(model, X)
    scores = log_likelihood(run, model, X_test)
    run.keep_scores(scores)
    text = "{:.2f} ({:.2f})".format(*mean_and_error(scores))
    return text, f"{model.n_iter_}"
