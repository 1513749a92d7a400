import numpy as np
import pytest
from numerical import check_gradient
from sklearn.base import clone

from skae.penalties import (
    L1,
    NONE_YET,
    PENALTIES,
    BatchTopK,
    Gated,
    Hoyer,
    JumpReLU,
    KLDivergence,
    TopK,
    kth_largest,
    largest,
    threshold,
    threshold_of_all,
)

N_ROWS, N_UNITS = 9, 5
#: Each penalty, with the numbers that its units keep.
CASES = {
    "batchtopk": (BatchTopK(k=2), [[0.3, 0.3, 0.3, 0.3, 0.3]]),
    "gated": (Gated(), [[0.2, -0.3, 0.0, 0.1, 0.5], [0.1, -0.1, 0.3, -0.4, 0.0]]),
    "hoyer": (Hoyer(), np.empty((0, 5))),
    "jumprelu": (JumpReLU(bandwidth=0.8), np.log([[0.3, 0.1, 0.9, 0.5, 0.2]])),
    "kl": (KLDivergence(0.2), [[0.1, 0.2, 0.5, 0.9, 0.3]]),
    "l1": (L1(), np.empty((0, 5))),
    "topk": (TopK(k=2), np.empty((0, 5))),
}
every = pytest.mark.parametrize("name", CASES)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def outputs(rng, name="l1", n_rows=N_ROWS):
    """Draw encoder outputs as the penalty allows them."""
    h = rng.standard_normal((n_rows, N_UNITS))
    return 1 / (1 + np.exp(-h)) if name == "kl" else h


def forward(penalty, h, own):
    a, cost = np.full_like(h, np.nan), np.full(len(h), np.nan, h.dtype)
    penalty.forward(h, own, a, cost)
    return a, cost


def backward(penalty, h, own, d_a, weight):
    a, _ = forward(penalty, h, own)
    d_h = np.full_like(h, np.nan)
    d_own = np.full((len(h), penalty.n_learned, h.shape[1]), np.nan, h.dtype)
    penalty.backward(h, own, a, d_a.copy(), weight, d_h, d_own)
    return d_h, d_own


def test_every_penalty_is_tested():
    assert set(CASES) == set(PENALTIES)
    assert all(type(CASES[name][0]) is kind for name, kind in PENALTIES.items())


