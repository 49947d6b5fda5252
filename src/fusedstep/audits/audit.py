"""An audit from its expression to its report."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from fusedstep.audits.checks import CHECKS, LARGE, Check, Trial
from fusedstep.audits.checks.check import inputs
from fusedstep.audits.checks.elements import mixing
from fusedstep.audits.expression import Call
from fusedstep.audits.judging import apart, differing, reproducer
from fusedstep.audits.kinds import FRAMEWORKS, Kind, kind
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


NO_RULE = Call("none")
"""In place of a rule: values are held against none."""

MANY = 0.25
"""The share of elements from which on a difference is a property of the rule, such as a norm.

What differs in fewer is a fault: the end of a tensor is less, and so are single places.
"""


class RefusedError(Exception):
    """An expression that makes no optimizer that can be audited; the message has the remedy."""


def audit(
    call: Call,
    tell: Callable[[str, float], object] = lambda name, share: None,
    *,
    rule: Call | None = None,
    timeout: float = TIMEOUT,
    large: bool = False,
) -> Report:
    """Run all checks against the optimizer that `call` makes.

    It is held against the rule of the optimizer that `rule` makes, or of its own name. `tell` is
    told the name of each check and the share that is done.
    """
    environment = keras_environment()
    with Worker(timeout, environment) as worker:
        subject = describe(call, rule, worker, environment.get("KERAS_BACKEND", ""))
        checks = {**CHECKS, **LARGE} if large else CHECKS
        findings = []
        for k, check in enumerate(checks.values()):
            tell(check.name, k / len(checks))
            findings.append(judge(check, subject, worker))
    return Report(
        str(call),
        held_against(subject),
        {"python": platform.python_version(), **subject.versions},
        f"{platform.system()} {platform.machine()}",
        findings,
    )


def held_against(subject: Subject) -> str:
    """The rule in words, or the reason why there is none."""
    if isinstance(subject.known, str):
        return subject.known
    rule = f"{subject.kind.name}, as {NAMES[subject.framework]} has it"
    return f"{rule}, {subject.kind.why}" if subject.kind.why else rule


def keras_environment() -> dict[str, str]:
    """The backend for Keras: the one that is asked for, or one that is installed."""
    asked = os.environ.get("KERAS_BACKEND")
    found = [name for name in ("tensorflow", "jax", "torch") if find_spec(name) is not None]
    backend = asked or next(iter(found), None)
    return {"KERAS_BACKEND": backend} if backend else {}


# ---- the subject ----


def describe(call: Call, rule: Call | None, worker: Worker, backend: str) -> Subject:
    """Find out what the optimizer is, and how it can be stepped."""
    asked = "" if rule in (None, NO_RULE) else str(rule)
    try:
        answer = worker.ask({"task": "probe", "expression": str(call), "rule": asked}, STARTING)
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
        kind_of(call, rule, answer),
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
    text = inputs(67, 4, subject.shape(67))
    again = f"{text}expected = train(start, gradients)\nseen = train(start, gradients)"
    subject.repeats = changed_by(again, subject, worker) == 0
    mixes = subject.repeats and any(
        changed_by(body, subject, worker) >= MANY for body in mixing(subject)
    )
    if mixes and subject.kind.derived:
        base = subject.kind.name
        reason = f"no formula for {call.name}, which is derived from {base}, as {MIXES}"
        subject.kind = Kind(call.name, missing=reason)
    if isinstance(subject.known, str):
        subject.separate = not mixes
    return subject


def kind_of(call: Call, rule: Call | None, answer: dict[str, Any]) -> Kind:
    """The optimizer whose rule another is held against: the one that is named, or its own."""
    framework = answer["framework"]
    if rule is None:
        return kind(framework, call.name, answer["own"], answer["bases"], answer["required"])
    if rule == NO_RULE:
        return Kind(call.name, missing="no formula, by --as none")
    if rule.name not in FRAMEWORKS[framework][0]:
        known = ", ".join(FRAMEWORKS[framework][0])
        raise RefusedError(f"there is no formula for {rule}; there are those of: {known}")
    return Kind(rule.name, f"by --as {rule}", **answer["rule"])


def stepped(subject: Subject, worker: Worker) -> str | None:
    """Step the optimizer; an error says why it cannot be stepped."""
    text = f"{inputs(67, 2, subject.shape(67))}seen = train(start, gradients)"
    try:
        return worker.run(subject.program(["train"], text), ["seen"]).error
    except DiedError as died:
        return str(died)


def changed_by(body: str, subject: Subject, worker: Worker) -> float:
    """The share of elements whose bits differ between the two runs of a program."""
    try:
        answer = worker.run(subject.program(["train"], body), ["seen", "expected"])
    except DiedError:
        return 1.0
    found = answer.arrays
    return apart(found["seen"], found["expected"]) if len(found) == 2 else 1.0


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
    ulps = trial.apart_by
    if ulps and isinstance(subject.known, str) and apart(seen, expected, ulps) >= MANY:
        subject.separate = False
        return found(NOT_JUDGED, f"{MIXES}: {difference}")
    if trial.unless_all and difference.wrong == difference.size:
        return found(NOT_JUDGED, trial.unless_all)
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
