"""The folder of compiled kernels, and whether it can be trusted: what lies in it will be run.

So it is the user's own, nobody else may write to it, and nobody else can put another in its
place. It is judged at each use: it may vanish while the process runs, or be opened to others.
"""

from __future__ import annotations

import os
import shlex
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path

PLACES = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA")
"""Environment variables that may name the folder in which it is, in the order of their say."""

POSIX = hasattr(os, "geteuid")
"""False where files have no owners and modes to judge by; there users have folders of their own."""

WRITABLE = stat.S_IWGRP | stat.S_IWOTH

MOST_LINKS = 40
"""Links on the way to a folder; Linux follows as many."""


class UnfitError(Exception):
    """The folder cannot be used; the text says why, and what helps."""


def fit_folder() -> Path:
    """The folder, made if it is not there. An UnfitError or an OSError says why there is none."""
    path = _resolved(wanted().parent) / wanted().name
    status = _made(path)
    if not stat.S_ISDIR(status.st_mode):
        raise UnfitError(f"{path} is a link or a file and no folder; move it away, or {remedy()}")
    if POSIX and status.st_uid != os.geteuid():
        raise UnfitError(f"{path} belongs to another user; {remedy()}")
    if not is_own(status):
        command = f"chmod go-w {shlex.quote(str(path))}"
        raise UnfitError(f"{path} may be written to by others; run `{command}`")
    return path


def remedy() -> str:
    """The way to a folder that will do."""
    variable = next(filter(os.environ.get, PLACES), "XDG_CACHE_HOME")
    return f"set {variable} to a folder of your own, to which nobody else may write"


def is_own(status: os.stat_result) -> bool:
    """Whether nobody but its owner, the user of this process, may write to a file or folder."""
    return not POSIX or (status.st_uid == os.geteuid() and not status.st_mode & WRITABLE)


@cache
def wanted() -> Path:
    """The path of the folder as it is named. It stays, if the process moves to another folder."""
    named = next(filter(None, map(os.environ.get, PLACES)), "~/.cache")
    base = os.path.expanduser(named)
    if base.startswith("~"):
        raise UnfitError(f"{named} cannot be found, for want of a home folder; {remedy()}")
    try:
        return Path(os.path.abspath(base), "fusedstep")
    except OSError as error:
        raise UnfitError(f"{named} cannot be found ({error}); {remedy()}") from None


def _resolved(path: Path) -> Path:
    """A path without links, made if it is not there, in which nobody else can change a thing."""
    if not POSIX:
        path.mkdir(parents=True, exist_ok=True)
        return path
    here, *ahead = Path(path.anchor), *reversed(path.parts[1:])
    _judge(here, os.lstat(here))
    links = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            here = here.parent
            continue
        status = _made(here / part)
        _judge(here / part, status)
        if not stat.S_ISLNK(status.st_mode):
            here /= part
            continue
        links += 1
        if links > MOST_LINKS:
            raise UnfitError(f"{path} is a circle of links; {remedy()}")
        target = Path(os.readlink(here / part))
        here = Path(target.anchor or here)
        ahead += reversed(target.parts[bool(target.anchor) :])
    return here


def _made(path: Path) -> os.stat_result:
    """The status of a path; if there was nothing, a folder for the user alone has been made."""
    with suppress(FileNotFoundError):
        return os.lstat(path)
    path.mkdir(mode=0o700, exist_ok=True)
    return os.lstat(path)


def _judge(place: Path, status: os.stat_result) -> None:
    """Raise an UnfitError if other users can rename what is in a folder, or redirect a link."""
    # The owner of / could replace Python itself. In a container it may be a number without a name.
    if status.st_uid not in (os.geteuid(), 0, os.lstat(place.anchor).st_uid):
        raise UnfitError(f"{wanted()} is reached by {place}, of another user; {remedy()}")
    if stat.S_ISLNK(status.st_mode) or status.st_mode & stat.S_ISVTX:
        return
    if status.st_mode & stat.S_IWOTH or (
        status.st_mode & stat.S_IWGRP and not _is_private(place, status.st_gid)
    ):
        raise UnfitError(f"{wanted()} is in {place}, to which others may write; {remedy()}")


def _is_private(folder: Path, group: int) -> bool:
    """Whether a folder that its group may write to is still the user's alone.

    Many systems give each user a group of the same name, with nobody else in it, and a umask of
    002: ~/.cache then is open to that group, which lets nobody in. A list of access rights may,
    and the group's bits do not tell whom.
    """
    import grp  # not on Windows
    import pwd

    try:
        user, members = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return (
        (group, members.gr_name) == (user.pw_gid, user.pw_name)
        and {*members.gr_mem} <= {user.pw_name}
        and "system.posix_acl_access" not in _attributes(folder)
    )


def _attributes(folder: Path) -> list[str]:
    """The names of a folder's extended attributes, where the system has such."""
    try:
        return os.listxattr(folder)
    except (AttributeError, OSError):
        return []
