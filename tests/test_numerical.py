import numpy as np
import pytest
from numerical import check_distribution, check_gradient, directional_difference

from skae.distributions import Gaussian

POINT = np.array([0.3, -1.2, 0.8])


def function(theta):
    return float(np.sum(np.sin(theta) * np.exp(theta)))


def derivative(theta):
    return (np.sin(theta) + np.cos(theta)) * np.exp(theta)


def test_differences_are_accurate():
    direction = np.array([1.0, 2.0, -1.0])
    expected = derivative(POINT) @ direction
    assert directional_difference(function, POINT, direction) == pytest.approx(
        expected, rel=1e-10
    )


def test_right_derivative_passes():
    check_gradient(function, derivative(POINT), POINT)


def test_derivative_wrong_by_a_thousandth_fails():
    with pytest.raises(AssertionError, match="derivative"):
        check_gradient(function, derivative(POINT) * 1.001, POINT)


def test_one_wrong_entry_fails():
    wrong = derivative(POINT)
    wrong[1] *= 1.001
    with pytest.raises(AssertionError, match="derivative"):
        check_gradient(function, wrong, POINT)


def test_distribution_wrong_by_a_thousandth_fails():
    class Wrong(Gaussian):
        def gradient(self, x, eta, shared, d_eta, d_shared=None):
            super().gradient(x, eta, shared, d_eta, d_shared)
            d_eta *= 1.001

    with pytest.raises(AssertionError, match="derivative"):
        check_distribution(Wrong())
