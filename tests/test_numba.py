"""The Numba engine: what it compiles, how often, and where it keeps it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import BACKENDS, needs_c

import fusedstep as fs

pytestmark = pytest.mark.skipif(
    BACKENDS["numba"] is not None, reason=f"no Numba engine: {BACKENDS['numba']}"
)

STEP = """
import numpy as np, fusedstep as fs
from fusedstep.backends import numba
p = np.ones(70, np.float32)
optimizer = fs.AdamW(p, backend="numba")
for _ in range(2):
    optimizer.step(np.ones_like(p))
made = numba.kernel(optimizer._plan.table.jobs[0])
print(made.cache_hits, float(p[0]).hex(), numba.generate._folder())
"""


def step_elsewhere(folder: Path, code: str = STEP) -> list[str]:
    """What a new process prints, whose caches are in `folder`."""
    own = {name: str(folder) for name in ("XDG_CACHE_HOME", "LOCALAPPDATA")}
    kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={**kept, **own})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_second_process_does_not_compile(tmp_path: Path) -> None:
    first, second = step_elsewhere(tmp_path), step_elsewhere(tmp_path)
    assert first[0] == "0"
    assert second[0] == "1"
    assert first[1:] == second[1:]
    (module,) = (tmp_path / "fusedstep").glob("*.py")
    assert module.name.startswith("adamw_mv_float32-")
    assert "def adamw(p, g, m, v, h):\n    p = p * h.decay" in module.read_text()


def test_a_cache_that_cannot_be_written_to_costs_only_the_cache(tmp_path: Path) -> None:
    (tmp_path / "fusedstep").write_text("in the way")
    hits, _, folder = step_elsewhere(tmp_path)
    assert hits == "0"
    assert not folder.startswith(str(tmp_path))
    assert not Path(folder).exists()  # it went with the process


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names instructions of x86-64")
@pytest.mark.parametrize("states", [1, 2, 8])
def test_kernels_are_vectorised(states: int, tmp_path: Path) -> None:
    """Square roots come in packs, however many arrays a loop has, and nothing is contracted."""
    names = [f"m{k}" for k in range(states)]
    lines = [f"    {name} = h.lr * {name} + np.sqrt(g)" for name in names]
    (tmp_path / "many.py").write_text(
        "import numpy as np, fusedstep as fs\n"
        f"@fs.rule(state={tuple(names)!r}, lr=0.5)\n"
        f"def Many(p, g, {', '.join(names)}, h):\n"
        + "\n".join(lines)
        + f"\n    return p - h.lr * g * {names[0]}, {', '.join(names)}\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import re, numpy as np, many\n"
        "from fusedstep.backends import numba\n"
        "optimizer = many.Many(np.ones(99, np.float32), backend='numba')\n"
        "optimizer.step(np.ones(99, np.float32))\n"
        "assembly = numba.kernel(optimizer._plan.table.jobs[0])._library.get_asm_str()\n"
        "print(len(re.findall(r'sqrtps', assembly)), len(re.findall(r'fn?m(add|sub)', assembly)))\n"
    )
    packed, contracted = map(int, step_elsewhere(tmp_path, code))
    assert packed > 0
    assert contracted == 0


def test_rules_are_plain_python() -> None:
    code = "import sys, fusedstep.backends.rules; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False"]


@needs_c
def test_rows_have_room_for_as_many_states_as_rules_may_have() -> None:
    from fusedstep._engine import lib

    from fusedstep.plan import MOST_STATES

    assert lib.FS_STATES == MOST_STATES


def test_many_tensors_share_one_kernel() -> None:
    from fusedstep.backends import numba

    before = numba.kernel.cache_info().misses
    params = [np.ones(n) for n in range(1, 300)]
    optimizer = fs.Adagrad(params, lr_decay=0.25, backend="numba")
    for _ in range(3):
        optimizer.step([np.ones_like(p) for p in params])
    assert numba.kernel.cache_info().misses - before <= 1
