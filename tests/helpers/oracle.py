"""The papers' pseudocode in long double: what a trajectory is in (almost) exact arithmetic.

Each function takes a start, the gradients of every step, and the hyperparameters of the
optimizer of the same name with the same defaults; they count as the float64 numbers that
they are. `schedule` has one multiplier ηₜ of the learning rate for each step. What comes
back is the trajectory: by letter ("p" and the state), the array after each step.

Where long double is no wider than float64, as on Windows and on Apple's CPUs, the oracle's
own rounding is of the size of what it is compared with, and tolerances must leave room.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]]
Number: TypeAlias = np.floating[Any]
Trajectory: TypeAlias = dict[str, list[Array]]


def wide(*values: float) -> list[Number]:
    return [np.longdouble(value) for value in values]


def steps(
    gradients: Sequence[Array], schedule: Sequence[float] | None
) -> Iterator[tuple[int, Array, Number]]:
    """Give each step its t, g and ηₜ."""
    etas = [1.0] * len(gradients) if schedule is None else schedule
    for t, (g, eta) in enumerate(zip(gradients, etas, strict=True), 1):
        yield t, g.astype(np.longdouble), np.longdouble(eta)


def append(trajectory: Trajectory, **arrays: Array) -> None:
    for letter, array in arrays.items():
        trajectory.setdefault(letter, []).append(array)


def objective_gradient(
    p: Array, g: Array, *, maximize: bool, weight_decay: float, l1: float
) -> Array:
    """Differentiate ±f(p) + λ/2·|p|² + λ₁·|p|₁, where g is the gradient of f."""
    l2, l1_strength = wide(weight_decay, l1)
    return (-g if maximize else g) + l2 * p + l1_strength * np.sign(p)


def prepared(
    gradients: Sequence[Array],
    *,
    scale: float = 1.0,
    max_norm: float = np.inf,
    max_value: float = np.inf,
) -> list[Array]:
    """Unscale, clip by norm as Pascanu, Mikolov & Bengio (2013), then clip each element."""
    factor, bound, limit = wide(scale, max_norm, max_value)
    done = []
    for gradient in gradients:
        g = gradient.astype(np.longdouble) / factor
        norm = np.sqrt((g**2).sum())
        if norm > bound:
            g = bound / norm * g
        done.append(np.clip(g, -limit, limit))
    return done


def averages(start: Array, trajectory: Sequence[Array], ema: float) -> list[Array]:
    """Average exponentially over a parameter and its start."""
    keep = np.longdouble(ema)
    average, done = start.astype(np.longdouble), []
    for p in trajectory:
        average = keep * average + (1 - keep) * p
        done.append(average)
    return done


def root(square: Array, epsilon: Number, inside: bool) -> Array:
    return np.sqrt(square + epsilon) if inside else np.sqrt(square) + epsilon


def sgd(
    p: Array,
    gradients: Sequence[Array],
    *,
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    lr_in_momentum: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    schedule: Sequence[float] | None = None,
) -> Trajectory:
    """Robbins & Monro (1951); momentum of Polyak (1964) and Nesterov (1983).

    The buffer begins as the first gradient, undampened, and the learning rate stands
    outside of it, as torch has it. Inside it is the velocity of Sutskever et al. (2013),
    equations 1 and 2, with its sign turned; Nesterov's form is then Bengio, Boulanger &
    Pascanu's (2013), whose parameters stand where the momentum leads.
    """
    alpha, mu, tau = wide(lr, momentum, dampening)
    p = p.astype(np.longdouble)
    b = np.zeros_like(p)
    velocity = np.zeros_like(p)
    trajectory: Trajectory = {}
    for t, g, eta in steps(gradients, schedule):
        g = objective_gradient(p, g, maximize=maximize, weight_decay=weight_decay, l1=l1)
        if momentum == 0:
            p = p - eta * alpha * g
            append(trajectory, p=p)
            continue
        if lr_in_momentum:
            undampened = 1 if t == 1 else 1 - tau
            velocity = mu * velocity - eta * alpha * undampened * g
            p = p + (mu * velocity - eta * alpha * g if nesterov else velocity)
            append(trajectory, p=p, b=-velocity)
            continue
        b = g if t == 1 else mu * b + (1 - tau) * g
        p = p - eta * alpha * (g + mu * b if nesterov else b)
        append(trajectory, p=p, b=b)
    return trajectory


def adagrad(
    p: Array,
    gradients: Sequence[Array],
    *,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
    eps_inside_sqrt: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    schedule: Sequence[float] | None = None,
) -> Trajectory:
    """Duchi, Hazan & Singer (2011), diagonal form; the falling rate is the frameworks'."""
    alpha, fall, initial, epsilon = wide(lr, lr_decay, initial_accumulator_value, eps)
    p = p.astype(np.longdouble)
    s = np.full_like(p, initial)
    trajectory: Trajectory = {}
    for t, g, eta in steps(gradients, schedule):
        g = objective_gradient(p, g, maximize=maximize, weight_decay=weight_decay, l1=l1)
        s = s + g**2
        rate = eta * alpha / (1 + (t - 1) * fall)
        p = p - rate * g / root(s, epsilon, eps_inside_sqrt)
        append(trajectory, p=p, s=s)
    return trajectory


