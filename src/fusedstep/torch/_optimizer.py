"""The base of the optimizers: torch's contract around one fused step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from threading import get_ident
from typing import Any, ClassVar

import torch
from torch.autograd.graph import increment_version
from torch.optim import optimizer as torchs
from torch.optim.optimizer import Optimizer

from fusedstep._checks.wording import quoted
from fusedstep._core.request import PLAIN, Report, Request, check_policy, check_request
from fusedstep._core.turn import Turn
from fusedstep.torch._kinds import Group, Kind
from fusedstep.torch._steps import Steps

OF_ALL = {"max_norm": None, "max_value": None, "nonfinite": "propagate", "backend": "auto"}
"""Arguments beyond torch's that are the same for all groups, and what each is by default."""

NOT_STEPPED = Report(None, 1.0, (), 0)


class FusedOptimizer(Optimizer):
    """The base of `fusedstep.torch`'s optimizers; use one of its subclasses.

    `param_groups`, `state`, `state_dict`, hooks and `zero_grad` are torch's own. Only `step` is
    this package's.
    """

    kind: ClassVar[Kind]

    max_norm: float | None
    """The largest norm that all gradients have together; set it to change the next step's."""
    max_value: float | None
    """The largest size of an element of a gradient; set it to change the next step's."""
    nonfinite: str
    """What to do about gradients with NaN or infinity, see `fusedstep.Optimizer`."""
    report: Report
    """The report of the last step, see `fusedstep.Report`."""

    _step_supports_amp_scaling = True
    """Tells torch's GradScaler that `step` unscales, and skips, by itself."""

    def _begin(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Take note of the arguments that are this package's, and return those that are torch's."""
        own = {name: arguments[name] for name in OF_ALL}
        checks = self.kind.declaration.checks
        self.max_norm, self.max_value = own["max_norm"], own["max_value"]
        self.nonfinite = check_policy(own["nonfinite"])
        self.backend = own["backend"]
        self._extras = {}
        """Hyperparameters beyond torch's that were given: torch's defaults have no place for
        others, so that a state dict with none of them is torch's to the letter."""
        torchs_own = {"self", "__class__", "ema_into", *OF_ALL}
        theirs = {}
        for name, value in arguments.items():
            if name in self.beyond:
                if value != self.kind.options[name]:
                    self._extras[name] = checks[name](name, value)
            elif name not in torchs_own:
                theirs[name] = value
        self._request(1.0)
        into = arguments["ema_into"]
        self._into: Iterator[Any] | None = None if into is None else iter(into)
        self._averages: dict[Any, Any] = {}
        self._turn = Turn()
        self._steps: Steps | None = None
        self.report = NOT_STEPPED
        return theirs

    beyond: ClassVar[frozenset[str]]
    """The hyperparameters beyond torch's."""

    # ---- groups and state ----

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as torch does; it may have hyperparameters of this package, too."""
        for name, value in self._extras.items():
            self.defaults.setdefault(name, value)
        own = param_group.pop("ema_into", None) if isinstance(param_group, dict) else None
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._complete(group, self._into if own is None else iter(own))
        except BaseException:
            self.param_groups.pop()
            raise

    def _complete(self, group: Group, into: Iterator[Any] | None) -> None:
        checks = self.kind.declaration.checks
        for name in self.beyond & group.keys():
            group[name] = checks[name](name, group[name])
        if group.get("decay_scale") == "schedule":
            group.setdefault("initial_lr", group["lr"])
        if into is None:
            return
        if group.get("ema") is None:
            raise ValueError("ema_into is given and ema is None; pass what the average keeps")
        targets = {p: next(into, None) for p in group["params"]}
        for p, target in targets.items():
            if target is None or target.shape != p.shape or target.dtype != p.dtype:
                found = "nothing" if target is None else f"{target.dtype} of {[*target.shape]}"
                raise ValueError(
                    f"ema_into has {found} for a parameter of {p.dtype} of {[*p.shape]}; pass a "
                    "tensor like each parameter, in their order"
                )
        self._averages.update(targets)

    def __getstate__(self) -> dict[str, Any]:
        own = {
            name: getattr(self, name)
            for name in (*OF_ALL, "_extras", "_averages", "report")
        }
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._turn = Turn()
        self._steps = self._into = None
        for group in self.param_groups:
            for name, value in self._extras.items():
                group.setdefault(name, value)

    # ---- the step ----

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Perform a single optimization step.

        Parameters
        ----------
        closure
            A function that evaluates the model again and returns the loss, or None.

        Returns
        -------
        loss
            What `closure` returned; None without one.
        """
        if self._is_watched():
            return self._watched_step(*args, **kwargs)
        return self._closed_step(*args, **kwargs)

    step.hooked = True  # type: ignore[attr-defined]  # torch would wrap it for hooks, for some 5 us

    def _is_watched(self) -> bool:
        """Whether hooks or a profiler wait for this step; a subclass's step has them already."""
        return type(self).step is FusedOptimizer.step and bool(
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torchs._global_optimizer_pre_hooks  # noqa: SLF001  torch has no other way
            or torchs._global_optimizer_post_hooks  # noqa: SLF001
            or torch.autograd._profiler_enabled()  # noqa: SLF001
        )

    def _closed_step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if any(
            group.get("capturable") or group.get("differentiable") for group in self.param_groups
        ):
            self._step_as_torch()
            return loss
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None and found_inf.item():
            self.report = Report(None, 1.0, self.report.skipped, self.report.t)
            return loss
        scale = getattr(self, "grad_scale", None)
        request = self._request(1.0 if scale is None else scale.item())
        turn, me = self._turn, get_ident()
        while True:
            if not turn.holder:
                turn.holder = me
                break
            turn.wait(me, "step")
        try:
            self._step(request)
        finally:
            turn.holder = turn.next
        return loss

    _watched_step = Optimizer.profile_hook_step(_closed_step)

    def _request(self, scale: float) -> Request:
        if scale == 1 and self.max_norm is None and self.max_value is None:
            return PLAIN
        return check_request(scale, self.max_norm, self.max_value, False)

    def _step(self, request: Request) -> None:
        steps = self._steps
        if steps is None or not steps.stand(self.param_groups, self.state):
            self._steps = None
            steps = Steps(self.kind, self.param_groups, self.state, self._averages, self.backend)
            self._steps = steps
        self.report = steps.step(request, self.nonfinite)
        increment_version(steps.stepped)

    def _step_as_torch(self) -> None:
        """Step as torch itself does, which alone can do so in a graph of autograd or of CUDA."""
        own = [*self._extras, *(name for name in OF_ALL if getattr(self, name) != OF_ALL[name])]
        if own:
            raise ValueError(
                f"capturable=True and differentiable=True hand the step to torch, which has no "
                f"{quoted(own)}; leave out one or the other"
            )
        step = super().step.__func__  # type: ignore[attr-defined]
        while getattr(step, "hooked", False):
            step = step.__wrapped__
        step(self)
