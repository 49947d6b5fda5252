"""The storage formats: their definitions, and the C backend's tiles against them."""

from __future__ import annotations

import struct
from math import frexp, inf, isfinite, isnan, nan
from typing import Any

import numpy as np
import pytest
from marks import needs_c
from patterns import SPECIAL, patterns, same

from fusedstep._arrays.dtypes import BFLOAT16
from fusedstep._numerics.storage import (
    STORAGES,
    TILE,
    Draw,
    in_code_order,
    in_natural_order,
    random_bits,
    step_key,
    tensor_key,
)

Array = np.ndarray[Any, Any]

ml_dtypes = pytest.importorskip("ml_dtypes", reason="needs `pip install '.[bfloat16]'`")

SIZES = (0, 1, 2, 255, 256, 257, 1000)

FINITE = SPECIAL.view(np.float32)[np.isfinite(SPECIAL.view(np.float32))]

by_name = pytest.mark.parametrize("name", STORAGES)


def values(seed: int, n: int = 4 * TILE) -> Array:
    return patterns(np.random.default_rng(seed), n)


def drawn(seed: int, n: int, far: bool = False) -> Array:
    return random_bits(step_key(seed, 1), 0, Draw(0, far), n)


def decoded(name: str, x: Array, r: Array | None = None) -> Array:
    """The values that a format makes of some."""
    return STORAGES[name].decode(x.size, STORAGES[name].encode(x, r))


# ---- 16 bits, held against other packages ----


def test_bfloat16_is_that_of_ml_dtypes() -> None:
    x = values(0)
    (h,) = STORAGES["bfloat16"].encode(x)
    assert h.dtype == BFLOAT16
    with np.errstate(all="ignore"):
        theirs = x.astype(ml_dtypes.bfloat16)
    assert same(STORAGES["bfloat16"].decode(x.size, (h,)), theirs.astype(np.float32))
    finite = ~np.isnan(x)
    assert (h.view(np.uint16) == theirs.view(np.uint16))[finite].all()


def test_float16_is_numpys() -> None:
    x = values(1)
    (h,) = STORAGES["float16"].encode(x)
    with np.errstate(all="ignore"):
        theirs = x.astype(np.float16)
    assert same(h, theirs)
    assert same(STORAGES["float16"].decode(x.size, (h,)), theirs.astype(np.float32))
    assert (h.view(np.uint16)[np.isnan(x)] == 0x7E00).all()


# ---- split ----


def test_split16_loses_nothing() -> None:
    x = np.concatenate([values(2), FINITE])
    assert same(decoded("split16", x), x)


def test_split16_shows_the_nearest_bfloat16() -> None:
    x = values(3)
    x = x[np.isfinite(x) & (np.abs(x) < 3.3e38)]
    p, tail = STORAGES["split16"].encode(x)
    h = p.view(np.uint16)
    seen = h.view(ml_dtypes.bfloat16).astype(np.float64)
    error = np.abs(seen - x)
    for neighbour in (h + 1, h - 1):
        other = neighbour.astype(np.uint16).view(ml_dtypes.bfloat16).astype(np.float64)
        assert (error <= np.abs(other - x))[(h & 0x7FFF) > 0].all()
    tie = tail == -(2**15)
    assert (np.abs(seen)[tie] > np.abs(x)[tie]).all()


def test_a_new_upper_half_counts_whatever_tail_it_meets() -> None:
    """A bfloat16 that somebody assigns is what the next step starts from, but for its tail."""
    h = np.arange(2**16, dtype=np.uint16)
    h = h[np.isfinite(h.view(ml_dtypes.bfloat16).astype(np.float32))]
    h = h[(h & 0x7FFF) > 0]
    for tail in (-(2**15), -1, 0, 1, 2**15 - 1):
        tails = np.full(h.size, tail, np.int16)
        x = STORAGES["split16"].decode(h.size, (h.view(BFLOAT16), tails))
        again, _ = STORAGES["split16"].encode(x)
        assert (again.view(np.uint16) == h).all()


@pytest.mark.parametrize("random", [False, True])
def test_split8_is_a_float_of_24_bits(random: bool) -> None:
    x = values(4)
    y = decoded("split8", x, drawn(4, x.size) if random else None)
    assert (np.isnan(y) == np.isnan(x)).all()
    finite = np.isfinite(x)
    with np.errstate(over="ignore"):
        unit = np.array([2.0 ** (max(frexp(v)[1], -125) - 16) for v in x[finite].tolist()])
    error = np.abs(y[finite].astype(np.float64) - x[finite])
    bound = unit if random else unit / 2
    assert (error[np.isfinite(y[finite])] <= bound[np.isfinite(y[finite])]).all()
    assert (y.view(np.uint32)[finite] & 0xFF == 0).all()


