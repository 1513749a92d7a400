"""
=======================
How sure is each pixel?
=======================

A normal distribution has a mean and a standard deviation. With
`distribution="gaussian"`, a column has one standard deviation for all rows; with
`"heteroscedastic_gaussian"`, the decoder says for each entry how far it may be wrong.
In photographs that makes a large difference: sky is smooth, leaves are not. The faces
under *frey* in :ref:`published results <reproduced>` have such a model.
"""

# %%
# Patches of a photograph
# -----------------------
# Patches of 8 x 8 grey pixels come from the left of the picture for training, and from
# its right for the test.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image
from sklearn.feature_extraction.image import extract_patches_2d

from skae import VariationalAutoencoder

image = load_sample_image("china.jpg").mean(axis=2) / 255


def patches(image, n, seed):
    """Return as many patches as rows."""
    found = extract_patches_2d(image, (8, 8), max_patches=n, random_state=seed)
    return found.reshape(n, -1).astype(np.float32)


X, X_test = patches(image[:, :420], 4000, 0), patches(image[:, 428:], 1000, 1)

# %%
# Three models
# ------------
# They differ in their noise, and the third in the bound that it maximises.


def train(distribution, objective):
    """Return a model of the patches."""
    model = VariationalAutoencoder(
        12,
        hidden_layer_sizes=(64,),
        distribution=distribution,
        objective=objective,
        n_samples=5,
        batch_size=100,
        learning_rate="cosine",
        learning_rate_init=0.004,
        max_iter=40,
        random_state=0,
    )
    return model.fit(X)


models = {
    "noise of a column": train("gaussian", "elbo"),
    "noise of an entry": train("heteroscedastic_gaussian", "elbo"),
    "and an IWAE": train("heteroscedastic_gaussian", "iwae"),
}
scores = {name: model.score_samples(X_test) for name, model in models.items()}
for name, model in models.items():
    print(
        f"{name:18s} log p(x) {scores[name].mean():6.1f} nats   "
        f"{model.n_active_components_} active components"
    )

# %%
# Where the decoder expects to be wrong
# -------------------------------------
# `sample` draws rows for given codes; their standard deviation is the noise that the
# model assumes. Below are test patches, from smooth to rough, the mean of what the
# second model draws for each, and that noise.

roughness = X_test.std(axis=1)
order = np.argsort(roughness)
shown = X_test[order[np.searchsorted(roughness[order], np.geomspace(0.004, 0.25, 9))]]
model = models["noise of an entry"]
draws = model.sample(500, model.transform(shown), random_state=0)
draws = draws.reshape(len(shown), 500, 8, 8)
noise = draws.std(axis=1)

fig, axes = plt.subplots(3, len(shown), figsize=(7, 2.6), layout="constrained")
for row, images, top in (
    (axes[0], shown.reshape(-1, 8, 8), 1),
    (axes[1], draws.mean(axis=1), 1),
    (axes[2], noise, noise.max()),
):
    for ax, each in zip(row, images, strict=True):
        drawn = ax.imshow(each, cmap="gray", vmin=0, vmax=top)
        ax.set(xticks=[], yticks=[])
for ax, text in zip(axes[:, 0], ("patch", "mean", "noise"), strict=True):
    ax.set_ylabel(text)
fig.colorbar(drawn, ax=axes[2], label="std")
plt.show()

# %%
# What that is worth
# ------------------
# One noise for all patches is too much for smooth ones and too little for rough ones:
# the second model is ahead at both ends. Its points are level on the left, since there
# is a least noise that the decoder may claim, `min_scale` of
# :class:`~skae.distributions.HeteroscedasticGaussian`. The importance-weighted bound
# adds a few nats more.

fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name in ("noise of a column", "noise of an entry"):
    ax.plot(roughness, scores[name], ".", ms=3, label=name)
ax.set(
    xscale="log",
    xlabel="Standard deviation of a patch's pixels",
    ylabel="log p(x) [nats]",
)
ax.legend(frameon=False)
plt.show()
