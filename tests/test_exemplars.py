import numpy as np
import pytest
from scipy import integrate, sparse, special, stats
from sklearn.base import clone
from sklearn.neighbors import KernelDensity

from skae.bottlenecks import Deterministic
from skae.distributions import DISTRIBUTIONS
from skae.exemplars import LEAST_SPREAD, Exemplars
from skae.model import Model, Plan
from skae.rows import Columns, Rows

#: Six columns of four kinds, not in order.
MIXED = [
    ("laplace", [5, 0]),
    ("gamma", [3]),
    ("bernoulli", [1]),
    ("poisson", [4, 2]),
]


def build(X, distribution="gaussian", k=2, standardize=True, hidden=(), seed=0):
    """Return a model with random weights, a third of the units' scale."""
    rng, d = np.random.default_rng(seed), X.shape[1]
    plan = Plan(
        down=[d, *hidden, k],
        up=[k, *hidden[::-1], d],
        activations=[["tanh"] * len(hidden) + ["identity"]] * 2,
        tied=False,
        distribution=distribution,
        standardize=standardize,
    )
    columns = Columns.of(Rows(X))
    model = Model.start(plan, Deterministic(), columns, X.dtype, rng)
    model.theta += 0.3 * rng.standard_normal(model.size).astype(X.dtype)
    return model


def reproducing(X):
    """Return a model that reproduces every row."""
    model, eye = build(X, k=X.shape[1]), np.eye(X.shape[1])
    (encode, shift), (decode, bias) = (
        model.objective.encoder.of(model.theta)[0],
        model.objective.decoder.of(model.theta)[0],
    )
    encode[...], shift[...], decode[...], bias[...] = 2 * eye, 1.0, 0.5 * eye, -0.5
    np.testing.assert_allclose(model.decode(model.encode(X)), X)
    return model


def normals(n, d, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) * np.geomspace(0.1, 30, d) + 3.0).astype(dtype)


def mixed_rows(n, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, 1))
    X = 3.0 + 2.0 * common + rng.standard_normal((n, 6))
    X[:, 1] = X[:, 1] > 3.0
    X[:, 3] = np.exp(X[:, 3])
    X[:, [2, 4]] = rng.poisson(np.exp(0.5 * common + [0.0, 1.0]))
    return X


def seen(model, X):
    """Return rows and their reconstructions, in the units of the network."""
    both = X, model.decode(model.encode(X))
    return [(v - model.center) / model.unit for v in both]


# --- densities ------------------------------------------------------------------------


def by_hand(model, rows, weight, n_effective, X):
    """Return each column's log-density beside each exemplar, and how these weigh."""
    same, found = (X[:, None] == rows).all(axis=2), []
    left = np.where(same, np.maximum(weight - 1, 0), weight)
    left = left / left.sum(axis=1, keepdims=True)
    for i, (known, v) in enumerate(zip(seen(model, rows), seen(model, X), strict=True)):
        mean = np.average(known, axis=0, weights=weight)
        square = np.average(np.square(known - mean), axis=0, weights=weight)
        least = LEAST_SPREAD * model.columns.unit / model.unit
        spread = np.maximum(np.sqrt(square), least)
        # Rows have densities in the units of X, the others in those of their spread.
        unit = spread if i else 1 / model.unit
        law = stats.laplace(known / unit, len(spread) / n_effective * spread / unit)
        each = law.logpdf(v[:, None] / unit)
        with np.errstate(divide="ignore"):
            log_joint = each.sum(axis=2) + np.log(left)
        total = special.logsumexp(log_joint, axis=1)
        found.append((each, total, np.exp(log_joint - total[:, None])))
    return found


