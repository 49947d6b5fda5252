"""Parameters moved to where the momentum leads, and back, for `SGD.lookahead`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn
from weakref import ReferenceType

from fusedstep._arrays.at_once import Block, Call
from fusedstep._arrays.memory import pin
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import Place
from fusedstep._arrays.walk import Array, Operand, Walk
from fusedstep._backends.plan import Job, Plan, Row, Table
from fusedstep._checks.rates import Rates
from fusedstep._core.declaration import Declaration
from fusedstep._core.layout import Layout
from fusedstep._core.parameters import Cohort
from fusedstep._core.tensors import Tensors
from fusedstep._numerics.coefficients import JobScalars, Rule, Scalars
from fusedstep._numerics.range import is_usual

PLAIN = Scalars()._asdict()
"""Scalars of a step of plain SGD, without its learning rate."""


class Lookahead:
    """The parameters' way to p - (α·μ)·b: a step of plain SGD, with b as the gradient.

    It serves for as long as the optimizer's steps stay laid out as they are, for the same
    parameters: their cohorts and state arrays only change together with those of `layout`.
    """

    def __init__(
        self,
        declaration: Declaration,
        table: type[Table],
        tensors: Tensors,
        layout: Layout | None,
    ) -> None:
        refuse_fewer_bytes(tensors)
        self.declaration = declaration
        self.stepping = None if layout is None else layout.cohorts
        self.tensors = tensors
        self.place = place = tensors.place
        rule = Rule("sgd")
        jobs: dict[Cohort, int] = {}
        rows: list[Row] = []
        for tensor in tensors.each:
            walk = Walk(tensor.p, place)
            job = jobs.setdefault(tensor.cohort, len(jobs))
            rows.append(Row(Operand(tensor.p, walk), walk, rule, _no_state, job))
        self.arrays = [row.p.laid for row in rows]
        self.kept = [place.empty(p.shape, p.dtype) for p in self.arrays]
        self.cohorts = [*jobs]
        plain = [Job(rule, cohort.dtype) for cohort in jobs]
        self.plan = Plan(table, plain, rows, WrittenMemory(()))
        for index, tensor in enumerate(tensors.each):
            self.plan.set_gradient(index, tensor.state("b"))

    def serves(self, layout: Layout | None) -> bool:
        """Whether the steps are laid out as they were."""
        return layout is not None and self.stepping is layout.cohorts

    def keep(self) -> list[ReferenceType[Array]]:
        """Copy every parameter, for the way back.

        NumPy resizes none of them while the pins that it returns are held.
        """
        pins = [pin(tensor.p) for tensor in self.tensors.each]
        for tensor in self.tensors.each:
            tensor.check_memory()
        for p, kept in zip(self.arrays, self.kept, strict=True):
            self.place.copy(kept, p)
        return pins

    def scalars(self) -> list[JobScalars]:
        """The scalars of a move by each cohort's momentum, as of its next step."""
        given = []
        for cohort in self.cohorts:
            group, t = cohort.settings, cohort.t + 1
            values = group.hyperparameters
            if callable(values["lr"]):
                values = group.at(values, t)
            if isinstance(values["lr"], Rates):
                raise ValueError(
                    "lookahead() moves parameters by one learning rate, and lr is an array; pass "
                    "a number as `lr`, or `nesterov=True`"
                )
            rate = self.declaration.scalars(values, t)["lr"] * values["momentum"]
            scalars = PLAIN, {"lr": rate}
            if not is_usual(rate):
                cohort.refuse_unfit(self.declaration, values, scalars, t)
            given.append(scalars)
        return given

    def going(self, scalars: Sequence[JobScalars]) -> Sequence[Call]:
        """The calls that move every parameter ahead."""
        self.plan.fetch_gradients()
        return self.plan.calls(scalars)

    def going_back(self) -> list[Call]:
        """The calls that put every parameter back to the bits that it had."""
        if self.place.lasting:
            return self._copies()
        return [partial(self._copy_back)]  # on the stream of that moment

    def _copies(self) -> list[Call]:
        pairs = zip(self.arrays, self.kept, strict=True)
        return [call for p, kept in pairs for call in self.place.copying(p, kept)]

    def _copy_back(self) -> None:
        self.place.at_once(self._copies())


class Ahead(Block):
    """The block in which parameters stand ahead, for `with`.

    `going(back)` moves them there, and puts the calls that bring them back into the list `back`,
    all at once.
    """

    def __init__(self, place: Place, going: Callable[[list[Call]], None]) -> None:
        super().__init__()
        self._place = place
        self._going = going

    def __enter__(self) -> None:  # type: ignore[override]
        if not self.begin():
            raise RuntimeError(
                "a block of lookahead() is entered a second time; call lookahead() for each"
            )
        try:
            self._going(self.leaving)
        except BaseException:  # after all was done, perhaps, and no block would be left
            self._place.at_once([*self.leaving, partial(self.leaving.clear)])
            raise


def refuse_fewer_bytes(tensors: Tensors) -> None:
    """Refuse to move what is not float32 or float64, momentum included."""
    for parameter in tensors.parameters:
        if parameter.format is not None or "b" in parameter.packed:
            raise ValueError(
                f"lookahead() moves parameters by their momentum, and params{parameter.path} or "
                "its momentum is kept in fewer bytes; pass float32 parameters with "
                "`state_dtype='float32'` and without `out`, or `nesterov=True`"
            )


def _no_state(letter: str) -> NoReturn:
    raise AssertionError(letter)
