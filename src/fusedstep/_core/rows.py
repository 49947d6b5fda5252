"""Gradients of some rows of a parameter: how users write them, and the checks on them."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

import numpy as np

from fusedstep._arrays.checks import check_gradient
from fusedstep._arrays.dtypes import HALVES, compute_dtype
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import Host, Place
from fusedstep._arrays.walk import Array
from fusedstep._backends.slices import Integers, Order, ordered
from fusedstep._checks.wording import describe
from fusedstep._numerics.storage import STORAGES

put = object.__setattr__
"""Sets an attribute of a gradient of rows, which nobody else may."""


class Rows:
    """The gradient of some rows of a parameter, in the place of a whole one.

    ::

        p[index[j]]  has the gradient  values[j]       added up, where it is there several times

    A step touches these rows, and takes time for these alone. It is for the gradients of an
    embedding, or of whatever else of which each step sees a small part::

        opt = fs.Adam({"words": words, "w": w}, lr=1e-3)
        opt.step({"words": fs.Rows(index, values), "w": g})

    `untouched`, of the optimizer or of a group, says what becomes of all other rows.

    `"frozen"` leaves parameter, state and t of a row as they are. With `row_steps="own"` each
    row counts its own steps, and the optimizer's formula has that t: it is as if each row were
    a parameter of its own that is given None, and so is a schedule. With `row_steps="shared"` t is
    that of the parameter, and the ε of Adam and AdamW is added to the v that is not yet
    corrected, as by `eps_uncorrected`: that is `torch.optim.SparseAdam`, and the lazy Adam of
    TensorFlow. A row's first steps are then far too short, or too long, if they come late.

    `"exact"` is the step by a whole gradient with zeros in all other rows, to the bit: moments
    decay, parameters coast on and decay, schedules go their way. A row takes the steps that it
    missed when it is touched next, and before that nobody may read it: `opt.catch_up(rows)` before
    a forward pass that does, `opt.catch_up()` before all is saved. `state` and `state_dict` do so
    by themselves.

    Parameters
    ----------
    index
        The numbers of the rows, shape (k,), of any dtype of integers, each from 0 to the
        number of rows less 1; in any order, and several times if need be.
    values
        Their gradients, shape (k,) + p.shape[1:], of the parameter's dtype or 16 bits. Those of
        one row are added up in the order in which they stand, in the dtype of the step.

    Notes
    -----
    Parameters are float32 or float64 and keep their state in full. A parameter that is not in C
    order is copied whole at each step. Any gradient of a whole parameter may come in between.
    The norm for `max_norm` is that of the whole gradient. `scipy.sparse` matrices are taken as
    they are: what their rows do not have are zeros, rows without any entry are left out.

    Raises
    ------
    TypeError, ValueError, IndexError
        From the step, if one of them does not fit the parameter. Nothing has been written.

    Examples
    --------
    >>> import numpy as np, fusedstep as fs
    >>> p = np.zeros((4, 2))
    >>> opt = fs.SGD(p, lr=1.0)
    >>> _ = opt.step(fs.Rows([3, 1, 3], np.array([[1.0, 2.0], [5.0, 5.0], [10.0, 20.0]])))
    >>> p
    array([[  0.,   0.],
           [ -5.,  -5.],
           [  0.,   0.],
           [-11., -22.]])
    """

    __slots__ = ("index", "mask", "values")

    index: Any
    values: Any
    mask: Any
    """Instead of an index, which rows of a whole gradient there are."""

    def __init__(self, index: Any, values: Any) -> None:
        put(self, "index", index)
        put(self, "values", values)
        put(self, "mask", None)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        # A step reads its arrays without the interpreter's lock: they have to stay.
        raise AttributeError(
            f"a gradient of rows stays as it is; make another, `fs.Rows({name}=...)`"
        )

    @classmethod
    def where(cls, mask: Any, g: Any) -> Rows:
        """Return the rows of a whole gradient at which `mask` is True.

        Parameters
        ----------
        mask
            Booleans, one for each row.
        g
            A gradient of the parameter's shape; of other rows it may hold anything.

        Examples
        --------
        >>> import numpy as np, fusedstep as fs
        >>> p = np.zeros((3, 1))
        >>> _ = fs.SGD(p, lr=1.0).step(fs.Rows.where([True, False, True], np.ones((3, 1))))
        >>> p.ravel()
        array([-1.,  0., -1.])
        """
        made = cls(None, g)
        put(made, "mask", mask)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            (type(self), (self.index, self.values))
            if self.mask is None
            else (
                type(self).where,
                (self.mask, self.values),
            )
        )

    def __repr__(self) -> str:
        if self.mask is not None:
            return f"Rows.where({describe(self.mask)}, {describe(self.values)})"
        return f"Rows({describe(self.index)}, {describe(self.values)})"


class Seen(NamedTuple):
    """Rows as they were checked; a whole gradient has all rows in their order."""

    values: Array
    """Flat and contiguous, in the dtype of the step; on a device they may have 16 bits."""
    given: Any
    """The user's array of the values, as arrays here are described."""
    ids: Integers | None = None
    """See `Touched`, as of the two others."""
    starts: Integers | None = None
    places: Integers | None = None


