"""Links that Markdown pages have on the site alone: to public names, and to source files.

`fs.AdamW` in a page is a link to the page of that name. A link to a file outside of docs/, which
leads there where the repository is read, leads to a page with that file's text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from os import path
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.osutil import relative_uri

ROOT = Path(__file__).parent.parent.parent

OBJECTS = {"fs": "fusedstep", "opt": "fusedstep.Optimizer", "fusedstep": "fusedstep"}
"""Modules that the first word of a literal stands for, in the code that pages show."""

LEXERS = {".c": "c", ".h": "c", ".inc": "c", ".py": "python", ".toml": "toml", ".md": "markdown"}


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", mark_names)
    app.connect("doctree-read", mark_files, priority=100)  # before files are copied as downloads
    app.connect("missing-reference", resolve)
    app.connect("env-purge-doc", forget)
    app.connect("html-collect-pages", pages)


# ---- public names ----


def mark_names(app: Sphinx, document: nodes.document) -> None:
    for literal in [*document.findall(nodes.literal)]:
        if isinstance(literal.parent, (addnodes.pending_xref, nodes.reference, nodes.title)):
            continue
        if target := name_in(literal.astext()):
            link = addnodes.pending_xref(
                "", refdomain="py", reftype="obj", reftarget=target, refdoc=app.env.docname
            )
            literal.replace_self(link)
            link += literal


def name_in(text: str) -> str | None:
    """The public name that a piece of code begins with: `fs.AdamW(params)`."""
    found = re.match(r"(\w+)((?:\.\w+)+)(\(.*\))?$", text)
    return OBJECTS[found[1]] + found[2] if found and found[1] in OBJECTS else None


def resolve(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Names in docstrings that are relative to the package."""
    if node["reftype"] != "obj":
        return None
    target = re.sub(r"\(.*\)$", "", node["reftarget"])
    python = env.get_domain("py")
    for name in (f"fusedstep.{target}", target):
        found = python.resolve_xref(
            env, node["refdoc"], app.builder, "obj", name, addnodes.pending_xref(), content
        )
        if found is not None:
            return found
    return None


# ---- files ----


def mark_files(app: Sphinx, document: nodes.document) -> None:
    used = vars(app.env).setdefault("fusedstep_files", {})
    here = app.env.docname
    for link in [*document.findall(is_link)]:
        found = (Path(app.srcdir, here).parent / link["reftarget"]).resolve()
        if link["refdomain"] == "doc":  # Markdown, whose ending is cut off
            found = found.with_name(f"{found.name}.md")
        if found.is_relative_to(app.srcdir) or not found.is_relative_to(ROOT):
            continue
        text = nodes.inline("", "", *link.children[0].children)
        if found.is_file():
            name = found.relative_to(ROOT).as_posix()
            used.setdefault(here, set()).add(name)
            uri = relative_uri(app.builder.get_target_uri(here), f"source/{name}.html")
            link.replace_self(nodes.reference("", "", text, refuri=uri, internal=True))
        elif found.is_dir():
            link.replace_self(text)


def is_link(node: nodes.Node) -> bool:
    if isinstance(node, addnodes.download_reference):
        return True
    return isinstance(node, addnodes.pending_xref) and node["reftype"] == "myst"


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    vars(env).setdefault("fusedstep_files", {}).pop(docname, None)


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for each file that some page links to."""
    used: dict[str, set[str]] = vars(app.env).get("fusedstep_files", {})
    for name in sorted({name for names in used.values() for name in names}):
        text = (ROOT / name).read_text("utf-8")
        lexer = LEXERS.get(path.splitext(name)[1], "text")
        code = app.builder.highlighter.highlight_block(text, lexer)
        title = html.escape(name)
        yield f"source/{name}", {"title": title, "body": f"<h1>{title}</h1>{code}"}, "page.html"
