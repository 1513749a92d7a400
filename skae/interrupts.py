"""Control-C ends a fit with what it has learnt, and not in the middle of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Request", "deferred_interrupts"]


class Request:
    """Whether Control-C has been pressed, and whether anybody has acted on it."""

    def __init__(self) -> None:
        self.is_made = self.is_heeded = False

    def heed(self) -> bool:
        """Tell whether to end; if so, this counts as the answer."""
        self.is_heeded |= self.is_made
        return self.is_made

    def pass_on(self) -> None:
        """Raise what has been held back, if nobody has acted on it."""
        if self.is_made and not self.is_heeded:
            raise KeyboardInterrupt


@contextmanager
def deferred_interrupts() -> Iterator[Request]:
    """Make a request of the first Control-C; the second one interrupts as ever.

    Python tells its main thread alone of signals. Elsewhere, and where the user has
    said what Control-C shall do, nothing changes.
    """
    request, ordinary = Request(), signal.default_int_handler
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not ordinary:
        yield request
        return

    def note(number: int, frame: Any) -> None:
        request.is_made = True
        signal.signal(signal.SIGINT, ordinary)

    signal.signal(signal.SIGINT, note)
    try:
        yield request
    except Exception:
        request.pass_on()
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, ordinary)
