"""An optimizer of `fusedstep.torch` as a record sees it, and its run again from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fusedstep._arrays.dtypes import dtype_name
from fusedstep._checks.wording import describe
from fusedstep._core.checkpoint import Checkpoint, CheckpointReader
from fusedstep._core.digest import Numbers
from fusedstep._core.record import GRADIENT, ROWS, VALUES, Step
from fusedstep._core.recorded import Add
from fusedstep._core.saving import Giving
from fusedstep._core.tensor_file import Array
from fusedstep.torch._checkpoint import (
    Named,
    give,
    in_file,
    loaded_options,
    numbers_of,
    saved_options,
    tensor_of,
)
from fusedstep.torch._optimizer import OF_ALL, FusedOptimizer
from fusedstep.torch._rows import is_sparse, rows_of

SCALER = ("grad_scale", "found_inf")
"""Attributes that a GradScaler gives an optimizer for a step."""


class Recorded:
    """An optimizer whose steps are recorded, by torch's hook that follows a step."""

    def __init__(self, opt: Any) -> None:
        if not isinstance(opt, FusedOptimizer):
            raise TypeError(
                f"opt is {describe(opt)}, whose steps have other bits elsewhere; pass "
                "`fusedstep.torch.replace(opt)`, which steps in the same bits everywhere"
            )
        self.opt = opt
        self.parameters = [p for group in opt.param_groups for p in group["params"]]
        for p in self.parameters:
            if p.device.type != "cpu":
                raise TypeError(
                    f"opt has a parameter on {p.device}; record it with parameters on the CPU"
                )
        if opt._averages:  # noqa: SLF001  the tensors of `ema_into`
            raise ValueError("opt has `ema_into`, which a record cannot repeat; leave it away")
        if any(isinstance(each, _Hook) for each in opt._optimizer_step_post_hooks.values()):  # noqa: SLF001
            raise ValueError("opt is recorded already; close its other recorder first")
        self.names = Named(opt, None).names
        self._handle: Any = None

    def description(self) -> dict[str, Any]:
        """All that a run needs and a checkpoint has not."""
        return {
            "names": self.names,
            "strides": [[*p.stride()] for p in self.parameters],
        }

    def options(self) -> list[dict[str, Any]]:
        """The options of the groups, which are refused where parameters have come or gone."""
        present = [p for group in self.opt.param_groups for p in group["params"]]
        if [*map(id, present)] != [*map(id, self.parameters)]:
            raise ValueError(
                f"opt has {len(present)} parameters, and had {len(self.parameters)} when its "
                "record began; close that, and begin another"
            )
        return [saved_options(group) for group in self.opt.param_groups]

    def numbers(self) -> dict[str, Numbers]:
        """The numbers of each parameter, by name."""
        return {each.name: each for each in numbers_of(self.opt)}

    def attach(self, add: Add, keeps_gradients: bool) -> None:
        """Let each step of the optimizer be added to a record."""
        self._handle = self.opt.register_step_post_hook(_Hook(self, add, keeps_gradients))

    def detach(self) -> None:
        """Let the optimizer go on without."""
        self._handle.remove()

    def request(self) -> dict[str, Any]:
        """All that a step depends on besides gradients and options."""
        own = vars(self.opt)
        scaler = {name: own[name] for name in SCALER if own.get(name) is not None}
        return {
            **{name: getattr(self.opt, name) for name in OF_ALL if name != "backend"},
            **{name: float(value) for name, value in scaler.items()},
        }

    def gradients(self) -> dict[str, Array]:
        """Copies of the gradients as a file has them."""
        kept: dict[str, Array] = {}
        for name, p in zip(self.names, self.parameters, strict=True):
            if p.grad is None:
                continue
            if is_sparse(p.grad):
                rows = rows_of(p.grad, p, f"the gradient of {name!r}")
                kept[f"{ROWS}.{name}"] = in_file(rows.index, name)
                kept[f"{VALUES}.{name}"] = in_file(rows.values, name)
            else:
                kept[f"{GRADIENT}.{name}"] = in_file(p.grad, f"the gradient of {name!r}")
        return kept


class _Hook:
    """A hook that adds the step before it to a record."""

    def __init__(self, recorded: Recorded, add: Add, keeps_gradients: bool) -> None:
        self.recorded = recorded
        self.add = add
        self.keeps_gradients = keeps_gradients

    def __call__(self, opt: Any, args: Any, kwargs: Any) -> None:
        own = self.recorded
        kept = own.gradients() if self.keeps_gradients else None
        self.add(own.request(), own.options(), kept)


class Run:
    """The run of a record, from its beginning, on a backend."""

    def __init__(
        self, reader: CheckpointReader, found: Checkpoint, kind: Any, backend: str
    ) -> None:
        about = found.metadata
        self.params: dict[str, torch.Tensor] = {}
        """The parameters, by the names that they have in the record."""
        for name, strides in zip(about["names"], about["strides"], strict=True):
            array = found.params[name]
            dtype = getattr(torch, dtype_name(array.dtype))
            tensor = torch.empty_strided(array.shape, strides, dtype=dtype)
            self.params[name] = torch.nn.Parameter(tensor)
        groups = []
        for group in found.groups:
            own = {*group["params"]}
            named = [(name, p) for name, p in self.params.items() if name in own]
            groups.append({**loaded_options(group), "params": named})
        self.opt = kind(groups, backend=backend)
        give(self.opt, Giving(reader, found), self.params)

    def step(self, step: Step, given: Mapping[str, Any]) -> None:
        """Take a step, with the gradients of some parameters by name."""
        opt, own = self.opt, vars(self.opt)
        for group, saved in zip(opt.param_groups, step.options or (), strict=False):
            group.update(loaded_options(saved))
        for name, p in self.params.items():
            p.grad = _as_given(given.get(name), p)
        scaler = {name: step.request[name] for name in SCALER if name in step.request}
        for name, value in step.request.items():
            if name not in SCALER:
                setattr(opt, name, value)
        own.update({name: torch.tensor(value) for name, value in scaler.items()})
        opt.step()
        for name in scaler:
            del own[name]

    def numbers(self) -> dict[str, Numbers]:
        """The numbers of each parameter, by name."""
        return {each.name: each for each in numbers_of(self.opt)}


def _as_given(g: Any, p: torch.Tensor) -> Any:
    """A gradient of a file, or of a function, as a step takes it."""
    if isinstance(g, tuple):
        index, values = (tensor_of(each) for each in g)
        shape = (*p.shape,)
        return torch.sparse_coo_tensor(index[None], values, shape, check_invariants=False)
    return g if g is None or isinstance(g, torch.Tensor) else tensor_of(g)
