"""Memory: parameters and gradients that are views, and what lies beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fusedstep.audits.checks.check import Checks, Trial, Trials
from fusedstep.audits.checks.elements import first_step
from fusedstep.audits.subject import Subject

CHECKS = Checks()
GROUP = "memory"


class Layout(NamedTuple):
    """A view of 64 elements into an array `full`."""

    name: str
    full: str
    """The shape of `full`."""

    view: str
    """The view, where {array} is the framework's array module."""

    beside: bool = False
    """Whether there are elements of `full` outside of the view."""


LAYOUTS = [
    Layout("every second column", "(8, 16)", "full[:, ::2]", beside=True),
    Layout("some columns", "(8, 11)", "full[:, 1:9]", beside=True),
    Layout("every third row", "(24, 8)", "full[1::3]", beside=True),
    Layout("transposed", "(8, 8)", "full.T"),
    Layout("channels last", "(2, 4, 4, 2)", "{array}.moveaxis(full, -1, 1)"),
    Layout("one element off", "(70,)", "full[1:65].reshape(8, 8)", beside=True),
]

ODD = [
    Layout("every second column", "(5, 14)", "full[:, ::2]"),
    Layout("some columns", "(5, 11)", "full[:, 1:8]"),
    Layout("every third row", "(15, 7)", "full[1::3]"),
    Layout("transposed", "(7, 5)", "full.T"),
    Layout("one element off", "(40,)", "full[1:36].reshape(5, 7)"),
]
"""Views of 5 rows and 7 columns, which fill no vector."""

BROADCAST = Layout("one row, expanded", "(8, 8)", "{array}.broadcast_to(full[:1], (8, 8))")


def start(subject: Subject, layout: Layout, name: str) -> str:
    """Text that makes an array, and a view of it under a name."""
    view = layout.view.format(array=subject.dialect.array)
    return f"full = array(random.normal(size={layout.full}))\n{name} = {view}\n"


RANDOM = "random = np.random.default_rng(0)\n"


def parameter(layout: Layout) -> Trials:
    def trials(subject: Subject) -> Iterator[Trial]:
        body = (
            f"{RANDOM}{start(subject, layout, 'p')}"
            "gradients = [array(random.normal(size=p.shape)) for _ in range(3)]\n"
            "expected = np.asarray(steps(array(np.ascontiguousarray(p)), *gradients))\n"
            "seen = np.asarray(steps(p, *gradients))"
        )
        yield Trial(subject.program(["layout"], body), close=12)

    return trials


def gradient(layout: Layout) -> Trials:
    def trials(subject: Subject) -> Iterator[Trial]:
        body = (
            f"{RANDOM}{start(subject, layout, 'g')}"
            "values = random.normal(size=g.shape)\n"
            "expected = np.asarray(steps(array(values), *[array(np.ascontiguousarray(g))] * 3))\n"
            "seen = np.asarray(steps(array(values), g, g, g))"
        )
        yield Trial(subject.program(["layout"], body), close=12)

    return trials


def both(layout: Layout) -> Trials:
    def trials(subject: Subject) -> Iterator[Trial]:
        body = (
            f"{RANDOM}{start(subject, layout, 'g')}{start(subject, layout, 'p')}"
            "dense = [array(np.ascontiguousarray(each)) for each in (p, g)]\n"
            "expected = np.asarray(steps(dense[0], *[dense[1]] * 3))\n"
            "seen = np.asarray(steps(p, g, g, g))"
        )
        yield Trial(subject.program(["layout"], body), close=12)

    return trials


def enter() -> None:
    """Enter a check for each layout of the parameter, of the gradient, and of both."""
    for layout in LAYOUTS:
        name = f"parameter: {layout.name}"
        CHECKS.add(GROUP, name, "the same as contiguous")(parameter(layout))
    for layout in (*LAYOUTS, BROADCAST):
        name = f"gradient: {layout.name}"
        CHECKS.add(GROUP, name, "the same as contiguous")(gradient(layout))
    for layout in LAYOUTS:
        name = f"both: {layout.name}"
        CHECKS.add(GROUP, name, "the same as contiguous")(both(layout))


enter()


@CHECKS.add(GROUP, "beside a parameter", "memory outside of a parameter that is a view is kept")
def beside(subject: Subject) -> Iterator[Trial]:
    for layout in LAYOUTS:
        if layout.beside:
            body = (
                f"{RANDOM}{start(subject, layout, 'p')}"
                "gradients = [array(random.normal(size=p.shape)) for _ in range(3)]\n"
                "before = np.array(full)\n"
                "steps(p, *gradients)\n"
                "p[...] = 7  # so that only what lies outside of p can differ\n"
                "seen = np.array(full)\n"
                "full = expected = before\n"
                f"{layout.view}[...] = 7"
            )
            yield Trial(subject.program(["layout"], body))


@CHECKS.add(GROUP, "stays a view", "a parameter that is a view is stepped in the memory it views")
def stays_a_view(subject: Subject) -> Iterator[Trial]:
    for layout in LAYOUTS:
        body = (
            f"{RANDOM}{start(subject, layout, 'p')}"
            "gradients = [array(random.normal(size=p.shape)) for _ in range(3)]\n"
            "expected = np.asarray(steps(p, *gradients))\n"
            "seen = np.array(p)"
        )
        yield Trial(subject.program(["layout"], body))


@CHECKS.add(GROUP, "every element of a view", "in views of 35 elements each takes the first step")
def every_element(subject: Subject) -> Iterator[Trial]:
    subject.need_separate()
    text = (
        "start = np.full((5, 7), 3 / 256)\n"
        "gradients = [(-1.0) ** (np.arange(35) // 2).reshape(5, 7)]\n"
    )
    for layout in ODD:
        body = (
            f"{text}full = array(np.full({layout.full}, 3 / 256))\n"
            f"p = {layout.view.format(array=subject.dialect.array)}\n"
            "after = np.asarray(steps(p, array(gradients[0])))\n"
        )
        yield first_step(subject, "layout", text, body)
