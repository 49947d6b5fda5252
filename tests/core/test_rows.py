"""Gradients of some rows: frozen as parameters of their own or as torch has it, exact as dense."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp  # type: ignore[import-untyped]
from cases import differing_bits
from random_arrays import Array

import fusedstep as fs
from fusedstep._core import slices
from fusedstep._numerics.coefficients import Scalars

ENGINES = [name for name in ("numpy", "c", "numba") if fs.info().backends[name] is None]

engines = pytest.mark.parametrize("backend", ENGINES)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])

OPTIMIZERS: list[tuple[type, dict[str, Any]]] = [
    (fs.SGD, {"lr": 0.1}),
    (fs.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    (fs.Adagrad, {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    (fs.RMSprop, {"centered": True, "momentum": 0.5}),
    (fs.Adam, {"weight_decay": 0.1, "maximize": True}),
    (fs.AdamW, {"amsgrad": True, "ema": 0.9}),
    (fs.AdamW, {"lr": fs.schedules.cosine(0.1, steps=7)}),
]


def batches(
    rows: int, width: int, dtype: Any, steps: int = 12, seed: int = 0
) -> Iterator[tuple[Array, Array]]:
    """Numbers of rows, some of them several times, and their gradients."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        index = rng.integers(0, rows, rng.integers(0, 6))
        yield index, rng.normal(size=(len(index), width)).astype(dtype)


def summed(index: Array, values: Array, rows: int) -> dict[int, Array]:
    """The gradient of each row that has one: added up in the order in which they stand."""
    found: dict[int, Array] = {}
    for at, g in zip(index.tolist(), values, strict=True):
        assert at < rows
        found[at] = found[at] + g if at in found else g
    return found


def dense(index: Array, values: Array, shape: Any) -> Array:
    """The same as the gradient of the whole parameter."""
    g = np.zeros(shape, values.dtype)
    for at, each in summed(index, values, shape[0]).items():
        g[at] = each
    return g


def start(rows: int, width: int, dtype: Any) -> Array:
    return np.random.default_rng(7).normal(size=(rows, width)).astype(dtype)


def same(one: Array, other: Array) -> bool:
    return differing_bits(one, other) == 0


# ---- frozen ----


@engines
@dtypes
@pytest.mark.parametrize(("optimizer", "options"), OPTIMIZERS)
@pytest.mark.parametrize("width", [1, 3, 16, 37])
def test_frozen_rows_are_parameters_of_their_own(
    optimizer: Any, options: dict[str, Any], width: int, dtype: Any, backend: str
) -> None:
    p = start(9, width, dtype)
    each = [row.copy() for row in p]
    opt = optimizer(p, backend=backend, **options)
    apart = optimizer(each, backend=backend, **options)
    for index, values in batches(9, width, dtype):
        opt.step(fs.Rows(index, values))
        found = summed(index, values, 9)
        apart.step([found.get(at) for at in range(9)])
    assert same(p, np.array(each))
    state = opt.state
    assert state["row_t"].tolist() == [one["t"] for one in apart.state]
    for letter in set(state) - {"t", "row_t"}:
        assert same(state[letter], np.array([one[letter] for one in apart.state]))
    assert state["t"] == 12


@engines
@dtypes
def test_a_whole_gradient_steps_each_row_by_its_own_t(backend: str, dtype: Any) -> None:
    p = start(5, 4, dtype)
    each = [row.copy() for row in p]
    opt, apart = fs.Adam(p, backend=backend), fs.Adam(each, backend=backend)
    rng = np.random.default_rng(0)
    for index in ([], [1, 2], [2], [0, 1, 2, 3, 4], [4]):
        g = rng.normal(size=(5, 4)).astype(dtype)
        if len(index) in (0, 5):
            opt.step(g)
            apart.step([*g])
        else:
            opt.step(fs.Rows(index, g[index]))
            apart.step([g[k] if k in index else None for k in range(5)])
    assert same(p, np.array(each))


