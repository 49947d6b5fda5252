"""A look at an optimizer before it is checked: its framework, its name, its hyperparameters.

This runs in a child process, since it imports whatever the expression names.
"""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

from fusedstep._checks.hints import nearest
from fusedstep.audits.expression import Call, Name, Value, parse


def probe(text: str, rule: str = "") -> dict[str, Any]:
    """Describe the optimizer that an expression makes; "refused" says why there is none.

    `rule` is the expression of another, whose hyperparameters are described, too.
    """
    expression = parse(text)
    own = expression.path.partition(".")[0]
    for path in expression.paths():
        if path.partition(".")[0] not in (own, *ARRAYS):
            return {
                "refused": f"{path} is neither of {own} nor of {', '.join(ARRAYS)}; write its value"
            }
    try:
        modules = {path: module_of(path) for path in expression.paths()}
        made = resolved(expression.path)
    except LookupError as error:
        return {"refused": str(error.args[0])}
    kind = framework_of(expression, made)
    if kind is None:
        parent, _, last = expression.path.rpartition(".")
        beside = {name: getattr(resolved(parent), name, None) for name in public(resolved(parent))}
        near = nearest(last, [name for name, each in beside.items() if family(each)])
        hint = f"did you mean {near!r}? Or " if near else ""
        return {
            "refused": f"{expression.path} is no optimizer of torch, Keras or optax; {hint}name a "
            "class that is derived from torch.optim.Optimizer or keras.optimizers.Optimizer, or a "
            "function that returns an optax.GradientTransformation"
        }
    try:
        values = DESCRIPTIONS[kind](expression, made)
    except Exception as error:
        said = " ".join(str(error).split())
        known = ", ".join(name for name in parameters(made) if name not in ("params", "self"))
        return {
            "refused": f"{expression} raises {type(error).__name__}: {said}; the arguments of "
            f"{expression.path} are: {known}"
        }
    try:
        described = rule_values(parse(rule), kind) if rule else {}
    except (LookupError, TypeError) as error:
        return {"refused": f"{rule} is no rule for {expression.path}: {error.args[0]}"}
    return {
        "framework": kind,
        "own": top(made) in OWN[kind],
        "bases": [base.__name__ for base in mro(made)[1:] if top(base) in OWN[kind]],
        "required": required(expression, made, kind),
        "rule": described,
        "modules": sorted(set(modules.values())),
        "hyperparameters": {key: plain(value) for key, value in values.items()},
        "tensors": [key for key, value in values.items() if hasattr(value, "dtype")],
        "accepts": parameters(made),
        "positional": positional(made),
        "versions": versions([kind, *modules.values()]),
    }


OWN = {
    "torch": ("torch", "fusedstep"),
    "keras": ("keras",),
    "optax": ("optax",),
    "numpy": ("fusedstep",),
}
"""Packages whose optimizers have their rules by their names, by framework."""


def top(made: Any) -> str:
    """The package of a class or of a function."""
    return str(getattr(made, "__module__", "")).partition(".")[0]


def mro(made: Any) -> tuple[type, ...]:
    return made.__mro__ if inspect.isclass(made) else ()


def required(expression: Call, made: Any, framework: str) -> list[str]:
    """The arguments of optax's function, where another function has its name.

    Those that are off by default may be missing.
    """
    namesake = getattr(resolved("optax"), expression.name, None) if framework == "optax" else None
    if namesake is None or top(made) == "optax":
        return []
    found = inspect.signature(namesake).parameters.values()
    return [each.name for each in found if each.default is None or each.default]


