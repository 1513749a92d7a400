"""Time of a training step of the same models in skae and in other libraries.

Each model is trained with the same batches, epochs, precision and optimiser (Adam) by

* skae;
* PyTorch, eager, with the fused Adam;
* PyTorch with `torch.compile` of the loss;
* JAX, where an epoch is one jitted scan over its batches, with donated state;
* scikit-learn's MLPRegressor and PyOD's AutoEncoder, where they have the model.

All are judged beside the products of matrices that a step cannot do without, alone:
`numpy.matmul` of the same shapes, in the same BLAS, into memory that is there already.

Each contender lives in a process of its own for each model and number of threads. They
take turns, in an order that rotates from round to round. Those that can only be timed
as a whole (skae, MLPRegressor, PyOD) are timed by a fit of ``1 + E`` epochs minus a fit
of one, so that what comes before and after training cancels; the others by ``E`` epochs
after one to warm up. All shuffle their rows and report the mean loss of each epoch, and
all draw their own random numbers within the time that counts.

Run it on a machine that does nothing else::

    python doc/benchmarks/speed.py --quick          # half a minute, tiny models
    python doc/benchmarks/speed.py                  # half an hour

Without ``--quick`` the result is written to speed.md beside this script. What is not
installed is left out; ``--verbose`` shows the losses, which tell whether contenders
train the same model. Data are uniform random numbers: nothing is learnt from them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import numpy as np

Array = np.ndarray
Sample = dict[str, Any]

RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-8
FIRST_EPOCHS, N_INFERENCE, BLOCK, PAUSE = 50, 60_000, 2_000, 0.3

INTRO = """\
Made by

```
python doc/benchmarks/speed.py {options}
```

on {cores} CPU cores:
{versions}.

The same models are trained with the same batches, epochs, precision and optimiser
(Adam), each contender in a process of its own, in turns; rounds: {rounds}. *Products*
are the products of matrices in a step alone, by NumPy; *of roofline* is their time
divided by skae's. The columns of the other libraries are their time divided by skae's:
above one, skae is faster. They give the median of the ratios in each round, and the
least and the largest. skae, MLPRegressor and PyOD are timed by the difference of two
fits, so that what surrounds training cancels; PyOD leaves out the short last batch of
an epoch. JAX draws by its default generator.

{absent}The models, from the columns to the code (the decoder mirrors them), and rows a
step:

{models}
"""
HEADING = """
## {heading}

A step, in microseconds and as ratios:

"""
INFERENCE = """\

### Inference

{n_rows} rows, seconds for skae and ratios as above. `score_samples` is the Bernoulli
log-likelihood of the reconstruction. PyTorch and JAX take the rows in blocks or at
once, whichever is faster, and have them in memory of their own already.

| model | method | skae [s] | {peers} |
|---|---|---:|{rule}|
"""
FIRST = """\

### The first fit

Seconds of {epochs} epochs of the model "{cell}" in a process that has imported the
library and done nothing else; compilation is included, and so is what an estimator
finds out about its training rows after training.

| {names} |
|{rule}|
| {seconds} |
"""
RESOURCES = """\

## Imports and memory

`import skae` takes {seconds:.2f} s more than `import sklearn` ({sklearn:.2f} s):
medians of {n} fresh processes each.
"""
MEMORY = """
The largest memory that a fit allocates at any time, in multiples of the bytes of the
parameters; the rows themselves are not counted, as they are there before.

