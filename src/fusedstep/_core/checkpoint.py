"""Checkpoints: what a file has of a run, as texts and arrays.

Arrays are called `params.NAME`, and `state.NAME.LETTER`, where letters are torch's names if torch
has the optimizer. All else is in the texts, most of them JSON with sorted keys: the optimizer, its
groups with their options, t of each parameter, the digest, and the versions of what wrote it.
Numbers of options are hexadecimal, as `float.hex` has them, so that none is rounded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from fusedstep._checks.wording import describe, quoted
from fusedstep._core.durable import replacing
from fusedstep._core.tensor_file import Array, Content, Progress, Reader, write

KIND = "fusedstep checkpoint"

FORMAT = 1
"""The version of the format, which rises when earlier releases could not read it rightly."""

CONTRACT = 1
"""The version of the numerics contract, which rises when a step gives other bits."""

PARAMS, STATE = "params", "state"


class Checkpoint(NamedTuple):
    """A run as a file has it."""

    optimizer: str
    """The name of the optimizer's class."""
    face: str
    """The package that the class is like: "fusedstep" or "torch", whose options differ."""
    groups: list[dict[str, Any]]
    """Hyperparameters of each group, and the names of its parameters as "params"."""
    t: dict[str, int]
    """The steps of each parameter, by its name."""
    params: dict[str, Array]
    states: dict[str, dict[str, Array]]
    """State arrays of each parameter, by their names in the file."""
    digest: str
    metadata: Any
    """The caller's own."""


# ---- writing ----


def write_checkpoint(
    path: str | os.PathLike[str], checkpoint: Checkpoint, progress: Progress | None
) -> None:
    """Write a checkpoint in the place of the one that is there, wholly or not at all."""
    from importlib.metadata import version
    from platform import python_version

    versions = {
        "fusedstep": version("fusedstep"),
        "numpy": np.__version__,
        "python": python_version(),
    }
    texts = {
        "kind": KIND,
        "format": str(FORMAT),
        "contract": str(CONTRACT),
        "optimizer": checkpoint.optimizer,
        "face": checkpoint.face,
        "groups": json_text(encoded(checkpoint.groups)),
        "t": json_text(checkpoint.t),
        "digest": checkpoint.digest,
        "metadata": metadata_text(checkpoint.metadata),
        "versions": json_text(versions),
    }
    arrays = {joined(PARAMS, name): array for name, array in checkpoint.params.items()}
    for name, state in checkpoint.states.items():
        for letter, array in state.items():
            arrays[joined(STATE, name, letter)] = array
    with replacing(path) as file:
        write(file, Content(texts, arrays), progress)


def metadata_text(metadata: Any) -> str:
    """The caller's metadata as JSON; what JSON does not have is refused."""
    try:
        return json_text(metadata)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"metadata={describe(metadata)} cannot be written as JSON ({error}); pass texts, "
            "numbers, True, False, None, and lists and mappings of them"
        ) from None


def json_text(value: Any) -> str:
    """JSON without spaces, the same for the same value."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def joined(*names: str) -> str:
    """The name of an array in the file; a single parameter has the empty name."""
    return ".".join(filter(None, names))


HEX = re.compile(r"-?(0x[01]\.?[0-9a-f]*p[+-][0-9]+|inf|nan)")
"""Numbers as `float.hex` has them; no option is a text of this form."""


def encoded(value: Any) -> Any:
    """Options as JSON has them, each number to the bit."""
    if isinstance(value, Mapping):
        return {name: encoded(each) for name, each in value.items()}
    if isinstance(value, np.ndarray):
        return {"array": encoded(value.reshape(-1).tolist()), "shape": [*value.shape]}
    if isinstance(value, (list, tuple)):
        return [encoded(each) for each in value]
    return value.hex() if isinstance(value, float) else value


def decoded(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"array", "shape"}:
            return np.array(decoded(value["array"]), np.float64).reshape(value["shape"])
        return {name: decoded(each) for name, each in value.items()}
    if isinstance(value, list):
        return tuple(map(decoded, value))
    if isinstance(value, str) and HEX.fullmatch(value):
        return float.fromhex(value)
    return value


# ---- reading ----


class CheckpointReader(Reader):
    """A checkpoint that is read, with errors that say what is wrong with it."""

    def checkpoint(self, progress: Progress | None = None) -> Checkpoint:
        """The checkpoint, of which all that a file can be asked has been checked."""
        texts, arrays = self.read(progress)
        try:
            groups, t, metadata = (json.loads(texts[name]) for name in ("groups", "t", "metadata"))
            names = [name for group in groups for name in group["params"]]
            options = [{k: decoded(v) for k, v in each.items() if k != PARAMS} for each in groups]
            sound = (
                all(isinstance(group["params"], list) for group in groups)
                and all(isinstance(name, str) for name in names)
                and len({*names}) == len(names)
                and t.keys() == {*names}
                and all(type(each) is int and each >= 0 for each in t.values())
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self._refuse_header(str(error))
        if not sound:
            self._refuse_header("its groups, and the steps of their parameters, do not fit")
        params = {}
        states: dict[str, dict[str, Array]] = {name: {} for name in names}
        owners = {joined(STATE, name): name for name in names}
        for key, array in arrays.items():
            part, _, name = key.partition(".")
            owner, _, letter = key.rpartition(".")
            if part == PARAMS:
                params[name] = array
            elif owner in owners:
                states[owners[owner]][letter] = array
            else:
                self._refuse_header(f"{key!r} belongs to no parameter")
        if lost := [name for name in names if name not in params]:
            self._refuse_header(f"it lacks the parameters {quoted(lost)}")
        groups = [
            {**own, PARAMS: group[PARAMS]} for own, group in zip(options, groups, strict=True)
        ]
        return Checkpoint(
            texts["optimizer"],
            texts["face"],
            groups,
            t,
            params,
            states,
            texts["digest"],
            metadata,
        )

    def _refuse_header(self, why: str) -> NoReturn:
        self.refuse(f"has a damaged header: {why}")

    def check_texts(self, texts: Mapping[str, str]) -> None:
        """Refuse files of other programs, and of other releases, whose seals may be others, too."""
        if texts.get("kind") != KIND:
            self.refuse_other_safetensors()
        for name, known in (("format", FORMAT), ("contract", CONTRACT)):
            found = texts.get(name, "")
            if found != str(known):
                newer = found.isdecimal() and int(found) > known
                self.refuse(
                    f"has {name} {found!r}, and this release reads {known}",
                    "; install the release of fusedstep that wrote it, which its `versions` tell"
                    if newer
                    else "",
                )
        lost = {"optimizer", "face", "groups", "t", "digest", "metadata", "versions"} - texts.keys()
        if lost:
            self._refuse_header(f"it lacks {quoted(sorted(lost))}")
