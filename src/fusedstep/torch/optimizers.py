"""The optimizers: torch's classes, with this package's step.

Each takes the arguments of torch's class of that name, in its order and with its defaults, and has
its state under its names. What it takes besides is keyword-only. Lion and Adan, which torch has
not, are made to the same pattern.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from fusedstep._core.kept import STORAGE
from fusedstep.torch._arrays import HALVES, wide_dtype
from fusedstep.torch._docs import described
from fusedstep.torch._kinds import KINDS
from fusedstep.torch._optimizer import FusedOptimizer

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "Lion",
    "NAdam",
    "RAdam",
    "RMSprop",
    "SparseAdam",
]

Params: TypeAlias = Any
Number: TypeAlias = "float | Tensor"


@described
class SGD(FusedOptimizer, torch.optim.SGD):
    """Stochastic gradient descent, with momentum or Nesterov's, as `torch.optim.SGD`.

    The formula is that of `fusedstep.SGD`; state `"momentum_buffer"` is its b.

    Examples
    --------
    >>> import torch, fusedstep.torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> opt = fusedstep.torch.SGD([p], lr=0.1, momentum=0.9)
    >>> p.grad = torch.tensor([1.0, -1.0])
    >>> opt.step()
    >>> p.data, opt.state[p]
    (tensor([0.9000, 2.1000]), {'momentum_buffer': tensor([ 1., -1.])})
    """

    kind = KINDS["SGD"]
    beyond = frozenset({"lr_in_momentum", "l1", "ema", *STORAGE})

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: Number = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        lr_in_momentum: bool = False,
        l1: float = 0.0,
        ema: float | None = None,
        ema_into: Any = None,
        master: Any = None,
        state_dtype: Any = "float32",
        rounding: str = "auto",
        seed: int = 0,
        untouched: str | None = None,
        row_steps: str = "own",
        max_norm: float | None = None,
        max_value: float | None = None,
        clip: str = "global",
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


@described
class Adagrad(FusedOptimizer, torch.optim.Adagrad):
    """AdaGrad, as `torch.optim.Adagrad`.

    The formula is that of `fusedstep.Adagrad`; state `"sum"` is its s, and `"step"` its t.

    Examples
    --------
    >>> import torch, fusedstep.torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> opt = fusedstep.torch.Adagrad([p], lr=0.5)
    >>> p.grad = torch.tensor([3.0, -0.01])
    >>> opt.step()
    >>> p.data
    tensor([0.5000, 2.5000])
    """

    kind = KINDS["Adagrad"]
    beyond = frozenset({"eps_inside_sqrt", "l1", "ema", *STORAGE})

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        eps_inside_sqrt: bool = False,
        l1: float = 0.0,
        ema: float | None = None,
        ema_into: Any = None,
        master: Any = None,
        state_dtype: Any = "float32",
        rounding: str = "auto",
        seed: int = 0,
        untouched: str | None = None,
        row_steps: str = "own",
        max_norm: float | None = None,
        max_value: float | None = None,
        clip: str = "global",
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))
        for group in self.param_groups:
            for p in group["params"]:
                if p.dtype in HALVES and not p.is_complex():  # torch's sum is of that dtype
                    start = group["initial_accumulator_value"]
                    self.state[p]["sum"] = torch.full_like(
                        p.detach(), start, dtype=wide_dtype(p.dtype)
                    )
        self._complete_state()


@described
class RMSprop(FusedOptimizer, torch.optim.RMSprop):
    """RMSprop, as `torch.optim.RMSprop`.

    The formula is that of `fusedstep.RMSprop`; state `"square_avg"` is its v, `"grad_avg"` its a,
    `"momentum_buffer"` its b, and `"step"` its t.

    Examples
    --------
    >>> import torch, fusedstep.torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> opt = fusedstep.torch.RMSprop([p], lr=0.1, alpha=0.75)
    >>> p.grad = torch.tensor([3.0, -0.01])
    >>> opt.step()
    >>> p.data
    tensor([0.8000, 2.2000])
    """

    kind = KINDS["RMSprop"]
    beyond = frozenset({"eps_inside_sqrt", "lr_in_momentum", "l1", "ema", *STORAGE})

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        eps_inside_sqrt: bool = False,
        lr_in_momentum: bool = False,
        l1: float = 0.0,
        ema: float | None = None,
        ema_into: Any = None,
        master: Any = None,
        state_dtype: Any = "float32",
        rounding: str = "auto",
        seed: int = 0,
        untouched: str | None = None,
        row_steps: str = "own",
        max_norm: float | None = None,
        max_value: float | None = None,
        clip: str = "global",
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


@described
class Adam(FusedOptimizer, torch.optim.Adam):
    """Adam, with weight decay as coupled L2, as `torch.optim.Adam`.

    The formula is that of `fusedstep.Adam`; state `"exp_avg"` is its m, `"exp_avg_sq"` its v,
    `"max_exp_avg_sq"` its x, and `"step"` its t.

    Examples
    --------
    >>> import torch, fusedstep.torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> opt = fusedstep.torch.Adam([p], lr=0.1, max_norm=1.0)
    >>> p.grad = torch.tensor([3.0, -4.0])
    >>> opt.step()
    >>> p.data, opt.report.grad_norm
    (tensor([0.9000, 2.1000]), 5.0)
    """

    kind = KINDS["Adam"]
    beyond = frozenset(
        {
            *("eps_inside_sqrt", "eps_uncorrected", "bias_correction", "decay_scale"),
            *("l1", "ema", *STORAGE),
        }
    )

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        eps_inside_sqrt: bool = False,
        eps_uncorrected: bool = False,
        bias_correction: bool = True,
        decay_scale: str = "lr",
        l1: float = 0.0,
        ema: float | None = None,
        ema_into: Any = None,
        master: Any = None,
        state_dtype: Any = "float32",
        rounding: str = "auto",
        seed: int = 0,
        untouched: str | None = None,
        row_steps: str = "own",
        max_norm: float | None = None,
        max_value: float | None = None,
        clip: str = "global",
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


@described
class AdamW(FusedOptimizer, torch.optim.AdamW):
    """Adam with decoupled weight decay, as `torch.optim.AdamW`.

    The formula is that of `fusedstep.AdamW`; state `"exp_avg"` is its m, `"exp_avg_sq"` its v,
    `"max_exp_avg_sq"` its x, and `"step"` its t.

    Examples
    --------
    >>> import torch, fusedstep.torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> opt = fusedstep.torch.AdamW([p], lr=0.1, weight_decay=0.5)
    >>> p.grad = torch.tensor([3.0, -0.01])
    >>> opt.step()
    >>> p.data
    tensor([0.8500, 2.0000])
    """

    kind = KINDS["Adam"]
    beyond = Adam.beyond

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        eps_inside_sqrt: bool = False,
        eps_uncorrected: bool = False,
        bias_correction: bool = True,
        decay_scale: str = "lr",
        l1: float = 0.0,
        ema: float | None = None,
        ema_into: Any = None,
        master: Any = None,
        state_dtype: Any = "float32",
        rounding: str = "auto",
        seed: int = 0,
        untouched: str | None = None,
        row_steps: str = "own",
        max_norm: float | None = None,
        max_value: float | None = None,
        clip: str = "global",
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


@described
class SparseAdam(FusedOptimizer, torch.optim.SparseAdam):
    """Adam by the rows of sparse gradients, as `torch.optim.SparseAdam`.

    All other rows stay as they are, and t is that of the parameter. The formula is that of
    `fusedstep.Adam` with `eps_uncorrected`; state `"exp_avg"` is its m, `"exp_avg_sq"` its v, and
    `"step"` its t. `Adam` with `untouched="exact"` is Adam itself over sparse gradients.

    Examples
    --------
    >>> import torch, fusedstep.torch
    >>> words = torch.nn.Embedding(3, 2, sparse=True)
    >>> _ = torch.nn.init.ones_(words.weight)
    >>> opt = fusedstep.torch.SparseAdam(words.parameters(), lr=0.1)
    >>> words(torch.tensor([2, 0, 2])).sum().backward()
    >>> opt.step()
    >>> words.weight.data
    tensor([[0.9000, 0.9000],
            [1.0000, 1.0000],
            [0.9000, 0.9000]])
    """

    kind = KINDS["SparseAdam"]
    beyond = frozenset()

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
        *,
        max_norm: float | None = None,
        max_value: float | None = None,
        clip: str = "global",
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


@described
class NAdam(FusedOptimizer, torch.optim.NAdam):
    """NAdam: Adam with Nesterov's momentum, as `torch.optim.NAdam`.

    The formula is that of `fusedstep.rules.NAdam`; state `"exp_avg"` is its m, `"exp_avg_sq"` its
    v, and `"step"` its t. The product μ₁···μₜ is torch's state `"mu_product"`, multiplied up step
    by step in that tensor's dtype, as torch does it.

    Examples
    --------
    >>> import torch, fusedstep.torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> opt = fusedstep.torch.NAdam([p], lr=0.1)
    >>> p.grad = torch.tensor([3.0, -0.01])
    >>> opt.step()
    >>> p.data
    tensor([0.8944, 2.1056])
    """

    kind = KINDS["NAdam"]
    beyond = frozenset({"l1", "ema", *STORAGE})

    def __init__(
        self,
        params: Params,
        lr: Number = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        l1: float = 0.0,
        ema: float | None = None,
        ema_into: Any = None,
        master: Any = None,
        state_dtype: Any = "float32",
        rounding: str = "auto",
        seed: int = 0,
        untouched: str | None = None,
        row_steps: str = "own",
        max_norm: float | None = None,
        max_value: float | None = None,
        clip: str = "global",
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


@described
class RAdam(FusedOptimizer, torch.optim.RAdam):
    """RAdam: Adam that trusts its second moment only as far as it has seen gradients.

    The class is `torch.optim.RAdam`'s, the formula that of `fusedstep.rules.RAdam`; state
    `"exp_avg"` is its m, `"exp_avg_sq"` its v, and `"step"` its t.

    Examples
    --------
    >>> import torch, fusedstep.torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> opt = fusedstep.torch.RAdam([p], lr=0.1)
    >>> p.grad = torch.tensor([3.0, -0.01])
    >>> opt.step()
    >>> p.data
    tensor([0.7000, 2.0010])
    """

    kind = KINDS["RAdam"]
    beyond = frozenset({"l1", "ema", *STORAGE})

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        l1: float = 0.0,
        ema: float | None = None,
        ema_into: Any = None,
        master: Any = None,
        state_dtype: Any = "float32",
        rounding: str = "auto",
        seed: int = 0,
        untouched: str | None = None,
        row_steps: str = "own",
        max_norm: float | None = None,
        max_value: float | None = None,
        clip: str = "global",
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


@described
class Adamax(FusedOptimizer, torch.optim.Adamax):
    """Adamax: Adam with the largest gradient, which fades, as `torch.optim.Adamax`.

    The formula is that of `fusedstep.rules.Adamax`; state `"exp_avg"` is its m, `"exp_inf"` its x,
    and `"step"` its t.

    Examples
    --------
    >>> import torch, fusedstep.torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> opt = fusedstep.torch.Adamax([p], lr=0.1)
    >>> p.grad = torch.tensor([3.0, -0.01])
    >>> opt.step()
    >>> p.data
    tensor([0.9000, 2.1000])
    """

    kind = KINDS["Adamax"]
    beyond = frozenset({"l1", "ema", *STORAGE})

    def __init__(
        self,
        params: Params,
        lr: Number = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        l1: float = 0.0,
        ema: float | None = None,
        ema_into: Any = None,
        master: Any = None,
        state_dtype: Any = "float32",
        rounding: str = "auto",
        seed: int = 0,
        untouched: str | None = None,
        row_steps: str = "own",
        max_norm: float | None = None,
        max_value: float | None = None,
        clip: str = "global",
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


@described
class Lion(FusedOptimizer):
    """Lion: steps of one size, in the direction of the momentum's sign.

    The formula is that of `fusedstep.rules.Lion`; state `"exp_avg"` is its m, and `"step"` its t.
    torch has no such class; this one has the contract of all of torch's.

    Examples
    --------
    >>> import torch, fusedstep.torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> opt = fusedstep.torch.Lion([p], lr=0.1)
    >>> p.grad = torch.tensor([3.0, -0.01])
    >>> opt.step()
    >>> p.data
    tensor([0.9000, 2.1000])
    """

    kind = KINDS["Lion"]
    beyond = frozenset({"l1", "ema", *STORAGE})

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        ema: float | None = None,
        ema_into: Any = None,
        master: Any = None,
        state_dtype: Any = "float32",
        rounding: str = "auto",
        seed: int = 0,
        untouched: str | None = None,
        row_steps: str = "own",
        max_norm: float | None = None,
        max_value: float | None = None,
        clip: str = "global",
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        defaults = check_as_torch(self._begin(locals()))
        super().__init__(defaults.pop("params"), defaults)


@described
class Adan(FusedOptimizer):
    """Adan: Adam with Nesterov's momentum, read off the change of the gradients.

    The formula is that of `fusedstep.rules.Adan`; state `"exp_avg"` is its m, `"exp_avg_diff"` its
    a, `"exp_avg_sq"` its v, `"previous_grad"` its o, and `"step"` its t. torch has no such class;
    this one has the contract of all of torch's.

    Examples
    --------
    >>> import torch, fusedstep.torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> opt = fusedstep.torch.Adan([p], lr=0.1)
    >>> p.grad = torch.tensor([3.0, -0.01])
    >>> opt.step()
    >>> p.data
    tensor([0.9000, 2.1000])
    """

    kind = KINDS["Adan"]
    beyond = frozenset({"l1", "ema", *STORAGE})

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        no_prox: bool = False,
        *,
        maximize: bool = False,
        l1: float = 0.0,
        ema: float | None = None,
        ema_into: Any = None,
        master: Any = None,
        state_dtype: Any = "float32",
        rounding: str = "auto",
        seed: int = 0,
        untouched: str | None = None,
        row_steps: str = "own",
        max_norm: float | None = None,
        max_value: float | None = None,
        clip: str = "global",
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        defaults = check_as_torch(self._begin(locals()))
        super().__init__(defaults.pop("params"), defaults)


def check_as_torch(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a class that torch has not, refused where torch would, in its words."""
    lr = arguments["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not lr >= 0.0:
        raise ValueError(f"Invalid learning rate: {lr}")
    for at, beta in enumerate(arguments["betas"]):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {at}: {beta}")
    if not arguments.get("eps", 0.0) >= 0.0:
        raise ValueError(f"Invalid epsilon value: {arguments['eps']}")
    if not arguments["weight_decay"] >= 0.0:
        raise ValueError(f"Invalid weight_decay value: {arguments['weight_decay']}")
    return arguments
