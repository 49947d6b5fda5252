"""Keep what `pytest bench` found, for the tables of the documentation.

pytest bench --benchmark-json=all.json
python bench/keep.py all.json         keeps the records in bench/results.json
python docs/tools/regions.py          writes the tables and the picture from there
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results.json"

DIGITS = 4
"""Digits of each number that are kept, more than are certain."""


def kept(found: Mapping[str, Any]) -> str:
    """The records of pytest-benchmark's JSON, a line each, without every round."""
    ours = found["fusedstep"]
    head = {name: ours[name] for name in ("machine", "missing")}
    lines = [json.dumps(shortened(record), ensure_ascii=False) for record in ours["records"]]
    text = json.dumps({**head, "records": []}, indent=1, ensure_ascii=False)
    assert text.endswith("[]\n}")
    return text[:-3] + "\n" + ",\n".join(lines) + "\n]}\n"


def shortened(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for name, value in record.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("found", type=Path, help="the file that --benchmark-json wrote")
    options = parser.parse_args(argv)
    RESULTS.write_text(kept(json.loads(options.found.read_text("utf-8"))), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
