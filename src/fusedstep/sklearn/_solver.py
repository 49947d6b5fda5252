"""Optimizers of this package with the methods by which scikit-learn's networks step."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

from fusedstep import optimizers, rules
from fusedstep._backends.objects import same
from fusedstep._checks.wording import describe, quoted
from fusedstep._core.declaration import declaration_of
from fusedstep._core.optimizer import Optimizer
from fusedstep.sklearn._steps import Arrays, Fused, adam_update, sgd_update
from fusedstep.sklearn._theirs import AdamOptimizer, BaseOptimizer, SGDOptimizer

Choice: TypeAlias = str | type[Optimizer] | partial[Optimizer]
"""The types that a `solver` may have, besides "lbfgs"."""

OF_THEIRS = ("sgd", "adam")
"""Solvers whose steps are defined by scikit-learn."""

OF_OURS: dict[str, Any] = {
    name.lower(): getattr(module, name)
    for module in (optimizers, rules)
    for name in module.__all__
    if name.lower() not in OF_THEIRS
}
"""Classes of this package's own by the names that `solver` takes."""

DEFAULT_BETAS, DEFAULT_EPS = (0.9, 0.999), 1e-8
"""scikit-learn's defaults: an optimizer has its own in their place."""


class SGD(SGDOptimizer):
    """scikit-learn's SGD with fused steps."""

    update_params = sgd_update


class Adam(AdamOptimizer):
    """scikit-learn's Adam with fused steps."""

    update_params = adam_update


class Solver(BaseOptimizer):
    """An optimizer of this package as scikit-learn's networks use one.

    Its rate is `learning_rate`, which the schedules of scikit-learn's SGD change, unless the
    optimizer was given a schedule of its own.
    """

    learning_rate: float
    rate: float
    """The rate that the optimizer was given last."""

    def __init__(
        self,
        choice: Choice,
        options: dict[str, Any],
        lr_schedule: str,
        power_t: float,
    ) -> None:
        self.choice, self.options = choice, options
        self.lr_schedule, self.power_t = lr_schedule, power_t
        self.by_t = options["lr"] if callable(options["lr"]) else None
        super().__init__(self.by_t(1) if self.by_t else options["lr"])
        self.fused: Fused | None = None
        self.saved: dict[str, Any] | None = None
        """The state dict to go on from, of a copy."""

    iteration_ends = SGDOptimizer.iteration_ends
    trigger_stopping = SGDOptimizer.trigger_stopping

    def update_params(self, params: Arrays, grads: Arrays) -> None:
        """Update the parameters in place; they may be other arrays each time."""
        fused = self.fused
        if fused is None or not same(params, fused.params):
            fused = self._begin(params)
        if self.by_t is None:
            if self.learning_rate != self.rate:
                fused.optimizer.lr = self.rate = self.learning_rate
            fused.step(grads)
        else:
            self.learning_rate = self.by_t(fused.step(grads))

    def _begin(self, params: Arrays) -> Fused:
        """Go on over these parameters with the state that there is."""
        fused = Fused(optimizer_class(self.choice)([*params], **self.options), params)
        saved = self.saved if self.fused is None else self.fused.optimizer.state_dict()
        if saved is not None:
            fused.optimizer.load_state_dict(saved)
        if self.by_t is None:
            fused.optimizer.lr = self.rate = self.learning_rate
        self.fused, self.saved = fused, None
        return fused

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer itself; None before the first step, and in a copy."""
        return None if self.fused is None else self.fused.optimizer

    def __getstate__(self) -> dict[str, Any]:
        """All but the parameters, which are the network's."""
        saved = self.saved if self.fused is None else self.fused.optimizer.state_dict()
        return {**vars(self), "fused": None, "saved": saved}


def optimizer_class(choice: Choice) -> Any:
    """The class that a solver stands for."""
    made: Any = choice.func if isinstance(choice, partial) else choice
    if isinstance(made, str):
        made = OF_OURS.get(made)
    if not (isinstance(made, type) and issubclass(made, Optimizer)):
        raise ValueError(
            f"solver={describe(choice)}; pass one of {quoted(('lbfgs', *OF_THEIRS, *OF_OURS))}, a "
            "class as fusedstep.AdamW, or functools.partial(fusedstep.AdamW, weight_decay=0.1)"
        )
    return made


def options_of(network: Any) -> dict[str, Any]:
    """The arguments of the optimizer that a network asks for.

    The rate is the network's; so are β₁, β₂ and ε, where they are not scikit-learn's defaults and
    the optimizer has them. What a partial says itself goes before.
    """
    choice = network.solver
    own = choice.keywords if isinstance(choice, partial) else {}
    if isinstance(choice, partial) and choice.args:
        raise ValueError(
            f"solver={describe(choice)} has arguments without names; name them, as in "
            "functools.partial(fusedstep.AdamW, weight_decay=0.1)"
        )
    defaults = declaration_of(optimizer_class(choice)).defaults
    options: dict[str, Any] = {"lr": network.learning_rate_init}
    betas = network.beta_1, network.beta_2
    if len(defaults.get("betas", ())) == len(betas) and betas != DEFAULT_BETAS:
        options["betas"] = betas
    if "eps" in defaults and network.epsilon != DEFAULT_EPS:
        options["eps"] = network.epsilon
    options.update(own)
    if callable(options["lr"]) and network.learning_rate != "constant":
        raise ValueError(
            f"learning_rate={network.learning_rate!r} beside the schedule lr={options['lr']!r} of "
            "the solver, and both would set the rate; pass learning_rate='constant'"
        )
    return options


def solver_of(network: Any, params: Arrays) -> Any:
    """The optimizer that a network asks for."""
    if network.solver == "sgd":
        return SGD(
            params,
            network.learning_rate_init,
            network.learning_rate,
            network.momentum,
            network.nesterovs_momentum,
            network.power_t,
        )
    if network.solver == "adam":
        return Adam(
            params, network.learning_rate_init, network.beta_1, network.beta_2, network.epsilon
        )
    return Solver(network.solver, options_of(network), network.learning_rate, network.power_t)


def goes_on(optimizer: Any, solver: Choice) -> bool:
    """Whether `partial_fit` goes on with the optimizer that is there."""
    if isinstance(optimizer, Solver):
        return bool(optimizer.choice == solver)
    if isinstance(solver, str):
        return isinstance(optimizer, {"sgd": SGD, "adam": Adam}.get(solver, ()))
    return False
