"""HIPS autograd with our optimizers: its lists of tuples, and its own optimizers' signatures.

    fs.Adam(params)                        a loop of one's own, over a list of (W, b) tuples
    from fusedstep.autograd import adam    in the place of autograd.misc.optimizers

A network of two hidden layers fits a wave with noise, in three ways that go the same way:
autograd's own `adam`, ours of the same signature, and a loop that steps the parameters where they
are. The last one needs neither a copy of the parameters nor a flat vector of the gradients.

    python examples/clients/autograd_network.py
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import autograd.numpy as np
from autograd import value_and_grad
from autograd.misc.optimizers import adam as adam_of_autograd

import fusedstep as fs
from fusedstep.autograd import adam

STEPS, RATE = 400, 0.01
SIZES = [1, 32, 32, 1]

Layers = list[tuple[Any, Any]]


class Data(NamedTuple):
    x: Any
    y: Any


def data() -> Data:
    rng = np.random.RandomState(0)
    x = np.linspace(-3.0, 3.0, 120)[:, None]
    return Data(x, np.sin(2 * x) + 0.1 * rng.standard_normal(x.shape))


def network() -> Layers:
    rng = np.random.RandomState(1)
    return [(rng.standard_normal((a, b)) / np.sqrt(a), np.zeros(b)) for a, b in pairwise(SIZES)]


def objective(params: Layers, given: Data) -> Any:
    """The mean squared error."""
    h = given.x
    for w, b in params[:-1]:
        h = np.tanh(np.dot(h, w) + b)
    w, b = params[-1]
    return np.mean((np.dot(h, w) + b - given.y) ** 2)


def by(function: Any) -> tuple[list[float], Layers]:
    """Train by a function of autograd's signature: the losses before each step, and the network."""
    given, losses = data(), list[float]()
    slope = value_and_grad(objective)

    def gradient(params: Layers, i: int) -> Layers:
        loss, grads = slope(params, given)
        losses.append(float(loss))
        found: Layers = grads
        return found

    return losses, function(gradient, network(), num_iters=STEPS, step_size=RATE)


def in_place() -> tuple[list[float], Layers]:
    """Train the list of tuples itself."""
    given, losses, params = data(), list[float](), network()
    opt, slope = fs.Adam(params, lr=RATE), value_and_grad(objective)
    for _ in range(STEPS):
        loss, grads = slope(params, given)
        opt.step(grads)
        losses.append(float(loss))
    return losses, params


def main() -> None:
    runs = {"autograd's adam": by(adam_of_autograd), "ours": by(adam), "in place": in_place()}
    for name, (losses, params) in runs.items():
        end = float(objective(params, data()))
        print(f"{name:>16}    loss {losses[0]:.4f} at first    {end:.10f} after {STEPS} steps")


if __name__ == "__main__":
    main()
