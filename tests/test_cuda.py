"""The CUDA engine: the same bits as the reference, on a device or in Numba's simulator.

What is marked `cuda` needs a device, and runs in the simulator as well: without a device
`test_in_the_simulator` runs it there, in a process of its own.
"""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
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
from device import LIBRARIES, MISSING, MODULES, SIMULATED, STREAM, Placed, Plain, wrap
from hypothesis import given, settings
from test_layouts import GRADIENT_LAYOUTS, LAYOUTS, SHAPE, outside, views

import fusedstep as fs
from fusedstep import rules

cuda = pytest.mark.cuda
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

# From a multiple of 16 bytes: of p, and of g.
OFFSETS = [(0, 0), (1, 1), (0, 1)]


@pytest.mark.skipif(SIMULATED, reason="this is the simulator")
@pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda is not installed")
def test_in_the_simulator() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "cuda",
        "-p",
        "no:cacheprovider",
        __file__,
    ]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.fixture(autouse=True)
def small_tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles a tensor where each thread of a block is costly."""
    if request.node.get_closest_marker("cuda") is None:
        return
    if MISSING is not None:
        pytest.skip(f"no CUDA engine: {MISSING}")
    if SIMULATED:
        from fusedstep._backends.cuda import device

        monkeypatch.setattr(device, "THREADS", 2)
        for name, module in MODULES.items():
            monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def at(offset: int, values: Any) -> tuple[Any, Any]:
    """The values `offset` elements past a multiple of 16 bytes, with guards around them."""
    memory = np.full(values.size + 12, 7, values.dtype)
    skip = offset + (-memory.ctypes.data % 16) // values.itemsize
    view = memory[skip : skip + values.size]
    view[...] = values
    return view, memory


def assert_equal_state(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if key == "t":
            assert found[key] == value
        else:
            assert differing_bits(found[key], value) == 0, key


def assert_same(optimizer: Any, params: list[Placed], reference: Any, expected: list[Any]) -> None:
    for p, q in zip(params, expected, strict=True):
        assert differing_bits(p.host, q) == 0
    states = zip(optimizer.state_dict()["state"], reference.state_dict()["state"], strict=True)
    for found, wanted in states:
        assert_equal_state(found, wanted)


@cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("case", WHOLE_STEPS, ids=lambda case: case.name)
def test_whole_steps(case: Case, dtype: Any) -> None:
    """What is done around the rule, and the norm of many blocks and tensors."""
    rng = np.random.default_rng(1)
    # Summing takes the simulator a second for six blocks.
    make, sizes = (
        (difficult_but_finite, [0, 5, 33]) if "max_norm" in case.asked else (difficult, SIZES)
    )
    params = [Placed(make(rng, n, dtype)) for n in sizes]
    expected = [p.view.copy() for p in params]
    optimizer = case.optimizer([p.array for p in params], **case.options)
    reference = case.optimizer(expected, backend="numpy", **case.options)
    for _ in range(3):
        values = [make(rng, n, dtype) for n in sizes]
        grads = [Placed(g.copy()) for g in values]
        report = optimizer.step([g.array for g in grads], **case.asked)
        assert report == reference.step(values, **case.asked)
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
    if library == "torch" and not SIMULATED and min(*p.strides, *g.strides) < 0:
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


@fs.rule(state=tuple("abcdefij"), lr=0.5, fast=True)
def eight(p, g, a, b, c, d, e, f, i, j, h):  # type: ignore[no-untyped-def]
    if h.fast and g > 0:
        a = a + g
    b, c, d, e = a - b, abs(c - g), np.maximum(d, -g), e + 1
    u = np.sqrt(abs(g)) / (1 + b**2)
    return p - h.lr * u, a, b, c, d, e, min(f, g), i - u, np.where(g > j, g, j)


@fs.rule(lr=0.5)
def run(p, g, h):  # type: ignore[no-untyped-def]
    """A name that the kernel has too, and no scalars."""
    return p - g / 3


@cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("rule", [eight, run, *(getattr(rules, name) for name in rules.__all__)])
def test_rules_of_the_users_own(rule: Any, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    values = difficult(rng, 50, dtype)
    p, q = Placed(values), values.copy()
    optimizer, reference = rule(p.array, maximize=True), rule(q, backend="numpy", maximize=True)
    for _ in range(3):
        g = difficult(rng, 50, dtype)
        optimizer.step(Placed(g).array)
        reference.step(g)
    assert differing_bits(p.host, q) == 0
    assert_equal_state(optimizer.state_dict()["state"], reference.state_dict()["state"])


@cuda
@pytest.mark.parametrize("case", BASES, ids=lambda case: case.name)
def test_to_the_cpu_and_back(case: Case) -> None:
    rng = np.random.default_rng(0)
    values = [ordinary(rng, 12, np.float32).reshape(3, 4), ordinary(rng, 9, np.float64)]
    values[0] = np.asfortranarray(values[0])
    grads = [[ordinary(rng, p.size, p.dtype).reshape(p.shape) for p in values] for _ in range(3)]
    expected = [p.copy(order="K") for p in values]
    reference = case.optimizer(expected, **case.options)
    before = [Placed(p) for p in values]
    first = case.optimizer([p.array for p in before], **case.options)
    first.step([Placed(g).array for g in grads[0]])
    between = [p.host for p in before]
    second = case.optimizer(between, **case.options)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    second.step(grads[1])
    after = [Placed(p) for p in between]
    third = case.optimizer([p.array for p in after], **case.options)
    third.load_state_dict(second.state_dict())
    third.step([Placed(g).array for g in grads[2]])
    for g in grads:
        reference.step(g)
    assert_same(third, after, reference, expected)


@cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_lookahead(dtype: Any, library: str) -> None:
    """Ahead with the reference's bits, and back to the very own, whatever the layout."""
    rng = np.random.default_rng(0)
    made = [LAYOUTS[name](dtype) for name in ("c_order", "f_order", "every_other_column")]
    for view, _ in made:
        view[...] = ordinary(rng, view.size, dtype).reshape(SHAPE)
    made += [(view := np.zeros(n, dtype), view) for n in (0, 1, 1025)]
    params = [Placed(view, memory, library) for view, memory in made]
    expected = [np.array(view, order="C") for view, _ in made]
    optimizer = fs.SGD([p.array for p in params], lr=0.3, momentum=0.7)
    reference = fs.SGD(expected, lr=0.3, momentum=0.7, backend="numpy")
    for _ in range(3):
        before = [p.memory for p in params]
        with optimizer.lookahead(), reference.lookahead():
            for p, q in zip(params, expected, strict=True):
                assert differing_bits(p.host, q) == 0
        assert [p.memory for p in params] == before
        grads = [ordinary(rng, q.size, dtype).reshape(q.shape) for q in expected]
        optimizer.step([Placed(g, library=library).array for g in grads])
        reference.step(grads)
    assert_same(optimizer, params, reference, expected)


