"""Arrays of CuPy itself, over memory that stands for a device's: how they are read."""

from __future__ import annotations

from collections.abc import Callable
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
