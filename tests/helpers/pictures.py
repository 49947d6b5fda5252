"""Pictures that a function draws, as figures to ask instead of files to look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drawn(draw: Callable[[], object]) -> Figure:
    """The one figure that `draw` saves, laid out, in place of the file."""
    from matplotlib.figure import Figure

    kept: list[Figure] = []

    class Kept(Figure):
        def savefig(self, *args: object, **kwargs: object) -> None:
            kept.append(self)
            self.draw_without_rendering()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure", Kept)
        draw()
    (figure,) = kept
    return figure
