"""Federated learning: servers that take the mean change of their clients for a gradient.

    Δ = mean of xᵢ - p             client i has made xᵢ of p, by a few steps on its own examples
    server.step(Δ)                 FedAvg, FedAdagrad, FedAdam, FedYogi

Sixty clients hold the examples of a logistic regression in which some inputs are a hundred times
rarer than others. In each round ten of them take three steps of SGD. FedAvg goes to the mean of
what they found, so that rare inputs, which few of ten clients have seen, hardly learn; the adaptive
servers give each weight a rate of its own. The presets ascend, since Δ is a direction to go in.

    python examples/clients/federated.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import fusedstep as fs

ROUNDS, CLIENTS, INVITED, EXAMPLES, INPUTS = 60, 60, 10, 40, 50
LOCAL_STEPS, LOCAL_RATE = 3, 0.5

Array: TypeAlias = np.ndarray[Any, Any]
Params: TypeAlias = dict[str, Array]

SERVERS: dict[str, Callable[[Params], fs.Optimizer]] = {
    "FedAvg": lambda p: fs.SGD(p, lr=1.0, maximize=True),
    "FedAdagrad": lambda p: fs.Adagrad(p, lr=0.3, **fs.presets.federated.Adagrad),
    "FedAdam": lambda p: fs.Adam(p, lr=0.1, **fs.presets.federated.Adam),
    "FedYogi": lambda p: fs.rules.Yogi(p, lr=0.1, **fs.presets.federated.Yogi),
}


class Examples(NamedTuple):
    x: Array
    y: Array


def examples() -> tuple[list[Examples], Examples]:
    """The examples of each client, and some that no client has."""
    rng = np.random.default_rng(0)
    often = np.geomspace(0.5, 0.005, INPUTS)
    weights = 3 * rng.standard_normal(INPUTS)

    def draw(count: int) -> Examples:
        x = (rng.random((count, INPUTS)) < often).astype(float)
        return Examples(x, (rng.random(count) < sigmoid(x @ weights)).astype(float))

    return [draw(EXAMPLES) for _ in range(CLIENTS)], draw(4000)


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def loss(params: Params, given: Examples) -> float:
    """The mean negative log-likelihood."""
    z = given.x @ params["w"] + params["b"]
    return float(np.mean(np.logaddexp(0, z) - given.y * z))


def change(params: Params, given: Examples) -> Params:
    """The difference that a client's own steps make to the parameters."""
    own = {name: p.copy() for name, p in params.items()}
    opt = fs.SGD(own, lr=LOCAL_RATE)
    for _ in range(LOCAL_STEPS):
        error = (sigmoid(given.x @ own["w"] + own["b"]) - given.y) / len(given.y)
        opt.step({"w": given.x.T @ error, "b": error.sum(keepdims=True)})
    return {name: own[name] - params[name] for name in params}


def train(make: Callable[[Params], fs.Optimizer]) -> list[float]:
    """The loss on unseen examples after each round."""
    clients, unseen = examples()
    rng = np.random.default_rng(1)
    params = {"w": np.zeros(INPUTS), "b": np.zeros(1)}
    server, losses = make(params), list[float]()
    for _ in range(ROUNDS):
        invited = rng.choice(CLIENTS, INVITED, replace=False)
        changes = [change(params, clients[i]) for i in invited]
        server.step({name: np.mean([each[name] for each in changes], axis=0) for name in params})
        losses.append(loss(params, unseen))
    return losses


def main() -> None:
    for name, make in SERVERS.items():
        losses = train(make)
        print(f"{name:>10}    loss {losses[9]:.6f} after 10 rounds    {losses[-1]:.6f} at the end")


if __name__ == "__main__":
    main()
