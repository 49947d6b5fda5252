"""The contestants: our own steps, those of other packages, and the limit.

Each makes the same update of the same arrays as all others, or says why it cannot.
"""

from __future__ import annotations

from fusedstep.benchmarks.contestants.contestant import Contestant
from fusedstep.benchmarks.contestants.deepspeed import DeepSpeed
from fusedstep.benchmarks.contestants.numpy import NumPy, NumPyPasses
from fusedstep.benchmarks.contestants.optax import Optax
from fusedstep.benchmarks.contestants.ours import Call, Default, InArena, Limit, NewArrays, Ours
from fusedstep.benchmarks.contestants.torch import Torch, TorchPasses
from fusedstep.benchmarks.records import OURS

DEFAULT = Default(OURS)
NUMBA = Ours(f"{OURS} numba", backend="numba")
ONE_THREAD = Ours(f"{OURS}, one thread", threads=1)
NEW_ARRAYS = NewArrays(f"{OURS}, new arrays")
ARENA = InArena(f"{OURS} arena")
CALL = Call()
LIMIT = Limit()

FUSED = Torch("torch fused", fused=True)
FOREACH = Torch("torch foreach", foreach=True)
PLAIN = Torch("torch", foreach=False)
OPTAX = Optax()
DEEPSPEED = DeepSpeed()
NUMPY = NumPy()

CONTESTANTS: list[Contestant] = [
    *(DEFAULT, NEW_ARRAYS, ARENA, NUMBA),
    *(FUSED, FOREACH, PLAIN, OPTAX, DEEPSPEED, NUMPY),
    LIMIT,
]
"""Contestants of a step by itself."""

LOOPS: dict[str, list[Contestant]] = {
    "numpy": [DEFAULT, ONE_THREAD, NUMBA, LIMIT],
    "torch": [DEFAULT, ONE_THREAD, NUMBA, FUSED, LIMIT],
}
"""Contestants of a step between matrix products, by the library of the products.

torch's stay out between NumPy's products: no real program runs both thread pools.
"""

WHOLE: list[Contestant] = [TorchPasses(), DEFAULT, CALL, NumPyPasses(), LIMIT]
"""Contestants of a whole step: unscaling, clipping, update, zeroed gradients, average."""

EVERYONE = list(dict.fromkeys([*CONTESTANTS, ONE_THREAD, *WHOLE]))

__all__ = [
    *("ARENA", "CALL", "DEEPSPEED", "DEFAULT", "FOREACH", "FUSED", "LIMIT", "NEW_ARRAYS", "NUMBA"),
    *("NUMPY", "ONE_THREAD", "OPTAX", "PLAIN"),
    *("CONTESTANTS", "EVERYONE", "LOOPS", "WHOLE", "Contestant"),
]