@cuda
def test_functional() -> None:
    rng = np.random.default_rng(0)
    arrays = [ordinary(rng, 20, np.float32) for _ in range(4)]
    arrays[3] = np.abs(arrays[3])
    placed = [Placed(array) for array in arrays]
    fs.functional.adamw(*[each.array for each in placed], t=1)
    fs.functional.adamw(*arrays, t=1, backend="numpy")
    for found, expected in zip(placed, arrays, strict=True):
        assert differing_bits(found.host, expected) == 0
    with pytest.raises(ValueError, match=r"g is on the CPU.*cuda\.to_device"):
        fs.functional.sgd(placed[0].array, arrays[1], t=1)
    with pytest.raises(ValueError, match=r"m is on a CUDA device.*copy_to_host"):
        fs.functional.adam(arrays[0], arrays[1], placed[2].array, arrays[3], t=1)


@cuda
def test_gradients_that_move(library: str) -> None:
    """New arrays at every step, the same in other places, and the same with other contents."""
    p = Placed(np.zeros((3, 4), np.float32), library=library)
    optimizer = fs.SGD(p.array, lr=1.0)
    kept = []
    for step in range(20):
        g = np.full((3, 4), 1 if step % 2 else 2, np.float32)
        made = Placed(g if step % 5 else np.asfortranarray(g), library=library)
        kept.append(made)
        optimizer.step(made.array)
    for again in (kept[1], kept[2], kept[2]):
        optimizer.step(again.array)
    kept[2].write(np.full(12, 10, np.float32).view(np.uint8))
    optimizer.step(kept[2].array)
    assert (p.host == -(20 * 1.5 + 1 + 2 + 2 + 10)).all()


