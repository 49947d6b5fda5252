"""Steps that are clipped where their gradients are, by a table that does so without a device."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import partial
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


class Count(list[int]):
    """A count of steps that may still have to learn whether some were taken."""

    def __init__(self) -> None:
        super().__init__([0])
        self.pending: list[Answer] = []

    @property
    def known(self) -> int:
        return list.__getitem__(self, 0)

    def __getitem__(self, at: Any) -> Any:
        for answer in self.pending:
            self[0] = answer.read().taken
        self.pending.clear()
        return super().__getitem__(at)


class Judging(of_numpy.Table):
    """The reference, which judges a step as a device does, and tells nobody who does not ask."""

    judges = True
    answers: list[Answer] = []  # noqa: RUF012  of the test that runs

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.steps: Any = Count()

    @property
    def known_steps(self) -> int:
        return int(self.steps.known)

    def uncertain(self) -> int:
        return len(self.steps.pending)

    def leaving(self) -> Sequence[Call]:
        return self.cells.writing()

    def judging(
        self, lines: Sequence[Line], asked: Asked, zero: bool
    ) -> tuple[Sequence[Call], Any]:
        pending = self.steps.pending
        taken = pending[-1].taken if pending else self.steps.known
        scalars, keys = lines[taken - self.steps.known]
        scale, found = (number_at(each) for each in asked.scaler or (0, 0))
        scale = scale or asked.scale
        most = inf if asked.each else asked.max_norm
        measured = self.measure(scale, most)
        clip = self.clip_each(scale, asked.max_norm) if asked.each else measured.clip
        self.keys[:] = keys
        for _, values in scalars:
            values["unscale"] = 1 / scale
            values["clip"] = 1.0 if asked.each else clip
        answer = Answer(measured.norm, 1.0 if found else clip, taken + (not found))
        self.answers.append(answer)
        if asked.scaler is None:
            return self.calls(scalars, zero, asked.each), answer
        before = [*self.steps.pending]
        self.steps.pending.clear()  # so that to prepare the calls asks for nothing
        writing = [] if found else [*self.calls(scalars, zero, asked.each)]
        self.steps.pending[:] = before
        counted = len(self.cells.writing()) + 1  # a device counts by itself, and writes no cells
        return [*writing[:-counted], partial(pending.append, answer)], answer


def number_at(address: int) -> float:
    """The float32 at an address, or 0 for none."""
    return ctypes.c_float.from_address(address).value if address else 0.0


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


SCALED = [name for name in ALL if name != "NAdam"]
"""The classes whose steps a GradScaler may leave out on the device."""


def scaled_walk(
    optimizer: Any, params: list[Any], steps: int, spoiled: Sequence[int], look: Any
) -> None:
    """Steps with a GradScaler; `look` is called after each."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    for step in range(steps):
        for p, g in zip(params, draw(params, step), strict=True):
            p.grad = g * scaler.get_scale()
        scaler.scale(torch.zeros(()))  # as a loss is, which makes the scaler's tensor
        if step in spoiled:
            params[0].grad.flatten()[0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        look(step)


@pytest.mark.parametrize("options", [{}, {"max_norm": 0.5}, {"weight_decay": 0.1}], ids=str)
@pytest.mark.parametrize("name", SCALED)
def test_nobody_waits_for_a_grad_scaler(
    name: str, options: dict[str, Any], answers: list[Answer]
) -> None:
    """Whoever looks at the state finds it as if somebody had; nobody else has to."""
    params, expected = parameters(torch.float32), parameters(torch.float32)
    optimizer = ours(name)(params, backend="numpy", **options)
    reference = ours(name)(expected, backend="numba", **options)
    spoiled = (1, 2, 5, 9)

    def look(step: int) -> None:
        if step != 6:
            assert not any(each.reads for each in answers) or step > 6
            return
        for p, q in zip(params, expected, strict=True):
            found, wanted = optimizer.state[p], reference.state[q]
            assert found.keys() == wanted.keys()
            assert all(torch.equal(found[key], wanted[key]) for key in wanted)

    scaled_walk(reference, expected, 7, spoiled, lambda step: None)
    scaled_walk(optimizer, params, 7, spoiled, look)
    assert len(answers) == 6 + ("max_norm" in options)  # the first step is taken by the host
    assert same_bits(params, expected)
    scaled_walk(reference, expected, 4, spoiled, lambda step: None)
    scaled_walk(optimizer, params, 4, spoiled, lambda step: None)
    found, wanted = optimizer.state_dict()["state"], reference.state_dict()["state"]
    for at, own in wanted.items():
        assert all(torch.equal(found[at][key], own[key]) for key in own)


def test_a_new_layout_knows_all_steps(answers: list[Answer]) -> None:
    """Another group, another option, other gradients: each begins by the t that there is."""
    params, expected = parameters(torch.float32), parameters(torch.float32)
    optimizer = ours("Adam")(params[:2], backend="numpy")
    reference = ours("Adam")(expected[:2], backend="numba")
    for each, own in ((optimizer, params), (reference, expected)):
        scaled_walk(each, own[:2], 4, (1, 3), lambda step: None)
        each.add_param_group({"params": own[2:]})
        scaled_walk(each, own, 3, (0,), lambda step: None)
        each.param_groups[0]["maximize"] = True
        scaled_walk(each, own, 3, (1,), lambda step: None)
        own[0].grad = None
        scaled_walk(each, own[1:], 3, (1,), lambda step: None)
    assert same_bits(params, expected)
    found, wanted = optimizer.state_dict()["state"], reference.state_dict()["state"]
    for at, own in wanted.items():
        assert all(torch.equal(found[at][key], own[key]) for key in own)
    assert answers


def test_nadams_product_is_known(answers: list[Answer]) -> None:
    """A GradScaler's numbers are looked at where torch can read what they decide."""
    params, expected = parameters(torch.float32), parameters(torch.float32)
    optimizer, reference = (
        ours("NAdam")(own, backend=backend)
        for own, backend in ((params, "numpy"), (expected, "numba"))
    )
    for each, own in ((optimizer, params), (reference, expected)):
        scaled_walk(each, own, 5, (1, 3), lambda step: None)
    assert same_bits(params, expected)
    assert not answers
