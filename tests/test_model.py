import numpy as np
import pytest
from scipy import sparse, stats

from skae.bottlenecks import Deterministic
from skae.model import BLOCK, Model, Plan
from skae.rows import Columns, Rows

N_FEATURES = 5


@pytest.fixture
def X():
    rng = np.random.default_rng(0)
    X = rng.normal(3.0, [1.0, 0.1, 50.0, 2.0, 1.0], (2 * BLOCK + 30, N_FEATURES))
    X[:, 4] = 7.0
    return X


def make(X, standardize=True, distribution="gaussian", tied=False):
    plan = Plan([N_FEATURES, 4, 2], ["tanh", "tanh"], tied, distribution, standardize)
    rng = np.random.default_rng(1)
    return Model.start(plan, Deterministic(), Columns.of(Rows(X)), X.dtype, rng)


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


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_rows_of_any_block_have_the_same_code_to_the_last_bit(X, container):
    model, data = make(X), container(X)
    together = model.encode(data)
    for i in (0, 1, BLOCK - 1, BLOCK, len(X) - 1):
        np.testing.assert_array_equal(model.encode(data[[i]])[0], together[i])
    order = np.random.default_rng(2).permutation(len(X))
    np.testing.assert_array_equal(model.encode(data[order]), together[order])


def test_codes_decode_alike_in_any_company(X):
    model = make(X)
    z = model.encode(X)
    together = model.decode(z)
    np.testing.assert_array_equal(model.decode(z[3:4])[0], together[3])
    np.testing.assert_array_equal(model.decode(z[::-1]), together[::-1])


def log_likelihood(model, X):
    out = np.full(X.shape, np.nan)
    for place, values in model.log_likelihood(X):
        out[place] = values
    return out


@pytest.mark.parametrize("standardize", [True, False])
def test_log_likelihood_is_a_density_in_the_units_of_x(X, standardize):
    model = make(X, standardize)
    model.noise_variance = model.estimate_noise(model.rows(X))
    normal = stats.norm(model.decode(model.encode(X)), np.sqrt(model.noise_variance))
    np.testing.assert_allclose(log_likelihood(model, X), normal.logpdf(X), rtol=1e-9)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_noise_is_that_of_the_residuals_and_one_imagined_row(X, standardize, weighted):
    model = make(X, standardize)
    weight = np.random.default_rng(3).uniform(1, 2, len(X)) if weighted else None
    square = np.square(X - model.decode(model.encode(X)))
    mean, size = np.average(square, axis=0, weights=weight), len(X)
    expected = (size * mean + X.var(axis=0)) / (size + 1)
    expected[4] = 7.0**2  # a constant column is as uncertain as it is large
    noise = model.estimate_noise(model.rows(X, None, weight))
    np.testing.assert_allclose(noise, expected, rtol=1e-9)


def test_bernoulli_has_no_noise():
    X = np.random.default_rng(0).integers(0, 2, (50, N_FEATURES)).astype(float)
    model = make(X, False, "bernoulli")
    assert model.estimate_noise(model.rows(X)) is None


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
