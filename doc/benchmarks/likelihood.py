"""How tight is the estimate of log p(x) of a variational autoencoder?

`log_likelihood` averages importance weights of codes that are drawn from a proposal.
Here its choices are taken apart, for several models and for two kinds of rows: held-out
ones, and the same with 10 % of the entries corrupted (flipped where columns are binary,
else taken from other rows).

* The proposal: "posterior" is the encoder's q(z|x); "curvature" has the encoder's mean,
  moved where it is far off, and the covariance that the decoder implies there;
  "mixture", that of skae, is the latter with a wider one and the prior, and takes what
  these add to the error away by regression.
* The draws: pseudo-random, or a scrambled Sobol sequence, as in skae. All rows share
  one table of draws. Each estimate is repeated with other tables.
* Their number.

For models without hidden layers and with Gaussian columns, log p(x) is known exactly.
For the others a referee tells it: annealed importance sampling (Neal 2001; Wu, Burda,
Salakhutdinov & Grosse 2017), many chains from the prior to the posterior through a
sequence of distributions, each with a transition by Hamiltonian Monte Carlo. Nothing in
it depends on the encoder or on the proposal. On rows that are drawn from the model
itself, whose codes are known, the same path backwards bounds log p(x) from above
(Grosse, Ghahramani & Adams 2015, "Sandwiching the marginal likelihood using
bidirectional Monte Carlo"): what lies between the two is the referee's own error.

Usage::

    python doc/benchmarks/likelihood.py --quick          # a minute, to try it out
    python doc/benchmarks/likelihood.py
    python doc/benchmarks/likelihood.py --data PATH      # and binarised MNIST in PATH

PATH is what binarized_mnist.py takes. The result is printed and written to
likelihood.md beside this script; with ``--quick`` it is only printed. Everything runs
in one thread.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from binarized_mnist import autoencoder as mnist_autoencoder
from binarized_mnist import load
from scipy import special, stats
from scipy.stats import qmc
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from skae import VariationalAutoencoder
from skae.draws import BITS
from skae.marginal import Marginal
from skae.network import Tape

CORRUPTED = 0.1
#: Acceptance rate at which the steps of Hamiltonian Monte Carlo aim, and its steps.
ACCEPTED, N_LEAPS = 0.7, 5
#: Half the range of the sigmoid along which the inverse temperatures are spaced.
RANGE = 4.0


def note(text):
    """Report progress."""
    print(text, file=sys.stderr, flush=True)


# --- the models ---------------------------------------------------------------------


class Case(NamedTuple):
    """A fitted model, rows to judge by kind, and how many the referee may see."""

    name: str
    model: VariationalAutoencoder
    rows: dict
    n_referee: int


def corrupted(X, seed=0):
    """Return rows with a tenth of the entries flipped, or taken from other rows."""
    rng = np.random.default_rng(seed)
    hit = rng.random(X.shape) < CORRUPTED
    binary = np.isin(X, (0, 1)).all()
    other = 1 - X if binary else rng.permuted(X, axis=0)
    return np.where(hit, other, X)


def fitted(name, model, X, n_rows, n_referee):
    """Fit a model to some rows; return it with the others."""
    X, rest = train_test_split(X, test_size=0.25, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X)
    note(f"{name}: fitted, {model.n_iter_} epochs")
    rest = rest[:n_rows]
    rows = {"held-out": rest, "corrupted": corrupted(rest)}
    return Case(name, model, rows, n_referee)


def cases(data, options):
    """Yield every model, one after the other."""
    X = load_breast_cancer().data
    for k in (2, 8, 20):
        model = VariationalAutoencoder(k, random_state=0)
        name = f"breast cancer, linear and Gaussian, {k} components"
        yield fitted(name, model, X, options.rows, options.referee_rows)
    X = (load_digits().data >= 8).astype(np.float64)
    for k in (8, 20):
        model = VariationalAutoencoder(
            k, hidden_layer_sizes=64, distribution="bernoulli", random_state=0
        )
        name = f"binary digits, {k} components"
        yield fitted(name, model, X, options.rows, options.referee_rows)
    if data is not None:
        X, X_test = data
        model = mnist_autoencoder(options.epochs, 0).fit(X)
        name = "binarised MNIST, 40 components"
        note(f"{name}: fitted, {model.n_iter_} epochs")
        rest = X_test[: max(1, options.rows // 3)]
        rows = {"held-out": rest, "corrupted": corrupted(rest)}
        yield Case(name, model, rows, max(1, options.referee_rows // 4))


def exact(model, X):
    """Return log p(x) of a model without hidden layers and with Gaussian columns."""
    inside = model._model()
    weight, bias = model.coefs_[-1], model.intercepts_[-1]
    noise = np.diag(np.exp(2 * inside.shared))
    x = (X - inside.center) / inside.unit
    normal = stats.multivariate_normal(bias, weight.T @ weight + noise)
    return np.atleast_1d(normal.logpdf(x)) - np.log(inside.unit).sum()


def is_linear(model):
    """Return whether log p(x) is known."""
    return model.distribution == "gaussian" and len(model.coefs_) == 2


# --- importance sampling ------------------------------------------------------------


class FromCurvature(Marginal):
    """Importance sampling from the first part of the mixture alone."""

    def __init__(self, model, n_samples, dtype):
        super().__init__(model, n_samples, dtype)
        self.sizes = n_samples, 0, 0


class FromPosterior(FromCurvature):
    """Importance sampling from the encoder's posterior alone."""

    def proposal(self, x, h):
        """Return q(z|x)."""
        return self.posterior(h)


