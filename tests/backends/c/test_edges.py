"""Answers of the C backend to what Python never asks it."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from marks import needs_c

import fusedstep as fs
from fusedstep._core import aimed

pytestmark = needs_c


@pytest.fixture
def lib() -> Any:
    from fusedstep._engine import lib

    return lib


@pytest.fixture
def ffi() -> Any:
    from fusedstep._engine import ffi

    return ffi


def test_there_are_no_instruction_sets_but_those_in_the_table(lib: Any, ffi: Any) -> None:
    before = fs.get_isa()
    for index in (-1, 99):
        assert lib.fs_isa_name(index) == ffi.NULL
        assert lib.fs_isa_supported(index) == 0
    assert lib.fs_isa_select(b"mmx") == -1
    assert fs.get_isa() == before


def test_names_that_are_not_there_are_not_found(lib: Any, ffi: Any) -> None:
    assert lib.fs_find_kernel(b"sgd", b"float16", 0, 0) == ffi.NULL
    assert lib.fs_find_kernel(b"no rule", b"float32", 0, 0) == ffi.NULL
    assert lib.fs_find_storage(b"no format") == ffi.NULL


@pytest.mark.parametrize("numbers", [[3, -1, 2], [3, 5, 2]])
def test_numbers_of_rows_out_of_range_are_told_by_their_place(
    numbers: list[int], lib: Any, ffi: Any
) -> None:
    index = ffi.new("int64_t[]", numbers)
    rooms = [ffi.new("int64_t[]", len(numbers) + 1) for _ in range(3)]
    assert lib.fs_order(index, len(numbers), 5, *rooms) == -1 - 1


@pytest.mark.parametrize("k", [300, 3000])
def test_many_numbers_are_ordered_as_few_are(k: int, lib: Any, ffi: Any) -> None:
    """More of them go by more bits at a time, and equal ones keep their order."""
    numbers = np.random.default_rng(k).integers(0, 500, k)
    order, ids, starts = (np.zeros(k + 1, np.int64) for _ in range(3))
    rooms = [ffi.from_buffer("int64_t[]", each) for each in (order, ids, starts)]
    n = lib.fs_order(ffi.from_buffer("int64_t[]", numbers), k, 500, *rooms)
    expected, begins = np.unique(np.sort(numbers), return_index=True)
    np.testing.assert_array_equal(order[:k], np.argsort(numbers, kind="stable"))
    np.testing.assert_array_equal(ids[:n], expected)
    np.testing.assert_array_equal(starts[: n + 1], [*begins, k])


def test_more_arrays_than_a_row_has_lie_in_no_known_way(lib: Any, ffi: Any) -> None:
    arrays, found = [np.ones(3) for _ in range(11)], [None]
    table: Any = fs.SGD(np.ones(3), backend="c")
    table.step(np.ones(3))
    libraries = table.layout.plan.table.libraries.in_c
    assert lib.fs_layout(libraries, 1, id(arrays), id(found)) == 0
    assert lib.fs_layout(libraries, 1, id(arrays[:2]), id(found)) == 1
    assert found != [None]


def test_lists_of_other_lengths_or_objects_are_not_the_same(lib: Any) -> None:
    one, other = [object(), object()], [object(), object()]
    assert lib.fs_same(id(one), id([*one])) == 1
    assert lib.fs_same(id(one), id(one[:1])) == 0
    assert lib.fs_same(id(one), id(other)) == 0


def test_a_dict_holds_what_it_holds_and_no_more(lib: Any) -> None:
    states: list[Any] = [{"m": object(), "v": object()}, {"m": object()}]
    held = {0: states[0], 1: states[1]}
    arrays = [each for state in states for each in state.values()]
    assert lib.fs_holds(id(held), id(states), id(arrays)) == 1
    for inner, outer in (
        (states[:1], arrays),
        ([*states, {}], arrays),
        (states[::-1], arrays),
        (states, arrays[:-1]),
        (states, [*arrays, object()]),
        (states, arrays[::-1]),
    ):
        assert lib.fs_holds(id(held), id(inner), id(outer)) == 0
    many = {k: object() for k in range(40)}
    assert lib.fs_holds(id(many), id([*many.values()]), id([])) == 1


class Failing:
    """An object whose gradient cannot be read."""

    @property
    def grad(self) -> Any:
        raise AttributeError("no gradient")


class Shortening:
    """One whose gradient is read at the price of the list that it stands in."""

    def __init__(self) -> None:
        self.among: list[Any] = []

    @property
    def grad(self) -> Any:
        del self.among[1:]
        return 5


def test_attributes_are_gathered_as_far_as_there_are_some(lib: Any) -> None:
    class Has:
        grad = 7

    name = "grad"
    for objects, expected in (
        ([Has(), None, Has()], [7, None, 7]),
        ([Has(), Failing(), Has()], [7, None, None]),
    ):
        into: list[Any] = [None] * 3
        gathered = lib.fs_gather(id(objects), id(name), id(into))
        assert into == expected
        assert gathered == (1 if isinstance(objects[1], Failing) else 3)
    shortening = Shortening()
    shortening.among = [shortening, Has(), Has()]
    into = [None] * 3
    assert lib.fs_gather(id(shortening.among), id(name), id(into)) == 1
    assert into == [5, None, None]
    short: list[Any] = [None]
    many: list[Any] = [Has() for _ in range(40)]
    assert lib.fs_gather(id(many), id(name), id(short)) == 1
    into = [None] * 40
    assert lib.fs_gather(id(many), id(name), id(into)) == 40


class Interrupted:
    """An object whose gradient is read until Ctrl-C."""

    @property
    def grad(self) -> Any:
        raise KeyboardInterrupt


def test_an_interrupt_in_an_attribute_comes_when_c_has_returned(lib: Any) -> None:
    objects, into = [Interrupted()], [None]

    def gather() -> None:
        lib.fs_gather(id(objects), id("grad"), id(into))
        for _ in range(1000):  # Python looks for it now and then
            into.copy()

    with pytest.raises(KeyboardInterrupt):
        gather()
    assert into == [None]


# ---- what arrays are compared with ----


LENGTHS = ctypes.POINTER(ctypes.c_int64)


class Seen(ctypes.Structure):
    """A description of an array by DLPack's exchange interface."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32),
        ("ordinal", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", LENGTHS),
        ("strides", LENGTHS),
        ("offset", ctypes.c_uint64),
    ]


