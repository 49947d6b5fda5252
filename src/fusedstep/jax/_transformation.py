"""An optimizer as JAX's programs have it: pure functions of parameters, gradients and state."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import wraps
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fusedstep._backends.choose import why_missing
from fusedstep._checks.wording import describe, quoted
from fusedstep._core.arguments import Backend
from fusedstep._core.declaration import (
    ATTRIBUTE,
    Argument,
    Declaration,
    declaration_of,
    signature_of,
)
from fusedstep._core.kept import STORAGE
from fusedstep._core.optimizer import Optimizer
from fusedstep._core.schedule import Schedule
from fusedstep.jax._jobs import Job, Place

Tree: TypeAlias = Any
"""An array, or arrays in whatever JAX takes for a pytree."""

Number: TypeAlias = "float | jax.Array"
"""A hyperparameter: a number, or an array of one that the program has."""

Rate: TypeAlias = "float | jax.Array | Schedule | Callable[[jax.Array], Any]"
"""A learning rate: a number, an array, a schedule of this package or one of optax's."""

LEFT_OUT = ("params", "nonfinite", "capturable", "backend", "out", *STORAGE)
"""Arguments of classes that mean something else here, or nothing."""

BACKEND = Argument.read("backend", Backend, "auto", keyword_only=True)

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

ELSEWHERE = {
    "learning_rate": "lr",
    "step_size": "lr",
    "b1": "betas=(b1, b2)",
    "b2": "betas=(b1, b2)",
    "decay": "alpha",
    "eps_root": "eps_inside_sqrt=True",
    "eps_in_sqrt": "eps_inside_sqrt",
    "nonfinite": "optax.apply_if_finite around it",
    "mask": "optax.masked around it",
}
"""Arguments that optax calls by other names, or this package's classes do without."""


class State(NamedTuple):
    """The state of an optimizer, a pytree."""

    count: jax.Array
    """The steps done, an int32; t is one more in the step that comes."""
    arrays: dict[str, Tree]
    """The state arrays, by letter: each a tree like the parameters'."""


class _Pair(NamedTuple):
    init: Callable[[Tree], State]
    update: Callable[..., tuple[Tree, State]]


class Transformation(_Pair):
    """An optimizer: `init`, `update` as optax has them, and `apply`, which is faster.

    It is a pair of `init` and `update`, and stands in for an `optax.GradientTransformation`, whose
    type it does not have, in whatever takes one.

    init
        `init(params)` is the state that parameters start with, a `State`.
    update
        `update(grads, state, params)` is a pair of updates and the new state. The updates are the
        difference between new and old parameters, rounded once, for `optax.apply_updates`, which
        rounds again: the sum differs from what `apply` returns where the difference has more
        digits than the dtype, as at elements that change their sign or fall below half.
    apply
        `apply(grads, state, params)` is a pair of the new parameters and the new state, with the
        bits of every other step of this package. In `jax.jit` it steps in place what is donated,
        as by `donate_argnums`, and what is not donated is copied first.
    """

    apply: Callable[[Tree, State, Tree], tuple[Tree, State]]

    def __new__(
        cls,
        init: Callable[[Tree], State],
        update: Callable[..., tuple[Tree, State]],
        apply: Callable[[Tree, State, Tree], tuple[Tree, State]],
    ) -> Transformation:
        self = super().__new__(cls, init, update)
        self.apply = apply
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (*self, self.apply)


