"""The instruction set of the C backend's kernels."""

from __future__ import annotations

from typing import Any

from fusedstep._backends.choose import table_of


def set_isa(name: str) -> None:
    """Run the C backend's kernels in the instruction set `name` from the next step on.

    Without this, a step uses the one that `FUSEDSTEP_ISA` names in the environment, or else the
    fastest that the CPU runs: "baseline", "avx2" or "avx512" on x86-64, "baseline" or "neon" on
    arm64. The choice never changes a result. A ValueError lists the names if this CPU or build
    lacks the one given; where the C backend was not built, a RuntimeError says why.

    >>> import fusedstep as fs
    >>> if fs.info().isas:
    ...     fs.set_isa(fs.get_isa())  # what is in force already
    """
    _engine().select_isa(name)


def get_isa() -> str:
    """The instruction set of the C backend's kernels, see `set_isa`."""
    return str(_engine().isa())


def isas() -> list[str]:
    """The instruction sets that this build holds and this CPU runs, plainest first."""
    return list(_engine().isas())


def _engine() -> Any:
    table_of("c")  # raises if the backend is missing
    from fusedstep._backends.c import engine

    return engine
