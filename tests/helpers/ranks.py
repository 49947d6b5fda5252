"""Training by several processes, held to the bit against the same training in one.

    torchrun --standalone --nproc-per-node 3 tests/helpers/ranks.py fsdp clip \
        --optimizer torch.optim:AdamW --optimizer torch.optim:SGD

Each rank has a twin of the model: all of its parameters and an optimizer of its own, which is
given the gradients that the ranks had together. What the ranks make of them must be what the
twin makes of them. All runs on the CPU, over gloo.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

Tensor: TypeAlias = torch.Tensor
Optimizer: TypeAlias = torch.optim.Optimizer

STEPS = 5
SAVED = 3
"""Steps before a checkpoint is written; the rest follow after it has been read."""

COLUMNS = 33
ROWS = (7, 4, 2, 1)
"""Rows of the layers. On 3 ranks they are shared unevenly, and some ranks have none."""

OPTIONS: dict[str, dict[str, Any]] = {
    "Adam": {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True},
    "AdamW": {"lr": 0.01, "weight_decay": 0.1},
    "SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
    "RMSprop": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "centered": True},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.01, "weight_decay": 0.1},
}

POLICIES = (OffloadPolicy(), CPUOffloadPolicy(pin_memory=False))
"""Shards where the model lies, and shards in host memory. Only a GPU's driver pins memory."""


class Choice(NamedTuple):
    """An optimizer's class and its options; called with parameters, the optimizer."""

    name: str
    cls: Callable[..., Optimizer]
    options: dict[str, Any]

    def __call__(self, parameters: Iterable[Any], **more: Any) -> Any:
        return self.cls(parameters, **self.options, **more)

    @classmethod
    def named(cls, name: str) -> Choice:
        """The choice of a `module:Class`."""
        module, _, member = name.partition(":")
        return cls(name, getattr(import_module(module), member), OPTIONS[member])


# What is trained, with the same values wherever it is made


def network() -> nn.Sequential:
    torch.manual_seed(0)
    widths = (COLUMNS, *ROWS)
    layers = [nn.Sequential(nn.Linear(i, o), nn.Tanh()) for i, o in pairwise(widths)]
    return nn.Sequential(*layers)


def loss(model: nn.Module, step: int) -> Tensor:
    """The loss of a batch that only this rank has."""
    generator = torch.Generator().manual_seed(1000 * step + dist.get_rank())
    return model(torch.randn(5, COLUMNS, generator=generator)).square().sum()


def gradients(parameters: Sequence[Tensor], step: int) -> list[Tensor]:
    """Whole gradients of a step, the same on every rank, over six decades."""
    generator = torch.Generator().manual_seed(step)
    drawn = []
    for p in parameters:
        decades = torch.rand(p.shape, generator=generator) * 6 - 4
        drawn.append(torch.randn(p.shape, generator=generator) * 10**decades)
    return drawn


# Comparing


def full(tensor: Tensor) -> Tensor:
    """A copy of all of a tensor, whatever part of it this rank has."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().clone()


def bits(tensor: Tensor) -> Tensor:
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(kinds[tensor.element_size()])


def assert_same(found: Tensor, expected: Tensor, what: str) -> None:
    """The same bits; every rank must ask, since a shard is put together with the others'."""
    found, expected = full(found), full(expected)
    if (found.dtype, expected.dtype) == (torch.bfloat16, torch.int16):
        found = found.view(torch.int16)  # a tail, which no collective would send
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape), what
    differing = int((bits(found) != bits(expected)).sum())
    assert differing == 0, f"{what}: {differing} of {found.numel()} elements differ"


def assert_same_on_all_ranks(tensors: Iterable[Tensor], what: str) -> None:
    for tensor in tensors:
        first = full(tensor)
        dist.broadcast(first, src=0)
        assert_same(tensor, first, f"{what} of rank {dist.get_rank()} and of rank 0")


