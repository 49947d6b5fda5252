"""The C extension: instruction sets, the struct of scalars, and the table of kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import DTYPES, RULES
from marks import needs_c

import fusedstep as fs
from fusedstep._backends.plan import MISSED, MOST_STATES, STEPPED, Job


@needs_c
def test_isa_in_force_is_the_widest_and_can_be_chosen(isa: str) -> None:
    assert fs.info().isa == isa
    assert isa in fs.info().isas
    assert f"instruction set {isa}" in str(fs.info())


@needs_c
def test_scalars_are_the_members_of_the_c_struct() -> None:
    """Their unset values are passed by position, so the order must be the same."""
    from fusedstep._engine import ffi

    from fusedstep._numerics.coefficients import Scalars

    members = tuple(name for name, _ in ffi.typeof("fs_scalars").fields)
    assert members == Scalars._fields


@needs_c
def test_every_kernel_of_the_reference_is_in_the_table(isa: str) -> None:
    from fusedstep._engine import ffi, lib

    from fusedstep._backends.c.engine import present

    for dtype in DTYPES:
        jobs = [Job(rule, np.dtype(dtype)) for rule in RULES]
        expected = {(job.rule.name, present(job), job.rule.inside) for job in jobs}
        found = {
            (name, has, inside)
            for name in {rule.name for rule in RULES}
            for has in range(2**MOST_STATES)
            for inside in (False, True)
            if lib.fs_find_kernel(name.encode(), np.dtype(dtype).name.encode(), has, inside)
            != ffi.NULL
        }
        assert found == expected


@needs_c
def test_what_a_step_returns_is_the_same_in_both_languages() -> None:
    from fusedstep._engine import lib

    assert (lib.FS_MISSED, lib.FS_STEPPED) == (MISSED, STEPPED)


class RefusedOnce:
    """Scalars that find no memory when they are written for the first time."""

    def __init__(self, scalars: Any) -> None:
        self.scalars = scalars
        self.refused = False

    def __setitem__(self, index: int, values: Any) -> None:
        if not self.refused:
            self.refused = True
            raise MemoryError
        self.scalars[index] = values


@needs_c
def test_constants_that_could_not_be_written_are_written_at_the_next_step() -> None:
    params = [np.ones(5, np.float32) for _ in range(2)]
    opts = [fs.AdamW(p, lr=0.1, backend="c") for p in params]
    for opt in opts:
        opt.step(np.ones(5, np.float32))
        opt.param_groups[0]["betas"] = (0.5, 0.6)
    table: Any = opts[0].layout.plan.table
    table.scalars[0] = RefusedOnce(table.scalars[0])
    g = np.full(5, -2, np.float32)
    with pytest.raises(MemoryError):
        opts[0].step(g)
    for opt in opts:
        opt.step(g)
    assert params[0].tobytes() == params[1].tobytes()


def test_set_isa_needs_a_name_that_is_there() -> None:
    with pytest.raises((ValueError, RuntimeError)):
        fs.set_isa("mmx")
