import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
from scipy import sparse, special, stats
from scipy.linalg import subspace_angles
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import DenoisingAutoencoder
from skae.corruptions import CORRUPTIONS, Masking
from skae.distributions import DISTRIBUTIONS, Bernoulli, Huber
from skae.optimizers import OPTIMIZERS, SCHEDULES, Adam

unsettled = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
pytestmark = unsettled

LIKELIHOODS = [name for name in DISTRIBUTIONS if DISTRIBUTIONS[name].is_likelihood]
LOSSES = {
    "absolute_error": np.abs,
    "huber": lambda r: special.huber(1.0, r),
    "log_cosh": lambda r: np.log(np.cosh(r)),
    "squared_error": np.square,
}


@pytest.fixture(scope="module")
def X():
    return load_iris().data


@pytest.fixture(scope="module")
def digits():
    return load_digits().data


def inside(distribution, levels):
    """Turn whole numbers from 0 to 16 into data that the distribution can have."""
    family = DISTRIBUTIONS[distribution]()
    if family.sums_to_one:
        return np.eye(levels.shape[1])[levels.argmax(axis=1)]
    if family.support.whole:
        return levels
    return (levels + 0.5) / 17 if family.support.open else levels / 16


def make(n_components=2, **params):
    return DenoisingAutoencoder(
        n_components, **{"max_iter": 20, "random_state": 0} | params
    )


# --- truths from outside --------------------------------------------------------------

#: A linear model without noise or penalty, trained until rounding stops it.
LINEAR = {
    "activation": "identity",
    "corruption_level": 0,
    "alpha": 0,
    "solver": "lbfgs",
    "max_iter": 5000,
    "tol": 1e-9,
}


@pytest.mark.parametrize("tied_weights", [False, True])
def test_linear_autoencoder_spans_the_principal_components(tied_weights):
    X = StandardScaler().fit_transform(load_breast_cancer().data)
    autoencoder = make(4, tied_weights=tied_weights, **LINEAR).fit(X)
    pca = PCA(4).fit(X)
    decoder = autoencoder.coefs_[-1]
    assert subspace_angles(decoder.T, pca.components_.T).max() < 1e-3
    error = np.square(X - autoencoder.inverse_transform(autoencoder.transform(X)))
    pca_error = np.square(X - pca.inverse_transform(pca.transform(X)))
    assert error.sum() == pytest.approx(pca_error.sum(), rel=1e-6)


def test_score_samples_is_a_normal_log_density(X):
    autoencoder = make().fit(X)
    mean = autoencoder.inverse_transform(autoencoder.transform(X))
    normal = stats.norm(mean, np.sqrt(autoencoder.noise_variance_))
    expected = normal.logpdf(X).sum(axis=1)
    np.testing.assert_allclose(autoencoder.score_samples(X), expected, rtol=1e-10)
    assert autoencoder.score(X) == pytest.approx(expected.mean(), rel=1e-12)


def test_bernoulli_score_is_a_log_probability():
    X = np.random.default_rng(0).integers(0, 2, (60, 5)).astype(float)
    autoencoder = make(distribution="bernoulli").fit(X)
    p = autoencoder.inverse_transform(autoencoder.transform(X))
    expected = stats.bernoulli(p).logpmf(X.astype(int)).sum(axis=1)
    np.testing.assert_allclose(autoencoder.score_samples(X), expected, rtol=1e-9)
    assert autoencoder.noise_variance_ is None


def test_noise_is_the_variance_around_the_reconstruction(X):
    autoencoder = make().fit(X)
    residual = X - autoencoder.inverse_transform(autoencoder.transform(X))
    expected = np.square(residual).mean(axis=0)
    np.testing.assert_allclose(autoencoder.noise_variance_, expected, rtol=1e-10)


def test_a_linear_model_with_little_noise_has_the_right_likelihood():
    rng = np.random.default_rng(0)
    loadings = rng.standard_normal((3, 20))
    X = rng.standard_normal((600, 3)) @ loadings + 0.02 * rng.standard_normal((600, 20))
    train, test = X[:300], X[300:]
    autoencoder = make(3, **LINEAR).fit(train)
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    pca = PCA(3).fit(train)
    scale = (train - pca.inverse_transform(pca.transform(train))).std(axis=0)
    normal = stats.norm(pca.inverse_transform(pca.transform(test)), scale)
    expected = normal.logpdf(test).sum(axis=1).mean() - np.log(scaler.scale_).sum()
    assert autoencoder.score(X[300:]) == pytest.approx(expected, abs=0.1)


