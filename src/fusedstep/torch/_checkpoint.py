"""Checkpoints of torch's optimizers and of ours that are like them: state under torch's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, islice
from operator import setitem
from typing import Any, cast

import numpy as np
import torch

from fusedstep._arrays.at_once import Call, at_once
from fusedstep._arrays.dtypes import BFLOAT16, FLOAT32, format_of
from fusedstep._checks.wording import describe, quoted
from fusedstep._core.checkpoint import Checkpoint
from fusedstep._core.digest import Numbers
from fusedstep._core.hints import declared_as
from fusedstep._core.names_in_torch import (
    MU_PRODUCT,
    NAMES_IN_TORCH,
    ORDER,
    ROW_STEP,
    STEP,
)
from fusedstep._core.numbers_in_file import OF_TORCH, is_packed, numbers_in, widened, with_digest
from fusedstep._core.saving import Giving
from fusedstep._core.tensor_file import CODES, Array
from fusedstep._numerics.momenta import momenta
from fusedstep._numerics.storage import STORAGES
from fusedstep.torch._arrays import HALVES, wide_dtype
from fusedstep.torch._kept import as_tensor
from fusedstep.torch._loading import Sealed

NOT_OPTIONS = ("params", "param_names")
"""Entries of a group that are no hyperparameters."""

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
    taken = _content(opt, params, metadata)
    return with_digest(taken, _nonnegative(taken.optimizer))


def numbers_of(opt: torch.optim.Optimizer) -> list[Numbers]:
    """Copies of the numbers of an optimizer's parameters."""
    taken = _content(opt, None, None)
    return numbers_in(taken, _nonnegative(taken.optimizer))


