"""A denoising autoencoder in a Pipeline, tuned by GridSearchCV, beside PCA.

Run it on scikit-learn's digits, or on rows of your own::

    python examples/quickstart.py
    python examples/quickstart.py --data mnist.npz

The file holds an array ``X_train`` of shape (n_samples, n_features) and, if there are
labels, ``y_train``. The script prints a table and saves a picture, ``quickstart.png``.
"""

import argparse
import time

import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, ShuffleSplit, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skae import DenoisingAutoencoder, ReconstructionDisplay
from skae.corruptions import Masking

PICTURE = "quickstart.png"
NOISE = 0.3

#: Few rows afford a wide search; many rows, a few epochs for each candidate.
SMALL = {
    "sizes": [2, 4, 8, 16],
    "levels": [0.0, 0.1, 0.3],
    "autoencoder": {"hidden_layer_sizes": (128,), "max_iter": 150},
}
LARGE = {
    "sizes": [8, 32],
    "levels": [0.0, 0.1],
    "autoencoder": {"hidden_layer_sizes": (256,), "max_iter": 10},
}


def load(path):
    """Return rows and labels (or None) of a file, or of the bundled digits."""
    if path is None:
        return load_digits(return_X_y=True)
    with np.load(path) as data:
        X = data["X_train"].astype(np.float32)
        return X, data.get("y_train")


def search(X, settings):
    """Try every code size and corruption level; the score is the log-likelihood."""
    autoencoder = DenoisingAutoencoder(
        distribution="bernoulli",
        activation="relu",
        learning_rate="cosine",
        random_state=0,
        **settings["autoencoder"],
    )
    pipeline = make_pipeline(MinMaxScaler(clip=True), autoencoder)
    grid = {
        "denoisingautoencoder__n_components": settings["sizes"],
        "denoisingautoencoder__corruption_level": settings["levels"],
    }
    split = ShuffleSplit(n_splits=1, test_size=0.25, random_state=0)
    return GridSearchCV(pipeline, grid, cv=split, n_jobs=-1).fit(X)


def best_by_size(results):
    """Return the best parameters for each code size, of a finished search."""
    best = {}
    for params, score in zip(
        results["params"], results["mean_test_score"], strict=True
    ):
        size = params["denoisingautoencoder__n_components"]
        best[size] = max(best.get(size, (-np.inf, {})), (score, params), key=first)
    return {size: params for size, (_, params) in best.items()}


def first(pair):
    return pair[0]


def squared_error(model, X):
    """Return the mean squared distance between rows and reconstructions."""
    back = model.inverse_transform(model.transform(X))
    return np.mean(np.sum(np.square(X - back), axis=1))


def accuracy(model, train, test, labels):
    """Return the accuracy of a linear classifier on the codes; nan without labels."""
    if labels[0] is None:
        return np.nan
    codes, y = model.transform(train)[:10_000], labels[0][:10_000]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return classifier.fit(codes, y).score(model.transform(test), labels[1])


def table(found, train, test, labels):
    """Fit each code size with its best level; print what it is worth beside PCA."""
    scaler = MinMaxScaler(clip=True).fit(train)
    plain = scaler.transform(train), scaler.transform(test)
    print("        corruption  log-likelihood     squared error        accuracy")
    print("code size    level  of held-out rows  skae     PCA       skae     PCA")
    for size, params in best_by_size(found.cv_results_).items():
        pipeline = clone(found.estimator).set_params(**params).fit(train)
        ours, pca = pipeline[-1], PCA(size).fit(plain[0])
        print(
            f"{size:9d} {ours.corruption_level:8.1f} {ours.score(plain[1]):17.2f}"
            f" {squared_error(ours, plain[1]):6.2f} {squared_error(pca, plain[1]):7.2f}"
            f" {accuracy(ours, *plain, labels):10.1%}"
            f" {accuracy(pca, *plain, labels):7.1%}",
            flush=True,
        )


def draw(model, X):
    """Save noisy rows, their reconstructions and the strongest filters."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("No picture: matplotlib is missing (python -m pip install 'skae[plot]').")
        return
    side = round(X.shape[1] ** 0.5)
    shape = (side, side) if side * side == X.shape[1] else (1, X.shape[1])
    noisy = X[:10].copy()
    masking = Masking()
    words = masking.draw(noisy.shape, NOISE, np.random.default_rng(0))
    masking.corrupt(noisy, words, NOISE, (X, X))
    figure = plt.figure(figsize=(9, 5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[3, 2])
    above.get_layout_engine().set(hspace=0, h_pad=0.01)
    ReconstructionDisplay.from_estimator(
        model,
        X[:10],
        X_corrupted=noisy,
        image_shape=shape,
        n_rows=10,
        ax=above.add_subplot(),
    )
    below.suptitle("Strongest filters of the first layer")
    weights = model.coefs_[0].T
    strongest = np.argsort(-np.linalg.norm(weights, axis=1))
    for k, ax in zip(strongest, below.subplots(2, 10).ravel(), strict=False):
        limit = np.abs(weights[k]).max()
        image = weights[k].reshape(shape)
        ax.imshow(image, "RdBu_r", vmin=-limit, vmax=limit, interpolation="bilinear")
        ax.set_axis_off()
    figure.savefig(PICTURE, dpi=120)
    print(f"Saved {PICTURE}: noisy rows, their reconstructions, and learnt filters.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help=".npz file with X_train and perhaps y_train")
    start = time.perf_counter()
    X, y = load(parser.parse_args().data)
    arrays = [X] if y is None else [X, y]
    train, test, *labels = train_test_split(*arrays, test_size=0.25, random_state=0)
    settings = SMALL if len(X) < 10_000 else LARGE
    found = search(train, settings)
    table(found, train, test, labels or [None, None])
    best = found.best_params_["denoisingautoencoder__n_components"]
    print(f"GridSearchCV prefers {best} units: a longer code says more about its row.")
    denoiser = clone(found.best_estimator_)
    denoiser.set_params(denoisingautoencoder__corruption_level=NOISE).fit(train)
    draw(denoiser[-1], denoiser[0].transform(test))
    print(f"Done in {time.perf_counter() - start:.0f} seconds.")


if __name__ == "__main__":
    main()
