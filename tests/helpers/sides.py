"""A program's optimizer and arrays on one backend, and the comparison with the other's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from random import Random
from threading import Thread
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from cases import Case, differing_bits
from random_arrays import Array, Blueprint

import fusedstep as fs

Template: TypeAlias = Any
"""A structure with the parameters' numbers in their places."""


def random_template(random: Random, n: int) -> Template:
    """The numbers from 0 to n - 1 in a sequence or a mapping, perhaps nested; alone, 0 itself."""
    if n == 1 and random.random() < 0.5:
        return 0
    names = [f"p{index}" for index in range(n)]
    half = n // 2
    return random.choice(
        [
            [*range(n)],
            tuple(range(n)),
            dict(zip(names, range(n), strict=True)),
            [[*range(half)], {"rest": [*range(half, n)]}] if half else [*range(n)],
        ]
    )


def fill(template: Template, leaves: Any) -> Any:
    """The structure with leaves in place of their numbers."""
    if isinstance(template, int):
        return leaves[template]
    if isinstance(template, dict):
        return {key: fill(item, leaves) for key, item in template.items()}
    return type(template)(fill(item, leaves) for item in template)


def read(template: Template, structure: Any) -> Iterator[Any]:
    """The leaves of a structure, in the order of their numbers."""
    if isinstance(template, int):
        yield structure
    else:
        items = template.items() if isinstance(template, dict) else enumerate(template)
        for key, item in items:
            yield from read(item, structure[key])


class Setup(NamedTuple):
    """The beginning of a program: an optimizer, its parameters and its groups."""

    case: Case
    options: dict[str, Any]
    blueprints: list[Blueprint]
    template: Template
    groups: list[dict[str, Any]]
    """Hyperparameters in which each group differs; empty if there are no groups."""
    arena: bool

    def make(self, backend: str, params: list[Array]) -> Any:
        """The optimizer, over parameters that `blueprints` made."""
        given = fill(self.template, params)
        if self.groups:
            pairs = zip(given, self.groups, strict=True)
            given = [{"params": each, **differences} for each, differences in pairs]
        if self.arena:
            given = fs.Arena(given)
        return self.case.optimizer(given, backend=backend, **self.options)


class Side:
    """A program on one backend: its optimizer, its arrays, and what it has saved."""

    def __init__(self, setup: Setup, backend: str) -> None:
        self.backend = backend
        self.template = setup.template
        self.watched = [blueprint.make() for blueprint in setup.blueprints]
        self.grads: list[Any] = [None] * len(self.watched)
        """The gradients of the last step."""
        self.saved: list[tuple[Any, Any]] = []
        """State dicts, each with a copy of it that nothing else knows."""
        self.take_up(setup.make(backend, [watched.view for watched in self.watched]))

    def take_up(self, optimizer: Any) -> None:
        """Go on with another optimizer."""
        self.optimizer = optimizer
        if optimizer.arena is None:
            groups = optimizer.param_groups
            self.params: list[Array] = [p for group in groups for p in group["params"]]
        else:
            self.params = [*read(self.template, optimizer.arena.params)]
            self.grads = [*read(self.template, optimizer.arena.grads)]

    def states(self) -> list[dict[str, Any]]:
        return [dict(state) for state in read(self.template, self.optimizer.state)]

    def saved_states(self) -> list[dict[str, Any]]:
        """The same as they are saved."""
        return [*read(self.template, self.optimizer.state_dict()["state"])]

    def seen(self) -> dict[str, Any]:
        """A copy of all that an operation may change, or must not."""
        return copy.deepcopy(
            {
                "p": self.params,
                "grads": self.grads,
                "state": self.states(),
                "groups": [
                    {name: value for name, value in group.items() if name != "params"}
                    for group in self.optimizer.param_groups
                ],
            }
        )

    def step(self, request: dict[str, Any], grads: list[Any] | None = None) -> Any:
        if self.optimizer.arena is not None and grads is None:
            return self.optimizer.step(**request)
        grads = self.grads if grads is None else grads
        return self.optimizer.step(fill(self.template, grads), **request)


def difference(one: Any, other: Any, where: str = "") -> str | None:
    """The first place where two structures differ by a bit; NaN is equal to NaN."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return f"{where}: {one.dtype} {one.shape}, {other.dtype} {other.shape}"
        if one.dtype.kind == "f":
            n = differing_bits(np.asarray(one), np.asarray(other))
        else:
            n = int((one != other).sum())
        return f"{where}: {n} of {one.size} elements" if n else None
    if type(one) is not type(other):
        return f"{where}: {one!r}, {other!r}"
    if isinstance(one, dict):
        if [*one] != [*other]:
            return f"{where}: the keys {[*one]}, {[*other]}"
        pairs: Iterable[Any] = ((key, one[key], other[key]) for key in one)
    elif isinstance(one, (list, tuple)) and len(one) == len(other):
        pairs = ((index, *pair) for index, pair in enumerate(zip(one, other, strict=True)))
    else:
        return (
            None
            if one == other or (one != one and other != other)
            else f"{where}: {one!r}, {other!r}"
        )
    found = (difference(a, b, f"{where}[{key!r}]") for key, a, b in pairs)
    return next(filter(None, found), None)


class Refusal(NamedTuple):
    """An error that an action raised."""

    error: str
    text: str


def attempt(action: Callable[[Any], Any], argument: Any) -> Any:
    """Do it, and give what it returns, or the refusal; what is asserted within must hold."""
    try:
        return action(argument)
    except AssertionError:
        raise
    except Exception as error:
        return Refusal(type(error).__name__, str(error))


def in_a_thread(action: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The action, done by another thread while this one waits."""

    def act(argument: Any) -> Any:
        outcomes: list[Any] = []
        thread = Thread(target=lambda: outcomes.append(attempt(action, argument)))
        thread.start()
        thread.join()
        return outcomes[0]

    return act


def without_new_state(now: dict[str, Any], was: dict[str, Any]) -> dict[str, Any]:
    """The state of now, without arrays that were not there before.

    Also a step that is refused makes room for the state that hyperparameters call for which
    were assigned before it.
    """
    pairs = zip(now["state"], was["state"], strict=True)
    return {**now, "state": [{name: state[name] for name in old} for state, old in pairs]}
