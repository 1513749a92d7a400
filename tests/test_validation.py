"""scikit-learn's private helpers still do what this package relies on."""

import inspect
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from numbers import Real

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from skae import _validation
from skae.composite import as_distribution
from skae.distributions import DISTRIBUTIONS, Huber, Poisson


def test_everything_that_is_promised_is_there():
    assert all(hasattr(_validation, name) for name in _validation.__all__)


@pytest.mark.parametrize(("value", "inside"), [(0, True), (0.5, True), (1, False)])
def test_interval(value, inside):
    interval = _validation.Interval(Real, 0, 1, closed="left")
    assert interval.is_satisfied_by(value) is inside


def test_options():
    assert _validation.StrOptions({"a", "b"}).is_satisfied_by("a")
    assert not _validation.StrOptions({"a", "b"}).is_satisfied_by("c")
    assert _validation.Options(Real, {np.inf}).is_satisfied_by(np.inf)


def test_sample_weight_is_checked():
    X = np.ones((3, 2))
    weight = _validation._check_sample_weight([1, 2, 3], X, ensure_non_negative=True)
    np.testing.assert_array_equal(weight, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="egative"):
        _validation._check_sample_weight([1, -2, 3], X, ensure_non_negative=True)


def blas_threads():
    pools = _validation._get_threadpool_controller().info()
    return [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]


def test_blas_threads_are_limited_for_a_while():
    before = blas_threads()
    with _validation.one_blas_thread():
        assert set(blas_threads()) == {1}
        with _validation.one_blas_thread():
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_threads_that_overlap_leave_no_limit_behind():
    before = blas_threads()

    def enter_and_leave(_):
        with _validation.one_blas_thread():
            time.sleep(0.001)

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(enter_and_leave, range(200)))
    assert blas_threads() == before


# --- values that a distribution cannot take ---------------------------------------


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("entries", [1, 7, 1000])
def test_columns_are_searched_block_by_block(kind, entries, monkeypatch):
    monkeypatch.setattr(_validation, "ENTRIES", entries)
    X = np.random.default_rng(0).integers(-2, 3, (40, 3)) * [1.0, 2.0, 0.0]
    low, high = _validation.extremes(kind(X))
    np.testing.assert_array_equal(low, X.min(axis=0))
    np.testing.assert_array_equal(high, X.max(axis=0))


def test_looking_for_extremes_of_sparse_columns_copies_nothing_large(monkeypatch):
    monkeypatch.setattr(_validation, "ENTRIES", 2**14)
    X = sparse.csr_array(np.random.default_rng(0).integers(0, 2, (20_000, 20)) * 1.0)
    tracemalloc.start()
    _validation.extremes(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.data.nbytes / 2


NAMES = np.array([f"x_{j}" for j in range(12)], dtype=object)
stored = pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])


def support(kind, X, spec, names=None):
    X = kind(np.array(X, dtype=float))
    _validation.check_support(X, as_distribution(spec), spec, names)


