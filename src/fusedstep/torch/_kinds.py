"""The rules by torch's names: of classes, hyperparameters and state, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from fusedstep import optimizers, rules
from fusedstep._checks.values import Check, rates
from fusedstep._checks.wording import describe
from fusedstep._core.declaration import Declaration, declaration_of, fixed_rule
from fusedstep._core.kept import STORAGE, refuse_unknown_letters
from fusedstep._core.names_in_torch import MOMENTS, NAMES_IN_TORCH
from fusedstep._numerics.coefficients import Hyperparameters, Rule, Values
from fusedstep._numerics.momenta import Momenta, momenta

Group = dict[str, Any]
"""One of a torch optimizer's `param_groups`."""


@dataclass(frozen=True)
class Kind:
    """A class of optimizers as torch has it, and the rule that steps it."""

    declaration: Declaration
    names: Mapping[str, str]
    """The state arrays' names in torch, by letter."""
    counted: bool = True
    """Whether state has `"step"`; without it, a parameter has stepped if its arrays are there."""
    product: bool = False
    """Whether state has NAdam's `"mu_product"`."""
    sparse: str | None = None
    """torch's words for a sparse gradient; None: it is taken."""
    sparse_and_decay: str | None = None
    """torch's words for one with weight decay."""
    dense: str | None = None
    """torch's words for a dense gradient; None: it is taken."""
    steps_in: torch.dtype | None = None
    """The dtype of a new `"step"`; None: torch's."""
    of_torch: Callable[[Group], str | None] = lambda group: None
    """Options of a group that torch alone has a step for, in words; None: there are none."""

    def refusal(self, hyper: Hyperparameters) -> str | None:
        """Torch's words for a sparse gradient with these hyperparameters, or None.

        None of torch's steps is by rows, but for SparseAdam's: it has no words for others.
        """
        if hyper["untouched"] is not None:
            return None
        decays = hyper["weight_decay"] != 0
        return self.sparse or (self.sparse_and_decay if decays else None)

    @cached_property
    def options(self) -> dict[str, Any]:
        """All hyperparameters, and what each is by default."""
        return {"decoupled_weight_decay": False, **self.declaration.defaults}

    def hyperparameters(self, group: Group) -> dict[str, Any]:
        """A group's hyperparameters as numbers."""
        values = {}
        for name, default in self.options.items():
            value = group.get(name, default)
            if name == "lr" and is_several(value):
                values[name] = _rates(value)
            else:
                values[name] = self.kept(name, value) if name in STORAGE else _number(name, value)
        if values.get("decay_scale") == "schedule" and values["initial_lr"] is None:
            # Under a name of its own: `initial_lr` is what torch's schedulers begin with.
            values["initial_lr"] = group.setdefault("decay_initial_lr", values["lr"])
        if values["state_dtype"] != "float32":
            self.refuse_low_bits(values)
        return values

    def kept(self, name: str, value: Any) -> Any:
        """A choice of how things are kept, checked; state arrays may be called by torch's names."""
        checked = self.declaration.checks[name](name, value)
        if isinstance(checked, Mapping):
            letters = {of_torch: letter for letter, of_torch in self.names.items()}
            return {letters.get(key, key): each for key, each in checked.items()}
        return checked

    def refuse_low_bits(self, values: Hyperparameters) -> None:
        """Refuse state in fewer bytes that the rule cannot have."""
        refuse_unknown_letters(values, [*self.declaration.letters])
        self.declaration.together(values)


def is_several(lr: Any) -> bool:
    """Whether a learning rate is an array or a tensor of more than one number."""
    return isinstance(lr, (np.ndarray, torch.Tensor)) and bool(np.prod((*lr.shape,)) != 1)


def _rates(lr: Any) -> Any:
    """Rates by column, of an array or a tensor."""
    given = lr.detach().cpu() if isinstance(lr, torch.Tensor) else lr
    if isinstance(given, torch.Tensor):
        given = given.double().numpy() if given.is_floating_point() else given.numpy()
    return rates("lr", given)


def _number(name: str, value: Any) -> Any:
    """A hyperparameter, which may be a tensor of one element, as Python's own number."""
    if type(value) is float or value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (tuple, list, np.ndarray)) and np.ndim(value) == 1:
        return tuple(_number(name, each) for each in value)
    try:
        return value.item() if isinstance(value, torch.Tensor) else float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name}={describe(value)}; pass a number, or a tensor of one element"
        ) from error


def is_fickle(values: Iterable[Any]) -> bool:
    """Whether one of these hyperparameters may change without being assigned to."""
    return any(
        is_fickle(each) if isinstance(each, tuple) else not isinstance(each, FIXED)
        for each in values
    )


FIXED = (float, int, str, type(None))
"""Types of values that stay what they are."""


# ---- rows ----


def with_whole_steps(declaration: Declaration) -> Declaration:
    """A declaration whose sparse gradients are torch's affair, unless `untouched` is given."""
    arguments = [
        each._replace(default=None, check=_optional(each.check))
        if each.name == "untouched" and each.check is not None
        else each
        for each in declaration.arguments
    ]
    return replace(declaration, arguments=(*arguments,))


