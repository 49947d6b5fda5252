"""Which engine runs a step, and which engines there are."""

from __future__ import annotations

import importlib
import platform
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fusedstep._arrays.cuda_array import on_device
from fusedstep._arrays.place import HOST, Place
from fusedstep._checks.wording import quoted
from fusedstep.plan import Table
from fusedstep.threads import get_num_threads

PREFERENCE = ("c", "numba", "numpy")
"""The engines for arrays on the CPU, from the fastest on."""

COMPILING = ("numba", "numpy")
"""Those of them that take rules of the user's own."""

ENGINES = ("c", "numba", "cuda", "numpy")
"""All that there are."""

BACKENDS = ("auto", *ENGINES)

NOT_BUILT = (
    "it was not built: the installation found no working C compiler. Install gcc or clang, "
    "then `pip install --force-reinstall --no-deps --no-cache-dir fusedstep` from its source"
)

REMEDIES = {
    "fusedstep._engine": NOT_BUILT,
    "numba": "Numba is not installed; `pip install numba`",
}
"""What to do about a module that is missing."""


def choose(
    backend: str, params: Sequence[tuple[str, Any]], own_rule: bool = False
) -> tuple[type[Table], Place]:
    """The table of the engine that `backend` names, or of the fastest, and where it works.

    That is where all of `params` live, which come with their names. `own_rule` says that it
    is for a rule of the user's own.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} is unknown; pass one of {quoted(BACKENDS)}")
    devices = [entry for entry in params if on_device(entry[1])]
    if devices:
        if backend not in ("auto", "cuda"):
            raise ValueError(
                f"backend={backend!r} steps arrays on the CPU, and {_whereabouts(devices[0])}; "
                "pass backend='auto' or 'cuda', or arrays on the CPU"
            )
        place = place_of(params)
        return _table("cuda"), place
    if backend == "cuda" and params:
        raise ValueError(
            f"backend='cuda' steps arrays on a CUDA device, and {_whereabouts(params[0])}; pass "
            "arrays on the device (`cuda.to_device(x)` of Numba, `cupy.asarray(x)`, `x.cuda()` of "
            "torch), or backend='auto'"
        )
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
    return _table(backend), HOST


def place_of(params: Sequence[tuple[str, Any]]) -> Place:
    """Where all of `params` live, which come with their names."""
    devices = [entry for entry in params if on_device(entry[1])]
    if not devices:
        return HOST
    for entry in params:
        if not on_device(entry[1]):
            raise ValueError(
                f"{_whereabouts(devices[0])}, {_whereabouts(entry)}; pass all on one device, "
                "or make an optimizer for each place"
            )
    _table("cuda")  # or the reason why there is none
    place: Place = _module("device").place(devices)
    return place


def _table(name: str) -> type[Table]:
    reason = why_missing(name)
    if reason is not None:
        raise RuntimeError(f"backend={name!r} is not available: {reason}")
    table: type[Table] = _module(name).Table
    return table


def _whereabouts(entry: tuple[str, Any]) -> str:
    name, array = entry
    if not on_device(array):
        return f"{name} is on the CPU"
    if why_missing("cuda") is not None:
        return f"{name} is on a CUDA device"
    return f"{name} is on CUDA device {_module('device').place([entry]).ordinal}"


def _module(name: str) -> Any:
    return importlib.import_module(f"fusedstep.backends.{name}")


@cache
def why_missing(name: str) -> str | None:
    """Why the engine `name` cannot be used, or None if it can."""
    if name == "cuda":
        reason: str | None = _module("available").why_missing()
        return reason
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
    The choice never changes a result. A ValueError lists the names if this CPU or build lacks
    the one given; where the C engine was not built, a RuntimeError says why.

    >>> import fusedstep as fs
    >>> if fs.info().isas:
    ...     fs.set_isa(fs.get_isa())  # what is in force already
    """
    _c_engine().select_isa(name)


def get_isa() -> str:
    """The instruction set of the C engine's kernels, see `set_isa`."""
    return str(_c_engine().isa())


def _c_engine() -> Any:
    _table("c")
    return _module("c")


class Info(NamedTuple):
    """What `fusedstep.info()` knows; `print` shows it.

    version, python, numpy
        The versions of this package, of Python and of NumPy.
    machine
        The system and the CPU's architecture.
    backends
        Each engine, and why it is missing; None where it is there.
    auto
        The engine that `backend="auto"` takes for arrays on the CPU.
    isa, isas
        The instruction set of the C engine in force, and all that run here; None and []
        without that engine.
    threads
        The most that a step uses.
    """

    version: str
    python: str
    numpy: str
    machine: str
    backends: dict[str, str | None]
    auto: str
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

    backends = {name: why_missing(name) for name in ENGINES}
    c = _module("c") if backends["c"] is None else None
    return Info(
        version=version("fusedstep"),
        python=platform.python_version(),
        numpy=np.__version__,
        machine=f"{platform.system()} {platform.machine()}",
        backends=backends,
        auto=next(name for name in PREFERENCE if backends[name] is None),
        isa=c and c.isa(),
        isas=c.isas() if c else [],
        threads=get_num_threads(),
    )
