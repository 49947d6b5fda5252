r"""Further optimizers, each a custom rule: written with `fusedstep.rule`.

They are complete optimizers, and examples of what a custom rule may look like. Letters are those
of `fusedstep.optimizers`; o is the gradient of the step before. A function before each rule
computes powers, corrections for bias and all else that depends on hyperparameters and t alone,
so that the rule itself reads as its paper does.

>>> import numpy as np, fusedstep as fs
>>> p = np.array([1.0, 2.0])
>>> _ = fs.rules.Lion(p, lr=0.1).step(np.array([3.0, -0.01]))
>>> p
array([0.9, 2.1])
"""

# mypy: allow-untyped-defs, disallow-untyped-decorators=false
# ruff: noqa: N802

from math import sqrt
from typing import Any

import numpy as np

from fusedstep._core.custom import rule
from fusedstep._numerics.coefficients import Values
from fusedstep._numerics.momenta import momenta
from fusedstep._numerics.powers import beta_power, correction

__all__ = ["Adamax", "Adan", "Lion", "NAdam", "RAdam", "Yogi"]


def averages(h: Any) -> Values:
    """β₁ and β₂, the shares of the old averages, and the rests, those of the new gradient."""
    beta1, beta2 = h.betas
    return {"beta1": beta1, "rest1": 1 - beta1, "beta2": beta2, "rest2": 1 - beta2}


def decay(h: Any) -> Values:
    """Scalars of weight decay: p·(1 - α·λ) if it is decoupled, else coupled L2."""
    if h.decoupled_weight_decay:
        return {"decay": 1 - h.lr * h.weight_decay, "l2": 0.0}
    return {"decay": 1.0, "l2": h.weight_decay}


def lion_scalars(h: Any, t: int) -> Values:
    return {**averages(h), "decay": 1 - h.lr * h.weight_decay}


@rule(state=("m",), prepare=lion_scalars, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0)
def Lion(p, g, m, h):
    r"""Lion: steps of one size, in the direction of the momentum's sign.

    ::

        g = ±g + λ₁·sign(p)                only what is switched on
        p = p·(1 - α·λ)
        p = p - α·sign(β₁·m + (1 - β₁)·g)
        m = β₂·m + (1 - β₂)·g

    Parameters
    ----------
    params
        What to update, see `Optimizer`.
    lr
        α, the learning rate, at least 0: a number, or a function of t such as a schedule of
        `fusedstep.schedules`. Of use are 3 to 10 times less than for AdamW.
    betas
        (β₁, β₂), each in [0, 1).
    weight_decay
        λ, at least 0: decoupled, as in AdamW.
    maximize
        Ascend: -g in g's place.
    l1
        λ₁ of L1, at least 0.
    ema
        What a moving average of the parameters keeps at each step, in [0, 1); None for no
        average. State `"ema"`, see `Optimizer`.
    master, state_dtype, rounding, seed, out
        How parameters and state are kept in fewer bytes, see `Optimizer`.
    untouched, row_steps
        The fate of rows that a gradient of some rows leaves out, see `Rows`.
    nonfinite
        What to do about gradients with NaN or infinity, see `Optimizer`.
    capturable
        On a CUDA device: True for steps that may be part of a CUDA graph, see `Optimizer`.
    backend
        `"auto"`, or the name of a backend; `fusedstep.info()` lists them.

    Notes
    -----
    Chen et al. (2023), "Symbolic Discovery of Optimization Algorithms", Algorithm 2. Names,
    order and defaults are those of its authors' code.

    Examples
    --------
    >>> import numpy as np, fusedstep as fs
    >>> p = np.array([1.0, 2.0])
    >>> _ = fs.rules.Lion(p, lr=0.1, weight_decay=0.5).step(np.array([3.0, -0.01]))
    >>> p.round(6)
    array([0.85, 2.  ])
    """
    p = p * h.decay
    p = p - h.lr * np.sign(h.beta1 * m + h.rest1 * g)
    m = h.beta2 * m + h.rest2 * g
    return p, m


def nadam_scalars(h: Any, t: int) -> Values:
    beta1, beta2 = h.betas
    now, ahead, product = momenta(beta1, h.momentum_decay, t)
    return {
        **averages(h),
        **decay(h),
        "now": (1 - now) / (1 - product),
        "ahead": ahead / (1 - product * ahead),
        "r": 1 / sqrt(correction(beta2, t)),
    }


