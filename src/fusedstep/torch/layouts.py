"""State dicts of other packages that keep 16-bit parameters in two parts, as those here have them.

The result is loaded by `load_state_dict` of the class of the same rule, here or there. Nothing is
computed but what a layout defines, and the rest is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from fusedstep._checks.wording import describe, quoted
from fusedstep._core.names_in_torch import MASTER, REMAINDER, STEP, TAIL

__all__ = ["from_flashoptim", "from_transformer_engine", "to_transformer_engine"]

# ---- TransformerEngine's FusedAdam ----

MOMENTS = ("exp_avg", "exp_avg_sq")

SHARED = ("params", "lr", "betas", "eps", "weight_decay", "param_names", "initial_lr")
"""Entries of a group that mean the same here and there."""


def from_transformer_engine(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Read what `state_dict` of TransformerEngine's `FusedAdam` returned, for `AdamW` or `Adam`.

    Its remainders of bfloat16 parameters are tails, with the same bits, and its float32 masters are
    masters. The count of steps, which it has once in a group, is each parameter's.

    Raises
    ------
    TypeError
        If a master is of another dtype, as the float16 of a live optimizer's state.

    Examples
    --------
    >>> import torch
    >>> from fusedstep.torch import layouts
    >>> state = {"exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}
    >>> state["master_param"] = torch.tensor([3, -5], dtype=torch.int16)
    >>> theirs = {"state": {0: state}, "param_groups": [{"params": [0], "lr": 0.1, "step": 7}]}
    >>> layouts.from_transformer_engine(theirs)["state"][0]["tail"]
    tensor([ 3, -5], dtype=torch.int16)
    """
    groups, state = [], dict(state_dict["state"])
    for group in state_dict["param_groups"]:
        own = {name: value for name, value in group.items() if name != STEP}
        if own.get("bias_correction") in (True, 1):
            del own["bias_correction"]  # as it is by default
        groups.append(own)
        for key in group["params"]:
            if state.get(key):
                state[key] = _from_their_state(state[key], group.get(STEP, 0), key)
    return {"state": state, "param_groups": groups}


def _from_their_state(state: Mapping[str, Any], step: Any, key: Any) -> dict[str, Any]:
    made = {STEP: torch.tensor(float(step)), **state}
    master = made.pop(REMAINDER, None)
    if master is None:
        return made
    entries = {torch.int16: TAIL, torch.float32: MASTER}
    if master.dtype not in entries:
        raise TypeError(
            f"state_dict['state'][{key}][{REMAINDER!r}] is {master.dtype}; it is torch.int16 or "
            "torch.float32: pass what FusedAdam.state_dict() returned, not its state"
        )
    return {**made, entries[master.dtype]: master}


