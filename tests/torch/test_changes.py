"""Changes between steps, each made to torch's optimizer and to this package's: both end alike."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from marks import needs

torch = needs("torch", "torch")

from torch_cases import by_torch, farthest, ours, theirs  # noqa: E402

import fusedstep.torch as fst  # noqa: E402

Script = Callable[[Callable[[str], Any]], Any]
"""A function of `ours` or `theirs`; it returns tensors that are to be alike."""


def parameter(*shape: int) -> Any:
    return torch.nn.Parameter(torch.linspace(1, 2, int(np.prod(shape))).reshape(shape))


def give(p: Any, value: float = 1.0) -> None:
    p.grad = torch.full_like(p, value) * torch.linspace(0.5, 1, p.numel()).reshape(p.shape)


def step(optimizer: Any, *params: Any, value: float = 1.0) -> None:
    for p in params:
        give(p, value)
    optimizer.step()


def count(optimizer: Any, p: Any) -> Any:
    return optimizer.state[p]["step"].clone()


# ---- parameters that have no gradient for a while ----


def back_with_other_data(side: Callable[[str], Any]) -> Any:
    a, b = parameter(3), parameter(3)
    optimizer = side("AdamW")([a, b], lr=0.1)
    step(optimizer, a, b)
    b.grad = None
    optimizer.step()
    backup = b.data
    b.data = torch.full((3,), 5.0)
    step(optimizer, b)
    return [a, b, backup]


def back_with_other_count(side: Callable[[str], Any]) -> Any:
    a, b = parameter(3), parameter(3)
    optimizer = side("AdamW")([a, b], lr=0.1)
    for _ in range(5):
        step(optimizer, a, b)
    b.grad = None
    optimizer.step()
    for value in optimizer.state[b].values():
        value.zero_()
    step(optimizer, b, value=0.1)
    return [a, b, count(optimizer, b)]


def back_in_shared_memory(side: Callable[[str], Any]) -> Any:
    a, b = parameter(3), parameter(300_000)
    optimizer = side("SGD")([a, b], lr=0.1)
    step(optimizer, a, b)
    b.grad = None
    optimizer.step()
    b.data.share_memory_()
    step(optimizer, b)
    return [a, b]


# ---- tensors that lie otherwise, in the same memory ----


def transposed(side: Callable[[str], Any]) -> Any:
    p = parameter(3, 3)
    optimizer = side("AdamW")([p], lr=0.1)
    step(optimizer, p)
    p.data = p.data.t()
    step(optimizer, p)
    return [p]


def transposed_in_place(side: Callable[[str], Any]) -> Any:
    p = parameter(3, 3)
    optimizer = side("AdamW")([p], lr=0.1)
    step(optimizer, p)
    with torch.no_grad():
        p.t_()
    optimizer.state[p]["exp_avg"].t_()
    step(optimizer, p)
    return [p]


def reshaped(side: Callable[[str], Any]) -> Any:
    p = parameter(2, 3)
    optimizer = side("SGD")([p], lr=0.1)
    step(optimizer, p)
    p.grad = None
    p.data = p.data.view(3, 2)
    step(optimizer, p)
    return [p]


def stretched(side: Callable[[str], Any]) -> Any:
    base = torch.arange(12.0)
    p = torch.nn.Parameter(base[:6])
    optimizer = side("SGD")([p], lr=0.1)
    step(optimizer, p)
    p.data = base[:12:2]
    step(optimizer, p)
    return [p, base]


# ---- other ways into the state ----


def into_count(reach: Callable[[Any], Any], change: Callable[[Any], Any]) -> Script:
    def script(side: Callable[[str], Any]) -> Any:
        p = parameter(3)
        optimizer = side("AdamW")([p], lr=0.1)
        step(optimizer, p)
        held = reach(optimizer.state[p]["step"])
        for _ in range(3):
            step(optimizer, p)
        change(held)
        step(optimizer, p, value=0.1)
        return [p, count(optimizer, p)]

    return script


def moved_count(move: Callable[[Any], Any]) -> Script:
    def script(side: Callable[[str], Any]) -> Any:
        p = parameter(3)
        optimizer = side("AdamW")([p], lr=0.1)
        step(optimizer, p)
        move(optimizer.state[p]["step"])
        for _ in range(3):
            step(optimizer, p)
        return [p, count(optimizer, p)]

    return script


def set_data(tensor: Any) -> None:
    tensor.data = torch.tensor(7.0)


def moved_moment(side: Callable[[str], Any]) -> Any:
    p = parameter(300_000)
    optimizer = side("AdamW")([p], lr=0.1)
    step(optimizer, p)
    alias = optimizer.state[p]["exp_avg"].detach()
    for _ in range(3):
        step(optimizer, p)
    alias.share_memory_()
    step(optimizer, p)
    return [p, optimizer.state[p]["exp_avg"]]


def by_the_instance_s_dict(side: Callable[[str], Any]) -> Any:
    p = parameter(3)
    optimizer = side("AdamW")([p], lr=0.1)
    for _ in range(3):
        step(optimizer, p)
    vars(optimizer)["state"][p]["step"].zero_()
    step(optimizer, p)
    return [p, count(optimizer, p)]


# ---- hyperparameters ----


def betas_in_a_list(side: Callable[[str], Any]) -> Any:
    p = parameter(3)
    optimizer = side("AdamW")([p], lr=0.1)
    optimizer.param_groups[0]["betas"] = [0.9, 0.999]
    for value in (0.9, 0.1, 0.5):
        optimizer.param_groups[0]["betas"][0] = value
        step(optimizer, p, value=value)
    return [p]


def betas_in_an_array(side: Callable[[str], Any]) -> Any:
    p = parameter(3)
    optimizer = side("AdamW")([p], lr=0.1)
    step(optimizer, p)
    optimizer.param_groups[0]["betas"] = np.array([0.5, 0.9])
    step(optimizer, p)
    return [p]


def scaled_and_differentiable(name: str) -> Script:
    def script(side: Callable[[str], Any]) -> Any:
        p = parameter(3)
        optimizer = side(name)([p], differentiable=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        with torch.no_grad():
            p.requires_grad_(False)
        give(p, 1024.0)
        scaler.scale(torch.zeros(1))
        scaler.step(optimizer)
        return [p]

    return script


def other_entries_in_state(side: Callable[[str], Any]) -> Any:
    p = parameter(3)
    optimizer = side("AdamW")([p], lr=0.1)
    optimizer.state["epoch"] = 3
    for _ in range(3):
        step(optimizer, p)
    assert optimizer.state_dict()["state"]["epoch"] == 3
    return [p]


def on_another_default_device(side: Callable[[str], Any]) -> Any:
    p, q = parameter(3), torch.nn.Parameter(parameter(3).data.bfloat16())
    optimizer = side("AdamW")([p, q], lr=0.1)
    with torch.device("meta"):
        for each in (p, q):
            each.grad = torch.ones_like(each)
        optimizer.step()
    return [p, q.float()]


def gradients_of_another_dtype(side: Callable[[str], Any]) -> Any:
    p = parameter(3)
    if not hasattr(p, "grad_dtype"):
        pytest.skip("this torch has no `grad_dtype`")
    p.grad_dtype = torch.bfloat16
    optimizer = side("SGD")([p], lr=0.1)
    for _ in range(3):
        p.grad = torch.ones(3, dtype=torch.bfloat16)
        optimizer.step()
    return [p]


SCRIPTS: dict[str, Script] = {
    each.__name__: each
    for each in (
        *(back_with_other_data, back_with_other_count, back_in_shared_memory),
        *(transposed, transposed_in_place, reshaped, stretched),
        *(moved_moment, by_the_instance_s_dict, betas_in_a_list, betas_in_an_array),
        *(other_entries_in_state, on_another_default_device, gradients_of_another_dtype),
    )
} | {
    "count by NumPy": into_count(lambda step: step.numpy(), lambda held: held.fill(0)),
    "count by detach": into_count(lambda step: step.detach(), lambda held: held.zero_()),
    "count by view": into_count(lambda step: step.view(1), lambda held: held.zero_()),
    "count by storage": into_count(lambda step: step.untyped_storage(), lambda held: held.fill_(0)),
    "count by weak reference": into_count(weakref.ref, lambda held: held().zero_()),
    "count with other data": moved_count(set_data),
    "count set": moved_count(lambda step: step.set_(torch.tensor(7.0))),
    "count shared": moved_count(lambda step: step.share_memory_()),
    **{
        f"scaled, differentiable {name}": scaled_and_differentiable(name)
        for name in ("SGD", "Adagrad", "Adam", "RMSprop", "RAdam")
    },
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_both_end_alike(script: str) -> None:
    expected = by_torch(lambda: SCRIPTS[script](theirs))
    found = SCRIPTS[script](ours)
    assert farthest(found, expected) <= (1e-2 if "default_device" in script else 1e-5)


# ---- what has no counterpart in torch ----


def test_state_that_lacks_an_array_is_refused() -> None:
    p = parameter(3)
    optimizer = fst.Adam([p])
    step(optimizer, p)
    del optimizer.state[p]["exp_avg_sq"]
    before = p.detach().clone()
    with pytest.raises(KeyError, match="exp_avg_sq"):
        optimizer.step()
    assert torch.equal(p, before)


def test_surplus_targets_are_refused() -> None:
    p = parameter(3)
    with pytest.raises(ValueError, match="1 tensors more than there are parameters"):
        fst.SGD([p], ema=0.5, ema_into=[torch.ones(3), torch.ones(3)])


def test_storages_can_still_be_resized() -> None:
    """Programs do so to free the memory of parameters for a while."""
    p = parameter(3)
    optimizer = fst.AdamW([p])
    step(optimizer, p)
    for tensor in (p, p.grad, *optimizer.state[p].values()):
        assert tensor.untyped_storage().resizable()


def test_functions_and_averages_show_up_in_versions() -> None:
    p, target = torch.ones(3, requires_grad=True), torch.ones(3)
    loss = (p * p).sum()
    with torch.no_grad():
        arguments: dict[str, Any] = {
            "lr": 0.1,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "dampening": 0.0,
        }
        fst.functional.sgd(
            [p], [torch.ones(3)], [None], nesterov=False, maximize=False, **arguments
        )
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    q, before = parameter(3), target._version  # noqa: SLF001
    optimizer = fst.SGD([q], ema=0.5, ema_into=[target])
    step(optimizer, q)
    assert target._version > before  # noqa: SLF001


@pytest.mark.parametrize("tensor", [False, True], ids=["number", "tensor"])
def test_decay_by_schedule_is_measured_by_the_first_rate(tensor: bool) -> None:
    def run(kind: Callable[[float], Any]) -> Any:
        p = parameter(3)
        optimizer = fst.AdamW([p], lr=kind(0.1), weight_decay=0.1, decay_scale="schedule")
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        for _ in range(3):
            step(optimizer, p)
            schedule.step()
        return p

    assert torch.equal(run(torch.tensor if tensor else float), run(float))


def test_a_derived_class_need_not_call_the_constructor_here() -> None:
    class Own(fst.SGD):
        def __init__(self, params: Any) -> None:
            defaults = {"lr": 0.5, "momentum": 0, "dampening": 0, "weight_decay": 0}
            torch.optim.Optimizer.__init__(self, params, {**defaults, "nesterov": False})

    p = parameter(3)
    before = p.detach().clone()
    step(Own([p]), p)
    assert torch.equal(p, before - 0.5 * p.grad)
