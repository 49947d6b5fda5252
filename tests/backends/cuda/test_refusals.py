"""Arrays that a device cannot step: errors that name the remedy."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from device import MISSING, Placed, Plain, cuda

import fusedstep as fs

pytestmark = pytest.mark.filterwarnings("error")


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
        """A tensor that behaves as one of torch on a device."""

        __array__ = None

        @property
        def __cuda_array_interface__(self) -> None:
            raise RuntimeError("Can't get it on Variable that requires grad.")

    from fusedstep._arrays.cuda_array import see

    with pytest.raises(TypeError, match=r"params\['w'\] is a tensor that requires grad.*detach"):
        see(Tensor(), "params['w']")
    with pytest.raises(ValueError, match="grads is on a CUDA device"):
        fs.SGD(np.ones(3)).step(Tensor())


@pytest.mark.skipif(MISSING is None, reason="the backend is there")
def test_without_the_backend_device_arrays_are_refused() -> None:
    array = Plain(None, 4096, np.ones(3, np.float32))
    for backend in ("auto", "cuda"):
        with pytest.raises(RuntimeError, match="backend='cuda' is not available: "):
            fs.SGD(array, backend=backend)
    with pytest.raises(ValueError, match="backend='c' steps arrays on the CPU, and params is on a"):
        fs.SGD(array, backend="c")
