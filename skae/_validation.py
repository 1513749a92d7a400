"""The only module that touches scikit-learn's private helpers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.parallel import _get_threadpool_controller
from sklearn.utils.validation import _check_sample_weight

__all__ = [
    "Interval",
    "Options",
    "StrOptions",
    "_check_sample_weight",
    "_fit_context",
    "one_blas_thread",
    "validate_parameters",
]


_limiting = threading.Lock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold matrix products to one thread.

    The limit belongs to the whole process. Where calls of several threads overlap, the
    first one sets and restores it, and the others leave it alone.
    """
    if not _limiting.acquire(blocking=False):
        yield
        return
    try:
        with _get_threadpool_controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        _limiting.release()


def validate_parameters(component: Any) -> None:
    """Check a settings object against its ``_parameter_constraints``."""
    component._validate_params()
