"""Parts of the CUDA kernels: memory and arithmetic.

On a device: loads and stores at an address, of one element or of a vector (16 bytes: 4
float32 or 2 float64, whose address must be a multiple of 16), the bits of a float32 as an
integer and back, and operations with explicit rounding (`mul.rn`, ...), which no compiler
contracts to an FMA. In Numba's simulator the same names are plain Python over host memory, so
that a kernel's source runs in both.

Addresses, and integers once they are loaded, are int64. A name ends in the dtype that it is
for.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numba import cuda

from fusedstep._backends.cuda.available import simulated

sqrt_float32: Any
sqrt_float64: Any
abs_float32: Any
abs_float64: Any

if simulated():
    # A simulated thread is a new Python thread, with NumPy's default error state. Here each
    # function gives what IEEE-754 defines and does not warn, as on a device.
    device = np.errstate(all="ignore")

    def load_int64(address):
        return ctypes.c_int64.from_address(address).value

    read_int64 = load_int64

    def store_int64(address, x):
        ctypes.c_int64.from_address(address).value = x

    def _integers(c_type):
        def load(address):
            assert address % ctypes.sizeof(c_type) == 0
            return c_type.from_address(address).value

        def store(address, x):
            assert address % ctypes.sizeof(c_type) == 0
            assert 0 <= x < (1 << 8 * ctypes.sizeof(c_type)), x
            c_type.from_address(address).value = x

        return load, store

    load_uint8, store_uint8 = _integers(ctypes.c_uint8)
    load_uint16, store_uint16 = _integers(ctypes.c_uint16)
    load_uint32, store_uint32 = _integers(ctypes.c_uint32)
    load_int16, _ = _integers(ctypes.c_int16)

    def float_of(u):
        return np.uint32(u).view(np.float32)

    def bits_of(x):
        return int(x.view(np.uint32))

    def _memory(c_type, dtype, count):
        size = np.dtype(dtype).itemsize

        def load(address):
            assert address % size == 0
            return dtype(c_type.from_address(address).value)

        def store(address, x):
            assert address % size == 0
            assert type(x) is dtype, f"{x!r} is no {dtype.__name__}"
            c_type.from_address(address).value = x

        def load_vector(address):
            assert address % 16 == 0
            return tuple(load(address + size * k) for k in range(count))

        def store_vector(address, xs):
            assert address % 16 == 0
            assert len(xs) == count
            for k, x in enumerate(xs):
                store(address + size * k, x)

        return load, store, load_vector, store_vector

    load_float32, store_float32, load_vector_float32, store_vector_float32 = _memory(
        ctypes.c_float, np.float32, 4
    )
    load_float64, store_float64, load_vector_float64, store_vector_float64 = _memory(
        ctypes.c_double, np.float64, 2
    )

    def _add(x, y):
        return x + y

    def _sub(x, y):
        return x - y

    def _mul(x, y):
        return x * y

    def _div(x, y):
        return x / y

    add_float32 = add_float64 = _add
    sub_float32 = sub_float64 = _sub
    mul_float32 = mul_float64 = _mul
    div_float32 = div_float64 = _div
    sqrt_float32 = sqrt_float64 = np.sqrt
    abs_float32 = abs_float64 = np.abs
else:
    from llvmlite import ir
    from numba.cuda import libdevice, types
    from numba.cuda.extending import intrinsic

    # Inlined by Numba: it compiles a device function of its own only for the driver's current
    # device, and there may be none.
    device = cuda.jit(device=True, inline="always")

    _LLVM = {
        types.int64: ir.IntType(64),
        types.float32: ir.FloatType(),
        types.float64: ir.DoubleType(),
    }

    def _pointer(builder, address, llvm):
        return builder.inttoptr(address, ir.PointerType(llvm, addrspace=1))

    def _constant(kind):
        """A load from memory that no kernel writes while this one runs, as int64."""
        llvm = _LLVM[kind]

        @intrinsic
        def load(typing_context, address):
            def generate(context, builder, signature, arguments):
                value = builder.load(
                    _pointer(builder, arguments[0], llvm), align=kind.bitwidth // 8
                )
                value.set_metadata("invariant.load", builder.module.add_metadata([]))
                return value

            return types.int64(types.int64), generate

        return load

    def _load(kind):
        llvm = _LLVM[kind]

        @intrinsic
        def load(typing_context, address):
            def generate(context, builder, signature, arguments):
                return builder.load(_pointer(builder, arguments[0], llvm), align=kind.bitwidth // 8)

            return kind(types.int64), generate

        return load

    def _store(kind):
        llvm = _LLVM[kind]

        @intrinsic
        def store(typing_context, address, x):
            def generate(context, builder, signature, arguments):
                builder.store(
                    arguments[1],
                    _pointer(builder, arguments[0], llvm),
                    align=kind.bitwidth // 8,
                )

            return types.void(types.int64, kind), generate

        return store

    def _load_vector(kind, count):
        llvm = ir.VectorType(_LLVM[kind], count)

        @intrinsic
        def load_vector(typing_context, address):
            result = types.UniTuple(kind, count)

            def generate(context, builder, signature, arguments):
                vector = builder.load(_pointer(builder, arguments[0], llvm), align=16)
                values = [builder.extract_element(vector, ir.IntType(32)(k)) for k in range(count)]
                return context.make_tuple(builder, result, values)

            return result(types.int64), generate

        return load_vector

    def _store_vector(kind, count):
        llvm = ir.VectorType(_LLVM[kind], count)

        @intrinsic
        def store_vector(typing_context, address, xs):
            def generate(context, builder, signature, arguments):
                vector = llvm(ir.Undefined)
                for k in range(count):
                    x = builder.extract_value(arguments[1], k)
                    vector = builder.insert_element(vector, x, ir.IntType(32)(k))
                builder.store(vector, _pointer(builder, arguments[0], llvm), align=16)

            return types.void(types.int64, types.UniTuple(kind, count)), generate

        return store_vector

    def _load_integer(bits, signed=False):
        """A load of so many bits, as int64."""

        @intrinsic
        def load(typing_context, address):
            def generate(context, builder, signature, arguments):
                at = _pointer(builder, arguments[0], ir.IntType(bits))
                widen = builder.sext if signed else builder.zext
                return widen(builder.load(at, align=bits // 8), ir.IntType(64))

            return types.int64(types.int64), generate

        return load

    def _store_integer(bits):
        """A store of the lowest bits of an int64."""

        @intrinsic
        def store(typing_context, address, x):
            def generate(context, builder, signature, arguments):
                kind = ir.IntType(bits)
                at = _pointer(builder, arguments[0], kind)
                builder.store(builder.trunc(arguments[1], kind), at, align=bits // 8)

            return types.void(types.int64, types.int64), generate

        return store

    @intrinsic
    def float_of(typing_context, u):
        """The float32 with the bits of an int64."""

        def generate(context, builder, signature, arguments):
            return builder.bitcast(builder.trunc(arguments[0], ir.IntType(32)), ir.FloatType())

        return types.float32(types.int64), generate

    @intrinsic
    def bits_of(typing_context, x):
        """The bits of a float32, as int64."""

        def generate(context, builder, signature, arguments):
            return builder.zext(builder.bitcast(arguments[0], ir.IntType(32)), ir.IntType(64))

        return types.int64(types.float32), generate

    load_uint8, store_uint8 = _load_integer(8), _store_integer(8)
    load_uint16, store_uint16 = _load_integer(16), _store_integer(16)
    load_uint32, store_uint32 = _load_integer(32), _store_integer(32)
    load_int16 = _load_integer(16, signed=True)

    load_int64 = _constant(types.int64)
    read_int64, store_int64 = _load(types.int64), _store(types.int64)

    load_float32 = _load(types.float32)
    store_float32 = _store(types.float32)
    load_vector_float32 = _load_vector(types.float32, 4)
    store_vector_float32 = _store_vector(types.float32, 4)

    load_float64 = _load(types.float64)
    store_float64 = _store(types.float64)
    load_vector_float64 = _load_vector(types.float64, 2)
    store_vector_float64 = _store_vector(types.float64, 2)

    add_float32 = libdevice.fadd_rn
    sub_float32 = libdevice.fsub_rn
    mul_float32 = libdevice.fmul_rn
    div_float32 = libdevice.fdiv_rn
    sqrt_float32 = libdevice.fsqrt_rn
    abs_float32 = libdevice.fabsf

    add_float64 = libdevice.dadd_rn
    mul_float64 = libdevice.dmul_rn
    div_float64 = libdevice.ddiv_rn
    sqrt_float64 = libdevice.dsqrt_rn
    abs_float64 = libdevice.fabs

    @device
    def sub_float64(x, y):  # libdevice has no dsub_rn; x - y is x + (-y), signed zeros too
        return add_float64(x, -y)
