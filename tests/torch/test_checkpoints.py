"""Checkpoints of torch's optimizers and ours, and from one to the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marks import needs

torch = needs("torch", "torch")

import fusedstep as fs  # noqa: E402
import fusedstep.torch  # noqa: E402

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("Adagrad", {}),
    ("RMSprop", {"centered": True, "momentum": 0.5}),
    ("Adam", {"amsgrad": True}),
    ("AdamW", {"lr": torch.tensor(0.01), "betas": (0.8, 0.9)}),
    ("NAdam", {}),
    ("RAdam", {}),
    ("Adamax", {}),
]


def model(dtype: Any = None) -> Any:
    torch.manual_seed(1)
    made = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)
    )
    return made if dtype is None else made.to(dtype)


def train(net: Any, opt: Any, steps: int = 3) -> None:
    torch.manual_seed(2)
    for _ in range(steps):
        opt.zero_grad()
        net(torch.randn(8, 4, dtype=net[0].weight.dtype)).float().square().sum().backward()
        opt.step()


def same(one: Any, other: Any) -> bool:
    """Whether two state dicts are the same to the bit, types of their entries included."""
    if isinstance(one, torch.Tensor):
        return bool(one.dtype == other.dtype and torch.equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize("package", [torch.optim, fusedstep.torch], ids=["torch", "fusedstep"])
@pytest.mark.parametrize(("name", "options"), KINDS, ids=str)
def test_state_dicts_come_back(
    package: Any, name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    net, again = model(), model()
    for p in again.state_dict().values():
        p.zero_()
    opt = getattr(package, name)(net.parameters(), **options)
    train(net, opt)
    fs.save(tmp_path / "run", opt, params=net, metadata={"epoch": 1})
    other = getattr(package, name)(again.parameters())
    assert fs.load(tmp_path / "run", other, params=again) == {"epoch": 1}
    assert same(other.state_dict(), opt.state_dict())
    assert same(again.state_dict(), net.state_dict())
    train(net, opt)
    train(again, other)
    assert same(again.state_dict(), net.state_dict())


@pytest.mark.parametrize(
    "options", [{}, {"state_dtype": "bfloat16"}, {"master": "split8"}, {"master": False}], ids=str
)
def test_what_is_kept_in_fewer_bytes_comes_back(options: dict[str, Any], tmp_path: Path) -> None:
    net, again = model(torch.bfloat16), model(torch.bfloat16)
    opt = fusedstep.torch.AdamW(net.parameters(), **options)
    train(net, opt)
    fs.save(tmp_path / "run", opt, params=net)
    other = fusedstep.torch.AdamW(again.parameters(), **options)
    fs.load(tmp_path / "run", other, params=again)
    assert same(other.state_dict(), opt.state_dict())
    assert all(map(torch.equal, other.float32_params(), opt.float32_params()))
    train(net, opt)
    train(again, other)
    assert same(again.state_dict(), net.state_dict())


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"])
def test_ours_and_torchs_load_one_anothers(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    net = model()
    named = dict(net.named_parameters())
    opt = getattr(fusedstep.torch, name)(net.parameters(), lr=0.01, **options)
    train(net, opt)
    digest = fs.save(tmp_path / "torch", opt, params=named)

    arrays = {key: np.zeros(p.shape, np.float32) for key, p in named.items()}
    ours = getattr(fs, name)(arrays)
    fs.load(tmp_path / "torch", ours)
    counted = name != "SGD"  # whose steps torch does not count
    assert (ours.digest() == digest) or not counted
    assert ours.lr == 0.01
    assert all((arrays[key] == p.detach().numpy()).all() for key, p in named.items())

    fs.save(tmp_path / "numpy", ours)
    again = model()
    for p in again.parameters():
        p.detach().zero_()
    other = getattr(torch.optim, name)(again.parameters(), **options)
    fs.load(tmp_path / "numpy", other, params=dict(again.named_parameters()))
    assert other.param_groups[0]["lr"] == 0.01
    for key, p in again.named_parameters():
        assert torch.equal(p, named[key])
    mine, theirs = opt.state_dict()["state"], other.state_dict()["state"]
    assert mine.keys() == theirs.keys()
    assert all(same(mine[k][e], theirs[k][e]) for k in mine for e in mine[k] if e != "step")
    assert all(float(mine[k]["step"]) == float(theirs[k]["step"]) for k in mine if counted)


def test_the_digest_is_that_of_our_own_class_over_the_same_numbers() -> None:
    net = model()
    opt = fusedstep.torch.AdamW(net.named_parameters(), amsgrad=True)
    arrays = {name: p.detach().numpy().copy() for name, p in net.named_parameters()}
    ours = fs.AdamW(arrays, amsgrad=True)
    train(net, opt, 1)
    ours.step({name: p.grad.numpy() for name, p in net.named_parameters()})
    assert opt.digest() == ours.digest()


def test_names_come_from_params_or_the_groups_or_are_numbers(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    net = model()
    for given, params, expected in [
        (net.parameters(), None, "params.0"),
        (net.named_parameters(), None, "params.0.weight"),
        (net.parameters(), net, "params.1.running_mean"),
        (net.parameters(), net.named_parameters(), "params.2.bias"),
        (net.parameters(), [*net.parameters()], "params.5"),
    ]:
        fs.save(tmp_path / "run", torch.optim.AdamW(given), params=params)
        assert expected in safetensors.load_file(tmp_path / "run")


def test_what_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    net = model()
    opt = torch.optim.AdamW(net.parameters())
    train(net, opt)
    fs.save(tmp_path / "run", opt, params=net)
    again = model()
    train(again, torch.optim.SGD(again.parameters(), lr=0.1))
    before = {name: p.clone() for name, p in again.state_dict().items()}
    wide = model().double()
    small = torch.nn.Sequential(torch.nn.Linear(4, 3))
    for other, params, message in [
        (torch.optim.Adam(again.parameters()), again, "a checkpoint of AdamW, and this is Adam"),
        (torch.optim.AdamW(again.parameters()), dict(again.named_parameters()), "`params` lacks"),
        (torch.optim.AdamW(small.parameters()), small, "and this optimizer's parameters"),
        (torch.optim.AdamW(wide.parameters()), wide, "as torch.float32"),
        (torch.optim.AdamW(again.parameters()), None, "lacks '0', '1'"),
        (torch.optim.AdamW(again.parameters()), small, "lacks the optimizer's parameter 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            fs.load(tmp_path / "run", other, params=params)
        assert other.state_dict()["state"] == {}
    assert same(again.state_dict(), before)
    with pytest.raises(TypeError, match=r"params\['a'\] is .*; pass the model"):
        fs.save(tmp_path / "run", opt, params={"a": np.zeros(3)})


def test_tensors_that_files_do_not_have_are_refused(tmp_path: Path) -> None:
    p = torch.nn.Parameter(torch.zeros(3, dtype=torch.complex64))
    with pytest.raises(TypeError, match="complex64, and files have F64"):
        fs.save(tmp_path / "run", torch.optim.SGD([p], lr=0.1))
    assert not (tmp_path / "run").exists()
