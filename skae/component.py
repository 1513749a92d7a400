"""Settings objects: the interchangeable parts of an autoencoder.

A component stores what its constructor is given (and, at most, what follows from it),
so that scikit-learn's ``get_params``, ``set_params``, ``clone`` and ``repr`` work on it
and nested names such as ``solver__momentum`` reach it from a grid search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from sklearn.base import BaseEstimator

from skae._validation import validate_parameters
from skae.layout import Array

__all__ = ["Component", "Range", "resolve"]


class Component(BaseEstimator):
    """Base of every settings object."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {}


@dataclass(frozen=True)
class Range:
    """The interval from `low` to `high`: what values are allowed.

    Attributes
    ----------
    low, high : float
        Its ends, which belong to it.
    open : bool
        Whether the ends are excluded.
    whole : bool
        Whether only whole numbers are allowed.
    """

    low: float = -np.inf
    high: float = np.inf
    open: bool = False
    whole: bool = False

    def outside(self, values: Array) -> Array:
        """Return which values are not allowed. NaN never is."""
        values = np.asarray(values)
        if self.open:
            inside = (self.low < values) & (values < self.high)
        else:
            inside = (self.low <= values) & (values <= self.high)
        if self.whole:
            inside &= np.floor(values) == values
        return np.asarray(~inside)

    def __contains__(self, value: object) -> bool:
        return not self.outside(np.asarray(value))

    def __str__(self) -> str:
        left = "(" if self.open or self.low == -np.inf else "["
        right = ")" if self.open or self.high == np.inf else "]"
        text = f"{left}{self.low:g}, {self.high:g}{right}"
        return f"whole numbers in {text}" if self.whole else text


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
