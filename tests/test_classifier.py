import re

import numpy as np
import pytest
from scipy import special
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import LogisticRegression

from skae import StackedAutoencoder, StackedAutoencoderClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

#: Steps on all rows at once, without pretraining.
WHOLE = {"pretraining_max_iter": 0, "batch_size": 10**6, "corruption_level": 0}
#: A head trained until rounding stops it.
EXACT = {"solver": "lbfgs", "corruption_level": 0, "max_iter": 5000, "tol": 1e-9}


@pytest.fixture(scope="module")
def X():
    return np.unique(load_iris().data, axis=0)


@pytest.fixture(scope="module")
def y():
    _, first = np.unique(load_iris().data, axis=0, return_index=True)
    return load_iris().target[first]


@pytest.fixture
def held_out(monkeypatch):
    """Return the rows that the next fits hold out, and those they train on."""
    seen, split = {}, StackedAutoencoderClassifier._hold_out

    def spy(self, *args):
        seen["train"], seen["valid"] = split(self, *args)
        return seen["train"], seen["valid"]

    monkeypatch.setattr(StackedAutoencoderClassifier, "_hold_out", spy)
    return seen


@pytest.fixture(scope="module")
def noisy(y):
    """Labels of which some are wrong, so that no network finds all."""
    wrong = np.arange(len(y)) % 3 == 0
    return np.where(wrong, np.random.default_rng(0).permutation(y), y)


def make(n_components=3, **params):
    settings = {"hidden_layer_sizes": (5,), "pretraining_max_iter": 3}
    settings |= {"max_iter": 5, "random_state": 0}
    return StackedAutoencoderClassifier(n_components, **settings | params)


def logistic(X, y, C=np.inf, **params):
    return LogisticRegression(C=C, tol=1e-10, max_iter=10**5).fit(X, y, **params)


def standardized(X):
    return (X - X.mean(axis=0)) / X.std(axis=0)


# --- truths from outside --------------------------------------------------------------


@pytest.mark.parametrize("positive", [None, 1])
@pytest.mark.parametrize("sizes", [(), (4,)])
def test_a_linear_network_is_logistic_regression(sizes, positive, X, noisy):
    y = noisy if positive is None else noisy == positive
    params = {"activation": "identity", "alpha": 0, "pretraining_max_iter": 0}
    model = make(4, hidden_layer_sizes=sizes, **params, **EXACT).fit(X, y)
    Z = standardized(X)
    expected = logistic(Z, y).predict_proba(Z)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-5)


def test_one_code_unit_is_reduced_rank_regression(X, noisy):
    params = {"activation": "identity", "alpha": 0, "pretraining_max_iter": 0}
    model = make(1, hidden_layer_sizes=(), **params, **EXACT).fit(X, noisy)
    eta = model.decision_function(X)
    assert np.linalg.matrix_rank(eta - eta.mean(axis=0), tol=1e-8) == 1
    Z = standardized(X)
    full = logistic(Z, noisy).predict_log_proba(Z)[np.arange(len(X)), noisy].mean()
    assert -model.loss_ < full


@pytest.mark.parametrize("positive", [None, 1])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_frozen_encoder_carries_logistic_regression(weighted, positive, X, noisy):
    y = noisy if positive is None else noisy == positive
    weight, alpha = np.linspace(0.1, 2, len(X)) if weighted else np.ones(len(X)), 0.01
    model = make(freeze_encoder=True, alpha=alpha, **EXACT)
    codes = model.fit(X, y, sample_weight=weight).transform(X)
    truth = logistic(codes, y, 1 / (alpha * weight.sum()), sample_weight=weight)
    expected = truth.predict_proba(codes)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-5)
    coef = truth.coef_.T if positive is None else truth.coef_.reshape(-1, 1)
    np.testing.assert_allclose(model.head_coef_, coef, atol=1e-4)


