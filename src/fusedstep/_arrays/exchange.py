"""Arrays that C reads by itself: those of NumPy, and of types with DLPack's exchange interface.

DLPack 1.3 defines a table of C functions, which a type of arrays has as the capsule
`__dlpack_c_exchange_api__`. The fifth of them describes an array where it lies, without owning it,
for some 30 ns: https://dmlc.github.io/dlpack/latest/c_api.html.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np

from fusedstep._arrays.dtypes import BFLOAT16, foreign_dtype
from fusedstep._arrays.libraries import EXCHANGE, UNKNOWN, library_of

CAPSULE = b"dlpack_exchange_api"

AS_NUMPYS, BY_DLPACK, BY_ATTRIBUTE, BY_MEMORY, BY_NUMBAS, BY_CUPYS = range(6)
"""The ways in which C reads arrays, see fs_library in csrc/api.h."""

OWN_WAYS = {"numba": BY_NUMBAS, "cupy": BY_CUPYS}
"""The ways of libraries whose own arrays, and no derived ones, are read by their attributes."""

CPU, CUDA = 1, 2
"""DLPack's numbers of the kinds of devices."""

MAJOR = 1
"""The version of DLPack whose structs csrc/gradients.c knows."""

FLOATS, BFLOATS = 2, 4
"""DLPack's codes of IEEE floats, and of bfloat16."""


class Table(ctypes.Structure):
    """The beginning of DLPack's `DLPackExchangeAPI`."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("previous", ctypes.c_void_p),
        ("managed_tensor_allocator", ctypes.c_void_p),
        ("managed_tensor_from_py_object_no_sync", ctypes.c_void_p),
        ("managed_tensor_to_py_object_no_sync", ctypes.c_void_p),
        ("dltensor_from_py_object_no_sync", ctypes.c_void_p),
    )


class Exchange(NamedTuple):
    """How C reads the arrays of a type, see fs_library in csrc/api.h."""

    type: type
    read: int
    """The address of DLPack's function; 1 for arrays of CuPy of which the device is looked at."""
    deferred: Any
    """The method that tells arrays whose memory does not hold their values; None: there is none."""
    way: int = BY_DLPACK

    def dtype(self, dtype: np.dtype[Any], array: Any = None) -> int:
        """A dtype as these arrays have it: that of `array` if it is given."""
        if self.way in (BY_ATTRIBUTE, BY_MEMORY):
            return 0 if dtype == BFLOAT16 else dtype.itemsize
        if self.way != BY_DLPACK:
            if dtype == BFLOAT16:
                return id(foreign_dtype(dtype) if array is None else array.dtype)
            # The address of NumPy's own object; one that is equal to it may be gone tomorrow.
            return id(np.dtype(dtype.type))
        code = BFLOATS if dtype == BFLOAT16 else FLOATS
        return code | 8 * dtype.itemsize << 8 | 1 << 16

    def unit(self, dtype: np.dtype[Any]) -> int:
        """Bytes that their strides count."""
        return dtype.itemsize if self.way == BY_DLPACK else 1


NUMPYS = Exchange(np.ndarray, 0, None, AS_NUMPYS)


def on_device(kind: type) -> Exchange | None:
    """How C reads the arrays of a type on a CUDA device; None: only Python can."""
    found = None if kind is np.ndarray else exchange(kind)
    if found is not None:
        return found
    library = library_of(kind)
    if library.package in OWN_WAYS and library.own() is kind:
        return Exchange(kind, 0, None, OWN_WAYS[library.package])
    if library.lasting:
        return Exchange(kind, 0, None, BY_MEMORY)
    return Exchange(kind, 0, None, BY_ATTRIBUTE) if library is UNKNOWN else None


def on_one_of_several(kind: type) -> Exchange | None:
    """The same where there are several devices, of which most attributes do not tell one."""
    found = on_device(kind)
    if found is None or found.way == BY_ATTRIBUTE:
        return None
    if found.way == BY_NUMBAS:
        return found._replace(way=BY_MEMORY)
    return found._replace(read=1) if found.way == BY_CUPYS else found


def exchange(kind: type) -> Exchange | None:
    """How C reads the arrays of a type; None: only Python can."""
    if kind not in _known:
        _known[kind] = _exchange(kind)
    return _known[kind]


_known: dict[type, Exchange | None] = {}


def _exchange(kind: type) -> Exchange | None:
    if kind is np.ndarray:
        return NUMPYS
    library = library_of(kind)
    capsule = getattr(kind, EXCHANGE, None)
    if capsule is None or not library.read(kind) or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    at: int | None = pointer(capsule, CAPSULE)
    while at:
        table = Table.from_address(at)
        if table.major == MAJOR:
            read: int | None = table.dltensor_from_py_object_no_sync
            return Exchange(kind, read, library.deferred()) if read else None
        at = table.previous
    return None
