"""Numba's kernels against C's on the same float32 arrays, and a user's own rule beside them.

    python bench/engines.py [--rounds N]

Contestants take turns and share the arrays but for their state; a figure is the median of
its turns, a ratio that of two medians of one run. The own rule is AdamW written out by a
user: the same traffic, and the same arithmetic but for what it leaves to the kernel.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
from step import CASES, medians, problem

import fusedstep as fs


def prepare(h, t):  # type: ignore[no-untyped-def]
    return {"rate": h.lr / (1 - h.beta1**t), "r": (1 - h.beta2**t) ** -0.5}


@fs.rule(
    state=("m", "v"),
    prepare=prepare,
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=1e-2,
)
def Own(p, g, m, v, h):  # type: ignore[no-untyped-def]  # noqa: N802
    p = p * (1 - h.lr * h.weight_decay)
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    p = p - h.rate * m / (np.sqrt(v) * h.r + h.eps)
    return p, m, v


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=float, default=1.0, help="a factor on the turns")
    options = parser.parse_args()
    print(fs.info())
    print("\nAdamW in float32, microseconds a step, medians")
    print(f"{'tensors':>8} {'elements':>11} {'C':>9} {'Numba':>9} {'own rule':>9}", end="")
    print("  Numba/C  own/C")
    for count, n, calls, turns in CASES:
        params, grads = problem(count, n)
        optimizers = [
            fs.AdamW(params, backend="c"),
            fs.AdamW(params, backend="numba"),
            Own(params, backend="numba"),
        ]
        steps = [partial(optimizer.step, grads) for optimizer in optimizers]
        for step in steps:
            step()
        c, numba, own = medians(steps, calls, max(5, int(turns * options.rounds)))
        print(f"{count:>8} {n:>11} {c:9.1f} {numba:9.1f} {own:9.1f}", end="")
        print(f"  {numba / c:7.2f}  {own / c:5.2f}")


if __name__ == "__main__":
    main()
