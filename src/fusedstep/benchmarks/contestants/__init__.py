"""Who takes part: our own steps, those of others, and the limit.

A contestant makes the same update of the same arrays as all others, or says why it cannot.
"""

from __future__ import annotations

from fusedstep.benchmarks.contestants.contestant import Contestant, Entry
from fusedstep.benchmarks.contestants.deepspeed import DeepSpeed
from fusedstep.benchmarks.contestants.numpy import NumPy, NumPyPasses
from fusedstep.benchmarks.contestants.optax import Optax
from fusedstep.benchmarks.contestants.ours import (
    Call,
    Default,
    InArena,
    Limit,
    NewArrays,
    Ours,
)
from fusedstep.benchmarks.contestants.torch import Torch, TorchPasses

OURS = [
    Default("fusedstep"),
    Ours("fusedstep numba", backend="numba"),
    NewArrays("fusedstep, new arrays"),
    InArena("fusedstep arena"),
]

OTHERS = [
    Torch("torch fused", fused=True),
    Torch("torch foreach", foreach=True),
    Torch("torch", foreach=False),
    Optax(),
    DeepSpeed(),
    NumPy(),
]

CONTESTANTS: list[Contestant] = [*OURS, *OTHERS, Limit()]
"""Of a step by itself."""

ONE_THREAD = Ours("fusedstep, one thread", threads=1)
"""What a step inside a loop is held against."""

CALL = Call()

PASSES = [TorchPasses(), NumPyPasses()]
"""Of the whole step, beside our own and the limit."""

__all__ = ["CALL", "CONTESTANTS", "ONE_THREAD", "OTHERS", "OURS", "PASSES", "Contestant", "Entry"]
