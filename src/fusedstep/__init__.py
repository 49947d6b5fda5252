"""The parameter update of a training loop in one fused pass, the same bits on every engine."""

from typing import TYPE_CHECKING, Any

from fusedstep import functional
from fusedstep._backends.info import info
from fusedstep._backends.isa import get_isa, set_isa
from fusedstep._backends.threads import get_num_threads, set_num_threads
from fusedstep._core.arena import Arena
from fusedstep._core.custom import rule
from fusedstep._core.optimizer import Optimizer
from fusedstep._core.request import Report
from fusedstep.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop

if TYPE_CHECKING:
    from fusedstep import presets, rules, schedules

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Arena",
    "Optimizer",
    "RMSprop",
    "Report",
    "functional",
    "get_isa",
    "get_num_threads",
    "info",
    "presets",
    "rule",
    "rules",
    "schedules",
    "set_isa",
    "set_num_threads",
]


def __getattr__(name: str) -> Any:
    # What few ask for and would slow the import: the version is looked up by a library that
    # costs as much as the rest, `rules` reads its own source, presets are few people's, and a
    # number will often do in place of `schedules`.
    if name == "__version__":
        from importlib.metadata import version

        return version("fusedstep")
    if name in ("presets", "rules", "schedules"):
        from importlib import import_module

        return import_module(f"fusedstep.{name}")
    raise AttributeError(f"module 'fusedstep' has no attribute {name!r}")
