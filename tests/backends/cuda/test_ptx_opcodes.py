"""Every opcode of ptx_opcodes.py, on numbers of all sorts, against Python's own arithmetic.

Integers are Python's. Floats are NumPy's where it rounds them as the opcode does; else they are
fractions, rounded here. Each family of opcodes is one kernel, in which a thread has one line of
operands.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
from ptx_assembler import refusal
from ptx_on_host import COMPILER, Kernel
from ptx_opcodes import OPCODES

Array: TypeAlias = np.ndarray[Any, Any]
Function: TypeAlias = Callable[..., Any]

UNSIGNED = ("u16", "u32", "u64")
SIGNED = ("s16", "s32", "s64")
BITS = ("b16", "b32", "b64")
INTEGERS = ("u8", "s8", *UNSIGNED, *SIGNED)
DTYPES: dict[str, Any] = {"f32": np.float32, "f64": np.float64}


class Row(NamedTuple):
    opcode: str
    result: str
    operands: tuple[str, ...]
    expected: Function
    """The result of operands; None where it may be any."""


# ---- integers ----


def bits_of(kind: str) -> int:
    return int(kind[1:])


def bounds(kind: str) -> tuple[int, int]:
    """The least and the largest integer of a type."""
    bits = bits_of(kind)
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if kind[0] == "s" else (0, (1 << bits) - 1)


def wrapped(x: int, kind: str) -> int:
    """The integer of a type with the lowest bits of another."""
    low, _ = bounds(kind)
    return (x - low) % (1 << bits_of(kind)) + low


def clamped(x: int, kind: str) -> int:
    low, high = bounds(kind)
    return min(max(x, low), high)


def quotient(a: int, b: int) -> int:
    """Rounded towards zero; all ones where there is none, as PTX allows."""
    if b == 0:
        return -1
    return -(abs(a) // abs(b)) if (a < 0) != (b < 0) else a // b


def chosen(a: Any, b: Any, c: bool) -> Any:
    return a if c else b


LOGIC: dict[str, Function] = {"and": operator.and_, "or": operator.or_, "xor": operator.xor}


def integers() -> Iterator[Row]:
    plain: dict[str, Function] = {
        "add": operator.add,
        "sub": operator.sub,
        "mul.lo": operator.mul,
        "div": quotient,
        "rem": lambda a, b: a - b * quotient(a, b) if b else a,
        "min": min,
        "max": max,
    }
    for kind in (*UNSIGNED, *SIGNED):
        bits, twice = bits_of(kind), f"{kind[0]}{2 * bits_of(kind)}"
        for name, function in plain.items():
            yield Row(f"{name}.{kind}", kind, (kind, kind), function)
        yield Row(f"mul.hi.{kind}", kind, (kind, kind), lambda a, b, n=bits: a * b >> n)
        three = (kind, kind, kind)
        yield Row(f"mad.lo.{kind}", kind, three, lambda a, b, c: a * b + c)
        yield Row(f"mad.hi.{kind}", kind, three, lambda a, b, c, n=bits: (a * b >> n) + c)
        if bits < 64:
            yield Row(f"mul.wide.{kind}", twice, (kind, kind), operator.mul)
            yield Row(f"mad.wide.{kind}", twice, (kind, kind, twice), lambda a, b, c: a * b + c)
    for kind in SIGNED:
        yield Row(f"abs.{kind}", kind, (kind,), abs)
        yield Row(f"neg.{kind}", kind, (kind,), operator.neg)
    yield Row("cvta.global.u64", "u64", ("u64",), int)
    yield Row("cvta.to.global.u64", "u64", ("u64",), int)


def of_bits() -> Iterator[Row]:
    for kind in (*BITS, "pred"):
        for name, function in LOGIC.items():
            yield Row(f"{name}.{kind}", kind, (kind, kind), function)
        inverted = operator.not_ if kind == "pred" else operator.invert
        yield Row(f"not.{kind}", kind, (kind,), inverted)
    for kind in (*BITS, *UNSIGNED, *SIGNED):
        yield Row(f"shr.{kind}", kind, (kind, "u32"), operator.rshift)
    for kind in BITS:
        yield Row(f"shl.{kind}", kind, (kind, "u32"), lambda a, b: a << min(b, 64))
    for kind in (*BITS, *UNSIGNED, *SIGNED, *DTYPES):
        yield Row(f"selp.{kind}", kind, (kind, kind, "pred"), chosen)
    moves: dict[str, Function] = {"wrap": lambda c: c % 32, "clamp": lambda c: min(c, 32)}
    for name, move in moves.items():
        kinds = ("b32", "b32", "u32")
        left: Function = lambda a, b, c, f=move: (b << 32 | a) << f(c) >> 32  # noqa: E731
        right: Function = lambda a, b, c, f=move: (b << 32 | a) >> f(c)  # noqa: E731
        yield Row(f"shf.l.{name}.b32", "b32", kinds, left)
        yield Row(f"shf.r.{name}.b32", "b32", kinds, right)
    for kind in ("b32", "b64"):
        yield Row(f"popc.{kind}", "u32", (kind,), lambda a: bin(a).count("1"))
        yield Row(f"clz.{kind}", "u32", (kind,), lambda a, k=kind: bits_of(k) - a.bit_length())


# ---- floats ----


def fraction(x: Any) -> Fraction:
    return Fraction(x if isinstance(x, int) else float(x))


def lower(x: Fraction, dtype: Any) -> Any:
    """The largest float that is no larger."""
    largest = np.finfo(dtype).max
    if x > fraction(largest):
        return largest
    if x < -fraction(largest):
        return dtype(-np.inf)
    y = dtype(float(x))
    while np.isinf(y) or fraction(y) > x:
        y = np.nextafter(y, dtype(-np.inf))
    return y


def rounded(x: Fraction, dtype: Any, mode: str) -> Any:
    """A fraction as a float; None: as a zero, whose sign is another matter."""
    if x == 0:
        return None
    low, high = lower(x, dtype), -lower(-x, dtype)
    if mode != "rn":
        return {"rm": low, "rp": high, "rz": low if x > 0 else high}[mode]
    largest = np.finfo(dtype).max
    ulp = fraction(largest) - fraction(np.nextafter(largest, dtype(0)))
    below = x - (fraction(low) if np.isfinite(low) else fraction(high) - ulp)
    above = (fraction(high) if np.isfinite(high) else fraction(low) + ulp) - x
    if below == above:
        return low if int(low.view(f"u{low.itemsize}")) % 2 == 0 else high
    return low if below < above else high


def directed_sqrt(x: Any, dtype: Any, mode: str) -> Any:
    y = np.sqrt(x)
    if not y > 0 or np.isinf(y):
        return y
    if mode == "rp" and fraction(y) ** 2 < fraction(x):
        return np.nextafter(y, dtype(np.inf))
    if mode != "rp" and fraction(y) ** 2 > fraction(x):
        return np.nextafter(y, dtype(0))
    return y


def exactly(function: Function, plain: Function, dtype: Any, mode: str) -> Function:
    """A function of fractions, rounded; `plain` is for operands that are not finite, and 1 / 0."""

    def result(*operands: Any) -> Any:
        if all(map(np.isfinite, operands)):
            try:
                return rounded(function(*map(fraction, operands)), dtype, mode)
            except ZeroDivisionError:
                pass
        return plain(*operands)

    return result


def added_product(a: Any, b: Any, c: Any) -> Any:
    return a * b + c


def plain_fma(a: Any, b: Any, c: Any) -> Any:
    return c if np.isfinite(a) and np.isfinite(b) else a * b + c


def flushed(x: Any) -> Any:
    return np.copysign(np.float32(0), x) if abs(x) < np.float32(2.0**-126) else x


def with_ftz(row: Row) -> Row:
    """The form of an operation that knows no subnormal numbers."""

    def result(*operands: Any) -> Any:
        kinds = zip(operands, row.operands, strict=True)
        x = row.expected(*(flushed(each) if kind == "f32" else each for each, kind in kinds))
        return flushed(x) if row.result == "f32" and x is not None else x

    parts = row.opcode.split(".")
    at = parts.index("NaN") if "NaN" in parts else parts.index("f32")
    if "sat" in parts:
        at = parts.index("sat")
    elif parts[0] == "cvt":
        at = len(parts) - 2
    return row._replace(opcode=".".join([*parts[:at], "ftz", *parts[at:]]), expected=result)


def least_of(a: Any, b: Any) -> Any:
    """The smaller number; of zeros the negative one; what is a number, if one is not."""
    if np.isnan(a) or np.isnan(b):
        return b if np.isnan(a) else a
    return min(a, b, key=lambda x: (x, not np.signbit(x)))


def most_of(a: Any, b: Any) -> Any:
    return -least_of(-a, -b)


def coarse(x: Any) -> Any:
    """A float32 without its last bit."""
    return x if np.isnan(x) else (x.view(np.uint32) & np.uint32(0xFFFFFFFE)).view(np.float32)


def floats() -> Iterator[Row]:
    for kind, dtype in DTYPES.items():
        one = dtype(1)
        functions: dict[str, tuple[int, Function]] = {
            "add.rn": (2, operator.add),
            "add": (2, operator.add),
            "sub.rn": (2, operator.sub),
            "sub": (2, operator.sub),
            "mul.rn": (2, operator.mul),
            "mul": (2, operator.mul),
            "div.rn": (2, operator.truediv),
            "rcp.rn": (1, lambda a, one=one: one / a),
            "sqrt.rn": (1, np.sqrt),
            "fma.rn": (3, exactly(added_product, plain_fma, dtype, "rn")),
            "min": (2, least_of),
            "max": (2, most_of),
            "abs": (1, np.fabs),
            "neg": (1, operator.neg),
        }
        for name, (count, function) in functions.items():
            row = Row(f"{name}.{kind}", kind, (kind,) * count, function)
            yield row
            if kind == "f32":
                yield with_ftz(row)
        yield Row(f"copysign.{kind}", kind, (kind, kind), lambda a, b: np.copysign(b, a))


def approximations() -> Iterator[Row]:
    one, nan = np.float32(1), np.float32(np.nan)
    functions: dict[str, tuple[int, Function]] = {
        "div.approx": (2, lambda a, b: a * (one / b)),
        "div.full": (2, lambda a, b: a * (one / b)),
        "sqrt.approx": (1, lambda a: coarse(np.sqrt(a))),
        "rcp.approx": (1, lambda a: coarse(one / a)),
        "rsqrt.approx": (1, lambda a: coarse(one / np.sqrt(a))),
        "min.NaN": (2, lambda a, b: nan if a != a or b != b else least_of(a, b)),
        "max.NaN": (2, lambda a, b: nan if a != a or b != b else most_of(a, b)),
    }
    for name, (count, function) in functions.items():
        row = Row(f"{name}.f32", "f32", ("f32",) * count, function)
        yield row
        yield with_ftz(row)


def directed() -> Iterator[Row]:
    for (kind, dtype), mode in product(DTYPES.items(), ("rz", "rm", "rp")):
        functions: dict[str, tuple[int, Function, Function]] = {
            "add": (2, operator.add, operator.add),
            "sub": (2, operator.sub, operator.sub),
            "mul": (2, operator.mul, operator.mul),
            "div": (2, operator.truediv, operator.truediv),
            "rcp": (1, lambda a: 1 / a, lambda a, kind=dtype: kind(1) / a),
            "fma": (3, added_product, plain_fma),
        }
        rows = [
            Row(f"{name}.{mode}.{kind}", kind, (kind,) * count, exactly(exact, plain, dtype, mode))
            for name, (count, exact, plain) in functions.items()
        ]
        of_mode = partial(directed_sqrt, dtype=dtype, mode=mode)
        rows.append(Row(f"sqrt.{mode}.{kind}", kind, (kind,), of_mode))
        for row in rows:
            yield row
            if kind == "f32":
                yield with_ftz(row)


# ---- comparisons and conversions ----


def comparisons() -> Iterator[Row]:
    ordered: dict[str, Function] = {
        name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")
    }
    for kind in (*UNSIGNED, *SIGNED, *BITS, *DTYPES):
        known = dict(ordered)
        if kind in UNSIGNED:
            names = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
            known |= {name: ordered[other] for name, other in names.items()}
        elif kind in BITS:
            known = {name: ordered[name] for name in ("eq", "ne")}
        elif kind in DTYPES:
            known = {"num": lambda a, b: a == a and b == b, "nan": lambda a, b: a != a or b != b}
            for name, function in ordered.items():
                known[name] = lambda a, b, f=function: a == a and b == b and f(a, b)
                known[f"{name}u"] = lambda a, b, f=function: a != a or b != b or f(a, b)
        for name, function in known.items():
            rows = [Row(f"setp.{name}.{kind}", "pred", (kind, kind), function)]
            for combined, logic in LOGIC.items():
                both: Function = lambda a, b, c, f=function, g=logic: g(bool(f(a, b)), c)  # noqa: E731
                opcode = f"setp.{name}.{combined}.{kind}"
                rows.append(Row(opcode, "pred", (kind, kind, "pred"), both))
            for row in rows:
                yield row
                if kind == "f32":
                    yield with_ftz(row)


WHOLE: dict[str, Function] = {
    "rni": round,
    "rzi": math.trunc,
    "rmi": math.floor,
    "rpi": math.ceil,
}


def integer_of(x: Any, whole: Function, kind: str, source: str) -> int:
    if np.isnan(x):
        return 0 if source == "f32" and bits_of(kind) < 64 else 1 << (bits_of(kind) - 1)
    if np.isinf(x):
        return bounds(kind)[int(x > 0)]
    return clamped(whole(float(x)), kind)


def whole_float(x: Any, whole: Function) -> Any:
    return np.copysign(type(x)(whole(float(x))), x) if np.isfinite(x) else x


def saturated(x: Any) -> Any:
    return x if 0 < x < 1 else type(x)(x >= 1)


def of_integers() -> Iterator[Row]:
    for to, source in product(INTEGERS, INTEGERS):
        yield Row(f"cvt.{to}.{source}", to, (source,), int)
        if any(clamped(x, to) != x for x in bounds(source)):
            yield Row(f"cvt.sat.{to}.{source}", to, (source,), partial(clamped, kind=to))
    for (to, dtype), source in product(DTYPES.items(), INTEGERS):
        for mode in ("rn", "rz", "rm", "rp"):
            convert = partial(float_of, dtype=dtype, mode=mode)
            yield Row(f"cvt.{mode}.{to}.{source}", to, (source,), convert)


def float_of(x: int, dtype: Any, mode: str) -> Any:
    return rounded(Fraction(x), dtype, mode) if x else dtype(0)


def of_floats() -> Iterator[Row]:
    for source, to in product(DTYPES, INTEGERS):
        for name, whole in WHOLE.items():
            convert = partial(integer_of, whole=whole, kind=to, source=source)
            for saturating in ("", ".sat"):
                row = Row(f"cvt.{name}{saturating}.{to}.{source}", to, (source,), convert)
                yield row
                if source == "f32":
                    yield with_ftz(row)
    for kind, dtype in DTYPES.items():
        yield Row(f"cvt.{kind}.{kind}", kind, (kind,), dtype)
        yield Row(f"cvt.sat.{kind}.{kind}", kind, (kind,), saturated)
        for name, whole in WHOLE.items():
            yield Row(f"cvt.{name}.{kind}.{kind}", kind, (kind,), partial(whole_float, whole=whole))
    yield with_ftz(Row("cvt.f32.f32", "f32", ("f32",), np.float32))
    row = Row("cvt.f64.f32", "f64", ("f32",), np.float64)
    yield row
    yield with_ftz(row)
    for mode in ("rn", "rz", "rm", "rp"):
        narrow = exactly(lambda a: a, np.float32, np.float32, mode)
        of_mode = np.float32 if mode == "rn" else narrow
        row = Row(f"cvt.{mode}.f32.f64", "f32", ("f64",), of_mode)
        yield row
        yield with_ftz(row)


# ---- kernels of many rows ----

FAMILIES = [
    integers,
    of_bits,
    floats,
    approximations,
    directed,
    comparisons,
    of_integers,
    of_floats,
]

N = 512
"""Threads, and lines of operands."""


PAIRED = 16
"""So many edges, the first, meet each other."""


def edges(kind: str) -> list[Any]:
    """Values that an operation might get wrong."""
    if kind == "pred":
        return [True, False] * (PAIRED // 2)
    if kind in DTYPES:
        info = np.finfo(DTYPES[kind])
        first = [0.0, -0.0, 1.0, -1.0, np.nan, -np.nan, np.inf, -np.inf, info.max, -info.max]
        small = [info.tiny, -info.tiny / 2, info.smallest_subnormal, 1 + info.eps, 2.5, -0.5]
        whole = [1.5, -3.5, 255.5, -129.0, 4e4, 3e9, -3e9, 1e19, -1e19, 2e19, 2.0**31, 2.0**63]
        return [*np.array([*first, *small, *whole, 0.3, info.tiny / 3], DTYPES[kind])]
    low, high = bounds(kind)
    first = [0, 1, -1, 2, low, high, low + 1, high - 1, 15, 16, 31, 32, 33, 63, 64, -7]
    more = [
        17,
        65,
        127,
        128,
        -128,
        255,
        256,
        32768,
        2**24 + 1,
        2**53 + 1,
        2**63 + 1025,
        3,
        -(2**31),
    ]
    return [wrapped(x, kind) for x in (*first, *more)]


def values_of(kind: str, place: int) -> list[Any]:
    """The operands at a place: pairs of edges, other edges, and random numbers."""
    rng = np.random.default_rng(place)
    special, paired = edges(kind), PAIRED**2
    at = [(k // PAIRED**place if place < 2 else 5 * k + k // PAIRED) for k in range(paired)]
    values = [special[k % PAIRED] for k in at]
    values += [special[(k * (1, 7, 11)[place]) % len(special)] for k in range(N // 4)]
    count = N - len(values)
    if kind == "pred":
        return values + values[:count]
    if kind in DTYPES:
        scaled = rng.standard_normal(count) * 10.0 ** rng.integers(-12, 12, count)
        return [*values, *scaled.astype(DTYPES[kind])]
    bits = rng.integers(0, 2**64, count, np.uint64) >> rng.integers(0, 64, count, np.uint64)
    return [*values, *(wrapped(int(x), kind) for x in bits)]


def slots(values: list[Any], kind: str) -> Array:
    """Eight bytes for each of some values."""
    made = np.zeros(len(values), "u8")
    if kind in DTYPES:
        made.view(DTYPES[kind]).reshape(len(values), -1)[:, 0] = values
    else:
        made[...] = [int(x) % 2**64 for x in values]
    return made


REGISTERS = {"f32": ("f32", "%f"), "f64": ("f64", "%g"), "pred": ("pred", "%p")}


def register(kind: str, number: int) -> str:
    return f"{register_kind(kind)[1]}{number}"


def register_kind(kind: str) -> tuple[str, str]:
    """The type of the registers for a type, and how their names begin."""
    by_width = {8: ("b16", "%h"), 16: ("b16", "%h"), 32: ("b32", "%r"), 64: ("b64", "%d")}
    return REGISTERS.get(kind) or by_width[bits_of(kind)]


def kernel_of(rows: list[Row], inputs: list[tuple[str, int]]) -> str:
    """The PTX of a kernel in which each thread does every row, on a line of the inputs."""
    kinds = sorted({register_kind(k) for row in rows for k in (*row.operands, row.result)})
    lines = [f".reg .{kind} {name}<{4 * len(rows)}>;" for kind, name in kinds]
    for k, row in enumerate(rows):
        names = []
        for j, kind in enumerate(row.operands):
            names.append(register(kind, 4 * k + j))
            at = f"[%in+{8 * N * inputs.index((kind, j))}]"
            if kind == "pred":
                lines += [f"ld.global.u32 %flag, {at};", f"setp.ne.u32 {names[j]}, %flag, 0;"]
            else:
                lines.append(f"ld.global.{kind} {names[j]}, {at};")
        result, at = register(row.result, 4 * k + 3), f"[%out+{8 * N * k}]"
        lines.append(f"{row.opcode} {', '.join([result, *names])};")
        if row.result == "pred":
            lines += [f"selp.u32 %flag, 1, 0, {result};", f"st.global.u32 {at}, %flag;"]
        else:
            lines.append(f"st.global.{row.result} {at}, {result};")
    body = "\n    ".join(lines)
    return f"""\
