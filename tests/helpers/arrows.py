"""Imports between the folders of the package, counted: `python tests/helpers/arrows.py [PACKAGE]`.

Every import counts, wherever it stands: at a module's top, inside of a function, for types
alone.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "fusedstep"
FACE = "face"
"""The public modules, in no folder or in one of their own."""
PUBLIC = ("jax", "sklearn", "thinc", "torch")
"""The folders of these."""
EXTENSION = "._engine"
"""The compiled module, which imports nothing."""


def modules(package: Path) -> dict[str, Path]:
    """Every module by its dotted name, packages by their folder's."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """The dotted name of everything that a file imports, whether module or member of one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def edges(package: Path) -> Iterator[tuple[str, str]]:
    """Pairs of modules of which the first imports the second."""
    known = modules(package)
    for name, path in known.items():
        for target in imported(path):
            if target.partition(".")[0] == package.name and EXTENSION not in target:
                while target not in known:
                    target = target.rpartition(".")[0]
                yield name, target


def folder(module: str, package: Path = PACKAGE) -> str:
    """The folder of the package that a module lies in."""
    first = module.removeprefix(package.name).removeprefix(".").partition(".")[0]
    if first == "__main__":
        return "program"
    return first if first not in PUBLIC and first and (package / first).is_dir() else FACE


def main(package: Path) -> None:
    counted = Counter((folder(a, package), folder(b, package)) for a, b in edges(package))
    for (one, other), count in sorted(counted.items()):
        if one != other:
            back = counted[other, one]
            print(f"{one:>12} -> {other:<12} {count:4}{f'   and back {back}' if back else ''}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else PACKAGE)
