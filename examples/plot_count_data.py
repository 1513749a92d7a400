"""
====================
Counts, mostly zeros
====================

Words in documents, purchases of customers and molecules in cells are counted, and most
counts are zero. This example compares three distributions for the words of docstrings.
The models take them as a sparse matrix. Cells and newsgroups are measured in the
same way under *counts* in :ref:`published results <reproduced>`.
"""

# %%
# Words in documents
# ------------------
# The documents are the docstrings of three libraries; their topics are the subpackages
# of SciPy, NumPy as a whole, and scikit-learn. A word that occurs once is likely to
# occur again in the same document: counts vary more than those of independent words
# would.

import inspect
from importlib import import_module

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import train_test_split
from sklearn.utils.discovery import all_estimators, all_functions

from skae import LatentSpaceDisplay, VariationalAutoencoder

subpackages = {
    "arrays": ["numpy"],
    "linear algebra": ["scipy.linalg", "scipy.sparse", "scipy.sparse.linalg"],
    "signals, images": ["scipy.fft", "scipy.ndimage", "scipy.signal"],
    "special functions": ["scipy.special"],
    "statistics": ["scipy.stats"],
}
documents = {}
for topic, modules in subpackages.items():
    for module in map(import_module, modules):
        for name in sorted(module.__all__):
            text = inspect.getdoc(getattr(module, name)) or ""
            documents.setdefault(text, topic)
for _, member in all_estimators() + all_functions():
    documents.setdefault(inspect.getdoc(member) or "", "learning")
documents = {text: topic for text, topic in documents.items() if len(text) > 300}

counter = CountVectorizer(
    max_features=300, stop_words="english", token_pattern="[a-z]{3,}"
)
X = counter.fit_transform(documents).astype(float)
X_train, X_test, _, topic_test = train_test_split(
    X, list(documents.values()), test_size=1 / 3, random_state=0
)
print(f"{len(documents)} documents, {X.shape[1]} words.")
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
        max_iter=30,
        random_state=0,
    ).fit(X_train)
    for family in families
}
for family, model in models.items():
    print(f"{family:32s} {model.score(X_test):8.2f} nats per document")

# %%
# The negative binomial is far better than the Poisson distribution. Zero inflation adds
# less: most zeros, but not all, are those that counts in bursts have anyway. Samples
# show what the Poisson model misses.

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
left.set(xlim=(0, 1.02), ylim=(0, 1.02))
right.axline((1, 1), (10, 10), color="black", linestyle=":")
right.set(title="Variance of each word", xlabel="documents", ylabel="samples")
right.set(xscale="log", yscale="log")
left.legend(frameon=False)
plt.show()

# %%
# What the code has found
# -----------------------
# The codes of held-out documents, in the three components that say most, coloured by
# topic. The model has seen none.

model = models["negative_binomial"]
x, y, z = np.argsort(-model.kl_per_component_)[:3]

fig, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharex=True)
for ax, components, legend in zip(axes, [(x, y), (x, z)], [False, True], strict=True):
    LatentSpaceDisplay.from_estimator(
        model,
        X_test,
        topic_test,
        y_name="topic",
        components=components,
        component_names=[f"component {k}" for k in range(4)],
        ax=ax,
        legend=legend,
    )
plt.show()
