"""Arenas on a device."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from cases import DTYPES, differing_bits, ordinary
from device import Placed, assert_equal_state, cuda, wrap

import fusedstep as fs
from fusedstep._core.arena import memory_of

pytestmark = pytest.mark.filterwarnings("error")


def fill(arena: fs.Arena, kind: str, values: list[Any]) -> None:
    """Write NumPy arrays into an arena's views of parameters or gradients."""
    for view, value in zip(getattr(memory_of(arena), kind), values, strict=True):
        memory_of(arena).place.write(view, value)


def arrays_of_an_arena(rng: np.random.Generator) -> list[Any]:
    """Arrays of both dtypes, in several layouts, one of them empty."""
    values = [ordinary(rng, n, DTYPES[n % 2]) for n in (9, 5, 4, 12, 0, 7)]
    values[3] = np.asfortranarray(values[3].reshape(3, 4))
    return values


@cuda
def test_an_arena(library: str) -> None:
    """Steps, reports and state as over a list; a norm as over one array for each dtype."""
    rng = np.random.default_rng(0)
    values = arrays_of_an_arena(rng)
    placed = [Placed(p, library=library) for p in values]
    expected = [p.copy(order="K") for p in values]
    arena = fs.Arena([p.array for p in placed])
    optimizer = fs.AdamW(arena, ema=0.9, nonfinite="skip")
    reference = fs.AdamW(expected, ema=0.9, nonfinite="skip", backend="numpy")
    for bad in (None, 3, None):
        grads = [ordinary(rng, p.size, p.dtype).reshape(p.shape) for p in values]
        if bad is not None:
            grads[bad][1] = np.inf
        fill(arena, "g", grads)
        report = optimizer.step(max_value=0.5, zero_grads=True)
        assert report == reference.step(grads, max_value=0.5, zero_grads=True)
        assert report.skipped == (() if bad is None else ("params[3]",))
        for view in arena.grads:
            assert not view.copy_to_host().any()
    for view, q, p in zip(arena.params, expected, placed, strict=True):
        assert differing_bits(view.copy_to_host(), q) == 0
        assert differing_bits(p.host, p.view) == 0  # which was copied
    for found, wanted in zip(
        optimizer.state_dict()["state"], reference.state_dict()["state"], strict=True
    ):
        assert_equal_state(found, wanted)
    assert arena.params[3].__cuda_array_interface__["strides"] == expected[3].strides
    for buffer in arena.buffers.values():
        assert buffer.p.__cuda_array_interface__["data"][0] % 64 == 0
    grads = [ordinary(rng, p.size, p.dtype).reshape(p.shape) for p in values]
    fill(arena, "g", grads)
    flat = [arena.buffers[name].g.copy_to_host() for name in ("float64", "float32")]
    asked: dict[str, Any] = {"scale": 2.0, "max_norm": 0.5}
    whole = fs.SGD([np.zeros_like(g) for g in flat], nonfinite="skip", backend="numpy")
    assert fs.SGD(arena, nonfinite="skip").step(**asked) == whole.step(flat, **asked)


@cuda
def test_an_arenas_views_as_other_arrays(library: str) -> None:
    """An array that a library makes of a view is taken for it; one that lies elsewhere is not."""
    arena = fs.Arena({"w": Placed(np.zeros((2, 3)), library=library).array})
    optimizer = fs.SGD(arena, lr=1.0)
    fill(arena, "g", [np.ones((2, 3))])
    address = arena.grads["w"].__cuda_array_interface__["data"][0]
    view = wrap(library, arena, address, np.ones((2, 3)))
    optimizer.step({"w": view})
    optimizer.step(arena.grads)
    assert (arena.params["w"].copy_to_host() == -2).all()
    others = [Placed(np.ones((2, 3)), library=library).array, None, np.ones((2, 3))]
    for other in others:
        with pytest.raises(ValueError, match=r"grads\['w'\] is "):
            optimizer.step({"w": other})
    with pytest.raises(TypeError, match=r"`grads\['w'\]\[...\] = value`"):
        arena.grads["w"] = view
    assert (arena.params["w"].copy_to_host() == -2).all()


@cuda
def test_an_arena_to_the_cpu_and_back() -> None:
    rng = np.random.default_rng(0)
    values = arrays_of_an_arena(rng)
    grads = [[ordinary(rng, p.size, p.dtype).reshape(p.shape) for p in values] for _ in range(3)]
    expected = [p.copy(order="K") for p in values]
    reference = fs.SGD(expected, momentum=0.9, nesterov=False)
    state: Any = None
    for k, where in enumerate(("device", "host", "device")):
        arena = fs.Arena([Placed(p).array if where == "device" else p for p in values])
        optimizer = fs.SGD(arena, momentum=0.9)
        if state is not None:
            optimizer.load_state_dict(pickle.loads(pickle.dumps(state)))
        fill(arena, "g", grads[k])
        with optimizer.lookahead(), reference.lookahead():
            ahead = [memory_of(arena).place.read(p) for p in memory_of(arena).p]
            for p, q in zip(ahead, expected, strict=True):
                assert differing_bits(p, q) == 0
        optimizer.step()
        reference.step(grads[k])
        values = [memory_of(arena).place.read(p) for p in memory_of(arena).p]
        state = optimizer.state_dict()
    for p, q in zip(values, expected, strict=True):
        assert differing_bits(p, q) == 0
    for found, wanted in zip(state["state"], reference.state_dict()["state"], strict=True):
        assert_equal_state(found, wanted)


@cuda
def test_an_arena_on_a_device_is_not_copied() -> None:
    arena = fs.Arena([Placed(np.ones(3)).array])
    for refused in (arena, fs.SGD(arena)):
        for way in (copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="on a CUDA device, and cannot be copied"):
                way(refused)
    with pytest.raises(ValueError, match=r"params\[1\] is on the CPU; pass all on one device"):
        fs.Arena([Placed(np.ones(3)).array, np.ones(3)])
