"""Arrays as learning rates: each column of a parameter as if it were one of its own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import differing_bits
from random_arrays import Array

import fusedstep as fs

ENGINES = [name for name in ("numpy", "c", "numba") if fs.info().backends[name] is None]

engines = pytest.mark.parametrize("backend", ENGINES)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])

STEPS = 9

OPTIMIZERS: list[tuple[type, dict[str, Any]]] = [
    (fs.SGD, {}),
    (fs.SGD, {"momentum": 0.9, "lr_in_momentum": True, "dampening": 0.5}),
    (fs.Adagrad, {"lr_decay": 0.1, "weight_decay": 0.1}),
    (fs.RMSprop, {"centered": True, "momentum": 0.5}),
    (fs.Adam, {"l1": 0.1, "maximize": True, "eps_inside_sqrt": True}),
    (fs.AdamW, {"amsgrad": True, "ema": 0.9, "weight_decay": 0.5}),
]

SHAPES = [
    ((7, 5), [0.1, 0.1, 0.01, 0.1, 0.5]),
    ((5, 2, 3), [[0.1], [0.2]]),
    ((4, 19), np.linspace(0, 0.5, 19)),
    ((5, 3), [0.3]),
    ((4, 3), [[0.1, 0.2, 0.2]]),
    ((5, 2, 3), [[[0.1], [0.2]]]),
]

Gradient = Any
Gradients = Callable[[int, tuple[int, ...], Any], Gradient]


def whole(k: int, shape: tuple[int, ...], dtype: Any) -> Array:
    return np.random.default_rng(k).normal(size=shape).astype(dtype)


def of_rows(k: int, shape: tuple[int, ...], dtype: Any) -> fs.Rows:
    """Gradients of some rows, of some several times."""
    rng = np.random.default_rng(k)
    n = rng.integers(0, 6)
    index = rng.integers(0, shape[0], n)
    return fs.Rows(index, rng.normal(size=(n, *shape[1:])).astype(dtype))


def both(k: int, shape: tuple[int, ...], dtype: Any) -> Gradient:
    return (whole if k % 4 == 2 else of_rows)(k, shape, dtype)


def column(g: Gradient, at: int) -> Gradient:
    """The gradient of one column, as of a parameter of its own."""
    if isinstance(g, fs.Rows):
        return fs.Rows(g.index, column(g.values, at))
    return np.ascontiguousarray(g.reshape(len(g), int(np.prod(g.shape[1:])))[:, at : at + 1])


class Columns:
    """An optimizer for each column, with a number as its learning rate."""

    def __init__(self, kind: Any, p: Array, lr: Any, **options: Any) -> None:
        self.shape = p.shape
        self.p = [column(p, at).copy() for at in range(p[0].size)]
        self.each = [kind(p, **options) for p in self.p]
        self.set_rate(lr)

    def set_rate(self, lr: Any) -> None:
        rates = np.broadcast_to(lr, (1, *self.shape[1:])).reshape(-1).tolist()
        for optimizer, rate in zip(self.each, rates, strict=True):
            optimizer.lr = rate

    def step(self, g: Gradient, **options: Any) -> None:
        for at, optimizer in enumerate(self.each):
            optimizer.step(column(g, at), **options)

    def values(self) -> Array:
        for optimizer in self.each:
            optimizer.catch_up()
        return np.concatenate(self.p, axis=1).reshape(self.shape)

    def state(self, letter: str) -> Array:
        states = [optimizer.state[letter] for optimizer in self.each]
        return np.concatenate(states, axis=1).reshape(self.shape)


def start(shape: tuple[int, ...], dtype: Any, order: Any = "C") -> Array:
    return np.asarray(np.random.default_rng(7).normal(size=shape), dtype, order=order)


def check(optimizer: Any, p: Array, columns: Columns) -> None:
    """Parameters and state have the bits of the columns' own."""
    optimizer.catch_up()
    assert differing_bits(p, columns.values()) == 0
    for letter in optimizer.state.keys() - {"t", "row_t"}:
        assert differing_bits(optimizer.state[letter], columns.state(letter)) == 0


