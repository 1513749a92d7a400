"""Where the time of a training step goes, in one thread.

The functions that a step calls are wrapped by timers that count what a function spends
by itself, without the others that it calls. Products are those of `numpy.matmul` in
the layers. The timers cost a little, most where a step is short.

Run it with one BLAS thread, on a machine that does nothing else::

    OPENBLAS_NUM_THREADS=1 python doc/benchmarks/profile_step.py

The table is printed, and written to profile_step.md beside this script. With
``--quick``, which takes seconds, it is only printed.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from skae import (
    DenoisingAutoencoder,
    SparseAutoencoder,
    VariationalAutoencoder,
    bottlenecks,
    corruptions,
    distributions,
    network,
    objective,
    optimizers,
    rows,
    training,
)

REPORT = """\
Made by `python doc/benchmarks/profile_step.py` (NumPy {numpy}, one thread):
microseconds of a training step, in single precision, by what they are spent on.

{table}
"""

SETTINGS: dict[str, Any] = {
    "alpha": 0.0,
    "standardize": False,
    "learning_rate": "constant",
    "learning_rate_init": 1e-3,
    "tol": 0.0,
    "n_iter_no_change": np.inf,
    "random_state": 0,
}
SQUARED = {"distribution": "squared_error", "corruption_level": 0.0}
MODELS: dict[str, tuple[int, int, Any]] = {
    "64-32-64, 200 rows": (
        64,
        1797,
        DenoisingAutoencoder(32, batch_size=200, **SQUARED, **SETTINGS),
    ),
    "784-500-784, 128 rows, masking, Bernoulli": (
        784,
        6400,
        DenoisingAutoencoder(
            500,
            batch_size=128,
            distribution="bernoulli",
            corruption_level=0.3,
            **SETTINGS,
        ),
    ),
    "784-1024-784, 256 rows": (
        784,
        6400,
        DenoisingAutoencoder(1024, batch_size=256, **SQUARED, **SETTINGS),
    ),
    "784-400-40, 128 rows, variational": (
        784,
        6400,
        VariationalAutoencoder(
            40,
            hidden_layer_sizes=(400,),
            activation="relu",
            batch_size=128,
            distribution="bernoulli",
            **SETTINGS,
        ),
    ),
    "768-4096, 512 rows, top-32": (
        768,
        2560,
        SparseAutoencoder(
            4096,
            k=32,
            revival=None,
            batch_size=512,
            distribution="squared_error",
            **SETTINGS,
        ),
    ),
}

#: What functions are counted for; those that a class does not have are passed over.
KINDS: dict[str, list[tuple[type, list[str]]]] = {
    "optimiser": [(optimizers.Adam, ["_move"])],
    "loss and its slope": [
        (family, ["nll", "gradient", "misfit"])
        for family in (distributions.Bernoulli, distributions.SquaredError)
    ],
    "draws and damage": [
        (objective.Objective, ["draw", "see"]),
        (corruptions.Masking, ["draw", "corrupt"]),
    ],
    "rows": [(rows.Rows, ["load"])],
    "codes": [
        (kind, ["forward", "backward", "remember", "combine"])
        for kind in vars(bottlenecks).values()
        if isinstance(kind, type) and issubclass(kind, bottlenecks.Bottleneck)
    ],
    "activations and biases": [(network.Chain, ["forward", "backward", "gradients"])],
    "directions of length one": [(objective.Objective, ["constrain", "restore"])],
}


class Profile:
    """Exclusive times by kind, of what happens within steps."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.inner: list[float] = []
        self.n_steps = 0

    def timed(self, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        """Return the function, timed."""

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not self.inner and kind != "the rest":
                return function(*args, **kwargs)
            began = time.perf_counter()
            self.inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                elapsed = time.perf_counter() - began
                self.spent[kind] += elapsed - self.inner.pop()
                if self.inner:
                    self.inner[-1] += elapsed
                self.n_steps += kind == "the rest"

        return wrapper

    def install(self) -> None:
        """Wrap everything that is counted."""
        for kind, places in KINDS.items():
            for owner, names in places:
                for name in set(names) & set(vars(owner)):
                    setattr(owner, name, self.timed(vars(owner)[name], kind))
        training.Trainer.step = self.timed(training.Trainer.step, "the rest")
        network.np = Products(self.timed(np.matmul, "products"))


class Products:
    """NumPy, with a timed `matmul`."""

    def __init__(self, matmul: Callable[..., Any]) -> None:
        self.matmul = matmul

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def profile(quick: bool) -> dict[str, dict[str, float]]:
    """Return microseconds of a step, by model and kind."""
    warnings.simplefilter("ignore")
    counts, found = Profile(), {}
    counts.install()
    for title, (width, n_rows, model) in MODELS.items():
        X = np.random.default_rng(0).random((n_rows, width), dtype=np.float32)
        model.set_params(max_iter=1).fit(X[: 2 * model.batch_size])
        counts.spent.clear()
        counts.n_steps = 0
        epochs = 1 if quick else max(4, 1_000_000 // X.size)
        model.set_params(max_iter=epochs).fit(X[:512] if quick else X)
        found[title] = {
            kind: 1e6 * seconds / counts.n_steps
            for kind, seconds in counts.spent.items()
        }
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """Return the times as a table."""
    kinds = ["products", *KINDS, "the rest"]
    text = f"| model | {' | '.join(kinds)} | sum |\n|---|"
    text += "---:|" * (len(kinds) + 1) + "\n"
    for title, spent in found.items():
        values = [spent.get(kind, 0.0) for kind in kinds]
        row = " | ".join(f"{value:.0f}" for value in [*values, sum(values)])
        text += f"| {title} | {row} |\n"
    return text


def main() -> None:
    """Run the profile from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only a few steps")
    quick = parser.parse_args().quick
    text = REPORT.format(numpy=np.__version__, table=table(profile(quick)))
    print(text)
    if not quick:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
