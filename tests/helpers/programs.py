"""Random programs: an optimizer, and all that one may do with it, on a backend and the reference.

    python tests/helpers/programs.py --seeds 0:2000
    python tests/helpers/programs.py --seeds 17 --backend numba --print

Each seed makes one program, whose every operation is done twice: by the backend and by the
NumPy backend, on copies. After each of them all must be the same to the bit: parameters, every
state array, t, hyperparameters, gradients, the report or the error; and the bytes around the
arrays must be as before. What is refused must have changed nothing.
"""

from __future__ import annotations

import argparse
import copy
import gc
import pickle
import sys
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from threading import Event, Thread
from typing import Any, NoReturn

import numpy as np
from cases import CASES, CUSTOM_CASES, CUSTOM_WHOLE_CASES, WHOLE_CASES
from random_arrays import (
    Array,
    Watched,
    random_blueprint,
    random_dtype,
    random_shape,
    random_values,
)
from random_options import (
    HYPERPARAMETERS,
    RATES,
    random_assignments,
    random_differences,
    random_keeping,
    random_request,
)
from sides import (
    Refusal,
    Setup,
    Side,
    attempt,
    difference,
    fill,
    in_a_thread,
    random_template,
    read,
    without_new_state,
)

import fusedstep as fs

ISAS = fs.info().isas

OPERATIONS: list[Callable[[Program], None]] = []
"""All operations, each as often as its weight says."""


def operation(weight: int) -> Callable[[Callable[[Program], None]], Callable[[Program], None]]:
    def add(method: Callable[[Program], None]) -> Callable[[Program], None]:
        OPERATIONS.extend([method] * weight)
        return method

    return add


class Subclass(np.ndarray[Any, Any]):
    """A class that a user has derived from NumPy's arrays."""


