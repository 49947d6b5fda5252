"""Random programs of exact steps over rows, each beside the same steps over whole gradients.

    python tests/helpers/row_programs.py --seeds 0:1000
    python tests/helpers/row_programs.py --seeds 17 --backend numba --print

Each seed makes one program: an optimizer with some options, rows of which some are touched at
every step and others at one in thousands, and what a user does on the way. One optimizer gets
`fusedstep.Rows`, the other the whole gradient, whose other rows are zeros. Whenever the first has
caught up, parameters and state of both must be the same to the bit.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

import numpy as np
from cases import differing_bits
from random_arrays import Array

import fusedstep as fs

Changes: TypeAlias = dict[str, Any]

KINDS: list[tuple[type, Changes]] = [
    (fs.SGD, {}),
    (fs.SGD, {"momentum": 0.9}),
    (fs.SGD, {"momentum": 0.9, "dampening": 0.5}),
    (fs.SGD, {"momentum": 0.5, "nesterov": True}),
    (fs.SGD, {"momentum": 0.9, "lr_in_momentum": True}),
    (fs.Adagrad, {}),
    (fs.Adagrad, {"eps_inside_sqrt": True, "lr_decay": 0.01}),
    (fs.RMSprop, {}),
    (fs.RMSprop, {"centered": True}),
    (fs.RMSprop, {"momentum": 0.9, "eps_inside_sqrt": True}),
    (fs.RMSprop, {"momentum": 0.9, "centered": True, "alpha": 0.9}),
    (fs.Adam, {}),
    (fs.Adam, {"amsgrad": True}),
    (fs.Adam, {"betas": (0.5, 0.9), "eps_uncorrected": True}),
    (fs.Adam, {"betas": (0.9, 0.5)}),
    (fs.Adam, {"betas": (0.0, 0.99)}),
    (fs.Adam, {"eps_inside_sqrt": True, "bias_correction": False}),
    (fs.Adam, {"eps": 0.0}),
    (fs.AdamW, {}),
    (fs.AdamW, {"weight_decay": 0.5, "amsgrad": True}),
    (fs.AdamW, {"weight_decay": 1.0, "decay_scale": "schedule"}),
]
"""Optimizers with options."""

CUSTOM: list[tuple[type, Changes]] = [
    (fs.rules.Lion, {}),
    (fs.rules.NAdam, {}),
    (fs.rules.Adan, {}),
]
"""The same of the user's own kind, which no backend knows by heart."""


class Falling:
    """A rate, or rates by column, that warm up, and then fall."""

    def __init__(self, lr: Any) -> None:
        self.lr = lr

    def __call__(self, t: int) -> Any:
        return self.lr * min(t / 20, (20 / t) ** 0.5)


def random_values(random: Random, rng: np.random.Generator, shape: Any, dtype: Any) -> Array:
    """Numbers of usual sizes, with zeros of both signs and very small ones among them."""
    values = rng.normal(0, random.choice([1.0, 0.02]), shape)
    odd = rng.random(shape) < random.choice([0.0, 0.0, 0.2])
    values[odd] = rng.choice([0.0, -0.0, 1e-30, -1e-41, 1e20, 3e-308], int(odd.sum()))
    made: Array = values.astype(dtype)
    return made