@engines
@dtypes
@pytest.mark.parametrize(
    "kept", [{}, {"row_steps": "shared"}, {"untouched": "exact"}], ids=["own", "shared", "exact"]
)
@pytest.mark.parametrize("gradients", [whole, of_rows, both])
@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
def test_columns_are_parameters_of_their_own(
    kind: Any,
    options: dict[str, Any],
    gradients: Gradients,
    kept: dict[str, Any],
    dtype: Any,
    backend: str,
) -> None:
    for (shape, lr), order in zip(SHAPES, "CFCCCF", strict=True):
        p = start(shape, dtype, order)
        columns = Columns(kind, p, lr, backend=backend, **options, **kept)
        optimizer = kind(p, lr=np.array(lr), backend=backend, **options, **kept)
        for k in range(STEPS):
            g = gradients(k, shape, dtype)
            optimizer.step(g)
            columns.step(g)
        check(optimizer, p, columns)


@engines
@pytest.mark.parametrize("untouched", ["frozen", "exact"])
def test_wide_rows(untouched: str, backend: str) -> None:
    """Gradients of one row are added up piece by piece, and a piece may end within a run."""
    p = start((3, 2500), np.float32)
    halves = [p[:, :1100].copy(), p[:, 1100:].copy()]
    options: Any = {"untouched": untouched, "backend": backend}
    each = [fs.AdamW(half, lr=lr, **options) for half, lr in zip(halves, (0.1, 0.2), strict=True)]
    optimizer = fs.AdamW(p, lr=np.repeat([0.1, 0.2], [1100, 1400]), **options)
    for k in range(6):
        g = of_rows(k, p.shape, np.float32)
        optimizer.step(g)
        each[0].step(fs.Rows(g.index, g.values[:, :1100]))
        each[1].step(fs.Rows(g.index, g.values[:, 1100:]))
    for one in (optimizer, *each):
        one.catch_up()
    assert differing_bits(p, np.concatenate(halves, axis=1)) == 0


@engines
@pytest.mark.parametrize("kept", [{}, {"row_steps": "shared"}, {"untouched": "exact"}])
@pytest.mark.parametrize("shape", [(3, 0), (0, 3), (3, 2, 0)])
def test_nothing_to_step(shape: tuple[int, ...], kept: dict[str, Any], backend: str) -> None:
    p = np.zeros(shape)
    optimizer = fs.Adam(p, lr=np.array([0.1] * max(shape[-1], 1)), backend=backend, **kept)
    optimizer.step(p.copy())
    optimizer.step(fs.Rows(range(shape[0]), p.copy()))
    optimizer.step(fs.Rows([], p[:0].copy()), max_norm=1.0)
    optimizer.catch_up()
    assert optimizer.state["t"] == 3


@engines
@pytest.mark.parametrize("kept", [{}, {"row_steps": "shared"}, {"untouched": "exact"}])
@pytest.mark.parametrize("width", [511, 512, 513, 700, 3000])
def test_many_different_rates(width: int, kept: dict[str, Any], backend: str) -> None:
    """More than are laid out for one row, or for several."""
    p, lr = start((3, width), np.float32), np.linspace(0.001, 0.1, width)
    q, columns = p.copy(), np.unique(np.linspace(0, width - 1, 40).astype(int))
    optimizer = fs.AdamW(p, lr=lr, backend=backend, **kept)
    some = [np.ascontiguousarray(q[:, at : at + 1]) for at in columns]
    each = [fs.AdamW(x, lr=lr[at], **kept) for x, at in zip(some, columns, strict=True)]
    for k in range(5):
        g = both(k, p.shape, np.float32)
        optimizer.step(g)
        for at, one in zip(columns, each, strict=True):
            one.step(column(g, at))
    for one in (optimizer, *each):
        one.catch_up()
    assert differing_bits(p[:, columns], np.concatenate(some, axis=1)) == 0


