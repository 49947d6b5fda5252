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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from threading import Thread
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
from cases import (
    CASES,
    CUSTOM_CASES,
    CUSTOM_WHOLE_CASES,
    WHOLE_CASES,
    Case,
    differing_bits,
)
from random_arrays import (
    Array,
    Blueprint,
    Watched,
    random_blueprint,
    random_dtype,
    random_shape,
    random_values,
)

import fusedstep as fs
from fusedstep._core.declaration import declaration_of

ISAS = fs.info().isas

# ---- values that hyperparameters and requests take ----


@dataclass(frozen=True)
class Falling:
    """A learning rate of the user's own."""

    lr: float

    def __call__(self, t: int) -> float:
        return self.lr / t


@dataclass(frozen=True)
class Failing(Falling):
    """One that fails at some steps."""

    def __call__(self, t: int) -> float:
        if t % 3 == 0:
            raise ArithmeticError(f"no rate at t={t}")
        return self.lr if t % 3 == 1 else -self.lr


RATES: list[Any] = [
    *(0.0, 1e-3, 0.1, 3.0),
    *(fs.schedules.cosine(0.1, steps=5), fs.schedules.constant(0.05)),
    *(Falling(0.5), Failing(0.1)),
]

HYPERPARAMETERS: dict[str, list[Any]] = {
    "lr": [*RATES, -1.0, float("nan"), "fast"],
    "momentum": [0.0, 0.5, 0.9, -0.5],
    "dampening": [0.0, 0.3],
    "nesterov": [False, True, None],
    "lr_in_momentum": [False, True],
    "weight_decay": [0.0, 0.1, -0.1],
    "maximize": [False, True, "no"],
    "l1": [0.0, 0.02],
    "ema": [None, 0.9, 0.5, 1.5],
    "betas": [(0.9, 0.999), (0.8, 0.9), (0.0, 0.0), (0.9, 1.0), 0.9],
    "eps": [0.0, 1e-8, 1e-3],
    "amsgrad": [False, True],
    "eps_inside_sqrt": [False, True],
    "eps_uncorrected": [False, True],
    "bias_correction": [False, True],
    "decay_scale": ["lr", "schedule", "time"],
    "initial_lr": [0.1, None, 0.0],
    "alpha": [0.99, 0.5, 0.0],
    "centered": [False, True],
    "lr_decay": [0.0, 0.1],
    "initial_accumulator_value": [0.0, 0.1],
    "decoupled_weight_decay": [False, True],
    "momentum_decay": [0.0, 0.5],
    "no_prox": [False, True],
    "no_such": [1.0],
}
"""Values of hyperparameters, some of which are refused."""

REQUESTS: dict[str, list[Any]] = {
    "scale": [1.0, 0.3, 3.0, 7.0, 2.0**16, 1e-30, 1e30, 0.0],
    "max_norm": [None, None, 0.0, 1e-3, 0.3, 2.5, float("inf"), -1.0],
    "max_value": [None, 0.0, 0.7, float("inf")],
    "zero_grads": [False, True, True],
}


class Subclass(np.ndarray[Any, Any]):
    """A class that a user has derived from NumPy's arrays."""


# ---- structures: parameters stand in one as a number each ----

Template: TypeAlias = Any


def random_template(random: Random, n: int) -> Template:
    """The numbers from 0 to n - 1 in a sequence or a mapping, perhaps nested; alone, 0 itself."""
    if n == 1 and random.random() < 0.5:
        return 0
    names = [f"p{index}" for index in range(n)]
    half = n // 2
    return random.choice(
        [
            [*range(n)],
            tuple(range(n)),
            dict(zip(names, range(n), strict=True)),
            [[*range(half)], {"rest": [*range(half, n)]}] if half else [*range(n)],
        ]
    )


def fill(template: Template, leaves: Any) -> Any:
    """The structure with leaves in place of their numbers."""
    if isinstance(template, int):
        return leaves[template]
    if isinstance(template, dict):
        return {key: fill(item, leaves) for key, item in template.items()}
    return type(template)(fill(item, leaves) for item in template)


def read(template: Template, structure: Any) -> Iterator[Any]:
    """The leaves of a structure, in the order of their numbers."""
    if isinstance(template, int):
        yield structure
    else:
        items = template.items() if isinstance(template, dict) else enumerate(template)
        for key, item in items:
            yield from read(item, structure[key])


# ---- a program on one backend ----