@pytest.mark.parametrize("distribution", ["gaussian", MIXED], ids=["gaussian", "mixed"])
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("n_effective", [0.5, 6.0, 30.0])
def test_rows_and_reconstructions_have_mixtures_around_the_exemplars(
    distribution, standardize, n_effective
):
    X, weight = mixed_rows(40), np.random.default_rng(1).uniform(0.1, 3.0, 9)
    hidden = () if distribution == "gaussian" else (4,)
    model = build(X, distribution, standardize=standardize, hidden=hidden)
    exemplars = Exemplars(model, X[:9], weight, n_effective)
    both = by_hand(model, X[:9], weight, n_effective, X)
    expected = both[0][1] + both[1][1]
    np.testing.assert_allclose(exemplars.log_density(X), expected, rtol=1e-10)
    shares = np.zeros(X.shape)
    for each, total, r in both:
        inside = np.einsum("nm,nmd->nd", r, each)
        shares += inside + (total - inside.sum(axis=1))[:, None] / 6
    np.testing.assert_allclose(exemplars.shares(X), shares, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(exemplars.expected(X), both[1][2] @ X[:9], rtol=1e-9)


@pytest.fixture
def only_equal_rows(monkeypatch):
    """Let a row that is not quite an exemplar be another row."""
    monkeypatch.setattr("skae.exemplars.SAME", 0.0)


@pytest.mark.usefixtures("only_equal_rows")
@pytest.mark.parametrize("n_effective", [0.2, 1.0, 20.0])
def test_the_density_of_one_column_integrates_to_one(n_effective):
    X, weight = normals(5, 1), np.arange(1.0, 6.0)
    exemplars = Exemplars(reproducing(X), X, weight, n_effective)
    reach = 40 * X.std() / n_effective
    line = np.linspace(X.min() - reach, X.max() + reach, 400_001)
    mean = np.average(X[:, 0], weights=weight)
    spread = np.sqrt(np.average(np.square(X[:, 0] - mean), weights=weight))
    # The same density twice: in the units of X, and in those of its deviation.
    log_density = exemplars.log_density(line[:, None])
    density = np.exp(0.5 * (log_density - np.log(spread)))
    assert integrate.trapezoid(density, line) == pytest.approx(1.0, abs=1e-5)
    assert integrate.trapezoid(line * density, line) == pytest.approx(mean, rel=1e-5)


def test_a_model_that_reproduces_everything_is_a_kernel_density_estimate():
    X, new = normals(50, 1), normals(20, 1, seed=1)
    exemplars = Exemplars(reproducing(X), X, np.ones(50), 4.0)
    # The same density twice: in the units of X, and in those of its deviation.
    kernels, rows = KernelDensity(kernel="exponential", bandwidth=1 / 4), X / X.std()
    expected = 2 * kernels.fit(rows).score_samples(new / X.std()) - np.log(X.std())
    np.testing.assert_allclose(exemplars.log_density(new), expected, rtol=1e-7)
    # A row among the exemplars has the density that the others make.
    others = [clone(kernels).fit(np.delete(rows, i, axis=0)) for i in range(50)]
    expected = [other.score_samples(rows[[i]]) for i, other in enumerate(others)]
    expected = 2 * np.ravel(expected) - np.log(X.std())
    np.testing.assert_allclose(exemplars.log_density(X), expected, rtol=1e-7)


@pytest.mark.parametrize(
    "name", [name for name, family in DISTRIBUTIONS.items() if family.has_unit]
)
def test_another_unit_shifts_log_p_by_its_logarithm(name):
    X = np.exp(normals(30, 3, seed=2) / [0.1, 2.0, 30.0] / 9)
    model, factor = build(X, name), np.array([1e-6, 7.0, 1e4])
    columns = Columns.of(Rows(X * factor))
    other = Model(model.plan, model.bottleneck, model.theta, columns)
    one = Exemplars(model, X[:8], np.ones(8), 6.0)
    other = Exemplars(other, X[:8] * factor, np.ones(8), 6.0)
    log_density = one.log_density(X) - np.log(factor).sum()
    np.testing.assert_allclose(other.log_density(X * factor), log_density, rtol=1e-8)
    shares = one.shares(X) - np.log(factor)
    np.testing.assert_allclose(other.shares(X * factor), shares, rtol=1e-7)
    expected = one.expected(X) * factor
    np.testing.assert_allclose(other.expected(X * factor), expected, rtol=1e-8)


def test_another_unit_does_so_whether_or_not_columns_are_standardized():
    X, factor, found = normals(30, 3), np.array([1e-3, 1.0, 1e3]), []
    X[:8, 0] = 3.0  # which is taken to vary a little
    for each in (np.ones(3), factor):
        model = build(X * each, standardize=False)
        (encode, _), (decode, bias) = (
            model.objective.encoder.of(model.theta)[0],
            model.objective.decoder.of(model.theta)[0],
        )
        encode /= each[:, None]
        decode[...], bias[...] = each, 3.0 * each
        exemplars = Exemplars(model, X[:8] * each, np.ones(8), 6.0)
        found.append(exemplars.log_density(X * each))
    np.testing.assert_allclose(found[1], found[0] - np.log(factor).sum(), rtol=1e-8)


@pytest.mark.parametrize("distribution", ["gaussian", MIXED], ids=["gaussian", "mixed"])
@pytest.mark.parametrize("n_exemplars", [2, 30])
def test_shares_of_columns_sum_to_log_p(distribution, n_exemplars):
    X = mixed_rows(60)
    model = build(X, distribution)
    exemplars = Exemplars(model, X[:n_exemplars], np.ones(n_exemplars), 6.0)
    shares = exemplars.shares(X)
    assert shares.shape == X.shape
    np.testing.assert_allclose(shares.sum(axis=1), exemplars.log_density(X), rtol=1e-11)


def test_what_hardly_varies_is_taken_to_vary_a_little():
    X = normals(30, 3)
    X[:8, 0] = 3.0
    exemplars = Exemplars(reproducing(X), X[:8], np.ones(8), 6.0)
    spread = (X[:8] / X.std(axis=0)).std(axis=0)
    assert spread[0] < 1e-9
    spread[0] = LEAST_SPREAD
    for scale in exemplars.scales:
        np.testing.assert_allclose(scale, 0.5 * spread)


# --- weights --------------------------------------------------------------------------


def numbers(exemplars, X):
    """Return everything that is said of rows."""
    log_density = exemplars.log_density(X)[:, None]
    return np.hstack([log_density, exemplars.shares(X), exemplars.expected(X)])


def test_weights_of_exemplars_count_like_rows():
    X, weight = normals(30, 5), np.array([1, 3, 2, 1])
    model, rows, new = build(X), X[:4], X[4:]
    often = np.repeat(rows, weight, axis=0)
    one = numbers(Exemplars(model, rows, weight.astype(float), 6.0), new)
    many = numbers(Exemplars(model, often, np.ones(7), 6.0), new)
    np.testing.assert_allclose(one, many, rtol=1e-10)
    unlike = numbers(Exemplars(model, rows, np.ones(4), 6.0), new)
    assert np.abs(one - unlike).max() > 0.1
    # Of rows that are new only the ratios matter.
    again = numbers(Exemplars(model, rows, 1e90 * weight, 6.0), new)
    np.testing.assert_allclose(again, one, rtol=1e-10)


@pytest.mark.usefixtures("only_equal_rows")
def test_no_row_testifies_for_itself():
    X, weight = normals(30, 5), np.array([3.0, 1.0, 0.5, 7.0])
    model, rows = build(X), X[:4]
    exemplars = Exemplars(model, rows, weight, 6.0)
    for i, rest in enumerate([2.0, 0.0, 0.0, 6.0]):
        fewer = Exemplars(model, rows, weight, 6.0)
        fewer.weight = np.where(np.arange(4) == i, rest, weight)
        near = X[[i]] * (1 + 1e-13)  # no longer the same row
        found, expected = numbers(exemplars, X[[i]]), numbers(fewer, near)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "rounded", [lambda X: X.astype(np.float32), lambda X: X.round(6)]
)
def test_a_rounded_row_is_the_same_row(rounded):
    X = normals(40, 5)
    exemplars = Exemplars(build(X), X, np.ones(40), 12.0)
    found, expected = numbers(exemplars, rounded(X)), numbers(exemplars, X)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_of_near_exemplars_only_the_nearest_is_the_row_itself():
    X = normals(40, 5)
    model, twin = build(X), X[:1] * (1 + 1e-9)
    pair = Exemplars(model, np.concatenate([X[:6], twin]), np.ones(7), 12.0)
    alone = Exemplars(model, X[:6], np.ones(6), 12.0)
    assert pair.log_density(X[:1]) > alone.log_density(X[:1]) + 3.0


