"""The parameter update of a training loop in one fused pass, the same bits on every engine."""

from typing import Any

from fusedstep import functional
from fusedstep.dispatch import get_isa, info, set_isa
from fusedstep.optimizer import Optimizer
from fusedstep.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop
from fusedstep.rule import rule
from fusedstep.threads import get_num_threads, set_num_threads

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "functional",
    "get_isa",
    "get_num_threads",
    "info",
    "rule",
    "set_isa",
    "set_num_threads",
]


def __getattr__(name: str) -> Any:
    # Looking up the version loads a library that costs as much as the rest of the import.
    if name == "__version__":
        from importlib.metadata import version

        return version("fusedstep")
    raise AttributeError(f"module 'fusedstep' has no attribute {name!r}")