@stored
@pytest.mark.parametrize(
    ("X", "spec", "message"),
    [
        (
            [[1, 0], [1, -1]],
            "poisson",
            "Negative values in data: column 1 holds -1, but distribution='poisson' "
            "needs whole numbers in [0, inf); 1 of 2 columns are outside.",
        ),
        (
            [[1, 0], [0.5, 0]],
            "poisson",
            "Column 0 holds 0.5, but distribution='poisson' needs whole numbers in "
            "[0, inf); 1 of 2 columns are outside.",
        ),
        (
            [[1, 0], [0.5, 2]],
            Poisson(),
            "Column 0 holds 0.5, but distribution=Poisson() needs whole",
        ),
        (
            [[2.00000001, 0.0], [3, 3]],
            "poisson",
            "Column 0 holds 2.00000001, but distribution='poisson' needs whole",
        ),
        (
            [[1, 1], [1, 0]],
            "gamma",
            "Column 1 holds 0, but distribution='gamma' needs values in (0, inf); 1 of "
            "2 columns are outside.",
        ),
        (
            [[0.5, 0.5], [1, 0]],
            "beta",
            "Column 0 holds 1, but distribution='beta' needs values in (0, 1); 2 of 2",
        ),
        (
            [[0, 2]],
            "bernoulli",
            "Column 1 holds 2, but distribution='bernoulli' needs values in [0, 1]; 1",
        ),
        (
            [[-5, 1, 0.5], [3, 0, 1]],
            [("gamma", [1]), ("gaussian", [2, 0])],
            "Column 1 holds 0, but distribution='gamma' needs values in (0, inf); 1 of "
            "3 columns are outside.",
        ),
        (
            [[-5, 1.5, 0.5], [3, 0, 1]],
            [(Huber(2.0), [0]), (Poisson(), [2, 1])],
            "Column 1 holds 1.5, but distribution=Poisson() needs whole numbers in "
            "[0, inf); 2 of 3 columns are outside.",
        ),
        (
            [[1, 0, 1], [0.5, 1, 0]],
            "categorical",
            "Column 0 holds 0.5, but distribution='categorical' needs whole numbers in "
            "[0, 1]; 1 of 3 columns are outside.",
        ),
        (
            [[1, 0, 7], [0, 1, 7], [0, 0, 7], [1, 0, 7]],
            [("gaussian", [2]), ("categorical", [1, 0])],
            "Row 2 of the columns 1, 0 sums to 0, but distribution='categorical' needs "
            "one 1 and zeros besides in each row.",
        ),
        ([[1, 0, 1]], "categorical", "Row 0 of the columns 0, 1, 2 sums to 2, but"),
    ],
)
def test_support_is_checked(kind, X, spec, message):
    with pytest.raises(ValueError, match="olumn") as error:
        support(kind, X, spec)
    assert str(error.value).startswith(message)


@stored
@pytest.mark.parametrize("entries", [1, 7, 2**20])
def test_support_is_checked_in_parts(kind, entries, monkeypatch):
    monkeypatch.setattr(_validation, "ENTRIES", entries)
    X = np.tile([3.0, 1.0, 0.0, -0.5], (20, 1))
    spec = [("poisson", [0]), ("categorical", [2, 1]), ("gaussian", [3])]
    support(kind, X, spec)
    X[13, 0] = 2.5
    with pytest.raises(ValueError, match=r"Column 0 holds 2\.5"):
        support(kind, X, spec)
    X[13] = 0
    with pytest.raises(ValueError, match="Row 13 of the columns 2, 1 sums to 0"):
        support(kind, X, spec)


@stored
def test_columns_are_called_by_name(kind):
    with pytest.raises(ValueError, match=r"column 1 \('x_1'\) holds -1"):
        support(kind, [[0, -1]], "poisson", NAMES)
    columns = r"columns 0 \('x_0'\), .*9 \('x_9'\), ... and 2 more sums to 0"
    with pytest.raises(ValueError, match=columns):
        support(kind, np.zeros((1, 12)), "categorical", NAMES)


@stored
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_good_values_pass(kind, name):
    inside = {"bernoulli": 0.0, "categorical": 0.0, "beta": 0.5, "poisson": 3.0}
    X = np.full((5, 3), inside.get(name, 1.0))
    X[:, 1] = {"categorical": 1.0}.get(name, X[0, 1])
    support(kind, X, name)


def test_values_in_single_precision_are_printed_as_they_are():
    X = np.array([[0.1]], dtype=np.float32)
    with pytest.raises(ValueError, match=r"holds 0\.1, but"):
        _validation.check_support(X, as_distribution("poisson"), "poisson", None)


# --- columns as users mean them ---------------------------------------------------


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("b", [1]),
        (["c", "a"], [2, 0]),
        (slice("b", "c"), [1, 2]),
        (-1, [2]),
        (np.array([0, -1]), [0, 2]),
        (slice(1), [0]),
        (slice(None), [0, 1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        ([False, True, True], [1, 2]),
        (pd.Series([True, False, False]), [0]),
        (lambda X: list(X.columns[:2]), [0, 1]),
        (lambda X: X.dtypes == "float64", [1]),
        ([], []),
    ],
)
def test_column_indices(key, expected):
    X = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.0], "c": [0, 0]})
    names = X.columns.to_numpy()
    found = _validation.column_indices(X, X.to_numpy(), key, names)
    assert found == expected
    assert all(type(j) is int for j in found)


