"""Results as one picture: throughput over the size of a tensor, and bars for other workloads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from fusedstep.benchmarks.records import LIMIT, OURS, Machine, Record, Results
from fusedstep.benchmarks.tables import describe, grouped, heading, reasons, variant
from fusedstep.benchmarks.units import duration, factor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import SubFigure

COLOURS = {
    OURS: "#D55E00",
    "fusedstep arena": "#F2A06B",
    "fusedstep, new arrays": "#7A3600",
    "fusedstep, one thread": "#B8734D",
    LIMIT: "#000000",
    "torch fused": "#0072B2",
    "torch foreach": "#56B4E9",
    "optax": "#009E73",
    "DeepSpeed CPUAdam": "#CC79A7",
    "NumPy": "#888888",
}
"""The palette of Okabe and Ito, for colour-blind readers, too; ours are shades of one colour."""

SPARE = ["#E69F00", "#F0E442"]
"""Colours of all other contestants."""

MARKERS = "sD^vPX"
"""Markers of all curves but ours and the limit's."""

MOST = 8
"""Entries in a row of the legend."""

WIDTH = 13.5
"""Width of the picture, in inches."""

BAR = 0.19
"""Height of a bar, in inches."""

NOTE = 0.2
"""Height of a line at the foot, in inches."""

LETTERS = 190
"""Letters of a line at the foot."""

END: dict[str, Any] = {"markersize": 6, "markeredgecolor": "white", "zorder": 4}
"""Style of the point at the end of a bar, before the line at 1."""

FEW_DECADES = 30.0
"""Ratio of an axis' ends up to which it has numbers between the powers of ten, too."""

GAP = 0.9
"""Gap between the bars of two workloads, in bars."""


def draw(results: Results, picture: Path) -> None:
    """Save the picture as a PNG."""
    from matplotlib.figure import Figure

    groups = grouped(results.records)
    points = [group for group in groups if is_point(group)]
    lists = [group for group in groups if not is_point(group) and OURS in group]
    colours = palette(results.records)
    notes = [*describe(results.machine), *left_out(results)]
    below = 0.15 + NOTE * len(notes)
    height = max(6.5, 1.95 + below + BAR * sum(rows(group) + GAP for group in lists))
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[height - below, below])
    body, foot = parts
    left, right = body.subplots(1, 2, width_ratios=[1, 0.9])
    curves(left, points, colours, results.machine)
    bars(right, lists, colours)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    body.suptitle(heading(results), fontsize="xx-large", fontweight="bold")
    legend(body, [left, right])
    style: Any = {"ha": "center", "va": "center", "fontsize": "small", "color": "#555555"}
    foot.text(0.5, 0.55, "\n".join(notes), **style)
    figure.savefig(picture, format="png", dpi=110)


def left_out(results: Results) -> Iterator[str]:
    """The lines that name the contestants without a bar or a curve, and say why."""
    for reason, names in reasons(results.missing).items():
        yield from wrap(f"left out, {reason}: {'; '.join(names)}", LETTERS)


def is_point(group: dict[str, Record]) -> bool:
    """Whether the records are points of the curves over size."""
    record = next(iter(group.values()))
    return record.tensors == 1 and record.loop == "alone"


def palette(records: Sequence[Record]) -> dict[str, str]:
    """The colour of each contestant that took part; known ones have the same in every picture."""
    there = dict.fromkeys(record.contestant for record in records)
    known = {name: colour for name, colour in COLOURS.items() if name in there}
    return known | dict(zip([name for name in there if name not in known], cycle(SPARE)))


def curves(
    axes: Axes, groups: list[dict[str, Record]], colours: dict[str, str], machine: Machine
) -> None:
    """Draw the throughput over the size of a tensor, with the limit and the ends of the caches."""
    axes.set_title("Throughput of one tensor: higher is better", loc="left", pad=22)
    axes.set(xscale="log", yscale="log", xlabel="elements", ylabel="GB/s")
    markers = iter(MARKERS * len(colours))
    for name, colour in colours.items():
        here = [group[name] for group in groups if name in group]
        here.sort(key=lambda record: record.elements)
        marker = next(markers) if name not in (OURS, LIMIT) else "o"
        style: dict[str, Any] = {"linewidth": 1.5, "marker": marker, "markersize": 6, "zorder": 3.0}
        if name == LIMIT:
            style |= {"linestyle": "--", "marker": "", "zorder": 4.0}
        elif name == OURS:
            style |= {"linewidth": 3.5, "markersize": 9, "zorder": 5.0}
        if here:
            x, y = [record.elements for record in here], [record.speed for record in here]
            axes.plot(x, y, color=colour, label=name, **style)
    plain(axes.xaxis, ",.0f")
    plain(axes.yaxis)
    axes.grid(alpha=0.25)
    if groups:
        caches(axes, next(iter(groups[0].values())), machine)


