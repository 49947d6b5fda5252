"""Generated modules: their names, their text, and the lines that others ask for."""

from __future__ import annotations

import inspect
import linecache
import sys
from pathlib import Path

import pytest

from fusedstep._compiler import modules

PARTS = Path(__file__)


def test_a_module_of_other_parts_is_another(tmp_path: Path) -> None:
    """Code kept for a module's old parts is not taken for that of its new ones."""
    before, after, same = (tmp_path / f"{name}.py" for name in ("before", "after", "same"))
    before.write_text("a = 1")
    after.write_text("a = 2")
    same.write_text("a = 1")
    made = [modules.load("kernel", "b = 3", parts) for parts in (before, after, same)]
    assert [module.b for module in made] == [3, 3, 3]
    assert made[0].__name__ == made[2].__name__ != made[1].__name__
    assert modules.load("kernel", "b = 4", before).__name__ != made[0].__name__


def test_a_text_is_kept_for_people_and_read_from_memory(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "def double(x):\n    return 2 * x  # µ\n"
    module = modules.load("doubles", text, PARTS)
    (file,) = cache_folder.iterdir()
    assert file.name == f"{module.__name__}.py"
    assert file.read_text(encoding="utf-8") == text
    file.write_text("raise SystemExit")
    linecache.checkcache()
    assert inspect.getsource(module.double) == text
    assert module.double(3) == 6


def test_a_text_that_was_changed_is_written_anew(cache_folder: Path) -> None:
    modules.load("changed", "a = 1", PARTS)
    (file,) = cache_folder.iterdir()
    file.write_text("a = 2")
    modules.load.cache_clear()
    assert modules.load("changed", "a = 1", PARTS).a == 1
    assert file.read_text() == "a = 1"


def test_a_module_that_raises_is_made_anew(cache_folder: Path) -> None:
    """Ctrl-C while Numba compiles a module's functions ends its run half way."""
    text = "import builtins\nif not hasattr(builtins, 'once'):\n    raise KeyboardInterrupt\na = 1"
    with pytest.raises(KeyboardInterrupt):
        modules.load("interrupted", text, PARTS)
    assert not [name for name in sys.modules if name.startswith("fusedstep_interrupted")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.once", True, raising=False)
        assert modules.load("interrupted", text, PARTS).a == 1


@pytest.mark.parametrize("name", ["", "../../x", "a b\nc", "x" * 500, "最適化", "µ\0"])
def test_any_name_makes_a_name_for_files(name: str) -> None:
    unique = modules.unique(name, b"")
    assert unique.isidentifier()
    assert unique.isascii()
    assert len(unique) < 90
