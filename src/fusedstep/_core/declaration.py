"""The declaration of an optimizer: its arguments, its state and its scalars.

`declare` reads it from the signature of the class's `__init__`, once, where the class is defined.
From it come the hyperparameters of groups and their checks, the Parameters section of the class's
docstring, the functions of `fusedstep.functional`, help texts and tables. For a custom rule
custom.py makes the same of the keywords of `fusedstep.rule`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from textwrap import indent
from typing import Any, NamedTuple, TypeVar, get_args

from fusedstep._checks.values import Check
from fusedstep._core.arguments import OF_A_RUN
from fusedstep._core.hints import DECLARATIONS, explained, misfit, with_missing
from fusedstep._core.kept import refuse_unknown_letters
from fusedstep._numerics.coefficients import Hyperparameters, Rule, Values, no_constants

Class = TypeVar("Class", bound=type)

ATTRIBUTE = "_declaration"
"""The attribute of a class, and of its optimizers, that has the declaration."""

POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD


class Argument(NamedTuple):
    """An argument of an optimizer's class."""

    name: str
    type: Any
    default: Any
    keyword_only: bool
    check: Check | None
    """The check of a hyperparameter; None for an argument in which groups cannot differ."""
    text: str = ""
    """The entry in the Parameters section."""
    of_a_run: bool = False
    """True if it has no meaning for one step by itself."""

    @classmethod
    def read(cls, name: str, alias: Any, default: Any, keyword_only: bool = False) -> Argument:
        """The argument whose annotation is an alias such as those of arguments.py."""
        plain, *notes = get_args(alias)
        check = notes.pop(0) if callable(notes[0]) else None
        return cls(
            name, plain, default, keyword_only, check, inspect.cleandoc(notes[0]), OF_A_RUN in notes
        )

    @property
    def parameter(self) -> inspect.Parameter:
        """The argument in a signature, with its plain type."""
        kind = inspect.Parameter.KEYWORD_ONLY if self.keyword_only else POSITIONAL
        return inspect.Parameter(self.name, kind, default=self.default, annotation=self.type)


def defaults_of(arguments: Iterable[Argument]) -> dict[str, Any]:
    """The hyperparameters among the arguments, and what each is by default."""
    return {each.name: each.default for each in arguments if each.check is not None}


def signature_of(arguments: Iterable[Argument]) -> inspect.Signature:
    """The signature of a class with these arguments, with plain types."""
    return inspect.Signature([each.parameter for each in arguments])


def no_conflict(hyper: Hyperparameters) -> None:
    """Nothing more need hold between hyperparameters that are right by themselves."""


def rate_is_free(hyper: Hyperparameters) -> bool:
    """No learning rate is in conflict with what else there is."""
    return False


@dataclass(frozen=True, eq=False)
class Declaration:
    """All that an optimizer's class says of its arguments and its steps."""

    optimizer: type
    """The class itself."""
    arguments: tuple[Argument, ...]
    """The arguments of its `__init__`."""
    letters: Mapping[str, str | None]
    """State arrays, in the order of the rule's arguments, each with the hyperparameter that
    switches it on; None for one that is always there."""
    rule: Callable[[Hyperparameters], Rule]
    """The rule that hyperparameters call for."""
    scalars: Callable[[Hyperparameters, int], Values]
    """The scalars of step t that may change from step to step."""
    constants: Callable[[Hyperparameters], Values] = no_constants
    """The scalars that neither t nor the learning rate changes."""
    together: Callable[[Hyperparameters], None] = no_conflict
    """Raises ValueError for hyperparameters that do not go together."""
    rate_bound: Callable[[Hyperparameters], bool] = rate_is_free
    """Whether `together` looks at the learning rate."""
    custom: bool = False
    """True if `fusedstep.rule` made it: for backends that compile rules."""
    nonnegative: tuple[str, ...] = ()
    """State arrays whose values are never negative, as running means of squares."""

    @cached_property
    def checks(self) -> dict[str, Check]:
        """The hyperparameters, and what each must be."""
        return {each.name: each.check for each in self.arguments if each.check is not None}

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The hyperparameters, and what each is by default."""
        return defaults_of(self.arguments)

    @cached_property
    def signature(self) -> inspect.Signature:
        """The signature of the class, with plain types."""
        return signature_of(self.arguments)

    def check(self, values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """`values` as Python numbers, each checked, and together; `where` begins an error."""
        try:
            return self.check_more({}, values)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{where}{error}") from None

    def check_more(self, known: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Hyperparameters that have been checked, with `values` in place of some of them."""
        checks = self.checks
        checked = {**known, **{name: checks[name](name, value) for name, value in values.items()}}
        refuse_unknown_letters(checked, [*self.letters])
        self.together(checked)
        return checked

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy or pickle of a group refers to the class, which is found by its name.
        return declaration_of, (self.optimizer,)


