import pickle
import tracemalloc

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skae import SparseAutoencoder
from skae.activations import ACTIVATIONS
from skae.penalties import (
    PENALTIES,
    BatchTopK,
    JumpReLU,
    KLDivergence,
    TopK,
)
from skae.training import Trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning",
    r"ignore:\d+ of \d+ units fire for no row:UserWarning",
    "ignore:penalty=.* takes the mean activation over batches:UserWarning",
)
every = pytest.mark.parametrize("penalty", PENALTIES)


@pytest.fixture(scope="module")
def X():
    return load_digits().data[:400]


def fit(X, n_components=20, **settings):
    settings = {"max_iter": 20, "random_state": 0} | settings
    sample_weight = settings.pop("sample_weight", None)
    model = SparseAutoencoder(n_components, **settings)
    return model.fit(X, sample_weight=sample_weight)


def squared_error(model, X):
    return np.mean(np.square(X - model.inverse_transform(model.transform(X))))


def planted(n_rows=4000, n_atoms=32, n_features=24, seed=0):
    """Draw rows that are made of two out of several directions each."""
    rng = np.random.default_rng(seed)
    atoms = rng.standard_normal((n_atoms, n_features))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = np.zeros((n_rows, n_atoms))
    for row in codes:
        row[rng.choice(n_atoms, 2, replace=False)] = rng.uniform(1, 2, 2)
    return codes @ atoms + 0.01 * rng.standard_normal((n_rows, n_features)), atoms


def cosines(model, atoms):
    """Return how near the nearest direction is to each atom."""
    found = model.components_
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    return np.max(atoms @ found.T, axis=1)


# --- what is learnt -------------------------------------------------------------------


@pytest.mark.parametrize("penalty", ["batchtopk", "l1", "topk"])
def test_a_planted_dictionary_is_recovered(penalty):
    X, atoms = planted()
    settings = {"penalty": penalty, "k": 2, "standardize": False}
    settings["sparsity_weight"] = 0.1
    start = fit(X, 48, **settings, max_iter=1)
    model = fit(X, 48, **settings, max_iter=100)
    assert cosines(start, atoms).mean() < 0.8
    assert cosines(model, atoms).mean() > 0.95


@every
def test_training_lessens_the_error(penalty, X):
    early = fit(X, penalty=penalty, max_iter=1)
    late = fit(X, penalty=penalty, max_iter=60)
    assert late.loss_ < early.loss_
    assert squared_error(late, X) < 0.9 * squared_error(early, X)


@pytest.mark.parametrize("penalty", ["gated", "hoyer", "jumprelu", "l1"])
def test_a_larger_weight_makes_codes_sparser(penalty, X):
    settings = {"penalty": penalty, "revival": None, "max_iter": 60}
    dense = fit(X, sparsity_weight=0.05, **settings)
    thin = fit(X, sparsity_weight=2.0, **settings)
    assert thin.sparsity_curve_[-1] < 0.8 * dense.sparsity_curve_[-1]
    if penalty != "hoyer":
        assert thin.density_.mean() < 0.8 * dense.density_.mean()


@pytest.mark.parametrize("target", [0.05, 0.2])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_kl_brings_mean_activations_to_their_target(solver, target, X):
    settings = {"penalty": "kl", "sparsity_target": target, "solver": solver}
    settings |= {"batch_size": len(X), "learning_rate_init": 0.03}
    model = fit(X, sparsity_weight=100.0, max_iter=300, **settings)
    np.testing.assert_allclose(model.transform(X).mean(axis=0), target, rtol=0.3)
    np.testing.assert_allclose(model.density_, model.transform(X).mean(axis=0))
    assert model.n_dead_ == 0


