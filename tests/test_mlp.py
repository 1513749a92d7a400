"""Fitted stacks as scikit-learn's networks."""

import copy
import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.neural_network import MLPClassifier, MLPRegressor

from skae import (
    StackedAutoencoder,
    StackedAutoencoderClassifier,
    StackedAutoencoderRegressor,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.unique(load_iris().data, axis=0)
CLASSES = load_iris().target[np.unique(load_iris().data, axis=0, return_index=True)[1]]
CURVES = np.column_stack([np.sin(X[:, 0]), 100 + 30 * X[:, 3] ** 2])

#: What is fitted, and its targets.
KINDS = {
    "binary": (StackedAutoencoderClassifier, CLASSES > 0),
    "multiclass": (StackedAutoencoderClassifier, np.array(["b", "a", "c"])[CLASSES]),
    "one target": (StackedAutoencoderRegressor, CURVES[:, 1]),
    "two targets": (StackedAutoencoderRegressor, CURVES),
    "rows": (StackedAutoencoder, None),
}
every = pytest.mark.parametrize("kind", KINDS)
classifiers = pytest.mark.parametrize("kind", ["binary", "multiclass"])


def fitted(kind, X=X, n_components=3, **params):
    settings = {"hidden_layer_sizes": (6, 5), "pretraining_max_iter": 3}
    settings |= {"max_iter": 20, "random_state": 0, "learning_rate_init": 0.01}
    cls, y = KINDS[kind]
    return cls(n_components, **settings | params).fit(X, y)


def answers(model, X):
    if isinstance(model, StackedAutoencoder):
        return model.inverse_transform(model.transform(X))
    proba = getattr(model, "predict_proba", None)
    return model.predict(X) if proba is None else proba(X)


def targets(kind):
    y = KINDS[kind][1]
    return X if y is None else y


def sizes(mlp):
    return [len(bias) for bias in mlp.intercepts_[:-1]]


# --- the same predictions -------------------------------------------------------------


@every
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"activation": "relu"},
        {"activation": "logistic"},
        {"activation": "identity"},
        {"hidden_layer_sizes": ()},
        {"hidden_layer_sizes": (), "code_activation": "identity"},
        {"hidden_layer_sizes": (6,), "code_activation": "identity"},
        {"standardize": False},
        {"tied_weights": True},
        {"n_components": 1},
        {"alpha": 0.1, "solver": "adamw"},
    ],
    ids=str,
)
def test_predictions_are_the_same(params, kind):
    model = fitted(kind, **params)
    mlp = model.to_mlp()
    found, expected = answers(mlp, X), answers(model, X)
    # Small probabilities are differences from one in scikit-learn's networks.
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)
    assert answers(mlp, X[:1]).shape == answers(model, X[:1]).shape


@every
def test_single_precision(kind):
    data = X.astype(np.float32)
    model = fitted(kind, data, alpha=0.1)
    found, expected = answers(model.to_mlp(), data), answers(model, data)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@every
def test_constant_columns(kind):
    data = np.column_stack([X, np.full(len(X), 3.0), np.zeros(len(X))])
    model = fitted(kind, data)
    mlp = model.to_mlp()
    found, expected = answers(mlp, data), answers(model, data)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    far = data + np.array([0, 0, 0, 0, 2.0, 1.0])
    np.testing.assert_allclose(answers(mlp, far), answers(model, far), rtol=1e-9)


@every
def test_sparse_rows(kind):
    model = fitted(kind)
    found = answers(model.to_mlp(), sparse.csr_matrix(X))
    np.testing.assert_allclose(found, answers(model, X), rtol=1e-10)


@classifiers
def test_classes_are_the_same(kind):
    model = fitted(kind)
    mlp = model.to_mlp()
    assert type(mlp) is MLPClassifier
    np.testing.assert_array_equal(mlp.classes_, model.classes_)
    assert mlp.classes_.dtype == model.classes_.dtype
    np.testing.assert_array_equal(mlp.predict(X), model.predict(X))
    assert mlp.score(X, targets(kind)) == model.score(X, targets(kind))


@pytest.mark.parametrize("kind", ["one target", "two targets", "rows"])
def test_numbers_come_from_a_regressor(kind):
    mlp = fitted(kind).to_mlp()
    assert type(mlp) is MLPRegressor
    assert mlp.out_activation_ == "identity"
    assert mlp.n_outputs_ == (1 if kind == "one target" else targets(kind).shape[1])


def test_a_frozen_classifier_and_one_with_a_penalty():
    for params in (
        {"freeze_encoder": True},
        {"penalty": "topk", "activation": "relu"},
        {"penalty": "gated", "activation": "relu", "hidden_layer_sizes": (20,)},
    ):
        model = fitted("multiclass", **params)
        found = model.to_mlp().predict_proba(X)
        np.testing.assert_allclose(found, model.predict_proba(X), rtol=1e-10)


# --- its shape and settings -----------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "params", "expected", "activation"),
    [
        ("multiclass", {}, [6, 5, 3], "tanh"),
        ("one target", {"activation": "relu"}, [6, 5, 3], "relu"),
        ("multiclass", {"code_activation": "identity"}, [6, 5], "tanh"),
        ("binary", {"activation": "identity"}, [], "identity"),
        ("binary", {"hidden_layer_sizes": ()}, [3], "tanh"),
        ("rows", {}, [6, 5, 5, 6], "tanh"),
        ("rows", {"code_activation": "tanh"}, [6, 5, 3, 5, 6], "tanh"),
        ("rows", {"hidden_layer_sizes": ()}, [], "identity"),
    ],
    ids=str,
)
def test_linear_layers_are_merged(kind, params, expected, activation):
    mlp = fitted(kind, **params).to_mlp()
    assert sizes(mlp) == expected == list(mlp.hidden_layer_sizes)
    assert mlp.activation == activation
    assert mlp.n_layers_ == len(expected) + 2
    assert [w.shape[0] for w in mlp.coefs_] == [4, *expected]