@pytest.mark.usefixtures("only_equal_rows")
def test_training_rows_have_scores_like_those_of_new_rows():
    gain, lead = [], []
    for seed in range(20):
        X, new = normals(40, 5, seed), normals(200, 5, 1000 + seed)
        exemplars = Exemplars(build(X), X, np.ones(40), 12.0)
        own, others = exemplars.log_density(X), exemplars.log_density(new)
        gain.append(own.mean() - others.mean())
        # What it would be if a row testified for itself.
        lead.append(exemplars.log_density(X * (1 + 1e-13)).mean() - others.mean())
    assert abs(np.mean(gain)) < 3 * np.std(gain, ddof=1) / np.sqrt(20)
    assert np.mean(lead) > 1.0


def test_exemplars_that_hardly_weigh_anything_do_no_harm():
    X, weight = normals(30, 5), np.array([1.0, 1.0, 1e-100, 1e-100])
    found = numbers(Exemplars(build(X), X[:4], weight, 6.0), X[4:])
    expected = numbers(Exemplars(build(X), X[:2], np.ones(2), 6.0), X[4:])
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_a_row_that_nothing_else_testifies_for(weight):
    X = normals(30, 5)
    exemplars = Exemplars(build(X), X[:1], np.array([weight]), 6.0)
    found = numbers(exemplars, X)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[1:, 6:], np.repeat(X[:1], 29, axis=0))


