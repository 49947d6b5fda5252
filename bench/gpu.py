"""A float32 AdamW step on a CUDA device: its share of the device's bandwidth, and torch beside it.

    python bench/gpu.py [--rounds N]

Times are of CUDA events around a turn of steps, so they hold the launches as the device sees
them; those of the host are what it takes to ask for a step, without a wait for the device.
Contestants take turns on arrays of their own; a figure is the median of its turns.
Without a device there is nothing to measure: it says so and ends with status 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

import fusedstep as fs

BANDWIDTH = [1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20]
"""Elements of one tensor; all but the first two are more than the device's caches hold."""

# tensors × elements, steps in a turn
AGAINST = [
    (1, 1_000, 100),
    (1, 64 << 10, 100),
    (1, 1 << 20, 50),
    (1, 16 << 20, 20),
    (1, 128 << 20, 5),
    (100, 100_000, 20),
    (1_000, 1_000, 10),
    (10_000, 1_000, 3),
]

PASSES = 7
"""Bytes of an element in a step over memory: p, m and v are read and written, g is read."""


class Times(NamedTuple):
    """Milliseconds of one call, on the device and on the host."""

    device: float
    host: float


def measure(contestants: Sequence[Callable[[], Any]], calls: int, turns: int) -> list[Times]:
    """The median times of one call of each contestant."""
    from numba import cuda

    taken: list[list[Times]] = [[] for _ in contestants]
    for turn in range(turns + 2):
        for contestant, times in zip(contestants, taken, strict=True):
            start, end = cuda.event(), cuda.event()
            start.record()
            begin = perf_counter()
            for _ in range(calls):
                contestant()
            host = perf_counter() - begin
            end.record()
            end.synchronize()
            if turn >= 2:  # the first warm up
                device = cuda.event_elapsed_time(start, end)
                times.append(Times(device / calls, 1e3 * host / calls))
    return [Times(*map(statistics.median, zip(*times, strict=True))) for times in taken]


def address(array: Any) -> int:
    return int(array.__cuda_array_interface__["data"][0])


def bandwidth(turns: int) -> None:
    from cuda.bindings import driver
    from numba import cuda

    print(f"{'elements':>12} {'step, ms':>10} {'GB/s':>7} {'copy, GB/s':>11} {'share':>7}")
    for n in BANDWIDTH:
        p, g = (cuda.to_device(np.ones(n, np.float32)) for _ in range(2))
        to = cuda.device_array_like(p)
        copying = partial(driver.cuMemcpyDtoDAsync, address(to), address(p), 4 * n, 0)
        contestants = [partial(fs.AdamW(p).step, g), copying]
        step, copy = (times.device for times in measure(contestants, 20, turns))
        reached, limit = PASSES * 4e-6 * n / step, 2 * 4e-6 * n / copy
        print(f"{n:>12} {step:10.3f} {reached:7.0f} {limit:11.0f} {reached / limit:7.2f}")


def alternating(step: Callable[[Any], Any], grads: Sequence[Any]) -> Callable[[], Any]:
    """Steps with other gradients than those of the step before."""
    turn = cycle(grads)
    return lambda: step(next(turn))


def against_torch(turns: int) -> None:
    import torch

    if not torch.cuda.is_available():
        print("torch was built for the CPU alone; nothing to compare with")
        return
    import fusedstep.torch

    kinds = ["fusedstep", "new grads", "its class", "fused", "foreach"]
    print(f"µs{'':>17} on the device:{'':>40} on the host:")
    print(f"{'tensors':>8} {'elements':>9}", *(f"{kind:>10}" for kind in 2 * kinds))
    for count, n, calls in AGAINST:

        def tensors(count: int = count, n: int = n) -> list[Any]:
            return [torch.randn(n, device="cuda") for _ in range(count)]

        steps: list[Callable[[], Any]] = []
        for kind in kinds:
            params, grads = tensors(), tensors()
            if kind == "fusedstep":
                steps.append(partial(fs.AdamW(params).step, grads))
            elif kind == "new grads":
                steps.append(alternating(fs.AdamW(params).step, [grads, tensors()]))
            else:
                for p, g in zip(params, grads, strict=True):
                    p.grad = g
                own = {} if kind == "its class" else {kind: True}
                library = torch.optim if own else fusedstep.torch
                steps.append(library.AdamW(params, **own).step)
        times = measure(steps, calls, turns)
        figures = [each.device for each in times] + [each.host for each in times]
        print(f"{count:>8} {n:>9}", *(f"{1e3 * figure:10.1f}" for figure in figures))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=float, default=1.0, help="a factor on the turns")
    options = parser.parse_args()
    reason = fs.info().backends["cuda"]
    if reason is not None:
        print(f"bench/gpu.py needs the CUDA backend: {reason}", file=sys.stderr)
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
