"""The child processes of an audit: started when needed, and again after a crash or a hang."""

from __future__ import annotations

import base64
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

from fusedstep.audits.formulas import Array


class DiedError(Exception):
    """The child process crashed, or was stopped because no answer came in time."""

    def __init__(self, message: str, *, hung: bool = False) -> None:
        super().__init__(message)
        self.hung = hung


IDLE = {"OMP_WAIT_POLICY": "passive"}
"""Settings by which threads that wait leave the CPU to others, unless others are given."""

STARTING = 300.0
"""Seconds that a process may take to import what it needs."""


class Worker:
    """A child process that answers tasks one by one."""

    def __init__(self, timeout: float, environment: Mapping[str, str] | None = None) -> None:
        self.timeout = timeout
        """Seconds until a task counts as hanging."""

        self.imports = ""
        """A program that each new process runs before its first task."""

        self.environment = dict(environment or {})
        self.process: subprocess.Popen[str] | None = None
        self.answers: queue.Queue[str] = queue.Queue()
        self.errors: IO[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process, if it is not there."""
        if self.process is None:
            self.errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by `stop`
            folders = [folder or os.getcwd() for folder in sys.path]  # the same as here
            self.answers = queue.Queue()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fusedstep.audits.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                encoding="utf-8",
                env={
                    **IDLE,
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(folders),
                    **self.environment,
                },
            )
            reader = threading.Thread(
                target=forward, args=(self.process.stdout, self.answers), daemon=True
            )
            reader.start()
            if self.imports:
                self.answered({"task": "run", "program": self.imports, "names": []}, STARTING)

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    try:
                        stream.close()
                    except OSError:  # the pipe is broken, as the process is gone
                        continue
        if self.errors is not None:
            self.errors.close()
            self.errors = None

    def ask(self, task: Mapping[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """The answer to a task; `DiedError` if there is none.

        A crash may come of what an earlier task has written where it should not, so that one
        counts only in a new process.
        """
        used = self.process is not None
        try:
            self.start()
            return self.answered(task, timeout or self.timeout)
        except DiedError as died:
            if died.hung or not used:
                raise
            self.start()
            return self.answered(task, timeout or self.timeout)

    def answered(self, task: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        process = self.process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
            line = self.answers.get(timeout=timeout)
        except queue.Empty:
            self.stop()
            raise DiedError(f"no end after {timeout:g} s", hung=True) from None
        except OSError:
            line = ""
        if not line:
            said = self.said()
            status = process.wait()
            self.stop()
            raise DiedError(f"{ending(status)}{said}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def said(self) -> str:
        """The last line that the child wrote to stderr, after a colon."""
        if self.errors is None:
            return ""
        self.errors.seek(0)
        lines = self.errors.read().decode("utf-8", "replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""

    def run(self, program: str, names: Sequence[str] = ()) -> Answer:
        """Run a program, and unpack the arrays that it has under `names`."""
        return Answer(self.ask({"task": "run", "program": program, "names": list(names)}))


class Answer:
    """The end of a program."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.error: str | None = fields.get("error")
        """Type and message of the exception that ended it."""

        self.printed: str = fields.get("printed", "")
        self.arrays = {name: unpacked(fields[name]) for name in fields if name in NAMES}


NAMES = ("seen", "expected")
"""The arrays of a program: what came out, and what should have."""


def unpacked(fields: Mapping[str, Any]) -> Array:
    flat = np.frombuffer(base64.b64decode(fields["bytes"]), np.float64)
    return flat.reshape(fields["shape"])


def forward(stream: IO[str] | None, answers: queue.Queue[str]) -> None:
    """Pass lines on to the queue, and an empty one when the stream has ended."""
    assert stream is not None
    try:
        for line in stream:
            answers.put(line)
    except ValueError:  # closed while it was read
        return
    answers.put("")


def ending(status: int) -> str:
    """How a process ended, by its exit status."""
    if status >= 0:
        return f"the process ended with status {status}"
    try:
        return f"the process crashed with {signal.Signals(-status).name}"
    except ValueError:
        return f"the process crashed with signal {-status}"
