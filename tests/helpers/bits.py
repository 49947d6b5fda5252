"""The bits of a few steps, compared with the reference's."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from cases import Case, differing_bits, difficult

STEPS = 4


def steps(
    case: Case, backend: str, p: np.ndarray[Any, Any], grads: list[np.ndarray[Any, Any]]
) -> dict[str, np.ndarray[Any, Any]]:
    """The parameter and the state, by letter, after a step with each of `grads`."""
    p = p.copy()
    optimizer = case.optimizer(p, backend=backend, **case.options)
    for g in grads:
        optimizer.step(g.copy(), **case.request)
    return {"p": p, **{letter: a for letter, a in optimizer.state.items() if letter != "t"}}


def assert_same_bits(case: Case, p: Any, grads: list[Any], backend: str) -> None:
    expected = steps(case, "numpy", p, grads)
    found = steps(case, backend, p, grads)
    assert found.keys() == expected.keys()
    for letter in expected:
        assert differing_bits(found[letter], expected[letter]) == 0, letter


def data(n: int, dtype: Any, make: Any = difficult) -> tuple[Any, list[Any]]:
    rng = np.random.default_rng(n)
    return make(rng, n, dtype), [make(rng, n, dtype) for _ in range(STEPS)]


def snapshot(opt: Any, params: list[Any]) -> Any:
    return pickle.dumps((params, opt.state_dict()))
