"""Write what is made from the rest of the repository: regions of pages, and whole files.

python docs/tools/regions.py            writes them
python docs/tools/regions.py --check    fails if one of them is stale

A region stands in a page between two comments with its name. REGIONS has the function that
writes the text of each.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import audits
import by_rows
import declarations
import fewer
import footprints
import in_jax
import kernel
import marked
import names
import options
import remedies
import speed

from fusedstep import functional

ROOT = Path(__file__).parent.parent.parent

REGIONS: dict[str, Callable[[], str]] = {
    "speed": lambda: speed.short(speed.results()),
    "steps": lambda: speed.steps(speed.results()),
    "rules": lambda: speed.rules(speed.results()),
    "loops": lambda: speed.loops(speed.results()),
    "whole": lambda: speed.whole(speed.results()),
    "machine": lambda: speed.caption(speed.results().machine),
    "checks": audits.checks,
    "audits": audits.findings,
    "audit": audits.example,
    "bytes": footprints.bytes_of_ways,
    "bytes machine": lambda: fewer.caption("bytes.json"),
    "bytes avx512 alone": fewer.speed("avx512, alone"),
    "bytes avx512 loaded": fewer.speed("avx512, loaded"),
    "bytes avx2 alone": fewer.speed("avx2, alone"),
    "bytes avx2 loaded": fewer.speed("avx2, loaded"),
    "bytes others": fewer.speed("avx512, others"),
    "quality machine": lambda: fewer.caption("quality.json"),
    "quality digits": fewer.quality("digits", fewer.TRAINED),
    "quality finetuning": fewer.quality("finetuning", fewer.TRAINED),
    "quality follow": fewer.quality("follow", fewer.FOLLOWED),
    "quality spikes": fewer.quality("spikes", {"largest update / lr": ",.1f"}),
    "quality gpt": fewer.quality("gpt", {"loss": ".4f"}),
    "rows machine": by_rows.caption,
    "rows uniform": by_rows.times("uniform"),
    "rows zipf": by_rows.times("zipf"),
    "rows large": by_rows.times("large"),
    "rows splats": by_rows.times("splats"),
    "rows line": by_rows.line,
    "audited": audits.versions,
    "options": options.classes,
    "glossary": declarations.glossary,
    "custom options": options.rules,
    "presets": options.presets,
    "schedules": options.schedules,
    "names": names.overview,
    "kernel": kernel.block,
    "mistakes": remedies.mistakes,
}

FILES: dict[str, Callable[[], str]] = {
    "docs/images/memory.svg": footprints.picture,
    "docs/images/speed.svg": lambda: speed.picture(speed.results()),
    "src/fusedstep/functional.py": declarations.functional,
    "src/fusedstep/jax/optimizers.py": in_jax.text,
}


def pages(root: Path) -> Iterator[Path]:
    """All pages of the documentation that are kept in the repository."""
    yield root / "README.md"
    for path in sorted((root / "docs").rglob("*.md")):
        if "_build" not in path.parts:
            yield path


def stale(root: Path) -> Iterator[tuple[Path, str]]:
    """The files that are not what they would be if written now, and what they would be."""
    for name, write in FILES.items():
        path, new = root / name, write()
        if not path.exists() or path.read_text("utf-8") != new:
            yield path, new
    made: dict[str, str] = {}
    for path in pages(root):
        text = path.read_text("utf-8")
        for name in marked.regions(text):
            if name not in REGIONS:
                raise ValueError(f"{path}: the region {name!r} is unknown; add it to REGIONS")
            made.setdefault(name, REGIONS[name]())
        new = marked.filled(text, made)
        if new != text:
            yield path, new
    if missing := [name for name in REGIONS if name not in made]:
        raise ValueError(f"no page has the regions {missing}; mark a place for each")


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if a file is stale")
    checking = parser.parse_args(argv).check
    status = 0
    for path, new in stale(root):
        name = path.relative_to(root)
        if checking:
            print(f"{name} is stale: run `python docs/tools/regions.py`")
            status = 1
        else:
            path.write_text(new, "utf-8")
            print(f"{name} is written")
            importlib.reload(functional)  # the overview of names, written later, lists it
    return status


if __name__ == "__main__":
    sys.exit(main())
