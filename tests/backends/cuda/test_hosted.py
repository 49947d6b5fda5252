"""Gradients that C reads from their objects: by DLPack's exchange, by an attribute, by memory."""

from __future__ import annotations

import ctypes
import gc
import weakref
from typing import Any

import numpy as np
import pytest
from device import MISSING, SIMULATED, Placed, Plain, cuda

import fusedstep as fs
from fusedstep._backends.choose import why_missing
from fusedstep._core.tensors import Tensors

NO_C = why_missing("c")

pytestmark = [
    cuda,
    pytest.mark.skipif(SIMULATED or MISSING is not None, reason="for a driver alone"),
    pytest.mark.skipif(NO_C is not None, reason=f"no c backend: {NO_C}"),
]


class DLTensor(ctypes.Structure):
    """A description of an array, as DLPack has it."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32),
        ("ordinal", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


class Exchanged(Plain):
    """An array whose type has DLPack's exchange interface for C."""

    reads = 0
    __dlpack__ = __dlpack_device__ = None

    def __init__(self, owner: Any, address: int, like: np.ndarray[Any, Any]) -> None:
        super().__init__(owner, address, like)
        self.address, self.like, self.device, self.ordinal = address, like, 2, 0
        sizes = ctypes.c_int64 * max(like.ndim, 1)
        self.c_shape = sizes(*like.shape)
        self.c_strides = sizes(*(stride // like.itemsize for stride in like.strides))


def describe(array: Any, to: Any) -> int:
    type(array).reads += 1
    told = to.contents
    told.data, told.offset = array.address, 0
    told.device, told.ordinal = array.device, array.ordinal
    told.ndim, told.code, told.bits, told.lanes = array.like.ndim, 2, 8 * array.like.itemsize, 1
    told.shape = ctypes.cast(array.c_shape, ctypes.POINTER(ctypes.c_int64))
    told.strides = ctypes.cast(array.c_strides, ctypes.POINTER(ctypes.c_int64))
    return 0


READER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(DLTensor))(describe)
TABLE = (ctypes.c_void_p * 8)()
TABLE[0] = 1  # the version, 1.0
TABLE[5] = ctypes.cast(READER, ctypes.c_void_p)

NAME = b"dlpack_exchange_api"
"""The capsule's name, which it has the address of."""

new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
Exchanged.__dlpack_c_exchange_api__ = new(  # type: ignore[attr-defined]
    ctypes.addressof(TABLE), NAME, None
)


def exchanged(values: Any) -> Any:
    """An array of that type, on the device."""
    placed = Placed(values)
    at = placed.array.__cuda_array_interface__["data"][0]
    return Exchanged(placed.on_device, at, values)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The gradients that Python looked at."""
    found: list[int] = []
    check = Tensors.check_gradient

    def note(self: Any, index: int, *args: Any) -> Any:
        found.append(index)
        return check(self, index, *args)

    monkeypatch.setattr(Tensors, "check_gradient", note)
    return found


def test_by_exchange(looks: list[int]) -> None:
    """From the first step on: gradients that lie as their parameters do."""
    p = [exchanged(np.zeros((3, 4), np.float32)) for _ in range(20)]
    optimizer = fs.SGD(p, lr=1.0)
    for k in range(3):
        before = Exchanged.reads
        optimizer.step([exchanged(np.full((3, 4), 2.0**k, np.float32)) for _ in p])
        assert Exchanged.reads - before == 20
    assert looks == []
    assert (p[7].owner.copy_to_host().view(np.float32)[:12] == -7).all()


@pytest.mark.parametrize(("name", "value"), [("device", 1), ("ordinal", 1)])
def test_elsewhere_by_exchange(looks: list[int], name: str, value: int) -> None:
    """An array that is elsewhere is for Python, whatever its attribute says."""
    p = exchanged(np.zeros(3, np.float32))
    optimizer = fs.SGD(p, lr=1.0)
    g = exchanged(np.ones(3, np.float32))
    optimizer.step(g)
    assert looks == []
    setattr(g, name, value)
    optimizer.step(g)
    assert looks == [0]


def plain(values: Any) -> Any:
    return Placed(values).array


@pytest.mark.parametrize(
    "other",
    [
        lambda: plain(np.ones((4, 3), np.float32)),
        lambda: plain(np.ones(12, np.float32)),
        lambda: plain(np.ones((3, 4))),
        lambda: plain(np.asfortranarray(np.ones((3, 4), np.float32))),
        lambda: None,
        lambda: np.ones((3, 4), np.float32),
    ],
    ids=["shape", "axes", "dtype", "strides", "none", "host"],
)
def test_another_layout_by_attribute(looks: list[int], other: Any) -> None:
    p = plain(np.zeros((3, 4), np.float32))
    optimizer = fs.SGD([p], lr=1.0)
    for _ in range(3):
        optimizer.step([plain(np.ones((3, 4), np.float32))])
    assert looks == []
    given = other()
    layouts = given is None or (isinstance(given, np.ndarray) is False and given_fits(given))
    if layouts:
        optimizer.step([given])
    else:
        with pytest.raises((TypeError, ValueError)):
            optimizer.step([given])
    assert given is None or looks == [0]


def given_fits(given: Any) -> bool:
    described = given.__cuda_array_interface__
    return bool(described["shape"] == (3, 4) and described["typestr"] == "<f4")


def test_an_attribute_that_changes_is_read_anew(looks: list[int]) -> None:
    """An array whose memory moves, in the same dict and in another one."""
    p, placed = (
        Placed(np.zeros(8, np.float32)),
        [Placed(np.full(8, k, np.float32)) for k in (1.0, 2.0, 4.0)],
    )
    optimizer = fs.SGD(p.array, lr=1.0)
    g = placed[0].array
    optimizer.step(g)
    at = [each.array.__cuda_array_interface__["data"] for each in placed]
    g.__cuda_array_interface__["data"] = at[1]
    optimizer.step(g)
    g.__cuda_array_interface__ = {**g.__cuda_array_interface__, "data": at[2]}
    optimizer.step(g)
    assert looks == []
    assert (p.host == -7).all()


def test_an_attribute_that_is_none_any_more() -> None:
    p = plain(np.zeros(8, np.float32))
    optimizer = fs.SGD(p, lr=1.0)
    g = plain(np.ones(8, np.float32))
    optimizer.step(g)
    for broken in (None, {}, {"data": 5}, {**g.__cuda_array_interface__, "mask": 1}):
        other = plain(np.ones(8, np.float32))
        other.__cuda_array_interface__ = broken
        with pytest.raises((TypeError, KeyError, AttributeError)):
            optimizer.step(other)
    assert optimizer.state["t"] == 1


def test_arrays_that_are_remembered_may_go(looks: list[int]) -> None:
    """An array of Numba is not kept alive by what is known of it."""
    from numba import cuda as numba_cuda

    p = numba_cuda.to_device(np.zeros(8, np.float32))
    optimizer = fs.SGD(p, lr=1.0)
    gone = []
    for _ in range(12):
        g = numba_cuda.to_device(np.ones(8, np.float32))
        optimizer.step(g)
        gone.append(weakref.ref(g))
        del g
    gc.collect()
    assert looks == [0]
    assert [each() for each in gone[:-1]] == [None] * 11  # the last is held until the next step
    assert (p.copy_to_host() == -12).all()


def test_sets_of_arrays_are_looked_at_once(
    looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from numba import cuda as numba_cuda

    from fusedstep._backends.cuda import hosted

    p = [numba_cuda.to_device(np.zeros(8, np.float32)) for _ in range(5)]
    sets = [[numba_cuda.to_device(np.full(8, 2.0**k, np.float32)) for _ in p] for k in range(4)]
    optimizer = fs.SGD(p, lr=1.0)
    for grads in sets:
        optimizer.step(grads)

    def refuse(array: Any) -> Any:
        raise LookupError

    monkeypatch.setattr(hosted, "glance", refuse)
    for grads in sets * 3:
        optimizer.step(grads)
    with pytest.raises(LookupError):
        optimizer.step([numba_cuda.to_device(np.ones(8, np.float32)) for _ in p])
    assert (p[3].copy_to_host() == -60).all()
