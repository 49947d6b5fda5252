"""The base of the optimizers: torch's contract around one fused step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from inspect import signature
from itertools import takewhile
from threading import get_ident
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch.optim import optimizer as torchs
from torch.optim.optimizer import Optimizer

from fusedstep._arrays.at_once import Call, at_once
from fusedstep._checks.wording import quoted
from fusedstep._core.hints import unexpected
from fusedstep._core.request import GLOBAL, PLAIN, Report, Request, check_policy, check_request
from fusedstep._core.turn import Turn
from fusedstep.torch._arrays import wide_dtype
from fusedstep.torch._handed_on import reasons_of_group, reasons_of_parameters
from fusedstep.torch._kept import bits_beside, check_choices
from fusedstep.torch._kinds import Group, Kind, is_several
from fusedstep.torch._loading import open_seals, sealed
from fusedstep.torch._rows import wanted_rows
from fusedstep.torch._steps import Steps

OF_ALL = {
    "max_norm": None,
    "max_value": None,
    "clip": GLOBAL,
    "nonfinite": "propagate",
    "backend": "auto",
}
"""Arguments beyond torch's that are the same for all groups, and what each is by default."""

SELDOM = 16
"""Steps between two looks whether state that somebody had got at is nobody else's again."""

WIDE_AVERAGE = (
    ", and of {dtype}: an average moves by less than 16 bits can tell, and rounded to nearest it "
    "would stand still"
)
"""The end of an error about targets of averages of 16-bit parameters."""

NOT_STEPPED = Report(None, 1.0, (), 0)

OF_FLIGHTS = {"wait", "after"}
"""Arguments of `fusedstep`'s own optimizers, whose steps can be in flight."""


def without_flights(given: Mapping[str, Any]) -> TypeError:
    """The error for arguments that say a step need not be waited for."""
    name = next(each for each in given if each in OF_FLIGHTS)
    return unexpected(
        "step",
        name,
        "hooks, GradScaler and schedulers of torch find a step done when it returns. Steps in "
        "flight are those of `fusedstep.AdamW([p.detach() for p in parameters])`, or its siblings",
    )


HOOKING = Optimizer.profile_hook_step(id).__code__
"""The code of torch's wrapper around a step, which runs its hooks."""


def _runs_hooks(step: Any) -> bool:
    """Whether a step, or one that it says it wraps, is torch's wrapper."""
    while step is not None and getattr(step, "__code__", None) is not HOOKING:
        step = getattr(step, "__wrapped__", None)
    return step is not None


class Membership(NamedTuple):
    """The group that a parameter is in, and its place there."""

    group: Group
    at: int

    def holds(self, parameter: Any, param_groups: list[Group]) -> bool:
        """Whether it is still there, and the group one of these."""
        own = self.group["params"]
        return any(self.group is each for each in param_groups) and (
            self.at < len(own) and own[self.at] is parameter
        )

    def ordinal(self, param_groups: list[Group]) -> int:
        """The number of the parameter among all of these groups."""
        before = takewhile(lambda each: each is not self.group, param_groups)
        return sum(len(each["params"]) for each in before) + self.at


