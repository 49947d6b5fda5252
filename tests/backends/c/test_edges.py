"""Answers of the C backend to what Python never asks it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from marks import needs_c

import fusedstep as fs

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