@engines
def test_shared_steps_are_those_of_torchs_sparse_adam(backend: str) -> None:
    torch = pytest.importorskip("torch")
    p = start(30, 4, np.float64)
    theirs = torch.nn.Parameter(torch.from_numpy(p.copy()))
    options = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3}
    opt = fs.Adam(p, row_steps="shared", backend=backend, **options)  # type: ignore[arg-type]
    sparse = torch.optim.SparseAdam([theirs], **options)
    for index, values in batches(30, 4, np.float64, steps=40):
        opt.step(fs.Rows(index, values))
        at = torch.from_numpy(index)[None]
        g = torch.sparse_coo_tensor(at, torch.from_numpy(values), p.shape, check_invariants=True)
        theirs.grad = g
        sparse.step()
    np.testing.assert_allclose(p, theirs.detach().numpy(), rtol=0, atol=1e-12)
    state = sparse.state[theirs]
    np.testing.assert_allclose(opt.state["m"], state["exp_avg"].numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(opt.state["v"], state["exp_avg_sq"].numpy(), rtol=0, atol=1e-12)


@engines
@pytest.mark.parametrize("optimizer", [fs.Adam, fs.AdamW])
def test_shared_steps_are_the_lazy_adam_of_tensorflow(optimizer: Any, backend: str) -> None:
    """The formula on the rows of each batch alone: lr √(1-β₂ᵗ)/(1-β₁ᵗ) m/(√v + ε)."""
    p = start(8, 3, np.float64)
    q, m, v = p.copy(), np.zeros_like(p), np.zeros_like(p)
    decay = {"weight_decay": 0.0}
    opt = optimizer(p, lr=0.1, eps=0.01, row_steps="shared", backend=backend, **decay)
    for t, (index, values) in enumerate(batches(8, 3, np.float64, steps=20), start=1):
        opt.step(fs.Rows(index, values))
        at = np.unique(index)
        g = dense(index, values, p.shape)[at]
        m[at] = 0.9 * m[at] + 0.1 * g
        v[at] = 0.999 * v[at] + 0.001 * g**2
        rate = 0.1 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        q[at] -= rate * m[at] / (np.sqrt(v[at]) + 0.01)
    np.testing.assert_allclose(p, q, rtol=0, atol=1e-12)


@engines
def test_a_rate_that_is_set_at_each_step_counts(backend: str) -> None:
    p = start(6, 3, np.float32)
    each = [row.copy() for row in p]
    opt, apart = fs.Adam(p, backend=backend), fs.Adam(each, backend=backend)
    for t, (index, values) in enumerate(batches(6, 3, np.float32), start=1):
        opt.lr = apart.lr = 0.1 / t
        opt.step(fs.Rows(index, values))
        found = summed(index, values, 6)
        apart.step([found.get(at) for at in range(6)])
    assert same(p, np.array(each))


def test_many_different_t_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "MOST_LINES", 8)
    p = start(40, 2, np.float64)
    each = [row.copy() for row in p]
    opt, apart = fs.Adam(p), fs.Adam(each)
    g = np.ones((40, 2))
    for t in range(40):
        index = np.arange(t, 40)
        opt.step(fs.Rows(index, g[index]))
        apart.step([g[k] if k >= t else None for k in range(40)])
    opt.step(g)
    apart.step([*g])
    assert same(p, np.array(each))


# ---- exact ----


@engines
@dtypes
@pytest.mark.parametrize(("optimizer", "options"), OPTIMIZERS)
@pytest.mark.parametrize("width", [1, 16, 37])
def test_exact_rows_are_those_of_whole_gradients(
    optimizer: Any, options: dict[str, Any], width: int, dtype: Any, backend: str
) -> None:
    p = start(9, width, dtype)
    q = p.copy()
    opt = optimizer(p, untouched="exact", backend=backend, **options)
    whole = optimizer(q, backend=backend, **options)
    for t, (index, values) in enumerate(batches(9, width, dtype, steps=30)):
        request = {"max_norm": 1.0} if t % 3 == 0 else {}
        one = opt.step(fs.Rows(index, values), **request)
        assert one == whole.step(dense(index, values, p.shape), **request)
        at = np.unique(index)
        assert same(p[at], q[at])
    opt.catch_up()
    assert same(p, q)
    for letter in opt.state:
        assert letter == "t" or same(opt.state[letter], whole.state[letter])


