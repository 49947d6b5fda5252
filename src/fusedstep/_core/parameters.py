"""The parameters of an optimizer, each with its state, and how many steps they have taken."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import isfinite
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.dtypes import FLOAT32, HALVES, compute_dtype, dtype_name, format_of
from fusedstep._arrays.libraries import library
from fusedstep._arrays.memory import LINE, PAGE, Shelf, pin, zeros
from fusedstep._arrays.overlap import extent, lies_as
from fusedstep._arrays.place import Host, Place
from fusedstep._arrays.plain import address, plain
from fusedstep._arrays.walk import Array, Operand, Walk
from fusedstep._backends.plan import Rest, Row, Storages, Table
from fusedstep._backends.slices import Integers
from fusedstep._checks.elsewhere import STATE
from fusedstep._checks.hints import did_you_mean
from fusedstep._checks.names import as_identifier
from fusedstep._checks.rates import Rates
from fusedstep._core.declaration import Declaration
from fusedstep._core.digest import Numbers
from fusedstep._core.hints import letter_hint
from fusedstep._core.kept import SMALL, format_of_parameter, format_of_state, storages
from fusedstep._core.rows import has_rows
from fusedstep._core.slices import ROW_T, Slices
from fusedstep._core.turn import Turn
from fusedstep._numerics.coefficients import (
    Hyperparameters,
    JobScalars,
    Rule,
    Values,
    average_constants,
)
from fusedstep._numerics.range import LARGE, RANGES, is_usual, unfit
from fusedstep._numerics.rounding import check_rounding
from fusedstep._numerics.storage import STORAGES, Part, Storage, in_code_order

Key = TypeVar("Key", bound=Hashable)

NONE = (0,)
"""The count of a cohort whose steps are not laid out."""


class Settings(Protocol):
    """The hyperparameters of parameters that are stepped alike."""

    hyperparameters: dict[str, Any]
    """All of them, checked: replaced as a whole, and never changed but for a free rate."""

    usual: bool
    """Whether every dtype is known to hold all that the rule makes of them."""

    @property
    def held(self) -> Settings | None:
        """The settings that are in force instead, for a step in flight."""

    def at(self, hyperparameters: dict[str, Any], t: int) -> dict[str, Any]:
        """The given hyperparameters at step t, in which the learning rate is a number."""


class Cohort:
    """Parameters of one group and dtype that have taken the same number of steps, t.

    The count rises with the writes of a step, in the table that runs it: no signal can come
    between the two.
    """

    __slots__ = (
        *("by_slices", "constants", "dtype", "group", "largest", "rate", "rounding", "rule"),
        *("scheduled", "settled", "start", "steps", "storages", "watched"),
    )

    rule: Rule
    rounding: str | None
    """How values are rounded that are kept in fewer bytes."""
    constants: Values
    """Scalars that neither t nor the learning rate changes."""
    scheduled: bool
    """True if the learning rate is a function of t."""
    watched: bool
    """True if the scalars of the next step have to be looked at, or the rate be asked for."""

    def __init__(self, group: Settings, dtype: np.dtype[Any], t: int = 0) -> None:
        self.group = group
        self.dtype = dtype
        """The dtype that its parameters are stepped in."""
        self.storages: Storages | None = None
        """How they hold their operands, once steps are laid out."""
        self.start = t
        """The steps that it had taken when it was made."""
        self.steps: Sequence[int] = NONE
        """The count of those since, see `Table.steps`."""
        self.settled: Hyperparameters | None = None
        """The hyperparameters that rule and constants were made from; None before `settle`."""
        self.largest = -1.0
        """A learning rate up to which the dtype is known to hold all scalars; -1: of none."""
        self.rate: Any = None
        """The learning rate, or rates, of the step that comes; None while they are not watched."""
        self.by_slices = False
        """Whether all parameters are stepped by slices, as rates by column ask for."""

    @property
    def t(self) -> int:
        """The number of steps that its parameters have taken."""
        return self.start + int(self.steps[0])

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        held = self.group.held
        return self.group if held is None else held

    @property
    def has_rates(self) -> bool:
        """Whether its learning rate is an array, as far as that is known."""
        rates = self.settings.hyperparameters["lr"], self.rate
        return any(isinstance(each, Rates) for each in rates)

    @property
    def key(self) -> Hashable:
        """A key that is equal for cohorts that take the same steps from now on."""
        return id(self.group), self.dtype, self.t

    def again(self) -> Cohort:
        """A new cohort that takes the same steps from now on."""
        return type(self)(self.group, self.dtype, self.t)

    def given(self, declaration: Declaration, values: Hyperparameters, t: int) -> JobScalars:
        """The scalars of its step t, of which the constants are settled."""
        return self.constants, declaration.scalars(values, t)

    def given_alone(self, declaration: Declaration, values: Hyperparameters, t: int) -> JobScalars:
        """The same of a step t of rows that count their own."""
        return self.given(declaration, values, t)

    def check_range(
        self, declaration: Declaration, values: Hyperparameters, given: JobScalars, t: int
    ) -> None:
        """Refuse scalars of step t that the dtype does not hold, and know its rate from then on."""
        self.refuse_unfit(declaration, values, given, t)
        self.largest = values["lr"]

    def refuse_unfit(
        self, declaration: Declaration, values: Hyperparameters, given: JobScalars, t: int
    ) -> None:
        """Refuse scalars of step t that are infinite or zero in the dtype."""
        where = getattr(self.group, "where", "")
        refuse_unfit(declaration, values, given, self.dtype, where, t, self.fades())

    def refuse_unfit_rates(
        self,
        declaration: Declaration,
        values: Hyperparameters,
        rates: Sequence[float],
        t: int,
    ) -> None:
        """Refuse rates of step t by which the dtype does not hold the scalars."""
        if self.settings.usual and all(map(is_usual, rates)):
            return
        for lr in rates:
            alone = {**values, "lr": lr}
            self.refuse_unfit(declaration, alone, self.given_alone(declaration, alone, t), t)

    def fades(self) -> bool:
        """Whether the learning rate may come to nothing, as that of a schedule."""
        return callable(self.settings.hyperparameters["lr"])

    def settle(self, declaration: Declaration, values: Hyperparameters) -> bool:
        """Bring the constants up to these hyperparameters, which are the group's.

        False, and nothing done, if they call for another rule than at first.
        """
        rule, rounding = rule_of(declaration, values), values.get("rounding")
        if self.settled is not None and (rule != self.rule or rounding != self.rounding):
            return False
        check_rounding()  # the constants outlive this step
        self.rule = rule
        self.rounding = rounding
        self.constants = declaration.constants(values)
        if values["ema"] is not None:
            self.constants |= average_constants(values["ema"])
        self.scheduled = callable(values["lr"])
        self.settled = values
        usual, by_column = self.settings.usual, isinstance(values["lr"], Rates)
        self.largest = LARGE if usual else -1.0
        self.watched = self.scheduled or by_column or not usual
        self.rate = None
        return True


def rule_of(declaration: Declaration, hyperparameters: Hyperparameters) -> Rule:
    """The rule that hyperparameters call for, with the moving average if they have one."""
    rule = declaration.rule(hyperparameters)
    return rule if hyperparameters["ema"] is None else rule._replace(averaged=True)


def refuse_unfit(
    declaration: Declaration,
    hyper: Hyperparameters,
    given: JobScalars,
    dtype: np.dtype[Any],
    where: str,
    t: int,
    fading: bool = False,
) -> None:
    """Refuse a step whose scalars the dtype of its parameters does not hold."""
    found = unfit(given, hyper, dtype, fading)
    if found is None:
        return
    name = found.hyperparameter or found.scalar
    if is_usual(hyper.get(name)):  # then another is to blame, which the scalar is made of, too
        name = next((each for each, value in hyper.items() if not is_usual(value)), name)
    value = hyper.get(name, found.value)
    numbers = value if isinstance(value, tuple) else (value,)
    what = "0" if abs(found.value) < 1 else "infinite"
    other = "larger" if max(map(abs, numbers)) < 1 else "smaller"
    makes = (
        ""
        if found.value in numbers
        else f" makes the scalar {found.scalar!r} {found.value!r} at t={t}, which"
    )
    default = declaration.defaults.get(name)
    remedy = "" if default is None else f", as `{name}={default!r}`"
    wider = ", or parameters of float64" if dtype.itemsize == 4 and isfinite(found.value) else ""
    raise ValueError(
        f"{where}{name}={value!r}{makes} is {what} in {dtype.name}, the dtype of the parameters "
        f"that it steps; pass a {other} one{remedy}{wider}"
    )


class Parameter:
    """One parameter and its state.

    `array` is the user's, `p` a view of its memory that no user has: whatever is done to the
    array object later, its shape and dtype here are those that were checked. NumPy refuses to
    resize what it is a view of; if it is a view of nothing, `check_memory` notices.
    """

    shelf: Shelf
    """Memory of state arrays, of which this parameter has the part from element `start` on."""
    start: int

    def __init__(
        self,
        path: str,
        array: Any,
        p: Array,
        cohort: Callable[[Any], Cohort],
        place: Place,
        ordinal: int = 0,
        copy: Array | None = None,
        nonnegative: Sequence[str] = (),
    ) -> None:
        """`copy` is the array that it is written into as well, `nonnegative` as a declaration's."""
        self.path = path
        self.array = array
        self.p = p
        owner = pin(p)
        self.pin = None if owner() is array else owner
        self.place = place
        self.walk = Walk(self.p, place)
        self.dtype = compute_dtype(p.dtype)
        self.cohort = cohort(self.dtype)
        self.ordinal = ordinal
        self.copy = copy
        self.nonnegative = nonnegative
        hyper, copied = self.cohort.settings.hyperparameters, None if copy is None else copy.dtype
        self.format = format_of_parameter(p.dtype, hyper, copied, f"params{path}")
        """The name of its format; None: it is stepped as it is."""
        self.fresh = True
        """Whether nothing has been loaded into state, and nobody else has it."""
        self.in_segment = False
        """Whether state lies as the parameters of an arena do."""
        self.letters: tuple[str, ...] = ()
        """Letters of the state arrays that it has, in the order in which they came."""
        self.views: dict[str, Array] = {}
        """State arrays in the parameter's shape, made when they are first asked for."""
        self.packed: dict[str, Packed] = {}
        """State arrays in fewer bytes, and where p has a second array, that as "p"."""
        self.row: Row | None = None
        self.slices: Slices | None = None
        """How it is stepped by rows; None until a gradient has had some."""
        if self.format is not None:
            self._begin_second(self.format)

    def _begin_second(self, name: str) -> None:
        """Make the second array that the format of p has, if any."""
        storage = STORAGES[name]
        if self.copy is not None:
            return
        first = self.p_operand()
        seconds = [self._new(part) for part in storage.parts[1:]]
        if name.startswith("master"):
            self.place.write(seconds[0], self._values_of_halves())
        self.packed["p"] = Packed(storage, (first.flat, *seconds))

    def _new(self, part: Part) -> Array:
        """New memory for a part of an operand: all zeros."""
        others = [address(array) for each in self.packed.values() for array in each.arrays]
        size = part.length(self.p.size)
        return zeros(self.place, size, part.dtype, apart=[extent(self.p)[0], *others])

    def _packed(self, letter: str, name: str) -> Packed:
        """A state array in a format, made when it is first asked for."""
        if letter not in self.packed:
            storage = STORAGES[name]
            self.packed[letter] = Packed(storage, (*map(self._new, storage.parts),))
        return self.packed[letter]

    def _values_of_halves(self) -> Array:
        """The values of a 16-bit parameter alone, flat, as float32."""
        return STORAGES[HALVES[self.p.dtype]].decode(self.p.size, (self._read(self.p_operand()),))

    def _flattened(self, array: Array) -> Array:
        """An array of the parameter's shape, flat in the order of the walk."""
        return np.ascontiguousarray(self.walk.lay(array)).reshape(-1)

    def p_operand(self) -> Operand:
        """The operand of p, made anew."""
        return Operand(self.p, self.walk)

    def _read(self, operand: Operand) -> Array:
        """A flat copy of what an operand holds, on the CPU."""
        if operand.scratch:
            operand.fetch()
        return self.place.read(operand.flat)

    def format_of(self, letter: str) -> str | None:
        """The format of a state array; None if it is as the kernels read it."""
        hyper = self.cohort.settings.hyperparameters
        return format_of_state(letter, hyper, self.nonnegative, self.dtype, self.p.size)

    @property
    def is_apart(self) -> bool:
        """Whether it has formats of its own, and cannot be one tensor with its neighbours."""
        return self._packs_state or self.format is not None or self.slices is not None

    @property
    def _packs_state(self) -> bool:
        """Whether state may be kept in fewer bytes."""
        if self.packed.keys() - {"p"}:
            return True
        asked = self.cohort.settings.hyperparameters.get("state_dtype", "float32")
        each = asked.values() if isinstance(asked, Mapping) else [asked]
        small = self.dtype != FLOAT32 or self.p.size < SMALL
        return not small and any(dtype != "float32" for dtype in each)

    def gradient_format(self, g: Any) -> str | None:
        """The format of a gradient; None: it is of the dtype of steps, or is refused."""
        return None if self.slices is not None or has_rows(g) else format_of(g)

    def storages(self, rule: Rule, g: str | None) -> Storages | None:
        """How steps by a rule hold their operands, with gradients in the format g."""
        hyper = self.cohort.settings.hyperparameters
        formats = [None if each is None else self.format_of(each) for each in rule.letters]
        rounding = hyper.get("rounding", "auto")
        return storages(self.format, g, rule.letters, (*formats,), (*self.nonnegative,), rounding)

    # ---- rows ----

    @property
    def members(self) -> list[Parameter]:
        """The parameters that it stands for: itself."""
        return [self]

    def begin_slices(self, why: str, remedy: str) -> None:
        """Step by rows from now on; `why` begins the error if that cannot be, `remedy` ends it."""
        self.refuse_slices(why, remedy)
        hyper = self.cohort.settings.hyperparameters
        if self._gains_by_lines:
            self._begin_state_at_lines()
        self.slices = Slices(self.p.shape, hyper["untouched"], hyper["row_steps"], self.cohort.t)
        self.row = None

    def refuse_slices(self, why: str, remedy: str) -> None:
        """Refuse to step by rows what cannot be; see `begin_slices`."""
        name = f"params{self.path}"
        if self.p.ndim == 0:
            raise ValueError(f"{why}, and {name} a single number; {remedy}")
        if self.format is not None or self._packs_state:
            raise TypeError(
                f"{why}, and {name} or its state is kept in 16 or 8 bits; float32 and float64 in "
                "full are stepped by rows: put it into a group with `state_dtype='float32'`, or "
                f"{remedy}"
            )

    @property
    def _gains_by_lines(self) -> bool:
        """Whether rows of state, which is as it was made, are to lie in fewer cache lines."""
        if not self.fresh or self.cohort.t or "ema" in self.letters:
            return False
        if self.in_segment or not self.walk.plain:
            return False
        whole = self.p.size > 0 and self.p[0].nbytes % LINE == 0
        return whole and isinstance(self.place, Host) and address(self.p) % LINE != 0

    def _begin_state_at_lines(self) -> None:
        """Have state begin at a cache line, in memory of its own.

        It lies as far past a line as the parameter does, which is best for whole steps; but then a
        row of whole lines is spread over one more. Where p cannot be helped, state can.
        """
        low = address(self.p)
        like = low - low % LINE + PAGE // 2  # see memory.py for what happens nearer to p
        shelf = Shelf(self.place, self.dtype, self.p.size, like)
        for letter in self.letters:
            state = shelf.state(letter)
            if self.initial != 0:  # or all of it is zeros, of which nothing has been read yet
                state[: self.p.size] = self.flat(letter)
        vars(self).update({"shelf": shelf, "start": 0, "views": {}})

    def begin_columns(self) -> None:
        """Step by rows from now on, because their columns have different rates."""
        if self.slices is None:
            self.begin_slices("lr is an array", "pass a number as `lr`")

    def _restored_slices(self, t: int, row_t: Any) -> Slices | None:
        """The slices after t steps, or by themselves as many as `row_t` says."""
        if self.slices is None and row_t is None:
            return None
        hyper = self.cohort.settings.hyperparameters
        made = Slices(self.p.shape, hyper["untouched"], hyper["row_steps"], t)
        if row_t is not None and made.own:
            made.counts = row_t.copy()
            made.begun = -1
        return made

    def catch_up(self, kind: type[Table], ids: Integers | None = None) -> None:
        """Take the steps that these rows have missed, or for None all rows."""
        if self.slices is not None and self.slices.rule is not None:
            self.slices.catch_up(ids, self.row_of(self.slices.rule), self.cohort, kind)

    def values(self) -> Array:
        """The exact values in the parameter's shape, in the dtype of its steps: a copy."""
        flat = self._read(self.p_operand())
        if self.format is not None and self.copy is None:
            seconds = [self.place.read(each) for each in self.packed["p"].arrays[1:]]
            flat = STORAGES[self.format].decode(self.p.size, (flat, *seconds))
        return self.walk.shaped(flat).copy(order="C")

    def in_file(self) -> Array:
        """A copy on the CPU: in its own dtype, unless it has bits elsewhere, too."""
        beside = self.packed["p"].arrays[1:] if "p" in self.packed else ()
        if self.format is None or self.copy is not None or beside:
            return self.values()
        return self.walk.shaped(self._read(self.p_operand())).copy(order="C")

    def numbers(self, name: str) -> Numbers:
        """All numbers that the next steps depend on, as they see them: copies, on the CPU."""
        t, slices = self.cohort.t, self.slices
        states = {
            letter: self.state(letter)
            if letter in self.packed
            else self.place.read(self.state(letter))
            for letter in self.letters
        }
        return Numbers(name, self.values(), t, states, None if slices is None else slices.row_t(t))

    def assigning(self, values: Array) -> list[Call]:
        """The calls that give the parameter these values, in the dtype of its steps."""
        if self.format is None:
            return self.place.writing(self.p, values)
        contents = STORAGES[self.format].encode(self._flattened(values))
        calls = self.place.writing(self.p, self.walk.shaped(contents[0]))
        if self.copy is not None:
            return [*calls, *self.place.writing(self.copy, self.walk.shaped(contents[1]))]
        for array, content in zip(self.packed["p"].arrays[1:], contents[1:], strict=True):
            calls += self.place.writing(array, content)
        return calls

    def flat(self, letter: str) -> Array:
        """A state array as its part of the shelf: flat, in the order of the walk."""
        return self.shelf.state(letter)[self.start : self.start + self.p.size]

    def state(self, letter: str) -> Array:
        """A state array in the parameter's shape: the same object each time.

        One that is kept in fewer bytes is decoded, on the CPU and read-only.
        """
        if letter in self.packed:
            decoded = self.walk.shaped(self.packed[letter].read(self.place, self.p.size))
            decoded.flags.writeable = False
            return decoded
        if letter not in self.views:
            self.views[letter] = self.walk.shaped(self.flat(letter))
        return self.views[letter]

    def shown(self, letter: str) -> Any:
        """The array that a user gets of a state array: live, or decoded, and then read-only."""
        self.fresh = False
        state = self.state(letter)
        if letter not in self.packed or isinstance(self.place, Host):
            return self.place.show(state)
        made = self.place.empty(state.shape, state.dtype)
        self.place.write(made, state)
        return self.place.show(made)

    def allocate(self, states: tuple[str, ...]) -> None:
        """Add those of the state arrays `states` that are not there yet."""
        if self.letters != states:
            for letter in states:
                if letter not in self.letters:
                    self.add(letter)

    @property
    def initial(self) -> float:
        """The value that state starts from."""
        hyper = self.cohort.settings.hyperparameters
        return float(hyper.get("initial_accumulator_value", 0.0))

    def add(self, letter: str) -> None:
        """Add a state array, with the values that it starts from."""
        initial = self.initial
        packed_as = self.format_of(letter)
        if packed_as is None:
            self.shelf.state(letter)
        else:
            self._packed(letter, packed_as)
        if letter == "ema":
            _held = pin(self.p)  # until it has been read
            self.check_size()
            if self.format is None:
                self.place.copy(self.state(letter), self.p)
            else:
                self.place.write(self.state(letter), self.values())
        elif initial != 0:
            check_rounding()
            if not RANGES[self.dtype].holds(initial):
                raise ValueError(
                    f"initial_accumulator_value={initial!r} is "
                    f"{'infinite' if initial > 1 else '0'} in {self.dtype.name}, the dtype of "
                    f"params{self.path}; pass one that is not, as `initial_accumulator_value=0.1`"
                )
            if packed_as is None:
                self.place.write(self.state(letter), initial)
            else:
                filled = np.full(self.p.shape, initial, np.float32)
                self.place.at_once(self.restoring_state(letter, filled))
        if letter not in self.letters:  # a signal's handler may have added it on the way
            self.letters += (letter,)  # last: an array that is there has its values

    def restoring(self, state: Mapping[str, Any]) -> list[Call]:
        """The calls that take over t and exactly the arrays of `state`, in memory that is there."""
        kept = [letter for letter in self.letters if letter in state]
        letters = (*kept, *(letter for letter in state if letter not in {"t", "p", ROW_T, *kept}))
        calls: list[Call] = []
        gone = set(self.letters) - state.keys()
        for letter in gone - self.packed.keys():
            calls += self.place.clearing(self.flat(letter))  # the shelf hands this memory out again
        for letter in letters:
            calls += self.restoring_state(letter, state[letter])
        calls += self._restoring_second(state.get("p"))
        views = {letter: view for letter, view in self.views.items() if letter in letters}
        packed = {letter: each for letter, each in self.packed.items() if letter not in gone}
        cohort = Cohort(self.cohort.group, self.cohort.dtype, state["t"])
        changed = {"letters": letters, "views": views, "cohort": cohort, "row": None}
        changed["fresh"] = False
        changed["slices"] = self._restored_slices(state["t"], state.get(ROW_T))
        return [*calls, partial(vars(self).update, {**changed, "packed": packed})]

    def _restoring_second(self, rest: Array | None) -> list[Call]:
        """The calls that give the second array of p its content: what p lacks of each value."""
        if "p" not in self.packed or len(self.packed["p"].arrays) == 1:
            return []
        storage, (_, second) = self.packed["p"]
        if rest is None and storage.name.startswith("master"):
            return self.place.writing(second, self._values_of_halves())
        if rest is None:
            return self.place.clearing(second)
        flat = self._flattened(rest)
        coded = storage.parts[1].padded
        return self.place.writing(second, in_code_order(flat) if coded else flat)

    def restoring_state(self, letter: str, values: Array) -> list[Call]:
        """The calls that give a state array these values, in the dtype of steps."""
        packed_as = self.format_of(letter)
        if packed_as is None:
            return self.place.writing(self.state(letter), values)
        packed = self._packed(letter, packed_as)
        pairs = zip(packed.arrays, packed.storage.encode(self._flattened(values)), strict=True)
        return [call for array, content in pairs for call in self.place.writing(array, content)]

    def check_memory(self) -> None:
        """Refuse a parameter that cannot be written to any more, or has lost its memory.

        Whatever else its object says by now, its shape and dtype are those that were checked.
        """
        now = self._now()
        if now is not None and not now.flags.writeable:
            raise ValueError(
                f"params{self.path} has been made read-only since the optimizer was made, and a "
                "step writes to it; set its `flags.writeable = True`, or pass None for its gradient"
            )
        self.check_size()

    def check_size(self) -> None:
        """Refuse a parameter that has lost its memory."""
        now = self._now()
        if now is None or now.nbytes == self.p.nbytes == 0:
            return
        if (address(now), now.nbytes) != (address(self.p), self.p.nbytes):
            raise ValueError(
                f"params{self.path} has been resized since the optimizer was made, to "
                f"{now.shape}; make a new optimizer"
            )

    def check_as_found(self) -> None:
        """Refuse a parameter whose object does not say any more which elements are stepped."""
        self.check_size()
        now = self._now()
        if now is not None and not lies_as(now, self.p):
            raise ValueError(
                f"params{self.path} has been set to another shape, strides or dtype since the "
                f"optimizer was made: it was {dtype_name(self.p.dtype)} of shape {self.p.shape} "
                f"with strides {self.p.strides}; set them back, or load state_dict() into a new "
                "optimizer"
            )

    def _now(self) -> Array | None:
        """The user's array as it is now; None if it is on a device."""
        on_host = isinstance(self.place, Host)
        return plain(self.array, f"params{self.path}") if on_host else None

    def row_of(self, rule: Rule) -> Row:
        """The parameter's row in a plan, made once for as long as the rule has the same state."""
        if self.row is None or self.row.rule.states != rule.states:
            kind = type(self.array)
            on_host = isinstance(self.place, Host)  # where C reads gradients
            gradients = library(self.array).gradients(kind) if on_host else kind
            self.row = Row(
                Operand(self.p, self._walk_of_steps),
                self._walk_of_steps,
                rule,
                self._operand,
                array=self.array,
                gradients=gradients,
                rest=self._rest(rule),
                ordinal=self.ordinal,
                by_slices=self.slices is not None,
            )
        return self.row

    @property
    def _walk_of_steps(self) -> Walk:
        """The order in which steps go over it: rows are one after the other in C order alone."""
        if self.slices is None or self.walk.plain:
            return self.walk
        return Walk.in_order(self.p.shape, self.place)

    def _operand(self, letter: str) -> Operand:
        if self._walk_of_steps is not self.walk:
            return Operand(self.state(letter), self._walk_of_steps)
        packed = self.packed.get(letter)
        flat = self.flat(letter) if packed is None else packed.arrays[0]
        return Operand.of_flat(flat, self.place)

    def _rest(self, rule: Rule) -> Rest | None:
        """The second arrays of the operands; None if no operand has a format."""
        if self.format is None and not self.packed:
            return None
        of_p = None if self.copy is None else Operand(self.copy, self.walk)
        if "p" in self.packed:
            of_p = self._second("p")
        of_states = [None if each is None else self._second(each) for each in rule.letters]
        return Rest(of_p, (*of_states,))

    def _second(self, letter: str) -> Operand | None:
        packed = self.packed.get(letter)
        if packed is None or len(packed.arrays) == 1:
            return None
        return Operand.of_flat(packed.arrays[1], self.place)


