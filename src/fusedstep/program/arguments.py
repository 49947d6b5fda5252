"""Arguments that several subcommands have, and checks of the values of arguments."""

from __future__ import annotations

import os
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from math import isfinite
from pathlib import Path


def add_picture(parser: ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--picture",
        type=file_ending_in("png"),
        default=default,
        metavar="PATH",
        help="where to save the picture (default: %(default)s)",
    )


def add_dtype(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="dtype of the arrays (default: %(default)s)",
    )


def whole(least: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return int(text)

    return check


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not isfinite(value) or value <= 0:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def file_ending_in(ending: str) -> Callable[[str], Path]:
    """Check the name of a file that will be written, before any work is done for it."""

    def check(text: str) -> Path:
        path = Path(text)
        if path.suffix.lower() != f".{ending}":
            name = ending.upper()
            raise ArgumentTypeError(f"{text!r} is no name of a {name}; end it in .{ending}")
        if not path.parent.is_dir():
            raise ArgumentTypeError(f"{str(path.parent)!r} is no directory; create it first")
        if path.is_dir():
            raise ArgumentTypeError(f"{text!r} is a directory; name a file")
        if not os.access(path.parent, os.W_OK):
            raise ArgumentTypeError(
                f"{str(path.parent)!r} may not be written to; name a file elsewhere"
            )
        return path

    return check