class Side:
    """A program on one backend: its optimizer, its arrays, and what it has saved."""

    def __init__(
        self,
        program: Program,
        backend: str,
        case: Case,
        options: dict[str, Any],
    ) -> None:
        self.program = program
        self.backend = backend
        self.watched = [blueprint.make() for blueprint in program.blueprints]
        self.grads: list[Any] = [None] * len(self.watched)
        """The gradients of the last step."""
        self.saved: list[tuple[Any, Any]] = []
        """State dicts, each with a copy of it that nobody else knows."""
        params = [watched.view for watched in self.watched]
        given: Any = fill(program.template, params)
        if program.groups:
            given = [
                {"params": each, **own} for each, own in zip(given, program.groups, strict=True)
            ]
        self.take_up(
            case.optimizer(fs.Arena(given) if program.arena else given, backend=backend, **options)
        )

    def take_up(self, optimizer: Any) -> None:
        """Go on with another optimizer."""
        self.optimizer = optimizer
        if optimizer.arena is None:
            groups = optimizer.param_groups
            self.params: list[Array] = [p for group in groups for p in group["params"]]
        else:
            self.params = [*read(self.program.template, optimizer.arena.params)]
            self.grads = [*read(self.program.template, optimizer.arena.grads)]

    def states(self) -> list[dict[str, Any]]:
        return [dict(state) for state in read(self.program.template, self.optimizer.state)]

    def seen(self) -> dict[str, Any]:
        """A copy of all that an operation may change, or must not."""
        return copy.deepcopy(
            {
                "p": self.params,
                "grads": self.grads,
                "state": self.states(),
                "groups": [
                    {name: value for name, value in group.items() if name != "params"}
                    for group in self.optimizer.param_groups
                ],
            }
        )

    def step(self, request: dict[str, Any], grads: list[Any] | None = None) -> Any:
        if self.optimizer.arena is not None and grads is None:
            return self.optimizer.step(**request)
        grads = self.grads if grads is None else grads
        return self.optimizer.step(fill(self.program.template, grads), **request)


def difference(one: Any, other: Any, where: str = "") -> str | None:
    """The first place where two structures differ by a bit; NaN is equal to NaN."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return f"{where}: {one.dtype} {one.shape}, {other.dtype} {other.shape}"
        n = differing_bits(np.asarray(one), np.asarray(other)) if one.dtype.kind == "f" else 0
        return f"{where}: {n} of {one.size} elements" if n else None
    if type(one) is not type(other):
        return f"{where}: {one!r}, {other!r}"
    if isinstance(one, dict):
        if [*one] != [*other]:
            return f"{where}: the keys {[*one]}, {[*other]}"
        pairs: Iterable[Any] = ((key, one[key], other[key]) for key in one)
    elif isinstance(one, (list, tuple)) and len(one) == len(other):
        pairs = ((index, *pair) for index, pair in enumerate(zip(one, other, strict=True)))
    else:
        return (
            None
            if one == other or (one != one and other != other)
            else f"{where}: {one!r}, {other!r}"
        )
    found = (difference(a, b, f"{where}[{key!r}]") for key, a, b in pairs)
    return next(filter(None, found), None)


class Refusal(NamedTuple):
    """An error that an action raised."""

    error: str
    text: str


def attempt(action: Callable[[Any], Any], argument: Any) -> Any:
    """Do it, and give what it returns, or the refusal."""
    try:
        return action(argument)
    except Exception as error:
        return Refusal(type(error).__name__, str(error))


def in_a_thread(action: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The action, done by another thread while this one waits."""

    def act(argument: Any) -> Any:
        outcomes: list[Any] = []
        thread = Thread(target=lambda: outcomes.append(attempt(action, argument)))
        thread.start()
        thread.join()
        return outcomes[0]

    return act


def without_new_state(now: dict[str, Any], was: dict[str, Any]) -> dict[str, Any]:
    """The state of now, without arrays that were not there before.

    Also a step that is refused makes room for the state that hyperparameters call for which
    were assigned before it.
    """
    pairs = zip(now["state"], was["state"], strict=True)
    return {**now, "state": [{name: state[name] for name in old} for state, old in pairs]}


# ---- a program ----

OPERATIONS: list[Callable[[Program], None]] = []
"""All operations, each as often as its weight says."""


def operation(weight: int) -> Callable[[Callable[[Program], None]], Callable[[Program], None]]:
    def add(method: Callable[[Program], None]) -> Callable[[Program], None]:
        OPERATIONS.extend([method] * weight)
        return method

    return add