class FusedOptimizer(Optimizer):
    """The base of `fusedstep.torch`'s optimizers; use one of its subclasses.

    `param_groups`, `state`, `state_dict`, hooks and `zero_grad` are torch's own. Only `step` is
    this package's.
    """

    kind: ClassVar[Kind]
    defaults: dict[str, Any]
    param_groups: list[Group]

    max_norm: float | None
    """The largest norm that all gradients have together; set it to change the next step's."""
    max_value: float | None
    """The largest size of an element of a gradient; set it to change the next step's."""
    clip: str
    """`"tensor"` if `max_norm` is that of each gradient, else `"global"`; set it as the others."""
    backend: str
    """The name of what runs the steps, see `fusedstep.info`."""
    _rates: Any = None
    """Rates by column that the constructor was given; None: it was given a number."""
    _into: Iterator[Any] | None
    """The tensors of `ema_into` that have no parameter yet."""

    report: Report
    """The report of the last step, see `fusedstep.Report`."""

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether `step` unscales and skips by itself, for torch's GradScaler."""
        groups = self.param_groups
        return not any(reasons_of_group(group, self.kind) for group in groups) and not any(
            reasons_of_parameters(group["params"]) for group in groups
        )

    @_step_supports_amp_scaling.setter
    def _step_supports_amp_scaling(self, value: bool) -> None:
        """Nothing: torch's classes set it for their fused steps."""

    beyond: ClassVar[frozenset[str]]
    """The hyperparameters beyond torch's."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__new__(cls)
        made._note({})  # so that a derived class need not go through `__init__` here
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        surplus = [] if self._into is None else [*self._into]
        self._into = None
        if surplus:
            raise ValueError(
                f"ema_into has {len(surplus)} tensors more than there are parameters; pass one "
                "for each, in the order of the groups"
            )

    def _begin(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Take note of the arguments that are this package's, and return those that are torch's."""
        ours = self.options()
        if isinstance(arguments["lr"], np.ndarray) and is_several(arguments["lr"]):
            # Groups get it in `add_param_group`: torch's constructors take one number alone, and
            # refuse a tensor of several, as they are expected to.
            self._rates = arguments["lr"]
            arguments = {**arguments, "lr": 1.0}
        self._note({name: value for name, value in arguments.items() if name in ours})
        return {
            name: value
            for name, value in arguments.items()
            if name not in {*ours, "self", "__class__"}
        }

    def _note(self, options: Mapping[str, Any]) -> None:
        """Take note of arguments beyond torch's."""
        of_all = {**OF_ALL, **{name: options[name] for name in OF_ALL if name in options}}
        check_policy(of_all["nonfinite"])
        check_request(1.0, of_all["max_norm"], of_all["max_value"], False, of_all["clip"])
        checks, defaults = self.kind.declaration.checks, self.kind.options
        extras = {
            name: checks[name](name, value)
            for name, value in options.items()
            if name in self.beyond and value != defaults[name]
        }
        for name, value in of_all.items():
            setattr(self, name, value)
        self._extras = extras
        """Hyperparameters beyond torch's that were given. Groups hold no others, so that a state
        dict is torch's to the letter where there are none."""
        into = options.get("ema_into")
        self._into = None if into is None else iter(into)
        self._averages: dict[Any, Any] = {}
        self._turn = Turn()
        self._steps: Steps | None = None
        self._alone: dict[Any, Steps] = {}
        """The steps of parameters that are stepped one by one."""
        self._memberships: dict[Any, Membership] = {}
        """Where these were found in the groups."""
        self.report = NOT_STEPPED

    @classmethod
    def options(cls) -> set[str]:
        """The names of arguments beyond torch's."""
        into = {"ema_into"} if "ema" in cls.beyond else set()
        return {*OF_ALL, *cls.beyond, *into}

    def adopt(self, options: Mapping[str, Any]) -> None:
        """Become what a live optimizer of torch's is, with arguments beyond torch's."""
        self._note(options)
        complete = [{**group, **self._extras} for group in self.param_groups]
        for group in complete:
            self._complete(group, self._into)
        for group, more in zip(self.param_groups, complete, strict=True):
            group.update(more)
        self.defaults = {**self.defaults, **self._extras}

    @property
    def nonfinite(self) -> str:
        """The policy for gradients with NaN or infinity, see `fusedstep.Optimizer`."""
        return self._nonfinite

    @nonfinite.setter
    def nonfinite(self, value: str) -> None:
        check_policy(value)
        self._nonfinite = value

    # ---- groups and state ----

    _touched = True
    """Whether somebody may have got at the state since the last step."""

    @property
    def state(self) -> Any:
        """Each parameter's state as torch has it: live, and anybody's to change."""
        try:
            state = vars(self)["state"]
        except KeyError:
            raise AttributeError("state") from None
        self._catch_up_all()
        self._touched = True
        return state

    @state.setter
    def state(self, state: Any) -> None:
        self._catch_up_all()
        self.__dict__["state"] = state
        self._touched, self._steps = True, None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as torch does; it may have hyperparameters of this package, too."""
        for name, value in self._extras.items():
            self.defaults.setdefault(name, value)
        if self._rates is not None:
            self.defaults["lr"] = self._rates
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
        check_choices(self.kind, group)
        if into is None:
            return
        if group.get("ema") is None:
            raise ValueError("ema_into is given and ema is None; pass what the average keeps")
        targets = {p: next(into, None) for p in group["params"]}
        for p, target in targets.items():
            wanted = wide_dtype(p.dtype)
            if target is None or target.shape != p.shape or target.dtype != wanted:
                found = "nothing" if target is None else f"{target.dtype} of {[*target.shape]}"
                instead = "" if wanted is p.dtype else WIDE_AVERAGE.format(dtype=wanted)
                raise ValueError(
                    f"ema_into has {found} for a parameter of {p.dtype} of {[*p.shape]}; pass a "
                    f"tensor like each parameter, in their order{instead}"
                )
        self._averages.update(targets)

    def __getstate__(self) -> dict[str, Any]:
        self._catch_up_all()
        own = {name: getattr(self, name) for name in (*OF_ALL, "_extras", "_averages", "report")}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        before = vars(self).get("param_groups", [])
        open_seals(state.get("state", {}))
        super().__setstate__(state)
        if "nonfinite" in self.__dict__:  # torch has put it past the property
            self.nonfinite = self.__dict__.pop("nonfinite")
        for group, old in zip(self.param_groups, before, strict=False):
            for name in self.beyond & old.keys():
                group.setdefault(name, old[name])
        self._turn = Turn()
        self._steps = self._into = None
        self._alone, self._memberships = {}, {}
        for group in self.param_groups:
            for name, value in self._extras.items():
                group.setdefault(name, value)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` of this class or of torch's returned, as torch does.

        State of 16-bit parameters keeps its dtypes and all of its bits, and so does what is kept
        in fewer bytes than float32. `master` and `state_dtype` stay what they are here; state that
        was kept otherwise is converted by the next step.
        """
        self._catch_up_all()
        handle = self.register_load_state_dict_pre_hook(
            lambda own, given: sealed(given, own.param_groups)
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()

    def digest(self) -> str:
        """SHA-256 over parameters, state and t, see `fusedstep.Optimizer.digest`.

        Parameters are called by the names that they were passed with, or by their numbers, so that
        it is the digest of `fusedstep`'s own class over a mapping, or a list, of these arrays: but
        for SGD, whose steps torch does not count, so that t is 1 as soon as there is state, and
        before the first step of a parameter, which has no state in torch until then.
        """
        from fusedstep.torch._checkpoint import take

        return take(self, None, None).digest

    # ---- parameters in full ----

    def float32_params(self) -> list[torch.Tensor]:
        """Copies of the parameters as steps see them, in the order of the groups: what to save.

        Of a 16-bit parameter that keeps its lost bits these are the exact float32 values, of which
        the parameter itself is only the rounded ones. float64 parameters stay float64.

        >>> import torch, fusedstep.torch
        >>> p = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
        >>> opt = fusedstep.torch.SGD([p], lr=0.001)
        >>> p.grad = torch.ones_like(p)
        >>> opt.step()
        >>> p.data, opt.float32_params()
        (tensor([1., 1.], dtype=torch.bfloat16), [tensor([0.9990, 0.9990])])
        """
        params: list[torch.Tensor] = []
        self._catch_up_all()
        self._take_turn(lambda _: params.extend(self._laid_out_anew().exact()), PLAIN, "a copy")
        return params

    def load_float32_params(self, params: Iterable[Any]) -> None:
        """Give the parameters these values, which `float32_params` returned, with all their bits.

        16-bit parameters become the rounded ones. Nothing is written unless all of them fit.
        """
        values = [*params]
        self._catch_up_all()

        def load(_: Request) -> None:
            at_once(self.assigning(values))

        self._take_turn(load, PLAIN, "load_float32_params")

    def assigning(self, values: list[Any]) -> list[Call]:
        """The calls that give the parameters these values, with all of their bits."""
        return [
            *self._laid_out_anew().assigning(values),
            partial(self.__dict__.update, _touched=True),
        ]

    def _complete_state(self) -> None:
        """Make the rest of the state of 16-bit parameters, where torch makes the first of it.

        To torch's tools for checkpoints a parameter either has all of its state or none.
        """
        steps = self._laid_out_anew()
        if not steps.handed_on:
            at_once(steps.completing())

    def _laid_out_anew(self) -> Steps:
        """All parameters with their state, as they are found now."""
        own = vars(self)
        return Steps(self.kind, self.param_groups, own["state"], self._averages, self.backend)

    # ---- rows that have missed steps ----

    def catch_up(self, rows: Any = None) -> None:
        """Take the steps that rows have missed, where `untouched="exact"` lets them miss some.

        Call it before anything reads rows that the step before did not touch: with the rows of the
        batch before its forward pass, without arguments before all parameters are read or saved.
        Whatever reads `state` has its rows caught up, as `state_dict` and copies do.

        Parameters
        ----------
        rows
            A mapping from parameters to the numbers of their rows, a tensor of integers of any
            shape, or booleans, one for each row. The tensor alone, if there is one parameter.
            None for all rows of all parameters.

        Raises
        ------
        TypeError, ValueError, IndexError
            If they do not fit the parameters. No step has been taken.

        Examples
        --------
        >>> import torch, fusedstep.torch
        >>> words = torch.nn.Embedding(1000, 2, sparse=True)
        >>> _ = torch.nn.init.ones_(words.weight)
        >>> opt = fusedstep.torch.SGD(
        ...     words.parameters(), lr=0.5, momentum=0.5, untouched="exact"
        ... )
        >>> for batch in (torch.tensor([[7, 8]]), torch.tensor([[8, 9]])):
        ...     opt.catch_up(batch)
        ...     opt.zero_grad()
        ...     words(batch).sum().backward()
        ...     opt.step()
        >>> opt.catch_up(torch.tensor([7]))
        >>> words.weight.data[7:10]
        tensor([[ 0.2500,  0.2500],
                [-0.2500, -0.2500],
                [ 0.5000,  0.5000]])
        """

        def catch_up(_: Request) -> None:
            if rows is None:
                if self._steps is not None:
                    self._steps.catch_up()
                return
            steps = self._steps or self._laid_out_anew()
            paths = map(steps.path, range(len(steps.parameters)))
            steps.catch_up(wanted_rows(rows, steps.parameters, paths))

        self._take_turn(catch_up, PLAIN, "catch_up")

    def _catch_up_all(self) -> None:
        """Take the steps that rows have missed, unless this is called by what a step calls."""
        steps, turn, me = self._steps, self._turn, get_ident()
        if steps is None or not steps.is_behind or turn.holder == me:
            return
        try:
            turn.wait_to_copy(me)
            steps.catch_up()
        finally:
            turn.next = 0 if turn.next == me else turn.next
            turn.holder = 0 if turn.holder == me else turn.holder

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
        if kwargs and not OF_FLIGHTS.isdisjoint(kwargs):
            raise without_flights(kwargs)
        if torch.compiler.is_dynamo_compiling():
            return self._uncompiled_step(*args, **kwargs)
        if self._is_watched():
            return self._watched_step(*args, **kwargs)
        return self._unwatched_step(*args, **kwargs)

    step.hooked = True  # type: ignore[attr-defined]  # torch would wrap it for hooks, for some 5 us

    def _is_watched(self) -> bool:
        """Whether hooks or a profiler wait for this step, and torch has not seen to them.

        It does so around the step of a derived class.
        """
        return bool(
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torchs._global_optimizer_pre_hooks  # noqa: SLF001  torch has no other way
            or torchs._global_optimizer_post_hooks  # noqa: SLF001
            or torch.autograd._profiler_enabled()  # noqa: SLF001
        ) and not _runs_hooks(type(self).step)

    def _unwatched_step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        own = vars(self)
        if "found_inf" in own or "grad_scale" in own:  # under a GradScaler, as long as it calls
            self._take_turn(self._step_scaled, self._request(1.0))
            return loss
        self._take_turn(self._step, self._request(1.0))
        return loss

    step.__signature__ = signature(_unwatched_step)  # type: ignore[attr-defined]
    _watched_step = Optimizer.profile_hook_step(_unwatched_step)

    # As torch's own methods do it: the public way would import the compiler, for a second.
    @torch._disable_dynamo  # type: ignore[untyped-decorator]  # noqa: SLF001
    def _uncompiled_step(self, *args: Any, **kwargs: Any) -> Any:
        """Step outside of the graph that torch.compile makes of what calls it."""
        return self.step(*args, **kwargs)

    def _step_scaled(self, request: Request) -> None:
        """Step by the numbers of a GradScaler, on the device if they can stay there."""
        if self._alone:
            raise RuntimeError(
                "a GradScaler steps an optimizer that has stepped in the backward pass already, "
                "by gradients that were multiplied by its scale; use one or the other"
            )
        own = vars(self)
        grad_scale, found_inf = own.get("grad_scale"), own.get("found_inf")
        steps, touched = self._standing()
        if not steps.handed_on:
            report = steps.step_scaled(request, self._nonfinite, grad_scale, found_inf)
            if report is not None:
                self.report = report
                self._look_who_has_state(steps, touched)
                return
        if found_inf is None or not bool(found_inf):
            scale = 1.0 if grad_scale is None else float(grad_scale)
            self._step_by(steps, touched, self._request(scale))

    def _take_turn(
        self, step: Callable[[Request], None], request: Request, what: str = "step"
    ) -> None:
        """Step, or do what errors call `what`, while nobody else steps this; see turn.py."""
        turn, me = self._turn, get_ident()
        while True:
            if not turn.holder:
                turn.holder = me
                break
            turn.wait(me, what)
        try:
            step(request)
        finally:
            turn.holder = turn.next

    def _request(self, scale: float) -> Request:
        if scale == 1 and self.max_norm is None and self.max_value is None:
            return PLAIN
        return check_request(scale, self.max_norm, self.max_value, False, self.clip)

    def _standing(self) -> tuple[Steps, bool]:
        """The steps as they are laid out, and whether somebody may have got at their state."""
        steps, own, touched = self._steps, vars(self), self._touched
        if steps is None or not steps.stand(self.param_groups, own["state"], touched):
            if steps is not None and steps.is_behind:
                steps.catch_up()
            self._steps, touched = None, True
            steps = Steps(self.kind, self.param_groups, own["state"], self._averages, self.backend)
            self._steps = steps
        steps.read_settings()
        return steps, touched

    def _step(self, request: Request) -> None:
        self._step_by(*self._standing(), request)

    def _step_by(self, steps: Steps, touched: bool, request: Request) -> None:
        """Step by what `_standing` returned."""
        if steps.handed_on:
            self._step_as_torch(", ".join(steps.handed_on))
            return
        self.report = report = steps.step(request, self._nonfinite)
        skips = self._nonfinite == "skip"  # else nobody need wait for what the report says
        if skips and report.skipped and not self.kind.counted:
            self._take_back(steps)
            return
        self._look_who_has_state(steps, touched or (steps.reached and steps.t % SELDOM == 0))

    def _look_who_has_state(self, steps: Steps, now: bool) -> None:
        """Note whether anybody else has a part of the state, now and then."""
        if now:
            # In this order, so that whatever happens in between is found out by the next step.
            steps.reached, self._touched = True, False
            steps.look_who_has_state()

    def _take_back(self, steps: Steps) -> None:
        """Take back state of what was skipped at first, where it would stand for a step."""
        if calls := steps.taking_back():
            if steps.is_behind:
                steps.catch_up()
            self._steps, self._touched = None, True
            at_once(calls)

    def step_one(self, parameter: torch.Tensor) -> bool:
        """Step one parameter alone, by its gradient, as hooks of the backward pass do.

        False, and nothing done, if it is in no group any more.
        """
        membership = self._membership_of(parameter)
        if membership is None:
            return False

        def step(request: Request) -> None:
            steps = self._alone_of(parameter, membership.group)
            steps.read_settings()
            if steps.handed_on:
                raise ValueError(
                    f"{', '.join(steps.handed_on)}: such steps are torch's own, which has none of "
                    "one parameter alone; leave that out, or step as ever"
                )
            self.report = steps.step(request, "propagate")
            if steps.state.get(parameter):
                self.state[parameter] = steps.state[parameter]

        self._take_turn(step, self._request(1.0))
        return True

    def end_steps_alone(self) -> None:
        """Forget what `step_one` has laid out, as hooks of the backward pass do when they end."""
        self._alone, self._memberships = {}, {}

    def _membership_of(self, parameter: Any) -> Membership | None:
        """The group that a parameter is in; None: in none."""
        known = self._memberships.get(parameter)
        if known is not None and known.holds(parameter, self.param_groups):
            return known
        self._memberships = {
            each: Membership(group, at)
            for group in self.param_groups
            for at, each in enumerate(group["params"])
        }
        return self._memberships.get(parameter)

    def _alone_of(self, parameter: Any, group: Group) -> Steps:
        """The steps of one parameter, laid out anew unless all that they are made of stands."""
        state = {parameter: self.state[parameter]} if parameter in self.state else {}
        steps = self._alone.get(parameter)
        if (
            steps is None
            or steps.state.get(parameter) is not state.get(parameter)
            or steps.groups[0] is not group
            or not steps.stand(steps.groups, steps.state, True)
        ):
            membership = self._memberships[parameter]
            first = membership.ordinal(self.param_groups)
            lists = [[parameter]]
            steps = Steps(self.kind, [group], state, self._averages, self.backend, lists, first)
            self._alone[parameter] = steps
        return steps

    def _step_as_torch(self, what: str) -> None:
        """Step as torch itself does; `what` says why."""
        step: Any = super().step.__func__
        while getattr(step, "hooked", False):
            step = step.__wrapped__
        if step is Optimizer.step:
            raise ValueError(
                f"{what}: {type(self).__name__} has no such steps; pass parameters on the CPU or "
                "on a CUDA device"
            )
        of_groups = {
            name: None
            for group in self.param_groups
            for name in (each for each in group if each in self.beyond)
            if group[name] != self.kind.options[name]
        }
        of_all = (name for name in OF_ALL if getattr(self, name) != OF_ALL[name])
        own = [*{**dict.fromkeys(self._extras), **of_groups}, *of_all]
        if own:
            raise ValueError(
                f"{what}: these steps are torch's own, which has no {quoted(own)}; leave out one "
                "or the other"
            )
        if any(bits_beside(each) for each in vars(self)["state"].values()):
            raise ValueError(
                f"{what}: these steps are torch's own, which would leave the rest of 16-bit "
                "parameters behind; take `float32_params()`, delete the state, and begin anew"
            )
        step(self)
