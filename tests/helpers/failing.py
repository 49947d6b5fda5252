"""Calls that fail in turn, whatever a step asks the system for: see failing.c.

    python tests/helpers/failing.py            all kinds of steps, and how many calls were refused
    python tests/helpers/failing.py Rows       the kinds with that in their name

A kind of step is made anew for each call of it that fails. What follows is what the backend
promises: an error that names what was refused and leaves all as it was, or no error and the step.
Either way the next steps have the bits of a run in which nothing failed.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any, NamedTuple

import numpy as np
from sides import difference

import fusedstep as fs
from fusedstep._core import in_flight

SOURCE = Path(__file__).with_suffix(".c")


def why_not() -> str | None:
    """Why calls cannot be made to fail here; None: they can."""
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return "the table of a library's addresses is read as Linux has it, of 64 bits"
    if not shutil.which("gcc"):
        return "no gcc"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "no headers of Python"
    return fs.info().backends["c"]


def load() -> ctypes.PyDLL:
    """The library of failing.c, compiled, with its functions in their places."""
    from fusedstep import _engine

    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "failing.so"
        includes = [f"-I{sysconfig.get_path('include')}", f"-I{np.get_include()}"]
        command = ["gcc", "-shared", "-fPIC", "-O1", *includes, str(SOURCE), "-o", str(built)]
        subprocess.run([*command, "-ldl", "-lpthread"], check=True)
        library = ctypes.PyDLL(str(built))
    library.attempt.restype = ctypes.py_object
    library.attempt.argtypes = [ctypes.py_object, ctypes.c_long]
    library.calls_made.restype = ctypes.c_long
    library.what_was_refused.restype = ctypes.c_char_p
    assert library.begin(str(_engine.__file__).encode())
    return library


# ---- kinds of steps ----


class World:
    """An optimizer amid its work, and the gradients of its steps."""

    steps = 2
    """How many there have been before the one that fails."""
    request: dict[str, Any] = {}  # noqa: RUF012
    fresh = False
    """Whether each call that fails needs a process of its own, in which none was made before."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(5)
        self.params = self.arrays()
        self.opt = self.optimizer()
        self.given = [self.gradients() for _ in range(self.steps + 3)]
        self.taken = 0
        for _ in range(self.steps):
            self.step()

    def normal(self, *shape: int, dtype: Any = np.float32) -> Any:
        return self.rng.standard_normal(shape).astype(dtype)

    def arrays(self) -> list[Any]:
        return [self.normal(70)]

    def optimizer(self) -> Any:
        return fs.AdamW(self.params, weight_decay=0.1, backend="c")

    def gradients(self) -> Any:
        return [self.normal(*p.shape, dtype=p.dtype) for p in self.params]

    def step(self) -> None:
        self.opt.step(self.given[self.taken], **self.request)
        self.taken += 1

    def memory(self) -> list[bytes]:
        """The parameters as they lie in memory."""
        return [p.tobytes() for p in self.params]

    def everything(self) -> Any:
        """The parameters, and all state with its t."""
        return [self.memory(), self.opt.state_dict()["state"]]


class Single(World):
    pass


class First(World):
    """A step that is laid out."""

    steps = 0


class OfAList(World):
    def arrays(self) -> list[Any]:
        return [self.normal(k, 3) for k in range(1, 9)]


class OfManyTensors(World):
    """More of them than Python has small integers."""

    def arrays(self) -> list[Any]:
        return [self.normal(2) for _ in range(300)]


class Mixed(World):
    """Both dtypes, and two groups."""

    def arrays(self) -> list[Any]:
        return [self.normal(5), self.normal(70, dtype=np.float64), self.normal(3, 4)]

    def optimizer(self) -> Any:
        groups = [{"params": self.params[:2]}, {"params": self.params[2:], "lr": 0.1}]
        return fs.Adam(groups, amsgrad=True, ema=0.9, backend="c")

    def gradients(self) -> Any:
        given = super().gradients()
        return [given[:2], given[2:]]


class OfAnArena(World):
    def optimizer(self) -> Any:
        self.arena = fs.Arena([self.normal(4, 3), {"w": self.normal(7)}])
        self.params = [self.arena.params[0], self.arena.params[1]["w"]]
        return fs.AdamW(self.arena, backend="c")

    def step(self) -> None:
        first, second = self.given[self.taken]
        self.arena.grads[0][...], self.arena.grads[1]["w"][...] = first, second
        self.taken += 1
        self.go()

    def go(self) -> None:
        self.opt.step(**self.request)


class InFlight(Mixed):
    """A step that another thread takes."""

    def step(self) -> None:
        handle: Any = self.opt.step(self.given[self.taken], wait=False, **self.request)
        while not is_over(handle):
            pass
        failure = handle._error  # noqa: SLF001  to ask for it takes memory
        self.taken += failure is None
        if failure is not None:
            raise failure


