"""Files that are replaced whole: whoever reads one finds the old or the new, at every instant.

The new file is written beside the old one, under a name of its own, and forced to the disk before
it takes the old one's name; then the folder is forced, too, so that the name is there to stay. A
process that is killed on the way leaves such a file behind, and the next one that writes there
clears it away, since nobody holds its lock any more.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # on Windows, where what is left behind stays
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".partial"
"""The end of the name of a file that is not whole yet."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file that takes the place of `path` if the block ends without an error."""
    target = Path(os.path.realpath(path))  # what a link points to is replaced, not the link
    _clear_away(target)
    partial, file = _begin(target)
    try:
        with file:
            yield file
            with suppress(FileNotFoundError):
                os.chmod(partial, stat.S_IMODE(target.stat().st_mode))
            _force(file.fileno())
            if fcntl is not None:  # before anybody else gets the lock
                os.replace(partial, target)
        if fcntl is None:  # where a file is renamed only when it is closed
            os.replace(partial, target)
    except BaseException:
        with suppress(FileNotFoundError):
            partial.unlink()
        raise
    _force_names(target.parent)


def _begin(target: Path) -> tuple[Path, BinaryIO]:
    """Make a new file beside the target, which others leave alone while it is open."""
    while True:
        partial = target.with_name(f".{target.name}.{token_hex(8)}{SUFFIX}")
        file = open(partial, "xb", buffering=0)  # noqa: SIM115  the caller closes it
        if fcntl is None:
            return partial, file
        fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if partial.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return partial, file
        file.close()  # it was cleared away before it was locked


def _force(number: int) -> None:
    """Force what was written to the disk itself; macOS has a call of its own for that."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        with suppress(OSError):  # which not every file system there has
            fcntl.fcntl(number, fcntl.F_FULLFSYNC)
            return
    os.fsync(number)


def _force_names(folder: Path) -> None:
    """Force a folder's names to the disk, where a folder can be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _clear_away(target: Path) -> None:
    """Remove the files that processes which were killed have left of theirs."""
    if fcntl is None:
        return
    with suppress(OSError):
        for name in os.listdir(target.parent):
            if name.startswith(f".{target.name}.") and name.endswith(SUFFIX):
                _remove_if_nobodys(target.with_name(name))


def _remove_if_nobodys(partial: Path) -> None:
    """Remove a file, unless somebody has locked it."""
    with suppress(OSError), open(partial, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        partial.unlink()