class Program:
    """The program of a seed. `lines` tell what has been done."""

    def __init__(self, seed: int, backend: str) -> None:
        self.seed = seed
        self.backend = backend
        self.random = Random(seed)
        self.lines: list[str] = []
        self.done: Counter[str] = Counter()

    def run(self) -> Counter[str]:
        """Run it, and return how often each operation was done, or refused."""
        before = fs.get_num_threads(), fs.get_isa() if ISAS else None
        try:
            self.choose_threads()
            if self.start():
                for _ in range(self.random.randint(5, 40)):
                    self.random.choice(OPERATIONS)(self)
        except Exception as error:
            told = "\n".join(self.lines)
            raise AssertionError(
                f"{error}\n{told}\nagain: python tests/helpers/programs.py "
                f"--seeds {self.seed} --backend {self.backend}"
            ) from error
        finally:
            fs.set_num_threads(before[0])
            if before[1] is not None:
                fs.set_isa(before[1])
        return self.done

    def setup(self) -> Setup:
        random = self.random
        cases = [*CASES, *WHOLE_CASES]
        if self.backend != "c" and random.random() < 0.3:
            cases = [*CUSTOM_CASES, *CUSTOM_WHOLE_CASES]
        case = random.choice(cases)
        options = {"lr": random.choice(RATES), **case.options}
        if random.random() < 0.5:
            options["nonfinite"] = random.choice(["propagate", "skip", "raise"])
        options |= random_keeping(random)
        n = random.choice([1, 1, 2, 3, 4, 6, 20])
        large = random.randrange(n) if random.random() < 0.1 else -1
        dtype = random_dtype(random) if random.random() < 0.7 else None
        blueprints = []
        for index in range(n):
            shape = random_shape(random, index == large)
            values = random_values(random, shape, dtype or random_dtype(random), "ordinary")
            blueprints.append(random_blueprint(random, values))
        template, groups = random_template(random, n), []
        if random.random() < 0.3:
            half = n // 2
            template = [[*range(half)], [*range(half, n)]] if half else [[*range(n)]]
            groups = [random_differences(random) for _ in template]
        return Setup(case, options, blueprints, template, groups, random.random() < 0.25)

    def start(self) -> bool:
        """Make the optimizer on both sides, unless its arguments do not go together."""
        setup = self.setup()
        self.blueprints, self.template, self.arena = setup.blueprints, setup.template, setup.arena
        self.lines.append(str(setup))
        sides = [
            attempt(lambda backend: Side(setup, backend), backend)
            for backend in (self.backend, "numpy")
        ]
        if not all(isinstance(side, Side) for side in sides):
            self.same(sides[0], sides[1], "refused at first")
            self.done["start, refused"] += 1
            return False
        self.sides: list[Side] = sides
        self.same(sides[0].seen(), sides[1].seen(), "at first")
        return True

    # ---- what must hold ----

    def fail(self, found: str) -> NoReturn:
        raise AssertionError(f"seed {self.seed}, {self.backend}: {found}")

    def same(self, one: Any, other: Any, what: str) -> None:
        """Fail if two structures differ by a bit."""
        found = difference(one, other, what)
        if found is not None:
            self.fail(found)

    def both(
        self, line: str, action: Callable[[Side], Any], threaded: bool = False
    ) -> tuple[bool, list[dict[str, Any]]]:
        """Do it on both sides; returns whether it was done, not refused, and what was before."""
        name = line.partition("(")[0]
        self.lines.append(line)
        before = [side.seen() for side in self.sides]
        act = in_a_thread(action) if threaded else action
        outcomes = [attempt(act, side) for side in self.sides]
        after = [side.seen() for side in self.sides]
        self.same(outcomes[0], outcomes[1], "outcome")
        refused = isinstance(outcomes[0], Refusal)
        if refused:
            self.lines[-1] += f"   # {outcomes[0].error}: {outcomes[0].text:.100}"
            for was, now in zip(before, after, strict=True):
                self.same(was, without_new_state(now, was), "refused, and yet changed")
        self.same(after[0], after[1], "")
        for side in self.sides:
            for index, watched in enumerate(side.watched):
                if not watched.untouched:
                    self.fail(f"{side.backend} wrote beside params {index}")
        self.done[f"{name}, refused" if refused else name] += 1
        return not refused, before

    def kept(self, before: list[dict[str, Any]], *names: str) -> None:
        """Fail if parts of what was seen before are not the same now."""
        for side, was in zip(self.sides, before, strict=True):
            now = side.seen()
            for name in names:
                self.same(was[name], now[name], f"to be kept: {name}")

    # ---- operations ----

    @operation(16)
    def step(self) -> None:
        request = random_request(self.random)
        kind = self.random.choice(["ordinary", "ordinary", "difficult", "finite"])
        watched: list[list[Watched]] = [[], []]
        fresh = self.random.random() < 0.6 or all(g is None for g in self.sides[0].grads)
        if self.arena:
            told = f"arena.grads[...] = {kind}"
            for index in range(len(self.blueprints)):
                values = self.values(index, kind)
                for side in self.sides:
                    side.grads[index][...] = values
        elif fresh:
            told = f"new {kind} gradients " + self.new_gradients(kind, watched)
        else:
            told = "the same gradients"
        threaded = self.random.random() < 0.1
        line = f"step({told}, **{request}){' in a thread' if threaded else ''}"
        done, before = self.both(line, lambda side: side.step(request), threaded)
        for side, was in zip(self.sides, before, strict=True):
            expected = [
                np.zeros_like(g) if done and request.get("zero_grads") and g is not None else g
                for g in was["grads"]
            ]
            self.same(side.grads, expected, "gradients")
        for around in (*watched[0], *watched[1]):
            if not around.untouched:
                self.fail("a step wrote beside a gradient")

    def values(self, index: int, kind: str) -> Array:
        like = self.blueprints[index].values
        return random_values(self.random, like.shape, like.dtype, kind)

    def gradient(self, index: int, kind: str) -> Array:
        """Values for the gradient of a parameter: now and then of another dtype than that is."""
        like = self.blueprints[index].values
        others = [np.float16, np.float32] if like.dtype != np.float64 else [np.float64]
        dtype = self.random.choice(others) if self.random.random() < 0.2 else like.dtype
        return random_values(self.random, like.shape, dtype, kind)

    def new_gradients(self, kind: str, watched: list[list[Watched]]) -> str:
        """Give both sides gradients of random layouts, and return how they lie."""
        random, told = self.random, []
        for index, own in enumerate(self.blueprints):
            form = random.choice(["as p", "as p", "any", "any", "broadcast", "None"])
            form += random.choice(["", "", "", " read-only", " subclass"])
            told.append(form)
            if form.startswith("None"):
                for side in self.sides:
                    side.grads[index] = None
                continue
            values = self.gradient(index, kind)
            blueprint = own.with_values(values)
            if form.startswith("any"):
                blueprint = random_blueprint(random, values, plain=0.2)
            if form.startswith("broadcast"):
                first = values[tuple(slice(0, 1) for _ in values.shape)]
                blueprint = random_blueprint(random, first)
            for side, around in zip(self.sides, watched, strict=True):
                made = blueprint.make()
                around.append(made)
                g = np.broadcast_to(made.view, values.shape) if "broadcast" in form else made.view
                if "read-only" in form:
                    g.flags.writeable = False
                side.grads[index] = g.view(Subclass) if "subclass" in form else g
        return f"[{', '.join(told)}]"

    @operation(4)
    def bad_step(self) -> None:
        """A gradient that has to be refused."""
        n = len(self.blueprints)
        index, other = self.random.randrange(n), self.random.randrange(n)
        like = self.blueprints[index].values
        kind = self.random.choice(
            [
                *("its parameter", "another parameter", "state", "dtype", "shape", "bytes"),
                *("list", "masked", "number", "structure"),
            ]
        )
        empty = like.size == 0
        if kind == "state" and self.shows_copies_of_state(index):
            kind = "its parameter"
        request = random_request(self.random)

        def step(side: Side) -> Any:
            letters = [letter for letter in side.states()[index] if letter != "t"]
            bad: Any = {
                "its parameter": side.params[index],
                "another parameter": side.params[other],
                "state": side.states()[index][letters[-1]] if letters else 0,
                "dtype": np.ones(like.shape, "f4" if like.dtype == "f8" else "f8"),
                "shape": np.ones((*like.shape, 2), like.dtype),
                "bytes": np.ones(like.shape, like.dtype.newbyteorder()),
                "list": [0.0] * like.size,
                "masked": np.ma.masked_array(np.ones(like.shape, like.dtype), False),
                "number": 1.0,
                "structure": {"of its own": like},
            }[kind]
            grads = [np.ones_like(p) for p in side.params]
            grads[index] = bad
            return side.step(request, grads)

        if empty and (self.arena or kind in ("its parameter", "another parameter", "state")):
            return  # no byte of it lies anywhere
        if self.both(f"bad_step({kind} at {index}, **{request})", step)[0]:
            self.fail("a bad gradient was accepted")

    def shows_copies_of_state(self, index: int) -> bool:
        """Whether state is looked up as a copy, which may be a gradient: kept in fewer bytes."""
        one, other = (self.sides[0].states()[index] for _ in range(2))
        arrays = [(one[letter], other[letter]) for letter in one if letter != "t"]
        return any(a.size and not np.shares_memory(a, b) for a, b in arrays[-1:])

    @operation(2)
    def set_lr(self) -> None:
        lr = self.random.choice(HYPERPARAMETERS["lr"])
        self.both(f"set_lr({lr})", lambda side: setattr(side.optimizer, "lr", lr))

    @operation(4)
    def assign(self) -> None:
        index = self.random.randrange(len(self.sides[0].optimizer.param_groups))
        values = random_assignments(self.random, type(self.sides[0].optimizer))
        _, before = self.both(
            f"assign(group {index}, {values})",
            lambda side: side.optimizer.param_groups[index].update(values),
        )
        self.kept(before, "p", "state", "grads")

    @operation(2)
    def save(self) -> None:
        def save(side: Side) -> Any:
            saved = side.optimizer.state_dict()
            side.saved = [*side.saved[-2:], (saved, pickle.loads(pickle.dumps(saved)))]
            return saved

        _, before = self.both("save()", save)
        self.kept(before, "p", "grads")

    @operation(2)
    def load(self) -> None:
        """One's own state or the other side's, whole or damaged."""
        side = self.sides[0]
        if not side.saved:
            return
        which = self.random.randrange(len(side.saved))
        crossed, damaged = self.random.random() < 0.3, self.random.random() < 0.3
        given = {id(side): other for side, other in zip(self.sides, self.sides[::-1], strict=True)}

        def load(side: Side) -> None:
            saved, expected = (given[id(side)] if crossed else side).saved[which]
            self.same(saved, expected, "saved")
            if damaged:
                saved = copy.copy(saved)
                states = [*read(self.template, saved["state"])]
                saved["state"] = fill(self.template, [*states[:-1], {}])
            side.optimizer.load_state_dict(saved)

        done, before = self.both(f"load({which}, {crossed=}, {damaged=})", load)
        if done and damaged:
            self.fail("a damaged state dict was accepted")
        if done:
            states = [[*read(self.template, side.saved[which][1]["state"])] for side in self.sides]
            for side, expected in zip(self.sides, states, strict=True):
                for now, saved in zip(side.saved_states(), expected, strict=True):
                    self.same({name: now.get(name) for name in saved}, saved, "loaded")
        self.kept(before, "p", "grads")

    @operation(1)
    def copy(self) -> None:
        """A copy goes on in the optimizer's place, which is dropped."""
        pickled = self.random.random() < 0.5

        def take_copy(side: Side) -> None:
            side.grads = [None if g is None else np.array(g) for g in side.grads]
            if pickled:
                other = pickle.loads(pickle.dumps(side.optimizer))
            else:
                other = copy.deepcopy(side.optimizer)
            grads = side.grads
            side.take_up(other)
            if self.arena:
                self.same(side.grads, grads, "the arena's gradients")

        _, before = self.both(f"copy({pickled=})", take_copy)
        self.kept(before, "p", "state", "groups")

    @operation(2)
    def look_ahead(self) -> None:
        """The parameters ahead, and back by themselves or by an error."""
        if not isinstance(self.sides[0].optimizer, fs.SGD):
            return
        fails = self.random.random() < 0.3

        def look(side: Side) -> Any:
            with side.optimizer.lookahead():
                ahead = copy.deepcopy(side.params)
                inside = attempt(lambda side: side.step({}), side)
                if fails:
                    raise ArithmeticError("the user's own")
            return [ahead, inside]

        _, before = self.both(f"look_ahead({fails=})", look)
        self.kept(before, "p", "grads", "groups")

    @operation(2)
    def write(self) -> None:
        """New values for a parameter or a state array, in place."""
        index = self.random.randrange(len(self.blueprints))
        letters = [*self.sides[0].states()[index]]
        letter = self.random.choice(["p", *letters])
        values = self.values(index, self.random.choice(["ordinary", "difficult"]))

        def write(side: Side) -> None:
            if letter == "p":
                side.params[index][...] = values
            elif letter != "t":
                side.states()[index][letter][...] = values

        self.both(f"write({letter} of {index})", write)

    @operation(1)
    def collect(self) -> None:
        """The gradients are dropped, and others get their memory."""
        if self.arena:
            return
        sizes = [(blueprint.values.shape, blueprint.values.dtype) for blueprint in self.blueprints]

        def drop(side: Side) -> None:
            side.grads = [None] * len(sizes)
            gc.collect()
            for _ in range(3):
                for shape, dtype in sizes:
                    np.full(shape, np.nan, dtype)

        self.both("collect()", drop)

    @operation(1)
    def meddle(self) -> None:
        """A learning rate's function does what it should not while a step is under way."""
        if self.arena or all(g is None for g in self.sides[0].grads):
            return
        how = self.random.choice(["steps", "shrinks", "writes", "collects"])

        def step(side: Side) -> Any:
            grads = [None if g is None else np.array(g) for g in side.grads]

            def rate(t: int) -> float:
                for g in grads:
                    if g is not None and how == "shrinks":
                        g.resize(0, refcheck=False)
                    if g is not None and how == "writes":
                        g[...] = 1
                if how == "steps":
                    side.step({}, grads)
                gc.collect()
                return 0.1

            group = side.optimizer.param_groups[0]
            before = group["lr"]
            group["lr"] = rate
            try:
                return side.step({}, grads)
            finally:
                group["lr"] = before

        self.both(f"meddle({how})", step)

    @operation(1)
    def freeze(self) -> None:
        """A step over a parameter that was made read-only is refused."""
        index = self.random.randrange(len(self.blueprints))
        if self.arena or self.blueprints[index].values.size == 0:
            return
        kept = self.sides[0].grads[index] is not None

        def step(side: Side) -> Any:
            flags = side.params[index].flags
            flags.writeable = False
            try:
                return side.step({}, None if kept else [np.ones_like(p) for p in side.params])
            finally:
                flags.writeable = True

        if self.both(f"freeze({index}, {kept=})", step)[0]:
            self.fail("a read-only parameter was written")

    @operation(1)
    def step_beside(self) -> None:
        """Two threads step at the same time, each an optimizer of its own."""
        if all(g is None for g in self.sides[0].grads):
            return
        n = self.random.choice([65, 40_009])
        data = self.random.getrandbits(63)

        def beside(side: Side) -> Any:
            p, g = np.random.default_rng(data).standard_normal((2, n))
            other = fs.Adam(p, backend=side.backend)
            outcomes: list[Any] = []
            thread = Thread(target=lambda: outcomes.extend(other.step(g) for _ in range(3)))
            thread.start()
            reports = [attempt(lambda side: side.step({}), side) for _ in range(3)]
            thread.join()
            return [p, outcomes, reports]

        self.both(f"step_beside({n})", beside)

    @operation(1)
    def save_beside(self) -> None:
        """Another thread copies the state while steps go on: each copy is that of some step."""
        if all(g is None for g in self.sides[0].grads):
            return

        def save(side: Side) -> Any:
            side.optimizer.state_dict()  # makes room for what assigned hyperparameters call for
            copies: list[Any] = []
            over = Event()

            def go_on_saving() -> None:
                while not over.is_set():
                    copies.append(side.optimizer.state_dict()["state"])
                    time.sleep(1e-4)

            thread = Thread(target=go_on_saving)
            thread.start()
            states, reports = [side.saved_states()], []
            for _ in range(3):
                reports.append(attempt(lambda side: side.step({}), side))
                states.append(side.saved_states())
            over.set()
            thread.join()
            for each in copies:
                found = [*read(self.template, each)]
                if all(difference(found, state) for state in states):
                    raise AssertionError("a copy of the state is that of no step")
            return reports

        self.both("save_beside()", save)

    @operation(2)
    def choose_threads(self) -> None:
        threads = self.random.choice([1, 2, 3, 7])
        isa = self.random.choice(ISAS) if ISAS else None
        self.lines.append(f"threads({threads}, {isa})")
        fs.set_num_threads(threads)
        if isa is not None:
            fs.set_isa(isa)


# ---- the command ----


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", default="0:100", help="a number, or the first and past the last")
    parser.add_argument("--backend", default="c", choices=["c", "numba", "numpy"])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--print", action="store_true", help="print each program")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition(":")
    seeds = range(int(first), int(last) if last else int(first) + 1)
    done: Counter[str] = Counter()
    failed: list[int] = []
    programs, end = 0, time.monotonic() + arguments.seconds
    for seed in seeds:
        if time.monotonic() > end:
            break
        program = Program(seed, arguments.backend)
        programs += 1
        try:
            done += program.run()
        except AssertionError as error:
            failed.append(seed)
            print(error, file=sys.stderr)
        if arguments.print:
            print(*program.lines, sep="\n")
    for name, count in sorted(done.items()):
        print(f"{count:9,} {name}")
    print(
        f"{programs:,} programs, {done.total():,} operations, {len(failed)} failed {failed or ''}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
