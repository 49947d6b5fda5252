"""Threads decide the time of a step and never its result, whoever else has threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from cases import differing_bits, ordinary
from marks import MISSING, needs, needs_c, on_each_compiled_backend

import fusedstep as fs
from fusedstep._backends.isa import get_isa, isas, set_isa

N = 300_000


def problem(seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return ordinary(rng, N, np.float32), ordinary(rng, N, np.float32)


def result(seed: int, steps: int, backend: str) -> Any:
    p, g = problem(seed)
    optimizer = fs.AdamW(p, backend=backend)
    for _ in range(steps):
        optimizer.step(g)
    return p


@pytest.fixture
def two_threads() -> Any:
    before = fs.get_num_threads()
    fs.set_num_threads(2)
    yield
    fs.set_num_threads(before)


@needs_c
@on_each_compiled_backend
def test_helpers_are_used_and_then_only_where_they_help(two_threads: None, backend: str) -> None:
    from fusedstep._backends.c import runner

    p, g = problem(0)
    optimizer = fs.AdamW(p, backend=backend)
    teams = []
    for _ in range(100):
        optimizer.step(g)
        teams.append(runner.team())
    assert teams[0] in ("pool", "openmp")
    assert {"pool", "caller", "openmp"} >= set(teams)
    fs.set_num_threads(1)
    optimizer.step(g)
    assert runner.team() == "caller"


@needs_c
def test_small_steps_stay_with_the_caller(two_threads: None) -> None:
    from fusedstep._backends.c import runner

    fs.SGD(np.zeros(1000, np.float32)).step(np.zeros(1000, np.float32))
    assert runner.team() == "caller"


@on_each_compiled_backend
def test_many_steps_with_helpers_coming_and_going(two_threads: None, backend: str) -> None:
    """Hundreds of steps go through every phase of the search for the faster way."""
    assert differing_bits(result(1, 300, backend), result(1, 300, "numpy")) == 0


@on_each_compiled_backend
def test_several_python_threads(two_threads: None, backend: str) -> None:
    expected = [result(seed, 40, "numpy") for seed in range(5)]
    found: dict[int, Any] = {}
    ready = threading.Barrier(5)

    def work(seed: int) -> None:
        ready.wait()
        found[seed] = result(seed, 40, backend)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    for seed in range(5):
        assert differing_bits(found[seed], expected[seed]) == 0


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


FORK = """
import os, sys
import numpy as np
import fusedstep as fs
from fusedstep._backends.isa import get_isa, isas, set_isa
from fusedstep._backends.c import runner
{before}
fs.set_num_threads(2)
p, g = np.zeros(300_000, np.float32), np.full(300_000, 0.25, np.float32)
optimizer = fs.SGD(p, lr=1.0, backend={backend!r})
for count in range(3000):
    {between}
    optimizer.step(g)
    if {enough}:
        break
print(runner.team(), flush=True)
start = p[0]
child = os.fork()
for _ in range(20):
    optimizer.step(g)
