"""State over an arena: resuming, switching it on and off, copies."""

from __future__ import annotations

import copy
import pickle
import re
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pytest
from arenas import address, assert_same, assert_same_state, leaves, write
from cases import BASES, DTYPES, WHOLE_CASES, Case, ones, ordinary
from marks import for_each, on_each_backend

import fusedstep as fs
from fusedstep.schedules import cosine

Array: TypeAlias = np.ndarray[Any, Any]

# ---- state, and resuming ----


def start(case: Case, arena: bool) -> tuple[Any, Any]:
    rng = np.random.default_rng(7)
    params = {
        "w": ordinary(rng, 12, np.float32).reshape(3, 4).T,
        "b": [ordinary(rng, 9, np.float64)],
    }
    made: Any = fs.Arena(params) if arena else params
    return made, case.optimizer(made, **case.options)


def run(params: Any, opt: Any, seed: int, asked: Any) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(3):
        grads = {
            "w": ordinary(rng, 12, np.float32).reshape(4, 3),
            "b": [ordinary(rng, 9, np.float64)],
        }
        if isinstance(params, fs.Arena):
            write(params.grads, grads)
            opt.step(**asked)
        else:
            opt.step(grads, **asked)


@for_each([case for case in WHOLE_CASES if "max_norm" not in case.request][::2])
def test_a_state_dict_goes_there_and_back(case: Case) -> None:
    """State goes from arrays into an arena and back into arrays, as if all had been arrays."""
    expected, reference = start(case, arena=False)
    for seed in range(3):
        run(expected, reference, seed, case.request)
    params: Any
    params, opt = start(case, arena=False)
    for seed, arena in enumerate((False, True, False)):
        values, state_dict = params, opt.state_dict()
        params, opt = start(case, arena)
        if seed:
            write(params.params if arena else params, values)
            opt.load_state_dict(pickle.loads(pickle.dumps(state_dict)))
        run(params, opt, seed, case.request)
        if arena:
            assert_same_state(
                opt.state_dict()["param_groups"], reference.state_dict()["param_groups"]
            )
            params = params.params
    assert_same(params, expected)
    assert_same_state(opt.state_dict(), reference.state_dict())


def test_state_is_live_and_by_parameter() -> None:
    arena = fs.Arena({"w": np.asfortranarray(ones(2, 3)), "b": ones(4)})
    opt = fs.SGD(arena, lr=1.0, momentum=1.0)
    arena.grads["b"][...] = 1
    opt.step()
    assert opt.state["w"]["b"].shape == (2, 3)
    assert opt.state["w"]["b"].flags.f_contiguous
    assert opt.state["b"]["b"].tolist() == [1, 1, 1, 1]
    opt.state["b"]["b"][...] = 5
    arena.grads["b"][...] = 0
    opt.step()
    assert arena.params["b"].tolist() == [-5, -5, -5, -5]
    assert (arena.params["w"] == 1).all()
    assert opt.state["b"]["t"] == 2
    with pytest.raises(TypeError):
        opt.state["b"]["b"] = ones(4)


def differing_t(params: Any, opt: Any, t: list[int]) -> None:
    rng = np.random.default_rng(8)
    state_dict = opt.state_dict()
    for state, steps in zip(state_dict["state"], t, strict=True):
        state["t"] = steps
        state["m"][...] = ordinary(rng, state["m"].size, state["m"].dtype)
    opt.load_state_dict(state_dict)


