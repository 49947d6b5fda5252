"""Steps by rows on a device: the same bits as the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import row_steps
from cases import DTYPES, Case, differing_bits, ordinary
from device import LIBRARIES, Placed, cuda

import fusedstep as fs
from fusedstep._arrays.dtypes import BFLOAT16, FLOAT16
from fusedstep._numerics.storage import STORAGES

pytestmark = pytest.mark.filterwarnings("error")


class Held:
    """Arrays on the device, and how to find what each is a copy of."""

    def __init__(self, library: str = "plain") -> None:
        self.library = library
        self.made: list[Placed] = []

    def place(self, view: Any) -> Any:
        self.made.append(Placed(view, library=self.library))
        return self.made[-1].array

    def back(self, array: Any) -> Any:
        return next(each.host for each in self.made if each.array is array)


@cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("case", row_steps.CASES, ids=lambda case: case.name)
def test_bits(case: Case, dtype: Any) -> None:
    held = Held()
    row_steps.take_steps(case, dtype, held.place, held.back, row_steps.NARROW)


@cuda
@pytest.mark.parametrize("library", LIBRARIES)
def test_an_index_and_a_mask_on_the_device(library: str) -> None:
    held = Held(library)
    expected = np.zeros((4, 2))
    p = held.place(expected.copy())
    optimizer, reference = fs.Adagrad(p), fs.Adagrad(expected, backend="numpy")
    values = ordinary(np.random.default_rng(0), 8, np.float64).reshape(4, 2)
    index, mask = np.array([3, 0, 3, 1]), np.array([True, False, False, True])
    optimizer.step(fs.Rows(held.place(index), held.place(values)))
    reference.step(fs.Rows(index, values))
    optimizer.step(fs.Rows.where(held.place(mask), held.place(values)))
    reference.step(fs.Rows.where(mask, values))
    assert differing_bits(held.back(p), expected) == 0


@cuda
@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16])
@pytest.mark.parametrize("gaps", [False, True])
def test_gradients_of_16_bits_are_added_up_in_32(dtype: Any, gaps: bool) -> None:
    exact = ordinary(np.random.default_rng(1), 12, np.float32)
    format_ = STORAGES["float16" if dtype == FLOAT16 else "bfloat16"]
    (values,) = format_.encode(exact, None)
    decoded = format_.decode(12, (values,)).reshape(4, 3)
    memory = np.zeros((4, 6), values.dtype)
    view = memory[:, ::2] if gaps else np.zeros((4, 3), values.dtype)
    view[...] = values.reshape(4, 3)
    expected = np.zeros((5, 3), np.float32)
    p = Placed(expected.copy())
    placed = Placed(view, memory) if gaps else Placed(view)
    optimizer, reference = fs.Adam(p.array), fs.Adam(expected, backend="numpy")
    index = [4, 2, 4, 4]
    found = optimizer.step(fs.Rows(index, placed.array), max_norm=0.1)
    assert found == reference.step(fs.Rows(index, decoded), max_norm=0.1)
    assert differing_bits(p.host, expected) == 0


@cuda
@pytest.mark.parametrize("untouched", ["frozen", "exact"])
def test_parameters_that_are_not_in_c_order(untouched: Any) -> None:
    """Norms are of the elements in the order in which those of the parameter lie."""
    rng = np.random.default_rng(2)
    expected = np.asfortranarray(ordinary(rng, 15, np.float32).reshape(3, 5))
    p = Placed(expected.copy(order="F"))
    optimizer = fs.Adam(p.array, untouched=untouched)
    reference = fs.Adam(expected, untouched=untouched, backend="numpy")
    for index in ([2, 0, 2], [1], [0]):
        values = ordinary(rng, 5 * len(index), np.float32).reshape(-1, 5)
        report = optimizer.step(fs.Rows(index, Placed(values).array), max_norm=0.5)
        assert report == reference.step(fs.Rows(index, values), max_norm=0.5)
    optimizer.catch_up()
    reference.catch_up()
    assert differing_bits(p.host, expected) == 0


@cuda
@pytest.mark.parametrize("nonfinite", ["skip", "raise"])
def test_norms_over_rows_in_reverse(nonfinite: Any) -> None:
    """They are summed in the order in which the parameter lies in memory."""
    rng = np.random.default_rng(1)
    back = slice(None, None, -1)
    for turned in ((back,), (slice(None), back), (back, back)):
        memory = rng.normal(size=(121, 121))
        p = Placed(memory[turned], memory)
        expected = memory.copy()[turned]
        optimizer = fs.SGD(p.array, lr=0.37, nonfinite=nonfinite)
        reference = fs.SGD(expected, lr=0.37, nonfinite=nonfinite, backend="numpy")
        for _ in range(5):
            index, values = rng.integers(0, 121, 90), rng.lognormal(0, 2, (90, 121))
            report = optimizer.step(fs.Rows(index, Placed(values).array), max_norm=1.0)
            assert report == reference.step(fs.Rows(index, values), max_norm=1.0)
        assert differing_bits(p.host, expected) == 0


@cuda
def test_gradients_that_are_zeroed() -> None:
    p, values = Placed(np.zeros((3, 2))), Placed(np.ones((2, 2)))
    fs.SGD(p.array, lr=1.0).step(fs.Rows([1, 1], values.array), zero_grads=True)
    assert p.host.tolist() == [[0, 0], [-2, -2], [0, 0]]
    assert not values.host.any()


@cuda
def test_more_rows_than_there_was_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from fusedstep._backends.cuda.mail import Parcels

    monkeypatch.setattr(Parcels, "LEAST", 2)
    p = Placed(np.zeros(6))
    optimizer = fs.SGD(p.array, lr=1.0, untouched="exact", momentum=0.5)
    expected = np.zeros(6)
    reference = fs.SGD(expected, lr=1.0, untouched="exact", momentum=0.5, backend="numpy")
    for k in (1, 3, 1, 6, 2):
        values = np.arange(1.0, k + 1)
        optimizer.step(fs.Rows(range(k), Placed(values).array))
        reference.step(fs.Rows(range(k), values))
    optimizer.catch_up()
    reference.catch_up()
    assert differing_bits(p.host, expected) == 0


@cuda
def test_values_on_the_cpu_are_refused() -> None:
    optimizer = fs.SGD(Placed(np.zeros((3, 2))).array)
    with pytest.raises(ValueError, match=r"grads\.values is on the CPU"):
        optimizer.step(fs.Rows([1], np.ones((1, 2))))


@cuda
def test_sparse_matrices_are_refused() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    optimizer = fs.SGD(Placed(np.zeros((3, 2))).array)
    with pytest.raises(ValueError, match="the parameters are on CUDA device 0"):
        optimizer.step(sparse.csr_matrix(np.eye(3, 2)))


def fading(t: int) -> Any:
    """Rates of three columns, which are all 0 now and then."""
    return np.array([0.1, 0.1, 0.5]) * (t % 3)


@cuda
@pytest.mark.parametrize("lr", [np.array([0.1, 0.1, 0.5]), fading], ids=["array", "schedule"])
@pytest.mark.parametrize(
    "kept", [{}, {"row_steps": "shared"}, {"untouched": "exact"}], ids=["own", "shared", "exact"]
)
@pytest.mark.parametrize(
    "make",
    [fs.AdamW, pytest.param(row_steps.custom, marks=pytest.mark.slow)],
    ids=["adamw", "custom"],
)
def test_rates_by_column(make: Any, kept: dict[str, Any], lr: Any) -> None:
    rng = np.random.default_rng(3)
    expected = ordinary(rng, 15, np.float32).reshape(5, 3)
    other = expected[:2].copy()
    p, q = Placed(expected.copy()), Placed(other.copy())
    optimizer = make([p.array, q.array], lr=lr, **kept)
    reference = make([expected, other], lr=lr, backend="numpy", **kept)
    for index in (None, [2, 0, 2], [1], None, [4, 1, 2, 3], [0]):
        n = 5 if index is None else len(index)
        values = ordinary(rng, 3 * n, np.float32).reshape(n, 3)
        placed = Placed(values).array
        g = (placed, values) if index is None else (fs.Rows(index, placed), fs.Rows(index, values))
        whole = ordinary(rng, 6, np.float32).reshape(2, 3)
        report = optimizer.step([g[0], Placed(whole).array], max_norm=1.0, scale=2.0)
        assert report == reference.step([g[1], whole], max_norm=1.0, scale=2.0)
    optimizer.catch_up()
    reference.catch_up()
    assert differing_bits(p.host, expected) == 0
    assert differing_bits(q.host, other) == 0
