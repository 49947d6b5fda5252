"""Arguments beyond torch's: clipping, averages, NaN, ε inside, decay by schedule."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from marks import needs, on_each_backend

torch = needs("torch", "torch")

from torch_cases import (  # noqa: E402
    ALL,
    copies,
    draw,
    farthest,
    ours,
    parameters,
    same_bits,
    theirs,
    walk,
)

import fusedstep as fs  # noqa: E402
import fusedstep.torch as fst  # noqa: E402
from fusedstep._core.request import Request  # noqa: E402
from fusedstep.torch._whole import Ready, Sharing, whole_step  # noqa: E402

for_each_class = pytest.mark.parametrize("name", ALL)


@for_each_class
def test_clipping_by_the_norm(name: str) -> None:
    params, expected = parameters(torch.float64), parameters(torch.float64)
    optimizer, reference = ours(name)(params, max_norm=2.0), ours(name)(expected)
    for step in range(4):
        for own in (params, expected):
            for p, g in zip(own, draw(own, step), strict=True):
                p.grad = g
        norm = torch.cat([p.grad.flatten() for p in expected]).norm()
        for p in expected:
            p.grad *= min(1.0, 2.0 / norm.item())
        optimizer.step()
        reference.step()
        assert optimizer.report.grad_norm == pytest.approx(norm.item(), rel=1e-12)
    assert farthest(params, expected) <= 1e-12


@for_each_class
def test_clipping_each_gradient_by_its_own_norm(name: str) -> None:
    params, expected = parameters(torch.float64), parameters(torch.float64)
    optimizer = ours(name)(params, max_norm=0.5, clip="tensor")
    reference = ours(name)(expected)
    for step in range(4):
        for own in (params, expected):
            for p, g in zip(own, draw(own, step), strict=True):
                p.grad = g
        norms = [p.grad.norm().item() for p in expected]
        factors = [min(1.0, 0.5 / norm) if norm else 1.0 for norm in norms]
        for p, factor in zip(expected, factors, strict=True):
            p.grad *= factor
        optimizer.step()
        reference.step()
        assert optimizer.report.clip == pytest.approx(min(factors), rel=1e-12)
        assert optimizer.report.grad_norm == pytest.approx(sum(n**2 for n in norms) ** 0.5)
    assert farthest(params, expected) <= 1e-12


@on_each_backend
def test_clipping_each_alone_has_the_bits_of_a_list(backend: str) -> None:
    params = parameters()
    plain = [p.detach().numpy().copy() for p in params]
    optimizer = fst.AdamW(params, 1e-2, max_norm=0.5, clip="tensor", backend=backend)
    reference = fs.AdamW(plain, 1e-2)
    for step in range(3):
        grads = draw(params, step)
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimizer.step()
        report = reference.step([g.numpy() for g in grads], max_norm=0.5, clip="tensor")
        assert optimizer.report.clip == report.clip
    assert same_bits(params, [torch.from_numpy(p) for p in plain])


def test_clipping_each_alone_skips_what_is_not_finite() -> None:
    params = parameters()
    optimizer = fst.AdamW(params, max_norm=0.5, clip="tensor", nonfinite="skip")
    before = copies(params)
    for p, g in zip(params, draw(params, 0), strict=True):
        p.grad = g
    params[1].grad[2] = torch.inf
    optimizer.step()
    assert optimizer.report.skipped == ("params[0]['params'][1]",)
    assert same_bits(params, before)


def test_whose_norm_is_clipped_is_checked() -> None:
    params = parameters()
    with pytest.raises(ValueError, match=r"clip='tensor' says which norms.*max_norm=1\.0"):
        fst.SGD(params, clip="tensor")
    with pytest.raises(ValueError, match=r"clip=1\.0"):
        fst.SGD(params, clip=1.0)  # type: ignore[arg-type]
    optimizer = fst.SGD(params, max_norm=1.0, clip="tensor")
    assert copy.deepcopy(optimizer).clip == "tensor"
    optimizer.clip = "each"
    for p, g in zip(params, draw(params, 0), strict=True):
        p.grad = g
    before = copies(params)
    with pytest.raises(ValueError, match="clip='each'"):
        optimizer.step()
    assert same_bits(params, before)


def test_shards_cannot_be_clipped_alone() -> None:
    request = Request(max_norm=1.0, clip="tensor")
    ready: Any = Ready(None, Sharing(None, (0,)), [], [])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"sharded parameters.*optimizer\.clip = 'global'"):
        whole_step([ready], request, "propagate")


@on_each_backend
@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_gradients_that_are_not_finite(policy: str, backend: str) -> None:
    params = parameters()
    optimizer = fst.AdamW(params, nonfinite=policy, backend=backend)
    walk(optimizer, params, 2)
    before, counts = copies(params), [s["step"].item() for s in optimizer.state.values()]
    for p, g in zip(params, draw(params, 2), strict=True):
        p.grad = g
    params[1].grad[2] = torch.nan
    if policy == "raise":
        with pytest.raises(FloatingPointError, match=r"grads\[0\]\['params'\]\[1\]"):
            optimizer.step()
    else:
        optimizer.step()
        assert optimizer.report.skipped == ("params[0]['params'][1]",)
    assert same_bits(params, before)
    assert [s["step"].item() for s in optimizer.state.values()] == counts


@for_each_class
def test_the_average_of_parameters(name: str) -> None:
    params = parameters(torch.float64)
    averages = copies(params)
    optimizer = ours(name)(params, ema=0.75)
    for step in range(4):
        walk(optimizer, params, 1, step)
        averages = [0.75 * a + 0.25 * p.detach() for a, p in zip(averages, params, strict=True)]
    found = [optimizer.state[p]["ema"] for p in params]
    assert farthest(found, averages) <= 1e-12


@on_each_backend
def test_the_average_may_go_to_tensors_of_the_caller(backend: str) -> None:
    """A target network's, say, of another layout, updated in the step."""
    params = parameters()
    model = torch.nn.ParameterList(params)
    target = copy.deepcopy(model)
    target[0].data = target[0].data.t().contiguous().t()
    expected = copies(target)
    optimizer = fst.Adam(params, ema=0.995, ema_into=target.parameters(), backend=backend)
    for step in range(3):
        walk(optimizer, params, 1, step)
        for a, p in zip(expected, params, strict=True):
            a.data = a.data.double().mul(0.995).add(p.data.double(), alpha=0.005).float()
    assert farthest([*target], expected) <= 1e-6
    assert "ema" not in optimizer.state[params[0]]
    their_params, their_target, other = copy.deepcopy((params, target, optimizer))
    walk(other, their_params, 1, 3)
    walk(optimizer, params, 1, 3)
    assert same_bits([*their_target], [*target])