READER = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(Seen))


class Strange:
    """An array of another library."""


@pytest.mark.parametrize(
    ("changes", "answer", "expected"),
    [
        ({}, 0, 1),
        ({}, -1, 0),
        ({"device": 2}, 0, 0),
        ({"strides": None}, 0, 0),
        ({"strides": None, "ndim": 0}, 0, 1),
        ({"data": None}, 0, 0),
        ({"data": None, "shape": (ctypes.c_int64 * 1)(0)}, 0, 1),
        ({"ndim": 65}, 0, 0),
    ],
)
def test_other_libraries_arrays_are_known_by_their_description(
    changes: dict[str, Any], answer: int, expected: int, lib: Any, ffi: Any
) -> None:
    memory, size, stride = np.ones(3), (ctypes.c_int64 * 65)(3), (ctypes.c_int64 * 65)(1)
    standard = {
        "data": memory.ctypes.data,
        "device": 1,
        "ndim": 1,
        "code": 2,
        "bits": 64,
        "lanes": 1,
        "shape": size,
        "strides": stride,
    }

    def read(_: Any, to: Any) -> int:
        for name, value in {**standard, **changes}.items():
            is_pointer = name in ("shape", "strides")
            setattr(to.contents, name, ctypes.cast(value, LENGTHS) if is_pointer else value)
        return answer

    reader = READER(read)
    address = ctypes.cast(reader, ctypes.c_void_p).value
    libraries = ffi.new("fs_library[]", [[id(Strange), address, 0, lib.FS_BY_DLPACK, 1, -1]])
    arrays, found = [Strange()], [None]
    assert lib.fs_layout(libraries, 1, id(arrays), id(found)) == expected
    assert (found != [None]) == bool(expected)


def test_arrays_that_lie_alike_have_the_same_layout(lib: Any) -> None:
    table: Any = fs.SGD(np.ones(3), backend="c")
    table.step(np.ones(3))
    libraries = table.layout.plan.table.libraries.in_c

    def layout(*arrays: Any) -> Any:
        given, found = [*arrays], [None]
        assert lib.fs_layout(libraries, 1, id(given), id(found)) == 1
        return found[0]

    plain = layout(np.ones(6), np.ones(6))
    assert layout(np.ones(5), np.ones(5)) == plain  # of any shape
    others = [
        layout(np.ones(6), np.ones(5)),
        layout(np.ones(6), np.ones((6, 1))),
        layout(np.ones((6, 1)), np.ones(6)),
        layout(np.ones((2, 3)), np.ones((2, 3))),
        layout(np.ones(6), np.ones(12)[::2]),
        layout(np.ones(6), np.ones(6, np.float32)),
    ]
    assert len({plain, *others}) == 1 + len(others)