def is_over(handle: in_flight.Handle) -> bool:
    """Whether a step in flight is over, as far as there is memory to ask."""
    try:
        sleep(1e-4)
        return handle.done()
    except MemoryError:
        return False


class InFlightAtFirst(InFlight):
    """The first step in flight of a process, which starts the thread."""

    fresh = True

    def step(self) -> None:
        if self.taken < self.steps:
            World.step(self)
        else:
            super().step()


class Rows(World):
    """A step of some rows."""

    options: dict[str, Any] = {"untouched": "frozen", "row_steps": "own"}  # noqa: RUF012

    def arrays(self) -> list[Any]:
        return [self.normal(9, 20)]

    def optimizer(self) -> Any:
        return fs.Adam(self.params, backend="c", **self.options)

    def gradients(self) -> Any:
        return [fs.Rows(self.rng.integers(0, 9, 4), self.normal(4, 20))]


class SharedRows(Rows):
    options = {"untouched": "frozen", "row_steps": "shared"}  # noqa: RUF012


class ExactRows(Rows):
    options = {"untouched": "exact"}  # noqa: RUF012


class RatesByColumn(Rows):
    options = {"lr": np.linspace(0, 1e-2, 20), "untouched": "exact"}  # noqa: RUF012


class Halves(World):
    """16-bit parameters, split."""

    def arrays(self) -> list[Any]:
        return [self.normal(600, dtype=np.float16), self.normal(70, dtype=np.float16)]


class EightBits(World):
    """State in 8 bits."""

    def arrays(self) -> list[Any]:
        return [self.normal(5000)]

    def optimizer(self) -> Any:
        return fs.AdamW(self.params, state_dtype="8bit", seed=3, backend="c")


class Clipped(World):
    """A step by its norm, with the gradients zeroed."""

    request = {"max_norm": 0.5, "scale": 2.0, "zero_grads": True}  # noqa: RUF012


class ClippedEach(OfManyTensors):
    request = {"max_norm": 0.5, "clip": "tensor", "max_value": 1.0}  # noqa: RUF012


class Skipping(World):
    """A step that looks for what is not finite."""

    def optimizer(self) -> Any:
        return fs.SGD(self.params, momentum=0.9, nonfinite="skip", backend="c")


class WithGaps(World):
    """Parameters and gradients that are stepped in copies."""

    request = {"zero_grads": True}  # noqa: RUF012

    def arrays(self) -> list[Any]:
        return [self.normal(140)[::2], self.normal(9, 8)[:, ::3], self.normal(5)]

    def gradients(self) -> Any:
        return [self.normal(140)[::2], self.normal(9, 8)[:, ::3], self.normal(5)]


class Threads(World):
    """A step that three threads share, of which two are made for it."""

    steps = 1
    fresh = True

    def arrays(self) -> list[Any]:
        return [self.normal(100_000)]


class SharedAgain(Threads):
    fresh = False


class VeryFirst(First):
    """The first step of a process."""

    fresh = True


class Functional(World):
    """A step without an optimizer, aimed anew."""

    def optimizer(self) -> Any:
        self.t = 0
        self.state = [np.zeros_like(self.params[0]) for _ in range(2)]
        return None

    def step(self) -> None:
        (g,) = self.given[self.taken]
        fs.functional.adamw(self.params[0], g, *self.state, t=self.taken + 1, lr=1e-3, backend="c")
        self.taken += 1

    def everything(self) -> Any:
        return [self.memory(), self.state]


class FunctionalFirst(Functional):
    """The first step over arrays of that layout."""

    steps = 0
    fresh = True


class FunctionalWithGaps(Functional):
    def arrays(self) -> list[Any]:
        return [self.normal(140)[::2]]

    def gradients(self) -> Any:
        return [self.normal(140)[::2]]


class Scheduled(OfAList):
    def optimizer(self) -> Any:
        return fs.RMSprop(self.params, lr=lambda t: 0.1 / t, momentum=0.9, backend="c")


KINDS: list[type[World]] = [
    *(Single, First, VeryFirst, OfAList, OfManyTensors, Mixed, OfAnArena, WithGaps, Scheduled),
    *(Rows, SharedRows, ExactRows, RatesByColumn, Halves, EightBits),
    *(Clipped, ClippedEach, Skipping, Threads, SharedAgain, InFlight, InFlightAtFirst),
    *(Functional, FunctionalFirst, FunctionalWithGaps),
]


# ---- a call that fails ----


