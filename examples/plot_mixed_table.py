"""
=============================================
A table of numbers, flags, classes and counts
=============================================

Few tables hold numbers of one kind only. A variational autoencoder can give each column
a distribution of its own, and the code makes them depend on each other: this example
draws new rows that look like those of the table, says how probable a row is, and finds
the entry of a row that does not fit the others. Real tables are measured in the same
way under *tables* in :ref:`published results <reproduced>`.
"""

# %%
# A table
# -------
# These patients are made up, so that it is known how columns depend on each other. Each
# clinic has patients of another age; those of endocrinology have a higher glucose
# level, which decides about insulin; older patients, and those on insulin, visit more
# often.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.model_selection import train_test_split

from skae import VariationalAutoencoder


def logistic(a):
    return 1 / (1 + np.exp(-a))


def make_patients(n, rng):
    """Return a data frame of n patients."""
    clinics = np.array(["cardiology", "endocrinology", "general", "trauma"])
    which = rng.choice(4, n, p=[0.25, 0.2, 0.3, 0.25])
    heart, sugar = which == 0, which == 1
    age = rng.normal(np.take([68, 55, 46, 32], which), np.take([8, 8, 16, 8], which))
    age = 18 + np.abs(age - 18)
    weight = 24.5 + 5.5 * sugar + 0.05 * (age - 45) + rng.normal(0, 2.5, n)
    pressure = 112 + 0.45 * (age - 40) + 10 * heart + rng.normal(0, 8, n)
    rise = 0.72 * sugar * rng.random(n) + 0.012 * (weight - 25)
    glucose = 92 * np.exp(rise + rng.normal(0, 0.07, n))
    insulin = rng.random(n) < logistic((glucose - 135) / 8)
    smoker = rng.random(n) < logistic(1.4 * heart - 0.9 * sugar - 1.2)
    expected = np.exp(0.3 + 0.022 * (age - 40) + 0.9 * insulin)
    return pd.DataFrame(
        {
            "age": age,
            "body_mass": weight,
            "pressure": pressure,
            "glucose": glucose,
            "smoker": smoker,
            "insulin": insulin,
            "visits": rng.negative_binomial(3, 3 / (3 + expected)),
            "clinic": clinics[which],
        }
    )


patients = make_patients(4000, np.random.default_rng(0))
print(patients.head(4).round(1).to_string(index=False))

# %%
# The model wants numbers: a class becomes one column for each of its values.

X = pd.get_dummies(patients, columns=["clinic"])
X_train, X_test = train_test_split(X, test_size=0.25, random_state=0)

# %%
# A distribution for each column
# ------------------------------
# ``distribution="auto"`` looks at the values. Columns of zeros and ones are flags;
# adjacent ones that always sum to one are a class. Every other column gets the family
# that explains it best as long as nothing else is known. `distribution_` tells what was
# chosen. Several draws of the code for each row and the importance-weighted objective
# take longer than the defaults; the samples look more like the table in return.

settings = {
    "n_components": 4,
    "hidden_layer_sizes": (64, 64),
    "objective": "iwae",
    "n_samples": 5,
    "batch_size": 256,
    "learning_rate": "cosine",
    "learning_rate_init": 0.01,
    "max_iter": 40,
    "random_state": 0,
}
auto = VariationalAutoencoder(distribution="auto", **settings).fit(X_train)

for name, columns in auto.distribution_:
    print(f"{name:18s} {', '.join(columns)}")

# %%
# It can also be given. Columns are meant as in scikit-learn's `ColumnTransformer`, by
# name, place, slice or selector, and each must be in one part. Given the code, blood
# pressure may be as normal as age is.

model = VariationalAutoencoder(
    distribution=[
        ("gaussian", ["age", "body_mass", "pressure"]),
        ("log_normal", ["glucose"]),
        ("bernoulli", ["smoker", "insulin"]),
        ("negative_binomial", ["visits"]),
        ("categorical", lambda X: X.columns.str.startswith("clinic_")),
    ],
    **settings,
).fit(X_train)