def plain(axis: Axis, digits: str = "g") -> None:
    """Number a logarithmic axis without exponents, and within a decade if it has few of them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    first, last = axis.get_view_interval()
    if last / first < FEW_DECADES:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(f"{{x:{digits}}}")
    axis.set_minor_formatter(NullFormatter())


def caches(axes: Axes, record: Record, machine: Machine) -> None:
    """Mark up to how many elements the arrays of a step fit into each cache."""
    held = (record.bytes + np.dtype(record.dtype).itemsize) / 2  # all but the gradient move twice
    first, last = axes.get_xlim()
    ends = {
        name: size * (1 if name == "L3" else record.threads) / held
        for name, size in machine.caches.items()
    }
    start = first
    for name, end in [*ends.items(), ("memory", last)]:
        if first < end < last:
            axes.axvline(end, color="#888888", linewidth=0.8, zorder=1)
        end = min(end, last)
        if end > start:
            above(axes, (start * end) ** 0.5, name, color="#666666")
            start = end
    axes.set_xlim(first, last)


def above(axes: Axes, x: float, text: str, color: str) -> None:
    """Write a text above the panel, at `x`."""
    axes.text(
        x,
        1.01,
        text,
        transform=axes.get_xaxis_transform(),
        ha="center",
        va="bottom",
        fontsize="small",
        color=color,
    )


def against(group: dict[str, Record]) -> list[str]:
    """Names of the contestants that have bars, in the order of the legend."""
    return [name for name in palette([*group.values()]) if name != OURS]


def beside(name: str) -> list[str]:
    """The word beside a bar of ours or of the limit, which may be too short to show its colour."""
    return [variant(name)] if name.startswith((OURS, LIMIT)) else []


def title(group: dict[str, Record]) -> list[str]:
    """The lines beside a workload's bars."""
    return [*wrap(group[OURS].label, 18), duration(group[OURS].seconds)]


def rows(group: dict[str, Record]) -> int:
    """Height of a workload's bars and lines, in bars."""
    return max(len(against(group)), len(title(group)))


def bars(axes: Axes, groups: list[dict[str, Record]], colours: dict[str, str]) -> None:
    """Draw the time of other contestants over ours, on either side of 1."""
    axes.set_title(f"Time of a step over {OURS}'s: lower is better", loc="left", pad=22)
    axes.set(xscale="log", xlabel=f"times as long as {OURS}")
    y = 0.0
    ticks, labels, ratios = [], [], [1.0]
    for group in groups:
        names = against(group)
        ticks.append(y + (rows(group) - 1) / 2)
        labels.append("\n".join(title(group)))
        for place, name in enumerate(names, start=1):
            at = ticks[-1] - (len(names) + 1) / 2 + place
            ratio = group[name].seconds / group[OURS].seconds
            axes.barh(at, ratio - 1, left=1, height=0.86, color=colours[name], label=name)
            axes.plot(ratio, at, "o", color=colours[name], **END)  # all there is of a bar at 1
            axes.annotate(
                " ".join([*beside(name), factor(ratio)]),
                (ratio, at),
                xytext=(6 if ratio >= 1 else -6, 0),
                textcoords="offset points",
                ha="left" if ratio >= 1 else "right",
                va="center",
                fontsize="small",
            )
            ratios.append(ratio)
        y += rows(group) + GAP
    axes.axvline(1, color=colours[OURS], linewidth=3.5)
    above(axes, 1, OURS, color=colours[OURS])
    axes.set_yticks(ticks, labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(y, 1) - GAP, -1)
    least, most = min(ratios), max(ratios)
    span = max(most / least, 2.0)
    axes.set_xlim(least / span ** (0.3 if least < 1 else 0.05), most * span**0.25)
    plain(axes.xaxis)
    axes.grid(axis="x", alpha=0.25)


def legend(figure: SubFigure, panels: Iterable[Axes]) -> None:
    """Name each contestant once, below both panels."""
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    if handles:
        figure.legend(
            [*handles.values()],
            [*handles],
            loc="outside lower center",
            ncols=min(len(handles), MOST),
            frameon=False,
        )
