"""Plans that outlive a call of `functional`: right for whatever arrays the next call brings."""

from __future__ import annotations

import gc
import inspect
import weakref
from random import Random
from threading import Thread
from typing import Any, TypeAlias

import numpy as np
import pytest
from cases import BASES, Case, differing_bits, ordinary
from counting import calls_of, python_calls
from marks import COMPILED, for_each, needs, needs_c, on_each_backend
from memory_layouts import GRADIENT_LAYOUTS, LAYOUTS, outside

import fusedstep as fs
from fusedstep._core import aimed
from fusedstep._core.declaration import declaration_of

Array: TypeAlias = np.ndarray[Any, Any]

SIZES = (1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 1000, 1025, 29_999, 30_000, 32_768, 70_001)


def function_of(optimizer: Any) -> Any:
    return getattr(fs.functional, optimizer.__name__.lower())


def letters_of(case: Case) -> list[str]:
    """The letters of the states that a case has."""
    opt = case.optimizer(np.zeros(1), **case.options)
    return [letter for letter in declaration_of(case.optimizer).letters if letter in opt.state]


def options_of(case: Case) -> dict[str, Any]:
    known = inspect.signature(function_of(case.optimizer)).parameters
    return {name: value for name, value in case.options.items() if name in known}


def random_shape(random: Random, size: int) -> tuple[int, ...]:
    """A shape of that many elements."""
    kind = random.randrange(5)
    if size == 1 and kind == 0:
        return ()
    if kind == 1:
        return (1, size)
    if kind == 2:
        return (size, 1, 1)
    divisors = [k for k in range(2, 12) if size % k == 0]
    if kind == 3 and divisors:
        k = random.choice(divisors)
        return (k, size // k)
    return (size,)


def placed(random: Random, values: Array) -> Array:
    """The same values in new memory, in one layout or another."""
    kind = random.randrange(7)
    if kind == 0:
        return np.array(values, order="F")
    if kind == 1 and values.ndim:
        memory = np.zeros((*values.shape[:-1], 2 * values.shape[-1]), values.dtype)
        memory[..., ::2] = values
        return memory[..., ::2]
    if kind == 2:
        raw = np.zeros(values.nbytes + 1, np.uint8)[1:]
        view = raw.view(values.dtype).reshape(values.shape)
        view[...] = values
        return view
    if kind == 3:
        shifted = np.zeros(values.size + 1, values.dtype)[1:]
        shifted[...] = values.ravel()
        return shifted.reshape(values.shape)
    if kind == 4 and values.ndim:
        return values[::-1].copy()[::-1]
    return values.copy()


@on_each_backend
@pytest.mark.parametrize("seed", range(6))
def test_calls_one_after_the_other(backend: str, seed: int) -> None:
    """Rules, options, dtypes, shapes and layouts at random: always the optimizer's bits."""
    random, rng = Random(seed), np.random.default_rng(seed)
    for _ in range(60):
        case = random.choice(BASES)
        size = random.choice(SIZES[:12] if random.random() < 0.9 else SIZES)
        dtype = random.choice([np.float32, np.float64])
        shape = random_shape(random, size)
        p = ordinary(rng, size, dtype).reshape(shape)
        opt = case.optimizer(theirs := p.copy(), backend="numpy", **case.options)
        mine = placed(random, p)
        states = {letter: placed(random, opt.state[letter]) for letter in letters_of(case)}
        for t in range(1, random.randrange(2, 4)):
            g = ordinary(rng, size, dtype).reshape(shape)
            opt.step(g)
            given = placed(random, g)
            function_of(case.optimizer)(
                mine, given, **states, t=t, backend=backend, **options_of(case)
            )
            assert differing_bits(given, g) == 0
            if random.random() < 0.3:  # other memory, under the same plan perhaps
                mine = placed(random, np.array(mine))
                states = {letter: placed(random, np.array(a)) for letter, a in states.items()}
        assert differing_bits(np.array(mine), theirs) == 0, case.name
        for letter, array in states.items():
            assert differing_bits(np.array(array), opt.state[letter]) == 0, (case.name, letter)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("of_g", GRADIENT_LAYOUTS)
@pytest.mark.parametrize("of_p", LAYOUTS)
def test_layouts_and_the_memory_around_them(of_p: str, of_g: str, backend: str) -> None:
    rng = np.random.default_rng(2)
    for round_ in range(3):
        arrays = [LAYOUTS[of_p](np.float32) for _ in range(3)]
        (p, around), (m, _), (v, _) = arrays
        around[...] = (
            ordinary(rng, around.size, around.dtype).reshape(around.shape)
            if (around.dtype == np.float32)
            else rng.integers(0, 60, around.shape, around.dtype)
        )
        p[...] = ordinary(rng, 60, np.float32).reshape(p.shape)
        g, under = GRADIENT_LAYOUTS[of_g](np.float32)
        if under.dtype == np.float32:
            under[...] = ordinary(rng, under.size, np.float32).reshape(under.shape)
        else:
            g[...] = ordinary(rng, 60, np.float32).reshape(g.shape)
        opt = fs.AdamW(theirs := p.copy(), backend="numpy")
        opt.step(g.copy())
        before = outside(p, around), g.copy()
        fs.functional.adamw(p, g, m, v, t=1, backend=backend)
        assert differing_bits(np.array(p), theirs) == 0, round_
        assert differing_bits(np.array(m), opt.state["m"]) == 0
        assert outside(p, around) == before[0]
        assert differing_bits(np.array(g), before[1]) == 0


@needs_c
def test_a_plan_is_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other memory, another gradient, rate or t take no other plan; nor do small new shapes."""
    fs.functional.adamw(*(np.ones((3, 7)) for _ in range(4)), t=1)
    laid_out = calls_of(monkeypatch, aimed, "Plan")
    for t in range(1, 20):
        p, g, m, v = (np.ones((t, 9)) for _ in range(4))
        fs.functional.adamw(p, g, m, v, t=t, lr=1 / t)
    assert laid_out == []
    for _ in range(3):
        fs.functional.adamw(*(np.ones((40_000, 2)) for _ in range(4)), t=1)
    assert len(laid_out) == 1


@needs_c
def test_what_a_repeated_call_does_in_python() -> None:
    p, g, m, v = (np.ones(1000, np.float32) for _ in range(4))
    for t in (1, 2):
        fs.functional.adamw(p, g, m, v, t=t)
    names = python_calls(lambda: fs.functional.adamw(p, g, m, v, t=3))
    assert not {"see", "plain", "choose", "check_like", "describe", "check"} & set(names)
    assert len(names) < 25


@on_each_backend
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_held(backend: str, layout: str) -> None:
    alive = []
    for t in (1, 2, 3):
        arrays = [np.array(LAYOUTS[layout](np.float32)[0], order="K") for _ in range(4)]
        views = [LAYOUTS[layout](np.float32)[0] for _ in range(4)]
        views[3].flags.writeable = False  # of a read-only one a copy might be kept
        p, m, v, g = views
        alive += [weakref.ref(array) for array in (*arrays, *views)]
        alive += [weakref.ref(a.base) for a in views if a.base is not None]
        fs.functional.adamw(p, g, m, v, t=t, backend=backend)
        del arrays, views, p, m, v, g
    gc.collect()
    assert [reference() for reference in alive] == [None] * len(alive)


def test_an_array_can_be_resized_afterwards() -> None:
    p, g = np.ones(1000, np.float32), np.ones(1000, np.float32)
    m, v = np.zeros(1000, np.float32), np.zeros(1000, np.float32)
    fs.functional.adamw(p, g, m, v, t=1)
    fs.functional.adamw(p, g, m, v, t=2)
    p.resize(2000)  # which NumPy refuses while anybody holds a view
    g.resize(2000)
    m.resize(2000)
    v.resize(2000)
    fs.functional.adamw(p, g, m, v, t=3)
    opt = fs.AdamW(theirs := np.ones(1000, np.float32))
    for _ in range(3):
        opt.step(np.ones(1000, np.float32))
    assert differing_bits(p[:1000], theirs) == 0


def refused() -> list[tuple[str, type[Exception], str]]:
    """Arguments in place of those that fit, each with the error and words of it."""
    return [
        ("p=locked(p)", ValueError, "p is read-only"),
        ("m=locked(m)", ValueError, "m is read-only"),
        ("g=g[:-1]", ValueError, "g has shape"),
        ("g=g.astype(np.float64)", TypeError, "g has dtype"),
        ("m=m.astype(np.float64)", TypeError, "m has dtype"),
        ("v=v[1:]", ValueError, "v has shape"),
        ("v=m", ValueError, "share memory"),
        ("m=p", ValueError, "share memory"),
        ("g=p", ValueError, "g shares memory with p"),
        ("g=v", ValueError, "g shares memory with v"),
        ("p=both[:9], m=both[5:14]", ValueError, "share memory"),
        ("p=both[:9], g=both[5:14]", ValueError, "g shares memory with p"),
        ("p=p.astype('>f4')", TypeError, "p has dtype"),
        ("p=p.astype(np.int32)", TypeError, "p has dtype"),
        ("g=np.ma.array(g)", TypeError, "masked"),
        ("p=np.broadcast_to(p[:1], 9).view()", ValueError, "p is read-only"),
        (
            "p=np.lib.stride_tricks.as_strided(both, (9,), (0,))",
            ValueError,
            "elements that share memory",
        ),
        ("p='p'", TypeError, "p is "),
        ("t=0", ValueError, "t=0"),
        ("t=True", ValueError, "t=True"),
        ("lr=-1.0", ValueError, "lr=-1.0"),
        ("lr=float('nan')", ValueError, "lr=nan"),
        ("lr=lambda t: 0.1", TypeError, "schedule\\(t\\)"),
        ("weight_decay=True", TypeError, "weight_decay=True"),
        ("weight_decay=-1", ValueError, "weight_decay=-1"),
        ("betas=(0.9, 1.0)", ValueError, "betas\\[1\\]=1.0"),
        ("betas=[0.9]", TypeError, "betas"),
        ("maximize=1", TypeError, "maximize=1"),
        ("backend='gpu'", ValueError, "backend='gpu'"),
    ]


@on_each_backend
@pytest.mark.parametrize(
    ("what", "error", "words"), refused(), ids=[what for what, *_ in refused()]
)
def test_refused_as_at_first(what: str, error: Any, words: str, backend: str) -> None:
    """A plan stands ready that serves the arrays as they should be; nothing is written."""
    p, g, m, v, both = (np.ones(n, np.float32) for n in (9, 9, 9, 9, 20))
    ready: Any = {"t": 1, "backend": backend, "weight_decay": 1.0, "maximize": True}

    def locked(array: Array) -> Array:
        array = array.copy()
        array.flags.writeable = False
        return array

    for _ in range(2):
        fs.functional.adamw(p, g, m, v, **ready)
    passed: Any = {
        "p": p,
        "g": g,
        "m": m,
        "v": v,
        **ready,
        **eval(f"dict({what})", {"np": np, **locals()}),
    }
    if "both" in what:
        fs.functional.adamw(*(np.ones(9, np.float32) for _ in range(4)), **ready)
    before = [np.array(a) for a in (p, g, m, v, both)]
    for _ in range(2):
        with pytest.raises(error, match=words):
            fs.functional.adamw(**passed)
    for array, kept in zip((p, g, m, v, both), before, strict=True):
        assert differing_bits(array, kept) == 0
    fs.functional.adamw(p, g, m, v, **ready)  # and the next call goes as ever


def test_interleaved_arrays_do_not_overlap() -> None:
    """Their bytes lie between one another's: C leaves the judgement to Python."""
    rng = np.random.default_rng(4)
    memory = ordinary(rng, 400, np.float32).reshape(100, 4)
    memory[:, 2] = abs(memory[:, 2])
    p, m, v, g = (memory[:, k] for k in range(4))
    opt = fs.AdamW(theirs := p.copy())
    opt.load_state_dict({**opt.state_dict(), "state": {"m": m.copy(), "v": v.copy(), "t": 4}})
    for t in (5, 6, 7):
        opt.step(g.copy())
        fs.functional.adamw(p, g, m, v, t=t)
        assert differing_bits(p.copy(), theirs) == 0


@for_each(BASES)
def test_a_rate_may_be_any_number(case: Case) -> None:
    scheduled = case.options.get("decay_scale") == "schedule"
    rate: Any
    for rate in (0.5, np.float32(0.5), np.float64(0.5), 1, np.int8(1), *([] if scheduled else [0])):
        p, g = np.ones(5), np.arange(5.0)
        opt = case.optimizer(theirs := p.copy(), **{**case.options, "lr": float(rate)})
        opt.step(g)
        states = {letter: np.zeros(5) for letter in letters_of(case)}
        options = {**options_of(case), "lr": rate}
        if "initial_accumulator_value" in case.options:
            states["s"] += case.options["initial_accumulator_value"]
        function_of(case.optimizer)(p, g, **states, t=1, **options)
        assert differing_bits(p, theirs) == 0, rate


def test_a_schedule_s_decay_is_checked_at_each_rate() -> None:
    p, g, m, v = (np.ones(5) for _ in range(4))
    options: Any = {"decay_scale": "schedule", "initial_lr": 1e-300, "t": 1}
    fs.functional.adamw(p, g, m, v, lr=1e-300, **options)
    with pytest.raises(ValueError, match=r"lr=1e\+300"):
        fs.functional.adamw(p, g, m, v, lr=1e300, **options)
    with pytest.raises(ValueError, match=r"lr=0\.0 and initial_lr=0\.0"):
        fs.functional.adamw(p, g, m, v, lr=0.0, t=1, decay_scale="schedule")


def test_threads_step_by_plans_of_their_own() -> None:
    """All of one layout, so that each would find the same plan."""
    rng = np.random.default_rng(5)
    starts = [ordinary(rng, 20_000, np.float32) for _ in range(4)]
    grads = [ordinary(rng, 20_000, np.float32) for _ in range(4)]
    sets = [
        (p.copy(), g, np.zeros_like(p), np.zeros_like(p))
        for p, g in zip(starts, grads, strict=True)
    ]

    def work(p: Array, g: Array, m: Array, v: Array) -> None:
        for t in range(1, 200):
            fs.functional.adamw(p, g, m, v, t=t)

    threads = [Thread(target=work, args=each) for each in sets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (p, *_), start, g in zip(sets, starts, grads, strict=True):
        opt = fs.AdamW(start)
        for _ in range(1, 200):
            opt.step(g)
        assert differing_bits(p, start) == 0


def test_the_store_is_bounded() -> None:
    for n in range(aimed.MOST + 20):
        fs.functional.sgd(np.ones((n + 1, 2), order="F"), np.ones((n + 1, 2)), t=1)
    assert len(vars(aimed)["_plans"]) <= aimed.MOST


@needs_c
def test_an_instruction_set_that_is_chosen_later_is_used() -> None:
    from fusedstep._backends.c import engine

    before = engine.isa()
    p, g = np.ones(50, np.float32), np.ones(50, np.float32)
    try:
        for name in engine.isas():
            engine.select_isa(name)
            fs.functional.sgd(p, g, t=1, lr=0.5)
    finally:
        engine.select_isa(before)
    assert (p == 1 - 0.5 * len(engine.isas())).all()


@pytest.mark.parametrize("seed", range(3))
def test_tensors_of_torch_among_arrays(seed: int) -> None:
    torch = needs("torch", "torch")
    random, rng = Random(seed), np.random.default_rng(seed)
    for _ in range(40):
        shape = random.choice([(5,), (3, 4), (2, 3, 4), ()])
        start = rng.standard_normal(shape).astype(np.float32)
        g = rng.standard_normal(shape).astype(np.float32)
        opt = fs.AdamW(theirs := start.copy())
        arrays = [start.copy(), np.zeros(shape, np.float32), np.zeros(shape, np.float32)]
        kinds = [lambda a: a, torch.as_tensor, lambda a: torch.nn.Parameter(torch.as_tensor(a))]
        p, m, v = (random.choice(kinds)(a) for a in arrays)
        for t in (1, 2, 3):
            opt.step(g)
            given = random.choice(
                [g, torch.as_tensor(g), torch.as_tensor(g.T.copy()).permute([*range(g.ndim)[::-1]])]
            )
            fs.functional.adamw(p, given, m, v, t=t)
        assert differing_bits(arrays[0], theirs) == 0
        assert differing_bits(arrays[2], opt.state["v"]) == 0
