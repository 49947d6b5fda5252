"""A loop with Hugging Face's Accelerate, which takes any optimizer as it takes torch's.

    prepare            the model, the optimizer, the loader and the scheduler
    accumulate         4 batches a step, each with a quarter of its gradient
    clip_grad_norm_    the norm of their sum is cut at 1
    save_state         all of it after half of the epochs, for load_state to go on from

A small network, the student, learns the outputs of another one, the teacher, whose weights are
random. A second student, with other weights to start from, loads what the first one saved, and
ends with the same weights, bit for bit: not only weights were saved, but the optimizer's state,
the rate, and the random numbers that shuffle the examples.

    python examples/clients/accelerate_loop.py
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

from fusedstep.torch import AdamW

EPOCHS, SIZE, ACCUMULATED = 10, 16, 4


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 4))


def examples(count: int = 1024) -> TensorDataset:
    """Inputs, and what the teacher makes of them."""
    teacher = network(seed=100)
    x = torch.randn(count, 8)
    return TensorDataset(x, teacher(x).detach())


class Run(NamedTuple):
    losses: list[float]
    """The mean over the batches of each epoch."""
    weights: Tensor
    """All parameters at the end, one after the other."""
    optimizer: torch.optim.Optimizer
    """The one that took the steps, out of the wrapper that Accelerate puts around it."""


def train(optimizer_class: type[torch.optim.Optimizer], folder: Path, resume: bool = False) -> Run:
    """Train, and save everything in the folder halfway; or go on from there."""
    data, model = examples(), network(seed=1 if resume else 0)
    optimizer = optimizer_class(model.parameters(), lr=0.02, weight_decay=0.01)
    steps = EPOCHS * len(data) // (SIZE * ACCUMULATED)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATED)
    model, optimizer, loader, scheduler = accelerator.prepare(
        model,
        optimizer,
        DataLoader(data, SIZE, shuffle=True),
        CosineAnnealingLR(optimizer, steps),
    )
    half, losses = EPOCHS // 2, list[float]()
    if resume:
        accelerator.load_state(str(folder))
    for epoch in range(half if resume else 0, EPOCHS):
        if epoch == half and not resume:
            accelerator.save_state(str(folder))
        total = 0.0
        for x, y in loader:
            with accelerator.accumulate(model):
                loss = nn.functional.mse_loss(model(x), y)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            total += loss.item()
        losses.append(total / len(loader))
    weights = nn.utils.parameters_to_vector(model.parameters()).detach()
    return Run(losses, weights, optimizer.optimizer)


def main() -> None:
    torch.set_num_threads(1)  # a second one costs more time than it saves here
    with TemporaryDirectory() as folder:
        first = train(AdamW, Path(folder))
        second = train(AdamW, Path(folder), resume=True)
    for epoch, loss in enumerate(first.losses, start=1):
        print(f"epoch {epoch:2}    loss {loss:.5f}")
    same = torch.equal(first.weights, second.weights)
    print(f" resumed    loss {second.losses[-1]:.5f}    the same weights: {same}")


if __name__ == "__main__":
    main()