PROPOSALS = {
    "posterior": FromPosterior,
    "curvature": FromCurvature,
    "mixture": Marginal,
}


def pseudo_random(n, k, seed):
    """Return independent standard normals."""
    return np.random.default_rng(seed).standard_normal((n, k))


def sobol(n, k, seed):
    """Return standard normals as skae draws them, scrambled in another way."""
    sequence = qmc.Sobol(k, bits=BITS, seed=np.random.default_rng(seed))
    points = sequence.random_base2((n - 1).bit_length())[:n]
    return special.ndtri(points + 0.5 ** (BITS + 1))


DRAWS = {"pseudo-random": pseudo_random, "Sobol": sobol}


def estimate(model, X, proposal, draws, n, seed):
    """Return the estimate of log p(x) of each row, and its standard error."""
    marginal = PROPOSALS[proposal](model._model(), n, X.dtype)
    marginal.use(DRAWS[draws](n, model.n_components, seed))
    out = np.empty((2, len(X)))
    for place, *found in marginal.estimates(X):
        out[:, place] = found[:2]
    return out


def estimates(model, X, proposal, draws, n, repeats):
    """Return estimates and errors, of shape (n_repeats, n_rows), and ms per row."""
    began = time.process_time()
    each = [estimate(model, X, proposal, draws, n, seed) for seed in range(repeats)]
    seconds = time.process_time() - began
    log_likelihood, error = np.moveaxis(each, 0, 1)
    return log_likelihood, error, 1e3 * seconds / (repeats * len(X))


# --- the referee --------------------------------------------------------------------


class Likelihood:
    """log p(x|z) and its derivative by z, each row of `x` with a code of its own.

    The rows are those of a fitted estimator, in the units of its network.
    """

    def __init__(self, model, x):
        self.x, self.inside = x, model._model()
        self.chain, self.family = self.inside.objective.decoder, self.inside.family
        self.views = self.chain.of(self.inside.theta)
        self.tape = Tape.empty(self.chain, len(x), x.dtype)
        self.nll = np.empty_like(x)
        self.d_z = np.empty((len(x), model.n_components), x.dtype)

    def __call__(self, z):
        """Return log p(x|z) and its derivative, in double precision."""
        shared, tape = self.inside.shared, self.tape
        eta = self.chain.forward(self.views, z.astype(self.x.dtype), tape)
        self.family.nll(self.x, eta, shared, self.nll)
        self.family.gradient(self.x, eta, shared, tape.deltas[-1])
        self.chain.backward(self.views, tape, self.d_z)
        value = -self.nll.sum(axis=1, dtype=np.float64)
        return value, -self.d_z.astype(np.float64)


def transition(likelihood, z, known, beta, length, rng):
    """Take a step of Hamiltonian Monte Carlo that leaves p(z) p(x|z)^beta alone.

    `known` are log p(x|z) and its derivative at z; `length` is that of a leapfrog step,
    for each chain. Returns z, what is known there, and the rates of acceptance.
    """
    start = z
    momentum = rng.standard_normal(z.shape)
    value, slope = known
    before = beta * value - 0.5 * (np.square(z) + np.square(momentum)).sum(axis=1)
    length = (length * rng.uniform(0.8, 1.2, len(z)))[:, None]  # against resonance
    for _ in range(N_LEAPS):
        momentum = momentum + 0.5 * length * (beta * slope - z)
        z = z + length * momentum
        value, slope = likelihood(z)
        momentum = momentum + 0.5 * length * (beta * slope - z)
    after = beta * value - 0.5 * (np.square(z) + np.square(momentum)).sum(axis=1)
    with np.errstate(over="ignore"):
        rate = np.nan_to_num(np.minimum(1.0, np.exp(after - before)))
    taken = rng.random(len(z)) < rate
    z = np.where(taken[:, None], z, start)
    value = np.where(taken, value, known[0])
    slope = np.where(taken[:, None], slope, known[1])
    return z, (value, slope), rate


