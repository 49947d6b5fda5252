"""PTX translated to C: memory, threads that wait for one another, and all that ends a launch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
from ptx_assembler import refusal
from ptx_in_c import translate
from ptx_on_host import COMPILER, Kernel, LaunchError
from ptx_source import PtxError

Array: TypeAlias = np.ndarray[Any, Any]

needs_a_compiler = pytest.mark.skipif(COMPILER is None, reason="neither gcc nor clang")

DECLARED = """\
.reg .pred %p<8>;
.reg .b16 %h<8>;
.reg .b32 %r<16>;
.reg .b64 %d<16>;
.reg .f32 %f<8>;
.reg .f64 %g<8>;
"""


def module(body: str, parameters: str = ".u64 in, .u64 out", before: str = "") -> str:
    """A module, whose kernel has the registers of DECLARED and some parameters."""
    listed = ",\n".join(f".param {each}" for each in parameters.split(", "))
    header = f".version 8.0\n.target sm_90\n.address_size 64\n{before}"
    return f"{header}\n.visible .entry kernel(\n{listed}\n)\n{{\n{DECLARED}{body}\nret;\n}}\n"


BEGINNING = """\
ld.param.u64 %d0, [in];
ld.param.u64 %d1, [out];
mov.u32 %r0, %tid.x;
mul.wide.u32 %d2, %r0, 4;
add.s64 %d3, %d0, %d2;  // the thread's word of the input
add.s64 %d4, %d1, %d2;  // and of the output
"""


def built(ptx: str, folder: Path, flags: Sequence[str] = ()) -> Kernel:
    """A kernel, which NVIDIA's assembler knows as well."""
    assert refusal(ptx) is None
    return Kernel(ptx, folder, flags)


def at(array: Array, offset: int = 0) -> int:
    return int(array.ctypes.data) + offset


def aligned(count: int, dtype: Any, offset: int = 0) -> Array:
    """Zeros that begin so many bytes behind a multiple of 64."""
    size = count * np.dtype(dtype).itemsize
    room = np.zeros(size + 64 + offset, "u1")
    start = -at(room) % 64 + offset
    return room[start : start + size].view(dtype)


# ---- values ----

GIVEN = 0x11223344556677F8
"""The value of %d2, and the input."""

