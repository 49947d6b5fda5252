"""Arrays of a type that has DLPack's exchange interface, read by C alone, as tensors of torch are.

An object is little more than the address of what it consists of, here its description.
"""

from __future__ import annotations

import ctypes
from typing import Any

import cuda_in_memory

SOURCE = """
#include <string.h>

enum { CONTENT = 2, BYTES = 48 }; /* the word of an object of ctypes; the size of a DLTensor */

int read_array(void *array, void *to) {
    memcpy(to, ((void **)array)[CONTENT], BYTES);
    return 0;
}
"""

NAME = b"dlpack_exchange_api"
"""The capsule's name, which it has the address of."""


class Exchanged(ctypes.Structure):
    """An array of float32 of one dimension: a DLTensor, and its only length and stride."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("device", ctypes.c_int32),
        ("ordinal", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_uint64),
        ("strides", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("length", ctypes.c_int64),
        ("stride", ctypes.c_int64),
    )
    __dlpack__ = __dlpack_device__ = None
    owner: Any

    @classmethod
    def of(cls, owner: Any, address: int, length: int) -> Exchanged:
        made = cls(address, 2, 0, 1, 2, 32, 1, 0, 0, 0, length, 1)
        made.shape = ctypes.addressof(made) + cls.length.offset
        made.strides = ctypes.addressof(made) + cls.stride.offset
        made.owner = owner
        return made

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": (self.length,),
            "typestr": "<f4",
            "strides": None,
            "data": (self.data, False),
        }


LIBRARY = ctypes.CDLL(str(cuda_in_memory.built(SOURCE, "-O2")))

TABLE = (ctypes.c_void_p * 8)()
TABLE[0] = 1  # the version, 1.0
TABLE[5] = ctypes.cast(LIBRARY.read_array, ctypes.c_void_p)

new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
Exchanged.__dlpack_c_exchange_api__ = new(  # type: ignore[attr-defined]
    ctypes.addressof(TABLE), NAME, None
)
