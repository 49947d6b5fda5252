"""All parameters of a model in one step, where thinc calls its optimizer for each by itself.

`Model.finish_update` calls the optimizer parameter by parameter, and each has to be stepped when
its call returns: whoever reads it next wants the new values. The optimizer cannot know which call
is the last. So the model's method is where parameters can be gathered, and it is taken over here
for the optimizers of this package alone; any other goes through thinc's own.
"""

# ruff: noqa: SLF001

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Any, NamedTuple

import thinc.model

from fusedstep.thinc._steps import Key


class Gathered(NamedTuple):
    """All parameters of a model that have a gradient, in thinc's order."""

    keys: list[Key]
    weights: list[Any]
    grads: list[Any]


def gather(nodes: Sequence[Any]) -> Gathered | None:
    """Gather the parameters of a model's nodes; None if another process serves some of them.

    thinc's own accessors would take as long as all else, so the dicts behind them are read.
    """
    keys, weights, grads = [], [], []
    for node in nodes:
        server = node._params
        if server.proxy is not None:
            return None
        known = server._grads
        if known:
            number, held = node.id, server._params
            for name in node._has_params:
                key = number, name
                g = known.get(key)
                if g is not None:
                    keys.append(key)
                    weights.append(held[key])
                    grads.append(g)
    return Gathered(keys, weights, grads)


def one_by_one(nodes: Sequence[Any], optimizer: Any) -> None:
    """Call an optimizer for each parameter, as thinc does."""
    for node in nodes:
        for name in node.param_names:
            if node.has_grad(name):
                key = node.id, name
                p, _ = optimizer(key, node.get_param(name), node.get_grad(name))
                node.set_param(name, p)


def take_over(stepper: Any) -> None:
    """Let optimizers of a type step whole models, by their own `finish_update`."""
    model: Any = thinc.model.Model
    thincs = model.finish_update

    @wraps(thincs)
    def finish_update(self: Any, optimizer: Any) -> None:
        if not (isinstance(optimizer, stepper) and optimizer.finish_update(self)):
            thincs(self, optimizer)

    model.finish_update = finish_update
