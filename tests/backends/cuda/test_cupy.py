"""Arrays of CuPy itself, over memory that stands for a device's: how they are read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cases import differing_bits, ordinary
from device import IN_MEMORY, cuda

import fusedstep as fs

pytestmark = [
    cuda,
    pytest.mark.skipif(IN_MEMORY is None, reason="for the driver in memory of the host"),
]


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library, with the default stream for the current one: its own runtime has no device."""
    module = pytest.importorskip("cupy", reason="CuPy is missing; `pip install cupy-cuda13x`")
    stream = SimpleNamespace(ptr=0)
    monkeypatch.setattr(module.cuda, "get_current_stream", lambda ordinal=0: stream)
    return module


def placed(cupy: Any, values: Any) -> tuple[Any, Any]:
    """An array of CuPy, and the array of Numba whose memory it has."""
    from numba import cuda as numba_cuda

    under = numba_cuda.to_device(values)
    at = under.__cuda_array_interface__["data"][0]
    memory = cupy.cuda.UnownedMemory(at, values.nbytes, under, 0)
    pointer = cupy.cuda.MemoryPointer(memory, 0)
    return cupy.ndarray(values.shape, values.dtype, pointer), under


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps(cupy: Any, dtype: str) -> None:
    rng = np.random.default_rng(3)
    values = [ordinary(rng, n, np.dtype(dtype)) for n in (1, 5, 1024, 3001)]
    params, under = zip(*(placed(cupy, p) for p in values), strict=True)
    expected = [p.copy() for p in values]
    optimizer = fs.AdamW([*params], lr=0.1)
    reference = fs.AdamW(expected, lr=0.1, backend="numpy")
    for step in range(4):
        grads = [ordinary(rng, p.size, p.dtype) for p in values]
        given = [placed(cupy, g)[0] for g in grads]
        found = optimizer.step(given, max_norm=1.0 if step % 2 else None)
        assert found == reference.step(grads, max_norm=1.0 if step % 2 else None)
    for p, q in zip(under, expected, strict=True):
        assert differing_bits(p.copy_to_host(), q) == 0


def test_views(cupy: Any) -> None:
    """Strides of CuPy's own views: transposed, with gaps, turned round."""
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    p, under = placed(cupy, values)
    views: list[Callable[[Any], Any]] = [
        lambda x: x.T,
        lambda x: x[:, ::2],
        lambda x: x[::-1],
        lambda x: x[1:3, 2:],
    ]
    for view in views:
        expected = under.copy_to_host()
        g = np.full(values.shape, 0.5, np.float32)
        placed_g = placed(cupy, g)[0]
        fs.SGD(view(p), lr=1.0).step(view(placed_g))
        fs.SGD(view(expected), lr=1.0, backend="numpy").step(view(g))
        assert differing_bits(under.copy_to_host(), expected) == 0


