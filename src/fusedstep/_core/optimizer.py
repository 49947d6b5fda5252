"""The base of all optimizers: parameters and groups, steps, state, and resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from inspect import getattr_static
from math import inf
from threading import get_ident
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, NoReturn, overload

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.checks import check_like
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import Host
from fusedstep._arrays.plain import plain
from fusedstep._arrays.structure import Structure, named, refuse_fleeting
from fusedstep._backends.choose import choose
from fusedstep._checks.rates import shown
from fusedstep._checks.values import Rate
from fusedstep._checks.wording import quoted
from fusedstep._core.arena import ARENA_GRADIENTS, Arena, memory_of
from fusedstep._core.arena_memory import ArenaMemory
from fusedstep._core.capturable import CapturableLayout, assigned, refuse_column_rates
from fusedstep._core.checkpoint import Checkpoint
from fusedstep._core.container import Container
from fusedstep._core.declaration import Declaration
from fusedstep._core.digest import Numbers, digest, names_of
from fusedstep._core.groups import Group, rate_all, read_groups
from fusedstep._core.hints import (
    MISSING,
    STEPS_OWN,
    Groups,
    Missing,
    key_hint,
    refuse_attribute,
    signature_of_step,
    step_misfit,
    with_missing,
    without_optimizer,
)
from fusedstep._core.layout import NO_ROWS, Layout, Rules, rules_of
from fusedstep._core.numbers_in_file import with_digest
from fusedstep._core.parameters import Parameter, State, rule_of, with_hints
from fusedstep._core.repr import show
from fusedstep._core.request import (
    GLOBAL,
    PLAIN,
    Report,
    Request,
    check_capturable,
    check_in_dtypes,
    check_policy,
    check_request,
)
from fusedstep._core.rows import has_rows, ids_of
from fusedstep._core.saving import FACE, Giving, Saved, named_arrays, other_arrays, states_in_file
from fusedstep._core.state_dict import (
    FORMAT,
    read_group,
    read_state,
    read_top,
    save,
    saved,
    saved_group,
)
from fusedstep._core.tensors import Tensors, of_rows, parameters_of
from fusedstep._core.turn import NONE_HELD, Turn
from fusedstep._core.unpickled import Originals
from fusedstep._core.whole_step import begin, whole_step

if TYPE_CHECKING:
    from concurrent.futures import Future

UNSCALED = PLAIN.scale

ASKED = Request._fields
"""The names of a step's arguments, as `check_request` has them."""


class Inside(NamedTuple):
    """An optimizer as records see it."""

    names: list[str]
    parameters: Sequence[Parameter]
    structure: Structure
    nonfinite: str
    on_host: bool
    """Whether its arrays are in the memory of the CPU."""
    has_copies: bool
    """Whether steps write into arrays of 16 bits as well."""
    numbers: Callable[[], list[Numbers]]
    """A function that copies the numbers of each parameter."""


