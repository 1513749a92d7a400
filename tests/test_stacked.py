import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import DenoisingAutoencoder, StackedAutoencoder
from skae.corruptions import CORRUPTIONS, Masking
from skae.optimizers import OPTIMIZERS

unsettled = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
pytestmark = unsettled
STAGES = ["level 1", "level 2", "fine-tuning"]


@pytest.fixture(scope="module")
def X():
    return load_iris().data


@pytest.fixture(scope="module")
def digits():
    return load_digits().data[:200]


def make(n_components=2, **settings):
    given = {"hidden_layer_sizes": 5, "max_iter": 4, "random_state": 0}
    given |= {"pretraining_max_iter": 3}
    return StackedAutoencoder(n_components, **(given | settings))


def same(first, second):
    for ours, theirs in zip(first.coefs_, second.coefs_, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(first.intercepts_, second.intercepts_, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def differ(first, second):
    return any((a != b).any() for a, b in zip(first.coefs_, second.coefs_, strict=True))


def reconstructed(stack, X):
    return stack.inverse_transform(stack.transform(X))


# --- what a denoising autoencoder is --------------------------------------------------


@pytest.mark.parametrize("hidden", [(), (6,), (7, 5)])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("batch_size", [32, 1000])
def test_without_pretraining_it_is_a_denoising_autoencoder(
    batch_size, early_stopping, tied, hidden, X
):
    settings = {"hidden_layer_sizes": hidden, "tied_weights": tied, "max_iter": 6}
    settings |= {"early_stopping": early_stopping, "batch_size": batch_size}
    settings |= {"random_state": 0, "corruption_level": 0.3}
    theirs = DenoisingAutoencoder(3, **settings, learning_rate_init=0.01).fit(X)
    for each in (0, [0] * (len(hidden) + 1)):
        ours = make(
            3, pretraining_max_iter=each, **settings, learning_rate_init=0.01
        ).fit(X)
        same(ours, theirs)
        np.testing.assert_array_equal(ours.score_samples(X), theirs.score_samples(X))
        assert ours.loss_curve_ == {"fine-tuning": theirs.loss_curve_}
        assert ours.validation_scores_ == theirs.validation_scores_
        for name in ("loss_", "best_loss_", "best_validation_score_", "n_iter_", "t_"):
            assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize("activation", ["logistic", "relu", "tanh"])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_activations_and_corruptions_are_those_of_a_denoising_autoencoder(
    corruption, activation, X
):
    settings = {"activation": activation, "code_activation": "softplus"}
    settings |= {"corruption": corruption, "corruption_level": 0.2, "random_state": 1}
    settings["learning_rate_init"] = 0.01
    theirs = DenoisingAutoencoder(2, hidden_layer_sizes=5, max_iter=3, **settings)
    ours = make(pretraining_max_iter=0, **settings | {"max_iter": 3})
    same(ours.fit(X), theirs.fit(X))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("solver", [*OPTIMIZERS, "lbfgs"])
def test_a_single_level_is_a_denoising_autoencoder(solver, tied, X):
    settings = {"solver": solver, "tied_weights": tied, "random_state": 0}
    settings["corruption_level"] = 0 if solver == "lbfgs" else 0.2
    theirs = DenoisingAutoencoder(3, max_iter=5, learning_rate_init=0.01, **settings)
    ours = StackedAutoencoder(
        3,
        hidden_layer_sizes=(),
        pretraining_max_iter=5,
        pretraining_learning_rate_init=0.01,
        fine_tune=False,
        **settings,
    )
    same(ours.fit(X), theirs.fit(X))
    assert ours.loss_curve_ == {"level 1": theirs.loss_curve_}
    for name in ("loss_", "n_iter_", "t_"):
        assert getattr(ours, name) == getattr(theirs, name)
    np.testing.assert_array_equal(ours.noise_variance_, theirs.noise_variance_)
    np.testing.assert_array_equal(ours.score_samples(X), theirs.score_samples(X))


@pytest.mark.parametrize("solver", OPTIMIZERS)
def test_partial_fit_trains_all_layers_together(solver, X):
    settings = {"hidden_layer_sizes": 5, "random_state": 0, "solver": solver}
    settings["learning_rate_init"] = 0.01
    ours = StackedAutoencoder(2, pretraining_max_iter=9, **settings)
    theirs = DenoisingAutoencoder(2, **settings)
    for start in range(0, 150, 50):
        ours.partial_fit(X[start : start + 50])
        theirs.partial_fit(X[start : start + 50])
    same(ours, theirs)
    assert ours.loss_curve_ == {"fine-tuning": theirs.loss_curve_}
    assert (ours.n_iter_, ours.t_) == (3, 150)


def test_partial_fit_goes_on_from_a_fit(X):
    stack = make().fit(X)
    curve, before = stack.loss_curve_, [w.copy() for w in stack.coefs_]
    stack.partial_fit(X)
    assert {stage: len(losses) for stage, losses in stack.loss_curve_.items()} == {
        "level 1": 3,
        "level 2": 3,
        "fine-tuning": 5,
    }
    assert stack.loss_curve_["fine-tuning"][:4] == curve["fine-tuning"]
    for now, then in zip(stack.coefs_, before, strict=True):
        assert (now != then).any()


def test_partial_fit_can_begin_where_fit_would_have_nothing_to_train(X):
    stack = make(fine_tune=False, pretraining_max_iter=0).partial_fit(X)
    assert {stage: len(losses) for stage, losses in stack.loss_curve_.items()} == {
        "fine-tuning": 1
    }
    same(stack, make().partial_fit(X))


def test_epochs_of_levels_do_not_count_in_partial_fit(X):
    stack = make(fine_tune=False).fit(X)
    assert stack.n_iter_ == 6
    assert stack.partial_fit(X).n_iter_ == 1
    assert stack.partial_fit(X).n_iter_ == 2


# --- stages ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "fine_tune", "expected"),
    [
        ([3, 2], True, [3, 2, 4]),
        ([3, 2], False, [3, 2]),
        ([0, 2], True, [0, 2, 4]),
        ([2, 0], False, [2, 0]),
        (0, True, [0, 0, 4]),
    ],
)
def test_every_stage_is_recorded(epochs, fine_tune, expected, X):
    stack = make(pretraining_max_iter=epochs, fine_tune=fine_tune).fit(X)
    found = {stage: len(losses) for stage, losses in stack.loss_curve_.items()}
    stages = zip(STAGES, expected, strict=False)
    assert list(found.items()) == [(stage, n) for stage, n in stages if n]
    assert stack.n_iter_ == (4 if fine_tune else sum(expected))
    assert stack.t_ == 150 * sum(expected)
    curve = list(stack.loss_curve_.values())[-1]
    assert stack.loss_ == curve[-1]
    assert stack.best_loss_ == (min(curve) if fine_tune else None)
    assert stack.validation_scores_ is None
    assert stack.best_validation_score_ is None


def test_early_stopping_is_of_fine_tuning_alone(X):
    stack = make(early_stopping=True, validation_fraction=0.2, max_iter=6).fit(X)
    assert [len(losses) for losses in stack.loss_curve_.values()] == [3, 3, 6]
    assert len(stack.validation_scores_) == 6
    assert stack.best_validation_score_ == max(stack.validation_scores_)
    assert stack.best_loss_ is None
    assert stack.t_ == 120 * 12


def test_pretraining_does_not_see_the_rows_held_out(X):
    assert make(early_stopping=True).fit(X).t_ == 135 * 6 + 135 * 4


def test_without_fine_tuning_nothing_is_held_out(X):
    stack = make(early_stopping=True, fine_tune=False).fit(X)
    assert stack.t_ == 150 * 6
    assert stack.validation_scores_ is None
    same(stack, make(fine_tune=False).fit(X))


def test_fine_tuning_begins_with_what_the_levels_learnt(X):
    settings = {"learning_rate_init": 1e-300, "max_iter": 1}
    tuned, levels = make(**settings).fit(X), make(fine_tune=False).fit(X)
    same(tuned, levels)
    assert differ(make().fit(X), levels)


def test_pretraining_changes_the_model(X):
    assert differ(make().fit(X), make(pretraining_max_iter=0).fit(X))


def test_fine_tuning_is_damaged_as_the_first_level_is(X, monkeypatch):
    levels = []

    def corrupt(self, x, draws, level, bounds):
        levels.append((x.shape[1], level))

    monkeypatch.setattr(Masking, "corrupt", corrupt)
    settings = {"pretraining_max_iter": 0, "batch_size": 1000, "max_iter": 2}
    make(corruption_level=[0.25, 0.5], **settings).fit(X)
    assert levels == [(4, 0.25), (4, 0.25)]


@pytest.mark.parametrize("early_stopping", [False, True])
def test_verbose_names_the_stages(early_stopping, X, capsys):
    make().fit(X)
    assert capsys.readouterr().out == ""
    stack = make(
        verbose=True,
        early_stopping=early_stopping,
        pretraining_max_iter=[2, 1],
        max_iter=2,
    ).fit(X)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    first, second = stack.loss_curve_["level 1"][0], stack.loss_curve_["level 2"][0]
    assert lines[0] == f"Level 1 of 2: Epoch 1, loss = {first:.6g} nats per row"
    assert lines[1].startswith("Level 1 of 2: Epoch 2, loss = ")
    assert lines[2] == f"Level 2 of 2: Epoch 1, loss = {second:.6g} nats per row"
    assert lines[3].startswith("Fine-tuning: Epoch 1, loss = ")
    assert ["validation" in line for line in lines] == 3 * [False] + 2 * [
        early_stopping
    ]


def test_warm_start_does_not_pretrain_again(X):
    stack = make(warm_start=True).fit(X)
    curve, before = stack.loss_curve_, stack.coefs_[0].copy()
    stack.fit(X)
    assert stack.loss_curve_["level 1"] == curve["level 1"]
    assert stack.loss_curve_["fine-tuning"][:4] == curve["fine-tuning"]
    assert [len(losses) for losses in stack.loss_curve_.values()] == [3, 3, 8]
    assert (stack.n_iter_, stack.t_) == (4, 150 * 14)
    assert stack.loss_ < curve["fine-tuning"][-1]
    cold = make().fit(X).fit(X)
    np.testing.assert_array_equal(cold.coefs_[0], before)


def test_warm_start_without_fine_tuning_pretrains_on(X):
    stack = make(warm_start=True, fine_tune=False).fit(X)
    curve = stack.loss_curve_
    stack.fit(X)
    assert stack.n_iter_ == 6
    for stage in STAGES[:2]:
        assert len(stack.loss_curve_[stage]) == 3
    assert stack.loss_curve_["level 1"][-1] < curve["level 1"][-1]
    assert stack.t_ == 150 * 12


def test_warm_start_adds_fine_tuning_to_levels(X):
    stack = make(warm_start=True, fine_tune=False).fit(X)
    stack.set_params(fine_tune=True).fit(X)
    assert [len(losses) for losses in stack.loss_curve_.values()] == [3, 3, 4]
    assert (stack.n_iter_, stack.t_) == (4, 150 * 10)


@pytest.mark.parametrize("changed", [{"hidden_layer_sizes": 4}, {"activation": "relu"}])
def test_warm_start_with_another_network(changed, X):
    stack = make(warm_start=True).fit(X)
    with pytest.raises(ValueError, match="Use fit with warm_start=False"):
        stack.set_params(**changed).fit(X)
    assert stack.transform(X).shape == (150, 2)


def test_lbfgs_pretrains_too(X):
    settings = {"solver": "lbfgs", "corruption_level": 0, "max_iter": 20}
    stack = make(pretraining_max_iter=[15, 10], **settings).fit(X)
    assert list(stack.loss_curve_) == STAGES
    for losses, most in zip(stack.loss_curve_.values(), (15, 10, 20), strict=True):
        assert len(losses) <= most
        assert all(np.diff(losses) < 0)
    same(stack, make(pretraining_max_iter=[15, 10], **settings).fit(X))


@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
def test_the_warning_of_a_short_fit_is_about_fine_tuning(X):
    with pytest.warns(ConvergenceWarning, match="stopped at max_iter=4 epochs"):
        make().fit(X)
    make(fine_tune=False).fit(X)
    make(n_iter_no_change=np.inf).fit(X)


def test_the_stages_are_drawn(X):
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    from skae.displays import LossCurveDisplay

    stack = make(early_stopping=True).fit(X)
    display = LossCurveDisplay.from_estimator(stack)
    assert list(display.lines_) == STAGES
    assert list(display.validation_lines_) == ["fine-tuning"]
    drawn = [line.get_xdata() for line in display.lines_.values()]
    np.testing.assert_array_equal(np.concatenate(drawn), np.arange(1, 11))
    pyplot.close("all")


# --- data -----------------------------------------------------------------------------


def inside(distribution, digits):
    """Turn whole numbers from 0 to 16 into data that the distribution can have."""
    if distribution == "bernoulli":
        return digits / 16
    return (digits + 0.5) / 17 if distribution == "beta" else digits


FAMILIES = {
    name: name
    for name in ("auto", "bernoulli", "beta", "heteroscedastic_gaussian", "poisson")
} | {"parts": [("poisson", slice(20)), ("gaussian", slice(20, 64))]}
every_family = pytest.mark.parametrize("family", FAMILIES)


@every_family
def test_levels_help_with_every_distribution(family, digits):
    data = inside(family, digits)
    settings = {
        "distribution": FAMILIES[family],
        "hidden_layer_sizes": 30,
        "max_iter": 2,
    }
    plain = make(8, pretraining_max_iter=0, **settings).fit(data)
    stack = make(8, pretraining_max_iter=30, **settings).fit(data)
    assert stack.loss_curve_["fine-tuning"][0] < plain.loss_curve_["fine-tuning"][0]
    assert stack.score(data) > plain.score(data)
    assert reconstructed(stack, data).shape == data.shape


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csr_array])
@every_family
def test_sparse_rows_are_dense_rows(family, container, digits):
    data = inside(family, digits)
    settings = {"distribution": FAMILIES[family], "corruption_level": 0.2}
    dense, thin = (make(**settings).fit(part) for part in (data, container(data)))
    same(dense, thin)
    assert dense.loss_curve_ == thin.loss_curve_
    np.testing.assert_array_equal(
        thin.transform(container(data)), dense.transform(data)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("penalty", [None, "topk"])
def test_the_type_of_x_is_kept(penalty, dtype, X):
    stack = make(penalty=penalty).fit(X.astype(dtype))
    for array in (*stack.coefs_, *stack.intercepts_, stack.transform(X.astype(dtype))):
        assert array.dtype == dtype
    assert reconstructed(stack, X.astype(dtype)).dtype == dtype


def test_float32_learns_what_float64_does(X):
    settings = {"batch_size": 1000, "corruption_level": 0, "solver": "sgd"}
    single, double = (make(**settings).fit(X.astype(t)) for t in (np.float32, float))
    for stage in STAGES:
        ours, theirs = single.loss_curve_[stage], double.loss_curve_[stage]
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_same_seed_same_model(corruption, X):
    settings = {"corruption": corruption, "corruption_level": 0.2}
    first, second = (make(**settings).fit(X) for _ in range(2))
    same(first, second)
    assert first.loss_curve_ == second.loss_curve_
    assert differ(first, make(random_state=1, **settings).fit(X))


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("batch_size", [32, 1000])
def test_the_order_of_the_rows_does_not_matter_to_the_last_bit(
    batch_size, early_stopping, X
):
    order = np.random.default_rng(0).permutation(len(X))
    settings = {"batch_size": batch_size, "early_stopping": early_stopping}
    settings["penalty"] = "topk"
    same(make(**settings).fit(X), make(**settings).fit(X[order]))


def test_the_global_generator_is_left_alone(X):
    before = np.random.mtrand._rand.get_state()[1:3]
    first, second = (make(random_state=None).fit(X) for _ in range(2))
    after = np.random.mtrand._rand.get_state()[1:3]
    np.testing.assert_array_equal(before[0], after[0])
    assert before[1] == after[1]
    assert differ(first, second)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("early_stopping", [False, True])
def test_weights_are_repetitions_to_the_last_bit(early_stopping, corruption, X):
    weight = np.random.default_rng(0).integers(0, 4, len(X))
    settings = {"batch_size": 1000, "corruption": corruption, "penalty": "l1"}
    settings["early_stopping"] = early_stopping
    weighted = make(**settings).fit(X, sample_weight=weight)
    repeated = make(**settings).fit(np.repeat(X, weight, axis=0))
    same(weighted, repeated)
    np.testing.assert_array_equal(weighted.score_samples(X), repeated.score_samples(X))


@pytest.mark.parametrize("batch_size", ["auto", 16, 1000])
def test_a_row_of_weight_zero_is_absent(batch_size, X):
    weight = (np.arange(len(X)) % 3 > 0).astype(float)
    spoilt = np.where(weight[:, None] > 0, X, 1e30)
    settings = {"batch_size": batch_size, "corruption": "salt_and_pepper"}
    weighted = make(**settings).fit(spoilt, sample_weight=weight)
    absent = make(**settings).fit(X[weight > 0])
    same(weighted, absent)
    assert weighted.loss_curve_ == absent.loss_curve_


@pytest.mark.parametrize("distribution", ["gaussian", "bernoulli"])
def test_only_the_proportions_of_weights_matter(distribution, X):
    data = X / 10
    weight = np.random.default_rng(0).integers(1, 4, len(X)).astype(float)
    first = make(distribution=distribution).fit(data, sample_weight=weight)
    second = make(distribution=distribution).fit(data, sample_weight=4 * weight)
    same(first, second)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_rescaling_a_column_shifts_its_score_and_changes_nothing_else(factor, X):
    scale = np.array([1.0, factor, 1.0, 1.0])
    settings = {"solver": "sgd", "learning_rate_init": 0.01}
    first, second = make(**settings).fit(X), make(**settings).fit(X * scale)
    ours, theirs = first.transform(X), second.transform(X * scale)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8)
    shift = first.score_samples(X) - second.score_samples(X * scale)
    np.testing.assert_allclose(shift, np.log(factor), rtol=1e-6)


