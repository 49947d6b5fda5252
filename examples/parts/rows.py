"""Adam over embeddings, whole or by rows: four ways to take steps, timed and counted."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

import fusedstep as fs
from parts.methods import Array
from parts.plotting import BLACK, BLUE, GREEN, RED, Look

Grads: TypeAlias = Mapping[str, fs.Rows | Array]

WAYS: dict[str, dict[str, Any]] = {
    "dense": {},
    "own t": {"untouched": "frozen", "row_steps": "own"},
    "shared t": {"untouched": "frozen", "row_steps": "shared"},
    "exact": {"untouched": "exact"},
}
"""Arguments of the optimizer. "dense" makes each gradient whole, and steps over all rows."""

WAY_LOOKS = {
    "dense": Look(BLACK, "o"),
    "own t": Look(BLUE, "s"),
    "shared t": Look(RED, "D"),
    "exact": Look(GREEN, "^"),
}

AROUND = {"linestyle": "none", "markerfacecolor": "none", "markersize": 9}
"""A look for "exact" where its line is that of "dense": markers around those of the other."""


class Adam:
    """Adam by one of the ways, with the seconds that its steps take and the bytes they move.

    Seconds are those of steps and of catching up, and for "dense" of adding up whole gradients.
    Bytes are those of p, m and v, each read and written, and of gradients, read; whole ones are
    cleared by the step, and so written, too.
    """

    def __init__(self, way: str, params: Mapping[str, Array], lr: float, **further: Any) -> None:
        self.way, self.params, self.t = way, params, 0
        self.opt = fs.Adam(params, lr=lr, **WAYS[way], **further)
        self.memory = {name: np.zeros_like(p) for name, p in params.items()}
        self.done = {name: np.zeros(len(p), np.int64) for name, p in params.items()}
        """The step up to which each row is caught up."""
        self.seconds, self.bytes = 0.0, 0

    def catch_up(self, rows: Mapping[str, Any] | None = None) -> None:
        """Make ready the rows that are to be read, or for None all rows of all parameters."""
        if self.way != "exact":
            return
        start = perf_counter()
        self.opt.catch_up(rows)
        self.seconds += perf_counter() - start
        for name, done in self.done.items():
            index = None if rows is None else rows[name]
            ids = slice(None) if index is None else np.unique(index)
            self._count(name, 6 * int((done[ids] < self.t).sum()))
            done[ids] = self.t

    def step(self, grads: Grads) -> None:
        start = perf_counter()
        if self.way == "dense":
            whole = {name: self._whole(name, g) for name, g in grads.items()}
            self.opt.step(whole, zero_grads=True)
        else:
            self.opt.step(grads)
        self.seconds += perf_counter() - start
        self.t += 1
        for name, g in grads.items():
            if self.way == "dense" or not isinstance(g, fs.Rows):
                self._count(name, 8 * len(self.params[name]))
                self.done[name][...] = self.t
            else:
                ids = np.unique(g.index)
                self._count(name, 6 * len(ids) + len(g.index))
                self.done[name][ids] = self.t

    def _whole(self, name: str, g: fs.Rows | Array) -> Array:
        """The gradient of all rows: the values of each added up, and zeros in the others."""
        if not isinstance(g, fs.Rows):
            return g
        made = self.memory[name]
        width = made.shape[1]
        elements = g.index[:, None] * width + np.arange(width)
        np.add.at(made.reshape(-1), elements.reshape(-1), g.values.reshape(-1))
        return made

    def _count(self, name: str, rows: int) -> None:
        p = self.params[name]
        self.bytes += rows * (p.nbytes // len(p))


def same(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    """Whether all numbers of two sets of parameters are the same, bit for bit."""
    return all(one[name].tobytes() == other[name].tobytes() for name in one)