| model | rows / parameters | fit | with early stopping |
|---|---:|---:|---:|
"""


def note(text: str) -> None:
    """Report progress."""
    print(text, file=sys.stderr, flush=True)


# --- the models ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Cell:
    """A model, and the data it is trained on.

    Attributes
    ----------
    widths : tuple of int
        From the columns to the code; the decoder mirrors them.
    batch, n_rows, epochs : int
        Rows a step and an epoch, and epochs that are timed in one go.
    activation : str
        Of the hidden layers and, where it is 'plain', of the code.
    code : {'plain', 'gaussian', 'topk'}
        A gaussian code costs its divergence from N(0, 1); of a topk code, `k` units
        fire, and the decoder's directions have length one.
    loss : {'squared_error', 'bernoulli'}
        Summed over columns.
    level : float
        Probability that an input is set to zero.
    """

    widths: tuple[int, ...]
    batch: int
    n_rows: int
    epochs: int = 1
    activation: str = "relu"
    code: str = "plain"
    loss: str = "squared_error"
    level: float = 0.0
    k: int = 0
    dtype: str = "float32"

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Widths on both sides of each layer."""
        down, up = list(self.widths), list(self.widths[::-1])
        down[-1] *= 1 + (self.code == "gaussian")
        return [*itertools.pairwise(down), *itertools.pairwise(up)]

    @property
    def activations(self) -> list[str]:
        """The activation of each layer."""
        hidden = [self.activation] * (len(self.widths) - 2)
        last = {"plain": self.activation, "gaussian": "identity", "topk": "relu"}
        return [*hidden, last[self.code], *hidden, "identity"]

    @property
    def is_plain(self) -> bool:
        """Whether it is a regression of rows on themselves, and nothing else."""
        simple = self.code == "plain" and self.loss == "squared_error"
        return simple and self.level == 0

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return sum(n * m + m for n, m in self.layers)

    def data(self, n_rows: int | None = None) -> Array:
        """Return uniform random rows."""
        shape = n_rows or self.n_rows, self.widths[0]
        return np.random.default_rng(0).random(shape, dtype=self.dtype)

    def start(self) -> list[tuple[Array, Array]]:
        """Return first weights and biases, drawn as skae draws them.

        The output begins at the mean.
        """
        rng, layers = np.random.default_rng(1), []
        for (n, m), name in zip(self.layers, self.activations, strict=True):
            bound = np.sqrt(6 / n) if name == "relu" else np.sqrt(6 / (n + m))
            bound *= 4 if name == "logistic" else 1
            weight = rng.uniform(-bound, bound, (n, m)).astype(self.dtype)
            layers.append((weight, np.zeros(m, self.dtype)))
        if self.loss == "squared_error":
            layers[-1][1].fill(0.5)
        if self.code == "gaussian":
            layers[len(self.widths) - 2][0][:, self.widths[-1] :] = 0.0
        if self.code == "topk":
            directions = layers[-1][0]
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            layers[-2] = np.ascontiguousarray(directions.T), layers[-2][1]
        return layers

    def described(self) -> str:
        """Return what it is, in words."""
        text = f"{'-'.join(map(str, self.widths))}, batch {self.batch}"
        hidden = self.code == "plain" or len(self.widths) > 2
        text += f", {self.activation}" if hidden else ""
        text += f", {self.loss.replace('_', ' ')}"
        text += f", masking {self.level}" if self.level else ""
        text += ", Gaussian code" if self.code == "gaussian" else ""
        text += f", the {self.k} largest units fire" if self.code == "topk" else ""
        return text + ("" if self.dtype == "float32" else f", {self.dtype}")

    def shrunk(self) -> Cell:
        """Return a tiny model of the same kind."""
        widths = tuple(max(4, width // 8) for width in self.widths)
        k = min(self.k, widths[-1] // 4)
        tiny = {"widths": widths, "batch": 32, "n_rows": 320, "epochs": 30, "k": k}
        return dataclasses.replace(self, **tiny)


MASK = Cell(
    (784, 500),
    128,
    6400,
    3,
    activation="logistic",
    loss="bernoulli",
    level=0.3,
)
CELLS = {
    "small": Cell((64, 32), 200, 1797, 200, activation="tanh"),
    "mask": MASK,
    "mask, float64": dataclasses.replace(MASK, dtype="float64"),
    "wide": Cell((784, 1024), 256, 12_800),
    "deep": Cell((784, 1000, 500, 250, 30), 256, 6400),
    "variational": Cell((784, 400, 40), 128, 6400, 3, code="gaussian", loss=MASK.loss),
    "spectra": Cell((204, 130, 70, 40, 20), 256, 12_800, 4, activation="tanh"),
    "sparse": Cell((768, 4096), 512, 5120, code="topk", k=32),
}
QUICK = "small", "mask", "variational", "sparse"
METHODS = {"mask": ("transform", "score_samples"), "variational": ("transform",)}
IN_MEMORY = "wide", "deep"


# --- the contenders ------------------------------------------------------------------


class Contender:
    """One library, with one model to train in one process.

    Parameters
    ----------
    cell : Cell
        The model.
    threads : int
        The threads that it may use.
    """

    title: ClassVar[str]
    module: ClassVar[str]
    infers: ClassVar[bool] = False
    is_race: ClassVar[bool] = True  # whether it does what skae does

    def __init__(self, cell: Cell, threads: int) -> None:
        self.cell, self.threads = cell, threads

    @classmethod
    def takes(cls, cell: Cell) -> bool:
        """Tell whether the library has this model."""
        return True

    def train(self) -> Sample:
        """Return the seconds of a step and the last loss."""
        raise NotImplementedError

    def first(self) -> Sample:
        """Return the seconds of a whole fit."""
        raise NotImplementedError

    def steps(self, epochs: int) -> int:
        """Return the steps of so many epochs."""
        return epochs * -(-self.cell.n_rows // self.cell.batch)


class ByDifference(Contender):
    """An estimator, timed by the difference of two fits."""

    def __init__(self, cell: Cell, threads: int) -> None:
        super().__init__(cell, threads)
        self.X, self.is_warm = cell.data(), False
        self.model(1)  # imports what it needs

    def model(self, epochs: int) -> Any:
        """Return an estimator that will be fitted for so many epochs."""
        raise NotImplementedError

    def fit(self, model: Any) -> None:
        """Fit the estimator."""
        raise NotImplementedError

    def loss(self, model: Any) -> float:
        """Return the mean loss of the last epoch, summed over columns."""
        raise NotImplementedError

    def seconds(self, epochs: int) -> tuple[float, float]:
        """Return the time of a fit, and its loss."""
        model = self.model(epochs)
        began = time.perf_counter()
        self.fit(model)
        return time.perf_counter() - began, self.loss(model)

    def train(self) -> Sample:
        """Return the seconds of a step and the last loss."""
        if not self.is_warm:
            self.seconds(1)
            self.is_warm = True
        epochs = self.cell.epochs
        short, _ = self.seconds(1)
        long, loss = self.seconds(1 + epochs)
        return {"seconds": (long - short) / self.steps(epochs), "loss": loss}

    def first(self) -> Sample:
        """Return the seconds of a whole fit."""
        seconds, loss = self.seconds(FIRST_EPOCHS)
        return {"seconds": seconds, "loss": loss}


class Skae(ByDifference):
    """skae, through its public interface."""

    title, module, infers = "skae", "skae", True

    def model(self, epochs: int, **options: Any) -> Any:
        """Return an estimator that will be fitted for so many epochs."""
        import skae

        cell = self.cell
        settings: dict[str, Any] = {
            "hidden_layer_sizes": cell.widths[1:-1],
            "activation": cell.activation,
            "distribution": cell.loss,
            "alpha": 0.0,
            "standardize": False,
            "batch_size": cell.batch,
            "learning_rate": "constant",
            "learning_rate_init": RATE,
            "max_iter": epochs,
            "tol": 0.0,
            "n_iter_no_change": np.inf,
            "random_state": 0,
        } | options
        if cell.code == "gaussian":
            return skae.VariationalAutoencoder(cell.widths[-1], **settings)
        if cell.code == "topk":
            settings |= {"penalty": "topk", "k": cell.k, "revival": None}
            return skae.SparseAutoencoder(cell.widths[-1], **settings)
        settings |= {"corruption": "masking", "corruption_level": cell.level}
        settings["code_activation"] = cell.activation
        return skae.DenoisingAutoencoder(cell.widths[-1], **settings)

    def fit(self, model: Any) -> None:
        """Fit the estimator."""
        model.fit(self.X)

    def loss(self, model: Any) -> float:
        """Return the mean loss of the last epoch, summed over columns."""
        n_layers = len(self.cell.layers)
        shapes = [weight.shape for weight in model.coefs_[:n_layers]]
        if shapes != self.cell.layers:
            raise AssertionError(f"{shapes} instead of {self.cell.layers}")
        return float(model.loss_curve_[-1])

    @functools.cached_property
    def fitted(self) -> Any:
        """An estimator with some parameters."""
        return self.model(1).fit(self.X)

    def infer(self, method: str, X: Array) -> Array:
        """Return what the estimator finds for new rows."""
        return getattr(self.fitted, method)(X)

    def memory(self) -> Sample:
        """Return the peak memory of a fit, in multiples of the parameters."""
        peaks, size = [], self.cell.n_parameters * self.X.itemsize
        for early_stopping in (False, True):
            model = self.model(2, early_stopping=early_stopping)
            tracemalloc.start()
            model.fit(self.X)
            peaks.append(tracemalloc.get_traced_memory()[1] / size)
            tracemalloc.stop()
        return {"rows": self.X.nbytes / size, "peaks": peaks}


class Sklearn(ByDifference):
    """scikit-learn's regressor, which predicts the rows from themselves."""

    title, module = "MLPRegressor", "sklearn"

    @classmethod
    def takes(cls, cell: Cell) -> bool:
        """Tell whether the library has this model."""
        return cell.is_plain

    def model(self, epochs: int) -> Any:
        """Return an estimator that will be fitted for so many epochs."""
        from sklearn.neural_network import MLPRegressor

        return MLPRegressor(
            hidden_layer_sizes=[n for _, n in self.cell.layers[:-1]],
            activation=self.cell.activation,
            alpha=0.0,
            batch_size=self.cell.batch,
            learning_rate_init=RATE,
            max_iter=epochs,
            tol=0.0,
            n_iter_no_change=np.inf,
            random_state=0,
        )

    def fit(self, model: Any) -> None:
        """Fit the estimator."""
        model.fit(self.X, self.X)

    def loss(self, model: Any) -> float:
        """Return the mean loss of the last epoch, summed over columns."""
        return 2 * self.X.shape[1] * float(model.loss_)


class Pyod(ByDifference):
    """PyOD's detector, without what it does beyond training a network."""

    title, module = "PyOD", "pyod"

    @classmethod
    def takes(cls, cell: Cell) -> bool:
        """Tell whether the library has this model."""
        return cell.is_plain and cell.dtype == "float32"

    def model(self, epochs: int) -> Any:
        """Return an estimator that will be fitted for so many epochs."""
        import torch
        from pyod.models.auto_encoder import AutoEncoder

        torch.set_num_threads(self.threads)

        class Recorded(AutoEncoder):
            """A detector that keeps the losses which it would only print."""

            def training_forward(self, batch_data: Any) -> float:
                loss = super().training_forward(batch_data)
                vars(self).setdefault("losses", []).append(loss)
                return loss

        return Recorded(
            preprocessing=False,
            lr=RATE,
            epoch_num=epochs,
            batch_size=self.cell.batch,
            verbose=0,
            optimizer_params={"weight_decay": 0.0},
            hidden_neuron_list=list(self.cell.widths[1:]),
            hidden_activation_name=self.cell.activation,
            batch_norm=False,
            dropout_rate=0.0,
        )

    def fit(self, model: Any) -> None:
        """Fit the estimator."""
        model.fit(self.X)

    def loss(self, model: Any) -> float:
        """Return the mean loss of the last epoch, summed over columns."""
        return self.X.shape[1] * float(np.mean(model.losses[-self.steps(1) :]))

    def steps(self, epochs: int) -> int:
        """Return the steps of so many epochs; a short last batch is left out."""
        return epochs * (self.cell.n_rows // self.cell.batch)


class ByEpochs(Contender):
    """A training loop, which is timed epoch by epoch."""

    def __init__(self, cell: Cell, threads: int) -> None:
        super().__init__(cell, threads)
        self.is_warm = False
        self.best: dict[str, int] = {}
        self.setup()

    def setup(self) -> None:
        """Load the library, and the rows into its memory."""

    def begin(self) -> None:
        """Set the parameters and the optimiser's memory to the start."""

    def epoch(self) -> float:
        """Train for an epoch; return its mean loss."""
        raise NotImplementedError

    def train(self) -> Sample:
        """Return the seconds of a step and the last loss."""
        if not self.is_warm:
            self.begin()
            self.epoch()
            self.is_warm = True
        began = time.perf_counter()
        losses = [self.epoch() for _ in range(self.cell.epochs)]
        seconds = time.perf_counter() - began
        return {"seconds": seconds / self.steps(self.cell.epochs), "loss": losses[-1]}

    def first(self) -> Sample:
        """Return the seconds of a whole fit."""
        began = time.perf_counter()
        self.begin()
        losses = [self.epoch() for _ in range(FIRST_EPOCHS)]
        return {"seconds": time.perf_counter() - began, "loss": losses[-1]}

    def in_blocks(self, function: Callable[[Any], Any], X: Any, size: int) -> Array:
        """Return the function's results for all rows, found in blocks."""
        if size >= len(X):
            return np.asarray(function(X))
        parts = [
            np.asarray(function(X[start : start + size]))
            for start in range(0, len(X), size)
        ]
        return np.concatenate(parts)

    def faster(self, key: str, function: Callable[[Any], Any], X: Any) -> int:
        """Return the size of blocks that takes least time."""
        if key not in self.best:
            seconds = {}
            for size in (BLOCK, len(X)):
                self.in_blocks(function, X, size)
                began = time.perf_counter()
                self.in_blocks(function, X, size)
                seconds[size] = time.perf_counter() - began
            self.best[key] = min(seconds, key=seconds.__getitem__)
        return self.best[key]


class Products(ByEpochs):
    """The products of a step alone."""

    title, module, is_race = "products", "numpy", False

    def setup(self) -> None:
        """Allocate all operands and results."""
        n, dtype, self.calls = self.cell.batch, self.cell.dtype, []
        rng = np.random.default_rng(0)
        for place, (width, out) in enumerate(self.cell.layers):
            x, d = (rng.random((n, m)).astype(dtype) for m in (width, out))
            weight = rng.random((width, out)).astype(dtype)
            operands = [(x, weight), (x.T, d)] + [(d, weight.T)] * (place > 0)
            for a, b in operands:
                self.calls.append((a, b, np.empty((len(a), b.shape[1]), dtype)))

    def epoch(self) -> float:
        """Form all products of an epoch's steps."""
        for _ in range(self.steps(1)):
            for a, b, out in self.calls:
                np.matmul(a, b, out=out)
        return float("nan")


class Torch(ByEpochs):
    """PyTorch, eager, with the fused Adam."""

    title, module, infers = "PyTorch", "torch", True

    def setup(self) -> None:
        """Load the library, and the rows into its memory."""
        import torch

        torch.set_num_threads(self.threads)
        torch.manual_seed(0)
        self.torch, self.X = torch, torch.from_numpy(self.cell.data())
        functions = {"relu": torch.relu, "tanh": torch.tanh}
        functions |= {"logistic": torch.sigmoid, "identity": lambda x: x}
        self.functions = [functions[name] for name in self.cell.activations]
        self.loss_of = self.loss

    def begin(self) -> None:
        """Set the parameters and the optimiser's memory to the start."""
        layers = [(weight.T.copy(), bias) for weight, bias in self.cell.start()]
        flat = [self.torch.from_numpy(array) for array in itertools.chain(*layers)]
        self.params = [array.requires_grad_() for array in flat]
        options = {"lr": RATE, "betas": (BETA_1, BETA_2), "eps": EPSILON}
        self.adam = self.torch.optim.Adam(self.params, fused=True, **options)

    def run(self, x: Any, layers: slice) -> Any:
        """Return the output of some layers."""
        pairs = list(zip(self.params[::2], self.params[1::2], strict=True))[layers]
        for (weight, bias), f in zip(pairs, self.functions[layers], strict=True):
            x = f(self.torch.nn.functional.linear(x, weight, bias))
        return x

    @property
    def halves(self) -> tuple[slice, slice]:
        """The encoder's and the decoder's layers."""
        n = len(self.cell.widths) - 1
        return slice(n), slice(n, None)

    def loss(self, x: Any) -> Any:
        """Return the sum of the rows' losses."""
        torch, cell, extra = self.torch, self.cell, 0.0
        down, up = self.halves
        seen = x * (torch.rand_like(x) >= cell.level) if cell.level else x
        h = self.run(seen, down)
        if cell.code == "gaussian":
            mu, log_variance = h.chunk(2, dim=1)
            variance = log_variance.exp()
            extra = 0.5 * (mu.square() + variance - log_variance - 1.0).sum()
            h = mu + (0.5 * log_variance).exp() * torch.randn_like(mu)
        elif cell.code == "topk":
            values, places = torch.topk(h, cell.k, sorted=False)
            h = torch.zeros_like(h).scatter(1, places, values)
        f = torch.nn.functional
        kinds = {"bernoulli": f.binary_cross_entropy_with_logits}
        kind = kinds.get(cell.loss, f.mse_loss)
        return kind(self.run(h, up), x, reduction="sum") + extra

    def epoch(self) -> float:
        """Train for an epoch; return its mean loss."""
        order, size = self.torch.randperm(len(self.X)), self.cell.batch
        total = self.torch.zeros((), dtype=self.X.dtype)
        has_unit_norm = self.cell.code == "topk"
        for start in range(0, len(order), size):
            x = self.X.index_select(0, order[start : start + size])
            loss = self.loss_of(x)
            self.adam.zero_grad()
            (loss / len(x)).backward()
            if has_unit_norm:
                self.constrain()
            self.adam.step()
            if has_unit_norm:
                self.restore()
            total += loss.detach()
        return float(total) / len(order)

    def constrain(self) -> None:
        """Take out of the gradient what changes the length of directions."""
        weight = self.params[-2].detach()
        slope = self.params[-2].grad
        slope -= (weight * slope).sum(dim=0) * weight

    def restore(self) -> None:
        """Give directions length one."""
        weight = self.params[-2].detach()
        weight /= weight.norm(dim=0)

    def infer(self, method: str, X: Array) -> Array:
        """Return what the model finds for new rows."""
        if not hasattr(self, "params"):
            self.begin()
            self.new = self.torch.from_numpy(X)
        with self.torch.inference_mode():
            function = getattr(self, method)
            size = self.faster(method, function, self.new)
            return self.in_blocks(function, self.new, size)

    def transform(self, x: Any) -> Any:
        """Return codes."""
        return self.run(x, self.halves[0])[:, : self.cell.widths[-1]]

    def score_samples(self, x: Any) -> Any:
        """Return log-likelihoods."""
        eta = self.run(x, slice(None))
        f = self.torch.nn.functional
        return -f.binary_cross_entropy_with_logits(eta, x, reduction="none").sum(dim=1)


class Compiled(Torch):
    """PyTorch, with its compiler for the loss and its gradient."""

    title, infers = "torch.compile", False

    def begin(self) -> None:
        """Set the parameters, and let the loss be compiled."""
        super().begin()
        self.loss_of = self.torch.compile(self.loss, dynamic=False)


class Jax(ByEpochs):
    """JAX, with one call for an epoch."""

    title, module, infers = "JAX", "jax", True

    def setup(self) -> None:
        """Load the library, and the rows into its memory."""
        import jax

        jax.config.update("jax_enable_x64", self.cell.dtype == "float64")
        self.jax, self.X = jax, jax.numpy.asarray(self.cell.data())
        functions = {"relu": jax.nn.relu, "tanh": jax.numpy.tanh}
        functions |= {"logistic": jax.nn.sigmoid, "identity": lambda x: x}
        self.functions = [functions[name] for name in self.cell.activations]
        self.rng, self.n = np.random.default_rng(0), len(self.cell.widths) - 1

    def begin(self) -> None:
        """Set the parameters and the optimiser's memory to the start."""
        jnp, tree = self.jax.numpy, self.jax.tree
        params = tree.map(jnp.asarray, self.cell.start())
        zeros = [tree.map(jnp.zeros_like, params) for _ in range(2)]
        count = jnp.zeros((), jnp.int32)
        self.state = params, *zeros, count, self.jax.random.key(0)
        self.jitted = self.jax.jit(self.whole_epoch, donate_argnums=0)

    def run(self, params: Any, x: Any, layers: slice) -> Any:
        """Return the output of some layers."""
        pairs, functions = params[layers], self.functions[layers]
        for (weight, bias), f in zip(pairs, functions, strict=True):
            x = f(x @ weight + bias)
        return x

    def loss(self, params: Any, x: Any, key: Any) -> Any:
        """Return the mean of the rows' losses."""
        jax, jnp, cell, extra = self.jax, self.jax.numpy, self.cell, 0.0
        seen = x
        if cell.level:
            seen = x * jax.random.bernoulli(key, 1.0 - cell.level, x.shape)
        h = self.run(params, seen, slice(self.n))
        if cell.code == "gaussian":
            mu, log_variance = jnp.split(h, 2, axis=1)
            variance = jnp.exp(log_variance)
            extra = 0.5 * jnp.sum(mu**2 + variance - log_variance - 1.0)
            noise = jax.random.normal(key, mu.shape, mu.dtype)
            h = mu + jnp.exp(0.5 * log_variance) * noise
        elif cell.code == "topk":
            least = jax.lax.top_k(jax.lax.stop_gradient(h), cell.k)[0][:, -1:]
            h = jnp.where(h >= least, h, 0.0)
        losses = self.misfit(x, self.run(params, h, slice(self.n, None)))
        return (losses.sum() + extra) / len(x)

    def misfit(self, x: Any, eta: Any) -> Any:
        """Return each entry's loss."""
        if self.cell.loss == "bernoulli":
            return self.jax.nn.softplus(eta) - x * eta
        return (x - eta) ** 2

    def step(self, X: Any, state: Any, index: Any) -> tuple[Any, Any]:
        """Take a step; return the new state and the sum of the rows' losses."""
        jax, jnp = self.jax, self.jax.numpy
        params, mean, square, count, key = state
        key, own = jax.random.split(key)
        x = X.at[index].get(mode="promise_in_bounds")
        loss, slope = jax.value_and_grad(self.loss)(params, x, own)
        if self.cell.code == "topk":
            weight, d_weight = params[-1][0], slope[-1][0]
            d_weight -= (weight * d_weight).sum(axis=1, keepdims=True) * weight
            slope[-1] = d_weight, slope[-1][1]
        count += 1
        t = count.astype(x.dtype)
        root = jnp.sqrt(1 - BETA_2**t)
        rate, epsilon = RATE * root / (1 - BETA_1**t), EPSILON * root
        tree = jax.tree.map
        mean = tree(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, mean, slope)
        square = tree(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, square, slope)
        params = tree(
            lambda p, m, v: p - rate * m / (jnp.sqrt(v) + epsilon), params, mean, square
        )
        if self.cell.code == "topk":
            length = jnp.linalg.norm(params[-1][0], axis=1, keepdims=True)
            params[-1] = params[-1][0] / length, params[-1][1]
        return (params, mean, square, count, key), loss * len(x)

    def whole_epoch(self, state: Any, X: Any, order: Any) -> tuple[Any, Any]:
        """Scan over all batches; the short last one comes after them."""
        n_full = len(order) // self.cell.batch * self.cell.batch
        full = order[:n_full].reshape(-1, self.cell.batch)
        step = functools.partial(self.step, X)
        state, losses = self.jax.lax.scan(step, state, full)
        total = losses.sum()
        if n_full < len(order):
            state, loss = step(state, order[n_full:])
            total += loss
        return state, total / len(order)

    def epoch(self) -> float:
        """Train for an epoch; return its mean loss."""
        order = self.rng.permutation(self.cell.n_rows).astype(np.int32)
        self.state, loss = self.jitted(self.state, self.X, order)
        return float(loss)

    def infer(self, method: str, X: Array) -> Array:
        """Return what the model finds for new rows."""
        if not hasattr(self, "state"):
            self.begin()
            self.new, self.jits = self.jax.numpy.asarray(X), {}
        if method not in self.jits:
            self.jits[method] = self.jax.jit(getattr(self, method))
        function = functools.partial(self.jits[method], self.state[0])
        size = self.faster(method, function, self.new)
        return self.in_blocks(function, self.new, size)

    def transform(self, params: Any, x: Any) -> Any:
        """Return codes."""
        return self.run(params, x, slice(self.n))[:, : self.cell.widths[-1]]

    def score_samples(self, params: Any, x: Any) -> Any:
        """Return log-likelihoods."""
        return -self.misfit(x, self.run(params, x, slice(None))).sum(axis=1)


CONTENDERS: dict[str, type[Contender]] = {
    "products": Products,
    "skae": Skae,
    "torch": Torch,
    "compile": Compiled,
    "jax": Jax,
    "sklearn": Sklearn,
    "pyod": Pyod,
}
PEERS = [name for name, kind in CONTENDERS.items() if kind.is_race and name != "skae"]


# --- processes -----------------------------------------------------------------------


def serve(name: str, cell: Cell, threads: int) -> None:
    """Answer requests, one JSON object a line, until there are no more."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.simplefilter("ignore")
    if threads == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows: dict[tuple[str, int], Array] = {}

    def answer(request: Sample) -> Sample:
        task = request["task"]
        if task != "infer":
            return getattr(contender, task)()
        method, n = request["method"], request["n_rows"]
        if (method, n) not in rows:
            rows[method, n] = cell.data(n)
            contender.infer(method, rows[method, n])
        began = time.perf_counter()
        contender.infer(method, rows[method, n])
        return {"seconds": time.perf_counter() - began}

    try:
        contender: Any = CONTENDERS[name](cell, threads)
        print(json.dumps({"ready": True}), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line))), file=answers, flush=True)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        print(json.dumps({"error": reason}), file=answers, flush=True)


class Child:
    """A contender in a process of its own."""

    def __init__(self, name: str, cell: Cell, threads: int) -> None:
        self.name, self.error = name, None
        limits = ("OPENBLAS", "OMP", "MKL")
        environment = os.environ | {
            f"{key}_NUM_THREADS": str(threads) for key in limits
        }
        environment["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
        if threads == 1:
            environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        request = json.dumps([name, dataclasses.asdict(cell), threads])
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", request],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        self.read()

    def read(self) -> Sample | None:
        """Return the next answer; None if it has failed, once and for all."""
        line = self.process.stdout.readline() or '{"error": "it has ended"}'
        answer = json.loads(line)
        if "error" in answer:
            self.error = answer["error"]
            note(f"{CONTENDERS[self.name].title} fails: {self.error}")
            return None
        return answer

    def ask(self, task: str, **options: Any) -> Sample | None:
        """Let the contender do something; return what it has found."""
        if self.error:
            return None
        self.process.stdin.write(json.dumps({"task": task, **options}) + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def children(names: list[str], cell: Cell, threads: int) -> Iterator[list[Child]]:
    """Start processes for some contenders, and end them at last."""
    started: list[Child] = []
    try:
        for name in names:
            started.append(Child(name, cell, threads))
        yield started
    finally:
        for child in started:
            child.close()


@contextlib.contextmanager
def busy(is_busy: bool) -> Iterator[None]:
    """Keep one core busy with something else."""
    if not is_busy:
        yield
        return
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        loop.kill()
        loop.wait()


def turns(
    racers: list[Child], rounds: int, task: str, **options: Any
) -> dict[str, list[Sample]]:
    """Ask all in turn, in an order that rotates; return what each has found."""
    found: dict[str, list[Sample]] = {child.name: [] for child in racers}
    for place in range(rounds):
        shift = place % len(racers)
        for child in racers[shift:] + racers[:shift]:
            time.sleep(PAUSE)  # the threads of the one before go to sleep
            answer = child.ask(task, **options)
            if answer:
                found[child.name].append(answer)
    return {name: answers for name, answers in found.items() if len(answers) == rounds}


# --- the race ------------------------------------------------------------------------


@dataclasses.dataclass
class Setting:
    """What is measured, and under which circumstances."""

    cells: dict[str, Cell]
    names: list[str]
    rounds: int
    n_rows: int
    verbose: bool
    threads: int = 1
    is_busy: bool = False

    @property
    def peers(self) -> list[str]:
        """The contenders that skae is compared with."""
        return [name for name in PEERS if name in self.names]

    def able(self, cell: Cell) -> list[str]:
        """Return the contenders that have this model."""
        return [name for name in self.names if CONTENDERS[name].takes(cell)]


def seconds(answers: list[Sample]) -> list[float]:
    """Return the times of all rounds."""
    return [answer["seconds"] for answer in answers]


def ratio(found: dict[str, list[Sample]], name: str) -> str:
    """Return a contender's time over skae's: the median, and the extremes."""
    if name not in found or "skae" not in found:
        return "-"
    pairs = zip(seconds(found[name]), seconds(found["skae"]), strict=True)
    ratios = [theirs / ours for theirs, ours in pairs]
    middle = f"{median(ratios):.2f}"
    if len(ratios) == 1:
        return middle
    return f"{middle} ({min(ratios):.2f}-{max(ratios):.2f})"


def time_steps(setting: Setting) -> dict[str, dict[str, list[Sample]]]:
    """Let all train all models; return times and losses by cell and contender."""
    found = {}
    for title, cell in setting.cells.items():
        others = children(setting.able(cell), cell, setting.threads)
        with others as racers, busy(setting.is_busy):
            found[title] = turns(racers, setting.rounds, "train")
        for name, answers in found[title].items():
            times = seconds(answers)
            text = f"{setting.threads} threads, {title}, {name}: "
            text += f"{1e6 * median(times):.0f} us"
            # Whoever is not begun anew trains on: losses compare in the first round.
            text += f", loss {answers[0]['loss']:.6g}" if setting.verbose else ""
            note(text)
    return found


def step_table(setting: Setting, found: dict[str, dict[str, list[Sample]]]) -> str:
    """Return the times of a step as a table, and who is ahead of skae."""
    titles = [CONTENDERS[name].title for name in setting.peers]
    text = "| model | products [us] | skae [us] | of roofline | "
    text += f"{' | '.join(titles)} |\n|---|" + "---:|" * (3 + len(titles)) + "\n"
    ahead = []
    for title, answers in found.items():
        times = {name: median(seconds(each)) for name, each in answers.items()}
        products, ours = times.get("products"), times.get("skae")
        row = [
            title,
            *("-" if t is None else f"{1e6 * t:.0f}" for t in (products, ours)),
        ]
        row.append(f"{products / ours:.2f}" if products and ours else "-")
        for name in setting.peers:
            row.append(ratio(answers, name))
            if row[-1] != "-" and float(row[-1].split()[0]) < 1:
                ahead.append(f"{CONTENDERS[name].title} in *{title}*: {row[-1]}")
        text += f"| {' | '.join(row)} |\n"
    if not ahead:
        return text + "\nNo other library is ahead of skae.\n"
    return text + f"\nAhead of skae: {'; '.join(ahead)}.\n"


def inference_table(setting: Setting) -> str:
    """Return the times of encoding and scoring new rows as a table."""
    names = [name for name in setting.names if CONTENDERS[name].infers]
    peers = [name for name in names if name != "skae"]
    text = ""
    for title, methods in METHODS.items():
        if title not in setting.cells:
            continue
        cell = setting.cells[title]
        with children(names, cell, setting.threads) as racers:
            for method in methods:
                options = {"method": method, "n_rows": setting.n_rows}
                found = turns(racers, setting.rounds, "infer", **options)
                ours = found.get("skae")
                row = [title, f"`{method}`"]
                row.append(f"{median(seconds(ours)):.3f}" if ours else "-")
                row += [ratio(found, name) for name in peers]
                text += f"| {' | '.join(row)} |\n"
    if not text:
        return ""
    titles = " | ".join(CONTENDERS[name].title for name in peers)
    rule = "|".join(["---:"] * len(peers))
    return INFERENCE.format(n_rows=setting.n_rows, peers=titles, rule=rule) + text


def first_table(setting: Setting, title: str = "small") -> str:
    """Return the times of first fits as a table."""
    if title not in setting.cells:
        return ""
    cell, found = setting.cells[title], {}
    names = [name for name in setting.able(cell) if CONTENDERS[name].is_race]
    for _ in range(setting.rounds):
        for name in names:
            with children([name], cell, setting.threads) as racers:
                answer = racers[0].ask("first")
            if answer:
                found.setdefault(name, []).append(answer["seconds"])
    times = []
    for values in found.values():
        spread = f" ({min(values):.2f}-{max(values):.2f})" if len(values) > 1 else ""
        times.append(f"{median(values):.2f}{spread}")
    return FIRST.format(
        epochs=FIRST_EPOCHS,
        cell=title,
        names=" | ".join(CONTENDERS[name].title for name in found),
        rule="|".join(["---:"] * len(found)),
        seconds=" | ".join(times),
    )


# --- imports and memory --------------------------------------------------------------


def import_times(n: int) -> dict[str, float]:
    """Return the seconds that importing takes, in fresh processes in turn."""
    found: dict[str, list[float]] = {"sklearn": [], "skae": []}
    for _, module in itertools.product(range(n), found):
        code = "import time; began = time.perf_counter(); "
        code += f"import {module}; print(time.perf_counter() - began)"
        line = subprocess.check_output([sys.executable, "-c", code], text=True)
        found[module].append(float(line))
    return {module: median(times) for module, times in found.items()}


def resources(setting: Setting) -> str:
    """Return what imports and fits take, as Markdown."""
    n = max(3, setting.rounds)
    times = import_times(n)
    text = RESOURCES.format(
        seconds=times["skae"] - times["sklearn"], sklearn=times["sklearn"], n=n
    )
    rows = ""
    for title in IN_MEMORY:
        if title in setting.cells:
            with children(["skae"], setting.cells[title], setting.threads) as racers:
                answer = racers[0].ask("memory")
            if answer:
                values = [answer["rows"], *answer["peaks"]]
                row = " | ".join(f"{value:.1f}" for value in values)
                rows += f"| {title} | {row} |\n"
    return text + (MEMORY + rows if rows else "")


# --- the report ----------------------------------------------------------------------


def versions(names: list[str]) -> str:
    """Return the versions of all libraries that take part."""
    known = {"numpy": "NumPy", "sklearn": "scikit-learn", "torch": "PyTorch"}
    known |= {"jax": "JAX", "pyod": "PyOD"}
    needed = {CONTENDERS[name].module for name in names} | {"numpy"}
    parts = [f"Python {sys.version.split()[0]}"]
    for module, title in known.items():
        if module in needed:
            package = "scikit-learn" if module == "sklearn" else module
            number = importlib.metadata.version(package).split("+")[0]
            parts.append(f"{title} {number}")
    return ", ".join(parts)


def introduction(setting: Setting, missing: list[str], options: str) -> str:
    """Return what is compared, and how."""
    titles = [CONTENDERS[name].title for name in missing]
    return INTRO.format(
        options=options,
        cores=os.cpu_count(),
        versions=versions(setting.names),
        rounds=setting.rounds,
        absent=f"Not installed: {', '.join(titles)}.\n\n" if missing else "",
        models="\n".join(
            f"- *{title}*: {cell.described()}" for title, cell in setting.cells.items()
        ),
    )


def report(setting: Setting, threads: list[int], with_busy: bool) -> Iterator[str]:
    """Measure everything; yield the parts of the report, as Markdown."""
    for n in threads:
        setting.threads = n
        yield HEADING.format(heading=f"{n} thread{'s' * (n > 1)}")
        yield step_table(setting, time_steps(setting))
        yield inference_table(setting)
        yield first_table(setting)
    if with_busy:
        setting.is_busy = True
        heading = (
            f"{setting.threads} threads, and a core that is busy with something else"
        )
        yield HEADING.format(heading=heading)
        yield step_table(setting, time_steps(setting))
    yield resources(setting)


def listed(text: str, known: dict[str, Any], parser: Any) -> list[str]:
    """Return the names in a list with commas; a name may have a comma itself."""
    rest, names = text, []
    while rest:
        fits = [name for name in known if (rest + ",").startswith(name + ",")]
        if not fits:
            parser.error(f"{rest!r} does not begin with one of: {'; '.join(known)}")
        names.append(max(fits, key=len))
        rest = rest[len(names[-1]) :].lstrip(", ")
    return names


def parsed() -> tuple[argparse.Namespace, Setting, list[str]]:
    """Return the options, what to measure, and which contenders are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cores = os.cpu_count() or 1
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default=",".join(map(str, sorted({1, cores}))))
    parser.add_argument("--cells", help=f"some of {', '.join(CELLS)}")
    parser.add_argument("--contenders", help=f"some of {', '.join(CONTENDERS)}")
    parser.add_argument("--busy", action="store_true", help="also with a busy core")
    parser.add_argument("--quick", action="store_true", help="tiny models, one round")
    parser.add_argument("--verbose", action="store_true", help="show losses")
    options = parser.parse_args()
    cells = listed(options.cells, CELLS, parser) if options.cells else list(CELLS)
    names = list(CONTENDERS)
    if options.contenders:
        names = listed(options.contenders, CONTENDERS, parser)
    if options.quick:
        cells = [title for title in cells if title in QUICK]
        options.threads, options.rounds = "1", 1
        if not options.contenders:
            names = [name for name in names if name not in ("compile", "pyod")]  # slow
    chosen = {title: CELLS[title] for title in cells}
    if options.quick:
        chosen = {title: cell.shrunk() for title, cell in chosen.items()}
    found = importlib.util.find_spec
    missing = [name for name in names if found(CONTENDERS[name].module) is None]
    names = [name for name in names if name not in missing]
    n_rows = 2 * BLOCK if options.quick else N_INFERENCE
    return (
        options,
        Setting(chosen, names, options.rounds, n_rows, options.verbose),
        missing,
    )


def main() -> None:
    """Run the benchmark from the command line."""
    if sys.argv[1:2] == ["--serve"]:
        name, fields, threads = json.loads(sys.argv[2])
        cell = Cell(**fields | {"widths": tuple(fields["widths"])})
        serve(name, cell, threads)
        return
    options, setting, missing = parsed()
    threads = [int(n) for n in options.threads.split(",")]
    chosen = " ".join(argument for argument in sys.argv[1:] if argument != "--verbose")
    text = introduction(setting, missing, chosen)
    print(text, end="", flush=True)
    for part in report(setting, threads, options.busy):
        print(part, end="", flush=True)
        text += part
        if not options.quick:
            Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
