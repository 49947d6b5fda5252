"""Calls counted while a test runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


def calls_of(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[Any]:
    """The arguments of all further calls of what a module knows by that name."""
    made: list[Any] = []
    called = vars(module)[name]

    def counting(*arguments: Any) -> Any:
        made.append(arguments)
        return called(*arguments)

    monkeypatch.setattr(module, name, counting)
    return made


def calls_into_c(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions that the runner calls from here on in the C extension."""
    from fusedstep._backends.c import runner

    calls: list[str] = []
    lib = vars(runner)["lib"]

    class Counting:
        def __getattr__(self, name: str) -> Any:
            calls.append(name)
            return getattr(lib, name)

    monkeypatch.setattr(runner, "lib", Counting())
    return calls


def python_calls(call: Callable[[], Any]) -> list[str]:
    """The names of the functions in Python that a call makes."""
    names: list[str] = []

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            names.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return names[1:]