@pytest.mark.parametrize("method", ["transform", "score_samples"])
def test_same_row_same_answer(method, X):
    stack = make().fit(X)
    every = getattr(stack, method)(X)
    for i in (0, 77, 149):
        np.testing.assert_array_equal(getattr(stack, method)(X[i : i + 1])[0], every[i])


def test_read_only_data_stay_as_they_are(X):
    data = X.copy()
    data.setflags(write=False)
    make().fit(data)
    np.testing.assert_array_equal(data, X)


def test_one_row_and_one_column():
    one = make(1, hidden_layer_sizes=2, pretraining_max_iter=50)
    np.testing.assert_allclose(reconstructed(one.fit([[3.0]]), [[3.0]]), 3.0, atol=1e-6)


# --- what goes wrong ------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("rates", "place"),
    [(1e200, "level 1 of 2"), ([0.005, 1e200], "level 2 of 2")],
)
def test_divergence_names_the_level_and_the_parameter(rates, place, solver, X):
    stack = make(
        activation="identity", pretraining_learning_rate_init=rates, solver=solver
    )
    message = rf"diverged in epoch \d of {place}: .* pretraining_learning_rate_init="
    with pytest.raises(ValueError, match=message):
        stack.fit(X)
    assert not hasattr(stack, "loss_curve_")


