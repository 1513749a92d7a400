import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numerical import check_gradient, support_sample

from skae.activations import ACTIVATIONS
from skae.bottlenecks import Deterministic, GaussianPosterior
from skae.corruptions import CORRUPTIONS
from skae.distributions import DISTRIBUTIONS
from skae.model import Plan

N_ROWS, N_FEATURES = 9, 6
BOTTLENECKS = {
    "deterministic": Deterministic(),
    "gaussian": GaussianPosterior(),
    "three draws": GaussianPosterior(beta=0.5, n_samples=3),
}


class Case:
    """An objective with a drawn batch, ready to be evaluated at any parameters."""

    def __init__(
        self,
        distribution="gaussian",
        bottleneck="deterministic",
        activation="tanh",
        tied=False,
        corruption="masking",
        level=0.3,
        alpha=0.1,
        n_rows=N_ROWS,
        dtype=np.float64,
    ):
        rng = np.random.default_rng(0)
        plan = Plan([N_FEATURES, 5, 3], [activation] * 2, tied, distribution, False)
        self.objective, size = plan.objective(
            BOTTLENECKS[bottleneck], CORRUPTIONS[corruption](), level, alpha
        )
        self.theta = (0.4 * rng.standard_normal(size)).astype(dtype)
        self.batch = self.objective.batch(n_rows, self.theta.dtype)
        self.product = self.objective.product(self.theta.dtype)
        x = support_sample(DISTRIBUTIONS[distribution](), (n_rows, N_FEATURES), rng)
        self.batch.x[...] = x
        weight = rng.uniform(0.5, 2.0, n_rows)
        self.batch.weight[...] = weight / weight.sum()
        bounds = self.batch.x.min(axis=0), self.batch.x.max(axis=0)
        self.objective.draw(self.batch, bounds, rng)

    def evaluate(self, theta):
        grad = np.zeros_like(theta)
        params, grads = self.objective.of(theta), self.objective.of(grad)
        loss = self.objective.loss_and_gradient(params, self.batch, grads, self.product)
        return loss + self.objective.decay(params, grads, self.product), grad

    def loss(self, theta):
        return self.evaluate(theta)[0]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient(activation, corruption, distribution, tied):
    case = Case(distribution, "deterministic", activation, tied, corruption)
    check_gradient(case.loss, case.evaluate(case.theta)[1], case.theta)


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("level", [0.0, 0.4])
def test_gradient_of_every_bottleneck(level, alpha, distribution, bottleneck):
    case = Case(distribution, bottleneck, alpha=alpha, level=level)
    check_gradient(case.loss, case.evaluate(case.theta)[1], case.theta)


#: A code with two outputs per unit cannot be tied.
STRUCTURES = [
    ("deterministic", False),
    ("deterministic", True),
    ("gaussian", False),
    ("three draws", False),
]


@pytest.mark.parametrize(("bottleneck", "tied"), STRUCTURES)
def test_old_content_of_the_memory_does_not_matter(bottleneck, tied):
    case = Case(bottleneck=bottleneck, tied=tied)
    loss, grad = case.evaluate(case.theta)
    batch = case.batch
    for array in (batch.code, batch.d_code, batch.nll, batch.cost, batch.share):
        array.fill(np.nan)
    batch.loss.fill(np.nan)
    for tape in (batch.encoder, batch.decoder):
        for array in itertools.chain(tape.outputs, tape.deltas, tape.scratch):
            array.fill(np.nan)
    case.product.fill(np.nan)
    again, grad_again = case.evaluate(case.theta)
    assert again == loss
    np.testing.assert_array_equal(grad_again, grad)


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_row_phase_splits_over_rows(bottleneck):
    case = Case(bottleneck=bottleneck)
    _, grad = case.evaluate(case.theta)
    loss = case.batch.loss.copy()
    case.batch.loss.fill(np.nan)
    params, split = case.objective.of(case.theta), np.zeros_like(grad)
    for start, stop in ((0, 2), (2, 3), (3, N_ROWS)):
        case.objective.row_phase(params, case.batch.rows(start, stop))
    for part in ((0, 2), (1, 2)):
        case.objective.weight_phase(
            case.batch, case.objective.of(split), case.product, part
        )
    case.objective.decay(params, case.objective.of(split), case.product)
    np.testing.assert_allclose(case.batch.loss, loss, rtol=1e-12)
    np.testing.assert_allclose(split, grad, rtol=1e-10, atol=1e-14)


def test_phases_run_in_threads():
    case = Case(bottleneck="three draws")
    loss, grad = case.evaluate(case.theta)
    case.batch.loss.fill(np.nan)
    params, split = case.objective.of(case.theta), np.zeros_like(grad)
    parts = [case.batch.rows(3 * i, 3 * i + 3) for i in range(3)]

    def weights(i):
        product = case.objective.product(grad.dtype)
        grads = case.objective.of(split)
        case.objective.weight_phase(case.batch, grads, product, (i, 3))

    with ThreadPoolExecutor(3) as executor:
        list(executor.map(lambda part: case.objective.row_phase(params, part), parts))
        list(executor.map(weights, range(3)))
    penalty = case.objective.decay(params, case.objective.of(split), case.product)
    assert case.batch.weight @ case.batch.loss + penalty == pytest.approx(loss)
    np.testing.assert_allclose(split, grad, rtol=1e-10, atol=1e-14)


