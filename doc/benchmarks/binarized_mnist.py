"""Held-out log p(x) of a variational autoencoder on binarised MNIST, beside PyTorch.

The model has 784 Bernoulli columns, a hidden layer of 400 relu units in the encoder and
in the decoder, and 40 components. The data are the digits as Larochelle & Murray
binarised them once and for all: 50000 rows for training, 10000 for testing. The recipe:
minus the evidence lower bound, one draw of the code per row and step, Adam, 128 rows a
step, a learning rate that falls from 0.001 along half a cosine, no weight decay, single
precision.

The replay in PyTorch follows the same recipe with autograd and its own random numbers;
only its first weights are copied from skae. The two are trained in turn, epoch by epoch
in one process, so that their times can be compared.

Held-out rows are judged by importance sampling, in two ways: by the plain estimator,
written in PyTorch, which draws codes from the encoder's posterior q(z|x), and by
`log_likelihood` of skae. Each judges the weights of both, so that what the estimators
make of a model can be told from what the models are.

Before, an exact check: in double precision on 2000 rows, the replay takes over skae's
order of rows and its draws of the code as well. The losses must then agree to 1e-9, or
the script fails.

Usage::

    python doc/benchmarks/binarized_mnist.py --data PATH

PATH is an .npz file with `packed_train` and `packed_test`, rows of 98 bytes that hold
784 bits, or a folder that holds it as ``binarized_mnist/binarized_mnist_packbits.npz``.
The result is printed and written to binarized_mnist.md beside this script; with
``--quick``, which takes about a minute, it is only printed. Needs PyTorch; everything
runs in one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import math
import sys
import time
import tracemalloc
from pathlib import Path
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

from skae import VariationalAutoencoder
from skae.bottlenecks import GaussianPosterior

try:
    import torch
    from torch import nn
except ImportError:
    torch = None

N_FEATURES, N_HIDDEN, N_COMPONENTS, BATCH, RATE = 784, 400, 40, 128, 1e-3
N_ELBO, N_EXACT, N_MEMORY = 64, 2_000, 100
TOLERANCE = 1e-9
FILE = Path("binarized_mnist", "binarized_mnist_packbits.npz")
INTRO = """\
Made by

```
python doc/benchmarks/binarized_mnist.py {options}
```

(NumPy {numpy}, PyTorch {torch}, one thread, single precision): a variational
autoencoder of 784, 400 and 40 units on {n_train} rows of the binarised digits,
{epochs} epochs. All values are in nats per row, and larger is better.

In double precision, on {exact_rows} rows, from the same weights and with the same order
of rows and the same draws, the losses of skae and of the replay in each of
{exact_epochs} epochs differ by at most {loss:.1e} (relative), the final weights by at
most {weight:.1e} (absolute).

The bound in training is the mean over an epoch:

| epoch | skae | PyTorch | skae - PyTorch |
|---:|---:|---:|---:|
"""
TIME = """
Median time of an epoch, run in turn: skae {ours:.2f} s, PyTorch {theirs:.2f} s;
skae / PyTorch = {ratio:.2f}.

Held-out rows: all {n_test} with {n_elbo} draws for each, and {n_rows} of them, evenly
spaced, with {n_draws}:

"""
TABLE = """\
| | skae's weights | PyTorch's weights | skae's - PyTorch's |
|---|---:|---:|---:|
"""
OUTRO = """
The last column is the mean difference over rows and its standard error. skae judges all
rows by one table of draws: its error, unlike PyTorch's, is alike for many rows, and in
the mean over rows it does not vanish.

skae's estimate of log p(x) is higher than the plain one by {gain_ours:.3f} nats with
skae's weights and by {gain_theirs:.3f} with PyTorch's; in expectation, such an estimate
rises towards log p(x) with more draws. The standard error of a row's estimate is
{error_skae:.3f} nats for skae's and {error_plain:.3f} for the plain one, in the mean.

For {n_rows} rows, skae's estimate took {time_skae:.1f} s of one processor and the plain
one in PyTorch {time_plain:.1f} s; 10000 rows would take skae {all_rows:.0f} s. Its
memory grew by {memory:.0f} MiB at most.
"""


def note(text):
    """Report progress."""
    print(text, file=sys.stderr, flush=True)


# --- skae ---------------------------------------------------------------------------


def autoencoder(epochs, seed, **options):
    """Return skae's estimator with the recipe."""
    recipe = {
        "hidden_layer_sizes": N_HIDDEN,
        "activation": "relu",
        "distribution": "bernoulli",
        "alpha": 0.0,
        "solver": "adam",
        "batch_size": BATCH,
        "learning_rate": "cosine",
        "learning_rate_init": RATE,
        "max_iter": epochs,
        "random_state": seed,
    }
    return VariationalAutoencoder(N_COMPONENTS, **recipe | options)