# ---- masters ----


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_a_master_gives_way_to_what_is_assigned(name: str) -> None:
    x = values(5)
    storage = STORAGES[f"master_{name}"]
    p, master = storage.encode(x)
    assert same(storage.decode(x.size, (p, master)), x)
    (assigned,) = STORAGES[name].encode(values(6))
    changed = p.copy()
    changed[::2] = assigned[::2]
    got = storage.decode(x.size, (changed, master))
    kept = changed.view(np.uint16) == p.view(np.uint16)
    assert same(got[kept], x[kept])
    expected: Array = STORAGES[name].decode(x.size, (changed,))
    assert same(got[~kept], expected[~kept])


# ---- 8 bits: against their definition, one number at a time ----


def bits(x: float) -> int:
    return int.from_bytes(struct.pack("<f", x), "little")


def number(u: int) -> float:
    return float(struct.unpack("<f", u.to_bytes(4, "little"))[0])


def block_of(x: list[float], signed: bool, added: list[int]) -> list[float]:
    """The values that a block of numbers is kept as, by the definition of the format."""
    span = (127 if signed else 255) << 20
    sizes = [bits(abs(v)) for v in x]
    most = max((u for u in sizes if u < 0x7F800000), default=0)
    base = max(most - span, 0)
    kept = []
    for v, u, r in zip(x, sizes, added, strict=True):
        if u >= 0x7F800000:
            v, u = (0.0, 0) if signed else (v, most)
        code = max((u - base + r) >> 20, 0)
        size = 0.0 if signed and code == 0 else number(base + (code << 20))
        kept.append(-size if signed and str(v)[0] == "-" else size)
    return kept


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("name", ["signed8", "unsigned8"])
def test_8_bits_are_as_defined(name: str, random: bool) -> None:
    for seed in range(20):
        x = values(seed, 300)
        if seed % 2:  # within a range that codes have, as it is in training
            x = (np.random.default_rng(seed).normal(size=300) * 1e-3).astype(np.float32)
        r = drawn(seed, 300)
        y = decoded(name, x, r if random else None)
        added = [int(k) << 4 if random else 0x80000 for k in r]
        expected = [
            v
            for start in (0, TILE)
            for v in block_of(
                x[start : start + TILE].tolist(), name == "signed8", added[start : start + TILE]
            )
        ]
        assert same(y, np.array(expected, np.float32))


def test_a_block_s_largest_is_exact_and_nothing_small_becomes_zero_in_v() -> None:
    x = np.abs(np.random.default_rng(0).standard_cauchy(TILE)).astype(np.float32)
    x[7] = 0
    y = decoded("unsigned8", x)
    assert y.max() == x.max()
    assert (y > 0).all()
    assert (y >= x.max() * 2.0**-32).all()
    relative = y[x > x.max() * 2.0**-30] / x[x > x.max() * 2.0**-30]
    assert ((relative > 0.94) & (relative < 1.07)).all()
    m = decoded("signed8", np.where(np.arange(TILE) % 2, x, -x).astype(np.float32))
    assert m[7] == 0
    assert (np.sign(m)[np.abs(m) > 0] == np.where(np.arange(TILE) % 2, 1, -1)[np.abs(m) > 0]).all()


@pytest.mark.parametrize("name", ["signed8", "unsigned8"])
@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_what_is_not_finite_reaches_no_neighbour(name: str, bad: float) -> None:
    x = np.random.default_rng(1).random(TILE).astype(np.float32)
    spoilt = x.copy()
    spoilt[[3, 200]] = bad
    clean = x.copy()
    clean[[3, 200]] = 0 if name == "signed8" else np.delete(x, [3, 200]).max()
    assert same(decoded(name, spoilt), decoded(name, clean))
    assert all(map(isfinite, decoded(name, np.full(TILE, bad, np.float32)).tolist()))


