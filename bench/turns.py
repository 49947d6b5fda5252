"""`pytest bench`: our steps beside those of others, by pytest-benchmark.

A test is one contestant of a comparison. pytest-benchmark by itself would time one test to its
end and then the next, so that a machine that slows down in between favours whoever was first. So
when the first test of a comparison runs, all its contestants that were selected take turns
(`fusedstep.benchmarks.measuring`), and each test only hands what was found of its contestant to
pytest-benchmark: a round is a turn, and the timer is a clock that each round moves on by what
that turn took. Its statistics, tables, comparisons and JSON are then as of any benchmark.
`extra_info` holds the record with its bytes, its GB/s, its share of the limit and so on, and the
JSON has all of them once more under "fusedstep", with the machine and who was left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import pytest
from cases import Case

from fusedstep.benchmarks.budget import said
from fusedstep.benchmarks.contestants import LIMIT
from fusedstep.benchmarks.contestants.contestant import Contestant
from fusedstep.benchmarks.machine import machine
from fusedstep.benchmarks.measuring import Group, measure
from fusedstep.benchmarks.records import Record, Results
from fusedstep.benchmarks.workloads import Workload

HUGE = 20_000_000
"""Elements from which comparisons come last, and not at all if it shall be quick."""

PACKAGES = ["cffi", "numba", "torch", "optax", "jax", "jaxlib", "deepspeed"]


class Comparison(NamedTuple):
    """Contestants that take turns."""

    workload: Workload
    case: Case
    dtype: str
    loop: str
    contestants: Sequence[Contestant]
    seconds: float

    @property
    def name(self) -> str:
        parts = [self.workload.name, self.case.name, self.dtype, self.loop]
        return "-".join(slug(part) for part in parts)


def slug(name: str) -> str:
    """A name as `-k` takes it: "1x1000", "torch-fused"."""
    return name.replace(" × ", "x").replace(",", "").replace("'", "").replace(" ", "-")


Test = TypeVar("Test", bound=Callable[..., None])


def each(comparisons: Sequence[Comparison]) -> Callable[[Test], Test]:
    """A test of each contestant, as the arguments of `replayed`."""
    rows = []
    for comparison in comparisons:
        assert comparison.name not in COMPARISONS
        COMPARISONS[comparison.name] = comparison
        mark = pytest.mark.benchmark(group=comparison.name, timer=TAPE.clock)
        rows += [
            pytest.param(
                comparison.name, who.name, id=f"{comparison.name}-{slug(who.name)}", marks=mark
            )
            for who in comparison.contestants
        ]
    mark_all = pytest.mark.parametrize(("comparison", "contestant"), rows)

    # Named beside `replayed`, so that pytest-benchmark sees it where that one skips.
    return lambda test: pytest.mark.usefixtures("benchmark")(mark_all(test))


class Tape:
    """A clock that only a recording moves."""

    now = 0.0

    def clock(self) -> float:
        return self.now

    def play(self, durations: Sequence[float]) -> Callable[[], None]:
        """What takes the first of them when it is called, then the second, and so on."""
        self.now = 0.0
        left = iter(durations)

        def step() -> None:
            self.now += next(left)

        return step


TAPE = Tape()
COMPARISONS: dict[str, Comparison] = {}
FOUND: dict[str, Group] = {}


@pytest.fixture
def replayed(
    request: pytest.FixtureRequest, benchmark: Any, comparison: str, contestant: str
) -> Record:
    """The record of a contestant, after its turns went through pytest-benchmark."""
    if comparison not in FOUND:
        FOUND[comparison] = run(comparison, request.session)
    found = FOUND[comparison]
    if contestant in found.missing:
        pytest.skip(found.missing[contestant])
    (record,) = (record for record in found.records if record.contestant == contestant)
    here = machine(PACKAGES)
    benchmark.extra_info.update(record._asdict(), speed=record.speed)
    benchmark.extra_info.update(isa=here.isa, versions=here.versions)
    turns = found.turns[contestant]
    benchmark.pedantic(TAPE.play(turns), rounds=len(turns))
    return record


def run(name: str, session: pytest.Session) -> Group:
    """Have those contestants take turns of which a test was selected, and the limit."""
    comparison = COMPARISONS[name]
    rows = [row_of(item) for item in session.items]
    selected = {row["contestant"] for row in rows if row.get("comparison") == name}
    contestants = [who for who in comparison.contestants if who.name in selected or who is LIMIT]
    seconds = comparison.seconds * (0.2 if session.config.getoption("quick") else 1)
    workload, case, dtype, loop = comparison[:4]
    return measure(workload, case, dtype, contestants, loop, seconds)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="a fifth of the time, and nothing of millions"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """First what stands between NumPy's products, while torch has no threads; last the huge."""

    def place(item: pytest.Item) -> int:
        comparison = COMPARISONS.get(row_of(item).get("comparison", ""))
        if comparison is None:
            return 0
        return 3 if comparison.workload.elements > HUGE else 1 + (comparison.loop != "numpy")

    if config.getoption("quick"):
        config.hook.pytest_deselected(items=[item for item in items if place(item) == 3])
        items[:] = [item for item in items if place(item) < 3]
    items.sort(key=place)


def row_of(item: pytest.Item) -> Mapping[str, Any]:
    """The arguments of a test here; of any other none."""
    row: Mapping[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    return row


def pytest_benchmark_update_json(config: Any, benchmarks: Any, output_json: dict[str, Any]) -> None:
    left_out: dict[tuple[str, str], list[str]] = {}
    for name, found in FOUND.items():
        for contestant, reason in found.missing.items():
            left_out.setdefault((contestant, reason), []).append(name)
    records = [record for found in FOUND.values() for record in found.records]
    output_json["fusedstep"] = Results(
        machine(PACKAGES), said(left_out, records), records
    ).to_dict()
