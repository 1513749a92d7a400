"""The only module that touches scikit-learn's private helpers."""

from __future__ import annotations

from contextlib import AbstractContextManager
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
    "limit_blas_threads",
    "validate_parameters",
]


def limit_blas_threads(limit: int | None) -> AbstractContextManager[Any]:
    """Let matrix products use at most so many threads; None changes nothing."""
    controller = _get_threadpool_controller()
    limited: AbstractContextManager[Any]
    limited = controller.limit(limits=limit, user_api="blas")
    return limited


def validate_parameters(component: Any) -> None:
    """Check a settings object against its ``_parameter_constraints``."""
    component._validate_params()
