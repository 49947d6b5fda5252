"""What hyperparameters an optimizer has, and what each must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from fusedstep._checks.values import (
    Check,
    betas,
    decay_scale,
    flag,
    fraction,
    non_negative,
    non_negative_or_none,
    optional_fraction,
    rate,
)
from fusedstep._checks.wording import describe
from fusedstep._numerics.coefficients import Hyperparameters, Rule, Values, no_constants

EACH: dict[str, Check] = {
    "lr": rate,
    "initial_lr": non_negative_or_none,
    "momentum": non_negative,
    "dampening": non_negative,
    "weight_decay": non_negative,
    "l1": non_negative,
    "lr_decay": non_negative,
    "initial_accumulator_value": non_negative,
    "eps": non_negative,
    "alpha": fraction,
    "betas": betas,
    "ema": optional_fraction,
    "nesterov": flag,
    "centered": flag,
    "amsgrad": flag,
    "maximize": flag,
    "lr_in_momentum": flag,
    "eps_inside_sqrt": flag,
    "eps_uncorrected": flag,
    "bias_correction": flag,
    "decay_scale": decay_scale,
}


def check_together(values: dict[str, Any]) -> None:
    if values.get("nesterov") and (values["momentum"] == 0 or values["dampening"] != 0):
        raise ValueError(
            f"nesterov=True with momentum={values['momentum']!r} and "
            f"dampening={values['dampening']!r}; Nesterov's step needs momentum above 0 and "
            "dampening=0"
        )
    if values.get("decay_scale") == "schedule":
        lr, initial_lr = values["lr"], values["initial_lr"]
        if initial_lr is None:
            raise ValueError(
                f"decay_scale='schedule' with lr={describe(lr)} and initial_lr=None; the "
                "schedule's multiplier is lr / initial_lr, so pass as initial_lr the rate where "
                "it is 1"
            )
        if initial_lr == 0 or not (callable(lr) or isfinite(lr / initial_lr)):
            raise ValueError(
                f"decay_scale='schedule' with lr={lr!r} and initial_lr={initial_lr!r}; the "
                "schedule's multiplier is lr / initial_lr, so start from an lr above 0"
            )


class Checks(NamedTuple):
    """What an optimizer's hyperparameters must be, each and together."""

    each: Mapping[str, Check] = EACH
    together: Callable[[dict[str, Any]], None] = check_together


CHECKS = Checks()
"""Of the package's own optimizers."""


def check(values: dict[str, Any], where: str = "", checks: Checks = CHECKS) -> dict[str, Any]:
    """`values` as Python numbers, each checked, and together; `where` begins an error."""
    try:
        checked = {name: checks.each[name](name, value) for name, value in values.items()}
        checks.together(checked)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}{error}") from None
    return checked


class Declaration(NamedTuple):
    """All that an optimizer's class says of its steps."""

    rule: Callable[[Hyperparameters], Rule]
    """The rule that hyperparameters call for."""
    scalars: Callable[[Hyperparameters, int], Values]
    """The scalars of step t that may change from step to step."""
    constants: Callable[[Hyperparameters], Values] = no_constants
    """The scalars that neither t nor the learning rate changes."""
    letters: Sequence[str | None] = ()
    """The state arrays that any of its rules has."""
    checks: Checks = CHECKS
    custom: bool = False
    """Whether it is made by `fusedstep.rule`: for backends that compile rules."""
