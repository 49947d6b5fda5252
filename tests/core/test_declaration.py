"""Declarations: read from the signature of an optimizer's class, and what is made of them."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, get_args

import declarations
import numpy as np
import options
import pytest
from cases import BASES, CUSTOM_OPTIMIZERS, OPTIMIZERS, RULES
from trajectories import oracle_of

import fusedstep as fs
from fusedstep._checks.values import flag, fraction
from fusedstep._core.arguments import (
    L1,
    Backend,
    CoupledDecay,
    Ema,
    Lr,
    Maximize,
    Nonfinite,
    Params,
)
from fusedstep._core.declaration import declaration_of, declare
from fusedstep._core.kept import STORAGE
from fusedstep._core.parameters import rule_of
from fusedstep._numerics import reference, scalar
from fusedstep._numerics.coefficients import Scalars

for_each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.__name__)

Beta = Annotated[float, fraction, "β, in [0, 1)."]
Fast = Annotated[
    bool,
    flag,
    """
    Walk fast.
      As a horse does.
    """,
]


def refuse_both(h: Any) -> None:
    if h["fast"] and h["beta"] == 0:
        raise ValueError("fast=True with beta=0.0; pass beta=0.9")


@declare(
    rule="adam",
    letters={"m": None, "v": None, "x": "fast"},
    constants=lambda h: {},
    scalars=lambda h, t: {},
    together=refuse_both,
)
class Walker(fs.Optimizer):
    """Walk.

    It is a way.

    Examples
    --------
    None.
    """

    def __init__(
        self,
        params: Params,
        lr: Lr = 0.5,
        beta: Beta = 0.25,
        *,
        fast: Fast = False,
        weight_decay: CoupledDecay = 0.0,
        maximize: Maximize = False,
        l1: L1 = 0.0,
        ema: Ema = None,
        nonfinite: Nonfinite = "propagate",
        backend: Backend = "auto",
    ) -> None:
        self._start(locals())


# ---- what is read ----


def test_arguments_with_a_check_are_hyperparameters() -> None:
    opt = Walker([np.ones(2)], beta=0.75)
    values = {name: value for name, value in opt.param_groups[0].items() if name != "params"}
    assert values == {
        "lr": 0.5,
        "beta": 0.75,
        "fast": False,
        "weight_decay": 0.0,
        "maximize": False,
        "l1": 0.0,
        "ema": None,
    }
    assert declaration_of(Walker).defaults == {**values, "beta": 0.25}


def test_each_is_checked_and_all_together() -> None:
    with pytest.raises(ValueError, match=r"^beta=1.5 is outside \[0, 1\)"):
        Walker(np.ones(2), beta=1.5)
    with pytest.raises(ValueError, match=r"^fast=True with beta=0.0; pass beta=0.9"):
        Walker(np.ones(2), beta=0, fast=True)
    with pytest.raises(ValueError, match=r"^params\[1\]: fast=True with beta=0.0"):
        Walker([{"params": np.ones(2)}, {"params": np.ones(2), "fast": True, "beta": 0}])


def test_an_option_switches_its_state_array_on() -> None:
    declaration = declaration_of(Walker)
    assert declaration.rule(declaration.defaults).letters == ("m", "v", None)
    assert declaration.rule({**declaration.defaults, "fast": True}).letters == ("m", "v", "x")


def test_the_docstring_has_a_section_of_parameters() -> None:
    text = inspect.getdoc(Walker)
    assert text is not None
    head, entries = text.split("Parameters\n----------\n")
    assert head == "Walk.\n\nIt is a way.\n\n"
    assert (
        "beta\n    β, in [0, 1).\nfast\n    Walk fast.\n      As a horse does.\nweight" in entries
    )
    assert entries.endswith("lists them.\n\nExamples\n--------\nNone.")


def test_the_signature_has_plain_types() -> None:
    of_class, of_init = inspect.signature(Walker), inspect.signature(Walker.__init__)
    assert str(of_class).startswith("(params: Any, lr: float | numpy.ndarray")
    assert ", beta: float = 0.25, *, fast: bool = False, " in str(of_class)
    assert str(of_class).endswith(", backend: str = 'auto') -> None")
    assert [*of_init.parameters] == ["self", *of_class.parameters]


# ---- classes that are derived from one ----


class Mine(fs.AdamW):
    def __init__(self, params: Any, warmer: float) -> None:
        super().__init__(params, warmer / 10, weight_decay=0.5)


class Same(fs.AdamW):
    """AdamW, unchanged."""


def test_a_derived_class_may_have_arguments_of_its_own() -> None:
    p, q = np.ones(3), np.ones(3)
    mine, same = Mine(p, 2.0), Same(q, 0.2, weight_decay=0.5)
    for opt in (mine, same):
        opt.step(np.array([1.0, -2.0, 0.5]))
    np.testing.assert_array_equal(p, q)
    assert [*inspect.signature(Mine).parameters] == ["params", "warmer"]
    assert inspect.signature(Same) == inspect.signature(fs.AdamW)
    assert inspect.getdoc(Same) == "AdamW, unchanged."


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("optimizer", [fs.SGD, Same, fs.rules.Lion])
def test_copies_have_the_declaration_of_their_class(optimizer: Any, copied: Any) -> None:
    p = np.ones(3)
    q, opt = copied((p, optimizer(p)))
    assert opt.param_groups[0].declaration is declaration_of(optimizer)
    with pytest.raises(ValueError, match="lr=-1 is negative"):
        opt.lr = -1
    opt.step(np.ones(3))
    assert (q != 1).all()
    assert (p == 1).all()


# ---- the package's own ----


@for_each_optimizer
def test_the_parameters_section_names_every_argument_in_order(optimizer: Any) -> None:
    text = inspect.getdoc(optimizer) or ""
    section = re.search(r"Parameters\n-{10}\n(.*?)\n\nNotes\n-----\n", text, re.DOTALL)
    assert section is not None
    assert re.findall(r"^\w+$", section[1], re.MULTILINE) == [
        *inspect.signature(optimizer).parameters
    ]


@for_each_optimizer
def test_scalars_are_members_that_kernels_read(optimizer: Any) -> None:
    """Constants and scalars together have each member once."""
    declaration = declaration_of(optimizer)
    constants = declaration.constants(declaration.defaults)
    scalars = declaration.scalars(declaration.defaults, 1)
    assert constants.keys() | scalars.keys() <= {*Scalars._fields}
    assert not constants.keys() & scalars.keys()


def test_every_rule_is_written_and_has_a_case() -> None:
    names = {rule.name for rule in RULES}
    of_cases = {
        rule_of(
            declaration_of(case.optimizer),
            case.optimizer(np.ones(1), **case.options).param_groups[0],
        )
        for case in BASES
    }
    assert of_cases == RULES
    for module in (reference, scalar):
        written = {
            name
            for name, function in vars(module).items()
            if inspect.isfunction(function) and "inside" in inspect.signature(function).parameters
        }
        assert written - OF_SKLEARN == names


OF_SKLEARN = {"adam_rearranged"}
"""Rules that `fusedstep.sklearn` alone steps by; tests/sklearn/test_rules.py has their cases."""


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, *CUSTOM_OPTIMIZERS], ids=lambda o: o.__name__)
def test_the_oracle_has_its_hyperparameters_and_defaults(optimizer: Any) -> None:
    ours = declaration_of(optimizer).defaults
    theirs = inspect.signature(oracle_of(optimizer)).parameters
    assert ours.keys() - theirs.keys() <= {"ema", "initial_lr", *STORAGE}
    for name in ours.keys() & theirs.keys():
        assert theirs[name].default == ours[name], name


def test_groups_cannot_differ_in_what_has_no_check() -> None:
    for optimizer in OPTIMIZERS:
        whole = [each.name for each in declaration_of(optimizer).arguments if not each.check]
        assert whole == ["params", "out", "nonfinite", "capturable", "backend"]


def test_every_alias_says_what_it_is() -> None:
    for optimizer in OPTIMIZERS:
        for each in declaration_of(optimizer).arguments:
            assert each.text.endswith("."), each.name
            assert Annotated not in get_args(each.type)


def test_without_docstrings() -> None:
    code = (
        "import numpy as np, fusedstep as fs; p = np.ones(2); "
        "fs.AdamW(p, lr=0.5).step(np.ones(2)); "
        "raise SystemExit(int(p[0] == 1 or fs.AdamW.__doc__ is not None))"
    )
    subprocess.run([sys.executable, "-OO", "-c", code], check=True)


# ---- what is written from it ----


def test_functional_is_what_the_declarations_make_of_it() -> None:
    assert declarations.functional() == Path(fs.functional.__file__).read_text("utf-8")


def test_the_tables_have_every_class_and_argument() -> None:
    classes, glossary = options.classes(), declarations.glossary()
    assert [line.split("`")[1] for line in classes.splitlines()[2:]] == [
        f"fs.{optimizer.__name__}" for optimizer in OPTIMIZERS
    ]
    for optimizer in OPTIMIZERS:
        for each in declaration_of(optimizer).arguments:
            assert f"| `{each.name}` | " in glossary
            of_all = "params", "ema", *STORAGE, "out", "nonfinite", "capturable", "backend"
            shared = each.name in of_all
            assert (f"`{each.name}`" in classes) is not shared
    assert {line.count(" | ") for line in classes.splitlines()} == {3}
    assert {line.count(" | ") for line in glossary.splitlines()} == {2}
