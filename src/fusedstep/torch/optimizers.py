"""The optimizers: torch's classes, with this package's step."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

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
]

Params: TypeAlias = Any
Number: TypeAlias = "float | Tensor"


class SGD(FusedOptimizer, torch.optim.SGD):
    kind = KINDS["SGD"]
    beyond = frozenset({"lr_in_momentum", "l1", "ema"})

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
        max_norm: float | None = None,
        max_value: float | None = None,
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


class Adagrad(FusedOptimizer, torch.optim.Adagrad):
    kind = KINDS["Adagrad"]
    beyond = frozenset({"eps_inside_sqrt", "l1", "ema"})

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
        max_norm: float | None = None,
        max_value: float | None = None,
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


class RMSprop(FusedOptimizer, torch.optim.RMSprop):
    kind = KINDS["RMSprop"]
    beyond = frozenset({"eps_inside_sqrt", "lr_in_momentum", "l1", "ema"})

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
        max_norm: float | None = None,
        max_value: float | None = None,
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


class Adam(FusedOptimizer, torch.optim.Adam):
    kind = KINDS["Adam"]
    beyond = frozenset(
        {"eps_inside_sqrt", "eps_uncorrected", "bias_correction", "decay_scale", "l1", "ema"}
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
        max_norm: float | None = None,
        max_value: float | None = None,
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


class AdamW(FusedOptimizer, torch.optim.AdamW):
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
        max_norm: float | None = None,
        max_value: float | None = None,
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


class NAdam(FusedOptimizer, torch.optim.NAdam):
    kind = KINDS["NAdam"]
    beyond = frozenset({"l1", "ema"})

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
        max_norm: float | None = None,
        max_value: float | None = None,
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


class RAdam(FusedOptimizer, torch.optim.RAdam):
    kind = KINDS["RAdam"]
    beyond = frozenset({"l1", "ema"})

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
        max_norm: float | None = None,
        max_value: float | None = None,
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


class Adamax(FusedOptimizer, torch.optim.Adamax):
    kind = KINDS["Adamax"]
    beyond = frozenset({"l1", "ema"})

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
        max_norm: float | None = None,
        max_value: float | None = None,
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        super().__init__(**self._begin(locals()))


class Lion(FusedOptimizer):
    kind = KINDS["Lion"]
    beyond = frozenset({"l1", "ema"})

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
        max_norm: float | None = None,
        max_value: float | None = None,
        nonfinite: str = "propagate",
        backend: str = "auto",
    ) -> None:
        defaults = check_as_torch(self._begin(locals()))
        super().__init__(defaults.pop("params"), defaults)


class Adan(FusedOptimizer):
    kind = KINDS["Adan"]
    beyond = frozenset({"l1", "ema"})

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
        max_norm: float | None = None,
        max_value: float | None = None,
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
