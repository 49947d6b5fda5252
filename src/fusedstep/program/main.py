"""The command `fusedstep`: its subcommands, each in a module, and how a run of one ends."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple, NoReturn, Protocol

from fusedstep._checks.hints import nearest
from fusedstep.program import audit, bench, demo, info, inspect, memory, plot, replay
from fusedstep.program.errors import CommandError, report
from fusedstep.program.output import drop_the_rest, print_the_rest, printing


class Module(Protocol):
    """A module that holds a subcommand."""

    DESCRIPTION: str
    """The text at the head of its help."""

    def add_arguments(self, parser: ArgumentParser) -> None: ...

    def run(self, options: Namespace) -> int:
        """Do the work, and return the exit status; an error is a `CommandError`."""


class Parser(ArgumentParser):
    """A parser that says of a word that it does not know which was meant."""

    def words(self) -> list[str]:
        """The options of the command and of its subcommands, as they are written."""
        below: list[Any] = [each.choices for each in self._actions if each.dest == "command"]
        parsers = [self, *(parser for choices in below for parser in choices.values())]
        actions = (action for parser in parsers for action in parser._actions)  # noqa: SLF001
        return [word for action in actions for word in action.option_strings]

    def error(self, message: str) -> NoReturn:
        """End with status 2; after a word that is unknown comes a near one."""
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        choice = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        near = None
        if unknown:
            near = nearest(unknown[1], self.words())
        elif choice:
            found = re.findall(r"[\w-]+", choice[2])
            near = nearest(choice[1], found) or MEANT.get(nearest(choice[1], MEANT) or "")
            near = f"fusedstep {near}" if near in COMMANDS else near
        super().error(message if near is None else f"{message}; did you mean `{near}`?")


MEANT = {
    "benchmark": "bench",
    "example": "demo",
    "bytes": "memory",
    "kernel": "inspect",
    "plot": "plot-schedule",
    "schedule": "plot-schedule",
    "show": "info",
    "train": "demo",
    "version": "info",
}
"""Other names of subcommands."""


class Command(NamedTuple):
    """A subcommand."""

    module: Module
    help: str
    """One line in the list of subcommands."""


COMMANDS = {
    "info": Command(info, "show which backends are available here, and why others are not"),
    "demo": Command(
        demo, "train a small network with every optimizer, and with its rule in plain NumPy"
    ),
    "bench": Command(
        bench, "time steps on this machine against NumPy, torch and others, in less than a minute"
    ),
    "audit": Command(
        audit, "check an optimizer of torch, Keras or optax, with a reproducer for each failure"
    ),
    "memory": Command(
        memory, "show the bytes of a model's parameters, state and gradients, however they are kept"
    ),
    "replay": Command(replay, "repeat a record of steps, and name the first number that differs"),
    "inspect": Command(inspect, "print the CUDA kernel of a rule; no device is needed"),
    "plot-schedule": Command(plot, "print learning-rate schedules and draw them into one picture"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments `argv`, those of the process by default.

    Returns the exit status. Arguments that do not fit exit with status 2 at once.
    """
    with printing():
        return run(argv)


def run(argv: Sequence[str] | None) -> int:
    parser = Parser(
        prog="fusedstep",
        description="Fused optimizer steps for NumPy training loops: what is installed, a "
        "demonstration, benchmarks, audits, and a look at memory, kernels and learning rates.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('fusedstep')}")
    subparsers = parser.add_subparsers(dest="command", metavar="command")
    for name, (module, line) in COMMANDS.items():
        module.add_arguments(subparsers.add_parser(name, help=line, description=module.DESCRIPTION))
    try:
        options = parser.parse_args(argv)
    except SystemExit:  # after a help text or an error, which argparse leaves in the buffer
        print_the_rest()
        raise
    try:
        status = 0
        if options.command is None:
            parser.print_help()
        else:
            status = COMMANDS[options.command].module.run(options)
        sys.stdout.flush()
    except CommandError as error:
        return report(error)
    except KeyboardInterrupt:
        return report("interrupted")
    except BrokenPipeError:  # the reader has left, as in `fusedstep inspect adamw | head`
        drop_the_rest()
        return 1
    except OSError as error:  # those of files are reported where they are written
        drop_the_rest()
        return report(f"cannot print: {error.strerror}")
    return status