def test_a_running_mean_serves_small_batches(X):
    settings = {"sparsity_weight": 20.0, "batch_size": 8, "max_iter": 60}
    batch = fit(X, penalty=KLDivergence(0.1), **settings)
    running = fit(X, penalty=KLDivergence(0.1, memory=1000.0), **settings)
    assert abs(running.density_.mean() - 0.1) < 0.03
    spread = [model.transform(X).std(axis=0).mean() for model in (batch, running)]
    assert spread[1] > 1.3 * spread[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every
def test_types_stay(penalty, dtype, X):
    model = fit(X.astype(dtype), penalty=penalty, max_iter=3)
    assert model.transform(X.astype(dtype)).dtype == dtype
    assert model.components_.dtype == dtype
    assert all(weight.dtype == dtype for weight in model.coefs_)


# --- which units fire -----------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4])
def test_topk_fires_k_units(k, X):
    codes = fit(X, k=k).transform(X)
    assert (np.count_nonzero(codes, axis=1) <= k).all()
    assert np.count_nonzero(codes, axis=1).mean() > 0.9 * k
    assert (codes >= 0).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_batchtopk_fires_k_units_on_average(weighted, X):
    weight = np.arange(1.0, len(X) + 1) if weighted else None
    model = fit(X, penalty="batchtopk", k=3, sample_weight=weight)
    counts = np.count_nonzero(model.transform(X), axis=1)
    assert np.average(counts, weights=weight) == pytest.approx(3.0, abs=0.01)
    assert counts.max() > 3
    assert len(np.unique(model.thresholds_)) == 1
    codes = model.transform(X)
    assert codes[codes > 0].min() > model.thresholds_[0]
    assert model.density_.sum() == pytest.approx(3.0, abs=0.01)


def test_k_follows_from_the_target(X):
    assert np.count_nonzero(fit(X, 40).transform(X), axis=1).max() == 4
    codes = fit(X, 40, sparsity_target=0.05).transform(X)
    assert np.count_nonzero(codes, axis=1).max() == 2
    assert np.count_nonzero(fit(X, 4).transform(X), axis=1).max() == 1


def test_more_units_may_fire_after_the_fit(X):
    model = fit(X, k=2).set_params(k=6)
    assert np.count_nonzero(model.transform(X), axis=1).max() == 6


def test_a_number_of_units_that_cannot_be_is_refused_after_the_fit(X):
    with pytest.raises(ValueError, match="'k' parameter of TopK"):
        fit(X, k=2).set_params(k=0).transform(X)


def test_settings_of_a_penalty_are_its_own(X):
    model = fit(X, penalty=TopK(k=3), k=7)
    assert np.count_nonzero(model.transform(X), axis=1).max() == 3
    varied = X[:, X.std(axis=0) > 3]
    search = GridSearchCV(model, {"penalty__k": [1, 5]}, cv=2).fit(varied)
    assert search.best_params_ == {"penalty__k": 5}


@pytest.mark.parametrize("penalty", ["jumprelu", "gated"])
def test_units_fire_above_their_thresholds(penalty, X):
    model = fit(X, penalty=penalty, sparsity_weight=0.1)
    codes = model.transform(X)
    assert (len(np.unique(model.thresholds_)) > 1) == (penalty == "jumprelu")
    # The encoder's output: the same network without the penalty.
    center, unit = X.mean(axis=0), X.std(axis=0)
    inputs = (X - center) / np.where(unit > 0, unit, 1.0)
    h = inputs @ model.coefs_[0] + model.intercepts_[0]
    clear = np.abs(h - model.thresholds_) > 1e-9
    np.testing.assert_array_equal((codes > 0)[clear], (h > model.thresholds_)[clear])


def test_other_penalties_have_no_thresholds(X):
    assert fit(X, max_iter=1).thresholds_ is None


@every
def test_a_row_s_code_is_its_own_affair(penalty, X):
    model = fit(X, 70, penalty=penalty, max_iter=4)
    codes = model.transform(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_array_equal(model.transform(X[order]), codes[order])
    for size in (1, 7, 200):
        parts = [model.transform(X[i : i + size]) for i in range(0, 28, size)]
        np.testing.assert_array_equal(np.vstack(parts)[:28], codes[:28])


@every
def test_the_order_of_rows_does_not_matter(penalty, X):
    order = np.random.default_rng(0).permutation(len(X))
    one, other = fit(X, penalty=penalty), fit(X[order], penalty=penalty)
    np.testing.assert_array_equal(one.transform(X), other.transform(X))


def test_equal_outputs_fire_first_units_first(X):
    model = fit(X, 6, k=2, max_iter=1)
    model.coefs_[0][...] = model.coefs_[0][:, :1]
    model.intercepts_[0][...] = 100.0
    codes = model.transform(X)
    assert (codes[:, :2] > 0).all()
    assert not codes[:, 2:].any()


@pytest.mark.parametrize("penalty", ["topk", "l1", "gated"])
@pytest.mark.parametrize("distribution", ["gaussian", "heteroscedastic_gaussian"])
def test_the_encoder_starts_at_the_decoder_s_directions(distribution, penalty, X):
    settings = {"learning_rate_init": 1e-12, "max_iter": 1, "penalty": penalty}
    model = fit(X, distribution=distribution, **settings)
    directions = model.coefs_[1][:, :64]
    np.testing.assert_allclose(model.coefs_[0], directions.T, atol=1e-9)


# --- dead units -----------------------------------------------------------------------


def test_density_counts_rows_by_weight(X):
    weight = np.linspace(0.0, 2.0, len(X))
    model = fit(X, sample_weight=weight, batch_size=50)
    fires = model.transform(X) != 0
    expected = np.average(fires, axis=0, weights=weight)
    np.testing.assert_allclose(model.density_, expected, rtol=1e-6)
    assert model.n_dead_ == np.count_nonzero(~fires[1:].any(axis=0))


def test_a_unit_that_fires_in_one_row_is_not_dead(X):
    model = fit(X, 3, k=1, max_iter=1, revival=None)
    model.coefs_[0][...] = 0.0
    model.coefs_[0][:, 1] = X[5] - X[6]
    model.intercepts_[0][...] = [1e-3, 0.0, 0.0]
    often, count = model._model().firing(model._model().rows(X[5:7]))
    np.testing.assert_array_equal(count, [1, 1, 0])
    np.testing.assert_allclose(often, [0.5, 0.5, 0.0])


def reviving(X, revival, drops=0, epoch=2, **settings):
    """Return which units a call before an epoch begins anew, and the bottleneck."""
    model = fit(X, 40, max_iter=10, revival=revival, **settings)
    rng, index = np.random.default_rng(0), np.arange(len(X))
    trainer = model._trainer(X, index, None, rng)
    trainer.params.own[-1] = np.arange(40) * len(X) / 10
    moments = model._optimizer().init(model._theta)
    before = trainer.params.decoder[0][0].copy()
    model._change(trainer, epoch)
    told = model._renew(trainer, epoch, drops, moments)
    changed = (trainer.params.decoder[0][0] != before).any(axis=1)
    assert told == changed.any()
    return changed, trainer.objective.bottleneck


@pytest.mark.parametrize(
    ("drops", "epoch", "new"), [(0, 1, 20), (0, 5, 20), (0, 6, 0), (1, 5, 0)]
)
def test_units_begin_anew_while_there_is_time_to_learn(drops, epoch, new, X):
    changed, code = reviving(X, "resampling", drops, epoch, dead_after=2.0)
    assert changed.sum() == new
    assert not changed[:20].any()
    assert code.n_revived == 0


def test_chunks_have_no_end(X):
    model = SparseAutoencoder(40, max_iter=2, random_state=0)
    for _ in range(5):
        model.partial_fit(X)
    trainer = model._trainer(X, np.arange(len(X)), None, np.random.default_rng(0))
    trainer.params.own[-1] = 1e9
    moments = model._optimizer().init(model._theta)
    assert model._renew(trainer, 6, 0, moments)


def test_dead_units_join_in_half_as_many_as_columns(X):
    changed, code = reviving(X, "auxiliary", dead_after=2.0)
    assert not changed.any()
    assert (code.n_revived, code.dead_after) == (32, 800.0)
    assert reviving(X, "auxiliary", dead_after=9.0)[1].n_revived == 0


def starved(X, revival, **settings):
    settings = {"dead_after": 2.0} | settings
    return fit(X, 80, k=3, revival=revival, max_iter=80, **settings)


def test_dead_units_come_back(X):
    dead = {revival: starved(X, revival).n_dead_ for revival in REVIVALS}
    assert dead[None] > 10
    assert dead["resampling"] < 0.6 * dead[None]
    assert dead["auxiliary"] < dead[None]


REVIVALS = None, "resampling", "auxiliary"


def test_training_goes_on_after_units_began_anew(X):
    # Dead from the start are half of the units; the loss first has to fall again.
    settings = {"penalty": "jumprelu", "warm_start": True, "sparsity_weight": 0.3}
    losses = {}
    for revival in (None, "resampling"):
        model = fit(X, 40, revival=revival, max_iter=1, **settings)
        model.intercepts_[0][:20] = -20.0
        losses[revival] = model.set_params(max_iter=200).fit(X).loss_
    assert losses["resampling"] < losses[None] + 0.5


def test_auxiliary_losses_are_no_costs(X):
    settings = {"penalty": "l1", "revival": "auxiliary", "dead_after": 0.5}
    model = fit(X, 100, alpha=0.0, max_iter=30, sparsity_weight=3.0, **settings)
    parts = np.array(model.reconstruction_curve_) + 3 * np.array(model.sparsity_curve_)
    # Units that are dead can only help, by a 32nd of what they do.
    assert (np.array(model.loss_curve_) <= parts + 1e-9).all()
    assert np.abs(model.loss_curve_ - parts).max() < 0.05


def test_dead_after_is_in_epochs_whatever_the_size(X):
    patient = starved(X, "resampling", dead_after=1e6)
    np.testing.assert_array_equal(patient.coefs_[0], starved(X, None).coefs_[0])


def test_units_without_rows_are_warned_of(X):
    with pytest.warns(UserWarning, match=r"\d+ of 600 units fire for no row"):
        fit(X[:50], 600, k=1, revival=None, max_iter=1)


@pytest.mark.parametrize("revival", REVIVALS)
def test_resampling_survives_all_kinds_of_networks(revival, X):
    settings = {"revival": revival, "dead_after": 0.1, "k": 1}
    for more in (
        {"hidden_layer_sizes": (10,)},
        {"tied_weights": True},
        {"nested_sizes": (5, 10)},
        {"penalty": "gated"},
        {"penalty": "jumprelu", "solver": "sgd", "learning_rate_init": 1e-4},
    ):
        model = fit(X, **settings, **more)
        assert np.isfinite(model.score(X))


# --- nested codes ---------------------------------------------------------------------


def test_a_nested_code_serves_all_sizes(X):
    sizes = 2, 5, 10
    settings = {"k": 5, "max_iter": 100}
    nested = fit(X, nested_sizes=sizes, **settings)
    plain = fit(X, **settings)

    def errors(model):
        codes = model.transform(X)
        cut = [model.inverse_transform(codes[:, :size]) for size in (*sizes, 20)]
        return np.array([np.mean(np.square(X - back)) for back in cut])

    assert (np.diff(errors(nested)) < 0).all()
    assert (errors(nested)[:3] < 0.9 * errors(plain)[:3]).all()


def test_the_code_is_cut_by_a_parameter(X):
    pytest.importorskip("pandas")
    model = fit(X, nested_sizes="auto", max_iter=3)
    codes = model.transform(X)
    model.set_params(transform_n_components=5)
    np.testing.assert_array_equal(model.transform(X), codes[:, :5])
    model.set_params(transform_n_components=20)
    np.testing.assert_array_equal(model.transform(X), codes)
    model.set_params(transform_n_components=5)
    assert len(model.get_feature_names_out()) == 5
    model.set_output(transform="pandas")
    assert model.transform(X).shape == (400, 5)
    filled = np.where(np.arange(20) < 5, codes, 0.0)
    back = model.inverse_transform(codes[:, :5])
    np.testing.assert_array_equal(back, model.inverse_transform(filled))
    np.testing.assert_array_equal(
        back, model.inverse_transform(sparse.csr_matrix(codes[:, :5]))
    )


def test_the_whole_is_always_one_of_the_sizes(X):
    settings = {"max_iter": 3, "k": 3}
    given = fit(X, nested_sizes=[20, 4], **settings)
    implied = fit(X, nested_sizes=[4], **settings)
    np.testing.assert_array_equal(given.coefs_[0], implied.coefs_[0])
    alone = fit(X, nested_sizes=[20], **settings)
    np.testing.assert_array_equal(alone.coefs_[0], fit(X, **settings).coefs_[0])


# --- sparse matrices ------------------------------------------------------------------


@every
def test_sparse_codes_are_the_dense_ones(penalty, X):
    model = fit(X, penalty=penalty, max_iter=3)
    codes = model.transform(X)
    thin = model.set_params(sparse_output=True).transform(X)
    assert sparse.issparse(thin)
    assert thin.format == "csr"
    assert thin.dtype == codes.dtype
    assert thin.has_canonical_format
    assert thin.nnz == np.count_nonzero(codes)
    np.testing.assert_array_equal(thin.toarray(), codes)
    np.testing.assert_array_equal(
        model.inverse_transform(thin), model.inverse_transform(codes)
    )


def test_many_sparse_codes_take_little_memory():
    X = np.random.default_rng(0).standard_normal((20_000, 8)).astype(np.float32)
    model = fit(X[:500], 2048, k=4, max_iter=1, sparse_output=True, batch_size=250)
    tracemalloc.start()
    codes = model.transform(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert codes.nnz <= 4 * len(X)
    assert peak < 20e6  # dense codes would be 164 MB


@every
def test_sparse_rows_are_like_dense_ones(penalty, X):
    thin = sparse.csr_matrix(X)
    model = fit(thin, penalty=penalty, max_iter=3)
    np.testing.assert_allclose(
        model.transform(thin), fit(X, penalty=penalty, max_iter=3).transform(X)
    )


def test_sparse_codes_go_through_a_pipeline():
    X, y = load_digits(return_X_y=True)
    model = SparseAutoencoder(100, k=8, sparse_output=True, max_iter=20, random_state=0)
    pipeline = make_pipeline(model, LogisticRegression(max_iter=300))
    assert pipeline.fit(X[::2], y[::2]).score(X[1::2], y[1::2]) > 0.9


# --- the decoder ----------------------------------------------------------------------


def test_components_are_what_units_add_to_a_reconstruction(X):
    model = fit(X)
    assert model.components_.shape == (20, 64)
    codes = np.eye(20)
    added = model.inverse_transform(codes) - model.inverse_transform(0 * codes)
    np.testing.assert_allclose(model.components_, added, atol=1e-10)


def test_components_of_a_distribution_with_two_outputs(X):
    model = fit(X, distribution="heteroscedastic_gaussian", max_iter=3)
    codes = np.eye(20)
    added = model.inverse_transform(codes) - model.inverse_transform(0 * codes)
    np.testing.assert_allclose(model.components_, added, atol=1e-10)


def test_components_need_a_decoder_of_one_layer(X):
    assert not hasattr(fit(X, hidden_layer_sizes=(5,), max_iter=1), "components_")
    with pytest.raises(AttributeError, match="not fitted"):
        SparseAutoencoder().components_  # noqa: B018


@pytest.mark.parametrize(
    ("settings", "unit"),
    [
        ({}, True),
        ({"penalty": "l1"}, True),
        ({"penalty": "kl"}, False),
        ({"penalty": "kl", "unit_norm": True}, True),
        ({"unit_norm": False}, False),
        ({"tied_weights": True}, False),
        ({"tied_weights": True, "unit_norm": True}, True),
        ({"solver": "lbfgs"}, False),
        ({"hidden_layer_sizes": (7,)}, True),
    ],
)
def test_directions_have_length_one(settings, unit, X):
    model = fit(X, **settings)
    layer = len(model.coefs_) // 2
    lengths = np.linalg.norm(model.coefs_[layer], axis=1)
    assert np.allclose(lengths, 1.0) == unit


def test_the_decoder_starts_where_it_is_told_to():
    X = np.vstack([np.zeros((60, 2)), [[1e3, 0.0]] * 20]) + np.eye(2)[[0, 1] * 40]
    settings = {"standardize": False, "learning_rate_init": 1e-12, "max_iter": 1}
    mean = fit(X, 2, **settings)
    median = fit(X, 2, decoder_bias_init="geometric_median", **settings)
    np.testing.assert_allclose(mean.intercepts_[-1], X.mean(axis=0))
    assert (np.abs(median.intercepts_[-1]) < 1.0).all()


@pytest.mark.parametrize(
    "distribution",
    ["gaussian", "heteroscedastic_gaussian", "bernoulli", "gamma"],
)
def test_the_decoder_starts_with_a_row_of_zeros(distribution, X):
    settings = {"standardize": False, "learning_rate_init": 1e-12, "max_iter": 1}
    X = np.clip(np.abs(X), 0.01, 1.0)
    for where, near in (("mean", X.mean(axis=0)), ("zero", 0.0)):
        model = fit(X, distribution=distribution, decoder_bias_init=where, **settings)
        rebuilt = model.inverse_transform(np.zeros((1, model.n_components)))[0]
        np.testing.assert_allclose(rebuilt, near, atol=0.02)


# --- parameters -----------------------------------------------------------------------


def test_codes_are_overcomplete_if_nothing_is_asked_for(X):
    assert SparseAutoencoder(max_iter=1).fit(X).transform(X).shape == (400, 128)


def test_the_penalty_comes_in_slowly(X):
    model = fit(X, penalty="l1", sparsity_warm_up=4, max_iter=6, alpha=0.0)
    loss, misfit, cost = (
        np.array(curve)
        for curve in (
            model.loss_curve_,
            model.reconstruction_curve_,
            model.sparsity_curve_,
        )
    )
    weight = (loss - misfit) / cost
    np.testing.assert_allclose(weight, [0.25, 0.5, 0.75, 1, 1, 1], rtol=1e-9)


def test_units_compete_slowly(X, monkeypatch):
    seen, step = [], Trainer.step

    def watched(trainer, *args):
        loss = step(trainer, *args)
        fires = np.count_nonzero(trainer.batch.code[:, 0], axis=1)
        seen.append(int(fires.max()))
        return loss

    monkeypatch.setattr(Trainer, "step", watched)
    fit(X, k=2, sparsity_warm_up=4, max_iter=5, batch_size=400)
    # From 20 units to 2, by the fourth root of ten each time; rectified units are
    # not all positive.
    assert 6 < seen[0] <= 11
    assert 4 < seen[1] <= 6
    assert seen[2:] == [4, 2, 2]


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_that_do_not_fit_are_refused(activation, penalty, X):
    model = SparseAutoencoder(
        4, penalty=penalty, code_activation=activation, max_iter=1
    )
    if activation in PENALTIES[penalty].activations:
        model.fit(X)
        return
    with pytest.raises(ValueError, match=f"penalty='{penalty}' needs code_activation"):
        model.fit(X)


def test_small_batches_are_warned_of(X):
    message = "mean activation over batches of 10 rows.*batch_size=36 or more"
    with pytest.warns(UserWarning, match=message):
        fit(X, penalty="kl", batch_size=10, max_iter=1)


def test_batches_grow_with_the_accuracy_that_the_mean_needs(X):
    for target, size in ((0.1, 36), (0.01, 396), (0.001, 1000)):
        model = fit(X, penalty="kl", sparsity_target=target, max_iter=1)
        assert model._rows_per_step(1000) == size
    assert fit(X, max_iter=1)._rows_per_step(1000) == 32


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_size": 36},
        {"solver": "lbfgs"},
        {"penalty": KLDivergence(memory=100.0), "batch_size": 10},
        {"sparsity_target": 0.5, "batch_size": 10},
    ],
)
def test_large_batches_are_not(settings, X, recwarn):
    fit(X, **({"penalty": "kl", "max_iter": 1} | settings))
    assert not any("mean activation" in str(warning.message) for warning in recwarn)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 21}, "k=21 must be at most n_components=20"),
        ({"penalty": BatchTopK(21)}, "k=21 must be at most n_components=20"),
        (
            {"nested_sizes": [30]},
            r"nested_sizes=\[30\] must not exceed n_components=20",
        ),
        ({"nested_sizes": [0]}, "nested_sizes"),
        ({"transform_n_components": 21}, "must be at most n_components=20"),
        ({"k": True}, "k=True must be a positive integer"),
        ({"solver": "lbfgs", "penalty": "gated"}, "penalty='gated' does not"),
        ({"solver": "lbfgs", "penalty": JumpReLU()}, "does not have"),
        ({"solver": "lbfgs", "unit_norm": True}, "unit_norm=True"),
        ({"penalty": "l2"}, "penalty"),
        ({"sparsity_target": 1.0}, "sparsity_target"),
        ({"penalty": KLDivergence(1.5)}, "sparsity_target"),
        ({"n_components": True}, "must be an integer"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_left(settings, message, X):
    model = SparseAutoencoder(**({"n_components": 20, "max_iter": 1} | settings))
    with pytest.raises(ValueError, match=message):
        model.fit(X)
    assert not hasattr(model, "n_features_in_")


def test_a_cut_that_is_too_large_is_refused_after_the_fit(X):
    model = fit(X, max_iter=1).set_params(transform_n_components=21)
    with pytest.raises(ValueError, match="transform_n_components=21"):
        model.transform(X)
    with pytest.raises(ValueError, match="X has 21 columns"):
        fit(X, max_iter=1).inverse_transform(np.zeros((2, 21)))
    with pytest.raises(NotFittedError):
        SparseAutoencoder().inverse_transform(np.zeros((2, 21)))


@every
def test_the_model_of_another_penalty_is_refused(penalty, X):
    model = fit(X, penalty=penalty, max_iter=1, warm_start=True)
    other = "l1" if penalty != "l1" else "hoyer"
    model.set_params(penalty=other)
    for call in (model.transform, model.score):
        with pytest.raises(ValueError, match=f"penalty='{other}' is not what the"):
            call(X)
    for call in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=r"(Use|use) fit with warm_start"):
            call(X)
    assert model.set_params(penalty=penalty).transform(X).shape == (400, 20)
    model.set_params(penalty=other, warm_start=False).fit(X)


