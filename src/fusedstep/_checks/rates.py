"""Learning rates by column: one for each element of the rows p[i] of a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


class Rates:
    """An array of learning rates, which broadcasts over the rows of a parameter.

    As other hyperparameters it never changes, and is equal to what has the same numbers.
    """

    __slots__ = ("values",)

    values: Floats
    """The rates, in float64 and read-only."""

    def __init__(self, values: Any) -> None:
        self.values = np.array(values, np.float64) + 0.0  # -0.0 is 0.0
        self.values.flags.writeable = False

    @property
    def most(self) -> float:
        """The largest of them."""
        return float(self.values.max())

    def over(self, row: Sequence[int]) -> Floats:
        """The rates for rows of this shape: without an axis of one for the rows themselves."""
        several = self.values.ndim == len(row) + 1 and len(self.values) == 1
        return self.values[0] if several else self.values

    def fits(self, row: Sequence[int]) -> bool:
        """Whether they broadcast over rows of this shape."""
        own = np.shape(self.over(row))
        pairs = zip(own[::-1], reversed(row), strict=False)
        return len(own) <= len(row) and all(one in (1, other) for one, other in pairs)

    def refuse_misfit(self, shape: Sequence[int], where: str) -> None:
        """Refuse a parameter over whose rows they do not broadcast; `where` begins the error."""
        row, own = (*shape[1:],), self.values.shape
        if shape and self.fits(row):
            return
        remedy = f"pass one of shape {row}, or a number" if row else "pass a number"
        if own == (*shape,):
            remedy = "pass a number; gradients are passed to each step, `opt.step(grads)`"
        rows = f"of shape {row}" if row else "single numbers"
        raise ValueError(
            f"{where}lr is an array of shape {own}, and a parameter of shape {(*shape,)} has rows "
            f"that are {rows}, over which it does not broadcast; {remedy}, or put the parameter "
            "into a group of its own"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rates) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash((self.values.shape, self.values.tobytes()))

    def __repr__(self) -> str:
        return f"np.{self.values!r}"

    def __reduce__(self) -> tuple[Any, ...]:
        return Rates, (self.values,)


class Shown(np.ndarray[Any, np.dtype[np.float64]]):
    """Rates as users see them: read-only, so that to write into them is not without effect.

    `opt.lr *= 0.5` makes new ones, as of a number.
    """

    __iadd__: Any = np.ndarray.__add__
    __isub__: Any = np.ndarray.__sub__
    __imul__: Any = np.ndarray.__mul__
    __itruediv__: Any = np.ndarray.__truediv__


def shown(lr: Any) -> Any:
    """A learning rate as users see it."""
    return lr.values.view(Shown) if isinstance(lr, Rates) else lr


def largest(lr: Any) -> Any:
    """A learning rate as one number: of rates by column the largest."""
    return lr.most if isinstance(lr, Rates) else lr