def rule_values(rule: Call, framework: str) -> dict[str, Any]:
    """The hyperparameters of a rule: "defaults" of all, and those that are "given".

    A LookupError says why it has none for the optimizers of a framework.
    """
    packages = OWN[framework]
    if rule.path.partition(".")[0] not in packages:
        raise LookupError(f"name one of {' or '.join(packages)}")
    made = resolved(rule.path)
    if framework_of(rule, made) != framework:
        raise LookupError(f"it is no optimizer of {' or '.join(packages)}")
    signature = inspect.signature(made)
    own = [name for name in signature.parameters if name != "params"]
    arguments = [evaluated(value) for value in rule.arguments]
    if arguments and "params" in signature.parameters:
        raise TypeError("give its hyperparameters by keyword")
    try:
        bound = signature.bind_partial(*arguments, **given(rule))
    except TypeError as error:
        raise TypeError(f"{error}; its arguments are: {', '.join(own)}") from None
    empty = inspect.Parameter.empty
    defaults = {name: signature.parameters[name].default for name in own}
    return {
        "defaults": {k: None if each is empty else plain(each) for k, each in defaults.items()},
        "given": {name: plain(value) for name, value in bound.arguments.items()},
    }


ARRAYS = ("jax", "keras", "numpy", "optax", "torch")
"""Packages whose functions may be called for an argument, beside the optimizer's own package."""


# ---- names ----


COMPLETE = ("fusedstep", "keras", "optax", "torch")
"""Packages whose optimizers are there once the package is imported."""


def module_of(path: str) -> str:
    """The module to import so that `path` can be written: "torch", "bitsandbytes.optim"."""
    resolved(path)  # imports the modules on the way
    parts = path.split(".")
    if parts[0] in COMPLETE and path.rpartition(".")[0] not in OPTIONAL:
        return parts[0]
    prefixes = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next(prefix for prefix in prefixes if prefix in sys.modules)


OPTIONAL = ("fusedstep.torch", "optax.contrib")
"""Modules of these packages that must be imported by themselves."""


def imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise LookupError(
                f"there is no module {error.name!r}; install it, or correct its name"
            ) from None
        raise LookupError(f"{module} cannot be imported: {error}; install that, too") from None
    except Exception as error:
        said = " ".join(str(error).split())
        raise LookupError(
            f"{module} cannot be imported: {type(error).__name__}: {said}; see that "
            f"`import {module}` works"
        ) from None


def resolved(path: str) -> Any:
    """The object of a dotted name; a LookupError says which part is not there."""
    first, *rest = path.split(".")
    found = imported(first)
    for count, part in enumerate(rest, 1):
        if hasattr(found, part):
            found = getattr(found, part)
            continue
        module = ".".join([first, *rest[:count]])
        try:
            found = importlib.import_module(module)
        except ImportError:
            near = nearest(part, public(found))
            hint = f"; did you mean {near!r}?" if near else "; correct the name"
            raise LookupError(
                f"{'.'.join([first, *rest[: count - 1]])} has no {part!r}{hint}"
            ) from None
    return found


def public(found: Any) -> list[str]:
    return [name for name in dir(found) if not name.startswith("_")]


def evaluated(value: Value) -> Any:
    """The object that a value of an expression stands for."""
    if isinstance(value, Name):
        return resolved(value.path)
    if isinstance(value, Call):
        arguments = [evaluated(each) for each in value.arguments]
        keywords = {name: evaluated(each) for name, each in value.keywords.items()}
        return resolved(value.path)(*arguments, **keywords)
    if isinstance(value, list | tuple):
        return type(value)(evaluated(each) for each in value)
    if isinstance(value, dict):
        return {evaluated(key): evaluated(each) for key, each in value.items()}
    return value


# ---- frameworks ----


def framework_of(expression: Call, made: Any) -> str | None:
    """The framework of a class, or of a function that makes optimizers."""
    if inspect.isclass(made):
        return family(made)
    if callable(made) and "optax" in sys.modules:  # without it, none of optax can be made
        try:
            outcome = evaluated(expression)
        except Exception:  # described when its hyperparameters are asked for
            return "optax" if expression.path.partition(".")[0] == "optax" else None
        if hasattr(outcome, "init") and hasattr(outcome, "update"):
            return "optax"
    return None


