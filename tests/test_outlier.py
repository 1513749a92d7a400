import pickle
from itertools import pairwise

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse, stats
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import (
    AutoencoderOutlierDetector,
    DenoisingAutoencoder,
    SparseAutoencoder,
    StackedAutoencoder,
    StackedAutoencoderClassifier,
    StackedAutoencoderRegressor,
    VariationalAutoencoder,
)

pytestmark = pytest.mark.filterwarnings(
    r"ignore:Posterior collapse\x3a none of the:UserWarning"
)

BRIEF = {"max_iter": 2, "learning_rate": "cosine", "batch_size": 10_000}
WAYS = ["cross", "split", "train"]
ways = pytest.mark.parametrize("calibration", WAYS)

#: Reproduces the rows that it is fitted to, and those only.
OVERFITS = {
    "solver": "lbfgs",
    "corruption_level": 0,
    "alpha": 0,
    "max_iter": 60,
    "tol": 0.01,
}


def brief(n_components=1, **params):
    return DenoisingAutoencoder(n_components, **BRIEF | params)


def variational(**params):
    return VariationalAutoencoder(1, n_importance_samples=16, **BRIEF | params)


def make(estimator=None, **params):
    return AutoencoderOutlierDetector(
        estimator or brief(), **{"n_folds": 2, "random_state": 0} | params
    )


def normals(n=60, d=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 1)) + 0.5 * rng.standard_normal((n, d))
    return X * np.geomspace(1, 100, d) + 5.0


def heavy(n=60, d=3, seed=0):
    """Return rows of which some stand out."""
    return np.random.default_rng(seed).standard_t(2, (n, d))


def state(detector):
    """Return everything that a detector holds, as bytes."""
    return pickle.dumps(vars(detector))


def assert_same(one, other, X):
    assert one.offset_ == other.offset_
    assert one.n_trimmed_ == other.n_trimmed_
    for name in (
        "calibration_scores_",
        "calibration_weight_",
        "typical_contributions_",
    ):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.score_samples(X), other.score_samples(X))
    ours, theirs = one.explain(X), other.explain(X)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


def assert_at_most(rates, bound):
    """Refuse a mean of independent rates that is clearly above a bound."""
    error = np.std(rates, ddof=1) / np.sqrt(len(rates))
    assert np.mean(rates) <= bound + 3 * error


# --- the line -------------------------------------------------------------------------


@ways
def test_scores_decisions_and_labels_agree(calibration):
    X, new = heavy(), heavy(200, seed=1)
    detector = make(calibration=calibration, contamination=0.2)
    labels = detector.fit_predict(X)
    scores = detector.score_samples(new)
    assert scores.dtype == np.float64
    decision = detector.decision_function(new)
    np.testing.assert_array_equal(decision, scores - detector.offset_)
    np.testing.assert_array_equal(detector.predict(new), np.where(decision < 0, -1, 1))
    assert 0.05 < np.mean(decision < 0) < 0.5
    np.testing.assert_array_equal(labels, detector.predict(X))
    assert detector.score(new) == pytest.approx(scores.mean())
    weight = np.arange(200.0)
    mean = np.average(scores, weights=weight)
    assert detector.score(new, sample_weight=weight) == pytest.approx(mean)


@ways
@pytest.mark.parametrize("contamination", [0.05, 0.1, 0.27, 0.5])
def test_contamination_is_a_share_of_the_held_out_rows(contamination, calibration):
    detector = make(contamination=contamination, calibration=calibration).fit(normals())
    below = detector.calibration_scores_ < detector.offset_
    n = len(below)
    assert below.sum() == np.floor(contamination * n + 1e-9)


@ways
def test_automatic_lines_are_fences_of_tukey(calibration):
    for seed in range(3):
        detector = make(calibration=calibration).fit(heavy(150, seed=seed))
        known = detector.calibration_scores_
        low, high = np.quantile(known, [0.25, 0.75], method="inverted_cdf")
        expected = known < low - 1.5 * (high - low)
        assert expected.any()
        np.testing.assert_array_equal(known < detector.offset_, expected)


@ways
def test_without_contamination_no_held_out_row_is_an_outlier(calibration):
    detector = make(contamination=None, calibration=calibration).fit(heavy())
    lowest = detector.calibration_scores_[0]
    assert detector.offset_ < lowest
    second = detector.calibration_scores_[1]
    assert lowest - detector.offset_ == pytest.approx(0.5 * (second - lowest))


def test_lines_are_half_way_between_scores():
    for contamination in (0.1, 0.33, "auto"):
        detector = make(contamination=contamination).fit(heavy())
        pairs = pairwise(detector.calibration_scores_)
        assert detector.offset_ in [a + 0.5 * (b - a) for a, b in pairs]


# --- who draws the line ---------------------------------------------------------------


def test_the_training_rows_may_draw_the_line():
    X = normals(70)
    detector = make(contamination=0.1, calibration="train").fit(X)
    assert (detector.predict(X) == -1).sum() == 7
    scores = np.sort(detector.score_samples(X))
    np.testing.assert_array_equal(detector.calibration_scores_, scores)


