"""The functions that one function calls."""

from __future__ import annotations

from collections.abc import Callable

from fusedstep._compiler.formula import PRIMITIVES, Formula
from fusedstep._compiler.scope import Constants, Scope, Types
from fusedstep._compiler.source import Function


class Callees:
    """The formulas of the functions that one function calls, each under a name of its own."""

    def __init__(
        self,
        scope: Scope,
        callers: tuple[Function, ...],
        parse: Callable[[Function, Types, Constants], Formula],
    ) -> None:
        self.scope = scope
        self.callers = callers
        """The function itself and those that call it: what it cannot call."""
        self.parse = parse
        self.formulas: dict[str, Formula] = {}

    def add(self, function: Function, types: Types, constants: Constants) -> tuple[str, int]:
        """Parse a callee. Returns the name to call it by, and how many values it returns."""
        formula = self.parse(function, types, constants)
        name = self._free(formula)
        self.formulas[name] = formula
        self.scope.scalars.update(dict.fromkeys(formula.scalars))
        return name, formula.results

    def _free(self, formula: Formula) -> str:
        name = formula.name
        while (
            self.formulas.get(name, formula) is not formula
            or name in self.scope.locals
            or name in PRIMITIVES
        ):
            name += "_"
        return name
