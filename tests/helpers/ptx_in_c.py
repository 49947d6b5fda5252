"""A PTX kernel as C, so that what was compiled for a device also runs without one.

`translate` makes the text of one C file, which exports what ptx_device.h declares. Compile it by
gcc or clang with FLAGS, and link it with -lm.

A thread is a call of a C function whose variables are the registers. Where threads wait for one
another, at a barrier or to exchange values, the function keeps those that are needed later, returns
and is called again. Whatever a device would do wrong in silence ends a launch with a message, see
ptx_run.h, and what is not known ends the translation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ptx_liveness import Step, live_after
from ptx_opcodes import OPCODES, width
from ptx_source import KIND, Array, Instruction, Module, PtxError, Statement, parse, registers
from ptx_source import array as array_of
from ptx_source import instruction as instruction_of

FLAGS = ("-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-fwrapv")

HERE = Path(__file__).parent

UNDEFINED = 0xA5A5A5A5A5A5A5A5
"""The bits of a register that has not been written: the same at each run, and seldom any good."""

SPECIAL = {
    "%tid.x": "l->tid",
    "%ntid.x": "l->ntid",
    "%ctaid.x": "l->ctaid",
    "%nctaid.x": "l->nctaid",
    "%laneid": "l->tid % WARP",
    **{f"%{name}.{axis}": "0" for name in ("tid", "ctaid") for axis in "yz"},
    **{f"%{name}.{axis}": "1" for name in ("ntid", "nctaid") for axis in "yz"},
}
"""Special registers, all of type u32."""

EVICT = "evict_(?:normal|unchanged|first|last)"

HINTS = (
    rf"(?:\.c[agsv]|\.lu|\.wb|\.wt)?(\.nc)?"
    rf"(?:\.L1::(?:{EVICT}|no_allocate))?(?:\.L2::{EVICT})?(?:\.L2::(?:64|128|256)B)?"
)
"""Hints of an access about caches, and .nc, which says that the kernel writes none of it."""

ACCESS = re.compile(
    rf"(ld|st)(?:\.weak|\.volatile)?\.(global|shared|param){HINTS}(?:\.v([24]))?\.({KIND})"
)

MOVE = re.compile(r"mov\.(pred|[bus](?:16|32|64)|f32|f64)")

BRANCH = re.compile(r"bra(?:\.uni)?")

END = re.compile(r"ret|exit")

BARRIER = re.compile(r"(?:bar|barrier)(?:\.cta)?\.sync(?:\.aligned)?")

SHUFFLE = re.compile(r"shfl\.sync\.(up|down|bfly|idx)\.b32")

SHUFFLES = {"up": "UP", "down": "DOWN", "bfly": "BUTTERFLY", "idx": "INDEX"}

PREFETCH = re.compile(rf"prefetchu?(?:\.global)?\.L[12](?:::{EVICT})?")

FENCE = re.compile(r"membar\.(?:cta|gl|sys)|fence(?:\.sc|\.acq_rel)?\.(?:cta|cluster|gpu|sys)")

ADDRESS = re.compile(r"\[([%\w$]+)(?: ?\+ ?(-?\d+))?\]")

WHOLE = re.compile(r"(-?)(0[xX][\da-fA-F]+|0|[1-9]\d*)U?")

FLOAT = re.compile(r"0[fF]([\da-fA-F]{8})|0[dD]([\da-fA-F]{16})")

IN_ARRAY = re.compile(r"([\w$]+)(?: ?\+ ?(\d+))?")


def translate(ptx: str) -> str:
    """The text of a C file for a module with one kernel."""
    return _Translation(parse(ptx)).text()


def switched(ptx: str, changes: Sequence[Mapping[int, str]]) -> tuple[str, set[int]]:
    """The text of a C file for a kernel and for others, which differ from it in a few lines.

    A change has the numbers of lines, from 0 on, and what stands there instead. The variable
    `fs_mutant` says which of them is in force: the number of a change, from 1 on, or 0 for none.
    Returned are also the numbers of those that cannot be translated.
    """
    instead: dict[int, list[tuple[int, str]]] = {}
    for number, change in enumerate(changes, 1):
        for line, text in change.items():
            instead.setdefault(line + 1, []).append((number, text))
    translation = _Translation(parse(ptx), instead)
    return translation.text(), translation.refused


def _fits(have: str, want: str, widens: bool) -> bool:
    """Whether a register of one type may stand for a value of another, or may if it is wider."""
    if "f" in (have[0], want[0]) or width(have) <= width(want):
        same_width = width(have) == width(want)
        return same_width and (have == want or "b" in have[0] + want[0] or "f" not in have + want)
    return widens and "pred" not in (have, want)


def _as(value: str, have: str, want: str) -> str:
    """A C expression of one type as one of another."""
    if have == want:
        return value
    if want[0] == "f":
        return f"{want}_of_b{width(want)}({value})"
    if have[0] == "f":
        return f"b{width(have)}_of_{have}({value})"
    return f"({want}){value}"


class _Translation:
    """A kernel on its way to C."""

    def __init__(
        self, module: Module, instead: Mapping[int, Sequence[tuple[int, str]]] | None = None
    ) -> None:
        self.module = module
        self.refused: set[int] = set()
        """Changes that cannot be translated."""
        self.others: dict[int, list[tuple[int, list[Step]]]] = {}
        """For the index of a step the numbers of changes, and their steps in its place."""
        self.switched = instead is not None
        self.arrays: list[Array] = [*module.arrays]
        self.steps: list[Step] = []
        self.labels: dict[str, int] = {}
        """The index of the statement that a label is."""
        self.scopes: list[dict[str, tuple[str, str]]] = [{}]
        """Registers by their names, for each block that is open: their names in C, and types."""
        self.opened = 0
        """How many blocks have been opened."""
        self.variables: dict[str, str] = {}
        """The types of all registers, by their names in C."""
        self.sites: list[Statement] = []
        """Instructions that may fail."""
        self.places = 0
        """Where a thread may wait."""
        for k, statement in enumerate(module.statements):
            if statement.label and self.labels.setdefault(statement.text, k) != k:
                raise statement.wrong("a label that there is already")
        for statement in module.statements:
            self.steps.append(self._step(statement))
            if instead and (changed := instead.get(statement.line)):
                self.others[len(self.steps) - 1] = [*self._others(changed)]

    def _step(self, statement: Statement) -> Step:
        self.step = Step()
        self.statement = statement
        self.step.code = self._statement()
        return self.step

    def _others(self, changed: Sequence[tuple[int, str]]) -> Iterator[tuple[int, list[Step]]]:
        """The steps of some changes in the place of the last one."""
        line = self.statement.line
        for number, text in changed:
            lines = [" ".join(each.split()).rstrip(";") for each in text.splitlines()]
            try:
                yield number, [self._step(Statement(line, each)) for each in lines if each]
            except PtxError:
                self.refused.add(number)

    # ---- statements ----

    def _statement(self) -> str:
        statement = self.statement
        if statement.label:
            return f"{_label(statement.text)}:;"
        if statement.text == "{":
            self.opened += 1
            self.scopes.append({})
        elif statement.text == "}":
            self.scopes.pop()
        elif statement.text == '.pragma "nounroll"':
            pass
        elif declared := registers(statement):
            for name, kind in declared:
                if name in self.scopes[-1]:
                    raise statement.wrong(f"{name} is there already")
                self.scopes[-1][name] = f"v{self.opened}{name.replace('%', '$')}", kind
        elif found := array_of(statement, self.arrays):
            self.arrays.append(found)
        else:
            return self._instruction(instruction_of(statement))
        return ""

    def _instruction(self, given: Instruction) -> str:
        guard = self._value(given.guard, "pred") if given.guard else ""
        self.step.guarded = bool(guard)
        code = self._code(given.opcode, given.operands)
        return f"if ({guard}) {{ {code} }}" if guard else code

    def _code(self, opcode: str, operands: Sequence[str]) -> str:
        if found := ACCESS.fullmatch(opcode):
            return self._access(found, *self._counted(operands, 2))
        if found := MOVE.fullmatch(opcode):
            return self._move(found[1], *self._counted(operands, 2))
        if BRANCH.fullmatch(opcode):
            return self._branch(*self._counted(operands, 1))
        if END.fullmatch(opcode):
            self._counted(operands, 0)
            self.step.goes_on = self.step.guarded
            return "return ENDED;"
        if BARRIER.fullmatch(opcode):
            if [*operands] != ["0"]:
                raise self._wrong("only barrier 0, of all threads, is known")
            return self._waiting("t->waits = BARRIER;", "")
        if found := SHUFFLE.fullmatch(opcode):
            return self._shuffle(SHUFFLES[found[1]], *self._counted(operands, 5))
        if PREFETCH.fullmatch(opcode):
            return f"(void)({self._address(self._counted(operands, 1)[0])});"
        if FENCE.fullmatch(opcode):
            self._counted(operands, 0)
            return ""  # threads run one after another
        if opcode == "trap":
            return f'fail(l, {self._site()}, "a trap");'
        return self._computed(opcode, operands)

    def _computed(self, opcode: str, operands: Sequence[str]) -> str:
        if opcode not in OPCODES:
            raise self._wrong("an opcode that is not known")
        known = OPCODES[opcode]
        result, *kinds = known.types
        target, *given = self._counted(operands, len(known.types))
        first, _, second = target.partition("|")
        if second and not known.second:
            raise self._wrong("it has one result")
        values = [
            self._value(each, kind, known.widens) for each, kind in zip(given, kinds, strict=True)
        ]
        # Both results are of the operands before either is there.
        code = "".join(
            f"{kind} {x}_ = {value}; "
            for x, kind, value in zip("abcd", kinds, values, strict=False)
        )
        expression, other = (
            re.sub(r"\b([abcd])\b", r"\1_", text) for text in (known.expression, known.second)
        )
        code += self._assigned(first, result, expression, known.widens)
        if second:
            code += self._assigned(second, result, other)
        return f"{{ {code} }}"

    def _access(self, found: re.Match[str], *operands: str) -> str:
        operation, space, constant, count, kind = found.groups()
        loads = operation == "ld"
        values, place = operands if loads else operands[::-1]
        named = _members(values)
        if len(named) != int(count or 1) or (count and values[0] != "{"):
            raise self._wrong("a wrong number of registers")
        if (constant and (space, loads) != ("global", True)) or (space == "param" and not loads):
            raise self._wrong("there is no such access")
        size = width(kind) // 8
        total = size * len(named)
        if total > 16:
            raise self._wrong("an access is of 16 bytes at most")
        before, after = "", ""
        if space == "param":
            before = f"const u8 *at_ = {self._parameter(place, total)};"
        else:
            given = f"(l, {self._site()}, {self._address(place, space == 'shared')}, {total}"
            if space == "global":
                access = "WRITES" if not loads else "READS_CONSTANT" if constant else "READS"
                before = f"u8 *at_ = global_at{given}, {access});"
            elif loads:
                before = f"const u8 *at_ = shared_get{given});"
            else:
                before, after = f"u8 at_[{total}];", f" shared_put{given}, at_);"
        code = ""
        for k, name in enumerate(named):
            if loads:
                code += self._assigned(name, kind, f"GET({kind}, at_ + {size * k})", True)
            else:
                code += f" PUT({kind}, at_ + {size * k}, {self._value(name, kind, True)});"
        return f"{{ {before}{code}{after} }}"

    def _move(self, kind: str, target: str, source: str) -> str:
        parts, wholes = _members(target), _members(source)
        if target[0] != "{" and source[0] != "{":
            return self._assigned(target, kind, self._value(source, kind))
        count = max(len(parts), len(wholes))
        if kind[0] != "b" or min(len(parts), len(wholes)) > 1 or width(kind) % count:
            raise self._wrong("not known")
        bits = width(kind) // count
        if len(wholes) > 1:
            values = [self._value(each, f"b{bits}") for each in wholes]
            joined = " | ".join(f"({kind}){x} << {bits * k}" for k, x in enumerate(values))
            return self._assigned(target, kind, joined)
        code = f"{kind} from_ = {self._value(source, kind)};"
        for k, part in enumerate(parts):
            code += self._assigned(part, f"b{bits}", f"from_ >> {bits * k}")
        return f"{{ {code} }}"

    def _branch(self, target: str) -> str:
        if target not in self.labels:
            raise self._wrong("there is no such label")
        self.step.targets = [self.labels[target]]
        self.step.goes_on = self.step.guarded
        backwards = self.labels[target] < len(self.steps)
        turn = f"TURN({self._site()}); " if backwards else ""
        return f"{turn}goto {_label(target)};"

    def _shuffle(
        self, waits: str, target: str, given: str, lane: str, clamp: str, members: str
    ) -> str:
        first, _, second = target.partition("|")
        before = f"t->waits = {waits}; t->given = {self._value(given, 'b32')};"
        for name, operand in (("lane", lane), ("clamp", clamp), ("members", members)):
            before += f" t->{name} = {self._value(operand, 'u32')};"
        after = self._assigned(first, "b32", "t->result")
        if second:
            after += self._assigned(second, "pred", "t->found")
        return self._waiting(before, after)

    def _waiting(self, before: str, after: str) -> str:
        """Code at which a thread waits; `text` puts in what keeps the registers."""
        self.places += 1
        self.step.place = self.places
        return f"{before} t->site = {self._site()}; KEEP return {self.places}; BACK {after}"

    # ---- operands ----

    def _wrong(self, why: str) -> Exception:
        return self.statement.wrong(why)

    def _site(self) -> int:
        self.sites.append(self.statement)
        return len(self.sites) - 1

    def _counted(self, operands: Sequence[str], count: int) -> Sequence[str]:
        if len(operands) != count:
            raise self._wrong(f"it has {count} operands")
        return operands

    def _register(self, name: str) -> tuple[str, str] | None:
        for scope in reversed(self.scopes):
            if name in scope:
                self.variables.setdefault(*scope[name])
                return scope[name]
        return None

    def _value(self, text: str, kind: str, widens: bool = False) -> str:
        """An operand as a C expression of a type."""
        if kind == "pred" and text.startswith("!"):
            return f"!{self._value(text[1:], kind)}"
        if text in SPECIAL:
            name, have = f"({SPECIAL[text]})", "u32"
        elif found := self._register(text):
            name, have = found
            self.step.reads.add(name)
        else:
            return self._constant(text, kind)
        if not _fits(have, kind, widens):
            raise self._wrong(f"{text} is of type {have}, not {kind}")
        return _as(name, have, kind)

    def _constant(self, text: str, kind: str) -> str:
        if number := FLOAT.fullmatch(text):
            have = "b32" if number[1] else "b64"
            if kind in (have, f"f{have[1:]}"):
                return _as(f"0x{number[1] or number[2]}u", have, kind)
        elif (whole := WHOLE.fullmatch(text)) and kind[0] != "f":
            value = int(whole[1] + whole[2], 0)
            if -(2**63) <= value < 2**64:
                return f"({kind}){value % 2**64}u"
        elif (found := IN_ARRAY.fullmatch(text)) and kind[0] in "bu" and width(kind) >= 32:
            for index, array in enumerate(self.arrays):
                if array.name == found[1]:
                    return f"({kind})(SHARED_ADDRESS({index}) + {found[2] or 0})"
        raise self._wrong(f"{text} is not known as {kind}")

    def _assigned(self, target: str, kind: str, value: str, widens: bool = False) -> str:
        """The C statement that gives a register a value of a type; `_` is none."""
        if target == "_":
            return ""
        found = self._register(target)
        if found is None:
            raise self._wrong(f"{target} is no register")
        name, have = found
        if not _fits(have, kind, widens):
            raise self._wrong(f"{target} is of type {have}, not {kind}")
        self.step.writes.add(name)
        return f" {name} = {_as(f'({kind})({value})', kind, have)};"

    def _address(self, text: str, shared: bool = False) -> str:
        found = ADDRESS.fullmatch(text)
        if found is None or WHOLE.fullmatch(found[1]):
            raise self._wrong(f"{text} is no address that is known")
        base = self._register(found[1])
        kind = "u32" if shared and base and width(base[1]) == 32 else "u64"
        return f"(u64){self._value(found[1], kind)} + (u64){found[2] or 0}"

    def _parameter(self, text: str, size: int) -> str:
        found = ADDRESS.fullmatch(text)
        for each in self.module.parameters:
            if found and each.name == found[1]:
                offset = int(found[2] or 0)
                if not 0 <= offset <= each.size - size or offset % size:
                    raise self._wrong("not inside of the parameter")
                return f"l->arguments + {each.start + offset}"
        raise self._wrong(f"{text} is no parameter")

    # ---- the whole ----

    def text(self) -> str:
        lines: list[str] = []
        kept: set[str] = set()
        whole = [_either(step, self.others.get(k, [])) for k, step in enumerate(self.steps)]
        for k, (step, live) in enumerate(zip(self.steps, live_after(whole), strict=True)):
            code = _with_kept(step, live, kept)
            for number, others in self.others.get(k, []):
                other = " ".join(_with_kept(each, live, kept) for each in others)
                code = f"if (mutant == {number}) {{ {other} }} else {{ {code} }}"
            if code:
                lines.append(f"    {code}")
        return "\n".join(
            [
                (HERE / "ptx_device.h").read_text(),
                *self._tables(sorted(kept)),
                (HERE / "ptx_run.h").read_text(),
                *self._beginning(),
                *lines,
                "    return ENDED;",
                "}",
                "",
            ]
        )

    def _tables(self, kept: Sequence[str]) -> Iterator[str]:
        """Tables of the kernel, which ptx_run.h reads."""
        module = self.module
        for bits in (8, 16, 32, 64):
            yield f"typedef uint{bits}_t u{bits}, b{bits};"
            yield f"typedef int{bits}_t s{bits};"
        yield "typedef __int128 s128;"
        yield "typedef unsigned __int128 u128;"
        yield "typedef float f32;"
        yield "typedef double f64;"
        yield "typedef _Bool pred;"
        yield f"#define NAME {_quoted(module.name)}"
        if self.switched:
            yield "int fs_mutant;"
        sizes = {
            "SITES": len(self.sites),
            "SHARED": max((each.start + each.size for each in self.arrays), default=0),
            "SHARED_ARRAYS": len(self.arrays),
            "ARGUMENTS": max((each.start + each.size for each in module.parameters), default=0),
            "PARAMETERS": len(module.parameters),
        }
        yield f"enum {{ {', '.join(f'{name} = {value}' for name, value in sizes.items())} }};"
        yield from _array(
            "struct { u32 line; const char *text; } sites",
            (f"{{ {each.line}, {_quoted(each.text)} }}" for each in self.sites),
        )
        yield from _array(
            "struct { const char *name; u32 start, size, align; } shared_arrays",
            (f"{{ {_quoted(x.name)}, {x.start}, {x.size}, {x.align} }}" for x in self.arrays),
        )
        yield from _array(
            "struct { u32 start, size; } listed",
            (f"{{ {each.start}, {each.size} }}" for each in module.parameters),
        )
        yield "struct registers {"
        yield from (f"    {self.variables[name]} {name};" for name in kept)
        yield "    u8 none;"
        yield "};"

    def _beginning(self) -> Iterator[str]:
        yield "static u32 thread(struct launch *l, struct thread *t UNUSED,"
        yield "                  struct registers *r UNUSED) {"
        for name, kind in self.variables.items():
            yield f"    {kind} {name} UNUSED = {_undefined(kind)};"
        yield "    u32 turns UNUSED = 0;"
        if self.switched:
            yield "    const int mutant UNUSED = fs_mutant;"
        if self.places:
            yield "    switch (t->where) {"
            for place in range(1, self.places + 1):
                yield f"    case {place}: goto place_{place};"
            yield "    }"


def _either(step: Step, others: Sequence[tuple[int, Sequence[Step]]]) -> Step:
    """A step that stands for itself and for the others in its place: what holds for all."""
    ways = [[step], *(each for _, each in others)]
    every = [each for way in ways for each in way]
    return Step(
        reads=set().union(*(each.reads for each in every)),
        writes=set.intersection(*(set().union(*(x.writes for x in way)) for way in ways)),
        guarded=any(each.guarded for each in every),
        targets=[target for each in every for target in each.targets],
        goes_on=any(all(each.goes_on for each in way) for way in ways),
    )


def _with_kept(step: Step, live: set[str], kept: set[str]) -> str:
    """The code of a step, which keeps the registers that are needed after a wait."""
    if not step.place:
        return step.code
    names = sorted(live - step.writes)
    kept.update(names)
    keep = " ".join(f"r->{name} = {name};" for name in names)
    back = " ".join(f"{name} = r->{name};" for name in names)
    return step.code.replace("KEEP", keep).replace("BACK", f"place_{step.place}:; {back}")


def _undefined(kind: str) -> str:
    bits = "b64" if kind == "pred" else f"b{width(kind)}"
    return _as(f"({bits}){UNDEFINED}u", bits, kind)


def _label(name: str) -> str:
    return f"label_{name.replace('%', '$')}"


def _members(text: str) -> list[str]:
    """The members of a vector; of what is none, itself."""
    if text.startswith("{"):
        return [each.strip() for each in text[1:-1].split(",")]
    return [text]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _array(declared: str, items: Iterable[str]) -> Iterator[str]:
    """A table in C; it ends with an empty row, since it may have no other."""
    yield f"static const {declared}[] = {{"
    yield from (f"    {item}," for item in items)
    yield "    { 0 },"
    yield "};"
