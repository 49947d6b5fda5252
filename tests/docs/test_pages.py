"""The code on the pages of the documentation runs, and does what the pages say."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pages
import pytest
from marks import needs, needs_c
from pages import ROOT, Block

import fusedstep as fs
from fusedstep._backends.cuda import available
from fusedstep.program.main import main

PAGES = pytest.mark.parametrize("page", pages.pages(), ids=pages.name)

README = ROOT / "README.md"

COMMANDS = ("fusedstep", "pip", "pytest", "python", "sphinx-build")

EXTRAS = {
    "autograd": "autograd",
    "sklearn": "sklearn",
    "thinc": "thinc",
    "threadpoolctl": "demo",
}
"""The extra that brings a package which code on a page needs, and works without C as well."""


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = fs.get_num_threads()
    yield
    fs.set_num_threads(before)


@pytest.mark.parametrize(
    "page", [page for page in pages.pages() if pages.runnable(page, None)], ids=pages.name
)
def test_the_code_does_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # for what it saves
    pages.run(page)


@needs_c
@pytest.mark.parametrize(
    "page", [page for page in pages.pages() if pages.runnable(page, "jax")], ids=pages.name
)
def test_the_code_for_jax_does_what_the_page_says(page: Path) -> None:
    needs("jax", "jax")
    needs("optax", "others")
    pages.run(page, "jax")


@pytest.mark.parametrize(
    "page", [page for page in pages.pages() if pages.runnable(page, "torch")], ids=pages.name
)
def test_the_code_for_torch_does_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    needs("torch", "torch")
    pages.run(page, "torch")


@pytest.mark.parametrize(
    ("package", "page"),
    [
        (package, page)
        for package in EXTRAS
        for page in pages.pages()
        if pages.runnable(page, package)
    ],
    ids=lambda each: each if isinstance(each, str) else pages.name(each),
)
def test_the_code_for_a_package_does_what_the_page_says(package: str, page: Path) -> None:
    needs(package, EXTRAS[package])
    pages.run(page, package)


@pytest.mark.parametrize(
    "page", [page for page in pages.pages() if pages.runnable(page, "cuda")], ids=pages.name
)
def test_the_code_for_a_device_does_what_the_page_says(page: Path) -> None:
    """On the device, or else in Numba's simulator, in a process of its own."""
    simulated = {} if available.why_missing() is None else {"NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(
        [sys.executable, pages.__file__, pages.name(page), "cuda"],
        capture_output=True,
        text=True,
        env={**os.environ, **simulated},
    )
    assert done.returncode == 0, done.stderr


def test_what_is_wrong_on_a_page_is_found(tmp_path: Path) -> None:
    def wrong(text: str) -> str:
        page = tmp_path / "page.md"
        page.write_text(text, "utf-8")
        with pytest.raises(AssertionError) as error:
            pages.run(page)
        return str(error.value)

    assert "print(1 + 1)  # 3 printed 2" in wrong("```python\nprint(1 + 1)  # 3\n```\n")
    assert "printed:\n2" in wrong("```python\nprint(1 + 1)\n```\n```text\n3\n```\n")
    assert "does not say" in wrong("```python\nprint(1 + 1)\n```\n")
    assert "Expected:\n    3" in wrong("```pycon\n>>> 1 + 1\n3\n```\n")


# ---- the README ----


def test_the_readme_takes_five_minutes() -> None:
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1200


def test_the_test_command_stands_on_a_line_of_its_own() -> None:
    """The check of the whole repository takes it from there."""
    lines = [line for block in pages.blocks(README) for line in block.text.splitlines()]
    assert lines.count("pip install '.[test]' && pytest") == 1
    assert README.read_text("utf-8").count("pip install '.[test]'") == 1


# ---- what pages name ----


def test_every_option_is_explained() -> None:
    guide = (ROOT / "docs" / "guide" / "optimizers.md").read_text("utf-8")
    for name in fs.optimizers.__all__:
        for argument in inspect.signature(getattr(fs, name)).parameters:
            assert argument == "params" or f"`{argument}" in guide, argument


def test_every_example_is_in_the_gallery() -> None:
    gallery = (ROOT / "docs" / "examples" / "index.md").read_text("utf-8")
    for script in (ROOT / "examples").glob("*.py"):
        assert f"](../../examples/{script.name})" in gallery
        assert re.search(f"^{script.stem}$", gallery, re.MULTILINE)


@PAGES
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def anchors(page: Path) -> list[str]:
    """The names that GitHub and MyST give to headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


@PAGES
def test_commands_are_those_that_there_are(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self: argparse.ArgumentParser, *arguments: Any) -> None:
        parse(self, *arguments)
        sys.exit()  # before anything runs

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    for line in shown_commands(page):
        for command in line.split("&&"):
            check_command([word for word in shlex.split(command) if not is_setting(word)])


def shown_commands(page: Path) -> Iterator[str]:
    """The lines of shell blocks, and code within sentences that begins with a command."""
    for block in pages.blocks(page):
        if block.language == "sh":
            yield from block.text.splitlines()
    outside = pages.FENCE.sub("", page.read_text("utf-8"))
    for code in re.findall(r"`([^`\n]+)`", outside):
        first, _, rest = code.partition(" ")
        if first in COMMANDS and rest and "--help" not in rest:
            yield code


def is_setting(word: str) -> bool:
    """Whether it sets a variable of the environment for one command."""
    return re.match(r"[A-Z_]+=", word) is not None


def check_command(words: list[str]) -> None:
    program, *arguments = words
    if program == "fusedstep":
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert not stop.value.code, words
    elif program == "pip":
        (wanted,) = [word for word in arguments if word not in ("install", ".")] or [".[]"]
        extras = re.search(r"\[(.*)\]", wanted)
        assert extras is not None, words
        assert {*extras[1].split(",")} <= {*known_extras(), ""}, words
    elif program == "pytest":
        options = argparse.ArgumentParser()
        options.add_argument("-m", choices=["slow", "cuda"])
        options.add_argument("-n", type=int)
        options.add_argument("-p", choices=["cuda_in_memory", "without_c"])
        options.add_argument("--benchmark-json")
        options.add_argument("paths", nargs="*")
        known, _ = options.parse_known_args(arguments)
        assert all((ROOT / path).exists() for path in known.paths), words
    elif program == "torchrun":
        launcher = needs("torch.distributed.run", "torch")
        with pytest.raises(SystemExit) as stop:
            launcher.get_args_parser().parse_args(arguments)
        assert not stop.value.code, words
    elif program == "python":
        assert arguments[:2] == ["-m", "fusedstep"] or (ROOT / arguments[0]).exists(), words
    else:
        assert words == ["sphinx-build", "-W", "docs", "docs/_build"], words


def known_extras() -> list[str]:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    section = re.search(
        r"^\[project\.optional-dependencies\]\n(.*?)^\[", text, re.DOTALL | re.MULTILINE
    )
    assert section is not None
    return re.findall(r"^([\w-]+) =", section[1], re.MULTILINE)


@PAGES
def test_languages_of_blocks_are_known(page: Path) -> None:
    """So that no code is left out for a word that is misspelt. Only generated code is "py"."""
    known = {"python", "pycon", "sh", "text", "{toctree}"}
    if page.name in ("cuda-kernel.md", "audit.md"):
        known.add("py")
    found: list[Block] = [*pages.blocks(page)]
    assert {block.language for block in found} <= known
