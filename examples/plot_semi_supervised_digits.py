"""
===================================
Few labels and many unlabelled rows
===================================

Labels cost work, rows often do not. A stack of autoencoders can use both:
:class:`~skae.StackedAutoencoderClassifier` pretrains its layers on all rows, and then
learns the classes from the rows that have one. Does it pay? Here 50 images of digits
have a label, five of each class, and 1207 have none. A stack of the same kind that
learns all digits of MNIST is *sda* in :ref:`published results <reproduced>`.
"""

# %%
# Data
# ----
# Unlabelled rows have the class -1, as everywhere in scikit-learn. Each seed has a
# split of its own, and its own labels.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from skae import StackedAutoencoderClassifier

X, y = load_digits(return_X_y=True)
X = X / 16


def split(n_labels, seed):
    """Return training rows, of which `n_labels` have their class, and test rows."""
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=540, stratify=y, random_state=seed
    )
    if n_labels < len(y_train):
        _, unknown = train_test_split(
            np.arange(len(y_train)),
            train_size=n_labels,
            stratify=y_train,
            random_state=seed,
        )
        y_train[unknown] = -1
    return X_train, X_test, y_train, y_test


# %%
# Models
# ------
# The two networks have the same layers, the same initial weights and the same
# fine-tuning. They differ in `pretraining_max_iter` only. Grey levels in [0, 1] suit
# the Bernoulli distribution, whose columns are never standardised.


def network(seed, epochs):
    """Return a network of three levels, each pretrained for so many epochs."""
    return StackedAutoencoderClassifier(
        100,
        hidden_layer_sizes=(100, 100),
        distribution="bernoulli",
        unlabeled=-1,
        corruption_level=0.1,
        pretraining_max_iter=epochs,
        learning_rate="cosine",
        learning_rate_init=0.002,
        batch_size=64,
        max_iter=100,
        random_state=seed,
    )


def logistic():
    """Return a linear classifier."""
    return LogisticRegression(max_iter=1000)


MODELS = {
    "pretrained": lambda seed: network(seed, 30),
    "not pretrained": lambda seed: network(seed, 0),
    "logistic regression": lambda seed: logistic(),
    "self-training": lambda seed: SelfTrainingClassifier(logistic()),
    "label spreading": lambda seed: LabelSpreading(gamma=20),
}


def accuracy(name, n_labels, seed):
    """Return the accuracy of a model on test rows."""
    X_train, X_test, y_train, y_test = split(n_labels, seed)
    if name == "logistic regression":
        known = y_train >= 0
        X_train, y_train = X_train[known], y_train[known]
    return MODELS[name](seed).fit(X_train, y_train).score(X_test, y_test)


# %%
# The settings were chosen on other splits, those of the seeds 100 to 107, as ones with
# which pretraining helps. Widths, depths, noise and epochs were tried, and for both
# networks learning rates and penalties of fine-tuning.
#
# Fifty labels, ten seeds
# -----------------------
# Which images have a label matters more than anything else. What pretraining adds is
# therefore measured within each seed: the mean of ten differences, and its standard
# error. Three other models, two of which use the unlabelled rows as well, tell what the
# accuracies are worth.

SEEDS = range(10)
scores = {name: [accuracy(name, 50, seed) for seed in SEEDS] for name in MODELS}


def mean_and_error(values):
    """Return the mean and its standard error, in per cent."""
    values = 100 * np.asarray(values)
    return values.mean(), values.std(ddof=1) / np.sqrt(len(values))


for name, values in scores.items():
    print("{:20s} {:5.1f} +- {:.1f} %".format(name, *mean_and_error(values)))
gain = np.subtract(scores["pretrained"], scores["not pretrained"])
print("\nPretraining adds     {:5.1f} +- {:.1f} points".format(*mean_and_error(gain)))
print(f"It helps with {np.sum(gain > 0)} of {len(gain)} seeds.")

# %%
# Each grey line or dot is one seed; the bars are one standard error long to each side.

pairs = ["not pretrained", "pretrained"]
others = ["logistic regression", "self-training", "label spreading"]
table = 100 * np.array([scores[name] for name in pairs + others])

fig, ax = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
ax.plot(table[:2], ".-", color="0.75", zorder=0)
for place, values in enumerate(table):
    colour = "C0" if place < 2 else "C1"
    if place >= 2:
        ax.plot(np.full(len(values), place), values, ".", color="0.75", zorder=0)
    mean, error = mean_and_error(values / 100)
    ax.errorbar(place, mean, error, fmt="o", color=colour, capsize=4)
ax.set_xticks(range(len(table)), [name.replace(" ", "\n") for name in pairs + others])
ax.set(ylabel="Accuracy on test images, %", xlim=(-0.4, len(table) - 0.6))
ax.grid(axis="y", alpha=0.3)
plt.show()

# %%
# Pretraining helps this network, with every seed. That is not all there is to say. The
# network is deep for so few labels: without pretraining it is worse than a linear
# classifier, and with it about as good. On the splits that served to choose settings, a
# network of two levels gained two points instead of three, and was no worse in the end.
# The choice of three levels is not quite independent of the splits shown, either: on
# them, two levels had been tried before, with a gain of 1.3 +- 0.5 points.
# And label spreading, which follows the unlabelled rows from neighbour to neighbour, is
# far ahead: images of one digit lie close together. Where distances say less about the
# classes, that need not be so.

# %%
# How many labels?
# ----------------
# The same with fewer and with more labels, with three seeds. The bands are one standard
# error wide to each side.

COUNTS = [10, 25, 50, 100, 1257]
CURVES = ["pretrained", "not pretrained", "label spreading"]


def curve(name):
    """Return the accuracies for each number of labels and each of three seeds."""
    return [
        scores[name][:3] if n == 50 else [accuracy(name, n, seed) for seed in range(3)]
        for n in COUNTS
    ]


fig, ax = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
print("labels          " + "".join(f"{n:7d}" for n in COUNTS))
for name in CURVES:
    mean, error = np.transpose([mean_and_error(values) for values in curve(name)])
    print(f"{name:16s}" + "".join(f"{value:7.1f}" for value in mean))
    line = ax.plot(COUNTS, mean, ".-", label=name)[0]
    ax.fill_between(
        COUNTS, mean - error, mean + error, color=line.get_color(), alpha=0.2, lw=0
    )
ax.set_xscale("log")
ax.set_xticks(COUNTS, [*COUNTS[:-1], "all"])
ax.set_xticks([], minor=True)
ax.set(xlabel="Labelled images", ylabel="Accuracy on test images, %")
ax.grid(alpha=0.3)
ax.legend(frameon=False)
plt.show()

# %%
# With few labels the seeds differ more than the two networks do. When all rows have a
# label, little is left of the gain.
