"""The CPUs that this process may use: its affinity mask, and the quotas of its control groups."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

MEMBERSHIP = re.compile(r"^[0-9]+:(?P<controllers>[^:\n]*):(?P<group>/.*)$", re.MULTILINE)
"""A line of /proc/self/cgroup; version 2 names no controllers there."""

MOUNT = re.compile(
    r"^\S+ \S+ \S+ (?P<top>\S+) (?P<folder>\S+) .*? - (?P<kind>cgroup2?) \S+ (?P<options>\S+)$",
    re.MULTILINE,
)
"""A line of /proc/self/mountinfo: which part of a hierarchy of groups lies in which folder."""


class Count(NamedTuple):
    """A number of threads, and where it comes from."""

    number: int
    origin: str


def usable_cpus(root: Path = Path("/")) -> Count:
    """The number of CPUs for this process, at least 1; `root` is where the system's files lie.

    The time that a control group has on all CPUs together counts as so many whole ones, rounded
    up. A group has no more than the groups that it is in.
    """
    return min([affine_cpus(), *quotas(root)], key=lambda count: count.number)


def affine_cpus() -> Count:
    """The CPUs that the process may be scheduled on, or that Python is told to count."""
    counted = getattr(os, "process_cpu_count", None)  # Python 3.13: PYTHON_CPU_COUNT goes first
    affine = getattr(os, "sched_getaffinity", None)
    if counted is not None:
        cpus = counted()
    else:
        cpus = len(affine(0)) if affine else os.cpu_count()
    return Count(cpus or 1, "the CPUs of this process")


def quotas(root: Path) -> Iterator[Count]:
    """The quotas of this process's control groups, and of those that they are in."""
    for folder, name in groups(root):
        for read in (quota_of_version_2, quota_of_version_1):
            try:
                quota, period = read(folder)
                if quota > 0:
                    yield Count(max(1, -(-quota // period)), f"the quota of control group {name}")
            except (OSError, ValueError, ZeroDivisionError):  # no limit here, or "max": none
                continue


def quota_of_version_2(folder: Path) -> tuple[int, int]:
    """Microseconds of CPU time that a group has in each period, and those of the period."""
    quota, period = (folder / "cpu.max").read_text().split()
    return int(quota), int(period)


def quota_of_version_1(folder: Path) -> tuple[int, int]:
    quota, period = (folder / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
    return int(quota.read_text()), int(period.read_text())


def groups(root: Path) -> Iterator[tuple[Path, str]]:
    """The folders of the groups that this process is in, from the inmost on, and their names."""
    try:
        memberships = MEMBERSHIP.findall((root / "proc/self/cgroup").read_text())
        mounts = MOUNT.findall((root / "proc/self/mountinfo").read_text())
    except (OSError, ValueError):  # a system without control groups
        return
    for top, folder, kind, options in mounts:
        for controllers, group in memberships:
            if kind == "cgroup2":
                belongs = controllers == ""
            else:
                belongs = "cpu" in controllers.split(",") and "cpu" in options.split(",")
            if belongs:
                mount = root / unescaped(folder).lstrip("/")
                yield from ascent(mount, PurePosixPath(group), PurePosixPath(unescaped(top)))


def ascent(mount: Path, group: PurePosixPath, top: PurePosixPath) -> Iterator[tuple[Path, str]]:
    """The folder of a group and of those that it is in, up to `top`, which is mounted at `mount`.

    In a container the group may lie outside of what is mounted, or be named as the host names it.
    Then the mount itself is all that can be seen.
    """
    inner = group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()
    for part in (inner, *inner.parents):
        yield mount / part, str(top / part)


def unescaped(field: str) -> str:
    r"""A field of mountinfo, where a blank is written \040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
