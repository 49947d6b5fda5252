"""Random steps have the reference's bits; the command takes a hundred thousand of them."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Any

import numpy as np
import pytest
from fuzz import Fuzz, arrays_of
from marks import needs_c
from random_rules import random_formula
from sides import Side


@needs_c
def test_random_steps() -> None:
    fuzz = Fuzz("c", compiled=20)
    for seed in range(300):
        fuzz.run(seed)
    assert fuzz.differing == {}
    assert fuzz.done["steps"] > 300
    assert fuzz.done["steps of formulas, numpy"] > 80
    assert fuzz.done["steps of formulas, numba"] > 0


@needs_c
def test_a_difference_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step alone of all that one side takes leaves another bit in one element."""
    step = Side.step

    def harmful(side: Side, *arguments: Any) -> Any:
        outcome = step(side, *arguments)
        first = arrays_of(side)[0].reshape(-1)[:1]
        if side.backend == "c" and first.size:
            arrays_of(side)[0].flat[0] = np.nextafter(first[0], np.inf)
        return outcome

    monkeypatch.setattr(Side, "step", harmful)
    fuzz = Fuzz("c")
    for seed in range(20):
        with suppress(AssertionError):  # where the norm of the gradients tells of it first
            fuzz.run(seed)
    assert fuzz.differing.total() > 0


def test_formulas_hold_all_that_rules_may() -> None:
    texts = "".join(random_formula(Random(seed)).text for seed in range(200))
    words = ["elif", "else:", " and ", " or ", "not ", "np.where", "np.clip", "**3", "max(", "by("]
    assert all(word in texts for word in words)