def test_columns_of_one_name_cannot_be_told_apart():
    data = np.ones((2, 3))
    with pytest.raises(
        ValueError, match=r"'a' is the name of 2 columns\. Names are 'a'"
    ):
        _validation.column_indices(data, data, "a", np.array(["a", "a", "b"]))


def test_functions_of_lists_see_an_array():
    data = np.ones((1, 3))
    found = _validation.column_indices(
        [[1, 1, 1]], data, lambda X: X.shape[1] - 1, None
    )
    assert found == [2]


# --- sizes of layers --------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (7, [7]),
        (np.int64(7), [7]),
        ((), []),
        ([], []),
        ((7, 5), [7, 5]),
        (np.array([7, 5], dtype=np.int8), [7, 5]),
        ([np.int32(3), 1], [3, 1]),
        (range(1, 4), [1, 2, 3]),
        (pd.Series([4, 2]), [4, 2]),
    ],
    ids=repr,
)
def test_sizes(sizes, expected):
    found = _validation.check_sizes(sizes, "sizes")
    assert found == expected
    assert all(type(size) is int for size in found)


@pytest.mark.parametrize(
    "sizes",
    [
        0,
        -1,
        True,
        2.0,
        None,
        "ab",
        (3, 0),
        (3, True),
        (np.True_,),
        (2.5,),
        (3, None),
        ["a"],
        np.array([2.0]),
        ((3, 2),),
        ((3, 2), (1,)),
        {3},
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["hidden_layer_sizes", "decoder_layer_sizes"])
def test_bad_sizes_are_named(sizes, name):
    with pytest.raises(ValueError, match="positive integers, one for each") as error:
        _validation.check_sizes(sizes, name)
    assert str(error.value).startswith(f"{name}={sizes!r} must hold ")


# --- methods that are there or not ------------------------------------------------


def is_open(door, name):
    """Refuse if the door is shut."""
    if not door.open:
        raise AttributeError(f"{name} needs an open door, but {door!r} is shut.")


class Door:
    def __init__(self, open):
        self.open = open

    def __repr__(self):
        return f"Door({self.open})"

    @_validation.only_if(is_open)
    def enter(self, who, *, how="on foot"):
        """Say who enters, and how."""
        return f"{who} {how} through {self!r}"


class Gate(Door):
    pass


@pytest.mark.parametrize("kind", [Door, Gate])
def test_a_method_is_there_if_its_check_passes(kind):
    assert hasattr(kind(True), "enter")
    assert kind(True).enter("Ann", how="slowly") == "Ann slowly through Door(True)"
    assert not hasattr(kind(False), "enter")


def test_the_check_says_why_a_method_is_absent():
    with pytest.raises(AttributeError) as error:
        Door(False).enter("Ann")
    assert str(error.value) == "enter needs an open door, but Door(False) is shut."
    assert error.value.__cause__ is None


def test_the_check_is_made_every_time():
    door = Door(False)
    assert not hasattr(door, "enter")
    door.open = True
    assert door.enter("Ann") == "Ann on foot through Door(True)"
    door.open = False
    assert getattr(door, "enter", None) is None


def test_other_errors_of_a_check_are_not_swallowed():
    class Broken:
        @_validation.only_if(lambda thing, name: thing.number / 0)
        def method(self):
            pass

        number = 1

    with pytest.raises(ZeroDivisionError):
        hasattr(Broken(), "method")


def test_a_method_looks_like_itself():
    bound = Door(True).enter
    assert inspect.ismethod(bound)
    assert bound.__name__ == "enter"
    assert bound.__doc__ == Door.enter.__doc__ == "Say who enters, and how."
    assert list(inspect.signature(bound).parameters) == ["who", "how"]
    assert list(inspect.signature(Door.enter).parameters) == ["self", "who", "how"]
    assert Door.enter(Door(False), "Ann") == "Ann on foot through Door(False)"
    assert vars(Door)["enter"].__doc__ == "Say who enters, and how."


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "3"])
def test_counts_are_positive_integers(value):
    with pytest.raises(ValueError, match=r"n=.* must be a positive integer"):
        _validation.check_count(value, "n")


def test_a_count_may_be_of_any_integer_type():
    _validation.check_count(np.int64(3), "n")
