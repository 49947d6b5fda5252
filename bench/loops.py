"""Steps inside a training loop: a matrix product before each, and what it suffers.

    python bench/loops.py numpy|torch [--backend numba] [--rounds N]

A step's threads and those of the product share the cores, so neither can be judged alone.
Contestants take turns of 20 iterations, and a figure is the median over all of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from time import perf_counter

import numpy as np

import fusedstep as fs

SIDE = 600
TURN = 20


def fused(n: int, threads: int, backend: str) -> Callable[[], None]:
    p, g = np.zeros(n, np.float32), np.full(n, 1e-3, np.float32)
    optimizer = fs.AdamW(p, backend=backend)

    def step() -> None:
        fs.set_num_threads(threads)
        optimizer.step(g)

    return step


def torch_fused(n: int) -> Callable[[], None]:
    import torch

    p = torch.zeros(n, requires_grad=True)
    p.grad = torch.full((n,), 1e-3)
    step: Callable[[], None] = torch.optim.AdamW([p], fused=True).step
    return step


def product(loop: str) -> Callable[[], object]:
    if loop == "torch":
        import torch

        a, b = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
        return lambda: a @ b
    x, y = np.random.rand(2, SIDE, SIDE).astype(np.float32)
    return lambda: x @ y


def turn(multiply: Callable[[], object], step: Callable[[], None]) -> list[tuple[float, float]]:
    times = []
    for _ in range(TURN):
        start = perf_counter()
        multiply()
        middle = perf_counter()
        step()
        times.append((middle - start, perf_counter() - middle))
    return times[TURN // 4 :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("loop", choices=["numpy", "torch"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000, 8_000_000])
    parser.add_argument("--backend", choices=["c", "numba"], default="c")
    options = parser.parse_args()

    cpus = os.cpu_count() or 1
    multiply = product(options.loop)
    print(f"loop with {options.loop}, AdamW in float32 by {options.backend}, {cpus} CPUs,")
    print("microseconds, medians")
    print(f"{'n':>10}  {'contestant':<12} {'step':>8} {'product':>8}  ratio to one thread")
    for n in options.sizes:
        contestants = {
            "no step": lambda: None,
            "one thread": fused(n, 1, options.backend),
            "fusedstep": fused(n, cpus, options.backend),
        }
        if options.loop == "torch":
            contestants["torch fused"] = torch_fused(n)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
        order = list(contestants)
        for _ in range(options.rounds):
            for name in order:
                times[name] += turn(multiply, contestants[name])
            order = order[1:] + order[:1]  # no one always comes after the same other
        medians = {
            name: [statistics.median(column) * 1e6 for column in zip(*rows, strict=True)]
            for name, rows in times.items()
        }
        for name, (product_time, step_time) in medians.items():
            ratio = step_time / medians["one thread"][1]
            print(f"{n:>10}  {name:<12} {step_time:8.0f} {product_time:8.0f}  {ratio:.2f}")


if __name__ == "__main__":
    main()
