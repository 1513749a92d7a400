"""Data larger than memory, chunk by chunk; and many threads at once."""

import os
import pickle
import subprocess
import sys
import textwrap
import threading
import tracemalloc

import joblib
import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from skae import (
    DenoisingAutoencoder,
    SparseAutoencoder,
    StackedAutoencoder,
    StackedAutoencoderClassifier,
    VariationalAutoencoder,
)

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.filterwarnings(
        "ignore::sklearn.exceptions.ConvergenceWarning",
        r"ignore:\d+ of \d+ units fire for no row:UserWarning",
        r"ignore:Posterior collapse\x3a none of the \d+ components says:UserWarning",
    ),
]

BRIEFLY = {"max_iter": 1, "random_state": 0}
KINDS = {
    "denoising": DenoisingAutoencoder(3, **BRIEFLY),
    "sparse": SparseAutoencoder(6, **BRIEFLY),
    "stacked": StackedAutoencoder(
        2, hidden_layer_sizes=(5,), pretraining_max_iter=1, **BRIEFLY
    ),
    "variational": VariationalAutoencoder(2, n_importance_samples=8, **BRIEFLY),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind, **params):
    return clone(KINDS[kind]).set_params(**params)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:400] / 16, y[:400]


@pytest.fixture(scope="module")
def X(digits):
    return digits[0][:, 10:22]


# --- a hard limit of what a process may allocate --------------------------------------

limited = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells memory from files that are mapped"
)

#: Bytes of rows in a file, and of what may be allocated for a fit beside the modules.
IN_FILE, ROOM = 2**26, 3 * 2**24

PREPARE = """
import resource, sys, warnings
import numpy as np
from scipy import sparse
from skae import DenoisingAutoencoder

warnings.simplefilter("ignore")
model = DenoisingAutoencoder(4, max_iter=1, batch_size=1024, random_state=0)
model.fit(np.random.default_rng(0).normal(size=(100, 64)).astype(np.float32))
np.ones((600, 600)) @ np.ones((600, 600))  # BLAS keeps the memory that it takes

def limit(room):
    status = open("/proc/self/status").read().splitlines()
    used = 1024 * int(next(s for s in status if s.startswith("VmData")).split()[1])
    resource.setrlimit(resource.RLIMIT_DATA, (used + room, used + room))

def refused(work, *args):
    try:
        work(*args)
    except MemoryError:
        return True
    return False

files = [np.load(path, mmap_mode="r") for path in sys.argv[2:]]
limit(int(sys.argv[1]))
"""

USE = """
assert refused(load, X), "the limit does not hold"
model.fit(X)
assert model.t_ == X.shape[0]
assert model.transform(X).shape == (X.shape[0], 4)
assert np.isfinite(model.score_samples(X)).all()
assert np.isfinite(model.reconstruction_error(X)).all()
"""


