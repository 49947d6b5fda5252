"""Semantics and defaults of other frameworks, as arguments of our optimizers.

`torch`, `keras`, `optax` and `lecture` each have `SGD`, `Adagrad`, `RMSprop`, `Adam` and
`AdamW`, some have optimizers of `fusedstep.rules`, and `federated` has what servers of federated
learning use: a read-only mapping of keyword arguments for the class of that name, which then
steps in the framework's way. Each names all
that the framework's step depends on, so that none of our defaults takes part. To change an
argument, lay it over the others:

>>> import numpy as np, fusedstep as fs
>>> p = np.array([1.0, 2.0])
>>> opt = fs.AdamW(p, **fs.presets.keras.AdamW)
>>> opt.param_groups[0]["eps"]
1e-07
>>> opt = fs.AdamW(p, **{**fs.presets.keras.AdamW, "lr": 0.1})
>>> opt.lr
0.1
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from fusedstep._checks.hints import did_you_mean

__all__ = ["federated", "keras", "lecture", "optax", "torch"]

Arguments: TypeAlias = Mapping[str, Any]


def _arguments(**values: Any) -> Arguments:
    return MappingProxyType(values)


class Preset(type):
    """The type of a framework's classes, which says of a name that it lacks what is near."""

    def __getattr__(cls, name: str) -> Any:
        names = [each for each in vars(cls) if not each.startswith("_")]
        hint = "" if name.startswith("_") else f"; {did_you_mean(name, names, 'it has')}"
        raise AttributeError(f"fs.presets.{cls.__name__} has no {name!r}{hint}", name=name, obj=cls)

    def __getitem__(cls, name: str) -> Any:
        place = f"fs.presets.{cls.__name__}"
        raise TypeError(f"{place} has its presets as attributes: `{place}.{name}`")


class torch(metaclass=Preset):
    """torch 2.13, whose semantics and defaults our classes have without a preset, too.

    A preset writes down that they are meant, whatever the defaults of a later release are. Adan
    and Lion are not in torch.
    """

    SGD: Final[Arguments] = _arguments(
        lr=1e-3,
        momentum=0.0,
        dampening=0.0,
        weight_decay=0.0,
        nesterov=False,
        lr_in_momentum=False,
    )
    Adagrad: Final[Arguments] = _arguments(
        lr=1e-2,
        lr_decay=0.0,
        weight_decay=0.0,
        initial_accumulator_value=0.0,
        eps=1e-10,
        eps_inside_sqrt=False,
    )
    RMSprop: Final[Arguments] = _arguments(
        lr=1e-2,
        alpha=0.99,
        eps=1e-8,
        weight_decay=0.0,
        momentum=0.0,
        centered=False,
        eps_inside_sqrt=False,
        lr_in_momentum=False,
    )
    Adam: Final[Arguments] = _arguments(
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        amsgrad=False,
        eps_inside_sqrt=False,
        eps_uncorrected=False,
        bias_correction=True,
    )
    AdamW: Final[Arguments] = _arguments(
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=1e-2,
        amsgrad=False,
        eps_inside_sqrt=False,
        eps_uncorrected=False,
        bias_correction=True,
        decay_scale="lr",
    )
    NAdam: Final[Arguments] = _arguments(
        lr=2e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        momentum_decay=4e-3,
        decoupled_weight_decay=False,
    )
    RAdam: Final[Arguments] = _arguments(
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        decoupled_weight_decay=False,
    )
    Adamax: Final[Arguments] = _arguments(
        lr=2e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
    )


