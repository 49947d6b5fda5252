"""The C extension, and the files of an sdist: what pyproject.toml cannot say."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

FOLDERS = [".ci", "bench", "csrc", "docs", "examples", "tests"]
FILES = [".clang-format", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md"]

# As in .gitignore: what tests, builds and the site leave in those folders.
MADE_FOLDERS = ["docs/_build", "docs/reference/api"]
MADE_FILES = ["*.py[cod]", "*.so", "*.png"]
GALLERY, GALLERY_INDEX = "docs/examples", "docs/examples/index.md"


class WholeSdist(sdist):
    """An sdist that passes its tests, and of which the site can be built."""

    def make_distribution(self) -> None:
        for folder in FOLDERS:
            self.filelist.graft(folder)
        for folder in [*MADE_FOLDERS, GALLERY]:
            self.filelist.prune(folder)
        for pattern in MADE_FILES:
            self.filelist.global_exclude(pattern)
        for file in [*FILES, GALLERY_INDEX]:
            self.filelist.include(file)
        self.filelist.sort()
        self.filelist.remove_duplicates()
        super().make_distribution()


class ParallelBuild(build_ext):
    """A build that compiles several sources of the extension at a time.

    `build_ext --parallel` says how many, or else MAX_JOBS from the environment, as for torch's
    extensions, or else there is one for each CPU that this process may use. setuptools itself
    would build extensions side by side, and the sources of each one after the other.
    """

    def build_extension(self, ext: Any) -> None:
        compile_sources = self.compiler.compile

        def compile_at_once(sources: list[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(self.jobs()) as pool:
                try:
                    done = pool.map(
                        lambda source: compile_sources([source], **options),
                        sorted(sources, key=lambda source: "isa_" not in source),  # longest first
                    )
                    return [name for names in done for name in names]
                finally:
                    pool.shutdown(cancel_futures=True)  # after an error the others are not begun

        self.compiler.compile = compile_at_once
        try:
            super().build_extension(ext)
        finally:
            self.compiler.compile = compile_sources

    def jobs(self) -> int:
        """The number of compilers that run at a time."""
        if self.parallel and self.parallel is not True:
            return int(self.parallel)
        named = os.environ.get("MAX_JOBS", "")
        if named.isdecimal() and int(named):
            return int(named)
        affine = getattr(os, "sched_getaffinity", None)
        return len(affine(0)) if affine else os.cpu_count() or 1


setup(
    cffi_modules=["csrc/ffi_build.py:ffi"],
    cmdclass={"build_ext": ParallelBuild, "sdist": WholeSdist},
)
