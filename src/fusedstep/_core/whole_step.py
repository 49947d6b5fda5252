"""A step with more than its rule: unscaled, clipped, looked over for NaN, zeroed."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple, NoReturn

from fusedstep._backends.plan import Line
from fusedstep._core.layout import Layout
from fusedstep._core.request import Report, Request, check_in_dtypes
from fusedstep._numerics.coefficients import JobScalars, step_scalars


class Begun(NamedTuple):
    """A step of which it is known what it steps by."""

    scalars: Sequence[JobScalars] = ()
    lines: Sequence[Line] = ()
    """The scalars for each count of steps that there may have been."""
    judged: bool = False
    """Whether it is judged where its gradients are, see `Layout.judges`."""


def begin(
    layout: Layout, request: Request, nonfinite: str, in_flight: bool = False
) -> Begun | None:
    """Find the scalars of the step that comes; None if another rule is called for."""
    if layout.judges(request, nonfinite):
        lines = layout.lines()
        return None if lines is None else Begun(lines=lines, judged=True)
    scalars = layout.scalars(in_flight)
    return None if scalars is None else Begun(scalars)


def whole_step(
    layout: Layout,
    grads: list[Any],
    begun: Begun,
    request: Request,
    nonfinite: str,
) -> Report:
    """Step as requested with `grads`, which the layout has taken, and with its scalars.

    `nonfinite` is the policy for gradients with NaN or infinity. All that may raise comes
    before anything is written.
    """
    scale, scalars = request.scale, begun.scalars
    if scale != 1 or request.max_value != inf:
        check_in_dtypes(request, {cohort.dtype for cohort in layout.cohorts})
    if begun.judged:
        return layout.judge(begun.lines, request, nonfinite)
    grad_norm, clip = None, 1.0
    each = request.clip == "tensor"
    if request.max_norm is not None or nonfinite != "propagate":
        measure = layout.clip_each if each else layout.measure
        measured = measure(scale, inf if request.max_norm is None else request.max_norm)
        if request.max_norm is not None:
            grad_norm, clip = measured.norm, measured.clip
        # Division by a scale below 1 may overflow what is finite.
        if nonfinite != "propagate" and (scale < 1 or not measured.finite):
            unfit = [layout.tensors.parameters[k].path for k in layout.unfit(1 / scale, each)]
            if unfit and nonfinite == "raise":
                refuse_nonfinite(unfit)
            if unfit:
                if request.zero_grads:
                    layout.clear(grads)
                skipped = tuple(f"params{path}" for path in unfit)
                return Report(grad_norm, 1.0, skipped, layout.t)
    for _, values in scalars:
        values.update(step_scalars(scale, 1.0 if each else clip, request.max_value))
    report = Report(grad_norm, clip, (), layout.coming)  # once it is done nothing may fail
    layout.run(scalars, request.zero_grads, each)
    return report


def refuse_nonfinite(paths: list[str]) -> NoReturn:
    """Refuse gradients, of the parameters with these paths, that are not finite."""
    raise FloatingPointError(
        f"{', '.join(f'grads{path}' for path in paths[:8])} "
        f"{'and more ' if len(paths) > 8 else ''}held NaN or infinity, or do so divided "
        "by `scale`; nothing was stepped. Lower the learning rate or the loss's scale, "
        "or pass nonfinite='skip' to the optimizer to leave such steps out"
    )
