"""The opcodes of PTX that compute a value, each with the C expression of that value.

The names of PTX's types are types of C in ptx_run.h: u8 to u64, s8 to s64, b8 to b64, f32, f64,
and pred. An expression is over a, b, c and d, its operands, which may be written out several
times. Where PTX leaves a value to the machine it is any: x / 0 is all ones, and which NaN comes
out of arithmetic is the host's choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Opcode(NamedTuple):
    types: tuple[str, ...]
    """The type of the result and those of the operands."""
    expression: str
    second: str = ""
    """The other result, of those that may have two: d|p."""
    widens: bool = False
    """Whether registers may be wider than the types."""


UNSIGNED = ("u16", "u32", "u64")
SIGNED = ("s16", "s32", "s64")
INTEGERS = UNSIGNED + SIGNED
BITS = ("b16", "b32", "b64")
FLOATS = ("f32", "f64")
NARROW = ("u16", "u32", "s16", "s32")

ROWS: list[tuple[str, tuple[str, ...], str, str]] = [
    ("add.T", INTEGERS, "T T T", "a + b"),
    ("sub.T", INTEGERS, "T T T", "a - b"),
    ("mul.lo.T", INTEGERS, "T T T", "a * b"),
    ("mul.hi.T", INTEGERS, "T T T", "(TWICE)a * b >> WIDTH"),
    ("mul.wide.T", NARROW, "TWICE T T", "(TWICE)a * b"),
    ("mad.lo.T", INTEGERS, "T T T T", "a * b + c"),
    ("mad.hi.T", INTEGERS, "T T T T", "((TWICE)a * b >> WIDTH) + c"),
    ("mad.wide.T", NARROW, "TWICE T T TWICE", "(TWICE)a * b + c"),
    ("div.T", UNSIGNED, "T T T", "b ? a / b : (T)-1"),
    ("div.T", SIGNED, "T T T", "b == 0 ? -1 : b == -1 ? -a : a / b"),
    ("rem.T", UNSIGNED, "T T T", "b ? a % b : a"),
    ("rem.T", SIGNED, "T T T", "b == 0 ? a : b == -1 ? 0 : a % b"),
    ("min.T", INTEGERS, "T T T", "a < b ? a : b"),
    ("max.T", INTEGERS, "T T T", "a > b ? a : b"),
    ("abs.T", SIGNED, "T T", "a < 0 ? -a : a"),
    ("neg.T", SIGNED, "T T", "-a"),
    ("and.T", (*BITS, "pred"), "T T T", "a & b"),
    ("or.T", (*BITS, "pred"), "T T T", "a | b"),
    ("xor.T", (*BITS, "pred"), "T T T", "a ^ b"),
    ("not.T", BITS, "T T", "~a"),
    ("not.T", ("pred",), "T T", "!a"),
    ("shl.T", BITS, "T T u32", "b < WIDTH ? a << b : 0"),
    ("shr.T", (*UNSIGNED, *BITS), "T T u32", "b < WIDTH ? a >> b : 0"),
    ("shr.T", SIGNED, "T T u32", "a >> (b < WIDTH ? b : WIDTH - 1)"),
    ("shf.l.wrap.T", ("b32",), "T T T u32", "((u64)b << 32 | a) << (c & 31) >> 32"),
    ("shf.r.wrap.T", ("b32",), "T T T u32", "((u64)b << 32 | a) >> (c & 31)"),
    ("shf.l.clamp.T", ("b32",), "T T T u32", "((u64)b << 32 | a) << (c < 32 ? c : 32) >> 32"),
    ("shf.r.clamp.T", ("b32",), "T T T u32", "((u64)b << 32 | a) >> (c < 32 ? c : 32)"),
    ("popc.T", ("b32", "b64"), "u32 T", "__builtin_popcountll(a)"),
    ("clz.T", ("b32", "b64"), "u32 T", "a ? __builtin_clzll(a) - (64 - WIDTH) : WIDTH"),
    ("selp.T", (*INTEGERS, *BITS, *FLOATS), "T T T pred", "c ? a : b"),
    ("cvta.global.T", ("u64",), "T T", "a"),
    ("cvta.to.global.T", ("u64",), "T T", "a"),
    ("abs.T", FLOATS, "T T", "fabs_T(a)"),
    ("neg.T", FLOATS, "T T", "-a"),
    ("copysign.T", FLOATS, "T T T", "copysign_T(b, a)"),
    ("min.T", FLOATS, "T T T", "min_T(a, b)"),
    ("max.T", FLOATS, "T T T", "max_T(a, b)"),
    ("min.NaN.T", ("f32",), "T T T", "a != a || b != b ? NAN : min_T(a, b)"),
    ("max.NaN.T", ("f32",), "T T T", "a != a || b != b ? NAN : max_T(a, b)"),
    ("div.approx.T", ("f32",), "T T T", "a * (1 / b)"),
    ("div.full.T", ("f32",), "T T T", "a * (1 / b)"),
    ("sqrt.approx.T", ("f32",), "T T", "coarse(sqrt_T(a))"),
    ("rcp.approx.T", ("f32",), "T T", "coarse(1 / a)"),
    ("rsqrt.approx.T", ("f32",), "T T", "coarse(1 / sqrt_T(a))"),
]
"""Opcodes, the types that T is, types of the result and the operands, and the expression.