assert (p == start - 5).all()
if child == 0:
    grandchild = os.fork()
    optimizer.step(g)
    assert (p == start - 5.25).all()
    if grandchild:
        assert os.waitpid(grandchild, 0)[1] == 0
    sys.stdout.write("stepped\\n")
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@needs_c
@on_each_compiled_backend
def test_children_of_a_fork(backend: str) -> None:
    done = python(FORK.format(backend=backend, before="", between="", enough="count == 20"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("stepped") == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@needs_c
@on_each_compiled_backend
def test_children_of_a_fork_beside_torch(backend: str) -> None:
    """Torch's OpenMP team, borrowed by the parent, is gone in the child."""
    needs("torch", "torch")
    done = python(
        FORK.format(
            backend=backend,
            before="import torch\na = torch.rand(500, 500)",
            between="a @ a",
            enough="runner.team() == 'openmp'",
        )
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("stepped") == 2
    if not done.stdout.startswith("openmp"):
        pytest.skip("torch's team was never seen at work: too few CPUs, or too busy")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("busy", [False, True])
def test_no_openmp_team_stays_where_there_was_none(busy: bool) -> None:
    """A child of fork that is the first to use OpenMP would wait for that team forever.

    Another thread's matrix products use the CPU as a team of torch's would.
    """
    needs("torch", "torch")
    code = (
        "import os, signal, threading, time, torch, numpy as np, fusedstep as fs\n"
        "fs.set_num_threads(2)\n"
        "p, over = np.ones(300_000, np.float32), threading.Event()\n"
        "optimizer = fs.SGD(p)\n"
        "def multiply():\n"
        "    a = np.ones((300, 300), np.float32)\n"
        "    while not over.is_set(): a @ a\n"
        f"beside = threading.Thread(target={'multiply' if busy else 'int'})\n"
        "beside.start()\n"
        "for _ in range(100):\n"
        "    optimizer.step(np.ones_like(p))\n"
        f"    time.sleep({0.0005 if busy else 0})\n"
        "over.set()\n"
        "beside.join()\n"
        "if os.fork() == 0:\n"
        "    signal.alarm(60)\n"
        "    torch.rand(400, 400) @ torch.rand(400, 400)\n"
        "    torch.ones(1_000_000).exp()\n"
        "    os._exit(0)\n"
        "assert os.wait()[1] == 0\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


BESIDE_TORCH = """
import numpy as np, torch, fusedstep as fs
from fusedstep._backends.c import runner
torch.set_num_threads({theirs})
fs.set_num_threads(2)
a = torch.rand(300, 300)
p, q, g = np.zeros(300_000, np.float32), np.zeros(300_000, np.float32), np.ones(300_000, np.float32)
optimizer, reference = fs.SGD(p, momentum=0.9), fs.SGD(q, momentum=0.9, backend="numpy")
teams = set()
for _ in range(200):
    a @ a
    optimizer.step(g)
    reference.step(g)
    teams.add(runner.team())
assert (p == q).all()
print(*sorted(teams))
"""


@needs_c
@pytest.mark.parametrize("theirs", [1, 4])
def test_torchs_team_may_be_of_any_size(theirs: int) -> None:
    needs("torch", "torch")
    done = python(BESIDE_TORCH.format(theirs=theirs))
    assert done.returncode == 0, done.stderr
    assert {"pool", "caller", "openmp"} >= {*done.stdout.split()}
    assert theirs > 1 or "openmp" not in done.stdout  # one thread is no help


@needs_c
def test_gradients_may_go_while_the_step_reads_them(two_threads: None) -> None:
    """The step runs without the GIL: its list of gradients is its own."""
    n = 20_000_000
    grads = [np.ones(n, np.float32)]
    optimizer = fs.SGD([np.zeros(n, np.float32)])
    optimizer.step(grads)
    for _ in range(5):
        grads.append(np.ones(n, np.float32))
        del grads[0]
        going = threading.Timer(0.001, grads.clear)
        going.start()
        with suppress(ValueError):  # they went before the step had begun
            optimizer.step(grads)
        going.join()
        grads.append(np.ones(n, np.float32))


EXIT = """
import sys, threading, time
import numpy as np
import fusedstep as fs
from fusedstep._backends.isa import get_isa, isas, set_isa
fs.set_num_threads(2)
p, g = np.zeros(5_000_000, np.float32), np.ones(5_000_000, np.float32)
opt = fs.SGD(p, lr=1.0, momentum=0.5, backend={backend!r})
opt.step(g)
def work():
    while True:
        opt.step(g, max_norm=1e9)
threading.Thread(target=work, daemon=True).start()
time.sleep({seconds})
print("out", flush=True)
"""


@on_each_compiled_backend
@pytest.mark.parametrize("seconds", [0.001, 0.0123, 0.02])
def test_a_process_that_ends_in_mid_step(seconds: float, backend: str) -> None:
    done = python(EXIT.format(backend=backend, seconds=seconds))
    assert (done.returncode, done.stdout) == (0, "out\n"), done.stderr


@on_each_compiled_backend
def test_threads_and_instruction_sets_changed_in_mid_step(backend: str) -> None:
    before = fs.get_num_threads()
    opt, stop = fs.Adam(np.zeros(400_000, np.float32), backend=backend), threading.Event()

    def change() -> None:
        while not stop.is_set():
            for n in (1, 2, 5, 3):
                fs.set_num_threads(n)
            for isa in [] if MISSING else isas():
                set_isa(isa)

    changing = threading.Thread(target=change)
    isa = None if MISSING else get_isa()
    rng = np.random.default_rng(0)
    expected = np.zeros(400_000, np.float32)
    reference = fs.Adam(expected, backend="numpy")
    changing.start()
    try:
        for _ in range(40):
            g = rng.standard_normal(400_000).astype(np.float32)
            opt.step(g, max_norm=100.0)
            reference.step(g, max_norm=100.0)
    finally:
        stop.set()
        changing.join()
        fs.set_num_threads(before)
        if isa:
            set_isa(isa)
    p = opt.param_groups[0]["params"][0]
    assert differing_bits(p, expected) == 0


@needs_c
def test_environment() -> None:
    show = "import fusedstep as fs; info = fs.info(); print(info.isa, info.threads)"
    done = python(show, FUSEDSTEP_ISA="baseline", FUSEDSTEP_NUM_THREADS="3")
    assert done.stdout.split() == ["baseline", "3"]
    for name, value in (
        ("FUSEDSTEP_ISA", "avx9"),
        ("FUSEDSTEP_NUM_THREADS", "0"),
        ("FUSEDSTEP_NUM_THREADS", "many"),
        ("FUSEDSTEP_NUM_THREADS", "536870912"),
    ):
        done = python(show, **{name: value})
        assert done.returncode != 0
        assert f"{name}='{value}'" in done.stderr
        assert "pass" in done.stderr


@pytest.mark.parametrize(
    ("environment", "number", "origin"),
    [
        ({"OMP_NUM_THREADS": "1"}, "1", "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "4,2"}, "4", "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "5000"}, "1024", "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "1", "FUSEDSTEP_NUM_THREADS": "3"}, "3", "FUSEDSTEP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "1", "FUSEDSTEP_NUM_THREADS": " 3 "}, "3", "FUSEDSTEP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "1", "FUSEDSTEP_NUM_THREADS": ""}, "1", "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "many", "FUSEDSTEP_NUM_THREADS": "3"}, "3", "FUSEDSTEP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "7", "OMP_THREAD_LIMIT": "2"}, "2", "OMP_THREAD_LIMIT"),
    ],
)
def test_where_the_number_comes_from(
    environment: dict[str, str], number: str, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FUSEDSTEP_NUM_THREADS", raising=False)
    show = "import fusedstep as fs; i = fs.info(); print(i.threads, i.threads_from); print(i)"
    first, *_, last = python(show, **environment).stdout.splitlines()
    assert first == f"{number} {origin}"
    assert last == f"threads {number}, from {origin}"


def test_what_openmp_ignores_warns_once_and_costs_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSEDSTEP_NUM_THREADS", raising=False)
    code = (
        "import warnings, numpy as np, fusedstep as fs\n"
        "p = np.ones(3)\n"
        "opt = fs.SGD(p, lr=1.0)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    for _ in range(3): opt.step(np.ones(3))\n"
        "print((p == -2).all(), fs.info().threads_from, *(w.message for w in caught), sep='\\n')\n"
    )
    stepped, origin, message = python(code, OMP_NUM_THREADS="two").stdout.splitlines()
    assert (stepped, origin) == ("True", "the CPUs of this process")
    assert message.startswith("OMP_NUM_THREADS='two' is no whole number from 1 on, and is ignored")


@needs_c
def test_environment_is_no_ground_to_fall_back() -> None:
    step = "import numpy as np, fusedstep as fs; fs.SGD(np.zeros(3))"
    done = python(step, FUSEDSTEP_ISA="avx9")
    assert "FUSEDSTEP_ISA='avx9' is not an instruction set that this CPU runs" in done.stderr


# ---- pieces of large tensors ----


@needs_c
@on_each_compiled_backend
@pytest.mark.parametrize("zero_grads", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3, 5, 7, 16, 63, 64, 65, 100])
def test_every_element_is_stepped_once(threads: int, zero_grads: bool, backend: str) -> None:
    """Large tensors are cut into a piece for each thread, small ones are dealt out."""
    from fusedstep._backends.c.runner import LARGE

    sizes = [5, LARGE - 1, LARGE, 0, LARGE + 1, 70_001, 1, 2 * LARGE, 999, 100_003, 3]
    before = fs.get_num_threads()
    fs.set_num_threads(threads)
    try:
        for own in (sizes, sizes[::-1], [100_003], [LARGE, 1], [1, LARGE], [17] * 3000):
            for dtype in (np.float32, np.float64):
                params = [np.arange(n, dtype=dtype) for n in own]
                grads = [np.ones(n, dtype) for n in own]
                optimizer = fs.SGD(params, lr=1.0, backend=backend)
                for _ in range(2):
                    optimizer.step(grads, zero_grads=zero_grads)
                    assert all((g == (not zero_grads)).all() for g in grads)
                    for g in grads:
                        g[...] = 1
                for p in params:
                    assert np.array_equal(p, np.arange(p.size, dtype=dtype) - 2)
    finally:
        fs.set_num_threads(before)
