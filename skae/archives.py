"""Archives: nested containers of arrays, numbers and strings in one file, safely.

A file is a NumPy archive without pickled objects: the arrays, and a JSON text that says
where in the content they belong. It is written beside the old one, flushed to the disk,
and put in its place in one go: at any moment there is one whole file.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from platform import node
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np

from skae._version import __version__
from skae.layout import Array

__all__ = ["CHECKPOINT_FORMAT", "read", "remove_partial", "write"]

#: Changes with the form of the files.
CHECKPOINT_FORMAT = 1

KIND = "skae checkpoint"

#: In seconds.
DAY = 24 * 60 * 60

#: What a fit writes before it is put in the place of the file.
PARTIAL = ".partial"


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
