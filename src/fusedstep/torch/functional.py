"""Single steps on tensors, gradients and state that the caller owns, as `torch.optim.functional`.

The signatures are those that torch documents for its module of that name, from 2.15 on, and each
function is one fused step of all tensors, in place. State is as the class of that name has it, and
the steps it counts are in `state_steps`. `foreach` and `fused` change nothing. `has_complex` and
`has_sparse_grad` need not be told. With `differentiable` or `capturable` torch's own function
runs. These functions have no place for the bits that a 16-bit parameter lacks: it is stepped bare,
and it and state of 16 bits are rounded to nearest, as torch does it. What a class looks at once is
looked at in each call, some 50 µs a tensor: a loop over many tensors is faster with a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, TypeAlias

from torch import Tensor

from fusedstep._core.request import PLAIN, check_request
from fusedstep.torch._kinds import KINDS
from fusedstep.torch._steps import Steps

Number: TypeAlias = "float | Tensor"


def sgd(
    params: list[Tensor],
    d_p_list: list[Tensor],
    momentum_buffer_list: list[Tensor | None],
    has_sparse_grad: bool = False,
    foreach: bool | None = None,
    fused: bool | None = None,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    *,
    weight_decay: float,
    momentum: float,
    lr: Number,
    dampening: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """One step of `fusedstep.torch.SGD`.

    A buffer that is None is made, and put into the list.

    >>> import torch, fusedstep.torch
    >>> p, buffers = torch.ones(2), [None]
    >>> fusedstep.torch.functional.sgd(
    ...     [p], [torch.ones(2)], buffers, lr=0.5, momentum=0.9, weight_decay=0.0, dampening=0.0,
    ...     nesterov=False, maximize=False,
    ... )
    >>> p, buffers
    (tensor([0.5000, 0.5000]), [tensor([1., 1.])])
    """
    given = {**locals()}
    hyper = {"lr": lr, "momentum": momentum, "dampening": dampening, "nesterov": nesterov}
    hyper |= {"weight_decay": weight_decay, "maximize": maximize}
    arrays = {"momentum_buffer": momentum_buffer_list} if momentum else {}
    _step("SGD", given, params, d_p_list, arrays, None, hyper, grad_scale, found_inf)


def adagrad(
    params: list[Tensor],
    grads: list[Tensor],
    state_sums: list[Tensor],
    state_steps: list[Tensor],
    fused: bool | None = None,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    has_sparse_grad: bool = False,
    foreach: bool | None = None,
    differentiable: bool = False,
    has_complex: bool = False,
    *,
    lr: Number,
    weight_decay: float,
    lr_decay: float,
    eps: float,
    maximize: bool,
) -> None:
    """One step of `fusedstep.torch.Adagrad`.

    >>> import torch, fusedstep.torch
    >>> p, s, t = torch.ones(2), torch.zeros(2), torch.tensor(0.0)
    >>> fusedstep.torch.functional.adagrad(
    ...     [p], [torch.ones(2)], [s], [t], lr=0.5, weight_decay=0.0, lr_decay=0.0, eps=1e-10,
    ...     maximize=False,
    ... )
    >>> p, s, t
    (tensor([0.5000, 0.5000]), tensor([1., 1.]), tensor(1.))
    """
    given = {**locals()}
    hyper = {"lr": lr, "lr_decay": lr_decay, "eps": eps}
    hyper |= {"weight_decay": weight_decay, "maximize": maximize}
    _step(
        "Adagrad",
        given,
        params,
        grads,
        {"sum": state_sums},
        state_steps,
        hyper,
        grad_scale,
        found_inf,
    )


def rmsprop(
    params: list[Tensor],
    grads: list[Tensor],
    square_avgs: list[Tensor],
    grad_avgs: list[Tensor],
    momentum_buffer_list: list[Tensor],
    state_steps: list[Tensor],
    foreach: bool | None = None,
    maximize: bool = False,
    differentiable: bool = False,
    capturable: bool = False,
    has_complex: bool = False,
    *,
    lr: Number,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    centered: bool,
) -> None:
    """One step of `fusedstep.torch.RMSprop`.

    >>> import torch, fusedstep.torch
    >>> p, v, t = torch.ones(2), torch.zeros(2), torch.tensor(0.0)
    >>> fusedstep.torch.functional.rmsprop(
    ...     [p], [torch.ones(2)], [v], [], [], [t], lr=0.5, alpha=0.75, eps=0.0,
    ...     weight_decay=0.0, momentum=0.0, centered=False,
    ... )
    >>> p, v, t
    (tensor([0., 0.]), tensor([0.2500, 0.2500]), tensor(1.))
    """
    given = {**locals()}
    hyper = {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum, "centered": centered}
    hyper |= {"weight_decay": weight_decay, "maximize": maximize}
    arrays = {"square_avg": square_avgs}
    if momentum > 0:
        arrays["momentum_buffer"] = momentum_buffer_list
    if centered:
        arrays["grad_avg"] = grad_avgs
    _step("RMSprop", given, params, grads, arrays, state_steps, hyper)


def adam(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    foreach: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    fused: bool | None = None,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    has_complex: bool = False,
    decoupled_weight_decay: bool = False,
    *,
    amsgrad: bool,
    beta1: Number,
    beta2: Number,
    lr: Number,
    weight_decay: float,
    eps: float,
    maximize: bool,
) -> None:
    """One step of `fusedstep.torch.Adam`.

    >>> import torch, fusedstep.torch
    >>> p, m, v, t = torch.ones(2), torch.zeros(2), torch.zeros(2), torch.tensor(0.0)
    >>> fusedstep.torch.functional.adam(
    ...     [p], [torch.ones(2)], [m], [v], [], [t], lr=0.5, beta1=0.75, beta2=0.75, eps=0.0,
    ...     weight_decay=0.0, amsgrad=False, maximize=False,
    ... )
    >>> p, m, v, t
    (tensor([0.5000, 0.5000]), tensor([0.2500, 0.2500]), tensor([0.2500, 0.2500]), tensor(1.))
    """
    given = {**locals()}
    hyper = {"lr": lr, "betas": (beta1, beta2), "eps": eps, "amsgrad": amsgrad}
    hyper |= {"weight_decay": weight_decay, "maximize": maximize}
    hyper["decoupled_weight_decay"] = decoupled_weight_decay
    arrays = {"exp_avg": exp_avgs, "exp_avg_sq": exp_avg_sqs}
    if amsgrad:
        arrays["max_exp_avg_sq"] = max_exp_avg_sqs
    _step("Adam", given, params, grads, arrays, state_steps, hyper, grad_scale, found_inf)


def adamw(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    foreach: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    fused: bool | None = None,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    has_complex: bool = False,
    *,
    amsgrad: bool,
    beta1: Number,
    beta2: Number,
    lr: Number,
    weight_decay: float,
    eps: float,
    maximize: bool,
) -> None:
    """One step of `fusedstep.torch.AdamW`.

    >>> import torch, fusedstep.torch
    >>> p, m, v, t = torch.ones(2), torch.zeros(2), torch.zeros(2), torch.tensor(0.0)
    >>> fusedstep.torch.functional.adamw(
    ...     [p], [torch.ones(2)], [m], [v], [], [t], lr=0.5, beta1=0.75, beta2=0.75, eps=0.0,
    ...     weight_decay=0.5, amsgrad=False, maximize=False,
    ... )
    >>> p
    tensor([0.2500, 0.2500])
    """
    adam(**locals(), decoupled_weight_decay=True)


def nadam(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    mu_products: list[Tensor],
    state_steps: list[Tensor],
    decoupled_weight_decay: bool = False,
    foreach: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    has_complex: bool = False,
    maximize: bool = False,
    *,
    beta1: float,
    beta2: float,
    lr: Number,
    weight_decay: float,
    momentum_decay: float,
    eps: float,
) -> None:
    """One step of `fusedstep.torch.NAdam`; `mu_products` start as ones.

    >>> import torch, fusedstep.torch
    >>> p, m, v, t = torch.ones(2), torch.zeros(2), torch.zeros(2), torch.tensor(0.0)
    >>> fusedstep.torch.functional.nadam(
    ...     [p], [torch.ones(2)], [m], [v], [torch.tensor(1.0)], [t], lr=0.5, beta1=0.75,
    ...     beta2=0.75, eps=0.0, weight_decay=0.0, momentum_decay=4e-3,
    ... )
    >>> m, v, t
    (tensor([0.2500, 0.2500]), tensor([0.2500, 0.2500]), tensor(1.))
    """
    given = {**locals()}
    hyper = {"lr": lr, "betas": (beta1, beta2), "eps": eps, "momentum_decay": momentum_decay}
    hyper |= {"weight_decay": weight_decay, "maximize": maximize}
    hyper["decoupled_weight_decay"] = decoupled_weight_decay
    arrays = {"exp_avg": exp_avgs, "exp_avg_sq": exp_avg_sqs, "mu_product": mu_products}
    _step("NAdam", given, params, grads, arrays, state_steps, hyper)


def radam(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    decoupled_weight_decay: bool = False,
    foreach: bool | None = None,
    differentiable: bool = False,
    capturable: bool = False,
    has_complex: bool = False,
    maximize: bool = False,
    *,
    beta1: float,
    beta2: float,
    lr: Number,
    weight_decay: float,
    eps: float,
) -> None:
    """One step of `fusedstep.torch.RAdam`.

    >>> import torch, fusedstep.torch
    >>> p, m, v, t = torch.ones(2), torch.zeros(2), torch.zeros(2), torch.tensor(0.0)
    >>> fusedstep.torch.functional.radam(
    ...     [p], [torch.ones(2)], [m], [v], [t], lr=0.5, beta1=0.75, beta2=0.75, eps=0.0,
    ...     weight_decay=0.0,
    ... )
    >>> p, t
    (tensor([0.5000, 0.5000]), tensor(1.))
    """
    given = {**locals()}
    hyper = {"lr": lr, "betas": (beta1, beta2), "eps": eps}
    hyper |= {"weight_decay": weight_decay, "maximize": maximize}
    hyper["decoupled_weight_decay"] = decoupled_weight_decay
    arrays = {"exp_avg": exp_avgs, "exp_avg_sq": exp_avg_sqs}
    _step("RAdam", given, params, grads, arrays, state_steps, hyper)


def adamax(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_infs: list[Tensor],
    state_steps: list[Tensor],
    foreach: bool | None = None,
    maximize: bool = False,
    differentiable: bool = False,
    capturable: bool = False,
    has_complex: bool = False,
    *,
    eps: float,
    beta1: float,
    beta2: float,
    lr: Number,
    weight_decay: float,
) -> None:
    """One step of `fusedstep.torch.Adamax`.

    >>> import torch, fusedstep.torch
    >>> p, m, x, t = torch.ones(2), torch.zeros(2), torch.zeros(2), torch.tensor(0.0)
    >>> fusedstep.torch.functional.adamax(
    ...     [p], [torch.ones(2)], [m], [x], [t], lr=0.5, beta1=0.75, beta2=0.75, eps=0.0,
    ...     weight_decay=0.0,
    ... )
    >>> p, x, t
    (tensor([0.5000, 0.5000]), tensor([1., 1.]), tensor(1.))
    """
    given = {**locals()}
    hyper = {"lr": lr, "betas": (beta1, beta2), "eps": eps}
    hyper |= {"weight_decay": weight_decay, "maximize": maximize}
    arrays = {"exp_avg": exp_avgs, "exp_inf": exp_infs}
    _step("Adamax", given, params, grads, arrays, state_steps, hyper)


def _as_torch(name: str, given: dict[str, Any]) -> None:
    """Call torch's own function for the optimizer of that name."""
    function = name.lower()
    getattr(import_module(f"torch.optim.{function}"), function)(**given)


