"""THE storage formats in NumPy: how float32 values are kept in fewer bytes, to the bit.

A rule never sees them: what is stored is decoded to float32, stepped, and encoded again. `u` is
the bits of float32 values, r 16 random bits for each where a format rounds stochastically. All is
arithmetic of integers, which wraps, and so every bit is the same on every backend. csrc/storage.h
and storage_scalar.py mirror the first half of this file line by line.

`STORAGES` is the table of the formats, which all backends have by these names.
"""

# ruff: noqa: RET504

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fusedstep._arrays.dtypes import BFLOAT16, FLOAT16, FLOAT32

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Bits: TypeAlias = np.ndarray[Any, np.dtype[Any]]
"""An array of uint32."""

SIGN = np.uint32(0x80000000)
SIZE = ~SIGN
INFINITE = np.int32(0x7F800000)  # the bits of infinity; a NaN has more
NOT_A_NUMBER = np.uint32(0x7FC00000)
STEP = 20  # bits of a float32 below those that an 8-bit code counts in
SIGNED_SPAN = 127 << STEP  # from the smallest code of m to the largest of its block
UNSIGNED_SPAN = 255 << STEP  # the same of v
HALF_CODE = np.uint32(1 << (STEP - 1))


def signed(u: Bits) -> Array:
    return u.view(np.int32)


# ---- random bits: a hash of two keys and the element's place serves two elements ----


def hashed(x: Bits, k0: int, k1: int) -> Bits:
    x = x + np.uint32(k0)
    x = x ^ (x >> 16)
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> 15)
    x = x + np.uint32(k1)
    x = x * np.uint32(0x846CA68B)
    x = x ^ (x >> 16)
    return x


# ---- NaN ----


def canonical(u: Bits) -> Bits:
    return np.where(signed(u & SIZE) > INFINITE, NOT_A_NUMBER, u)


# ---- bfloat16: the upper half of a float32 ----


def load_bfloat16(h: Bits) -> Bits:
    return h << 16


def nearest_bfloat16(u: Bits) -> Bits:
    """The bits to add below the upper half, so that it is rounded to nearest even."""
    return 0x7FFF + ((u >> 16) & 1)


def store_bfloat16(u: Bits, r: Bits) -> Bits:
    u = canonical(u)  # no other NaN would be sure to stay one
    t = u + r
    return t >> 16


def rounded_bfloat16(u: Bits) -> Bits:
    return store_bfloat16(u, nearest_bfloat16(u))


# ---- float16: IEEE's, to nearest even; NaN is the canonical one ----


def load_float16(h: Bits) -> Bits:
    with np.errstate(invalid="ignore"):
        return h.astype(np.uint16).view(np.float16).astype(np.float32).view(np.uint32)


def store_float16(u: Bits) -> Bits:
    with np.errstate(all="ignore"):
        h = u.view(np.float32).astype(np.float16).view(np.uint16).astype(np.uint32)
    return np.where(signed(u & SIZE) > INFINITE, np.uint32(0x7E00), h)


def rounded_float16(u: Bits) -> Bits:
    return store_float16(u)


# ---- split: the nearest bfloat16, ties away from zero, and a tail that is what it lacks ----


def load_split16(h: Bits, tail: Array) -> Bits:
    return (h << 16) + tail.astype(np.int32).view(np.uint32)


def store_split16(u: Bits) -> Bits:
    return (u + 0x8000) >> 16


def load_split8(h: Bits, tail: Array) -> Bits:
    return (h << 16) + (tail.astype(np.int32).view(np.uint32) << 8)


def nearest_split8(u: Bits) -> Bits:
    """The bits to add below the 24 that are kept, so that these are rounded to nearest even."""
    return 0x7F + ((u >> 8) & 1)


def round_split8(u: Bits, r: Bits) -> Bits:
    return (u + r) & np.uint32(0xFFFFFF00)