VALUES = [
    # Into wider registers with the sign or zeros, and out of them what is asked for.
    ("ld.global.s8 %d3, [%d0];", "u64", "%d3", 2**64 - 8),
    ("ld.global.u8 %d3, [%d0];", "u64", "%d3", 0xF8),
    ("ld.global.b8 %r1, [%d0];", "u32", "%r1", 0xF8),
    ("ld.global.s16 %r1, [%d0+0];", "u32", "%r1", 0x77F8),
    ("ld.volatile.global.s32 %d3, [%d0+4];", "s64", "%d3", 0x11223344),
    ("ld.global.nc.L1::no_allocate.L2::128B.b64 %d3, [%d0];", "u64", "%d3", GIVEN),
    ("ld.param.u32 %r1, [numbers+4];", "u32", "%r1", 5),
    ("ld.param.v2.u32 {%r2, %r1}, [numbers+0];", "u32", "%r2", 4),
    ("ld.param.f32 %f1, [real];", "f32", "%f1", 1.5),
    ("", "u8", "%d2", 0xF8),
    ("", "b16", "%d2", 0x77F8),
    ("cvt.s8.s32 %r1, 200;", "s32", "%r1", 200 - 256),
    ("cvt.u8.s32 %r1, -1;", "u32", "%r1", 255),
    ("cvt.u32.u8 %r1, %d2;", "u32", "%r1", 0xF8),
    ("cvt.s64.s32 %d3, -2147483648;", "s64", "%d3", -(2**31)),
    # Bits of floats, those of a NaN, too.
    ("mov.b32 %f1, 0x7fa00001; mov.f32 %f2, %f1; mov.b32 %r1, %f2;", "u32", "%r1", 0x7FA00001),
    ("mov.b32 %f1, 0xffa00001; abs.f32 %f1, %f1;", "b32", "%f1", 0x7FA00001),
    ("mov.b32 %f1, 0x7fa00001; neg.f32 %f1, %f1;", "b32", "%f1", 0xFFA00001),
    ("mov.f32 %f1, 0fBF800000;", "f32", "%f1", -1.0),
    ("mov.b32 %r1, 0fBF800000;", "u32", "%r1", 0xBF800000),
    ("mov.f64 %g1, 0dC000000000000000; neg.f64 %g1, %g1;", "f64", "%g1", 2.0),
    ("mov.b32 %r1, 0f40400000; add.rn.f32 %r1, %r1, 0f3F800000;", "f32", "%r1", 4.0),
    ("setp.eq.s32 %p1, 0, 0; selp.b32 %f1, 0x3f800000, 0, %p1;", "f32", "%f1", 1.0),
    # Vectors and what they are packed in.
    ("mov.b64 {%r1, %r2}, %d2;", "u32", "%r2", 0x11223344),
    ("mov.b64 {%r1, _}, %d2;", "u32", "%r1", 0x556677F8),
    ("mov.b64 {%h0, %h1, %h2, %h3}, %d2;", "u16", "%h2", 0x3344),
    ("mov.b64 {%f1, %f2}, %d2; mov.b64 %d3, {%f2, %f1};", "u64", "%d3", 0x556677F811223344),
    ("mov.b32 {%h0, %h1}, 0x12345678; mov.b32 %r1, {%h1, %h0};", "u32", "%r1", 0x56781234),
    # Predicates, and what they guard.
    ("setp.lt.s32 %p1|%p2, -1, 1; selp.u32 %r1, 2, 3, %p1;", "u32", "%r1", 2),
    ("selp.u32 %r1, 2, 3, %p2;", "u32", "%r1", 3),
    ("setp.lt.and.u32 %p2|%p3, -1, 1, !%p2; selp.u32 %r1, 2, 3, %p2;", "u32", "%r1", 3),
    ("selp.u32 %r1, 2, 3, %p3;", "u32", "%r1", 2),
    ("mov.pred %p1, 0; mov.pred %p2, -1; mov.u32 %r1, 7;", "u32", "%r1", 7),
    ("@%p1 mov.u32 %r1, 8; @!%p2 mov.u32 %r1, 9;", "u32", "%r1", 7),
    ("@!%p1 mov.u32 %r1, 8;", "u32", "%r1", 8),
    ("@%p2 bra $over; mov.u32 %r1, 9; $over:", "u32", "%r1", 8),
    (
        "mov.u32 %r2, 0; $up: add.u32 %r2, %r2, 3; setp.lt.u32 %p1, %r2, 10; @%p1 bra $up;",
        *("u32", "%r2", 12),
    ),
    ("{ .reg .b32 %r1, own; mov.u32 %r1, 12; mov.u32 own, 1; }", "u32", "%r1", 8),
    ("add.s32 %r1, %r1, %r1;", "u32", "%r1", 16),
    # Special registers.
    ("mov.u32 %r1, %tid.x;", "u32", "%r1", 0),
    ("mov.u32 %r1, %ntid.x;", "u32", "%r1", 1),
    ("mov.u32 %r1, %nctaid.x;", "u32", "%r1", 1),
    ("cvt.u64.u32 %d3, %ntid.z;", "u64", "%d3", 1),
    ("mov.u32 %r1, %ctaid.y;", "u32", "%r1", 0),
    ("mul.wide.s32 %d3, %r1, -0x10; bra.uni $end; trap; $end:", "s64", "%d3", 0),
    # What does nothing here.
    ("prefetch.global.L2 [%d0+1000000]; prefetch.global.L1 [%d0];", "u32", "%r1", 0),
    ('membar.gl; fence.acq_rel.gpu; .pragma "nounroll";', "u32", "%r1", 0),
]
"""Code, then a register that is stored, as what type, and the value that is expected there."""


@needs_a_compiler
def test_values(tmp_path: Path) -> None:
    lines = "ld.param.u64 %d0, [in];\nld.param.u64 %d1, [out];\nld.global.u64 %d2, [%d0];\n"
    for k, (code, kind, register, _) in enumerate(VALUES):
        lines += f"{code}\nst.global.{kind} [%d1+{8 * k}], {register};\n"
    parameters = ".u64 in, .u64 .ptr .global .align 8 out, .f32 real, .align 4 .b8 numbers[8]"
    kernel = built(module(lines, parameters), tmp_path, ["-Wall", "-Wextra", "-Werror"])
    given, found = np.array([GIVEN]), np.zeros(len(VALUES), "u8")
    numbers = np.array([4, 5], "i4").view("i8")[0]
    kernel.launch(1, 1, [at(given), at(found), np.float32(1.5), numbers], [given, found])
    for (code, kind, register, expected), each in zip(VALUES, found, strict=True):
        dtype = np.dtype({"s": "i", "b": "u"}.get(kind[0], kind[0]) + f"{int(kind[1:]) // 8}")
        assert each.tobytes()[: dtype.itemsize] == dtype.type(expected).tobytes(), (code, register)