for name, estimator in [("auto", auto), ("given", model)]:
    print(f"{name:6s} log p(x) of held-out rows: {estimator.score(X_test):7.2f} nats")

# %%
# Samples
# -------
# `sample` draws rows in the units of the table: flags are zeros and ones, a class has a
# single one, and counts are whole numbers, so that pandas can undo the coding.


def as_patients(X):
    """Return rows of the model as patients again."""
    clinics = X.columns[X.columns.str.startswith("clinic_")]
    clinic = pd.from_dummies(X[clinics].astype(bool), sep="_")["clinic"]
    return X.drop(columns=clinics).assign(clinic=clinic)


drawn = model.sample(4000, random_state=0)
samples = as_patients(pd.DataFrame(drawn, columns=X.columns))
print(samples.head(4).round(1).to_string(index=False))

# %%
# Each column by itself has the distribution that it has in the table.

tables = {"table": patients, "samples": samples}
colours = {"table": "0.65", "samples": "C0", "independent": "C1"}
clinics = np.unique(patients["clinic"])
fig, axes = plt.subplots(2, 4, figsize=(9.5, 4.4), layout="constrained")

for ax, column in zip(
    axes[0], ["age", "body_mass", "pressure", "glucose"], strict=True
):
    edges = np.histogram_bin_edges(patients[column], 30)
    for (name, table), style in zip(
        tables.items(), ["stepfilled", "step"], strict=True
    ):
        colour = colours[name]
        ax.hist(table[column], edges, density=True, histtype=style, color=colour)
    ax.set(yticks=[], title=column)

flag = {0: "no", 1: "yes"}
labels = {
    "smoker": flag,
    "insulin": flag,
    "visits": {k: k if k % 3 == 0 else "" for k in range(13)},
    "clinic": {name: f"{name[:4]}." for name in clinics},
}
for ax, (column, names) in zip(axes[1], labels.items(), strict=True):
    for shift, (name, table) in zip([-0.2, 0.2], tables.items(), strict=True):
        shares = [(table[column] == value).mean() for value in names]
        places = np.arange(len(names)) + shift
        ax.bar(places, shares, width=0.4, color=colours[name], label=name)
    ax.set_xticks(range(len(names)), names.values())
    ax.set(yticks=[], title=column)
fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
plt.show()

# %%
# That alone is no merit: columns drawn independently of each other would do as well.
# What the code adds is how the columns depend on each other. For comparison, the
# entries of each column of the table are shuffled.

rng = np.random.default_rng(1)
tables["independent"] = patients.apply(lambda column: rng.permutation(column))

fig, (left, middle, right) = plt.subplots(
    1, 3, figsize=(9.5, 3.2), layout="constrained"
)
levels, ages = np.arange(80, 191, 10), np.arange(20, 81, 10)
for shift, (name, table) in zip([-0.2, 0.0, 0.2], tables.items(), strict=True):
    style = {"color": colours[name], "marker": "o", "label": name}
    by_level = table.groupby(pd.cut(table["glucose"], levels), observed=False)
    left.plot(levels[:-1] + 5, by_level["insulin"].mean(), **style)
    by_clinic = table.groupby("clinic")["age"]
    low, half, high = (by_clinic.quantile(q) for q in [0.1, 0.5, 0.9])
    ends, places = [half - low, high - half], np.arange(4) + shift
    middle.errorbar(places, half, yerr=ends, linestyle="", capsize=3, **style)
    by_age = table.groupby(pd.cut(table["age"], ages), observed=False)
    right.plot(ages[:-1] + 5, by_age["visits"].mean(), **style)
