"""The subcommand `plot-schedule`: schedules as a table and as one picture."""

from __future__ import annotations

import ast
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from fusedstep._checks.wording import describe
from fusedstep._core.schedule import schedule_hint
from fusedstep.program import output
from fusedstep.program.arguments import add_picture, whole
from fusedstep.program.errors import DRAWING, CommandError, require, unwritten
from fusedstep.schedules import SCHEDULES, Schedule

if TYPE_CHECKING:
    from rich.table import Table

DESCRIPTION = (
    "Print the rates of schedules at some steps, and draw them all into one picture. Schedules are "
    "written as in Python, with numbers, lists and other schedules as arguments: "
    '"sequence([warmup(1e-3, 100), cosine(1e-3, 900)], [100])".'
)

SHOWN = 5
"""Number of steps in the table, the first and the last among them."""

LEAST = 20
"""Letters of a schedule that stand on one line of the table."""

FEW = 40
"""Number of steps up to which the picture marks each of them."""

APART = 5
"""How many times as high as another a curve may be that shares its panel."""

POINTS = 2000
"""Largest number of points of a curve: the picture is no wider."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "schedule",
        metavar="SCHEDULE",
        nargs="+",
        help='a call of a schedule of fusedstep.schedules, such as "cosine(1e-3, steps=1000)"',
    )
    parser.add_argument(
        "--steps",
        type=whole(least=1),
        default=1000,
        help="number of steps to show (default: %(default)s)",
    )
    add_picture(parser, "fusedstep-schedules.png")


def run(options: Namespace) -> int:
    try:
        schedules = [read(text) for text in options.schedule]
    except ValueError as error:
        raise CommandError(f"SCHEDULE {error}") from None
    require(DRAWING, "plotting")
    too_large = CommandError("rates or --steps are too large for a picture; pass smaller ones")
    try:
        table = tabulate(options.schedule, schedules, options.steps)
    except OverflowError:
        raise too_large from None
    failed = None
    try:  # before the table, whose reader may leave the pipe
        draw(options.schedule, schedules, options.steps, options.picture)
    except OverflowError:
        failed = too_large
    except OSError as error:
        failed = unwritten(options.picture, error)
    output.show(table, output.console(width=100))
    if failed is not None:
        raise failed
    print(f"The schedules are drawn in {options.picture}")
    return 0


def read(text: str) -> Schedule:
    """The schedule that `text` calls for, in Python's notation: `cosine(1e-3, steps=100)`.

    The text is read, not run. It may hold calls of schedules, lists and numbers; anything else
    is a ValueError.
    """
    try:
        value = _value(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"{text!r} is no expression: {error.msg}") from None
    except (MemoryError, RecursionError):
        raise ValueError(f"{text[:40]!r}... is nested too deeply; write it flatter") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text!r}: {error}") from None
    if not isinstance(value, Schedule):
        raise ValueError(f"{text!r} is {describe(value)}; pass a schedule, as constant(1e-3)")
    return value


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as operand):
            return -_value(operand)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item) for item in items]
        case ast.Call(func=ast.Name(id=name), args=items, keywords=named) if name in SCHEDULES:
            arguments = {}
            for argument in named:
                if argument.arg is None:
                    break
                arguments[argument.arg] = _value(argument.value)
            else:
                return SCHEDULES[name](*map(_value, items), **arguments)
        case ast.Call(func=ast.Name(id=name)):
            raise ValueError(f"the schedule {name!r} is unknown; {schedule_hint(name)}")
    raise ValueError(
        f"{ast.unparse(node)!r} is none of what may stand there: calls of schedules, lists and "
        "numbers"
    )


def tabulate(names: Sequence[str], schedules: Sequence[Schedule], steps: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    shown = sampled(steps, SHOWN)
    table = Table(title="Learning rates")
    table.add_column("schedule", overflow="fold", min_width=LEAST)
    for t in shown:
        table.add_column(f"t = {t}", justify="right", no_wrap=True)
    for name, schedule in zip(names, schedules, strict=True):
        table.add_row(Text(name), *(f"{schedule(t):.3g}" for t in shown))
    return table


def sampled(steps: int, most: int) -> list[int]:
    """At most `most` steps from 1 to `steps`, evenly spread."""
    most = min(steps, most)
    return [1 + k * (steps - 1) // max(most - 1, 1) for k in range(most)]


def draw(names: Sequence[str], schedules: Sequence[Schedule], steps: int, picture: Path) -> None:
    """Save the curves as a PNG picture, those of about the same height in one panel."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    labels = ["\n".join(wrap(name, 90)) for name in names]
    lines = sum(label.count("\n") + 1 for label in labels)
    points = sampled(steps, POINTS)
    where = [float(t) for t in points]  # matplotlib takes no integers larger than C's
    curves = [[schedule(t) for t in points] for schedule in schedules]
    panels = divided([max(curve) for curve in curves])
    height = 4.5 + 2.5 * (len(panels) - 1) + 0.2 * lines
    figure = Figure(figsize=(8, height), layout="constrained")
    rows = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    styles = dict(enumerate(islice(cycle(["-", "--", "-.", ":"]), len(curves))))
    marker = "o" if steps <= FEW else ""
    handles = {}
    for axes, panel in zip(rows, panels, strict=True):
        for k in panel:
            (line,) = axes.plot(where, curves[k], styles[k], color=f"C{k}", label=labels[k])
            line.set(marker=marker, markersize=4, linewidth=1.8)
            line.set(clip_on=False, zorder=3)  # over the axes, not cut off there
            handles[k] = line
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.set_ylabel("learning rate")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(1, float(max(steps, 2)))
    axes.set_xlabel("step t")
    ordered = [handles[k] for k in range(len(curves))]
    figure.legend(handles=ordered, loc="outside lower center", fontsize="small")
    figure.savefig(picture, format="png", dpi=150)


def divided(peaks: Sequence[float]) -> list[list[int]]:
    """The curves of each panel: a large one would make a line on the ground of a small one."""
    panels: list[list[int]] = []
    top = 0.0
    for k in sorted(range(len(peaks)), key=lambda k: -peaks[k]):
        if not panels or 0 < peaks[k] < top / APART:
            panels.append([])
            top = peaks[k]
        panels[-1].append(k)
    return panels