@every
def test_names_of_columns_are_kept(kind):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    mlp = fitted(kind, frame).to_mlp()
    assert list(mlp.feature_names_in_) == list("abcd")
    assert mlp.n_features_in_ == 4
    np.testing.assert_array_equal(mlp.predict(frame), fitted(kind).to_mlp().predict(X))
    with pytest.raises(ValueError, match="feature names should match"):
        mlp.predict(frame.rename(columns={"a": "z"}))
    assert not hasattr(fitted(kind).to_mlp(), "feature_names_in_")


# --- training goes on -----------------------------------------------------------------


@classifiers
@pytest.mark.parametrize("n_rows", [149, 10**6])
def test_a_warm_start_begins_at_these_weights(n_rows, kind):
    model, y = fitted(kind), targets(kind)
    mlp = model.to_mlp().set_params(max_iter=1, learning_rate_init=1e-12, alpha=0)
    assert mlp.loss_curve_ == []
    place = np.searchsorted(model.classes_, y)
    loss = -model.predict_log_proba(X)[np.arange(len(X)), place].mean()
    mlp.set_params(batch_size=min(n_rows, len(X))).fit(X, y)
    assert mlp.loss_curve_ == pytest.approx([loss], rel=1e-9)
    np.testing.assert_allclose(answers(mlp, X), answers(model, X), rtol=1e-6)


@pytest.mark.parametrize("kind", ["one target", "two targets", "rows"])
def test_a_warm_start_of_a_regressor_begins_at_these_weights(kind):
    model, y = fitted(kind), targets(kind)
    mlp = model.to_mlp().set_params(max_iter=1, learning_rate_init=1e-12, alpha=0)
    mlp.set_params(batch_size=len(X)).fit(X, y)
    loss = 0.5 * np.square(answers(model, X) - y).mean()
    assert mlp.loss_curve_ == pytest.approx([loss], rel=1e-9)


@every
@pytest.mark.parametrize("name", ["fit", "partial_fit"])
def test_the_stack_knows_nothing_of_what_comes_after(name, kind):
    model = fitted(kind, freeze_encoder=True) if kind != "rows" else fitted(kind)
    before, kept = copy.deepcopy(model), pickle.dumps(model)
    mlp = model.to_mlp()
    expected = answers(mlp, X)
    for _ in range(3):
        getattr(mlp, name)(X, targets(kind))
    assert np.abs(answers(mlp, X) - expected).max() > 1e-4
    assert pickle.dumps(model) == kept
    np.testing.assert_array_equal(answers(model, X), answers(before, X))


@classifiers
def test_training_goes_on_by_either_way(kind):
    y, mlp = targets(kind), fitted(kind).to_mlp()
    mlp.set_params(max_iter=30, learning_rate_init=0.03)
    other = copy.deepcopy(mlp)
    first = mlp.fit(X, y).loss_curve_[0]
    assert mlp.n_iter_ == len(mlp.loss_curve_) == 30
    assert mlp.loss_ < 0.97 * first
    for _ in range(30):
        other.partial_fit(X, y)
    assert len(other.loss_curve_) == 30
    assert other.loss_curve_[0] == pytest.approx(first, rel=0.2)
    assert other.loss_ < 0.97 * first


@every
def test_two_networks_share_nothing(kind):
    model = fitted(kind)
    one, other = model.to_mlp(), model.to_mlp()
    before = answers(other, X)
    one.coefs_[0][...] = 0.0
    one.intercepts_[-1][...] = 7.0
    np.testing.assert_array_equal(answers(other, X), before)
    np.testing.assert_allclose(answers(model, X), before, rtol=1e-10)


@every
def test_it_can_be_pickled_and_cloned(kind):
    mlp = fitted(kind).to_mlp()
    again = pickle.loads(pickle.dumps(mlp))
    np.testing.assert_array_equal(answers(again, X), answers(mlp, X))
    fresh = clone(mlp)
    assert sizes(fresh.fit(X, targets(kind))) == sizes(mlp)


# --- what it cannot -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["multiclass", "one target", "rows"])
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"activation": "elu"}, r"has one activation .* the stack has \['elu'\]"),
        ({"code_activation": "relu"}, r"the stack has \['relu', 'tanh'\]"),
        ({"code_activation": "softplus"}, r"the stack has \['softplus', 'tanh'\]"),
    ],
    ids=str,
)
def test_activations_it_does_not_have(params, message, kind):
    with pytest.raises(ValueError, match=message):
        fitted(kind, **params).to_mlp()


@pytest.mark.parametrize("kind", ["multiclass", "one target"])
@pytest.mark.parametrize("name", ["poisson", "gamma"])
def test_inputs_that_it_does_not_see(name, kind):
    model = fitted(kind, np.round(X) + 1, distribution=name)
    message = f"sees X as it is, but with distribution='{name}' the encoder sees its"
    with pytest.raises(ValueError, match=message):
        model.to_mlp()


@pytest.mark.parametrize("name", ["poisson", "bernoulli", "exponential", "gamma"])
def test_outputs_that_are_not_linear(name):
    model = fitted("rows", (X > 3) + 0.0 if name != "gamma" else X, distribution=name)
    with pytest.raises(ValueError, match="has linear outputs, but the mean of distrib"):
        model.to_mlp()


@every
def test_only_fitted_stacks_are_networks(kind):
    with pytest.raises(NotFittedError):
        KINDS[kind][0]().to_mlp()
