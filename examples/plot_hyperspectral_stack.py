"""
================================
A stack for hyperspectral images
================================

A hyperspectral camera measures a whole spectrum in each pixel. Neighbouring bands say
nearly the same, so that spectra of 204 bands fit into codes of 20 numbers. A stack of
autoencoders gets there in steps, here with layers of 204, 130, 70, 40 and 20 units.

The scene is Salinas-A, seen by the sensor AVIRIS over fields in Salinas Valley,
California: 83 x 86 pixels with 204 bands, of which most have one of six crops as their
class. It is on the web as `salinasA_corrected.mat` with `salinasA_gt.mat`, and does not
come with skae. Put `X` (83, 86, 204) and `gt` (83, 86; 0 where there is no class) into
``hsi/salinasA.npz``, and let the environment variable ``SKAE_DATA`` name the folder
around it. Where there is no such file, scikit-learn's digits take the place of the
spectra. All that follows then runs in the same way, with narrower layers.
"""

# %%
# Data
# ----
# The place of a row is wanted later, to keep labelled rows away from those they are
# tested on: for a pixel it is its column in the scene, for a digit its place in the
# file, since digits from one hand stand close together. Bands differ in scale and are
# standardised; the pixels of a digit have one unit and are not.

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import (
    LatentSpaceDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
    StackedAutoencoder,
)

path = Path(os.environ.get("SKAE_DATA", "")) / "hsi" / "salinasA.npz"
is_scene = path.is_file()

if is_scene:
    with np.load(path) as file:
        scene, truth = file["X"].astype(float), file["gt"]
    X, y = scene.reshape(-1, scene.shape[2]), truth.ravel()
    place = np.tile(np.arange(scene.shape[1]), scene.shape[0])
    widths, epochs = (130, 70, 40), (10, 60)
    print("Data: the scene Salinas-A.")
else:
    X, y = load_digits(return_X_y=True)
    X, y = X / 16, y + 1
    place = np.arange(len(X))
    widths, epochs = (50, 40, 30), (30, 120)
    print("Data: digits, since there is no file hsi/salinasA.npz in SKAE_DATA.")

n_features = X.shape[1]
print(f"{len(X)} rows, {np.sum(y > 0)} of them with one of {len(set(y) - {0})} classes")
print("Layers:", "-".join(map(str, (n_features, *widths, 20))))

# %%
# Training
# --------
# Each level learns to rebuild the codes of the level below, then all levels are trained
# together. No labels are needed for that: all rows serve, with a class and without. The
# bottleneck is narrow enough to do without noise.

stack = StackedAutoencoder(
    20,
    hidden_layer_sizes=widths,
    activation="elu",
    corruption_level=0,
    pretraining_max_iter=epochs[0],
    pretraining_learning_rate_init=0.002,
    learning_rate="cosine",
    learning_rate_init=0.001,
    batch_size=100,
    max_iter=epochs[1],
    standardize=is_scene,
    random_state=0,
).fit(X)

# %%
# The losses of level 1 and of fine-tuning are those of rows; in between there are
# losses of codes, which are much smaller. The display draws all stages along one axis.
# Drawn twice, with two ranges of losses, it shows both kinds. The dotted line is the
# loss of a perfect reconstruction.

perfect = n_features / 2 * np.log(2 * np.pi)
of_rows = stack.loss_curve_["level 1"] + stack.loss_curve_["fine-tuning"]
of_codes = [stack.loss_curve_[f"level {k}"] for k in (2, 3, 4)]

fig, (top, bottom) = plt.subplots(
    2, 1, figsize=(7.5, 5), sharex=True, layout="constrained"
)
for ax in (top, bottom):
    LossCurveDisplay.from_estimator(stack, ax=ax, name="stack")
    ax.grid(alpha=0.3)
margin = 0.05 * (max(of_rows) - perfect)
top.axhline(perfect, color="0.5", linestyle=":", zorder=0)
top.set(title="Losses of rows", xlabel="", ylim=(perfect - margin, max(of_rows)))
bottom.set(title="Losses of codes", ylim=(0, 1.05 * np.max(of_codes)))
bottom.get_legend().remove()
plt.show()

# %%
# Codes
# -----
# Twenty numbers in each pixel are more than colours can show. The ranks of their first
# three principal components, as red, green and blue, make an image in false colours.
# The fields stand out, although the stack knows no classes and sees each pixel on its
# own.
# Digits are no scene: for them there are points, with the first two components as
# coordinates.

codes = stack.transform(X)

if is_scene:
    ranks = PCA(3).fit_transform(codes).argsort(axis=0).argsort(axis=0)
    colours = ranks / len(ranks)

    fig, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
    axes[0].imshow(scene.mean(axis=2), cmap="gray")
    axes[1].imshow(colours.reshape(*truth.shape, 3))
    number = np.unique(truth, return_inverse=True)[1].reshape(truth.shape)
    palette = plt.get_cmap("tab10", 10)
    axes[2].imshow(np.ma.masked_equal(number, 0), cmap=palette, vmin=0, vmax=9)
    for ax, title in zip(axes, ["mean of all bands", "codes", "classes"], strict=True):
        ax.set_title(title)
        ax.set_axis_off()
