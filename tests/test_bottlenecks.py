import numpy as np
import pytest
from numerical import check_gradient
from scipy import special, stats

from skae.bottlenecks import (
    Deterministic,
    GaussianPosterior,
    ImportanceWeighted,
    SparseCode,
    posterior,
)
from skae.draws import normal_draws
from skae.penalties import BatchTopK, Gated, KLDivergence, TopK

BOTTLENECKS = [
    Deterministic(),
    GaussianPosterior(),
    GaussianPosterior(n_samples=4),
    GaussianPosterior(n_samples=2, free_bits=0.5),
    ImportanceWeighted(),
    ImportanceWeighted(n_samples=5),
]
#: These bottlenecks keep no numbers of their own.
NONE = np.empty((0, 0))

every = pytest.mark.parametrize("bottleneck", BOTTLENECKS, ids=repr)
random = pytest.mark.parametrize("bottleneck", BOTTLENECKS[1:], ids=repr)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class Draws:
    """A bottleneck beside some encoder outputs and draws, its results not a number."""

    def __init__(self, bottleneck, rng, n=6, k=3):
        shape = n, bottleneck.n_samples, k
        self.bottleneck = bottleneck
        self.h = rng.standard_normal((n, k * bottleneck.outputs_per_unit))
        self.noise = bottleneck.draw(shape, self.h.dtype, rng)
        self.own = bottleneck.start(k)
        self.z, self.cost = np.full(shape, np.nan), np.full(shape[:2], np.nan)

    def forward(self, h):
        self.bottleneck.forward(h, self.noise, self.own, self.z, self.cost)
        return self.z, self.cost

    def backward(self, d_z, weight):
        self.forward(self.h)
        d_h = np.full_like(self.h, np.nan)
        args = self.h, self.noise, self.own, self.z, d_z.copy(), weight, d_h, NONE
        self.bottleneck.backward(*args)
        return d_h


@every
def test_gradient(bottleneck, rng):
    draws = Draws(bottleneck, rng)
    d_z = rng.standard_normal(draws.z.shape)
    weight = rng.uniform(size=draws.cost.shape)

    def loss(h):
        z, cost = draws.forward(h)
        return float(np.sum(z * d_z) + np.sum(cost * weight))

    check_gradient(loss, draws.backward(d_z, weight), draws.h)


