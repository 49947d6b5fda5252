"""Steps of operands that are kept in fewer bytes than the kernel's float32, for runner.py.

As in csrc/tiles.c, a tile at a time is decoded, stepped by the kernel as if it were a tensor of
its own, and encoded. So the kernels know no format, and the formats no rule: there is a pair of
compiled functions for each format, `load` and `store`, and one that calls them around a kernel.

`load` returns where the float32 values are: in the tile that it is given, or where they lie if
memory holds them as they are. `store` takes them from there. `first` and `second` are the addresses
of the arrays that hold the operand, and `at` is the element where the tile begins in them.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# mypy: disable-error-code="attr-defined, call-arg, call-overload"

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numba import carray, float32, int8, int16, int32, int64, types, uint8, uint16, uint32
from numba.core.ccallback import CFunc
from numba.extending import intrinsic

from fusedstep._backends.numba.kept import Kept
from fusedstep._backends.numba.primitives import (
    EMA,
    READ,
    SUMS,
    G,
    call_kernel,
    call_load,
    call_store,
    compiled,
    pointer,
)
from fusedstep._backends.plan import MOST_STATES, Held, Job
from fusedstep._compiler import narrow
from fusedstep._compiler.interrupts import delayed
from fusedstep._compiler.modules import unique
from fusedstep._compiler.narrow import operators
from fusedstep._numerics import norm, storage_scalar
from fusedstep._numerics.storage import TILE

Description: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

OPERANDS = 2 + MOST_STATES
"""The operands that may have a format: those of the first columns of a row."""

# The columns of a row behind those that every runner's rows have.
N, JOB, SECONDS = READ, READ + 1, READ + 2
"""The elements of a row, its job, and the address of each operand's second array, or 0."""
ORDINAL, DESCRIBED, COLUMNS = (SECONDS + OPERANDS + k for k in range(3))
"""The tensor's number, the address of its job's description, and the number of all columns."""

# The description of a job: what is called, random bits, and how each operand is held.
KERNEL, SQUARES, KEY, STREAMS, HELD = range(5)
"""The kernel, the sums of squares, the address of the step's key, the streams of random bits."""
LOAD, STORE, RANDOM, EACH = range(4)
"""The functions of an operand's format, or 0; 2 * stream + far of its random bits, or -1."""
DESCRIPTION = HELD + EACH * OPERANDS

BLOCK = norm.BLOCK
HALF_CODE, SIGNED_SPAN, UNSIGNED_SPAN = (
    storage_scalar.HALF_CODE,
    storage_scalar.SIGNED_SPAN,
    storage_scalar.UNSIGNED_SPAN,
)

scalar = storage_scalar.decorated(compiled, operators(intrinsic, types))
"""The formats on one element."""

canonical, round_split8, store_split16 = (
    scalar[name] for name in ("canonical", "round_split8", "store_split16")
)
nearest_bfloat16, nearest_split8 = scalar["nearest_bfloat16"], scalar["nearest_split8"]
store_bfloat16, store_signed8, store_unsigned8 = (
    scalar[f"store_{name}"] for name in ("bfloat16", "signed8", "unsigned8")
)
load_split8, load_split16 = scalar["load_split8"], scalar["load_split16"]
size_if_finite, base_of, hashed = scalar["size_if_finite"], scalar["base_of"], scalar["hashed"]
own_key, stream_key = scalar["own_key"], scalar["stream_key"]


