"""The rules in plain Python, on one element after the other, are those of the reference."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cases import DTYPES, differing_bits, difficult

from fusedstep._numerics import reference, scalar
from fusedstep._numerics.coefficients import Scalars

FUNCTIONS = [
    name
    for name, function in vars(reference).items()
    if inspect.isfunction(function) and function.__module__ == reference.__name__
    if name != "__annotate__"  # which Python makes from 3.14 on
]
PROLOGUES = [
    {"l2": 0.0, "l1": 0.0},
    {"l2": 0.03, "l1": 0.0},
    {"l2": 0.0, "l1": 0.7},
    {"l2": 0.0, "l1": 0.0, "most": 0.0},  # where zeros of both signs are at the bound
]


def numbers(dtype: Any, rng: np.random.Generator, **fixed: float) -> Any:
    """Scalars of which no two are equal, and none is what changes nothing."""
    drawn = dict(zip(Scalars._fields, rng.uniform(0.3, 1.7, len(Scalars._fields)), strict=True))
    return SimpleNamespace(**{name: dtype(x) for name, x in {**drawn, **fixed}.items()})


def variants(name: str) -> list[dict[str, Any]]:
    """The choices that a rule is compiled for: state arrays that may be missing, and `inside`."""
    parameters = inspect.signature(getattr(reference, name)).parameters
    chosen: list[dict[str, Any]] = [{}]
    for parameter in parameters.values():
        if parameter.name == "inside":
            chosen = [{**each, "inside": inside} for each in chosen for inside in (False, True)]
        if parameter.annotation == reference.State:
            chosen += [{**each, parameter.name: None} for each in chosen]
    return chosen


def arguments(name: str, rng: np.random.Generator, dtype: Any, make: Any) -> dict[str, Any]:
    names = [*inspect.signature(getattr(reference, name)).parameters]
    n = 400
    found = {each: make(rng, n, dtype) for each in names if each not in ("h", "inside")}
    if name == "gradient":
        found["p"][:40] = 0
    for place, each in enumerate(found.values()):  # so that comparisons meet what is equal
        each[::7] = dtype(0.5)
        each[40:104] = [-0.0 if k >> place & 1 else 0.0 for k in range(64)]
    return found


def ordinary(rng: np.random.Generator, n: int, dtype: Any) -> Any:
    return np.asarray(rng.uniform(-2, 2, n), dtype)


def tuple_of(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.parametrize("make", [ordinary, difficult], ids=lambda make: make.__name__)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_element_is_stepped_as_the_reference_does_it(
    name: str, dtype: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scalar, "sqrt", np.sqrt)  # of the compute dtype, and of numbers below 0
    rng = np.random.default_rng(FUNCTIONS.index(name))
    for prologue in PROLOGUES:
        h = numbers(dtype, rng, **prologue)
        for variant in variants(name):
            given = {**arguments(name, rng, dtype, make), **variant}
            order = inspect.signature(getattr(reference, name)).parameters
            with np.errstate(all="ignore"):
                wanted = tuple_of(getattr(reference, name)(**{"h": h, **given}))
                rows = []
                for k in range(len(given["p"])):
                    row = [
                        x[k] if isinstance(x, np.ndarray) else x
                        for x in ({"h": h, **given}[each] for each in order)
                    ]
                    rows.append(tuple_of(getattr(scalar, name)(*row)))
            for found, expected in zip(zip(*rows, strict=True), wanted, strict=True):
                if expected is None:
                    assert set(found) == {None}
                else:
                    assert differing_bits(np.array(found, dtype), expected) == 0, variant


def test_both_files_have_the_same_rules() -> None:
    ours = [x for x in vars(scalar) if inspect.isfunction(getattr(scalar, x)) and x != "sign"]
    assert ours == FUNCTIONS
