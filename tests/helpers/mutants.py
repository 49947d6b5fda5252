"""Mutants of the arithmetic: each has one slip in it, and the tests have to find it.

    python tests/helpers/mutants.py                          all files
    python tests/helpers/mutants.py --file csrc/rules.h
    python tests/helpers/mutants.py --file src/fusedstep/rules.py --function yogi

It prints the mutants of each file, how many were killed, and those that survive: with the reason
for which they are no slip at all, from mutants.txt, or as a gap in the tests. It fails if there is
a gap.

A mutant is tried in a child of this process, by the smallest set of tests that should see it; the
child has a process group of its own, of which nothing is left afterwards. The mutants of C are all
compiled at once, and a variable says which is in force; of the instruction sets there is the
baseline alone.
"""

from __future__ import annotations

import argparse
import ast
import ctypes
import importlib.util
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from mutations import Letters, in_c, mutants, parse_c

ROOT = Path(__file__).parents[2]
REASONS = Path(__file__).with_suffix(".txt")
LIMIT = 60
"""Seconds after which a mutant that does not end counts as killed."""

BITS = ["tests/numerics/test_bits.py", "-k"]
AVERAGE = ["tests/core/test_request_bits.py", "-k", "baseline and sgd-ema"]

OF_RULES = {
    "gradient": [
        *("tests/core/test_request_bits.py", "tests/numerics/test_bits.py", "-k"),
        "baseline and (sgd-scale or sgd-value or sgd-norm or sgd-l1 or sgd-decay or sgd-all"
        " or sgd-maximize or zeros)",
    ],
    "sign": [*BITS, "baseline and momentum-l1"],
    "sgd": [*BITS, "sizes and baseline and sgd"],
    "momentum": [*BITS, "sizes and baseline and momentum and not rmsprop and not large"],
    "nesterov": [*BITS, "sizes and baseline and nesterov and not large"],
    "adagrad": [*BITS, "sizes and baseline and adagrad and not large"],
    "rmsprop": [*BITS, "sizes and baseline and rmsprop and not large"],
    "adam": [*BITS, "baseline and not large and not adamw and (zeros or adam)"],
    "adamw": [*BITS, "sizes and baseline and adamw and not large"],
    "adam_rearranged": ["tests/sklearn/test_rules.py", "-k", "c-float and moments and not 40001"],
    "average": AVERAGE,
}
"""The tests for a function of rules.h, against reference.py."""

OF_SHARED = {"averages": "lion", "decay": "nadam"}
"""The cases of custom rules that see functions which several of them share."""


class File(NamedTuple):
    """A file with arithmetic, the functions of it that have some, and the tests that see it."""

    path: str
    functions: str
    """A pattern of their names."""
    tests: tuple[str, ...]
    """Arguments of pytest, with `{}` for the rule's name; none: `OF_RULES` has them."""


FILES = [
    File("csrc/rules.h", ".*", ()),
    File(
        "src/fusedstep/_numerics/reference.py", ".*", ("tests/numerics/test_scalar.py", "-k", "{}")
    ),
    File("src/fusedstep/_numerics/scalar.py", ".*", ("tests/numerics/test_scalar.py", "-k", "{}")),
    File("src/fusedstep/_numerics/coefficients.py", ".*", ("tests/numerics/test_scalars.py",)),
    File(
        "src/fusedstep/optimizers.py",
        r"\w+_(constants|scalars)|scalars_at_rate|momentum_rates",
        ("tests/numerics/test_scalars.py",),
    ),
    File(
        "src/fusedstep/rules.py",
        r"\w+_scalars|averages|decay|momentum_product|[A-Z]\w+",
        ("tests/test_rules.py", "-k", "(papers and numpy or zero) and {}"),
    ),
]


class Mutant(NamedTuple):
    file: File
    function: str
    line: int
    original: str
    told: str
    """The slip, in words."""
    text: str
    """The file with the mutant, or the number by which C knows it."""

    @property
    def name(self) -> str:
        return f"{self.file.path}: {self.function}: {self.original}: {self.told}"


# ---- Python ----


def numbers_of(function: ast.FunctionDef) -> list[str]:
    """The names of a function that stand for numbers or arrays."""
    names = {x.id for x in ast.walk(function) if isinstance(x, ast.Name) and stores(x)}
    arguments = {x.arg for x in (*function.args.args, *function.args.kwonlyargs)}
    return sorted((names | arguments) - {"h", "hyper", "inside", "values"})