class Packed(NamedTuple):
    """An operand in fewer bytes: its format, and the flat arrays that hold it."""

    storage: Storage
    arrays: tuple[Array, ...]

    def read(self, place: Place, n: int) -> Array:
        """The n values, flat, on the CPU."""
        return self.storage.decode(n, (*map(place.read, self.arrays),))


def shelve(parameters: Sequence[Parameter]) -> None:
    """Lay the state of a group's parameters side by side, each as far past a line as its p is."""
    for dtype, own in _divided(parameters, lambda parameter: parameter.dtype).items():
        like = extent(own[0].p)[0]
        end = 0
        for parameter in own:
            low = extent(parameter.p)[0] - like
            parameter.start = end + (low - end * dtype.itemsize) % LINE // dtype.itemsize
            end = parameter.start + parameter.p.size
        shelf = Shelf(own[0].place, dtype, end, like)
        for parameter in own:
            parameter.shelf = shelf


def by_shelf(parameters: Iterable[Parameter]) -> dict[Shelf, list[Parameter]]:
    """The parameters in the order of their shelves."""
    return _divided(parameters, lambda parameter: parameter.shelf)


def _divided(
    parameters: Iterable[Parameter], key: Callable[[Parameter], Key]
) -> dict[Key, list[Parameter]]:
    divided: dict[Key, list[Parameter]] = {}
    for parameter in parameters:
        divided.setdefault(key(parameter), []).append(parameter)
    return divided


