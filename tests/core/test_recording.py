"""Records repeat to the bit on each backend, and what was tampered with is found by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BASES, CUSTOM_BASES, Case
from random_arrays import Array

import fusedstep as fs
from fusedstep.program.main import main
from fusedstep.recording import compare

rng = np.random.default_rng(7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "record"


def draw(dtype: Any = np.float32) -> dict[str, Array]:
    shapes: dict[str, tuple[int, ...]] = {"w": (7, 5), "b": (3,), "one": (), "none": (0, 2)}
    return {name: np.asarray(rng.standard_normal(s), dtype) for name, s in shapes.items()}


BACKENDS = ["numpy", "c", "numba"]


def skip_without(backend: str) -> None:
    if fs.info().backends[backend] is not None:
        pytest.skip(f"the backend {backend} is not there: {fs.info().backends[backend]}")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", [*BASES, *CUSTOM_BASES], ids=str)
def test_every_rule_is_repeated_to_the_bit(case: Case, dtype: Any, folder: Path) -> None:
    opt = case.optimizer(draw(dtype), **{**case.options, "ema": 0.5})
    with fs.Recorder(opt, folder, gradients=True):
        for _ in range(4):
            opt.step(draw(dtype))
    assert fs.replay(folder, backend="numpy") == (4, None)


@pytest.mark.parametrize("backend", BACKENDS)
def test_whatever_a_loop_does_is_repeated(backend: str, folder: Path) -> None:
    skip_without(backend)
    first = {"w": draw()["w"].T, "b": draw()["b"]}
    second = [np.asfortranarray(rng.standard_normal((6, 4))), rng.standard_normal((9, 2))[::-1]]
    rate = fs.schedules.warmup(0.1, 3)
    groups = [{"params": first, "lr": rate}, {"params": second, "weight_decay": 0.5}]
    opt = fs.AdamW(groups, ema=0.9, nonfinite="skip", row_steps="own")
    opt.step([{"w": np.ones((5, 7), np.float32), "b": None}, [np.ones((6, 4)), None]])
    with fs.Recorder(opt, folder, gradients=True) as recorder:
        assert "Report" in repr(opt.step([draw_like(first), draw_like(second)], max_norm=0.5))
        opt.param_groups[1]["lr"] = 1 / 3
        opt.step([draw_like(first), [None, fs.Rows([8, 1, 8], np.ones((3, 2)))]], scale=3.0)
        opt.param_groups[0]["lr"] = fs.schedules.cosine(0.1, steps=9)
        mask = np.arange(9) % 2 == 0
        rows = fs.Rows.where(mask, np.ones((9, 2)))
        opt.step([draw_like(first), [np.ones((6, 4), np.float64), rows]], max_value=0.25)
        bad = draw_like(first)
        bad["w"][1, 1] = np.nan
        assert opt.step([bad, draw_like(second)]).skipped != ()
        opt.step(
            [draw_like(first), draw_like(second)], max_norm=1.0, clip="tensor", zero_grads=True
        )
        assert recorder.number == 5
    opt.step([draw_like(first), draw_like(second)])  # which is in no record
    for other in BACKENDS:
        if fs.info().backends[other] is None:
            assert fs.replay(folder, backend=other) == (5, None)


def draw_like(params: Any) -> Any:
    if isinstance(params, dict):
        return {name: draw_like(p) for name, p in params.items()}
    if isinstance(params, list):
        return [draw_like(p) for p in params]
    return rng.standard_normal(params.shape).astype(params.dtype)


def test_arenas_are_repeated_in_arenas(folder: Path) -> None:
    arena: Any = fs.Arena([{"w": np.ones((40, 30)), "b": np.ones(77)} for _ in range(9)])
    opt = fs.SGD(arena, lr=0.1, momentum=0.9)
    with fs.Recorder(opt, folder, gradients=True):
        for _ in range(3):
            for own in arena.grads:
                for g in own.values():
                    g[...] = rng.standard_normal(g.shape)
            opt.step(max_norm=0.1, zero_grads=True)
    assert fs.replay(folder, backend="numpy") == (3, None)


def test_arenas_of_groups_are_repeated(folder: Path) -> None:
    first = {"params": {"w": np.ones((30, 2)), "b": np.zeros(4)}, "lr": 0.5}
    arena: Any = fs.Arena([first, {"params": [np.ones(5000), np.ones(3)]}])
    opt = fs.SGD(arena, momentum=0.9)
    with fs.Recorder(opt, folder, gradients=True):
        for _ in range(3):
            for g in [*arena.grads[0].values(), *arena.grads[1]]:
                g[...] = rng.standard_normal(g.shape)
            opt.step(max_norm=0.1)
    assert fs.replay(folder, backend="numpy") == (3, None)


@pytest.mark.parametrize("options", [{}, {"master": False}, {"state_dtype": "8bit"}], ids=str)
def test_what_is_kept_in_fewer_bytes_is_repeated(options: dict[str, Any], folder: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="pip install '.[bfloat16]'")
    p = rng.standard_normal((80, 70)).astype(ml_dtypes.bfloat16)
    opt = fs.AdamW([np.zeros(3, np.float32), p], seed=5, **options)
    with fs.Recorder(opt, folder, gradients=True):
        for _ in range(3):
            g = rng.standard_normal((80, 70))
            opt.step([np.ones(3, np.float32), g.astype(ml_dtypes.bfloat16)])
    assert fs.replay(folder) == (3, None)


def test_sparse_matrices_are_repeated_as_rows(folder: Path) -> None:
    sparse = pytest.importorskip(
        "scipy.sparse", reason="SciPy is missing; pip install '.[sklearn]'"
    )
    opt = fs.Adam({"w": np.ones((6, 3))})
    with fs.Recorder(opt, folder, gradients=True):
        for k in range(3):
            opt.step({"w": sparse.csr_matrix(np.eye(6, 3, -k))})
    assert fs.replay(folder) == (3, None)


# ---- what differs is named ----


@pytest.fixture
def record(folder: Path) -> Path:
    opt = fs.AdamW({"w": np.ones((4, 3)), "b": np.zeros(5, np.float32)}, lr=0.1)
    with fs.Recorder(opt, folder, gradients=True):
        for _ in range(6):
            grads = {"w": rng.standard_normal((4, 3)), "b": np.ones(5, np.float32)}
            opt.step(grads, max_norm=100.0)
    return folder


@pytest.mark.parametrize("array", ["p", "m", "v"])
def test_a_number_that_somebody_changes_on_the_way_is_found(array: str, folder: Path) -> None:
    params: dict[str, Array] = {"w": np.ones((4, 3)), "b": np.zeros(5, np.float32)}
    opt = fs.AdamW(params, lr=0.1)
    with fs.Recorder(opt, folder, gradients=True):
        for k in range(5):
            if k == 2:
                target = params["w"] if array == "p" else opt.state["w"][array]
                target[3, 1] += 0.25
            opt.step({"w": np.ones((4, 3)), "b": np.ones(5, np.float32)})
    steps, difference = fs.replay(folder)
    assert steps == 3
    assert difference is not None
    assert difference[:2] == (3, "w")
    assert difference.element == (3, 1)
    assert array in difference.letters
    assert difference.recorded == pytest.approx(params["w"][3, 1], abs=1)
    assert "step 3: 'w'" in str(difference)
    assert "at element [3, 1]" in str(difference)


def test_a_gradient_that_was_changed_in_its_file_is_found(record: Path) -> None:
    path = record / "00000004.safetensors"
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    at = 8 + length + entries["gradient.w"]["data_offsets"][0] + 5 * 8
    content[at + 6] ^= 0x10  # of element 5, [1, 2]
    path.write_bytes(content)
    steps, difference = fs.replay(record)
    assert steps == 4
    assert difference is not None
    assert difference[:2] == (4, "w")
    assert difference.element == (1, 2)
    assert "changed afterwards" in str(difference)


def test_a_digest_that_was_changed_is_found(record: Path) -> None:
    path = record / "steps.jsonl"
    lines = path.read_text().splitlines()
    step = json.loads(lines[1])
    step["digests"]["b"]["v"] = "0" * 64
    lines[1] = json.dumps(step)
    path.write_text("\n".join(lines) + "\n")
    difference = fs.replay(record).difference
    assert difference is not None
    assert difference[:4] == (2, "b", ("v",), None)


def test_an_option_that_was_changed_is_found(record: Path) -> None:
    path = record / "steps.jsonl"
    text = path.read_text()
    rate = f'"lr":"{(0.1).hex()}"'
    assert text.count(rate) == 1  # in the first step alone: it never changed
    path.write_text(text.replace(rate, f'"lr":"{(0.11).hex()}"'))
    difference = fs.replay(record).difference
    assert difference is not None
    assert difference[:2] == (1, "w")
    assert difference.element == (0, 0)


def test_the_command_says_so_too(record: Path, capsys: Any) -> None:
    assert main(["replay", str(record)]) == 0
    assert capsys.readouterr().out == "6 steps on numpy: every bit as recorded\n"
    other = record.with_name("other")
    shutil.copytree(record, other)
    assert main(["replay", str(record), "--against", str(other)]) == 0
    assert "6 steps are in both records: every bit the same" in capsys.readouterr().out
    text = (other / "steps.jsonl").read_text()
    word = json.loads(text.splitlines()[2])["digests"]["w"]["m"]
    (other / "steps.jsonl").write_text(text.replace(word, "0" * 64))
    assert main(["replay", str(other)]) == 1
    assert capsys.readouterr().out.startswith("step 3: 'w' (m) differs")
    assert main(["replay", str(record), "--against", str(other)]) == 1
    assert capsys.readouterr().out == "step 3: 'w' (m) differs\n"
    assert main(["replay", str(record / "none")]) == 1
    assert "is no record: it has no start.safetensors" in capsys.readouterr().err
    assert main(["replay", str(record), "--optimizer", "nowhere:Rule"]) == 2
    assert "--optimizer nowhere:Rule: No module named" in capsys.readouterr().err


# ---- records without gradients ----


def test_a_record_without_gradients_is_repeated_by_a_function(folder: Path) -> None:
    def gradient(p: Array) -> Array:
        return 2 * p - 1

    params = {"w": np.ones((4, 3))}
    opt = fs.Adam(params, lr=0.1)
    with fs.Recorder(opt, folder):
        for _ in range(4):
            opt.step({"w": gradient(params["w"])})
    assert sorted(path.name for path in folder.iterdir()) == ["start.safetensors", "steps.jsonl"]
    seen = []

    def gradients(step: int, now: dict[str, Array]) -> dict[str, Array]:
        seen.append(step)
        return {"w": gradient(now["w"]) + (1e-9 if step == 3 else 0)}

    difference = fs.replay(folder, gradients=gradients).difference
    assert difference is not None
    assert difference[:4] == (3, "w", ("p", "m", "v"), None)
    assert seen == [1, 2, 3]
    again = fs.replay(folder, gradients=lambda step, now: {"w": gradient(now["w"])})
    assert again == (4, None)
    with pytest.raises(
        ValueError, match="has no gradients of step 1; record with `gradients=True`"
    ):
        fs.replay(folder)
    with pytest.raises(ValueError, match="step 1 has gradients of 'x'; the parameters are called"):
        fs.replay(folder, gradients=lambda step, now: {"x": now["w"]})


def test_two_runs_are_compared_by_their_records(tmp_path: Path) -> None:
    for name, extra in [("a", 0.0), ("b", 0.0), ("c", 1e-12)]:
        opt = fs.SGD([np.ones(3), np.ones(2)], lr=0.1)
        with fs.Recorder(opt, tmp_path / name):
            for k in range(4):
                opt.step([np.ones(3), np.ones(2) + (extra if k == 2 else 0)])
    assert compare(tmp_path / "a", tmp_path / "b") == (4, None)
    steps, difference = compare(tmp_path / "a", tmp_path / "c")
    assert steps == 3
    assert difference is not None
    assert difference[:3] == (3, "1", ("p",))


# ---- refusals ----


def test_what_cannot_be_recorded_is_refused(folder: Path) -> None:
    p = np.ones(3)
    with pytest.raises(TypeError, match=r"opt is .*; pass an optimizer of `fusedstep`"):
        fs.Recorder(p, folder)
    with pytest.raises(ValueError, match="is a function of your own, which a record cannot hold"):
        fs.Recorder(fs.SGD(p, lr=lambda t: 1 / t), folder)
    out = np.zeros(3, np.float16)
    with pytest.raises(ValueError, match="opt has `out`"):
        fs.Recorder(fs.SGD(p.astype(np.float32), out=out), folder)
    assert not folder.exists()
    opt = fs.SGD(p)
    first = fs.Recorder(opt, folder)
    with pytest.raises(ValueError, match="opt is recorded already; close its other recorder first"):
        fs.Recorder(opt, folder.with_name("second"))
    first.close()
    first.close()
    with pytest.raises(FileExistsError, match=r"is a folder that is not empty; name another one"):
        fs.Recorder(opt, folder)
    opt.step(np.ones(3))
    assert (folder / "steps.jsonl").read_text() == ""
    assert fs.replay(folder) == (0, None)


def test_a_step_that_is_refused_is_not_in_the_record(folder: Path) -> None:
    opt = fs.SGD({"w": np.ones(3)}, lr=0.1, nonfinite="raise")
    with fs.Recorder(opt, folder, gradients=True):
        with pytest.raises(ValueError, match="grads"):
            opt.step({"w": np.ones(4)})
        with pytest.raises(FloatingPointError):
            opt.step({"w": np.array([1, np.nan, 1])})
        opt.step({"w": np.ones(3)})
    assert fs.replay(folder) == (1, None)


def test_damaged_records_are_refused(record: Path) -> None:
    lines = (record / "steps.jsonl").read_text().splitlines(keepends=True)
    for wrong, message in [
        ([lines[0], lines[2]], "has step 3 in line 2; lines were taken out or added"),
        ([lines[0], lines[1][:40]], "is damaged in line 2"),
        (["[]\n"], "is damaged in line 1"),
    ]:
        (record / "steps.jsonl").write_text("".join(wrong))
        with pytest.raises(ValueError, match=message):
            fs.replay(record)
    (record / "steps.jsonl").write_text("".join(lines))
    (record / "00000002.safetensors").unlink()
    with pytest.raises(ValueError, match="has no gradients of step 2"):
        fs.replay(record)
    (record / "00000001.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="is no safetensors file"):
        fs.replay(record)


@fs.rule(state=("m",), lr=0.1)
def Halving(p, g, m, h):  # type: ignore[no-untyped-def]  # noqa: N802
    m = m * 0.5 + g
    return p - h.lr * m, m


def test_rules_of_ones_own_are_passed(folder: Path) -> None:
    opt: Any = Halving(np.ones(3))
    with fs.Recorder(opt, folder, gradients=True):
        opt.step(np.ones(3))
    assert fs.replay(folder, optimizer=Halving) == (1, None)
    with pytest.raises(ValueError, match="is of Halving, a rule of somebody's own; pass its class"):
        fs.replay(folder)
    with pytest.raises(ValueError, match="is a record of Halving, and optimizer=SGD"):
        fs.replay(folder, optimizer=fs.SGD)
