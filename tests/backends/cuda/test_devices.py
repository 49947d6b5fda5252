"""Several devices: each optimizer on its own, and nothing of one on another.

In memory of the host, where there are two if DEVICES says so. There a kernel reaches the memory of
its own device alone, and a stream or an event is none on the other.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from cases import DTYPES, differing_bits, ordinary
from device import IN_MEMORY, LIBRARIES, Placed, assert_same, cuda, on_stream

import fusedstep as fs

if IN_MEMORY is not None:
    from pooled import driver, put_off, stream

    from fusedstep._backends.cuda import driver as of_package

pytestmark = [
    cuda,
    pytest.mark.skipif(
        IN_MEMORY is None or not of_package.several(),
        reason="for two devices in memory of the host; test_in_memory.py runs it",
    ),
    pytest.mark.filterwarnings("error"),
]

SIZES = (5, 1025)

REQUESTS: list[dict[str, Any]] = [{}, {"max_norm": 1.0}, {"max_norm": 1.0, "clip": "tensor"}]


class Both:
    """An optimizer on a device, and its reference."""

    def __init__(self, ordinal: int, library: str = "plain", **options: Any) -> None:
        self.rng = np.random.default_rng(ordinal)
        self.ordinal, self.library = ordinal, library
        self.expected = [ordinary(self.rng, n, kind) for n in SIZES for kind in DTYPES]
        self.params = [self.place(p) for p in self.expected]
        self.optimizer = fs.AdamW([p.array for p in self.params], **options)
        self.reference = fs.AdamW(self.expected, backend="numpy", **options)

    def place(self, values: Any, ordinal: int | None = None) -> Placed:
        ordinal = self.ordinal if ordinal is None else ordinal
        return Placed(values.copy(), library=self.library, ordinal=ordinal)

    def draw(self) -> list[Any]:
        return [ordinary(self.rng, p.size, p.dtype) for p in self.expected]

    def step(self, **request: Any) -> None:
        values = self.draw()
        self.optimizer.step([self.place(g).array for g in values], **request)
        self.reference.step(values, **request)

    def check(self) -> None:
        assert_same(self.optimizer, self.params, self.reference, self.expected)


@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_on_the_second_device(name: str, nonfinite: Any) -> None:
    """Whichever is the current one."""
    both = Both(1, name, nonfinite=nonfinite)
    for k in range(12):
        with of_package.current(k % 2):
            before, after = ctypes.c_void_p(), ctypes.c_void_p()
            driver("cuCtxGetCurrent", ctypes.byref(before))
            both.step(**REQUESTS[k % 3])
            driver("cuCtxGetCurrent", ctypes.byref(after))
            assert before.value == after.value
    both.check()


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_gradient_on_another_device_is_refused(name: str, steps: int) -> None:
    """Also after others, which lay as it does."""
    both = Both(1, name)
    for _ in range(steps):
        both.step()
    values = both.draw()
    for request in REQUESTS:
        elsewhere = [both.place(g, 0 if k == 1 else 1).array for k, g in enumerate(values)]
        with pytest.raises(ValueError, match=r"grads\[1\] is on CUDA device 0, .* CUDA device 1"):
            both.optimizer.step(elsewhere, **request)
    both.step()
    both.check()


def test_parameters_on_two_devices_are_refused() -> None:
    params = [Placed(np.zeros(3), ordinal=k).array for k in range(2)]
    with pytest.raises(ValueError, match="make an optimizer for each device"):
        fs.SGD(params)
    with pytest.raises(ValueError, match="make an optimizer for each device"):
        fs.Arena(params)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_two_optimizers_on_two_devices(mode: int) -> None:
    several = [Both(k, "cupy", nonfinite=("skip", "propagate")[k]) for k in range(2)]
    streams = [stream(k) for k in range(2)]
    with put_off(mode):
        for k in range(20):
            both = several[k // 2 % 2]
            with on_stream(streams[both.ordinal]):
                both.step(**REQUESTS[k % 3])
    for both in several:
        with on_stream(streams[both.ordinal]):
            both.check()


def test_state_arenas_rows_and_gaps_on_the_second_device() -> None:
    rng = np.random.default_rng(0)
    both = Both(1, ema=0.5)
    both.step()
    both.optimizer.load_state_dict(both.reference.state_dict())
    both.step()
    both.check()
    memory = ordinary(rng, 48, np.float32).reshape(8, 6)
    expected = memory[::2, ::2].copy()
    p = Placed(memory[::2, ::2], memory, ordinal=1)
    optimizer, reference = fs.AdamW(p.array), fs.AdamW(expected, backend="numpy")
    for _ in range(2):
        g = np.asfortranarray(ordinary(rng, 12, np.float32).reshape(4, 3))
        optimizer.step(Placed(g, ordinal=1).array)
        reference.step(g)
    g = ordinary(rng, 6, np.float32).reshape(2, 3)
    optimizer.step(fs.Rows([1, 3], Placed(g, ordinal=1).array), max_norm=1.0)
    reference.step(fs.Rows([1, 3], g), max_norm=1.0)
    assert differing_bits(p.host, expected) == 0
    arena = fs.Arena([p.array])
    described = arena.params[0].__cuda_array_interface__
    assert of_package.ordinal(described["data"][0]) == 1
    fs.SGD(arena, lr=1.0).step(zero_grads=True)
