"""An arena's parameters as JAX sees them: live, or refused; and what must be waited for."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from arenas import address, assert_same, leaves
from cases import differing_bits, ones, ordinary
from marks import needs, on_each_backend

import fusedstep as fs


@pytest.fixture(scope="module")
def jax() -> Any:
    return needs("jax", "others")


def network(rng: Any) -> list[tuple[Any, Any]]:
    shapes = [(5, 7), (7, 3), (3, 1)]
    return [
        (ordinary(rng, a * b, np.float32).reshape(a, b), ordinary(rng, b, np.float32))
        for a, b in shapes
    ]


def test_live_arrays_show_each_step(jax: Any) -> None:
    arena = fs.Arena(network(np.random.default_rng(0)), align=64)
    live = arena.jax_params()
    assert jax.tree.structure(live) == jax.tree.structure(arena.plain.params)
    total = jax.jit(lambda p: sum(x.sum() for x in jax.tree.leaves(p)))
    total(live).block_until_ready()
    opt = fs.SGD(arena, lr=1.0)
    for _ in range(3):
        for g in leaves(arena.grads):
            g += 1
        opt.step()
        for x, p in zip(jax.tree.leaves(live), leaves(arena.params), strict=True):
            assert x.unsafe_buffer_pointer() == address(p)
            np.testing.assert_array_equal(np.asarray(x), p)
        expected = sum(float(p.astype(float).sum()) for p in leaves(arena.params))
        assert float(total(live)) == pytest.approx(expected, rel=1e-5)


@on_each_backend
def test_training_by_a_gradient_function_of_jax(jax: Any, backend: str) -> None:
    """The same bits as with copies of the parameters, handed to JAX at every step."""
    jnp, rng = jax.numpy, np.random.default_rng(1)
    x, y = (ordinary(rng, 40, np.float32).reshape(8, 5), ordinary(rng, 8, np.float32)[:, None])

    def gradient_of(params: Any) -> Any:
        def loss(params: Any) -> Any:
            h = x
            for w, b in params:
                h = jnp.tanh(h @ w + b)
            return ((h - y) ** 2).mean()

        return jax.grad(loss)(params)

    gradient = jax.jit(gradient_of)
    start = network(rng)
    arena, other = fs.Arena(start, align=64), fs.Arena(start, align=64)
    plain = [(w.copy(), b.copy()) for w, b in start]
    live, through = arena.jax_params(), other.jax_params()
    opt = fs.AdamW(arena.plain.params, lr=0.01, backend=backend)
    copying = fs.AdamW(other, lr=0.01, backend=backend)
    reference = fs.AdamW(plain, lr=0.01, backend="numpy")
    for _ in range(5):
        opt.step(gradient(live))
        other.set_grads(gradient(through))
        copying.step()
        reference.step(jax.tree.map(np.array, gradient(jax.tree.map(jnp.array, plain))))
    assert_same(arena.params, plain)
    assert_same(other.params, plain)


def test_a_step_waits_for_the_gradients_that_it_is_given(jax: Any) -> None:
    """And so for all that the same call of a jitted function computes."""
    jnp = jax.numpy

    def slowly(p: Any, matrix: Any) -> Any:
        for _ in range(6):
            matrix = matrix @ matrix / 500
        return p + 0 * matrix[0, 0], (p * matrix[0, 0]).sum()

    slow = jax.jit(slowly)
    arena = fs.Arena(np.ones(1 << 16, np.float32), align=64)
    live, matrix = arena.jax_params(), jnp.ones((500, 500), jnp.float32)
    for take in (fs.SGD(arena.plain.params, lr=1.0).step, arena.set_grads):
        arena.params[...] = 1
        grads, total = slow(live, matrix)
        take(grads)
        arena.params[...] = 5
        assert float(total) == 1 << 16
        assert (np.asarray(grads) == 1).all()


def test_a_gradient_that_is_gone_is_refused_by_name(jax: Any) -> None:
    p = [ones(3), ones(3)]
    opt = fs.SGD(p, lr=1.0)
    grads = [jax.numpy.ones(3), jax.numpy.ones(3)]
    opt.step(grads)
    grads[1].delete()
    with pytest.raises(TypeError, match=r"grads\[1\] is .*deleted"):
        opt.step(grads)
    assert (p[0] == 0).all()
    opt.step([grads[0], ones(3)])
    opt.step([None, jax.numpy.ones(3)])
    assert [array.tolist() for array in p] == [[-1] * 3, [-2 + 0.0] * 3]


def test_all_else_that_reads_them_must_be_waited_for(jax: Any) -> None:
    """One that was waited for has read what stood there when it was called."""
    jnp = jax.numpy

    def reading(p: Any, matrix: Any) -> Any:
        for _ in range(6):
            matrix = matrix @ matrix / 500
        return (p * matrix[0, 0]).sum()

    late = jax.jit(reading)
    arena = fs.Arena(np.ones(1 << 16, np.float32), align=64)
    matrix = jnp.ones((500, 500), jnp.float32)
    for params in (arena.jax_params(), arena.params):  # NumPy's arrays are read late, too
        for value in (1.0, 2.0, 3.0):
            arena.params[...] = value
            loss = late(params, matrix)
            jax.block_until_ready(loss)
            arena.params[...] = 100
            assert float(loss) == value * (1 << 16)


def test_snapshots_and_what_is_none(jax: Any) -> None:
    arena = fs.Arena(ones(32), align=64)
    live = arena.jax_params()
    snapshot, same = jax.numpy.array(live), (live[:], jax.numpy.asarray(live))
    arena.params[...] = 2
    assert (np.asarray(snapshot) == 1).all()
    assert all((np.asarray(x) == 2).all() for x in same)


def test_a_live_array_that_was_donated_is_gone_and_the_memory_is_not(jax: Any) -> None:
    arena = fs.Arena(ones(64), align=64)
    live = arena.jax_params()
    doubled = jax.jit(lambda p: 2 * p, donate_argnums=0)(live).block_until_ready()
    assert (arena.params == 1).all()
    assert (np.asarray(doubled) == 2).all()
    again = arena.jax_params()
    arena.params[...] = 3
    assert (np.asarray(again) == 3).all()


def test_live_arrays_outlive_the_arena(jax: Any) -> None:
    live = fs.Arena(np.full(1000, 3, np.float32), align=64).jax_params()
    others = [np.zeros(1000, np.float32) for _ in range(20)]
    assert float(live.sum()) == 3000
    assert not any(other.any() for other in others)


def test_single_values_and_empty_arrays(jax: Any) -> None:
    arena = fs.Arena({"scale": ones(), "none": ones(0, 3), "w": ones(2)}, align=64)
    live = arena.jax_params()
    arena.params["scale"] += 1
    arena.params["w"] += 2
    assert float(live["scale"]) == 2
    assert live["none"].shape == (0, 3)
    assert live["w"].tolist() == [3, 3]
    arena.params["scale"] += 1
    assert float(live["scale"]) == 3


def test_what_jax_would_copy_is_refused_by_name_and_the_remedy_works(jax: Any) -> None:
    params = {"w": ones(3), "b": ones(4)}
    with pytest.raises(ValueError, match=r"params\['b'\] begins 12 bytes .* `fs.Arena\(params, al"):
        fs.Arena(params).jax_params()
    assert len(fs.Arena(params, align=64).jax_params()) == 2

    array = np.asfortranarray(ones(2, 3))
    for wrong in (array, ones(4, 3)[::-1]):
        with pytest.raises(ValueError, match=r"not in C order .*`np.ascontiguousarray\(array\)`"):
            fs.Arena([wrong], align=64).jax_params()
        assert len(fs.Arena([np.ascontiguousarray(wrong)], align=64).jax_params()) == 1

    arena = fs.Arena(np.ones(3))
    if not jax.config.jax_enable_x64:
        with pytest.raises(ValueError, match=r'float64.*`jax.config.update\("jax_enable_x64", Tru'):
            arena.jax_params()
    with jax.enable_x64(True):
        live = arena.jax_params()
        arena.params += 1
        assert live.dtype == np.float64
        assert live.tolist() == [2, 2, 2]


def test_without_jax_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['jax'] = None; import numpy as np, fusedstep as fs\n"
        "try: fs.Arena(np.ones(2)).jax_params()\n"
        "except ImportError as error: assert \"pip install 'fusedstep[jax]'\" in str(error)\n"
        "else: raise SystemExit('no error')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- alignment ----


@on_each_backend
@pytest.mark.parametrize("align", [1, 2, 4, 8, 16, 32, 64])
def test_aligned_parameters_step_to_the_same_bits(align: int, backend: str) -> None:
    rng = np.random.default_rng(align)
    sizes = [3, 0, 17, 1, 5000, 31]
    start = {
        "f": [ordinary(rng, n, np.float32) for n in sizes],
        "d": [ordinary(rng, n, np.float64) for n in sizes],
    }
    groups: list[dict[str, Any]] = [
        {"params": start["f"]},
        {"params": start["d"], "lr": 0.02, "amsgrad": True},
    ]
    arena = fs.Arena(groups, align=align)
    plain = [[p.copy() for p in group["params"]] for group in groups]
    for view in leaves([arena.params, arena.grads]):
        assert address(view) % align == 0
    spans = sorted((address(view), view.nbytes) for view in leaves([arena.params, arena.grads]))
    assert all(at + size <= after for (at, size), (after, _) in pairwise(spans))
    options: dict[str, Any] = {"lr": 0.01, "ema": 0.9, "nonfinite": "skip", "backend": backend}
    opt = fs.AdamW(arena, **options)
    again = [{**group, "params": own} for group, own in zip(groups, plain, strict=True)]
    reference = fs.AdamW(again, **{**options, "backend": "numpy"})
    for _ in range(3):
        grads = [[ordinary(rng, p.size, p.dtype.type) for p in group] for group in plain]
        arena.set_grads(grads)
        report, expected = opt.step(max_norm=1e9), reference.step(grads, max_norm=1e9)
        assert report.grad_norm == pytest.approx(expected.grad_norm, rel=1e-15)
    assert_same(arena.params, plain)
    for one, other in zip(opt.state, reference.state, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            assert mine.keys() == theirs.keys()
            for letter in mine.keys() - {"t"}:
                assert differing_bits(mine[letter], theirs[letter]) == 0
    assert repr(arena) == "<arena of 12 parameters: 5052 float32, 5052 float64>"


def test_copies_are_aligned_as_well() -> None:
    arena = fs.Arena([ones(3), ones(5)], align=64)
    for made in (copy.deepcopy(arena), pickle.loads(pickle.dumps(arena))):
        assert [address(p) % 64 for p in made.params] == [0, 0]
        made.grads[1] += 1
        fs.SGD(made, lr=1.0).step()
        assert made.params[1].tolist() == [0] * 5


def test_gaps_are_no_ones_gradients() -> None:
    """Neither division by nothing in them, nor a step that is skipped, is seen outside."""
    arena = fs.Arena([ones(3), ones(5)], align=64)
    opt = fs.Adam(arena, lr=0.5, eps=0.0, nonfinite="skip")
    for g in arena.grads:
        g[...] = 1
    assert opt.step(max_norm=10.0, zero_grads=True).skipped == ()
    assert [p.tolist() for p in arena.params] == [[0.5] * 3, [0.5] * 5]
    assert not arena.buffers["float32"].g.any()
    arena.set_grads([ones(3), np.full(5, np.nan, np.float32)])
    assert opt.step().skipped == ("params[1]",)


@pytest.mark.parametrize("align", [0, -1, 3, 128, 64.0, "64", True, None])
def test_other_alignments_are_refused(align: Any) -> None:
    with pytest.raises(ValueError, match=r"align=.*; pass a power of two up to 64, as `align=64`"):
        fs.Arena(ones(2), align=align)
