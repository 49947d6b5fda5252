"""The forms in which torch's state holds parameters and moments in fewer bytes.

A bfloat16 parameter keeps its lost bits as `"tail"`, one with a float32 master as `"master"`. The
tail of a distributed one is a bfloat16 tensor of the same bits: no collective of torch's backends
sends int16, and so a whole state dict of it could not be gathered. A
state array of bfloat16 is a tensor under torch's own name. One of 8 bits is its codes there, flat
and in the order in which backends read them, and beside them the bases of their blocks. Blocks
follow the order in which the parameter lies in memory, which `"order"` tells unless it is C order.

A state in another form is read, and made anew in the one that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import setitem
from typing import Any, NamedTuple

import numpy as np
import torch

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, HALVES
from fusedstep._arrays.plain import plain
from fusedstep._arrays.walk import Array, Walk
from fusedstep._checks.wording import describe
from fusedstep._core.kept import (
    FIXED,
    format_of_parameter,
    format_of_state,
    refuse_idle_master,
    refuse_wide_state,
)
from fusedstep._core.names_in_torch import MASTER, ORDER, REMAINDER, SECONDS, TAIL
from fusedstep._core.packed import base_name, order_of
from fusedstep._core.parameters import rule_of
from fusedstep._numerics.coefficients import Rule
from fusedstep._numerics.storage import (
    FULL,
    STORAGES,
    TILE,
    Part,
    Storage,
    in_code_order,
    in_natural_order,
)
from fusedstep.torch._arrays import as_real, is_distributed, local, wide_dtype
from fusedstep.torch._kinds import Group, Kind

P = "p"
"""The key of a parameter among letters of its state."""

DTYPES = {"split16": torch.int16, "split8": torch.int8}
"""The dtypes of tails, by the form of their parameter."""

TAILS = {**{dtype: form for form, dtype in DTYPES.items()}, torch.bfloat16: "split16"}
"""The forms of parameters, by the dtypes of their tails; bfloat16 stands for its bits."""

BESIDE = {
    **dict.fromkeys(DTYPES, TAIL),
    **dict.fromkeys(("master_bfloat16", "master_float16"), MASTER),
}
"""The entry of a parameter's second array, by its form."""

NARROW = (torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex32)
"""Dtypes from which state of float32 is read."""

CODES = ("signed8", "unsigned8")

FLAT = ("split8", *CODES)
"""Formats with arrays that are flat, and so cannot be sharded as their parameter is."""


class Formats(NamedTuple):
    """How a parameter and its state arrays are held; None: as steps read them."""

    p: str | None
    states: Mapping[str, str | None]

    def draws(self, rounding: str) -> bool:
        """Whether something is, or may be, rounded stochastically."""
        names = [*filter(None, (self.p, *self.states.values()))]
        return rounding != "nearest" and any(STORAGES[name].random for name in names)


# ---- what is asked for ----


def formats_of(
    kind: Kind, parameter: Any, rule: Rule, values: Mapping[str, Any], name: str
) -> Formats:
    """The formats that hyperparameters ask for; what cannot be is refused."""
    real = as_real(local(parameter))
    dtype = numpy_dtype(real.dtype)
    of_p = format_of_parameter(dtype, values, None, name)
    nonnegative = kind.declaration.nonnegative
    compute, size = FLOAT64 if dtype == FLOAT64 else FLOAT32, parameter.numel()
    of_states = {
        letter: format_of_state(letter, values, nonnegative, compute, size)
        for letter in rule.states
    }
    if parameter.is_complex():
        refuse_wide_state(values["state_dtype"], name, "complex")
    elif parameter.dtype is torch.float64:
        refuse_wide_state(values["state_dtype"], name, "float64")
    found = Formats(of_p, of_states)
    sharded = is_distributed(parameter) and not all(
        each.is_replicate() for each in parameter.placements
    )
    flat = [each for each in (of_p, *of_states.values()) if each in FLAT]
    if sharded and flat:
        asked = "master='split8'" if of_p in flat else "state_dtype='8bit'"
        instead = "master='split16'" if of_p in flat else "state_dtype='bfloat16'"
        raise ValueError(
            f"{asked} and {name} is sharded: codes lie in blocks of {TILE} elements, which "
            f"shards cut, and other ranks could not read them; pass {instead}"
        )
    return found


def check_choices(kind: Kind, group: Group) -> None:
    """Refuse choices of a group that its parameters cannot have."""
    if not any(name in group for name in FIXED):
        return
    values = kind.hyperparameters({**group})
    rule = rule_of(kind.declaration, values)
    found = [
        formats_of(kind, parameter, rule, values, f"params[{at}]").p
        for at, parameter in enumerate(group["params"])
    ]
    if found:
        refuse_idle_master(values["master"], any(found))


