"""Parameters and gradients in one piece of memory for each dtype, to step over all of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from fusedstep._arrays.checks import check_values
from fusedstep._arrays.dtypes import dtype_name
from fusedstep._arrays.memory import LINE
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.structure import named
from fusedstep._arrays.walk import Walk, refuse_turned
from fusedstep._backends.choose import place_of
from fusedstep._checks.wording import describe
from fusedstep._core.arena_jax import live_arrays
from fusedstep._core.arena_memory import ArenaMemory
from fusedstep._core.arena_views import plain_containers, replacement_error, view_containers
from fusedstep._core.groups import read_groups


class ArenaGradients:
    """The type of the default of a step's `grads`: an arena's own."""

    def __repr__(self) -> str:
        return "arena.grads"


ARENA_GRADIENTS = ArenaGradients()


class FixedAttributes:
    """Base of objects whose attributes stay; `x.name += y` assigns one to itself, which is fine."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        known = getattr(self, name, value)
        if known is not value:
            raise AttributeError(replacement_error(name, known))
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name!r} cannot be deleted")


class Buffer(FixedAttributes):
    """All parameters of one dtype, and their gradients: flat, and in the same order."""

    __slots__ = ("g", "p")

    def __init__(self, p: Any, g: Any) -> None:
        self.p = p
        self.g = g

    def __repr__(self) -> str:
        return f"Buffer(p={self.p!r}, g={self.g!r})"


class Views(NamedTuple):
    """An arena's parameters and gradients in plain containers."""

    params: Any
    grads: Any


