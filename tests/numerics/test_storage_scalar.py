"""The storage formats on one element: in Python's integers and compiled, the bits of storage.py."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import numpy as np
import pytest
from marks import BACKENDS
from patterns import SPECIAL, patterns

from fusedstep._numerics import storage, storage_scalar

Array = np.ndarray[Any, Any]

HALVES = np.arange(2**16, dtype=np.uint32)
"""All 16-bit patterns."""

CODES = np.arange(256, dtype=np.uint32)


@cache
def words() -> Array:
    """Float32 patterns: special ones, any, each exponent, and what float16 rounds at."""
    rng = np.random.default_rng(0)
    exponents = np.arange(256, dtype=np.uint32) << 23
    ends = [exponents | tail for tail in (0, 1, 0x0FFF, 0x1000, 0x7FFF, 0x8000, 0x7FFFFF)]
    halves = storage.load_float16(HALVES[::7]).astype(np.int64)
    near = [(halves + k).astype(np.uint32) for k in (-0x1001, -0x1000, -1, 0, 1, 0x0FFF, 0x1000)]
    every = np.concatenate([SPECIAL, patterns(rng, 5000).view(np.uint32), *ends, *near])
    return np.unique(np.concatenate([every, every ^ 0x80000000]))


def random(below: int, like: Array) -> Array:
    return np.random.default_rng(1).integers(0, below, like.size).astype(np.uint32)


def bases(span: int, u: Array) -> tuple[Array, Array]:
    """Largest elements and bases that blocks of such elements may have."""
    most = storage.size_if_finite(np.random.default_rng(2).permutation(u))
    most = np.maximum(most, storage.size_if_finite(u))
    return storage.base_of(most, span), most


def _arguments() -> dict[str, tuple[Any, ...]]:
    u = words()
    r = random(2**16, u)
    tails = random(2**16, HALVES).astype(np.uint16).view(np.int16)
    tails8 = random(2**8, HALVES).astype(np.uint8).view(np.int8)
    small, _ = bases(storage.SIGNED_SPAN, u)
    of_v, most = bases(storage.UNSIGNED_SPAN, u)
    keys = (0, 0xFFFFFFFF, 0x89ABCDEF)
    places = np.concatenate([SPECIAL, HALVES])
    return {
        "hashed": (places, *keys[1:]),
        "canonical": (u,),
        "load_bfloat16": (HALVES,),
        "nearest_bfloat16": (u,),
        "store_bfloat16": (u, r),
        "rounded_bfloat16": (u,),
        "load_float16": (HALVES,),
        "store_float16": (u,),
        "rounded_float16": (u,),
        "load_split16": (HALVES, tails),
        "store_split16": (u,),
        "load_split8": (HALVES, tails8),
        "nearest_split8": (u,),
        "round_split8": (u, r >> 8),
        "size_if_finite": (u,),
        "base_of": (most, storage.SIGNED_SPAN),
        "load_signed8": (CODES[:, None], small[None, ::50]),
        "code_signed8": (np.where(storage.size_if_finite(u), u, 0), small, r << 4),
        "store_signed8": (u, small, r << 4),
        "load_unsigned8": (CODES[:, None], of_v[None, ::50]),
        "code_unsigned8": (most, of_v, r << 4),
        "store_unsigned8": (u, of_v, most, r << 4),
    }


def first_half(module: Any) -> list[str]:
    """The functions of a module down to the keys of random bits, in their order."""
    text = inspect.getsource(module).partition("# ---- keys of random bits")[0]
    return [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]


def test_both_files_have_the_same_functions() -> None:
    # How wide integers are is a matter of NumPy's alone, and subnormal halves are of the other's.
    theirs = [name for name in first_half(storage) if name != "signed"]
    ours = [name for name in first_half(storage_scalar) if not name.endswith("_subnormal")]
    assert ours == theirs == [*_arguments()]


def check(name: str, function: Callable[..., int], step: int = 1) -> None:
    arrays = [np.atleast_1d(each) for each in np.broadcast_arrays(*_arguments()[name])]
    arrays = [each.reshape(-1)[::step] for each in arrays]
    with np.errstate(all="ignore"):
        scalars = {"hashed": (1, 2), "base_of": (1,)}.get(name, ())
        given = [int(x[0]) if k in scalars else x for k, x in enumerate(arrays)]
        expected = getattr(storage, name)(*given).astype(np.int64)
    found = [function(*(x.item() for x in each)) for each in zip(*arrays, strict=True)]
    wrong = np.flatnonzero(np.array(found) != expected)
    assert wrong.size == 0, [[hex(x[k]) for x in arrays] for k in wrong[:3]]


@pytest.mark.parametrize("name", _arguments())
def test_in_pythons_integers(name: str) -> None:
    check(name, getattr(storage_scalar, name))


@pytest.mark.skipif(BACKENDS["numba"] is not None, reason=f"no Numba: {BACKENDS['numba']}")
@pytest.mark.parametrize("name", _arguments())
def test_compiled(name: str) -> None:
    from fusedstep._backends.numba.tiles import scalar

    check(name, scalar[name])


KEYS = [0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, 0x0123456789ABCDEF, 0xFEDCBA9876543210]


def of_64_bits(x: int) -> int:
    return x & storage.ALL_64


def signed(x: int) -> int:
    """The int64 with these bits."""
    return x - (x >> 63 << 64)


def check_keys(own_key: Any, stream_key: Any) -> None:
    for step in KEYS:
        for ordinal, stream, at in ((0, 0, 0), (1, 2, 2**33 - 1), (70_000, 1, 5 * 2**33 + 7)):
            expected = storage.tensor_key(step, ordinal, stream, at)
            found = stream_key(own_key(signed(step), ordinal), stream, at)
            assert of_64_bits(int(found)) == expected


def test_keys_in_pythons_integers() -> None:
    check_keys(storage_scalar.own_key, storage_scalar.stream_key)


@pytest.mark.skipif(BACKENDS["numba"] is not None, reason=f"no Numba: {BACKENDS['numba']}")
def test_keys_compiled() -> None:
    from fusedstep._backends.numba import tiles

    check_keys(tiles.own_key, tiles.stream_key)


def test_every_function_is_decorated() -> None:
    made = storage_scalar.decorated(lambda function: function)
    every = {
        name
        for name, value in vars(storage_scalar).items()
        if isinstance(value, FunctionType) and value.__module__ == storage_scalar.__name__
    }
    assert {*made} == every - {"decorated"}