def bits_beside(state: Any) -> bool:
    """Whether a parameter's state has bits of the parameter, or codes, which torch cannot step."""
    if not isinstance(state, Mapping):
        return False
    beside = (TAIL, MASTER, *(base_name(name) for name in state if isinstance(name, str)))
    return any(name in state for name in beside)


def given_formats(kind: Kind, parameter: Any, existing: Mapping[str, Any], rule: Rule) -> Formats:
    """The formats of a parameter and of state whose dtypes are the caller's choice."""

    def held(tensor: Any) -> str | None:
        return HALVES.get(numpy_dtype(as_real(local(tensor)).dtype))

    of_p = held(parameter)
    names = {**kind.names, "ema": "ema"}
    found = {letter: existing.get(names[letter]) for letter in rule.states}
    states = {letter: of_p if each is None else held(each) for letter, each in found.items()}
    return Formats(of_p, states)


def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """A dtype of torch as arrays here have it."""
    known = {torch.bfloat16: BFLOAT16, torch.float16: FLOAT16, torch.float64: FLOAT64}
    return known.get(dtype, FLOAT32)


# ---- what is found, and made where it is not ----


class Kept(NamedTuple):
    """An operand in a state: its tensors, and what changes in the state for them."""

    tensors: Sequence[Any]
    made: dict[str, Any]
    gone: Sequence[str] = ()
    writes: Sequence[Call] = ()
    """The calls that write the parameter, where the new form is of another rounding."""


