"""The C side of steps in JAX's programs: its structs are XLA's, and wrong calls are refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from marks import needs, needs_c
from xla import Caller

import fusedstep as fs

pytestmark = needs_c

CSRC = Path(__file__).parents[2] / "csrc"

MEMBERS = {
    "XLA_FFI_Extension_Base xla_extension": "struct_size=size type=type next=next",
    "XLA_FFI_Api_Version xla_version": (
        "struct_size=size extension_start=extensions major_version=major minor_version=minor"
    ),
    "XLA_FFI_Error_Create_Args xla_error_args": (
        "struct_size=size extension_start=extensions message=message errc=code"
    ),
    "XLA_FFI_Api xla_api": (
        "struct_size=size extension_start=extensions api_version=version internal_api=internal "
        "XLA_FFI_Error_Create=create_error"
    ),
    "XLA_FFI_Buffer xla_buffer": (
        "struct_size=size extension_start=extensions dtype=dtype data=data rank=rank dims=dims"
    ),
    "XLA_FFI_Args xla_buffers": (
        "struct_size=size extension_start=extensions size=n types=types args=buffers"
    ),
    "XLA_FFI_Rets xla_buffers": (
        "struct_size=size extension_start=extensions size=n types=types rets=buffers"
    ),
    "XLA_FFI_ByteSpan xla_string": "ptr=text len=length",
    "XLA_FFI_Attrs xla_attributes": (
        "struct_size=size extension_start=extensions size=n types=types names=names attrs=values"
    ),
    "XLA_FFI_CallFrame xla_call": (
        "struct_size=size extension_start=extensions api=api ctx=context stage=stage args=args "
        "rets=results attrs=attributes"
    ),
    "XLA_FFI_Metadata xla_metadata": "struct_size=size api_version=version traits=traits",
    "XLA_FFI_Metadata_Extension xla_metadata_extension": "extension_base=base metadata=metadata",
}
"""XLA's structs and ours, and their members."""

CONSTANTS = {
    "XLA_FFI_DataType_S32": "XLA_S32",
    "XLA_FFI_DataType_S64": "XLA_S64",
    "XLA_FFI_DataType_F32": "XLA_F32",
    "XLA_FFI_DataType_F64": "XLA_F64",
    "XLA_FFI_ExecutionStage_EXECUTE": "XLA_EXECUTE",
    "XLA_FFI_Extension_Metadata": "XLA_METADATA",
    "XLA_FFI_AttrType_STRING": "XLA_STRING",
    "XLA_FFI_Error_Code_INVALID_ARGUMENT": "XLA_INVALID_ARGUMENT",
    "XLA_FFI_Error_Code_FAILED_PRECONDITION": "XLA_FAILED_PRECONDITION",
    "XLA_FFI_Error_Code_INTERNAL": "XLA_INTERNAL",
    "XLA_FFI_API_MAJOR": "XLA_MAJOR",
    "XLA_FFI_API_MINOR": "XLA_MINOR",
}


def claims() -> list[str]:
    """Conditions that have to hold, as C expressions."""
    made = [f"(int){theirs} == (int){ours}" for theirs, ours in CONSTANTS.items()]
    for structs, members in MEMBERS.items():
        theirs, ours = structs.split()
        for pair in members.split():
            one, other = pair.split("=")
            made.append(f"offsetof({theirs}, {one}) == offsetof({ours}, {other})")
            made.append(f"sizeof((({theirs} *)0)->{one}) == sizeof((({ours} *)0)->{other})")
    return made


# A struct may have grown at its end, and so may one in which it lies last.
GROWN = ("sizeof(((XLA_FFI_CallFrame *)0)->attrs)",)