def test_weights_are_repetitions():
    case = Case(level=0.0, n_rows=4)
    case.batch.weight[...] = np.array([3, 1, 0, 2]) / 6
    loss, grad = case.evaluate(case.theta)
    repeated = Case(level=0.0, n_rows=6)
    repeated.batch.x[...] = case.batch.x[[0, 0, 0, 1, 3, 3]]
    repeated.batch.weight.fill(1 / 6)
    loss_repeated, grad_repeated = repeated.evaluate(case.theta)
    assert loss_repeated == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(grad_repeated, grad, rtol=1e-10, atol=1e-14)


def test_the_target_is_the_clean_row():
    clean, damaged = Case(level=0.0), Case(level=1.0)
    damaged.evaluate(clean.theta)
    np.testing.assert_array_equal(damaged.batch.x, clean.batch.x)
    assert not damaged.batch.x_in.any()
    eta = damaged.objective.forward(damaged.objective.of(clean.theta), damaged.batch)
    out = np.empty_like(damaged.batch.nll)
    damaged.objective.distribution.nll(clean.batch.x[:, None], eta, 1.0, out)
    np.testing.assert_array_equal(damaged.batch.nll, out)


def test_nothing_is_copied_without_corruption():
    batch = Case(level=0.0).batch
    assert batch.x_in is batch.x


def test_loss_per_row_is_the_sum_over_features():
    case = Case()
    case.evaluate(case.theta)
    np.testing.assert_allclose(case.batch.loss, case.batch.nll.sum(axis=(1, 2)))


def test_penalty_is_half_alpha_times_the_squared_weights():
    case, without = Case(alpha=0.7), Case(alpha=0.0)
    weights = case.theta[: case.objective.weights.size]
    difference = case.loss(case.theta) - without.loss(case.theta)
    assert difference == pytest.approx(0.35 * np.sum(weights**2))
    grads = case.evaluate(case.theta)[1] - without.evaluate(case.theta)[1]
    np.testing.assert_allclose(grads[: weights.size], 0.7 * weights, rtol=1e-9)
    assert not grads[weights.size :].any()


def test_the_loss_is_averaged_over_draws():
    case = Case(bottleneck="three draws")
    case.evaluate(case.theta)
    h, batch = case.batch.encoder.outputs[-1], case.batch
    cost = np.empty_like(batch.cost)
    case.objective.bottleneck.forward(h, batch.noise, batch.code, cost)
    expected = (batch.nll.sum(axis=2) + cost).mean(axis=1)
    np.testing.assert_allclose(batch.loss, expected)


def test_float32_agrees_with_float64():
    single, double = Case(dtype=np.float32, level=0.0), Case(level=0.0)
    loss, grad = single.evaluate(single.theta)
    loss64, grad64 = double.evaluate(single.theta.astype(np.float64))
    assert grad.dtype == np.float32
    assert loss == pytest.approx(loss64, rel=1e-5)
    np.testing.assert_allclose(grad, grad64, atol=1e-5)


@pytest.mark.parametrize("distribution", ["bernoulli", "gaussian"])
@pytest.mark.parametrize(("bottleneck", "tied"), STRUCTURES)
def test_loss_and_gradient_agree_with_pytorch(bottleneck, distribution, tied):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    case = Case(distribution, bottleneck, "tanh", tied)
    batch, objective = case.batch, case.objective
    theta = torch.tensor(case.theta, requires_grad=True)

    def take(slot):
        view = theta[slot.start : slot.start + slot.size].reshape(slot.shape)
        return view.T if slot.transposed else view

    def dense(x, chain):
        for layer in chain.layers:
            x = x @ take(layer.weight) + take(layer.bias)
            x = torch.tanh(x) if layer.activation == "tanh" else x
        return x

    h = dense(torch.tensor(batch.x_in), objective.encoder)[:, None]
    cost = torch.zeros(len(batch.x), dtype=torch.float64)
    if bottleneck != "deterministic":
        posterior = torch.distributions.Normal(h[..., :3], torch.exp(h[..., 3:] / 2))
        prior = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
        kl = torch.distributions.kl_divergence(posterior, prior).sum((1, 2))
        cost = objective.bottleneck.beta * kl
        h = posterior.loc + posterior.scale * torch.tensor(batch.noise)
    eta, x = dense(h, objective.decoder), torch.tensor(batch.x)[:, None]
    if distribution == "bernoulli":
        logits = torch.nn.functional.binary_cross_entropy_with_logits
        nll = logits(eta, x.expand_as(eta), reduction="none")
    else:
        nll = -torch.distributions.Normal(eta, 1.0).log_prob(x)
    weights = theta[: objective.weights.size]
    loss = torch.tensor(batch.weight) @ (nll.sum(2).mean(1) + cost)
    loss = loss + 0.5 * objective.alpha * (weights**2).sum()
    loss.backward()

    value, grad = case.evaluate(case.theta)
    assert value == pytest.approx(loss.item(), rel=1e-12)
    np.testing.assert_allclose(grad, theta.grad.numpy(), rtol=1e-9, atol=1e-13)
