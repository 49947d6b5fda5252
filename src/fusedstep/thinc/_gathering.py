"""All parameters of a model in one step, where thinc calls its optimizer for each by itself.

`Model.finish_update` calls the optimizer parameter by parameter, and each has to be stepped when
its call returns: whoever reads it next wants the new values. The optimizer cannot know which call
is the last. So the model's method is where parameters can be gathered, and it is taken over here
for the optimizers of this package alone; any other goes through thinc's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Any, NamedTuple

from thinc.model import Model

from fusedstep.thinc._steps import Key


class Gathered(NamedTuple):
    """All parameters with a gradient of a model, in thinc's order."""

    keys: list[Key]
    weights: list[Any]
    grads: list[Any]


def is_served_elsewhere(nodes: Sequence[Any]) -> bool:
    """Whether another process serves parameters of some node."""
    return any(node._params.proxy is not None for node in nodes)  # noqa: SLF001  see `gather`


def gather(nodes: Sequence[Any]) -> Gathered:
    """Gather parameters. thinc's own accessors would take as long as all else, so the dicts
    behind them are read."""
    keys, weights, grads = [], [], []
    for node in nodes:
        server = node._params  # noqa: SLF001
        known = server._grads  # noqa: SLF001
        if known:
            number, held = node.id, server._params  # noqa: SLF001
            for name in node._has_params:  # noqa: SLF001
                key = number, name
                if key in known:
                    keys.append(key)
                    weights.append(held[key])
                    grads.append(known[key])
    return Gathered(keys, weights, grads)


def one_by_one(nodes: Sequence[Any], optimizer: Any) -> None:
    """Call an optimizer for each parameter, as thinc does."""
    for node in nodes:
        for name in node.param_names:
            if node.has_grad(name):
                key = node.id, name
                p, _ = optimizer(key, node.get_param(name), node.get_grad(name))
                node.set_param(name, p)


def take_over(stepper: type) -> None:
    """Let optimizers of a type step whole models, by their own `finish_update`."""
    thincs = Model.finish_update

    @wraps(thincs)
    def finish_update(self: Any, optimizer: Any) -> None:
        if not (isinstance(optimizer, stepper) and optimizer.finish_update(self)):
            thincs(self, optimizer)

    Model.finish_update = finish_update
