"""The bytes of every way to keep parameters and state: a table, and bars as SVG."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from chart import STYLE
from marked import table

import fusedstep as fs
from fusedstep._core.declaration import declaration_of
from fusedstep._core.footprint import WAYS, Footprint, Way, footprint

SHAPE = (4096, 4096)
"""The shape of the one tensor whose bytes are told."""

PARTS = {
    "parameters": ("parameters", "#4c78a8"),
    "masters": ("bits that they lack, or a copy", "#72b7b2"),
    "state": ("state", "#f58518"),
    "gradients": ("gradients", "#bab0ac"),
}
"""The parts of a bar, from the left: the name and the colour of each."""

LEFT, ROW, HEIGHT, SCALE, TOP = 356, 28, 20, 24, 84
"""Pixels: where bars begin, from one to the next, of one, of a byte, above the first."""


def found() -> dict[Way, Footprint]:
    """The bytes of AdamW, by the way they are kept."""
    declaration = declaration_of(fs.AdamW)
    return {way: footprint(declaration, declaration.defaults, [SHAPE], way) for way in WAYS}


def each(count: int) -> float:
    """Bytes for each parameter."""
    return count / (SHAPE[0] * SHAPE[1])


def bytes_of_ways() -> str:
    """The table of bytes for each parameter."""
    return table(
        ["parameters", "state", "kept", "with gradients", "a step moves"],
        [
            [
                f"`{way.parameters}`",
                f"`{way.state_dtype}`",
                f"{each(bytes_.kept):.4g}",
                f"{each(bytes_.total):.4g}",
                f"{each(bytes_.traffic):.3g}",
            ]
            for way, bytes_ in found().items()
        ],
        numbers=2,
    )


def picture() -> str:
    """The bars."""
    ways = found()
    height = TOP + ROW * len(ways) + 12
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {height}" role="img">',
            "<title>Bytes for each parameter of AdamW</title>",
            f"<style>\n{STYLE}\n</style>",
            f'<rect class="ground" x="0.5" y="0.5" width="859" height="{height - 1}" rx="6"/>',
            '<text class="title" x="20" y="32">Bytes for each parameter of AdamW</text>',
            *_legend(),
            *(line for row, item in enumerate(ways.items()) for line in _bar(row, *item)),
            "</svg>",
            "",
        ]
    )


def _legend() -> Iterator[str]:
    x = 20
    for name, colour in PARTS.values():
        yield f'<rect x="{x}" y="49" width="12" height="12" fill="{colour}"/>'
        yield f'<text class="axis" x="{x + 18}" y="60">{escape(name)}</text>'
        x += 18 + 8 * len(name) + 22


def _bar(row: int, way: Way, sizes: Footprint) -> Iterator[str]:
    y = TOP + ROW * row
    name = escape(f"{way.parameters}; {way.state_dtype} state")
    yield f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{name}</text>'
    x = float(LEFT)
    for part, (_, colour) in PARTS.items():
        width = SCALE * each(getattr(sizes, part))
        if width:
            yield (
                f'<rect x="{x:g}" y="{y}" width="{width:.4g}" height="{HEIGHT}" fill="{colour}"/>'
            )
        x = round(x + width, 2)
    yield f'<text class="axis" x="{x + 8:g}" y="{y + 15}">{each(sizes.total):.3g}</text>'