def is_sparse(g: Any) -> bool:
    """Whether a gradient is a sparse matrix of SciPy."""
    return type(g).__module__.startswith("scipy.sparse")


def has_rows(g: Any) -> bool:
    """Whether a gradient is one of some rows."""
    return type(g) is Rows or is_sparse(g)


def values_of(g: Any) -> Any:
    """The array of a gradient of rows that has its values; any other gradient as it is."""
    if type(g) is Rows:
        return g.values
    return g.data if is_sparse(g) else g


def seen_rows(
    g: Any, p: Array, place: Place, name: str, written: WrittenMemory, zero: bool
) -> Seen:
    """A gradient of a parameter that is stepped by rows, checked; `zero` that it is written."""
    if is_sparse(g) and isinstance(place, Host):
        return _of_matrix(g, p, place, name, written, zero)
    if type(g) is not Rows:
        given = place.see_gradient(g, p, name)
        check_gradient(given, p, name)
        _check_memory(given, name, written, zero)
        return Seen(_flat(given, p, place), given)
    if g.mask is not None:
        given = place.see_gradient(g.values, p, name)
        check_gradient(given, p, name)
        _check_memory(given, name, written, zero)
        ids = _ids_of_mask(g.mask, len(p), place, f"{name}.mask")
        return Seen(_flat(given, p, place), given, ids, None, ids)
    index = check_index(g.index, place, f"{name}.index", written)
    given = place.see_gradient(g.values, p, f"{name}.values")
    shape = len(index), *p.shape[1:]
    if given.shape != shape or given.dtype != p.dtype:
        if given.shape[:1] != shape[:1]:
            raise ValueError(
                f"{name}.values has shape {given.shape}, and {name}.index {len(index)} rows; pass "
                f"one gradient for each, of shape {shape}"
            )
        check_gradient(given, np.broadcast_to(np.zeros((), p.dtype), shape), f"{name}.values")
    _check_memory(given, f"{name}.values", written, zero)
    order = in_range(index, len(p), f"{name}.index")
    return Seen(_flat(given, p, place), given, *order)


def check_index(given: Any, place: Place, name: str, written: WrittenMemory | None) -> Integers:
    """The numbers of rows, contiguous on the CPU."""
    if isinstance(given, (list, tuple, range)):
        index = np.asarray(given)
        index = index.astype(np.int64) if index.size == 0 else index
    elif not isinstance(place, Host) and hasattr(given, "__cuda_array_interface__"):
        index = place.read(place.see(given, name))
    else:
        index = Host().see(given, name)
    if index.dtype.kind not in "iu":
        hint = "`fs.Rows.where(mask, g)` takes a mask and a whole gradient"
        hint = hint if index.dtype.kind == "b" else f"pass integers, as `{name}.astype(np.int64)`"
        raise TypeError(f"{name} has dtype {index.dtype.name}; {hint}")
    if index.ndim != 1:
        raise ValueError(
            f"{name} has shape {index.shape}; pass one number for each row, as "
            f"`{name}.reshape(-1)`, with the values in the same order"
        )
    if written is not None and isinstance(place, Host):
        written.refuse(index, name)
    return np.ascontiguousarray(index, np.int64)


