import pickle
import warnings
from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse, special, stats
from scipy.linalg import subspace_angles
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import VariationalAutoencoder
from skae.distributions import DISTRIBUTIONS
from skae.draws import normal_draws

COLLAPSE = "Posterior collapse: none of the"
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings(
        r"ignore:Posterior collapse\x3a none of the:UserWarning"
    ),
]

LOSSES = [name for name, each in DISTRIBUTIONS.items() if not each.is_likelihood]
LIKELIHOODS = [name for name in DISTRIBUTIONS if name not in LOSSES]
METHODS = [
    "log_likelihood",
    "elbo",
    "score_samples",
    "score_features",
    "score",
    "reconstruction_log_prob",
    "reconstruction_prob",
]


def make(n_components=2, **params):
    return VariationalAutoencoder(
        n_components, **{"max_iter": 10, "random_state": 0} | params
    )


@pytest.fixture(scope="module")
def X():
    return load_iris().data


@pytest.fixture(scope="module")
def digits():
    return load_digits().data


def data_for(distribution, n=120, d=4, seed=0):
    """Return rows in a distribution's support, some of them at its closed ends."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, 1))
    support = DISTRIBUTIONS[distribution].support
    if distribution == "categorical":
        return np.eye(d)[rng.integers(d, size=n)]
    if support.whole:
        return rng.poisson(np.exp(1.0 + 0.5 * common + np.zeros(d))).astype(float)
    if support.high == 1.0:
        X = special.expit(common + rng.standard_normal((n, d)))
        return X if support.open else X.round()
    if support.low == 0.0:
        return np.exp(common + 0.3 * rng.standard_normal((n, d)))
    return common @ np.ones((1, d)) + 0.5 * rng.standard_normal((n, d))


# --- the linear Gaussian model: factor analysis ---------------------------------------


@pytest.fixture(scope="module")
def factors():
    """Rows of a linear model of two factors, with noise of each column's own size."""
    rng = np.random.default_rng(0)
    loadings = rng.standard_normal((2, 7))
    noise = np.linspace(0.3, 1.0, 7) * rng.standard_normal((800, 7))
    X = rng.standard_normal((800, 2)) @ loadings + noise
    return X * [1, 10, 0.1, 1, 1, 3, 1] + 5.0


@pytest.fixture(scope="module")
def fitted(factors):
    params = {"alpha": 0.0, "max_iter": 600, "learning_rate_init": 0.01}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(2, tol=1e-5, **params).fit(factors)


def marginal_normal(model, X):
    """Return the exact density of a linear Gaussian model."""
    unit, noise = X.std(axis=0), np.diag(model.noise_variance_)
    loadings = model.coefs_[-1] * unit
    mean = X.mean(axis=0) + unit * model.intercepts_[-1]
    return stats.multivariate_normal(mean, loadings.T @ loadings + noise)


def test_the_linear_model_is_factor_analysis(factors, fitted):
    reference = FactorAnalysis(2, tol=1e-8, max_iter=5000).fit(factors)
    best = reference.score(factors)
    assert fitted.score(factors) == pytest.approx(best, abs=0.02)
    exact = marginal_normal(fitted, factors).logpdf(factors)
    assert exact.mean() < best + 1e-6
    assert fitted.score(factors) < best + 1e-6
    loadings = fitted.coefs_[-1] * factors.std(axis=0)
    scale = np.sqrt(reference.noise_variance_)
    angles = subspace_angles((loadings / scale).T, (reference.components_ / scale).T)
    assert angles.max() < 0.1
    np.testing.assert_allclose(
        fitted.noise_variance_, reference.noise_variance_, rtol=0.15
    )
    assert fitted.n_active_components_ == 2


def test_equal_noise_makes_it_probabilistic_pca():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((12, 12)))[0][:2]
    X = rng.standard_normal((1500, 2)) * [3, 2] @ basis
    X += 0.5 * rng.standard_normal(X.shape)
    params = {"alpha": 0.0, "max_iter": 150, "learning_rate_init": 0.01}
    model, pca = make(2, standardize=False, **params).fit(X), PCA(2).fit(X)
    assert subspace_angles(model.coefs_[-1].T, pca.components_.T).max() < 0.05
    np.testing.assert_allclose(model.noise_variance_, pca.noise_variance_, rtol=0.15)
    # Tipping & Bishop's maximum, of a model with one noise variance for all columns.
    assert model.score(X) == pytest.approx(pca.score(X), abs=0.02)


def test_scores_are_estimates_of_the_exact_density(factors, fitted):
    exact = marginal_normal(fitted, factors).logpdf(factors)
    for n_samples, bound in ((16, 0.05), (256, 0.01)):
        found, std = fitted.log_likelihood(factors, n_samples, return_std=True)
        assert found.shape == std.shape == (800,)
        assert np.abs(found - exact).max() < bound
        assert (found < exact + 4 * std + 1e-9).all()
    elbo = fitted.elbo(factors, 1024)
    assert (elbo < found + 4 * std + 0.02).all()
    # Loadings may turn until the true posterior is diagonal: the bound is then tight.
    assert exact.mean() - 0.01 < elbo.mean() < exact.mean() + 0.002


def test_more_draws_are_better_in_the_mean(digits):
    X = (digits[:200] > 8).astype(float)
    model = make(6, distribution="bernoulli", hidden_layer_sizes=(20,)).fit(X)
    means = [model.log_likelihood(X, n).mean() for n in (1, 8, 64, 512)]
    assert (np.diff(means) > 0).all()
    assert means[-1] - means[-2] < means[1] - means[0]
    assert model.elbo(X).mean() < means[-1]


def test_std_falls_with_the_root_of_the_number_of_draws(X):
    model = make(2, hidden_layer_sizes=(5,)).fit(X)
    few, many = (model.log_likelihood(X, n, True)[1].mean() for n in (64, 6400))
    assert 5 < few / many < 20


# --- structure ------------------------------------------------------------------------


def test_the_number_of_parameters_is_that_of_deeplearning4j():
    X = np.random.default_rng(0).standard_normal((30, 10))
    model = make(
        5,
        hidden_layer_sizes=(12,),
        decoder_layer_sizes=(13,),
        distribution="heteroscedastic_gaussian",
        max_iter=1,
    ).fit(X)
    count = sum(a.size for a in model.coefs_ + model.intercepts_)
    assert count == len(model._theta) == 620
    shapes = [(10, 12), (12, 10), (5, 13), (13, 20)]
    assert [a.shape for a in model.coefs_] == shapes


