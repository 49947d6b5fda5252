"""Steps during the backward pass: each parameter as soon as its gradient is complete."""

from __future__ import annotations

from threading import Lock
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from fusedstep._core.request import TENSOR
from fusedstep.torch._optimizer import FusedOptimizer


class StepsInBackward:
    """The hooks of `step_in_backward`; `remove()` takes them off, as does the end of a `with`."""

    def __init__(self, optimizer: FusedOptimizer, handles: list[RemovableHandle]) -> None:
        self.optimizer = optimizer
        self.handles = handles

    def remove(self) -> None:
        """Step no more during the backward pass."""
        for handle in self.handles:
            handle.remove()
        self.optimizer.end_steps_alone()

    def __enter__(self) -> StepsInBackward:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()


def step_in_backward(model: torch.nn.Module, optimizer: FusedOptimizer) -> StepsInBackward:
    """Step each parameter of `model` as soon as its gradient is complete, and free the gradient.

    A gradient is stepped while it is in the cache, and at most a few exist at a time. The loop
    stays as it is: `optimizer.step()` finds no gradients, and leaves these parameters alone.
    Schedulers, hyperparameters, state and checkpoints work as ever.

    Parameters
    ----------
    model
        The module whose parameters are stepped: those that `optimizer` has.
    optimizer
        One of `fusedstep.torch`'s.

    Returns
    -------
    StepsInBackward
        A handle: `remove()` goes back to ordinary steps.

    Raises
    ------
    ValueError
        If what was asked for must see all gradients before the first step: `max_norm`, or
        `nonfinite` other than `"propagate"`; if a group has `untouched="exact"`; or if no
        parameter of the model is the optimizer's.
    TypeError
        If the optimizer is not this package's, or the model is a DistributedDataParallel, which
        averages gradients after these hooks.

    Notes
    -----
    Gradients cannot be accumulated over several backward passes, and a GradScaler cannot be used:
    it finds out too late what to divide and what to skip, so its `step` raises. Hooks of the
    optimizer's `step` do not run. Lv et al. (2023), "Full Parameter Fine-tuning for Large Language
    Models with Limited Resources", step so.

    Examples
    --------
    >>> import torch, fusedstep.torch
    >>> model = torch.nn.Linear(3, 1)
    >>> opt = fusedstep.torch.AdamW(model.parameters())
    >>> hooks = fusedstep.torch.step_in_backward(model, opt)
    >>> model(torch.ones(2, 3)).sum().backward()
    >>> model.weight.grad is None, int(opt.state[model.weight]["step"])
    (True, 1)
    >>> hooks.remove()
    """
    if not isinstance(optimizer, FusedOptimizer):
        raise TypeError(
            f"{type(optimizer).__name__} is not one of fusedstep.torch's optimizers; pass one, as "
            "`fusedstep.torch.replace(optimizer)`"
        )
    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        raise TypeError(
            "DistributedDataParallel averages gradients after each is complete, so they would be "
            "stepped before; use torch.distributed.fsdp.fully_shard, or ordinary steps"
        )
    _refuse_what_needs_all(optimizer)
    own = {id(p) for group in optimizer.param_groups for p in group["params"]}
    params = [p for p in model.parameters() if id(p) in own and p.requires_grad]
    if not params:
        raise ValueError(
            "no parameter of the model is the optimizer's; pass the model that it was made for"
        )

    lock = Lock()

    def step(parameter: torch.Tensor) -> None:
        _refuse_what_needs_all(optimizer)
        with lock:  # autograd has a thread for each device, and one for each caller
            stepped = optimizer.step_one(parameter)
        if stepped:
            parameter.grad = None

    handles = [p.register_post_accumulate_grad_hook(step) for p in params]
    return StepsInBackward(optimizer, handles)


def _refuse_what_needs_all(optimizer: FusedOptimizer) -> None:
    if any(group.get("untouched") == "exact" for group in optimizer.param_groups):
        raise ValueError(
            "untouched='exact' lets rows miss steps that an ordinary step makes up for; set "
            "`untouched='frozen'` in the groups, or step as ever"
        )
    for name, off in (("max_norm", None), ("nonfinite", "propagate")):
        if name == "max_norm" and optimizer.clip == TENSOR:
            continue  # each by itself
        value = getattr(optimizer, name)
        if value != off:
            raise ValueError(
                f"{name}={value!r} needs all gradients before the first step, and in the backward "
                f"pass they come one by one; set `optimizer.{name} = {off!r}`, or step as ever"
            )
