"""State: what is kept between steps, saved, and set by groups."""

from __future__ import annotations

from collections.abc import Iterator

from fusedstep.audits.checks.check import Checks, Trial, inputs
from fusedstep.audits.checks.values import changed
from fusedstep.audits.subject import NotJudgedError, Subject

CHECKS = Checks()
GROUP = "state"


def rate_of(subject: Subject) -> tuple[str, float]:
    """The name and the value of the learning rate."""
    for name in ("lr", "learning_rate"):
        value = subject.hyperparameters.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value:
            return name, float(value)
    raise NotJudgedError("it has no learning rate that is a number")


@CHECKS.add(GROUP, "repeats", "two runs with the same gradients have the same bits")
def repeats(subject: Subject) -> Iterator[Trial]:
    text = inputs(67, 8, subject.shape(67))
    body = f"{text}expected = train(start, gradients)\nseen = train(start, gradients)"
    yield Trial(subject.program(["train"], body), varies=True)


@CHECKS.add(GROUP, "resume", "a run that is saved and loaded half-way ends in the same bits")
def resume(subject: Subject) -> Iterator[Trial]:
    subject.need_repeats()
    text = inputs(67, 8, subject.shape(67))
    body = f"{text}expected = train(start, gradients)\nseen = resume(start, gradients)"
    yield Trial(subject.program(["train", "resume"], body), must=True)


@CHECKS.add(GROUP, "learning rate", "a rate that is set is the rate that is used")
def learning_rate(subject: Subject) -> Iterator[Trial]:
    subject.need_repeats()
    subject.need(subject.dialect.rate)
    name, lr = rate_of(subject)
    other = subject.maker(subject.call.with_keywords(**{name: lr / 4}))
    body = (
        f"{inputs(67, 8, subject.shape(67))}seen = rate(start, gradients, {lr / 4!r})\n\n"
        f"{other}\n\nexpected = train(start, gradients)"
    )
    yield Trial(subject.program(["train", "rate"], body), close=8)


@CHECKS.add(GROUP, "groups", "each group has its own learning rate and decay")
def groups(subject: Subject) -> Iterator[Trial]:
    subject.need_repeats()
    subject.need(subject.dialect.groups)
    name, lr = rate_of(subject)
    options = [{name: lr / 4}, {name: lr / 2}]
    if "weight_decay" in subject.hyperparameters:
        options[1]["weight_decay"] = 0.125
    given = ", ".join(map(str, options))
    parts = [f"{inputs(67, 8, subject.shape(67))}seen = groups(start, gradients, {given})"]
    for k, each in enumerate(options):
        parts.append(subject.maker(subject.call.with_keywords(**each)))
        parts.append(f"group{k} = train(start, gradients)")
    parts.append("expected = np.stack([group0, group1])")
    yield Trial(subject.program(["train", "groups"], "\n\n".join(parts)), close=8)


@CHECKS.add(GROUP, "no gradient", "a parameter without a gradient stays as it is")
def no_gradient(subject: Subject) -> Iterator[Trial]:
    subject.need_repeats()
    body = (
        f"{inputs(67, 1, subject.shape(67))}"
        "expected = skip(start, gradients)\n"
        "seen = skip(start, [*gradients, None, None])"
    )
    yield Trial(subject.program(["skip"], body))


@CHECKS.add(GROUP, "steps of its own", "steps without a gradient do not count for the parameter")
def own_steps(subject: Subject) -> Iterator[Trial]:
    subject.need_repeats()
    subject.need(subject.dialect.skip)
    subject.formula()
    if subject.framework == "keras":
        raise NotJudgedError("Keras counts the steps of all variables together")
    body = (
        f"{inputs(67, 4, subject.shape(67))}first, *others = gradients\n"
        "expected = skip(start, [first, *others])\n"
        "seen = skip(start, [first, None, None, *others])"
    )
    yield Trial(subject.program(["skip"], body), close=4)


@CHECKS.add(GROUP, "gradient kept", "the caller's gradient is not written to")
def gradient_kept(subject: Subject) -> Iterator[Trial]:
    text = inputs(67, 1, subject.shape(67))
    body = f"{text}expected = gradients[0]\nseen = kept(start, gradients[0])"
    yield Trial(subject.program(["kept"], body))
    if "weight_decay" in subject.accepts:
        decaying = changed(subject, weight_decay=0.125)
        yield Trial(decaying.program(["kept"], body))
