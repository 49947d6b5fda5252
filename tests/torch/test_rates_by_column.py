"""Arrays as learning rates of torch's classes: each column as if it were a tensor of its own."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from cases import differing_bits
from marks import needs
from random_arrays import Array

needs("torch", "torch")
import torch  # noqa: E402

import fusedstep.torch as fst  # noqa: E402

RATES = np.array([0.1, 0.2, 0.2])
KINDS = ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "NAdam", "Lion"]


def gradient(k: int, by_rows: bool, column: Any = slice(None)) -> torch.Tensor:
    """A dense gradient, or a sparse one that is not coalesced."""
    values = np.random.default_rng(k).normal(size=(6, 3)).astype(np.float32)
    g = torch.from_numpy(values)[:, column].clone()
    if not by_rows or k % 3 == 2:
        return g
    index = torch.tensor([[k % 6, 2, 2]])
    return torch.sparse_coo_tensor(index, g[:3], g.shape, check_invariants=True)


def start() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(9).normal(size=(6, 3)).astype(np.float32))


def in_columns(kind: str, by_rows: bool, **options: Any) -> Array:
    """Where an optimizer for each column, with a number as its rate, leaves them."""
    found = []
    for at, lr in enumerate(RATES.tolist()):
        p = torch.nn.Parameter(start()[:, at : at + 1].clone())
        optimizer = getattr(fst, kind)([p], lr=lr, **options)
        for k in range(6):
            p.grad = gradient(k, by_rows, slice(at, at + 1))
            optimizer.step()
        optimizer.catch_up()
        found.append(p.detach().numpy())
    return np.concatenate(found, axis=1)


def given_to(kind: str, how: str, p: Any, **options: Any) -> Any:
    """An optimizer with these rates, in one of the ways in which they are given."""
    make = getattr(fst, kind)
    if how == "constructor":
        return make([p], lr=RATES, **options)
    rates = torch.from_numpy(RATES) if "tensor" in how else RATES
    if "group" in how:
        return make([{"params": [p], "lr": rates}], **options)
    optimizer = make([p], lr=0.5, **options)
    optimizer.param_groups[0]["lr"] = rates
    return optimizer


@pytest.mark.parametrize("by_rows", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_tensors_of_their_own(kind: str, by_rows: bool) -> None:
    for options in ({"untouched": "frozen"}, {"untouched": "exact"}) if by_rows else ({},):
        expected = in_columns(kind, by_rows, **options)
        for how in ("constructor", "group", "tensor in a group", "assigned", "tensor assigned"):
            p = torch.nn.Parameter(start())
            optimizer = given_to(kind, how, p, **options)
            for k in range(6):
                p.grad = gradient(k, by_rows)
                optimizer.step()
            optimizer.catch_up()
            assert differing_bits(p.detach().numpy(), expected) == 0, (how, options)


def test_rates_come_and_go() -> None:
    p = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = fst.SGD([p], lr=1.0)
    for lr in (np.array([0.5, 0.25]), 1.0, torch.tensor([1.0, 0.0])):
        optimizer.param_groups[0]["lr"] = lr
        p.grad = torch.ones(2, 2)
        optimizer.step()
    assert p.tolist() == [[-1.5, -0.25], [-1.5, -0.25]]


def test_a_scheduler() -> None:
    p = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = fst.SGD([p], lr=np.array([1.0, 2.0]))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (t + 1))
    for _ in range(2):
        p.grad = torch.ones(2, 2)
        optimizer.step()
        scheduler.step()
    assert p.tolist() == [[-1.5, -3.0], [-1.5, -3.0]]


def test_runs_go_on() -> None:
    p, q = (torch.nn.Parameter(start()) for _ in range(2))
    one, other = fst.AdamW([p], lr=RATES), fst.AdamW([q])
    for k in range(6):
        if k == 3:
            q.data.copy_(p.data)
            other.load_state_dict(copy.deepcopy(one.state_dict()))
        p.grad, q.grad = gradient(k, False), gradient(k, False)
        one.step()
        other.step()
    assert torch.equal(p, q)


@pytest.mark.parametrize(
    ("lr", "error", "match"),
    [
        (np.ones(4), ValueError, r"shape \(4,\).*pass one of shape \(3,\), or a number"),
        (-np.ones(3), ValueError, r"lr\[0\] is -1.0; pass 0 or more"),
        (np.array([True] * 3), TypeError, "pass an array of float64"),
    ],
)
def test_refused(lr: Array, error: type[Exception], match: str) -> None:
    for how in ("constructor", "assigned"):
        p = torch.nn.Parameter(start())
        optimizer = fst.SGD([p], lr=lr if how == "constructor" else 0.5)
        optimizer.param_groups[0]["lr"] = lr
        p.grad = gradient(0, False)
        with pytest.raises(error, match=match):
            optimizer.step()
        assert torch.equal(p, start())
        optimizer.param_groups[0]["lr"] = 0.5
        optimizer.step()


def test_a_tensor_is_refused_by_the_constructor_as_torch_does() -> None:
    for kind in ("SGD", "AdamW", "Lion"):
        with pytest.raises(ValueError, match="Tensor lr must be 1-element"):
            getattr(fst, kind)([torch.nn.Parameter(start())], lr=torch.from_numpy(RATES))


def test_what_is_stepped_whole() -> None:
    narrow = torch.nn.Parameter(start().bfloat16())
    number = torch.nn.Parameter(torch.ones(3))
    for p, error, match in (
        (narrow, TypeError, "of 16 bits; pass a parameter of float32, or a number as `lr`"),
        (number, ValueError, "single numbers"),
    ):
        optimizer = fst.Adam([p], lr=RATES)
        p.grad = torch.ones_like(p)
        with pytest.raises(error, match=match):
            optimizer.step()