class State(Mapping[str, Any]):
    """One parameter's state: its arrays by letter, live, and `t`, the steps it has taken.

    Where its rows count their own steps, `row_t` has the t of each.

    Arrays may be written to in place. What is read-only here changes by `load_state_dict`.
    Each look-up gives a new array over the same memory, whose shape or dtype may be set.
    """

    def __init__(self, parameter: Parameter, kind: type[Table], turn: Turn) -> None:
        self._parameter = parameter
        self._kind = kind
        self._turn = turn

    def __getitem__(self, key: str) -> Any:
        key = as_identifier(key)
        self._turn.wait_to_look()
        if key == "t":
            return self._parameter.cohort.t
        if key == ROW_T and self._row_t is not None:
            return self._row_t.copy()
        self._parameter.catch_up(self._kind)
        if key not in self._parameter.letters:
            raise KeyError(f"state has no {key!r}; {letter_hint(key, [*self])}")
        return self._parameter.shown(key)

    def __iter__(self) -> Iterator[str]:
        yield from self._parameter.letters
        yield "t"
        if self._row_t is not None:
            yield ROW_T

    def __len__(self) -> int:
        return len(self._parameter.letters) + 1 + (self._row_t is not None)

    @property
    def _row_t(self) -> Any:
        slices = self._parameter.slices
        return None if slices is None else slices.row_t(self._parameter.cohort.t)

    def __repr__(self) -> str:
        return repr(dict(self))


class States(dict[Any, Any]):
    """The states of a mapping's parameters, by its keys."""

    def __missing__(self, key: Any) -> Any:
        first = next(iter(self), None)
        own = STATE.get(key) if isinstance(key, str) else None
        if own is not None:
            hint = f"each parameter has its own: `opt.state[{first!r}][{own!r}]`"
        else:
            hint = did_you_mean(key, map(str, self), "it has")
        raise KeyError(f"state has no parameter {key!r}; {hint}")


def with_hints(states: Any) -> Any:
    """States, which say of a key that is not there what was meant."""
    return States(states) if type(states) is dict else states
