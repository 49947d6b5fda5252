"""Lightning fits a module whose `configure_optimizers` returns another optimizer.

    configure_optimizers       AdamW, and a cosine for its rate, which falls after each step
    accumulate_grad_batches    4 batches a step, each with a quarter of its gradient
    gradient_clip_val          the norm of their sum is cut at 1
    ModelCheckpoint            all of it after half of the epochs, for ckpt_path to go on from

A small network, the student, learns the outputs of another one, the teacher, whose weights are
random. A second student, with other weights to start from, goes on from the first one's
checkpoint, and ends with the same weights, bit for bit. Lightning does not save the random numbers
that would shuffle the examples, so they are taken in their order.

    python examples/clients/lightning_fit.py
"""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
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


class Student(LightningModule):
    def __init__(self, optimizer_class: type[torch.optim.Optimizer], seed: int) -> None:
        super().__init__()
        self.optimizer_class, self.network = optimizer_class, network(seed)
        self.total, self.losses = 0.0, list[float]()

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        loss = nn.functional.mse_loss(self.network(x), y)
        self.total += loss.item()
        return loss

    def on_train_epoch_end(self) -> None:
        self.losses.append(self.total / self.trainer.num_training_batches)
        self.total = 0.0

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.optimizer_class(self.parameters(), lr=0.02, weight_decay=0.01)
        cosine = CosineAnnealingLR(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


class Run(NamedTuple):
    losses: list[float]
    """The mean over the batches of each epoch."""
    weights: Tensor
    """All parameters at the end, one after the other."""
    optimizer: torch.optim.Optimizer
    """The one that took the steps."""


def train(optimizer_class: type[torch.optim.Optimizer], folder: Path, resume: bool = False) -> Run:
    """Train, with a checkpoint in the folder halfway; or go on from that one."""
    student, half = Student(optimizer_class, seed=1 if resume else 0), EPOCHS // 2
    keep = 0 if resume else -1  # none or all
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        accumulate_grad_batches=ACCUMULATED,
        gradient_clip_val=1.0,
        callbacks=[ModelCheckpoint(folder, "{epoch}", every_n_epochs=half, save_top_k=keep)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    checkpoint = folder / f"epoch={half - 1}.ckpt" if resume else None
    trainer.fit(student, DataLoader(examples(), SIZE), ckpt_path=checkpoint)
    weights = nn.utils.parameters_to_vector(student.parameters()).detach()
    return Run(student.losses, weights, trainer.optimizers[0])


def main() -> None:
    torch.set_num_threads(1)  # a second one costs more time than it saves here
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with TemporaryDirectory() as folder:
        first = train(AdamW, Path(folder))
        second = train(AdamW, Path(folder), resume=True)
    for epoch, loss in enumerate(first.losses, start=1):
        print(f"epoch {epoch:2}    loss {loss:.5f}")
    same = torch.equal(first.weights, second.weights)
    print(f" resumed    loss {second.losses[-1]:.5f}    the same weights: {same}")


if __name__ == "__main__":
    main()