@dataclass
class Program:
    """One program, and what it has done."""

    seed: int
    backend: str
    steps: int = 0
    compared: int = 0
    differing: int = 0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.rng = np.random.default_rng(self.seed)
        self.done: Counter[str] = Counter()

    def rate(self, width: int) -> Any:
        """A learning rate, or one for each of so many columns."""
        random, rate = self.random, self.random.choice([1e-3, 1e-3, 0.03, 1e-6])
        if random.random() < 0.7:
            return rate
        self.done["rates by column"] += 1
        columns = self.rng.choice([1.0, 1.0, 0.5, 0.1, 0.0], random.choice([1, width, width]))
        return rate * np.repeat(columns, 3)[:width] if len(columns) > 1 else rate * columns

    def options(self, width: int) -> tuple[type, Changes]:
        random = self.random
        custom = self.backend != "c" and random.random() < 0.3
        optimizer, fixed = random.choice(CUSTOM if custom else KINDS)
        changes: Changes = dict(fixed)
        rate = self.rate(width)
        scheduled = random.random() < 0.3
        changes["lr"] = Falling(rate) if scheduled else rate
        if changes.get("decay_scale") == "schedule" and (scheduled or np.ndim(rate)):
            changes["initial_lr"] = float(np.max(rate)) or 1.0
        if random.random() < 0.15:
            changes["maximize"] = True
        if random.random() < 0.15 and optimizer is not fs.AdamW:
            changes["weight_decay"] = 0.01
        if random.random() < 0.1:
            changes["l1"] = 0.001
        if random.random() < 0.1:
            changes["ema"] = 0.9
        changes["nonfinite"] = random.choice(["propagate", "propagate", "skip"])
        return optimizer, changes

    def run(self, show: bool = False) -> None:
        random, rng = self.random, self.rng
        n, width = random.choice([1, 3, 20, 40]), random.choice([1, 3, 8, 16, 33, 64, 100])
        optimizer, changes = self.options(width)
        dtype = random.choice([np.float32, np.float32, np.float64])
        length = random.choice([40, 150, 400, 400, 1500])
        if random.random() < 0.03:
            length = 6000
        if self.backend == "numpy":
            length = min(length, 150)
        often = 10.0 ** -rng.uniform(0, np.log10(min(length * 2, 5000)), n)
        p, w = (
            random_values(random, rng, (n, width), dtype),
            random_values(random, rng, (2, width), dtype),
        )
        in_order = random.random() < 0.85
        sides = [{"p": self.laid(p, in_order), "w": w.copy()} for _ in range(2)]
        rows, whole = self.optimizers(optimizer, changes, sides)
        if show:
            print(optimizer.__name__, changes, np.dtype(dtype).name, (n, width), length)
        for _ in range(length):
            touched = np.flatnonzero(rng.random(n) < often)
            if random.random() < 0.3:
                touched = np.concatenate([touched, rng.choice(n, random.choice([1, 2]))])
            if random.random() < 0.2 and len(touched):
                touched = rng.permutation(np.concatenate([touched, touched[:2]]))
            g = random_values(random, rng, (len(touched), width), dtype)
            if random.random() < 0.003 and g.size:
                g.reshape(-1)[0] = random.choice([np.nan, np.inf, -np.inf])
            self.step(rows, whole, touched, g, random_values(random, rng, (2, width), dtype), n)
            rows, whole = self.between(rows, whole, optimizer, changes, sides, n)
        self.compare(rows, whole, sides, None)

    def laid(self, p: Array, in_order: bool) -> Array:
        """A copy of the parameter, in C order or with gaps, reversed or transposed."""
        if in_order:
            return p.copy()
        self.done["layout"] += 1
        n, width = p.shape
        memory = np.zeros((width, n + 3), p.dtype) if n % 2 else np.zeros((n, 2 * width), p.dtype)
        view = memory.T[:n] if n % 2 else memory[::-1, ::2]
        view[...] = p
        return view

    def optimizers(self, optimizer: Any, changes: Changes, sides: Any) -> tuple[Any, Any]:
        rows = optimizer(sides[0], untouched="exact", backend=self.backend, **changes)
        return rows, optimizer(sides[1], backend=self.backend, **changes)

    def step(self, rows: Any, whole: Any, touched: Array, g: Array, other: Array, n: int) -> None:
        random = self.random
        dense = np.zeros((n, g.shape[1]), g.dtype)
        seen = np.zeros(n, bool)
        with np.errstate(all="ignore"):
            for at, values in zip(touched, g, strict=True):
                dense[at] = dense[at] + values if seen[at] else values
                seen[at] = True
        given: Any = fs.Rows(touched.astype(random.choice([np.int64, np.int32, np.uint16])), g)
        if random.random() < 0.1:
            given = dense
            self.done["whole"] += 1
        elif random.random() < 0.15:
            given = fs.Rows.where(seen, np.where(seen[:, None], dense, g.dtype.type(7)))
            self.done["mask"] += 1
        request: Changes = {}
        if random.random() < 0.3:
            request["max_norm"] = random.choice([0.1, 1.0, 100.0])
            request["clip"] = random.choice(["global", "tensor"])
        if random.random() < 0.1:
            request["scale"] = random.choice([3.0, 0.5])
            request["max_value"] = random.choice([None, 0.5])
        skipped = random.random() < 0.03
        reports = [
            opt.step({"p": None if skipped else one, "w": other}, **request)
            for opt, one in ((rows, given), (whole, dense))
        ]
        assert repr(reports[0]) == repr(reports[1]), reports
        self.steps += 1

    def between(
        self, rows: Any, whole: Any, optimizer: Any, changes: Changes, sides: Any, n: int
    ) -> tuple[Any, Any]:
        """Do what users do between two steps; the optimizers from then on."""
        random = self.random
        what = random.choices(
            ["nothing", "some", "all", "state", "rate", "option", "resume"],
            [200, 10, 2, 1, 4, 2, 1],
        )[0]
        self.done[what] += 1
        if what == "some":
            some = self.rng.choice(n, random.randrange(n + 1), replace=False)
            rows.catch_up({"p": some, "w": None})
            self.compare_rows(sides, some)
        elif what == "all":
            self.compare(rows, whole, sides, None)
        elif what == "state":
            self.compare(rows, whole, sides, rows.state["p"])
        elif what == "rate" and not callable(changes["lr"]):
            width = sides[0]["p"].shape[1]
            chosen = random.choice([changes["lr"], changes["lr"] * 0.5, 0.0, self.rate(width)])
            if not (np.ndim(chosen) and changes.get("decay_scale") == "schedule"):
                rows.lr = whole.lr = chosen
        elif what == "option":
            self.assign(rows, whole)
        elif what == "resume":
            saved = rows.state_dict()
            others = self.optimizers(optimizer, changes, sides)
            others[0].load_state_dict(saved)
            others[1].load_state_dict(whole.state_dict())
            return others
        return rows, whole

    def assign(self, rows: Any, whole: Any) -> None:
        """Assign another hyperparameter to both."""
        own = rows.param_groups[0]
        name, values = self.random.choice(
            [
                ("betas", [(0.9, 0.999), (0.8, 0.99)])
                if len(own.get("betas", ())) == 2
                else ("eps", [1e-8]),
                ("eps", [1e-8, 1e-3]),
                ("weight_decay", [0.0, 0.01]),
                ("amsgrad", [False, True]),
                ("momentum", [0.9, 0.5]),
                ("maximize", [False, True]),
            ]
        )
        if name in own and not own.get("nesterov") and not (name == "momentum" and not own[name]):
            value = self.random.choice(values)
            rows.param_groups[0][name] = whole.param_groups[0][name] = value

    def compare_rows(self, sides: Any, some: Array) -> None:
        self.count(sides[0]["p"][some], sides[1]["p"][some])

    def compare(self, rows: Any, whole: Any, sides: Any, state: Any) -> None:
        if state is None:
            rows.catch_up()
        for name in ("p", "w"):
            self.count(sides[0][name], sides[1][name])
            one, other = rows.state[name], whole.state[name]
            assert [*one] == [*other]
            assert one["t"] == other["t"]
            for letter in one:
                if letter != "t":
                    self.count(one[letter], other[letter])

    def count(self, one: Array, other: Array) -> None:
        self.compared += one.size
        self.differing += differing_bits(one, other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:200")
    parser.add_argument("--backend", default="c")
    parser.add_argument("--isa", default=None)
    parser.add_argument("--print", action="store_true")
    arguments = parser.parse_args()
    if arguments.isa:
        fs.set_isa(arguments.isa)
    first, _, last = arguments.seeds.partition(":")
    done: Counter[str] = Counter()
    begin = time.monotonic()
    for seed in range(int(first), int(last or int(first) + 1)):
        program = Program(seed, arguments.backend)
        try:
            program.run(arguments.print)
        except Exception:
            print(f"seed {seed}", file=sys.stderr)
            raise
        done.update(program.done)
        done.update(programs=1, steps=program.steps, compared=program.compared)
        done.update(differing=program.differing)
        if program.differing:
            print(f"seed {seed}: {program.differing} elements differ")
    print(dict(done), f"{time.monotonic() - begin:.0f} s")
    sys.exit(done["differing"] > 0)


if __name__ == "__main__":
    main()