class _Steps:
    """The functions of a transformation, over one optimizer and its arguments."""

    def __init__(self, declaration: Declaration, arguments: Mapping[str, Any]) -> None:
        self.declaration = declaration
        self.backend = _backend(arguments["backend"], declaration)
        self.given = {name: arguments[name] for name in declaration.checks if name not in STORAGE}
        self.initial = self.given.get("initial_accumulator_value", 0.0)
        if isinstance(self.initial, jax.Array):
            self.given["initial_accumulator_value"] = 0.0  # which no step reads
        lr = self.given["lr"]
        if callable(lr):
            declaration.checks["lr"]("lr", lr)
        self.traced = [place for place, value in _numbers(self.given) if _is_traced(value)]
        self.job([])  # refuses what will not do

    def init(self, params: Tree) -> State:
        _, leaves, tree = _parameters(params)
        arrays = {
            letter: tree.unflatten(
                jnp.array(p) if letter == "ema" else jnp.full_like(p, self.initial) for p in leaves
            )
            for letter in self.job(leaves).rule.states
        }
        return State(jnp.zeros((), jnp.int32), arrays)

    def update(self, grads: Tree, state: State, params: Tree = None) -> tuple[Tree, State]:
        if params is None:
            raise ValueError(
                "update needs the parameters; call it as `update(grads, state, params)`"
            )
        return self.step(grads, state, params, updates=True)

    def apply(self, grads: Tree, state: State, params: Tree) -> tuple[Tree, State]:
        return self.step(grads, state, params, updates=False)

    def step(self, grads: Tree, state: State, params: Tree, updates: bool) -> tuple[Tree, State]:
        """A step: the new parameters, or what is to be added to them, and the new state."""
        from fusedstep.jax import _calls

        paths, leaves, tree = _parameters(params)
        job = self.job(leaves)
        letters = job.rule.states
        count, arrays = _read_state(state, letters)
        columns = [_like("grads", grads, paths, leaves), leaves]
        for letter in letters:
            columns.append(_like(f"state.arrays[{letter!r}]", arrays[letter], paths, leaves))
        written = _calls.write_job(job, count, self.values(count))
        stepped = [*_calls.step(written, [*zip(*columns, strict=True)], updates)]
        new, *states = (tree.unflatten(row[k] for row in stepped) for k in range(1 + len(letters)))
        most = jnp.iinfo(count.dtype).max
        count = jnp.where(count < most, count + 1, count)
        return new, State(count, dict(zip(letters, states, strict=True)))

    def job(self, leaves: list[jax.Array]) -> Job:
        """The job of steps of these."""
        dtypes = [each for each in DTYPES if any(leaf.dtype == each for leaf in leaves)]
        return Job.read(self.declaration, self.given, self.traced, dtypes, self.backend)

    def values(self, count: jax.Array) -> list[jax.Array]:
        """The hyperparameters that the program has, at the step after `count` others."""
        numbers = dict(_numbers(self.given))
        return [
            _scalar(place, value(count) if callable(value) else value)
            for place, value in ((place, numbers[place]) for place in self.traced)
        ]


def _backend(backend: Any, declaration: Declaration) -> str:
    """The backend whose kernels step an optimizer; a RuntimeError if it is missing."""
    reason = why_missing("c")
    if reason is not None:
        raise RuntimeError(f"fusedstep.jax needs the C backend, which is not available: {reason}")
    fit = ("numba",) if declaration.custom else ("c", "numba")
    if backend not in ("auto", *fit):
        raise ValueError(
            f"backend={backend!r} does not step {declaration.optimizer.__name__} in JAX's "
            f"programs; pass one of {quoted(['auto', *fit])}"
        )
    chosen = fit[0] if backend == "auto" else str(backend)
    reason = why_missing(chosen)
    if reason is not None:
        raise RuntimeError(f"backend={chosen!r} is not available: {reason}")
    return chosen


def _numbers(given: Mapping[str, Any]) -> Iterator[tuple[Place, Any]]:
    """All hyperparameters, those in tuples one by one."""
    for name, value in given.items():
        if isinstance(value, (tuple, list)):
            for index, item in enumerate(value):
                yield Place(name, index), item
        else:
            yield Place(name), value


def _is_traced(value: Any) -> bool:
    """Whether the program has the value: in an array, or by a function of its count of steps."""
    return isinstance(value, jax.Array) or (callable(value) and not isinstance(value, Schedule))


def _scalar(place: Place, value: Any) -> jax.Array:
    """A hyperparameter as the handler reads it: a float32 or float64."""
    array = jnp.asarray(value)
    kinds = jnp.floating, jnp.integer
    if array.shape != () or not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
        raise TypeError(
            f"{place} is {_described(array)}; pass a number, or an array of shape () that holds one"
        )
    return array if array.dtype in DTYPES else array.astype(jnp.result_type(float))


def _parameters(params: Tree) -> tuple[list[str], list[jax.Array], Any]:
    """The paths and arrays of the parameters, and their tree."""
    entries, tree = jax.tree_util.tree_flatten_with_path(params)
    paths = [jax.tree_util.keystr(path) for path, _ in entries]
    leaves = [_array(f"params{path}", leaf) for path, (_, leaf) in zip(paths, entries, strict=True)]
    for path, leaf in zip(paths, leaves, strict=True):
        if leaf.dtype not in DTYPES:
            raise TypeError(
                f"params{path} is {_described(leaf)}; pass float32 or float64, and leave other "
                "arrays out, as by `optax.masked` or by a tree of its own"
            )
    return paths, leaves, tree


