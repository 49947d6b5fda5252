"""The subcommand `replay`: the steps of a record, repeated on another backend."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from fusedstep.program.errors import CommandError, UsageError
from fusedstep.program.imported import imported
from fusedstep.recording import compare, replay

BACKENDS = ("numpy", "c", "numba", "auto")

DESCRIPTION = (
    "Repeat the steps that a fusedstep.Recorder has written down, from its checkpoint, and name "
    "the first step, parameter and element that comes out otherwise: the exit status is then 1."
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("record", type=Path, help="the folder of the record")
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="numpy",
        help="what repeats the steps (default: %(default)s, which defines every bit)",
    )
    parser.add_argument(
        "--optimizer",
        metavar="MODULE:NAME",
        help="the class of the record's optimizer, if it is a rule of your own",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="RECORD",
        help="compare with the record of another run, and repeat nothing",
    )


def run(options: Namespace) -> int:
    try:
        if options.against is not None:
            return _compare(options.record, options.against)
        kind = _class(options.optimizer)
        steps, difference = replay(options.record, backend=options.backend, optimizer=kind)
    except (OSError, ValueError, TypeError, ImportError) as error:  # torch may be missing
        raise CommandError(str(error)) from None
    if difference is None:
        print(f"{steps} steps on {options.backend}: every bit as recorded")
        return 0
    print(difference)
    return 1


def _class(name: str | None) -> Any:
    """The class that is called `module:name`."""
    if name is None:
        return None
    module, _, own = name.partition(":")
    try:
        return getattr(imported(module), own)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--optimizer {name}: {error}; name it as module:Class") from None


def _compare(record: Path, other: Path) -> int:
    """Compare two records, and say where they part."""
    steps, difference = compare(record, other)
    if difference is None:
        print(f"{steps} steps are in both records: every bit the same")
        return 0
    print(difference)
    return 1
