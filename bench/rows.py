"""Steps over rows: an embedding of which each batch touches a few, against what others do.

    python bench/rows.py                 measures all, and writes bench/rows.json
    python bench/rows.py --topic zipf

Contestants take turns, of some steps each, on batches drawn anew; what they step has been touched
so often before that rows wait as long as they do in training. Gradients are written right before a
step, outside of its time, as a backward pass leaves them. Times are medians over the steps.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import fusedstep as fs
from fusedstep.benchmarks.machine import machine

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

RESULTS = Path(__file__).with_name("rows.json")
PACKAGES = ["cffi", "numba", "torch"]
LR = 1e-3


class Topic(NamedTuple):
    """An embedding, and how batches touch it."""

    rows: int
    width: int
    touched: int
    """The rows of a batch, of which some may be the same."""
    contestants: tuple[str, ...]
    zipf: float = 0.0
    """The exponent of Zipf's law by which rows are drawn; 0: all are as likely."""
    warm: int = 1000
    """Steps before the first turn."""
    turns: int = 12
    steps: int = 25
    """The steps of a turn; of the slow ones a fifth."""


SPLAT = {"position": 3, "colours": 48, "opacity": 1, "scale": 3, "rotation": 4}
"""The columns of a splat, which have rates of their own."""

RATES = np.repeat([1.6e-4, 2.5e-3, 5e-2, 5e-3, 1e-3], [*SPLAT.values()])

SMALL = ("frozen", "frozen, shared t", "exact", "SparseAdam", "gather and scatter", "dense")
TOPICS = {
    "uniform": Topic(100_000, 64, 256, SMALL),
    "zipf": Topic(100_000, 64, 256, ("frozen", "exact", "SparseAdam", "dense"), zipf=1.1),
    "splats": Topic(
        500_000,
        len(RATES),
        16_384,
        ("frozen", "frozen, rates by column", "dense", "dense, rates by column"),
        warm=20,
        turns=8,
        steps=10,
    ),
    "large": Topic(10_000_000, 16, 16_384, ("frozen", "dense"), warm=20, turns=5, steps=5),
    **{
        f"{k} rows": Topic(1_000_000, 64, k, ("frozen",), warm=100, turns=4, steps=20)
        for k in (256, 1024, 4096, 16_384, 65_536)
    },
}
SLOW = ("dense", "dense, rates by column", "SparseAdam")


class Batches:
    """Batches of rows, and the gradients that are written before a step."""

    def __init__(self, topic: Topic, seed: int = 0) -> None:
        self.topic = topic
        self.rng = np.random.default_rng(seed)
        self.values = np.empty((topic.touched, topic.width), np.float32)
        self.cumulated: Array | None = None
        if topic.zipf:
            weights = 1.0 / np.arange(1, topic.rows + 1) ** topic.zipf
            self.cumulated = np.cumsum(weights / weights.sum())
            self.place = self.rng.permutation(topic.rows)

    def draw(self) -> Array:
        """The rows of a batch, with gradients in `values` that look like those of training."""
        size = self.topic.touched
        self.values[...] = self.rng.standard_normal(self.values.shape, np.float32)
        self.values *= 0.01
        if self.cumulated is None:
            return self.rng.integers(0, self.topic.rows, size)
        ranks = np.searchsorted(self.cumulated, self.rng.random(size))
        found: Array = self.place[np.minimum(ranks, self.topic.rows - 1)]
        return found


Step: TypeAlias = Callable[[Array], Callable[[], object]]
"""A contestant: what prepares a step over rows, and returns it."""


def by_rows(p: Array, batches: Batches, lr: Any = LR, **kept: Any) -> Step:
    opt = fs.Adam(p, lr=lr, **kept)

    def ready(index: Array) -> Callable[[], object]:
        return lambda: opt.step(fs.Rows(index, batches.values))

    return ready


def dense(p: Array, batches: Batches, lr: Any = LR) -> Step:
    opt, g = fs.Adam(p, lr=lr), np.zeros_like(p)

    def ready(index: Array) -> Callable[[], object]:
        g[index] = batches.values
        return lambda: opt.step(g)

    return ready


def sparse_adam(p: Array, batches: Batches) -> Step:
    import torch

    torch.set_num_threads(fs.get_num_threads())
    parameter = torch.nn.Parameter(torch.from_numpy(p))
    opt = torch.optim.SparseAdam([parameter], lr=LR)

    def ready(index: Array) -> Callable[[], object]:
        at, values = torch.from_numpy(index)[None], torch.from_numpy(batches.values)
        parameter.grad = torch.sparse_coo_tensor(at, values, p.shape, check_invariants=False)
        return partial(opt.step)

    return ready


def gather_and_scatter(p: Array, batches: Batches) -> Step:
    """The bytes of a step: the rows of p and of two arrays of state, read and written back."""
    arrays = [p, np.ones_like(p), np.ones_like(p)]
    rows = np.empty((batches.topic.touched, batches.topic.width), np.float32)

    def ready(index: Array) -> Callable[[], object]:
        def move() -> None:
            for array in arrays:
                np.take(array, index, axis=0, out=rows, mode="clip")
                array[index] = rows

        return move

    return ready


CONTESTANTS: dict[str, Callable[[Array, Batches], Step]] = {
    "frozen": by_rows,
    "frozen, shared t": lambda p, batches: by_rows(p, batches, row_steps="shared"),
    "exact": lambda p, batches: by_rows(p, batches, untouched="exact"),
    "SparseAdam": sparse_adam,
    "gather and scatter": gather_and_scatter,
    "dense": dense,
    "frozen, rates by column": lambda p, batches: by_rows(p, batches, RATES),
    "dense, rates by column": lambda p, batches: dense(p, batches, RATES),
}


def measure(topic: Topic, quick: bool = False) -> dict[str, list[float]]:
    """The seconds of all steps of each contestant."""
    batches = Batches(topic)
    start = batches.rng.standard_normal((topic.rows, topic.width), np.float32)
    steps = {name: CONTESTANTS[name](start.copy(), batches) for name in topic.contestants}
    del start
    for name, ready in steps.items():
        for _ in range(topic.warm // (20 if name in SLOW else 1)):
            ready(batches.draw())()
    found: dict[str, list[float]] = {name: [] for name in steps}
    for name, ready in list(turns(steps, topic.turns // 3 if quick else topic.turns)):
        for _ in range(max(topic.steps // (5 if name in SLOW else 1), 1)):
            step = ready(batches.draw())
            begin = time.perf_counter()
            step()
            found[name].append(time.perf_counter() - begin)
    return found


def turns(steps: dict[str, Step], count: int) -> Iterator[tuple[str, Step]]:
    """Let the contestants take turns, each time in another order."""
    names = [*steps]
    for turn in range(count):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            yield name, steps[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topic", choices=TOPICS, action="append")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--to", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    fs.set_num_threads(arguments.threads)
    known = json.loads(arguments.to.read_text()) if arguments.to.exists() else {"topics": {}}
    for name in arguments.topic or TOPICS:
        found = measure(TOPICS[name])
        known["topics"][name] = {who: median(each) * 1e6 for who, each in found.items()}
        print(name, {who: round(each, 1) for who, each in known["topics"][name].items()})
    here = machine(PACKAGES)
    known["machine"] = here._asdict()
    arguments.to.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
