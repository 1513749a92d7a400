"""
================
Denoising digits
================

A denoising autoencoder is trained to repair rows that were damaged on purpose. Here the
rows are images of handwritten digits, and the damage is salt and pepper: some pixels
become black, others white.

The network has one hidden layer, the code, and the decoder uses the encoder's weights.
Each unit of the code then has one filter, an image that it looks for in its input and
paints into its output.
"""

# %%
# Data
# ----
# The digits have 8 x 8 pixels with values from 0 to 16. Divided by 16 they lie in
# [0, 1], the support of the Bernoulli distribution, which suits grey levels.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skae import DenoisingAutoencoder, ReconstructionDisplay

X, _ = load_digits(return_X_y=True)
X_train, X_test = train_test_split(X / 16, test_size=0.3, random_state=0)

# %%
# Training
# --------
# `corruption_level` is the probability that a pixel is damaged. The damage is drawn
# anew each time that an image is used, so that the network never sees the same damaged
# image twice.

model = DenoisingAutoencoder(
    40,
    activation="logistic",
    distribution="bernoulli",
    tied_weights=True,
    corruption="salt_and_pepper",
    corruption_level=0.3,
    alpha=0.01,
    learning_rate_init=0.01,
    learning_rate="adaptive",
    max_iter=300,
    tol=0.02,
    random_state=0,
).fit(X_train)

# %%
# Repairing unseen digits
# -----------------------
# The test images are damaged in the same way. `transform` and `inverse_transform` never
# corrupt anything: they take a row as it is.

rng = np.random.default_rng(0)
draws = rng.random(X_test.shape)
X_noisy = np.where(draws < 0.3, draws < 0.15, X_test)

ReconstructionDisplay.from_estimator(
    model, X_test, X_corrupted=X_noisy, image_shape=(8, 8), n_rows=10
)
plt.show()

# %%
# How much of the damage is repaired? We compare with PCA, the best that a linear
# projection can do on clean images. Its number of components is chosen in its favour,
# on the test images.


def error(X_repaired):
    """Return the squared error per image."""
    return np.square(X_repaired - X_test).sum(axis=1).mean()


def repair(estimator):
    """Return the reconstructions of the noisy test images."""
    return estimator.inverse_transform(estimator.transform(X_noisy))


by_pca = min(error(repair(PCA(k).fit(X_train))) for k in range(1, 65))
print(f"noisy images:           {error(X_noisy):5.2f}")
print(f"repaired by PCA:        {by_pca:5.2f}")
print(f"repaired by the model:  {error(repair(model)):5.2f}")

# %%
# Filters
# -------
# Column `j` of the encoder's weights is the filter of unit `j`. Many are blobs and
# strokes with a surround of the opposite sign: a pixel can only be repaired by looking
# at its neighbourhood.

filters = model.coefs_[0].T.reshape(-1, 8, 8)

fig, axes = plt.subplots(4, 10, figsize=(7.5, 3.3), layout="constrained")
for ax, weights in zip(axes.flat, filters, strict=True):
    limit = np.abs(weights).max()
    ax.imshow(weights, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="bilinear")
    ax.set_axis_off()
fig.suptitle("Filters (red: positive, blue: negative weights)", fontsize=10)
plt.show()
