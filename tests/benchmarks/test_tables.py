"""`pytest bench` leaves what the README's tables are made of, and they are made of it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import processes
import pytest
from marks import needs

from fusedstep.benchmarks.json_file import read
from fusedstep.benchmarks.measuring import Group
from fusedstep.benchmarks.records import LIMIT, Machine, Record, Results

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
def tables() -> ModuleType:
    return load("tables")


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
    small = Group([record("MLP", "torch", 1.0)], none, {})
    large = Group([record("GPT-2 small", "fusedstep", 1.0)], {"torch": "slow", **none}, {})
    monkeypatch.setattr(replay, "FOUND", {"MLP-adamw": small, "GPT-2-small-adamw": large})
    made: dict[str, Any] = {}
    replay.pytest_benchmark_update_json(None, None, made)
    assert made["fusedstep"]["missing"] == {"torch at GPT-2-small-adamw": "slow", **none}


def test_what_is_kept_is_read_back(
    tables: ModuleType, found: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "results.json"
    path.write_text(kept := tables.keep(found), "utf-8")
    results = read(path)
    assert results.missing == found["fusedstep"]["missing"]
    assert results.machine._asdict() == found["fusedstep"]["machine"]
    for record, was in zip(results.records, found["fusedstep"]["records"], strict=True):
        for name, value in record._asdict().items():
            kept_well = (
                pytest.approx(was[name], rel=1e-3) if isinstance(value, float) else was[name]
            )
            assert value == kept_well
    assert len(kept) < 500 * (len(results.records) + 5)


MACHINE = Machine(
    "Some CPU",
    2,
    {"L1": 32 << 10, "L2": 1 << 20},
    "Linux x86_64",
    "avx2",
    2,
    {"python": "3.11", "numpy": "2.4"},
    "2026-01-31",
)


def record(workload: str, contestant: str, seconds: float, **fields: Any) -> Record:
    usual = Record(
        workload=workload,
        tensors=1,
        elements=1000,
        case="adamw",
        dtype="float32",
        loop="alone",
        contestant=contestant,
        threads=2,
        seconds=seconds,
        low=seconds,
        high=seconds,
        steps=1,
        bytes=28,
        cache="L1",
        share=None,
    )
    return usual._replace(**fields)


RESULTS = Results(
    MACHINE,
    {},
    [
        record("1 × 1,000", "fusedstep", 2.04e-6),
        record("1 × 1,000", "torch fused", 20e-6),
        record("1 × 1,000", "NumPy", 3e-6),
        record("1 × 1,000", LIMIT, 1.02e-6),
        record("10,000 × 100", "fusedstep", 1e-3),
        record("10,000 × 100", "torch fused", 1.5),
        record("10,000 × 100", "fusedstep arena", 1e-4),
        record("1 × 1,000", "fusedstep", 9.0, dtype="float64"),
        record("1 × 1,000", "fusedstep", 9.0, case="adam"),
        record("1 × 1,000", "fusedstep", 1e-3, loop="torch", product=0.99, product_alone=1.0),
        record("1 × 1,000", "fusedstep, one thread", 1.1e-3, loop="torch"),
        record("1 × 1,000", "torch fused", 3e-3, loop="torch", product=1.25, product_alone=1.0),
        record("1 × 1,000", "fusedstep", 1e-3, case="adamw-whole"),
        record("1 × 1,000", "torch's passes", 2e-3, case="adamw-whole"),
    ],
)


def test_tables_hold_ratios_first(tables: ModuleType) -> None:
    made = tables.tables(RESULTS)
    assert made["steps"].splitlines() == [
        "| tensors × elements | torch fused | NumPy | of the limit's speed | µs |",
        "| --- | --- | --- | --- | --- |",
        "| 1 × 1,000 | 9.8× | 1.47× | 50% | 2.0 |",
        "| 10,000 × 100 | 1,500× |  |  | 1,000 |",
        "| 10,000 × 100, in an arena | 15,000× |  |  | 100 |",
    ]
    assert made["loops"].splitlines()[2:] == [
        "| torch | 1,000 | 3.0× | 1.10× | −1.0% | 25.0% | 1,000 |",
    ]
    assert made["whole"].splitlines()[2:] == ["| 1,000 | nothing | 2.0× |  | 1,000 |"]
    assert made["machine"] == (
        "2026-01-31, Some CPU (2 CPUs, L1 32 KiB, L2 1 MiB), Linux x86_64, avx2, 2 threads; "
        "python 3.11, numpy 2.4."
    )


def test_only_what_is_between_the_markers_is_written(tables: ModuleType) -> None:
    text = "a <!-- bench/tables.py: x -->\nold\n<!-- end of x --> b"
    new = tables.written(text, {"x": "new"})
    assert new == "a <!-- bench/tables.py: x -->\nnew\n<!-- end of x --> b"
    assert tables.written(new, {"x": "new"}) == new
    with pytest.raises(ValueError, match="no place between '<!-- bench/tables"):
        tables.written(text, {"y": "new"})


def test_the_readmes_tables_are_those_of_the_results(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tables.main(["--check"]) == 0
    assert len((ROOT / "bench" / "results.json").read_bytes()) < 200_000
    other = tmp_path / "README.md"
    text = (ROOT / "README.md").read_text("utf-8")
    other.write_text(text.replace("× |", "x |"), "utf-8")
    monkeypatch.setattr(tables, "README", other)
    assert tables.main(["--check"]) == 1
    assert tables.main([]) == 0
    assert other.read_text("utf-8") == text
