"""One row for each rule and set of options: what every test and benchmark runs over.

A row of BASES is an optimizer with the options that choose its rule. CASES crosses each
with what may stand before any rule (CROSSED), and WHOLE_CASES with what a step may be asked
for besides (WHOLE). CUSTOM_BASES and so on are the same for `fusedstep.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import product
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

import fusedstep as fs
from fusedstep import optimizers, rules
from fusedstep._core.declaration import declaration_of
from fusedstep._numerics.coefficients import Rule

OPTIMIZERS: list[Any] = [getattr(optimizers, name) for name in optimizers.__all__]
CUSTOM_OPTIMIZERS: list[Any] = [getattr(rules, name) for name in rules.__all__]
"""The classes of `fusedstep.rules`."""

OURS = {
    each.name
    for optimizer in OPTIMIZERS
    for each in declaration_of(optimizer).arguments
    if each.keyword_only and each.name != "maximize"
}
"""Options that torch does not have."""


def in_torch(optimizer: Any) -> bool:
    """Whether torch has an optimizer of that name, as the presets know."""
    return hasattr(fs.presets.torch, optimizer.__name__)


class Case(NamedTuple):
    name: str
    optimizer: Any
    options: dict[str, Any]
    request: Mapping[str, Any] = MappingProxyType({})
    """Arguments of each step."""

    @property
    def in_torch(self) -> bool:
        return in_torch(self.optimizer) and not OURS & self.options.keys()


BASES = [
    Case("sgd", fs.SGD, {}),
    Case("momentum", fs.SGD, {"momentum": 0.9}),
    Case("momentum-dampening", fs.SGD, {"momentum": 0.9, "dampening": 0.3}),
    Case("nesterov", fs.SGD, {"momentum": 0.9, "nesterov": True}),
    Case("momentum-lr-inside", fs.SGD, {"momentum": 0.9, "lr_in_momentum": True}),
    Case(
        "momentum-dampening-lr-inside",
        fs.SGD,
        {"momentum": 0.9, "dampening": 0.3, "lr_in_momentum": True},
    ),
    Case("nesterov-lr-inside", fs.SGD, {"momentum": 0.9, "nesterov": True, "lr_in_momentum": True}),
    Case("adagrad", fs.Adagrad, {}),
    Case("adagrad-decay", fs.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    Case("adagrad-inside", fs.Adagrad, {"eps": 1e-3, "eps_inside_sqrt": True}),
    Case("rmsprop", fs.RMSprop, {}),
    Case("rmsprop-inside", fs.RMSprop, {"eps": 1e-3, "eps_inside_sqrt": True}),
    Case("rmsprop-momentum", fs.RMSprop, {"momentum": 0.9}),
    Case(
        "rmsprop-momentum-inside",
        fs.RMSprop,
        {"momentum": 0.9, "eps": 1e-3, "eps_inside_sqrt": True},
    ),
    Case("rmsprop-momentum-lr-inside", fs.RMSprop, {"momentum": 0.9, "lr_in_momentum": True}),
    Case("rmsprop-centered", fs.RMSprop, {"centered": True}),
    Case(
        "rmsprop-centered-inside",
        fs.RMSprop,
        {"centered": True, "eps": 1e-3, "eps_inside_sqrt": True},
    ),
    Case("rmsprop-centered-momentum", fs.RMSprop, {"centered": True, "momentum": 0.9}),
    Case(
        "rmsprop-centered-momentum-inside",
        fs.RMSprop,
        {"centered": True, "momentum": 0.9, "eps": 1e-3, "eps_inside_sqrt": True},
    ),
    Case("adam", fs.Adam, {}),
    Case("adam-uncorrected", fs.Adam, {"bias_correction": False}),
    Case("adam-inside", fs.Adam, {"eps": 1e-3, "eps_inside_sqrt": True}),
    Case("adam-eps-uncorrected", fs.Adam, {"eps": 1e-3, "eps_uncorrected": True}),
    Case(
        "adam-inside-eps-uncorrected",
        fs.Adam,
        {"eps": 1e-3, "eps_inside_sqrt": True, "eps_uncorrected": True},
    ),
    Case("adam-amsgrad", fs.Adam, {"amsgrad": True, "betas": (0.8, 0.9)}),
    Case("adam-amsgrad-inside", fs.Adam, {"amsgrad": True, "eps": 1e-3, "eps_inside_sqrt": True}),
    Case("adamw", fs.AdamW, {"weight_decay": 0.1}),
    Case("adamw-uncorrected", fs.AdamW, {"weight_decay": 0.1, "bias_correction": False}),
    Case("adamw-inside", fs.AdamW, {"weight_decay": 0.1, "eps": 1e-3, "eps_inside_sqrt": True}),
    Case(
        "adamw-eps-uncorrected",
        fs.AdamW,
        {"weight_decay": 0.1, "eps": 1e-3, "eps_uncorrected": True},
    ),
    Case("adamw-amsgrad", fs.AdamW, {"weight_decay": 0.1, "amsgrad": True, "betas": (0.8, 0.9)}),
    Case(
        "adamw-amsgrad-inside",
        fs.AdamW,
        {"weight_decay": 0.1, "amsgrad": True, "eps": 1e-3, "eps_inside_sqrt": True},
    ),
    Case("adamw-schedule", fs.AdamW, {"weight_decay": 0.1, "decay_scale": "schedule"}),
]

CROSSED = [
    Case("", fs.Optimizer, {}),
    Case("-maximize", fs.Optimizer, {"maximize": True}),
    Case("-decay", fs.Optimizer, {"weight_decay": 0.03}),
    Case("-l1", fs.Optimizer, {"l1": 0.02}),
    Case("-all", fs.Optimizer, {"maximize": True, "weight_decay": 0.03, "l1": 0.02}),
]


WHOLE = [
    Case("-scale", fs.Optimizer, {}, {"scale": 3.0}),
    Case("-value", fs.Optimizer, {}, {"max_value": 0.7, "zero_grads": True}),
    Case("-norm", fs.Optimizer, {"nonfinite": "skip"}, {"max_norm": 2.5}),
    Case("-ema", fs.Optimizer, {"ema": 0.9}),
    Case(
        "-whole",
        fs.Optimizer,
        {"maximize": True, "weight_decay": 0.03, "l1": 0.02, "ema": 0.6},
        {"scale": 0.3, "max_norm": 3.0, "max_value": 0.8, "zero_grads": True},
    ),
]


def crossed(bases: list[Case], more: list[Case]) -> list[Case]:
    return [
        Case(
            base.name + other.name,
            base.optimizer,
            {**base.options, **other.options},
            {**base.request, **other.request},
        )
        for base in bases
        for other in more
    ]


TRAINING = Case(
    "adamw-whole",
    fs.AdamW,
    {"weight_decay": 0.01, "ema": 0.9},
    {"scale": 8.0, "max_norm": 1.0, "zero_grads": True},
)
"""A step as training loops have it, which benchmarks compare with separate passes."""

CASES = crossed(BASES, CROSSED)
WHOLE_CASES = crossed(BASES, WHOLE)

# The optimizers that are rules as a user writes them.
CUSTOM_BASES = [
    Case("lion", rules.Lion, {}),
    Case("lion-betas", rules.Lion, {"lr": 1e-2, "betas": (0.5, 0.8), "weight_decay": 0.1}),
    Case("nadam", rules.NAdam, {}),
    Case("nadam-decoupled", rules.NAdam, {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    Case("nadam-momentum-decay", rules.NAdam, {"betas": (0.8, 0.9), "momentum_decay": 0.5}),
    Case("nadam-constant", rules.NAdam, {"betas": (0.8, 0.9), "momentum_decay": 0.0}),
    Case("radam", rules.RAdam, {}),
    Case("radam-decoupled", rules.RAdam, {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    Case("radam-betas", rules.RAdam, {"betas": (0.8, 0.9)}),
    Case("radam-never-rectified", rules.RAdam, {"betas": (0.8, 0.5)}),
    Case("adamax", rules.Adamax, {}),
    Case("adamax-betas", rules.Adamax, {"betas": (0.8, 0.9), "eps": 1e-3}),
    Case("adan", rules.Adan, {"weight_decay": 0.1}),
    Case("adan-no-prox", rules.Adan, {"weight_decay": 0.1, "no_prox": True}),
    Case("adan-betas", rules.Adan, {"betas": (0.8, 0.9, 0.7), "eps": 1e-3}),
    Case("yogi", rules.Yogi, {}),
    Case("yogi-betas", rules.Yogi, {"betas": (0.8, 0.6), "eps": 1e-8, "initial_v": 0.0}),
    Case("yogi-uncorrected", rules.Yogi, {"bias_correction": False, "initial_v": 0.5}),
]

CUSTOM_CASES = crossed(CUSTOM_BASES, CROSSED)
CUSTOM_WHOLE_CASES = crossed(CUSTOM_BASES, WHOLE)


def rules_of(optimizer: Any) -> set[Rule]:
    """Every rule that an optimizer's options call for."""
    declaration = declaration_of(optimizer)
    switches: dict[str, tuple[Any, Any]] = {
        option: (0.0, 0.9) for option in declaration.letters.values() if option
    }
    for name, default in declaration.defaults.items():
        if isinstance(default, bool):
            switches[name] = (False, True)
    found = set()
    for values in product(*switches.values()):
        h = {**declaration.defaults, **dict(zip(switches, values, strict=True))}
        with suppress(ValueError):  # options that do not go together
            declaration.together(h)
            found.add(declaration.rule(h))
    return found


