"""The number of threads that a step may use."""

from __future__ import annotations

import os
from operator import index

from fusedstep._backends import openmp
from fusedstep._backends.cpus import Count, usable_cpus
from fusedstep._checks.warn import warn
from fusedstep._checks.wording import shown

MOST = 1024
"""The most threads that may be asked for."""

_own: Count | None = None
"""The number without a limit of threadpoolctl; None until it is asked for."""

_threads: int | None = None
"""The number in force."""


def get_num_threads() -> int:
    """The most threads that a step uses, the caller's included.

    The first of these that is there says how many: `set_num_threads`; `FUSEDSTEP_NUM_THREADS`
    from the environment; `OMP_NUM_THREADS`, as joblib sets it for its workers; the CPUs that this
    process may use, which are those of its affinity mask, within the quota of its control groups.
    `OMP_THREAD_LIMIT` bounds the latter two. Within `threadpoolctl.threadpool_limits` it is what
    that says. Short steps use fewer, and the number never changes a result.
    """
    return _number_in_force() if _threads is None else _threads


def set_num_threads(n: int) -> None:
    """Let a step use up to `n` threads, the caller's included: a whole number from 1 to 1024.

    >>> import fusedstep as fs
    >>> fs.set_num_threads(fs.get_num_threads())
    """
    global _own, _threads
    if isinstance(n, bool) or not hasattr(n, "__index__") or not 1 <= index(n) <= MOST:
        raise _refusal("n", n)
    _own = Count(index(n), "set_num_threads")
    _threads = _own.number


def limit_num_threads(n: int) -> None:
    """Set the number for a while: to set it to what it was ends that."""
    global _threads
    get_num_threads()
    _threads = min(max(n, 1), MOST)


def origin() -> str:
    """Where the number of threads comes from."""
    number = get_num_threads()
    assert _own is not None
    return _own.origin if number == _own.number else "a limit of threadpoolctl"


def _number_in_force() -> int:
    """Find out the number, and remember it."""
    global _own, _threads
    ignored: list[str] = []
    named = os.environ.get("FUSEDSTEP_NUM_THREADS", "").strip()
    if named:  # an empty one is none, as scripts leave it that have no number to pass
        found = Count(_from_environment(named), "FUSEDSTEP_NUM_THREADS")
    else:
        found, ignored = openmp.threads(os.environ, usable_cpus())
    _own = found._replace(number=min(found.number, MOST))
    _threads = _own.number
    for message in ignored:  # once, when the number is known: a warning may be an error
        warn(message)
    return _threads


def _from_environment(named: str) -> int:
    if not named.isdecimal() or len(named) > 4 or not 1 <= int(named) <= MOST:
        raise _refusal("FUSEDSTEP_NUM_THREADS", named)
    return int(named)


def _refusal(name: str, value: object) -> ValueError:
    return ValueError(
        f"{name}={shown(value)} is no number of threads; pass a whole number from 1 to {MOST}"
    )
