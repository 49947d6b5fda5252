"""An optimizer as a record sees it, and its run again from one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from fusedstep._arrays.dtypes import BFLOAT16, dtype_name, foreign
from fusedstep._arrays.plain import plain
from fusedstep._core.arena import ARENA_GRADIENTS, Arena
from fusedstep._core.checkpoint import Checkpoint, CheckpointReader
from fusedstep._core.digest import Numbers
from fusedstep._core.optimizer import Inside, Optimizer
from fusedstep._core.packed import order_of
from fusedstep._core.record import GRADIENT, ROWS, VALUES, Step
from fusedstep._core.rows import Rows
from fusedstep._core.saving import Giving
from fusedstep._core.schedule import Schedule
from fusedstep._core.state_dict import saved_group
from fusedstep._core.tensor_file import Array

FIXED = ("master", "state_dtype", "rounding", "seed", "untouched", "row_steps")
"""Options that are fixed when an optimizer is made."""

Add = Callable[[dict[str, Any], list[dict[str, Any]], "dict[str, Array] | None"], None]
"""A function that adds a step to a record, of its request, its options and its gradients."""


class Recorded:
    """An optimizer whose steps are recorded."""

    def __init__(self, opt: Optimizer) -> None:
        self.inside = _inside(opt)
        if not self.inside.on_host:
            raise TypeError("opt has its arrays on a CUDA device; record it with arrays of NumPy")
        if self.inside.has_copies:
            raise ValueError("opt has `out`, which a record cannot repeat; leave `out` away")
        if "step" in vars(opt):
            raise ValueError("opt is recorded already; close its other recorder first")
        self.opt: Any = opt
        self._step: Any = None

    def description(self) -> dict[str, Any]:
        """All that a run needs and a checkpoint has not."""
        walks = [each.walk for each in self.inside.parameters]
        return {
            "names": self.inside.names,
            "dtypes": [dtype_name(each.p.dtype) for each in self.inside.parameters],
            "orders": [None if walk.plain else [*order_of(walk)] for walk in walks],
            "nonfinite": self.inside.nonfinite,
            "arena": self.opt.arena is not None,
        }

    def options(self) -> list[dict[str, Any]]:
        """The options of the groups; a rate that a record cannot hold is refused."""
        saved = [saved_group(group) for group in self.opt.param_groups]
        for group, own in zip(self.opt.param_groups, saved, strict=True):
            if own["lr"] is None:
                raise ValueError(
                    f"lr={group['lr']!r} is a function of your own, which a record cannot hold; "
                    "pass a schedule of `fusedstep.schedules`, or assign its rates step by step"
                )
        return saved

    def numbers(self) -> dict[str, Numbers]:
        """The numbers of each parameter, by name."""
        return dict(zip(self.inside.names, self.inside.numbers(), strict=True))

    def attach(self, add: Add, keeps_gradients: bool) -> None:
        """Let each step of the optimizer be added to a record."""

        def step(
            grads: Any = ARENA_GRADIENTS, wait: Any = True, after: Any = None, **request: Any
        ) -> Any:
            """Step the optimizer as its class does, and add the step to the record.

            A record has the numbers after each step, so that each is waited for.
            """
            if wait is not True or after is not None:
                from fusedstep._core import in_flight  # see `Optimizer._step_in_flight`

                waited = partial(step, grads, **request)
                waits = in_flight.check_wait(wait, after)
                return waited() if waits else in_flight.landed(waited, after)
            options = self.options()
            kept = self._gradients(grads) if keeps_gradients else None
            report = type(self.opt).step(self.opt, grads, **request)
            add(request, options, kept)
            return report

        vars(self.opt)["step"] = self._step = step

    def detach(self) -> None:
        """Let the optimizer go on without."""
        if vars(self.opt).get("step") is self._step:
            vars(self.opt).pop("step", None)

    def _gradients(self, grads: Any) -> dict[str, Array]:
        """Copies of the gradients of a step as a file has them."""
        inside, arena = self.inside, self.opt.arena
        if grads is ARENA_GRADIENTS and arena is not None:
            grads = arena.grads
        kept: dict[str, Array] = {}
        for name, g in zip(inside.names, inside.structure.flatten(grads, "grads"), strict=True):
            if g is None:
                continue
            rows = _rows_of(g)
            if rows is None:
                kept[f"{GRADIENT}.{name}"] = plain(g, f"grads[{name!r}]").copy(order="C")
            else:
                kept[f"{ROWS}.{name}"] = np.asarray(rows[0], np.int64).copy()
                values = plain(rows[1], f"grads[{name!r}].values")
                kept[f"{VALUES}.{name}"] = values.copy(order="C")
        return kept


def _rows_of(g: Any) -> tuple[Any, Any] | None:
    """The rows and values of a gradient of rows, or of a sparse matrix; None: it is whole."""
    if isinstance(g, Rows):
        if g.mask is None:
            return g.index, g.values
        index = np.flatnonzero(np.asarray(g.mask))
        return index, np.asarray(g.values)[index]
    if hasattr(g, "tocsr"):
        matrix = g.tocsr()
        index = np.flatnonzero(np.diff(matrix.indptr))
        return index, matrix[index].toarray()
    return None


class Run:
    """The run of a record, from its beginning, on a backend."""

    def __init__(
        self, reader: CheckpointReader, found: Checkpoint, kind: Any, backend: str
    ) -> None:
        about = found.metadata
        names, shapes = about["names"], [found.params[name].shape for name in about["names"]]
        arrays = [*map(_empty, shapes, about["dtypes"], about["orders"])]
        options = {name: v for name, v in found.groups[0].items() if name != "params"}
        options |= {"lr": _rate(options["lr"]), "nonfinite": about["nonfinite"]}
        by_name = dict(zip(names, arrays, strict=True))
        groups = [
            {
                "params": [by_name[name] for name in names if name in {*group["params"]}],
                **{name: group[name] for name in FIXED if name in group},
            }
            for group in found.groups
        ]
        params = Arena(groups) if about["arena"] else groups
        self.opt = kind(params, **options, backend=backend)
        self.inside = _inside(self.opt)
        members = {name: k for k, group in enumerate(found.groups) for name in group["params"]}
        in_order = sorted(names, key=members.__getitem__)  # as the groups have them
        arrays = [each.array for each in self.inside.parameters]
        self.params: dict[str, Array] = dict(zip(in_order, arrays, strict=True))
        """The parameters, by the names that they have in the record."""
        self.opt._load_checkpoint(Giving(reader, found), self.params)  # noqa: SLF001

    def step(self, step: Step, given: Mapping[str, Any]) -> None:
        """Take a step, with the gradients of some parameters by name."""
        for group, saved in zip(self.opt.param_groups, step.options or (), strict=False):
            now = {name: value for name, value in saved.items() if name not in FIXED}
            group.update({**now, "lr": _rate(now["lr"])})
        flat = [_as_given(given.get(name)) for name in self.params]
        if self.opt.arena is not None:
            targets = self.inside.structure.flatten(self.opt.arena.grads, "grads")
            for target, g in zip(targets, flat, strict=True):
                target[...] = g
            self.opt.step(**step.request)
        else:
            self.opt.step(self.inside.structure.rebuild(flat), **step.request)

    def numbers(self) -> dict[str, Numbers]:
        """The numbers of each parameter, by name."""
        return dict(zip(self.params, self.inside.numbers(), strict=True))


def _inside(opt: Any) -> Inside:
    found: Inside = opt._inside()  # noqa: SLF001
    return found


def _rate(lr: Any) -> Any:
    """A learning rate of a checkpoint as an optimizer takes it."""
    return Schedule.from_dict(lr) if isinstance(lr, Mapping) else lr


def _empty(shape: tuple[int, ...], dtype: str, order: list[int] | None) -> Array:
    """An array that lies in memory as the recorded one did, but for gaps."""
    kind = BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)
    if order is None:
        return foreign(np.zeros(shape, kind))
    axes = [max(k, ~k) for k in order]
    laid = np.zeros([shape[axis] for axis in axes], kind)
    turned = laid.transpose([axes.index(k) for k in range(len(axes))])
    forward = (slice(None, None, -1 if ~k in order else 1) for k in range(len(axes)))
    return foreign(turned[(*forward,)])


def _as_given(g: Any) -> Any:
    """A gradient of a file, or of a function, as a step takes it."""
    if isinstance(g, tuple):
        return Rows(*g)
    return foreign(g) if isinstance(g, np.ndarray) else g