def test_only_labelled_rows_teach(X, noisy):
    hidden = np.arange(len(X)) % 2 > 0
    y, alpha = np.where(hidden, -1, noisy), 0.01
    model = make(freeze_encoder=True, alpha=alpha, unlabeled=-1, **EXACT).fit(X, y)
    codes, n = model.transform(X), np.count_nonzero(~hidden)
    truth = logistic(codes[~hidden], y[~hidden], 1 / (alpha * n))
    expected = truth.predict_proba(codes)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-5)
    params = {"hidden_layer_sizes": (5,), "pretraining_max_iter": 3, "alpha": alpha}
    params |= {"code_activation": "tanh", "fine_tune": False, "random_state": 0}
    stack = StackedAutoencoder(3, **params, **EXACT).fit(X)
    np.testing.assert_allclose(stack.transform(X), codes, rtol=1e-9)


# --- predictions ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_predictions_agree(n_classes, dtype, X, y):
    data, labels = X.astype(dtype), np.minimum(y, n_classes - 1)
    model = make(max_iter=30, learning_rate_init=0.01).fit(data, labels)
    eta, proba = model.decision_function(data), model.predict_proba(data)
    assert eta.shape == ((len(X),) if n_classes == 2 else (len(X), 3))
    assert proba.shape == (len(X), n_classes)
    assert eta.dtype == proba.dtype == model.predict_log_proba(data).dtype == dtype
    rtol = 10 * np.finfo(dtype).eps
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=rtol)
    np.testing.assert_allclose(
        np.exp(model.predict_log_proba(data)), proba, rtol=10 * rtol
    )
    np.testing.assert_array_equal(model.predict(data), proba.argmax(axis=1))
    if n_classes == 2:
        np.testing.assert_allclose(special.expit(eta), proba[:, 1], rtol=rtol)
        np.testing.assert_array_equal(model.predict(data), eta > 0)
    else:
        np.testing.assert_allclose(special.softmax(eta, axis=1), proba, rtol=rtol)
    assert model.score(data, labels) == np.mean(model.predict(data) == labels)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e5, 1e100, 1e300])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_log_probabilities_are_exact_for_extreme_outputs(n_classes, scale, X, y):
    labels = np.minimum(y, n_classes - 1)
    model = make(activation="identity", max_iter=30).fit(X, labels)
    far = X[:20] * scale
    eta, log_proba = model.decision_function(far), model.predict_log_proba(far)
    if n_classes == 2:
        eta = np.column_stack([np.zeros(20), eta])
    expected = eta - eta.max(axis=1, keepdims=True)
    np.testing.assert_allclose(log_proba, expected, rtol=1e-12)
    assert np.isfinite(log_proba).all()
    assert set(model.predict_proba(far).ravel()) == {0.0, 1.0}


@pytest.mark.parametrize(
    "classes",
    [
        ["b", "a", "c"],
        ["long name", "x", "z"],
        [-5, 7, 0],
        [2.0, -1.0, 300.0],
        [False, True, True],
        np.array([3, 1, 2], np.int8),
        np.array(["q", "p", "r"], object),
    ],
    ids=str,
)
def test_classes_can_be_anything(classes, X, y):
    plain = make(max_iter=60, learning_rate_init=0.01)
    labels = np.array(classes)[y]
    model = clone(plain).fit(X, labels)
    np.testing.assert_array_equal(model.classes_, np.unique(labels))
    assert model.classes_.dtype == labels.dtype
    assert model.predict(X).dtype == labels.dtype
    best = model.predict_proba(X).argmax(axis=1)
    np.testing.assert_array_equal(model.predict(X), model.classes_[best])
    assert model.score(X, labels) > 0.8
    place = np.unique(labels, return_inverse=True)[1]
    same = clone(plain).fit(X, place).predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(X), same)


def test_labels_can_be_a_list_or_a_series(X, y):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    expected = make().fit(X, y).predict_proba(X)
    for labels in (y.tolist(), pandas.Series(y, index=np.arange(149) + 5)):
        found = make().fit(X, labels).predict_proba(X)
        np.testing.assert_array_equal(found, expected)


