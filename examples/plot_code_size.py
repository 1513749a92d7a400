"""
=============================
How large should the code be?
=============================

The larger the code, the better the reconstruction, and the less is compressed. This
example follows a deep autoencoder and PCA over the size of the code, on digits that
neither has seen in training. A deeper and wider network of this kind, on MNIST, is
*deep-ae* in :ref:`published results <reproduced>`.
"""

# %%
# Data and models
# ---------------

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from skae import DenoisingAutoencoder

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, test_size=0.3, stratify=y, random_state=0
)
sizes = [2, 4, 8, 16, 32]


def autoencoder(n_components):
    """Return an autoencoder with two hidden layers on either side of the code."""
    return DenoisingAutoencoder(
        n_components,
        hidden_layer_sizes=(128, 64),
        activation="elu",
        distribution="bernoulli",
        corruption_level=0.0,
        alpha=0.01,
        batch_size=64,
        learning_rate="cosine",
        learning_rate_init=0.003,
        max_iter=100,
        random_state=0,
    )


# %%
# Three measures
# --------------
# The score is the mean log-likelihood of an image given its own code, in nats. PCA has
# no Bernoulli likelihood, so the two are compared by the squared error of their
# reconstructions and by what a nearest-neighbour classifier makes of their codes.


def squared_error(estimator):
    """Return the squared error per held-out image."""
    reconstruction = estimator.inverse_transform(estimator.transform(X_test))
    return np.square(reconstruction - X_test).sum(axis=1).mean()


def accuracy(estimator):
    """Return the accuracy of five nearest neighbours, with the codes as features."""
    classifier = KNeighborsClassifier(5).fit(estimator.transform(X_train), y_train)
    return classifier.score(estimator.transform(X_test), y_test)


models = [autoencoder(k).fit(X_train) for k in sizes]
projections = [PCA(k, random_state=0).fit(X_train) for k in sizes]

# %%
# Results
# -------

fig, (left, middle, right) = plt.subplots(
    1, 3, figsize=(9.5, 3.2), layout="constrained"
)

left.plot(sizes, [m.score(X_train) for m in models], "o:C0", label="training rows")
left.plot(sizes, [m.score(X_test) for m in models], "o-C0", label="held-out rows")
left.set(title="Log-likelihood given own code", ylabel="nats per row")

for name, estimators, style in [
    ("autoencoder", models, "o-C0"),
    ("PCA", projections, "s-C1"),
]:
    middle.plot(sizes, [squared_error(m) for m in estimators], style, label=name)
    right.plot(sizes, [accuracy(m) for m in estimators], style, label=name)
middle.set(title="Squared error, held out", ylabel="per image")
right.set(title="Accuracy of 5 neighbours", ylabel="fraction correct")

for ax in (left, middle, right):
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, sizes)
    ax.set_xlabel("Size of the code")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
plt.show()

# %%
# With few components the autoencoder keeps far more than PCA does. With 32 components
# PCA has caught up: with 64 it would copy its input exactly, which a network with a
# penalty on its weights never does.
#
# The log-likelihood rises with the size of the code, on held-out rows too, because a
# larger code says more about its row. It is therefore a measure for choosing everything
# else at a given size. The size itself is chosen by what the codes are for, here by the
# accuracy of the classifier.
