"""Nesterov's momentum: gradients taken ahead, and the frameworks' form of it, are one method."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import pytest
from cases import differing_bits, difficult, ordinary
from counting import calls_of
from marks import for_each_dtype, needs, on_each_backend
from memory_layouts import LAYOUTS, SHAPE, outside

import fusedstep as fs
from fusedstep._core import lookahead as lookahead_module
from fusedstep._core.declaration import declaration_of

Array: TypeAlias = np.ndarray[Any, Any]
Gradient: TypeAlias = Callable[[Array], Array]

STEPS = 200
SIZE = 60

# Each step rounds some five times, which errors of one step outlive by 1 / (1 - μ) = 10 steps.
TOLERANCE = 1e-12


def rosenbrock() -> tuple[Array, Gradient]:
    """Chained over all elements: a curved valley with steep walls."""

    def gradient(p: Array) -> Array:
        g = np.zeros_like(p)
        along = p[1:] - p[:-1] ** 2
        g[1:] = 200 * along
        g[:-1] += -400 * p[:-1] * along - 2 * (1 - p[:-1])
        return g

    return np.linspace(-1, 1.5, SIZE), gradient


def logistic() -> tuple[Array, Gradient]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, SIZE))
    y = rng.integers(0, 2, 100)

    def gradient(p: Array) -> Array:
        return np.asarray(x.T @ (1 / (1 + np.exp(-x @ p)) - y) / len(x) + 1e-3 * p)

    return np.zeros(SIZE), gradient


PROBLEMS = {"rosenbrock": (rosenbrock, 2e-4), "logistic": (logistic, 0.5)}
MOMENTUM = 0.9


def rates(lr: float, changing: bool) -> list[float]:
    return [lr * (0.6 + 0.4 * np.cos(t / 7)) if changing else lr for t in range(STEPS)]


def points_ahead(make: Any, lr: float, changing: bool, **options: Any) -> Iterator[Array]:
    """Sutskever's form: plain momentum, with the gradient taken at p - α·μ·b."""
    p, gradient = make()
    opt = fs.SGD(p, momentum=MOMENTUM, **options)
    for opt.lr in rates(lr, changing):
        alpha = 1.0 if options.get("lr_in_momentum") else opt.lr
        ahead = p - alpha * MOMENTUM * opt.state["b"]
        yield ahead
        opt.step(gradient(ahead))


def points_of_nesterov(make: Any, lr: float, changing: bool, **options: Any) -> Iterator[Array]:
    """The frameworks' form: parameters that are ahead all the time."""
    p, gradient = make()
    opt = fs.SGD(p, momentum=MOMENTUM, nesterov=True, **options)
    for opt.lr in rates(lr, changing):
        yield p.copy()
        opt.step(gradient(p))


def points_of_lookahead(make: Any, lr: float, changing: bool, **options: Any) -> Iterator[Array]:
    p, gradient = make()
    opt = fs.SGD(p, momentum=MOMENTUM, **options)
    for opt.lr in rates(lr, changing):
        with opt.lookahead():
            yield p.copy()
            g = gradient(p)
        opt.step(g)


def assert_same_way(found: Iterator[Array], expected: Iterator[Array]) -> None:
    actual, wanted = np.stack([*found]), np.stack([*expected])
    assert len(actual) == STEPS
    assert np.isfinite(wanted).all()
    assert (wanted[-1] != wanted[0]).all()
    sizes = np.maximum.accumulate(np.abs(wanted).max(axis=1))[:, None]
    assert (np.abs(actual - wanted) <= TOLERANCE * sizes).all()


for_each_problem = pytest.mark.parametrize("problem", PROBLEMS)


@on_each_backend
@for_each_problem
@pytest.mark.parametrize("ahead", [points_ahead, points_of_lookahead])
def test_both_forms_go_the_same_way(problem: str, ahead: Any, backend: str) -> None:
    make, lr = PROBLEMS[problem]
    options = {"backend": backend}
    expected = points_of_nesterov(make, lr, False, **options)
    assert_same_way(ahead(make, lr, False, **options), expected)


@on_each_backend
@for_each_problem
@pytest.mark.parametrize("ahead", [points_ahead, points_of_lookahead])
def test_with_the_rate_in_the_buffer_also_while_it_changes(
    problem: str, ahead: Any, backend: str
) -> None:
    make, lr = PROBLEMS[problem]
    options = {"backend": backend, "lr_in_momentum": True}
    expected = points_of_nesterov(make, lr, True, **options)
    assert_same_way(ahead(make, lr, True, **options), expected)


