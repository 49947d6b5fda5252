"""Records of runs: a folder with a checkpoint of the beginning, and what each step has made.

`steps.jsonl` has a line of JSON for each step: its number, what it was asked, the options of the
groups where these have changed, and by parameter the SHA-256 of each array after it, and t. If
gradients are kept, `00000001.safetensors` and so on have those of a step, and the parameters after
it, so that whoever repeats the step can tell the first element that differs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from fusedstep._core.checkpoint import decoded, encoded, json_text
from fusedstep._core.digest import ROW_STEPS, Numbers, canonical, line
from fusedstep._core.durable import replacing
from fusedstep._core.tensor_file import Array, Content, Reader, write

START, STEPS = "start.safetensors", "steps.jsonl"

GRADIENT, PARAMETER = "gradient", "params"

ROWS, VALUES = "rows", "values"


class Step(NamedTuple):
    """A step as a record has it."""

    number: int
    """From 1."""
    request: dict[str, Any]
    """The arguments of the step besides the gradients."""
    options: list[dict[str, Any]] | None
    """Options of the groups; None: those of the step before."""
    digests: dict[str, dict[str, Any]]
    """By parameter, the SHA-256 of each array after the step by its letter, and t."""


def digests_of(numbers: Numbers) -> dict[str, Any]:
    """The SHA-256 of each array of a parameter, by its letter, and t."""
    arrays = {"p": numbers.p, **numbers.states}
    made: dict[str, Any] = {letter: array_digest(array) for letter, array in arrays.items()}
    if numbers.row_t is not None and (numbers.row_t != numbers.t).any():
        made["row_" + ROW_STEPS] = array_digest(numbers.row_t)
    return {**made, "t": numbers.t}


def array_digest(array: Array) -> str:
    """SHA-256 over an array's dtype, shape and elements, as digest.py has them."""
    made = sha256(line(array.dtype.name, [*array.shape]))
    for part in canonical(array):
        made.update(part.data)
    return made.hexdigest()


def step_file(folder: Path, number: int) -> Path:
    """The file with the gradients of a step."""
    return folder / f"{number:08}.safetensors"


# ---- writing ----


def write_step(folder: Path, step: Step, arrays: Mapping[str, Array] | None) -> None:
    """Add a step to a record; None for `arrays`: its gradients are not kept."""
    if arrays is not None:
        with replacing(step_file(folder, step.number)) as file:
            write(file, Content({}, dict(arrays)))
    text = json_text(
        {
            "step": step.number,
            "request": encoded(step.request),
            "options": encoded(step.options),
            "digests": step.digests,
        }
    )
    with open(folder / STEPS, "a", encoding="utf-8") as file_of_steps:
        file_of_steps.write(text + "\n")


# ---- reading ----


def read_steps(folder: Path) -> Iterator[Step]:
    """The steps of a record, in their order."""
    path = folder / STEPS
    with open(path, encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            try:
                given = json.loads(text)
                step = Step(
                    given["step"],
                    decoded(given["request"]),
                    None if given["options"] is None else [*map(decoded, given["options"])],
                    {name: {**own} for name, own in given["digests"].items()},
                )
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise ValueError(
                    f"{str(path)!r} is damaged in line {number}: {error}; a record ends with its "
                    "last whole line: cut the file off before this one"
                ) from None
            if step.number != number:
                raise ValueError(
                    f"{str(path)!r} has step {step.number!r} in line {number}; lines were taken "
                    "out or added, record the run again"
                )
            yield step


class Kept(NamedTuple):
    """Arrays of a step that a record keeps."""

    gradients: dict[str, Any]
    """Arrays, or pairs of rows and values, by parameter; those that had none are not there."""
    params: dict[str, Array]
    """The parameters after the step."""
    whole: bool
    """Whether the file is as it was written."""


def read_kept(folder: Path, number: int) -> Kept | None:
    """The gradients of a step; None: they were not kept."""
    path = step_file(folder, number)
    if not path.exists():
        return None
    reader = Reader(path)
    arrays = reader.read(check_seal=False).arrays
    gradients: dict[str, Any] = {}
    params = {}
    for key, array in arrays.items():
        kind, _, name = key.partition(".")
        if kind == PARAMETER:
            params[name] = array
        elif kind == GRADIENT:
            gradients[name] = array
        elif kind == ROWS:
            gradients[name] = array, arrays.get(f"{VALUES}.{name}")
    return Kept(gradients, params, reader.whole)
