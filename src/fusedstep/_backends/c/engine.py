"""The C backend: the kernels of csrc/, in the instruction set in force."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

from fusedstep._arrays.at_once import Call
from fusedstep._backends.c.runner import Runner, find_kernel
from fusedstep._backends.plan import Job
from fusedstep._checks.wording import quoted
from fusedstep._engine import ffi, lib
from fusedstep._numerics.coefficients import JobScalars, Scalars, Values

_selections = 0
"""How often the instruction set was chosen anew: tables look up their kernels again."""


class Table(Runner):
    def begin(self, jobs: Sequence[Job]) -> None:
        super().begin(jobs)
        self.constants: list[Values | None] = [None] * len(jobs)
        self.scalars: list[Any] = []
        for index in range(len(jobs)):
            self.bind(index, ffi.NULL, Scalars._fields)
            self.write(index, Scalars())
            self.scalars.append(ffi.cast("fs_scalars *", self.of_jobs.float64[index]))
        self.find_kernels()

    def find_kernels(self) -> None:
        selections = _selections
        for job, c_job in zip(self.jobs, self.c_jobs, strict=True):
            c_job.kernel, c_job.squares = find_kernels(job.kernel, _selections)
            lib.fs_find_for_rows(ffi.addressof(c_job))
        self.of_jobs.find_formats(self.jobs)
        self.selections = selections  # of all of them, or they are looked up again

    @staticmethod
    def scalars_of(job: Job) -> tuple[str, ...]:
        return Scalars._fields

    def catching_up(self) -> Sequence[Call]:
        if self.selections != _selections:
            self.find_kernels()
        return super().catching_up()

    def prepare(self, scalars: Sequence[JobScalars]) -> None:
        if self.selections != _selections:
            self.find_kernels()
        for index, (constants, values) in enumerate(scalars):
            if constants is not self.constants[index]:
                self.scalars[index][0] = constants
                self.constants[index] = constants  # once they are written, for that may fail
            self.scalars[index][0] = values


def kernel(job: Job) -> Any:
    """The kernel of a job in the instruction set in force."""
    return find_kernels(job.kernel, _selections)[0]


@cache
def find_kernels(job: Job, selection: int) -> tuple[Any, Any]:
    """The kernels of a job in the instruction set that the `selection`-th choice put in force."""
    return (
        find_kernel(job.rule.name, job.dtype, present(job), job.rule.inside),
        find_kernel("squares", job.dtype),
    )


def present(job: Job) -> int:
    """The state arrays that a job's rows have, a bit for each."""
    return sum(letter is not None and 1 << k for k, letter in enumerate(job.rule.letters))


def isas() -> list[str]:
    """The instruction sets that this build holds and this CPU runs, plainest first."""
    names: list[str] = []
    while name := lib.fs_isa_name(len(names)):
        names.append(ffi.string(name).decode())
    return [name for index, name in enumerate(names) if lib.fs_isa_supported(index)]


def isa() -> str:
    return str(ffi.string(lib.fs_isa()).decode())


def select_isa(name: str, argument: str = "name") -> None:
    """Use the instruction set `name` from the next step on."""
    global _selections
    if name not in isas():
        raise ValueError(
            f"{argument}={name!r} is not an instruction set that this CPU runs; "
            f"pass one of {quoted(isas())}"
        )
    lib.fs_isa_select(name.encode())
    _selections += 1


if "FUSEDSTEP_ISA" in os.environ:
    select_isa(os.environ["FUSEDSTEP_ISA"], "FUSEDSTEP_ISA")
