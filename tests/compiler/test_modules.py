"""Generated modules, and the files that they are kept in."""

from __future__ import annotations

from pathlib import Path

from fusedstep._compiler import modules


def test_a_module_of_other_parts_is_another(tmp_path: Path) -> None:
    """Code kept for a module's old parts is not taken for that of its new ones."""
    before, after, same = (tmp_path / f"{name}.py" for name in ("before", "after", "same"))
    before.write_text("a = 1")
    after.write_text("a = 2")
    same.write_text("a = 1")
    made = [modules.load("kernel", "b = 3", parts) for parts in (before, after, same)]
    assert [module.b for module in made] == [3, 3, 3]
    assert made[0].__file__ == made[2].__file__ != made[1].__file__
    assert modules.load("kernel", "b = 4", before).__file__ != made[0].__file__
