"""Elements: each is stepped by itself, wherever it stands and whatever stands beside it."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

import numpy as np

from fusedstep.audits.checks.check import Checks, Trial, arrays, inputs
from fusedstep.audits.checks.values import by_formula, changed
from fusedstep.audits.formulas import trajectory
from fusedstep.audits.subject import EPS, NotJudgedError, Subject

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
    for piece in (67, 5, 1):
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


SIZES = (1, 3, 15, 31, 255)
"""Numbers of elements around the widths of vectors."""

UNMOVED = "nothing moves in its first step"
"""The reason why an element that does not move says nothing."""

MOVED = """seen = np.where(after == start, 0.0, 1.0)  # 1 where an element has moved
expected = np.ones(seen.shape)"""
"""The end of a program whose gradients are all of one size, so that all elements move, or none."""


@CHECKS.add(GROUP, "every element", "in tensors of 1 to 255 elements each takes the first step")
def every_element(subject: Subject) -> Iterator[Trial]:
    subject.need_separate()
    shape = subject.shape(-1)
    text = (
        f"sizes = {[*SIZES]}\n"
        "k = np.arange(sum(sizes))\n"
        "start, gradients = 3 / 256 * (-1.0) ** k, [(-1.0) ** (k // 2)]\n"
    )
    train = (
        f"{text}pieces = np.split(np.stack([start, *gradients]), np.cumsum(sizes)[:-1], axis=1)\n"
        f"after = [train(p.reshape{shape}, [g.reshape{shape}]).ravel() for p, g in pieces]\n"
    )
    yield first_step(subject, "train", text, f"{train}after = np.concatenate(after)\n")


def first_step(subject: Subject, verb: str, text: str, body: str) -> Trial:
    """A first step `after` from the start and the gradient of a text: each element takes it."""
    if isinstance(subject.known, str):
        return Trial(subject.program([verb], f"{body}{MOVED}"), unless_all=UNMOVED)
    expected, tolerance = subject.follow(*arrays(text), EPS["float32"])
    return Trial(subject.program([verb], f"{body}seen = after"), expected, tolerance)


def mixing(subject: Subject) -> Iterator[str]:
    """Programs that step again with one element changed by much: now up and now down, or up."""
    text = inputs(67, 4, subject.shape(67))
    for before, factors in (("", "(0, 1, -1, 0)"), ("gradients = gradients[:1] * 8\n", "[1] * 8")):
        yield (
            f"{text}{before}expected = train(start, gradients)\n"
            "start = np.where(k == 3, 100, start)\n"
            f"factors = 1000.0 ** np.array({factors})\n"
            "gradients = [np.where(k == 3, f * g, g) for f, g in zip(factors, gradients)]\n"
            "seen = train(start, gradients)\n"
            "expected, seen = np.delete([expected, seen], 3, axis=-1)"
        )


@CHECKS.add(GROUP, "other elements", "an element has the same bits whatever the others are")
def other_elements(subject: Subject) -> Iterator[Trial]:
    subject.need_separate()
    for body in mixing(subject):
        yield Trial(subject.program(["train"], body))


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


@CHECKS.add(GROUP, "NaN", "a NaN in a gradient is seen in its element, and in no other")
def nan(subject: Subject) -> Iterator[Trial]:
    subject.need_separate()
    body = (
        f"{inputs(67, 4, subject.shape(67))}"
        "expected = train(start, gradients)\n"
        "expected.flat[33] = gradients[1].flat[33] = np.nan\n"
        "seen = train(start, gradients)"
    )
    yield Trial(subject.program(["train"], body))


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
    if not subject.separate or not subject.repeats:
        body = (
            f'{text}seen = train(start, gradients, "{dtype}")\n'
            "expected = np.where(np.isfinite(seen), seen, start)"
        )
        yield Trial(subject.program(["train"], body))
        return
    if subject.hyperparameters.get("weight_decay") and "weight_decay" in subject.accepts:
        subject = changed(subject, weight_decay=0.0)  # it may be part of a gradient
    body = (
        f'{text}seen = train(start, gradients, "{dtype}")\n'
        "factor = np.nanmedian(seen[start != 0] / start[start != 0])\n"
        "expected = start * np.nan_to_num(factor, nan=1.0)"
    )
    start, _ = arrays(text)
    roundings = 4 * EPS[dtype] * np.abs(start)
    yield Trial(subject.program(["train"], body), tolerance=roundings)


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
    changes = {"weight_decay": 0.0} if subject.formula().decays else {}
    if changes and "weight_decay" not in subject.accepts:
        raise NotJudgedError("its weight decay changes the parameter")
    subject = changed(subject, **changes)
    text = f"{inputs(67, 2, subject.shape(67))}"
    rule, options = subject.formula(**changes)
    one = np.ones(1)
    end = float(trajectory(rule, one, [0 * one] * 2, **options).p[0])
    if end != 1:
        does = "moves a parameter" if isfinite(end) else "divides 0 by 0"
        raise NotJudgedError(f"its rule {does} without a gradient")
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
