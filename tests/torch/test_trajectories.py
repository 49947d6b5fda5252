"""Trajectories of many steps against torch's plain loop, in all configurations that torch tests."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from marks import needs

torch = needs("torch", "torch")
needs("expecttest", "compare")

from torch_cases import (  # noqa: E402
    OF_TORCH,
    PLAIN_LOOP,
    configurations,
    errors,
    farthest,
    ours,
    parameters,
    theirs,
    walk,
)

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6}
"""By how much of its tensor's largest element one may differ after 30 steps."""

for_each_class = pytest.mark.parametrize("name", OF_TORCH)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@for_each_class
def test_every_configuration_follows_the_plain_loop(name: str, dtype: Any) -> None:
    ran = 0
    for options in configurations(name, dtype):
        expected, actual = parameters(dtype), parameters(dtype)
        plain = {**copy.deepcopy(options), **PLAIN_LOOP}
        reference = theirs(name)(expected, **plain)
        optimizer = ours(name)(actual, **copy.deepcopy(options))
        walk(reference, expected, 30)
        walk(optimizer, actual, 30)
        assert farthest(actual, expected) <= TOLERANCE[dtype], options
        assert_like_states(optimizer, reference, TOLERANCE[dtype])
        ran += 1
    assert ran >= 5


def assert_like_states(optimizer: Any, reference: Any, tolerance: float) -> None:
    """State dicts that are alike but for the last bits of arrays."""
    found, expected = optimizer.state_dict(), reference.state_dict()
    for group, other in zip(found["param_groups"], expected["param_groups"], strict=True):
        assert {**group, "foreach": False} == other
    assert found["state"].keys() == expected["state"].keys()
    for key, state in expected["state"].items():
        assert [*found["state"][key]] == [*state]
        for name, value in state.items():
            other = found["state"][key][name]
            assert (other.shape, other.dtype, other.stride()) == (
                value.shape,
                value.dtype,
                value.stride(),
            )
            if value.dim() == 0 and name in ("step", "mu_product"):
                assert other == value
            else:
                assert farthest([other], [value]) <= 10 * tolerance, name


@for_each_class
def test_every_error_is_torchs(name: str) -> None:
    ran = 0
    for each in errors(name):
        given = each.optimizer_error_input
        if each.error_type is UserWarning:
            with pytest.warns(UserWarning, match=each.error_regex):
                ours(name)(given.params, **given.kwargs)
        else:
            with pytest.raises(each.error_type, match=each.error_regex):
                ours(name)(given.params, **given.kwargs)
        ran += 1
    assert ran >= 5


@for_each_class
def test_complex_parameters_step_as_pairs_of_reals(name: str) -> None:
    for options in configurations(name, torch.float64):
        expected, actual = parameters(torch.complex128), parameters(torch.complex128)
        reference = theirs(name)(expected, **{**copy.deepcopy(options), **PLAIN_LOOP})
        walk(reference, expected, 10)
        walk(ours(name)(actual, **copy.deepcopy(options)), actual, 10)
        assert farthest(actual, expected) <= 1e-12, options
