"""The choice of the backend that runs a step, and which backends there are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from fusedstep._arrays.cuda_array import on_device
from fusedstep._arrays.libraries import TO_DEVICE
from fusedstep._arrays.place import HOST, Place
from fusedstep._backends.cuda import available
from fusedstep._backends.plan import Table
from fusedstep._checks.elsewhere import BACKENDS as MEANT
from fusedstep._checks.hints import nearest
from fusedstep._checks.warn import warn
from fusedstep._checks.wording import quoted, shown

PREFERENCE = ("c", "numba", "numpy")
"""The backends for arrays on the CPU, the fastest first."""

COMPILING = ("numba", "numpy")
"""The backends for arrays on the CPU that run custom rules, the fastest first."""

BACKENDS = ("c", "numba", "cuda", "numpy")
"""All backends."""

CHOICES = ("auto", *BACKENDS)
"""The values of the argument `backend`."""

NOT_BUILT = (
    "it was not built: the installation found no working C compiler. Install gcc or clang, "
    "then `pip install --force-reinstall --no-deps --no-cache-dir fusedstep` from its source"
)

FREE_THREADED = (
    "it was not built: this Python is a free-threaded build, and C reads lists and arrays under "
    "the GIL. Install fusedstep into Python's usual build"
)

BIG_ENDIAN = (
    "it was not built: C keeps values in fewer bytes by the order of a little-endian processor's, "
    "and this one is big-endian. Numba and NumPy step the same bits"
)


def _why_not_built() -> str:
    if "t" in getattr(sys, "abiflags", ""):
        return FREE_THREADED
    return BIG_ENDIAN if sys.byteorder == "big" else NOT_BUILT


REMEDIES = {
    "fusedstep._engine": _why_not_built(),
    "numba": "Numba is not installed; `pip install numba`",
}
"""Advice about a module that is missing."""


def choose(
    backend: str,
    params: Sequence[tuple[str, Any]],
    custom: bool = False,
    capturable: bool = False,
) -> tuple[type[Table], Place]:
    """The table of the backend that `backend` names, or of the fastest, and the place it works in.

    That is the place of `params`, which come with their names. `custom` says that the table is
    for a custom rule, `capturable` that its steps may be part of a CUDA graph.
    """
    if backend not in CHOICES:
        raise ValueError(f"backend={shown(backend)} is unknown; {backend_hint(backend)}")
    devices = [entry for entry in params if on_device(entry[1])]
    if devices:
        if backend not in ("auto", "cuda"):
            raise ValueError(
                f"backend={backend!r} steps arrays on the CPU, and {_whereabouts(devices[0])}; "
                "pass backend='auto' or 'cuda', or arrays on the CPU"
            )
        place = place_of(params)
        return _capturable() if capturable else table_of("cuda"), place
    if capturable:
        where = f"and {_whereabouts(params[0])}" if params else "and there are no parameters"
        raise ValueError(
            f"capturable=True is for parameters on a CUDA device, {where}; leave it out, or pass "
            f"arrays on the device ({TO_DEVICE})"
        )
    if backend == "cuda" and params:
        raise ValueError(
            f"backend='cuda' steps arrays on a CUDA device, and {_whereabouts(params[0])}; pass "
            f"arrays on the device ({TO_DEVICE}), or backend='auto'"
        )
    fit = COMPILING if custom else PREFERENCE
    if backend == "auto":
        backend = next(name for name in fit if why_missing(name) is None)
        if backend == "numpy":
            _warn_of_slow_backend()
    if backend not in fit:
        raise ValueError(
            f"backend={backend!r} holds the package's own rules alone, and this is a custom rule; "
            f"pass one of {quoted(['auto', *fit])}"
        )
    return table_of(backend), HOST


def backend_hint(name: Any) -> str:
    """The names of all backends, and the one that was meant."""
    meant = MEANT.get(name.lower()) if isinstance(name, str) else None
    meant = meant or nearest(name, CHOICES)
    every = f"pass one of {quoted(CHOICES)}"
    return every if meant is None else f"{every}; did you mean `backend={meant!r}`?"


def place_of(params: Sequence[tuple[str, Any]]) -> Place:
    """The place where all of `params` live, which come with their names."""
    devices = [entry for entry in params if on_device(entry[1])]
    if not devices:
        return HOST
    for entry in params:
        if not on_device(entry[1]):
            raise ValueError(
                f"{_whereabouts(devices[0])}, {_whereabouts(entry)}; pass all on one device, "
                "or make an optimizer for each place"
            )
    table_of("cuda")  # raises if the backend is missing
    from fusedstep._backends.cuda.device import place

    return place(devices)


def table_of(name: str) -> type[Table]:
    """The table of the backend `name`; a RuntimeError says why it is missing."""
    reason = why_missing(name)
    if reason is not None:
        raise RuntimeError(f"backend={name!r} is not available: {reason}")
    return TABLES[name]()


def _whereabouts(entry: tuple[str, Any]) -> str:
    name, array = entry
    if not on_device(array):
        return f"{name} is on the CPU"
    if why_missing("cuda") is not None:
        return f"{name} is on a CUDA device"
    from fusedstep._backends.cuda.device import place

    return f"{name} is on CUDA device {place([entry]).ordinal}"


def _c() -> type[Table]:
    from fusedstep._backends.c.engine import Table

    return Table


def _numba() -> type[Table]:
    from fusedstep._backends.numba.engine import Table

    return Table


def _cuda() -> Any:
    if available.simulated() or why_missing("c") is not None:
        from fusedstep._backends.cuda import engine

        return engine.Table
    from fusedstep._backends.cuda import hosted

    return hosted.Table


def _capturable() -> type[Table]:
    from fusedstep._backends.cuda import captured

    return captured.over(_cuda())


def _numpy() -> type[Table]:
    from fusedstep._backends.numpy import Table

    return Table


TABLES: dict[str, Callable[[], type[Table]]] = {
    "c": _c,
    "numba": _numba,
    "cuda": _cuda,
    "numpy": _numpy,
}
"""A function for each backend that imports its table, when that is first asked for."""


@cache
def why_missing(name: str) -> str | None:
    """The reason why the backend `name` cannot be used, or None if it can."""
    if name == "cuda":
        return available.why_missing()
    try:
        TABLES[name]()
    except ModuleNotFoundError as error:
        return REMEDIES.get(error.name or "", str(error))
    except ImportError as error:
        return f"it is installed but cannot be loaded: {error}"
    return None


@cache
def _warn_of_slow_backend() -> None:
    warn(
        "fusedstep runs on its NumPy reference, many times slower than its other backends. "
        f"C: {why_missing('c')}. Numba: {why_missing('numba')}. `backend='numpy'` asks for it "
        "without this warning."
    )
