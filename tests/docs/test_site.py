"""The documentation builds as a site, without a warning, with a page for each public name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import symbols
from marks import needs
from pages import ROOT

for package in ("sphinx", "furo", "myst_parser", "matplotlib", "sklearn"):
    needs(package, "docs")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    done = subprocess.run(
        [*command, "-d", folder / "trees", ROOT / "docs", folder / "html"],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


def test_every_public_name_has_a_page(site: Path) -> None:
    for name, thing in symbols.every().items():
        text = (site / "reference" / "api" / f"{name}.html").read_text("utf-8")
        assert f"<h1>{symbols.shown(name)}" in text
        for part in members(name, thing):
            assert f'id="{part}"' in text, part


def members(name: str, thing: Any) -> list[str]:
    """The names to be described on a name's page: itself, and the parts that a class adds."""
    if not isinstance(thing, type):
        return [f"module-{name}" if not callable(thing) else name]
    own = symbols.members(thing).keys() - symbols.members(thing.__mro__[1]).keys()
    return [name, *(f"{name}.{part}" for part in own)]


def test_every_example_has_a_page_with_its_picture(site: Path) -> None:
    index = (site / "examples" / "index.html").read_text("utf-8")
    for script in (ROOT / "examples").glob("*.py"):
        page = (site / "examples" / f"{script.stem}.html").read_text("utf-8")
        assert f"{script.stem}.png" in page
        assert f"{script.stem}.png" in index
        assert f'href="{script.stem}.html"' in index
        assert (site / "_images" / f"{script.stem}.png").exists()


def test_names_in_pages_are_links(site: Path) -> None:
    text = (site / "guide" / "optimizers.html").read_text("utf-8")
    assert 'href="../reference/api/fusedstep.AdamW.html#fusedstep.AdamW"' in text
    assert 'href="../reference/api/fusedstep.Optimizer.html#fusedstep.Optimizer.state"' in text


def test_links_to_files_lead_to_their_text(site: Path) -> None:
    text = (site / "contributing" / "optimizer.html").read_text("utf-8")
    assert 'href="../source/csrc/rules.h.html"' in text
    assert "THE update rules in C" in (site / "source" / "csrc" / "rules.h.html").read_text("utf-8")


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    """No page loads a script, a style, a font or a picture from another host."""
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert not re.search(r'\bsrc="(https?:)?//', text), page
        assert not re.search(r'<link[^>]*href="(https?:)?//', text), page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", style.read_text("utf-8")), style