.version 8.0
.target sm_90
.address_size 64
.visible .entry rows(
    .param .u64 inputs,
    .param .u64 outputs
)
{{
    .reg .b64 %in, %out, %at;
    .reg .b32 %thread, %flag;
    mov.u32 %thread, %tid.x;
    mul.wide.u32 %at, %thread, 8;
    ld.param.u64 %in, [inputs];
    add.s64 %in, %in, %at;
    ld.param.u64 %out, [outputs];
    add.s64 %out, %out, %at;
    {body}
    ret;
}}
"""


def differing(row: Row, operands: list[list[Any]], found: Array) -> list[str]:
    """The lines on which a row is not as it is expected."""
    wrong = []
    for k, given in enumerate(zip(*operands, strict=True)):
        expected = row.expected(*given)
        if expected is None:
            continue
        if row.result in DTYPES:
            dtype = DTYPES[row.result]
            got, wanted = found.view(dtype).reshape(N, -1)[k, 0], dtype(expected)
            same = got.tobytes() == wanted.tobytes() or (np.isnan(got) and np.isnan(wanted))
        else:
            bits = 1 if row.result == "pred" else bits_of(row.result)
            got, wanted = int(found[k]), int(expected) % 2**bits
            same = got == wanted
        if not same:
            wrong.append(f"{row.opcode} of {given} is {got!r}, not {wanted!r}")
    return wrong


@pytest.mark.skipif(COMPILER is None, reason="neither gcc nor clang")
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_opcodes(family: Callable[[], Iterator[Row]], tmp_path: Path) -> None:
    rows = [*family()]
    inputs = sorted({(kind, j) for row in rows for j, kind in enumerate(row.operands)})
    values = {each: values_of(*each) for each in inputs}
    given = np.stack([slots(values[each], each[0]) for each in inputs])
    found = np.zeros((len(rows), N), "u8")
    ptx = kernel_of(rows, inputs)
    assert refusal(ptx) is None
    kernel = Kernel(ptx, tmp_path)
    kernel.launch(1, N, [given.ctypes.data, found.ctypes.data], [given, found])
    with np.errstate(all="ignore"):
        wrong = [
            line
            for row, each in zip(rows, found, strict=True)
            for line in differing(
                row, [values[kind, j] for j, kind in enumerate(row.operands)], each
            )
        ]
    assert not wrong, wrong[:20]


def test_there_is_a_row_for_each_opcode() -> None:
    rows = [row for family in FAMILIES for row in family()]
    assert sorted(row.opcode for row in rows) == sorted(OPCODES)
