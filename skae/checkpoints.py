"""Checkpoints: the complete state of a fit in a file, from which it can go on.

A file is a NumPy archive without pickled objects: the arrays, and a JSON text that says
where in the state they belong. It is written beside the old one, flushed to the disk,
and put in its place in one go: at any moment there is one whole file.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from hashlib import blake2b
from pathlib import Path
from platform import node
from typing import Any, BinaryIO, ClassVar
from uuid import uuid4

import numpy as np
from numpy.random import Generator
from scipy import sparse

from skae._validation import POSITIVE, POSITIVE_INT
from skae._version import __version__
from skae.component import Component
from skae.layout import Array

__all__ = [
    "CHECKPOINT_FORMAT",
    "Checkpoint",
    "Keeper",
    "described",
    "digest",
    "read",
    "write",
]

#: Changes with the form of the files.
CHECKPOINT_FORMAT = 1

KIND = "skae checkpoint"

#: Entries of an array that are looked at together.
ENTRIES = 2**20

#: In seconds.
DAY = 24 * 60 * 60

#: What a fit writes before it is put in the place of the file.
PARTIAL = ".partial"


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


# --- files ----------------------------------------------------------------------------


def write(path: Path, content: dict[str, Any]) -> None:
    """Write nested containers of arrays, numbers and strings to a file."""
    arrays: list[Array] = []
    head = {"kind": KIND, "format": CHECKPOINT_FORMAT, "skae": __version__}
    text = json.dumps({**head, "content": packed(content, arrays)})
    named: dict[str, Any] = {str(i): array for i, array in enumerate(arrays)}
    with replaced(path) as file:
        np.savez(file, about=np.frombuffer(text.encode(), np.uint8), **named)


def read(path: Path) -> dict[str, Any]:
    """Return what `write` has written.

    Raises
    ------
    ValueError
        If the file is damaged, is none of skae, or is one of another version.
    """
    with open(path, "rb") as opened:
        try:
            with np.load(opened, allow_pickle=False) as file:
                about = json.loads(file["about"].tobytes())
                if about["kind"] != KIND:
                    raise ValueError(f"it is a {about['kind']!r}")
                arrays = [file[str(i)] for i in range(len(file.files) - 1)]
            if about["format"] == CHECKPOINT_FORMAT:
                content: dict[str, Any] = unpacked(about["content"], arrays)
                return content
            version = about["skae"]
        except Exception as error:  # a damaged file may raise anything
            raise ValueError(
                f"{str(path)!r} is no checkpoint of skae, or a damaged one "
                f"({type(error).__name__}). Remove it to train anew, or name another "
                f"file."
            ) from error
    raise ValueError(
        f"The checkpoint {str(path)!r} was written by skae {version}, in format "
        f"{about['format']}; skae {__version__} reads format {CHECKPOINT_FORMAT}. Go "
        f"on with that version, or remove the file to train anew."
    )


def packed(value: Any, arrays: list[Array]) -> Any:
    """Return a value for JSON; arrays are added to a list, and named by their place."""
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError(f"an array of {value.dtype} would have to be pickled")
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, dict):
        return {"dict": {str(k): packed(v, arrays) for k, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return [packed(member, arrays) for member in value]
    return value.item() if isinstance(value, np.generic) else value


def unpacked(value: Any, arrays: list[Array]) -> Any:
    """Undo `packed`; tuples come back as lists."""
    if isinstance(value, list):
        return [unpacked(member, arrays) for member in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    return {name: unpacked(member, arrays) for name, member in value["dict"].items()}


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path`, whole, when the block is left."""
    mine = f"{node()}-{os.getpid()}-{uuid4().hex}"
    partial = path.with_name(f"{path.name}.{mine}{PARTIAL}")
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Bring to the disk which files a folder has, where systems let folders be opened.

    Without it a crash of the system might bring the old file back, whole.
    """
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_partial(path: Path) -> None:
    """Remove what killed fits have left behind, and nothing that is being written."""
    for partial in path.parent.glob(f"{escape(path.name)}.*{PARTIAL}"):
        with suppress(OSError, ValueError):
            if is_left_behind(partial):
                partial.unlink()


def is_left_behind(partial: Path) -> bool:
    """Tell whether nobody writes this file any more: its process has ended, or a day.

    Of another machine, and on systems where asking would end the process, it is a day.
    """
    host, process, _ = partial.name.removesuffix(PARTIAL).rsplit("-", 2)
    if os.name == "posix" and host.endswith(node()):
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
    return time.time() - partial.stat().st_mtime > DAY