@for_each_problem
def test_with_the_rate_outside_they_part_while_it_changes(problem: str) -> None:
    make, lr = PROBLEMS[problem]
    ways = [[*walk(make, lr, True)] for walk in (points_of_lookahead, points_of_nesterov)]
    assert np.abs(ways[0][-1] - ways[1][-1]).max() > 1e-6


@for_each_problem
def test_torch_goes_that_way(problem: str) -> None:
    torch: Any = needs("torch", "torch")
    make, lr = PROBLEMS[problem]

    def points_of_torch() -> Iterator[Array]:
        start, gradient = make()
        p = torch.nn.Parameter(torch.from_numpy(start))
        opt = torch.optim.SGD([p], lr=lr, momentum=MOMENTUM, nesterov=True)
        for _ in range(STEPS):
            yield p.detach().numpy().copy()
            p.grad = torch.from_numpy(gradient(p.detach().numpy()))
            opt.step()

    assert_same_way(points_of_lookahead(make, lr, False), points_of_torch())


# ---- the block itself ----


def bits(array: Array) -> bytes:
    return array.tobytes()


@on_each_backend
@pytest.mark.parametrize("lr_in_momentum", [False, True])
@for_each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back(layout: str, dtype: Any, lr_in_momentum: bool, backend: str) -> None:
    rng = np.random.default_rng(0)
    p, memory = LAYOUTS[layout](dtype)
    p[...] = ordinary(rng, p.size, dtype).reshape(SHAPE)
    untouched = outside(p, memory)
    opt = fs.SGD(p, lr=0.3, momentum=0.7, lr_in_momentum=lr_in_momentum, backend=backend)
    shift = dtype(0.7 if lr_in_momentum else 0.3 * 0.7)
    for _ in range(3):
        before, b = bits(memory), opt.state["b"].copy()
        with opt.lookahead():
            ahead = p.copy()
            assert outside(p, memory) == untouched
        assert bits(memory) == before
        assert differing_bits(ahead, p - shift * b) == 0
        assert differing_bits(opt.state["b"], b) == 0
        opt.step(ordinary(rng, p.size, dtype).reshape(SHAPE))
    assert b.all()


@on_each_backend
@for_each_dtype
def test_difficult_values_come_back(dtype: Any, backend: str) -> None:
    """NaNs with their payloads, zeros with their signs."""
    rng = np.random.default_rng(0)
    p = difficult(rng, 5000, dtype)
    bit_patterns = p.view(f"u{p.itemsize}")
    bit_patterns[np.isnan(p)] += rng.integers(0, 99, np.isnan(p).sum(), bit_patterns.dtype)
    opt = fs.SGD(p, momentum=0.9, backend=backend)
    opt.step(difficult(rng, 5000, dtype))
    before = bits(p)
    with opt.lookahead():
        assert bits(p) != before
    assert bits(p) == before


@on_each_backend
def test_an_exception_brings_them_back(backend: str) -> None:
    p = np.ones(5, np.float32)
    opt = fs.SGD(p, lr=0.1, momentum=0.9, backend=backend)
    opt.step(np.ones(5, np.float32))
    before = bits(p)
    with pytest.raises(ZeroDivisionError), opt.lookahead():
        p[...] = 1 // int(p[0] - p[1])
    assert bits(p) == before
    opt.step(np.ones(5, np.float32))
    assert opt.state["t"] == 2


def groups() -> tuple[list[Array], Any]:
    arrays: list[Array] = [np.ones(3, np.float32), np.ones(3), np.ones((2, 2))]
    arrays += [np.ones(0), np.ones(())]
    return arrays, [
        {"params": arrays[:2]},
        {"params": {"w": arrays[2]}, "lr": 0.5, "momentum": 0.25},
        {"params": arrays[3:], "lr_in_momentum": True, "maximize": True},
    ]


