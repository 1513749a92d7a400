import numpy as np
import pytest
from sklearn.base import clone, is_regressor
from sklearn.datasets import load_iris
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.neural_network import MLPRegressor

from skae import StackedAutoencoder, StackedAutoencoderRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

#: A head trained until rounding stops it.
EXACT = {"solver": "lbfgs", "corruption_level": 0, "max_iter": 5000, "tol": 1e-13}


@pytest.fixture(scope="module")
def X():
    return np.unique(load_iris().data, axis=0)


@pytest.fixture(scope="module")
def Y(X):
    """Three targets of different size."""
    curves = [np.sin(X[:, 0]) + X[:, 2], 100 + 30 * X[:, 3] ** 2, 0.01 * X[:, 1]]
    return np.column_stack(curves)


def make(n_components=3, **params):
    settings = {"hidden_layer_sizes": (5,), "pretraining_max_iter": 3}
    settings |= {"max_iter": 5, "random_state": 0}
    return StackedAutoencoderRegressor(n_components, **settings | params)


# --- truths from outside --------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(), (4,)])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_linear_network_is_least_squares(weighted, sizes, X, Y):
    weight = np.linspace(0.1, 2, len(X)) if weighted else None
    params = {"activation": "identity", "alpha": 0, "pretraining_max_iter": 0}
    model = make(4, hidden_layer_sizes=sizes, **params, **EXACT)
    expected = LinearRegression().fit(X, Y, weight).predict(X)
    found = model.fit(X, Y, sample_weight=weight).predict(X)
    np.testing.assert_allclose((found - expected) / Y.std(axis=0), 0, atol=1e-6)


