"""Arrays of random shapes, layouts and values, in memory whose other bytes are watched."""

from __future__ import annotations

from itertools import accumulate
from operator import mul
from random import Random
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from cases import DTYPES, SIZES, difficult, difficult_but_finite, ordinary

Array: TypeAlias = np.ndarray[Any, Any]

LARGE = (16_385, 40_009)
"""Sizes that helper threads are woken for."""


class Watched:
    """An array, and the bytes around and between its elements, which nothing may write."""

    def __init__(self, view: Array, memory: Array, outside: Array) -> None:
        self.view = view
        self.memory = memory
        self.outside = outside
        self._bytes = memory[outside]

    @property
    def untouched(self) -> bool:
        return bool((self.memory[self.outside] == self._bytes).all())


class Blueprint(NamedTuple):
    """The plan of an array, made as often as one likes, with the same bits."""

    values: Array
    order: tuple[int, ...]
    """The axes from the one with the shortest strides to the one with the longest."""
    steps: tuple[int, ...]
    """For each axis in that order: the distance of two neighbours, in units of the shortest that
    fits; below 0 if the axis runs backwards."""
    shift: int
    """Bytes that the array begins past the beginning of its memory."""

    def make(self) -> Watched:
        shape, dtype = self.values.shape, self.values.dtype
        strides = [0] * len(shape)
        reach = dtype.itemsize
        first = self.shift
        for axis, step in zip(self.order, self.steps, strict=True):
            strides[axis] = reach * step
            reach *= max(1, shape[axis]) * abs(step)
            if step < 0:
                first -= strides[axis] * max(0, shape[axis] - 1)
        memory = np.arange(self.shift + reach + 64, dtype=np.uint8)  # 255 and then 0 again
        outside = np.ones(memory.size, np.bool_)
        inside: Array = np.ndarray(
            (*shape, dtype.itemsize), np.bool_, outside.data, first, (*strides, 1)
        )
        inside[...] = False
        view: Array = np.ndarray(shape, dtype, memory.data, first, strides)
        view[...] = self.values
        return Watched(view, memory, outside)

    def with_values(self, values: Array) -> Blueprint:
        return self._replace(values=values)

    def __repr__(self) -> str:
        text = f"{self.values.dtype.name} {self.values.shape}"
        if self.order != tuple(range(len(self.order)))[::-1] or {*self.steps} - {1}:
            text += f" axes {self.order} by {self.steps}"
        return text + (f" at byte {self.shift}" if self.shift else "")


def random_shape(random: Random, large: bool) -> tuple[int, ...]:
    kind = random.random()
    if large:
        return (random.choice(LARGE),)
    if kind < 0.1:
        return ()
    if kind < 0.15:
        return random.choice([(0,), (3, 0), (0, 2, 1)])
    if kind < 0.6:
        return (random.choice(SIZES),)
    return tuple(random.randint(1, 7) for _ in range(random.randint(2, 4)))


def random_values(random: Random, shape: tuple[int, ...], dtype: Any, kind: str) -> Array:
    """Values of one of KINDS."""
    n = [*accumulate(shape, mul, initial=1)][-1]
    made = KINDS[kind](np.random.default_rng(random.getrandbits(63)), n, dtype)
    return np.asarray(made, dtype).reshape(shape)


def zeros(rng: np.random.Generator, n: int, dtype: Any) -> Array:
    return np.zeros(n, dtype)


KINDS: dict[str, Any] = {
    "ordinary": ordinary,
    "difficult": difficult,
    "finite": difficult_but_finite,
    "zeros": zeros,
}


def random_blueprint(
    random: Random, values: Array, plain: float = 0.5, misaligned: float = 0.1
) -> Blueprint:
    """A layout for `values`: with the probability `plain` that of a new array."""
    axes = [*range(values.ndim)][::-1]
    steps = [1] * values.ndim
    shift = 0
    if random.random() >= plain:
        random.shuffle(axes)
        steps = [random.choice([1, 1, 1, -1, 2, -2, 3]) for _ in axes]
        shift = values.itemsize * random.randint(0, 16)
        shift += random.random() < misaligned
    return Blueprint(values, tuple(axes), tuple(steps), shift)


def random_dtype(random: Random) -> Any:
    return np.float16 if random.random() < 0.1 else random.choice(DTYPES)
