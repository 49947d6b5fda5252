"""Models of thinc, their gradients, and what an optimizer left of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from marks import needs

Optimizer: Any = needs("thinc.optimizers", "thinc").Optimizer
thinc: Any = needs("thinc.api", "thinc")


def network(width: int = 9, depth: int = 3, seed: int = 0) -> Any:
    """A chain of layers with random parameters."""
    model = thinc.chain(*[thinc.Relu(width, width) for _ in range(depth)])
    zeros = np.zeros((2, width), np.float32)
    model.initialize(zeros, zeros)
    rng = np.random.default_rng(seed)
    for node, name in parameters(model):
        node.set_param(name, normal(rng, node.get_param(name).shape))
    return model


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def parameters(model: Any) -> list[tuple[Any, str]]:
    return [(node, name) for node in model.walk() for name in node.param_names]


def set_gradients(model: Any, rng: np.random.Generator) -> None:
    """New values in the model's gradients: of some the norm is far above 1, of others below."""
    for node, name in parameters(model):
        g = normal(rng, node.get_param(name).shape) * np.float32(rng.choice([1e-3, 0.1, 3.0]))
        if node.has_grad(name):
            node.get_grad(name)[...] = g
        else:
            node.set_grad(name, g)


def train(
    model: Any, optimizer: Any, steps: int = 8, seed: int = 1, one_by_one: bool = False
) -> None:
    """Step a model with gradients that depend on the seed alone."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        set_gradients(model, rng)
        if one_by_one:
            for node, name in parameters(model):
                key = node.id, name
                p, _ = optimizer(key, node.get_param(name), node.get_grad(name))
                node.set_param(name, p)
        else:
            model.finish_update(optimizer)
        optimizer.step_schedules()


def arrays_of(model: Any, optimizer: Any) -> dict[str, list[Any]]:
    """Copies of all arrays that a step changes, each kind in the order of the parameters."""
    pairs = parameters(model)
    keys = [(node.id, name) for node, name in pairs]
    state = {"mom1": optimizer.mom1, "mom2": optimizer.mom2, "averages": optimizer.averages or {}}
    return {
        "p": [node.get_param(name).copy() for node, name in pairs],
        "g": [node.get_grad(name).copy() for node, name in pairs],
        "t": [np.array(optimizer.nr_update[key]) for key in keys],
        **{name: [held[key].copy() for key in keys if key in held] for name, held in state.items()},
    }


def assert_close(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    """Hold arrays against thinc's, which rounds at other places."""
    assert found.keys() == expected.keys()
    for name, arrays in expected.items():
        assert len(found[name]) == len(arrays)
        for x, y in zip(found[name], arrays, strict=True):
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
            np.testing.assert_allclose(x, y, rtol=3e-5, atol=3e-6, err_msg=name)


def assert_same(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    """Hold arrays against others of this package: to the bit."""
    assert found.keys() == expected.keys()
    for name, arrays in expected.items():
        assert [x.tobytes() for x in found[name]] == [y.tobytes() for y in arrays], name