def test_a_column_of_labels_is_flattened_with_a_warning(X, y):
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
        model = make().fit(X, y[:, None])
    np.testing.assert_array_equal(model.predict(X), make().fit(X, y).predict(X))


def test_it_is_a_classifier(X, y):
    assert is_classifier(make())
    assert make().fit(X, y).n_targets_ == 3
    model = make().fit(X, y > 0)
    assert model.n_targets_ == 1
    assert model.head_coef_.shape == (3, 1)
    assert model.head_intercept_.shape == (1,)


# --- rows without a label -------------------------------------------------------------


@pytest.mark.parametrize("unlabeled", [-1, -1.0, np.int64(-1), "?"])
def test_the_value_of_rows_without_a_label(unlabeled, X, y):
    hidden = np.arange(len(y)) % 2 > 0
    if isinstance(unlabeled, str):
        given, names = np.where(hidden, "?", y.astype(str)), ["0", "1", "2"]
    else:
        given, names = np.where(hidden, unlabeled, y), [0, 1, 2]
    model = make(unlabeled=unlabeled).fit(X, given)
    assert list(model.classes_) == names
    expected = make(unlabeled=-1).fit(X, np.where(hidden, -1, y)).predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(X), expected)


def test_minus_one_is_a_class_unless_it_is_said_not_to_be(X, y):
    labels = np.where(np.arange(len(y)) % 2, -1, y)
    assert list(make().fit(X, labels).classes_) == [-1, 0, 1, 2]


def test_unlabelled_rows_may_be_absent(X, y):
    model, same = make(unlabeled=-1).fit(X, y), make().fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), same.predict_proba(X))


@pytest.mark.parametrize(
    ("unlabeled", "turn"),
    [
        (-1, lambda y: y.astype(str)),
        (-1, lambda y: y.astype(str).astype(object)),
        ("-1", lambda y: y),
        ("?", lambda y: y.astype(float)),
        (np.nan, lambda y: y.astype(float)),
        (np.nan, lambda y: y),
        (True, lambda y: y),
    ],
    ids=["str", "objects", "int", "float", "NaN", "NaN of int", "True"],
)
def test_a_value_that_labels_cannot_have(unlabeled, turn, X, y):
    with pytest.raises(ValueError, match=re.escape(f"unlabeled={unlabeled!r} ")):
        make(unlabeled=unlabeled).fit(X, turn(np.where(np.arange(len(y)) % 2, -1, y)))


def test_strings_may_be_mixed_with_a_number_for_rows_without_a_label(X, y):
    hidden = np.arange(len(y)) % 2 > 0
    names = np.where(hidden, -1, np.array(["a", "b", "c"], object)[y])
    model = make(unlabeled=-1).fit(X, names)
    assert list(model.classes_) == ["a", "b", "c"]
    same = make(unlabeled=-1).fit(X, np.where(hidden, -1, y))
    np.testing.assert_array_equal(model.predict_proba(X), same.predict_proba(X))


def test_a_class_without_weighty_rows_is_none(X, y):
    model = make().fit(X, y, sample_weight=(y > 0).astype(float))
    assert list(model.classes_) == [1, 2]
    assert model.predict_proba(X).shape == (len(X), 2)


def test_balance_is_that_of_labelled_rows(X, y):
    hidden = (y == 0) & (np.arange(len(y)) % 3 > 0)
    labels, counts = np.where(hidden, -1, y), np.bincount(y[~hidden])
    class_weight = dict(enumerate(counts.mean() / counts))
    model = make(unlabeled=-1, class_weight="balanced").fit(X, labels)
    same = make(unlabeled=-1, class_weight=class_weight).fit(X, labels)
    proba = same.predict_proba(X)
    np.testing.assert_allclose(model.predict_proba(X), proba, rtol=1e-9)