else:
    points = PCA(2).fit_transform(codes)
    _, ax = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
    LatentSpaceDisplay(points, y=y - 1).plot(ax=ax)
plt.show()

# %%
# Reconstruction
# --------------
# What is lost is best told in parts of the variance, for bands after standardising.
# Four layers of a network are no guarantee to lose less than a projection does: PCA
# finds the best linear code exactly, and spectra of a few materials are close to
# mixtures, that is to linear. The levels alone, before they are trained together, do
# worst: each adds its error to those below.

scaler = StandardScaler(with_std=is_scene).fit(X)
scaled = scaler.transform(X)
pca = make_pipeline(StandardScaler(with_std=is_scene), PCA(20)).fit(X)


def unexplained(model):
    """Return the squared error as a part of the variance."""
    rebuilt = model.inverse_transform(model.transform(X))
    return np.square(scaler.transform(rebuilt) - scaled).sum() / np.square(scaled).sum()


levels_only = StackedAutoencoder(**stack.get_params()).set_params(fine_tune=False)
models = {"levels alone": levels_only.fit(X), "fine-tuned": stack, "PCA": pca}
for name, model in models.items():
    print(f"{name:13s} {unexplained(model):7.2%} of the variance are lost")

# %%
# One row of each of the first classes, and its reconstruction by the stack:

classes = np.unique(y[y > 0])
first = np.array([np.flatnonzero(y == c)[20] for c in classes[:6]])
shape = {"kind": "line"} if is_scene else {"image_shape": (8, 8)}
ReconstructionDisplay.from_estimator(stack, X[first], **shape)
plt.show()

# %%
# A classifier of codes
# ---------------------
# Five rows of each class have a label, and a linear classifier learns from their codes,
# from 20 principal components, or from all columns. Where the labels lie makes a
# difference. Neighbouring pixels are nearly copies of each other, as are digits from
# one hand. If labelled rows and test rows are drawn at random, each test row has such a
# neighbour among the labels, and the accuracy is optimistic. It is honest to keep them
# apart: labels come from the first third of each class's rows, in order of their place,
# and the last half is for the test.

inputs = {"codes": codes, "PCA": pca.transform(X), "all columns": scaled}


def draw_labels(apart, rng):
    """Return five labelled rows of each class, and the rows of the test."""
    labelled, tested = [], []
    for c in classes:
        rows = rng.permutation(np.flatnonzero(y == c))
        if apart:
            rows = rows[np.argsort(place[rows])]
        labelled.append(rng.choice(rows[: len(rows) // 3], 5, replace=False))
        tested.append(rows[len(rows) // 2 :])
    return np.concatenate(labelled), np.concatenate(tested)


def accuracies(apart, n_draws=10):
    """Return the accuracies of the three classifiers for each draw of labels."""
    rng = np.random.default_rng(0)
    table = np.empty((n_draws, len(inputs)))
    for row in table:
        labelled, tested = draw_labels(apart, rng)
        for k, Z in enumerate(inputs.values()):
            model = LogisticRegression(max_iter=5000).fit(Z[labelled], y[labelled])
            row[k] = model.score(Z[tested], y[tested])
    return 100 * table


tables = {"kept apart": accuracies(True), "drawn at random": accuracies(False)}
for split, table in tables.items():
    print(f"Labels and tests {split}:")
    for name, values in zip(inputs, table.T, strict=True):
        error = values.std(ddof=1) / np.sqrt(len(values))
        print(f"  {name:12s} {values.mean():5.1f} +- {error:.1f} %")
    gain = table[:, 0] - table[:, 1]
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    print(f"  codes - PCA  {gain.mean():+5.1f} +- {error:.1f} points")

# %%
# Each grey line is one draw of labels; the dots are means. All inputs are taken as they
# are, with the default penalty of `LogisticRegression`.

fig, axes = plt.subplots(1, 2, figsize=(7.5, 3.2), sharey=True, layout="constrained")
for ax, (split, table) in zip(axes, tables.items(), strict=True):
    ax.plot(table.T, ".-", color="0.8", zorder=0)
    ax.plot(table.mean(axis=0), "oC0")
    ax.set_xticks(range(len(inputs)), inputs)
    ax.set(title=f"Labels and tests {split}", xlim=(-0.4, len(inputs) - 0.6))
    ax.grid(axis="y", alpha=0.3)
axes[0].set_ylabel("Accuracy, %")
plt.show()

# %%
# With 20 principal components the classifier does what it does with all columns: they
# keep what a linear classifier needs. The codes are no better than that. On digits they
# are worse with either split. On the scene they look better with a split at random, and
# it is that split which deceives: with labels kept apart there is no gain over PCA. To
# compress such spectra PCA is hard to beat, and it should be tried first.