@on_each_backend
@pytest.mark.parametrize(
    ("t", "rows"),
    [([3, 3, 3, 3, 3], 2), ([1, 1, 4, 4, 4], 4), ([4, 4, 1, 4, 4], 4), ([5, 4, 3, 2, 1], 5)],
)
def test_neighbours_of_the_same_t_are_one_row(t: list[int], rows: int, backend: str) -> None:
    """Each t has one job, with scalars of its own."""
    rng = np.random.default_rng(9)
    params = [
        ordinary(rng, n, dtype)
        for n, dtype in zip((3, 4, 50, 0, 7), [*DTYPES, *DTYPES, np.float32], strict=True)
    ]
    plain = [p.copy() for p in params]
    arena = fs.Arena(params)
    opt = fs.AdamW(arena, nonfinite="skip", backend=backend)
    reference = fs.AdamW(plain, nonfinite="skip", backend="numpy")
    arena.buffers["float32"].g[...] = 0
    opt.step()
    differing_t(arena.params, opt, t)
    differing_t(plain, reference, t)
    write(arena.params, plain)
    for step in range(3):
        grads = [ordinary(rng, p.size, p.dtype) for p in plain]
        grads[2][:step] = np.nan
        write(arena.grads, grads)
        assert opt.step() == reference.step(grads)
    assert_same(arena.params, plain)
    assert_same_state(opt.state_dict(), reference.state_dict())
    assert [state["t"] for state in opt.state] == [k + 1 for k in t]
    assert len(opt.layout.rows) == rows
    assert len(opt.layout.cohorts) == len({(k, p.dtype) for k, p in zip(t, plain, strict=True)})


def two_steps(rng: Any, arena: fs.Arena, plain: list[Array], both: list[Any]) -> None:
    """Steps by the same gradients over an arena and over plain arrays, which go alike."""
    for _ in range(2):
        grads = [ordinary(rng, p.size, np.float32) for p in plain]
        write(arena.grads, grads)
        assert both[0].step() == both[1].step(grads)
    assert_same(arena.params, plain)
    assert_same_state(*(opt.state_dict() for opt in both))


def test_options_that_need_state_switch_on_and_off() -> None:
    rng = np.random.default_rng(10)
    params = [ordinary(rng, n, np.float32) for n in (5, 9, 2)]
    plain = [p.copy() for p in params]
    arena = fs.Arena(params)
    both: list[Any] = [fs.RMSprop(arena), fs.RMSprop(plain)]
    without = [opt.state_dict() for opt in both]

    steps = partial(two_steps, rng, arena, plain, both)
    steps()
    for options in (
        {"momentum": 0.9, "centered": True},
        {"ema": 0.8},
        {"momentum": 0.0},
        {"momentum": 0.5},
    ):
        for opt in both:
            opt.param_groups[0].update(options)
        steps()
    for opt, state_dict in zip(both, without, strict=True):
        opt.load_state_dict(state_dict)
        assert [*opt.state[0]] == ["v", "t"]
    steps()
    for opt in both:
        opt.param_groups[0].update(momentum=0.9, ema=0.5)
    steps()
    assert set(both[0].state[0]) == {"v", "b", "ema", "t"}


def test_state_that_only_some_bring_along() -> None:
    """It is theirs; the others begin at zero when their turn comes, also after it was dropped."""
    rng = np.random.default_rng(11)
    params = [ordinary(rng, n, np.float32) for n in (5, 9, 2)]
    plain = [p.copy() for p in params]
    arena = fs.Arena(params)
    both: list[Any] = [fs.Adam(arena, amsgrad=True), fs.Adam(plain, amsgrad=True)]

    steps = partial(two_steps, rng, arena, plain, both)
    steps()
    for opt in both:
        opt.param_groups[0]["amsgrad"] = False
        state_dict = opt.state_dict()
        del state_dict["state"][0]["x"], state_dict["state"][2]["x"]
        opt.load_state_dict(state_dict)
        assert [("x" in state) for state in opt.state] == [False, True, False]
    steps()
    for opt in both:
        opt.param_groups[0]["amsgrad"] = True
    steps()


def test_dropped_state_gives_up_its_memory() -> None:
    opt = fs.SGD(fs.Arena([ones(5), ones(3)]))
    plain = opt.state_dict()
    opt.param_groups[0]["momentum"] = 0.9
    opt.step()
    (segment,) = {parameter.shelf for parameter in opt.layout.tensors.parameters}
    assert [*segment.states] == ["b"]
    opt.load_state_dict(plain)
    assert [*segment.states] == []