TWICE is the type of twice the width. Those of f32 have a form with .ftz besides.
"""

ARITHMETIC = {
    "add": ("T T T", "a + b"),
    "sub": ("T T T", "a - b"),
    "mul": ("T T T", "a * b"),
    "div": ("T T T", "a / b"),
    "rcp": ("T T", "1 / a"),
    "sqrt": ("T T", "sqrt_T(a)"),
    "fma": ("T T T T", "fma_T(a, b, c)"),
}
"""Operations that are rounded: types of the result and the operands, and the expression."""

NEAREST_UNLESS_NAMED = ("add", "sub", "mul")
"""Operations that need not say how they are rounded."""

DIRECTIONS = {"rz": "FE_TOWARDZERO", "rm": "FE_DOWNWARD", "rp": "FE_UPWARD"}

WHOLE = {"rni": "nearbyint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}
"""How floats are made whole, and C's function for that."""

COMPARED = {
    "eq": "a == b",
    "ne": "a != b",
    "lt": "a < b",
    "le": "a <= b",
    "gt": "a > b",
    "ge": "a >= b",
}

UNSIGNED_NAMES = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
"""Comparisons of unsigned integers by their other names."""

FLOATS_COMPARED = {
    **COMPARED,
    "ne": "(a < b || a > b)",
    "equ": "!(a < b || a > b)",
    "neu": "a != b",
    "ltu": "!(a >= b)",
    "leu": "!(a > b)",
    "gtu": "!(a <= b)",
    "geu": "!(a < b)",
    "num": "(a == a && b == b)",
    "nan": "(a != a || b != b)",
}

COMBINED = {"and": "&", "or": "|", "xor": "^"}


def width(kind: str) -> int:
    """The bits of a type; 1 of a predicate."""
    return 1 if kind == "pred" else int(kind[1:])


def _named(text: str, kind: str) -> str:
    """A text of the rows for one type in place of T."""
    twice = f"{kind[0]}{2 * width(kind)}"
    text = re.sub(r"(?<![^\W_])T\b", kind, text)
    return text.replace("TWICE", twice).replace("WIDTH", str(width(kind)))


def _over(expression: str, *texts: str) -> str:
    """The expression with texts in place of a, b and so on."""
    return re.sub(r"\b([abcd])\b", lambda found: texts["abcd".index(found[1])], expression)


def _flushed(expression: str) -> str:
    return _over(expression, *(f"flushed({x})" for x in "abcd"))


def _directed(mode: str, result: str, operand: str, expression: str, *operands: str) -> str:
    given = ", ".join([*operands, "0", "0"][:3])
    return f"DIRECTED({mode}, {result}, {operand}, {_over(expression, *'xyz')}, {given})"


def _rows() -> Iterator[tuple[str, Opcode]]:
    for pattern, kinds, types, expression in ROWS:
        for kind in kinds:
            name = _named(pattern, kind)
            opcode = Opcode(tuple(_named(types, kind).split()), _named(expression, kind))
            yield name, opcode
            if kind == "f32" and not name.startswith(("selp", "copysign")):
                ftz = name.replace(".NaN", "").replace(".f32", ".ftz.f32")
                ftz = ftz.replace(".ftz", ".ftz.NaN") if ".NaN" in name else ftz
                yield ftz, opcode._replace(expression=f"flushed({_flushed(opcode.expression)})")


def _arithmetic() -> Iterator[tuple[str, Opcode]]:
    for name, (types, pattern) in ARITHMETIC.items():
        for kind in FLOATS:
            kinds, expression = tuple(_named(types, kind).split()), _named(pattern, kind)
            operands = "abc"[: len(kinds) - 1]
            values = {f"{name}.rn": expression}
            if name in NEAREST_UNLESS_NAMED:
                values[name] = expression
            values |= {
                f"{name}.{rounding}": _directed(mode, kind, kind, expression, *operands)
                for rounding, mode in DIRECTIONS.items()
            }
            for each, value in values.items():
                yield f"{each}.{kind}", Opcode(kinds, value)
                if kind == "f32":
                    yield f"{each}.ftz.f32", Opcode(kinds, f"flushed({_flushed(value)})")