@compiled
def place_of_code(i):
    """The byte of a tile's codes that belongs to its element i."""
    return 4 * (i % (TILE // 4)) + i // (TILE // 4)


@compiled
def words(at, n):
    return carray(pointer(at), n, uint32)


@compiled
def halves(at, n):
    return carray(pointer(at), n, uint16)


# ---- loads ----


def loading_half(load):
    def run(first, second, at, n, tile):
        h, u = halves(first + 2 * at, n), words(tile, n)
        for i in range(n):
            u[i] = load(int64(h[i]))
        return tile

    return run


def loading_split16(first, second, at, n, tile):
    h, u = halves(first + 2 * at, n), words(tile, n)
    tails = carray(pointer(second + 2 * at), n, int16)
    for i in range(n):
        u[i] = load_split16(int64(h[i]), int64(tails[i]))
    return tile


def loading_split8(first, second, at, n, tile):
    h, u = halves(first + 2 * at, n), words(tile, n)
    tails = carray(pointer(second + at), TILE, int8)
    for i in range(n):
        u[i] = load_split8(int64(h[i]), int64(tails[place_of_code(i)]))
    return tile


def loading_master(rounded, load):
    def run(first, second, at, n, tile):
        h, u = halves(first + 2 * at, n), words(second + 4 * at, n)
        for i in range(n):
            if rounded(int64(u[i])) != int64(h[i]):  # somebody has assigned to it, and that counts
                u[i] = load(int64(h[i]))
        return second + 4 * at

    return run


def loading_copied(first, second, at, n, tile):
    return first + 4 * at


def loading_codes(load):
    def run(first, second, at, n, tile):
        codes, u = carray(pointer(first + at), TILE, uint8), words(tile, n)
        base = int64(carray(pointer(second + at // TILE * 4), 1, int32)[0])
        for i in range(n):
            u[i] = load(int64(codes[place_of_code(i)]), base)
        return tile

    return run


# ---- stores ----


def storing_bfloat16(values, first, second, at, n, random):
    h, u = halves(first + 2 * at, n), words(values, n)
    if random:
        r = halves(random, n)
        for i in range(n):
            h[i] = store_bfloat16(int64(u[i]), int64(r[i]))
    else:
        for i in range(n):
            x = int64(u[i])
            h[i] = store_bfloat16(x, nearest_bfloat16(x))


def storing_split16(values, first, second, at, n, random):
    h, u, tails = halves(first + 2 * at, n), words(values, n), halves(second + 2 * at, n)
    for i in range(n):
        x = canonical(int64(u[i]))
        tails[i] = x & 0xFFFF
        h[i] = store_split16(x)


def storing_split8(values, first, second, at, n, random):
    h, u = halves(first + 2 * at, n), words(values, n)
    tails = carray(pointer(second + at), TILE, uint8)
    for i in range(n):
        x = canonical(int64(u[i]))
        r = int64(halves(random, n)[i]) >> 8 if random else nearest_split8(x)
        x = round_split8(x, r)
        tails[place_of_code(i)] = x >> 8 & 0xFF
        h[i] = store_split16(x)


def storing_rounded(rounded):
    def run(values, first, second, at, n, random):
        h, u = halves(first + 2 * at, n), words(values, n)
        for i in range(n):
            h[i] = rounded(int64(u[i]))

    return run


def storing_copied(rounded):
    def run(values, first, second, at, n, random):
        h, u = halves(second + 2 * at, n), words(values, n)
        for i in range(n):
            h[i] = rounded(int64(u[i]))

    return run


@compiled
def most_of(u):
    most = 0
    for i in range(len(u)):
        most = max(most, size_if_finite(int64(u[i])))
    return most


@compiled
def below_code(random, i):
    """The bits to add below the code of element i, so that it is rounded."""
    return int64(halves(random, TILE)[i]) << 4 if random else HALF_CODE


def storing_signed8(values, first, second, at, n, random):
    u, codes = words(values, n), carray(pointer(first + at), TILE, uint8)
    base = base_of(most_of(u), SIGNED_SPAN)
    carray(pointer(second + at // TILE * 4), 1, int32)[0] = base
    for i in range(n):
        codes[place_of_code(i)] = store_signed8(int64(u[i]), base, below_code(random, i))


def storing_unsigned8(values, first, second, at, n, random):
    u, codes = words(values, n), carray(pointer(first + at), TILE, uint8)
    most = most_of(u)
    base = base_of(most, UNSIGNED_SPAN)
    carray(pointer(second + at // TILE * 4), 1, int32)[0] = base
    for i in range(n):
        codes[place_of_code(i)] = store_unsigned8(int64(u[i]), base, most, below_code(random, i))


PAIRS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "bfloat16": (loading_half(scalar["load_bfloat16"]), storing_bfloat16),
    "float16": (loading_half(scalar["load_float16"]), storing_rounded(scalar["store_float16"])),
    "split16": (loading_split16, storing_split16),
    "split8": (loading_split8, storing_split8),
    "signed8": (loading_codes(scalar["load_signed8"]), storing_signed8),
    "unsigned8": (loading_codes(scalar["load_unsigned8"]), storing_unsigned8),
}
"""How each format is loaded and stored."""

for half in ("bfloat16", "float16"):
    load, rounded = scalar[f"load_{half}"], scalar[f"rounded_{half}"]
    PAIRS[f"master_{half}"] = loading_master(rounded, load), storing_rounded(rounded)
    PAIRS[f"copied_{half}"] = loading_copied, storing_copied(rounded)


# ---- a tensor, tile by tile ----


def step(row, begin, end, scalars):
    """Step elements [begin, end) of a row by the kernel of its job: itself an `fs_kernel`."""
    row = carray(pointer(row), COLUMNS, int64)
    job = carray(pointer(row[DESCRIBED]), DESCRIPTION, int64)
    held = carray(pointer(row[DESCRIBED] + 8 * HELD), (OPERANDS, EACH), int64)
    tiles = np.empty((OPERANDS, TILE), float32)
    random = np.empty((max(job[STREAMS], 1), 2, TILE), uint16)
    beside = np.zeros(READ, int64)
    for at in range(begin, end, TILE):
        n = min(end - at, TILE)
        for k in range(OPERANDS):
            if not row[k]:
                continue
            beside[k] = row[k] + 4 * at
            if held[k, LOAD]:
                tile = tiles.ctypes.data + 4 * TILE * k
                beside[k] = call_load(held[k, LOAD], row[k], row[SECONDS + k], at, n, tile)
        if row[EMA]:
            beside[EMA] = row[EMA] + 4 * at
        call_kernel(job[KERNEL], beside.ctypes.data, 0, n, scalars)
        if job[STREAMS]:
            draw(job, row, at, random)
        for k in range(OPERANDS):
            if k != G and row[k] and held[k, STORE]:
                which = held[k, RANDOM]
                chosen = random.ctypes.data + 2 * TILE * which if which >= 0 else 0
                call_store(held[k, STORE], beside[k], row[k], row[SECONDS + k], at, n, chosen)


@compiled
def draw(job, row, at, random):
    """Draw the random bits of a tile's elements, near and far ones for each stream."""
    own = own_key(carray(pointer(job[KEY]), 1, int64)[0], row[ORDINAL])
    for stream in range(job[STREAMS]):
        key = stream_key(own, stream, at)
        k0, k1 = key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF
        for i in range(0, TILE, 2):
            x = hashed(((at + i) >> 1) & 0xFFFFFFFF, k0, k1)
            random[stream, 0, i] = random[stream, 1, i + 1] = x & 0xFFFF
            random[stream, 0, i + 1] = random[stream, 1, i] = x >> 16


def sums(row, begin, end, scalars):
    """Sum the squares of elements [begin, end) of a row's gradient: itself an `fs_kernel`."""
    row = carray(pointer(row), COLUMNS, int64)
    job = carray(pointer(row[DESCRIBED]), DESCRIPTION, int64)
    held = carray(pointer(row[DESCRIBED] + 8 * HELD), (OPERANDS, EACH), int64)
    block = np.empty(BLOCK, float32)
    beside = row[:READ].copy()
    for start in range(begin, end, BLOCK):
        stop = min(start + BLOCK, end)
        for at in range(start, stop, TILE):
            tile = block.ctypes.data + 4 * (at - start)
            call_load(held[G, LOAD], row[G], 0, at, min(stop - at, TILE), tile)
        beside[G] = block.ctypes.data - 4 * start
        beside[SUMS] = row[SUMS]
        call_kernel(job[SQUARES], beside.ctypes.data, start, stop, scalars)


# ---- compiled ----

SOURCES = (Path(__file__), Path(storage_scalar.__file__), Path(narrow.__file__))


class Callback(CFunc):
    """A function as a C callback, of so many integers, which may return one."""

    def __init__(self, name: str, function: Any, count: int, result: Any = types.void) -> None:
        options = {"error_model": "numpy"}
        super().__init__(function, ((types.int64,) * count, result), locals={}, options=options)
        numbers = [each for each in globals().items() if isinstance(each[1], int)]  # imported, too
        texts = [path.read_bytes() for path in SOURCES]
        self._cache = Kept(unique(f"tiles_{name}", *texts, repr(numbers).encode()))
        with delayed():
            self.compile()


@cache
def callback(name: str) -> Any:
    """The compiled `step` or `sums`."""
    return Callback(name, {"step": step, "sums": sums}[name], 4)


@cache
def pair(name: str) -> tuple[Any, Any]:
    """The compiled functions of a format."""
    load, store = PAIRS[name]
    return Callback(f"load_{name}", load, 5, types.int64), Callback(f"store_{name}", store, 6)


def described(job: Job, key: int) -> Description:
    """The description of a job with formats, without its kernels; `key` is an address."""
    made = np.zeros(DESCRIPTION, np.int64)
    assert job.storages is not None
    made[KEY], made[STREAMS] = key, job.storages.streams
    made[HELD:] = np.array([*map(held_in, operands_of(job))], np.int64).reshape(-1)
    return made


def operands_of(job: Job) -> list[Held | None]:
    """How a job holds the operands, in the order of a row's columns."""
    p, g, states = job.storages or (None, None, ())
    return [p, g, *states, *[None] * (MOST_STATES - len(states))]


def held_in(held: Held | None) -> tuple[int, int, int]:
    """The columns of a description for an operand."""
    if held is None:
        return 0, 0, -1
    load, store = pair(held.format)
    random = -1 if held.draw is None else 2 * held.draw.stream + held.draw.far
    return load.address, store.address, random
