import tracemalloc

import numpy as np
import pytest
from scipy import special, stats

from skae.activations import ACTIVATIONS
from skae.bottlenecks import GaussianPosterior
from skae.marginal import Marginal, WeightedSums, mixed
from skae.model import Model, Plan
from skae.rows import Columns, Rows

LINEAR = "identity"


def build(X, k, distribution="gaussian", hidden=(), activation="tanh", seed=0):
    """Return a model with random weights, a third of the units' scale."""
    rng, d = np.random.default_rng(seed), X.shape[1]
    plan = Plan(
        down=[d, *hidden, k],
        up=[k, *hidden[::-1], d],
        activations=[[activation] * len(hidden) + [LINEAR]] * 2,
        tied=False,
        distribution=distribution,
        standardize=True,
    )
    columns = Columns.of(Rows(X))
    model = Model.start(plan, GaussianPosterior(), columns, X.dtype, rng)
    model.theta += 0.3 * rng.standard_normal(model.size).astype(X.dtype)
    return model


def parts(model):
    """Return the views of a model's parameters."""
    return model.objective.of(model.theta)


def estimates(model, X, n_samples, by_feature=False, draws=None):
    """Return log p(x), its standard error and the columns' shares."""
    marginal = Marginal(model, n_samples, X.dtype)
    if draws is not None:
        marginal.use(draws)
    found = list(marginal.estimates(X, by_feature))
    np.testing.assert_array_equal(
        np.concatenate([np.arange(len(X))[each.place] for each in found]),
        np.arange(len(X)),
    )
    each = [np.concatenate([e[i] for e in found]) for i in (1, 2)]
    shares = np.concatenate([e.shares for e in found]) if by_feature else None
    return each[0], each[1], shares


