"""A float32 AdamW step against its own C call and against the memory's limit.

    python bench/step.py [--rounds N]

Contestants take turns, call by call or, where a call is short, hundred by hundred, on the
same arrays; a figure is the median of its turns, a ratio that of two medians of one run.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from limit import bare_call, limit_of

import fusedstep as fs

# tensors × elements, calls in a turn, turns
CASES = [
    (1, 1_000, 200, 300),
    (1, 100_000, 20, 200),
    (1, 1_000_000, 4, 200),
    (1, 16_000_000, 1, 40),
    (1_000, 1_000, 4, 100),
    (10_000, 100, 2, 100),
]


def medians(contestants: Sequence[Callable[[], object]], calls: int, turns: int) -> list[float]:
    """Microseconds of one call of each contestant."""
    times: list[list[float]] = [[] for _ in contestants]
    for _ in range(turns):
        for contestant, taken in zip(contestants, times, strict=True):
            start = perf_counter()
            for _ in range(calls):
                contestant()
            taken.append((perf_counter() - start) / calls)
    return [statistics.median(taken) * 1e6 for taken in times]


def problem(count: int, n: int) -> tuple[list[Any], list[Any]]:
    """So many parameters of n elements, and their gradients."""
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(n, np.float32) for _ in range(count)]
    return params, [rng.standard_normal(n, np.float32) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=float, default=1.0, help="a factor on the turns")
    options = parser.parse_args()
    print(fs.info())
    print("\nAdamW in float32, microseconds a step, medians")
    print(f"{'tensors':>8} {'elements':>11} {'step':>9} {'C call':>9} {'limit':>9}", end="")
    print("  step - call  step/limit  call/limit  GB/s")
    for count, n, calls, turns in CASES:
        params, grads = problem(count, n)
        optimizer = fs.AdamW(params, backend="c")
        optimizer.step(grads)
        contestants = [lambda: optimizer.step(grads), bare_call(optimizer), limit_of(optimizer)]  # noqa: B023
        step, call, limit = medians(contestants, calls, max(5, int(turns * options.rounds)))
        print(f"{count:>8} {n:>11} {step:9.1f} {call:9.1f} {limit:9.1f}", end="")
        print(f"  {step - call:11.1f}  {step / limit:10.2f}  {call / limit:10.2f}", end="")
        print(f"  {28e-3 * count * n / step:4.0f}")


if __name__ == "__main__":
    main()
