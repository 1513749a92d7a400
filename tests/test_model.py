import numpy as np
import pytest
from scipy import sparse, stats

from skae.bottlenecks import Deterministic, GaussianPosterior
from skae.model import BLOCK, Model, Plan
from skae.rows import Columns, Rows

N_FEATURES = 5


def RNG():
    return np.random.default_rng(1)


@pytest.fixture
def X():
    rng = np.random.default_rng(0)
    X = rng.normal(3.0, [1.0, 0.1, 50.0, 2.0, 1.0], (2 * BLOCK + 30, N_FEATURES))
    X[:, 4] = 7.0
    return X


def make(X, standardize=True, distribution="gaussian", tied=False):
    plan = Plan([N_FEATURES, 4, 2], ["tanh", "tanh"], tied, distribution, standardize)
    return Model.start(plan, Deterministic(), Columns.of(Rows(X)), X.dtype, RNG())


@pytest.mark.parametrize("standardize", [True, False])
def test_the_output_starts_at_the_mean(X, standardize):
    model = make(X, standardize)
    model.theta[: model.objective.weights.size] = 0.0
    z = np.zeros((1, 2))
    np.testing.assert_allclose(model.decode(z)[0], X.mean(axis=0), rtol=1e-12)


def test_the_bernoulli_output_starts_at_the_mean():
    X = np.random.default_rng(0).integers(0, 2, (10_000, N_FEATURES)).astype(float)
    model = make(X, False, "bernoulli")
    model.theta[: model.objective.weights.size] = 0.0
    np.testing.assert_allclose(
        model.decode(np.zeros((1, 2)))[0], X.mean(axis=0), atol=1e-4
    )


def test_noise_is_never_below_a_small_fraction_of_the_spread(X):
    plan = Plan([N_FEATURES, N_FEATURES], ["identity"], True, "gaussian", True)
    columns = Columns.of(Rows(X))
    model = Model.start(plan, Deterministic(), columns, X.dtype, RNG())
    model.theta[...] = 0.0
    np.fill_diagonal(model.objective.encoder.of(model.theta)[0][0], 1.0)
    noise = model.assess(model.rows(X))[1]
    np.testing.assert_allclose(noise[:4], 1e-6 * X.var(axis=0)[:4], rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_features", [1, 5, 33, 257])
@pytest.mark.parametrize("n_components", [1, 3, 129])
def test_rows_have_the_same_results_to_the_last_bit(dtype, n_features, n_components):
    rng = RNG()
    X = rng.standard_normal((2 * BLOCK + 30, n_features)).astype(dtype)
    plan = Plan([n_features, 21, n_components], ["tanh"] * 2, False, "gaussian", True)
    model = Model.start(plan, Deterministic(), Columns.of(Rows(X)), X.dtype, rng)
    order = rng.permutation(len(X))
    functions = [
        model.encode,
        lambda X: log_likelihood(model, X),
        lambda X: model.decode(model.encode(X)),
    ]
    for function in functions:
        together = function(X)
        np.testing.assert_array_equal(function(X[order]), together[order])
        np.testing.assert_array_equal(function(sparse.csr_array(X)), together)
        for i in (0, 1, BLOCK - 1, BLOCK, len(X) - 1):
            np.testing.assert_array_equal(function(X[[i]])[0], together[i])


@pytest.mark.parametrize("tied", [False, True])
def test_filling_up_changes_no_number(X, tied):
    model = make(X, tied=tied)
    objective = model.objective
    batch = objective.batch(len(X), X.dtype)
    model.rows(X).load(np.arange(len(X)), batch.x, batch.weight, 1.0)
    params = objective.of(model.theta)
    code = objective.encode(params, batch)
    np.testing.assert_allclose(model.encode(X), code, rtol=1e-12)
    eta = objective.decode(params, code.copy(), batch)
    model.rows(X).restore(eta)
    np.testing.assert_allclose(model.decode(code), eta, rtol=1e-12)


def test_a_code_with_two_blocks_of_outputs_is_filled_up_block_by_block(X):
    plan = Plan([N_FEATURES, 4, 3], ["tanh", "identity"], False, "gaussian", True)
    model = Model.start(plan, GaussianPosterior(), Columns.of(Rows(X)), X.dtype, RNG())
    objective = model.objective
    batch = objective.batch(len(X), X.dtype)
    model.rows(X).load(np.arange(len(X)), batch.x, batch.weight, 1.0)
    expected = objective.encode(objective.of(model.theta), batch)
    np.testing.assert_allclose(model.encode(X), expected, rtol=1e-12)


def log_likelihood(model, X):
    out = np.full(X.shape, np.nan)
    for place, values in model.log_likelihood(X):
        out[place] = values
    return out


@pytest.mark.parametrize("standardize", [True, False])
def test_log_likelihood_is_a_density_in_the_units_of_x(X, standardize):
    model = make(X, standardize)
    model.noise_variance = model.assess(model.rows(X))[1]
    normal = stats.norm(model.decode(model.encode(X)), np.sqrt(model.noise_variance))
    np.testing.assert_allclose(log_likelihood(model, X), normal.logpdf(X), rtol=1e-9)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_noise_is_that_of_the_residuals(X, standardize, weighted):
    model = make(X, standardize)
    weight = np.random.default_rng(3).uniform(1, 2, len(X)) if weighted else None
    square = np.square(X - model.decode(model.encode(X)))
    expected = np.average(square, axis=0, weights=weight)
    expected[4] = 7.0**2  # a constant column is as uncertain as it is large
    noise = model.assess(model.rows(X, None, weight))[1]
    np.testing.assert_allclose(noise, expected, rtol=1e-9)


def test_bernoulli_has_no_noise():
    X = np.random.default_rng(0).integers(0, 2, (50, N_FEATURES)).astype(float)
    model = make(X, False, "bernoulli")
    assert model.assess(model.rows(X))[1] is None


def test_mean_loss_is_the_loss_with_unit_scale(X):
    model = make(X)
    residual = (X - model.decode(model.encode(X))) / model.columns.unit
    expected = 0.5 * np.square(residual) + 0.5 * np.log(2 * np.pi)
    loss = model.mean_loss(model.rows(X))
    assert loss == pytest.approx(expected.sum(axis=1).mean(), rel=1e-9)


def test_float32_rows_through_a_float64_model(X):
    model = make(X)
    codes = model.encode(X.astype(np.float32))
    assert codes.dtype == np.float32
    np.testing.assert_allclose(codes, model.encode(X), atol=1e-4)
    assert model.decode(codes).dtype == np.float32
