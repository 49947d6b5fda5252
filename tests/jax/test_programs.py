"""Steps in all that JAX makes of a function, and what does not fit is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from marks import MISSING, needs, needs_c

import fusedstep as fs

jax = needs("jax", "jax")
jnp = jax.numpy
fj = pytest.importorskip("fusedstep.jax")

Tree = Any


def tree(seed: int = 0) -> Tree:
    """Arrays of many shapes: one without elements, one of no dimension, and None."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        return np.asarray(rng.standard_normal(shape), np.float32)

    return {"w": normal(5, 3), "b": (normal(), [normal(0, 4)]), "none": None, "l": [normal(1)]}


def stepped(steps: int = 3, **options: Any) -> list[Any]:
    """The arrays after steps of `fs.AdamW`."""
    arrays: list[Any] = jax.tree.leaves(jax.tree.map(np.copy, tree()))
    opt = fs.AdamW(arrays, **options)
    for _ in range(steps):
        opt.step(jax.tree.leaves(tree(1)))
    return arrays


def same(made: Tree, arrays: list[Any]) -> bool:
    leaves = jax.tree.leaves(made)
    return all(np.array_equal(a, b) for a, b in zip(leaves, arrays, strict=True))


@needs_c
class TestPrograms:
    tx: Any = fj.adamw(lr=0.25) if MISSING is None else None
    lr = 0.25

    def test_outside_of_jit(self) -> None:
        p, state = tree(), self.tx.init(tree())
        for _ in range(3):
            p, state = self.tx.apply(tree(1), state, p)
        assert same(p, stepped(lr=self.lr))
        assert jax.tree.structure(p) == jax.tree.structure(tree())

    def test_scan_and_fori_loop(self) -> None:
        p = jax.tree.map(jnp.array, tree())

        def body(carry: Any, _: Any) -> Any:
            p, state = carry
            return self.tx.apply(tree(1), state, p), None

        (scanned, state), _ = jax.lax.scan(body, (p, self.tx.init(p)), length=3)
        looped, _ = jax.jit(
            lambda p: jax.lax.fori_loop(
                0, 3, lambda _, carry: body(carry, None)[0], (p, self.tx.init(p))
            )
        )(p)
        assert int(state.count) == 3
        assert same(scanned, stepped(lr=self.lr))
        assert same(looped, stepped(lr=self.lr))

    def test_cond(self) -> None:
        apply = jax.jit(
            lambda g, state, p: jax.lax.cond(
                state.count < 2, lambda: self.tx.apply(g, state, p), lambda: (p, state)
            )
        )
        p, state = tree(), self.tx.init(tree())
        for _ in range(4):
            p, state = apply(tree(1), state, p)
        assert same(p, stepped(2, lr=self.lr))

    def test_vmap_over_all_with_a_count_for_each(self) -> None:
        p = jnp.arange(12.0).reshape(3, 4)
        state = jax.vmap(self.tx.init)(p)._replace(count=jnp.arange(3, dtype=jnp.int32))
        made, after = jax.jit(jax.vmap(self.tx.apply))(p, state, p)
        for k in range(3):
            own = jax.tree.map(lambda array, k=k: array[k], state)
            assert np.array_equal(made[k], self.tx.apply(p[k], own, p[k])[0])
        assert after.count.tolist() == [1, 2, 3]

    def test_vmap_over_rates(self) -> None:
        def one(lr: Any) -> Any:
            tx = fj.adamw(lr=lr)
            return tx.apply(jnp.ones(3), tx.init(jnp.ones(3)), jnp.ones(3))[0]

        rates = jnp.array([0.5, 0.25])
        assert np.array_equal(jax.vmap(one)(rates), [one(lr) for lr in rates])

    @pytest.mark.parametrize("taken", ["grad", "jvp", "of the rate"])
    def test_derivatives_are_refused(self, taken: str) -> None:
        p = jnp.ones(3)

        def loss(p: Any, lr: Any = 0.1) -> Any:
            tx = fj.adamw(lr=lr)
            return tx.apply(p, tx.init(p), p)[0].sum()

        take: Any = {
            "grad": lambda: jax.grad(loss)(p),
            "jvp": lambda: jax.jvp(loss, (p,), (p,)),
            "of the rate": lambda: jax.grad(loss, argnums=1)(p, 0.1),
        }[taken]
        with pytest.raises(TypeError, match="has no derivative; take the gradient of the loss"):
            take()

    def test_a_derivative_that_does_not_go_through_the_step(self) -> None:
        def loss(p: Any) -> Any:
            q = jax.lax.stop_gradient(p)
            return self.tx.apply(q, self.tx.init(q), q)[0].sum() + (2 * p).sum()

        assert jax.grad(loss)(jnp.ones(3)).tolist() == [2, 2, 2]

    def test_what_is_not_donated_stays(self) -> None:
        g, p = jnp.full(5, 0.5), jnp.ones(5)
        state = self.tx.init(p)
        for function in (self.tx.apply, self.tx.update):
            for step in (function, jax.jit(function)):
                step(g, state, p)
                assert g.tolist() == [0.5] * 5
                assert p.tolist() == [1] * 5
                assert int(state.count) == 0
                assert not np.any(state.arrays["m"])

    def test_numpys_arrays_stay(self) -> None:
        p = np.ones(4096, np.float32)
        jax.jit(self.tx.apply, donate_argnums=(0, 2))(p, self.tx.init(p), p)
        assert (p == 1).all()

    def test_what_is_donated_is_stepped_in_place(self) -> None:
        """In a function that returns what it is given in the order in which it was given."""
        p = jnp.ones(100_000)
        state = self.tx.init(p)
        held = p, state.arrays["m"], state.arrays["v"]
        at = [each.unsafe_buffer_pointer() for each in held]

        def step(p: Any, state: Any, g: Any) -> Any:
            return self.tx.apply(g, state, p)

        new, after = jax.jit(step, donate_argnums=(0, 1))(p, state, jnp.ones(100_000))
        kept = new, after.arrays["m"], after.arrays["v"]
        assert [each.unsafe_buffer_pointer() for each in kept] == at
        assert all(each.is_deleted() for each in held)

    def test_one_array_as_parameter_gradient_and_state(self) -> None:
        p = jnp.linspace(0.5, 1, 100)
        state = self.tx.init(p)._replace(arrays={"m": p, "v": p})
        apart = jax.tree.map(jnp.array, (p, state, p))
        made, expected = jax.jit(self.tx.apply)(p, state, p), self.tx.apply(*apart)
        assert all(map(np.array_equal, *map(jax.tree.leaves, (made, expected))))

    def test_a_tree_without_arrays(self) -> None:
        made, state = jax.jit(self.tx.apply)({"a": None}, self.tx.init({"a": None}), {"a": None})
        assert made == {"a": None}
        assert int(state.count) == 1

    def test_a_call_takes_few_tensors(self) -> None:
        """XLA takes the longer to compile a call the more tensors it has."""
        p = [jnp.ones(1)] * 50
        text = jax.jit(self.tx.apply).lower(p, self.tx.init(p), p).as_text()
        assert text.count("@fusedstep_cpu_step(") == 4
        assert text.count("@fusedstep_cpu_job(") == 1

    def test_the_count_stays_at_its_largest(self) -> None:
        p, most = jnp.ones(1), np.iinfo(np.int32).max
        state = self.tx.init(p)._replace(count=jnp.int32(most))
        assert int(self.tx.apply(p, state, p)[1].count) == most

    def test_threads_of_python_step_at_once(self) -> None:
        apply, made = jax.jit(self.tx.apply), {}

        def train(k: int) -> None:
            p = [jnp.full(50_000, 0.1 * j) for j in range(20)]
            state = self.tx.init(p)
            for _ in range(10):
                p, state = apply(p, state, p)
            made[k] = np.concatenate([np.asarray(each) for each in p])

        train(0)
        threads = [threading.Thread(target=train, args=(k,)) for k in range(1, 5)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert all(np.array_equal(made[0], each) for each in made.values())
        assert len(made) == 5

    def test_a_value_that_will_not_do_is_an_error_of_the_program(self) -> None:
        p = jnp.ones(3)
        apply = jax.jit(lambda lr: fj.adamw(lr=lr).apply(p, self.tx.init(p), p)[0])
        for lr, text in ((np.nan, "lr=nan"), (-1.0, "lr=-1.0 is negative")):
            with pytest.raises((RuntimeError, ValueError), match=text):
                apply(lr).block_until_ready()
        assert apply(0.25).tolist() == self.tx.apply(p, self.tx.init(p), p)[0].tolist()

    def test_ctrl_c_while_python_computes_scalars_is_raised_as_itself(self) -> None:
        came: list[int] = []

        def prepare(h: Any, t: int) -> dict[str, float]:
            if t == 2 and not came:
                came.append(t)
                raise KeyboardInterrupt
            return {"half": h.lr / 2}

        @fs.rule(prepare=prepare, lr=1.0)
        def interrupted(p, g, h):  # type: ignore[no-untyped-def]
            return p - h.half * g

        tx = fj.from_class(interrupted)()
        p, state = tx.apply(jnp.ones(3), tx.init(jnp.ones(3)), jnp.ones(3))

        def wait() -> None:
            jax.block_until_ready(tx.apply(jnp.ones(3), state, p))
            for _ in range(1000):  # where the program runs on another thread, and may be later
                time.sleep(0.01)

        with pytest.raises(KeyboardInterrupt):
            wait()
        assert came == [2]
        assert tx.apply(jnp.ones(3), state, p)[0].tolist() == [0, 0, 0]


MESH = """
import jax, jax.numpy as jnp, numpy as np, fusedstep.jax as fj
from jax.sharding import NamedSharding, PartitionSpec as P
tx, n = fj.adamw(lr=0.25), 2002
a = np.linspace(-1, 1, n, dtype=np.float32)
expected = np.asarray(tx.apply(a, tx.init(a), a)[0])
mesh = jax.make_mesh((2,), ("d",))
p = jax.device_put(a, NamedSharding(mesh, P("d")))
state = tx.init(p)
assert np.array_equal(jax.jit(tx.apply)(p, state, p)[0], expected)
specs = P("d"), fj.State(P(), P("d")), P("d")
apply = jax.jit(jax.shard_map(tx.apply, mesh=mesh, in_specs=specs, out_specs=specs[:0:-1]))
made, _ = apply(p, state, p)
assert np.array_equal(made, expected) and made.sharding.spec == P("d")
parts = a.reshape(2, -1)
made, _ = jax.pmap(tx.apply)(parts, jax.vmap(tx.init)(parts), parts)
assert np.array_equal(np.asarray(made).ravel(), expected)
"""


@needs_c
def test_arrays_on_several_devices() -> None:
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", MESH],
        env={**os.environ, **flags, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@needs_c
class TestRefusals:
    def refused(self, error: type[Exception], text: str, function: Any, *args: Any) -> None:
        with pytest.raises(error) as caught:
            function(*args)
        assert text in str(caught.value)

    def test_arguments(self) -> None:
        def adamw(**options: Any) -> Any:
            return lambda: fj.adamw(**options)

        self.refused(TypeError, "it is lr here", adamw(learning_rate=0.1))
        self.refused(TypeError, "it is betas=(b1, b2) here", adamw(b1=0.1))
        self.refused(TypeError, "it is weight_decay here", adamw(weigth_decay=0.1))
        self.refused(TypeError, "it has 'lr', 'betas'", adamw(zzz=1))
        self.refused(TypeError, "optax.apply_if_finite", adamw(nonfinite="skip"))
        self.refused(ValueError, "lr=-1 is negative", adamw(lr=-1))
        self.refused(TypeError, "pass a function of the step", adamw(lr=lambda: 0.1))
        self.refused(ValueError, "pass one of 'auto', 'c', 'numba'", adamw(backend="cuda"))
        self.refused(TypeError, "amsgrad is an array", adamw(amsgrad=jnp.array(True)))
        self.refused(
            ValueError, "pass as initial_lr", adamw(lr=jnp.ones(()), decay_scale="schedule")
        )
        self.refused(TypeError, "is no optimizer's class", fj.from_class, fs.Optimizer)

    def test_parameters(self) -> None:
        init = fj.adamw().init
        self.refused(
            TypeError, "params['a'] is of shape (2,) and dtype int32", init, {"a": jnp.ones(2, int)}
        )
        self.refused(TypeError, "dtype bfloat16; pass float32", init, jnp.ones(2, jnp.bfloat16))
        self.refused(TypeError, "params[0]='x' (str)", init, ["x"])

    def test_gradients_and_state(self) -> None:
        tx, p = fj.adamw(), {"a": jnp.ones(2), "b": jnp.ones(3)}
        state = tx.init(p)
        self.refused(ValueError, "update(grads, state, params)", tx.update, p, state)
        self.refused(ValueError, "grads lacks", tx.apply, {"a": p["a"]}, state, p)
        self.refused(ValueError, "grads has", tx.apply, {**p, "c": p["a"]}, state, p)
        self.refused(
            ValueError, "grads['b'] is of shape (2,)", tx.apply, {**p, "b": p["a"]}, state, p
        )
        half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), p)
        self.refused(ValueError, "`.astype('float32')`", tx.apply, half, state, p)
        longer = jax.tree.map(lambda x: jnp.zeros((*x.shape, 2), x.dtype), p)
        self.refused(ValueError, "pass one of shape", tx.apply, longer, state, p)
        self.refused(TypeError, "params.count", tx.apply, p, p, state)
        self.refused(TypeError, "of type dict", tx.apply, p, p, p)
        self.refused(ValueError, "need ['m', 'v']", tx.apply, p, fj.sgd().init(p), p)
        other = tx.init({"a": jnp.ones(2), "b": jnp.ones(4)})
        self.refused(ValueError, "state.arrays['m']['b']", tx.apply, p, other, p)
        wrong = state._replace(count=jnp.float32(0))
        self.refused(TypeError, "state.count", tx.apply, p, wrong, p)
        wrong = state._replace(count=jnp.int32(-1))
        with pytest.raises((RuntimeError, ValueError), match="count=-1"):
            jax.block_until_ready(tx.apply(p, wrong, p))

    def test_numbers_that_the_dtype_does_not_hold(self) -> None:
        def apply(**options: Any) -> Any:
            tx = fj.adamw(**options)
            return jax.block_until_ready(tx.apply(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2)))

        self.refused(ValueError, "is infinite in float32", lambda: apply(lr=1e39))
        self.refused(ValueError, "is 0 in float32", lambda: apply(eps=1e-60))
        self.refused(
            ValueError, "is infinite in float32", lambda: apply(lr=fs.schedules.constant(1e39))
        )
        with pytest.raises((RuntimeError, ValueError), match="is infinite in float32"):
            apply(lr=jnp.float32(3e38), weight_decay=jnp.float32(3e38))

    def test_rates_of_other_shapes(self) -> None:
        def apply(lr: Any) -> Any:
            tx = fj.adamw(lr=lr)
            return tx.apply(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))

        self.refused(TypeError, "lr is of shape (2,)", apply, jnp.ones(2))
        self.refused(TypeError, "dtype complex64", apply, jnp.ones((), complex))
        self.refused(TypeError, "dtype bool", apply, jnp.array(True))


@pytest.mark.skipif(MISSING is None, reason="the C backend is there")
def test_without_c_it_says_why() -> None:
    with pytest.raises(RuntimeError, match="needs the C backend, which is not available"):
        fj.adamw()
