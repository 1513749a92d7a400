"""
===================================
A map of digits with two components
===================================

A variational autoencoder with a code of two numbers draws a map: every place of the
plane can be decoded to an image, and every image has a place, with an uncertainty. This
is the tutorial of DIANNE, a framework for distributed neural networks: an encoder and a
decoder of three layers, two components, and the binary cross-entropy.

It runs on scikit-learn's digits, or with the tutorial's own settings on MNIST::

    python examples/plot_latent_manifold.py
    python examples/plot_latent_manifold.py --data mnist.npz

The file holds the arrays ``X_train``, ``y_train``, ``X_test`` and ``y_test``, with grey
levels from 0 to 255.
"""

# %%
# Data and settings
# -----------------
# Grey levels in [0, 1] suit the Bernoulli distribution, whose loss is the binary
# cross-entropy. For MNIST the settings are those of the tutorial: three layers of 512
# units, Adam, and 5000 steps of 128 rows, here 11 epochs. The bundled digits are
# smaller and fewer: narrower layers and more epochs suit them, and a learning rate that
# falls to zero.

import argparse

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skae import LatentManifoldDisplay, LatentSpaceDisplay, VariationalAutoencoder

parser = argparse.ArgumentParser(description="A map of digits with two components.")
parser.add_argument("--data", help=".npz file with the arrays of MNIST")
path = parser.parse_args().data

if path is None:
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X / 16, y, test_size=0.3, stratify=y, random_state=0
    )
    settings = {
        "hidden_layer_sizes": (128, 64, 32),
        "learning_rate": "cosine",
        "learning_rate_init": 0.003,
        "max_iter": 150,
    }
else:
    with np.load(path) as data:
        X_train, X_test = (
            data[name].astype(np.float32) / 255 for name in ("X_train", "X_test")
        )
        y_train, y_test = data["y_train"], data["y_test"]
    settings = {
        "hidden_layer_sizes": (512, 512, 512),
        "batch_size": 128,
        "learning_rate": "constant",
        "learning_rate_init": 0.001,
        "max_iter": 11,
        "n_iter_no_change": np.inf,
    }

side = round(X_train.shape[1] ** 0.5)
shape = (side, side)

# %%
# Training
# --------
# The loss is an estimate of minus the evidence lower bound (ELBO), in nats per row. On
# rows that the model has not seen, `elbo` gives the bound and `score_samples` an
# estimate of what it bounds, log p(x). The higher, the better.

model = VariationalAutoencoder(
    2, activation="relu", distribution="bernoulli", random_state=0, **settings
).fit(X_train)

elbo, log_likelihood = model.elbo(X_test), model.score_samples(X_test)

print(f"loss of the last epoch: {model.loss_:8.2f}")
print(f"ELBO, held out:         {elbo.mean():8.2f}")
print(f"log p(x), held out:     {log_likelihood.mean():8.2f}")

# %%
# With the tutorial's settings on MNIST, training takes about two minutes. The loss of
# the last epoch is 140.1; for the 10,000 test images the mean ELBO is -140.0 and the
# mean of log p(x) -134.3 nats.
#
# The manifold
# ------------
# The prior of the code is standard normal. A grid of its quantiles therefore shows
# equally probable parts of the plane, each decoded to the mean of its images.

LatentManifoldDisplay.from_estimator(
    model, n_steps=20, quantiles=(0.02, 0.98), image_shape=shape
)
plt.show()

# %%
# Neighbours look alike, and one digit turns into another without a gap. Where two
# digits meet, the image is a blend of both.

# %%
# The latent space
# ----------------
# The model never saw a label. Its map of the held-out images keeps most digits apart
# all the same; those that look alike are neighbours.

display = LatentSpaceDisplay.from_estimator(model, X_test, y_test, y_name="digit")
display.ax_.set_aspect("equal")
plt.show()

# %%
# Where the model is not sure
# ---------------------------
# A code is a distribution, not a point. `posterior` returns its mean and its standard
# deviation: on the left, ellipses of one standard deviation around the means of some
# images. On the right, codes are coloured by log p(x): low values mark images that the
# model finds improbable wherever they lie.

fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")

mean, std = model.posterior(X_test)
for k in range(200):
    ellipse = Ellipse(
        mean[k], *2 * std[k], color=plt.colormaps["tab10"](int(y_test[k])), alpha=0.5
    )
    left.add_patch(ellipse)
left.set_title("Posteriors of 200 images")

LatentSpaceDisplay.from_estimator(
    model, X_test, log_likelihood, y_name="log p(x), nats", ax=right
)
right.set_title("Log-likelihood of all images")
left.set(xlabel=right.get_xlabel(), ylabel=right.get_ylabel())
for ax in (left, right):
    ax.set(xlim=right.get_xlim(), ylim=right.get_ylim(), aspect="equal")
plt.show()

# %%
# New digits
# ----------
# `sample` draws a code from the prior, and then an image from p(x|z). The pixels of a
# Bernoulli distribution are black or white; the mean image of the same code, in grey,
# is what `inverse_transform` returns.

Z = np.random.default_rng(0).standard_normal((12, 2))
images = [model.inverse_transform(Z), model.sample(Z=Z, random_state=0)]

fig, axes = plt.subplots(2, 12, figsize=(9.5, 1.8), layout="constrained")
for row, title, rows in zip(axes, ["mean", "sample"], images, strict=True):
    row[0].set_ylabel(title)
    for ax, image in zip(row, rows, strict=True):
        ax.imshow(image.reshape(shape), cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
plt.show()
