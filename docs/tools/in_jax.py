"""The text of jax/optimizers.py, which is made of the declarations of all optimizers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from declarations import spelled, written

import fusedstep as fs
from fusedstep import optimizers, rules
from fusedstep._core.declaration import Argument, declaration_of
from fusedstep._core.kept import STORAGE

HEAD = '''\
"""The optimizers as functions, each of which makes the transformation of the class of that name.

Formulas, hyperparameters and defaults are the class's; see there. A number may be an array of shape
(), traced or not, which is read in its own precision; `momentum` then keeps its buffer, and `ema`
its average, whatever the value. `lr` may also be a schedule: one of `fusedstep.schedules` is a
function of t, 1 at the first step, and is taken in float64; any other is optax's, a function of the
count of steps done, 0 at the first, and is traced.
"""

# Written by docs/tools/regions.py.

from __future__ import annotations

from typing import Literal

from fusedstep import optimizers, rules
from fusedstep.jax._transformation import Number, Rate, Transformation, hinting, transformation

__all__ = [
{names}
]
'''

NOT_HERE = ("params", "nonfinite", "capturable", "backend", "out", *STORAGE)
"""Arguments of classes that functions have not, or at the end."""


def text() -> str:
    """The text of the file."""
    classes = [(optimizers, name) for name in optimizers.__all__]
    classes += [(rules, name) for name in rules.__all__]
    names = ",\n".join(f'    "{name}"' for name in sorted(name.lower() for _, name in classes))
    functions = ("\n".join(function(module, name)) + "\n" for module, name in classes)
    return "\n\n".join([HEAD.replace("{names}", names + ","), *functions])


def function(module: Any, name: str) -> Iterator[str]:
    """The lines of the function that makes the transformation of an optimizer."""
    optimizer = getattr(module, name)
    yield from ("@hinting", f"def {name.lower()}(")
    keyword_only = False
    for each in declaration_of(optimizer).arguments:
        if each.name not in NOT_HERE:
            if each.keyword_only and not keyword_only:
                keyword_only = True
                yield "    *,"
            yield f"    {each.name}: {annotation(each)} = {written(each.default)},"
    yield from ('    backend: str = "auto",', ") -> Transformation:")
    where = "fusedstep" if module is optimizers else "fusedstep.rules"
    yield f'    """`{where}.{name}` in programs of JAX\'s.'
    yield ""
    for line in example(optimizer):
        yield f"    {line}"
    source = module.__name__.rpartition(".")[2]
    yield from ('    """', f"    return transformation({source}.{name}, locals())")


def annotation(argument: Argument) -> str:
    """The type of an argument, where arrays may be in the place of numbers."""
    if argument.name == "lr":
        return "Rate"
    default = argument.default
    if isinstance(default, tuple):
        return f"tuple[{', '.join(['Number'] * len(default))}]"
    if isinstance(default, bool):
        return "bool"
    if isinstance(default, str):
        return spelled(argument.type)
    return "Number | None" if default is None else "Number"


def example(optimizer: type[fs.Optimizer]) -> Iterator[str]:
    """The first step of the class's example, and what it does to p."""
    doc = inspect.getdoc(optimizer) or ""
    made = re.search(rf"{optimizer.__name__}\(p, (.+?)\)(?:$|\.step)", doc, re.MULTILINE)
    stepped = re.search(r"\.step\((?:np\.array\()(.+?)\)\)", doc)
    if not made or not stepped:
        raise ValueError(f"{optimizer.__name__}: its example makes no optimizer of p and steps it")
    g = stepped[1]
    yield ">>> import numpy as np, jax.numpy as jnp, fusedstep.jax"
    yield f">>> tx = fusedstep.jax.{optimizer.__name__.lower()}({made[1]})"
    yield ">>> p = jnp.array([1.0, 2.0])"
    yield f">>> p, state = tx.apply(jnp.array({g}), tx.init(p), p)"
    yield ">>> np.asarray(p).round(4)"
    p = np.array([1.0, 2.0], np.float32)
    passed = f"optimizer(p, {made[1]}, backend='numpy')"  # which is there without compiled code
    eval(passed, {"p": p, "optimizer": optimizer}).step(np.array(eval(g), np.float32))
    yield repr(p.round(4))