def to_transformer_engine(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Write a state dict of `AdamW` or `Adam` here for TransformerEngine's `FusedAdam`.

    A tail of 16 bits is its remainder, which it takes with `store_param_remainders=True`, and a
    master its master.

    Raises
    ------
    ValueError
        For what it has no place for: 8 bits, parameters of a group that have taken different
        numbers of steps, and options of groups.

    Examples
    --------
    >>> import torch, fusedstep.torch
    >>> p = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    >>> opt = fusedstep.torch.AdamW([p])
    >>> p.grad = torch.ones_like(p)
    >>> opt.step()
    >>> theirs = fusedstep.torch.layouts.to_transformer_engine(opt.state_dict())
    >>> theirs["param_groups"][0]["step"], theirs["state"][0]["master_param"].dtype
    (1, torch.int16)
    """
    groups, state = [], dict(state_dict["state"])
    for at, group in enumerate(state_dict["param_groups"]):
        name = f"state_dict['param_groups'][{at}]"
        refuse_options(group, name)
        stepped = [key for key in group["params"] if state.get(key)]
        steps = {int(state[key][STEP]) for key in stepped}
        if len(steps) > 1:
            raise ValueError(
                f"parameters of {name} have taken {quoted(sorted(steps))} steps, and FusedAdam "
                "counts those of a group together; put them into groups of their own"
            )
        for key in stepped:
            state[key] = _to_their_state(state[key], key)
        own = {each: group[each] for each in SHARED if each in group}
        own["bias_correction"] = group.get("bias_correction", True)
        groups.append({**own, STEP: steps.pop() if steps else 0})
    return {"state": state, "param_groups": groups}


def refuse_options(group: Mapping[str, Any], name: str) -> None:
    """Refuse options of a group by which FusedAdam would step otherwise."""
    without = {
        **dict.fromkeys(("amsgrad", "maximize", "eps_inside_sqrt", "eps_uncorrected"), False),
        **{"l1": 0.0, "ema": None, "decay_scale": "lr"},
    }
    others = [each for each, off in without.items() if group.get(each, off) != off]
    if others:
        raise ValueError(f"{name} has {quoted(others)}, which FusedAdam has not; leave that out")


def _to_their_state(state: Mapping[str, Any], key: Any) -> dict[str, Any]:
    made = {}
    for name in MOMENTS:
        if state[name].dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(
                f"state_dict['state'][{key}][{name!r}] is {state[name].dtype}, codes which "
                "FusedAdam cannot read; load it into an optimizer with state_dtype='float32', "
                "step, and save that one's"
            )
        made[name] = state[name].float()
    master = state.get(TAIL, state.get(MASTER))
    if master is None:
        return made
    if master.dtype is torch.int8:
        raise ValueError(
            f"state_dict['state'][{key}][{TAIL!r}] is torch.int8, and FusedAdam's remainders have "
            "16 bits; load it into an optimizer with master='split16', step, and save that one's"
        )
    return {**made, REMAINDER: master.view(torch.int16) if TAIL in state else master}


# ---- FlashOptim ----

GROUP_SIZE = 32
"""Elements that share a scale."""

ERRORS = "error_bits"

QUANTIZED, SCALES = "::quantized", "::scales"

SQUARED = "exp_avg_sq"
"""The state array whose codes are those of its root."""

OF_FLASHOPTIM = ("master_bytewidth", "quantize")
"""Entries of a group that are FlashOptim's alone."""

MANTISSA = {torch.bfloat16: 7, torch.float16: 10}
BIAS = {torch.bfloat16: 127, torch.float16: 15}


def from_flashoptim(state_dict: Mapping[str, Any], params: Iterable[Any]) -> dict[str, Any]:
    """Read what `state_dict` of an optimizer of FlashOptim returned, for the class of its rule.

    Its parameters of 16 bits with an error of 8 or 16 bits become float32 masters, and its moments
    of 8 bits float32. FlashOptim computes them by functions that are not the same everywhere; here
    they are the values that the codes stand for, rounded once.

    Parameters
    ----------
    state_dict
        A state dict of FlashAdamW, FlashAdam, FlashLion or FlashSGD, or of a derived class.
    params
        The parameters that go with it, in the order of the groups: errors are relative to them.

    Returns
    -------
    dict
        A state dict for `load_state_dict` here. The way back is `float32_params()`, named as in the
        model, which FlashOptim takes by `set_fp32_model_state_dict`.

    Raises
    ------
    TypeError, ValueError
        If there are fewer or more parameters, or one has no bits that an error could belong to.

    Examples
    --------
    >>> import torch
    >>> from fusedstep.torch import layouts
    >>> p = torch.ones(2, dtype=torch.bfloat16)
    >>> state = {"error_bits": torch.tensor([127, 0], dtype=torch.int8)}
    >>> group = {"params": [0], "lr": 0.1, "master_bytewidth": 3}
    >>> layouts.from_flashoptim({"state": {0: state}, "param_groups": [group]}, [p])["state"][0]
    {'master': tensor([1.0039, 1.0000])}
    """
    tensors = [*params]
    groups, state = [], dict(state_dict["state"])
    keys = [key for group in state_dict["param_groups"] for key in group["params"]]
    if len(keys) != len(tensors):
        raise ValueError(
            f"params has {len(tensors)} tensors, the state dict {len(keys)}; pass one for each, in "
            "the order of the groups"
        )
    of_key = dict(zip(keys, tensors, strict=True))
    for group in state_dict["param_groups"]:
        groups.append({name: each for name, each in group.items() if name not in OF_FLASHOPTIM})
        for key in group["params"]:
            if state.get(key):
                width = group.get("master_bytewidth", 0)
                state[key] = _from_flash(state[key], of_key[key].detach(), width)
    return {"state": state, "param_groups": groups}


def _from_flash(state: Mapping[str, Any], p: torch.Tensor, width: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in state.items():
        if name == ERRORS:
            made[MASTER] = _master(p, _errors(value, width))
        elif name == STEP:
            made[STEP] = torch.tensor(float(value))
        elif name.endswith(QUANTIZED):
            own = name.removesuffix(QUANTIZED)
            made[own] = _dequantized(value, state[own + SCALES], own)
        elif not name.endswith(SCALES):
            made[name] = value
    return made


def _errors(errors: torch.Tensor, width: int) -> torch.Tensor:
    """The errors as integers: a state dict may have them as floats, by value or by their bits."""
    if errors.dtype in (torch.int8, torch.int16):
        return errors
    if errors.dtype not in MANTISSA or width not in (3, 4):
        raise TypeError(
            f"{ERRORS!r} is {errors.dtype} in a group with master_bytewidth={width}; pass what "
            "FlashOptim's state_dict() returned"
        )
    return errors.to(torch.int8) if width == 3 else errors.view(torch.int16)


def _master(p: torch.Tensor, errors: torch.Tensor) -> torch.Tensor:
    """The float32 values of parameters with errors in units of half of their last place."""
    if p.dtype not in MANTISSA:
        raise TypeError(
            f"{ERRORS!r} belongs to a parameter of {p.dtype}; pass the parameters of 16 bits that "
            "the state dict was saved with"
        )
    if p.shape != errors.shape:
        raise ValueError(
            f"{ERRORS!r} has shape {(*errors.shape,)}, its parameter {(*p.shape,)}; pass the "
            "parameters in the order of the groups"
        )
    mantissa, bias = MANTISSA[p.dtype], BIAS[p.dtype]
    u = p.view(torch.int16).int() & 0x7FFF
    exponent = u >> mantissa
    half = torch.ldexp(torch.ones_like(u), exponent.clamp(min=1) - bias - mantissa - 1).double()
    most = 127 if errors.dtype is torch.int8 else 32767
    wide = p.double()
    error = errors.double() / most * half
    found = (wide + error).float()
    # An error is as coarse as its units, and may reach over to what is rounded to a neighbour.
    inward = wide * error < 0
    to_power = inward & (u & ((1 << mantissa) - 1) == 0) & (exponent > 1)
    limit = wide + torch.where(to_power, half / 2, half) * error.sign()
    master = p.float()  # where the error is of another sign than a zero
    for each in (torch.nextafter(limit.float(), p.float()), found):
        same = each.to(p.dtype).view(torch.int16) == p.view(torch.int16)
        master = torch.where(same, each, master)
    return master


def _dequantized(codes: torch.Tensor, scales: torch.Tensor, name: str) -> torch.Tensor:
    """The float32 values of codes of 8 bits, of which each group has a scale."""
    squared = name == SQUARED
    codes = codes.to(torch.uint8 if squared else torch.int8)
    scale = scales.view(torch.float16) if scales.dtype is torch.bfloat16 else scales
    flat = codes.reshape(-1).double()
    if scale.shape != (-(-len(flat) // GROUP_SIZE),):
        raise ValueError(
            f"{name + SCALES!r} is {describe(scale)} for {len(flat)} codes, of which {GROUP_SIZE} "
            "share one; pass what FlashOptim's state_dict() returned"
        )
    each = scale.double().repeat_interleave(GROUP_SIZE)[: len(flat)]
    if squared:
        root = flat / 255 * each
        values = root * root
    else:
        y = flat / 127
        values = y / (2 - y.abs()) * each
    return values.float().reshape(codes.shape)
