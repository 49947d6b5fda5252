"""What each contestant is, to the measurement and to the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from inspect import signature
from typing import Any, NamedTuple

from fusedstep._checks.wording import quoted
from fusedstep.benchmarks.problem import Array, Problem


class Entry(NamedTuple):
    """A contestant that stands ready, on its own arrays."""

    step: Callable[[], object]

    params: Callable[[], list[Array]]
    """The parameters as they stand now."""

    threads: int
    """That it may use."""

    ready: Callable[[], object] | None = None
    """What makes each next step like the first, outside of its time: new gradients, mostly."""


class LeftOut(Exception):  # noqa: N818  no error of ours
    """Why a contestant cannot be built after all."""


class Contestant:
    """Someone's step."""

    name: str

    packages: tuple[str, ...] = ()
    """The modules that it needs, named as what is installed."""

    extra = "bench"
    """Of this package, which brings them."""

    steps = True
    """Whether it makes the update; else it only takes the time of a part of one."""

    def why_missing(self) -> str | None:
        """Why it cannot take part here, or None if it can."""
        missing = [name for name in self.packages if find_spec(name) is None]
        if missing:
            return f"{', '.join(missing)} not installed; `pip install 'fusedstep[{self.extra}]'`"
        return None

    def why_slow_to_start(self) -> str | None:
        """Why its first step here would take minutes, or None if it does not."""
        return None

    def why_unfit(self, problem: Problem) -> str | None:
        """Why it cannot do the same work, or None if it can."""
        raise NotImplementedError

    def build(self, problem: Problem) -> Entry:
        """Make it ready, where it is neither missing nor unfit. It may raise `LeftOut`."""
        raise NotImplementedError

    def why_not(self, problem: Problem) -> str | None:
        """Why it is left out, or None if it is not."""
        return self.why_missing() or self.why_unfit(problem)


def renewing(grads: list[Array], problem: Problem) -> Callable[[], object] | None:
    """What puts the gradients back that a step of the problem leaves zeros in place of."""
    return partial(renew, grads, problem.grads) if grads is not problem.grads else None


def renew(grads: list[Array], new: list[Array]) -> None:
    for g, value in zip(grads, new, strict=True):
        g[...] = value


def only_updates(whose: str, problem: Problem) -> str | None:
    """Why what makes the update alone is unfit, if it is."""
    if problem.whole:
        return f"{whose} update alone has no {quoted(problem.whole)}"
    return None


def lacks(whose: str, function: Any, problem: Problem, but: Iterable[str] = ()) -> str | None:
    """Why a function that takes options by name is unfit, if it does not know all."""
    lacking = problem.case.options.keys() - signature(function).parameters.keys() - set(but)
    return f"{whose} has no {quoted(sorted(lacking))}" if lacking else None
