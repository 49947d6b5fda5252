"""Calls as XLA makes them of a handler, built by hand: what a wrong one is answered."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

S32, S64, U8, F32, F64 = 4, 5, 6, 11, 12
DTYPES = {"int32": S32, "int64": S64, "uint8": U8, "float32": F32, "float64": F64}
EXECUTE = 3
METADATA = 1
STRING = 4


class Extension(ctypes.Structure):
    pass


Extension._fields_ = [
    ("size", ctypes.c_size_t),
    ("type", ctypes.c_int),
    ("next", ctypes.POINTER(Extension)),
]

HEAD: list[tuple[str, Any]] = [
    ("size", ctypes.c_size_t),
    ("extensions", ctypes.POINTER(Extension)),
]


class Version(ctypes.Structure):
    _fields_ = [*HEAD, ("major", ctypes.c_int), ("minor", ctypes.c_int)]


class Error(ctypes.Structure):
    _fields_ = [*HEAD, ("message", ctypes.c_char_p), ("code", ctypes.c_int)]


CREATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(Error))


class Api(ctypes.Structure):
    _fields_ = [*HEAD, ("version", Version), ("internal", ctypes.c_void_p), ("create", CREATE)]


class Buffer(ctypes.Structure):
    _fields_ = [
        *HEAD,
        ("dtype", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
    ]


class Buffers(ctypes.Structure):
    _fields_ = [
        *HEAD,
        ("n", ctypes.c_int64),
        ("types", ctypes.POINTER(ctypes.c_int)),
        ("buffers", ctypes.POINTER(ctypes.POINTER(Buffer))),
    ]


class String(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char_p), ("length", ctypes.c_size_t)]


class Attributes(ctypes.Structure):
    _fields_ = [
        *HEAD,
        ("n", ctypes.c_int64),
        ("types", ctypes.POINTER(ctypes.c_int)),
        ("names", ctypes.c_void_p),
        ("values", ctypes.POINTER(ctypes.POINTER(String))),
    ]


class Call(ctypes.Structure):
    _fields_ = [
        *HEAD,
        ("api", ctypes.POINTER(Api)),
        ("context", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("args", Buffers),
        ("results", Buffers),
        ("attributes", Attributes),
    ]


class Metadata(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("version", Version), ("traits", ctypes.c_uint32)]


class MetadataExtension(ctypes.Structure):
    _fields_ = [("base", Extension), ("metadata", ctypes.POINTER(Metadata))]


class Caller:
    """XLA in the place of itself: its version, and the errors that handlers made."""

    def __init__(self, major: int = 0, minor: int = 3) -> None:
        self.errors: list[str] = []
        self.create = CREATE(self.error)
        self.api = Api(version=Version(major=major, minor=minor), create=self.create)

    def error(self, args: Any) -> int:
        self.errors.append(args.contents.message.decode())
        return len(self.errors)

    def buffers(self, arrays: Sequence[np.ndarray[Any, Any]]) -> Buffers:
        made = []
        for array in arrays:
            dims = (ctypes.c_int64 * array.ndim)(*array.shape)
            dtype = DTYPES.get(array.dtype.name, 0)
            made.append(
                ctypes.pointer(
                    Buffer(
                        dtype=dtype,
                        data=array.ctypes.data if array.size else None,
                        rank=array.ndim,
                        dims=dims,
                    )
                )
            )
        items = (ctypes.POINTER(Buffer) * len(made))(*made)
        return Buffers(n=len(made), buffers=items)

    def call(
        self,
        handler: Any,
        args: Sequence[np.ndarray[Any, Any]],
        results: Sequence[np.ndarray[Any, Any]],
        attributes: Sequence[bytes] = (),
        stage: int = EXECUTE,
        size: int = ctypes.sizeof(Call),
        kind: int = STRING,
    ) -> str | None:
        """Call a handler, and return the error that it made.

        `size` is what the call says of its own struct, `kind` the type of the attributes.
        """
        types = (ctypes.c_int * len(attributes))(*[kind] * len(attributes))
        texts = [ctypes.pointer(String(text, len(text))) for text in attributes]
        values = (ctypes.POINTER(String) * len(texts))(*texts)
        call = Call(
            size=size,
            api=ctypes.pointer(self.api),
            stage=stage,
            args=self.buffers(args),
            results=self.buffers(results),
            attributes=Attributes(n=len(texts), types=types, values=values),
        )
        before = len(self.errors)
        returned = handler(ctypes.addressof(call))
        assert returned == (0 if len(self.errors) == before else len(self.errors))
        return self.errors[-1] if returned else None

    def ask(self, handler: Any, says_version: bool) -> tuple[int, int]:
        """The version that a handler says it was made for."""
        metadata = Metadata()
        asked = MetadataExtension(Extension(type=METADATA), ctypes.pointer(metadata))
        first = Extension(type=METADATA + 1, next=ctypes.cast(ctypes.byref(asked), HEAD[1][1]))
        call = Call(size=ctypes.sizeof(Call), extensions=ctypes.pointer(first))
        if says_version:
            call.api = ctypes.pointer(self.api)
        assert handler(ctypes.addressof(call)) == 0
        return metadata.version.major, metadata.version.minor
