"""Reports of steps that are judged where their gradients are: whoever reads one waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fusedstep._core.request import Report


class LateReport(Report):
    """A report whose entries are fetched when the first of them is read.

    As a tuple it has none of its own: whatever reads an entry goes by `entries`.
    """

    fetch: Callable[[], Report]
    lasts: bool
    """Whether its entries stay what they are: those of a step in a CUDA graph do not."""
    found: Report | None = None

    @property
    def entries(self) -> Report:
        """The report as any other step gives it."""
        if self.found is not None:
            return self.found
        found = self.fetch()
        if self.lasts:
            self.found = found
        return found

    grad_norm = property(lambda self: self.entries.grad_norm)
    clip = property(lambda self: self.entries.clip)
    skipped = property(lambda self: self.entries.skipped)
    t = property(lambda self: self.entries.t)

    def __getitem__(self, at: Any) -> Any:
        return self.entries[at]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.entries)

    def __contains__(self, value: object) -> bool:
        return value in self.entries

    def __eq__(self, other: object) -> bool:
        return bool(self.entries == _plain(other))

    def __ne__(self, other: object) -> bool:
        return bool(self.entries != _plain(other))

    def __lt__(self, other: Any) -> bool:
        return bool(self.entries < _plain(other))

    def __le__(self, other: Any) -> bool:
        return bool(self.entries <= _plain(other))

    def __gt__(self, other: Any) -> bool:
        return bool(self.entries > _plain(other))

    def __ge__(self, other: Any) -> bool:
        return bool(self.entries >= _plain(other))

    def __hash__(self) -> int:
        return hash(self.entries)

    def __repr__(self) -> str:
        return repr(self.entries)

    def __add__(self, other: Any) -> Any:
        return self.entries + _plain(other)

    def __mul__(self, times: Any) -> Any:
        return self.entries * times

    __rmul__ = __mul__

    def __reduce__(self) -> Any:
        return Report, tuple(self.entries)

    def count(self, value: Any) -> int:
        return self.entries.count(value)

    def index(self, *arguments: Any) -> int:
        return self.entries.index(*arguments)

    def _asdict(self) -> dict[str, Any]:
        return self.entries._asdict()

    def _replace(self, **changes: Any) -> Any:
        return self.entries._replace(**changes)


def _plain(value: Any) -> Any:
    return value.entries if isinstance(value, LateReport) else value


def late_report(
    verdict: Any, measured: bool, at: Sequence[int], parameters: Sequence[Any], before: int
) -> Report:
    """The report of a step with that verdict.

    `measured` says whether its norm was asked for. `at` has the number of each row's parameter, and
    `before` the steps that were taken before those of the verdict.
    """

    def fetch() -> Report:
        found = verdict.read()
        return Report(
            found.norm if measured else None,
            found.clip,
            tuple(f"params{parameters[at[row]].path}" for row in found.unfit)
            if found.skipped
            else (),
            before + found.taken,
        )

    report = LateReport(None, 1.0, (), 0)
    report.fetch, report.lasts = fetch, verdict.lasts
    return report