def rmsprop(
    p: Array,
    gradients: Sequence[Array],
    *,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    eps_inside_sqrt: bool = False,
    lr_in_momentum: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    schedule: Sequence[float] | None = None,
) -> Trajectory:
    """Tieleman & Hinton (2012), lecture 6.5; centered as Graves (2013), equations 38 to 41.

    Momentum gathers the scaled gradients, and the learning rate stands outside of it, as
    torch has it, or inside, as Graves.
    """
    rate, rho, mu, epsilon = wide(lr, alpha, momentum, eps)
    p = p.astype(np.longdouble)
    v, a, b = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    trajectory: Trajectory = {}
    for _, g, eta in steps(gradients, schedule):
        g = objective_gradient(p, g, maximize=maximize, weight_decay=weight_decay, l1=l1)
        v = rho * v + (1 - rho) * g**2
        append(trajectory, v=v)
        variance = v
        if centered:
            a = rho * a + (1 - rho) * g
            append(trajectory, a=a)
            variance = v - a**2
        change = g / root(variance, epsilon, eps_inside_sqrt)
        if momentum == 0:
            p = p - eta * rate * change
        elif lr_in_momentum:
            b = mu * b + eta * rate * change
            p = p - b
            append(trajectory, b=b)
        else:
            b = mu * b + change
            p = p - eta * rate * b
            append(trajectory, b=b)
        append(trajectory, p=p)
    return trajectory


def adam(
    p: Array,
    gradients: Sequence[Array],
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    eps_inside_sqrt: bool = False,
    eps_uncorrected: bool = False,
    bias_correction: bool = True,
    maximize: bool = False,
    l1: float = 0.0,
    schedule: Sequence[float] | None = None,
) -> Trajectory:
    """Kingma & Ba (2015), Algorithm 1; AMSGrad of Reddi, Kale & Kumar (2018).

    The maximum is of v before its correction for bias, which AMSGrad's paper leaves out
    and the frameworks put back. ε by the uncorrected v is the rearranged form at the end
    of Adam's section 2.
    """
    alpha, beta1, beta2, epsilon = wide(lr, *betas, eps)
    p = p.astype(np.longdouble)
    m, v, x = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    trajectory: Trajectory = {}
    for t, g, eta in steps(gradients, schedule):
        g = objective_gradient(p, g, maximize=maximize, weight_decay=weight_decay, l1=l1)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        append(trajectory, m=m, v=v)
        largest = v
        if amsgrad:
            largest = x = np.maximum(x, v)
            append(trajectory, x=x)
        corrections = (1 - beta1**t, 1 - beta2**t) if bias_correction else wide(1, 1)
        m_hat = m / corrections[0]
        if eps_uncorrected:
            d = root(largest, epsilon, eps_inside_sqrt) / np.sqrt(corrections[1])
        else:
            d = root(largest / corrections[1], epsilon, eps_inside_sqrt)
        p = p - eta * alpha * m_hat / d
        append(trajectory, p=p)
    return trajectory


