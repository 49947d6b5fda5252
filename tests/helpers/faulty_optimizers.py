"""SGD with momentum in torch, right and in many ways wrong: what an audit must tell apart.

`right.SGD` is the rule; each other class has one fault, which its name says.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import torch
from torch import Tensor


class right:
    class SGD(torch.optim.Optimizer):
        """p = p - α·b, b = μ·b + g + λ·p."""

        def __init__(
            self, params: Any, lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 0.0
        ) -> None:
            super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

        def step(self) -> None:
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        if p.grad is not None:
                            self.change(p, p.grad, group)

        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            g = g + group["weight_decay"] * p
            state = self.state[p]
            b = g if "b" not in state else group["momentum"] * state["b"] + g
            state["b"] = b.clone()
            p.sub_(group["lr"] * b)


class decays_apart:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            p.mul_(1 - group["lr"] * group["weight_decay"])
            super().change(p, g, {**group, "weight_decay": 0.0})


class forgets:
    class SGD(right.SGD):
        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "state": {}}


class breaks_on_loading:
    class SGD(right.SGD):
        def load_state_dict(self, state_dict: Any) -> None:
            raise KeyError("b")


class writes_gradients:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            g.add_(p, alpha=group["weight_decay"])
            super().change(p, g, {**group, "weight_decay": 0.0})


class knows_one_group:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            super().change(p, g, self.param_groups[0])


class keeps_its_rate:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            super().change(p, g, {**group, "lr": self.defaults["lr"]})


class steps_without_gradients:
    class SGD(right.SGD):
        def step(self) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            super().step()


class counts_all_steps:
    class SGD(right.SGD):
        def step(self) -> None:
            super().step()
            for p, state in self.state.items():
                if p.grad is None:
                    state["b"] *= self.defaults["momentum"]


class spreads_nan:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            super().change(p, g + 0 * g.sum() if g.isnan().any() else g, group)


class spreads_infinity:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            super().change(p, g + 0 * g.sum() if g.isinf().any() else g, group)


class rounds_tails_otherwise:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            super().change(p, g, group)
            tail = p.numel() % 8
            if tail and p.is_contiguous() and p.dim():
                last = p.view(-1)[-tail:]
                last.copy_(torch.nextafter(last, torch.zeros_like(last)))


class divides_by_zero:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            super().change(p, g * (g / g), group)


class flushes:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            super().change(p, g, group)
            p[p.abs() < 1.2e-38] = 0


class drops_copies:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            state = self.state[p]
            copy = p.contiguous() if p.dim() else p
            self.state[copy] = state
            super().change(copy, g, group)
            del self.state[copy]
            self.state[p] = state


class leaves_its_memory:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            p.data = p.data.contiguous()
            super().change(p, g, group)


class goes_past_views:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            super().change(p, g, group)
            if not p.is_contiguous():
                start = p.storage_offset() + 1
                torch.as_strided(p, (p.numel(),), (1,), start).add_(0.5)


class reads_gradients_flat:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            flat = torch.as_strided(g, (g.numel(),), (1,), g.storage_offset())
            super().change(p, flat.view(p.shape), group)


class computes_in_bfloat16:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            super().change(p, g.bfloat16().to(g.dtype), group)
            p.copy_(p.bfloat16())


class computes_in_float32:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            super().change(p, g, group)
            p.copy_(p.float())


class is_random:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            super().change(p, g * (1 + 1e-7 * torch.rand(g.shape)), group)


class minds_company:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            super().change(p, g * (1 + 1e-6 * (len(group["params"]) - 1)), group)


class minds_threads:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            more = 1e-6 * (torch.get_num_threads() > 1) * (p.numel() > 1000)
            super().change(p, g * (1 + more), group)


class skips_blocks_of_16_bits:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            full = p.numel() // 32 * 32
            before = p.clone()
            super().change(p, g, group)
            if p.dtype.itemsize == 2 and p.dim() == 1:
                p[:full] = before[:full]


class crashes_on_strides:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            if not g.is_contiguous():
                os.kill(os.getpid(), signal.SIGSEGV)
            super().change(p, g, group)


class hangs_without_dimensions:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            while not p.dim():
                time.sleep(1)
            super().change(p, g, group)


class refuses_views:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            if not p.is_contiguous():
                raise ValueError("p is not contiguous; β")
            super().change(p, g, group)


class Unknown(right.SGD):
    """A rule that no formula is known for."""


class decays_the_tail:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            super().change(p, g, group)
            if p.dim() == 1:
                p[p.numel() // 8 * 8 :] *= 0.5


class leaves_the_tail:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            before = p.clone()
            super().change(p, g, group)
            for k in range(p.numel() // 8 * 8, p.numel()):
                p[numbered(p, k)] = before[numbered(p, k)]


class leaves_the_last_of_a_row:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            before = p.clone()
            super().change(p, g, group)
            if not p.is_contiguous():
                p[..., -1] = before[..., -1]


class minds_a_neighbour:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            if p.numel() > 60:
                g = g.clone()
                g[numbered(g, 5)] += 0.01 * g[numbered(g, 3)]
            super().change(p, g, group)


class loses_nan:
    class SGD(right.SGD):
        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            super().change(p, g.nan_to_num(), group)


class scales_by_norms:
    class SGD(right.SGD):
        """LARS, which mixes elements as it should."""

        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            ratio = float(p.norm()) / float(g.norm() + 1e-6)
            super().change(p, g * (ratio or 1.0), group)


class scales_by_size:
    class SGD(right.SGD):
        """A step that depends on the number of elements."""

        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            super().change(p, g / p.numel() ** 0.5, group)


class estimates_its_rate:
    class SGD(right.SGD):
        """A rate that grows with the way from the start, as D-adaptation has it."""

        def change(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
            state = self.state[p]
            start = state.setdefault("start", p.clone())
            state["d"] = max(state.get("d", 1e-2), float((g * (start - p)).sum() / g.abs().sum()))
            super().change(p, g * state["d"], group)


def numbered(p: Tensor, k: int) -> tuple[int, ...]:
    """The index of an element by its number."""
    found: list[int] = []
    for size in reversed(p.shape):
        k, rest = divmod(k, size)
        found.insert(0, rest)
    return tuple(found)


class Derived(torch.optim.AdamW):
    """AdamW, as it is."""


class WithArguments(torch.optim.Adam):
    """Adam, whose arguments are passed on."""

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)


class TailAdamW(torch.optim.AdamW):
    """AdamW whose last elements, less than a vector, are never stepped."""

    def step(self, closure: Any = None) -> Any:
        with torch.no_grad():
            every = [p for group in self.param_groups for p in group["params"]]
            before = [p.clone() for p in every]
            loss = super().step(closure)
            for p, old in zip(every, before, strict=True):
                for k in range(p.numel() // 8 * 8, p.numel()):
                    p[numbered(p, k)] = old[numbered(p, k)]
        return loss


class TwiceAdam(torch.optim.Adam):
    """Adam that steps twice."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        return super().step(closure)


class LateAdam(torch.optim.Adam):
    """Adam whose steps are counted from 1000."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            self._init_group(group, [], [], [], [], [], [])
        for state in self.state.values():
            state["step"].clamp_(min=1000)
        return super().step(closure)


class ForgivingAdam(torch.optim.Adam):
    """Adam that takes a NaN for 0."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad = p.grad.nan_to_num()
        return super().step(closure)


class NormedAdam(torch.optim.Adam):
    """Adam whose gradients are divided by their norm: another rule."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.numel():
                    p.grad = p.grad / (p.grad.norm() + 1e-6)
        return super().step(closure)


class Plain(right.SGD):
    """SGD, under a name that says nothing."""
