"""Custom rules that nobody would write: random formulas of all that a rule may hold.

Each is made twice, as a rule and as plain Python for one element. The two differ in words alone:
where plain Python rounds otherwise than the compute dtype does, or leaves a zero's sign to the
machine, it says the same in operations that do not.
"""

from __future__ import annotations

import linecache
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from random_arrays import Array

from fusedstep._compiler import functions

NAMES = {"np": np, **{name: getattr(functions, name) for name in ("maximum", "minimum", "clip")}}
"""The functions that formulas call."""


class Text(NamedTuple):
    """A piece of a formula, as a rule has it and as plain Python."""

    rule: str
    plain: str

    @staticmethod
    def of(form: str, *parts: Text, plain: str = "") -> Text:
        """A form whose places `{0}`, `{1}`, ... hold the parts."""
        return Text(
            form.format(*(part.rule for part in parts)),
            (plain or form).format(*(part.plain for part in parts)),
        )


HELPERS = """\
def helper(x):
    return x * x - 0.5 if x > 0 else x

def by(x, members):
    x = members.c * x
    return x, members.lr + x

"""


class Formula(NamedTuple):
    """A random formula: its two functions, and what it is declared with."""

    rule: Any
    plain: Any
    text: str
    states: tuple[str, ...]
    hyperparameters: dict[str, Any]


def random_formula(random: Random) -> Formula:
    states = tuple("msvx"[: random.randint(0, 4)])
    hyperparameters = {
        "lr": random.choice([0.3, 1e-3, 1.0]),
        "c": random.choice([-0.7, 0.9, 1e-8, 3.0]),
        "flag": random.random() < 0.5,
    }
    lines = _Writer(random, states).lines()
    texts = [HELPERS + "\n".join(side) + "\n" for side in zip(*lines, strict=True)]
    rule, plain = (_made(text, name) for text, name in zip(texts, ("rule", "plain"), strict=True))
    return Formula(rule, plain, texts[0], states, hyperparameters)


def _made(text: str, name: str) -> Any:
    """The function of a text that stands in no file."""
    path = f"<a random {name}>"
    linecache.cache[path] = len(text), None, text.splitlines(keepends=True), path
    names: dict[str, Any] = dict(NAMES)
    exec(compile(text, path, "exec"), names)
    return names["formula"]


