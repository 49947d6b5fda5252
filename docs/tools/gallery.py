"""The examples as pages: each script is run for its picture and what it prints.

The pages and pictures lie beside examples/index.md, and are made anew when a script is newer.
In the table of that page each script gets its picture.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

SCRIPTS = Path(__file__).parent.parent.parent / "examples"
FOLDER = "examples"
"""Where the pages lie, in docs/."""

SECONDS = 300
"""The longest that a script may run."""


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", write)
    app.connect("doctree-read", thumbnails, priority=90)  # before links to files are followed


def write(app: Sphinx) -> None:
    newest = max(path.stat().st_mtime for path in SCRIPTS.rglob("*.py"))
    for script in sorted(SCRIPTS.glob("*.py")):
        target = Path(app.srcdir, FOLDER, f"{script.stem}.md")
        if not target.exists() or target.stat().st_mtime < newest:
            logging.getLogger(__name__).info("running %s", script.name)
            target.write_text(page(script, run(script, target.with_suffix(".png"))), "utf-8")


def run(script: Path, picture: Path) -> str:
    """Save the picture of a script, and return what it prints."""
    done = subprocess.run(
        [sys.executable, script, "--picture", picture],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{script.name} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.partition("\npicture: ")[0].strip("\n")


def page(script: Path, printed: str) -> str:
    """The docstring, the picture, what was printed, and the code."""
    described = ast.get_docstring(ast.parse(script.read_text("utf-8")))
    assert described is not None
    title = re.split(r"[:;.]", described)[0]
    return "\n".join(
        [
            f"# {title}",
            "",
            described,
            "",
            f"![The picture that {script.name} draws]({script.stem}.png)",
            "",
            "## What it prints",
            "",
            "```text",
            printed,
            "```",
            "",
            "## The script",
            "",
            f"```{{literalinclude}} ../../examples/{script.name}",
            ":language: python",
            ":start-at: from __future__ import annotations",
            "```",
            "",
        ]
    )


def thumbnails(app: Sphinx, document: nodes.document) -> None:
    """Put each script's picture over the link to it, and let both lead to its page."""
    if app.env.docname != f"{FOLDER}/index":
        return
    for link, name in [*links(document)]:
        uri = app.builder.get_relative_uri(app.env.docname, f"{FOLDER}/{name}")
        picture = nodes.image(uri=f"{name}.png", alt=f"The picture that {name}.py draws")
        picture["classes"].append("thumbnail")
        over = nodes.reference("", "", picture, refuri=uri, internal=True)
        below = nodes.reference("", "", *link.children, refuri=uri, internal=True)
        link.parent.insert(0, over)
        link.replace_self(below)


def links(document: nodes.document) -> Iterator[tuple[nodes.Element, str]]:
    """The links to scripts, and their names."""
    for entry in document.findall(nodes.entry):
        for link in entry.findall(lambda node: "reftarget" in getattr(node, "attributes", {})):
            path = Path(link["reftarget"])
            if path.parent.name == SCRIPTS.name and path.suffix == ".py":
                yield link, path.stem
                break
