"""The rules in NumPy, as textbooks write them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

import fusedstep as fs
from fusedstep.benchmarks import textbook
from fusedstep.benchmarks.contestants.contestant import (
    Contestant,
    Entry,
    lacks,
    only_updates,
    renewing,
)
from fusedstep.benchmarks.problem import Case, Problem


def rule_of(case: Case) -> Callable[..., None] | None:
    """The textbook's rule of a case, which has the optimizer's name; None if there is none."""
    name = case.optimizer.__name__.lower()
    if name == "sgd" and case.options.get("momentum"):
        name = "momentum"
    return getattr(textbook, name, None)


class NumPy(Contestant):
    name = "NumPy"

    def why_unfit(self, problem: Problem) -> str | None:
        rule = rule_of(problem.case)
        if rule is None:
            return "the textbook has no such rule"
        return only_updates("the textbook's", problem) or lacks(
            "the textbook's rule", rule, problem
        )

    def build(self, problem: Problem) -> Entry:
        params = problem.params()
        rule = rule_of(problem.case)
        assert rule is not None
        options = {"lr": problem.hyperparameters["lr"], **problem.case.options}
        optimizer = textbook.Textbook(dict(enumerate(params)), rule, **options)
        step = partial(optimizer.step, dict(enumerate(problem.grads)))
        return Entry(step, lambda: params, 1)


class NumPyPasses(Contestant):
    """The whole step with NumPy, one pass over the arrays after the other."""

    name = "NumPy's passes"

    def why_unfit(self, problem: Problem) -> str | None:
        return why_no_passes(problem)

    def build(self, problem: Problem) -> Entry:
        params, grads = problem.params(), problem.own_grads()
        hyper, request = problem.hyperparameters, problem.case.request
        averages = [p.copy() for p in params]
        optimizer = textbook.Textbook(
            dict(enumerate(params)),
            textbook.adamw,
            lr=hyper["lr"],
            weight_decay=hyper["weight_decay"],
        )

        def step() -> None:
            for g in grads:
                g *= 1 / request["scale"]
            norm = np.sqrt(sum(float(np.sum(g * g)) for g in grads))
            if norm > request["max_norm"]:
                for g in grads:
                    g *= request["max_norm"] / float(norm)
            optimizer.step(dict(enumerate(grads)))
            for g in grads:
                g[...] = 0
            for p, average in zip(params, averages, strict=True):
                average *= hyper["ema"]
                average += (1 - hyper["ema"]) * p

        return Entry(step, lambda: params, 1, renewing(grads, problem))


def why_no_passes(problem: Problem) -> str | None:
    """Return why the passes written out for NumPy and torch do not make a problem's whole step."""
    request, options = problem.case.request, problem.case.options
    if problem.case.optimizer is not fs.AdamW:
        return "the passes are written out for AdamW alone"
    if request.keys() != {"scale", "max_norm", "zero_grads"} or not request["zero_grads"]:
        return "the passes are unscaling, clipping by the norm, update, zeros and average"
    if options.keys() != {"weight_decay", "ema"}:
        return "the passes know `weight_decay` and `ema` alone"
    return None
