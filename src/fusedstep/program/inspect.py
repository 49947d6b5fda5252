"""The subcommand `inspect`: the CUDA kernel of a rule, as Python and as PTX."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence

import numpy as np

from fusedstep import optimizers, rules
from fusedstep._backends.cuda import available, kernels
from fusedstep._backends.cuda.ptx import compile_ptx
from fusedstep._backends.plan import Job
from fusedstep._checks.hints import nearest
from fusedstep._checks.wording import quoted
from fusedstep._core.custom import CustomRule
from fusedstep._core.declaration import declaration_of
from fusedstep._core.optimizer import Optimizer
from fusedstep._numerics import scalar
from fusedstep._numerics.coefficients import Rule
from fusedstep.program.arguments import add_dtype
from fusedstep.program.errors import CommandError
from fusedstep.program.imported import imported

RULES = [
    name
    for name, function in vars(scalar).items()
    if inspect.isfunction(function) and "inside" in inspect.signature(function).parameters
]

CUSTOM = {name.lower(): f"fusedstep.rules:{name}" for name in rules.__all__}
"""The rules of `fusedstep.rules`, which are written as custom rules."""


def options_of(optimizer: type[Optimizer]) -> tuple[str, dict[str, str]]:
    """The name of an optimizer's rule, and its options with the state array of each."""
    declaration = declaration_of(optimizer)
    rule = declaration.rule(declaration.defaults)
    found = {"inside": ""} if "eps_inside_sqrt" in declaration.defaults else {}
    if len(rule.letters) == len(declaration.letters):  # else another rule has more arrays
        found |= {option: letter for letter, option in declaration.letters.items() if option}
    return rule.name, found


OPTIONAL = dict(options_of(getattr(optimizers, name)) for name in optimizers.__all__)
"""The options of a rule, and the state array that each switches on; inside: ε under the root."""

DESCRIPTION = (
    "Print the CUDA kernel of a rule as PTX, the assembly that NVIDIA's driver takes, or the "
    "Python that it is compiled from. No device is needed."
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "rule",
        metavar="RULE",
        help=f"{', '.join(RULES)}; {', '.join(CUSTOM)}; or `module:Name` for a custom rule",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME",
        help=f"an option of the rule; {described(OPTIONAL)}; of all rules: ema (a moving "
        "average; inside is ε under the root); may be repeated",
    )
    add_dtype(parser)
    parser.add_argument(
        "--cc", default="9.0", help="the device's compute capability (default: %(default)s)"
    )
    parser.add_argument("--source", action="store_true", help="print the Python, not the PTX")


def described(optional: Mapping[str, Mapping[str, str]]) -> str:
    """The options, and the rules that have them."""
    having: dict[tuple[str, ...], list[str]] = {}
    for rule, options in optional.items():
        having.setdefault(tuple(options), []).append(rule)
    return "; ".join(
        f"of {', '.join(names)}: {', '.join(options)}"
        for options, names in having.items()
        if options
    )


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
    name = CUSTOM.get(name, name)
    rule = custom(name) if ":" in name else built_in(name, options)
    if ":" in name and options:
        raise ValueError(f"--option {options[0]} is not one of {name}; leave it out")
    return Job(rule, np.dtype(dtype))


def built_in(name: str, options: Sequence[str]) -> Rule:
    if name not in RULES:
        near = nearest(name, [*RULES, *CUSTOM])
        meant = "" if near is None else f"; did you mean {near!r}?"
        raise ValueError(
            f"RULE {name!r} is unknown; pass one of {quoted([*RULES, *CUSTOM])}, or "
            f"`module:Name` for a custom rule{meant}"
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
    try:
        module = imported(module_name)
    except ImportError as error:
        raise ValueError(f"RULE {name!r}: {error}; name a module that can be imported") from None
    found = getattr(module, attribute, None)
    if not isinstance(found, type) or not issubclass(found, CustomRule):
        raise ValueError(
            f"RULE {name!r}: {module_name} has no rule {attribute!r}; make one with "
            "`@fusedstep.rule(...)`"
        )
    return declaration_of(found).rule({})
