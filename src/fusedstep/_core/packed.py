"""Operands in fewer bytes as state dicts have them: codes and bits in the order of the elements.

A state array of bfloat16 is there as its bits, uint16 in the parameter's shape. One of 8 bits is
there as codes, uint8 in the parameter's shape, with the base of each block of 256 elements as
`m_base`, say. Blocks follow the order in which the parameter lies in memory; unless that is C
order, `p_order` tells it: the axes from the slowest to the fastest, ~k for an axis k that runs
backwards. The bits that a 16-bit parameter lacks are there as `p_tail`, int16 or int8, or whole
values as `p_master`, float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fusedstep._arrays.checks import check_like, check_shape
from fusedstep._arrays.dtypes import BFLOAT16, FLOAT32, FLOAT64, dtype_name
from fusedstep._arrays.plain import plain
from fusedstep._arrays.walk import Array, Walk
from fusedstep._checks.wording import describe
from fusedstep._core.parameters import Parameter
from fusedstep._numerics.storage import (
    STORAGES,
    TILE,
    Storage,
    in_code_order,
    in_natural_order,
)

TAIL, MASTER, ORDER = "p_tail", "p_master", "p_order"

TAILS = {"split16": np.dtype(np.int16), "split8": np.dtype(np.int8)}
"""The dtypes of tails, by the format of their parameter."""

RESERVED = (TAIL, MASTER, ORDER)
"""Entries that are no state arrays."""


def base_name(letter: str) -> str:
    """The entry with the bases of a state array's codes."""
    return f"{letter}_base"


def packed_entries(letters: Iterable[str]) -> set[str]:
    """The entries that there may be besides these state arrays."""
    return {*RESERVED, *map(base_name, letters)}


# ---- saving ----


def packed_state(parameter: Parameter, letter: str) -> dict[str, Any]:
    """The entries of a state array that is kept in fewer bytes."""
    first, *second = map(parameter.place.read, parameter.packed[letter].arrays)
    if not second:
        return {letter: _shaped(parameter, first.view(np.uint16))}
    codes = in_natural_order(first, parameter.p.size)
    return {letter: _shaped(parameter, codes), base_name(letter): second[0]}


def packed_rest(parameter: Parameter) -> dict[str, Any]:
    """The entries of what the parameter lacks, and of the order of codes."""
    made: dict[str, Any] = {}
    if "p" in parameter.packed:
        name = parameter.packed["p"].storage.name
        for second in map(parameter.place.read, parameter.packed["p"].arrays[1:]):
            if name in TAILS:
                coded = name == "split8"
                flat = in_natural_order(second, parameter.p.size) if coded else second
                made[TAIL] = _shaped(parameter, flat)
            else:
                made[MASTER] = _shaped(parameter, second)
    coded = any(len(each.arrays) > 1 for letter, each in parameter.packed.items() if letter != "p")
    if coded and not parameter.walk.plain:
        made[ORDER] = order_of(parameter.walk)
    return made


def order_of(walk: Walk) -> tuple[int, ...]:
    """The axes of a walk that is not C order, ~k for one that runs backwards."""
    return tuple(k if walk.forward[k].step == 1 else ~k for k in walk.axes)


def _shaped(parameter: Parameter, flat: Array) -> Array:
    """An array that lies along the walk, in the parameter's shape: a copy in C order."""
    return parameter.walk.shaped(flat).copy(order="C")


# ---- loading ----