@on_each_backend
def test_groups_and_skipped_gradients(backend: str) -> None:
    """Each parameter by its own α, μ and b, and as long as it was never stepped, b = 0."""
    arrays, params = groups()
    opt = fs.SGD(params, lr=0.125, momentum=0.5, backend=backend)
    shifts = [0.125 * 0.5, 0.125 * 0.5, 0.5 * 0.25, 0.5, 0.5]
    patterns = [(1, 1, 1, 1, 1), (1, 0, 1, 1, 1), (1, 0, 1, 1, 0), (1, 1, 1, 1, 1)]
    for pattern in [(1, 0, 1, 1, 1), *patterns]:
        states = [*opt.state[0], opt.state[1]["w"], *opt.state[2]]
        expected = [
            p - p.dtype.type(shift) * state["b"]
            for p, shift, state in zip(arrays, shifts, states, strict=True)
        ]
        before = [bits(p) for p in arrays]
        with opt.lookahead():
            assert all(differing_bits(*pair) == 0 for pair in zip(arrays, expected, strict=True))
        assert [bits(p) for p in arrays] == before
        g = [
            np.full_like(p, 1.5) if there else None
            for p, there in zip(arrays, pattern, strict=True)
        ]
        opt.step([g[:2], {"w": g[2]}, g[3:]])
    assert [state["t"] for state in states] == [5, 2, 5, 5, 4]


@on_each_backend
def test_the_step_that_comes_decides(backend: str) -> None:
    """Values that were assigned, loaded or copied since the last step count."""
    p = np.ones(4)
    opt = fs.SGD(p, lr=0.5, backend=backend)
    opt.step(np.ones(4))
    opt.param_groups[0].update(lr=0.25, momentum=0.5)
    with opt.lookahead():
        assert (p == 0.5).all()
    opt.step(np.ones(4))
    with opt.lookahead():
        assert (p == 0.25 - 0.125).all()
    saved = opt.state_dict()
    saved["state"]["b"][...] = 2
    opt.load_state_dict(saved)
    opt.lr = 1.0
    with opt.lookahead():
        assert (p == 0.25 - 1).all()
    twin_p, twin = copy.deepcopy((p, opt))
    with twin.lookahead():
        assert (twin_p == 0.25 - 1).all()
        assert (p == 0.25).all()


@on_each_backend
def test_state_that_went_and_came_again(backend: str) -> None:
    """Loading what has no b drops it: the b that comes later is another array."""
    p = np.ones(4)
    opt = fs.SGD(p, lr=0.5, momentum=0.5, backend=backend)
    opt.step(np.ones(4))
    with opt.lookahead():
        assert (p == 0.25).all()
    opt.load_state_dict(fs.SGD(p.copy()).state_dict())
    opt.param_groups[0].update(lr=0.5, momentum=0.5)
    with opt.lookahead():
        assert (p == 0.5).all()


