"""The only module that touches scikit-learn's private validation helpers."""

from __future__ import annotations

from typing import Any

from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight

__all__ = [
    "Interval",
    "Options",
    "StrOptions",
    "_check_sample_weight",
    "_fit_context",
    "validate_parameters",
]


def validate_parameters(component: Any) -> None:
    """Check a settings object against its ``_parameter_constraints``."""
    component._validate_params()
