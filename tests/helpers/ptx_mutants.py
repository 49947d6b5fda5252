"""Mutants of the CUDA kernels as they were compiled: each is wrong in one place, and has to show.

    PYTHONPATH=tests/helpers python tests/helpers/ptx_mutants.py                    all of them
    PYTHONPATH=tests/helpers python tests/helpers/ptx_mutants.py --sample 60
    PYTHONPATH=tests/helpers python tests/helpers/ptx_mutants.py --kernel verdict --print

A mutant of ptx_mutations.py takes its kernel's place in the steps of ptx_trials.py. It is found
if these leave other bits than the NumPy reference, or end in an error: the driver in memory checks
each access. What is not found is named, with the reason for which it is no slip at all, from
ptx_mutants.txt, or as a gap in the tests. The program fails if there is a gap, or if a mutant of
that list is found. The list is of one release of each compiler; with another one there are no gaps,
but of each family one mutant has to be found.

All mutants of a kernel are compiled at once, and a variable says which one is in force. Each is
tried in a child of this process.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cuda_in_memory
from cuda_in_memory import DRIVER
from ptx_in_c import FLAGS, switched
from ptx_mutations import FAMILIES, Mutant, mutants, with_extra

cuda_in_memory.install()

from ptx_trials import TRIALS, DiffersError, Trial  # noqa: E402  what asks for a driver

REASONS = Path(__file__).with_suffix(".txt")

LIMIT = 60
"""Seconds after which a mutant that does not end is found."""

COMPARED, CHECKED, RAISED, REFUSED, SAME = "bits", "checks", "errors", "translation", "not found"
"""How a mutant is found: by other bits, by the checks of the driver, by another error of the
package's, or already by the translator."""

ENDS = (SAME, COMPARED, CHECKED, RAISED)
"""The same, by the status with which a child exits, from 10 on."""


class Tried(NamedTuple):
    trial: Trial
    mutant: Mutant
    line: str
    """The line that it has changed."""

    @property
    def family(self) -> str:
        return self.mutant.name.rpartition(" ")[0]

    @property
    def name(self) -> str:
        return f"{self.trial.name}: {self.mutant.name}: {self.line}"


def changed_line(ptx: str, mutant: Mutant) -> str:
    """The first line of a kernel that a mutant has changed, without the numbers of registers."""
    return plain(ptx.splitlines()[min(mutant.change)])


def plain(line: str) -> str:
    """A line without the numbers of registers and labels."""
    return re.sub(r"(%\D+|\$L\w*?_)\d+", r"\1", " ".join(line.split()))


def of_trial(trial: Trial) -> list[Tried]:
    """The mutants of its kernel, but those of lines that the kernel beside it has as well."""
    ptx = ptx_of(trial.module)
    found = [Tried(trial, each, changed_line(ptx, each)) for each in mutants(ptx)]
    if trial.beside is None:
        return found
    own = lines_of_its_own(ptx, ptx_of(trial.beside))
    return [each for each in found if min(each.mutant.change) in own]


def lines_of_its_own(ptx: str, other: str) -> set[int]:
    """The numbers of the lines that are in one kernel, and not at the same place in another."""
    lines, others = ([plain(line) for line in each.splitlines()] for each in (ptx, other))
    matcher = SequenceMatcher(None, others, lines, autojunk=False)
    parts = [(low, high) for tag, _, _, low, high in matcher.get_opcodes() if tag != "equal"]
    return {at for low, high in parts for at in range(low, high)}


def ptx_of(module: Callable[[], ModuleType]) -> str:
    return cuda_in_memory.as_ptx(module(), 0)[:-1].decode()


def compilers() -> str:
    """The releases of what has made the kernels."""
    found = []
    for name in ("numba", "numba-cuda", "nvidia-nvvm"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} of another name")
    return ", ".join(found)


# ---- trying them ----


def put_in_force(trial: Trial, chosen: Sequence[Tried]) -> tuple[Any, set[int]]:
    """Have this process launch a kernel that holds some mutants, none of which is in force yet.

    Returned are the variable that says which one is, by its number in `chosen` from 1 on, and the
    numbers of those that the translator refuses.
    """
    from fusedstep._backends.cuda import device, driver

    text, refused = switched(
        with_extra(ptx_of(trial.module)), [each.mutant.change for each in chosen]
    )
    path = cuda_in_memory.built(text, *FLAGS)
    image = str(path).encode()
    DRIVER.made[image] = path
    with driver.current(0):
        device.kernel(trial.module(), 0).function = DRIVER.load(image)
    return ctypes.c_int.in_dll(ctypes.CDLL(str(path)), "fs_mutant"), refused


def status(trial: Trial, wanted: Sequence[Any]) -> str:
    """How the mutant that is in force in this process is found."""
    end = SAME
    try:
        trial.left("cuda", wanted)
    except DiffersError:
        end = COMPARED
    except Exception:
        end = RAISED
    return CHECKED if DRIVER.message() else end