@pytest.mark.parametrize("fine_tune", [False, True])
@pytest.mark.parametrize("level", [1, 2])
def test_a_level_that_ends_far_off_has_diverged(level, fine_tune, X):
    rates = {1: 1e8, 2: [0.005, 1e8]}[level]
    stack = make(
        activation="identity",
        pretraining_learning_rate_init=rates,
        fine_tune=fine_tune,
    )
    message = rf"epoch 3 of level {level} of 2: the loss is \S+ nats per row, but .*"
    with pytest.raises(ValueError, match=message + "pretraining_learning_rate_init="):
        stack.fit(X)


def test_levels_need_not_fit_together_without_fine_tuning(X):
    settings = {"activation": "logistic", "alpha": 0.1, "fine_tune": False}
    settings |= {"hidden_layer_sizes": (100, 50), "pretraining_max_iter": 1}
    assert list(make(16, **settings).fit(X).loss_curve_) == [
        "level 1",
        "level 2",
        "level 3",
    ]


def test_divergence_of_fine_tuning_names_its_parameter(X):
    with pytest.raises(ValueError, match=r"epoch \d: .* reduce learning_rate_init="):
        make(learning_rate_init=1e200, activation="identity").fit(X)


@pytest.mark.parametrize(
    "bad",
    [
        {"pretraining_max_iter": [1, 2, 3]},
        {"pretraining_learning_rate_init": 1e200},
        {"corruption_level": [0.1, 1.5]},
        {"penalty": "gated"},
    ],
)
@pytest.mark.parametrize("warm_start", [False, True])
def test_a_failed_fit_leaves_the_earlier_one(warm_start, bad, X):
    stack = make(warm_start=warm_start, fine_tune=False).fit(X)
    twin = make(warm_start=warm_start, fine_tune=False).fit(X)
    before = dict(vars(stack))
    with pytest.raises(ValueError, match=next(iter(bad))):
        stack.set_params(**bad).fit(2 * X)
    changed = {name for name in before if before[name] is not vars(stack)[name]}
    assert vars(stack).keys() == before.keys()
    assert changed == set(bad)
    same(stack, twin)
    np.testing.assert_array_equal(stack.transform(X), twin.transform(X))


