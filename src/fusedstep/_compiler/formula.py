"""A formula: a function of one element, checked and in its plainest form, as backends compile it.

It is parsed from a function in a small part of Python, all of which means the same to the bit
on every backend: `+ - * /`, squares, negation, comparisons, `and or not`, `a if c else b`, `if`
statements, the functions of vocabulary.py, numbers, members of h, and calls of other such
functions. There are two types, numbers of the compute dtype, which a literal has too, and
conditions; they do not mix, so nothing can drift to another dtype. Whatever else a function
holds is refused, by its line.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

PRIMITIVES = ("sqrt", "abs")
"""The functions that every backend has, besides operators."""


@dataclass(frozen=True, eq=False)
class Formula:
    """A function of one element in a plainer form, of numbers and conditions only.

    Its statements are assignments, to a name, or to several at once; `if` with two branches;
    and a `return` at the end. Its expressions are names, numbers, `h.member`, operators,
    single comparisons, `and or not`, `a if c else b`, and calls of `PRIMITIVES` and of its
    callees. What constants decide has been decided: `x is not None`, `inside`.
    """

    name: str
    variables: tuple[str, ...]
    """The arguments before h, which comes last if `scalars` are read."""
    body: tuple[ast.stmt, ...]
    callees: dict[str, Formula]
    """The formulas that it calls, by the names under which it does."""
    scalars: tuple[str, ...]
    """The members of h that it and its callees read."""
    results: int
    """The number of values that it returns; one is not a tuple."""