@engines
@pytest.mark.parametrize("optimizer", [fs.rules.Lion, fs.rules.NAdam, fs.rules.Adan])
def test_exact_rows_of_the_user_s_own_rules(optimizer: Any, backend: str) -> None:
    if backend == "c":
        backend = "auto"
    p = start(9, 5, np.float32)
    q = p.copy()
    opt = optimizer(p, untouched="exact", backend=backend)
    whole = optimizer(q, backend=backend)
    for index, values in batches(9, 5, np.float32):
        opt.step(fs.Rows(index, values))
        whole.step(dense(index, values, p.shape))
    opt.catch_up()
    assert same(p, q)


@engines
def test_the_table_of_missed_steps_is_folded(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "LONGEST", 5)
    p = start(9, 5, np.float32)
    q = p.copy()
    opt, whole = fs.AdamW(p, untouched="exact", backend=backend), fs.AdamW(q, backend=backend)
    for index, values in batches(9, 5, np.float32, steps=23):
        opt.step(fs.Rows(index, values))
        whole.step(dense(index, values, p.shape))
    opt.catch_up()
    assert same(p, q)


@engines
def test_rows_are_caught_up_before_a_forward_pass(backend: str) -> None:
    p = start(9, 5, np.float64)
    q = p.copy()
    opt, whole = fs.Adam(p, untouched="exact", backend=backend), fs.Adam(q, backend=backend)
    for index, values in batches(9, 5, np.float64, steps=20):
        opt.catch_up(index)
        assert same(p[index], q[index])
        opt.step(fs.Rows(index, values))
        whole.step(dense(index, values, p.shape))
    assert not same(p, q)
    opt.catch_up(np.arange(9) > 3)
    assert same(p[4:], q[4:])
    assert not same(p, q)
    assert same(opt.state["m"], whole.state["m"])
    assert same(p, q)


READERS: dict[str, Callable[[fs.Optimizer], Any]] = {
    "state": lambda opt: opt.state,
    "state_dict": lambda opt: opt.state_dict(),
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "float32_params": lambda opt: opt.float32_params(),
}


@pytest.mark.parametrize("reader", READERS)
def test_whatever_reads_it_all_catches_up(reader: str) -> None:
    p = start(9, 5, np.float64)
    q = p.copy()
    opt, whole = fs.Adam(p, untouched="exact"), fs.Adam(q)
    for index, values in batches(9, 5, np.float64, steps=20):
        opt.step(fs.Rows(index, values))
        whole.step(dense(index, values, p.shape))
    assert not same(p, q)
    READERS[reader](opt)
    assert same(p, q)


def test_look_ahead_catches_up() -> None:
    p = start(9, 5, np.float64)
    q = p.copy()
    opt = fs.SGD(p, momentum=0.9, untouched="exact")
    whole = fs.SGD(q, momentum=0.9)
    for index, values in batches(9, 5, np.float64, steps=8):
        opt.step(fs.Rows(index, values))
        whole.step(dense(index, values, p.shape))
    with opt.lookahead(), whole.lookahead():
        assert same(p, q)
        with pytest.raises(RuntimeError, match="catch_up inside of lookahead"):
            opt.catch_up()
    assert same(p, q)


