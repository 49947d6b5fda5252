"""Errors about arguments and attributes that are not there, and what was meant by them.

What they propose is found in the declarations and in the names that other packages have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, NoReturn, Protocol, TypeVar, cast

from fusedstep._checks.elsewhere import (
    ATTRIBUTES,
    BACKENDS,
    BEFORE,
    BETAS,
    HYPERPARAMETERS,
    INSTEAD,
    NEEDLESS,
    OF_A_STEP,
    SAVING,
    STATE,
    WAITING,
)
from fusedstep._checks.hints import code, filled, nearest, written
from fusedstep._checks.wording import quoted

F = TypeVar("F", bound=Callable[..., Any])


class Declaration(Protocol):
    """The part of a class's declaration that hints read, see declaration.py."""

    @property
    def optimizer(self) -> type: ...

    @property
    def letters(self) -> Mapping[str, str | None]: ...

    @property
    def checks(self) -> Mapping[str, Any]: ...

    @property
    def signature(self) -> Signature: ...

    @property
    def nonnegative(self) -> Sequence[str]: ...


DECLARATIONS: list[Declaration] = []
"""The declarations of this package's own classes."""


def declared_as(name: Any) -> Declaration | None:
    """The declaration of this package's class with a name; None: there is no such class."""
    return next((each for each in DECLARATIONS if each.optimizer.__name__ == name), None)


def public_name(optimizer: type) -> str:
    """A class as programs write it after `import fusedstep as fs`."""
    if optimizer.__module__ == "fusedstep.optimizers":
        return f"fs.{optimizer.__name__}"
    if optimizer.__module__ == "fusedstep.rules":
        return f"fs.rules.{optimizer.__name__}"
    return optimizer.__name__


def declared(optimizer: Any) -> Declaration:
    """The declaration of an optimizer."""
    declaration: Declaration = type(optimizer)._declaration  # noqa: SLF001
    return declaration


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
    every = declaration.signature.parameters.values()
    named = [each for each in every if each.kind is Parameter.KEYWORD_ONLY]
    most = len(every) - len(named)
    for name in kwargs:
        if name not in declaration.signature.parameters:
            return unexpected(title, name, argument_hint(declaration, name, kwargs))
    if len(args) > most:
        return TypeError(
            f"{title}(): too many positional arguments, {len(args)} for {most}; "
            f"pass others by name, as `{code(named[0].name, named[0].default)}`: "
            f"{quoted([each.name for each in named])}"
        )
    if not args and "params" not in kwargs:
        return TypeError(
            f"{title}() lacks 'params', the arrays that it updates; pass them first, as "
            f"`{public_name(declaration.optimizer)}(params)`"
        )
    return TypeError(f"{title}: {error}")


def unexpected(title: str, name: str, hint: str) -> TypeError:
    """The error for an argument that is not there, in Python's own words but for the hint."""
    return TypeError(f"{title}() got an unexpected keyword argument {name!r}; {hint}")


def argument_hint(declaration: Declaration, name: str, given: Mapping[str, Any]) -> str:
    """The remedy for an argument that an optimizer's class does not have."""
    made = public_name(declaration.optimizer)
    found = renamed_argument(made, declaration.signature, name, given)
    if found is not None:
        return found
    if name in INSTEAD:
        return INSTEAD[name]
    known = dict.fromkeys(own for each in DECLARATIONS for own in each.checks)
    own = understood(name, known)
    if own is None:
        return f"it has {', '.join(map(repr, declaration.signature.parameters))}"
    return INSTEAD.get(own) or of_others(own, given[name])


def of_others(own: str, value: Any) -> str:
    """The optimizers that have a hyperparameter, and the first of them with that value."""
    others = [each for each in DECLARATIONS if own in each.checks]
    titles = ", ".join(each.optimizer.__name__ for each in others)
    asked = code(own, fitting(own, value, others[0].signature.parameters))
    return f"of {titles}: `{public_name(others[0].optimizer)}(params, {asked})`"


