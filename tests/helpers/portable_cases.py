"""Random arguments of the portable functions, and what mpmath makes of them, rounded once.

    python tests/helpers/portable_cases.py --cases 1000000
    python tests/helpers/portable_cases.py --cases 10000 --functions exp log --seed 7

Each function gets so many cases, and a table says how many there were and how many differ from
the correctly rounded value.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from math import frexp, inf, ldexp
from random import Random
from typing import Any, NamedTuple

import mpmath
from mpmath import mp

from fusedstep._numerics import portable
from fusedstep._numerics.momenta import momenta
from fusedstep._numerics.powers import correction, geometric, powers_of

BITS = 400
"""Bits that mpmath computes with: what is drawn here makes 1 - cos(π·x) no less than 2⁻²⁶⁰."""


def rounded(value: Any) -> float:
    """The float64 nearest to a number of mpmath; its own conversion rounds subnormals twice."""
    sign, m, e, bits = value._mpf_
    if not m or e + bits < -1100:
        return 0.0
    lost = max(bits - 53, -1074 - e, 0)
    kept, rest = int(m) >> lost, int(m) & ((1 << lost) - 1)
    half = 1 << (lost - 1) if lost else 1
    kept += rest > half or (rest == half and kept % 2)
    try:
        return ldexp(-kept if sign else kept, e + lost)
    except OverflowError:
        return -inf if sign else inf


class Function(NamedTuple):
    """One of the functions, what it should be, and random arguments for it."""

    ours: Callable[..., float]
    exact: Callable[..., Any]
    draw: Callable[[Random], tuple[Any, ...]]


def draw_beta(random: Random) -> float:
    """A share as optimizers have it, or one as near to 1 as there are any, or any."""
    kind = random.randrange(4)
    if kind == 0:
        return random.choice([0.5, 0.75, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9999, 0.96])
    if kind == 1:
        return 1 - 10 ** -random.uniform(0, 15.5)
    return 1 - 2.0 ** -random.randint(1, 53) if kind == 2 else random.random()


def draw_step(random: Random) -> int:
    """A count of steps up to 2⁵³."""
    kind = random.randrange(4)
    if kind == 0:
        return random.randint(1, 2000)
    return 2**53 - random.randint(0, 9) if kind == 1 else int(2 ** random.uniform(0, 53))


def draw_size(random: Random, least: float = 1e-20, most: float = 700.0) -> float:
    """A number of any size between these, to the logarithm."""
    return ldexp(random.uniform(0.5, 1), random.randint(frexp(least)[1], frexp(most)[1] - 1))


def draw_power(random: Random) -> tuple[float, float]:
    x = random.choice([draw_size(random, 1e-40, 1e40), random.random()])
    steps = 0.004 * random.randint(1, 10**5)
    y = random.choice([random.uniform(-9, 9), steps, random.choice(EASY)])
    if random.randrange(10) == 0:  # whose root is a float64, or half-way between two
        x = float(random.randint(1, 2**26)) ** 2
    return x, y


EASY = [0.25, 0.5, 1.5, 2.5, -0.5, 2.0, 3.0, -2.0, 1, 2, 7, -3]


def draw_share(random: Random) -> tuple[float]:
    """A number from 0 to 1, often close to an end, or a share of whole steps."""
    steps = random.randint(1, 10**6)
    return (
        random.choice(
            [random.random(), random.randint(0, steps) / steps, 1 - draw_size(random, 1e-16, 0.5)]
        ),
    )


def exact_half_cosine(x: float) -> Any:
    return mp.cospi(mp.mpf(x) / 2) ** 2


FUNCTIONS = {
    "whole powers": Function(
        portable.power,
        lambda beta, t: mp.mpf(beta) ** t,
        lambda random: (draw_beta(random), draw_step(random)),
    ),
    "power": Function(portable.power, lambda x, y: mp.mpf(x) ** mp.mpf(y), draw_power),
    "exp": Function(
        portable.exp,
        lambda x: mp.exp(x),
        lambda random: (random.choice([-1, 1]) * draw_size(random, 1e-20, 745.0),),
    ),
    "log": Function(
        portable.log,
        lambda x: mp.log(x),
        lambda random: (
            random.choice([draw_size(random, 1e-300, 1e300), 1 + random.uniform(-1e-9, 1e-9)]),
        ),
    ),
    "cos_pi": Function(
        portable.cos_pi,
        lambda x: mp.cospi(x),
        lambda random: (random.choice([-1, 1]) * draw_size(random, 1e-39, 1e17),),
    ),
    "half_cosine": Function(portable.half_cosine, exact_half_cosine, draw_share),
    "geometric": Function(
        geometric,
        lambda x, n: (mp.mpf(x) ** n - 1) / (mp.mpf(x) - 1),
        lambda random: (1 + draw_size(random, 2.0**-52, 999.0), random.randint(1, 99)),
    ),
}


def compare(name: str, cases: int, seed: int) -> Iterator[tuple[Any, ...]]:
    """The arguments, and what was found and expected, of each case that differs."""
    random, function = Random(f"{name} {seed}"), FUNCTIONS[name]
    with mp.workprec(BITS):
        for _ in range(cases):
            given = function.draw(random)
            found, expected = function.ours(*given), rounded(function.exact(*given))
            if found != expected:
                yield (*given, found, expected)


def compare_powers(cases: int, seed: int) -> Iterator[tuple[Any, ...]]:
    """The same of βᵗ and 1 - βᵗ as steps ask for them, by blocks: some t that follow each other."""
    random = Random(f"blocks {seed}")
    with mp.workprec(BITS):
        for _ in range(cases // 250):
            beta, first = draw_beta(random), draw_step(random)
            power = mp.mpf(beta) ** first
            for t in range(first, first + 250):
                found, expected = powers_of(beta)(t), rounded(power)
                if found != expected or correction(beta, t) != 1 - expected:
                    yield beta, t, found, expected
                power *= beta


def compare_momenta(cases: int, seed: int) -> Iterator[tuple[Any, ...]]:
    """The same of NAdam's momenta, and of their product while it is not below 2⁻⁶⁴."""
    random = Random(f"momenta {seed}")
    with mp.workprec(BITS):
        for _ in range(cases // 250):
            beta, decay = draw_beta(random), random.choice([0.0, 4e-3, draw_size(random, 1e-30, 9)])
            q = mp.mpf(0.96) ** mp.mpf(decay)
            power, product = mp.mpf(1), mp.mpf(1)
            for t in range(1, 251):
                power *= q
                now, ahead = (mp.mpf(beta) * (1 - each / 2) for each in (power, power * q))
                product *= now
                expected = (*map(rounded, (now, ahead)), rounded(product) * (product >= 2.0**-64))
                if momenta(beta, decay, t) != expected:
                    yield beta, decay, t, momenta(beta, decay, t), expected


COMPARISONS: dict[str, Callable[[int, int], Iterator[tuple[Any, ...]]]] = {
    **{
        name: lambda cases, seed, name=name: compare(name, cases, seed)  # type: ignore[misc]
        for name in FUNCTIONS
    },
    "powers by blocks": compare_powers,
    "momenta": compare_momenta,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--functions", nargs="*", choices=COMPARISONS, default=[*COMPARISONS])
    arguments = parser.parse_args()
    print(f"mpmath {mpmath.__version__} with {BITS} bits")
    failed = False
    for name in arguments.functions:
        differing = [*COMPARISONS[name](arguments.cases, arguments.seed)]
        print(f"{name:17} {arguments.cases:>9,} cases {len(differing):>6} differ", flush=True)
        for each in differing[:5]:
            print("   ", *each)
        failed = failed or bool(differing)
    sys.exit(failed)


if __name__ == "__main__":
    main()
