"""Random steps of the CUDA kernels as they were compiled, and how many elements were compared.

    PYTHONPATH=tests/helpers python tests/helpers/ptx_elements.py --seconds 60
    PYTHONPATH=tests/helpers python tests/helpers/ptx_elements.py --seed 17 --count 1 --print

Each seed makes one program: an optimizer with random options over tensors of random sizes, layouts
and dtypes, also of 16 bits and with state in fewer bytes, over an arena or with gradients of rows.
It takes some steps on a device in the memory of the host, see cuda_in_memory.py, and on the NumPy
reference: with and without norms, clipping and unscaling, zeros left in gradients, and gradients
that are not finite. All that they leave has to have the same bits, also the memory around. The
program prints the elements that were compared, by what they belong to, and those that differ, with
their seeds. It fails if there are any. Arrays that run backwards are left out in an arena and where
there are fewer bytes: a device takes their elements in another order, and with it the norms of an
arena, the blocks of codes and the random bits.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from random import Random
from typing import Any

import cuda_in_memory
from cuda_in_memory import DRIVER

cuda_in_memory.install()

import fewer_bytes  # noqa: E402  what asks for a driver
import numpy as np  # noqa: E402
from cases import BASES, CUSTOM_BASES, DTYPES  # noqa: E402
from device import Placed  # noqa: E402
from random_arrays import Blueprint, random_blueprint, random_values  # noqa: E402

import fusedstep as fs  # noqa: E402
from fusedstep._core.arena import memory_of  # noqa: E402

Array = np.ndarray[Any, Any]

EDGES = (1, 2, 3, 4, 5, 31, 255, 256, 257, 511, 512, 1023, 1024, 1025, 2047, 2048, 2049, 4097)
"""Sizes around vectors, blocks of threads and of elements, and tiles."""

MOST = 300_000
"""Elements of a large tensor."""

REPEATED = 16
"""Programs of the same kernels, one after the other: they take seconds to compile."""

COMMON: dict[str, list[Any]] = {
    "maximize": [True],
    "weight_decay": [0.1, 0.03],
    "l1": [0.02],
    "ema": [0.9, 0.37],
}
"""Options that each rule takes."""

REQUESTS: dict[str, list[Any]] = {
    "scale": [3.0, 0.3, 1e-30, 2.0**16],
    "max_norm": [0.0, 0.3, 2.5, 1e30, float("inf")],
    "max_value": [0.0, 0.7, 1e-30],
    "zero_grads": [True],
}


class RefusedError(Exception):
    """Options that do not go together, also by the reference."""


class Program:
    """The program of a seed."""

    def __init__(self, seed: int, most: int) -> None:
        random = Random(seed // REPEATED)
        self.random = Random(seed)
        self.compared: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.narrow = random.random() < 0.3
        self.arena = random.random() < 0.1
        self.rows = not self.narrow and not self.arena and random.random() < 0.15
        self.base = random.choice(CUSTOM_BASES if random.random() < 0.3 else BASES)
        self.nonfinite = random.choice(["propagate", "propagate", "skip", "raise"])
        more = self.more_options(random)
        self.options = {**self.base.options, "nonfinite": self.nonfinite, **more}
        self.dtypes = [random.choice(DTYPES).__name__ for _ in range(3)]
        if self.narrow:
            self.dtypes = random.choices([*fewer_bytes.DTYPES], k=2)
        self.other = random.choice([*fewer_bytes.DTYPES])
        """The dtype of some gradients, where arrays are of 16 bits."""
        count = self.random.choice([1, 1, 2, 3, 5, 9])
        self.blueprints = [self.blueprint(most) for _ in range(count)]

    def more_options(self, random: Random) -> dict[str, Any]:
        options: dict[str, Any] = {
            name: random.choice(values) for name, values in COMMON.items() if random.random() < 0.2
        }
        if random.random() < 0.3:
            options["lr"] = random.choice([3.0, 1e-3, 1e-30, lambda t: 0.3 / t])
        if self.rows:
            options |= random.choice(
                [{"untouched": "exact"}, {"row_steps": "own"}, {"row_steps": "shared"}]
            )
        if self.narrow:
            options |= {
                "state_dtype": random.choice(["float32", "bfloat16", "8bit"]),
                "rounding": random.choice(["auto", "nearest", "stochastic"]),
                "master": random.choice([None, None, False, "split8", "float32"]),
                "seed": 3,
            }
        return options

    # ---- arrays ----

    def blueprint(self, most: int) -> Blueprint:
        random = self.random
        n = random.choice(EDGES) if random.random() < 0.7 else random.randint(1, most)
        shape: tuple[int, ...] = (n,)
        if random.random() < 0.4 or self.rows:
            width = random.choice([1, 2, 3, 7, 64])
            shape = (max(1, n // width), width)
        dtype = random.choice(self.dtypes)
        made = random_blueprint(random, self.values(shape, dtype, "ordinary"), 0.7, 0)
        if self.narrow or self.arena:
            made = made._replace(steps=tuple(map(abs, made.steps)))
        return made._replace(order=made.order[::-1]) if self.rows else made

    def values(self, shape: tuple[int, ...], dtype: str, kind: str) -> Array:
        if dtype == "float64":
            return random_values(self.random, shape, np.float64, kind)
        values = random_values(self.random, shape, np.float32, kind)
        if dtype == "float32":
            return values
        with np.errstate(over="ignore"):
            return fewer_bytes.rounded(values, dtype)

    def kind(self) -> str:
        wild = "finite" if self.nonfinite == "raise" else "difficult"
        return self.random.choice(["ordinary", "ordinary", wild, "finite"])

    def gradient(self, p: Array) -> tuple[Any, Any, Any]:
        """A gradient for the device, the memory it is in, and the same for the reference."""
        random = self.random
        dtype = (
            next(name for name, kind in fewer_bytes.DTYPES.items() if kind == p.dtype)
            if (p.dtype != np.float64)
            else "float64"
        )
        if self.narrow and random.random() < 0.3:
            dtype = self.other
        if self.rows and p.ndim == 2 and random.random() < 0.8:
            index = [random.randrange(len(p)) for _ in range(random.randint(0, 2 * len(p)))][:500]
            values = self.values((len(index), p.shape[1]), dtype, self.kind())
            placed = Placed(values)
            return fs.Rows(index, placed.array), placed, fs.Rows(index, values)
        values = self.values(p.shape, dtype, self.kind())
        if self.arena:
            return None, None, values
        watched = random_blueprint(random, values, 0.8, 0).make()
        placed = Placed(watched.view, watched.memory)
        return placed.array, placed, values

    # ---- the steps ----

    def run(self) -> None:
        params = [each.make() for each in self.blueprints]
        expected = [each.make().view for each in self.blueprints]
        placed = [Placed(each.view, each.memory) for each in params]
        before = [each.memory for each in placed]
        make = self.base.optimizer
        given: Any = [each.array for each in placed]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                reference = make(
                    fs.Arena(expected) if self.arena else expected, backend="numpy", **self.options
                )
            except (RuntimeError, ValueError, TypeError) as error:
                raise RefusedError(str(error)) from None
            optimizer = make(fs.Arena(given) if self.arena else given, **self.options)
            reports = [
                self.step(optimizer, reference, expected) for _ in range(self.random.randint(2, 5))
            ]
        for found, wanted in reports:
            if repr(found) != repr(wanted):
                self.wrong.append(f"{found!r}, not {wanted!r}")
        if hasattr(optimizer, "catch_up") and self.rows:
            optimizer.catch_up()
            reference.catch_up()
        if self.arena:
            memories = memory_of(optimizer.arena), memory_of(reference.arena)
            for found, wanted in zip(*(x.p for x in memories), strict=True):
                self.compare("parameters", memories[0].place.read(found), np.asarray(wanted))
        else:
            for each, q, watched, old in zip(placed, expected, params, before, strict=True):
                self.compare("parameters", each.host, q)
                self.look_around(each, watched, old)
        states = [x.state_dict()["state"] for x in (optimizer, reference)]
        for found, wanted in zip(*states, strict=True):
            for letter, value in wanted.items():
                if isinstance(value, np.ndarray):
                    self.compare("state", found[letter], value)
                elif found[letter] != value:
                    self.wrong.append(f"{letter}: {found[letter]}, not {value}")

    def step(self, optimizer: Any, reference: Any, expected: list[Any]) -> tuple[Any, Any]:
        random = self.random
        request = {
            name: random.choice(values)
            for name, values in REQUESTS.items()
            if random.random() < 0.3
        }
        if "max_norm" in request and random.random() < 0.3:
            request["clip"] = "tensor"
        made = [self.gradient(p) for p in expected]
        if not self.arena and len(made) > 1 and random.random() < 0.2:
            made[random.randrange(len(made))] = (None, None, None)
        if self.arena:
            for side in (optimizer, reference):
                memory = memory_of(side.arena)
                for view, (_, _, values) in zip(memory.g, made, strict=True):
                    memory.place.write(view, values)
            given: list[list[Any]] = [[], []]
        else:
            given = [[[g for g, _, _ in made]], [[g for _, _, g in made]]]
        found, wanted = (
            attempt(side, arguments, request)
            for side, arguments in zip((optimizer, reference), given, strict=True)
        )
        if request.get("zero_grads") and not isinstance(wanted, Exception):
            for _, device, host in made:
                if device is not None:
                    self.compare(
                        "gradients", device.host, host.values if self.is_rows(host) else host
                    )
        if isinstance(wanted, Exception) and type(found) is type(wanted):
            return None, None
        return found, wanted

    @staticmethod
    def is_rows(g: Any) -> bool:
        return isinstance(g, fs.Rows)

    def compare(self, what: str, found: Array, wanted: Array) -> None:
        self.compared[what] += wanted.size
        count = fewer_bytes.differing(np.ascontiguousarray(found), np.ascontiguousarray(wanted))
        if count:
            self.wrong.append(f"{what}: {count} of {wanted.size}")

    def look_around(self, placed: Placed, watched: Any, before: bytes) -> None:
        """Compare the memory around and between the elements of a parameter."""
        n = watched.memory.nbytes
        now, then = (np.frombuffer(x[:n], np.uint8) for x in (placed.memory, before))
        outside = watched.outside
        self.compared["bytes around"] += int(outside.sum())
        if (now != then)[outside].any():
            self.wrong.append("memory around a parameter")

    def __str__(self) -> str:
        shapes = ", ".join(map(repr, self.blueprints))
        kind = "an arena" if self.arena else "rows" if self.rows else ""
        return f"{self.base.name} {self.options} {kind} {shapes}"


def attempt(optimizer: Any, arguments: list[Any], request: dict[str, Any]) -> Any:
    try:
        return optimizer.step(*arguments, **request)
    except (FloatingPointError, RuntimeError, ValueError, TypeError) as error:
        return error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long")
    parser.add_argument("--count", type=int, help="programs at most")
    parser.add_argument("--seed", type=int, default=0, help="of the first program")
    parser.add_argument("--most", type=int, default=MOST, help="elements of a tensor at most")
    parser.add_argument("--races", action="store_true", help="check for races, which is slower")
    parser.add_argument("--print", action="store_true", help="print each program")
    arguments = parser.parse_args()
    DRIVER.checks(arguments.races)
    end = time.monotonic() + arguments.seconds
    compared: Counter[str] = Counter()
    done, refused, wrong, seed = 0, 0, 0, arguments.seed
    while time.monotonic() < end and (
        arguments.count is None or seed < arguments.seed + arguments.count
    ):
        program = Program(seed, arguments.most)
        if arguments.print:
            print(seed, program, flush=True)
        try:
            program.run()
        except RefusedError as error:
            refused += 1
            if arguments.print:
                print(f"    refused: {error}")
        except Exception as error:
            program.wrong.append(f"{type(error).__name__}: {error}")
        if complaint := DRIVER.message():
            program.wrong.append(complaint)
        if program.wrong:
            wrong += 1
            print(f"seed {seed}: {program}", *program.wrong, sep="\n    ", flush=True)
        compared += program.compared
        done, seed = done + 1, seed + 1
    for what, count in sorted(compared.items()):
        print(f"{count:16,} {what}")
    print(f"{sum(compared.values()):16,} in all, of {done} programs, {refused} of them refused")
    print(f"{wrong} programs differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
