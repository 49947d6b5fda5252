"""What `fusedstep inspect` shows: the CUDA kernel of a rule, as Python and as PTX."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Sequence

import numpy as np

from fusedstep._backends.cuda import available, kernels
from fusedstep._backends.cuda.ptx import compile_ptx
from fusedstep._backends.plan import Job
from fusedstep._checks.wording import quoted
from fusedstep._core.declaration import declaration_of
from fusedstep._core.optimizer import Optimizer
from fusedstep._numerics import scalar
from fusedstep._numerics.coefficients import Rule

RULES = [
    name
    for name, function in vars(scalar).items()
    if inspect.isfunction(function) and "inside" in inspect.signature(function).parameters
]

SHIPPED = {
    name.lower(): f"fusedstep.rules:{name}" for name in ("Lion", "NAdam", "RAdam", "Adamax", "Adan")
}
"""Rules that the package has as a user would."""

OPTIONAL = {
    "adagrad": {"inside": ""},
    "rmsprop": {"inside": "", "centered": "a", "momentum": "b"},
    "adam": {"inside": "", "amsgrad": "x"},
    "adamw": {"inside": "", "amsgrad": "x"},
}
"""The options of a rule, and the state array that each switches on."""


def source(name: str, options: Sequence[str], dtype: str) -> str:
    """The generated module of a rule's kernel."""
    return kernels.text(_job(name, options, dtype))


def ptx(name: str, options: Sequence[str], dtype: str, cc: str) -> str:
    """That kernel compiled for the compute capability `cc`, as "9.0"."""
    job = _job(name, options, dtype)
    reason = available.why_no_compiler()
    if reason is not None:
        raise RuntimeError(reason)
    if available.simulated():
        raise RuntimeError("Numba only simulates here; unset NUMBA_ENABLE_CUDASIM")
    from numba.cuda.cudadrv import nvrtc

    known = {f"{major}.{minor}": (major, minor) for major, minor in nvrtc.get_supported_ccs()}
    if cc not in known:
        raise ValueError(f"--cc {cc} is not one that the compiler knows; pass {quoted([*known])}")
    return compile_ptx(kernels.module(job), known[cc])


def _job(name: str, options: Sequence[str], dtype: str) -> Job:
    name = SHIPPED.get(name, name)
    rule = _own(name) if ":" in name else _packages(name, options)
    if ":" in name and options:
        raise ValueError(f"--option {options[0]} is not one of {name}; leave it out")
    return Job(rule, np.dtype(dtype))


def _packages(name: str, options: Sequence[str]) -> Rule:
    if name not in RULES:
        raise ValueError(
            f"RULE {name!r} is unknown; pass one of {quoted([*RULES, *SHIPPED])}, or "
            "`module:Name` for one of your own"
        )
    optional = OPTIONAL.get(name, {})
    for option in options:
        if option not in (*optional, "ema"):
            known = quoted([*optional, "ema"])
            raise ValueError(f"--option {option} is not one of {name}, which has {known}")
    _, _, *letters, _, _ = inspect.signature(getattr(scalar, name)).parameters
    absent = {letter for option, letter in optional.items() if option not in options}
    present = tuple(None if letter in absent else letter for letter in letters)
    return Rule(name, present, "inside" in options, averaged="ema" in options)


def _own(name: str) -> Rule:
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())  # as `python -m` has it
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"RULE {name!r}: {error}; name a module that can be imported") from None
    finally:
        sys.path.remove(os.getcwd())
    found = getattr(module, attribute, None)
    if (
        not isinstance(found, type)
        or not issubclass(found, Optimizer)
        or not declaration_of(found).custom
    ):
        raise ValueError(
            f"RULE {name!r}: {module_name} has no rule {attribute!r}; make one with "
            "`@fusedstep.rule(...)`"
        )
    return declaration_of(found).rule({})
