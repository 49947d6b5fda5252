"""Digests are of the numbers alone, and of all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import BASES, CUSTOM_BASES, Case
from random_arrays import Array

import fusedstep as fs


def by_hand(opt: Any, names: list[str], params: list[Array], states: list[Any]) -> str:
    """The digest as its contract says, of parameters that are stepped as they are."""
    digests = {}
    for name, p, state in zip(names, params, states, strict=True):
        head = ["fusedstep digest 1", name, p.dtype.name, list(p.shape), state["t"]]
        text = json.dumps(head, separators=(",", ":")).encode() + b"\n" + little(p)
        for letter in sorted(each for each in state if each not in ("t", "row_t")):
            array = state[letter]
            entry = [letter, array.dtype.name, list(array.shape)]
            text += json.dumps(entry, separators=(",", ":")).encode() + b"\n" + little(array)
        digests[name] = hashlib.sha256(text).hexdigest()
    joined = "".join(digests[name] + "\n" for name in sorted(digests))
    return hashlib.sha256(joined.encode()).hexdigest()


def little(array: Array) -> bytes:
    """The bytes of each element on its own."""
    code = "<f4" if array.dtype == np.float32 else "<f8"
    nan = b"\0\0\xc0\x7f" if array.dtype == np.float32 else b"\0\0\0\0\0\0\xf8\x7f"
    return b"".join(
        nan if x != x else np.array(x, code).tobytes() for x in array.reshape(-1).tolist()
    )


def run(make: Callable[[Any], Any], params: Any, grads: Any, steps: int = 3) -> Any:
    opt = make(params)
    for _ in range(steps):
        opt.step(grads)
    return opt


rng = np.random.default_rng(5)
SHAPES = {"w": (7, 5), "b": (), "long": (4099,), "none": (0, 3)}


def draw(dtype: Any = np.float32) -> dict[str, Array]:
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


def copies(given: dict[str, Array]) -> dict[str, Array]:
    return {name: array.copy() for name, array in given.items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", [*BASES, *CUSTOM_BASES], ids=str)
def test_it_is_what_the_contract_says(case: Case, dtype: Any) -> None:
    params, grads = draw(dtype), draw(dtype)
    params["w"][0, :3] = np.nan, np.inf, -0.0
    opt = run(lambda p: case.optimizer(p, **case.options), params, grads)
    states = [opt.state[name] for name in params]
    expected = by_hand(opt, [*params], [*params.values()], [{**each} for each in states])
    assert opt.digest() == expected


def test_it_tells_every_number() -> None:
    params, grads = draw(), draw()
    opt = run(fs.AdamW, params, grads)
    seen = {opt.digest()}
    for name in ("w", "b", "long"):
        for array in (params[name], opt.state[name]["m"], opt.state[name]["v"]):
            before = array.copy()
            flat = array.reshape(-1)
            flat[-1] = np.nextafter(flat[-1], np.float32(9))
            assert opt.digest() not in seen
            seen.add(opt.digest())
            array[...] = before
    assert opt.digest() in seen
    params["b"][...] = 0.0
    zero = opt.digest()
    params["b"][...] = -0.0
    assert opt.digest() != zero
    opt.step(dict.fromkeys(params))
    assert opt.digest() != zero


@pytest.mark.parametrize("backend", ["numpy", "c", "numba"])
def test_it_is_the_same_however_arrays_lie(backend: str) -> None:
    if fs.info().backends[backend] is not None:
        pytest.skip(f"the backend {backend} is not there: fs.info() says why")
    params, grads = draw(), draw()
    expected = run(fs.Adam, copies(params), grads).digest()

    strided = {}
    for name, p in params.items():
        room = np.zeros([2 * n for n in p.shape], p.dtype)
        every: Any = (*(slice(None, None, 2) for _ in p.shape), ...)
        view = room[every]
        strided[name] = view.T[::-1].T if p.ndim == 2 else view
        strided[name][...] = p
    assert run(lambda p: fs.Adam(p, backend=backend), strided, grads).digest() == expected

    arena = fs.Arena(copies(params))
    opt = fs.Adam(arena, backend=backend)
    for _ in range(3):
        for name, g in grads.items():
            arena.grads[name][...] = g
        opt.step()
    assert opt.digest() == expected

    backwards = dict(reversed(copies(params).items()))
    opt = run(lambda p: fs.Adam(p, backend=backend), backwards, grads)
    assert opt.digest() == expected


def test_every_nan_is_the_same() -> None:
    quiet, loud = np.zeros(2, np.float32), np.zeros(2, np.float32)
    quiet.view(np.uint32)[:] = 0x7FC00000, 0xFFC00001
    loud.view(np.uint32)[:] = 0xFF800123, 0x7FFFFFFF
    assert fs.SGD(quiet).digest() == fs.SGD(loud).digest() != fs.SGD(np.zeros_like(loud)).digest()


def test_split_masters_have_the_digest_of_float32() -> None:
    ml_dtypes = pytest.importorskip(
        "ml_dtypes", reason="ml_dtypes is missing; pip install '.[bfloat16]'"
    )
    start = rng.standard_normal(5000).astype(ml_dtypes.bfloat16)
    g = rng.standard_normal(5000).astype(np.float32)
    wide = run(lambda p: fs.AdamW([p]), start.astype(np.float32), [g])
    split = run(lambda p: fs.AdamW([p]), start.copy(), [g])
    assert split.digest() == wide.digest()
    low = run(lambda p: fs.AdamW([p], state_dtype="8bit"), start.copy(), [g])
    assert low.digest() != wide.digest()
    again = fs.AdamW([start.copy()], state_dtype="8bit")
    again.load_state_dict(low.state_dict())
    again.load_float32_params(low.float32_params())
    assert again.digest() == low.digest()


def test_rows_count_where_they_have_a_t_of_their_own() -> None:
    g = np.ones((2, 3))
    own = fs.Adam(np.ones((5, 3)))
    own.step(fs.Rows([0, 4], g))
    shared = fs.Adam(np.ones((5, 3)), row_steps="shared")
    shared.step(fs.Rows([0, 4], g))
    assert (own.state["m"] == shared.state["m"]).all()
    assert own.digest() != shared.digest()
    whole, rows = fs.Adam(np.ones((2, 3))), fs.Adam(np.ones((2, 3)))
    whole.step(g)
    rows.step(fs.Rows([0, 1], g))
    assert whole.digest() == rows.digest()


def test_rows_that_lag_behind_catch_up_first() -> None:
    lagging = fs.SGD(np.ones((5, 3)), momentum=0.5, untouched="exact")
    dense = fs.SGD(np.ones((5, 3)), momentum=0.5)
    for row in (0, 3, 3):
        rows = fs.Rows([row], np.ones((1, 3)))
        lagging.step(rows)
        whole = np.zeros((5, 3))
        whole[row] = 1
        dense.step(whole)
    assert lagging.digest() == dense.digest()


def test_keys_with_dots_that_would_be_one_name_are_told_apart() -> None:
    one = fs.SGD({"a.b": np.zeros(1), "a": {"b": np.ones(1)}})
    other = fs.SGD({"a.b": np.ones(1), "a": {"b": np.zeros(1)}})
    assert one.digest() != other.digest()
    assert fs.SGD([np.ones(2)]).digest() != fs.SGD(np.ones(2)).digest()


def test_ahead_there_is_none() -> None:
    opt = fs.SGD(np.zeros(3), momentum=0.9)
    with opt.lookahead(), pytest.raises(RuntimeError, match="digest inside of lookahead"):
        opt.digest()
