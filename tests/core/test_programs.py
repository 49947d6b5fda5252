"""Random programs do on each compiled backend what they do on the reference, to the bit."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from marks import MISSING, on_each_compiled_backend
from programs import OPERATIONS, Program
from sides import Side

SEEDS = {"c": range(160, 190), "numba": range(61, 71)}
"""Numba compiles a kernel for about each of its programs."""

BACKEND = "numba" if MISSING else "c"


@on_each_compiled_backend
def test_programs(backend: str) -> None:
    done: Counter[str] = Counter()
    for seed in SEEDS[backend]:
        done += Program(seed, backend).run()
    assert done["step"] > 3 * len(SEEDS[backend])
    if backend == "c":
        names = {method.__name__ for method in OPERATIONS} - {"choose_threads"}
        refused = {f"{name}, refused" for name in ("bad_step", "freeze", "step", "load")}
        assert names - {"bad_step", "freeze"} | refused <= done.keys()


def some_programs() -> None:
    for seed in range(20):
        Program(seed, BACKEND).run()


def a_bit(side: Side) -> None:
    for p in side.params:
        p[...] = np.nextafter(p, np.inf)


def a_state(side: Side) -> None:
    for state in side.states():
        for letter in state.keys() - {"t"}:
            state[letter][...] += 1


def a_gradient(side: Side) -> None:
    for g in side.grads:
        if g is not None and g.flags.writeable:
            g[...] += 1


def a_byte_between(side: Side) -> None:
    for watched in side.watched:
        watched.memory[-1] ^= 1


@pytest.mark.parametrize("harm", [a_bit, a_state, a_gradient, a_byte_between])
def test_harm_is_seen(harm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is done by steps of one side alone, and found; the message tells how to see it again."""
    step = Side.step

    def harmful(side: Side, *arguments: Any) -> Any:
        outcome = step(side, *arguments)
        if side.backend == BACKEND:
            harm(side)
        return outcome

    monkeypatch.setattr(Side, "step", harmful)
    with pytest.raises(AssertionError, match=r"(?s)seed \d+, \w+: .*--seeds \d+ --backend \w+"):
        some_programs()


def test_a_refusal_that_writes_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Side.step

    def half(side: Side, *arguments: Any) -> Any:
        try:
            return step(side, *arguments)
        except Exception:
            a_bit(side)
            raise

    monkeypatch.setattr(Side, "step", half)
    with pytest.raises(AssertionError, match="refused, and yet changed"):
        some_programs()