@rule(
    state=("m", "v"),
    nonnegative=("v",),
    prepare=nadam_scalars,
    lr=2e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    momentum_decay=4e-3,
    decoupled_weight_decay=False,
)
def NAdam(p, g, m, v, h):
    r"""NAdam: Adam with Nesterov's momentum.

    ::

        g = ±g + λ·p + λ₁·sign(p)          only what is switched on
        p = p·(1 - α·λ)                    decoupled_weight_decay, in λ·p's place
        m = β₁·m + (1 - β₁)·g
        v = β₂·v + (1 - β₂)·g²
        u = (1 - μₜ)/(1 - μ₁···μₜ)·g + μₜ₊₁/(1 - μ₁···μₜ₊₁)·m
        p = p - α·u / (√v·r + ε)           r = 1/√(1 - β₂ᵗ)
                                           μₜ = β₁·(1 - 0.96^(t·ψ)/2)

    Parameters
    ----------
    params
        What to update, see `Optimizer`.
    lr
        α, the learning rate, at least 0: a number, or a function of t such as a schedule of
        `fusedstep.schedules`.
    betas
        (β₁, β₂), each in [0, 1).
    eps
        ε, at least 0.
    weight_decay
        λ, at least 0.
    momentum_decay
        ψ, how fast the momentum μₜ grows from β₁/2 to β₁, at least 0.
    decoupled_weight_decay
        Decay as AdamW does, and not through the moments.
    maximize
        Ascend: -g in g's place.
    l1
        λ₁ of L1, at least 0.
    ema
        What a moving average of the parameters keeps at each step, in [0, 1); None for no
        average. State `"ema"`, see `Optimizer`.
    master, state_dtype, rounding, seed, out
        How parameters and state are kept in fewer bytes, see `Optimizer`.
    untouched, row_steps
        The fate of rows that a gradient of some rows leaves out, see `Rows`.
    nonfinite
        What to do about gradients with NaN or infinity, see `Optimizer`.
    capturable
        On a CUDA device: True for steps that may be part of a CUDA graph, see `Optimizer`.
    backend
        `"auto"`, or the name of a backend; `fusedstep.info()` lists them.

    Notes
    -----
    Dozat (2016), "Incorporating Nesterov Momentum into Adam", with torch's schedule of μₜ,
    which is the paper's where ψ = 0.004. The product of all μₜ so far is computed from the
    present hyperparameters, while torch multiplies it up step by step, in float32 by default: the
    two agree to float32's precision until `betas` or `momentum_decay` change.

    Examples
    --------
    >>> import numpy as np, fusedstep as fs
    >>> p = np.array([1.0, 2.0])
    >>> _ = fs.rules.NAdam(p, lr=0.1).step(np.array([3.0, -0.01]))
    >>> p.round(3)
    array([0.894, 2.106])
    """
    p = p * h.decay
    m = h.beta1 * m + h.rest1 * g
    v = h.beta2 * v + h.rest2 * (g * g)
    u = h.now * g + h.ahead * m
    p = p - h.lr * (u / (sqrt(v) * h.r + h.eps))
    return p, m, v


def radam_scalars(h: Any, t: int) -> Values:
    beta1, beta2 = h.betas
    lr, rest = h.lr / correction(beta1, t), correction(beta2, t)
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta_power(beta2, t) / rest
    if rectified := length > 5:
        ratio = (length - 4) * (length - 2) * longest
        lr *= sqrt(rest * ratio / ((longest - 4) * (longest - 2) * length))
    return {**averages(h), **decay(h), "lr": lr, "rectified": rectified}


