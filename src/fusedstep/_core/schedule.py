"""Schedules: formulas of the step count t, whose other arguments are bound."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar, Concatenate, ParamSpec, get_args

from fusedstep._checks.elsewhere import OF_A_SCHEDULE
from fusedstep._checks.elsewhere import SCHEDULES as OTHERS
from fusedstep._checks.hints import code, nearest
from fusedstep._checks.wording import describe, differences, quoted

P = ParamSpec("P")

KEY = "schedule"
"""The key of the function's name in a schedule's dict."""

SCHEDULES: dict[str, Callable[..., Schedule]] = {}
"""Every function that `schedule` made, by its name, as dicts and the command line use it."""


@dataclass(frozen=True, repr=False)
class Schedule:
    """A learning rate as a function of the step count: `schedule(t)`, t = 1 at the first step.

    The functions of `fusedstep.schedules` make them. They cannot be changed, are equal if
    their function and arguments are, can be pickled, and read as the call that made them.

    >>> import fusedstep as fs
    >>> rate = fs.schedules.cosine(0.1, steps=100)
    >>> rate
    cosine(lr=0.1, steps=100, end=0.0)
    >>> rate(1), rate(101), rate(10**9)
    (0.1, 0.0, 0.0)
    >>> rate.to_dict()
    {'schedule': 'cosine', 'lr': 0.1, 'steps': 100, 'end': 0.0}
    >>> fs.schedules.Schedule.from_dict(rate.to_dict()) == rate
    True
    """

    example: ClassVar[str] = "fs.schedules.cosine(0.1, steps=1000)"
    """A schedule as a program makes it."""

    make: Callable[..., Schedule]
    """The function of `fusedstep.schedules`."""
    formula: Callable[..., float]
    """The formula that this function was made of; its first argument is t."""
    arguments: tuple[Any, ...]
    """The formula's other arguments."""

    def __call__(self, t: int) -> float:
        if t < 1:
            raise ValueError(f"t={t!r}; steps count from 1")
        return self.formula(t, *self.arguments)

    @property
    def lr(self) -> float:
        """The base rate: AdamW's ηₜ is the ratio of the schedule's values to it.

        It is the argument `lr`, or the largest of several rates or schedules.
        """
        named = self._named()
        rates = [part.lr for part in named["schedules"]] if "schedules" in named else None
        base: float = named["lr"] if "lr" in named else max(rates or named["rates"])
        return base

    def to_dict(self) -> dict[str, Any]:
        """The function's name and its arguments, as strings, numbers, lists and dicts."""
        return {KEY: self.make.__name__, **{k: _plain(v) for k, v in self._named().items()}}

    @staticmethod
    def from_dict(given: Mapping[str, Any]) -> Schedule:
        """The schedule that `to_dict` wrote."""
        if not isinstance(given, Mapping) or KEY not in given:
            raise TypeError(
                f"{describe(given)} is no schedule's dict; pass what to_dict() returned"
            )
        name = given[KEY]
        if not isinstance(name, str) or name not in SCHEDULES:
            raise ValueError(f"the schedule {describe(name)} is unknown; {schedule_hint(name)}")
        make = SCHEDULES[name]
        expected = inspect.signature(make).parameters
        arguments = {key: value for key, value in given.items() if key != KEY}
        if arguments.keys() != expected.keys():
            raise ValueError(
                f"the dict of a schedule {name!r} {differences(arguments, expected)}; pass what "
                "to_dict() returned"
            )
        return make(**{key: _revived(value) for key, value in arguments.items()})

    def __reduce__(self) -> tuple[Any, ...]:
        return self.make, self.arguments

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self._named().items())
        return f"{self.make.__name__}({arguments})"

    def _named(self) -> dict[str, Any]:
        names = inspect.signature(self.make).parameters
        return dict(zip(names, self.arguments, strict=True))


def schedule(formula: Callable[Concatenate[int, P], float]) -> Callable[P, Schedule]:
    """Turn a formula into a function that binds its arguments but t, and returns a `Schedule`.

    The annotation of each argument holds its check, one of those in _checks/values.py or the
    like: `Annotated[float, non_negative]`.
    """
    _, *rest = inspect.signature(formula).parameters.values()
    checks = {argument.name: get_args(argument.annotation)[1] for argument in rest}
    signature = inspect.Signature(
        [argument.replace(annotation=get_args(argument.annotation)[0]) for argument in rest],
        return_annotation=Schedule,
    )
    name = formula.__name__
    example = example_of(name, signature)

    @wraps(formula)
    def make(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        try:
            bound = bind(signature, args, kwargs, example)
            values = {key: checks[key](key, value) for key, value in bound.arguments.items()}
            _check_lengths(values)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None
        return Schedule(make, formula, tuple(values.values()))

    make.__signature__ = signature  # type: ignore[attr-defined]
    make.example = example  # type: ignore[attr-defined]
    SCHEDULES[name] = make
    return make


def schedule_hint(name: Any) -> str:
    """The schedules that there are, and the one that was meant."""
    own = OTHERS.get(name) if isinstance(name, str) else None
    own = own or nearest(name, SCHEDULES)
    every = f"there are {', '.join(SCHEDULES)}"
    if not own:
        return every
    return f"{every}; did you mean `{example_of(own, inspect.signature(SCHEDULES[own]))}`?"


EXAMPLES = {
    "lr": "0.1",
    "steps": "steps=1000",
    "every": "every=100",
    "rate": "rate=0.01",
    "boundaries": "[100]",
    "rates": "[0.1, 0.01]",
    "schedules": "[fs.schedules.warmup(0.1, steps=100), fs.schedules.cosine(0.1, steps=900)]",
    "factor": "factor=0.5",
}
"""Arguments of a schedule that have no default, as an example has them."""


def example_of(name: str, signature: inspect.Signature) -> str:
    """The call of a schedule with as few arguments as it takes."""
    needed = [each.name for each in signature.parameters.values() if each.default is each.empty]
    steps = {"steps": "steps=[100]"} if "schedules" in needed else {}
    return f"fs.schedules.{name}({', '.join({**EXAMPLES, **steps}[each] for each in needed)})"


def bind(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any], example: str
) -> inspect.BoundArguments:
    """The arguments of a schedule by name; errors about others say what was meant."""
    names = [*signature.parameters]
    for name in kwargs:
        if name not in names:
            own = next((each for each in OF_A_SCHEDULE.get(name, ()) if each in names), None)
            own = own or nearest(name, names)
            hint = f"pass `{code(own, kwargs[name])}`" if own else f"it has {quoted(names)}"
            raise TypeError(f"got an unexpected keyword argument {name!r}; {hint}")
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{error}; call it as `{example}`") from None
    bound.apply_defaults()
    return bound


def _check_lengths(values: dict[str, Any]) -> None:
    """Check that a list of parts is one longer than the list of steps between the parts."""
    lists = {name: len(value) for name, value in values.items() if isinstance(value, tuple)}
    if lists:
        between, parts = sorted(lists, key=("boundaries", "steps", "rates", "schedules").index)
        if lists[parts] != lists[between] + 1:
            raise ValueError(
                f"{parts} has {lists[parts]} and {between} {lists[between]}; pass one more of "
                f"{parts} than of {between}"
            )


def _plain(value: Any) -> Any:
    if isinstance(value, Schedule):
        return value.to_dict()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _revived(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Schedule.from_dict(value)
    return [_revived(item) for item in value] if isinstance(value, (list, tuple)) else value
