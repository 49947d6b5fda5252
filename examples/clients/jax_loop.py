"""A JAX program that trains: loss, gradient and step are one function in `jax.jit`.

    params, state = tx.apply(grads, state, params)

An MLP learns which of two interleaved spirals a point lies on. An epoch is one call: `lax.scan`
goes over the batches, the rate falls along a cosine, and the buffers of parameters and state are
donated, so that each step is taken in place. Then the gradients of one batch are given to the
plain `fusedstep.AdamW`, over NumPy's arrays, and to the program: the parameters come out the same,
bit for bit.

    python examples/clients/jax_loop.py
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

import fusedstep as fs
import fusedstep.jax

Array: TypeAlias = Any
Params: TypeAlias = list[tuple[Array, Array]]

EPOCHS, BATCHES, BATCH, WIDTH = 60, 16, 64, 64


def spirals(points: int, seed: int = 0) -> tuple[Array, Array]:
    """Points on two spirals with a little noise, and which one each lies on."""
    rng = np.random.default_rng(seed)
    which = rng.integers(2, size=points)
    radius = np.sqrt(rng.random(points))
    angle = 2.5 * np.pi * radius + np.pi * which
    x = radius * np.stack([np.cos(angle), np.sin(angle)]) + 0.02 * rng.standard_normal((2, points))
    return x.T.astype(np.float32), which.astype(np.float32)


def network(*widths: int) -> Params:
    rng = np.random.default_rng(0)
    return [
        (
            jnp.array(rng.standard_normal((n, m)) * np.sqrt(2 / n), jnp.float32),
            jnp.zeros(m, jnp.float32),
        )
        for n, m in pairwise(widths)
    ]


def scores(params: Params, x: Array) -> Array:
    *hidden, (w, b) = params
    for v, c in hidden:
        x = jax.nn.relu(x @ v + c)
    return (x @ w + b)[:, 0]


def loss(params: Params, x: Array, y: Array) -> Array:
    s = scores(params, x)
    return (jnp.logaddexp(0, s) - y * s).mean()


def train() -> tuple[Params, Any, float]:
    """Parameters, state, and the share of new points that the network is right about."""
    rate = fs.schedules.cosine(3e-3, steps=EPOCHS * BATCHES)
    tx = fusedstep.jax.adamw(lr=rate, weight_decay=0.01)

    def step(carry: Any, batch: tuple[Array, Array]) -> tuple[Any, Array]:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, *batch)
        return tx.apply(grads, state, params), value

    def epoch(params: Params, state: Any, x: Array, y: Array) -> tuple[Params, Any, Array]:
        (params, state), values = jax.lax.scan(step, (params, state), (x, y))
        return params, state, values.mean()

    # What is donated comes back in the order in which it went in: so every buffer finds its own.
    epoch = jax.jit(epoch, donate_argnums=(0, 1))
    params = network(2, WIDTH, WIDTH, 1)
    state = tx.init(params)
    for k in range(EPOCHS):
        x, y = spirals(BATCHES * BATCH, seed=k)
        params, state, value = epoch(
            params, state, x.reshape(BATCHES, BATCH, 2), y.reshape(BATCHES, BATCH)
        )
        if (k + 1) % max(1, EPOCHS // 4) == 0:
            print(f"epoch {k + 1:3}: loss {value:.4f}")
    x, y = spirals(4096, seed=EPOCHS)
    right = float(((scores(params, x) > 0) == (y > 0.5)).mean())
    return params, state, right


def differing(params: Params) -> int:
    """The elements in which a step of the program and one of NumPy's loop differ."""
    x, y = spirals(BATCH)
    grads = jax.jit(jax.grad(loss))(params, x, y)
    tx = fusedstep.jax.adamw(lr=3e-3)
    theirs, _ = jax.jit(tx.apply)(grads, tx.init(params), params)
    ours = [np.array(p) for p in jax.tree.leaves(params)]
    fs.AdamW(ours, lr=3e-3).step([np.asarray(g) for g in jax.tree.leaves(grads)])
    return sum(
        int((a != np.asarray(b)).sum()) for a, b in zip(ours, jax.tree.leaves(theirs), strict=True)
    )


def main() -> None:
    params, state, right = train()
    print(f"{int(state.count)} steps, right about {right:.1%} of new points")
    print(f"elements that a NumPy loop steps otherwise: {differing(params)}")


if __name__ == "__main__":
    main()
