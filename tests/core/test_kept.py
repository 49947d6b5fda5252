"""Parameters and state in fewer bytes: choices and defaults, exactness, resuming."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from counting import calls_into_c
from marks import needs_c, on_each_backend

import fusedstep as fs
from fusedstep._core.kept import SMALL

Array = np.ndarray[Any, Any]

ml_dtypes = pytest.importorskip("ml_dtypes", reason="needs `pip install '.[bfloat16]'`")

BFLOAT16: Any = ml_dtypes.bfloat16

rng = np.random.default_rng(0)


def array(rng: np.random.Generator, shape: Any, dtype: Any, scale: float = 1.0) -> Array:
    """Numbers of a normal distribution in a dtype."""
    with np.errstate(all="ignore"):
        made: Array = (rng.normal(size=shape) * scale).astype(np.float32).astype(dtype)
    return made


def plain(a: Array) -> Array:
    """The bits of an array, each NaN as one and the same."""
    bits = np.ascontiguousarray(a).view(f"u{a.itemsize}").copy()
    if a.dtype.kind == "f" or a.dtype == BFLOAT16:
        bits[np.isnan(a.astype(np.float64))] = 1
    return bits


def told(opt: Any, params: list[Array]) -> list[Array]:
    """All that there is after a step, as bits: parameters, exact values, and state as saved."""
    states, values = opt.state_dict()["state"], opt.float32_params()
    if isinstance(states, dict):
        states, values = [states], [values]
    saved = [np.asarray(each) for state in states for each in state.values()]
    return [plain(each) for each in (*params, *values, *saved)]


def equal(one: list[Array], other: list[Array]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def exact(opt: Any) -> list[Array]:
    values: list[Array] = opt.float32_params()
    return values


# ---- masters ----


@on_each_backend
def test_split16_is_a_run_in_float32_whose_weights_are_seen_rounded(backend: str) -> None:
    """Not one bit of a float32 run is lost in 1,000 steps with the same gradients."""
    rng = np.random.default_rng(1)
    steps = 1000 if backend == "c" else 100
    start = array(rng, (64, 5), BFLOAT16)
    p, w = start.copy(), start.astype(np.float32)
    split = fs.AdamW(p, lr=1e-3, weight_decay=0.1, backend=backend)
    plain = fs.AdamW(w, lr=1e-3, weight_decay=0.1, backend=backend)
    assert split.param_groups[0]["master"] is None
    for t in range(steps):
        g = array(rng, w.shape, np.float32, 10.0 ** -(t % 7))
        split.step(g)
        plain.step(g)
        if t % 100 == 99:
            values = split.float32_params()
            assert values.dtype == np.float32
            assert (values.view(np.uint32) == w.view(np.uint32)).all()
            error = np.abs(p.astype(np.float64) - w)
            assert (error <= np.abs(w) * 2.0**-8).all()
    for letter in ("m", "v"):
        assert (split.state[letter] == plain.state[letter]).all()


@on_each_backend
@pytest.mark.parametrize(("dtype", "master"), [(BFLOAT16, "float32"), (np.float16, None)])
def test_a_float32_master_is_a_run_in_float32(backend: str, dtype: Any, master: Any) -> None:
    rng = np.random.default_rng(2)
    p = array(rng, (40, 7), dtype)
    w = p.astype(np.float32)
    opt = fs.Adam(p, master=master, backend=backend)
    plain = fs.Adam(w, backend=backend)
    for _ in range(20):
        g = array(rng, w.shape, np.float32)
        opt.step(g)
        plain.step(g)
    assert (opt.float32_params().view(np.uint32) == w.view(np.uint32)).all()
    assert (p == w.astype(dtype)).all()


@on_each_backend
@pytest.mark.parametrize(
    ("dtype", "master"),
    [*((BFLOAT16, each) for each in ("split16", "split8", "float32", False)), (np.float16, None)],
)
def test_what_is_assigned_to_a_parameter_counts(backend: str, dtype: Any, master: Any) -> None:
    """A model that loads weights after its optimizer was made trains from these."""
    p = np.ones(300, dtype)
    opt = fs.SGD(p, lr=0.001, master=master, backend=backend)
    for _ in range(3):
        opt.step(np.ones(300, np.float32))
    p[:150] = 5
    opt.step(np.zeros(300, np.float32))
    assert (p[:150] == 5).all()
    if master == "float32":
        assert (opt.float32_params()[:150] == 5).all()
    assert (abs(opt.float32_params()[150:] - 0.997) < 0.01).all()


def test_bfloat16_without_a_master_moves_in_the_mean() -> None:
    """Updates far below half a step of the dtype are taken by chance, and to the nearest lost."""
    moved = {}
    for rounding in ("auto", "nearest"):
        p = np.ones(20_000, BFLOAT16)
        opt = fs.SGD(p, lr=1e-4, master=False, rounding=rounding)
        for _ in range(100):
            opt.step(np.ones(20_000, np.float32))
        moved[rounding] = float(p.astype(np.float64).mean())
    assert moved["nearest"] == 1
    assert abs(moved["auto"] - 0.99) < 2e-4


def test_choices_are_those_of_groups() -> None:
    p, q, r = (np.ones(SMALL, BFLOAT16) for _ in range(3))
    s = np.ones(SMALL, np.float32)
    opt = fs.AdamW(
        [
            {"params": p},
            {"params": q, "master": "split8", "state_dtype": "8bit"},
            {"params": [r, s], "master": False, "state_dtype": {"v": "bfloat16"}, "seed": 5},
        ]
    )
    opt.step([np.ones(SMALL, np.float32) for _ in range(2)] + [[p.copy(), s.copy()]])
    first, second, (third, fourth) = opt.state_dict()["state"]
    assert first["p_tail"].dtype == np.int16
    assert second["p_tail"].dtype == np.int8
    assert "p_tail" not in third
    assert first["m"].dtype == third["m"].dtype == fourth["m"].dtype == np.float32
    assert second["m"].dtype == second["v"].dtype == np.uint8
    assert third["v"].dtype == fourth["v"].dtype == np.uint16


# ---- state ----


@pytest.mark.parametrize("state", ["bfloat16", "8bit"])
def test_small_tensors_keep_float32_state(state: str) -> None:
    params = [np.ones(SMALL - 1, np.float32), np.ones(SMALL, np.float32)]
    opt = fs.AdamW(params, state_dtype=state, ema=0.5)
    opt.step([p.copy() for p in params])
    small, large = opt.state_dict()["state"]
    assert small["m"].dtype == small["v"].dtype == np.float32
    assert large["m"].dtype == large["v"].dtype == (np.uint16 if state == "bfloat16" else np.uint8)
    assert large["ema"].dtype == np.float32


def test_decoded_state_is_a_copy_that_cannot_be_written() -> None:
    opt = fs.AdamW(np.ones(SMALL, np.float32), state_dtype={"v": "8bit"})
    opt.step(np.ones(SMALL, np.float32))
    assert opt.state["m"].flags.writeable
    assert opt.state["v"].dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        opt.state["v"][...] = 0


@pytest.mark.parametrize(
    ("state", "rounding", "least", "most"),
    [
        ("bfloat16", "auto", 0.7, 1.4),
        ("bfloat16", "nearest", 10, 50),
        ("8bit", "auto", 0.5, 2),
    ],
)
def test_v_follows_gradients_that_fall(
    state: str, rounding: Any, least: float, most: float
) -> None:
    """3,700 steps after a fall to a thirtieth; to the nearest 16 bits it stands still."""
    scale = np.exp(np.random.default_rng(3).normal(size=SMALL)).astype(np.float32)
    p, q = np.zeros(SMALL, np.float32), np.zeros(SMALL, np.float32)
    kept = fs.Adam(p, lr=0, state_dtype={"v": state}, rounding=rounding)
    plain = fs.Adam(q, lr=0)
    for t in range(4700):
        g = scale if t < 1000 else scale / 30
        kept.step(g)
        plain.step(g)
    ratio = kept.state["v"] / plain.state["v"]
    assert least < np.median(ratio) < most
    if rounding == "auto":
        assert ratio.min() > 0.4
        assert ratio.max() < 2.5


@pytest.mark.parametrize("state", ["float32", "bfloat16", "8bit"])
def test_no_update_explodes_where_gradients_are_mostly_zero(state: str) -> None:
    """Rows of an embedding: in each block one large gradient, small ones beside it, then zeros.

    Were small v stored as zero beside a large one, a zero gradient would leave m over epsilon.
    """
    rng = np.random.default_rng(4)
    p = np.zeros(SMALL, np.float32)
    opt = fs.Adam(p, lr=1.0, state_dtype=state)
    largest = 0.0
    g = (1e-4 * rng.normal(size=SMALL)).astype(np.float32)
    g[::256] = 1
    for t in range(300):
        before = p.copy()
        opt.step(g)
        if t:
            largest = max(largest, float(np.abs(p - before).max()))
        g = (1e-4 * rng.normal(size=SMALL) * (rng.random(SMALL) < 0.1)).astype(np.float32)
    assert 1 < largest < 3


def test_parameters_without_a_gradient_do_not_move() -> None:
    p = np.zeros(SMALL, np.float32)
    g = np.ones(SMALL, np.float32)
    g[::2] = 0
    opt = fs.Adam(p, state_dtype="8bit")
    for _ in range(200):
        opt.step(g)
    assert not p[::2].any()


# ---- gradients ----


@on_each_backend
@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16])
def test_gradients_of_16_bits_are_those_in_float32(backend: str, dtype: Any) -> None:
    shapes = [(300,), (70, 70)]
    grads = [[array(rng, shape, dtype) for shape in shapes] for _ in range(3)]
    results = []
    for wide in (False, True):
        params = [np.ones(shape, np.float32) for shape in shapes]
        opt = fs.AdamW(params, ema=0.9, backend=backend)
        reports = [
            opt.step([g.astype(np.float32) if wide else g for g in each], scale=4.0, max_norm=1.0)
            for each in grads
        ]
        results.append((told(opt, params), reports))
    (narrow, found), (wide_ones, expected) = results
    assert equal(narrow, wide_ones)
    assert found == expected


@on_each_backend
def test_the_dtype_of_gradients_may_change_at_any_step(backend: str) -> None:
    dtypes = [np.float32, BFLOAT16, BFLOAT16, np.float16, np.float32]
    results = []
    for mixed in (True, False):
        rng = np.random.default_rng(5)
        p = np.ones((50, 6), np.float32)
        opt = fs.Adam(p, backend=backend)
        for dtype in dtypes:
            g = array(rng, p.shape, dtype)
            opt.step(g if mixed else g.astype(np.float32))
        results.append(told(opt, [p]))
    assert equal(*results)


@on_each_backend
def test_a_refused_gradient_leaves_others_as_they_are_read(backend: str) -> None:
    """Gradients of the dtype before are not read by that of one that was refused."""
    p, q = np.ones(5000, np.float32), np.ones(5000, np.float32)
    one, two = fs.SGD(p, backend=backend), fs.SGD(q, backend=backend)
    g = np.full(5000, 0.5, np.float16)
    for bad in (None, np.ones(5000), np.ones(3, np.float32), g[:7], None):
        if bad is not None:
            with pytest.raises((TypeError, ValueError), match="grads has"):
                one.step(bad)
        for _ in range(2):
            assert (
                one.step(g, max_norm=1.0).grad_norm
                == two.step(g.astype(np.float32), max_norm=1.0).grad_norm
            )
    assert (p == q).all()


@on_each_backend
def test_gradients_with_gaps_may_be_of_another_dtype_each_time(backend: str) -> None:
    p, q = np.ones((30, 20), np.float32), np.ones((30, 20), np.float32)
    one, two = fs.SGD([p, p.copy()], backend=backend), fs.SGD(q, backend=backend)
    for k, dtype in enumerate([np.float32, np.float16, BFLOAT16, np.float32, BFLOAT16]):
        g = array(np.random.default_rng(k), (30, 40), dtype)[:, ::2]
        one.step([g, None if k % 2 else g])
        two.step(g.astype(np.float32))
    assert (p == q).all()


@on_each_backend
def test_infinite_gradients_of_a_scaled_loss_are_left_out(backend: str) -> None:
    p = np.ones(5000, np.float16)
    opt = fs.AdamW(p, nonfinite="skip", backend=backend)
    g = np.full(5000, 60000, np.float16)
    assert opt.step(g, scale=2.0**16).skipped == ()
    before = p.copy()
    g[4321] = np.inf
    assert opt.step(g, scale=2.0**16, zero_grads=True).skipped == ("params",)
    assert (p == before).all()
    assert not g.any()


@needs_c
def test_gradients_that_lie_as_before_are_taken_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    params = [np.ones(40, BFLOAT16), np.ones((7, 9), BFLOAT16)]
    opt = fs.AdamW(params)
    for _ in range(2):
        opt.step([p.copy() for p in params])
    calls = calls_into_c(monkeypatch)
    opt.step([p.copy() for p in params])
    assert calls == ["fs_take_and_step"]


# ---- a copy in 16 bits ----


@on_each_backend
@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16])
def test_parameters_are_written_in_16_bits_as_well(backend: str, dtype: Any) -> None:
    params = {"w": array(rng, (60, 80), np.float32), "b": array(rng, (7,), np.float32)}
    wide = np.zeros((120, 80), dtype)
    out = {"w": wide[::2], "b": np.zeros(7, dtype)}
    opt = fs.AdamW(params, out=out, backend=backend)
    twins = {key: p.copy() for key, p in params.items()}
    plain = fs.AdamW(twins, backend=backend)
    for _ in range(3):
        grads = {key: array(rng, p.shape, np.float32) for key, p in params.items()}
        opt.step(grads)
        plain.step(grads)
        for key, p in params.items():
            assert (out[key] == p.astype(dtype)).all()
            assert (p == twins[key]).all()
    assert not wide[1::2].any()
    opt.load_float32_params({key: p + 1 for key, p in twins.items()})
    assert (out["w"] == params["w"].astype(dtype)).all()


@on_each_backend
def test_one_step_by_itself_writes_it_too(backend: str) -> None:
    for shape in [(100,), (70, 70)]:
        p, g = array(rng, shape, np.float32), array(rng, shape, BFLOAT16)
        m, v, half = np.zeros_like(p), np.zeros_like(p), np.zeros(shape, BFLOAT16)
        twin, m2, v2 = p.copy(), m.copy(), v.copy()
        for t in (1, 2, 3):
            fs.functional.adamw(p, g, m, v, t=t, out=half, backend=backend)
            fs.functional.adamw(twin, g.astype(np.float32), m2, v2, t=t, backend=backend)
            assert (p == twin).all()
            assert (half == p.astype(BFLOAT16)).all()


# ---- saving, loading, copies ----

WAYS = [
    {"state_dtype": "8bit"},
    {"state_dtype": {"m": "bfloat16", "v": "8bit"}, "master": "split8"},
    {"state_dtype": "bfloat16", "rounding": "stochastic", "master": False},
    {"master": "float32"},
]


def layouts(dtype: Any) -> list[Array]:
    """Parameters in orders that a copy keeps."""
    rng = np.random.default_rng(6)
    made = [array(rng, (70, 80), dtype), array(rng, (SMALL,), dtype), array(rng, (5,), dtype)]
    made[0] = np.asfortranarray(made[0])
    return made


def grads_at(t: int, params: list[Array]) -> list[Array]:
    rng = np.random.default_rng(t)
    return [array(rng, p.shape, BFLOAT16) for p in params]


@on_each_backend
@pytest.mark.parametrize("kept", WAYS, ids=str)
@pytest.mark.parametrize("way", ["state_dict", "copy", "pickle"])
def test_a_resumed_run_goes_on_with_the_same_bits(
    kept: dict[str, Any], way: str, backend: str
) -> None:
    params = layouts(BFLOAT16)
    opt = fs.AdamW(params, ema=0.9, backend=backend, **kept)
    for t in range(3):
        opt.step(grads_at(t, params))
    if way == "state_dict":
        again = layouts(BFLOAT16)
        for p, old in zip(again, params, strict=True):
            p[...] = old
        other = fs.AdamW(again, ema=0.9, backend="numpy", **kept)
        other.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())))
    elif way == "copy":
        other, again = copy.deepcopy((opt, params))
    else:
        other, again = pickle.loads(pickle.dumps((opt, params)))
    assert equal(told(other, again), told(opt, params))
    for t in range(3, 6):
        opt.step(grads_at(t, params))
        other.step(grads_at(t, again))
    assert equal(told(other, again), told(opt, params))


def test_state_goes_from_any_dtype_to_any() -> None:
    params = layouts(np.float32)
    for before in ("float32", "bfloat16", "8bit"):
        opt = fs.AdamW(params, state_dtype=before)
        for t in range(3):
            opt.step(grads_at(t, params))
        for after, error in (("float32", 0), ("bfloat16", 2.0**-8), ("8bit", 0.065)):
            other = fs.AdamW(layouts(np.float32), state_dtype=after)
            other.load_state_dict(opt.state_dict())
            for one, two in zip(opt.state, other.state, strict=True):
                assert one["t"] == two["t"]
                for letter in ("m", "v"):
                    small = np.abs(one[letter]) < np.abs(one[letter]).max() * 2.0**-15
                    near = np.abs(two[letter] - one[letter]) <= error * np.abs(one[letter])
                    assert (near | small).all()


def test_codes_are_told_in_the_order_of_the_elements_and_that_of_their_blocks() -> None:
    """A parameter's copy in C order, with its state, has the same values."""
    params = layouts(np.float32)
    params[0] = params[0][:, ::-1]
    opt = fs.AdamW(params, state_dtype="8bit")
    opt.step(grads_at(0, params))
    state = opt.state_dict()["state"]
    assert state[0]["p_order"] == (~1, 0)
    assert state[0]["m"].shape == (70, 80)
    assert state[0]["m_base"].shape == (22,)
    assert "p_order" not in state[1]
    plain = [np.array(p, order="C") for p in params]
    other = fs.AdamW(plain, state_dtype="float32")
    other.load_state_dict(opt.state_dict())
    for one, two in zip(opt.state, other.state, strict=True):
        assert (one["m"] == two["m"]).all()
        assert (one["v"] == two["v"]).all()