def test_a_split_holds_rows_out_for_good():
    X, detector = normals(50), make(calibration="split", validation_fraction=0.3)
    detector.fit(X)
    scores, known = detector.score_samples(X), detector.calibration_scores_
    held_out = np.isin(scores, known)
    assert held_out.sum() == len(known) == 15
    np.testing.assert_array_equal(np.sort(scores[held_out]), known)
    again = clone(detector.estimator_).fit(X[~held_out])
    for found, expected in zip(again.coefs_, detector.estimator_.coefs_, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_folds_are_held_out_in_turn():
    X = normals(30)
    detector = make(variational(), n_folds=3).fit(X)
    known = detector.calibration_scores_
    assert len(known) == 30
    # The final model has seen all rows; those that drew the line had not.
    again = clone(detector.estimator_).fit(X)
    np.testing.assert_array_equal(again.score_samples(X), detector.score_samples(X))
    assert not np.isin(known, detector.score_samples(X)).any()


class Recording(DenoisingAutoencoder):
    """Remembers how many rows each fit was given."""

    def fit(self, X, y=None, sample_weight=None):
        FITTED_TO.append(len(X))
        return super().fit(X, y, sample_weight)


FITTED_TO = []


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"n_folds": 5}, [9, 9, 10, 10, 10, 12]),
        ({"n_folds": 3, "calibration": "cross"}, [8, 8, 8, 12]),
        ({"n_folds": 100}, [11] * 12 + [12]),
        ({"calibration": "split", "validation_fraction": 0.5}, [6]),
        ({"calibration": "split", "validation_fraction": 1e-6}, [11]),
        ({"calibration": "split", "validation_fraction": 0.999}, [1]),
        ({"calibration": "train"}, [12]),
        ({"calibration": "train", "trimming": 0.25}, [6, 6, 9]),
    ],
    ids=str,
)
def test_how_many_rows_are_fitted_to(params, expected):
    FITTED_TO.clear()
    make(Recording(1, **BRIEF), **params).fit(normals(12))
    assert expected == FITTED_TO


@pytest.mark.parametrize(("n", "n_known"), [(39, 39), (40, 8)])
def test_many_rows_are_split(n, n_known, monkeypatch):
    monkeypatch.setattr("skae.estimators.outlier.MANY_ROWS", 40)
    X = np.repeat(normals(n), 2, axis=0)  # rows that are equal count once
    detector = make().fit(X)
    assert len(detector.calibration_scores_) == n_known
    np.testing.assert_array_equal(detector.calibration_weight_, np.full(n_known, 2.0))


def test_only_rows_that_were_held_out_are_honest():
    estimator = brief(11, hidden_layer_sizes=(30,), **OVERFITS)
    score, rates = "reconstruction_error", {"train": [], "split": [], "cross": []}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X, new = rng.standard_normal((40, 12)), rng.standard_normal((300, 12))
        for calibration, found in rates.items():
            detector = make(estimator, anomaly_score=score, calibration=calibration)
            detector.set_params(contamination=0.1, n_folds=3, random_state=seed).fit(X)
            found.append(np.mean(detector.predict(new) == -1))
    assert np.mean(rates["train"]) > 0.9
    assert 0.01 < np.mean(rates["split"]) < 0.2
    assert 0.05 < np.mean(rates["cross"]) < 0.2


# --- p-values -------------------------------------------------------------------------


def test_p_values_follow_their_formula():
    X, weight = heavy(), np.random.default_rng(0).integers(1, 4, 60)
    detector = make().fit(X, sample_weight=weight)
    scores, known = detector.score_samples(X), detector.calibration_scores_
    weight = detector.calibration_weight_
    below = np.array([weight[known <= score].sum() for score in scores])
    expected = (1 + below) / (1 + weight.sum())
    np.testing.assert_allclose(detector.p_values(X), expected, rtol=1e-14)


LEVELS = np.array([0.05, 0.1, 0.2, 0.5])


def rates_of_small_p(p):
    return (p[:, None] <= LEVELS + 1e-12).mean(axis=0)


def test_p_values_are_valid_for_any_number_of_rows_and_any_model():
    rates = []
    for seed in range(100):
        X = heavy(64, 2, seed)
        detector = make(calibration="split", validation_fraction=19 / 24)
        detector.set_params(random_state=seed).fit(X[:24])
        assert len(detector.calibration_scores_) == 19
        rates.append(rates_of_small_p(detector.p_values(X[24:])))
    for level, rate in zip(LEVELS, np.transpose(rates), strict=True):
        assert_at_most(rate, level)
        # With nineteen rows each of these levels is a multiple of 1 / 20.
        assert_at_most(-rate, -level)


def test_p_values_of_ties_are_valid():
    rates = []
    for seed in range(60):
        X = np.random.default_rng(seed).poisson([2.0, 0.5], (80, 2)).astype(float)
        detector = make(brief(distribution="poisson"), calibration="split")
        detector.set_params(validation_fraction=0.5, random_state=seed).fit(X[:40])
        rates.append(rates_of_small_p(detector.p_values(X[40:])))
    for level, rate in zip(LEVELS, np.transpose(rates), strict=True):
        assert_at_most(rate, level)
    assert np.mean(rates, axis=0)[-1] > 0.1


def test_p_values_of_given_rows_with_ties_are_valid():
    X = np.random.default_rng(0).poisson([2.0, 0.5], (6000, 2)).astype(float)
    detector = make(brief(distribution="poisson")).fit(X[:100])
    rates = []
    for rows in np.split(X[100:], 100):
        detector.set_threshold(rows[:19], fpr=0.1)
        rates.append(rates_of_small_p(detector.p_values(rows[19:])))
    for level, rate in zip(LEVELS, np.transpose(rates), strict=True):
        assert_at_most(rate, level)
    assert np.mean(rates, axis=0)[-1] > 0.3


def test_benjamini_and_hochberg_keep_the_rate_of_false_discoveries():
    detector, rng = make().fit(normals(100)), np.random.default_rng(0)
    false, found = [], []
    for seed in range(100):
        rows = normals(140, seed=1000 + seed)
        rows[130:] += rng.choice([-1, 1], (10, 3)) * [4.0, 40.0, 400.0]
        detector.set_threshold(rows[:100], fpr=0.1)
        p = detector.p_values(rows[100:])
        discovered = stats.false_discovery_control(p) <= 0.2
        false.append(discovered[:30].sum() / max(1, discovered.sum()))
        found.append(discovered[30:].mean())
    assert_at_most(false, 0.2)
    assert np.mean(false) > 0.05
    assert np.mean(found) > 0.5


