"""The machine that a benchmark runs on: its CPU, its caches, and the installed packages."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from datetime import date
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fusedstep._backends.info import info
from fusedstep._backends.threads import get_num_threads
from fusedstep.benchmarks.records import Machine

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
"""Bytes of the units in which Linux states the size of a cache."""

FIELDS = ("level", "type", "size")
"""Names of the files in which Linux describes a cache."""


def machine(packages: Iterable[str] = ()) -> Machine:
    """Describe this machine, with the versions of those of `packages` that are installed."""
    return Machine(
        cpu=cpu(),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cpu_count(),
        caches=caches(),
        system=platform.system() + " " + platform.machine(),
        isa=info().isa,
        threads=get_num_threads(),
        versions=versions(["fusedstep", "numpy", *packages]),
        date=date.today().isoformat(),
    )


def cpu_count() -> int:
    return os.cpu_count() or 1


def versions(packages: Iterable[str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cpu(path: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name, or its architecture."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


@cache
def caches(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> dict[str, int]:
    """Bytes of the first CPU's data caches, by name; empty where the system does not tell."""
    found = {}
    for index in sorted(folder.glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in FIELDS)
            if kind != "Instruction":
                found[f"L{level}"] = int(size[:-1]) * UNITS[size[-1]]
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return found


def nearest(footprint: int, threads: int, sizes: Mapping[str, int]) -> str:
    """The nearest memory that holds `footprint` bytes: "L1", "L2", "L3" or "memory".

    L1 and L2 belong to a core, so that each thread brings one, for its share of the bytes.
    """
    for name, size in sorted(sizes.items()):
        if footprint <= size * (threads if name in ("L1", "L2") else 1):
            return name
    return "memory" if sizes else "unknown"
