"""Cases of tests of fusedstep.torch: torch's own configurations, and loops on both sides."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
import torch

import fusedstep.torch as fst

OF_TORCH = ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "NAdam", "RAdam", "Adamax")
"""The classes that torch has, too."""

ALL = (*OF_TORCH, "Lion", "Adan")

SHAPES: list[tuple[int, ...]] = [(3, 4), (5,), (), (1, 1), (0, 3), (40, 17)]
"""Shapes of parameters: fewer elements than a vector, some more, none."""

PLAIN_LOOP = {"foreach": False}
"""Arguments of torch's classes for its plain loop, the definition of all others."""


def ours(name: str) -> Any:
    return getattr(fst, name)


def theirs(name: str) -> Any:
    return getattr(torch.optim, name)


def configurations(name: str, dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    """The options of every configuration that torch tests its class with."""
    for info in database():
        if info.optim_cls.__name__ == name:
            for given in info.optim_inputs_func(device="cpu", dtype=dtype):
                yield dict(given.kwargs)


def errors(name: str) -> Iterator[Any]:
    """Arguments that torch tests its class to refuse."""
    for info in database():
        if info.optim_cls.__name__ == name:
            yield from info.optim_error_inputs_func(device="cpu", dtype=torch.float32)


def database() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its testing module
        from torch.testing._internal.common_optimizers import optim_db
    return optim_db


def parameters(
    dtype: torch.dtype = torch.float32, shapes: Sequence[tuple[int, ...]] = SHAPES, seed: int = 0
) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(shape, dtype=dtype, generator=generator)) for shape in shapes
    ]


def draw(params: Sequence[Any], step: int) -> list[torch.Tensor]:
    """Gradients of a step, over several decades."""
    generator = torch.Generator().manual_seed(1000 + step)
    return [
        torch.randn(p.shape, dtype=p.dtype, generator=generator) * 10 ** (step % 5 - 2)
        for p in params
    ]


def walk(
    optimizer: Any,
    params: Sequence[Any],
    steps: int = 5,
    start: int = 0,
    gradients: Callable[[Sequence[Any], int], Sequence[Any]] = draw,
) -> None:
    """Step by gradients that are new tensors each time."""
    for step in range(start, start + steps):
        optimizer.zero_grad()
        for p, g in zip(params, gradients(params, step), strict=True):
            p.grad = g
        optimizer.step()


def by_torch(run: Callable[[], Any]) -> Any:
    """The result of a run of torch's classes; skips where an older torch has none."""
    try:
        return run()
    except (KeyError, RuntimeError) as error:
        if torch.__version__ >= "2.13":
            raise
        pytest.skip(f"torch's own class fails in torch {torch.__version__}: {error!r}")


def copies(params: Sequence[Any]) -> list[Any]:
    return copy.deepcopy([*params])


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bits of a tensor as integers, NaNs by the sign and payload that they have."""
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    real = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
    return real.contiguous().view(kinds[real.element_size()])


def same_bits(ones: Iterable[Any], others: Iterable[Any]) -> bool:
    """Whether two lists of tensors have the same bits."""
    pairs = zip(ones, others, strict=True)
    return all(torch.equal(bits(one), bits(other)) for one, other in pairs)


def farthest(found: Sequence[Any], expected: Sequence[Any]) -> float:
    """The largest difference of two lists of tensors, over the largest element of its tensor."""
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if other.numel():
            largest = other.detach().abs().max().item() or 1.0
            worst = max(worst, (one - other).detach().abs().max().item() / largest)
    return worst
