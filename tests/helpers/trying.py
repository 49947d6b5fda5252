"""Programs of a few lines, run one after the other in one namespace."""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fusedstep as fs

SETUP = """
params = {"w": np.ones((3, 2), np.float32), "b": np.ones(2, np.float32)}
grads = {"w": np.ones((3, 2), np.float32), "b": np.ones(2, np.float32)}
opt = fs.AdamW(params)
"""
"""The lines that every program starts with."""


def namespace(folder: Path, setup: str) -> dict[str, Any]:
    """The names that a program finds, after the lines that set it up."""
    names: dict[str, Any] = {"np": np, "fs": fs, "folder": folder, "__name__": "program"}
    run(SETUP, names)
    run(setup, names)
    return names


def run(text: str, names: dict[str, Any]) -> None:
    """Run lines whose source can be read, as that of custom rules is."""
    name = f"<program {len(linecache.cache)}>"
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    exec(compile(text, name, "exec"), names)


def arrays(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    """The arrays in a value and in its containers; of an optimizer its parameters and state."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from arrays(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from arrays(each)
    elif isinstance(value, fs.Optimizer):
        yield from arrays(value.state_dict())
        yield from arrays([dict(group)["params"] for group in value.param_groups])


def picture(names: dict[str, Any]) -> list[bytes]:
    """The bytes of every array that a program's names hold, and the numbers of its optimizers."""
    held = {name: value for name, value in names.items() if not name.startswith("__")}
    found = [array.tobytes() for array in arrays(held)]
    optimizers = (value for value in held.values() if isinstance(value, fs.Optimizer))
    return [*found, *(repr(each.state_dict()).encode() for each in optimizers)]
