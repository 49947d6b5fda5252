"""Random programs of exact steps over rows: not a bit differs from steps over whole gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import differing_bits
from marks import ON_CPU, for_each_dtype, needs_c
from row_programs import Program

import fusedstep as fs

SEEDS = {"c": 40, "numba": 15, "numpy": 12}


@pytest.mark.parametrize("backend", ON_CPU)
def test_programs(backend: str) -> None:
    steps = 0
    for seed in range(SEEDS[backend]):
        program = Program(seed, backend)
        program.run()
        assert program.differing == 0, f"seed {seed}"
        steps += program.steps
    assert steps > 100 * SEEDS[backend]


@needs_c
@pytest.mark.parametrize("isa", fs.info().isas)
def test_programs_in_each_instruction_set(isa: str) -> None:
    before = fs.get_isa()
    fs.set_isa(isa)
    try:
        for seed in range(100, 125):
            program = Program(seed, "c")
            program.run()
            assert program.differing == 0, f"seed {seed}"
    finally:
        fs.set_isa(before)


def test_a_difference_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose rows do not catch up ends with other bits."""
    monkeypatch.setattr(fs.Optimizer, "_catch_up_all", lambda self: None)
    differing = 0
    for seed in range(20):
        program = Program(seed, "numpy")
        program.run()
        differing += program.differing
    assert differing > 0


@needs_c
@for_each_dtype
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("optimizer", [fs.Adam, fs.AdamW])
def test_rows_that_are_left_alone_for_long(optimizer: Any, amsgrad: bool, dtype: Any) -> None:
    """Random programs catch up so often that none misses hundreds of steps."""
    start = np.random.default_rng(0).standard_normal((9, 70)).astype(dtype)
    sides = [start.copy(), start.copy()]
    rows, whole = (
        optimizer(p, amsgrad=amsgrad, untouched=untouched, backend="c")
        for p, untouched in zip(sides, ("exact", "frozen"), strict=True)
    )
    first, later = np.full_like(start, 3), np.zeros_like(start)
    later[0] = 1
    for step in range(400):
        g = later if step else first
        rows.step(fs.Rows(np.array([0]), g[:1]) if step else fs.Rows(np.arange(9), g))
        whole.step(g)
    rows.catch_up()
    assert differing_bits(*sides) == 0
    for letter in rows.state.keys() - {"t"}:
        assert differing_bits(rows.state[letter], whole.state[letter]) == 0
