"""scikit-learn's private helpers still do what this package relies on."""

import time
from concurrent.futures import ThreadPoolExecutor
from numbers import Real

import numpy as np
import pytest

from skae import _validation


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
