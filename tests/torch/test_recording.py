"""Records of `fusedstep.torch` repeat to the bit, and what was tampered with is found by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marks import needs

torch = needs("torch", "torch")

import random_runs  # noqa: E402

import fusedstep as fs  # noqa: E402
import fusedstep.torch  # noqa: E402
from fusedstep._core import numbers_in_file  # noqa: E402
from fusedstep.program.main import main  # noqa: E402
from fusedstep.recording import compare  # noqa: E402
from fusedstep.torch import _checkpoint  # noqa: E402

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    ("Adagrad", {}),
    ("RMSprop", {"centered": True, "momentum": 0.5}),
    ("Adam", {"amsgrad": True, "lr": torch.tensor(0.01), "betas": (0.8, 0.9)}),
    ("AdamW", {"ema": 0.5}),
    ("NAdam", {}),
    ("RAdam", {}),
    ("Adamax", {}),
    ("Lion", {}),
    ("Adan", {}),
]
BACKENDS = ["numpy", "c", "numba"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "record"


def tensors(dtype: Any = torch.float32) -> list[Any]:
    wide = torch.randn(4, 2, 5, 3).to(memory_format=torch.channels_last)
    return [
        torch.nn.Parameter(each.to(dtype)) for each in (torch.randn(7, 3), torch.randn(3), wide)
    ]


def give_gradients(parameters: list[Any]) -> None:
    for p in parameters:
        p.grad = torch.randn(p.shape).to(p.dtype)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_every_class_is_repeated_to_the_bit(
    name: str, options: dict[str, Any], folder: Path
) -> None:
    torch.manual_seed(1)
    parameters = tensors()
    opt = getattr(fusedstep.torch, name)(parameters, **options)
    with fs.Recorder(opt, folder, gradients=True) as recorder:
        for _ in range(4):
            give_gradients(parameters)
            opt.step()
    assert recorder.number == 4
    for backend in BACKENDS:
        if fs.info().backends[backend] is None and (backend != "c" or name in fs.__all__):
            assert fs.replay(folder, backend=backend) == (4, None)


def test_rates_by_column_are_repeated(folder: Path) -> None:
    p = torch.nn.Parameter(torch.randn(5, 3))
    opt = fusedstep.torch.AdamW([p], lr=np.linspace(0.1, 0.2, 3, dtype=np.float32))
    with fs.Recorder(opt, folder, gradients=True):
        for k in range(3):
            give_gradients([p])
            opt.step()
            opt.param_groups[0]["lr"] = np.full(3, 0.5**k)
    assert fs.replay(folder, backend="numpy") == (3, None)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float64, {}),
        (torch.bfloat16, {"master": "split8", "state_dtype": "bfloat16"}),
        (torch.bfloat16, {"master": False, "rounding": "stochastic", "seed": 3}),
        (torch.float16, {}),
    ],
    ids=str,
)
def test_other_dtypes_are_repeated(
    name: str, dtype: Any, options: dict[str, Any], folder: Path
) -> None:
    torch.manual_seed(1)
    parameters = tensors(dtype)
    more = {"momentum": 0.9} if name == "SGD" else {}
    opt = getattr(fusedstep.torch, name)(parameters, lr=0.01, **more, **options)
    give_gradients(parameters)
    opt.step()
    with fs.Recorder(opt, folder, gradients=True):
        for _ in range(3):
            give_gradients(parameters)
            opt.step()
    assert fs.replay(folder, backend="numpy") == (3, None)


def test_whatever_a_loop_does_is_repeated(folder: Path) -> None:
    torch.manual_seed(1)
    net = torch.nn.Sequential(
        torch.nn.Embedding(20, 4, sparse=True), torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
    )
    groups = [
        {"params": [*net[0].named_parameters(prefix="words")], "untouched": "frozen"},
        {"params": [*net[1].named_parameters(prefix="hidden")], "weight_decay": 0.1},
        {"params": [*net[2].named_parameters(prefix="last")], "lr": 0.5},
    ]
    opt = fusedstep.torch.AdamW(groups, lr=0.1, max_norm=1.0, nonfinite="skip")
    schedule = torch.optim.lr_scheduler.StepLR(opt, step_size=2, gamma=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    with fs.Recorder(opt, folder, gradients=True):
        for k in range(6):
            opt.zero_grad()
            out = net(torch.randint(0, 20, (5,)))
            loss = out.square().mean() * (float("inf") if k == 2 else 1.0)
            if k == 4:
                net[1].requires_grad_(False)
            if k % 2:
                loss.backward()
                opt.step()
            else:
                scaler.scale(loss).backward()
                scaler.step(opt)
                scaler.update()
            if k == 3:
                opt.max_norm = None
            schedule.step()
    assert fs.replay(folder, backend="numpy") == (6, None)
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert {*lines[0]["digests"]} == {
        *("words.weight", "hidden.weight", "hidden.bias", "last.weight", "last.bias")
    }
    assert lines[0]["digests"] != lines[1]["digests"] == lines[2]["digests"]


def test_what_was_tampered_with_is_found(folder: Path, capsys: Any) -> None:
    torch.manual_seed(1)
    net = torch.nn.Linear(3, 2)
    opt = fusedstep.torch.Adam(net.named_parameters())
    with fs.Recorder(opt, folder, gradients=True):
        for k in range(4):
            give_gradients([*net.parameters()])
            opt.step()
            if k == 1:
                with torch.no_grad():
                    net.weight[1, 2] += 2.0**-20
    assert main(["replay", str(folder)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("step 3: 'weight' (p) differs at element [1, 2]: ")
    steps, difference = fs.replay(folder)
    assert difference is not None
    assert (steps, difference.name, difference.element) == (3, "weight", (1, 2))
    assert difference.recorded == pytest.approx(difference.replayed, abs=1e-5)


def test_without_torch_the_program_says_what_is_missing(
    folder: Path, capsys: Any, monkeypatch: Any
) -> None:
    fs.Recorder(fusedstep.torch.Adam([torch.nn.Parameter(torch.ones(3))]), folder).close()
    monkeypatch.setitem(sys.modules, "fusedstep.torch", None)
    assert main(["replay", str(folder)]) == 1
    assert "fusedstep.torch" in capsys.readouterr().err


def test_two_runs_are_compared_without_gradients(tmp_path: Path) -> None:
    for name, factor in (("one", 1.0), ("two", 1.0), ("other", 1.5)):
        torch.manual_seed(1)
        p = torch.nn.Parameter(torch.ones(3))
        opt = fusedstep.torch.AdamW([p], lr=0.1)
        with fs.Recorder(opt, tmp_path / name):
            for k in range(3):
                p.grad = torch.randn(3) * (factor if k == 2 else 1.0)
                opt.step()
    assert compare(tmp_path / "one", tmp_path / "two") == (3, None)
    steps, difference = compare(tmp_path / "one", tmp_path / "other")
    assert steps == 3
    assert difference is not None
    assert (difference.name, difference.letters) == ("0", ("p", "m", "v"))
    with pytest.raises(ValueError, match="has no gradients of step 1"):
        fs.replay(tmp_path / "one")

    torch.manual_seed(1)
    assert fs.replay(tmp_path / "one", gradients=lambda number, params: {"0": torch.randn(3)}) == (
        3,
        None,
    )


def test_what_cannot_be_recorded_is_refused(folder: Path) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    into = torch.zeros(3)
    for opt, error, message in [
        (torch.optim.AdamW([p]), TypeError, r"pass `fusedstep.torch.replace\(opt\)`"),
        (fusedstep.torch.AdamW([p], ema=0.9, ema_into=[into]), ValueError, "opt has `ema_into`"),
        (
            fusedstep.torch.AdamW([torch.nn.Parameter(torch.ones(3, device="meta"))]),
            TypeError,
            "a parameter on meta",
        ),
    ]:
        with pytest.raises(error, match=message):
            fs.Recorder(opt, folder)
        assert not folder.exists()
    with pytest.raises(TypeError, match="pass an optimizer of `fusedstep`, or of"):
        fs.Recorder(object(), folder)


def test_an_optimizer_goes_on_when_its_record_ends(folder: Path) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    opt = fusedstep.torch.AdamW([p])
    recorder = fs.Recorder(opt, folder)
    with pytest.raises(ValueError, match="is recorded already"):
        fs.Recorder(opt, folder.parent / "another")
    p.grad = torch.ones(3)
    opt.step()
    recorder.close()
    recorder.close()
    opt.step()
    assert recorder.number == 1
    assert len((folder / "steps.jsonl").read_text().splitlines()) == 1
    fs.Recorder(opt, folder.parent / "another").close()


def test_a_group_that_comes_later_is_refused(folder: Path) -> None:
    p, q = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    opt = fusedstep.torch.AdamW([p])
    with fs.Recorder(opt, folder, gradients=True):
        give_gradients([p, q])
        opt.step()
        opt.add_param_group({"params": [q]})
        with pytest.raises(ValueError, match="has 2 parameters, and had 1 when its record began"):
            opt.step()
    opt.step()
    assert fs.replay(folder) == (1, None)


def test_replace_is_the_remedy(folder: Path) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    opt = fusedstep.torch.replace(torch.optim.AdamW([p]))
    with fs.Recorder(opt, folder, gradients=True):
        p.grad = torch.ones(3)
        opt.step()
    assert fs.replay(folder) == (1, None)


def test_random_runs_go_over_and_are_repeated(capsys: Any) -> None:
    assert random_runs.main(range(60)) == 0
    assert "60 runs went over, 60 were repeated" in capsys.readouterr().out


def test_a_difference_in_a_random_run_would_be_seen(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(_checkpoint, "widened", lambda array: array)
    monkeypatch.setattr(numbers_in_file, "SECONDS", ())
    assert random_runs.main(range(30)) == 1
    assert "0 differ" not in capsys.readouterr().out