def run_limited(code, *arrays, folder):
    """Run code in a process whose memory is limited; it finds arrays in files."""
    paths = [folder / f"{i}.npy" for i in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    code = PREPARE + textwrap.dedent(code)
    command = [sys.executable, "-c", code, str(ROOM), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@limited
def test_memory_maps_may_be_larger_than_memory(tmp_path):
    n_rows = IN_FILE // (64 * 4)
    X = np.random.default_rng(0).standard_normal((n_rows, 64), dtype=np.float32)
    code = "X, load = files[0], np.array"
    run_limited(code + USE, X, folder=tmp_path)


@limited
def test_sparse_matrices_in_files_may_be_larger_than_memory(tmp_path):
    rng, n_rows = np.random.default_rng(0), IN_FILE // (64 * 8)
    X = rng.integers(1, 5, (n_rows, 64)).astype(np.float32)
    X = sparse.csr_array(X)
    code = """
    X = sparse.csr_array(tuple(files), shape=(len(files[2]) - 1, 64))
    load, model.distribution = sparse.csr_array.copy, "poisson"
    """
    parts = X.data, X.indices, X.indptr
    run_limited(textwrap.dedent(code) + USE, *parts, folder=tmp_path)


@limited
def test_chunks_of_integers_are_converted_one_by_one(tmp_path):
    X = np.random.default_rng(0).integers(0, 9, (IN_FILE // (64 * 8), 64), np.uint8)
    code = """
    X, whole = files[0], model.fit
    model.set_params(distribution="gaussian")
    assert refused(whole, X), "the limit does not hold"
    for start in range(0, len(X), 1024):
        model.partial_fit(X[start : start + 1024].astype(np.float32))
    assert model.t_ >= len(X)
    """
    run_limited(code, X, folder=tmp_path)


# --- memory for each row --------------------------------------------------------------

#: What a fit keeps for each row, in bytes, beside X and the weights that are given.
BYTES = {"": 24, "early stopping": 24, "in order": 16, "weights": 32}


def peak_memory(work, *args, **kwargs):
    """Return the largest memory that a call allocates at any time."""
    tracemalloc.start()
    try:
        work(*args, **kwargs)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def growth(measure, few=5_000, many=25_000):
    """Return by how much memory grows for each row, but for rounding."""
    measure(few)  # imports, and what is kept for good
    return np.floor((measure(many) - measure(few)) / (many - few))


def fit_memory(model, n_rows, way, container):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, 4)).astype(np.float32)
    params = {
        "early_stopping": way == "early stopping",
        "shuffle": way != "in order",
        "batch_size": 512,
        "distribution": "gaussian",
    }
    weight = rng.uniform(1, 2, n_rows) if way == "weights" else None
    model = clone(model).set_params(**params)
    return peak_memory(model.fit, container(X), sample_weight=weight)


@pytest.mark.parametrize("way", BYTES)
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_a_fit_keeps_few_bytes_for_each_row(container, way):
    model = KINDS["denoising"]
    found = growth(lambda n: fit_memory(model, n, way, container))
    assert found <= BYTES[way]


@pytest.mark.parametrize("kind", ["sparse", "variational"])
def test_all_kinds_keep_few_bytes_for_each_row(kind):
    found = growth(lambda n: fit_memory(KINDS[kind], n, "", np.asarray))
    assert found <= BYTES[""]


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize(
    ("method", "n_bytes"),
    [("transform", 12), ("score_samples", 5), ("reconstruction_error", 5)],
)
def test_answers_take_the_memory_of_the_answers(method, n_bytes, container):
    def ask(n):
        return peak_memory(getattr(model, method), container(X[:n]))

    X = np.random.default_rng(0).normal(size=(50_000, 4)).astype(np.float32)
    model = make("denoising").fit(X[:1000])
    assert growth(ask) <= n_bytes


def test_likelihoods_are_found_block_by_block():
    X = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
    model = make("variational").fit(X[:1000])
    found = growth(lambda n: peak_memory(model.score_samples, X[:n]), 1000, 5000)
    assert found <= 8


# --- chunk by chunk -------------------------------------------------------------------


def chunks(X, sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [X[rng.integers(0, len(X), size)] for size in sizes]


def state(model):
    """Return all numbers of a model that training changes."""
    memory = getattr(model, "_memory", None) or {}
    moments = memory.get("moments", {"arrays": np.empty(0)})["arrays"]
    return [model._theta, moments, np.asarray(model.loss_), model.t_]


def assert_same(model, other):
    for mine, yours in zip(state(model), state(other), strict=True):
        np.testing.assert_array_equal(mine, yours)


@every_kind
def test_one_row_is_enough_to_begin_with(kind, X):
    model = make(kind).partial_fit(X[:1])
    assert np.isfinite(model.transform(X)).all()
    for row in X[1:20]:
        model.partial_fit(row[None])
    assert model.t_ == 20
    assert np.isfinite(model.score_samples(X)).all()


@every_kind
def test_a_stream_can_be_saved_and_resumed_at_any_chunk(kind, X):
    parts = chunks(X, [50, 1, 2, 7, 100, 1, 31])
    model = make(kind).partial_fit(parts[0])
    resumed = model
    for part in parts[1:]:
        resumed = pickle.loads(pickle.dumps(resumed)).partial_fit(part)
    for part in parts[1:]:
        model.partial_fit(part)
    assert_same(resumed, model)


@every_kind
def test_the_optimiser_remembers_the_chunks_before(kind, X):
    first, second = chunks(X, [64, 64])
    model = make(kind).partial_fit(first)
    forgetful = pickle.loads(pickle.dumps(model))
    arrays = forgetful._memory["moments"]["arrays"]
    assert arrays.any()
    arrays[...] = 0.0
    theta = model.partial_fit(second)._theta
    assert (forgetful.partial_fit(second)._theta != theta).any()


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("sizes", [[16] * 8, [64, 32, 16, 16]])
def test_it_does_not_matter_where_a_stream_is_cut(sizes, solver, X):
    settings = {"batch_size": 16, "shuffle": False, "standardize": False}
    settings |= {"distribution": "squared_error", "solver": solver}
    settings |= {"corruption_level": 0.0}
    whole, parts = (make("denoising", **settings).partial_fit(X[:32]) for _ in "ab")
    whole.partial_fit(X[32:160])
    for place in np.split(np.arange(32, 160), np.cumsum(sizes)[:-1]):
        parts.partial_fit(X[place])
    # Adam scales its averages anew after each chunk, which rounds them.
    np.testing.assert_allclose(parts._theta, whole._theta, rtol=1e-12)


@every_kind
def test_the_loss_falls_from_chunk_to_chunk(kind, X):
    sizes = np.random.default_rng(1).integers(1, 60, 90)
    model = make(kind, learning_rate_init=0.01)
    for part in chunks(X, sizes):
        model.partial_fit(part)
    curve = model.loss_curve_
    curve = curve if isinstance(curve, list) else curve["fine-tuning"]
    assert np.mean(curve[-20:]) < np.mean(curve[2:10])


# --- many threads ---------------------------------------------------------------------

WIDE = {"max_iter": 2, "batch_size": 64, "random_state": 0}
WIDE_KINDS = {
    "denoising": DenoisingAutoencoder(48, **WIDE),
    "early stopping": DenoisingAutoencoder(48, early_stopping=True, **WIDE),
    "sparse": SparseAutoencoder(64, revival="auxiliary", **WIDE),
    "stacked": StackedAutoencoder(
        8, hidden_layer_sizes=(48,), pretraining_max_iter=1, **WIDE
    ),
    "classifier": StackedAutoencoderClassifier(
        8, hidden_layer_sizes=(48,), pretraining_max_iter=1, **WIDE
    ),
    "variational": VariationalAutoencoder(4, hidden_layer_sizes=(48,), **WIDE),
}


@pytest.fixture(params=[1, 2], ids=["one BLAS thread", "two BLAS threads"])
def n_blas(request, monkeypatch):
    """Allow products so many threads; let a crew share whatever can be shared."""
    monkeypatch.setattr("skae._validation.cpu_count", lambda: 2)
    monkeypatch.setattr("skae.estimators._trained.LEAST_WORK", 1)
    monkeypatch.setattr("skae.model.FEWEST_PRODUCTS", 1)
    with threadpool_limits(request.param, user_api="blas"):
        yield request.param


def at_once(work, tasks):
    """Do work for each task in a thread of its own, all at the same time."""
    found, meet = {}, threading.Barrier(len(tasks))

    def run(i):
        meet.wait()
        found[i] = work(tasks[i])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[i] for i in range(len(tasks))]


@pytest.fixture
def alone(digits, n_blas):
    """All kinds, each fitted while nothing else happens."""
    return {name: clone(model).fit(*digits) for name, model in WIDE_KINDS.items()}


def test_fits_in_several_threads_do_not_disturb_each_other(alone, digits):
    names = list(WIDE_KINDS)
    for shift in (0, 1):  # the same and different kinds side by side
        tasks = [names[i // 2] if shift else names[i] for i in range(len(names))]
        fitted = at_once(lambda name: clone(WIDE_KINDS[name]).fit(*digits), tasks)
        for name, model in zip(tasks, fitted, strict=True):
            assert_same(model, alone[name])


def test_fits_in_threads_of_joblib_are_those_of_a_single_thread(alone, digits):
    parallel = joblib.Parallel(n_jobs=2, backend="threading")
    fits = (joblib.delayed(clone(model).fit)(*digits) for model in WIDE_KINDS.values())
    for name, model in zip(WIDE_KINDS, parallel(fits), strict=True):
        assert_same(model, alone[name])


def test_chunks_in_several_threads_do_not_disturb_each_other(n_blas, digits):
    names = ["denoising", "sparse", "stacked", "variational"]

    def stream(name):
        model = clone(WIDE_KINDS[name])
        for part in chunks(digits[0], [64, 1, 100, 7]):
            model.partial_fit(part)
        return model

    expected = [stream(name) for name in names]
    for model, other in zip(at_once(stream, names), expected, strict=True):
        assert_same(model, other)


def answers(model, rows):
    """Return everything that a model says of rows."""
    found = [model.transform(rows)]
    for method in ("score_samples", "reconstruction_error", "predict"):
        if hasattr(model, method):
            found.append(getattr(model, method)(rows))
    return found


def assert_equal_answers(found, expected):
    for mine, yours in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, yours)


THREADED = """
import threading, warnings
import numpy as np
from sklearn.datasets import load_digits
from skae import DenoisingAutoencoder, _validation
from skae.estimators import _base

warnings.simplefilter("ignore")
_validation.cpu_count, _base.LEAST_WORK = lambda: 2, 1
X = load_digits(return_X_y=True)[0][:400] / 16

def fit(found):
    model = DenoisingAutoencoder(300, max_iter=2, batch_size=64, random_state=0)
    found.append(model.fit(X)._theta)

found = []
fit(found)
threads = [threading.Thread(target=fit, args=(found,)) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 5
assert all((theta == found[0]).all() for theta in found)
"""


@pytest.mark.parametrize("n_threads", ["1", "2"])
def test_wide_fits_in_threads_do_not_disturb_each_other(n_threads):
    # A limit of the main thread would keep OpenBLAS from those of other threads.
    names = ["OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"]
    environment = os.environ | dict.fromkeys(names, n_threads)
    command = [sys.executable, "-c", THREADED]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


#: Networks that are wide enough for their answers to be shared by a crew, too.
USED = WIDE_KINDS | {"wide": DenoisingAutoencoder(300, **WIDE)}


@pytest.mark.parametrize("name", USED)
def test_many_threads_can_use_one_model(name, digits, n_blas):
    rows, model = digits[0][:200], clone(USED[name]).fit(*digits)
    expected, before = answers(model, rows), pickle.dumps(model)
    for found in at_once(lambda model: answers(model, rows), [model] * 8):
        assert_equal_answers(found, expected)
    assert pickle.dumps(model) == before


def test_answers_are_the_same_while_others_are_fitted(alone, digits):
    def work(task):
        name, fits = task
        if fits:
            return clone(WIDE_KINDS[name]).fit(*digits)
        return answers(alone[name], digits[0])

    expected = {name: answers(model, digits[0]) for name, model in alone.items()}
    tasks = [(name, fits) for name in WIDE_KINDS for fits in (True, False)]
    for (name, fits), found in zip(tasks, at_once(work, tasks), strict=True):
        if fits:
            assert_same(found, alone[name])
        else:
            assert_equal_answers(found, expected[name])
