"""The subcommand `audit`: check any torch, Keras or optax optimizer, and show what fails."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from fusedstep.audits.audit import NO_RULE, TIMEOUT, RefusedError, audit
from fusedstep.audits.expression import EXAMPLE, Call, ExpressionError, parse
from fusedstep.audits.records import FAILS, Report
from fusedstep.audits.tables import below, plain_table, rich_table
from fusedstep.benchmarks import json_file
from fusedstep.program import output
from fusedstep.program.arguments import file_ending_in, seconds
from fusedstep.program.errors import UsageError, unwritten
from fusedstep.program.progress import progress

DESCRIPTION = (
    "Check an optimizer of torch, Keras, optax, or of a package that is built on torch: that it "
    "follows its rule, resumes, keeps elements apart, steps views and writes nowhere else. Print "
    "what passes and what fails, with a program of a few lines for each failure. "
    f"Example: {EXAMPLE}. The exit status is 0 if all that is judged passes, 1 if a check fails, "
    "2 if there is nothing to check, and 3 if nothing fails but values are not judged, as there is "
    "no formula for the rule."
)

NOT_COMPARED = 3
"""The exit status if nothing fails, but values were held against no rule."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "expression",
        type=expression,
        metavar="EXPRESSION",
        help="the call that makes the optimizer, by the path that it is imported from, with "
        "keyword arguments and without parameters",
    )
    parser.add_argument(
        "--as",
        dest="rule",
        type=rule,
        metavar="RULE",
        help="hold it against the rule of this optimizer of its framework: torch.optim.Adam, or "
        '"optax.sgd(momentum=0.9)" with hyperparameters that it does not take as arguments; none '
        "for no rule (default: by its name, or by torch's or Keras' class that it is derived from)",
    )
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        type=json_path,
        metavar="PATH",
        help="keep the findings as JSON, too; without PATH, print them in place of the table",
    )
    parser.add_argument(
        "--large",
        action="store_true",
        help="check a tensor of more than 2^31 elements, too; it needs some 50 GB of memory",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=TIMEOUT,
        metavar="SECONDS",
        help="how long one program may take until it counts as hanging (default: %(default)g)",
    )


def expression(text: str) -> Call:
    try:
        return parse(text)
    except ExpressionError as error:
        raise ArgumentTypeError(str(error)) from None


def rule(text: str) -> Call:
    return NO_RULE if text.strip() == NO_RULE.path else expression(text)


def json_path(text: str) -> Path:
    if text == "-":
        return Path("-")
    if "(" in text:
        raise ArgumentTypeError(f"{text!r} is no name of a JSON; put the expression before --json")
    return file_ending_in("json")(text)


def run(options: Namespace) -> int:
    try:
        with telling() as tell:
            report = audit(
                options.expression,
                tell,
                rule=options.rule,
                timeout=options.timeout,
                large=options.large,
            )
    except RefusedError as error:
        raise UsageError(str(error)) from None
    path: Path | None = options.json
    if path == Path("-"):
        print(json.dumps(report.to_dict(), indent=1))
    else:
        if path is not None:
            try:
                json_file.write(report, path)
            except OSError as error:
                raise unwritten(path, error, "json") from None
        show(report)
    if report.count(FAILS):
        return 1
    return 0 if report.compared else NOT_COMPARED


@contextmanager
def telling() -> Iterator[Callable[[str, float], object]]:
    """Show how far the audit is, in a terminal where rich is installed."""
    if find_spec("rich") is None or not sys.stderr.isatty():
        yield lambda name, share: None
        return
    with progress(timed=False) as tell:
        yield tell


def show(report: Report) -> None:
    if find_spec("rich") is None:
        lines = [*plain_table(report), *below(report)]
    else:
        output.show(rich_table(report), output.console(width=120))
        lines = [*below(report)]
    for line in lines:
        print(line)
