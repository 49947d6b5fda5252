"""Steps over an arena: reports, what they cost, and what is refused."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from arenas import assert_same, assert_same_state, write
from cases import DTYPES, OPTIMIZERS, ones, ordinary
from counting import calls_into_c
from marks import needs_c, on_each_backend

import fusedstep as fs
from fusedstep.schedules import cosine

Array: TypeAlias = np.ndarray[Any, Any]

# ---- what else a step does ----


@on_each_backend
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_skipped_step_names_the_parameters(bad: float, backend: str) -> None:
    """The user's own, and goes the way of one without that step."""
    rng = np.random.default_rng(12)
    shapes = [(3,), (70, 80), (), (0,), (9,)]
    params = {
        k: ordinary(rng, int(np.prod(s)), DTYPES[k % 2]).reshape(s) for k, s in enumerate(shapes)
    }
    arena = fs.Arena(params)
    opt = fs.AdamW(arena, ema=0.9, nonfinite="skip", backend=backend)
    reference = fs.AdamW(params, ema=0.9, nonfinite="skip", backend="numpy")
    for step in range(4):
        grads = {k: ordinary(rng, p.size, p.dtype).reshape(p.shape) for k, p in params.items()}
        for broken in ([1], [4, 0], []):
            for k in broken:
                grads[k].reshape(-1)[-1] = bad
            write(arena.grads, grads)
            report = opt.step(zero_grads=bool(broken))
            assert report == reference.step(grads, zero_grads=bool(broken))
            assert report.skipped == tuple(f"params[{k}]" for k in sorted(broken))
            assert report.t == step + (not broken)
            assert_same(arena.grads, grads)
    assert_same(arena.params, params)
    assert_same_state(opt.state_dict(), reference.state_dict())


@on_each_backend
def test_raise_names_the_parameters(backend: str) -> None:
    arena = fs.Arena([{"params": {"w": ones(2, 3)}}, {"params": [ones(3), ones(1)]}])
    opt = fs.Adam(arena, nonfinite="raise", backend=backend)
    arena.grads[1][0][1] = np.nan
    before = pickle.dumps((arena, opt.state_dict()))
    with pytest.raises(FloatingPointError, match=r"^grads\[1\]\[0\] held NaN or infinity"):
        opt.step(zero_grads=True)
    assert pickle.dumps((arena, opt.state_dict())) == before


@on_each_backend
def test_what_overflows_unscaled_is_looked_for_by_parameter(backend: str) -> None:
    """A norm over all of them may be too large although each of them fits."""
    large = np.full(1, 2.5e38, np.float32)
    for factor, skipped in ((1.0, ()), (1.3, ("params[1]",))):
        arena = fs.Arena([np.zeros(1, np.float32), np.zeros(1, np.float32)])
        opt = fs.SGD(arena, lr=1.0, nonfinite="skip", backend=backend)
        write(arena.grads, [large, large * np.float32(factor)])
        assert opt.step(scale=0.9).skipped == skipped


@on_each_backend
def test_the_norm_is_that_of_the_buffer(backend: str) -> None:
    """Each group's part of each buffer counts as one parameter, to the bit."""
    rng = np.random.default_rng(13)
    sizes = rng.integers(1, 300, 60)
    arena = fs.Arena([ordinary(rng, n, np.float32) for n in sizes])
    write(arena.grads, [ordinary(rng, n, np.float32) for n in sizes])
    flat = arena.buffers["float32"].g
    expected = fs.SGD(np.zeros_like(flat), backend="numpy").step(flat, max_norm=1.0)
    by_parameter = fs.SGD([np.zeros_like(g) for g in arena.grads], backend="numpy").step(
        [*arena.grads], max_norm=1.0
    )
    assert fs.SGD(arena, backend=backend).step(max_norm=1.0) == expected
    assert by_parameter.grad_norm == pytest.approx(expected.grad_norm, rel=1e-15)


def test_schedules() -> None:
    schedule = cosine(0.1, steps=5)
    arena = fs.Arena([{"params": [ones(3), ones(2)], "lr": schedule}, {"params": ones(4)}])
    opt = fs.SGD(arena, lr=lambda t: 1 / t)
    arena.buffers["float32"].g[...] = 1
    for _ in range(3):
        opt.step()
    total = schedule(1) + schedule(2) + schedule(3)
    assert arena.params[0][1] == pytest.approx(1 - total)
    assert arena.params[1] == pytest.approx(1 - (1 + 1 / 2 + 1 / 3))


@on_each_backend
def test_lookahead(backend: str) -> None:
    rng = np.random.default_rng(14)
    params = [ordinary(rng, n, DTYPES[n % 2]) for n in (5, 4, 9, 0)]
    plain = [p.copy() for p in params]
    arena = fs.Arena(params)
    opt = fs.SGD(arena, lr=0.1, momentum=0.9, backend=backend)
    reference = fs.SGD(plain, lr=0.1, momentum=0.9, backend="numpy")
    for _ in range(3):
        with opt.lookahead(), reference.lookahead():
            assert_same(arena.params, plain)
            write(arena.grads, plain)
            grads = [p.copy() for p in plain]
        opt.step()
        reference.step(grads)
        assert_same(arena.params, plain)
    assert len(opt._way.arrays) == 2  # type: ignore[union-attr]  # noqa: SLF001  one a dtype


