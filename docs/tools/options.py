"""Tables of optimizers, schedules and presets, from their signatures and docstrings."""

from __future__ import annotations

import inspect
from typing import Any

import symbols
from marked import table

import fusedstep as fs
from fusedstep._core.declaration import declaration_of

FRAMEWORKS = ("torch", "keras", "optax", "lecture")


def optimizers() -> list[type[fs.Optimizer]]:
    """The package's optimizers, from the simple to the complex."""
    return [getattr(fs, name) for name in fs.optimizers.__all__]


def arguments(optimizer: type[fs.Optimizer], keyword_only: bool) -> str:
    """The names of its options, but for those of `ema` and its like, which the guide describes."""
    return " ".join(
        f"`{each.name}`"
        for each in declaration_of(optimizer).arguments
        if each.check and each.keyword_only is keyword_only and not (keyword_only and each.of_a_run)
    )


def classes() -> str:
    """The optimizers, and their options: those of torch, and those of this package alone."""
    return table(
        ["class", "what", "options, as torch", "and ours"],
        [
            [
                f"`fs.{each.__name__}`",
                symbols.summary(each),
                arguments(each, keyword_only=False),
                arguments(each, keyword_only=True),
            ]
            for each in optimizers()
        ],
    )


def rules() -> str:
    """The optimizers of `fs.rules`, and their options."""
    return table(
        ["class", "what", "options"],
        [
            [
                f"`fs.rules.{name}`",
                symbols.summary(each),
                arguments(each, keyword_only=False),
            ]
            for name, each in symbols.parts(fs.rules)
        ],
    )


def presets() -> str:
    """For each class and option the values of the frameworks, where they differ."""
    rows = []
    for optimizer in optimizers():
        given = [
            dict(getattr(getattr(fs.presets, name), optimizer.__name__, {})) for name in FRAMEWORKS
        ]
        for option in {name: None for each in given for name in each}:
            values = [f"`{each[option]}`" if option in each else "" for each in given]
            if len({*values}) > 1:
                rows.append([f"`{optimizer.__name__}`", f"`{option}`", *values])
    return table(["class", "option", *FRAMEWORKS], rows)


def schedules() -> str:
    """The schedules: how they are called, and their formulas."""
    return table(
        ["schedule", "learning rate of step t, with n = t - 1"],
        [
            [f"`{name}{plain(make)}`", symbols.summary(make)]
            for name, make in fs.schedules.SCHEDULES.items()
        ],
    )


def plain(function: Any) -> str:
    """A signature without annotations."""
    parameters = inspect.signature(function).parameters.values()
    shown = (p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters)
    return f"({', '.join(shown)})"
