"""Steps of `fusedstep.jax` beside those of optax, in programs that JAX compiles for the CPU.

    python bench/jax_steps.py [alone] [whole] [flat] [many] [--quick] [--out FILE]

Contestants take turns (`fusedstep.benchmarks.turns`), after a check that all of them make the same
update of every parameter. A figure is the median of the turns. Each contestant is one function in
`jax.jit`, to which parameters and state are donated, and whose results are waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from topics import Row, described, head, headed, parsed, parser_of, with_out, write

import fusedstep as fs
import fusedstep.jax as ours
from fusedstep.benchmarks.contestants.contestant import Entry
from fusedstep.benchmarks.measuring import quartiles
from fusedstep.benchmarks.turns import take_turns
from fusedstep.benchmarks.workloads import Workload, equal, gpt2_small, perceptron

Array: TypeAlias = Any
Tree: TypeAlias = Any

OPTAX, OURS, UPDATE = "optax", "fusedstep apply", "fusedstep update"
APART = "fusedstep apply, tensors apart"

SECONDS = 6.0
"""Seconds of all turns of a comparison, if five of each contestant are over by then."""

LR, DECAY = 1e-3, 1e-2

TOLERANCE = 1e-3
"""By how much parameters may differ after some steps, of their norm: gradients are summed in other
orders, and where one is about 0 its sign decides the whole step."""


class Method(NamedTuple):
    """An optimizer: what its state starts as, and a pure step."""

    init: Callable[[Tree], Tree]
    step: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]


def by_updates(tx: Any) -> Method:
    def step(grads: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return Method(tx.init, step)


METHODS = {
    OPTAX: by_updates(optax.adamw(LR, weight_decay=DECAY)),
    UPDATE: by_updates(ours.adamw(LR, weight_decay=DECAY)),
    OURS: Method(*(lambda tx: (tx.init, tx.apply))(ours.adamw(LR, weight_decay=DECAY))),
}


def entry(program: Any, params: Tree, state: Tree, *rest: Any) -> Entry:
    """A contestant of a program that returns parameters and state; it has copies of its own."""
    now = [jax.tree.map(jnp.array, params), state]

    def step() -> None:
        now[:] = program(*now, *rest)
        jax.block_until_ready(now)

    def leaves() -> list[Any]:
        return [np.array(leaf).ravel() for leaf in jax.tree.leaves(now[0])]

    return Entry(step, leaves, fs.get_num_threads())


def compare(topic: str, case: str, entries: dict[str, Entry], seconds: float) -> list[Row]:
    """The rows of a comparison, of contestants that do the same."""
    for each in entries.values():
        for _ in range(3):
            each.step()
    first, *others = (np.concatenate(each.params()) for each in entries.values())
    for name, other in zip([*entries], others, strict=False):
        if np.linalg.norm(other - first) > TOLERANCE * np.linalg.norm(first):
            raise AssertionError(f"{case}: the contestant after {name} makes another update")
    timings = take_turns(entries, seconds)
    rows = []
    for name, timing in timings.items():
        low, middle, high = (1e6 * value for value in quartiles(timing.turns))
        rows.append(Row(topic, case, name, "µs", middle, low, high, len(timing.turns)))
    return rows


def tensors(shapes: Sequence[tuple[int, ...]], seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [jnp.array(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def updating(method: Method) -> Any:
    def program(params: Tree, state: Tree, grads: Tree) -> tuple[Tree, Tree]:
        return method.step(grads, state, params)

    return jax.jit(program, donate_argnums=(0, 1))


# ---- topics ----


def alone(seconds: float) -> Iterator[list[Row]]:
    """The update alone."""
    for n in (1_000, 100_000, 1_000_000, 16_000_000):
        workload = equal(1, n)
        params, grads = tensors(workload.shapes, 0), tensors(workload.shapes, 1)
        entries = {
            name: entry(updating(method), params, method.init(params), grads)
            for name, method in METHODS.items()
        }
        yield compare("alone", f"{n:,} elements", entries, seconds)


class Task(NamedTuple):
    """A model and what it is trained on."""

    name: str
    params: Tree
    loss: Callable[[Tree, Array, Array], Array]
    x: Array
    y: Array


def training(task: Task, method: Method, params: Tree, unravel: Any = None) -> Entry:
    """Whole steps of a contestant; `unravel` makes the tree of parameters that are one array."""

    def loss(params: Tree, x: Array, y: Array) -> Array:
        return task.loss(unravel(params) if unravel else params, x, y)

    def program(params: Tree, state: Tree, x: Array, y: Array) -> tuple[Tree, Tree]:
        return method.step(jax.grad(loss)(params, x, y), state, params)

    jitted = jax.jit(program, donate_argnums=(0, 1))
    return entry(jitted, params, method.init(params), task.x, task.y)


def crossed(scores: Array, labels: Array) -> Array:
    chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), labels[..., None], -1)
    return -chosen.mean()


def dense(params: Tree, x: Array, y: Array) -> Array:
    *hidden, (w, b) = params
    for v, c in hidden:
        x = jax.nn.relu(x @ v + c)
    return crossed(x @ w + b, y)


def layers(rng: np.random.Generator, *widths: int) -> list[tuple[Array, Array]]:
    shapes = [*perceptron(*widths)]
    return [
        (jnp.array(rng.standard_normal(w) / np.sqrt(w[0]), jnp.float32), jnp.zeros(b, jnp.float32))
        for w, b in zip(shapes[::2], shapes[1::2], strict=True)
    ]


def convolved(params: Tree, x: Array, y: Array) -> Array:
    filters, rest = params
    for w in filters:
        x = jax.nn.relu(jax.lax.conv_general_dilated(x, w, (2, 2), "SAME"))
    return dense(rest, x.reshape(len(x), -1), y)


def attended(params: Tree, x: Array, y: Array) -> Array:
    """A decoder with layer norms that have neither scale nor shift."""
    heads = 4

    def normed(x: Array) -> Array:
        x = x - x.mean(-1, keepdims=True)
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)

    tokens, places, blocks = params
    x = tokens[x] + places
    mask = jnp.tril(jnp.ones((len(places), len(places)), bool))
    for qkv, out, up, down in blocks:
        q, k, v = (
            part.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)
            for part in jnp.split(normed(x) @ qkv, 3, -1)
        )
        weights = q @ k.swapaxes(-1, -2) / jnp.sqrt(q.shape[-1])
        mixed = jax.nn.softmax(jnp.where(mask, weights, -jnp.inf)) @ v
        x = x + mixed.swapaxes(1, 2).reshape(x.shape) @ out
        x = x + jax.nn.gelu(normed(x) @ up) @ down
    return crossed(normed(x) @ tokens.T, y)


def tasks() -> Iterator[Task]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return jnp.array(rng.standard_normal(shape), jnp.float32)

    def labels(most: int, *shape: int) -> Array:
        return jnp.array(rng.integers(most, size=shape))

    mlp = layers(rng, 784, 512, 512, 10)
    yield Task("MLP of 670 K, batch 32", mlp, dense, normal(32, 784), labels(10, 32))
    yield Task("MLP of 670 K, batch 256", mlp, dense, normal(256, 784), labels(10, 256))
    wide = layers(rng, *[1024] * 7, 10)
    yield Task("MLP of 6.3 M, batch 32", wide, dense, normal(32, 1024), labels(10, 32))
    filters = [0.1 * normal(32, 3, 3, 3), 0.05 * normal(64, 32, 3, 3), 0.05 * normal(128, 64, 3, 3)]
    network = filters, layers(rng, 128 * 16, 256, 10)
    yield Task(
        "convolutions of 620 K, batch 32", network, convolved, normal(32, 3, 32, 32), labels(10, 32)
    )
    d = 128
    blocks = [
        (0.1 * normal(d, 3 * d), 0.1 * normal(d, d), 0.1 * normal(d, 4 * d), 0.1 * normal(4 * d, d))
        for _ in range(4)
    ]
    decoder = 0.02 * normal(512, d), 0.02 * normal(64, d), blocks
    yield Task(
        "decoder of 860 K, batch 8 × 64", decoder, attended, labels(512, 8, 64), labels(512, 8, 64)
    )


def whole(seconds: float) -> Iterator[list[Row]]:
    """Whole training steps: loss, gradient and update in one program."""
    for task in tasks():
        entries = {name: training(task, each, task.params) for name, each in METHODS.items()}
        yield compare("whole", task.name, entries, seconds)


def flat(seconds: float) -> Iterator[list[Row]]:
    """Whole training steps of parameters that lie in one array, and are cut out of it."""
    task = next(tasks())
    one, unravel = ravel_pytree(task.params)
    entries = {name: training(task, each, one, unravel) for name, each in METHODS.items()}
    entries[APART] = training(task, METHODS[OURS], task.params)
    yield compare("flat", task.name, entries, seconds)


def many(seconds: float) -> Iterator[list[Row]]:
    """The update of many tensors: seconds to trace and compile, and then a step."""
    gpt = [tuple(max(1, side // 8) for side in shape) for shape in gpt2_small()]
    for workload in (
        Workload("12 tensors of an MLP", tuple(perceptron(784, *[256] * 5, 10))),
        Workload("148 tensors, GPT-2's at an eighth of the width", tuple(gpt)),
        Workload("400 tensors", ((64, 64), (64,)) * 200),
    ):
        params, grads = tensors(workload.shapes, 0), tensors(workload.shapes, 1)
        rows = []
        for name, method in METHODS.items():
            began = perf_counter()
            updating(method).lower(params, method.init(params), grads).compile()
            taken = perf_counter() - began
            rows.append(Row("compile", workload.name, name, "s", taken, taken, taken, 1))
        yield rows
        entries = {
            name: entry(updating(method), params, method.init(params), grads)
            for name, method in METHODS.items()
        }
        yield compare("many", workload.name, entries, seconds)


TOPICS = {each.__name__: each for each in (alone, whole, flat, many)}


def show(rows: Sequence[Row]) -> None:
    """Print a line of a table: each figure, and optax's over it."""
    base = rows[0].median
    cells = [
        f"{row.median:,.{2 if row.unit == 's' else 0}f} {row.unit} ({base / row.median:.2f}×)"
        for row in rows
    ]
    print(f"| {rows[0].case} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = with_out(parser_of(__doc__, TOPICS))
    parser.add_argument("--quick", action="store_true", help="take as few turns as possible")
    options = parsed(parser, TOPICS)
    here = described(["jax", "optax"])
    rows: list[Row] = []
    for topic in headed(options.what, TOPICS):
        names: list[str] = []
        for group in topic(0.0 if options.quick else SECONDS):
            if not names:
                names = [row.contestant for row in group]
                head("", names)
            show(group)
            rows += group
    write(options.out, here, rows)


if __name__ == "__main__":
    main()
