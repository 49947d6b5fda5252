"""Kernels that ptx_in_c.py has translated, compiled and launched over NumPy arrays."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ptx_in_c import FLAGS, switched, translate

CHECK_RACES = 1

READ_ONLY = 1

COMPILER = shutil.which("gcc") or shutil.which("clang")

Argument = int | np.generic


class Allocation(ctypes.Structure):
    """`struct allocation` of ptx_device.h."""

    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64), ("flags", ctypes.c_uint32)]


class Device(ctypes.Structure):
    """`struct device` of ptx_device.h."""

    _fields_ = [
        ("allocations", ctypes.POINTER(Allocation)),
        ("count", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    ]


class LaunchError(Exception):
    """The message with which a launch has ended."""


class Kernel:
    """A kernel, compiled for the host, and others, which differ from it by `changes`."""

    def __init__(
        self,
        ptx: str,
        folder: Path,
        flags: Sequence[str] = (),
        changes: Sequence[Mapping[int, str]] | None = None,
    ) -> None:
        assert COMPILER is not None
        number = len([*folder.glob("*.c")])
        source, built = folder / f"{number}.c", folder / f"{number}.so"
        self.refused: set[int] = set()
        """The numbers of the changes that cannot be translated."""
        if changes is None:
            text = translate(ptx)
        else:
            text, self.refused = switched(ptx, changes)
        source.write_text(text)
        paths = [str(source), "-o", str(built)]
        command = [COMPILER, *FLAGS, *flags, "-shared", "-fPIC", *paths, "-lm"]
        subprocess.run(command, check=True)
        library = ctypes.CDLL(str(built))
        library.kernel_name.restype = ctypes.c_char_p
        self.name = library.kernel_name().decode()
        sizes = (ctypes.c_uint32 * 256)()
        self.sizes = sizes[: library.parameters(sizes)]
        """The sizes of the parameters."""
        self._run = library.run
        self._library = library

    def choose(self, number: int) -> None:
        """Have a change in force, by its number from 1 on; 0: none."""
        ctypes.c_int.in_dll(self._library, "fs_mutant").value = number

    def launch(
        self,
        blocks: int | Sequence[int],
        threads: int | Sequence[int],
        arguments: Sequence[Argument],
        arrays: Sequence[np.ndarray[Any, Any]],
        seed: int = 0,
        flags: int = CHECK_RACES,
    ) -> None:
        """Run it over arrays, each an allocation that is read only if the array is.

        An int among the arguments is one of 64 bits.
        """
        table = (Allocation * len(arrays))()
        ordered = sorted(arrays, key=lambda array: array.ctypes.data)
        for row, array in zip(table, ordered, strict=True):
            low = array.ctypes.data
            row.low, row.high = low, low + array.nbytes
            row.flags = 0 if array.flags.writeable else READ_ONLY
        device = Device(table, len(arrays), flags)
        kept = [np.array(x, np.int64 if isinstance(x, int) else x.dtype) for x in arguments]
        assert [each.nbytes for each in kept] == self.sizes
        given = (ctypes.c_void_p * (len(kept) + 1))(*(each.ctypes.data for each in kept))
        error = ctypes.create_string_buffer(1000)
        shape = [
            (ctypes.c_uint32 * 3)(*((each, 1, 1) if isinstance(each, int) else each))
            for each in (blocks, threads)
        ]
        if self._run(ctypes.byref(device), *shape, ctypes.c_uint64(seed), given, error, 1000):
            raise LaunchError(error.value.decode())
