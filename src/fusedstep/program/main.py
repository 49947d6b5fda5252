"""The program `fusedstep`: what is installed here, and how fast; kernels and rates to look at."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from math import isfinite
from pathlib import Path

from fusedstep._backends.info import info
from fusedstep.benchmarks.show import TITLES

EXTRA = ("matplotlib", "rich", "sklearn")
"""The modules of the extra "demo", all of which the demo needs."""

DRAWING = EXTRA[:2]
"""Those that print and draw."""

KEPT, BESIDE = "fusedstep-bench.json", "fusedstep-bench-new.json"
"""Where `bench` keeps its results, and where if it compares with the former."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with the arguments `argv`, those of the process by default.

    Returns the exit status. Arguments that do not fit exit with status 2 at once.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    commands = {
        "info": _info,
        "demo": _demo,
        "bench": _bench,
        "inspect": _inspect,
        "plot-schedule": _plot,
    }
    if options.command is None:
        parser.print_help()
        return 0
    try:
        status = commands[options.command](options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail("interrupted")
    except BrokenPipeError:  # of `fusedstep inspect adamw | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fusedstep",
        description="Fused optimizer steps for NumPy training loops: what is installed here, a "
        "demonstration, how fast they are, a look at kernels and at learning rates.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('fusedstep')}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("info", help="show which engines are there, and why others are not")
    demo = commands.add_parser(
        "demo",
        help="train a small network with every optimizer, and with its rule in plain NumPy",
        description="Train a small network to read handwritten digits, with every optimizer "
        "and again with its rule in plain NumPy. Compare times and bits, and draw the losses.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument(
        "--epochs", type=partial(_whole, least=1), default=10, help="passes over the digits"
    )
    demo.add_argument(
        "--seed",
        type=partial(_whole, least=0),
        default=0,
        help="fixes the split of the digits, the initial weights and the batches",
    )
    demo.add_argument(
        "--picture",
        type=_picture,
        default="fusedstep-demo.png",
        metavar="PATH",
        help="where to save the picture of the losses",
    )
    bench = commands.add_parser(
        "bench",
        help="time steps on this machine against NumPy, torch and others, in less than a minute",
        description="Time steps of one tensor of many sizes, of thousands of small ones, of real "
        "networks, and between matrix products, against the memory's limit, the rule in plain "
        "NumPy, and torch, optax and DeepSpeed where they are installed. Print a table, draw a "
        "picture and keep the results as JSON.",
    )
    bench.add_argument(
        "--seconds",
        type=_seconds,
        default=54.0,
        help="how long it may take, about (default: %(default)g)",
    )
    bench.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="of the arrays (default: %(default)s)",
    )
    bench.add_argument(
        "--optimizer", choices=[*TITLES], default="adamw", help="whose steps (default: %(default)s)"
    )
    bench.add_argument(
        "--threads",
        type=partial(_whole, least=1),
        metavar="N",
        help="that a step may use (default: as many as `fusedstep info` says)",
    )
    bench.add_argument(
        "--json",
        type=partial(_file, ending="json"),
        metavar="PATH",
        help=f"where to keep the results (default: {KEPT}, or {BESIDE} if those are compared with)",
    )
    bench.add_argument(
        "--picture",
        type=_picture,
        default="fusedstep-bench.png",
        metavar="PATH",
        help="where to save the picture (default: %(default)s)",
    )
    bench.add_argument(
        "--compare",
        type=Path,
        metavar="OLD.json",
        help="show what changed since these results, which stay unless --json names them",
    )
    look = commands.add_parser(
        "inspect",
        help="print the CUDA kernel of a rule; no device is needed",
        description="Print the CUDA kernel of a rule as PTX, the assembly that NVIDIA's driver "
        "takes, or the Python that it is compiled from. No device is needed.",
    )
    look.add_argument(
        "rule",
        metavar="RULE",
        help="sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw; lion, nadam, radam, adamax, "
        "adan; or `module:Name` for a rule of your own",
    )
    look.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME",
        help="of adam and adamw: amsgrad, inside; of rmsprop: centered, momentum, inside; of "
        "adagrad: inside (ε under the root); of all of these: ema; may be repeated",
    )
    look.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="of the arrays (default: %(default)s)",
    )
    look.add_argument(
        "--cc", default="9.0", help="the device's compute capability (default: %(default)s)"
    )
    look.add_argument("--source", action="store_true", help="the Python, and not the PTX")
    plot = commands.add_parser(
        "plot-schedule",
        help="print learning-rate schedules and draw them into one picture",
        description="Print the rates of schedules at some steps, and draw them all into one "
        "picture. Schedules are written as in Python, with numbers, lists and other schedules as "
        'arguments: "sequence([warmup(1e-3, 100), cosine(1e-3, 900)], [100])".',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    plot.add_argument(
        "schedule",
        metavar="SCHEDULE",
        nargs="+",
        help='a call of a schedule of fusedstep.schedules, such as "cosine(1e-3, steps=1000)"',
    )
    plot.add_argument(
        "--steps", type=partial(_whole, least=1), default=1000, help="how many steps to show"
    )
    plot.add_argument(
        "--picture",
        type=_picture,
        default="fusedstep-schedules.png",
        metavar="PATH",
        help="where to save the picture",
    )
    return parser


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not isfinite(seconds) or seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _picture(text: str) -> Path:
    return _file(text, "png")


def _file(text: str, ending: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != f".{ending}":
        name = ending.upper()
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a {name}; end it in .{ending}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{str(path.parent)!r} is no directory; create it first")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a directory; name a file")
    if not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(
            f"{str(path.parent)!r} may not be written to; name a file elsewhere"
        )
    return path


def _info(options: argparse.Namespace) -> int:
    try:
        print(info())
    except ValueError as error:  # of the environment: FUSEDSTEP_ISA or FUSEDSTEP_NUM_THREADS
        return _fail(str(error))
    return 0


def _demo(options: argparse.Namespace) -> int:
    if missing := _missing(EXTRA):
        return _fail(f"the demo needs {missing}")
    from fusedstep.program.demo import draw, run

    results = run(options.epochs, options.seed)
    try:
        draw(results, options.picture)
    except OSError as error:
        return _fail(f"cannot write {options.picture}: {error.strerror}; name another --picture")
    print(f"The losses are drawn in {options.picture}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    if missing := _missing(DRAWING):
        return _fail(f"the benchmark needs {missing}")
    from fusedstep.benchmarks import json_file, report
    from fusedstep.benchmarks.picture import draw

    compared: Path | None = options.compare
    kept = options.json or _unlike(compared)
    try:
        info()  # or what is wrong with the environment
        old = json_file.read(compared) if compared else None  # before it is written to
    except ValueError as error:
        return _fail(str(error))
    try:
        results = report.run(options)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written")
    done, failed = [], []  # before they are shown, since who reads a pipe may leave it
    for option, verb, path, write in (
        ("json", "kept", kept, json_file.write),
        ("picture", "drawn", options.picture, draw),
    ):
        try:
            write(results, path)
            done.append(f"{verb} in {path}")
        except OSError as error:
            failed.append(f"cannot write {path}: {error.strerror}; name another --{option}")
    try:
        report.show(results, old)
        if done:
            print(f"The results are {' and '.join(done)}")
    finally:  # below the tables, where it is seen
        for message in failed:
            _fail(message)
    return 1 if failed else 0


def _unlike(compared: Path | None) -> Path:
    """Where results go if nobody says so: not over those that they are compared with."""
    same = compared is not None and compared.resolve() == Path(KEPT).resolve()
    return Path(BESIDE if same else KEPT)


def _inspect(options: argparse.Namespace) -> int:
    from fusedstep.program import inspect

    try:
        if options.source:
            print(inspect.source(options.rule, options.option, options.dtype))
        else:
            print(inspect.ptx(options.rule, options.option, options.dtype, options.cc))
    except (RuntimeError, ValueError) as error:
        return _fail(str(error))
    return 0


def _plot(options: argparse.Namespace) -> int:
    from fusedstep.program.plot import draw, read, show

    try:
        schedules = [read(text) for text in options.schedule]
    except ValueError as error:
        return _fail(f"SCHEDULE {error}")
    if missing := _missing(DRAWING):
        return _fail(f"plotting needs {missing}")
    try:
        show(options.schedule, schedules, options.steps)
        draw(options.schedule, schedules, options.steps, options.picture)
    except OverflowError:
        return _fail("rates or --steps are too large for a picture; pass smaller ones")
    except OSError as error:
        return _fail(f"cannot write {options.picture}: {error.strerror}; name another --picture")
    print(f"The schedules are drawn in {options.picture}")
    return 0


def _missing(needed: Sequence[str]) -> str:
    """What an error says of those modules of the extra "demo" that are not there, if any."""
    missing = ", ".join(name for name in needed if find_spec(name) is None)
    return missing and f"{missing}: pip install 'fusedstep[demo]'"


def _fail(message: str) -> int:
    print(f"fusedstep: error: {message}", file=sys.stderr)
    return 1
