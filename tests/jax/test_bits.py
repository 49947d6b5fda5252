"""Steps in programs that JAX compiles have the bits of every other step of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    difficult,
    differing_bits,
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
    steps: Iterator[dict[str, Any]] | list[dict[str, Any]],
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