class Twin:
    """The same training in one process: whole parameters, given the ranks' gradients."""

    def __init__(self, choice: Choice, parameters: Iterable[Tensor]) -> None:
        self.choice = choice
        self.parameters = [nn.Parameter(full(p)) for p in parameters]
        self.optimizer = choice(self.parameters)

    def copy(self) -> Twin:
        other = Twin(self.choice, self.parameters)
        other.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        return other

    def step(self, grads: Iterable[Tensor | None]) -> None:
        for p, g in zip(self.parameters, grads, strict=True):
            p.grad = None if g is None else g.clone()
        self.optimizer.step()

    def assert_same(self, parameters: Iterable[Tensor], state: Any = None) -> None:
        """Compare parameters, and their states by name where the ranks' are given."""
        for index, (p, twin) in enumerate(zip(parameters, self.parameters, strict=True)):
            assert_same(p, twin, f"parameter {index}")
            if state is not None:
                self.assert_same_state(state[p], index, sharded=isinstance(p, DTensor))

    def assert_same_state(self, found: dict[str, Any], index: int, *, sharded: bool) -> None:
        expected = self.optimizer.state[self.parameters[index]]
        assert found.keys() == expected.keys(), f"parameter {index}"
        for name, value in expected.items():
            what = f"parameter {index}, {name}"
            assert isinstance(found[name], DTensor) is (sharded and value.dim() > 0), what
            assert_same(found[name], value, what)


# Replicas of the whole model


def ddp(choice: Choice) -> None:
    """Gradients of DistributedDataParallel, views of its buckets or not."""
    for as_view in (False, True):
        model = DistributedDataParallel(network(), gradient_as_bucket_view=as_view)
        parameters = list(model.parameters())
        optimizer = choice(parameters)
        twin = Twin(choice, parameters)
        for step in range(STEPS):
            loss(model, step).backward()
            twin.step([full(p.grad) for p in parameters])
            optimizer.step()
            optimizer.zero_grad()
        twin.assert_same(parameters, optimizer.state)
        assert_same_on_all_ranks(parameters, "parameter")


