"""Audits of Keras, of optax and of this package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from auditing import audited, failed
from marks import needs
from reproducing import reproduce

from fusedstep.audits.checks import CHECKS
from fusedstep.audits.records import FAILS, NOT_JUDGED, PASSES

OURS = [
    *("fusedstep.SGD(momentum=0.9)", "fusedstep.Adagrad()", "fusedstep.RMSprop()"),
    *("fusedstep.Adam()", "fusedstep.AdamW()", "fusedstep.rules.Lion()", "fusedstep.rules.RAdam()"),
]

RARER = (
    "NAdam()",
    "Lion()",
    "SGD(momentum=0.9)",
    "Adagrad()",
    "RMSprop()",
    "Adam()",
    "RAdam()",
    "Adamax()",
    "Adan()",
)

OURS_IN_TORCH = [
    "AdamW()",
    *(pytest.param(name, marks=pytest.mark.slow) for name in RARER),
]


@pytest.mark.parametrize("expression", OURS)
def test_our_arrays_pass(expression: str) -> None:
    report = audited(expression)
    assert failed(report) == set()
    assert report.count(PASSES) >= 38


@pytest.mark.parametrize("name", OURS_IN_TORCH)
def test_our_tensors_pass(name: str) -> None:
    needs("torch", "torch")
    report = audited(f"fusedstep.torch.{name}")
    # NAdam's state is torch's, whose product of momenta is in float32, whatever the parameter
    assert failed(report) == ({"float64"} if name == "NAdam()" else set())
    assert report.count(PASSES) >= 36


XLA = {"size of the tensor", "other tensors", "position", "subnormals"}
"""Failures that XLA's code for the CPU may show: rounding by size, and flushed subnormals."""


@pytest.mark.parametrize(
    ("expression", "failing"),
    [
        ("optax.sgd(0.1, momentum=0.9)", set()),
        ("optax.adamw(learning_rate=0.001)", {"zero gradients, float16"}),
        *(
            pytest.param(expression, failing, marks=pytest.mark.slow)
            for expression, failing in (
                ("optax.rmsprop(0.01, momentum=0.9, centered=True)", {"zero gradients, float16"}),
                ("optax.radam(0.01)", set()),
                ("optax.nadamw(0.01)", {"zero gradients, float16"}),
                ("optax.yogi(0.01)", set()),
                ("optax.adan(0.01)", {"zero gradients, float16"}),
                ("optax.chain(optax.clip(1.0), optax.adam(0.001))", {"zero gradients, float16"}),
            )
        ),
    ],
)
def test_optax(expression: str, failing: set[str], tmp_path: Path) -> None:
    needs("optax", "others")
    report = audited(expression)
    assert failed(report) - XLA == failing
    reproduce(report, tmp_path)
    reasons = {finding.check: finding.seen for finding in report.of(NOT_JUDGED)}
    assert "no strides" in reasons["gradient: transposed"]
    assert "no groups" in reasons["groups"]


EXTRAS = {"jax": "others", "torch": "torch"}
"""The extra that brings a backend of Keras."""


@pytest.mark.parametrize("backend", EXTRAS)
@pytest.mark.parametrize(
    "name",
    [
        "Adam()",
        pytest.param("SGD(momentum=0.9, nesterov=True)", marks=pytest.mark.slow),
        pytest.param("Lion()", marks=pytest.mark.slow),
    ],
)
def test_keras(name: str, backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module, extra in (("keras", "others"), (backend, EXTRAS[backend])):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed; `pip install '.[{extra}]'`")
    monkeypatch.setenv("KERAS_BACKEND", backend)
    report = audited.__wrapped__(f"keras.optimizers.{name}")
    assert backend in report.versions
    # the power of its β₂, which is 1 in bfloat16, makes Adam's rate 0
    # and the sign of a NaN is 0 in torch, so that Lion takes no step there
    expected = {
        "Adam()": {"first step, bfloat16"},
        "Lion()": {"NaN"} if backend == "torch" else set(),
    }
    assert failed(report) - XLA == expected.get(name, set())
    assert report.formula == f"{name.partition('(')[0]}, as Keras has it"
    reproduce(report, tmp_path)


def test_rows_of_an_optimizer_that_mixes_elements_are_not_judged() -> None:
    needs("torch", "torch")
    report = audited("torch.optim.Adafactor()")
    assert report.count(FAILS) == 0
    reasons = {finding.check: finding.seen for finding in report.of(NOT_JUDGED)}
    assert "depends on other elements" in reasons["NaN"]
    assert reasons.keys() < {*CHECKS}


def found(expression: str) -> tuple[set[str], dict[str, str]]:
    report = audited(expression)
    return failed(report), {each.check: each.seen for each in report.of(NOT_JUDGED)}


def test_options_that_no_formula_has_are_not_judged() -> None:
    needs("torch", "torch")
    failing, reasons = found("fusedstep.torch.AdamW(max_norm=1.0)")
    assert failing == set()
    assert reasons["first steps"] == "no formula for AdamW with max_norm=1.0"


def test_what_the_expression_asks_for_is_no_failure() -> None:
    needs("torch", "torch")
    failing, reasons = found("torch.optim.AdamW(eps=0.0, lr=torch.tensor(0.01))")
    assert failing == set()
    assert reasons["float64"] == "its lr may be of less precision"
    assert reasons["subnormals"] == "its rule divides 0 by 0 without a gradient"
    failing, reasons = found("torch.optim.SGD(lr=1e30)")
    assert failing == set()
    assert "leave the range" in reasons["weight decay"]


def test_arguments_by_position() -> None:
    needs("optax", "others")
    failing, reasons = found("optax.rmsprop(0.01, 0.8)")
    assert failing - XLA == {"zero gradients, float16"}
    assert "first steps" not in reasons