def test_groups_with_targets_of_their_own() -> None:
    one, other = parameters(shapes=[(3,), (3,)])
    target = torch.zeros(3)
    optimizer = fst.SGD(
        [{"params": [one], "ema": 0.5, "ema_into": [target]}, {"params": [other]}], lr=0.1
    )
    for p in (one, other):
        p.grad = torch.ones(3)
    optimizer.step()
    assert torch.allclose(target, 0.5 * one.detach())
    assert "ema_into" not in optimizer.param_groups[0]


@pytest.mark.parametrize(
    ("targets", "found"),
    [([torch.ones(2)], r"torch.float32 of \[2\]"), ([], "nothing"), ([torch.ones(3).double()], "")],
)
def test_targets_that_do_not_fit(targets: list[Any], found: str) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match=f"ema_into has.*{found}"):
        fst.SGD([p], ema=0.5, ema_into=targets)
    optimizer = fst.SGD([torch.nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match=f"ema_into has.*{found}"):
        optimizer.add_param_group({"params": [p], "ema": 0.5, "ema_into": targets})
    assert len(optimizer.param_groups) == 1


OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{"momentum": 0.9, "lr_in_momentum": True}, {"l1": 0.1}],
    "Adagrad": [{"eps_inside_sqrt": True, "eps": 1e-3}],
    "RMSprop": [{"eps_inside_sqrt": True, "eps": 1e-3}, {"momentum": 0.9, "lr_in_momentum": True}],
    "Adam": [{"eps_uncorrected": True, "eps": 1e-3}, {"bias_correction": False}, {"l1": 0.1}],
    "AdamW": [{"eps_inside_sqrt": True, "eps": 1e-3}, {"bias_correction": False}, {"l1": 0.1}],
    "Lion": [{"weight_decay": 0.1}],
    "Adan": [{"weight_decay": 0.1, "no_prox": True}],
}


