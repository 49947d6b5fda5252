"""`pytest bench` leaves what the tables of speed are made of."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import processes
import pytest
from marks import needs
from runs import plain_record

from fusedstep.benchmarks.json_file import read
from fusedstep.benchmarks.measuring import Group

ROOT = Path(__file__).parents[2]

needs("pytest_benchmark", "test")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "bench" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def keep() -> ModuleType:
    return load("keep")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The contents of `--benchmark-json`: our step, those of NumPy, and some that cannot run."""
    path = tmp_path_factory.mktemp("bench") / "all.json"
    selected = "1x100- and float32 and (fusedstep or NumPy or limit or DeepSpeed)"
    done = processes.pytest(
        *("bench", "--quick", "-k", selected, f"--benchmark-json={path}"),
        TORCH_EXTENSIONS_DIR=str(path.parent),
        PATH="",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return made


def test_benchmarks_record_what_was_found(found: dict[str, Any]) -> None:
    by_name = {each["extra_info"]["contestant"]: each for each in found["benchmarks"]}
    assert {"NumPy", "fusedstep"} <= by_name.keys()
    for each in by_name.values():
        info, stats = each["extra_info"], each["stats"]
        assert stats["rounds"] >= 5
        assert stats["median"] == pytest.approx(info["seconds"])
        assert min(stats["data"]) <= info["low"] <= info["high"] <= max(stats["data"])
        assert info["bytes"] == 28
        assert info["speed"] == pytest.approx(2.8e-6 / info["seconds"])
        assert {"isa", "versions", "threads", "cache", "share"} <= info.keys()
        assert each["group"] == "1x100-adamw-float32-alone"
    assert "DeepSpeed CPUAdam" in found["fusedstep"]["missing"]


def test_who_takes_part_somewhere_is_missing_only_where_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replay = load("replay")
    none = {"DeepSpeed CPUAdam": "absent"}
    small = Group([plain_record("MLP", "torch", 1.0)], none, {})
    large = Group([plain_record("GPT-2 small", "fusedstep", 1.0)], {"torch": "slow", **none}, {})
    monkeypatch.setattr(replay, "FOUND", {"MLP-adamw": small, "GPT-2-small-adamw": large})
    made: dict[str, Any] = {}
    replay.pytest_benchmark_update_json(None, None, made)
    assert made["fusedstep"]["missing"] == {"torch at GPT-2-small-adamw": "slow", **none}


def test_what_is_kept_is_read_back(
    keep: ModuleType, found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, given = tmp_path / "results.json", tmp_path / "all.json"
    given.write_text(json.dumps(found), "utf-8")
    monkeypatch.setattr(keep, "RESULTS", path)
    assert keep.main([str(given)]) == 0
    results = read(path)
    assert results.missing == found["fusedstep"]["missing"]
    assert results.machine._asdict() == found["fusedstep"]["machine"]
    for record, was in zip(results.records, found["fusedstep"]["records"], strict=True):
        for name, value in record._asdict().items():
            kept_well = (
                pytest.approx(was[name], rel=1e-3) if isinstance(value, float) else was[name]
            )
            assert value == kept_well
    assert len(path.read_text("utf-8")) < 500 * (len(results.records) + 5)


def test_what_is_kept_is_small() -> None:
    assert len((ROOT / "bench" / "results.json").read_bytes()) < 200_000
