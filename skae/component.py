"""Settings objects: the interchangeable parts of an autoencoder.

A component stores what its constructor is given and nothing else, so that
scikit-learn's ``get_params``, ``set_params``, ``clone`` and ``repr`` work on it and
nested names such as ``solver__momentum`` reach it from a grid search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from sklearn.base import BaseEstimator

from skae._validation import validate_parameters

__all__ = ["Component", "Range", "resolve"]


class Component(BaseEstimator):
    """Base of every settings object."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {}


@dataclass(frozen=True)
class Range:
    """The closed interval from `low` to `high`: what values are allowed."""

    low: float = -np.inf
    high: float = np.inf

    def __contains__(self, value: object) -> bool:
        return bool(self.low <= value <= self.high)  # type: ignore[operator]

    def __str__(self) -> str:
        left = "(-inf" if self.low == -np.inf else f"[{self.low:g}"
        right = "inf)" if self.high == np.inf else f"{self.high:g}]"
        return f"{left}, {right}"


C = TypeVar("C", bound=Component)


def resolve(value: str | C, registry: Mapping[str, type[C]], **settings: Any) -> C:
    """Return the component that `value` names, or `value` if it is one already.

    A component made from a name takes those of `settings` that its constructor has.
    """
    if not isinstance(value, str):
        validate_parameters(value)
        return value
    component = registry[value]()
    known = component.get_params(deep=False).keys() & settings.keys()
    component.set_params(**{name: settings[name] for name in known})
    return component