# --- moving the line ------------------------------------------------------------------


@pytest.mark.parametrize("fpr", [0.025, 0.1, 0.3])
def test_few_normal_rows_are_beyond_a_line_that_was_set(fpr):
    detector, rates = make(calibration="train").fit(heavy()), []
    fresh = detector.score_samples(heavy(4000, seed=1))
    for seed in range(120):
        detector.set_threshold(heavy(39, seed=100 + seed), fpr=fpr)
        rates.append(np.mean(fresh < detector.offset_))
    assert_at_most(rates, fpr)
    assert_at_most(-np.array(rates), -(fpr - 1 / 40))


def test_given_rows_replace_those_that_were_held_out():
    detector, new = make().fit(heavy()), heavy(39, seed=1)
    before = detector.score_samples(heavy())
    assert detector.set_threshold(new, fpr=0.1) is detector
    scores = np.sort(detector.score_samples(new))
    np.testing.assert_array_equal(detector.calibration_scores_, scores)
    np.testing.assert_array_equal(detector.calibration_weight_, np.ones(39))
    # A tenth of forty are four: one of them is the new row.
    assert detector.offset_ == scores[2] + 0.5 * (scores[3] - scores[2])
    np.testing.assert_array_equal(detector.score_samples(heavy()), before)


def test_the_rows_held_out_may_set_the_line():
    detector = make(contamination=0.3).fit(heavy(59))
    known = detector.calibration_scores_
    detector.set_threshold(fpr=0.05)
    np.testing.assert_array_equal(detector.calibration_scores_, known)
    assert detector.offset_ == known[1] + 0.5 * (known[2] - known[1])


def test_weights_of_given_rows_count_like_rows():
    new, weight = heavy(20, seed=1), np.random.default_rng(0).integers(0, 4, 20)
    one, other = (make().fit(heavy()) for _ in range(2))
    one.set_threshold(new, fpr=0.1, sample_weight=weight)
    other.set_threshold(np.repeat(new, weight, axis=0), fpr=0.1)
    assert one.offset_ == other.offset_
    np.testing.assert_array_equal(one.p_values(new), other.p_values(new))


@pytest.mark.parametrize(
    ("fpr", "n"), [(0.1, 9), (0.02, 49), (1 / 49, 48), (0.3, 3), (0.5, 1), (0.07, 14)]
)
def test_a_small_rate_takes_many_rows(fpr, n):
    detector = make().fit(heavy())
    detector.set_threshold(heavy(n, seed=1), fpr=fpr)
    assert detector.offset_ < detector.calibration_scores_[0]
    before = state(detector)
    if n > 1:
        few = heavy(n - 1, seed=1)
        match = rf"fpr={fpr} needs at least {n} calibration rows, but there are {n - 1}"
        with pytest.raises(ValueError, match=match):
            detector.set_threshold(few, fpr=fpr)
    assert state(detector) == before


@pytest.mark.parametrize("fpr", [0, 1, -0.1, 1.5, np.nan, True])
def test_what_is_no_rate(fpr):
    detector = make().fit(heavy())
    with pytest.raises(ValueError, match=f"fpr={fpr} must be a rate between 0 and 1"):
        detector.set_threshold(fpr=fpr)


