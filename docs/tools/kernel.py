"""The page that shows a generated kernel in full."""

from __future__ import annotations

from fusedstep.program.inspect import source


def block() -> str:
    """The module that is compiled for AdamW over float32: `fusedstep inspect adamw --source`."""
    return f"```py\n{source('adamw', [], 'float32').strip()}\n```"