class keras(metaclass=Preset):
    """Keras 3.

    The learning rate is inside the momentum buffer, ε = 1e-7 is under the root or, in Adam
    and AdamW, beside the v that is not yet corrected for bias, and AdaGrad's sum starts at
    0.1. `nesterov`, `momentum`, `centered` and `amsgrad` mean the same; `rho` is our `alpha`,
    `beta_1` and `beta_2` are `betas`.

    Keras's `weight_decay` is decoupled from the gradient in every optimizer, as in our Lion.
    Its Adam with weight decay is our `AdamW` with these arguments. Its SGD, Adagrad and RMSprop
    with weight decay have no counterpart, as our `weight_decay` is coupled there; nor has its
    Adamax, which adds ε to the maximum afterwards, nor its Nadam, whose momentum has another
    schedule.
    """

    SGD: Final[Arguments] = _arguments(
        lr=1e-2,
        momentum=0.0,
        dampening=0.0,
        weight_decay=0.0,
        nesterov=False,
        lr_in_momentum=True,
    )
    Adagrad: Final[Arguments] = _arguments(
        lr=1e-3,
        lr_decay=0.0,
        weight_decay=0.0,
        initial_accumulator_value=0.1,
        eps=1e-7,
        eps_inside_sqrt=True,
    )
    RMSprop: Final[Arguments] = _arguments(
        lr=1e-3,
        alpha=0.9,
        eps=1e-7,
        weight_decay=0.0,
        momentum=0.0,
        centered=False,
        eps_inside_sqrt=True,
        lr_in_momentum=True,
    )
    Adam: Final[Arguments] = _arguments(
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-7,
        weight_decay=0.0,
        amsgrad=False,
        eps_inside_sqrt=False,
        eps_uncorrected=True,
        bias_correction=True,
    )
    AdamW: Final[Arguments] = _arguments(
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-7,
        weight_decay=4e-3,
        amsgrad=False,
        eps_inside_sqrt=False,
        eps_uncorrected=True,
        bias_correction=True,
        decay_scale="lr",
    )
    Lion: Final[Arguments] = _arguments(
        lr=1e-3,
        betas=(0.9, 0.99),
        weight_decay=0.0,
    )


class optax(metaclass=Preset):
    """optax 0.2: its `sgd`, `adagrad`, `rmsprop`, `adam`, `adamw`, `lion` and `adamax`.

    optax gives the learning rate no default, so these have none: pass `lr`. It is inside
    RMSprop's momentum buffer and outside of SGD's. ε is under the root in AdaGrad, whose sum
    starts at 0.1, and in RMSprop. `decay` of RMSprop is our `alpha`, `b1` and `b2` are `betas`,
    and no momentum is `None` there and 0 here.

    Adam has one ε here: `eps_root` without `eps` is our `eps` with `eps_inside_sqrt=True`. Left
    out are `optax.amsgrad`, whose maximum is that of the corrected second moment, RMSprop with
    `nesterov`, `bias_correction` or `initial_scale`, and nadam, radam and adan, whose steps
    differ from ours.
    """

    SGD: Final[Arguments] = _arguments(
        momentum=0.0,
        dampening=0.0,
        weight_decay=0.0,
        nesterov=False,
        lr_in_momentum=False,
    )
    Adagrad: Final[Arguments] = _arguments(
        lr_decay=0.0,
        weight_decay=0.0,
        initial_accumulator_value=0.1,
        eps=1e-7,
        eps_inside_sqrt=True,
    )
    RMSprop: Final[Arguments] = _arguments(
        alpha=0.9,
        eps=1e-8,
        weight_decay=0.0,
        momentum=0.0,
        centered=False,
        eps_inside_sqrt=True,
        lr_in_momentum=True,
    )
    Adam: Final[Arguments] = _arguments(
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        amsgrad=False,
        eps_inside_sqrt=False,
        eps_uncorrected=False,
        bias_correction=True,
    )
    AdamW: Final[Arguments] = _arguments(
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=1e-4,
        amsgrad=False,
        eps_inside_sqrt=False,
        eps_uncorrected=False,
        bias_correction=True,
        decay_scale="lr",
    )
    Lion: Final[Arguments] = _arguments(
        betas=(0.9, 0.99),
        weight_decay=1e-3,
    )
    Adamax: Final[Arguments] = _arguments(
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
    )


