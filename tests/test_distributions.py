from itertools import pairwise

import numpy as np
import pytest
from numerical import check_distribution, support_sample
from scipy import integrate, special, stats

from skae.component import Range
from skae.distributions import (
    DISTRIBUTIONS,
    Bernoulli,
    Distribution,
    Exponential,
    Gaussian,
    HeteroscedasticGaussian,
    Huber,
    NegativeBinomial,
    Poisson,
    StudentT,
    ZeroInflatedNegativeBinomial,
)


class ZeroInflated:
    """A law of counts of which some were lost: what scipy.stats does not have."""

    def __init__(self, law, lost):
        self.law, self.lost = law, lost

    def logpmf(self, x):
        kept = np.log1p(-self.lost) + self.law.logpmf(x)
        return np.where(x == 0, np.logaddexp(np.log(self.lost), kept), kept)

    def cdf(self, x):
        return self.lost + (1 - self.lost) * self.law.cdf(x)

    def mean(self):
        return (1 - self.lost) * self.law.mean()

    def var(self):
        square = self.law.var() + self.law.mean() ** 2
        return (1 - self.lost) * square - self.mean() ** 2


def nbinom(eta, shared):
    size = np.exp(shared)
    return stats.nbinom(size, size / (size + np.exp(eta)))


def zero_inflated_nbinom(eta, shared):
    log_mean, logit = np.split(eta, 2, axis=-1)
    return ZeroInflated(nbinom(log_mean, shared), special.expit(logit))


def two_outputs(eta, shared):
    mean, log_variance = np.split(eta, 2, axis=-1)
    return stats.norm(mean, np.sqrt(0.03**2 + np.exp(log_variance)))


def beta(eta, shared):
    m, precision = special.expit(eta), np.exp(shared)
    return stats.beta(m * precision, (1 - m) * precision)


#: The law of x given eta and the shared parameters, in the words of another library.
TRUTH = {
    "bernoulli": lambda eta, shared: stats.bernoulli(special.expit(eta)),
    "beta": beta,
    "exponential": lambda eta, shared: stats.expon(scale=1e-3 + np.exp(-eta)),
    "gamma": lambda eta, shared: stats.gamma(
        np.exp(shared), scale=np.exp(eta - shared)
    ),
    "gaussian": lambda eta, shared: stats.norm(eta, np.exp(shared)),
    "heteroscedastic_gaussian": two_outputs,
    "laplace": lambda eta, shared: stats.laplace(eta, np.exp(shared)),
    "log_normal": lambda eta, shared: stats.lognorm(np.exp(shared), scale=np.exp(eta)),
    "negative_binomial": nbinom,
    "poisson": lambda eta, shared: stats.poisson(np.exp(eta)),
    "student_t": lambda eta, shared: stats.t(4.0, eta, np.exp(shared)),
    "zero_inflated_negative_binomial": zero_inflated_nbinom,
}

#: Losses as they stand in a textbook; two of them extend a log-probability.
FORMULA = {
    "absolute_error": lambda x, eta: abs(x - eta),
    "bernoulli": lambda x, eta: (
        -x * special.log_expit(eta) - (1 - x) * special.log_expit(-eta)
    ),
    "categorical": lambda x, eta: -x * special.log_softmax(eta, axis=-1),
    "huber": lambda x, eta: special.huber(1.0, x - eta),
    "log_cosh": lambda x, eta: np.log(np.cosh(x - eta)),
    "squared_error": lambda x, eta: (x - eta) ** 2,
}


def having(flag):
    return [name for name, cls in DISTRIBUTIONS.items() if getattr(cls, flag)]


every = pytest.mark.parametrize("name", DISTRIBUTIONS)
every_law = pytest.mark.parametrize("name", TRUTH)
with_scale = pytest.mark.parametrize("name", having("has_scale"))
both_precisions = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def expected_nll(name, x, eta, shared):
    if name in FORMULA:
        return FORMULA[name](x, eta)
    law = TRUTH[name](eta, shared)
    return -(law.logpmf(x) if hasattr(law, "logpmf") else law.logpdf(x))


def nll(distribution, x, eta, shared):
    shape = *eta.shape[:-1], eta.shape[-1] // distribution.outputs_per_feature
    out = np.full(np.broadcast_shapes(x.shape, shape), np.nan, eta.dtype)
    distribution.nll(x, eta, shared, out)
    return out