def saved_options(group: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of a group as a file has them."""
    return {name: _saved(name, value) for name, value in group.items() if name not in NOT_OPTIONS}


def loaded_options(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of a group that were saved."""
    return {name: _loaded(value) for name, value in saved.items() if name != "params"}


def _content(opt: torch.optim.Optimizer, params: Any, metadata: Any) -> Checkpoint:
    """A checkpoint without its digest."""
    named, kind = Named(opt, params), type(opt).__name__
    groups = [{**saved_options(group), "params": sorted(own)} for group, own in named.groups]
    states = {}
    for name, key in named.keys.items():
        state = named.saved["state"].get(key, {})
        states[name] = {
            entry: in_file(value, f"state[{name!r}][{entry!r}]")
            for entry, value in state.items()
            if value is not None
        }
    # Where torch does not count them, all that is known is whether there were any.
    t = {name: int(state.get(STEP, bool(state))) for name, state in states.items()}
    arrays = {name: in_file(each, f"params[{name!r}]") for name, each in named.tensors.items()}
    return Checkpoint(kind, OF_TORCH, groups, t, arrays, states, "", metadata)


def _nonnegative(optimizer: str) -> Sequence[str]:
    """The letters of state arrays that never are below 0, of a class with that name."""
    declaration = declared_as(optimizer)
    return () if declaration is None else declaration.nonnegative


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


def in_file(value: Any, name: str) -> Array:
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


# ---- giving back ----


def give(opt: torch.optim.Optimizer, given: Giving, params: Any) -> None:
    """Let an optimizer, and all tensors in `params`, take over a checkpoint."""
    named = Named(opt, params)
    checkpoint = given.checkpoint
    given.check_optimizer(type(opt).__name__, [own for _, own in named.groups])
    given.read_numbers(_nonnegative(checkpoint.optimizer))
    options = [
        given.options(index, {k: v for k, v in group.items() if k not in NOT_OPTIONS}, OF_TORCH)
        for index, (group, _) in enumerate(named.groups)
    ]
    ours = _is_ours(opt)
    as_saved = checkpoint.face == OF_TORCH and (
        ours or not any(map(is_packed, checkpoint.states.values()))
    )
    if as_saved:
        states = {name: _as_saved(checkpoint.states[name]) for name in named.names}
        values = checkpoint.params
    else:
        states = _translated_states(given, named, options)
        values = _translated_params(given, named)
    wide = ours and not as_saved and any(p.dtype in HALVES for p in named.parameters)
    writes = _writes(given, values, named.tensors, named.names if wide else ())
    given.check_digest()
    groups = [
        {**group, **loaded_options(own)}
        for own, (group, _) in zip(options, named.groups, strict=True)
    ]
    state = {key: states[name] for name, key in named.keys.items() if states[name]}
    for entries in state.values():
        if ours and MU_PRODUCT in entries:  # torch would widen it, and the next steps be others
            entries[MU_PRODUCT] = Sealed(entries[MU_PRODUCT])
    before = {**vars(opt)}
    done: list[bool] = []
    try:
        opt.load_state_dict({**named.saved, "state": state, "param_groups": groups})
        if wide:
            exact = [tensor_of(values[name]) for name in named.names]
            writes += cast("Any", opt).assigning(exact)
        at_once([*writes, partial(done.append, True)])
    except BaseException:
        if not done:  # torch's load has put new objects in the place of these
            vars(opt).update(before)
        raise


def _is_ours(opt: torch.optim.Optimizer) -> bool:
    """Whether an optimizer is of this package, and has state that torch's own cannot read."""
    return hasattr(opt, "load_float32_params")


def _as_saved(state: Mapping[str, Array]) -> dict[str, Any]:
    """State as torch has it: tensors, but for the order in which codes lie."""
    return {
        entry: (*array.tolist(),) if entry == ORDER else tensor_of(array)
        for entry, array in state.items()
    }


def _translated_states(
    given: Giving, named: Named, options: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """State under torch's names, of the numbers that steps see."""
    optimizer, ours = given.checkpoint.optimizer, _is_ours(named.opt)
    return {
        name: _state(given.numbers[name], optimizer, own, ours)
        for own, (_, names) in zip(options, named.groups, strict=True)
        for name in names
    }


def _state(
    numbers: Numbers, optimizer: str, options: Mapping[str, Any], ours: bool
) -> dict[str, Any]:
    """A parameter's state as torch has it; only this package's classes have more than torch's."""
    t, names = numbers.t, NAMES_IN_TORCH.get(optimizer, {})
    if t == 0 and optimizer != "Adagrad":  # whose state torch makes before the first step
        return {}
    state: dict[str, Any] = {STEP: torch.tensor(float(t))}
    if optimizer == "NAdam" and t:
        product = momenta(float(options["betas"][0]), float(options["momentum_decay"]), t).product
        state[MU_PRODUCT] = torch.tensor(product)
    for letter, array in numbers.states.items():
        if letter in names or ours:
            state[names.get(letter, letter)] = tensor_of(array)
    if numbers.row_t is not None and ours:
        state[ROW_STEP] = torch.from_numpy(numbers.row_t.copy())
    return state


def _translated_params(given: Giving, named: Named) -> dict[str, Array]:
    """Parameters as steps see them; those of torch's own classes in 16 bits, if these will do."""
    params = {**given.checkpoint.params}
    for name, tensor in zip(named.names, named.parameters, strict=True):
        p, form = given.numbers[name].p, format_of(tensor)
        params[name] = p
        if form is not None and p.dtype == FLOAT32 and not _is_ours(named.opt):
            (bits,) = STORAGES[form].encode(p.reshape(-1))
            half = bits.view(BFLOAT16 if form == "bfloat16" else bits.dtype).reshape(p.shape)
            if np.array_equal(widened(half).view(np.uint32), p.view(np.uint32)):
                params[name] = half
    return params


def _writes(
    given: Giving,
    params: Mapping[str, Array],
    tensors: Mapping[str, torch.Tensor],
    wide: Sequence[str],
) -> list[Call]:
    """The calls that write the tensors.

    Those in `wide` are of the dtypes of steps, and left to the optimizer.
    """
    if surplus := sorted(params.keys() - tensors.keys()):
        given.reader.refuse(
            f"has {quoted(surplus)}, which `params` lacks", "; pass the model that was saved"
        )
    calls: list[Call] = []
    for name, tensor in tensors.items():
        if name not in params:
            given.reader.refuse(f"lacks {name!r}", "; pass as `params` what was saved, and no more")
        source = tensor_of(params[name])
        dtype = wide_dtype(tensor.dtype) if name in wide else tensor.dtype
        if (source.shape, source.dtype) != (tensor.shape, dtype):
            given.reader.refuse(
                f"has {name!r} as {source.dtype} of {[*source.shape]}, and `params` as "
                f"{tensor.dtype} of {[*tensor.shape]}",
                "; make the model as it was saved",
            )
        if name not in wide:
            calls.append(partial(setitem, tensor.detach(), ..., source.to(tensor.device)))
    return calls


def tensor_of(array: Array) -> torch.Tensor:
    """A tensor over an array's memory, or over a copy of what cannot be written."""
    return as_tensor(array if array.flags.writeable else array.copy())


def _loaded(option: Any) -> Any:
    """An option of a group as it was saved."""
    if isinstance(option, dict) and option.keys() == {"tensor", "dtype"}:
        return torch.tensor(option["tensor"], dtype=getattr(torch, option["dtype"]))
    return option