def _step(
    name: str,
    given: dict[str, Any],
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    arrays: dict[str, Any],
    steps: Sequence[Tensor] | None,
    hyper: dict[str, Any],
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
) -> None:
    """One step of the optimizer of that name; `arrays` has a list for each name of its state.

    `given` are the arguments of the function, for torch's own.
    """
    if given.get("differentiable") or given.get("capturable"):
        _as_torch(name, given)
        return
    if found_inf is not None and found_inf.item():
        return
    lists = {**arrays, **({} if steps is None else {"step": steps})}
    for key, items in (("grads", grads), *lists.items()):
        if len(items) != len(params):
            raise ValueError(
                f"{key} has {len(items)} tensors for {len(params)} parameters; pass one for each"
            )
    if steps is not None and not all(isinstance(each, Tensor) for each in steps):
        raise RuntimeError(
            "API has changed, `state_steps` argument must contain a list of singleton tensors"
        )
    state = {
        p: {key: items[at] for key, items in lists.items() if items[at] is not None}
        for at, p in enumerate(params)
    }
    group = {"params": [*params], **hyper, "rounding": "nearest"}
    one = Steps(KINDS[name], [group], state, {}, "auto", as_given=True)
    scale = 1.0 if grad_scale is None else grad_scale.item()
    request = PLAIN if scale == 1 else check_request(scale, None, None, False)
    if one.handed_on:
        _as_torch(name, given)
        return
    one.step_by(one.prepared([*grads]), request, "propagate")
    for at, p in enumerate(params):
        for key, items in lists.items():
            made = state[p][key]
            if items[at] is None:
                items[at] = made
            elif made is not items[at]:  # a count that was not a float on the CPU
                items[at].copy_(made)