COPIED = [
    (f"{vector}{kind}", kind, count)
    for kind in ("b8", "u16", "s32", "b64", "f32", "f64")
    for vector, count in (("", 1), ("v2.", 2), ("v4.", 4))
    if int(kind[1:]) * count <= 128
]


@needs_a_compiler
def test_every_width_is_copied(tmp_path: Path) -> None:
    """By way of global and of shared memory, one thread for each 16 bytes."""
    names = {"b8": "%h", "u16": "%h", "s32": "%r", "b64": "%d1", "f32": "%f", "f64": "%g"}
    lines = BEGINNING.replace("%r0, 4", "%r0, 16")
    for k, (opcode, kind, count) in enumerate(COPIED):
        listed = ", ".join(f"{names[kind]}{j}" for j in range(count))
        values = f"{{{listed}}}" if count > 1 else listed
        lines += f"ld.global.{opcode} {values}, [%d3+{256 * k}];\n"
        lines += f"mov.u64 %d5, room; add.s64 %d5, %d5, %d2; st.shared.{opcode} [%d5], {values};\n"
        lines += f"ld.volatile.shared.{opcode} {values}, [%d5];\n"
        lines += f"st.global.{opcode} [%d4+{256 * k}], {values};\n"
    kernel = built(module(lines, before=".shared .align 16 .b8 room[256];"), tmp_path)
    rng = np.random.default_rng(0)
    given = aligned(256 * len(COPIED), "u1").reshape(-1, 16, 16)
    given[...] = rng.integers(0, 256, given.shape)
    found = aligned(given.size, "u1").reshape(given.shape)
    kernel.launch(1, 16, [at(given), at(found)], [given, found])
    for (opcode, kind, count), before, after in zip(COPIED, given, found, strict=True):
        size = int(kind[1:]) // 8 * count
        assert (before[:, :size] == after[:, :size]).all(), opcode
        assert not after[:, size:].any(), opcode


# ---- threads ----

SUMMED = """\
// Each thread leaves its number, and then the neighbour's times the block's is stored.
mov.u64 %d5, room;
add.s64 %d6, %d5, %d2;
st.shared.u32 [%d6], %r0;
bar.sync 0;
mov.u32 %r1, %ntid.x;
add.u32 %r2, %r0, 1;
rem.u32 %r2, %r2, %r1;
mul.wide.u32 %d6, %r2, 4;
add.s64 %d6, %d5, %d6;
ld.shared.u32 %r3, [%d6];
mov.u32 %r4, %ctaid.x;
mad.lo.u32 %r5, %r4, %r1, %r0;
mul.wide.u32 %d6, %r5, 4;
add.s64 %d6, %d1, %d6;
mul.lo.u32 %r3, %r3, %r4;
barrier.sync 0;
// What was read may be written once all have read it.
mov.u64 %d5, room;
add.s64 %d5, %d5, %d2;
st.shared.u32 [%d5], %r3;
ld.shared.u32 %r3, [%d5];
st.global.u32 [%d6], %r3;
"""


@needs_a_compiler
def test_threads_meet_at_barriers(tmp_path: Path) -> None:
    """Whatever the order of the threads and of the blocks."""
    room = ".shared .align 4 .b8 room[400];"
    kernel = built(module(BEGINNING + SUMMED, before=room), tmp_path)
    thread = np.arange(100)
    for seed in range(5):
        found = np.zeros((7, 100), "i4")
        kernel.launch(7, 100, [at(found), at(found)], [found], seed)
        assert (found == np.arange(7)[:, None] * ((thread + 1) % 100)).all()


