"""Optimizers under torch's distributed training: the bits of the same training in one process.

Processes are started by `torchrun`, on the CPU. What each of them does stands in helpers/ranks.py.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed; `pip install '.[torch]'`")

MODULE = "fusedstep.torch"
OPTIMIZERS = ("Adam", "AdamW", "SGD", "RMSprop", "Adagrad")
"""Optimizers that change each element by itself, so that it does not matter how they are cut."""

SECONDS = 120
"""Time until processes that wait for one another are stopped."""


def torchrun(ranks: int, *arguments: object) -> None:
    """Run helpers/ranks.py by so many processes; if one fails, so does the test that asks."""
    spec = importlib.util.find_spec("ranks")
    assert spec is not None
    assert spec.origin is not None
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    optimizers = [f"--optimizer={MODULE}:{name}" for name in OPTIMIZERS]
    process = subprocess.Popen(
        [*launcher, f"--nproc-per-node={ranks}", spec.origin, *map(str, arguments), *optimizers],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
        ended = f"{ranks} ranks ended with {process.returncode}"
    except subprocess.TimeoutExpired:
        process.terminate()  # and not kill: the launcher ends its ranks, too
        output, _ = process.communicate()
        ended = f"{ranks} ranks were stopped after {SECONDS} s"
    if process.returncode:
        pytest.fail(f"{ended}:\n{output}")


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_replicas_have_the_bits_of_one_process(ranks: int) -> None:
    torchrun(ranks, "ddp", "zero", "few")


@pytest.mark.parametrize(
    "ranks", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)]
)
def test_shards_have_the_bits_of_one_process(ranks: int) -> None:
    torchrun(ranks, "fsdp", "tensor_parallel", "states", "clip", "whole")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [3])
def test_shards_of_16_bits_have_the_bits_of_one_process(ranks: int) -> None:
    torchrun(ranks, "halves")


def test_training_goes_on_from_the_checkpoint_of_other_ranks(tmp_path: Path) -> None:
    torchrun(2, "save", f"--folder={tmp_path}")
    torchrun(3, "load", f"--folder={tmp_path}")
    torchrun(1, "load", f"--folder={tmp_path}")