@rule(
    state=("m", "v"),
    nonnegative=("v",),
    prepare=radam_scalars,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decoupled_weight_decay=False,
)
def RAdam(p, g, m, v, h):
    r"""RAdam: Adam that trusts its second moment only as far as it has seen enough gradients.

    ::

        g = ±g + λ·p + λ₁·sign(p)          only what is switched on
        p = p·(1 - α·λ)                    decoupled_weight_decay, in λ·p's place
        m = β₁·m + (1 - β₁)·g
        v = β₂·v + (1 - β₂)·g²
        p = p - αₜ·rₜ·m / (√v + ε)         where ρₜ > 5;  αₜ = α/(1 - β₁ᵗ)
        p = p - αₜ·m                       elsewhere, in the first steps

        rₜ = √((1 - β₂ᵗ)·(ρₜ - 4)·(ρₜ - 2)·ρ / ((ρ - 4)·(ρ - 2)·ρₜ))
        ρₜ = ρ - 2·t·β₂ᵗ/(1 - β₂ᵗ),  ρ = 2/(1 - β₂) - 1

    Parameters
    ----------
    params
        What to update, see `Optimizer`.
    lr
        α, the learning rate, at least 0: a number, or a function of t such as a schedule of
        `fusedstep.schedules`.
    betas
        (β₁, β₂), each in [0, 1).
    eps
        ε, at least 0.
    weight_decay
        λ, at least 0.
    decoupled_weight_decay
        Decay as AdamW does, and not through the moments.
    maximize
        Ascend: -g in g's place.
    l1
        λ₁ of L1, at least 0.
    ema
        What a moving average of the parameters keeps at each step, in [0, 1); None for no
        average. State `"ema"`, see `Optimizer`.
    master, state_dtype, rounding, seed, out
        How parameters and state are kept in fewer bytes, see `Optimizer`.
    untouched, row_steps
        The fate of rows that a gradient of some rows leaves out, see `Rows`.
    nonfinite
        What to do about gradients with NaN or infinity, see `Optimizer`.
    capturable
        On a CUDA device: True for steps that may be part of a CUDA graph, see `Optimizer`.
    backend
        `"auto"`, or the name of a backend; `fusedstep.info()` lists them.

    Notes
    -----
    Liu et al. (2020), "On the Variance of the Adaptive Learning Rate and Beyond", Algorithm 2,
    in torch's form: rectified where ρₜ > 5, as in the authors' code, and not from 4 on, and
    with an ε, beside √v before its correction for bias.

    Examples
    --------
    >>> import numpy as np, fusedstep as fs
    >>> p = np.array([1.0, 2.0])
    >>> _ = fs.rules.RAdam(p, lr=0.1).step(np.array([3.0, -0.01]))
    >>> p.round(6)
    array([0.7  , 2.001])
    """
    p = p * h.decay
    m = h.beta1 * m + h.rest1 * g
    v = h.beta2 * v + h.rest2 * (g * g)
    u = m / (sqrt(v) + h.eps) if h.rectified else m
    p = p - h.lr * u
    return p, m, v


def adamax_scalars(h: Any, t: int) -> Values:
    beta1, _ = h.betas
    return {**averages(h), "lr": h.lr / correction(beta1, t), "l2": h.weight_decay}


@rule(
    state=("m", "x"),
    nonnegative=("x",),
    prepare=adamax_scalars,
    lr=2e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
)
def Adamax(p, g, m, x, h):
    r"""Adamax: Adam with the largest gradient, which fades, in the place of the mean of squares.

    ::

        g = ±g + λ·p + λ₁·sign(p)          only what is switched on
        m = β₁·m + (1 - β₁)·g
        x = max(β₂·x, |g| + ε)
        p = p - αₜ·m/x                     αₜ = α/(1 - β₁ᵗ)

    Parameters
    ----------
    params
        What to update, see `Optimizer`.
    lr
        α, the learning rate, at least 0: a number, or a function of t such as a schedule of
        `fusedstep.schedules`.
    betas
        (β₁, β₂), each in [0, 1).
    eps
        ε, at least 0.
    weight_decay
        λ of coupled L2, at least 0.
    maximize
        Ascend: -g in g's place.
    l1
        λ₁ of L1, at least 0.
    ema
        What a moving average of the parameters keeps at each step, in [0, 1); None for no
        average. State `"ema"`, see `Optimizer`.
    master, state_dtype, rounding, seed, out
        How parameters and state are kept in fewer bytes, see `Optimizer`.
    untouched, row_steps
        The fate of rows that a gradient of some rows leaves out, see `Rows`.
    nonfinite
        What to do about gradients with NaN or infinity, see `Optimizer`.
    capturable
        On a CUDA device: True for steps that may be part of a CUDA graph, see `Optimizer`.
    backend
        `"auto"`, or the name of a backend; `fusedstep.info()` lists them.

    Notes
    -----
    Kingma, Ba (2015), "Adam: A Method for Stochastic Optimization", Algorithm 2, whose u is
    our x. It has no ε; this one is torch's.

    Examples
    --------
    >>> import numpy as np, fusedstep as fs
    >>> p = np.array([1.0, 2.0])
    >>> _ = fs.rules.Adamax(p, lr=0.1).step(np.array([3.0, -0.01]))
    >>> p.round(6)
    array([0.9, 2.1])
    """
    m = h.beta1 * m + h.rest1 * g
    x = np.maximum(h.beta2 * x, abs(g) + h.eps)
    p = p - h.lr * (m / x)
    return p, m, x