# ---- 8 bits: steps of an eighth of an octave, from the largest of a block downward ----


def size_if_finite(u: Bits) -> Array:
    size = signed(u & SIZE)
    return np.where(size < INFINITE, size, 0)


def base_of(most: Array, span: int) -> Array:
    return np.where(most > span, most - np.int32(span), 0)


def load_signed8(code: Bits, base: Array) -> Bits:
    q = code & 0x7F
    u: Bits = base.view(np.uint32) + (q << STEP)
    u = np.where(q == 0, np.uint32(0), u)
    u = u | (code & 0x80) << 24
    return u


def code_signed8(u: Bits, base: Array, r: Bits) -> Bits:
    q = (signed(u & SIZE) - base + signed(r)) >> STEP
    return np.where(q > 0, q, 0).view(np.uint32) | (u >> 24 & 0x80)


def store_signed8(u: Bits, base: Array, r: Bits) -> Bits:
    u = np.where(signed(u & SIZE) < INFINITE, u, 0)  # what is not finite counts as zero
    return code_signed8(u, base, r)


def load_unsigned8(code: Bits, base: Array) -> Bits:
    u: Bits = base.view(np.uint32) + (code << STEP)
    return u


def code_unsigned8(size: Array, base: Array, r: Bits) -> Bits:
    q = (size - base + signed(r)) >> STEP
    return np.where(q > 0, q, 0).view(np.uint32)


def store_unsigned8(u: Bits, base: Array, most: Array, r: Bits) -> Bits:
    size = signed(u & SIZE)
    size = np.where(size < most, size, most)  # what is not finite counts as the largest that is
    return code_unsigned8(size, base, r)


# ---- keys of random bits ----

ALL_64 = (1 << 64) - 1

SPAN = 33
"""Random bits repeat after 2^SPAN elements, and get another key there."""


def mixed(x: int) -> int:
    """The next number of the generator splitmix64, of 64 bits, after the state x."""
    x = (x + 0x9E3779B97F4A7C15) & ALL_64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & ALL_64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & ALL_64
    return x ^ (x >> 31)


def step_key(seed: int, t: int) -> int:
    """The key of all random bits of step t."""
    return mixed(mixed(seed) ^ t)


def tensor_key(step: int, ordinal: int, stream: int, at: int) -> int:
    """The key of a tensor's elements around `at`, of which `ordinal` is the number."""
    return mixed(mixed(mixed(step ^ ordinal) ^ stream) ^ (at >> SPAN))


class Draw(NamedTuple):
    """The random bits by which an operand is rounded."""

    stream: int
    far: bool
    """Whether an element takes the half of a hash that is its neighbour's among the near bits."""


