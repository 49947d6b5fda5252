"""Texts that are made of the declarations in optimizers.py: functional.py, and the glossary."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import numpy as np
from marked import table

import fusedstep as fs
from fusedstep import optimizers
from fusedstep._core.declaration import declaration_of
from fusedstep._core.one_step import call_of

HEAD = '''\
"""The same steps without an object, on arrays that the caller owns.

Each function updates p and its state arrays in place, once, as step number t (from 1). The
formulas, hyperparameters and defaults are those of the class of the same name; an optional
state array that is passed switches on what needs it. All arrays have the shape and dtype of
p, float32 or float64, but that the gradient of a float32 p may be float16 or bfloat16; `lr` is
the rate of this step, a number. An array of 16 bits that is passed as `out` is left with p,
rounded to nearest, in the same pass. Clipping, averages and the like are an optimizer's, and so
are parameters and state of 16 bits. What does not fit is a TypeError or ValueError that names it,
and nothing has been written. No array is held after the call. What an optimizer checks once is
checked at every call, so a loop over many arrays is faster with an optimizer.
"""

# Written by docs/tools/regions.py.

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from fusedstep import optimizers
from fusedstep._arrays.walk import Array
from fusedstep._core.hints import explained
from fusedstep._core.one_step import of_one_step, one_step


def __getattr__(name: str) -> Any:
    from fusedstep._names import missing

    raise missing(__name__, name)
'''

NOTES = {
    "initial_lr": 'With `decay_scale="schedule"`, ηₜ = lr / initial_lr; `initial_lr` is lr if it '
    "is None.",
}
"""Texts on hyperparameters that mean something else to functions than to groups."""


def functional() -> str:
    """The text of functional.py."""
    classes = (getattr(optimizers, name) for name in optimizers.__all__)
    return "\n\n".join([HEAD, *("\n".join(function(each)) + "\n" for each in classes)])


def function(optimizer: type[fs.Optimizer]) -> Iterator[str]:
    """The lines of the function that takes one step of an optimizer."""
    declaration = declaration_of(optimizer)
    yield f"@explained(partial(of_one_step, optimizers.{optimizer.__name__}))"
    yield f"def {optimizer.__name__.lower()}("
    for name in ("p", "g"):
        yield f"    {name}: Array,"
    for letter, option in in_order(declaration.letters):
        yield f"    {letter}: {'Array' if option is None else 'Array | None = None'},"
    yield from ("    *,", "    t: int,")
    for name, each in call_of(declaration).passed.items():
        # A step has one rate, which a schedule would give for its t.
        plain = "float" if name == "lr" else spelled(each.type)
        yield f"    {name}: {plain} = {written(each.default)},"
    yield from ("    out: Array | None = None,", '    backend: str = "auto",', ") -> None:")
    meant = f"; {clauses}" if (clauses := ", ".join(arrays(optimizer))) else ""
    yield f'    """One step of `fusedstep.{optimizer.__name__}`{meant}.'
    yield ""
    for name in call_of(declaration).passed.keys() & NOTES.keys():
        yield from (f"    {NOTES[name]}", "")
    for line in example(optimizer):
        yield f"    {line}"
    yield from ('    """', f"    one_step(optimizers.{optimizer.__name__}, locals())")


def in_order(letters: Any) -> list[tuple[str, str | None]]:
    """State arrays in the order of the arguments: those that are always there come first."""
    return sorted(letters.items(), key=lambda item: item[1] is not None)


def arrays(optimizer: type[fs.Optimizer]) -> Iterator[str]:
    """The meaning of an array that is passed, or left out."""
    declaration = declaration_of(optimizer)
    call = call_of(declaration)
    for name, letter in call.implied.items():
        yield f"{name} if {letter} is passed"
    for name, letter in call.needed.items():
        yield f"{name} needs {letter}"
    if "initial_accumulator_value" in declaration.checks:
        always = [letter for letter, option in declaration.letters.items() if option is None]
        yield f"{', '.join(always)} starts from what the caller puts in it"


def spelled(plain: Any) -> str:
    """A type as annotations write it."""
    if get_origin(plain) is Literal:
        return f"Literal[{', '.join(map(written, get_args(plain)))}]"
    return plain.__name__ if inspect.isclass(plain) and not get_args(plain) else str(plain)


def written(value: Any) -> str:
    """A value as the formatter writes it."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def example(optimizer: type[fs.Optimizer]) -> Iterator[str]:
    """The first step of the class's example, without an object, and what it does to p."""
    name = optimizer.__name__
    text = inspect.getdoc(optimizer) or ""
    made = re.search(rf"fs\.{name}\(p, (.+?)\)", text)
    stepped = re.search(r"\.step\((np\.array\(.+?\))\)", text)
    shown = re.search(r"^>>> (p\S*)$", text, re.MULTILINE)
    if not made or not stepped or not shown:
        raise ValueError(f"{name}: its example makes no optimizer of p, steps it, and shows p")
    needed = call_of(declaration_of(optimizer)).needed
    options = [each for each in made[1].split(", ") if each.split("=")[0] not in needed]
    state = [letter for letter, option in in_order(declaration_of(optimizer).letters) if not option]
    zeros = "".join(", np.zeros(2)" for _ in state)
    arguments = ["p", stepped[1], *state, "t=1", *options]
    lines = [
        "import numpy as np, fusedstep as fs",
        f"{', '.join(['p', *state])} = np.array([1.0, 2.0]){zeros}",
        f"fs.functional.{name.lower()}({', '.join(arguments)})",
    ]
    p = np.array([1.0, 2.0])
    names = {"p": p, "np": np}
    passed = ", ".join(["p", "backend='numpy'", *options])  # which is there without compiled code
    opt = eval(f"optimizer({passed})", {**names, "optimizer": optimizer})
    opt.step(eval(stepped[1], names))
    for line in (*lines, shown[1]):
        yield f">>> {line}"
    yield repr(eval(shown[1], names))


def glossary() -> str:
    """The arguments of the optimizers and what they are, as Markdown."""
    classes: dict[tuple[str, str], list[str]] = {}
    for name in optimizers.__all__:
        for each in declaration_of(getattr(optimizers, name)).arguments:
            classes.setdefault((each.name, " ".join(each.text.split())), []).append(f"`{name}`")
    rows = []
    for (argument, text), having in classes.items():
        everywhere = len(having) == len(optimizers.__all__)
        rows.append([f"`{argument}`", "all" if everywhere else ", ".join(having), text])
    return table(["argument", "of", "what"], rows)