def test_older_state_dicts_are_loaded() -> None:
    opt = fs.AdamW(np.ones(3, np.float32))
    opt.step(np.ones(3, np.float32))
    saved = opt.state_dict()
    for name in ("master", "state_dtype", "rounding", "seed", "untouched", "row_steps"):
        del saved["param_groups"][0][name]
    other = fs.AdamW(np.ones(3, np.float32), rounding="stochastic", seed=4)
    other.load_state_dict(saved)
    assert (other.state["m"] == opt.state["m"]).all()
    assert other.param_groups[0]["seed"] == 4


@pytest.mark.parametrize(
    ("entry", "value", "error", "message"),
    [
        ("m_base", np.zeros(3, np.int32), ValueError, r"\['m_base'\] is int32 of shape \(3,\)"),
        ("m", np.zeros(SMALL, np.int8), TypeError, "has dtype int8; it is float32, or bfloat16"),
        ("m", np.zeros(9, np.uint8), ValueError, r"has shape \(9,\)"),
        ("p_order", (1,), ValueError, r"names each of 1 axes once"),
        ("p_order", (float("inf"),), ValueError, r"names each of 1 axes once"),
        ("p_tail", np.zeros(SMALL, np.int8), ValueError, "keeps the parameter as 'split16'"),
        ("p_master", np.zeros(SMALL, np.float32), ValueError, "load_float32_params"),
    ],
)
def test_bad_entries_are_refused(entry: str, value: Any, error: Any, message: str) -> None:
    p = np.ones(SMALL, BFLOAT16)
    opt = fs.AdamW(p, state_dtype="8bit")
    opt.step(p.copy())
    before = told(opt, [p])
    saved = opt.state_dict()
    saved["state"][entry] = value
    with pytest.raises(error, match=message):
        opt.load_state_dict(saved)
    assert equal(told(opt, [p]), before)