@every
def test_nothing_to_learn_is_learnt_in_peace(penalty):
    for X in (np.ones((50, 4)), np.arange(4.0)[None]):
        model = SparseAutoencoder(penalty=penalty, random_state=0).fit(X)
        back = model.inverse_transform(model.transform(X))
        np.testing.assert_allclose(back, X, atol=0.1)


def test_a_warm_up_is_for_penalties_of_one_s_own_too(X):
    model = fit(X, penalty=TopK(2), sparsity_warm_up=4, max_iter=1)
    early = fit(X, penalty="topk", k=2, sparsity_warm_up=4, max_iter=1)
    np.testing.assert_array_equal(model.coefs_[0], early.coefs_[0])
    fit(X, penalty="l1", k=500, max_iter=1)  # a parameter that is not used


def test_the_warm_up_is_not_judged(X):
    settings = {"penalty": "l1", "n_iter_no_change": 2, "tol": 1e9, "max_iter": 50}
    model = fit(X, sparsity_warm_up=30, learning_rate="constant", **settings)
    assert model.n_iter_ == 33  # the first one judged is progress
    assert model.best_loss_ == min(model.loss_curve_[30:])


def test_lbfgs_uses_the_whole_penalty(X):
    settings = {"penalty": "kl", "solver": "lbfgs", "max_iter": 20}
    slow, whole = fit(X, sparsity_warm_up=10, **settings), fit(X, **settings)
    np.testing.assert_array_equal(slow.coefs_[0], whole.coefs_[0])
    assert np.isfinite(fit(X, penalty="batchtopk", solver="lbfgs").loss_)


