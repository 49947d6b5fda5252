"""One row for each way to keep parameters, gradients and state in fewer bytes, and its bits.

The formats cross with rules, dtypes of gradients and ways to round. A row is run over tensors of
sizes around a tile of 256 elements and around the size from which state takes fewer bytes. `EVERY`
has all rows, `FEW` some in which each format and each way to round is met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

import fusedstep as fs
from fusedstep import rules
from fusedstep._arrays.dtypes import BFLOAT16
from fusedstep._backends.plan import Job
from fusedstep._numerics.storage import STORAGES

Array = np.ndarray[Any, Any]

DTYPES = {"float32": np.dtype("f4"), "bfloat16": BFLOAT16, "float16": np.dtype("f2")}

SIZES = (1, 255, 256, 257, 4097, 5000)

STEPS = 4

REQUESTS: dict[int, dict[str, Any]] = {1: {"max_norm": 5.0}, 2: {"zero_grads": True, "scale": 4.0}}
"""Arguments of some steps, by their number."""


class Rule(NamedTuple):
    name: str
    optimizer: Any
    options: dict[str, Any]


RULES = [
    Rule("sgd", fs.SGD, {"lr": 0.1, "weight_decay": 0.01}),
    Rule("momentum", fs.SGD, {"lr": 0.1, "momentum": 0.9}),
    Rule("adamw-amsgrad-ema", fs.AdamW, {"amsgrad": True, "ema": 0.9}),
    Rule("rmsprop-momentum", fs.RMSprop, {"momentum": 0.9}),
    Rule("adagrad", fs.Adagrad, {"lr": 0.1, "initial_accumulator_value": 0.1}),
    Rule("lion", rules.Lion, {}),
    Rule("adam-l1", fs.Adam, {"weight_decay": 0.1, "l1": 0.01}),
    Rule("adam", fs.Adam, {"weight_decay": 0.1}),
    Rule("adamw", fs.AdamW, {}),
]

KEPT = [
    ("float32", None),
    ("bfloat16", None),
    ("bfloat16", "split8"),
    ("bfloat16", "float32"),
    ("bfloat16", False),
    ("float16", None),
]
"""Dtypes of parameters, and the choice of `master`."""


class Case(NamedTuple):
    rule: Rule
    p: str
    master: Any
    g: str
    state_dtype: str
    rounding: str
    out: str | None = None
    """The dtype of arrays that parameters are written into as well."""

    @property
    def group(self) -> str:
        """The rule, and how parameters are kept."""
        kept = self.p if self.master is None else f"{self.p}-{self.master}"
        kept = kept if self.out is None else f"{kept}-out-{self.out}"
        return f"{self.rule.name} {kept}"

    @property
    def name(self) -> str:
        return f"{self.group} {self.g} {self.state_dtype} {self.rounding}"

    def optimizer(self, params: Any, backend: str, out: Any = None) -> Any:
        """An optimizer of these parameters, which writes them into `out` as well."""
        more = {} if self.out is None else {"out": out}
        return self.rule.optimizer(
            params,
            backend=backend,
            master=self.master,
            state_dtype=self.state_dtype,
            rounding=self.rounding,
            seed=3,
            **more,
            **self.rule.options,
        )


def _every() -> Iterator[Case]:
    states, roundings = ("float32", "bfloat16", "8bit"), ("auto", "nearest", "stochastic")
    for rule, (p, master), g in product(RULES, KEPT, DTYPES):
        for state_dtype, rounding in product(states, roundings):
            if rule.name == "sgd" and state_dtype != "float32":
                continue  # it has no state
            if rule.name == "adagrad" and (state_dtype, rounding) not in (
                ("float32", "auto"),
                ("bfloat16", "auto"),
                ("bfloat16", "stochastic"),
            ):
                continue  # its sum only grows
            if (p, g, state_dtype) == ("float32", "float32", "float32"):
                continue
            yield Case(rule, p, master, g, state_dtype, rounding)


COPIED = [
    Case(RULES[2], "float32", None, "bfloat16", "8bit", "auto", "bfloat16"),
    Case(RULES[1], "float32", None, "float32", "float32", "auto", "float16"),
]

EVERY = [*_every(), *COPIED]

FEW = [
    Case(RULES[0], "bfloat16", False, "bfloat16", "float32", "auto"),
    Case(RULES[0], "float16", None, "float16", "float32", "auto"),
    Case(RULES[1], "bfloat16", "split8", "float32", "8bit", "stochastic"),
    Case(RULES[1], "float32", None, "float16", "bfloat16", "nearest"),
    Case(RULES[2], "bfloat16", None, "bfloat16", "8bit", "auto"),
    Case(RULES[2], "bfloat16", False, "float16", "bfloat16", "stochastic"),
    Case(RULES[2], "float32", None, "float32", "8bit", "nearest"),
    Case(RULES[3], "bfloat16", "float32", "bfloat16", "8bit", "stochastic"),
    Case(RULES[3], "bfloat16", "split8", "bfloat16", "bfloat16", "nearest"),
    Case(RULES[4], "float16", None, "bfloat16", "bfloat16", "auto"),
    Case(RULES[5], "float32", None, "bfloat16", "8bit", "auto"),
    Case(RULES[7], "bfloat16", False, "bfloat16", "bfloat16", "auto"),
    *COPIED,
]


AT_ONCE = [
    Case(RULES[8], "float32", None, "float32", "bfloat16", "auto"),
    Case(RULES[8], "bfloat16", None, "bfloat16", "float32", "auto"),
    Case(RULES[8], "bfloat16", None, "bfloat16", "bfloat16", "auto"),
    Case(RULES[8], "bfloat16", False, "bfloat16", "bfloat16", "auto"),
    Case(RULES[8], "float32", None, "float32", "8bit", "auto"),
    Case(RULES[8], "bfloat16", None, "bfloat16", "8bit", "auto"),
    Case(RULES[8], "bfloat16", "split8", "bfloat16", "8bit", "auto"),
    Case(RULES[8], "bfloat16", False, "bfloat16", "8bit", "auto"),
]
"""The ways that C steps at once, the first two in instruction sets with long vectors alone."""


def on(backend: str, cases: list[Case]) -> list[Case]:
    """The cases that a backend can run: C has the package's own rules alone."""
    return [case for case in cases if backend != "c" or case.rule.name != "lion"]


