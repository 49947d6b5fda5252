"""The number of threads that a step may use."""

from __future__ import annotations

import os
from operator import index
from pathlib import Path

from fusedstep._checks.wording import shown

MOST = 1024
"""The most threads that may be asked for."""

_threads: int | None = None


def get_num_threads() -> int:
    """The most threads that a step uses, the caller's included.

    Before `set_num_threads` is called, it is `FUSEDSTEP_NUM_THREADS` from the environment, or
    else the number of CPUs that this process may use: those of its affinity mask, within its
    control group's quota. Short steps use fewer, and the number never changes a result.
    """
    global _threads
    if _threads is None:
        named = os.environ.get("FUSEDSTEP_NUM_THREADS")
        _threads = _usable_cpus() if named is None else _from_environment(named)
    return _threads


def set_num_threads(n: int) -> None:
    """Let a step use up to `n` threads, the caller's included: a whole number from 1 to 1024.

    >>> import fusedstep as fs
    >>> fs.set_num_threads(fs.get_num_threads())
    """
    global _threads
    if isinstance(n, bool) or not hasattr(n, "__index__") or not 1 <= index(n) <= MOST:
        raise _refusal("n", n)
    _threads = index(n)


def _from_environment(named: str) -> int:
    if not named.isdecimal() or len(named) > 4 or not 1 <= int(named) <= MOST:
        raise _refusal("FUSEDSTEP_NUM_THREADS", named)
    return int(named)


def _refusal(name: str, value: object) -> ValueError:
    return ValueError(
        f"{name}={shown(value)} is no number of threads; pass a whole number from 1 to {MOST}"
    )


def _usable_cpus() -> int:
    affine = getattr(os, "sched_getaffinity", None)
    cpus = len(affine(0)) if affine else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cpus, MOST, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no such control group, or no limit in it: "max"
        return min(cpus, MOST)