def gradient(distribution, x, eta, shared):
    d_eta = np.full_like(eta, np.nan)
    d_shared = np.full((*eta.shape[:-1], len(shared)), np.nan, eta.dtype)
    distribution.gradient(x, eta, shared, d_eta, d_shared)
    return d_eta, d_shared


def outputs(distribution, shape, rng, size=1.0):
    """Draw outputs and shared parameters."""
    n_outputs = distribution.n_outputs(shape[-1])
    eta = size * rng.standard_normal((*shape[:-1], n_outputs))
    return eta, rng.uniform(-1.0, 1.0, distribution.n_shared(shape[-1]))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- the formulas -----------------------------------------------------------------


@every
def test_gradient(name):
    check_distribution(DISTRIBUTIONS[name]())


@pytest.mark.parametrize(
    "distribution", [HeteroscedasticGaussian(0.5), Huber(0.2), StudentT(1.5)]
)
def test_gradient_with_another_setting(distribution):
    check_distribution(distribution, seed=1)


@every
def test_value(name, rng):
    distribution = DISTRIBUTIONS[name]()
    x = support_sample(distribution, (20, 6), rng)
    eta, shared = outputs(distribution, x.shape, rng, 3.0)
    expected = expected_nll(name, x, eta, shared)
    actual = nll(distribution, x, eta, shared)
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (Huber(0.2), lambda r: special.huber(0.2, r)),
        (StudentT(1.5), lambda r: -stats.t(1.5).logpdf(r)),
        (StudentT(1e9), lambda r: -stats.norm().logpdf(r)),
        (
            HeteroscedasticGaussian(0.5),
            lambda r: -stats.norm(0, np.sqrt(1.25)).logpdf(r),
        ),
    ],
)
def test_settings_mean_what_they_say(distribution, expected, rng):
    r = rng.standard_normal((20, 6))
    eta = np.zeros(distribution.n_outputs(6))
    shared = np.zeros(distribution.n_shared(6))
    actual = nll(distribution, r, eta, shared)
    np.testing.assert_allclose(actual, expected(r), rtol=1e-7)


@every
@pytest.mark.parametrize("of_shared", [np.float32, np.float64])
def test_single_precision_agrees_with_double(name, of_shared, rng):
    distribution = DISTRIBUTIONS[name]()
    x = support_sample(distribution, (20, 1, 6), rng).astype(np.float32)
    eta, shared = outputs(distribution, (20, 4, 6), rng)
    eta, shared = eta.astype(np.float32), shared.astype(np.float32)
    double = x.astype(np.float64), eta.astype(np.float64), shared.astype(np.float64)
    single = x, eta, shared.astype(of_shared)
    pairs = [(nll(distribution, *single), nll(distribution, *double))]
    pairs += zip(
        gradient(distribution, *single), gradient(distribution, *double), strict=True
    )
    for actual, expected in pairs:
        assert actual.dtype == np.float32
        size = np.abs(expected).max(initial=1.0)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6 * size)


@pytest.mark.parametrize("name", sorted(set(TRUTH) - {"bernoulli"}))
@pytest.mark.parametrize("seed", range(4))
def test_total_probability_is_one(name, seed):
    distribution = DISTRIBUTIONS[name]()
    eta, shared = outputs(distribution, (1,), np.random.default_rng(seed))

    def density(x):
        return np.exp(-nll(distribution, np.atleast_2d(x).T, eta, shared))[:, 0]

    if distribution.support.whole:
        assert density(np.arange(5000.0)).sum() == pytest.approx(1.0, abs=1e-9)
        return
    middle = float(TRUTH[name](eta, shared).mean()[0])
    ends = [distribution.support.low, middle, distribution.support.high]
    parts = [
        integrate.quad(lambda x: density(x)[0], *pair, epsabs=1e-10)[0]
        for pair in pairwise(ends)
    ]
    assert sum(parts) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize(
    ("name", "outcomes"), [("bernoulli", [[0.0], [1.0]]), ("categorical", np.eye(4))]
)
def test_finite_outcomes_have_total_probability_one(name, outcomes, rng):
    distribution, x = DISTRIBUTIONS[name](), np.array(outcomes)
    eta, shared = outputs(distribution, (x.shape[1],), rng)
    probability = np.exp(-nll(distribution, x, eta, shared).sum(axis=1))
    assert probability.sum() == pytest.approx(1.0, rel=1e-12)


