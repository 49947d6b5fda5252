"""The folder of compiled kernels: nobody else's files are read, and no fault of it is an error."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from cache_folders import CONTENT, NAME, Spoil, follow, one_warning, start_anew

from fusedstep._compiler import files, folder

pytestmark = pytest.mark.skipif(not folder.POSIX, reason="files have no owners and modes here")


def of_another(monkeypatch: pytest.MonkeyPatch, whose: Path) -> None:
    """Let a file or folder belong to another user, as far as this process can tell."""
    own, lstat = os.geteuid(), os.lstat

    def told(asked: Path) -> os.stat_result:
        status = lstat(asked)
        return os.stat_result([*status[:4], own + 1, *status[5:]]) if asked == whose else status

    monkeypatch.setattr(os, "lstat", told)


def opened(to: int, levels: int) -> Spoil:
    """A function that opens the folder, or one above it, to others."""
    return lambda path: [path, *path.parents][levels].chmod(0o700 | to)


def linked(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("elsewhere")), target_is_directory=True)


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("in the way")


@pytest.mark.parametrize(
    "spoil",
    [
        *(opened(0o002, levels) for levels in (0, 1, 2)),
        *(opened(0o020, levels) for levels in (0, 1, 2)),
        *(opened(0o1002, 0), linked, a_file),
    ],
)
def test_an_unfit_folder_costs_a_warning_whose_remedy_works(
    spoil: Spoil, cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "_is_private", lambda *_: False)
    files.save(NAME, CONTENT)
    spoil(cache_folder)
    assert files.load(NAME) is None
    with one_warning() as told:
        files.save(NAME, CONTENT)
        files.save("another", CONTENT)
    assert str(cache_folder) in told[0]
    follow(told[0], tmp_path)
    files.save(NAME, CONTENT)
    assert files.load(NAME) == CONTENT


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_what_belongs_to_another_user_is_unfit(
    level: int, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.save(NAME, CONTENT)
    of_another(monkeypatch, [cache_folder, *cache_folder.parents][level])
    assert files.load(NAME) is None
    with one_warning() as told:
        files.save(NAME, CONTENT)
    assert "another user" in told[0]


@pytest.mark.parametrize("target", ["{0}/real/base", "real/base", "real/../real/./base"])
def test_links_of_the_user_may_lead_there(target: str, cache_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(target.format(tmp_path))
    start_anew("XDG_CACHE_HOME", tmp_path / "link" / "further")
    files.save(NAME, CONTENT)
    assert files.load(NAME) == CONTENT
    assert (tmp_path / "real" / "base" / "further" / "fusedstep" / NAME).exists()


@pytest.mark.parametrize("mode", [0o700, 0o777, 0o1777])
def test_links_that_others_can_change_may_not(
    mode: int, cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They might lead to another folder of the user's, in which there is anything."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    (tmp_path / "open" / "link").symlink_to(cache_folder.parent)
    files.save(NAME, CONTENT)
    start_anew("XDG_CACHE_HOME", tmp_path / "open" / "link")
    if mode & stat.S_ISVTX:
        assert files.load(NAME) == CONTENT
        of_another(monkeypatch, tmp_path / "open" / "link")
    assert (files.load(NAME) == CONTENT) == (mode == 0o700)


def test_links_in_a_circle_cost_a_warning(cache_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    start_anew("XDG_CACHE_HOME", tmp_path / "a")
    assert files.load(NAME) is None
    with one_warning() as told:
        files.save(NAME, CONTENT)
    assert "circle of links" in told[0]


@pytest.mark.parametrize("mode", [0o1777, 0o1770, 0o755])
def test_a_folder_for_all_such_as_tmp_may_be_above(mode: int, cache_folder: Path) -> None:
    cache_folder.parent.chmod(mode)
    files.save(NAME, CONTENT)
    assert files.load(NAME) == CONTENT


@pytest.mark.parametrize(
    ("group", "members", "attributes", "fit"),
    [
        ("ada", [], [], True),
        ("ada", ["ada"], ["user.comment"], True),
        ("ada", ["ada", "eve"], [], False),
        ("users", [], [], False),
        ("ada", [], ["system.posix_acl_access"], False),
        (None, [], [], False),
    ],
)
def test_a_group_of_the_user_alone_may_write_above(
    group: str | None,
    members: list[str],
    attributes: list[str],
    fit: bool,
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import grp
    import pwd

    def members_of(gid: int) -> SimpleNamespace:
        if group is None:
            raise KeyError(gid)
        return SimpleNamespace(gr_name=group, gr_mem=members)

    gid = cache_folder.parent.stat().st_gid
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name="ada", pw_gid=gid))
    monkeypatch.setattr(grp, "getgrgid", members_of)
    monkeypatch.setattr(os, "listxattr", lambda path: attributes, raising=False)
    cache_folder.parent.chmod(0o775)
    if fit:
        folder.fit_folder()
    else:
        with pytest.raises(folder.UnfitError, match="others may write"):
            folder.fit_folder()


def test_folders_are_made_for_the_user_alone(cache_folder: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        start_anew("XDG_CACHE_HOME", tmp_path / "a" / "b")
        made = folder.fit_folder()
    finally:
        os.umask(before)
    for path in (made, made.parent, made.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("base", ["/dev/null", "/dev/full", "~nobody of this name/x", "x" * 300])
def test_a_base_that_is_no_folder_costs_a_warning(
    base: str, cache_folder: Path, tmp_path: Path
) -> None:
    start_anew("XDG_CACHE_HOME", base)
    assert files.load(NAME) is None
    with one_warning() as told:
        files.save(NAME, CONTENT)
    assert base in told[0]
    follow(told[0], tmp_path)
    files.save(NAME, CONTENT)
    assert files.load(NAME) == CONTENT


def test_a_user_without_a_home_is_told_of_a_remedy(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    folder.wanted.cache_clear()
    assert files.load(NAME) is None
    with one_warning() as told:
        files.save(NAME, CONTENT)
    follow(told[0], tmp_path)
    files.save(NAME, CONTENT)
    assert files.load(NAME) == CONTENT


def test_a_folder_that_vanishes_is_made_anew(cache_folder: Path) -> None:
    files.save(NAME, CONTENT)
    shutil.rmtree(cache_folder)
    assert files.load(NAME) is None
    files.save(NAME, CONTENT)
    assert files.load(NAME) == CONTENT


def test_the_folder_may_be_above_a_current_one_that_is_gone(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    start_anew("XDG_CACHE_HOME", "near")
    assert files.load(NAME) is None
    with one_warning():
        files.save(NAME, CONTENT)
