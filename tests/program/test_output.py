"""The command prints wherever its output goes."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
from marks import needs

from fusedstep.program.output import printing, replacement, show

COMMANDS = {
    "info": "info",
    "help": "--help",
    "nothing": "",
    "demo": "demo --epochs 1 --picture a.png",
    "plot-schedule": "plot-schedule constant(1) --picture a.png",
    "inspect": "inspect adamw --source",
}
every_command = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture
def folder(tmp_path: Path, extra: None) -> Path:
    needs("sklearn", "demo")
    return tmp_path


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which `fusedstep` is the command, and prints by way of a buffer."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    function = f'fusedstep() {{ "{sys.executable}" -m fusedstep "$@"; }}\n'
    return subprocess.run(
        ["bash", "-c", function + line],
        cwd=folder,
        env={**buffered, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        timeout=120,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8", "ascii:strict"])
@every_command
def test_every_encoding_will_do(command: str, encoding: str, folder: Path) -> None:
    line = "fusedstep " + " ".join(f"'{word}'" for word in COMMANDS[command].split())
    done = shell(line, folder, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding.partition(":")[0])
    assert "\\x" not in text.replace("\\x1b", "")
    if command == "demo":
        micro = " us " if encoding.startswith("ascii") else " µs "
        assert text.count(micro) == 14
        assert (folder / "a.png").exists()


@pytest.mark.skipif(os.name == "nt", reason="locales are POSIX's")
def test_the_locale_c(folder: Path) -> None:
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell("fusedstep demo --epochs 1", folder, **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("ascii").count(" us ") == 14


def test_letters_that_an_encoding_lacks() -> None:
    with printing():
        text = "12 µs, 3 ×, ε → 0, ł\udcff"
        assert text.encode("ascii", "fusedstep.letters") == rb"12 us, 3 x, eps -> 0, \u0142\udcff"
        assert text.encode("utf-8", "fusedstep.letters").endswith(b"\\udcff")
    with pytest.raises(UnicodeDecodeError):
        replacement(UnicodeDecodeError("ascii", b"\xff", 0, 1, "of a file that is read"))


def test_streams_are_left_as_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout.errors, sys.stderr.errors
    with suppress(KeyError), printing():
        assert sys.stdout.errors == sys.stderr.errors == "fusedstep.letters"
        raise KeyError
    assert (sys.stdout.errors, sys.stderr.errors) == before


@every_command
def test_nobody_need_read_it(command: str, folder: Path) -> None:
    """No stdout, a full disk, a reader that leaves at once: the picture is drawn all the same."""
    line = "fusedstep " + " ".join(f"'{word}'" for word in COMMANDS[command].split())
    done = shell(f"{line} >&-", folder)
    assert (done.returncode, done.stderr) == (0, b"")
    for end in ("> /dev/full", "| true", "| head -n 1"):
        if "full" in end and not Path("/dev/full").exists():
            continue
        (folder / "a.png").unlink(missing_ok=True)
        done = shell(f"{line} {end}", folder)
        said = "full" in end and command != "help"  # argparse itself says nothing there
        full = b"fusedstep: error: cannot print: No space left on device\n"
        assert done.stderr == (full if said else b"")
        assert (folder / "a.png").exists() == ("a.png" in line)


@pytest.mark.usefixtures("extra")
def test_a_table_too_wide_is_printed_row_by_row() -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Times", caption="in seconds")
    for name in ("name", "vs\ntorch", "[b]", ""):
        table.add_column(name, no_wrap=True)
    table.add_row("first", "1.00 ×", "", Text("slower"))
    table.add_row("[second]", "2.00 ×", "3", "")
    printed = {}
    for width in (80, 20):
        file = StringIO()
        show(table, Console(file=file, width=width))
        printed[width] = file.getvalue().splitlines()
    assert any("│ first" in line for line in printed[80])
    assert [line.rstrip() for line in printed[20]] == [
        *("Times", "", "first", "  vs torch  1.00 ×", "            slower", ""),
        *("[second]", "  vs torch  2.00 ×", "  [b]       3", "", "in seconds", ""),
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="a terminal is opened as on Linux")
@pytest.mark.parametrize("term", ["xterm", "dumb"])
@pytest.mark.parametrize("columns", ["40", "80"])
def test_no_number_is_cut_off_in_a_terminal(columns: str, term: str, folder: Path) -> None:
    line = f"stty cols {columns}; {sys.executable} -m fusedstep demo --epochs 1"
    done = shell(f'script -qec "{line}" /dev/null', folder, TERM=term, COLUMNS=columns)
    if done.returncode == 127:
        pytest.skip("util-linux's `script` is not installed")
    text = done.stdout.decode()
    assert done.returncode == 0
    assert text.count(" µs") == 14
    assert "…" not in text