def in_range(index: Integers, limit: int, name: str) -> Order:
    """The order of rows, all of which are there."""
    order = ordered(index, limit)
    if isinstance(order, int):
        number = int(index[order])
        from_end = f"`{name} % {limit}`" if -limit <= number < 0 else None
        remedy = (
            f"numbers do not count from the end here: pass {from_end}"
            if from_end
            else f"pass numbers from 0 to {limit - 1}"
        )
        raise IndexError(
            f"{name}[{order}] is {number}, and the parameter has {limit} rows; {remedy}"
        )
    return order


def ids_of(given: Any, p: Array, place: Place, name: str) -> Integers:
    """The different rows of a parameter that an index or a mask names, ascending."""
    if p.ndim == 0:
        raise ValueError(f"{name} is for a parameter of a single number, which has no rows")
    looked = given if hasattr(given, "dtype") else np.asarray(given)
    if str(looked.dtype).rpartition(".")[2] == "bool":
        return _ids_of_mask(given, len(p), place, name)
    index = check_index(given, place, name, None)
    order: Order = in_range(index, len(p), name)
    return order.ids


def _ids_of_mask(given: Any, rows: int, place: Place, name: str) -> Integers:
    if not isinstance(place, Host) and hasattr(given, "__cuda_array_interface__"):
        mask = place.read(place.see(given, name))
    else:
        mask = np.asarray(given)
    if mask.dtype != np.bool_ or mask.shape != (rows,):
        raise ValueError(
            f"{name} is {mask.dtype.name} of shape {mask.shape}; pass booleans, one for each row, "
            f"of shape {(rows,)}, or `fs.Rows(index, values)`"
        )
    return np.flatnonzero(mask).astype(np.int64, copy=False)


def _check_memory(given: Array, name: str, written: WrittenMemory, zero: bool) -> None:
    if zero and not given.flags.writeable:
        raise ValueError(f"{name} is read-only, and zero_grads=True writes to it; pass a copy")
    written.refuse(given, name)


def _flat(given: Array, p: Array, place: Place) -> Array:
    """Values flat and contiguous: copied if need be.

    On the CPU they are in the dtype of the parameter's steps. A device decodes 16 bits by itself.
    """
    if given.dtype in HALVES and isinstance(place, Host):
        flat = np.ascontiguousarray(given).reshape(-1)
        decoded: Array = STORAGES[HALVES[given.dtype]].decode(flat.size, (flat,))
        return decoded
    if given.flags.c_contiguous and given.flags.aligned:
        return given.reshape(-1)
    made = place.empty(given.shape, given.dtype)
    place.copy(made, given)
    return made.reshape(-1)


def _of_matrix(
    matrix: Any, p: Array, place: Place, name: str, written: WrittenMemory, zero: bool
) -> Seen:
    """The rows of a sparse matrix that have entries, with zeros between these."""
    if matrix.shape != p.shape:
        raise ValueError(
            f"{name} has shape {matrix.shape}, its parameter {p.shape}; they must be equal"
        )
    if zero and matrix.format not in ("csr", "csc", "coo", "bsr", "dia"):
        raise ValueError(
            f"{name} is {describe(matrix)}, which zero_grads=True cannot clear; pass "
            f"`{name}.tocsr()`"
        )
    rows = matrix.tocsr()
    given = Host().see(rows.data, name)
    check_gradient(given, np.broadcast_to(np.zeros((), p.dtype), given.shape), name)
    written.refuse(given, name)
    ids = np.flatnonzero(np.diff(rows.indptr)).astype(np.int64, copy=False)
    values = np.asarray(rows[ids].toarray(), compute_dtype(p.dtype))
    return Seen(
        np.ascontiguousarray(values).reshape(-1),
        Host().see(matrix.data, name) if zero else given,
        ids,
    )