# --- fitting in parts -----------------------------------------------------------------


@every
def test_partial_fit_goes_on(penalty, X):
    model = SparseAutoencoder(20, penalty=penalty, random_state=0)
    for start in range(0, 400, 100):
        model.partial_fit(X[start : start + 100])
    assert model.t_ == 400
    assert len(model.sparsity_curve_) == len(model.loss_curve_) == 4
    assert np.isfinite(model.score(X))
    model.partial_fit(X[:1])
    assert np.isfinite(model.transform(X)).all()


def test_thresholds_of_chunks_are_blended(X):
    model = SparseAutoencoder(20, penalty="batchtopk", k=3, random_state=0)
    for _ in range(30):
        model.partial_fit(X[:200])
    before = model.thresholds_[0]
    model.partial_fit(1.5 * X[:10])
    assert 0.8 * before < model.thresholds_[0] < 1.2 * before


def test_partial_fit_revives_by_rows_seen(X):
    models = [
        SparseAutoencoder(80, k=3, random_state=0, revival=revival, dead_after=1.0)
        for revival in (None, "resampling")
    ]
    for model in models:
        for _ in range(10):
            for start in range(0, 400, 50):
                model.partial_fit(X[start : start + 50])
    dead = [np.count_nonzero(~model.transform(X).any(axis=0)) for model in models]
    assert dead[1] < dead[0]