@engines
def test_another_rule_of_the_same_state_is_caught_up_by(backend: str) -> None:
    p, q = np.ones((6, 3)), np.ones((6, 3))
    rows = fs.SGD(p, lr=0.1, momentum=0.5, untouched="exact", backend=backend)
    whole = fs.SGD(q, lr=0.1, momentum=0.5, backend=backend)
    for t in range(12):
        rows.param_groups[0]["nesterov"] = whole.param_groups[0]["nesterov"] = t >= 5
        index, values = np.array([t % 6]), np.full((1, 3), 1.0 + t)
        rows.step(fs.Rows(index, values))
        whole.step(dense(index, values, q.shape))
        if t in (3, 8):
            rows.catch_up([2])
            assert differing_bits(p[2], q[2]) == 0
    rows.catch_up()
    assert differing_bits(p, q) == 0


def test_another_rule_begins_where_rows_are() -> None:
    p = start(9, 5, np.float64)
    q = p.copy()
    opt, whole = fs.Adam(p, untouched="exact"), fs.Adam(q)
    for t, (index, values) in enumerate(batches(9, 5, np.float64, steps=20)):
        if t in (6, 13):
            for each in (opt, whole):
                each.param_groups[0]["amsgrad"] = t == 6
        opt.step(fs.Rows(index, values))
        whole.step(dense(index, values, p.shape))
    opt.catch_up()
    assert same(p, q)


# ---- forms ----


@engines
@pytest.mark.parametrize("untouched", ["frozen", "exact"])
@pytest.mark.parametrize("row_steps", ["own", "shared"])
def test_all_forms_are_the_same_step(untouched: Any, row_steps: Any, backend: str) -> None:
    index, other = np.array([4, 1]), np.array([2, 5, 6])
    values = np.random.default_rng(0).normal(size=(2, 3))
    whole = dense(index, values, (7, 3))
    masked = np.where(whole == 0, np.nan, whole)
    forms: list[Any] = [
        *(fs.Rows(index.astype(kind), values) for kind in ("i1", "u1", "i4", "u8", ">i8")),
        fs.Rows([4, 1], values),
        fs.Rows(index[::-1], values[::-1]),
        fs.Rows(np.repeat(index, 2)[::2], np.asfortranarray(values)),
        fs.Rows.where(whole.any(axis=1), masked),
        *(kind(whole) for kind in (sp.csr_array, sp.csc_array, sp.coo_array, sp.csr_matrix)),
    ]
    results = []
    for g in forms:
        p = start(7, 3, np.float64)
        options: Any = {"untouched": untouched, "row_steps": row_steps, "backend": backend}
        opt = fs.Adam(p, **options)
        opt.step(fs.Rows(other, np.ones((3, 3))))
        opt.step(g)
        opt.catch_up()
        results.append(p)
    assert all(same(p, results[0]) for p in results)


@engines
@pytest.mark.parametrize("untouched", ["frozen", "exact"])
def test_parameters_of_any_layout_and_shape(untouched: Any, backend: str) -> None:
    def layouts(values: Array) -> Iterator[Array]:
        memory = np.zeros((2 * values.shape[0], *values.shape[1:], 2))
        for view in (
            np.asfortranarray(values),
            memory[::2, ..., 0],
            memory[1::-2, ..., 1] if values.shape[0] == 1 else memory[::-1, ..., 0][::2],
        ):
            view[...] = values
            yield view

    for shape in ((6,), (6, 3), (6, 2, 3)):
        values = np.random.default_rng(1).normal(size=shape)
        results = []
        for p in (values.copy(), *layouts(values)):
            opt = fs.AdamW(p, untouched=untouched, backend=backend)
            rng = np.random.default_rng(0)
            for _ in range(6):
                index = rng.integers(0, 6, 3)
                opt.step(fs.Rows(index, rng.normal(size=(3, *shape[1:]))))
            opt.catch_up()
            results.append(np.ascontiguousarray(p))
        assert all(same(p, results[0]) for p in results)


@engines
def test_gradients_of_16_bits_are_widened(backend: str) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    for dtype in (np.float16, bfloat16):
        values = np.random.default_rng(0).normal(size=(3, 4)).astype(dtype)
        p, q = start(5, 4, np.float32), start(5, 4, np.float32)
        fs.Adam(p, backend=backend).step(fs.Rows([1, 4, 1], values))
        fs.Adam(q, backend=backend).step(fs.Rows([1, 4, 1], values.astype(np.float32)))
        assert same(p, q)