@engines
@pytest.mark.parametrize("gradients", [whole, of_rows, both])
@pytest.mark.parametrize("untouched", ["frozen", "exact"])
def test_another_rate_at_each_step(untouched: str, gradients: Gradients, backend: str) -> None:
    """Columns that were alike come apart, and the other way round."""
    rates = [
        np.array([0.1, 0.1, 0.2]),
        0.1,
        np.array([0.1, 0.2, 0.2]),
        np.array([[0.5, 0.1, 0.1]])[0],
        np.array([0.3]),
        np.zeros(3),
        0.0,
        np.array([0.1, 0.2, 0.3]),
    ]
    for first in range(3):
        p = start((6, 3), np.float64)
        options = {"weight_decay": 0.5, "untouched": untouched, "backend": backend}
        columns = Columns(fs.AdamW, p, rates[first], **options)
        optimizer = fs.AdamW(p, lr=rates[first], **options)  # type: ignore[arg-type]
        for k, lr in enumerate(rates[first:]):
            optimizer.lr = lr
            columns.set_rate(lr)
            for more in range(3):
                g = gradients(10 * k + more, p.shape, np.float64)
                optimizer.step(g)
                columns.step(g)
        check(optimizer, p, columns)


def fading(t: int) -> Any:
    """Rates that are all the same at some steps."""
    return np.array([0.1, 0.1, 0.2]) * (t % 3) + (t > 5) * np.array([0.0, 0.1, 0.0])


@engines
@pytest.mark.parametrize("gradients", [whole, of_rows, both])
@pytest.mark.parametrize("untouched", ["frozen", "exact"])
def test_schedules(untouched: str, gradients: Gradients, backend: str) -> None:
    p = start((6, 3), np.float32)
    options = {"weight_decay": 0.5, "untouched": untouched, "backend": backend}
    columns = Columns(fs.AdamW, p, 0.0, **options)
    for at, each in enumerate(columns.each):
        each.lr = lambda t, at=at: float(fading(t)[at])
    optimizer = fs.AdamW(p, lr=fading, **options)  # type: ignore[arg-type]
    for k in range(16):
        g = gradients(k, p.shape, np.float32)
        optimizer.step(g)
        columns.step(g)
    check(optimizer, p, columns)


def test_a_schedule_that_turns_into_an_array() -> None:
    def schedule(t: int) -> Any:
        return 0.1 if t < 3 else np.array([0.1, 0.2])

    flat, both_of = np.ones((3, 2)), fs.Arena([np.ones((3, 2)), np.ones((2, 2))])
    one, over_arena = fs.SGD(flat, lr=schedule), fs.SGD(both_of, lr=schedule)
    for _ in range(4):
        both_of.grads[0][...] = both_of.grads[1][...] = 1
        one.step(np.ones((3, 2)))
        over_arena.step()
    expected = 1 - 0.1 - 0.1 - np.array([0.1, 0.2]) - np.array([0.1, 0.2])
    assert (flat == expected).all()
    assert (both_of.params[0] == expected).all()
    assert (both_of.params[1] == expected).all()


# ---- with all the rest ----


@engines
def test_what_a_step_is_asked_for(backend: str) -> None:
    """The norm is that of the whole gradient; each row's own t has the same clip."""
    lr = np.array([0.1, 0.2, 0.2])
    for kept in ({}, {"row_steps": "shared"}, {"untouched": "exact"}):
        p, q, r = (start((5, 3), np.float32) for _ in range(3))
        optimizer = fs.Adam([p, q], lr=lr, backend=backend, **kept)  # type: ignore[arg-type]
        columns = Columns(fs.Adam, p, lr, backend=backend, **kept)
        for k in range(6):
            g, other = both(k, p.shape, np.float32), whole(90 + k, q.shape, np.float32)
            if k % 2:
                report = optimizer.step([g, other], scale=4.0, max_norm=0.1, max_value=0.01)
                columns.step(g, scale=4.0 / report.clip, max_value=0.01)
            else:
                optimizer.step([g, other], max_norm=0.2, clip="tensor")
                alone = fs.SGD(r, backend=backend).step(g, max_norm=0.2)
                columns.step(g, scale=1 / alone.clip)
        optimizer.catch_up()
        assert np.allclose(p, columns.values(), rtol=1e-5, atol=1e-6)


