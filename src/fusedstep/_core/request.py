"""The arguments of a step, checked, and its report."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial
from math import inf, isnan
from typing import Any, NamedTuple

import numpy as np

from fusedstep._checks.hints import nearest
from fusedstep._checks.values import flag, non_negative, number
from fusedstep._checks.wording import describe, quoted, shown
from fusedstep._numerics.range import RANGES

NONFINITE = ("propagate", "skip", "raise")
"""Policies for a gradient that holds NaN or infinity."""

CLIPS = GLOBAL, TENSOR = ("global", "tensor")
"""Choices of what is clipped by its norm: all gradients together, or each by itself."""


class Report(NamedTuple):
    """The report of a step.

    grad_norm
        The norm of all gradients together, over `scale`, before clipping, also where each is
        clipped by itself. It is measured for `max_norm`; None if that was not asked for.
    clip
        What the gradients were multiplied by, to bring their norm down to `max_norm`; 1 if
        they were not. With `clip="tensor"` the smallest of the factors, which the gradient with
        the largest norm was multiplied by.
    skipped
        The parameters whose gradients were not finite, if the step was skipped for them, as
        `"params['w']"`.
    t
        The steps taken so far: of the parameter that has taken most, of those in this step.

    On a CUDA device, where a step that is clipped or may be skipped is judged, whoever reads the
    first of these waits for it.

    >>> import numpy as np, fusedstep as fs
    >>> opt = fs.SGD({"w": np.zeros(2), "b": np.zeros(1)}, nonfinite="skip")
    >>> report = opt.step({"w": np.ones(2), "b": np.array([np.nan])})
    >>> report.skipped, report.t
    (("params['b']",), 0)
    """

    grad_norm: float | None
    clip: float
    skipped: tuple[str, ...]
    t: int


report_of = partial(tuple.__new__, Report)
"""The report with these entries, in a third of the time that the class takes for its arguments."""


class Request(NamedTuple):
    """The arguments of a step, checked."""

    scale: float = 1.0
    max_norm: float | None = None
    max_value: float = inf
    zero_grads: bool = False
    clip: str = GLOBAL


PLAIN = Request()
"""The request for the rule alone."""


def check_request(*arguments: Any) -> Request:
    """The arguments of a step, checked: scale, max_norm, max_value, zero_grads, clip."""
    try:
        return _cached(*arguments)
    except TypeError:  # a value cannot be hashed, or is about to be refused
        return _check(*arguments)


def _check(
    scale: Any, max_norm: Any, max_value: Any, zero_grads: Any, clip: Any = GLOBAL
) -> Request:
    return Request(
        _scale(scale),
        None if max_norm is None else _bound("max_norm", max_norm),
        inf if max_value is None else _bound("max_value", max_value),
        flag("zero_grads", zero_grads),
        _clip(clip, max_norm),
    )


# Most steps have the arguments of the one before.
_cached = lru_cache(maxsize=64, typed=True)(_check)


def _scale(value: Any) -> float:
    scale = number("scale", value)
    if not scale > 0:
        raise ValueError(
            f"scale={shown(value)}; gradients are divided by it, so pass what the loss was "
            "multiplied by, above 0"
        )
    return scale


def _clip(value: Any, max_norm: Any) -> str:
    if not isinstance(value, str) or value not in CLIPS:
        raise ValueError(
            f"clip={describe(value)}; pass one of {quoted(CLIPS)}, and the largest norm as "
            "`max_norm=1.0`"
        )
    if value == TENSOR and max_norm is None:
        raise ValueError(
            "clip='tensor' says which norms are clipped, and not how far; pass `max_norm=1.0` "
            "with it"
        )
    return value


def _bound(name: str, value: Any) -> float:
    """A bound on sizes, at least 0; infinity bounds nothing."""
    if isinstance(value, (float, np.floating)) and not np.isfinite(value):
        if isnan(value) or value < 0:
            raise ValueError(f"{name}={value!r}; pass 0 or more, or None for no bound")
        return inf
    return non_negative(name, value)


@lru_cache(maxsize=64)
def check_scale(scale: float, dtype: np.dtype[Any]) -> None:
    """Refuse a scale whose inverse does not fit the dtype of the gradients."""
    with np.errstate(all="ignore"):
        inverse = dtype.type(1 / scale)
    if not 0 < inverse < inf:
        raise ValueError(
            f"scale={scale!r} is out of the range of {dtype.name}; pass one nearer to 1"
        )


@lru_cache(maxsize=64)
def check_bound(max_value: float, dtype: np.dtype[Any]) -> None:
    """Refuse a bound that is 0 in the dtype of the gradients, and would leave nothing of them."""
    if 0 < max_value <= RANGES[dtype].above:
        raise ValueError(
            f"max_value={max_value!r} is 0 in {dtype.name}; pass a larger one, as `max_value=1.0`"
        )


def check_in_dtypes(request: Request, dtypes: Iterable[np.dtype[Any]]) -> None:
    """Refuse a scale or a bound that is out of the range of one of these dtypes of steps."""
    for dtype in dtypes:
        if request.scale != 1:
            check_scale(request.scale, dtype)
        if request.max_value != inf:
            check_bound(request.max_value, dtype)


def check_policy(value: Any) -> str:
    """The policy `nonfinite`, checked."""
    if not isinstance(value, str) or value not in NONFINITE:
        near = nearest(value, NONFINITE)
        meant = "" if near is None else f"; did you mean `nonfinite={near!r}`?"
        raise ValueError(f"nonfinite={describe(value)}; pass one of {quoted(NONFINITE)}{meant}")
    return value


def check_capturable(value: Any, nonfinite: str, in_arena: bool) -> bool:
    """The argument `capturable`, checked with what a CUDA graph cannot do."""
    checked = flag("capturable", value)
    if checked and nonfinite == "raise":
        raise ValueError(
            "nonfinite='raise' with capturable=True: nobody can raise in a CUDA graph; pass "
            "nonfinite='skip', and look at the reports"
        )
    if checked and nonfinite == "skip" and in_arena:
        raise ValueError(
            "nonfinite='skip' with capturable=True and an arena, whose gradients are one to the "
            "device; pass the parameters without the arena"
        )
    return checked
