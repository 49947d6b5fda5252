"""The array libraries that are known besides NumPy: one row each.

On a CUDA device every array with `__cuda_array_interface__` will do, and on the CPU every one with
`__dlpack__`. A row says what is known besides: how to read their content for less, which stream
the library works on, what errors advise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from fusedstep._arrays.dtypes import BFLOAT16
from fusedstep._checks.wording import describe

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

INTERFACE = "__cuda_array_interface__"

EXCHANGE = "__dlpack_c_exchange_api__"
"""The attribute of a type with DLPack's functions for C, see exchange.py."""

Geometry: TypeAlias = tuple[Any, ...]
"""All but the address that must be as before for an array to pass without another check."""


def strides(array: Any, described: dict[str, Any]) -> tuple[int, ...] | None:
    """The strides of an array, in bytes; None if it is C-contiguous.

    Numba leaves them out of the interface where all that are not 0 are contiguous, and a
    broadcast array would seem to have memory that it has not.
    """
    numbas = getattr(array, "__cuda_ndarray__", False)
    found: tuple[int, ...] | None = array.strides if numbas else described.get("strides")
    return found


def _glance_by_interface(array: Any) -> tuple[int, Geometry]:
    described = getattr(array, INTERFACE, None)
    if described is None or described.get("mask") is not None:
        return 0, ()
    address, readonly = described["data"]
    layout = described["shape"], strides(array, described), described["typestr"], readonly
    return address, layout


def _glance_numba(array: Any) -> tuple[int, Geometry]:
    return array.device_ctypes_pointer.value or 0, (array.shape, array.strides, array.dtype)


def _glance_cupy(array: Any) -> tuple[int, Geometry]:
    return array.data.ptr, (array.shape, array.strides, array.dtype, array.device.id)


def _named(module: str, name: str) -> type | None:
    """A type that a module has, if that was imported."""
    found: type | None = getattr(sys.modules.get(module), name, None)
    return found


def _interface(array: Any) -> Any:
    return getattr(array, INTERFACE)


def _interface_cupy(array: Any) -> dict[str, Any]:
    # What the attribute says, without CuPy's question which stream is the current one.
    return {
        "data": (array.data.ptr, False),
        "shape": array.shape,
        "strides": array.strides,
        "typestr": array.dtype.str,
    }


def _glance_torch(array: Any) -> tuple[int, Geometry]:
    if not array.is_cuda or array.layout is not sys.modules["torch"].strided:
        return 0, ()
    return array.data_ptr(), (array.shape, array.stride(), array.dtype, array.get_device())


def is_exchanged(kind: type) -> bool:
    """Whether the arrays of a type show their memory by DLPack."""
    return hasattr(kind, "__dlpack__") and hasattr(kind, "__dlpack_device__")


def _view_by_dlpack(array: Any, name: str) -> Array:
    if hasattr(array, INTERFACE):
        raise TypeError(f"{name} is on a CUDA device; pass a NumPy array, by {TO_HOST}")
    if not is_exchanged(type(array)):
        raise TypeError(f"{name} is {describe(array)}; {in_numpy(array, name)}")
    try:
        return np.from_dlpack(array)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        advice = library(array).writeable
        remedy = f"pass a copy, `np.array({name})`" if advice is None else advice
        raise TypeError(
            f"{name} is {describe(array)}, which NumPy cannot view: {error}; "
            f"{remedy.replace('NAME', name)}"
        ) from error


def in_numpy(array: Any, name: str) -> str:
    """How to have as a NumPy array what is none."""
    kind = type(array)
    if isinstance(array, np.generic):
        made = f"np.asarray({name})" if array.dtype.kind == "f" else f"np.asarray({name}, float)"
        return f"a scalar has no memory of its own; pass a NumPy array, `{made}`"
    if kind.__module__.partition(".")[0] == "jax":  # whose arrays themselves are jaxlib's
        return (
            "it has no values while JAX traces; inside of `jax.jit` step by "
            "`fusedstep.jax.adamw(1e-3)` or its siblings, or take the step outside of it"
        )
    if hasattr(kind, "toarray"):
        return f"pass a dense NumPy array, `{name}.toarray()`"
    if hasattr(kind, "__array__"):
        return f"pass a NumPy array, `np.array({name})`"
    return "pass a NumPy array, or a tensor of torch, or another array with `__dlpack__`"


