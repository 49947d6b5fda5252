"""Scalars as functions of a learning rate that is not known yet, for devices that read it late.

Who computes scalars by an `OfRate` in the place of the rate gets, in the place of those that depend
on it, what has to be done to it: one operation with a number after another. That is all that the
package's rules do with a rate. Anything else is a TypeError: a device could not follow it.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, NoReturn, TypeAlias

TAKE, TIMES, OVER, INTO, PLUS, MINUS, FROM = range(7)
"""Operations on x with a number c: c, x·c, x/c, c/x, x + c, x - c, c - x."""

Steps: TypeAlias = tuple[tuple[int, float], ...]
"""Operations, with their numbers, in their order."""


class OfRate:
    """A scalar that a learning rate becomes by some operations.

    >>> (1 - OfRate() * 0.1).steps
    ((1, 0.1), (6, 1.0))
    """

    __slots__ = ("steps",)

    __array_ufunc__ = None  # so that NumPy's numbers leave operations to this class

    def __init__(self, steps: Steps = ()) -> None:
        self.steps = steps

    def _then(self, operation: int, number: Any) -> Any:
        if not isinstance(number, Real):
            return NotImplemented
        return OfRate((*self.steps, (operation, float(number))))

    def __mul__(self, other: Any) -> Any:
        return self._then(TIMES, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self._then(OVER, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._then(INTO, other)

    def __add__(self, other: Any) -> Any:
        return self._then(PLUS, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self._then(MINUS, other)

    def __rsub__(self, other: Any) -> Any:
        return self._then(FROM, other)

    def __neg__(self) -> Any:
        return self._then(TIMES, -1.0)

    def __pos__(self) -> OfRate:
        return self

    def __bool__(self) -> NoReturn:
        raise TypeError("a rate that is not known yet cannot be asked whether it is 0")

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("a rate that is not known yet cannot be compared")

    __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__

    __hash__ = None  # type: ignore[assignment]


def steps_of(value: Any) -> Steps:
    """The operations that make a scalar of a rate."""
    return value.steps if type(value) is OfRate else ((TAKE, float(value)),)
