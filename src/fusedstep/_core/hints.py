"""Errors about arguments and attributes that are not there, and what was meant by them.

What they propose is found in the declarations and in the names that other packages have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fusedstep._checks.elsewhere import (
    ATTRIBUTES,
    BETAS,
    HYPERPARAMETERS,
    INSTEAD,
    NEEDLESS,
    OF_A_STEP,
    SAVING,
    STATE,
)
from fusedstep._checks.hints import code, did_you_mean, filled, nearest, written
from fusedstep._checks.wording import quoted

if TYPE_CHECKING:
    from fusedstep._core.declaration import Declaration

F = TypeVar("F", bound=Callable[..., Any])

DECLARATIONS: list[Declaration] = []
"""Those of this package's own classes."""


def public_name(optimizer: type) -> str:
    """A class as programs write it after `import fusedstep as fs`."""
    if optimizer.__module__ == "fusedstep.optimizers":
        return f"fs.{optimizer.__name__}"
    if optimizer.__module__ == "fusedstep.rules":
        return f"fs.rules.{optimizer.__name__}"
    return optimizer.__name__


# ---- arguments ----


def explained(explain: Callable[[Any, Any, TypeError], TypeError]) -> Callable[[F], F]:
    """Have a function's errors about arguments say what was meant.

    `explain` makes the error of the arguments, those by position and those by name, and of the one
    that Python raised.
    """

    def wrap(function: F) -> F:
        @wraps(function)
        def accepting(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except TypeError as error:
                if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                    raise  # from further inside: the arguments were accepted
                raise explain(args, kwargs, error) from None

        return cast(F, accepting)

    return wrap


def misfit(
    declaration: Declaration, args: Sequence[Any], kwargs: Mapping[str, Any], error: TypeError
) -> TypeError:
    """The error for arguments that a class does not accept, after `self`, in Python's place."""
    title = declaration.optimizer.__name__
    named = [each for each in declaration.arguments if each.keyword_only]
    most = len(declaration.arguments) - len(named)
    for name in kwargs:
        if name not in declaration.signature.parameters:
            return unexpected(title, name, argument_hint(declaration, name, kwargs))
    if len(args) > most:
        return TypeError(
            f"{title}() takes {most} arguments without their names, and {len(args)} were given; "
            f"pass others by name, as `{code(named[0].name, named[0].default)}`: "
            f"{quoted([each.name for each in named])}"
        )
    if not args and "params" not in kwargs:
        return TypeError(
            f"{title}() needs the arrays that it updates; pass them first, as "
            f"`{public_name(declaration.optimizer)}(params)`"
        )
    return TypeError(f"{title}: {error}")


def unexpected(title: str, name: str, hint: str) -> TypeError:
    """The error for an argument that is not there, in Python's own words but for the hint."""
    return TypeError(f"{title}() got an unexpected keyword argument {name!r}; {hint}")


def argument_hint(declaration: Declaration, name: str, given: Mapping[str, Any]) -> str:
    """The remedy for an argument that an optimizer's class does not have."""
    names = [each.name for each in declaration.arguments]
    value = given[name]
    if name in BETAS and "betas" in names:
        return f"pass `betas={betas_of(declaration.defaults['betas'], given)}`"
    own = synonym(name, names)
    if own == "params":
        return f"pass the arrays first, as `{public_name(declaration.optimizer)}(params)`"
    if own is not None:
        return f"pass `{code(own, value)}`"
    if name in OF_A_STEP:
        return f"it is an argument of each step: `opt.step(grads, {code(OF_A_STEP[name], value)})`"
    if name in NEEDLESS:
        return f"leave it out: {NEEDLESS[name]}"
    near = nearest(name, names)
    if near is not None:
        return f"did you mean `{code(near, value)}`?"
    if name in INSTEAD:
        return INSTEAD[name]
    others = [each.optimizer for each in DECLARATIONS if name in each.checks]
    if others:
        titles = ", ".join(each.__name__ for each in others)
        return f"of {titles}: `{public_name(others[0])}(params, {code(name, value)})`"
    return f"it has {', '.join(map(repr, names))}"


def synonym(name: Any, names: Iterable[str]) -> str | None:
    """The hyperparameter, one of `names`, that has that name in other packages."""
    return next((each for each in HYPERPARAMETERS.get(name, ()) if each in names), None)


def betas_of(betas: Sequence[float], given: Mapping[str, Any]) -> tuple[Any, ...]:
    """The betas with those that are given under names of their own."""
    changed = [*betas]
    for name, value in given.items():
        if BETAS.get(name, len(changed)) < len(changed):
            changed[BETAS[name]] = value
    return tuple(changed)


def key_hint(name: Any, names: Sequence[str]) -> str:
    """What a group's key was meant to be, or all that there are."""
    if name in BETAS and "betas" in names:
        return f"`'betas'` has it, at index {BETAS[name]}"
    own = synonym(name, names)
    if own is not None:
        return f"did you mean {own!r}?"
    if name in OF_A_STEP:
        return f"it is an argument of each step, {OF_A_STEP[name]!r}"
    return did_you_mean(name, names, "it has")


def letter_hint(name: Any, letters: Sequence[str]) -> str:
    """Which state array was meant, or all that there are."""
    own = STATE.get(name)
    return f"did you mean {own!r}?" if own in letters else f"it has {quoted(letters)}"


# ---- attributes ----


class Missing:
    """An attribute that other packages' optimizers have: looking it up says what is here instead.

    Such descriptors cost nothing but where they are looked up, as a `__getattr__` would.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.__doc__ = "An attribute of other packages' optimizers; looking it up is an error."

    def __get__(self, optimizer: Any, kind: type) -> Any:
        if optimizer is None:
            raise AttributeError(
                f"type object {kind.__name__!r} has no attribute {self.name!r}",
                name=self.name,
                obj=kind,
            )
        if self.name in vars(optimizer):
            return vars(optimizer)[self.name]
        raise AttributeError(
            f"{kind.__name__!r} object has no attribute {self.name!r}; "
            f"{attribute_hint(optimizer, self.name)}",
            name=self.name,
            obj=optimizer,
        )

    def __set__(self, optimizer: Any, value: Any) -> None:
        vars(optimizer)[self.name] = value

    def __delete__(self, optimizer: Any) -> None:
        del vars(optimizer)[self.name]


def with_missing(optimizer: type, names: Iterable[str]) -> None:
    """Have a class say of attributes that it lacks what is there instead."""
    for name in names:
        if not any(name in vars(base) for base in optimizer.__mro__):
            setattr(optimizer, name, Missing(name))


MISSING = [*ATTRIBUTES, *BETAS, *HYPERPARAMETERS, *STATE]
"""Attributes that people look for on any optimizer."""


def attribute_hint(optimizer: Any, name: str) -> str:
    """The remedy for an attribute that was looked up."""
    declaration: Declaration = type(optimizer)._declaration  # noqa: SLF001
    names = declaration.checks
    place = "opt.param_groups[0]"
    if name in names:
        return f"`{place}[{name!r}]` has the first group's"
    if name in ATTRIBUTES:
        return of_optimizer(ATTRIBUTES[name], optimizer)
    if name in BETAS and "betas" in names:
        return f"`{place}['betas'][{BETAS[name]}]` has the first group's"
    own = synonym(name, names)
    if own is not None:
        return "`opt.lr` is it" if own == "lr" else f"`{place}[{own!r}]` has the first group's"
    if STATE.get(name) in ("t", *declaration.letters):
        return of_optimizer(f"it is state: `opt.stateFIRST[{STATE[name]!r}]`", optimizer)
    return f"it has {quoted([each for each in dir(optimizer) if not each.startswith('_')])}"


def of_optimizer(hint: str, optimizer: Any) -> str:
    """A hint with the class of an optimizer, and its first parameter's place."""
    kind = type(optimizer)._declaration.optimizer  # noqa: SLF001
    first = vars(optimizer)["_structure"].paths[0]
    return filled(hint, {"fs.CLASS": public_name(kind), "FIRST": first})


def refuse_attribute(optimizer: Any, name: str, value: Any) -> None:
    """Refuse to set what would be without effect; a derived class may have its own attributes."""
    declaration: Declaration = type(optimizer)._declaration  # noqa: SLF001
    bases = type(optimizer).__mro__
    derived = bases[: bases.index(declaration.optimizer)]
    if any(name in vars(base) or name in vars(base).get("__annotations__", ()) for base in derived):
        return
    meant = setting_hint(declaration, optimizer, name, value)
    if meant is None and derived:
        return
    raise AttributeError(
        f"an optimizer has no {name!r} to set; {meant or other_hint(declaration, optimizer, name, value)}",
        name=name,
        obj=optimizer,
    )


def setting_hint(declaration: Declaration, optimizer: Any, name: str, value: Any) -> str | None:
    """The remedy for setting an argument, or what others call so; None for other names."""
    names = declaration.signature.parameters
    if name in BETAS and "betas" in names:
        changed = betas_of(optimizer.param_groups[0]["betas"], {name: value})
        return f"set {in_group('betas', changed, optimizer)}"
    own = name if name in names else synonym(name, names)
    made = public_name(declaration.optimizer)
    if own == "params":
        return f"it keeps the arrays that it was made with; make another: `opt = {made}(params)`"
    if own == "lr":
        return f"set `opt.lr = {written(value)}`"
    if own in declaration.checks:
        return f"set {in_group(own, value, optimizer)}"
    if own is not None:
        return f"it is chosen when it is made: `opt = {made}(params, {code(own, value)})`"
    return None


def in_group(name: str, value: Any, optimizer: Any) -> str:
    """The assignment of a hyperparameter to groups."""
    text = f"`opt.param_groups[0][{name!r}] = {written(value)}`"
    return text if len(optimizer.param_groups) == 1 else f"{text}, and so for each group"


def other_hint(declaration: Declaration, optimizer: Any, name: str, value: Any) -> str:
    """The remedy for setting what is no argument."""
    if name in ATTRIBUTES:
        return of_optimizer(ATTRIBUTES[name], optimizer)
    near = nearest(name, declaration.checks)
    if near == "lr":
        return f"did you mean `opt.lr = {written(value)}`?"
    if near is not None:
        return f"did you mean `opt.param_groups[0][{near!r}] = {written(value)}`?"
    others = [each.optimizer.__name__ for each in DECLARATIONS if name in each.checks]
    if others:
        return f"{quoted(others)} have it, and {declaration.optimizer.__name__} does not"
    if name == "state":
        return f"write into its arrays, or load what was saved: {SAVING}"
    made = public_name(declaration.optimizer)
    return f"what is yours may stand in a class of your own: `class Mine({made}): {name} = None`"
