"""Hugging Face's Trainer with another optimizer: it takes a class and arguments for it.

    Trainer(..., optimizer_cls_and_kwargs=(AdamW, {"lr": 0.005, "betas": (0.9, 0.99)}))

The Trainer makes the optimizer itself, with two groups of parameters: biases and the scales of
normalisations are not decayed. It has the rate warm up and fall along a cosine, accumulates two
batches a step, cuts the norm of their gradient at 1, and writes a checkpoint halfway.

A tiny Llama with random weights, and with dropout, learns to count on: 3 5 7 9 … or 27 28 0 1 …,
by 1, 2 or 3, modulo 29. The second token cannot be known, so that the loss stays above
log 3/15 = 0.073. A second Trainer, of a model with other weights, goes on from the first one's
checkpoint, and ends with the same weights, bit for bit.

    python examples/clients/huggingface.py
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from fusedstep.torch import AdamW

STEPS, TOKENS, LENGTH = 80, 29, 16


def sequences(count: int = 4096) -> list[dict[str, Tensor]]:
    """Tokens that count on from a random one."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randint(TOKENS, (count, 1), generator=generator)
    step = torch.randint(1, 4, (count, 1), generator=generator)
    rows = (start + step * torch.arange(LENGTH)) % TOKENS
    return [{"input_ids": row, "labels": row} for row in rows]


def llama(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=TOKENS,
        max_position_embeddings=LENGTH,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        attention_dropout=0.1,
    )
    return LlamaForCausalLM(config)


def arguments(folder: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=32,
        gradient_accumulation_steps=2,
        weight_decay=0.01,
        max_grad_norm=1.0,
        lr_scheduler_type="cosine",
        warmup_steps=STEPS // 10,
        save_steps=STEPS // 2,
        logging_steps=STEPS // 8,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )


class Run(NamedTuple):
    losses: list[float]
    """Means over an eighth of the steps each; of all steps, also where a run was resumed."""
    weights: Tensor
    """All parameters at the end, one after the other."""
    optimizer: torch.optim.Optimizer
    """The one that took the steps, out of the wrapper that the Trainer puts around it."""


def train(optimizer_class: type[torch.optim.Optimizer], folder: Path, resume: bool = False) -> Run:
    """Train, with a checkpoint in the folder halfway; or go on from that one."""
    trainer = Trainer(
        model=llama(seed=1 if resume else 0),
        args=arguments(folder),
        train_dataset=sequences(),
        optimizer_cls_and_kwargs=(optimizer_class, {"lr": 0.005, "betas": (0.9, 0.99)}),
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = folder / f"checkpoint-{STEPS // 2}"
    trainer.train(resume_from_checkpoint=str(checkpoint) if resume else None)
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    weights = torch.nn.utils.parameters_to_vector(trainer.model.parameters()).detach()
    return Run(losses, weights, trainer.optimizer.optimizer)


def main() -> None:
    torch.set_num_threads(1)  # a second one costs more time than it saves here
    disable_progress_bar()
    with TemporaryDirectory() as folder:
        first = train(AdamW, Path(folder))
        second = train(AdamW, Path(folder), resume=True)
    for eighth, loss in enumerate(first.losses, start=1):
        print(f"step {eighth * STEPS // 8:3}    loss {loss:.4f}")
    same = torch.equal(first.weights, second.weights)
    print(f" resumed    loss {second.losses[-1]:.4f}    the same weights: {same}")


if __name__ == "__main__":
    main()
