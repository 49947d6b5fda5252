"""Imports go one way: from what users see down to what every bit is made of."""

from graphlib import TopologicalSorter

from arrows import PACKAGE, edges, folder

LAYERS = [
    *("program", "audits", "benchmarks", "face"),
    *("_core", "_backends", "_numerics", "_compiler", "_arrays", "_checks"),
]


def test_no_import_points_up() -> None:
    level = {name: k for k, name in enumerate(LAYERS)}
    pairs = [*edges(PACKAGE)]
    assert len(pairs) > 100
    assert [(a, b) for a, b in pairs if level[folder(a)] > level[folder(b)]] == []


def test_no_modules_import_one_another() -> None:
    sorter = TopologicalSorter[str]()
    for importer, target in edges(PACKAGE):
        if importer != target:
            sorter.add(importer, target)
    sorter.prepare()  # a circle is a CycleError that names it
