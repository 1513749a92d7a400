"""
==========================
Factor analysis that bends
==========================

Factor analysis explains the columns of a table by a few hidden normal factors, each
column being a weighted sum of them plus noise of its own. That is a variational
autoencoder without hidden layers. This example shows that both find the same model, and
what hidden layers add where the data are curved.
"""

# %%
# Columns with noise of their own
# -------------------------------
# Five factors, fifteen columns, and noise whose strength differs from column to column,
# so that the best possible log-likelihood of held-out rows is known.

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.model_selection import train_test_split

from skae import LatentSpaceDisplay, VariationalAutoencoder

rng = np.random.default_rng(0)
loadings = rng.normal(size=(5, 15))
noise_std = rng.uniform(0.3, 2.5, size=15)
X = rng.normal(size=(1500, 5)) @ loadings + noise_std * rng.normal(size=(1500, 15))
X_train, X_test = train_test_split(X, test_size=1 / 3, random_state=0)

covariance = loadings.T @ loadings + np.diag(noise_std**2)
best = multivariate_normal(cov=covariance).logpdf(X_test).mean()

# %%
# Three models, one question: how probable are held-out rows? PCA, in its probabilistic
# form, has noise of the same strength in all columns. The autoencoder's log p(x) is an
# estimate by importance sampling, which for a linear model is exact but for a trace.


def autoencoder(n_components, **params):
    """Return a variational autoencoder with a falling learning rate."""
    return VariationalAutoencoder(
        n_components,
        batch_size=100,
        learning_rate="cosine",
        random_state=0,
        **params,
    )


sizes = [1, 2, 3, 4, 5, 6, 8]
families = {
    "PCA": [PCA(k) for k in sizes],
    "FactorAnalysis": [FactorAnalysis(k) for k in sizes],
    "VariationalAutoencoder": [
        autoencoder(k, learning_rate_init=0.02, max_iter=150) for k in sizes
    ],
}
scores = {
    name: [model.fit(X_train).score(X_test) for model in models]
    for name, models in families.items()
}

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
looks = {
    "PCA": {"marker": "s", "color": "C1"},
    "FactorAnalysis": {"linewidth": 6, "color": "0.8"},
    "VariationalAutoencoder": {"marker": "o", "color": "C0"},
}
for name, look in looks.items():
    left.plot(sizes, scores[name], label=name, **look)
left.axhline(best, color="black", linestyle=":", label="true model")
left.set(xlabel="components", ylabel="nats per row", title="log p(x), held out")
left.legend(frameon=False)

five = sizes.index(5)
right.plot([0, 7], [0, 7], color="black", linestyle=":")
for name, marker in [("FactorAnalysis", "D"), ("VariationalAutoencoder", "o")]:
    look = {"color": "0.7", "s": 80} if marker == "D" else {"color": "C0", "s": 25}
    found = families[name][five].noise_variance_
    right.scatter(noise_std**2, found, marker=marker, label=name, **look)
right.set(xlabel="true", ylabel="found", title="Noise variance, 5 components")
right.legend(frameon=False)
plt.show()

# %%
# The autoencoder is where factor analysis is: both prefer five components and reach the
# true model up to what 1000 rows can teach, and both find nearly the same noise
# variances. PCA takes columns with much noise for signal. Factor analysis needs no
# random steps to get there and is the better choice for such data. What the autoencoder
# adds begins where columns are not normal, or not linear in the factors.
#
# Curved data
# -----------
# Six sensors stand along a line, and each of them responds when something passes near
# it. Where that is, one number, explains all columns but for their noise; yet each
# column rises and falls with it. Again the true log p(x) is known.

sensors = np.linspace(0, 1, 6)


def response(position):
    """Return the mean of the columns for each position."""
    return np.exp(-(((position[:, None] - sensors) / 0.25) ** 2) / 2)


position = rng.random(3000)
X = response(position) + 0.05 * rng.normal(size=(3000, 6))
X_train, X_test, _, position_test = train_test_split(
    X, position, test_size=1 / 3, random_state=0
)

fine = response(np.linspace(0, 1, 1001))
log_prob = norm.logpdf(X_test[:, None], fine, 0.05).sum(axis=2)
best = np.mean(logsumexp(log_prob, axis=1) - np.log(len(fine)))

# %%
# With hidden layers the mean of a column may bend. `elbo` is the bound that training
# raises. It lies below log p(x) because the encoder's posterior is normal and the true
# one need not be.

print(f"{'':42s}   ELBO  log p(x)")
for k in [1, 2, 3, 4]:
    exact = FactorAnalysis(k).fit(X_train).score(X_test)
    name = f"FactorAnalysis, {k} component{'s' * (k > 1)}"
    print(f"{name:42s} {'':6s} {exact:9.2f}")
models = {}
for layers in [(), (32,), (64, 64)]:
    model = autoencoder(
        1,
        hidden_layer_sizes=layers,
        learning_rate_init=0.01,
        max_iter=100,
    ).fit(X_train)
    models[layers] = model
    bound = model.elbo(X_test, n_samples=1024).mean()
    log_likelihood = model.score(X_test)
    name = f"1 component, hidden layers {layers}"
    print(f"{name:42s} {bound:6.2f} {log_likelihood:9.2f}")
print(f"{'true model':42s} {'':6s} {best:9.2f}")

# %%
# A linear model needs more components than there are causes, and does not get there.
# With two hidden layers one component is all but enough: its code is the position, up
# to its direction and scale, and its samples lie where the rows lie.

deep = models[64, 64]
flat = autoencoder(4, learning_rate_init=0.01, max_iter=100).fit(X_train)

fig, (left, middle, right) = plt.subplots(
    1, 3, figsize=(9.5, 3.6), layout="constrained"
)
codes = np.linspace(-2.5, 2.5, 101)[:, None]
left.plot(codes, deep.inverse_transform(codes))
left.set(
    xlabel="code", ylabel="mean of each column", title="Decoder, two hidden layers"
)

LatentSpaceDisplay.from_estimator(
    deep, X_test, position_test, y_name="true position", ax=middle
)
middle.set(xlabel="code", title="Codes of held-out rows")

for label, rows, color, size in [
    ("linear, four components", flat.sample(500, random_state=0), "C1", 4),
    ("held-out rows", X_test[:500], "0.7", 16),
    ("two hidden layers, one component", deep.sample(500, random_state=0), "C0", 4),
]:
    right.scatter(rows[:, 1], rows[:, 3], s=size, color=color, label=label)
right.set(xlabel="column 1", ylabel="column 3", title="Samples")
fig.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=3)
plt.show()
