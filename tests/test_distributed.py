"""Fits and searches on a real cluster of two worker processes."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import tracemalloc

import joblib
import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV

import skae.distributed
from skae import (
    DenoisingAutoencoder,
    SparseAutoencoder,
    StackedAutoencoder,
    VariationalAutoencoder,
)
from skae.checkpoints import Checkpoint
from skae.distributed import fit_distributed
from skae.rows import Rows

dask = pytest.importorskip("dask", reason="the extra 'dask' is not installed")
da = pytest.importorskip("dask.array", reason="the extra 'dask' is not installed")
distributed = pytest.importorskip(
    "distributed", reason="the extra 'dask' is not installed"
)

pytestmark = pytest.mark.thorough

#: Chunks of unequal lengths, one of them without rows.
CHUNKS = (700, 0, 500, 597)

SHORT = {"n_iter_no_change": np.inf, "random_state": 0, "batch_size": 500}
CERTAIN = {"corruption_level": 0, "max_iter": 5, **SHORT}


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def rows(digits):
    return da.from_array(digits, chunks=(CHUNKS, 40))


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    return load_digits().data


def per_epoch(monkeypatch, look):
    """Call ``look(trainer, epoch)`` before each epoch of a denoising autoencoder."""
    change = DenoisingAutoencoder._change

    def also(self, trainer, epoch):
        look(trainer, epoch)
        change(self, trainer, epoch)

    monkeypatch.setattr(DenoisingAutoencoder, "_change", also)


# --- the model is that of fit ---------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        DenoisingAutoencoder(8, hidden_layer_sizes=(20,), alpha=0.01, **CERTAIN),
        DenoisingAutoencoder(8, distribution="poisson", tied_weights=True, **CERTAIN),
        DenoisingAutoencoder(8, shuffle=False, **CERTAIN),
        DenoisingAutoencoder(8, early_stopping=True, solver="sgd", **CERTAIN),
        DenoisingAutoencoder(8, **{**CERTAIN, "batch_size": 1797}, solver="sgd"),
        DenoisingAutoencoder(8, **{**CERTAIN, "batch_size": "auto", "max_iter": 1}),
        SparseAutoencoder(30, k=4, dead_after=0.5, max_iter=5, **SHORT),
        SparseAutoencoder(
            30,
            penalty="jumprelu",
            decoder_bias_init="geometric_median",
            max_iter=5,
            **SHORT,
        ),
        SparseAutoencoder(
            30, k=4, revival="auxiliary", dead_after=0.2, max_iter=5, **SHORT
        ),
    ],
    ids=lambda model: repr(model)[:60],
)
def test_same_as_fit(client, rows, digits, model):
    here = clone(model).fit(digits)
    there = fit_distributed(clone(model), rows)
    np.testing.assert_allclose(there.loss_curve_, here.loss_curve_, rtol=1e-12)
    np.testing.assert_allclose(there._theta, here._theta, atol=1e-11)
    assert (there.validation_scores_ is None) == (not model.early_stopping)
    if model.early_stopping:
        np.testing.assert_allclose(there.validation_scores_, here.validation_scores_)
    assert there.score(digits) == pytest.approx(here.score(digits), rel=1e-12)
    assert there.t_ == here.t_
    if isinstance(model, SparseAutoencoder):
        np.testing.assert_allclose(there.density_, here.density_)


@pytest.mark.parametrize("revival", ["auxiliary", "resampling"])
def test_dead_units_are_looked_after(client, rows, digits, revival):
    """How often units fire comes back with the gradient."""
    model = SparseAutoencoder(60, k=1, revival=revival, dead_after=0.5, solver="sgd")
    model.set_params(learning_rate_init=1e-3, max_iter=6, **SHORT)
    here, there = clone(model).fit(digits), clone(model)
    fit_distributed(there, rows)
    untouched = fit_distributed(clone(model).set_params(revival=None), rows)
    assert untouched.n_dead_ > 0
    assert not np.allclose(untouched._theta, there._theta)
    np.testing.assert_allclose(there._theta, here._theta, atol=1e-9)
    np.testing.assert_array_equal(there.density_, here.density_)


def test_sums_have_levels(client, digits):
    """Seventeen chunks are added in three levels of four."""
    X = da.from_array(digits, chunks=(107, 64))
    assert X.numblocks[0] == 17
    model = DenoisingAutoencoder(8, **{**CERTAIN, "batch_size": 1797}, solver="sgd")
    there, here = fit_distributed(clone(model), X), clone(model).fit(digits)
    np.testing.assert_allclose(there._theta, here._theta, atol=1e-11)


def test_every_part_of_every_step_has_draws_of_its_own(client, rows, monkeypatch):
    seeds, combined = [], skae.distributed.Chunks.combined

    def spy(self, function, parts, combine):
        if getattr(function, "func", None) is skae.distributed.found:
            seeds.extend(part[-1] for part in parts)
        return combined(self, function, parts, combine)

    monkeypatch.setattr(skae.distributed.Chunks, "combined", spy)
    model = DenoisingAutoencoder(8, corruption_level=0.3, max_iter=2, **SHORT)
    fit_distributed(model, rows)
    assert len(seeds) == 2 * 4 * 3
    assert len(set(seeds)) == len(seeds)


def test_same_as_fit_by_lbfgs(client, rows, digits):
    model = DenoisingAutoencoder(4, solver="lbfgs", corruption_level=0, max_iter=5)
    model.set_params(random_state=0, n_iter_no_change=np.inf, tol=0)
    with pytest.warns(match="L-BFGS stopped") as warned:
        fit_distributed(model, rows)
    assert warned[0].filename == __file__
    with pytest.warns(match="L-BFGS stopped"):
        here = clone(model).fit(digits)
    np.testing.assert_allclose(model.loss_curve_, here.loss_curve_, rtol=1e-9)


def test_single_precision_stays(client, rows, digits):
    model = DenoisingAutoencoder(8, **CERTAIN)
    fit_distributed(model, rows.astype(np.float32))
    here = clone(model).fit(digits.astype(np.float32))
    assert model._theta.dtype == np.float32
    np.testing.assert_allclose(model.loss_curve_, here.loss_curve_, rtol=1e-4)


def test_whole_numbers_become_double(client, digits):
    whole = da.from_array(digits.astype(np.int8), chunks=(600, 64))
    model = fit_distributed(DenoisingAutoencoder(8, **CERTAIN), whole)
    here = DenoisingAutoencoder(8, **CERTAIN).fit(digits.astype(np.int8))
    np.testing.assert_allclose(model._theta, here._theta, atol=1e-11)


def test_sparse_chunks(client, digits):
    X = da.from_array(digits, chunks=(600, 64)).map_blocks(sparse.csr_matrix)
    model = SparseAutoencoder(30, k=4, dead_after=0.5, max_iter=3, **SHORT)
    here, there = clone(model).fit(sparse.csr_matrix(digits)), fit_distributed(model, X)
    np.testing.assert_allclose(there._theta, here._theta, atol=1e-11)


@pytest.mark.parametrize("kind", [np.asarray, da.from_array])
def test_sample_weight(client, rows, digits, kind):
    weight = np.random.default_rng(0).integers(0, 3, len(digits)).astype(float)
    weight[700:1200] = 0.0
    model = DenoisingAutoencoder(8, **CERTAIN).fit(digits, sample_weight=weight)
    there = fit_distributed(clone(model), rows, sample_weight=kind(weight))
    np.testing.assert_allclose(there.loss_curve_, model.loss_curve_, rtol=1e-12)
    np.testing.assert_allclose(there._theta, model._theta, atol=1e-11)
    assert there.t_ == model.t_


def test_warm_start(client, rows, digits):
    here = DenoisingAutoencoder(8, warm_start=True, **CERTAIN)
    here.fit(digits.astype(np.float32))
    there = pickle.loads(pickle.dumps(here))
    here.fit(digits.astype(np.float32))
    fit_distributed(there, rows)  # in the precision of what was there
    assert there._theta.dtype == np.float32
    assert len(there.loss_curve_) == 10
    np.testing.assert_allclose(there.loss_curve_, here.loss_curve_, rtol=1e-4)


def test_the_order_of_rows_changes_nothing(client, digits):
    order = np.random.default_rng(0).permutation(len(digits))
    model = DenoisingAutoencoder(8, **CERTAIN)
    fits = [
        fit_distributed(clone(model), da.from_array(X, chunks=(900, 64)))
        for X in (digits, digits[order])
    ]
    np.testing.assert_allclose(fits[0]._theta, fits[1]._theta, atol=1e-11)


# --- random objectives ----------------------------------------------------------------


def test_corruption(client, rows, digits):
    """Draws differ from those of `fit`, by no more than those of two seeds."""
    model = DenoisingAutoencoder(8, corruption_level=0.3, max_iter=15, **SHORT)
    train, test = digits[::2], digits[1::2]
    here = [clone(model).set_params(random_state=i).fit(train) for i in range(4)]
    scores = [each.score(test) for each in here]
    there = fit_distributed(model, rows[::2])
    spread = max(scores) - min(scores)
    assert min(scores) - spread < there.score(test) < max(scores) + spread
    assert there.score(test) == pytest.approx(np.mean(scores), rel=0.02)


@pytest.mark.parametrize("objective", ["elbo", "iwae"])
def test_variational(client, rows, digits, objective):
    """The weights at first are those of `fit`, the draws are others."""
    model = VariationalAutoencoder(4, objective=objective, n_samples=2, max_iter=8)
    model.set_params(
        early_stopping=True, beta_warm_up=3, **{**SHORT, "batch_size": 900}
    )
    here, there = clone(model).fit(digits), fit_distributed(model, rows)
    assert there.n_active_components_ == here.n_active_components_
    assert there.score(digits) == pytest.approx(here.score(digits), rel=0.01)
    kl, _ = there._model().activity(there._model().rows(digits))
    np.testing.assert_allclose(there.kl_per_component_, kl, rtol=1e-10)


# --- what the cluster does ------------------------------------------------------------


def test_no_worker_holds_all_rows(client, digits, monkeypatch):
    X = da.from_array(np.tile(digits, (20, 1)), chunks=(9000, 64))
    held = []

    def look(trainer, epoch):
        futures = trainer.rows.X.futures
        places = client.who_has(futures)
        for worker in client.scheduler_info()["workers"]:
            held.append(sum(worker in places[future.key] for future in futures))

    per_epoch(monkeypatch, look)
    model = DenoisingAutoencoder(8, **{**CERTAIN, "batch_size": 8192, "max_iter": 3})
    fit_distributed(model, X)
    assert len(held) == 6
    assert all(0 < n < X.numblocks[0] for n in held)


def test_a_lost_worker_changes_nothing(client, rows, monkeypatch):
    model = DenoisingAutoencoder(8, corruption_level=0.3, max_iter=5, **SHORT)
    undisturbed = fit_distributed(clone(model), rows)
    killed = []

    def kill(trainer, epoch):
        if epoch == 3:
            future = trainer.rows.X.futures[0]
            address = client.who_has([future])[future.key][0]
            killed.append(client.run(os.getpid, workers=[address])[address])
            os.kill(killed[0], signal.SIGKILL)

    per_epoch(monkeypatch, kill)
    fit_distributed(model, rows)
    assert len(killed) == 1
    client.wait_for_workers(2, timeout=60)
    assert killed[0] not in client.run(os.getpid).values()
    assert model.loss_curve_ == undisturbed.loss_curve_
    np.testing.assert_array_equal(model._theta, undisturbed._theta)


def test_a_worker_may_be_lost_in_the_midst_of_a_step(client, digits, monkeypatch):
    X = da.from_array(digits, chunks=(180, 64))
    model = DenoisingAutoencoder(8, corruption_level=0.3, max_iter=3, **SHORT)
    undisturbed = fit_distributed(clone(model), X)
    steps, tasks = [], skae.distributed.Chunks.tasks

    def kill(self, function, parts):
        made = tasks(self, function, parts)
        if getattr(function, "func", None) is skae.distributed.found:
            steps.append(1)
            if len(steps) == 6:
                victim = next(iter(client.run(os.getpid).values()))
                threading.Timer(0.02, os.kill, (victim, signal.SIGKILL)).start()
        return made

    monkeypatch.setattr(skae.distributed.Chunks, "tasks", kill)
    fit_distributed(model, X)
    client.wait_for_workers(2, timeout=60)
    assert len(steps) >= 12
    np.testing.assert_array_equal(model._theta, undisturbed._theta)


CONTROL_C = """
import dask.array as da, numpy as np, signal
from distributed import Client, LocalCluster
from skae import DenoisingAutoencoder
from skae.distributed import fit_distributed

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    X = da.from_array(np.random.default_rng(0).normal(size=(2000, 5)), chunks=(500, 5))
    model = DenoisingAutoencoder(2, verbose=True, max_iter=10**6, tol=0, batch_size=500)
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster):
        try:
            fit_distributed(model.set_params(n_iter_no_change=np.inf), X)
        except KeyboardInterrupt:
            print("interrupted", hasattr(model, "_theta"), flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has groups of processes")
def test_control_c_reaches_workers_too_and_ends_the_fit(tmp_path):
    (tmp_path / "it.py").write_text(CONTROL_C)
    with subprocess.Popen(
        [sys.executable, "-u", str(tmp_path / "it.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        limit = threading.Timer(90, os.killpg, (process.pid, signal.SIGKILL))
        limit.start()
        assert process.stdout.readline().startswith("Epoch 1, loss")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        lines = iter(process.stdout.readline, "")
        assert "interrupted False\n" in lines
        limit.cancel()
        os.killpg(process.pid, signal.SIGKILL)  # what is left of the cluster


def test_the_caller_keeps_few_bytes_for_each_row(client):
    def peak(n_rows):
        X = da.zeros((n_rows, 2), chunks=(n_rows // 4, 2)) + np.arange(n_rows)[:, None]
        model = DenoisingAutoencoder(1, **{**CERTAIN, "max_iter": 1})
        model.set_params(batch_size=n_rows // 10)
        tracemalloc.start()
        fit_distributed(model, X)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(1000)  # loads the last modules
    assert (peak(120_000) - peak(20_000)) / 100_000 < 100


def test_nothing_stays_with_the_workers(client, rows):
    def held(dask_scheduler):
        return {str(key) for key in dask_scheduler.tasks}

    before = client.run_on_scheduler(held)
    model = fit_distributed(DenoisingAutoencoder(8, **CERTAIN), rows, client=client)
    for _ in range(200):
        left = client.run_on_scheduler(held) - before
        if not left:
            break
        time.sleep(0.05)
    assert not left
    assert pickle.loads(pickle.dumps(model)).loss_ == model.loss_


# --- errors ---------------------------------------------------------------------------


def spoiled(digits, row, column, value):
    X = digits.copy()
    X[row, column] = value
    return da.from_array(X, chunks=(600, 64))


@pytest.mark.parametrize(
    ("changes", "X", "error", "message"),
    [
        (
            {},
            np.ones((3, 2)),
            TypeError,
            "X must be a dask array, got ndarray: use fit",
        ),
        ({}, da.ones(3), ValueError, r"Expected a 2D array, got X of shape \(3,\)"),
        ({}, da.ones((0, 3)), ValueError, r"X of shape \(0, 3\) has no entries"),
        ({}, da.ones((3, 3), dtype="c16"), ValueError, "must hold real numbers"),
        ({}, da.ones((9, 3))[da.ones(9) > 0], ValueError, "compute_chunk_sizes"),
        ({"max_iter": 0}, da.ones((9, 3)), ValueError, "'max_iter' parameter"),
        ({"corruption": 5}, da.ones((9, 3)), ValueError, "'corruption' parameter"),
        ({"distribution": "auto"}, da.ones((9, 3)), ValueError, "its distribution_"),
        ({"corruption": "swap"}, da.ones((9, 3)), ValueError, "corruption='swap'"),
        (
            {"distribution": [("gaussian", ["a"]), ("poisson", ["b"])]},
            da.ones((9, 2)),
            ValueError,
            "X has no column names",
        ),
        (
            {"solver": "lbfgs", "corruption_level": 0.1},
            da.ones((9, 2)),
            ValueError,
            "set corruption_level=0",
        ),
        (
            {"early_stopping": True},
            da.ones((1, 2)),
            ValueError,
            "leaves no row to train on",
        ),
    ],
)
def test_errors(client, changes, X, error, message):
    model = DenoisingAutoencoder(2).set_params(**changes)
    before = dict(vars(model))
    with pytest.raises(error, match=message):
        fit_distributed(model, X)
    assert vars(model) == before


def test_errors_name_the_column(client, digits):
    model = DenoisingAutoencoder(8, distribution="poisson", **CERTAIN)
    fit_distributed(model, spoiled(digits, 0, 0, 0.0))
    before = dict(vars(model))
    with pytest.raises(ValueError, match="Column 5 of X holds nan in row 1700"):
        fit_distributed(model, spoiled(digits, 1700, 5, np.nan))
    with pytest.raises(ValueError, match="Column 5 of X holds inf in row 3"):
        fit_distributed(model, spoiled(digits, 3, 5, np.inf))
    message = "(?s)olumn 7 holds -1, but distribution='poisson'.*rows 600 to 1199 of X"
    with pytest.raises(ValueError, match=message):
        fit_distributed(model, spoiled(digits, 700, 7, -1.0))
    with pytest.raises(ValueError, match="Column 7 ranges from 0 to 1e"):
        fit_distributed(model, spoiled(digits, 700, 7, 1e300))
    assert vars(model) == before


def test_chunks_have_the_lengths_that_they_declare(client, rows):
    X = rows.map_blocks(lambda block: block[1:], dtype=rows.dtype)
    with pytest.raises(
        ValueError, match=r"has \d+ rows, but its place is that of rows"
    ):
        fit_distributed(DenoisingAutoencoder(2), X)


def test_weights_are_checked(client, rows):
    model = DenoisingAutoencoder(2)
    with pytest.raises(ValueError, match=r"sample_weight\.shape"):
        fit_distributed(model, rows, sample_weight=np.ones(3))
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        fit_distributed(model, rows, sample_weight=-da.ones(1797))


def test_divergence_is_explained(client, rows):
    model = DenoisingAutoencoder(8, learning_rate_init=1e150, solver="sgd", **CERTAIN)
    with pytest.raises(ValueError, match="reduce learning_rate_init"):
        fit_distributed(model, rows)
    assert not hasattr(model, "coefs_")


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (StackedAutoencoder([4, 2]), TypeError, "got StackedAutoencoder. Fit a stack"),
        (SparseAutoencoder(4, penalty="batchtopk"), ValueError, "penalty='topk', or"),
        (SparseAutoencoder(4, penalty="kl"), ValueError, "in one place"),
    ],
)
def test_what_needs_all_rows_is_refused(client, rows, model, error, message):
    with pytest.raises(error, match=message):
        fit_distributed(model, rows)


def test_a_client_is_needed(rows, monkeypatch):
    def none(*args, **kwargs):
        raise ValueError("No global client found")

    monkeypatch.setattr(distributed, "get_client", none)
    with pytest.raises(ValueError, match="create a distributed"):
        fit_distributed(DenoisingAutoencoder(2), rows)


def test_dask_is_needed(rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with pytest.raises(ImportError, match=r"pip install 'skae\[dask\]'"):
        fit_distributed(DenoisingAutoencoder(2), rows)


# --- parts ----------------------------------------------------------------------------


def test_chunked_rows_are_rows(client, rows, digits):
    weight = np.arange(len(digits)) % 3 + 0.5
    index = np.random.default_rng(1).permutation(len(digits))[:1500]
    center, unit = digits.mean(axis=0), digits.std(axis=0) + 1.0
    data, _ = skae.distributed.spread(rows, weight, client)
    there = data.as_rows(index, weight, center, unit)
    here = Rows(digits, index, weight, center, unit)
    found = []
    for some in (there, here):
        x, w = np.empty((200, 64)), np.empty(200)
        some.load(index[:200], x, w, some.mean_weight)
        found.append((x, w))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert len(there) == len(here) == 1500
    assert there.summed(len) == here.summed(len) == 1500


def test_keys_are_those_of_arrange(client, rows, digits):
    weight = np.random.default_rng(0).integers(0, 3, len(digits)).astype(float)
    for given in (None, weight):
        data, _ = skae.distributed.spread(rows, given, client)
        found = skae.distributed.arranged(data, given, data.columns(), False)
        expected, _ = skae.rows.arrange(digits, given)
        np.testing.assert_array_equal(found, expected)


# --- searches -------------------------------------------------------------------------

GRID = {"n_components": [2, 6], "alpha": [1e-4, 1e-2]}


def test_grid_search_over_dask(client, digits):
    search = GridSearchCV(DenoisingAutoencoder(max_iter=3, **SHORT), GRID, cv=2)
    here = clone(search).fit(digits)
    with joblib.parallel_config("dask"):
        there = clone(search).fit(digits)
    for key in ("mean_test_score", "std_test_score", "rank_test_score"):
        np.testing.assert_array_equal(there.cv_results_[key], here.cv_results_[key])
    np.testing.assert_array_equal(
        there.best_estimator_._theta, here.best_estimator_._theta
    )


def test_halving_with_epochs_as_the_resource(client, digits):
    """A fit that is given few epochs says nothing of them if it has no patience."""
    search = HalvingGridSearchCV(
        DenoisingAutoencoder(**SHORT),
        GRID,
        resource="max_iter",
        min_resources=2,
        max_resources=8,
        factor=2,
        cv=2,
        random_state=0,
    )
    here = clone(search).fit(digits)
    with joblib.parallel_config("dask"):
        there = clone(search).fit(digits)
    assert here.n_resources_ == there.n_resources_ == [2, 4, 8]
    assert here.best_estimator_.n_iter_ == 8
    for key in ("mean_test_score", "iter", "n_resources"):
        np.testing.assert_array_equal(there.cv_results_[key], here.cv_results_[key])


# --- inference ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inference_by_blocks(client, rows, digits, dtype):
    X, model = rows.astype(dtype).rechunk({1: -1}), DenoisingAutoencoder(8, **CERTAIN)
    model.fit(digits)
    X = X.partitions[[0, 2, 3]]  # the chunk without rows has no codes
    codes = X.map_blocks(model.transform, dtype=dtype, chunks=(X.chunks[0], 8))
    scores = X.map_blocks(model.score_samples, drop_axis=1, dtype=dtype)
    known = digits.astype(dtype)
    assert codes.shape == (1797, 8)
    assert scores.shape == (1797,)
    assert codes.compute().dtype == scores.compute().dtype == dtype
    np.testing.assert_array_equal(codes.compute(), model.transform(known))
    np.testing.assert_array_equal(scores.compute(), model.score_samples(known))
    back = codes.map_blocks(model.inverse_transform, dtype=dtype, chunks=X.chunks)
    np.testing.assert_array_equal(
        back.compute(), model.inverse_transform(model.transform(known))
    )


def test_scores_of_a_marginal_by_blocks(client, digits):
    model = VariationalAutoencoder(2, max_iter=2, **SHORT).fit(digits)
    X = da.from_array(digits[:300], chunks=(77, 64))
    scores = X.map_blocks(model.score_samples, drop_axis=1, dtype=float).compute()
    np.testing.assert_array_equal(scores, model.score_samples(digits[:300]))


# --- what goes on around a fit --------------------------------------------------------


def test_a_fit_goes_on_from_its_checkpoint(client, rows, tmp_path, monkeypatch):
    params = {**CERTAIN, "corruption_level": 0.2, "max_iter": 4}
    plain = fit_distributed(DenoisingAutoencoder(8, **params), rows)
    checkpoint = Checkpoint(tmp_path / "it.ckpt", n_minutes=1e-9)
    model = DenoisingAutoencoder(8, checkpoint=checkpoint, **params)

    def crash(trainer, epoch):
        if epoch == 3:
            raise RuntimeError("a crash")

    with monkeypatch.context() as patched:
        per_epoch(patched, crash)
        with pytest.raises(RuntimeError, match="a crash"):
            fit_distributed(clone(model), rows)
    again = fit_distributed(clone(model), rows)
    np.testing.assert_array_equal(again._theta, plain._theta)
    assert again.loss_curve_ == plain.loss_curve_
    with pytest.raises(ValueError, match="another fit: X differed"):
        fit_distributed(clone(model), rows + 1)


def test_callbacks_see_the_epochs(client, rows):
    pytest.importorskip("sklearn.callback", reason="scikit-learn has none before 1.9")
    calls = []

    class Counter:
        def setup(self, estimator, context):
            calls.append("setup")

        def teardown(self, estimator, context):
            calls.append("teardown")

        def on_fit_task_begin(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context):
            calls.append(context.task_name)
            return len(calls) == 3

    model = DenoisingAutoencoder(8, **{**CERTAIN, "max_iter": 9})
    fit_distributed(model.set_callbacks(Counter()), rows)
    assert calls == ["setup", "epoch", "epoch", "fit", "teardown"]
    assert model.n_iter_ == 2
