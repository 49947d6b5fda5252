"""The subcommand `memory`: the bytes of a model's parameters, state and gradients, way by way."""

from __future__ import annotations

import ast
import json
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fusedstep import optimizers, rules
from fusedstep._arrays.dtypes import dtype_name
from fusedstep._arrays.structure import flatten
from fusedstep._checks.hints import nearest
from fusedstep._checks.wording import quoted
from fusedstep._core.declaration import Declaration, declaration_of
from fusedstep._core.footprint import WAYS, Footprint, Way, footprint
from fusedstep.program import output
from fusedstep.program.arguments import add_picture
from fusedstep.program.errors import DRAWING, CommandError, UsageError, require, unwritten
from fusedstep.program.imported import imported

if TYPE_CHECKING:
    from rich.table import Table

DESCRIPTION = (
    "Print how many bytes parameters, what they lack, state and gradients take for each way to "
    "keep them, and draw it. A SHAPE is `4096x4096`, `1000` or `12*768x768`, or a model as "
    "`module:Name`: a module of torch, a structure of arrays, or a function that makes either."
)

OPTIMIZERS = {
    name.lower(): optimizer
    for module in (optimizers, rules)
    for name in module.__all__
    if isinstance(optimizer := getattr(module, name), type)
}

Shape: TypeAlias = tuple[int, ...]

UNITS = ("B", "KB", "MB", "GB", "TB", "PB")
"""Names of powers of a thousand bytes."""

COLOURS = ("#4c78a8", "#72b7b2", "#f58518", "#bab0ac")
"""Colours of what a bar is made of."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "shape", metavar="SHAPE", nargs="+", help="a shape, or a model as `module:Name`"
    )
    parser.add_argument(
        "--optimizer",
        default="adamw",
        metavar="NAME",
        help=f"{', '.join(OPTIMIZERS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a hyperparameter that adds state, such as amsgrad=True, momentum=0.9 or ema=0.999; "
        "may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    add_picture(parser, "fusedstep-memory.png")


def run(options: Namespace) -> int:
    declaration, hyper = chosen(options.optimizer, options.option)
    shapes = [shape for text in options.shape for shape in read(text)]
    if not prod(map(prod, shapes)):
        raise UsageError("SHAPE names no elements at all; pass one that has some, as 4096x4096")
    refused = refusals(declaration, hyper)
    found = {way: footprint(declaration, hyper, shapes, way) for way in WAYS if way not in refused}
    if options.json:
        print(json.dumps(as_json(found, shapes), indent=1))
        return 0
    require(DRAWING, "memory")
    title = titled(declaration, options.option, shapes)
    failed = None
    try:  # before the table, whose reader may leave the pipe
        draw(title, found, elements(shapes), options.picture)
    except OSError as error:
        failed = unwritten(options.picture, error)
    output.show(tabulate(title, found, elements(shapes)), output.console(width=110))
    if failed is not None:
        raise failed
    print(f"The bytes are drawn in {options.picture}")
    for reason in dict.fromkeys(refused.values()):
        print(f"Refused: {reason}")
    return 0


# ---- what is asked for ----


def chosen(name: str, given: Iterable[str]) -> tuple[Declaration, dict[str, Any]]:
    """An optimizer's declaration, and its hyperparameters."""
    if name.lower() not in OPTIMIZERS:
        near = nearest(name.lower(), OPTIMIZERS)
        meant = "" if near is None else f"; did you mean {near!r}?"
        raise UsageError(f"--optimizer {name!r} is none of {quoted([*OPTIMIZERS])}{meant}")
    declaration = declaration_of(OPTIMIZERS[name.lower()])
    values = dict(declaration.defaults)
    for text in given:
        option, equals, value = text.partition("=")
        if not equals or option not in values:
            example = "amsgrad=True" if "amsgrad" in values else "ema=0.999"
            raise UsageError(f"--option {text!r}: pass a name and a value, as {example}")
        try:
            values[option] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            raise UsageError(f"--option {text!r}: {value!r} is no value of Python") from None
    try:
        return declaration, declaration.check(values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--option: {error}") from None


def refusals(declaration: Declaration, hyper: Mapping[str, Any]) -> dict[Way, str]:
    """The ways that the optimizer refuses, each with the reason."""
    refused = {}
    for way in WAYS:
        try:
            declaration.check({**hyper, "master": way.master, "state_dtype": way.state_dtype})
        except ValueError as error:
            refused[way] = str(error)
    return refused


def read(text: str) -> list[Shape]:
    """The shapes that an argument names."""
    if ":" in text:
        return shapes_of(made(text), text)
    match = re.fullmatch(
        r"(?:(\d+)[*])?(\d+(?:[x,]\d+)*)", text.strip().strip("()").replace(" ", "")
    )
    if match is None:
        raise UsageError(
            f"SHAPE {text!r} is no shape; write it as 4096x4096 or 12*768x768, or a model as "
            "`module:Name`"
        )
    shape = tuple(map(int, re.split("[x,]", match[2])))
    return [shape] * int(match[1] or 1)


def made(text: str) -> Any:
    """The model that `module:Name` stands for."""
    module_name, _, attribute = text.partition(":")
    try:
        found: Any = imported(module_name)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (AttributeError, ImportError, ValueError) as error:
        raise UsageError(
            f"SHAPE {text!r}: {error}; name a model in a module that can be imported"
        ) from None
    needs_a_call = isinstance(found, type) or not (
        hasattr(found, "parameters") or hasattr(found, "shape") or not callable(found)
    )
    try:
        return found() if needs_a_call else found
    except Exception as error:
        raise CommandError(f"SHAPE {text!r} cannot be called without arguments: {error}") from None


def shapes_of(model: Any, text: str) -> list[Shape]:
    """The shapes of a model's parameters, each counted once."""
    try:
        if hasattr(model, "parameters") and callable(model.parameters):
            leaves = [*model.parameters()]
        else:
            _, leaves = flatten(model)
        own = {id(leaf): tuple(map(int, leaf.shape)) for leaf in leaves}
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"SHAPE {text!r} is no model: {error}") from None
    return [*own.values()]