def test_adagrad_starts_from_the_initial_accumulator() -> None:
    opt = fs.Adagrad(fs.Arena([ones(5), np.ones(3)]), initial_accumulator_value=0.25)
    assert all((state["s"] == 0.25).all() for state in opt.state)


# ---- copies ----


WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda made: pickle.loads(pickle.dumps(made)),
}


@on_each_backend
@pytest.mark.parametrize("way", WAYS)
@for_each(BASES[1::4])
def test_a_copy_of_both_stays_together(case: Case, way: str, backend: str) -> None:
    rng = np.random.default_rng(15)
    groups = [
        {
            "params": {
                "w": np.asfortranarray(ordinary(rng, 12, np.float32).reshape(3, 4)),
                "b": np.ones(5),
            }
        },
        {"params": [ordinary(rng, 6, np.float32).reshape(1, 2, 3).transpose(1, 2, 0)], "lr": 0.1},
    ]
    arena = fs.Arena(groups)
    opt = case.optimizer(arena, backend=backend, **case.options)

    def steps(arena: Any, opt: Any, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(2):
            for buffer in arena.buffers.values():
                buffer.g[...] = ordinary(rng, buffer.g.size, buffer.g.dtype)
            opt.step()

    steps(arena, opt, 0)
    opt.param_groups[1]["lr"] = 0.3
    copied, its = WAYS[way]((arena, opt))
    before = pickle.dumps((arena, opt))
    assert its.arena is copied
    for p, q in zip(leaves(arena.params), leaves(copied.params), strict=True):
        assert (p.strides, p.shape, p.dtype) == (q.strides, q.shape, q.dtype)
        buffer = copied.buffers[q.dtype.name]
        assert np.shares_memory(q, buffer.p)
        assert not np.shares_memory(q, p)
        assert address(buffer.p) % 64 == 0
    assert_same(copied.grads, arena.grads)
    views = [view for group in its.param_groups for view in group["params"]]
    assert all(one is other for one, other in zip(views, leaves(copied.params), strict=True))
    assert_same_state(its.state_dict(), opt.state_dict())
    steps(copied, its, 1)
    assert pickle.dumps((arena, opt)) == before
    steps(arena, opt, 1)
    assert_same(copied.params, arena.params)
    assert_same_state(its.state_dict(), opt.state_dict())
    with pytest.raises(TypeError, match=re.escape("grads[1][0] = ")):
        copied.grads[1][0] = ones(2, 3, 1)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_the_optimizer_brings_its_arena(way: str) -> None:
    arena = fs.Arena({"w": ones(2), "b": np.ones(3)})
    opt = fs.Adam(arena, lr=cosine(0.1, 9), ema=0.5, nonfinite="raise")
    arena.grads["w"][...] = 1
    opt.step()
    copied = WAYS[way](opt)
    assert copied.arena is not arena
    assert_same(copied.arena.params, arena.params)
    copied.step()
    opt.step()
    assert_same(copied.arena.params, arena.params)
    assert_same_state(copied.state_dict(), opt.state_dict())
    copied.arena.grads["b"][0] = np.nan
    with pytest.raises(FloatingPointError, match=re.escape("grads['b']")):
        copied.step()


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_keeps_every_t_and_what_was_switched_off(way: str) -> None:
    opt = fs.Adam(fs.Arena([ones(2), ones(3)]), amsgrad=True)
    opt.step()
    opt.param_groups[0]["amsgrad"] = False
    state_dict = opt.state_dict()
    state_dict["state"][1]["t"] = 7
    opt.load_state_dict(state_dict)
    copied = WAYS[way](opt)
    assert_same_state(copied.state_dict(), opt.state_dict())
    assert copied.step().t == 8


def test_a_shallow_copy_of_the_optimizer_is_refused() -> None:
    with pytest.raises(TypeError, match="a shallow copy would step the same state"):
        copy.copy(fs.SGD(fs.Arena(ones(2))))