def _comparisons() -> Iterator[tuple[str, Opcode]]:
    for kind in (*INTEGERS, *BITS, *FLOATS):
        compared = FLOATS_COMPARED if kind in FLOATS else COMPARED
        if kind in UNSIGNED:
            compared = COMPARED | {name: COMPARED[other] for name, other in UNSIGNED_NAMES.items()}
        elif kind in BITS:
            compared = {name: COMPARED[name] for name in ("eq", "ne")}
        for name, plain in compared.items():
            for flush in ("", ".ftz") if kind == "f32" else ("",):
                value = _flushed(plain) if flush else plain
                types = ("pred", kind, kind)
                yield f"setp.{name}{flush}.{kind}", Opcode(types, value, f"!({value})")
                for combined, sign in COMBINED.items():
                    yield (
                        f"setp.{name}.{combined}{flush}.{kind}",
                        Opcode((*types, "pred"), f"({value}) {sign} c", f"!({value}) {sign} c"),
                    )


def _bounds(kind: str) -> tuple[str, str]:
    """The least and the largest integer of a type, in C."""
    bits = width(kind)
    return (f"INT{bits}_MIN", f"INT{bits}_MAX") if kind[0] == "s" else ("0", f"UINT{bits}_MAX")


def _holds(to: str, source: str) -> bool:
    """Whether a type has all of another's integers."""
    if to[0] == source[0]:
        return width(to) >= width(source)
    return source[0] == "u" and width(to) > width(source)


def _conversions() -> Iterator[tuple[str, Opcode]]:
    integers = ("u8", "s8", *INTEGERS)
    for to in integers:
        least, most = _bounds(to)
        for source in integers:
            types = (to, source)
            yield f"cvt.{to}.{source}", Opcode(types, "a", widens=True)
            clamped = f"(s128)a < {least} ? {least} : (s128)a > {most} ? {most} : a"
            if not _holds(to, source):
                yield f"cvt.sat.{to}.{source}", Opcode(types, clamped, widens=True)
        for source in FLOATS:
            bound = f"0x1p{width(to) - (to[0] == 's')}"
            zero = source == "f32" and width(to) < 64
            of_nan = "0" if zero else f"1ull << {width(to) - 1}"
            for rounding, whole in WHOLE.items():
                for flush in ("", ".ftz") if source == "f32" else ("",):
                    given = "flushed(a)" if flush else "a"
                    value = f"INTEGER({to}, {whole}({given}), {least}, {most}, {bound}, {of_nan})"
                    opcode = Opcode((to, source), value, widens=True)
                    yield f"cvt.{rounding}{flush}.{to}.{source}", opcode
                    yield f"cvt.{rounding}{flush}.sat.{to}.{source}", opcode
    for to in FLOATS:
        for source in integers:
            yield f"cvt.rn.{to}.{source}", Opcode((to, source), f"({to})a", widens=True)
            for rounding, mode in DIRECTIONS.items():
                # Zero has the same sign in all directions, which not every compiler knows.
                value = f"a ? {_directed(mode, to, source, f'({to})a', 'a')} : 0"
                yield f"cvt.{rounding}.{to}.{source}", Opcode((to, source), value, widens=True)
        yield f"cvt.{to}.{to}", Opcode((to, to), "a")
        yield f"cvt.sat.{to}.{to}", Opcode((to, to), f"saturated_{to}(a)")
        for rounding, whole in WHOLE.items():
            yield f"cvt.{rounding}.{to}.{to}", Opcode((to, to), f"{whole}(a)")
    yield "cvt.f64.f32", Opcode(("f64", "f32"), "a")
    yield "cvt.ftz.f64.f32", Opcode(("f64", "f32"), "flushed(a)")
    yield "cvt.ftz.f32.f32", Opcode(("f32", "f32"), "flushed(a)")
    for rounding, value in {
        "rn": "(f32)a",
        **{name: _directed(mode, "f32", "f64", "(f32)a", "a") for name, mode in DIRECTIONS.items()},
    }.items():
        yield f"cvt.{rounding}.f32.f64", Opcode(("f32", "f64"), value)
        yield f"cvt.{rounding}.ftz.f32.f64", Opcode(("f32", "f64"), f"flushed({value})")


OPCODES = {
    name: opcode
    for rows in (_rows(), _arithmetic(), _comparisons(), _conversions())
    for name, opcode in rows
}
"""Every opcode that computes a value, by its whole name."""
