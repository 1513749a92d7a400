"""What each choice is worth in a deep autoencoder, on digits.

The network is that of Hinton and Salakhutdinov (2006), with layers of 1000, 500 and 250
units and a code of 30, on the digits of MNIST. Each line changes one parameter of
`BASE`, or two, trains on a part of the training digits, and prints the squared error of
a test image and of a training image, summed over pixels that go from 0 to 1.

Usage::

    python doc/benchmarks/choices.py --data PATH            # an hour
    python doc/benchmarks/choices.py --data PATH --quick    # some seconds a line

PATH is an .npz file with `X_train`, `y_train`, `X_test` and `y_test`, or a folder that
holds it as ``mnist/mnist.npz``. The result is printed and, unless in a hurry, written
to choices.md beside this script. Everything runs in one thread.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import k_sparse
import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from skae import DenoisingAutoencoder

BASE = {
    "hidden_layer_sizes": (1000, 500, 250),
    "activation": "relu",
    "distribution": "bernoulli",
    "corruption_level": 0.0,
    "tied_weights": False,
    "alpha": 0.0,
    "batch_size": 128,
    "learning_rate": "cosine",
    "learning_rate_init": 1e-3,
    "max_iter": 20,
    "standardize": False,
    "random_state": 0,
}
#: What is changed.
CHOICES = [
    {},
    {"distribution": "squared_error"},
    {"distribution": "squared_error", "learning_rate_init": 3e-3},
    {"activation": "tanh"},
    {"activation": "elu"},
    {"activation": "logistic", "learning_rate_init": 3e-3},
    {"alpha": 1e-2},
    {"alpha": 3e-2},
    {"tied_weights": True},
    {"tied_weights": True, "alpha": 1e-2},
    {"activation": "tanh", "alpha": 1e-2},
    {"activation": "elu", "alpha": 1e-2},
    {"corruption_level": 0.1},
    {"corruption": "gaussian", "corruption_level": 0.3},
    {"batch_size": 32},
    {"batch_size": 512},
    {"batch_size": 512, "learning_rate_init": 3e-3},
    {"learning_rate_init": 3e-4},
    {"max_iter": 5},
]
INTRO = """\
Made by

```
python doc/benchmarks/choices.py --data PATH --rows {n}
```

(NumPy {numpy}, one thread, single precision, one seed, {n} digits for training and
10000 for the test). The base: {base}. {pca:.2f} is what 30 principal components have on
test images.

| changed | test | training |
|---|---:|---:|
"""


def squared_error(model, X):
    """Return the mean over images of the sum of squared errors."""
    rebuilt = model.inverse_transform(model.transform(X))
    return float(np.square(rebuilt - X).sum(axis=1, dtype=float).mean())


def entry(changed, X, X_test, quick):
    """Return a line of the table."""
    hurry = {"max_iter": 1} if quick else {}
    model = DenoisingAutoencoder(30, **(BASE | changed | hurry)).fit(X)
    test, training = squared_error(model, X_test), squared_error(model, X)
    return f"| {listed(changed) or 'nothing'} | {test:.2f} | {training:.2f} |\n"


def listed(params):
    """Return parameters as text."""
    return ", ".join(f"`{name}={value!r}`" for name, value in params.items())


def main():
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="mnist.npz, or the folder above")
    parser.add_argument("--rows", type=int, default=10_000, help="for training")
    parser.add_argument("--quick", action="store_true", help="seconds, to try it out")
    options = parser.parse_args()
    data = k_sparse.load(options.data)
    if data is None:
        print("Nothing to do: --data names no mnist.npz.")
        return
    n = 1000 if options.quick else options.rows
    X, X_test = data[0][:n], data[2]
    pca = squared_error(PCA(30, random_state=0).fit(X), X_test)
    text = INTRO.format(numpy=np.__version__, n=n, base=listed(BASE), pca=pca)
    print(text, end="", flush=True)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for changed in CHOICES:
            line = entry(changed, X, X_test, options.quick)
            print(line, end="", flush=True)
            text += line
    if not options.quick:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
