"""optax's updates of all tensors under one `jax.jit`, which may reuse the memory it is given."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

import fusedstep as fs
from fusedstep.benchmarks.contestants.contestant import Contestant, Entry, only_updates
from fusedstep.benchmarks.problem import Problem

ALIKE = {
    fs.SGD: {"lr", "momentum", "nesterov", "lr_in_momentum"},
    fs.Adagrad: {"lr", "initial_accumulator_value", "eps", "eps_inside_sqrt"},
    fs.RMSprop: {
        *("lr", "alpha", "eps", "momentum", "centered", "eps_inside_sqrt", "lr_in_momentum"),
    },
    fs.Adam: {"lr", "betas", "eps", "eps_inside_sqrt", "bias_correction"},
    fs.AdamW: {"lr", "betas", "eps", "weight_decay", "eps_inside_sqrt", "bias_correction"},
}
"""Options of each optimizer that mean the same in optax."""

MOST_TENSORS = 1_000
"""XLA takes 8 seconds to compile this many; at ten times as many it runs out of memory."""


class Optax(Contestant):
    name = "optax"
    packages = ("optax", "jax")

    def why_unfit(self, problem: Problem) -> str | None:
        case, hyper = problem.case, problem.hyperparameters
        if len(problem.shapes) > MOST_TENSORS:
            return f"XLA does not compile more than {MOST_TENSORS:,} tensors in reasonable time"
        if case.optimizer not in ALIKE:
            return "it is not written out for optax"
        known = {*ALIKE[case.optimizer], *problem.additions}
        if unknown := sorted(case.options.keys() - known):
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
        float64 = problem.dtype == np.float64
        cpu = jax.devices("cpu")[0]

        def update(params: Any, state: Any, grads: Any) -> Any:
            changes, state = chain.update(grads, state, params)
            return optax.apply_updates(params, changes), state

        with jax.enable_x64(float64):
            params = jax.device_put(problem.start, cpu)
            params = jax.tree.map(jax.numpy.copy, params)  # the jitted function overwrites them
            grads = jax.device_put(problem.grads, cpu)
            state = chain.init(params)
        update = jax.jit(update, donate_argnums=(0, 1))

        def step() -> None:
            nonlocal params, state
            params, state = update(params, state, grads)
            jax.block_until_ready(params)

        def step_in_float64() -> None:
            with jax.enable_x64(True):
                step()

        chosen = step_in_float64 if float64 else step
        threads = os.cpu_count() or 1  # XLA does not go by torch's setting, nor by ours
        return Entry(chosen, lambda: [np.asarray(p) for p in params], threads)


def transformation(problem: Problem) -> Any:
    """Optax's form of the problem's update."""
    import optax

    hyper = problem.hyperparameters
    match problem.case.optimizer:
        case fs.SGD:
            return optax.sgd(hyper["lr"], hyper["momentum"] or None, hyper["nesterov"])
        case fs.Adagrad:
            return optax.adagrad(hyper["lr"], hyper["initial_accumulator_value"], hyper["eps"])
        case fs.RMSprop:  # optax has α inside the buffer: the same while α is constant
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
    inside, eps = hyper["eps_inside_sqrt"], hyper["eps"]
    return {"eps": 0.0 if inside else eps, "eps_root": eps if inside else 0.0}
