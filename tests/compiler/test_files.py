"""Files of compiled kernels: damage is noticed, strange files are not read, and none is half."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from cache_folders import CONTENT, NAME, Spoil, one_warning
from processes import python

from fusedstep._compiler import files, folder

pytestmark = pytest.mark.skipif(not folder.POSIX, reason="files have no owners and modes here")


def test_what_was_saved_is_loaded_under_its_name_alone(cache_folder: Path) -> None:
    assert files.load(NAME) is None
    files.save(NAME, CONTENT)
    assert files.load(NAME) == CONTENT
    assert [path.name for path in cache_folder.iterdir()] == [NAME]
    shutil.copy(cache_folder / NAME, cache_folder / "kernel.2")
    with one_warning() as told:
        assert files.load("kernel.2") is None
    assert f"{cache_folder / 'kernel.2'} is damaged" in told[0]


def test_any_damage_is_noticed_and_mended(cache_folder: Path) -> None:
    files.save(NAME, CONTENT)
    path = cache_folder / NAME
    sound = path.read_bytes()
    whole = int.from_bytes(sound, "big")
    flipped = [(whole ^ 1 << bit).to_bytes(len(sound), "big") for bit in range(8 * len(sound))]
    cut = [sound[:size] for size in range(len(sound))]
    for damaged in (*flipped, *cut, sound + b"\x00"):
        path.write_bytes(damaged)
        files.warned.clear()
        with one_warning() as told:
            assert files.load(NAME) is None
            assert files.load(NAME) is None
        assert f"{path} is damaged" in told[0]
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
    with one_warning() as told:
        assert files.load(NAME) is None
    assert str(cache_folder / NAME) in told[0]
    files.save(NAME, CONTENT)
    assert files.load(NAME) == CONTENT
    assert stat.S_IMODE(os.lstat(cache_folder / NAME).st_mode) == 0o600


def test_a_file_that_may_not_be_read_is_written_anew(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    files.save(NAME, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)  # root may read any
        with one_warning() as told:
            assert files.load(NAME) is None
    assert "Permission denied" in told[0]
    files.save(NAME, CONTENT)
    assert files.load(NAME) == CONTENT


def test_a_file_of_another_user_is_not_read(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.save(NAME, CONTENT)
    fstat, own = os.fstat, os.geteuid()

    def told(opened: int) -> os.stat_result:
        status = fstat(opened)
        return os.stat_result([*status[:4], own + 1, *status[5:]])

    monkeypatch.setattr(os, "fstat", told)
    with one_warning() as warning:
        assert files.load(NAME) is None
    assert f"{cache_folder / NAME} belongs to another user" in warning[0]


def test_a_folder_in_place_of_a_file_costs_a_warning(cache_folder: Path) -> None:
    (cache_folder / NAME).mkdir()
    load, save = partial(files.load, NAME), partial(files.save, NAME, CONTENT)
    for use in (load, save):
        with one_warning() as told:
            assert use() is None
            assert use() is None
        assert str(cache_folder / NAME) in told[0]
    assert len([*cache_folder.iterdir()]) == 1


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
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
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