# --- weights of classes ---------------------------------------------------------------


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("class_weight", ["balanced", {0: 1, 1: 2.5, 2: 0.5}, {1: 3}])
def test_class_weights_are_weights(class_weight, weighted, solver, X, y):
    seen = (y > 0) | (np.arange(len(y)) % 2 > 0)
    X, y = X[seen], y[seen]
    own = np.linspace(0.5, 1.5, len(y)) if weighted else np.ones(len(y))
    if class_weight == "balanced":
        factor = (1 / np.bincount(y, weights=own))[y]
    else:
        factor = np.array([class_weight.get(c, 1.0) for c in range(3)])[y]
    # Columns are standardized by the rows' own weights, and here by none.
    params = {"standardize": False, "solver": solver} | WHOLE
    model = make(class_weight=class_weight, **params)
    model.fit(X, y, sample_weight=own if weighted else None)
    other = make(**params).fit(X, y, sample_weight=factor * own)
    np.testing.assert_allclose(
        model.predict_proba(X), other.predict_proba(X), rtol=1e-9
    )
    assert model.loss_ == pytest.approx(other.loss_, rel=1e-9)
    plain = make(**params).fit(X, y, sample_weight=own)
    assert np.abs(plain.head_intercept_ - model.head_intercept_).max() > 0.1


def test_names_of_classes_have_weights(X, y):
    names = np.array(["a", "b", "c"])[y]
    model = make(class_weight={"b": 3.0}).fit(X, names)
    same = make(class_weight={1: 3.0}).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), same.predict_proba(X))


def test_a_class_that_is_not_there_has_no_weight(X, y):
    with pytest.raises(ValueError, match="are not in class_weight"):
        make(class_weight={0: 1.0, 7: 2.0}).fit(X, y)


def test_class_weights_leave_pretraining_alone(X, y):
    plain = make().fit(X, y)
    model = make(class_weight={0: 5.0}).fit(X, y)
    assert model.loss_curve_["level 2"] == plain.loss_curve_["level 2"]
    np.testing.assert_array_equal(model.coefs_[2], plain.coefs_[2])
    assert model.loss_ != plain.loss_


def test_a_class_of_weight_zero_is_hardly_predicted(X, y):
    params = {"learning_rate_init": 0.03, "max_iter": 100}
    model = make(class_weight={0: 0.0}, **params).fit(X, y)
    assert model.predict_proba(X)[:, 0].max() < 0.02
    assert make(**params).fit(X, y).predict_proba(X)[:, 0].max() > 0.9


def test_early_stopping_ignores_a_class_of_weight_zero(X, y, held_out):
    model = make(class_weight={2: 0}, early_stopping=True).fit(X, y)
    n_labelled, n_valid = np.count_nonzero(y < 2), len(held_out["valid"])
    assert n_valid == round(0.1 * n_labelled)
    assert set(y[held_out["valid"]]) == {0, 1}
    assert model.t_ == 6 * (len(y) - n_valid) + 5 * (n_labelled - n_valid)
    assert list(model.classes_) == [0, 1, 2]


@pytest.mark.parametrize(
    "class_weight",
    [{0: -1.0}, {0: np.nan}, {0: np.inf}, dict.fromkeys(range(3), 0)],
    ids=str,
)
def test_impossible_class_weights(class_weight, X, y):
    model = make(class_weight=class_weight)
    with pytest.raises(ValueError, match=r"class_weight=.* must hold non-negative"):
        model.fit(X, y)
    assert not [name for name in vars(model) if name.endswith("_")]


def test_huge_class_weights_are_huge_weights(X, y):
    with pytest.raises(ValueError, match=r"Sample weights range from 1 to 1e\+308"):
        make(class_weight={0: 1e308, 1: 1e308}).fit(X, y)


# --- early stopping -------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.6])
def test_held_out_rows_are_stratified(fraction, X, y, held_out):
    rare = np.where(np.arange(len(y)) == 70, 9, y)
    make(early_stopping=True, validation_fraction=fraction).fit(X, rare)
    train, valid = held_out["train"], held_out["valid"]
    assert set(rare[train]) == {0, 1, 2, 9}
    assert not set(train) & set(valid)
    assert len(train) + len(valid) == len(y)
    expected = fraction * np.bincount(y)
    assert np.abs(np.bincount(rare[valid], minlength=3) - expected).max() < 2.0