RULES = {rule for optimizer in OPTIMIZERS for rule in rules_of(optimizer)}
"""Every rule of the package's own, with each set of state arrays."""

DTYPES: list[Any] = [np.float32, np.float64]

# Around the widest vector (16 float32), a chunk (16,384 elements) and a run that is split
# at a cache line (1,024), and large odd ones that several threads share.
SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65]
LARGE_SIZES = [1023, 1025, 16383, 16385, 100_003]


def difficult(rng: np.random.Generator, n: int, dtype: Any) -> np.ndarray[Any, Any]:
    """Values over the whole range of exponents, with zeros, subnormals, extremes, ∞ and NaN."""
    limits = np.finfo(dtype)
    exponents = rng.uniform(limits.minexp - limits.nmant, limits.maxexp, n)
    values = np.asarray(np.ldexp(rng.uniform(-1, 1, n), exponents.astype(int)), dtype)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, limits.max, -limits.max, limits.tiny]
    special += [limits.smallest_subnormal, -limits.smallest_subnormal]
    chosen = rng.random(n) < 0.1
    values[chosen] = rng.choice(np.array(special, dtype), chosen.sum())
    return values


def difficult_but_finite(
    rng: np.random.Generator, n: int, dtype: Any
) -> np.ndarray[Any, np.dtype[Any]]:
    """The same without ∞ and NaN, which a norm of all elements would spread to all."""
    values = difficult(rng, n, dtype)
    values[~np.isfinite(values)] = 1
    return values


def ordinary(rng: np.random.Generator, n: int, dtype: Any) -> np.ndarray[Any, Any]:
    """Values as they come up in training, over some orders of magnitude."""
    return np.asarray(rng.standard_normal(n) * 10 ** rng.uniform(-4, 1, n), dtype)


def ones(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.ones(shape, dtype)


def differing_bits(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> int:
    """The number of elements in which a and b differ; two NaNs count as equal."""
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    bits = np.dtype(f"u{a.dtype.itemsize}")
    differ = np.ascontiguousarray(a).view(bits) != np.ascontiguousarray(b).view(bits)
    return int((differ & ~(np.isnan(a) & np.isnan(b))).sum())