class lecture(metaclass=Preset):
    """The formulas as lecture notes write them, without what implementations add.

    ::

        SGD        b = μ·b + g,              p = p - α·b
        Adagrad    s = s + g²,               p = p - α·g/√(s + ε)
        RMSprop    v = ρ·v + (1 - ρ)·g²,     p = p - α·g/√(v + ε)
        Adam       m = β₁·m + (1 - β₁)·g,
                   v = β₂·v + (1 - β₂)·g²,   p = p - α·m/√(v + ε)
        AdamW      m and v as Adam's,        p = p - ηₜ·(α·m/√(v + ε) + λ·p)

    b, s, m and v start at 0; ε is under the root; nothing is corrected for bias. AdamW decays
    by ηₜ·λ, where ηₜ·α is the learning rate of the step, as Loshchilov and Hutter's Algorithm 2.

    Notes agree on these forms more than on numbers. The numbers here are μ = ρ = 0.9, β₁ = 0.9,
    β₂ = 0.999, ε = 1e-8, and α = 0.01 for SGD and AdaGrad, 0.001 for the others. λ is 0, as the
    formula gives it no value; a λ that was chosen for a decay by α·λ is 1/α times too large here.
    """

    SGD: Final[Arguments] = _arguments(
        lr=1e-2,
        momentum=0.9,
        dampening=0.0,
        weight_decay=0.0,
        nesterov=False,
        lr_in_momentum=False,
    )
    Adagrad: Final[Arguments] = _arguments(
        lr=1e-2,
        lr_decay=0.0,
        weight_decay=0.0,
        initial_accumulator_value=0.0,
        eps=1e-8,
        eps_inside_sqrt=True,
    )
    RMSprop: Final[Arguments] = _arguments(
        lr=1e-3,
        alpha=0.9,
        eps=1e-8,
        weight_decay=0.0,
        momentum=0.0,
        centered=False,
        eps_inside_sqrt=True,
        lr_in_momentum=False,
    )
    Adam: Final[Arguments] = _arguments(
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        amsgrad=False,
        eps_inside_sqrt=True,
        eps_uncorrected=False,
        bias_correction=False,
    )
    AdamW: Final[Arguments] = _arguments(
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        amsgrad=False,
        eps_inside_sqrt=True,
        eps_uncorrected=False,
        bias_correction=False,
        decay_scale="schedule",
    )


class federated(metaclass=Preset):
    """Servers of federated learning: FedAdagrad, FedAdam and FedYogi.

    ::

        Δ = mean of xᵢ - p over the clients i, where xᵢ is what client i has made of p
        m = β₁·m + (1 - β₁)·Δ
        Adagrad    v = v + Δ²                           β₁ = 0
        Adam       v = β₂·v + (1 - β₂)·Δ²
        Yogi       v = v - (1 - β₂)·sign(v - Δ²)·Δ²
        p = p + α·m/(√v + τ)

    Δ is a direction to go in, so that these ascend: `opt.step(delta)`, without a minus sign. Our
    ε is the paper's τ, and nothing is corrected for bias. The paper tunes the learning rate for
    each task, so these have none: pass `lr`. `Yogi` is for `fusedstep.rules.Yogi`. Each stands
    here under the paper's name as well, as `FedYogi`.

    Reddi et al. (2021), "Adaptive Federated Optimization", Algorithm 2, with the paper's β₁ = 0.9,
    β₂ = 0.99 and τ = 1e-3. There v starts from τ² at least, as it does here in `Adagrad` and
    `Yogi`. `Adam`'s v starts at 0; to start it from τ², too, write that into `opt.state` before
    the first step: `opt.state["v"][...] = 1e-6`.
    """

    Adagrad: Final[Arguments] = _arguments(
        lr_decay=0.0,
        weight_decay=0.0,
        initial_accumulator_value=1e-6,
        eps=1e-3,
        eps_inside_sqrt=False,
        maximize=True,
    )
    Adam: Final[Arguments] = _arguments(
        betas=(0.9, 0.99),
        eps=1e-3,
        weight_decay=0.0,
        amsgrad=False,
        eps_inside_sqrt=False,
        eps_uncorrected=False,
        bias_correction=False,
        maximize=True,
    )
    Yogi: Final[Arguments] = _arguments(
        betas=(0.9, 0.99),
        eps=1e-3,
        weight_decay=0.0,
        initial_v=1e-6,
        bias_correction=False,
        maximize=True,
    )
    FedAdagrad: Final[Arguments] = Adagrad
    FedAdam: Final[Arguments] = Adam
    FedYogi: Final[Arguments] = Yogi


def __getattr__(name: str) -> Any:
    from fusedstep._names import missing

    raise missing(__name__, name)