def still(X, seed):
    """Return an estimator with the weights that `seed` starts from.

    Its steps have no length.
    """
    return autoencoder(1, seed, learning_rate_init=1e-300).fit(X)


def with_weights(model, replay):
    """Return a copy of a fitted estimator with the weights of the replay."""
    model = copy.deepcopy(model)
    for weight, bias, layer in zip(
        model.coefs_, model.intercepts_, replay.layers, strict=True
    ):
        weight[...] = layer.weight.detach().numpy().T
        bias[...] = layer.bias.detach().numpy()
    return model


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
            seconds = self.seconds[-1], self.replay.seconds[-1]
            times = "{:.2f} s, {:.2f} s".format(*seconds)
            note(f"{text}; replay {self.replay.losses[-1]:.6g}; {times}")
            self.began = time.perf_counter()

    def flush(self):
        """Do nothing, as there is nothing to flush."""


# --- PyTorch ------------------------------------------------------------------------


class Replay:
    """The recipe in PyTorch, and the plain estimate of log p(x).

    `X` is a tensor of rows; the first weights are those of the fitted `model`.
    """

    def __init__(self, X, model, epochs, seed):
        self.X, self.epochs = X, epochs
        self.generator = torch.Generator().manual_seed(seed)
        self.encoder = nn.Sequential(
            nn.Linear(N_FEATURES, N_HIDDEN),
            nn.ReLU(),
            nn.Linear(N_HIDDEN, 2 * N_COMPONENTS),
        )
        self.decoder = nn.Sequential(
            nn.Linear(N_COMPONENTS, N_HIDDEN),
            nn.ReLU(),
            nn.Linear(N_HIDDEN, N_FEATURES),
        )
        self.encoder.to(X.dtype)
        self.decoder.to(X.dtype)
        self.copy_from(model)
        params = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(params, lr=RATE, fused=True)
        self.losses, self.seconds = [], []

    @property
    def layers(self):
        """The four layers, the encoder's first."""
        return [self.encoder[0], self.encoder[2], self.decoder[0], self.decoder[2]]

    def copy_from(self, model):
        """Take over the weights of a fitted estimator."""
        with torch.no_grad():
            for weight, bias, layer in zip(
                model.coefs_, model.intercepts_, self.layers, strict=True
            ):
                layer.weight.copy_(torch.from_numpy(weight.T.copy()))
                layer.bias.copy_(torch.from_numpy(bias.copy()))
        return self

    def epoch(self):
        """Go through the rows once; record the mean loss and the time."""
        began, total, epoch = time.perf_counter(), 0.0, len(self.losses)
        rate = RATE * 0.5 * (1.0 + math.cos(math.pi * epoch / self.epochs))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for index in self.order().split(BATCH):
            total += self.step(self.X[index]) * len(index)
        self.losses.append(total / len(self.X))
        self.seconds.append(time.perf_counter() - began)

    def order(self):
        """Return the places of all rows, in an order of this epoch."""
        return torch.randperm(len(self.X), generator=self.generator)

    def noise(self, shape):
        """Return standard normals."""
        return torch.randn(shape, generator=self.generator)

    def step(self, x):
        """Move the weights once; return the loss before."""
        self.optimizer.zero_grad()
        mu, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mu + (0.5 * log_variance).exp() * self.noise(mu.shape)
        misfit = nn.functional.binary_cross_entropy_with_logits(
            self.decoder(z), x, reduction="sum"
        )
        loss = (misfit + divergence(mu, log_variance).sum()) / len(x)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def judge(self, X, n_draws, most=1000):
        """Return the bound, log p(x) and its standard error for each row."""
        out = np.empty((3, len(X)))
        with torch.inference_mode():
            for i, x in enumerate(torch.from_numpy(X)):
                mu, log_variance = self.encoder(x[None]).chunk(2, dim=1)
                fit, ratio = [], []
                for start in range(0, n_draws, most):
                    size = min(most, n_draws - start), N_COMPONENTS
                    noise = self.noise(size)
                    z = mu + (0.5 * log_variance).exp() * noise
                    eta = self.decoder(z)
                    fit.append((x * eta - nn.functional.softplus(eta)).sum(1))
                    parts = noise.square() - z.square() + log_variance
                    ratio.append(0.5 * parts.sum(1))
                fit, ratio = torch.cat(fit).double(), torch.cat(ratio).double()
                log_weight = fit + ratio
                log_mean = torch.logsumexp(log_weight, 0) - math.log(n_draws)
                spread = (log_weight - log_mean).exp().std()
                bound = fit.mean() - divergence(mu, log_variance).sum()
                out[:, i] = bound, log_mean, spread / math.sqrt(n_draws)
        return out


