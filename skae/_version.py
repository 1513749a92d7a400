"""The version of this library, and of the state that fitted models are saved in."""

from __future__ import annotations

__all__ = ["STATE_FORMAT", "__version__"]

__version__ = "0.1.0.dev0"

#: Raised by one whenever fitted attributes change their names or their meaning.
STATE_FORMAT = 4
