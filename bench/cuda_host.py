"""The host's part of a step on a CUDA device, in microseconds; no device is needed.

    python bench/cuda_host.py

It runs over the driver in the memory of the host that the tests have, which drops launches: what is
left is what the program waits for. The gradients are the same arrays at each step; or those of
three sets in turns; or arrays that were made for this step. Medians of some hundred steps.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/helpers"))

import cuda_in_memory

cuda_in_memory.install()

import numpy as np  # noqa: E402
from device import Plain  # noqa: E402
from numba import cuda  # noqa: E402

import fusedstep as fs  # noqa: E402

ELEMENTS = 64

STEPS = 200


def numbas() -> Any:
    return cuda.to_device(np.ones(ELEMENTS, np.float32))


def plain() -> Any:
    """An array of which nothing is known but `__cuda_array_interface__`."""
    made = numbas()
    at = made.__cuda_array_interface__["data"][0]
    return Plain(made, at, np.ones(ELEMENTS, np.float32))


def median(
    step: Callable[..., Any], grads: Callable[[], Any], steps: int = STEPS, **request: Any
) -> float:
    """The median time of a step by the gradients that a function returns, in microseconds."""
    times, kept = [], []
    for k in range(steps + 10):
        given = grads()
        kept.append(given)  # what the arrays' own library does to free them is not the step's
        begin = perf_counter()
        step(given, **request)
        if k >= 10:
            times.append(perf_counter() - begin)
    return 1e6 * statistics.median(times)


def main() -> int:
    cuda_in_memory.DRIVER.mode(cuda_in_memory.NEVER)
    titles = ("the same", "in turns", "new", "and the norm")
    print(f"{'arrays':<8} {'tensors':>8}", *(f"{title:>13}" for title in titles))
    for name, make in (("numba", numbas), ("plain", plain)):
        for count in (1, 300, 1000):
            sets = [[make() for _ in range(count)] for _ in range(3)]
            step = fs.AdamW([make() for _ in range(count)]).step
            turns = cycle(sets)
            same = median(step, lambda: sets[0])  # noqa: B023
            others = median(step, lambda: next(turns))  # noqa: B023
            new = median(step, lambda: [make() for _ in range(count)], 20)  # noqa: B023
            norm = median(step, lambda: sets[0], max_norm=1.0)  # noqa: B023
            figures = " ".join(f"{each:>13.1f}" for each in (same, others, new, norm))
            print(f"{name:<8} {count:>8} {figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