def divergence(mu, log_variance):
    """Return the divergence of each component's posterior from the prior."""
    return 0.5 * (mu.square() + log_variance.exp() - log_variance - 1.0)


# --- the exact check ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RecordedPosterior(GaussianPosterior):
    """The code of skae, whose draws are kept."""

    draws: list = dataclasses.field(default_factory=list)

    def draw(self, shape, dtype, rng):
        """Return standard normals, and keep them."""
        noise = super().draw(shape, dtype, rng)
        self.draws.append(noise[:, 0].copy())
        return noise


class Recorded(VariationalAutoencoder):
    """skae's estimator, with such a code."""

    def _bottleneck(self):
        vars(self).setdefault("draws", [])
        return RecordedPosterior(draws=self.draws)


class Follower(Replay):
    """A replay that takes the rows as they come, with draws from a list."""

    draws = ()

    def order(self):
        """Return the places of all rows in order."""
        return torch.arange(len(self.X))

    def noise(self, shape):
        """Return the next draws."""
        return torch.from_numpy(next(self.draws))


def exact(X, epochs, seed):
    """Return the largest differences of loss and of weights with the same draws."""
    X = X[:N_EXACT].astype(np.float64)
    follower = Follower(torch.from_numpy(X), still(X, seed), epochs, seed)
    parameters = autoencoder(epochs, seed, shuffle=False).get_params()
    model = Recorded(**parameters).fit(X)
    follower.draws = iter(model.draws)
    for _ in range(epochs):
        follower.epoch()
    loss = np.abs(np.array(model.loss_curve_) / follower.losses - 1).max()
    ours = (*model.coefs_, *model.intercepts_)
    theirs = [layer.weight.T for layer in follower.layers]
    theirs += [layer.bias for layer in follower.layers]
    weight = max(
        np.abs(a - b.detach().numpy()).max() for a, b in zip(ours, theirs, strict=True)
    )
    return loss, weight


# --- the comparison -----------------------------------------------------------------


def train(X, epochs, seed):
    """Train both in turn; return them and skae's times."""
    replay = Replay(torch.from_numpy(X), still(X, seed), epochs, seed)
    turns = Turns(replay)
    with contextlib.redirect_stdout(turns):
        model = autoencoder(epochs, seed, verbose=True).fit(X)
    return model, replay, turns.seconds


def timed(function, *args, **options):
    """Return what the function returns, and the processor time in seconds."""
    began = time.process_time()
    result = function(*args, **options)
    return result, time.process_time() - began