def family(made: Any) -> str | None:
    """The framework whose optimizer a class is derived from."""
    if not inspect.isclass(made):
        return None
    origins = {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in made.__mro__}
    return next((framework for framework, base in BASES.items() if base in origins), None)


BASES = {
    "torch": "torch.Optimizer",
    "keras": "keras.Optimizer",
    "numpy": "fusedstep.Optimizer",
}
"""Package and name of the class that the optimizers of a framework are derived from."""


def torch_values(expression: Call, made: Any) -> dict[str, Any]:
    import torch

    parameter = torch.nn.Parameter(torch.ones(4, 4))
    group: dict[str, Any] = with_params(expression, made, [parameter]).param_groups[0]
    return {**given(expression), **{key: group[key] for key in group if key != "params"}}


def numpy_values(expression: Call, made: Any) -> dict[str, Any]:
    import numpy as np

    group = dict(with_params(expression, made, np.ones((4, 4))).param_groups[0])
    return {**given(expression), **{key: group[key] for key in group if key != "params"}}


def given(expression: Call) -> dict[str, Any]:
    """The arguments in an expression, also those that no group of parameters has."""
    return {name: evaluated(value) for name, value in expression.keywords.items()}


def with_params(expression: Call, made: Any, params: Any) -> Any:
    if expression.arguments or "params" in expression.keywords:
        raise TypeError("parameters are put in by the audit; give all others by keyword")
    return made(params, **given(expression))


def keras_values(expression: Call, made: Any) -> dict[str, Any]:
    optimizer = evaluated(expression)
    values: dict[str, Any] = dict(optimizer.get_config())
    if isinstance(values.get("learning_rate"), int | float):
        values["learning_rate"] = float(optimizer.learning_rate)  # as it is held: in float32
    return values


def optax_values(expression: Call, made: Any) -> dict[str, Any]:
    evaluated(expression)
    arguments = [evaluated(value) for value in expression.arguments]
    keywords = {name: evaluated(value) for name, value in expression.keywords.items()}
    bound = inspect.signature(made).bind(*arguments, **keywords)
    bound.apply_defaults()
    return dict(bound.arguments)


DESCRIPTIONS = {
    "torch": torch_values,
    "numpy": numpy_values,
    "keras": keras_values,
    "optax": optax_values,
}
"""How the hyperparameters of a framework's optimizer are read."""


def parameters(made: Any) -> list[str]:
    """The names of the arguments, with those that go on to the next class in `**`."""
    found: dict[str, None] = {}
    for each in mro(made) or (made,):
        try:
            own = inspect.signature(each).parameters
        except (TypeError, ValueError):
            break
        found |= dict.fromkeys(own)
        if all(one.kind is not inspect.Parameter.VAR_KEYWORD for one in own.values()):
            break
    return [*found]


def positional(made: Any) -> list[str]:
    """The names of the arguments that may be given by position."""
    try:
        found = inspect.signature(made).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = {each.kind for each in found}
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return []
    return [each.name for each in found if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]


def plain(value: Any) -> Any:
    """A value as JSON has it; what is no number, flag or text becomes text in brackets."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()} or None
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | str):
        return value
    if inspect.isroutine(value):
        return f"<{getattr(value, '__name__', 'function')}>"
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        return f"<{type(value).__name__}>"
    return number if math.isfinite(number) else str(number)


def versions(modules: list[str]) -> dict[str, str]:
    """Versions of the packages that the modules belong to, and of those below them."""
    below = {"keras": ["keras", backend()], "optax": ["optax", "jax"], "numpy": ["numpy"]}
    distributions = packages_distributions()
    found = {}
    for module in [*modules, *below.get(modules[0], [])]:
        top = module.partition(".")[0]
        for name in distributions.get(top, [top]):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
    return found


def backend() -> str:
    """The package that Keras computes with, where it is loaded."""
    keras = sys.modules.get("keras")
    return str(keras.backend.backend()) if keras is not None else "keras"