def plan_of_a_call(**arrays: Any) -> Any:
    """The table in C of a step by `fs.functional.adam` that has just been made."""
    fs.functional.adam(**arrays, t=1, backend="c")
    return [*aimed._plans.values()][-1].table.table  # type: ignore[attr-defined] # noqa: SLF001


def of_bytes(start: int, shape: tuple[int, ...] = (2, 3)) -> Any:
    """Zeros that begin at some byte after an aligned one."""
    n = 8 * int(np.prod(shape))
    return np.zeros(n + 64, np.uint8)[start : start + n].view(float).reshape(shape)


@pytest.mark.parametrize("whole", [False, True], ids=["of any shape", "of one shape"])
def test_an_aim_takes_what_lies_as_it_expects_and_nothing_else(whole: bool, lib: Any) -> None:
    lay: Any = np.asfortranarray if whole else np.ascontiguousarray

    def some() -> Any:
        return lay(np.zeros((2, 3)))

    table = plan_of_a_call(p=some(), g=some(), m=some(), v=some())
    assert table.any_shape == (not whole)
    read_only = some()
    read_only.flags.writeable = False
    both = np.zeros(12)
    early, late = (
        both[at : at + 6].reshape(3, 2).T if whole else both[at : at + 6].reshape(2, 3)
        for at in (0, 3)
    )
    fit = [some() for _ in range(3)]
    assert lib.fs_aim(table, id(fit)) == 1
    for unfit in (
        fit[:2],
        [*fit[:2], [0.0]],
        [*fit[:2], np.zeros((2, 3), np.float32)],
        [*fit[:2], np.zeros(6)],
        [*fit[:2], read_only],
        [*fit[:2], of_bytes(3)],
        [*fit[:2], lay(np.zeros((2, 4)))],
        [*fit[:2], np.zeros((2, 6))[:, ::2]],
        [fit[0], early, late],
        [fit[0], late, early],
        [early, fit[0], early],
    ):
        assert lib.fs_aim(table, id(unfit)) == 0
    assert lib.fs_aim(table, id(fit)) == 1


def test_an_array_whose_values_are_deferred_is_none_to_aim_at(lib: Any) -> None:
    def fails(_: Any) -> bool:
        raise ValueError("this cannot be told")

    p, g, m, v = (np.zeros(3) for _ in range(4))
    table, fit = plan_of_a_call(p=p, g=g, m=m, v=v), [p, m, v]
    for answer, expected in ((lambda _: False, 1), (lambda _: True, 0), (fails, 0)):
        table.libraries[0].deferred = id(answer)
        assert lib.fs_aim(table, id(fit)) == expected
    table.libraries[0].deferred = 0
    assert lib.fs_aim(table, id(fit)) == 1


def never(_: Any, __: Any) -> int:
    return -1


NEVER = READER(never)
"""A reader that cannot describe an array."""


def test_an_array_that_cannot_be_described_is_none_to_aim_at(lib: Any) -> None:
    p, g, m, v = (np.zeros(3) for _ in range(4))
    table, fit = plan_of_a_call(p=p, g=g, m=m, v=v), [p, m, v]
    table.libraries[0].read = ctypes.cast(NEVER, ctypes.c_void_p).value
    table.libraries[0].way = lib.FS_BY_DLPACK
    assert lib.fs_aim(table, id(fit)) == 0
    table.libraries[0].way, table.libraries[0].read = lib.FS_AS_NUMPYS, 0
    assert lib.fs_aim(table, id(fit)) == 1


def test_a_gradient_that_cannot_be_described_is_not_taken(lib: Any) -> None:
    opt: Any = fs.SGD(np.ones(3), backend="c")
    grads = [np.ones(3)]
    opt.step(grads[0])
    table = opt.layout.plan.table.table
    assert lib.fs_take(table, id(grads), 0, 0) == 1
    table.parameters[0].array = 0  # is not looked at
    table.libraries[0].read = ctypes.cast(NEVER, ctypes.c_void_p).value
    table.libraries[0].way = lib.FS_BY_DLPACK
    assert lib.fs_take(table, id(grads), 0, 0) == 0
    table.libraries[0].way = lib.FS_AS_NUMPYS
    assert lib.fs_take(table, id(grads), 0, 0) == 1