def elements(shapes: Sequence[Shape]) -> int:
    return sum(map(prod, shapes))


# ---- what is told ----


def titled(declaration: Declaration, options: Sequence[str], shapes: Sequence[Shape]) -> str:
    """The head of the table and of the picture."""
    arguments = f"({', '.join(options)})" if options else ""
    count = f"{len(shapes):,} tensors of " if len(shapes) > 1 else ""
    return f"{declaration.optimizer.__name__}{arguments}, {count}{elements(shapes):,} parameters"


def tabulate(title: str, found: Mapping[Way, Footprint], n: int) -> Table:
    from rich.table import Table

    table = Table(
        title=title,
        caption="kept: parameters, what these lack, and state; all: with gradients; traffic: "
        "bytes that a step\nreads and writes for each parameter; less: how many times all of it "
        "goes into float32's",
    )
    table.add_column("parameters", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for heading in ("kept", "each", "all", "each", "traffic", "less"):
        table.add_column(heading, justify="right", no_wrap=True)
    widest = next(iter(found.values())).total
    for way, each in found.items():
        table.add_row(
            way.parameters,
            str(way.state_dtype),
            size(each.kept),
            f"{each.kept / n:.2f}",
            size(each.total),
            f"{each.total / n:.2f}",
            f"{each.traffic / n:.1f}",
            f"{widest / each.total:.2f} ×",
        )
    return table


def size(count: float) -> str:
    """A number of bytes in the unit that leaves it short."""
    for unit in UNITS:
        if count < 999.5 or unit == UNITS[-1]:
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError(count)


def as_json(found: Mapping[Way, Footprint], shapes: Sequence[Shape]) -> dict[str, Any]:
    return {
        "elements": elements(shapes),
        "tensors": len(shapes),
        "ways": [
            {
                "dtype": dtype_name(way.dtype),
                "master": way.master,
                "state_dtype": way.state_dtype,
                "out": None if way.copy is None else dtype_name(way.copy),
                **each._asdict(),
                "kept": each.kept,
                "total": each.total,
            }
            for way, each in found.items()
        ],
    }


def draw(title: str, found: Mapping[Way, Footprint], n: int, picture: Path) -> None:
    """Save bars of the bytes of a parameter as a PNG picture."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 0.42 * len(found) + 1.6), layout="constrained")
    axes = figure.subplots()
    labels = [f"{way.parameters}; {way.state_dtype} state" for way in found]
    left = [0.0] * len(found)
    parts = ("parameters", "masters", "state", "gradients")
    names = ("parameters", "what they lack, or a copy", "state", "gradients")
    for part, name, colour in zip(parts, names, COLOURS, strict=True):
        widths = [getattr(each, part) / n for each in found.values()]
        axes.barh(labels, widths, left=left, label=name, color=colour, height=0.7)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, end in enumerate(left):
        axes.text(end + 0.15, row, f"{end:.3g}", va="center", fontsize="small")
    axes.invert_yaxis()
    axes.set_xlim(0, max(left) * 1.08)
    axes.set_xlabel("bytes for each parameter")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title, loc="left", fontsize="medium")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    figure.savefig(picture, format="png", dpi=150)
