"""Steps in programs that JAX compiles have the bits of every other step of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from cases import (
    CASES,
    CUSTOM_CASES,
    LARGE_SIZES,
    SIZES,
    Case,
    crossed,
    differing_bits,
    difficult,
    ordinary,
)
from marks import for_each, needs, needs_c

import fusedstep as fs

jax = needs("jax", "jax")
jnp = jax.numpy
fj = pytest.importorskip("fusedstep.jax")

pytestmark = needs_c

EMA = [Case("-ema", fs.Optimizer, {"ema": 0.6})]
FEW = [case for case in CASES if case.name in ("nesterov", "rmsprop-centered-momentum", "adamw")]


def bits_of(array: Any) -> np.ndarray[Any, Any]:
    return np.array(array)


def function(case: Case) -> Callable[..., Any]:
    """The function here of a case's optimizer."""
    made: Callable[..., Any] = getattr(fj, case.optimizer.__name__.lower())
    return made


def tensors(sizes: list[int], dtype: Any, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {str(k): difficult(rng, n, dtype) for k, n in enumerate(sizes)}


def check(
    case: Case,
    params: dict[str, Any],
    steps: Iterable[dict[str, Any]],
    backend: str = "auto",
) -> None:
    """Steps of both, from the same parameters: every array has the same bits at the end."""
    ours = {name: p.copy() for name, p in params.items()}
    opt = case.optimizer(ours, **case.options)
    tx = function(case)(**case.options, backend=backend)
    theirs = {name: jnp.array(p) for name, p in params.items()}
    state = tx.init(theirs)
    apply = jax.jit(tx.apply, donate_argnums=(1, 2))
    for t, grads in enumerate(steps, start=1):
        opt.step(grads)
        theirs, state = apply({k: jnp.array(g) for k, g in grads.items()}, state, theirs)
        assert int(state.count) == t
    for name, p in ours.items():
        assert differing_bits(p, bits_of(theirs[name])) == 0, name
        kept = opt.state[name]
        assert kept.keys() - {"t"} == state.arrays.keys()
        for letter in state.arrays:
            assert differing_bits(kept[letter], bits_of(state.arrays[letter][name])) == 0, letter


@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
@for_each([*CASES, *CUSTOM_CASES, *crossed(FEW, EMA)])
def test_every_rule(case: Case, x64: bool) -> None:
    dtype = np.float64 if x64 else np.float32
    with jax.enable_x64(x64):
        sizes = [0, 1, 7, 17, 33, 64]
        check(case, tensors(sizes, dtype), [tensors(sizes, dtype, seed=k) for k in (1, 2, 3)])


@for_each(FEW)
def test_large_tensors_on_any_number_of_threads_in_any_instruction_set(
    case: Case, threads: int, isa: str
) -> None:
    sizes = [*SIZES, *LARGE_SIZES]
    draws = [
        {k: ordinary_like(g, seed) for k, g in tensors(sizes, np.float32).items()}
        for seed in (1, 2)
    ]
    check(case, tensors(sizes, np.float32), draws)


def ordinary_like(array: Any, seed: int) -> Any:
    return ordinary(np.random.default_rng(seed), array.size, array.dtype)


@for_each(FEW)
def test_numbas_kernels(case: Case) -> None:
    check(case, tensors([33, 5], np.float32), [tensors([33, 5], np.float32, 1)], backend="numba")


def test_both_dtypes_in_one_tree_of_more_tensors_than_a_call_takes() -> None:
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        params, grads = (
            {
                str(k).zfill(2): ordinary(rng, k, np.float64 if k % 3 else np.float32)
                for k in range(40)
            }
            for _ in range(2)
        )
        check(FEW[-1], params, [grads, grads])


@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("case", FEW, ids=lambda case: case.name)
def test_updates_are_the_difference_rounded_once(case: Case, x64: bool) -> None:
    """And the state is that of `apply`."""
    dtype = np.float64 if x64 else np.float32
    p, g = (ordinary(np.random.default_rng(k), 20_001, dtype) for k in (0, 1))
    with jax.enable_x64(x64):
        tx = function(case)(**case.options)
        given = jnp.array(g)
        state = tx.init(p)
        updates, after = jax.jit(tx.update)(given, state, p)
        new, state = jax.jit(tx.apply)(given, state, p)
    assert differing_bits(bits_of(updates), bits_of(new) - p) == 0
    for letter, array in state.arrays.items():
        assert differing_bits(bits_of(after.arrays[letter]), bits_of(array)) == 0
    assert np.array_equal(given, g)


SCHEDULE = fs.schedules.cosine(0.1, steps=5)

RATES: dict[str, tuple[Any, Any]] = {
    "schedule": (SCHEDULE, SCHEDULE),
    "array": (jnp.float32(0.1), float(np.float32(0.1))),
    "function of the count": (
        lambda count: jnp.float32(0.1) / (1 + count),
        lambda t: float(np.float32(0.1) / np.float32(t)),
    ),
}


@pytest.mark.parametrize("name", RATES)
def test_rates(name: str) -> None:
    here, there = RATES[name]
    ours, theirs = np.ones(9, np.float32), jnp.ones(9)
    opt, tx = fs.AdamW(ours, lr=there), fj.adamw(lr=here)
    state, apply = tx.init(theirs), jax.jit(tx.apply)
    for seed in range(4):
        g = ordinary(np.random.default_rng(seed), 9, np.float32)
        opt.step(g)
        theirs, state = apply(g, state, theirs)
    assert differing_bits(ours, bits_of(theirs)) == 0


def test_a_rate_of_64_bits() -> None:
    ours = np.ones(9)
    opt = fs.AdamW(ours, lr=0.1)
    g = ordinary(np.random.default_rng(0), 9, np.float64)
    opt.step(g)
    with jax.enable_x64(True):
        tx = fj.adamw(lr=jnp.float64(0.1))
        theirs, _ = jax.jit(tx.apply)(g, tx.init(jnp.ones(9)), jnp.ones(9))
    assert differing_bits(ours, bits_of(theirs)) == 0


TRACED: dict[str, tuple[str, dict[str, Any]]] = {
    "weight_decay": ("adamw", {"weight_decay": 0.5}),
    "betas": ("adamw", {"betas": (0.5, 0.75)}),
    "momentum": ("sgd", {"momentum": 0.5}),
    "ema": ("sgd", {"ema": 0.5}),
    "initial_accumulator_value": ("adagrad", {"initial_accumulator_value": 0.5}),
    "rule": ("lion", {"betas": (0.5, 0.75), "weight_decay": 0.5}),
}


@pytest.mark.parametrize("name", TRACED)
def test_numbers_that_the_program_has(name: str) -> None:
    """Hyperparameters that are exact in float32."""
    kind, options = TRACED[name]
    p = ordinary(np.random.default_rng(0), 9, np.float32)

    def stepped(options: dict[str, Any]) -> Any:
        tx = getattr(fj, kind)(lr=0.25, **options)
        q, state = p, tx.init(p)
        for _ in range(3):
            q, state = tx.apply(p, state, q)
        return q, state

    expected, traced = stepped(options), jax.jit(stepped)(options)
    for one, other in zip(*map(jax.tree.leaves, (expected, traced)), strict=True):
        assert differing_bits(bits_of(one), bits_of(other)) == 0


def test_a_rule_of_ones_own() -> None:
    @fs.rule(state=("m",), lr=0.1, mu=0.5)
    def averaged(p, g, m, h):  # type: ignore[no-untyped-def]
        m = h.mu * m + (1 - h.mu) * g
        return p - h.lr * m, m

    ours, theirs = np.ones(9, np.float32), jnp.ones(9)
    opt, tx = averaged(ours, mu=0.7), fj.from_class(averaged)(mu=0.7)
    state = tx.init(theirs)
    for seed in range(3):
        g = ordinary(np.random.default_rng(seed), 9, np.float32)
        opt.step(g)
        theirs, state = tx.apply(g, state, theirs)
    assert differing_bits(ours, bits_of(theirs)) == 0


def test_two_classes_of_one_name_keep_their_own_rules() -> None:
    """Classes as a notebook makes them, whose cell is run again."""

    def made(factor: float) -> Any:
        @fs.rule(lr=1.0)
        def same(p, g, h):  # type: ignore[no-untyped-def]
            return p - factor * g

        return fj.from_class(same)()

    one, other = made(1.0), made(2.0)
    first, second = (jax.jit(each.apply) for each in (one, other))
    g = jnp.ones(3)
    assert first(g, one.init(g), g)[0].tolist() == [0, 0, 0]
    assert second(g, other.init(g), g)[0].tolist() == [-1, -1, -1]
    assert first(g, one.init(g), g)[0].tolist() == [0, 0, 0]