KEPT = """\
ld.global.u32 %r1, [%d3];
setp.gt.u32 %p1, %r1, 50;
cvt.rn.f64.u32 %g1, %r1;
cvt.rn.f32.u32 %f1, %r1;
cvt.u16.u32 %h1, %r1;
setp.gt.u32 %p3, %r1, 1000;
mov.u32 %r2, 0;
$up:
bar.sync 0;
add.rn.f64 %g1, %g1, %g1;
add.u32 %r2, %r2, 1;
setp.lt.u32 %p2, %r2, 3;
@%p2 bra $up;
// What is needed behind a return that no thread takes is kept as well.
@%p3 ret;
@%p1 add.rn.f32 %f1, %f1, 0f3F000000;
cvt.f64.f32 %g2, %f1;
add.rn.f64 %g1, %g1, %g2;
cvt.rn.f64.u16 %g2, %h1;
add.rn.f64 %g1, %g1, %g2;
add.s64 %d4, %d4, %d2;
st.global.f64 [%d4], %g1;
"""


@needs_a_compiler
def test_registers_are_kept_while_a_thread_waits(tmp_path: Path) -> None:
    kernel = built(module(BEGINNING + KEPT), tmp_path)
    given = np.arange(100, dtype="i4")
    found = np.zeros(100)
    kernel.launch(1, 100, [at(given), at(found)], [given, found])
    assert (found == 10 * given + np.where(given > 50, 0.5, 0)).all()


LAST = """\
mov.u32 %r1, %ctaid.x;
mov.u32 %r2, %ntid.x;
mad.lo.u32 %r1, %r1, %r2, %r0;
st.global.u32 [%d1], %r1;
"""


@needs_a_compiler
def test_the_seed_decides_on_the_order(tmp_path: Path) -> None:
    """Each thread writes the same word: the last one is of any block, and any in it."""
    kernel = built(module(BEGINNING + LAST), tmp_path)
    found = np.zeros(1, "i4")

    def last(seed: int) -> int:
        kernel.launch(4, 8, [0, at(found)], [found], seed, 0)
        return int(found[0])

    seen = [last(seed) for seed in range(300)]
    assert seen == [last(seed) for seed in range(300)]
    assert {*seen} == {*range(32)}
    with pytest.raises(LaunchError, match=r"a race at .*: it writes what .* wrote"):
        kernel.launch(4, 8, [0, at(found)], [found])


def shuffled(mode: str, values: Array, b: int, clamp: int) -> tuple[Array, Array]:
    """The values that lanes get from one another, as the manual of PTX defines them."""
    result, found = values.copy(), np.zeros(len(values), "i4")
    for lane in range(32):
        segment, limit = clamp >> 8, clamp & 31
        first = lane & segment
        last = first | (limit & ~segment)
        source = {"up": lane - b, "down": lane + b, "bfly": lane ^ b}.get(mode)
        if source is None:
            source = first | (b & ~segment & 31)
        within = source >= last if mode == "up" else source <= last
        found[lane] = within
        result[lane] = values[source if within else lane]
    return result, found


EXCHANGES = [
    (mode, b, clamp)
    for mode, clamps in {
        "up": (0, 0x1800),
        "down": (31, 0x181F),
        "bfly": (31,),
        "idx": (31, 0x101F),
    }.items()
    for clamp in clamps
    for b in (1, 5, 16)
]


@needs_a_compiler
def test_lanes_exchange_values(tmp_path: Path) -> None:
    lines = BEGINNING + "ld.global.u32 %r1, [%d3];\n"
    for k, (mode, b, clamp) in enumerate(EXCHANGES):
        lines += f"shfl.sync.{mode}.b32 %r2|%p1, %r1, {b}, {clamp}, -1;\n"
        lines += "selp.u32 %r3, 1, 0, %p1;\n"
        lines += f"st.global.u32 [%d4+{512 * k}], %r2;\nst.global.u32 [%d4+{512 * k + 256}], %r3;\n"
    kernel = built(module(lines), tmp_path)
    given = np.random.default_rng(0).integers(0, 2**31, 64).astype("i4")
    found = np.zeros((len(EXCHANGES), 2, 2, 32), "i4")
    kernel.launch(1, 64, [at(given), at(found)], [given, found])
    for each, (values, within) in zip(EXCHANGES, found, strict=True):
        for warp in range(2):
            expected, inside = shuffled(each[0], given[32 * warp : 32 * warp + 32], *each[1:])
            assert (values[warp] == expected).all(), each
            assert (within[warp] == inside).all(), each