@engines
@pytest.mark.parametrize("untouched", ["frozen", "exact"])
def test_nothing_to_do(untouched: Any, backend: str) -> None:
    p, nothing, empty = start(3, 2, np.float32), np.zeros((0, 4)), np.zeros((3, 0))
    opt = fs.Adam([p, nothing, empty], untouched=untouched, backend=backend)
    before = p.copy()
    rows = [fs.Rows([], np.zeros((0, n), d)) for n, d in ((2, "f4"), (4, "f8"), (0, "f8"))]
    assert opt.step(rows, max_norm=1.0).grad_norm == 0
    assert opt.step([rows[0], rows[1], fs.Rows([1], np.zeros((1, 0)))]).t == 2
    opt.catch_up()
    assert same(p, before)


@engines
@pytest.mark.parametrize("untouched", ["frozen", "exact"])
def test_groups_and_arenas(untouched: Any, backend: str) -> None:
    def params() -> Any:
        rng = np.random.default_rng(1)
        return [
            {"params": {"w": rng.normal(size=(4, 3)), "e": rng.normal(size=(20, 5))}, "lr": 0.1},
            {"params": {"f": rng.normal(size=(9, 2)), "b": rng.normal(size=3)}},
        ]

    p = params()
    arena = fs.Arena(params())
    kept: Any = {"untouched": untouched, "backend": backend}
    opt, packed = fs.AdamW(p, **kept), fs.AdamW(arena, **kept)
    rng = np.random.default_rng(0)
    for t in range(15):
        w, b = rng.normal(size=(4, 3)), rng.normal(size=3)
        e: Any = fs.Rows(rng.integers(0, 20, 4), rng.normal(size=(4, 5)))
        f: Any = rng.normal(size=(9, 2))
        if t > 5:
            f = fs.Rows([t % 9], f[:1])
        views = arena.grads
        views[0]["w"][...], views[1]["b"][...] = w, b
        if t <= 5:
            views[1]["f"][...] = f
        own = [
            {"w": views[0]["w"], "e": e},
            {"f": f if t > 5 else views[1]["f"], "b": views[1]["b"]},
        ]
        zero = t == 9
        first = opt.step([{"w": w, "e": e}, {"f": f, "b": b}], max_value=2.0)
        assert packed.step(own, max_value=2.0, zero_grads=zero).t == first.t
        assert not zero or not (views[0]["w"].any() or e.values.any())
    for each in (opt, packed):
        each.catch_up()
    for one, other in zip(p, arena.params, strict=True):
        assert all(same(one["params"][name], other[name]) for name in other)
    fs.AdamW(params(), **kept).load_state_dict(packed.state_dict())
    with pytest.raises(ValueError, match="not the arena's view"):
        packed.step([{"w": np.ones((4, 3)), "e": e}, {"f": f, "b": views[1]["b"]}])


# ---- a whole step ----


@engines
@pytest.mark.parametrize("clip", ["global", "tensor"])
def test_the_norm_is_that_of_the_whole_gradient(clip: Any, backend: str) -> None:
    rng = np.random.default_rng(0)
    for dtype, shape in ((np.float32, (3000, 7)), (np.float64, (40, 300)), (np.float32, (2, 9000))):
        p = np.zeros(shape, dtype)
        q, w, x = p.copy(), np.zeros(5, dtype), np.zeros(5, dtype)
        index = rng.integers(0, shape[0], 50)
        values = (rng.normal(size=(50, *shape[1:])) * 10.0 ** rng.uniform(-9, 2, (50, 1))).astype(
            dtype
        )
        if dtype == np.float64:
            values[3], values[4] = 1e-200, 1e200
        other = rng.normal(size=5).astype(dtype)
        opt = fs.SGD([p, w], untouched="exact", backend=backend)
        whole = fs.SGD([q, x], backend=backend)
        one = opt.step([fs.Rows(index, values), other], max_norm=0.5, clip=clip)
        assert one == whole.step([dense(index, values, shape), other], max_norm=0.5, clip=clip)
        assert same(p, q)
        assert same(w, x)


