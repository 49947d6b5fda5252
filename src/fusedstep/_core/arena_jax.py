"""An arena's parameters as JAX sees them: arrays over the same memory, or a refusal.

JAX takes an array of NumPy as it is if it suits it, and else silently makes a copy. Of a view
that a step is to reach no copy will do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fusedstep._arrays.memory import LINE
from fusedstep._arrays.place import Host
from fusedstep._arrays.plain import address
from fusedstep._arrays.walk import Array
from fusedstep._core.arena_memory import ArenaMemory


def live_arrays(memory: ArenaMemory) -> Iterator[Any]:
    """The parameters as arrays of JAX, one after the other; all are checked first."""
    if not isinstance(memory.place, Host):
        raise TypeError(
            "this arena is on a CUDA device, and jax_params() is for the CPU; make the arena of "
            "NumPy arrays"
        )
    try:
        import jax
    except ImportError as error:
        raise ImportError(
            f"jax_params() needs JAX: `pip install 'fusedstep[jax]'` ({error})"
        ) from error
    doubles = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    for path, p in zip(memory.structure.paths, memory.p, strict=True):
        check_live(p, f"params{path}", doubles)
    return (_live(jax, view) for view in memory.params)


def check_live(p: Array, name: str, doubles: bool) -> None:
    """Refuse a parameter that JAX would copy; `doubles` says that it has float64."""
    if p.dtype == np.float64 and not doubles:
        raise ValueError(
            f"{name} is float64, and JAX would make a float32 copy, which no step reaches; call "
            '`jax.config.update("jax_enable_x64", True)` first, or give the arena float32'
        )
    if not p.flags.c_contiguous:
        raise ValueError(
            f"{name} is not in C order (strides {p.strides}), and JAX would go on showing a copy "
            "that no step reaches; give the arena `np.ascontiguousarray(array)` in its place"
        )
    if p.size and address(p) % LINE:
        raise ValueError(
            f"{name} begins {address(p) % LINE} bytes past a multiple of {LINE}, where JAX would "
            f"make a copy, which no step reaches; make it `fs.Arena(params, align={LINE})`"
        )


def _live(jax: Any, view: Any) -> Any:
    """A view as an array of JAX; of an empty one there is nothing to keep alive."""
    return jax.dlpack.from_dlpack(view, copy=False if view.size else None)