# ---- what ends a launch ----

ACCESSED = """\
ld.param.u64 %d0, [in];
ld.param.u64 %d1, [out];
ld.param.u64 %d2, [which];
setp.eq.u64 %p0, %d2, 0;
setp.eq.u64 %p1, %d2, 1;
setp.eq.u64 %p2, %d2, 2;
setp.eq.u64 %p3, %d2, 3;
@%p0 ld.global.u8 %h0, [%d0];
@%p1 st.global.f32 [%d0], 0f00000000;
@%p2 ld.global.v4.f32 {%f0, %f1, %f2, %f3}, [%d0];
@%p3 st.global.v2.f64 [%d0], {%g1, %g1};
"""


@needs_a_compiler
def test_accesses_are_inside_of_one_allocation(tmp_path: Path) -> None:
    """Allocations side by side and with a gap; the widths are those of ACCESSED."""
    kernel = built(module(ACCESSED, ".u64 in, .u64 out, .u64 which"), tmp_path)
    memory = aligned(40, "f4")
    whole = at(memory)
    allocations = [memory[:8], memory[8:20], memory[24:32]]
    edges = [(each.ctypes.data - whole, each.nbytes) for each in allocations]
    for which, width in enumerate((1, 4, 16, 16)):
        for offset in range(-32, 160):
            given = [whole + offset, 0, which]
            inside = any(low <= offset <= low + size - width for low, size in edges)
            if inside and offset % width == 0:
                kernel.launch(1, 1, given, allocations)
                continue
            with pytest.raises(LaunchError) as raised:
                kernel.launch(1, 1, given, allocations)
            number = hex(whole + offset)
            expected = rf"kernel, line {24 + which} \(@%p.*\), block 0, thread 0: .*{number}"
            assert re.match(expected, str(raised.value))
            assert ("no multiple" in str(raised.value)) == (offset % width != 0)
    memory.flags.writeable = False
    kernel.launch(1, 1, [whole, 0, 2], [memory])
    with pytest.raises(LaunchError, match=r"0x.* is read only"):
        kernel.launch(1, 1, [whole, 0, 3], [memory])


class Wrong(NamedTuple):
    """A kernel of two warps and two blocks that ends with a message."""

    name: str
    code: str
    message: str


ROOM = ".shared .align 8 .b8 room[260];\n.shared .align 4 .b8 other[16];"

OWN = "mov.u64 %d5, room; add.s64 %d5, %d5, %d2; setp.lt.u32 %p1, %r0, 32;"
"""The address of a thread's own word in shared memory, and whether it is of the first warp."""

