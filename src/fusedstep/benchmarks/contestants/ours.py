"""The steps of this package, their C call alone, and the memory's limit."""

from __future__ import annotations

from functools import partial
from itertools import cycle
from typing import Any

import fusedstep as fs
from fusedstep._core.declaration import declaration_of
from fusedstep.benchmarks.contestants.contestant import Contestant, Entry, renewing
from fusedstep.benchmarks.problem import Array, Problem
from fusedstep.benchmarks.records import LIMIT


class Ours(Contestant):
    """An optimizer of this package, on the default backend or on a named one."""

    def __init__(self, name: str, backend: str = "auto", threads: int | None = None) -> None:
        self.name, self.backend, self.threads = name, backend, threads

    def why_missing(self) -> str | None:
        return fs.info().backends.get(self.backend)

    def why_unfit(self, problem: Problem) -> str | None:
        return None

    def arrays(self, problem: Problem) -> tuple[fs.Optimizer, list[Array], list[Array]]:
        """Return the optimizer, its parameters and its gradients."""
        params, grads = problem.params(), problem.own_grads()
        return problem.optimizer(params, self.backend), params, grads

    def build(self, problem: Problem) -> Entry:
        optimizer, params, grads = self.arrays(problem)
        return Entry(
            partial(optimizer.step, grads, **problem.case.request),
            lambda: params,
            self.threads or problem.threads,
            renewing(grads, problem),
        )


class Default(Ours):
    """The usual step, on the arrays that the parts of it are timed on, too."""

    def arrays(self, problem: Problem) -> tuple[fs.Optimizer, list[Array], list[Array]]:
        return problem.ours


class NewArrays(Ours):
    """Steps that get their gradients in other arrays each time, as in most training loops."""

    SETS = 3
    """Sets of gradients that take turns."""

    def why_unfit(self, problem: Problem) -> str | None:
        if problem.shared:
            return f"{self.SETS} sets of gradients are too large"
        if problem.zeroed:
            return "zeroed gradients stay where they are"
        return None

    def build(self, problem: Problem) -> Entry:
        params = problem.params()
        optimizer = problem.optimizer(params)
        sets = cycle([[g.copy() for g in problem.grads] for _ in range(self.SETS)])
        request = problem.case.request

        def step() -> None:
            optimizer.step(next(sets), **request)

        return Entry(step, lambda: params, problem.threads)


class InArena(Ours):
    """Steps of an arena: all parameters and gradients lie in one buffer."""

    def build(self, problem: Problem) -> Entry:
        arena = fs.Arena(problem.start)
        for g, value in zip(arena.grads, problem.grads, strict=True):
            g[...] = value
        optimizer = problem.optimizer(arena)
        return Entry(
            partial(optimizer.step, **problem.case.request),
            lambda: list(arena.params),
            problem.threads,
            renewing(arena.grads, problem) if problem.zeroed else None,
        )


class Part(Contestant):
    """A part of our step, timed on the same arrays as the whole."""

    steps = False

    def why_missing(self) -> str | None:
        return fs.info().backends["c"]

    def why_unfit(self, problem: Problem) -> str | None:
        if declaration_of(problem.case.optimizer).custom:
            return "custom rules have no C kernels"
        return None

    def entry(self, problem: Problem, make: Any) -> Entry:
        optimizer, params, grads = problem.ours
        optimizer.step(grads, **problem.case.request)
        step = make(optimizer, problem.zeroed, problem.measured)
        return Entry(step, lambda: params, problem.threads, renewing(grads, problem))


class Call(Part):
    """The C call of our step; the rest of the step's time is spent in Python."""

    name = "C call"

    def build(self, problem: Problem) -> Entry:
        from fusedstep.benchmarks.limit import bare_call

        return self.entry(problem, bare_call)


class Limit(Part):
    """The memory traffic of our step, without its arithmetic."""

    name = LIMIT

    def build(self, problem: Problem) -> Entry:
        from fusedstep.benchmarks.limit import limit_of

        return self.entry(problem, limit_of)