@engines
def test_what_is_not_finite_is_found(backend: str) -> None:
    p, w = start(9, 3, np.float32), np.zeros(2, np.float32)
    before = p.copy()
    opt = fs.Adam({"p": p, "w": w}, nonfinite="skip", untouched="exact", backend=backend)
    bad = fs.Rows([3], np.array([[1.0, np.nan, 0.0]], np.float32))
    report = opt.step({"p": bad, "w": np.ones(2, np.float32)})
    assert report.skipped == ("params['p']",)
    assert same(p, before)
    raising = fs.Adam(p, nonfinite="raise", backend=backend)
    with pytest.raises(FloatingPointError, match="grads"):
        raising.step(bad)
    assert same(p, before)


@engines
def test_gradients_are_only_read_unless_they_are_zeroed(backend: str) -> None:
    p = start(9, 3, np.float32)
    opt = fs.Adam(p, backend=backend)
    index, values = np.array([3, 3, 5]), np.ones((3, 3), np.float32)
    for array in (index, values):
        array.flags.writeable = False
    opt.step(fs.Rows(index, values))
    with pytest.raises(ValueError, match=r"grads.values is read-only, and zero_grads=True"):
        opt.step(fs.Rows(index, values), zero_grads=True)
    values = values.copy()
    mask, g = np.arange(9) < 2, np.ones((9, 3), np.float32)
    matrix = sp.csr_array(g)
    for given in (fs.Rows(index, values), fs.Rows.where(mask, g), matrix):
        opt.step(given, zero_grads=True)
    assert not values.any()
    assert not g.any()
    assert not matrix.data.any()


# ---- state ----


@engines
@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"row_steps": "shared"},
        {"untouched": "exact"},
    ],
)
def test_a_run_goes_on_from_a_state_dict(kept: Any, backend: str) -> None:
    p = start(9, 4, np.float32)
    opt = fs.AdamW(p, backend=backend, **kept)
    steps = [*batches(9, 4, np.float32, steps=20)]
    for index, values in steps[:10]:
        opt.step(fs.Rows(index, values))
    saved = pickle.loads(pickle.dumps(opt.state_dict()))
    copied = copy.deepcopy((p, opt))
    q = p.copy()
    other = fs.AdamW(q, backend=ENGINES[0], **kept)
    other.load_state_dict(saved)
    for index, values in steps[10:]:
        for each in (opt, other, copied[1]):
            each.step(fs.Rows(index, values))
    for each in (opt, other, copied[1]):
        each.catch_up()
    assert same(p, q)
    assert same(p, copied[0])


def test_counts_of_rows_are_checked() -> None:
    p = start(4, 2, np.float32)
    opt = fs.Adam(p)
    opt.step(fs.Rows([1], np.ones((1, 2), np.float32)))
    saved = opt.state_dict()
    assert saved["state"]["row_t"].tolist() == [0, 1, 0, 0]
    exact = fs.Adam(p.copy(), untouched="exact")
    with pytest.raises(ValueError, match="make the optimizer with `untouched='frozen'"):
        exact.load_state_dict(saved)
    for wrong in (np.zeros(3, np.int64), np.zeros(4), np.full(4, 2), np.full(4, -1)):
        with pytest.raises(ValueError, match="row_t"):
            opt.load_state_dict({**saved, "state": {**saved["state"], "row_t": wrong}})
    opt.step(np.ones((4, 2), np.float32))
    saved["state"]["row_t"][:] = 1
    exact.load_state_dict(saved)
    assert exact.state["t"] == 1
    assert opt.state["row_t"].tolist() == [1, 2, 1, 1]
    assert "row_t" not in exact.state


