import pickle

import numpy as np
import pytest
import threadpoolctl
from numerical import support_sample
from scipy import sparse, special, stats

from skae import crew
from skae.bottlenecks import (
    Deterministic,
    GaussianPosterior,
    ImportanceWeighted,
    SparseCode,
)
from skae.distributions import DISTRIBUTIONS, HeteroscedasticGaussian
from skae.distributions._distribution import SMALLEST_SCALE
from skae.draws import normal_draws
from skae.model import BLOCK, Block, Model, Plan
from skae.network import Tape
from skae.penalties import KLDivergence, TopK
from skae.rows import Columns, Rows

N_FEATURES = 5

#: Seven columns of four kinds, not in order.
MIXED = [
    ("gaussian", [6, 0]),
    ("negative_binomial", [3, 1]),
    ("heteroscedastic_gaussian", [2, 4]),
    ("log_normal", [5]),
]


def RNG():
    return np.random.default_rng(1)


@pytest.fixture
def X():
    rng = np.random.default_rng(0)
    X = rng.normal(3.0, [1.0, 0.1, 50.0, 2.0, 1.0], (2 * BLOCK + 30, N_FEATURES))
    X[:, 4] = 7.0
    return X


@pytest.fixture
def mixed():
    rng, X = np.random.default_rng(0), np.empty((2 * BLOCK + 30, 7))
    for name, columns in MIXED:
        shape = len(X), len(columns)
        X[:, columns] = support_sample(DISTRIBUTIONS[name](), shape, rng)
    return X * [1e3, 1, 1, 2, 10, 1, 1] + [0, 0, 0, 0, -30, 0, 5]


def make(
    X, standardize=True, distribution="gaussian", tied=False, bottleneck=None, hidden=4
):
    d = X.shape[1]
    activations = [["tanh", "tanh"], ["tanh", "identity"]]
    widths = [d, hidden, 2], [2, hidden, d]
    plan = Plan(*widths, activations, tied, distribution, standardize)
    columns = Columns.of(Rows(X))
    return Model.start(plan, bottleneck or Deterministic(), columns, X.dtype, RNG())


def moved(model, seed=3):
    """Give a model parameters as if it had been trained: no output is constant."""
    rng = np.random.default_rng(seed)
    model.theta += 0.3 * rng.standard_normal(model.size)
    model.shared[...] = np.clip(model.shared, *model.widest_limits())
    return model


def settled(model, X, weight=None):
    """Estimate the scales from residuals."""
    model.shared[...] = model.estimated_shared(model.rows(X, None, weight))
    return model


# --- sparse codes ---------------------------------------------------------------------


def thin(X, penalty=None, **settings):
    settings = {"hidden": 40} | settings
    return moved(make(X, bottleneck=SparseCode(penalty or TopK(1)), **settings))


def test_sparse_codes_are_the_dense_ones(X):
    model = thin(X)
    dense, codes = model.encode(X), model.encode_sparse(X, 2)
    assert codes.format == "csr"
    assert codes.nnz == len(X)
    np.testing.assert_array_equal(codes.toarray(), dense)
    np.testing.assert_array_equal(model.encode_sparse(X, 1).toarray(), dense[:, :1])
    np.testing.assert_array_equal(model.encode(X, 1), dense[:, :1])
    np.testing.assert_array_equal(model.decode(codes), model.decode(dense))
    assert model.encode_sparse(X[:0], 2).shape == (0, 2)


def wide(n_rows):
    """Return a model that a crew computes, and rows of data."""
    X = np.random.default_rng(0).standard_normal((n_rows, 300), dtype=np.float32)
    plan = Plan(
        [300, 260], [260, 300], [["relu"], ["identity"]], False, "gaussian", True
    )
    columns, rng = Columns.of(Rows(X)), np.random.default_rng(1)
    return Model.start(plan, SparseCode(TopK(9)), columns, X.dtype, rng), X


