"""Parameters, gradients and state in fewer bytes on a device: the reference's bits."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
from device import SIMULATED, Placed, cuda
from fewer_bytes import DTYPES, EVERY, FEW, RULES, SIZES, Case, compare, differing, results, rounded
from memory_layouts import LAYOUTS, SHAPE

import fusedstep as fs
from fusedstep._arrays.dtypes import BFLOAT16
from fusedstep._core import kept, parameters

pytestmark = pytest.mark.filterwarnings("error")

SMALL = 100
"""Elements from which state is in fewer bytes here: each costs the simulator a tenth of a ms."""

FEW_SIZES = (1, 99, 256, 301)

on_small_tensors = pytest.mark.usefixtures("small")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (kept, parameters):
        monkeypatch.setattr(module, "SMALL", SMALL)


def assert_same(case: Case, sizes: tuple[int, ...], library: str = "plain") -> None:
    found = results(case, "cuda", partial(Placed, library=library), sizes)
    assert compare(found, results(case, "numpy", sizes=sizes))[1] == []


@cuda
@on_small_tensors
@pytest.mark.parametrize("case", FEW, ids=lambda case: case.name)
def test_formats(case: Case) -> None:
    assert_same(case, FEW_SIZES if SIMULATED else (*FEW_SIZES, *SIZES, 70_001))


@pytest.mark.slow
@pytest.mark.skipif(not SIMULATED, reason="on a device each of these would be compiled")
@cuda
@on_small_tensors
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_many_formats(rule: Any) -> None:
    for case in EVERY[::5]:
        if case.rule == rule:
            assert_same(case, (1, 301))


@pytest.mark.slow
@pytest.mark.skipif(not SIMULATED, reason="test_formats has these sizes on a device")
@cuda
@pytest.mark.parametrize("case", FEW, ids=lambda case: case.name)
def test_sizes_around_those_of_low_bit_state(case: Case) -> None:
    assert_same(case, (257, 4097))


@cuda
@on_small_tensors
def test_arrays_of_each_library(library: str) -> None:
    """A tensor of torch says by its dtype that it is of bfloat16, and so does an array of CuPy."""
    if library == "numba":
        pytest.skip("Numba's own arrays have no bfloat16")
    for case in (FEW[0], FEW[1]):
        assert_same(case, (3,), library)


@cuda
@on_small_tensors
@pytest.mark.parametrize("kept_as", ["bfloat16", "float16"])
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "one_byte_off"])
def test_layouts(layout: str, kept_as: str) -> None:
    """Parameters with gaps go through scratch of 16 bits, and so do gradients."""
    rng = np.random.default_rng(0)

    def made() -> Any:
        view, memory = LAYOUTS[layout](DTYPES[kept_as])
        view[...] = rounded(rng.normal(size=SHAPE).astype("f4"), kept_as)
        return view, memory

    p, *grads = (made() for _ in range(3))
    placed = Placed(*p)
    outside = placed.memory
    expected = np.array(p[0], order="K")
    optimizer = fs.AdamW(placed.array, state_dtype="8bit", seed=1)
    reference = fs.AdamW(expected, state_dtype="8bit", seed=1, backend="numpy")
    for view, memory in grads:
        g = Placed(view, memory)
        optimizer.step(g.array, max_norm=1.0, zero_grads=True)
        reference.step(np.array(view, order="K"), max_norm=1.0)
        assert not g.host.view(np.uint16).any()
    assert differing(placed.host, expected.copy(order="K")) == 0
    assert len(placed.memory) == len(outside)


@cuda
@pytest.mark.parametrize("kept_as", ["bfloat16", "float32"])
def test_norms_of_other_dtypes_where_memory_is_reversed(kept_as: str) -> None:
    """Their squares are summed in the order of memory, from a copy that is as wide as they are."""
    rng = np.random.default_rng(0)
    values = rounded(rng.normal(size=301).astype("f4"), kept_as)
    placed = Placed(values[::-1], values)
    expected = values.copy()[::-1]
    optimizer = fs.SGD(placed.array, lr=0.37)
    reference = fs.SGD(expected, lr=0.37, backend="numpy")
    for dtype in ("float32", "float16", "float32"):
        g = rounded(rng.normal(size=301).astype("f4"), dtype)
        report = optimizer.step(Placed(g).array, max_norm=1.0)
        assert report == reference.step(g, max_norm=1.0)
    assert differing(placed.host, expected) == 0


@cuda
def test_reversed_memory_is_refused_where_the_order_decides() -> None:
    """A device walks it the other way round than the CPU does."""
    values = np.arange(5000, dtype=np.float32)
    p, g = Placed(values[::-1], values).array, Placed(np.ones_like(values)).array
    many: list[dict[str, Any]] = [
        {"state_dtype": "bfloat16", "rounding": "stochastic"},
        {"state_dtype": "8bit"},
        {"state_dtype": "8bit", "rounding": "nearest"},
    ]
    for options in many:
        optimizer = fs.SGD(p, momentum=0.9, **options)
        with pytest.raises(ValueError, match=r"params has negative strides.*ascontiguousarray"):
            optimizer.step(g)
    fs.SGD(p, momentum=0.9, state_dtype="bfloat16", rounding="nearest").step(g)
    with pytest.raises(ValueError, match=r"params\[0\] has negative strides.*in an arena"):
        fs.Arena([p])


@cuda
def test_addresses_between_elements_are_refused() -> None:
    view, memory = LAYOUTS["one_byte_off"](BFLOAT16)
    with pytest.raises(ValueError, match="not multiples of 2"):
        fs.SGD(Placed(view, memory).array)


@cuda
@on_small_tensors
@pytest.mark.parametrize("master", [None, "split8", "float32"])
def test_to_the_cpu_and_back(master: Any) -> None:
    rng = np.random.default_rng(0)
    values = [rounded(rng.normal(size=n).astype("f4"), "bfloat16") for n in (7, 300)]
    grads = [[rng.normal(size=p.size).astype("f4") for p in values] for _ in range(3)]
    options: dict[str, Any] = {"master": master, "state_dtype": "8bit", "seed": 5}
    expected = [p.copy() for p in values]
    reference = fs.AdamW(expected, backend="numpy", **options)
    before = [Placed(p) for p in values]
    first = fs.AdamW([p.array for p in before], **options)
    first.step([Placed(g).array for g in grads[0]])
    between = [p.host for p in before]
    second = fs.AdamW(between, **options)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    second.step(grads[1])
    after = [Placed(p) for p in between]
    third = fs.AdamW([p.array for p in after], **options)
    third.load_state_dict(second.state_dict())
    third.step([Placed(g).array for g in grads[2]])
    for g in grads:
        reference.step(g)
    for p, q in zip(after, expected, strict=True):
        assert differing(p.host, q) == 0
    for a, b in zip(third.float32_params(), reference.float32_params(), strict=True):
        assert differing(a, b) == 0
    for entry, wanted in zip(
        third.state_dict()["state"], reference.state_dict()["state"], strict=True
    ):
        assert entry.keys() == wanted.keys()
        for letter in entry.keys() - {"t"}:
            assert differing(entry[letter], wanted[letter]) == 0


@cuda
@on_small_tensors
def test_values_are_read_and_assigned() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=300).astype("f4")
    p, q = Placed(rounded(x, "bfloat16")), rounded(x, "bfloat16")
    optimizer = fs.Adam(p.array, state_dtype="8bit")
    reference = fs.Adam(q, state_dtype="8bit", backend="numpy")
    for each, array in ((optimizer, Placed(x).array), (reference, x)):
        each.load_float32_params(x)
        assert differing(each.float32_params(), x) == 0
        each.step(array)
    assert differing(optimizer.float32_params(), reference.float32_params()) == 0
    shown = optimizer.state["m"].copy_to_host()
    assert shown.dtype == np.float32
    assert differing(shown, reference.state["m"]) == 0


@cuda
@on_small_tensors
def test_a_master_gives_way_to_what_is_assigned() -> None:
    x = np.linspace(-1, 1, 64, dtype="f4")
    p, q = Placed(x.astype("f2")), x.astype("f2")
    optimizer, reference = fs.SGD(p.array, lr=0.5), fs.SGD(q, lr=0.5, backend="numpy")
    for _ in range(2):
        changed = p.host
        changed[::3] = 0.25
        p.write(changed.view(np.uint8))
        q[::3] = 0.25
        optimizer.step(Placed(x / 3).array)
        reference.step(x / 3)
    assert differing(p.host, q) == 0
    assert differing(optimizer.float32_params(), reference.float32_params()) == 0


@cuda
@on_small_tensors
def test_an_arena() -> None:
    pytest.importorskip("ml_dtypes", reason="needs `pip install '.[bfloat16]'`")
    from fusedstep._core.arena import memory_of

    rng = np.random.default_rng(0)
    values = [rounded(rng.normal(size=n).astype("f4"), "bfloat16") for n in (5, 130, 3)]
    values += [rng.normal(size=9).astype("f4")]
    arena = fs.Arena([Placed(p).array for p in values])
    expected = fs.Arena(values)
    optimizer = fs.AdamW(arena, state_dtype="bfloat16")
    reference = fs.AdamW(expected, state_dtype="bfloat16", backend="numpy")
    for _ in range(2):
        for index, wanted in enumerate(memory_of(expected).g):
            g = rng.normal(size=(wanted.size,)).astype("f4").reshape(wanted.shape)
            g = rounded(g, "bfloat16") if wanted.dtype == BFLOAT16 else g
            wanted[...] = g
            memory_of(arena).place.write(memory_of(arena).g[index], g)
        optimizer.step(zero_grads=True, max_norm=1.0)
        reference.step(zero_grads=True, max_norm=1.0)
    for view, wanted in zip(memory_of(arena).p, memory_of(expected).p, strict=True):
        assert differing(memory_of(arena).place.read(view), wanted) == 0
    if SIMULATED:
        assert arena.params[0].dtype == expected.params[0].dtype


@cuda
@on_small_tensors
def test_one_step_by_itself() -> None:
    rng = np.random.default_rng(0)
    x, g = (rng.normal(size=9).astype("f4") for _ in range(2))
    p, q = Placed(x), x.copy()
    copy, wanted = Placed(np.zeros(9, "f2")), np.zeros(9, "f2")
    fs.functional.sgd(p.array, Placed(g.astype("f2")).array, t=1, out=copy.array)
    fs.functional.sgd(q, g.astype("f2"), t=1, out=wanted, backend="numpy")
    assert differing(p.host, q) == 0
    assert differing(copy.host, wanted) == 0


@cuda
@on_small_tensors
def test_the_kernels_of_others_stay_as_they_are() -> None:
    """Float64 parameters beside 16-bit ones are stepped by the plain kernel."""
    rng = np.random.default_rng(0)
    values = [rng.normal(size=n).astype(dtype) for n, dtype in ((9, "f8"), (9, "f2"), (5, "f4"))]
    grads = [rng.normal(size=p.size).astype(p.dtype) for p in values]
    placed, expected = [Placed(p) for p in values], [p.copy() for p in values]
    optimizer = fs.AdamW([p.array for p in placed])
    optimizer.step([Placed(g).array for g in grads], max_norm=1.0, clip="tensor")
    fs.AdamW(expected, backend="numpy").step([*grads], max_norm=1.0, clip="tensor")
    for p, q in zip(placed, expected, strict=True):
        assert differing(p.host, q) == 0
