"""Run the reproducers of an audit as they stand, each as a file of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from fusedstep.audits.records import FAILS, STALLS, Finding, Report

RUNNER = """
import contextlib, io, json, runpy, sys
for path in sys.argv[1:]:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(path, run_name="__main__")
    except Exception as error:
        print(type(error).__name__, file=printed)
    print(json.dumps(printed.getvalue()))
"""
"""Runs files one after another in one process, as torch takes seconds to be imported."""


def reproduce(report: Report, folder: Path, *, same: bool = True) -> None:
    """Run every reproducer, and see its failure in what it prints.

    `same` is whether it must print what the audit saw, digit by digit.
    """
    findings = report.of(FAILS) + report.of(STALLS)
    files = [folder / f"reproducer{k}.py" for k in range(len(findings))]
    for file, finding in zip(files, findings, strict=True):
        file.write_text(finding.reproducer, encoding="utf-8")
    crashing = [k for k, finding in enumerate(findings) if "crashed with" in finding.printed]
    for k in crashing[:2]:
        assert run(files[k]).returncode < 0
    rest = [k for k in range(len(findings)) if k not in crashing]
    if rest:
        lines = run("-c", RUNNER, *(files[k] for k in rest)).stdout.splitlines()
        for k, line in zip(rest, lines, strict=True):
            shows(findings[k], json.loads(line).strip(), same)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )


def shows(finding: Finding, printed: str, same: bool) -> None:
    """Check that the failure can be seen in what was printed."""
    if "Error" in finding.printed:
        assert printed == finding.printed.partition(":")[0]
        return
    seen, expected = printed.partition(": ")[2].split(" in place of ")
    assert seen != expected
    if same:
        assert printed == finding.printed