def test_rows_do_not_depend_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr("skae.model.FEWEST_PRODUCTS", 1)
    model, X = wide(1000)
    with threadpoolctl.threadpool_limits(1):
        codes, scores = model.encode(X), model.log_prob_given_code(X)
        loss, rows = model.mean_loss(model.rows(X), 1.0), model.decode(codes)
    with threadpoolctl.threadpool_limits(3), crew.crew(3):
        np.testing.assert_array_equal(model.encode(X), codes)
        np.testing.assert_array_equal(model.encode(X[500:501]), codes[500:501])
        np.testing.assert_array_equal(model.log_prob_given_code(X), scores)
        np.testing.assert_array_equal(model.decode(codes), rows)
        assert model.mean_loss(model.rows(X), 1.0) == loss


@pytest.mark.parametrize("n_rows", [0, 1, 128, 129, 1000])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_crew_shares_whole_blocks(size, n_rows):
    members = crew.Crew(size)
    token = crew._hired.set(members)
    try:
        model, _ = wide(1)
        found = model.together(n_rows, lambda here: (here.start, here.stop))
    finally:
        crew._hired.reset(token)
        members.dismiss()
    ends = [stop for _, stop in found]
    assert [start for start, _ in found] == [0, *ends[:-1]]
    assert ends[-1] == n_rows
    assert all(stop % 128 == 0 or stop == n_rows for stop in ends)


def test_products_of_wide_networks_are_held_to_one_thread(X):
    small, (model, X) = thin(X), wide(100)

    def threads(here):
        pools = threadpoolctl.threadpool_info()
        return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        assert model.together(len(X), threads) == [{1}]
        assert small.together(len(X), threads) == [{2}]


def test_units_are_counted_by_weight(X):
    model, weight = thin(X), np.linspace(0.5, 1.5, len(X))
    often, count = model.firing(model.rows(X, None, weight))
    fires = model.encode(X) != 0
    np.testing.assert_allclose(often, np.average(fires, axis=0, weights=weight))
    np.testing.assert_array_equal(count, fires.sum(axis=0))


def test_the_loss_of_rows_that_meet_is_that_of_all_of_them(X):
    # Rows go through the network in blocks, and the divergence is that of their mean.
    model = thin(X, KLDivergence(0.2))
    layers = model.objective.encoder.layers
    model.plan.activations[0][-1] = "logistic"
    model = Model(model.plan, model.bottleneck, model.theta, model.columns)
    assert len(layers) == 2
    rows = model.rows(X)
    model.own[0] = 0.9
    mean = model.encode(X).mean(axis=0)
    kl = special.rel_entr(0.2, mean) + special.rel_entr(0.8, 1 - mean)
    cost = model.mean_loss(rows, 1.0) - model.mean_loss(rows, 0.0)
    assert cost == pytest.approx(kl.sum(), rel=1e-9)
    np.testing.assert_allclose(model.settled_own(rows)[0], mean)


def test_directions_of_a_mixture_are_those_of_the_means(mixed):
    plan = Plan([7, 2], [2, 7], [["identity"], ["identity"]], False, MIXED, True)
    columns = Columns.of(Rows(mixed))
    model = moved(Model.start(plan, Deterministic(), columns, mixed.dtype, RNG()))
    places, weight = model.mean_outputs(), model.objective.decoder.layers[0].weight
    assert len(set(places)) == 7
    found = model.directions() / model.unit
    np.testing.assert_allclose(found, weight.of(model.theta)[:, places])
    # Columns with an identity link move by their direction.
    moves = model.decode(np.eye(2)) - model.decode(np.zeros((2, 2)))
    for column in (6, 0, 2, 4):
        np.testing.assert_allclose(
            moves[:, column], model.directions()[:, column], atol=1e-9
        )


# --- the start ------------------------------------------------------------------------


@pytest.mark.parametrize("standardize", [True, False])
def test_the_output_starts_at_the_mean(X, standardize):
    model = make(X, standardize)
    model.theta[model.objective.weights()[0]] = 0.0
    z = np.zeros((1, 2))
    np.testing.assert_allclose(model.decode(z)[0], X.mean(axis=0), rtol=1e-12)


def test_the_bernoulli_output_starts_at_the_mean():
    X = np.random.default_rng(0).integers(0, 2, (10_000, N_FEATURES)).astype(float)
    model = make(X, False, "bernoulli")
    model.theta[model.objective.weights()[0]] = 0.0
    np.testing.assert_allclose(
        model.decode(np.zeros((1, 2)))[0], X.mean(axis=0), atol=1e-4
    )


