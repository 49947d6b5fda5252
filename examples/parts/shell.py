"""The options that every example has, and tables for the terminal."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from pathlib import Path


def options(text: str | None, argv: Sequence[str] | None, picture: str, **counts: int) -> Namespace:
    """Read `--picture`, `--seed` and an option for each count, which has its default."""
    parser = ArgumentParser(description=text, formatter_class=RawDescriptionHelpFormatter)
    default = "(default: %(default)s)"
    parser.add_argument(
        "--picture", type=Path, default=Path(picture), help=f"where to save the PNG {default}"
    )
    parser.add_argument("--seed", type=int, default=0, help=f"seed of random numbers {default}")
    for name, count in counts.items():
        parser.add_argument(
            f"--{name}", type=int, default=count, help=f"number of {name} {default}"
        )
    return parser.parse_args(argv)


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print the rows under their headings: the first column to the left, the rest to the right."""
    cells = [[*headings], *([text(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for row in cells:
        first, *rest = (
            f"{cell:>{width}}" if k else f"{cell:<{width}}"
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(["", first, *rest]).rstrip())


def text(cell: object) -> str:
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
