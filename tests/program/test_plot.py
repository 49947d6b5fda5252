"""`fusedstep plot-schedule`: what it reads, prints and draws."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import drawn

from fusedstep.program.errors import DRAWING
from fusedstep.program.main import main
from fusedstep.program.plot import POINTS, divided, read, sampled
from fusedstep.schedules import Schedule, constant, cosine, piecewise, sequence, warmup

READ: list[tuple[str, Schedule]] = [
    ("constant(0.1)", constant(0.1)),
    (" cosine ( 1e-3,\n steps = 10 ) ", cosine(1e-3, 10)),
    ("cosine(lr=1, steps=1_000, end=.5)", cosine(1, 1000, 0.5)),
    ("piecewise((3, 5), [.3, .2, .1,])", piecewise([3, 5], [0.3, 0.2, 0.1])),
    (
        "sequence(schedules=[warmup(1, 2), sequence([constant(2)], [])], steps=[2])",
        sequence([warmup(1, 2), sequence([constant(2)], [])], [2]),
    ),
]


@pytest.mark.parametrize(("text", "rate"), READ)
def test_reads_what_python_would(text: str, rate: Schedule) -> None:
    assert read(text) == rate


MAY = "is none of what may stand there: calls of schedules, lists and numbers"
UNREADABLE = [
    ("", "'' is no expression: invalid syntax"),
    ("cosine(1e-3", "'cosine(1e-3' is no expression: '(' was never closed"),
    ("rate = 3", "is no expression"),
    ("x\0", "null bytes"),
    ("[" * 5000, "nested"),
    ("3", "'3' is 3 (int); pass a schedule, as constant(1e-3)"),
    ("[constant(1)]", "(list); pass a schedule"),
    ("sine(1)", "the schedule 'sine' is unknown; there are constant, piecewise, exponential,"),
    ("__import__('os')", "the schedule '__import__' is unknown"),
    ("().__class__()", f"'().__class__()' {MAY}"),
    ("cosine.__globals__", f"'cosine.__globals__' {MAY}"),
    ("cosine", f"'cosine' {MAY}"),
    ("constant(1 + 1)", f"'1 + 1' {MAY}"),
    ("constant('1')", f"\"'1'\" {MAY}"),
    ("constant(True)", f"'True' {MAY}"),
    ("constant(-True)", f"'True' {MAY}"),
    ("constant(*[1])", f"'*[1]' {MAY}"),
    ("constant(**{})", f"'constant(**{{}})' {MAY}"),
    ("constant(lambda: 1)", MAY),
    ("constant(1j)", f"'1j' {MAY}"),
    ("constant(-1)", "constant: lr=-1 is negative; pass 0 or more"),
    ("constant(1e400)", "constant: lr=inf (float); pass a finite number"),
    ("cosine(1, 10, steps=3)", "cosine: multiple values for argument 'steps'"),
    ("sequence([constant(1), 2], [3])", "sequence: schedules[1]=2 (int)"),
]


@pytest.mark.parametrize(("text", "complaint"), UNREADABLE)
def test_refuses_the_rest_in_one_line(
    text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot-schedule", "constant(1)", text]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fusedstep: error: SCHEDULE ")
    assert captured.err.count("\n") == 1
    assert complaint in captured.err


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "the following arguments are required: SCHEDULE"),
        (["constant(1)", "--steps", "0"], "'0' is not a whole number from 1 on"),
        (["constant(1)", "--picture", "rates.pdf"], "'rates.pdf' is no name of a PNG"),
        (["constant(1)", "--picture", "nowhere/rates.png"], "'nowhere' is no directory"),
    ],
)
def test_unfit_arguments(
    argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["plot-schedule", *argv])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert captured.out == ""


def test_the_plain_package_imports_nothing_that_draws() -> None:
    unwanted = {*DRAWING, "fusedstep.program.plot"}
    code = (
        "import sys, numpy as np, fusedstep as fs\n"
        "o = fs.AdamW(np.ones(3), lr=0.1); o.step(np.ones(3)); o.load_state_dict(o.state_dict())\n"
        f"sys.exit(len(sys.modules.keys() & {unwanted}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.usefixtures("extra")
def test_prints_a_table_and_saves_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    picture = tmp_path / "rates.png"
    texts = ["polynomial(0.4, 4)", "sequence([warmup(2, 2), constant(1)], [2])"]
    assert main(["plot-schedule", *texts, "--steps", "5", "--picture", str(picture)]) == 0

    captured = capsys.readouterr()
    assert captured.err == ""
    assert "\x1b" not in captured.out
    rows = [line.split("│")[1:-1] for line in captured.out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        [texts[0], "0.4", "0.3", "0.2", "0.1", "0"],
        [texts[1], "1", "2", "1", "1", "1"],
    ]
    assert captured.out.endswith(f"{picture}\n")

    png = picture.read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", png[16:24]) == (1200, 735)
    assert 10_000 < len(png) < 1_000_000


@pytest.mark.usefixtures("extra")
def test_draws_every_curve_from_zero_and_names_it_beside_them(tmp_path: Path) -> None:
    from fusedstep.program.plot import draw

    names = ["cosine(0.1, 50)", "constant(0.05)"]
    schedules = [cosine(0.1, 50), constant(0.05)]
    figure = drawn(lambda: draw(names, schedules, 60, tmp_path / "rates.png"))
    (axes,) = figure.axes
    assert axes.get_ylim()[0] == 0
    assert [line.get_label() for line in axes.lines] == names
    rates = cosine(0.1, 50)
    assert [*axes.lines[0].get_ydata()] == [rates(t) for t in range(1, 61)]  # type: ignore[misc]
    assert [*axes.lines[0].get_xdata()] == [*range(1, 61)]  # type: ignore[misc]
    (legend,) = figure.legends
    assert legend.get_window_extent().y1 < axes.get_window_extent().y0


@pytest.mark.usefixtures("extra")
def test_a_large_rate_leaves_the_shape_of_small_ones(tmp_path: Path) -> None:
    from fusedstep.program.plot import draw

    names = ["cosine(1e-3, 60)", "constant(3)", "constant(0.0004)", "constant(0)"]
    schedules = [read(name) for name in names]
    figure = drawn(lambda: draw(names, schedules, 60, tmp_path / "rates.png"))
    large, small = figure.axes
    assert [line.get_label() for line in large.lines] == ["constant(3)"]
    assert {str(line.get_label()) for line in small.lines} == {*names} - {"constant(3)"}
    assert small.get_ylim()[0] == 0
    assert 1e-3 <= small.get_ylim()[1] < 2e-3
    assert large.get_xlim() == small.get_xlim() == (1, 60)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    colours = {line.get_color() for axes in figure.axes for line in axes.lines}
    assert len(colours) == len(names)


@pytest.mark.parametrize(
    ("peaks", "panels"),
    [
        ([1.0], [[0]]),
        ([0.0, 0.0], [[0, 1]]),
        ([1.0, 0.3, 0.2], [[0, 1, 2]]),
        ([0.1, 1.0, 0.001, 0.0], [[1], [0], [2, 3]]),
    ],
)
def test_which_curves_share_a_panel(peaks: list[float], panels: list[list[int]]) -> None:
    assert divided(peaks) == panels


@pytest.mark.usefixtures("extra")
def test_what_cannot_be_drawn_or_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "link.png"
    picture.symlink_to("nowhere/rates.png")
    for steps, complaint in (
        ("1000", f"cannot write {picture}: "),
        (f"{10**400}", "rates or --steps are too large for a picture"),
    ):
        argv = ["plot-schedule", "exponential(1, 0.1)", "--steps", steps]
        assert main([*argv, "--picture", str(picture)]) == 1
        captured = capsys.readouterr()
        assert captured.err.startswith(f"fusedstep: error: {complaint}")
        assert captured.err.count("\n") == 1


def test_sampled() -> None:
    assert sampled(1, 5) == [1]
    assert sampled(3, 5) == [1, 2, 3]
    assert sampled(9, 5) == [1, 3, 5, 7, 9]
    steps = sampled(10**20, POINTS)
    assert (steps[0], steps[-1], len(steps)) == (1, 10**20, POINTS)
