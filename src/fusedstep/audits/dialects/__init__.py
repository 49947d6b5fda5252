"""The frameworks: how each trains, resumes, and lays out memory, as text of Python.

What an audit runs is what its reproducers show, so both are put together from these texts.
"""

from __future__ import annotations

from fusedstep.audits.dialects import keras, numpy, optax, torch
from fusedstep.audits.dialects.dialect import Dialect, Unfit

DIALECTS = {
    "torch": torch.DIALECT,
    "keras": keras.DIALECT,
    "optax": optax.DIALECT,
    "numpy": numpy.DIALECT,
}

__all__ = ["DIALECTS", "Dialect", "Unfit"]
