"""Costs around small steps: assigned hyperparameters, calls without an object, lists.

    python bench/small_steps.py [assigned] [called] [lists] [--seconds S]

Contestants take turns (`fusedstep.benchmarks.turns`); a figure is the median of the turns, in
microseconds. The NumPy contestants are the update as a training loop writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, cycle, pairwise
from statistics import median
from typing import Any, TypeAlias

import numpy as np
from topics import described, head, headed, parsed, parser_of

import fusedstep as fs
from fusedstep.benchmarks.contestants.contestant import Entry
from fusedstep.benchmarks.turns import take_turns

Array: TypeAlias = np.ndarray[Any, Any]
Figures: TypeAlias = Iterator[tuple[str, dict[str, Callable[[], object]]]]

RATE = 1e-9
"""So small that parameters stay what they are, however long a measurement takes."""

NETWORKS = {
    "64, 10, 10": (64, 10, 10),
    "20, 10, 10, 3": (20, 10, 10, 3),
    "64, 100, 10": (64, 100, 10),
    "64, 5 x 50, 10": (64, 50, 50, 50, 50, 50, 10),
}


def normal(*shape: int, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def assigned() -> Figures:
    """Steps of a matrix and a vector, 1,020 elements: alone, and after an assignment."""
    for name in ("SGD", "RMSprop", "Adam", "AdamW"):
        opt = getattr(fs, name)([normal(50, 20), normal(20)], lr=RATE)
        grads = [normal(50, 20), normal(20)]
        group, rates = opt.param_groups[0], cycle((RATE, 2 * RATE))

        def alone(opt: Any = opt, grads: Any = grads, rates: Any = rates) -> None:
            next(rates)
            opt.step(grads)

        def rate(opt: Any = opt, grads: Any = grads, rates: Any = rates) -> None:
            opt.lr = next(rates)
            opt.step(grads)

        def other(
            opt: Any = opt, grads: Any = grads, rates: Any = rates, group: Any = group
        ) -> None:
            group["weight_decay"] = next(rates)
            opt.step(grads)

        yield name, {"alone": alone, "opt.lr = x": rate, 'group["weight_decay"] = x': other}


def called() -> Figures:
    """A step of AdamW without an object, with one, and in NumPy."""
    for n in (1_000, 16_000):
        p, g, m, v = normal(n), normal(n), normal(n), abs(normal(n))
        opt, t = fs.AdamW(normal(n), lr=RATE), count(1)
        new = [tuple(normal(n + k) for _ in range(4)) for k in range(200)]
        others = cycle([(p, g, m, abs(v)) for p, g, m, v in new])

        def again(p: Array = p, g: Array = g, m: Array = m, v: Array = v, t: Any = t) -> None:
            fs.functional.adamw(p, g, m, v, t=next(t), lr=RATE)

        def unseen(others: Any = others) -> None:
            fs.functional.adamw(*next(others), t=1, lr=RATE)

        def step(opt: Any = opt, g: Array = g) -> None:
            opt.step(g)

        def numpy(p: Array = p, g: Array = g, m: Array = m, v: Array = v, t: Any = t) -> None:
            now = next(t)
            p *= 1 - RATE * 0.01
            m[...] = 0.9 * m + 0.1 * g
            v[...] = 0.999 * v + 0.001 * (g * g)
            rate = RATE * (1 - 0.999**now) ** 0.5 / (1 - 0.9**now)
            p -= rate * m / (np.sqrt(v) + 1e-8)

        yield (
            f"{n:,} elements",
            {"same arrays": again, "others": unseen, "an optimizer": step, "NumPy": numpy},
        )


def lists() -> Figures:
    """SGD over the weights and biases of small networks, as scikit-learn's has them."""
    for name, widths in NETWORKS.items():
        for dtype in (np.float64, np.float32):
            for momentum in (0.0, 0.9):
                shapes = [*pairwise(widths), *((w,) for w in widths[1:])]
                params, grads = ([normal(*s, dtype=dtype) for s in shapes] for _ in range(2))
                options: dict[str, Any] = {"momentum": momentum, "nesterov": momentum > 0}
                opt = fs.SGD([p.copy() for p in params], lr=RATE, **options, lr_in_momentum=True)
                velocities = [np.zeros_like(p) for p in params]

                def ours(opt: Any = opt, grads: Any = grads) -> None:
                    opt.lr = RATE
                    opt.step(grads)

                def numpy(
                    params: Any = params,
                    grads: Any = grads,
                    velocities: Any = velocities,
                    momentum: float = momentum,
                ) -> None:
                    updates = [
                        momentum * u - RATE * g for u, g in zip(velocities, grads, strict=True)
                    ]
                    velocities[:] = updates
                    if momentum:
                        updates = [
                            momentum * u - RATE * g for u, g in zip(updates, grads, strict=True)
                        ]
                    for p, u in zip(params, updates, strict=True):
                        p += u

                kind = "Nesterov" if momentum else "plain"
                many = f"{len(params)} arrays, {sum(p.size for p in params):,} elements"
                of = np.dtype(dtype).name
                yield f"{name}: {many}, {of}, {kind}", {"fusedstep": ours, "NumPy": numpy}


TOPICS = {each.__name__: each for each in (assigned, called, lists)}


def main() -> None:
    parser = parser_of(__doc__, TOPICS)
    parser.add_argument("--seconds", type=float, default=1.5, help="of the turns of each line")
    options = parsed(parser, TOPICS)
    described()
    for topic in headed(options.what, TOPICS):
        names: list[str] = []
        for case, steps in topic():
            if not names:
                names = [*steps]
                head("µs", names)
            entries = {
                name: Entry(step, list, fs.get_num_threads()) for name, step in steps.items()
            }
            timed = take_turns(entries, options.seconds)
            figures = [median(timed[name].turns) * 1e6 for name in names]
            print(f"| {case} | {' | '.join(f'{figure:.2f}' for figure in figures)} |", flush=True)


if __name__ == "__main__":
    main()