def zero(choice: Choice) -> None:
    """Each rank steps some parameters, and is sent the others.

    Half-way the learning rate changes and a parameter is frozen for a step, after which the
    buckets are made anew. Then all state is brought together on rank 0, and training goes on
    from it, sharded and not.
    """
    for as_view in (False, True):
        sharded = partial(
            ZeroRedundancyOptimizer,
            optimizer_class=choice.cls,
            parameters_as_bucket_view=as_view,
            **choice.options,
        )
        parameters = list(network().parameters())
        twin = Twin(choice, parameters)
        optimizer = sharded(parameters)
        for step in range(STEPS):
            frozen = step == 2
            parameters[0].requires_grad_(not frozen)
            for group in (*optimizer.param_groups, *twin.optimizer.param_groups):
                group["lr"] = choice.options["lr"] / (1 + step // 2)
            step_together(parameters, optimizer, twin, step, skipped=0 if frozen else None)
        for index, p in enumerate(parameters):
            if p in optimizer.optim.state:
                twin.assert_same_state(optimizer.optim.state[p], index, sharded=False)

        optimizer.consolidate_state_dict(to=0)
        states = [optimizer.state_dict() if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(states, src=0)
        (state,) = states
        assert state is not None
        assert state["param_groups"] == twin.optimizer.state_dict()["param_groups"]
        for index in range(len(parameters)):
            twin.assert_same_state(state["state"][index], index, sharded=False)
        for make in (sharded, choice):
            resumed = [nn.Parameter(full(p)) for p in parameters]
            other, again = make(resumed), twin.copy()
            step_and_go_back(resumed, other)
            other.load_state_dict(copy.deepcopy(state))
            for step in range(STEPS, STEPS + 2):
                step_together(resumed, other, again, step)


def few(choice: Choice) -> None:
    """Fewer parameters than ranks: some have an optimizer of an empty group."""
    parameters = [nn.Parameter(torch.ones(3))]
    twin = Twin(choice, parameters)
    optimizer = ZeroRedundancyOptimizer(parameters, optimizer_class=choice.cls, **choice.options)
    empty = not optimizer.optim.param_groups[0]["params"]
    assert empty is (dist.get_rank() > 0)
    for step in range(STEPS):
        step_together(parameters, optimizer, twin, step)


def step_together(
    parameters: Sequence[Any], optimizer: Any, twin: Twin, step: int, skipped: int | None = None
) -> None:
    """A step with drawn gradients, of ranks that have whole parameters; one has none."""
    drawn: list[Tensor | None] = [*gradients(parameters, step)]
    if skipped is not None:
        drawn[skipped] = None
    for p, g in zip(parameters, drawn, strict=True):
        p.grad = None if g is None else g.clone()
    optimizer.step()
    twin.step(drawn)
    twin.assert_same(parameters)


# Shards of each parameter


def mesh() -> DeviceMesh:
    """All ranks in a row; of four, two replicas of two shards."""
    ranks = dist.get_world_size()
    if ranks == 4:
        return init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    return init_device_mesh("cpu", (ranks,), mesh_dim_names=("shard",))


def sharded_network(policy: OffloadPolicy = POLICIES[0]) -> nn.Sequential:
    model, over = network(), mesh()
    for layer in model:
        fully_shard(layer, mesh=over, offload_policy=policy)
    fully_shard(model, mesh=over, offload_policy=policy)
    return model


def set_gradients(parameters: Iterable[Any], whole: Iterable[Tensor]) -> None:
    """Give each parameter its own shard of a whole gradient, cut without communication."""
    for p, g in zip(parameters, whole, strict=True):
        if isinstance(p, DTensor):
            g = distribute_tensor(g, p.device_mesh, p.placements, src_data_rank=None)
        p.grad = g.clone()


def fsdp(choice: Choice) -> None:
    """Shards given gradients by hand, and by the model's own backward pass."""
    for policy in POLICIES:
        for by_hand in (True, False):
            model = sharded_network(policy)
            parameters = list(model.parameters())
            optimizer = choice(parameters)
            twin = Twin(choice, parameters)
            for step in range(STEPS):
                if by_hand:
                    whole = gradients(parameters, step)
                    set_gradients(parameters, whole)
                else:
                    loss(model, step).backward()
                    whole = [full(p.grad) for p in parameters]
                twin.step(whole)
                optimizer.step()
                optimizer.zero_grad()
            twin.assert_same(parameters, optimizer.state)


def tensor_parallel(choice: Choice) -> None:
    """Layers cut by rows and by columns, and a norm whose gradients the ranks have yet to add.

    Of four ranks two share a layer, and FSDP shares out what each of them has.
    """
    if choice.cls.__module__.startswith("torch.optim"):
        # These add decay and momentum to each rank's part of such a gradient, then the parts.
        without = {"weight_decay": 0.0, "nesterov": False}
        options = {name: without.get(name, value) for name, value in choice.options.items()}
        choice = choice._replace(options=options)
    ranks = dist.get_world_size()
    shape = (2, 2) if ranks == 4 else (1, ranks)
    over = init_device_mesh("cpu", shape, mesh_dim_names=("dp", "tp"))
    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 8), nn.Tanh())
    plan = {
        "0": SequenceParallel(),
        "1": ColwiseParallel(input_layouts=Shard(1)),
        "3": RowwiseParallel(output_layouts=Shard(1)),
    }
    parallelize_module(model, over["tp"], plan)
    if over.size(0) > 1:
        fully_shard(model, mesh=over["dp"])
    parameters = list(model.parameters())
    optimizer = choice(parameters)
    twin = Twin(choice, parameters)
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        model(torch.randn(2, 4, 8, generator=generator)).square().sum().backward()
        twin.step([full(p.grad) for p in parameters])
        optimizer.step()
        optimizer.zero_grad()
        twin.assert_same(parameters, optimizer.state)


