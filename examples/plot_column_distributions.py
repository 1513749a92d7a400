"""
=========================================
A distribution for each column: worth it?
=========================================

``distribution="auto"`` gives each column of a table the family that explains its values
best. This example asks, on two tables of patients, whether that is better than normal
columns, and in which columns. Larger tables are measured in the same way under
*tables* in :ref:`published results <reproduced>`.
"""

# %%
# Two tables
# ----------
# Tumours are described by thirty positive numbers, most of them skewed, and by whether
# they are benign. Patients with diabetes have an age, a sex, and blood values, many of
# them whole numbers; one of 42.5 among these is rounded, since a column of counts takes
# whole numbers only.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import train_test_split

from skae import VariationalAutoencoder

tumours = load_breast_cancer(as_frame=True).frame
patients = load_diabetes(as_frame=True, scaled=False).frame
patients = patients.assign(sex=patients["sex"] - 1, s3=patients["s3"].round())
tables = {"tumours": (tumours, "target"), "patients": (patients, "sex")}


def fitted(distribution, X):
    """Return a model of the rows."""
    return VariationalAutoencoder(
        5,
        distribution=distribution,
        hidden_layer_sizes=(50,),
        learning_rate="cosine",
        learning_rate_init=0.01,
        max_iter=100,
        random_state=0,
    ).fit(X)


# %%
# Held-out rows decide
# --------------------
# Flags are Bernoulli variables in both models: the density that a normal variable has
# at zero or one could not be compared with a probability. A whole number has the
# probability that a density gives to the unit around it, or nearly so, and these
# columns vary by many units. The error is that of the mean over rows.

shares = {}
for name, (table, flag) in tables.items():
    X_train, X_test = train_test_split(table, random_state=0)
    normal = [
        ("bernoulli", [flag]),
        ("gaussian", [column for column in table if column != flag]),
    ]
    models = [fitted(distribution, X_train) for distribution in ("auto", normal)]
    scores = [model.score_samples(X_test) for model in models]
    gain = scores[0] - scores[1]
    print(
        f"{name:8s}  auto {scores[0].mean():7.2f}  normal {scores[1].mean():7.2f}  "
        f"gain {gain.mean():5.2f} ({gain.std() / np.sqrt(len(gain)):.2f}) nats a row"
    )
    kinds = {c: family for family, columns in models[0].distribution_ for c in columns}
    by_column = np.subtract(*(model.score_features(X_test) for model in models))
    shares[name] = (table.columns, kinds, by_column.mean(axis=0))

# %%
# Which columns gain
# ------------------
# `score_features` splits the log-likelihood into shares of the columns.

colours = {
    "gaussian": "0.6",
    "log_normal": "C0",
    "gamma": "C2",
    "exponential": "C1",
    "student_t": "C4",
    "negative_binomial": "C3",
    "bernoulli": "C5",
}
fig, axes = plt.subplots(1, 2, figsize=(9.5, 5.8), layout="constrained")
for ax, (name, (columns, kinds, gain)) in zip(axes, shares.items(), strict=True):
    order = np.argsort(gain)
    names = columns[order]
    ax.barh(names, gain[order], color=[colours[kinds[column]] for column in names])
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set(title=name, xlabel="gain over normal columns, nats a row")
    ax.tick_params(axis="y", labelsize="small")
handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
fig.legend(handles, colours, loc="outside lower center", ncols=4, title="auto took")
plt.show()

# %%
# Each family was chosen as if nothing else were known about its column. Where the other
# columns say much about it, another may be better:
#
# - The errors and areas of tumours are skewed whatever the code says, and gain. Of the
#   concavities, the code knows much; but an exponential variable has a spread that is
#   its mean, and cannot make use of it.
# - The blood values of patients add up: the cholesterol *s1* is nearly a sum of *s2*,
#   *s3* and what goes with *s5*. Normal columns fit sums best.
#
# ``"auto"`` is a beginning, then. A look at the shares tells which columns to give
# another family; the score of held-out rows tells whether it was right.

concave = [column for column in tumours if "concav" in column]
kinds = {**shares["tumours"][1], **dict.fromkeys(concave, "gaussian")}
X_train, X_test = train_test_split(tumours, random_state=0)
given = fitted([(kinds[column], [column]) for column in tumours], X_train)
print(f"tumours, concavities normal: {given.score(X_test):.2f} nats a row")