def test_an_array_is_looked_at_once(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fusedstep._core.tensors import Tensors

    p, under = placed(cupy, np.zeros(100, np.float32))
    sets = [placed(cupy, np.full(100, k, np.float32))[0] for k in (1, 2, 4)]
    optimizer = fs.SGD(p, lr=1.0)
    for g in sets:
        optimizer.step(g)

    def look(*args: Any) -> None:
        raise LookupError

    monkeypatch.setattr(Tensors, "check_gradient", look)
    from fusedstep._backends.cuda import hosted

    monkeypatch.setattr(hosted, "glance", look)
    for g in sets * 2:
        optimizer.step(g)
    assert (under.copy_to_host() == -21).all()


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The gradients that Python checked; it does not look at others."""
    from fusedstep._backends.cuda import hosted
    from fusedstep._core.tensors import Tensors

    found: list[int] = []
    check = Tensors.check_gradient

    def note(self: Any, index: int, *args: Any) -> Any:
        found.append(index)
        return check(self, index, *args)

    monkeypatch.setattr(Tensors, "check_gradient", note)
    monkeypatch.setattr(hosted, "glance", lambda array: (0, ()))
    return found


@pytest.mark.parametrize("n", [1, 16, 35])
def test_new_arrays_are_read_in_c(cupy: Any, unseen: list[int], n: int) -> None:
    p, under = zip(*(placed(cupy, np.zeros((3, k + 1), np.float32)) for k in range(n)), strict=True)
    optimizer = fs.SGD([*p], lr=1.0)
    for step in range(3):
        values = [np.full((3, k + 1), step + k, np.float32) for k in range(n)]
        optimizer.step([placed(cupy, g)[0] for g in values])
    assert unseen == []
    assert [float(each.copy_to_host().max()) for each in under] == [-3 - 3 * k for k in range(n)]


@pytest.mark.parametrize(
    ("view", "expected"),
    [(lambda x: x.T, [0]), (lambda x: x[::2], [0] * 4), (lambda x: x[1:], [])],
    ids=["transposed", "gaps", "part"],
)
def test_new_views(cupy: Any, unseen: list[int], view: Any, expected: list[int]) -> None:
    """Python has to see one that does not lie in C order, and each with gaps."""
    p, under = placed(cupy, np.zeros((4, 6), np.float32))
    optimizer = fs.SGD(view(p), lr=1.0)
    for _ in range(4):
        optimizer.step(view(placed(cupy, np.ones((4, 6), np.float32))[0]))
    assert unseen == expected
    found = view(under.copy_to_host())
    assert (found == -4).all()
    assert under.copy_to_host().sum() == -4 * found.size


@pytest.mark.parametrize(
    ("other", "fits"),
    [
        (lambda cupy: placed(cupy, np.ones((4, 3), np.float32))[0], False),
        (lambda cupy: placed(cupy, np.ones(12, np.float32))[0], False),
        (lambda cupy: placed(cupy, np.ones((3, 4)))[0], False),
        (lambda cupy: placed(cupy, np.ones((4, 3), np.float32))[0].T, True),
        (lambda cupy: placed(cupy, np.ones((3, 8), np.float32))[0][:, ::2], True),
        (lambda cupy: placed(cupy, np.ones((3, 4), np.float32))[0].view(derived(cupy)), True),
    ],
    ids=["shape", "axes", "dtype", "transposed", "gaps", "type"],
)
@pytest.mark.parametrize("at", [0, 18])
def test_another_array(cupy: Any, unseen: list[int], other: Any, fits: bool, at: int) -> None:
    arrays = [placed(cupy, np.zeros((3, 4), np.float32)) for _ in range(20)]
    optimizer = fs.SGD([p for p, _ in arrays], lr=1.0)
    for _ in range(2):
        optimizer.step([placed(cupy, np.ones((3, 4), np.float32))[0] for _ in arrays])
    assert unseen == []
    grads = [placed(cupy, np.ones((3, 4), np.float32))[0] for _ in arrays]
    grads[at] = other(cupy)
    if fits:
        optimizer.step(grads)
    else:
        with pytest.raises((TypeError, ValueError)):
            optimizer.step(grads)
    assert unseen == [at]
    assert all((under.copy_to_host() == -2 - fits).all() for _, under in arrays)


def derived(cupy: Any) -> Any:
    """A type derived from CuPy's arrays."""
    return type("Derived", (cupy.ndarray,), {})


def test_new_arrays_may_not_overlap(cupy: Any) -> None:
    p, under = placed(cupy, np.zeros((4, 6), np.float32))
    q = placed(cupy, np.zeros(6, np.float32))[0]
    optimizer = fs.SGD([p, q], lr=1.0)
    grads = [placed(cupy, np.ones((4, 6), np.float32))[0], p[2]]
    with pytest.raises(ValueError, match="memory"):
        optimizer.step(grads)
    assert (under.copy_to_host() == 0).all()


@pytest.mark.parametrize(("ordinal", "expected"), [(0, []), (1, [0, 0])])
def test_an_array_of_another_device(
    cupy: Any, unseen: list[int], monkeypatch: pytest.MonkeyPatch, ordinal: int, expected: list[int]
) -> None:
    """Where there are several, an array has to tell its own."""
    from fusedstep._backends.cuda import device

    monkeypatch.setattr(device.driver, "several", lambda: True)
    p, _ = placed(cupy, np.zeros(8, np.float32))
    optimizer = fs.SGD(p, lr=1.0)
    for _ in range(2):
        under = placed(cupy, np.ones(8, np.float32))[1]
        at = under.__cuda_array_interface__["data"][0]
        memory = cupy.cuda.UnownedMemory(at, 32, under, ordinal)
        g = cupy.ndarray((8,), np.float32, cupy.cuda.MemoryPointer(memory, 0))
        with suppress(Exception):  # as there is no such device
            optimizer.step(g)
    assert unseen == expected