@pytest.mark.parametrize(
    ("hidden", "back", "widths"),
    [
        ((7, 5), None, [4, 7, 5, 4, 2, 5, 7, 4]),
        ((7, 5), (), [4, 7, 5, 4, 2, 4]),
        ((), (6,), [4, 4, 2, 6, 4]),
        ((), 6, [4, 4, 2, 6, 4]),
        ((7,), [3, 9], [4, 7, 4, 2, 3, 9, 4]),
    ],
)
def test_layers_are_as_asked_for(X, hidden, back, widths):
    model = make(hidden_layer_sizes=hidden, decoder_layer_sizes=back).fit(X)
    place = len(widths) - len(np.atleast_1d(hidden if back is None else back)) - 2
    pairs = [*pairwise(widths[:place]), *pairwise(widths[place:])]
    assert [w.shape for w in model.coefs_] == pairs
    assert np.isfinite(model.score(X))


def test_the_latent_activation_bends_both_heads(X):
    model = make(latent_activation="tanh", max_iter=100).fit(X)
    mean, std = model.posterior(X * 100)
    assert np.abs(mean).max() <= 1.0
    assert np.abs(np.log(np.square(std))).max() <= 1.0 + 1e-12
    (w, *_), (b, *_) = model.coefs_, model.intercepts_
    h = np.tanh((X - X.mean(axis=0)) / X.std(axis=0) @ w + b)
    mean, std = model.posterior(X)
    np.testing.assert_allclose(mean, h[:, :2], rtol=1e-9)
    np.testing.assert_allclose(std, np.exp(h[:, 2:] / 2), rtol=1e-9)
    free = make(max_iter=100).fit(X)
    assert np.abs(free.transform(X)).max() > 1.0


def test_posterior_is_the_forward_pass_written_out(X):
    model = make(hidden_layer_sizes=(5,), activation="logistic").fit(X)
    (w1, w2, w3, w4), (b1, b2, b3, b4) = model.coefs_, model.intercepts_
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    h = special.expit(z @ w1 + b1) @ w2 + b2
    mean, std = model.posterior(X)
    np.testing.assert_allclose(mean, h[:, :2], rtol=1e-9)
    np.testing.assert_allclose(std, np.exp(h[:, 2:] / 2), rtol=1e-9)
    np.testing.assert_array_equal(model.transform(X), mean)
    out = special.expit(mean @ w3 + b3) @ w4 + b4
    back = out * X.std(axis=0) + X.mean(axis=0)
    np.testing.assert_allclose(model.inverse_transform(mean), back, rtol=1e-9)


# --- draws ----------------------------------------------------------------------------


def test_codes_are_drawn_from_the_posterior(X):
    model = make(max_iter=50).fit(X)
    mean, std = model.posterior(X[[7]])
    many = np.repeat(X[[7]], 20_000, axis=0)
    codes = model.sample_latent(many, random_state=0)
    np.testing.assert_allclose(codes.mean(axis=0), mean[0], atol=0.02)
    np.testing.assert_allclose(codes.std(axis=0), std[0], rtol=0.02)
    assert abs(np.corrcoef(codes.T)[0, 1]) < 0.03


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_draws_are_the_same_given_a_seed(X, dtype):
    model = make().fit(X.astype(dtype))
    state = np.random.mtrand._rand.get_state()[1].copy()
    calls = [
        lambda seed: model.sample_latent(X.astype(dtype), random_state=seed),
        lambda seed: model.sample(20, random_state=seed),
        lambda seed: model.sample(3, Z=np.zeros((5, 2), dtype), random_state=seed),
    ]
    for call in calls:
        assert call(0).dtype == dtype
        np.testing.assert_array_equal(call(0), call(0))
        generators = (np.random.RandomState(3) for _ in range(2))
        np.testing.assert_array_equal(*map(call, generators))
        assert not np.array_equal(call(0), call(1))
        assert not np.array_equal(call(None), call(None))
    np.testing.assert_array_equal(np.random.mtrand._rand.get_state()[1], state)


def test_samples_of_the_prior_have_the_model_s_moments(factors, fitted):
    exact = marginal_normal(fitted, factors)
    rows = fitted.sample(40_000, random_state=0)
    assert rows.shape == (40_000, 7)
    unit = factors.std(axis=0)
    np.testing.assert_allclose((rows.mean(axis=0) - exact.mean) / unit, 0, atol=0.02)
    covariance = np.cov(rows.T) / np.outer(unit, unit)
    np.testing.assert_allclose(covariance, exact.cov / np.outer(unit, unit), atol=0.04)
    np.testing.assert_allclose(covariance, np.corrcoef(factors.T), atol=0.1)


def test_samples_of_a_code_have_its_moments(factors, fitted):
    Z = np.array([[0.0, 0.0], [1.0, -2.0]])
    rows = fitted.sample(20_000, Z=Z, random_state=0)
    assert rows.shape == (40_000, 7)
    noise = np.sqrt(fitted.noise_variance_)
    for part, mean in zip(np.split(rows, 2), fitted.inverse_transform(Z), strict=True):
        np.testing.assert_allclose((part.mean(axis=0) - mean) / noise, 0, atol=0.03)
        np.testing.assert_allclose(part.std(axis=0), noise, rtol=0.03)


def test_one_row_is_drawn_by_default(X):
    model = make().fit(X)
    assert model.sample().shape == (1, 4)
    assert model.sample(Z=np.zeros((3, 2))).shape == (3, 4)


@pytest.mark.parametrize("n_samples", [0, -1])
def test_no_draws_are_an_error(X, n_samples):
    model = make().fit(X)
    calls = [
        model.sample,
        lambda n: model.log_likelihood(X, n),
        lambda n: model.elbo(X, n),
        lambda n: model.reconstruction_log_prob(X, n),
        lambda n: model.reconstruction_prob(X, n),
    ]
    for call in calls:
        with pytest.raises(
            ValueError, match=f"n_samples={n_samples} must be a positive"
        ):
            call(n_samples)
        with pytest.raises(
            ValueError, match=r"n_samples=.* must be a positive integer"
        ):
            call(2.5)