def stores(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def expressions(function: ast.FunctionDef) -> Iterator[ast.expr]:
    """The expressions of a function's statements."""
    for node in ast.walk(function):
        match node:
            case ast.Assign(value=value) | ast.AugAssign(value=value) | ast.If(test=value):
                yield value
            case ast.Return(value=ast.expr() as value):
                yield value


def of_python(file: File, function_named: str) -> Iterator[Mutant]:
    source = (ROOT / file.path).read_bytes()
    lines = source.splitlines(keepends=True)
    starts = [sum(map(len, lines[:at])) for at in range(len(lines) + 1)]
    for function in ast.parse(source).body:
        if not isinstance(function, ast.FunctionDef):
            continue
        if not re.fullmatch(file.functions, function.name):
            continue
        if function_named not in function.name:
            continue
        letters = Letters.of(function, numbers_of(function))
        for each in expressions(function):
            assert each.end_lineno is not None
            assert each.end_col_offset is not None
            begin = starts[each.lineno - 1] + each.col_offset
            end = starts[each.end_lineno - 1] + each.end_col_offset
            original = " ".join(source[begin:end].decode().split())
            seen = {ast.unparse(each)}
            for other, told in mutants(each, letters):
                text = ast.unparse(ast.fix_missing_locations(other))
                if text not in seen:
                    seen.add(text)
                    whole = source[:begin] + f"({text})".encode() + source[end:]
                    yield Mutant(file, function.name, each.lineno, original, told, whole.decode())
        yield from of_assigning(file, function, source, starts)


def of_assigning(
    file: File, function: ast.FunctionDef, source: bytes, starts: list[int]
) -> Iterator[Mutant]:
    """Mutants of `-=` and its like."""
    for node in ast.walk(function):
        if isinstance(node, ast.AugAssign):
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[node.value.lineno - 1] + node.value.col_offset
            middle = source[begin:end].decode()
            for sign in "+-*/":
                text = re.sub(r"[-+*/]=", f"{sign}=", middle)
                if text != middle:
                    whole = source[:begin] + text.encode() + source[end:]
                    told = f"becomes {sign}="
                    yield Mutant(file, function.name, node.lineno, middle, told, whole.decode())


# ---- C ----

FUNCTION = re.compile(r"(?:RULE\((\w+)\)|real FN\((\w+)\)\([^)]*\)) \{")
CONDITION = re.compile(r"if \((.*)\)(?: \{)?$")
RETURN = re.compile(r"return (.+?);")
DECLARED = re.compile(r"\breal (\w[^;(]*);")


def spans(line: str) -> Iterator[tuple[int, int]]:
    """Where expressions stand in a line of C."""
    for pattern in (CONDITION, RETURN):
        if match := pattern.search(line):
            yield match.span(1)
            return
    if not line.rstrip().endswith(";"):
        return
    depth, begin = 0, -1
    for at, sign in enumerate(line):
        depth += (sign in "([") - (sign in ")]")
        if sign == "=" and line[at - 1] == " " and line[at + 1] == " ":
            begin = at + 2
        if depth == 0 and sign in ",;" and begin >= 0:
            yield begin, at
            begin = -1


def of_c(file: File, function_named: str, into: Path) -> Iterator[Mutant]:
    """The mutants of C, which stand all together in the file `into`."""
    text = (ROOT / file.path).read_text("utf-8")
    end = text.index("/* Every kernel")
    lines, made, number = text[:end].splitlines(), [], 0
    name, names = "", ["p", "g"]
    for at, line in enumerate(lines, 1):
        if match := FUNCTION.search(line):
            name, names = match[1] or match[2], ["p", "g"] if match[1] else ["p"]
            names += ["g"] if name == "gradient" else ["ema"] if name == "average" else []
        for declared in DECLARED.findall(line):
            names += re.findall(r"(?:^|, )(\w+)(?= =|,|$)", declared)
        changed, past = "", 0
        members = sorted(set(re.findall(r"\bh\.(\w+)", body_of(text, name)))) if name else []
        letters = Letters(sorted(set(names)), members, [])
        for begin, stop in spans(line) if name and not line.startswith(("#", " *", "/*")) else ():
            tree = parse_c(line[begin:stop])
            choice, seen = in_c(tree), {in_c(tree)}
            for other, told in mutants(tree, letters):
                if in_c(other) in seen or function_named not in name:
                    continue
                seen.add(in_c(other))
                number += 1
                choice = f"(fs_mutant == {number} ? {in_c(other)} : {choice})"
                yield Mutant(file, name, at, line[begin:stop].strip(), told, str(number))
            changed += line[past:begin] + choice
            past = stop
        made.append(changed + line[past:])
    into.write_text("extern int fs_mutant;\n" + "\n".join(made) + "\n" + text[end:], "utf-8")


def body_of(text: str, name: str) -> str:
    """The text of a function of rules.h."""
    begin = next(m.start() for m in FUNCTION.finditer(text) if name in (m[1], m[2]))
    following = FUNCTION.search(text, begin + 1)
    return text[begin : following.start() if following else None]


def build(folder: Path) -> None:
    """The package with a rules.h that holds all mutants, in the baseline alone."""
    shutil.copytree(ROOT / "src" / "fusedstep", folder / "fusedstep", symlinks=True)
    for old in (folder / "fusedstep").glob("_engine*.so"):
        old.unlink()
    csrc = folder / "csrc"
    dispatch = (csrc / "dispatch.c").read_text("utf-8")
    (csrc / "dispatch.c").write_text(dispatch.replace("#ifdef __x86_64__", "#if 0"), "utf-8")
    common = (csrc / "common.h").read_text("utf-8")
    inlined = "inline __attribute__((always_inline))"  # or all mutants are compiled in each kernel
    assert inlined in common
    kept = common.replace(inlined, "__attribute__((noinline, unused))")
    (csrc / "common.h").write_text(kept, "utf-8")
    (csrc / "mutant.c").write_text(
        '__attribute__((visibility("default"))) int fs_mutant;\n', "utf-8"
    )
    made = runpy.run_path(str(ROOT / "csrc" / "ffi_build.py"))
    made["ffi"].emit_c_code(str(csrc / "_engine.c"))
    includes = [str(csrc), np.get_include(), sysconfig.get_path("include")]
    flags = [*made["FLAGS"], "-O1", "-w", "-fPIC", *(f"-I{each}" for each in includes)]
    objects = []
    for source in sorted(csrc.glob("*.c")):
        if source.name not in ("isa_avx2.c", "isa_avx512.c"):
            objects.append(str(source.with_suffix(".o")))
            run(["gcc", *flags, "-c", str(source), "-o", objects[-1]])
    library = str(folder / "fusedstep" / "_engine.abi3.so")
    links = ["-lm", "-ldl", "-lpthread", *made["LINK_FLAGS"]]
    run(["gcc", "-shared", *objects, "-o", library, *links])


def run(command: Sequence[str]) -> None:
    """Run a command, and leave nothing of it behind if this process is told to end."""
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            status = process.wait()
        finally:
            end(process.pid)
    if status:
        raise subprocess.CalledProcessError(status, command)


def end(group: int) -> None:
    """Kill what is left of a process group."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


# ---- trying them ----


def tests_of(mutant: Mutant) -> list[str]:
    """Arguments of pytest for the tests that should see a mutant."""
    if not mutant.file.tests:
        return OF_RULES[mutant.function]
    if mutant.function == "momentum_product":
        return ["tests/test_rules.py", "-k", "product"]
    if mutant.file.path.endswith("/rules.py") and mutant.function[0].islower():
        title = mutant.function.removesuffix("_scalars")
        return ["tests/numerics/test_rule_scalars.py", "-k", OF_SHARED.get(title, title)]
    return [each.format(mutant.function.lower()) for each in mutant.file.tests]


def put_in_force(mutant: Mutant, package: Path) -> None:
    """Have this process compute by a mutant."""
    if mutant.file.path.endswith(".h"):
        library = ctypes.CDLL(str(package / "fusedstep" / "_engine.abi3.so"))
        ctypes.c_int.in_dll(library, "fs_mutant").value = int(mutant.text)
        return
    name = mutant.file.path.removeprefix("src/").removesuffix(".py").replace("/", ".")
    module = importlib.import_module(name)
    if mutant.function[0].isupper():  # a custom rule, which was read when it was declared
        changed = package / "rules_mutant.py"
        changed.write_text(mutant.text, "utf-8")
        spec = importlib.util.spec_from_file_location("fusedstep.rules_mutant", changed)
        assert spec is not None
        assert spec.loader is not None
        other = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(other)
        declared = vars(other)[mutant.function]._declaration  # noqa: SLF001
        setattr(vars(module)[mutant.function], "_declaration", declared)  # noqa: B010
        return
    body = ast.parse(mutant.text).body
    found: list[ast.stmt] = [
        x for x in body if isinstance(x, ast.FunctionDef) and x.name == mutant.function
    ]
    names = dict(vars(module))
    exec(compile(ast.Module(found, []), mutant.file.path, "exec"), names)
    vars(module)[mutant.function].__code__ = names[mutant.function].__code__


class Trial:
    """A plugin of pytest that runs the tests it has found once for each mutant, in a child."""

    def __init__(self, package: Path, tried: Sequence[Mutant], show: bool) -> None:
        self.package = package
        self.tried = tried
        self.show = show
        self.survivors: list[Mutant] = []
        self.is_child = False
        self.is_done = False

    def pytest_runtestloop(self, session: Any) -> bool:
        if not session.items or not self.survives(session, None):
            return True
        for mutant in self.tried:
            alive = self.survives(session, mutant)
            if alive:
                self.survivors.append(mutant)
            if self.show:
                told = "survives" if alive else "killed"
                print(f"{told:8} {mutant.line}: {mutant.name}", file=sys.stderr, flush=True)
        self.is_done = True
        return True

    def survives(self, session: Any, mutant: Mutant | None) -> bool:
        """Whether all tests pass, in time."""
        child = os.fork()
        if child == 0:
            self.is_child = True
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.alarm(LIMIT)
            try:
                if mutant is not None:
                    put_in_force(mutant, self.package)
                for at, item in enumerate(session.items):
                    following = session.items[at + 1] if at + 1 < len(session.items) else None
                    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            except BaseException:
                os._exit(1)
            os._exit(0)
        try:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            end(child)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if self.is_child and report.failed:
            os._exit(1)


def reasons() -> dict[str, str]:
    """The reason for which each mutant in mutants.txt is no slip, by its name."""
    found, reason = {}, ""
    for line in REASONS.read_text("utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            reason = line
        elif line.startswith(" "):
            found[line.strip()] = reason
    return found


def surviving(package: Path, all_mutants: Sequence[Mutant], show: bool) -> list[Mutant]:
    """The mutants that no test kills."""
    survivors = []
    chosen: dict[tuple[str, ...], list[Mutant]] = {}
    for mutant in all_mutants:
        chosen.setdefault((*tests_of(mutant),), []).append(mutant)
    for tests, tried in chosen.items():
        trial = Trial(package, tried, show)
        options = ["-p", "no:cacheprovider", "-p", "no:terminal"]
        pytest.main([*options, *tests], plugins=[trial])
        if not trial.is_done:
            raise RuntimeError(f"no tests, or they fail without a mutant, or an end: {tests}")
        survivors += trial.survivors
    return sorted(survivors, key=lambda mutant: mutant.line)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--file", default="", help="a part of a file's path")
    parser.add_argument("--function", default="", help="a part of a function's name")
    parser.add_argument("--print", action="store_true", help="print each mutant")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.chdir(ROOT)
    os.environ.update(FUSEDSTEP_NUM_THREADS="1", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    os.environ.pop("PYTEST_ADDOPTS", None)
    files = [file for file in FILES if arguments.file in file.path]
    known, gaps, lines = reasons(), 0, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        of_files = {}
        for file in files:
            if file.path.endswith(".h"):
                shutil.copytree(ROOT / "csrc", folder / "csrc")
                of_files[file] = [*of_c(file, arguments.function, folder / file.path)]
                build(folder)
            else:
                of_files[file] = [*of_python(file, arguments.function)]
        sys.path[:0] = [str(folder), str(ROOT / "src")]
        for file, all_mutants in of_files.items():
            survivors = surviving(folder, all_mutants, arguments.print)
            number = len(all_mutants)
            lines.append(f"{file.path}: {number} mutants, {number - len(survivors)} killed")
            for each in survivors:
                reason = known.get(each.name)
                gaps += reason is None
                told = f"{each.line}: {each.function}: {each.original}: {each.told}"
                lines.append(f"    {told}: {reason or 'NOT KILLED'}")
            print(*lines, sep="\n", flush=True)
            lines.clear()
    return 1 if gaps else 0


if __name__ == "__main__":
    sys.exit(main())
