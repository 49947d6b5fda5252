"""The parameter update of a training loop in one fused pass, the same bits on every backend."""

import sys
from typing import TYPE_CHECKING, Any

from fusedstep import functional, optimizers, portable, schedules
from fusedstep._backends.controller import register
from fusedstep._backends.info import info
from fusedstep._backends.isa import get_isa, set_isa
from fusedstep._backends.threads import get_num_threads, set_num_threads
from fusedstep._core.arena import Arena
from fusedstep._core.custom import rule
from fusedstep._core.optimizer import Optimizer
from fusedstep._core.request import Report
from fusedstep._core.rows import Rows
from fusedstep._names import Finder, missing
from fusedstep.checkpoints import load, save
from fusedstep.optimizers import *  # noqa: F403  each of them is public
from fusedstep.recording import Recorder, replay

if TYPE_CHECKING:
    from fusedstep import autograd as autograd
    from fusedstep import jax as jax
    from fusedstep import presets, rules
    from fusedstep import sklearn as sklearn
    from fusedstep import thinc as thinc
    from fusedstep import torch as torch

__all__ = [
    "Arena",
    "Optimizer",
    "Recorder",
    "Report",
    "Rows",
    "functional",
    "get_isa",
    "get_num_threads",
    "info",
    "load",
    "portable",
    "presets",
    "replay",
    "rule",
    "rules",
    "save",
    "schedules",
    "set_isa",
    "set_num_threads",
    *optimizers.__all__,
]

register()
del register


if Finder not in sys.meta_path:
    sys.meta_path.append(Finder)


def __getattr__(name: str) -> Any:
    # Imported when they are asked for, because they would slow the import: the version is looked
    # up by a library that costs as much as the rest, `rules` reads its own source, few use presets,
    # and the packages that the others are for may not even be there.
    match name:
        case "__version__":
            from importlib.metadata import version

            return version("fusedstep")
        case "autograd":
            import fusedstep.autograd as autograd

            return autograd
        case "jax":
            import fusedstep.jax as jax

            return jax
        case "presets":
            import fusedstep.presets as presets

            return presets
        case "rules":
            import fusedstep.rules as rules

            return rules
        case "sklearn":
            import fusedstep.sklearn as sklearn

            return sklearn
        case "thinc":
            import fusedstep.thinc as thinc

            return thinc
        case "torch":
            import fusedstep.torch as torch

            return torch
    raise missing("fusedstep", name)
