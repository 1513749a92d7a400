import numpy as np
import pytest
from numerical import check_distribution, support_sample
from scipy import special, stats

from skae.distributions import DISTRIBUTIONS, Bernoulli, Distribution

#: The log-density of x given eta and the scale, in the words of another library.
TRUTH = {
    "bernoulli": lambda x, eta, scale: (
        x * special.log_expit(eta) + (1 - x) * special.log_expit(-eta)
    ),
    "gaussian": lambda x, eta, scale: stats.norm(eta, scale).logpdf(x),
}

every = pytest.mark.parametrize("name", DISTRIBUTIONS)


def nll(distribution, x, eta, scale):
    out = np.full(np.broadcast_shapes(x.shape, eta.shape), np.nan)
    distribution.nll(x, eta, scale, out)
    return out


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@every
def test_gradient(name):
    check_distribution(DISTRIBUTIONS[name]())


@every
def test_value(name, rng):
    distribution = DISTRIBUTIONS[name]()
    x = support_sample(distribution, (20, 6), rng)
    eta, scale = 3 * rng.standard_normal((20, 6)), rng.uniform(0.1, 3, 6)
    expected = -TRUTH[name](x, eta, scale)
    actual = nll(distribution, x, eta, scale)
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)


@every
def test_start_gives_the_mean(name, rng):
    distribution = DISTRIBUTIONS[name]()
    mean = support_sample(distribution, (6,), rng)
    eta = distribution.start(mean, 1e12)
    np.testing.assert_allclose(distribution.mean(eta), mean, rtol=1e-9)


@every
def test_start_is_finite_at_the_ends_of_the_support(name):
    distribution = DISTRIBUTIONS[name]()
    ends = np.clip([distribution.support.low, distribution.support.high], -1e30, 1e30)
    assert np.isfinite(distribution.start(ends, 10)).all()


@pytest.mark.parametrize("name", ["bernoulli", "gaussian"])
def test_the_data_s_mean_minimises_the_loss(name, rng):
    distribution = DISTRIBUTIONS[name]()
    x = support_sample(distribution, (500, 1), rng)
    eta = np.broadcast_to(distribution.start(x.mean(axis=0), 1e12), x.shape)
    out = np.empty_like(x)
    distribution.gradient(x, eta, 1.0, out)
    assert abs(out.mean()) < 1e-10


with_scale = pytest.mark.parametrize(
    "name", [name for name, cls in DISTRIBUTIONS.items() if cls.has_scale]
)


@with_scale
def test_scale_family(name, rng):
    distribution, one = DISTRIBUTIONS[name](), np.ones(3)
    x, eta = rng.standard_normal((2, 5, 3))
    expected = nll(distribution, x, eta, one) + np.log(7)
    scaled = nll(distribution, 7 * x, 7 * eta, 7 * one)
    np.testing.assert_allclose(scaled, expected, rtol=1e-12)


def estimated_scale(distribution, x, eta):
    deviation = np.full_like(x, np.nan)
    distribution.deviation(x, eta, deviation)
    return distribution.scale(deviation.mean(axis=0))


@with_scale
def test_estimated_scale_follows_the_unit(name, rng):
    distribution = DISTRIBUTIONS[name]()
    x, eta = rng.standard_normal((2, 50, 3))
    expected = 7 * estimated_scale(distribution, x, eta)
    np.testing.assert_allclose(estimated_scale(distribution, 7 * x, 7 * eta), expected)


def test_gaussian_scale_is_the_maximum_likelihood_estimate(rng):
    x, eta = rng.standard_normal((2, 400, 3)) * [1.0, 10.0, 0.1]
    expected = [stats.norm.fit(column, floc=0)[1] for column in (x - eta).T]
    actual = estimated_scale(DISTRIBUTIONS["gaussian"](), x, eta)
    np.testing.assert_allclose(actual, expected)


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_outputs_stay_finite(name, dtype):
    distribution = DISTRIBUTIONS[name]()
    eta = np.array([[-1e4, -100, 0, 100, 1e4]], dtype)
    x = np.zeros_like(eta)
    out = np.empty_like(eta)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        distribution.nll(x, eta, 1.0, out)
        assert np.isfinite(out).all()
        distribution.gradient(x, eta, 1.0, out)
        assert np.isfinite(out).all()


def test_bernoulli_of_certain_outcomes_costs_nothing():
    x, eta = np.array([[0.0, 1.0]]), np.array([[-800.0, 800.0]])
    np.testing.assert_array_equal(nll(Bernoulli(), x, eta, 1.0), 0.0)


def test_no_scale_means_no_estimate():
    with pytest.raises(NotImplementedError):
        Bernoulli().scale(np.ones(2))
    with pytest.raises(NotImplementedError):
        Bernoulli().deviation(np.ones(2), np.ones(2), np.ones(2))


def test_truth_covers_the_registry():
    assert set(TRUTH) == set(DISTRIBUTIONS)
    assert all(issubclass(cls, Distribution) for cls in DISTRIBUTIONS.values())