def test_denoising_repairs_what_the_plain_autoencoder_does_not(digits):
    train, test = digits[:1400] / 16, digits[1400:] / 16
    noisy = test.copy()
    noisy[np.random.default_rng(0).random(noisy.shape) < 0.3] = 0.0
    error = {}
    for level in (0.0, 0.3):
        autoencoder = make(
            32,
            distribution="bernoulli",
            corruption_level=level,
            max_iter=100,
            learning_rate_init=0.01,
        ).fit(train)
        repaired = autoencoder.inverse_transform(autoencoder.transform(noisy))
        error[level] = np.mean(np.square(repaired - test))
    assert error[0.3] < 0.75 * error[0.0]


# --- the contract of the scores -------------------------------------------------------


@pytest.mark.parametrize("distribution", LIKELIHOODS)
def test_feature_scores_sum_to_the_row_s(digits, distribution):
    data = inside(distribution, digits[:200])
    autoencoder = make(distribution=distribution).fit(data)
    shares = autoencoder.score_features(data)
    assert shares.shape == data.shape
    assert np.isfinite(shares).all()
    np.testing.assert_allclose(shares.sum(axis=1), autoencoder.score_samples(data))


@pytest.mark.parametrize("factor", [1e-3, 3.0, 1e6])
def test_rescaling_a_column_shifts_its_score_and_changes_nothing_else(X, factor):
    scaled = X * [1, factor, 1, 1]
    first, second = make().fit(X), make().fit(scaled)
    np.testing.assert_allclose(first.transform(X), second.transform(scaled), rtol=1e-6)
    expected = first.score_features(X) - [0, np.log(factor), 0, 0]
    np.testing.assert_allclose(second.score_features(scaled), expected, rtol=1e-6)


def test_shifting_a_column_changes_nothing(X):
    first, second = make().fit(X), make().fit(X + 100.0)
    np.testing.assert_allclose(
        first.score_samples(X), second.score_samples(X + 100.0), rtol=1e-6
    )


@pytest.mark.parametrize("value", [0.0, 1.0, -5.0, 1e6])
def test_a_constant_column_neither_divides_by_zero_nor_dominates(X, value):
    wide = np.column_stack([X, np.full(len(X), value)])
    autoencoder = make().fit(wide)
    share = autoencoder.score_features(wide)[:, -1]
    size = abs(value) or 1.0
    best = stats.norm.logpdf(0, scale=size)
    assert ((best - 0.5 < share) & (share <= best)).all()
    moved = np.column_stack([X, np.full(len(X), value + 1e-4 * size)])
    np.testing.assert_allclose(
        autoencoder.score_samples(moved), autoencoder.score_samples(wide), atol=1e-2
    )


