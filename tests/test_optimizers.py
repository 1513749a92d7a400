import numpy as np
import pytest

from skae.optimizers import OPTIMIZERS, SCHEDULES, SGD, Adam, AdamW, longest

RATES = {"adadelta": 1.0, "adagrad": 0.5, "sgd": 0.01}
CURVATURE = np.array([1.0, 10.0, 0.1, 3.0])
TARGET = np.array([1.0, -2.0, 0.5, 0.0])

every = pytest.mark.parametrize("name", OPTIMIZERS)


def steps(optimizer, gradients, rate=0.1, theta=None):
    """Take a step for each gradient."""
    theta = np.zeros(len(gradients[0])) if theta is None else theta.copy()
    moments = optimizer.init(theta)
    for gradient in gradients:
        optimizer.decay([theta[: len(theta) // 2]], rate)
        optimizer.step(theta, gradient.copy(), moments, rate)
    return theta


def textbook(name, gradients, rate):
    """Follow each rule as its paper states it, one parameter at a time."""
    theta, a, b = 0.0, 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        if name == "sgd":
            a = 0.9 * a - rate * g
            theta += 0.9 * a - rate * g
        elif name == "rmsprop":
            a = 0.9 * a + 0.1 * g**2
            theta -= rate * g / (a**0.5 + 1e-8)
        elif name == "adagrad":
            a += g**2
            theta -= rate * g / (a**0.5 + 1e-8)
        elif name == "adadelta":
            a = 0.9 * a + 0.1 * g**2
            move = g * (b + 1e-6) ** 0.5 / (a + 1e-6) ** 0.5
            b = 0.9 * b + 0.1 * move**2
            theta -= rate * move
        else:
            if name == "adamw":
                theta *= 1 - rate * 0.01
            a, b = 0.9 * a + 0.1 * g, 0.999 * b + 0.001 * g**2
            theta -= rate * (a / (1 - 0.9**t)) / ((b / (1 - 0.999**t)) ** 0.5 + 1e-8)
    return theta


@every
def test_formula(name):
    gradients = np.random.default_rng(0).standard_normal((30, 2))
    actual = steps(OPTIMIZERS[name](), gradients, rate=0.1)
    assert actual[0] == pytest.approx(textbook(name, gradients[:, 0], 0.1), rel=1e-12)


@every
def test_agrees_with_pytorch(name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    cls = {
        "adadelta": (torch.optim.Adadelta, {"rho": 0.9, "eps": 1e-6}),
        "adagrad": (torch.optim.Adagrad, {"eps": 1e-8}),
        "adam": (torch.optim.Adam, {}),
        "adamw": (torch.optim.AdamW, {"weight_decay": 0.01}),
        "rmsprop": (torch.optim.RMSprop, {"alpha": 0.9}),
        "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    }[name]
    gradients = np.random.default_rng(1).standard_normal((20, 4))
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = cls[0]([theta], lr=0.01, **cls[1])
    for gradient in gradients:
        theta.grad = torch.tensor(gradient[:2])
        optimizer.step()
    actual = steps(OPTIMIZERS[name](), gradients, rate=0.01)[:2]
    np.testing.assert_allclose(actual, theta.detach().numpy(), rtol=1e-9)


@every
def test_finds_the_minimum_of_a_parabola(name):
    optimizer, theta = OPTIMIZERS[name](), np.zeros(4)
    moments = optimizer.init(theta)
    for k in range(4000):
        rate = RATES.get(name, 0.05) * (0.5 if k > 2000 else 1.0)
        rate *= 0.01 if name == "rmsprop" and k > 3000 else 1.0
        optimizer.step(theta, CURVATURE * (theta - TARGET), moments, rate)
    np.testing.assert_allclose(theta, TARGET, atol=0.02)


@every
def test_any_slice_can_be_stepped_alone(name):
    gradients = np.random.default_rng(2).standard_normal((5, 8))
    whole = steps(OPTIMIZERS[name](), gradients)
    theta, optimizer = np.zeros(8), OPTIMIZERS[name]()
    for place, n_weights in ((slice(0, 3), 3), (slice(3, 8), 1)):
        part = theta[place]
        moments = optimizer.init(part)
        for gradient in gradients:
            optimizer.decay([part[:n_weights]], 0.1)
            optimizer.step(part, gradient[place].copy(), moments, 0.1)
    np.testing.assert_array_equal(theta, whole)


@every
def test_only_places_that_are_named_move(name):
    gradients = np.random.default_rng(3).standard_normal((5, 8))
    start = np.random.default_rng(4).standard_normal(8)
    whole = steps(OPTIMIZERS[name](), gradients, theta=start)
    theta, optimizer = start.copy(), OPTIMIZERS[name]()
    moments = optimizer.init(theta)
    for gradient in gradients:
        optimizer.decay([theta[1:3]], 0.1)
        places = [slice(1, 3), slice(5, 7)]
        optimizer.step(theta, gradient.copy(), moments, 0.1, places)
    moved, rest = [1, 2, 5, 6], [0, 3, 4, 7]
    np.testing.assert_array_equal(theta[moved], whole[moved])
    np.testing.assert_array_equal(theta[rest], start[rest])
    assert not moments.arrays[:, rest].any()
    assert moments.n_steps == 5


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept(name, dtype):
    theta = np.ones(4, dtype)
    optimizer = OPTIMIZERS[name]()
    moments = optimizer.init(theta)
    optimizer.step(theta, np.ones(4, dtype), moments, 0.1)
    assert theta.dtype == moments.arrays.dtype == dtype
    assert moments.arrays.shape == (optimizer.n_moments, 4)
    assert moments.n_steps == 1


def test_classical_momentum():
    theta = steps(
        SGD(momentum=0.5, nesterovs_momentum=False), np.ones((2, 2)), rate=1.0
    )
    np.testing.assert_allclose(theta, -(1.0 + 1.5))


@pytest.mark.parametrize("nesterovs_momentum", [False, True])
def test_no_momentum_is_plain_gradient_descent(nesterovs_momentum):
    theta = steps(SGD(0.0, nesterovs_momentum), np.ones((3, 2)), rate=0.5)
    np.testing.assert_allclose(theta, -1.5)


def test_adamw_decays_weights_and_not_biases():
    start, still = np.ones(4), np.zeros((1, 4))
    theta = steps(AdamW(alpha=0.5), still, rate=0.1, theta=start)
    np.testing.assert_allclose(theta, [0.95, 0.95, 1.0, 1.0])
    np.testing.assert_array_equal(steps(Adam(), still, theta=start), start)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [1.0, 1.0, 1.0]),
        ("invscaling", [1.0, 2**-0.5, 3**-0.5]),
        ("cosine", [1.0, 0.75, 0.25]),
        ("adaptive", [1.0, 0.2, 0.04]),
    ],
)
def test_schedule(name, expected):
    factors = [SCHEDULES[name](k + 1, 3, 0.5, k) for k in range(3)]
    np.testing.assert_allclose(factors, expected)


@pytest.mark.parametrize("beta_1", [0.0, 1e-6, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_unit_of_averages_does_not_matter(dtype, beta_1):
    gradients = np.random.default_rng(0).standard_normal((200, 3))
    theta, m, v = np.zeros((3, 3))
    for t, g in enumerate(gradients, start=1):
        m, v = beta_1 * m + (1 - beta_1) * g, 0.99 * v + 0.01 * g**2
        corrected = np.sqrt(v / (1 - 0.99**t)) + 1e-8
        theta = theta - 0.1 * m / (1 - beta_1**t) / corrected
    found = steps(Adam(beta_1, 0.99), gradients.astype(dtype))
    rounding = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(found, theta, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("rest", [1, 7, 64, 100])
def test_other_rates_of_decay_can_go_on(rest, kind):
    gradients = np.random.default_rng(0).standard_normal((150, 3))
    ours, theirs = np.zeros(3), np.zeros(3)
    moments, m, v = kind().init(ours), np.zeros(3), np.zeros(3)
    for t, g in enumerate(gradients, start=1):
        beta = 0.9 if t <= rest else 0.5
        rule = kind(beta, 0.99 if t <= rest else 0.9, 1e-8)
        if t == rest + 1:
            kind(0.9, 0.99, 1e-8).rest(moments)
        rule.step(ours, g.copy(), moments, 0.1)
        m, v = beta * m + g, rule.beta_2 * v + g**2
        mean = m * (1 - beta) / (1 - beta**t)
        square = v * (1 - rule.beta_2) / (1 - rule.beta_2**t)
        theirs -= 0.1 * mean / (np.sqrt(square) + 1e-8)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize("keep", [0.0, 1e-6, 0.5, 0.9, 0.999, 0.999999])
def test_units_stay_small(keep):
    assert 1 <= longest(keep) <= 64
    if longest(keep) > 1:
        assert keep ** -(longest(keep) - 1) <= 1e4
