"""torch: parameters are tensors whose `grad` is set before each step."""

from __future__ import annotations

from fusedstep.audits.dialects.dialect import Dialect

DIALECT = Dialect(
    imports="import numpy as np\nimport torch",
    first=("params",),
    optimizer="""
def optimizer(params):
    return {make}
""",
    train="""
def train(start, gradients, dtype="float32"):
    p = torch.nn.Parameter(torch.tensor(start, dtype=getattr(torch, dtype)))
    opt = optimizer([p])
    for g in gradients:
        p.grad = torch.tensor(g, dtype=p.dtype)
        opt.step()
    return p.detach().double().numpy()
""",
    resume="""
def resume(start, gradients):
    p = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    opt = optimizer([p])
    for k, g in enumerate(gradients):
        if k == len(gradients) // 2:
            saved = copy.deepcopy(opt.state_dict())
            p = torch.nn.Parameter(p.detach().clone())
            opt = optimizer([p])
            opt.load_state_dict(saved)
        p.grad = torch.tensor(g, dtype=p.dtype)
        opt.step()
    return p.detach().double().numpy()
""",
    skip="""
def skip(start, gradients):
    p = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    other = torch.nn.Parameter(torch.ones(p.shape))
    opt = optimizer([p, other])
    for g in gradients:
        p.grad = None if g is None else torch.tensor(g, dtype=p.dtype)
        other.grad = torch.ones(p.shape)
        opt.step()
    return p.detach().double().numpy()
""",
    rate="""
def rate(start, gradients, lr):
    p = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    opt = optimizer([p])
    opt.param_groups[0]["lr"] = lr
    for g in gradients:
        p.grad = torch.tensor(g, dtype=p.dtype)
        opt.step()
    return p.detach().double().numpy()
""",
    groups="""
def groups(start, gradients, *options):
    start = torch.tensor(start, dtype=torch.float32)
    params = [torch.nn.Parameter(start.clone()) for _ in options]
    opt = optimizer([{"params": [p], **each} for p, each in zip(params, options)])
    for g in gradients:
        for p in params:
            p.grad = torch.tensor(g, dtype=p.dtype)
        opt.step()
    return np.stack([p.detach().double().numpy() for p in params])
""",
    company="""
def company(starts, gradients):
    params = [torch.nn.Parameter(torch.tensor(s, dtype=torch.float32)) for s in starts]
    opt = optimizer(params)
    for several in gradients:
        for p, g in zip(params, several):
            p.grad = torch.tensor(g, dtype=p.dtype)
        opt.step()
    return np.concatenate([p.detach().double().numpy().ravel() for p in params])
""",
    kept="""
def kept(start, g):
    p = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    p.grad = torch.tensor(g, dtype=p.dtype)
    held = p.grad
    optimizer([p]).step()
    return held.double().numpy()
""",
    layout="""
def array(values):
    return torch.tensor(values, dtype=torch.float32)

def steps(p, *gradients):
    p = torch.nn.Parameter(p)
    opt = optimizer([p])
    for g in gradients:
        p.grad = g
        opt.step()
    return p.detach().clone()
""",
    array="torch",
    threads="""
def threads(count):
    torch.set_num_threads(count)
""",
    float64="",
    dtypes=("float32", "float64", "bfloat16", "float16"),
)
