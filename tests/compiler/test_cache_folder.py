"""The folder of compiled kernels: nobody else's files are read, and no fault of it is an error."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TypeAlias

import pytest
from processes import python

from fusedstep._compiler import files, folder

pytestmark = pytest.mark.skipif(not folder.POSIX, reason="files have no owners and modes here")

NAME, CONTENT = "kernel.1", b"\x00machine code\n" * 5

Spoil: TypeAlias = Callable[[Path], object]
"""A function that does something to a file, or to the folder."""

Patch: TypeAlias = pytest.MonkeyPatch


@contextmanager
def one_warning() -> Iterator[list[str]]:
    """A list to which the text of the only warning is added."""
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield told
    told += [str(each.message) for each in caught]
    assert [each.category for each in caught] == [RuntimeWarning]


def start_anew(variable: str, value: object) -> None:
    """Let the folder be found anew, as a new process does."""
    os.environ[variable] = str(value)
    folder.wanted.cache_clear()
    files.warned.clear()


# ---- files ----


def test_what_was_saved_is_loaded_under_its_name_alone(cache_folder: Path) -> None:
    assert files.load(NAME) is None
    files.save(NAME, CONTENT)
    assert files.load(NAME) == CONTENT
    assert [path.name for path in cache_folder.iterdir()] == [NAME]
    shutil.copy(cache_folder / NAME, cache_folder / "kernel.2")
    assert files.load("kernel.2") is None


def test_any_damage_is_noticed_and_mended(cache_folder: Path) -> None:
    files.save(NAME, CONTENT)
    path = cache_folder / NAME
    sound = path.read_bytes()
    whole = int.from_bytes(sound, "big")
    flipped = [(whole ^ 1 << bit).to_bytes(len(sound), "big") for bit in range(8 * len(sound))]
    cut = [sound[:size] for size in range(len(sound))]
    for damaged in (*flipped, *cut, sound + b"\x00"):
        path.write_bytes(damaged)
        assert files.load(NAME) is None
    files.save(NAME, CONTENT)
    assert files.load(NAME) == CONTENT


def moved_behind_a_link(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("elsewhere")))


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def of_a_terabyte(path: Path) -> None:
    os.truncate(path, 2**40)


@pytest.mark.parametrize(
    "spoil",
    [
        *(moved_behind_a_link, a_pipe, a_link_to_itself, endless, of_a_terabyte),
        *(lambda path, mode=mode: path.chmod(mode) for mode in (0o602, 0o620, 0o666, 0o6777)),
    ],
)
def test_a_strange_file_is_neither_read_nor_left(spoil: Spoil, cache_folder: Path) -> None:
    files.save(NAME, CONTENT)
    spoil(cache_folder / NAME)
    assert files.load(NAME) is None
    files.save(NAME, CONTENT)
    assert files.load(NAME) == CONTENT
    assert stat.S_IMODE(os.lstat(cache_folder / NAME).st_mode) == 0o600


def test_a_file_that_may_not_be_read_is_written_anew(
    cache_folder: Path, monkeypatch: Patch
) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    files.save(NAME, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)  # root may read any
        assert files.load(NAME) is None
    files.save(NAME, CONTENT)
    assert files.load(NAME) == CONTENT


def test_a_folder_in_place_of_a_file_costs_a_warning(cache_folder: Path) -> None:
    (cache_folder / NAME).mkdir()
    assert files.load(NAME) is None
    with one_warning() as told:
        files.save(NAME, CONTENT)
        files.save(NAME, CONTENT)
    assert str(cache_folder / NAME) in told[0]
    assert len([*cache_folder.iterdir()]) == 1


# ---- the folder ----


def of_another(path: Path, monkeypatch: Patch, whose: Path) -> None:
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
    spoil: Spoil, cache_folder: Path, tmp_path: Path, monkeypatch: Patch
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


def follow(warning: str, tmp_path: Path) -> None:
    """Do what a warning says: run its command, or set its variable to another folder."""
    command = re.search("`(.+)`", warning)
    if command:
        subprocess.run(command[1], shell=True, check=True)
        return
    variable = re.search(r"set (\w+) to a folder of your own", warning)
    assert variable
    tmp_path.chmod(0o700)
    start_anew(variable[1], tmp_path / "of my own")


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_what_belongs_to_another_user_is_unfit(
    level: int, cache_folder: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    files.save(NAME, CONTENT)
    of_another(cache_folder, monkeypatch, [cache_folder, *cache_folder.parents][level])
    assert files.load(NAME) is None
    with one_warning() as told:
        files.save(NAME, CONTENT)
    assert "belongs to another user" in told[0]


def test_a_file_of_another_user_is_not_read(cache_folder: Path, monkeypatch: Patch) -> None:
    files.save(NAME, CONTENT)
    fstat, own = os.fstat, os.geteuid()

    def told(opened: int) -> os.stat_result:
        status = fstat(opened)
        return os.stat_result([*status[:4], own + 1, *status[5:]])

    monkeypatch.setattr(os, "fstat", told)
    assert files.load(NAME) is None


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
    monkeypatch: Patch,
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
def test_a_base_that_is_no_folder_costs_a_warning(base: str, cache_folder: Path) -> None:
    start_anew("XDG_CACHE_HOME", base)
    assert files.load(NAME) is None
    with one_warning() as told:
        files.save(NAME, CONTENT)
    assert base in told[0]


def test_a_user_without_a_home_is_told_of_a_remedy(
    cache_folder: Path, tmp_path: Path, monkeypatch: Patch
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
    cache_folder: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    start_anew("XDG_CACHE_HOME", "near")
    assert files.load(NAME) is None
    with one_warning():
        files.save(NAME, CONTENT)


# ---- writing ----


@pytest.mark.parametrize("most", [0, 1, 31, 32, 1000])
def test_a_full_disk_costs_a_warning_and_leaves_nothing(most: int, cache_folder: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system limits no sizes of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with one_warning() as told:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            files.save(NAME, bytes(5000))
            files.save("another", bytes(5000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(cache_folder) in told[0]
    assert not [*cache_folder.iterdir()]
    assert files.load(NAME) is None


def test_an_interrupt_while_a_file_is_written_leaves_nothing(
    cache_folder: Path, monkeypatch: Patch
) -> None:
    def interrupted(*paths: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.save(NAME, CONTENT)
    assert not [*cache_folder.iterdir()]


SAVE = "from fusedstep._compiler import files\nwhile True: files.save('kernel.1', {!r} * 99_999)\n"


def test_files_are_whole_however_many_write_them_and_are_killed(cache_folder: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", SAVE.format(letter)]) for letter in (b"a", b"b")
    ]
    whole = {b"a" * 99_999, b"b" * 99_999}
    until = time.monotonic() + 60
    while files.load(NAME) is None:
        assert time.monotonic() < until
    for _ in range(300):
        assert files.load(NAME) in whole
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert files.load(NAME) in whole
    files.save(NAME, CONTENT)
    assert files.load(NAME) == CONTENT


def test_no_users_are_asked_for_where_there_are_none(tmp_path: Path) -> None:
    """Windows has neither user numbers nor some of the flags."""
    code = (
        "import os\n"
        "for name in ('geteuid', 'O_NOFOLLOW', 'O_NONBLOCK', 'O_CLOEXEC'): delattr(os, name)\n"
        "from fusedstep._compiler import files\n"
        f"files.save('kernel.1', {CONTENT!r}); print(files.load('kernel.1') == {CONTENT!r})\n"
    )
    assert python(code, XDG_CACHE_HOME=str(tmp_path), NUMBA_CACHE_DIR="").split() == ["True"]
