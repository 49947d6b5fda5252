"""Checkpoints of torch's optimizers and of ours that are like them: state under torch's names."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, islice
from typing import Any

import numpy as np
import torch

from fusedstep._arrays.dtypes import BFLOAT16
from fusedstep._checks.wording import describe, quoted
from fusedstep._core.checkpoint import Checkpoint
from fusedstep._core.digest import Numbers, digest
from fusedstep._core.names_in_torch import names_in_torch
from fusedstep._core.saving import Giving, widened
from fusedstep._core.tensor_file import CODES, Array
from fusedstep.torch._kept import MASTER, ORDER, REMAINDER, TAIL
from fusedstep.torch._state import STEP

FACE = "torch"
"""The name of torch in checkpoints."""

NOT_OPTIONS = ("params", "param_names")
"""Entries of a group that are no hyperparameters."""

BESIDE = (TAIL, MASTER, REMAINDER, ORDER)
"""Entries of state with bits of the parameter, which its exact values have, and how these lie."""

LETTERS = [*"abmosvx"]

DTYPES = {getattr(torch, dtype.name, None) for dtype in CODES.values()}


class Named:
    """An optimizer's parameters and groups, by the names that `params` has for them."""

    def __init__(self, opt: torch.optim.Optimizer, params: Any) -> None:
        self.opt = opt
        self.given = named_tensors(params)
        self.parameters = [p for group in opt.param_groups for p in group["params"]]
        self.names = self._names()
        self.saved = opt.state_dict()
        left = iter(self.names)
        self.groups = [
            (group, [*islice(left, len(group["params"]))]) for group in self.saved["param_groups"]
        ]
        """The groups of its state dict, each with the names of its parameters."""
        keys = chain(*(group["params"] for group, _ in self.groups))
        self.keys = dict(zip(self.names, keys, strict=True))
        """The keys of the parameters in its state dict."""

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors that a checkpoint has, by name."""
        return {**dict(zip(self.names, self.parameters, strict=True)), **self.given}

    def _names(self) -> list[str]:
        """The names in `params`, or else those that the groups know, or else numbers."""
        if not self.given:
            known = [name for each in self.opt.param_groups for name in each.get("param_names", ())]
            numbers = [str(k) for k in range(len(self.parameters))]
            return known if len(known) == len(numbers) else numbers
        places = {_place_of(tensor): name for name, tensor in reversed(self.given.items())}
        for k, p in enumerate(self.parameters):
            if _place_of(p) not in places:
                raise ValueError(
                    f"params lacks the optimizer's parameter {k}, of shape {[*p.shape]}; pass all "
                    "of its parameters, or the model itself"
                )
        return [places[_place_of(p)] for p in self.parameters]


def named_tensors(params: Any) -> dict[str, torch.Tensor]:
    """The tensors of a module, a mapping, a sequence, or pairs of names and tensors."""
    if params is None:
        return {}
    if isinstance(params, torch.nn.Module):
        params = params.state_dict(keep_vars=True)
    if not isinstance(params, Mapping):
        entries = [*params]
        pairs = all(isinstance(each, tuple) and len(each) == 2 for each in entries)
        params = dict(entries if pairs else enumerate(entries))
    for name, each in params.items():
        if not isinstance(each, torch.Tensor):
            raise TypeError(
                f"params[{name!r}] is {describe(each)}; pass the model, or a mapping of tensors, "
                "as `dict(model.named_parameters())`"
            )
    return {str(name): each for name, each in params.items()}


def _place_of(tensor: torch.Tensor) -> Any:
    """The place of a tensor, which its views of the same elements share."""
    own = id(tensor) if tensor.numel() == 0 else tensor.data_ptr()
    return own, tensor.shape, tensor.stride()


# ---- taking ----


def take(opt: torch.optim.Optimizer, params: Any, metadata: Any) -> Checkpoint:
    """The checkpoint of an optimizer, and of all tensors in `params`."""
    named, kind = Named(opt, params), type(opt).__name__
    groups = [
        {
            **{k: _saved(k, v) for k, v in group.items() if k not in NOT_OPTIONS},
            "params": sorted(own),
        }
        for group, own in named.groups
    ]
    states = {}
    for name, key in named.keys.items():
        state = named.saved["state"].get(key, {})
        states[name] = {
            entry: _array(value, f"state[{name!r}][{entry!r}]")
            for entry, value in state.items()
            if value is not None
        }
    t = {name: int(state[STEP]) if STEP in state else 0 for name, state in states.items()}
    arrays = {name: _array(each, f"params[{name!r}]") for name, each in named.tensors.items()}
    found = digest(_numbers(named, kind, arrays, states, t))
    return Checkpoint(kind, FACE, groups, t, arrays, states, found, metadata)


def _saved(name: str, value: Any) -> Any:
    """An option of a group as a file has it; of tensors their numbers and dtype."""
    if isinstance(value, torch.Tensor):
        dtype = str(value.dtype).rpartition(".")[2]
        return {"tensor": value.detach().cpu().double().tolist(), "dtype": dtype}
    if isinstance(value, (tuple, list)):
        return [_saved(name, each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str, dict, np.ndarray)):
        return value
    raise TypeError(f"the option {name}={describe(value)} cannot be saved; pass numbers or texts")


def _array(value: Any, name: str) -> Array:
    """A copy of a tensor, or of a number or several, as a file has them."""
    if not isinstance(value, torch.Tensor):
        return np.array(value, np.float64 if isinstance(value, float) else np.int64)
    if hasattr(value, "to_local"):
        raise TypeError(
            f"{name} is a DTensor, of which this process has a part; save a run of many machines "
            "by torch.distributed.checkpoint"
        )
    tensor = value.detach().cpu().contiguous()
    copied: Array
    if tensor.dtype is torch.bfloat16:
        copied = tensor.view(torch.int16).numpy().view(BFLOAT16).copy()
    elif tensor.dtype in DTYPES:
        copied = tensor.numpy().copy()
    else:
        known = ", ".join(CODES)
        raise TypeError(f"{name} is of {tensor.dtype}, and files have {known}; convert it to one")
    return copied


def _numbers(
    named: Named,
    kind: str,
    arrays: Mapping[str, Array],
    states: Mapping[str, Mapping[str, Array]],
    t: Mapping[str, int],
) -> list[Numbers]:
    """The numbers of a digest: state by our letters, so that it is that of `fs`'s classes."""
    letters = {theirs: ours for ours, theirs in names_in_torch(kind, LETTERS).items()}
    exact = {name: widened(arrays[name]) for name in named.names}
    if in_full := getattr(named.opt, "float32_params", None):  # of ours
        values = zip(named.names, in_full(), strict=True)
        exact = {name: widened(_array(each, name)) for name, each in values}
    return [
        Numbers(
            name,
            exact[name],
            t[name],
            {
                letters.get(entry, entry): widened(array)
                for entry, array in states[name].items()
                if entry not in (STEP, *BESIDE)
            },
        )
        for name in named.names
    ]


