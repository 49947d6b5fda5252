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

A mutant is tried in a child of this process.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import cuda_in_memory
from cuda_in_memory import COMPILER, DRIVER, HERE
from ptx_in_c import FLAGS, translate
from ptx_mutations import FAMILIES, Mutant, mutants

cuda_in_memory.install()

from ptx_trials import TRIALS, Trial, differ  # noqa: E402  what asks for a driver

REASONS = Path(__file__).with_suffix(".txt")

LIMIT = 60
"""Seconds after which a mutant that does not end is found."""

AT_ONCE = 2
"""Mutants that are compiled at the same time."""

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
    before, after = ptx.splitlines(), [x for x in mutant.ptx.splitlines() if "%extra" not in x]
    pairs = (one for one, other in zip(before, after, strict=False) if one != other)
    return re.sub(r"(%\D+|\$L\w*?_)\d+", r"\1", " ".join(next(pairs, "").split()))


def of_trial(trial: Trial) -> list[Tried]:
    ptx = ptx_of(trial)
    return [Tried(trial, each, changed_line(ptx, each)) for each in mutants(ptx)]


def ptx_of(trial: Trial) -> str:
    return cuda_in_memory.as_ptx(trial.module(), 0)[:-1].decode()


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


class Building(NamedTuple):
    """A mutant that is being compiled; None: the translator has refused it."""

    tried: Tried
    process: subprocess.Popen[bytes] | None
    path: Path


def building(tried: Tried, folder: Path, number: int) -> Building:
    path = folder / f"{number}.so"
    try:
        text = translate(tried.mutant.ptx)
    except Exception:
        return Building(tried, None, path)
    source = path.with_suffix(".c")
    source.write_text(text)
    command = [COMPILER, *FLAGS, "-shared", "-fPIC", f"-I{HERE}", source, "-o", path, "-lm"]
    return Building(tried, subprocess.Popen([str(x) for x in command]), path)


def built(all_of_them: Sequence[Tried], folder: Path) -> Iterator[Building]:
    """The mutants, compiled some ahead of time."""
    waiting: deque[Building] = deque()
    coming = iter(enumerate(all_of_them))
    while True:
        while len(waiting) < AT_ONCE and (entry := next(coming, None)):
            waiting.append(building(entry[1], folder, entry[0]))
        if not waiting:
            return
        first = waiting.popleft()
        if first.process is not None and first.process.wait():
            raise RuntimeError(f"{first.tried.name} does not compile")
        yield first
        for suffix in (".c", ".so"):
            first.path.with_suffix(suffix).unlink(missing_ok=True)


def put_in_force(trial: Trial, path: Path) -> None:
    """Have this process launch a mutant in the kernel's place."""
    from fusedstep._backends.cuda import device

    image = str(path).encode()
    DRIVER.made[image] = path
    kernel = device.kernel(trial.module(), 0)
    kernel.function = DRIVER.load(image)


def status(trial: Trial, wanted: Sequence[Any], path: Path) -> str:
    """How a mutant is found, in this process."""
    try:
        put_in_force(trial, path)
        found = trial.left("cuda")
    except Exception:
        return CHECKED if DRIVER.message() else RAISED
    if DRIVER.message():
        return CHECKED
    return COMPARED if differ(found, wanted) else SAME


def tried(trial: Trial, wanted: Sequence[Any], path: Path) -> str:
    """How a mutant is found, in a child."""
    child = os.fork()
    if child == 0:
        signal.alarm(LIMIT)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(10 + ENDS.index(status(trial, wanted, path)))
    end = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return ENDS[end - 10] if end >= 10 else f"signal {-end}"


def results(all_of_them: Sequence[Tried], show: bool = False) -> Iterator[tuple[Tried, str]]:
    """The mutants, with how each is found; those of one trial follow one another."""
    wanted: dict[str, list[Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        for each in built(all_of_them, Path(name)):
            trial = each.tried.trial
            if trial.name not in wanted:
                wanted[trial.name] = trial.left("numpy")
                if differ(trial.left("cuda"), wanted[trial.name]):
                    raise RuntimeError(f"{trial.name} differs without a mutant")
            refused = each.process is None
            found = REFUSED if refused else tried(trial, wanted[trial.name], each.path)
            if show:
                print(f"{found:11} {each.tried.name}", flush=True)
            yield each.tried, found


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
    parser.add_argument("--kernel", default="", help="a part of a kernel's name")
    parser.add_argument("--family", default="", help="the name of a family")
    parser.add_argument("--sample", type=int, help="try so many, of all families")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--print", action="store_true", help="print each mutant")
    parser.add_argument("--races", action="store_true", help="check for races, which is slower")
    arguments = parser.parse_args()
    chosen = [
        each
        for trial in TRIALS
        if arguments.kernel in trial.name
        for each in of_trial(trial)
        if arguments.family in ("", each.family)
    ]
    whole = arguments.sample is None
    if not whole:
        chosen = sample(chosen, arguments.sample, arguments.seed)
    known = reasons()
    exact = known.compilers == compilers()
    DRIVER.checks(arguments.races)
    counted: Counter[tuple[str, str]] = Counter()
    gaps, listed_and_found = [], []
    for each, found in results(chosen, arguments.print):
        counted[each.family, found] += 1
        if found == SAME and each.name not in known.reasons:
            gaps.append(each.name)
        if found != SAME and each.name in known.reasons:
            listed_and_found.append(each.name)
    print(*table(counted), sep="\n")
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
