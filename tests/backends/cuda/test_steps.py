"""Steps on a device: the same bits as the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import (
    BASES,
    CASES,
    DTYPES,
    WHOLE_CASES,
    Case,
    differing_bits,
    difficult,
    difficult_but_finite,
    ordinary,
)
from device import LIBRARIES, SIMULATED, STANDINS, Placed, assert_equal_state, assert_same, at, cuda
from hypothesis import given, settings
from memory_layouts import GRADIENT_LAYOUTS, LAYOUTS, SHAPE, outside, views

import fusedstep as fs
from fusedstep._core.arena import memory_of

pytestmark = pytest.mark.filterwarnings("error")


# Around the width of a load (4 float32, 2 float64) and that of a tile.
SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 17] if SIMULATED else [0, 1, 3, 4, 5, 1023, 1024, 1025, 70_001]

# Each arrangement of state arrays with everything at once, and two with one thing at a time.
WHOLE_STEPS = [
    case
    for case in WHOLE_CASES
    if case.name.rsplit("-", 1)[0] in ("sgd", "adamw")
    or case.name
    in ("nesterov-whole", "rmsprop-centered-momentum-whole", "adam-amsgrad-inside-whole")
]

# Elements of p, and of g, past a multiple of 16 bytes.
OFFSETS = [(0, 0), (1, 1), (0, 1)]


@cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("case", WHOLE_STEPS, ids=lambda case: case.name)
def test_whole_steps(case: Case, dtype: Any) -> None:
    """Everything around the rule, and the norm of many blocks and tensors."""
    rng = np.random.default_rng(1)
    # Summing takes the simulator a second for six blocks.
    make, sizes = (
        (difficult_but_finite, [0, 5, 33]) if "max_norm" in case.request else (difficult, SIZES)
    )
    params = [Placed(make(rng, n, dtype)) for n in sizes]
    expected = [p.view.copy() for p in params]
    optimizer = case.optimizer([p.array for p in params], **case.options)
    reference = case.optimizer(expected, backend="numpy", **case.options)
    for _ in range(3):
        values = [make(rng, n, dtype) for n in sizes]
        grads = [Placed(g.copy()) for g in values]
        report = optimizer.step([g.array for g in grads], **case.request)
        assert report == reference.step(values, **case.request)
        for g, wanted in zip(grads, values, strict=True):
            assert differing_bits(g.host, wanted) == 0
    assert_same(optimizer, params, reference, expected)


@cuda
def test_the_norm_of_difficult_gradients() -> None:
    rng = np.random.default_rng(2)
    for make in (difficult, difficult_but_finite):
        values = [make(rng, n, DTYPES[k % 2]) for k, n in enumerate([1, 33, 4096, 0, 8200, 77])]
        zeros = [np.zeros_like(g) for g in values]
        optimizer = fs.SGD([Placed(p).array for p in zeros], nonfinite="skip")
        found = optimizer.step([Placed(g).array for g in values], max_norm=1.0)
        reference = fs.SGD(zeros, nonfinite="skip", backend="numpy")
        wanted = reference.step(values, max_norm=1.0)
        assert found[1:] == wanted[1:]
        np.testing.assert_array_equal(found.grad_norm, wanted.grad_norm)


@cuda
def test_gradients_with_gaps_are_zeroed_and_skipped() -> None:
    memory = np.ones((4, 6))
    grads = [Placed(memory[:, ::2], memory), Placed(np.ones(3))]
    params = [Placed(np.ones((4, 3))), Placed(np.ones(3))]
    optimizer = fs.SGD([p.array for p in params], lr=1.0, nonfinite="skip")
    assert optimizer.step([g.array for g in grads], zero_grads=True).skipped == ()
    assert not any(g.host.any() for g in grads)
    assert not any(p.host.any() for p in params)
    memory = np.full((4, 6), np.inf)
    grads[0] = Placed(memory[:, ::2], memory)
    assert optimizer.step([g.array for g in grads], zero_grads=True).skipped == ("params[0]",)
    assert not any(g.host.any() for g in grads)
    assert not any(p.host.any() for p in params)


@cuda
def test_gradients_that_cannot_be_zeroed() -> None:
    shared = Placed(np.ones(3)).array
    optimizer = fs.SGD([Placed(np.ones(3)).array for _ in range(2)])
    optimizer.step([shared, shared])
    with pytest.raises(ValueError, match=r"grads\[0\] and grads\[1\] share memory"):
        optimizer.step([shared, shared], zero_grads=True)
    locked = np.ones(3)
    locked.flags.writeable = False
    if SIMULATED:  # no library makes such arrays
        with pytest.raises(ValueError, match=r"grads\[1\] is read-only"):
            optimizer.step([shared, Placed(locked).array], zero_grads=True)


@cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bits(case: Case, dtype: Any) -> None:
    """Tensors of many sizes and offsets in one launch; what lies around them stays."""
    rng = np.random.default_rng(0)
    places = [(n, *offsets) for n in SIZES for offsets in OFFSETS]
    made = [at(of_p, difficult(rng, n, dtype)) for n, of_p, _ in places]
    around = [outside(view, memory) for view, memory in made]
    params = [Placed(view, memory) for view, memory in made]
    expected = [view.copy() for view, _ in made]
    optimizer = case.optimizer([p.array for p in params], **case.options)
    reference = case.optimizer(expected, backend="numpy", **case.options)
    for _ in range(3):
        values = [difficult(rng, n, dtype) for n, *_ in places]
        grads = [Placed(*at(of_g, g)) for g, (_, _, of_g) in zip(values, places, strict=True)]
        optimizer.step([g.array for g in grads])
        reference.step(values)
    assert_same(optimizer, params, reference, expected)
    for p, (view, memory), before in zip(params, made, around, strict=True):
        now = np.frombuffer(p.memory[: memory.nbytes], memory.dtype).copy()
        skip = (view.ctypes.data - memory.ctypes.data) // memory.itemsize
        assert outside(now[skip : skip + view.size], now) == before


@cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("case", BASES[:: 5 if SIMULATED else 1], ids=lambda case: case.name)
def test_libraries(case: Case, dtype: Any, library: str) -> None:
    rng = np.random.default_rng(0)
    values = [ordinary(rng, n, dtype) for n in SIZES]
    params = [Placed(p, library=library) for p in values]
    expected = [p.copy() for p in values]
    optimizer = case.optimizer([p.array for p in params], **case.options)
    reference = case.optimizer(expected, backend="numpy", **case.options)
    for _ in range(3):
        grads = [ordinary(rng, n, dtype) for n in SIZES]
        optimizer.step([Placed(g, library=library).array for g in grads])
        reference.step(grads)
    assert_same(optimizer, params, reference, expected)


@cuda
def test_state_is_there_for_other_libraries(library: str) -> None:
    p = Placed(np.ones((3, 4), np.float32, order="F"), library=library)
    optimizer = fs.SGD(p.array, momentum=0.9)
    optimizer.step(Placed(np.full((3, 4), 2, np.float32), library=library).array)
    described = optimizer.state["b"].__cuda_array_interface__
    assert described["shape"] == (3, 4)
    assert described["strides"] == (4, 12)
    assert described["typestr"] == "<f4"
    assert (optimizer.state["b"].copy_to_host() == 2).all()


LAID = [name for name in LAYOUTS if name != "one_byte_off"]


@cuda
@pytest.mark.parametrize("library", LIBRARIES[:1] if SIMULATED else LIBRARIES)
@pytest.mark.parametrize("of_g", [name for name in GRADIENT_LAYOUTS if name != "one_byte_off"])
@pytest.mark.parametrize("of_p", LAID)
def test_any_layout(of_p: str, of_g: str, library: str) -> None:
    rng = np.random.default_rng(0)
    dtype = DTYPES[len(of_p + of_g) % 2]
    p, memory = LAYOUTS[of_p](dtype)
    p[...] = ordinary(rng, p.size, dtype).reshape(SHAPE)
    g, g_memory = GRADIENT_LAYOUTS[of_g](dtype)
    if library == "torch" and not STANDINS and min(*p.strides, *g.strides) < 0:
        pytest.skip("torch has no negative strides")
    plain, untouched = np.array(p, order="C"), outside(p, memory)
    placed = Placed(p, memory, library)
    optimizer = fs.AdamW(placed.array, amsgrad=True, weight_decay=0.1)
    expected = fs.AdamW(plain, amsgrad=True, weight_decay=0.1, backend="numpy")
    for _ in range(2):
        g_memory[...] = ordinary(rng, g_memory.size, dtype).reshape(g_memory.shape)
        gradient = Placed(g, g_memory, library)
        before = gradient.memory
        optimizer.step(gradient.array)
        expected.step(np.array(g, order="C"))
        assert gradient.memory == before
    assert differing_bits(placed.host, plain) == 0
    assert_equal_state(optimizer.state_dict()["state"], expected.state_dict()["state"])
    now, now_memory = LAYOUTS[of_p](dtype)
    flat = now_memory.reshape(-1, order="A").view(np.uint8)
    flat[...] = np.frombuffer(placed.memory[: flat.size], np.uint8)
    assert outside(now, now_memory) == untouched


@cuda
@settings(max_examples=25, deadline=None)
@given(views())
def test_any_view(made: tuple[Any, Any]) -> None:
    p, memory = made
    rng = np.random.default_rng(1)
    p[...] = ordinary(rng, p.size, np.float32).reshape(p.shape)
    plain = np.array(p, order="C")
    placed = Placed(p, memory)
    optimizer, expected = fs.AdamW(placed.array), fs.AdamW(plain, backend="numpy")
    for _ in range(2):
        g = ordinary(rng, p.size, np.float32).reshape(p.shape)
        optimizer.step(Placed(g).array)
        expected.step(g)
    assert differing_bits(placed.host, plain) == 0
    assert_equal_state(optimizer.state_dict()["state"], expected.state_dict()["state"])


@cuda
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (1, 1, 1), (5, 1, 3)])
def test_odd_shapes(shape: tuple[int, ...]) -> None:
    p = Placed(np.ones(shape, np.float32))
    optimizer = fs.SGD(p.array, lr=0.5, momentum=0.9)
    optimizer.step(Placed(np.ones(shape, np.float32)).array)
    assert (p.host == 0.5).all()
    assert optimizer.state_dict()["state"]["b"].shape == shape


@cuda
def test_groups_dtypes_and_skipped_gradients() -> None:
    """Each set of hyperparameters, dtype and t is a job of its own in one table."""
    rng = np.random.default_rng(0)
    values = [ordinary(rng, 5 + k, DTYPES[k % 2]) for k in range(8)]
    params, expected = [Placed(p) for p in values], [p.copy() for p in values]

    def groups(arrays: list[Any]) -> list[dict[str, Any]]:
        return [{"params": arrays[:3]}, {"params": arrays[3:], "lr": 0.1, "amsgrad": True}]

    optimizer = fs.AdamW(groups([p.array for p in params]))
    reference = fs.AdamW(groups(expected), backend="numpy")
    for step in range(4):
        grads = [ordinary(rng, p.size, p.dtype) for p in values]
        given = [None if (k + step) % 3 == 0 and step else g for k, g in enumerate(grads)]
        placed = [None if g is None else Placed(g).array for g in given]
        optimizer.step([placed[:3], placed[3:]])
        reference.step([given[:3], given[3:]])
        optimizer.lr = reference.lr = 0.05
    for p, q in zip(params, expected, strict=True):
        assert differing_bits(p.host, q) == 0
    optimizer.step([[None] * 3, [None] * 5])


@cuda
@pytest.mark.parametrize("arena", [False, True], ids=["arrays", "arena"])
def test_each_gradient_clipped_by_its_own_norm(arena: bool) -> None:
    """The factors of rows of both dtypes, whose kernels read them in the table's order."""
    rng = np.random.default_rng(3)
    sizes = [(5, 0), (3, 1), (1, 1), (33, 0), (0, 0), (8, 1)]
    values = [ordinary(rng, n, DTYPES[k]) for n, k in sizes]
    params = [Placed(p.copy()) for p in values]
    held = fs.Arena([p.array for p in params]) if arena else [p.array for p in params]
    optimizer = fs.AdamW(held, lr=0.1, ema=0.5, nonfinite="raise")
    expected = [p.copy() for p in values]
    reference = fs.AdamW(expected, lr=0.1, ema=0.5, backend="numpy")
    for request in ({"clip": "tensor"}, {}, {"clip": "tensor", "scale": 3.0}):
        norms = rng.choice([0.01, 0.3, 20.0], len(values))
        grads = [
            (ordinary(rng, p.size, p.dtype) * norm).astype(p.dtype)
            for p, norm in zip(values, norms, strict=True)
        ]
        if isinstance(held, fs.Arena):
            if not request:
                continue  # its common norm is that of the whole buffer
            for view, g in zip(memory_of(held).g, grads, strict=True):
                memory_of(held).place.write(view, g)
            report = optimizer.step(max_norm=0.7, **request)
        else:
            report = optimizer.step([Placed(g).array for g in grads], max_norm=0.7, **request)
        assert report == reference.step(grads, max_norm=0.7, **request)
    if isinstance(held, fs.Arena):
        params = [Placed(np.asarray(view.copy_to_host())) for view in held.params]
    assert_same(optimizer, params, reference, expected)
