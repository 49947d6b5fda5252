"""The public names, by group, and what a page says of each in one line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import fusedstep

GROUPS = {
    "optimizers": "Optimizers",
    "steps": "Around a step",
    "custom rules": "Custom rules",
    "schedules": "Schedules",
    "functional": "Functions without an object",
    "presets": "Presets",
    "saving": "Checkpoints and records",
    "portable": "Portable functions",
    "backends": "Backends and threads",
}
"""The title of each group of public names, in the order of the overview."""

HOMES = {name: name for name in ("functional", "portable", "presets", "schedules")}
"""Modules that are a group of their own."""

CUSTOM = ("rule", "rules")

SAVING = ("Recorder", "load", "replay", "save")


def public() -> dict[str, dict[str, Any]]:
    """Every public name of the package in each group: `"fusedstep.AdamW"` and its object."""
    found: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for name in fusedstep.__all__:
        thing = getattr(fusedstep, name)
        group = found[group_of(name, thing)]
        group[f"fusedstep.{name}"] = thing
        if isinstance(thing, ModuleType):
            group.update({f"fusedstep.{name}.{part}": each for part, each in parts(thing)})
    return found


def group_of(name: str, thing: Any) -> str:
    if name in HOMES:
        return HOMES[name]
    if name in CUSTOM:
        return "custom rules"
    if name in SAVING:
        return "saving"
    if inspect.isclass(thing):
        return "optimizers" if issubclass(thing, fusedstep.Optimizer) else "steps"
    return "backends"


def parts(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The public functions and classes of a public module: of `__all__`, or else its functions."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, thing in vars(module).items()
            if inspect.isfunction(thing)
            and not name.startswith("_")
            and thing.__module__ == module.__name__
        ]
    for name in names:
        if callable(thing := getattr(module, name)):
            yield name, thing


def every() -> dict[str, Any]:
    """All public names with their objects, without the groups."""
    return {name: thing for group in public().values() for name, thing in group.items()}


def members(thing: type) -> dict[str, Any]:
    """Methods and properties that a public class or one of its bases in the package defines."""
    return {
        name: member
        for base in reversed(thing.__mro__)
        if base.__module__.startswith("fusedstep")
        for name, member in vars(base).items()
        if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property))
    }


def summary(thing: Any) -> str:
    """The first sentence of a docstring, on one line."""
    text = (inspect.getdoc(thing) or "").partition("\n\n")[0]
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(text.split()))[0]


def shown(name: str) -> str:
    """A public name as programs write it, after `import fusedstep as fs`."""
    return re.sub("^fusedstep", "fs", name)


def rows(group: Mapping[str, Any]) -> list[list[str]]:
    """A group as the rows of a table: the name, and what it is."""
    return [[f"`{shown(name)}`", summary(thing)] for name, thing in group.items()]
