"""A step with more than its rule, over all layouts of an optimizer and all ranks of its meshes."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite, sqrt
from typing import Any, NamedTuple

import torch
import torch.distributed

from fusedstep._core.layout import Layout
from fusedstep._core.request import TENSOR, Report, Request, check_scale
from fusedstep._core.whole_step import refuse_nonfinite
from fusedstep._numerics.coefficients import JobScalars, step_scalars
from fusedstep._numerics.norm import factor, smallest


class Sharing(NamedTuple):
    """How the parameters of a layout are shared between processes."""

    mesh: Any = None
    """The DTensors' mesh of ranks; None: this process has all of each parameter."""
    dimensions: tuple[int, ...] = ()
    """The dimensions of the mesh whose ranks each have a part; along others all have the same."""

    @classmethod
    def of(cls, parameter: Any) -> Sharing:
        """The sharing of a distributed tensor."""
        placements = enumerate(parameter.placements)
        parts = (dimension for dimension, each in placements if not each.is_replicate())
        return cls(parameter.device_mesh, tuple(parts))

    def gather(self, own: Sequence[float]) -> list[list[float]]:
        """These numbers of all ranks that have parts, rank by rank."""
        rows = [[*own]]
        for dimension in self.dimensions:
            group = self.mesh.get_group(dimension)
            mine = torch.tensor(rows, dtype=torch.float64, device=self.mesh.device_type)
            ranks = torch.distributed.get_world_size(group)
            parts = [torch.empty_like(mine) for _ in range(ranks)]
            torch.distributed.all_gather(parts, mine, group=group)
            rows = torch.cat(parts).tolist()
        return rows


class Ready(NamedTuple):
    """A layout that has taken its gradients for a step."""

    layout: Layout
    sharing: Sharing
    grads: list[Any]
    scalars: list[JobScalars]


def whole_step(ready: Sequence[Ready], request: Request, nonfinite: str) -> Report:
    """Step all layouts as requested; `nonfinite` is the policy for gradients with NaN or infinity.

    The norm is that of all gradients, of all ranks together: each layout's own is taken on each
    rank, and these are folded in the order of ranks and then of layouts. All that may raise comes
    before anything is written.
    """
    alone = request.clip == TENSOR
    for each in ready:
        if alone and each.sharing.dimensions:
            raise ValueError(
                "clip='tensor' with sharded parameters, of whose gradients each rank knows a part; "
                "set `optimizer.clip = 'global'`"
            )
        for cohort in each.layout.cohorts:
            check_scale(request.scale, cohort.dtype)
    if len(ready) == 1 and (judged := _judged(ready[0], request, nonfinite)) is not None:
        return judged
    grad_norm, clip = None, 1.0
    if request.max_norm is not None or nonfinite != "propagate":
        norms, clips, unfit, elsewhere = [], [], [], False
        for each in ready:
            found = _measure(each, request, nonfinite)
            norms.append(found.norm)
            clips.append(found.clip)
            unfit += found.unfit
            elsewhere |= found.elsewhere
        if request.max_norm is not None:
            grad_norm = fold(norms)
            clip = smallest(clips) if alone else factor(grad_norm, request.max_norm)
        if unfit or elsewhere:
            if nonfinite == "raise":
                refuse_nonfinite(unfit or ["of another rank"])
            return Report(grad_norm, 1.0, tuple(f"params{path}" for path in unfit), _t(ready))
    for each in ready:
        for _, values in each.scalars:
            together = 1.0 if alone else clip
            values.update(step_scalars(request.scale, together, request.max_value))
    for each in ready:
        each.layout.run(each.scalars, False, alone)
    return Report(grad_norm, clip, (), _t(ready))


def _judged(ready: Ready, request: Request, nonfinite: str) -> Report | None:
    """The report of a step that is clipped where its gradients are; None, and nothing done, if it
    has to be looked at here: for the norm of other ranks, or as it may leave counts as they are.
    """
    layout = ready.layout
    if nonfinite != "propagate" or ready.sharing.dimensions:
        return None
    if not layout.judges(request, nonfinite):
        return None
    lines = layout.lines()
    return None if lines is None else layout.judge(lines, request, nonfinite)


def _t(ready: Sequence[Ready]) -> int:
    return max((each.layout.t for each in ready), default=0)


class Found(NamedTuple):
    """The gradients of a layout as they were measured."""

    norm: float
    """The norm over all ranks."""
    clip: float
    """The smallest factor that clips one of them by itself, if that is asked for."""
    unfit: list[str]
    """The paths of those here that are not finite."""
    elsewhere: bool
    """Whether there are such on a rank."""


def _measure(ready: Ready, request: Request, nonfinite: str) -> Found:
    layout, sharing, scale = ready.layout, ready.sharing, request.scale
    alone = request.clip == TENSOR
    if alone and request.max_norm is not None:
        measured = layout.clip_each(scale, request.max_norm)
    else:
        measured = layout.measure(scale, inf)
    unfit = []
    if nonfinite != "propagate" and (scale < 1 or not measured.finite):
        unfit = [layout.tensors.parameters[at].path for at in layout.unfit(1 / scale, alone)]
    rows = sharing.gather([measured.norm, len(unfit)])
    elsewhere = any(count for _, count in rows)
    return Found(fold([norm for norm, _ in rows]), measured.clip, unfit, elsewhere)


def fold(norms: Sequence[float]) -> float:
    """The norm of all together, of parts in this order; no square overflows."""
    largest = max(norms, default=0.0)
    if not (largest > 0 and isfinite(sum(norms))):
        return sum(norms)
    squares = 0.0
    for norm in norms:  # not by sum(), which compensates from CPython 3.12 on
        share = norm / largest
        squares += share * share
    return largest * sqrt(squares)
