"""Steps by rows of several parameters, which a backend takes with the bits of the NumPy one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from cases import Case, differing_bits, ordinary

import fusedstep as fs

Array = np.ndarray[Any, Any]
Place = Callable[[Array], Any]
"""A function that copies a NumPy array to where a backend has its own."""

SHAPES: dict[str, tuple[int, ...]] = {
    "rows": (5, 3),
    "line": (4,),
    "none": (0, 2),
    "whole": (3, 2),
}
"""Parameters: `whole` has whole gradients alone."""

NARROW = {**SHAPES, "narrow": (3, 0)}
"""The same, with rows that have no element."""


@fs.rule(state=("m", "n"), lr=0.5, beta1=0.9)
def custom(p, g, m, n, h):  # type: ignore[no-untyped-def]
    m = h.beta1 * m + (1 - h.beta1) * g
    n = max(n, abs(m - g)) if g > 0 else -n
    return p - h.lr * np.sign(m) / (np.sqrt(abs(n)) + 0.1), m, n


WAYS: list[tuple[str, dict[str, Any]]] = [
    ("own", {"untouched": "frozen", "row_steps": "own"}),
    ("shared", {"untouched": "frozen", "row_steps": "shared"}),
    ("exact", {"untouched": "exact"}),
]

CASES = [
    Case(f"{name}-{way}", optimizer, {**options, **of_way}, request)
    for way, of_way in WAYS
    for name, optimizer, options, request in [
        Case("adam", fs.Adam, {"amsgrad": True, "ema": 0.9}),
        Case("adamw-global", fs.AdamW, {"nonfinite": "skip"}, {"max_norm": 0.5}),
        Case("sgd-tensor", fs.SGD, {"momentum": 0.9}, {"max_norm": 0.5, "clip": "tensor"}),
        Case("scheduled", fs.RMSprop, {"lr": lambda t: 0.1 / t}, {"scale": 4.0, "max_value": 0.5}),
        Case("custom", custom, {}),
    ]
]


def gradients(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> Iterator[Any]:
    """One gradient after the other for a parameter, each of them differently of rows.

    Arrays are NumPy's: `placed` puts them elsewhere.
    """
    n, *rest = shape

    def values(k: int) -> Array:
        return ordinary(rng, k * int(np.prod(rest)), dtype).reshape(k, *rest)

    last = n - 1
    for index in ([0, last, 1, last, last, 0], [], [1], [0, 1, 2]):
        some = index if n else []
        yield fs.Rows(np.array(some, np.int64), values(len(some)))
    yield fs.Rows.where(np.arange(n) % 2 == 0, values(n))
    yield values(n)
    yield None
    yield fs.Rows(np.array([last, 1] if n else [], np.int32), values(2 if n else 0))


def placed(g: Any, place: Place) -> Any:
    """The gradient with its values where a backend has its arrays; the index may stay."""
    if type(g) is not fs.Rows:
        return None if g is None else place(g)
    if g.mask is not None:
        return fs.Rows.where(g.mask, place(g.values))
    return fs.Rows(g.index, place(g.values))


def take_steps(
    case: Case,
    dtype: Any,
    place: Place,
    back: Callable[[Any], Array],
    shapes: dict[str, tuple[int, ...]] = SHAPES,
    **changes: Any,
) -> None:
    """Step on the NumPy backend, and with arrays and options elsewhere; compare all bits."""
    rng = np.random.default_rng(5)
    expected = {
        name: ordinary(rng, int(np.prod(shape)), dtype).reshape(shape)
        for name, shape in shapes.items()
    }
    params = {name: place(p.copy()) for name, p in expected.items()}
    optimizer = case.optimizer(params, **case.options, **changes)
    reference = case.optimizer(expected, **case.options, backend="numpy")
    each = {name: [*gradients(rng, dtype, shape)] for name, shape in shapes.items()}
    each["whole"] = [ordinary(rng, 6, dtype).reshape(3, 2) for _ in each["rows"]]
    if "nonfinite" in case.options:
        each["rows"][2].values[0] = np.inf
    for k in range(len(each["rows"])):
        grads = {name: given[k] for name, given in each.items()}
        report = optimizer.step({x: placed(g, place) for x, g in grads.items()}, **case.request)
        assert report == reference.step(grads, **case.request)
        if k == 3:
            some = {"rows": [1, 4], "line": np.arange(4) < 2, "none": []}
            for each_of_them in (optimizer, reference):
                each_of_them.catch_up({**dict.fromkeys(shapes), **some})
    optimizer.catch_up()
    reference.catch_up()
    for name, p in expected.items():
        assert differing_bits(back(params[name]), p) == 0, name
    states = optimizer.state_dict()["state"], reference.state_dict()["state"]
    for name in shapes:
        found, wanted = (state[name] for state in states)
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            if key == "t":
                assert found[key] == value
            else:
                assert differing_bits(found[key], value) == 0, (name, key)
