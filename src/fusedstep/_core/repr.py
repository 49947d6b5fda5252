"""An optimizer in one line: the shapes of its parameters, and what differs from the defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

from fusedstep._arrays.dtypes import dtype_name
from fusedstep._arrays.structure import Branch, Dict, Structure
from fusedstep._arrays.walk import Array
from fusedstep._core.groups import Group, base_rate

MOST = 8
"""Parameters of a group that are shown one by one; of more only the number is."""


def show(
    kind: type,
    structure: Structure,
    arrays: Sequence[Array],
    groups: Sequence[Group],
    options: Mapping[str, Any],
) -> str:
    """The call that makes such an optimizer, with dtypes and shapes in the place of arrays.

    Groups that were passed as mappings are shown as such, each with what differs in it.
    `options` are arguments that all groups share.
    """
    defaults = {name: each.default for name, each in signature(kind).parameters.items()}
    changed = [_changed(group.hyperparameters, defaults) for group in groups]
    common = {
        name: value
        for name, value in changed[0].items()
        if all(name in other and other[name] == value for other in changed)
    }
    common |= {name: value for name, value in options.items() if value != defaults.get(name)}
    rest = iter(arrays)
    if groups[0].where:
        assert isinstance(structure, Branch)
        shown = []
        for child, own in zip(structure.children.values(), changed, strict=True):
            values = "".join(f", {k!r}: {v!r}" for k, v in own.items() if k not in common)
            shown.append(f"{{'params': {_shapes(child, rest)}{values}}}")
        params = f"[{', '.join(shown)}]"
    else:
        params = _shapes(structure, rest)
    return f"{kind.__name__}({params}{''.join(f', {k}={v!r}' for k, v in common.items())})"


def _changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters that are not what they are where nothing is passed for them."""
    expected = {**defaults, "initial_lr": base_rate(values["lr"])}
    return {
        name: value
        for name, value in values.items()
        if name not in expected or value != expected[name]
    }


def _shapes(structure: Structure, arrays: Iterator[Array]) -> str:
    """The arrays of a structure, in their place."""
    own = [next(arrays) for _ in structure.paths]
    if len(own) > MOST:
        return f"<{len(own):,} parameters of {sum(p.size for p in own):,} elements>"
    return _nested(structure, iter(own))


def _nested(structure: Structure, arrays: Iterator[Array]) -> str:
    if not isinstance(structure, Branch):
        p = next(arrays)
        return f"<{dtype_name(p.dtype)} {p.shape}>"
    items = [(key, _nested(child, arrays)) for key, child in structure.children.items()]
    if isinstance(structure, Dict):
        return f"{{{', '.join(f'{key!r}: {item}' for key, item in items)}}}"
    return f"[{', '.join(item for _, item in items)}]"