# --- means and draws --------------------------------------------------------------


@every_law
def test_mean(name, rng):
    distribution = DISTRIBUTIONS[name]()
    eta, shared = outputs(distribution, (20, 6), rng)
    expected = TRUTH[name](eta, shared).mean()
    np.testing.assert_allclose(distribution.mean(eta, shared), expected, rtol=1e-10)


def fits(law, x):
    """Return the p-value of a column under a law, by chi-square or Kolmogorov."""
    if not hasattr(law, "logpmf"):
        return stats.kstest(x, law.cdf).pvalue
    cells = np.arange(x.max() + 1)
    expected = len(x) * np.exp(law.logpmf(cells))
    likely = expected > 10
    observed = np.array([np.sum(x == cell) for cell in cells])[likely]
    rest = len(x) - np.array([observed.sum(), expected[likely].sum()])
    if rest[1] > 10:
        observed = np.append(observed, rest[0])
        expected = np.append(expected[likely], rest[1])
    else:
        expected = expected[likely] * observed.sum() / expected[likely].sum()
    return stats.chisquare(observed, expected).pvalue


@every_law
def test_draws_follow_the_law(name, rng):
    distribution = DISTRIBUTIONS[name]()
    eta, shared = outputs(distribution, (3,), rng)
    x = distribution.sample(np.tile(eta, (20_000, 1)), shared, rng)
    for j in range(3):
        law = TRUTH[name](eta[j::3], shared[j::3])
        error = np.sqrt(law.var()[0] / len(x))
        mean = distribution.mean(eta[j::3], shared[j::3])[0]
        assert abs(x[:, j].mean() - mean) < 4 * error
        assert fits(law, x[:, j]) > 1e-3


def test_draws_of_a_group_are_one_hot_and_follow_the_law(rng):
    categorical, eta = DISTRIBUTIONS["categorical"](), rng.standard_normal(4)
    x = categorical.sample(np.tile(eta, (20_000, 1)), np.empty(0), rng)
    assert set(np.unique(x)) == {0.0, 1.0}
    np.testing.assert_array_equal(x.sum(axis=1), 1.0)
    expected = len(x) * special.softmax(eta)
    assert stats.chisquare(x.sum(axis=0), expected).pvalue > 1e-3
    np.testing.assert_allclose(categorical.mean(eta, np.empty(0)), expected / len(x))