@pytest.mark.parametrize("bottleneck", [Deterministic(), GaussianPosterior()], ids=repr)
def test_every_column_of_a_mixture_starts_at_its_mean(mixed, bottleneck):
    model = make(mixed, distribution=MIXED, bottleneck=bottleneck)
    model.theta[model.objective.weights()[0]] = 0.0
    mean, found = mixed.mean(axis=0), model.decode(np.zeros((1, 2)))[0]
    if isinstance(bottleneck, Deterministic):
        # Its log-scale is zero in training, and the mean of a log-normal has it.
        own = model.scale_places[5]
        start = model.family.start(np.ones(7), model.variance, len(mixed))[1]
        assert model.shared[own] == 0.0
        ratio = mixed[:, 5].var() / mean[5] ** 2
        assert start.shape == model.shared.shape
        found[5] *= np.exp(0.5 * np.log1p(ratio) - 0.5)
    np.testing.assert_allclose(found, mean, rtol=1e-9)


@pytest.mark.parametrize("kind", [GaussianPosterior, ImportanceWeighted])
def test_codes_start_as_wide_as_the_prior(X, kind):
    model = make(X, bottleneck=kind())
    mean, sd = model.posterior(np.vstack([X, 1e6 * X]))
    np.testing.assert_array_equal(sd, 1.0)
    assert (np.ptp(mean, axis=0) > 0.01).all()


def test_outputs_that_are_spreads_start_as_constants(mixed):
    names = [("zero_inflated_negative_binomial", [1, 3]), *MIXED[2:], MIXED[0]]
    model = make(mixed, distribution=names, bottleneck=GaussianPosterior())
    eta = np.vstack([eta for _, eta in model.decoded(1e3 * normal_draws(50, 2))])
    constant = np.ptp(eta, axis=0) == 0
    # Log-means, then logits; means, then log-variances; one output for each other.
    expected = [False] * 2 + [True] * 2 + [False] * 2 + [True] * 2 + [False] * 3
    np.testing.assert_array_equal(constant, expected)


def test_a_deterministic_code_starts_with_all_its_weights(X):
    model = make(X)
    for chain in (model.objective.encoder, model.objective.decoder):
        assert all(weight.all() for weight, _ in chain.of(model.theta))


@pytest.mark.parametrize("standardize", [True, False])
def test_rounding_is_no_variance(X, standardize):
    X[::2, 4] = np.nextafter(7.0, 8.0)
    model = make(X, standardize, bottleneck=GaussianPosterior())
    assert model.columns.variance[4] > 0
    assert model.variance[4] == 0.0
    expected = np.ones(4) if standardize else X.var(axis=0)[:4]
    np.testing.assert_allclose(model.variance[:4], expected, rtol=1e-12)


# --- which columns are moved ----------------------------------------------------------