class _Writer:
    """One formula while it is written."""

    def __init__(self, random: Random, states: tuple[str, ...]) -> None:
        self.random = random
        self.states = states
        self.names = ["p", "g", *states, "y"]

    def lines(self) -> list[Text]:
        random = self.random
        head = f"def formula({', '.join(['p', 'g', *self.states, 'h'])}):"
        found = [Text.of(head), Text.of("    y = p")]
        for _ in range(random.randint(1, 4)):
            found += self.statement("    ", 2)
        leaves = [Text.of(name) for name in self.states]
        results = (
            [Text.of("p + y"), *leaves] if random.random() < 0.5 else [self.number(2), *leaves]
        )
        form = ", ".join(f"{{{k}}}" for k in range(len(results)))
        return [*found, Text.of(f"    return {form}", *results)]

    def statement(self, indent: str, depth: int) -> list[Text]:
        random = self.random
        if depth and random.random() < 0.3:
            return self.branches(indent, depth - 1)
        name, other = random.choice(self.names), random.choice(self.names)
        kind = random.random()
        if kind < 0.5:
            return [Text.of(f"{indent}{name} = {{0}}", self.number(3))]
        if kind < 0.75:
            return [Text.of(f"{indent}{name} {random.choice('+-*/')}= {{0}}", self.number(2))]
        if kind < 0.9 and name != other:
            return [
                Text.of(f"{indent}{name}, {other} = {{0}}, {{1}}", self.number(2), self.number(2))
            ]
        if name != other:
            return [Text.of(f"{indent}{name}, {other} = by({{0}}, h)", self.number(2))]
        return [Text.of(f"{indent}{name} = helper({{0}})", self.number(2))]

    def branches(self, indent: str, depth: int) -> list[Text]:
        random, inner = self.random, indent + "    "
        found = [Text.of(f"{indent}if {{0}}:", self.condition(2)), *self.statement(inner, depth)]
        if random.random() < 0.3:
            found += [Text.of(f"{indent}elif {{0}}:", self.condition(1))]
            found += self.statement(inner, depth)
        if random.random() < 0.7:
            found += [Text.of(f"{indent}else:"), *self.statement(inner, depth)]
        return found

    def leaf(self) -> Text:
        return Text.of(self.random.choice([*self.names, "h.lr", "h.c"]))

    def literal(self) -> Text:
        return Text.of(self.random.choice(["3", "0.1", "1", "0.5", "1e-30", "2.5e20"]))

    def number(self, depth: int) -> Text:
        """A number of the compute dtype."""
        random = self.random
        if depth == 0 or random.random() < 0.2:
            return self.leaf()
        x = self.number(depth - 1)
        kind = random.randrange(12)
        if kind < 4:
            other = self.literal() if random.random() < 0.3 else self.number(depth - 1)
            pair = (x, other) if random.random() < 0.5 else (other, x)
            return Text.of(f"({{0}} {random.choice('+-*/')} {{1}})", *pair)
        if kind == 4:
            return Text.of("-{0}", x)
        if kind == 5:
            form = random.choice(["np.sqrt({0})", "abs({0})", "np.fabs({0})", "np.sign({0})"])
            return Text.of(form, x)
        if kind == 6:
            name = random.choice(["max", "min"])
            return Text.of(f"{name}({{0}}, {{1}})", x, self.number(depth - 1))
        if kind == 7:
            name = random.choice(["maximum", "minimum"])
            parts = x, self.number(depth - 1)
            return Text.of(f"np.{name}({{0}}, {{1}})", *parts, plain=f"{name}({{0}}, {{1}})")
        if kind == 8:
            low, high = self.number(0), self.number(0)
            return Text.of("np.clip({0}, {1}, {2})", x, low, high, plain="clip({0}, {1}, {2})")
        if kind == 9:
            return self.power(x)
        test, other = self.condition(1), self.number(depth - 1)
        if kind == 10:
            form = "np.where({0}, {1}, {2})"
            return Text.of(form, test, x, other, plain="({1} if {0} else {2})")
        return Text.of("({1} if {0} else {2})", test, x, other)

    def power(self, x: Text) -> Text:
        kind = self.random.randrange(4)
        if kind == 0:
            return Text.of("({0})**2", x, plain="(({0}) * ({0}))")
        if kind == 1:
            return Text.of("({0})**3", x, plain="(({0}) * ({0}) * ({0}))")
        if kind == 2:
            return Text.of("({0})**0.5", x, plain="np.sqrt({0})")
        return Text.of("np.square({0})", x, plain="(({0}) * ({0}))")

    def condition(self, depth: int) -> Text:
        random = self.random
        kind = random.random()
        if depth and kind < 0.2:
            form = f"({{0}} {random.choice(['and', 'or'])} {{1}})"
            return Text.of(form, self.condition(depth - 1), self.condition(depth - 1))
        if depth and kind < 0.3:
            return Text.of("(not {0})", self.condition(depth - 1))
        if kind < 0.4:
            return Text.of(random.choice(["h.flag", "h.c > h.lr"]))
        if kind < 0.5:
            return Text.of("({0} < {1} <= {2})", self.leaf(), self.number(1), self.leaf())
        sign = random.choice(["<", "<=", ">", ">=", "==", "!="])
        return Text.of(f"({{0}} {sign} {{1}})", self.number(1), self.number(1))


def plainly(formula: Formula, dtype: Any, arrays: list[Array]) -> list[Array]:
    """Python's own run of a formula on p, g and the state, one element after another."""
    h = SimpleNamespace(
        **{
            name: value if isinstance(value, bool) else dtype(value)
            for name, value in formula.hyperparameters.items()
        }
    )
    rows = []
    with np.errstate(all="ignore"):
        for element in zip(*(array.reshape(-1) for array in arrays), strict=True):
            row = formula.plain(*element, h)
            rows.append(row if isinstance(row, tuple) else (row,))
    columns = zip(*rows, strict=True)
    return [np.array(column, dtype).reshape(arrays[0].shape) for column in columns]
