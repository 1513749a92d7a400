import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import optimize, sparse
from sklearn.preprocessing import StandardScaler

from skae import rows
from skae.rows import (
    MOST_ENTRIES,
    MOST_ROWS,
    Columns,
    Rows,
    arrange,
    geometric_median,
    rows_in_block,
)


@pytest.fixture
def X():
    rng = np.random.default_rng(0)
    X = rng.normal(5, [1, 20, 0.1], size=(2 * MOST_ROWS + 300, 3))
    X[:, 1:][rng.uniform(size=(len(X), 2)) < 0.3] = 0.0
    return X


@pytest.fixture
def weight(X):
    return np.random.default_rng(1).integers(0, 4, len(X)).astype(float)


def summary(X, weight=None):
    return Columns.of(Rows(X, *arrange(X, weight, merge=True)))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_columns_agree_with_standard_scaler(X, weight, weighted, container):
    weight = weight if weighted else None
    scaler = StandardScaler().fit(X, sample_weight=weight)
    columns = summary(container(X), weight)
    np.testing.assert_allclose(columns.mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(columns.unit, scaler.scale_, rtol=1e-12)
    kept = X if weight is None else X[weight > 0]
    np.testing.assert_array_equal(columns.low, kept.min(axis=0))
    np.testing.assert_array_equal(columns.high, kept.max(axis=0))


def test_weights_are_repetitions_to_the_last_bit(X, weight):
    repeated = np.repeat(X, weight.astype(int), axis=0)
    repeated = repeated[np.random.default_rng(3).permutation(len(repeated))]
    for name, value in vars(summary(X, weight)).items():
        np.testing.assert_array_equal(value, getattr(summary(repeated), name), name)


def test_merging_parts_is_seeing_all(X):
    merged = summary(X[:1])
    for part in np.array_split(X[1:], [1, 5, 700]):
        merged.merge(summary(part))
    whole = summary(X)
    assert merged.n_rows == whole.n_rows
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.variance, whole.variance, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_rows_are_merged(dtype):
    X = np.array([[1, 2], [3, 4], [1, 2], [0.0, 0], [3, 4], [1, 2], [-0.0, 0]], dtype)
    index, weight = arrange(X, merge=True)
    found = {tuple(X[i]): weight[i] for i in index}
    assert found == {(1, 2): 3, (3, 4): 2, (0, 0): 2}
    assert weight.sum() == len(X)
    given = np.array([1, 0, 2, 5, 0, 0.5, 1])
    index, weight = arrange(X, given, merge=True, keep_order=True)
    assert list(index) == sorted(index)
    assert {tuple(X[i]): weight[i] for i in index} == {(1, 2): 3.5, (0, 0): 6}


def test_different_rows_are_told_apart():
    X = np.array(np.meshgrid(*[np.arange(8.0)] * 4)).reshape(4, -1).T
    for shift in (0.0, 1e-9, 1e9, 0.1):
        index, weight = arrange(X + shift, merge=True)
        assert len(index) == len(X)
        assert weight is None


def test_equal_rows_are_kept_unless_they_are_to_be_merged():
    X, given = np.array([[1.0], [0], [1], [1]]), np.array([2.0, 1, 0, 3])
    index, weight = arrange(X, given)
    np.testing.assert_array_equal(index, [1, 0, 3])
    np.testing.assert_array_equal(weight, given)


def test_rows_with_different_labels_are_told_apart():
    X, labels = (
        np.array([[1.0], [1], [1], [2], [2]]),
        np.array([[0.0], [1], [0], [1], [1]]),
    )
    index, weight = arrange(X, merge=True, labels=labels)
    found = {(X[i, 0], labels[i, 0]): weight[i] for i in index}
    assert found == {(1, 0): 2, (1, 1): 1, (2, 1): 2}
    given = np.array([0, 1, 5, 2, 0.5])
    index, weight = arrange(X, given, merge=True, labels=labels)
    found = {(X[i, 0], labels[i, 0]): weight[i] for i in index}
    assert found == {(1, 0): 5, (1, 1): 1, (2, 1): 2.5}


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_rows_and_labels_that_share_a_key_are_told_apart(container, monkeypatch):
    monkeypatch.setattr(rows, "row_keys", lambda X, index: np.zeros(len(index)))
    X, labels = np.array([[1.0], [1], [1], [2]]), np.array([[3.0], [3], [4], [4]])
    index, weight = arrange(container(X), merge=True, labels=labels)
    np.testing.assert_array_equal(index, [0, 2, 3])
    np.testing.assert_array_equal(weight[index], [2, 1, 1])


def test_the_order_of_rows_depends_on_content_and_labels_alone(X):
    X = np.round(X[:300], -1)  # some rows are equal
    rng = np.random.default_rng(4)
    labels, order = rng.integers(0, 3, (300, 2)).astype(float), rng.permutation(300)
    both = np.column_stack([X, labels])
    assert len(np.unique(X, axis=0)) < len(np.unique(both, axis=0)) < 300
    index, _ = arrange(X, labels=labels)
    shuffled, _ = arrange(X[order], labels=labels[order])
    np.testing.assert_array_equal(both[order][shuffled], both[index])
    assert sorted(index) == list(range(300))
    kept, _ = arrange(X, keep_order=True, labels=labels)
    np.testing.assert_array_equal(kept, np.arange(300))


def test_wide_rows_are_read_in_small_blocks():
    assert rows_in_block(10) == MOST_ROWS
    assert rows_in_block(50_000) * 50_000 <= MOST_ENTRIES
    assert rows_in_block(10**9) == 1


def test_rows_that_share_a_key_are_told_apart(monkeypatch):
    monkeypatch.setattr(rows, "row_keys", lambda X, index: np.zeros(len(index)))
    X = np.array([[1.0, 2], [1, 2], [3, 4], [1, 2]])
    index, weight = arrange(X, merge=True)
    np.testing.assert_array_equal(index, [0, 2, 3])
    np.testing.assert_array_equal(weight[index], [2, 1, 1])


@pytest.mark.parametrize(("factor", "shift"), [(1e-3, 0.0), (3.0, 0.0), (1.0, 100.0)])
def test_the_order_of_rows_does_not_depend_on_units(X, factor, shift):
    index, _ = arrange(X)
    np.testing.assert_array_equal(arrange(X * [1, factor, 1] + [0, 0, shift])[0], index)


def test_the_order_of_rows_depends_on_content_alone(X):
    order = np.random.default_rng(4).permutation(len(X))
    index, _ = arrange(X)
    shuffled, _ = arrange(X[order])
    np.testing.assert_array_equal(X[index], X[order][shuffled])
    sparse_index, _ = arrange(sparse.csr_array(X))
    np.testing.assert_array_equal(sparse_index, index)


def test_a_large_mean_does_not_swallow_the_variance():
    x = 1e9 + np.random.default_rng(0).standard_normal((5000, 1))
    assert summary(x).unit[0] == pytest.approx(np.std(x), rel=1e-7)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_unit_follows_the_scale_of_a_column(scale, dtype):
    x = np.array([[1.0, 2.0, 0.0], [3.0, 2.0, 0.0]]) * scale
    columns = summary(x.astype(dtype))
    np.testing.assert_allclose(columns.unit, [scale, 2 * scale, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(columns.constant, [False, True, True])


def test_rounding_alone_is_constant():
    x = np.full((50, 2), 0.1)
    x[::2, 0] = np.nextafter(0.1, 1)
    x[::2, 1] += 1e-6
    np.testing.assert_array_equal(summary(x).constant, [True, False])


@pytest.mark.parametrize("container", [np.asarray, np.asfortranarray, sparse.csr_array])
def test_batches_hold_standardized_rows(X, container):
    columns = summary(X)
    every = Rows(container(X), None, None, columns.mean, columns.unit)
    index, x, weight = np.array([5, 0, 700]), np.empty((3, 3)), np.empty(3)
    every.load(index, x, weight, 3.0)
    expected = StandardScaler().fit(X).transform(X)[index]
    np.testing.assert_allclose(x, expected, atol=1e-12)
    np.testing.assert_allclose(weight, 1 / 3)
    every.restore(x)
    np.testing.assert_allclose(x, X[index], atol=1e-12)


def test_weights_are_handed_out_with_their_rows(X, weight):
    index, weight = arrange(X, weight)
    some = Rows(X, index, weight)
    assert weight[index].all()
    x, w = np.empty((2, 3)), np.empty(2)
    some.load(index[:2], x, w, 8.0)
    np.testing.assert_array_equal(x, X[index[:2]])
    np.testing.assert_array_equal(w, weight[index[:2]] / 8)
    assert some.mean_weight == weight[index].mean()


@pytest.mark.parametrize("container", [np.asarray, np.asfortranarray, sparse.csr_array])
def test_all_rows_need_no_index(X, container):
    columns = summary(X)
    moves = None, columns.mean, columns.unit
    every = Rows(container(X), None, *moves)
    listed = Rows(container(X), np.arange(len(X)), *moves)
    for place in (slice(0, 5), slice(700, 712), slice(0, len(X), 400)):
        x, weight = np.empty((2, len(listed.index[place]), 3)), np.empty(2)
        for some, out in zip((every, listed), x, strict=True):
            some.load(some.index[place], out, weight, 1.0)
        np.testing.assert_array_equal(x[0], x[1])
    assert len(every) == len(every.cut(slice(3, None))) + 3
    assert sys.getsizeof(every.index) < 100


def test_rows_that_keep_their_order_are_not_looked_at():
    index, weight = arrange(SimpleNamespace(shape=(4, 2)), keep_order=True)
    np.testing.assert_array_equal(index, range(4))
    assert weight is None


# --- a middle that outliers do not move -----------------------------------------------


def test_the_geometric_median_minimises_the_mean_distance(X, weight):
    rows = Rows(X, np.flatnonzero(weight), weight)

    def distance(point):
        return np.average(np.linalg.norm(X - point, axis=1), weights=weight)

    found = optimize.minimize(distance, X.mean(axis=0), method="BFGS", tol=1e-9)
    np.testing.assert_allclose(geometric_median(rows), found.x, rtol=1e-3)


def test_the_geometric_median_of_points_on_a_line_is_their_median():
    X = np.array([[0.0], [1.0], [2.0], [50.0], [1e6]])
    np.testing.assert_allclose(geometric_median(Rows(X)), 2.0, rtol=1e-3)


def test_the_geometric_median_of_equal_rows_is_that_row():
    np.testing.assert_allclose(geometric_median(Rows(np.full((9, 2), 3.0))), 3.0)


def test_the_geometric_median_of_many_rows_looks_at_some():
    X = np.random.default_rng(0).normal([5.0, -2.0], 1.0, (50_000, 2))
    X = X[np.argsort(X[:, 0])]
    np.testing.assert_allclose(geometric_median(Rows(X)), [5.0, -2.0], atol=0.1)


# --- what is left alone ---------------------------------------------------------------


def test_the_data_stay_as_they_are(X):
    X.setflags(write=False)
    every = Rows(X, None, None, X.mean(axis=0), X.std(axis=0))
    every.load(np.arange(4), np.empty((4, 3)), np.empty(4), 4.0)


def test_rows_of_weight_zero_are_left_out_in_their_order_too():
    weight = np.array([1.0, 0.0, 2.0, 0.0])
    for merge in (False, True):
        X = np.arange(8.0).reshape(4, 2)
        index, _ = arrange(X, weight, merge=merge, keep_order=True)
        np.testing.assert_array_equal(index, [0, 2])
