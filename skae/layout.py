"""Where each array lives inside one flat vector of parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

__all__ = ["Array", "Layout", "Slot"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Slot:
    """The place of one array in a flat vector; it holds no numbers.

    Views do not survive pickling or copying as views, a place does: the view is
    made anew by `of`. A transposed slot names the same numbers the other way
    round, which is all that tied weights are.
    """

    start: int
    shape: tuple[int, ...]
    transposed: bool = False

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def T(self) -> Slot:
        """The same place, read as the transposed matrix."""
        return replace(self, transposed=not self.transposed)

    def of(self, flat: Array) -> Array:
        """Return the view of `flat` at this place; writing to it writes to `flat`."""
        view = flat[self.start : self.start + self.size].reshape(self.shape)
        return view.T if self.transposed else view


class Layout:
    """Hands out slots one after the other."""

    def __init__(self) -> None:
        self.size = 0

    def slot(self, *shape: int) -> Slot:
        """Reserve a new array of this shape at the end of the vector."""
        slot = Slot(self.size, tuple(int(n) for n in shape))
        self.size += slot.size
        return slot