def fill(arena: fs.Arena, kind: str, values: list[Any]) -> None:
    """Write NumPy arrays into an arena's views of parameters or gradients."""
    for view, value in zip(getattr(arena._store, kind), values, strict=True):
        arena._store.place.write(view, value)


def arrays_of_an_arena(rng: np.random.Generator) -> list[Any]:
    """Of both dtypes, in several layouts, one of them empty."""
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
    """What a library makes of a view is taken for it; what lies elsewhere is not."""
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
            ahead = [arena._store.place.read(p) for p in arena._store.p]
            for p, q in zip(ahead, expected, strict=True):
                assert differing_bits(p, q) == 0
        optimizer.step()
        reference.step(grads[k])
        values = [arena._store.place.read(p) for p in arena._store.p]
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


class Counted:
    """How often each of the calls that a step might make is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from fusedstep._backends.cuda.device import driver

        self.counts: dict[str, int] = {}
        names = ("allocate", "pinned", "zero", "upload", "download", "synchronize", "view")
        for owner, name in [
            *((driver, name) for name in names),
            *((driver.Event, name) for name in ("wait", "record")),
            (driver.Kernel, "launch"),
        ]:
            monkeypatch.setattr(owner, name, self.counting(name, getattr(owner, name)))

    def counting(self, name: str, function: Any) -> Any:
        def count(*args: Any) -> Any:
            self.counts[name] = self.counts.get(name, 0) + 1
            return function(*args)

        return count

    def during(self, step: Any) -> dict[str, int]:
        self.counts.clear()
        step()
        return dict(self.counts)


@cuda
def test_what_a_step_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same gradients: launches alone. Others: their addresses in one copy besides."""
    shapes = [(1,), (5,), (0,), (17,), (3, 4)]
    params = [Placed(np.ones(shape, dtype)) for shape in shapes for dtype in DTYPES]
    sets = [[Placed(np.ones_like(p.view)) for p in params] for _ in range(2)]
    grads = [[g.array for g in each] for each in sets]
    optimizer = fs.AdamW([p.array for p in params])
    optimizer.step(grads[0])
    counted = Counted(monkeypatch)
    same = counted.during(lambda: optimizer.step(grads[0]))
    assert same == {"launch": 2}
    optimizer.lr = 0.5
    assert counted.during(lambda: optimizer.step(grads[0])) == {"launch": 2}
    moved = {"launch": 2, "upload": 1, "wait": 1, "record": 1}
    for turn in range(20):
        assert counted.during(lambda: optimizer.step(grads[(turn + 1) % 2])) == moved  # noqa: B023


@cuda
def test_what_a_step_over_an_arena_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch for each dtype."""
    arena = fs.Arena([Placed(np.ones(3, DTYPES[k % 2])).array for k in range(20)])
    optimizer = fs.AdamW(arena)
    optimizer.step()
    counted = Counted(monkeypatch)
    assert counted.during(optimizer.step) == {"launch": 2}


@cuda
def test_what_the_norm_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch for each job, one copy to the host, and the wait for it: for NaN as well."""
    params = [Placed(np.ones(5, dtype)) for dtype in DTYPES]
    grads = [Placed(np.ones(5, dtype)) for dtype in DTYPES]
    for policy in ("propagate", "skip"):
        optimizer = fs.AdamW([p.array for p in params], nonfinite=policy)
        optimizer.step([g.array for g in grads], max_norm=1.0)
        counted = Counted(monkeypatch)
        found = counted.during(
            lambda: optimizer.step([g.array for g in grads], max_norm=1.0, zero_grads=True)  # noqa: B023
        )
        assert found == {"launch": 4, "download": 1, "synchronize": 1}


@cuda
def test_gaps_cost_one_launch_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = np.ones((3, 8), np.float32)
    p = Placed(memory[:, ::2], memory)
    placed = [Placed(np.ones((3, 4), np.float32, order="F")) for _ in range(3)]
    optimizer = fs.SGD(p.array, lr=1.0)
    optimizer.step(placed[0].array)
    counted = Counted(monkeypatch)
    for g in placed:
        made = counted.during(lambda: optimizer.step(g.array))  # noqa: B023
        assert made.pop("launch") == 4
        assert not made
    assert (p.host == -3).all()


