"""What the classifier and the regressor on top of a stack have in common."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import (
    StackedAutoencoder,
    StackedAutoencoderClassifier,
    StackedAutoencoderRegressor,
)
from skae.training import Trainer

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

KINDS = {
    "classifier": StackedAutoencoderClassifier,
    "regressor": StackedAutoencoderRegressor,
}
SETTINGS = {
    "hidden_layer_sizes": (5,),
    "pretraining_max_iter": 3,
    "max_iter": 5,
    "alpha": 1e-4,
    "random_state": 0,
}
#: Steps on all rows at once, without chance: what is left is the objective.
WHOLE = {"pretraining_max_iter": 0, "batch_size": 10**6, "corruption_level": 0}
every = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def X():
    return np.unique(load_iris().data, axis=0)


@pytest.fixture(scope="module")
def targets():
    data, first = np.unique(load_iris().data, axis=0, return_index=True)
    return {
        "classifier": load_iris().target[first],
        "regressor": data @ [1.0, -2.0, 0.5, 3.0] + np.sin(data[:, 0]),
    }


def make(kind, n_components=3, **params):
    return KINDS[kind](n_components, **SETTINGS | params)


def pretrained(n_components=3, **params):
    """Make the stack whose levels those of the others must be."""
    params = {"code_activation": "tanh", "fine_tune": False} | params
    return StackedAutoencoder(n_components, **SETTINGS | params)


def answers(model, X):
    proba = getattr(model, "predict_proba", None)
    return model.predict(X) if proba is None else proba(X)


def without_targets(kind, y, hidden):
    """Return targets of which some are hidden, and the setting that says so."""
    if kind == "classifier":
        return np.where(hidden, -1, y), {"unlabeled": -1}
    return np.where(hidden, np.nan, y), {}


def assert_equal(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def held_out(monkeypatch):
    """Return the rows that the next fits hold out, and those they train on."""
    seen = {}
    for cls in KINDS.values():
        split = cls._hold_out

        def spy(self, *args, split=split):
            seen["train"], seen["valid"] = split(self, *args)
            return seen["train"], seen["valid"]

        monkeypatch.setattr(cls, "_hold_out", spy)
    return seen


# --- the decoder, and a frozen encoder ------------------------------------------------


@every
@pytest.mark.parametrize("tied_weights", [False, True])
@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd", "rmsprop", "lbfgs"])
def test_fine_tuning_leaves_the_decoder_alone(solver, tied_weights, kind, X, targets):
    params = {"solver": solver, "tied_weights": tied_weights, "alpha": 0.1}
    if solver == "lbfgs":
        params["corruption_level"] = 0
    model, frozen = [
        make(kind, freeze_encoder=is_frozen, **params).fit(X, targets[kind])
        for is_frozen in (False, True)
    ]
    assert_equal(model.intercepts_[2:], frozen.intercepts_[2:])
    if tied_weights:
        assert_equal(model.coefs_[2:], [w.T for w in model.coefs_[1::-1]])
    else:
        assert_equal(model.coefs_[2:], frozen.coefs_[2:])
    for ours, theirs in zip(model.coefs_[:2], frozen.coefs_[:2], strict=True):
        assert (ours != theirs).all()


@every
def test_fine_tuning_sees_the_rows_that_its_noise_leaves(kind, X, targets):
    params = {"alpha": 0.0, "fine_tuning_corruption_level": 1.0}
    blind = make(kind, **params).fit(X, targets[kind])
    # Where all entries are masked, the first layer has biases to learn only.
    assert_equal(blind.coefs_[:1], pretrained(alpha=0.0).fit(X).coefs_[:1])
    assert (blind.coefs_[1] != pretrained(alpha=0.0).fit(X).coefs_[1]).any()
    noisy = make(kind, alpha=0.0, fine_tuning_corruption_level=0.3)
    clean = make(kind, alpha=0.0).fit(X, targets[kind])
    assert (noisy.fit(X, targets[kind]).coefs_[0] != clean.coefs_[0]).all()


@every
@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd"])
def test_levels_are_pretrained_as_those_of_a_stack(solver, kind, X, targets):
    params = {"solver": solver, "alpha": 0.1, "shuffle": False}
    stack = pretrained(**params).fit(X)
    model = make(kind, **params).fit(X, targets[kind])
    assert_equal(model.coefs_[2:], stack.coefs_[2:])
    assert_equal(model.intercepts_[2:], stack.intercepts_[2:])
    for level in ("level 1", "level 2"):
        assert model.loss_curve_[level] == stack.loss_curve_[level]


@every
@pytest.mark.parametrize("penalty", ["kl", "topk", "jumprelu"])
def test_the_first_level_can_be_sparse(penalty, kind, X, targets):
    activation = "logistic" if penalty == "kl" else "relu"
    params = {"penalty": penalty, "activation": activation, "shuffle": False}
    params |= {"code_activation": activation, "hidden_layer_sizes": (20,)}
    params |= {"solver": "adamw", "alpha": 0.1}
    stack = pretrained(**params).fit(X)
    model = make(kind, **params).fit(X, targets[kind])
    assert model.loss_curve_["level 1"] == stack.loss_curve_["level 1"]
    assert_equal(model.coefs_[2:], stack.coefs_[2:])


@every
def test_a_frozen_encoder_is_the_pretrained_one(kind, X, targets):
    params = {"solver": "adamw", "alpha": 0.1, "shuffle": False}
    stack = pretrained(**params).fit(X)
    model = make(kind, freeze_encoder=True, **params).fit(X, targets[kind])
    assert_equal(model.coefs_, stack.coefs_)
    assert_equal(model.intercepts_, stack.intercepts_)
    assert model.head_coef_.any()
    codes = stack.transform(X)
    assert_equal([model.transform(X)], [codes])
    for name in ("score_samples", "reconstruction_error", "score_features"):
        assert_equal([getattr(model, name)(X)], [getattr(stack, name)(X)])
    assert_equal([model.inverse_transform(codes)], [stack.inverse_transform(codes)])
    assert_equal([model.noise_variance_], [stack.noise_variance_])


@every
@pytest.mark.parametrize(
    "name",
    [
        "inverse_transform",
        "noise_variance_",
        "reconstruction_error",
        "score_features",
        "score_samples",
    ],
)
def test_without_freezing_nothing_is_decoded(name, kind, X, targets):
    model = make(kind).fit(X, targets[kind])
    assert not hasattr(model, name)
    with pytest.raises(AttributeError, match=rf"{name} is not available: fine-tuning"):
        getattr(model, name)
    assert hasattr(make(kind, freeze_encoder=True).fit(X, targets[kind]), name)


@every
@pytest.mark.parametrize("name", ["inverse_transform", "score_samples"])
def test_freezing_afterwards_does_not_mend_the_decoder(name, kind, X, targets):
    model = make(kind, warm_start=True).fit(X, targets[kind])
    assert not hasattr(model.set_params(freeze_encoder=True), name)
    assert not hasattr(model.fit(X, targets[kind]), name)


@every
@pytest.mark.parametrize("name", ["inverse_transform", "score_samples"])
def test_a_frozen_fit_decodes_until_the_next_one(name, kind, X, targets):
    model = make(kind, freeze_encoder=True, warm_start=True).fit(X, targets[kind])
    assert hasattr(model.fit(X, targets[kind]), name)
    assert hasattr(model.set_params(freeze_encoder=False), name)
    assert not hasattr(model.fit(X, targets[kind]), name)


@every
@pytest.mark.parametrize("freeze_encoder", [False, True])
def test_there_is_no_partial_fit(freeze_encoder, kind):
    model = make(kind, freeze_encoder=freeze_encoder)
    assert not hasattr(model, "partial_fit")
    message = f"partial_fit is not available: {type(model).__name__} needs all rows"
    with pytest.raises(AttributeError, match=message):
        model.partial_fit(None)


# --- the outputs ----------------------------------------------------------------------


@every
def test_outputs_are_linear_in_the_code(kind, X, targets):
    model = make(kind).fit(X, targets[kind])
    eta = model.transform(X) @ model.head_coef_ + model.head_intercept_
    if kind == "classifier":
        ours = model.decision_function(X)
    else:
        y = targets[kind]
        ours = ((model.predict(X) - y.mean()) / y.std())[:, None]
    np.testing.assert_allclose(ours, eta, rtol=1e-10, atol=1e-13)


@every
def test_weights_on_top_are_a_view(kind, X, targets):
    model = make(kind).fit(X, targets[kind])
    model.head_coef_[...] = 0.0
    assert len(np.unique(answers(model, X), axis=0)) == 1


@every
@pytest.mark.parametrize("name", ["head_coef_", "head_intercept_", "coefs_"])
def test_an_unfitted_model_has_no_numbers(name, kind, X):
    with pytest.raises(AttributeError, match="is not fitted yet"):
        getattr(make(kind), name)
    with pytest.raises(NotFittedError):
        make(kind).predict(X)


@every
@pytest.mark.parametrize("selector", [RFE, SelectFromModel])
def test_weights_on_top_are_not_those_of_columns(selector, kind, X, targets):
    assert not hasattr(make(kind).fit(X, targets[kind]), "coef_")
    message = "should have `coef_` or `feature_importances_` attribute"
    with pytest.raises(ValueError, match=message):
        selector(make(kind)).fit(X, targets[kind]).transform(X)


# --- what the loss is -----------------------------------------------------------------


@every
@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_starts_at_that_of_the_means(weighted, alpha, kind, X, targets):
    y, weight = targets[kind], np.linspace(0.1, 2, len(X)) if weighted else None
    params = {"max_iter": 1, "alpha": alpha} | WHOLE
    model = make(kind, **params, solver="sgd", learning_rate_init=1e-300)
    model.fit(X, y, sample_weight=weight)
    if kind == "classifier":
        shares = np.bincount(y, weights=weight) / np.sum(
            len(y) if weight is None else weight
        )
        # With a pseudo-count, which keeps the outputs finite.
        expected = pytest.approx(-shares @ np.log(shares), rel=1e-3)
        penalty = 0.5 * alpha * sum(np.sum(w**2) for w in model.coefs_[:2])
        assert model.loss_ - penalty == expected
    else:
        penalty = 0.5 * alpha * sum(np.sum(w**2) for w in model.coefs_[:2])
        assert model.loss_ == pytest.approx(1.0 + penalty, rel=1e-12)


@every
@pytest.mark.parametrize("freeze_encoder", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_its_formula(weighted, freeze_encoder, kind, X, targets):
    y, alpha = targets[kind], 0.3
    weight = np.linspace(0.1, 2, len(X)) if weighted else np.ones(len(X))
    params = {"alpha": alpha, "warm_start": True, "freeze_encoder": freeze_encoder}
    model = make(kind, **params | WHOLE, solver="adam").fit(X, y, sample_weight=weight)
    if kind == "classifier":
        loss = -model.predict_log_proba(X)[np.arange(len(X)), y]
    else:
        mean = np.average(y, weights=weight)
        variance = np.average(np.square(y - mean), weights=weight)
        loss = np.square(y - model.predict(X)) / variance
    trained = (
        [model.head_coef_] if freeze_encoder else [model.head_coef_, *model.coefs_[:2]]
    )
    penalty = 0.5 * alpha * sum(np.sum(w**2) for w in trained)
    expected = np.average(loss, weights=weight) + penalty
    model.set_params(max_iter=1).fit(X, y, sample_weight=weight)
    assert model.loss_ == pytest.approx(expected, rel=1e-10)


@every
def test_decoupled_decay_is_no_part_of_the_loss(kind, X, targets):
    params = {"alpha": 0.3, "max_iter": 1, "solver": "adamw"} | WHOLE
    small = make(kind, **params).fit(X, targets[kind])
    large = make(kind, **params | {"alpha": 3.0}).fit(X, targets[kind])
    assert small.loss_ == large.loss_
    assert np.abs(large.coefs_[0]).sum() < np.abs(small.coefs_[0]).sum()


# --- rows without a target ------------------------------------------------------------


@every
def test_rows_without_a_target_serve_pretraining(kind, X, targets):
    hidden = np.arange(len(X)) % 3 > 0
    y, params = without_targets(kind, targets[kind], hidden)
    params |= {"shuffle": False, "alpha": 0.1}
    model = make(kind, **params).fit(X, y)
    stack = pretrained(shuffle=False, alpha=0.1).fit(X)
    assert_equal(model.coefs_[2:], stack.coefs_[2:])
    for level in ("level 1", "level 2"):
        assert model.loss_curve_[level] == stack.loss_curve_[level]
    few = make(kind, **params).fit(X[~hidden], y[~hidden])
    assert (few.coefs_[2] != stack.coefs_[2]).all()
    assert model.t_ == 6 * len(X) + 5 * np.count_nonzero(~hidden)


@every
def test_hidden_targets_can_be_anything(kind, X, targets):
    hidden = np.arange(len(X)) % 3 > 0
    y, params = without_targets(kind, targets[kind], hidden)
    params |= {"early_stopping": True}
    model = make(kind, **params).fit(X, y)
    again = make(kind, **params)
    if kind == "classifier":
        again.set_params(unlabeled="?").fit(X, np.where(hidden, "?", y.astype(str)))
    else:
        again.fit(X, np.where(hidden[:, None], np.nan, targets[kind][:, None])[:, 0])
    np.testing.assert_array_equal(answers(again, X), answers(model, X))


@every
def test_targets_leave_pretraining_alone(kind, X, targets):
    y, stack = targets[kind], pretrained().fit(X)
    for given in (y, np.roll(y, 40)):
        model = make(kind).fit(X, given)
        for level in ("level 1", "level 2"):
            assert model.loss_curve_[level] == stack.loss_curve_[level]


@every
def test_batches_are_in_proportion_to_the_rows_of_a_stage(kind, monkeypatch):
    sizes, epoch = [], Trainer.epoch

    def recorded(self, *args):
        sizes.append(self.batch_size)
        return epoch(self, *args)

    monkeypatch.setattr(Trainer, "epoch", recorded)
    X, hidden = np.random.default_rng(0).normal(size=(3200, 2)), np.arange(3200) % 2
    y, params = without_targets(kind, np.arange(3200) % 4 // 2, hidden > 0)
    make(kind, **params | {"pretraining_max_iter": 1, "max_iter": 1}).fit(X, y)
    assert sizes == [100, 100, 50]


# --- weights --------------------------------------------------------------------------


@every
@pytest.mark.parametrize("params", [{}, WHOLE], ids=["batches", "whole"])
def test_a_row_of_weight_zero_is_absent(params, kind, X, targets):
    y, seen = targets[kind], np.arange(len(X)) % 4 > 0
    weight = np.where(seen, 1.0, 0.0)
    model = make(kind, **params).fit(X, y, sample_weight=weight)
    fewer = make(kind, **params).fit(X[seen], y[seen])
    np.testing.assert_allclose(answers(model, X), answers(fewer, X), rtol=1e-9)


@every
def test_a_weight_is_a_number_of_repetitions(kind, X, targets):
    y, times = targets[kind], 1 + np.arange(len(X)) % 3
    model = make(kind, **WHOLE).fit(X, y, sample_weight=times)
    many = make(kind, **WHOLE).fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    np.testing.assert_array_equal(answers(many, X), answers(model, X))


@every
def test_equal_rows_with_different_targets_stay_apart(kind, X, targets):
    y = targets[kind]
    twice, both = np.vstack([X, X]), np.concatenate([y, y[::-1]])
    params = WHOLE | {"learning_rate_init": 0.03, "max_iter": 50}
    model = make(kind, **params).fit(twice, both)
    alone = make(kind, **params).fit(X, y)
    assert model.loss_ > alone.loss_ + 0.1


@every
@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan])
def test_bad_weights(weight, kind, X, targets):
    with pytest.raises(ValueError, match="weight"):
        make(kind).fit(X, targets[kind], sample_weight=np.full(len(X), weight))


# --- the same row, the same answer ----------------------------------------------------


@every
@pytest.mark.parametrize("n_components", [3, 70])
def test_a_row_s_answer_is_its_own_affair(n_components, kind, X, targets):
    model = make(kind, n_components).fit(X, targets[kind])
    expected = answers(model, X)
    for size in (1, 7, 100):
        parts = [answers(model, X[i : i + size]) for i in range(0, 28, size)]
        np.testing.assert_array_equal(np.concatenate(parts)[:28], expected[:28])
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_array_equal(answers(model, X[order]), expected[order])


@every
@pytest.mark.parametrize(
    "params", [{}, {"early_stopping": True}, {"batch_size": 200}, WHOLE], ids=str
)
def test_the_order_of_rows_does_not_matter(params, kind, X, targets):
    y = targets[kind]
    # Some rows are there twice, with another target.
    data, y = np.vstack([X, X[:50]]), np.concatenate([y, y[:-51:-1]])
    order = np.random.default_rng(0).permutation(len(data))
    one = make(kind, **params).fit(data, y)
    other = make(kind, **params).fit(data[order], y[order])
    np.testing.assert_array_equal(answers(other, X), answers(one, X))


@every
@pytest.mark.parametrize("freeze_encoder", [False, True])
def test_sparse_rows_are_the_same_rows(freeze_encoder, kind, X, targets):
    data, y = np.where(X > 2, X, 0.0), targets[kind]
    params = {"freeze_encoder": freeze_encoder, "early_stopping": True}
    model = make(kind, **params).fit(data, y)
    thin = make(kind, **params).fit(sparse.csr_matrix(data), y)
    np.testing.assert_array_equal(answers(thin, data), answers(model, data))
    rows = sparse.csr_matrix(data)
    np.testing.assert_array_equal(answers(model, rows), answers(model, data))


@every
def test_the_seed_decides(kind, X, targets):
    fits = [make(kind, random_state=s).fit(X, targets[kind]) for s in (0, 0, 1)]
    one, same, other = [answers(model, X) for model in fits]
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@every
@pytest.mark.parametrize("random_state", [None, 0])
def test_the_global_generator_is_left_alone(random_state, kind, X, targets):
    state = np.random.mtrand._rand
    before = pickle.dumps(state)
    params = {"random_state": random_state, "early_stopping": True}
    model = make(kind, **params).fit(X, targets[kind])
    answers(model, X)
    assert pickle.dumps(state) == before


@every
def test_many_threads_can_predict(kind, X, targets):
    model = make(kind).fit(X, targets[kind])
    expected = answers(model, X)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: answers(model, X), range(64)))
    for answer in found:
        np.testing.assert_array_equal(answer, expected)


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_types_stay(dtype, kind, X, targets):
    data = X.astype(dtype)
    model = make(kind).fit(data, targets[kind])
    assert answers(model, data).dtype == dtype
    assert model.transform(data).dtype == dtype
    assert model.head_coef_.dtype == dtype
    assert all(weight.dtype == dtype for weight in model.coefs_)


# --- early stopping -------------------------------------------------------------------


@every
def test_the_best_parameters_are_kept(kind, X, targets, held_out):
    y = targets[kind]
    params = {"early_stopping": True, "validation_fraction": 0.3, "max_iter": 25}
    params |= {"learning_rate_init": 0.5, "learning_rate": "constant"}
    model = make(kind, **params).fit(X, y)
    valid = held_out["valid"]
    if kind == "classifier":
        score = np.mean(model.predict(X[valid]) == y[valid])
    else:
        error = np.square(model.predict(X[valid]) - y[valid]).mean()
        score = 1 - error / y[held_out["train"]].var()
    assert score == pytest.approx(model.best_validation_score_, rel=1e-9)
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert len(model.validation_scores_) == model.n_iter_
    assert model.validation_scores_[-1] < model.best_validation_score_
    assert model.best_loss_ is None


@every
def test_held_out_rows_weigh_what_they_weigh(kind, X, targets, held_out):
    y, weight = targets[kind], np.linspace(0.1, 2, len(X))
    model = make(kind, early_stopping=True, max_iter=1)
    model.fit(X, y, sample_weight=weight)
    valid = held_out["valid"]
    if kind == "classifier":
        rating = model.predict(X[valid]) == y[valid]
    else:
        train = held_out["train"]
        mean = np.average(y[train], weights=weight[train])
        variance = np.average(np.square(y[train] - mean), weights=weight[train])
        rating = 1 - np.square(model.predict(X[valid]) - y[valid]) / variance
    score = np.average(rating, weights=weight[valid])
    assert score == pytest.approx(model.best_validation_score_, rel=1e-9)


@every
def test_held_out_rows_take_no_part_in_training(kind, X, targets, held_out):
    params = {"early_stopping": True, "max_iter": 1, "shuffle": False}
    model, y = make(kind, **params).fit(X, targets[kind]), targets[kind]
    train, valid = held_out["train"], held_out["valid"]
    assert len(valid) == 15
    np.testing.assert_array_equal(np.sort([*train, *valid]), np.arange(len(X)))
    changed = X.copy()
    changed[valid] = 100.0 - 3 * changed[valid]
    other = make(kind, **params).fit(changed, y)
    np.testing.assert_array_equal(held_out["valid"], valid)
    assert other.loss_curve_ == model.loss_curve_
    np.testing.assert_array_equal(answers(other, X), answers(model, X))
    assert model.t_ == 7 * len(train)


@every
def test_rows_without_a_target_are_not_held_out(kind, X, targets, held_out):
    hidden = np.arange(len(X)) % 3 > 0
    y, params = without_targets(kind, targets[kind], hidden)
    make(kind, early_stopping=True, validation_fraction=0.3, **params).fit(X, y)
    valid = held_out["valid"]
    assert not hidden[valid].any()
    assert len(valid) == round(0.3 * np.count_nonzero(~hidden))
    assert len(held_out["train"]) == len(X) - len(valid)


@every
def test_too_few_rows_for_early_stopping(kind, X, targets):
    few = [0, 148]
    model = make(kind, early_stopping=True, validation_fraction=0.9)
    with pytest.raises(
        ValueError, match=r"validation_fraction=0\.9 leaves too few rows .*n_samples=2 "
    ):
        model.fit(X[few], targets[kind][few])


@every
def test_early_stopping_stops(kind, X, targets):
    params = {"early_stopping": True, "max_iter": 500, "n_iter_no_change": 3}
    model = make(kind, **params, learning_rate="constant", tol=0.1)
    assert model.fit(X, targets[kind]).n_iter_ < 50


@every
def test_a_warm_fit_without_early_stopping_has_no_validation(kind, X, targets):
    model = make(kind, early_stopping=True, warm_start=True).fit(X, targets[kind])
    assert len(model.validation_loss_curve_) == len(model.validation_scores_) == 5
    assert len(model.fit(X, targets[kind]).validation_loss_curve_) == 10
    model.set_params(early_stopping=False).fit(X, targets[kind])
    assert model.validation_loss_curve_ is model.validation_scores_ is None


# --- warm start -----------------------------------------------------------------------


@every
@pytest.mark.parametrize("pretraining_max_iter", [0, 3])
def test_warm_start_goes_on(pretraining_max_iter, kind, X, targets):
    params = {"pretraining_max_iter": pretraining_max_iter, "warm_start": True}
    model = make(kind, **params, learning_rate_init=0.01).fit(X, targets[kind])
    first, decoder = model.loss_curve_, [w.copy() for w in model.coefs_[2:]]
    model.fit(X, targets[kind])
    assert_equal(model.coefs_[2:], decoder)
    stages = ["level 1", "level 2"] if pretraining_max_iter else []
    assert list(model.loss_curve_) == [*stages, "fine-tuning"]
    for stage in stages:
        assert model.loss_curve_[stage] == first[stage]
    assert model.loss_curve_["fine-tuning"][:5] == first["fine-tuning"]
    assert len(model.loss_curve_["fine-tuning"]) == 10
    assert model.n_iter_ == 5
    assert model.loss_ < first["fine-tuning"][-1]
    assert model.t_ == (2 * pretraining_max_iter + 10) * len(X)


@every
def test_a_cold_start_forgets(kind, X, targets):
    once = make(kind).fit(X, targets[kind])
    twice = make(kind).fit(X[::2], targets[kind][::2]).fit(X, targets[kind])
    np.testing.assert_array_equal(answers(twice, X), answers(once, X))
    assert twice.loss_curve_ == once.loss_curve_
    assert twice.t_ == once.t_


# --- failures -------------------------------------------------------------------------


@every
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"learning_rate_init": 1e7}, "epoch [1-5]: .*reduce learning_rate_init=10"),
        (
            {"pretraining_learning_rate_init": 1e7},
            "epoch [1-3] of level 1 of 2: .*reduce pretraining_learning_rate_init=10",
        ),
        (
            {"pretraining_learning_rate_init": [1e-3, 1e7]},
            "epoch [1-3] of level 2 of 2: .*reduce pretraining_learning_rate_init=",
        ),
    ],
    ids=["fine-tuning", "level 1", "level 2"],
)
def test_divergence_is_one_clear_error(params, message, kind, X, targets):
    model = make(kind, **params, solver="sgd", activation="relu")
    with pytest.raises(ValueError, match=f"Training diverged in {message}"):
        model.fit(X, targets[kind])
    assert not [name for name in vars(model) if name.endswith("_")]
    with pytest.raises(NotFittedError):
        model.predict(X)


@every
@pytest.mark.parametrize("freeze_encoder", [False, True])
@pytest.mark.parametrize("level", [1, 2])
def test_a_level_that_ends_far_off_has_diverged(
    level, freeze_encoder, kind, X, targets
):
    rates = {1: 1e8, 2: [0.005, 1e8]}[level]
    params = {"activation": "identity", "freeze_encoder": freeze_encoder}
    model = make(kind, pretraining_learning_rate_init=rates, **params)
    message = rf"epoch 3 of level {level} of 2: the loss is \S+ nats per row, but .*"
    with pytest.raises(ValueError, match=message + "pretraining_learning_rate_init="):
        model.fit(X, targets[kind])


@every
def test_levels_need_not_fit_together_below_a_frozen_encoder(kind, X, targets):
    params = {"activation": "logistic", "alpha": 0.1, "freeze_encoder": True}
    params |= {"hidden_layer_sizes": (100, 50), "pretraining_max_iter": 1}
    model = make(kind, 16, **params).fit(X, targets[kind])
    assert hasattr(model, "inverse_transform")


@every
@pytest.mark.parametrize(("n_epochs", "is_refused"), [(0, False), (2, True)])
def test_lbfgs_takes_noise_that_no_level_sees(
    n_epochs, is_refused, kind, X, targets, capsys
):
    params = {"solver": "lbfgs", "hidden_layer_sizes": (6, 5), "verbose": True}
    params |= {"corruption_level": [0, 0.1, 0]}
    model = make(kind, pretraining_max_iter=[2, n_epochs, 2], **params)
    if is_refused:
        with pytest.raises(ValueError, match="set corruption_level=0"):
            model.fit(X, targets[kind])
        assert capsys.readouterr().out == ""
    else:
        stages = list(model.fit(X, targets[kind]).loss_curve_)
        assert stages == ["level 1", "level 3", "fine-tuning"]


@every
@pytest.mark.parametrize("penalty", ["gated", "jumprelu"])
def test_lbfgs_refuses_penalties_without_a_gradient(penalty, kind, X, targets):
    params = {"solver": "lbfgs", "corruption_level": 0, "activation": "relu"}
    model = make(kind, penalty=penalty, **params)
    with pytest.raises(ValueError, match=f"which penalty='{penalty}' does not have"):
        model.fit(X, targets[kind])


@every
def test_a_failed_fit_leaves_the_earlier_one(kind, X, targets):
    y = targets[kind]
    model = make(kind, warm_start=True).fit(X, y)
    before, kept = answers(model, X), pickle.dumps(vars(model))
    bad = {"solver": "sgd", "learning_rate_init": 1e9, "activation": "relu"}
    good = {name: getattr(model, name) for name in bad}
    for params, rows, given in (
        (bad | {"warm_start": False}, X, y[::-1]),
        (bad | {"activation": None}, X, y),
        ({}, X * np.nan, y),
        ({}, X[:, :3], y),
        ({}, X, y[1:]),
        ({"warm_start": False}, X[:, :3], None),
        ({"n_components": 4}, X, y),
    ):
        model.set_params(**params)
        with pytest.raises(ValueError, match=r".{10}"):
            model.fit(rows, given)
        model.set_params(**good, n_components=3, warm_start=True)
        assert pickle.dumps(vars(model)) == kept
        np.testing.assert_array_equal(answers(model, X), before)


@every
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"freeze_encoder": "no"}, "'freeze_encoder'"),
        ({"pretraining_max_iter": -1}, "'pretraining_max_iter'"),
        ({"pretraining_max_iter": [1, 2, 3]}, "3 values, but there are 2 levels"),
        ({"corruption_level": [0.1, -0.1]}, "corruption_level="),
        ({"code_activation": "fog"}, "'code_activation'"),
        ({"solver": "lbfgs"}, "set corruption_level=0"),
        ({"fine_tuning_corruption_level": 2.0}, r"fine_tuning_corruption_level=2.0 is"),
        (
            {
                "solver": "lbfgs",
                "corruption_level": 0,
                "fine_tuning_corruption_level": 0.1,
            },
            "set fine_tuning_corruption_level=0",
        ),
        ({"penalty": "kl"}, "needs 'logistic' as the first layer's activation"),
    ],
    ids=str,
)
def test_bad_parameters(params, message, kind, X, targets):
    model = make(kind, **params)
    with pytest.raises(ValueError, match=message):
        model.fit(X, targets[kind])
    assert not [name for name in vars(model) if name.endswith("_")]


@every
def test_targets_are_needed(kind, X):
    with pytest.raises(ValueError, match="requires y to be passed, but the target y"):
        make(kind).fit(X, None)


@every
def test_as_many_targets_as_rows(kind, X, targets):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        make(kind).fit(X, targets[kind][1:])


@every
def test_a_fit_that_is_cut_short_warns_the_caller(kind, X, targets):
    with pytest.warns(ConvergenceWarning, match="max_iter=5 epochs") as caught:
        make(kind).fit(X, targets[kind])
    assert caught[0].filename == __file__


@every
def test_verbose_names_the_stage(kind, X, targets, capsys):
    make(kind).fit(X, targets[kind])
    assert capsys.readouterr().out == ""
    make(kind, verbose=True, max_iter=2).fit(X, targets[kind])
    starts = [line.split(", ")[0] for line in capsys.readouterr().out.splitlines()]
    levels = [f"Level {k} of 2: Epoch {i}" for k in (1, 2) for i in (1, 2, 3)]
    assert starts == [*levels, "Fine-tuning: Epoch 1", "Fine-tuning: Epoch 2"]


# --- among scikit-learn's tools -------------------------------------------------------


@every
def test_grid_search_over_pretraining(kind, X, targets):
    name = type(make(kind)).__name__.lower()
    pipeline = make_pipeline(StandardScaler(), make(kind))
    grid = {f"{name}__pretraining_max_iter": [0, 2, [1, 2]]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, targets[kind])
    assert len(np.unique(search.cv_results_["mean_test_score"])) == 3
    assert search.predict(X).shape == (len(X),)


@every
def test_cross_validation_finds_that_it_learns(kind, X, targets):
    params = {"max_iter": 30, "learning_rate_init": 0.03}
    folds = KFold(3, shuffle=True, random_state=0)
    scores = cross_val_score(make(kind, **params), X, targets[kind], cv=folds)
    assert scores.min() > 0.8


@every
def test_codes_come_as_tables(kind, X, targets):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(X, columns=list("abcd"), index=np.arange(149) + 7)
    model = make(kind).set_output(transform="pandas").fit(frame, targets[kind])
    codes = model.transform(frame)
    assert list(codes.columns) == list(model.get_feature_names_out())
    assert list(codes.index) == list(frame.index)
    assert list(model.feature_names_in_) == list("abcd")
    assert isinstance(model.predict(frame), np.ndarray)


@every
def test_fit_transform_is_fit_and_transform(kind, X, targets):
    codes = make(kind).fit_transform(X, targets[kind])
    expected = make(kind).fit(X, targets[kind]).transform(X)
    np.testing.assert_array_equal(codes, expected)


@every
def test_clones_fit_alike(kind, X, targets):
    model = make(kind, tied_weights=True, alpha=0.1).fit(X, targets[kind])
    again = clone(model)
    assert not hasattr(again, "head_coef_")
    again.fit(X, targets[kind])
    np.testing.assert_array_equal(answers(again, X), answers(model, X))


@every
@pytest.mark.parametrize(
    ("distribution", "turn"),
    [
        ("poisson", np.round),
        ("gamma", np.exp),
        ("bernoulli", lambda X: X / 10),
        ([("poisson", [0]), ("gaussian", [1, 2, 3])], np.round),
        ("auto", np.round),
        ("squared_error", np.asarray),
        ("heteroscedastic_gaussian", np.asarray),
    ],
    ids=lambda value: "" if callable(value) else str(value),
)
def test_any_distribution_can_be_pretrained(distribution, turn, kind, X, targets):
    data, y = turn(X), targets[kind]
    params = {"distribution": distribution, "warm_start": True, "alpha": 0}
    model = make(kind, **params, learning_rate_init=0.01, batch_size=10**6)
    model.fit(data, y)
    if kind == "classifier":
        loss = -model.predict_log_proba(data)[np.arange(len(y)), y].mean()
    else:
        loss = np.square(y - model.predict(data)).mean() / y.var()
    # What is trained is what predicts.
    assert model.set_params(max_iter=1).fit(data, y).loss_ == pytest.approx(loss)
