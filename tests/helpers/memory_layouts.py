"""Arrays of every layout: in C's and Fortran's order, with gaps, reversed, misaligned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

Array: TypeAlias = np.ndarray[Any, Any]

SHAPE = (6, 10)

# Each makes an array of shape SHAPE out of new memory, which is the other result.
LAYOUTS: dict[str, Callable[[Any], tuple[Array, Array]]] = {}


def layout(make: Callable[[Any], tuple[Array, Array]]) -> Callable[[Any], tuple[Array, Array]]:
    LAYOUTS[make.__name__] = make
    return make


@layout
def c_order(dtype: Any) -> tuple[Array, Array]:
    memory = np.zeros(SHAPE, dtype)
    return memory, memory


@layout
def f_order(dtype: Any) -> tuple[Array, Array]:
    memory = np.zeros(SHAPE, dtype, order="F")
    return memory, memory


@layout
def every_other_column(dtype: Any) -> tuple[Array, Array]:
    memory = np.zeros((6, 20), dtype)
    return memory[:, ::2], memory


@layout
def every_other_row(dtype: Any) -> tuple[Array, Array]:
    memory = np.zeros((12, 10), dtype)
    return memory[::2], memory


@layout
def reversed_rows(dtype: Any) -> tuple[Array, Array]:
    memory = np.zeros(SHAPE, dtype)
    return memory[::-1], memory


@layout
def reversed_both_in_f_order(dtype: Any) -> tuple[Array, Array]:
    memory = np.zeros(SHAPE[::-1], dtype)
    return memory[::-1, ::-1].T, memory


@layout
def block_of_a_larger_one(dtype: Any) -> tuple[Array, Array]:
    memory = np.zeros((9, 15), dtype)
    return memory[2:8, 3:13], memory


@layout
def reversed_every_third(dtype: Any) -> tuple[Array, Array]:
    memory = np.zeros((6, 30), dtype)
    return memory[:, ::-3], memory


@layout
def one_byte_off(dtype: Any) -> tuple[Array, Array]:
    memory = np.zeros(60 * np.dtype(dtype).itemsize + 1, np.uint8)
    return memory[1:].view(dtype).reshape(SHAPE), memory


def broadcast(dtype: Any) -> tuple[Array, Array]:
    memory = np.zeros(10, dtype)
    return np.broadcast_to(memory, SHAPE), memory


def all_the_same(dtype: Any) -> tuple[Array, Array]:
    memory = np.zeros((), dtype)
    return np.broadcast_to(memory, SHAPE), memory


GRADIENT_LAYOUTS = {**LAYOUTS, "broadcast": broadcast, "all_the_same": all_the_same}


def outside(p: Array, memory: Array) -> bytes:
    """The bytes of `memory` with those of its view `p` blanked out."""
    raw = memory.ravel(order="K").copy().view(np.uint8)
    offset = p.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    if p.size:
        view: Array = np.ndarray(p.shape, p.dtype, raw.data, offset, p.strides)
        view[...] = 0
    return raw.tobytes()


@st.composite
def views(draw: st.DrawFn) -> tuple[Array, Array]:
    """A parameter that is any non-overlapping view, and the memory under it."""
    shape = draw(st.lists(st.integers(1, 7), min_size=0, max_size=4))
    memory = np.zeros(shape, np.float32, order=draw(st.sampled_from("CF")))
    index = tuple(
        slice(
            draw(st.integers(-length, length)),
            draw(st.none() | st.integers(-length, length)),
            draw(st.sampled_from([-3, -2, -1, 1, 2, 3])),
        )
        for length in shape
    )
    view = memory[(*index, ...)]
    return view.transpose(draw(st.permutations(range(view.ndim)))), memory