def test_an_option_that_lays_out_memory_stays() -> None:
    opt = fs.Adam(start(4, 2, np.float32))
    for name, value in (("untouched", "exact"), ("row_steps", "shared")):
        with pytest.raises(ValueError, match=f"{name}={value!r} would lay out memory anew"):
            opt.param_groups[0][name] = value


# ---- refusals ----

P = np.zeros((4, 3), np.float32)
G = np.ones((2, 3), np.float32)


def overlapping(p: Array) -> Any:
    return fs.Rows([0, 1], p[2:])


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (fs.Rows([0, 4], G), IndexError, r"grads.index\[1\] is 4, and the parameter has 4 rows; pass"),
    (fs.Rows([0, -1], G), IndexError, r"grads.index\[1\] is -1.*pass `grads.index % 4`"),
    (fs.Rows([0, -9], G), IndexError, r"pass numbers from 0 to 3"),
    (fs.Rows([0.0, 1.0], G), TypeError, r"grads.index has dtype float64; pass integers, as `gra"),
    (fs.Rows([True, False], G), TypeError, r"`fs.Rows.where\(mask, g\)` takes a mask"),
    (fs.Rows([[0, 1]], G), ValueError, r"shape \(1, 2\).*`grads.index.reshape\(-1\)`"),
    (fs.Rows([0], G), ValueError, r"grads.values has shape \(2, 3\), and grads.index 1 rows"),
    (fs.Rows([0, 1], G[:, :2]), ValueError, r"grads.values has shape \(2, 2\), its parameter \(2"),
    (fs.Rows([0, 1], G.astype(np.float64)), TypeError, r"grads.values has dtype.*astype"),
    (fs.Rows([0, 1], [[1.0, 2.0, 3.0]] * 2), TypeError, r"grads.values is.*list"),
    (fs.Rows([0, 1], None), TypeError, r"grads.values is None"),
    (fs.Rows(None, G), TypeError, r"grads.index"),
    (fs.Rows.where([True] * 3, np.ones((4, 3), np.float32)), ValueError, r"grads.mask is bool"),
    (fs.Rows.where([1, 0, 1, 1], np.ones((4, 3), np.float32)), ValueError, r"pass booleans"),
    (fs.Rows.where([True] * 4, G), ValueError, r"grads has shape \(2, 3\)"),
    (sp.csr_array((3, 4), dtype=np.float32), ValueError, r"grads has shape \(3, 4\)"),
    (sp.csr_array((4, 3), dtype=np.float64), TypeError, r"grads has dtype"),
    (overlapping, ValueError, r"grads.values shares memory with params"),
]


@pytest.mark.parametrize(("given", "error", "message"), REFUSED)
@pytest.mark.parametrize("untouched", ["frozen", "exact"])
def test_what_is_refused_changes_nothing(
    given: Any, error: type[Exception], message: str, untouched: Any
) -> None:
    p = P.copy()
    opt = fs.Adam(p, untouched=untouched)
    for stepped in (False, True):
        before, state = p.copy(), opt.state_dict()
        rows = given(p) if callable(given) else given
        with pytest.raises(error, match=message):
            opt.step(rows)
        after = opt.state_dict()
        assert same(p, before)
        assert after["state"]["t"] == state["state"]["t"]
        assert same(after["state"]["m"], state["state"]["m"])
        if not stepped:
            opt.step(fs.Rows([1, 2], G))


