"""How many threads a step may use."""

from __future__ import annotations

import os
from pathlib import Path

_threads: int | None = None


def get_num_threads() -> int:
    """The most threads that a step uses, the caller's included.

    At first `FUSEDSTEP_NUM_THREADS` from the environment, or else the number of CPUs that
    this process may use: those of its affinity mask, within its control group's quota.
    Short steps use fewer, and the number never changes a result.
    """
    global _threads
    if _threads is None:
        named = os.environ.get("FUSEDSTEP_NUM_THREADS")
        _threads = _usable_cpus() if named is None else _check("FUSEDSTEP_NUM_THREADS", named)
    return _threads


def set_num_threads(n: int) -> None:
    """Let a step use up to `n` threads, the caller's included."""
    global _threads
    _threads = _check("n", n)


def _check(name: str, value: int | str) -> int:
    try:
        number = int(value) if isinstance(value, str) else value
        if isinstance(number, int) and not isinstance(number, bool) and number >= 1:
            return number
    except ValueError:
        pass
    raise ValueError(f"{name}={value!r} is no number of threads; pass a whole number from 1")


def _usable_cpus() -> int:
    affine = getattr(os, "sched_getaffinity", None)
    cpus = len(affine(0)) if affine else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cpus, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no such control group, or no limit in it: "max"
        return cpus