def test_exact_values_go_from_one_optimizer_to_another() -> None:
    params = layouts(BFLOAT16)
    opt = fs.AdamW(params)
    for t in range(3):
        opt.step(grads_at(t, params))
    values = opt.float32_params()
    for master in ("split16", "float32"):
        other = fs.AdamW(layouts(BFLOAT16), master=master)
        other.load_float32_params(values)
        for one, two in zip(values, other.float32_params(), strict=True):
            assert (one.view(np.uint32) == two.view(np.uint32)).all()
    with pytest.raises(TypeError, match=r"params\[1\] has dtype '<f8'"):
        opt.load_float32_params([values[0], values[1].astype(np.float64), values[2]])
    assert equal([v.view(np.uint32) for v in values], [v.view(np.uint32) for v in exact(opt)])


# ---- arenas ----


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16])
@pytest.mark.parametrize("state", ["float32", "bfloat16", "8bit"])
def test_an_arena_has_the_bits_of_its_parameters_alone(dtype: Any, state: str) -> None:
    params = layouts(dtype)
    arena = fs.Arena([p.copy(order="K") for p in params])
    assert [p.dtype for p in arena.params] == [np.dtype(dtype)] * 3
    alone, joined = fs.AdamW(params, state_dtype=state), fs.AdamW(arena, state_dtype=state)
    for t in range(3):
        grads = [g.astype(dtype) for g in grads_at(t, params)]
        alone.step(grads)
        arena.set_grads(grads)
        joined.step()
    assert equal(told(alone, params), told(joined, arena.params))