class Program:
    """The program of a seed. `lines` tell what has been done."""

    def __init__(self, seed: int, backend: str) -> None:
        self.seed = seed
        self.backend = backend
        self.random = Random(seed)
        self.lines: list[str] = []
        self.done: Counter[str] = Counter()
        self.blueprints: list[Blueprint] = []

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

    def start(self) -> bool:
        """Make the optimizer on both sides, unless its arguments do not go together."""
        random = self.random
        cases = [*CASES, *WHOLE_CASES]
        if self.backend != "c" and random.random() < 0.3:
            cases = [*CUSTOM_CASES, *CUSTOM_WHOLE_CASES]
        case = random.choice(cases)
        options = {"lr": random.choice(RATES), **case.options}
        if random.random() < 0.5:
            options["nonfinite"] = random.choice(["propagate", "skip", "raise"])
        n = random.choice([1, 1, 2, 3, 4, 6, 20])
        large = random.randrange(n) if random.random() < 0.1 else -1
        dtype = random_dtype(random) if random.random() < 0.5 else None
        for index in range(n):
            shape = random_shape(random, index == large)
            values = random_values(random, shape, dtype or random_dtype(random), "ordinary")
            self.blueprints.append(random_blueprint(random, values))
        self.template = random_template(random, n)
        self.groups: list[dict[str, Any]] = []
        if random.random() < 0.3:
            half = n // 2
            parts = [[*range(half)], [*range(half, n)]] if half else [[*range(n)]]
            self.template = parts
            self.groups = [self.assignments(case.optimizer, legal=True) for _ in parts]
        self.arena = random.random() < 0.25
        self.lines.append(f"{case.name}: {case.optimizer.__name__}(params, **{options})")
        self.lines.append(f"params: {self.template} of {self.blueprints}, arena={self.arena}")
        if self.groups:
            self.lines.append(f"groups: {self.groups}")
        sides = [
            attempt(lambda backend: Side(self, backend, case, options), backend)
            for backend in (self.backend, "numpy")
        ]
        if not all(isinstance(side, Side) for side in sides):
            self.same(sides[0], sides[1], "refused at first")
            self.done["start, refused"] += 1
            return False
        self.sides: list[Side] = sides
        self.same(sides[0].seen(), sides[1].seen(), "at first")
        return True

    def assignments(self, optimizer: Any, legal: bool = False) -> dict[str, Any]:
        """One or two hyperparameters with new values."""
        names = [*declaration_of(optimizer).defaults] + ([] if legal else ["no_such"])
        chosen = self.random.sample(names, self.random.randint(1, 2))
        if legal:
            chosen = [name for name in chosen if name in ("lr", "weight_decay", "eps", "ema", "l1")]
        return {
            name: self.random.choice(HYPERPARAMETERS[name][: 2 if legal else None])
            for name in chosen
        }

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

    def request(self) -> dict[str, Any]:
        random = self.random
        if random.random() < 0.4:
            return {}
        return {
            name: random.choice(values)
            for name, values in REQUESTS.items()
            if random.random() < 0.5
        }

    @operation(16)
    def step(self) -> None:
        request = self.request()
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
            values = self.values(index, kind)
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
        request = self.request()

        def step(side: Side) -> Any:
            letters = [letter for letter in side.states()[index] if letter != "t"]
            bad: Any = {
                "its parameter": side.params[index],
                "another parameter": side.params[other],
                "state": side.states()[index][letters[-1]] if letters else 0,
                "dtype": np.ones(like.shape, "f8" if like.dtype == "f4" else "f4"),
                "shape": np.ones((*like.shape, 2), like.dtype),
                "bytes": np.ones(like.shape, like.dtype.newbyteorder()),
                "list": [0.0] * like.size,
                "masked": np.ma.masked_array(np.ones(like.shape, like.dtype), False),
                "number": 1.0,
                "structure": 1.0,
            }[kind]
            grads = [np.ones_like(p) for p in side.params]
            grads[index] = bad
            return side.step(request, grads if kind != "structure" else [*grads, *grads][1:])

        if kind == "structure" and isinstance(self.template, int):
            return
        if empty and (self.arena or kind in ("its parameter", "another parameter", "state")):
            return  # no byte of it lies anywhere
        done, _ = self.both(f"bad_step({kind} at {index}, **{request})", step)
        if done and kind != "structure":
            self.fail("a bad gradient was accepted")

    @operation(2)
    def set_lr(self) -> None:
        lr = self.random.choice(HYPERPARAMETERS["lr"])
        self.both(f"set_lr({lr})", lambda side: setattr(side.optimizer, "lr", lr))

    @operation(4)
    def assign(self) -> None:
        index = self.random.randrange(len(self.sides[0].optimizer.param_groups))
        values = self.assignments(type(self.sides[0].optimizer))
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
                for now, saved in zip(side.states(), expected, strict=True):
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