left.set(xlabel="glucose", title="Share on insulin")
middle.set_xticks(range(4), labels["clinic"].values())
middle.set(xlabel="clinic", title="Age: median, middle 80 %")
right.set(xlabel="age", title="Mean number of visits", ylim=(0, None))
fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %%
# How probable is a row?
# ----------------------
# `score_samples` gives log p(x). Is it worth while to give each column a distribution
# of its own, or would a Gaussian for all of them do? The comparison has a trap. A flag
# has a probability, which is at most one, but a Gaussian gives it a density, which has
# no limit: the Gaussian can become as narrow as it likes around zeros and ones.

gaussian = VariationalAutoencoder(distribution="gaussian", **settings)
trap = gaussian.fit(X_train.astype(float)).score(X_test.astype(float))
print(f"log-density under the Gaussian model: {trap:7.2f} nats, which means nothing")

# %%
# Probabilities can be compared. That which a Gaussian gives to a whole number is its
# mass from half below to half above. The Gaussian model is therefore trained on whole
# numbers that are spread evenly over these intervals; its log p(x) is computed by
# importance sampling, with codes from the encoder's posterior.

whole = ~X.columns.isin(["age", "body_mass", "pressure", "glucose"])
spread_out = X_train.astype(float)
spread_out.loc[:, whole] += rng.uniform(-0.5, 0.5, (len(X_train), whole.sum()))
gaussian.fit(spread_out)

rows, (mean, std) = X_test.to_numpy(float), gaussian.posterior(X_test)
scale = np.sqrt(gaussian.noise_variance_)
log_weights = []
for _ in range(200):
    Z = rng.normal(mean, std)
    away = (rows - gaussian.inverse_transform(Z)) / scale
    half = 0.5 / scale
    log_prob = np.where(
        whole,
        np.log(norm.cdf(half - np.abs(away)) - norm.cdf(-half - np.abs(away)) + 1e-300),
        norm.logpdf(away) - np.log(scale),
    ).sum(axis=1)
    log_ratio = norm.logpdf(Z) - norm.logpdf(Z, mean, std)
    log_weights.append(log_prob + log_ratio.sum(axis=1))
fair = np.mean(logsumexp(log_weights, axis=0) - np.log(200))

print(f"a distribution for each column:       {model.score(X_test):7.2f} nats")
print(f"Gaussian columns, fairly compared:    {fair:7.2f} nats")

# %%
# The probabilities of flags, classes and counts, and the densities of the other
# columns, are now in the same units in both models. A distribution for each column is
# better, and only its samples are flags, classes and counts.
#
# The odd entry of a row
# ----------------------
# `score_features` splits log p(x) into shares of the columns. A share that is far below
# the column's mean share marks an entry that the others do not lead one to expect. We
# take a patient of cardiology and change one entry after the other, each to a value
# that other patients have.


def shares(X):
    """Return the shares of the columns, those of the class as one."""
    table = pd.DataFrame(model.score_features(X), columns=X.columns, index=X.index)
    clinic = table.filter(like="clinic_")
    return table.drop(columns=clinic.columns).assign(clinic=clinic.sum(axis=1))


heart = X_test["clinic_cardiology"] & (X_test["age"] > 70) & ~X_test["insulin"]
patient = X_test[heart].head(1)
print(as_patients(patient).round(1).to_string(index=False))

mean_shares = shares(X_train).mean()
changes = [{}, {"age": 24.0}, {"insulin": True}, {"visits": 16}]
titles = ["as it is", "aged 24", "on insulin", "16 visits"]

fig, axes = plt.subplots(
    1, 4, figsize=(9.5, 3.2), layout="constrained", sharex=True, sharey=True
)
for ax, change, title in zip(axes, changes, titles, strict=True):
    excess = shares(patient.assign(**change)).iloc[0] - mean_shares
    color = ["C3" if column in change else "0.6" for column in excess.index]
    ax.barh(excess.index, excess, color=color)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set(title=title, xlabel="nats")
ax.invert_yaxis()
fig.suptitle("Share in log p(x), less the mean share of the column")
plt.show()

# %%
# The entry that was changed, in red, stands out. A patient of 24 years could as well be
# in the wrong clinic, which the shares say, too.