@pytest.mark.parametrize(
    "method", ["transform", "score_samples", "score_features", "reconstruction_error"]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_row_same_answer_to_the_last_bit(digits, method, dtype):
    data = digits[:300].astype(dtype)
    call = getattr(make(8, hidden_layer_sizes=(20,)).fit(data), method)
    together = call(data)
    order = np.random.default_rng(0).permutation(len(data))
    np.testing.assert_array_equal(call(data[order]), together[order])
    np.testing.assert_array_equal(call(data[:77]), together[:77])
    for i in (0, 128, 299):
        np.testing.assert_array_equal(call(data[[i]])[0], together[i])
    np.testing.assert_array_equal(call(data), together)


# --- distributions that are losses ----------------------------------------------------

#: A loss in some columns is enough; it is named with its columns.
CULPRITS = [
    *((name, f"'{name}'") for name in LOSSES),
    (Huber(2.0), "Huber(delta=2.0)"),
    ([("gaussian", [2, 0]), ("huber", [1, 3])], "'huber' (columns 1, 3)"),
    (
        [("huber", slice(1)), ("laplace", [1, 2]), ("log_cosh", [3])],
        "'huber' (column 0) and 'log_cosh' (column 3)",
    ),
]


@pytest.mark.parametrize("method", ["score", "score_samples", "score_features"])
@pytest.mark.parametrize(("distribution", "culprit"), CULPRITS, ids=str)
def test_a_loss_has_no_scores(X, distribution, culprit, method):
    autoencoder = make(distribution=distribution, max_iter=2).fit(X)
    assert not hasattr(autoencoder, method)
    with pytest.raises(AttributeError) as error:
        getattr(autoencoder, method)
    assert str(error.value) == (
        f"{method} needs a likelihood, but {culprit} has no probabilistic reading: use "
        f"reconstruction_error."
    )
    assert not hasattr(make(distribution=distribution), method)
    assert hasattr(make(distribution=[("gaussian", [0, 1, 2, 3])]).fit(X), method)


def test_columns_of_a_loss_are_called_by_their_names():
    frame = load_iris(as_frame=True).data.set_axis(["a", "b", "c", "d"], axis=1)
    distribution = [("gaussian", ["a", "c"]), ("huber", [3, 1])]
    autoencoder = make(distribution=distribution, max_iter=2).fit(frame)
    with pytest.raises(AttributeError, match=r"'huber' \(columns 'd', 'b'\) has no"):
        autoencoder.score(frame)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("distribution", LOSSES)
def test_the_error_of_a_loss_is_the_loss(X, distribution, standardize):
    autoencoder = make(distribution=distribution, standardize=standardize).fit(X)
    residual = X - autoencoder.inverse_transform(autoencoder.transform(X))
    unit = X.std(axis=0) if standardize else 1.0
    expected = LOSSES[distribution](residual / unit).sum(axis=1)
    error = autoencoder.reconstruction_error(X)
    assert error.shape == (len(X),)
    assert (error >= 0).all()
    np.testing.assert_allclose(error, expected, rtol=1e-9)


@pytest.mark.parametrize("distribution", LIKELIHOODS)
def test_the_error_of_a_likelihood_is_the_squared_difference(digits, distribution):
    data = inside(distribution, digits[:200])
    autoencoder = make(distribution=distribution).fit(data)
    difference = data - autoencoder.inverse_transform(autoencoder.transform(data))
    if DISTRIBUTIONS[distribution].has_unit:
        constant = np.ptp(data, axis=0) == 0
        size = np.where(data[0] == 0, 1.0, np.abs(data[0]))
        difference /= np.where(constant, size, data.std(axis=0))
    expected = np.square(difference).sum(axis=1)
    error = autoencoder.reconstruction_error(data)
    np.testing.assert_allclose(error, expected, rtol=1e-8)


def test_errors_of_several_kinds_of_columns_add_up(X):
    distribution = [("huber", [3, 1]), ("gaussian", [0]), ("absolute_error", [2])]
    autoencoder = make(distribution=distribution).fit(X)
    difference = X - autoencoder.inverse_transform(autoencoder.transform(X))
    r = (difference / X.std(axis=0)).T
    huber = LOSSES["huber"](r[[3, 1]]).sum(axis=0)
    expected = huber + np.square(r[0]) + np.abs(r[2])
    np.testing.assert_allclose(autoencoder.reconstruction_error(X), expected, rtol=1e-9)


def test_a_search_over_a_loss_needs_a_scorer(X):
    grid = {"n_components": [1, 3]}
    with pytest.raises(TypeError, match="should have a 'score' method"):
        GridSearchCV(make(distribution="huber"), grid, cv=2).fit(X)
    folds = KFold(3, shuffle=True, random_state=0)

    def scoring(model, X):
        return -model.reconstruction_error(X).mean()

    model = make(distribution="huber", max_iter=100)
    search = GridSearchCV(model, grid, cv=folds, scoring=scoring).fit(X)
    assert search.best_params_ == {"n_components": 3}


# --- randomness -----------------------------------------------------------------------


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_same_seed_same_model(X, corruption):
    first, second = (make(corruption=corruption).fit(X) for _ in range(2))
    for ours, theirs in zip(first.coefs_, second.coefs_, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    other = make(corruption=corruption, random_state=1).fit(X)
    assert not np.array_equal(first.coefs_[0], other.coefs_[0])


def test_the_global_generator_is_left_alone(X):
    state = np.random.mtrand._rand
    before = state.get_state()[1:3]
    first, second = (make(random_state=None).fit(X) for _ in range(2))
    after = state.get_state()[1:3]
    np.testing.assert_array_equal(before[0], after[0])
    assert before[1] == after[1]
    assert not np.array_equal(first.coefs_[0], second.coefs_[0])


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("batch_size", [32, 1000])
def test_the_order_of_the_rows_does_not_matter_to_the_last_bit(
    X, batch_size, early_stopping
):
    order = np.random.default_rng(0).permutation(len(X))
    params = {"batch_size": batch_size, "early_stopping": early_stopping}
    first, second = make(**params).fit(X), make(**params).fit(X[order])
    np.testing.assert_array_equal(first.coefs_[0], second.coefs_[0])


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("early_stopping", [False, True])
def test_weights_are_repetitions_to_the_last_bit(X, corruption, early_stopping):
    weight = np.random.default_rng(0).integers(0, 4, len(X))
    params = {"batch_size": 1000, "early_stopping": early_stopping}
    weighted = make(corruption=corruption, **params).fit(X, sample_weight=weight)
    repeated = make(corruption=corruption, **params).fit(np.repeat(X, weight, axis=0))
    for ours, theirs in zip(weighted.coefs_, repeated.coefs_, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(weighted.score_samples(X), repeated.score_samples(X))
    score = weighted.score(X, sample_weight=weight)
    assert score == pytest.approx(repeated.score(np.repeat(X, weight, axis=0)))


@pytest.mark.parametrize("batch_size", ["auto", 16, 1000])
def test_a_row_of_weight_zero_is_absent(batch_size):
    X = np.random.default_rng(0).standard_normal((3000, 3))
    weight = (np.arange(len(X)) % 3 > 0).astype(float)
    spoilt = np.where(weight[:, None] > 0, X, 1e30)
    params = {"batch_size": batch_size, "early_stopping": True, "max_iter": 2}
    weighted = make(**params).fit(spoilt, sample_weight=weight)
    absent = make(**params).fit(X[weight > 0])
    np.testing.assert_array_equal(weighted.coefs_[0], absent.coefs_[0])
    score = weighted.score(spoilt, sample_weight=weight)
    assert score == pytest.approx(absent.score(X[weight > 0]))


@pytest.mark.parametrize("factor", [1e-60, 1e60])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_only_the_proportions_of_weights_matter(X, factor, dtype):
    weight = np.random.default_rng(0).integers(1, 4, len(X))
    data = X.astype(dtype)
    expected = make().fit(data, sample_weight=weight)
    scaled = make().fit(data, sample_weight=weight * factor)
    np.testing.assert_allclose(expected.coefs_[0], scaled.coefs_[0], rtol=1e-3)
    np.testing.assert_allclose(
        expected.noise_variance_, scaled.noise_variance_, rtol=1e-3
    )


def test_repeated_rows_train_as_well_as_others():
    rng = np.random.default_rng(0)
    X = (rng.random((6000, 6)) < [0.9, 0.8, 0.5, 0.1, 0.05, 0.5]).astype(float)
    X[:, 1], X[:, 3] = X[:, 0], 1 - X[:, 2]
    few = make(distribution="bernoulli", max_iter=60).fit(X[:3000])
    assert few.score(X[3000:]) > -1.2


# --- every option trains --------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        *({"corruption": name, "corruption_level": 0.2} for name in CORRUPTIONS),
        *({"learning_rate": name} for name in SCHEDULES),
        *({"solver": name} for name in OPTIMIZERS if name != "adadelta"),
        {"solver": "adadelta", "learning_rate_init": 1.0, "batch_size": 8},
        {"solver": "lbfgs", "corruption_level": 0},
        {"solver": "lbfgs", "corruption": "none", "corruption_level": 7.0},
        {"solver": "lbfgs", "corruption": CORRUPTIONS["none"]()},
        {"solver": Adam(beta_1=0.5)},
        {"corruption": Masking()},
        {"hidden_layer_sizes": 7},
        {"hidden_layer_sizes": np.array([7, 5]), "activation": "relu"},
        {"hidden_layer_sizes": [6], "code_activation": "softplus"},
        {"tied_weights": True, "hidden_layer_sizes": (6,)},
        {"nesterovs_momentum": False, "solver": "sgd"},
        {"standardize": False},
        {"early_stopping": True, "validation_fraction": 0.3},
        {"shuffle": False},
        {"batch_size": 1, "max_iter": 3},
        {"batch_size": 10**9},
        {"n_components": 9},
    ],
    ids=str,
)
def test_the_loss_falls(X, params):
    autoencoder = make(**{"learning_rate_init": 0.01} | params).fit(X)
    assert autoencoder.loss_curve_[-1] < autoencoder.loss_curve_[0]
    assert np.isfinite(autoencoder.score(X))
    assert autoencoder.transform(X).shape == (150, autoencoder.n_components)


def test_distribution_may_be_an_instance(digits):
    data = digits[:300] / 16
    named, instance = (
        make(distribution=distribution).fit(data)
        for distribution in ("bernoulli", Bernoulli())
    )
    np.testing.assert_array_equal(named.transform(data), instance.transform(data))


def test_layers_are_as_asked_for(X):
    autoencoder = make(hidden_layer_sizes=(7, 5)).fit(X)
    assert [w.shape for w in autoencoder.coefs_] == [
        (4, 7),
        (7, 5),
        (5, 2),
        (2, 5),
        (5, 7),
        (7, 4),
    ]
    assert [len(b) for b in autoencoder.intercepts_] == [7, 5, 2, 5, 7, 4]


@pytest.mark.parametrize(
    ("hidden", "activation", "code_activation", "bounded"),
    [
        ((), None, "auto", False),
        ((), "tanh", "auto", True),
        ((5,), None, "auto", False),
        ((5,), "tanh", "auto", False),
        ((5,), None, "tanh", True),
    ],
)
def test_code_activation(X, hidden, activation, code_activation, bounded):
    autoencoder = make(
        hidden_layer_sizes=hidden,
        activation=activation,
        code_activation=code_activation,
        max_iter=300,
        learning_rate_init=0.02,
    ).fit(X)
    assert (np.abs(autoencoder.transform(X)).max() <= 1.0) == bounded


def test_hidden_layers_are_tanh_by_default(X):
    ours, theirs = (
        make(hidden_layer_sizes=(5,), activation=activation).fit(X).coefs_[0]
        for activation in (None, "tanh")
    )
    np.testing.assert_array_equal(ours, theirs)


def test_code_is_the_forward_pass_written_out(X):
    autoencoder = make(hidden_layer_sizes=(5,), activation="logistic").fit(X)
    (w1, w2, w3, w4), (b1, b2, b3, b4) = autoencoder.coefs_, autoencoder.intercepts_
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    code = 1 / (1 + np.exp(-(z @ w1 + b1))) @ w2 + b2
    out = (1 / (1 + np.exp(-(code @ w3 + b3)))) @ w4 + b4
    np.testing.assert_allclose(autoencoder.transform(X), code, rtol=1e-9)
    expected = out * X.std(axis=0) + X.mean(axis=0)
    np.testing.assert_allclose(autoencoder.inverse_transform(code), expected, rtol=1e-9)


@pytest.mark.parametrize("solver", ["adam", "adamw"])
def test_alpha_shrinks_weights_and_not_biases(X, solver):
    params = {"solver": solver, "standardize": False, "learning_rate_init": 0.01}
    loose, tight = (make(alpha=a, max_iter=200, **params).fit(X) for a in (0.0, 10.0))
    for ours, theirs in zip(tight.coefs_, loose.coefs_, strict=True):
        assert np.linalg.norm(ours) < 0.2 * np.linalg.norm(theirs)
    np.testing.assert_allclose(tight.intercepts_[-1], X.mean(axis=0), rtol=0.05)


def test_adamw_decays_outside_the_gradient_only(X):
    strong = make(solver="adamw", alpha=1.0, batch_size=1000, max_iter=1)
    weak = make(solver="adamw", alpha=0.0, batch_size=1000, max_iter=1)
    ours, theirs = strong.fit(X), weak.fit(X)
    assert ours.loss_ == theirs.loss_  # the penalty is no part of the loss
    start = make(solver="sgd", momentum=0.0, learning_rate_init=1e-300, max_iter=1)
    first = start.set_params(batch_size=1000).fit(X).coefs_[0]
    np.testing.assert_allclose(
        theirs.coefs_[0] - ours.coefs_[0], 0.005 * first, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("n_rows", "expected"), [(20, 20), (150, 32), (3200, 100), (20_000, 256)]
)
def test_auto_batch_size(n_rows, expected):
    X = np.random.default_rng(0).standard_normal((n_rows, 2))
    params = {"max_iter": 1, "corruption_level": 0.0}
    auto, given = (make(batch_size=b, **params).fit(X) for b in ("auto", expected))
    np.testing.assert_array_equal(auto.coefs_[0], given.coefs_[0])


# --- tied weights ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "copy",
    [
        lambda fitted: fitted,
        lambda fitted: pickle.loads(pickle.dumps(fitted)),
        lambda fitted: clone(fitted).fit(load_iris().data),
    ],
    ids=["fitted", "pickled", "cloned"],
)
def test_ties_hold(X, copy):
    autoencoder = copy(make(tied_weights=True, hidden_layer_sizes=(3,)).fit(X))
    w1, w2, w3, w4 = autoencoder.coefs_
    assert np.shares_memory(w1, w4)
    assert np.shares_memory(w2, w3)
    np.testing.assert_array_equal(w1, w4.T)
    np.testing.assert_array_equal(w2, w3.T)