def test_errors_leave_the_line_where_it_is():
    detector = make().fit(heavy())
    before, bad = state(detector), heavy(39, seed=1)
    with pytest.raises(ValueError, match="sample_weight is of rows X, which were not"):
        detector.set_threshold(fpr=0.1, sample_weight=np.ones(60))
    with pytest.raises(ValueError, match="features"):
        detector.set_threshold(bad[:, :2], fpr=0.1)
    with pytest.raises(ValueError, match="sample_weight"):
        detector.set_threshold(bad, fpr=0.1, sample_weight=np.ones(3))
    bad[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        detector.set_threshold(bad, fpr=0.1)
    assert state(detector) == before


# --- weights, order and batches -------------------------------------------------------


@ways
@pytest.mark.parametrize("trimming", [0.0, 0.2])
def test_a_row_of_weight_two_is_a_row_given_twice(calibration, trimming):
    X, weight = heavy(40), np.random.default_rng(0).integers(0, 4, 40)
    detector = make(calibration=calibration, trimming=trimming, n_exemplars=20)
    one = clone(detector).fit(X, sample_weight=weight)
    other = clone(detector).fit(np.repeat(X, weight, axis=0))
    assert_same(one, other, X)
    plain = clone(detector).fit(X)
    assert plain.offset_ != one.offset_


def test_weights_reach_the_autoencoder():
    X, weight = heavy(40), np.random.default_rng(0).integers(1, 4, 40)
    detector = make(calibration="train").fit(X, sample_weight=weight)
    again = clone(detector.estimator_).fit(X, sample_weight=weight)
    for found, expected in zip(again.coefs_, detector.estimator_.coefs_, strict=True):
        np.testing.assert_array_equal(found, expected)


@ways
def test_a_row_of_weight_zero_is_absent(calibration):
    X, weight = heavy(40), np.ones(40)
    weight[::3], X[::3] = 0.0, 1e6
    detector = make(calibration=calibration)
    one = clone(detector).fit(X, sample_weight=weight)
    assert_same(one, clone(detector).fit(X[weight > 0]), heavy(9, seed=1))


@ways
@pytest.mark.parametrize("kind", [brief, variational])
def test_shuffled_rows_give_the_same_detector(calibration, kind):
    X = heavy(40)
    detector = make(kind(), calibration=calibration, trimming=0.1, n_exemplars=20)
    order = np.random.default_rng(0).permutation(40)
    one, other = clone(detector).fit(X), clone(detector).fit(X[order])
    assert_same(one, other, X)


@pytest.mark.parametrize("kind", [brief, variational])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batches_move_no_row_across_the_line(kind, dtype, monkeypatch):
    X = heavy(60, 7).astype(dtype)
    detector = make(kind(), calibration="train", contamination=0.3).fit(X)
    scores, labels = detector.score_samples(X), detector.predict(X)
    assert (labels == -1).sum() == 18
    alone = [detector.score_samples(X[[i]])[0] for i in range(60)]
    np.testing.assert_array_equal(alone, scores)
    monkeypatch.setattr("skae.estimators._held_out.ROWS_AT_ONCE", 7)
    np.testing.assert_array_equal(detector.score_samples(X), scores)
    np.testing.assert_array_equal(detector.predict(X[::-1]), labels[::-1])
    assert_same(detector, clone(detector).fit(X), X)


# --- reasons --------------------------------------------------------------------------

SCORED = [
    (brief(), "log_likelihood"),
    (brief(), "reconstruction_log_prob"),
    (brief(distribution="laplace"), {"reconstruction_error": 1, "log_likelihood": 3}),
    (brief(distribution="huber"), "reconstruction_error"),
    (variational(), "log_likelihood"),
    (variational(), "kl"),
    (variational(), {"kl": 0.5, "reconstruction_log_prob": 2}),
]
every_score = pytest.mark.parametrize(("estimator", "score"), SCORED)


@every_score
def test_contributions_sum_to_the_score(estimator, score):
    detector = make(estimator, anomaly_score=score).fit(normals())
    new = normals(40, seed=1)
    new[:10, 1] += 1e4  # so far away that it no longer counts in full
    found = detector.explain(new).contributions
    assert found.shape == (40, 3)
    scores = detector.score_samples(new)
    np.testing.assert_allclose(found.sum(axis=1), scores, rtol=1e-12)
    if "kl" not in score:
        assert (found.argmin(axis=1)[:10] == 1).all()


@ways
def test_typical_contributions_are_medians_of_held_out_rows(calibration):
    X = normals(45)
    detector = make(calibration=calibration).fit(X)
    rows = X
    if calibration == "split":
        rows = X[np.isin(detector.score_samples(X), detector.calibration_scores_)]
    found = detector.explain(rows).contributions
    expected = np.quantile(found, 0.5, axis=0, method="inverted_cdf")
    if calibration == "cross":  # other models have seen these rows
        assert np.abs(detector.typical_contributions_ - expected).max() < 0.5
    else:
        np.testing.assert_array_equal(detector.typical_contributions_, expected)


@pytest.mark.parametrize("kind", [brief, variational])
def test_standard_scores_by_hand(kind):
    X, new = normals(45), normals(20, seed=1)
    detector = make(kind(), calibration="train").fit(X)
    spread = np.sqrt(np.square(X - detector.explain(X).expected_values).mean(axis=0))
    found = detector.explain(new)
    expected = (new - found.expected_values) / spread
    np.testing.assert_allclose(found.standard_scores, expected, rtol=1e-10)


def test_a_random_code_expects_what_it_reconstructs():
    X, new = normals(45), normals(20, seed=1)
    detector = make(variational()).fit(X)
    model = detector.estimator_
    expected = model.inverse_transform(model.transform(new))
    np.testing.assert_array_equal(detector.explain(new).expected_values, expected)


def test_other_codes_expect_rows_that_they_reconstruct_alike():
    group, size = np.repeat([-1.0, 1.0], 30)[:, None], np.array([1, 10, 100])
    X = group * size * np.random.default_rng(0).uniform(0.9, 1.1, (60, 3))
    detector = make(brief(max_iter=20, batch_size="auto")).fit(X)
    found = detector.explain(X * [1.0, 1.05, 1.0]).expected_values
    np.testing.assert_allclose(found / size, group * np.ones(3), atol=0.1)


def test_the_spread_of_held_out_rows_is_one_standard_score():
    X = normals(45)
    weight = np.arange(1.0, 46.0)
    detector = make(calibration="split").fit(X, sample_weight=weight)
    held_out = np.isin(detector.score_samples(X), detector.calibration_scores_)
    found = detector.explain(X[held_out]).standard_scores
    square = np.average(np.square(found), axis=0, weights=weight[held_out])
    np.testing.assert_allclose(square, 1.0, rtol=1e-12)


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame])
def test_reasons_for_a_data_frame_are_data_frames(kind):
    X, names = normals(), ["a", "b", "c"]
    detector = make().fit(kind(dict(zip(names, X.T, strict=True))))
    new = kind(dict(zip(names, X[:5].T, strict=True)))
    if kind is pd.DataFrame:
        new.index = [7, 3, 5, 1, 9]
    expected = make().fit(X).explain(X[:5])
    for name, found in detector.explain(new).items():
        assert isinstance(found, kind)
        assert list(found.columns) == names
        np.testing.assert_array_equal(found.to_numpy(), expected[name])
        if kind is pd.DataFrame:
            assert list(found.index) == [7, 3, 5, 1, 9]


def test_reasons_for_names_that_are_no_strings():
    detector = make().fit(pd.DataFrame(normals()))
    found = detector.explain(pd.DataFrame(normals(5))).contributions
    assert list(found.columns) == [0, 1, 2]


