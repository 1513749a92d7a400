"""Checks that compare a derivative with differences of its function.

They are meant for the members of every family, those of other packages included:
``check_distribution(MyDistribution())`` and so on.
"""

import numpy as np

from skae.distributions import Distribution

#: Largest relative error that a correct derivative may show.
TOLERANCE = 1e-6


def directional_difference(function, point, direction, step=1e-5):
    """Differentiate along a direction by the central formula of fourth order.

    The step is short, so that it hardly ever crosses the kink of a piecewise function.
    """
    near = function(point + step * direction) - function(point - step * direction)
    far = function(point + 2 * step * direction) - function(
        point - 2 * step * direction
    )
    return (8 * near - far) / (12 * step)


def check_gradient(function, gradient, point, seed=0, tolerance=TOLERANCE):
    """Compare `gradient` at `point` with differences along a random direction."""
    direction = np.random.default_rng(seed).standard_normal(point.shape)
    expected = directional_difference(function, point, direction)
    actual = float(np.sum(gradient * direction))
    error = abs(actual - expected) / max(abs(actual), abs(expected), 1e-12)
    assert error < tolerance, f"derivative {actual}, differences {expected}: {error}"


def support_sample(distribution: Distribution, shape, rng):
    """Draw data inside the support of a distribution."""
    low, high = distribution.support.low, distribution.support.high
    if np.isfinite(low) and np.isfinite(high):
        return rng.uniform(low, high, shape)
    x = rng.standard_normal(shape)
    if np.isfinite(low):
        return low + np.abs(x)
    return high - np.abs(x) if np.isfinite(high) else x


def check_distribution(distribution: Distribution, seed=0):
    """Check gradient, ``out=`` and broadcasting of a distribution."""
    rng = np.random.default_rng(seed)
    n_rows, n_samples, n_features = 7, 3, 5
    n_outputs = n_features * distribution.outputs_per_feature
    x = support_sample(distribution, (n_rows, 1, n_features), rng)
    eta = rng.standard_normal((n_rows, n_samples, n_outputs))
    scale = rng.uniform(0.5, 2.0, n_features)
    nll = np.full((n_rows, n_samples, n_features), np.nan)
    gradient = np.full(eta.shape, np.nan)

    def total(eta):
        distribution.nll(x, eta, scale, nll)
        return nll.sum()

    before = x.copy(), eta.copy()
    total(eta)
    distribution.gradient(x, eta, scale, gradient)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(eta, before[1])
    check_gradient(total, gradient, eta, seed)
