r"""Learning rates that change: each a formula of the step count t, which is 1 at the first step.

Called without t, a function gives a `Schedule`, which any optimizer takes as its `lr`:

>>> import numpy as np, fusedstep as fs
>>> p = np.array([1.0, 2.0])
>>> opt = fs.SGD(p, lr=fs.schedules.warmup(0.1, steps=2))
>>> _ = opt.step(np.array([1.0, -1.0]))
>>> _ = opt.step(np.array([1.0, -1.0]))
>>> p
array([0.85, 2.15])
>>> opt.lr
warmup(lr=0.1, steps=2, start=0.0)

`lr`, `start`, `end` and the like are learning rates, at least 0; `steps`, `every` and
boundaries are whole numbers of steps, at least 1, and may be as large as Python's ints. What
does not fit is a TypeError or ValueError that names the schedule, the argument and the remedy.

Formulas count the steps done, n = t - 1, wherever the first step is to have the full rate, and
`warmup` and `exponential` count t. After its last step a schedule stays where it ended. Values
are Python floats and depend on t and the arguments alone, so a run that goes on in the middle
of a schedule goes on with the same bits. A mean of two rates w·a + (1 - w)·b is exactly a at
w = 1, exactly b at w = 0, and never negative.
"""

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache, partial
from math import log1p
from typing import Annotated, Any

from fusedstep._arrays.structure import is_collection
from fusedstep._checks.values import Check, non_negative, number, whole
from fusedstep._checks.wording import describe
from fusedstep._core.schedule import SCHEDULES, Schedule, schedule
from fusedstep._numerics import portable
from fusedstep._numerics.powers import geometric

__all__ = [
    "SCHEDULES",
    "Schedule",
    "constant",
    "cosine",
    "exponential",
    "one_cycle",
    "piecewise",
    "polynomial",
    "restarts",
    "sequence",
    "step",
    "warmup",
]

# Types of arguments, which hold their checks.


def within(name: str, value: Any, least: float, most: float) -> float:
    checked = number(name, value)
    if not least <= checked <= most:
        raise ValueError(f"{name}={value!r} is outside [{least:g}, {most:g}]; pass one from there")
    return checked


def positive(name: str, value: Any) -> float:
    checked = number(name, value)
    if checked <= 0:
        raise ValueError(f"{name}={value!r}; pass a number above 0")
    return checked


def each(name: str, value: Any, check: Check) -> tuple[Any, ...]:
    if not is_collection(value):
        raise TypeError(f"{name}={describe(value)}; pass a list")
    return tuple(check(f"{name}[{k}]", item) for k, item in enumerate(value))


def increasing(name: str, value: Any) -> tuple[Any, ...]:
    checked = each(name, value, count)
    if list(checked) != sorted({*checked}):
        raise ValueError(f"{name}={value!r}; pass steps in increasing order")
    return checked


def part(name: str, value: Any) -> Schedule:
    if not isinstance(value, Schedule):
        raise TypeError(
            f"{name}={describe(value)}; pass schedules of this module, as constant(0.1), or write "
            "the whole as a function of t"
        )
    return value


count = partial(whole, least=1)

Rate = Annotated[float, non_negative]
Rates = Annotated[Sequence[float], partial(each, check=non_negative)]
Steps = Annotated[int, count]
StepsOfEach = Annotated[Sequence[int], partial(each, check=count)]
Boundaries = Annotated[Sequence[int], increasing]
Schedules = Annotated[Sequence[Schedule], partial(each, check=part)]
Share = Annotated[float, partial(within, least=0, most=1)]
Growth = Annotated[float, partial(within, least=1, most=1000)]
Divisor = Annotated[float, partial(within, least=1, most=1e100)]
Power = Annotated[float, positive]


@schedule
def constant(t: int, lr: Rate) -> float:
    """lr, at every step.

    It is meant for `sequence`; elsewhere the number itself will do.

    >>> from fusedstep.schedules import constant
    >>> rate = constant(0.1)
    >>> [rate(t) for t in (1, 2, 1000)]
    [0.1, 0.1, 0.1]
    """
    return lr


@schedule
def piecewise(t: int, boundaries: Boundaries, rates: Rates) -> float:
    """rates[k], where k is the number of boundaries before t.

    So rates[k] holds up to and including step boundaries[k], and the last rate, which has no
    boundary, for ever. Boundaries increase; the base rate is the largest.

    >>> from fusedstep.schedules import piecewise
    >>> rate = piecewise([2, 4], [0.1, 0.01, 0.001])
    >>> [rate(t) for t in (1, 2, 3, 4, 5)]
    [0.1, 0.1, 0.01, 0.01, 0.001]
    """
    return rates[bisect_left(boundaries, t)]