def test_codes_of_the_wrong_width_are_an_error(X):
    model = make().fit(X)
    message = "Z has 3 columns, but codes have n_components=2 columns"
    with pytest.raises(ValueError, match=message):
        model.sample(Z=np.zeros((1, 3)))
    with pytest.raises(ValueError, match="X has 3 columns, but codes have"):
        model.inverse_transform(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="NaN"):
        model.sample(Z=[[np.nan, 0.0]])


# --- likelihoods ----------------------------------------------------------------------


def by_hand(model, X, n_samples):
    """Return log p(x | z_s) of the fixed draws from each row's posterior."""
    mean, std = model.posterior(X)
    draws, sd = normal_draws(n_samples, mean.shape[1]), np.sqrt(model.noise_variance_)
    each = [model.inverse_transform(mean + std * e) for e in draws]
    return np.array([stats.norm.logpdf(X, m, sd).sum(axis=1) for m in each]).T


@pytest.mark.parametrize("n_samples", [1, 7, 200])
def test_reconstruction_probabilities_by_hand(X, n_samples):
    model = make(hidden_layer_sizes=(5,), max_iter=50).fit(X)
    each = by_hand(model, X, n_samples)
    found = model.reconstruction_log_prob(X, n_samples)
    np.testing.assert_allclose(found, each.mean(axis=1), rtol=1e-9)
    geometric = model.reconstruction_prob(X, n_samples)
    np.testing.assert_allclose(geometric, np.exp(found), rtol=1e-12)
    arithmetic = model.reconstruction_prob(X, n_samples, average="arithmetic")
    np.testing.assert_allclose(arithmetic, np.exp(each).mean(axis=1), rtol=1e-9)
    assert (arithmetic >= geometric * (1 - 1e-12)).all()


@pytest.mark.parametrize("n_samples", [16, 64, 256])
def test_elbo_is_the_mean_of_many_draws(X, n_samples):
    model = make(hidden_layer_sizes=(5,), max_iter=50).fit(X)
    mean, std = model.posterior(X)
    kl = 0.5 * (np.square(mean) + np.square(std) - 2 * np.log(std) - 1).sum(axis=1)
    exact = model.reconstruction_log_prob(X, 2**15) - kl
    np.testing.assert_allclose(model.elbo(X, n_samples), exact, atol=0.2)
    assert np.abs(model.elbo(X, n_samples) - exact).mean() < 0.03


def test_reconstruction_prob_knows_two_averages(X):
    with pytest.raises(ValueError, match="average='median' must be 'geometric' or"):
        make().fit(X).reconstruction_prob(X, average="median")


def test_reconstruction_prob_neither_overflows_nor_fails():
    X = np.random.default_rng(0).standard_normal((30, 400))
    for unit, expected in ((1e-9, np.inf), (1e9, 0.0)):
        model = make().fit(X * unit)
        for average in ("geometric", "arithmetic"):
            found = model.reconstruction_prob(X * unit, average=average)
            assert (found == expected).all()


def test_n_importance_samples_is_the_number_of_draws(X):
    model = make(2, hidden_layer_sizes=(5,), max_iter=50).fit(X)
    few = model.score_samples(X)
    np.testing.assert_array_equal(few, model.log_likelihood(X, 64))
    np.testing.assert_array_equal(model.elbo(X), model.elbo(X, 64))
    model.set_params(n_importance_samples=3)
    np.testing.assert_array_equal(model.score_samples(X), model.log_likelihood(X, 3))
    np.testing.assert_array_equal(model.elbo(X), model.elbo(X, 3))
    np.testing.assert_array_equal(
        model.reconstruction_log_prob(X), model.reconstruction_log_prob(X, 3)
    )
    np.testing.assert_allclose(
        model.score_features(X).sum(axis=1), model.log_likelihood(X, 3), rtol=1e-9
    )
    assert not np.array_equal(few, model.score_samples(X))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_have_no_likelihood(X, loss, method):
    message = f"{method} needs a likelihood, but .*'{loss}'.* has no probabilistic"
    for distribution in (loss, [("gaussian", [0, 1]), (loss, [2, 3])]):
        model = make(distribution=distribution, max_iter=2)
        assert not hasattr(model, method)
        with pytest.raises(AttributeError, match=message):
            getattr(model.fit(X), method)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_have_a_reconstruction_error(X, loss):
    model = make(distribution=loss, max_iter=30).fit(X)
    unit = X.std(axis=0)
    r = (X - model.inverse_transform(model.transform(X))) / unit
    expected = {
        "squared_error": np.square(r),
        "absolute_error": np.abs(r),
        "huber": special.huber(1.0, r),
        "log_cosh": np.log(np.cosh(r)),
    }[loss]
    found = model.reconstruction_error(X)
    np.testing.assert_allclose(found, expected.sum(axis=1), rtol=1e-9)
    codes = model.transform(X)
    drawn = model.sample(1, Z=codes, random_state=0)
    np.testing.assert_array_equal(drawn, model.inverse_transform(codes))
    mixed = make(distribution=[("gaussian", [0, 1]), (loss, [2, 3])]).fit(X)
    assert (mixed.reconstruction_error(X) > 0).all()


REAL = ["gaussian", "heteroscedastic_gaussian", "laplace", "student_t"]
POSITIVE = ["exponential", "gamma", "log_normal"]


