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
    if distribution.sums_to_one:
        return np.eye(shape[-1])[rng.integers(shape[-1], size=shape[:-1])]
    support = distribution.support
    low, high = support.low, support.high
    x = rng.standard_normal(shape) * (4.0 if support.whole else 1.0)
    if np.isfinite(low) and np.isfinite(high):
        margin = 0.01 * (high - low) if support.open else 0.0
        x = rng.uniform(low + margin, high - margin, shape)
    elif np.isfinite(low):
        x = low + np.abs(x)
    elif np.isfinite(high):
        x = high - np.abs(x)
    return np.round(x) if support.whole else x


def check_distribution(distribution: Distribution, seed=0):
    """Check derivatives, ``out=`` and broadcasting of a distribution."""
    rng = np.random.default_rng(seed)
    n_rows, n_samples, n_features = 7, 3, 5
    x = support_sample(distribution, (n_rows, 1, n_features), rng)
    eta = rng.standard_normal((n_rows, n_samples, distribution.n_outputs(n_features)))
    shared = rng.uniform(-0.7, 0.7, distribution.n_shared(n_features))
    weight = rng.uniform(0.5, 2.0, (n_rows, n_samples, 1))
    nll = np.full((n_rows, n_samples, n_features), np.nan)
    d_eta, again = np.full((2, *eta.shape), np.nan)
    d_shared = np.full((n_rows, n_samples, len(shared)), np.nan)

    def total(eta, shared):
        distribution.nll(x, eta, shared, nll)
        return np.sum(weight * nll)

    before = x.copy(), eta.copy(), shared.copy()
    total(eta, shared)
    distribution.gradient(x, eta, shared, d_eta, d_shared)
    distribution.gradient(x, eta, shared, again)
    for array, copy in zip((x, eta, shared, again), (*before, d_eta), strict=True):
        np.testing.assert_array_equal(array, copy)
    assert distribution.mean(eta, shared).shape == nll.shape
    assert distribution.sample(eta, shared, rng).shape == nll.shape
    check_gradient(lambda eta: total(eta, shared), weight * d_eta, eta, seed)
    if len(shared):
        expected = np.sum(weight * d_shared, axis=(0, 1))
        check_gradient(lambda shared: total(eta, shared), expected, shared, seed)