class Found(NamedTuple):
    """The end of a step of which a call failed."""

    kind: str
    call: int
    refused: str
    """The function that failed."""
    outcome: str
    """The error, "done", or the library that crashed."""
    whole: bool
    """Whether all is as before or as after the step, and the next steps are right."""


def judge(library: Any, kind: type[World], most: int = sys.maxsize) -> list[Found]:
    """A step of a kind for each call of it that is refused, in processes of their own.

    Of more than `most` calls some from all over the step are refused, and all of the last. Where
    Python or NumPy crash for want of memory, the next process goes on.
    """
    expected, number = (pickle.loads(bytes.fromhex(line[0])) for line in told_by(library, kind))
    last = range(max(0, number - LAST), number)
    chosen = sorted({*range(0, number, max(1, number // most)), *last})
    found: list[Found] = []
    while len(found) < len(chosen):
        rest = chosen[len(found) :][: 1 if kind.fresh else None]
        trying = partial(tried, library, kind, expected, rest)
        lines = in_a_child(library, trying)
        for refused, outcome, whole in lines:
            call = chosen[len(found)]
            found.append(Found(kind.__name__, call, refused, outcome, whole == "True"))
        if not lines:
            raise RuntimeError(f"{kind.__name__}: nothing was told of call {rest[0]}")
    return found


def told_by(library: Any, kind: type[World]) -> list[list[str]]:
    """Two lines: the memory before and after a step of that kind with everything after two, and
    the number of its calls.
    """
    return in_a_child(library, partial(without_failure, kind)) + in_a_child(
        library, partial(counted, library, kind)
    )


LAST = 12
"""The calls at the end of a step, some of them when all is done, that are refused in any case."""


def in_a_child(library: Any, lines: Callable[[], Iterator[Sequence[Any]]]) -> list[list[str]]:
    """The lines that a child of this process has written, whatever ended it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        library.tell_faults(writing)
        with os.fdopen(writing, "w", buffering=1) as told:
            try:
                for line in lines():
                    print(*line, sep="\t", file=told)
            except BaseException:
                traceback.print_exc()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        written = [line.rstrip("\n").split("\t") for line in told]
    os.waitpid(child, 0)
    return written


def without_failure(kind: type[World]) -> Iterator[Sequence[Any]]:
    world = kind()
    memories = []
    for _ in range(2):
        memories.append(world.memory())
        world.step()
    yield (pickle.dumps([*memories, world.everything()]).hex(),)


def counted(library: Any, kind: type[World]) -> Iterator[Sequence[Any]]:
    world = begun(kind)
    library.attempt(world.step, -1)
    yield (pickle.dumps(library.calls_made()).hex(),)


def begun(kind: type[World]) -> World:
    """An optimizer whose next step three threads share, and which finds all caches as they are
    long after the start of Python, unless the kind is to find them empty.
    """
    fs.set_num_threads(1)
    if not kind.fresh:
        kind().step()
    world = kind()
    fs.set_num_threads(3)
    return world


def tried(
    library: Any, kind: type[World], expected: Any, calls: Sequence[int]
) -> Iterator[Sequence[Any]]:
    """A line for each of these calls: what was refused, the outcome, and whether all is whole."""
    before, after, final = expected
    for call in calls:
        world = begun(kind)
        try:
            library.attempt(world.step, call)
            outcome = "done"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}".strip(": ").replace("\n", " ")
        world.taken = kind.steps + (outcome == "done")
        whole = world.memory() == (after if outcome == "done" else before)
        while world.taken < kind.steps + 2:
            world.step()
        whole = whole and difference(world.everything(), final) is None
        yield library.what_was_refused().decode() or "nothing", outcome, whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="parts of the names of kinds of steps")
    parser.add_argument("--most", type=int, default=sys.maxsize, help="calls of a kind, about")
    parser.add_argument("--lines", action="store_true", help="print a line for each call alone")
    arguments = parser.parse_args()
    reason = why_not()
    if reason is not None:
        print(f"left out: {reason}", file=sys.stderr)
        return 2
    library = load()
    found: list[Found] = []
    for kind in KINDS:
        name = kind.__name__
        if arguments.names and not any(part in name for part in arguments.names):
            continue
        of_kind = judge(library, kind, arguments.most)
        found += of_kind
        if arguments.lines:
            for each in of_kind:
                print(*each, sep="\t")
        else:
            outcomes = Counter(each.outcome.partition(":")[0] for each in of_kind)
            print(f"{len(of_kind):7,} {name}: {dict(outcomes)}")
    broken = [each for each in found if not each.whole]
    if not arguments.lines:
        print("refused:")
        for refused, number in Counter(each.refused for each in found).most_common():
            print(f"{number:7,} {refused}")
        print(*broken, sep="\n")
        print(f"{len(found):,} calls refused, {len(broken)} steps were not whole")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
