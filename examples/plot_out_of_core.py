"""
=======================
Data larger than memory
=======================

A fit looks at its rows batch by batch, so that they need not be in memory: a memory map
stands for a file, of which the system loads what is asked for. Beside the parameters,
`fit` keeps a few bytes for each row, however wide the rows are; `partial_fit` keeps
nothing. Here is a file of 10 MB. What takes seconds with it takes some minutes with ten
gigabytes, and no more memory than is counted below.
"""

# %%
# A file of rows
# --------------
# The rows are sums of eight directions, with noise. They are made and written chunk by
# chunk, in single precision: a file of integers would be converted as a whole. With
# 40 million rows the file has ten gigabytes.

import tempfile
import tracemalloc
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from skae import DenoisingAutoencoder

N_ROWS, N_COLUMNS, CHUNK = 40_000, 64, 4_000

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "rows.npy"
rng = np.random.default_rng(0)
directions = rng.normal(size=(8, N_COLUMNS))

X = np.lib.format.open_memmap(path, "w+", np.float32, (N_ROWS, N_COLUMNS))
for start in range(0, N_ROWS, CHUNK):
    part = X[start : start + CHUNK]
    z = rng.normal(size=(len(part), len(directions)))
    part[...] = z @ directions + rng.normal(size=part.shape)
X.flush()

X = np.load(path, mmap_mode="r")
print(f"{X.nbytes / 1e6:.0f} MB in {path.name}")


# %%
# Three ways through it
# ---------------------
# `fit` first puts the rows into an order that only their content decides, and then
# visits them in a new order in each epoch. That takes up to 24 bytes for each row, and
# reads the file here and there. With ``shuffle=False`` it reads from the first row to
# the last: better for a file that does not fit into memory, if its rows are in no
# particular order. `partial_fit` goes through chunks, with as many passes over them as
# the caller makes.


def autoencoder(**settings):
    """Return the model to fit; it goes on for three epochs."""
    return DenoisingAutoencoder(
        8,
        distribution="gaussian",
        batch_size=250,
        max_iter=3,
        n_iter_no_change=np.inf,
        random_state=0,
        **settings,
    )


def shuffled(X):
    """Fit with rows in a new order in each epoch."""
    return autoencoder().fit(X)


def in_order(X):
    """Fit with rows in the order of the file."""
    return autoencoder(shuffle=False).fit(X)


def in_chunks(X):
    """Go through all chunks of rows three times."""
    model = autoencoder()
    for _ in range(model.max_iter):
        for start in range(0, len(X), CHUNK):
            model.partial_fit(X[start : start + CHUNK])
    return model


WAYS = {
    "fit": shuffled,
    "fit, shuffle=False": in_order,
    "partial_fit": in_chunks,
}


# %%
# Memory
# ------
# The largest memory that Python and NumPy have allocated at any time, for an eighth of
# the rows, for half of them, and for all.


def measured(work, X):
    """Return a fitted model, and the most memory that its fit has taken."""
    tracemalloc.start()
    model = work(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return model, peak


shuffled(X[:1000])  # loads the last modules
sizes = [N_ROWS // 8, N_ROWS // 2, N_ROWS]
models, peaks = {}, {name: [] for name in WAYS}
for name, work in WAYS.items():
    for n_rows in sizes:
        models[name], peak = measured(work, X[:n_rows])
        peaks[name].append(peak)
    print(f"{name:20} {peak / 1e6:4.1f} MB")

_, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
axes[0].plot(sizes, [n * X.itemsize * N_COLUMNS / 1e6 for n in sizes], "k:", label="X")
for name, each in peaks.items():
    axes[0].plot(sizes, np.divide(each, 1e6), "o-", label=name)
axes[0].set(xlabel="rows", ylabel="memory (MB)", ylim=(0, None))
axes[0].legend()

for name, model in models.items():
    curve = np.reshape(model.loss_curve_, (3, -1))
    axes[1].plot(range(1, 4), curve.mean(axis=1), "o-", label=name)
axes[1].set(xlabel="passes over the file", ylabel="loss (nats per row)")
axes[1].set_xticks([1, 2, 3])
axes[1].grid(alpha=0.3)
plt.show()

# %%
# All three come to the same loss. The memory of the first two grows with the number of
# rows, by a tenth of what the rows take, or less; that of the third does not grow.

# %%
# Codes and scores
# ----------------
# Codes are found block by block, and so are scores. The result is what needs memory; of
# very many rows it can be written to a file in turn.

model = models["fit"]
codes = np.lib.format.open_memmap(
    Path(folder.name) / "codes.npy", "w+", np.float32, (N_ROWS, 8)
)
for start in range(0, N_ROWS, CHUNK):
    codes[start : start + CHUNK] = model.transform(X[start : start + CHUNK])
_, peak = measured(model.score_samples, X)
print(f"score_samples: {peak / 1e6:.1f} MB, mean {model.score(X):.2f} nats per row")

# %%
# At last the files are deleted; some systems want them closed before.

del X, part, codes
folder.cleanup()