# --- kinds of input -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_type_is_kept(X, dtype):
    data = X.astype(dtype)
    autoencoder = make().fit(data)
    codes = autoencoder.transform(data)
    results = [codes, autoencoder.inverse_transform(codes)]
    results += [autoencoder.score_samples(data), autoencoder.score_features(data)]
    results += autoencoder.coefs_ + autoencoder.intercepts_
    assert {result.dtype for result in results} == {np.dtype(dtype)}


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_sparse_rows_are_dense_rows(digits, container, distribution):
    data = inside(distribution, digits[:300])
    dense = make(distribution=distribution).fit(data)
    thin = make(distribution=distribution).fit(container(data))
    np.testing.assert_array_equal(dense.coefs_[0], thin.coefs_[0])
    scores = ["score_samples", "score_features"] * (distribution in LIKELIHOODS)
    for method in ("transform", "reconstruction_error", *scores):
        expected = getattr(dense, method)(data)
        np.testing.assert_array_equal(getattr(thin, method)(container(data)), expected)


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda X: X[:, ::-1][:, ::-1]])
def test_memory_layout_does_not_matter(X, layout):
    np.testing.assert_array_equal(
        make().fit(layout(X)).coefs_[0], make().fit(X).coefs_[0]
    )


def test_read_only_memory_map(X, tmp_path):
    joblib.dump(X, tmp_path / "X.joblib")
    mapped = joblib.load(tmp_path / "X.joblib", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    fitted = make().fit(mapped)
    np.testing.assert_array_equal(fitted.coefs_[0], make().fit(X).coefs_[0])
    joblib.dump(fitted, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    np.testing.assert_array_equal(again.transform(mapped), fitted.transform(X))
    again.set_params(warm_start=True, max_iter=1).fit(X)


def test_pandas():
    pandas = pytest.importorskip("pandas")
    frame = load_iris(as_frame=True).data
    autoencoder = make().set_output(transform="pandas").fit(frame)
    codes = autoencoder.transform(frame.iloc[5:])
    assert list(codes.columns) == ["denoisingautoencoder0", "denoisingautoencoder1"]
    pandas.testing.assert_index_equal(codes.index, frame.index[5:])
    assert list(autoencoder.feature_names_in_) == list(frame.columns)
    back = autoencoder.inverse_transform(codes.to_numpy())
    assert back.shape == (145, 4)
    with pytest.raises(ValueError, match="feature names"):
        autoencoder.transform(frame.rename(columns={frame.columns[0]: "other"}))
    with pytest.raises(ValueError, match="feature names"):
        autoencoder.transform(frame[frame.columns[::-1]])


def test_polars(X):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(X, schema=["a", "b", "c", "d"])
    autoencoder = make().set_output(transform="polars").fit(frame)
    codes = autoencoder.transform(frame)
    assert codes.columns == ["denoisingautoencoder0", "denoisingautoencoder1"]
    np.testing.assert_array_equal(codes.to_numpy(), make().fit(X).transform(X))


def test_one_row_and_one_column():
    for data in (np.ones((1, 1)), np.arange(3.0)[None], np.arange(3.0)[:, None]):
        autoencoder = make().fit(data)
        assert np.isfinite(autoencoder.transform(data)).all()
        assert np.isfinite(autoencoder.score_samples(data)).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_and_tiny_scales(X, scale, dtype):
    data = (X * scale).astype(dtype)
    autoencoder = make().fit(data)
    expected = make().fit(X.astype(dtype)).score(X.astype(dtype)) - 4 * np.log(scale)
    assert autoencoder.score(data) == pytest.approx(expected, rel=1e-3)
    back = autoencoder.inverse_transform(autoencoder.transform(data))
    assert np.isfinite(back).all()
    assert back.dtype == dtype


def test_state_is_plain(X):
    autoencoder = make(hidden_layer_sizes=(3,)).fit(X)
    autoencoder.partial_fit(X)
    plain = (np.ndarray, int, float, str, bool, type(None), np.generic)

    def check(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for item in value:
                check(item)
        else:
            assert isinstance(value, plain), type(value)

    check(vars(autoencoder))


def test_pickle_in_another_process(X, tmp_path):
    autoencoder = make().fit(X)
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps((autoencoder, X[:3])))
    code = (
        "import pickle, sys; m, x = pickle.load(open(sys.argv[1], 'rb')); "
        "print(m.transform(x).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(autoencoder.transform(X[:3]).tolist())


# --- scikit-learn's machinery ---------------------------------------------------------


def test_grid_search_needs_no_scorer(X):
    pipeline = make_pipeline(StandardScaler(), make(max_iter=100))
    grid = {
        "denoisingautoencoder__n_components": [1, 3],
        "denoisingautoencoder__corruption_level": [0.0, 0.1],
    }
    folds = KFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(pipeline, grid, cv=folds).fit(X)
    assert search.best_params_["denoisingautoencoder__n_components"] == 3
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_parallel_search_gives_the_same_scores(X):
    grid = {"corruption": ["masking", "swap"]}
    scores = [
        GridSearchCV(make(max_iter=3), grid, cv=2, n_jobs=n_jobs).fit(X).cv_results_
        for n_jobs in (1, 2)
    ]
    np.testing.assert_allclose(
        scores[0]["mean_test_score"], scores[1]["mean_test_score"], rtol=1e-12
    )


def test_parameters_of_the_parts_are_in_reach(X):
    autoencoder = make(solver=Adam())
    autoencoder.set_params(solver__beta_1=0.5)
    assert autoencoder.get_params()["solver__beta_1"] == 0.5
    assert clone(autoencoder).solver.beta_1 == 0.5


def test_metadata_routing(X):
    weight = np.random.default_rng(0).integers(0, 3, len(X))
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=True),
            make().set_fit_request(sample_weight=True),
        )
        routed = pipeline.fit(X, sample_weight=weight)[-1]
    scaler = StandardScaler().fit(X, sample_weight=weight)
    expected = make().fit(scaler.transform(X), sample_weight=weight)
    np.testing.assert_array_equal(routed.coefs_[0], expected.coefs_[0])
    assert not hasattr(make(), "set_inverse_transform_request")


@pytest.mark.parametrize(
    "method",
    [
        "transform",
        "inverse_transform",
        "reconstruction_error",
        "score",
        "score_samples",
        "score_features",
    ],
)
def test_not_fitted(X, method):
    with pytest.raises(NotFittedError):
        getattr(make(), method)(X)
    assert not hasattr(make(), "coefs_")


# --- bad input ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_components": 0}, "'n_components'"),
        ({"n_components": 2.5}, "'n_components'"),
        ({"n_components": True}, "n_components=True must be an integer"),
        ({"hidden_layer_sizes": (True, 5)}, "hidden_layer_sizes=.* positive integers"),
        ({"hidden_layer_sizes": (True,)}, "hidden_layer_sizes=.* positive integers"),
        ({"hidden_layer_sizes": (3, 0)}, "hidden_layer_sizes=.* positive integers"),
        ({"hidden_layer_sizes": ((3, 2),)}, "hidden_layer_sizes=.* positive integers"),
        ({"hidden_layer_sizes": ["a"]}, "hidden_layer_sizes=.* positive integers"),
        ({"hidden_layer_sizes": (2.5,)}, "hidden_layer_sizes=.* positive integers"),
        ({"activation": "gelu"}, "'activation'"),
        ({"corruption": "fog"}, "'corruption'"),
        ({"corruption_level": -0.1}, "'corruption_level'"),
        ({"corruption_level": 1.1}, r"corruption_level=1.1 is outside \[0, 1\]"),
        ({"distribution": "fog"}, "'distribution'"),
        (
            {"tied_weights": True, "distribution": "heteroscedastic_gaussian"},
            "tied_weights=True needs one output for each column",
        ),
        ({"alpha": -1}, "'alpha'"),
        ({"solver": "newton"}, "'solver'"),
        ({"solver": Adam(beta_1=1.5)}, "'beta_1' parameter of Adam"),
        ({"solver": "lbfgs", "corruption_level": 0.1}, "set corruption_level=0"),
        ({"batch_size": 0}, "'batch_size'"),
        ({"learning_rate": "slow"}, "'learning_rate'"),
        ({"learning_rate_init": 0}, "'learning_rate_init'"),
        ({"max_iter": 0}, "'max_iter'"),
        ({"tol": -1}, "'tol'"),
        ({"validation_fraction": 1.0}, "'validation_fraction'"),
        ({"n_iter_no_change": 0}, "'n_iter_no_change'"),
        ({"random_state": "seed"}, "'random_state'"),
    ],
    ids=str,
)
def test_bad_parameters(X, params, message):
    autoencoder = make(**params)
    with pytest.raises(ValueError, match=message):
        autoencoder.fit(X)
    assert not [name for name in vars(autoencoder) if name.endswith("_")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([[0.0, 1.0], [np.nan, 0.0]], "NaN"),
        ([[0.0, 1.0], [np.inf, 0.0]], "infinity"),
        ([[0.0, 1.0], [0.5, 1.5]], r"Column 1 holds 1.5, .* needs values in \[0, 1\]"),
        ([[0.0, 1.0], [-0.5, 0.0]], "Negative values in data: column 0 holds -0.5"),
        ([0.0, 1.0], "Reshape your data"),
    ],
)
def test_bad_data(data, message):
    with pytest.raises(ValueError, match=message):
        make(distribution="bernoulli").fit(data)
    good = make(distribution="bernoulli").fit([[0.0, 1.0], [1.0, 0.0]])
    for method in ("transform", "score_samples", "score"):
        with pytest.raises(ValueError, match=message):
            getattr(good, method)(data)