def _optional(check: Check) -> Check:
    def checked(name: str, value: Any) -> Any:
        return None if value is None else check(name, value)

    return checked


def _with_shared_steps(declaration: Declaration) -> Declaration:
    """A declaration whose rows have the parameter's t."""
    arguments = [
        each._replace(default="shared") if each.name == "row_steps" else each
        for each in declaration.arguments
    ]
    return replace(declaration, arguments=(*arguments,))


# ---- SGD ----


def _dampened_nesterov(group: Group) -> str | None:
    """Options that torch's constructor refuses, and its step takes from a group."""
    if group["nesterov"] and group["momentum"] != 0 and group["dampening"] != 0:
        return "nesterov=True with dampening"
    return None


# ---- Adam and AdamW: one rule, as `decoupled_weight_decay` says ----

ADAM = with_whole_steps(declaration_of(optimizers.AdamW))


def _adam_rule(hyper: Hyperparameters) -> Rule:
    name = "adamw" if hyper["decoupled_weight_decay"] else "adam"
    return fixed_rule(name, ADAM.letters)(hyper)


def _adam_constants(hyper: Hyperparameters) -> Values:
    decoupled = hyper["decoupled_weight_decay"]
    return (optimizers.adamw_constants if decoupled else optimizers.adam_constants)(hyper)


def _adam_scalars(hyper: Hyperparameters, t: int) -> Values:
    decoupled = hyper["decoupled_weight_decay"]
    return (optimizers.adamw_scalars if decoupled else optimizers.adam_scalars)(hyper, t)


# ---- NAdam, whose product of the μ so far is state in torch ----


def next_product(hyper: Hyperparameters, product: Any, t: int) -> Any:
    """μ₁···μₜ after μ₁···μₜ₋₁, in the dtype in which torch multiplies it up."""
    return product * type(product)(_momenta(hyper, t).now)


def _momenta(hyper: Hyperparameters, t: int) -> Momenta:
    return momenta(hyper["betas"][0], hyper["momentum_decay"], t)


def _nadam_scalars(hyper: Hyperparameters, t: int) -> Values:
    values: Values = declaration_of(rules.NAdam).scalars(hyper, t)
    if "product" not in hyper:  # of rows, which have no product of their own
        return values
    now, ahead, _ = _momenta(hyper, t)
    product = float(hyper["product"])
    values["now"] = (1 - now) / (1 - product)
    values["ahead"] = ahead / (1 - product * ahead)
    return values


def _refusal(name: str, instead: str = "") -> str:
    return f"{name} does not support sparse gradients{instead}"


KINDS = {
    "SGD": Kind(
        with_whole_steps(declaration_of(optimizers.SGD)),
        NAMES_IN_TORCH["SGD"],
        counted=False,
        of_torch=_dampened_nesterov,
    ),
    "Adagrad": Kind(
        with_whole_steps(declaration_of(optimizers.Adagrad)),
        NAMES_IN_TORCH["Adagrad"],
        sparse_and_decay="weight_decay option is not compatible with sparse gradients",
    ),
    "RMSprop": Kind(
        with_whole_steps(declaration_of(optimizers.RMSprop)),
        NAMES_IN_TORCH["RMSprop"],
        sparse=_refusal("RMSprop"),
    ),
    "Adam": Kind(
        replace(ADAM, rule=_adam_rule, constants=_adam_constants, scalars=_adam_scalars),
        NAMES_IN_TORCH["Adam"],
        sparse=_refusal("Adam", ", please consider SparseAdam instead"),
    ),
    "NAdam": Kind(
        replace(with_whole_steps(declaration_of(rules.NAdam)), scalars=_nadam_scalars),
        MOMENTS,
        product=True,
        sparse=_refusal("NAdam"),
    ),
    "SparseAdam": Kind(
        _with_shared_steps(declaration_of(optimizers.Adam)),
        MOMENTS,
        dense="SparseAdam does not support dense gradients, please consider Adam instead",
        steps_in=torch.float64,  # torch's step has the precision of its step
    ),
    "RAdam": Kind(with_whole_steps(declaration_of(rules.RAdam)), MOMENTS, sparse=_refusal("RAdam")),
    "Adamax": Kind(
        with_whole_steps(declaration_of(rules.Adamax)),
        NAMES_IN_TORCH["Adamax"],
        sparse=_refusal("Adamax"),
    ),
    "Lion": Kind(
        with_whole_steps(declaration_of(rules.Lion)),
        NAMES_IN_TORCH["Lion"],
        sparse=_refusal("Lion"),
    ),
    "Adan": Kind(
        with_whole_steps(declaration_of(rules.Adan)),
        NAMES_IN_TORCH["Adan"],
        sparse=_refusal("Adan"),
    ),
}
"""Every kind, by the name of torch's class."""