def test_columns_are_moved_as_their_family_allows(mixed):
    model = make(mixed, distribution=[*MIXED[:2], ("gamma", [5]), ("huber", [2, 4])])
    mean, sd = mixed.mean(axis=0), mixed.std(axis=0)
    real = np.isin(np.arange(7), [0, 2, 4, 6])
    np.testing.assert_allclose(model.center, np.where(real, mean, 0.0), rtol=1e-12)
    scaled = real | (np.arange(7) == 5)
    np.testing.assert_allclose(model.unit, np.where(scaled, sd, 1.0), rtol=1e-12)
    rows, out = model.rows(mixed), np.empty_like(mixed)
    rows.load(np.arange(len(mixed)), out, np.empty(len(mixed)), 1.0)
    np.testing.assert_array_equal(out[:, [1, 3]], mixed[:, [1, 3]])
    np.testing.assert_allclose(out[:, real].mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(out[:, scaled].std(axis=0), 1.0, rtol=1e-12)
    assert out[:, 5].min() > 0


@pytest.mark.parametrize(
    ("distribution", "standardize"),
    [("poisson", True), ("bernoulli", True), (MIXED, False)],
)
def test_columns_that_nothing_moves_are_not_touched(mixed, distribution, standardize):
    X = np.round(mixed) if distribution == "poisson" else mixed
    model = make(X, standardize, distribution)
    assert not model.moves_columns
    assert model.rows(X).center is None
    assert not model.center.any()
    np.testing.assert_array_equal(model.unit, 1.0)


def test_the_encoder_sees_logarithms_of_counts(mixed):
    model, counts = make(mixed, distribution=MIXED), [3, 1, 5]
    inputs = (mixed - model.center) / model.unit
    inputs[:, counts] = np.log1p(inputs[:, counts])
    encoder, rows = model.objective.encoder, len(mixed)
    tape = Tape.empty(encoder, rows, mixed.dtype)
    expected = encoder.forward(encoder.of(model.theta), inputs, tape)
    np.testing.assert_allclose(model.encode(mixed), expected, rtol=1e-9)


# --- to the last bit ------------------------------------------------------------------


def scored(model, X, draws):
    """Return one block of all rows; the model's blocks overwrite each other."""
    blocks = [
        [np.array(field) for field in (b.x, b.weight, b.eta, b.cost)]
        for b in model.scored(model.rows(X), draws)
    ]
    return Block(slice(None), *map(np.concatenate, zip(*blocks, strict=True)))


def check_that_rows_are_alone(functions, X):
    """Check that a row's result does not depend on the rows that come with it."""
    order = RNG().permutation(len(X))
    for function in functions:
        together = function(X)
        np.testing.assert_array_equal(function(X[order]), together[order])
        np.testing.assert_array_equal(function(sparse.csr_array(X)), together)
        for i in (0, 1, BLOCK - 1, BLOCK, len(X) - 1):
            np.testing.assert_array_equal(function(X[[i]])[0], together[i])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_features", [1, 5, 33, 257])
@pytest.mark.parametrize("n_components", [1, 3, 129])
def test_rows_have_the_same_results_to_the_last_bit(dtype, n_features, n_components):
    rng = RNG()
    X = rng.standard_normal((2 * BLOCK + 30, n_features)).astype(dtype)
    widths = [n_features, 21, n_components], [n_components, 21, n_features]
    activations = [["tanh", "tanh"], ["tanh", "identity"]]
    plan = Plan(*widths, activations, False, "gaussian", True)
    model = Model.start(plan, Deterministic(), Columns.of(Rows(X)), X.dtype, rng)
    functions = [
        model.encode,
        lambda X: log_likelihood(model, X),
        lambda X: model.decode(model.encode(X)),
    ]
    check_that_rows_are_alone(functions, X)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("distribution", ["gaussian", "gamma", MIXED], ids=str)
@pytest.mark.parametrize(
    "bottleneck",
    [Deterministic(), GaussianPosterior(), ImportanceWeighted(n_samples=3)],
    ids=repr,
)
@pytest.mark.parametrize("hidden", [1, 13])
def test_rows_are_alone_in_every_model(mixed, bottleneck, distribution, hidden, dtype):
    X = mixed.astype(dtype)
    X = np.abs(X) + dtype(0.1) if distribution == "gamma" else X
    model = make(X, True, distribution, bottleneck=bottleneck, hidden=hidden)
    moved(model)
    draws = normal_draws(3, 2) if bottleneck.is_random else model.code_alone()
    functions = [
        model.encode,
        lambda X: log_likelihood(model, X),
        lambda X: model.decode(model.encode(X)),
        model.reconstruction_error,
        lambda X: scored(model, X, draws).eta,
        lambda X: scored(model, X, draws).cost,
    ]
    if bottleneck.is_random:
        functions.append(lambda X: np.hstack(model.posterior(X)))
    check_that_rows_are_alone(functions, X)


@pytest.mark.parametrize("tied", [False, True])
def test_filling_up_changes_no_number(X, tied):
    model = moved(make(X, tied=tied))
    objective = model.objective
    batch = objective.batch(len(X), X.dtype)
    model.rows(X).load(np.arange(len(X)), batch.x, batch.weight, 1.0)
    params = objective.of(model.theta)
    objective.encode_phase(params, batch)
    eta = objective.decode(params, params.own, batch)[:, 0]
    code = batch.code[:, 0]
    np.testing.assert_allclose(model.encode(X), code, rtol=1e-12)
    model.rows(X).restore(eta)
    np.testing.assert_allclose(model.decode(code), eta, rtol=1e-12)


@pytest.mark.parametrize("kind", [GaussianPosterior, ImportanceWeighted])
def test_a_code_with_two_blocks_of_outputs_is_filled_up_block_by_block(X, kind):
    model = moved(make(X, bottleneck=kind(n_samples=3)))
    objective, draws = model.objective, normal_draws(3, 2)
    batch = objective.batch(len(X), X.dtype)
    model.rows(X).load(np.arange(len(X)), batch.x, batch.weight, 1.0)
    batch.noise = np.broadcast_to(draws, batch.code.shape)
    params = objective.of(model.theta)
    objective.encode_phase(params, batch)
    eta = objective.decode(params, params.own, batch)
    mean, log_variance = np.hsplit(batch.encoder.outputs[-1], 2)
    assert model.encode(X).shape == (len(X), 2)
    np.testing.assert_allclose(model.encode(X), mean, rtol=1e-12)
    found = model.posterior(X)
    np.testing.assert_array_equal(found[0], model.encode(X))
    np.testing.assert_allclose(found[1], np.exp(0.5 * log_variance), rtol=1e-12)
    assert np.ptp(log_variance, axis=0).all()
    block = scored(model, X, draws)
    np.testing.assert_array_equal(block.x, batch.x)
    np.testing.assert_allclose(block.eta, eta, rtol=1e-9)
    np.testing.assert_allclose(block.cost, batch.cost, rtol=1e-9)
    places = [block.place for block in model.scored(model.rows(X), draws)]
    assert np.concatenate([np.arange(len(X))[p] for p in places]).tolist() == [
        *range(len(X))
    ]
    assert max(p.stop - p.start for p in places) == BLOCK // 3


def log_likelihood(model, X):
    return model.log_prob_given_code(X, by_feature=True)


# --- scales and other shared parameters -----------------------------------------------


def test_noise_is_never_below_a_small_fraction_of_the_spread(X):
    activations, width = [["identity"], ["identity"]], [N_FEATURES, N_FEATURES]
    plan = Plan(width, width, activations, True, "gaussian", True)
    columns = Columns.of(Rows(X))
    model = Model.start(plan, Deterministic(), columns, X.dtype, RNG())
    model.theta[...] = 0.0
    np.fill_diagonal(model.objective.encoder.of(model.theta)[0][0], 1.0)
    noise = settled(model, X).noise_variance
    np.testing.assert_allclose(noise[:4], 1e-6 * X.var(axis=0)[:4], rtol=1e-9)
    assert noise[4] == pytest.approx(7.0**2)


@pytest.mark.parametrize("standardize", [True, False])
def test_log_likelihood_is_a_density_in_the_units_of_x(X, standardize):
    model = settled(make(X, standardize), X)
    normal = stats.norm(model.decode(model.encode(X)), np.sqrt(model.noise_variance))
    np.testing.assert_allclose(log_likelihood(model, X), normal.logpdf(X), rtol=1e-9)


@pytest.mark.parametrize("standardize", [True, False])
def test_log_likelihood_of_every_kind_of_column(mixed, standardize):
    model = settled(moved(make(mixed, standardize, MIXED)), mixed)
    mean, shared = model.decode(model.encode(mixed)), model.shared
    v = scored(model, mixed, model.code_alone()).eta[:, 0, 6:8]
    sd = model.unit[[2, 4]] * np.exp(HeteroscedasticGaussian().log_scale(v))
    r = np.exp(shared[2:4])
    sigma = np.exp(shared[4])
    expected = np.empty_like(mixed)
    noise = np.sqrt(model.noise_variance[[6, 0]])
    expected[:, [6, 0]] = stats.norm(mean[:, [6, 0]], noise).logpdf(mixed[:, [6, 0]])
    p = r / (r + mean[:, [3, 1]])
    expected[:, [3, 1]] = stats.nbinom(r, p).logpmf(mixed[:, [3, 1]])
    expected[:, [2, 4]] = stats.norm(mean[:, [2, 4]], sd).logpdf(mixed[:, [2, 4]])
    law = stats.lognorm(sigma, scale=mean[:, 5] * np.exp(-0.5 * sigma**2))
    expected[:, 5] = law.logpdf(mixed[:, 5])
    np.testing.assert_allclose(log_likelihood(model, mixed), expected, rtol=1e-8)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_noise_is_that_of_the_residuals(X, standardize, weighted):
    model = make(X, standardize)
    weight = np.random.default_rng(3).uniform(1, 2, len(X)) if weighted else None
    square = np.square(X - model.decode(model.encode(X)))
    expected = np.average(square, axis=0, weights=weight)
    expected[4] = 7.0**2  # a constant column is as uncertain as it is large
    noise = settled(model, X, weight).noise_variance
    np.testing.assert_allclose(noise, expected, rtol=1e-9)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("value", [0.0, -5.0, 1e6])
@pytest.mark.parametrize("bottleneck", [Deterministic(), GaussianPosterior()], ids=repr)
def test_the_scale_of_a_constant_column_is_its_unit(X, bottleneck, value, standardize):
    X[:, 4] = value
    model = moved(make(X, standardize, bottleneck=bottleneck))
    settled(model, X)
    assert model.noise_variance[4] == pytest.approx(value**2 or 1.0, rel=1e-12)
    low, high = model.widest_limits()
    assert low[4] == high[4]
    assert (low[:4] < high[:4]).all()


@pytest.mark.parametrize("name", ["gaussian", "laplace", "student_t", "log_normal"])
def test_scales_are_estimated_in_every_family_that_has_one(name):
    law, rng = DISTRIBUTIONS[name](), RNG()
    shared = np.log([0.3, 2.0])
    eta = np.broadcast_to([0.5, 1.0], (200_000, 2))
    X = law.sample(eta, shared, rng)
    model = make(X, False, name)
    model.theta[...] = 0.0
    model.objective.decoder.layers[-1].bias.of(model.theta)[...] = [0.5, 1.0]
    np.testing.assert_allclose(settled(model, X).shared, shared, atol=0.02)


def test_other_shared_parameters_are_not_estimated(mixed):
    model = moved(make(mixed, distribution=MIXED))
    before = model.shared.copy()
    found = model.estimated_shared(model.rows(mixed))
    changed = found != before
    # Scales of 6 and 0, sizes of 3 and 1, the scale of 5.
    np.testing.assert_array_equal(changed, [True, True, False, False, True])
    np.testing.assert_array_equal(model.shared, before)
    np.testing.assert_array_equal(model.scale_places, [1, -1, -1, -1, -1, 4, 0])


def test_scales_that_were_learnt_are_not_estimated(mixed):
    model = moved(make(mixed, distribution=MIXED, bottleneck=GaussianPosterior()))
    found = model.estimated_shared(model.rows(mixed))
    np.testing.assert_array_equal(found, model.shared)


def test_limits_of_a_deterministic_code(mixed):
    """Scales are one in training; the sizes of counts may be learnt."""
    model = make(mixed, distribution=MIXED)
    low, high = model.limits()
    np.testing.assert_array_equal(low, [0, 0, np.log(1e-3), np.log(1e-3), 0])
    np.testing.assert_array_equal(high, [0, 0, np.log(1e6), np.log(1e6), 0])
    np.testing.assert_array_equal(model.shared[[0, 1, 4]], 0.0)


@pytest.mark.parametrize("standardize", [True, False])
def test_limits_of_a_random_code(mixed, standardize):
    mixed[:, 6] = 5.0
    bottleneck = GaussianPosterior()
    model = make(mixed, standardize, MIXED, bottleneck=bottleneck)
    low, high = model.limits()
    unit = 1.0 if standardize else mixed[:, 0].std()
    size = 0.0 if standardize else np.log(5.0)
    shape = np.log(1e-3)
    expected = [size, np.log(SMALLEST_SCALE * unit), shape, shape, shape]
    np.testing.assert_allclose(low, expected, rtol=1e-12)
    np.testing.assert_allclose(high, [size, np.inf, *2 * [np.log(1e6)], np.inf])
    assert ((low <= model.shared) & (model.shared <= high)).all()
    np.testing.assert_array_equal(model.widest_limits(), (low, high))


def test_limits_are_new_in_every_call(X):
    model = make(X, bottleneck=GaussianPosterior())
    for array in model.limits():
        array.fill(np.nan)
    assert not np.isnan(model.widest_limits()).any()


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
@pytest.mark.parametrize("bottleneck", [Deterministic(), GaussianPosterior()], ids=repr)
def test_every_family_starts_within_its_limits(name, bottleneck):
    X = support_sample(DISTRIBUTIONS[name](), (60, 4), RNG())
    model = make(X, distribution=name, bottleneck=bottleneck)
    low, high = model.limits()
    assert ((low <= model.shared) & (model.shared <= high)).all()
    assert np.isfinite(model.theta).all()
    assert np.isfinite(model.mean_loss(model.rows(X), 1.0, 2))


@pytest.mark.parametrize("name", ["bernoulli", "poisson", "gamma", "log_normal"])
def test_no_column_has_a_noise(name):
    X = np.random.default_rng(0).integers(0, 2, (50, N_FEATURES)) + 0.0
    X += 0.5 * (name in ("gamma", "log_normal"))
    assert settled(make(X, False, name), X).noise_variance is None


def test_columns_without_a_noise_are_not_a_number(mixed):
    model = settled(moved(make(mixed, distribution=MIXED)), mixed)
    noise = model.noise_variance
    np.testing.assert_array_equal(np.isnan(noise), [0, 1, 1, 1, 1, 1, 0])
    residual = mixed - model.decode(model.encode(mixed))
    expected = np.square(residual).mean(axis=0)[[0, 6]]
    np.testing.assert_allclose(noise[[0, 6]], expected, rtol=1e-9)


def test_blended_noise(mixed):
    model = settled(moved(make(mixed, distribution=MIXED)), mixed)
    newest, before = model.noise_variance, model.shared.copy()
    earlier = np.where(np.isnan(newest), np.nan, [9e4, 0, 0, 0, 0, 0, 0.25])
    model.blend_scales(earlier, 0.3)
    expected = 0.3 * earlier + 0.7 * newest
    np.testing.assert_allclose(model.noise_variance, expected, rtol=1e-12)
    np.testing.assert_array_equal(model.shared[2:], before[2:])
    learnt = make(mixed, distribution=MIXED, bottleneck=GaussianPosterior())
    shared = learnt.shared.copy()
    learnt.blend_scales(earlier, 0.3)
    np.testing.assert_array_equal(learnt.shared, shared)


# --- losses ---------------------------------------------------------------------------


def test_mean_loss_is_the_loss_with_unit_scale(X):
    model = make(X)
    residual = (X - model.decode(model.encode(X))) / model.columns.unit
    expected = 0.5 * np.square(residual) + 0.5 * np.log(2 * np.pi)
    loss = model.mean_loss(model.rows(X), 1.0)
    assert loss == pytest.approx(expected.sum(axis=1).mean(), rel=1e-9)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(
    "bottleneck",
    [GaussianPosterior(), GaussianPosterior(n_samples=9, free_bits=0.2)],
    ids=repr,
)
def test_mean_loss_of_a_random_code(X, bottleneck, beta):
    model = moved(make(X, bottleneck=bottleneck))
    mean, sd = model.posterior(X)
    kl = 0.5 * (mean**2 + sd**2 - 1) - np.log(sd)
    cost = np.maximum(kl, bottleneck.free_bits).sum(axis=1)
    x, scale = (X - model.center) / model.unit, np.exp(model.shared)
    nll = []
    for draw in normal_draws(3, 2):
        eta = (model.decode(mean + sd * draw) - model.center) / model.unit
        nll.append(-stats.norm(eta, scale).logpdf(x).sum(axis=1))
    weight = np.random.default_rng(3).uniform(1, 2, len(X))
    expected = np.average(np.mean(nll, axis=0) + beta * cost, weights=weight)
    loss = model.mean_loss(model.rows(X, None, weight), beta, 3)
    assert loss == pytest.approx(expected, rel=1e-9)
    assert model.mean_loss(model.rows(X), beta, 3) == pytest.approx(
        np.mean(np.mean(nll, axis=0) + beta * cost), rel=1e-9
    )


def test_mean_loss_of_weighted_importance(X):
    model = moved(make(X, bottleneck=ImportanceWeighted(n_samples=2)))
    mean, sd = model.posterior(X)
    x, scale = (X - model.center) / model.unit, np.exp(model.shared)
    total = []
    for draw in normal_draws(4, 2):
        z = mean + sd * draw
        eta = (model.decode(z) - model.center) / model.unit
        ratio = stats.norm(mean, sd).logpdf(z) - stats.norm.logpdf(z)
        total.append(ratio.sum(axis=1) - stats.norm(eta, scale).logpdf(x).sum(axis=1))
    expected = np.log(4) - special.logsumexp(-np.array(total), axis=0)
    loss = model.mean_loss(model.rows(X), 1.0, 4)
    assert loss == pytest.approx(expected.mean(), rel=1e-9)


def test_loss_of_means_is_that_of_a_model_without_a_code(X):
    model = moved(make(X))
    before = model.theta.copy()
    loss = model.loss_of_means(model.rows(X), 1.0)
    # Half a nat for each column that varies; the scale of each is one.
    assert loss == pytest.approx(4 * 0.5 + 5 * 0.5 * np.log(2 * np.pi), rel=1e-9)
    np.testing.assert_array_equal(model.theta, before)
    random = moved(make(X, bottleneck=GaussianPosterior()))
    assert random.loss_of_means(random.rows(X), 1.0) == pytest.approx(loss, rel=1e-9)


def test_activity(X):
    model = moved(make(X, bottleneck=GaussianPosterior()))
    mean, sd = model.posterior(X)
    weight = np.random.default_rng(3).uniform(1, 2, len(X))
    kl, variance = model.activity(model.rows(X, None, weight))
    each = 0.5 * (mean**2 + sd**2 - 1) - np.log(sd)
    np.testing.assert_allclose(kl, np.average(each, axis=0, weights=weight))
    center = np.average(mean, axis=0, weights=weight)
    expected = np.average((mean - center) ** 2, axis=0, weights=weight)
    np.testing.assert_allclose(variance, expected, rtol=1e-9)


class Halves(Rows):
    """Rows in two places."""

    def summed(self, work):
        work, n = pickle.loads(pickle.dumps(work)), len(self) // 3
        return work(self.cut(slice(0, n))) + work(self.cut(slice(n, None)))


@pytest.mark.parametrize(
    "bottleneck",
    [Deterministic(), GaussianPosterior(), SparseCode(TopK(1))],
    ids=repr,
)
def test_sums_over_rows_are_sums_over_places(X, bottleneck):
    model, weight = moved(make(X, bottleneck=bottleneck)), np.linspace(0.5, 1.5, len(X))
    here, there = (
        kind(X, np.arange(5, 280), weight, model.center, model.unit)
        for kind in (Rows, Halves)
    )
    passes = [
        lambda rows: model.mean_loss(rows, 0.5, 3),
        lambda rows: model.loss_of_means(rows, 0.5),
        model.estimated_shared,
        model.firing,
    ]
    if bottleneck.is_random:
        passes.append(model.activity)
    for look in passes:
        np.testing.assert_allclose(look(there), look(here), rtol=1e-12)


def test_what_says_itself_what_its_rows_are(X):
    class Own:
        def as_rows(self, *args):
            return Rows(X, *args)

    model = make(X)
    rows = model.rows(Own(), np.arange(9))
    np.testing.assert_array_equal(rows.center, model.center)
    assert len(rows) == 9


def test_samples_spread_as_the_noise_does(mixed):
    model = settled(moved(make(mixed, distribution=MIXED)), mixed)
    z = np.repeat(model.encode(mixed[:1]), 50_000, axis=0)
    x, mean = model.sample(z, RNG()), model.decode(z[:1])[0]
    deviation = x.std(axis=0)
    np.testing.assert_allclose(
        np.square(deviation)[[0, 6]], model.noise_variance[[0, 6]], rtol=0.05
    )
    error = np.abs(x.mean(axis=0) - mean) / deviation
    assert (error < 5 / np.sqrt(len(z))).all()
    np.testing.assert_array_equal(x[:, [1, 3]], np.round(x[:, [1, 3]]))


def test_float32_rows_through_a_float64_model(X):
    model = make(X)
    codes = model.encode(X.astype(np.float32))
    assert codes.dtype == np.float32
    np.testing.assert_allclose(codes, model.encode(X), atol=1e-4)
    assert model.decode(codes).dtype == np.float32