@engines
def test_zeros_are_left(backend: str) -> None:
    p, g = start((5, 3), np.float64), whole(0, (5, 3), np.float64)
    expected = p - np.array([0.1, 0.2, 0.2]) * g
    fs.SGD(p, lr=np.array([0.1, 0.2, 0.2]), backend=backend).step(g, zero_grads=True)
    assert (p == expected).all()
    assert not g.any()


@engines
def test_a_skipped_step_changes_nothing(backend: str) -> None:
    p = start((5, 3), np.float64)
    optimizer = fs.Adam(p, lr=np.array([0.1, 0.2, 0.2]), nonfinite="skip", backend=backend)
    optimizer.step(whole(0, p.shape, np.float64))
    before, g = p.copy(), np.full(p.shape, np.nan)
    assert optimizer.step(g).skipped
    assert (p == before).all()
    assert optimizer.state["t"] == 1


@engines
def test_groups_and_arenas(backend: str) -> None:
    """Some parameters have an array, and others a number, in one step."""
    rates = np.array([0.1, 0.2, 0.2])
    shapes = {"a": (4, 3), "b": (5, 3), "c": (7,)}
    for in_arena in (False, True):
        own = {name: start(shape, np.float32) for name, shape in shapes.items()}
        a, b, c = (own[name].copy() for name in "abc")
        columns = [Columns(fs.Adam, x, rates, backend=backend) for x in (a, b)]
        last = fs.Adam(c, lr=0.5, backend=backend)
        groups: Any = [{"params": [own["a"], own["b"]]}, {"params": [own["c"]], "lr": 0.5}]
        arena = fs.Arena(groups) if in_arena else None
        optimizer = fs.Adam(groups if arena is None else arena, backend=backend)
        optimizer.param_groups[0]["lr"] = rates
        optimizer.param_groups[1]["lr"] = 0.5
        for k in range(4):
            g = [whole(10 * k + j, shape, np.float32) for j, shape in enumerate(shapes.values())]
            for each, one in zip(columns, g, strict=False):
                each.step(one)
            last.step(g[2])
            if arena is None:
                optimizer.step([g[:2], g[2:]])
            else:
                arena.set_grads([g[:2], g[2:]])
                optimizer.step()
        params = [*optimizer.param_groups[0]["params"], *optimizer.param_groups[1]["params"]]
        for p, expected in zip(params, [*(each.values() for each in columns), c], strict=True):
            assert differing_bits(np.asarray(p), expected) == 0


@engines
def test_rules_of_ones_own(backend: str) -> None:
    """A function of hyperparameters may ask what the rate is."""
    if backend == "c":
        pytest.skip("custom rules are compiled by Numba")

    def prepare(h: Any, t: int) -> dict[str, float]:
        return {"shrink": 0.5 if h.lr > 0.1 else 1.0, "step": h.lr / t}

    @fs.rule(state=("m",), lr=0.1, prepare=prepare)
    def ours(p: Any, g: Any, m: Any, h: Any) -> Any:
        m = h.shrink * m + g
        return p - h.step * m, m

    for gradients in (whole, of_rows, both):
        for untouched in ("frozen", "exact"):
            p, lr = start((6, 4), np.float64), np.array([0.05, 0.1, 0.2, 0.2])
            columns = Columns(ours, p, lr, untouched=untouched, backend=backend)
            optimizer = ours(p, lr=lr, untouched=untouched, backend=backend)
            for k in range(6):
                g = gradients(k, p.shape, np.float64)
                optimizer.step(g)
                columns.step(g)
            check(optimizer, p, columns)


