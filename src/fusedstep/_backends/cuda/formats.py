"""The CUDA kernel of a job whose operands are kept in fewer bytes, as the text of a module.

It reads the table of kernels.py, and a second one: of each row the addresses of the second arrays
of p, of g, which has none, and of up to 8 state arrays, and the tensor's number. Loads and
stores are those of the operands' formats, from LOADS, STORES and CODED; the rule in between
knows nothing of them.

Blocks of 256 elements are stepped by 64 threads each, of which thread w has the elements w, 64 + w,
128 + w and 192 + w. These are the bytes of one word of 8-bit codes, so threads side by side access
memory side by side, whatever the format. The largest element of a block is found in shared memory;
as integers have it, its bits do not depend on the order.

The keys of random bits are mixed by each thread, from the key of the step, which comes by value,
and the tensor's number. Some 25 instructions for each of a few keys cost a thread less than its
accesses to memory, and a launch needs no table from the host that would be new at each step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from fusedstep._backends.cuda.kernels import (
    EMA,
    IMPORTS,
    KEY,
    PARTS,
    PLACE,
    PLAIN,
    STATES,
    P,
    Variant,
    by_value,
    indented,
    module_text,
    scalar_lines,
    unless_skipped,
)
from fusedstep._backends.plan import MOST_STATES, Held, Job
from fusedstep._compiler import modules, narrow
from fusedstep._compiler.formula import Formula
from fusedstep._numerics import storage_scalar, variants
from fusedstep._numerics.storage import HALF_CODE, SIGNED_SPAN, TILE, UNSIGNED_SPAN

FILES = (
    PARTS,
    Path(__file__).with_name("scalars.py"),
    Path(storage_scalar.__file__),
    Path(narrow.__file__),
)
"""The files that kernels with formats import from."""

WORDS = TILE // 4
"""Words of the codes of a block, and threads that step it."""

SHIFT = WORDS.bit_length() - 1

MOST_THREADS = 256
"""The most threads of a launch."""

# The columns of the second table, and their number.
ORDINAL = 2 + MOST_STATES
SECONDS = ORDINAL + 1

HEAD = f"""\
{IMPORTS}\
from fusedstep._backends.cuda.primitives import bits_of, float_of, load_int16, load_uint16
from fusedstep._backends.cuda.primitives import load_uint32, store_uint16, store_uint32
from fusedstep._backends.cuda.scalars import base_of, canonical, hashed, load_bfloat16
from fusedstep._backends.cuda.scalars import load_float16, load_signed8, load_split8
from fusedstep._backends.cuda.scalars import load_split16, load_unsigned8, nearest_bfloat16
from fusedstep._backends.cuda.scalars import nearest_split8, own_key, round_split8
from fusedstep._backends.cuda.scalars import rounded_bfloat16, rounded_float16
from fusedstep._backends.cuda.scalars import size_if_finite, store_bfloat16, store_float16
from fusedstep._backends.cuda.scalars import store_signed8, store_split16, store_unsigned8
from fusedstep._backends.cuda.scalars import stream_key

from numba import int32

SIGNATURE = "void(int64, int64, int64, int64, int64, int64, {{scalars}})"

Scalars = namedtuple("Scalars", "{{names}}")