def adan_scalars(h: Any, t: int) -> Values:
    beta1, beta2, beta3 = h.betas
    strength = h.lr * h.weight_decay
    return {
        "first": t == 1,
        "beta1": beta1,
        "rest1": 1 - beta1,
        "beta2": beta2,
        "rest2": 1 - beta2,
        "beta3": beta3,
        "rest3": 1 - beta3,
        "lr1": h.lr / correction(beta1, t),
        "lr2": h.lr * beta2 / correction(beta2, t),
        "r": 1 / sqrt(correction(beta3, t)),
        "decay": 1 - strength if h.no_prox else 1.0,
        "shrink": 1.0 if h.no_prox else 1 / (1 + strength),
    }


@rule(
    state=("m", "a", "v", "o"),
    nonnegative=("v",),
    prepare=adan_scalars,
    lr=1e-3,
    betas=(0.98, 0.92, 0.99),
    eps=1e-8,
    weight_decay=0.0,
    no_prox=False,
)
def Adan(p, g, m, a, v, o, h):
    r"""Adan: Adam with Nesterov's momentum, read off the change of the gradients.

    ::

        g = ±g + λ₁·sign(p)                only what is switched on
        y = g - o                          the change; 0 at a parameter's first step
        m = β₁·m + (1 - β₁)·g
        a = β₂·a + (1 - β₂)·y
        v = β₃·v + (1 - β₃)·(g + β₂·y)²
        u = (α/(1 - β₁ᵗ)·m + α·β₂/(1 - β₂ᵗ)·a) / (√v·r + ε)
                                           r = 1/√(1 - β₃ᵗ)
        p = (p - u)/(1 + α·λ)              no_prox: p = p·(1 - α·λ) - u
        o = g

    Parameters
    ----------
    params
        What to update, see `Optimizer`.
    lr
        α, the learning rate, at least 0: a number, or a function of t such as a schedule of
        `fusedstep.schedules`.
    betas
        (β₁, β₂, β₃), each in [0, 1): what stays of the averages, where the paper's β are what
        goes in.
    eps
        ε, at least 0.
    weight_decay
        λ, at least 0: decoupled, by default in the proximal form.
    no_prox
        Decay as AdamW does.
    maximize
        Ascend: -g in g's place.
    l1
        λ₁ of L1, at least 0.
    ema
        What a moving average of the parameters keeps at each step, in [0, 1); None for no
        average. State `"ema"`, see `Optimizer`.
    master, state_dtype, rounding, seed, out
        How parameters and state are kept in fewer bytes, see `Optimizer`.
    untouched, row_steps
        The fate of rows that a gradient of some rows leaves out, see `Rows`.
    nonfinite
        What to do about gradients with NaN or infinity, see `Optimizer`.
    capturable
        On a CUDA device: True for steps that may be part of a CUDA graph, see `Optimizer`.
    backend
        `"auto"`, or the name of a backend; `fusedstep.info()` lists them.

    Notes
    -----
    Xie et al. (2022), "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep
    Models", Algorithm 1, whose v is our a and whose n is our v, in the form of its authors'
    code: the averages start from zero and are corrected for that, where the paper starts them
    from the first gradient and corrects nothing. Its restart is left out.

    Examples
    --------
    >>> import numpy as np, fusedstep as fs
    >>> p = np.array([1.0, 2.0])
    >>> opt = fs.rules.Adan(p, lr=0.1)
    >>> _ = opt.step(np.array([3.0, -0.01]))
    >>> p.round(6)
    array([0.9, 2.1])
    >>> opt.state["o"]
    array([ 3.  , -0.01])
    """
    y = 0 if h.first else g - o
    m = h.beta1 * m + h.rest1 * g
    a = h.beta2 * a + h.rest2 * y
    w = g + h.beta2 * y
    v = h.beta3 * v + h.rest3 * (w * w)
    u = (h.lr1 * m + h.lr2 * a) / (sqrt(v) * h.r + h.eps)
    p = (p * h.decay - u) * h.shrink
    o = g
    return p, m, a, v, o


