"""A crew of threads goes through phases of work together, each member with its share.

Products of matrices are held to one thread each meanwhile: that keeps all cores busy
during everything, and not during products only. NumPy lets other threads run while it
computes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from skae._validation import one_blas_thread
from skae.layout import Part

__all__ = ["Crew", "Phase", "Work", "alone", "crew", "hired"]

#: Does one member's share of some work.
Work = Callable[[Part], None]

#: Works that a member does one after the other, whatever the others do.
Phase = list[Work]


class Crew:
    """Members that all do their share of a phase before any begins with the next.

    The thread that calls `run` is a member; the others wait for it in between. An error
    of any member ends the crew, and is raised to the caller.

    Where threads are short, the caller does the shares of all members in turn: what
    comes of the work depends on the number of members, and on nothing else.

    Parameters
    ----------
    size : int
        Number of members.
    n_threads : int or None
        Threads that may be used; None for one each. If there are fewer than members,
        the caller is the only one.
    """

    def __init__(self, size: int, n_threads: int | None = None) -> None:
        self.size = size
        n_threads = size if n_threads is None or n_threads >= size else 1
        self._barrier = threading.Barrier(n_threads)
        self._phases: tuple[Phase, ...] = ()
        self._errors: list[BaseException] = []
        self._others = [
            threading.Thread(
                target=self._work, args=(i,), name=f"skae-{i}", daemon=True
            )
            for i in range(1, n_threads)
        ]
        for thread in self._others:
            thread.start()

    def run(self, *phases: Phase) -> None:
        """Go through phases, all members together."""
        token = _hired.set(_BUSY)
        try:
            if self._others:
                self._lead(phases)
            else:
                self._do_all(phases)
        finally:
            _hired.reset(token)

    def dismiss(self) -> None:
        """Let the other members go."""
        self._barrier.abort()
        for thread in self._others:
            thread.join()

    def _do_all(self, phases: tuple[Phase, ...]) -> None:
        """Do the shares of all members, one after the other."""
        for phase in phases:
            for i in range(self.size):
                for work in phase:
                    work((i, self.size))

    def _lead(self, phases: tuple[Phase, ...]) -> None:
        """Let the others begin, and do the caller's share."""
        self._phases = phases
        try:
            self._barrier.wait()
            self._go_through(0)
        except threading.BrokenBarrierError:
            error = self._errors[0] if self._errors else RuntimeError("it has ended")
            raise error from None
        except BaseException as error:
            self._errors.append(error)
            self._barrier.abort()
            raise

    def _work(self, i: int) -> None:
        """Do the shares of one of the others until the crew is dismissed."""
        _hired.set(_BUSY)
        with np.errstate(all="ignore"):
            try:
                while True:
                    self._barrier.wait()
                    self._go_through(i)
            except threading.BrokenBarrierError:
                return
            except BaseException as error:
                self._errors.append(error)
                self._barrier.abort()

    def _go_through(self, i: int) -> None:
        """Do one member's share of all phases."""
        for phase in self._phases:
            for work in phase:
                work((i, self.size))
            self._barrier.wait()


def alone(work: Callable[[], None]) -> Work:
    """Return what the first member does while the others wait."""
    return lambda part: None if part[0] else work()


#: Crews of one need no threads. The second is there for what a phase itself calls.
_NOBODY, _BUSY = Crew(1), Crew(1)

#: The crew of whoever asks.
_hired: ContextVar[Crew] = ContextVar("crew", default=_NOBODY)


def hired() -> Crew:
    """Return the crew that is there; without one, whoever asks is alone."""
    return _hired.get()


@contextmanager
def crew(most: int) -> Iterator[Crew]:
    """Hire a crew of at most `most` members, no more than BLAS may use threads.

    It is there until the block is left, and whoever asks for another one gets it. Its
    size does not depend on who else works at the same time; who does the work may.
    """
    if hired() is not _NOBODY:
        yield hired()
        return
    with one_blas_thread() as (n_allowed, n_free):
        members = Crew(max(1, min(most, n_allowed)), n_free)
        token = _hired.set(members)
        try:
            yield members
        finally:
            _hired.reset(token)
            members.dismiss()
