"""One look for all pictures: a method has the same colour and marker in each."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The palette of Okabe and Ito, for colour-blind readers, too; its yellow is too pale for lines
# on white.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, RED, PINK, GREY = "#0072B2", "#D55E00", "#CC79A7", "#808080"
COLOURS = [BLUE, RED, GREEN, ORANGE, PINK, SKY, BLACK, GREY]


class Look(NamedTuple):
    color: str
    marker: str

    def line(self, every: int | list[int] = 1, **further: Any) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot`; `every` is its `markevery`."""
        look = {"color": self.color, "marker": self.marker, "markevery": every}
        return {**look, "markersize": 4.5, "linewidth": 1.4, **further}


LOOKS = {
    "SGD": Look(BLACK, "o"),
    "momentum": Look(BLUE, "s"),
    "Nesterov": Look(SKY, "D"),
    "AdaGrad": Look(GREEN, "^"),
    "RMSprop": Look(ORANGE, "v"),
    "Adam": Look(RED, "P"),
    "AdamW": Look(PINK, "X"),
    "Lion": Look(GREY, "*"),
    "Newton": Look(GREY, "*"),
}


def sheet(rows: int, columns: int, width: float = 10, height: float = 4) -> tuple[Figure, Any]:
    """An empty picture, and its axes as an array of rows and columns."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def contours(axes: Axes, x: Any, y: Any, values: Any, levels: Any) -> None:
    """Level lines, pale enough for any path."""
    axes.contour(x, y, values, levels=levels, colors="0.82", linewidths=0.9)
    axes.grid(visible=False)
    axes.set(xlim=(x.min(), x.max()), ylim=(y.min(), y.max()))


def save(figure: Figure, picture: Path) -> None:
    """Save a PNG of 256 colours, a third of the size of one with millions."""
    from PIL import Image

    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    Image.open(buffer).convert("RGB").quantize(256, kmeans=1).save(
        picture, format="png", optimize=True
    )
    print(f"\npicture: {picture}")
