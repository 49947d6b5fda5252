"""Checkpoints of torch's optimizers and ours, and from one to the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marks import needs
from sealed import resealed

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


# ---- from one package to the other ----

KEPT: list[tuple[Any, dict[str, Any]]] = [
    (torch.float64, {}),
    (torch.float32, {}),
    (torch.float32, {"state_dtype": "bfloat16"}),
    (torch.float32, {"state_dtype": "8bit"}),
    (torch.bfloat16, {"master": "split16", "state_dtype": "8bit"}),
    (torch.bfloat16, {"master": "split8", "state_dtype": "bfloat16"}),
    (torch.bfloat16, {"master": "float32"}),
    (torch.bfloat16, {"master": False}),
    (torch.float16, {"state_dtype": "8bit"}),
    (torch.bfloat16, {"master": "split8", "ema": 0.9}),
]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
SHAPE = (40, 3, 15, 7)  # of as many elements as have codes of 8 bits, and of no whole tile


class Pair:
    """The same run in torch and in `fusedstep`, over tensors of the same values and layout."""

    def __init__(self, name: str, dtype: Any, layout: Any, options: dict[str, Any]) -> None:
        self.name, self.dtype, self.layout, self.options = name, dtype, layout, options
        torch.manual_seed(1)
        self.p = self.tensor()
        self.own = torch.nn.Parameter(self.p.clone(memory_format=torch.preserve_format))
        self.in_torch = getattr(fusedstep.torch, name)([self.own], **options)
        self.ours = self.class_([self.p], **options)
        self.step(3)

    @property
    def class_(self) -> Any:
        return getattr(fs if self.name in fs.__all__ else fs.rules, self.name)

    def tensor(self) -> Any:
        return torch.randn(SHAPE).to(self.dtype).contiguous(memory_format=self.layout)

    def step(self, times: int) -> None:
        for _ in range(times):
            g = self.tensor()
            self.own.grad = g
            self.in_torch.step()
            self.ours.step([g])

    def is_equal(self) -> bool:
        same = self.in_torch.digest() == self.ours.digest()
        return bool(same and torch.equal(self.own, self.p))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("dtype", "options"), KEPT, ids=str)
@pytest.mark.parametrize("name", ["Adam", "RMSprop", "Lion"])
def test_runs_go_over_from_one_package_to_the_other(
    name: str, dtype: Any, options: dict[str, Any], layout: Any, tmp_path: Path
) -> None:
    options = {**options, "lr": 0.01}
    pair = Pair(name, dtype, layout, options)
    assert pair.is_equal()
    digest = fs.save(tmp_path / "torch", pair.in_torch)
    assert digest == fs.save(tmp_path / "ours", pair.ours)

    q, own = pair.tensor(), torch.nn.Parameter(pair.tensor())
    ours = pair.class_([q], **options)
    in_torch = getattr(fusedstep.torch, name)([own], **options)
    fs.load(tmp_path / "torch", ours)
    fs.load(tmp_path / "ours", in_torch)
    assert ours.digest() == in_torch.digest() == digest
    assert torch.equal(q, pair.p)
    assert torch.equal(own, pair.p)
    for opt, p in ((ours, q), (in_torch, own)):
        if opt is ours:
            pair.ours, pair.p = opt, p
        else:
            pair.in_torch, pair.own = opt, p
    pair.step(2)
    assert pair.is_equal()


def test_whatever_order_of_axes_was_saved_is_read_in_any_other(tmp_path: Path) -> None:
    options: dict[str, Any] = {"lr": 0.01, "master": "split8", "state_dtype": "bfloat16"}
    pair = Pair("AdamW", torch.bfloat16, torch.channels_last, options)
    digest = fs.save(tmp_path / "run", pair.in_torch)
    for make in (fs.AdamW, fusedstep.torch.AdamW):
        for layout in LAYOUTS:
            p = torch.nn.Parameter(torch.zeros(SHAPE, dtype=torch.bfloat16))
            p.data = p.data.contiguous(memory_format=layout)
            opt = make([p.data if make is fs.AdamW else p], **options)
            fs.load(tmp_path / "run", opt)
            assert opt.digest() == digest
            assert torch.equal(p, pair.p)


@pytest.mark.parametrize(
    "options", [{"momentum": 0.9, "dampening": 0.5}, {}, {"ema": 0.9}], ids=str
)
def test_steps_that_torch_does_not_count(options: dict[str, Any], tmp_path: Path) -> None:
    options = {**options, "lr": 0.01}
    pair = Pair("SGD", torch.float32, torch.contiguous_format, options)
    digest = fs.save(tmp_path / "run", pair.in_torch)
    q = torch.zeros(SHAPE)
    ours = fs.SGD([q], **options)
    fs.load(tmp_path / "run", ours)
    assert ours.digest() == digest
    pair.ours, pair.p = ours, q
    pair.step(2)
    assert torch.equal(pair.own, q)

    fs.save(tmp_path / "run", ours)
    own = torch.nn.Parameter(torch.zeros(SHAPE))
    in_torch = fusedstep.torch.SGD([own], **options)
    fs.load(tmp_path / "run", in_torch)
    pair.in_torch, pair.own = in_torch, own
    pair.step(2)
    assert torch.equal(own, q)


@pytest.mark.parametrize("package", [torch.optim, fusedstep.torch], ids=["torch", "fusedstep"])
def test_nadams_product_comes_and_goes_with_t(package: Any, tmp_path: Path) -> None:
    pair = Pair("NAdam", torch.float32, torch.contiguous_format, {"lr": 0.01})
    assert pair.is_equal()
    fs.save(tmp_path / "run", pair.ours)
    own = torch.nn.Parameter(torch.zeros(SHAPE))
    opt = package.NAdam([own], lr=0.01)
    fs.load(tmp_path / "run", opt)
    expected = pair.in_torch.state[pair.own]["mu_product"]
    assert opt.state[own]["mu_product"].item() == pytest.approx(expected.item(), rel=1e-6)
    own.grad = torch.ones(SHAPE)
    opt.step()
    pair.ours.step([torch.ones(SHAPE)])
    assert torch.allclose(own, pair.p, rtol=1e-5)


def test_a_single_number_in_fewer_bytes(tmp_path: Path) -> None:
    p, own = torch.tensor(0.3).bfloat16(), torch.nn.Parameter(torch.tensor(0.7).bfloat16())
    ours = fs.AdamW([p], master="split8")
    ours.step([torch.tensor(0.1).bfloat16()])
    in_torch = fusedstep.torch.AdamW([own], master="split8")
    fs.save(tmp_path / "ours", ours)
    fs.load(tmp_path / "ours", in_torch)
    assert in_torch.digest() == ours.digest()
    fs.save(tmp_path / "torch", in_torch)
    other = fs.AdamW([torch.zeros(()).bfloat16()], master="split8")
    fs.load(tmp_path / "torch", other)
    assert other.digest() == ours.digest()


def test_nadams_product_keeps_its_dtype(tmp_path: Path) -> None:
    pair = Pair("NAdam", torch.float64, torch.contiguous_format, {"lr": 0.1})
    fs.save(tmp_path / "run", pair.in_torch)
    own = torch.nn.Parameter(torch.zeros(SHAPE, dtype=torch.float64))
    opt = fusedstep.torch.NAdam([own])
    fs.load(tmp_path / "run", opt)
    own.grad = pair.own.grad = torch.ones_like(own)
    opt.step()
    pair.in_torch.step()
    assert opt.state[own]["mu_product"].dtype is torch.float32
    assert torch.equal(own, pair.own)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_first_step_that_was_skipped_leaves_no_state(dtype: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"lr": 0.1, "momentum": 0.5, "dampening": 0.25, "nonfinite": "skip"}
    p, q = (torch.nn.Parameter(torch.ones(3, dtype=dtype)) for _ in range(2))
    opt = fusedstep.torch.SGD([p, q], **options)
    q.grad = torch.ones_like(q)
    opt.step()
    p.grad = torch.full_like(p, torch.nan)
    opt.step()
    assert opt.report.skipped
    assert "momentum_buffer" not in opt.state[p]
    assert "momentum_buffer" in opt.state[q]
    fs.save(tmp_path / "run", opt)
    again = [torch.nn.Parameter(torch.zeros(3, dtype=dtype)) for _ in range(2)]
    other = fusedstep.torch.SGD(again, **options)
    fs.load(tmp_path / "run", other)
    plain = torch.optim.SGD(
        [torch.nn.Parameter(torch.ones(3))], lr=0.1, momentum=0.5, dampening=0.25
    )
    for _ in range(2):
        for each in (p, q, *again, *plain.param_groups[0]["params"]):
            each.grad = torch.ones_like(each)
        opt.step()
        other.step()
        plain.step()
    assert opt.digest() == other.digest()
    assert torch.allclose(opt.float32_params()[0], plain.param_groups[0]["params"][0])


def test_rows_that_count_for_themselves_go_over(tmp_path: Path) -> None:
    options: dict[str, Any] = {"lr": 0.1, "untouched": "frozen", "row_steps": "own"}
    own = torch.nn.Parameter(torch.ones(5, 2))
    in_torch = fusedstep.torch.AdamW([own], **options)
    for row in (1, 3, 3):
        own.grad = torch.sparse_coo_tensor(
            [[row]], torch.ones(1, 2), (5, 2), check_invariants=False
        )
        in_torch.step()
    digest = fs.save(tmp_path / "torch", in_torch)
    p = np.zeros((5, 2), np.float32)
    ours = fs.AdamW([p], **options)
    fs.load(tmp_path / "torch", ours)
    assert ours.digest() == digest == fs.save(tmp_path / "ours", ours)
    again = torch.nn.Parameter(torch.zeros(5, 2))
    back = fusedstep.torch.AdamW([again], **options)
    fs.load(tmp_path / "ours", back)
    assert back.digest() == digest
    assert back.state[again]["row_step"].tolist() == [0, 1, 0, 2, 0]


def test_options_that_the_other_package_has_otherwise(tmp_path: Path) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    betas = (torch.tensor(0.8), torch.tensor(0.9))
    fs.save(tmp_path / "torch", torch.optim.AdamW([p], lr=torch.tensor(0.25), betas=betas))
    ours: Any = fs.AdamW([np.zeros(3, np.float32)])
    fs.load(tmp_path / "torch", ours)
    assert ours.param_groups[0]["betas"] == (float(betas[0]), float(betas[1]))
    assert ours.lr == 0.25
    schedule = fs.schedules.cosine(0.5, steps=10)
    fs.save(tmp_path / "ours", fs.AdamW([np.ones(3, np.float32)], lr=schedule, betas=(0.5, 0.5)))
    opt = torch.optim.AdamW([p], lr=0.125)
    fs.load(tmp_path / "ours", opt)
    assert (opt.param_groups[0]["lr"], opt.param_groups[0]["betas"]) == (0.125, (0.5, 0.5))


def test_torchs_own_classes_get_values_and_no_codes(tmp_path: Path) -> None:
    options = {"lr": 0.01, "state_dtype": "8bit"}
    pair = Pair("AdamW", torch.float32, torch.channels_last, options)
    fs.save(tmp_path / "run", pair.in_torch)
    own = torch.nn.Parameter(torch.zeros(SHAPE))
    opt = torch.optim.AdamW([own])
    fs.load(tmp_path / "run", opt)
    state = opt.state[own]
    assert state.keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert torch.equal(state["exp_avg"], torch.tensor(pair.ours.state[0]["m"]))
    own.grad = torch.ones(SHAPE)
    opt.step()

    half = Pair("AdamW", torch.bfloat16, torch.contiguous_format, {"lr": 0.01})
    fs.save(tmp_path / "run", half.in_torch)
    other = torch.nn.Parameter(torch.zeros(SHAPE, dtype=torch.bfloat16))
    opt = torch.optim.AdamW([other])
    with pytest.raises(ValueError, match=r"has '0' as torch.float32 .*, and `params` as torch.bfl"):
        fs.load(tmp_path / "run", opt)
    assert not other.any()
    assert not opt.state


def test_an_optimizer_that_has_not_stepped(tmp_path: Path) -> None:
    for name in ("SGD", "AdamW", "Adagrad"):
        for package in (torch.optim, fusedstep.torch):
            p = np.ones(3, np.float32)
            ours = getattr(fs, name)([p], lr=0.1)
            fs.save(tmp_path / "ours", ours)
            own = torch.nn.Parameter(torch.zeros(3))
            opt = getattr(package, name)([own])
            fs.load(tmp_path / "ours", opt)
            own.grad = torch.ones(3)
            opt.step()
            ours.step([np.ones(3, np.float32)])
            assert own.detach().numpy() == pytest.approx(p)


def test_averages_of_what_has_not_stepped_start_from_what_is_loaded(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        ours = fs.AdamW([torch.full((3,), 2.0, dtype=dtype)], ema=0.5)
        fs.save(tmp_path / "ours", ours)
        own = torch.nn.Parameter(torch.zeros(3, dtype=dtype))
        opt = fusedstep.torch.AdamW([own], ema=0.5)
        fs.load(tmp_path / "ours", opt)
        own.grad = torch.ones_like(own)
        opt.step()
        ours.step([own.grad])
        assert opt.digest() == ours.digest()
    own = torch.nn.Parameter(torch.ones(3))
    adagrad = fusedstep.torch.Adagrad([own], ema=0.5)  # which has a sum, and no average yet
    fs.save(tmp_path / "torch", adagrad)
    again = fs.Adagrad([np.zeros(3, np.float32)])
    fs.load(tmp_path / "torch", again)
    assert again.state[0]["ema"].tolist() == [1, 1, 1]


def test_a_file_with_other_numbers_than_its_digest_tells(tmp_path: Path) -> None:
    own = torch.nn.Parameter(torch.ones(3))
    path = tmp_path / "run"
    for package in (torch.optim, fusedstep.torch):
        opt = package.AdamW([own])
        own.grad = torch.ones(3)
        opt.step()
        fs.save(path, opt)
        path.write_bytes(resealed(path.read_bytes(), (rb"\"0\":1}", rb"\"0\":2}")))
        before = own.clone()
        with pytest.raises(ValueError, match="does not have the digest that it tells"):
            fs.load(path, opt)
        assert torch.equal(own, before)
        assert opt.state[own]["step"] == 1