# --- values that no training row has come near to -------------------------------------


@pytest.mark.parametrize("kind", [brief, variational])
@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
def test_a_small_change_of_a_constant_column_is_no_reason(kind, distribution):
    X = normals()
    X[:, 1] = 7.0
    detector = make(kind(distribution=distribution)).fit(X)
    new, shifted = normals(seed=1), normals(seed=1)
    new[:, 1], shifted[:, 1] = 7.0, 7.0 + 1e-4
    change = detector.score_samples(shifted) - detector.score_samples(new)
    assert 0 < np.abs(change).max() < 1.0


@pytest.mark.parametrize("kind", [brief, variational])
@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
def test_a_column_that_hardly_varies_does_not_outweigh_everything(kind, distribution):
    X = normals()
    X[:, 1] = 7.0 + 1e-9 * np.random.default_rng(0).standard_normal(60)
    detector = make(kind(distribution=distribution)).fit(X)
    new, shifted = normals(seed=1), normals(seed=1)
    new[:, 1], shifted[:, 1] = 7.0, 7.0 + 1e-4
    deficit = detector.score_samples(new) - detector.score_samples(shifted)
    assert 100 < deficit.min() <= deficit.max() < 10_000
    assert (detector.explain(shifted).contributions.argmin(axis=1) == 1).all()


@pytest.mark.parametrize("kind", [brief, variational])
@pytest.mark.parametrize("distribution", ["gaussian", "laplace", "student_t"])
@pytest.mark.parametrize("d", [4, 7])
def test_huge_values_are_outliers_and_nothing_else(kind, distribution, d):
    X = np.random.default_rng(0).standard_normal((60, d))
    detector = make(kind(distribution=distribution)).fit(X)
    sizes = [1e6, 1e20, 1e50, 1e100, 1e150, 1e200, 1e300]
    far = np.zeros((2 * len(sizes), d))
    far[:, 1] = [*sizes, *np.negative(sizes)]
    scores, found = detector.score_samples(far), detector.explain(far)
    assert np.isfinite(scores).all()
    assert (detector.predict(far) == -1).all()
    assert scores.max() < detector.calibration_scores_[0]
    for part in found.values():
        assert np.isfinite(part).all()
    # Beyond, squares are too large for numbers.
    blamed = found.contributions.argmin(axis=1)[np.abs(far[:, 1]) < 1e151]
    assert (blamed == 1).all()
    for i in range(len(sizes) - 1):
        assert scores[i + 1] <= scores[i] + 1e-6 * abs(scores[i])


@pytest.mark.parametrize("score", ["reconstruction_error", "reconstruction_log_prob"])
@pytest.mark.parametrize("kind", [brief, variational])
def test_huge_values_are_reconstructed_badly(kind, score):
    detector = make(kind(), anomaly_score=score).fit(normals())
    far = normals(5, seed=1)
    far[:, 1] = [1e6, 1e20, 1e100, 1e200, 1e300]
    assert np.isfinite(detector.score_samples(far)).all()
    assert (detector.predict(far) == -1).all()


def test_a_score_of_weight_zero_does_not_count():
    X = normals()
    one = make(anomaly_score={"log_likelihood": 1, "reconstruction_error": 0}).fit(X)
    far = normals(5, seed=1)
    far[:, 1] = [1e6, 1e20, 1e100, 1e200, 1e300]
    assert_same(one, make().fit(X), far)


@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
def test_a_huge_value_among_the_held_out_rows_is_no_trouble(distribution):
    X = normals()
    known = make(brief(distribution=distribution), calibration="split").fit(X)
    scores = known.score_samples(X)
    X[np.flatnonzero(scores == known.calibration_scores_[-1])[0], 1] = 1e200
    for seed in range(20):
        detector = make(brief(distribution=distribution), calibration="split")
        try:
            detector.set_params(random_state=seed).fit(X)
        except ValueError:  # the model was to be fitted to the huge value
            continue
        assert np.isfinite(detector.offset_)
        assert np.isfinite(detector.explain(X).standard_scores).all()
        break
    else:
        pytest.fail("The huge value was never held out.")


# --- trimming -------------------------------------------------------------------------


def contaminated(n, n_outliers, rng):
    """Return normal rows, and outliers on both sides of them, along one direction."""
    size = rng.choice([-1, 1], (n_outliers, 1)) * rng.uniform(4, 9, (n_outliers, 1))
    outliers = rng.standard_normal((n_outliers, 6))
    outliers[:, :3] += size / np.sqrt(3)
    return rng.standard_normal((n, 6)), outliers


@pytest.mark.parametrize("seed", range(3))
def test_trimming_leaves_outliers_out(seed):
    rng = np.random.default_rng(seed)
    X = np.concatenate(contaminated(80, 20, rng))
    new, truth = np.concatenate(contaminated(300, 300, rng)), np.repeat([1, 0], 300)
    areas, scores = [], []
    for trimming in (0.0, 0.3):
        estimator = variational(max_iter=10, learning_rate_init=0.02, batch_size="auto")
        detector = make(estimator, trimming=trimming).fit(X)
        assert detector.n_trimmed_ == 100 * trimming
        assert len(detector.calibration_scores_) == 100
        scores.append(detector.score_samples(new))
        areas.append(roc_auc_score(truth, scores[-1]))
    assert areas[1] > areas[0] + 0.02
    assert areas[1] > 0.97
    # What was left out is no longer known.
    lost = np.median(scores[0][300:]) - np.median(scores[1][300:])
    assert lost > 3


