"""The command `fusedstep`: its subcommands, each in a module, and how a run of one ends."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple, NoReturn, Protocol

from fusedstep._checks.hints import nearest
from fusedstep.program import bench, demo, info, inspect, plot
from fusedstep.program.errors import CommandError, report
from fusedstep.program.output import drop_the_rest, printing


class Module(Protocol):
    """A module that holds a subcommand."""

    DESCRIPTION: str
    """The text at the head of its help."""

    def add_arguments(self, parser: ArgumentParser) -> None: ...

    def run(self, options: Namespace) -> int:
        """Do the work, and return the exit status; an error is a `CommandError`."""


class Parser(ArgumentParser):
    """A parser that says of a word that it does not know which was meant."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else [*args]
        options, unknown = self.parse_known_args(words, namespace)
        if unknown:
            of_command = self.commands.get(options.command, self) if self.commands else self
            known = [word for each in {self, of_command} for word in each.options]
            near = nearest(unknown[0], known)
            meant = "" if near is None else f"; did you mean `{near}`?"
            of_command.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return options

    @property
    def options(self) -> list[str]:
        """Its options as they are written."""
        return [word for action in self._actions for word in action.option_strings]

    @property
    def commands(self) -> Mapping[str, Parser]:
        """The parsers of its subcommands."""
        found: list[Any] = [each.choices for each in self._actions if each.dest == "command"]
        return found[0] if found else {}

    def error(self, message: str) -> NoReturn:
        """End with status 2; a value that is none of the choices has a near one after it."""
        found = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if found:
            near = nearest(found[1], MEANT) or nearest(found[1], re.findall(r"[\w-]+", found[2]))
            if near is not None:
                meant = MEANT.get(near, near)
                message += (
                    f"; did you mean `{f'fusedstep {meant}' if meant in COMMANDS else meant}`?"
                )
        super().error(message)


MEANT = {
    "benchmark": "bench",
    "example": "demo",
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
        "demonstration, benchmarks, and a look at kernels and learning rates.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('fusedstep')}")
    subparsers = parser.add_subparsers(dest="command", metavar="command")
    for name, (module, line) in COMMANDS.items():
        module.add_arguments(subparsers.add_parser(name, help=line, description=module.DESCRIPTION))
    options = parser.parse_args(argv)
    try:
        if options.command is None:
            parser.print_help()
            return 0
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