@every
def test_gradient(name, rng):
    # With the units' numbers held fixed, all but the gates' cost is smooth.
    penalty, own = CASES[name][0], np.array(CASES[name][1])
    h, d_a = outputs(rng, name), rng.standard_normal((N_ROWS, N_UNITS))
    weight = rng.uniform(0.5, 2.0, N_ROWS)

    def loss(h):
        a, cost = forward(penalty, h, own)
        if name == "kl":  # the derivative of a mean is each row's share
            mean = own[0]
            slope = (1 - 0.2) / (1 - mean) - 0.2 / mean
            cost = h @ slope
        return float(np.sum(d_a * a) + weight @ cost)

    check_gradient(loss, backward(penalty, h, own, d_a, weight)[0], h)


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_but_the_results_is_written(name, dtype, rng):
    penalty, own = CASES[name][0], np.array(CASES[name][1], dtype)
    h = outputs(rng, name).astype(dtype)
    d_a, weight = np.ones_like(h), np.ones(N_ROWS, dtype)
    before = h.copy(), own.copy()
    a, cost = forward(penalty, h, own)
    d_h, d_own = backward(penalty, h, own, d_a, weight)
    assert penalty.meet(h, weight, own).dtype == dtype
    for array in (a, cost, d_h, d_own):
        assert array.dtype == dtype
        assert np.isfinite(array).all()
    for array, copy in zip((h, own), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@every
def test_settings_are_kept(name):
    penalty = CASES[name][0]
    assert clone(penalty).get_params() == penalty.get_params()
    assert len(penalty.start) == len(CASES[name][1])
    assert penalty.n_learned <= len(penalty.start)
    assert penalty.code_activation in penalty.activations


@every
def test_rows_that_do_not_meet_are_alone(name, rng):
    penalty, own = CASES[name][0], np.array(CASES[name][1])
    h, weight = outputs(rng, name), np.ones(N_ROWS)
    together = forward(penalty, h, own)
    alone = [forward(penalty, row[None], own) for row in h]
    np.testing.assert_array_equal(together[0], np.vstack([a for a, _ in alone]))
    if not penalty.rows_meet:
        np.testing.assert_array_equal(penalty.meet(h, weight, own), own)


# --- the divergence of mean activations -----------------------------------------------


def kl(rho, mean):
    return rho * np.log(rho / mean) + (1 - rho) * np.log((1 - rho) / (1 - mean))


def test_kl_in_closed_form(rng):
    penalty, h = KLDivergence(0.1), outputs(rng, "kl")
    weight = rng.uniform(size=N_ROWS)
    own = penalty.meet(h, weight, np.full((1, N_UNITS), np.nan))
    mean = np.average(h, axis=0, weights=weight)
    np.testing.assert_allclose(own, mean[None])
    _, cost = forward(penalty, h, own)
    np.testing.assert_allclose(cost, kl(0.1, mean).sum())
    # 0.1 against a mean of one half is log 2 less the entropy of 0.1.
    _, half = forward(penalty, h, np.full((1, N_UNITS), 0.5))
    entropy = -0.1 * np.log(0.1) - 0.9 * np.log(0.9)
    np.testing.assert_allclose(half, N_UNITS * (np.log(2) - entropy))
    _, none = forward(penalty, h, np.full((1, N_UNITS), 0.1))
    np.testing.assert_allclose(none, 0.0, atol=1e-15)


def test_kl_has_the_gradient_of_the_batch(rng):
    penalty, h = KLDivergence(0.1), outputs(rng, "kl")
    weight, zero = rng.uniform(size=N_ROWS), np.zeros((N_ROWS, N_UNITS))

    def total(h):
        own = penalty.meet(h, weight, np.empty((1, N_UNITS)))
        return float(weight @ forward(penalty, h, own)[1])

    own = penalty.meet(h, weight, np.empty((1, N_UNITS)))
    check_gradient(total, backward(penalty, h, own, zero, weight)[0], h)


def test_kl_agrees_with_pytorch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    penalty, h, weight = KLDivergence(0.05), outputs(rng, "kl"), np.full(N_ROWS, 1 / 9)
    x = torch.tensor(h, requires_grad=True)
    mean = x.mean(axis=0)
    target = torch.distributions.Bernoulli(torch.tensor(0.05, dtype=x.dtype))
    loss = torch.distributions.kl_divergence(
        target, torch.distributions.Bernoulli(mean)
    ).sum()
    loss.backward()
    own = penalty.meet(h, weight, np.empty((1, N_UNITS)))
    assert forward(penalty, h, own)[1][0] == pytest.approx(loss.item(), rel=1e-9)
    d_h, _ = backward(penalty, h, own, np.zeros_like(h), weight)
    np.testing.assert_allclose(d_h, x.grad.numpy(), rtol=1e-9)


def test_kl_settles_by_weight(rng):
    h, weight = outputs(rng, "kl"), rng.uniform(size=N_ROWS)
    blocks = [(h[:2], weight[:2]), (h[2:], weight[2:])]
    settled = KLDivergence().settle(lambda: iter(blocks), np.zeros((1, N_UNITS)))
    np.testing.assert_allclose(settled[0], np.average(h, axis=0, weights=weight))


def test_saturated_means_cost_much_but_not_everything():
    penalty = KLDivergence(0.1)
    for value in (0.0, 1.0):
        h = np.full((4, 2), value, np.float32)
        own = penalty.meet(h, np.ones(4, np.float32), np.empty((1, 2), np.float32))
        assert np.isfinite(forward(penalty, h, own)[1]).all()
        assert (forward(penalty, h, own)[1] > 5).all()
        d_h, _ = backward(penalty, h, own, np.zeros_like(h), np.ones(4, np.float32))
        assert np.isfinite(d_h).all()
        assert (np.sign(d_h) == np.sign(value - 0.5)).all()


def test_small_batches_add_their_variance_to_the_divergence(rng):
    # In expectation, by var / (2 B rho (1 - rho)).
    rho, n_rows, penalty = 0.2, 500, KLDivergence(0.2)
    h = rng.beta(20, 80, (n_rows, 4000))
    own = penalty.meet(h, np.ones(n_rows), np.empty((1, 4000)))
    _, cost = forward(penalty, h, own)
    variance = 0.2 * 0.8 / 101
    expected = variance / (2 * n_rows * rho * (1 - rho))
    assert cost[0] / 4000 == pytest.approx(expected, rel=0.1)


def test_a_running_mean_forgets_by_rows(rng):
    # Two batches of 50 rows and one of 100 leave the same behind.
    penalty, one = KLDivergence(0.1, memory=200.0), np.ones
    start = np.full((1, N_UNITS), 0.1)
    low, high = np.full((50, N_UNITS), 0.3), np.full((100, N_UNITS), 0.3)
    twice = penalty.meet(low, one(50), penalty.meet(low, one(50), start))
    np.testing.assert_allclose(penalty.meet(high, one(100), start), twice)
    np.testing.assert_allclose(twice, 0.3 - 0.2 * np.exp(-0.5))
    np.testing.assert_array_equal(penalty.remember(start, twice), twice)
    alone = penalty.settle(lambda: iter([(low, one(50)), (low, one(50))]), start)
    np.testing.assert_allclose(alone, 0.3)
    first = penalty.meet(low, one(50), np.full((1, N_UNITS), NONE_YET))
    np.testing.assert_allclose(first, 0.3)
    assert penalty.fewest_rows == 0
    assert KLDivergence(0.1).fewest_rows == pytest.approx(36)


# --- selections -----------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("digits", [0, 1, 16])
def test_topk_by_its_definition(k, digits, rng):
    # Rounding makes ties; of equal units the first ones count as larger.
    h = np.round(rng.standard_normal((200, N_UNITS)), digits) + 0.0
    expected = np.zeros_like(h)
    for row, out in zip(h, expected, strict=True):
        for j in sorted(range(N_UNITS), key=lambda j: (-row[j], j))[:k]:
            out[j] = row[j]
    np.testing.assert_array_equal(forward(TopK(k), h, np.empty((0, 5)))[0], expected)


def test_largest_are_k_in_each_row(rng):
    h = np.maximum(rng.standard_normal((50, 40)), 0.5)  # ties everywhere
    assert (np.count_nonzero(largest(h, 20), axis=1) == 20).all()


@pytest.mark.parametrize("k", [1, 20, 120, 599])
@pytest.mark.parametrize("floor", [-9.0, 0.0, 1.0, 2.5])
@pytest.mark.parametrize("shape", [(40, 600), (1, 24_000)])
def test_wide_rows_have_the_same_kth_largest(shape, floor, k, rng):
    # Whether few or most entries of a row equal the smallest.
    h = np.maximum(rng.standard_normal(shape), floor)
    h[0, ::8] = np.arange(len(h[0, ::8])) / 100  # an order that misleads the probe
    expected = np.sort(h, axis=1)[:, -k]
    np.testing.assert_array_equal(kth_largest(h, k), expected)


@pytest.mark.parametrize("k", [1, 20, 120])
def test_few_positive_entries_leave_zero_as_the_kth_largest(k, rng):
    h = np.maximum(rng.standard_normal((40, 600)) - 2.0, 0.0)
    np.testing.assert_array_equal(kth_largest(h, k), np.sort(h, axis=1)[:, -k])


def test_units_that_do_not_fire_are_positive_zeros(rng):
    h = -np.abs(outputs(rng))
    for penalty in (TopK(2), JumpReLU(), BatchTopK(2)):
        own = np.zeros((1, N_UNITS))
        a, _ = forward(penalty, h, own)
        assert not np.signbit(a[a == 0]).any()


def test_all_units_may_fire(rng):
    h = np.abs(outputs(rng))
    for penalty in (TopK(N_UNITS), BatchTopK(N_UNITS)):
        own = penalty.meet(h, np.ones(N_ROWS), np.full((1, N_UNITS), 9.0))
        np.testing.assert_array_equal(forward(penalty, h, own)[0], h)


def test_rounding_of_weights_does_not_move_the_threshold():
    # Ten weights of 0.1 add up to less than one.
    h = np.arange(40.0).reshape(10, 4)
    for weight in (np.full(10, 0.1), np.r_[np.full(9, 0.1), 0.1 + 1e-12]):
        assert threshold(h, weight, 2) == 20.0
        found = threshold_of_all(lambda w=weight: iter([(h + 1, w)]), 2)
        assert 20.0 < found < 21.0


def test_batchtopk_by_its_definition(rng):
    h, weight, penalty = outputs(rng), np.full(N_ROWS, 0.1), BatchTopK(2)
    h = np.abs(h)
    own = penalty.meet(h, weight, np.zeros((1, N_UNITS)))
    a, cost = forward(penalty, h, own)
    assert not cost.any()
    fires = h >= np.sort(h, axis=None)[-2 * N_ROWS]
    np.testing.assert_array_equal(a, h * fires)
    assert np.count_nonzero(a) == 2 * N_ROWS
    order = rng.permutation(N_ROWS)
    np.testing.assert_array_equal(penalty.meet(h[order], weight, own), own)


def test_a_row_of_weight_two_counts_as_two_rows(rng):
    h = np.abs(outputs(rng))
    weight = np.array([2.0, 1, 1, 3, 1, 1, 1, 2, 1])
    repeated = np.repeat(h, weight.astype(int), axis=0)
    for k in (1, 2, 3, 4):
        expected = threshold(repeated, np.ones(len(repeated)), k)
        assert threshold(h, weight / 13, k) == expected
    blocks = [(h[:4], weight[:4]), (h[4:], weight[4:])]
    expected = threshold_of_all(lambda: iter([(repeated, np.ones(13))]), 2)
    assert threshold_of_all(lambda: iter(blocks), 2) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_threshold_of_all_rows_lies_between_two_values(k, dtype, rng):
    h = np.maximum(rng.standard_normal((500, 20)), 0).astype(dtype)
    blocks = [(h[:123], np.ones(123)), (h[123:], np.ones(377))]
    found = threshold_of_all(lambda: iter(blocks), k)
    values = np.sort(h, axis=None)[::-1]
    assert values[500 * k] < found < values[500 * k - 1]
    assert found == pytest.approx((values[500 * k] + values[500 * k - 1]) / 2, rel=1e-6)


def test_the_threshold_of_all_rows_has_a_value_where_few_units_fire():
    h = np.zeros((10, 4))
    h[0, 0] = 3.0
    assert threshold_of_all(lambda: iter([(h, np.ones(10))]), 2) == 0.0
    h[:, :2] = np.float32(1.5)
    found = threshold_of_all(lambda: iter([(h, np.ones(10))]), 2)
    assert 0 < found < 1.5
    # Neighbouring numbers leave no room for a threshold between them.
    h[:, 0] = np.nextafter(np.float32(1.5), np.float32(2))
    found = threshold_of_all(lambda: iter([(h.astype(np.float32), np.ones(10))]), 1)
    assert 1.5 < found <= h[0, 0]


# --- straight-through gradients -------------------------------------------------------


def test_jumprelu_by_its_definition(rng):
    penalty, (theta,) = CASES["jumprelu"][0], np.exp(CASES["jumprelu"][1])
    own, h = np.log([theta]), outputs(rng)
    d_a, weight = rng.standard_normal(h.shape), rng.uniform(size=N_ROWS)
    a, cost = forward(penalty, h, own)
    d_h, d_own = backward(penalty, h, own, d_a, weight)
    for i, row in enumerate(h):
        assert cost[i] == sum(v > t for v, t in zip(row, theta, strict=True))
        for j, value in enumerate(row):
            fires, near = value > theta[j], abs(value - theta[j]) < 0.4
            assert a[i, j] == (value if fires else 0.0)
            assert d_h[i, j] == (d_a[i, j] if fires else 0.0)
            slope = -theta[j] / 0.8 * d_a[i, j] - weight[i] / 0.8
            expected = slope * theta[j] if near else 0.0
            assert d_own[i, 0, j] == pytest.approx(expected, rel=1e-12, abs=0)


def test_jumprelu_s_estimate_is_the_slope_of_the_mean(rng):
    # Over very many rows, the mean loss is a smooth function of the threshold.
    n, theta, step = 2_000_000, 0.5, 0.02
    h = rng.standard_normal((n, 1))
    penalty, weight = JumpReLU(bandwidth=0.05), np.full(n, 0.7 / n)

    def mean(theta):
        a, cost = forward(penalty, h, np.log([[theta]]))
        return float(np.mean((a - 2.0) ** 2)) / 2 + float(weight @ cost)

    expected = (mean(theta + step) - mean(theta - step)) / (2 * step)
    # At the threshold the unit's output jumps between zero and theta: the loss's
    # slope there is the mean of those at both ends.
    d_a = np.full((n, 1), (theta / 2 - 2.0) / n)
    d_own = backward(penalty, h, np.log([[theta]]), d_a, weight)[1]
    assert d_own.sum() / theta == pytest.approx(expected, rel=0.02)


def test_gated_by_its_definition(rng):
    penalty, own = CASES["gated"][0], np.array(CASES["gated"][1])
    h = outputs(rng)
    a, cost = forward(penalty, h, own)
    magnitude = np.maximum(np.exp(own[0]) * h + own[1], 0)
    np.testing.assert_allclose(a, np.where(h > 0, magnitude, 0), rtol=1e-12)
    np.testing.assert_allclose(cost, np.maximum(h, 0).sum(axis=1))
    np.testing.assert_array_equal(a > 0, h > np.maximum(0, penalty.thresholds(own)))


def test_thresholds_of_gates():
    own = np.array([[0.5, 0.5, -1.0], [-0.4, 0.4, -0.4]])
    expected = [0.4 * np.exp(-0.5), 0.0, 0.4 * np.exp(1.0)]
    np.testing.assert_allclose(Gated().thresholds(own), expected)


def test_an_output_at_the_threshold_does_not_fire():
    own = np.log([[0.5, 0.5]])
    h = np.array([[np.exp(own[0, 0]), 0.6]])
    a, cost = forward(JumpReLU(), h, own)
    np.testing.assert_array_equal(a, [[0.0, 0.6]])
    assert cost == 1.0


def test_gated_scales_have_their_gradient(rng):
    penalty, own, h = CASES["gated"][0], np.array(CASES["gated"][1]), outputs(rng)
    d_a, weight = rng.standard_normal(h.shape), np.zeros(N_ROWS)
    d_own = backward(penalty, h, own, d_a, weight)[1].sum(axis=0)
    check_gradient(
        lambda own: float(np.sum(d_a * forward(penalty, h, own)[0])), d_own, own
    )


# --- other costs ----------------------------------------------------------------------


def test_hoyer_counts_units_that_fire_equally():
    h = np.array([[0, 0, 3, 0, 0], [2, 2, 2, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0.0]])
    none = np.empty((0, 5))
    _, cost = forward(Hoyer(), h, none)
    np.testing.assert_allclose(cost, [1, 3, 5, 0])
    np.testing.assert_allclose(forward(Hoyer(), 7 * h, none)[1], cost)
    d_h, _ = backward(Hoyer(), h, none, np.zeros_like(h), np.ones(4))
    assert np.isfinite(d_h).all()
    assert not d_h[3].any()


def test_l1_adds_absolute_values():
    h = np.array([[1.0, -2.0, 0.0]])
    assert forward(L1(), h, np.empty((0, 3)))[1] == 3.0


def test_thresholds_are_where_units_begin_to_fire():
    assert TopK().thresholds(np.empty((0, 2))) is None
    np.testing.assert_allclose(BatchTopK().thresholds(np.array([[0.4, 0.4]])), 0.4)
    np.testing.assert_allclose(JumpReLU().thresholds(np.log([[0.4, 2.0]])), [0.4, 2.0])


@pytest.mark.parametrize(
    ("penalty", "start"),
    [
        (KLDivergence(0.3), [NONE_YET]),
        (JumpReLU(0.2), [np.log(0.2)]),
        (Gated(), [0, 0]),
    ],
)
def test_the_units_numbers_start_where_the_settings_say(penalty, start):
    np.testing.assert_allclose(penalty.start, start)
