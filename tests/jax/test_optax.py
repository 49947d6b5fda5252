"""A transformation is one of optax's for whatever takes one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from marks import needs, needs_c

jax = needs("jax", "jax")
jnp = jax.numpy
optax = needs("optax", "others")
fj = pytest.importorskip("fusedstep.jax")

pytestmark = needs_c

P = {"w": np.linspace(-1, 1, 33, dtype=np.float32), "b": np.float32(0.5) * np.ones(3, np.float32)}
G = {"w": np.linspace(3, 1, 33, dtype=np.float32), "b": np.ones(3, np.float32)}


def trained(tx: Any, steps: int = 3) -> Any:
    def step(p: Any, state: Any) -> Any:
        updates, state = tx.update(G, state, p)
        return optax.apply_updates(p, updates), state

    program = jax.jit(step)
    p, state = jax.tree.map(jnp.array, P), tx.init(P)
    for _ in range(steps):
        p, state = program(p, state)
    return p


def close(one: Any, other: Any) -> bool:
    return all(np.allclose(one[name], other[name], rtol=1e-5, atol=1e-5) for name in P)


def test_the_same_rule() -> None:
    theirs = trained(optax.adamw(0.1, weight_decay=0.01))
    assert close(trained(fj.adamw(0.1)), theirs)
    assert close(trained(fj.sgd(0.1, momentum=0.9)), trained(optax.sgd(0.1, 0.9)))


def test_chain() -> None:
    def chained(tx: Any) -> Any:
        return optax.chain(optax.clip_by_global_norm(1.0), tx)

    theirs = optax.adamw(0.1, weight_decay=0.01)
    assert close(trained(chained(fj.adamw(0.1))), trained(chained(theirs)))


def test_inject_hyperparams() -> None:
    schedule = optax.linear_schedule(0.1, 0.0, 5)
    ours = trained(optax.inject_hyperparams(fj.adamw)(lr=schedule))
    assert close(ours, trained(optax.adamw(schedule, weight_decay=0.01)))
    tx = optax.inject_hyperparams(fj.adamw)(lr=0.1)
    state = tx.init(P)
    state.hyperparams["lr"] = jnp.float32(0.0)
    updates, _ = jax.jit(tx.update)(G, state, P)
    assert not any(map(np.any, updates.values()))


@pytest.mark.parametrize("kind", fj.optimizers.__all__)
def test_every_optimizer_takes_injected_hyperparameters(kind: str) -> None:
    make = getattr(fj, kind)
    assert close(trained(optax.inject_hyperparams(make)(lr=0.01)), trained(make(lr=0.01)))


def test_schedules_count_from_0() -> None:
    schedule = optax.linear_schedule(0.1, 0.0, 5)
    assert close(trained(fj.adamw(schedule)), trained(optax.adamw(schedule, weight_decay=0.01)))


def test_masked_leaves_out_what_it_cannot_step() -> None:
    p = {"w": jnp.ones(3), "n": jnp.ones(2, int)}
    tx = optax.masked(fj.adamw(0.1), {"w": True, "n": False})
    updates, _ = tx.update(p, tx.init(p), p)
    assert updates["n"].tolist() == [1, 1]
    assert (updates["w"] < 0).all()


def test_apply_if_finite() -> None:
    tx = optax.apply_if_finite(fj.adamw(0.1), 3)
    bad = jax.tree.map(lambda g: g * np.nan, G)
    updates, _ = jax.jit(tx.update)(bad, tx.init(P), P)
    assert not any(map(np.any, updates.values()))


def test_multi_steps() -> None:
    def over(tx: Any) -> Any:
        return optax.MultiSteps(tx, 2)

    theirs = optax.adamw(0.1, weight_decay=0.01)
    assert close(trained(over(fj.adamw(0.1)), 4), trained(over(theirs), 4))
