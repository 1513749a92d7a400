"""The stacked denoising autoencoder of the Theano tutorial, on MNIST.

The recipe of the tutorial: three layers of 1000 logistic units with tied weights,
pretrained level by level on rows of which 10, 20 and 30 % of the entries are masked, by
the cross-entropy; a softmax on top; fine-tuning of all layers, in which 10,000 of the
60,000 training digits decide when to stop. Published are 1.39 % wrong on these and
1.3 % on the 10,000 test digits, after 585 minutes of pretraining and 444 of fine-tuning
on one core of 2.66 GHz, in steps of one digit.

Batch size and schedule are ours; see `SETTINGS`. They were chosen by the validation
digits of another split. The same network without pretraining, with the same
fine-tuning, is beside it.

Usage::

    python doc/benchmarks/stacked_mnist.py --data PATH [--jobs 2]

PATH is an .npz file with `X_train`, `y_train`, `X_test` and `y_test`, 60000 and 10000
rows of 784 bytes, or a folder that holds it as ``mnist/mnist.npz``. Each fit runs in
one thread; with ``--jobs 2`` two fits run at a time. The result is printed and written
to stacked_mnist.md beside this script; with ``--quick``, which takes a minute, it is
only printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import fmean

import joblib
import numpy as np
from k_sparse import FILE, load
from threadpoolctl import threadpool_limits

from skae import StackedAutoencoderClassifier

SETTINGS = {
    "activation": "logistic",
    "tied_weights": True,
    "corruption_level": [0.1, 0.2, 0.3],
    "distribution": "bernoulli",
    "solver": "sgd",
    "momentum": 0.9,
    "batch_size": 50,
    "learning_rate": "cosine",
    "pretraining_max_iter": 15,
    "pretraining_learning_rate_init": 0.01,
    "learning_rate_init": 0.25,
    "max_iter": 40,
    "alpha": 0.0,
    "early_stopping": True,
    "validation_fraction": 1 / 6,
    "n_iter_no_change": np.inf,
}
PUBLISHED_MINUTES = 585.01 + 444.2
INTRO = """\
Made by

```
python doc/benchmarks/stacked_mnist.py {options}
```

(NumPy {numpy}, one thread for a fit, single precision). Errors are in per cent;
validation errors are those of the epoch that is kept. A fit without pretraining begins
with the same random weights. Published: 1.39 on validation, 1.3 on test digits, 1029
minutes.

| pretraining | seed | validation | test | epoch kept | minutes | of published |
|---|---:|---:|---:|---:|---:|---:|
"""


def fit(data, epochs, seed, changes):
    """Return a line of the table, and the test error."""
    X, y, X_test, y_test = data
    settings = SETTINGS | {"pretraining_max_iter": epochs} | changes
    model = StackedAutoencoderClassifier(
        1000, hidden_layer_sizes=(1000, 1000), random_state=seed, **settings
    )
    with threadpool_limits(1):
        start = time.perf_counter()
        model.fit(X, y)
        minutes = (time.perf_counter() - start) / 60
        wrong = 100 * (1 - model.score(X_test, y_test))
    best = 100 * (1 - model.best_validation_score_)
    kept = 1 + int(np.argmax(model.validation_scores_))
    share = minutes / PUBLISHED_MINUTES
    name = f"{epochs} epochs a level" if epochs else "none"
    line = f"| {name} | {seed} | {best:.2f} | {wrong:.2f} | {kept} | "
    line += f"{minutes:.1f} | {share:.3f} |\n"
    print(line, end="", file=sys.stderr, flush=True)
    return line, epochs, wrong


def main():
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help=f"{FILE.name}, or the folder above")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    parser.add_argument("--quick", action="store_true", help="a minute, to try it out")
    options = parser.parse_args()
    data = load(options.data)
    if data is None:
        print(f"Nothing to do: --data names no {FILE.name}.")
        return
    changes = {}
    if options.quick:
        X, y, X_test, y_test = data
        data = X[:3000], y[:3000], X_test[:1000], y_test[:1000]
        changes, options.seeds = {"max_iter": 2}, 1
    both = 1 if options.quick else SETTINGS["pretraining_max_iter"], 0
    runs = [(epochs, seed) for epochs in both for seed in range(options.seeds)]
    found = joblib.Parallel(n_jobs=options.jobs)(
        joblib.delayed(fit)(data, *run, changes) for run in runs
    )
    command = f"--data PATH --seeds {options.seeds}" + " --quick" * options.quick
    text = INTRO.format(options=command, numpy=np.__version__)
    text += "".join(line for line, _, _ in found) + "\nMean test error: "
    means = [fmean(e for _, n, e in found if n == epochs) for epochs in both]
    text += "{:.2f} with pretraining, {:.2f} without.\n".format(*means)
    print(text, end="")
    if not options.quick:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
