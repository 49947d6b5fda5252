"""State dicts that keep what they hold: torch's `load_state_dict` casts a parameter's state.

It would round float32 moments of 16-bit parameters, and read tails and codes as numbers. So it is
given sealed what it must not cast, and the seals are broken once all is in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fusedstep._core.kept import FIXED
from fusedstep._core.names_in_torch import ROW_STEP, STEP
from fusedstep._core.packed import base_name
from fusedstep.torch._arrays import HALVES
from fusedstep.torch._kinds import Group


class Sealed:
    """A tensor that torch does not take for one."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def opened(self, parameter: Any) -> torch.Tensor:
        """The tensor, where the parameter is; float64 of another's is float32."""
        single = self.tensor.dtype is torch.float64 and self.tensor.dim() > 0
        dtype = torch.float32 if single else self.tensor.dtype
        return self.tensor.to(device=parameter.device, dtype=dtype)


def sealed(state_dict: Any, groups: list[Group]) -> dict[str, Any]:
    """A state dict for an optimizer of these groups, in which torch casts only what it may.

    The groups keep their choices of how things are kept: these are the affair of the optimizer.
    """
    given, state = [], dict(state_dict["state"])
    for saved, own in zip(state_dict["param_groups"], groups, strict=False):
        others = {name: value for name, value in saved.items() if name not in FIXED}
        kept = {name: own[name] for name in FIXED if name in own}
        given.append({**others, **kept})
        for key, parameter in zip(saved["params"], own["params"], strict=False):
            if isinstance(state.get(key), Mapping):
                low = kept.get("state_dtype", "float32") != "float32"
                state[key] = _sealed_state(state[key], parameter, low)
    given += state_dict["param_groups"][len(given) :]
    return {**state_dict, "state": state, "param_groups": given}


def _sealed_state(state: Mapping[Any, Any], parameter: Any, low: bool) -> dict[Any, Any]:
    """A parameter's state; `low` says that it is to be kept in fewer bytes."""

    def seals(name: Any, value: Any) -> bool:
        if name == STEP or not isinstance(value, torch.Tensor):
            return False
        if parameter.dtype in HALVES or name == ROW_STEP:
            return True
        if value.dtype is torch.uint8:
            return base_name(name) in state
        if value.dtype is torch.int32:
            return any(name == base_name(each) for each in state)
        return low and value.dtype is torch.bfloat16

    return {name: Sealed(value) if seals(name, value) else value for name, value in state.items()}


def open_seals(state: Mapping[Any, Any]) -> None:
    """Put the tensors in the place of sealed ones."""
    for parameter, own in state.items():
        if isinstance(own, dict):
            for name, value in own.items():
                if isinstance(value, Sealed):
                    # Rows are counted on the CPU, wherever they are.
                    own[name] = value.tensor if name == ROW_STEP else value.opened(parameter)
