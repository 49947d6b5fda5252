"""Tables of optimizers, schedules and presets, from their signatures and docstrings."""

from __future__ import annotations

import inspect
from typing import Any

import symbols
from marked import table

import fusedstep as fs

SHARED = ("params", "ema", "nonfinite", "backend")
"""Arguments that every optimizer has; the guide describes them once."""

FRAMEWORKS = ("torch", "keras", "optax", "lecture")


def optimizers() -> list[type[fs.Optimizer]]:
    found = [getattr(fs, name) for name in fs.__all__]
    return [
        each
        for each in found
        if inspect.isclass(each) and issubclass(each, fs.Optimizer) and each is not fs.Optimizer
    ]


def arguments(optimizer: Any, kind: Any) -> str:
    """The names of its own arguments of one kind."""
    parameters = inspect.signature(optimizer).parameters.values()
    return " ".join(f"`{p.name}`" for p in parameters if p.kind is kind and p.name not in SHARED)


def classes() -> str:
    """The optimizers, and their options: those of torch, and those of this package alone."""
    positional, keyword = (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    return table(
        ["class", "what", "options, as torch", "and ours"],
        [
            [
                f"`fs.{each.__name__}`",
                symbols.summary(each),
                arguments(each, positional),
                arguments(each, keyword),
            ]
            for each in sorted(optimizers(), key=lambda each: order(each))
        ],
    )


def order(optimizer: type) -> int:
    """Where a class stands in its module: from the simple to the complex."""
    return inspect.getsourcelines(optimizer)[1]


def rules() -> str:
    """The optimizers of `fs.rules`, and their options."""
    return table(
        ["class", "what", "options"],
        [
            [
                f"`fs.rules.{name}`",
                symbols.summary(each),
                arguments(each, inspect.Parameter.POSITIONAL_OR_KEYWORD),
            ]
            for name, each in symbols.parts(fs.rules)
        ],
    )


def presets() -> str:
    """For each class and option the values of the frameworks, where they differ."""
    rows = []
    for optimizer in sorted(optimizers(), key=order):
        given = [
            dict(getattr(getattr(fs.presets, name), optimizer.__name__)) for name in FRAMEWORKS
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
