"""The numbers of a checkpoint as steps see them, in whichever package's way it has them.

`fusedstep` saves parameters with all of their bits, and state as packed.py has it. What
`fusedstep.torch` saves is as in its state dicts: the bits that 16-bit parameters lack stand beside
these, and codes of 8 bits are flat, as kernels read them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from fusedstep._arrays.dtypes import BFLOAT16, HALVES
from fusedstep._core.checkpoint import Checkpoint
from fusedstep._core.digest import Numbers, digest
from fusedstep._core.names_in_torch import (
    MU_PRODUCT,
    NAMES_IN_TORCH,
    ORDER,
    ROW_STEP,
    SECONDS,
    STEP,
)
from fusedstep._core.packed import base_name, decoded, read_order, scattered
from fusedstep._core.slices import ROW_T
from fusedstep._core.tensor_file import Array
from fusedstep._numerics.storage import STORAGES, Part, in_code_order, in_natural_order

OF_TORCH = "torch"
"""The name of torch in checkpoints."""


def numbers_in(checkpoint: Checkpoint, nonnegative: Collection[str]) -> list[Numbers]:
    """The numbers of each parameter; ValueError if they do not fit one another.

    `nonnegative` are the letters of state arrays that never are below 0.
    """
    names = [name for group in checkpoint.groups for name in group["params"]]
    return [_numbers(checkpoint, name, nonnegative) for name in names]


def with_digest(checkpoint: Checkpoint, nonnegative: Collection[str]) -> Checkpoint:
    """A checkpoint with the digest of its numbers."""
    return checkpoint._replace(digest=digest(numbers_in(checkpoint, nonnegative)))


def is_packed(state: Mapping[str, Array]) -> bool:
    """Whether a parameter's state has what torch's own optimizers cannot read."""
    return any(entry in (*SECONDS, ORDER) or _is_base(entry, state) for entry in state)


def _is_base(entry: str, state: Mapping[str, Array]) -> bool:
    return any(entry == base_name(each) for each in state)


def _numbers(checkpoint: Checkpoint, name: str, nonnegative: Collection[str]) -> Numbers:
    p, state = checkpoint.params[name], checkpoint.states[name]
    of_torch = checkpoint.face == OF_TORCH
    where = f"the state of {name!r}"
    axes = read_order(state.get(ORDER), p.ndim, where)
    ours = {entry: own for own, entry in NAMES_IN_TORCH.get(checkpoint.optimizer, {}).items()}
    others = (*SECONDS, ORDER, *((STEP, MU_PRODUCT, ROW_STEP) if of_torch else (ROW_T,)))
    states = {}
    for entry, array in state.items():
        if entry in others or _is_base(entry, state):
            continue
        letter, bases = ours.get(entry, entry), state.get(base_name(entry))
        if array.dtype != np.uint8 or bases is None:
            states[letter] = widened(array)
            continue
        storage = STORAGES["unsigned8" if letter in nonnegative else "signed8"]
        if of_torch:
            _check_flat(array, storage.parts[0], p.size, f"{entry!r} of {where}")
            _check_flat(bases, storage.parts[1], p.size, f"{base_name(entry)!r} of {where}")
            states[letter] = scattered(storage.decode(p.size, (array, bases)), p.shape, axes)
        else:
            name_of_bases = f"{base_name(entry)!r} of {where}"
            states[letter] = decoded(array, bases, axes, storage, name_of_bases)
    exact = _exact(p, state, axes, where) if of_torch else widened(p)
    row_t = state.get(ROW_STEP if of_torch else ROW_T)
    return Numbers(name, exact, checkpoint.t[name], states, row_t)


def widened(array: Array) -> Array:
    """An array of 16 bits as float32; any other as it is."""
    if array.dtype not in HALVES:
        return array
    flat = np.ascontiguousarray(array).reshape(-1)
    wide: Array = STORAGES[HALVES[array.dtype]].decode(array.size, (flat,))
    return wide.reshape(array.shape)


def _exact(p: Array, state: Mapping[str, Array], axes: tuple[int, ...], where: str) -> Array:
    """A parameter with the bits that its state has of it."""
    half = HALVES.get(p.dtype)
    entry = next((each for each in SECONDS if each in state), None)
    if half is None or entry is None:
        return widened(p)
    second = state[entry]
    if second.dtype == np.float32:
        storage, rest = STORAGES[f"master_{half}"], second.reshape(-1)
    elif second.dtype == np.int8:
        storage = STORAGES["split8"]
        _check_flat(second, storage.parts[1], p.size, f"{entry!r} of {where}")
        shaped = scattered(in_natural_order(second, p.size), p.shape, axes)
        rest = in_code_order(shaped.reshape(-1))
    elif second.dtype in (np.int16, BFLOAT16):
        storage, rest = STORAGES["split16"], second.view(np.int16).reshape(-1)
    else:
        raise ValueError(f"{entry!r} of {where} is {second.dtype}, which holds no bits of it")
    if second.dtype != np.int8 and second.shape != p.shape:
        raise ValueError(f"{entry!r} of {where} has shape {second.shape}, and it {p.shape}")
    exact: Array = storage.decode(p.size, (p.reshape(-1), rest))
    return exact.reshape(p.shape)


def _check_flat(flat: Array, part: Part, size: int, name: str) -> None:
    """Refuse a flat array that is not that of a parameter of this size."""
    if flat.shape != (part.length(size),) or flat.dtype != part.dtype:
        raise ValueError(
            f"{name} is {flat.dtype} of shape {flat.shape}; for {size} elements it is "
            f"{part.dtype} of shape {(part.length(size),)}"
        )
