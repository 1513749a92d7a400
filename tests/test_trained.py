import pickle
import warnings
from itertools import pairwise

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning

from skae import DenoisingAutoencoder
from skae.distributions import DISTRIBUTIONS
from skae.optimizers import OPTIMIZERS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def X():
    return load_iris().data


@pytest.fixture(scope="module")
def digits():
    return load_digits().data


def make(n_components=2, **params):
    return DenoisingAutoencoder(
        n_components, **{"max_iter": 20, "random_state": 0} | params
    )


# --- the learning rate, and when to stop ----------------------------------------------


def rates(X, **params):
    """Return the length of each step of plain descent, relative to the first."""
    params = {"solver": "sgd", "momentum": 0.0, "batch_size": 1000} | params
    params |= {"activation": "tanh"}
    params |= {"corruption_level": 0.0, "warm_start": False, "learning_rate_init": 1e-9}
    thetas = [make(max_iter=k, **params).fit(X).intercepts_[0] for k in range(1, 6)]
    moves = [np.linalg.norm(b - a) for a, b in pairwise(thetas)]
    return np.array(moves) / np.linalg.norm(thetas[0])


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"learning_rate": "constant"}, [1, 1, 1, 1]),
        ({"learning_rate": "invscaling"}, np.arange(2, 6) ** -0.5),
        ({"learning_rate": "invscaling", "power_t": 1}, 1 / np.arange(2, 6)),
        ({"learning_rate": "adaptive", "tol": 1.0, "n_iter_no_change": 2}, None),
    ],
    ids=str,
)
def test_the_schedule_sets_the_rate(X, params, expected):
    if expected is None:  # the first epoch is progress, two without it make a stall
        expected = [1, 1, 0.2, 0.2]
    np.testing.assert_allclose(rates(X, **params), expected, rtol=1e-3)


def test_cosine_goes_on_to_its_end(X):
    assert make(learning_rate="cosine", max_iter=40, tol=1e9).fit(X).n_iter_ == 40
    early = make(learning_rate="cosine", max_iter=40, tol=1e9, early_stopping=True)
    assert early.fit(X).n_iter_ == 11


@pytest.mark.parametrize("patience", [1, 4])
def test_n_iter_no_change_is_the_patience(X, patience):
    fitted = make(
        learning_rate="constant", n_iter_no_change=patience, tol=1e9, max_iter=50
    ).fit(X)
    assert fitted.n_iter_ == 1 + patience


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_validation_fraction_is_held_out(X, fraction):
    fitted = make(early_stopping=True, validation_fraction=fraction, max_iter=1).fit(X)
    assert fitted.t_ == (1 - fraction) * len(X)


# --- the course of training -----------------------------------------------------------


def test_early_stopping_keeps_the_best_weights(digits):
    autoencoder = make(
        32,
        hidden_layer_sizes=(64,),
        early_stopping=True,
        corruption_level=0,
        max_iter=300,
        learning_rate_init=0.02,
        n_iter_no_change=5,
    ).fit(digits[:300])
    scores = autoencoder.validation_scores_
    assert autoencoder.n_iter_ == len(scores) == len(autoencoder.loss_curve_) < 300
    assert autoencoder.best_validation_score_ == max(scores) > scores[-1]
    assert autoencoder.best_loss_ is None
    shorter = clone(autoencoder)
    shorter.set_params(max_iter=int(np.argmax(scores)) + 1).fit(digits[:300])
    np.testing.assert_array_equal(autoencoder.coefs_[0], shorter.coefs_[0])


def test_without_early_stopping(X):
    autoencoder = make().fit(X)
    assert autoencoder.validation_scores_ is None
    assert autoencoder.best_validation_score_ is None
    assert autoencoder.best_loss_ == min(autoencoder.loss_curve_)
    assert autoencoder.loss_ == autoencoder.loss_curve_[-1]
    assert autoencoder.n_iter_ == len(autoencoder.loss_curve_) == 20
    assert autoencoder.t_ == 20 * len(X)


def test_warning_when_training_is_cut_short(X):
    with pytest.warns(ConvergenceWarning, match="max_iter=2 epochs") as caught:
        make(max_iter=2).fit(X)
    assert caught[0].filename == __file__


def test_warning_when_lbfgs_is_cut_short(X):
    with pytest.warns(
        ConvergenceWarning, match=r"L-BFGS stopped .* max_fun=3"
    ) as caught:
        make(solver="lbfgs", corruption="none", max_fun=3, max_iter=300).fit(X)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "params", [{"learning_rate": "cosine"}, {"n_iter_no_change": np.inf}], ids=str
)
def test_no_warning_when_a_fixed_number_of_epochs_was_asked_for(X, params):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make(max_iter=3, **params).fit(X).n_iter_ == 3


def test_no_warning_when_training_has_settled(X):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autoencoder = make(max_iter=1000, tol=0.5).fit(X)
    assert autoencoder.n_iter_ < 1000


@pytest.mark.parametrize("early_stopping", [False, True])
def test_verbose(X, capsys, early_stopping):
    make(max_iter=2).fit(X)
    assert capsys.readouterr().out == ""
    make(max_iter=2, verbose=True, early_stopping=early_stopping).fit(X)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("Epoch 1, loss = ")
    assert ("validation score" in lines[0]) == early_stopping


