"""Drop-in replacements for torch's optimizers."""

from typing import Any

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "fusedstep.torch needs torch; `pip install 'fusedstep[torch]'`",
        name="torch",
    ) from error

from fusedstep.torch import functional, layouts
from fusedstep.torch.backward import step_in_backward
from fusedstep.torch.optimizers import *  # noqa: F403  each of them is public
from fusedstep.torch.optimizers import __all__ as _optimizers
from fusedstep.torch.replacing import replace

__all__ = ["functional", "layouts", "replace", "step_in_backward", *_optimizers]


def __getattr__(name: str) -> Any:
    from fusedstep._names import missing

    raise missing(__name__, name)
