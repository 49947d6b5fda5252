"""torch's optimizers: the plain loop, the multi-tensor loop, and the fused kernels."""

from __future__ import annotations

from inspect import signature
from typing import Any

from fusedstep.benchmarks.contestants.contestant import (
    Contestant,
    Entry,
    lacks,
    only_updates,
    renewing,
)
from fusedstep.benchmarks.contestants.numpy import why_no_passes
from fusedstep.benchmarks.problem import Array, Problem


class Torch(Contestant):
    packages = ("torch",)

    def __init__(self, name: str, **kind: bool) -> None:
        self.name, self.kind = name, kind

    def why_unfit(self, problem: Problem) -> str | None:
        theirs = optimizer_like(problem)
        if theirs is None:
            return "torch has no such optimizer"
        for kind in self.kind:
            if kind not in signature(theirs).parameters:
                return f"torch has no {kind} {theirs.__name__}"
        return only_updates("torch's", problem) or lacks("torch", theirs, problem)

    def build(self, problem: Problem) -> Entry:
        import torch

        torch.set_num_threads(problem.threads)
        params, grads = problem.params(), problem.grads
        if self.kind.get("foreach") and problem.case.options.get("nesterov"):
            grads = [g.copy() for g in grads]  # foreach writes g + μ·b into them
        tensors = leaves(params, grads)
        optimizer = optimizer_like(problem)(tensors, **problem.case.options, **self.kind)
        ready = renewing(grads, problem)
        return Entry(optimizer.step, lambda: params, problem.threads, ready)


class TorchPasses(Contestant):
    """The whole step with torch, one pass over the tensors after the other, the update fused."""

    name = "torch's passes"
    packages = ("torch",)

    def why_unfit(self, problem: Problem) -> str | None:
        return why_no_passes(problem)

    def build(self, problem: Problem) -> Entry:
        import torch

        torch.set_num_threads(problem.threads)
        params, grads = problem.params(), problem.own_grads()
        tensors = leaves(params, grads)
        gradients = [p.grad for p in tensors]
        averages = [p.detach().clone() for p in tensors]
        hyper, request = problem.hyperparameters, problem.case.request
        optimizer = torch.optim.AdamW(
            tensors, hyper["lr"], weight_decay=hyper["weight_decay"], fused=True
        )

        def step() -> None:
            with torch.no_grad():
                torch._foreach_mul_(gradients, 1 / request["scale"])
                torch.nn.utils.clip_grad_norm_(tensors, request["max_norm"])
                optimizer.step()
                torch._foreach_zero_(gradients)
                torch._foreach_lerp_(averages, tensors, 1 - hyper["ema"])

        return Entry(step, lambda: params, problem.threads, renewing(grads, problem))


def optimizer_like(problem: Problem) -> Any:
    """The torch optimizer of the same name, or None."""
    import torch

    return getattr(torch.optim, problem.case.optimizer.__name__, None)


def leaves(params: list[Array], grads: list[Array]) -> list[Any]:
    """Tensors that share the memory of the parameters, with their gradients."""
    import torch

    tensors = [torch.from_numpy(p).requires_grad_() for p in params]
    for tensor, g in zip(tensors, grads, strict=True):
        tensor.grad = torch.from_numpy(g)
    return tensors
