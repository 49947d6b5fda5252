"""The JSON that `fusedstep bench` keeps, and reads back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from runs import WHOLE, record, run_of

from fusedstep.benchmarks import json_file


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    json_file.write(WHOLE, path)
    assert json_file.read(path) == WHOLE
    assert [entry.name for entry in tmp_path.iterdir()] == ["bench.json"]
    speeds = [entry["speed"] for entry in json.loads(path.read_text("utf-8"))["records"]]
    assert speeds == [one.speed for one in WHOLE.records]
    assert WHOLE.records[1].speed == pytest.approx(28)


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bench.json"
    path.write_text("mine")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        json_file.write(WHOLE, path)
    assert path.read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["bench.json"]


def test_writes_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "bench.json"
    link.symlink_to(tmp_path / "folder" / "kept.json")
    json_file.write(WHOLE, link)
    assert link.is_symlink()
    assert json_file.read(tmp_path / "folder" / "kept.json") == WHOLE


def broken(**changes: Any) -> str:
    """The JSON of a run whose first record has other fields."""
    value = WHOLE.to_dict()
    value["records"][0] |= changes
    return json.dumps(value)


UNREADABLE = [
    ("", "is no JSON: Expecting value: line 1 column 1 (char 0)"),
    ("[" * 100_000, "is nested too deeply"),
    ("[]", "holds no results: the file is no object"),
    ("{}", "holds no results: the file lacks machine, missing, records"),
    ('{"machine": [], "missing": {}, "records": [1]}', "machine is no object"),
    ('{"machine": {"cpu": "A"}, "missing": {}, "records": [1]}', "machine lacks cpus, caches,"),
    (json.dumps({**WHOLE.to_dict(), "missing": {"a": 1}}), "missing.a=1 is no text"),
    (json.dumps({**WHOLE.to_dict(), "records": {}}), "records is no list of one or more"),
    (json.dumps({**WHOLE.to_dict(), "records": []}), "records is no list of one or more"),
    (json.dumps({**WHOLE.to_dict(), "records": [None]}), "records[0] is no object"),
    (broken(seconds="1"), 'records[0].seconds="1" is no finite number'),
    (broken(seconds=float("nan")), "records[0].seconds=NaN is no finite number"),
    (broken(seconds=10**30), "is no finite number"),
    (broken(seconds=0.0, low=0.0), "records[0].seconds=0.0 is not positive"),
    (broken(low=1.0), "is not between its quartiles"),
    (broken(elements=True), "records[0].elements=true is no whole number"),
    (broken(elements=1.5), "records[0].elements=1.5 is no whole number"),
    (broken(share="all"), 'records[0].share="all" is no finite number or null'),
    (broken(share=-1), "records[0].share=-1 is not positive"),
    (broken(contestant=None), "records[0].contestant=null is no text"),
    (broken(contestant="fusedstep"), "records[1] is of the same step as records[0]"),
]


@pytest.mark.parametrize(("text", "complaint"), UNREADABLE)
def test_refuses_other_files(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"^{path} .*; {json_file.REMEDY}$") as caught:
        json_file.read(path)
    assert complaint in str(caught.value)


def test_refuses_what_is_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"cannot read {tmp_path}/none.json: No such file"):
        json_file.read(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"bytes\.json is no text in UTF-8"):
        json_file.read(tmp_path / "bytes.json")


def test_reads_whole_numbers_as_seconds_and_passes_over_what_it_does_not_know(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bench.json"
    value = run_of(record(seconds=2.0, low=1.0, high=3.0)).to_dict()
    value["records"][0] |= {"seconds": 2, "low": 1, "new": "field"}
    path.write_text(json.dumps(value))
    assert json_file.read(path).records == [record(seconds=2.0, low=1.0, high=3.0)]
