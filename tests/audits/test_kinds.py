"""The rule that an optimizer is held against: by its name, by its base, or as it is told."""

from __future__ import annotations

from typing import Any

import pytest
from marks import needs

from fusedstep.audits.audit import NO_RULE, RefusedError, kind_of
from fusedstep.audits.expression import parse
from fusedstep.audits.kinds import Formula, Kind, UnknownError, formula
from fusedstep.audits.probe import probe


def kind(expression: str, rule: str = "") -> tuple[Kind, dict[str, Any]]:
    """The kind of an optimizer, and what was found out about it."""
    call = NO_RULE if rule == "none" else parse(rule) if rule else None
    found = probe(expression, "" if rule == "none" else rule)
    assert "refused" not in found, found["refused"]
    return kind_of(parse(expression), call, found), found


def held_against(expression: str, rule: str = "") -> Formula:
    chosen, found = kind(expression, rule)
    return formula(found["framework"], chosen, chosen.values(found["hyperparameters"]))


TORCH = {
    "torch.optim.AdamW()": ("AdamW", ""),
    "faulty_optimizers.TailAdamW()": ("AdamW", "which TailAdamW is derived from"),
    "faulty_optimizers.TwiceAdam()": ("Adam", "which TwiceAdam is derived from"),
    "faulty_optimizers.right.SGD()": ("SGD", "by the name"),
    "faulty_optimizers.Plain()": ("Plain", ""),
    "fusedstep.torch.AdamW()": ("AdamW", ""),
    "fusedstep.torch.Lion()": ("Lion", ""),
    "fusedstep.rules.Adan()": ("Adan", ""),
    "torch.optim.Rprop()": ("Rprop", ""),
}


@pytest.mark.parametrize("expression", TORCH)
def test_classes(expression: str) -> None:
    needs("torch", "torch")
    chosen, _ = kind(expression)
    assert (chosen.name, chosen.why.partition(";")[0]) == TORCH[expression]


def test_hyperparameters_of_a_base_are_those_of_the_subclass() -> None:
    needs("torch", "torch")
    options = held_against("faulty_optimizers.TailAdamW(lr=0.5)").options
    assert options["lr"] == 0.5
    assert options["decoupled"] == 0.01
    assert "weight_decay" in probe("faulty_optimizers.WithArguments()")["accepts"]


def test_a_rule_that_is_named_has_its_defaults_and_what_is_said() -> None:
    needs("torch", "torch")
    found = held_against("faulty_optimizers.Plain(lr=0.5)", "torch.optim.AdamW(betas=(0.8, 0.9))")
    assert found.options["lr"] == 0.5
    assert found.options["betas"] == (0.8, 0.9)
    assert found.options["eps"] == 1e-8
    with pytest.raises(UnknownError, match="by --as none"):
        held_against("torch.optim.AdamW()", "none")


def test_functions() -> None:
    needs("optax", "others")
    assert held_against("optax.adam(0.1)").options["betas"] == (0.9, 0.999)
    assert held_against("optax_optimizers.lion(0.1)").options["betas"] == (0.9, 0.99)
    named = held_against("optax_optimizers.adam(0.1)", "optax.sgd(momentum=0.9)")
    assert (named.options["lr"], named.options["momentum"]) == (0.1, 0.9)
    for name, missing in (("adam", "b1"), ("sgd", "momentum")):
        with pytest.raises(UnknownError, match=f"takes no {missing}, which optax.{name} takes"):
            held_against(f"optax_optimizers.{name}(0.1)")


REFUSED = {
    "optax.adam": "name one of torch or fusedstep",
    "torch.optim.AdamX": "did you mean 'Adamax'",
    "torch.float32": "it is no optimizer of torch or fusedstep",
    "torch.optim.SGD(rate=1.0)": "its arguments are: lr, momentum",
    "torch.optim.SGD(0.1)": "give its hyperparameters by keyword",
}


@pytest.mark.parametrize("rule", REFUSED)
def test_what_is_no_rule(rule: str) -> None:
    needs("torch", "torch")
    refused = probe("faulty_optimizers.Plain()", str(parse(rule)))["refused"]
    assert "is no rule for faulty_optimizers.Plain" in refused
    assert REFUSED[rule] in refused


def test_a_rule_without_a_formula() -> None:
    needs("torch", "torch")
    with pytest.raises(RefusedError, match=r"no formula for torch.optim.Rprop.*: SGD, Adagrad"):
        kind("faulty_optimizers.Plain()", "torch.optim.Rprop")
