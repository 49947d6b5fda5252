"""The formulas of the audit against the tests' own oracle, in long double."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest

from fusedstep import presets
from fusedstep.audits.formulas import trajectory
from fusedstep.audits.kinds import Formula, Kind, UnknownError, formula

RANDOM = np.random.default_rng(0)
START = RANDOM.normal(size=20)
GRADIENTS = [*RANDOM.normal(size=(30, 20))]

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "maximize": True}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "lr_in_momentum": True}),
    ("SGD", {"momentum": 0.9, "lr_in_momentum": True}),
    ("Adagrad", {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.1}),
    ("Adagrad", {"eps": 0.1, "eps_inside_sqrt": True}),
    ("RMSprop", {"weight_decay": 0.1}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("RMSprop", {"momentum": 0.9, "lr_in_momentum": True, "eps_inside_sqrt": True}),
    ("Adam", {"weight_decay": 0.1}),
    ("Adam", {"amsgrad": True, "maximize": True}),
    ("Adam", {"eps": 0.1, "eps_inside_sqrt": True}),
    ("Adam", {"eps": 0.1, "eps_uncorrected": True}),
    ("Adam", {"bias_correction": False}),
    ("AdamW", {"weight_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"weight_decay": 0.1}),
    ("Adamax", {"weight_decay": 0.1}),
    ("Lion", {"weight_decay": 0.1}),
    ("Yogi", {"weight_decay": 0.1}),
    ("Yogi", {"initial_v": 0.1, "bias_correction": False}),
    ("Adan", {"weight_decay": 0.1}),
    ("Adan", {"weight_decay": 0.1, "no_prox": True, "maximize": True}),
]

OWN: dict[str, dict[str, Any]] = {
    "Yogi": {"betas": (0.9, 0.999), "eps": 1e-3, "initial_v": 1e-6},
    "Adan": {"betas": (0.98, 0.92, 0.99), "eps": 1e-8, "no_prox": False},
}
"""Hyperparameters of rules that no preset is for."""


def named(name: str, options: dict[str, Any]) -> Formula:
    return formula("torch", Kind(name), options)


@pytest.mark.parametrize(("name", "changes"), CASES, ids=str)
def test_trajectories(name: str, changes: dict[str, Any]) -> None:
    preset = OWN.get(name) or getattr(presets.torch, name, None) or getattr(presets.keras, name)
    options = {**preset, "lr": 0.01, **changes}
    kept = {key: value for key, value in options.items() if key != "decay_scale"}
    expected = getattr(oracle, name.lower())(START, GRADIENTS, **kept)["p"][-1]
    found = named(name, options)
    end = trajectory(found.rule, START, GRADIENTS, **found.options).p
    np.testing.assert_allclose(end, expected.astype(float), rtol=1e-12, atol=1e-13)


def test_adadelta() -> None:
    found = named("Adadelta", {"lr": 1.0, "rho": 0.9, "eps": 1e-6})
    end = trajectory(found.rule, np.zeros(1), [np.ones(1)], **found.options).p
    assert end == pytest.approx(-np.sqrt(1e-6) / np.sqrt(0.1 + 1e-6))


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("Shampoo", {}, "no formula for Shampoo"),
        ("SGD", {"lr": "<function>"}, "no formula for SGD with lr=<function>"),
        ("SGD", {"lr": 0.1, "sparse": True}, "no formula for SGD with sparse=True"),
        ("AdamW", {"lr": 0.1, "betas": [0.9]}, "no formula for AdamW with betas=[0.9]"),
        ("Adan", {"lr": 0.1, "betas": [0.9, 0.9]}, "no formula for Adan with betas=[0.9, 0.9]"),
        ("Adan", {"lr": 0.1, "betas": [0.9] * 3}, "no formula for Adan without no_prox"),
        ("Yogi", {"lr": 0.1, "betas": [0.9] * 2}, "no formula for Yogi with initial_v=None"),
    ],
)
def test_what_has_no_formula(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnknownError) as caught:
        named(name, options)
    assert str(caught.value) == reason