# --- rows do not meet -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("d", "n_exemplars"), [(1, 2), (3, 50), (5, 7), (33, 130), (257, 40)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_s_numbers_are_its_own_to_the_last_bit(
    d, n_exemplars, dtype, monkeypatch
):
    X = normals(140, d, dtype=dtype)
    weight = np.arange(2.0, n_exemplars + 2)
    exemplars = Exemplars(build(X), X[:n_exemplars], weight, 6.0)
    together, order = numbers(exemplars, X), np.random.default_rng(0).permutation(140)
    assert np.isfinite(together).all()
    for n_rows in (1, 3, 50, 1000):
        monkeypatch.setattr("skae.exemplars.MOST_PAIRS", n_rows * n_exemplars)
        np.testing.assert_array_equal(numbers(exemplars, X), together)
        np.testing.assert_array_equal(numbers(exemplars, X[order]), together[order])
    for i in (0, 1, 77, 139):
        np.testing.assert_array_equal(numbers(exemplars, X[[i]]), together[[i]])
    np.testing.assert_array_equal(numbers(exemplars, X[::2]), together[::2])


def test_few_entries_at_once_change_rounding_only(monkeypatch):
    X = normals(60, 5)
    exemplars = Exemplars(build(X), X[:30], np.ones(30), 6.0)
    expected = exemplars.shares(X)
    for n_exemplars in (1, 7):
        monkeypatch.setattr("skae.exemplars.MOST_ENTRIES", 5 * n_exemplars)
        np.testing.assert_allclose(exemplars.shares(X), expected, rtol=1e-12)


@pytest.mark.parametrize("distribution", ["gaussian", MIXED], ids=["gaussian", "mixed"])
def test_sparse_rows_are_the_same_rows(distribution):
    X = mixed_rows(50)
    model = build(X, distribution)
    expected = numbers(Exemplars(model, X[:20], np.ones(20), 6.0), X)
    for kind in (sparse.csr_matrix, sparse.csr_array):
        exemplars = Exemplars(model, kind(X[:20]), np.ones(20), 6.0)
        np.testing.assert_array_equal(numbers(exemplars, kind(X)), expected)


@pytest.mark.parametrize("distribution", ["gaussian", MIXED], ids=["gaussian", "mixed"])
def test_single_precision_is_nearly_as_good(distribution):
    X = mixed_rows(50)
    model = build(X, distribution, hidden=(4,))
    expected = numbers(Exemplars(model, X[:30], np.ones(30), 6.0), X)
    model.theta, X = model.theta.astype(np.float32), X.astype(np.float32)
    exemplars = Exemplars(model, X[:30], np.ones(30), 6.0)
    found = (exemplars.log_density(X), exemplars.shares(X), exemplars.expected(X))
    assert {part.dtype for part in found} == {np.dtype(np.float64)}
    np.testing.assert_allclose(numbers(exemplars, X), expected, rtol=1e-4, atol=1e-4)


# --- what is far away -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("hidden", [(), (4,)])
@pytest.mark.parametrize("n_far", [1, 7])
def test_what_is_farther_away_is_less_likely(dtype, hidden, n_far):
    X = normals(50, 7, dtype=dtype)
    exemplars = Exemplars(build(X, hidden=hidden), X[:30], np.ones(30), 6.0)
    far, largest = np.repeat(X[:1], 40, axis=0), np.log10(np.finfo(dtype).max)
    far[:, :n_far] = 10.0 ** np.linspace(3, 0.999 * largest, 40)[:, None]
    found, shares = exemplars.log_density(far), exemplars.shares(far)
    assert np.isfinite(found).all()
    assert np.isfinite(shares).all()
    assert (found[1:] <= found[:-1]).all()
    assert found[0] > found[20] > found[35]
    assert not np.isnan(exemplars.expected(far)).any()


def test_expected_values_are_those_of_exemplars_however_far_a_row_is():
    X = normals(50, 7)
    exemplars = Exemplars(build(X), X[:30], np.ones(30), 6.0)
    far = np.repeat(X[:1], 4, axis=0)
    far[:, 1] = [1e10, 1e100, 1e200, 1e300]
    expected = exemplars.expected(far)
    assert (expected >= X.min(axis=0)).all()
    assert (expected <= X.max(axis=0)).all()
