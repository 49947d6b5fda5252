"""The plugin of `pytest bench`: contestants take turns, and pytest-benchmark replays their times.

A test stands for one contestant of a comparison. pytest-benchmark alone would time one test to
its end and then the next, so that a machine that slows down in between favours the first. So all
selected contestants of a comparison take turns (`fusedstep.benchmarks.turns`) when the first of
its tests runs. Each test then replays its contestant's times to pytest-benchmark: a round is a
turn, and the timer is a clock that a round moves on by the time of that turn. So statistics,
tables, comparisons and JSON are those of any benchmark. `extra_info` holds the record with its
bytes, its GB/s and its share of the limit. The JSON holds all records once more as "fusedstep",
with the machine and the reasons why contestants were left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import pytest
from cases import Case

from fusedstep.benchmarks.contestants import LIMIT
from fusedstep.benchmarks.contestants.contestant import Contestant
from fusedstep.benchmarks.machine import machine
from fusedstep.benchmarks.measuring import Group, measure
from fusedstep.benchmarks.records import Absences, Record, Results
from fusedstep.benchmarks.workloads import Workload

HUGE = 20_000_000
"""Elements from which a comparison comes last, and not at all with --quick."""

PACKAGES = ["cffi", "numba", "torch", "optax", "jax", "jaxlib", "deepspeed"]
"""Packages whose versions the JSON names."""


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
    """Parametrize a test over the contestants of comparisons, for the fixture `replayed`."""
    rows = []
    for comparison in comparisons:
        assert comparison.name not in COMPARISONS
        COMPARISONS[comparison.name] = comparison
        mark = pytest.mark.benchmark(group=comparison.name, timer=TAPE.clock)
        for contestant in comparison.contestants:
            name = f"{comparison.name}-{slug(contestant.name)}"
            rows.append(pytest.param(comparison.name, contestant.name, id=name, marks=mark))
    mark_all = pytest.mark.parametrize(("comparison", "contestant"), rows)

    # Named beside `replayed`, so that pytest-benchmark sees it where that one skips.
    return lambda test: pytest.mark.usefixtures("benchmark")(mark_all(test))


class Tape:
    """A clock that stands still, except that each step of a recording moves it on."""

    now = 0.0

    def clock(self) -> float:
        return self.now

    def play(self, durations: Sequence[float]) -> Callable[[], None]:
        """Return a step that takes the first of the durations, then the second, and so on."""
        self.now = 0.0
        left = iter(durations)

        def step() -> None:
            self.now += next(left)

        return step


TAPE = Tape()
COMPARISONS: dict[str, Comparison] = {}
"""All comparisons that tests were made of, by name."""
FOUND: dict[str, Group] = {}
"""The results of those that have been run, by name."""


@pytest.fixture
def replayed(
    request: pytest.FixtureRequest, benchmark: Any, comparison: str, contestant: str
) -> Record:
    """The record of a contestant, after its turns were replayed to pytest-benchmark."""
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
    """Measure those contestants of a comparison that tests were selected of, and the limit."""
    workload, case, dtype, loop, contestants, seconds = COMPARISONS[name]
    rows = [row_of(item) for item in session.items]
    selected = {row["contestant"] for row in rows if row.get("comparison") == name}
    selected.add(LIMIT.name)
    chosen = [contestant for contestant in contestants if contestant.name in selected]
    if session.config.getoption("quick"):
        seconds *= 0.2
    return measure(workload, case, dtype, chosen, loop, seconds)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="take a fifth of the time, and leave out huge tensors"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put loops with NumPy's products first, before torch starts threads, and huge tensors last."""

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
    """The arguments of a test; none if it is not parametrized."""
    row: Mapping[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    return row


def pytest_benchmark_update_json(config: Any, benchmarks: Any, output_json: dict[str, Any]) -> None:
    absences = Absences()
    for name, found in FOUND.items():
        absences.add(name, found.missing)
    records = [record for found in FOUND.values() for record in found.records]
    results = Results(machine(PACKAGES), absences.summary(records), records)
    output_json["fusedstep"] = results.to_dict()
