"""The generated parts of the pages are those of the results, the signatures and the kernels."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import marked
import pytest
import regions
import speed
import symbols
from pages import ROOT
from runs import plain_record

import fusedstep as fs
from fusedstep.benchmarks.records import LIMIT, Machine, Results

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


RESULTS = Results(
    MACHINE,
    {},
    [
        plain_record("1 × 1,000", "fusedstep", 2.04e-6),
        plain_record("1 × 1,000", "torch fused", 20e-6),
        plain_record("1 × 1,000", "NumPy", 3e-6),
        plain_record("1 × 1,000", LIMIT, 1.02e-6),
        plain_record("10,000 × 100", "fusedstep", 1e-3),
        plain_record("10,000 × 100", "torch fused", 1.5),
        plain_record("10,000 × 100", "fusedstep arena", 1e-4),
        plain_record("1 × 1,000", "fusedstep", 9.0, dtype="float64"),
        plain_record("1 × 1,000", "fusedstep", 9.0, case="adam"),
        plain_record("1 × 1,000", "fusedstep", 1e-3, loop="torch", product=0.99, product_alone=1.0),
        plain_record("1 × 1,000", "fusedstep, one thread", 1.1e-3, loop="torch"),
        plain_record(
            "1 × 1,000", "torch fused", 3e-3, loop="torch", product=1.25, product_alone=1.0
        ),
        plain_record("1 × 1,000", "fusedstep", 1e-3, case="adamw-whole"),
        plain_record("1 × 1,000", "torch's passes", 2e-3, case="adamw-whole"),
    ],
)


def test_nothing_is_stale() -> None:
    assert regions.main(["--check"]) == 0


def test_what_is_stale_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for page in [*regions.pages(ROOT), *(ROOT / name for name in regions.FILES)]:
        copy = tmp_path / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(page.read_text("utf-8").replace("× |", "x |"), "utf-8")
    assert regions.main(["--check"], tmp_path) == 1
    assert "README.md is stale: run `python docs/tools/regions.py`" in capsys.readouterr().out
    assert regions.main([], tmp_path) == 0
    assert regions.main(["--check"], tmp_path) == 0
    assert (tmp_path / "README.md").read_text("utf-8") == (ROOT / "README.md").read_text("utf-8")
    page = tmp_path / "docs" / "guide" / "presets.md"
    page.write_text("<!-- docs/tools/regions.py: nothing -->\n<!-- end of nothing -->\n", "utf-8")
    with pytest.raises(ValueError, match="the region 'nothing' is unknown"):
        regions.main([], tmp_path)
    page.write_text("", "utf-8")
    with pytest.raises(ValueError, match=r"no page has the regions \['presets'\]"):
        regions.main([], tmp_path)


def test_only_what_is_between_the_comments_is_written() -> None:
    text = "a <!-- docs/tools/regions.py: x -->\nold\n<!-- end of x --> b"
    assert marked.regions(text) == ["x"]
    new = marked.filled(text, {"x": "new"})
    assert new == "a <!-- docs/tools/regions.py: x -->\nnew\n<!-- end of x --> b"
    assert marked.filled(new, {"x": "new"}) == new


# ---- speed ----


def test_tables_hold_ratios_first() -> None:
    assert speed.steps(RESULTS).splitlines() == [
        "| tensors × elements | torch fused | NumPy | of the limit's speed | µs |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| 1 × 1,000 | 9.8× | 1.47× | 50% | 2.0 |",
        "| 10,000 × 100 | 1,500× |  |  | 1,000 |",
        "| 10,000 × 100, in an arena | 15,000× |  |  | 100 |",
    ]
    assert speed.loops(RESULTS).splitlines()[2:] == [
        "| torch | 1,000 | 3.0× | 1.10× | −1.0% | 25.0% | 1,000 |",
    ]
    assert speed.whole(RESULTS).splitlines()[2:] == ["| nothing | 1,000 | 2.0× |  | 1,000 |"]
    assert speed.speed(RESULTS).splitlines()[2:] == [
        "| 1 × 1,000 | 9.8× | 1.47× | 2.0 |",
        "| 10,000 × 100 | 1,500× |  | 1,000 |",
    ]
    assert speed.caption(RESULTS.machine) == (
        "2026-01-31, Some CPU (2 CPUs, L1 32 KiB, L2 1 MiB), Linux x86_64, avx2, 2 threads; "
        "python 3.11, numpy 2.4."
    )


def test_the_readme_has_six_rows_of_speed() -> None:
    lines = speed.short(speed.results()).splitlines()
    assert len(lines) == 2 + 6
    assert {line.count(" |") for line in lines} == {7}


def test_the_picture_has_each_record_where_it_belongs() -> None:
    """A curve is higher where the speed is, and to the right where there is more to step."""
    larger = [plain_record("1 × 10,000", "fusedstep", 8e-6, elements=10_000)]
    root = ElementTree.fromstring(speed.picture(Results(MACHINE, {}, [*RESULTS.records, *larger])))
    circles = root.findall("{*}circle")
    points = [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in circles]
    numpy, fused, ours, ours_larger = points
    assert numpy[0] == fused[0] == ours[0] < ours_larger[0]
    assert fused[1] > numpy[1] > ours[1] > ours_larger[1]
    names = [each.text for each in root.findall("{*}text") if "class" not in each.attrib]
    assert names == ["fusedstep", "torch fused", "NumPy", LIMIT]


# ---- names ----


def test_the_overview_has_every_public_name() -> None:
    overview = (ROOT / "docs" / "reference" / "api.md").read_text("utf-8")
    listed = re.findall(r"^\| `fs\.([\w.]+)` \| (.+) \|$", overview, re.MULTILINE)
    assert {f"fusedstep.{name}" for name, _ in listed} == {*symbols.every()}
    assert all(summary.strip() for _, summary in listed)


def test_every_public_name_has_a_docstring() -> None:
    missing = [
        name
        for name, thing in symbols.every().items()
        for name, thing in [(name, thing), *members(name, thing)]
        if not (thing.__doc__ or "").strip()
    ]
    assert missing == []


def test_the_attributes_of_an_arena_are_described() -> None:
    text = inspect.getdoc(fs.Arena) or ""
    for name in ("params", "grads", "buffers"):
        assert re.search(rf"^(\w+, )*{name}(, \w+)*$", text, re.MULTILINE), name


def members(name: str, thing: Any) -> list[tuple[str, Any]]:
    if not isinstance(thing, type):
        return []
    return [(f"{name}.{part}", member) for part, member in symbols.members(thing).items()]
