"""The steps of a torch optimizer as they are laid out over its groups and its state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast
from weakref import getweakrefcount

import torch
from torch.autograd.graph import increment_version

from fusedstep._arrays.at_once import Call, at_once
from fusedstep._arrays.checks import check_values
from fusedstep._arrays.place import Place
from fusedstep._backends.choose import choose
from fusedstep._backends.objects import Content, empty, gather, same
from fusedstep._backends.plan import Judging, Line, Scaler, Table
from fusedstep._backends.slices import Integers
from fusedstep._core.layout import Layout
from fusedstep._core.names_in_torch import STEP
from fusedstep._core.parameters import rule_of
from fusedstep._core.request import PLAIN, Report, Request
from fusedstep._core.tensors import Tensor as OfCore
from fusedstep._numerics.coefficients import JobScalars
from fusedstep.torch._arrays import HALVES, Seen, is_distributed, is_plain, local
from fusedstep.torch._handed_on import reasons_of_parameters
from fusedstep.torch._kept import Site as KeptSite
from fusedstep.torch._kinds import Group, Kind
from fusedstep.torch._state import COUNT, EMA, PRODUCT, Changes, Found, find_state
from fusedstep.torch._tensors import Counted, Settings, Tensor, Tensors
from fusedstep.torch._whole import Ready, Sharing, whole_step

GRAD = "grad"
"""The attribute of a parameter that has its gradient."""

STATE_USES, COUNT_USES = 4, 3
"""Uses of the storage of a state array, and of a count, if nobody else has a view of it: as itself,
as the views here, and as the storage that is asked."""


def storage_uses(tensor: Any) -> int:
    """The uses of a tensor's storage; 0 if this torch does not tell."""
    count = getattr(torch._C, "_storage_Use_Count", None)  # noqa: SLF001  it is nowhere else
    storage = tensor.untyped_storage()
    return 0 if count is None else int(count(storage._cdata))  # noqa: SLF001


class Numbered(Layout):
    """A layout whose steps leave their count, and NAdam's product, where torch can read it."""

    def scalars(self, in_flight: bool = False, steps: int | None = None) -> list[JobScalars] | None:
        given = super().scalars(in_flight, steps)
        numbers = self.plan.numbers
        if given is not None and numbers.size:
            coming = self.steps[0] + 1 if steps is None else steps
            for at, cohort in enumerate(self.cohorts):
                numbers[at, COUNT] = cohort.start + coming
            if numbers.shape[1] > PRODUCT:
                for at, cohort in enumerate(self.cohorts):
                    assert isinstance(cohort, Counted)
                    numbers[at, PRODUCT] = cohort.after
        return given

    late = False
    """Whether steps may have been taken that are not counted where torch can read it."""

    def takes_scaler(self, request: Request) -> bool:
        """Whether a step may be left out by what a GradScaler has on the device.

        NAdam's product, which torch can read as well, would have to be known.
        """
        numbers = self.plan.numbers
        return self.judged and request.scale == 1 and numbers.shape[1] <= PRODUCT

    def judge_scaled(self, lines: Sequence[Line], request: Request, scaler: Scaler) -> Report:
        """Step unless the scaler has found infinity or NaN, which nobody waits for."""
        if self.late:
            self._leave(self.plan.known)
        self.late = True
        return self.judge(lines, request, "propagate", scaler)

    def settle(self) -> None:
        """Leave the count of steps where torch can read it, once it is known: this waits."""
        if self.late:
            self._leave(self.steps[0])
            self.late = False

    def _leave(self, taken: int) -> None:
        numbers = self.plan.numbers
        if taken and numbers.size:
            numbers[:, COUNT] = [cohort.start + taken for cohort in self.cohorts]
            at_once(cast(Judging, self.plan.table).leaving())

    @staticmethod
    def _has_rows_in(tensor: OfCore, g: Any) -> bool:
        assert isinstance(tensor, Tensor)
        return tensor.slices is not None or tensor.settings.takes_rows(g)


class Site:
    """A place, and how the parameters there are shared between processes."""

    def __init__(self, place: Place, sharing: Sharing) -> None:
        self.place = place
        self.sharing = sharing

    def is_like(self, other: Site) -> bool:
        """Whether parameters there can be stepped together with those of the other."""
        one, two = self.place, other.place
        same_place = one is two or getattr(one, "ordinal", -1) == getattr(two, "ordinal", -2)
        return same_place and self.sharing == other.sharing