def test_several_optimizers_over_one_arena() -> None:
    arena = fs.Arena([ones(3), ones(2)])
    one, other = fs.SGD(arena, lr=1.0), fs.SGD(arena, lr=0.5, momentum=0.9)
    arena.buffers["float32"].g[...] = 1
    one.step()
    other.step()
    assert (arena.buffers["float32"].p == -0.5).all()
    assert one.arena is other.arena is arena


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_presets(optimizer: Any) -> None:
    options = getattr(fs.presets.keras, optimizer.__name__, {"lr": 0.01})
    plain = [ones(3), ones(2)]
    arena = fs.Arena(plain)
    opt, reference = optimizer(arena, **options), optimizer(plain, **options)
    arena.buffers["float32"].g[...] = 1
    for _ in range(2):
        assert opt.step() == reference.step([ones(3), ones(2)])
    assert_same(arena.params, plain)


# ---- what it costs ----


def calls_of_a_step(step: Callable[[], Any]) -> int:
    """The number of functions it calls, Python's and C's, once it has been laid out."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    step()
    step()
    sys.setprofile(count)
    try:
        step()
    finally:
        sys.setprofile(None)
    return calls


@on_each_backend
@pytest.mark.parametrize(
    "asked", [{}, {"max_norm": 1.0, "zero_grads": True}], ids=["bare", "whole"]
)
def test_a_step_costs_what_one_tensor_costs(asked: Any, backend: str) -> None:
    """The number of calls is that of a single array and one, for any number of parameters."""

    def calls(params: Any, *grads: Any) -> int:
        opt = fs.AdamW(params, nonfinite="skip", backend=backend)
        return calls_of_a_step(lambda: opt.step(*grads, **asked))

    many = calls(fs.Arena([ones(10) for _ in range(1000)]))
    assert many == calls(fs.Arena(ones(10_000)))
    assert many <= calls(ones(10_000), ones(10_000)) + 1


@needs_c
def test_a_step_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    from fusedstep._arrays import overlap
    from fusedstep._core import tensors

    opt = fs.AdamW(fs.Arena([ones(2) for _ in range(1000)]))
    opt.step()
    assert len(opt.layout.rows) == 1
    calls = calls_into_c(monkeypatch)
    monkeypatch.setattr(overlap, "address", None)
    monkeypatch.setattr(tensors, "stretches", None)
    opt.step()
    assert calls == ["fs_take_and_step"]


def test_it_is_laid_out_once() -> None:
    opt = fs.AdamW(fs.Arena([ones(2) for _ in range(3)]), nonfinite="skip")
    opt.step()
    plan = opt.layout.plan
    opt.lr *= 2
    opt.param_groups[0].update(weight_decay=0.1)
    opt.step(max_norm=1.0)
    opt.step(opt.arena.grads)  # type: ignore[union-attr]
    assert opt.layout.plan is plan
    near = []
    for _ in range(2):
        opt.arena.grads[1][0] = np.nan  # type: ignore[union-attr]
        assert opt.step().skipped == ("params[1]",)
        near.append(opt.layout.closely)
    assert near[0] is near[1] is not None
    assert opt.layout.plan is plan


# ---- what it does not take ----


@pytest.mark.parametrize("params", [[], {}, [[], {}]])
def test_no_parameters(params: Any) -> None:
    with pytest.raises(ValueError, match="params is empty"):
        fs.Arena(params)


def test_parameters_that_will_not_do() -> None:
    p = ones(4)
    with pytest.raises(TypeError, match=re.escape("params['w'] has dtype '<i8'")):
        fs.Arena({"w": np.arange(3)})
    with pytest.raises(TypeError, match=re.escape("params[0] is 'w'")):
        fs.Arena(["w"])
    with pytest.raises(ValueError, match=r"params\[0\] and params\[1\] share memory"):
        fs.Arena([p, p[2:]])
    with pytest.raises(TypeError, match="masked array"):
        fs.Arena(np.ma.masked_array(p))
    assert (p == 1).all()


def test_an_arena_is_all_that_an_optimizer_has() -> None:
    arena = fs.Arena([ones(4)])
    for params in ([arena], {"a": arena}, [{"params": arena}]):
        with pytest.raises(TypeError, match="<arena of 1 parameters: 4 float32>"):
            fs.SGD(params)


def test_hyperparameters_of_groups_are_checked_by_the_optimizer() -> None:
    arena = fs.Arena([{"params": ones(2), "betas": (0.5, 0.5)}, {"params": ones(1), "lr": -1.0}])
    with pytest.raises(KeyError, match=r"params\[0\]: the unknown hyperparameter 'betas'"):
        fs.SGD(arena)
    with pytest.raises(ValueError, match=r"params\[1\]: lr=-1.0 is negative"):
        fs.Adam(arena)


@pytest.mark.parametrize("backend", ["cuda", "none"])
def test_backends_that_cannot_step_it(backend: str) -> None:
    with pytest.raises(ValueError, match=f"backend='{backend}'"):
        fs.SGD(fs.Arena(ones(2)), backend=backend)