def test_partial_fit_is_absent_where_it_makes_no_sense():
    for settings in ({"solver": "lbfgs"}, {"early_stopping": True}):
        assert not hasattr(make(**settings), "partial_fit")


def test_ties_hold(X):
    stack = make(tied_weights=True).fit(X)
    kept = pickle.loads(pickle.dumps(stack))
    for model in (stack, kept):
        for into, back in zip(model.coefs_[:2], model.coefs_[:1:-1], strict=True):
            np.testing.assert_array_equal(into, back.T)
            assert np.shares_memory(into, back)


# --- as scikit-learn wants it ---------------------------------------------------------


def test_kept_and_cloned(X):
    stack = make(penalty="jumprelu", activation="relu").fit(X)
    kept = pickle.loads(pickle.dumps(stack))
    for method in ("transform", "score_samples"):
        ours, theirs = getattr(kept, method)(X), getattr(stack, method)(X)
        np.testing.assert_array_equal(ours, theirs)
    assert kept.loss_curve_ == stack.loss_curve_
    same(clone(stack).fit(X), stack)


@pytest.mark.parametrize("given", [[1, 2], (1, 2), np.array([1, 2])], ids=repr)
def test_parameters_are_left_as_they_are_given(given, X):
    stack = make(pretraining_max_iter=given).fit(X)
    assert stack.pretraining_max_iter is given
    assert isinstance(clone(stack).pretraining_max_iter, type(given))


