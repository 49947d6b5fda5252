"""Subclasses of ndarray that lie: whatever they say of themselves, they are what NumPy sees.

Nothing is looked up on them at all, so the outcome is that of the plain array: the same error,
or the same bytes in all of the memory that the array is a small part of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from marks import on_each_backend
from numpy.lib.stride_tricks import as_strided

import fusedstep as fs

Array: TypeAlias = np.ndarray[Any, Any]

MEMORY = 256
"""Elements of the memory in which a tested array is some elements from FIRST on."""

FIRST = 96


class Flags:
    """Flags that allow everything."""

    def __getattr__(self, name: str) -> bool:
        return True


def elsewhere(array: Array, *_: Any, **__: Any) -> Array:
    """An array that a method may return in place of a view, or of a copy."""
    return np.zeros(16, array.dtype)


LIES: dict[str, Callable[[Array], dict[str, Any]]] = {
    "nothing": lambda plain: {},
    "a longer shape": lambda plain: {"shape": (64,), "size": 64, "nbytes": 64 * plain.itemsize},
    "the right shape": lambda plain: {"shape": (4,), "ndim": 1, "size": 4},
    "a shorter shape": lambda plain: {"shape": (1,), "size": 1},
    "no elements": lambda plain: {"shape": (0,), "size": 0, "nbytes": 0},
    "another number of axes": lambda plain: {"shape": (2, 2), "ndim": 2},
    "a shape that is none": lambda plain: {"shape": None, "ndim": -1},
    "the right dtype": lambda plain: {"dtype": np.dtype(np.float32), "itemsize": 4},
    "another dtype": lambda plain: {"dtype": np.dtype(np.float64), "itemsize": 8},
    "the right strides": lambda plain: {"strides": (4,)},
    "strides of 0": lambda plain: {"strides": (0,)},
    "long strides": lambda plain: {"strides": (1 << 20,)},
    "good flags": lambda plain: {"flags": Flags()},
    "another address": lambda plain: {
        "__array_interface__": {**plain.__array_interface__, "data": (16, False)},
        "ctypes": None,
        "data": None,
    },
    "a longer interface": lambda plain: {
        "__array_interface__": {**plain.__array_interface__, "shape": (64,)}
    },
    "another base": lambda plain: {"base": None},
    "another view": lambda plain: {"view": lambda *_, **__: elsewhere(plain)},
    "another copy": lambda plain: {
        "copy": lambda *_, **__: elsewhere(plain),
        "astype": lambda *_, **__: elsewhere(plain),
        "__array__": lambda *_, **__: elsewhere(plain),
    },
    "another form": lambda plain: {
        name: lambda *_, **__: elsewhere(plain)
        for name in ("reshape", "transpose", "ravel", "flatten", "squeeze", "T")
    },
    "a CUDA device": lambda plain: {
        "__cuda_array_interface__": {**plain.__array_interface__, "data": (16, False)}
    },
    "its class": lambda plain: {"__class__": list},
}
"""Attributes and methods that an array lies with, by what they claim."""

SPECIAL = (
    *("__getitem__", "__setitem__", "__len__", "__iter__", "__bool__", "__eq__", "__hash__"),
    *("__array_finalize__", "__array_function__", "__array_ufunc__", "__array_wrap__"),
    *("__repr__", "__str__", "__format__", "__reduce__", "__deepcopy__", "__copy__", "__index__"),
)
"""Methods that are looked up on the class."""


def liar(plain: Array, lies: dict[str, Any], asked: list[str]) -> Array:
    """`plain`, as an array that lies, and that writes down what it is asked."""

    def answer(self: Any, name: str) -> Any:
        asked.append(name)
        return lies[name] if name in lies else np.ndarray.__getattribute__(self, name)

    def special(name: str) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            asked.append(name)
            return elsewhere(plain)

        return method

    body = {name: special(name) for name in SPECIAL}
    kind = type("Liar", (np.ndarray,), {**body, "__getattribute__": answer})
    made: Array = plain.view(kind)
    asked.clear()  # NumPy has called the new array's __array_finalize__
    return made


def memory(dtype: Any = np.float32) -> Array:
    return np.arange(MEMORY, dtype=dtype)


def read_only(whole: Array) -> Array:
    whole.flags.writeable = False
    return whole[FIRST : FIRST + 4]


TRUTHS: dict[str, Callable[[], Array]] = {
    "fits": lambda: memory()[FIRST : FIRST + 4],
    "has gaps": lambda: memory()[FIRST : FIRST + 12 : 3],
    "is reversed": lambda: memory()[FIRST : FIRST + 4][::-1],
    "is longer": lambda: memory()[FIRST : FIRST + 6],
    "is shorter": lambda: memory()[FIRST : FIRST + 2],
    "is empty": lambda: memory()[FIRST:FIRST],
    "has two axes": lambda: memory()[FIRST : FIRST + 4].reshape(2, 2),
    "is double": lambda: memory(np.float64)[FIRST : FIRST + 4],
    "is whole": lambda: memory(np.int32)[FIRST : FIRST + 4],
    "is read-only": lambda: read_only(memory()),
    "overlaps": lambda: as_strided(memory()[FIRST:], (4,), (2,)),
    "is one element": lambda: as_strided(memory()[FIRST:], (4,), (0,)),
}
"""Arrays as they are, by how they suit where float32 of shape (4,) is called for."""


def four(value: float = 1) -> Array:
    return np.full(4, value, np.float32)


def as_parameter(array: Array, backend: str) -> None:
    fs.SGD([array], momentum=0.9, lr=0.5, backend=backend).step([four()])


def as_one_of_two(array: Array, backend: str) -> None:
    opt = fs.AdamW({"w": four(), "b": array}, backend=backend)
    opt.step({"w": four(), "b": four()}, max_norm=1.0)


def as_gradient(array: Array, backend: str) -> None:
    opt = fs.SGD([four(), four()], momentum=0.9, lr=0.5, backend=backend)
    opt.step([four(), four()])
    for _ in range(2):
        opt.step([four(), array])


def as_gradient_of_a_whole_step(array: Array, backend: str) -> None:
    opt = fs.SGD([four(), four()], lr=0.5, backend=backend, nonfinite="skip")
    opt.step([array, four()], max_norm=1.0, zero_grads=True)
    opt.step([array, np.full(4, np.nan, np.float32)], zero_grads=True)


def as_p(array: Array, backend: str) -> None:
    fs.functional.sgd(array, four(), four(), t=2, momentum=0.9, backend=backend)


def as_g(array: Array, backend: str) -> None:
    p = four()
    fs.functional.sgd(p, array, four(), t=2, momentum=0.9, backend=backend)


def as_state(array: Array, backend: str) -> None:
    fs.functional.sgd(four(), four(), array, t=2, momentum=0.9, backend=backend)


def in_an_arena(array: Array, backend: str) -> None:
    arena = fs.Arena([four(), array])
    fs.SGD(arena, momentum=0.9, backend=backend).step()


def in_place_of_an_arenas(array: Array, backend: str) -> None:
    fs.SGD(fs.Arena([four()]), backend=backend).step([array])


def as_loaded_state(array: Array, backend: str) -> None:
    opt = fs.SGD([four()], momentum=0.5, backend=backend)
    saved = opt.state_dict()
    saved["state"][0]["b"] = array
    opt.load_state_dict(saved)
    opt.step([four()])
    assert opt.state[0]["b"].shape == (4,)


PLACES = [
    *(as_parameter, as_one_of_two, as_gradient, as_gradient_of_a_whole_step, as_loaded_state),
    *(as_p, as_g, as_state, in_an_arena, in_place_of_an_arenas),
]


def outcome(place: Callable[[Array, str], None], array: Array, backend: str) -> str:
    """The error that an array meets, or "" if it meets none."""
    try:
        place(array, backend)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def whole_of(array: Array) -> bytes:
    """All bytes of the memory under an array."""
    while array.base is not None:
        array = array.base
    return array.tobytes()


@on_each_backend
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_changes_nothing(lie: str, place: Any, backend: str) -> None:
    for truth in TRUTHS.values():
        honest, plain = truth(), truth()
        asked: list[str] = []
        lying = liar(plain, LIES[lie](plain), asked)
        expected = outcome(place, honest, backend)
        found = outcome(place, lying, backend)
        # `isinstance` may ask for the class, but nothing follows from the answer.
        assert {*asked} <= {"__class__"}
        assert found == expected
        assert whole_of(plain) == whole_of(honest)


@on_each_backend
def test_the_subclasses_that_there_are(backend: str) -> None:
    """np.matrix and records step as they are; a masked array is refused, and its remedy works."""
    for kind in (np.matrix, np.recarray):
        p = np.zeros((2, 2), np.float32).view(kind)
        fs.SGD(p, lr=1.0, backend=backend).step(np.ones((2, 2), np.float32).view(kind))
        assert type(p) is kind
        assert (np.asarray(p) == -1).all()
    masked = np.ma.masked_array(four(0), [False, True, False, False])
    for place in PLACES:
        refused = outcome(place, masked, backend)
        assert "is a masked array, whose mask a step would ignore; pass its `.data`" in refused
        if place is not in_place_of_an_arenas:
            assert outcome(place, masked.data, backend) == ""


class Interface:
    """An object that is no array but has an array's memory."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.__array_interface__ = array.__array_interface__


