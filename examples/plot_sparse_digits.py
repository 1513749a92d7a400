"""
============================
Digits made of a few strokes
============================

A sparse autoencoder describes a row by few units out of many. Here there are 100 units
for images of 64 pixels, and five of them fire for an image. Each unit then stands for a
part that many digits share, and a digit is a short sum of such parts. How well such
codes tell the digits of MNIST apart is measured under *k-sparse* in
:ref:`published results <reproduced>`.
"""

# %%
# Data and model
# --------------
# With ``penalty="topk"``, the default, the `k` largest units of an image fire, and all
# others are zero. All pixels have the same unit, and their differences in spread mean
# something: there is no need to standardise them.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from skae import SparseAutoencoder

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, test_size=0.3, stratify=y, random_state=0
)


def autoencoder(k, **settings):
    """Return a sparse autoencoder, of whose 100 units `k` fire for a row."""
    return SparseAutoencoder(
        100,
        k=k,
        standardize=False,
        batch_size=128,
        learning_rate="cosine",
        max_iter=60,
        random_state=0,
        **settings,
    )


model = autoencoder(5).fit(X_train)


def draw(ax, image, limit=None):
    """Draw an image: in grey, or zero as white, red above it and blue below."""
    palette, low, high = "gray_r", 0, 1
    if limit is not None:
        palette, low, high = "RdBu_r", -limit, limit
    image = image.reshape(8, 8)
    ax.imshow(image, cmap=palette, vmin=low, vmax=high, interpolation="bilinear")
    ax.set_axis_off()


# %%
# Components
# ----------
# A row of `components_` is what a unit adds to the image. These are the 50 units that
# fire most often, in that order. Red adds ink, blue takes ink away.

often = np.argsort(-model.density_)

fig, axes = plt.subplots(5, 10, figsize=(7.5, 3.9), layout="constrained")
for ax, unit in zip(axes.flat, often, strict=False):
    component = model.components_[unit]
    draw(ax, component, np.abs(component).max())
plt.show()

# %%
# A digit as a sum
# ----------------
# The reconstruction of an image is what the decoder says of a code of zeros, plus the
# components of the units that fire, each times its activation. Below, each row is one
# image, with its five units in the order of their activations.

codes = model.transform(X_test)
rebuilt = model.inverse_transform(codes)
nothing = model.inverse_transform(np.zeros((1, 100)))[0]

fig, axes = plt.subplots(4, 8, figsize=(8, 4.6), layout="constrained")
for row, i in zip(axes, [2, 7, 10, 19], strict=True):
    units = np.argsort(-codes[i])[:5]
    parts = codes[i, units, None] * model.components_[units]
    assert np.allclose(nothing + parts.sum(axis=0), rebuilt[i])
    for ax, image in zip(row, [X_test[i], rebuilt[i], nothing], strict=False):
        draw(ax, image)
    for ax, unit, part in zip(row[3:], units, parts, strict=True):
        draw(ax, part, limit=0.5)
        ax.set_title(f"+ unit {unit}", fontsize=8)
for ax, title in zip(axes[0], ["image", "rebuilt", "= zero code"], strict=False):
    ax.set_title(title, fontsize=8)
plt.show()

# %%
# How often units fire
# --------------------
# `density_` is the fraction of the training rows in which a unit fires; its mean is
# `k` out of 100. Where units compete, some never win, and what never fires never
# learns. Such dead units get new weights between epochs, which point to images that are
# badly rebuilt. Without that, many would stay dead.

left_alone = autoencoder(5, revival=None).fit(X_train)

fig, ax = plt.subplots(figsize=(5.5, 2.8), layout="constrained")
density = [model.density_, left_alone.density_]
ax.hist(density, bins=np.arange(0, 0.25, 0.0125), label=["resampling", "no revival"])
ax.set(xlabel="Fraction of the rows in which a unit fires", ylabel="Units")
ax.legend(frameon=False)
plt.show()

print(f"dead units with resampling: {model.n_dead_:3d} of 100")
print(f"dead units without revival: {left_alone.n_dead_:3d} of 100")

# %%
# Some of the units that were planted anew stand for a few images only: 100 units are
# more than 1257 images need.

# %%
# How many units should fire?
# ---------------------------
# The more units fire, the closer is the reconstruction. What a linear classifier can do
# with the codes depends less on it: two units say most of what there is to know about
# the class, and from five on the codes are about as good as the pixels.

ks = [2, 5, 10, 20, 50]
models = [model if k == 5 else autoencoder(k).fit(X_train) for k in ks]


def unexplained(codes, model):
    """Return the squared error, as a part of the variance of held-out images."""
    error = np.square(model.inverse_transform(codes) - X_test).sum()
    return error / np.square(X_test - X_train.mean(axis=0)).sum()


def accuracy(encode):
    """Return the accuracy of a linear classifier on held-out images."""
    probe = LogisticRegression(max_iter=2000).fit(encode(X_train), y_train)
    return probe.score(encode(X_test), y_test)


errors = [unexplained(m.transform(X_test), m) for m in models]
accuracies = [accuracy(m.transform) for m in models]

fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
left.plot(ks, errors, "o-C0")
left.set(title="Reconstruction", ylabel="Unexplained variance", ylim=(0, None))
right.plot(ks, accuracies, "o-C0", label="codes")
right.axhline(accuracy(np.asarray), color="C1", ls="--", label="pixels")
right.set(title="Linear classifier", ylabel="Fraction correct")
right.legend(frameon=False)
for ax in (left, right):
    ax.set_xscale("log")
    ax.set_xticks(ks, ks)
    ax.set_xticks([], minor=True)
    ax.set_xlabel("Units that fire, k")
    ax.grid(alpha=0.3)
plt.show()

# %%
# A code that can be cut
# ----------------------
# With `nested_sizes` the first 6, 12, 25 and 50 units alone have to rebuild the image
# as well. The code may then be cut: `inverse_transform` takes the first columns of a
# code, and `transform_n_components` makes `transform` return no more of them. Where the
# code was not trained to be cut, its first units are no better than any others.

nested = autoencoder(10, nested_sizes="auto").fit(X_train)
plain = models[ks.index(10)]

sizes = np.array([1, 3, 6, 9, 12, 18, 25, 37, 50, 75, 100])
fig, ax = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
for m, label in [(nested, "nested"), (plain, "whole code only")]:
    codes = m.transform(X_test)
    ax.plot(sizes, [unexplained(codes[:, :n], m) for n in sizes], ".-", label=label)
for n in (6, 12, 25, 50, 100):
    ax.axvline(n, color="0.85", zorder=0)
ax.set(xlabel="Units that are kept", ylabel="Unexplained variance", ylim=(0, None))
ax.legend(frameon=False)
plt.show()

# %%
# Half of the nested units do nearly as well as all. Below the least size that was
# trained the cut is of no use. The price is paid by the whole code, whose error is a
# little larger than that of the model that was not nested.