def adamw(
    p: Array,
    gradients: Sequence[Array],
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
    eps_inside_sqrt: bool = False,
    eps_uncorrected: bool = False,
    bias_correction: bool = True,
    decay_scale: Literal["lr", "schedule"] = "lr",
    maximize: bool = False,
    l1: float = 0.0,
    schedule: Sequence[float] | None = None,
) -> Trajectory:
    """Loshchilov & Hutter (2019), Algorithm 2, whose decay is that of "schedule".

    "lr" is the frameworks': the learning rate multiplies the decay as well.
    """
    alpha, beta1, beta2, epsilon, decay = wide(lr, *betas, eps, weight_decay)
    if decay_scale == "lr":
        decay = alpha * decay
    p = p.astype(np.longdouble)
    m, v, x = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    trajectory: Trajectory = {}
    for t, g, eta in steps(gradients, schedule):
        g = objective_gradient(p, g, maximize=maximize, weight_decay=0.0, l1=l1)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        append(trajectory, m=m, v=v)
        largest = v
        if amsgrad:
            largest = x = np.maximum(x, v)
            append(trajectory, x=x)
        corrections = (1 - beta1**t, 1 - beta2**t) if bias_correction else wide(1, 1)
        m_hat = m / corrections[0]
        if eps_uncorrected:
            d = root(largest, epsilon, eps_inside_sqrt) / np.sqrt(corrections[1])
        else:
            d = root(largest / corrections[1], epsilon, eps_inside_sqrt)
        p = p - eta * (alpha * m_hat / d + decay * p)
        append(trajectory, p=p)
    return trajectory


def lion(
    p: Array,
    gradients: Sequence[Array],
    *,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
    maximize: bool = False,
    l1: float = 0.0,
    schedule: Sequence[float] | None = None,
) -> Trajectory:
    """Chen et al. (2023), Algorithm 2."""
    alpha, beta1, beta2, decay = wide(lr, *betas, weight_decay)
    p = p.astype(np.longdouble)
    m = np.zeros_like(p)
    trajectory: Trajectory = {}
    for _, g, eta in steps(gradients, schedule):
        g = objective_gradient(p, g, maximize=maximize, weight_decay=0.0, l1=l1)
        update = np.sign(beta1 * m + (1 - beta1) * g)
        p = p - eta * alpha * (update + decay * p)
        m = beta2 * m + (1 - beta2) * g
        append(trajectory, p=p, m=m)
    return trajectory