@engines
def test_parameters_begin_anywhere_in_a_cache_line(backend: str) -> None:
    few = np.array([0.1, 0.1, 0.01, 0.1, 0.5])
    many = np.tile(few, 20)  # of which one call of a kernel takes some thousand
    for n, rates, at in [*((7, few, at) for at in range(17)), (800, many, 3), (800, many, 8)]:
        given = np.ones(at + n * rates.size, np.float32)[at:].reshape(n, -1)
        p, q = given, given.copy()
        optimizer = fs.Adam(p, lr=rates, row_steps="shared", backend=backend)
        columns = Columns(fs.Adam, q, rates, row_steps="shared", backend="numpy")
        for k in range(3):
            g = both(2 - k, p.shape, np.float32)  # the first of all rows
            optimizer.step(g)
            columns.step(g)
        check(optimizer, p, columns)


# ---- what users see ----


def test_what_users_see() -> None:
    lr = np.array([0.1, 0.2, 0.2], np.float32)
    p = np.ones((4, 3))
    optimizer = fs.Adam(p, lr=lr)
    lr[:] = 5  # which is the caller's
    assert isinstance(optimizer.lr, np.ndarray)
    assert optimizer.lr.tolist() == np.array([0.1, 0.2, 0.2], np.float32).tolist()
    assert not optimizer.lr.flags.writeable
    optimizer.lr *= 0.5
    optimizer.param_groups[0]["lr"] *= 2
    assert np.array_equal(optimizer.param_groups[0]["lr"], optimizer.lr)
    assert "lr=np.array([0.1" in repr(optimizer)
    with pytest.raises(ValueError, match="read-only"):
        optimizer.lr[0] = 0.5
    two = fs.SGD([{"params": [np.ones((2, 3))]}, {"params": [np.ones((2, 3))]}], lr=optimizer.lr)
    assert np.array_equal(two.lr, optimizer.lr)
    two.param_groups[0]["lr"] = 0.1
    with pytest.raises(ValueError, match="lr differs between the groups"):
        two.lr  # noqa: B018
    two.lr = np.array([1.0, 2.0, 3.0])
    assert two.lr.tolist() == [1.0, 2.0, 3.0]


@engines
def test_runs_go_on(backend: str) -> None:
    lr = np.array([0.1, 0.2, 0.2])
    p = start((6, 3), np.float32)
    optimizer = fs.AdamW(p, lr=lr, untouched="exact", backend=backend)
    for k in range(4):
        optimizer.step(both(k, p.shape, np.float32))
    saved = pickle.loads(pickle.dumps(optimizer.state_dict()))
    others = [p.copy() for _ in range(2)]
    loaded = fs.AdamW(others[0], untouched="exact", backend=backend)
    loaded.load_state_dict(saved)
    assert np.array_equal(loaded.lr, lr)
    copied, others[1] = copy.deepcopy((optimizer, p))
    for k in range(4, 9):
        for each, own in ((optimizer, p), (loaded, others[0]), (copied, others[1])):
            each.step(both(k, own.shape, np.float32))
    for each, own in ((optimizer, p), (loaded, others[0]), (copied, others[1])):
        each.catch_up()
        assert differing_bits(own, p) == 0


def test_a_state_dict_of_other_columns_is_refused() -> None:
    saved = fs.SGD(np.ones((2, 3)), lr=np.array([1.0, 2.0, 3.0])).state_dict()
    other = fs.SGD(np.ones((2, 4)))
    with pytest.raises(
        ValueError, match=r"an array of shape \(3,\), and a parameter of shape \(2, 4\)"
    ):
        other.load_state_dict(saved)
    assert other.lr == 1e-3


