"""The examples of programs in NumPy, autograd and CuPy: what they print, by other formulas.

Those with torch are in tests/torch/test_clients.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import cupy_standin
import numpy as np
import pytest
from device import MISSING, SIMULATED
from marks import needs

FOLDER = Path(__file__).parent.parent / "examples" / "clients"


def printed(name: str, capsys: pytest.CaptureFixture[str]) -> list[list[float]]:
    """The numbers on each line that an example prints."""
    capsys.readouterr()
    import_module(name).main()
    return numbers(capsys.readouterr().out)


def numbers(text: str) -> list[list[float]]:
    return [[*map(float, re.findall(r"\d+\.\d+", line))] for line in text.splitlines()]


# ---- HIPS autograd ----


def test_autograds_network(capsys: pytest.CaptureFixture[str]) -> None:
    """All three ways, against backpropagation and Adam by hand."""
    needs("autograd", "autograd")
    import autograd_network as example

    lines = printed("autograd_network", capsys)
    first, last = by_hand(example)
    for start, end in lines:
        assert start == pytest.approx(first, abs=1e-4)
        assert end == pytest.approx(last, rel=1e-8)
    assert len(lines) == 3
    theirs, ours, in_place = (
        example.by(import_module("autograd.misc.optimizers").adam),
        example.by(import_module("fusedstep.autograd").adam),
        example.in_place(),
    )
    for losses, _ in (ours, in_place):  # which later make more of the last bit's difference
        np.testing.assert_allclose(losses[:100], theirs[0][:100], rtol=1e-12)
        np.testing.assert_allclose(losses, theirs[0], rtol=1e-8)


def by_hand(example: Any) -> tuple[float, float]:
    """The loss of the network at first and at the end."""
    (x, y), params = example.data(), [array for layer in example.network() for array in layer]
    m, v = ([np.zeros_like(p) for p in params] for _ in range(2))
    losses = []
    for t in range(1, example.STEPS + 2):
        w1, b1, w2, b2, w3, b3 = params
        h1 = np.tanh(x @ w1 + b1)
        h2 = np.tanh(h1 @ w2 + b2)
        error = h2 @ w3 + b3 - y
        losses.append(float((error**2).mean()))
        d3 = 2 * error / error.size
        d2 = d3 @ w3.T * (1 - h2**2)
        d1 = d2 @ w2.T * (1 - h1**2)
        grads = [x.T @ d1, d1.sum(0), h1.T @ d2, d2.sum(0), h2.T @ d3, d3.sum(0)]
        for k, g in enumerate(grads):
            m[k] = 0.9 * m[k] + 0.1 * g
            v[k] = 0.999 * v[k] + 0.001 * g**2
            m_hat, v_hat = m[k] / (1 - 0.9**t), v[k] / (1 - 0.999**t)
            params[k] = params[k] - example.RATE * m_hat / (np.sqrt(v_hat) + 1e-8)
    return losses[0], losses[-1]


# ---- federated servers ----


def test_federated_servers(capsys: pytest.CaptureFixture[str]) -> None:
    """Against Algorithm 2 of Reddi et al. (2021), written out over one vector."""
    import federated as example

    lines = printed("federated", capsys)
    assert len(lines) == len(example.SERVERS)
    for name, (early, end) in zip(example.SERVERS, lines, strict=True):
        losses = algorithm_2(example, name)
        assert early == pytest.approx(losses[9], abs=1e-6)
        assert end == pytest.approx(losses[-1], abs=1e-6)
    assert lines[0][1] > 1.15 * max(end for _, end in lines[1:])  # the adaptive ones are ahead


def algorithm_2(example: Any, name: str) -> list[float]:
    """The loss on unseen examples after each round."""
    clients, unseen = example.examples()
    rng = np.random.default_rng(1)
    with_one = [np.column_stack([each.x, np.ones(len(each.x))]) for each in [*clients, unseen]]
    targets = [each.y for each in [*clients, unseen]]
    x = np.zeros(example.INPUTS + 1)
    tau = 1e-3
    beta1, beta2 = (0.0, 0.0) if name == "FedAdagrad" else (0.9, 0.99)
    m, v = np.zeros_like(x), np.full_like(x, 0.0 if name == "FedAdam" else tau**2)
    rate = {"FedAvg": 1.0, "FedAdagrad": 0.3, "FedAdam": 0.1, "FedYogi": 0.1}[name]
    losses = []
    for _ in range(example.ROUNDS):
        changes = []
        for i in rng.choice(example.CLIENTS, example.INVITED, replace=False):
            own = x.copy()
            for _ in range(example.LOCAL_STEPS):
                q = 1 / (1 + np.exp(-with_one[i] @ own))
                own -= example.LOCAL_RATE * with_one[i].T @ (q - targets[i]) / len(q)
            changes.append(own - x)
        delta = np.mean(changes, axis=0)
        m = beta1 * m + (1 - beta1) * delta
        v = {
            "FedAvg": v,
            "FedAdagrad": v + delta**2,
            "FedAdam": beta2 * v + (1 - beta2) * delta**2,
            "FedYogi": v - (1 - beta2) * delta**2 * np.sign(v - delta**2),
        }[name]
        x = x + rate * (delta if name == "FedAvg" else m / (np.sqrt(v) + tau))
        z = with_one[-1] @ x
        losses.append(float(np.mean(np.log(1 + np.exp(z)) - targets[-1] * z)))
    return losses


# ---- CuPy ----


def test_cupys_loop() -> None:
    """CuPy's own arrays where there is a device, else a stand-in's, in Numba's simulator."""
    found = numbers(run_with_cupy("cupy_loop"))
    half, end = logistic_regression(30), logistic_regression(60)
    assert [loss for line in found for loss in line] == pytest.approx([half, end, end], abs=2e-8)