@every
def test_warm_start_and_early_stopping(penalty, X):
    model = fit(X, penalty=penalty, warm_start=True, early_stopping=True)
    first = model.loss_
    model.fit(X)
    assert model.loss_ < first
    assert len(model.validation_scores_) == len(model.sparsity_curve_)
    assert np.isfinite(model.validation_scores_).all()


def test_held_out_rows_meet_like_a_batch(X, monkeypatch):
    # With all rows in one batch and held out alike, the two losses are one.
    settings = {"early_stopping": True, "alpha": 0.0, "max_iter": 1, "shuffle": False}
    for penalty in ("kl", "batchtopk"):
        twice = np.repeat(X[:50], 2, axis=0) + 0.0
        model = SparseAutoencoder(20, penalty=penalty, k=2, **settings)
        split = np.arange(0, 100, 2), np.arange(1, 100, 2)
        monkeypatch.setattr(model, "_split", lambda *_, split=split: split)
        monkeypatch.setattr(model, "_arrange", lambda *_: (np.arange(100), None))
        model.set_params(learning_rate_init=1e-300, batch_size=50).fit(twice)
        assert -model.validation_scores_[0] == pytest.approx(model.loss_, rel=1e-9)


@every
def test_kept_and_cloned(penalty, X):
    model = fit(X, penalty=penalty, max_iter=3)
    kept = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(kept.transform(X), model.transform(X))
    again = clone(model).fit(X)
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
