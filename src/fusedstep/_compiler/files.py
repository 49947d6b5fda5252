"""The files in the folder of compiled kernels. Whatever is wrong with one costs a warning.

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
from pathlib import Path

from fusedstep._compiler.folder import UnfitError, fit_folder, is_own, remedy, wanted

MOST = 2**26
"""Bytes of a file that are read at most. Kernels are a thousand times smaller."""

FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
"""Flags to open a file, as far as the system has them.

Links are not followed, and a pipe does not wait for a writer.
"""


def load(name: str) -> bytes | None:
    """The bytes that were saved under a name; None if there are none, or if they cannot be trusted.

    A file that is there and is not as it was saved costs a warning.
    """
    try:
        path = fit_folder() / name
    except (OSError, UnfitError):
        return None  # `save` tells
    try:
        content = _read(path)
    except FileNotFoundError:
        return None
    except (OSError, UnfitError) as error:
        _warn(ANEW, f"{error}")
        return None
    seal, saved = content[:32], content[32:]
    if seal != _seal(name, saved):
        _warn(ANEW, f"{path} is damaged")
        return None
    return saved


def distrust(name: str, error: Exception) -> None:
    """Warn that what was loaded as it was saved is of no use after all."""
    _warn(ANEW, f"{wanted() / name}: {type(error).__name__}: {error}")


def save(name: str, content: bytes) -> None:
    """Keep bytes for `load`, in this process or another."""
    _write(name, _seal(name, content) + content)


def show(name: str, text: str) -> None:
    """Keep a text for people, as it is."""
    content = text.encode()
    with suppress(OSError, UnfitError):
        if _read(fit_folder() / name) == content:
            return
    _write(name, content)


def _seal(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + content).digest()


def _read(path: Path) -> bytes:
    """The bytes of a file that nobody else can have written."""
    opened = os.open(path, FLAGS)
    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise UnfitError(f"{path} is no file")
        if not is_own(status):
            raise UnfitError(f"{path} belongs to another user, or may be written to by others")
        with open(opened, "rb", closefd=False) as file:
            return file.read(min(status.st_size, MOST))
    finally:
        os.close(opened)


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
        _warn(UNKEPT, f"{error}")
    except OSError as error:
        _warn(UNKEPT, f"{wanted()} cannot be written to ({error}); mend that, or {remedy()}")


ANEW = "a compiled kernel that was kept cannot be used, so it is compiled anew"
UNKEPT = "compiled kernels cannot be kept, so each process compiles them anew"

warned: set[str] = set()
"""The kinds of fault that have been warned of: the first fault of each is told.

A process has several kernels, and most faults are the folder's.
"""


def _warn(what: str, fault: str) -> None:
    if what not in warned:
        warned.add(what)
        warnings.warn(f"{what}: {fault}", RuntimeWarning, stacklevel=2)
