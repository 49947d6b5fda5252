"""The columns of a parameter's rows, in sets that are stepped by the same scalars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedstep._checks.rates import Floats, Rates


class Pattern:
    """The columns of a parameter's rows that are stepped alike, in sets.

    Rates of other steps may be equal in more columns, but differ within no set.
    """

    def __init__(self, sets: Any) -> None:
        """`sets` has something for each column that is equal for those of one set."""
        _, firsts, sets = np.unique(sets, return_index=True, return_inverse=True)
        self.sets = sets.reshape(-1).astype(np.int64, copy=False)
        """The number of the set of each column."""
        self.firsts = firsts
        """The first column of each set."""
        edges = np.flatnonzero(np.diff(self.sets))
        self.ends = np.append(edges + 1, len(self.sets)).astype(np.int64)
        """Where each run of columns of the same set ends."""
        self.of_runs = self.sets[self.ends - 1] if len(self.sets) else self.sets
        """The number of the set of each run."""
        self.known: tuple[Any, Floats | None] = (None, None)
        """The rate, or rates, that were last asked for, and those of each set; None: it has none.
        As a rule they are the same at each step."""

    def __len__(self) -> int:
        return len(self.firsts)

    def distinct(self, lr: Any, row: Sequence[int]) -> Floats | None:
        """The rate of each set, with rows of this shape; None if one has different ones."""
        known, found = self.known
        if known is not lr:
            each = in_columns(lr, row)
            of_sets = each[self.firsts]
            found = of_sets if np.array_equal(each, of_sets[self.sets]) else None
            self.known = lr, found
        return found

    def refined(self, lr: Any, row: Sequence[int]) -> Pattern:
        """The least sets within these in which rates are the same, too."""
        _, of_rates = np.unique(in_columns(lr, row), return_inverse=True)
        return Pattern(self.sets * (1 + len(self.sets)) + of_rates.reshape(-1))


def in_columns(lr: Any, row: Sequence[int]) -> Floats:
    """The rate of each column of rows of this shape, flat."""
    return np.broadcast_to(lr.over(row) if isinstance(lr, Rates) else lr, row).reshape(-1)
