"""
=========================
A line, rates and reasons
=========================

An outlier detector has to say more than which row is more unusual than another. What
score is too low for a normal row? How many normal rows will be called outliers? And
what is it about a row that is unusual? Here tumours are measured, the benign ones are
taken for normal, and the malignant ones are what is to be found.
"""

# %%
# Scores
# ------
# Half of the benign tumours are for training; the detector never sees a malignant one.
# Each row is scored by a model that was fitted to other rows: of the training rows,
# each fifth by a model of the other four.

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import false_discovery_control
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from skae import AutoencoderOutlierDetector, ExplanationDisplay

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
malignant, benign = X[y == 0], X[y == 1]
X_train, X_new = train_test_split(benign, test_size=0.5, random_state=0)

detector = AutoencoderOutlierDetector(random_state=0).fit(X_train)
scores = {
    "held-out training rows": detector.calibration_scores_,
    "new benign rows": detector.score_samples(X_new),
    "malignant rows": detector.score_samples(malignant),
}

# %%
# A line
# ------
# Held-out scores are what to expect of new normal rows, so that a line can be drawn by
# them. `set_threshold` draws it for a rate of false alarms, and may be called as often
# as one likes: the model stays as it is.

lines = {fpr: detector.set_threshold(fpr=fpr).offset_ for fpr in [0.01, 0.2, 0.05]}

for fpr, line in lines.items():
    alarms = np.mean(scores["new benign rows"] < line)
    found = np.mean(scores["malignant rows"] < line)
    print(f"fpr={fpr:<4}: {alarms:5.1%} of new benign rows, {found:5.1%} of malignant")

# %%
# Rates hold in the mean over many such tables, not in each: with 178 training rows, and
# with as many new ones, a few more or less are on the wrong side. For 1 % the line is
# below all training rows, and the lowest two of them alone decide where. Malignant rows
# that are farther out than the figure are counted in its first bar.

fig, axes = plt.subplots(3, 1, figsize=(7, 5), sharex=True, layout="constrained")
right = max(map(np.max, scores.values()))
left = np.quantile(scores["malignant rows"], 0.05)
edges = np.linspace(left, right, 50)
for ax, (name, values), colour in zip(
    axes, scores.items(), ["0.6", "C0", "C3"], strict=True
):
    ax.hist(values.clip(left), edges, color=colour)
    for line in lines.values():
        ax.axvline(line, color="black", linewidth=0.8, linestyle=":")
    ax.set_title(f"{len(values)} {name}", loc="left", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)
for fpr, line in lines.items():
    axes[0].text(line, axes[0].get_ylim()[1], f" {fpr:.0%}", va="top", fontsize="small")
axes[1].set_ylabel("Rows")
axes[2].set_xlabel("Score, nats")
plt.show()

# %%
# p-values
# --------
# A p-value says what share of held-out rows has so low a score, the row itself counted
# among them. Those of normal rows are evenly distributed, and their curve is near the
# diagonal, as near as with so few rows it can be. Those of outliers are small.

p_values = {
    "new benign rows": detector.p_values(X_new),
    "malignant rows": detector.p_values(malignant),
}

_, ax = plt.subplots(figsize=(5, 4), layout="constrained")
ax.plot([0, 1], [0, 1], color="0.6", linestyle=":")
for (name, p), colour in zip(p_values.items(), ["C0", "C3"], strict=True):
    ax.ecdf(p, color=colour, label=name)
ax.set(xlabel="p-value", ylabel="Share of rows with no larger one")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(loc="lower right")
plt.show()

# %%
# Who looks for outliers in a list of rows may want another guarantee: that at most one
# in ten of those called outliers is a false alarm. That is what the procedure of
# Benjamini and Hochberg gives, in the mean.

p = np.concatenate([*p_values.values()])
is_benign = np.arange(len(p)) < len(X_new)
found = false_discovery_control(p) <= 0.1
print(f"{found.sum()} rows found, of which {np.sum(found & is_benign)} are benign")

# %%
# Reasons
# -------
# The score is a sum over columns. Here is the most unusual of all rows, with what each
# column adds to its score, less what is typical of the column.

row = scores["malignant rows"].argmin()
display = ExplanationDisplay.from_estimator(detector, malignant, row=row)
plt.show()

# %%
# The whole of the explanation is in three data frames. Over all malignant rows, these
# are the columns that make them unusual:

reasons = detector.explain(malignant)
excess = (reasons.contributions - detector.typical_contributions_).mean()
print(excess.nsmallest(5).round(2).to_string())

# %%
# The :ref:`user guide <outliers>` has more on how to draw the line.
