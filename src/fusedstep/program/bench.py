"""The subcommand `bench`: measure, keep the results, draw them, print them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from fusedstep._backends.info import info
from fusedstep._backends.threads import get_num_threads, set_num_threads
from fusedstep.benchmarks import budget, json_file
from fusedstep.benchmarks.compare import compare
from fusedstep.benchmarks.picture import draw
from fusedstep.benchmarks.problem import CASES
from fusedstep.benchmarks.records import Results
from fusedstep.benchmarks.tables import explain, explain_changes, tables, tabulate_changes
from fusedstep.program import output
from fusedstep.program.arguments import add_dtype, add_picture, file_ending_in, seconds, whole
from fusedstep.program.errors import DRAWING, CommandError, report, require, unwritten
from fusedstep.program.progress import progress

DESCRIPTION = (
    "Time steps of one tensor of many sizes, of thousands of small ones, of real networks, and "
    "between matrix products. Compare them with the memory's limit, with the rule in plain NumPy, "
    "and with torch, optax and DeepSpeed where they are installed. Print a table, draw a picture "
    "and keep the results as JSON."
)

KEPT = "fusedstep-bench.json"
"""File of the results, by default."""

BESIDE = "fusedstep-bench-new.json"
"""File of the results if they are compared with those in `KEPT`, by default."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=54.0,
        help="about how long the run may take (default: %(default)g)",
    )
    add_dtype(parser)
    parser.add_argument(
        "--optimizer",
        choices=[*CASES],
        default="adamw",
        help="the optimizer whose steps are timed (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=whole(least=1),
        metavar="N",
        help="number of threads that a step may use (default: as `fusedstep info` says)",
    )
    parser.add_argument(
        "--json",
        type=file_ending_in("json"),
        metavar="PATH",
        help=f"where to keep the results (default: {KEPT}, or {BESIDE} if those are compared with)",
    )
    add_picture(parser, "fusedstep-bench.png")
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="OLD.json",
        help="show what changed since these results, which stay unless --json names them",
    )


def run(options: Namespace) -> int:
    require(DRAWING, "the benchmark")
    compared: Path | None = options.compare
    kept = options.json or unlike(compared)
    try:
        info()  # refuses an unfit environment before anything is timed
        old = json_file.read(compared) if compared else None  # before --json overwrites it
    except ValueError as error:
        raise CommandError(str(error)) from None
    try:
        results = measure(options)
    except KeyboardInterrupt:
        raise CommandError("interrupted; nothing was written") from None
    done, failed = [], []  # files come before tables, whose reader may leave the pipe
    for option, verb, path, write in (
        ("json", "kept", kept, json_file.write),
        ("picture", "drawn", options.picture, draw),
    ):
        try:
            write(results, path)
            done.append(f"{verb} in {path}")
        except OSError as error:
            failed.append(unwritten(path, error, option))
    try:
        show(results, old)
        if done:
            print(f"The results are {' and '.join(done)}")
    finally:  # errors stand below the tables, where they are seen
        for unfit in failed:
            report(unfit)
    return 1 if failed else 0


def unlike(compared: Path | None) -> Path:
    """The file of the results by default, which is not the one that they are compared with."""
    same = compared is not None and compared.resolve() == Path(KEPT).resolve()
    return Path(BESIDE if same else KEPT)


def measure(options: Namespace) -> Results:
    before = get_num_threads()
    set_num_threads(options.threads or before)
    try:
        with progress() as tell:
            return budget.run(options.optimizer, options.dtype, options.seconds, tell)
    finally:
        set_num_threads(before)


def show(results: Results, old: Results | None) -> None:
    """Print the results, and what changed since the old ones."""
    from rich.text import Text

    terminal = output.console(width=120)
    for table in tables(results, terminal):
        output.show(table, terminal)
    for line in explain(results):
        terminal.print(Text(line))
    if old is not None:
        comparison = compare(old, results)
        output.show(tabulate_changes(comparison), terminal)
        for line in explain_changes(comparison):
            terminal.print(Text(line))