def states(choice: Choice) -> None:
    """State dicts of shards, whole on rank 0 and flat, for optimizers with state and without."""
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    from_first = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    flat = StateDictOptions(flatten_optimizer_state_dict=True)
    for saved, loaded in ((whole, from_first), (flat, flat)):
        for used in (False, True):
            model = sharded_network()
            parameters = list(model.parameters())
            optimizer = choice(parameters)
            twin = Twin(choice, parameters)
            train(parameters, optimizer, range(SAVED))
            state = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=saved))

            other = choice(parameters)
            if used:
                step_and_go_back(parameters, other)
            before = [full(p) for p in parameters]
            set_optimizer_state_dict(model, other, state, options=loaded)
            for p, held in zip(parameters, before, strict=True):
                assert_same(p, held, "parameter, when its optimizer's state was set")
            train(parameters, other, range(SAVED, STEPS))
            train(twin.parameters, twin.optimizer, range(STEPS))
            twin.assert_same(parameters, other.state)


def train(parameters: Sequence[Any], optimizer: Any, steps: Iterable[int]) -> None:
    for step in steps:
        set_gradients(parameters, gradients(parameters, step))
        optimizer.step()
        optimizer.zero_grad()


def step_and_go_back(parameters: Sequence[Any], optimizer: Any) -> None:
    """Leave an optimizer with state, which what is loaded has to replace."""
    before = [p.detach().clone() for p in parameters]
    train(parameters, optimizer, [STEPS])
    with torch.no_grad():
        for p, held in zip(parameters, before, strict=True):
            p.copy_(held)


def save(choice: Choice, folder: Path) -> None:
    """Train for a while, and write what the ranks have."""
    model = sharded_network()
    optimizer = choice(model.parameters())
    train(list(model.parameters()), optimizer, range(SAVED))
    model_state, optimizer_state = get_state_dict(model, optimizer)
    written = {"model": model_state, "optimizer": optimizer_state}
    checkpoint.save(written, checkpoint_id=folder / choice.name)


def load(choice: Choice, folder: Path) -> None:
    """Go on from what other ranks wrote; one rank alone also without shards."""
    alone = dist.get_world_size() == 1
    for make in (sharded_network, network) if alone else (sharded_network,):
        model = make()
        parameters = list(model.parameters())
        optimizer = choice(parameters)
        twin = Twin(choice, parameters)
        model_state, optimizer_state = get_state_dict(model, optimizer)
        read = {"model": model_state, "optimizer": optimizer_state}
        checkpoint.load(read, checkpoint_id=folder / choice.name)
        set_state_dict(
            model,
            optimizer,
            model_state_dict=read["model"],
            optim_state_dict=read["optimizer"],
        )
        train(parameters, optimizer, range(SAVED, STEPS))
        train(twin.parameters, twin.optimizer, range(STEPS))
        twin.assert_same(parameters, optimizer.state)


# The norm of all gradients


def ordered_norm(grads: Iterable[Tensor]) -> Tensor:
    """The norm of gradients taken together, in one order of sums, so that its bits are known.

    A rank adds up the squares of its shards in float64, gradient by gradient. Over each
    dimension of the mesh that shares out a gradient, the ranks' sums are gathered and added in
    the order of its group; over one that replicates it, a single one counts.
    """
    sums: defaultdict[tuple[DeviceMesh | None, tuple[int, ...]], Tensor]
    sums = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
    for g in grads:
        if isinstance(g, DTensor):
            assert not any(placement.is_partial() for placement in g.placements)
            shared = tuple(d for d, each in enumerate(g.placements) if not each.is_replicate())
            sums[g.device_mesh, shared] += squares(g.to_local())
        else:
            sums[None, ()] += squares(g)
    total = torch.zeros((), dtype=torch.float64)
    for (over, shared), own in sums.items():
        for dimension in reversed(shared):
            assert over is not None
            gathered = [torch.empty_like(own) for _ in range(over.size(dimension))]
            dist.all_gather(gathered, own, group=over.get_group(dimension))
            own = in_order(gathered)
        total = total + own
    return total.sqrt()