@schedule
def exponential(t: int, lr: Rate, rate: Rate) -> float:
    """lr·e^(-rate·t): exponential decay.

    It is written as in lectures, α(t) = α₀·e^(-k·t) with α₀ = `lr` and k = `rate`, and t
    counts from 1: the first step already has lr·e^(-rate). torch's ExponentialLR with gamma =
    e^(-rate) starts from lr itself; lr·e^rate as `lr` gives the same values here.

    >>> from fusedstep.schedules import exponential
    >>> rate = exponential(0.1, rate=0.5)
    >>> [round(rate(t), 6) for t in (1, 2, 3)]
    [0.060653, 0.036788, 0.022313]
    """
    return lr * portable.exp(-rate * t)


@schedule
def step(t: int, lr: Rate, every: Steps, factor: Share) -> float:
    """lr·factor^⌊n/every⌋, n = t - 1: a step down after every `every` steps.

    The "step" of Caffe, and torch's StepLR. `factor` is from 0 to 1.

    >>> from fusedstep.schedules import step
    >>> rate = step(0.1, every=2, factor=0.5)
    >>> [rate(t) for t in (1, 2, 3, 4, 5)]
    [0.1, 0.1, 0.05, 0.05, 0.025]
    """
    return lr * portable.power(factor, (t - 1) // every)


@schedule
def polynomial(t: int, lr: Rate, steps: Steps, power: Power = 1.0, end: Rate = 0.0) -> float:
    """w·lr + (1 - w)·end, w = (1 - n/steps)^power, n = t - 1: from lr to end in `steps` steps.

    A straight line with `power=1`. The "poly" of Caffe, and with `end=0` torch's
    PolynomialLR. Step t = steps + 1 is the first that has `end`.

    >>> from fusedstep.schedules import polynomial
    >>> rate = polynomial(0.1, steps=4)
    >>> [rate(t) for t in (1, 3, 5, 6)]
    [0.1, 0.05, 0.0, 0.0]
    """
    w: float = portable.power(max(steps + 1 - t, 0) / steps, power)
    return w * lr + (1 - w) * end


@schedule
def warmup(t: int, lr: Rate, steps: Steps, start: Rate = 0.0) -> float:
    """(1 - x)·start + x·lr, x = t/steps: a straight line to lr, which step t = steps has.

    After that it stays at lr. The first step has start + (lr - start)/steps, so that no step is
    lost to a rate of 0. Goyal et al. (2017), "Accurate, Large Minibatch SGD", warm up so, from a
    start above 0; torch's LinearLR counts t - 1 and reaches lr one step later.

    >>> from fusedstep.schedules import warmup
    >>> rate = warmup(0.1, steps=4)
    >>> [rate(t) for t in (1, 2, 4, 5)]
    [0.025, 0.05, 0.1, 0.1]
    """
    x = min(t, steps) / steps
    return (1 - x) * start + x * lr


@schedule
def cosine(t: int, lr: Rate, steps: Steps, end: Rate = 0.0) -> float:
    """w·lr + (1 - w)·end, w = (1 + cos(π·n/steps))/2, n = t - 1: half a cosine from lr to end.

    Loshchilov, Hutter (2017), "SGDR: Stochastic Gradient Descent with Warm Restarts",
    equation 5, without restarts. Step t = steps + 1 is the first that has `end`, and all
    after it have it, where torch's CosineAnnealingLR rises again.

    >>> from fusedstep.schedules import cosine
    >>> rate = cosine(0.1, steps=4)
    >>> [round(rate(t), 6) for t in (1, 2, 3, 4, 5, 6)]
    [0.1, 0.085355, 0.05, 0.014645, 0.0, 0.0]
    """
    w = portable.half_cosine(min(t - 1, steps) / steps)
    return w * lr + (1 - w) * end


@schedule
def restarts(t: int, lr: Rate, steps: Steps, factor: Growth = 1.0, end: Rate = 0.0) -> float:
    """w·lr + (1 - w)·end, w = (1 + cos(π·(n - s)/T))/2, n = t - 1: cosine with warm restarts.

    s is where the period of n began and T its length: `steps` for the first, which begins at
    0, and `factor` times the one before for each that follows. `factor` is from 1 to 1000.

    Loshchilov, Hutter (2017), "SGDR: Stochastic Gradient Descent with Warm Restarts", Tᵢ =
    T₀·T_multⁱ. Each period begins with lr and stops one step short of `end`, where the next
    begins; as torch's CosineAnnealingWarmRestarts, whose factors are whole numbers. With other
    factors a period may begin between two steps, and its first step is then already on the way
    down.

    >>> from fusedstep.schedules import restarts
    >>> rate = restarts(0.1, steps=2, factor=2)
    >>> [round(rate(t), 6) for t in (1, 2, 3, 4, 5, 6, 7)]
    [0.1, 0.05, 0.1, 0.085355, 0.05, 0.014645, 0.1]
    """
    start, length = period(t - 1, steps, factor)
    w = portable.half_cosine(min((t - 1 - start) / length, 1.0))
    return w * lr + (1 - w) * end


@schedule
def one_cycle(
    t: int,
    lr: Rate,
    steps: Steps,
    pct_start: Share = 0.3,
    div_factor: Divisor = 25.0,
    final_div_factor: Divisor = 1e4,
) -> float:
    """Half a cosine up to lr, at step pct_start·steps, and another down, to step `steps`.

    Step 1 has lr/div_factor, step `steps` and all after it lr/(div_factor·final_div_factor).
    The peak lies between two steps if pct_start·steps is no whole number, and at step 1 if
    that is less.

    Smith, Topin (2019), "Super-Convergence: Very Fast Training of Neural Networks Using Large
    Learning Rates", have straight lines, and momentum that goes the other way. This is the
    form, with the names and defaults, of torch's OneCycleLR, and leaves the momentum alone.

    >>> from fusedstep.schedules import one_cycle
    >>> rate = one_cycle(0.1, steps=10)
    >>> [round(rate(t), 6) for t in (1, 2, 3, 10, 11)]
    [0.004, 0.052, 0.1, 0.0, 0.0]
    """
    peak = max(pct_start * steps, 1)
    low = lr / div_factor
    if t < peak:
        w = portable.half_cosine((t - 1) / (peak - 1))
        return w * low + (1 - w) * lr
    w = portable.half_cosine((t - peak) / (steps - peak)) if t < steps else 0.0
    return w * lr + (1 - w) * (low / final_div_factor)


@schedule
def sequence(t: int, schedules: Schedules, steps: StepsOfEach) -> float:
    """schedules[k](t - s), s = steps[0] + ··· + steps[k-1]: one schedule after the other.

    The k-th lasts for steps[k] steps, counted from t = 1 for itself; the last, which has no
    number of steps, goes on for ever. Sequences may be parts of sequences. The base rate is the
    largest of the parts'.

    >>> from fusedstep.schedules import cosine, sequence, warmup
    >>> rate = sequence([warmup(0.1, 2), cosine(0.1, 4)], [2])
    >>> [round(rate(t), 6) for t in (1, 2, 3, 4, 5, 7)]
    [0.05, 0.1, 0.1, 0.085355, 0.05, 0.0]
    """
    for rate, lasting in zip(schedules, steps, strict=False):
        if t <= lasting:
            return rate(t)
        t -= lasting
    return schedules[-1](t)


def period(n: int, steps: int, factor: float) -> tuple[float, float]:
    """Beginning and length of the period that holds n, in a time that does not grow with n.

    The k-th begins at steps·(factorᵏ - 1)/(factor - 1). Solving this for k is a guess, which may
    be off where n is at a boundary; the beginnings decide.
    """
    growth = factor - 1
    if growth == 0:
        return n - n % steps, steps
    k = int(log1p(n * growth / steps) / log1p(growth))
    while beginning(k, steps, factor) > n:
        k -= 1
    while beginning(k + 1, steps, factor) <= n:
        k += 1
    return beginning(k, steps, factor), steps * portable.power(factor, k)


@lru_cache(maxsize=1024)
def beginning(k: int, steps: int, factor: float) -> float:
    """The beginning of a period, steps·(factorᵏ - 1)/(factor - 1).

    One that differs from a whole number only by its rounding, or by that of a factor like 1.1,
    counts as that number.
    """
    x = steps * geometric(factor, k)
    nearest = round(x)
    return nearest if abs(x - nearest) <= 1e-12 * x else x


def __getattr__(name: str) -> Any:
    from fusedstep._names import missing

    raise missing(__name__, name)
