"""Parameters that are read-only when they come out of a pickle, and the copies in their place.

joblib maps arrays above 1 MB into the memory of its workers, where nobody may write to them; Ray,
Dask and other users of pickle's buffers do the same. An optimizer among them steps copies.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from fusedstep._checks.warn import warn


class Originals:
    """The read-only arrays whose copies are stepped, which others may hold, or nobody."""

    def __init__(self) -> None:
        self.arrays: list[tuple[str, weakref.ref[Any]]] = []

    def writeable(self, array: Any, path: str) -> Any:
        """The array; if it is read-only, a copy in the same layout."""
        if not isinstance(array, np.ndarray) or array.flags.writeable:
            return array
        self.arrays.append((f"params{path}", weakref.ref(array)))
        return np.array(array, order="K")

    def warn(self) -> None:
        """Warn once if somebody still holds some of them, and so would not see a step."""
        held = [name for name, original in self.arrays if original() is not None]
        self.arrays = []
        if held:
            warn(
                f"{', '.join(held[:3])}{' and others' * (len(held) > 3)} came read-only out of a "
                "pickle, as joblib's workers get arrays above 1 MB, so that this optimizer steps "
                "copies. Arrays that came with it stay as they are: use those in "
                "`opt.param_groups[i]['params']`, or let joblib.Parallel have `mmap_mode='c'`, "
                "where arrays can be written and remain the same"
            )