PUBLIC = ("fusedstep.optimizers", "fusedstep.rules")
"""The modules of this package's public classes, which hints speak of."""


def attach(declaration: Declaration) -> None:
    """Give the declaration to its class, which then knows its hyperparameters by name."""
    setattr(declaration.optimizer, ATTRIBUTE, declaration)
    with_missing(declaration.optimizer, declaration.checks)
    if declaration.optimizer.__module__ in PUBLIC:
        DECLARATIONS.append(declaration)


def declaration_of(optimizer: type) -> Declaration:
    """The declaration of an optimizer's class, or of the class that it is derived from."""
    declaration: Declaration = getattr(optimizer, ATTRIBUTE)
    return declaration


def declare(
    *,
    rule: str | Callable[[Hyperparameters], Rule],
    letters: Mapping[str, str | None],
    scalars: Callable[[Hyperparameters, int], Values],
    constants: Callable[[Hyperparameters], Values],
    together: Callable[[Hyperparameters], None] = no_conflict,
    rate_bound: Callable[[Hyperparameters], bool] = rate_is_free,
    nonnegative: Sequence[str] = (),
) -> Callable[[Class], Class]:
    """Read the declaration of an optimizer's class from its signature.

    `rule` is the name of its rule in reference.py, or the function that chooses one. The
    annotations of `__init__` are aliases such as those of arguments.py. Its docstring gets a
    Parameters section, and its signature the plain types.
    """

    def read(optimizer: Class) -> Class:
        init = vars(optimizer)["__init__"]
        self_argument, *rest = inspect.signature(init, eval_str=True).parameters.values()
        arguments = tuple(
            Argument.read(each.name, each.annotation, each.default, each.kind is not POSITIONAL)
            for each in rest
        )
        declaration = Declaration(
            optimizer,
            arguments,
            letters,
            fixed_rule(rule, letters) if isinstance(rule, str) else rule,
            scalars,
            constants,
            together,
            rate_bound,
            nonnegative=(*nonnegative,),
        )
        attach(declaration)
        optimizer.__doc__ = documented(optimizer.__doc__, arguments)
        init.__signature__ = inspect.Signature(
            [self_argument, *declaration.signature.parameters.values()], return_annotation=None
        )
        explain = explained(
            lambda args, kwargs, error: misfit(declaration, args[1:], kwargs, error)
        )
        setattr(optimizer, init.__name__, explain(init))
        return optimizer

    return read


def fixed_rule(name: str, letters: Mapping[str, str | None]) -> Callable[[Hyperparameters], Rule]:
    """The rule of that name, with the state arrays that hyperparameters switch on."""
    switches = [option for option in letters.values() if option is not None]

    @cache
    def made(inside: bool, *on: bool) -> Rule:
        switched = dict(zip(switches, on, strict=True))
        present = [
            letter if option is None or switched[option] else None
            for letter, option in letters.items()
        ]
        return Rule(name, tuple(present), inside)

    def rule(hyper: Hyperparameters) -> Rule:
        on = [bool(hyper[option]) for option in switches]
        return made(hyper.get("eps_inside_sqrt", False), *on)

    return rule


def documented(text: str | None, arguments: Iterable[Argument]) -> str | None:
    """A docstring with a Parameters section before its notes and examples."""
    if text is None:  # under `python -OO`
        return None
    entries = "".join(f"{each.name}\n{indent(each.text, '    ')}\n" for each in arguments)
    text = inspect.cleandoc(text)
    headings = ("\nNotes\n-----\n", "\nExamples\n--------\n")
    places = (text.find(heading) for heading in headings)
    place = next((place for place in places if place >= 0), len(text))
    return f"{text[:place]}\nParameters\n----------\n{entries}{text[place:]}"
