"""Steps during the backward pass."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from marks import needs

torch = needs("torch", "torch")

from torch_cases import ALL, ours, same_bits  # noqa: E402

import fusedstep.torch as fst  # noqa: E402


def model(depth: int = 3) -> Any:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(6, 6) for _ in range(depth)]
    return torch.nn.Sequential(*layers)


def train(net: Any, optimizer: Any, steps: int = 4) -> None:
    for step in range(steps):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        (net(x) ** 2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", ALL)
def test_the_bits_are_those_of_ordinary_steps(name: str) -> None:
    one, other = model(), model()
    optimizer, reference = ours(name)(one.parameters()), ours(name)(other.parameters())
    hooks = fst.step_in_backward(one, optimizer)
    schedules = [torch.optim.lr_scheduler.StepLR(each, 1, 0.5) for each in (optimizer, reference)]
    for _ in range(3):
        train(one, optimizer, 1)
        train(other, reference, 1)
        for schedule in schedules:
            schedule.step()
    assert same_bits([*one.parameters()], [*other.parameters()])
    assert optimizer.state_dict()["state"].keys() == reference.state_dict()["state"].keys()
    hooks.remove()
    train(one, optimizer, 2)
    train(other, reference, 2)
    assert same_bits([*one.parameters()], [*other.parameters()])


def test_gradients_are_freed_at_once() -> None:
    net = model(8)
    optimizer = fst.AdamW(net.parameters())
    alive, most = [], []

    def count(p: Any) -> None:
        alive.append(sum(q.grad is not None for q in net.parameters()))
        most.append(max(alive))

    for p in net.parameters():
        p.register_post_accumulate_grad_hook(count)
    with fst.step_in_backward(net, optimizer):
        train(net, optimizer, 2)
    assert max(alive) == 1
    assert all(p.grad is None for p in net.parameters())


def test_a_checkpoint_in_mid_training() -> None:
    one, other = model(), model()
    optimizer, reference = fst.AdamW(one.parameters()), fst.AdamW(other.parameters())
    with fst.step_in_backward(one, optimizer):
        train(one, optimizer, 2)
        optimizer.load_state_dict(optimizer.state_dict())
        train(one, optimizer, 2)
    train(other, reference, 2)
    train(other, reference, 2)
    assert same_bits([*one.parameters()], [*other.parameters()])
    assert {int(state["step"]) for state in optimizer.state.values()} == {4}


@pytest.mark.parametrize(("name", "value"), [("max_norm", 1.0), ("nonfinite", "skip")])
def test_what_needs_all_gradients_is_refused(name: str, value: Any) -> None:
    net = model()
    optimizer = fst.AdamW(net.parameters(), **{name: value})
    with pytest.raises(ValueError, match=f"{name}=.*needs all gradients"):
        fst.step_in_backward(net, optimizer)
    optimizer = fst.AdamW(net.parameters())
    fst.step_in_backward(net, optimizer)
    setattr(optimizer, name, value)
    with pytest.raises(ValueError, match=f"{name}=.*needs all gradients"):
        train(net, optimizer, 1)


def test_gradients_may_be_clipped_each_alone() -> None:
    one, other = model(), model()
    options: dict[str, Any] = {"max_norm": 0.1, "clip": "tensor"}
    optimizer, reference = (fst.AdamW(each.parameters(), **options) for each in (one, other))
    with fst.step_in_backward(one, optimizer):
        train(one, optimizer, 3)
    train(other, reference, 3)
    assert reference.report.clip < 1
    assert same_bits([*one.parameters()], [*other.parameters()])


def test_the_group_that_a_parameter_is_in_counts() -> None:
    net = model()
    first, *others = net.parameters()
    groups = [{"params": [first]}, {"params": others, "lr": 0.0}]
    optimizer = fst.SGD(groups, lr=0.1)
    with fst.step_in_backward(net, optimizer):
        train(net, optimizer, 2)
        optimizer.param_groups[1]["params"].append(optimizer.param_groups[0]["params"].pop())
        before = first.detach().clone()
        train(net, optimizer, 2)
        assert same_bits([first], [before])
        optimizer.param_groups[1]["lr"] = 0.1
        train(net, optimizer, 1)
        assert not same_bits([first], [before])


def test_a_parameter_that_is_in_no_group_any_more_is_left_alone() -> None:
    net = model()
    last = [*net.parameters()][-1]
    optimizer = fst.SGD(net.parameters(), lr=0.1)
    before = last.detach().clone()
    with fst.step_in_backward(net, optimizer):
        optimizer.param_groups[0]["params"].pop()
        net(torch.ones(2, 6)).sum().backward()
    assert same_bits([last], [before])
    assert last.grad is not None


def test_a_grad_scaler_afterwards() -> None:
    net = model()
    optimizer = fst.AdamW(net.parameters())
    with fst.step_in_backward(net, optimizer):
        train(net, optimizer, 2)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(net(torch.ones(2, 6)).sum()).backward()
    scaler.step(optimizer)
    assert {int(state["step"]) for state in optimizer.state.values()} == {3}


def test_threads_of_autograd_take_turns() -> None:
    """It has one for each device, and for each thread that calls it."""
    halves = [model(), model()]
    net = torch.nn.ModuleList(halves)
    optimizer = fst.AdamW(net.parameters())
    start = threading.Barrier(2)
    failures: list[BaseException] = []

    def work(half: Any) -> None:
        try:
            for _ in range(30):
                start.wait()
                half(torch.ones(2, 6)).sum().backward()
        except BaseException as error:
            failures.append(error)
            start.abort()

    with fst.step_in_backward(net, optimizer):
        threads = [threading.Thread(target=work, args=(half,)) for half in halves]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert {int(state["step"]) for state in optimizer.state.values()} == {30}


def test_a_grad_scaler_is_refused() -> None:
    net = model()
    optimizer = fst.AdamW(net.parameters())
    scaler = torch.amp.GradScaler("cpu")
    with fst.step_in_backward(net, optimizer):
        scaler.scale(net(torch.ones(2, 6)).sum()).backward()
        with pytest.raises(RuntimeError, match="has stepped in the backward pass already"):
            scaler.step(optimizer)


def test_models_and_optimizers_that_do_not_fit() -> None:
    net = model()
    with pytest.raises(TypeError, match=r"fusedstep.torch.replace\(optimizer\)"):
        fst.step_in_backward(net, torch.optim.SGD(net.parameters()))
    with pytest.raises(ValueError, match="no parameter of the model"):
        fst.step_in_backward(net, fst.SGD(model().parameters()))
