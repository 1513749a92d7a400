"""Checkpoints: the complete state of a fit in a file, from which it can go on."""

from __future__ import annotations

import json
import os
import time
import warnings
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.random import Generator
from scipy import sparse

from skae._validation import POSITIVE, POSITIVE_INT
from skae.archives import read, remove_partial, write
from skae.component import Component

__all__ = [
    "Checkpoint",
    "Keeper",
    "described",
    "digest",
]

#: Entries of an array that are looked at together.
ENTRIES = 2**20


class Checkpoint(Component):
    """Where and how often a fit writes down its complete state.

    A fit that finds its own checkpoint goes on from there, and ends with the very same
    bits as if it had never been interrupted.

    Parameters
    ----------
    path : str or path-like
        The file. Of a folder that exists, each fit has a file of its own, so that a
        search over parameters can be resumed as well.
    n_minutes : float or None, default=1.0
        Minutes between two checkpoints, in the midst of an epoch as well.
    n_epochs : int or None, default=None
        Epochs between two checkpoints, in each stage of a stack.

    See Also
    --------
    skae.DenoisingAutoencoder : Its parameter `checkpoint` takes this, or a path.

    Notes
    -----
    A checkpoint belongs to one call of `fit`: the same parameters, data, weights and
    targets, and with ``warm_start=True`` the same fitted model. Any other call is
    refused. Where `random_state` is no integer, the call goes on with the random
    numbers of the checkpoint.

    When a fit has come to its end, the file stays, and the same call returns at once
    with the same result; remove it to train anew.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_digits
    >>> from skae import DenoisingAutoencoder
    >>> from skae.checkpoints import Checkpoint
    >>> X, _ = load_digits(return_X_y=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = Checkpoint(Path(folder) / "digits.ckpt", n_epochs=10)
    ...     model = DenoisingAutoencoder(8, checkpoint=checkpoint, random_state=0)
    ...     first = model.fit(X).loss_
    ...     again = model.fit(X).loss_  # from the file
    >>> first == again
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "path": [str, os.PathLike],
        "n_minutes": [POSITIVE, None],
        "n_epochs": [POSITIVE_INT, None],
    }

    def __init__(
        self,
        path: str | os.PathLike[str],
        n_minutes: float | None = 1.0,
        n_epochs: int | None = None,
    ) -> None:
        self.path = path
        self.n_minutes = n_minutes
        self.n_epochs = n_epochs


def file_of(settings: Checkpoint, call: dict[str, str]) -> Path:
    """Return the file of a call; in a folder, its name follows from the call."""
    given = os.fspath(settings.path)
    if not given:
        raise ValueError("checkpoint='' names no file.")
    path = Path(given).expanduser().resolve()
    if path.is_dir():
        return path / f"{hashed(json.dumps(call))}.ckpt"
    if given.endswith(("/", os.sep)) or not path.parent.is_dir():
        raise ValueError(
            f"The folder of checkpoint={given!r} does not exist: make it, or name a "
            f"file elsewhere."
        )
    return path


class Keeper:
    """Keeps the state of one fit in a file.

    Parameters
    ----------
    settings : Checkpoint
        Where, and how often.
    call : dict of {str: str}
        What the fit depends on: names, and what tells values apart.

    Attributes
    ----------
    path : Path
        The file.
    found : dict or None
        The state from which the fit goes on, if there is one.

    Raises
    ------
    ValueError
        If there is a file, but none from which this call can go on.
    """

    def __init__(self, settings: Checkpoint, call: dict[str, str]) -> None:
        self.settings, self.call = settings, call
        self.path = file_of(settings, call)
        self.found = self._find()
        self.start: dict[str, Any] = {}
        self._last, self._has_written = time.monotonic(), False

    def _find(self) -> dict[str, Any] | None:
        """Return the state in the file, if there is one."""
        remove_partial(self.path)
        if not self.path.exists():
            return None
        kept = read(self.path)
        if kept["call"] != self.call:
            there, here = kept["call"], self.call
            names = [n for n in here | there if there.get(n) != here.get(n)]
            raise ValueError(
                f"The checkpoint {str(self.path)!r} belongs to another fit: "
                f"{', '.join(names)} differed. Repeat that call, "
                f"remove the file, or name another one; of a folder, each fit takes a "
                f"file of its own."
            )
        state: dict[str, Any] = kept["state"]
        return state

    def begin(self, rng: Generator) -> None:
        """Let a generator begin as that of the fit that is gone on with."""
        if self.found:
            rng.bit_generator.state = self.found["start"]
        self.start = dict(rng.bit_generator.state)

    def is_due(self, epoch: int | None = None) -> bool:
        """Tell whether it is time to write; `epoch` is one that has just ended.

        The first time is at once: if that fails, better before the hours than after.
        """
        if not self._has_written:
            return True
        minutes, epochs = self.settings.n_minutes, self.settings.n_epochs
        if epoch and epochs and epoch % epochs == 0:
            return True
        return minutes is not None and time.monotonic() >= self._last + 60 * minutes

    def write(self, state: dict[str, Any]) -> None:
        """Write a state; that it fails is an error the first time, then a warning."""
        content = {"call": self.call, "state": {"start": self.start, **state}}
        try:
            write(self.path, content)
        except OSError as error:
            what = f"The checkpoint {str(self.path)!r} could not be written: "
            if not self._has_written:
                raise OSError(error.errno, f"{what}{error.strerror}.") from error
            warnings.warn(
                f"{what}{error}. Training goes on; the last one is that of before.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._has_written, self._last = True, time.monotonic()


def hashed(text: str) -> str:
    """Return a short name for a text."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def described(value: Any) -> str:
    """Return a text that tells the values of parameters apart, and nothing else.

    Equal numbers are the same, whatever their type, and so are equal sequences. Of a
    component, and of anything else with `get_params`, all parameters count.
    """
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if hasattr(value, "get_params") and not isinstance(value, type):
        params = {"": type(value).__qualname__, **value.get_params(deep=False)}
        return described(params)
    if isinstance(value, dict):
        return str(sorted((described(k), described(v)) for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        return str([described(member) for member in value])
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return repr(value)


def digest(array: Any) -> str:
    """Return what tells the content of arrays apart, whatever their layout.

    CSR matrices are made dense, some rows at a time; nothing is as large as the array.
    One that is elsewhere is asked for its own `digest`.
    """
    if array is None:
        return "none"
    if hasattr(array, "digest"):
        return str(array.digest())
    content = blake2b(f"{array.dtype} {array.shape}".encode(), digest_size=16)
    size = max(1, ENTRIES // (array.shape[1] if array.ndim == 2 else 1))
    for start in range(0, array.shape[0], size):
        rows = array[start : start + size]
        rows = rows.toarray() if sparse.issparse(rows) else rows
        content.update(np.ascontiguousarray(rows).tobytes())
    return content.hexdigest()
