"""Mutants of a PTX kernel: what a careless compiler, or a slip in the source, makes of it.

A mutant is a valid kernel in which one place is wrong. Its name is a family's and a number, which
counts the places of that family from the top of the text. A mutant may do the same as the kernel:
where a line is never reached, or where a product is of 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

Lines: TypeAlias = Sequence[str]

Change: TypeAlias = dict[int, str]
"""Lines by their numbers, and what they are replaced by."""


class Mutant(NamedTuple):
    name: str
    ptx: str
    change: Change
    """The lines that are not those of the kernel, in the text `with_extra` makes of it."""


INSTRUCTION = re.compile(r"\s*(?:@!?%\w+\s+)?([a-z][\w.:]*)\s+(.*);")

EXTRA = " .reg .f32 %extra32; .reg .f64 %extra64;"
"""Registers that some mutants need."""


def with_extra(ptx: str) -> str:
    """A kernel with the registers that some mutants need; its lines keep their numbers."""
    return re.sub(r"^\{", "{" + EXTRA, ptx, count=1, flags=re.MULTILINE)


def _taken_apart(line: str) -> tuple[str, list[str]]:
    """The opcode of a line and its operands; no opcode: the line is something else."""
    found = INSTRUCTION.fullmatch(line)
    if found is None:
        return "", []
    return found[1], re.split(r",\s*(?![^{]*\})", found[2].strip())


def _substituted(pattern: str, to: str) -> Callable[[Lines], Iterator[Change]]:
    """The family that replaces what a pattern matches in a line."""

    def family(lines: Lines) -> Iterator[Change]:
        for k, line in enumerate(lines):
            changed = re.sub(pattern, to, line)
            if changed != line:
                yield {k: changed}

    return family


def _contracted(lines: Lines) -> Iterator[Change]:
    """A sum with a product in it, which is not rounded by itself."""
    products: dict[str, tuple[str, str, str]] = {}
    for k, line in enumerate(lines):
        opcode, operands = _taken_apart(line)
        if not opcode or opcode.startswith("bra"):
            products.clear()  # other ways may lead here
        if found := re.fullmatch(r"(add|sub)\.rn\.(f32|f64)", opcode):
            target, *terms = operands
            for place, term in enumerate(terms):
                if term in products and products[term][0] == found[2]:
                    yield {k: _sum_of(found[1], found[2], target, terms, place, products[term])}
        if operands:
            target = operands[0]
            products = {
                name: each for name, each in products.items() if target not in (name, *each)
            }
            if found := re.fullmatch(r"mul\.rn\.(f32|f64)", opcode):
                _, a, b = operands
                if target not in (a, b):
                    products[target] = found[1], a, b


def _sum_of(
    sign: str, kind: str, target: str, terms: list[str], place: int, product: tuple[str, str, str]
) -> str:
    """The lines of a sum or difference of which one term is a product."""
    _, a, b = product
    other, extra, before = terms[1 - place], f"%extra{kind[1:]}", ""
    if sign == "sub":
        before = f"\tneg.{kind} \t{extra}, {other if place == 0 else a};\n"
        a, other = (a, extra) if place == 0 else (extra, other)
    return f"{before}\tfma.rn.{kind} \t{target}, {a}, {b}, {other};"


def _reciprocal(lines: Lines) -> Iterator[Change]:
    """A product with a reciprocal in place of a quotient."""
    for k, line in enumerate(lines):
        opcode, operands = _taken_apart(line)
        if opcode.startswith("div.rn."):
            kind, (target, a, b) = opcode[-3:], operands
            extra = f"%extra{kind[1:]}"
            code = f"\trcp.rn.{kind} \t{extra}, {b};\n\tmul.rn.{kind} \t{target}, {a}, {extra};"
            yield {k: code}


STRICT = {"ge": "gt", "gt": "ge", "le": "lt", "lt": "le"}


def _tail(lines: Lines) -> Iterator[Change]:
    """A bound that is taken in where it was left out, or the other way round."""
    for k, line in enumerate(lines):
        if found := re.search(r"\bsetp\.(g[et]|l[et])(?=\.[su]\d+)", line):
            yield {k: line.replace(found[0], f"setp.{STRICT[found[1]]}", 1)}


def _limit(lines: Lines) -> Iterator[Change]:
    """A bound that is a constant, and 1 more."""
    for k, line in enumerate(lines):
        if found := re.search(r"\bsetp\.[gl][et]\.[su]\d+.*, (-?\d+);", line):
            yield {k: f"{line[: found.start(1)]}{int(found[1]) + 1};"}


def _one_more(pattern: str) -> Callable[[Lines], Iterator[Change]]:
    """The family in which a constant, the group of a pattern, is 1 more."""

    def family(lines: Lines) -> Iterator[Change]:
        for k, line in enumerate(lines):
            if found := re.search(pattern, line):
                start, end = found.span(1)
                yield {k: f"{line[:start]}{int(found[1]) + 1}{line[end:]}"}

    return family


ACCESS = re.compile(r"\s*((?:ld|st)\.global\S*)\s.*(\[(%\w+)[^\]]*\])")


def _accesses(lines: Lines, operation: str) -> Iterator[tuple[int, re.Match[str]]]:
    for k, line in enumerate(lines):
        found = ACCESS.match(line)
        if found and found[1].startswith(operation):
            yield k, found


def _with_address(found: re.Match[str], address: str) -> str:
    line = found.string
    return f"{line[: found.start(2)]}{address}{line[found.end(2) :]}"


def _swapped_loads(lines: Lines) -> Iterator[Change]:
    """Two loads, one after the other, each of what the other loads."""
    loads = [*_accesses(lines, "ld")]
    for (i, one), (j, two) in pairwise(loads):
        between = [_taken_apart(line) for line in lines[i:j]]
        written = {operands[0] for _, operands in between if operands}
        straight = all(opcode and not opcode.startswith("bra") for opcode, _ in between)
        if straight and one[1] == two[1] and one[3] != two[3] and two[3] not in written:
            yield {i: _with_address(one, two[2]), j: _with_address(two, one[2])}


def _wrong_store(lines: Lines) -> Iterator[Change]:
    """A store to where the next one goes."""
    stores = [*_accesses(lines, "st")]
    for (i, one), (j, two) in pairwise(stores):
        if j == i + 1 and one[1] == two[1] and one[2] != two[2]:
            yield {i: _with_address(one, two[2])}


def _order(lines: Lines) -> Iterator[Change]:
    """A vector whose first two elements are swapped."""
    for k, line in enumerate(lines):
        found = re.search(r"\{(%\w+), (%\w+)", line)
        if found and found[1] != found[2]:
            yield {k: line.replace(found[0], f"{{{found[2]}, {found[1]}", 1)}


def _no_barrier(lines: Lines) -> Iterator[Change]:
    """A barrier that is not there."""
    for k, line in enumerate(lines):
        if re.match(r"\s*bar(?:rier)?\.sync\b", line):
            yield {k: ""}


def _always(lines: Lines) -> Iterator[Change]:
    """A guarded instruction that is always done."""
    for k, line in enumerate(lines):
        if found := re.match(r"\s*@!?%\w+\s+", line):
            yield {k: f"\t{line[found.end() :]}"}


def _never(lines: Lines) -> Iterator[Change]:
    """A guarded instruction that is never done."""
    for k, line in enumerate(lines):
        if re.match(r"\s*@!?%\w+\s", line):
            yield {k: ""}


FAMILIES: dict[str, Callable[[Lines], Iterator[Change]]] = {
    "fma": _contracted,
    "div approx": _substituted(r"\bdiv\.rn\.f32\b", "div.approx.f32"),
    "div full": _substituted(r"\bdiv\.rn\.f32\b", "div.full.f32"),
    "reciprocal": _reciprocal,
    "sqrt approx": _substituted(r"\bsqrt\.rn\.f32\b", "sqrt.approx.f32"),
    "ftz": _substituted(r"\b(add|sub|mul|div|sqrt)\.rn\.f32\b", r"\1.rn.ftz.f32"),
    "rounding": _substituted(r"\b(add|sub|mul|div|sqrt)\.rn\.f(32|64)\b", r"\1.rz.f\2"),
    "conversion": _substituted(r"\bcvt\.rn\.", "cvt.rz."),
    "tail": _tail,
    "limit": _limit,
    "stride": _one_more(r"\bmul\.wide\.[su]\d+.*, (\d+);"),
    "shift": _one_more(r"\bsh[lr]\.[bus]\d+.*, (\d+);"),
    "swapped loads": _swapped_loads,
    "wrong store": _wrong_store,
    "order": _order,
    "barrier": _no_barrier,
    "always": _always,
    "never": _never,
    "min": _substituted(r"\bmin\.(?=[suf]\d)", "max."),
    "max": _substituted(r"\bmax\.(?=[suf]\d)", "min."),
}
"""Ways to be wrong, by their names: the changes that make a kernel so, each in one place."""


def mutants(ptx: str, most: int | None = None, families: Sequence[str] = ()) -> Iterator[Mutant]:
    """The mutants of a kernel; of each family so many at most, from all over the text.

    All families are asked if none are named.
    """
    lines = ptx.splitlines()
    for name in families or FAMILIES:
        changes = [*FAMILIES[name](lines)]
        count = len(changes) if most is None else min(most, len(changes))
        for number in [k * len(changes) // count for k in range(count)]:
            change = changes[number]
            made = "\n".join([*(change.get(k, line) for k, line in enumerate(lines)), ""])
            extra = any("%extra" in line for line in change.values())
            yield Mutant(f"{name} {number}", with_extra(made) if extra else made, change)
