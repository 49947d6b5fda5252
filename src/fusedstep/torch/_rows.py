"""Sparse gradients as rows of their parameters, and the parameters that are stepped by such.

`untouched` of a group says whether it takes rows. A sparse gradient of torch, as of
`nn.Embedding(sparse=True)`, is rows already: its numbers and values are read where they lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from fusedstep._arrays.place import HOST
from fusedstep._checks.wording import describe
from fusedstep._core.names_in_torch import ROW_STEP
from fusedstep._core.rows import Rows, ids_of
from fusedstep._numerics.coefficients import Hyperparameters, Rule
from fusedstep.torch._arrays import HALVES, base, is_distributed, local

WHOLE = "or leave out `untouched`, and pass whole gradients, as of `nn.Embedding(sparse=False)`"
"""The end of errors about parameters that are not stepped by rows."""


def is_sparse(g: Any) -> bool:
    """Whether a gradient is a tensor that is not dense."""
    return bool(local(g).layout is not torch.strided)


def counts_rows(values: Hyperparameters) -> bool:
    """Whether hyperparameters let each row count its own steps."""
    return bool(values["untouched"] == "frozen" and values["row_steps"] == "own")


def needs_counts(counted: bool, rule: Rule) -> bool:
    """Whether a step depends on how many a row has taken.

    Without state, the steps of a rule that does not count are all alike.
    """
    return counted or any(rule.letters)


def rows_of(g: Any, p: Any, name: str) -> Rows:
    """The rows of a sparse gradient of p, over its memory."""
    if g.layout is not torch.sparse_coo or g.sparse_dim() != 1:
        kind = str(g.layout).removeprefix("torch.")
        if g.layout is torch.sparse_coo:
            kind += f" with {g.sparse_dim()} sparse dimensions"
        raise TypeError(
            f"{name} is {kind}, and rows are numbered along one dimension; pass "
            "`p.grad.to_dense().to_sparse(1)`"
        )
    if (*g.shape,) != p.shape:
        raise ValueError(
            f"{name} has shape {(*g.shape,)}, its parameter {p.shape}; they must be equal"
        )
    g = base(g.detach())
    return Rows(g._indices()[0], g._values())  # noqa: SLF001  the public ones want it coalesced


def refuse_rows(parameter: Any, narrow: bool, why: str, remedy: str, path: str) -> None:
    """Refuse to step a parameter by rows that is stepped whole.

    `narrow` says that its state has fewer bytes; `why` begins the error, and `remedy` ends it.
    """
    what = f"{why}, and params{path} is"
    if is_distributed(parameter):
        raise TypeError(f"{what} distributed; pass a parameter that each process has, {remedy}")
    if parameter.is_complex():
        raise TypeError(
            f"{what} complex; pass its real view, `torch.view_as_real(p)`, as parameter, {remedy}"
        )
    if parameter.dtype in HALVES:
        raise TypeError(f"{what} of 16 bits; pass a parameter of float32, {remedy}")
    if narrow:
        raise TypeError(
            f"{what} in a group whose `state_dtype` is of fewer bytes; put it into one with "
            f"`state_dtype='float32'`, {remedy}"
        )


def wanted_rows(rows: Any, parameters: list[Any], paths: Iterable[str]) -> dict[int, Any]:
    """The numbers of the rows that a user names, by the place of their parameter."""
    if not isinstance(rows, Mapping):
        if len(parameters) != 1:
            raise TypeError(
                f"rows is {describe(rows)}, and the optimizer has {len(parameters)} parameters; "
                "pass a mapping, as `{embedding.weight: index}`"
            )
        rows = {parameters[0]: rows}
    places = {id(p): at for at, p in enumerate(parameters)}
    names = [*paths]
    found = {}
    for p, given in rows.items():
        at = places.get(id(p))
        if at is None:
            raise ValueError(
                f"rows has {describe(p)}, which is no parameter of the optimizer; pass a mapping "
                "from its parameters, as `{embedding.weight: index}`"
            )
        if isinstance(given, torch.Tensor):
            given = given.detach().cpu()
            if given.dtype is not torch.bool:
                given = given.reshape(-1)  # a batch of tokens may have any shape
        found[at] = ids_of(given, local(p).detach(), HOST, f"rows{names[at]}")
    return found


def row_steps(
    existing: Mapping[str, Any], rows: int, values: Hyperparameters, most: int | None, path: str
) -> Any:
    """The steps of each row as a state has them; None: it has none, or rows do not count.

    `most` is the number of steps that a row can have taken; None: it is not known.
    """
    given = existing.get(ROW_STEP)
    if given is None:
        return None
    name = f"{ROW_STEP}{path}"
    if not isinstance(given, torch.Tensor) or given.shape != (rows,) or given.is_floating_point():
        raise ValueError(
            f"{name} is {describe(given)}; it has the steps of {rows} rows, as int64: load what "
            "state_dict() returned"
        )
    kept = base(given.detach()).to(device="cpu", dtype=torch.int64).contiguous()
    if rows and (kept.min() < 0 or (most is not None and kept.max() > most)):
        raise ValueError(
            f"{name} has counts of steps that are below 0, or above the parameter's; load what "
            "state_dict() returned"
        )
    if not counts_rows(values):
        if rows and (kept != (kept.max() if most is None else most)).any():
            raise ValueError(
                f"{name} has rows that have taken fewer steps than others; make the optimizer with "
                "`untouched='frozen', row_steps='own'`, or delete that entry"
            )
        return None
    return given if kept.data_ptr() == given.data_ptr() and type(given) is torch.Tensor else kept
