import numpy as np
import pytest
from scipy import integrate, stats

from skae.draws import normal_draws


@pytest.mark.parametrize("n_components", [1, 3, 64, 100])
@pytest.mark.parametrize("n_samples", [1, 2, 63, 64, 100])
def test_draws_are_a_table_of_finite_numbers(n_samples, n_components):
    draws = normal_draws(n_samples, n_components)
    assert draws.shape == (n_samples, n_components)
    assert draws.dtype == np.float64
    assert np.isfinite(draws).all()


@pytest.mark.parametrize("n_components", [1, 3, 64, 100])
def test_draws_are_the_same_in_every_call(n_components):
    state = np.random.mtrand._rand.get_state()[1].copy()
    first, second = (normal_draws(100, n_components) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(np.random.mtrand._rand.get_state()[1], state)


@pytest.mark.parametrize("n_samples", [1, 5, 64, 100])
def test_fewer_draws_are_the_first_of_more(n_samples):
    more = normal_draws(1000, 3)
    np.testing.assert_array_equal(normal_draws(n_samples, 3), more[:n_samples])


@pytest.mark.parametrize("n_components", [1, 3, 64, 100])
def test_moments_are_those_of_standard_normals(n_components):
    draws = normal_draws(4096, n_components)
    assert np.abs(draws.mean(axis=0)).max() < 2e-3
    # The worst of 4950 pairs would be at about 0.06 for pseudo-random draws.
    covariance = np.cov(draws.T, bias=True).reshape(n_components, n_components)
    assert np.abs(covariance - np.eye(n_components)).max() < 0.08
    assert np.abs(np.diag(covariance) - 1).max() < 5e-3


def test_each_component_is_normal():
    draws = normal_draws(1024, 8)
    for column in draws.T:
        assert stats.kstest(column, "norm").statistic < 2 / 1024
    assert len(np.unique(draws)) == draws.size


def test_extreme_draws_stay_finite():
    draws = normal_draws(2**17, 2)
    assert np.isfinite(draws).all()
    assert 4.0 < np.abs(draws).max() < 6.5  # the spacing of the points is 2^-30


def smooth(z):
    return np.exp(0.4 * z[..., 0] - 0.3 * z[..., 1] - 0.2 * z[..., 0] * z[..., 1])


@pytest.mark.parametrize("n_samples", [64, 256, 1024])
def test_draws_integrate_better_than_pseudo_random_ones(n_samples):
    def density(x, y):
        z = np.array([x, y])
        return smooth(z) * np.exp(-0.5 * z @ z) / (2 * np.pi)

    exact = integrate.dblquad(density, -9, 9, -9, 9, epsabs=1e-6)[0]
    error = abs(smooth(normal_draws(n_samples, 2)).mean() - exact)
    pseudo = np.random.default_rng(0).standard_normal((200, n_samples, 2))
    usual = np.sqrt(np.mean(np.square(smooth(pseudo).mean(axis=1) - exact)))
    assert error < 0.5 * usual
