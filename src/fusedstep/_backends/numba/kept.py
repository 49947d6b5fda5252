"""Functions that Numba compiled, kept for other processes.

Numba's own cache unpickles whatever lies beside a function's file, or in NUMBA_CACHE_DIR, and a
damaged one ends in a crash. So the place of its cache is taken by one that keeps the same
content, in files that are checked before they are unpickled.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: SLF001
# Numba's own caches call the same two methods.

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Callable
from typing import Any

import llvmlite
import numba
from numba import njit
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from fusedstep._compiler import files
from fusedstep._compiler.interrupts import delayed


class Kept(NullCache):
    """A cache of one function with one signature, by a name that no other function has."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load_overload(self, sig, target_context):
        """The result for this machine and these versions; None if it must be compiled."""
        name = self._file(target_context.codegen())
        saved = files.load(name)
        if saved is None:
            return None
        target_context.refresh()
        try:
            return CompileResult._rebuild(target_context, *pickle.loads(saved))
        except Exception as error:  # a version of Numba that is called as another one
            files.distrust(name, error)
            return None

    def save_overload(self, sig, data):
        files.save(self._file(data.codegen), dumps(data._reduce()))

    def _file(self, codegen: Any) -> str:
        # Nodes of a cluster may share the folder, but not the instructions of their CPUs.
        machine = repr((*codegen.magic_tuple(), llvmlite.__version__))
        short = hashlib.sha256(machine.encode()).hexdigest()[:16]
        return f"{self.name}.{sys.implementation.cache_tag}.numba-{numba.__version__}.{short}"


def kept(function: Callable[..., Any], name: str, signature: Any) -> Any:
    """A function compiled for one signature, which runs without the GIL, kept by that name."""
    compiled = njit(nogil=True)(function)
    compiled._cache = Kept(name)  # type: ignore[attr-defined]
    with delayed():
        compiled.compile(signature)
    compiled.disable_compile()
    return compiled