def test_warm_start_goes_on(X):
    autoencoder = make(warm_start=True).fit(X)
    first, theirs = list(autoencoder.loss_curve_), autoencoder.coefs_[0].copy()
    autoencoder.fit(X)
    assert autoencoder.loss_curve_[:20] == first
    assert len(autoencoder.loss_curve_) == 40
    assert autoencoder.n_iter_ == 20
    assert autoencoder.loss_ < first[-1]
    assert not np.array_equal(autoencoder.coefs_[0], theirs)
    cold = make().fit(X).fit(X)
    np.testing.assert_array_equal(cold.coefs_[0], theirs)


def test_warm_start_with_another_network(X):
    autoencoder = make(warm_start=True).fit(X)
    with pytest.raises(ValueError, match="Use fit with warm_start=False"):
        autoencoder.set_params(n_components=3).fit(X)
    assert autoencoder.transform(X).shape == (150, 2)


@pytest.mark.parametrize("solver", OPTIMIZERS)
def test_partial_fit_passes_are_epochs(X, solver):
    params = {"solver": solver, "max_iter": 4, "learning_rate_init": 0.01}
    whole, parts = make(**params).fit(X), make(**params)
    for _ in range(4):
        parts.partial_fit(X)
    np.testing.assert_allclose(parts.coefs_[0], whole.coefs_[0], rtol=1e-9)
    np.testing.assert_allclose(parts.loss_curve_, whole.loss_curve_, rtol=1e-9)
    assert (parts.n_iter_, parts.t_) == (whole.n_iter_, whole.t_)


def test_partial_fit_learns_from_chunks_of_any_size(X):
    rng, autoencoder = np.random.default_rng(0), make(learning_rate_init=0.01)
    autoencoder.partial_fit(X[:1])
    for size in rng.integers(1, 40, 200):
        autoencoder.partial_fit(X[rng.integers(0, len(X), size)])
    reference = make(max_iter=100).fit(X)
    assert autoencoder.score(X) > reference.score(X) - 1.0
    again = pickle.loads(pickle.dumps(autoencoder)).partial_fit(X)
    np.testing.assert_array_equal(again.coefs_[0], autoencoder.partial_fit(X).coefs_[0])


def test_partial_fit_moves_the_noise_towards_the_newest_rows(X):
    autoencoder = make().partial_fit(X[:100])
    earlier = autoencoder.noise_variance_
    autoencoder.partial_fit(X[100:])
    newest = X[100:] - autoencoder.inverse_transform(autoencoder.transform(X[100:]))
    share = 2 * 50 / 150
    expected = (1 - share) * earlier + share * np.square(newest).mean(axis=0)
    np.testing.assert_allclose(autoencoder.noise_variance_, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "distribution", [name for name, cls in DISTRIBUTIONS.items() if cls.has_scale]
)
def test_one_row_hardly_moves_the_scales(X, distribution):
    autoencoder = make(distribution=distribution).partial_fit(X)
    before = autoencoder._model().squared_scales
    autoencoder.partial_fit(X[:1])
    np.testing.assert_allclose(autoencoder._model().squared_scales, before, rtol=0.05)


@pytest.mark.parametrize("params", [{"solver": "lbfgs"}, {"early_stopping": True}])
def test_partial_fit_is_absent_where_it_makes_no_sense(X, params):
    assert hasattr(make(), "partial_fit")
    assert not hasattr(make(**params), "partial_fit")
    (name, value), *_ = params.items()
    message = f"partial_fit is not available with {name}={value!r}"
    with pytest.raises(AttributeError, match=message):
        make(**params).partial_fit(X)


# --- training that fails --------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {"alpha": 1.0, "hidden_layer_sizes": (100,), "activation": "logistic"},
        {"alpha": 100.0, "learning_rate_init": 1e-4},
        {"learning_rate_init": 1e-300},
        {"tied_weights": True, "activation": "logistic", "n_components": 300},
        {"batch_size": 1},
    ],
    ids=str,
)
def test_a_slow_start_is_no_divergence(X, params):
    make(**{"max_iter": 1} | params).fit(X).partial_fit(X)


@pytest.mark.parametrize("seed", range(5))
def test_heavy_tails_are_no_divergence(seed):
    rng = np.random.default_rng(seed)
    skewed = rng.negative_binomial(0.05, 0.0005, size=(600, 6)).astype(float)
    for X in (skewed, np.exp(3 * rng.standard_normal((600, 8)))):
        autoencoder = make(activation="tanh", standardize=False, max_iter=1).fit(X)
        for start in range(0, 600, 50):
            autoencoder.partial_fit(X[start : start + 50])


def test_divergence_names_the_epoch(X):
    with pytest.raises(ValueError, match=r"diverged in epoch 3: .*costs"):
        make(solver="sgd", activation="tanh", learning_rate_init=1e3, max_iter=3).fit(X)
    with pytest.raises(ValueError, match="diverged in epoch 1: "):
        make(learning_rate_init=1e300, max_iter=3).fit(X)


def test_lbfgs_that_fails_says_so(X):
    with pytest.warns(ConvergenceWarning, match="scale the data"):
        make(
            solver="lbfgs",
            corruption_level=0,
            standardize=False,
            hidden_layer_sizes=(5,),
        ).fit(X * 1e10)


def test_early_stopping_needs_a_row_to_train_on():
    with pytest.raises(ValueError, match="leaves no row to train on: n_samples=1"):
        make(early_stopping=True).fit(np.ones((5, 2)))
