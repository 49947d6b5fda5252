"""A loop with CuPy: parameters, gradients and state on the device, stepped there.

    opt = fs.AdamW({"w": cupy.zeros(...)})     one launch a step, on CuPy's current stream
    opt.state_dict()                           NumPy arrays, to go on from anywhere

A logistic regression is trained on the device for half of the steps. Then a second optimizer,
over NumPy copies of the weights, loads the state and goes on with the other half on the CPU, and
the first one does the same on the device. Both end with the same loss.

    python examples/clients/cupy_loop.py

needs CuPy, for CUDA 13 `pip install cupy-cuda13x`, and the extra `cuda`.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

import fusedstep as fs

STEPS, COUNT, INPUTS = 60, 512, 20
RATE, DECAY = 0.05, 0.01


def examples(xp: Any) -> tuple[Any, Any]:
    """Examples as arrays of a library, CuPy or NumPy."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((COUNT, INPUTS))
    y = rng.random(COUNT) < 1 / (1 + np.exp(-x @ rng.standard_normal(INPUTS)))
    return xp.asarray(x), xp.asarray(y.astype(float))


def run(xp: Any, params: dict[str, Any], opt: fs.Optimizer, steps: int) -> float:
    """Train so many steps: the loss after the last."""
    x, y = examples(xp)
    for _ in range(steps):
        error = (1 / (1 + xp.exp(-(x @ params["w"] + params["b"]))) - y) / COUNT
        opt.step({"w": x.T @ error, "b": error.sum(keepdims=True)})
    z = x @ params["w"] + params["b"]
    return float((xp.logaddexp(0, z) - y * z).mean())


def main() -> None:
    params = {"w": cupy.zeros(INPUTS), "b": cupy.zeros(1)}
    opt = fs.AdamW(params, lr=RATE, weight_decay=DECAY)
    half = run(cupy, params, opt, STEPS // 2)

    on_cpu = {name: cupy.asnumpy(p) for name, p in params.items()}
    other = fs.AdamW(on_cpu, lr=RATE, weight_decay=DECAY)
    other.load_state_dict(opt.state_dict())

    ends = {
        "device": run(cupy, params, opt, STEPS // 2),
        "CPU": run(np, on_cpu, other, STEPS // 2),
    }
    print(f"loss {half:.8f} after {STEPS // 2} steps on the device")
    for where, loss in ends.items():
        print(f"loss {loss:.8f} after {STEPS // 2} more on the {where}")


if __name__ == "__main__":
    main()
