"""Steps that torch alone can take, and why: in a graph, elsewhere, of tensors of another kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from fusedstep._checks.wording import quoted
from fusedstep.torch._arrays import is_distributed
from fusedstep.torch._kinds import Group, Kind

HANDED_ON = ("capturable", "differentiable")
"""Options of groups whose steps are torch's own: in a graph of CUDA's, or of autograd's."""

STEPPED_HERE = ("cpu", "cuda")
"""Types of devices that have a backend."""


def reasons_of_group(group: Group, kind: Kind) -> list[str]:
    """Why torch alone can step by the hyperparameters of a group; empty if it need not."""
    reasons = [f"{name}=True" for name in HANDED_ON if group.get(name)]
    return reasons or [*filter(None, [kind.of_torch(group)])]


def reasons_of_parameters(parameters: Iterable[Any]) -> list[str]:
    """Why torch alone can step some of these; empty if it need not."""
    present = [*parameters]
    devices = {device.type for device in {p.device for p in present}} - {*STEPPED_HERE}
    reasons = [f"parameters on {quoted(sorted(devices))}"] if devices else []
    # A GradScaler asks at each step: what types alone decide is looked up once for each.
    names = {kind.__qualname__ for kind in {*map(type, present)} if has_own_operations(kind)}
    reasons += [f"parameters of {name}" for name in sorted(names)]
    if not reasons and any(map(torch.Tensor.is_neg, present)):
        reasons.append("parameters that are negated lazily")
    return reasons


def has_own_operations(kind: type) -> bool:
    """Whether tensors of a type are not in one memory, but in what their operations make of them.

    Such are tensors of several parts, and those without content that estimate a model's memory. A
    DTensor's part on this process is in one memory.
    """
    own: Any = kind.__torch_dispatch__  # type: ignore[attr-defined]
    return own is not torch.Tensor.__torch_dispatch__ and not is_distributed(kind)
