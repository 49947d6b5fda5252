"""What pyproject.toml cannot say: the C extension, the files of an sdist, and bytes that repeat.

Two builds of the same files with the same tools have the same bytes, whenever and wherever they are
made, so that anybody can check that a wheel is what its sources say. SOURCE_DATE_EPOCH in the
environment is the time that all files are given, in seconds; without it that is the start of 1980,
the first that a zip file can hold.
"""

import gzip
import hashlib
import json
import os
import sysconfig
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist
from setuptools.errors import CompileError

FOLDERS = [".ci", ".github", "bench", "csrc", "docs", "examples", "tests"]
FILES = [".clang-format", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]

# As in .gitignore: what tests, builds and the site leave in those folders.
MADE_FOLDERS = ["docs/_build", "docs/reference/api"]
MADE_FILES = ["*.py[cod]", "*.so", "*.png"]
GALLERY, GALLERY_INDEX = "docs/examples", "docs/examples/index.md"

EPOCH = int(os.environ.setdefault("SOURCE_DATE_EPOCH", "315532800"))

# Python has no stable ABI for both of its builds before 3.15.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


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

    def make_archive(self, base_name: str, format: str, **options: Any) -> str:  # noqa: A002
        """Pack the files in their order, without the names, times and masks of this machine."""
        name = f"{base_name}.tar.gz"
        with (
            open(name, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=EPOCH) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            root = Path(options["base_dir"])
            for path in [root, *sorted(root.rglob("*"))]:
                archive.add(path, recursive=False, filter=_plain)
        return name


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = EPOCH
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


class RepeatableWheel(bdist_wheel):
    """A wheel that says what it was made of, and whose files have modes that any umask gives."""

    def write_wheelfile(self, wheelfile_base: str, **options: Any) -> None:
        super().write_wheelfile(wheelfile_base, **options)
        boms = Path(wheelfile_base, "sboms")
        boms.mkdir()
        bom = json.dumps(bill_of_materials(self.distribution.get_version()), indent=2)
        (boms / "fusedstep.cdx.json").write_text(bom + "\n", encoding="utf-8")
        for path in Path(self.bdist_dir).rglob("*"):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def bill_of_materials(version: str) -> dict[str, Any]:
    """A CycloneDX document: the package, its licence, and the sources of its extension."""
    sources = [
        {
            "type": "file",
            "name": path.as_posix(),
            "hashes": [
                {"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}
            ],
        }
        for path in sorted(Path("csrc").iterdir())
        if path.is_file()
    ]
    package = f"pkg:pypi/fusedstep@{version}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": package,
                "name": "fusedstep",
                "version": version,
                "purl": package,
                "licenses": [{"license": {"id": "MIT"}}],
                "description": "The extension is compiled from these files alone, and from the "
                "glue to Python that cffi writes. No library of others is compiled in, linked "
                "statically or brought along.",
                "components": sources,
            }
        },
        "compositions": [{"aggregate": "complete", "assemblies": [package]}],
    }


class ParallelBuild(build_ext):
    """A build that compiles several sources of the extension at a time.

    `build_ext --parallel` says how many, or else MAX_JOBS from the environment, as for torch's
    extensions, or else there is one for each CPU that this process may use. setuptools itself
    would build extensions side by side, and the sources of each one after the other.
    """

    def build_extension(self, ext: Any) -> None:
        if FREE_THREADED:
            raise CompileError(
                "this Python is a free-threaded build, and the C backend reads lists and arrays "
                "under the GIL; build it by Python's usual build"
            )
        # Python's own flags may name a folder of this machine to look for libraries in.
        linker = getattr(self.compiler, "linker_so", [])  # MSVC's has another name
        self.compiler.linker_so = [flag for flag in linker if not flag.startswith("-Wl,-rpath")]
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
    cmdclass={"bdist_wheel": RepeatableWheel, "build_ext": ParallelBuild, "sdist": WholeSdist},
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp310"}},
)
