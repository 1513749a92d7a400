import threading
import time

import numpy as np
import pytest

from skae import blas
from skae.blas import FEWEST, add_scaled, exported


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 1000, FEWEST - 1, FEWEST, FEWEST + 7])
@pytest.mark.parametrize("step", [1, 2])
def test_a_multiple_is_added(step, size, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, step * size)).astype(dtype)
    expected = y.copy()
    expected[::step] += dtype(0.3) * x[::step]
    add_scaled(y[::step], 0.3, x[::step])
    rounding = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(y, expected, rtol=rounding, atol=rounding)
    np.testing.assert_array_equal(
        y[1::2][: size * (step - 1)], expected[1::2][: size * (step - 1)]
    )


def test_a_row_of_a_matrix_changes_alone():
    moments = np.zeros((3, FEWEST))
    add_scaled(moments[1], 2.0, np.arange(float(FEWEST)))
    np.testing.assert_array_equal(moments[1], 2.0 * np.arange(FEWEST))
    assert not moments[[0, 2]].any()


def test_scipy_s_function_is_used():
    assert blas.AXPY[np.dtype(np.float32)] is not None
    assert blas.AXPY[np.dtype(np.float64)] is not None


@pytest.mark.parametrize("name", ["no_such_function", "dscal", "ddot"])
def test_a_function_of_another_kind_is_not_called(name):
    assert exported(name, float) is None


def test_without_scipy_s_function_the_result_is_the_same(monkeypatch):
    x, y = np.random.default_rng(0).standard_normal((2, FEWEST))
    expected = y.copy()
    add_scaled(expected, 0.3, x)
    monkeypatch.setattr(blas, "AXPY", {})
    add_scaled(y, 0.3, x)
    np.testing.assert_allclose(y, expected, rtol=1e-15, atol=1e-15)


def test_other_threads_run_meanwhile():
    """With the interpreter held, no count would be taken during the call."""
    x, y, counts, done = np.zeros(2**24), np.zeros(2**24), [], threading.Event()

    def count():
        while not done.is_set():
            counts.append(time.perf_counter())

    thread = threading.Thread(target=count)
    thread.start()
    try:
        while not counts:
            pass
        start = time.perf_counter()
        add_scaled(y, 1.0, x)
        stop = time.perf_counter()
    finally:
        done.set()
        thread.join()
    third = (stop - start) / 3
    assert any(start + third < when < stop - third for when in counts)
