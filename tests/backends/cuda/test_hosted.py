"""Gradients that C reads from their objects: by DLPack's exchange, by an attribute, by memory."""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pytest
from cases import differing_bits
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shape", (4, 2)),
        ("shape", (2, 4, 1)),
        ("shape", [2, 4]),
        ("typestr", "<f8"),
        ("typestr", "<f"),
        ("strides", (4, 8)),
        ("mask", 1),
        ("data", None),
        ("data", (0, False)),
        ("data", (-1, False)),
        ("data", (2**70, False)),
        ("data", ("16", False)),
    ],
)
@pytest.mark.parametrize("again", [0, 1, 3])
def test_a_dict_that_changes_is_read_anew(
    looks: list[int], name: str, value: Any, again: int
) -> None:
    """Whatever changes in it, and however often the array was used before."""
    p = plain(np.zeros((2, 4), np.float32))
    optimizer = fs.SGD(p, lr=1.0)
    g = plain(np.ones((2, 4), np.float32))
    for _ in range(again):
        optimizer.step(g)
    g.__cuda_array_interface__[name] = value
    with suppress(OverflowError, TypeError, ValueError):
        optimizer.step(g)
    assert looks == [0]


def test_a_dict_with_keys_of_its_own(looks: list[int]) -> None:
    """Equal to the usual names, but other objects."""
    p = Placed(np.zeros(8, np.float32))
    optimizer = fs.SGD(p.array, lr=1.0)
    g = plain(np.ones(8, np.float32))
    described = g.__cuda_array_interface__
    g.__cuda_array_interface__ = {key.encode().decode(): value for key, value in described.items()}
    optimizer.step(g)
    assert looks == []
    g = plain(np.ones(8, np.float32))
    g.__cuda_array_interface__[b"mask".decode()] = 1
    with pytest.raises(TypeError, match="has a mask"):
        optimizer.step(g)
    assert (p.host == -1).all()


class Function:
    """An array whose attribute is a function, as a rule it is."""

    ask: Any = None

    def __init__(self, owner: Any, address: int, like: np.ndarray[Any, Any]) -> None:
        self.told = vars(Plain(owner, address, like))["__cuda_array_interface__"]
        self.owner = owner

    @property
    def __cuda_array_interface__(self) -> Any:
        if self.ask is not None:
            self.ask()
        return dict(self.told)

    @classmethod
    def of(cls, values: Any) -> Function:
        placed = Placed(values)
        return cls(placed.on_device, placed.array.__cuda_array_interface__["data"][0], values)


def test_an_attribute_that_is_a_function(looks: list[int]) -> None:
    p = [Function.of(np.zeros(8, np.float32)) for _ in range(40)]
    optimizer = fs.SGD(p, lr=1.0)
    for _ in range(3):
        optimizer.step([Function.of(np.ones(8, np.float32)) for _ in p])
    assert looks == []
    assert all((each.owner.copy_to_host().view(np.float32)[:8] == -3).all() for each in p)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [0, 5, 21])
def test_an_attribute_that_raises(error: type[BaseException], at: int) -> None:
    p = [Function.of(np.zeros(8, np.float32)) for _ in range(30)]
    optimizer = fs.SGD(p, lr=1.0)
    grads = [Function.of(np.ones(8, np.float32)) for _ in p]

    def ask() -> None:
        raise error("no")

    grads[at].ask = ask
    with pytest.raises(error):
        optimizer.step(grads)
    grads[at].ask = None
    optimizer.step(grads)
    assert all((each.owner.copy_to_host().view(np.float32)[:8] == -1).all() for each in p)


@pytest.mark.parametrize("at", [0, 3, 17])
def test_an_attribute_that_changes_the_list(at: int) -> None:
    """Gradients that nobody holds any more are not read."""
    p = [Function.of(np.zeros(8, np.float32)) for _ in range(40)]
    optimizer = fs.SGD(p, lr=1.0)
    for change in (list.clear, lambda grads: grads.extend(grads * 50)):
        grads = [Function.of(np.ones(8, np.float32)) for _ in p]
        grads[at].ask = partial(change, grads)
        with suppress(ValueError, IndexError):
            optimizer.step(grads)
    optimizer.step([Function.of(np.ones(8, np.float32)) for _ in p])


def numbas(values: Any) -> Any:
    from numba import cuda as numba_cuda

    return numba_cuda.to_device(values)