def test_codes_lie_in_words_and_are_told_in_order() -> None:
    codes = np.random.default_rng(2).integers(0, 256, 3 * TILE).astype(np.uint8)
    laid = in_code_order(codes)
    words = laid.reshape(-1, TILE // 4, 4)
    for tile, word, byte in [(0, 0, 0), (1, 5, 3), (2, 63, 2)]:
        assert words[tile, word, byte] == codes[TILE * tile + 64 * byte + word]
    assert (in_natural_order(laid, codes.size) == codes).all()


# ---- all ----


@by_name
def test_stored_values_are_stored_as_they_are(name: str) -> None:
    """Saved and loaded, in the same blocks, state does not change."""
    for seed in range(10):
        x = decoded(name, values(seed, 700), drawn(seed, 700) if STORAGES[name].random else None)
        assert same(decoded(name, x), x)
        if STORAGES[name].random:
            assert same(decoded(name, x, drawn(seed + 1, 700)), x)


@by_name
def test_parts_have_their_lengths(name: str) -> None:
    for n in SIZES:
        parts = STORAGES[name].encode(values(n, n))
        lengths = [part.length(n) for part in STORAGES[name].parts]
        assert [each.size for each in parts] == lengths
        assert [each.dtype for each in parts] == [part.dtype for part in STORAGES[name].parts]


@needs_c
@by_name
def test_c_stores_and_loads_the_same(name: str, isa: str) -> None:
    from fusedstep._engine import ffi, lib

    def at(array: Array, kind: str = "void *") -> Any:
        return ffi.cast(kind, array.ctypes.data)

    storage = STORAGES[name]
    in_c = lib.fs_find_storage(name.encode())
    near, far = np.zeros(TILE // 2, np.uint32), np.zeros(TILE // 2, np.uint32)
    for seed, n in enumerate((1, 2, 7, 8, 15, 16, 17, 64, 255, *[256] * 20)):
        key = tensor_key(step_key(seed, 1), 0, 0, 0)
        lib.fs_find_randomize()(0, key, at(near, "uint32_t *"), at(far, "uint32_t *"))
        assert (near.view(np.uint16) == drawn(seed, TILE)).all()
        assert (far.view(np.uint16) == drawn(seed, TILE, far=True)).all()
        x = np.zeros(n, np.float32) if seed == 9 else values(seed, n)
        for r in (None, near) if storage.random else (None,):
            expected = storage.encode(x, None if r is None else drawn(seed, n))
            parts = [np.zeros(part.length(n), part.dtype) for part in storage.parts]
            tile = np.zeros(TILE, np.float32)
            tile[:n] = x
            for part, array in zip(storage.parts, parts, strict=True):
                if part.dtype == np.float32:  # where the values themselves are stepped
                    array[:] = x
            second = at(parts[1]) if len(parts) > 1 else ffi.NULL
            put = in_c.store if r is None else in_c.store_randomly
            put(at(tile, "float *"), at(parts[0]), second, 0, n, ffi.NULL if r is None else at(r))
            for array, content in zip(parts, expected, strict=True):
                assert array.tobytes() == content.tobytes()
            got = in_c.load(at(parts[0]), second, 0, n, at(tile, "float *"))
            loaded = np.frombuffer(ffi.buffer(got, 4 * n), np.float32)
            assert same(loaded, storage.decode(n, expected))


# ---- random bits ----


def test_random_bits_differ_by_all_that_they_depend_on() -> None:
    first = random_bits(step_key(0, 1), 0, Draw(0, False), 2000)
    others = [
        random_bits(step_key(1, 1), 0, Draw(0, False), 2000),
        random_bits(step_key(0, 2), 0, Draw(0, False), 2000),
        random_bits(step_key(0, 1), 1, Draw(0, False), 2000),
        random_bits(step_key(0, 1), 0, Draw(1, False), 2000),
        random_bits(step_key(0, 1), 0, Draw(0, True), 2000),
        first[1:],
    ]
    for other in others:
        assert (first[: len(other)] == other).mean() < 0.01
        correlation = np.corrcoef(first[: len(other)], other)[0, 1]
        assert abs(correlation) < 0.1
    assert len({tensor_key(step_key(0, 1), 0, 0, at) for at in (0, 2**33 - 1, 2**33, 2**34)}) == 3


def test_near_and_far_bits_share_a_hash_and_no_bit() -> None:
    near = random_bits(step_key(3, 4), 5, Draw(0, False), 1001)
    far = random_bits(step_key(3, 4), 5, Draw(0, True), 1001)
    assert (near[0:1000:2] == far[1:1000:2]).all()
    assert (near[1:1000:2] == far[0:1000:2]).all()
    assert (near == far).mean() < 0.01


def test_random_bits_are_even() -> None:
    r = random_bits(step_key(0, 1), 0, Draw(0, False), 2**18)
    counts = np.bincount(r >> 8, minlength=256)
    chi_squared = ((counts - 1024) ** 2 / 1024).sum()
    assert 170 < chi_squared < 350  # 255 on average, with a deviation of 23
    for bit in range(16):
        assert abs((r >> bit & 1).mean() - 0.5) < 0.005


@pytest.mark.parametrize("name", ["bfloat16", "split8", "signed8", "unsigned8"])
def test_stochastic_rounding_is_right_in_the_mean_at_every_exponent(name: str) -> None:
    """The mean of many roundings of one number is the number, as nearly as chance allows."""
    n = 2**14
    for exponent in range(1, 254):
        u = (exponent << 23) | int(np.random.default_rng(exponent).integers(0, 2**23))
        x = number(u)
        block = np.full(n, x, np.float32)
        if name.endswith("8") and name != "split8":
            block[::TILE] = number(min(u + (9 << 20) + 12345, 0x7F7FFFFF))  # what anchors codes
        # Each draw is one of a stratified set: of 2^14 places in the range, all once.
        r = np.random.default_rng(exponent).permutation(np.arange(n, dtype=np.uint32)) << 2
        y = decoded(name, block, r).astype(np.float64)
        if name.endswith("8") and name != "split8":
            y = np.delete(y, np.s_[::TILE])
        steps = np.unique(y)
        if not np.isfinite(steps).all():
            continue
        assert len(steps) <= 2
        width = float(np.ptp(steps)) or abs(x)
        # Codes count in the bits, which are straight within an octave: not across its end.
        across = frexp(float(steps[0]))[1] != frexp(float(steps[-1]))[1]
        assert abs(y.mean() - x) <= width * (0.1 if across else 0.03)
        assert not isnan(y.mean())
