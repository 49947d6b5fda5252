"""Results as a JSON file: written whole or not at all, and read with every field checked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol, get_args, get_origin, get_type_hints

from fusedstep.benchmarks.records import Machine, Record, Results

REMEDY = "pass a file that `fusedstep bench --json` has written"

STEP = ("workload", "case", "dtype", "loop", "contestant", "threads")
"""Fields that tell a record of a run from all others."""

NAMES = {str: "text", int: "whole number", float: "finite number", type(None): "null"}

LARGEST = 2.0**63
"""Bound of all numbers, which none of a record comes near."""


class Recorded(Protocol):
    """Whatever can be kept as JSON."""

    def to_dict(self) -> dict[str, Any]: ...


def write(results: Recorded, path: Path) -> None:
    """Write `results` to `path`, which holds the old content or all of the new at any time.

    They are written to a file beside it, which then replaces it. An OSError leaves it as it was.
    """
    text = json.dumps(results.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    target = path.resolve()
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(beside, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def read(path: Path) -> Results:
    """Read the results in the file `path`. A ValueError says what is wrong with any other file."""
    try:
        return _results(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}; {REMEDY}") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply; {REMEDY}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8; {REMEDY}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}; {REMEDY}") from None
    except ValueError as error:
        raise ValueError(f"{path} holds no results: {error}; {REMEDY}") from None


def _results(value: Any) -> Results:
    fields = _fields(value, "the file", ("machine", "missing", "records"))
    machine = _checked(Machine, fields["machine"], "machine")
    missing = _fit(fields["missing"], dict[str, str], "missing")
    if not isinstance(fields["records"], list) or not fields["records"]:
        raise ValueError("records is no list of one or more")
    records = [_record(item, f"records[{index}]") for index, item in enumerate(fields["records"])]
    seen: dict[tuple[object, ...], int] = {}
    for index, record in enumerate(records):
        first = seen.setdefault(tuple(getattr(record, field) for field in STEP), index)
        if first != index:
            raise ValueError(f"records[{index}] is of the same step as records[{first}]")
    return Results(machine, missing, records)


def _record(value: Any, name: str) -> Record:
    record: Record = _checked(Record, value, name)
    for field in ("tensors", "elements", "threads", "steps", "bytes", "seconds", "low", "high"):
        if getattr(record, field) <= 0:
            raise ValueError(f"{name}.{field}={getattr(record, field)} is not positive")
    if record.share is not None and record.share <= 0:
        raise ValueError(f"{name}.share={record.share} is not positive")
    if not record.low <= record.seconds <= record.high:
        raise ValueError(f"{name}.seconds={record.seconds} is not between its quartiles")
    return record


def _checked(kind: Any, value: Any, name: str) -> Any:
    """`value` as the named tuple `kind`, without fields that `kind` does not have."""
    types = get_type_hints(kind)
    needed = [field for field in kind._fields if field not in kind._field_defaults]
    fields = _fields(value, name, needed)
    return kind(
        **{
            field: _fit(fields[field], types[field], f"{name}.{field}")
            for field in kind._fields
            if field in fields
        }
    )


def _fields(value: Any, name: str, needed: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    if absent := ", ".join(field for field in needed if field not in value):
        raise ValueError(f"{name} lacks {absent}")
    return value


def _fit(value: Any, kind: Any, name: str) -> Any:
    """`value`, if it is of the type `kind`; else a ValueError."""
    if get_origin(kind) is dict:
        _, inner = get_args(kind)
        return {
            key: _fit(item, inner, f"{name}.{key}")
            for key, item in _fields(value, name, ()).items()
        }
    allowed = get_args(kind) or (kind,)
    fits = isinstance(value, (*allowed, int) if float in allowed else allowed)
    if isinstance(value, int | float):
        fits = fits and not isinstance(value, bool) and abs(value) < LARGEST
    if not fits:
        wanted = " or ".join(NAMES[one] for one in allowed)
        raise ValueError(f"{name}={json.dumps(value)[:60]} is no {wanted}")
    return value