@cuda
def test_tables_are_there_before_a_step_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may then change what they are copied from, and another stream may read them."""
    from fusedstep._backends.cuda import device

    monkeypatch.setattr(device, "_device", device.Device)  # one that has seen no layout yet
    memory = np.ones((3, 8), np.float32)
    optimizer = fs.SGD(Placed(memory[:, ::2], memory).array)
    g = Placed(np.ones((3, 4), np.float32)).array
    counted = Counted(monkeypatch)
    assert counted.during(lambda: optimizer.step(g))["synchronize"] == 5
    assert "synchronize" not in counted.during(lambda: optimizer.step(g))


@cuda
def test_steps_cannot_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    from fusedstep._backends.cuda.device import driver

    p, g = (Placed(np.ones(3, np.float32)) for _ in range(2))
    optimizer = fs.SGD(p.array, lr=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(driver, "recorded", lambda stream: True)
        with pytest.raises(RuntimeError, match=r"part of a CUDA graph.*step outside"):
            optimizer.step(g.array)
    assert optimizer.state["t"] == 0
    optimizer.step(g.array)
    assert (p.host == 0).all()


@cuda
def test_nothing_to_do_launches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = fs.SGD([Placed(np.ones(0)).array, Placed(np.ones(3)).array])
    empty = Placed(np.ones(0)).array
    counted = Counted(monkeypatch)
    assert "launch" not in counted.during(lambda: optimizer.step([empty, None]))
    assert "launch" not in counted.during(lambda: optimizer.step([None, None]))


@cuda
def test_gradients_that_only_move_are_taken_at_a_glance(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not into memory that the step writes."""
    memory = np.zeros(20, np.float32)
    p = Placed(memory[:8], memory, library)
    optimizer = fs.SGD(p.array, lr=1.0)
    grads = [Placed(np.ones(8, np.float32), library=library) for _ in range(3)]
    optimizer.step(grads[0].array)

    def look(*args: Any) -> None:
        raise LookupError

    monkeypatch.setattr(type(optimizer), "_check_gradient", look)
    for g in grads:
        optimizer.step(g.array)
    start = p.array.__cuda_array_interface__["data"][0]
    for inside in (0, 16, 28):
        with pytest.raises(LookupError):
            optimizer.step(wrap(library, p, start + inside, memory[:8]))
    optimizer.step(wrap(library, p, start + 32, memory[:8]))
    for other in (memory[:4], memory[:8].astype(np.float64), memory[:16:2]):
        with pytest.raises(LookupError):
            optimizer.step(Placed(other, library=library).array)
    assert (p.host == -4).all()