def test_pandas_names():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    data, _ = load_iris(return_X_y=True, as_frame=True)
    settings = {"distribution": [("gaussian", data.columns[:2]), ("gamma", [2, 3])]}
    stack = make(**settings).set_output(transform="pandas").fit(data)
    codes = stack.transform(data)
    assert isinstance(codes, pandas.DataFrame)
    assert list(codes.columns) == ["stackedautoencoder0", "stackedautoencoder1"]
    assert list(stack.feature_names_in_) == list(data.columns)


def test_state_is_plain(X):
    def check(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for part in value:
                check(part)
        else:
            kinds = (np.ndarray, np.generic, str, int, float, type(None))
            assert isinstance(value, kinds), value

    stack = make(penalty="gated", activation="relu").fit(X).partial_fit(X)
    check({k: v for k, v in vars(stack).items() if k not in stack.get_params()})


def test_grid_search_over_stages(X):
    pipeline = make_pipeline(StandardScaler(), make())
    grid = {
        "stackedautoencoder__pretraining_max_iter": [0, [2, 1]],
        "stackedautoencoder__corruption_level": [[0.1, 0.0]],
    }
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    parts = [name for name in clone(pipeline).get_params() if "penalty__" in name]
    assert not parts


# --- scikit-learn's own network -------------------------------------------------------


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("hidden", [(), (6,), (7, 5)])
@pytest.mark.parametrize("activation", ["identity", "logistic", "relu", "tanh"])
def test_a_network_reconstructs_alike(activation, hidden, tied, standardize, X):
    settings = {"activation": activation, "tied_weights": tied}
    settings |= {"hidden_layer_sizes": hidden, "standardize": standardize}
    stack = make(3, **settings).fit(X)
    mlp = stack.to_mlp()
    assert isinstance(mlp, MLPRegressor)
    expected = reconstructed(stack, X)
    np.testing.assert_allclose(mlp.predict(X), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "distribution",
    ["heteroscedastic_gaussian", "laplace", "squared_error", [("student_t", slice(4))]],
    ids=str,
)
def test_a_network_for_every_linear_mean(distribution, X):
    stack = make(distribution=distribution).fit(X)
    expected = reconstructed(stack, X)
    np.testing.assert_allclose(stack.to_mlp().predict(X), expected, rtol=1e-9)


def test_a_network_of_a_stack_in_float32(X):
    data = X.astype(np.float32)
    stack = make().fit(data)
    expected = reconstructed(stack, data)
    np.testing.assert_allclose(stack.to_mlp().predict(data), expected, rtol=1e-5)


def test_a_network_of_one_column(X):
    stack = make(1).fit(X[:, :1])
    expected = reconstructed(stack, X[:, :1])[:, 0]
    np.testing.assert_allclose(stack.to_mlp().predict(X[:, :1]), expected, rtol=1e-9)


def test_a_network_goes_on_from_the_stack_s_weights(X):
    stack = make().fit(X)
    mlp = stack.to_mlp()
    weights = [weight.copy() for weight in stack.coefs_]
    with np.errstate(all="ignore"):
        mlp.set_params(max_iter=1, learning_rate_init=1e-12).fit(X, X)
    np.testing.assert_allclose(mlp.predict(X), reconstructed(stack, X), rtol=1e-6)
    error = np.mean(np.square(mlp.predict(X) - X))
    mlp.set_params(max_iter=50, learning_rate_init=1e-3).fit(X, X)
    assert np.mean(np.square(mlp.predict(X) - X)) < error
    for now, then in zip(stack.coefs_, weights, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_network_knows_the_columns():
    pytest.importorskip("pandas", reason="pandas is not installed")
    data, _ = load_iris(return_X_y=True, as_frame=True)
    mlp = make().fit(data).to_mlp()
    assert list(mlp.feature_names_in_) == list(data.columns)
    assert mlp.predict(data).shape == data.shape


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distribution": "poisson"}, "distribution='poisson' is not linear"),
        ({"distribution": "gamma"}, "distribution='gamma' is not linear"),
        ({"activation": "elu"}, r"one activation out of .*, but the stack has \['elu'"),
        (
            {"activation": "relu", "code_activation": "tanh"},
            r"but the stack has \['relu', 'tanh'\]",
        ),
    ],
)
def test_a_network_that_cannot_be_is_refused(settings, message, X):
    stack = make(**settings).fit(np.round(X) + 1)
    with pytest.raises(ValueError, match=message):
        stack.to_mlp()
