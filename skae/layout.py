"""Where each array lives inside one flat vector of parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

__all__ = ["Array", "Layout", "Part", "Slot", "pieces", "runs", "share"]

Array = NDArray[Any]

#: ``(i, n)``: the i-th of n shares, counted from zero.
Part = tuple[int, int]


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
    def stop(self) -> int:
        """Where the vector goes on after it."""
        return self.start + self.size

    @property
    def T(self) -> Slot:
        """The same place, read as the transposed matrix."""
        return replace(self, transposed=not self.transposed)

    def rows(self, place: slice) -> Slot:
        """Return the place of some of its rows, as they are stored."""
        start = self.start + place.start * math.prod(self.shape[1:])
        return Slot(start, (place.stop - place.start, *self.shape[1:]))

    def of(self, flat: Array) -> Array:
        """Return the view of `flat` at this place; writing to it writes to `flat`."""
        view = flat[self.start : self.stop].reshape(self.shape)
        return view.T if self.transposed else view


class Layout:
    """Hands out slots one after the other.

    Parameters
    ----------
    size : int
        Length of what there is already.
    """

    def __init__(self, size: int = 0) -> None:
        self.size = size

    def slot(self, *shape: int) -> Slot:
        """Reserve a new array of this shape at the end of the vector."""
        slot = Slot(self.size, tuple(int(n) for n in shape))
        self.size += slot.size
        return slot


def share(size: int, part: Part) -> slice:
    """Return the i-th of n nearly equal shares of ``range(size)``."""
    i, n = part
    return slice(size * i // n, size * (i + 1) // n)


def pieces(slots: Iterable[Slot], part: Part) -> dict[int, slice]:
    """Share out the entries of slots, in their order, without cutting a row.

    Returns
    -------
    rows : dict of int to slice
        Which rows of each slot, as they are stored, belong to the share. Keys are the
        places where slots start.
    """
    sizes = {slot.start: (slot.shape[0], slot.size) for slot in slots if slot.size}
    cut, offset, found = share(sum(size for _, size in sizes.values()), part), 0, {}
    for start, (n_rows, size) in sorted(sizes.items()):
        ends = [-(-(end - offset) * n_rows // size) for end in (cut.start, cut.stop)]
        found[start] = slice(*(min(max(end, 0), n_rows) for end in ends))
        offset += size
    return found


def runs(slots: Iterable[Slot]) -> list[slice]:
    """Return the parts of the flat vector that slots cover; neighbours are merged."""
    merged: list[slice] = []
    for start, stop in sorted({(s.start, s.stop) for s in slots if s.size}):
        if merged and merged[-1].stop == start:
            merged[-1] = slice(merged[-1].start, stop)
        else:
            merged.append(slice(start, stop))
    return merged
