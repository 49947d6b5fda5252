"""scikit-learn's networks read digits: faster under a patch, and with solvers that it has not.

patch           scikit-learn's own MLPClassifier; every loss is the same, bit for bit
GridSearchCV    a search over solvers and rates in two processes
partial         an optimizer with options: AdamW, its rate along a cosine
partial_fit     a network that is saved and goes on, with the state of its optimizer

python examples/clients/scikit_learn.py
"""

from __future__ import annotations

import pickle
import warnings
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import MLPClassifier

import fusedstep as fs
import fusedstep.sklearn

EPOCHS, HIDDEN = 30, (256, 256)

GRID = {"solver": ["adam", "adamw", "lion"], "learning_rate_init": [0.0005, 0.002]}


class Digits(NamedTuple):
    x: Any
    test_x: Any
    y: Any
    test_y: Any


def digits(seed: int = 0) -> Digits:
    x, y = load_digits(return_X_y=True)
    return Digits(*train_test_split(x / 16, y, random_state=seed))


def patched(data: Digits) -> tuple[list[float], list[float], float]:
    """The losses of a fit without the patch and with it, and how many times as long it took."""
    losses, seconds = list[list[float]](), list[float]()
    for network in (MLPClassifier(HIDDEN, max_iter=EPOCHS, random_state=0) for _ in range(2)):
        began = perf_counter()
        if losses:
            with fusedstep.sklearn.patch():
                network.fit(data.x, data.y)
        else:
            network.fit(data.x, data.y)
        seconds.append(perf_counter() - began)
        losses.append(network.loss_curve_)
    return losses[0], losses[1], seconds[0] / seconds[1]


def search(data: Digits) -> Any:
    """A grid search over solvers, each of which is a parameter like any other."""
    network = fusedstep.sklearn.MLPClassifier(max_iter=EPOCHS, random_state=0)
    return GridSearchCV(network, GRID, cv=3, n_jobs=2).fit(data.x, data.y)


def scheduled(data: Digits) -> Any:
    """A network whose optimizer has options of its own."""
    steps = EPOCHS * -(-len(data.x) // 200)
    solver = partial(fs.AdamW, lr=fs.schedules.cosine(0.01, steps=steps), weight_decay=0.1)
    network = fusedstep.sklearn.MLPClassifier(solver=solver, max_iter=EPOCHS, random_state=0)
    return network.fit(data.x, data.y)


def resumed(data: Digits) -> bool:
    """Whether a network that is saved half way ends as one that is not."""
    network = fusedstep.sklearn.MLPClassifier(solver="nadam", random_state=0)
    network.partial_fit(data.x, data.y, classes=range(10))
    again = pickle.loads(pickle.dumps(network))
    for each in (network, again):
        each.partial_fit(data.x, data.y)
    return all((a == b).all() for a, b in zip(network.coefs_, again.coefs_, strict=True))


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    data = digits()
    plain, fused, times = patched(data)
    print(f"scikit-learn's Adam, {EPOCHS} epochs: loss {plain[-1]:.4f}, patched {fused[-1]:.4f}")
    print(f"the same losses: {plain == fused}, {times:.2f} times as fast")
    found = search(data)
    for score, options in zip(
        found.cv_results_["mean_test_score"], found.cv_results_["params"], strict=True
    ):
        print(f"{options['solver']:<6} α = {options['learning_rate_init']:<6} {score:.1%}")
    network = scheduled(data)
    print(
        f"AdamW along a cosine: loss {network.loss_:.4f}, test {found_rightly(network, data):.1%}"
    )
    print(f"the same weights: {resumed(data)}")


def found_rightly(network: Any, data: Digits) -> float:
    return float(network.score(data.test_x, data.test_y))


if __name__ == "__main__":
    main()
