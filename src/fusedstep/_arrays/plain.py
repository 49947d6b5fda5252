"""The plain view of a user's NumPy array: the one whose shape, dtype and memory are checked."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from fusedstep._checks.wording import describe

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def plain(array: Any, name: str) -> Array:
    """A new view of an array as NumPy itself sees it; whatever is no plain array is refused.

    A subclass may say of itself what it likes, and an array's shape may be assigned to later.
    So nothing is read off the array: the view's shape is the true one, and stays. Not even
    `isinstance` is asked, which believes what an object says its class is.
    """
    kind = type(array)
    if kind is not np.ndarray:
        if not issubclass(kind, np.ndarray):
            raise TypeError(
                f"{name} is {describe(array)}; pass a NumPy array, for instance `np.asarray(x)`, "
                "or `x.detach().numpy()` of a torch tensor on the CPU, which share its memory"
            )
        if issubclass(kind, np.ma.MaskedArray):
            raise TypeError(
                f"{name} is a masked array, whose mask a step would ignore; pass its `.data`"
            )
    return np.ndarray.view(array, np.ndarray)
