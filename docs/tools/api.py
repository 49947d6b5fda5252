"""The API reference: one page for each public name, written from its docstring at each build."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import symbols
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, NumpyDocstring
from sphinx.util.inspect import stringify_signature

import fusedstep

FOLDER = Path("reference", "api")

SECTIONS = Config(
    napoleon_custom_sections=[("Attributes", "params_style")], napoleon_attr_annotations=False
)

STEPS = "`step`, `state` and what else all optimizers have: :py:class:`fusedstep.Optimizer`."


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", write)
    app.connect("autodoc-process-docstring", read_sections)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-bases", public_bases)


def write(app: Sphinx) -> None:
    """Write the pages, and only those that differ, so that no unchanged one is built anew."""
    folder = Path(app.srcdir) / FOLDER
    folder.mkdir(exist_ok=True)
    pages = {f"{name}.rst": page(name, thing) for name, thing in symbols.every().items()}
    for stale in {path.name for path in folder.iterdir()} - pages.keys():
        (folder / stale).unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def page(name: str, thing: Any) -> str:
    """The page of a public name, as reStructuredText."""
    module, _, short = name.rpartition(".")
    title = symbols.shown(name)
    lines = [title, "=" * len(title), "", f".. py:currentmodule:: {module}", ""]
    return "\n".join([*lines, *body(name, short, thing), ""])


def body(name: str, short: str, thing: Any) -> Iterator[str]:
    if isinstance(thing, ModuleType):
        yield f".. automodule:: {name}"
        yield ""
        yield from (f"- :py:obj:`~{name}.{part}`" for part, _ in symbols.parts(thing))
    elif not inspect.isclass(thing):
        yield f".. autofunction:: {short}"
        if result := returned(thing):
            yield from ("", f".. py:currentmodule:: {result.__module__}", "")
            yield f".. autoclass:: {result.__name__}"
    elif thing.__module__ == "fusedstep.presets":
        yield f".. autoclass:: {short}"
        yield from arguments(thing)
    else:
        yield from (f".. autoclass:: {short}", "   :members:")
        if public_base(thing):
            yield from ("   :show-inheritance:", "", STEPS)


def returned(function: Any) -> type | None:
    """The class of the package that a function returns, where it has no page of its own."""
    name = inspect.signature(function).return_annotation
    result = getattr(inspect.getmodule(function), str(name), None)
    known = inspect.isclass(result) and result not in symbols.every().values()
    return result if known else None


def arguments(preset: type) -> Iterator[str]:
    """The arguments that a preset has for each class."""
    for name, values in vars(preset).items():
        if not name.startswith("_"):
            shown = ", ".join(f"``{option}={value!r}``" for option, value in values.items())
            yield from ("", f"   .. py:attribute:: {name}", "", f"      {shown}")


def read_sections(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """NumPy's sections, except in attributes, where a colon would begin a type."""
    if what not in ("attribute", "property"):
        lines[:] = NumpyDocstring(lines, SECTIONS, app, what, name, thing, options).lines()


def skip(app: Sphinx, what: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out what is neither a method nor a property: a class describes its attributes."""
    shown = what != "class" or inspect.isroutine(thing) or isinstance(thing, property)
    return None if shown else True


def signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, text: str | None, result: Any
) -> tuple[str, str | None] | None:
    """Hide the arguments of a class that programs do not call, and checks within annotations."""
    if inspect.isclass(thing) and not is_called(thing):
        return "", None
    if "Annotated[" not in (text or ""):
        return None
    hints = get_type_hints(thing.__init__ if inspect.isclass(thing) else thing)
    declared = inspect.signature(thing)
    plain = declared.replace(
        parameters=[
            each.replace(annotation=hints.get(each.name, each.annotation))
            for each in declared.parameters.values()
        ]
    )
    arguments, _, result = stringify_signature(plain, unqualified_typehints=True).partition(" -> ")
    return arguments, result or None


def is_called(thing: type) -> bool:
    """Whether a class describes its arguments, or has fields."""
    return issubclass(thing, tuple) or "Parameters\n---" in (inspect.getdoc(thing) or "")


def public_bases(app: Sphinx, name: str, thing: Any, options: Any, bases: list[Any]) -> None:
    """Show the nearest public base."""
    bases[:] = [public_base(thing)]


def public_base(thing: type) -> type | None:
    bases = thing.__mro__[1:]
    return fusedstep.Optimizer if fusedstep.Optimizer in bases else None
