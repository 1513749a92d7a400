import numpy as np
import pytest
from numerical import check_gradient

from skae.bottlenecks import Deterministic, GaussianPosterior

BOTTLENECKS = [
    Deterministic(),
    GaussianPosterior(),
    GaussianPosterior(beta=0.3, n_samples=4),
]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("bottleneck", BOTTLENECKS, ids=repr)
def test_gradient(bottleneck, rng):
    n, k, n_samples = 6, 3, bottleneck.n_samples
    h = rng.standard_normal((n, k * bottleneck.outputs_per_unit))
    noise = bottleneck.draw((n, n_samples, k), h.dtype, rng)
    d_z, weight = (
        rng.standard_normal((n, n_samples, k)),
        rng.uniform(size=(n, n_samples)),
    )
    z, cost, d_h = (
        np.full_like(d_z, np.nan),
        np.full_like(weight, np.nan),
        np.full_like(h, np.nan),
    )

    def loss(h):
        bottleneck.forward(h, noise, z, cost)
        return float(np.sum(z * d_z) + np.sum(cost * weight))

    bottleneck.backward(h, noise, d_z, weight, d_h)
    check_gradient(loss, d_h, h)


def test_deterministic_code_is_the_encoder_s_output(rng):
    h, z, cost = rng.standard_normal((4, 2)), np.empty((4, 1, 2)), np.empty((4, 1))
    bottleneck = Deterministic()
    bottleneck.forward(h, bottleneck.draw((4, 1, 2), h.dtype, rng), z, cost)
    np.testing.assert_array_equal(z[:, 0], h)
    np.testing.assert_array_equal(bottleneck.code(h), h)
    assert not cost.any()
    assert not bottleneck.is_random


def test_divergence_from_the_prior():
    # KL(N(3.14, 2.7^2) || N(0, 1)) and its derivatives, in closed form.
    h = np.array([[3.14, np.log(2.7**2)]])
    z, cost, d_h = np.empty((1, 1, 1)), np.empty((1, 1)), np.empty_like(h)
    bottleneck, noise = GaussianPosterior(), np.zeros((1, 1, 1))
    bottleneck.forward(h, noise, z, cost)
    expected = 0.5 * (3.14**2 + 2.7**2 - 1) - np.log(2.7)
    assert cost[0, 0] == pytest.approx(expected)
    assert cost[0, 0] == pytest.approx(7.08155, abs=1e-5)
    bottleneck.backward(h, noise, np.zeros_like(z), np.ones((1, 1)), d_h)
    # d/d log sigma^2 is sigma / 2 times the derivative by sigma, 2.7 - 1 / 2.7.
    np.testing.assert_allclose(d_h, [[3.14, 0.5 * 2.7 * (2.7 - 1 / 2.7)]])


def test_gaussian_codes_have_the_posterior_s_moments(rng):
    h = np.array([[1.5, np.log(0.25)]])
    bottleneck = GaussianPosterior(n_samples=100_000)
    z, cost = np.empty((1, 100_000, 1)), np.empty((1, 100_000))
    noise = bottleneck.draw(z.shape, h.dtype, rng)
    bottleneck.forward(h, noise, z, cost)
    assert z.mean() == pytest.approx(1.5, abs=0.01)
    assert z.std() == pytest.approx(0.5, rel=0.01)
    np.testing.assert_array_equal(bottleneck.code(h), [[1.5]])
