"""Parity with the denoising autoencoder of the Theano deep-learning tutorial.

The tutorial's dA has 784 inputs and 500 logistic units with tied weights. It is trained
on the first 50000 digits of MNIST with the Bernoulli cross-entropy, summed over pixels
and averaged over rows: plain SGD, 20 rows a step, learning rate 0.1, 15 epochs, rows in
a fixed order, no weight decay; once with clean input and once with 30 % of the pixels
masked. Weights start uniform on +-4 sqrt(6 / (784 + 500)).

The tutorial publishes no cost. Here `skae.DenoisingAutoencoder` is compared with a
replay of the recipe in PyTorch: autograd, random numbers of its own, nothing of skae's.

* Exactly: in double precision on 2000 rows without corruption, the replay takes over
  the weights that skae starts from. The costs must agree to 1e-9, or the script fails.
* In full: the cost of each epoch in single precision. Only random numbers differ; a
  replay with another seed shows by how much they make costs differ.

One choice of skae is not the tutorial's: the output's bias starts at the logit of the
data's mean, not at zero. The replay is run both ways.

Usage::

    python doc/benchmarks/theano_parity.py --data PATH

PATH is an .npz file with `X_train`, 60000 rows of 784 bytes, or a folder that holds it
as ``mnist/mnist.npz``. The result is printed and written to theano_parity.md beside
this script. Needs PyTorch; everything runs in one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

from skae import DenoisingAutoencoder

try:
    import torch
except ImportError:
    torch = None

N_ROWS, N_EXACT, N_HIDDEN, BATCH, RATE = 50_000, 2_000, 500, 20, 0.1
LEVELS = (0.0, 0.3)
TOLERANCE = 1e-9
HEADER = """\
| epoch | skae | replay | difference | another seed | difference | zero start \
| difference |
|---:|---:|---:|---:|---:|---:|---:|---:|
"""
INTRO = """\
Made by `python doc/benchmarks/theano_parity.py --data PATH` (NumPy {numpy}, PyTorch
{torch}, one thread): the denoising autoencoder of the Theano tutorial on the first
{rows} digits of MNIST, in nats per row, the mean over each epoch. "Replay" is the same
recipe in plain PyTorch with random numbers of its own, the output's bias starting, as
in skae, at the logit of the data's mean; "another seed" is the same once more; "zero
start" is "replay" with that bias at zero, as in the tutorial, and otherwise the same
weights and masks. Differences are relative to "replay".

In double precision, on {exact_rows} rows without corruption and from the same weights,
the costs of skae and of the replay in each of {exact_epochs} epochs differ by at most
{cost:.1e} (relative), the final weights by at most {weight:.1e} (absolute).
"""


# --- skae ---------------------------------------------------------------------------


def autoencoder(level, epochs, **options):
    """Return skae's estimator with the tutorial's recipe."""
    recipe = {
        "activation": "logistic",
        "code_activation": "logistic",
        "tied_weights": True,
        "distribution": "bernoulli",
        "corruption": "masking",
        "corruption_level": level,
        "solver": "sgd",
        "momentum": 0.0,
        "nesterovs_momentum": False,
        "alpha": 0.0,
        "batch_size": BATCH,
        "learning_rate": "constant",
        "learning_rate_init": RATE,
        "max_iter": epochs,
        "shuffle": False,
        "tol": 0.0,
        "n_iter_no_change": np.inf,
        "random_state": 0,
    }
    return DenoisingAutoencoder(N_HIDDEN, **recipe | options)


# --- the replay ---------------------------------------------------------------------


class Replay:
    """The recipe in PyTorch: encoder x W + b, decoder h W^T + c, gradients by autograd.

    `X` is a tensor of rows, `level` the probability that an entry is masked; `start`
    holds the arrays W, b and c.
    """

    def __init__(self, X, level, start, generator=None):
        self.X, self.level, self.generator = X, level, generator
        self.params = [
            torch.tensor(a, dtype=X.dtype, requires_grad=True) for a in start
        ]
        self.costs, self.seconds = [], []

    def epoch(self):
        """Go through the rows once, in order; record the mean cost and the time."""
        began, total = time.perf_counter(), 0.0
        for x in self.X.split(BATCH):
            total += self.step(x) * len(x)
        self.costs.append(total / len(self.X))
        self.seconds.append(time.perf_counter() - began)

    def step(self, x):
        """Move the parameters once; return the cost before."""
        W, b, c = self.params
        code = torch.sigmoid(self.corrupt(x) @ W + b)
        cost = torch.nn.functional.binary_cross_entropy_with_logits(
            code @ W.T + c, x, reduction="sum"
        ) / len(x)
        grads = torch.autograd.grad(cost, self.params)
        with torch.no_grad():
            for param, grad in zip(self.params, grads, strict=True):
                param.sub_(grad, alpha=RATE)
        return cost.item()

    def corrupt(self, x):
        """Return x with entries set to zero; no rescaling."""
        if self.level == 0:
            return x
        return x * (torch.rand(x.shape, generator=self.generator) >= self.level)


def own_start(X, seed, bias):
    """Return W drawn here, b = 0 and the output's bias c."""
    d = X.shape[1]
    bound = 4 * math.sqrt(6 / (d + N_HIDDEN))
    W = np.random.default_rng(seed).uniform(-bound, bound, (d, N_HIDDEN))
    return W, np.zeros(N_HIDDEN), bias


