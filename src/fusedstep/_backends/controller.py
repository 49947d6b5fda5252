"""The number of threads, as threadpoolctl sees and limits it."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

from fusedstep._backends import threads

FOUND_BY = "_multiarray_umath"
"""Beginning of the name of NumPy's extension, a library that every process with fusedstep has.

threadpoolctl finds what it controls among the shared libraries that are loaded. fusedstep's own is
loaded by the first optimizer, which may be made within a limit, and may not have been built.
"""


def register() -> None:
    """Become known to threadpoolctl, if it is there.

    It is imported for that, in 1 ms of the 150 that NumPy and this package take: a process that
    imports it later finds this package known, as one that has imported it before.
    """
    try:
        import threadpoolctl
    except ImportError:
        return
    if hasattr(threadpoolctl, "register"):  # from release 3.2 on
        threadpoolctl.register(controller(threadpoolctl.LibController))


def controller(base: Any) -> type[Any]:
    """The class that threadpoolctl asks and tells, with its own class of that kind as its base.

    The API is OpenMP's, whose variables are followed and whose team may be borrowed: limits of
    BLAS alone let steps be.
    """

    class Controller(base):  # type: ignore[misc]
        user_api = "openmp"
        internal_api = "fusedstep"
        filename_prefixes = (FOUND_BY,)

        def set_additional_attributes(self) -> None:
            self.prefix = "fusedstep"
            self.filepath = own_library()

        def get_num_threads(self) -> int:
            return threads.get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            threads.limit_num_threads(num_threads)

        def get_version(self) -> str:
            return own_version()

    return Controller


@cache
def own_library() -> str | None:
    """The path of the C backend, or else of the package."""
    found = find_spec("fusedstep._engine") or find_spec("fusedstep")
    return None if found is None else found.origin


@cache
def own_version() -> str:
    from importlib.metadata import version  # it would take a tenth of the time of our import

    return version("fusedstep")