def test_trimming_counts_weights_like_rows():
    X = normals(20)
    X[7] += [30.0, -300.0, 3000.0]
    weight = np.ones(20)
    detector = make(trimming=0.2, calibration="train")
    assert clone(detector).fit(X).n_trimmed_ == 4
    weight[7] = 10.0  # more than a fifth of all weight, and the lowest of all scores
    assert clone(detector).fit(X, sample_weight=weight).n_trimmed_ == 0
    weight[7] = 2.0
    assert clone(detector).fit(X, sample_weight=weight).n_trimmed_ == 3
    assert clone(detector).fit(X, sample_weight=np.full(20, 3.0)).n_trimmed_ == 4


def test_a_trimmed_row_is_not_fitted_to():
    X = normals(40)
    X[7] += [30.0, -300.0, 3000.0]
    detector = make(trimming=1 / 40, calibration="train").fit(X)
    assert detector.n_trimmed_ == 1
    again = clone(detector.estimator_).fit(np.delete(X, 7, axis=0))
    for found, expected in zip(again.coefs_, detector.estimator_.coefs_, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n", [3, 4])
def test_after_trimming_of_very_few_rows_nothing_may_be_left(n):
    X = np.array([[0.0, 1.0], [5.0, 1.5], [9.0, 0.5], [30.0, 7.0]])[:n]
    detector = make(trimming=0.5, calibration="cross")
    messages = []
    for seed in range(12):
        try:
            clone(detector).set_params(random_state=seed).fit(X)
        except ValueError as error:
            messages.append(str(error))
    assert messages
    for message in messages:
        assert "trimming=0.5" in message
        assert "no row to train on" in message


# --- what may be given ----------------------------------------------------------------

AUTOENCODERS = {
    "default": None,
    "denoising": brief(2, hidden_layer_sizes=(4,), tied_weights=True),
    "mixed": brief(distribution=[("laplace", [0, 2]), ("student_t", [1])]),
    "not standardized": brief(standardize=False),
    "early stopping": brief(
        early_stopping=True, n_iter_no_change=2, tol=10.0, max_iter=20
    ),
    "sparse": SparseAutoencoder(8, **BRIEF),
    "sparse, batch top-k": SparseAutoencoder(8, penalty="batchtopk", k=3, **BRIEF),
    "stacked": StackedAutoencoder(
        2, hidden_layer_sizes=(4,), pretraining_max_iter=1, **BRIEF
    ),
    "variational": variational(hidden_layer_sizes=(4,)),
    "seeded": brief(random_state=7),
}


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_every_unsupervised_autoencoder_will_do(name):
    estimator, X = AUTOENCODERS[name], normals()
    before = repr(estimator)
    detector = AutoencoderOutlierDetector(estimator, random_state=0)
    if name == "default":  # which is not as brief as the others
        X = X[:30]
        detector.set_params(calibration="train")
    detector.fit(X)
    far = X[:1] + np.array([0, 1000, 0])
    assert detector.predict(far) == -1
    assert np.mean(detector.predict(X) == 1) > 0.8
    # It is cloned, and none of it changes.
    assert detector.estimator is estimator
    assert repr(estimator) == before
    if estimator is not None:
        assert vars(estimator) == vars(clone(estimator))
        assert type(detector.estimator_) is type(estimator)
        expected = {"seeded": 7}.get(name, detector.estimator_.random_state)
        assert detector.estimator_.random_state == expected


@pytest.mark.parametrize(
    "kind", [StackedAutoencoderClassifier, StackedAutoencoderRegressor]
)
def test_supervised_autoencoders_are_refused(kind):
    detector = make(kind(2, **BRIEF))
    with pytest.raises((TypeError, ValueError), match=f"estimator.*{kind.__name__}"):
        detector.fit(normals())
    assert not hasattr(detector, "n_features_in_")


@pytest.mark.parametrize("estimator", [PCA(2), DenoisingAutoencoder, "denoising"])
def test_others_are_refused(estimator):
    detector = make(estimator)
    with pytest.raises(ValueError, match="'estimator' parameter of AutoencoderOutl"):
        detector.fit(normals())


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"contamination": 0.0}, "'contamination' parameter"),
        ({"contamination": 0.6}, "'contamination' parameter"),
        ({"contamination": "many"}, "'contamination' parameter"),
        ({"calibration": "holdout"}, "'calibration' parameter"),
        ({"n_folds": 1}, "'n_folds' parameter"),
        ({"validation_fraction": 0.0}, "'validation_fraction' parameter"),
        ({"validation_fraction": 1.0}, "'validation_fraction' parameter"),
        ({"trimming": 0.6}, "'trimming' parameter"),
        ({"trimming": -0.1}, "'trimming' parameter"),
        ({"effective_features": 0.0}, "'effective_features' parameter"),
        ({"n_exemplars": 0}, "'n_exemplars' parameter"),
        ({"anomaly_score": None}, "'anomaly_score' parameter"),
        ({"anomaly_score": "elbo"}, "anomaly_score='elbo' names 'elbo'; scores are"),
        ({"anomaly_score": {}}, "must give one or more of 'kl', 'log_likelihood'"),
        ({"anomaly_score": "kl"}, "'kl' needs a code that is random"),
        (
            {
                "estimator": brief(distribution="huber"),
                "anomaly_score": "reconstruction_log_prob",
            },
            "anomaly_score='reconstruction_log_prob' needs a likelihood, but 'huber'",
        ),
        ({"estimator": brief(distribution="poisson")}, "Negative values in data"),
        ({"estimator": brief(0)}, "'n_components' parameter of DenoisingAutoencoder"),
    ],
    ids=str,
)
def test_wrong_parameters_leave_nothing_behind(params, match):
    X = normals() - 5.0
    detector = make().fit(X)
    detector.set_params(**params)
    before = state(detector)
    with pytest.raises(ValueError, match=match):
        detector.fit(X[:, :2])
    assert state(detector) == before