def nadam(
    p: Array,
    gradients: Sequence[Array],
    *,
    lr: float = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    schedule: Sequence[float] | None = None,
) -> Trajectory:
    """Dozat (2016), Algorithm 2, with the momentum's schedule of its section on parameters."""
    alpha, beta1, beta2, epsilon, decay, psi = wide(lr, *betas, eps, weight_decay, momentum_decay)
    coupled = 0.0 if decoupled_weight_decay else weight_decay
    half, base = wide(0.5, 0.96)

    def momentum(t: int) -> Number:
        value: Number = beta1 * (1 - half * base ** (t * psi))
        return value

    p = p.astype(np.longdouble)
    m, v = np.zeros_like(p), np.zeros_like(p)
    product = np.longdouble(1)
    trajectory: Trajectory = {}
    for t, g, eta in steps(gradients, schedule):
        g = objective_gradient(p, g, maximize=maximize, weight_decay=coupled, l1=l1)
        if decoupled_weight_decay:
            p = p - eta * alpha * decay * p
        product = product * momentum(t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        g_hat = g / (1 - product)
        m_hat = m / (1 - product * momentum(t + 1))
        m_bar = (1 - momentum(t)) * g_hat + momentum(t + 1) * m_hat
        p = p - eta * alpha * m_bar / (np.sqrt(v / (1 - beta2**t)) + epsilon)
        append(trajectory, p=p, m=m, v=v)
    return trajectory


def radam(
    p: Array,
    gradients: Sequence[Array],
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    schedule: Sequence[float] | None = None,
) -> Trajectory:
    """Liu et al. (2020), Algorithm 2; the bound of 5 and the place of ε are the frameworks'."""
    alpha, beta1, beta2, epsilon, decay = wide(lr, *betas, eps, weight_decay)
    coupled = 0.0 if decoupled_weight_decay else weight_decay
    p = p.astype(np.longdouble)
    m, v = np.zeros_like(p), np.zeros_like(p)
    rho_infinity = 2 / (1 - beta2) - 1
    trajectory: Trajectory = {}
    for t, g, eta in steps(gradients, schedule):
        g = objective_gradient(p, g, maximize=maximize, weight_decay=coupled, l1=l1)
        if decoupled_weight_decay:
            p = p - eta * alpha * decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        rho = rho_infinity - 2 * t * beta2**t / (1 - beta2**t)
        if rho > 5:
            adaptive = np.sqrt(1 - beta2**t) / (np.sqrt(v) + epsilon)
            rectification = np.sqrt(
                (rho - 4)
                * (rho - 2)
                * rho_infinity
                / ((rho_infinity - 4) * (rho_infinity - 2) * rho)
            )
            p = p - eta * alpha * rectification * m_hat * adaptive
        else:
            p = p - eta * alpha * m_hat
        append(trajectory, p=p, m=m, v=v)
    return trajectory


def adamax(
    p: Array,
    gradients: Sequence[Array],
    *,
    lr: float = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    maximize: bool = False,
    l1: float = 0.0,
    schedule: Sequence[float] | None = None,
) -> Trajectory:
    """Kingma & Ba (2015), Algorithm 2; ε is the frameworks'."""
    alpha, beta1, beta2, epsilon = wide(lr, *betas, eps)
    p = p.astype(np.longdouble)
    m, x = np.zeros_like(p), np.zeros_like(p)
    trajectory: Trajectory = {}
    for t, g, eta in steps(gradients, schedule):
        g = objective_gradient(p, g, maximize=maximize, weight_decay=weight_decay, l1=l1)
        m = beta1 * m + (1 - beta1) * g
        x = np.maximum(beta2 * x, np.abs(g) + epsilon)
        p = p - eta * alpha / (1 - beta1**t) * m / x
        append(trajectory, p=p, m=m, x=x)
    return trajectory


def adan(
    p: Array,
    gradients: Sequence[Array],
    *,
    lr: float = 1e-3,
    betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    no_prox: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    schedule: Sequence[float] | None = None,
) -> Trajectory:
    """Xie et al. (2022), Algorithm 1, with 1 - β for its β and no restart.

    The averages start from zero and are corrected for it, as its authors' code has them; their
    v and n are a and v here.
    """
    alpha, beta1, beta2, beta3, epsilon, decay = wide(lr, *betas, eps, weight_decay)
    p = p.astype(np.longdouble)
    m, a, v = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    previous = p
    trajectory: Trajectory = {}
    for t, g, eta in steps(gradients, schedule):
        g = objective_gradient(p, g, maximize=maximize, weight_decay=0.0, l1=l1)
        change = g - (g if t == 1 else previous)
        m = beta1 * m + (1 - beta1) * g
        a = beta2 * a + (1 - beta2) * change
        v = beta3 * v + (1 - beta3) * (g + beta2 * change) ** 2
        m_hat, a_hat, v_hat = m / (1 - beta1**t), a / (1 - beta2**t), v / (1 - beta3**t)
        update = eta * alpha / (np.sqrt(v_hat) + epsilon) * (m_hat + beta2 * a_hat)
        if no_prox:
            p = (1 - eta * alpha * decay) * p - update
        else:
            p = (p - update) / (1 + eta * alpha * decay)
        previous = g
        append(trajectory, p=p, m=m, a=a, v=v, o=g)
    return trajectory


def yogi(
    p: Array,
    gradients: Sequence[Array],
    *,
    lr: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-3,
    weight_decay: float = 0.0,
    initial_v: float = 1e-6,
    bias_correction: bool = True,
    maximize: bool = False,
    l1: float = 0.0,
    schedule: Sequence[float] | None = None,
) -> Trajectory:
    """Zaheer et al. (2018), Algorithm 2, and corrected for bias as Adam."""
    alpha, beta1, beta2, epsilon, start = wide(lr, *betas, eps, initial_v)
    p = p.astype(np.longdouble)
    m, v = np.zeros_like(p), np.full_like(p, start)
    trajectory: Trajectory = {}
    for t, g, eta in steps(gradients, schedule):
        g = objective_gradient(p, g, maximize=maximize, weight_decay=weight_decay, l1=l1)
        m = beta1 * m + (1 - beta1) * g
        v = np.where(v > g**2, v - (1 - beta2) * g**2, v + (1 - beta2) * g**2 * (v < g**2))
        m_hat = m / (1 - beta1**t) if bias_correction else m
        v_hat = v / (1 - beta2**t) if bias_correction else v
        p = p - eta * alpha * m_hat / (np.sqrt(v_hat) + epsilon)
        append(trajectory, p=p, m=m, v=v)
    return trajectory
