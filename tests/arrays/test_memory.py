"""Memory of state arrays: all at the same place of a page, side by side, and zero when new."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from cases import ordinary

import fusedstep as fs
from fusedstep._arrays.memory import LARGE, LINE, PAGE, SMALL, STRIDE, foretold, zeros
from fusedstep._arrays.overlap import extent
from fusedstep._arrays.place import HOST
from fusedstep._arrays.plain import address

SIZES = [1, 7, 100, 1000, 3, 5000, 0, 64]


def params(sizes: list[int] = SIZES, dtype: Any = np.float32) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return [ordinary(rng, n, dtype) for n in sizes]


@pytest.mark.parametrize("like", [0, 4, 68, 4092, 123_456])
@pytest.mark.parametrize("size", [0, 1, SMALL // 4 - 1, SMALL // 4, 10_000])
def test_new_memory_lies_as_another(size: int, like: int) -> None:
    flat = zeros(HOST, size, np.dtype(np.float32), like)
    assert flat.shape == (size,)
    assert not flat.any()
    if size:
        assert (address(flat) - like) % (PAGE if 4 * size >= SMALL else LINE) == 0


def test_large_memory_lies_apart() -> None:
    """In a page that no processor takes for that of another array."""
    made: list[np.ndarray[Any, Any]] = []
    for _ in range(8):
        apart = [address(each) for each in made]
        made.append(zeros(HOST, LARGE // 4, np.dtype(np.float32), 68, apart))
        assert (address(made[-1]) - 68) % PAGE == 0
    assert len({foretold(address(each)) for each in made}) == len(made)
    assert len({foretold(k * STRIDE) for k in range(16)}) == 16


@pytest.mark.parametrize("options", [{}, {"state_dtype": "bfloat16"}, {"state_dtype": "8bit"}])
def test_large_state_lies_apart_from_its_parameter(options: Any) -> None:
    p = np.zeros(2**24, np.float32)
    opt = fs.AdamW(p, **options)
    (parameter,) = opt._tensors.parameters  # noqa: SLF001  # their addresses are not told
    packed = [each.arrays[0] for each in parameter.packed.values()]
    kept = packed or [opt.state[letter] for letter in ("m", "v")]
    places = [foretold(address(each)) for each in (p, *kept)]
    assert len({*places}) == len(places) == 3


def test_state_arrays_lie_side_by_side() -> None:
    arrays = params([n for n in SIZES if n])
    opt = fs.AdamW(arrays)
    for letter in ("m", "v"):
        for before, after in pairwise(each[letter] for each in opt.state):
            assert 0 <= address(after) - extent(before)[1] < LINE
    for p, each in zip(arrays, opt.state, strict=True):
        assert (address(each["m"]) - address(p)) % LINE == 0
        assert (address(each["v"]) - address(each["m"])) % PAGE == 0


@pytest.mark.parametrize(
    "transform",
    [
        lambda a: a,
        lambda a: a[::-1],
        lambda a: a[:, ::-1],
        lambda a: a.T,
        lambda a: np.asfortranarray(a),
        lambda a: a[::2, 1:],
    ],
    ids=["c", "reversed", "columns-reversed", "transposed", "fortran", "gaps"],
)
def test_whatever_their_layout(transform: Any) -> None:
    """The bits are those of the same parameters alone, each in an optimizer of its own."""
    rng = np.random.default_rng(1)
    grown = [ordinary(rng, n * 6, np.float32).reshape(n, 6) for n in (2, 4, 3, 8)]
    together, alone = ([transform(p.copy()) for p in grown] for _ in range(2))
    grads = [transform(rng.standard_normal(p.shape, np.float32)) for p in grown]
    opt = fs.Adam(together, amsgrad=True, ema=0.9)
    singles = [fs.Adam(p, amsgrad=True, ema=0.9) for p in alone]
    for _ in range(3):
        opt.step(grads)
        for single, g in zip(singles, grads, strict=True):
            single.step(g)
    for p, q, state, single in zip(together, alone, opt.state, singles, strict=True):
        np.testing.assert_array_equal(p, q, strict=True)
        assert state.keys() == single.state.keys()
        for letter in state:
            np.testing.assert_array_equal(state[letter], single.state[letter], strict=True)


def test_state_that_comes_back_starts_anew() -> None:
    """A letter that a state dict does not have is given up; what has its memory then is zero."""
    arrays = params([5, 300])
    opt = fs.SGD([{"params": arrays[:1]}, {"params": arrays[1:]}])
    plain = opt.state_dict()
    for group in opt.param_groups:
        group["momentum"] = 0.9
    grads = [[np.ones_like(p)] for p in arrays]
    opt.step(grads)
    assert all(state["b"].all() for group in opt.state for state in group)
    opt.load_state_dict(plain)
    assert all("b" not in state for group in opt.state for state in group)
    opt.param_groups[0]["momentum"] = 0.5
    opt.state_dict()
    assert not opt.state[0][0]["b"].any()
    opt.step(grads)
    np.testing.assert_array_equal(opt.state[0][0]["b"], grads[0][0])


@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_lie_side_by_side_too(way: Any) -> None:
    arrays = params()
    opt = fs.AdamW(arrays, ema=0.9)
    grads = [np.ones_like(p) for p in arrays]
    opt.step(grads)
    copied, own = way((opt, arrays))
    assert [[*state] for state in copied.state] == [["m", "v", "ema", "t"]] * len(SIZES)
    for _ in range(2):
        opt.step(grads)
        copied.step(grads)
    for p, q, one, other in zip(arrays, own, opt.state, copied.state, strict=True):
        np.testing.assert_array_equal(p, q, strict=True)
        for letter in one:
            np.testing.assert_array_equal(one[letter], other[letter], strict=True)
        if p.size:
            assert (address(other["v"]) - address(other["m"])) % PAGE == 0


@pytest.mark.parametrize("holder", [list, fs.Arena])
@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_group_that_is_copied_along_is_the_copys_own(way: Any, holder: Any) -> None:
    opt = fs.SGD(holder([np.ones(3), np.ones(2)]))
    copied, group = way((opt, opt.param_groups[0]))
    assert group is copied.param_groups[0]
    group["lr"] = 0.5
    assert copied.lr == 0.5
    assert opt.lr == 1e-3
    assert [p.size for p in group["params"]] == [3, 2]
    if copied.arena is not None:
        assert group["params"][0] is copied.arena.params[0]
        copied.step()
    else:
        copied.step([np.ones(3), np.ones(2)])
        assert (group["params"][0] == 0.5).all()