def renamed_argument(
    made: str, expected: Signature, name: str, given: Mapping[str, Any]
) -> str | None:
    """The remedy for an argument that the class `made` has under another name, or needs not."""
    names, value = expected.parameters, given[name]
    if name in BETAS and "betas" in names:
        return f"pass `betas={betas_of(names['betas'].default, given)}`"
    own = synonym(name, names)
    if own == "params":
        return f"pass the arrays first, as `{made}(params)`"
    if own is not None:
        return f"pass `{code(own, fitting(own, value, names))}`"
    if name in OF_A_STEP:
        asked = of_a_step(name, value)
        elsewhere = f"it is an argument of each step: `opt.step(grads, {asked})`"
        return f"pass `{asked}`" if OF_A_STEP[name] in names else elsewhere
    if name in NEEDLESS:
        return f"leave it out: {NEEDLESS[name]}"
    near = meant(name, names)
    if near is None:
        return None
    return f"did you mean `{code(near, fitting(near, value, names))}`?"


def fitting(own: str, value: Any, names: Mapping[str, Parameter]) -> Any:
    """The value that a hyperparameter, one of `names`, has for that of an argument named otherwise.

    Other packages have devices for backends, a number for each of the betas, and numbers for flags.
    """
    default = names[own].default
    if own == "backend":
        text = str(value).lower().partition(":")[0]  # the device may have a number
        found = BACKENDS.get(text, text)
        return found if found in BACKENDS.values() else "auto"
    if own == "betas" and not isinstance(value, (list, tuple)):
        return betas_of(default, {"beta1": value})
    return bool(value) if isinstance(default, bool) else value


def synonym(name: Any, names: Iterable[str]) -> str | None:
    """The hyperparameter, one of `names`, that has that name in other packages."""
    return next((each for each in HYPERPARAMETERS.get(name, ()) if each in names), None)


def understood(name: Any, names: Iterable[str]) -> str | None:
    """The one of `names` that it is, or is called so elsewhere, or was meant."""
    names = [*names]
    return name if name in names else synonym(name, names) or meant(name, names)


def meant(name: Any, names: Iterable[str]) -> str | None:
    """The one of `names` that is near, or whose name in another package is."""
    names = [*names]
    near = nearest(name, names)
    if near is not None:
        return near
    others = [other for other in HYPERPARAMETERS if synonym(other, names)]
    other = nearest(name, others, cutoff=0.9)
    return None if other is None else synonym(other, names)


def betas_of(betas: Sequence[float], given: Mapping[str, Any]) -> tuple[Any, ...]:
    """The betas with those that are given under names of their own."""
    changed = [*betas]
    for name, value in given.items():
        if BETAS.get(name, len(changed)) < len(changed):
            changed[BETAS[name]] = value
    return tuple(changed)


def key_hint(name: Any, names: Sequence[str]) -> str:
    """The key of a group that was meant, as the end of an error."""
    if name in BETAS and "betas" in names:
        return f"; did you mean 'betas', at index {BETAS[name]}?"
    if name in OF_A_STEP:
        return f"; it is an argument of each step, {OF_A_STEP[name]!r}"
    own = understood(name, names)
    return "" if own is None else f"; did you mean {own!r}?"


def of_a_step(name: str, value: Any) -> str:
    """The argument of a step that was meant, as it is written there."""
    if name == "clip" and isinstance(value, str):  # as it is called there, too
        return f"max_norm=1.0, {code(name, value)}"
    return code(OF_A_STEP.get(name, name), value)


def refuse_group_attribute(group: Any, name: str, value: Any) -> NoReturn:
    """Refuse to set an attribute of a group, whose hyperparameters are keys."""
    names = group.hyperparameters
    own = understood(name, names)
    hint = f"it has {quoted([*names])}"
    if own is not None:
        hint = f"set `opt.param_groups[0][{own!r}] = {written(value)}`"
    raise AttributeError(
        f"a group has no attribute {name!r} to set, but keys; {hint}", name=name, obj=group
    )


def letter_hint(name: Any, letters: Sequence[str]) -> str:
    """The state array that was meant, or all that there are."""
    own = STATE.get(name)
    return f"did you mean {own!r}?" if own in letters else f"it has {quoted(letters)}"