@pytest.mark.parametrize(
    ("name", "options"), [(name, each) for name, some in OPTIONS.items() for each in some]
)
def test_options_are_those_of_the_plain_optimizer(name: str, options: dict[str, Any]) -> None:
    params = parameters()
    arrays = [p.detach().numpy().copy() for p in params]
    optimizer = ours(name)(params, lr=0.01, **options)
    plain = getattr(fs, name, None) or getattr(fs.rules, name)
    more = {"weight_decay": 1e-2} if name == "AdamW" else {}
    reference = plain(arrays, lr=0.01, **more, **options)
    for step in range(5):
        grads = draw(params, step)
        reference.step([g.numpy() for g in grads])
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimizer.step()
    assert same_bits(params, [torch.from_numpy(array) for array in arrays])


def test_decay_by_schedule() -> None:
    """A scheduler of torch's leaves the first rate in the group."""
    params = parameters(torch.float64)
    arrays = [p.detach().numpy().copy() for p in params]
    optimizer = fst.AdamW(params, lr=0.1, weight_decay=0.01, decay_scale="schedule")
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    reference = fs.AdamW(arrays, lr=0.1, weight_decay=0.01, decay_scale="schedule")
    for step in range(4):
        grads = draw(params, step)
        reference.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"]
        reference.step([g.numpy() for g in grads])
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimizer.step()
        schedule.step()
    assert same_bits(params, [torch.from_numpy(array) for array in arrays])


@for_each_class
def test_options_of_this_package_are_saved_with_the_groups(name: str) -> None:
    params, others = parameters(), parameters()
    optimizer = ours(name)(params, l1=0.25, ema=0.5)
    other = ours(name)(others)
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["l1"] == 0.25
    if hasattr(torch.optim, name):
        back = theirs(name)(params)
        saved = back.state_dict()
        optimizer.load_state_dict(saved)
        assert optimizer.param_groups[0]["l1"] == 0.25


def test_a_state_dict_without_them_is_torchs_to_the_letter() -> None:
    params = parameters()
    optimizer, reference = fst.AdamW(params), torch.optim.AdamW(params)
    assert optimizer.state_dict() == reference.state_dict()


def test_the_report() -> None:
    params = parameters(shapes=[(2,)])
    optimizer = fst.SGD(params, max_norm=1.0)
    params[0].grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    assert optimizer.report == fs.Report(5.0, 0.2, (), 1)
    optimizer.max_norm = None
    optimizer.step()
    assert optimizer.report == fs.Report(None, 1.0, (), 2)


def test_a_policy_that_is_assigned_is_checked() -> None:
    optimizer = fst.SGD(parameters(), lr=0.1)
    optimizer.nonfinite = "skip"
    with pytest.raises(ValueError, match="nonfinite='skpi'"):
        optimizer.nonfinite = "skpi"
    assert optimizer.nonfinite == "skip"
    copied = copy.deepcopy(optimizer)
    assert copied.nonfinite == "skip"