def anneal(likelihood, z, betas, lengths, n_rows, rng, tunes=False):
    """Take chains along a path of inverse temperatures; return their log-weights.

    `lengths` of shape (len(betas), n_rows) are those of the leapfrog steps. If the path
    `tunes`, they are set, to what the acceptance before suggests; only a path that
    leaves them alone gives unbiased weights. The chains of a row lie together.
    """
    n_chains = len(z) // n_rows
    known, log_weight = likelihood(z), np.zeros(len(z))
    length = lengths[0]
    for i in range(1, len(betas)):
        log_weight += (betas[i] - betas[i - 1]) * known[0]
        length = length if tunes else lengths[i]
        every = np.repeat(length, n_chains)
        z, known, rate = transition(likelihood, z, known, betas[i], every, rng)
        if tunes:
            lengths[i] = length
            rate = rate.reshape(n_rows, n_chains).mean(axis=1)
            length = np.minimum(length * np.exp(0.1 * (rate - ACCEPTED)), 1.0)
    return log_weight.reshape(n_rows, n_chains)


def log_mean(log_weight):
    """Return the log of each row's mean weight, and its standard error."""
    n = log_weight.shape[1]
    mean = special.logsumexp(log_weight, axis=1) - math.log(n)
    weight = np.exp(log_weight - mean[:, None])
    return mean, weight.std(axis=1, ddof=1) / math.sqrt(n)