"""

HALF_AT = "{x}_at + 2 * i{k}"
WORD_AT = "256 * block + 4 * word"

LOADS: dict[str | None, tuple[str, ...]] = {
    None: ("{x}_{k} = load({x}_at + 4 * i{k})",),
    "bfloat16": (f"{{x}}_{{k}} = float_of(load_bfloat16(load_uint16({HALF_AT})))",),
    "float16": (f"{{x}}_{{k}} = float_of(load_float16(load_uint16({HALF_AT})))",),
    "split16": (
        "tail = load_int16({x}_second + 2 * i{k})",
        f"{{x}}_{{k}} = float_of(load_split16(load_uint16({HALF_AT}), tail))",
    ),
    "split8": (
        "tail = (({x}_word >> {shift} & 0xFF) ^ 0x80) - 0x80",
        f"{{x}}_{{k}} = float_of(load_split8(load_uint16({HALF_AT}), tail))",
    ),
    # Where p is not what the last step left there, somebody has assigned to it, and that counts.
    **{
        f"master_{half}": (
            f"half, u = load_uint16({HALF_AT}), load_uint32({{x}}_second + 4 * i{{k}})",
            f"{{x}}_{{k}} = float_of(u if rounded_{half}(u) == half else load_{half}(half))",
        )
        for half in ("bfloat16", "float16")
    },
    "copied_bfloat16": ("{x}_{k} = load({x}_at + 4 * i{k})",),
    "copied_float16": ("{x}_{k} = load({x}_at + 4 * i{k})",),
    **{
        name: (f"{{x}}_{{k}} = float_of(load_{name}({{x}}_word >> {{shift}} & 0xFF, {{x}}_base))",)
        for name in ("signed8", "unsigned8")
    },
}
"""The lines that load element k of a thread, from an array x in a format."""

STORES: dict[str | None, tuple[str, ...]] = {
    None: ("store({x}_at + 4 * i{k}, {x}_{k})",),
    "bfloat16": (
        "u = bits_of({x}_{k})",
        f"store_uint16({HALF_AT}, store_bfloat16(u, {{r}}))",
    ),
    "float16": (f"store_uint16({HALF_AT}, store_float16(bits_of({{x}}_{{k}})))",),
    "split16": (
        "u = canonical(bits_of({x}_{k}))",
        "store_uint16({x}_second + 2 * i{k}, u & 0xFFFF)",
        f"store_uint16({HALF_AT}, store_split16(u))",
    ),
    "split8": (
        "u = canonical(bits_of({x}_{k}))",
        "{x}_u{k} = round_split8(u, {r})",
        f"store_uint16({HALF_AT}, store_split16({{x}}_u{{k}}))",
    ),
    **{
        f"master_{half}": (
            "store({x}_second + 4 * i{k}, {x}_{k})",
            f"store_uint16({HALF_AT}, rounded_{half}(bits_of({{x}}_{{k}})))",
        )
        for half in ("bfloat16", "float16")
    },
    **{
        f"copied_{half}": (
            "store({x}_at + 4 * i{k}, {x}_{k})",
            f"store_uint16({{x}}_second + 2 * i{{k}}, rounded_{half}(bits_of({{x}}_{{k}})))",
        )
        for half in ("bfloat16", "float16")
    },
    "signed8": ("{x}_u{k} = bits_of({x}_{k})",),
    "unsigned8": ("{x}_u{k} = bits_of({x}_{k})",),
}
"""The lines that store it, or leave the bits that a word is made of. Of split8 these are whole."""

ZEROS: dict[str | None, str] = {None: "store(g_at + 4 * i{k}, real(0))"}
"""The line that leaves a zero in place of the gradient; of other formats this is of 16 bits."""

NEAREST = {"bfloat16": "nearest_bfloat16(u)", "split8": "nearest_split8(u)"}
"""The bits to add below an element of a format that is rounded to the nearest."""

DRAWN = {"bfloat16": "{bits}", "split8": "{bits} >> 8"}
"""The same from its random bits."""


class Coded(NamedTuple):
    """A format of 8-bit codes."""

    span: int
    code: str
    """The code of an element's bits."""


CODED = {
    "signed8": Coded(SIGNED_SPAN, "store_signed8({x}_u{k}, {x}_base, {r})"),
    "unsigned8": Coded(UNSIGNED_SPAN, "store_unsigned8({x}_u{k}, {x}_base, {x}_most, {r})"),
}

LANES = range(4)


class Array(NamedTuple):
    """An array as a kernel has it."""

    name: str
    held: Held | None
    column: int
    """The column of its address in the table; of g, which is elsewhere, -1."""
    second: int = 0
    """The column of the address of its second array in the second table."""

    @property
    def format(self) -> str | None:
        return None if self.held is None else self.held.format

    @property
    def has_second(self) -> bool:
        return self.format not in (None, "bfloat16", "float16")

    @property
    def words(self) -> str | None:
        """The suffix of the address of its words of codes; None: it has none."""
        if self.format == "split8":
            return "second"
        return "at" if self.format in CODED else None

    def random(self, lane: int) -> str | None:
        """The random bits of a thread's element; None: it is rounded to the nearest."""
        if self.held is None or self.held.draw is None:
            return None
        stream, far = self.held.draw
        return f"(hash{stream}{lane} >> {'far' if far else 'near'} & 0xFFFF)"

    def load(self, lane: int) -> list[str]:
        return [line.format(x=self.name, k=lane, shift=8 * lane) for line in LOADS[self.format]]

    def store(self, lane: int) -> list[str]:
        bits, name = self.random(lane), self.format or ""
        r = NEAREST.get(name) if bits is None else DRAWN.get(name, "").format(bits=bits)
        return [line.format(x=self.name, k=lane, r=r) for line in STORES[self.format]]

    def code(self, lane: int) -> str:
        """The code of a thread's element."""
        bits = self.random(lane)
        r = f"{HALF_CODE}" if bits is None else f"{bits} << 4"
        return CODED[self.format or ""].code.format(x=self.name, k=lane, r=r)


def title(job: Job, variant: Variant) -> str:
    """A name for the kernel, which need not be the only one of that name."""
    assert job.storages is not None
    kept = [job.storages.p, job.storages.g, *job.storages.states]
    formats = "_".join("full" if each is None else each.format for each in kept)
    return f"{variants.title(job.rule)}_{formats}{variant.title}_cuda"


