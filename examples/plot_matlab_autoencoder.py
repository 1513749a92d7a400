"""
=========================
MATLAB's trainAutoencoder
=========================

`trainAutoencoder` of MATLAB trains a sparse autoencoder with one hidden layer. This
example takes its default settings, finds those of :class:`~skae.SparseAutoencoder` in
the table of :ref:`matlab`, and checks that both minimise the same quantity.
"""

# %%
# Data
# ----
# Images of handwritten digits, one in each row. MATLAB wants one in each column.
#
# With ``ScaleData`` the values are first mapped to the range of the decoder's output.
# That is a step of a pipeline here, which `inverse_transform` undoes.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from skae import LossCurveDisplay, ReconstructionDisplay, SparseAutoencoder

X, _ = load_digits(return_X_y=True)

# %%
# The defaults, with a linear decoder
# -----------------------------------
# The call ``trainAutoencoder(X, 10, 'DecoderTransferFunction', 'purelin')`` becomes the
# following. ``distribution="squared_error"`` makes the loss the squared error itself,
# so that SparsityRegularization keeps its value, 1, and so does
# L2WeightRegularization, 0.001.

defaults = {
    "n_components": 10,
    "penalty": "kl",
    "sparsity_target": 0.05,
    "standardize": False,
    "solver": "lbfgs",
    "max_iter": 1000,
    "random_state": 0,
}
linear = make_pipeline(
    MinMaxScaler(),
    SparseAutoencoder(
        distribution="squared_error", sparsity_weight=1.0, alpha=0.001, **defaults
    ),
).fit(X)

# %%
# MATLAB documents its loss as the mean squared error of a row, summed over its columns,
# plus half of the squared weights times 0.001, plus the sum of the divergences of the
# mean activations from 0.05. From the fitted parameters:

scaler, model = linear
scaled = scaler.transform(X)
codes = model.transform(scaled)

error = np.square(scaled - model.inverse_transform(codes)).sum(axis=1).mean()
weights = sum(np.square(weight).sum() for weight in model.coefs_) / 2
rho, mean = 0.05, codes.mean(axis=0)
divergence = rho * np.log(rho / mean) + (1 - rho) * np.log((1 - rho) / (1 - mean))

by_hand = error + 0.001 * weights + divergence.sum()
print(f"squared error of a row:    {error:.4f}")
print(f"squared weights, halved:   {weights:.4f}")
print(f"divergences:               {divergence.sum():.4f}")
print(f"loss by MATLAB's formula:  {by_hand:.6f}")
print(f"loss_ of the model:        {model.loss_:.6f}")
print(f"iterations:                {model.n_iter_}")

# %%
# The defaults, with a logistic decoder
# -------------------------------------
# MATLAB's default decoder, ``logsig``, has no exact counterpart. Here a logistic output
# belongs to the Bernoulli distribution, whose loss is the cross entropy instead of the
# squared error. Near 0.5 that is twice the squared error; the two weights are doubled.

logistic = make_pipeline(
    MinMaxScaler(),
    SparseAutoencoder(
        distribution="bernoulli", sparsity_weight=2.0, alpha=0.002, **defaults
    ),
).fit(X)

for name, pipeline in [("linear", linear), ("logistic", logistic)]:
    rebuilt = pipeline.inverse_transform(pipeline.transform(X))
    print(f"{name:8s} decoder, mean squared error: {np.square(rebuilt - X).mean():.3f}")

# %%
# plotWeights
# -----------
# The encoder's weights of each unit, as an image. Red weights are positive, blue ones
# negative.

fig, axes = plt.subplots(2, 10, figsize=(9, 2.2), layout="constrained")
for row, name, pipeline in zip(
    axes, ["linear", "logistic"], [linear, logistic], strict=True
):
    row[0].set_ylabel(name)
    for ax, unit in zip(row, pipeline[-1].coefs_[0].T, strict=True):
        limit = np.abs(unit).max()
        ax.imshow(unit.reshape(8, 8), cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set(xticks=[], yticks=[])
plt.show()

# %%
# predict
# -------
# ``predict`` is `inverse_transform` of `transform`.

ReconstructionDisplay.from_estimator(
    logistic[-1], scaled[:8], image_shape=(8, 8), n_rows=8
)
plt.show()

# %%
# ShowProgressWindow
# ------------------
# The loss of each iteration is kept, for looking at it afterwards. It contains a
# constant where the distribution has one.

LossCurveDisplay.from_estimator(linear[-1])
plt.show()
