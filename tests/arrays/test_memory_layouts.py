"""Steps on arrays of any layout: the elements that should change do, and no others."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pytest
from cases import differing_bits, ordinary
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import for_each_dtype, on_each_backend
from memory_layouts import GRADIENT_LAYOUTS, LAYOUTS, SHAPE, outside, views

import fusedstep as fs

Array: TypeAlias = np.ndarray[Any, Any]


@on_each_backend
@for_each_dtype
@pytest.mark.parametrize("of_g", GRADIENT_LAYOUTS)
@pytest.mark.parametrize("of_p", LAYOUTS)
def test_any_layout(of_p: str, of_g: str, dtype: Any, backend: str) -> None:
    rng = np.random.default_rng(0)
    p, memory = LAYOUTS[of_p](dtype)
    p[...] = ordinary(rng, p.size, dtype).reshape(SHAPE)
    plain = np.array(p, order="C")
    untouched = outside(p, memory)
    optimizer = fs.Adam(p, amsgrad=True, weight_decay=0.1, backend=backend)
    expected = fs.Adam(plain, amsgrad=True, weight_decay=0.1, backend="numpy")
    for _ in range(3):
        g, g_memory = GRADIENT_LAYOUTS[of_g](dtype)
        if g_memory.dtype == np.uint8:
            g[...] = ordinary(rng, g.size, dtype).reshape(SHAPE)
        else:
            g_memory[...] = ordinary(rng, g_memory.size, dtype).reshape(g_memory.shape)
        before = g_memory.copy()
        optimizer.step(g)
        expected.step(np.array(g, order="C"))
        assert np.array_equal(g_memory, before), "the gradient was written to"
    assert differing_bits(p, plain) == 0
    for letter in "mvx":
        assert differing_bits(optimizer.state[letter], expected.state[letter]) == 0
    assert outside(p, memory) == untouched


@settings(max_examples=200, deadline=None)
@given(views(), st.sampled_from("CF"))
def test_any_view(made: tuple[Array, Array], order: Any) -> None:
    p, memory = made
    rng = np.random.default_rng(1)
    p[...] = ordinary(rng, p.size, np.float32).reshape(p.shape)
    plain, untouched = np.array(p, order="C"), outside(p, memory)
    optimizer, expected = fs.AdamW(p), fs.AdamW(plain, backend="numpy")
    for _ in range(2):
        g = np.array(ordinary(rng, p.size, np.float32).reshape(p.shape), order=order)
        optimizer.step(g)
        expected.step(g)
    assert differing_bits(p, plain) == 0
    assert differing_bits(optimizer.state["v"], expected.state["v"]) == 0
    assert outside(p, memory) == untouched


@on_each_backend
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (1, 1, 1), (5, 1, 3)])
def test_odd_shapes(shape: tuple[int, ...], backend: str) -> None:
    p = np.ones(shape, np.float32)
    optimizer = fs.SGD(p, lr=0.5, momentum=0.9, backend=backend)
    optimizer.step(np.ones(shape, np.float32))
    assert p.shape == shape
    assert (p == 0.5).all()
    assert optimizer.state["b"].shape == shape


@on_each_backend
def test_interleaved_parameters_and_gradients(backend: str) -> None:
    """Views that lie among each other but share no element are no overlap."""
    packed = np.zeros((4, 100), np.float32)
    params = [packed[0, ::2], packed[0, 1::2], packed[1:3, 10:20], packed[1:3, 20:30]]
    grads = [np.ones_like(p) for p in params[:3]]
    packed[3] = 2
    grads.append(packed[3, :20].reshape(2, 10))
    fs.SGD(params, lr=1.0, backend=backend).step(grads)
    assert (packed[0] == -1).all()
    assert (packed[1:3, 10:20] == -1).all()
    assert (packed[1:3, 20:30] == -2).all()
    assert (packed[1:3, 30:] == 0).all()
    assert (packed[3] == 2).all()


@on_each_backend
def test_layout_changes_between_steps(backend: str) -> None:
    p = np.zeros((3, 4), np.float32)
    optimizer = fs.SGD(p, lr=1.0, backend=backend)
    g = np.arange(12, dtype=np.float32).reshape(3, 4)
    for same in (g, np.asfortranarray(g), g[::-1][::-1], np.repeat(g, 2, axis=1)[:, ::2], g):
        optimizer.step(same)
    assert (p == -5 * g).all()


@on_each_backend
def test_gradient_changes_in_place(backend: str) -> None:
    """The same array with new contents, directly and through scratch."""
    for p in (np.zeros((3, 4), np.float32), np.zeros((3, 8), np.float32)[:, ::2]):
        optimizer = fs.SGD(p, lr=1.0, backend=backend)
        for g in (np.zeros((3, 4), np.float32), np.zeros((4, 3), np.float32).T):
            for value in (1, 2, 3):
                g[...] = value
                optimizer.step(g)
        assert (p == -12).all()


@on_each_backend
def test_parameter_changes_between_steps(backend: str) -> None:
    p = np.zeros((3, 8), np.float32)[:, ::2]
    optimizer = fs.SGD(p, lr=1.0, backend=backend)
    g = np.ones((3, 4), np.float32)
    optimizer.step(g)
    p[...] = 10
    optimizer.step(g)
    assert (p == 9).all()
