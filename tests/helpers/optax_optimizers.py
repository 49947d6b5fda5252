"""Functions that make optax transformations, and have the names of optax's own."""

from __future__ import annotations

from typing import Any

import optax


def adam(learning_rate: float = 1e-3) -> Any:
    """SGD with momentum, under the name of another."""
    return optax.chain(optax.trace(0.9), optax.scale(-learning_rate))


def sgd(learning_rate: float = 1e-3) -> Any:
    """SGD with a momentum that is no argument."""
    return optax.chain(optax.trace(0.9), optax.scale(-learning_rate))


def lion(
    learning_rate: float = 1e-3, b1: float = 0.9, b2: float = 0.99, weight_decay: float = 0.0
) -> Any:
    """Lion, which takes what optax's takes."""
    return optax.lion(learning_rate, b1, b2, weight_decay=weight_decay)