def test_a_column_is_called_by_its_name():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"smoker": [0.0, 1.0], "age": [30.0, 50.0]})
    with pytest.raises(ValueError, match=r"Column 1 \('age'\) holds 30, but"):
        make(distribution="bernoulli").fit(frame)


def test_wrong_number_of_columns(X):
    autoencoder = make().fit(X)
    with pytest.raises(ValueError, match="X has 3 features, but Denoising"):
        autoencoder.transform(X[:, :3])
    with pytest.raises(ValueError, match="4 columns, but codes have n_components=2 co"):
        autoencoder.inverse_transform(X)


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, 1e200, 1e-200])
def test_bad_weights(X, weight):
    given = np.full(len(X), weight)
    with pytest.raises(ValueError, match="weight"):
        make().fit(X, sample_weight=given)
    with pytest.raises(ValueError, match="weight"):
        make().fit(X).score(X, sample_weight=given)


def test_extreme_columns_are_named():
    data = np.array([[1.0, 1e300], [2.0, -1e300], [3.0, 0.0]])
    with pytest.raises(ValueError, match=r"Column 1 ranges from -1e\+300 to 1e\+300"):
        make().fit(data)


#: A bounded and an unbounded loss meet every solver. The other distributions meet one
#: whose steps grow with the gradient, and one whose steps do not.
DIVERGING = [
    (distribution, solver)
    for distribution in DISTRIBUTIONS
    for solver in OPTIMIZERS
    if distribution in ("bernoulli", "gaussian") or solver in ("adam", "sgd")
]


