"""Streams, graphs and memory of torch and CuPy beside the steps.

Numba's simulator has none of them, so only a device runs these tests.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
from cases import differing_bits, ordinary
from device import LIBRARIES, MISSING, cuda

import fusedstep as fs

pytestmark = cuda

no_device = None if MISSING is None else f"no cuda backend: {MISSING}"

needs_torch, needs_cupy = (
    pytest.mark.skipif(library not in LIBRARIES, reason=no_device or f"no {library} for a device")
    for library in ("torch", "cupy")
)

SPIN = 200_000_000
"""Clock cycles that a stream is kept busy for, a tenth of a second."""


class Torch:
    """Streams and arrays of torch."""

    def stream(self) -> AbstractContextManager[Any]:
        import torch

        stream: AbstractContextManager[Any] = torch.cuda.stream(torch.cuda.Stream())
        return stream

    def spin(self) -> None:
        import torch

        torch.cuda._sleep(SPIN)  # noqa: SLF001  torch has no public one

    def array(self, values: Any) -> Any:
        import torch

        return torch.from_numpy(values).pin_memory().to("cuda", non_blocking=True)

    def host(self, array: Any) -> Any:
        return array.cpu().numpy()

    def over(self, array: Any) -> Any:
        """A tensor over the memory of an array of this package."""
        import torch

        return torch.as_tensor(array, device="cuda")


class Cupy:
    """Streams and arrays of CuPy."""

    def stream(self) -> AbstractContextManager[Any]:
        import cupy

        stream: AbstractContextManager[Any] = cupy.cuda.Stream(non_blocking=True)
        return stream

    def spin(self) -> None:
        import cupy

        source = """
        extern "C" __global__ void spin(long long cycles) {
            long long start = clock64();
            while (clock64() - start < cycles) {}
        }"""
        cupy.RawKernel(source, "spin")((1,), (1,), (SPIN,))

    def array(self, values: Any) -> Any:
        import cupy

        return cupy.asarray(values)

    def host(self, array: Any) -> Any:
        return array.get()

    def over(self, array: Any) -> Any:
        """An array of CuPy over the memory of an array of this package."""
        import cupy

        return cupy.asarray(array)


@pytest.fixture(
    params=[pytest.param(Torch(), marks=needs_torch), pytest.param(Cupy(), marks=needs_cupy)],
    ids=["torch", "cupy"],
)
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_steps_wait_for_the_streams_work_before_them(library: Any) -> None:
    """Gradients that are computed late on a side stream, and freed at once after the step."""
    rng = np.random.default_rng(0)
    values = [ordinary(rng, n, np.float32) for n in (1000, 70_001)]
    params, expected = [library.array(p) for p in values], [p.copy() for p in values]
    optimizer = fs.AdamW(params)
    reference = fs.AdamW(expected, backend="numpy")
    optimizer.step([library.array(np.zeros_like(p)) for p in values])
    reference.step([np.zeros_like(p) for p in values])
    library.host(params[0])
    with library.stream():
        for _ in range(4):
            grads = [ordinary(rng, p.size, np.float32) for p in values]
            on_device = [library.array(g / 2) for g in grads]
            library.spin()
            for g in on_device:
                g *= 2
            optimizer.step(on_device)
            reference.step([g / 2 * 2 for g in grads])
            del g, on_device
        found = [library.host(p) for p in params]
    for p, q in zip(found, expected, strict=True):
        assert differing_bits(p, q) == 0


def test_the_norm_waits_for_the_streams_work(library: Any) -> None:
    g = np.full(5000, 0.5, np.float32)
    optimizer = fs.SGD(library.array(np.zeros_like(g)), nonfinite="skip")
    with library.stream():
        on_device = library.array(g)
        library.spin()
        on_device *= 2
        assert optimizer.step(on_device, max_norm=1e9).grad_norm == np.sqrt(5000)


def test_state_and_arenas_are_memory_of_other_libraries(library: Any) -> None:
    """Written by the library, read by the next step; no copy lies between."""
    p = library.array(np.ones((3, 4), np.float32))
    optimizer = fs.SGD(p, lr=1.0, momentum=0.5)
    optimizer.step(library.array(np.full((3, 4), 2, np.float32)))
    b = library.over(optimizer.state["b"])
    assert (library.host(b) == 2).all()
    b *= 5
    optimizer.step(library.array(np.zeros((3, 4), np.float32)))
    assert (library.host(p) == 1 - 2 - 5).all()
    arena = fs.Arena({"w": library.array(np.ones((2, 3), np.float32))})
    w, g = library.over(arena.params["w"]), library.over(arena.grads["w"])
    g += 3
    fs.SGD(arena, lr=1.0).step(zero_grads=True)
    assert (library.host(w) == -2).all()
    assert (library.host(g) == 0).all()


@needs_torch
def test_steps_are_refused_while_torch_records_a_graph() -> None:
    import torch

    p, g = torch.zeros(8, device="cuda"), torch.ones(8, device="cuda")
    optimizer = fs.SGD(p, lr=1.0)
    optimizer.step(g)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        g.mul_(2)
        with pytest.raises(RuntimeError, match=r"part of a CUDA graph.*step outside"):
            optimizer.step(g)
    graph.replay()
    optimizer.step(g)
    assert optimizer.state["t"] == 2
    assert (p == -1 - 2).all()


@needs_torch
@pytest.mark.parametrize("arena", [False, True], ids=["list", "arena"])
def test_a_network_of_torch(arena: bool) -> None:
    """A network that autograd differentiates, stepped with the bits of the reference."""
    import torch

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 36, 10),
    ).cuda()
    params = [p.detach() for p in network.parameters()]
    expected = [p.cpu().numpy().copy(order="K") for p in params]
    reference = fs.AdamW(expected, amsgrad=True, backend="numpy")
    into: list[Any] = []
    if arena:
        memory = fs.Arena(params)
        params = [torch.as_tensor(view, device="cuda") for view in memory.params]
        into = [torch.as_tensor(view, device="cuda") for view in memory.grads]
        for p, view in zip(network.parameters(), params, strict=True):
            p.data = view
        optimizer = fs.AdamW(memory, amsgrad=True)
    else:
        optimizer = fs.AdamW(params, amsgrad=True)
    # A norm over an arena is summed in another order.
    asked: dict[str, Any] = {"max_value": 0.01} if arena else {"max_norm": 1.0}
    x, wanted = torch.randn(16, 3, 8, 8, device="cuda"), torch.arange(16, device="cuda") % 10
    losses = []
    for _ in range(10):
        network.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(network(x), wanted)
        loss.backward()
        grads = [p.grad for p in network.parameters()]
        reference.step([g.cpu().numpy() for g in grads], **asked)
        for view, g in zip(into, grads, strict=False):
            view.copy_(g)
        optimizer.step(*([] if arena else [grads]), **asked)
        losses.append(loss.item())
        for p, q in zip(params, expected, strict=True):
            assert differing_bits(p.cpu().numpy(), q) == 0
    assert losses[-1] < losses[0]