class Arena(FixedAttributes):
    """Parameters, and their gradients, in one contiguous buffer for each dtype.

    An optimizer over an arena steps each buffer as one tensor, so that many small parameters
    cost what a large one does. Gradients are written into views of the arena, and a step
    needs no arguments::

        arena = fs.Arena(params)
        opt = fs.AdamW(arena, lr=1e-3)
        for x, y in batches:
            backward(arena.params, x, y, out=arena.grads)      # arena.grads["w"][...] = ...
            opt.step()

    Parameters
    ----------
    params
        Whatever an optimizer takes: an array, a sequence or mapping of arrays, nested at will,
        or a sequence of groups, whose hyperparameters are those of the optimizer's groups.
        Their values are copied; the arrays themselves are of no more use to the optimizer.
    align
        Bytes, a power of two up to 64: each parameter begins at a multiple of them, with gaps in
        the buffers where that takes some. With 64 each view is at the start of a cache line, as
        `jax_params` needs it. By default there are no gaps.

    Attributes
    ----------
    params, grads
        Views of the parameters, which begin with the values given, and of the gradients, which
        begin with zeros. They stand in the structure of `params`: a dict or OrderedDict, a
        tuple, a named tuple of the same type; a dict for any other mapping, a list for any other
        sequence or for groups, an array for an array. Each has its parameter's shape and dtype,
        and its order in memory, such as C or Fortran, without gaps.
    plain
        `plain.params` and `plain.grads`: the same views in plain containers, made anew each time.
    buffers
        For each dtype, as `"float32"`, the flat arrays `p` and `g` that `params` and `grads` are
        views of: one after the other in the order of the structure, without gaps unless `align`
        asks for them, from a multiple of 64 bytes on. They are what to sum over several
        processes, take a norm of or clear at once: `arena.buffers["float32"].g[...] = 0`.

    Raises
    ------
    TypeError, ValueError
        If an array will not do as a parameter, or two of them share memory, or `align` is
        another number.

    Notes
    -----
    A view must be written into, not replaced: `arena.grads["w"][...] = g` or, as Python then
    keeps the object, `arena.grads["w"] += g`. Assigning another array, `arena.grads["w"] = g`,
    would leave the optimizer with the old memory and is a TypeError, and so is whatever else
    changes which views `params` and `grads` hold: `del`, `pop`, `append` and so on. Copies of
    these containers are plain ones. What an arena cannot see is such an assignment in a
    container of your own: after `mine = dict(arena.grads)` and `mine["w"] = g` the gradient of
    `"w"` is what it was before. `opt.step(mine)` would tell: it takes nothing but the views.

    For an optimizer nothing else changes: `state`, `state_dict()` and reports are by parameter.
    State dicts go from optimizers over arrays to those over arenas and back, and a step gives
    the same bits, but for the norm of the gradients: it is summed over each group's part of a
    buffer as over one tensor, so that with `max_norm` the last bit may differ. None in a
    gradient's place, to skip a parameter, is refused. Parameters whose t differ, which
    can only come from a state dict, are one tensor for each run of neighbours of the same t.
    Gaps are stepped like parameters whose gradient is 0; what then stands in them means nothing.

    Several optimizers may step one arena. A deep copy or a pickle of an optimizer brings a
    copy of its arena along, as `opt.arena`; both together stay together.

    An arena of arrays on a CUDA device is there, too, and its views are Numba's arrays, which
    `cupy.asarray(view)` and `torch.as_tensor(view, device="cuda")` take without a copy.

    Examples
    --------
    >>> import numpy as np, fusedstep as fs
    >>> arena = fs.Arena({"w": np.array([[1.0, 2.0], [3.0, 4.0]]), "b": np.zeros(2)})
    >>> opt = fs.SGD(arena, lr=0.1)
    >>> arena.grads["w"][...] = [[10.0, 20.0], [0.0, 0.0]]
    >>> arena.grads["b"] += 1.0
    >>> opt.step(zero_grads=True)
    Report(grad_norm=None, clip=1.0, skipped=(), t=1)
    >>> arena.params
    {'w': array([[0., 0.],
           [3., 4.]]), 'b': array([-0.1, -0.1])}
    >>> arena.buffers["float64"].g
    array([0., 0., 0., 0., 0., 0.])
    >>> arena.grads["b"] = np.ones(2)
    Traceback (most recent call last):
    TypeError: grads['b'] = ... would replace the arena's view, and the optimizer would step the \
old memory, without what is assigned; write into it: `grads['b'][...] = value`
    """

    __slots__ = ("_memory", "buffers", "grads", "params")

    params: Any
    grads: Any
    buffers: Mapping[str, Buffer]

    def __init__(self, params: Any, *, align: int = 1) -> None:
        align = check_align(align)
        structure, divided = read_groups(params)
        given = [array for _, arrays, _ in divided for array in arrays]
        if not given:
            raise ValueError("params is empty; pass at least one array")
        leaves = named(structure, given)
        place = place_of(leaves)
        seen = []
        for name, array in leaves:
            values = place.see(array, name)
            check_values(values, name)
            seen.append((name, values))
        WrittenMemory(seen).refuse_overlaps()
        groups = [(name, len(arrays), own) for name, arrays, own in divided]
        walks = [(Walk(values, place), values.dtype) for _, values in seen]
        for (name, _), (walk, _) in zip(seen, walks, strict=True):
            if walk.turned:
                refuse_turned(name, "in an arena")
        self._take_up(ArenaMemory(place, structure, groups, walks, align))
        for view, (_, values) in zip(self._memory.p, seen, strict=True):
            place.copy(view, values)

    def _take_up(self, memory: ArenaMemory) -> None:
        show = memory.place.show
        self._memory = memory
        self.params = view_containers(memory.structure, "params", iter(memory.params))
        self.grads = view_containers(memory.structure, "grads", iter(memory.grads))
        self.buffers = MappingProxyType(
            {dtype_name(dtype): Buffer(*map(show, flat)) for dtype, flat in memory.flats.items()}
        )

    @property
    def plain(self) -> Views:
        """The views of parameters and gradients in plain containers, made anew each time.

        They are ordinary dicts, lists and tuples: assigning to them changes them, and not what the
        optimizer steps.
        """
        structure, memory = self._memory.structure, self._memory
        return Views(
            plain_containers(structure, iter(memory.params)),
            plain_containers(structure, iter(memory.grads)),
        )

    def set_grads(self, grads: Any) -> None:
        """Copy gradients of the parameters' structure into the arena's.

        Parameters
        ----------
        grads
            Arrays of any library, each of its parameter's shape and dtype, in plain containers or
            an arena's. For one that is still being computed, as JAX does, the call waits.

        Raises
        ------
        TypeError, ValueError, KeyError
            If one of them does not fit; nothing has been written then.

        Examples
        --------
        >>> import numpy as np, fusedstep as fs
        >>> arena = fs.Arena([(np.ones((2, 2)), np.zeros(2))])
        >>> arena.set_grads([(np.ones((2, 2)), np.array([2.0, 4.0]))])
        >>> _ = fs.SGD(arena, lr=0.5).step()
        >>> arena.params[0][1]
        array([-1., -2.])
        """
        self._memory.set_grads(grads)

    def jax_params(self) -> Any:
        """Return the parameters as arrays of JAX over the same memory, in plain containers.

        They are live: a function of JAX that is called with them reads what the last step has
        written. Make the arena with `align=64`, so that JAX takes all of them as they are.

        Three things to know. JAX computes behind the caller's back: before a step, wait by
        `jax.block_until_ready` for everything that was computed from them, or it may read
        parameters that are half stepped. Pass them as arguments: what a jitted function finds
        outside of itself it copies once, when it is compiled. And they are no snapshot:
        `jnp.array(x)` makes one, `x[:]` and `jnp.asarray(x)` do not.

        Raises
        ------
        ValueError
            If a parameter does not begin at a multiple of 64 bytes, is not in C order, or is
            float64 while JAX is set to float32: of these JAX would silently make a copy, which no
            step reaches.
        TypeError
            If the arena is on a CUDA device.
        ImportError
            If JAX is not installed.
        """
        return plain_containers(self._memory.structure, live_arrays(self._memory))

    def __getstate__(self) -> ArenaMemory:
        return self._memory

    def __setstate__(self, memory: ArenaMemory) -> None:
        self._take_up(memory)

    def __repr__(self) -> str:
        memory = self._memory
        elements = ", ".join(f"{count} {dtype}" for dtype, count in memory.counts.items())
        return f"<arena of {len(memory.p)} parameters: {elements}>"


def check_align(align: Any) -> int:
    """The number of bytes that parameters are aligned to, checked."""
    if type(align) is not int or align not in (1, 2, 4, 8, 16, 32, LINE):
        raise ValueError(
            f"align={describe(align)}; pass a power of two up to {LINE}, as `align=64`"
        )
    return align


def memory_of(arena: Arena) -> ArenaMemory:
    """The memory of an arena, for the optimizers that step it."""
    return arena._memory  # noqa: SLF001  the one door to it