# ---- giving back ----


def give(opt: torch.optim.Optimizer, given: Giving, params: Any) -> None:
    """Let an optimizer, and all tensors in `params`, take over a checkpoint."""
    named = Named(opt, params)
    given.check_optimizer(type(opt).__name__, [own for _, own in named.groups])
    writes = _writes(given, named.tensors)
    checkpoint = given.checkpoint
    states = {}
    for name, key in named.keys.items():
        entries = {entry: _entry(entry, a) for entry, a in checkpoint.states[name].items()}
        if checkpoint.face != FACE and checkpoint.t[name]:
            entries[STEP] = torch.tensor(float(checkpoint.t[name]))
        if entries:
            states[key] = entries
    groups = []
    for index, (group, _) in enumerate(named.groups):
        own = {name: value for name, value in group.items() if name not in NOT_OPTIONS}
        options = given.options(index, own, FACE)
        groups.append({**group, **{name: _loaded(value) for name, value in options.items()}})
    opt.load_state_dict({**named.saved, "state": states, "param_groups": groups})
    with torch.no_grad():
        for tensor, source in writes:
            tensor.copy_(source)


def _writes(
    given: Giving, tensors: Mapping[str, torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The tensors that are written, each with what it becomes."""
    saved = given.checkpoint.params
    if surplus := sorted(saved.keys() - tensors.keys()):
        given.reader.refuse(
            f"has {quoted(surplus)}, which `params` lacks", "; pass the model that was saved"
        )
    pairs = []
    for name, tensor in tensors.items():
        if name not in saved:
            given.reader.refuse(f"lacks {name!r}", "; pass as `params` what was saved, and no more")
        source = _tensor(saved[name])
        if (source.shape, source.dtype) != (tensor.shape, tensor.dtype):
            given.reader.refuse(
                f"has {name!r} as {source.dtype} of {[*source.shape]}, and `params` as "
                f"{tensor.dtype} of {[*tensor.shape]}",
                "; make the model as it was saved",
            )
        pairs.append((tensor, source))
    return pairs


def _tensor(array: Array) -> torch.Tensor:
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _entry(name: str, array: Array) -> Any:
    """An entry of state as torch has it: tensors, but for the order in which codes lie."""
    return (*array.tolist(),) if name == ORDER else _tensor(array)


def _loaded(option: Any) -> Any:
    """An option of a group as it was saved."""
    if isinstance(option, dict) and option.keys() == {"tensor", "dtype"}:
        return torch.tensor(option["tensor"], dtype=getattr(torch, option["dtype"]))
    return option
