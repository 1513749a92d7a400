import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.base import clone

from skae import (
    DenoisingAutoencoder,
    SparseAutoencoder,
    StackedAutoencoder,
    VariationalAutoencoder,
)
from skae.estimators._fitted import new_generator
from skae.estimators._scores import (
    MOST_EVIDENCE,
    SCORES,
    Scorer,
    calm,
    check_available,
    check_code,
    check_score,
    medians,
    new_scorer,
    sample,
)
from skae.exemplars import Exemplars

pytestmark = pytest.mark.filterwarnings(
    r"ignore:Posterior collapse\x3a none of the:UserWarning"
)

BRIEF = {"max_iter": 8, "learning_rate": "cosine", "random_state": 0}
MIXED = [("laplace", [0, 3]), ("poisson", [1]), ("bernoulli", [2])]
DETERMINISTIC = {
    "denoising": DenoisingAutoencoder(2, **BRIEF),
    "denoising, mixed": DenoisingAutoencoder(2, distribution=MIXED, **BRIEF),
    "sparse": SparseAutoencoder(6, **BRIEF),
    "stacked": StackedAutoencoder(
        2, hidden_layer_sizes=(3,), pretraining_max_iter=2, **BRIEF
    ),
}
VARIATIONAL = {
    "variational": VariationalAutoencoder(2, n_importance_samples=16, **BRIEF),
    "variational, many draws": VariationalAutoencoder(
        2, n_importance_samples=200, **BRIEF
    ),
    "variational, mixed": VariationalAutoencoder(
        2, distribution=MIXED, hidden_layer_sizes=(4,), **BRIEF
    ),
}
deterministic = pytest.mark.parametrize("name", DETERMINISTIC)
variational = pytest.mark.parametrize("name", VARIATIONAL)
every = pytest.mark.parametrize("name", DETERMINISTIC | VARIATIONAL)