def test_wrong_rows_leave_nothing_behind():
    detector, X = make(), normals()
    fresh = state(detector)
    bad = X.copy()
    bad[3, 1] = np.nan
    for wrong, match in [
        (bad, "Input X contains NaN"),
        (np.where(np.isnan(bad), np.inf, bad), "Input X contains infinity"),
        (X[:0], "0 sample"),
        (X[:, :0], "0 feature"),
        (X[0], "Expected 2D array"),
        (X[:1], "calibration='auto' holds out rows, which takes at least 2"),
        (np.ones((9, 3)), "calibration='auto' holds out rows, which takes at least 2"),
    ]:
        with pytest.raises(ValueError, match=match):
            detector.fit(wrong)
        assert state(detector) == fresh
    for weight in (np.ones(3), -np.ones(60), np.zeros(60)):
        with pytest.raises(ValueError, match=r"sample_weight|[Ss]ample weights"):
            detector.fit(X, sample_weight=weight)
        assert state(detector) == fresh
    with pytest.raises(ValueError, match=r"trimming=0\.1 holds out rows"):
        make(calibration="train", trimming=0.1).fit(X[:1])


METHODS = ["score_samples", "decision_function", "predict", "p_values", "explain"]


@pytest.mark.parametrize("method", [*METHODS, "score", "set_threshold"])
def test_wrong_rows_of_a_fitted_detector(method):
    X, detector = normals(), make()
    extra = {"fpr": 0.1} if method == "set_threshold" else {}
    with pytest.raises(NotFittedError):
        getattr(detector, method)(X, **extra)
    call = getattr(detector.fit(X), method)
    with pytest.raises(ValueError, match="X has 2 features, but AutoencoderOutlier"):
        call(X[:, :2], **extra)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        call(np.full((1, 3), np.nan), **extra)


def test_values_outside_the_support_are_refused_when_scored():
    X = np.random.default_rng(0).poisson(3.0, (60, 2)).astype(float)
    detector = make(brief(distribution="poisson")).fit(X)
    with pytest.raises(ValueError, match="Negative values in data: column 1 holds -1"):
        detector.predict([[2.0, -1.0]])


def test_one_row_will_do_if_nothing_is_held_out():
    detector = make(calibration="train").fit(normals(1))
    assert detector.predict(normals(1)) == 1
    assert len(detector.calibration_scores_) == 1


def test_two_rows_will_do():
    for calibration in ("cross", "split"):
        detector = make(calibration=calibration).fit(normals(2))
        assert np.isfinite(detector.score_samples(normals(2))).all()


@pytest.mark.parametrize("kind", [brief, variational])
@ways
def test_sparse_rows_are_the_same_rows(kind, calibration):
    X = np.random.default_rng(0).poisson(0.7, (60, 6)) * normals(60, 6)
    detector = make(kind(), calibration=calibration, trimming=0.1)
    one, other = clone(detector).fit(X), clone(detector).fit(sparse.csr_matrix(X))
    assert one.offset_ == other.offset_
    for method in METHODS[:-1]:
        expected = getattr(one, method)(X)
        np.testing.assert_array_equal(
            getattr(other, method)(sparse.csc_array(X)), expected
        )
    ours, theirs = one.explain(X), other.explain(sparse.csr_array(X))
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("kind", [brief, variational])
def test_single_precision_is_nearly_as_good(kind):
    X = normals()
    one, other = make(kind()).fit(X), make(kind()).fit(X.astype(np.float32))
    assert other.estimator_.coefs_[0].dtype == np.float32
    found = other.score_samples(X.astype(np.float32))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, one.score_samples(X), atol=0.05)
    assert other.offset_ == pytest.approx(one.offset_, abs=0.05)


# --- in company -----------------------------------------------------------------------


def test_feature_names():
    X = pd.DataFrame(normals(), columns=["a", "b", "c"])
    distribution = [("gaussian", ["c", "a"]), ("laplace", ["b"])]
    detector = make(brief(distribution=distribution), trimming=0.1).fit(X)
    assert list(detector.feature_names_in_) == ["a", "b", "c"]
    assert list(detector.estimator_.feature_names_in_) == ["a", "b", "c"]
    assert detector.estimator_.distribution_ == distribution
    with pytest.raises(ValueError, match="feature names should match"):
        detector.predict(X[["b", "a", "c"]])
    with pytest.warns(UserWarning, match="valid feature names"):
        found = detector.score_samples(X.to_numpy())
    np.testing.assert_array_equal(found, detector.score_samples(X))
    detector.set_params(estimator=brief()).fit(X.to_numpy())
    assert not hasattr(detector, "feature_names_in_")


def test_in_a_pipeline():
    X = normals()
    pipeline = make_pipeline(StandardScaler(), make(brief(standardize=False)))
    labels = pipeline.fit_predict(X)
    rows = StandardScaler().fit_transform(X)
    alone = make(brief(standardize=False)).fit(rows)
    np.testing.assert_array_equal(labels, alone.predict(rows))
    np.testing.assert_array_equal(
        pipeline.decision_function(X), alone.decision_function(rows)
    )


def test_a_search_needs_no_scorer():
    X = normals(40, 6)
    grid = {"estimator__n_components": [1, 3], "effective_features": [0.01, 6.0]}
    search = GridSearchCV(make(calibration="train"), grid, cv=2).fit(X)
    found = search.cv_results_["mean_test_score"]
    assert np.isfinite(found).all()
    assert len(np.unique(found)) == 4
    assert search.best_params_["effective_features"] == 6.0
    assert search.score(X) == pytest.approx(search.score_samples(X).mean())


