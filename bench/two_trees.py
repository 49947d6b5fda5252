"""Steps of two source trees, timed in turns: `python bench/two_trees.py OLD/src NEW/src`.

Each tree has its C extension built in place (`python setup.py build_ext --inplace`) and runs in a
process of its own. The two take turns of some steps each, so that a machine that drifts favours
neither. The ratio that is printed is that of the medians over the turns, old over new: above 1 the
new tree is faster.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

STARTS = 8
"""Times that both processes are started anew, each first in half of them."""

WARM = 60
"""Turns that do not count after each start: until a step has tried its threads."""

CASES = {
    "1 x 1,000": (1, 1_000, 1),
    "1,000 x 1,000": (1_000, 1_000, 1),
    "10,000 x 100": (10_000, 100, 1),
    "1 x 1,000 strided": (1, 1_000, 2),
    "100 x 1,000 strided": (100, 1_000, 2),
}
"""By name: the number of tensors, the elements of each, and how far apart these are."""


def work(optimizer: str) -> None:
    """Read lines of a case and a number of steps, and answer each with the seconds of a step."""
    import numpy as np

    import fusedstep as fs

    steps: dict[str, Callable[[int], float]] = {}
    for name, (count, size, apart) in CASES.items():
        params = [np.ones(size * apart, np.float32)[::apart] for _ in range(count)]
        step = getattr(fs, optimizer)(params).step
        kept = [np.full(size, 1e-3, np.float32) for _ in range(count)]

        def with_kept(
            rounds: int, step: Callable[..., object] = step, kept: object = kept
        ) -> float:
            began = perf_counter()
            for _ in range(rounds):
                step(kept)
            return (perf_counter() - began) / rounds

        def with_new(
            rounds: int, step: Callable[..., object] = step, count: int = count, size: int = size
        ) -> float:
            total = 0.0
            for _ in range(rounds):
                new = [np.full(size, 1e-3, np.float32) for _ in range(count)]
                began = perf_counter()
                step(new)
                total += perf_counter() - began
            return total / rounds

        steps[f"{name}, kept gradients"] = with_kept
        steps[f"{name}, new gradients"] = with_new
    for line in sys.stdin:
        name, rounds = line.rstrip().rsplit(":", 1)
        print(steps[name](int(rounds)), flush=True)


def worker(source: Path, optimizer: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "--work", optimizer],
        env={**os.environ, "PYTHONPATH": str(source)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(process: subprocess.Popen[str], name: str, rounds: int) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    print(f"{name}:{rounds}", file=process.stdin, flush=True)
    return float(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trees", nargs="*", type=Path, metavar="SRC")
    parser.add_argument("--optimizer", default="AdamW")
    parser.add_argument("--turns", type=int, default=200, help="turns of each tree and case")
    parser.add_argument("--case", choices=CASES, help="one case alone")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return
    trees = [tree.resolve() for tree in options.trees]
    for case, (count, *_) in CASES.items():
        if options.case not in (None, case):
            continue
        for kind in ("kept", "new"):
            name, rounds = f"{case}, {kind} gradients", max(1, 1000 // count)
            times: list[list[float]] = [[], []]
            for start in range(STARTS):
                # The process that starts first may be the faster by a fifth, of one tree, too.
                order = (0, 1) if start % 2 else (1, 0)
                workers = {index: worker(trees[index], options.optimizer) for index in order}
                for turn in range(WARM + options.turns // STARTS):
                    for index in order if turn % 2 else order[::-1]:
                        seconds = ask(workers[index], name, rounds)
                        if turn >= WARM:
                            times[index].append(seconds)
                for process in workers.values():
                    process.kill()
            before, after = map(median, times)
            print(
                f"{name:32} old {1e6 * before:8.1f} us   new {1e6 * after:8.1f} us   "
                f"old/new {before / after:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
