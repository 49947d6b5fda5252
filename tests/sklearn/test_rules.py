"""The rules of scikit-learn's optimizers: the same bits on every backend, and the formula's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bits import STEPS, data
from cases import differing_bits, difficult, ordinary
from marks import for_each_dtype, needs, on_each_backend, on_each_compiled_backend

needs("sklearn", "sklearn")
from fusedstep.sklearn._rules import Moments, Velocity  # noqa: E402

RULES: dict[str, Any] = {
    "velocity": lambda p, backend: Velocity(p, 0.1, 0.9, False, backend=backend),
    "velocity without momentum": lambda p, backend: Velocity(p, 0.1, 0.0, False, backend=backend),
    "Nesterov's": lambda p, backend: Velocity(p, 0.1, 0.9, True, backend=backend),
    "moments": lambda p, backend: Moments(p, 0.1, (0.9, 0.999), 1e-8, backend=backend),
}


def stepped(name: str, p: Any, grads: list[Any], backend: str) -> dict[str, Any]:
    p = p.copy()
    opt = RULES[name](p, backend)
    for g in grads:
        opt.step(g)
    return {"p": p, **{letter: a for letter, a in opt.state.items() if letter != "t"}}


@pytest.mark.parametrize("make", [ordinary, difficult], ids=lambda make: make.__name__)
@pytest.mark.parametrize("n", [1, 7, 16, 33, 1025, 40_001])
@pytest.mark.parametrize("name", RULES)
@for_each_dtype
@on_each_compiled_backend
def test_the_bits_of_the_reference(backend: str, dtype: Any, name: str, n: int, make: Any) -> None:
    p, grads = data(n, dtype, make)
    expected = stepped(name, p, grads, "numpy")
    found = stepped(name, p, grads, backend)
    for letter in expected:
        assert differing_bits(found[letter], expected[letter]) == 0, letter


@on_each_backend
def test_the_formula_of_moments(backend: str) -> None:
    """In float64, operation by operation."""
    p, grads = data(50, np.float64, ordinary)
    found = stepped("moments", p, grads, backend)
    m, v = np.zeros(50), np.zeros(50)
    for g in grads:
        m = 0.9 * m + (1 - 0.9) * g
        v = 0.999 * v + (1 - 0.999) * (g * g)
        p = p - (0.1 * m) / (np.sqrt(v) + 1e-8)
    assert len(grads) == STEPS
    assert differing_bits(found["p"], p) == 0