def step_misfit(surplus: Sequence[Any], unknown: Mapping[str, Any]) -> TypeError:
    """The error for arguments that a step does not accept."""
    if surplus:
        return TypeError(
            f"step() takes the gradients alone, and {1 + len(surplus)} arguments were given "
            "without their names; parameters are the optimizer's already: `opt.step(grads)`"
        )
    name, value = next(iter(unknown.items()))
    if synonym(name, ["lr"]) or name == "lr":
        hint = f"set it before, `opt.lr = {written(value)}`"
    elif name in ("closure", "loss"):
        hint = "a step takes the gradients: `opt.step(grads)`"
    elif name in OF_A_STEP:
        hint = f"pass `{of_a_step(name, value)}`"
    elif name in WAITING:
        hint = f"pass `wait={bool(value) is WAITING[name]}`"
    elif name in BEFORE:
        hint = f"a step in flight may come after it: pass `wait=False, after={name}`"
    else:
        near = nearest(name, STEPS_OWN)
        known = f"it has {', '.join(map(repr, STEPS_OWN))}"
        hint = known if near is None else f"did you mean `{code(near, value)}`?"
    return unexpected("step", name, hint)


def signature_of_step(step: Any, otherwise: Any) -> Signature:
    """The signature of a step: its own arguments, and those of what it hands the others to."""
    own, further = signature(step), signature(otherwise).parameters
    given = [each for each in own.parameters.values() if each.name in ("self", *STEPS_OWN)]
    more = [
        each.replace(kind=Parameter.KEYWORD_ONLY)
        for each in further.values()
        if each.name in STEPS_OWN and each.name not in own.parameters
    ]
    return own.replace(
        parameters=[*given, *more], return_annotation=signature(otherwise).return_annotation
    )


STEPS_OWN = ("grads", "scale", "max_norm", "max_value", "zero_grads", "clip", "wait", "after")
"""The arguments of a step."""


# ---- attributes ----


def without_optimizer(given: Any) -> TypeError:
    """The error for a method that was called on a class, or before `__init__` was."""
    if hasattr(type(given), "_declaration"):
        return TypeError(
            f"{type(given).__name__} has not been made; call `super().__init__(params)` in its "
            "`__init__`"
        )
    return TypeError(
        "step() is a method of an optimizer, and was called on the class; make one, "
        "`opt = fs.AdamW(params)`, and call `opt.step(grads)`"
    )


class Groups(tuple[Any, ...]):
    """The groups of an optimizer; to look up a method of lists says why there is none."""

    __slots__ = ()

    def __getattr__(self, name: str) -> NoReturn:
        hint = filled(ATTRIBUTES["add_param_group"], {"CLASS": "AdamW"})
        raise AttributeError(
            f"param_groups is a tuple, and has no {name!r}; {hint}", name=name, obj=self
        )


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
    declaration = declared(optimizer)
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
    kind = declared(optimizer).optimizer
    first = vars(optimizer)["_structure"].paths[0]
    return filled(hint, {"fs.CLASS": public_name(kind), "FIRST": first})


def refuse_attribute(optimizer: Any, name: str, value: Any) -> None:
    """Refuse to set what would be without effect; a derived class may have its own attributes."""
    declaration = declared(optimizer)
    bases = type(optimizer).__mro__
    derived = bases[: bases.index(declaration.optimizer)]
    if any(name in vars(base) or name in vars(base).get("__annotations__", ()) for base in derived):
        return
    hint = setting_hint(declaration, optimizer, name, value)
    if hint is None and derived:
        return
    hint = hint or other_hint(declaration, optimizer, name, value)
    raise AttributeError(
        f"an optimizer has no {name!r} to set; {hint}",
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
        return None
    if own == "lr":
        return f"set `opt.lr = {written(value)}`"
    if own is not None and own in declaration.checks:
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
    if name == "params" or synonym(name, ["params"]):
        made = public_name(declaration.optimizer)
        return f"it keeps the arrays that it was made with; make another: `opt = {made}(params)`"
    if name in ATTRIBUTES:
        return of_optimizer(ATTRIBUTES[name], optimizer)
    near = meant(name, declaration.checks)
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
    if name in STEPS_OWN or name in OF_A_STEP:
        return f"it is an argument of each step: `opt.step(grads, {of_a_step(name, value)})`"
    if hasattr(declaration.optimizer, name):
        return f"it is the optimizer's own; make another, `opt = {made}(params)`"
    return f"what is yours may stand in a class of your own: `class Mine({made}): {name} = None`"
