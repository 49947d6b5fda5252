"""Whole fits of scikit-learn's networks, without the patch and with it.

    python bench/sklearn_fits.py [generated] [digits] [solvers] [--seconds S]
                                 [--only NAME] [--out FILE]

Both take turns, each turn a whole `fit` from the same start over the same batches, the first one
not counted; in every other round the patched one goes first. A figure is the median of the turns,
and the ratio says how many times as long a fit takes without the patch. `solvers` has fits with
fusedstep's own solvers beside scikit-learn's "adam" without the patch.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits, make_classification
from sklearn.neural_network import MLPClassifier
from topics import described, head, headed, parsed, parser_of, with_out, write

import fusedstep.sklearn
from fusedstep.benchmarks.measuring import quartiles
from fusedstep.sklearn._solver import OF_OURS

LEAST_TURNS = 5

SOLVERS: dict[str, dict[str, Any]] = {
    "adam": {"solver": "adam"},
    "sgd": {"solver": "sgd"},
    "sgd, plain momentum": {"solver": "sgd", "nesterovs_momentum": False},
    "sgd, no momentum": {"solver": "sgd", "momentum": 0},
    "sgd, invscaling": {"solver": "sgd", "learning_rate": "invscaling"},
}


class Row(NamedTuple):
    """One comparison: milliseconds of a fit, and their quartiles."""

    topic: str
    case: str
    plain: float
    plain_quartiles: tuple[float, ...]
    fused: float
    fused_quartiles: tuple[float, ...]
    turns: int

    @property
    def ratio(self) -> float:
        return self.plain / self.fused


class Case(NamedTuple):
    name: str
    data: tuple[Any, Any]
    plain: Callable[[], Any]
    fused: Callable[[], Any]
    patched: bool = True


def generated() -> Iterator[Case]:
    """Fits of make_classification's 2,000 examples, hidden layers (512, 512)."""
    x, y = make_classification(2000, 20, n_informative=10, n_classes=3, random_state=0)
    for dtype in (np.float32, np.float64):
        for solver in ("adam", "sgd"):
            for size, epochs in ((200, 8), (32, 2)):
                options: dict[str, Any] = {
                    "hidden_layer_sizes": (512, 512),
                    "batch_size": size,
                    "solver": solver,
                    "max_iter": epochs,
                }
                yield case(
                    f"{dtype.__name__}, {solver}, batches of {size}", x.astype(dtype), y, options
                )


def digits() -> Iterator[Case]:
    """Fits of scikit-learn's digits."""
    x, y = load_digits(return_X_y=True)
    layers: dict[str, dict[str, Any]] = {
        "(100,)": {},
        "(32, 16, 8)": {"hidden_layer_sizes": (32, 16, 8)},
    }
    for layer, hidden in layers.items():
        for size, epochs in (("auto", 60), (32, 15)):
            for solver, options in SOLVERS.items():
                of_fit = {**hidden, **options, "batch_size": size, "max_iter": epochs}
                batches = "200" if size == "auto" else str(size)
                yield case(f"{layer}, batches of {batches}, {solver}", x, y, of_fit)
    for epochs in (1, 5):
        yield case(f"(100,), {epochs} epochs, adam", x, y, {"max_iter": epochs})
        yield case(f"(100,), {epochs} epochs, sgd", x, y, {"max_iter": epochs, "solver": "sgd"})


def solvers() -> Iterator[Case]:
    """Fits of scikit-learn's digits with each solver, beside its adam without the patch."""
    x, y = load_digits(return_X_y=True)
    options: dict[str, Any] = {"max_iter": 40, "random_state": 0, "tol": 0.0}
    for solver in ("sgd", "adam", *OF_OURS):

        def ours(solver: str = solver) -> Any:
            return fusedstep.sklearn.MLPClassifier(solver=solver, **options)

        yield Case(solver, (x, y), lambda: MLPClassifier(**options), ours, patched=False)


def case(name: str, x: Any, y: Any, options: dict[str, Any]) -> Case:
    def make() -> Any:
        return MLPClassifier(random_state=0, tol=0.0, n_iter_no_change=1000, **options)

    return Case(name, (x, y), make, make)


def measure(topic: str, case: Case, seconds: float) -> Row:
    """Take turns for some seconds, or `LEAST_TURNS` if they take longer."""
    times: dict[bool, list[float]] = {False: [], True: []}
    until = perf_counter() + seconds
    turns = -1  # the first does not count
    while turns < LEAST_TURNS or perf_counter() < until:
        for fused in (False, True) if turns % 2 else (True, False):
            network = (case.fused if fused else case.plain)()
            gc.collect()
            with fusedstep.sklearn.patch() if fused and case.patched else nullcontext():
                began = perf_counter()
                network.fit(*case.data)
                took = perf_counter() - began
            if turns >= 0:
                times[fused].append(1e3 * took)
        turns += 1
    plain, fused_times = times[False], times[True]
    return Row(
        topic,
        case.name,
        median(plain),
        quartiles(plain),
        median(fused_times),
        quartiles(fused_times),
        turns,
    )


TOPICS = {each.__name__: each for each in (generated, digits, solvers)}


def main() -> None:
    parser = with_out(parser_of(__doc__, TOPICS))
    parser.add_argument("--seconds", type=float, default=4.0, help="of each comparison")
    parser.add_argument("--only", default="", help="comparisons with this in their name")
    options = parsed(parser, TOPICS)
    warnings.simplefilter("ignore")
    here = described(["scikit-learn"])
    rows = []
    for topic in headed(options.what, TOPICS):
        head("ms", ["without", "with fusedstep", "ratio"])
        for each in topic():
            if options.only in each.name:
                rows.append(row := measure(topic.__name__, each, options.seconds))
                print(
                    f"| {row.case} | {row.plain:.1f} | {row.fused:.1f} | {row.ratio:.2f}× |",
                    flush=True,
                )
    write(options.out, here, rows)


if __name__ == "__main__":
    main()
