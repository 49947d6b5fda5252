"""A float32 AdamW step on a CUDA device: its share of the device's bandwidth, and torch's time.

    python bench/cuda.py [--rounds N]

CUDA events around a turn of steps measure the times, so they include the launches as the device
sees them. Contestants take turns on arrays of their own; a figure is the median of the turns.
Without a device the script says so and ends with status 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

import fusedstep as fs

BANDWIDTH = [16 << 20, 64 << 20, 256 << 20]
"""Elements of one tensor, several times as many as the device's caches hold."""

AGAINST = [(1, 64 << 10, 100), (1, 256 << 10, 100), (1, 1 << 20, 50), (1_000, 1_000, 10)]
"""Tensors, elements of each, and steps in a turn."""

PASSES = 7
"""Arrays that a step moves: p, m and v are read and written, g is read."""


def milliseconds(contestants: Sequence[Callable[[], Any]], calls: int, turns: int) -> list[float]:
    """Milliseconds of one call of each contestant, the median over the turns."""
    from numba import cuda

    taken: list[list[float]] = [[] for _ in contestants]
    for turn in range(turns + 2):
        for contestant, times in zip(contestants, taken, strict=True):
            start, end = cuda.event(), cuda.event()
            start.record()
            for _ in range(calls):
                contestant()
            end.record()
            end.synchronize()
            if turn >= 2:  # the first two compile and fill caches
                times.append(cuda.event_elapsed_time(start, end) / calls)
    return [statistics.median(times) for times in taken]


def bandwidth(turns: int) -> None:
    from numba import cuda

    print(f"{'elements':>12} {'step, ms':>10} {'GB/s':>7} {'copy, GB/s':>11} {'share':>7}")
    for n in BANDWIDTH:
        p, g = (cuda.to_device(np.ones(n, np.float32)) for _ in range(2))
        to = cuda.device_array_like(p)
        contestants = [partial(fs.AdamW(p).step, g), partial(to.copy_to_device, p)]
        step, copy = milliseconds(contestants, 5, turns)
        reached, limit = PASSES * 4e-6 * n / step, 2 * 4e-6 * n / copy
        print(f"{n:>12} {step:10.3f} {reached:7.0f} {limit:11.0f} {reached / limit:7.2f}")


def against_torch(turns: int) -> None:
    import torch

    if not torch.cuda.is_available():
        print("torch was built for the CPU alone; nothing to compare with")
        return
    print(f"{'tensors':>8} {'elements':>9} {'fusedstep':>10} {'fused':>10} {'foreach':>10}  µs")
    for count, n, calls in AGAINST:
        steps: list[Callable[[], Any]] = []
        for kind in ("fusedstep", "fused", "foreach"):
            params = [torch.randn(n, device="cuda") for _ in range(count)]
            grads = [torch.randn(n, device="cuda") for _ in range(count)]
            if kind == "fusedstep":
                steps.append(partial(fs.AdamW(params).step, grads))
            else:
                for p, g in zip(params, grads, strict=True):
                    p.grad = g
                steps.append(torch.optim.AdamW(params, **{kind: True}).step)
        times = milliseconds(steps, calls, turns)
        print(f"{count:>8} {n:>9}", *(f"{1e3 * time:10.1f}" for time in times))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=float, default=1.0, help="factor of the number of turns")
    options = parser.parse_args()
    reason = fs.info().backends["cuda"]
    if reason is not None:
        print(f"bench/cuda.py needs the CUDA backend: {reason}", file=sys.stderr)
        return 1
    turns = max(3, int(20 * options.rounds))
    print(fs.info())
    bandwidth(turns)
    if find_spec("torch") is None:
        print("torch is not installed; nothing to compare with")
    else:
        against_torch(turns)
    return 0


if __name__ == "__main__":
    sys.exit(main())
