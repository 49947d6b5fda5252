"""Random steps by the hundred thousand: whatever is drawn, a backend has the reference's bits.

    python tests/helpers/fuzz.py --seeds 0:100000
    python tests/helpers/fuzz.py --seeds 17 --backend numba

Each seed draws a rule and its options, parameters of random layouts, alone, in a list or in an
arena, and some steps, each with what a step may be asked for. Four of five take a rule of the
package's own, on the backend and on the reference. The others take a random formula, on the NumPy
backend and as plain Python, one element after another; `--compile 50` has each fiftieth of these
compiled by Numba, too, which takes a second each. Refusals count if both sides refuse alike.

A program of `programs.py` does all that one may do with an optimizer; this one only steps, and so
comes to more of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from random import Random
from typing import Any

import numpy as np
from cases import CASES, WHOLE_CASES, differing_bits
from random_arrays import (
    Array,
    random_blueprint,
    random_dtype,
    random_shape,
    random_values,
)
from random_options import RATES, random_differences, random_keeping, random_request
from random_rules import Formula, plainly, random_formula
from sides import Refusal, Setup, Side, attempt, random_template

import fusedstep as fs
from fusedstep._core.declaration import declaration_of

ISAS = fs.info().isas


class Fuzz:
    """The counts of some seeds: steps and elements compared, and elements that differ."""

    def __init__(self, backend: str, compiled: int = 0) -> None:
        self.backend = backend
        self.compiled = compiled
        self.done: Counter[str] = Counter()
        self.differing: Counter[int] = Counter()
        """Elements that differ, by the seed."""

    def run(self, seed: int) -> None:
        random = Random(seed)
        before = fs.get_num_threads(), fs.get_isa() if ISAS else None
        try:
            fs.set_num_threads(random.choice([1, 2, 3, 7]))
            if ISAS:
                fs.set_isa(random.choice(ISAS))
            if random.random() < 0.8:
                self.own_rule(random, seed)
            else:
                self.formula(random, seed)
        finally:
            fs.set_num_threads(before[0])
            if before[1] is not None:
                fs.set_isa(before[1])
        self.done["seeds"] += 1

    def compare(self, seed: int, found: list[Array], expected: list[Array]) -> None:
        for one, other in zip(found, expected, strict=True):
            self.done["elements"] += other.size
            differ = differing_bits(np.asarray(one), np.asarray(other))
            if differ:
                self.differing[seed] += differ

    # ---- rules of the package's own ----

    def own_rule(self, random: Random, seed: int) -> None:
        setup = random_setup(random)
        sides = [
            attempt(lambda backend: Side(setup, backend), backend)
            for backend in (self.backend, "numpy")
        ]
        if not self.both(seed, sides):
            return
        for _ in range(random.randint(1, 4)):
            grads = random_gradients(random, setup)
            request = {**setup.case.request, **random_request(random)}
            reports = [attempt(step_with(grads, request), side) for side in sides]
            done = self.both(seed, reports)
            self.done["steps" if done else "refused steps"] += 1
            self.compare(seed, arrays_of(sides[0]), arrays_of(sides[1]))

    def both(self, seed: int, outcomes: list[Any]) -> bool:
        """Whether both sides have done it, or have refused it alike."""
        if isinstance(outcomes[0], Refusal) or isinstance(outcomes[1], Refusal):
            if outcomes[0] != outcomes[1]:
                raise AssertionError(f"seed {seed}, {self.backend}: {outcomes}")
            return False
        if repr(outcomes[0]) != repr(outcomes[1]) and not isinstance(outcomes[0], Side):
            raise AssertionError(f"seed {seed}, {self.backend}: {outcomes}")
        return True

    # ---- random formulas ----

    def formula(self, random: Random, seed: int) -> None:
        formula = random_formula(random)
        optimizer: Any = fs.rule(state=formula.states, **formula.hyperparameters)(formula.rule)
        dtype = random.choice([np.float32, np.float64])
        p = random_values(random, random_shape(random, False), dtype, "difficult")
        if p.size == 0:
            return
        grads = [
            random_values(random, p.shape, dtype, random.choice(["ordinary", "difficult"]))
            for _ in range(random.randint(1, 3))
        ]
        expected = steps_of_plain(formula, dtype, p, grads)
        self.done["formulas"] += 1
        backends = ["numpy"]
        if self.compiled and self.done["formulas"] % self.compiled == 0:
            backends.append("numba")
        for backend in backends:
            params = random_blueprint(random, p).make().view
            opt = optimizer(params, backend=backend)
            for k, g in enumerate(grads):
                opt.step(random_blueprint(random, g).make().view)
                found = [params, *(opt.state[letter] for letter in formula.states)]
                self.compare(seed, found, expected[k])
                self.done[f"steps of formulas, {backend}"] += 1


def random_setup(random: Random) -> Setup:
    case = random.choice([*CASES, *WHOLE_CASES])
    options = {**random_numbers(random, case.optimizer), **case.options}
    options["lr"] = random.choice(RATES)
    options["nonfinite"] = random.choice(["propagate", "propagate", "skip", "raise"])
    options |= random_keeping(random)
    n = random.choice([1, 1, 1, 2, 3, 6])
    large = random.randrange(n) if random.random() < 0.03 else -1
    dtype = random_dtype(random) if random.random() < 0.7 else None
    blueprints = []
    for index in range(n):
        shape = random_shape(random, index == large)
        kind = random.choice(["ordinary", "difficult"])
        values = random_values(random, shape, dtype or random_dtype(random), kind)
        blueprints.append(random_blueprint(random, values))
    template, groups = random_template(random, n), []
    if n > 1 and random.random() < 0.3:
        template = [[*range(n // 2)], [*range(n // 2, n)]]
        groups = [random_differences(random) for _ in template]
    return Setup(case, options, blueprints, template, groups, random.random() < 0.25)


def random_numbers(random: Random, optimizer: Any) -> dict[str, Any]:
    """Numbers from all of their range for hyperparameters that have one."""
    drawn = {
        "betas": (random.random(), random.random()),
        "eps": 10.0 ** random.uniform(-12, 0),
        "alpha": random.random(),
        "lr_decay": random.random(),
        "weight_decay": random.choice([0.0, random.random()]),
    }
    names = drawn.keys() & declaration_of(optimizer).defaults.keys()
    chosen = [name for name in sorted(names) if random.random() < 0.4]
    return {name: drawn[name] for name in chosen}


def random_gradients(random: Random, setup: Setup) -> list[Any]:
    """A gradient for each parameter, of a layout of its own, or None."""
    kind = random.choice(["ordinary", "ordinary", "difficult", "finite"])
    grads: list[Any] = []
    for own in setup.blueprints:
        values = random_values(random, own.values.shape, own.values.dtype, kind)
        layout = random.random()
        if layout < 0.1 and not setup.arena:
            grads.append(None)
        elif layout < 0.6:
            grads.append(own.with_values(values).make().view)
        else:
            grads.append(random_blueprint(random, values).make().view)
    return grads


def step_with(grads: list[Any], request: dict[str, Any]) -> Any:
    """A step of a side with copies of these gradients, or with their values in its arena."""

    def step(side: Side) -> Any:
        if side.optimizer.arena is None:
            copies = [None if g is None else g.copy(order="K") for g in grads]
            given = copies if request.get("zero_grads") else grads
            return side.step(request, given)
        for own, g in zip(side.grads, grads, strict=True):
            own[...] = g
        return side.step(request)

    return step


def arrays_of(side: Side) -> list[Array]:
    """The parameters and all state."""
    states = [state for each in side.states() for name, state in each.items() if name != "t"]
    return [*side.params, *states]


def steps_of_plain(formula: Formula, dtype: Any, p: Array, grads: list[Array]) -> list[list[Array]]:
    """The parameter and the state after each step of Python's own."""
    arrays, trajectory = [p, *(np.zeros_like(p) for _ in formula.states)], []
    for g in grads:
        arrays = plainly(formula, dtype, [arrays[0], g, *arrays[1:]])
        trajectory.append(arrays)
    return trajectory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--seeds", default="0:1000", help="a number, or the first and past the last"
    )
    parser.add_argument("--backend", default="c", choices=["c", "numba"])
    parser.add_argument("--compile", type=int, default=0, help="Numba compiles each n-th formula")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition(":")
    fuzz = Fuzz(arguments.backend, arguments.compile)
    failed: list[int] = []
    end = time.monotonic() + arguments.seconds
    for seed in range(int(first), int(last) if last else int(first) + 1):
        if time.monotonic() > end:
            break
        try:
            fuzz.run(seed)
        except Exception as error:
            failed.append(seed)
            print(f"seed {seed}: {type(error).__name__}: {error}", file=sys.stderr)
    for name, count in sorted(fuzz.done.items()):
        print(f"{count:15,} {name}")
    differ = fuzz.differing.total()
    print(f"{differ:,} elements differ {dict(fuzz.differing) or ''}; {len(failed)} failed {failed}")
    return 1 if differ or failed else 0


if __name__ == "__main__":
    sys.exit(main())
