"""Who takes part: our own steps, those of others, and the limit.

A contestant makes the same update of the same arrays as all others, or says why it cannot.
"""

from __future__ import annotations

from fusedstep.benchmarks.contestants.contestant import Contestant
from fusedstep.benchmarks.contestants.deepspeed import DeepSpeed
from fusedstep.benchmarks.contestants.numpy import NumPy, NumPyPasses
from fusedstep.benchmarks.contestants.optax import Optax
from fusedstep.benchmarks.contestants.ours import Call, Default, InArena, Limit, NewArrays, Ours
from fusedstep.benchmarks.contestants.torch import Torch, TorchPasses

DEFAULT = Default("fusedstep")
NUMBA = Ours("fusedstep numba", backend="numba")
ONE_THREAD = Ours("fusedstep, one thread", threads=1)
NEW_ARRAYS = NewArrays("fusedstep, new arrays")
ARENA = InArena("fusedstep arena")
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
"""Of a step by itself."""

LOOPS: dict[str, list[Contestant]] = {
    "numpy": [DEFAULT, ONE_THREAD, NUMBA, LIMIT],
    "torch": [DEFAULT, ONE_THREAD, NUMBA, FUSED, LIMIT],
}
"""Of one between products. Beside NumPy's nobody has torch's threads at work, too."""

WHOLE: list[Contestant] = [TorchPasses(), DEFAULT, CALL, NumPyPasses(), LIMIT]
"""Of one that does the whole step."""

EVERYONE = list(dict.fromkeys([*CONTESTANTS, ONE_THREAD, *WHOLE]))

__all__ = [
    *("ARENA", "CALL", "DEEPSPEED", "DEFAULT", "FOREACH", "FUSED", "LIMIT", "NEW_ARRAYS", "NUMBA"),
    *("NUMPY", "ONE_THREAD", "OPTAX", "PLAIN"),
    *("CONTESTANTS", "EVERYONE", "LOOPS", "WHOLE", "Contestant"),
]