def read_values(state: Mapping[str, Any], letter: str, parameter: Parameter, where: str) -> Array:
    """The values of a state array, in the parameter's shape and the dtype of its steps: a copy."""
    name = f"{where}[{letter!r}]"
    array = plain(state[letter], name)
    if parameter.dtype == FLOAT64 or array.dtype == FLOAT32:
        check_like(array, np.broadcast_to(np.zeros((), parameter.dtype), parameter.p.shape), name)
        return array.copy()
    if array.dtype in (np.uint16, BFLOAT16):
        check_shape(array, parameter.p, name)
        bits = np.ascontiguousarray(array).view(BFLOAT16).reshape(-1)
        decoded: Array = STORAGES["bfloat16"].decode(bits.size, (bits,))
        return decoded.reshape(array.shape)
    if array.dtype == np.uint8 and base_name(letter) in state:
        check_shape(array, parameter.p, name)
        return _decoded(array, state, letter, parameter, where)
    raise TypeError(
        f"{name} has dtype {dtype_name(array.dtype)}; it is float32, or bfloat16 as uint16, or "
        f"codes of 8 bits as uint8 beside {base_name(letter)!r}: pass what state_dict() returned"
    )


def _decoded(
    codes: Array, state: Mapping[str, Any], letter: str, parameter: Parameter, where: str
) -> Array:
    """The values of the codes of a state, whose blocks follow the order that it tells."""
    name = f"{where}[{base_name(letter)!r}]"
    storage = STORAGES["unsigned8" if letter in parameter.nonnegative else "signed8"]
    axes = read_order(state.get(ORDER), codes.ndim, where)
    return decoded(codes, plain(state[base_name(letter)], name), axes, storage, name)


def decoded(
    codes: Array, bases: Array, axes: tuple[int, ...], storage: Storage, name: str
) -> Array:
    """The values of 8-bit codes whose blocks follow these axes; `name` is that of the bases."""
    blocks = -(-codes.size // TILE)
    if bases.dtype != np.int32 or bases.shape != (blocks,):
        raise ValueError(
            f"{name} is {bases.dtype} of shape {bases.shape}; for {codes.size} codes it is int32 "
            f"of shape {(blocks,)}: pass what state_dict() returned"
        )
    laid = in_code_order(along(codes, axes).reshape(-1))
    flat = storage.decode(codes.size, (laid, np.ascontiguousarray(bases)))
    return scattered(flat, codes.shape, axes)


def scattered(flat: Array, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """An array of a shape whose elements by these axes are those of a flat one."""
    made = np.empty(shape, flat.dtype)
    laid = along(made, axes)
    laid[...] = flat.reshape(laid.shape)
    return made


def along(array: Array, axes: tuple[int, ...]) -> Array:
    """A view that has a walk by these axes as its C order."""
    turned: list[Any] = [slice(None, None, -1 if ~k in axes else 1) for k in range(array.ndim)]
    view: Array = array[(*turned, ...)]  # with the dots even that of a single number is one
    return view.transpose([max(k, ~k) for k in axes])


def read_order(given: Any, ndim: int, where: str) -> tuple[int, ...]:
    """The axes of a walk that was saved."""
    if given is None:
        return (*range(ndim),)
    try:
        axes = (*(int(k) for k in given),)
    except (TypeError, ValueError, OverflowError):
        axes = ()
    if sorted(max(k, ~k) for k in axes) != [*range(ndim)]:
        raise ValueError(
            f"{where}[{ORDER!r}] is {describe(given)}; it names each of {ndim} axes once: pass "
            "what state_dict() returned"
        )
    return axes


def read_rest(state: Mapping[str, Any], parameter: Parameter, where: str) -> Array | None:
    """The bits that the parameter lacks, in its shape: a copy; None if the state has none."""
    kept = parameter.format or "float32"
    wanted = MASTER if kept.startswith("master") else TAIL if kept in TAILS else None
    rest = None
    for entry in (TAIL, MASTER):
        if entry not in state:
            continue
        rest = plain(state[entry], f"{where}[{entry!r}]")
        if entry != wanted or rest.dtype != TAILS.get(kept, FLOAT32):
            raise ValueError(
                f"{where}[{entry!r}] is {rest.dtype}, and this optimizer keeps the parameter as "
                f"{kept!r}; make one with the same `master`, or give this one the other's values, "
                "`opt.load_float32_params(other.float32_params())`"
            )
        check_shape(rest, parameter.p, f"{where}[{entry!r}]")
    return None if rest is None else rest.copy()