def memory(function, *args):
    """Return by how many MiB the memory grew at most."""
    tracemalloc.start()
    function(*args)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def judge(model, replay, X_test, n_rows, n_draws):
    """Let both estimators judge both models; return what they find, by name.

    Of the two in a pair, the first has skae's weights.
    """
    models = model, with_weights(model, replay)
    replay.generator.manual_seed(0)
    replays = copy.deepcopy(replay).copy_from(model), replay
    rows, found = X_test[:: len(X_test) // n_rows][:n_rows], {}
    found["elbo_skae"] = [m.elbo(X_test, n_samples=N_ELBO) for m in models]
    found["elbo_plain"] = [r.judge(X_test, N_ELBO)[0] for r in replays]
    skae = [timed(m.log_likelihood, rows, n_draws, True) for m in models]
    note("skae's estimates: {:.3f}, {:.3f}".format(*(a[0].mean() for a, _ in skae)))
    plain = [timed(r.judge, rows, n_draws) for r in replays]
    note("plain estimates: {:.3f}, {:.3f}".format(*(a[1].mean() for a, _ in plain)))
    found["bound"] = [a[0] for a, _ in plain]
    found["skae"] = [a[0] for a, _ in skae]
    found["plain"] = [a[1] for a, _ in plain]
    found["error_skae"] = np.mean([a[1] for a, _ in skae])
    found["error_plain"] = np.mean([a[2] for a, _ in plain])
    found["time_skae"] = np.mean([t for _, t in skae])
    found["time_plain"] = np.mean([t for _, t in plain])
    found["memory"] = memory(model.log_likelihood, rows[:N_MEMORY], n_draws)
    return found


# --- the report ---------------------------------------------------------------------


def curve(ours, theirs):
    """Return the lines of about ten epochs."""
    n, text = len(ours), ""
    for epoch in sorted({1, n, *range(max(1, n // 10), n, max(1, n // 10))}):
        a, b = -ours[epoch - 1], -theirs[epoch - 1]
        text += f"| {epoch} | {a:.3f} | {b:.3f} | {a - b:+.3f} |\n"
    return text


def entry(name, pair):
    """Return a line of the table: two means, and the mean difference of the two."""
    ours, theirs = pair
    difference = ours - theirs
    error = difference.std() / math.sqrt(len(difference))
    return (
        f"| {name} | {ours.mean():.3f} | {theirs.mean():.3f} "
        f"| {difference.mean():+.3f} ({error:.3f}) |\n"
    )


def report(X, X_test, options):
    """Run everything; return the result as Markdown."""
    n_exact, k = 2, options.draws
    loss, weight = exact(X, n_exact, options.seed)
    note(f"exact: loss {loss:.1e}, weights {weight:.1e}")
    if not loss < TOLERANCE:
        sys.exit(f"Losses with the same draws differ by {loss:.1e} (relative).")
    model, replay, seconds = train(X, options.epochs, options.seed)
    found = judge(model, replay, X_test, options.rows, k)
    chosen = f"--epochs {options.epochs} --rows {options.rows} --draws {k}"
    if options.seed:
        chosen += f" --seed {options.seed}"
    text = INTRO.format(
        options="--data PATH " + ("--quick" if options.quick else chosen),
        numpy=np.__version__,
        torch=torch.__version__.split("+")[0],
        n_train=len(X),
        epochs=options.epochs,
        exact_rows=min(N_EXACT, len(X)),
        exact_epochs=n_exact,
        loss=loss,
        weight=weight,
    )
    text += curve(model.loss_curve_, replay.losses)
    a, b = median(seconds), median(replay.seconds)
    text += TIME.format(
        ours=a,
        theirs=b,
        ratio=a / b,
        n_elbo=N_ELBO,
        n_test=len(X_test),
        n_rows=options.rows,
        n_draws=k,
    )
    text += TABLE
    text += entry("all: bound, by `elbo` of skae", found["elbo_skae"])
    text += entry("all: bound, in PyTorch", found["elbo_plain"])
    text += entry("some: bound, in PyTorch", found["bound"])
    text += entry("some: log p(x), plain, in PyTorch", found["plain"])
    text += entry("some: log p(x), by `log_likelihood` of skae", found["skae"])
    gains = [np.mean(a - b) for a, b in zip(found["skae"], found["plain"], strict=True)]
    return text + OUTRO.format(
        gain_ours=gains[0],
        gain_theirs=gains[1],
        n_rows=options.rows,
        all_rows=found["time_skae"] / options.rows * 10_000,
        **found,
    )


# --- the command line ---------------------------------------------------------------


def load(path):
    """Return the rows for training and for testing, or None where there are none."""
    if path is None:
        return None
    if path.is_dir():
        path = path / FILE
    if not path.is_file():
        return None
    with np.load(path) as file:
        packed = file["packed_train"], file["packed_test"]
    bits = (np.unpackbits(rows, axis=1)[:, :N_FEATURES] for rows in packed)
    return [np.ascontiguousarray(rows, dtype=np.float32) for rows in bits]


def main():
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help=f"{FILE.name}, or the folder above")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--rows", type=int, default=1000, help="rows to judge")
    parser.add_argument("--draws", type=int, default=5000, help="draws for each row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a minute, to try it out")
    options = parser.parse_args()
    if torch is None:
        sys.exit("This benchmark needs PyTorch: pip install 'skae[bench]'.")
    data = load(options.data)
    if data is None:
        print(f"Nothing to do: --data names no {FILE.name}.")
        return
    X, X_test = data
    if options.quick:
        X, X_test = X[:10_000], X_test[:1000]
        options.epochs, options.rows, options.draws = 5, 40, 1000
    torch.set_num_threads(1)
    with threadpool_limits(1):
        text = report(X, X_test, options)
    print(text, end="")
    if not options.quick:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
