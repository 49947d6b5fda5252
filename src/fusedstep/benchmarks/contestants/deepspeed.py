"""DeepSpeed's CPUAdam, which is compiled on this machine when it is first made."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

import fusedstep as fs
from fusedstep._checks.wording import quoted
from fusedstep.benchmarks.contestants.contestant import (
    BuildError,
    Contestant,
    Entry,
    only_updates,
)
from fusedstep.benchmarks.contestants.torch import leaves
from fusedstep.benchmarks.problem import Problem

KNOWN = {"lr", "betas", "eps", "weight_decay", "bias_correction"}
"""Options that CPUAdam has, too."""


class DeepSpeed(Contestant):
    name = "DeepSpeed CPUAdam"
    packages = ("deepspeed", "torch")
    extra = "deepspeed"

    def why_missing(self) -> str | None:
        return super().why_missing() or why_uncompilable()

    def why_slow_to_start(self) -> str | None:
        if built() is not None:
            return None
        return "not compiled yet, which takes a minute; `pytest bench -k DeepSpeed` does it"

    def why_unfit(self, problem: Problem) -> str | None:
        if problem.case.optimizer not in (fs.Adam, fs.AdamW):
            return "CPUAdam is Adam and AdamW alone"
        if problem.dtype != np.float32:
            return "CPUAdam has no float64"
        if unknown := sorted(problem.case.options.keys() - KNOWN - {*problem.additions}):
            return f"CPUAdam has no {quoted(unknown)}"
        return only_updates("CPUAdam's", problem)

    def build(self, problem: Problem) -> Entry:
        import torch

        torch.set_num_threads(problem.threads)
        params = problem.params()
        known = {name: value for name, value in problem.hyperparameters.items() if name in KNOWN}
        decoupled = problem.case.optimizer is fs.AdamW
        try:
            from deepspeed.ops.adam import DeepSpeedCPUAdam

            tensors = leaves(params, problem.grads)
            optimizer = DeepSpeedCPUAdam(tensors, **known, adamw_mode=decoupled)
        except (ImportError, RuntimeError) as error:
            reason = f"CPUAdam did not compile or load: {error.__cause__ or error}"
            raise BuildError(reason) from error
        return Entry(optimizer.step, lambda: params, problem.threads)


def why_uncompilable() -> str | None:
    """Return why CPUAdam cannot be compiled here, or None if it can or has been."""
    if built() is not None:
        return None
    if shutil.which("ninja") is None:
        return (
            "ninja, with which CPUAdam is compiled, is not on the PATH; activate the environment "
            "that it is installed in"
        )
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        return f"{compiler}, which compiles CPUAdam, is not there; install g++ or name one as CXX"
    return None


def built() -> Path | None:
    """Return the path of the compiled CPUAdam in torch's folder of extensions, if it is there."""
    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    root = Path(named) if named else Path.home() / ".cache/torch_extensions"
    return next(root.glob("**/cpu_adam/cpu_adam.so"), None)