@cache
def module(job: Job, variant: Variant = PLAIN) -> ModuleType:
    """The module of the kernel of a job with formats: `run`, and its SIGNATURE."""
    return modules.load(title(job, variant), text(job, variant), *FILES)


def text(job: Job, variant: Variant = PLAIN) -> str:
    """The text of that module."""
    step = variants.step(job.rule, variant.decays)
    kernel = _kernel(job, step, variant)
    given = "int64" if variant.judged else f"int64, {by_value(job, step)}"
    return module_text(job, step, title(job, variant), HEAD, kernel, given)


def _arrays(job: Job, step: Formula) -> list[Array]:
    """The arrays that a step reads, in the order of its variables."""
    assert job.storages is not None
    p, g, *states = step.variables
    made = [Array(p, job.storages.p, P, 0), Array(g, job.storages.g, -1)]
    slots = [slot for slot, letter in enumerate(job.rule.letters) if letter]
    for name, slot in zip(states, slots, strict=False):
        made.append(Array(name, job.storages.states[slot], STATES + slot, 2 + slot))
    if job.rule.averaged:
        made.append(Array(states[-1], None, EMA))
    return made


def _kernel(job: Job, step: Formula, variant: Variant) -> str:
    """The text of the kernel.

    Names that come from an array m end as no other names do, see kernels.py: they are `m_at`
    and `m_second`, the addresses of its arrays, `m_word` and `m_base` of codes, the elements of
    a thread `m_0` to `m_3`, their bits `m_u0` to `m_u3`, and `m_most`, the largest in a block.
    """
    arrays = _arrays(job, step)
    written = [array for array in arrays if array.name != "g"]
    assert job.storages is not None
    streams = range(job.storages.streams)
    body = [
        *_beginning(job, step, arrays, variant),
        *_keys(streams),
        *_loads(arrays),
        *(_stepped(arrays, written, lane) for lane in LANES),
        "",
        *_bits(written),
        *unless_skipped(_stores(written), variant),
        "if zero:",
        *(f"    {line}" for line in _zeros(arrays[1])),
        *_codes(written, variant),
    ]
    scalars = "record" if variant.judged else "key, scalars"
    return f"""\
# {WORDS} threads step a block of {TILE} elements. `rows`, `seconds`, `gradients` and `tiles` are
# the addresses of the tensors, of what else there is of them, of their gradients' addresses, and
# of each tile's place: a tile is what a block of threads steps; 0: there is one tensor. `zero` says
# whether zeros take the place of the gradients. `clips` is the address of a factor for each tensor,
# which clips its gradient in place of the one in the scalars; 0: there is none. The key is that of
# the step's random bits.
def run(rows, seconds, gradients, tiles, zero, clips, {scalars}):
{indented(body)}
"""


def _stepped(arrays: Sequence[Array], written: Sequence[Array], lane: int) -> str:
    results = ", ".join(f"{array.name}_{lane}" for array in written)
    return f"{results} = step({', '.join(f'{array.name}_{lane}' for array in arrays)}, h)"


def _beginning(job: Job, step: Formula, arrays: Sequence[Array], variant: Variant) -> Iterator[str]:
    yield "# The tensor that the tile is part of: its length, and where its arrays begin."
    yield from PLACE
    yield f"second = seconds + {8 * SECONDS} * index"
    for array in arrays:
        if array.column < 0:
            yield f"{array.name}_at = load_int64(gradients + 8 * index)"
        else:
            yield f"{array.name}_at = load_int64(row + {8 * array.column})"
        if array.has_second:
            yield f"{array.name}_second = load_int64(second + {8 * array.second})"
    yield from scalar_lines(job, step, variant)
    if variant.judged:
        yield f"key = load_int64(record + {KEY})"
    yield ""
    yield "# The block of elements, whether the tensor reaches so far, and those of this thread."
    yield f"block = tile * (cuda.blockDim.x >> {SHIFT}) + (cuda.threadIdx.x >> {SHIFT})"
    yield f"word = cuda.threadIdx.x & {WORDS - 1}"
    yield f"inside = {TILE} * block < n"
    yield f"i0 = {TILE} * block + word"
    for lane in LANES[1:]:
        yield f"i{lane} = i0 + {WORDS * lane}"


def _keys(streams: Sequence[int]) -> Iterator[str]:
    """The lines that draw the random bits: a hash for each stream and element of the thread."""
    if not streams:
        return
    yield ""
    yield "# Neighbours share a hash: of the near bits one has the lower half, the other the upper."
    yield "near = 16 * (word & 1)"
    yield "far = 16 - near"
    yield f"own = own_key(key, load_int64(second + {8 * ORDINAL}))"
    for stream in streams:
        yield f"whole = stream_key(own, {stream}, i0)"
        yield "low, high = whole & 0xFFFFFFFF, (whole >> 32) & 0xFFFFFFFF"
        for lane in LANES:
            place = f"(i{lane} >> 1) & 0xFFFFFFFF"
            yield f"hash{stream}{lane} = hashed({place}, low, high)"


