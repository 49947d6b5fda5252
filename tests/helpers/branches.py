"""Branches of the C sources that tests have taken, from the counts that gcov reads.

    python tests/helpers/branches.py OBJECTS .ci/branches.txt

OBJECTS is the folder that `.ci/coverage` compiles into. One source line is compiled many times, for
each instruction set, dtype and rule; where the compiler knows a condition, it leaves branches out.
So the lines of a kind, with the same number of branches, are taken together: a branch is taken if
one of them takes it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Line(NamedTuple):
    """A line of a source file that has so many branches."""

    path: str
    number: int
    branches: int


Counts = dict[Line, list[bool]]
"""Whether each branch of a line is taken."""


def read(objects: Path) -> tuple[Counts, dict[str, set[int]]]:
    """The branches, and by file the lines that were run."""
    taken: Counts = {}
    run: dict[str, set[int]] = defaultdict(set)
    for counts in sorted(objects.glob("*.gcda")):
        command = ["gcov", "--json-format", "--stdout", "--branch-probabilities"]
        told = subprocess.run(
            [*command, "--object-directory", str(objects), str(counts)],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        for file in json.loads(told.stdout.splitlines()[0])["files"]:
            if not file["file"].startswith("csrc/"):
                continue
            for line in file["lines"]:
                if line["count"]:
                    run[file["file"]].add(line["line_number"])
                branches = line["branches"]
                if branches:
                    key = Line(file["file"], line["line_number"], len(branches))
                    known = taken.setdefault(key, [False] * len(branches))
                    for at, branch in enumerate(branches):
                        known[at] |= branch["count"] > 0
    return taken, run


def untaken(taken: Counts) -> Iterator[tuple[str, str]]:
    """The place of each branch that is not taken, and the name by which it has a reason."""
    for line, branches in sorted(taken.items()):
        source = (ROOT / line.path).read_text("utf-8").splitlines()[line.number - 1].strip()
        for at, is_taken in enumerate(branches):
            if not is_taken:
                name = f"{line.path}: {source}: {at + 1} of {line.branches}"
                yield f"{line.path}:{line.number}", name


def reasons(path: Path) -> dict[str, str]:
    """The reason for which branches are not taken, by name.

    What is left to chance, as its reason says with the first word, may be taken or not.
    """
    found, reason = {}, ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith(" "):
            found[line.strip()] = reason
        elif not line.startswith("#"):
            reason = line
    return found


def main(objects: str, of_reasons: str) -> int:
    taken, run = read(Path(objects))
    known = reasons(Path(of_reasons))
    missed = [*untaken(taken)]
    print(f"{'file':24} {'lines run':>10} {'branches':>10} {'taken':>10}")
    every = [0, 0, 0]
    for path in sorted(run):
        of_file = [branches for line, branches in taken.items() if line.path == path]
        row = [len(run[path]), sum(map(len, of_file)), sum(map(sum, of_file))]
        every = [a + b for a, b in zip(every, row, strict=True)]
        print(f"{path:24} {row[0]:10,} {row[1]:10,} {row[2]:10,}")
    print(f"{'all':24} {every[0]:10,} {every[1]:10,} {every[2]:10,}")
    without = [(place, name) for place, name in missed if name not in known]
    for place, name in missed:
        if name in known:
            print(f"not taken: {place}: {name}: {known[name]}")
    for place, name in without:
        print(f"NOT TAKEN: {place}: {name}")
    idle = {name for name in known if not known[name].startswith("Chance")}
    idle -= {name for _, name in missed}
    for name in sorted(idle):
        print(f"A REASON FOR WHAT IS TAKEN OR GONE: {name}")
    print(f"{len(missed)} branches are not taken, {len(without)} of them without a reason")
    return 1 if without or idle else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
