"""An audit from its expression to its report."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib.util import find_spec

from fusedstep.audits.checks import CHECKS, LARGE, Check, Trial
from fusedstep.audits.checks.check import inputs
from fusedstep.audits.expression import Call
from fusedstep.audits.judging import differing, reproducer
from fusedstep.audits.processes import STARTING, Answer, DiedError, Worker
from fusedstep.audits.records import (
    FAILS,
    NOT_JUDGED,
    PASSES,
    REFUSES,
    STALLS,
    Finding,
    Report,
)
from fusedstep.audits.subject import MIXES, NotJudgedError, Subject

TIMEOUT = 120.0
"""Seconds after which a program counts as hanging, compilation included."""


NAMES = {"torch": "torch", "numpy": "torch", "keras": "Keras", "optax": "optax"}
"""Packages whose semantics a formula has, by framework."""


class RefusedError(Exception):
    """An expression that makes no optimizer that can be audited; the message has the remedy."""


def audit(
    call: Call,
    tell: Callable[[str, float], object] = lambda name, share: None,
    *,
    timeout: float = TIMEOUT,
    large: bool = False,
) -> Report:
    """Run all checks against the optimizer that `call` makes.

    `tell` is told the name of each check and the share that is done.
    """
    environment = keras_environment()
    with Worker(timeout, environment) as worker:
        subject = describe(call, worker, environment.get("KERAS_BACKEND", ""))
        checks = {**CHECKS, **LARGE} if large else CHECKS
        findings = []
        for k, check in enumerate(checks.values()):
            tell(check.name, k / len(checks))
            findings.append(judge(check, subject, worker))
    known = subject.known
    return Report(
        str(call),
        known if isinstance(known, str) else f"{call.name}, as {NAMES[subject.framework]} has it",
        {"python": platform.python_version(), **subject.versions},
        f"{platform.system()} {platform.machine()}",
        findings,
    )


def keras_environment() -> dict[str, str]:
    """The backend for Keras: the one that is asked for, or one that is installed."""
    asked = os.environ.get("KERAS_BACKEND")
    found = [name for name in ("tensorflow", "jax", "torch") if find_spec(name) is not None]
    backend = asked or next(iter(found), None)
    return {"KERAS_BACKEND": backend} if backend else {}


# ---- the subject ----


def describe(call: Call, worker: Worker, backend: str) -> Subject:
    """Find out what the optimizer is, and how it can be stepped."""
    try:
        answer = worker.ask({"task": "probe", "expression": str(call)}, STARTING)
    except DiedError as died:
        raise RefusedError(
            f"{call} cannot be looked at: {died}; see that "
            f"`import {call.path.partition('.')[0]}` works"
        ) from None
    for key in ("refused", "error"):
        if key in answer:
            raise RefusedError(answer[key])
    named = dict(zip(answer["positional"], call.arguments, strict=False))
    subject = Subject(
        Call(call.path, (), {**named, **call.keywords}) if named else call,
        answer["framework"],
        tuple(answer["modules"]),
        answer["hyperparameters"],
        tuple(answer["accepts"]),
        answer["versions"],
        backend,
        tuple(answer["tensors"]),
    )
    worker.imports = subject.imports()
    errors = []
    for subject.flat in (True, False):
        error = stepped(subject, worker)
        if error is None:
            break
        errors.append(error)
    else:
        raise RefusedError(
            f"{call} cannot be stepped with plain gradients: {errors[0]}; audit an optimizer "
            "whose step needs nothing else"
        )
    subject.repeats = same(subject, worker)
    subject.separate = same(subject, worker, OTHER_ELEMENT, leave_out=3)
    if not isinstance(subject.known, str):
        subject.separate = True  # so that checks find where it is not
    return subject


def stepped(subject: Subject, worker: Worker) -> str | None:
    """Step the optimizer; an error says why it cannot be stepped."""
    text = f"{inputs(67, 2, subject.shape(67))}seen = train(start, gradients)"
    try:
        return worker.run(subject.program(["train"], text), ["seen"]).error
    except DiedError as died:
        return str(died)


OTHER_ELEMENT = """
start = np.where(k == 3, 100, start)
gradients = [np.where(k == 3, 1000.0**t * g, g) for g, t in zip(gradients, (0, 1, -1, 0))]
"""
"""Text that changes one element by much, now up and now down."""


def same(subject: Subject, worker: Worker, change: str = "", leave_out: int | None = None) -> bool:
    """Whether a run has the same bits after a change of the inputs, but for one element."""
    body = (
        f"{inputs(67, 4, subject.shape(67))}expected = train(start, gradients)\n"
        f"{change}seen = train(start, gradients)"
    )
    if leave_out is not None:
        body += f"\nexpected, seen = np.delete([expected, seen], {leave_out}, axis=-1)"
    program = subject.program(["train"], body)
    try:
        answer = worker.run(program, ["seen", "expected"])
    except DiedError:
        return False
    trial = Trial(program)
    found = answer.arrays
    return len(found) == 2 and differing(trial, found["seen"], found["expected"]) is None


# ---- checks ----


def judge(check: Check, subject: Subject, worker: Worker) -> Finding:
    """Run the programs of a check up to the first that does not pass."""
    finding = Finding(check.group, check.name, NOT_JUDGED, "no program applies")
    try:
        for trial in check.trials(subject):
            finding = run(check, trial, subject, worker)
            if finding.verdict != PASSES:
                return finding
    except NotJudgedError as reason:
        if finding.verdict != PASSES:
            return Finding(check.group, check.name, NOT_JUDGED, str(reason))
    return finding


def run(check: Check, trial: Trial, subject: Subject, worker: Worker) -> Finding:
    if trial.apart:
        with Worker(worker.timeout, worker.environment) as other:
            other.imports = worker.imports
            return outcome(check, trial, subject, other)
    return outcome(check, trial, subject, worker)


def outcome(check: Check, trial: Trial, subject: Subject, worker: Worker) -> Finding:
    names = ", ".join(f"{name} {text}" for name, text in subject.versions.items())
    heading = f"{subject.call}, {names}: {check.name}"

    def found(verdict: str, *texts: str) -> Finding:
        return Finding(check.group, check.name, verdict, *texts)

    try:
        answer = worker.run(trial.program, ["seen", "expected"])
    except DiedError as died:
        program = f"# {heading}\n{trial.program}"
        return found(FAILS, str(died), program, str(died))
    if answer.error is not None:
        if not trial.must:
            return found(REFUSES, answer.error)
        return found(FAILS, answer.error, f"# {heading}\n{trial.program}", answer.error)
    seen = answer.arrays["seen"]
    expected = answer.arrays["expected"] if trial.expected is None else trial.expected
    difference = differing(trial, seen, expected)
    if difference is None:
        return found(PASSES)
    if trial.apart_by and isinstance(subject.known, str) and difference.ulps > trial.apart_by:
        subject.separate = False
        return found(NOT_JUDGED, f"{MIXES}: {difference}")
    program = reproducer(trial, difference, heading)
    verdict = STALLS if trial.stalled is not None and (seen == trial.stalled).all() else FAILS
    return found(verdict, str(difference), program, printed(program, worker))


def printed(program: str, worker: Worker) -> str:
    """The text that a reproducer prints when it is run."""
    try:
        answer: Answer = worker.run(program)
    except DiedError as died:
        return str(died)
    return answer.printed.rstrip("\n") if answer.error is None else answer.error
