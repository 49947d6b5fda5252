"""`fusedstep demo`: it trains with the bits of textbook rules."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from functools import partial
from operator import mul
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marks import needs
from pictures import drawn

import fusedstep as fs
from fusedstep.program.errors import EXTRA
from fusedstep.program.main import main


@pytest.fixture
def extra() -> None:
    for name in EXTRA:
        needs(name, "demo")


@pytest.mark.usefixtures("extra")
def test_demo_prints_a_row_for_each_optimizer_and_saves_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fusedstep.program.demo import CONTESTANTS

    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    picture = tmp_path / "losses.png"
    assert main(["demo", "--epochs", "1", "--picture", str(picture)]) == 0

    captured = capsys.readouterr()
    assert captured.err == ""
    assert "\x1b" not in captured.out
    rows = [line.split("│")[1:-1] for line in captured.out.splitlines() if line.startswith("│")]
    assert [row[0].strip() for row in rows] == [contestant.name for contestant in CONTESTANTS]
    assert [row[-1].strip() for row in rows] == ["yes"] * len(CONTESTANTS)
    assert f"The losses are drawn in {picture}\n" in captured.out
    assert re.search(r"\nDigest of all that was trained: [0-9a-f]{64}\n$", captured.out)

    png = picture.read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", png[16:24]) == (1200, 750)
    assert 10_000 < len(png) < 1_000_000


@pytest.mark.usefixtures("extra")
def test_unwritable_picture_costs_only_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "link.png"
    picture.symlink_to("nowhere/losses.png")
    assert main(["demo", "--epochs", "1", "--picture", str(picture)]) == 1
    captured = capsys.readouterr()
    assert "AdamW" in captured.out
    assert captured.err.startswith(f"fusedstep: error: cannot write {picture}: ")
    assert captured.err.count("\n") == 1


@pytest.mark.usefixtures("extra")
def test_every_optimizer_learns_with_the_bits_of_its_textbook_rule() -> None:
    from fusedstep.program.demo import CONTESTANTS, compare

    results = compare(epochs=3, seed=0)
    assert [result.name for result in results] == [contestant.name for contestant in CONTESTANTS]
    for result in results:
        assert result.same_bits, result
        assert result.accuracy > 0.8, result
        assert len(result.losses) == len(result.batches) == 3
        assert result.losses[-1] < result.losses[0] / 2, result
        assert result.fused > 0
        assert result.ratio == result.textbook / result.fused


def test_few_epochs_have_several_points_each() -> None:
    from fusedstep.program.demo import POINTS, course

    losses = [float(k) for k in range(44)]
    for epochs in (1, 2, 3, 7, POINTS, 25):
        where, means = course([losses] * epochs)
        assert len(where) == len(means) >= POINTS
        assert len(where) % epochs == 0
        assert where[-1] == epochs
        assert where == pytest.approx([k * epochs / len(where) for k in range(1, len(where) + 1)])
    assert course([losses] * 25) == ([*range(1, 26)], [21.5] * 25)
    assert course([losses])[1][:2] == [2.0, 7.0]  # of five batches each


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize("epochs", [1, 2, 12])
def test_the_chart_has_curves_and_numbers_on_both_axes(epochs: int, tmp_path: Path) -> None:
    from fusedstep.program.demo import CONTESTANTS, Result, draw

    batches = [[2.0 * 0.9 ** (20 * epoch + k) for k in range(20)] for epoch in range(epochs)]
    results = [
        Result(each.name, [], batches, 0.9, 1e-6, 2e-6, same_bits=True, digest="0" * 64)
        for each in CONTESTANTS
    ]
    (axes,) = drawn(lambda: draw(results, tmp_path / "losses.png")).axes
    assert len(axes.lines) == len(CONTESTANTS)
    assert all(len(line.get_xydata()) >= 10 for line in axes.lines)  # type: ignore[arg-type]
    for axis in (axes.xaxis, axes.yaxis):
        first, last = sorted(axis.get_view_interval())
        assert len([at for at in axis.get_majorticklocs() if first <= at <= last]) >= 3
    if epochs == 12:
        assert all(at == int(at) for at in axes.get_xticks())


@pytest.mark.usefixtures("extra")
def test_another_rule_has_other_bits() -> None:
    from fusedstep.benchmarks.textbook import momentum
    from fusedstep.program.demo import Contestant, compete, read_digits

    contestant = Contestant("SGD", 0.1, fs.SGD, momentum, {})
    assert not compete(contestant, read_digits(0), epochs=1, seed=0).same_bits


def test_gradients_are_those_of_the_loss() -> None:
    from fusedstep.program.demo import LAYERS, backward, initial

    rng = np.random.default_rng(0)
    params: dict[str, Any] = {k: p.astype(np.float64) for k, p in initial(rng).items()}
    x: Any = rng.random((5, LAYERS[0]))
    y: Any = np.eye(LAYERS[-1])[rng.integers(0, LAYERS[-1], 5)]
    _, grads = backward(params, x, y)
    assert grads.keys() == params.keys()
    for k, p in params.items():
        assert grads[k].shape == p.shape
        direction = rng.standard_normal(p.shape)
        # Far apart, because numbers are rounded to 22 bits.
        ahead, _ = backward({**params, k: p + 1e-4 * direction}, x, y)
        behind, _ = backward({**params, k: p - 1e-4 * direction}, x, y)
        assert (ahead - behind) / 2e-4 == pytest.approx((grads[k] * direction).sum(), rel=0.01)


@pytest.mark.usefixtures("extra")
def test_the_arithmetic_is_exact_whatever_the_order() -> None:
    from fusedstep.program.exact import coarse, dot, exp, softmax, total

    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((33, 128)), rng.standard_normal((128, 40)) * 1e-20
    by_fractions = [
        [float(sum(map(mul, row, column))) for column in zip(*fractions(coarse(b)), strict=True)]
        for row in fractions(coarse(a))
    ]
    assert dot(a, b).tolist() == by_fractions
    order = rng.permutation(128)
    assert (dot(a[:, order], b[order]) == dot(a, b)).all()
    assert np.abs(coarse(a) - a).max() <= np.abs(a).max() * 2.0**-22
    assert (total(a[::-1]) == total(a)).all()
    assert coarse(np.zeros((2, 3))).tolist() == [[0, 0, 0]] * 2
    x = -rng.random((50, 10)) * 30
    assert exp(x) == pytest.approx(np.exp(x), rel=1e-15)
    assert exp(np.array([0.0, -1e4]))[0] == 1
    assert softmax(x).sum(axis=1) == pytest.approx(np.ones(50))


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize("name", ["Nesterov", "RMSprop", "AdamW"])
def test_digests_are_the_same_on_every_backend(name: str) -> None:
    from fusedstep.program.demo import CONTESTANTS, compete, read_digits

    contestant = next(each for each in CONTESTANTS if each.name == name)
    found = set()
    for backend in ("numpy", "numba", "c", "auto"):
        if fs.info().backends.get(backend) is None:
            optimizer = partial(contestant.optimizer, backend=backend)
            row = contestant._replace(optimizer=optimizer)
            found.add(compete(row, read_digits(0), epochs=1, seed=0).digest)
    assert len(found) == 1


def fractions(a: Any) -> list[list[Fraction]]:
    return [[Fraction(each) for each in row] for row in a.tolist()]


@pytest.mark.usefixtures("extra")
def test_the_demo_has_the_digest_of_the_readme(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = Path(__file__).parent.parent.parent / "README.md"
    (known,) = re.findall(r"`([0-9a-f]{64})`", readme.read_text("utf-8"))
    assert main(["demo", "--picture", str(tmp_path / "losses.png")]) == 0
    assert f"Digest of all that was trained: {known}\n" in capsys.readouterr().out
