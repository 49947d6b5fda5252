"""The swap of a live optimizer of torch's for one of this package's."""

from __future__ import annotations

from functools import wraps
from typing import Any
from weakref import ref

import torch

from fusedstep._checks.wording import quoted
from fusedstep.torch import optimizers
from fusedstep.torch._optimizer import FusedOptimizer

OURS: dict[type, Any] = {
    getattr(torch.optim, name): getattr(optimizers, name)
    for name in optimizers.__all__
    if hasattr(torch.optim, name)
}
"""This package's class for each of torch's."""

WRAPPED = "_wrapped_by_lr_sched"
"""The attribute by which torch's learning rate schedulers know that a step tells them."""


def replace(optimizer: Any, **options: Any) -> Any:
    """Swap a live optimizer of torch's for this package's of the same name: it is the same object.

    Whatever refers to it goes on as before: schedulers, hooks, a GradScaler, a trainer. Groups,
    state and hyperparameters stay as they are, so a run goes on along the same trajectory.

    Parameters
    ----------
    optimizer
        An optimizer of torch's own classes.
    **options
        Arguments beyond torch's, as `max_norm=1.0`, for all groups.

    Returns
    -------
    optimizer
        The same object, whose class is now this package's.

    Raises
    ------
    TypeError
        If there is no class of its name here, or it is of a class derived from torch's, whose own
        step would be lost, or its `step` was replaced by something other than a scheduler. Nothing
        has been changed.

    Examples
    --------
    >>> import torch, fusedstep.torch
    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> opt = torch.optim.SGD([weight], lr=0.1)
    >>> schedule = torch.optim.lr_scheduler.ExponentialLR(opt, gamma=0.5)
    >>> fusedstep.torch.replace(opt) is opt
    True
    >>> weight.sum().backward()
    >>> opt.step()
    >>> schedule.step()
    >>> weight.data, opt.param_groups[0]["lr"]
    (tensor([0.9000, 0.9000]), 0.05)
    """
    kind = type(optimizer)
    if isinstance(optimizer, FusedOptimizer) and not options:
        return optimizer
    if kind not in OURS:
        raise TypeError(
            f"{kind.__module__}.{kind.__qualname__} cannot be replaced; fusedstep.torch has "
            f"{quoted([each.__name__ for each in OURS.values()])}, for torch's own classes of "
            "these names"
        )
    own_step = vars(optimizer).get("step")
    if own_step is not None and not hasattr(own_step, WRAPPED):
        raise TypeError(
            f"the optimizer's step was replaced by {own_step!r}, which would go on calling "
            "torch's; replace the optimizer before that is done to it"
        )
    ours = OURS[kind]
    surplus = [name for name in options if name not in ours.options()]
    if surplus:
        raise TypeError(
            f"replace() got the unknown argument {quoted(surplus)}; beyond torch's, "
            f"{ours.__name__} has {quoted(sorted(ours.options()))}"
        )
    before = dict(vars(optimizer))
    try:
        optimizer.__class__ = ours
        optimizer.adopt(options)
    except BaseException:
        optimizer.__class__ = kind
        vars(optimizer).clear()
        vars(optimizer).update(before)
        raise
    if own_step is not None:
        optimizer.step = _telling(optimizer)
    return optimizer


def _telling(optimizer: Any) -> Any:
    """The optimizer's step, which tells schedulers that it was called, as theirs does."""
    step = type(optimizer).step
    weak = ref(optimizer)

    @wraps(step)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        held: Any = weak()
        held._opt_called = True  # noqa: SLF001  as torch's schedulers look for it
        return step.__get__(held, type(held))(*args, **kwargs)

    setattr(wrapper, WRAPPED, True)
    return wrapper
