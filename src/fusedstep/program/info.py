"""The subcommand `info`: the backends, the instruction set and the threads of this machine."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from fusedstep._backends.info import info
from fusedstep.program.errors import CommandError

DESCRIPTION = (
    "Show the version, the backends that are available on this machine and why others are not, "
    "the instruction set of the C backend, and the number of threads."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Leave the parser as it is: this subcommand has no arguments."""


def run(options: Namespace) -> int:
    try:
        print(info())
    except ValueError as error:  # FUSEDSTEP_ISA or FUSEDSTEP_NUM_THREADS has an unfit value
        raise CommandError(str(error)) from None
    return 0
