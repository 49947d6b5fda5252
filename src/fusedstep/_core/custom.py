"""Custom rules: a scalar Python function becomes an optimizer class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from keyword import iskeyword
from numbers import Real
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fusedstep._backends.plan import MOST_STATES
from fusedstep._checks.names import as_identifier, by_identifier
from fusedstep._checks.values import (
    Check,
    flag,
    fraction,
    non_negative,
    number,
    rate,
    several,
)
from fusedstep._checks.wording import describe, quoted
from fusedstep._core.arguments import (
    L1,
    Backend,
    Capturable,
    CoupledDecay,
    Ema,
    Master,
    Maximize,
    Nonfinite,
    Out,
    Params,
    Rounding,
    RowSteps,
    Seed,
    StateDtype,
    Untouched,
)
from fusedstep._core.declaration import (
    Argument,
    Declaration,
    attach,
    defaults_of,
    signature_of,
)
from fusedstep._core.hints import declared, explained, misfit
from fusedstep._core.optimizer import Optimizer
from fusedstep._core.packed import RESERVED as RESERVED_ENTRIES
from fusedstep._numerics.coefficients import (
    NOTHING_ASKED,
    Hyperparameters,
    Rule,
    Values,
    average_constants,
    gradient_constants,
)
from fusedstep._numerics.of_rate import OfRate

if TYPE_CHECKING:
    from fusedstep._compiler.formula import Formula
    from fusedstep._compiler.source import Function

Prepare: TypeAlias = Callable[[Any, int], Mapping[str, float]]

NOTHING = inspect.Parameter.empty
"""No default, or no type: rules are written without types, and so are their classes."""

PARAMS = Argument.read("params", Params, NOTHING)._replace(type=NOTHING)

COMMON = [
    Argument.read(name, alias, default, keyword_only=True)._replace(type=NOTHING)
    for name, alias, default in (
        ("weight_decay", CoupledDecay, 0.0),
        ("maximize", Maximize, False),
        ("l1", L1, 0.0),
        ("ema", Ema, None),
        ("master", Master, None),
        ("state_dtype", StateDtype, "float32"),
        ("rounding", Rounding, "auto"),
        ("seed", Seed, 0),
        ("untouched", Untouched, "frozen"),
        ("row_steps", RowSteps, "own"),
        ("out", Out, None),
        ("nonfinite", Nonfinite, "propagate"),
        ("capturable", Capturable, False),
        ("backend", Backend, "auto"),
    )
]
"""Arguments of every custom rule, unless it has a weight decay of its own."""

RANGES: dict[str, Check] = {
    "lr": rate,
    "eps": non_negative,
    "weight_decay": non_negative,
    "momentum_decay": non_negative,
    "beta1": fraction,
    "beta2": fraction,
    "beta3": fraction,
}
"""Checks of names that mean the same in every rule; others may be any finite number."""

RESERVED = {*NOTHING_ASKED, *average_constants(0.0), "sign"}
"""Members of h that what stands around a rule reads, and `prepare` has no say in."""

TAKEN = {
    *("self", "params", "l2", *RESERVED, *(each.name for each in COMMON)),
    *("initial_lr", "decay_scale", "initial_accumulator_value"),
} - {"weight_decay"}
"""Names that what is around a rule reads: its constructor, its prologue, groups and state."""


def _misfit(args: Any, kwargs: Any, error: TypeError) -> TypeError:
    """The error for a rule that is given its function at once."""
    return TypeError(
        f"rule() takes its arguments by name, and {len(args)} came without; it makes a decorator, "
        "`@fs.rule(lr=1e-3)`, in which the state arrays and hyperparameters stand"
    )


@explained(_misfit)
def rule(
    *,
    state: Sequence[str] = (),
    prepare: Prepare | None = None,
    nonnegative: Sequence[str] = (),
    **hyperparameters: Any,
) -> Callable[[Function], type[CustomRule]]:
    """Make an optimizer class of a function that updates one element.

    The class is like the package's own: parameters, groups, `step`, `state`, `state_dict`,
    `backend`. It runs on every backend but C, with the same bits on each.

    The function is called as `function(p, g, *state, h)`: the element of the parameter, of
    its gradient, and of each state array; h holds the hyperparameters, as `h.lr`. It returns
    the new p and the new state, in this order. It is read, not run, so it may hold
    assignments, `if` and one `return`, and in them `+ - * /`, `** 2`, comparisons, `and or
    not`, `a if c else b`, numbers, and calls of `sqrt`, `abs`, `min`, `max`, NumPy's `sqrt
    abs sign minimum maximum clip square where`, and of other such functions. All numbers are
    of the parameter's dtype, and so are literals: `1 - h.beta1` is float32 for float32
    arrays. Constants and functions from outside are taken as they are when the class is made.

    As it sees one element, it can hold neither norms nor means nor shapes: LAMB's trust ratio,
    Adafactor's factored moments and centred gradients are none of its. Clipping by the norm is
    `step`'s; what else is done to whole gradients can be done before it.

    Parameters
    ----------
    state
        The names of the state arrays, up to 8. They have the parameter's shape and dtype,
        start as zeros, and stand in `opt.state` under these names.
    prepare
        A function of (h, t), where t counts the steps from 1, that returns a mapping of
        further members of h: the same names each time, and from the same h and t the same
        values. It runs at each step, and once with the defaults when the class is made, in
        float64 and in plain Python, which is where powers such as β₂ᵗ belong. h.lr is the rate
        of step t, also where an optimizer has a function of t for it. What it returns
        under a hyperparameter's name takes its place. As `l2` it may return the λ of coupled
        L2.
    nonnegative
        Those of the state arrays whose values are never negative, as those of a running mean of
        squares. In 8 bits they keep twice the range, and none becomes 0 beside larger ones; where
        they are kept in few bits they are rounded stochastically.
    **hyperparameters
        Each name and its default: a number, True or False, or a tuple of numbers, for
        `prepare` alone. They are arguments of the class, in this order. `lr` must be among
        them. `maximize`, `l1`, `ema`, `nonfinite`, `capturable` and `backend` are there for every
        rule; so is `weight_decay` as coupled L2, unless it is among them, and then it is the
        affair of the function and of `prepare`.

    Raises
    ------
    TypeError, ValueError
        If the function holds something else, returns another number of values, or asks h for
        what is not there. The message names the line.

    Examples
    --------
    >>> import numpy as np, fusedstep as fs
    >>> @fs.rule(state=("m",), lr=1e-4, beta1=0.9, beta2=0.99, weight_decay=0.0)
    ... def Lion(p, g, m, h):
    ...     u = np.sign(h.beta1 * m + (1 - h.beta1) * g)
    ...     p = p - h.lr * (u + h.weight_decay * p)
    ...     m = h.beta2 * m + (1 - h.beta2) * g
    ...     return p, m
    >>> p = np.array([1.0, 2.0])
    >>> _ = Lion(p, lr=0.1).step(np.array([3.0, -0.01]))
    >>> p
    array([0.9, 2.1])
    """
    names = _check_state(state)
    positive = _check_nonnegative(nonnegative, names)
    _check_prepare(prepare)
    own = _check_hyperparameters(hyperparameters)
    arguments = PARAMS, *own.values(), *(each for each in COMMON if each.name not in own)

    def define(function: Function) -> type[CustomRule]:
        if not inspect.isfunction(function):
            raise TypeError(f"{describe(function)} is no function; a rule is one, made by `def`")
        found, expected = list(inspect.signature(function).parameters), ["p", "g", *names, "h"]
        if found != expected:
            raise TypeError(
                f"{function.__name__} has the arguments {quoted(found)}; with state={names!r} "
                f"define it as `def {function.__name__}({', '.join(expected)})`"
            )
        from fusedstep._compiler.parse import parse  # a fifth of the import, and few define rules

        scalars = _Scalars(function.__name__, own, prepare)
        formula = parse(function, scalars.members, results=1 + len(names))
        scalars.read(formula)
        return _optimizer(function, arguments, names, positive, formula, scalars)

    return define


def _check_state(state: Any) -> tuple[str, ...]:
    if not isinstance(state, (tuple, list)):
        example = state if isinstance(state, str) else "m"
        raise TypeError(
            f"state={describe(state)}; pass a tuple of names, as `state=({example!r},)`"
        )
    names = tuple(map(as_identifier, state))
    for name in names:
        if not isinstance(name, str) or not name.isidentifier() or iskeyword(name):
            raise ValueError(f"state has {name!r}, which cannot be an argument's name")
        if name in ("p", "g", "h", "t", "ema", *RESERVED_ENTRIES):
            raise ValueError(f"state has {name!r}, which means something else; rename it")
    if len({*names}) < len(names) or len(names) > MOST_STATES:
        raise ValueError(f"state={names!r}; pass up to {MOST_STATES} different names")
    return names


def _check_nonnegative(nonnegative: Any, names: Sequence[str]) -> tuple[str, ...]:
    given = nonnegative if isinstance(nonnegative, (tuple, list)) else (nonnegative,)
    for name in given:
        if name not in names:
            raise ValueError(
                f"nonnegative={describe(nonnegative)}; pass a tuple of some of the state arrays "
                f"{quoted(names)}"
            )
    return (*given,)


def _check_prepare(prepare: Any) -> None:
    if prepare is None:
        return
    if not callable(prepare):
        raise TypeError(f"prepare={describe(prepare)}; pass a function of h and t")
    try:
        inspect.signature(prepare).bind("h", "t")
    except ValueError:  # it does not say what it takes
        return
    except TypeError as error:
        raise TypeError(
            f"prepare={describe(prepare)} cannot be called with h and t: {error}; "
            "define it as `def prepare(h, t)`"
        ) from None


def _check_hyperparameters(hyperparameters: dict[str, Any]) -> dict[str, Argument]:
    """The keywords of a rule as arguments of its class."""
    if "lr" not in hyperparameters:
        raise TypeError("the rule has no learning rate; give it one, as `lr=1e-3`")
    hyperparameters = by_identifier(hyperparameters, "the rule")
    for name in hyperparameters:
        if name in TAKEN:
            raise ValueError(f"{name!r} means something else already; name it otherwise")
        if not _is_member(name):
            raise ValueError(f"{name!r} cannot be read as a member of h; name it otherwise")
    if callable(hyperparameters["lr"]) or isinstance(hyperparameters["lr"], np.ndarray):
        raise TypeError(
            f"lr={describe(hyperparameters['lr'])}; give the rule a number, and its optimizers "
            "functions and arrays"
        )
    own = {}
    for name, value in hyperparameters.items():
        check = _check_of(name, value)
        default = check(name, value)
        own[name] = Argument(name, NOTHING, default, keyword_only=False, check=check)
    return own


def _writable(name: str) -> str:
    """A name that a class can bear, of a text that may be any."""
    return name.replace("\0", r"\0").encode(errors="backslashreplace").decode()


def _is_member(name: Any) -> bool:
    return (
        isinstance(name, str)
        and name.isidentifier()
        and not name.startswith("_")
        and not iskeyword(name)
    )


def _check_of(name: str, default: Any) -> Check:
    if isinstance(default, bool):
        return flag
    if isinstance(default, (tuple, list)):
        each = fraction if name == "betas" else number
        return partial(several, like=tuple(default), each=each)
    return RANGES.get(name, number)


class _Scalars:
    """A rule's scalars at each step, a function of hyperparameters and t."""

    def __init__(self, name: str, own: dict[str, Argument], prepare: Prepare | None) -> None:
        self.name = name
        self.own_decay = "weight_decay" in own
        self.prepare = prepare
        self.direct: list[str] = []
        self.prepared: Values | None = None
        defaults = defaults_of((*COMMON, *own.values()))
        self.prepared = first = self.run_prepare(defaults, 1)
        members = {**{name: defaults[name] for name in own}, **first}
        self.members = {name: type(value) for name, value in members.items()}

    def read(self, formula: Formula) -> None:
        """Note which hyperparameters the function reads as they are."""
        prepared = self.prepared or ()
        self.direct = [name for name in formula.scalars if name not in prepared]

    def __call__(self, hyper: Hyperparameters, t: int) -> Values:
        hyper = {**hyper}  # one moment's: another thread may assign a rate on the way
        prepared = self.run_prepare(hyper, t)
        values = {**NOTHING_ASKED, **gradient_constants({**hyper, **prepared})}
        if self.own_decay:
            values["l2"] = 0.0
        for name in self.direct:
            values[name] = hyper[name]
        values.update(prepared)
        return values

    def run_prepare(self, hyper: Hyperparameters, t: int) -> Values:
        if self.prepare is None:
            return {}
        values = self.prepare(SimpleNamespace(**hyper), t)
        if not isinstance(values, Mapping):
            raise TypeError(
                f"{self.name}: prepare returned {describe(values)}; return a mapping from names "
                "to numbers"
            )
        if self.prepared is None or values.keys() != self.prepared.keys():
            values = by_identifier(values, f"{self.name}: what prepare returned")
        if self.prepared is None:
            self.check_names(values)
        elif values.keys() != self.prepared.keys():
            raise KeyError(
                f"{self.name}: prepare returned {quoted([*values])} at t={t} and "
                f"{quoted([*self.prepared])} at first; return the same names at every step"
            )
        return {  # most are floats, and this runs at every step
            name: value if type(value) is float and value == value else self.number(name, value, t)
            for name, value in values.items()
        }

    def check_names(self, values: Mapping[str, Any]) -> None:
        for name in values:
            if name in RESERVED or not _is_member(name):
                raise ValueError(
                    f"{self.name}: prepare returned {name!r}, which cannot be a member of h or "
                    "means something else; name it otherwise"
                )

    def number(self, name: str, value: Any, t: int) -> float:
        """A value of `prepare`; conditions stay what they are."""
        if isinstance(value, (bool, np.bool_)):
            return bool(value)
        if type(value) is OfRate:
            return value  # type: ignore[return-value]  # of which this is a function, for devices
        if isinstance(value, Real) and value == value:
            with suppress(OverflowError):
                return float(value)
        raise ValueError(
            f"{self.name}: prepare returned {name}={describe(value)} at t={t}; return numbers"
        )


class CustomRule(Optimizer):
    """The base of the classes that `rule` makes."""

    @explained(lambda args, kwargs, error: misfit(declared(args[0]), args[1:], kwargs, error))
    def __init__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        named = by_identifier(kwargs, type(self).__name__)
        try:
            bound = self._declaration.signature.bind(params, *args, **named)
        except TypeError as error:
            raise misfit(self._declaration, (params, *args), named, error) from None
        bound.apply_defaults()
        self._start(bound.arguments)


def _optimizer(
    function: Function,
    arguments: tuple[Argument, ...],
    letters: Sequence[str],
    nonnegative: tuple[str, ...],
    formula: Formula,
    scalars: _Scalars,
) -> type[CustomRule]:
    body = {
        "__doc__": function.__doc__,
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__signature__": signature_of(arguments),
    }
    optimizer: type[CustomRule] = type(_writable(function.__name__), (CustomRule,), body)
    # The name after `def`: kernels bear it, and `__name__` may be any text.
    rule = Rule(formula.name, tuple(letters), formula=formula)
    attach(
        Declaration(
            optimizer,
            arguments,
            dict.fromkeys(letters),
            lambda hyper: rule,
            scalars,
            custom=True,
            nonnegative=nonnegative,
        )
    )
    return optimizer
