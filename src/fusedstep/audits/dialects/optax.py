"""optax: a pure function of gradient, state and parameter, compiled by `jax.jit`."""

from __future__ import annotations

from fusedstep.audits.dialects.dialect import Dialect, Unfit

DIALECT = Dialect(
    imports="import jax\nimport jax.numpy as jnp\nimport numpy as np\nimport optax",
    first=(),
    optimizer="""
opt = {make}

@jax.jit
def step(p, state, g):
    updates, state = opt.update(g, state, p)
    return optax.apply_updates(p, updates), state
""",
    train="""
def train(start, gradients, dtype="float32"):
    p = jnp.asarray(start, dtype)
    state = opt.init(p)
    for g in gradients:
        p, state = step(p, state, jnp.asarray(g, dtype))
    return np.asarray(p, np.float64)
""",
    resume="""
def resume(start, gradients):
    p = jnp.asarray(start, "float32")
    state = opt.init(p)
    for k, g in enumerate(gradients):
        if k == len(gradients) // 2:
            saved = [np.array(leaf) for leaf in jax.tree.leaves(state)]
            new = opt.init(p)
            state = jax.tree.unflatten(jax.tree.structure(new), map(jnp.asarray, saved))
        p, state = step(p, state, jnp.asarray(g, "float32"))
    return np.asarray(p, np.float64)
""",
    skip=Unfit("every leaf of an optax step has a gradient"),
    rate=Unfit("an optax transformation has no learning rate that can be set"),
    groups=Unfit("an optax transformation has no groups of parameters"),
    company="""
def company(starts, gradients):
    params = [jnp.asarray(s, "float32") for s in starts]
    state = opt.init(params)
    for several in gradients:
        params, state = step(params, state, [jnp.asarray(g, "float32") for g in several])
    return np.concatenate([np.asarray(p, np.float64).ravel() for p in params])
""",
    kept="""
def kept(start, g):
    p, g = jnp.asarray(start, "float32"), jnp.asarray(g, "float32")
    step(p, opt.init(p), g)
    return np.asarray(g, np.float64)
""",
    layout=Unfit("JAX's arrays have no strides and cannot be written to"),
    array="np",
    threads=Unfit("XLA's number of threads is fixed when its process starts"),
    float64='jax.config.update("jax_enable_x64", True)',
    dtypes=("float32", "float64", "bfloat16", "float16"),
)
