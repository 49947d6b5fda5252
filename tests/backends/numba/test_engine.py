"""The Numba backend: what it compiles, how often, and where it keeps it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from marks import BACKENDS, needs_c

import fusedstep as fs

pytestmark = pytest.mark.skipif(
    BACKENDS["numba"] is not None, reason=f"no Numba backend: {BACKENDS['numba']}"
)

STEP = """
import numpy as np, fusedstep as fs
from fusedstep._backends.numba import engine
p = np.ones(70, np.float32)
optimizer = fs.AdamW(p, backend="numba")
for _ in range(2):
    optimizer.step(np.ones_like(p))
made = engine.kernel(optimizer.layout.plan.table.jobs[0])
print(made.cache_hits, float(p[0]).hex())
"""

KEPT_NOWHERE = "ignore:compiled kernels cannot be kept:RuntimeWarning"


def step_elsewhere(folder: Path, code: str = STEP, *options: str) -> list[str]:
    """Run a new process whose caches are in `folder`, and return what it prints."""
    own = {name: str(folder) for name in ("XDG_CACHE_HOME", "LOCALAPPDATA")}
    kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    command = [sys.executable, "-W", "error", *options, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={**kept, **own})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_second_process_does_not_compile(tmp_path: Path) -> None:
    first, second = step_elsewhere(tmp_path), step_elsewhere(tmp_path)
    assert first[0] == "0"
    assert second[0] == "1"
    assert first[1:] == second[1:]
    (module,) = (tmp_path / "fusedstep").glob("*.py")
    assert module.name.startswith("fusedstep_adamw_mv_float32_")
    assert "def adamw(p, g, m, v, h):\n    p = p * h.decay" in module.read_text()


IN_FEWER_BYTES = """
import sys
sys.modules["fusedstep._engine"] = None
import numpy as np, fusedstep as fs
from fusedstep._backends.numba import tiles
p = np.ones(5000, np.float16)
optimizer = fs.AdamW(p, backend="numba", state_dtype="8bit")
optimizer.step(np.ones_like(p), max_norm=1.0)
made = [tiles.callback("step"), tiles.callback("sums"), *tiles.pair("unsigned8")]
print(sum(each.cache_hits for each in made), float(p[0]).hex())
"""


def test_a_second_process_does_not_compile_formats(tmp_path: Path) -> None:
    first, second = (step_elsewhere(tmp_path, IN_FEWER_BYTES) for _ in range(2))
    assert (first[0], second[0]) == ("0", "4")
    assert first[1:] == second[1:]


@pytest.mark.parametrize("damaged", ["", "def run(row, begin, end, scalars):\n    pass\n"])
def test_a_damaged_file_in_the_cache_is_made_anew(damaged: str, tmp_path: Path) -> None:
    first = step_elsewhere(tmp_path)
    (module,) = (tmp_path / "fusedstep").glob("*.py")
    text = module.read_text()
    module.write_text(damaged)
    assert step_elsewhere(tmp_path)[1:] == first[1:]
    assert module.read_text() == text


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_nobody_else_may_write_to_the_cache(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        step_elsewhere(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "fusedstep").stat().st_mode & 0o077 == 0


def test_a_process_may_move_from_a_folder_that_its_cache_is_named_in(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = (
        f"import os; os.chdir({str(tmp_path)!r})\n"
        "os.environ['XDG_CACHE_HOME'] = os.environ['LOCALAPPDATA'] = 'near'\n"
        "import numpy as np, fusedstep as fs\n"
        "fs.SGD(np.ones(3), backend='numba').step(np.ones(3))\n"
        "os.chdir('elsewhere')\n"
        "fs.Adagrad(np.ones(3), backend='numba').step(np.ones(3))\n"
    )
    step_elsewhere(tmp_path, code)
    assert len([*(tmp_path / "near" / "fusedstep").glob("*.py")]) == 2
    assert not [*elsewhere.iterdir()]


@pytest.mark.parametrize("hidden", ["", "sys.modules['fusedstep._engine'] = None"])
def test_nothing_needs_a_home(hidden: str, tmp_path: Path) -> None:
    """A container whose user is a number may have none. A warning says what that costs."""
    code = (
        "import os, sys\n"
        "for name in ('XDG_CACHE_HOME', 'LOCALAPPDATA'): os.environ.pop(name, None)\n"
        "os.path.expanduser = lambda path: path\n"
        f"{hidden}\n"
        "import numpy as np, fusedstep as fs\n"
        "p = np.ones(3); fs.SGD(p, lr=0.5, backend='numba').step(np.ones(3)); print(p[0])\n"
    )
    assert step_elsewhere(tmp_path, code, "-W", KEPT_NOWHERE) == ["0.5"]


def test_names_may_be_long_and_of_any_script(tmp_path: Path) -> None:
    names = [f"ein_gleitender_Mittelwert_von_Größen_{k}" for k in range(8)]
    (tmp_path / "long.py").write_text(
        "import fusedstep as fs\n"
        f"@fs.rule(state={tuple(names)!r}, lr=0.5)\n"
        f"def 最適化(p, g, {', '.join(names)}, h):\n"
        f"    return p - h.lr * g, {', '.join(names)}\n",
        encoding="utf-8",
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import numpy as np, long\n"
        "p = np.ones(3); long.最適化(p, backend='numba').step(np.ones(3)); print(p[0])\n"
    )
    assert step_elsewhere(tmp_path, code) == ["0.5"]


def test_a_cache_that_cannot_be_written_to_costs_only_the_cache(tmp_path: Path) -> None:
    (tmp_path / "fusedstep").write_text("in the way")
    first, second = (step_elsewhere(tmp_path, STEP, "-W", KEPT_NOWHERE) for _ in range(2))
    assert first == second
    assert first[0] == "0"


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
        "from fusedstep._backends.numba import engine\n"
        "optimizer = many.Many(np.ones(99, np.float32), backend='numba')\n"
        "optimizer.step(np.ones(99, np.float32))\n"
        "assembly = engine.kernel(optimizer.layout.plan.table.jobs[0])._library.get_asm_str()\n"
        "print(len(re.findall(r'sqrtps', assembly)), len(re.findall(r'fn?m(add|sub)', assembly)))\n"
    )
    packed, contracted = map(int, step_elsewhere(tmp_path, code))
    assert packed > 0
    assert contracted == 0


def test_rules_are_plain_python() -> None:
    code = "import sys, fusedstep._numerics.scalar; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False"]


@needs_c
def test_rows_have_room_for_as_many_states_as_rules_may_have() -> None:
    from fusedstep._engine import lib

    from fusedstep._backends.plan import MOST_STATES

    assert lib.FS_STATES == MOST_STATES


def test_many_tensors_share_one_kernel() -> None:
    from fusedstep._backends.numba import engine

    before = engine.kernel.cache_info().misses
    params = [np.ones(n) for n in range(1, 300)]
    optimizer = fs.Adagrad(params, lr_decay=0.25, backend="numba")
    for _ in range(3):
        optimizer.step([np.ones_like(p) for p in params])
    assert engine.kernel.cache_info().misses - before <= 1