@pytest.mark.parametrize("distribution", REAL + POSITIVE)
@pytest.mark.parametrize("factor", [1e-3, 1e6])
def test_rescaling_a_column_shifts_its_score_and_changes_nothing_else(
    distribution, factor
):
    X = data_for(distribution)
    scaled = X * [1, factor, 1, 1]
    first, second = (make(distribution=distribution).fit(x) for x in (X, scaled))
    codes = first.transform(X)
    np.testing.assert_allclose(second.transform(scaled), codes, rtol=1e-6, atol=1e-9)
    shift = [0, np.log(factor), 0, 0]
    ours, theirs = first.score_features(X), second.score_features(scaled)
    # What belongs to no column is divided among them: only the sum must shift.
    np.testing.assert_allclose(
        theirs.sum(axis=1), ours.sum(axis=1) - sum(shift), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(theirs, ours - shift, rtol=1e-5, atol=1e-6)
    rows = first.sample(5, random_state=0) * [1, factor, 1, 1]
    np.testing.assert_allclose(second.sample(5, random_state=0), rows, rtol=1e-5)
    for method in ("elbo", "reconstruction_log_prob"):
        ours, theirs = getattr(first, method)(X), getattr(second, method)(scaled)
        np.testing.assert_allclose(theirs, ours - sum(shift), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("distribution", REAL)
def test_shifting_a_column_changes_nothing(distribution):
    X = data_for(distribution)
    first, second = (make(distribution=distribution).fit(x) for x in (X, X + 64.0))
    np.testing.assert_allclose(
        first.score_samples(X), second.score_samples(X + 64.0), rtol=1e-5
    )


# --- the objective --------------------------------------------------------------------


def penalty(model):
    return 0.5 * model.alpha * sum(np.square(w).sum() for w in model.coefs_)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"beta": 0.3},
        {"beta": 0.0},
        {"beta": 4.0, "n_samples": 3},
        {"beta_warm_up": 5},
        {"free_bits": 0.5},
        {"objective": "iwae", "n_samples": 1, "beta": 2.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch_size", [32, 1000])
def test_the_loss_is_the_sum_of_its_parts(X, params, batch_size):
    model = make(alpha=0.0, batch_size=batch_size, **params).fit(X)
    beta = [model._beta(epoch) for epoch in range(1, 11)]
    total = np.add(model.reconstruction_curve_, np.multiply(beta, model.kl_curve_))
    np.testing.assert_allclose(model.loss_curve_, total, rtol=1e-12)
    curves = model.loss_curve_, model.reconstruction_curve_, model.kl_curve_
    assert [len(curve) for curve in curves] == [10, 10, 10]
    assert {type(value) for curve in curves for value in curve} == {float}


def test_the_penalty_is_in_the_loss(X):
    params = {"batch_size": 1000, "max_iter": 1, "learning_rate_init": 1e-12}
    model = make(alpha=3.0, **params).fit(X)
    parts = model.reconstruction_curve_[0] + model.kl_curve_[0]
    assert model.loss_ - parts == pytest.approx(penalty(model), rel=1e-6)


def test_minus_the_loss_is_the_evidence_lower_bound(X):
    params = {"batch_size": 1000, "learning_rate_init": 1e-12, "max_iter": 1}
    model = make(alpha=0.0, n_samples=2000, **params).fit(X)
    shift = np.log(X.std(axis=0)).sum()  # the loss is that of standardized columns
    assert model.elbo(X, 2000).mean() == pytest.approx(-model.loss_ - shift, abs=0.02)


def test_beta_rises_linearly(X):
    model = make(beta=2.0, beta_warm_up=4, max_iter=6)
    assert [model._beta(epoch) for epoch in range(1, 7)] == [0.5, 1.0, 1.5, 2, 2, 2]
    assert make(beta=2.0)._beta(1) == 2.0
    assert make(beta=2.0, beta_warm_up=1)._beta(1) == 2.0


def test_epochs_in_which_beta_rises_are_not_judged(X):
    params = {"tol": 1e9, "n_iter_no_change": 2, "learning_rate": "constant"}
    assert make(max_iter=50, **params).fit(X).n_iter_ == 3
    assert make(max_iter=50, beta_warm_up=20, **params).fit(X).n_iter_ == 23


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("max_iter", [1, 5, 6])
def test_a_warm_up_may_last_longer_than_training(X, max_iter, early_stopping):
    params = {"beta_warm_up": 6, "early_stopping": early_stopping}
    model = make(max_iter=max_iter, **params).fit(X)
    assert model.n_iter_ == max_iter
    assert np.isfinite(model.score(X))
    assert (model.best_validation_score_ is None) != early_stopping


def test_early_stopping_with_a_warm_up_keeps_sensible_weights(digits):
    X = digits[:400] / 16
    params = {"distribution": "bernoulli", "hidden_layer_sizes": (32,), "max_iter": 40}
    plain = make(4, **params).fit(X[:300])
    stopped = make(4, early_stopping=True, beta_warm_up=20, **params).fit(X[:300])
    assert stopped.score(X[300:]) > plain.score(X[300:]) - 1.0
    assert len(stopped.validation_scores_) == stopped.n_iter_


def test_early_stopping_keeps_the_best_weights(digits):
    X = digits[:200]
    params = {"hidden_layer_sizes": (64,), "learning_rate_init": 0.02}
    params |= {"early_stopping": True, "n_iter_no_change": 5}
    model = make(8, max_iter=200, **params).fit(X)
    scores = model.validation_scores_
    assert model.n_iter_ == len(scores) < 200
    assert model.best_validation_score_ == max(scores) > scores[-1]
    shorter = make(8, max_iter=int(np.argmax(scores)) + 1, **params).fit(X)
    np.testing.assert_array_equal(model.coefs_[0], shorter.coefs_[0])


def test_a_small_beta_lets_codes_say_more(X):
    results = [make(beta=beta, max_iter=100).fit(X) for beta in (0.0, 0.1, 1.0, 10.0)]
    said = [model.kl_per_component_.sum() for model in results]
    assert (np.diff(said) < 0).all()
    assert all(np.isfinite(model.score(X)) for model in results)


def test_free_bits_keep_components_alive(X):
    params = {"beta": 20.0, "max_iter": 150, "learning_rate_init": 0.01}
    collapsed = make(**params).fit(X)
    alive = make(free_bits=0.5, **params).fit(X)
    assert collapsed.kl_per_component_.max() < 0.1
    assert collapsed.n_active_components_ < 2
    assert alive.kl_per_component_.min() > 0.15
    assert alive.n_active_components_ == 2
    assert min(alive.kl_curve_) >= 2 * 0.5 - 1e-9  # free bits are counted


def test_free_bits_need_divergences(X):
    message = "free_bits=0.5 needs objective='elbo'"
    with pytest.raises(ValueError, match=message):
        make(free_bits=0.5, objective="iwae").fit(X)


def test_the_importance_weighted_bound_is_tighter(digits):
    X = (digits[:600] > 8).astype(float)
    params = {"distribution": "bernoulli", "hidden_layer_sizes": (30,)}
    params |= {"max_iter": 60, "n_samples": 10, "learning_rate_init": 0.01}
    elbo = make(5, **params).fit(X[:400])
    iwae = make(5, objective="iwae", **params).fit(X[:400])
    assert iwae.loss_ < elbo.loss_
    assert iwae.score(X[400:]) > elbo.score(X[400:]) - 0.3


def test_more_draws_in_training_are_as_good(X):
    one, many = (make(n_samples=n, max_iter=60).fit(X) for n in (1, 8))
    assert many.score(X) > one.score(X) - 0.1
    assert np.std(np.diff(many.loss_curve_[30:])) < np.std(
        np.diff(one.loss_curve_[30:])
    )


# --- what a fit reports ---------------------------------------------------------------


@pytest.fixture(scope="module")
def of_rank_two():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 2)) @ rng.standard_normal((2, 8))
    return X + 0.3 * rng.standard_normal(X.shape)