def rounded(values: Array, dtype: str) -> Array:
    """Values in a dtype of `DTYPES`, in C order."""
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return values.astype(DTYPES[dtype])
    (bits,) = STORAGES["bfloat16"].encode(values.reshape(-1))
    return bits.view(BFLOAT16).reshape(values.shape)


def values_of(array: Array) -> Array:
    """An array's values, with a quiet NaN for each of its NaNs."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if array.dtype == BFLOAT16:
        flat = STORAGES["bfloat16"].decode(flat.size, (flat,))
    if flat.dtype.kind == "f":
        flat = np.where(np.isnan(flat), flat.dtype.type(np.nan), flat)
    return flat.view(f"u{flat.dtype.itemsize}")


def differing(a: Array, b: Array) -> int:
    """The number of elements in which a and b differ; two NaNs count as equal."""
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    return int((values_of(a) != values_of(b)).sum())


def here(array: Array) -> Any:
    """An array where it is."""
    return array


def results(
    case: Case,
    backend: str,
    place: Callable[[Array], Any] = here,
    sizes: Sequence[int] = SIZES,
) -> dict[str, Array]:
    """All that a few steps leave: the parameters, their exact values, their state.

    Steps are plain, clipped by the norm of all gradients, with zeros left in these, and with
    gradients that are not finite, or none. `place` gives what the optimizer takes for an array.
    """
    rng = np.random.default_rng(len(case.name))
    shapes: list[tuple[int, ...]] = [*((n,) for n in sizes), (7, 3)]
    params = [rounded(rng.normal(size=shape).astype("f4"), case.p) for shape in shapes]
    params[-1] = np.asfortranarray(params[-1])
    placed = [place(p) for p in params]
    copies = [place(np.zeros(shape, DTYPES[case.out or case.p])) for shape in shapes]
    arrays = [[array_of(each) for each in some] for some in (placed, copies)]
    optimizer = case.optimizer(arrays[0], backend, arrays[1])
    made: dict[str, Array] = {}
    for step in range(STEPS):
        request = REQUESTS.get(step, {})
        grads = []
        for shape in shapes:
            scale = 10.0 ** rng.integers(-6, 2)
            g = (rng.normal(size=shape) * scale).astype("f4")
            if step == 3:
                for at, value in enumerate((np.nan, np.inf, -np.inf, 0.0)):
                    g.reshape(-1)[7 * at :: 97] = value
            grads.append(place(rounded(g, case.g)))
        given = [array_of(g) for g in grads]
        if step == 3:
            given[0] = None
        optimizer.step(given, **request)
        if step == 2:
            made.update({f"g{index}": host_of(g) for index, g in enumerate(grads)})
    state = optimizer.state_dict()["state"]
    exact = optimizer.float32_params()
    for index, (p, values, entries) in enumerate(zip(placed, exact, state, strict=True)):
        made[f"p{index}"] = host_of(p)
        made[f"copy of p{index}"] = host_of(copies[index])
        made[f"values of p{index}"] = values
        for letter, array in entries.items():
            if isinstance(array, np.ndarray):
                as_bits = array.dtype == np.uint16
                made[f"{letter}{index}"] = array.view(BFLOAT16) if as_bits else array
    return made


def job_of(case: Case) -> Job:
    """The job of a tensor whose state is in fewer bytes, if it is for any."""
    n = max(SIZES)
    p = rounded(np.zeros(n, "f4"), case.p)
    optimizer = case.optimizer([p], "numpy", [np.zeros(n, DTYPES[case.out or case.p])])
    optimizer.step([rounded(np.zeros(n, "f4"), case.g)])
    (job,) = optimizer.layout.jobs
    assert isinstance(job, Job)
    return job


def array_of(placed: Any) -> Any:
    return getattr(placed, "array", placed)


def host_of(placed: Any) -> Array:
    host: Array = getattr(placed, "host", placed)
    return host


def compare(found: dict[str, Array], expected: dict[str, Array]) -> tuple[int, list[str]]:
    """The number of elements compared, and where some differ."""
    assert found.keys() == expected.keys()
    wrong = []
    for name, array in expected.items():
        count = differing(found[name], array)
        if count:
            wrong.append(f"{name}: {count} of {array.size}")
    return sum(array.size for array in expected.values()), wrong