class Memory:
    """The memory of a tensor as NumPy sees it, which keeps that in place.

    A view by the tensor's own `numpy()` would forbid torch for ever to resize or free its storage.
    """

    def __init__(self, tensor: Any, dtype: np.dtype[Any]) -> None:
        self.tensor = tensor
        self.__array_interface__ = {
            "version": 3,
            "data": (tensor.data_ptr() or 16, False),  # an empty one is nowhere
            "shape": tuple(tensor.shape),
            "strides": tuple(dtype.itemsize * stride for stride in tensor.stride()),
            "typestr": "<u2" if dtype == BFLOAT16 else dtype.str,
        }


VIEWED = {
    **{
        f"torch.{name}": np.dtype(name)
        for name in (
            *("float16", "float32", "float64", "complex64", "complex128"),
            *("int8", "int16", "int32", "int64", "uint8"),
        )
    },
    "torch.bfloat16": BFLOAT16,
}
"""Dtypes of torch that NumPy has, too."""


def _view_torch(array: Any, name: str) -> Array:
    """The view of a tensor; of a copy that is read-only, if its memory does not hold its values."""
    try:
        tensor = array.detach()
        copied = tensor.is_neg() or tensor.is_conj() or is_nowhere(tensor)
        tensor = tensor.clone() if is_nowhere(tensor) else tensor.resolve_neg().resolve_conj()
        if tensor.numel() and not tensor.data_ptr():
            raise RuntimeError("its storage was freed")
        dtype = VIEWED.get(str(tensor.dtype))
        if dtype is None or not _is_plain_torch(array):
            view: Array = tensor.numpy()  # which mostly raises, and says why
        else:
            view = np.asarray(Memory(tensor, dtype)).view(dtype)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise TypeError(
            f"{name} is a tensor that NumPy cannot view: {error}; pass a NumPy array, or a dense "
            f"float32 or float64 tensor on the CPU, as `{name}.cpu().to_dense().float()`, or its "
            f"local part, `{name}.to_local()`; torch's own parameters are trained by "
            "`fusedstep.torch`"
        ) from error
    if copied:
        view.flags.writeable = False
    return view


def is_nowhere(tensor: Any) -> bool:
    """Whether a tensor is of zeros that torch's autograd does not write down."""
    return bool(tensor._is_zerotensor())  # noqa: SLF001  torch has no public name for it


def _is_plain_torch(array: Any) -> bool:
    """Whether a tensor is dense, on the CPU, and of torch's own type."""
    torch = sys.modules["torch"]
    return _read_torch(type(array)) and array.is_cpu and array.layout is torch.strided


def _where_torch(array: Any) -> tuple[int, Geometry]:
    return array.data_ptr(), (tuple(array.shape), array.stride(), array.dtype)


def _read_by_type(kind: type) -> bool:
    return EXCHANGE in vars(kind)


def _read_torch(kind: type) -> bool:
    torch = sys.modules["torch"]
    return kind in (torch.Tensor, torch.nn.Parameter)


def _parts_torch(array: Any) -> tuple[int, int]:
    return getattr(array, "_cdata", 0), getattr(array.untyped_storage(), "_cdata", 0)


@dataclass(frozen=True, eq=False)
class Library:
    """Facts on a library's arrays besides the interface; the defaults hold for any library."""

    package: str
    """The name under which it is imported."""
    to_device: str
    """How to copy an array to the device, as errors advise it."""
    to_host: str
    """How to copy an array to the CPU, as errors advise it."""
    glance: Callable[[Any], tuple[int, Geometry]] = _glance_by_interface
    """An array's address and geometry; no geometry, an empty one, if it is not on a device."""
    interface: Callable[[Any], Any] = _interface
    """A function that returns what `__cuda_array_interface__` says of an array."""
    ordinal: Callable[[Any], int] | None = None
    """The number of the device that an array is on; None: the driver has to be asked."""
    stream: Callable[[int], int] = lambda ordinal: 0
    """The handle of the current stream of the device of that number; 0 is the default stream."""
    ordered: bool = False
    """Whether freed memory is handed out again in the order of the stream, so that a gradient
    which a launch reads may be freed before the launch has run."""
    lasting: bool = False
    """Whether an array on a device has the same memory for as long as it lives."""
    own: Callable[[], type | None] = lambda: None
    """The library's own type of arrays on a device, whose attributes C reads; None: it does not."""
    hold: Callable[[Any], Any] = lambda array: array
    """An object that keeps an array's memory as it is now."""
    view: Callable[[Any, str], Array] = _view_by_dlpack
    """The NumPy view of an array on the CPU, which errors call by that name."""
    where: Callable[[Any], tuple[int, Geometry]] | None = None
    """The address and geometry of an array on the CPU; None: the view tells them."""
    read: Callable[[type], bool] = _read_by_type
    """Whether C may read the arrays of a type by themselves: one that lies as its parts do."""
    parts: Callable[[Any], tuple[int, int]] = lambda array: (0, 0)
    """The addresses of what an array's object consists of; they need not be right."""
    gradients: Callable[[type], type] = lambda kind: kind
    """The type of the gradients of parameters of that type."""
    writeable: str | None = None
    """How to have in memory that can be written what cannot be here, in which NAME stands for the
    array; None: by a copy."""
    deferred: Callable[[], Any] = lambda: None
    """The method that returns False for an array whose memory holds its values; None: all do."""


