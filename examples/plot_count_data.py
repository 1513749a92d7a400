"""
====================
Counts, mostly zeros
====================

Words in documents, purchases of customers and molecules in cells are counted, and most
counts are zero. This example compares three distributions for such columns. The data
stay a sparse matrix all the time. Cells and newsgroups are measured in the same way
under *counts* in :ref:`published results <reproduced>`.
"""

# %%
# Words in documents
# ------------------
# Each of 3000 documents mixes four topics. A word that occurs once is likely to occur
# again in the same document: counts vary more than those of independent words would.

import matplotlib.pyplot as plt
import numpy as np
from scipy import sparse
from sklearn.model_selection import train_test_split

from skae import LatentSpaceDisplay, VariationalAutoencoder

rng = np.random.default_rng(0)
n_documents, n_words = 3000, 120
topics = rng.dirichlet(np.full(n_words, 0.15), size=4)
mixture = rng.dirichlet(np.full(4, 0.3), size=n_documents)
length = rng.gamma(4, 15, size=(n_documents, 1))
bursts = rng.gamma(1, 1, size=(n_documents, n_words))
X = sparse.csr_matrix(rng.poisson(length * (mixture @ topics) * bursts), dtype=float)
X_train, X_test, _, mixture_test = train_test_split(
    X, mixture, test_size=1 / 3, random_state=0
)
print(f"{X.nnz / np.prod(X.shape):.0%} of the counts are not zero.")

# %%
# Three distributions
# -------------------
# A Poisson count varies as much as its mean. A negative binomial one varies more, by an
# amount that is learnt for each word. A zero-inflated one has additional zeros. All are
# probabilities of whole numbers, so that log p(x) of held-out documents tells which
# family is best.

families = ["poisson", "negative_binomial", "zero_inflated_negative_binomial"]
models = {
    family: VariationalAutoencoder(
        4,
        distribution=family,
        hidden_layer_sizes=(64,),
        learning_rate="cosine",
        max_iter=50,
        random_state=0,
    ).fit(X_train)
    for family in families
}
for family, model in models.items():
    print(f"{family:32s} {model.score(X_test):8.2f} nats per document")

# %%
# The negative binomial is far better than the Poisson distribution, and zero inflation
# adds next to nothing: there are many zeros, but no more than counts in bursts have.
# Samples show what the Poisson model misses.

samples = {
    family: models[family].sample(3000, random_state=0)
    for family in ["poisson", "negative_binomial"]
}
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
counts = X.toarray()
for (family, drawn), color in zip(samples.items(), ["C1", "C0"], strict=True):
    look = {"color": color, "s": 12, "label": family}
    left.scatter((counts == 0).mean(axis=0), (drawn == 0).mean(axis=0), **look)
    right.scatter(counts.var(axis=0), drawn.var(axis=0), **look)
left.axline((0, 0), (1, 1), color="black", linestyle=":")
left.set(title="Share of zeros of each word", xlabel="documents", ylabel="samples")
left.set(xlim=(0.1, 1.02), ylim=(0.1, 1.02))
right.axline((1, 1), (10, 10), color="black", linestyle=":")
right.set(title="Variance of each word", xlabel="documents", ylabel="samples")
right.set(xscale="log", yscale="log")
left.legend(frameon=False)
plt.show()

# %%
# What the code has found
# -----------------------
# The codes of held-out documents, in the three components that say most, coloured by
# the topic that has the largest part in the document. The model has seen no topic.

model = models["negative_binomial"]
x, y, z = np.argsort(-model.kl_per_component_)[:3]

fig, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharex=True)
for ax, components, legend in zip(axes, [(x, y), (x, z)], [False, True], strict=True):
    LatentSpaceDisplay.from_estimator(
        model,
        X_test,
        mixture_test.argmax(axis=1),
        y_name="main topic",
        components=components,
        component_names=[f"component {k}" for k in range(4)],
        ax=ax,
        legend=legend,
    )
plt.show()
