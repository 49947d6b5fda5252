"""The steps of this package, their C call alone, and their limit."""

from __future__ import annotations

from functools import partial
from itertools import cycle
from typing import Any

import fusedstep as fs
from fusedstep.benchmarks.contestants.contestant import Contestant, Entry, renewing
from fusedstep.benchmarks.problem import Problem
from fusedstep.benchmarks.records import LIMIT


class Ours(Contestant):
    """An optimizer of this package, as it is or on an engine that is named."""

    def __init__(self, name: str, backend: str = "auto", threads: int | None = None) -> None:
        self.name, self.backend, self.threads = name, backend, threads

    def why_missing(self) -> str | None:
        return fs.info().backends.get(self.backend)

    def why_unfit(self, problem: Problem) -> str | None:
        return None

    def build(self, problem: Problem) -> Entry:
        params, grads = problem.params(), problem.own_grads()
        optimizer = problem.optimizer(params, self.backend)
        return Entry(
            partial(optimizer.step, grads, **problem.case.asked),
            lambda: params,
            self.threads or problem.threads,
            renewing(grads, problem),
        )


class Default(Ours):
    """The same, on arrays that what is part of its step shares."""

    def build(self, problem: Problem) -> Entry:
        optimizer, params, grads = problem.ours
        return Entry(
            partial(optimizer.step, grads, **problem.case.asked),
            lambda: params,
            problem.threads,
            renewing(grads, problem),
        )


class NewArrays(Ours):
    """With gradients in other arrays at each step, as most loops have them."""

    SETS = 3

    def why_unfit(self, problem: Problem) -> str | None:
        if problem.shared:
            return f"{self.SETS} sets of gradients are too large"
        if problem.case.asked.get("zero_grads"):
            return "zeroed gradients stay where they are"
        return None

    def build(self, problem: Problem) -> Entry:
        params = problem.params()
        optimizer = problem.optimizer(params)
        sets = cycle([[g.copy() for g in problem.grads] for _ in range(self.SETS)])
        asked = problem.case.asked

        def step() -> None:
            optimizer.step(next(sets), **asked)

        return Entry(step, lambda: params, problem.threads)


class InArena(Ours):
    """With all parameters and gradients in one buffer."""

    def build(self, problem: Problem) -> Entry:
        arena = fs.Arena(problem.start)
        for g, value in zip(arena.grads, problem.grads, strict=True):
            g[...] = value
        optimizer = problem.optimizer(arena)
        return Entry(
            partial(optimizer.step, **problem.case.asked),
            lambda: list(arena.params),
            problem.threads,
            renewing(arena.grads, problem) if problem.case.asked.get("zero_grads") else None,
        )


class Part(Contestant):
    """What takes the time of a part of our step, on its very arrays."""

    steps = False

    def why_missing(self) -> str | None:
        return fs.info().backends["c"]

    def why_unfit(self, problem: Problem) -> str | None:
        if problem.job.rule.formula is not None:
            return "there are C kernels for the package's own rules alone"
        return None

    def entry(self, problem: Problem, make: Any) -> Entry:
        optimizer, params, grads = problem.ours
        optimizer.step(grads, **problem.case.asked)
        zero = bool(problem.case.asked.get("zero_grads"))
        step = make(optimizer, zero, problem.measured)
        return Entry(step, lambda: params, problem.threads, renewing(grads, problem))


class Call(Part):
    """Our step's C call alone: what is missing from it to the step is Python."""

    name = "C call"

    def build(self, problem: Problem) -> Entry:
        from fusedstep.benchmarks.limit import bare_call

        return self.entry(problem, bare_call)


class Limit(Part):
    """Its traffic alone."""

    name = LIMIT

    def build(self, problem: Problem) -> Entry:
        from fusedstep.benchmarks.limit import limit_of

        return self.entry(problem, limit_of)