LIBRARIES = (
    Library(
        "numba",
        to_device="`cuda.to_device(x)` of Numba",
        to_host="`x.copy_to_host()` of Numba's",
        glance=_glance_numba,
        lasting=True,
        own=lambda: _named("numba.cuda.cudadrv.devicearray", "DeviceNDArray"),
    ),
    Library(
        "cupy",
        to_device="`cupy.asarray(x)`",
        to_host="`x.get()` of CuPy's",
        glance=_glance_cupy,
        interface=_interface_cupy,
        ordinal=lambda array: array.device.id,
        stream=lambda ordinal: sys.modules["cupy"].cuda.get_current_stream(ordinal).ptr,
        ordered=True,
        lasting=True,
        own=lambda: _named("cupy", "ndarray"),
    ),
    Library(
        "torch",
        to_device="`x.cuda()` of torch",
        to_host="`x.numpy(force=True)` of torch's",
        glance=_glance_torch,
        ordinal=lambda array: array.get_device(),
        stream=lambda ordinal: sys.modules["torch"].cuda.current_stream(ordinal).cuda_stream,
        ordered=True,
        hold=lambda array: array.detach(),  # a tensor's memory may be exchanged under it
        view=_view_torch,
        where=_where_torch,
        read=_read_torch,
        parts=_parts_torch,
        gradients=lambda kind: sys.modules["torch"].Tensor,
        deferred=lambda: sys.modules["torch"].Tensor.is_neg,
    ),
    *(
        Library(
            package,
            to_device="",
            to_host="",
            writeable="JAX's arrays never change. Inside of `jax.jit` step them by "
            "`fusedstep.jax.adamw(1e-3)` or its siblings; with an optimizer of this kind pass a "
            "copy, `np.array(NAME)`, or keep the parameters in "
            "`arena = fs.Arena(params, align=64)`, which JAX reads without a copy, as "
            "`arena.jax_params()`",
        )
        for package in ("jax", "jaxlib")
    ),
)

UNKNOWN = Library("", to_device="", to_host="")
"""Any other library, and what stands for Numba's arrays in its simulator."""

TO_DEVICE = ", ".join(each.to_device for each in LIBRARIES if each.to_device)
TO_HOST = ", ".join(each.to_host for each in LIBRARIES if each.to_host)


@cache
def library_of(kind: Hashable) -> Library:
    """The library that a type of arrays is from, or is derived from."""
    assert isinstance(kind, type)
    packages = [base.__module__.partition(".")[0] for base in kind.__mro__]
    if packages[0] == "numba" and not hasattr(kind, "device_ctypes_pointer"):
        return UNKNOWN
    return next((each for each in LIBRARIES if each.package in packages), UNKNOWN)


def library(array: Any) -> Library:
    """The library that an array is from."""
    return library_of(array.__class__)


@cache
def _from_jax(kind: Hashable) -> bool:
    assert isinstance(kind, type)
    return kind.__module__.partition(".")[0] == "jaxlib" and hasattr(kind, "platform")


def numpy_reads(array: Any) -> bool:
    """Whether an array is one of JAX in the CPU's memory, which NumPy sees sooner than DLPack."""
    if not _from_jax(array.__class__) or array.is_deleted():  # whose platform must not be asked
        return False
    platform: str = array.platform()
    return platform == "cpu"


def by_numpy(arrays: Iterable[Any]) -> list[Any]:
    """The arrays, with those of JAX as NumPy's over the same memory, once they are computed."""
    return [np.asarray(array) if numpy_reads(array) else array for array in arrays]


def glance(array: Any) -> tuple[int, Geometry]:
    """An array's address and geometry, for the least that its library lets them cost."""
    return library_of(array.__class__).glance(array)