def test_what_has_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="grads is of rows, and params a single number"):
        fs.SGD(np.zeros(())).step(fs.Rows([0], np.zeros(1)))
    with pytest.raises(ValueError, match="rows is for a parameter of a single number"):
        fs.SGD(np.zeros(())).catch_up([0])
    with pytest.raises(TypeError, match="kept in 16 or 8 bits; float32 and float64"):
        fs.Adam(np.zeros((4, 3), np.float16)).step(fs.Rows([0], np.zeros((1, 3), np.float32)))
    low = fs.Adam(np.zeros((4000, 3), np.float32), state_dtype="8bit")
    with pytest.raises(TypeError, match="pass the whole gradient"):
        low.step(fs.Rows([0], np.zeros((1, 3), np.float32)))


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([9], IndexError, r"rows\[0\] is 9, and the parameter has 4 rows"),
        ([0.5], TypeError, "rows has dtype float64"),
        ([True], ValueError, "rows is bool of shape"),
        ([[1]], ValueError, r"rows has shape \(1, 1\)"),
    ],
)
def test_rows_to_catch_up_are_checked(rows: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fs.SGD(P.copy(), untouched="exact").catch_up(rows)


def test_a_gradient_of_rows_stays_as_it_is() -> None:
    for rows in (fs.Rows([0], G[:1]), fs.Rows.where([True, False], G)):
        with pytest.raises(AttributeError, match=r"make another, `fs\.Rows"):
            rows.values = G
        again = pickle.loads(pickle.dumps(rows))
        assert repr(again) == repr(rows)
        assert (again.values == rows.values).all()


def test_a_gradient_of_rows_tells_what_it_is() -> None:
    assert repr(fs.Rows([0], G)).startswith("Rows([0] (list), ")
    assert repr(fs.Rows.where([True], G)).startswith("Rows.where([True] (list), ")


def test_a_rate_counts_from_the_last_step_that_was_taken() -> None:
    """Scalars that were put down for a step that was refused say nothing of how the rate grew."""
    names = Scalars._fields
    past = slices.Past(names, np.dtype(np.float64), 1, 1)
    for t, lr in ((1, 1.0), (2, 1.04), (2, 1.08), (3, 1.08)):
        past.record(t, {"lr": lr, "eps": 1e-8})
    assert past.calm.start == 2  # 1.08 is more than 1.05 times as much as 1
    assert past.calm.growth == 1


# ---- where state lies ----


def unaligned(rows: int, width: int) -> Array:
    """A parameter that begins 16 bytes past a cache line, as NumPy's larger arrays do."""
    memory = np.zeros(rows * width + 32, np.float32)
    skip = (16 - memory.ctypes.data) % 64 // 4
    return memory[skip : skip + rows * width].reshape(rows, width)


def past_a_line(state: Array) -> int:
    return int(state.ctypes.data % 64)


def test_rows_of_state_lie_in_as_few_lines_as_can_be() -> None:
    for width, past in ((16, 0), (64, 0), (24, 16)):
        p = unaligned(5, width)
        opt = fs.Adagrad(p, lr=1.0, initial_accumulator_value=0.5)
        opt.step(fs.Rows([1], np.ones((1, width), np.float32)))
        assert past_a_line(opt.state["s"]) == past
        assert opt.state["s"][:3, 0].tolist() == [0.5, 1.5, 0.5]
        opt.step(np.ones((5, width), np.float32))
        assert opt.state["s"][:3, 0].tolist() == [1.5, 2.5, 1.5]


def test_state_stays_where_somebody_may_have_it() -> None:
    seen, stepped, loaded, averaged = (unaligned(5, 16) for _ in range(4))
    g = fs.Rows([1], np.ones((1, 16), np.float32))
    opt = fs.SGD(seen, lr=1.0, momentum=0.5)
    b = opt.state["b"]
    opt.step(g)
    assert b[1, 0] == 1
    opt = fs.SGD(stepped, lr=1.0, momentum=0.5)
    opt.step(np.ones((5, 16), np.float32))
    opt.step(g)
    assert opt.state["b"][:2, 0].tolist() == [1, 1.5]
    saved = opt.state_dict()
    saved["state"]["t"] = 0
    del saved["state"]["row_t"]
    opt = fs.SGD(loaded, lr=1.0, momentum=0.5)
    opt.load_state_dict(saved)
    opt.step(g)
    assert opt.state["b"][0, 0] == 1
    opt = fs.SGD(averaged, ema=0.5)
    averaged += 8  # after the average was begun
    opt.step(g)
    assert opt.state["ema"][0, 0] == 0