def logit_of_mean(X):
    """Return the logit of each column's mean, half a row of each kind added."""
    n = len(X)
    p = (X.sum(axis=0, dtype=np.float64) + 0.5) / (n + 1)
    return np.log(p / (1 - p))


# --- the exact check ----------------------------------------------------------------


def exact(X, epochs):
    """Return the largest differences of cost and of weights, from the same start."""
    X = X[:N_EXACT].astype(np.float64)
    # Steps of no length leave the weights where the same seed puts them.
    still = autoencoder(0.0, 1, learning_rate_init=1e-300).fit(X)
    model = autoencoder(0.0, epochs).fit(X)
    start = (still.coefs_[0], *still.intercepts_)
    if not np.allclose(start[2], logit_of_mean(X), rtol=1e-12, atol=0):
        sys.exit("The output's bias does not start at the logit of the mean.")
    replay = Replay(torch.from_numpy(X), 0.0, start)
    for _ in range(epochs):
        replay.epoch()
    cost = np.abs(np.array(model.loss_curve_) / replay.costs - 1).max()
    ours = (model.coefs_[0], *model.intercepts_)
    theirs = [param.detach().numpy() for param in replay.params]
    weight = max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True))
    return cost, weight


# --- the full comparison ------------------------------------------------------------


class Turns:
    """Stands in for stdout while a verbose fit prints a line after each epoch.

    Each line gives the replay its turn, so that both are timed side by side.
    """

    def __init__(self, replay):
        self.replay, self.seconds = replay, []
        self.began = time.perf_counter()

    def write(self, text):
        """Let the replay take an epoch for each line."""
        if text.strip():
            self.seconds.append(time.perf_counter() - self.began)
            self.replay.epoch()
            note(f"{text}; replay {self.replay.costs[-1]:.6g}")
            self.began = time.perf_counter()

    def flush(self):
        """Do nothing, as there is nothing to flush."""


def note(text):
    """Report progress."""
    print(text, file=sys.stderr, flush=True)


def compare(X, level, epochs):
    """Return the costs of skae and of three replays, and the times of two."""
    tensor, bias = torch.from_numpy(X), logit_of_mean(X)
    replays = []
    for seed, start in ((1, bias), (2, bias), (1, np.zeros_like(bias))):
        generator = torch.Generator().manual_seed(seed)
        start = own_start(X, seed, start)
        replays.append(Replay(tensor, level, start, generator))
    turns = Turns(replays[0])
    with contextlib.redirect_stdout(turns):
        model = autoencoder(level, epochs, verbose=True).fit(X)
    for replay in replays[1:]:
        for _ in range(epochs):
            replay.epoch()
            note(f"replay, epoch {len(replay.costs)}: {replay.costs[-1]:.6g}")
    costs = [model.loss_curve_, *(replay.costs for replay in replays)]
    return np.transpose(costs), turns.seconds, replays[0].seconds


def section(level, costs, ours, theirs):
    """Return a table of costs and a line about time."""
    text = f"\nCorruption level {level:g}:\n\n{HEADER}"
    for epoch, (skae, replay, other, zero) in enumerate(costs, 1):
        text += f"| {epoch} | {skae:.3f} | {replay:.3f} | {skae / replay - 1:+.2%} "
        text += f"| {other:.3f} | {other / replay - 1:+.2%} "
        text += f"| {zero:.3f} | {zero / replay - 1:+.2%} |\n"
    a, b = median(ours), median(theirs)
    return text + (
        f"\nMedian time of an epoch, run in turn: skae {a:.2f} s, PyTorch {b:.2f} s; "
        f"skae / PyTorch = {a / b:.2f}.\n"
    )


def report(X, epochs):
    """Run everything; return the result as Markdown."""
    n_exact = 2
    cost, weight = exact(X, n_exact)
    note(f"exact: cost {cost:.1e}, weights {weight:.1e}")
    if not cost < TOLERANCE:
        sys.exit(f"Costs from the same start differ by {cost:.1e} (relative).")
    text = INTRO.format(
        numpy=np.__version__,
        torch=torch.__version__.split("+")[0],
        rows=len(X),
        exact_rows=min(N_EXACT, len(X)),
        exact_epochs=n_exact,
        cost=cost,
        weight=weight,
    )
    for level in LEVELS:
        text += section(level, *compare(X, level, epochs))
    return text


# --- the command line ---------------------------------------------------------------


def load(path):
    """Return the training rows in [0, 1], or None where there are none."""
    if path is None:
        return None
    if path.is_dir():
        path = path / "mnist" / "mnist.npz"
    if not path.is_file():
        return None
    with np.load(path) as file:
        return file["X_train"][:N_ROWS].astype(np.float32) / np.float32(255)


def main():
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="mnist.npz, or the folder above it")
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    if torch is None:
        sys.exit("This benchmark needs PyTorch: pip install 'skae[bench]'.")
    X = load(options.data)
    if X is None:
        print("Nothing to do: --data names no mnist/mnist.npz or .npz file.")
        return
    torch.set_num_threads(1)
    with threadpool_limits(1):
        text = report(X, options.epochs)
    print(text, end="")
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
