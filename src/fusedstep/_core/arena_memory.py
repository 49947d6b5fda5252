"""The memory of an arena: a buffer for each dtype, and where in it each parameter lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.checks import check_like
from fusedstep._arrays.cuda_array import on_device
from fusedstep._arrays.dtypes import dtype_name
from fusedstep._arrays.libraries import by_numpy
from fusedstep._arrays.memory import pin, zeros
from fusedstep._arrays.overlap import WrittenMemory, lies_as
from fusedstep._arrays.place import Host, Place
from fusedstep._arrays.structure import Structure
from fusedstep._arrays.walk import Array, Walk
from fusedstep._checks.wording import describe
from fusedstep._core.rows import has_rows


class Flat(NamedTuple):
    """All parameters of one dtype, and their gradients in the same order."""

    p: Array
    g: Array


class Slot(NamedTuple):
    """Where a parameter lies: from element `start` to `stop` of its dtype's buffer."""

    walk: Walk
    dtype: np.dtype[Any]
    start: int
    stop: int

    def view(self, flat: Array) -> Array:
        """The part of a buffer that it names, as an array of the parameter's shape."""
        return self.walk.shaped(flat[self.start : self.stop])


class GroupViews(Sequence[Any]):
    """The parameters of one group. A copy made along with the arena has those of its copy."""

    def __init__(self, memory: ArenaMemory, start: int, stop: int) -> None:
        self.memory, self.start, self.stop = memory, start, stop

    def __getitem__(self, index: Any) -> Any:
        return self.memory.params[self.start : self.stop][index]

    def __len__(self) -> int:
        return self.stop - self.start


class ArenaMemory:
    """The buffers, and the parameters and gradients in them.

    `groups` has for each group its name, the number of its parameters and its own
    hyperparameters, `walks` for each parameter its walk and its dtype. Each begins at a multiple
    of `align` bytes; there are gaps before it where the one before it does not end at one.
    """

    def __init__(
        self,
        place: Place,
        structure: Structure,
        groups: Sequence[tuple[str, int, dict[str, Any]]],
        walks: Iterable[tuple[Walk, np.dtype[Any]]],
        align: int = 1,
    ) -> None:
        self.place = place
        self.structure = structure
        self.groups = groups
        self.align = align
        self.slots: list[Slot] = []
        sizes: dict[np.dtype[Any], int] = {}
        for walk, dtype in walks:
            start = sizes.get(dtype, 0)
            start += -start % max(1, align // dtype.itemsize)
            sizes[dtype] = start + walk.size
            self.slots.append(Slot(walk, dtype, start, sizes[dtype]))
        self.flats = {
            dtype: Flat(zeros(place, size, dtype), zeros(place, size, dtype))
            for dtype, size in sizes.items()
        }
        self.pins = [pin(array) for flat in self.flats.values() for array in flat]
        self.p = [slot.view(self.flats[slot.dtype].p) for slot in self.slots]
        self.g = [slot.view(self.flats[slot.dtype].g) for slot in self.slots]
        self.params = [place.show(p) for p in self.p]
        """The parameters as the user gets them: other arrays over the same memory."""
        self.grads = [place.show(g) for g in self.g]
        """The gradients as the user gets them."""

    @property
    def counts(self) -> dict[str, int]:
        """The number of elements of the parameters of each dtype."""
        counts = dict.fromkeys(map(dtype_name, self.flats), 0)
        for slot in self.slots:
            counts[dtype_name(slot.dtype)] += slot.walk.size
        return counts

    def read(self) -> tuple[Structure, list[tuple[str, Sequence[Any], dict[str, Any]]]]:
        """The structure and the groups, as `read_groups` gives them for other parameters."""
        starts = accumulate((count for _, count, _ in self.groups), initial=0)
        return self.structure, [
            (name, GroupViews(self, start, start + count), own)
            for start, (name, count, own) in zip(starts, self.groups, strict=False)
        ]

    def rows_among(self, grads: Any) -> list[Any]:
        """The gradients of rows among `grads`, whatever containers they come in; None elsewhere.

        All others have to be the arena's own.
        """
        flat = self.structure.flatten(grads, "grads")
        for path, g, given, own in zip(self.structure.paths, flat, self.grads, self.g, strict=True):
            if has_rows(g):
                continue
            name = f"grads{path}"
            known = on_device(g) or issubclass(type(g), np.ndarray)
            if g is not given and not (known and lies_as(self.place.see(g, name), own)):
                raise ValueError(
                    f"{name} is {describe(g)} and not the arena's view; its optimizer steps all of "
                    f"`arena.grads`, so write into that: `arena.{name}[...] = value`"
                )
        return [g if has_rows(g) else None for g in flat]

    @cached_property
    def gradients(self) -> WrittenMemory:
        """The memory of the gradients, each under the name that errors have for it."""
        paths = self.structure.paths
        return WrittenMemory((f"arena.grads{x}", g) for x, g in zip(paths, self.g, strict=True))

    def set_grads(self, grads: Any) -> None:
        """Copy gradients into the arena's: all of them, or none if one will not do."""
        calls: list[Call] = []
        flat = by_numpy(self.structure.flatten(grads, "grads"))
        for path, g, own in zip(self.structure.paths, flat, self.g, strict=True):
            name = f"grads{path}"
            if g is None:
                raise TypeError(f"{name} is None; an arena has all gradients: pass zeros")
            seen = self.place.see(g, name)
            check_like(seen, own, name)
            if not lies_as(seen, own):
                self.gradients.refuse(seen, name)
                calls += self.place.copying(own, seen)
        self.place.at_once(calls)

    def __getstate__(self) -> dict[str, Any]:
        if not isinstance(self.place, Host):
            raise TypeError(
                "this arena is on a CUDA device, and cannot be copied or pickled; make another "
                "from its `params`"
            )
        return {
            "structure": self.structure,
            "groups": self.groups,
            "walks": [(slot.walk, slot.dtype) for slot in self.slots],
            "place": self.place,
            "align": self.align,
            "flats": self.flats,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        flats = state.pop("flats")
        self.__init__(**state)  # type: ignore[misc]
        for dtype, flat in flats.items():
            self.flats[dtype].p[...] = flat.p
            self.flats[dtype].g[...] = flat.g