def test_one_code_unit_is_reduced_rank_regression(X, Y):
    params = {"activation": "identity", "alpha": 0, "pretraining_max_iter": 0}
    model = make(1, hidden_layer_sizes=(), **params, **EXACT).fit(X, Y)
    scaled = (Y - Y.mean(axis=0)) / Y.std(axis=0)
    fitted = LinearRegression().fit(X, scaled).predict(X)
    u, s, v = np.linalg.svd(fitted, full_matrices=False)
    expected = s[0] * np.outer(u[:, 0], v[0])
    found = (model.predict(X) - Y.mean(axis=0)) / Y.std(axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("columns", [0, slice(0, 3)], ids=str)
def test_a_frozen_encoder_carries_ridge_regression(columns, weighted, X, Y):
    y, alpha = Y[:, columns], 0.1
    weight = np.linspace(0.1, 2, len(X)) if weighted else np.ones(len(X))
    model = make(freeze_encoder=True, alpha=alpha, **EXACT)
    codes = model.fit(X, y, sample_weight=weight).transform(X)
    mean = np.average(y, axis=0, weights=weight)
    unit = np.sqrt(np.average(np.square(y - mean), axis=0, weights=weight))
    ridge = Ridge(alpha * weight.sum() / 2, solver="cholesky")
    ridge.fit(codes, (y - mean) / unit, sample_weight=weight)
    expected = ridge.predict(codes)
    np.testing.assert_allclose((model.predict(X) - mean) / unit, expected, atol=1e-6)


def test_only_rows_with_a_target_teach(X, Y):
    hidden, alpha = np.arange(len(X)) % 2 > 0, 0.1
    y = np.where(hidden, np.nan, Y[:, 0])
    model = make(freeze_encoder=True, alpha=alpha, **EXACT).fit(X, y)
    codes, seen = model.transform(X), y[~hidden]
    ridge = Ridge(alpha * len(seen) / 2, solver="cholesky")
    ridge.fit(codes[~hidden], (seen - seen.mean()) / seen.std())
    expected = seen.mean() + seen.std() * ridge.predict(codes)
    np.testing.assert_allclose(model.predict(X), expected, atol=1e-6)
    params = {"hidden_layer_sizes": (5,), "pretraining_max_iter": 3, "alpha": alpha}
    params |= {"code_activation": "tanh", "fine_tune": False, "random_state": 0}
    stack = StackedAutoencoder(3, **params, **EXACT).fit(X)
    np.testing.assert_allclose(stack.transform(X), codes, rtol=1e-9)


# --- the units of targets -------------------------------------------------------------


@pytest.mark.parametrize("scale", [3.0, 1e-100, 1e-8, 1e8, 1e100])
@pytest.mark.parametrize("shift", [0.0, -7.0])
def test_units_of_a_target_make_no_difference(shift, scale, X, Y):
    model, y = make(), Y[:, 0]
    expected = clone(model).fit(X, y).predict(X)
    other = clone(model).fit(X, scale * (y + shift))
    found = other.predict(X) / scale - shift
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_units_of_one_target_leave_the_others_alone(X, Y):
    plain = make(learning_rate_init=0.01).fit(X, Y).predict(X)
    scaled = make(learning_rate_init=0.01).fit(X, Y * [1.0, 1e6, 1.0] + [0, 0, 5.0])
    found = scaled.predict(X) / [1.0, 1e6, 1.0] - [0, 0, 5.0]
    np.testing.assert_allclose(found[:, :2], plain[:, :2], rtol=1e-8)
    np.testing.assert_allclose(found[:, 2], plain[:, 2], atol=1e-10)


@pytest.mark.parametrize("factor", [1e300, 1e-200])
def test_extreme_targets_are_an_error_that_names_them(factor, X, Y):
    with pytest.raises(ValueError, match=r"Target 0 ranges from .* Rescale the ta"):
        make().fit(X, Y[:, 0] * factor)


def test_a_warm_start_keeps_the_units(X, Y):
    model = make(warm_start=True).fit(X, Y[:, 0])
    before = model.predict(X)
    model.set_params(learning_rate_init=1e-300).fit(X, 100 * Y[:, 0] + 7)
    np.testing.assert_array_equal(model.predict(X), before)


def test_the_sign_of_a_target_makes_no_difference(X, Y):
    y, params = Y[:, 0], {"learning_rate_init": 0.01, "max_iter": 20}
    found = [make(**params).fit(X, sign * y).predict(X) for sign in (1, -1)]
    np.testing.assert_array_equal(found[0], -found[1])


@pytest.mark.parametrize("constant", [0.0, 0.1, -3e7, 1e-30])
@pytest.mark.parametrize("is_alone", [False, True])
def test_a_constant_target_is_predicted(is_alone, constant, X, Y):
    y = np.full(len(X), constant)
    y = y if is_alone else np.column_stack([Y[:, 0], y])
    found = make(max_iter=20).fit(X, y).predict(X)
    if not is_alone:
        assert r2_score(Y[:, 0], found[:, 0]) > 0.0
        found = found[:, 1]
    np.testing.assert_allclose(found, constant, rtol=1e-12, atol=1e-20)


def test_predictions_begin_at_the_mean(X, Y):
    weight = np.linspace(0.1, 2, len(X))
    model = make(max_iter=1, solver="sgd", learning_rate_init=1e-300)
    mean = np.average(Y, axis=0, weights=weight)
    found = model.fit(X, Y, sample_weight=weight).predict(X)
    np.testing.assert_allclose(found, np.broadcast_to(mean, Y.shape), rtol=1e-12)


def test_integers_are_targets(X, Y):
    y = np.round(10 * Y[:, 0]).astype(int)
    found = make().fit(X, y).predict(X)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, make().fit(X, y.astype(float)).predict(X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_types_are_those_of_rows(dtype, X, Y):
    data, target = X.astype(dtype), Y.astype(np.float32)
    assert make().fit(data, target).predict(data).dtype == dtype


# --- shapes ---------------------------------------------------------------------------


def test_predictions_have_the_shape_of_targets(X, Y):
    for y in (Y[:, 0], Y[:, :2], Y):
        model = make().fit(X, y)
        assert model.predict(X).shape == y.shape
        assert model.predict(X[:1]).shape == (1, *y.shape[1:])
        assert model.n_targets_ == (1 if y.ndim == 1 else y.shape[1])
        assert model.head_coef_.shape == (3, model.n_targets_)


def test_a_column_of_targets_is_flattened_as_by_mlp_regressor(X, Y):
    shapes = []
    for model in (make(), MLPRegressor(max_iter=5)):
        with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
            shapes.append(model.fit(X, Y[:, :1]).predict(X).shape)
    assert shapes == [(149,), (149,)]


def test_tables_of_targets(X, Y):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    expected = make().fit(X, Y).predict(X)
    frame = pandas.DataFrame(Y, index=np.arange(len(X)) + 5)
    np.testing.assert_allclose(make().fit(X, frame).predict(X), expected, rtol=1e-12)
    series, expected = frame[0], make().fit(X, Y[:, 0]).predict(X)
    np.testing.assert_allclose(make().fit(X, series).predict(X), expected, rtol=1e-12)


def test_it_is_a_regressor(X, Y):
    assert is_regressor(make())
    model = make(max_iter=30).fit(X, Y)
    weight = np.linspace(0.1, 2, len(X))
    expected = r2_score(Y, model.predict(X), sample_weight=weight)
    assert model.score(X, Y, weight) == pytest.approx(expected)


# --- rows without targets -------------------------------------------------------------


def test_unknown_rows_of_many_targets(X, Y):
    hidden = np.arange(len(X)) % 3 == 0
    y = np.where(hidden[:, None], np.nan, Y)
    model = make().fit(X, y)
    assert np.isfinite(model.predict(X)).all()
    assert model.t_ == 6 * len(X) + 5 * np.count_nonzero(~hidden)


def test_partly_unknown_targets_are_an_error_that_names_the_row(X, Y):
    y = Y.copy()
    y[[3, 20]] = np.nan
    y[17, 1] = y[30, 0] = np.nan
    with pytest.raises(ValueError, match="Row 17 of y is NaN in some targets, but not"):
        make().fit(X, y)


def test_unknown_targets_of_weight_zero(X, Y):
    weight = np.arange(len(X)) % 2.0
    y = np.where(weight > 0, np.nan, Y[:, 0])
    with pytest.raises(ValueError, match="No row with a positive weight has a target"):
        make().fit(X, y, sample_weight=weight)


# --- early stopping -------------------------------------------------------------------


@pytest.mark.parametrize("n_targets", [1, 3])
def test_validation_scores_average_over_targets(n_targets, X, Y, monkeypatch):
    split, seen = StackedAutoencoderRegressor._hold_out, []

    def spy(self, *args):
        seen[:] = split(self, *args)
        return tuple(seen)

    monkeypatch.setattr(StackedAutoencoderRegressor, "_hold_out", spy)
    y, params = Y[:, :n_targets], {"early_stopping": True, "validation_fraction": 0.3}
    y = y.ravel() if n_targets == 1 else y
    model = make(max_iter=1, **params).fit(X, y)
    train, valid = seen
    assert len(valid) == round(0.3 * len(X))
    error = np.square(model.predict(X[valid]) - y[valid]).mean(axis=0)
    expected = np.mean(1.0 - error / y[train].var(axis=0))
    assert model.validation_scores_ == pytest.approx([expected], rel=1e-9)


# --- bad targets ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (lambda y: np.where(y > 3, np.inf, y), "Input y contains infinity"),
        (lambda y: np.full(len(y), np.nan), "No row with a positive weight has"),
        (lambda y: np.full(len(y), "a"), "could not convert string to float"),
        (lambda y: y[1:], r"inconsistent numbers of samples: \[149, 148\]"),
        (lambda y: np.zeros((len(y), 2, 2)), "Found array with dim 3"),
        (lambda y: np.zeros((len(y), 0)), r"0 feature\(s\)"),
    ],
    ids=["inf", "NaN", "text", "short", "3-D", "none"],
)
def test_bad_targets(targets, message, X, Y):
    model = make()
    with pytest.raises(ValueError, match=message):
        model.fit(X, targets(Y[:, 0]))
    assert not [name for name in vars(model) if name.endswith("_")]


def test_a_cold_start_may_have_another_number_of_targets(X, Y):
    model = make().fit(X, Y[:, 0]).fit(X, Y[:, :2])
    expected = make().fit(X, Y[:, :2]).predict(X)
    np.testing.assert_array_equal(model.predict(X), expected)


@pytest.mark.parametrize(("first", "then"), [(1, 3), (3, 2), (2, 1)])
def test_warm_start_needs_as_many_targets(first, then, X, Y):
    model = make(warm_start=True).fit(X, Y[:, :first].squeeze())
    before = model.predict(X)
    message = f"y has {then} targets?, but the fit to continue from had {first}"
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y[:, :then].squeeze())
    np.testing.assert_array_equal(model.predict(X), before)