REFUSED: list[tuple[Any, Any, type[Exception], str]] = [
    ((2, 3), np.ones(2), ValueError, r"shape \(2,\).*pass one of shape \(3,\), or a number"),
    ((2, 3), np.ones((2, 3)), ValueError, r"gradients are passed to each step"),
    ((3,), np.ones(3), ValueError, r"gradients are passed to each step"),
    ((3,), np.ones((1, 1)), ValueError, r"are single numbers.*; pass a number"),
    ((2, 3), np.ones((1, 1, 3)), ValueError, r"shape \(1, 1, 3\).*pass one of shape \(3,\)"),
    ((), np.ones(1), ValueError, r"are single numbers.*; pass a number"),
    ((2, 3), np.array([0.1, -1.0, 0.1]), ValueError, r"lr\[1\] is -1.0; pass 0 or more"),
    ((2, 3), np.array([0.1, 0.1, np.inf]), ValueError, r"lr\[2\] is inf; pass finite numbers"),
    ((2, 3), np.array([True, False, True]), TypeError, "pass an array of float64"),
    ((2, 3), np.ones(0), ValueError, "has no element; pass a number"),
    ((2, 3), np.array(0.1), TypeError, "pass a number: `lr=0.1`"),
    ((2, 3), [0.1, 0.2, 0.3], TypeError, r"rates by column: `lr=np.asarray\(lr\)`"),
]


@pytest.mark.parametrize(("shape", "lr", "error", "match"), REFUSED)
def test_refused(shape: tuple[int, ...], lr: Any, error: type[Exception], match: str) -> None:
    p = np.ones(shape)
    with pytest.raises(error, match=match):
        fs.SGD(p, lr=lr)
    optimizer = fs.SGD(p, lr=0.1)
    with pytest.raises(error, match=match):
        optimizer.lr = lr
    with pytest.raises(error, match=match):
        optimizer.param_groups[0].update(lr=lr, momentum=0.5)
    optimizer.step(np.ones(shape))
    assert np.allclose(p, 0.9)
    if isinstance(lr, np.ndarray) and lr.ndim:
        optimizer.lr = lambda t: lr
        with pytest.raises(error, match="returned an array"):
            optimizer.step(np.ones(shape))
        assert np.allclose(p, 0.9)


def test_refused_with_other_options() -> None:
    rates = np.array([0.1, 0.2, 0.3])
    with pytest.raises(TypeError, match="kept in 16 or 8 bits"):
        fs.SGD(np.ones((2, 3), np.float16), lr=rates)
    big = np.ones((5000, 3), np.float32)
    with pytest.raises(TypeError, match="`state_dtype='float32'`"):
        fs.Adam(big, lr=rates, state_dtype="8bit")
    with pytest.raises(TypeError, match="rates by column are an optimizer's"):
        fs.functional.sgd(np.ones((2, 3)), np.ones((2, 3)), t=1, lr=rates)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="initial_lr=None"):
        fs.AdamW(np.ones((2, 3)), lr=rates, decay_scale="schedule")
    ahead = fs.SGD(np.ones((2, 3)), lr=rates, momentum=0.5)
    with pytest.raises(ValueError, match="lookahead"), ahead.lookahead():
        pass
    with pytest.raises(ValueError, match="infinite in float32"):
        fs.SGD(np.ones((2, 3), np.float32), lr=np.array([1.0, 1e300, 1.0])).step(
            np.ones((2, 3), np.float32)
        )


def test_the_schedules_multiplier() -> None:
    """Each column decays by its own ηₜ·λ, where `initial_lr` is a number."""
    rates = np.array([0.1, 0.2])
    p = np.ones((2, 2))
    fs.AdamW(p, lr=rates, weight_decay=0.5, decay_scale="schedule", initial_lr=0.2, eps=1e300).step(
        np.zeros((2, 2))
    )
    assert (p == 1 - rates / 0.2 * 0.5).all()
