"""Layers of a network, each with its gradient written out.

`forward` stores what `backward` needs. `backward` takes dJ/dy, fills `grads`, and returns dJ/dx.
Rows are examples; J is a mean over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from parts.methods import Array


class Layer:
    """A layer without parameters; others fill both mappings, with the same keys."""

    def __init__(self) -> None:
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}

    def forward(self, x: Array, training: bool) -> Array:
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        raise NotImplementedError


class Dense(Layer):
    """y = x·w + b; w starts from He's N(0, 2/n), which keeps the size of numbers behind a ReLU."""

    def __init__(self, n: int, m: int, rng: np.random.Generator, dtype: DTypeLike) -> None:
        w = rng.standard_normal((n, m)) * np.sqrt(2 / n)
        self.params = {"w": w.astype(dtype), "b": np.zeros(m, dtype)}
        self.grads = {}

    def forward(self, x: Array, training: bool) -> Array:
        self.x = x
        return x @ self.params["w"] + self.params["b"]

    def backward(self, dy: Array) -> Array:
        self.grads = {"w": self.x.T @ dy, "b": dy.sum(axis=0)}
        return dy @ self.params["w"].T


class ReLU(Layer):
    """y = max(x, 0)."""

    def forward(self, x: Array, training: bool) -> Array:
        self.positive = x > 0
        return x * self.positive

    def backward(self, dy: Array) -> Array:
        return dy * self.positive


class Dropout(Layer):
    """In training, y = 0 with probability q, else x/(1 - q), which keeps the mean; else y = x."""

    def __init__(self, q: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.q, self.rng = q, rng

    def forward(self, x: Array, training: bool) -> Array:
        if not training:
            return x
        kept: Array = np.asarray(self.rng.random(x.shape) >= self.q, x.dtype)
        self.scale = kept / (1 - self.q)
        return x * self.scale

    def backward(self, dy: Array) -> Array:
        return dy * self.scale


class BatchNorm(Layer):
    """y = γ·z + β, z = (x - mean)/√(variance + ε), both over the batch.

    After training, running means m = μ·m + (1 - μ)·(the batch's) take the place of the batch's
    mean and variance.
    """

    def __init__(self, n: int, dtype: DTypeLike, mu: float = 0.9, eps: float = 1e-5) -> None:
        self.params = {"gamma": np.ones(n, dtype), "beta": np.zeros(n, dtype)}
        self.grads = {}
        self.mean: Array = np.zeros(n, dtype)
        self.variance: Array = np.ones(n, dtype)
        self.mu, self.eps = mu, eps

    def forward(self, x: Array, training: bool) -> Array:
        mean, variance = self.mean, self.variance
        if training:
            mean, variance = x.mean(axis=0), x.var(axis=0)
            self.mean = self.mu * self.mean + (1 - self.mu) * mean
            self.variance = self.mu * self.variance + (1 - self.mu) * variance
        self.deviation: Array = np.sqrt(variance + self.eps)
        self.z: Array = (x - mean) / self.deviation
        y: Array = self.params["gamma"] * self.z + self.params["beta"]
        return y

    def backward(self, dy: Array) -> Array:
        # Mean and variance depend on each x, too: dz loses its components along both.
        self.grads = {"gamma": (dy * self.z).sum(axis=0), "beta": dy.sum(axis=0)}
        dz = dy * self.params["gamma"]
        along = self.z * (dz * self.z).mean(axis=0)
        dx: Array = (dz - dz.mean(axis=0) - along) / self.deviation
        return dx


class Network:
    """Layers, one after the other."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = layers

    @property
    def params(self) -> list[dict[str, Array]]:
        return [layer.params for layer in self.layers]

    def forward(self, x: Array, training: bool = False) -> Array:
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def gradients(self, x: Array, y: Any) -> tuple[float, list[dict[str, Array]]]:
        """The mean cross-entropy with the labels y, in training, and its gradients."""
        loss, d = cross_entropy(self.forward(x, training=True), y)
        for layer in reversed(self.layers):
            d = layer.backward(d)
        return loss, [layer.grads for layer in self.layers]

    def accuracy(self, x: Array, y: Any) -> float:
        return float((self.forward(x).argmax(axis=1) == y).mean())


def cross_entropy(scores: Array, y: Any) -> tuple[float, Array]:
    """J = mean -log q_y with q the softmax of a row of scores, and dJ/dscores."""
    scores = scores - scores.max(axis=1, keepdims=True)
    log_q = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    rows = np.arange(len(y))
    d = np.exp(log_q)
    d[rows, y] -= 1
    return -float(log_q[rows, y].mean()), d / len(y)
