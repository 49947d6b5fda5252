"""A check: a name, and the programs that it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusedstep.audits.formulas import Array
from fusedstep.audits.subject import Subject


@dataclass(frozen=True)
class Trial:
    """A program that leaves an array `seen`, and one that says what it should be."""

    program: str

    expected: Array | None = None
    """By the formula; None if the program leaves an array `expected`."""

    tolerance: Array | None = None
    """How far from `expected` is near enough; None: not at all."""

    close: int = 0
    """Steps after which a rounding each is near enough, in float32; 0: none."""

    apart: bool = False
    """Whether it needs a process of its own kind, as JAX's float64 does."""

    stalled: float | None = None
    """The value of a parameter that has not moved, where that is a matter of its format."""

    apart_by: float | None = None
    """The most ulp by which rounding may explain a difference, if no formula says more."""

    unless_all: str = ""
    """The reason why it is not judged if all elements differ; none if that is a failure, too."""

    varies: bool = False
    """Whether other elements may differ when it runs again."""

    must: bool = False
    """Whether an exception is a failure, and not a refusal."""


Trials = Callable[[Subject], Iterator[Trial]]


@dataclass(frozen=True)
class Check:
    group: str
    name: str
    trials: Trials
    about: str
    """The property that holds where it passes."""


class Checks(dict[str, Check]):
    """Checks by name, in the order in which they run."""

    def add(self, group: str, name: str, about: str) -> Callable[[Trials], Trials]:
        """Enter the decorated function as a check."""

        def enter(trials: Trials) -> Trials:
            self[name] = Check(group, name, trials, about)
            return trials

        return enter


def inputs(n: int, steps: int, shape: str | None = None) -> str:
    """Text of a start and of gradients that every dtype holds exactly, none of them 0."""
    reshaped = f".reshape{shape}" if shape and shape.startswith("(1, ") else ""
    return (
        f"k = np.arange({n}){reshaped}\n"
        "start = (k % 5 - 2) / 2\n"
        f"gradients = [((3 * k + 5 * t) % 11 - 5.25) / 4 for t in range({steps})]\n"
    )


def arrays(text: str) -> tuple[Array, list[Array]]:
    """The start and the gradients that such a text makes."""
    namespace: dict[str, Any] = {"np": np}
    exec(text, namespace)
    return namespace["start"], namespace["gradients"]
