"""A line chart as SVG, legible in light and in dark, without a drawing library.

Both axes are logarithmic. What is written depends on the data alone, so that a chart can be held
against its data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

WIDTH, HEIGHT = 860, 440
LEFT, RIGHT, TOP, BOTTOM = 72, 806, 84, 388
"""The panel's edges, in pixels."""

LETTER = 8.4
"""The width of a letter, about."""

STYLE = """\
text { font: 14px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 }
.axis { fill: #59636e; font-size: 13px }
.ground { fill: #ffffff; stroke: #d1d9e0 }
.grid { stroke: #d1d9e0 }
.line { fill: none; stroke-linejoin: round }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .axis { fill: #9198a1 }
  .ground { fill: #161b22; stroke: #3d444d }
  .grid { stroke: #30363d }
  .plain { stroke: #e6edf3 }
}"""


class Look(NamedTuple):
    """How a curve is drawn."""

    colour: str
    width: float = 2.0
    dash: str = ""
    plain: bool = False
    """Black in light and white in dark."""


class Axis(NamedTuple):
    """A logarithmic axis from `low` to `high`, between two edges of the panel."""

    low: float
    high: float
    first: int
    last: int

    def at(self, value: float) -> float:
        share = (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return self.first + share * (self.last - self.first)

    def powers(self) -> list[float]:
        """The powers of ten along the axis."""
        return [10.0**k for k in range(ceil(log10(self.low)), floor(log10(self.high)) + 1)]


Points = Sequence[tuple[float, float]]


def svg(
    title: str, x_title: str, y_title: str, curves: dict[str, Points], looks: Mapping[str, Look]
) -> str:
    """The chart of the curves, of which later ones lie above earlier ones."""
    xs = [x for points in curves.values() for x, _ in points]
    ys = [y for points in curves.values() for _, y in points]
    x = Axis(min(xs) / 1.3, max(xs) * 1.3, LEFT, RIGHT)
    y = Axis(min(ys) / 1.4, max(ys) * 1.4, BOTTOM, TOP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="ground" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>',
        f'<text class="title" x="24" y="32">{escape(title)}</text>',
        *legend(curves, looks),
        *grid(x, y),
        f'<text class="axis" x="{(LEFT + RIGHT) / 2:g}" y="{HEIGHT - 14}" '
        f'text-anchor="middle">{escape(x_title)}</text>',
        f'<text class="axis" transform="translate(22 {(TOP + BOTTOM) / 2:g}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_title)}</text>',
    ]
    for name, points in curves.items():
        lines += curve([(x.at(a), y.at(b)) for a, b in points], looks[name])
    return "\n".join([*lines, "</svg>", ""])


def legend(curves: dict[str, Points], looks: Mapping[str, Look]) -> Iterator[str]:
    """The names in one row, the front curve first, each behind a piece of its line."""
    at = 24.0
    for name in reversed(curves):
        yield from stroke(f"M{at:.1f} 57h20", looks[name])
        yield f'<text x="{at + 26:.1f}" y="62">{escape(name)}</text>'
        letters = len(name) + sum(letter.isupper() for letter in name) / 4
        at += 26 + LETTER * letters + 12


def grid(x: Axis, y: Axis) -> Iterator[str]:
    """Lines at the powers of ten, with their numbers."""
    for value in x.powers():
        at = x.at(value)
        yield f'<path class="grid" d="M{at:.1f} {TOP}V{BOTTOM}"/>'
        yield (
            f'<text class="axis" x="{at:.1f}" y="{BOTTOM + 19}" text-anchor="middle">'
            f"{value:,.0f}</text>"
        )
    for value in y.powers():
        at = y.at(value)
        yield f'<path class="grid" d="M{LEFT} {at:.1f}H{RIGHT}"/>'
        yield (
            f'<text class="axis" x="{LEFT - 8}" y="{at + 4.5:.1f}" text-anchor="end">{value:g}'
            "</text>"
        )


def curve(points: Points, look: Look) -> Iterator[str]:
    """A line through the points, with a dot at each unless it is dashed."""
    yield from stroke("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points), look)
    if not look.dash:
        for a, b in points:
            yield f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{look.width + 1:g}" fill="{look.colour}"/>'


def stroke(path: str, look: Look) -> Iterator[str]:
    dash = f' stroke-dasharray="{look.dash}"' if look.dash else ""
    kind = "line plain" if look.plain else "line"
    yield (
        f'<path class="{kind}" d="{path}" stroke="{look.colour}" '
        f'stroke-width="{look.width:g}"{dash}/>'
    )