def rows(n=60, seed=0):
    """Return rows of two real columns, counts and zeros and ones."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 1)) + 0.5 * rng.standard_normal((n, 4))
    X[:, 1], X[:, 2] = rng.poisson(np.exp(X[:, 1])), X[:, 2] > 0
    X[:, 3] = 50.0 * X[:, 3] - 7.0
    return X


FITTED = {}

#: What sixty different rows weigh, and what they weigh for themselves.
ONES = np.ones(60), np.zeros(60)


def fitted(name):
    """Return an estimator that is fitted once for all tests."""
    if name not in FITTED:
        FITTED[name] = clone((DETERMINISTIC | VARIATIONAL)[name]).fit(rows())
    return FITTED[name]


def scorer(name, n_effective=6.0, **weights):
    """Return a scorer to which every third training row is an exemplar."""
    # What is typical is so unlikely that no evidence is reduced.
    typical = np.full(4, -1e4)
    masses = np.ones(20), np.zeros(20)
    return Scorer(fitted(name), weights, rows()[::3], *masses, n_effective, typical)


def everything(scorer, X):
    return scorer.scores(X), scorer.shares(X), scorer.expected(X)


# --- each score is what the estimator says --------------------------------------------

NEW = rows(40, seed=1)


@variational
def test_log_likelihood_of_a_random_code(name):
    model, found = fitted(name), scorer(name, log_likelihood=1.0)
    np.testing.assert_allclose(found.scores(NEW), model.score_samples(NEW), rtol=1e-9)
    np.testing.assert_array_equal(found.plain_shares(NEW), model.score_features(NEW))


@deterministic
def test_log_likelihood_of_other_codes(name):
    found = scorer(name, 3.0, log_likelihood=1.0)
    model = fitted(name)._model()
    expected = Exemplars(model, rows()[::3], np.ones(20), 3.0)
    np.testing.assert_allclose(found.scores(NEW), expected.log_density(NEW), rtol=1e-9)
    np.testing.assert_array_equal(found.plain_shares(NEW), expected.shares(NEW))


@variational
def test_reconstruction_log_prob_of_a_random_code(name):
    expected = fitted(name).reconstruction_log_prob(NEW)
    found = scorer(name, reconstruction_log_prob=1.0)
    np.testing.assert_allclose(found.scores(NEW), expected, rtol=1e-9)


def test_reconstruction_shares_are_means_over_the_posterior():
    model, X = fitted("variational, many draws"), NEW[:5]
    mean, std = model.posterior(X)
    rng = np.random.default_rng(0)
    z = mean[:, None] + std[:, None] * rng.standard_normal((5, 20_000, 2))
    centre = model.inverse_transform(z.reshape(-1, 2)).reshape(5, -1, 4)
    law = stats.norm(centre, np.sqrt(model.noise_variance_))
    expected = law.logpdf(X[:, None]).mean(axis=1)
    found = scorer("variational, many draws", reconstruction_log_prob=1.0)
    np.testing.assert_allclose(found.plain_shares(X), expected, rtol=0.02, atol=0.02)


@deterministic
def test_reconstruction_log_prob_of_one_code(name):
    model, found = fitted(name), scorer(name, reconstruction_log_prob=1.0)
    np.testing.assert_array_equal(found.plain_shares(NEW), model.score_features(NEW))
    np.testing.assert_allclose(found.scores(NEW), model.score_samples(NEW), rtol=1e-9)


@every
def test_reconstruction_error(name):
    found = scorer(name, reconstruction_error=1.0)
    expected = -fitted(name).reconstruction_error(NEW)
    np.testing.assert_allclose(found.scores(NEW), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("distribution", "loss"), [("gaussian", np.square), ("absolute_error", np.abs)]
)
def test_reconstruction_error_by_column(distribution, loss):
    model = DenoisingAutoencoder(2, distribution=distribution, **BRIEF).fit(rows())
    kept = model.inverse_transform(model.transform(NEW))
    expected = -loss((NEW - kept) / rows().std(axis=0))
    scorer = new_scorer(model, {"reconstruction_error": 1.0}, 6.0, rows(), *ONES)
    found = scorer.plain_shares(NEW)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@variational
def test_kl(name):
    mean, std = fitted(name).posterior(NEW)
    expected = -0.5 * (mean**2 + std**2 - 1).sum(axis=1) + np.log(std).sum(axis=1)
    found, shares = scorer(name, kl=1.0), scorer(name, kl=1.0).plain_shares(NEW)
    np.testing.assert_allclose(found.scores(NEW), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(shares.sum(axis=1), expected, rtol=1e-9)
    assert shares.max() < 0
    # It belongs to no column.
    np.testing.assert_array_equal(shares, np.repeat(shares[:, :1], 4, axis=1))


# --- all of them ----------------------------------------------------------------------


def available(name):
    return [score for score in SCORES if score != "kl" or name in VARIATIONAL]


@every
def test_shares_sum_to_the_score(name):
    for score in available(name):
        found = new_scorer(fitted(name), {score: 2.0}, 6.0, rows(), *ONES)
        shares = found.shares(NEW)
        assert shares.shape == NEW.shape
        np.testing.assert_allclose(shares.sum(axis=1), found.scores(NEW), rtol=1e-9)
        np.testing.assert_allclose(shares, found.plain_shares(NEW), rtol=1e-9)


@every
def test_a_sum_of_scores(name):
    weights = dict(zip(available(name), (0.5, 3.0, 1.0, 2.0), strict=False))
    expected = sum(
        weight * scorer(name, **{score: 1.0}).plain_shares(NEW)
        for score, weight in weights.items()
    )
    found = scorer(name, **weights)
    np.testing.assert_allclose(found.plain_shares(NEW), expected, rtol=1e-12)
    total = expected.sum(axis=1)
    np.testing.assert_allclose(found.scores(NEW), total, rtol=1e-9)


@variational
def test_what_is_expected_of_a_random_code(name):
    model = fitted(name)
    expected = model.inverse_transform(model.transform(NEW))
    for score in available(name):
        found = scorer(name, **{score: 1.0}).expected(NEW)
        np.testing.assert_array_equal(found, expected)


@deterministic
def test_what_is_expected_of_other_codes(name):
    model = fitted(name)._model()
    expected = Exemplars(model, rows()[::3], np.ones(20), 3.0).expected(NEW)
    for score in available(name):
        found = scorer(name, 3.0, **{score: 1.0}).expected(NEW)
        np.testing.assert_array_equal(found, expected)


@every
def test_rows_do_not_meet_and_may_be_sparse_or_in_single_precision(name):
    for score in available(name):
        found = new_scorer(fitted(name), {score: 1.0}, 6.0, rows(), *ONES)
        together, alone, thin, single = (
            everything(found, X)
            for X in (NEW, NEW[[7]], sparse.csr_matrix(NEW), NEW.astype(np.float32))
        )
        for i, whole in enumerate(together):
            assert whole.dtype == single[i].dtype == np.float64
            np.testing.assert_array_equal(alone[i][0], whole[7])
            np.testing.assert_array_equal(thin[i], whole)
            np.testing.assert_allclose(single[i], whole, rtol=1e-3, atol=1e-3)


# --- what is asked for ----------------------------------------------------------------


@pytest.mark.parametrize("score", SCORES)
def test_a_name_stands_for_one_score(score):
    assert check_score(score) == {score: 1.0}


def test_names_are_in_order():
    assert list(SCORES) == sorted(SCORES)


def test_weights_become_numbers():
    found = check_score({"kl": np.float32(0.5), "reconstruction_error": 2})
    assert found == {"kl": 0.5, "reconstruction_error": 2.0}
    assert {type(weight) for weight in found.values()} == {float}


@pytest.mark.parametrize(
    ("score", "match"),
    [
        ("elbo", "anomaly_score='elbo' names 'elbo'; scores are 'kl', 'log_likelih"),
        ("", "names ''; scores are"),
        ({"kl": 1.0, "mse": 1.0}, "names 'mse'; scores are 'kl', "),
        ({}, r"anomaly_score=\{\} must give one or more of 'kl', 'log_likelihood'"),
        ({"kl": -0.5}, "with weights that are not negative"),
        ({"kl": np.nan}, "with weights that are not negative"),
        ({"kl": 1.0, "reconstruction_error": np.inf}, "weights that are not negative"),
        ({"kl": 0.0}, "not negative, and not all zero"),
    ],
)
def test_what_is_no_score(score, match):
    with pytest.raises(ValueError, match=match):
        check_score(score)


def test_scores_that_an_autoencoder_does_not_have():
    with pytest.raises(ValueError, match=r"'kl' needs a code that is random.* Sparse"):
        check_code(fitted("sparse"), {"reconstruction_error": 1.0, "kl": 0.5})
    for name in DETERMINISTIC | VARIATIONAL:
        check_code(fitted(name), dict.fromkeys(available(name), 1.0))
        check_available(fitted(name), dict.fromkeys(available(name), 1.0))


@pytest.mark.parametrize("kind", [DenoisingAutoencoder, VariationalAutoencoder])
def test_losses_have_no_likelihood(kind):
    distribution = [("huber", [0, 3]), ("gaussian", [1, 2])]
    model = kind(2, distribution=distribution, **BRIEF).fit(rows())
    refused = {"reconstruction_log_prob"}
    if kind is VariationalAutoencoder:
        refused.add("log_likelihood")
    for name in SCORES.keys() - {"kl"}:
        if name not in refused:
            check_available(model, {name: 1.0})
            continue
        match = f"anomaly_score='{name}' needs a likelihood, but 'huber'.*columns 0, 3"
        with pytest.raises(ValueError, match=match):
            check_available(model, {name: 1.0})


# --- evidence is limited --------------------------------------------------------------


def test_calm_by_hand():
    deficit = np.array([-30.0, 0.0, 99.0, 100.0, 100 * np.e, 1e300])
    expected = [-30.0, 0.0, 99.0, 100.0, 200.0, 100 * (1 + np.log(1e298))]
    np.testing.assert_allclose(calm(deficit), expected, rtol=1e-14)
    assert MOST_EVIDENCE == 100


def test_calm_keeps_the_order():
    deficit = np.concatenate([np.linspace(-50, 300, 500), np.geomspace(301, 1e300, 99)])
    found = calm(deficit)
    assert (np.diff(found) > 0).all()
    # It bends where it begins, and does not jump.
    assert np.abs(np.diff(found[:500])).max() < 1.001 * 350 / 499


def test_medians_count_weights_like_rows():
    shares, weight = np.random.default_rng(0).standard_normal((9, 3)), np.arange(1, 10)
    expected = np.quantile(
        np.repeat(shares, weight, axis=0), 0.5, axis=0, method="inverted_cdf"
    )
    np.testing.assert_array_equal(medians(shares, weight.astype(float)), expected)


@every
def test_rows_far_below_what_is_typical(name):
    weights = {"log_likelihood": 1.0, "reconstruction_error": 2.0}
    weight = np.arange(1.0, 21.0)
    found = new_scorer(fitted(name), weights, 3.0, rows()[::3], weight, weight - 1)
    typical = medians(found.plain_shares(rows()[::3]), weight)
    np.testing.assert_array_equal(found.typical, typical)
    far, size = NEW.copy(), np.geomspace(0.5, 1e5, 40)
    far[:, 3] = 50.0 * size
    plain = found.plain_shares(far)
    deficit = typical.sum() - plain.sum(axis=1)
    assert 0 < np.count_nonzero(deficit > MOST_EVIDENCE) < 40
    expected = typical.sum() - calm(deficit)
    np.testing.assert_allclose(found.scores(far), expected, rtol=1e-9)
    shares = found.shares(far)
    np.testing.assert_allclose(shares.sum(axis=1), expected, rtol=1e-9)
    # Each column has the same part of what is left as of all that was there.
    for part, whole in zip(shares - typical, plain - typical, strict=True):
        ratio = part / whole
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
        assert ratio[0] <= 1 + 1e-9


def test_a_new_scorer_refuses_what_the_autoencoder_does_not_have():
    model = VariationalAutoencoder(2, distribution="huber", **BRIEF).fit(rows())
    with pytest.raises(ValueError, match="needs a likelihood, but 'huber'"):
        new_scorer(model, {"log_likelihood": 1.0}, 6.0, rows(), *ONES)


# --- exemplars ------------------------------------------------------------------------


@pytest.mark.parametrize("most", [60, 1000])
def test_few_rows_all_stand_for_themselves(most):
    given = np.arange(1.0, 61.0)
    found = sample(given, most, new_generator(0))
    np.testing.assert_array_equal(found.place, np.arange(60))
    np.testing.assert_array_equal(found.mass, given)
    np.testing.assert_allclose(found.others, given - 1, rtol=1e-12, atol=1e-12)


def test_of_many_rows_some_are_drawn_once():
    found = sample(np.ones(60), 25, new_generator(0))
    assert len(found.place) == 25
    assert (np.diff(found.place) > 0).all()
    np.testing.assert_allclose(found.mass, np.full(25, 60 / 25))
    np.testing.assert_array_equal(found.others, np.zeros(25))
    again = sample(np.ones(60), 25, new_generator(0))
    np.testing.assert_array_equal(again.place, found.place)
    other = sample(np.ones(60), 25, new_generator(1))
    assert not np.array_equal(other.place, found.place)


def test_heavy_rows_stand_for_themselves():
    given = np.where(np.arange(60) == 7, 100.0, np.where(np.arange(60) < 3, 20.0, 2.0))
    found = sample(given, 10, new_generator(0))
    assert {0, 1, 2, 7} <= set(found.place)
    assert len(found.place) == 10
    assert found.mass.sum() == pytest.approx(given.sum())
    mass = dict(zip(found.place, found.mass, strict=True))
    assert [mass[i] for i in (0, 1, 2, 7)] == [20.0, 20.0, 20.0, 100.0]
    # Of two equal rows, one is left for the other.
    light = found.others[found.mass < 20] / found.mass[found.mass < 20]
    np.testing.assert_allclose(light, 0.5)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_a_few_exemplars_weigh_as_much_as_all_rows(most):
    given = np.array([50.0, 40.0, *np.ones(20)])
    found = sample(given, most, new_generator(0))
    assert len(found.place) <= most
    if most > 2:
        assert found.mass.sum() == pytest.approx(given.sum())


def test_rows_are_drawn_by_weight():
    rng, given = np.random.default_rng(0), np.where(np.arange(60) < 20, 4.0, 1.0)
    drawn = np.concatenate([sample(given, 2, rng).place for _ in range(2000)])
    # The first twenty have 80 of 120 parts of the weight.
    assert np.mean(drawn < 20) == pytest.approx(2 / 3, abs=0.03)
