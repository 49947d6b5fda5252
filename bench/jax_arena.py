"""Whole training steps of JAX: its gradients, and optax or an optimizer over an arena.

    python bench/jax_arena.py
    python bench/jax_arena.py --batch 32 --seconds 20

A perceptron with two hidden layers learns noise, by AdamW. optax makes the whole step within one
jitted function, with donated buffers. Ours calls a jitted function for the gradients, on live
views of an arena's parameters, and steps these in place: the views by the gradients as JAX
returned them, or the whole arena by a copy of them. The contestants take turns; a line has each
one's median time of a step, and how much faster it is than optax.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fusedstep as fs

WIDTHS = {"55 K": 64, "670 K": 512, "5.8 M": 2048}
"""Units of the hidden layers, by the number of all parameters."""

RATE = 1e-3

Step = Callable[[], Any]


def network(width: int) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    sizes = [784, width, width, 10]
    return [
        ((rng.standard_normal((a, b)) / a**0.5).astype(np.float32), np.zeros(b, np.float32))
        for a, b in pairwise(sizes)
    ]


def loss(params: Any, x: Any, y: Any) -> Any:
    h = x
    for w, b in params[:-1]:
        h = jax.nn.relu(h @ w + b)
    w, b = params[-1]
    return optax.softmax_cross_entropy_with_integer_labels(h @ w + b, y).mean()


def with_optax(params: Any, x: Any, y: Any) -> Step:
    method = optax.adamw(RATE)
    params = jax.tree.map(jnp.array, params)
    state = [params, method.init(params)]

    def step(params: Any, moments: Any, x: Any, y: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, x, y)
        updates, moments = method.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, value

    jitted = jax.jit(step, donate_argnums=(0, 1))

    def run() -> None:
        state[0], state[1], value = jitted(*state, x, y)
        jax.block_until_ready((state, value))

    return run


def with_views(params: Any, x: Any, y: Any) -> Step:
    """The views are stepped by the gradients as JAX returned them."""
    arena = fs.Arena(params, align=64)
    live, gradient = arena.jax_params(), jax.jit(jax.value_and_grad(loss))
    opt = fs.AdamW(arena.plain.params, **{**fs.presets.optax.AdamW, "lr": RATE})

    def run() -> None:
        value, grads = gradient(live, x, y)
        jax.block_until_ready((value, grads))
        opt.step(grads)

    return run


def with_arena(params: Any, x: Any, y: Any) -> Step:
    """The arena is stepped by a copy of the gradients."""
    arena = fs.Arena(params, align=64)
    live, gradient = arena.jax_params(), jax.jit(jax.value_and_grad(loss))
    opt = fs.AdamW(arena, **{**fs.presets.optax.AdamW, "lr": RATE})

    def run() -> None:
        value, grads = gradient(live, x, y)
        jax.block_until_ready((value, grads))
        arena.set_grads(grads)
        opt.step()

    return run


CONTESTANTS: dict[str, Callable[[Any, Any, Any], Step]] = {
    "optax": with_optax,
    "views": with_views,
    "arena": with_arena,
}


def measured(width: int, batch: int, seconds: float) -> dict[str, float]:
    """Each contestant's median time of a step, in microseconds."""
    rng = np.random.default_rng(1)
    x = jnp.array(rng.standard_normal((batch, 784)), jnp.float32)
    y = jnp.array(rng.integers(0, 10, batch))
    runs = {name: make(network(width), x, y) for name, make in CONTESTANTS.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(3):
            run()
    end = perf_counter() + seconds
    while perf_counter() < end:
        for name, run in runs.items():
            start = perf_counter()
            run()
            times[name].append(perf_counter() - start)
    return {name: 1e6 * median(each) for name, each in times.items()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=64, help="examples a step, 64 if not given")
    parser.add_argument("--seconds", type=float, default=10, help="for each network, 10 by default")
    chosen = parser.parse_args(argv)
    for size, width in WIDTHS.items():
        found = measured(width, chosen.batch, chosen.seconds)
        line = "   ".join(
            f"{name} {time:8.0f} us ({found['optax'] / time:.2f} x)" for name, time in found.items()
        )
        print(f"{size:>6}   {line}", flush=True)


if __name__ == "__main__":
    main()