class Converted:
    def __array__(self, *_: Any, **__: Any) -> Array:
        return four()


class Exchanged:
    def __dlpack__(self, **_: Any) -> Any:
        return four().__dlpack__()


class Claimed:
    """An object that says it is an array."""

    shape = (4,)
    dtype = np.dtype(np.float32)

    @property
    def __class__(self) -> Any:
        return np.ndarray

    @__class__.setter
    def __class__(self, _: Any) -> None: ...

    def __repr__(self) -> str:
        return "claimed"


class Lent:
    """An array as DLPack hands it over: the same memory each time, or a copy."""

    def __init__(self, array: Array, fresh: bool = False) -> None:
        self.array = array
        self.fresh = fresh

    def __dlpack__(self, **options: Any) -> Any:
        return (self.array.copy() if self.fresh else self.array).__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


NO_ARRAYS: list[Any] = [Interface(four()), Converted(), Exchanged(), Claimed()]


@on_each_backend
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("given", NO_ARRAYS, ids=lambda given: type(given).__name__)
def test_what_is_no_array_is_refused(given: Any, place: Any, backend: str) -> None:
    refused = outcome(place, given, backend)
    if place is in_place_of_an_arenas:
        assert "not the arena's view; its optimizer steps all of `arena.grads`" in refused
    else:
        assert refused.startswith("TypeError")
        assert "pass a NumPy array" in refused
        assert type(given).__name__ in refused
        if isinstance(given, (Interface, Converted)):
            assert outcome(place, np.asarray(given), backend) == ""


@on_each_backend
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_what_dlpack_lends_is_an_array(place: Any, backend: str) -> None:
    given, expected = four(), four()
    lent: Any = Lent(given)
    found = outcome(place, lent, backend)
    if place is in_place_of_an_arenas:
        assert "not the arena's view" in found
    else:
        assert found == outcome(place, expected, backend)
        assert given.tolist() == expected.tolist()


@on_each_backend
@pytest.mark.parametrize("place", [as_parameter, as_one_of_two, as_p, as_state])
def test_what_dlpack_copies_cannot_be_stepped(place: Any, backend: str) -> None:
    lent: Any = Lent(four(), fresh=True)
    refused = outcome(place, lent, backend)
    assert refused.startswith("TypeError")
    assert "shows other memory each time" in refused