class Steps:
    """The steps of one optimizer, for as long as its groups and its state are what they were."""

    def __init__(
        self,
        kind: Kind,
        param_groups: list[Group],
        state: Any,
        averages: Mapping[Any, Any],
        backend: str,
        lists: list[list[Any]] | None = None,
        first: int = 0,
        as_given: bool = False,
    ) -> None:
        """`lists` has the parameters of each group; None: all that the groups have.

        `first` is the number of the first parameter among all of its optimizer. `as_given` says
        that state is the caller's, and stays in the dtypes that it has.
        """
        self.kind = kind
        self.state = state
        self.averages = averages
        self.backend = backend
        self.groups = [*param_groups]
        self.lists = [[*group["params"]] for group in param_groups] if lists is None else lists
        self.partial = lists is not None
        self.first = first
        self.as_given = as_given
        self.settings = [Settings(group, kind) for group in param_groups]
        self.parameters = [p for own in self.lists for p in own]
        self.group_of = [k for k, own in enumerate(self.lists) for _ in own]
        self.odd = [at for at, p in enumerate(self.parameters) if not is_plain(p)]
        """Indices of parameters whose gradients are not read as they are."""
        self.shards = [(p, local(p)) for p in self.parameters if is_distributed(p)]
        """The distributed parameters, each with its part on this process."""
        self.tensors: list[Tensor | None] = [None] * len(self.parameters)
        self.site_of: list[Any] = [None] * len(self.parameters)
        """The site of each parameter that has been stepped."""
        self.tables: dict[Site, type[Table]] = {}
        """The sites that there are, each with what runs a step there."""
        self.layouts: dict[Site, Numbered] = {}
        self.written: list[Any] = []
        """The parameters that step, and the caller's own averages of them."""
        self.foreign = reasons_of_parameters(self.parameters)
        """Why torch alone can step some of the parameters."""
        self.handed_on = self._reasons()
        """Why torch alone can take these steps; empty if it need not."""
        self.pairs = [*zip(self.groups, self.lists, strict=True)]
        self.reached = True
        """Whether anybody else may have a part of the state."""
        self.content: Content | None = Content(state)
        """The objects in the state; None while some are being added."""
        self.grads: list[Any] = [None] * len(self.parameters)
        """The gradients of the step that is under way."""
        self.by_rows: dict[int, Tensor] = {}
        """The tensors whose steps are by rows."""

    def path(self, at: int) -> str:
        """A parameter as errors call it: by its name, if it has one, or its place."""
        group = self.group_of[at]
        own = at - self.group_of.index(group)
        names = self.groups[group].get("param_names")
        if names is not None and not self.partial:
            return f"[{names[own]!r}]"
        return f"[{group}]['params'][{own}]"

    def stand(self, param_groups: list[Group], state: Any, touched: bool) -> bool:
        """Whether groups, parameters, state and all their memory are what they were.

        `touched` says that somebody may have got at the state since the step before. If nobody
        has, and nobody had any of it then, none of it needs to be looked at.
        """
        if state is not self.state or not same(param_groups, self.groups):
            return False
        if not self.partial:
            for group, own in self.pairs:
                if not same(group["params"], own):
                    return False
        everything = touched or self.reached
        if everything and not (self.content is not None and self.content.is_of(state)):
            return False
        for p, shard in self.shards:
            if local(p) is not shard:
                return False
        return all(layout.plan.stands(everything) for layout in self.layouts.values())

    def look_who_has_state(self) -> None:
        """Note whether anybody else has a part of the state, as it is now."""
        assert self.content is not None
        self.reached = bool(self.odd) or self.content.is_reached() or self._is_aliased()

    def _is_aliased(self) -> bool:
        """Whether the memory of a state tensor is anybody else's, or of other processes."""
        assert self.content is not None
        here = {id(each.given) for tensor in self.tensors if tensor for each in tensor.sheltered}
        return any(
            type(value) is not torch.Tensor
            or value.is_complex()  # whose views as reals count, too
            or (value.is_cpu and value.is_shared())  # what is on a device says so always
            or getweakrefcount(value) > 0
            or storage_uses(value) != (STATE_USES if id(value) in here else COUNT_USES)
            for value in self.content.values
            if type(value) is not tuple  # which nobody can change
        )

    def read_settings(self) -> None:
        """Bring the hyperparameters up to the groups."""
        for settings in self.settings:
            if settings.are_old():
                choice = settings.choice
                settings.read()
                self.handed_on = self._reasons()
                if settings.choice != choice:
                    self.settle()
                    self.layouts = {}  # made of state that is kept otherwise from now on

    def _reasons(self) -> list[str]:
        return [*self.foreign, *(reason for each in self.settings for reason in each.handed_on)]

    # ---- gradients ----

    def gradients(self) -> list[Any]:
        """The gradients of all parameters, as far as possible in the form that C takes."""
        gather(self.parameters, GRAD, self.grads)
        return self.prepared(self.grads) if self.odd else self.grads

    def prepared(self, grads: list[Any]) -> list[Any]:
        """The list of these gradients, in which each has as far as possible the form that C takes.

        It is changed in place.
        """
        for at in self.odd:
            tensor, g = self.tensors[at], grads[at]
            if g is not None and tensor is not None:
                tensor.settings.refuse_layout(g)
                if not tensor.settings.takes_rows(g):
                    grads[at] = tensor.seen.gradient(g)
        return grads

    # ---- a step ----

    def step(self, request: Request, nonfinite: str) -> Report:
        """Step all parameters that have a gradient, wholly or not at all.

        `read_settings` comes first.
        """
        try:
            return self.step_by(self.gradients(), request, nonfinite)
        finally:
            empty(self.grads)
            for layout in self.layouts.values():
                if layout.plan.holding:
                    layout.plan.let_go()

    def step_by(self, grads: list[Any], request: Request, nonfinite: str) -> Report:
        """The same by gradients that are given."""
        if request is PLAIN and nonfinite == "propagate" and len(self.layouts) == 1:
            (layout,) = self.layouts.values()
            report = layout.step(grads)
            if report is not None:
                increment_version(self.written)
                return report
        report = whole_step(self.take(grads), request, nonfinite)
        increment_version(self.written)
        return report

    def step_scaled(
        self, request: Request, nonfinite: str, scale: Any, found: Any
    ) -> Report | None:
        """The same by the tensors of a GradScaler, which nobody waits for.

        None, and nothing done, if it has to be looked at on the host. `read_settings` comes first.
        """
        if nonfinite != "propagate" or len(self.layouts) != 1:
            return None
        ((site, layout),) = self.layouts.items()
        tensors = [each for each in (scale, found) if each is not None]
        if site.sharing.dimensions or not layout.takes_scaler(request):
            return None
        if any(
            each.dtype != torch.float32 or each.device != self.parameters[0].device
            for each in tensors
        ):
            return None
        try:
            lines = layout.lines()
            if lines is None or not layout.take(self.gradients(), False):
                return None
            self.scaler = tensors  # until the next one is there
            addresses = [0 if each is None else each.data_ptr() for each in (scale, found)]
            report = layout.judge_scaled(lines, request, Scaler(*addresses))
            increment_version(self.written)
            return report
        finally:
            empty(self.grads)
            if layout.plan.holding:
                layout.plan.let_go()

    def take(self, grads: list[Any]) -> list[Ready]:
        """The layouts, which have taken these gradients."""
        ready = self._taken(grads) if self.layouts else None
        if ready is None:
            self.settle()
        if ready is None and self.by_rows:
            self._catch_up_by_old_rules()
        if ready is None and self._select(grads):
            ready = self._taken(grads)
        if ready is None:
            known = self.content is not None
            self.content, self.reached = None, True
            found = self.lay_out(grads, known)
            ready = self._taken(grads)
            assert ready is not None
            for p, changes in found:
                at_once(changes.calls(self.state, p))
            self.content = Content(self.state, self._held())
        return ready

    def _select(self, grads: list[Any]) -> bool:
        """Let the layouts serve gradients of other parameters; False if that takes others."""
        layouts, self.layouts = self.layouts, {}  # they are of no use if this is cut off
        if not layouts or not all(
            layout.select(self._at(site, grads)) for site, layout in layouts.items()
        ):
            return False
        self.layouts = layouts
        self._note(grads)
        return True

    def _note(self, grads: list[Any]) -> None:
        """Note what steps with these gradients write."""
        stepped = [p for p, g in zip(self.parameters, grads, strict=True) if g is not None]
        averages = self.averages
        self.written = [*stepped, *(averages[p] for p in stepped if p in averages)]

    def _held(self) -> Counter[int]:
        """The references to the state and to its tensors that there are here, by their ids."""
        present = [tensor for tensor in self.tensors if tensor is not None]
        held = Counter(
            id(each.given)
            for tensor in present
            for each in tensor.sheltered
            for _ in range(each.HOLDS)
        )
        held.update(id(each.array) for tensor in present for each in tensor.counts)
        held[id(self.state)] = 2  # that of the optimizer, and that of this
        return held

    def _taken(self, grads: list[Any]) -> list[Ready] | None:
        """The result of `take`; None if a step must be laid out anew."""
        ready = []
        for site, layout in self.layouts.items():
            own = self._at(site, grads)
            scalars = layout.scalars()
            if scalars is None or not layout.take(own, False):
                return None
            ready.append(Ready(layout, site.sharing, own, scalars))
        return ready

    def _at(self, site: Site, items: list[Any]) -> list[Any]:
        """The list with None in the place of what belongs to parameters elsewhere."""
        if len(self.tables) == 1:
            return items
        pairs = zip(self.site_of, items, strict=True)
        return [item if own is site else None for own, item in pairs]

    @property
    def t(self) -> int:
        """The steps taken by the parameters with most."""
        return max((layout.t for layout in self.layouts.values()), default=0)

    # ---- the layout ----

    def lay_out(self, grads: list[Any], known: bool) -> list[tuple[Any, Changes]]:
        """Lay out steps with these gradients; the result is what is to be done to the state.

        `known` says that the objects in the state are those that were found.
        """
        rules = [rule_of(self.kind.declaration, each.hyperparameters) for each in self.settings]
        made, standing = [], {}
        for at, (g, tensor) in enumerate(zip(grads, self.tensors, strict=True)):
            rule = rules[self.group_of[at]]
            stands = known and tensor is not None and tensor.stands(rule)
            if tensor is not None and tensor.is_behind and not stands:
                self._catch_up(at, None, known)
            if g is None:
                if stands and tensor is not None and tensor.row is not None:
                    standing[at] = tensor.row
                continue
            settings = self.settings[self.group_of[at]]
            settings.refuse_layout(g)
            by_rows = settings.takes_rows(g)
            if tensor is not None and (
                (by_rows and not tensor.by_rows) or (settings.by_column and tensor.slices is None)
            ):
                stands = False
            if not stands:
                made.append((self.parameters[at], self._find(at, rule, by_rows)))
        self._note(grads)
        self.layouts = {}
        for site, table in self.tables.items():
            tensors = Tensors(self._at(site, self.tensors), site.place)
            own = {at: row for at, row in standing.items() if self.site_of[at] is site}
            self.layouts[site] = Numbered(
                self.kind.declaration,
                table,
                tensors,
                {},
                self._at(site, grads),
                own if table.selects else {},
            )
        return made

    def _find(self, at: int, rule: Any, by_rows: bool) -> Changes:
        """Look up a parameter and its state; the result is what is to be done to that."""
        p, settings = self.parameters[at], self.settings[self.group_of[at]]
        table, site = self._choose(at)
        seen, kept = self._look_up(at, site.place)
        values, average = settings.hyperparameters, self.averages.get(p)
        found = find_state(self.kind, kept, rule, values, average, self.as_given, by_rows)
        ordinal = self.first + at
        tensor = Tensor(seen, self.path(at), settings, found, ordinal, by_rows)
        self.tensors[at] = tensor
        self.by_rows.pop(at, None)
        if tensor.slices is not None:
            self.by_rows[at] = tensor
        self.site_of[at] = site
        self.tables[site] = table
        return found.changes

    def _look_up(self, at: int, place: Place) -> tuple[Seen, KeptSite]:
        """A parameter as it is stepped, and what its state has of it."""
        p, path = self.parameters[at], self.path(at)
        seen = Seen(p, place, f"params{path}")
        check_values(seen.array, f"params{path}")
        return seen, KeptSite(p, seen.walk(), self.state.get(p, {}), path)

    # ---- rows that have missed steps ----

    @property
    def is_behind(self) -> bool:
        """Whether rows may have missed steps, or steps are not counted in the state yet."""
        late = any(layout.late for layout in self.layouts.values())
        return late or any(tensor.is_behind for tensor in self.by_rows.values())

    def settle(self) -> None:
        """Count all steps where torch can read it."""
        for layout in self.layouts.values():
            layout.settle()

    def catch_up(self, wanted: Mapping[int, Integers] | None = None) -> None:
        """Take the steps that rows have missed: those wanted, by their parameter, or for None all.

        Whatever has changed meanwhile, parameter and state are taken as they are found.
        """
        self.settle()
        known = self.content is not None and self.content.is_of(self.state)
        for at, tensor in [*self.by_rows.items()]:
            if tensor.is_behind and (wanted is None or at in wanted):
                self._catch_up(at, None if wanted is None else wanted[at], known)

    def _catch_up_by_old_rules(self) -> None:
        """Take the steps that rows have missed by other rules than the next one."""
        for at, tensor in [*self.by_rows.items()]:
            values = self.settings[self.group_of[at]].hyperparameters
            if tensor.is_behind and not tensor.goes_by(rule_of(self.kind.declaration, values)):
                self._catch_up(at, None, self.content is not None)

    def _catch_up(self, at: int, ids: Integers | None, known: bool) -> None:
        tensor, p = self.by_rows[at], self.parameters[at]
        if not (known and tensor.row is not None and tensor.row.stands(True)):
            tensor, ids = self._found_elsewhere(at, tensor), None
        tensor.catch_up(self.tables[self.site_of[at]], ids)
        increment_version([p, *(self.averages[each] for each in [p] if each in self.averages)])

    def _found_elsewhere(self, at: int, tensor: Tensor) -> Tensor:
        """A tensor whose rows are behind, where it is now; as it was, if nothing is left of it."""
        p = self.parameters[at]
        assert tensor.slices is not None
        seen, kept = self._look_up(at, tensor.seen.place)
        as_before = seen.array.shape == tensor.p.shape and seen.array.dtype == tensor.p.dtype
        rule, values = tensor.slices.rule, tensor.settings.hyperparameters
        assert rule is not None
        if not as_before or (rule.states and not self.state.get(p)):
            return tensor
        found = find_state(self.kind, kept, rule, values, self.averages.get(p), True)
        at_once(found.changes.calls(self.state, p))
        return tensor.moved_to(seen, found)

    # ---- parameters in full ----

    def exact(self) -> list[Any]:
        """Copies of all parameters as steps see them."""
        places = [self._choose(at)[1].place for at in range(len(self.parameters))]
        return [self._look_up(at, place)[1].exact() for at, place in enumerate(places)]

    def assigning(self, values: list[Any]) -> list[Call]:
        """The calls that give all parameters these values, with all bits of them."""
        if len(values) != len(self.parameters):
            raise ValueError(
                f"params has {len(values)} tensors for {len(self.parameters)} parameters; pass one "
                "for each, in the order of the groups, as float32_params() returns them"
            )
        self.read_settings()
        return [call for at, value in enumerate(values) for call in self._assigning(at, value)]

    def _assigning(self, at: int, value: Any) -> list[Call]:
        _, kept = self._look_up(at, self._choose(at)[1].place)
        kept.refuse_unlike(value)
        found = self._found(at, kept)
        if EMA in found.changes.made and EMA not in kept.existing:  # it starts from the new values
            found.changes.made[EMA] = value.detach().clone()
        changes = found.changes.followed_by(kept.assigned_to(value, found.formats.p))
        return changes.calls(self.state, kept.parameter)

    def taking_back(self) -> list[Call]:
        """The calls that take back the state arrays of parameters that have not been stepped.

        To a class that does not count they would say that a step was taken.
        """
        calls: list[Call] = []
        for p, tensor in zip(self.parameters, self.tensors, strict=True):
            own = self.state.get(p)
            if not own or STEP in own or tensor is None or tensor.cohort.t > 0:
                continue
            gone = [name for name in self.kind.names.values() if name in own]
            calls += [partial(own.__delitem__, name) for name in gone]
            if len(gone) == len(own):
                calls.append(partial(self.state.__delitem__, p))
        return calls

    def completing(self) -> list[Call]:
        """The calls that make what 16-bit parameters lack of their state."""
        calls: list[Call] = []
        for at, p in enumerate(self.parameters):
            if p.dtype in HALVES:
                _, kept = self._look_up(at, self._choose(at)[1].place)
                calls += self._found(at, kept).changes.calls(self.state, p)
        return calls

    def _found(self, at: int, kept: KeptSite) -> Found:
        """The state of a parameter, without a step."""
        values = self.settings[self.group_of[at]].hyperparameters
        rule = rule_of(self.kind.declaration, values)
        if not (self.kind.counted or kept.existing):
            rule = rule._replace(letters=(), averaged=False)  # it would say that steps were taken
        average = self.averages.get(kept.parameter)
        return find_state(self.kind, kept, rule, values, average)

    def _choose(self, at: int) -> tuple[type[Table], Site]:
        """The site of a parameter, and what runs a step there."""
        p = self.parameters[at]
        part = local(p).detach()
        table, place = choose(
            self.backend, [(f"params{self.path(at)}", part)], self.kind.declaration.custom
        )
        found = Site(place, Sharing.of(p) if is_distributed(p) else Sharing())
        return table, next((known for known in self.tables if known.is_like(found)), found)