def normals(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


# --- the linear Gaussian model --------------------------------------------------------


def linear(k, d=6, seed=0):
    """Return a linear model whose encoder knows the posterior, and its exact normal."""
    X = normals(40, d, seed) * np.geomspace(0.01, 100, d) + 3.0
    model = build(X, k, seed=seed)
    (weight, bias), (encoder, shift) = (
        parts(model).decoder[0],
        parts(model).encoder[0],
    )
    weight *= 3.0
    precision = np.exp(-2 * model.shared)
    inverse = np.linalg.inv(np.eye(k) + weight * precision @ weight.T)
    encoder[:, :k] = precision[:, None] * weight.T @ inverse
    shift[:k] = -bias @ encoder[:, :k]
    encoder[:, k:] = 0.0
    shift[k:] = np.log(np.diag(inverse))  # the best that a diagonal posterior can do
    scaled = weight * model.unit
    covariance = scaled.T @ scaled + np.diag(np.square(model.unit) / precision)
    mean = model.center + model.unit * bias
    exact = stats.multivariate_normal(mean, covariance)
    return model, exact, exact.rvs(30, random_state=seed)


@pytest.mark.parametrize("k", [1, 2, 5, 20])
@pytest.mark.parametrize("n_samples", [1, 64])
def test_the_linear_gaussian_model_is_exact(k, n_samples):
    model, exact, X = linear(k)
    found, error, _ = estimates(model, X, n_samples)
    np.testing.assert_allclose(found, exact.logpdf(X), rtol=0, atol=1e-8)
    # A single draw says nothing of its error.
    assert np.isnan(error).all() if n_samples == 1 else error.max() < 1e-6


def test_the_lower_bound_of_the_linear_gaussian_model_is_exact():
    model, exact, X = linear(5)
    marginal = Marginal(model, 7, X.dtype)
    bound = np.concatenate([each for _, each in marginal.bounds(X)])
    _, sd = model.posterior(X)
    weight = parts(model).decoder[0][0]
    precision = np.eye(5) + weight * np.exp(-2 * model.shared) @ weight.T
    # KL(N(mean, sd^2) || the exact posterior): the means agree.
    gap = 0.5 * (np.square(sd) @ np.diag(precision) - 5 - np.log(sd**2).sum(axis=1))
    gap -= 0.5 * np.linalg.slogdet(precision)[1]
    np.testing.assert_allclose(bound, exact.logpdf(X) - gap, rtol=0, atol=1e-8)


@pytest.mark.parametrize("distribution", ["gaussian", "bernoulli", "negative_binomial"])
def test_the_lower_bound_is_that_of_many_draws(distribution):
    model = build(start(distribution), 2, distribution, hidden=(5,))
    X = start(distribution, 20)
    marginal = Marginal(model, 4096, X.dtype)
    each = np.concatenate([log_prob for _, log_prob in marginal.reconstructions(X)])
    mean, sd = model.posterior(X)
    kl = 0.5 * (mean**2 + sd**2 - 1) - np.log(sd)
    bound = np.concatenate(
        [each for _, each in Marginal(model, 256, X.dtype).bounds(X)]
    )
    expected = each.mean(axis=1) - kl.sum(axis=1)
    error = each.std(axis=1) / np.sqrt(256)
    assert (np.abs(bound - expected) < 0.5 * error).all()


@pytest.mark.parametrize("wrong", [0.1, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_wrong_encoder_costs_little(k, wrong):
    model, exact, X = linear(k)
    parts(model).encoder[0][1][:k] += wrong
    found, error, _ = estimates(model, X, 1024)
    difference = np.abs(found - exact.logpdf(X))
    assert difference.max() < 0.02
    assert (difference < 5 * error + 1e-9).all()


def test_a_far_mean_is_moved_to_the_mode():
    model, exact, X = linear(3)
    parts(model).encoder[0][1][:3] += 1000.0
    found = estimates(model, X, 1)[0]
    np.testing.assert_allclose(found, exact.logpdf(X), rtol=0, atol=1e-6)


# --- nonlinear models: against integrals over a grid ----------------------------------


def split(eta):
    return np.split(eta, 2, axis=-1)


def negative_binomial(x, eta, shared):
    r = np.exp(shared)
    return stats.nbinom.logpmf(x, r, r / (r + np.exp(eta)))


def inflated(x, eta, shared):
    log_mean, logit = split(eta)
    rest = special.log_expit(-logit) + negative_binomial(x, log_mean, shared)
    extra = np.where(x == 0, special.log_expit(logit), -np.inf)
    return np.logaddexp(rest, extra)


def beta(x, eta, shared):
    phi, m = np.exp(shared), special.expit(eta)
    return stats.beta.logpdf(x, m * phi, (1 - m) * phi)


#: log p(x | eta), by SciPy.
BY_SCIPY = {
    "gaussian": lambda x, eta, s: stats.norm.logpdf(x, eta, np.exp(s)),
    "heteroscedastic_gaussian": lambda x, eta, s: stats.norm.logpdf(
        x, split(eta)[0], np.sqrt(0.03**2 + np.exp(split(eta)[1]))
    ),
    "laplace": lambda x, eta, s: stats.laplace.logpdf(x, eta, np.exp(s)),
    "student_t": lambda x, eta, s: stats.t.logpdf(x, 4.0, eta, np.exp(s)),
    "exponential": lambda x, eta, s: stats.expon.logpdf(x, scale=1e-3 + np.exp(-eta)),
    "gamma": lambda x, eta, s: stats.gamma.logpdf(x, np.exp(s), scale=np.exp(eta - s)),
    "log_normal": lambda x, eta, s: stats.lognorm.logpdf(
        x, np.exp(s), scale=np.exp(eta)
    ),
    "poisson": lambda x, eta, s: stats.poisson.logpmf(x, np.exp(eta)),
    "negative_binomial": negative_binomial,
    "zero_inflated_negative_binomial": inflated,
    "bernoulli": lambda x, eta, s: (
        x * special.log_expit(eta) + (1 - x) * special.log_expit(-eta)
    ),
    "beta": beta,
    "categorical": lambda x, eta, s: x * special.log_softmax(eta, axis=-1),
}
MIXED = [("gaussian", [2, 0]), ("bernoulli", [1]), ("negative_binomial", [3])]


def log_prob(model, x, z):
    """Return log p(x | z) of each entry of a row for many codes, in the units of X."""
    eta, layers = z, parts(model).decoder
    names = model.plan.activations[1]
    for (weight, bias), name in zip(layers, names, strict=True):
        eta = eta @ weight + bias
        eta = np.tanh(eta) if name == "tanh" else eta
    x = (x - model.center) / model.unit
    if isinstance(model.plan.distribution, str):
        found = BY_SCIPY[model.plan.distribution](x, eta, model.shared)
    else:
        found = np.empty((len(z), len(x)))
        at, of_shared = 0, 0
        for name, columns in model.plan.distribution:
            n = len(columns)
            n_shared = model.objective.distribution.sections[0].member.n_shared(n)
            n_shared = 0 if name == "bernoulli" else n_shared
            shared = model.shared[of_shared : of_shared + n_shared]
            own = BY_SCIPY[name](x[columns], eta[:, at : at + n], shared)
            found[:, columns] = own
            at, of_shared = at + n, of_shared + n_shared
    return found - np.log(model.unit)


def integrated(model, x, half_width=8.0, step=0.04):
    """Return log p(x) and the posterior mean of each entry's log p(x_j | z)."""
    line, k = np.arange(-half_width, half_width, step), model.plan.n_components
    z = np.stack(np.meshgrid(*[line] * k), axis=-1).reshape(-1, k)
    each = log_prob(model, x, z)
    log_joint = each.sum(axis=1) + stats.norm.logpdf(z).sum(axis=1)
    log_joint += k * np.log(step)
    total = special.logsumexp(log_joint)
    return total, np.exp(log_joint - total) @ each


def start(distribution, n=200, d=4):
    """Return data with which a model of this distribution can start."""
    rng = np.random.default_rng(1)
    if distribution in ("bernoulli", "beta"):
        return rng.uniform(0.05, 0.95, (n, d))
    if distribution == "categorical":
        return np.eye(d)[rng.integers(d, size=n)]
    if "binomial" in distribution or distribution == "poisson":
        return rng.negative_binomial(2, 0.2, (n, d)).astype(float)
    if distribution in ("exponential", "gamma", "log_normal"):
        return rng.gamma(2.0, 30.0, (n, d))
    X = rng.normal(3.0, [1.0, 20.0, 0.1, 5.0], (n, d))
    if isinstance(distribution, list):
        X[:, 1], X[:, 3] = X[:, 1] > 0, rng.poisson(3.0, n)
    return X


def compare(distribution, k, factor):
    """Return estimates of a nonlinear model's rows, their errors and exact values."""
    model = build(start(distribution), k, distribution, hidden=(5,))
    parts(model).decoder[0][0][...] *= factor
    rng = np.random.default_rng(2)
    X = model.sample(rng.standard_normal((4, k)), rng)
    expected = [integrated(model, x) for x in X]
    exact = np.array([total for total, _ in expected])
    inside = np.array([each for _, each in expected])
    inside += (exact - inside.sum(axis=1))[:, None] / X.shape[1]
    return *estimates(model, X, 4096, by_feature=True), exact, inside


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize(
    "distribution", [*BY_SCIPY, MIXED], ids=lambda value: str(value)[:40]
)
def test_estimates_agree_with_integrals_over_the_code(distribution, k):
    found, error, shares, exact, inside = compare(distribution, k, 0.5)
    difference = np.abs(found - exact)
    assert difference.max() < 0.01
    assert (difference < 4 * error + 1e-4).all()
    np.testing.assert_allclose(shares, inside, atol=0.02)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("distribution", ["gaussian", "bernoulli", "negative_binomial"])
def test_decoders_that_saturate_are_no_trap(distribution, k):
    # The posterior has a wide shoulder where the outputs no longer change.
    found, error, _, exact, _ = compare(distribution, k, 2.0)
    difference = np.abs(found - exact)
    assert difference.max() < 0.02
    assert (difference < 4 * error + 1e-4).all()


def test_two_modes_are_both_found():
    X = normals(100, 3)
    model = build(X, 1, hidden=(2,))
    (first, bias), (last, offset) = parts(model).decoder
    first[...], bias[...] = [[3.0, 3.0]], [6.0, -6.0]
    last[...], offset[...] = [[1.0] * 3, [-1.0] * 3], -1.0  # a bump around zero
    parts(model).shared[...] = np.log(0.3)
    encoder, shift = parts(model).encoder[-1]
    encoder[...], shift[0] = 0.0, 2.5  # knows of one mode, and not of that at -2.5
    rows = model.center + model.unit * np.array([[-1.0] * 3, [-0.9, -1.1, -1.0]])
    found, _, _ = estimates(model, rows, 4096)
    exact = [integrated(model, x)[0] for x in rows]
    np.testing.assert_allclose(found, exact, atol=0.02)


def test_a_row_far_from_all_others_agrees_too():
    model = build(start("gaussian"), 2, hidden=(5,))
    parts(model).decoder[0][0][...] *= 0.5
    X = model.center + model.unit * np.array([[3.0, -3, 3, 4], [6, 6, -6, 6]])
    found, error, _ = estimates(model, X, 4096)
    exact = np.array([integrated(model, x, 12.0, 0.05)[0] for x in X])
    difference = np.abs(found - exact)
    assert difference.max() < 0.02
    assert (difference < 4 * error + 1e-3).all()


# --- sums of weights ------------------------------------------------------------------


def sums(log_weight, values, chunks):
    n_rows, n_draws, n_values = values.shape
    total, nothing = WeightedSums(n_rows, n_values), np.empty((n_rows, n_draws, 0))
    for place in np.split(np.arange(log_weight.shape[1]), chunks):
        with np.errstate(all="ignore"):
            total.add(log_weight[:, place], nothing[:, place], values[:, place])
    with np.errstate(all="ignore"):
        return total.result()


@pytest.mark.parametrize("offset", [0.0, 800.0, -800.0, 1e6, -1e6])
@pytest.mark.parametrize("chunks", [[], [1], [5, 6, 50], list(range(1, 100))], ids=len)
def test_weighted_sums_are_those_of_scipy(offset, chunks):
    rng = np.random.default_rng(0)
    log_weight = 5 * rng.standard_normal((7, 100)) + offset
    values = rng.standard_normal((7, 100, 3))
    found, error, mean = sums(log_weight, values, chunks)
    expected = special.logsumexp(log_weight, axis=1) - np.log(100)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-12)
    share = special.softmax(log_weight, axis=1)
    np.testing.assert_allclose(mean, np.einsum("rs,rsv->rv", share, values), rtol=1e-9)
    weight = np.exp(log_weight - offset)
    delta = weight.std(axis=1, ddof=1) / np.sqrt(100) / weight.mean(axis=1)
    np.testing.assert_allclose(error, delta, rtol=1e-6)


@pytest.mark.parametrize("chunks", [[], [1], [3, 60]], ids=len)
def test_what_controls_explain_is_removed_by_regression(chunks):
    rng = np.random.default_rng(0)
    controls = rng.standard_normal((4, 100, 2))
    weight = np.exp(rng.standard_normal((4, 100)) + controls @ [0.5, -0.3])
    total = WeightedSums(4, 0)
    for place in np.split(np.arange(100), chunks):
        nothing = np.empty((4, len(place), 0))
        total.add(np.log(weight[:, place]), controls[:, place], nothing)
    found, error, _ = total.result()
    for i in range(4):
        design = np.column_stack([np.ones(100), controls[i]])
        solution, (left,), *_ = np.linalg.lstsq(design, weight[i], rcond=None)
        assert found[i] == pytest.approx(np.log(solution[0]))
        spread = np.sqrt(left / (100 - 3))
        assert error[i] == pytest.approx(spread / np.sqrt(100) / solution[0])


def test_controls_that_explain_everything_leave_no_error():
    rng = np.random.default_rng(0)
    controls = rng.uniform(-1, 1, (3, 50, 1))
    total = WeightedSums(3, 0)
    log_weight = np.log(7.0 * (1 + 0.5 * controls[:, :, 0]))
    total.add(log_weight, controls, np.empty((3, 50, 0)))
    found, error, _ = total.result()
    np.testing.assert_allclose(found, np.log(7.0))
    assert error.max() < 1e-7


def test_densities_of_the_parts_average_to_that_of_the_mixture():
    rng = np.random.default_rng(0)
    parts = tuple(rng.standard_normal((3, 2, 5)))
    log_mixture, controls = mixed(parts, (6, 1, 1))
    expected = np.log(np.average(np.exp(parts), axis=0, weights=[6, 1, 1]))
    np.testing.assert_allclose(log_mixture, expected)
    np.testing.assert_allclose(controls[..., 0], np.exp(parts[1] - expected) - 1)
    np.testing.assert_allclose(controls[..., 1], np.exp(parts[2] - expected) - 1)
    log_mixture, controls = mixed(parts, (3, 0, 0))
    np.testing.assert_allclose(log_mixture, parts[0])
    assert controls.shape == (2, 5, 0)


@pytest.mark.parametrize("chunks", [[], [1], [3, 6]], ids=len)
def test_impossible_draws_weigh_nothing(chunks):
    log_weight = np.full((3, 10), -np.inf)
    log_weight[1, 6], log_weight[2] = -3.0, np.arange(10.0)
    values = np.full((3, 10, 1), np.inf)
    values[1, 6], values[2] = 5.0, 7.0
    found, error, mean = sums(log_weight, values, chunks)
    assert found[0] == -np.inf
    assert found[1] == pytest.approx(-3.0 - np.log(10))
    assert found[2] == pytest.approx(special.logsumexp(np.arange(10.0)) - np.log(10))
    assert mean[1, 0] == 5.0
    assert mean[2, 0] == pytest.approx(7.0)
    assert error[1] == pytest.approx(1.0)  # all weight is that of one draw


def test_the_standard_error_is_that_of_independent_draws():
    model = build(start("gaussian"), 2, hidden=(5,))
    rng = np.random.default_rng(3)
    X = model.sample(rng.standard_normal((6, 2)), rng)
    found = [
        estimates(model, X, 200, draws=rng.standard_normal((200, 2)))
        for _ in range(200)
    ]
    spread = np.std([each[0] for each in found], axis=0)
    error = np.sqrt(np.mean(np.square([each[1] for each in found]), axis=0))
    np.testing.assert_allclose(error, spread, rtol=0.3)


# --- rows do not meet -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_samples", [1, 64, 100, 1000])
@pytest.mark.parametrize(("d", "k"), [(1, 1), (5, 2), (33, 9), (257, 3)])
def test_a_row_s_estimate_is_its_own_to_the_last_bit(dtype, n_samples, d, k):
    X = normals(150 if n_samples < 1000 else 70, d).astype(dtype)
    X[3] *= 50  # far away: its mean is moved
    model = build(X, k, hidden=(7,))

    def results(X):
        found, error, shares = estimates(model, X, n_samples, by_feature=True)
        return np.column_stack([found, error, shares])

    together = results(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_array_equal(results(X[order]), together[order])
    np.testing.assert_array_equal(results(X[:21]), together[:21])
    for i in (0, 3, 63, 64, len(X) - 1):
        np.testing.assert_array_equal(results(X[[i]])[0], together[i])


@pytest.mark.parametrize("n_samples", [1, 64, 100, 1000])
def test_every_draw_counts_once(n_samples):
    X = normals(5, 4)
    model = build(X, 2, hidden=(3,))
    marginal = Marginal(model, n_samples, X.dtype)
    assert marginal.draws.shape == (n_samples, 2)
    z = marginal.posterior(np.zeros((5, 4)))
    pieces = [z[0] for z, _ in marginal.decoded(X, z, marginal.draws)]
    np.testing.assert_array_equal(np.concatenate(pieces), marginal.draws)
    found = marginal.mixture(X, z, z)
    pieces = [np.broadcast_to(z, (5, *z.shape[1:]))[0] for z, _ in found]
    np.testing.assert_array_equal(np.concatenate(pieces), marginal.draws)
    assert sum(marginal.sizes) == n_samples


@pytest.mark.parametrize("distribution", [*BY_SCIPY, MIXED], ids=lambda v: str(v)[:40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shares_of_columns_sum_to_the_estimate(distribution, dtype):
    X = start(distribution, 50).astype(dtype)
    model = build(X, 2, distribution, hidden=(5,))
    found, _, shares = estimates(model, X, 64, by_feature=True)
    np.testing.assert_allclose(shares.sum(axis=1), found, rtol=1e-9, atol=1e-9)
    alone, _, _ = estimates(model, X, 64)
    np.testing.assert_array_equal(alone, found)


def test_single_precision_is_nearly_as_good():
    X = start("gaussian", 50)
    model = build(X, 3, hidden=(5,))
    found = estimates(model, X, 256)[0]
    model.theta = model.theta.astype(np.float32)
    again = estimates(model, X.astype(np.float32), 256)[0]
    np.testing.assert_allclose(again, found, atol=2e-3)


# --- proposals ------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
def test_slopes_are_differences(activation, hidden):
    X = normals(20, 4)
    model = build(X, 3, "heteroscedastic_gaussian", hidden, activation)
    marginal, z, step = Marginal(model, 1, X.dtype), normals(9, 3, 5), 1e-6
    eta, tangents = marginal.slopes(z)
    eta = eta.copy()
    assert tangents.shape == (9, 3, 8)
    np.testing.assert_array_equal(marginal.decode(z), eta)
    for j, move in enumerate(step * np.eye(3)):
        ahead, behind = (marginal.decode(z + side).copy() for side in (move, -move))
        expected = (ahead - behind) / (2 * step)
        np.testing.assert_allclose(tangents[:, j], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "distribution", [*BY_SCIPY, MIXED], ids=lambda value: str(value)[:40]
)
def test_curvature_is_that_of_the_log_joint_density(distribution):
    X = start(distribution, 30)
    model = build(X, 2, distribution, hidden=(5,))
    marginal, z, step = Marginal(model, 1, X.dtype), normals(30, 2, 5), 1e-5
    x = X.copy()
    model.rows(X).standardize(x)
    precision, slope = marginal.curvature(x, z)
    for j, move in enumerate(step * np.eye(2)):
        ahead, behind = (marginal.cost(x, z + side) for side in (move, -move))
        expected = (ahead - behind) / (2 * step)
        np.testing.assert_allclose(slope[:, j], expected, rtol=1e-4, atol=1e-4)
    assert (np.linalg.eigvalsh(precision) > 1 - 1e-9).all()


@pytest.mark.parametrize(
    "distribution", [*BY_SCIPY, MIXED], ids=lambda value: str(value)[:40]
)
@pytest.mark.parametrize("wrong", [0.0, 3.0, 100.0])
def test_a_moved_mean_is_never_less_likely(distribution, wrong):
    X = start(distribution, 60)
    model = build(X, 2, distribution, hidden=(5,))
    parts(model).encoder[-1][1][:2] += wrong
    marginal = Marginal(model, 1, X.dtype)
    for _, x, h in marginal.encoded(X):
        with np.errstate(all="ignore"):
            proposal = marginal.proposal(x, h)
            before = marginal.cost(x, h[:, :2])
            after = marginal.cost(x, proposal.mean)
        assert (after <= before).all()
        if wrong == 100.0:
            assert (after < before).all()


def test_draws_from_the_proposal_weigh_alike_where_the_encoder_is_right():
    model, _, X = linear(4)
    marginal = Marginal(model, 16, X.dtype)
    for _, x, h in marginal.encoded(X):
        proposal = marginal.proposal(x, h)
        np.testing.assert_allclose(proposal.mean, h[:, :4], atol=1e-9)
        weight = parts(model).decoder[0][0]
        precision = np.eye(4) + weight * np.exp(-2 * model.shared) @ weight.T
        covariance = proposal.root @ proposal.root.transpose(0, 2, 1)
        expected = np.broadcast_to(np.linalg.inv(precision), covariance.shape)
        np.testing.assert_allclose(covariance, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("n_samples", "sizes"),
    [(1, (1, 0, 0)), (63, (63, 0, 0)), (64, (48, 8, 8)), (100, (76, 12, 12))],
)
def test_shares_of_the_parts(n_samples, sizes):
    X = normals(5, 4)
    assert Marginal(build(X, 2), n_samples, X.dtype).sizes == sizes


def test_draws_from_the_prior_are_limited_where_the_output_is_wide():
    X = normals(5, 3000)
    marginal = Marginal(build(X, 1), 20_000, X.dtype)
    assert marginal.sizes == (20_000 - 2500 - 1398, 2500, 1398)
    assert len(marginal.eta_of_prior) == 1398


def test_means_are_moved_close_to_the_mode():
    X = start("gaussian", 60)
    model = build(X, 3, hidden=(5,))
    marginal = Marginal(model, 1, X.dtype)
    for _, x, h in marginal.encoded(X):
        z = marginal.proposal(x, h).mean
        precision, slope = marginal.curvature(x, z)
        step = np.linalg.solve(precision, slope[:, :, None])[:, :, 0]
        promised = 0.5 * (slope * step).sum(axis=1)
        assert np.median(promised) < 0.01 * 3
        assert (promised < 0.01 * 3).mean() > 0.9


@pytest.mark.parametrize("k", [1, 4, 16])
def test_the_wide_part_costs_the_same_for_any_number_of_components(k, monkeypatch):
    X, widths = normals(30, 20), []
    marginal = Marginal(build(X, k), 64, X.dtype)
    mixture = marginal.mixture

    def spy(x, proposal, wide):
        widths.append(np.linalg.norm(wide.root) / np.linalg.norm(proposal.root))
        return mixture(x, proposal, wide)

    monkeypatch.setattr(marginal, "mixture", spy)
    assert all(np.isfinite(each[1]).all() for each in marginal.estimates(X))
    # The log of how much larger squared weights are under the wider normal.
    loss = k * (np.log(widths[0] ** 2) - 0.5 * np.log(2 * widths[0] ** 2 - 1))
    assert 0.1 < loss < 0.35


def test_a_precision_beyond_single_precision_is_no_trap():
    X = normals(20, 6).astype(np.float32)
    model = build(X, 4)
    parts(model).decoder[0][0][:] = parts(model).decoder[0][0][:1] * 1e5
    found, error, _ = estimates(model, X, 64)
    assert np.isfinite(found).all()
    assert np.isfinite(error).all()


def test_slopes_that_overflow_leave_the_prior():
    X = normals(20, 6)
    model = build(X, 2, "poisson")
    parts(model).decoder[0][0][:] = 1e200
    marginal = Marginal(model, 64, X.dtype)
    with np.errstate(all="ignore"):
        slope, precision = marginal.expansion(X[:3], np.ones((3, 2)))
    assert not slope.any()
    assert not precision.any()


def test_a_regression_that_would_leave_nothing_is_not_used():
    controls = np.array([[[1.0], [-3.0], [2.0]]])
    total = WeightedSums(1, 0)
    total.add(np.array([[0.0, -50.0, 3.0]]), controls + 5.0, np.empty((1, 3, 0)))
    found, error, _ = total.result()
    assert found[0] == pytest.approx(np.log((1 + np.exp(-50) + np.exp(3)) / 3))
    assert np.isfinite(error[0])


# --- memory ---------------------------------------------------------------------------


def peak(n_rows, n_samples, by_feature):
    """Return the memory for the estimates of so many rows, in megabytes."""
    X = normals(n_rows, 200)
    model = build(X, 4)
    tracemalloc.start()
    marginal = Marginal(model, n_samples, X.dtype)
    for _, estimate, *_ in marginal.estimates(X, by_feature):
        assert np.isfinite(estimate).all()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found / 1e6


@pytest.mark.parametrize("by_feature", [False, True])
def test_memory_is_bounded(by_feature):
    assert peak(60, 5000, by_feature) < 100


def test_memory_does_not_grow_with_the_number_of_rows():
    few, many = (peak(n_rows, 128, True) for n_rows in (500, 2000))
    assert many < 1.1 * few + 1