WRONG = [
    Wrong(
        "a thread reads what another writes",
        "ld.global.u32 %r1, [%d1]; setp.eq.u32 %p1, %r0, 9; @%p1 st.global.u8 [%d1+3], 1;",
        "a race at 0x.*: it (reads what thread 9 wrote|writes what several threads read)",
    ),
    Wrong(
        "two threads write halves that overlap",
        "st.global.u16 [%d4], 1; add.s64 %d4, %d4, -2; setp.gt.u32 %p1, %r0, 9;"
        "mov.u32 %r1, %ctaid.x; setp.eq.and.u32 %p1, %r1, 0, %p1; @%p1 st.global.u32 [%d4], 1;",
        "a race at|no multiple",
    ),
    Wrong(
        "a thread writes what it reads as a constant",
        "ld.global.nc.u32 %r1, [%d4]; st.global.u32 [%d4], %r1;",
        "a race at 0x.*: it writes what is read as a constant",
    ),
    Wrong(
        "a word of shared memory is read before it is written",
        f"{OWN} @%p1 st.shared.u32 [%d5], 1; bar.sync 0; ld.shared.u32 %r1, [%d5];",
        "0x.* has not been written",
    ),
    Wrong(
        "a neighbour's word of shared memory is read too early",
        f"{OWN} st.shared.u32 [%d5], 1; bar.sync 0; st.shared.u32 [%d5], 2;"
        "xor.b64 %d5, %d5, 4; ld.shared.u8 %h1, [%d5+3];",
        "a race at .*: it (reads what thread .* wrote|writes what thread .* read)",
    ),
    Wrong(
        "shared memory of the block before",
        f"{OWN} mov.u32 %r1, %ctaid.x; setp.eq.u32 %p2, %r1, 1; @%p2 st.shared.u32 [%d5], 1;"
        "ld.shared.u32 %r1, [%d5];",
        "block 0, .* has not been written",
    ),
    Wrong(
        "beyond the end of an array",
        f"{OWN} st.shared.u32 [%d5+8], 1;",
        r"thread 63: 4 bytes at 260 are not inside of the 260 of room",
    ),
    Wrong("ahead of an array", "st.shared.u32 [other+-4], 1;", "4 bytes at -4 .* 16 of other"),
    Wrong("in no array", "mov.u64 %d5, 1234567892; st.shared.u32 [%d5], 1;", "in no shared array"),
    Wrong(
        "better aligned than the array",
        "st.shared.v2.u32 [other], {%r1, %r1};",
        "0x.* is no multiple of 8",
    ),
    Wrong(
        "a barrier that a warp has left out",
        f"{OWN} @%p1 bar.sync 0;",
        "a divergent barrier, which thread 32 has not reached",
    ),
    Wrong(
        "two barriers in one warp",
        "setp.lt.u32 %p1, %r0, 40; @%p1 bra $one; bar.sync 0; ret; $one: bar.sync 0;",
        "thread 40: a divergent barrier: the first thread of its warp waits at line",
    ),
    Wrong(
        "a lane that does not exchange",
        "setp.lt.u32 %p1, %r0, 50; @%p1 shfl.sync.down.b32 %r1, %r0, 1, 31, -1;",
        "lane 18, a member, does not come here",
    ),
    Wrong(
        "a lane that is no member",
        "shfl.sync.idx.b32 %r1, %r0, 20, 31, 0xFFFF;",
        "lane .* is (no member|not a member)",
    ),
    Wrong("a loop without an end", "$up: bra $up;", "a loop without an end"),
    Wrong("barriers without an end", "$up: bar.sync 0; bra $up;", "a loop without an end"),
    Wrong("a trap", "setp.eq.u32 %p1, %r0, 5; @%p1 trap;", "thread 5: a trap"),
]


@needs_a_compiler
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_what_ends_a_launch(wrong: Wrong, tmp_path: Path) -> None:
    kernel = built(module(BEGINNING + wrong.code, before=ROOM), tmp_path)
    found = np.zeros(64, "i4")
    for seed in range(3):
        with pytest.raises(LaunchError, match=wrong.message):
            kernel.launch(2, 64, [at(found), at(found)], [found], seed)


@needs_a_compiler
def test_neighbours_may_share_a_word(tmp_path: Path) -> None:
    """Bytes of their own are no race, nor is a constant that all read, nor what one reads again."""
    code = """\
cvt.u64.u32 %d5, %r0;
add.s64 %d6, %d1, %d5;
ld.global.u8 %r1, [%d6];
add.u32 %r1, %r1, 1;
st.global.u8 [%d6], %r1;
ld.global.u8 %r1, [%d6];
add.u32 %r1, %r1, %r0;
st.global.u8 [%d6], %r1;
ld.global.nc.u32 %r2, [%d0];
ld.global.u32 %r2, [%d0];
"""
    kernel = built(module(BEGINNING + code), tmp_path)
    given, found = np.zeros(1, "i4"), np.ones(64, "u1")
    kernel.launch(1, 64, [at(given), at(found)], [given, found])
    assert (found == 2 + np.arange(64)).all()


FIRST_OF_BLOCK = """\
// The first thread writes what all have read before a barrier, and then all read it once more.
ld.global.u32 %r1, [%d1];
bar.sync 0;
setp.eq.u32 %p1, %r0, 0;
@%p1 st.global.u32 [%d1], 7;
bar.sync 0;
ld.global.u32 %r1, [%d1];
st.global.u32 [%d4+4], %r1;
"""


@needs_a_compiler
def test_barriers_order_the_accesses_of_a_block(tmp_path: Path) -> None:
    """And those of another block no more than if there were none."""
    kernel = built(module(BEGINNING + FIRST_OF_BLOCK), tmp_path)
    found = np.zeros(65, "i4")
    for seed in range(5):
        kernel.launch(1, 64, [0, at(found)], [found], seed)
        assert (found == 7).all()
        with pytest.raises(LaunchError, match=r"a race at .* what another block (wrote|read)"):
            kernel.launch(2, 64, [0, at(found)], [found], seed)


