"""CUDA graphs, by NVIDIA's own bindings: what a library records on a stream, and runs again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cuda.bindings import driver


def done(answer: tuple[Any, ...]) -> Any:
    """The values of a call, which has to succeed."""
    error, *values = answer
    assert error == driver.CUresult.CUDA_SUCCESS, error
    return values[0] if values else None


class Graph:
    """Work that has been recorded."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.ready: Any = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the stream's work, by the strictest rules: memory that is freed ends it."""
        rules = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL
        gc.collect()
        gc.disable()
        done(driver.cuStreamBeginCapture(self.stream, rules))
        try:
            yield
        finally:
            recorded = done(driver.cuStreamEndCapture(self.stream))
            gc.enable()
        self.ready = done(driver.cuGraphInstantiate(recorded, 0))

    def launch(self, stream: int | None = None) -> None:
        """Run the work, in the order of its stream or of another one."""
        done(driver.cuGraphLaunch(self.ready, self.stream if stream is None else stream))