def test_validation_scores_are_accuracies(X, y):
    model = make(early_stopping=True, validation_fraction=0.2).fit(X, y)
    hits = 30 * np.array(model.validation_scores_)
    np.testing.assert_allclose(hits, np.round(hits), atol=1e-9)


def test_ties_are_broken_by_the_held_out_loss(X, y, held_out):
    params = {"early_stopping": True, "max_iter": 30, "learning_rate_init": 0.1}
    params |= {"learning_rate": "constant", "n_iter_no_change": np.inf}
    model = make(validation_fraction=0.08, **params).fit(X, y)
    valid, losses = held_out["valid"], np.array(model.validation_loss_curve_)
    best = np.flatnonzero(model.validation_scores_ == np.max(model.validation_scores_))
    kept = best[losses[best].argmin()]
    assert losses.argmin() == kept != best[0]
    assert kept < 29
    log_proba = model.predict_log_proba(X[valid])[np.arange(len(valid)), y[valid]]
    assert -log_proba.mean() == pytest.approx(losses[kept], rel=1e-12)


# --- bad labels -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda y: np.where(y == 0, np.nan, y), "Input y contains NaN"),
        (lambda y: np.where(y == 0, np.inf, y), "Input y contains infinity"),
        (lambda y: y + 0.5, "Unknown label type: continuous"),
        (lambda y: np.column_stack([y, y]), "y should be a 1d array"),
        (lambda y: np.zeros_like(y), "at least two classes, but it has 1 class"),
        (lambda y: np.full(len(y), -1), "at least two classes, but it has none"),
        (lambda y: np.where(y == 0, -1, 1), "at least two classes, but it has 1 class"),
        (lambda y: y[:-1], r"inconsistent numbers of samples: \[149, 148\]"),
    ],
    ids=["NaN", "inf", "continuous", "2-D", "one", "none", "one labelled", "short"],
)
def test_bad_labels(labels, message, X, y):
    model = make(unlabeled=-1)
    with pytest.raises(ValueError, match=message):
        model.fit(X, labels(y))
    assert not [name for name in vars(model) if name.endswith("_")]


@pytest.mark.parametrize("params", [{"class_weight": "fair"}, {"unlabeled": [1]}])
def test_bad_parameters(params, X, y):
    (name,) = params
    with pytest.raises(ValueError, match=f"The '{name}' parameter"):
        make(**params).fit(X, y)


@pytest.mark.parametrize("change", [lambda y: y + 1, lambda y: y > 0, np.square])
def test_warm_start_needs_the_same_classes(change, X, y):
    model = make(warm_start=True).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match=r"had \[0, 1, 2\]. Use fit with warm_start=F"):
        model.fit(X, change(y))
    np.testing.assert_array_equal(model.classes_, [0, 1, 2])
    np.testing.assert_array_equal(model.predict_proba(X), before)
    model.set_params(warm_start=False).fit(X, change(y))
    np.testing.assert_array_equal(model.classes_, np.unique(change(y)))


# --- among scikit-learn's tools -------------------------------------------------------


def test_calibration_and_votes(X, y):
    model = make(max_iter=30, learning_rate_init=0.01)
    calibrated = CalibratedClassifierCV(model, cv=2).fit(X, y)
    assert calibrated.score(X, y) > 0.8
    voters = [("stack", model), ("linear", LogisticRegression())]
    vote = VotingClassifier(voters, voting="soft").fit(X, y)
    own = clone(model).fit(X, y).predict_proba(X)
    theirs = LogisticRegression().fit(X, y).predict_proba(X)
    np.testing.assert_allclose(vote.predict_proba(X), (own + theirs) / 2, rtol=1e-9)
