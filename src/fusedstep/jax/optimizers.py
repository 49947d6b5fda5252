"""The optimizers as functions, each of which makes the transformation of the class of that name.

Formulas, hyperparameters and defaults are the class's; see there. A number may be an array of shape
(), traced or not, which is read in its own precision; `momentum` then keeps its buffer, and `ema`
its average, whatever the value. `lr` may also be a schedule: one of `fusedstep.schedules` is a
function of t, 1 at the first step, and is taken in float64; any other is optax's, a function of the
count of steps done, 0 at the first, and is traced.
"""

# Written by docs/tools/regions.py.

from __future__ import annotations

from typing import Literal

from fusedstep import optimizers, rules
from fusedstep.jax._transformation import Number, Rate, Transformation, hinting, transformation

__all__ = [
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "adan",
    "lion",
    "nadam",
    "radam",
    "rmsprop",
    "sgd",
    "yogi",
]


@hinting
def sgd(
    lr: Rate = 0.001,
    momentum: Number = 0.0,
    dampening: Number = 0.0,
    weight_decay: Number = 0.0,
    nesterov: bool = False,
    *,
    lr_in_momentum: bool = False,
    maximize: bool = False,
    l1: Number = 0.0,
    ema: Number | None = None,
    backend: str = "auto",
) -> Transformation:
    """`fusedstep.SGD` in programs of JAX's.

    >>> import numpy as np, jax.numpy as jnp, fusedstep.jax
    >>> tx = fusedstep.jax.sgd(lr=0.1, momentum=0.9)
    >>> p = jnp.array([1.0, 2.0])
    >>> p, state = tx.apply(jnp.array([1.0, -1.0]), tx.init(p), p)
    >>> np.asarray(p).round(4)
    array([0.9, 2.1], dtype=float32)
    """
    return transformation(optimizers.SGD, locals())


@hinting
def adagrad(
    lr: Rate = 0.01,
    lr_decay: Number = 0.0,
    weight_decay: Number = 0.0,
    initial_accumulator_value: Number = 0.0,
    eps: Number = 1e-10,
    *,
    eps_inside_sqrt: bool = False,
    maximize: bool = False,
    l1: Number = 0.0,
    ema: Number | None = None,
    backend: str = "auto",
) -> Transformation:
    """`fusedstep.Adagrad` in programs of JAX's.

    >>> import numpy as np, jax.numpy as jnp, fusedstep.jax
    >>> tx = fusedstep.jax.adagrad(lr=0.5)
    >>> p = jnp.array([1.0, 2.0])
    >>> p, state = tx.apply(jnp.array([3.0, -0.01]), tx.init(p), p)
    >>> np.asarray(p).round(4)
    array([0.5, 2.5], dtype=float32)
    """
    return transformation(optimizers.Adagrad, locals())


@hinting
def rmsprop(
    lr: Rate = 0.01,
    alpha: Number = 0.99,
    eps: Number = 1e-08,
    weight_decay: Number = 0.0,
    momentum: Number = 0.0,
    centered: bool = False,
    *,
    eps_inside_sqrt: bool = False,
    lr_in_momentum: bool = False,
    maximize: bool = False,
    l1: Number = 0.0,
    ema: Number | None = None,
    backend: str = "auto",
) -> Transformation:
    """`fusedstep.RMSprop` in programs of JAX's.

    >>> import numpy as np, jax.numpy as jnp, fusedstep.jax
    >>> tx = fusedstep.jax.rmsprop(lr=0.1, alpha=0.75)
    >>> p = jnp.array([1.0, 2.0])
    >>> p, state = tx.apply(jnp.array([3.0, -0.01]), tx.init(p), p)
    >>> np.asarray(p).round(4)
    array([0.8, 2.2], dtype=float32)
    """
    return transformation(optimizers.RMSprop, locals())


@hinting
def adam(
    lr: Rate = 0.001,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-08,
    weight_decay: Number = 0.0,
    amsgrad: bool = False,
    *,
    eps_inside_sqrt: bool = False,
    eps_uncorrected: bool = False,
    bias_correction: bool = True,
    maximize: bool = False,
    l1: Number = 0.0,
    ema: Number | None = None,
    backend: str = "auto",
) -> Transformation:
    """`fusedstep.Adam` in programs of JAX's.

    >>> import numpy as np, jax.numpy as jnp, fusedstep.jax
    >>> tx = fusedstep.jax.adam(lr=0.1)
    >>> p = jnp.array([1.0, 2.0])
    >>> p, state = tx.apply(jnp.array([3.0, -0.01]), tx.init(p), p)
    >>> np.asarray(p).round(4)
    array([0.9, 2.1], dtype=float32)
    """
    return transformation(optimizers.Adam, locals())


@hinting
def adamw(
    lr: Rate = 0.001,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-08,
    weight_decay: Number = 0.01,
    amsgrad: bool = False,
    *,
    eps_inside_sqrt: bool = False,
    eps_uncorrected: bool = False,
    bias_correction: bool = True,
    decay_scale: Literal["lr", "schedule"] = "lr",
    initial_lr: Number | None = None,
    maximize: bool = False,
    l1: Number = 0.0,
    ema: Number | None = None,
    backend: str = "auto",
) -> Transformation:
    """`fusedstep.AdamW` in programs of JAX's.

    >>> import numpy as np, jax.numpy as jnp, fusedstep.jax
    >>> tx = fusedstep.jax.adamw(lr=0.1, weight_decay=0.5)
    >>> p = jnp.array([1.0, 2.0])
    >>> p, state = tx.apply(jnp.array([3.0, -0.01]), tx.init(p), p)
    >>> np.asarray(p).round(4)
    array([0.85, 2.  ], dtype=float32)
    """
    return transformation(optimizers.AdamW, locals())


