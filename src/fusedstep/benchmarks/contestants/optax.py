"""optax's updates of the whole list under one `jax.jit`, which may write over what it was given."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

import fusedstep as fs
from fusedstep.benchmarks.contestants.contestant import Contestant, Entry, only_updates
from fusedstep.benchmarks.problem import Problem

NEVER = {
    fs.SGD: {"weight_decay", "dampening"},
    fs.Adagrad: {"weight_decay", "lr_decay"},
    fs.RMSprop: {"weight_decay"},
    fs.Adam: {"weight_decay", "amsgrad", "eps_uncorrected"},
    fs.AdamW: {"amsgrad", "eps_uncorrected", "decay_scale", "initial_lr"},
}
"""Options of ours that optax means otherwise or does not have, besides those of any optimizer."""

MOST_TENSORS = 1_000
"""XLA compiles this many for 8 seconds, and ten times as many until memory runs out."""


class Optax(Contestant):
    name = "optax"
    packages = ("optax", "jax")

    def why_unfit(self, problem: Problem) -> str | None:
        case, hyper = problem.case, problem.hyperparameters
        if len(problem.shapes) > MOST_TENSORS:
            return f"XLA does not compile more than {MOST_TENSORS:,} tensors in reasonable time"
        if case.optimizer not in NEVER:
            return "it is not written out for optax"
        lacking = NEVER[case.optimizer] | {"maximize", "l1"}
        if unknown := sorted(lacking & case.options.keys()):
            return f"optax's has no {', '.join(unknown)} that is the same"
        if hyper.get("bias_correction") is False:
            return "optax's always corrects for bias"
        if case.optimizer is fs.Adagrad and not hyper["eps_inside_sqrt"]:
            return "optax's has ε under the root alone"
        return only_updates("optax's", problem)

    def build(self, problem: Problem) -> Entry:
        import jax
        import optax

        chain = transformation(problem)
        wide = problem.dtype == np.float64
        cpu = jax.devices("cpu")[0]

        def update(params: Any, state: Any, grads: Any) -> Any:
            changes, state = chain.update(grads, state, params)
            return optax.apply_updates(params, changes), state

        with jax.enable_x64(wide):
            params = jax.device_put(problem.start, cpu)
            params = jax.tree.map(jax.numpy.copy, params)  # donated ones are written to
            grads = jax.device_put(problem.grads, cpu)
            state = chain.init(params)
        update = jax.jit(update, donate_argnums=(0, 1))

        def step() -> None:
            nonlocal params, state
            params, state = update(params, state, grads)
            jax.block_until_ready(params)

        def wide_step() -> None:
            with jax.enable_x64(True):
                step()

        made = wide_step if wide else step
        # XLA's threads are as many as there are CPUs, whatever anyone asks.
        return Entry(made, lambda: [np.asarray(p) for p in params], os.cpu_count() or 1)


def transformation(problem: Problem) -> Any:
    """The same update as our optimizer's."""
    import optax

    hyper = problem.hyperparameters
    match problem.case.optimizer:
        case fs.SGD:
            return optax.sgd(hyper["lr"], hyper["momentum"] or None, hyper["nesterov"])
        case fs.Adagrad:
            return optax.adagrad(hyper["lr"], hyper["initial_accumulator_value"], hyper["eps"])
        case fs.RMSprop:  # α inside the buffer, which is the same at a constant α
            return optax.rmsprop(
                hyper["lr"],
                hyper["alpha"],
                hyper["eps"],
                eps_in_sqrt=hyper["eps_inside_sqrt"],
                centered=hyper["centered"],
                momentum=hyper["momentum"] or None,
            )
        case fs.Adam:
            return optax.adam(hyper["lr"], *hyper["betas"], **epsilons(hyper))
        case _:
            decay = hyper["weight_decay"]
            return optax.adamw(hyper["lr"], *hyper["betas"], **epsilons(hyper), weight_decay=decay)


def epsilons(hyper: dict[str, Any]) -> dict[str, float]:
    inside = hyper["eps_inside_sqrt"]
    return {"eps": 0.0 if inside else hyper["eps"], "eps_root": hyper["eps"] if inside else 0.0}