@needs_a_compiler
def test_several_may_write_the_same_into_shared_memory(tmp_path: Path) -> None:
    code = """\
shr.u32 %r1, %r0, 3;
mul.wide.u32 %d5, %r1, 4;
mov.u64 %d6, room;
add.s64 %d5, %d5, %d6;
ld.global.u32 %r2, [%d3];
st.shared.u32 [%d5], %r2;
bar.sync 0;
ld.shared.u32 %r3, [%d5];
st.global.u32 [%d4], %r3;
"""
    kernel = built(module(BEGINNING + code, before=ROOM), tmp_path)
    given, found = np.repeat(np.arange(8, dtype="i4"), 8), np.zeros(64, "i4")
    for seed in range(5):
        kernel.launch(1, 64, [at(given), at(found)], [given, found], seed)
        assert (found == given).all()
    given[9] = 100
    with pytest.raises(LaunchError, match=r"a race at .*: it writes what thread .* wrote"):
        kernel.launch(1, 64, [at(given), at(found)], [given, found])


@needs_a_compiler
@pytest.mark.parametrize(
    ("blocks", "threads", "message"),
    [
        ((1, 2, 1), 1, "one dimension"),
        (1, (1, 1, 2), "one dimension"),
        (0, 1, "at least a block"),
        (1, 1025, "of 1 to 1024 threads"),
        (2**22, 512, r"fewer than 2\^30 threads"),
    ],
)
def test_launches_that_are_refused(blocks: Any, threads: Any, message: str, one: Kernel) -> None:
    with pytest.raises(LaunchError, match=f"^kernel: .*{message}"):
        one.launch(blocks, threads, [0, 0], [])


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    return built(module(""), tmp_path_factory.mktemp("one"))


# ---- what is not known ----

UNKNOWN = [
    ("add.s31 %r1, %r1, 1;", "an opcode that is not known"),
    ("add.rn.sat.f32 %f1, %f1, %f1;", "an opcode that is not known"),
    ("fma.f32 %f1, %f1, %f1, %f1;", "an opcode that is not known"),
    ("ld.global.f16 %h1, [%d0];", "an opcode that is not known"),
    ("ld.local.f32 %f1, [%d0];", "an opcode that is not known"),
    ("atom.global.add.u32 %r1, [%d0], 1;", "an opcode that is not known"),
    ("add.s32 %r1, %r2;", "it has 3 operands"),
    ("add.s32 %r1, %r2, %r99;", "%r99 is not known"),
    ("add.s32 %r1, %r2, %r16;", "%r16 is not known"),
    ("add.s32 %r1, %r2, %clock;", "%clock is not known"),
    ("add.s32 %tid.x, %r2, 1;", "%tid.x is no register"),
    ("add.s32 %r1, %d2, 1;", "%d2 is of type b64, not s32"),
    ("add.s32 %h1, %r2, 1;", "%h1 is of type b16, not s32"),
    ("add.s32 %f1, %r1, 1;", "%f1 is of type f32, not s32"),
    ("add.rn.f32 %f1, %f1, 1;", "1 is not known as f32"),
    ("add.rn.f32 %f1, %f1, 0d3FF0000000000000;", "not known as f32"),
    ("add.rn.f32 %f1, %f1, 1.0;", "1.0 is not known as f32"),
    ("add.s32 %r1|%p1, %r1, 1;", "it has one result"),
    ("add.s32 %r1, %r1, 010;", "010 is not known"),
    ("st.global.u32 [%d0], %f1;", "%f1 is of type f32, not u32"),
    ("ld.global.f32 %d1, [%d0];", "%d1 is of type b64, not f32"),
    ("ld.global.u32 %r1, [%r2];", "%r2 is of type b32, not u64"),
    ("ld.global.u32 %r1, %d0;", "no address"),
    ("ld.global.u32 %r1, [1024];", "no address"),
    ("ld.global.v2.f32 %f1, [%d0];", "a wrong number of registers"),
    ("ld.global.v4.f32 {%f1, %f2}, [%d0];", "a wrong number of registers"),
    ("ld.global.v4.f64 {%g1, %g2, %g3, %g4}, [%d0];", "16 bytes at most"),
    ("st.param.u32 [in], 1;", "no such access"),
    ("ld.shared.nc.u32 %r1, [%d0];", "no such access"),
    ("ld.param.u64 %d1, [in+4];", "not inside of the parameter"),
    ("ld.param.u64 %d1, [other];", "is no parameter"),
    ("@%r1 mov.u32 %r2, 0;", "%r1 is of type b32, not pred"),
    ("bra $nowhere;", "there is no such label"),
    ("$a: $a:", "a label that there is already"),
    ("mov.u64 %d1, 18446744073709551616;", "is not known as u64"),
    ('.pragma "other";', "not known"),
    ("bar.sync 1;", "only barrier 0"),
    ("bar.sync 0, 32;", "only barrier 0"),
    ("mov.b64 {%r1, %r2}, {%r2, %r1};", "not known"),
    ("mov.u64 %d1, nothing;", "nothing is not known"),
    (".reg .b32 %r<3>;", "%r0 is there already"),
    (".local .align 4 .b8 kept[16];", "not known"),
    (".loc 1 2 3;", "not known"),
    ("call.uni other;", "an opcode that is not known"),
    ("add.s32 %r1, %r1, 1", "not known"),
]