class Site:
    """A parameter, its walk, and what its state has of it."""

    def __init__(self, parameter: Any, walk: Walk, existing: Mapping[str, Any], path: str) -> None:
        self.parameter = parameter
        self.walk = walk
        sparse = {name: each for name, each in existing.items() if is_sparse(each)}
        self.densified = {name: each.to_dense() for name, each in sparse.items()}
        """State arrays that torch has left sparse, as they are stepped."""
        self.existing = {**existing, **self.densified}
        self.path = path
        self.size = walk.size
        self.real = as_real(local(parameter))
        self.wide = wide_dtype(parameter.dtype)
        """The dtype of state, and of masters."""
        self.order = None if walk.plain else order_of(walk)
        """The axes from the slowest to the fastest; None for C order."""
        self.order_of_codes = None
        """The same as it was when codes were written."""
        if existing.get(ORDER) is not None:
            self.order_of_codes = tuple(int(k) for k in existing[ORDER])

    # tensors like the parameter, and flat arrays along the walk

    def like(self, dtype: torch.dtype) -> Any:
        """A tensor of zeros like the parameter, of another dtype."""
        detached = self.parameter.detach()
        return torch.zeros_like(detached, dtype=dtype, memory_format=torch.preserve_format)

    def along(self, tensor: Any) -> Array:
        """The content of a tensor like the parameter, flat, along the walk: a copy on the CPU."""
        array = plain(as_real(local(tensor)).cpu(), "a state tensor")
        return np.array(self.walk.lay(array), order="C").reshape(-1)

    def shaped(self, flat: Array) -> torch.Tensor:
        """A tensor of the parameter's shape of what lies along the walk."""
        return as_tensor(self.walk.shaped(flat))

    def put(self, part: Part, dtype: torch.dtype, flat: Array) -> Any:
        """A new tensor for a part of an operand, of which this is the content."""
        if part.padded or part.each > 1:
            return torch.from_numpy(flat).to(self.real.device)
        if dtype is torch.bfloat16:
            flat = flat.view(BFLOAT16)
        made = self.like(dtype)
        as_real(local(made)).copy_(self.shaped(flat))
        return made

    def refuse_misfit(self, tensor: Any, name: str) -> None:
        """Refuse a tensor that is not of the parameter's shape."""
        if tensor.shape != self.parameter.shape:
            raise ValueError(
                f"{name} has shape {(*tensor.shape,)}, its parameter "
                f"{(*self.parameter.shape,)}; they must be equal: is it another parameter's?"
            )

    def fits(self, part: Part, dtype: torch.dtype, tensor: Any) -> bool:
        """Whether a tensor is as backends read that part of an operand of the parameter."""
        if not isinstance(tensor, torch.Tensor) or tensor.dtype is not dtype:
            return False
        if part.padded or part.each > 1:
            lies = tensor.is_contiguous() and self.order_of_codes == self.order
            same_place = tensor.device == self.real.device
            return lies and same_place and tensor.shape == (part.length(self.size),)
        return bool(tensor.shape == self.parameter.shape)

    # state arrays

    def state_array(
        self,
        name: str,
        form: str | None,
        codes: str,
        initial: Callable[[torch.dtype], Any],
        as_given: bool,
    ) -> Kept:
        """The state array under a name, in a form; `codes` is what its 8 bits are, if any."""
        array, bases = self.existing.get(name), self.existing.get(base_name(name))
        if form in CODES:
            found = (array, bases)
            storage = STORAGES[form]
            dtypes = torch.uint8, torch.int32
            if all(map(self.fits, storage.parts, dtypes, found)):
                return Kept(found, {})
            values = self._values(name, codes, initial(torch.float32) if array is None else None)
            contents = zip(storage.parts, dtypes, storage.encode(values), strict=True)
            tensors = [self.put(*each) for each in contents]
            return Kept(tensors, dict(zip((name, base_name(name)), tensors, strict=True)))
        gone = [] if bases is None else [base_name(name)]
        dtype = self.wide if form is None else getattr(torch, form)
        if array is None:
            made = initial(dtype)
        elif as_given or array.dtype is dtype or not self._is_convertible(array, bases):
            return Kept((array,), {}, gone)
        elif array.dtype is torch.uint8:
            made = self.put(FULL, torch.float32, self._values(name, codes)).to(dtype)
        else:
            made = array.detach().to(dtype)
        return Kept((made,), {name: made}, gone)

    def _is_convertible(self, array: Any, bases: Any) -> bool:
        """Whether a state array is of another dtype than it may be, and read all the same."""
        if self.wide in (torch.float64, torch.complex128):
            return False
        if array.dtype is torch.uint8:
            return bases is not None
        return array.is_complex() == self.wide.is_complex and array.dtype in NARROW

    def _values(self, name: str, codes: str, array: Any = None) -> Array:
        """The float32 values of a state array along the walk, in whatever form it is there."""
        array = self.existing.get(name) if array is None else array
        bases = self.existing.get(base_name(name))
        if array.dtype is torch.uint8 and bases is not None:
            storage = STORAGES[codes]
            self._refuse_cut(storage, (array, bases), (name, base_name(name)))
            parts = (plain(array.cpu(), name), plain(bases.cpu(), name))
            return self._reordered(storage.decode(self.size, parts))
        self.refuse_misfit(array, f"{name}{self.path}")
        if array.dtype not in NARROW or array.is_complex():
            raise TypeError(
                f"{name}{self.path} is {array.dtype}; it is float32, bfloat16 or float16, or codes "
                f"of 8 bits beside {base_name(name)!r}: load what state_dict() returned"
            )
        return self.along(array.detach().float())

    def _refuse_cut(self, storage: Storage, tensors: Sequence[Any], names: Sequence[str]) -> None:
        """Refuse flat arrays that are not those of a parameter of this size."""
        for part, tensor, name in zip(storage.parts, tensors, names, strict=True):
            flat = part.padded or part.each > 1
            if flat and tensor.shape != (part.length(self.size),):
                raise ValueError(
                    f"{name}{self.path} has shape {(*tensor.shape,)}; for {self.size} elements it "
                    f"is {(part.length(self.size),)}: is it another parameter's?"
                )

    def _reordered(self, flat: Array) -> Array:
        """An array that lies as codes did when they were written, along the walk of now."""
        if self.order_of_codes == self.order:
            return flat
        shape = self.walk.shape
        axes = self.order_of_codes or (*range(len(shape)),)
        values = np.empty(shape, flat.dtype)
        values.transpose(axes)[...] = flat.reshape([shape[axis] for axis in axes])
        return np.array(self.walk.lay(values), order="C").reshape(-1)

    # the parameter

    def held(self, form: str | None = None) -> str | None:
        """The form in which the state holds the parameter, if possible that one; None: none."""
        half = HALVES.get(numpy_dtype(self.real.dtype))
        if half is None:
            return None
        found = [*filter(None, (self._format_of(name, half) for name in SECONDS))]
        return form if form in found else next(iter(found), None)

    def _format_of(self, name: str, half: str) -> str | None:
        """The form of a parameter beside which the state has that entry."""
        second = self.existing.get(name)
        if second is None:
            return None
        dtype = second.dtype
        if dtype in (torch.float32, torch.complex64) and name != TAIL:
            return f"master_{half}"
        if dtype in TAILS and name != MASTER:
            return TAILS[dtype] if half == "bfloat16" else None
        raise TypeError(
            f"{name}{self.path} is {dtype}, which holds no bits of a parameter; load what "
            "state_dict() returned, or delete that entry"
        )

    def second(self, form: str) -> tuple[str, Any]:
        """The entry of the second array of the parameter, which it holds in a form."""
        master = form.startswith("master")
        names = (MASTER, REMAINDER) if master else (TAIL, REMAINDER)
        wanted = {self.wide} if master else {each for each in TAILS if TAILS[each] == form}
        for name in names:
            if name in self.existing and self.existing[name].dtype in wanted:
                return name, self.existing[name]
        raise AssertionError(form)

    def values(self) -> Array | None:
        """The exact values of a 16-bit parameter along the walk; None if these are its own."""
        form = self.held()
        if form is None:
            return None
        storage, (name, second) = STORAGES[form], self.second(form)
        p = self.along(self.parameter)
        if storage.parts[1].padded:
            self._refuse_cut(storage, (self.parameter, second), (P, name))
            natural = in_natural_order(plain(second.cpu(), name), self.size)
            return storage.decode(self.size, (p, in_code_order(self._reordered(natural))))
        self.refuse_misfit(second, f"{name}{self.path}")
        rest = self.along(second)
        return storage.decode(self.size, (p, rest.view(storage.parts[1].dtype)))

    def parameter_in(self, form: str | None) -> Kept:
        """The second array of the parameter in a form, and the entries that go for it."""
        present = [name for name in SECONDS if name in self.existing]
        if form not in BESIDE:
            return Kept((), {}, present)
        entry, part = BESIDE[form], STORAGES[form].parts[1]
        dtype = self._dtype_beside(form)
        if self.held(form) == form:
            name, second = self.second(form)
            if self.fits(part, dtype, second):
                made = {} if name == entry else {entry: second}
                return Kept((second,), made, [each for each in present if each != entry])
        kept = self.assigned(self.values(), form)
        return kept._replace(gone=[each for each in present if each != entry])

    def _dtype_beside(self, form: str) -> torch.dtype:
        """The dtype of the second array of the parameter in a form."""
        if BESIDE[form] == MASTER:
            return self.wide
        is_sent = form == "split16" and is_distributed(self.parameter)
        return torch.bfloat16 if is_sent else DTYPES[form]

    def assigned(self, values: Array | None, form: str) -> Kept:
        """The parameter in a form that has a second array, with these values along the walk.

        None are its own.
        """
        storage, entry = STORAGES[form], BESIDE[form]
        part, dtype = storage.parts[1], self._dtype_beside(form)
        if values is not None:
            first, rest = storage.encode(values)
            second = self.put(part, dtype, rest)
            return Kept((second,), {entry: second}, (), self.writing(first))
        if entry == MASTER:
            second = self.parameter.detach().to(dtype, copy=True)
        else:
            second = self.put(part, dtype, np.zeros(part.length(self.size), part.dtype))
        return Kept((second,), {entry: second})

    def assigned_to(self, value: Any, form: str | None) -> Kept:
        """The parameter in a form, with the values of a tensor like it."""
        if form in BESIDE:
            return self.assigned(self.along(value), form)
        if form is None:
            return Kept((), {}, (), [partial(setitem, self.real, ..., as_real(local(value)))])
        return Kept((), {}, (), self.writing(STORAGES[form].encode(self.along(value))[0]))

    def refuse_unlike(self, value: Any) -> None:
        """Refuse what the parameter cannot be assigned."""
        name = f"params{self.path}"
        if not isinstance(value, torch.Tensor) or value.dtype is not self.wide:
            raise TypeError(
                f"{name} is {describe(value)}; pass a tensor of {self.wide}, as float32_params() "
                "returns it"
            )
        self.refuse_misfit(value, name)
        if is_distributed(self.parameter) and (
            not is_distributed(value) or value.placements != self.parameter.placements
        ):
            raise ValueError(
                f"{name} is not sharded as its parameter is; pass a DTensor with placements "
                f"{self.parameter.placements}"
            )

    def writing(self, flat: Array) -> list[Call]:
        """The calls that give the parameter what lies along the walk, in its own dtype."""
        return [partial(setitem, self.real, ..., self.shaped(flat).to(self.real.device))]

    def exact(self) -> Any:
        """A copy of the parameter as steps see it."""
        values = self.values()
        copy = self.parameter.detach().to(self.wide, copy=True)
        if values is not None:
            as_real(local(copy)).copy_(self.shaped(values))
        return copy


def is_sparse(value: Any) -> bool:
    """Whether a value of a state is a tensor that is not dense."""
    return isinstance(value, torch.Tensor) and local(value).layout is not torch.strided


def as_tensor(array: Array) -> torch.Tensor:
    """A tensor over an array's memory."""
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