def derived(values: Any) -> Any:
    """An array of a type derived from Numba's, which C does not read."""
    array = numbas(values)
    array.__class__ = type("Derived", (type(array),), {})
    return array


KINDS = {"plain": plain, "exchanged": exchanged, "numba": numbas, "derived": derived}


@pytest.mark.parametrize("kind", ["plain", "exchanged", "numba"])
def test_new_arrays_are_read_in_c(
    looks: list[int], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists of as many as are looked at together, some fewer, some more."""
    from fusedstep._backends.cuda import hosted

    monkeypatch.setattr(hosted, "glance", None)
    rng = np.random.default_rng(5)
    for n in (1, 15, 16, 17, 70):
        values = [np.zeros((2, k % 5 + 1), np.float32) for k in range(n)]
        p, expected = [KINDS[kind](each) for each in values], [each.copy() for each in values]
        optimizer = fs.SGD(p, lr=0.1)
        reference = fs.SGD(expected, lr=0.1, backend="numpy")
        for _ in range(3):
            grads = [rng.standard_normal(each.shape, np.float32) for each in values]
            optimizer.step([KINDS[kind](g) for g in grads])
            assert looks == []
            reference.step(grads)
            looks.clear()  # by the reference
        for array, want in zip(p, expected, strict=True):
            memory = array if kind == "numba" else array.owner
            found = memory.copy_to_host().reshape(-1).view(np.float32)[: want.size]
            assert differing_bits(found.reshape(want.shape), want) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_held_until_the_next_ones(kind: str) -> None:
    """Nobody else may hold them, and their library frees memory that a launch has yet to read."""
    p = KINDS[kind](np.zeros(8, np.float32))
    optimizer = fs.SGD(p, lr=1.0)
    gone: list[Any] = []
    for _ in range(5):
        g = KINDS[kind](np.ones(8, np.float32))
        optimizer.step(g)
        gone.append(weakref.ref(g))
        del g
        gc.collect()
        assert [each() is None for each in gone] == [True] * (len(gone) - 1) + [False]


@pytest.mark.parametrize(
    "other",
    [
        lambda: numbas(np.ones((4, 3), np.float32)),
        lambda: numbas(np.ones(12, np.float32)),
        lambda: numbas(np.ones((3, 4))),
        lambda: numbas(np.asfortranarray(np.ones((3, 4), np.float32))),
        lambda: derived(np.ones((3, 4), np.float32)),
        lambda: plain(np.ones((3, 4), np.float32)),
        lambda: None,
        lambda: np.ones((3, 4), np.float32),
    ],
    ids=["shape", "axes", "dtype", "strides", "type", "library", "none", "host"],
)
@pytest.mark.parametrize("at", [0, 16, 19])
def test_another_array_among_numbas(looks: list[int], other: Any, at: int) -> None:
    p = [numbas(np.zeros((3, 4), np.float32)) for _ in range(20)]
    optimizer = fs.SGD(p, lr=1.0)
    for _ in range(3):
        optimizer.step([numbas(np.ones((3, 4), np.float32)) for _ in p])
    assert looks == []
    grads = [numbas(np.ones((3, 4), np.float32)) for _ in p]
    grads[at] = other()
    fits = grads[at] is None or (
        not isinstance(grads[at], np.ndarray)
        and grads[at].__cuda_array_interface__["shape"] == (3, 4)
        and grads[at].__cuda_array_interface__["typestr"] == "<f4"
    )
    if fits:
        optimizer.step(grads)
    else:
        with pytest.raises((TypeError, ValueError)):
            optimizer.step(grads)
    assert looks == ([] if grads[at] is None else [at])
    expected = [-3 - (fits and (k != at or grads[at] is not None)) for k in range(20)]
    assert [float(each.copy_to_host().max()) for each in p] == expected


def test_an_array_without_what_it_is_asked_for(looks: list[int]) -> None:
    """Numba's, with an attribute that is gone, or is something else."""
    p = numbas(np.zeros(8, np.float32))
    optimizer = fs.SGD(p, lr=1.0)
    for name in ("gpu_data", "shape", "strides", "dtype"):
        for value in (5, "what", (1, "x"), (2**70,)):
            g = numbas(np.ones(8, np.float32))
            g.__dict__[name] = value
            with suppress(Exception):  # whatever Numba says
                optimizer.step(g)
    assert len(looks) == 16


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("again", [0, 1, 3])
def test_new_arrays_may_not_overlap(kind: str, again: int) -> None:
    """A gradient in the memory of a parameter, among others between parameters."""
    p = [KINDS[kind](np.zeros(16, np.float32)) for _ in range(30)]
    optimizer = fs.SGD(p, lr=1.0)
    for _ in range(again):
        optimizer.step([KINDS[kind](np.ones(16, np.float32)) for _ in p])
    grads = [KINDS[kind](np.ones(16, np.float32)) for _ in p]
    grads[20] = p[3]
    with pytest.raises(ValueError, match="memory"):
        optimizer.step(grads)
    for array in p:
        memory = array if hasattr(array, "copy_to_host") else array.owner
        assert (memory.copy_to_host().view(np.float32)[:16] == -again).all()


def referred(array: Any) -> dict[str, int]:
    """How often an array is referred to, and what tells of it."""
    parts = {"": array, **vars(array), **vars(array).get("__cuda_array_interface__", {})}
    kinds = (type(array), dict, tuple, np.dtype)
    return {
        name: sys.getrefcount(each)
        for name, each in parts.items()
        if isinstance(each, kinds) or name == "gpu_data"
    }


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_held_for_long(kind: str) -> None:
    """By new arrays at each step, by some that come again, by one that is not taken."""
    p = [KINDS[kind](np.zeros(700, np.float32)) for _ in range(20)]
    optimizer = fs.SGD(p, lr=1.0)
    sets = [[KINDS[kind](np.ones(700, np.float32)) for _ in p] for _ in range(7)]
    before = [referred(each) for grads in sets for each in grads]
    for grads in [*sets, *sets[:3] * 4, *sets]:
        optimizer.step(grads)
    wrong = [*sets[0][:18], KINDS[kind](np.ones(3, np.float32)), sets[0][19]]
    with pytest.raises(ValueError, match="shape"):
        optimizer.step(wrong)
    del wrong, optimizer
    gc.collect()
    after = [referred(each) for grads in sets for each in grads]
    for found, counts in zip(after, before, strict=True):
        assert all(found[name] <= counts[name] for name in counts), (found, counts)


@pytest.mark.parametrize("make", [numbas, derived])
def test_arrays_that_are_remembered_may_go(make: Any) -> None:
    """An array of Numba is not kept alive by what is known of it."""
    p = make(np.zeros(8, np.float32))
    optimizer = fs.SGD(p, lr=1.0)
    gone = []
    for _ in range(12):
        g = make(np.ones(8, np.float32))
        optimizer.step(g)
        optimizer.step(g)
        gone.append(weakref.ref(g))
        del g
    gc.collect()
    assert [each() for each in gone[:-1]] == [None] * 11  # the last is held until the next step
    assert (p.copy_to_host() == -24).all()


def test_sets_of_arrays_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays that C does not read."""
    from fusedstep._backends.cuda import hosted

    p = [derived(np.zeros(8, np.float32)) for _ in range(5)]
    sets = [[derived(np.full(8, 2.0**k, np.float32)) for _ in p] for k in range(4)]
    for grads in sets:
        for g, array in zip(grads, p, strict=True):
            g.__class__ = array.__class__
    optimizer = fs.SGD(p, lr=1.0)
    for grads in sets:
        optimizer.step(grads)

    def refuse(array: Any) -> Any:
        raise LookupError

    monkeypatch.setattr(hosted, "glance", refuse)
    for grads in sets * 3:
        optimizer.step(grads)
    other = derived(np.ones(8, np.float32))
    with pytest.raises(LookupError):
        optimizer.step([*sets[0][:3], other, sets[0][4]])
    assert (p[3].copy_to_host() == -60).all()


def test_new_arrays_of_a_derived_type(looks: list[int]) -> None:
    """More of them than are looked at without asking C, and some that it knows between them."""
    kind = derived(np.zeros(1, np.float32)).__class__

    def make(value: float) -> Any:
        array = numbas(np.full(8, value, np.float32))
        array.__class__ = kind
        return array

    p = [make(0.0) for _ in range(50)]
    optimizer = fs.SGD(p, lr=1.0)
    first = [make(1.0) for _ in p]
    optimizer.step(first)
    looks.clear()
    optimizer.step([make(2.0) for _ in p])
    optimizer.step([first[k] if k % 7 in (0, 3) else make(1.0) for k in range(50)])
    assert looks == []
    assert all((each.copy_to_host() == -4).all() for each in p)
