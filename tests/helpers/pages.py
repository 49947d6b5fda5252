"""The pages of the documentation, and the code in them, run as a reader would.

python tests/helpers/pages.py docs/guide/gpu.md cuda     runs what a page marks as in need of CUDA

The Python of a page is one script, block after block. What a page says of a `print` stands behind
it as a comment, or after the block as text; sessions with `>>>` are doctests. "..." stands for
anything.
"""

from __future__ import annotations

import builtins
import doctest
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent.parent

FENCE = re.compile(
    r"^(?:<!-- needs: (?P<needs>\w+) -->\n)?```(?P<language>[\w{}-]*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
SAID = re.compile(r"\)  # (.+)$")
"""The output that a line states for its `print`."""


class Block(NamedTuple):
    language: str
    text: str
    line: int
    """The number of lines before it."""
    needs: str | None
    """The need of the block beside the package: "cuda"."""


def pages() -> list[Path]:
    """The pages that are kept in the repository: the others are made when the site is built."""
    made = {f"docs/examples/{script.stem}.md" for script in (ROOT / "examples").glob("*.py")}
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if "_build" not in page.parts and name(page) not in made]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = page.read_text("utf-8")
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start("text"))
        yield Block(found["language"], found["text"], line, found["needs"])


def runnable(page: Path, needs: str | None) -> list[Block]:
    """The blocks that are run, each followed by what it prints."""
    languages = ("python", "pycon", "text")
    return [each for each in blocks(page) if each.needs == needs and each.language in languages]


def run(page: Path, needs: str | None = None) -> dict[str, Any]:
    """Run the page's code, compare what it prints with what the page says, return its names."""
    chosen = runnable(page, needs)
    lines = [""] * len(page.read_text("utf-8").splitlines())
    for block in chosen:
        if block.language == "python":
            code = block.text.splitlines()
            lines[block.line : block.line + len(code)] = code
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "page.py"  # rules of `fs.rule` are read from their source
        script.write_text("\n".join(lines) + "\n", "utf-8")
        printer = Printer(lines)
        names: dict[str, Any] = {"__name__": page.stem, "print": printer}
        for block in chosen:
            if block.language == "python":
                printer.check_rest()
                exec(compile("\n" * block.line + block.text, str(script), "exec"), names)
            elif block.language == "pycon":
                session(block, page, names)
            elif printer.rest:
                printer.check_text(block.text)
        printer.check_rest()
    del names["print"]
    return names


class Printer:
    """A `print` that compares what it is given with what the page says."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.rest: list[str] = []
        """Lines that were printed without a comment: a block of text has to follow."""

    def __call__(self, *values: object) -> None:
        text = " ".join(map(str, values))
        line = self.lines[sys._getframe(1).f_lineno - 1]  # noqa: SLF001
        said = SAID.search(line)
        if said is None:
            self.rest.append(text)
        else:
            assert agrees(text, said[1]), f"{line.strip()} printed {text}"

    def check_text(self, text: str) -> None:
        shown = "\n".join(self.rest)
        assert agrees(shown, text.rstrip("\n")), f"printed:\n{shown}"
        self.rest = []

    def check_rest(self) -> None:
        assert not self.rest, f"the page does not say that this is printed: {self.rest}"


def agrees(found: str, said: str) -> bool:
    pattern = re.escape(said).replace(r"\.\.\.", ".*")
    return re.fullmatch(pattern, found, re.DOTALL) is not None


def session(block: Block, page: Path, names: dict[str, Any]) -> None:
    """Run a block of `>>>` lines as a doctest, over the names of the page."""
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    parsed = doctest.DocTestParser().get_doctest(
        block.text, {**names, "print": builtins.print}, page.name, str(page), block.line
    )
    report: list[str] = []
    runner.run(parsed, out=report.append, clear_globs=False)
    assert not runner.failures, "".join(report)
    names.update({key: value for key, value in parsed.globs.items() if key != "print"})


def simulate() -> None:
    """Let `cuda.to_device` of Numba's simulator return what has a device array's interface."""
    from device import SIMULATED, Plain
    from numba import cuda

    class Array(Plain):
        def copy_to_host(self) -> Any:
            return self.owner.copy()

    def to_device(array: Any) -> Array:
        copied = array.copy()
        return Array(copied, copied.ctypes.data, copied)

    if SIMULATED:
        cuda.to_device = to_device


if __name__ == "__main__":
    simulate()
    run(ROOT / sys.argv[1], sys.argv[2])