def random_bits(step: int, ordinal: int, draw: Draw, n: int) -> Bits:
    """16 random bits for each of a tensor's n elements, from the key of the step."""
    bits = np.empty((n + 1) // 2 * 2, np.uint32)
    for start in range(0, n, 1 << SPAN):
        part = bits[start : start + (1 << SPAN)]
        key = tensor_key(step, ordinal, draw.stream, start)
        places = np.arange(start // 2, (start + len(part)) // 2, dtype=np.int64)
        x = hashed(places.astype(np.uint32), key & 0xFFFFFFFF, key >> 32)
        part[draw.far :: 2], part[1 - draw.far :: 2] = x & 0xFFFF, x >> 16
    return bits[:n]


# ---- the formats ----

TILE = 256
"""Elements of a block of 8-bit codes, and of what backends decode and encode at once."""


class Part(NamedTuple):
    """One of the arrays that hold an operand."""

    dtype: np.dtype[Any]
    each: int = 1
    """Elements of the operand for one of its own."""
    padded: bool = False
    """Whether it is as long as whole tiles are."""

    def length(self, n: int) -> int:
        """The length of the array for n elements of the operand."""
        whole = -(-n // TILE) * TILE if self.padded or self.each > 1 else n
        return whole // self.each


Load: TypeAlias = Callable[..., Bits]
Store: TypeAlias = Callable[[Bits, "Bits | None"], "tuple[Array, ...]"]


@dataclass(frozen=True, eq=False)
class Storage:
    """A format: the arrays that hold an operand, and how its values come from there and go back.

    `load` takes the number of elements and those arrays, and `store` the bits of the elements and
    the random ones, None for rounding to the nearest. Arrays are flat.
    """

    name: str
    parts: tuple[Part, ...]
    load: Load
    store: Store
    random: bool = False
    """Whether it can round stochastically."""

    @property
    def width(self) -> float:
        """Bytes of an element."""
        return sum(part.dtype.itemsize / part.each for part in self.parts)

    def decode(self, n: int, parts: tuple[Array, ...]) -> Array:
        """The float32 values of n elements."""
        return np.ascontiguousarray(self.load(n, *parts), np.uint32).view(np.float32)

    def encode(self, values: Array, r: Bits | None = None) -> tuple[Array, ...]:
        """The contents of the arrays for flat float32 values."""
        stored = self.store(np.ascontiguousarray(values, np.float32).view(np.uint32), r)
        return tuple(map(as_part, self.parts, stored))


def as_part(part: Part, values: Array) -> Array:
    """Bits as an array of a part's dtype, cut to its width."""
    if values.dtype == part.dtype:
        return values
    return values.astype(f"u{part.dtype.itemsize}").view(part.dtype)


def bits(array: Array) -> Bits:
    """The bits of an array's elements, widened."""
    return array.view(f"u{array.itemsize}").astype(np.uint32)


HALF_BFLOAT, HALF, FULL = Part(BFLOAT16), Part(FLOAT16), Part(FLOAT32)
CODES, BASES = Part(np.dtype(np.uint8), padded=True), Part(np.dtype(np.int32), each=TILE)
TAIL16, TAIL8 = Part(np.dtype(np.int16)), Part(np.dtype(np.int8), padded=True)


def in_code_order(codes: Array) -> Array:
    """Codes as they lie in memory, in whole tiles: byte k of word w of a tile is its 64 k + w."""
    codes = np.pad(codes, (0, -codes.size % TILE))
    return np.ascontiguousarray(codes.reshape(-1, 4, TILE // 4).transpose(0, 2, 1)).reshape(-1)


def in_natural_order(codes: Array, n: int) -> Array:
    """The same codes in the order of the n elements."""
    tiles = codes.reshape(-1, TILE // 4, 4).transpose(0, 2, 1)
    return np.ascontiguousarray(tiles).reshape(-1)[:n]


def padded(u: Bits) -> Bits:
    """The bits of elements, with zeros up to a whole tile, tile by tile."""
    whole = np.zeros((-(-u.size // TILE), TILE), np.uint32)
    whole.reshape(-1)[: u.size] = u
    return whole


def _load_bfloat16(n: int, h: Array) -> Bits:
    return load_bfloat16(bits(h))


def _store_bfloat16(u: Bits, r: Bits | None) -> tuple[Array, ...]:
    return (store_bfloat16(u, nearest_bfloat16(u) if r is None else r),)


def _load_float16(n: int, h: Array) -> Bits:
    return load_float16(bits(h))


def _store_float16(u: Bits, r: Bits | None) -> tuple[Array, ...]:
    return (store_float16(u),)


def _load_split16(n: int, h: Array, tail: Array) -> Bits:
    return load_split16(bits(h), tail)


def _store_split16(u: Bits, r: Bits | None) -> tuple[Array, ...]:
    u = canonical(u)
    return store_split16(u), u.astype(np.uint16).view(np.int16)


def _load_split8(n: int, h: Array, tail: Array) -> Bits:
    return load_split8(bits(h), in_natural_order(tail, n))


def _store_split8(u: Bits, r: Bits | None) -> tuple[Array, ...]:
    u = canonical(u)
    u = round_split8(u, nearest_split8(u) if r is None else r >> 8)
    tail = (padded(u) >> 8).astype(np.uint8).view(np.int8)
    return store_split16(u), in_code_order(tail)


def _load_signed8(n: int, codes: Array, bases: Array) -> Bits:
    code = bits(in_natural_order(codes, codes.size)).reshape(-1, TILE)
    return load_signed8(code, bases[:, None]).reshape(-1)[:n]


def _store_signed8(u: Bits, r: Bits | None) -> tuple[Array, ...]:
    tiles = padded(u)
    base = base_of(size_if_finite(tiles).max(axis=1, initial=0), SIGNED_SPAN)
    codes = store_signed8(tiles, base[:, None], _below_codes(r))
    return in_code_order(codes.astype(np.uint8)), base.astype(np.int32)


def _load_unsigned8(n: int, codes: Array, bases: Array) -> Bits:
    code = bits(in_natural_order(codes, codes.size)).reshape(-1, TILE)
    return load_unsigned8(code, bases[:, None]).reshape(-1)[:n]


def _store_unsigned8(u: Bits, r: Bits | None) -> tuple[Array, ...]:
    tiles = padded(u)
    most = size_if_finite(tiles).max(axis=1, initial=0)
    base = base_of(most, UNSIGNED_SPAN)
    codes = store_unsigned8(tiles, base[:, None], most[:, None], _below_codes(r))
    return in_code_order(codes.astype(np.uint8)), base.astype(np.int32)


def _below_codes(r: Bits | None) -> Bits:
    """The bits to add below 8-bit codes, so that these are rounded."""
    return HALF_CODE.reshape(1, 1) if r is None else padded(r) << 4


def _master(name: str, load: Callable[[Bits], Bits], rounded: Callable[[Bits], Bits]) -> Storage:
    """A float32 master of a 16-bit parameter, which is rounded from it at each step.

    Where the parameter is not what the last step left there, somebody has assigned to it, and
    that counts.
    """

    def load_master(n: int, h: Array, master: Array) -> Bits:
        u, half = bits(master), bits(h)
        return np.where(rounded(u) == half, u, load(half))

    def store_master(u: Bits, r: Bits | None) -> tuple[Array, ...]:
        return rounded(u), u.view(np.float32)

    part = HALF_BFLOAT if name == "bfloat16" else HALF
    return Storage(f"master_{name}", (part, FULL), load_master, store_master)


def _copied(name: str, rounded: Callable[[Bits], Bits]) -> Storage:
    """A float32 parameter that is written in 16 bits as well."""

    def load_copied(n: int, p: Array, copy: Array) -> Bits:
        return bits(p)

    def store_copied(u: Bits, r: Bits | None) -> tuple[Array, ...]:
        return u.view(np.float32), rounded(u)

    part = HALF_BFLOAT if name == "bfloat16" else HALF
    return Storage(f"copied_{name}", (FULL, part), load_copied, store_copied)


STORAGES: dict[str, Storage] = {
    each.name: each
    for each in (
        Storage("bfloat16", (HALF_BFLOAT,), _load_bfloat16, _store_bfloat16, random=True),
        Storage("float16", (HALF,), _load_float16, _store_float16),
        Storage("split16", (HALF_BFLOAT, TAIL16), _load_split16, _store_split16),
        Storage("split8", (HALF_BFLOAT, TAIL8), _load_split8, _store_split8, random=True),
        _master("bfloat16", load_bfloat16, rounded_bfloat16),
        _master("float16", load_float16, rounded_float16),
        _copied("bfloat16", rounded_bfloat16),
        _copied("float16", rounded_float16),
        Storage("signed8", (CODES, BASES), _load_signed8, _store_signed8, random=True),
        Storage("unsigned8", (CODES, BASES), _load_unsigned8, _store_unsigned8, random=True),
    )
}
