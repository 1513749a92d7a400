"""
=============
Loss curves
=============

Every fit records its loss after each epoch. :class:`~skae.LossCurveDisplay`
draws it: whether training has converged, and which learning rate schedule gets there
faster, can be seen at a glance.
"""

# %%
# Early stopping
# --------------
# With `early_stopping=True` a part of the rows is held out. Training ends when their
# loss no longer falls, and the parameters with the smallest loss are kept.

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from skae import DenoisingAutoencoder, LossCurveDisplay

X, _ = load_digits(return_X_y=True)
X = X / 16

model = DenoisingAutoencoder(
    16,
    hidden_layer_sizes=(64,),
    activation="tanh",
    distribution="bernoulli",
    corruption="masking",
    corruption_level=0.2,
    learning_rate_init=0.005,
    max_iter=300,
    tol=0.01,
    early_stopping=True,
    random_state=0,
).fit(X)

_, ax = plt.subplots(figsize=(6.5, 3.5), layout="constrained")
LossCurveDisplay.from_estimator(model, name="DenoisingAutoencoder", ax=ax)
best = max(range(model.n_iter_), key=model.validation_scores_.__getitem__)
ax.axvline(best + 1, color="0.6", linewidth=1, zorder=0)
ax.grid(alpha=0.3)
plt.show()

# %%
# The validation loss lies below the training loss. The training loss is measured on
# corrupted rows, with the penalty on the weights, while the epoch goes on; the
# validation loss on clean rows, without the penalty, after the epoch. The grey line
# marks the epoch whose parameters were kept.

# %%
# Schedules
# ---------
# A schedule changes the learning rate from epoch to epoch. Here all four start from the
# same weights and from a rate that is too large to end with.

_, ax = plt.subplots(figsize=(6.5, 3.5), layout="constrained")
model.set_params(early_stopping=False, learning_rate_init=0.03, batch_size=100)
model.set_params(max_iter=90, tol=0.03, n_iter_no_change=8)
for schedule in ["constant", "invscaling", "adaptive", "cosine"]:
    model.set_params(learning_rate=schedule).fit(X)
    style = {"linewidth": 4, "alpha": 0.4} if schedule == "constant" else {}
    LossCurveDisplay.from_estimator(model, name=schedule, ax=ax, **style)
ax.set_ylim(16.5, 20)
ax.grid(alpha=0.3)
plt.show()

# %%
# With a constant rate training stalls early: the steps are too long to get any closer.
# The adaptive schedule is the same up to that point, then divides the rate by five, and
# the loss falls at once. The cosine gets as low with a smooth decrease towards the last
# epoch.