def test_each_parameter_is_asked_for_at_its_own_next_t(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look ahead depends on t as the step does, by the same t."""
    declaration = declaration_of(fs.SGD)

    def scalars(h: Any, t: int) -> Any:
        return {**declaration.scalars(h, t), "lr": 0.5**t}

    monkeypatch.setattr(fs.SGD, "_declaration", replace(declaration, scalars=scalars))
    params = [np.ones(4), np.ones(4)]
    opt = fs.SGD(params, momentum=0.5)
    opt.step([np.ones(4), np.ones(4)])
    for t in (1, 2, 3):
        before = [p.copy() for p in params]
        with opt.lookahead():
            for p, start, steps, state in zip(params, before, (t, 1), opt.state, strict=True):
                assert (p == start - 0.5 ** (steps + 1) * 0.5 * state["b"]).all()
        opt.step([np.ones(4), None])


def test_in_a_loop_it_is_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    p = np.ones(4)
    opt = fs.SGD(p, momentum=0.5)
    opt.step(np.ones(4))
    made = calls_of(monkeypatch, lookahead_module, "Plan")
    for _ in range(4):
        with opt.lookahead():
            g = 2 * p
        opt.step(g)
        opt.lr *= 0.5
    assert len(made) == 1


def test_refusals_change_nothing() -> None:
    p, q = np.ones(3), np.ones(2)
    opt = fs.SGD([{"params": p}, {"params": q, "momentum": 0.5}], lr=0.5, momentum=0.5)
    opt.step([np.ones(3), np.ones(2)])
    saved = opt.state_dict()
    for options, message in (
        ({"momentum": 0.0}, r"momentum=0\.0 in param_groups\[1\].*pass momentum=0\.9"),
        ({"nesterov": True}, r"nesterov=True in param_groups\[1\].*pass nesterov=False"),
    ):
        opt.param_groups[1].update(options)
        with pytest.raises(ValueError, match=message), opt.lookahead():
            pytest.fail("entered")
        assert (p == 0.5).all()
        assert (q == 0.5).all()
        opt.param_groups[1].update(momentum=0.5, nesterov=False)
    with opt.lookahead():
        with pytest.raises(RuntimeError, match=r"^step inside of lookahead\(\).*before step$"):
            opt.step([np.ones(3), np.ones(2)])
        with pytest.raises(RuntimeError, match=r"^load_state_dict inside.*before load_state_dict$"):
            opt.load_state_dict(saved)
        opt.param_groups[0]["ema"] = 0.5  # an average that must not start from the point ahead
        with pytest.raises(RuntimeError, match=r"^state_dict inside.*before state_dict$"):
            opt.state_dict()
        for copied in (copy.deepcopy, pickle.dumps):
            with pytest.raises(RuntimeError, match=r"^a copy inside.*before a copy$"):
                copied(opt)
        with pytest.raises(RuntimeError, match=r"^lookahead inside"), opt.lookahead():
            pytest.fail("entered")
        assert (p == 0.25).all()
    assert (p == 0.5).all()
    assert opt.state[0]["t"] == 1
    assert (opt.state_dict()["state"][0]["ema"] == 0.5).all()
    opt.load_state_dict(saved)
    opt.step([np.ones(3), np.ones(2)])
    assert (p == -0.25).all()


def test_a_block_among_others() -> None:
    """`contextlib` looks for the methods in the class."""
    p = np.zeros(2)
    opt = fs.SGD(p, lr=1.0, momentum=0.5)
    opt.step(np.ones(2))
    with ExitStack() as stack:
        stack.enter_context(opt.lookahead())
        assert (p == -1.5).all()
    assert (p == -1).all()
    block = opt.lookahead()
    assert block.__enter__() is None
    assert not block.__exit__(None, None, None)
    assert (p == -1).all()


def test_a_block_that_nobody_leaves() -> None:
    """A generator that is dropped is closed, and so is a block."""
    p = np.zeros(2)
    opt = fs.SGD(p, lr=1.0, momentum=0.5)
    opt.step(np.ones(2))
    block = opt.lookahead()
    block.__enter__()
    with pytest.raises(RuntimeError, match="inside of lookahead"):
        opt.step(np.ones(2))
    del block
    assert (p == -1).all()
    assert opt.step(np.ones(2)).t == 2


@on_each_backend
def test_a_block_is_entered_once(backend: str) -> None:
    p = np.zeros(2)
    opt = fs.SGD(p, lr=1.0, momentum=0.5, backend=backend)
    opt.step(np.ones(2))
    block = opt.lookahead()
    block.__exit__(None, None, None)  # nothing, for it has not been entered
    with block:
        assert (p == -1.5).all()
        with pytest.raises(RuntimeError, match=r"call lookahead\(\) for each"), block:
            pass
        assert (p == -1.5).all()
    assert (p == -1).all()
    with pytest.raises(RuntimeError, match=r"call lookahead\(\) for each"), block:
        pass
    assert (p == -1).all()
    with opt.lookahead():
        assert (p == -1.5).all()
    assert opt.step(np.ones(2)).t == 2


@on_each_backend
def test_parameters_cannot_be_resized_where_they_stand_ahead(backend: str) -> None:
    """On the way back they would be written past their end."""
    p = np.zeros(400_000)
    opt = fs.SGD(p, lr=1.0, momentum=0.5, backend=backend)
    opt.step(np.ones(400_000))
    for _ in range(2):
        with opt.lookahead(), pytest.raises(ValueError, match="cannot resize"):
            p.resize(10, refcheck=False)
        assert (p == -1).all()
    opt.param_groups[0]["lr"] = lambda t: t / 0
    with pytest.raises(ZeroDivisionError), opt.lookahead():
        pass
    p.resize(10, refcheck=False)
    opt.param_groups[0]["lr"] = 1.0
    with pytest.raises(ValueError, match="has been resized"), opt.lookahead():
        pass
    p.resize(9, refcheck=False)  # a way ahead that was refused holds nothing


def test_an_exception_passes_through() -> None:
    p = np.zeros(2)
    opt = fs.SGD(p, lr=1.0, momentum=0.5)
    opt.step(np.ones(2))
    with pytest.raises(KeyError), opt.lookahead():
        raise KeyError
    assert (p == -1).all()
