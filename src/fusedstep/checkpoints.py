"""Checkpoints on disk: `save` and `load`, sealed files in the format of safetensors.

>>> import numpy as np, fusedstep as fs, tempfile
>>> folder = tempfile.TemporaryDirectory()
>>> p = {"w": np.array([1.0, 2.0])}
>>> opt = fs.AdamW(p, lr=0.1)
>>> _ = opt.step({"w": np.array([3.0, -0.01])})
>>> saved = fs.save(f"{folder.name}/run.safetensors", opt, metadata={"epoch": 1})
>>> saved == opt.digest()
True
>>> q = {"w": np.zeros(2)}
>>> other = fs.AdamW(q)
>>> fs.load(f"{folder.name}/run.safetensors", other)
{'epoch': 1}
>>> (q["w"] == p["w"]).all(), other.lr, other.state["w"]["t"]
(np.True_, 0.1, 1)
>>> folder.cleanup()
"""

from __future__ import annotations

import os
from typing import Any

from fusedstep._checks.wording import describe
from fusedstep._core.checkpoint import (
    Checkpoint,
    CheckpointReader,
    metadata_text,
    write_checkpoint,
)
from fusedstep._core.optimizer import Optimizer
from fusedstep._core.saving import Giving
from fusedstep._core.tensor_file import Progress

__all__ = ["load", "save"]


def save(
    path: str | os.PathLike[str],
    opt: Any,
    params: Any = None,
    metadata: Any = None,
    *,
    progress: Progress | None = None,
) -> str:
    """Write a checkpoint: all that a run goes on from, in the place of the one that is there.

    The file is whole at every instant, whatever becomes of the process or the machine: until the
    new one is on the disk, the old one is there. It is a safetensors file, which cannot run code,
    and the same run makes the same bytes.

    Parameters
    ----------
    path
        The file. Its folder has to be there, and room for another file of its size.
    opt
        An optimizer: of this package, of `fusedstep.torch` or of torch.
    params
        The parameters, in a sequence or mapping of arrays, nested at will, or a module of torch.
        It names them in the file, and may hold further arrays, which are saved, too. None for the
        optimizer's own parameters alone, under the names that they have there.
    metadata
        Anything that JSON has: texts, numbers, lists, mappings.
    progress
        A function that is called with the bytes of arrays that are written, and how many there
        are: each time some 16 million more are.

    Returns
    -------
    str
        The digest, see `Optimizer.digest`.

    Raises
    ------
    OSError
        If the file cannot be written. The old one is there as it was.
    TypeError, ValueError
        If the optimizer, the parameters or the metadata cannot be saved. Nothing is written.
    """
    metadata_text(metadata)
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"path={os.fspath(path)!r} is in a folder that is not there; make it first: "
            f"`os.makedirs({os.path.dirname(os.fspath(path))!r})`"
        )
    if os.path.isdir(path):
        raise IsADirectoryError(
            f"path={os.fspath(path)!r} is a folder; name a file in it, as "
            f"`{os.path.join(os.fspath(path), 'run.safetensors')!r}`"
        )
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"path={os.fspath(path)!r} is no regular file; name another one")
    checkpoint = taken(opt, params, metadata)
    write_checkpoint(path, checkpoint, progress)
    return checkpoint.digest


def load(
    path: str | os.PathLike[str],
    opt: Any,
    params: Any = None,
    *,
    progress: Progress | None = None,
) -> Any:
    """Go on from a checkpoint: the optimizer and its parameters become what they were.

    The optimizer is of the class that was saved, over parameters of the same names, shapes and
    dtypes, however these lie in memory: on any backend, in an arena or not, of NumPy or of torch.
    How it keeps things in fewer bytes stays its own affair. What goes on has the same bits.

    Parameters
    ----------
    path
        The file.
    opt
        The optimizer, which is changed.
    params
        The parameters, in the same structure as for `save`; they are written in place. None for
        the optimizer's own alone.
    progress
        A function that is called with the bytes of arrays that are read, and how many there are.

    Returns
    -------
    Any
        The metadata that were saved.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError, TypeError, KeyError
        If it is cut off, damaged, changed, of another program or of a later release, or does not
        fit the optimizer. The message says which; nothing has been changed.
    """
    reader = CheckpointReader(path)
    checkpoint = reader.checkpoint(progress)
    give(opt, Giving(reader, checkpoint), params)
    return checkpoint.metadata


def taken(opt: Any, params: Any, metadata: Any) -> Checkpoint:
    """The checkpoint of an optimizer, and of all arrays in `params`."""
    if isinstance(opt, Optimizer):
        made: Checkpoint = opt._whole(lambda: opt._checkpoint(params, metadata))  # noqa: SLF001
        return made
    of_torch: Checkpoint = _of_torch(opt).take(opt, params, metadata)
    return of_torch


def give(opt: Any, given: Giving, params: Any) -> None:
    """Let an optimizer, and all arrays in `params`, take over a checkpoint."""
    if isinstance(opt, Optimizer):
        opt._load_checkpoint(given, params)  # noqa: SLF001
    else:
        _of_torch(opt).give(opt, given, params)


def _of_torch(opt: Any) -> Any:
    """The module that saves and loads optimizers of torch; refused if this is none."""
    if is_of_torch(opt):
        from fusedstep.torch import _checkpoint

        return _checkpoint
    raise TypeError(
        f"opt is {describe(opt)}; pass an optimizer, as `fs.AdamW(params)` or one of torch's"
    )


def is_of_torch(opt: Any) -> bool:
    """Whether this is an optimizer of torch's, or like them; torch is imported only for those."""
    if all(each.__module__.partition(".")[0] != "torch" for each in type(opt).__mro__):
        return False
    from torch.optim import Optimizer as OfTorch

    return isinstance(opt, OfTorch)


def __getattr__(name: str) -> Any:
    from fusedstep._names import missing

    raise missing(__name__, name)