@every
def test_backward_reads_its_arguments_and_overwrites_d_z_at_most(bottleneck, rng):
    draws = Draws(bottleneck, rng)
    draws.forward(draws.h)
    d_h, d_z = np.empty_like(draws.h), rng.standard_normal(draws.z.shape)
    weight = rng.uniform(size=draws.cost.shape)
    read = draws.h, draws.noise, draws.own, draws.z, weight
    before = [array.copy() for array in read]
    bottleneck.backward(*read[:4], d_z, weight, d_h, NONE)
    for array, copy in zip(read, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@every
def test_share_is_the_derivative_of_the_loss(bottleneck, rng):
    total = rng.normal(100.0, 2.0, (6, bottleneck.n_samples))
    weight = rng.standard_normal(6)
    loss, share = np.full(6, np.nan), np.full_like(total, np.nan)

    def weighted(total):
        bottleneck.combine(total, loss, np.empty_like(total))
        return float(weight @ loss)

    before = total.copy()
    bottleneck.combine(total, loss, share)
    np.testing.assert_array_equal(total, before)
    np.testing.assert_allclose(share.sum(axis=1), 1.0, rtol=1e-14)
    check_gradient(weighted, weight[:, None] * share, total)


@random
def test_single_precision_stays(bottleneck, rng):
    noise = bottleneck.draw((4, bottleneck.n_samples, 2), np.dtype(np.float32), rng)
    assert noise.dtype == np.float32
    assert noise.shape == (4, bottleneck.n_samples, 2)


def test_deterministic_code_is_the_encoder_s_output(rng):
    draws = Draws(Deterministic(), rng)
    z, cost = draws.forward(draws.h)
    np.testing.assert_array_equal(z[:, 0], draws.h)
    np.testing.assert_array_equal(draws.bottleneck.code(draws.h, NONE), draws.h)
    assert not cost.any()
    assert not draws.bottleneck.is_random


# --- a normal posterior ---------------------------------------------------------------


def test_divergence_from_the_prior():
    # KL(N(3.14, 2.7^2) || N(0, 1)) and its derivatives, in closed form.
    h = np.array([[3.14, np.log(2.7**2)]])
    z, cost, d_h = np.empty((1, 1, 1)), np.empty((1, 1)), np.empty_like(h)
    bottleneck, noise = GaussianPosterior(), np.zeros((1, 1, 1))
    bottleneck.forward(h, noise, NONE, z, cost)
    expected = 0.5 * (3.14**2 + 2.7**2 - 1) - np.log(2.7)
    assert cost[0, 0] == pytest.approx(expected)
    assert cost[0, 0] == pytest.approx(7.08155, abs=1e-5)
    bottleneck.backward(h, noise, NONE, z, np.zeros_like(z), np.ones((1, 1)), d_h, NONE)
    # d/d log sigma^2 is sigma / 2 times the derivative by sigma, 2.7 - 1 / 2.7.
    np.testing.assert_allclose(d_h, [[3.14, 0.5 * 2.7 * (2.7 - 1 / 2.7)]])
    assert d_h[0, 1] / (0.5 * 2.7) == pytest.approx(2.32963, abs=1e-5)


def test_the_prior_itself_costs_nothing(rng):
    draws = Draws(GaussianPosterior(n_samples=2), rng)
    draws.h.fill(0.0)
    z, cost = draws.forward(draws.h)
    np.testing.assert_array_equal(z, draws.noise)
    np.testing.assert_array_equal(cost, 0.0)
    d_h = draws.backward(np.zeros_like(z), np.ones_like(cost))
    np.testing.assert_array_equal(d_h, 0.0)


@pytest.mark.parametrize("kind", [GaussianPosterior, ImportanceWeighted])
def test_gaussian_codes_have_the_posterior_s_moments(kind, rng):
    h = np.array([[1.5, np.log(0.25)]])
    bottleneck = kind(n_samples=100_000)
    z, cost = np.empty((1, 100_000, 1)), np.empty((1, 100_000))
    noise = bottleneck.draw(z.shape, h.dtype, rng)
    bottleneck.forward(h, noise, NONE, z, cost)
    assert z.mean() == pytest.approx(1.5, abs=0.01)
    assert z.std() == pytest.approx(0.5, rel=0.01)
    np.testing.assert_array_equal(bottleneck.code(h, NONE), [[1.5]])
    assert bottleneck.is_random


def test_free_bits_are_free():
    # Divergences of 0.02, 0.5 and 2: below, at and above what is free.
    h = np.array([[0.2, 1.0, 2.0, 0.0, 0.0, 0.0], [3.0, 0.3, 0.1, 0.5, 0.1, -0.2]])
    free, plain = GaussianPosterior(free_bits=0.5), GaussianPosterior()
    noise, z = np.zeros((2, 1, 3)), np.empty((2, 1, 3))
    cost, d_free, d_plain = np.empty((2, 1)), np.empty_like(h), np.empty_like(h)
    weight = np.array([[1.0], [0.3]])
    free.forward(h, noise, NONE, z, cost)
    of_mean, of_variance = np.square(h[:, :3]), np.exp(h[:, 3:]) - h[:, 3:] - 1
    kl = 0.5 * (of_mean + of_variance)
    np.testing.assert_allclose(cost[:, 0], np.maximum(kl, 0.5).sum(axis=1))
    free.backward(h, noise, NONE, z, np.zeros_like(z), weight, d_free, NONE)
    plain.backward(h, noise, NONE, z, np.zeros_like(z), weight, d_plain, NONE)
    above = np.array([[False, False, True], [True, False, False]])
    np.testing.assert_array_equal(above, kl > 0.5)
    above = np.tile(above, 2)  # of the mean and of the variance
    np.testing.assert_array_equal(d_free[~above], 0.0)
    np.testing.assert_array_equal(d_free[above], d_plain[above])
    assert d_plain[~above].any()


def test_a_component_that_is_free_still_learns_from_the_decoder(rng):
    draws = Draws(GaussianPosterior(n_samples=3, free_bits=1e3), rng)
    d_z = rng.standard_normal(draws.z.shape)
    d_h = draws.backward(d_z, np.ones_like(draws.cost))
    np.testing.assert_allclose(d_h[:, :3], d_z.sum(axis=1))


# --- several draws with one bound -----------------------------------------------------


def combined(total):
    total = np.asarray(total, dtype=float)
    loss, share = np.full(len(total), np.nan), np.full_like(total, np.nan)
    ImportanceWeighted(total.shape[1]).combine(total, loss, share)
    return loss, share


def test_sampled_cost_is_the_divergence_on_average():
    draws = normal_draws(2**14, 2)
    bottleneck = ImportanceWeighted(len(draws))
    h = np.array([[3.14, -0.5, np.log(2.7**2), np.log(0.2)]])
    z, cost = np.empty((1, *draws.shape)), np.empty((1, len(draws)))
    bottleneck.forward(h, draws[None], NONE, z, cost)
    exact = np.empty((1, 1))
    one, zero = np.empty((1, 1, 2)), np.zeros((1, 1, 2))
    GaussianPosterior().forward(h, zero, NONE, one, exact)
    assert cost.mean() == pytest.approx(exact[0, 0], rel=1e-3)


def test_sampled_cost_is_a_ratio_of_densities(rng):
    draws = Draws(ImportanceWeighted(n_samples=4), rng)
    z, cost = draws.forward(draws.h)
    mu, log_variance = draws.h[:, None, :3], draws.h[:, None, 3:]
    q = stats.norm(mu, np.exp(0.5 * log_variance)).logpdf(z)
    expected = (q - stats.norm.logpdf(z)).sum(axis=2)
    np.testing.assert_allclose(cost, expected, rtol=1e-6)


def test_every_draw_of_the_true_posterior_tells_the_likelihood(rng):
    # x = w z + noise: both p(z | x) and p(x) are known, and p(x) is the ratio.
    w, scale, x = 1.7, 0.6, 2.3
    variance = 1 / (1 + (w / scale) ** 2)
    h = np.array([[variance * w * x / scale**2, np.log(variance)]])
    bottleneck = ImportanceWeighted(n_samples=7)
    z, cost = np.empty((1, 7, 1)), np.empty((1, 7))
    noise = bottleneck.draw(z.shape, h.dtype, rng)
    bottleneck.forward(h, noise, NONE, z, cost)
    total = cost - stats.norm(w * z[:, :, 0], scale).logpdf(x)
    expected = -stats.norm(0, np.hypot(w, scale)).logpdf(x)
    np.testing.assert_allclose(total, expected, rtol=1e-12)
    loss, share = combined(total)
    assert loss[0] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(share, 1 / 7)


def test_the_loss_is_a_log_mean_exp(rng):
    total = rng.normal(50.0, 5.0, (20, 8))
    loss, share = combined(total)
    expected = np.log(8) - special.logsumexp(-total, axis=1)
    np.testing.assert_allclose(loss, expected, rtol=1e-13)
    np.testing.assert_allclose(share, special.softmax(-total, axis=1), rtol=1e-12)
    assert (loss <= total.mean(axis=1)).all()
    assert (loss >= total.min(axis=1)).all()


def test_more_draws_make_a_tighter_bound(rng):
    # Burda et al., theorem 1: true for the average over all draws left out.
    total = rng.normal(50.0, 5.0, (20, 6))
    fewer = [combined(np.delete(total, i, axis=1))[0] for i in range(6)]
    assert (combined(total)[0] < np.mean(fewer, axis=0)).all()


def test_one_draw_is_the_evidence_lower_bound(rng):
    total = rng.normal(50.0, 5.0, (20, 1))
    loss, share = combined(total)
    np.testing.assert_array_equal(loss, total[:, 0])
    np.testing.assert_array_equal(share, 1.0)


@pytest.mark.parametrize("worst", [2e3, 1e300, np.inf])
@pytest.mark.parametrize("least", [-1e5, 0.0, 1e5])
def test_a_draw_that_underflows_has_no_share(worst, least):
    loss, share = combined([[least, worst + least, least]])
    np.testing.assert_allclose(loss, least + np.log(1.5), rtol=1e-14)
    np.testing.assert_array_equal(share, [[0.5, 0.0, 0.5]])


@pytest.mark.parametrize("bottleneck", [GaussianPosterior(2), ImportanceWeighted(2)])
def test_log_variances_far_out_are_bent(bottleneck, rng):
    raw = np.array([-900.0, -20.0, -3.0, 2.0, 2.5, 80.0])
    h = np.concatenate([np.full(6, 0.1), raw])[None]
    mu, log_variance = posterior(h)
    expected = [-20 - np.log(881), -20, -3, 2, 2 + np.log(1.5), 2 + np.log(79)]
    np.testing.assert_allclose(log_variance[0], expected)
    np.testing.assert_array_equal(mu, h[:, :6])
    noise, slope = rng.standard_normal((2, 1, 2, 6))
    weight = rng.uniform(0.5, 1.0, (1, 2))
    z, cost, d_h = np.empty((1, 2, 6)), np.empty((1, 2)), np.empty_like(h)

    def loss(h):
        bottleneck.forward(h, noise, NONE, z, cost)
        return np.sum(z * slope) + np.sum(cost * weight)

    h += 0.01  # away from the two joints
    loss(h)
    bottleneck.backward(h, noise, NONE, z, slope.copy(), weight, d_h, NONE)
    check_gradient(loss, d_h, h)


# --- a sparse code --------------------------------------------------------------------

OUTPUTS = np.array([[3.0, 0.5, 2.0, 1.0], [0.2, 0.4, 0.0, 0.6]])


def codes(bottleneck, h, own):
    z = np.full((len(h), bottleneck.n_samples, h.shape[1]), np.nan)
    cost = np.full(z.shape[:2], np.nan)
    bottleneck.forward(h, np.empty((len(h), 0)), own, z, cost)
    return z, cost


def test_leading_parts_of_the_code():
    nested = SparseCode(TopK(2), sizes=(1, 3))
    z, cost = codes(nested, OUTPUTS, nested.start(4))
    np.testing.assert_array_equal(z[0], [[3, 0, 2, 0], [3, 0, 0, 0], [3, 0, 2, 0]])
    np.testing.assert_array_equal(z[1, 0], [0, 0.4, 0, 0.6])
    np.testing.assert_array_equal(z[1, 1:], [[0, 0, 0, 0], [0, 0.4, 0, 0]])
    assert not cost.any()
    np.testing.assert_array_equal(nested.code(OUTPUTS, nested.start(4)), z[:, 0])


def test_the_whole_code_alone_can_be_asked_for():
    nested = SparseCode(TopK(2), sizes=(1, 3), n_revived=2, dead_after=0.0)
    z, cost = np.full((2, 1, 4), np.nan), np.full((2, 1), np.nan)
    nested.forward(OUTPUTS, NONE, nested.start(4), z, cost)
    np.testing.assert_array_equal(z[:, 0], nested.code(OUTPUTS, nested.start(4)))
    loss, share = np.empty(2), np.empty((2, 1))
    nested.combine(np.array([[3.0], [4.0]]), loss, share)
    np.testing.assert_array_equal(loss, [3.0, 4.0])
    np.testing.assert_array_equal(share, 1.0)


def test_dead_units_join_in():
    # Units 1 and 3 are dead; one of them may learn from each row, if it is not at work.
    revived = SparseCode(TopK(2), n_revived=1, dead_after=10)
    own = np.array([[0.0, 10.0, 9.0, 11.0]])
    z, _ = codes(revived, OUTPUTS, own)
    np.testing.assert_array_equal(z[0, 1] - z[0, 0], [0, 0, 0, 1])
    np.testing.assert_array_equal(z[1, 1] - z[1, 0], [0, 0, 0, 0])
    total, loss, share = (
        np.array([[5.0, 3.0], [4.0, 4.0]]),
        np.empty(2),
        np.empty((2, 2)),
    )
    revived.combine(total, loss, share)
    np.testing.assert_allclose(loss, [5 - 2 / 32, 4])
    np.testing.assert_allclose(share, [[1, 1 / 32]] * 2)


def test_gates_have_a_code_of_their_own():
    gated = SparseCode(Gated(), sizes=(2,))
    h = OUTPUTS - 0.5
    own = gated.start(4)
    own[1] = 0.25
    z, cost = codes(gated, h, own)
    np.testing.assert_allclose(z[:, 0], (h > 0) * np.maximum(h + 0.25, 0))
    np.testing.assert_array_equal(z[:, 2], np.maximum(h, 0))
    assert not cost[:, 2].any()
    loss, share = np.empty(1), np.empty((1, 3))
    gated.combine(np.array([[5.0, 3.0, 2.0]]), loss, share)
    assert loss == 4.0 + 2.0
    np.testing.assert_array_equal(share, [[0.5, 0.5, 1.0]])


def test_rows_since_a_unit_has_fired_are_counted():
    bottleneck = SparseCode(TopK(2))
    own = np.array([[7.0, 7.0, 7.0, 7.0]])
    z, _ = codes(bottleneck, OUTPUTS, own)
    np.testing.assert_array_equal(bottleneck.remember(own, own, z), [[0, 0, 0, 0]])
    z, _ = codes(bottleneck, OUTPUTS[:1], own)
    np.testing.assert_array_equal(bottleneck.remember(own, own, z), [[0, 8, 0, 8]])
    np.testing.assert_array_equal(own, 7.0)


def test_dead_units_stay_dead_where_they_only_join_in():
    revived = SparseCode(TopK(2), n_revived=2, dead_after=10)
    own = np.array([[0.0, 10.0, 9.0, 11.0]])
    z, _ = codes(revived, OUTPUTS[:1], own)
    assert z[0, 1, 3] > 0
    np.testing.assert_array_equal(revived.remember(own, own, z), [[0, 11, 0, 12]])


@pytest.mark.parametrize("penalty", [KLDivergence(0.2), BatchTopK(1)], ids=repr)
def test_what_rows_meet_in_is_remembered(penalty):
    bottleneck, h, weight = SparseCode(penalty), OUTPUTS / 4, np.array([0.5, 0.5])
    own = bottleneck.start(4)
    met = bottleneck.meet(h, weight, own)
    np.testing.assert_array_equal(met[:1], penalty.meet(h, weight, own[:1]))
    z, _ = codes(bottleneck, h, met)
    remembered = bottleneck.remember(own, met, z)[:1]
    np.testing.assert_array_equal(remembered, penalty.remember(own[:1], met[:1]))
    settled = bottleneck.settle(lambda: iter([(h, weight)]), own)
    expected = penalty.settle(lambda: iter([(h, weight)]), own[:1])
    np.testing.assert_array_equal(settled, np.vstack([expected, own[1:]]))


@pytest.mark.parametrize("extreme", [-30.0, 5.0, np.nan])
@pytest.mark.parametrize("inside", [-20.0, 0.0, 2.0])
def test_log_variances_bend_beyond_their_limits_only(inside, extreme):
    h = np.array([[1.0, inside], [2.0, extreme]])
    mu, log_variance = posterior(h)
    np.testing.assert_array_equal(mu[:, 0], [1.0, 2.0])
    assert log_variance[0, 0] == inside
    limit = np.clip(extreme, -20.0, 2.0)
    bent = limit + np.sign(extreme - limit) * np.log1p(abs(extreme - limit))
    np.testing.assert_allclose(log_variance[1, 0], bent)
    alone = posterior(h[:1])[1]
    np.testing.assert_array_equal(alone, log_variance[:1])
    assert posterior(np.empty((0, 4)))[1].shape == (0, 2)
