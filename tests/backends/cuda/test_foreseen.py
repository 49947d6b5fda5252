"""Scalars of steps to come: what a device makes of lines and programs is what the host has at t."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from math import inf
from random import Random
from typing import Any

import numpy as np
import pytest
from cases import BASES, CUSTOM_BASES

from fusedstep._backends.cuda import foreseen
from fusedstep._backends.cuda.foreseen import ASKED, Lines, Written
from fusedstep._backends.plan import Foreseen
from fusedstep._core.declaration import declaration_of
from fusedstep._core.groups import with_initial_lr
from fusedstep._core.parameters import rule_of
from fusedstep._numerics import of_rate, variants
from fusedstep._numerics.coefficients import Values
from fusedstep._numerics.of_rate import OfRate

FAR = 1 << 62


class Case:
    """The scalars of an optimizer's steps, by its declaration alone."""

    def __init__(self, base: Any) -> None:
        self.declaration = declaration_of(base.optimizer)
        given = {**self.declaration.defaults, **base.options}
        self.values = self.declaration.check(with_initial_lr(given))
        self.names = variants.step(rule_of(self.declaration, self.values)).scalars

    def at(self, lr: Any, t: int) -> Values:
        return self.declaration.scalars({**self.values, "lr": lr}, t)

    def constants(self, index: int) -> Values:
        return self.declaration.constants(self.values)

    def lines(self, index: int, steps: int) -> Iterator[Values]:
        return (self.at(OfRate(), t) for t in count(steps + 1))

    def foreseen(self) -> Foreseen:
        return Foreseen(
            self.constants, self.lines, lambda index, steps: None, lambda _: self.at(OfRate(), FAR)
        )


def scalars(written: Written, steps: int, rate: float, count: int) -> list[float]:
    """The scalars that a device makes after so many steps since the first line."""
    line = written.lines[min(steps, len(written.lines) - 1)]

    def number(place: int) -> float:
        word = written.fixed[place] if place >= 0 else line[-place - 1]
        return float(word.view(np.float64))

    made = []
    for k in range(count):
        at = int(written.program[k])
        x = rate
        while written.program[at] != foreseen.END:
            operation, place = written.program[at : at + 2].tolist()
            x = done(operation, x, number(place))
            at += 2
        made.append(x)
    return made


def done(operation: int, x: float, c: float) -> float:
    return {
        of_rate.TAKE: lambda: c,
        of_rate.TIMES: lambda: x * c,
        of_rate.OVER: lambda: x / c,
        of_rate.INTO: lambda: c / x,
        of_rate.PLUS: lambda: x + c,
        of_rate.MINUS: lambda: x - c,
        of_rate.FROM: lambda: c - x,
    }[operation]()


@pytest.mark.parametrize("base", [*BASES, *CUSTOM_BASES], ids=lambda base: base.name)
def test_scalars_are_those_of_the_host(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each t near the first ones, and at some far away, for any rate."""
    case, random = Case(base), Random(3)
    for first, most in ((0, 2048), (37_000, 4096)):
        monkeypatch.setattr(foreseen, "MOST", most)
        lines = Lines(case.foreseen(), 0, first, case.names)
        written = lines.written(case.names)
        far = [random.randrange(10**6) for _ in range(20)] if written.lasts else []
        near = [*range(12), lines.count - 1, *(random.randrange(lines.count) for _ in range(20))]
        for steps in [*near, *far]:
            rate = random.choice([0.0, 0.1, 1e-3, 3.7e-5, 2.0])
            own = {**case.constants(0), **case.at(rate, first + steps + 1)}
            wanted = [1.0 if name in ASKED else float(own[name]) for name in case.names]
            assert scalars(written, steps, rate, len(case.names)) == wanted


def test_lines_end_where_scalars_rest() -> None:
    """Some 37,000 for Adam's, and at once for rules without corrections."""
    ends = {}
    for base in BASES:
        if base.name in ("sgd", "momentum-dampening", "rmsprop", "adamw", "adagrad-decay"):
            case = Case(base)
            ends[base.name] = Lines(case.foreseen(), 0, 0, case.names).written(case.names)
    assert len(ends["sgd"].lines) == 1
    assert 37_000 < len(ends["adamw"].lines) < 38_000
    assert [name for name, each in ends.items() if not each.lasts] == ["adagrad-decay"]
    assert all(each.lines.nbytes < 10**6 for each in ends.values() if each.lasts)


def test_lines_that_never_rest_end() -> None:
    case = Case(BASES[0])
    rates = case.foreseen()._replace(lines=lambda index, steps: ({"lr": 1 / t} for t in count(1)))
    lines = Lines(rates, 0, 0, ["lr"])
    assert (lines.count, lines.lasts) == (foreseen.MOST, False)
    assert lines.written(["lr"]).lines.shape == (foreseen.MOST, 1)


def test_a_scalar_that_is_made_in_two_ways_is_refused() -> None:
    def lines(index: int, steps: int) -> Iterator[Values]:
        for t in count(1):
            yield {"lr": OfRate() * 2.0 if t < 3 else 1.0 - OfRate()}

    with pytest.raises(TypeError, match="in one way at one t"):
        Lines(Case(BASES[0]).foreseen()._replace(lines=lines), 0, 0, ["lr"])


# ---- functions of the rate ----


def test_operations_are_those_of_floats() -> None:
    acts: list[Callable[[Any], Any]] = [
        lambda x: x * 3.0 + 1,
        lambda x: 2 - x / 7.0,
        lambda x: 1 / (1 + x * np.float64(0.3)),
        lambda x: np.float64(0.3) * -x,
        lambda x: +x - 5,
        lambda x: 4 + (x - 0.1) * 0.7,
    ]
    for act in acts:
        for rate in (0.1, 1e-3, 7.3, 1e300, inf):
            x = rate
            for operation, c in act(OfRate()).steps:
                x = done(operation, x, c)
            assert x == act(rate)


@pytest.mark.parametrize(
    "act",
    [
        lambda x: x * x,
        lambda x: x + x,
        lambda x: x**2,
        lambda x: x > 1,
        lambda x: x == 0.1,
        lambda x: 1 if x else 2,
        lambda x: max(x, 0.1),
        float,
        np.sqrt,
    ],
)
def test_what_a_device_does_not_know_is_a_type_error(act: Any) -> None:
    with pytest.raises(TypeError):
        act(OfRate())