def referee(model, X, temperatures, chains, codes=None, seed=0):
    """Return log p(x) by annealing, its standard error and, given codes, a bound.

    The bound is from above, and holds in expectation if X was drawn from these codes.
    """
    rng, inside = np.random.default_rng(seed), model._model()
    n, k = len(X), model.n_components
    grid = special.expit(np.linspace(-RANGE, RANGE, temperatures))
    betas = (grid - grid[0]) / (grid[-1] - grid[0])
    x = np.array(X)
    inside.rows(X).standardize(x)
    unit, lengths = np.log(inside.unit).sum(), np.full((len(betas), n), 0.3)
    few = max(2, chains // 4)
    likelihood = Likelihood(model, np.repeat(x, few, axis=0))
    z = rng.standard_normal((n * few, k))
    anneal(likelihood, z, betas, lengths, n, rng, tunes=True)
    likelihood = Likelihood(model, np.repeat(x, chains, axis=0))
    z = rng.standard_normal((n * chains, k))
    lower, error = log_mean(anneal(likelihood, z, betas, lengths, n, rng))
    upper = None
    if codes is not None:
        z = np.repeat(codes.astype(np.float64), chains, axis=0)
        path = betas[::-1], lengths[::-1]
        upper = -log_mean(anneal(likelihood, z, *path, n, rng))[0] - unit
    return lower - unit, error, upper


# --- the report ---------------------------------------------------------------------

INTRO = """\
Made by `python doc/benchmarks/likelihood.py{options}` (NumPy {numpy}, one thread). All
values are in nats per row; times are milliseconds of one processor per row.

Estimates of log p(x) by importance sampling, from {numbers} draws, each repeated
{repeats} times with other draws. "Proposal" and "draws" are what the script says;
skae's own are "mixture" and "Sobol". "Mean" is the mean over rows and repeats, less
the truth where log p(x) is known. "Stated" is the standard error that skae returns
beside each estimate, "actual" is its error where log p(x) is known, and otherwise the
standard deviation over repeats, which leaves out the bias; both are root mean squares.
In corrupted rows, {n_corrupted:.0%} of the entries are wrong.
"""
REFEREE = """
The referee: annealed importance sampling with {temperatures} distributions, {chains}
chains for each row and {leaps} leapfrog steps in a transition. "Error" is the standard
error of its mean over rows. The other columns are mean differences from it: first the
upper bound, from the reverse path, for rows that are drawn from the model; then log
p(x) where it is known; then estimates from Sobol points, with the mixture of skae and
with the encoder's posterior.

"""


def table(case, options):
    """Return the comparison of proposals, draws and numbers for one model."""
    numbers = options.numbers
    columns = [f"{name}, {n}" for name in ("mean", "stated", "actual") for n in numbers]
    text = f"\n{case.name}, {len(case.rows['held-out'])} rows of each kind:\n\n"
    text += f"| rows | proposal | draws | {' | '.join(columns)} | ms, {numbers[-1]} |\n"
    text += "|---|---|---|" + "---:|" * (len(columns) + 1) + "\n"
    for kind, X in case.rows.items():
        truth = exact(case.model, X) if is_linear(case.model) else None
        for proposal in PROPOSALS:
            for draws in DRAWS:
                found = [
                    estimates(case.model, X, proposal, draws, n, options.repeats)
                    for n in numbers
                ]
                cells = [row(a, b, truth) for a, b, _ in found]
                cells = [cell for group in zip(*cells, strict=True) for cell in group]
                text += f"| {kind} | {proposal} | {draws} | {' | '.join(cells)} "
                text += f"| {found[-1][2]:.1f} |\n"
        note(f"{case.name}, {kind}: compared")
    return text


def row(log_likelihood, error, truth):
    """Return three cells: a mean, the stated and the actual error."""
    if truth is None:
        variance = log_likelihood.var(axis=0, ddof=1)
        actual = math.sqrt(variance.mean())
        mean = f"{log_likelihood.mean():.3f}"
    else:
        difference = log_likelihood - truth
        actual = math.sqrt(np.square(difference).mean())
        mean = f"{difference.mean():+.3f}"
    stated = math.sqrt(np.square(error).mean())
    return mean, f"{stated:.3f}", f"{actual:.3f}"


def judged(case, options):
    """Return the lines of one model in the referee's table."""
    model, text = case.model, ""
    n = case.n_referee
    rng = np.random.default_rng(1)
    dtype = case.rows["held-out"].dtype
    codes = rng.standard_normal((n, model.n_components)).astype(dtype)
    kinds = {kind: (X[:n], None) for kind, X in case.rows.items()}
    kinds["drawn from it"] = model.sample(1, Z=codes, random_state=1), codes
    for kind, (X, z) in kinds.items():
        began = time.perf_counter()
        sizes = options.temperatures, options.chains
        lower, error, upper = referee(model, X, *sizes, z)
        seconds = time.perf_counter() - began
        error = math.sqrt(np.square(error).sum()) / len(X)
        others = [upper, exact(model, X) if is_linear(model) else None]
        for proposal in ("mixture", "posterior"):
            for size in options.numbers:
                found = estimates(model, X, proposal, "Sobol", size, options.repeats)
                others.append(found[0].mean(axis=0))
        cells = ["" if a is None else f"{np.mean(a - lower):+.3f}" for a in others]
        text += f"| {case.name} | {kind} | {len(X)} | {lower.mean():.3f} | {error:.3f} "
        text += f"| {' | '.join(cells)} |\n"
        note(f"{case.name}, {kind}: refereed in {seconds:.0f} s")
    return text


def report(data, options):
    """Run everything; return the result as Markdown."""
    numbers = [str(n) for n in options.numbers]
    given = " --quick" if options.quick else " --data PATH" if data else ""
    text = INTRO.format(
        options=given,
        numpy=np.__version__,
        numbers=f"{', '.join(numbers[:-1])} and {numbers[-1]}",
        repeats=options.repeats,
        n_corrupted=CORRUPTED,
    )
    columns = ["model", "rows", "number", "annealed", "error", "upper bound", "exact"]
    for proposal in ("mixture", "posterior"):
        columns += [f"{proposal}, {n}" for n in numbers]
    lines = f"| {' | '.join(columns)} |\n|---|---|" + "---:|" * (len(columns) - 2)
    lines += "\n"
    for case in cases(data, options):
        text += table(case, options)
        lines += judged(case, options)
    text += REFEREE.format(
        temperatures=options.temperatures, chains=options.chains, leaps=N_LEAPS
    )
    return text + lines


# --- the command line ---------------------------------------------------------------


def main():
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="what binarized_mnist.py takes")
    parser.add_argument("--epochs", type=int, default=10, help="on MNIST")
    parser.add_argument("--rows", type=int, default=120, help="rows to judge")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--referee-rows", type=int, default=48)
    parser.add_argument("--temperatures", type=int, default=1000)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--quick", action="store_true", help="a minute, to try it out")
    options = parser.parse_args()
    options.numbers = [64, 1024, 4096]
    if options.quick:
        options.numbers = [64, 512]
        options.rows, options.repeats, options.referee_rows = 20, 3, 10
        options.temperatures, options.chains, options.epochs = 100, 8, 1
    data = load(options.data)
    if options.data is not None and data is None:
        note("--data names no binarised MNIST: left out")
    with threadpool_limits(1):
        text = report(data, options)
    print(text, end="")
    if not options.quick:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