def test_active_components_are_counted(of_rank_two):
    # A beta above one asks more of a component than chance correlations give.
    params = {"beta": 2.0, "max_iter": 250, "learning_rate_init": 0.01}
    model = make(6, **params).fit(of_rank_two)
    assert model.n_active_components_ == 2
    kl = np.sort(model.kl_per_component_)
    assert kl[3] < 0.05 < 0.5 < kl[4]
    mean, std = model.posterior(of_rank_two)
    assert np.count_nonzero(mean.var(axis=0) > 0.01) == 2
    expected = 0.5 * (np.square(mean) + np.square(std) - 1) - np.log(std)
    np.testing.assert_allclose(
        model.kl_per_component_, expected.mean(axis=0), rtol=1e-9
    )


def test_weights_count_in_what_is_reported(of_rank_two):
    weight = np.random.default_rng(0).integers(0, 4, len(of_rank_two))
    model = make().fit(of_rank_two, sample_weight=weight)
    mean, std = model.posterior(of_rank_two)
    each = 0.5 * (np.square(mean) + np.square(std) - 1) - np.log(std)
    expected = np.average(each, axis=0, weights=weight)
    np.testing.assert_allclose(model.kl_per_component_, expected, rtol=1e-9)
    # A component that is active in rows of weight zero only is not.
    alone = (np.arange(len(of_rank_two)) == 0).astype(float)
    assert make().fit(of_rank_two, sample_weight=alone).n_active_components_ == 0


def test_collapse_is_told_and_what_to_try(of_rank_two):
    noise = np.random.default_rng(0).standard_normal((400, 5))
    model = make(3, max_iter=60, beta=2.0, learning_rate_init=0.01)
    message = (
        r"Posterior collapse: none of the 3 components .*max_iter=60, "
        r"learning_rate_init=0.01\), let beta=2.0 rise slowly \(beta_warm_up=0\) or be "
        r"smaller, or grant free_bits=0.0"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        model.fit(noise)
    assert model.n_active_components_ == 0
    collapse = [w for w in caught if str(w.message).startswith(COLLAPSE)]
    assert len(collapse) == 1
    assert collapse[0].filename == __file__
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=COLLAPSE)
        make(3, max_iter=60, learning_rate_init=0.01).fit(of_rank_two)


@pytest.mark.parametrize("value", [0.0, 1.0, -5.0, 1e6])
@pytest.mark.parametrize(
    "distribution", ["gaussian", "laplace", "student_t", "heteroscedastic_gaussian"]
)
def test_a_constant_column_neither_divides_by_zero_nor_dominates(
    X, value, distribution
):
    wide = np.column_stack([X, np.full(len(X), value)])
    model = make(distribution=distribution, max_iter=100).fit(wide)
    scores, size = model.score_samples(wide), abs(value) or 1.0
    assert np.isfinite(scores).all()
    for step in (1e-4, -1e-4):
        moved = np.column_stack([X, np.full(len(X), value + step * size)])
        assert np.abs(model.score_samples(moved) - scores).max() < 1.0
    if model.noise_variance_ is not None:
        assert np.isfinite(model.noise_variance_).all()
        assert 1e-7 * size**2 < model.noise_variance_[-1] < 10 * size**2


def test_learnt_variances_do_not_collapse():
    rng = np.random.default_rng(0)
    X = np.tile(rng.standard_normal((200, 1)), (1, 4))  # one component says it all
    params = {"max_iter": 400, "learning_rate_init": 0.03, "alpha": 0.0}
    model = make(2, **params).fit(X)
    floor = 1e-6 * X.var(axis=0)
    assert (model.noise_variance_ >= floor * (1 - 1e-9)).all()
    assert np.isfinite(model.score_samples(X * 1.01)).all()


# --- every distribution, end to end ---------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_distribution(distribution, dtype):
    X = data_for(distribution).astype(dtype)
    model = make(distribution=distribution, hidden_layer_sizes=(6,)).fit(X)
    rows = model.sample(500, random_state=0)
    support = DISTRIBUTIONS[distribution].support
    assert rows.shape == (500, 4)
    assert not support.outside(rows).any()
    if distribution == "categorical":
        assert (rows.sum(axis=1) == 1).all()
    make(distribution=distribution, max_iter=1).fit(rows)  # the checks let them pass
    codes = model.transform(X)
    results = [codes, rows, model.inverse_transform(codes), *model.posterior(X)]
    results += [model.sample_latent(X, 0), model.reconstruction_error(X)]
    if distribution not in LOSSES:
        results += [model.score_samples(X), model.score_features(X), model.elbo(X)]
        results += [*model.log_likelihood(X, 5, True), model.reconstruction_log_prob(X)]
        prob = model.reconstruction_prob(X)
        assert prob.dtype == np.float64
        assert (prob > 0).all()
    assert {result.dtype for result in results} == {np.dtype(dtype)}
    assert all(np.isfinite(result).all() for result in results)


@pytest.mark.parametrize("distribution", LIKELIHOODS)
def test_feature_scores_sum_to_the_row_s(distribution):
    X = data_for(distribution)
    model = make(distribution=distribution).fit(X)
    shares = model.score_features(X)
    assert shares.shape == X.shape
    np.testing.assert_allclose(shares.sum(axis=1), model.score_samples(X), rtol=1e-9)


