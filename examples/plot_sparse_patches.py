"""
==================================
Edges in patches of natural images
==================================

This is the recipe of Andrew Ng's lecture notes on sparse autoencoders: 25 units look at
patches of 8 x 8 pixels, cut from photographs, and each of them may be active in one
patch out of a hundred only. What they come to look for is edges, as cells of the visual
cortex do.
"""

# %%
# Patches
# -------
# 10,000 patches come from the two photographs of scikit-learn, in grey and at half
# size. The notes take photographs that have been whitened before; these are as they
# are. As in the notes, each patch loses its mean, values beyond three standard
# deviations are cut off, and the range is mapped to [0.1, 0.9].

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.image import extract_patches_2d

from skae import SparseAutoencoder


def photographs():
    """Return the images in grey, each pixel the mean of four."""
    for image in load_sample_images().images:
        grey = image.mean(axis=2)[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        yield grey.reshape(grey.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))


rng = np.random.RandomState(0)
patches = np.concatenate(
    [
        extract_patches_2d(image, (8, 8), max_patches=5000, random_state=rng)
        for image in photographs()
    ]
).reshape(-1, 64)
patches -= patches.mean(axis=1, keepdims=True)
limit = 3 * patches.std()
X = 0.5 + 0.4 * np.clip(patches, -limit, limit) / limit

# %%
# Training
# --------
# The notes minimise half the squared error of a decoder with a logistic output, plus
# beta = 3 times the divergences of the mean activations from 0.01, plus lambda / 2 =
# 0.00005 times the squared weights, by 400 iterations of L-BFGS.
#
# Here a logistic output belongs to the Bernoulli distribution, whose loss is the cross
# entropy. Near 0.5, where most values are, that is four times half the squared error.
# The other two terms are therefore multiplied by four as well.

model = SparseAutoencoder(
    25,
    penalty="kl",
    sparsity_target=0.01,
    sparsity_weight=4 * 3,
    alpha=4 * 1e-4,
    distribution="bernoulli",
    solver="lbfgs",
    max_iter=400,
    random_state=0,
)
with warnings.catch_warnings():
    # 400 iterations are the recipe's; it does not ask for a minimum.
    warnings.simplefilter("ignore", ConvergenceWarning)
    model.fit(X)

print(f"mean activations: {model.density_.min():.4f} to {model.density_.max():.4f}")

# %%
# What each unit looks for
# ------------------------
# Of all patches of the same length, the one that activates a unit most is its column of
# the encoder's weights, divided by the length of that.

filters = model.coefs_[0] / np.linalg.norm(model.coefs_[0], axis=0)


def draw(images, n_columns, limits=None):
    """Draw images in rows, each on its own scale unless there are limits."""
    size = 0.75 * n_columns, 0.75 * len(images) / n_columns
    _, axes = plt.subplots(
        len(images) // n_columns, n_columns, figsize=size, layout="constrained"
    )
    for ax, image in zip(axes.flat, images, strict=True):
        low, high = limits or (-np.abs(image).max(), np.abs(image).max())
        ax.imshow(image.reshape(8, 8), cmap="gray", vmin=low, vmax=high)
        ax.set_axis_off()
    plt.show()


draw(filters.T, 5)

# %%
# Edges and bars, at many places and in many directions. Nothing in the recipe mentions
# them: they are what photographs have in common.
#
# The patches themselves
# ----------------------
# For six of the units, these are the patches that activate them most, one row for each
# unit, after the unit's filter.

codes = model.transform(X)
clearest = np.argsort(-codes.std(axis=0))[:6]
rows = []
for unit in clearest:
    strongest = np.argsort(-codes[:, unit])[:80:10]
    rows += [filters[:, unit], *(X[strongest] - 0.5)]

draw(rows, 9)
