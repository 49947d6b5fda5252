"""Optimizers for programs that JAX compiles: steps of this package inside of `jax.jit`."""

try:
    import jax.ffi  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "fusedstep.jax needs JAX 0.5 or newer; `pip install 'fusedstep[jax]'`",
        name=error.name,
    ) from error

from fusedstep.jax._transformation import State, Transformation, from_class
from fusedstep.jax.optimizers import *  # noqa: F403  each of them is public
from fusedstep.jax.optimizers import __all__ as _optimizers

__all__ = ["State", "Transformation", "from_class", *_optimizers]
