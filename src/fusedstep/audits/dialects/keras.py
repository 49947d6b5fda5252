"""Keras: variables that `apply_gradients` changes, on the backend that Keras runs on."""

from __future__ import annotations

from fusedstep.audits.dialects.dialect import Dialect, Unfit

NO_MEMORY = Unfit("a Keras variable owns its memory")

DIALECT = Dialect(
    imports="""import os

os.environ.setdefault("KERAS_BACKEND", "{backend}")

import keras
import numpy as np""",
    first=(),
    optimizer="""
def optimizer():
    return {make}

def tensor(g, dtype="float32"):
    return keras.ops.convert_to_tensor(g, dtype=dtype)

def value(p):
    return np.asarray(keras.ops.convert_to_numpy(p), np.float64)
""",
    train="""
def train(start, gradients, dtype="float32"):
    p = keras.Variable(start, dtype=dtype)
    opt = optimizer()
    opt.build([p])
    for g in gradients:
        opt.apply_gradients([(tensor(g, dtype), p)])
    return value(p)
""",
    resume="""
def resume(start, gradients):
    p = keras.Variable(start, dtype="float32")
    opt = optimizer()
    opt.build([p])
    for k, g in enumerate(gradients):
        if k == len(gradients) // 2:
            saved = {}
            opt.save_own_variables(saved)
            p = keras.Variable(value(p), dtype="float32")
            opt = optimizer()
            opt.build([p])
            opt.load_own_variables(saved)
        opt.apply_gradients([(tensor(g), p)])
    return value(p)
""",
    skip="""
def skip(start, gradients):
    p = keras.Variable(start, dtype="float32")
    other = keras.Variable(start, dtype="float32")
    opt = optimizer()
    opt.build([p, other])
    for g in gradients:
        g = None if g is None else tensor(g)
        opt.apply_gradients([(g, p), (tensor(np.ones(p.shape)), other)])
    return value(p)
""",
    rate="""
def rate(start, gradients, lr):
    p = keras.Variable(start, dtype="float32")
    opt = optimizer()
    opt.build([p])
    opt.learning_rate = lr
    for g in gradients:
        opt.apply_gradients([(tensor(g), p)])
    return value(p)
""",
    groups=Unfit("a Keras optimizer has no groups of parameters"),
    company="""
def company(starts, gradients):
    params = [keras.Variable(s, dtype="float32") for s in starts]
    opt = optimizer()
    opt.build(params)
    for several in gradients:
        opt.apply_gradients([(tensor(g), p) for p, g in zip(params, several)])
    return np.concatenate([value(p).ravel() for p in params])
""",
    kept="""
def kept(start, g):
    p = keras.Variable(start, dtype="float32")
    g = tensor(g)
    opt = optimizer()
    opt.build([p])
    opt.apply_gradients([(g, p)])
    return value(g)
""",
    layout=NO_MEMORY,
    array="np",
    threads=Unfit("Keras has no function for the number of threads"),
    float64="",
    dtypes=("float32", "float64", "bfloat16", "float16"),
)
