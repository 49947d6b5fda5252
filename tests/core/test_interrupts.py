"""Ctrl-C at every moment of a step, a load, a way ahead: all of it happens, or nothing."""

from __future__ import annotations

import sys

import pytest
from interrupts import (
    CustomRule,
    GoingAhead,
    Judge,
    Loading,
    LoadingACheckpoint,
    Mixed,
    NewState,
    OtherColumns,
    World,
    Zeroing,
    interrupted,
    work,
)
from marks import ON_CPU

LONG = {
    *((NewState, "numba"), (NewState, "numpy"), (Loading, "numba"), (Loading, "numpy")),
    *((LoadingACheckpoint, each) for each in ("c", "numba", "numpy")),
    *((Zeroing, "numpy"), (Mixed, "numpy"), (CustomRule, "numpy"), (GoingAhead, "numba")),
    *((OtherColumns, "numba"), (OtherColumns, "numpy")),
}
"""The worlds that take a quarter of a minute, and are tried on another backend, too."""

EACH = [
    pytest.param(
        make,
        *each.values,
        marks=[*each.marks, *([pytest.mark.slow] if (make, each.values[0]) in LONG else [])],
    )
    for each in ON_CPU
    for make in work(str(each.values[0]))
]


@pytest.mark.parametrize(("make", "backend"), EACH)
def test_all_or_nothing(make: type[World], backend: str) -> None:
    judge = Judge(make, backend)
    halves = []
    at, came = 0, True
    while came:
        world = make(backend)
        if sys.version_info >= (3, 13):  # it traces operations in the second of two traced calls
            interrupted(make(backend).act, sys.maxsize)
        came = interrupted(world.act, at)
        if not judge.is_whole(world):
            halves.append(at)
        at += 1
    assert at > 10
    assert halves == []
