"""The methods of the examples by name, and the path that one takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

import fusedstep as fs

Array: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]]
Gradient: TypeAlias = Callable[[Array], Array]
Method: TypeAlias = Callable[..., fs.Optimizer]

METHODS: dict[str, Method] = {
    "SGD": fs.SGD,
    "momentum": partial(fs.SGD, momentum=0.9),
    "Nesterov": partial(fs.SGD, momentum=0.9, nesterov=True),
    "AdaGrad": fs.Adagrad,
    "RMSprop": partial(fs.RMSprop, alpha=0.9),
    "Adam": partial(fs.Adam, betas=(0.9, 0.99)),
    "AdamW": partial(fs.AdamW, betas=(0.9, 0.99), weight_decay=0.1),
    "Lion": partial(fs.rules.Lion, betas=(0.9, 0.99)),
}


def descend(method: Method, lr: float, start: Array, gradient: Gradient, steps: int) -> Array:
    """The path of p: row t is p after t steps, row 0 the start."""
    p = start.copy()
    opt = method(p, lr=lr)
    path = [p.copy()]
    for _ in range(steps):
        opt.step(gradient(p))
        path.append(p.copy())
    return np.array(path)


def steps_until(values: Array, bound: float) -> int | None:
    """The first t from which on all values are below the bound; None if there is none."""
    above = np.flatnonzero(~(values < bound))
    t = int(above[-1]) + 1 if len(above) else 0
    return t if t < len(values) else None
