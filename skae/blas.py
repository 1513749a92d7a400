"""``y += a x`` in one pass over memory, which NumPy has no function for.

SciPy's BLAS has one. Python's own wrapper of it stops all other threads meanwhile, so
that it is called by the address which SciPy exports for compiled code.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from scipy.linalg import cython_blas

from skae.layout import Array

__all__ = ["add_scaled"]

#: Below this size, the call costs more than it saves.
FEWEST = 2**16

#: BLAS counts in 32 bits.
MOST = 2**30


def exported(name: str, number: type[Any]) -> tuple[Any, type[Any]] | None:
    """Return a function of BLAS and its type of numbers; None if SciPy has another."""
    capsule, api = cython_blas.__pyx_capi__.get(name), ctypes.pythonapi
    if capsule is None:
        return None
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    signature = api.PyCapsule_GetName(capsule)
    kinds = [part.split()[0] for part in signature.decode()[6:].split(",")]
    if [kind == "int" for kind in kinds] != [True, False, False, True, False, True]:
        return None
    pointers = [ctypes.c_void_p] * 6
    address = api.PyCapsule_GetPointer(capsule, signature)
    return ctypes.CFUNCTYPE(None, *pointers)(address), number


AXPY = {
    np.dtype(np.float32): exported("saxpy", ctypes.c_float),
    np.dtype(np.float64): exported("daxpy", ctypes.c_double),
}


def add_scaled(y: Array, a: float, x: Array) -> None:
    """Add ``a x`` to `y` in place; both are vectors of the same type."""
    axpy = AXPY.get(y.dtype) if FEWEST <= y.size <= MOST else None
    if axpy is None or not fits(y, x):
        y += a * x
        return
    function, number = axpy
    n, scale, stride = (
        ctypes.c_int(y.size),
        number(a),
        ctypes.c_int(y.strides[0] // y.itemsize),
    )
    source, target = (v.__array_interface__["data"][0] for v in (x, y))
    by = ctypes.addressof
    function(by(n), by(scale), source, by(stride), target, by(stride))


def fits(y: Array, x: Array) -> bool:
    """Return whether both are vectors of one kind that BLAS can go through."""
    same = x.dtype == y.dtype and x.shape == y.shape and x.strides == y.strides
    return same and y.ndim == 1 and y.strides[0] > 0 and y.flags.writeable
