import numpy as np
import pytest
from scipy import sparse

from skae import DenoisingAutoencoder
from skae.estimators import _held_out
from skae.estimators._held_out import Held, Table, in_parts

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 1)) * [1.0, 2.0, -1.0] + RNG.standard_normal((40, 3))
EVERY = np.arange(40)


def table(data=X, **settings):
    estimator = DenoisingAutoencoder(
        1, max_iter=2, learning_rate="cosine", random_state=0
    )
    given = {
        "X": data,
        "data": data,
        "index": EVERY,
        "weight": np.ones(40),
        "estimator": estimator,
        "weights": {"log_likelihood": 1.0},
        "n_effective": 8.0,
        "n_exemplars": 1000,
        "seed": 0,
    }
    return Table(**given | settings)


def test_rows_are_shown_to_models_of_other_folds_and_stay_in_order():
    rows, fold = table(), EVERY % 3
    held = rows.cross(EVERY >= 0, EVERY >= 0, fold, None)
    for k in range(3):
        scorer = rows.fit(EVERY[fold != k])
        np.testing.assert_array_equal(held.scores[fold == k], scorer.scores(X[k::3]))


def test_rows_that_are_not_kept_are_shown_and_not_fitted_to():
    fold, kept = EVERY % 2, EVERY < 30
    held = table().cross(EVERY >= 0, kept, fold, None)
    scorer = table().fit(EVERY[kept & (fold == 1)])
    np.testing.assert_array_equal(held.scores[::2], scorer.scores(X[::2]))


def test_weights_are_those_of_the_rows():
    weight = np.arange(1.0, 41.0)
    held = table(weight=weight).cross(EVERY >= 0, EVERY >= 0, EVERY % 2, None)
    np.testing.assert_array_equal(held.weight, weight)


def test_the_estimator_that_is_given_stays_unfitted():
    rows = table()
    rows.fit(EVERY)
    assert not hasattr(rows.estimator, "coefs_")


def test_few_of_many_rows_are_described(monkeypatch):
    monkeypatch.setattr(_held_out, "DESCRIBED", 9)
    rows = table()
    held = rows.hold(rows.fit(EVERY), EVERY)
    assert len(held.scores) == 40
    assert len(held.residual) == len(held.shares) == len(held.described) == 8


@pytest.mark.parametrize("scale", [1.0, 1e200])
def test_the_spread_is_a_root_of_a_weighted_mean_square(scale):
    residual = RNG.standard_normal((5, 3)) * scale
    residual[:, 2] = 0.0
    weight = np.arange(1.0, 6.0)
    held = Held(np.empty(5), weight, np.empty((5, 3)), residual, weight)
    square = np.average(np.square(residual / scale), axis=0, weights=weight)
    np.testing.assert_allclose(held.spread, scale * np.sqrt(square), rtol=1e-12)


@pytest.mark.parametrize("data", [X, sparse.csr_array(X)])
def test_parts_are_put_together(data, monkeypatch):
    sizes = []

    def work(part):
        sizes.append(part.shape[0])
        return np.asarray(part.sum(axis=1)).ravel()

    monkeypatch.setattr(_held_out, "ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(in_parts(work, data), X.sum(axis=1))
    assert sizes == [7] * 5 + [5]


def test_wide_rows_come_in_smaller_parts(monkeypatch):
    monkeypatch.setattr(_held_out, "ENTRIES_AT_ONCE", 30)
    assert len(in_parts(lambda part: np.array([len(part)]), X)) == 4