def _loads(arrays: Sequence[Array]) -> Iterator[str]:
    """The lines that load the elements of a thread: zeros beyond the end."""
    yield ""
    coded = [array for array in arrays if array.words]
    for array in coded:
        yield f"{array.name}_word, {array.name}_base = 0, 0"
    if coded:
        yield "if inside:"
    for array in coded:
        yield f"    {array.name}_word = load_uint32({array.name}_{array.words} + {WORD_AT})"
        if array.format in CODED:
            yield f"    {array.name}_base = load_uint32({array.name}_second + 4 * block)"
    for lane in LANES:
        names = " = ".join(f"{array.name}_{lane}" for array in arrays)
        yield f"{names} = real(0)"
        yield f"if i{lane} < n:"
        for array in arrays:
            yield from (f"    {line}" for line in array.load(lane))


def _bits(written: Sequence[Array]) -> Iterator[str]:
    """The lines that have zeros for the bits of elements beyond the end."""
    coded = [array for array in written if array.words]
    for lane in LANES if coded else ():
        yield f"{' = '.join(f'{array.name}_u{lane}' for array in coded)} = 0"


def _stores(written: Sequence[Array]) -> Iterator[str]:
    """The lines that store the elements of a thread, but for 8-bit codes."""
    for lane in LANES:
        yield f"if i{lane} < n:"
        for array in written:
            yield from (f"    {line}" for line in array.store(lane))


def _zeros(g: Array) -> Iterator[str]:
    """The lines that leave zeros in place of the gradient."""
    zero = ZEROS.get(g.format, f"store_uint16({HALF_AT}, 0)")
    for lane in LANES:
        yield f"if i{lane} < n:"
        yield f"    {zero.format(x=g.name, k=lane)}"


def _codes(written: Sequence[Array], variant: Variant) -> Iterator[str]:
    """The lines that store words of codes, once the largest element of a block is known."""
    coded = [array for array in written if array.format in CODED]
    if coded:
        yield from _largest(coded)
    if not any(array.words for array in written):
        return
    yield ""
    yield "if inside and not skipped:" if variant.judged else "if inside:"
    for array in written:
        x = array.name
        if array.format == "split8":
            yield f"    u = {x}_u0 >> 8 & 0xFF | {x}_u1 & 0xFF00"
            yield f"    u |= {x}_u2 << 8 & 0xFF0000 | {x}_u3 << 16 & 0xFF000000"
        elif array.format in CODED:
            yield f"    {x}_base = base_of({x}_most, {CODED[array.format].span})"
            yield f"    u = {array.code(0)}"
            for lane in LANES[1:]:
                yield f"    u |= {array.code(lane)} << {8 * lane}"
            yield "    if word == 0:"
            yield f"        store_uint32({x}_second + 4 * block, {x}_base)"
        if array.words:
            yield f"    store_uint32({x}_{array.words} + {WORD_AT}, u)"


def _largest(coded: Sequence[Array]) -> Iterator[str]:
    """The lines that find the largest finite element of a block in each of some arrays.

    Of the 64 of the threads each thread takes 8, as seven others do, and then the 8 that there
    are left.
    """
    count = len(coded)
    yield ""
    yield "# The largest finite element of the block."
    yield f"all_of_them = cuda.shared.array(({count}, {MOST_THREADS}), int32)"
    yield f"eighths = cuda.shared.array(({count}, {MOST_THREADS // 8}), int32)"
    yield "first = cuda.threadIdx.x - word"
    for k, array in enumerate(coded):
        x = array.name
        yield f"{x}_most = max(size_if_finite({x}_u0), size_if_finite({x}_u1))"
        yield f"{x}_most = max({x}_most, max(size_if_finite({x}_u2), size_if_finite({x}_u3)))"
        yield f"all_of_them[{k}, cuda.threadIdx.x] = {x}_most"
    yield "cuda.syncthreads()"
    yield from _most_of(coded, "all_of_them", "first + (word & 7) + 8 * k")
    for k, array in enumerate(coded):
        yield f"eighths[{k}, (first >> 3) + (word & 7)] = {array.name}_most"
    yield "cuda.syncthreads()"
    yield from _most_of(coded, "eighths", "(first >> 3) + k")


def _most_of(coded: Sequence[Array], shared: str, place: str) -> Iterator[str]:
    """The lines by which a thread takes the largest of eight that others left, array by array."""
    yield "for k in range(8):"
    for row, array in enumerate(coded):
        x = array.name
        yield f"    {x}_most = max({x}_most, int({shared}[{row}, {place}]))"