# ---- rounding ----


def test_roundings_differ_by_seed_and_tensor_and_are_repeated() -> None:
    def run(seed: int, **more: Any) -> list[Array]:
        params = [np.ones(SMALL, BFLOAT16), np.ones(SMALL, BFLOAT16)]
        opt = fs.AdamW(params, master=False, seed=seed, **more)
        for _ in range(3):
            opt.step([np.full(SMALL, 0.3, np.float32)] * 2)
        return told(opt, params)

    first, second = run(0)[:2]
    assert (first != second).any()
    assert equal(run(0), run(0))
    assert equal(run(0), run(0, backend="numpy"))
    assert not equal(run(0), run(1))


def test_rounding_and_seed_may_be_assigned() -> None:
    p, q = np.ones(SMALL, BFLOAT16), np.ones(SMALL, BFLOAT16)
    one = fs.SGD(p, lr=1e-3, master=False, rounding="stochastic", seed=9)
    two = fs.SGD(q, lr=1e-3, master=False)
    two.step(np.zeros(SMALL, np.float32))
    one.step(np.zeros(SMALL, np.float32))
    two.param_groups[0].update(rounding="nearest")
    two.step(np.ones(SMALL, np.float32))
    assert (q == 1).all()
    two.param_groups[0].update(rounding="stochastic", seed=9)
    for opt in (one, two):
        opt.step(np.ones(SMALL, np.float32))
    one.step(np.zeros(SMALL, np.float32))
    assert (p != 1).any()
    assert (q != 1).any()


@on_each_backend
@pytest.mark.parametrize("state", ["bfloat16", "8bit"])
def test_a_run_is_resumed_where_no_state_is_float32(state: str, backend: str) -> None:
    """There is no array of floats then whose memory could be kept or freed."""
    rng = np.random.default_rng(6)
    p = array(rng, SMALL, np.float32)
    q, grads = p.copy(), [array(rng, SMALL, np.float32) for _ in range(4)]
    opt = fs.AdamW(p, state_dtype=state, backend=backend)
    other = fs.AdamW(q, state_dtype=state, backend=backend)
    for g in grads[:2]:
        opt.step(g)
    other.load_state_dict(opt.state_dict())
    q[...] = p
    for g in grads[2:]:
        opt.step(g)
        other.step(g)
    assert equal(told(opt, [p]), told(other, [q]))
