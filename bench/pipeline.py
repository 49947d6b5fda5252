"""Time the whole step: unscale, clip by norm, decay, update, zero the gradients, average.

    python bench/pipeline.py [--loop numpy|torch] [--rounds FACTOR]

One fused step against the sum of separate passes with torch (its fused AdamW) and with
NumPy, and against the same traffic without arithmetic: 48 bytes an element, 4 of them for
the norm. They alternate in one run, on two threads. Every step starts from new gradients,
written to the same arrays outside of the times. In its turn each takes a step that is not
timed, so that the caches hold what they can, and then some that are. torch's turn is before
ours, so that its threads are awake, as in a loop of torch's. With `--loop` there is also a
matrix product before each step, as in training, and who multiplies has had the cores. Between
NumPy's products torch is left out: nobody has both teams of threads at work.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from math import nan
from time import perf_counter
from typing import Any

import numpy as np
from limit import bare, c_table, limit_of
from loops import product

import fusedstep as fs

# elements, calls in a turn, turns
CASES = [(1_000_000, 5, 40), (16_000_000, 1, 15)]
SCALE, MAX_NORM, EMA = 1024.0, 1.0, 0.999
LR, BETA1, BETA2, EPS, WEIGHT_DECAY = 1e-3, 0.9, 0.999, 1e-8, 0.01
BYTES = 48
THREADS = 2

Contestant = tuple[Callable[[], Any], np.ndarray[Any, Any]]
"""A step, and the array that it finds its gradient in."""

Contestants = dict[str, Contestant]


def fused(p: Any, g: Any) -> Contestants:
    """The step of this package, its C calls alone, and its traffic alone, on the same arrays."""
    optimizer = fs.AdamW(p, lr=LR, weight_decay=WEIGHT_DECAY, ema=EMA, backend="c")

    def step() -> None:
        optimizer.step(g, scale=SCALE, max_norm=MAX_NORM, zero_grads=True)

    step()
    calls = bare(c_table(optimizer), zero=True, measured=True)
    limit = limit_of(optimizer, zero=True, measured=True)
    return {"fused": (step, g), "C calls": (calls, g), "limit": (limit, g)}


def passes_of_torch(p: Any, g: Any) -> Contestants:
    import torch

    torch.set_num_threads(THREADS)
    parameter = torch.nn.Parameter(torch.from_numpy(p))
    parameter.grad = torch.from_numpy(g)
    average = parameter.detach().clone()
    optimizer = torch.optim.AdamW([parameter], lr=LR, weight_decay=WEIGHT_DECAY, fused=True)

    def step() -> None:
        with torch.no_grad():
            parameter.grad.mul_(1 / SCALE)
            torch.nn.utils.clip_grad_norm_([parameter], MAX_NORM)
            optimizer.step()
            parameter.grad.zero_()
            average.lerp_(parameter, 1 - EMA)

    return {"torch": (step, g)}


def passes_of_numpy(p: Any, g: Any) -> Contestants:
    m, v, average, t = np.zeros_like(p), np.zeros_like(p), p.copy(), 0

    def step() -> None:
        nonlocal m, v, t
        t += 1
        g[...] = g * np.float32(1 / SCALE)
        norm = np.sqrt(np.sum(g * g))
        if norm > MAX_NORM:
            g[...] = g * (MAX_NORM / norm)
        p[...] = p * (1 - LR * WEIGHT_DECAY)
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * (g * g)
        p[...] = p - LR * (m / (1 - BETA1**t)) / (np.sqrt(v / (1 - BETA2**t)) + EPS)
        g[...] = 0
        average[...] = EMA * average + (1 - EMA) * p

    return {"NumPy": (step, g)}


def medians(
    contestants: list[Contestant],
    before: Callable[[], object],
    new: Any,
    calls: int,
    turns: int,
) -> list[float]:
    """Microseconds of a step of each contestant, from a new gradient."""
    times: list[list[float]] = [[] for _ in contestants]
    for _ in range(turns):
        for (step, g), taken in zip(contestants, times, strict=True):
            for call in range(1 + calls):
                before()
                g[...] = new
                start = perf_counter()
                step()
                if call:
                    taken.append(perf_counter() - start)
    return [statistics.median(taken) * 1e6 for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", choices=["numpy", "torch"], help="whose matrix product")
    parser.add_argument("--rounds", type=float, default=1.0, help="a factor on the turns")
    options = parser.parse_args()
    before = product(options.loop) if options.loop else lambda: None
    fs.set_num_threads(THREADS)
    print(fs.info())
    print("\nthe whole step, AdamW in float32, microseconds, medians")
    names = ["torch", "fused", "C calls", "limit", "NumPy"]
    print(f"{'elements':>11}", *(f"{name:>8}" for name in names), end="")
    print("  torch/fused  NumPy/fused  fused/limit  calls/limit  GB/s")
    for n, calls, turns in CASES:
        rng = np.random.default_rng(0)
        p = rng.standard_normal(n, np.float32)
        new = SCALE * rng.standard_normal(n, np.float32)
        contestants = {
            **(passes_of_torch(p.copy(), new.copy()) if options.loop != "numpy" else {}),
            **fused(p.copy(), new.copy()),
            **passes_of_numpy(p.copy(), new.copy()),
        }
        turns = max(5, int(turns * options.rounds))
        found = medians(list(contestants.values()), before, new, calls, turns)
        times = dict.fromkeys(names, nan) | dict(zip(contestants, found, strict=True))
        torch, step, bare_calls, limit, numpy = times.values()
        print(f"{n:>11}", *(f"{time:8.0f}" for time in times.values()), end="")
        print(f"  {torch / step:11.2f}  {numpy / step:11.2f}  {step / limit:11.2f}", end="")
        print(f"  {bare_calls / limit:11.2f}  {BYTES * n / step / 1e3:4.0f}")


if __name__ == "__main__":
    main()
