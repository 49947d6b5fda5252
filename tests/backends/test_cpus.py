"""The number of CPUs that a process may use, over faked trees of the system's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fusedstep._backends import cpus
from fusedstep._backends.cpus import Count, usable_cpus

affine_cpus = cpus.affine_cpus

CPUS = 8

VERSION_2 = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
VERSION_1 = "33 31 0:30 {top} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"
OTHERS = [
    "23 29 0:21 / /proc rw,nosuid - proc proc rw",
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755",
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset",
    "torn",
    "",
]


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "affine_cpus", lambda: Count(CPUS, "affinity"))


def tree(root: Path, membership: str, mounts: list[str], **limits: str) -> Path:
    """A folder with the files that tell of control groups; a limit's key is its file's path."""
    folder = root / "proc/self"
    folder.mkdir(parents=True)
    (folder / "cgroup").write_text(membership)
    (folder / "mountinfo").write_text("\n".join([*OTHERS, *mounts]))
    for name, text in limits.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def with_version_2(
    root: Path, limits: dict[str, str], group: str = "/a/b", top: str = "/"
) -> Count:
    files = {f"{name}/cpu.max": text for name, text in limits.items()}
    return usable_cpus(tree(root, f"0::{group}\n", [VERSION_2.format(top=top)], **files))


@pytest.mark.parametrize(
    ("limit", "number"),
    [
        *(("200000 100000", 2), ("150000 100000", 2), ("100001 100000", 2), ("100000 100000", 1)),
        *(("1000 100000", 1), ("max 100000", CPUS), ("900000 100000", CPUS), ("", CPUS)),
        *(("0 100000", CPUS), ("100000 0", CPUS), ("a b c", CPUS), ("50000 20000\n", 3)),
    ],
)
def test_a_quota_counts_as_whole_cpus_rounded_up(limit: str, number: int, tmp_path: Path) -> None:
    assert with_version_2(tmp_path, {"a/b": limit}).number == number


def test_the_narrowest_group_decides(tmp_path: Path) -> None:
    limits = {"a/b": "500000 100000", "a": "250000 100000", ".": "700000 100000"}
    found = with_version_2(tmp_path, limits)
    assert found == Count(3, "the quota of control group /a")


def test_other_groups_do_not_count(tmp_path: Path) -> None:
    limits = {"a/b/c": "100000 100000", "d": "100000 100000", "a/b": "max 100000"}
    assert with_version_2(tmp_path, limits) == Count(CPUS, "affinity")


@pytest.mark.parametrize(
    ("group", "top", "folder"),
    [
        ("/", "/", "."),  # a container with a name space of its own
        ("/docker/1f", "/docker/1f", "."),  # one without: its own group is what is mounted
        ("/docker/1f/inner", "/docker/1f", "inner"),
        ("/../outer", "/", "."),  # the group lies outside of the name space
        ("/host/1f", "/docker/1f", "."),
        ("/gone", "/", "."),  # named as on the host, and not there: the mount is left
    ],
)
def test_what_of_a_hierarchy_is_mounted(group: str, top: str, folder: str, tmp_path: Path) -> None:
    assert with_version_2(tmp_path, {folder: "300000 100000"}, group, top).number == 3


@pytest.mark.parametrize(
    ("quota", "number"), [("250000", 3), ("-1", CPUS), ("0", CPUS), ("many", CPUS)]
)
def test_version_1(quota: str, number: int, tmp_path: Path) -> None:
    membership = "12:cpuset:/x\n4:cpu,cpuacct:/docker/1f/a\n1:name=systemd:/docker/1f\n"
    files = {
        "cpu,cpuacct/a/cpu.cfs_quota_us": f"{quota}\n",
        "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
        "cpuset/x/cpu.cfs_quota_us": "1",
        "cpuset/x/cpu.cfs_period_us": "1",
    }
    root = tree(tmp_path, membership, [VERSION_1.format(top="/docker/1f")], **files)
    assert usable_cpus(root).number == number


def test_both_versions_side_by_side(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/a/cpu.cfs_quota_us": "400000",
        "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
        "unified/b/cpu.max": "max 100000",
    }
    unified = VERSION_2.format(top="/").replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    mounts = [VERSION_1.format(top="/"), unified]
    root = tree(tmp_path, "3:cpu,cpuacct:/a\n0::/b\n", mounts, **files)
    assert usable_cpus(root) == Count(4, "the quota of control group /a")


def test_names_with_blanks_and_colons(tmp_path: Path) -> None:
    mounted = VERSION_2.format(top="/my\\040group").replace(
        "/sys/fs/cgroup", "/sys/fs/cgroup/a\\040b"
    )
    root = tree(tmp_path, "0::/my group/c:d\n", [mounted], **{"a b/c:d/cpu.max": "100000 100000"})
    assert usable_cpus(root) == Count(1, "the quota of control group /my group/c:d")


@pytest.mark.parametrize("missing", ["cgroup", "mountinfo", "both"])
def test_systems_without_control_groups(missing: str, tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/\n", [VERSION_2.format(top="/")], **{"cpu.max": "100000 100000"})
    assert usable_cpus(root).number == 1
    for name in ("cgroup", "mountinfo"):
        if missing in (name, "both"):
            (root / "proc/self" / name).unlink()
    assert usable_cpus(root) == Count(CPUS, "affinity")


def test_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 7}, raising=False)
    assert affine_cpus().number == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert affine_cpus().number == 16
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert affine_cpus().number == 1
    monkeypatch.setattr(os, "process_cpu_count", lambda: 5, raising=False)  # Python 3.13
    assert affine_cpus().number == 5
