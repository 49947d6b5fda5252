"""A pytest plugin that runs the CUDA backend without a device: in memory of the host, as PTX.

    PYTHONPATH=tests/helpers pytest -p cuda_in_memory -m cuda tests/backends/cuda

What the compiler for the device has made of the kernels runs as C (ptx_in_c.py), under a driver
over the memory of the host (cuda_driver.c), which is there in the place of NVIDIA's before anything
asks for that. So all that the package does with a device runs as it is, except that nothing is
linked to machine code. LATE=1 has a stream's work run as late as it may, LATE=2 by chance.
DEVICES=2 has two devices, and RACES=0 looks for no races, which is ten times as fast.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent

COMPILER = os.environ.get("CC", "gcc")

FOLDER = Path(tempfile.gettempdir()) / f"fusedstep-cuda-in-memory-{os.getuid()}"
"""The folder of what was compiled before, by what it was made of."""

AT_ONCE, LATE, BY_CHANCE, NEVER = range(4)

KINDS = ("launch", "upload", "download", "wait", "fill", "allocate", "record")
"""The calls that are counted."""

CC = (9, 0)

OUT_OF_MEMORY, ILLEGAL_ADDRESS = 2, 700
"""Errors of the driver: after the second one the device is of no use any more."""


def built(text: str, *flags: str) -> Path:
    """The shared library that a C text makes."""
    key = hashlib.sha256("\0".join([text, *flags, COMPILER]).encode()).hexdigest()[:32]
    made = FOLDER / f"{key}.so"
    if not made.exists():
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        source = FOLDER / f"{key}.{os.getpid()}.c"
        source.write_text(text)
        target = source.with_suffix(".so")
        command = [COMPILER, "-shared", "-fPIC", f"-I{HERE}", *flags, source, "-o", target, "-lm"]
        subprocess.run([*map(str, command), "-ldl"], check=True)
        os.replace(target, made)
        source.unlink()
    return made


class InMemory:
    """The driver over memory of the host."""

    def __init__(self) -> None:
        text = (HERE / "cuda_driver.c").read_text() + (HERE / "ptx_device.h").read_text()
        path = built(text, "-O1", "-g", "-Wl,-soname,libcuda.so.1")
        # Whoever opens libcuda.so.1 from now on gets this one.
        self.library = ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
        self.translator = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(self.translate)
        self.library.fs_driver_translator(self.translator)
        self.library.fs_driver_message.restype = ctypes.c_char_p
        self.library.fs_driver_failed.restype = ctypes.c_char_p
        self.library.fs_driver_calls.restype = ctypes.c_int64
        self.library.fs_driver_counts.restype = ctypes.c_void_p
        self.made: dict[bytes, Path] = {}
        """The shared libraries of kernels, by their PTX."""
        self.paths: list[Any] = []
        """The paths of kernels that were loaded: C reads them."""

    def translate(self, ptx: bytes) -> int | None:
        """The path of a shared library of a kernel; None, and a line that says why, if not."""
        from ptx_in_c import FLAGS, translate

        try:
            if ptx not in self.made:
                self.made[ptx] = built(translate(ptx.decode()), *FLAGS)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return None
        self.paths.append(ctypes.create_string_buffer(str(self.made[ptx]).encode()))
        return ctypes.addressof(self.paths[-1])

    def load(self, image: bytes) -> int:
        """A kernel, on the device that is the current one: the handle of its function."""
        loaded = ctypes.c_void_p()
        code = self.library.cuModuleLoadData(ctypes.byref(loaded), image)
        assert code == 0, code
        assert loaded.value is not None
        return loaded.value

    def mode(self, mode: int, seed: int = 1) -> None:
        """Have a stream's work run at once, late or by chance; or leave launches out."""
        self.library.fs_driver_mode(mode, ctypes.c_uint64(seed))

    def devices(self, count: int) -> None:
        """Have so many devices, of those that nobody has asked for yet."""
        self.library.fs_driver_devices(count)

    def checks(self, races: bool) -> None:
        """Have launches checked for races, or not."""
        self.library.fs_driver_checks(races)

    def fail(self, nth: int, code: int = OUT_OF_MEMORY, lasting: bool = False) -> None:
        """Have the nth call from now on fail, and all after it if that is lasting; 0: none."""
        self.library.fs_driver_fail(ctypes.c_int64(nth), code, lasting)

    def fault(self, nth: int) -> None:
        """Have the nth launch from now on fail when it runs; 0: none."""
        self.library.fs_driver_fault(ctypes.c_int64(nth))

    def failed(self) -> str | None:
        """The function that has failed as it was told to."""
        name: bytes | None = self.library.fs_driver_failed()
        return None if name is None else name.decode()

    def calls(self) -> int:
        """How many calls there have been that may fail."""
        return int(self.library.fs_driver_calls())

    def counts(self) -> dict[str, int]:
        """How many calls of each kind there have been."""
        found = (ctypes.c_int64 * len(KINDS)).from_address(self.library.fs_driver_counts())
        return dict(zip(KINDS, found, strict=True))

    def message(self) -> str:
        """The driver's last complaint, which it then forgets."""
        return bytes(self.library.fs_driver_message()).decode()


def as_ptx(module: ModuleType, ordinal: int) -> bytes:
    """Make what stands for machine code: PTX, which a driver loads as well."""
    from fusedstep._backends.cuda.ptx import compile_ptx
    from fusedstep._compiler import files

    name = f"{module.__name__}.{'.'.join(map(str, CC))}.ptx"
    kept = files.load(name)
    if kept is None:
        kept = compile_ptx(module, CC).encode() + b"\0"
        files.save(name, kept)
    return bytes(kept)


DRIVER = InMemory()
DRIVER.mode(int(os.environ.get("LATE", "0")))
DRIVER.devices(int(os.environ.get("DEVICES", "1")))
DRIVER.checks(os.environ.get("RACES", "1") != "0")


def install() -> Any:
    """Have the package load PTX."""
    from fusedstep._backends.cuda import driver

    driver.cubin = as_ptx
    return driver


def pytest_configure(config: Any) -> None:
    install()
