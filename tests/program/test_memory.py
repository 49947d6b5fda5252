"""`fusedstep memory`: what it reads, counts, prints and draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marks import needs
from pictures import drawn

import fusedstep as fs
from fusedstep._arrays.dtypes import BFLOAT16 as OURS
from fusedstep._core.declaration import declaration_of
from fusedstep._core.footprint import WAYS, Way, footprint
from fusedstep.program.errors import UsageError
from fusedstep.program.main import main
from fusedstep.program.memory import draw, read, size

ml_dtypes = pytest.importorskip("ml_dtypes", reason="needs `pip install '.[bfloat16]'`")

SHAPES = [(70, 80), (5000,), (4096,), (4095,), (3, 5), ()]


def made(dtype: Any) -> Any:
    return ml_dtypes.bfloat16 if dtype == OURS else dtype


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (fs.AdamW, {"amsgrad": True, "ema": 0.9}),
        (fs.SGD, {"momentum": 0.9}),
        (fs.SGD, {}),
        (fs.rules.Adan, {}),
    ],
)
def test_bytes_are_those_that_an_optimizer_takes(way: Way, optimizer: Any, options: Any) -> None:
    declaration = declaration_of(optimizer)
    hyper = declaration.check({**declaration.defaults, **options})
    params = [np.zeros(shape, made(way.dtype)) for shape in SHAPES]
    out = None if way.copy is None else [np.zeros(shape, made(way.copy)) for shape in SHAPES]
    opt = optimizer(params, master=way.master, state_dtype=way.state_dtype, out=out, **options)
    opt.step([np.zeros(shape, np.float32) for shape in SHAPES])
    found = footprint(declaration, hyper, SHAPES, way)
    assert found.parameters == found.gradients == sum(p.nbytes for p in params)
    masters = 0 if out is None else sum(each.nbytes for each in out)
    state = 0
    for each in opt._parameters:  # noqa: SLF001  nothing public tells what lies in memory
        for letter, packed in each.packed.items():
            own = sum(array.nbytes for array in packed.arrays)
            if letter == "p":
                masters += own - each.p.nbytes
            else:
                state += own
        state += sum(each.state(letter).nbytes for letter in {*each.letters} - each.packed.keys())
    assert (found.masters, found.state) == (masters, state)
    assert found.kept == found.parameters + masters + state
    assert found.total == found.kept + found.gradients


def test_the_numbers_of_adam() -> None:
    """Bytes for each parameter of large tensors, as they follow from the formats."""
    declaration = declaration_of(fs.Adam)
    n = 2**20
    found = {
        (way.parameters, way.state_dtype): footprint(declaration, declaration.defaults, [(n,)], way)
        for way in WAYS
    }
    kept = {key: round(each.kept / n, 2) for key, each in found.items()}
    assert kept["float32", "float32"] == 12
    assert kept["float32", "8bit"] == 6.03
    assert kept["bfloat16, master='split16'", "float32"] == 12
    assert kept["bfloat16, master='split8'", "8bit"] == 5.03
    assert kept["bfloat16, master=False", "8bit"] == 4.03
    assert found["float32", "float32"].traffic == 28 * n
    assert found["bfloat16, master=False", "bfloat16"].traffic == 14 * n


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("4096x4096", [(4096, 4096)]),
        ("7", [(7,)]),
        ("3*2x5", [(2, 5)] * 3),
        ("(64, 3, 7, 7)", [(64, 3, 7, 7)]),
    ],
)
def test_shapes(text: str, shapes: Any) -> None:
    assert read(text) == shapes


@pytest.mark.parametrize("text", ["", "x", "3x", "-3", "3.5", "2**5", "a*b"])
def test_what_is_no_shape(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no shape; write it as 4096x4096"):
        read(text)


def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "params = {'w': np.zeros((3, 4)), 'b': [np.zeros(4)]}\n"
        "def build(): return params\n"
        "class Broken:\n    def __init__(self, n): pass\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    assert read("mine:params") == read("mine:build") == [(3, 4), (4,)]
    for text, message in [
        ("mine:other", "no attribute 'other'"),
        ("nowhere:x", "No module named 'nowhere'"),
        ("mine:Broken", "cannot be called without arguments"),
        ("mine:number", "is no model"),
    ]:
        with pytest.raises(Exception, match=message):
            read(text)


def test_models_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("torch", "torch")
    (tmp_path / "nets.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.one = torch.nn.Linear(8, 5)\n"
        "        self.two = torch.nn.Linear(8, 5)\n"
        "        self.two.weight = self.one.weight\n"
        "net = Net()\n"
    )
    monkeypatch.chdir(tmp_path)
    assert read("nets:Net") == read("nets:net") == [(5, 8), (5,), (5,)]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: None) -> None:
    picture = tmp_path / "bytes.png"
    assert main(["memory", "64x4096", "--picture", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "AdamW, 262,144 parameters" in printed
    assert "bfloat16, master='split16'" in printed
    assert "6.03" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_bars_end_at_the_bytes_of_a_parameter(tmp_path: Path, extra: None) -> None:
    declaration = declaration_of(fs.Adam)
    n = 2**20
    found = {way: footprint(declaration, declaration.defaults, [(n,)], way) for way in WAYS}
    figure = drawn(lambda: draw("Adam", found, n, tmp_path / "bytes.png"))
    (axes,) = figure.axes
    ends = [
        max(bar.get_x() + bar.get_width() for bar in row)
        for row in zip(*axes.containers, strict=True)
    ]
    assert ends == [each.total / n for each in found.values()]
    assert [text.get_text() for text in axes.texts] == [f"{end:.3g}" for end in ends]


def test_ways_that_an_optimizer_refuses_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: None
) -> None:
    picture = str(tmp_path / "bytes.png")
    assert main(["memory", "64x4096", "--optimizer", "adagrad", "--picture", picture]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "8bit │" not in printed
    assert "Refused: state_dtype='8bit': a sum of squares only grows" in printed


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["memory", "2*64x4096", "--optimizer", "SGD", "--option", "momentum=0.9", "--json"]
    assert main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["elements"], found["tensors"], len(found["ways"])) == (2**19, 2, len(WAYS))
    assert found["ways"][0]["state"] == 4 * 2**19


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0x5"], "names no elements"),
        (["5", "--optimizer", "adamv"], "is none of .*; did you mean 'adam"),
        (["5", "--option", "momentum=0.9"], "pass a name and a value, as amsgrad=True"),
        (["5", "--option", "amsgrad=maybe"], "'maybe' is no value of Python"),
        (["5", "--option", "amsgrad=3"], "amsgrad=3 .*pass True or False"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert main(["memory", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_sizes_are_short() -> None:
    assert [size(n) for n in (0, 12, 999, 1000, 123456, 16e9)] == [
        *("0 B", "12 B", "999 B", "1 KB", "123 KB", "16 GB"),
    ]
