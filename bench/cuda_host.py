"""The host's part of a step on a CUDA device, in microseconds; no device is needed.

    python bench/cuda_host.py

It runs over the driver in the memory of the host that the tests have, which drops launches: what is
left is what the program waits for. The gradients are the same arrays at each step; or those of
three sets in turns; or new ones, which were made before the first step, or just now. To make arrays
takes the program out of the caches, so a step has to fetch it again whatever it is given: "same,
late" is a step with the same arrays after others were made. The last two are steps of the same
arrays with their norm, and of an optimizer with `capturable=True`. Medians of some hundred steps,
of new arrays of 20.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/helpers"))

import cuda_in_memory

cuda_in_memory.install()

import numpy as np  # noqa: E402
from device import Plain  # noqa: E402
from exchanged import Exchanged  # noqa: E402
from numba import cuda  # noqa: E402

import fusedstep as fs  # noqa: E402

ELEMENTS = 64

STEPS, FEW, WARM = 200, 20, 10
"""Steps of the same arrays that are timed, and of new ones; and those before, which are not."""


def numbas() -> Any:
    return cuda.to_device(np.ones(ELEMENTS, np.float32))


def plain() -> Any:
    """An array of which nothing is known but `__cuda_array_interface__`."""
    made = numbas()
    at = made.__cuda_array_interface__["data"][0]
    return Plain(made, at, np.ones(ELEMENTS, np.float32))


def exchanged() -> Any:
    """An array that C reads by DLPack's exchange interface, as it reads tensors of torch."""
    made = numbas()
    return Exchanged.of(made, made.__cuda_array_interface__["data"][0], ELEMENTS)


def cupys() -> Any:
    """An array of CuPy's over Numba's memory: its own runtime has no device."""
    made = numbas()
    at = made.__cuda_array_interface__["data"][0]
    memory = cupy.cuda.UnownedMemory(at, 4 * ELEMENTS, made, 0)
    return cupy.ndarray((ELEMENTS,), np.float32, cupy.cuda.MemoryPointer(memory, 0))


KINDS = {"numba": numbas, "plain": plain, "exchange": exchanged}

try:
    import cupy
except ImportError:
    pass
else:
    cupy.cuda.get_current_stream = lambda ordinal=0: SimpleNamespace(ptr=0)
    KINDS["cupy"] = cupys


def median(
    step: Callable[..., Any], grads: Callable[[], Any], steps: int = STEPS, **request: Any
) -> float:
    """The median time of a step by the gradients that a function returns, in microseconds."""
    times, kept = [], []
    for k in range(steps + WARM):
        given = grads()
        kept.append(given)  # what the arrays' own library does to free them is not the step's
        begin = perf_counter()
        step(given, **request)
        if k >= WARM:
            times.append(perf_counter() - begin)
    return 1e6 * statistics.median(times)


def times(make: Callable[[], Any], count: int) -> list[float]:
    """The times of a step of so many tensors, as they are printed."""
    others: list[Any] = []

    def made() -> list[Any]:
        return [make() for _ in range(count)]

    def late() -> list[Any]:
        others.append(made())
        return sets[0]

    sets = [made() for _ in range(3)]
    before = iter([made() for _ in range(FEW + WARM)])
    step, captured = (fs.AdamW(made(), capturable=x).step for x in (False, True))
    turns = cycle(sets)
    return [
        median(step, lambda: sets[0]),
        median(step, lambda: next(turns)),
        median(step, lambda: next(before), FEW),
        median(step, made, FEW),
        median(step, late, FEW),
        median(step, lambda: sets[0], max_norm=1.0),
        median(captured, lambda: sets[0]),
    ]


def main() -> int:
    cuda_in_memory.DRIVER.mode(cuda_in_memory.NEVER)
    titles = ["the same", "in turns", "new", "just made", "same, late", "the norm", "capturable"]
    print(f"{'arrays':<8} {'tensors':>8}", *(f"{title:>13}" for title in titles))
    for name, make in KINDS.items():
        for count in (1, 300, 1000):
            figures = " ".join(f"{each:>13.1f}" for each in times(make, count))
            print(f"{name:<8} {count:>8} {figures}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
