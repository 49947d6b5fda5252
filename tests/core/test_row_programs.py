"""Random programs of exact steps over rows: not a bit differs from steps over whole gradients."""

from __future__ import annotations

import pytest
from marks import ON_CPU, needs_c
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