def in_child(trial: Trial, wanted: Sequence[Any], variable: Any, number: int) -> str:
    """How a mutant is found, in a child of this process."""
    child = os.fork()
    if child == 0:
        signal.alarm(LIMIT)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        variable.value = number
        os._exit(10 + ENDS.index(status(trial, wanted)))
    end = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return ENDS[end - 10] if end >= 10 else f"signal {-end}"


def of_one(trial: Trial, chosen: Sequence[Tried], show: bool) -> Iterator[tuple[Tried, str]]:
    """The mutants of a trial's kernel, with how each is found."""
    wanted = trial.left("numpy")
    variable, refused = put_in_force(trial, chosen)
    if status(trial, wanted) != SAME:
        raise RuntimeError(f"{trial.name} differs without a mutant")
    for number, each in enumerate(chosen, 1):
        begun = time.monotonic()
        found = REFUSED if number in refused else in_child(trial, wanted, variable, number)
        if show:
            print(f"{found:11} {time.monotonic() - begun:6.2f} s {each.name}", flush=True)
        yield each, found


def results(all_of_them: Sequence[Tried], show: bool = False) -> Iterator[tuple[Tried, str]]:
    """The mutants, with how each is found; those of one trial follow one another."""
    for trial, chosen in groupby(all_of_them, key=lambda each: each.trial):
        yield from of_one(trial, [*chosen], show)


# ---- those that are no slips ----


class Reasons(NamedTuple):
    compilers: str
    reasons: dict[str, str]
    """The reason for which a mutant is no slip, by its name."""


def reasons() -> Reasons:
    known, found, reason = "", {}, ""
    for line in REASONS.read_text("utf-8").splitlines():
        if line.startswith("Compilers: "):
            known = line.removeprefix("Compilers: ")
        elif line and not line.startswith((" ", "#")):
            reason = line
        elif line.startswith(" "):
            found[line.strip()] = reason
    return Reasons(known, found)


def sample(all_of_them: Sequence[Tried], count: int, seed: int) -> list[Tried]:
    """So many mutants at random, of each family as many, in the order of their trials."""
    chooser = random.Random(seed)
    chosen: list[Tried] = []
    rest = {x: [each for each in all_of_them if each.family == x] for x in FAMILIES}
    while len(chosen) < count and any(rest.values()):
        for family in filter(rest.__getitem__, rest):
            some = rest[family]
            chosen.append(some.pop(chooser.randrange(len(some))))
    order = {trial.name: at for at, trial in enumerate(TRIALS)}
    return sorted(chosen[:count], key=lambda each: order[each.trial.name])


def table(counted: Counter[tuple[str, str]]) -> Iterator[str]:
    """How many mutants of each family were found, and how."""
    columns = (COMPARED, CHECKED, RAISED, REFUSED, "signal", SAME)
    yield f"{'':14}{'made':>6}" + "".join(f"{column:>12}" for column in columns)
    for family in (*FAMILIES, "all"):
        counts: Counter[str] = Counter()
        for (name, found), count in counted.items():
            if family in (name, "all"):
                counts["signal" if found.startswith("signal") else found] += count
        if total := sum(counts.values()):
            yield f"{family:14}{total:6}" + "".join(f"{counts[x]:12}" for x in columns)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kernel", action="append", help="a part of a kernel's name")
    parser.add_argument("--family", default="", help="the name of a family")
    parser.add_argument("--sample", type=int, help="try so many, of all families")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--print", action="store_true", help="print each mutant")
    parser.add_argument("--races", action="store_true", help="check for races, which is slower")
    arguments = parser.parse_args()
    chosen = [
        each
        for trial in TRIALS
        if not arguments.kernel or any(part in trial.name for part in arguments.kernel)
        for each in of_trial(trial)
        if arguments.family in ("", each.family)
    ]
    if arguments.sample is not None:
        chosen = sample(chosen, arguments.sample, arguments.seed)
    known = reasons()
    exact = known.compilers == compilers()
    DRIVER.checks(arguments.races)
    begun = time.monotonic()
    counted: Counter[tuple[str, str]] = Counter()
    gaps, listed_and_found = [], []
    for each, found in results(chosen, arguments.print):
        counted[each.family, found] += 1
        if found == SAME and each.name not in known.reasons:
            gaps.append(each.name)
        if found != SAME and each.name in known.reasons:
            listed_and_found.append(each.name)
    print(*table(counted), sep="\n")
    print(f"{time.monotonic() - begun:.0f} seconds")
    if not exact:
        print(f"the list is of {known.compilers}; here is {compilers()}")
        families = {family for family, _ in counted}
        found_in = {family for (family, found), count in counted.items() if found != SAME}
        gaps, listed_and_found = sorted(families - found_in), []
    print(*(f"NOT FOUND: {name}" for name in gaps), sep="\n")
    print(*(f"FOUND, BUT LISTED: {name}" for name in listed_and_found), sep="\n")
    return 1 if gaps or listed_and_found else 0


if __name__ == "__main__":
    sys.exit(main())
