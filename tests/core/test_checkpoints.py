"""Checkpoints on disk give back all that was saved, or say what is wrong and change nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import struct
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BASES, CUSTOM_BASES, Case
from random_arrays import Array
from sealed import resealed

import fusedstep as fs
from fusedstep._core import durable, tensor_file

SHAPES = {"w": (7, 5), "b": (), "long": (4099,), "none": (0, 3)}
rng = np.random.default_rng(6)


def draw(dtype: Any = np.float32) -> dict[str, Array]:
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


def zeros(params: dict[str, Array]) -> dict[str, Array]:
    return {name: np.zeros_like(p) for name, p in params.items()}


def stepped(make: Any, params: Any, grads: Any, steps: int = 3) -> Any:
    opt = make(params)
    for _ in range(steps):
        opt.step(grads)
    return opt


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.safetensors"


# ---- round trips ----


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", [*BASES, *CUSTOM_BASES], ids=str)
def test_what_is_loaded_goes_on_with_the_same_bits(case: Case, dtype: Any, path: Path) -> None:
    params, grads = draw(dtype), draw(dtype)
    opt = stepped(lambda p: case.optimizer(p, **{**case.options, "ema": 0.5}), params, grads)
    assert fs.save(path, opt, metadata={"epoch": 3}) == opt.digest()
    others = zeros(params)
    again = case.optimizer(others, ema=0.25)
    assert fs.load(path, again) == {"epoch": 3}
    assert again.digest() == opt.digest()
    assert again.param_groups[0] == {
        **opt.param_groups[0],
        "params": again.param_groups[0]["params"],
    }
    opt.step(grads)
    again.step(grads)
    assert again.digest() == opt.digest()


LAYOUTS = ["c", "numba", "numpy", "arena", "strided", "arena-numpy"]


@pytest.mark.parametrize("second", LAYOUTS)
@pytest.mark.parametrize("first", LAYOUTS)
def test_it_loads_on_any_backend_layout_and_arena(first: str, second: str, path: Path) -> None:
    start, grads = draw(), draw()
    opt, step = laid_out(first, start)
    step(grads)
    fs.save(path, opt)
    again, step_again = laid_out(second, zeros(start))
    fs.load(path, again)
    assert again.digest() == opt.digest()
    step(grads)
    step_again(grads)
    assert again.digest() == opt.digest()


def laid_out(kind: str, start: dict[str, Array]) -> Any:
    """An optimizer over such parameters, and how it steps."""
    backend = kind.rpartition("-")[2]
    if backend in fs.info().backends:
        if fs.info().backends[backend] is not None:
            pytest.skip(f"the backend {backend} is not there: {fs.info().backends[backend]}")
    else:
        backend = "auto"
    if kind.startswith("arena"):
        arena = fs.Arena(start)
        opt = fs.AdamW(arena, amsgrad=True, backend=backend)

        def step(grads: dict[str, Array]) -> None:
            for name, g in grads.items():
                arena.grads[name][...] = g
            opt.step()

        return opt, step
    if kind == "strided":
        for name, p in start.items():
            room = np.zeros([2 * n for n in p.shape], p.dtype)
            every: Any = (*(slice(None, None, 2) for _ in p.shape), ...)
            room[every] = p
            start[name] = room[every]
    opt = fs.AdamW(start, amsgrad=True, backend=backend)
    return opt, opt.step


def test_groups_schedules_rows_and_rates_come_back(path: Path) -> None:
    def make(scale: float) -> Any:
        p = [np.full((6, 4), scale, np.float32), np.full(5, scale), np.full((3, 4), scale)]
        rate = fs.schedules.sequence(
            [fs.schedules.warmup(0.1, 3), fs.schedules.cosine(0.1, 9)], [3]
        )
        groups = [
            {"params": p[:1], "lr": rate, "untouched": "frozen"},
            {"params": [p[1]], "lr": 1 / 3, "betas": (0.0, 0.123456789)},
            {"params": [p[2]], "lr": np.array([0.1, 0.2, 0.3, 0.4])},
        ]
        return fs.Adam(groups, eps=1e-9)

    opt = make(1.0)
    g = [[fs.Rows([0, 5], np.ones((2, 4), np.float32))], [np.ones(5)], [np.ones((3, 4))]]
    for _ in range(3):
        opt.step(g)
    opt.step([[fs.Rows([1], np.ones((1, 4), np.float32))], [None], [None]])
    fs.save(path, opt)
    again = make(0.0)
    fs.load(path, again)
    assert again.digest() == opt.digest()
    saved, loaded = opt.state_dict(), again.state_dict()
    assert saved["param_groups"][0] == loaded["param_groups"][0]
    assert saved["param_groups"][1] == loaded["param_groups"][1]
    assert (saved["param_groups"][2]["lr"] == loaded["param_groups"][2]["lr"]).all()
    for one in (opt, again):
        one.step(g)
    assert again.digest() == opt.digest()


FEWER = [
    ("bfloat16", {}),
    ("bfloat16", {"master": "split8"}),
    ("bfloat16", {"master": False}),
    ("bfloat16", {"master": "float32"}),
    ("float16", {}),
    ("bfloat16", {"state_dtype": "8bit"}),
    ("float32", {"state_dtype": "bfloat16"}),
    ("float32", {"state_dtype": {"m": "8bit", "v": "bfloat16"}}),
]


@pytest.mark.parametrize(("dtype", "options"), FEWER, ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_kept_in_fewer_bytes_keeps_its_bits(
    dtype: str, options: dict[str, Any], turned: bool, path: Path
) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="ml_dtypes is missing; pip install '.[bfloat16]'")
        import ml_dtypes

        kind = np.dtype(ml_dtypes.bfloat16)
    else:
        kind = np.dtype(dtype)

    def room(values: Any) -> Array:
        made = np.zeros((90, 70), kind)
        made = made.T[::-1] if turned else made.reshape(70, 90)
        made[...] = values
        return made

    p, g = room(rng.standard_normal((70, 90))), rng.standard_normal((70, 90)).astype(np.float32)
    opt = stepped(lambda p: fs.AdamW(p, **options), p, g)
    fs.save(path, opt)
    q = room(0)
    again = fs.AdamW(q, **options)
    fs.load(path, again)
    assert again.digest() == opt.digest()
    assert (q == p).all()
    opt.step(g)
    again.step(g)
    assert again.digest() == opt.digest()


def test_a_function_as_the_rate_stays_the_callers(path: Path) -> None:
    opt = fs.SGD(np.ones(3), lr=lambda t: 1 / t)
    fs.save(path, opt)
    again = fs.SGD(np.zeros(3), lr=lambda t: 2 / t)
    fs.load(path, again)
    assert again.lr(1) == 2
    with pytest.raises(ValueError, match="assign that function as lr"):
        fs.load(path, fs.SGD(np.zeros(3), lr=0.1))


def test_lagging_rows_catch_up_first(path: Path) -> None:
    opt = fs.SGD(np.ones((5, 2)), momentum=0.5, untouched="exact")
    opt.step(fs.Rows([0], np.ones((1, 2))))
    opt.step(fs.Rows([1], np.ones((1, 2))))
    fs.save(path, opt)
    again = fs.SGD(np.zeros((5, 2)), momentum=0.5, untouched="exact")
    fs.load(path, again)
    assert again.digest() == opt.digest()


# ---- names ----


def test_params_names_what_is_saved_and_may_hold_more(path: Path) -> None:
    w, b, frozen = np.ones((2, 3), np.float32), np.zeros(3), np.arange(4)
    opt = fs.AdamW([w, b])
    opt.step([np.ones_like(w), np.ones_like(b)])
    model = {"layer": {"weight": w, "bias": b}, "count": frozen}
    digest = fs.save(path, opt, params=model)
    file = tensor_file.Reader(path).read()
    assert {"params.layer.weight", "params.count", "state.layer.bias.exp_avg_sq"} <= {*file.arrays}

    w2, b2, frozen2 = np.zeros_like(w), np.ones_like(b), np.zeros(4, int)
    again = fs.AdamW([w2, b2])
    other = {"layer": {"weight": w2, "bias": b2}, "count": frozen2}
    fs.load(path, again, params=other)
    assert (w2 == w).all()
    assert (frozen2 == frozen).all()
    assert again.digest() == opt.digest()
    assert digest != opt.digest()  # names are part of it
    for wrong, message in [
        ({"layer": {"weight": w2, "bias": b2}}, "'count', which this optimizer does not step"),
        ({**other, "more": np.zeros(1)}, "lacks 'more'"),
        ({**other, "count": np.zeros(5, int)}, "int64 of shape .4,., and `params` as int64"),
        ({"layer": {"weight": w2}}, r"lacks params\[1\] of the optimizer"),
        (None, r"lacks '0', '1' and has 'layer.bias', 'layer.weight'"),
    ]:
        frozen2[...] = 0
        with pytest.raises(ValueError, match=message):
            fs.load(path, again, params=wrong)
        assert again.digest() == opt.digest()
        assert (frozen2 == 0).all()


def test_params_may_be_an_arena_or_what_it_holds(path: Path) -> None:
    def make() -> Any:
        return fs.Arena([{"w": np.ones((3, 2)), "none": np.zeros((0, 2))} for _ in range(3)])

    arena: Any = make()
    opt = fs.AdamW(arena)
    arena.grads[1]["w"][...] = 1.0
    opt.step()
    assert fs.save(path, opt, params=arena) == opt.digest()
    other: Any = make()
    again = fs.AdamW(other)
    fs.load(path, again, params=other.params)
    assert again.digest() == opt.digest()
    in_list = [{"w": np.ones((3, 2)), "none": np.zeros((0, 2))} for _ in range(3)]
    listed = fs.AdamW(in_list)
    fs.load(path, listed, params=in_list)
    assert listed.digest() == opt.digest()


def test_names_are_torchs_where_torch_has_the_optimizer(path: Path) -> None:
    opt = stepped(lambda p: fs.AdamW(p, amsgrad=True), {"w": np.ones(3)}, {"w": np.ones(3)})
    fs.save(path, opt)
    names = {"params.w", "state.w.exp_avg", "state.w.exp_avg_sq", "state.w.max_exp_avg_sq"}
    assert {*tensor_file.Reader(path).read().arrays} == names


# ---- the file ----


def test_the_same_run_makes_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for k, order in enumerate(([*SHAPES], [*reversed(SHAPES)])):
        local = np.random.default_rng(1)
        drawn = {name: local.standard_normal(SHAPES[name]) for name in SHAPES}
        params = {name: drawn[name] for name in order}
        grads = {name: np.asarray(2 * p) for name, p in params.items()}
        opt = stepped(fs.AdamW, params, grads)
        fs.save(tmp_path / str(k), opt, metadata={"b": 1, "a": {"d": [1.5], "c": None}})
        files.append((tmp_path / str(k)).read_bytes())
    assert files[0] == files[1]


def test_safetensors_reads_it(path: Path) -> None:
    safetensors = pytest.importorskip(
        "safetensors.numpy", reason="safetensors is missing; pip install '.[test]'"
    )
    params = draw()
    opt = stepped(fs.Adam, params, draw())
    fs.save(path, opt)
    theirs = safetensors.load_file(path)
    ours = tensor_file.Reader(path).read().arrays
    assert theirs.keys() == ours.keys()
    for name, array in ours.items():
        assert (theirs[name] == array).all()
        assert theirs[name].dtype == array.dtype


def test_the_header_says_all_of_it(path: Path) -> None:
    opt = fs.AdamW({"w": np.ones(3)}, lr=0.1)
    fs.save(path, opt, metadata=["x"])
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    texts = json.loads(content[8 : 8 + length])["__metadata__"]
    assert texts["optimizer"] == "AdamW"
    assert (texts["format"], texts["contract"]) == ("1", "1")
    assert texts["digest"] == opt.digest()
    assert json.loads(texts["metadata"]) == ["x"]
    assert json.loads(texts["t"]) == {"w": 0}
    assert json.loads(texts["groups"])[0]["lr"] == (0.1).hex()
    assert json.loads(texts["versions"])["numpy"] == np.__version__
    opened = content.replace(texts["seal"].encode(), b"0" * 64)
    assert sha256(opened[8:]).hexdigest() == texts["seal"]


def test_progress_is_told_to_the_last_byte(path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tensor_file, "PART", 1000)
    opt = fs.SGD(np.zeros(3000), momentum=0.5)
    written: list[tuple[int, int]] = []
    read: list[tuple[int, int]] = []
    fs.save(path, opt, progress=lambda *done: written.append(done))
    fs.load(path, opt, progress=lambda *done: read.append(done))
    assert written == read
    assert written[-1] == (48000, 48000) == (2 * 3000 * 8, 2 * 3000 * 8)
    assert len(written) == 48


def test_metadata_that_json_lacks_are_refused(path: Path) -> None:
    opt = fs.SGD(np.zeros(3))
    for wrong in ({1, 2}, np.ones(2), float("nan"), {"a": object()}):
        with pytest.raises(TypeError, match=r"metadata=.* cannot be written as JSON"):
            fs.save(path, opt, metadata=wrong)
    assert not path.exists()


# ---- what cannot be loaded ----


@pytest.fixture
def small(path: Path) -> tuple[Path, bytes]:
    opt = stepped(fs.AdamW, {"w": np.ones(3), "b": np.ones(2, np.float32)}, grads_of())
    fs.save(path, opt, metadata={"note": "hello"})
    return path, path.read_bytes()


def grads_of() -> dict[str, Array]:
    return {"w": np.ones(3), "b": np.ones(2, np.float32)}


def refused(path: Path, content: bytes) -> str:
    """The message about a file of this content, which has changed nothing."""
    path.write_bytes(content)
    opt = fs.AdamW({"w": np.zeros(3), "b": np.zeros(2, np.float32)})
    before = opt.digest(), repr(opt.param_groups)
    with pytest.raises(ValueError, match=r"run.safetensors") as raised:
        fs.load(path, opt)
    assert (opt.digest(), repr(opt.param_groups)) == before
    return str(raised.value)


def test_a_file_that_is_cut_off_anywhere_is_refused(small: tuple[Path, bytes]) -> None:
    path, content = small
    for length in range(len(content)):
        message = refused(path, content[:length])
        assert "cut off" in message or "empty" in message or length < 8
    assert "1 bytes more" in refused(path, content + b"x")


def test_a_file_with_any_byte_changed_is_refused(small: tuple[Path, bytes]) -> None:
    path, content = small
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1
        refused(path, bytes(changed))


FOREIGN = {
    b"PK\x03\x04" + b"x" * 99: "is a zip archive, as torch.save and np.savez write",
    b"\x80\x04\x95" + b"x" * 99: "is a pickle, which is a program that loading would run",
    b"\x89HDF\r\n": "is an HDF5 file",
    b"\x93NUMPY\x01\x00": "is a single array of np.save",
    b"\x1f\x8b": "is compressed by gzip",
    b"": "is empty",
    b"hello, this is text of somebody": "is no safetensors file",
    b"\x02\0\0\0\0\0\0\0{}": "is a safetensors file, but no checkpoint that `fs.save` wrote",
    b"\x02\0\0\0\0\0\0\0[]": "is no safetensors file",
}


@pytest.mark.parametrize("content", FOREIGN, ids=range(len(FOREIGN)))
def test_files_of_others_are_told_apart(content: bytes, path: Path) -> None:
    assert FOREIGN[content] in refused(path, content)


def test_a_file_of_safetensors_own_is_told(path: Path) -> None:
    safetensors = pytest.importorskip(
        "safetensors.numpy", reason="safetensors is missing; pip install '.[test]'"
    )
    content = safetensors.save({"w": np.ones(3)}, metadata={"format": "np"})
    assert "no checkpoint that `fs.save` wrote; read its arrays by" in refused(path, content)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"format":"1"', b'"format":"2"', "has format '2', and this release reads 1; install"),
        (b'"contract":"1"', b'"contract":"7"', "has contract '7', and this release reads 1"),
        (b'"optimizer":"AdamW"', b'"optimizer":"Adam"', "a checkpoint of Adam, and this is AdamW"),
        (b'"kind":"fusedstep checkpoint"', b'"kind":"x"', "no checkpoint that `fs.save` wrote"),
        (rb"\"w\":3}", rb"\"w\":4}", "does not have the digest that it tells"),
        (rb"\"w\":3}", rb"\"w\":-3}", "damaged header"),
        (rb"\"w\":3}", rb"\"x\":3}", "damaged header"),
        (b'"params.w"', b'"params.x"', r"it lacks the parameters 'w'"),
        (b'"state.w.exp_avg"', b'"state.x.exp_avg"', "'state.x.exp_avg' belongs to no parameter"),
        (b'"state.w.exp_avg"', b'"state.w.else"', "does not fit"),
        (rb"\"amsgrad\":false", rb"\"amsgrad\":true", "does not fit"),
        (rb"\"amsgrad\":false", rb"\"amsgrad\":7", "does not fit"),
        (rb"\"eps\":\"0x1.5798ee2308c3ap-27\"", rb"\"eps\":\"-0x1p-3\"", "does not fit"),
        (b'"F32","shape":[2]', b'"F32","shape":[1,2]', "and params"),
        (b'"F32","shape":[2]', b'"F32","shape":[3]', "damaged header"),
        (b'"F32","shape":[2]', b'"F99","shape":[2]', "damaged header|of the dtype 'F99'"),
        (b'"F64","shape":[3]', b'"I64","shape":[3]', "of int64, and params"),
    ],
)
def test_a_forged_header_is_refused(
    old: bytes, new: bytes, message: str, small: tuple[Path, bytes]
) -> None:
    path, content = small
    if old.startswith((b'"F32"', b'"F64"')):  # of the parameter alone
        name = b'"params.b":{"dtype":' if b"F32" in old else b'"params.w":{"dtype":'
        old, new = name + old, name + new
    assert re.search(message, refused(path, resealed(content, (old, new))))


def test_a_later_release_is_told_even_if_it_seals_otherwise(small: tuple[Path, bytes]) -> None:
    path, content = small
    later = content.replace(b'"format":"1"', b'"format":"3"')
    assert "has format '3', and this release reads 1; install the release" in refused(path, later)


def test_other_optimizers_are_refused(small: tuple[Path, bytes]) -> None:
    path, _ = small
    for opt, message in [
        (fs.SGD({"w": np.ones(3), "b": np.ones(2, np.float32)}), "of AdamW, and this is SGD"),
        (fs.AdamW({"w": np.ones(3)}), "has 'b', and this optimizer's parameters are called 'w'"),
        (fs.AdamW({"w": np.ones(3), "b": np.ones(2)}), "of float32, and .* in float64"),
        (fs.AdamW({"w": np.ones(4), "b": np.ones(2, np.float32)}), r"of shape \(3,\), and"),
        (
            fs.AdamW([{"params": {"w": np.ones(3)}}, {"params": {"b": np.ones(2, np.float32)}}]),
            "lacks '0.w', '1.b' and has 'b', 'w'",
        ),
    ]:
        before = opt.digest()
        with pytest.raises(ValueError, match=message):
            fs.load(path, opt)
        assert opt.digest() == before


def test_what_is_no_optimizer_is_refused(small: tuple[Path, bytes]) -> None:
    path, _ = small
    for wrong in (None, 3, fs.AdamW):
        with pytest.raises(TypeError, match=r"opt is .*; pass an optimizer"):
            fs.load(path, wrong)
        with pytest.raises(TypeError, match=r"opt is .*; pass an optimizer"):
            fs.save(path, wrong)


def test_a_missing_file_is_an_error_of_the_system(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fs.load(path, fs.SGD(np.ones(2)))


# ---- the old file is there until the new one is ----


@pytest.mark.parametrize("name", ["fsync", "replace", "chmod", "write"])
def test_when_the_system_fails_the_old_file_stays(name: str, path: Path, monkeypatch: Any) -> None:
    opt = fs.SGD(np.zeros(3), momentum=0.5)
    fs.save(path, opt)
    old = path.read_bytes()
    opt.step(np.ones(3))

    def fails(*given: Any, **named: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    if name == "write":
        monkeypatch.setattr(tensor_file, "_put", fails)
    else:
        monkeypatch.setattr(os, name, fails)
    with pytest.raises(OSError, match="No space left"):
        fs.save(path, opt)
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == [path.name]
    monkeypatch.undo()
    fs.save(path, opt)
    fs.load(path, opt)


def test_the_file_and_then_its_folder_are_forced_to_the_disk(path: Path, monkeypatch: Any) -> None:
    done = []
    for name in ("fsync", "replace"):
        theirs = getattr(os, name)

        def noted(*given: Any, name: str = name, theirs: Any = theirs) -> Any:
            number = given[0] if isinstance(given[0], int) else None
            folder = number is not None and stat.S_ISDIR(os.fstat(number).st_mode)
            done.append(f"{name} folder" if folder else name)
            return theirs(*given)

        monkeypatch.setattr(os, name, noted)
    fs.save(path, fs.SGD(np.zeros(3)))
    assert done == ["fsync", "replace", "fsync folder"]


def test_a_folder_that_cannot_be_forced_is_told_and_the_new_file_is_there(
    path: Path, monkeypatch: Any
) -> None:
    opt = fs.SGD(np.zeros(3))
    fs.save(path, opt)
    opt.step(np.ones(3))
    theirs = os.fsync

    def fails(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        theirs(number)

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="Input/output"):
        fs.save(path, opt)
    again = fs.SGD(np.ones(3))
    fs.load(path, again)
    assert again.digest() == opt.digest()


def test_a_full_disk_loses_nothing(path: Path) -> None:
    """A limit on files stands for a disk that is full in the middle of one."""
    resource = pytest.importorskip("resource", reason="no such limits on this system")
    import signal

    opt = fs.SGD(np.zeros(100_000), momentum=0.5)
    fs.save(path, opt)
    old = path.read_bytes()
    opt.step(np.ones(100_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
        with pytest.raises(OSError, match="too large"):
            fs.save(path, opt)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == [path.name]


def test_what_was_left_behind_is_cleared_away_unless_it_is_being_written(path: Path) -> None:
    left = path.with_name(f".{path.name}.0123456789abcdef.partial")
    others = path.with_name(f".other{path.name}.0123456789abcdef.partial")
    left.write_bytes(b"half")
    others.write_bytes(b"half")
    fs.save(path, fs.SGD(np.zeros(3)))
    assert not left.exists()
    assert others.exists()
    with durable.replacing(path) as file:
        file.write(b"first")
        with durable.replacing(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert sorted(os.listdir(path.parent)) == sorted([path.name, others.name])


def test_permissions_and_links_stay(path: Path) -> None:
    opt = fs.SGD(np.zeros(3))
    fs.save(path, opt)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    path.chmod(0o600)
    link = path.with_name("latest")
    link.symlink_to(path.name)
    opt.step(np.ones(3))
    fs.save(link, opt)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = fs.SGD(np.ones(3))
    fs.load(path, again)
    assert again.digest() == opt.digest()


def test_folders_that_are_missing_or_in_the_way_are_named(tmp_path: Path) -> None:
    opt = fs.SGD(np.zeros(3))
    with pytest.raises(FileNotFoundError, match="in a folder that is not there; make it first"):
        fs.save(tmp_path / "none" / "run.safetensors", opt)
    with pytest.raises(IsADirectoryError, match="is a folder; name a file in it"):
        fs.save(tmp_path, opt)
    assert os.listdir(tmp_path) == []


def test_what_is_no_regular_file_is_left_alone(path: Path) -> None:
    opt = fs.SGD(np.zeros(3))
    os.mkfifo(path)
    with pytest.raises(OSError, match="is no regular file; name another one"):
        fs.save(path, opt)
    assert stat.S_ISFIFO(path.stat().st_mode)
    with pytest.raises(ValueError, match="is a pipe; read it into a file first"):
        fs.load(path, opt)
    with pytest.raises(OSError, match="is no regular file"):
        fs.save("/dev/null", opt)


def test_ctrl_c_leaves_the_old_file_or_the_new(path: Path) -> None:
    opt = fs.SGD(np.zeros(3), momentum=0.5)
    fs.save(path, opt)
    opt.step(np.ones(3))
    digests = {fs.save(path, opt)}
    opt.step(np.ones(3))
    digests.add(opt.digest())
    other = fs.SGD(np.zeros(3), momentum=0.5)

    def interrupt(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fs.save(path, opt, progress=interrupt)
    fs.load(path, other)
    assert other.digest() in digests
    assert os.listdir(path.parent) == [path.name]
    before = other.digest()
    with pytest.raises(KeyboardInterrupt):
        fs.load(path, other, progress=interrupt)
    assert other.digest() == before


def test_two_threads_save_over_one_another(path: Path) -> None:
    opts = [fs.SGD(np.full(50_000, k + 0.5), momentum=0.5) for k in range(4)]
    digests = {opt.digest() for opt in opts}

    def saves(opt: Any) -> None:
        for _ in range(10):
            fs.save(path, opt)

    threads = [threading.Thread(target=saves, args=(opt,)) for opt in opts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fs.load(path, opts[0])
    assert opts[0].digest() in digests
    assert os.listdir(path.parent) == [path.name]


def test_inside_of_lookahead_there_is_none(path: Path) -> None:
    opt = fs.SGD(np.zeros(3), momentum=0.9)
    with opt.lookahead(), pytest.raises(RuntimeError, match="save inside of lookahead"):
        fs.save(path, opt)
    fs.save(path, opt)
    with opt.lookahead(), pytest.raises(RuntimeError, match="load inside of lookahead"):
        fs.load(path, opt)