def test_structs_and_constants_are_those_of_the_header_in_jaxlib(tmp_path: Path) -> None:
    jax = needs("jax", "jax")
    pytest.importorskip("jax.ffi")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler; install gcc or clang")
    source = tmp_path / "layout.c"
    lines = ['#include "xla.h"', '#include "xla/ffi/api/c_api.h"']
    lines += [f'_Static_assert({claim}, "{claim}");' for claim in claims()]
    source.write_text("\n".join(lines))
    folders = [f"-I{CSRC}", f"-I{jax.ffi.include_dir()}"]
    done = subprocess.run(
        [compiler, "-std=gnu11", "-fsyntax-only", *folders, str(source)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    wrong = source.with_name("wrong.c")
    wrong.write_text(source.read_text().replace("(int)XLA_F32", "(int)XLA_F64"))
    failed = subprocess.run([compiler, "-std=gnu11", "-fsyntax-only", *folders, str(wrong)])
    assert failed.returncode != 0


def handlers() -> tuple[Any, ...]:
    from fusedstep._engine import ffi, lib

    return tuple(
        lambda address, handler=handler: int(
            ffi.cast("uintptr_t", handler(ffi.cast("void *", address)))
        )
        for handler in (
            lib.fs_xla_job_handler,
            lib.fs_xla_step_handler,
            lib.fs_xla_update_handler,
        )
    )


@pytest.mark.parametrize(
    ("theirs", "said"), [((0, 1), (0, 1)), ((0, 2), (0, 2)), ((0, 9), (0, 3)), (None, (0, 1))]
)
def test_an_older_xla_is_told_its_own_version(
    theirs: tuple[int, int] | None, said: tuple[int, int]
) -> None:
    for handler in handlers():
        assert Caller(*theirs or (0, 3)).ask(handler, theirs is not None) == said


def test_another_major_version_and_other_stages_are_refused() -> None:
    for handler in handlers():
        assert "install a newer fusedstep" in (Caller(major=1).call(handler, [], []) or "")
        assert "install a newer fusedstep" in (Caller().call(handler, [], [], stage=0) or "")
        assert "install a newer fusedstep" in (Caller().call(handler, [], [], size=16) or "")


def arrays(n: int = 5, dtype: Any = np.float32) -> list[np.ndarray[Any, Any]]:
    """A gradient, a parameter and two state arrays."""
    return [np.full(n, value, dtype) for value in (0.5, 1.0, 0.0, 0.0)]


class TestCallsOfAStep:
    options: ClassVar[dict[str, Any]] = {"lr": 0.25, "betas": (0.5, 0.625)}

    def job(self, count: Any = np.int32) -> np.ndarray[Any, Any]:
        """The bytes of a job of `fs.AdamW`, written by the first handler."""
        title, job = self.asked()
        assert Caller().call(handlers()[0], [np.zeros((), count)], [job], [title]) is None
        return job

    def asked(self) -> tuple[bytes, np.ndarray[Any, Any]]:
        """The name of that job, and room for it."""
        needs("jax", "jax")
        fj = pytest.importorskip("fusedstep.jax")
        import jax.numpy as jnp

        from fusedstep.jax import _calls

        tx = fj.adamw(**self.options)
        tx.apply(jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1))
        title = next(name for name in _calls.WRITERS if b"lr=0.25, betas=(0.5, 0.625)" in name)
        return title, np.zeros(_calls.WRITERS[title].bytes, np.uint8)

    def test_steps_are_counted_in_either_dtype(self) -> None:
        assert np.array_equal(self.job(np.int64), self.job(np.int32))

    def test_an_interrupt_comes_when_the_job_is_written(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        title, job = self.asked()
        from fusedstep.jax import _calls

        writer, calls = type(_calls.WRITERS[title]), []
        write = writer.write

        def interrupted(*given: Any) -> None:
            calls.append(given)
            if len(calls) == 1:
                raise KeyboardInterrupt
            write(*given)

        def call() -> None:
            Caller().call(handlers()[0], [np.zeros((), np.int32)], [job], [title])
            for _ in range(1000):  # Python looks for it now and then
                job.copy()

        monkeypatch.setattr(writer, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call()
        assert len(calls) == 2
        assert np.array_equal(job, self.job())

    def test_a_right_one_steps(self) -> None:
        g, p, m, v = arrays()
        assert Caller().call(handlers()[1], [self.job(), g, p, m, v], [p, m, v]) is None
        expected = np.ones(5, np.float32)
        fs.AdamW(expected, **self.options).step(g)
        assert np.array_equal(p, expected)

    def test_one_of_updates_leaves_the_parameter(self) -> None:
        g, p, m, v = arrays()
        expected = np.ones(5, np.float32)
        fs.AdamW(expected, **self.options).step(g)
        assert Caller().call(handlers()[2], [self.job(), g, p, m, v], [g, m, v]) is None
        assert np.array_equal(p, np.ones(5, np.float32))
        assert np.array_equal(g, expected - p)

    def refused(self, args: list[Any], results: list[Any]) -> str:
        before = [array.copy() for array in args]
        error = Caller().call(handlers()[1], args, results)
        assert all(np.array_equal(a, b) for a, b in zip(args, before, strict=True))
        return error or ""

    def test_wrong_ones_are_refused(self) -> None:
        job = self.job()
        g, p, m, v = arrays()
        assert "no call for a step" in self.refused([], [])
        assert "no call for a step" in self.refused([np.zeros_like(job), g, p, m, v], [p, m, v])
        assert "no call for a step" in self.refused([job[:8].copy(), g, p, m, v], [p, m, v])
        assert "no call for a step" in self.refused([job[:0].copy(), g, p, m, v], [p, m, v])
        assert "no call for a step" in self.refused([job, *[g, p, m, v] * 65], [p, m, v] * 65)
        assert "no call for a step" in self.refused([job, g, p, m], [p, m])
        assert "no call for a step" in self.refused([job, g, p, m, v], [p, m])
        assert "memory of its own" in self.refused([job, g, p, m, v], [p.copy(), m, v])
        assert "differ" in self.refused([job, g[:3].copy(), p, m, v], [p, m, v])
        assert "differ" in self.refused([job, g, p, m, v.astype(float)], [p, m, v])
        assert "no kernel" in self.refused([job, *(wide := arrays(dtype=np.float64))], wide[1:])
        g, p, m, v = (array.view(np.int32) for array in (g, p, m, v))
        assert "neither" in self.refused([job, g, p, m, v], [p, m, v])


class TestCallsOfAJob:
    def test_wrong_ones_are_refused(self) -> None:
        needs("jax", "jax")
        pytest.importorskip("fusedstep.jax._calls")
        count, job = np.zeros((), np.int32), np.zeros(64, np.uint8)
        call, handler = Caller().call, handlers()[0]
        assert "no call for a job" in (call(handler, [], [job], [b"x"]) or "")
        assert "no call for a job" in (call(handler, [count], [], [b"x"]) or "")
        assert "no call for a job" in (call(handler, [count], [job]) or "")
        assert "no call for a job" in (call(handler, [count], [job], [b"x"], kind=0) or "")
        assert "no program of this process has the steps 'x'" in (
            call(handler, [count], [job], [b"x"]) or ""
        )
        assert not job.any()