class Optimizer:
    """The base of all optimizers; use one of its subclasses.

    Parameters are a NumPy array, or a sequence or mapping of arrays, nested at will, or a
    sequence of groups as torch has them: mappings with `"params"` and the hyperparameters
    in which that group differs. They are float32, float64, float16 or bfloat16 (of ml_dtypes,
    or of torch) of any layout, and change in place. State is of a parameter's shape and of the
    dtype that it is stepped in, float64 or float32, and starts at t = 0. Gradients are of
    that dtype, or of 16 bits where it is float32. Many small parameters are best put in a
    `fusedstep.Arena`, which then stands for them and for their gradients.

    Parameters may also live on a CUDA device, all on the same: arrays of Numba or CuPy,
    tensors of torch (`p.detach()`), whatever has `__cuda_array_interface__`. Gradients and
    state live there, too. A step is put on the current stream of torch or CuPy, if the
    first parameter is theirs, else on the default stream, and does not wait for it. State
    arrays are Numba's, which `cupy.asarray(a)` and `torch.as_tensor(a, device="cuda")` take
    without a copy. `state_dict()` holds NumPy arrays, so a run goes on anywhere.

    A CUDA graph can hold steps of an optimizer with `capturable=True`. The device then counts t,
    and knows the rate by itself, so that a graph that is launched n times takes the n steps that
    come, to the bit. Take the first step outside of the graph, as it lays out memory. `opt.lr`
    and other hyperparameters may be assigned between launches, on the stream of these; a function
    of t is called for 65,536 steps ahead, see `prepare_replays`. The arguments of `step`, and
    where gradients are, stay what they were when the graph was recorded.

    Two arguments, by keyword, every optimizer has. `ema`, β in [0, 1), keeps a moving
    average of the parameters, as state `"ema"`, which starts from the parameters that were
    given. It is written in the same pass, after the rule::

        ema = β·ema + (1 - β)·p

    `nonfinite` says what becomes of a step for which a gradient holds NaN or infinity, or
    would divided by `scale`. `"propagate"` takes it as any other. `"skip"` leaves the step
    out: parameters, state and t of all tensors stay as they are, and the report names the
    parameters. `"raise"` does the same with a FloatingPointError. Both read the gradients
    once more, together with `max_norm`.

    Four more say how things are kept in memory; groups can differ in them. The rule knows none
    of it: values are decoded to float32, stepped, and encoded again, in one pass.

    `master` is for parameters of 16 bits, which are too coarse for most updates. `"split16"`,
    as None for bfloat16, keeps the lower 16 bits of each float32 beside its upper ones: the run
    is that of float32 parameters to the last bit, and the model sees them rounded.
    `"split8"` keeps 8 of these bits. `"float32"`, as None for float16, keeps a whole float32;
    what is assigned to the parameter itself counts. False keeps nothing: a bfloat16 alone,
    rounded stochastically. `float32_params()` are the exact values.

    `state_dtype` is that of state: `"float32"`, `"bfloat16"`, or `"8bit"`, logarithmic codes in
    blocks of 256 elements. `{"m": "bfloat16", "v": "8bit"}` chooses by letter. State of fewer
    than 4,096 elements stays float32. `opt.state` has decoded copies of what is not.

    `rounding` to the `"nearest"` loses what changes a value by less than half a step, at each
    step anew: a running mean of squares that moves by a thousandth of itself would stand still
    in 16 bits. `"stochastic"` rounds up or down with odds that make up for it in the mean, by
    random bits that depend on `seed`, t, the parameter's number and the element's place alone:
    the same on each backend, with any number of threads, and in a resumed run. `"auto"` does so
    for running means of squares, all 8-bit state, `"split8"` and bfloat16 without a master.

    `out`, for float32 parameters, are arrays of 16 bits like these; each step leaves the
    parameters there, too, rounded to the nearest, for a model that is run in 16 bits.
    """

    _declaration: ClassVar[Declaration]

    _ahead = False
    """True while the parameters stand ahead, see `SGD.lookahead`."""

    _capturable = False
    """Whether steps may be part of a CUDA graph."""

    _arena: Arena | None = None
    _container: Container | None = None
    """The user's container of the parameters; None for a single array, and for an arena."""
    _originals: Originals | None = None
    """Parameters that were unpickled and copied, until the first step has looked who has them."""
    _gathered: Tensors | None
    """The tensors that steps go over; None until they are asked for, and after a load."""
    _layout: Layout | None
    """The steps as they are laid out; None before the first, and after a load."""

    def __init__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        raise TypeError(
            f"{type(self).__name__} has no rule of its own; use one of the optimizers that have, "
            "as `fusedstep.AdamW(params)`"
        )

    def _start(self, arguments: Mapping[str, Any]) -> None:
        """Do what `__init__` does in every subclass. `arguments` are its `locals()`."""
        params, self._backend = arguments["params"], arguments["backend"]
        out = arguments.get("out")
        self._nonfinite = check_policy(arguments["nonfinite"])
        capturable = arguments.get("capturable", False)
        if capturable is not False:
            self._capturable = check_capturable(
                capturable, self._nonfinite, isinstance(params, Arena)
            )
        hyperparameters = {name: arguments[name] for name in self._declaration.checks}
        if isinstance(params, Arena):
            self._arena = params
            self._structure, divided = memory_of(params).read()
        else:
            self._structure, divided = read_groups(params)
            self._container = Container.of(params, self._structure, divided=divided[0][0] != "")
            refuse_fleeting(params)
        leaves = [array for _, arrays, _ in divided for array in arrays]
        copies = None if out is None else self._copies(out)
        custom = self._declaration.custom
        by_name = named(self._structure, leaves)
        self._table, self._place = choose(self._backend, by_name, custom, self._capturable)
        for name, _, own in divided:
            for key in own:
                if key not in hyperparameters:
                    raise KeyError(
                        f"{name}the unknown hyperparameter {key!r}; {type(self).__name__} has "
                        f"{quoted([*hyperparameters])}{key_hint(key, [*hyperparameters])}"
                    )
        self._enroll(
            [
                Group(arrays, {**hyperparameters, **own}, name, self._declaration)
                for name, arrays, own in divided
            ],
            copies,
        )
        if not self._parameters:
            raise ValueError("params is empty; pass at least one array")
        self._tensors.refuse_overlaps()
        self._allocate(self._rules())

    def _copies(self, out: Any) -> list[Any]:
        """The arrays that each parameter is written into as well."""
        if self._arena is not None:
            raise ValueError(
                "out is for parameters outside of an arena; put the 16-bit arrays into the arena, "
                "whose optimizer keeps their lost bits, or leave the arena out"
            )
        return self._structure.flatten(out, "out")

    def _enroll(self, groups: list[Group], copies: list[Any] | None) -> None:
        """Take up the groups, and make what is known of each parameter."""
        arena = self._arena_memory
        if arena is not None:
            self._place = arena.place  # which knows the stream of the arrays that were given
        self._groups = groups
        paths = self._structure.paths
        self._parameters = parameters_of(groups, paths, self._place, arena, copies)
        self._out = copies
        self._turn = Turn()
        for group in groups:
            group.join(self._turn)
            if self._capturable:
                group.tell(self._assigned)
        self._gathered = self._layout = None

    @property
    def _tensors(self) -> Tensors:
        """The tensors that steps go over."""
        return self._gathered or self._gather()

    def _gather(self) -> Tensors:
        """Gather the tensors, as their t now allow."""
        gathered = Tensors(self._parameters, self._place, self._arena_memory, self._container)
        gathered.tidy()
        self._gathered = gathered
        return gathered

    @property
    def _arena_memory(self) -> ArenaMemory | None:
        return None if self._arena is None else memory_of(self._arena)

    # ---- the step ----

    @overload
    def step(
        self,
        grads: Any = ...,
        *,
        scale: float = ...,
        max_norm: float | None = ...,
        max_value: float | None = ...,
        zero_grads: bool = ...,
        clip: str = ...,
        wait: Literal[True] = ...,
    ) -> Report: ...

    @overload
    def step(
        self,
        grads: Any = ...,
        *,
        scale: float = ...,
        max_norm: float | None = ...,
        max_value: float | None = ...,
        zero_grads: bool = ...,
        clip: str = ...,
        wait: Literal[False],
        after: Any = ...,
    ) -> Future[Report]: ...

    @overload
    def step(
        self,
        grads: Any = ...,
        *,
        scale: float = ...,
        max_norm: float | None = ...,
        max_value: float | None = ...,
        zero_grads: bool = ...,
        clip: str = ...,
        wait: bool,
        after: Any = ...,
    ) -> Report | Future[Report]: ...

    def step(
        self,
        grads: Any = ARENA_GRADIENTS,
        *surplus: Any,
        scale: float = PLAIN.scale,
        max_norm: float | None = None,
        max_value: float | None = None,
        zero_grads: bool = False,
        clip: str = GLOBAL,
        **others: Any,
    ) -> Any:
        """Update the parameters in place.

        ::

            g = g·(1/scale)
            g = g·clip                     clip = min(1, max_norm / norm of all g together),
                                           or of each g by itself with clip="tensor"
            g = max(-max_value, min(g, max_value))

        come first, where they are asked for, and then what the optimizer's formula says.

        Parameters
        ----------
        grads
            Gradients in the parameters' own structure: an array for an array, a sequence for
            a sequence, a mapping with the same keys for a mapping; for groups a sequence
            with one such structure a group. Each has its parameter's shape and dtype, in any
            layout, and is only read, but for `zero_grads`; or it is of some rows alone, as
            `fusedstep.Rows` or a sparse matrix of SciPy. None in a gradient's place skips
            that parameter: its state and its t stay as they are. An optimizer over an arena
            steps all of `arena.grads`, which need not be passed, see `fusedstep.Arena`.
        scale
            What the loss was multiplied by, above 0: gradients are divided by it.
        max_norm
            The largest norm, at least 0, that the gradients have together, after `scale`;
            larger ones are scaled down to it. The gradients are read once more for it, in
            float64, and no square overflows. Infinity only measures the norm. One NaN or
            infinity makes all that it clips NaN or 0, unless `nonfinite` keeps it out.
        max_value
            The largest size, at least 0, of each element, after `max_norm`. NaN stays NaN.
        zero_grads
            Leave zeros in the gradients, as the next accumulation wants them, also if the
            step is skipped. They must be writeable and share no memory.
        clip
            What `max_norm` bounds: `"global"` the norm of all gradients together, of all groups;
            `"tensor"` the norm of each gradient by itself, each over an arena, too. One NaN or
            infinity then reaches its own gradient alone. It needs `max_norm`.
        wait
            False to return at once. The step is then in flight: a thread takes it after all that
            were asked for before, by the hyperparameters of now. Until it is done it holds the
            gradients, and nobody else may write to them, nor read or write parameters and state.
            Further steps come after it, and what reads or loads state waits for it.
        after
            With `wait=False`: what that thread waits for before it reads a gradient, by a method
            `synchronize`, as an event of `torch.cuda` or CuPy has it after copies from a device.

        Returns
        -------
        Report, or concurrent.futures.Future
            `grad_norm`, `clip`, `skipped` and `t`, see `fusedstep.Report`; with `wait=False` a
            future of it, which nobody can cancel. On a CUDA device that is done already.

        Raises
        ------
        TypeError, ValueError, KeyError
            If a gradient does not fit, or overlaps what the step writes, or another argument
            is out of its range. The message names it, and nothing has been written.
        FloatingPointError
            If a gradient is not finite, under `nonfinite="raise"`. Nothing has been written. With
            `wait=False` the future raises it, or what a learning rate's function or `after` does,
            and steps in flight behind go on as if this one had been left out.
        RuntimeError
            If a step of the same optimizer is under way, in another thread or further up in this
            one, or if this thread's arithmetic does not round to nearest. Nothing has been written.

        Notes
        -----
        A step happens wholly or not at all: parameters, state, t, the average, and the zeros in
        the gradients. Ctrl-C, or whatever another signal's handler raises, finds them as they were
        before or as they are after.

        Clipping by the norm is that of Pascanu, Mikolov, Bengio (2013), "On the difficulty of
        training recurrent neural networks". torch's `clip_grad_norm_` divides by the norm +
        10⁻⁶; here a clipped norm is `max_norm` but for rounding. The norm is a sum over a fixed
        tree in float64, so that backend and threads do not change a bit of it. On a CUDA device
        it is taken and judged there, and the report's numbers are fetched when they are read; a
        step waits under `nonfinite="raise"`, of rows, and where one over an arena may be skipped.

        Examples
        --------
        >>> import numpy as np, fusedstep as fs
        >>> p, g = np.zeros(2), np.array([6.0, 8.0])
        >>> fs.SGD(p, lr=1.0).step(g, scale=2.0, max_norm=1.0, zero_grads=True)
        Report(grad_norm=5.0, clip=0.2, skipped=(), t=1)
        >>> p
        array([-0.6, -0.8])
        >>> g
        array([0., 0.])
        >>> opt = fs.SGD(p, lr=1.0)
        >>> handles = [opt.step(np.array([0.4, -0.2]), wait=False) for _ in range(2)]
        >>> handles[1].result().t
        2
        >>> p
        array([-1.4, -0.4])
        """
        if surplus or others:  # `wait` and `after`, which most steps need not look at
            asked = (scale, max_norm, max_value, zero_grads, clip)
            return Optimizer._step_otherwise(self, grads, surplus, asked, others)
        try:
            turn, me = self._turn, get_ident()
        except AttributeError:
            raise without_optimizer(self) from None
        while True:
            if not turn.holder and not turn.flights:
                turn.holder = me
                break
            turn.wait(me, "step")
        try:
            if self._ahead:
                self._refuse_ahead("step")
            request = PLAIN
            # The default itself is known to be fine; any other value, also another 1.0, is checked.
            scaled = scale is not UNSCALED
            if (
                scaled
                or max_norm is not None
                or max_value is not None
                or zero_grads is not False
                or clip is not GLOBAL
            ):
                request = check_request(scale, max_norm, max_value, zero_grads, clip)
            if grads is ARENA_GRADIENTS or self._arena is not None:
                flat = self._arena_gradients(grads)
            else:
                flat = self._structure.flatten(grads, "grads")
            if request is PLAIN and self._nonfinite == "propagate":
                layout = self._layout  # as `_step_by` has it, without its call
                while layout is None or (report := layout.step(flat)) is None:
                    layout = self._lay_out(flat)
                return report
            return self._step_by(flat, request)
        finally:
            turn.holder = turn.next

    def _step_by(self, flat: list[Any], request: Request, in_flight: bool = False) -> Report:
        """Step by these gradients of the tensors; the turn has been taken."""
        layout = self._layout
        if request == PLAIN and self._nonfinite == "propagate":
            while layout is None or (report := layout.step(flat, in_flight)) is None:
                layout = self._lay_out(flat)
            return report
        while (
            layout is None
            or (begun := begin(layout, request, self._nonfinite, in_flight)) is None
            or not layout.take(flat, request.zero_grads)
        ):
            layout = self._lay_out(flat)
        return whole_step(layout, flat, begun, request, self._nonfinite)

    # ---- steps in flight ----

    def _step_otherwise(
        self, grads: Any, surplus: Sequence[Any], asked: Sequence[Any], others: dict[str, Any]
    ) -> Report | Future[Report]:
        """A step with further arguments; those of every step are as `check_request` has them."""
        unknown = {name: value for name, value in others.items() if name not in STEPS_OWN}
        if surplus or unknown:
            raise step_misfit(surplus, unknown)
        return Optimizer._step_in_flight(self, grads, asked, **others)

    def _step_in_flight(
        self, grads: Any, asked: Sequence[Any], wait: bool = True, after: Any = None
    ) -> Report | Future[Report]:
        """A step that need not be waited for."""
        from fusedstep._core import in_flight  # which brings `concurrent.futures`, and is rare

        waits = in_flight.check_wait(wait, after)
        try:
            turn = self._turn
        except AttributeError:
            raise without_optimizer(self) from None
        if waits or in_flight.worker.has_ended or not isinstance(self._place, Host):
            step = partial(Optimizer.step, self, grads, **dict(zip(ASKED, asked, strict=True)))
            return step() if waits else in_flight.landed(step, after)
        if turn.holder:
            turn.refuse_inside(get_ident(), "step")
            turn.refuse_what_was_cut_off("step")
        if self._ahead:
            self._refuse_ahead("step")
        request = check_request(*asked)
        given = self._fitting(grads, request, after is None)
        held = {id(group): group.as_now() for group in self._groups}
        step = partial(self._fly, given, request, held)
        return in_flight.worker.launch(in_flight.Flight(turn, step, after))

    def _fitting(self, grads: Any, request: Request, ready: bool) -> list[Any] | None:
        """The gradients of a step in flight, which is refused if they do not fit.

        They are those of the parameters; None for all of an arena's. The steps that are in flight
        go on meanwhile. `ready` says that the content of gradients can be read.
        """
        tensors: Tensors = self._gathered or self._whole(self._gather)
        zero, in_arena = request.zero_grads, grads is ARENA_GRADIENTS or self._arena is not None
        rows = self._rows_in_arena(grads) if in_arena else None
        flat = (rows or []) if in_arena else self._structure.flatten(grads, "grads")
        if request.scale != 1 or request.max_value != inf:
            pairs = zip(self._parameters, flat, strict=False)
            stepped = self._parameters if in_arena else [each for each, g in pairs if g is not None]
            check_in_dtypes(request, {each.dtype for each in stepped})
        layout = None if in_arena else self._layout
        new = range(len(flat)) if layout is None else layout.new_among(flat, zero)
        apart = in_arena or (layout is not None and layout.are_apart())
        for at in new:
            apart = in_arena
            flat[at] = tensors.fitting(at, flat[at], zero, ready)
        if zero and not apart:
            WrittenMemory(tensors.seen(flat)).refuse_overlaps()
        return rows if in_arena else flat

    def _fly(self, given: list[Any] | None, request: Request, held: Mapping[int, Group]) -> Report:
        """Take a step in flight, with the groups as they were when it was asked for."""
        turn, me = self._turn, get_ident()
        while True:
            if not turn.holder:
                turn.holder = me
                break
            turn.wait_to_fly()
        try:
            if self._ahead:
                self._refuse_ahead("step")
            turn.held = held
            flat = given if self._arena is None else self._gradients_with(given)
            assert flat is not None
            return self._step_by(flat, request, in_flight=True)
        finally:
            turn.held = NONE_HELD
            turn.holder = turn.next

    if not TYPE_CHECKING:  # to checkers of types an optimizer is not to be called

        def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
            raise TypeError(
                f"{type(self).__name__!r} object is not callable; `opt.step(grads)` updates the "
                "parameters in place"
            )

    def _arena_gradients(self, grads: Any) -> list[Any]:
        """The gradients of the arena, which is what `grads` has to be if it is there."""
        gathered = self._gathered or self._gather()
        if grads is ARENA_GRADIENTS and gathered.gradients is not None:
            return gathered.gradients
        return self._gradients_with(self._rows_in_arena(grads))

    def _rows_in_arena(self, grads: Any) -> list[Any] | None:
        """The gradients of rows, by parameter, in `grads`, which has the arena's others; None if
        it has no others than these.
        """
        if self._arena is None:
            raise TypeError(
                "step() without `grads` is for optimizers over a fusedstep.Arena; pass the "
                "gradients, in the structure of the parameters, as `opt.step(grads)`"
            )
        if grads is ARENA_GRADIENTS or grads is self._arena.grads:
            return None
        return memory_of(self._arena).rows_among(grads)

    def _gradients_with(self, rows: list[Any] | None) -> list[Any]:
        """The gradients of the arena's tensors, with these of rows in the place of some."""
        gathered = self._gathered or self._gather()
        assert gathered.gradients is not None
        if rows is None:
            return gathered.gradients
        if self._begin_slices(zip(self._parameters, rows, strict=True)):
            gathered, self._layout = self._gather(), None  # each of them is a tensor by itself
        given = [(x, g) for x, g in zip(self._parameters, rows, strict=True) if g is not None]
        return of_arena(gathered, given)

    def _gather_anew(self, grads: list[Any]) -> None:
        """Gather the tensors anew, and bring these gradients of them up to date."""
        given = [*zip(self._tensors.each, grads, strict=True)]
        gathered = self._gather()
        if gathered.gradients is not None:  # of an arena, which has more tensors by now
            grads[:] = of_arena(gathered, given)

    def _lay_out(self, grads: list[Any]) -> Layout:
        """Lay out steps with a gradient wherever `grads` has one."""
        if self._originals is not None:
            originals, self._originals = self._originals, None
            originals.warn()
        if self._capturable:
            self._refuse_captured("gradients came or went, or another rule is called for")
        before, self._layout = self._layout, None
        rules = self._rules()
        standing = NO_ROWS
        if self._begin_slices(zip(self._tensors.each, grads, strict=True)):
            before = None
            self._gather_anew(grads)
        if before is None or before.rules != rules:
            self._catch_up_all()  # by the rule that steps were missed by
            self._allocate(rules)
        elif before.select(grads):
            self._layout = before
            return before
        else:
            standing = before.rows_without(grads)
        kind = CapturableLayout if self._capturable else Layout
        self._layout = kind(self._declaration, self._table, self._tensors, rules, grads, standing)
        return self._layout

    # ---- steps in CUDA graphs ----

    def prepare_replays(self) -> None:
        """Have the device know the next 65,536 steps, with `capturable=True`.

        It knows all that come where scalars change no more from some t on, as those of all rules
        of the package do but for NAdam's and for AdaGrad's with `lr_decay`. Where `lr` is a
        function of t, the rule is one of your own, or numbers are rounded stochastically, it knows
        65,536 at once. Each step outside of a graph and each assignment adds to them; if there is
        none of these, call this at least once in 32,768 launches. Those beyond are left out, with
        a RuntimeError when the host next hears of it. It waits for the device.

        Raises
        ------
        RuntimeError
            If the optimizer is not capturable, or launches were left out before.
        """
        if not self._capturable:
            raise RuntimeError(
                "prepare_replays() is for steps in CUDA graphs; make the optimizer with "
                "capturable=True"
            )
        self._with_layout(lambda layout: layout.foresee(all_anew=True), "prepare_replays")

    def _assigned(self, undo: Call) -> None:
        """Have the steps in graphs know of an assignment, or take it back with an error."""
        self._with_layout(lambda layout: assigned(layout, undo), "an assignment")

    def _with_layout(self, act: Callable[[CapturableLayout], Any], what: str) -> None:
        """Do something with the layout, if there is one, while nobody steps."""

        def do() -> None:
            if isinstance(self._layout, CapturableLayout):
                act(self._layout)

        self._in_turn(do, what)

    def _refuse_captured(self, what: str) -> None:
        """Refuse what would leave the steps in graphs behind."""
        if isinstance(self._layout, CapturableLayout) and self._layout.table.is_captured:
            raise RuntimeError(
                f"{what}, and a CUDA graph holds steps of this optimizer, which would go on as "
                "before; make another optimizer, load this one's state_dict() into it, and record "
                "its steps"
            )

    def _begin_slices(self, pairs: Iterable[tuple[Any, Any]]) -> bool:
        """Step parameters by rows that are given a gradient of some, or rates by column, for the
        first time; whether one is.
        """
        wholly = [(each, g) for each, g in pairs if each is not None and each.slices is None]
        by_rows = [each for each, g in wholly if has_rows(g)]
        if by_rows and self._capturable:
            raise ValueError(
                f"grads{by_rows[0].path} is of some rows, which capturable=True does not know; "
                "pass the whole gradient, or make the optimizer without capturable"
            )
        for parameter in by_rows:
            parameter.begin_slices(*of_rows(f"grads{parameter.path}"))
        by_column = [
            parameter
            for each, g in wholly
            if g is not None and each.cohort.has_rates
            for parameter in each.members
        ]
        if by_column and self._capturable:
            refuse_column_rates()
        for parameter in by_column:
            parameter.begin_columns()
        return bool(by_rows or by_column)

    def _rules(self) -> Rules:
        return rules_of(self._declaration, self._groups)

    def _allocate(self, rules: Rules) -> None:
        """Add the state arrays that the rules call for."""
        for parameter in self._parameters:
            parameter.allocate(rules[id(parameter.cohort.group)].states)

    @property
    def layout(self) -> Layout:
        """The steps as they are laid out, for tools that look inside."""
        self._turn.wait_to_look()
        if self._layout is None:
            raise RuntimeError("steps are laid out by the first of them, or after a load; step")
        return self._layout

    # ---- rows that have missed steps ----

    def catch_up(self, rows: Any = None) -> None:
        """Take the steps that rows have missed, where `untouched="exact"` lets them miss some.

        Call it before anything reads rows that the step before did not touch: with the rows of the
        batch before its forward pass, without arguments before all parameters are read or saved.

        Parameters
        ----------
        rows
            The numbers of rows, as in `Rows.index`, or booleans, one for each row: in the
            parameters' own structure, with None for parameters of which none is read. None for
            all rows of all parameters.

        Raises
        ------
        TypeError, ValueError, IndexError
            If they do not fit the parameters. No step has been taken.

        Examples
        --------
        >>> import numpy as np, fusedstep as fs
        >>> p = np.ones((1000, 2))
        >>> opt = fs.SGD(p, lr=0.5, momentum=0.5, untouched="exact")
        >>> _ = opt.step(fs.Rows([7, 8], np.ones((2, 2))))
        >>> _ = opt.step(fs.Rows([8], np.ones((1, 2))))
        >>> opt.catch_up([7])
        >>> p[7:9]
        array([[ 0.25,  0.25],
               [-0.25, -0.25]])
        """
        turn, me = self._turn, get_ident()
        while True:
            if not turn.holder and not turn.flights:
                turn.holder = me
                break
            turn.wait(me, "catch_up")
        try:
            if self._ahead:
                self._refuse_ahead("catch_up")
            if rows is None:
                self._catch_up_all()
                return
            flat = self._structure.flatten(rows, "rows")
            wanted = [
                (parameter, ids_of(given, parameter.p, self._place, f"rows{parameter.path}"))
                for parameter, given in zip(self._parameters, flat, strict=True)
                if given is not None
            ]
            for parameter, ids in wanted:
                parameter.catch_up(self._table, ids)
        finally:
            turn.holder = turn.next

    def _catch_up_all(self) -> None:
        for parameter in self._parameters:
            parameter.catch_up(self._table)

    # ---- copies ----

    def __getstate__(self) -> dict[str, Any]:
        copied: dict[str, Any] = self._whole(self._copied)
        return copied

    def _copied(self) -> dict[str, Any]:
        if self._ahead:
            self._refuse_ahead("a copy")
        if not isinstance(self._place, Host):
            raise TypeError(
                "this optimizer's state is on a CUDA device, and cannot be copied or pickled with "
                "it; load its state_dict() into another optimizer"
            )
        if self._arena is None:
            for parameter in self._parameters:
                parameter.check_as_found()
        self._catch_up_all()
        kept = ("_backend", "_nonfinite", "_structure", "_arena", "_groups", "_out")
        state = {name: getattr(self, name) for name in kept}
        if self._container is not None and self._container.is_plain(self._parameters):
            state["_container"] = self._container
        return {**state, "states": [saved(parameter) for parameter in self._parameters]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        states = state.pop("states")
        self.__dict__.update(state)
        if self._arena is None:
            self._originals = originals = Originals()
            paths = iter(self._structure.paths)
            for group in self._groups:
                group.replace_params([originals.writeable(a, next(paths)) for a in group["params"]])
            if originals.arrays:
                self._container = None  # which holds the originals
        leaves = [array for group in self._groups for array in group["params"]]
        params = named(self._structure, leaves)
        self._table, self._place = choose(self._backend, params, self._declaration.custom)
        self._enroll(self._groups, state.get("_out"))
        for parameter, kept in zip(self._parameters, states, strict=True):
            read = read_state(kept, parameter, (), self._known_letters)
            self._place.at_once(parameter.restoring(read))

    @property
    def _known_letters(self) -> tuple[str, ...]:
        """The state arrays that there may be."""
        return (*self._declaration.letters, "ema")

    def __copy__(self) -> NoReturn:
        raise TypeError(
            "a shallow copy would step the same state; take copy.deepcopy of the optimizer and "
            "its parameters together, or load its state_dict() into another"
        )

    # ---- hyperparameters and state ----

    @property
    def arena(self) -> Arena | None:
        """The arena of the parameters and gradients, None where they are not in one."""
        return self._arena

    @property
    def param_groups(self) -> tuple[Group, ...]:
        """The groups: `"params"`, and hyperparameters that may change between steps."""
        return Groups(self._groups)

    @property
    def lr(self) -> Any:
        """The learning rate α of all groups; set it to change the next step's.

        A number, an array with a rate for each column, or a function of t that gives one of
        these, from 1 at a parameter's first step: a schedule of `fusedstep.schedules` or one of
        your own. It is called at each step, and should give the same for the same t.
        """
        rates = [group.hyperparameters["lr"] for group in self._groups]
        if any(rate != rates[0] for rate in rates):
            raise ValueError(
                f"lr differs between the groups: [{quoted(rates)}]; read param_groups[i]['lr']"
            )
        return shown(rates[0])

    @lr.setter
    def lr(self, value: Rate) -> None:
        rate_all(self._groups, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "lr" and len(self._groups) == 1:  # as most loops set it, at each step
            self._groups[0]["lr"] = value
            return
        if name != "lr" and not name.startswith("_"):
            refuse_attribute(self, name, value)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        kind, own = type(self), vars(self)
        return [
            name
            for name in super().__dir__()
            if name in own or not isinstance(getattr_static(kind, name, None), Missing)
        ]

    @property
    def state(self) -> Any:
        """Each parameter's arrays by letter, and its t, in the structure of the parameters.

        A mapping for a mapping, a list for any sequence. Rows that have missed steps take them
        first, here and when an array is looked up; what was looked up before lags behind again
        after the next step.
        """
        self._whole(self._catch_up_all)
        of_each = partial(State, kind=self._table, turn=self._turn)
        states = map(of_each, self._parameters)
        return with_hints(self._structure.rebuild(states))

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that the next steps depend on, but for the parameters themselves.

        Plain dicts, lists, numbers and arrays, fit for pickle. An optimizer of the same class
        over parameters of the same structure goes on from it with the same bits as this one.
        A schedule is there as its dict; in place of a function of your own as `lr` stands None.
        """
        saved: dict[str, Any] = self._whole(self._save)
        return saved

    def _save(self) -> dict[str, Any]:
        if self._ahead:
            self._refuse_ahead("state_dict")
        self._catch_up_all()
        # Hyperparameters that were assigned since the last step may call for more.
        self._allocate(self._rules())
        return save(type(self).__name__, self._groups, self._structure, self._parameters)

    def digest(self) -> str:
        """SHA-256 over parameters, state and t, as 64 hexadecimal digits.

        It depends on these numbers and the parameters' names alone: not on how they lie in
        memory, on the backend, threads, or whether they are in an arena. So runs that are the
        same to the bit have the same digest on any machine; a NaN is a NaN, whatever its bits.
        16-bit parameters count with the bits that are kept beside them.

        >>> import numpy as np, fusedstep as fs
        >>> p = np.array([1.0, 2.0])
        >>> opt = fs.SGD(p, lr=0.5)
        >>> _ = opt.step(np.array([2.0, 2.0]))
        >>> opt.digest()[:16]
        '98fcef05fdc9acd2'

        Notes
        -----
        Its bytes are laid down as "digest contract 1", so that another program can compute it;
        see `Trust` among the pages.
        """
        made: str = self._whole(self._digest)
        return made

    def _digest(self) -> str:
        if self._ahead:
            self._refuse_ahead("digest")
        return digest(self._numbers())

    def _numbers(self) -> Iterator[Numbers]:
        """The numbers of each parameter, as steps see them."""
        self._complete()
        for name, parameter in zip(names_of(self._structure), self._parameters, strict=True):
            yield parameter.numbers(name)

    def _complete(self) -> None:
        """Take the steps that rows have missed, and make the state that is not there yet."""
        self._catch_up_all()
        self._allocate(self._rules())

    def _whole(self, copy: Callable[[], Any]) -> Any:
        """The result of `copy`, which is called while nothing is half stepped; see turn.py."""
        turn, me = self._turn, get_ident()
        within = turn.holder == me
        try:
            if not within:
                turn.wait_to_copy(me)
            return copy()
        finally:
            if not within:
                turn.next = 0 if turn.next == me else turn.next
                turn.holder = 0 if turn.holder == me else turn.holder

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over hyperparameters and state from what `state_dict` returned.

        Arrays are copied, into the ones that are there. Nothing is written unless all fits.
        Where a function of your own was the `lr`, this optimizer needs one and keeps it.
        """
        self._load(lambda: self._loading(state_dict), "load_state_dict")

    def _load(self, calls: Callable[[], list[Call]], what: str) -> None:
        """Take over what these calls do, which are made when nothing is half stepped."""

        def load() -> None:
            if self._ahead:
                self._refuse_ahead(what)
            self._catch_up_all()
            self._place.at_once(calls())
            if self._gathered is None:
                self._gather()

        self._in_turn(load, what)

    def _in_turn(self, act: Callable[[], None], what: str) -> None:
        """Do what errors call `what` while nobody steps; see turn.py."""
        turn, me = self._turn, get_ident()
        while True:
            if not turn.holder and not turn.flights:
                turn.holder = me
                break
            turn.wait(me, what)
        try:
            act()
        finally:
            turn.holder = turn.next

    def _loading(self, state_dict: Mapping[str, Any]) -> list[Call]:
        """The calls that load a state dict, which has been read, checked and copied."""
        return self._taking(*self._read(state_dict))

    def _read(self, state_dict: Mapping[str, Any]) -> tuple[list[Any], list[dict[str, Any]]]:
        """The hyperparameters of each group, and the state of each parameter: checked copies."""
        given = read_top(state_dict, type(self).__name__, len(self._groups))
        pairs = enumerate(zip(self._groups, given["param_groups"], strict=True))
        hyperparameters = [read_group(values, group, index) for index, (group, values) in pairs]
        by_group = {
            id(group): values for group, values in zip(self._groups, hyperparameters, strict=True)
        }
        states = []
        flat = self._structure.flatten(given["state"], "state_dict['state']")
        for parameter, state in zip(self._parameters, flat, strict=True):
            rule = rule_of(self._declaration, by_group[id(parameter.cohort.group)])
            states.append(read_state(state, parameter, rule.states, self._known_letters))
        return hyperparameters, states

    def _taking(self, hyperparameters: list[Any], states: list[dict[str, Any]]) -> list[Call]:
        """The calls that take over what was read."""
        self._refuse_captured("a state is loaded")
        pairs = zip(self._groups, hyperparameters, strict=True)
        calls = [group.taking(values) for group, values in pairs]
        for parameter, state in zip(self._parameters, states, strict=True):
            calls += parameter.restoring(state)
        return [*calls, partial(vars(self).update, {"_gathered": None, "_layout": None})]

    # ---- checkpoints ----

    def _checkpoint(self, params: Any, metadata: Any) -> Checkpoint:
        """All that a file has of this optimizer and of `params`: copies."""
        if self._ahead:
            self._refuse_ahead("save")
        self._complete()
        names, others = self._names_among(params)
        by_id = {id(each): name for each, name in zip(self._parameters, names, strict=True)}
        groups = []
        for group in self._groups:
            own = [by_id[id(each)] for each in self._parameters if each.cohort.group is group]
            groups.append({**saved_group(group), "params": sorted(own)})
        kind, letters = type(self).__name__, self._known_letters
        pairs = [*zip(names, self._parameters, strict=True)]
        taken = Checkpoint(
            kind,
            FACE,
            groups,
            {name: each.cohort.t for name, each in pairs},
            {**{name: each.in_file() for name, each in pairs}, **other_arrays(others)},
            {name: states_in_file(kind, letters, saved(each)) for name, each in pairs},
            "",
            metadata,
        )
        return with_digest(taken, self._declaration.nonnegative)

    def _inside(self) -> Inside:
        """All that a record of the steps is made of."""
        return Inside(
            self._names_among(None).names,
            self._parameters,
            self._structure,
            self._nonfinite,
            isinstance(self._place, Host),
            self._out is not None,
            partial(self._whole, lambda: [*self._numbers()]),
        )

    def _names_among(self, params: Any) -> Saved:
        """The names of the parameters in a file, and the other arrays in `params`."""
        arrays = [each.array for each in self._parameters]
        return named_arrays(params, names_of(self._structure), self._parameters, arrays)

    def _load_checkpoint(self, given: Giving, params: Any) -> None:
        """Take over a checkpoint, and `params` with it, wholly or not at all."""
        self._load(lambda: self._giving(given, params), "load")

    def _giving(self, given: Giving, params: Any) -> list[Call]:
        """The calls that take over a checkpoint, which has been read, checked and copied."""
        names, others = self._names_among(params)
        pairs = [*zip(names, self._parameters, strict=True)]
        groups = [
            [name for name, each in pairs if each.cohort.group is group] for group in self._groups
        ]
        given.check_optimizer(type(self).__name__, groups)
        given.read_numbers(self._declaration.nonnegative)
        calls = given.others(others, names)
        values = [given.values(name, each) for name, each in pairs]
        for _, each in pairs:
            each.check_memory()
        saved_groups = [
            given.options(k, saved_group(group), FACE) for k, group in enumerate(self._groups)
        ]
        rules = {
            id(group): rule_of(self._declaration, {**group.hyperparameters, **saved})
            for group, saved in zip(self._groups, saved_groups, strict=True)
        }
        letters = self._known_letters
        states = [
            given.state(name, each, letters, rules[id(each.cohort.group)].states)
            for name, each in pairs
        ]
        top = {"format": FORMAT, "optimizer": type(self).__name__, "param_groups": saved_groups}
        try:
            read, of_each = self._read({**top, "state": self._structure.rebuild(states)})
        except (KeyError, TypeError, ValueError) as error:
            given.reader.refuse(f"does not fit this optimizer: {error.args[0]}")
        given.check_digest()
        calls += self._taking(read, of_each)
        for array, (_, parameter) in zip(values, pairs, strict=True):
            calls += parameter.assigning(array)
        return calls

    # ---- parameters in full ----

    def float32_params(self) -> Any:
        """Copies of the parameters as steps see them, in their structure: what to save.

        Of a 16-bit parameter that keeps its lost bits these are the exact float32 values, of which
        the parameter itself is only the rounded ones. float64 parameters stay float64.

        >>> import ml_dtypes, numpy as np, fusedstep as fs
        >>> p = np.ones(2, ml_dtypes.bfloat16)
        >>> opt = fs.SGD(p, lr=0.001)
        >>> _ = opt.step(np.ones(2, np.float32))
        >>> p, opt.float32_params()
        (array([1, 1], dtype=bfloat16), array([0.999, 0.999], dtype=float32))
        """
        return self._whole(self._float32_params)

    def _float32_params(self) -> Any:
        if self._ahead:
            self._refuse_ahead("float32_params")
        self._catch_up_all()
        return self._structure.rebuild(parameter.values() for parameter in self._parameters)

    def load_float32_params(self, params: Any) -> None:
        """Give the parameters these values, which `float32_params` returned, with all their bits.

        16-bit parameters become the rounded ones. Nothing is written unless all of them fit.
        """
        self._load(lambda: self._assigning(params), "load_float32_params")

    def _assigning(self, params: Any) -> list[Call]:
        """The calls that give the parameters values, which have been checked and copied."""
        calls: list[Call] = []
        flat = self._structure.flatten(params, "params")
        for parameter, given in zip(self._parameters, flat, strict=True):
            name = f"params{parameter.path}"
            values = plain(given, name)
            wanted = np.broadcast_to(np.zeros((), parameter.dtype), parameter.p.shape)
            check_like(values, wanted, name)
            parameter.check_memory()
            calls += parameter.assigning(values.copy())
        return calls

    def _refuse_ahead(self, what: str) -> NoReturn:
        raise RuntimeError(
            f"{what} inside of lookahead(), where the parameters stand ahead of themselves; take "
            f"the gradients there, and leave the `with` block before {what}"
        )

    def __repr__(self) -> str:
        arrays = [parameter.p for parameter in self._parameters]
        options = {
            "nonfinite": self._nonfinite,
            "capturable": self._capturable,
            "backend": self._backend,
        }
        return show(type(self), self._structure, arrays, self._groups, options)


def of_arena(gathered: Tensors, given: Iterable[tuple[Any, Any]]) -> list[Any]:
    """An arena's gradients of its tensors, with those in their place that some are given."""
    assert gathered.gradients is not None
    at = {id(tensor): g for tensor, g in given}
    pairs = zip(gathered.each, gathered.gradients, strict=True)
    return [at.get(id(tensor), g) for tensor, g in pairs]


with_missing(Optimizer, MISSING)
Optimizer.step.__signature__ = signature_of_step(  # type: ignore[attr-defined]
    Optimizer.step,
    Optimizer._step_in_flight,  # noqa: SLF001
)
