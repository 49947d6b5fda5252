"""The subcommand `inspect`: the CUDA kernel of a rule, as Python and as PTX."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from argparse import ArgumentParser, Namespace
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
from fusedstep.program.arguments import add_dtype
from fusedstep.program.errors import CommandError

RULES = [
    name
    for name, function in vars(scalar).items()
    if inspect.isfunction(function) and "inside" in inspect.signature(function).parameters
]

SHIPPED = {
    name.lower(): f"fusedstep.rules:{name}" for name in ("Lion", "NAdam", "RAdam", "Adamax", "Adan")
}
"""The rules of `fusedstep.rules`, which are written as custom rules."""

OPTIONAL = {
    "adagrad": {"inside": ""},
    "rmsprop": {"inside": "", "centered": "a", "momentum": "b"},
    "adam": {"inside": "", "amsgrad": "x"},
    "adamw": {"inside": "", "amsgrad": "x"},
}
"""The options of a rule, and the state array that each switches on."""

DESCRIPTION = (
    "Print the CUDA kernel of a rule as PTX, the assembly that NVIDIA's driver takes, or the "
    "Python that it is compiled from. No device is needed."
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "rule",
        metavar="RULE",
        help="sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw; lion, nadam, radam, adamax, "
        "adan; or `module:Name` for a custom rule",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME",
        help="an option of the rule; of adam and adamw: amsgrad, inside; of rmsprop: centered, "
        "momentum, inside; of adagrad: inside (ε under the root); of all of these: ema; may be "
        "repeated",
    )
    add_dtype(parser)
    parser.add_argument(
        "--cc", default="9.0", help="the device's compute capability (default: %(default)s)"
    )
    parser.add_argument("--source", action="store_true", help="print the Python, not the PTX")


def run(options: Namespace) -> int:
    try:
        if options.source:
            print(source(options.rule, options.option, options.dtype))
        else:
            print(ptx(options.rule, options.option, options.dtype, options.cc))
    except (RuntimeError, ValueError) as error:
        raise CommandError(str(error)) from None
    return 0


def source(name: str, options: Sequence[str], dtype: str) -> str:
    """The Python module that is generated for the kernel of a rule."""
    return kernels.text(job_of(name, options, dtype))


def ptx(name: str, options: Sequence[str], dtype: str, cc: str) -> str:
    """The kernel of a rule, compiled for the compute capability `cc`, such as "9.0"."""
    job = job_of(name, options, dtype)
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


def job_of(name: str, options: Sequence[str], dtype: str) -> Job:
    name = SHIPPED.get(name, name)
    rule = custom(name) if ":" in name else built_in(name, options)
    if ":" in name and options:
        raise ValueError(f"--option {options[0]} is not one of {name}; leave it out")
    return Job(rule, np.dtype(dtype))


def built_in(name: str, options: Sequence[str]) -> Rule:
    if name not in RULES:
        raise ValueError(
            f"RULE {name!r} is unknown; pass one of {quoted([*RULES, *SHIPPED])}, or "
            "`module:Name` for a custom rule"
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


def custom(name: str) -> Rule:
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())  # modules of the current folder are found, as by `python -m`
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
