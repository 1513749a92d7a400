"""scikit-learn's private helpers still do what this package relies on."""

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


def test_blas_threads_are_limited_for_a_while():
    def threads():
        return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}

    before = _validation._get_threadpool_controller().info()
    with _validation.limit_blas_threads(1):
        pools = _validation._get_threadpool_controller().info()
        assert threads() == {1}
    with _validation.limit_blas_threads(None):
        assert _validation._get_threadpool_controller().info() == before
    assert _validation._get_threadpool_controller().info() == before
