"""Calls of the C backend in programs that JAX compiles; csrc/jax.c has the other side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.ffi
import jax.numpy as jnp
import numpy as np

from fusedstep._backends import threads
from fusedstep._backends.c import engine
from fusedstep._backends.plan import Job as KernelJob
from fusedstep._engine import ffi, lib
from fusedstep._numerics.coefficients import Scalars
from fusedstep.jax._jobs import Job

TARGETS = {
    "fusedstep_cpu_job": lib.fs_xla_job_handler,
    "fusedstep_cpu_step": lib.fs_xla_step_handler,
    "fusedstep_cpu_update": lib.fs_xla_update_handler,
}
"""The handlers, by their names in compiled programs."""

TOGETHER = 16
"""Tensors of one call. The more arrays a call has, the longer XLA takes to compile it: all of 400
tensors in one took 28 s, and 0.2 s by 16."""

DTYPES = np.dtype(np.float32), np.dtype(np.float64)
"""The dtypes of arrays, in the order of the kernels of an fs_xla_job."""

NEUTRAL = Scalars()._asdict()


class Writer:
    """A job as the first handler asks for it."""

    def __init__(self, job: Job) -> None:
        job.check_range()
        self.job = job
        self.jobs = [KernelJob(job.rule, each) if each in job.dtypes else None for each in DTYPES]
        self.slots = [k for k, letter in enumerate(job.rule.letters) if letter is not None]
        if job.backend == "c":
            self.kernel: Callable[[KernelJob], Any] = engine.kernel
            self.names: Sequence[str] = Scalars._fields
        else:
            from fusedstep._backends.numba.engine import kernel
            from fusedstep._numerics import variants

            self.kernel = lambda each: ffi.cast("fs_kernel", kernel(each).address)
            self.names = variants.step(job.rule).scalars
        if len(self.names) > lib.FS_XLA_SCALARS:
            raise ValueError(
                f"{job.declaration.optimizer.__name__} reads {len(self.names)} members of h; a "
                f"rule may read {lib.FS_XLA_SCALARS} in JAX's programs"
            )
        for each in filter(None, self.jobs):
            self.kernel(each)  # while nobody waits for it: Numba may have to compile it

    @property
    def bytes(self) -> int:
        """The size of what is written."""
        return int(ffi.sizeof("fs_xla_job")) + 8 * len(self.names)

    def write(self, count: int, values: Sequence[float], to: Any) -> None:
        """Write the job of the step after `count` others."""
        scalars = {**NEUTRAL, **self.job.scalars(count, values)}
        for k, each in enumerate(self.jobs):
            to.kernels[k] = ffi.NULL if each is None else self.kernel(each)
        to.threads = threads.get_num_threads()
        to.nstates = len(self.slots)
        to.slots[0 : len(self.slots)] = self.slots
        to.averaged = self.job.rule.averaged
        to.nscalars = len(self.names)
        at = ffi.cast("double *", ffi.addressof(to, "scalars"))
        at[0 : len(self.names)] = [scalars[name] for name in self.names]
        to.mark = lib.FS_XLA_MARK


WRITERS: dict[bytes, Writer] = {}
"""All jobs of programs that were traced in this process, by the names that these have for them."""


def enter(job: Job) -> tuple[str, Writer]:
    """The name of a job, under which programs ask for it, and what answers."""
    name, number = job.title, 1
    while (known := WRITERS.get(name.encode())) is not None and known.job != job:
        number += 1  # classes of one name, as notebooks make them
        name = f"{job.title} {number}"
    return name, known or WRITERS.setdefault(name.encode(), Writer(job))


def _failed(kind: type[BaseException], error: BaseException, traceback: Any) -> int:
    """The answer where an exception came before `fs_write_job` could catch it."""
    return int(lib.FS_INTERRUPTED if issubclass(kind, KeyboardInterrupt) else lib.FS_FAILED)


@ffi.def_extern(error=lib.FS_FAILED, onerror=_failed)  # type: ignore[untyped-decorator]
def fs_write_job(
    name: Any,
    length: int,
    count: int,
    values: Any,
    nvalues: int,
    job: Any,
    size: int,
    message: Any,
    room: int,
) -> int:
    """Write a job for the first handler, see csrc/api.h."""
    try:
        title = ffi.buffer(name, length)[:]
        writer = WRITERS.get(title)
        if writer is None or writer.bytes != size:
            raise RuntimeError(
                f"no program of this process has the steps {title.decode()!r}; trace the function "
                "here, rather than load what another process has compiled"
            )
        writer.write(count, ffi.unpack(values, nvalues), ffi.cast("fs_xla_job *", job))
    except KeyboardInterrupt:
        return int(lib.FS_INTERRUPTED)
    except BaseException as error:
        text = f"{type(error).__name__}: {error}".encode(errors="replace")[: room - 1]
        ffi.memmove(message, text, len(text))  # zeros are behind it
        return int(lib.FS_FAILED)
    return 0


for target, handler in TARGETS.items():
    address = int(ffi.cast("uintptr_t", handler))
    jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(address), platform="cpu")


def _call(
    target: str,
    results: Sequence[jax.ShapeDtypeStruct],
    args: Sequence[jax.Array],
    aliases: dict[int, int],
    **attributes: str,
) -> list[jax.Array]:
    """Call a handler. Under vmap it is called for one example after the other."""

    def call(*args: jax.Array) -> list[jax.Array]:
        made = jax.ffi.ffi_call(
            target, results, vmap_method="sequential", input_output_aliases=aliases
        )
        return list(made(*args, **attributes))

    without_derivative: Any = jax.custom_jvp(call)
    without_derivative.defjvp(_refuse_derivative)
    return list(without_derivative(*args))


def _refuse_derivative(primals: Any, tangents: Any) -> Any:
    raise TypeError(
        "a step of fusedstep.jax has no derivative; take the gradient of the loss alone, and where "
        "you differentiate through steps, as in meta-learning, take optax's"
    )


def write_job(job: Job, count: jax.Array, values: Sequence[jax.Array]) -> jax.Array:
    """The bytes of a job, for the step after `count` others."""
    name, writer = enter(job)
    result = jax.ShapeDtypeStruct((writer.bytes,), jnp.uint8)
    return _call("fusedstep_cpu_job", [result], [count, *values], {}, optimizer=name)[0]


def step(
    job: jax.Array, tensors: Sequence[Sequence[jax.Array]], updates: bool
) -> Iterator[list[jax.Array]]:
    """Step tensors by the bytes of a job: of each its gradient, itself, and its state.

    What is new of each are itself and its state; with `updates`, what is to be added to it takes
    its place, and the memory of the gradient.
    """
    target, read = ("fusedstep_cpu_update", 1) if updates else ("fusedstep_cpu_step", 0)
    for start in range(0, len(tensors), TOGETHER):
        some = tensors[start : start + TOGETHER]
        args, aliases = [job], {}
        results: list[jax.ShapeDtypeStruct] = []
        for tensor in some:
            for k, array in enumerate(tensor):
                if k != read:
                    aliases[len(args)] = len(results)
                    results.append(jax.ShapeDtypeStruct(array.shape, array.dtype))
                args.append(array)
        made = iter(_call(target, results, args, aliases))
        for _, *new in some:
            yield [next(made) for _ in new]