def squares(tensor: Tensor) -> Tensor:
    return tensor.double().square().sum()


def in_order(sums: Iterable[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for each in sums:
        total = total + each
    return total


def clip(choice: Choice) -> None:
    """The norm that torch clips by, and the one of a fixed order, over the shards' gradients."""
    model = sharded_network()
    parameters = list(model.parameters())
    loss(model, 0).backward()
    grads = [p.grad for p in parameters]
    whole = [full(g) for g in grads]

    # The same sums as the ranks', in one process: torch.chunk cuts as the shards are cut.
    shards = mesh().size(-1)
    cut = [torch.chunk(g, shards) for g in whole]
    by_rank = [
        in_order(squares(chunks[rank]) for chunks in cut if rank < len(chunks))
        for rank in range(shards)
    ]
    norm = ordered_norm(grads)
    assert_same(norm, in_order(by_rank).sqrt(), "norm")
    assert_same_on_all_ranks([norm], "norm")
    truth = torch.cat([g.double().flatten() for g in whole]).norm()
    torch.testing.assert_close(norm, truth, rtol=1e-14, atol=0)

    limit = float(truth) / 3
    total = clip_grad_norm_(parameters, limit)
    assert isinstance(total, DTensor)
    assert_same_on_all_ranks([total], "torch's norm")
    torch.testing.assert_close(full(total).double(), truth, rtol=1e-6, atol=0)
    factor = torch.clamp(limit / (full(total) + 1e-6), max=1.0)
    for index, (p, g) in enumerate(zip(parameters, whole, strict=True)):
        assert_same(p.grad, g * factor, f"clipped gradient {index}")

    optimizer = choice(parameters)
    twin = Twin(choice, parameters)
    twin.step([full(p.grad) for p in parameters])
    optimizer.step()
    twin.assert_same(parameters, optimizer.state)


def whole(choice: Choice) -> None:
    """Clipping by the norm of all ranks' gradients, and skipping, inside of the step."""
    model = sharded_network()
    parameters = list(model.parameters())
    generous = choice(parameters, max_norm=1e9)
    loss(model, 0).backward()
    truth = torch.cat([full(p.grad).double().flatten() for p in parameters]).norm().item()
    generous.step()
    assert generous.report.clip == 1
    norm = torch.tensor(generous.report.grad_norm, dtype=torch.float64)
    assert_same_on_all_ranks([norm], "norm")
    torch.testing.assert_close(norm.item(), truth, rtol=1e-14, atol=0)

    laid_out = vars(generous)["_steps"]
    generous.step()
    assert vars(generous)["_steps"] is laid_out, "each step is laid out anew"

    limit = truth / 3
    before = [full(p) for p in parameters]
    clipping = choice(parameters, max_norm=limit)
    clipping.step()
    assert abs(clipping.report.clip - 1 / 3) < 1e-12
    twin = Twin(choice, [nn.Parameter(p) for p in before])
    twin.step([full(p.grad) / 3 for p in parameters])
    for p, q in zip(parameters, twin.parameters, strict=True):
        torch.testing.assert_close(full(p), full(q), rtol=1e-5, atol=1e-6)

    before = [full(p) for p in parameters]
    skipping = choice(parameters, nonfinite="skip")
    first = mesh().get_local_rank(-1) == 0  # and so are its replicas
    if first:
        next(p.grad.to_local() for p in parameters if p.grad.to_local().numel()).fill_(torch.nan)
    skipping.step()
    assert bool(skipping.report.skipped) == first
    for index, (p, old) in enumerate(zip(parameters, before, strict=True)):
        assert_same(p, old, f"skipped parameter {index}")


# Parameters of 16 bits


HALVES: tuple[dict[str, Any], ...] = (
    {},
    {"master": "float32"},
    {"state_dtype": "bfloat16", "rounding": "nearest"},
)
"""Ways to keep bfloat16 parameters that do not depend on how they are cut."""


def wide_network() -> nn.Sequential:
    """Layers of which one is large enough for state in fewer bytes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 80), nn.Linear(80, 3)).to(torch.bfloat16)


def halves(choice: Choice) -> None:
    """Shards of bfloat16: their tails, masters and state, in full, saved whole and gone on from."""
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    from_first = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    for ways in HALVES:
        if "state_dtype" in ways and choice.cls.__name__ in ("Adagrad", "RMSprop"):
            continue  # which refuse it in any case: for its rounding, and for being centered
        kept = choice._replace(options={**choice.options, **ways})
        model = wide_network()
        fully_shard(model, mesh=mesh())
        parameters = list(model.parameters())
        optimizer: Any = kept(parameters)
        twin = Twin(kept, parameters)
        train_halves(parameters, optimizer, range(SAVED))
        train_halves(twin.parameters, twin.optimizer, range(SAVED))
        twin.assert_same(parameters, optimizer.state)
        in_full: Any = twin.optimizer
        for found, exact in zip(optimizer.float32_params(), in_full.float32_params(), strict=True):
            assert_same(found, exact, "parameter in full")
        optimizer.load_float32_params(optimizer.float32_params())

        state = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=whole))
        other = kept(parameters)
        set_optimizer_state_dict(model, other, state, options=from_first)
        train_halves(parameters, other, range(SAVED, STEPS))
        train_halves(twin.parameters, twin.optimizer, range(SAVED, STEPS))
        twin.assert_same(parameters, other.state)
    for way in ({"master": "split8"}, {"state_dtype": "8bit"}):
        if "state_dtype" in way and choice.cls.__name__ in ("Adagrad", "RMSprop"):
            continue
        assert "is sharded" in refusal(partial(choice.__call__, parameters, **way)), way
        late = choice(parameters)
        late.param_groups[0].update(way)
        refused = refusal(partial(train_halves, parameters, late, [0]))
        assert "is sharded" in refused, way


def refusal(call: Callable[[], Any]) -> str:
    """The error that a call raises."""
    try:
        call()
    except ValueError as error:
        return str(error)
    raise AssertionError("nothing was refused")


def train_halves(parameters: Sequence[Any], optimizer: Any, steps: Iterable[int]) -> None:
    for step in steps:
        set_gradients(parameters, [g.to(torch.bfloat16) for g in gradients(parameters, step)])
        optimizer.step()
        optimizer.zero_grad()


TOPICS: dict[str, Callable[..., None]] = {
    each.__name__: each
    for each in (ddp, zero, few, fsdp, tensor_parallel, states, save, load, clip, whole, halves)
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train by several processes, and compare.")
    parser.add_argument("topics", nargs="+", choices=TOPICS, metavar="TOPIC")
    parser.add_argument("--optimizer", action="append", required=True, metavar="MODULE:CLASS")
    parser.add_argument("--folder", type=Path, help="where checkpoints lie")
    arguments = parser.parse_args()
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    for topic in arguments.topics:
        for choice in map(Choice.named, arguments.optimizer):
            if dist.get_rank() == 0:
                print(topic, choice.name, flush=True)
            place = {"folder": arguments.folder} if topic in ("save", "load") else {}
            TOPICS[topic](choice, **place)
    dist.barrier()
    dist.destroy_process_group()
    # A mesh keeps its group, whose threads may still hold tensors of the last collective. When
    # Python shuts down they cannot let go of them, and abort the process.
    os._exit(0)


if __name__ == "__main__":
    main()