def run_with_cupy(module: str) -> str:
    if MISSING is None and not SIMULATED:
        needs("cupy", "cuda")
        command, simulated = [str(FOLDER / f"{module}.py")], {}
    else:
        command, simulated = [cupy_standin.__file__, module], {"NUMBA_ENABLE_CUDASIM": "1"}
    path = os.pathsep.join([str(FOLDER), *sys.path])
    environment = {**os.environ, **simulated, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_stand_in_is_stepped_on_the_device() -> None:
    """The comparison above means something only if the cuda backend takes the steps."""
    code = (
        "import sys, cupy_standin; sys.modules['cupy'] = cupy_standin.standin()\n"
        "import cupy, fusedstep as fs\n"
        "p = cupy.zeros(3); opt = fs.SGD(p, lr=1.0); opt.step(p + 1)\n"
        "print(type(opt._place).__name__, p.host.tolist())\n"
        "try: fs.SGD(p, backend='c')\n"
        "except (TypeError, ValueError) as error: print('CUDA' in str(error))\n"
    )
    if MISSING is None and not SIMULATED:
        pytest.skip("there is a device; the simulator would hide it")
    environment = {
        **os.environ,
        "NUMBA_ENABLE_CUDASIM": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout.splitlines() == ["Device [-1.0, -1.0, -1.0]", "True"], done.stderr


def logistic_regression(steps: int) -> float:
    """The example's loss after so many steps of AdamW, over one vector."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((512, 20))
    y = (rng.random(512) < 1 / (1 + np.exp(-x @ rng.standard_normal(20)))).astype(float)
    x = np.column_stack([x, np.ones(512)])
    p, m, v = np.zeros((3, 21))
    for t in range(1, steps + 1):
        g = x.T @ (1 / (1 + np.exp(-x @ p)) - y) / 512
        p = p * (1 - 0.05 * 0.01)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        p = p - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    z = x @ p
    return float(np.mean(np.log(1 + np.exp(z)) - y * z))