def yogi_scalars(h: Any, t: int) -> Values:
    beta1, beta2 = h.betas
    lr, r = h.lr, 1.0
    if h.bias_correction:
        lr, r = lr / correction(beta1, t), 1 / sqrt(correction(beta2, t))
    start = h.initial_v if t == 1 else 0.0
    return {**averages(h), "lr": lr, "r": r, "start": start, "l2": h.weight_decay}


@rule(
    state=("m", "v"),
    nonnegative=("v",),
    prepare=yogi_scalars,
    lr=1e-2,
    betas=(0.9, 0.999),
    eps=1e-3,
    weight_decay=0.0,
    initial_v=1e-6,
    bias_correction=True,
)
def Yogi(p, g, m, v, h):
    r"""Yogi: Adam whose second moment moves towards g² by a share of g², not of the distance.

    ::

        g = ±g + λ·p + λ₁·sign(p)          only what is switched on
        m = β₁·m + (1 - β₁)·g
        v = v - (1 - β₂)·sign(v - g²)·g²
        p = p - αₜ·m / (√v·r + ε)          r = 1/√(1 - β₂ᵗ),  αₜ = α/(1 - β₁ᵗ)
                                           bias_correction=False: r = 1, αₜ = α

    Where gradients are suddenly small, Adam's v forgets the large ones by the factor β₂, and its
    steps grow fast; this v falls by a share of the small g², slowly.

    Parameters
    ----------
    params
        What to update, see `Optimizer`.
    lr
        α, the learning rate, at least 0: a number, or a function of t such as a schedule of
        `fusedstep.schedules`.
    betas
        (β₁, β₂), each in [0, 1).
    eps
        ε, at least 0.
    weight_decay
        λ of coupled L2, at least 0.
    initial_v
        What is added to v at a parameter's first step: v starts from it, as state starts at 0.
    bias_correction
        Correct m and v for their start, as if both had started from 0.
    maximize
        Ascend: -g in g's place.
    l1
        λ₁ of L1, at least 0.
    ema
        What a moving average of the parameters keeps at each step, in [0, 1); None for no
        average. State `"ema"`, see `Optimizer`.
    master, state_dtype, rounding, seed, out
        How parameters and state are kept in fewer bytes, see `Optimizer`.
    untouched, row_steps
        The fate of rows that a gradient of some rows leaves out, see `Rows`.
    nonfinite
        What to do about gradients with NaN or infinity, see `Optimizer`.
    capturable
        On a CUDA device: True for steps that may be part of a CUDA graph, see `Optimizer`.
    backend
        `"auto"`, or the name of a backend; `fusedstep.info()` lists them.

    Notes
    -----
    Zaheer et al. (2018), "Adaptive Methods for Nonconvex Optimization", Algorithm 2, with the
    correction for bias that implementations have and the algorithm has not. optax's `yogi` starts
    m from `initial_accumulator_value`, too, where ours starts it from 0: write it into
    `opt.state["m"]` before the first step for the same trajectory.

    Examples
    --------
    >>> import numpy as np, fusedstep as fs
    >>> p = np.array([1.0, 2.0])
    >>> _ = fs.rules.Yogi(p, lr=0.1).step(np.array([3.0, -0.01]))
    >>> p.round(6)
    array([0.900039, 2.029269])
    """
    m = h.beta1 * m + h.rest1 * g
    v = v + h.start
    square = g * g
    v = v - h.rest2 * np.sign(v - square) * square
    p = p - h.lr * (m / (sqrt(v) * h.r + h.eps))
    return p, m, v


def __getattr__(name: str) -> Any:
    from fusedstep._names import missing

    raise missing(__name__, name)
