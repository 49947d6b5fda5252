"""A child process that runs programs: `python -m fusedstep.audits.worker`.

Each line on stdin is a task as JSON, each line on stdout its answer. A program that crashes takes
this process with it, and nothing else.
"""

from __future__ import annotations

import base64
import json
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np


def main() -> None:
    tasks = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 0)  # what a program reads or prints is not part of the conversation
    os.dup2(quiet, 1)
    warnings.simplefilter("ignore")
    for line in tasks:
        task = json.loads(line)
        answers.write(json.dumps(KINDS[task["task"]](task)) + "\n")
        answers.flush()


def run(task: Mapping[str, Any]) -> dict[str, Any]:
    """Run a program, and return what it printed, its error, and the arrays that it has named."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = StringIO()
    answer: dict[str, Any] = {}
    try:
        with redirect_stdout(printed):
            exec(compile(task["program"], "<program>", "exec"), namespace)
        answer = {name: packed(namespace[name]) for name in task["names"] if name in namespace}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        answer["error"] = described(error)
    return {**answer, "printed": printed.getvalue()}


def described(error: BaseException) -> str:
    """An exception as the last line of its traceback has it."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def packed(value: Any) -> dict[str, Any]:
    """An array as JSON, in float64."""
    array = np.ascontiguousarray(value, np.float64)
    shape = np.shape(value)
    return {"shape": list(shape), "bytes": base64.b64encode(array.tobytes()).decode("ascii")}


def probe(task: Mapping[str, Any]) -> dict[str, Any]:
    from fusedstep.audits.probe import probe

    try:
        return probe(task["expression"], task["rule"])
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return {"error": described(error)}


KINDS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"run": run, "probe": probe}

if __name__ == "__main__":
    main()