@pytest.mark.parametrize(("distribution", "solver"), DIVERGING)
@pytest.mark.parametrize("max_iter", [1, 20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_divergence_is_one_clear_error(X, solver, max_iter, distribution, dtype):
    levels = np.round(16 * (X - X.min(axis=0)) / np.ptp(X, axis=0))
    data = inside(distribution, levels).astype(dtype)
    params = {"solver": solver, "learning_rate_init": 1e7, "distribution": distribution}
    message = f"Training diverged in epoch ([1-9]|1[0-9]|{max_iter}): .*To mend this, "
    autoencoder = make(max_iter=max_iter, activation="relu", **params)
    with pytest.raises(ValueError, match=message + "reduce learning_rate_init=1000000"):
        autoencoder.fit(data)
    with pytest.raises(NotFittedError):
        autoencoder.transform(data)
    with pytest.raises(ValueError, match=r"Training diverged in epoch 1: "):
        autoencoder.partial_fit(data)


def test_repeated_rows_are_corrupted_each_for_itself():
    X = np.zeros((1000, 3))
    X[-10:] = 1.0
    params = {"corruption": "swap", "corruption_level": 0.3, "batch_size": 1000}
    params |= {"distribution": "bernoulli", "learning_rate_init": 0.02}
    autoencoder = make(1, max_iter=1000, **params).fit(X)
    assert autoencoder.score(X) > -0.05


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-200, 1e160, 1e300])
def test_columns_out_of_range_are_one_clear_error(X, scale):
    with pytest.raises(ValueError, match="Column 0 ranges from"):
        make().fit(X * scale)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_far_from_all_others_have_no_likelihood(X, dtype):
    autoencoder = make(activation="relu", max_iter=200, tol=1.0).fit(X.astype(dtype))
    far = np.full((1, 4), np.finfo(dtype).max / 4, dtype)
    assert autoencoder.score_samples(far)[0] == -np.inf
    autoencoder.inverse_transform(autoencoder.transform(X.astype(dtype)) * dtype(1e30))