@every
@both_precisions
def test_draws_are_of_the_right_kind(name, dtype, rng):
    distribution = DISTRIBUTIONS[name]()
    eta, shared = outputs(distribution, (50, 4, 3), rng, 10.0)
    eta, shared = eta.astype(dtype), shared.astype(dtype)
    before = eta.copy(), shared.copy()
    first, second = (
        distribution.sample(eta, shared, np.random.default_rng(7)) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(eta, before[0])
    np.testing.assert_array_equal(shared, before[1])
    assert first.dtype == dtype
    assert first.shape == (50, 4, 3)
    assert not distribution.support.outside(first).any()


@every
@both_precisions
def test_draws_for_extreme_outputs_stay_in_the_support(name, dtype, rng):
    distribution = DISTRIBUTIONS[name]()
    ends = np.array([-1e4, -50, 0, 50, 1e4], dtype)
    k = distribution.outputs_per_feature
    eta = np.stack(np.meshgrid(*k * [ends]), axis=-1).reshape(-1, k)
    shared = np.zeros(distribution.shared_per_feature, dtype)
    with np.errstate(over="ignore"):
        x = distribution.sample(eta, shared, rng)
    assert x.dtype == dtype
    assert not distribution.support.outside(x).any()


@pytest.mark.parametrize("name", sorted(set(DISTRIBUTIONS) - set(TRUTH)))
def test_losses_draw_their_mean(name, rng):
    distribution = DISTRIBUTIONS[name]()
    if distribution.is_likelihood:
        assert name == "categorical"
        return
    eta = rng.standard_normal((20, 6))
    np.testing.assert_array_equal(distribution.mean(eta, np.empty(0)), eta)
    np.testing.assert_array_equal(distribution.sample(eta, np.empty(0), rng), eta)


# --- where a model starts ---------------------------------------------------------


def moments(distribution, rng):
    x = support_sample(distribution, (50, 6), rng)
    return x.mean(axis=0), x.var(axis=0)


@every
def test_start_gives_the_mean(name, rng):
    distribution = DISTRIBUTIONS[name]()
    mean, variance = moments(distribution, rng)
    eta, shared = distribution.start(mean, variance, 1e12)
    assert eta.shape == (distribution.n_outputs(6),)
    assert shared.shape == (distribution.n_shared(6),)
    np.testing.assert_allclose(distribution.mean(eta, shared), mean, rtol=1e-9)


@pytest.mark.parametrize("name", having("changes_inputs"))
def test_start_adds_events_only_where_there_are_none(name):
    distribution = DISTRIBUTIONS[name]()
    start = distribution.start(np.array([2.0, 0.0]), np.array([3.0, 0.0]), 5)
    # Half an event in five rows; a mean with a floor begins a tenth above it.
    least = {"exponential": 1.1e-3}.get(name, 0.1)
    np.testing.assert_allclose(distribution.mean(*start), [2.0, least], rtol=1e-9)


#: A mean and a variance that the family can have.
MOMENTS = {
    "beta": (0.3, 0.05),
    "gamma": (2.0, 3.0),
    "gaussian": (-2.0, 3.0),
    "heteroscedastic_gaussian": (-2.0, 3.0),
    "laplace": (-2.0, 3.0),
    "log_normal": (2.0, 3.0),
    "negative_binomial": (2.0, 3.0),
    "student_t": (-2.0, 3.0),
    "zero_inflated_negative_binomial": (2.0, 3.0),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_start_gives_the_variance(name):
    mean, variance = np.array(MOMENTS[name])[:, None]
    eta, shared = DISTRIBUTIONS[name]().start(mean, variance, 1e12)
    law = TRUTH[name](eta, shared)
    np.testing.assert_allclose(law.mean(), mean, rtol=1e-9)
    np.testing.assert_allclose(law.var(), variance, rtol=1e-9)


def test_moments_cover_the_families_with_a_variance():
    free = {
        name
        for name, cls in DISTRIBUTIONS.items()
        if cls.is_likelihood and cls.outputs_per_feature + cls.shared_per_feature > 1
    }
    assert set(MOMENTS) == free


@every
@pytest.mark.parametrize("variance", [0.0, 1e-12, 1.0, 1e12])
def test_start_is_finite_and_within_the_limits(name, variance):
    distribution = DISTRIBUTIONS[name]()
    support = distribution.support
    mean = np.clip([support.low, 0.5, support.high], -1e15, 1e15)
    variance = np.full(3, variance)
    with np.errstate(all="raise", under="ignore"):
        eta, shared = distribution.start(mean, variance, 10)
        low, high = distribution.limits(variance)
    assert np.isfinite(eta).all()
    assert np.isfinite(shared).all()
    assert low.shape == high.shape == shared.shape
    assert np.all((low <= shared) & (shared <= high))


def test_start_of_student_t_without_a_variance():
    _, shared = StudentT(1.5).start(np.zeros(2), np.array([4.0, 0.0]), 10)
    np.testing.assert_allclose(shared, [np.log(2), 0])
    low, _ = StudentT(2 + 1e-9).limits(np.ones(1))
    _, shared = StudentT(2 + 1e-9).start(np.zeros(1), np.ones(1), 10)
    assert low <= shared


@pytest.mark.parametrize(
    "name",
    [
        "bernoulli",
        "categorical",
        "exponential",
        "gamma",
        "gaussian",
        "negative_binomial",
        "poisson",
        "squared_error",
    ],
)
def test_the_data_s_mean_minimises_the_loss(name, rng):
    distribution = DISTRIBUTIONS[name]()
    x = support_sample(distribution, (500, 3), rng)
    eta, shared = distribution.start(x.mean(axis=0), x.var(axis=0), 1e12)
    d_eta, _ = gradient(distribution, x, np.tile(eta, (500, 1)), shared)
    assert np.abs(d_eta.mean(axis=0)).max() < 1e-10


# --- scales -----------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({*having("has_location")} & {*TRUTH}))
def test_scale_family(name, rng):
    distribution = DISTRIBUTIONS[name]()
    if not distribution.has_scale:
        assert name == "heteroscedastic_gaussian"
        return
    x, eta = rng.standard_normal((2, 5, 3))
    expected = nll(distribution, x, eta, np.zeros(3)) + np.log(7)
    scaled = nll(distribution, 7 * x + 3, 7 * eta + 3, np.full(3, np.log(7)))
    np.testing.assert_allclose(scaled, expected, rtol=1e-12)


def estimated_scale(distribution, x, eta):
    deviation = np.full_like(x, np.nan)
    distribution.deviation(x, eta, deviation)
    return distribution.scale(deviation.mean(axis=0))


@with_scale
def test_estimated_scale_follows_the_unit(name, rng):
    distribution = DISTRIBUTIONS[name]()
    x, eta = support_sample(distribution, (50, 3), rng), rng.standard_normal((50, 3))
    expected = estimated_scale(distribution, x, eta)
    if distribution.has_location:
        x, eta, expected = 7 * x, 7 * eta, 7 * expected
    else:
        x, eta = 7 * x, eta + np.log(7)
    np.testing.assert_allclose(estimated_scale(distribution, x, eta), expected)


@pytest.mark.parametrize("name", ["gaussian", "laplace", "log_normal"])
def test_scale_is_the_maximum_likelihood_estimate(name, rng):
    distribution = DISTRIBUTIONS[name]()
    x = support_sample(distribution, (400, 3), rng)
    eta = rng.standard_normal((400, 3)) * [1.0, 10.0, 0.1]
    shared = np.log(estimated_scale(distribution, x, eta))
    _, d_shared = gradient(distribution, x, eta, shared)
    np.testing.assert_allclose(d_shared.mean(axis=0), 0, atol=1e-12)


@with_scale
def test_estimated_scale_is_consistent(name, rng):
    distribution = DISTRIBUTIONS[name]()
    eta, shared = np.zeros((200_000, 3)), np.array([-1.0, 0.0, 1.0])
    x = distribution.sample(eta, shared, rng)
    estimate = estimated_scale(distribution, x, eta)
    np.testing.assert_allclose(estimate, np.exp(shared), rtol=0.01)


@pytest.mark.parametrize("name", having("has_scale"))
def test_limits_of_scales(name):
    low, high = DISTRIBUTIONS[name]().limits(np.array([0.0, 4.0]))
    spread = [1.0, 1.0] if name == "log_normal" else [1.0, 2.0]
    np.testing.assert_allclose(np.exp(low), np.multiply(1e-3, spread))
    assert np.all(high == np.inf)


def test_no_scale_means_no_estimate():
    with pytest.raises(NotImplementedError):
        Bernoulli().scale(np.ones(2))
    with pytest.raises(NotImplementedError):
        Bernoulli().deviation(np.ones(2), np.ones(2), np.ones(2))


def test_a_likelihood_with_two_outputs_is_bounded(rng):
    eta = np.concatenate([np.zeros(50), np.linspace(-1e4, 0, 50)])
    least = nll(HeteroscedasticGaussian(0.01), np.zeros(50), eta, np.empty(0)).min()
    assert least == pytest.approx(-stats.norm(0, 0.01).logpdf(0))


# --- extremes ---------------------------------------------------------------------

#: Families with an exponential of the output in their loss, and the sign it has there.
UNBOUNDED = {"gamma": -1, "poisson": 1}


def extreme_case(distribution, dtype):
    """Return every combination of extreme outputs, beside some data."""
    ends = np.array([-1e4, -100, -10, 0, 10, 100, 1e4], dtype)
    if distribution.sums_to_one:
        return np.eye(7, dtype=dtype), ends[None]
    k = distribution.outputs_per_feature
    eta = np.stack(np.meshgrid(*k * [ends]), axis=-1).reshape(1, -1, k)
    support = distribution.support
    x = np.array([0, 0.25, 1, 3], dtype)
    return x[~support.outside(x)].reshape(-1, 1, 1), eta


@every
@both_precisions
@pytest.mark.parametrize("end", [0, 1])
def test_extreme_outputs(name, dtype, end):
    distribution = DISTRIBUTIONS[name]()
    x, eta = extreme_case(distribution, dtype)
    eta = np.repeat(eta, len(x), axis=0)
    limits = distribution.limits(np.ones(distribution.shared_per_feature))
    shared = np.minimum(limits[end], np.log(1e6)).astype(dtype)
    with np.errstate(invalid="raise", divide="raise", over="ignore"):
        assert not np.isnan(distribution.mean(eta, shared)).any()
        results = (
            nll(distribution, x, eta, shared),
            *gradient(distribution, x, eta, shared),
        )
    assert not any(np.isnan(result).any() for result in results)
    if name not in UNBOUNDED:
        assert all(np.isfinite(result).all() for result in results)
        return
    rate = UNBOUNDED[name] * eta > np.log(np.finfo(dtype).max)
    overflows = rate & ((x > 0) | (name == "poisson"))
    for result in results[:2]:
        np.testing.assert_array_equal(np.isinf(result), overflows)


def test_a_huge_residual_of_a_vanishing_variance_has_a_gradient():
    """The square of the residual overflows here; its part in the variance is zero."""
    x, eta = np.full((1, 1), 1e25, np.float32), np.array([[0, -1e4]], np.float32)
    d_eta, _ = gradient(HeteroscedasticGaussian(1e-3), x, eta, np.empty(0))
    np.testing.assert_allclose(d_eta, [[-1e31, 0]], rtol=1e-5)


def test_a_row_outside_all_categories_costs_nothing(rng):
    x, eta = np.zeros((5, 4)), rng.standard_normal((5, 4))
    categorical = DISTRIBUTIONS["categorical"]()
    np.testing.assert_array_equal(nll(categorical, x, eta, np.empty(0)), 0.0)
    np.testing.assert_array_equal(gradient(categorical, x, eta, np.empty(0))[0], 0.0)


@pytest.mark.parametrize("min_mean", [1e-3, 0.2])
def test_the_likelihood_of_a_zero_is_bounded(min_mean):
    exponential, eta = Exponential(min_mean), np.array([[0.0, 10, 40, 1e4]])
    loss = nll(exponential, np.zeros((1, 1)), eta, np.empty(0))
    np.testing.assert_allclose(loss, np.log(min_mean + np.exp(-eta)), rtol=1e-12)
    assert (loss >= np.log(min_mean)).all()
    assert loss[0, -1] == np.log(min_mean)
    assert gradient(exponential, np.ones((1, 1)), eta, np.empty(0))[0][0, -1] == 0
    assert exponential.mean(eta, np.empty(0))[0, -1] == pytest.approx(min_mean)


def test_bernoulli_of_certain_outcomes_costs_nothing():
    x, eta = np.array([[0.0, 1.0]]), np.array([[-800.0, 800.0]])
    np.testing.assert_array_equal(nll(Bernoulli(), x, eta, np.empty(0)), 0.0)


@pytest.mark.parametrize(("dtype", "error"), [(np.float32, 3e-6), (np.float64, 1e-8)])
def test_counts_of_a_large_size_are_nearly_poisson(dtype, error):
    """Up to second order they differ by ``((x - mean)^2 - x) / (2 size)``."""
    x = np.arange(6.0, dtype=dtype)[:, None]
    eta = np.array([[-1.0], [0.0], [1.0], [2.0], [1.5], [0.5]], dtype)
    shared = np.log(np.array([1e6], dtype))
    less = (np.square(x - np.exp(eta)) - x) / 2e6
    expected = nll(Poisson(), x, eta, np.empty(0)) - less
    actual = nll(NegativeBinomial(), x, eta, shared)
    np.testing.assert_allclose(actual, expected, atol=error, rtol=error)
    d_eta, d_shared = gradient(NegativeBinomial(), x, eta, shared)
    slope = (np.exp(eta) - x) / (1 + np.exp(eta) / 1e6)
    np.testing.assert_allclose(d_eta, slope, atol=error, rtol=error)
    np.testing.assert_allclose(d_shared, less, atol=error)


@both_precisions
def test_extra_zeros_cost_what_they_should(dtype):
    """Pairs of large terms would cancel: the truth is computed in logarithms."""
    logit = np.linspace(-60, 60, 25, dtype=dtype)
    eta = np.stack(
        [np.tile([[-9, 0, 9, 80]], (25, 1)).T, np.tile(logit, (4, 1))], axis=-1
    )
    eta = eta.reshape(-1, 2).astype(dtype)
    shared = np.full(1, 2.0, dtype)
    zero = np.zeros((1, 1), dtype)
    of_counts = nll(NegativeBinomial(), zero, eta[:, :1], shared).astype(float)
    a = eta[:, 1:].astype(float)
    kept = special.log_expit(-a) - of_counts
    expected = -np.logaddexp(special.log_expit(a), kept)
    actual = nll(ZeroInflatedNegativeBinomial(), zero, eta, shared)
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(actual, expected, rtol=8 * eps, atol=2 * eps)


# --- the interface ----------------------------------------------------------------


@every
def test_inputs_may_be_changed_in_place(name, rng):
    distribution = DISTRIBUTIONS[name]()
    x = support_sample(distribution, (20, 6), rng)
    before, out = x.copy(), np.full_like(x, np.nan)
    distribution.inputs(x, out)
    np.testing.assert_array_equal(x, before)
    expected = np.log1p(x) if distribution.changes_inputs else x
    np.testing.assert_array_equal(out, expected)
    distribution.inputs(x, x)
    np.testing.assert_array_equal(x, out)


def test_which_families_change_their_inputs():
    assert having("changes_inputs") == [
        name
        for name in DISTRIBUTIONS
        if DISTRIBUTIONS[name].support.high == np.inf
        and DISTRIBUTIONS[name].support.low == 0
    ]


@every
def test_columns_are_described(name):
    distribution = DISTRIBUTIONS[name]()
    assert distribution.parts(3) == [(distribution, slice(None))]
    for mask, flag in [
        (distribution.centred(3), distribution.has_location),
        (distribution.scaled(3), distribution.has_unit),
    ]:
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, [flag] * 3)
    assert distribution.n_outputs(3) == 3 * distribution.outputs_per_feature
    assert distribution.n_shared(3) == 3 * distribution.shared_per_feature


@every
def test_flags_agree(name):
    cls = DISTRIBUTIONS[name]
    assert cls.has_unit or not cls.has_location
    assert cls.shared_per_feature > 0 or not cls.has_scale
    assert cls.support in (Range(), Range(0.0)) or not cls.has_location
    assert cls.is_likelihood == (name in TRUTH or name == "categorical")


@pytest.mark.parametrize("name", having("has_unit"))
def test_a_unit_costs_its_logarithm(name, rng):
    """In another unit the family, started anew, explains the data just as well."""
    distribution = DISTRIBUTIONS[name]()
    if not distribution.is_likelihood:
        return
    x = support_sample(distribution, (50, 3), rng)

    def loss(x):
        start = distribution.start(x.mean(axis=0), x.var(axis=0), 1e12)
        return nll(distribution, x, *start)

    if name == "heteroscedastic_gaussian":
        distribution.min_scale = 1e-9
    np.testing.assert_allclose(loss(7 * x), loss(x) + np.log(7), rtol=1e-9)


def slopes_of_draws(distribution, eta, shared, rng):
    many = np.broadcast_to(eta, (400_000, len(eta)))
    x = distribution.sample(many, shared, rng)
    return gradient(distribution, x, many, shared)[0]


@every_law
def test_information_is_the_mean_squared_slope(name, rng):
    distribution = DISTRIBUTIONS[name]()
    eta, shared = outputs(distribution, (3,), rng, 0.7)
    slopes = slopes_of_draws(distribution, eta, shared, rng)
    information = distribution.information(eta, shared)
    assert information.shape == eta.shape
    np.testing.assert_allclose(np.square(slopes).mean(axis=0), information, rtol=0.04)


@pytest.mark.parametrize("name", [*TRUTH, "categorical"])
def test_whitened_tangents_are_as_long_as_the_slope_along_them(name, rng):
    distribution = DISTRIBUTIONS[name]()
    eta, shared = outputs(distribution, (3,), rng, 0.7)
    tangents = np.zeros((distribution.outputs_per_feature, len(eta)))
    for k in range(len(tangents)):  # two outputs of one column may be correlated
        tangents[k, 3 * k : 3 * (k + 1)] = rng.standard_normal(3)
    slopes = slopes_of_draws(distribution, eta, shared, rng)
    expected = np.square(slopes @ tangents.T).mean(axis=0)
    distribution.whiten(eta, shared, tangents)
    np.testing.assert_allclose(np.square(tangents).sum(axis=1), expected, rtol=0.04)


@pytest.mark.parametrize("name", sorted(set(DISTRIBUTIONS) - {*TRUTH, "categorical"}))
def test_losses_have_no_information(name):
    with pytest.raises(NotImplementedError):
        DISTRIBUTIONS[name]().information(np.zeros(2), np.zeros(0))


def test_truth_covers_the_registry():
    assert {*TRUTH, *FORMULA} == set(DISTRIBUTIONS)
    assert all(issubclass(cls, Distribution) for cls in DISTRIBUTIONS.values())


# --- the checks check -------------------------------------------------------------


class Skewed(Gaussian):
    def gradient(self, x, eta, shared, d_eta, d_shared=None):
        super().gradient(x, eta, shared, d_eta, d_shared)
        if d_shared is not None:
            d_shared *= 1.001


class Adding(Gaussian):
    def gradient(self, x, eta, shared, d_eta, d_shared=None):
        right = np.empty_like(d_eta)
        super().gradient(x, eta, shared, right, d_shared)
        d_eta += right


class Mixing(Gaussian):
    def gradient(self, x, eta, shared, d_eta, d_shared=None):
        super().gradient(x, eta, shared, d_eta, d_shared)
        if d_shared is not None:
            d_shared[...] = d_shared.mean(axis=(0, 1))


@pytest.mark.parametrize("cls", [Skewed, Adding, Mixing])
def test_a_wrong_derivative_fails(cls):
    with pytest.raises(AssertionError, match="derivative"):
        check_distribution(cls())


@every
def test_support_sample_is_inside(name, rng):
    distribution = DISTRIBUTIONS[name]()
    x = support_sample(distribution, (200, 5), rng)
    assert not distribution.support.outside(x).any()
    assert len(np.unique(x)) > (1 if distribution.support.high == 1 else 5)
    if distribution.sums_to_one:
        np.testing.assert_array_equal(x.sum(axis=1), 1.0)


@pytest.mark.parametrize("n_samples", [1, 3])
@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("size", [0.0, 0.3])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_misfit_is_what_nll_and_gradient_say(name, size, learns, n_samples):
    family, rng = DISTRIBUTIONS[name](), np.random.default_rng(0)
    x = support_sample(family, (6, 1, 4), rng)
    eta = rng.standard_normal((6, n_samples, family.n_outputs(4)))
    shared = np.full(family.n_shared(4), size)
    nll, slope = np.empty((6, n_samples, 4)), np.empty_like(eta)
    by_shared = [np.empty((6, n_samples, len(shared))) for _ in range(2)]
    family.nll(x, eta, shared, nll)
    family.gradient(x, eta, shared, slope, by_shared[0] if learns else None)
    out, found = np.empty((6, n_samples)), np.empty_like(eta)
    family.misfit(x, eta, shared, out, found, by_shared[1] if learns else None)
    np.testing.assert_allclose(out, nll.sum(axis=2), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found, slope, rtol=1e-12, atol=1e-12)
    if learns:
        np.testing.assert_array_equal(*by_shared)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "squared_error"])
def test_a_subclass_that_changes_the_loss_changes_the_misfit(name):
    class Tenfold(DISTRIBUTIONS[name]):
        def nll(self, x, eta, shared, out):
            super().nll(x, eta, shared, out)
            out *= 10

    x, eta = np.full((3, 1, 2), 0.25), np.full((3, 1, 2), 0.5)
    shared = np.zeros(Tenfold().n_shared(2))
    plain, tenfold, slope = np.empty((3, 1)), np.empty((3, 1)), np.empty_like(eta)
    DISTRIBUTIONS[name]().misfit(x, eta, shared, plain, slope)
    Tenfold().misfit(x, eta, shared, tenfold, slope)
    np.testing.assert_allclose(tenfold, 10 * plain)