@pytest.mark.parametrize("distribution", LIKELIHOODS)
def test_the_model_outlives_its_parameters_and_its_process(distribution):
    X = data_for(distribution)
    model = make(distribution=distribution, hidden_layer_sizes=(5,)).fit(X)
    again = pickle.loads(pickle.dumps(model))
    expected = {name: getattr(model, name)(X) for name in ("transform", *METHODS)}
    model.set_params(
        n_components=9, hidden_layer_sizes=(3,), activation="relu", beta=7.0
    )
    model.set_params(distribution="huber", latent_activation="tanh", n_samples=50)
    model.set_params(decoder_layer_sizes=(2,), objective="iwae", standardize=False)
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(model, name)(X), values)
        np.testing.assert_array_equal(getattr(again, name)(X), values)
    np.testing.assert_array_equal(again.sample(3, None, 0), model.sample(3, None, 0))


@pytest.mark.parametrize("distribution", LIKELIHOODS)
def test_rows_like_no_other_have_a_score_or_none(distribution):
    X = data_for(distribution)
    model = make(distribution=distribution, hidden_layer_sizes=(5,)).fit(X)
    support = DISTRIBUTIONS[distribution].support
    far = X[:3] * [[1e3], [1e9], [1e30]]
    if support.high == 1.0:
        far = X[:3]
    for method in ("score_samples", "elbo", "reconstruction_log_prob"):
        found = getattr(model, method)(far)
        assert not np.isnan(found).any()
        assert (found < np.inf).all()
    near = model.score_samples(X)
    both = model.score_samples(np.vstack([far, X]))
    np.testing.assert_array_equal(both[3:], near)


@pytest.mark.parametrize("distribution", ["poisson", "negative_binomial"])
def test_counts_in_sparse_rows_are_those_in_dense_ones(digits, distribution):
    X = digits[:150]
    params = {"distribution": distribution, "hidden_layer_sizes": (8,), "max_iter": 5}
    for container in (sparse.csr_matrix, sparse.csr_array):
        dense, thin = make(**params).fit(X), make(**params).fit(container(X))
        for method in ("transform", *METHODS, "reconstruction_error"):
            expected = getattr(dense, method)(X)
            np.testing.assert_array_equal(getattr(thin, method)(container(X)), expected)


# --- mixed tables ---------------------------------------------------------------------


def table(n=300):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    z = rng.standard_normal(n)
    kind = np.eye(3)[np.digitize(z + rng.standard_normal(n), [-0.7, 0.7])]
    return pandas.DataFrame(
        {
            "age": 40 + 10 * z + 3 * rng.standard_normal(n),
            "smoker": rng.random(n) < special.expit(2 * z),
            "visits": rng.poisson(np.exp(1 + 0.5 * z)),
            "income": np.exp(10 + 0.5 * z + 0.2 * rng.standard_normal(n)),
            **{f"kind_{name}": kind[:, i] for i, name in enumerate("abc")},
        }
    )


def test_auto_chooses_and_says_what():
    frame = table()
    auto = make(distribution="auto", max_iter=30).fit(frame)
    found = {name: kind for kind, names in auto.distribution_ for name in names}
    assert found["age"] == "gaussian"
    assert found["smoker"] == "bernoulli"
    assert found["visits"] in ("poisson", "negative_binomial")
    assert found["income"] in ("log_normal", "gamma")
    assert {found[f"kind_{name}"] for name in "abc"} == {"categorical"}
    given = make(distribution=auto.distribution_, max_iter=30).fit(frame)
    assert given.distribution_ == auto.distribution_
    np.testing.assert_array_equal(given.transform(frame), auto.transform(frame))
    np.testing.assert_array_equal(given.score_samples(frame), auto.score_samples(frame))
    rows = auto.sample(2000, random_state=0)
    assert np.isin(rows[:, 1], [0, 1]).all()
    assert (rows[:, 3] > 0).all()
    assert (rows[:, 4:].sum(axis=1) == 1).all()


def test_samples_of_a_mixed_table_look_like_the_data():
    frame = table(1000)
    params = {"max_iter": 150, "learning_rate_init": 0.01}
    model = make(distribution="auto", **params).fit(frame)
    rows, X = model.sample(20_000, random_state=0), frame.to_numpy(float)
    scale = X.std(axis=0)
    np.testing.assert_allclose(
        (rows - X.mean(axis=0)).mean(axis=0) / scale, 0, atol=0.2
    )
    ours, theirs = np.corrcoef(rows.T), np.corrcoef(X.T)
    np.testing.assert_allclose(ours, theirs, atol=0.2)


@pytest.mark.parametrize(
    "spec",
    [
        [("gaussian", ["age", "income"]), ("bernoulli", ["smoker"]),
         ("poisson", ["visits"]), ("categorical", slice("kind_a", "kind_c"))],
        [("gaussian", [0, 3]), ("bernoulli", [1]), ("poisson", 2),
         ("categorical", slice(4, 7))],
        [("categorical", lambda X: [c for c in X.columns if "kind" in c]),
         ("poisson", "visits"), ("bernoulli", np.arange(7) == 1),
         ("gaussian", ["income", "age"])],
    ],
    ids=["names", "places", "selectors"],
)  # fmt: skip
def test_columns_are_selected_in_many_ways(spec):
    frame = table()
    model = make(distribution=spec).fit(frame)
    known = {
        name: kind
        for kind, names in model.distribution_
        for name in np.atleast_1d(names)
    }
    assert known["visits"] == "poisson"
    assert known["kind_b"] == "categorical"
    shares = model.score_features(frame)
    np.testing.assert_allclose(shares.sum(axis=1), model.score_samples(frame))
    noise = model.noise_variance_
    np.testing.assert_array_equal(np.isfinite(noise), [1, 0, 0, 1, 0, 0, 0])
    with pytest.raises(ValueError, match=r"'visits'"):
        make(distribution=spec).fit(frame.assign(visits=0.5))


def test_a_composite_of_one_is_the_distribution_itself(X):
    ours = make(distribution=[("gaussian", slice(None))]).fit(X)
    theirs = make().fit(X)
    np.testing.assert_array_equal(ours.transform(X), theirs.transform(X))
    np.testing.assert_array_equal(ours.score_samples(X), theirs.score_samples(X))


# --- same row, same answer ------------------------------------------------------------


