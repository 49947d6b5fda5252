"""The picture of `fusedstep bench`."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pictures import drawn
from runs import LOOP, TIMES, WHOLE, record, run_of

from fusedstep.benchmarks.records import LIMIT, Results
from fusedstep.benchmarks.units import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        *((1.234, "123%"), (0.1234, "12%"), (0.0995, "10%"), (0.0994, "9.9%"), (0.05, "5.0%")),
        *((0.004, "0.40%"), (0.0001234, "0.012%")),
    ],
)
def test_shares_have_two_digits(share: float, shown: str) -> None:
    assert percent(share) == shown


def picture_of(results: Results, path: Path) -> Figure:
    from fusedstep.benchmarks.picture import draw

    return drawn(lambda: draw(results, path))


def bars(axes: Axes) -> list[Rectangle]:
    from matplotlib.patches import Rectangle

    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


@pytest.mark.usefixtures("extra")
def test_picture_is_a_png(tmp_path: Path) -> None:
    from fusedstep.benchmarks.picture import draw

    draw(WHOLE, tmp_path / "bench.png")
    png = (tmp_path / "bench.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", png[16:24]) == (1485, 715)
    assert 10_000 < len(png) < 1_000_000


@pytest.mark.usefixtures("extra")
def test_picture_shows_every_contestant_once_and_the_limit_and_the_caches(tmp_path: Path) -> None:
    from matplotlib.colors import to_hex

    figure = picture_of(WHOLE, tmp_path / "bench.png")
    left, right = figure.axes
    lines = {line.get_label(): line for line in left.lines}
    assert [*lines][: len(TIMES)] == ["fusedstep", LIMIT, "optax", "NumPy"]
    for name, seconds in TIMES.items():
        assert [*lines[name].get_xdata()] == [1000, 100_000, 10_000_000]  # type: ignore[misc]
        speed = 28e3 / seconds / 1e9
        assert [*lines[name].get_ydata()] == pytest.approx([speed] * 3)  # type: ignore[misc]
    assert lines["fusedstep"].get_linewidth() == max(line.get_linewidth() for line in left.lines)
    assert (left.get_ylabel(), left.get_xlabel()) == ("GB/s", "elements")

    # Two threads hold 64 KiB, 2 MiB and, together, 32 MiB of 16 bytes an element.
    ends = [line.get_xdata()[0] for line in left.lines[len(TIMES) :]]  # type: ignore[index]
    assert ends == [4096, 131_072, 2_097_152]
    assert texts(left) == ["L1", "L2", "L3", "memory"]
    assert [text.get_position()[0] for text in left.texts] == sorted(
        text.get_position()[0] for text in left.texts
    )

    names = ["fusedstep arena", LIMIT, "optax", "NumPy", LIMIT, "NumPy"]
    words = ["arena 0.50 ×", "limit 0.80 ×", "5.00 ×", "20.0 ×", "limit 0.80 ×", "20.0 ×"]
    assert texts(right) == [*words, "fusedstep"]
    ends = [bar.get_x() + bar.get_width() for bar in bars(right)]
    assert ends == pytest.approx([0.5, 0.8, 5, 20, 0.8, 20])
    labels = [label.get_text() for label in right.get_yticklabels()]
    assert labels == ["1,000 × 1,000\n1.00 ms", "1 × 100,000\nbetween NumPy\nproducts\n100 µs"]

    body, foot = figure.subfigs
    (legend,) = body.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == sorted({*TIMES, *names})
    for bar, name in zip(bars(right), names, strict=True):
        if name in lines:
            assert to_hex(bar.get_facecolor()) == to_hex(lines[name].get_color())
    (note,) = foot.texts
    assert "Abacus 3" in note.get_text()


@pytest.mark.usefixtures("extra")
def test_a_contestant_that_is_as_fast_is_seen(tmp_path: Path) -> None:
    """A bar without width would lie below the line at 1."""
    results = run_of(record("1,000 × 1,000"), record("1,000 × 1,000", "NumPy", seconds=1e-3))
    _, right = picture_of(results, tmp_path / "bench.png").axes
    (bar,) = bars(right)
    assert bar.get_width() == 0
    point, line = right.lines
    assert ([*point.get_xdata()], [*line.get_xdata()]) == ([1], [1, 1])  # type: ignore[misc]
    assert point.get_color() == bar.get_facecolor() or point.get_color() == "#888888"
    assert point.get_zorder() > line.get_zorder()
    assert point.get_markersize() > line.get_linewidth()


@pytest.mark.usefixtures("extra")
def test_the_picture_names_who_was_left_out_and_why(tmp_path: Path) -> None:
    missing = {
        "optax at 1 × 10": "too slow",
        "torch fused": "no torch",
        "torch foreach": "no torch",
    }
    many = {f"contestant {k}": "they are too many" for k in range(60)}
    for absent in (missing, {**missing, **many}):
        figure = picture_of(WHOLE._replace(missing=absent), tmp_path / "bench.png")
        _, foot = figure.subfigs
        (note,) = foot.texts
        lines = note.get_text().splitlines()
        assert "left out, no torch: torch fused; torch foreach" in lines
        assert "left out, too slow: optax at 1 × 10" in lines
        box = note.get_window_extent()
        width, _ = figure.get_size_inches() * figure.dpi
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width


LOOPS = run_of(
    *(
        record(workload, name, **{**LOOP, "loop": loop})
        for workload in ("1 × 100,000", "1 × 1,000,000", "1 × 8,000,000")
        for loop in ("numpy", "torch")
        for name in ("fusedstep", "fusedstep, one thread", "NumPy")
    )
)
"""Long names beside single bars, and no curve."""

NARROW = run_of(
    record("1,000 × 1,000"), record("1,000 × 1,000", LIMIT), record("1,000 × 1,000", "NumPy")
)
"""Less than a power of ten along the axes."""


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize("results", [WHOLE, LOOPS, NARROW], ids=["whole", "loops", "narrow"])
def test_no_words_of_the_picture_overlap(results: Results, tmp_path: Path) -> None:
    figure = picture_of(results, tmp_path / "bench.png")
    body, foot = figure.subfigs
    left, right = figure.axes
    first, last = left.get_xlim()
    ticks = zip(left.get_xticks(), left.get_xticklabels(), strict=True)
    words = [label for at, label in ticks if first <= at <= last]
    first, last = right.get_xlim()
    ticks = zip(right.get_xticks(), right.get_xticklabels(), strict=True)
    words += [label for at, label in ticks if first <= at <= last]
    words += right.get_xticklabels(minor=True)
    words += [*left.texts, *right.texts, *foot.texts, *right.get_yticklabels()]
    words += body.legends[0].get_texts()
    boxes = [word.get_window_extent() for word in words if word.get_text()]
    overlapping = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert overlapping == []
    width, height = figure.get_size_inches() * figure.dpi
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize(
    "results",
    [
        run_of(record()),
        run_of(record("1,000 × 1,000"), caches={}),
        run_of(record(), record("1,000 × 1,000"), record("1,000 × 1,000", "NumPy")),
    ],
)
def test_pictures_of_little(results: Results, tmp_path: Path) -> None:
    from fusedstep.benchmarks.picture import draw

    draw(results, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 10_000
