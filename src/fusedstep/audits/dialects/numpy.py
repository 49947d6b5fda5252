"""The plain classes of this package: parameters are NumPy arrays, gradients go to `step`."""

from __future__ import annotations

from fusedstep.audits.dialects.dialect import Dialect

DIALECT = Dialect(
    imports="import numpy as np",
    first=("params",),
    optimizer="""
def optimizer(params):
    return {make}
""",
    train="""
def train(start, gradients, dtype="float32"):
    p = np.array(start, dtype)
    opt = optimizer(p)
    for g in gradients:
        opt.step(np.array(g, dtype))
    return p.astype(float)
""",
    resume="""
def resume(start, gradients):
    p = np.array(start, "float32")
    opt = optimizer(p)
    for k, g in enumerate(gradients):
        if k == len(gradients) // 2:
            saved = copy.deepcopy(opt.state_dict())
            p = p.copy()
            opt = optimizer(p)
            opt.load_state_dict(saved)
        opt.step(np.array(g, "float32"))
    return p.astype(float)
""",
    skip="""
def skip(start, gradients):
    p = np.array(start, "float32")
    other = np.ones(p.shape, "float32")
    opt = optimizer([p, other])
    for g in gradients:
        opt.step([None if g is None else np.array(g, "float32"), np.ones(p.shape, "float32")])
    return p.astype(float)
""",
    rate="""
def rate(start, gradients, lr):
    p = np.array(start, "float32")
    opt = optimizer(p)
    opt.lr = lr
    for g in gradients:
        opt.step(np.array(g, "float32"))
    return p.astype(float)
""",
    groups="""
def groups(start, gradients, *options):
    params = [np.array(start, "float32") for _ in options]
    opt = optimizer([{"params": [p], **each} for p, each in zip(params, options)])
    for g in gradients:
        opt.step([[np.array(g, "float32")] for _ in params])
    return np.stack(params).astype(float)
""",
    company="""
def company(starts, gradients):
    params = [np.array(s, "float32") for s in starts]
    opt = optimizer(params)
    for several in gradients:
        opt.step([np.array(g, "float32") for g in several])
    return np.concatenate([p.ravel() for p in params]).astype(float)
""",
    kept="""
def kept(start, g):
    g = np.array(g, "float32")
    optimizer(np.array(start, "float32")).step(g)
    return g.astype(float)
""",
    layout="""
def array(values):
    return np.array(values, "float32")

def steps(p, *gradients):
    opt = optimizer(p)
    for g in gradients:
        opt.step(g)
    return p.copy()
""",
    array="np",
    threads="""
def threads(count):
    fusedstep.set_num_threads(count)
""",
    float64="",
    dtypes=("float32", "float64"),
)