@pytest.mark.parametrize("method", ["transform", *METHODS[:4], *METHODS[5:]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_row_same_answer_to_the_last_bit(digits, method, dtype):
    data = digits[:300].astype(dtype)
    call = getattr(make(5, hidden_layer_sizes=(20,), max_iter=3).fit(data), method)
    together = call(data)
    order = np.random.default_rng(0).permutation(len(data))
    np.testing.assert_array_equal(call(data[order]), together[order])
    np.testing.assert_array_equal(call(data[:77]), together[:77])
    for i in (0, 64, 128, 299):
        np.testing.assert_array_equal(call(data[[i]])[0], together[i])
    np.testing.assert_array_equal(call(data), together)


def test_same_seed_same_model(X):
    for params in ({}, {"objective": "iwae", "n_samples": 3}, {"early_stopping": True}):
        first, second = (make(**params).fit(X) for _ in range(2))
        np.testing.assert_array_equal(first._theta, second._theta)
        other = make(random_state=1, **params).fit(X)
        assert not np.array_equal(first.coefs_[0], other.coefs_[0])
    first, second = (make(random_state=None).fit(X) for _ in range(2))
    assert not np.array_equal(first.coefs_[0], second.coefs_[0])


@pytest.mark.parametrize("batch_size", [32, 1000])
def test_the_order_of_the_rows_does_not_matter_to_the_last_bit(X, batch_size):
    order = np.random.default_rng(0).permutation(len(X))
    first, second = (make(batch_size=batch_size).fit(x) for x in (X, X[order]))
    np.testing.assert_array_equal(first.coefs_[0], second.coefs_[0])
    np.testing.assert_array_equal(first.kl_per_component_, second.kl_per_component_)


@pytest.mark.parametrize("params", [{}, {"objective": "iwae", "n_samples": 3}], ids=str)
def test_weights_are_repetitions_to_the_last_bit(X, params):
    X = X[:100]
    weight = np.random.default_rng(0).integers(0, 3, len(X))
    twice = np.repeat(X, weight, axis=0)
    params = {"batch_size": 1000} | params
    weighted = make(**params).fit(X, sample_weight=weight)
    repeated = make(**params).fit(twice)
    np.testing.assert_array_equal(weighted.coefs_[0], repeated.coefs_[0])
    np.testing.assert_array_equal(weighted.noise_variance_, repeated.noise_variance_)
    np.testing.assert_allclose(
        weighted.kl_per_component_, repeated.kl_per_component_, rtol=1e-12
    )
    assert weighted.n_active_components_ == repeated.n_active_components_
    score = weighted.score(X, sample_weight=weight)
    assert score == pytest.approx(repeated.score(twice), rel=1e-12)


# --- going on -------------------------------------------------------------------------


def test_partial_fit_passes_are_epochs(X):
    whole, chunks = make(max_iter=4, beta_warm_up=3).fit(X), make(beta_warm_up=3)
    for _ in range(4):
        chunks.partial_fit(X)
    np.testing.assert_allclose(chunks.coefs_[0], whole.coefs_[0], rtol=1e-9)
    for name in ("loss_curve_", "reconstruction_curve_", "kl_curve_"):
        np.testing.assert_allclose(
            getattr(chunks, name), getattr(whole, name), rtol=1e-9
        )
    np.testing.assert_allclose(
        chunks.kl_per_component_, whole.kl_per_component_, rtol=1e-9
    )
    assert (chunks.n_iter_, chunks.t_) == (whole.n_iter_, whole.t_)


def test_partial_fit_learns_from_chunks(X):
    rng, model = np.random.default_rng(0), make(learning_rate_init=0.01)
    model.partial_fit(X[:1])
    for size in rng.integers(1, 40, 600):
        model.partial_fit(X[rng.integers(0, len(X), size)])
    assert model.score(X) > make(max_iter=100).fit(X).score(X) - 1.0
    again = pickle.loads(pickle.dumps(model)).partial_fit(X)
    np.testing.assert_array_equal(again._theta, model.partial_fit(X)._theta)


def test_warm_start_goes_on(X):
    model = make(warm_start=True, max_iter=5).fit(X)
    curves = ("loss_curve_", "reconstruction_curve_", "kl_curve_")
    before = {name: list(getattr(model, name)) for name in curves}
    model.fit(X)
    for name in curves:
        assert getattr(model, name)[:5] == before[name]
        assert len(getattr(model, name)) == 10
    assert model.loss_ < before["loss_curve_"][-1]
    cold = make(max_iter=5).fit(X).fit(X)
    assert {len(getattr(cold, name)) for name in curves} == {5}


def test_warm_start_keeps_the_choice_of_distributions():
    frame = table()
    model = make(distribution="auto", warm_start=True, max_iter=2).fit(frame)
    chosen = model.distribution_
    model.fit(frame.iloc[:40])
    assert model.distribution_ == chosen


def test_a_failed_fit_leaves_the_earlier_one(X):
    model = make().fit(X)
    expected = model.score_samples(X)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(X * np.nan)
    model.set_params(solver="sgd", learning_rate_init=1e7)
    with pytest.raises(ValueError, match="diverged"):
        model.fit(X)
    np.testing.assert_array_equal(model.score_samples(X), expected)


# --- scikit-learn's machinery ---------------------------------------------------------


def test_grid_search_needs_no_scorer(of_rank_two):
    pipeline = make_pipeline(
        StandardScaler(), make(max_iter=80, learning_rate_init=0.01)
    )
    grid = {"variationalautoencoder__n_components": [1, 2]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(of_rank_two)
    assert search.best_params_["variationalautoencoder__n_components"] == 2
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.transform(of_rank_two).shape == (500, 2)


def test_pandas(X):
    pandas = pytest.importorskip("pandas")
    frame = load_iris(as_frame=True).data
    model = make().set_output(transform="pandas").fit(frame)
    codes = model.transform(frame.iloc[5:])
    assert list(codes.columns) == ["variationalautoencoder0", "variationalautoencoder1"]
    pandas.testing.assert_index_equal(codes.index, frame.index[5:])
    np.testing.assert_array_equal(codes.to_numpy(), make().fit(X).transform(X)[5:])
    assert model.sample(2, Z=codes.iloc[:3], random_state=0).shape == (6, 4)


def test_polars(X):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(X, schema=["a", "b", "c", "d"])
    codes = make().set_output(transform="polars").fit(frame).transform(frame)
    assert codes.columns == ["variationalautoencoder0", "variationalautoencoder1"]
    np.testing.assert_array_equal(codes.to_numpy(), make().fit(X).transform(X))


@pytest.mark.parametrize(
    "method",
    ["transform", "inverse_transform", "posterior", "sample_latent", *METHODS],
)
def test_not_fitted(X, method):
    with pytest.raises(NotFittedError):
        getattr(make(), method)(X)
    with pytest.raises(NotFittedError):
        make().sample(3)
    assert not hasattr(make(), "coefs_")


def test_state_is_plain(X):
    model = make(hidden_layer_sizes=(3,)).fit(X).partial_fit(X)
    plain = (np.ndarray, int, float, str, bool, type(None), np.generic)

    def check(value):
        if isinstance(value, (dict, list, tuple)):
            each = value.values() if isinstance(value, dict) else value
            for item in each:
                check(item)
        else:
            assert isinstance(value, plain), type(value)

    check(vars(model))


def test_clone_fits_the_same_model(X):
    model = make(hidden_layer_sizes=(3,), objective="iwae", n_samples=2).fit(X)
    np.testing.assert_array_equal(clone(model).fit(X)._theta, model._theta)


# --- bad input ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_components": 0}, "'n_components'"),
        ({"n_components": True}, "n_components=True must be an integer"),
        ({"decoder_layer_sizes": (3, 0)}, "decoder_layer_sizes=.* positive integers"),
        ({"decoder_layer_sizes": ("a",)}, "decoder_layer_sizes=.* positive integers"),
        ({"hidden_layer_sizes": (2.5,)}, "hidden_layer_sizes=.* positive integers"),
        ({"latent_activation": "gelu"}, "'latent_activation'"),
        ({"objective": "vampprior"}, "'objective'"),
        ({"distribution": "fog"}, "'distribution'"),
        ({"n_samples": 0}, "'n_samples'"),
        ({"n_samples": 1.5}, "'n_samples'"),
        ({"beta": -1}, "'beta'"),
        ({"beta_warm_up": -1}, "'beta_warm_up'"),
        ({"free_bits": -0.1}, "'free_bits'"),
        ({"n_importance_samples": 0}, "'n_importance_samples'"),
        ({"solver": "lbfgs"}, "'solver'"),
        ({"solver": "sgd", "learning_rate_init": 1e7}, "Training diverged in epoch"),
    ],
    ids=str,
)
def test_bad_parameters(X, params, message):
    model = make(**params)
    with pytest.raises(ValueError, match=message):
        model.fit(X)
    assert not [name for name in vars(model) if name.endswith("_")]


@pytest.mark.parametrize(
    ("distribution", "value", "message"),
    [
        ("gaussian", np.nan, "NaN"),
        ("gaussian", np.inf, "infinity"),
        ("bernoulli", 1.5, r"Column 1 holds 1.5, .* needs values in \[0, 1\]"),
        ("poisson", -1.0, "Negative values in data: column 1 holds -1"),
        ("poisson", 0.5, "Column 1 holds 0.5, .* needs whole numbers"),
        ("log_normal", 0.0, "Column 1 holds 0, but"),
        ("categorical", 1.0, "needs one 1 and zeros besides"),
    ],
)
def test_bad_data(distribution, value, message):
    X = data_for(distribution)
    model, bad = make(distribution=distribution, max_iter=2).fit(X), X.copy()
    bad[3] = [1.0, value, 1.0, 1.0]
    with pytest.raises(ValueError, match=message):
        make(distribution=distribution).fit(bad)
    for method in ("transform", "posterior", "sample_latent", *METHODS):
        with pytest.raises(ValueError, match=message):
            getattr(model, method)(bad)


def test_one_row_and_one_column():
    for data in (np.ones((1, 1)), np.arange(3.0)[None], np.arange(3.0)[:, None]):
        model = make().fit(data)
        for method in ("transform", *METHODS):
            assert np.isfinite(getattr(model, method)(data)).all()
        assert model.sample(4).shape == (4, data.shape[1])
        assert model.noise_variance_.shape == (data.shape[1],)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_and_tiny_scales(X, scale, dtype):
    data = (X * scale).astype(dtype)
    model = make().fit(data)
    expected = make().fit(X.astype(dtype)).score(X.astype(dtype)) - 4 * np.log(scale)
    assert model.score(data) == pytest.approx(expected, rel=1e-3)
    assert np.isfinite(model.sample(100, random_state=0)).all()


# --- wide tables and rows far out -----------------------------------------------------


@pytest.mark.parametrize(("n_rows", "n_features"), [(200, 1000), (50, 5000)])
def test_a_linear_model_of_a_wide_table_does_not_diverge(n_rows, n_features):
    rng = np.random.default_rng(0)
    X = 3 * rng.normal(size=(n_rows, 3)) @ rng.normal(size=(3, n_features))
    X += rng.normal(size=X.shape)
    model = VariationalAutoencoder(max_iter=60, tol=1e9, n_iter_no_change=60)
    model.set_params(learning_rate="constant", random_state=0).fit(X)
    assert model.loss_ < model.loss_curve_[0]


def test_rows_far_out_have_codes_of_sensible_spread(X):
    model = make(2, max_iter=50).fit(X)
    for factor in (1e3, 1e6):
        mean, std = model.posterior(X * factor)
        assert np.isfinite(mean).all()
        assert (std > 1e-12).all()
        assert (std < 1e6).all()
        assert np.isfinite(model.elbo(X * factor)).all()


def test_the_best_loss_is_of_the_final_objective(X):
    model = make(2, beta=5, beta_warm_up=40, hidden_layer_sizes=(16,), max_iter=60)
    model.fit(X)
    assert model.best_loss_ == min(model.loss_curve_[40:])
    assert model.best_loss_ > min(model.loss_curve_)


def test_parameters_set_after_a_fit_break_nothing(X):
    model = make(2, max_iter=5).fit(X)
    codes, scores = model.transform(X), model.score_samples(X)
    model.set_params(objective="iwae", free_bits=0.1, n_samples=7, beta=3.0)
    np.testing.assert_array_equal(model.transform(X), codes)
    np.testing.assert_array_equal(model.score_samples(X), scores)