@cuda
@pytest.mark.skipif(not SIMULATED, reason="looks at the simulator's stream")
def test_all_work_is_on_the_librarys_current_stream(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fusedstep._backends.cuda.device import driver

    streams = set()

    def noted(function: Any) -> Any:
        def note(*args: Any) -> Any:
            streams.add(args[3 if function.__name__ == "launch" else -1])
            return function(*args)

        return note

    for owner, name in [
        *((driver, name) for name in ("zero", "upload", "download", "synchronize")),
        (driver.Event, "record"),
        (driver.Kernel, "launch"),
    ]:
        monkeypatch.setattr(owner, name, noted(getattr(owner, name)))
    memory = np.ones((3, 8), np.float32)
    optimizer = fs.AdamW(Placed(memory[:, ::2], memory, library).array)
    for _ in range(3):
        optimizer.step(Placed(np.ones((3, 4), np.float32), library=library).array)
    optimizer.load_state_dict(optimizer.state_dict())
    over_an_arena = fs.AdamW(fs.Arena(Placed(memory[:, ::2], memory, library).array), ema=0.9)
    over_an_arena.step()
    over_an_arena.load_state_dict(over_an_arena.state_dict())
    assert streams == {0 if library == "plain" else STREAM}


@cuda
def test_refusals(library: str) -> None:
    good = np.ones(3, np.float32)
    memory = np.zeros(10, np.float32)
    p = Placed(good, library=library)

    def refused(error: type[Exception], message: str, params: Any, grads: Any = None) -> None:
        with pytest.raises(error, match=message):
            fs.SGD(params).step(grads)

    array = p.array
    refused(
        ValueError,
        r"params\['w'\] is on CUDA device 0, params\['b'\] is on the CPU; pass all",
        {"w": array, "b": good},
    )
    refused(
        ValueError,
        r"params\['b'\] is on CUDA device 0, params\['w'\] is on the CPU; pass all",
        {"w": good, "b": array},
    )
    refused(
        ValueError,
        r"grads\['w'\] is on the CPU, .*CUDA device 0; pass it there",
        {"w": array},
        {"w": good},
    )
    refused(ValueError, r"grads\['w'\] is 3 \(int\), .*CUDA device 0", {"w": array}, {"w": 3})
    refused(ValueError, r"grads is on a CUDA device, .*copy_to_host", good, array)
    refused(ValueError, r"params\[0\] and params\[1\] share memory.*copies", [array, array])
    refused(ValueError, r"grads shares memory with params.*copy", array, array)
    other = Placed(np.ones(4, np.float32), library=library).array
    refused(ValueError, r"grads has shape \(4,\), its parameter \(3,\)", array, other)
    other = Placed(np.ones(3), library=library).array
    refused(TypeError, r"grads has dtype '<f8'.*convert", array, other)
    refused(
        TypeError, r"params has dtype '<i8'", Placed(np.ones(3, np.int64), library=library).array
    )
    wide = np.lib.stride_tricks.as_strided(memory, (3, 3), (4, 4))
    if library != "cupy":  # which copies such an array
        refused(
            ValueError,
            r"params has elements that share memory \(shape \(3, 3\)",
            Placed(wide, memory, library).array,
        )
    assert (p.host == 1).all()
    with pytest.raises(
        ValueError, match=r"backend='c' steps arrays on the CPU.*pass backend='auto'"
    ):
        fs.SGD(array, backend="c")
    with pytest.raises(
        ValueError, match=r"backend='cuda' steps arrays on a CUDA device.*to_device"
    ):
        fs.SGD(good, backend="cuda")
    optimizer = fs.SGD(array, momentum=0.9)
    for copying in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"state is on a CUDA device.*state_dict"):
            copying(optimizer)
    device_state = {**optimizer.state_dict(), "state": {"b": array, "t": 1}}
    with pytest.raises(TypeError, match=r"\['b'\] is .*NumPy array"):
        optimizer.load_state_dict(device_state)


@cuda
def test_broadcast_parameters_of_numba_are_refused() -> None:
    """Numba says of them that they are contiguous."""
    one = Placed(np.ones(1, np.float32))

    class Broadcast:
        __cuda_ndarray__ = True
        strides = (0,)
        __cuda_array_interface__ = {**one.array.__cuda_array_interface__, "shape": (4,)}  # noqa: RUF012

    with pytest.raises(ValueError, match="share memory"):
        fs.SGD(Broadcast())


@cuda
def test_interfaces_that_cannot_be_stepped() -> None:
    plain = Placed(np.ones(4, np.float32))
    described = Plain(plain, plain.array.__cuda_array_interface__["data"][0], plain.view)
    interface = described.__cuda_array_interface__
    address = interface["data"][0]
    for key, value, error, message in [
        ("mask", described, TypeError, "params has a mask.*plain data"),
        ("data", (address, True), ValueError, "params is read-only.*copy"),
        ("data", (address + 1, False), ValueError, "not multiples of 4.*copy"),
        ("typestr", ">f4", TypeError, "'>f4'.*byte order"),
    ]:
        described.__cuda_array_interface__ = {**interface, key: value}
        with pytest.raises(error, match=message):
            fs.SGD(described)


def test_tensors_that_require_grad_are_refused() -> None:
    class Tensor:
        """As a tensor of torch on a device behaves."""

        __array__ = None

        @property
        def __cuda_array_interface__(self) -> None:
            raise RuntimeError("Can't get it on Variable that requires grad.")

    from fusedstep._arrays.cuda_array import see

    with pytest.raises(TypeError, match=r"params\['w'\] is a tensor that requires grad.*detach"):
        see(Tensor(), "params['w']")
    with pytest.raises(ValueError, match="grads is on a CUDA device"):
        fs.SGD(np.ones(3)).step(Tensor())


@pytest.mark.skipif(MISSING is None, reason="the engine is there")
def test_without_the_engine_device_arrays_are_refused() -> None:
    array = Plain(None, 4096, np.ones(3, np.float32))
    for backend in ("auto", "cuda"):
        with pytest.raises(RuntimeError, match="backend='cuda' is not available: "):
            fs.SGD(array, backend=backend)
    with pytest.raises(ValueError, match="backend='c' steps arrays on the CPU, and params is on a"):
        fs.SGD(array, backend="c")
