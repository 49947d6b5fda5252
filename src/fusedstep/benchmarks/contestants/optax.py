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
        case, h = problem.case, problem.hyperparameters
        if len(problem.shapes) > MOST_TENSORS:
            return f"XLA does not compile more than {MOST_TENSORS:,} tensors in reasonable time"
        if case.optimizer not in NEVER:
            return "it is not written out for optax"
        lacking = NEVER[case.optimizer] | {"maximize", "l1"}
        if unknown := sorted(lacking & case.options.keys()):
            return f"optax's has no {', '.join(unknown)} that is the same"
        if h.get("bias_correction") is False:
            return "optax's always corrects for bias"
        if case.optimizer is fs.Adagrad and not h["eps_inside_sqrt"]:
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

    h = problem.hyperparameters
    match problem.case.optimizer:
        case fs.SGD:
            return optax.sgd(h["lr"], h["momentum"] or None, h["nesterov"])
        case fs.Adagrad:
            return optax.adagrad(h["lr"], h["initial_accumulator_value"], h["eps"])
        case fs.RMSprop:  # α inside the buffer, which is the same at a constant α
            return optax.rmsprop(
                h["lr"],
                h["alpha"],
                h["eps"],
                eps_in_sqrt=h["eps_inside_sqrt"],
                centered=h["centered"],
                momentum=h["momentum"] or None,
            )
        case fs.Adam:
            return optax.adam(h["lr"], *h["betas"], **epsilons(h))
        case _:
            decay = h["weight_decay"]
            return optax.adamw(h["lr"], *h["betas"], **epsilons(h), weight_decay=decay)


def epsilons(h: dict[str, Any]) -> dict[str, float]:
    inside = h["eps_inside_sqrt"]
    return {"eps": 0.0 if inside else h["eps"], "eps_root": h["eps"] if inside else 0.0}
