import numpy as np
import pytest
from numerical import TOLERANCE, directional_difference
from scipy import special

from skae.activations import ACTIVATIONS, SELU_ALPHA, SELU_SCALE

#: Each activation in the words of another library.
TRUTH = {
    "identity": lambda z: z,
    "logistic": special.expit,
    "tanh": np.tanh,
    "relu": lambda z: np.where(z > 0, z, 0.0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, special.expm1(z)),
    "selu": lambda z: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * special.expm1(z)),
    "softplus": lambda z: -special.log_expit(-z),
    "softsign": lambda z: z / (1 + np.abs(z)),
}
GRID = np.linspace(-4, 4, 80).reshape(
    8, 10
)  # zero, where some have a kink, is not on it

every = pytest.mark.parametrize("name", ACTIVATIONS)


def apply(name, z):
    a = z.copy()
    ACTIVATIONS[name].apply(a, np.full_like(a, np.nan))
    return a


@every
def test_value(name):
    np.testing.assert_allclose(apply(name, GRID), TRUTH[name](GRID), atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["elu", "selu", "softplus"])
def test_small_values_keep_their_digits(name, dtype):
    size = np.logspace(-30, 1.9, 2000)
    z = np.concatenate([-size, size, [0.0]]).astype(dtype)
    truth = TRUTH[name](z.astype(np.float64))
    error = np.abs(apply(name, z) - truth)
    assert (error <= 8 * np.spacing(np.abs(truth).astype(dtype))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_small_slopes_of_softplus_keep_their_digits(dtype):
    z = np.linspace(-60, 60, 1001, dtype=dtype)
    a, d = apply("softplus", z), np.ones_like(z)
    ACTIVATIONS["softplus"].chain(a, d, np.empty_like(a))
    error = np.abs(d - -np.expm1(-a.astype(np.float64)))
    assert (error <= 8 * np.spacing(d)).all()


@every
def test_derivative_from_the_output(name):
    a, d = apply(name, GRID), np.ones_like(GRID)
    before = a.copy()
    ACTIVATIONS[name].chain(a, d, np.full_like(a, np.nan))
    expected = directional_difference(
        lambda z: apply(name, z), GRID, np.ones_like(GRID)
    )
    np.testing.assert_allclose(d, expected, rtol=TOLERANCE, atol=1e-9)
    np.testing.assert_array_equal(a, before)


@every
def test_chain_multiplies(name):
    a, d = apply(name, GRID), np.ones_like(GRID)
    tripled = np.full_like(GRID, 3.0)
    ACTIVATIONS[name].chain(a, d, np.empty_like(a))
    ACTIVATIONS[name].chain(a, tripled, np.empty_like(a))
    np.testing.assert_allclose(tripled, 3 * d, rtol=1e-14)


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_finite_input_is_safe(name, dtype):
    largest = np.finfo(dtype).max
    z = np.array([[-largest, -1e3, -50.0, 0.0, 50.0, 1e3, largest]], dtype)
    a, d, scratch = z.copy(), np.ones_like(z), np.empty_like(z)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        ACTIVATIONS[name].apply(a, scratch)
        ACTIVATIONS[name].chain(a, d, scratch)
    assert np.isfinite(a).all()
    assert np.isfinite(d).all()
    assert a.dtype == d.dtype == dtype


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("tanh", np.sqrt(6 / 50)),
        ("logistic", 4 * np.sqrt(6 / 50)),
        ("relu", np.sqrt(6 / 20)),
        ("selu", np.sqrt(3 / 20)),
        ("identity", np.sqrt(6 / 50)),
    ],
)
def test_initial_bound(name, bound):
    assert ACTIVATIONS[name].bound(20, 30) == pytest.approx(bound)


def test_truth_covers_the_registry():
    assert set(TRUTH) == set(ACTIVATIONS)
