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
