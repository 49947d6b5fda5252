"""The changes from one run of the benchmark to another."""

from __future__ import annotations

from math import isclose
from operator import attrgetter
from typing import NamedTuple

from fusedstep.benchmarks.records import LIMIT, Machine, Record, Results

MARGIN = 1.05
"""Ratio by which two runs of the same code may differ, as their arrays lie elsewhere in memory."""

CRITERION = "the quartiles of the two runs do not overlap and their medians are 5 % apart"
"""The condition under which a change is more than noise."""


class Range(NamedTuple):
    """A median and its quartiles."""

    median: float
    low: float
    high: float

    def __truediv__(self, other: Range) -> Range:
        return Range(self.median / other.median, self.low / other.high, self.high / other.low)


class Change(NamedTuple):
    """One contestant's step on one workload, then and now."""

    old: Record
    new: Record
    before: Range
    """Seconds of the old step, or multiples of its limit's time."""
    after: Range
    """Seconds of the new step, or multiples of its limit's time."""

    @property
    def ratio(self) -> float:
        """The old time over the new: above 1 it is faster now."""
        return self.before.median / self.after.median

    @property
    def verdict(self) -> str:
        if self.after.high < self.before.low and self.ratio >= MARGIN:
            return "faster"
        if self.after.low > self.before.high and self.ratio <= 1 / MARGIN:
            return "slower"
        return "noise"


class Comparison(NamedTuple):
    """The changes between records of the same work, and the records that have no counterpart."""

    changes: list[Change]

    by_share: bool
    """Whether multiples of the limit's time were compared, and not seconds."""

    notes: list[str]
    """Differences between the runs: their work, their machines, their versions."""

    gone: list[Record]
    """Records that the old run alone has."""

    come: list[Record]
    """Records that the new run alone has."""

    unlimited: list[Record]
    """New records that cannot be compared, as one of the two runs has no limit."""


def compare(old: Results, new: Results) -> Comparison:
    """Compare seconds, or multiples of the limit's time if the work or the machine differs."""
    fields = ("workload", "loop", "contestant", *_varying(old), *_varying(new))
    then, now = _by(fields, old.records), _by(fields, new.records)
    pairs = [(then[key], now[key]) for key in now if key in then]
    notes = [*_differing_work(pairs), *_differing_machine(old.machine, new.machine)]
    by_share = len(notes) > 0
    notes += _differing_versions(old.machine, new.machine)
    changes, unlimited = [], []
    for before, after in pairs:
        if not by_share:
            changes.append(Change(before, after, _seconds(before), _seconds(after)))
        elif after.contestant != LIMIT:
            if before.share is None or after.share is None:
                unlimited.append(after)
                continue
            ranges = _multiple(before, old.records), _multiple(after, new.records)
            changes.append(Change(before, after, *ranges))
    gone = [record for key, record in then.items() if key not in now]
    come = [record for key, record in now.items() if key not in then]
    return Comparison(changes, by_share, notes, gone, come, unlimited)


def _varying(results: Results) -> list[str]:
    """Further fields that tell the records of a run apart."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in results.records:
        groups.setdefault((record.workload, record.loop, record.contestant), []).append(record)
    return [
        field
        for field in ("case", "dtype", "threads")
        if any(len({getattr(record, field) for record in group}) > 1 for group in groups.values())
    ]


def _by(fields: tuple[str, ...], records: list[Record]) -> dict[tuple[object, ...], Record]:
    return {tuple(getattr(record, field) for field in fields): record for record in records}


def _seconds(record: Record) -> Range:
    return Range(record.seconds, record.low, record.high)


def _multiple(record: Record, records: list[Record]) -> Range:
    """A step's time over the limit's in its run, each with its own noise."""
    assert record.share is not None
    same = attrgetter("workload", "case", "dtype", "loop")
    seconds = record.share * record.seconds
    limit = Range(seconds, seconds, seconds)
    for other in records:
        timed = other.contestant == LIMIT and same(other) == same(record)
        if timed and isclose(other.seconds, seconds):
            limit = _seconds(other)
    return _seconds(record) / limit


def _differing_work(pairs: list[tuple[Record, Record]]) -> list[str]:
    names = {"case": "optimizer", "dtype": "dtype", "threads": "threads"}
    return [
        f"{name}: {', '.join(sorted({str(was) for was, _ in differ}))} → "
        f"{', '.join(sorted({str(now) for _, now in differ}))}"
        for field, name in names.items()
        if (
            differ := [
                (getattr(before, field), getattr(after, field))
                for before, after in pairs
                if getattr(before, field) != getattr(after, field)
            ]
        )
    ]


def _differing_machine(old: Machine, new: Machine) -> list[str]:
    was, now = (f"{machine.cpu}, {machine.cpus} CPUs" for machine in (old, new))
    return [f"machine: {was} → {now}"] if was != now else []


def _differing_versions(old: Machine, new: Machine) -> list[str]:
    """Differences in software, across which times of one machine may well be compared."""
    was = {"system": old.system, "instruction set": old.isa, **old.versions}
    now = {"system": new.system, "instruction set": new.isa, **new.versions}
    return [
        f"{name}: {was.get(name) or 'none'} → {now.get(name) or 'none'}"
        for name in {**was, **now}
        if was.get(name) != now.get(name)
    ]
