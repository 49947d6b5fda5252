"""The text of a PTX module with one kernel, taken apart: its parameters, arrays and statements.

Whatever is not understood is a PtxError that names the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)

NAME = r"[\w$]+"

KIND = r"[bus](?:8|16|32|64)|f32|f64"
"""Types of memory and of registers, besides predicates."""

ENTRY = re.compile(rf"\.visible\s+\.entry\s+({NAME})\s*\(([^)]*)\)\s*\{{")

HEADER = re.compile(
    r"\.version \d+\.\d+|\.target sm_\w+|\.address_size 64"
    rf"|\.(?:common|visible) \.global \.align \d+ \.[bu]\d+ {NAME}(?:\[\d+\])?"
)
"""Lines around a kernel that are nothing to it: it does not get at those variables."""

ARRAY = re.compile(rf"(?:\.visible )?\.shared(?: \.align (\d+))? \.({KIND}) ({NAME})((?:\[\d+\])*)")

PARAMETER = re.compile(
    rf"\.param(?: \.align \d+)? \.({KIND})(?: \.ptr(?: \.global)?(?: \.align \d+)?)?"
    rf" ({NAME})(?:\[(\d+)\])?"
)

TOKEN = re.compile(r"\s*(?:([\w$%]+)\s*:(?!:)|([{}])|([^;{}]+(?:\{[^{}]*\}[^;{}]*)*);)")
"""A label, a brace of a block, or a statement, which may have vectors in braces."""

REGISTERS = re.compile(rf"\.reg \.(pred|{KIND}) (.+)")

INSTRUCTION = re.compile(rf"(?:@(!?)(%?{NAME}) )?([a-zA-Z][\w.:]*)(?: (.+))?")


class PtxError(ValueError):
    """A line of PTX is not understood."""

    def __init__(self, line: int, text: str, why: str) -> None:
        super().__init__(f"line {line}: {why}: {text}")


class Parameter(NamedTuple):
    name: str
    start: int
    """Where it begins among the bytes of all parameters."""
    size: int


class Array(NamedTuple):
    """An array in shared memory."""

    name: str
    start: int
    size: int
    align: int


class Statement(NamedTuple):
    line: int
    text: str
    """On one line, with single spaces."""
    label: bool = False

    def wrong(self, why: str) -> PtxError:
        return PtxError(self.line, self.text, why)


class Instruction(NamedTuple):
    statement: Statement
    guard: str
    """A predicate, perhaps after a `!`; empty: it is always done."""
    opcode: str
    operands: list[str]


class Module(NamedTuple):
    name: str
    parameters: list[Parameter]
    arrays: list[Array]
    statements: list[Statement]
    """The kernel's own, with braces of blocks."""


def parse(ptx: str) -> Module:
    """A module taken apart, which has one kernel."""
    text = COMMENT.sub(lambda found: "\n" * found[0].count("\n"), ptx)
    entries = [*ENTRY.finditer(text)]
    if len(entries) != 1:
        raise PtxError(1, ptx[:40], f"there are {len(entries)} kernels, not one")
    entry = entries[0]
    body, end = _body(text, entry.end())
    arrays: list[Array] = []
    for start, part in ((0, text[: entry.start()]), (end, text[end:])):
        first = 1 + text.count("\n", 0, start)
        for line, each in enumerate(part.splitlines(), first):
            statement = Statement(line, " ".join(each.split()).rstrip(";"))
            if found := array(statement, arrays):
                arrays.append(found)
            elif statement.text and not HEADER.fullmatch(statement.text):
                raise statement.wrong("not known")
    line = 1 + text.count("\n", 0, entry.start(2))
    return Module(entry[1], [*_parameters(line, entry[2])], arrays, body)


def _body(text: str, start: int) -> tuple[list[Statement], int]:
    """The statements from behind a brace up to the one that closes it, and where they end."""
    statements: list[Statement] = []
    depth, at = 1, start
    while depth:
        found = TOKEN.match(text, at)
        if found is None:
            rest = text[at:].strip().partition("\n")[0]
            raise PtxError(1 + text.count("\n", 0, at), rest, "not known")
        line = 1 + text.count("\n", 0, found.start(found.lastindex or 0))
        label, brace, statement = found.groups()
        depth += {"{": 1, "}": -1}.get(brace, 0)
        known = " ".join((label or brace or statement).split())
        statements.append(Statement(line, known, label is not None))
        at = found.end()
    return statements[:-1], at


def _parameters(line: int, text: str) -> Iterator[Parameter]:
    start = 0
    for part in re.finditer(r"[^\s,][^,]*", text):
        each = " ".join(part[0].split())
        found = PARAMETER.fullmatch(each)
        if found is None:
            at = line + text.count("\n", 0, part.start())
            raise PtxError(at, each, "not known as a parameter")
        size = int(found[1][1:]) // 8 * int(found[3] or 1)
        yield Parameter(found[2], start, size)
        start = _aligned(start + size)


def array(statement: Statement, others: Sequence[Array]) -> Array | None:
    """The array in shared memory that a statement declares, which lies behind others, if any."""
    found = ARRAY.fullmatch(statement.text)
    if found is None:
        return None
    size = width = int(found[2][1:]) // 8
    for count in re.findall(r"\d+", found[4]):
        size *= int(count)
    start = _aligned(others[-1].start + others[-1].size) if others else 0
    return Array(found[3], start, size, int(found[1] or width))


def _aligned(at: int) -> int:
    """The next multiple of 16."""
    return -(-at // 16) * 16


def registers(statement: Statement) -> Iterator[tuple[str, str]] | None:
    """The registers that a statement declares, with their types; None: it declares none."""
    found = REGISTERS.fullmatch(statement.text)
    if found is None:
        return None
    kind, listed = found.groups()
    return ((name, kind) for each in listed.split(",") for name in _names(each.strip()))


def _names(declared: str) -> Iterator[str]:
    base, _, count = declared.rstrip(">").partition("<")
    if not count:
        yield base
    else:
        yield from (f"{base}{k}" for k in range(int(count)))


def instruction(statement: Statement) -> Instruction:
    """An instruction taken apart."""
    found = INSTRUCTION.fullmatch(statement.text)
    if found is None:
        raise statement.wrong("not known")
    negated, guard, opcode, operands = found.groups()
    split = re.split(r",\s*(?![^{\[]*[}\]])", operands) if operands else []
    return Instruction(statement, f"{negated}{guard}" if guard else "", opcode, split)
