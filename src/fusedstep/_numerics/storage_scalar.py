"""THE storage formats as plain Python on one element: what Numba compiles for CPU and CUDA.

The functions mirror the first half of storage.py line by line, and so does csrc/storage.h; every
bit of their results is the same. `u` is the bits of a float32 and r 16 random bits, where a format
rounds stochastically. All are integers from 0 up to 2^32, but for what is named as signed: a
tail, a base, the size of the largest. They are held in 64 bits or more, so that Python's own will
do as well as int64, and what would wrap in 32 is masked.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: RET504

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from fusedstep._compiler.narrow import narrow

ALL = 0xFFFFFFFF
SIZE = 0x7FFFFFFF
INFINITE = 0x7F800000  # the bits of infinity; a NaN has more
NOT_A_NUMBER = 0x7FC00000
STEP = 20  # bits of a float32 below those that an 8-bit code counts in
SIGNED_SPAN = 127 << STEP  # from the smallest code of m to the largest of its block
UNSIGNED_SPAN = 255 << STEP  # the same of v
HALF_CODE = 1 << (STEP - 1)


# ---- random bits: a hash of two keys and the element's place serves two elements ----


def hashed(x, k0, k1):
    x = (x + k0) & ALL
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & ALL
    x = x ^ (x >> 15)
    x = (x + k1) & ALL
    x = (x * 0x846CA68B) & ALL
    x = x ^ (x >> 16)
    return x


# ---- NaN: the canonical one in the place of all ----


def canonical(u):
    return NOT_A_NUMBER if u & SIZE > INFINITE else u


# ---- bfloat16: the upper half of a float32 ----


def load_bfloat16(h):
    return h << 16


def nearest_bfloat16(u):
    """The bits to add below the upper half, so that it is rounded to nearest even."""
    return 0x7FFF + ((u >> 16) & 1)


def store_bfloat16(u, r):
    u = canonical(u)  # no other NaN would be sure to stay one
    t = (u + r) & ALL
    return t >> 16


def rounded_bfloat16(u):
    return store_bfloat16(u, nearest_bfloat16(u))


# ---- float16: IEEE's, to nearest even; NaN is the canonical one ----


def load_float16(h):
    size = h & 0x7FFF
    u = (size << 13) + (112 << 23)
    u = u + (112 << 23) if size >= 0x7C00 else u
    u = load_subnormal(size) if size < 0x0400 else u
    return u | (h & 0x8000) << 16


def load_subnormal(size):
    """The same of one below the normal ones: its first bit goes to where theirs is not stored."""
    up = 8 if size < 0x0008 else 0
    up = up + 4 if size << up < 0x0080 else up
    up = up + 2 if size << up < 0x0200 else up
    up = up + 1 if size << up < 0x0400 else up
    u = (size << up << 13) + ((112 - up) << 23)
    return u if size else 0


def store_float16(u):
    size = u & SIZE
    h = (size - (112 << 23) + 0x0FFF + ((size >> 13) & 1)) >> 13
    h = store_subnormal(size) if size < 113 << 23 else h
    h = 0x7C00 if size >= 0x477FF000 else h
    h = h | u >> 31 << 15
    return 0x7E00 if size > INFINITE else h


def store_subnormal(size):
    """The same of one below the normal ones, in units of 2^-24; it may be rounded up to these."""
    down = 126 - (size >> 23)
    down = 31 if down > 31 else 14 if down < 14 else down
    whole = (size & 0x7FFFFF) | 0x800000
    return (whole + (1 << (down - 1)) - 1 + ((whole >> down) & 1)) >> down


def rounded_float16(u):
    return store_float16(u)


# ---- split: the nearest bfloat16, ties away from zero, and a tail that is what it lacks ----


def load_split16(h, tail):
    return ((h << 16) + tail) & ALL


def store_split16(u):
    return ((u + 0x8000) & ALL) >> 16


def load_split8(h, tail):
    return ((h << 16) + (tail << 8)) & ALL


def nearest_split8(u):
    """The bits to add below the 24 that are kept, so that these are rounded to nearest even."""
    return 0x7F + ((u >> 8) & 1)


def round_split8(u, r):
    return (u + r) & 0xFFFFFF00


# ---- 8 bits: steps of an eighth of an octave, from the largest of a block downward ----


def size_if_finite(u):
    size = u & SIZE
    return size if size < INFINITE else 0


def base_of(most, span):
    return most - span if most > span else 0


def load_signed8(code, base):
    q = code & 0x7F
    u = base + (q << STEP)
    u = 0 if q == 0 else u
    return u | (code & 0x80) << 24


def code_signed8(u, base, r):
    q = ((u & SIZE) - base + r) >> STEP
    return (q if q > 0 else 0) | (u >> 24 & 0x80)


def store_signed8(u, base, r):
    u = u if u & SIZE < INFINITE else 0  # what is not finite counts as zero
    return code_signed8(u, base, r)


def load_unsigned8(code, base):
    return base + (code << STEP)


def code_unsigned8(size, base, r):
    q = (size - base + r) >> STEP
    return q if q > 0 else 0


def store_unsigned8(u, base, most, r):
    size = u & SIZE
    size = size if size < most else most  # what is not finite counts as the largest that is
    return code_unsigned8(size, base, r)


# ---- keys of random bits, of which the lowest 64 bits count ----

SPAN = 33
"""Random bits repeat after 2^SPAN elements, and get another key there."""


def mixed(x):
    """The next number of the generator splitmix64 after the state x.

    A shift to the right brings down no bit from above the lowest 64, nor copies of a sign, so
    numbers need not be cut to 64 bits on the way: int64 does that by itself.
    """
    x = x - 0x61C8864680B583EB
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def own_key(step, ordinal):
    """The key of a tensor, of which `ordinal` is the number, in a step with that key."""
    return mixed(step ^ ordinal)


def stream_key(own, stream, at):
    """The key of a stream of a tensor's random bits for the elements around `at`."""
    return mixed(mixed(own ^ stream) ^ (at >> SPAN))


# ---- compiling ----

KEYS = (mixed, own_key, stream_key)
"""The functions whose integers have 64 bits; 32 are enough for the others."""


def decorated(
    decorator: Callable[[Any], Any], operators: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All functions above with a decorator, by their names; they call one another's decorated.

    `operators` are those of narrow.py, for integers of 32 bits where these are enough.
    """
    space = {**vars(sys.modules[__name__]), **(operators or {})}
    made = {}
    for name, function in [*space.items()]:
        if isinstance(function, FunctionType) and function.__module__ == __name__:
            if function is decorated:
                continue
            code = function.__code__
            if operators is not None and function not in KEYS:
                code = narrow(function)
            space[name] = made[name] = decorator(FunctionType(code, space, name))
    return made