def test_using_a_fitted_model_needs_no_training_parameter(X):
    autoencoder = make().fit(X)
    expected = autoencoder.transform(X)
    autoencoder.set_params(corruption="fog", corruption_level=7, n_components=9)
    np.testing.assert_array_equal(autoencoder.transform(X), expected)


def test_warm_start_checks_the_units_in_its_own_type(X):
    autoencoder = make(warm_start=True).fit(X.astype(np.float32))
    with pytest.raises(ValueError, match="cannot be represented in float32"):
        autoencoder.fit(X * 1e100)
    assert autoencoder.fit(X).coefs_[0].dtype == np.float32


def test_a_failed_fit_leaves_the_earlier_one(X):
    autoencoder = make().fit(X)
    before = pickle.dumps(autoencoder)
    for bad in (X * np.nan, np.ones((5, 7)) * [1e300, 1, 1, 1, 1, 1, -1]):
        with pytest.raises(ValueError, match=r"NaN|ranges"):
            autoencoder.fit(np.vstack([bad, -bad]))
    autoencoder.set_params(solver="sgd", learning_rate_init=1e6, warm_start=True)
    with pytest.raises(ValueError, match="diverged"):
        autoencoder.fit(X)
    earlier = pickle.loads(before)
    np.testing.assert_array_equal(autoencoder.transform(X), earlier.transform(X))
    assert autoencoder.loss_curve_ == earlier.loss_curve_