def _like(name: str, tree: Tree, paths: list[str], leaves: list[jax.Array]) -> list[jax.Array]:
    """The arrays of a tree that has to be like that of the parameters."""
    entries, _ = jax.tree_util.tree_flatten_with_path(tree)
    found = {jax.tree_util.keystr(path): leaf for path, leaf in entries}
    if [*found] != paths:
        missing, surplus = (
            [p for p in paths if p not in found],
            [p for p in found if p not in paths],
        )
        words = [("lacks", missing), ("has", surplus)]
        raise ValueError(
            f"{name} {' and '.join(f'{word} {quoted(keys)}' for word, keys in words if keys)}, "
            "other than params; pass a tree of the same structure"
        )
    arrays = [_array(f"{name}{path}", leaf) for path, leaf in found.items()]
    for path, array, p in zip(paths, arrays, leaves, strict=True):
        if array.shape != p.shape or array.dtype != p.dtype:
            remedy = f"pass one of shape {p.shape} and dtype {p.dtype.name}"
            if array.shape == p.shape:
                remedy = f"pass `.astype({p.dtype.name!r})` of it"
            raise ValueError(
                f"{name}{path} is {_described(array)}, and params{path} {_described(p)}; {remedy}"
            )
    return arrays


def _array(name: str, leaf: Any) -> jax.Array:
    if isinstance(leaf, jax.Array):
        return leaf
    try:
        return jnp.asarray(leaf)
    except TypeError:
        raise TypeError(f"{name}={describe(leaf)}; pass an array") from None


def _described(array: jax.Array) -> str:
    return f"of shape {array.shape} and dtype {array.dtype.name}"


def _read_state(state: Any, letters: tuple[str, ...]) -> tuple[jax.Array, Mapping[str, Tree]]:
    """The count and the arrays of a state."""
    if not isinstance(state, State):
        raise TypeError(
            f"the state is of type {type(state).__name__}; pass what `init` or the last step gave"
        )
    count, arrays = jnp.asarray(state.count), state.arrays
    if {*arrays} != {*letters}:
        raise ValueError(
            f"the state has the arrays {[*arrays]}, and these steps need {[*letters]}; begin with "
            "`init` of the same optimizer"
        )
    if count.shape != () or count.dtype not in (jnp.int32, jnp.int64):
        raise TypeError(f"state.count is {_described(count)}; pass an int32 of shape ()")
    return count, arrays


def transformation(optimizer: type[Optimizer], arguments: Mapping[str, Any]) -> Transformation:
    """The transformation of an optimizer, by its arguments here."""
    steps = _Steps(declaration_of(optimizer), arguments)
    return Transformation(steps.init, steps.update, steps.apply)


Function = TypeVar("Function", bound=Callable[..., Transformation])


def hinting(function: Function) -> Function:
    """Let a function that makes a transformation say what optax's arguments are called here."""
    known = inspect.signature(function).parameters

    @wraps(function)
    def make(*args: Any, **kwargs: Any) -> Transformation:
        for name in kwargs:
            if name not in known:
                near = ELSEWHERE.get(name) or next(iter(get_close_matches(name, known)), None)
                hint = f"; it is {near} here" if near else f"; it has {quoted([*known])}"
                raise TypeError(f"{function.__name__} has no argument {name!r}{hint}")
        return function(*args, **kwargs)

    return make  # type: ignore[return-value]


def from_class(optimizer: type[Optimizer]) -> Callable[..., Transformation]:
    """The function that makes transformations of an optimizer's class, such as a custom rule's.

    Its arguments are those of the class, but for `params`, `nonfinite`, and those that say how
    parameters and state are kept: here arrays are of the dtypes that JAX gives them.

    >>> import jax.numpy as jnp, numpy as np, fusedstep as fs, fusedstep.jax
    >>> @fs.rule(state=("m",), lr=1e-4, beta1=0.9)
    ... def Signs(p, g, m, h):
    ...     m = h.beta1 * m + (1 - h.beta1) * g
    ...     return p - h.lr * np.sign(m), m
    >>> tx = fusedstep.jax.from_class(Signs)(lr=0.5)
    >>> p = jnp.array([1.0, 2.0])
    >>> p, state = tx.apply(jnp.array([3.0, -0.01]), tx.init(p), p)
    >>> p
    Array([0.5, 2.5], dtype=float32)
    """
    if not hasattr(optimizer, ATTRIBUTE) or not isinstance(optimizer, type):
        raise TypeError(f"{describe(optimizer)} is no optimizer's class; pass one, as fs.AdamW")
    declaration = declaration_of(optimizer)
    arguments = [each for each in declaration.arguments if each.name not in LEFT_OUT]
    signature = signature_of([*arguments, BACKEND])

    def make(*args: Any, **kwargs: Any) -> Transformation:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return transformation(optimizer, bound.arguments)

    make.__name__ = make.__qualname__ = optimizer.__name__
    make.__doc__ = f"`{optimizer.__name__}` in JAX's programs."
    make.__signature__ = signature  # type: ignore[attr-defined]
    return hinting(make)
