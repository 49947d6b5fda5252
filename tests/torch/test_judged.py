"""Steps that are clipped where their gradients are, by a table that does so without a device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import Any

import pytest
from marks import needs

torch = needs("torch", "torch")

from torch_cases import ALL, draw, ours, parameters, same_bits  # noqa: E402

from fusedstep._arrays.at_once import Call  # noqa: E402
from fusedstep._backends import choose  # noqa: E402
from fusedstep._backends import numpy as of_numpy  # noqa: E402
from fusedstep._backends.plan import Asked, Line  # noqa: E402


class Answer:
    """A verdict that says when it is read."""

    lasts = True
    unfit = ()
    skipped = False

    def __init__(self, norm: float, clip: float, taken: int) -> None:
        self.norm, self.clip, self.taken = norm, clip, taken
        self.reads = 0

    def read(self) -> Answer:
        self.reads += 1
        return self


class Judging(of_numpy.Table):
    """The reference, which judges a step as a device does."""

    judges = True
    answers: list[Answer] = []  # noqa: RUF012  of the test that runs

    def judging(
        self, lines: Sequence[Line], asked: Asked, zero: bool
    ) -> tuple[Sequence[Call], Any]:
        ((scalars, keys),) = lines
        assert not asked.skips
        most = inf if asked.each else asked.max_norm
        measured = self.measure(asked.scale, most)
        clip = self.clip_each(asked.scale, asked.max_norm) if asked.each else measured.clip
        self.keys[:] = keys
        for _, values in scalars:
            values["clip"] = 1.0 if asked.each else clip
        answer = Answer(measured.norm, clip, self.steps[0] + 1)
        self.answers.append(answer)
        return self.calls(scalars, zero, asked.each), answer


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Answer]]:
    """The verdicts on the steps of optimizers with `backend="numpy"`."""
    monkeypatch.setitem(choose.TABLES, "numpy", lambda: Judging)
    Judging.answers.clear()
    yield Judging.answers
    Judging.answers.clear()


@pytest.mark.parametrize("options", [{}, {"clip": "tensor"}, {"max_value": 0.1}], ids=str)
@pytest.mark.parametrize("name", ALL)
def test_nobody_waits_for_the_norm(
    name: str, options: dict[str, Any], answers: list[Answer]
) -> None:
    """The bits, the counts and the reports are those of steps that are looked at on the host."""
    params, expected = parameters(torch.float32), parameters(torch.float32)
    optimizer = ours(name)(params, max_norm=0.5, backend="numpy", **options)
    reference = ours(name)(expected, max_norm=0.5, backend="numba", **options)
    reports = []
    for step in range(5):
        for own in (params, expected):
            for p, g in zip(own, draw(own, step), strict=True):
                p.grad = g
        optimizer.step()
        reference.step()
        assert not any(each.reads for each in answers)
        reports.append((optimizer.report, reference.report))
        assert same_bits(params, expected)
        for p, q in zip(params, expected, strict=True):
            found, wanted = optimizer.state[p], reference.state[q]
            assert found.keys() == wanted.keys()
            assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert len(answers) == 5
    assert all(found == wanted for found, wanted in reports)


def test_who_skips_looks_first(answers: list[Answer]) -> None:
    """A step that may be left out is judged on the host: its count lies there."""
    params = parameters(torch.float32)
    optimizer = ours("Adam")(params, max_norm=0.5, nonfinite="skip", backend="numpy")
    for p, g in zip(params, draw(params, 0), strict=True):
        p.grad = g * torch.nan
    optimizer.step()
    assert optimizer.report.skipped
    assert not answers
