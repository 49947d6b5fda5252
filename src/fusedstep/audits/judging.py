"""Whether what was seen is what should have been, in words and as the end of a reproducer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fusedstep.audits.checks import Trial
from fusedstep.audits.formulas import Array
from fusedstep.audits.subject import EPS


class Difference(NamedTuple):
    """The elements in which an array is not what it should be."""

    wrong: int
    size: int
    worst: int
    """Index of the element that is farthest off."""

    seen: float
    expected: float

    @property
    def ulps(self) -> float:
        """The distance in units of the last place of float32; infinite where it is not finite."""
        off = abs(self.seen - self.expected)
        with np.errstate(all="ignore"):
            spacing = float(np.spacing(np.float32(abs(self.expected))))
        return off / spacing if np.isfinite(off) and spacing > 0 else float("inf")

    def __str__(self) -> str:
        near = f", {self.ulps:.0f} ulp of float32 off" if 0.5 <= self.ulps < 1000 else ""
        digits = 9 if self.ulps >= 0.5 else 17
        value = f"{self.seen:.{digits}g} in place of {self.expected:.{digits}g}{near}"
        if self.size == 1:
            return f"it is {value}"
        return f"{self.wrong} of {self.size} elements differ; number {self.worst} is {value}"


def differing(trial: Trial, seen: Array, expected: Array) -> Difference | None:
    """Compare; None if all elements are near enough."""
    if seen.shape != expected.shape:
        return Difference(1, 1, 0, float(seen.size), float(expected.size))
    if seen.size == 0:
        return None
    with np.errstate(all="ignore"):
        same = (seen == expected) | (np.isnan(seen) & np.isnan(expected))
        off = np.where(same, 0.0, np.abs(seen - expected))
        wrong = ~(same | (off <= allowed(trial, expected)))
    far = np.where(wrong, np.where(np.isnan(off), np.inf, off), 0.0)
    if not wrong.any():
        return None
    worst = int(far.argmax())
    return Difference(
        int(wrong.sum()), seen.size, worst, float(seen.flat[worst]), float(expected.flat[worst])
    )


def apart(seen: Array, expected: Array, ulps: float = 0.0) -> float:
    """The share of elements that are more than some units of the last place of float32 off."""
    if seen.shape != expected.shape or seen.size == 0:
        return 0.0
    with np.errstate(all="ignore"):
        near = np.abs(seen - expected) <= ulps * np.spacing(np.abs(expected).astype(np.float32))
    same = (seen == expected) | near | (np.isnan(seen) & np.isnan(expected))
    return 1.0 - float(same.mean())


def allowed(trial: Trial, expected: Array) -> Array:
    """How far each element may be off."""
    if trial.tolerance is not None:
        return trial.tolerance
    finite = np.abs(expected[np.isfinite(expected)])
    largest = max(1.0, float(finite.max())) if finite.size else 1.0
    return np.full(expected.shape, trial.close * EPS["float32"] * largest)


def reproducer(trial: Trial, difference: Difference, heading: str) -> str:
    """The program of a trial, which prints the element that is farthest off."""
    k = difference.worst
    lines = [f"# {heading}", trial.program.rstrip()]
    if trial.varies:
        lines.append("k = abs(seen - expected).argmax()")
        lines.append('print(f"element {k}: {seen.flat[k]} in place of {expected.flat[k]}")')
    elif trial.expected is None:
        lines.append(f'print("element {k}:", seen.flat[{k}], "in place of", expected.flat[{k}])')
    else:
        lines.append(f"expected = {difference.expected!r}  # by the formula, in float64")
        lines.append(f'print("element {k}:", seen.flat[{k}], "in place of", expected)')
    return "\n".join(lines) + "\n"
