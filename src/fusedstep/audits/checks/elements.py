"""Elements: each is stepped by itself, wherever it stands and whatever stands beside it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fusedstep.audits.checks.check import Checks, Trial, inputs
from fusedstep.audits.checks.values import by_formula, changed
from fusedstep.audits.formulas import trajectory
from fusedstep.audits.subject import NotJudgedError, Subject

CHECKS = Checks()
GROUP = "elements"

ROUNDING = 16.0
"""The most ulp that another order of operations makes; more is another rule."""

RANDOM = """random = np.random.default_rng({seed})
start, *gradients = random.normal(size=({steps} + 1, {n}))
"""


@CHECKS.add(GROUP, "size of the tensor", "an element has the same bits in small and large tensors")
def size(subject: Subject) -> Iterator[Trial]:
    subject.need_separate()
    for piece in (5, 1):
        seed_and_sizes = RANDOM.format(seed=piece, steps=3, n=320)
        shape = subject.shape(-1)
        body = (
            f"{seed_and_sizes}"
            f"whole = train(start.reshape{shape}, [g.reshape{shape} for g in gradients])\n"
            f"expected = whole.ravel()\n"
            "seen = np.zeros(320)\n"
            f"for k in range(0, 320, {piece}):\n"
            f"    few = slice(k, k + {piece})\n"
            f"    part = [g[few].reshape{shape} for g in gradients]\n"
            f"    seen[few] = train(start[few].reshape{shape}, part).ravel()"
        )
        yield Trial(subject.program(["train"], body), apart_by=ROUNDING)


@CHECKS.add(GROUP, "position", "an element has the same bits at every position")
def position(subject: Subject) -> Iterator[Trial]:
    subject.need_separate()
    shape = subject.shape(-1)
    body = (
        f"{RANDOM.format(seed=0, steps=10, n=127)}"
        "def rolled(by):\n"
        f"    given = [np.roll(g, by).reshape{shape} for g in (start, *gradients)]\n"
        "    return np.roll(train(given[0], given[1:]).ravel(), -by)\n\n"
        "expected = np.stack([rolled(0)] * 32)\n"
        "seen = np.stack([rolled(4 * k) for k in range(32)])"
    )
    yield Trial(subject.program(["train"], body), apart_by=ROUNDING)


@CHECKS.add(GROUP, "number of threads", "one thread and two give the same bits")
def threads(subject: Subject) -> Iterator[Trial]:
    subject.need_separate()
    subject.need(subject.dialect.threads)
    shape = subject.shape(-1)
    body = (
        f"{RANDOM.format(seed=0, steps=3, n=200_003)}"
        f"start, gradients = start.reshape{shape}, [g.reshape{shape} for g in gradients]\n"
        "threads(1)\n"
        "expected = train(start, gradients)\n"
        "threads(2)\n"
        "seen = train(start, gradients)"
    )
    yield Trial(subject.program(["train", "threads"], body), apart_by=ROUNDING)


@CHECKS.add(GROUP, "other tensors", "a tensor has the same bits alone and among others")
def other_tensors(subject: Subject) -> Iterator[Trial]:
    subject.need_separate()
    shape = subject.shape(-1)
    body = (
        "random = np.random.default_rng(0)\n"
        "sizes = [1, 33, 7, 64, 5, 200]\n"
        f"starts = [random.normal(size=n).reshape{shape} for n in sizes]\n"
        f"gradients = [[random.normal(size=s.shape) for s in starts] for _ in range(4)]\n"
        "alone = [train(s, g) for s, g in zip(starts, zip(*gradients))]\n"
        "expected = np.concatenate([each.ravel() for each in alone])\n"
        "seen = company(starts, gradients)"
    )
    yield Trial(subject.program(["train", "company"], body), apart_by=ROUNDING)


def poisoned(subject: Subject, value: str) -> Trial:
    """A gradient with one odd element, whose neighbours must not notice it."""
    subject.need_separate()
    body = (
        f"{inputs(67, 4, subject.shape(67))}"
        "expected = np.delete(train(start, gradients), 33)\n"
        f"gradients[1].flat[33] = {value}\n"
        "seen = np.delete(train(start, gradients), 33)"
    )
    return Trial(subject.program(["train"], body))


@CHECKS.add(GROUP, "NaN", "a NaN in a gradient stays in its element")
def nan(subject: Subject) -> Iterator[Trial]:
    yield poisoned(subject, "np.nan")


@CHECKS.add(GROUP, "infinity", "an infinity or an overflow in a gradient stays in its element")
def infinity(subject: Subject) -> Iterator[Trial]:
    for value in ("np.inf", "-np.inf", "1e30"):
        yield poisoned(subject, value)


def zeros(subject: Subject, dtype: str) -> Iterator[Trial]:
    subject.need_dtype(dtype)
    text = f"{inputs(67, 3, subject.shape(67))}gradients = [0 * g for g in gradients]\n"
    if not isinstance(subject.known, str):
        yield by_formula(subject, text, dtype)
        return
    body = (
        f'{text}seen = train(start, gradients, "{dtype}")\n'
        "expected = np.where(np.isfinite(seen), seen, start)"
    )
    yield Trial(subject.program(["train"], body))


@CHECKS.add(GROUP, "zero gradients", "zero gradients change nothing but what decay changes")
def zero_gradients(subject: Subject) -> Iterator[Trial]:
    yield from zeros(subject, "float32")


@CHECKS.add(GROUP, "zero gradients, bfloat16", "the same in bfloat16")
def zero_gradients_bfloat16(subject: Subject) -> Iterator[Trial]:
    yield from zeros(subject, "bfloat16")


@CHECKS.add(GROUP, "zero gradients, float16", "the same in float16")
def zero_gradients_float16(subject: Subject) -> Iterator[Trial]:
    yield from zeros(subject, "float16")


@CHECKS.add(GROUP, "subnormals", "a subnormal parameter without a gradient is not flushed to 0")
def subnormals(subject: Subject) -> Iterator[Trial]:
    if subject.formula().decays:
        if "weight_decay" not in subject.accepts:
            raise NotJudgedError("its weight decay changes the parameter")
        subject = changed(subject, weight_decay=0.0)
    text = f"{inputs(67, 2, subject.shape(67))}"
    rule, options = subject.formula()
    one = np.ones(1)
    if not np.isfinite(trajectory(rule, one, [0 * one] * 2, **options).p).all():
        raise NotJudgedError("its rule divides 0 by 0")
    body = (
        f"{text}start = np.float32(1e-40) * (1 + k % 3)\n"
        "expected = start\n"
        "seen = train(start, [0 * g for g in gradients])"
    )
    yield Trial(subject.program(["train"], body))


@CHECKS.add(GROUP, "no elements", "a tensor of no elements is stepped, and so are others beside it")
def no_elements(subject: Subject) -> Iterator[Trial]:
    subject.need_repeats()
    body = f"expected = np.zeros({subject.shape(0)})\nseen = train(expected, [expected, expected])"
    yield Trial(subject.program(["train"], body))
    body = (
        f"{inputs(67, 2, subject.shape(67))}"
        "expected = train(start, gradients).ravel()\n"
        f"empty = np.zeros({subject.shape(0)})\n"
        "seen = company([empty, start], [[empty, g] for g in gradients])"
    )
    yield Trial(subject.program(["train", "company"], body), close=2)


@CHECKS.add(GROUP, "no dimensions", "a tensor of no dimensions is stepped as one of one element")
def no_dimensions(subject: Subject) -> Iterator[Trial]:
    subject.need_repeats()
    body = (
        f"{inputs(1, 4, subject.shape(1))}"
        "expected = train(start, gradients).reshape(())\n"
        "seen = train(start.reshape(()), [g.reshape(()) for g in gradients])"
    )
    yield Trial(subject.program(["train"], body), close=4)
