"""Which engine runs a step, and which engines there are."""

from __future__ import annotations

import importlib
import platform
import warnings
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fusedstep.plan import Table
from fusedstep.structure import quoted
from fusedstep.threads import get_num_threads

PREFERENCE = ("c", "numba", "numpy")
"""The engines, from the fastest on."""

COMPILING = ("numba", "numpy")
"""Those that take rules of the user's own."""

BACKENDS = ("auto", *PREFERENCE)

NOT_BUILT = (
    "it was not built: the installation found no working C compiler. Install gcc or clang, "
    "then `pip install --force-reinstall --no-deps --no-cache-dir fusedstep` from its source"
)

REMEDIES = {
    "fusedstep._engine": NOT_BUILT,
    "numba": "Numba is not installed; `pip install numba`",
}
"""What to do about a module that is missing."""


def table_class(backend: str, own_rule: bool = False) -> type[Table]:
    """The table of the engine that `backend` names, or of the fastest that is there.

    `own_rule` says that it is for a rule of the user's own.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} is unknown; pass one of {quoted(BACKENDS)}")
    fit = COMPILING if own_rule else PREFERENCE
    if backend == "auto":
        backend = next(name for name in fit if why_missing(name) is None)
        if backend == "numpy":
            _warn_of_slow_engine()
    if backend not in fit:
        raise ValueError(
            f"backend={backend!r} holds the package's own rules alone, and this one is not; "
            f"pass one of {quoted(['auto', *fit])}"
        )
    reason = why_missing(backend)
    if reason is not None:
        raise RuntimeError(f"backend={backend!r} is not available: {reason}")
    table: type[Table] = _module(backend).Table
    return table


def _module(name: str) -> Any:
    return importlib.import_module(f"fusedstep.backends.{name}")


@cache
def why_missing(name: str) -> str | None:
    """Why the engine `name` cannot be used, or None if it can."""
    try:
        _module(name)
    except ModuleNotFoundError as error:
        return REMEDIES.get(error.name or "", str(error))
    except ImportError as error:
        return f"it is installed but cannot be loaded: {error}"
    return None


@cache
def _warn_of_slow_engine() -> None:
    warnings.warn(
        "fusedstep runs on its NumPy reference, many times slower than its other engines. "
        f"C: {why_missing('c')}. Numba: {why_missing('numba')}. `backend='numpy'` asks for it "
        "without this warning.",
        RuntimeWarning,
        stacklevel=5,
    )


def set_isa(name: str) -> None:
    """Run the C engine's kernels in the instruction set `name` from the next step on.

    The fastest that the CPU runs is taken without this, or `FUSEDSTEP_ISA` from the
    environment: "baseline", "avx2" or "avx512" on x86-64, "baseline" or "neon" on arm64.
    The choice never changes a result.
    """
    _c_engine().select_isa(name)


def get_isa() -> str:
    """The instruction set of the C engine's kernels."""
    return str(_c_engine().isa())


def _c_engine() -> Any:
    table_class("c")
    return _module("c")


class Info(NamedTuple):
    """What `fusedstep.info()` knows; `print` shows it."""

    version: str
    python: str
    numpy: str
    machine: str
    backends: dict[str, str | None]
    """Each engine, and why it is missing; None where it is there."""
    auto: str
    """The engine that backend="auto" takes."""
    isa: str | None
    isas: list[str]
    threads: int

    def __str__(self) -> str:
        lines = [
            f"fusedstep {self.version}, Python {self.python}, NumPy {self.numpy}, {self.machine}"
        ]
        for name, reason in self.backends.items():
            if reason is None:
                chosen = " (auto)" if name == self.auto else ""
                lines.append(f"engine {name:<6} available{chosen}")
            else:
                lines.append(f"engine {name:<6} MISSING: {reason}")
        if self.isa is not None:
            lines.append(f"instruction set {self.isa}, of {', '.join(self.isas)}")
        lines.append(f"threads {self.threads}")
        return "\n".join(lines)


def info() -> Info:
    """The engines that are there, why others are not, the instruction set and the threads.

    >>> import fusedstep as fs
    >>> fs.info().backends["numpy"] is None
    True
    """
    from importlib.metadata import version

    backends = {name: why_missing(name) for name in PREFERENCE}
    c = _module("c") if backends["c"] is None else None
    return Info(
        version=version("fusedstep"),
        python=platform.python_version(),
        numpy=np.__version__,
        machine=f"{platform.system()} {platform.machine()}",
        backends=backends,
        auto=next(name for name, reason in backends.items() if reason is None),
        isa=c and c.isa(),
        isas=c.isas() if c else [],
        threads=get_num_threads(),
    )