def test_clones_are_unfitted_and_the_same():
    detector = make(brief(2), contamination=0.1, anomaly_score={"kl": 1.0}, n_jobs=1)
    assert repr(clone(detector)) == repr(detector)
    fitted = make().fit(normals())
    assert not hasattr(clone(fitted), "offset_")
    assert_same(clone(fitted).fit(normals()), fitted, normals(9, seed=1))


@pytest.mark.parametrize("way", ["pickle", "joblib"])
def test_a_kept_detector_is_the_same(way, tmp_path):
    detector = make(trimming=0.1).fit(normals())
    if way == "pickle":
        kept = pickle.loads(pickle.dumps(detector))
    else:
        joblib.dump(detector, tmp_path / "detector")
        kept = joblib.load(tmp_path / "detector")
    assert repr(kept) == repr(detector)
    assert_same(kept, detector, normals(9, seed=1))
    for each in (kept, detector):
        each.set_threshold(fpr=0.1)
    assert_same(kept, detector, normals(9, seed=1))


def test_jobs_change_nothing():
    X = normals(40)
    detector = make(brief(2), trimming=0.1, n_folds=3)
    alone = clone(detector).fit(X)
    with joblib.parallel_config("threading"):
        together = clone(detector).set_params(n_jobs=2).fit(X)
    assert_same(together, alone, X)


@pytest.mark.parametrize("kind", [brief, variational])
def test_an_integer_makes_results_reproducible(kind):
    X, detector = normals(), make(kind(), trimming=0.1, n_exemplars=20)
    known = np.random.mtrand._rand
    before = known.get_state()[1:3]
    one, same, other = (
        clone(detector).set_params(random_state=seed).fit(X) for seed in (3, 3, 4)
    )
    after = known.get_state()[1:3]
    np.testing.assert_array_equal(before[0], after[0])
    assert before[1] == after[1]
    assert_same(one, same, X)
    assert one.offset_ != other.offset_
    assert one.estimator_.random_state != other.estimator_.random_state
    known = np.random.RandomState(3)
    first, second = (make(kind(), random_state=known).fit(X) for _ in range(2))
    assert first.offset_ != second.offset_


def test_a_seed_of_the_estimator_stays():
    X = normals()
    for n_exemplars in (20, 60):
        detector = make(brief(random_state=7), calibration="train")
        detector.set_params(n_exemplars=n_exemplars)
        one, other = (
            clone(detector).set_params(random_state=seed).fit(X) for seed in (0, 1)
        )
        np.testing.assert_array_equal(
            one.estimator_.transform(X), other.estimator_.transform(X)
        )
        # Other rows may stand for all.
        same = np.array_equal(one.score_samples(X), other.score_samples(X))
        assert same == (n_exemplars == 60)


def test_more_effective_features_see_finer_details():
    X = normals(60, 6)
    scores = [
        make(effective_features=n, calibration="train").fit(X).score_samples(X).std()
        for n in (1.0, 6.0, 36.0)
    ]
    assert scores[0] < scores[1] < scores[2]
    # A random code has a likelihood of its own.
    one, other = (make(variational(), effective_features=n).fit(X) for n in (1.0, 36.0))
    assert_same(one, other, X)


def test_exemplars_are_limited():
    X = normals()
    few, some, every, more = (
        make(n_exemplars=n, calibration="train").fit(X).score_samples(X)
        for n in (1, 20, 60, 1000)
    )
    np.testing.assert_array_equal(every, more)
    assert (some != every).all()
    assert len({tuple(each) for each in (few, some, every)}) == 3


def test_another_unit_shifts_scores_and_moves_no_row():
    X, factor = heavy(), np.array([1e-3, 1.0, 1e5])
    one, other = make().fit(X), make().fit(X * factor)
    expected = one.score_samples(X) - np.log(factor).sum()
    np.testing.assert_allclose(other.score_samples(X * factor), expected, rtol=1e-7)
    np.testing.assert_array_equal(other.predict(X * factor), one.predict(X))


# --- rows that are often the same -----------------------------------------------------


def test_the_commonest_row_is_no_outlier_among_few_exemplars():
    """A third of the rows are one and the same row, and exemplars are drawn."""
    rng, flagged = np.random.default_rng(0), []
    for seed in range(10):
        X = np.zeros((300, 3))
        X[:200] = 3 + rng.gamma(4.0, size=(200, 3))
        detector = AutoencoderOutlierDetector(
            DenoisingAutoencoder(2, **BRIEF), n_exemplars=50, random_state=seed
        ).fit(X)
        flagged.append(detector.predict(X[-1:])[0] == -1)
    assert not any(flagged)


def test_trimming_leaves_rows_that_are_held_out_for_good_alone():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3))
    settings = {"calibration": "split", "validation_fraction": 0.5, "random_state": 0}
    detector = AutoencoderOutlierDetector(
        DenoisingAutoencoder(2, **BRIEF), trimming=0.2, **settings
    ).fit(X)
    assert len(detector.calibration_scores_) == 30
    assert detector.n_trimmed_ == 6


@pytest.mark.parametrize("value", [1e-4, 1e6, 1e300])
def test_standard_scores_of_a_constant_column_are_measured_by_its_value(value):
    X = np.c_[np.random.default_rng(0).standard_normal((60, 3)), np.ones(60)]
    detector = AutoencoderOutlierDetector(
        DenoisingAutoencoder(2, **BRIEF), calibration="train", random_state=0
    ).fit(X)
    row = X[:1].copy()
    row[0, -1] += value
    found = detector.explain(row).standard_scores[0, -1]
    np.testing.assert_allclose(found, value / 0.05, rtol=1e-6)
