"""The storage formats on one element, as functions that CUDA kernels call."""

from __future__ import annotations

from typing import Any

from fusedstep._backends.cuda.available import simulated
from fusedstep._backends.cuda.primitives import device
from fusedstep._compiler.narrow import operators
from fusedstep._numerics import storage_scalar

_made: dict[str, Any]

if simulated():
    _made = storage_scalar.decorated(lambda function: function)
else:
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    _made = storage_scalar.decorated(device, operators(intrinsic, types))

hashed, own_key, stream_key = _made["hashed"], _made["own_key"], _made["stream_key"]

load_bfloat16, load_float16 = _made["load_bfloat16"], _made["load_float16"]
nearest_bfloat16, store_bfloat16 = _made["nearest_bfloat16"], _made["store_bfloat16"]
store_float16 = _made["store_float16"]
rounded_bfloat16, rounded_float16 = _made["rounded_bfloat16"], _made["rounded_float16"]

canonical, store_split16 = _made["canonical"], _made["store_split16"]
load_split16, load_split8 = _made["load_split16"], _made["load_split8"]
nearest_split8, round_split8 = _made["nearest_split8"], _made["round_split8"]

base_of, size_if_finite = _made["base_of"], _made["size_if_finite"]
load_signed8, store_signed8 = _made["load_signed8"], _made["store_signed8"]
load_unsigned8, store_unsigned8 = _made["load_unsigned8"], _made["store_unsigned8"]
