"""The base of all contestants, as the measurement and the tests see them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from inspect import signature
from typing import Any, NamedTuple

from fusedstep._checks.wording import quoted
from fusedstep.benchmarks.problem import Array, Problem


class Entry(NamedTuple):
    """A contestant that stands ready to step."""

    step: Callable[[], object]
    """Take one step."""

    params: Callable[[], list[Array]]
    """Return the parameters as they stand now."""

    threads: int
    """Number of threads that it may use."""

    ready: Callable[[], object] | None = None
    """Prepare the next step, outside of its time: write the gradients that the last one zeroed."""


class BuildError(Exception):
    """A contestant cannot be built after all; the message says why."""


class Contestant:
    """A step to be timed: this package's, another one's, or a part of one."""

    name: str

    packages: tuple[str, ...] = ()
    """Modules that it needs; each has the name of its distribution."""

    extra = "bench"
    """The extra of this package that installs them."""

    steps = True
    """Whether it makes the update; else it only takes the time of a part of a step."""

    def why_missing(self) -> str | None:
        """Return why it cannot take part on this machine, or None if it can."""
        missing = [name for name in self.packages if find_spec(name) is None]
        if missing:
            return f"{', '.join(missing)} not installed; `pip install 'fusedstep[{self.extra}]'`"
        return None

    def why_slow_to_start(self) -> str | None:
        """Return why its first step here would take minutes, or None if it would not."""
        return None

    def why_unfit(self, problem: Problem) -> str | None:
        """Return why it cannot do the work of the problem, or None if it can."""
        raise NotImplementedError

    def build(self, problem: Problem) -> Entry:
        """Make it ready, where it is neither missing nor unfit. It may raise `BuildError`."""
        raise NotImplementedError

    def why_not(self, problem: Problem) -> str | None:
        """Return why it is left out, or None if it is not."""
        return self.why_missing() or self.why_unfit(problem)


def renewing(grads: list[Array], problem: Problem) -> Callable[[], object] | None:
    """Return what writes a contestant's gradients anew, if the steps zero them."""
    return partial(renew, grads, problem.grads) if grads is not problem.grads else None


def renew(grads: list[Array], new: list[Array]) -> None:
    for g, value in zip(grads, new, strict=True):
        g[...] = value


def only_updates(whose: str, problem: Problem) -> str | None:
    """Return why a contestant is unfit that makes the update and nothing else, if it is."""
    if problem.additions:
        return f"{whose} update alone has no {quoted(problem.additions)}"
    return None


def lacks(whose: str, function: Any, problem: Problem) -> str | None:
    """Return why a function is unfit that takes options by name, if it lacks one of them."""
    lacking = problem.case.options.keys() - signature(function).parameters.keys()
    return f"{whose} has no {quoted(sorted(lacking))}" if lacking else None
