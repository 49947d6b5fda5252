"""The files in the folder of compiled kernels. Whatever is wrong with one costs only its use.

What is loaded is machine code, or a pickle, which can run anything and crash on damage. So it
must be a file of the user's own, and it begins with a digest of itself and its name.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import warnings
from contextlib import suppress

from fusedstep._compiler.folder import UnfitError, fit_folder, is_own, remedy, wanted

MOST = 2**26
"""Bytes of a file that are read at most. Kernels are a thousand times smaller."""

FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
"""Flags to open a file, as far as the system has them.

Links are not followed, and a pipe does not wait for a writer.
"""


def load(name: str) -> bytes | None:
    """The bytes that were saved under a name; None if they are not there as they were saved."""
    content = _read(name) or b""
    seal, saved = content[:32], content[32:]
    return saved if seal == _seal(name, saved) else None


def save(name: str, content: bytes) -> None:
    """Keep bytes for `load`, in this process or another."""
    _write(name, _seal(name, content) + content)


def show(name: str, text: str) -> None:
    """Keep a text for people, as it is."""
    content = text.encode()
    if _read(name) != content:
        _write(name, content)


def _seal(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + content).digest()


def _read(name: str) -> bytes | None:
    """The bytes of a file that nobody else can have written; None if there is no such file."""
    try:
        opened = os.open(fit_folder() / name, FLAGS)
        try:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode) or not is_own(status):
                return None
            with open(opened, "rb", closefd=False) as file:
                return file.read(min(status.st_size, MOST))
        finally:
            os.close(opened)
    except (OSError, UnfitError):
        return None


def _write(name: str, content: bytes) -> None:
    """Write a file in one move, so that no other process reads half of it, or warn."""
    try:
        path = fit_folder() / name
        opened, draft = tempfile.mkstemp(dir=path.parent)
        try:
            with open(opened, "wb") as file:
                file.write(content)
            os.replace(draft, path)
        except BaseException:  # Ctrl-C, too
            with suppress(OSError):
                os.unlink(draft)
            raise
    except UnfitError as error:
        _warn(f"{error}")
    except OSError as error:
        _warn(f"{wanted()} cannot be written to ({error}); mend that, or {remedy()}")


warned: list[str] = []


def _warn(fault: str) -> None:
    """Warn of the first fault. A process has several kernels, and most faults are the folder's."""
    if not warned:
        warnings.warn(
            f"compiled kernels cannot be kept, so each process compiles them anew: {fault}",
            RuntimeWarning,
            stacklevel=2,
        )
        warned.append(fault)
