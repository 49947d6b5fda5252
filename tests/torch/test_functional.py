"""Functions on tensors that the caller owns, against torch's of the same signature."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import pytest
from marks import needs

torch = needs("torch", "torch")

from torch_cases import draw, farthest, parameters  # noqa: E402

from fusedstep.torch import functional  # noqa: E402

MOMENTS: dict[str, Any] = {"weight_decay": 0.1, "lr": 0.05, "beta1": 0.8, "beta2": 0.9, "eps": 1e-6}
ADAM: dict[str, Any] = {**MOMENTS, "amsgrad": True, "maximize": False}

CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "sgd": (
        ["momentum_buffer_list"],
        {
            **{"weight_decay": 0.1, "momentum": 0.9, "lr": 0.1, "dampening": 0.2},
            **{"nesterov": False, "maximize": True},
        },
    ),
    "adagrad": (
        ["state_sums", "state_steps"],
        {"lr": 0.1, "weight_decay": 0.1, "lr_decay": 0.1, "eps": 1e-10, "maximize": False},
    ),
    "rmsprop": (
        ["square_avgs", "grad_avgs", "momentum_buffer_list", "state_steps"],
        {
            **{"lr": 0.1, "alpha": 0.9, "eps": 1e-6, "weight_decay": 0.1, "momentum": 0.9},
            **{"centered": True, "maximize": True},
        },
    ),
    "adam": (["exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "state_steps"], ADAM),
    "adamw": (["exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "state_steps"], ADAM),
    "nadam": (
        ["exp_avgs", "exp_avg_sqs", "mu_products", "state_steps"],
        {**MOMENTS, "momentum_decay": 4e-3, "decoupled_weight_decay": True},
    ),
    "radam": (["exp_avgs", "exp_avg_sqs", "state_steps"], {**MOMENTS, "maximize": True}),
    "adamax": (["exp_avgs", "exp_infs", "state_steps"], MOMENTS),
}

for_each_function = pytest.mark.parametrize("name", CASES)


def torchs(name: str) -> Any:
    return getattr(import_module(f"torch.optim.{name}"), name)


def state(name: str, params: list[Any]) -> dict[str, list[Any]]:
    made: dict[str, list[Any]] = {}
    for key in CASES[name][0]:
        if key == "state_steps":
            made[key] = [torch.tensor(0.0) for _ in params]
        elif key == "mu_products":
            made[key] = [torch.tensor(1.0) for _ in params]
        elif (name, key) == ("sgd", "momentum_buffer_list"):
            made[key] = [None for _ in params]
        else:
            made[key] = [torch.zeros_like(p) for p in params]
    return made


@for_each_function
def test_signatures_are_torchs(name: str) -> None:
    found = inspect.signature(getattr(functional, name)).parameters
    expected = inspect.signature(torchs(name)).parameters
    assert [*found] == [*expected]
    assert [each.kind for each in found.values()] == [each.kind for each in expected.values()]
    assert [each.default for each in found.values()] == [e.default for e in expected.values()]


@for_each_function
def test_steps_are_torchs(name: str) -> None:
    def run(function: Any, **more: Any) -> tuple[list[Any], dict[str, list[Any]]]:
        params = [p.detach() for p in parameters(torch.float64)]
        owned = state(name, params)
        for step in range(5):
            function(params, draw(params, step), *owned.values(), **CASES[name][1], **more)
        return params, owned

    params, owned = run(getattr(functional, name))
    expected, theirs = run(torchs(name), foreach=False)
    assert farthest(params, expected) <= 1e-12
    for key, tensors in theirs.items():
        assert farthest(owned[key], tensors) <= 1e-12


def test_a_scaler_s_scale_and_its_infinities() -> None:
    p, m, v, t = torch.ones(3), torch.zeros(3), torch.zeros(3), torch.tensor(0.0)
    arguments = {**ADAM, "amsgrad": False}
    functional.adam([p], [torch.ones(3)], [m], [v], [], [t], found_inf=torch.ones(()), **arguments)
    assert (p.tolist(), t.item()) == ([1.0] * 3, 0.0)
    q = p.clone()
    lists: list[Any] = [[torch.zeros(3)], [torch.zeros(3)], [], [torch.tensor(0.0)]]
    functional.adam([q], [torch.ones(3)], *lists, **arguments)
    scale = torch.tensor(4.0)
    functional.adam([p], [torch.full((3,), 4.0)], [m], [v], [], [t], grad_scale=scale, **arguments)
    assert torch.equal(p, q)


def test_differentiable_steps_are_torchs_own() -> None:
    def run(function: Any) -> Any:
        p, m, v = (torch.ones(3, dtype=torch.float64) for _ in range(3))
        g = torch.full((3,), 0.5, dtype=torch.float64, requires_grad=True)
        options = {**ADAM, "amsgrad": False, "differentiable": True}
        function([p], [g], [m], [v], [], [torch.tensor(1.0)], **options)
        p.sum().backward()
        return g.grad

    assert torch.equal(run(functional.adam), run(torchs("adam")))


def test_lists_of_different_lengths_are_refused() -> None:
    p, g = torch.ones(3), torch.ones(3)
    arguments = {**ADAM, "amsgrad": False}
    with pytest.raises(ValueError, match="exp_avg has 0 tensors for 1 parameters"):
        functional.adam([p], [g], [], [torch.zeros(3)], [], [torch.tensor(0.0)], **arguments)
    no_tensors: list[Any] = [1]
    with pytest.raises(RuntimeError, match="`state_steps` argument must contain a list"):
        functional.adam([p], [g], [torch.zeros(3)], [torch.zeros(3)], [], no_tensors, **arguments)
    assert p.tolist() == [1.0] * 3


def test_nesterov_with_dampening_is_torchs() -> None:
    given = {**CASES["sgd"][1], "nesterov": True}
    results = []
    for function in (functional.sgd, torchs("sgd")):
        params = parameters(torch.float64)
        buffers: list[Any] = [None] * len(params)
        with torch.no_grad():
            for step in range(3):
                function(params, draw(params, step), buffers, **given)
        results.append([*params, *buffers])
    assert farthest(*results) == 0
