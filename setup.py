"""The C extension, and the files of an sdist: what pyproject.toml cannot say."""

from setuptools import setup
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


setup(cffi_modules=["csrc/ffi_build.py:ffi"], cmdclass={"sdist": WholeSdist})