@pytest.mark.parametrize(("line", "message"), UNKNOWN, ids=[line for line, _ in UNKNOWN])
def test_what_is_not_known_is_an_error(line: str, message: str) -> None:
    with pytest.raises(PtxError, match=re.escape(message)) as raised:
        translate(module(f"\n{line}"))
    assert str(raised.value).startswith("line 17: "), raised.value


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (".extern .shared .align 16 .b8 dynamic[];", "line 4: not known"),
        (".func other() { ret; }", "line 4: not known"),
        (".visible .entry other() { ret; }", "there are 2 kernels, not one"),
    ],
)
def test_what_is_not_known_around_a_kernel(before: str, message: str) -> None:
    with pytest.raises(PtxError, match=message):
        translate(module("", before=before))


def test_parameters_that_are_not_known() -> None:
    with pytest.raises(PtxError, match="line 7: not known as a parameter"):
        translate(module("", ".u64 in, .texref other"))


# ---- kernels that differ in a few lines ----

CHANGED = [
    ("add.s32 %r2, %r2, 5;", "add.s32 %r2, %r2, 6;"),
    ("add.s32 %r2, %r2, 5;", "add.s32 %r3, %r2, 1;\nmul.lo.s32 %r2, %r3, %r3;"),
    ("@%p0 bra $less;", "@!%p0 bra $less;"),
    ("@%p0 bra $less;", ""),
    ("bar.sync 0;", ""),
    ("mov.u32 %r5, %r2;", "mov.u32 %r5, %r4;"),
    ("add.s32 %r2, %r2, 5;", "adds.s32 %r2, %r2, 5;"),
]
"""Lines of a kernel, and what takes their place; the last one is nothing that there is."""


@needs_a_compiler
def test_a_variable_says_which_kernel_is_in_force(tmp_path: Path) -> None:
    ptx = module(
        f"""{BEGINNING}
ld.global.u32 %r2, [%d3];
mov.u32 %r4, 77;
add.s32 %r2, %r2, 5;
setp.lt.u32 %p0, %r0, 3;
@%p0 bra $less;
mul.lo.s32 %r2, %r2, 3;
$less:
bar.sync 0;
mov.u32 %r5, %r2;
st.global.u32 [%d4], %r5;
"""
    )
    lines = ptx.splitlines()
    changes = [{lines.index(line): text} for line, text in CHANGED]
    kernel = Kernel(ptx, tmp_path, changes=changes)
    given, wanted, found = aligned(8, "i4"), aligned(8, "i4"), aligned(8, "i4")
    given[:] = range(8)
    for number in range(len(CHANGED)):
        alone = ptx
        if number:
            line, text = CHANGED[number - 1]
            alone = ptx.replace(line, text)
        kernel.choose(number)
        kernel.launch(1, 8, [at(given), at(found)], [given, found])
        Kernel(alone, tmp_path).launch(1, 8, [at(given), at(wanted)], [given, wanted])
        assert found.tolist() == wanted.tolist()
    assert kernel.refused == {len(CHANGED)}
