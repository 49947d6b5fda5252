"""Audit the optimizers that are installed, and keep the findings: `python bench/audit.py [TEXT]`.

With a text, only the expressions that hold it are audited; the findings of others stay in
bench/audits.json. What is not installed is left out, and said.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fusedstep.audits.audit import RefusedError, audit
from fusedstep.audits.expression import parse
from fusedstep.audits.records import FAILS, PASSES

KEPT = Path(__file__).parent / "audits.json"

FUSED = ("SGD", "SGD(momentum=0.9)", "Adagrad", "Adam", "AdamW")
FOREACH = (
    *(*FUSED, "RMSprop", "RMSprop(momentum=0.9, centered=True)", "Adam(amsgrad=True)", "NAdam"),
    *("RAdam", "Adamax", "Adadelta", "ASGD", "Rprop", "Adafactor"),
)
TORCH = (*FOREACH, "Muon")
KERAS = (
    *("SGD", "SGD(momentum=0.9)", "Adagrad", "RMSprop", "Adam", "AdamW", "Nadam", "Adamax"),
    *("Adadelta", "Lion", "Ftrl", "Lamb", "Adafactor", "Muon"),
)
OPTAX = (
    *("sgd", "sgd(momentum=0.9)", "adagrad", "rmsprop", "adam", "adamw", "nadam", "radam"),
    *("adamax", "adadelta", "lion", "adabelief", "adan", "amsgrad", "lamb", "novograd", "yogi"),
)
OURS = ("SGD", "SGD(momentum=0.9)", "Adagrad", "RMSprop", "Adam", "AdamW")
RULES = ("NAdam", "RAdam", "Adamax", "Lion", "Adan")
OTHERS = (
    *(f"bitsandbytes.optim.{name}()" for name in ("AdamW", "Lion", "AdamW8bit", "Adagrad")),
    "bitsandbytes.optim.SGD(lr=0.01, momentum=0.9)",
    *(f"torchao.optim.{name}()" for name in ("AdamW8bit", "AdamW4bit", "AdamWFp8")),
    "torchao.optim._AdamW(bf16_stochastic_round=True)",
    *(f"pytorch_optimizer.{name}()" for name in ("AdaBelief", "Adan", "Lion", "StableAdamW")),
    *(f"torch_optimizer.{name}()" for name in ("AdaBelief", "RAdam", "Yogi", "NovoGrad")),
    *(f"optimi.{name}(lr=0.001)" for name in ("AdamW", "SGD", "Lion", "StableAdamW", "RAdam")),
    *("lion_pytorch.Lion()", "prodigyopt.Prodigy()"),
)


def expressions() -> Iterator[tuple[str, str]]:
    """Each expression, and the backend of Keras for it."""
    for name, known in (("", TORCH), ("foreach=True", FOREACH), ("fused=True", FUSED)):
        for each in known:
            yield f"torch.optim.{called(each, name)}", ""
    for backend in ("jax", "torch"):
        for each in KERAS:
            yield f"keras.optimizers.{called(each)}", backend
    for each in OPTAX:
        yield f"optax.{called(each, 'learning_rate=0.001')}", ""
    for each in OTHERS:
        yield each, ""
    for each in (*OURS, *RULES):
        yield f"fusedstep.{'rules.' * (each in RULES)}{called(each)}", ""
        yield f"fusedstep.torch.{called(each)}", ""


def called(name: str, argument: str = "") -> str:
    """A call of an optimizer, with one more argument."""
    path, _, given = name.removesuffix(")").partition("(")
    return f"{path}({', '.join(filter(None, (argument, given)))})"


def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    return found


def briefly(findings: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Findings without those that passed, and with one reproducer for each group of checks."""
    shown = set()
    for finding in findings:
        if finding["verdict"] != FAILS or finding["group"] in shown:
            del finding["reproducer"], finding["printed"]
        else:
            shown.add(finding["group"])
        if finding["verdict"] != PASSES:
            yield finding


def main(chosen: str) -> None:
    for expression, backend in expressions():
        if chosen not in f"{expression} {backend}":
            continue
        if backend:
            os.environ["KERAS_BACKEND"] = backend
        try:
            report = audit(parse(expression)).to_dict()
        except RefusedError as error:
            print(f"{expression}: left out: {error}")
            continue
        report["findings"] = [*briefly(report["findings"])]
        title = f"{expression}, on {backend}" if backend else expression
        KEPT.write_text(json.dumps({**kept(), title: report}, indent=1) + "\n", "utf-8")
        print(f"{title}: {report['counts']}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if sys.argv[1:] else "")