@hinting
def adamax(
    lr: Rate = 0.002,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-08,
    weight_decay: Number = 0.0,
    *,
    maximize: bool = False,
    l1: Number = 0.0,
    ema: Number | None = None,
    backend: str = "auto",
) -> Transformation:
    """`fusedstep.rules.Adamax` in programs of JAX's.

    >>> import numpy as np, jax.numpy as jnp, fusedstep.jax
    >>> tx = fusedstep.jax.adamax(lr=0.1)
    >>> p = jnp.array([1.0, 2.0])
    >>> p, state = tx.apply(jnp.array([3.0, -0.01]), tx.init(p), p)
    >>> np.asarray(p).round(4)
    array([0.9, 2.1], dtype=float32)
    """
    return transformation(rules.Adamax, locals())


@hinting
def adan(
    lr: Rate = 0.001,
    betas: tuple[Number, Number, Number] = (0.98, 0.92, 0.99),
    eps: Number = 1e-08,
    weight_decay: Number = 0.0,
    no_prox: bool = False,
    *,
    maximize: bool = False,
    l1: Number = 0.0,
    ema: Number | None = None,
    backend: str = "auto",
) -> Transformation:
    """`fusedstep.rules.Adan` in programs of JAX's.

    >>> import numpy as np, jax.numpy as jnp, fusedstep.jax
    >>> tx = fusedstep.jax.adan(lr=0.1)
    >>> p = jnp.array([1.0, 2.0])
    >>> p, state = tx.apply(jnp.array([3.0, -0.01]), tx.init(p), p)
    >>> np.asarray(p).round(4)
    array([0.9, 2.1], dtype=float32)
    """
    return transformation(rules.Adan, locals())


@hinting
def lion(
    lr: Rate = 0.0001,
    betas: tuple[Number, Number] = (0.9, 0.99),
    weight_decay: Number = 0.0,
    *,
    maximize: bool = False,
    l1: Number = 0.0,
    ema: Number | None = None,
    backend: str = "auto",
) -> Transformation:
    """`fusedstep.rules.Lion` in programs of JAX's.

    >>> import numpy as np, jax.numpy as jnp, fusedstep.jax
    >>> tx = fusedstep.jax.lion(lr=0.1, weight_decay=0.5)
    >>> p = jnp.array([1.0, 2.0])
    >>> p, state = tx.apply(jnp.array([3.0, -0.01]), tx.init(p), p)
    >>> np.asarray(p).round(4)
    array([0.85, 2.  ], dtype=float32)
    """
    return transformation(rules.Lion, locals())


@hinting
def nadam(
    lr: Rate = 0.002,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-08,
    weight_decay: Number = 0.0,
    momentum_decay: Number = 0.004,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
    l1: Number = 0.0,
    ema: Number | None = None,
    backend: str = "auto",
) -> Transformation:
    """`fusedstep.rules.NAdam` in programs of JAX's.

    >>> import numpy as np, jax.numpy as jnp, fusedstep.jax
    >>> tx = fusedstep.jax.nadam(lr=0.1)
    >>> p = jnp.array([1.0, 2.0])
    >>> p, state = tx.apply(jnp.array([3.0, -0.01]), tx.init(p), p)
    >>> np.asarray(p).round(4)
    array([0.8944, 2.1056], dtype=float32)
    """
    return transformation(rules.NAdam, locals())


@hinting
def radam(
    lr: Rate = 0.001,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 1e-08,
    weight_decay: Number = 0.0,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
    l1: Number = 0.0,
    ema: Number | None = None,
    backend: str = "auto",
) -> Transformation:
    """`fusedstep.rules.RAdam` in programs of JAX's.

    >>> import numpy as np, jax.numpy as jnp, fusedstep.jax
    >>> tx = fusedstep.jax.radam(lr=0.1)
    >>> p = jnp.array([1.0, 2.0])
    >>> p, state = tx.apply(jnp.array([3.0, -0.01]), tx.init(p), p)
    >>> np.asarray(p).round(4)
    array([0.7  , 2.001], dtype=float32)
    """
    return transformation(rules.RAdam, locals())


@hinting
def yogi(
    lr: Rate = 0.01,
    betas: tuple[Number, Number] = (0.9, 0.999),
    eps: Number = 0.001,
    weight_decay: Number = 0.0,
    initial_v: Number = 1e-06,
    bias_correction: bool = True,
    *,
    maximize: bool = False,
    l1: Number = 0.0,
    ema: Number | None = None,
    backend: str = "auto",
) -> Transformation:
    """`fusedstep.rules.Yogi` in programs of JAX's.

    >>> import numpy as np, jax.numpy as jnp, fusedstep.jax
    >>> tx = fusedstep.jax.yogi(lr=0.1)
    >>> p = jnp.array([1.0, 2.0])
    >>> p, state = tx.apply(jnp.array([3.0, -0.01]), tx.init(p), p)
    >>> np.asarray(p).round(4)
    array([0.9   , 2.0293], dtype=float32)
    """
    return transformation(rules.Yogi, locals())
